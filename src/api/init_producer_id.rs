//! InitProducerId (key 22): an id and an epoch for an idempotent or transactional producer (KIP-98).
//!
//! # Behavior
//! - Ids come from blocks that were synced in the catalog before the first of them is handed out.
//!
//! # Version notes
//! - v1: throttling happens after the response (KIP-219). v2: flexible (KIP-482).
//! - v3: the producer's present id and epoch, to go on after an error (KIP-360).
//! - v4: PRODUCER_FENCED may come back (KIP-588). v5: TRANSACTION_ABORTABLE may come back (KIP-890).
//! - v6, two-phase commit (KIP-939), is not stable in Kafka yet and has no table.

use super::{Call, Ended};
use crate::control::{Answer, Request};
use crate::error::ErrorCode;
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

/// Gives an idempotent producer an id that no other ever had, with epoch 0.
///
/// A producer that asks to go on with its id at a higher epoch (KIP-360) gets a new id instead, as from Kafka
/// when it has no transactional id. Transactions are not served, so a transactional id is refused.
pub fn handle(
    call: &mut Call<'_>,
    request: InitProducerIdRequest,
) -> Result<InitProducerIdResponse, Ended> {
    let refused = |code: ErrorCode| InitProducerIdResponse {
        error_code: code.code(),
        producer_epoch: -1,
        ..InitProducerIdResponse::default()
    };
    if request.transactional_id.is_some() {
        return Ok(refused(ErrorCode::InvalidRequest));
    }
    Ok(match call.ask(Request::NewProducerId)? {
        Answer::ProducerId(Ok(producer_id)) => InitProducerIdResponse {
            producer_id,
            ..InitProducerIdResponse::default()
        },
        Answer::ProducerId(Err(code)) => refused(code),
        _ => refused(ErrorCode::UnknownServerError),
    })
}
