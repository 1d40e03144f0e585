//! Markers on their way into the partitions, and those that must be tried again.
//!
//! Owns: every marker until it is written or has become pointless. Invariant: a marker of a transaction is counted
//! off once.

use super::{Serial, TopicPartition};
use crate::error::ErrorCode;
use crate::seldom::Seldom;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// How long a marker that the storage refused is left alone.
pub const RETRY_MS: i64 = 1_000;

/// One marker for one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Where.
    pub partition: TopicPartition,
    /// Whose transaction ends.
    pub producer_id: i64,
    /// At which epoch.
    pub epoch: i16,
    /// Whether what was written counts.
    pub commit: bool,
    /// Batches of transactions up to this one come too late.
    pub serial: Serial,
    /// The coordinator's epoch, if it is not the present one.
    pub coordinator_epoch: Option<i32>,
}

/// Who waits for a marker.
#[derive(Clone, Debug)]
pub enum Owner {
    /// The transaction of this id.
    Transaction(Arc<str>),
    /// Nobody: it ends what a log holds open and no transaction knows.
    Nobody,
    /// A request, by its number, and the marker's place in it; what is refused is not tried again.
    Request(u64, usize),
}

/// All of them.
#[derive(Default)]
pub struct Marks {
    under_way: HashMap<u64, (Mark, Owner)>,
    refused: Vec<(Mark, Owner)>,
    /// When those are tried again.
    retry_ms: Option<i64>,
}

impl Marks {
    /// A marker is on its way, and known by `token`.
    pub fn sent(&mut self, token: u64, mark: Mark, owner: Owner) {
        self.under_way.insert(token, (mark, owner));
    }

    /// The marker that is known by `token`.
    pub fn get(&self, token: u64) -> Option<&Mark> {
        self.under_way.get(&token).map(|(mark, _)| mark)
    }

    /// What became of a marker; gives back whose it is, unless it is to be tried again.
    pub fn settle(
        &mut self,
        token: u64,
        result: Result<(), ErrorCode>,
        now_ms: i64,
    ) -> Option<Owner> {
        let (mark, owner) = self.under_way.remove(&token)?;
        let Err(code) = result else {
            return Some(owner);
        };
        let is_pointless = matches!(
            code,
            ErrorCode::UnknownTopicOrPartition
                | ErrorCode::UnknownTopicId
                | ErrorCode::InvalidProducerEpoch
                | ErrorCode::TransactionCoordinatorFenced
        );
        let (topic, index) = &mark.partition;
        if is_pointless || matches!(owner, Owner::Request(..)) {
            log::info!(
                "no marker for producer {} in {topic}-{index}: {code:?}",
                mark.producer_id
            );
            return Some(owner);
        }
        static WAITING: Seldom = Seldom::new();
        WAITING.warn(format_args!(
            "the marker for producer {} in {topic}-{index} must wait: {code:?}",
            mark.producer_id
        ));
        self.refused.push((mark, owner));
        self.retry_ms.get_or_insert(now_ms + RETRY_MS);
        None
    }

    /// When refused ones are to be tried again.
    pub fn retry_ms(&self) -> Option<i64> {
        self.retry_ms
    }

    /// Those that are to be tried again now.
    pub fn take_refused(&mut self) -> Vec<(Mark, Owner)> {
        self.retry_ms = None;
        std::mem::take(&mut self.refused)
    }

    /// Topics are gone, and with them the need to end anything there; gives back whose refused markers those were.
    /// Those on their way are refused by the writer.
    pub fn forget_topics(&mut self, topics: &BTreeSet<String>) -> Vec<Owner> {
        let gone = self
            .refused
            .extract_if(.., |(mark, _)| topics.contains(&*mark.partition.0));
        gone.map(|(_, owner)| owner).collect()
    }

    /// The transactions are forgotten; what was decided is still carried out.
    pub fn disown(&mut self) {
        let all = self.under_way.values_mut().chain(&mut self.refused);
        for (_, owner) in all {
            if matches!(owner, Owner::Transaction(_)) {
                *owner = Owner::Nobody;
            }
        }
    }
}
