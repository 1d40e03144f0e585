//! A disk that is full (L10, strimzi#7484, KAFKA-13773): the broker says so, takes back what did not fit, goes on with
//! what it can, and works again once there is room.

use crate::common::Broker;
use crate::common::producer::{Client, batch};
use crate::scene::{Scene, heard, say};
use std::fs;
use std::time::Instant;

const KAFKA_STORAGE_ERROR: i16 = 56;
const MARKER: &str = ".kafka_cleanshutdown";

fn log_bytes(scene: &Scene, partition: &str) -> u64 {
    let log = scene
        .data()
        .join(partition)
        .join("00000000000000000000.log");
    fs::metadata(log).unwrap().len()
}

#[test]
fn a_write_that_fails_half_way_is_taken_back() {
    let mut scene = Scene::new();
    let broker = scene.start(&[]);
    let mut client = Client::connect(&broker.address).unwrap();
    client.create("t", 1, &[]);
    client.create("u", 1, &[]);
    let id = client.producer_id().unwrap();
    let long = "long ".repeat(1000);
    let sent = batch(Some((id, 0)), &[long.as_bytes()]);
    assert_eq!(say(&mut client, "t", "first").unwrap(), Ok(0));
    let before = log_bytes(&scene, "t-0");

    scene.shim.set_room(Some(1000)).unwrap();
    assert_eq!(
        client.produce("t", 0, &sent).unwrap(),
        Err(KAFKA_STORAGE_ERROR)
    );
    assert_eq!(log_bytes(&scene, "t-0"), before, "cut back");
    // What still fits, in a disk whose room the cut gave back.
    scene.shim.set_room(Some(300)).unwrap();
    assert_eq!(
        say(&mut client, "u", "fits").unwrap(),
        Ok(0),
        "other partitions go on"
    );
    assert_eq!(
        client.produce("t", 0, &sent).unwrap(),
        Err(KAFKA_STORAGE_ERROR)
    );
    assert_eq!(heard(&mut client, "t", 0), ["first"]);

    scene.shim.set_room(None).unwrap();
    assert_eq!(
        client.produce("t", 0, &sent).unwrap(),
        Ok(1),
        "its sequence was taken back too"
    );
    assert_eq!(say(&mut client, "t", "last").unwrap(), Ok(2));
    let all = ["first", &long, "last"];
    assert_eq!(heard(&mut client, "t", 0), all);
    assert!(broker.stop().success());
    assert!(scene.data().join(MARKER).exists());
    let image = scene.cut_power();
    let broker = Broker::start(&image, &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    assert_eq!(heard(&mut client, "t", 0), all);
    assert_eq!(heard(&mut client, "u", 0), ["fits"]);
    assert_eq!(
        client.produce("t", 0, &sent).unwrap(),
        Ok(1),
        "known as a duplicate"
    );
}

/// The log may lie on the disk that is full.
#[test]
fn a_full_disk_is_not_filled_with_lines() {
    let mut scene = Scene::new();
    let broker = scene.start(&[]);
    let mut client = Client::connect(&broker.address).unwrap();
    client.create("t", 1, &[]);
    scene.shim.set_room(Some(0)).unwrap();
    let began = Instant::now();
    for _ in 0..200 {
        let refused = say(&mut client, "t", "value").unwrap();
        assert_eq!(refused, Err(KAFKA_STORAGE_ERROR));
    }
    let (log, elapsed) = (broker.log(), began.elapsed());
    let lines = log.matches("t-0: a write failed").count() as u64;
    assert!(
        (1..=1 + elapsed.as_secs() / 5).contains(&lines),
        "{lines} lines in {elapsed:?}"
    );
    scene.shim.set_room(None).unwrap();
}

/// A turn that rolls takes back the segments that it made.
#[test]
fn a_roll_that_fails_half_way_is_taken_back() {
    let mut scene = Scene::new();
    let broker = scene.start(&[]);
    let mut client = Client::connect(&broker.address).unwrap();
    client.create("t", 1, &[("segment.bytes", "200")]);
    assert_eq!(say(&mut client, "t", &"a".repeat(100)).unwrap(), Ok(0));
    for room in [0, 1, 61, 100] {
        scene.shim.set_room(Some(room)).unwrap();
        let refused = say(&mut client, "t", &"b".repeat(100)).unwrap();
        assert_eq!(
            refused,
            Err(KAFKA_STORAGE_ERROR),
            "with room for {room} bytes"
        );
    }
    scene.shim.set_room(None).unwrap();
    assert_eq!(say(&mut client, "t", &"c".repeat(100)).unwrap(), Ok(1));
    let all = ["a".repeat(100), "c".repeat(100)];
    assert_eq!(heard(&mut client, "t", 0), all);
    broker.kill();
    let broker = scene.start(&[]);
    let mut client = Client::connect(&broker.address).unwrap();
    assert_eq!(heard(&mut client, "t", 0), all);
}

/// KAFKA-13773: a stop that could not save everything leaves no marker; strimzi#7484: nor does it keep the next start
/// from starting, though the disk be full then too.
#[test]
fn a_stop_on_a_full_disk_is_not_clean_and_a_start_on_one_succeeds() {
    let mut scene = Scene::new();
    let broker = scene.start(&[]);
    let mut client = Client::connect(&broker.address).unwrap();
    client.create("t", 1, &[]);
    for value in ["a", "b"] {
        say(&mut client, "t", value).unwrap().unwrap();
    }
    scene.shim.set_room(Some(0)).unwrap();
    assert!(
        !broker.stop().success(),
        "the stop says that it was not clean"
    );
    assert!(!scene.data().join(MARKER).exists());

    let broker = scene.start(&[]);
    let mut client = Client::connect(&broker.address).unwrap();
    assert_eq!(
        heard(&mut client, "t", 0),
        ["a", "b"],
        "a full disk can be read"
    );
    assert_eq!(
        say(&mut client, "t", "c").unwrap(),
        Err(KAFKA_STORAGE_ERROR)
    );
    scene.shim.set_room(None).unwrap();
    assert_eq!(
        say(&mut client, "t", "c").unwrap(),
        Ok(2),
        "and used again without a restart"
    );
    assert!(broker.stop().success());
    assert!(scene.data().join(MARKER).exists());
}

/// A topic that cannot be made for want of room is refused, and can be made later.
#[test]
fn a_topic_on_a_full_disk_is_refused() {
    let mut scene = Scene::new();
    let mut broker = scene.start(&[]);
    let mut client = Client::connect(&broker.address).unwrap();
    for room in [0, 10, 100, 150, 200, 250, 300] {
        scene.shim.set_room(Some(room)).unwrap();
        let name = format!("t{room}");
        let made = client.try_create(&name, 2, &[]).unwrap();
        scene.shim.set_room(None).unwrap();
        if made.is_err() {
            // What the catalog has taken in is there after a restart; what it has not can be made again.
            broker.kill();
            broker = scene.start(&[]);
            client = Client::connect(&broker.address).unwrap();
            if client.list_offset(&name, 0, -1).unwrap().is_err() {
                client.create(&name, 2, &[]);
            }
        }
        assert_eq!(
            say(&mut client, &name, "works").unwrap(),
            Ok(0),
            "made with room for {room} bytes: {made:?}"
        );
    }
}
