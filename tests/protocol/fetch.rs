//! Fetch: which bytes an answer holds.

use crate::common::Broker;
use crate::common::client::{Client, FETCH, LONG_AGO_MS, batch, batches, bytes};
use crate::common::client::{fetch, fetch_partition, records, values};
use crate::start;
use ottla::api::fetch::{FetchRequest, FetchResponse, PartitionData};
use ottla::batch::builder::Builder;
use ottla::error::ErrorCode;
use ottla::wire::Uuid;

/// Fetches by topic id, as of v13.
fn fetch_by_id(client: &mut Client, id: Uuid, offset: i64) -> PartitionData {
    let mut request = fetch("", offset, 0, 0);
    request.topics[0].topic_id = id;
    let mut answer: FetchResponse = client.call(16, &request);
    answer.responses.remove(0).partitions.remove(0)
}

fn offsets(data: &PartitionData) -> Vec<i64> {
    let found = batches(bytes(&data.records));
    found.iter().map(|(header, _)| header.base_offset).collect()
}

/// FACTS: two peers answer such a fetch with nothing, for ever.
#[test]
fn an_offset_beyond_the_end_is_out_of_range() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    assert_eq!(client.fetch("t", 0).error_code, 0);
    client.store("t", &batch(&["a", "b"]));
    let at_end = client.fetch("t", 2);
    assert_eq!((at_end.error_code, bytes(&at_end.records).len()), (0, 0));
    for offset in [3, 100, i64::MAX, -1, i64::MIN] {
        let beyond = client.fetch("t", offset);
        let code = ErrorCode::OffsetOutOfRange.code();
        assert_eq!((beyond.error_code, beyond.high_watermark), (code, 2));
        assert_eq!(beyond.log_start_offset, 0);
    }
}

#[test]
fn an_offset_below_the_log_start_is_out_of_range() {
    let (data, broker, mut client) = start(&[]);
    client.create("t", &[]);
    for value in ["0", "1", "2", "3"] {
        client.store("t", &batch(&[value]));
    }
    assert!(broker.stop().success());
    let checkpoint = data.path().join("log-start-offset-checkpoint");
    std::fs::write(checkpoint, "0\n1\nt 0 2\n").unwrap();
    let broker = Broker::start(data.path(), &[]);
    let mut client = Client::connect(&broker.address);
    let below = client.fetch("t", 1);
    let code = ErrorCode::OffsetOutOfRange.code();
    assert_eq!((below.error_code, below.log_start_offset), (code, 2));
    assert_eq!(client.offset("t", -2).offset, 2);
    assert_eq!(client.offset("t", 0).offset, 2, "nor by time");
    assert_eq!(client.values("t"), ["2", "3"]);
}

/// A fetch from the middle of a batch gets the whole batch.
#[test]
fn an_offset_inside_a_batch_gives_the_batch() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    client.store("t", &batch(&["a", "b", "c"]));
    client.store("t", &batch(&["d", "e"]));
    assert_eq!(offsets(&client.fetch("t", 2)), [0, 3]);
    assert_eq!(offsets(&client.fetch("t", 4)), [3]);
}

/// KIP-74, RP PR#1532, LRK PR#1731.
#[test]
fn the_first_batch_of_a_response_is_whole_whatever_the_limits_and_only_the_first() {
    let (_data, _broker, mut client) = start(&[]);
    client.create_with("t", 2, &[]);
    let large = batch(&[&"x".repeat(100_000)]);
    let mut request = crate::common::client::produce("t", -1, &large);
    let mut other = request.topic_data[0].partition_data[0].clone();
    other.index = 1;
    request.topic_data[0].partition_data.push(other);
    for _ in 0..2 {
        let _: ottla::api::produce::ProduceResponse = client.call(9, &request);
    }
    for (partition_max, max) in [(1, i32::MAX), (i32::MAX, 1), (0, 0), (-1, -1), (1, 1)] {
        let mut request = fetch("t", 0, 0, 1);
        request.max_bytes = max;
        request.topics[0].partitions.push(fetch_partition(1, 0));
        for partition in &mut request.topics[0].partitions {
            partition.partition_max_bytes = partition_max;
        }
        let answer: FetchResponse = client.call(FETCH, &request);
        let [first, second] = &answer.responses[0].partitions[..] else {
            panic!("two partitions")
        };
        assert_eq!(bytes(&first.records).len(), large.len(), "max {max}");
        assert_eq!(offsets(first), [0]);
        assert_eq!(offsets(second), [], "max {max}");
    }
}

