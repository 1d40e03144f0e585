//! What is lost beside the logs is made good from them: a catalog's epochs and producer ids, a log that cannot be
//! opened.

use crate::common::Broker;
use crate::common::producer::{Client, batch};
use crate::scene::{Scene, heard, names, say};
use std::fs;

/// A producer id that a log has seen is never given out again, and its leader epoch never falls: also when the
/// catalog that knew both is gone, as after moving a partition's directory to another broker.
#[test]
fn what_logs_have_seen_outlives_the_catalog() {
    let scene = Scene::new();
    let broker = Broker::start(&scene.data(), &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    client.create("t", 1, &[]);
    let old = client.producer_id().unwrap();
    let sent = batch(Some((old, 0)), &[b"old"]);
    client.produce("t", 0, &sent).unwrap().unwrap();
    assert!(broker.stop().success());
    fs::remove_dir_all(scene.data().join("__cluster_metadata-0")).unwrap();
    let epochs = scene.data().join("t-0/leader-epoch-checkpoint");
    fs::write(&epochs, "0\n1\n7 0\n").unwrap();
    // The second start must have it from the new catalog, or find it again.
    for _ in 0..2 {
        let broker = Broker::start(&scene.data(), &[]);
        let mut client = Client::connect(&broker.address).unwrap();
        let new = client.producer_id().unwrap();
        assert!(new > old, "{new} after {old}");
        let sent = batch(Some((new, 0)), &[b"new"]);
        let offset = client.produce("t", 0, &sent).unwrap().unwrap();
        assert!(offset > 0, "another producer's batch is no duplicate");
        let end = client.list_offset("t", 0, -1).unwrap().unwrap();
        assert_eq!(client.end_of_epoch("t", 0, 7).unwrap(), (7, end));
        assert!(broker.stop().success());
    }
    let broker = Broker::start(&scene.data(), &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    assert_eq!(heard(&mut client, "t", 0), ["old", "new", "new"]);
    assert!(broker.stop().success());
    // A log that is ahead of a catalog which is there: a crash came between the two.
    fs::write(&epochs, "0\n2\n7 0\n9 3\n").unwrap();
    let broker = Broker::start(&scene.data(), &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    say(&mut client, "t", "newest").unwrap().unwrap();
    let stored = client.fetch_all("t", 0);
    let epoch = stored.last().unwrap().header.partition_leader_epoch;
    assert_eq!(epoch, 9, "an epoch never falls");
}

/// L8: a log that the last start could not open was not recovered, so the next one must not believe in a clean stop.
#[test]
fn a_log_that_cannot_be_opened_forbids_the_marker() {
    let scene = Scene::new();
    let broker = Broker::start(&scene.data(), &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    for topic in ["good", "bad"] {
        client.create(topic, 1, &[]);
        say(&mut client, topic, topic).unwrap().unwrap();
    }
    broker.kill();
    let segment = scene.data().join("bad-0/00000000000000000000.log");
    let aside = scene.data().join("aside");
    fs::rename(&segment, &aside).unwrap();
    fs::create_dir(&segment).unwrap();
    let broker = Broker::start(&scene.data(), &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    assert_eq!(heard(&mut client, "good", 0), ["good"]);
    let refused = say(&mut client, "bad", "more").unwrap();
    assert!(refused.is_err(), "its storage has failed");
    assert!(broker.stop().success());
    assert!(!scene.data().join(".kafka_cleanshutdown").exists());
    fs::remove_dir(&segment).unwrap();
    fs::rename(&aside, &segment).unwrap();
    let broker = Broker::start(&scene.data(), &[]);
    assert!(
        broker.log().contains("after an unclean stop"),
        "{}",
        broker.log()
    );
    let mut client = Client::connect(&broker.address).unwrap();
    assert_eq!(heard(&mut client, "bad", 0), ["bad"]);
}

/// The catalog is gone, and with it what a directory's small state could be made good from: its segments say enough.
#[test]
fn directories_are_adopted_though_their_topics_ids_are_lost_or_garbled() {
    let scene = Scene::new();
    let broker = Broker::start(&scene.data(), &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    let id = client.create("t", 4, &[]);
    client.create("lone", 1, &[]);
    let said = |topic: &str, index| batch(None, &[format!("{topic} {index}").as_bytes()]);
    for (topic, index) in [("t", 0), ("t", 1), ("t", 2), ("t", 3), ("lone", 0)] {
        let stored = client.produce(topic, index, &said(topic, index));
        assert_eq!(stored.unwrap(), Ok(0));
    }
    assert!(broker.stop().success());
    fs::remove_dir_all(scene.data().join("__cluster_metadata-0")).unwrap();
    for dir in ["t-0", "lone-0"] {
        fs::remove_file(scene.data().join(dir).join("partition.metadata")).unwrap();
    }
    let metadata = scene.data().join("t-1/partition.metadata");
    let text = fs::read_to_string(&metadata).unwrap();
    let (start, last) = text.trim_end().split_at(text.trim_end().len() - 2);
    let garbled = if last.starts_with('A') { 'B' } else { 'A' };
    fs::write(&metadata, format!("{start}{garbled}{}", &last[1..])).unwrap();
    for _ in 0..2 {
        let broker = Broker::start(&scene.data(), &[]);
        let mut client = Client::connect(&broker.address).unwrap();
        assert_eq!(client.topic_id("t").unwrap(), Some(id));
        for (topic, index) in [("t", 0), ("t", 1), ("t", 2), ("t", 3), ("lone", 0)] {
            let expected = format!("{topic} {index}");
            assert_eq!(heard(&mut client, topic, index), [expected]);
        }
        assert!(broker.stop().success());
    }
    assert_eq!(names(&scene.data(), "-stray"), [""; 0]);
}
