//! Compaction as clients see it: whoever reads from the start rebuilds the same map at any moment, and each setting of
//! it does what it says.

use crate::common::Broker;
use crate::common::client::Client;
use crate::common::keyed::{self, Change, rebuilt};
use crate::common::producer;
use crate::common::settings::{TOPIC, altered, set};
use crate::start;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

const EAGER: [&str; 1] = ["log.cleaner.backoff.ms=1"];
const SMALL: [(&str, &str); 3] = [
    ("cleanup.policy", "compact"),
    ("segment.bytes", "2000"),
    ("min.cleanable.dirty.ratio", "0.01"),
];

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap().as_millis() as i64
}

fn change(key: usize, value: Option<usize>) -> Change {
    Change {
        key: format!("key {key}"),
        value: value.map(|value| format!("{value} {}", "v".repeat(100))),
    }
}

/// Writes changes of so many keys in turn, one a batch.
fn write(client: &mut producer::Client, time_ms: i64, keys: usize, count: usize) -> Vec<Change> {
    let changes: Vec<Change> = (0..count).map(|n| change(n % keys, Some(n))).collect();
    for one in &changes {
        let bytes = keyed::batch(None, time_ms, std::slice::from_ref(one));
        client.produce("t", 0, &bytes).unwrap().unwrap();
    }
    changes
}

/// Waits until so few records are left that a consumer reads.
#[track_caller]
fn expect_records(client: &mut producer::Client, at_most: usize) {
    let began = Instant::now();
    loop {
        let (_, records, _) = rebuilt(client, "t", 0);
        if records <= at_most {
            return;
        }
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "{records} are left"
        );
        thread::sleep(Duration::from_millis(10));
    }
}

fn connect(broker: &Broker) -> producer::Client {
    producer::Client::connect(&broker.address).unwrap()
}

fn scene(
    broker: &[&str],
    topic: &[(&str, &str)],
) -> (tempfile::TempDir, Broker, Client, producer::Client) {
    let (data, broker, mut client) = start(broker);
    client.create("t", &[&SMALL[..], topic].concat());
    let writer = connect(&broker);
    (data, broker, client, writer)
}

/// Readers rebuild the map over and over while it is written and compacted, and across kills of the broker.
#[test]
fn a_consumer_rebuilds_the_map_at_any_moment() {
    let settings = ["file.delete.delay.ms", "0"];
    let (data, mut broker, ..) = scene(&EAGER, &[(settings[0], settings[1])]);
    let mut changes = Vec::new();
    for round in 0..3 {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut client = connect(&broker);
                let mut seen = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    seen.push(rebuilt(&mut client, "t", 0));
                }
                seen
            });
            let mut client = connect(&broker);
            for n in 0..400 {
                let one = change(n * 7 % 13, (n % 5 > 0).then_some(round * 1000 + n));
                let bytes = keyed::batch(None, now_ms(), std::slice::from_ref(&one));
                client.produce("t", 0, &bytes).unwrap().unwrap();
                changes.push(one);
            }
            stop.store(true, Ordering::SeqCst);
            for (map, _, end) in reader.join().unwrap() {
                assert_eq!(map, keyed::sum(&changes[..end as usize]), "at {end}");
            }
            expect_records(&mut client, 60);
        });
        broker.kill();
        broker = Broker::start(data.path(), &EAGER);
        let (map, _, end) = rebuilt(&mut connect(&broker), "t", 0);
        assert_eq!((map, end as usize), (keyed::sum(&changes), changes.len()));
    }
}

#[test]
fn compaction_can_be_turned_off() {
    let (data, broker, _, mut writer) = scene(&[EAGER[0], "log.cleaner.enable=false"], &[]);
    write(&mut writer, now_ms(), 3, 100);
    thread::sleep(Duration::from_millis(200));
    assert_eq!(rebuilt(&mut writer, "t", 0).1, 100);
    assert!(broker.stop().success());
    let broker = Broker::start(data.path(), &EAGER);
    expect_records(&mut connect(&broker), 30);
}

