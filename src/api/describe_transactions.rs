//! DescribeTransactions (key 65): the state of transactions, by `transactional.id` (KIP-664).
//!
//! # Version notes
//! - v0 is the only version.

use super::{Call, Ended};
use crate::txn::{Request, Response};
use crate::wire::messages;

messages! {
    DescribeTransactionsRequest(65) [0-0, flexible 0+] {
        transactional_ids: Vec<String> [0+],
    }

    DescribeTransactionsResponse(65) [0-0, flexible 0+] {
        throttle_time_ms: i32 [0+],
        transaction_states: Vec<TransactionState> [0+],
    }
    TransactionState {
        error_code: i16 [0+],
        transactional_id: String [0+],
        transaction_state: String [0+],
        transaction_timeout_ms: i32 [0+],
        transaction_start_time_ms: i64 [0+],
        producer_id: i64 [0+],
        producer_epoch: i16 [0+],
        topics: Vec<TopicData> [0+],
    }
    TopicData {
        topic: String [0+],
        partitions: Vec<i32> [0+],
    }
}

/// Asks the coordinator.
pub fn handle(
    call: &mut Call<'_>,
    request: DescribeTransactionsRequest,
) -> Result<DescribeTransactionsResponse, Ended> {
    match call.ask_transactions(Request::Describe(request.transactional_ids))? {
        Response::Described(response) => Ok(response),
        _ => Err(Ended),
    }
}