#[test]
fn limits_hold_for_all_but_the_first_batch() {
    let (_data, _broker, mut client) = start(&["fetch.max.bytes=50000"]);
    client.create("t", &[]);
    let large = batch(&[&"x".repeat(10_000)]);
    for _ in 0..20 {
        client.store("t", &large);
    }
    for (partition_max, max, fit) in [
        (35_000, i32::MAX, 3),
        (i32::MAX, 25_000, 2),
        (i32::MAX, i32::MAX, 4),
    ] {
        let mut request = fetch("t", 0, 0, 0);
        request.max_bytes = max;
        request.topics[0].partitions[0].partition_max_bytes = partition_max;
        client.send(FETCH, &request);
        let data = client.fetched();
        assert!(bytes(&data.records).len() <= partition_max.min(max).min(50_000) as usize);
        assert!(offsets(&data).len() <= fit && !offsets(&data).is_empty());
    }
}

#[test]
fn several_partitions_and_several_segments_come_in_one_response() {
    let (data, _broker, mut client) = start(&[]);
    client.create_with("t", 3, &[("segment.bytes", "400")]);
    client.create("u", &[("segment.bytes", "400")]);
    let sent: Vec<String> = (0..40).map(|n| format!("value {n}")).collect();
    for (at, value) in sent.iter().enumerate() {
        let mut request = crate::common::client::produce("t", -1, &batch(&[value]));
        request.topic_data[0].partition_data[0].index = at as i32 % 3;
        let answer: ottla::api::produce::ProduceResponse = client.call(9, &request);
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
        client.store("u", &batch(&[value]));
    }
    let segments = std::fs::read_dir(data.path().join("t-0")).unwrap();
    let is_log = |entry: &std::fs::DirEntry| entry.path().extension().is_some_and(|e| e == "log");
    assert!(segments.flatten().filter(is_log).count() > 2);
    for version in 4..=12 {
        let mut request = fetch("t", 0, 0, 0);
        request.topics[0].partitions = vec![
            fetch_partition(2, 0),
            fetch_partition(0, 0),
            fetch_partition(1, 3),
        ];
        request.topics.extend(fetch("u", 7, 0, 0).topics);
        let answer: FetchResponse = client.call(version, &request);
        let t = &answer.responses[0].partitions;
        for (data, partition, from) in [(&t[0], 2, 0), (&t[1], 0, 0), (&t[2], 1, 3)] {
            assert_eq!(data.partition_index, partition);
            let of_partition = sent.iter().skip(partition as usize).step_by(3).skip(from);
            assert!(values(&data.records).iter().eq(of_partition), "v{version}");
        }
        let u = &answer.responses[1].partitions[0];
        assert_eq!(values(&u.records), sent[7..]);
    }
}

/// KIP-227: declined, so every answer says session 0, and a session that the client believes in is not known.
#[test]
fn sessions_are_declined() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    client.store("t", &batch(&["a"]));
    for session_epoch in [0, -1] {
        let request = FetchRequest {
            session_epoch,
            ..fetch("t", 0, 0, 0)
        };
        let answer: FetchResponse = client.call(FETCH, &request);
        assert_eq!((answer.error_code, answer.session_id), (0, 0));
        assert_eq!(answer.responses.len(), 1);
    }
    let request = FetchRequest {
        session_id: 7,
        session_epoch: 1,
        ..fetch("t", 0, 0, 0)
    };
    let answer: FetchResponse = client.call(FETCH, &request);
    let code = ErrorCode::FetchSessionIdNotFound.code();
    assert_eq!((answer.error_code, answer.responses.len()), (code, 0));
}

