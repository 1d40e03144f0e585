//! Offsets of transactions: pending, committed, aborted; also as a start finds them in the log.

use crate::common::Broker;
use crate::common::client::Client;
use crate::common::requests;
use crate::{offset_commits, start};
use ottla::api::add_offsets_to_txn::*;
use ottla::api::delete_groups::{DeleteGroupsRequest, DeleteGroupsResponse};
use ottla::api::end_txn::*;
use ottla::api::init_producer_id::*;
use ottla::api::offset_fetch::*;
use ottla::api::txn_offset_commit::*;
use ottla::batch::TRANSACTIONAL;
use ottla::batch::builder::Builder;
use ottla::batch::marker::Marker;
use ottla::error::ErrorCode;
use ottla::group::records::{OffsetCommitValue, Record};
use std::fs::OpenOptions;
use std::io::Write;

/// Offset and error code of partitions 0 to 2 of `t`, as a group's consumers learn them, which ask for stable ones.
fn fetched(client: &mut Client, require_stable: bool) -> Vec<(i64, i16)> {
    let request = OffsetFetchRequest {
        require_stable,
        ..requests::offset_fetch("g", "t", 0..3)
    };
    let answer: OffsetFetchResponse = client.call(9, &request);
    let told = answer.groups[0].topics[0].partitions.iter();
    told.map(|told| (told.committed_offset, told.error_code))
        .collect()
}

/// A commit of partition 0 of `t`, without a transaction.
fn commit(client: &mut Client, offset: i64) {
    let request = offset_commits::commit("g", "t", offset, "");
    assert_eq!(offset_commits::committed(client, 9, &request), 0);
}

/// A producer's batch with the offset of one partition of `t`.
fn pending(producer_id: i64, index: i32, offset: i64) -> Vec<u8> {
    let value = OffsetCommitValue {
        offset,
        ..OffsetCommitValue::default()
    };
    let (key, value) = Record::Offset("g".into(), "t".into(), index, Some(value)).encode();
    let mut batch = Builder::new(0).producer(producer_id, 0, -1);
    batch = batch.attributes(TRANSACTIONAL);
    batch.add(Some(&key), value.as_deref(), &[], 0).build()
}

fn marker(producer_id: i64, commit: bool) -> Vec<u8> {
    let marker = Marker {
        commit,
        coordinator_epoch: 0,
    };
    marker.batch(producer_id, 0, 0)
}

const UNSTABLE: i16 = ErrorCode::UnstableOffsetCommit as i16;

/// One transaction committed, one aborted, one left open, whose coordinator knows nothing of it: aborted by the start.
#[test]
fn a_start_finds_what_became_of_transactions() {
    let (data, broker, mut client) = start(&[]);
    client.create_with("t", 3, &[]);
    commit(&mut client, 1);
    broker.kill();
    let log = data
        .path()
        .join("__consumer_offsets-0/00000000000000000000.log");
    let mut log = OpenOptions::new().append(true).open(log).expect("the log");
    let batches = [
        pending(7, 0, 5),
        pending(8, 1, 6),
        pending(9, 1, 60),
        pending(9, 2, 7),
        marker(8, true),
        marker(9, false),
    ];
    for (mut batch, base_offset) in batches.into_iter().zip(1i64..) {
        batch[..8].copy_from_slice(&base_offset.to_be_bytes());
        batch[12..16].copy_from_slice(&0i32.to_be_bytes());
        log.write_all(&batch).expect("a write");
    }
    let broker = Broker::start(data.path(), &[]);
    let mut client = Client::connect(&broker.address);
    assert_eq!(fetched(&mut client, false), [(1, 0), (6, 0), (-1, 0)]);
    while fetched(&mut client, true)[0] == (-1, UNSTABLE) {}
    assert_eq!(fetched(&mut client, true), [(1, 0), (6, 0), (-1, 0)]);
}

