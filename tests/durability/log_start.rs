//! DeleteRecords, cut off at every change of the disk (L4): an answered log start holds, what lies below it never comes
//! back, and nothing else goes with it.

use crate::common::Broker;
use crate::common::producer::{Client, batch};
use crate::common::requests;
use crate::power::cut_everywhere;
use crate::scene::{Scene, names, values_of, wait_until};
use ottla::api::delete_records::*;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// The log start and the end, as the answers up to a place in the changes tell them.
type Answered = (u64, i64, i64);

fn delete_records(client: &mut Client, topic: &str, offset: i64) -> (i16, i64) {
    let request = requests::delete_records(topic, 0, offset);
    let answer: DeleteRecordsResponse = client.call(2, &request).unwrap();
    let partition = &answer.topics[0].partitions[0];
    (partition.error_code, partition.low_watermark)
}

fn say(client: &mut Client, offset: i64) {
    let value = format!("{offset} {}", "x".repeat(40));
    let said = client.produce("t", 0, &batch(None, &[value.as_bytes()]));
    assert_eq!(said.unwrap(), Ok(offset));
}

/// Fills segments of two records, and deletes now within one, now whole ones, now all.
fn live(scene: &mut Scene) -> Vec<Answered> {
    // A sync's end is recorded so much after it: who answers too early is caught in between.
    scene.shim.set_sync_delay(Duration::from_millis(2)).unwrap();
    let broker = scene.start(&[]);
    let changes = scene.changes(1);
    let mut client = Client::connect(&broker.address).unwrap();
    let settings = [("segment.bytes", "250"), ("file.delete.delay.ms", "0")];
    client.create("t", 1, &settings);
    let mut answered = Vec::new();
    let (mut start, mut end) = (0, 0);
    for raised in [1, 4, 5, -1, 11] {
        for _ in 0..3 {
            say(&mut client, end);
            end += 1;
            answered.push((fs::metadata(&changes).unwrap().len(), start, end));
        }
        let expected = if raised < 0 { end } else { raised.max(start) };
        assert_eq!(delete_records(&mut client, "t", raised), (0, expected));
        start = expected;
        answered.push((fs::metadata(&changes).unwrap().len(), start, end));
    }
    say(&mut client, end);
    broker.kill();
    answered
}

fn check(image: &Path, cut: u64, answered: &[Answered]) {
    let Some(&(_, start, end)) = answered.iter().rfind(|(at, ..)| *at <= cut) else {
        return;
    };
    // What was asked for and not answered by then may have happened or not.
    let next = answered.iter().find(|(at, ..)| *at > cut);
    let (start_max, end_max) = next.map_or((start, end + 1), |&(_, start, end)| (start, end));
    let broker = Broker::start_with(image, &[], |command| {
        command.env("RUST_LOG", "warn");
    });
    let mut client = Client::connect(&broker.address).unwrap();
    let first = client.list_offset("t", 0, -2).unwrap().unwrap();
    assert!(
        (start..=start_max).contains(&first),
        "{start} was answered, {first} is there"
    );
    if first > 0 {
        assert_eq!(client.fetch("t", 0, first - 1, 0).unwrap().error_code, 1);
    }
    let (there, last) = client.fetch_from("t", 0, first).unwrap();
    assert!((end..=end_max).contains(&last), "{end}: {last}");
    for (offset, batch) in (first..last).zip(&there) {
        let value = &values_of(&batch.bytes)[0];
        assert_eq!(batch.header.base_offset, offset);
        assert!(value.starts_with(&format!("{offset} ")), "{value}");
    }
    assert_eq!(there.len() as i64, last - first);
    wait_until(|| names(&image.join("t-0"), ".deleted").is_empty());
    say(&mut client, last);
}

#[test]
fn an_answered_log_start_holds_wherever_the_power_is_cut() {
    cut_everywhere("log start", Scene::new(), live, check);
}

/// P9: no log start is told that is not durable, and nothing goes that no durable one passed.
#[test]
fn a_log_start_that_cannot_be_saved_is_not_answered() {
    let scene = Scene::new();
    let broker = Broker::start(&scene.data(), &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    let settings = [("segment.bytes", "250"), ("file.delete.delay.ms", "0")];
    client.create("t", 1, &settings);
    (0..6).for_each(|offset| say(&mut client, offset));
    let segments = || names(&scene.data().join("t-0"), ".log").len();
    let before = segments();
    let obstacle = scene.data().join("log-start-offset-checkpoint.tmp");
    fs::create_dir(&obstacle).unwrap();
    assert_eq!(delete_records(&mut client, "t", -1), (56, -1));
    assert_eq!(segments(), before);
    fs::remove_dir(&obstacle).unwrap();
    assert_eq!(delete_records(&mut client, "t", -1), (0, 6));
    broker.kill();
    let broker = Broker::start(&scene.data(), &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    assert_eq!(client.list_offset("t", 0, -2).unwrap(), Ok(6));
    assert!(segments() < before);
}

/// A start without them would bring deleted records back, and the next save make that durable.
#[test]
fn a_disk_that_does_not_give_the_log_starts_stops_the_start() {
    let mut scene = Scene::new();
    let broker = scene.start(&[]);
    let mut client = Client::connect(&broker.address).unwrap();
    client.create("t", 1, &[]);
    (0..6).for_each(|offset| say(&mut client, offset));
    assert_eq!(delete_records(&mut client, "t", 4), (0, 4));
    broker.kill();
    let checkpoint = scene.data().join("log-start-offset-checkpoint");
    let away = scene.path("away");
    fs::rename(&checkpoint, &away).unwrap();
    // To read it is refused.
    fs::create_dir(&checkpoint).unwrap();
    let Err((status, log)) = scene.try_start(&[]) else {
        panic!("it started without the log starts");
    };
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("log-start-offset-checkpoint"), "{log}");
    fs::remove_dir(&checkpoint).unwrap();
    fs::rename(&away, &checkpoint).unwrap();
    let broker = scene.start(&[]);
    let mut client = Client::connect(&broker.address).unwrap();
    assert_eq!(client.list_offset("t", 0, -2).unwrap(), Ok(4));
}
