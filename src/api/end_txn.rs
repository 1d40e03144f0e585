//! EndTxn (key 26): commits or aborts a transaction (KIP-98).
//!
//! # Behavior
//! - Answered once the decision is synced; the markers follow at once. Whoever asks again before they are written
//!   waits, for a few seconds.
//!
//! # Version notes
//! - v1: throttling happens after the response (KIP-219). v2: PRODUCER_FENCED may come back (KIP-588). v3: flexible.
//! - v4: TRANSACTION_ABORTABLE may come back (KIP-890).
//! - v5: each end raises the producer's epoch, or gives it a new id, and the answer says so (KIP-890).

use super::{Call, Ended};
use crate::txn::{Producer, Request, Response};
use crate::wire::messages;

messages! {
    EndTxnRequest(26) [0-5, flexible 3+] {
        transactional_id: String [0+],
        producer_id: i64 [0+],
        producer_epoch: i16 [0+],
        committed: bool [0+],
    }

    EndTxnResponse(26) [0-5, flexible 3+] {
        throttle_time_ms: i32 [0+],
        error_code: i16 [0+],
        producer_id: i64 [5+] = -1,
        producer_epoch: i16 [5+] = -1,
    }
}

/// Asks the coordinator.
pub fn handle(
    call: &mut Call<'_>,
    version: i16,
    request: EndTxnRequest,
) -> Result<EndTxnResponse, Ended> {
    let request = Request::End {
        producer: Producer {
            transactional_id: request.transactional_id,
            id: request.producer_id,
            epoch: request.producer_epoch,
        },
        commit: request.committed,
        bumps: version >= 5,
    };
    match call.ask_transactions(request)? {
        Response::Ended(Ok((producer_id, producer_epoch))) => Ok(EndTxnResponse {
            producer_id,
            producer_epoch,
            ..EndTxnResponse::default()
        }),
        Response::Ended(Err(code)) => Ok(EndTxnResponse {
            error_code: code.of_producer(version >= 2).code(),
            ..EndTxnResponse::default()
        }),
        _ => Err(Ended),
    }
}
