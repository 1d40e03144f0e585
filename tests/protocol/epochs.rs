//! Leader epochs (KIP-101, KIP-320): a client that believes in another one is told so.

use crate::common::Broker;
use crate::common::client::{Client, FETCH, batch, batches, bytes, fetch, list_offsets};
use crate::start;
use ottla::api::fetch::FetchResponse;
use ottla::api::list_offsets::ListOffsetsResponse;
use ottla::api::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};

/// Stores two batches, tears the log behind them, and starts again: recovery cuts the tear and raises the epoch.
fn raised() -> (tempfile::TempDir, Broker, Client) {
    let (data, broker, mut client) = start(&[]);
    client.create("t", &[]);
    client.store("t", &batch(&["a", "b"]));
    client.store("t", &batch(&["c"]));
    broker.kill();
    let log = data.path().join("t-0/00000000000000000000.log");
    let mut torn = std::fs::read(&log).unwrap();
    torn.extend(&batch(&["torn"])[..65]);
    std::fs::write(&log, torn).unwrap();
    let broker = Broker::start(data.path(), &[]);
    let client = Client::connect(&broker.address);
    (data, broker, client)
}

/// What the three requests that name a current leader epoch answer.
fn codes(client: &mut Client, current_leader_epoch: i32) -> [i16; 3] {
    let mut request = fetch("t", 0, 0, 0);
    request.topics[0].partitions[0].current_leader_epoch = current_leader_epoch;
    client.send(FETCH, &request);
    let fetched = client.fetched().error_code;
    let request = list_offsets("t", -1, current_leader_epoch);
    let listed: ListOffsetsResponse = client.call(8, &request);
    let listed = listed.topics[0].partitions[0].error_code;
    [
        fetched,
        listed,
        end_of(client, 0, current_leader_epoch).error_code,
    ]
}

fn end_of(client: &mut Client, leader_epoch: i32, current_leader_epoch: i32) -> EpochEndOffset {
    let request = OffsetForLeaderEpochRequest {
        topics: vec![OffsetForLeaderTopic {
            topic: "t".into(),
            partitions: vec![OffsetForLeaderPartition {
                partition: 0,
                current_leader_epoch,
                leader_epoch,
            }],
        }],
        ..OffsetForLeaderEpochRequest::default()
    };
    let mut answer: OffsetForLeaderEpochResponse = client.call(4, &request);
    answer.topics.remove(0).partitions.remove(0)
}

#[test]
fn the_current_leader_epoch_is_checked() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    client.store("t", &batch(&["a"]));
    assert_eq!(codes(&mut client, -1), [0; 3], "the client does not say");
    assert_eq!(codes(&mut client, 0), [0; 3]);
    assert_eq!(codes(&mut client, 1), [75; 3], "UNKNOWN_LEADER_EPOCH");
}

/// FACTS: the leader epoch is raised whenever recovery cuts what may have been seen.
#[test]
fn a_cut_raises_the_epoch_and_fences_the_old_one() {
    let (_data, _broker, mut client) = raised();
    assert_eq!(client.values("t"), ["a", "b", "c"]);
    let now = client.offset("t", -1).leader_epoch;
    assert_eq!(codes(&mut client, 0), [74; 3], "FENCED_LEADER_EPOCH");
    assert_eq!(codes(&mut client, 1), [0; 3]);
    assert_eq!(codes(&mut client, 2), [75; 3]);
    client.store("t", &batch(&["d"]));
    let data = client.fetch("t", 3);
    let (header, _) = batches(bytes(&data.records))[0];
    assert_eq!((header.base_offset, header.partition_leader_epoch), (3, 1));
    assert!((0..=1).contains(&now));
}

#[test]
fn epochs_end_where_the_next_one_begins() {
    let (_data, _broker, mut client) = raised();
    client.store("t", &batch(&["d"]));
    let end = end_of(&mut client, 0, -1);
    assert_eq!(
        (end.error_code, end.leader_epoch, end.end_offset),
        (0, 0, 3)
    );
    let end = end_of(&mut client, 1, -1);
    assert_eq!(
        (end.error_code, end.leader_epoch, end.end_offset),
        (0, 1, 4)
    );
    // KAFKA-6857: what is not known has no end.
    for unknown in [2, i32::MAX, -1, i32::MIN] {
        let end = end_of(&mut client, unknown, -1);
        assert_eq!(
            (end.error_code, end.leader_epoch, end.end_offset),
            (0, -1, -1)
        );
    }
}

/// KIP-595: a consumer whose last epoch ended before its position learns where; nothing is waited for.
#[test]
fn a_fetch_behind_a_cut_is_told_where_it_diverged() {
    let (_data, _broker, mut client) = raised();
    client.store("t", &batch(&["d", "e", "f"]));
    let mut request = fetch("t", 5, 600_000, 1 << 20);
    request.topics[0].partitions[0].last_fetched_epoch = 0;
    let answer: FetchResponse = client.call(FETCH, &request);
    let data = &answer.responses[0].partitions[0];
    assert_eq!(data.error_code, 0);
    assert_eq!(
        (data.diverging_epoch.epoch, data.diverging_epoch.end_offset),
        (0, 3)
    );
}

/// It was never here, so there is no place to go back to; silence would have the consumer wait for ever.
#[test]
fn a_fetch_after_an_unknown_epoch_is_out_of_range() {
    let (_data, _broker, mut client) = raised();
    let mut request = fetch("t", 3, 600_000, 1 << 20);
    request.topics[0].partitions[0].last_fetched_epoch = 7;
    let answer: FetchResponse = client.call(FETCH, &request);
    let data = &answer.responses[0].partitions[0];
    assert_eq!((data.error_code, data.high_watermark), (1, 3));
}
