//! DeleteRecords: what lies below an offset is gone for good, and its files with it.

use crate::common::Broker;
use crate::common::client::{Client, LONG_AGO_MS, batch, fetch, sequenced};
use crate::start;
use ottla::api::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopic,
};
use ottla::api::describe_log_dirs::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use ottla::api::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, OffsetForLeaderPartition,
    OffsetForLeaderTopic,
};
use ottla::batch::builder::Builder;
use std::path::Path;
use std::time::{Duration, Instant};

fn request(topics: &[(&str, &[(i32, i64)])]) -> DeleteRecordsRequest {
    let partition = |&(partition_index, offset): &(i32, i64)| DeleteRecordsPartition {
        partition_index,
        offset,
    };
    let topic = |(name, partitions): &(&str, &[(i32, i64)])| DeleteRecordsTopic {
        name: name.to_string(),
        partitions: partitions.iter().map(partition).collect(),
    };
    DeleteRecordsRequest {
        topics: topics.iter().map(topic).collect(),
        timeout_ms: 30_000,
    }
}

/// Each partition's error and low watermark, in the order of the answer.
fn delete_all(client: &mut Client, topics: &[(&str, &[(i32, i64)])]) -> Vec<(i16, i64)> {
    let answer: DeleteRecordsResponse = client.call(2, &request(topics));
    let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
    partitions
        .map(|p| (p.error_code, p.low_watermark))
        .collect()
}

fn delete(client: &mut Client, topic: &str, offset: i64) -> (i16, i64) {
    delete_all(client, &[(topic, &[(0, offset)])])[0]
}

/// Ten records in five batches, in three segments.
fn fill(client: &mut Client, topic: &str, settings: &[(&str, &str)]) {
    let settings = [&[("segment.bytes", "200")], settings].concat();
    client.create(topic, &settings);
    for _ in 0..5 {
        client.store(topic, &batch(&["a", "b"]));
    }
}

fn names(data: &Path, topic: &str, suffix: &str) -> usize {
    let entries = std::fs::read_dir(data.join(format!("{topic}-0"))).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(suffix)).count()
}

