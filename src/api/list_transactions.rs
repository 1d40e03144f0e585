//! ListTransactions (key 66): the transactions that there are (KIP-664).
//!
//! # Version notes
//! - v1: only those that last longer than a time (KIP-994).
//! - v2: only those whose id matches a pattern (KIP-1152).

use super::{Call, Ended};
use crate::error::ErrorCode;
use crate::group::consumer::compile;
use crate::txn::{Request, Response};
use crate::wire::messages;

messages! {
    ListTransactionsRequest(66) [0-2, flexible 0+] {
        state_filters: Vec<String> [0+],
        producer_id_filters: Vec<i64> [0+],
        duration_filter: i64 [1+] = -1,
        transactional_id_pattern: Option<String> [2+],
    }

    ListTransactionsResponse(66) [0-2, flexible 0+] {
        throttle_time_ms: i32 [0+],
        error_code: i16 [0+],
        unknown_state_filters: Vec<String> [0+],
        transaction_states: Vec<TransactionState> [0+],
    }
    TransactionState {
        transactional_id: String [0+],
        producer_id: i64 [0+],
        transaction_state: String [0+],
    }
}

/// Asks the coordinator, and here sees to the pattern, which the whole id must match: a hostile one takes long.
pub fn handle(
    call: &mut Call<'_>,
    request: ListTransactionsRequest,
) -> Result<ListTransactionsResponse, Ended> {
    let pattern = request.transactional_id_pattern.as_deref();
    let pattern = pattern.filter(|pattern| !pattern.is_empty()).map(compile);
    let Ok(pattern) = pattern.transpose() else {
        return Ok(ListTransactionsResponse {
            error_code: ErrorCode::InvalidRegularExpression.code(),
            ..ListTransactionsResponse::default()
        });
    };
    let Response::Listed(mut response) = call.ask_transactions(Request::List(request))? else {
        return Err(Ended);
    };
    if let Some(pattern) = pattern {
        let states = &mut response.transaction_states;
        states.retain(|state| pattern.is_match(&state.transactional_id));
    }
    Ok(response)
}
