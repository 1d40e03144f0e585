//! Retention, cut off at every change of the disk (L3): a log start that was told never falls, nothing below it comes
//! back, and no acknowledged record above it goes.

use crate::common::Broker;
use crate::common::producer::{Client, batch};
use crate::power::cut_everywhere;
use crate::scene::{Scene, names, values_of, wait_until};
use std::fs;
use std::path::Path;
use std::time::Duration;

const SETTINGS: &[&str] = &["log.retention.check.interval.ms=2"];

/// Segments of two records. Of the one the oldest go; of the other all, the one that is appended to among them.
const TOPICS: [(&str, (&str, &str)); 2] = [
    ("sized", ("retention.bytes", "500")),
    ("aged", ("retention.ms", "3")),
];

/// What was told of a topic: how long the record of changes was then, the log start, the end.
type Told = (u64, &'static str, i64, i64);

fn create(client: &mut Client) {
    let common = [("segment.bytes", "250"), ("file.delete.delay.ms", "0")];
    for (topic, limit) in TOPICS {
        client.create(topic, 1, &[&common[..], &[limit]].concat());
    }
}

fn say(client: &mut Client, topic: &str, offset: i64) {
    let value = format!("{offset} {}", "x".repeat(40));
    let said = client.produce(topic, 0, &batch(None, &[value.as_bytes()]));
    assert_eq!(said.unwrap(), Ok(offset));
}

fn live(scene: &mut Scene) -> Vec<Told> {
    // A sync's end is recorded so much after it: what is told too early is caught in between.
    scene.shim.set_sync_delay(Duration::from_millis(2)).unwrap();
    let broker = scene.start(SETTINGS);
    let changes = scene.changes(1);
    let mut client = Client::connect(&broker.address).unwrap();
    let mut told = Vec::new();
    create(&mut client);
    for offset in 0..12 {
        for (topic, _) in TOPICS {
            say(&mut client, topic, offset);
            for _ in 0..2 {
                let start = client.list_offset(topic, 0, -2).unwrap().unwrap();
                let at = fs::metadata(&changes).unwrap().len();
                told.push((at, topic, start, offset + 1));
            }
        }
    }
    let all_went = |client: &mut Client| client.list_offset("aged", 0, -2).unwrap() == Ok(12);
    while !all_went(&mut client) {}
    told.push((fs::metadata(&changes).unwrap().len(), "aged", 12, 12));
    broker.kill();
    told
}

fn check(image: &Path, cut: u64, told: &[Told]) {
    // Nothing goes by retention while it is looked at.
    let broker = Broker::start_with(image, &[], |command| {
        command.env("RUST_LOG", "warn");
    });
    let mut client = Client::connect(&broker.address).unwrap();
    for (topic, _) in TOPICS {
        let before = |&&(at, of, ..): &&Told| of == topic && at <= cut;
        let Some(&(.., start, end)) = told.iter().rfind(before) else {
            continue;
        };
        let first = client.list_offset(topic, 0, -2).unwrap().unwrap();
        let last = client.list_offset(topic, 0, -1).unwrap().unwrap();
        assert!(
            first >= start,
            "{topic}: {start} was told, {first} is there"
        );
        assert!(last >= end, "{topic}: {end} was told, {last} is the end");
        if first > 0 {
            assert_eq!(client.fetch(topic, 0, first - 1, 0).unwrap().error_code, 1);
        }
        let (there, _) = client.fetch_from(topic, 0, first).unwrap();
        assert_eq!(there.len() as i64, last - first, "{topic}");
        for (offset, batch) in (first..last).zip(&there) {
            let value = &values_of(&batch.bytes)[0];
            assert!(value.starts_with(&format!("{offset} ")), "{topic}: {value}");
        }
        wait_until(|| names(&image.join(format!("{topic}-0")), ".deleted").is_empty());
        say(&mut client, topic, last);
    }
}

#[test]
fn a_log_start_that_was_told_never_falls_wherever_the_power_is_cut() {
    cut_everywhere("retention", Scene::new(), live, check);
}

/// On a full disk nothing can be saved, and retention is what makes room.
#[test]
fn segments_go_even_where_their_log_start_cannot_be_saved() {
    let scene = Scene::new();
    let broker = Broker::start(&scene.data(), SETTINGS);
    let mut client = Client::connect(&broker.address).unwrap();
    create(&mut client);
    let obstacle = scene.data().join("log-start-offset-checkpoint.tmp");
    fs::create_dir(&obstacle).unwrap();
    for (topic, _) in TOPICS {
        (0..8).for_each(|offset| say(&mut client, topic, offset));
    }
    let start = |client: &mut Client, topic| client.list_offset(topic, 0, -2).unwrap().unwrap();
    while start(&mut client, "aged") < 8 || start(&mut client, "sized") < 2 {}
    let before = start(&mut client, "sized");
    broker.kill();
    fs::remove_dir(&obstacle).unwrap();
    let broker = Broker::start(&scene.data(), &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    assert_eq!(start(&mut client, "aged"), 8);
    assert!(start(&mut client, "sized") >= before);
    say(&mut client, "aged", 8);
}