#[track_caller]
fn wait_until(what: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !what() {
        assert!(Instant::now() < deadline, "it does not come to pass");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_lies_below_is_not_served_any_more() {
    let (_data, _broker, mut client) = start(&[]);
    fill(&mut client, "t", &[]);
    assert_eq!(delete(&mut client, "t", 5), (0, 5));
    assert_eq!(client.offset("t", -2).offset, 5);
    assert_eq!(client.offset("t", -1).offset, 10);
    // By time too: the records before have older timestamps.
    assert_eq!(client.offset("t", 0).offset, 5);
    for offset in [0, 4] {
        let refused = client.fetch("t", offset);
        assert_eq!((refused.error_code, refused.log_start_offset), (1, 5));
    }
    let found = client.fetch("t", 5);
    assert_eq!((found.error_code, found.log_start_offset), (0, 5));
    assert_eq!(client.store("t", &batch(&["c"])), 10);
}

/// Kafka: -1 is the high watermark; what is deleted already is no error; each partition stands for itself.
#[test]
fn each_offset_is_answered_with_the_log_start() {
    let (_data, _broker, mut client) = start(&[]);
    fill(&mut client, "t", &[]);
    for version in 0..=2 {
        let answer: DeleteRecordsResponse = client.call(version, &request(&[("t", &[(0, 3)])]));
        let partition = &answer.topics[0].partitions[0];
        assert_eq!((partition.error_code, partition.low_watermark), (0, 3));
    }
    assert_eq!(delete(&mut client, "t", 1), (0, 3));
    for offset in [-2, 11, i64::MIN, i64::MAX] {
        assert_eq!(delete(&mut client, "t", offset), (1, -1), "{offset}");
    }
    assert_eq!(delete(&mut client, "t", -1), (0, 10));
    assert_eq!(delete(&mut client, "t", 10), (0, 10));
    assert!(client.values("t").is_empty());
    client.create_with("u", 2, &[]);
    client.store("u", &batch(&["a", "b"]));
    let topics: &[(&str, &[(i32, i64)])] = &[
        ("u", &[(0, 1), (1, 0), (2, 0), (-1, 0), (0, 2)]),
        ("none", &[(0, 0)]),
    ];
    // The last offset of a partition counts, as in Kafka.
    let answers = delete_all(&mut client, topics);
    assert_eq!(answers, [(3, -1), (3, -1), (0, 2), (0, 0), (3, -1)]);
    assert!(delete_all(&mut client, &[]).is_empty());
}

#[test]
fn a_topic_that_is_only_compacted_keeps_its_records() {
    let (_data, _broker, mut client) = start(&[]);
    for (topic, policy, code) in [
        ("compact", "compact", 44),
        ("both", "compact,delete", 0),
        ("delete", "delete", 0),
    ] {
        client.create(topic, &[("cleanup.policy", policy)]);
        let mut keyed = Builder::new(LONG_AGO_MS);
        keyed.add(Some(b"key"), Some(b"value"), &[], LONG_AGO_MS);
        client.store(topic, &keyed.build());
        assert_eq!(delete(&mut client, topic, 1).0, code, "{topic}");
        assert_eq!(client.offset(topic, -2).offset, i64::from(code == 0));
    }
}

/// L4: the answer is durable, whatever comes next.
#[test]
fn the_log_start_survives_every_stop() {
    for is_clean in [true, false] {
        let (data, broker, mut client) = start(&[]);
        fill(&mut client, "t", &[]);
        client.create("empty", &[]);
        assert_eq!(delete(&mut client, "t", 7), (0, 7));
        assert_eq!(delete(&mut client, "empty", -1), (0, 0));
        let stop = |broker: Broker| match is_clean {
            true => assert!(broker.stop().success()),
            false => broker.kill(),
        };
        stop(broker);
        let starts = data.path().join("log-start-offset-checkpoint");
        let starts = std::fs::read_to_string(starts).unwrap();
        assert!(starts.contains("\nt 0 7\n"), "{starts}");
        let broker = Broker::start(data.path(), &[]);
        let mut client = Client::connect(&broker.address);
        assert_eq!(client.offset("t", -2).offset, 7);
        assert_eq!(client.offset("t", -1).offset, 10);
        assert_eq!(client.fetch("t", 6).error_code, 1);
        assert_eq!(delete(&mut client, "t", -1), (0, 10));
        stop(broker);
        let broker = Broker::start(data.path(), &[]);
        let mut client = Client::connect(&broker.address);
        assert_eq!(client.offset("t", -2).offset, 10);
        assert_eq!(client.store("t", &batch(&["c"])), 10);
    }
}

/// A topic that is made again under a name does not inherit the log start.
#[test]
fn a_topic_made_again_begins_at_0() {
    let (data, broker, mut client) = start(&[]);
    fill(&mut client, "t", &[]);
    assert_eq!(delete(&mut client, "t", 7), (0, 7));
    client.delete("t");
    client.create("t", &[]);
    assert_eq!(client.store("t", &batch(&["a", "b"])), 0);
    broker.kill();
    let broker = Broker::start(data.path(), &[]);
    let mut client = Client::connect(&broker.address);
    assert_eq!(client.values("t"), ["a", "b"]);
}

/// `file.delete.delay.ms`: renamed at once, unlinked later; a start needs no delay.
#[test]
fn a_deleted_segments_files_are_kept_for_their_delay() {
    let (data, broker, mut client) = start(&["log.segment.delete.delay.ms=3600000"]);
    fill(&mut client, "late", &[]);
    fill(&mut client, "soon", &[("file.delete.delay.ms", "0")]);
    assert_eq!(names(data.path(), "late", ".log"), 3);
    for topic in ["late", "soon"] {
        assert_eq!(delete(&mut client, topic, -1), (0, 10));
        wait_until(|| names(data.path(), topic, ".log") == 1);
    }
    wait_until(|| names(data.path(), "soon", ".deleted") == 0);
    assert_eq!(names(data.path(), "late", ".log.deleted"), 2);
    broker.kill();
    let broker = Broker::start(data.path(), &[]);
    let mut client = Client::connect(&broker.address);
    assert_eq!(names(data.path(), "late", ".deleted"), 0);
    assert_eq!(client.offset("late", -2).offset, 10);
}

#[test]
fn what_a_kill_left_below_the_log_start_goes_at_the_start() {
    let (data, broker, mut client) = start(&[]);
    fill(&mut client, "t", &[]);
    broker.kill();
    // As if the kill came between the log start's sync and the segments' end.
    let starts = data.path().join("log-start-offset-checkpoint");
    std::fs::write(starts, "0\n1\nt 0 8\n").unwrap();
    let _broker = Broker::start(data.path(), &[]);
    wait_until(|| names(data.path(), "t", ".log") == 1);
}

/// A consumer whose records are deleted under it learns at once, not when its fetch times out.
#[test]
fn a_waiting_fetch_ends_when_the_log_start_passes_it() {
    let (_data, broker, mut client) = start(&[]);
    fill(&mut client, "t", &[]);
    let mut waiting = Client::connect(&broker.address);
    let day_ms = 24 * 3_600_000;
    waiting.send(12, &fetch("t", 9, day_ms, 1 << 20));
    assert!(waiting.is_silent());
    assert_eq!(delete(&mut client, "t", -1), (0, 10));
    let refused = waiting.fetched();
    assert_eq!((refused.error_code, refused.log_start_offset), (1, 10));
}

/// Producers go on where they were, and consumers find the epoch that the start is in.
#[test]
fn sequences_and_epochs_outlive_their_records() {
    let (data, broker, mut client) = start(&[]);
    client.create("t", &[("segment.bytes", "200")]);
    let id = client.producer_id();
    for sequence in 0..6 {
        client.store("t", &sequenced(id, 0, sequence, &["a"]));
    }
    assert_eq!(delete(&mut client, "t", -1), (0, 6));
    broker.kill();
    let broker = Broker::start(data.path(), &[]);
    let mut client = Client::connect(&broker.address);
    assert_eq!(client.store("t", &sequenced(id, 0, 6, &["a"])), 6);
    assert_eq!(client.store("t", &sequenced(id, 0, 6, &["a"])), 6);
    let request = OffsetForLeaderEpochRequest {
        topics: vec![OffsetForLeaderTopic {
            topic: "t".into(),
            partitions: vec![OffsetForLeaderPartition {
                leader_epoch: 0,
                ..OffsetForLeaderPartition::default()
            }],
        }],
        ..OffsetForLeaderEpochRequest::default()
    };
    let answer: OffsetForLeaderEpochResponse = client.call(4, &request);
    let end = &answer.topics[0].partitions[0];
    assert_eq!(
        (end.error_code, end.leader_epoch, end.end_offset),
        (0, 0, 7)
    );
}

#[test]
fn deleted_segments_are_not_counted() {
    let (_data, _broker, mut client) = start(&[]);
    fill(&mut client, "t", &[]);
    let size = |client: &mut Client| {
        let request = DescribeLogDirsRequest { topics: None };
        let answer: DescribeLogDirsResponse = client.call(4, &request);
        answer.results[0].topics[0].partitions[0].partition_size
    };
    let batch_bytes = batch(&["a", "b"]).len() as i64;
    assert_eq!(size(&mut client), 5 * batch_bytes);
    assert_eq!(delete(&mut client, "t", -1), (0, 10));
    // The segments go soon after the answer; the active one stays.
    let deadline = Instant::now() + Duration::from_secs(60);
    while size(&mut client) != batch_bytes {
        assert!(Instant::now() < deadline);
    }
}

/// The largest timestamp is that of a record that is still there, also where the log start lies within a batch.
#[test]
fn the_largest_timestamp_is_behind_the_log_start() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    let mut builder = Builder::new(LONG_AGO_MS);
    for delta in [0, 1, 9, 3, 4, 5, 2, 5, 1, 0] {
        builder.add(None, Some(b"x"), &[], LONG_AGO_MS + delta);
    }
    client.store("t", &builder.build());
    for (log_start, offset, delta) in [(2, 2, 9), (3, 5, 5), (6, 7, 5), (9, 9, 0)] {
        assert_eq!(delete(&mut client, "t", log_start), (0, log_start));
        let found = client.offset("t", -3);
        assert_eq!(
            (found.offset, found.timestamp),
            (offset, LONG_AGO_MS + delta)
        );
    }
    delete(&mut client, "t", 10);
    let found = client.offset("t", -3);
    assert_eq!((found.offset, found.timestamp), (-1, -1));
}
