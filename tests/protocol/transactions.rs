//! Transactions on the wire: both flows, fencing, what survives a kill, and what operators see.

use crate::common::Broker;
use crate::common::client::{self, Client, records};
use crate::common::requests;
use crate::start;
use ottla::api::add_offsets_to_txn::*;
use ottla::api::add_partitions_to_txn::*;
use ottla::api::describe_transactions::{
    DescribeTransactionsRequest, DescribeTransactionsResponse,
};
use ottla::api::end_txn::*;
use ottla::api::fetch::{FetchResponse, PartitionData};
use ottla::api::find_coordinator::*;
use ottla::api::init_producer_id::*;
use ottla::api::list_transactions::{ListTransactionsRequest, ListTransactionsResponse};
use ottla::api::offset_fetch::*;
use ottla::api::produce::ProduceResponse;
use ottla::api::txn_offset_commit::*;
use ottla::api::write_txn_markers::*;
use ottla::batch::TRANSACTIONAL;
use ottla::error::ErrorCode;
use std::fs;

type Me = (i64, i16);

/// The versions of the last clients before KIP-890, and of the first after it.
#[derive(Clone, Copy)]
struct Flow {
    init: i16,
    produce: i16,
    end: i16,
    commit: i16,
}

const OLDER: Flow = Flow {
    init: 3,
    produce: 11,
    end: 3,
    commit: 3,
};
const NEWER: Flow = Flow {
    init: 5,
    produce: 12,
    end: 5,
    commit: 5,
};

fn init_as(client: &mut Client, version: i16, timeout_ms: i32) -> (i16, Me) {
    let request = InitProducerIdRequest {
        transactional_id: Some("x".into()),
        transaction_timeout_ms: timeout_ms,
        ..InitProducerIdRequest::default()
    };
    let answer: InitProducerIdResponse = client.call(version, &request);
    let me = (answer.producer_id, answer.producer_epoch);
    (answer.error_code, me)
}

#[track_caller]
fn init(client: &mut Client, flow: Flow) -> Me {
    let (code, me) = init_as(client, flow.init, 60_000);
    assert_eq!(code, 0);
    me
}

/// Adds partition 0 of `t`, and what else there is; in v3 and below.
fn add(client: &mut Client, version: i16, me: Me, others: &[(&str, i32)]) -> Vec<i16> {
    let topic = |&(name, index): &(&str, i32)| AddPartitionsToTxnTopic {
        name: name.into(),
        partitions: vec![index],
    };
    let request = AddPartitionsToTxnRequest {
        v3_and_below_transactional_id: "x".into(),
        v3_and_below_producer_id: me.0,
        v3_and_below_producer_epoch: me.1,
        v3_and_below_topics: [("t", 0)].iter().chain(others).map(topic).collect(),
        ..AddPartitionsToTxnRequest::default()
    };
    let answer: AddPartitionsToTxnResponse = client.call(version, &request);
    let topics = answer.results_by_topic_v3_and_below.iter();
    topics
        .map(|topic| topic.results_by_partition[0].partition_error_code)
        .collect()
}

fn write(client: &mut Client, version: i16, me: Me, sequence: i32, value: &str) -> i16 {
    written(client, version, me, sequence, value).0
}

fn written(
    client: &mut Client,
    version: i16,
    me: Me,
    sequence: i32,
    value: &str,
) -> (i16, Option<String>) {
    let batch = records(&[value]).producer(me.0, me.1, sequence);
    let batch = batch.attributes(TRANSACTIONAL).build();
    let mut request = client::produce("t", -1, &batch);
    request.transactional_id = Some("x".into());
    let mut answer: ProduceResponse = client.call(version, &request);
    let answer = answer.responses[0].partition_responses.remove(0);
    (answer.error_code, answer.error_message)
}

