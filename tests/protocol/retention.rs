//! Retention: segments beyond their age or the log's size go, and everything that tells of offsets agrees.
//!
//! Beside a topic that is to stay lies one that is to go: both are looked at together, so that when the one went the
//! other was spared.

use crate::common::Broker;
use crate::common::client::{Client, LONG_AGO_MS, batch, sequenced};
use crate::common::settings::{TOPIC, altered, set};
use crate::offset_commits::{commit, committed};
use crate::start;
use ottla::api::describe_log_dirs::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use ottla::api::offset_for_leader_epoch::*;
use std::path::Path;
use std::time::{Duration, Instant};

/// Looked at often, and unlinked at once.
const SETTINGS: &[&str] = &[
    "log.retention.check.interval.ms=20",
    "log.segment.delete.delay.ms=0",
];

/// Every batch begins a segment.
const SMALL: (&str, &str) = ("segment.bytes", "80");

#[track_caller]
fn wait_until(mut what: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !what() {
        assert!(Instant::now() < deadline, "it does not come to pass");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn fill(client: &mut Client, topic: &str, settings: &[(&str, &str)]) {
    client.create(topic, &[&[SMALL], settings].concat());
    for value in ["a", "b", "c", "d"] {
        client.store(topic, &batch(&[value]));
    }
}

fn start_of(client: &mut Client, topic: &str) -> i64 {
    client.offset(topic, -2).offset
}

fn names(data: &Path, topic: &str) -> Vec<String> {
    let entries = std::fs::read_dir(data.join(format!("{topic}-0"))).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".log"))
        .collect();
    names.sort();
    names
}

/// The last one too, as in Kafka: the log goes on, empty, where it ended.
#[test]
fn segments_beyond_their_age_go() {
    let (data, broker, mut client) = start(SETTINGS);
    fill(&mut client, "stays", &[]);
    fill(&mut client, "forever", &[("retention.ms", "-1")]);
    fill(&mut client, "goes", &[]);
    assert_eq!(start_of(&mut client, "goes"), 0);
    altered(&mut client, TOPIC, "goes", &[set("retention.ms", "1")]);
    wait_until(|| start_of(&mut client, "goes") == 4);
    assert_eq!(client.offset("goes", -1).offset, 4);
    assert_eq!(names(data.path(), "goes"), [format!("{:020}.log", 4)]);
    for topic in ["stays", "forever"] {
        assert_eq!(client.values(topic), ["a", "b", "c", "d"]);
    }
    broker.stop();
    // For all topics; a topic's own setting wins.
    let all = ["log.retention.ms=1"];
    let broker = Broker::start(data.path(), &[SETTINGS, &all].concat());
    let mut client = Client::connect(&broker.address);
    wait_until(|| start_of(&mut client, "stays") == 4);
    assert_eq!(client.values("forever"), ["a", "b", "c", "d"]);
}

#[test]
fn segments_beyond_the_size_go() {
    let (data, _broker, mut client) = start(SETTINGS);
    let bytes = batch(&["a"]).len();
    let [three, less] = [3 * bytes, 3 * bytes - 1].map(|bytes| bytes.to_string());
    fill(&mut client, "three", &[("retention.bytes", &three)]);
    fill(&mut client, "four", &[("retention.bytes", &less)]);
    fill(&mut client, "none", &[("retention.bytes", "0")]);
    wait_until(|| start_of(&mut client, "none") == 4);
    // A segment goes only if the limit is still met without it.
    for (topic, left) in [("three", 3), ("four", 3)] {
        wait_until(|| start_of(&mut client, topic) == 4 - left);
        wait_until(|| names(data.path(), topic).len() as i64 == left);
        let answer: DescribeLogDirsResponse = client.call(4, &DescribeLogDirsRequest::default());
        let topics = &answer.results[0].topics;
        let told = topics.iter().find(|t| t.name == topic).unwrap();
        assert_eq!(told.partitions[0].partition_size, left * bytes as i64);
    }
    client.store("three", &batch(&["e"]));
    wait_until(|| start_of(&mut client, "three") == 2);
}

