//! InitProducerId (key 22): an id and an epoch for an idempotent or transactional producer (KIP-98).
//!
//! # Behavior
//! - Ids come from blocks that were synced in the catalog before the first of them is handed out.
//! - A transactional producer that begins anew fences the one before it: what that has open is aborted first, and the
//!   request waits for it, where Kafka says CONCURRENT_TRANSACTIONS; after a few seconds the answer is the same.
//!
//! # Version notes
//! - v1: throttling happens after the response (KIP-219). v2: flexible (KIP-482).
//! - v3: the producer's present id and epoch, to go on after an error (KIP-360).
//! - v4: PRODUCER_FENCED may come back (KIP-588). v5: TRANSACTION_ABORTABLE may come back (KIP-890).
//! - v6, two-phase commit (KIP-939), is not stable in Kafka yet and has no table.

use super::{Call, Ended};
use crate::control::{Answer, Request};
use crate::error::ErrorCode;
use crate::txn;
use crate::wire::messages;

messages! {
    InitProducerIdRequest(22) [0-5, flexible 2+] {
        transactional_id: Option<String> [0+],
        transaction_timeout_ms: i32 [0+],
        producer_id: i64 [3+] = -1,
        producer_epoch: i16 [3+] = -1,
    }

    InitProducerIdResponse(22) [0-5, flexible 2+] {
        throttle_time_ms: i32 [0+],
        error_code: i16 [0+],
        producer_id: i64 [0+] = -1,
        producer_epoch: i16 [0+],
    }
}

/// Gives an idempotent producer an id that no other ever had, with epoch 0, and a transactional one the id and epoch
/// that its `transactional.id` has now.
///
/// A producer without a transactional id that asks to go on with its id at a higher epoch (KIP-360) gets a new id
/// instead, as from Kafka.
pub fn handle(
    call: &mut Call<'_>,
    version: i16,
    request: InitProducerIdRequest,
) -> Result<InitProducerIdResponse, Ended> {
    let refused = |code: ErrorCode| InitProducerIdResponse {
        error_code: code.of_producer(version >= 4).code(),
        producer_epoch: -1,
        ..InitProducerIdResponse::default()
    };
    let expected = match (request.producer_id, request.producer_epoch) {
        (-1, -1) => None,
        (-1, _) | (_, -1) => return Ok(refused(ErrorCode::InvalidRequest)),
        expected => Some(expected),
    };
    let Some(transactional_id) = request.transactional_id else {
        return Ok(match call.ask(Request::NewProducerId)? {
            Answer::ProducerId(Ok(producer_id)) => InitProducerIdResponse {
                producer_id,
                ..InitProducerIdResponse::default()
            },
            Answer::ProducerId(Err(code)) => refused(code),
            _ => refused(ErrorCode::UnknownServerError),
        });
    };
    let timeout_ms = request.transaction_timeout_ms;
    let timeouts_ms = 1..=call.broker.config().transaction_max_timeout_ms;
    if !transactional_id.is_empty() && !timeouts_ms.contains(&timeout_ms) {
        return Ok(refused(ErrorCode::InvalidTransactionTimeout));
    }
    let init = txn::Request::Init {
        transactional_id,
        timeout_ms,
        expected,
    };
    match call.ask_transactions(init)? {
        txn::Response::Init(Ok((producer_id, producer_epoch))) => Ok(InitProducerIdResponse {
            producer_id,
            producer_epoch,
            ..InitProducerIdResponse::default()
        }),
        txn::Response::Init(Err(code)) => Ok(refused(code)),
        _ => Err(Ended),
    }
}
