//! AddPartitionsToTxn (key 24): partitions become part of a transaction (KIP-98).
//!
//! # Behavior
//! - Answered once that is synced. If any partition is not there none is added, and the others say
//!   OPERATION_NOT_ATTEMPTED.
//! - While the last transaction's markers are still being written the request waits, for a few seconds.
//!
//! # Version notes
//! - v1: throttling happens after the response (KIP-219). v2: PRODUCER_FENCED may come back (KIP-588). v3: flexible.
//! - v4: several transactions, or only a look at what they hold (KIP-890), which brokers ask each other.
//! - v5: the producer's epoch rises at each end (KIP-890).

use super::{Call, Ended};
use crate::catalog::Catalog;
use crate::error::ErrorCode;
use crate::txn::{Producer, Request, Response, TopicPartition};
use crate::wire::messages;

messages! {
    AddPartitionsToTxnRequest(24) [0-5, flexible 3+] {
        transactions: Vec<AddPartitionsToTxnTransaction> [4+],
        v3_and_below_transactional_id: String [0-3],
        v3_and_below_producer_id: i64 [0-3],
        v3_and_below_producer_epoch: i16 [0-3],
        v3_and_below_topics: Vec<AddPartitionsToTxnTopic> [0-3],
    }
    AddPartitionsToTxnTransaction {
        transactional_id: String [4+],
        producer_id: i64 [4+],
        producer_epoch: i16 [4+],
        verify_only: bool [4+],
        topics: Vec<AddPartitionsToTxnTopic> [4+],
    }
    AddPartitionsToTxnTopic {
        name: String [0+],
        partitions: Vec<i32> [0+],
    }

    AddPartitionsToTxnResponse(24) [0-5, flexible 3+] {
        throttle_time_ms: i32 [0+],
        error_code: i16 [4+],
        results_by_transaction: Vec<AddPartitionsToTxnResult> [4+],
        results_by_topic_v3_and_below: Vec<AddPartitionsToTxnTopicResult> [0-3],
    }
    AddPartitionsToTxnResult {
        transactional_id: String [4+],
        topic_results: Vec<AddPartitionsToTxnTopicResult> [4+],
    }
    AddPartitionsToTxnTopicResult {
        name: String [0+],
        results_by_partition: Vec<AddPartitionsToTxnPartitionResult> [0+],
    }
    AddPartitionsToTxnPartitionResult {
        partition_index: i32 [0+],
        partition_error_code: i16 [0+],
    }
}

/// Asks the coordinator, transaction by transaction.
pub fn handle(
    call: &mut Call<'_>,
    version: i16,
    request: AddPartitionsToTxnRequest,
) -> Result<AddPartitionsToTxnResponse, Ended> {
    let mut response = AddPartitionsToTxnResponse::default();
    if version < 4 {
        let transaction = AddPartitionsToTxnTransaction {
            transactional_id: request.v3_and_below_transactional_id,
            producer_id: request.v3_and_below_producer_id,
            producer_epoch: request.v3_and_below_producer_epoch,
            verify_only: false,
            topics: request.v3_and_below_topics,
        };
        response.results_by_topic_v3_and_below = add(call, version, transaction)?;
        return Ok(response);
    }
    for transaction in request.transactions {
        response
            .results_by_transaction
            .push(AddPartitionsToTxnResult {
                transactional_id: transaction.transactional_id.clone(),
                topic_results: add(call, version, transaction)?,
            });
    }
    Ok(response)
}

fn add(
    call: &mut Call<'_>,
    version: i16,
    transaction: AddPartitionsToTxnTransaction,
) -> Result<Vec<AddPartitionsToTxnTopicResult>, Ended> {
    let topics = transaction.topics;
    let found = find(&call.broker.catalog.get(), &topics);
    if found.iter().any(Option::is_none) {
        let mut found = found.iter();
        return Ok(results(&topics, || match found.next() {
            Some(Some(_)) => ErrorCode::OperationNotAttempted,
            _ => ErrorCode::UnknownTopicOrPartition,
        }));
    }
    let partitions = found.into_iter().flatten().collect();
    let producer = Producer {
        transactional_id: transaction.transactional_id,
        id: transaction.producer_id,
        epoch: transaction.producer_epoch,
    };
    let request = match transaction.verify_only {
        true => Request::Verify {
            producer,
            partitions,
        },
        false => Request::Enlist {
            producer,
            partitions,
            bumps: version >= 5,
        },
    };
    Ok(match call.ask_transactions(request)? {
        Response::Verified(Ok(parts)) => {
            let mut parts = parts.into_iter();
            results(&topics, || match parts.next() {
                Some(true) => ErrorCode::None,
                _ => ErrorCode::TransactionAbortable,
            })
        }
        Response::Enlisted(Ok(_)) => results(&topics, || ErrorCode::None),
        Response::Enlisted(Err(code)) | Response::Verified(Err(code)) => {
            results(&topics, || code.of_producer(version >= 2))
        }
        _ => return Err(Ended),
    })
}

/// Each partition, if it is there.
fn find(catalog: &Catalog, topics: &[AddPartitionsToTxnTopic]) -> Vec<Option<TopicPartition>> {
    let of = |asked: &AddPartitionsToTxnTopic| {
        let topic = catalog.by_name(&asked.name);
        let find = |index: &i32| {
            let topic = topic.filter(|topic| topic.partition(*index).is_some())?;
            Some((topic.name.clone(), *index))
        };
        asked.partitions.iter().map(find).collect::<Vec<_>>()
    };
    topics.iter().flat_map(of).collect()
}

/// Each partition's answer, in the order of the request.
fn results(
    topics: &[AddPartitionsToTxnTopic],
    mut code: impl FnMut() -> ErrorCode,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let mut result = |partition_index: &i32| AddPartitionsToTxnPartitionResult {
        partition_index: *partition_index,
        partition_error_code: code().code(),
    };
    let results = topics.iter().map(|topic| AddPartitionsToTxnTopicResult {
        name: topic.name.clone(),
        results_by_partition: topic.partitions.iter().map(&mut result).collect(),
    });
    results.collect()
}