fn end(client: &mut Client, version: i16, me: Me, committed: bool) -> (i16, Me) {
    let request = EndTxnRequest {
        transactional_id: "x".into(),
        producer_id: me.0,
        producer_epoch: me.1,
        committed,
    };
    let answer: EndTxnResponse = client.call(version, &request);
    (
        answer.error_code,
        (answer.producer_id, answer.producer_epoch),
    )
}

/// What a `read_committed` consumer gets of `t`, once there are so many offsets that it may see.
fn committed(client: &mut Client, last_stable: i64) -> PartitionData {
    loop {
        let mut request = client::fetch("t", 0, 0, 0);
        request.isolation_level = 1;
        let mut answer: FetchResponse = client.call(client::FETCH, &request);
        let data = answer.responses.remove(0).partitions.remove(0);
        assert_eq!(data.error_code, 0);
        assert!(data.last_stable_offset <= last_stable, "{data:?}");
        if data.last_stable_offset == last_stable {
            return data;
        }
    }
}

fn offset_of(client: &mut Client) -> i64 {
    let request = requests::offset_fetch("g", "t", 0..1);
    let answer: OffsetFetchResponse = client.call(8, &request);
    answer.groups[0].topics[0].partitions[0].committed_offset
}

fn commit_offset(client: &mut Client, flow: Flow, me: Me, offset: i64) -> i16 {
    if flow.commit < 5 {
        let request = AddOffsetsToTxnRequest {
            transactional_id: "x".into(),
            producer_id: me.0,
            producer_epoch: me.1,
            group_id: "g".into(),
        };
        let answer: AddOffsetsToTxnResponse = client.call(3, &request);
        assert_eq!(answer.error_code, 0);
    }
    let request = TxnOffsetCommitRequest {
        transactional_id: "x".into(),
        group_id: "g".into(),
        producer_id: me.0,
        producer_epoch: me.1,
        topics: vec![TxnOffsetCommitRequestTopic {
            name: "t".into(),
            partitions: vec![TxnOffsetCommitRequestPartition {
                committed_offset: offset,
                ..TxnOffsetCommitRequestPartition::default()
            }],
        }],
        ..TxnOffsetCommitRequest::default()
    };
    let answer: TxnOffsetCommitResponse = client.call(flow.commit, &request);
    answer.topics[0].partitions[0].error_code
}

fn find(client: &mut Client, key_type: i8) {
    let request = FindCoordinatorRequest {
        key_type,
        coordinator_keys: vec!["x".into()],
        ..FindCoordinatorRequest::default()
    };
    let answer: FindCoordinatorResponse = client.call(4, &request);
    assert_eq!(answer.coordinators[0].error_code, 0);
}

#[test]
fn both_flows_commit_and_abort_records_and_offsets() {
    for flow in [OLDER, NEWER] {
        let (_data, _broker, mut client) = start(&[]);
        client.create("t", &[]);
        (0..2).for_each(|key_type| find(&mut client, key_type));
        let mut me = init(&mut client, flow);
        let mut sequence = 0;
        for (commit, value, offset) in [(true, "a", 1), (false, "b", 2), (true, "c", 3)] {
            if flow.produce < 12 {
                // Waits until the last one's markers are written.
                assert_eq!(add(&mut client, 3, me, &[]), [0]);
            }
            assert_eq!(write(&mut client, flow.produce, me, sequence, value), 0);
            assert_eq!(commit_offset(&mut client, flow, me, offset), 0);
            let (code, next) = end(&mut client, flow.end, me, commit);
            assert_eq!(code, 0);
            match flow.end {
                5 => assert_eq!(next, (me.0, me.1 + 1)),
                _ => sequence += 1,
            }
            me = if flow.end == 5 { next } else { me };
        }
        let data = committed(&mut client, 6);
        assert_eq!(client::values(&data.records)[0], "a");
        let aborted = data.aborted_transactions.unwrap();
        assert_eq!((aborted.len(), aborted[0].first_offset), (1, 2));
        while offset_of(&mut client) != 3 {}
    }
}

