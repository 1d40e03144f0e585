//! AddOffsetsToTxn (key 25): a group's offsets become part of a transaction (KIP-98).
//!
//! # Behavior
//! - What is added is the partition of `__consumer_offsets` that holds the group.
//! - While the last transaction's markers are still being written the request waits, for a few seconds.
//!
//! # Version notes
//! - v1: throttling happens after the response (KIP-219). v2: PRODUCER_FENCED may come back (KIP-588). v3: flexible.
//! - v4: TRANSACTION_ABORTABLE may come back (KIP-890).

use super::{Call, Ended};
use crate::catalog::OFFSETS_TOPIC;
use crate::control::{self, Answer, Internal};
use crate::error::ErrorCode;
use crate::group::partition_of;
use crate::txn::{Producer, Request, Response};
use crate::wire::messages;

messages! {
    AddOffsetsToTxnRequest(25) [0-4, flexible 3+] {
        transactional_id: String [0+],
        producer_id: i64 [0+],
        producer_epoch: i16 [0+],
        group_id: String [0+],
    }

    AddOffsetsToTxnResponse(25) [0-4, flexible 3+] {
        throttle_time_ms: i32 [0+],
        error_code: i16 [0+],
    }
}

/// Asks the coordinator, once there is a topic for offsets.
pub fn handle(
    call: &mut Call<'_>,
    version: i16,
    request: AddOffsetsToTxnRequest,
) -> Result<AddOffsetsToTxnResponse, Ended> {
    let told = |code: ErrorCode| AddOffsetsToTxnResponse {
        error_code: code.code(),
        ..AddOffsetsToTxnResponse::default()
    };
    match call.ask(control::Request::InternalTopic(Internal::Offsets))? {
        Answer::InternalTopic(ErrorCode::None) => {}
        Answer::InternalTopic(code) => return Ok(told(code)),
        _ => return Err(Ended),
    }
    let catalog = call.broker.catalog.get();
    let Some(topic) = catalog.by_name(OFFSETS_TOPIC) else {
        return Ok(told(ErrorCode::CoordinatorNotAvailable));
    };
    let index = partition_of(&request.group_id, topic.partitions.len());
    let request = Request::Enlist {
        producer: Producer {
            transactional_id: request.transactional_id,
            id: request.producer_id,
            epoch: request.producer_epoch,
        },
        partitions: vec![(topic.name.clone(), index)],
        bumps: false,
    };
    match call.ask_transactions(request)? {
        Response::Enlisted(Ok(_)) => Ok(told(ErrorCode::None)),
        Response::Enlisted(Err(code)) => Ok(told(code.of_producer(version >= 2))),
        _ => Err(Ended),
    }
}
