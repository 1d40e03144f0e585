//! Questions that change nothing.

use super::{Env, State, Transaction, Transactions};
use crate::api::describe_transactions::{
    DescribeTransactionsResponse, TopicData, TransactionState,
};
use crate::api::list_transactions::{self, ListTransactionsRequest, ListTransactionsResponse};
use crate::error::ErrorCode;
use std::collections::BTreeMap;

impl<W: Clone> Transactions<W> {
    pub(super) fn describe(&self, ids: Vec<String>) -> DescribeTransactionsResponse {
        let states = ids.into_iter().map(|id| {
            let found = match id.is_empty() {
                true => Err(ErrorCode::InvalidRequest),
                false => self.get(&id).ok_or(ErrorCode::TransactionalIdNotFound),
            };
            let state = match found {
                Ok(known) => described(known),
                Err(code) => TransactionState {
                    error_code: code.code(),
                    ..TransactionState::default()
                },
            };
            TransactionState {
                transactional_id: id,
                ..state
            }
        });
        DescribeTransactionsResponse {
            transaction_states: states.collect(),
            ..DescribeTransactionsResponse::default()
        }
    }

    pub(super) fn list(
        &self,
        request: &ListTransactionsRequest,
        env: &Env<'_>,
    ) -> ListTransactionsResponse {
        let states = &request.state_filters;
        let is_state = |name: &&String| State::ALL.iter().any(|state| state.name() == **name);
        let is_wanted = |known: &Transaction| {
            let producers = &request.producer_id_filters;
            let lasts_ms = env.time_ms.saturating_sub(known.start_ms);
            (producers.is_empty() || producers.contains(&known.producer_id))
                && (states.is_empty() || states.iter().any(|name| name == known.state.name()))
                && (request.duration_filter < 0 || lasts_ms > request.duration_filter)
        };
        let wanted = self.all().filter(|(_, known)| is_wanted(known));
        let listed = wanted.map(|(id, known)| list_transactions::TransactionState {
            transactional_id: id.to_string(),
            producer_id: known.producer_id,
            transaction_state: known.state.name().into(),
        });
        ListTransactionsResponse {
            unknown_state_filters: states.iter().filter(|s| !is_state(s)).cloned().collect(),
            transaction_states: listed.collect(),
            ..ListTransactionsResponse::default()
        }
    }
}

fn described(known: &Transaction) -> TransactionState {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, index) in &known.partitions {
        topics.entry(topic).or_default().push(*index);
    }
    let topics = topics.into_iter().map(|(topic, partitions)| TopicData {
        topic: topic.into(),
        partitions,
    });
    TransactionState {
        transaction_state: known.state.name().into(),
        transaction_timeout_ms: known.timeout_ms,
        transaction_start_time_ms: known.start_ms,
        producer_id: known.producer_id,
        producer_epoch: known.epoch,
        topics: topics.collect(),
        ..TransactionState::default()
    }
}