/// Until its end nothing of it is seen.
#[test]
fn an_open_transaction_holds_readers_of_committed_records_up() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    let me = init(&mut client, NEWER);
    assert_eq!(write(&mut client, 12, me, 0, "a"), 0);
    assert_eq!(client.values("t"), ["a"]);
    assert!(client::values(&committed(&mut client, 0).records).is_empty());
    let not_added = ErrorCode::TransactionAbortable.code();
    let (code, next) = end(&mut client, 5, me, true);
    assert_eq!(code, 0);
    committed(&mut client, 2);
    assert_eq!(write(&mut client, 11, next, 0, "b"), not_added);
    let (retried, again) = end(&mut client, 5, me, true);
    assert_eq!((retried, again), (0, next));
}

/// The end of a transaction ends a wait, though nothing was produced but its marker.
#[test]
fn who_waits_for_committed_records_hears_of_the_end() {
    for commits in [true, false] {
        let (_data, broker, mut client) = start(&[]);
        client.create("t", &[]);
        let me = init(&mut client, NEWER);
        assert_eq!(write(&mut client, 12, me, 0, "a"), 0);
        let mut reader = Client::connect(&broker.address);
        let mut request = client::fetch("t", 0, 600_000, 1);
        request.isolation_level = 1;
        reader.send(client::FETCH, &request);
        assert!(reader.is_silent());
        assert_eq!(end(&mut client, 5, me, commits).0, 0);
        let data = reader.fetched();
        assert_eq!(data.last_stable_offset, 2);
        assert_eq!(
            data.aborted_transactions.unwrap().len(),
            usize::from(!commits)
        );
    }
}

/// What the coordinator says of a partition that was not added, and in Kafka's words.
#[test]
fn a_batch_outside_its_transaction_is_refused_as_by_kafka() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    let me = init(&mut client, OLDER);
    let not_added = Some("Partition was not added to the transaction".to_string());
    let invalid = ErrorCode::InvalidTxnState.code();
    assert_eq!(written(&mut client, 10, me, 0, "a"), (invalid, not_added));
    let abortable = ErrorCode::TransactionAbortable.code();
    assert_eq!(written(&mut client, 11, me, 0, "a"), (abortable, None));
    for version in [10, 11, 12] {
        let old = ErrorCode::InvalidProducerEpoch.code();
        let zombie = (me.0, me.1 - 1);
        assert_eq!(written(&mut client, version, zombie, 0, "a"), (old, None));
        let unknown = ErrorCode::InvalidProducerIdMapping.code();
        let other = (me.0 + 1, 0);
        assert_eq!(
            written(&mut client, version, other, 0, "a"),
            (unknown, None)
        );
    }
}

#[test]
fn who_begins_anew_fences_who_was_there() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    let zombie = init(&mut client, OLDER);
    assert_eq!(add(&mut client, 3, zombie, &[]), [0]);
    assert_eq!(write(&mut client, 11, zombie, 0, "a"), 0);
    let me = init(&mut client, OLDER);
    assert_eq!(me, (zombie.0, 3), "it was fenced by an abort first");
    assert_eq!(
        committed(&mut client, 2)
            .aborted_transactions
            .unwrap()
            .len(),
        1
    );
    let fenced = ErrorCode::ProducerFenced.code();
    let old = ErrorCode::InvalidProducerEpoch.code();
    assert_eq!(add(&mut client, 3, zombie, &[]), [fenced]);
    assert_eq!(add(&mut client, 1, zombie, &[]), [old]);
    assert_eq!(end(&mut client, 3, zombie, true).0, fenced);
    assert_eq!(end(&mut client, 1, zombie, true).0, old);
    assert_eq!(write(&mut client, 12, zombie, 1, "b"), old);
    assert_eq!(write(&mut client, 12, me, 0, "c"), 0);
}

