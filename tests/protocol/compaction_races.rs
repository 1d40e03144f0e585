//! Compaction beside what else removes records: retention (`cleanup.policy=compact,delete`), DeleteRecords, a changed
//! policy. A reader gets what it asks for, exactly, or OFFSET_OUT_OF_RANGE.

use crate::common::Broker;
use crate::common::client::Client;
use crate::common::keyed::{self, Change};
use crate::common::producer::{self, batches, bytes_of};
use crate::common::requests;
use crate::common::settings::{TOPIC, altered, set};
use crate::start;
use ottla::api::delete_records::*;
use std::fs;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

const EAGER: [&str; 2] = [
    "log.cleaner.backoff.ms=10",
    "log.retention.check.interval.ms=20",
];
const SMALL: [(&str, &str); 3] = [
    ("segment.bytes", "1000"),
    ("min.cleanable.dirty.ratio", "0.01"),
    ("file.delete.delay.ms", "0"),
];
const OFFSET_OUT_OF_RANGE: i16 = 1;
const RECORDS: usize = 300;

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap().as_millis() as i64
}

fn change(n: usize) -> Change {
    Change {
        key: format!("key {}", n * 7 % 13),
        value: (!n.is_multiple_of(5)).then(|| format!("{n} {}", "v".repeat(50))),
    }
}

fn write(client: &mut producer::Client, n: usize) {
    let bytes = keyed::batch(None, now_ms(), &[change(n)]);
    assert_eq!(client.produce("t", 0, &bytes).unwrap(), Ok(n as i64));
}

/// Reads from the start to the end, and looks whether that is what was written; nothing if the start was raised
/// meanwhile. Each record is a batch.
fn check(client: &mut producer::Client) -> Option<i64> {
    let start = client.list_offset("t", 0, -2).unwrap().unwrap();
    let (mut next, mut changes) = (start, Vec::new());
    loop {
        let data = client.fetch("t", 0, next, 0).unwrap();
        if data.error_code == OFFSET_OUT_OF_RANGE {
            assert!(
                data.log_start_offset > next || client.list_offset("t", 0, -2).unwrap() > Ok(next)
            );
            return None;
        }
        assert_eq!(data.error_code, 0);
        let all = batches(bytes_of(&data.records));
        for batch in &all {
            assert!(batch.header.base_offset >= next);
            let told = keyed::changes(batch);
            for told in &told {
                assert_eq!(told, &change(batch.header.base_offset as usize));
            }
            changes.extend(told);
            next = batch.header.last_offset() + 1;
        }
        if all.is_empty() {
            let written: Vec<Change> = (start..next).map(|n| change(n as usize)).collect();
            assert_eq!(
                keyed::sum(&changes),
                keyed::sum(&written),
                "{start}..{next}"
            );
            return Some(next);
        }
    }
}

/// Writes while readers rebuild the map; `beside` is called now and then with how much is written.
fn race(broker: &Broker, from: usize, mut beside: impl FnMut(usize)) {
    let (stop, seen) = (AtomicBool::new(false), AtomicI64::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut client = producer::Client::connect(&broker.address).unwrap();
                while !stop.load(Ordering::SeqCst) {
                    let end = check(&mut client);
                    seen.fetch_max(end.unwrap_or(0), Ordering::SeqCst);
                }
            });
        }
        let mut client = producer::Client::connect(&broker.address).unwrap();
        for n in from..from + RECORDS {
            write(&mut client, n);
            if n % 20 == 0 {
                beside(n);
            }
        }
        stop.store(true, Ordering::SeqCst);
    });
    assert!(seen.into_inner() > from as i64, "no reader came to an end");
}

fn expect_compacted(broker: &Broker) {
    let began = Instant::now();
    while !broker.log().contains("compacted up to") {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "nothing is compacted"
        );
        thread::sleep(Duration::from_millis(5));
    }
}

fn expect_all(broker: &Broker, end: usize) {
    let mut client = producer::Client::connect(&broker.address).unwrap();
    while check(&mut client) != Some(end as i64) {}
    assert!(!broker.log().contains("not compacted"), "{}", broker.log());
}

#[test]
fn a_log_that_is_compacted_and_deleted_from_is_exact_to_every_reader() {
    let (data, broker, mut client) = start(&EAGER);
    let both = [
        ("cleanup.policy", "compact,delete"),
        ("retention.bytes", "4000"),
    ];
    client.create("t", &[&SMALL[..], &both].concat());
    race(&broker, 0, |_| {});
    expect_compacted(&broker);
    assert!(client.offset("t", -2).offset > 0);
    expect_all(&broker, RECORDS);
    broker.kill();
    let broker = Broker::start(data.path(), &EAGER);
    expect_all(&broker, RECORDS);
    race(&broker, RECORDS, |_| {});
    expect_all(&broker, 2 * RECORDS);
}

fn delete(client: &mut Client, offset: i64) {
    let request = requests::delete_records("t", 0, offset);
    let answer: DeleteRecordsResponse = client.call(2, &request);
    let answer = &answer.topics[0].partitions[0];
    assert_eq!((answer.error_code, answer.low_watermark), (0, offset));
}

#[test]
fn records_are_deleted_while_they_are_compacted() {
    let (data, broker, mut client) = start(&EAGER);
    let topic = [("cleanup.policy", "compact,delete"), ("retention.ms", "-1")];
    client.create("t", &[&SMALL[..], &topic].concat());
    race(&broker, 0, |n| delete(&mut client, n as i64 * 2 / 3));
    expect_compacted(&broker);
    expect_all(&broker, RECORDS);
    let first = client.offset("t", -2).offset;
    broker.kill();
    let broker = Broker::start(data.path(), &EAGER);
    assert_eq!(
        Client::connect(&broker.address).offset("t", -2).offset,
        first
    );
    expect_all(&broker, RECORDS);
}

/// Compaction goes on and off with the policy; what was compacted stays a sound log.
#[test]
fn the_policy_is_changed_while_a_log_is_compacted() {
    let (data, broker, mut client) = start(&EAGER);
    client.create(
        "t",
        &[&SMALL[..], &[("cleanup.policy", "compact")]].concat(),
    );
    let mut policies = ["delete", "compact", "compact,delete"].iter().cycle();
    race(&broker, 0, |_| {
        let policy = policies.next().unwrap();
        altered(&mut client, TOPIC, "t", &[set("cleanup.policy", policy)]);
    });
    altered(&mut client, TOPIC, "t", &[set("cleanup.policy", "compact")]);
    expect_compacted(&broker);
    altered(&mut client, TOPIC, "t", &[set("cleanup.policy", "delete")]);
    expect_all(&broker, RECORDS);
    broker.kill();
    // Holes that compaction left are none that a disk left. A quick run is killed before its first recovery points.
    if let Err(e) = fs::remove_file(data.path().join("recovery-point-offset-checkpoint")) {
        assert_eq!(e.kind(), ErrorKind::NotFound);
    }
    let broker = Broker::start(data.path(), &EAGER);
    expect_all(&broker, RECORDS);
    let log = broker.log();
    assert!(!log.contains("lost") && !log.contains("torn"), "{log}");
}