#[test]
fn topics_and_partitions_that_are_not_there() {
    let (_data, _broker, mut client) = start(&[]);
    let id = client.create("t", &[]);
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    assert_eq!(client.fetch("none", 0).error_code, unknown);
    for index in [1, -1, i32::MAX] {
        let mut request = fetch("t", 0, 60_000, 1);
        request.topics[0].partitions[0].partition = index;
        client.send(FETCH, &request);
        assert_eq!(client.fetched().error_code, unknown);
    }
    assert_eq!(fetch_by_id(&mut client, id, 0).error_code, 0);
    let other = Uuid([7; 16]);
    let code = ErrorCode::UnknownTopicId.code();
    assert_eq!(fetch_by_id(&mut client, other, 0).error_code, code);
}

/// KAFKA-12257, FG PR#1426.
#[test]
fn a_recreated_topic_has_another_id_and_no_old_data() {
    let (data, broker, mut client) = start(&[]);
    let old = client.create("t", &[]);
    for _ in 0..3 {
        client.store("t", &batch(&["old"]));
    }
    client.delete("t");
    assert_eq!(client.fetch("t", 0).error_code, 3);
    let new = client.create("t", &[]);
    assert_ne!(old, new);
    let check = |client: &mut Client| {
        let code = ErrorCode::UnknownTopicId.code();
        assert_eq!(fetch_by_id(client, old, 0).error_code, code);
        assert_eq!(client.offset("t", -1).offset, 1);
        assert_eq!(client.values("t"), ["new"]);
    };
    client.store("t", &batch(&["new"]));
    check(&mut client);
    broker.kill();
    let broker = Broker::start(data.path(), &[]);
    check(&mut Client::connect(&broker.address));
}

/// As in Kafka; otherwise a few bytes would bring megabytes, again and again.
#[test]
fn a_partition_that_is_named_twice_is_answered_once() {
    let (_data, _broker, mut client) = start(&[]);
    client.create_with("t", 2, &[]);
    client.store("t", &batch(&["a"]));
    let mut request = fetch("t", 0, 0, 0);
    let again = request.topics[0].clone();
    request.topics[0].partitions.push(fetch_partition(1, 0));
    request.topics[0].partitions.push(fetch_partition(0, 0));
    request.topics.push(again);
    let answer: FetchResponse = client.call(FETCH, &request);
    assert_eq!(answer.responses.len(), 1);
    let partitions = &answer.responses[0].partitions;
    let indexes = partitions.iter().map(|p| p.partition_index);
    assert_eq!(indexes.collect::<Vec<_>>(), [0, 1]);
    assert_eq!(values(&partitions[0].records), ["a"]);
}

/// An answer keeps its files open, so it has no more than so many; what is left is asked for again.
#[test]
fn an_answer_holds_a_limited_number_of_files() {
    let (_data, _broker, mut client) = start(&[]);
    client.create_with("t", 100, &[]);
    let mut request = crate::common::client::produce("t", -1, &batch(&["a"]));
    let mut asked = fetch("t", 0, 600_000, i32::MAX);
    for index in 1..100 {
        let mut other = request.topic_data[0].partition_data[0].clone();
        other.index = index;
        request.topic_data[0].partition_data.push(other);
        let partitions = &mut asked.topics[0].partitions;
        partitions.push(fetch_partition(index, 0));
    }
    let _: ottla::api::produce::ProduceResponse = client.call(9, &request);
    let answer: FetchResponse = client.call(FETCH, &asked);
    let partitions = answer.responses[0].partitions.iter();
    let full = partitions.filter(|p| !bytes(&p.records).is_empty());
    assert_eq!(full.count(), 64);
}

/// An answer that ends within a batch leaves its connection a hint: what lies there is a record's, whatever it looks
/// like.
#[test]
fn a_batch_within_a_record_is_never_taken_for_one() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    let forged = records(&["forged", "forged"]).place(1, 0).build();
    let mut builder = Builder::new(LONG_AGO_MS);
    builder.add(None, Some(&forged), &[], LONG_AGO_MS);
    let (small, around) = (batch(&["a"]), builder.build());
    client.store("t", &small);
    client.store("t", &around);
    client.store("t", &batch(&["b"]));
    let within = around.windows(forged.len()).position(|w| w == forged);
    let mut request = fetch("t", 0, 0, 0);
    request.max_bytes = (small.len() + within.unwrap()) as i32;
    client.send(FETCH, &request);
    assert_eq!(offsets(&client.fetched()), [0]);
    assert_eq!(offsets(&client.fetch("t", 1)), [1, 2]);
}