/// A producer with the transactional id `x`.
struct Transactional {
    id: i64,
    epoch: i16,
    /// Whether AddOffsetsToTxn is not needed, and each end raises the epoch (KIP-890).
    is_new: bool,
}

impl Transactional {
    fn new(client: &mut Client, is_new: bool) -> Transactional {
        let request = InitProducerIdRequest {
            transactional_id: Some("x".into()),
            transaction_timeout_ms: 60_000,
            ..InitProducerIdRequest::default()
        };
        let answer: InitProducerIdResponse = client.call(5, &request);
        assert_eq!(answer.error_code, 0);
        Transactional {
            id: answer.producer_id,
            epoch: answer.producer_epoch,
            is_new,
        }
    }

    fn add(&self, client: &mut Client) {
        let request = AddOffsetsToTxnRequest {
            transactional_id: "x".into(),
            producer_id: self.id,
            producer_epoch: self.epoch,
            group_id: "g".into(),
        };
        let answer: AddOffsetsToTxnResponse = client.call(3, &request);
        assert_eq!(answer.error_code, 0);
    }

    /// Commits an offset of partition 0 of `t` in the transaction; gives the code.
    fn send(&self, client: &mut Client, version: i16, offset: i64) -> i16 {
        let mut request = txn_commit("g", "t", 0);
        (request.producer_id, request.producer_epoch) = (self.id, self.epoch);
        request.topics[0].partitions[0].committed_offset = offset;
        let answer: TxnOffsetCommitResponse = client.call(version, &request);
        answer.topics[0].partitions[0].error_code
    }

    fn end(&mut self, client: &mut Client, committed: bool) {
        let request = EndTxnRequest {
            transactional_id: "x".into(),
            producer_id: self.id,
            producer_epoch: self.epoch,
            committed,
        };
        let version = if self.is_new { 5 } else { 4 };
        let answer: EndTxnResponse = client.call(version, &request);
        assert_eq!(answer.error_code, 0);
        if self.is_new {
            (self.id, self.epoch) = (answer.producer_id, answer.producer_epoch);
        }
    }
}

/// The offset of partition 0 of `t` once no transaction has another one pending.
fn stable(client: &mut Client) -> i64 {
    loop {
        match fetched(client, true)[0] {
            (-1, UNSTABLE) => {}
            (offset, code) => {
                assert_eq!(code, 0);
                return offset;
            }
        }
    }
}

#[test]
fn offsets_are_committed_with_their_transaction_or_vanish_with_it() {
    let (_data, _broker, mut client) = start(&[]);
    client.create_with("t", 3, &[]);
    for version in 0..=5 {
        let mut producer = Transactional::new(&mut client, version >= 5);
        let before = stable(&mut client);
        for (committed, offset) in [(true, 10), (false, 20), (true, 30)] {
            let offset = i64::from(version) * 100 + offset;
            if version < 5 {
                producer.add(&mut client);
            }
            assert_eq!(producer.send(&mut client, version, offset), 0, "v{version}");
            assert_eq!(fetched(&mut client, true)[0], (-1, UNSTABLE));
            assert_ne!(fetched(&mut client, false)[0].0, offset);
            producer.end(&mut client, committed);
            let seen = stable(&mut client);
            assert_eq!(seen == offset, committed, "v{version}");
            assert!(seen > before);
        }
    }
}

#[test]
fn an_open_transactions_offsets_are_pending_after_a_start_too() {
    let (data, broker, mut client) = start(&[]);
    client.create_with("t", 3, &[]);
    commit(&mut client, 1);
    let mut producer = Transactional::new(&mut client, true);
    assert_eq!(producer.send(&mut client, 5, 2), 0);
    broker.kill();
    let broker = Broker::start(data.path(), &[]);
    let mut client = Client::connect(&broker.address);
    assert_eq!(fetched(&mut client, true)[0], (-1, UNSTABLE));
    let request = OffsetFetchRequest {
        group_id: "g".into(),
        topics: None,
        require_stable: true,
        ..OffsetFetchRequest::default()
    };
    let answer: OffsetFetchResponse = client.call(7, &request);
    let told = answer.topics[0].partitions.iter();
    let told = told.map(|told| (told.partition_index, told.error_code));
    assert_eq!(told.collect::<Vec<_>>(), [(0, UNSTABLE)]);
    producer.end(&mut client, true);
    assert_eq!(stable(&mut client), 2);
}