/// The first look comes with the start; what is written behind it waits.
#[test]
fn compaction_rests_between_looks() {
    let (_data, _broker, mut client, mut writer) = scene(&["log.cleaner.backoff.ms=3600000"], &[]);
    write(&mut writer, now_ms(), 3, 100);
    thread::sleep(Duration::from_millis(200));
    assert_eq!(rebuilt(&mut writer, "t", 0).1, 100);
    let brief = set("log.cleaner.backoff.ms", "1");
    altered(&mut client, crate::common::settings::BROKER, "", &[brief]);
    write(&mut writer, now_ms(), 3, 100);
    expect_records(&mut writer, 30);
}

#[test]
fn a_small_map_takes_more_passes() {
    let map = [
        "log.cleaner.dedupe.buffer.size=1024",
        "log.cleaner.io.buffer.load.factor=0.5",
    ];
    let (_data, broker, _, mut writer) = scene(&[EAGER[0], map[0], map[1]], &[]);
    let written = write(&mut writer, now_ms(), 100, 400);
    expect_records(&mut writer, 120);
    assert_eq!(rebuilt(&mut writer, "t", 0).0, keyed::sum(&written));
    let passes = broker.log().matches("compacted up to").count();
    assert!(passes > 1, "{passes} passes");
}

#[test]
fn compaction_keeps_to_its_limit() {
    let limit = "log.cleaner.io.max.bytes.per.second=1000";
    let (_data, _broker, mut client, mut writer) = scene(&[EAGER[0], limit], &[]);
    write(&mut writer, now_ms(), 3, 100);
    thread::sleep(Duration::from_millis(500));
    assert!(rebuilt(&mut writer, "t", 0).1 > 90);
    let fast = set("log.cleaner.io.max.bytes.per.second", "1e9");
    altered(&mut client, crate::common::settings::BROKER, "", &[fast]);
    expect_records(&mut writer, 30);
}

/// A tombstone gets its horizon from the pass that first meets it, and goes with a later one (KIP-534).
#[test]
fn tombstones_go_after_delete_retention_ms() {
    let (_data, _broker, mut client, mut writer) = scene(&EAGER, &[("delete.retention.ms", "0")]);
    let tombstones = |writer: &mut producer::Client| {
        let (batches, _) = writer.fetch_from("t", 0, 0).unwrap();
        let changes = batches.iter().flat_map(keyed::changes);
        changes.filter(|change| change.value.is_none()).count()
    };
    let bury = |writer: &mut producer::Client, key| {
        let end = keyed::batch(None, now_ms(), &[change(key, None)]);
        writer.produce("t", 0, &end).unwrap().unwrap();
        write(writer, now_ms(), 1, 60);
        expect_records(writer, 30);
    };
    bury(&mut writer, 1);
    let began = Instant::now();
    while tombstones(&mut writer) > 0 {
        assert!(began.elapsed() < Duration::from_secs(30), "it stays");
        write(&mut writer, now_ms(), 1, 20);
    }
    let day = set("delete.retention.ms", "86400000");
    altered(&mut client, TOPIC, "t", &[day]);
    bury(&mut writer, 2);
    for _ in 0..3 {
        write(&mut writer, now_ms(), 1, 60);
        expect_records(&mut writer, 30);
    }
    assert_eq!(tombstones(&mut writer), 1);
}

#[test]
fn min_compaction_lag_ms_is_in_force() {
    let (_data, _broker, mut client, mut writer) =
        scene(&EAGER, &[("min.compaction.lag.ms", "86400000")]);
    write(&mut writer, now_ms(), 3, 100);
    thread::sleep(Duration::from_millis(200));
    assert_eq!(rebuilt(&mut writer, "t", 0).1, 100);
    altered(
        &mut client,
        TOPIC,
        "t",
        &[set("min.compaction.lag.ms", "0")],
    );
    expect_records(&mut writer, 30);
}

/// It compacts whatever the ratio, and seals the active segment in time for that.
#[test]
fn max_compaction_lag_ms_is_in_force() {
    let (data, _broker, mut client, mut writer) = scene(
        &EAGER,
        &[
            ("min.cleanable.dirty.ratio", "1"),
            ("segment.bytes", "1000000"),
        ],
    );
    let old = now_ms() - 10_000_000;
    write(&mut writer, old, 3, 30);
    write(&mut writer, old + 5_000_000, 3, 30);
    assert_eq!(segments(data.path()), 1);
    altered(
        &mut client,
        TOPIC,
        "t",
        &[set("max.compaction.lag.ms", "1000000")],
    );
    write(&mut writer, old + 9_000_000, 3, 30);
    assert!(segments(data.path()) > 1);
    expect_records(&mut writer, 33);
}

