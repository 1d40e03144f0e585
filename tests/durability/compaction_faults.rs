//! Compaction on a disk that fails or is full (L5, L10, P6): a pass that cannot be ended leaves the log whole and the
//! partition in use; only what fails within the swap takes more, and the next start gives it back.

use crate::common::keyed::{self, Change};
use crate::common::producer::Client;
use crate::common::{Broker, client, settings};
use crate::scene::{Scene, copy_dir, names, wait_until};
use std::path::Path;
use std::time::{Duration, Instant};

const TIME_MS: i64 = 1_700_000_000_000;
const SYNC_FAILED: i32 = 74;
const KAFKA_STORAGE_ERROR: i16 = 56;

/// A pass takes a moment, so that a fault that is set once it was asked for comes in time.
const SLOW: [&str; 2] = [
    "log.cleaner.backoff.ms=1",
    "log.cleaner.io.max.bytes.per.second=100000",
];

/// How a pass that was disturbed ended.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Compacted,
    NotCompacted,
    Offline,
    Exit,
}

fn change(n: usize) -> Change {
    Change {
        key: format!("key {}", n % 7),
        value: (!n.is_multiple_of(5)).then(|| format!("{n} {}", "v".repeat(60))),
    }
}

/// A log of several segments that was never compacted.
fn prepared(data: &Path) -> Vec<Change> {
    let broker = Broker::start(data, &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    let topic = [
        ("cleanup.policy", "compact"),
        ("segment.bytes", "1500"),
        ("min.cleanable.dirty.ratio", "1"),
    ];
    client.create("t", 1, &topic);
    let changes: Vec<Change> = (0..60).map(change).collect();
    for change in &changes {
        let bytes = keyed::batch(None, TIME_MS, std::slice::from_ref(change));
        client.produce("t", 0, &bytes).unwrap().unwrap();
    }
    let mut other = client::Client::connect(&broker.address);
    // Several go into one.
    let larger = [settings::set("segment.bytes", "4000")];
    settings::altered(&mut other, settings::TOPIC, "t", &larger);
    assert!(broker.stop().success());
    changes
}

fn compact_now(broker: &Broker) {
    let mut client = client::Client::connect(&broker.address);
    let any = [settings::set("min.cleanable.dirty.ratio", "0")];
    settings::altered(&mut client, settings::TOPIC, "t", &any);
}

/// Waits until a pass has ended.
fn end_of_pass(broker: &mut Broker) -> End {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(30) {
        let log = broker.log();
        if log.contains("offline until restart") {
            return End::Offline;
        } else if log.contains("a sync failed") {
            assert_eq!(broker.wait().code(), Some(SYNC_FAILED), "{log}");
            return End::Exit;
        } else if log.contains("not compacted") {
            return End::NotCompacted;
        } else if log.contains("compacted up to") {
            return End::Compacted;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    panic!("the pass does not end: {}", broker.log());
}

fn expect_all(broker: &Broker, changes: &[Change]) {
    let mut client = Client::connect(&broker.address).unwrap();
    let (map, _, end) = keyed::rebuilt(&mut client, "t", 0);
    assert_eq!(end as usize, changes.len());
    assert_eq!(map, keyed::sum(changes));
}

/// After a pass that failed the log is left alone for a while.
fn expect_rest(broker: &Broker) {
    std::thread::sleep(Duration::from_millis(100));
    let log = broker.log();
    let tries = log.matches("not compacted").count() + log.matches("compacted up to").count();
    assert_eq!(tries, 1, "{log}");
}

/// A start finds all, compacts it, and leaves nothing behind.
fn expect_sound(data: &Path, changes: &mut Vec<Change>) {
    let broker = Broker::start(data, &["log.cleaner.backoff.ms=1"]);
    expect_all(&broker, changes);
    let mut client = Client::connect(&broker.address).unwrap();
    changes.push(change(changes.len()));
    let bytes = keyed::batch(None, TIME_MS, &changes[changes.len() - 1..]);
    let offset = changes.len() as i64 - 1;
    assert_eq!(client.produce("t", 0, &bytes).unwrap(), Ok(offset));
    let log = broker.log();
    assert!(!log.contains("lost") && !log.contains("torn"), "{log}");
    assert!(broker.stop().success());
    for leftover in [".cleaned", ".swap", ".quarantine", ".torn"] {
        let left = names(&data.join("t-0"), leftover);
        assert!(left.is_empty(), "{left:?}");
    }
}

/// One pass per fault; gives how they ended, for as long as the faults come before a pass's end.
fn disturb(fault: impl Fn(&Scene, u64)) -> Vec<End> {
    let before = tempfile::tempdir().unwrap();
    let changes = prepared(before.path());
    let mut ends = Vec::new();
    for nth in 1..80 {
        let mut scene = Scene::new();
        copy_dir(before.path(), &scene.data());
        scene.load();
        let mut broker = scene.start(&SLOW);
        compact_now(&broker);
        fault(&scene, nth);
        let end = end_of_pass(&mut broker);
        println!("fault {nth}: {end:?}");
        ends.push(end);
        if matches!(end, End::NotCompacted | End::Compacted) {
            expect_all(&broker, &changes);
            expect_rest(&broker);
        }
        if end == End::Offline {
            // It is logged a moment before it is so.
            wait_until(|| {
                let mut client = Client::connect(&broker.address).unwrap();
                client.fetch("t", 0, 0, 0).unwrap().error_code == KAFKA_STORAGE_ERROR
            });
        }
        if end != End::Exit {
            broker.kill();
        }
        fault(&scene, 0);
        let image = scene.cut_power();
        expect_sound(&image, &mut changes.clone());
        expect_sound(&scene.data(), &mut changes.clone());
        if end == End::Compacted {
            return ends;
        }
    }
    panic!("no pass came to its end: {ends:?}");
}

#[test]
fn a_sync_that_fails_within_a_pass_ends_the_pass_and_within_a_swap_the_process() {
    let ends = disturb(|scene, nth| scene.shim.fail_sync(nth).unwrap());
    assert!(
        ends.contains(&End::NotCompacted) && ends.contains(&End::Exit),
        "{ends:?}"
    );
}

#[test]
fn a_rename_that_fails_leaves_the_log_whole() {
    let ends = disturb(|scene, nth| scene.shim.fail_rename(nth).unwrap());
    assert!(ends.contains(&End::NotCompacted), "{ends:?}");
}

/// On a full disk a pass is given up, once; the partition is read and written as before.
#[test]
fn a_full_disk_ends_a_pass_and_nothing_else() {
    let before = tempfile::tempdir().unwrap();
    let changes = prepared(before.path());
    for room in [0, 1, 100, 700, 1100, 1600] {
        let scene = &mut Scene::new();
        copy_dir(before.path(), &scene.data());
        let mut broker = scene.start(&SLOW);
        compact_now(&broker);
        scene.shim.set_room(Some(room)).unwrap();
        let end = end_of_pass(&mut broker);
        println!("room for {room} bytes: {end:?}");
        assert!(room > 1000 || end == End::NotCompacted, "{end:?}");
        expect_all(&broker, &changes);
        let left = names(&scene.data().join("t-0"), ".cleaned");
        assert!(left.is_empty(), "{left:?}");
        expect_rest(&broker);
        scene.shim.set_room(None).unwrap();
        broker.kill();
        expect_sound(&scene.data(), &mut changes.clone());
    }
}
