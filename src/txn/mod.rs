//! Transactions: which partitions a producer writes to as one, and how that ends (KIP-98, KIP-890).
//!
//! Owns nothing that lasts: `__transaction_state` holds what must outlive the process, and the markers in the
//! partitions' own logs say what consumers may see.
//!
//! A transaction is known in two places. The coordinator, on the control thread, knows its state and its partitions.
//! The writer knows, by log, which producer has an open one there, and where it begins. [`Open`] is what the threads
//! that take batches may know of the former, and [`Serial`] is how the latter tells a batch that comes too late.
//!
//! Invariants of the coordinator: a step counts only once its record is synced, and one whose record is refused never
//! was; an end is decided by its record, before the first marker is written, and done once the last one is, so that a
//! crash between leaves each transaction wholly committed or wholly aborted.

mod marks;
mod open;
#[cfg(test)]
mod property_tests;
mod reads;
pub mod records;
mod steps;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod transaction;
mod transactions;

pub use marks::Mark;
pub use open::{Open, Part, Serial};
pub use transaction::{State, Transaction, Verdict};
pub use transactions::{Effect, Transactions};

use crate::api::describe_transactions::{DescribeTransactionsResponse, TransactionState};
use crate::api::list_transactions::{ListTransactionsRequest, ListTransactionsResponse};
use crate::config::Config;
use crate::error::ErrorCode;
use std::sync::Arc;

/// What a step may look at besides the transaction itself.
#[derive(Clone, Copy)]
pub struct Env<'a> {
    /// CLOCK_BOOTTIME in ms: what a transaction may last runs on it.
    pub now_ms: i64,
    /// Broker time in ms since 1970 (promise P8): what is recorded, and what ids expire on.
    pub time_ms: i64,
    /// The broker's settings.
    pub config: &'a Config,
}

/// A topic's name, and a partition of it.
pub type TopicPartition = (Arc<str>, i32);

/// What a log holds open: where, whose, at which epoch.
pub type LogOpen = (TopicPartition, i64, i16);

/// A transactional producer as it names itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    /// Its `transactional.id`.
    pub transactional_id: String,
    /// The id that it was given.
    pub id: i64,
    /// The epoch that it was given.
    pub epoch: i16,
}

/// What is asked of the coordinator.
#[derive(Clone, Debug)]
pub enum Request {
    /// Begin, or begin anew, as a producer.
    Init {
        /// Its `transactional.id`.
        transactional_id: String,
        /// Its `transaction.timeout.ms`.
        timeout_ms: i32,
        /// The id and epoch that it has, if it goes on after an error (KIP-360).
        expected: Option<(i64, i16)>,
    },
    /// Make these partitions part of the producer's transaction, which begins by that if it has not.
    Enlist {
        /// Whose.
        producer: Producer,
        /// Which are there; that is not checked again.
        partitions: Vec<TopicPartition>,
        /// Whether the producer's epoch rises at each end (KIP-890): Produce from v12 on, TxnOffsetCommit from v5.
        bumps: bool,
    },
    /// Say which partitions are part of the producer's transaction.
    Verify {
        /// Whose.
        producer: Producer,
        /// Which.
        partitions: Vec<TopicPartition>,
    },
    /// End the producer's transaction.
    End {
        /// Whose.
        producer: Producer,
        /// Whether what was written counts.
        commit: bool,
        /// Whether the producer's epoch rises by that (KIP-890): EndTxn from v5 on.
        bumps: bool,
    },
    /// Write markers, whatever is known of the producer: an operator aborts what hangs.
    Mark {
        /// Whose.
        producer_id: i64,
        /// Its epoch.
        epoch: i16,
        /// Whether what was written counts.
        commit: bool,
        /// The epoch of the coordinator that is said to have ended it.
        coordinator_epoch: i32,
        /// Where.
        partitions: Vec<TopicPartition>,
    },
    /// Describe transactions, by `transactional.id`.
    Describe(Vec<String>),
    /// List transactions.
    List(ListTransactionsRequest),
}

impl Request {
    /// The one id that is asked about, if it is one.
    fn transactional_id(&self) -> Option<&str> {
        match self {
            Request::Init {
                transactional_id, ..
            } => Some(transactional_id),
            Request::Enlist { producer, .. }
            | Request::Verify { producer, .. }
            | Request::End { producer, .. } => Some(&producer.transactional_id),
            Request::Mark { .. } | Request::Describe(_) | Request::List(_) => None,
        }
    }

    /// The answer that says nothing but an error.
    pub fn refusal(&self, code: ErrorCode) -> Response {
        match self {
            Request::Init { .. } => Response::Init(Err(code)),
            Request::Enlist { .. } => Response::Enlisted(Err(code)),
            Request::Verify { .. } => Response::Verified(Err(code)),
            Request::End { .. } => Response::Ended(Err(code)),
            Request::Mark { partitions, .. } => Response::Marked(vec![code; partitions.len()]),
            Request::Describe(ids) => {
                let refused = |id: &String| TransactionState {
                    error_code: code.code(),
                    transactional_id: id.clone(),
                    ..TransactionState::default()
                };
                Response::Described(DescribeTransactionsResponse {
                    transaction_states: ids.iter().map(refused).collect(),
                    ..DescribeTransactionsResponse::default()
                })
            }
            Request::List(_) => Response::Listed(ListTransactionsResponse {
                error_code: code.code(),
                ..ListTransactionsResponse::default()
            }),
        }
    }
}

/// What the coordinator answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// The producer's id and epoch.
    Init(Result<(i64, i16), ErrorCode>),
    /// The partitions are part of this transaction, durably.
    Enlisted(Result<Serial, ErrorCode>),
    /// Of each partition, in order, whether it is part of the transaction.
    Verified(Result<Vec<bool>, ErrorCode>),
    /// The end is durable; the producer's id and epoch from now on.
    Ended(Result<(i64, i16), ErrorCode>),
    /// What became of each marker, in order.
    Marked(Vec<ErrorCode>),
    /// The transactions that were asked for.
    Described(DescribeTransactionsResponse),
    /// The transactions that there are.
    Listed(ListTransactionsResponse),
}