/// KIP-890: each version says in its own way that a partition is in no transaction.
#[test]
fn a_batch_for_a_partition_outside_the_transaction_is_refused() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    let me = init(&mut client, OLDER);
    for (version, code) in [
        (3, ErrorCode::InvalidTxnState),
        (10, ErrorCode::InvalidTxnState),
        (11, ErrorCode::TransactionAbortable),
    ] {
        let told = write(&mut client, version, me, 0, "a");
        assert_eq!(told, code.code(), "v{version}");
    }
    assert_eq!(client.offset("t", -1).offset, 0);
}

/// librdkafka, whose Produce is v10, aborts and goes on after anything else: it must learn that it was fenced.
#[test]
fn what_a_fenced_producer_writes_tells_it_so_in_every_version() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    let zombie = init(&mut client, OLDER);
    let me = init(&mut client, OLDER);
    assert_eq!(me.0, zombie.0);
    for version in [3, 10, 11, 12] {
        let told = write(&mut client, version, zombie, 0, "a");
        let fenced = ErrorCode::InvalidProducerEpoch.code();
        assert_eq!(told, fenced, "v{version}");
    }
}

#[test]
fn a_partition_that_is_not_there_keeps_all_out() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    let me = init(&mut client, OLDER);
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    let not_tried = ErrorCode::OperationNotAttempted.code();
    let told = add(&mut client, 3, me, &[("t", 1), ("nowhere", 0)]);
    assert_eq!(told, [not_tried, unknown, unknown]);
    let code = ErrorCode::InvalidTxnState.code();
    assert_eq!(end(&mut client, 3, me, true).0, code, "nothing was begun");
}

#[test]
fn a_transaction_may_not_last_longer_than_the_broker_allows() {
    let (_data, _broker, mut client) = start(&["transaction.max.timeout.ms=5000"]);
    let code = ErrorCode::InvalidTransactionTimeout.code();
    assert_eq!(init_as(&mut client, 5, 5_001), (code, (-1, -1)));
    assert_eq!(init_as(&mut client, 5, 0), (code, (-1, -1)));
    assert_eq!(init_as(&mut client, 5, 5_000).0, 0);
}

/// A kill may come before, between or after the markers of an end that was told: all of them are there afterwards.
#[test]
fn what_was_told_to_be_committed_is_so_after_a_kill() {
    let data = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for round in 0..4 {
        let broker = Broker::start(data.path(), &[]);
        let mut client = Client::connect(&broker.address);
        if round == 0 {
            client.create("t", &[]);
            client.create_with("wide", 40, &[]);
        }
        let me = init(&mut client, OLDER);
        let wide: Vec<(&str, i32)> = (0..40).map(|index| ("wide", index)).collect();
        assert!(add(&mut client, 3, me, &wide).iter().all(|code| *code == 0));
        assert_eq!(write(&mut client, 11, me, 0, "a"), 0);
        assert_eq!(end(&mut client, 3, me, true).0, 0);
        broker.kill();
        let broker = Broker::start(data.path(), &[]);
        let mut client = Client::connect(&broker.address);
        // Waits for the end.
        init(&mut client, OLDER);
        let end = client.offset("t", -1).offset;
        assert!(end >= seen + 2);
        seen = end;
        let aborted = committed(&mut client, end).aborted_transactions;
        assert_eq!(aborted, Some(vec![]));
        broker.kill();
    }
}

/// It lives on, and is aborted at its end or by the next of its name.
#[test]
fn an_open_transaction_survives_a_kill() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), &[]);
    let mut client = Client::connect(&broker.address);
    client.create("t", &[]);
    let me = init(&mut client, NEWER);
    assert_eq!(write(&mut client, 12, me, 0, "a"), 0);
    broker.kill();
    let broker = Broker::start(data.path(), &[]);
    let mut client = Client::connect(&broker.address);
    assert_eq!(write(&mut client, 12, me, 1, "b"), 0);
    assert!(client::values(&committed(&mut client, 0).records).is_empty());
    assert_eq!(end(&mut client, 5, me, true).0, 0);
    let data = committed(&mut client, 3);
    assert_eq!(client::values(&data.records)[..2], ["a", "b"]);
    drop(broker);
}

