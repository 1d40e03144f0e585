//! TxnOffsetCommit (key 28): how far a group has read, to be committed with a producer's transaction.
//!
//! # Behavior
//! - The partition of `__consumer_offsets` that the group's records lie in is part of the transaction first: from v5
//!   on it is made so by this request, before by AddOffsetsToTxn.
//! - Answered once the records are synced. They take effect when the transaction is committed, unless something was
//!   committed for the same partition behind them; until then OffsetFetch with `require_stable` gets
//!   UNSTABLE_OFFSET_COMMIT.
//! - A transaction that ends while the request is on its way ends without it: INVALID_TXN_STATE, or
//!   INVALID_PRODUCER_EPOCH.
//!
//! # Version notes
//! - v1: throttle time after the response (KIP-219). v2: leader epoch (KIP-320). v3: the member (KIP-447), flexible.
//! - v4: TRANSACTION_ABORTABLE in place of INVALID_TXN_STATE. v5: no AddOffsetsToTxn before it (both KIP-890).

use super::offset_commit::*;
use super::{Call, Ended};
use crate::catalog::OFFSETS_TOPIC;
use crate::error::ErrorCode;
use crate::group::{self, Request, Transaction};
use crate::txn::{self, Part, Producer, Serial};
use crate::wire::messages;

messages! {
    TxnOffsetCommitRequest(28) [0-5, flexible 3+] {
        transactional_id: String [0+],
        group_id: String [0+],
        producer_id: i64 [0+],
        producer_epoch: i16 [0+],
        generation_id: i32 [3+] = -1,
        member_id: String [3+],
        group_instance_id: Option<String> [3+],
        topics: Vec<TxnOffsetCommitRequestTopic> [0+],
    }
    TxnOffsetCommitRequestTopic {
        name: String [0+],
        partitions: Vec<TxnOffsetCommitRequestPartition> [0+],
    }
    TxnOffsetCommitRequestPartition {
        partition_index: i32 [0+],
        committed_offset: i64 [0+],
        committed_leader_epoch: i32 [2+] = -1,
        committed_metadata: Option<String> [0+],
    }

    TxnOffsetCommitResponse(28) [0-5, flexible 3+] {
        throttle_time_ms: i32 [0+],
        topics: Vec<TxnOffsetCommitResponseTopic> [0+],
    }
    TxnOffsetCommitResponseTopic {
        name: String [0+],
        partitions: Vec<TxnOffsetCommitResponsePartition> [0+],
    }
    TxnOffsetCommitResponsePartition {
        partition_index: i32 [0+],
        error_code: i16 [0+],
    }
}

/// The highest version whose producer has to send AddOffsetsToTxn first.
const ADDED_BEFORE_MAX: i16 = 4;

/// The version of OffsetCommit that names topics as this request does.
const COMMIT_VERSION: i16 = 9;

/// Puts the offsets of partitions that exist into the transaction; the others get UNKNOWN_TOPIC_OR_PARTITION.
pub fn handle(
    call: &mut Call<'_>,
    version: i16,
    request: TxnOffsetCommitRequest,
) -> Result<TxnOffsetCommitResponse, Ended> {
    let producer = Producer {
        transactional_id: request.transactional_id.clone(),
        id: request.producer_id,
        epoch: request.producer_epoch,
    };
    let catalog = call.broker.catalog.get();
    let told =
        commit_known(
            &catalog,
            COMMIT_VERSION,
            commit_of(request),
            |request| match transaction(call, version, producer, &request.group_id)? {
                Ok(of) => commit(call, COMMIT_VERSION, Request::Commit(request, Some(of))),
                Err(code) => Ok(group::refused_commit(&request, code)),
            },
        )?;
    let topics = told
        .topics
        .into_iter()
        .map(|topic| TxnOffsetCommitResponseTopic {
            name: topic.name,
            partitions: topic
                .partitions
                .into_iter()
                .map(|told| TxnOffsetCommitResponsePartition {
                    partition_index: told.partition_index,
                    error_code: told.error_code,
                })
                .collect(),
        });
    Ok(TxnOffsetCommitResponse {
        topics: topics.collect(),
        ..TxnOffsetCommitResponse::default()
    })
}

/// The same as it is asked of a group without a transaction.
fn commit_of(request: TxnOffsetCommitRequest) -> OffsetCommitRequest {
    let topics = request
        .topics
        .into_iter()
        .map(|topic| OffsetCommitRequestTopic {
            name: topic.name,
            partitions: topic
                .partitions
                .into_iter()
                .map(|partition| OffsetCommitRequestPartition {
                    partition_index: partition.partition_index,
                    committed_offset: partition.committed_offset,
                    committed_leader_epoch: partition.committed_leader_epoch,
                    committed_metadata: partition.committed_metadata,
                })
                .collect(),
            ..OffsetCommitRequestTopic::default()
        });
    OffsetCommitRequest {
        group_id: request.group_id,
        generation_id_or_member_epoch: request.generation_id,
        member_id: request.member_id,
        group_instance_id: request.group_instance_id,
        topics: topics.collect(),
        ..OffsetCommitRequest::default()
    }
}

/// The producer's transaction, with the partition in it that the group's records lie in; or why there is none.
fn transaction(
    call: &mut Call<'_>,
    version: i16,
    producer: Producer,
    group: &str,
) -> Result<Result<Transaction, ErrorCode>, Ended> {
    if group.is_empty() {
        return Ok(Err(ErrorCode::InvalidGroupId));
    }
    let catalog = call.broker.catalog.get();
    let Some(topic) = catalog.by_name(OFFSETS_TOPIC) else {
        return Ok(Err(ErrorCode::NotCoordinator));
    };
    let partition = group::partition_of(group, topic.partitions.len());
    let (producer_id, producer_epoch) = (producer.id, producer.epoch);
    let serial = serial(call, version, producer, (topic.name.clone(), partition))?;
    Ok(serial.map(|serial| Transaction {
        producer_id,
        producer_epoch,
        serial,
        partition,
    }))
}

fn serial(
    call: &mut Call<'_>,
    version: i16,
    producer: Producer,
    place: txn::TopicPartition,
) -> Result<Result<Serial, ErrorCode>, Ended> {
    let open = call.broker.transactions.clone();
    match open.part(producer.id, producer.epoch, &place.0, place.1) {
        Ok(Part::Of(serial)) => return Ok(Ok(serial)),
        Ok(Part::None) => {}
        Err(code) => return Ok(Err(code)),
    }
    if version > ADDED_BEFORE_MAX {
        let request = txn::Request::Enlist {
            producer,
            partitions: vec![place],
            bumps: true,
        };
        return match call.ask_transactions(request)? {
            txn::Response::Enlisted(serial) => Ok(serial.map_err(known_to_producers)),
            _ => Err(Ended),
        };
    }
    // Why it is no part, the coordinator says.
    let request = txn::Request::Verify {
        producer,
        partitions: vec![place],
    };
    match call.ask_transactions(request)? {
        txn::Response::Verified(Err(code)) => Ok(Err(known_to_producers(code))),
        txn::Response::Verified(Ok(_)) if version == ADDED_BEFORE_MAX => {
            Ok(Err(ErrorCode::TransactionAbortable))
        }
        txn::Response::Verified(Ok(_)) => Ok(Err(ErrorCode::InvalidTxnState)),
        _ => Err(Ended),
    }
}

/// Producers expect to be fenced by this code where they do not speak to the coordinator of transactions.
fn known_to_producers(code: ErrorCode) -> ErrorCode {
    match code {
        ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch,
        other => other,
    }
}