#[test]
fn min_cleanable_dirty_ratio_is_in_force() {
    let (_data, _broker, mut client, mut writer) =
        scene(&EAGER, &[("min.cleanable.dirty.ratio", "1")]);
    write(&mut writer, now_ms(), 3, 100);
    thread::sleep(Duration::from_millis(200));
    assert_eq!(rebuilt(&mut writer, "t", 0).1, 100);
    let any = set("min.cleanable.dirty.ratio", "0");
    altered(&mut client, TOPIC, "t", &[any]);
    expect_records(&mut writer, 30);
}

/// A topic that is deleted, and made again, while it is compacted.
#[test]
fn a_deletion_ends_compaction() {
    let limit = "log.cleaner.io.max.bytes.per.second=50000";
    let (data, broker, mut client, mut writer) = scene(&[EAGER[0], limit], &[]);
    for round in 0..3 {
        write(&mut writer, now_ms(), 3, 200);
        client.delete("t");
        client.create("t", &SMALL);
        assert_eq!(rebuilt(&mut writer, "t", 0).1, 0, "round {round}");
    }
    let written = write(&mut writer, now_ms(), 3, 50);
    assert_eq!(rebuilt(&mut writer, "t", 0).0, keyed::sum(&written));
    assert!(broker.stop().success());
    let broker = Broker::start(data.path(), &EAGER);
    expect_records(&mut connect(&broker), 30);
}

/// Where a log's last pass ended says nothing of a topic that took its name: taken for cleaned, a tombstone would go
/// and the value before it stay.
#[test]
fn a_topic_made_again_does_not_begin_where_its_namesake_was_compacted() {
    let (data, broker, mut client, mut writer) = scene(&EAGER, &[]);
    write(&mut writer, now_ms(), 3, 100);
    let saved = data.path().join("cleaner-offset-checkpoint");
    let is_saved = || fs::read_to_string(&saved).is_ok_and(|text| text.contains("\nt 0 9"));
    let began = Instant::now();
    while !is_saved() {
        assert!(began.elapsed() < Duration::from_secs(30));
        thread::sleep(Duration::from_millis(5));
    }
    client.delete("t");
    let settings = [
        &SMALL[..2],
        &[
            ("min.cleanable.dirty.ratio", "1"),
            ("delete.retention.ms", "0"),
        ],
    ];
    client.create("t", &settings.concat());
    let mut written = Vec::new();
    let mut put = |writer: &mut producer::Client, one: Change| {
        let bytes = keyed::batch(None, now_ms(), std::slice::from_ref(&one));
        writer.produce("t", 0, &bytes).unwrap().unwrap();
        written.push(one);
    };
    put(&mut writer, change(0, Some(0)));
    (1..20).for_each(|key| put(&mut writer, change(key, Some(key))));
    put(&mut writer, change(0, None));
    (20..150).for_each(|key| put(&mut writer, change(key, Some(key))));
    broker.kill();
    let broker = Broker::start(data.path(), &EAGER);
    let (mut client, mut writer) = (Client::connect(&broker.address), connect(&broker));
    let any = set("min.cleanable.dirty.ratio", "0");
    altered(&mut client, TOPIC, "t", &[any]);
    for round in 0..4 {
        (130..150).for_each(|key| put(&mut writer, change(key, Some(round))));
        let passes = || broker.log().matches("compacted up to").count();
        let (before, began) = (passes(), Instant::now());
        while passes() == before && began.elapsed() < Duration::from_secs(10) {
            thread::sleep(Duration::from_millis(5));
        }
    }
    let (map, records, _) = rebuilt(&mut writer, "t", 0);
    assert!(records < 200, "it was compacted");
    assert_eq!(map.get("key 0"), None);
    assert!(map == keyed::sum(&written));
}

fn segments(data: &Path) -> usize {
    let names = fs::read_dir(data.join("t-0")).unwrap();
    let is_log = |name: &str| name.ends_with(".log");
    names
        .filter(|entry| is_log(&entry.as_ref().unwrap().file_name().to_string_lossy()))
        .count()
}