/// What became of the marker for each partition that is named.
fn abort_by_hand(client: &mut Client, me: (i64, i16), places: [(&str, Vec<i32>); 3]) -> Vec<i16> {
    let topic = |(name, partition_indexes): (&str, _)| WritableTxnMarkerTopic {
        name: name.into(),
        partition_indexes,
    };
    let marker = WritableTxnMarker {
        producer_id: me.0,
        producer_epoch: me.1,
        topics: places.map(topic).into(),
        ..WritableTxnMarker::default()
    };
    let markers = vec![marker];
    let answer: WriteTxnMarkersResponse = client.call(1, &WriteTxnMarkersRequest { markers });
    let topics = answer.markers[0].topics.iter();
    let partitions = topics.flat_map(|topic| &topic.partitions);
    partitions.map(|p| p.error_code).collect()
}

/// KIP-664: find it, and end it by hand.
#[test]
fn operators_see_and_end_what_hangs() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    let me = init(&mut client, NEWER);
    assert_eq!(write(&mut client, 12, me, 0, "a"), 0);
    let list = |client: &mut Client, pattern: &str, duration_filter| {
        let request = ListTransactionsRequest {
            state_filters: vec!["Ongoing".into(), "Odd".into()],
            duration_filter,
            transactional_id_pattern: Some(pattern.into()),
            ..ListTransactionsRequest::default()
        };
        let answer: ListTransactionsResponse = client.call(2, &request);
        assert!(answer.error_code != 0 || answer.unknown_state_filters == ["Odd"]);
        (answer.error_code, answer.transaction_states.len())
    };
    assert_eq!(list(&mut client, "x|y", -1), (0, 1));
    assert_eq!(list(&mut client, "", 600_000), (0, 0));
    assert_eq!(list(&mut client, "y", -1), (0, 0));
    let code = ErrorCode::InvalidRegularExpression.code();
    assert_eq!(list(&mut client, "(", -1), (code, 0));
    let request = DescribeTransactionsRequest {
        transactional_ids: vec!["x".into(), "y".into()],
    };
    let answer: DescribeTransactionsResponse = client.call(0, &request);
    let told = &answer.transaction_states;
    assert_eq!(
        (told[0].error_code, &*told[0].transaction_state),
        (0, "Ongoing")
    );
    assert_eq!(
        (told[0].producer_id, told[0].topics[0].partitions[0]),
        (me.0, 0)
    );
    let unknown = ErrorCode::TransactionalIdNotFound.code();
    assert_eq!(told[1].error_code, unknown);
    // Thousands of names of one partition are one marker.
    let places = [("nowhere", vec![0]), ("t", vec![0; 2000]), ("t", vec![1])];
    let codes = abort_by_hand(&mut client, me, places);
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    assert_eq!([&codes[..2], &codes[2000..]], [[unknown, 0], [0, unknown]]);
    let aborted = committed(&mut client, 2).aborted_transactions;
    assert_eq!(aborted.unwrap().len(), 1);
    // What comes now would be of a transaction that has ended here.
    let code = ErrorCode::InvalidTxnState.code();
    assert_eq!(write(&mut client, 12, me, 1, "b"), code);
}

#[test]
fn the_topic_of_transactions_is_made_as_the_broker_says() {
    let settings = [
        "transaction.state.log.num.partitions=3",
        "transaction.state.log.segment.bytes=300",
    ];
    let (data, _broker, mut client) = start(&settings);
    for _ in 0..8 {
        init(&mut client, NEWER);
    }
    let names = |dir: &str| {
        let entries = fs::read_dir(data.path().join(dir)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect::<Vec<_>>()
    };
    let all = names(".").into_iter();
    let dirs: Vec<String> = all
        .filter(|name| name.starts_with("__transaction_state-"))
        .collect();
    assert_eq!(dirs.len(), 3);
    let files = dirs.iter().flat_map(|dir| names(dir));
    assert!(files.filter(|name| name.ends_with(".log")).count() > 3);
}