/// Of two the later one in the log counts, though it took effect first; and a deletion takes what is pending too.
#[test]
fn a_plain_commit_behind_a_pending_one_stays() {
    let (_data, _broker, mut client) = start(&[]);
    client.create_with("t", 3, &[]);
    commit(&mut client, 0);
    let mut producer = Transactional::new(&mut client, true);
    assert_eq!(producer.send(&mut client, 5, 2), 0);
    commit(&mut client, 1);
    producer.end(&mut client, true);
    assert_eq!(stable(&mut client), 1);
    assert_eq!(producer.send(&mut client, 5, 3), 0);
    let request = DeleteGroupsRequest {
        groups_names: vec!["g".into()],
    };
    let answer: DeleteGroupsResponse = client.call(2, &request);
    assert_eq!(answer.results[0].error_code, 0);
    producer.end(&mut client, true);
    assert_eq!(stable(&mut client), -1);
}

#[test]
fn offsets_without_their_transaction_are_refused() {
    let (_data, _broker, mut client) = start(&[]);
    client.create_with("t", 3, &[]);
    commit(&mut client, 1);
    let old = Transactional::new(&mut client, false);
    let code = |code: ErrorCode| code.code();
    for version in 0..=3 {
        let refused = old.send(&mut client, version, 5);
        assert_eq!(refused, code(ErrorCode::InvalidTxnState), "v{version}");
    }
    let refused = old.send(&mut client, 4, 5);
    assert_eq!(refused, code(ErrorCode::TransactionAbortable));
    let new = Transactional::new(&mut client, true);
    assert_eq!(new.send(&mut client, 5, 6), 0);
    for version in 0..=5 {
        let refused = old.send(&mut client, version, 5);
        assert_eq!(refused, code(ErrorCode::InvalidProducerEpoch), "v{version}");
    }
    let stranger = Transactional {
        id: new.id + 1000,
        ..new
    };
    for version in 0..=5 {
        let refused = stranger.send(&mut client, version, 5);
        assert_eq!(refused, code(ErrorCode::InvalidProducerIdMapping));
    }
}

fn txn_commit(group: &str, topic: &str, index: i32) -> TxnOffsetCommitRequest {
    TxnOffsetCommitRequest {
        transactional_id: "x".into(),
        group_id: group.into(),
        producer_id: 7,
        topics: vec![TxnOffsetCommitRequestTopic {
            name: topic.into(),
            partitions: vec![TxnOffsetCommitRequestPartition {
                partition_index: index,
                committed_offset: 1,
                ..TxnOffsetCommitRequestPartition::default()
            }],
        }],
        ..TxnOffsetCommitRequest::default()
    }
}

#[test]
fn what_needs_no_transaction_to_be_refused() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    let unknown = ErrorCode::UnknownTopicOrPartition;
    for version in 0..=5 {
        for (group, topic, index, code) in [
            ("g", "nowhere", 0, unknown),
            ("g", "t", 9, unknown),
            ("", "t", 0, ErrorCode::InvalidGroupId),
            ("g", "t", 0, ErrorCode::NotCoordinator),
        ] {
            let request = txn_commit(group, topic, index);
            let answer: TxnOffsetCommitResponse = client.call(version, &request);
            let told = &answer.topics[0];
            assert_eq!(told.name, topic);
            assert_eq!(told.partitions[0].partition_index, index);
            assert_eq!(
                told.partitions[0].error_code,
                code.code(),
                "{group} {topic}"
            );
        }
    }
}
