//! Clean stops (L8): everything acked is there, the marker says so, and is believed once only.

use crate::common::producer::{Client, batch};
use crate::common::{self, Broker};
use crate::scene::{Scene, heard, names, say, wait_until};
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

const MARKER: &str = ".kafka_cleanshutdown";
const RECOVERED: &str = "after an unclean stop";

/// Produces until the broker goes; gives how many batches were acked.
fn load(address: &str, number: i32) -> usize {
    let mut client = Client::connect(address).unwrap();
    let id = client.producer_id().unwrap();
    for sequence in 0.. {
        let value = format!("{number} {sequence}");
        let bytes = batch(Some((id, sequence)), &[value.as_bytes()]);
        match client.produce("t", number % 2, &bytes) {
            Ok(answer) => drop(answer.expect("no error while stopping")),
            Err(_) => return sequence as usize,
        }
    }
    unreachable!()
}

fn stops_cleanly(signal: &str) {
    let scene = Scene::new();
    let mut broker = Broker::start(&scene.data(), &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    client.create("t", 2, &[("segment.bytes", "20000")]);
    let address = broker.address.clone();
    let acked: usize = thread::scope(|scope| {
        let address = &address;
        let loads: Vec<_> = (0..4)
            .map(|number| scope.spawn(move || load(address, number)))
            .collect();
        thread::sleep(Duration::from_millis(200));
        broker.signal(signal);
        assert_eq!(broker.wait().code(), Some(0), "{}", broker.log());
        loads.into_iter().map(|load| load.join().unwrap()).sum()
    });
    assert!(scene.data().join(MARKER).exists());

    let broker = Broker::start(&scene.data(), &[]);
    assert!(
        !broker.log().contains(RECOVERED),
        "no batch is read after a clean stop: {}",
        broker.log()
    );
    assert!(
        !scene.data().join(MARKER).exists(),
        "the marker is gone before anything is served"
    );
    let mut client = Client::connect(&broker.address).unwrap();
    let mut there: Vec<String> = (0..2)
        .flat_map(|index| heard(&mut client, "t", index))
        .collect();
    let count = there.len();
    there.sort();
    there.dedup();
    assert_eq!(count, there.len(), "each once");
    // What was answered is there; a stop may keep from the producer what it still wrote.
    assert!(
        (acked..=acked + 4).contains(&count),
        "{acked} acked, {count} there"
    );
}

#[test]
fn sigterm_under_load_is_a_clean_stop() {
    stops_cleanly("TERM");
}

#[test]
fn sigint_under_load_is_a_clean_stop() {
    stops_cleanly("INT");
}

#[test]
fn a_marker_is_believed_once() {
    let scene = Scene::new();
    let broker = Broker::start(&scene.data(), &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    client.create("t", 1, &[]);
    say(&mut client, "t", "a").unwrap().unwrap();
    assert!(broker.stop().success());
    // Killed right after the start: nothing was written, and still the next start must look.
    Broker::start(&scene.data(), &[]).kill();
    let broker = Broker::start(&scene.data(), &[]);
    assert!(broker.log().contains(RECOVERED), "{}", broker.log());
    let mut client = Client::connect(&broker.address).unwrap();
    assert_eq!(heard(&mut client, "t", 0), ["a"]);
}

#[test]
fn a_second_broker_on_the_same_directory_is_refused() {
    let scene = Scene::new();
    let broker = Broker::start(&scene.data(), &[]);
    let Err((status, log)) = Broker::try_start(&scene.data(), &[], |_| {}) else {
        panic!("two brokers on one directory");
    };
    assert_eq!(status.code(), Some(3));
    let line = format!(
        "ottla: another broker uses {}: stop it, or choose another --data",
        scene.data().display()
    );
    assert_eq!(log.trim_end(), line);
    let mut client = Client::connect(&broker.address).unwrap();
    client.create("t", 1, &[]);
    assert!(broker.stop().success());
    // The lock goes with its process, however that ends.
    Broker::start(&scene.data(), &[]).kill();
    assert!(Broker::start(&scene.data(), &[]).stop().success());
}

/// What a consumer may ask of a partition: every fetch position, every time, every epoch.
fn answers(client: &mut Client, topic: &str) -> Vec<String> {
    let end = client.list_offset(topic, 0, -1).unwrap().unwrap();
    let mut answers = Vec::new();
    for offset in (0..=end).step_by(7) {
        let data = client.fetch(topic, 0, offset, 0).unwrap();
        let first = common::producer::batches(common::producer::bytes_of(&data.records))
            .first()
            .map(|b| b.header);
        answers.push(format!(
            "{offset}: {first:?} {} {}",
            data.last_stable_offset, data.log_start_offset
        ));
    }
    for time in (-3..0).chain((0..end).step_by(11).map(time_ms)) {
        answers.push(format!(
            "{time}: {:?}",
            client.list_offset(topic, 0, time).unwrap()
        ));
    }
    answers.push(format!("{:?}", client.end_of_epoch(topic, 0, 0).unwrap()));
    answers
}

fn time_ms(n: i64) -> i64 {
    // Not in order, as producers' clocks are.
    1_700_000_000_000 + n * 10 - (n % 5) * 37
}

fn remove_hints(data: &Path, doomed: impl Fn(&str) -> bool) -> usize {
    let mut removed = 0;
    for dir in [data.to_owned(), data.join("t-0")] {
        for name in names(&dir, "").iter().filter(|name| doomed(name)) {
            removed += 1;
            fs::remove_file(dir.join(name)).unwrap();
        }
    }
    removed
}

/// P9: indexes, time indexes, recovery points and producer snapshots may be deleted; it costs the start's time alone.
#[test]
fn deleted_hints_cost_time_only() {
    let scene = Scene::new();
    let settings = [("segment.bytes", "30000"), ("index.interval.bytes", "500")];
    let mut broker = Broker::start(&scene.data(), &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    client.create("t", 1, &settings);
    let id = client.producer_id().unwrap();
    let made = |n: i32| {
        let mut builder = ottla::batch::builder::Builder::new(time_ms(n.into())).producer(id, 0, n);
        builder.add(
            None,
            Some("value ".repeat(20).as_bytes()),
            &[],
            time_ms(n.into()),
        );
        builder.build()
    };
    for n in 0..600 {
        assert_eq!(client.produce("t", 0, &made(n)).unwrap(), Ok(n.into()));
    }
    let expected = answers(&mut client, "t");
    let is_index = |name: &str| name.ends_with("index");
    let is_hint = |name: &str| {
        is_index(name) || name.ends_with(".snapshot") || name.starts_with("recovery-point")
    };
    // All of one kind, all, and those of some segments.
    let choices: [&dyn Fn(&str) -> bool; 3] = [&is_index, &is_hint, &|name| {
        is_hint(name) && name.bytes().map(u32::from).sum::<u32>() % 3 == 0
    }];
    for clean in [true, false] {
        for doomed in choices {
            match clean {
                true => assert!(broker.stop().success()),
                false => broker.kill(),
            }
            assert!(remove_hints(&scene.data(), doomed) > 0);
            broker = Broker::start(&scene.data(), &[]);
            let mut client = Client::connect(&broker.address).unwrap();
            assert!(answers(&mut client, "t") == expected, "clean: {clean}");
            assert_eq!(
                client.produce("t", 0, &made(598)).unwrap(),
                Ok(598),
                "still a duplicate"
            );
        }
    }
}

/// What a roll sealed is not read again, though the minute between two checkpoints is not over.
#[test]
fn a_roll_brings_a_checkpoint() {
    let scene = Scene::new();
    let broker = Broker::start(&scene.data(), &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    client.create("t", 1, &[("segment.bytes", "10000")]);
    for _ in 0..30 {
        say(&mut client, "t", &"x".repeat(1000)).unwrap().unwrap();
    }
    let saved = scene.data().join("recovery-point-offset-checkpoint");
    wait_until(|| fs::read_to_string(&saved).is_ok_and(|text| text.contains("t 0 30\n")));
    say(&mut client, "t", "last").unwrap().unwrap();
    broker.kill();
    let broker = Broker::start(&scene.data(), &[]);
    let log = broker.log();
    let line = log
        .lines()
        .find(|line| line.contains(RECOVERED))
        .expect("the stop was not clean");
    // Four segments of nine, and the catalog's few.
    let batches = line
        .split_once("stop: ")
        .and_then(|(_, rest)| rest.split(' ').next()?.parse::<u32>().ok());
    assert!(batches.expect("a number") < 20, "{line}");
    let mut client = Client::connect(&broker.address).unwrap();
    assert_eq!(heard(&mut client, "t", 0).len(), 31);
}