#[test]
fn only_the_policy_delete_deletes() {
    let (_data, _broker, mut client) = start(SETTINGS);
    let limits = [("retention.ms", "1"), ("retention.bytes", "0")];
    for (topic, policy) in [("compact", "compact"), ("empty", "")] {
        client.create(
            topic,
            &[&[SMALL, ("cleanup.policy", "delete")], &limits[..]].concat(),
        );
        altered(&mut client, TOPIC, topic, &[set("cleanup.policy", policy)]);
    }
    let keyed = |key: &str| {
        let mut builder = ottla::batch::builder::Builder::new(LONG_AGO_MS);
        builder.add(Some(key.as_bytes()), Some(b"v"), &[], LONG_AGO_MS);
        builder.build()
    };
    let both = [&limits[..], &[("cleanup.policy", "compact,delete")]].concat();
    client.create("both", &both);
    for key in ["a", "b"] {
        for topic in ["compact", "empty", "both"] {
            client.store(topic, &keyed(key));
        }
    }
    wait_until(|| start_of(&mut client, "both") == 2);
    for topic in ["compact", "empty"] {
        assert_eq!(start_of(&mut client, topic), 0, "{topic}");
        assert_eq!(client.values(topic), ["v", "v"]);
    }
    // Taken out of the way of the others, it is deleted like them.
    altered(
        &mut client,
        TOPIC,
        "empty",
        &[set("cleanup.policy", "delete")],
    );
    wait_until(|| start_of(&mut client, "empty") == 2);
}

/// The records' own times are long past; they were appended now, and stay for as long as any others (P8).
#[test]
fn records_of_old_times_stay_as_long_as_others() {
    let (_data, _broker, mut client) = start(SETTINGS);
    fill(&mut client, "old", &[("retention.ms", "600000")]);
    fill(&mut client, "goes", &[("retention.ms", "1")]);
    wait_until(|| start_of(&mut client, "goes") == 4);
    assert_eq!(client.values("old"), ["a", "b", "c", "d"]);
}

#[test]
fn all_that_tells_of_offsets_agrees_afterwards() {
    let (data, broker, mut client) = start(SETTINGS);
    let id = client.producer_id();
    client.create("t", &[SMALL]);
    for sequence in 0..4 {
        client.store("t", &sequenced(id, 0, sequence, &["x"]));
    }
    let two = (2 * batch(&["x"]).len()).to_string();
    altered(&mut client, TOPIC, "t", &[set("retention.bytes", &two)]);
    wait_until(|| start_of(&mut client, "t") == 2);
    let look = |client: &mut Client, next: i64| {
        assert_eq!(
            (start_of(client, "t"), client.offset("t", -1).offset),
            (2, next)
        );
        assert_eq!(client.offset("t", 0).offset, 2, "the first of any time");
        for offset in [0, 1] {
            let refused = client.fetch("t", offset);
            assert_eq!((refused.error_code, refused.log_start_offset), (1, 2));
        }
        assert_eq!(client.fetch("t", 2).error_code, 0);
        let topics = vec![OffsetForLeaderTopic {
            topic: "t".into(),
            partitions: vec![OffsetForLeaderPartition {
                leader_epoch: 0,
                ..OffsetForLeaderPartition::default()
            }],
        }];
        let request = OffsetForLeaderEpochRequest {
            topics,
            ..OffsetForLeaderEpochRequest::default()
        };
        let answer: OffsetForLeaderEpochResponse = client.call(4, &request);
        let told = &answer.topics[0].partitions[0];
        assert_eq!((told.leader_epoch, told.end_offset), (0, next));
    };
    look(&mut client, 4);
    altered(&mut client, TOPIC, "t", &[set("retention.bytes", "-1")]);
    broker.stop();
    let broker = Broker::start(data.path(), SETTINGS);
    let mut client = Client::connect(&broker.address);
    look(&mut client, 4);
    // The producer goes on, though the segments with its first batches are gone.
    assert_eq!(client.store("t", &sequenced(id, 0, 4, &["x"])), 4);
    look(&mut client, 5);
}

/// Committed offsets stay, whatever is set of their topic and of all topics.
#[test]
fn internal_topics_are_never_deleted_from() {
    let all = ["log.retention.ms=1", "log.retention.bytes=0"];
    let (data, broker, mut client) = start(&[SETTINGS, &all].concat());
    client.create("t", &[]);
    assert_eq!(committed(&mut client, 8, &commit("g", "t", 7, "")), 0);
    let internal = ["__consumer_offsets", "__cluster_metadata"];
    let before = internal.map(|topic| names(data.path(), topic));
    fill(&mut client, "goes", &[]);
    wait_until(|| start_of(&mut client, "goes") == 4);
    assert_eq!(internal.map(|topic| names(data.path(), topic)), before);
    broker.stop();
}
