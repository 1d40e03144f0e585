//! The transactions that are open at this moment, for the threads that take batches.
//!
//! Owns: the published table. Invariants: only the control thread changes it; a partition is in it only once its
//! record in `__transaction_state` is synced, and is out of it before the first marker is on its way.
//!
//! A batch may still be on its way to the writer when its transaction ends. It carries the [`Serial`] that was found
//! here, and so does the marker: the writer refuses a batch whose serial is not above that of the last marker, so a
//! late one can never open a transaction that nobody will end.

use crate::error::ErrorCode;
use crate::lock::{Mutex, Rank};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// One transaction of this process; a later one of the same producer has a higher number. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Serial(pub u64);

/// Where a batch stands to its producer's transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The partition is part of this one.
    Of(Serial),
    /// The partition is not part of it, or there is none.
    None,
}

struct Transaction {
    serial: Serial,
    epoch: i16,
    partitions: BTreeSet<(Arc<str>, i32)>,
}

/// The open transactions, by producer id.
pub struct Open {
    /// Guards the table.
    transactions: Mutex<HashMap<i64, Transaction>>,
}

impl Default for Open {
    fn default() -> Open {
        Open {
            transactions: Mutex::new(Rank::Transactions, HashMap::new()),
        }
    }
}

impl Open {
    /// Whether a partition is part of a producer's open transaction.
    ///
    /// # Errors
    /// INVALID_PRODUCER_EPOCH if the producer's is another one.
    pub fn part(
        &self,
        producer_id: i64,
        epoch: i16,
        topic: &Arc<str>,
        index: i32,
    ) -> Result<Part, ErrorCode> {
        let transactions = self.transactions.lock();
        let Some(transaction) = transactions.get(&producer_id) else {
            return Ok(Part::None);
        };
        if transaction.epoch != epoch {
            return Err(ErrorCode::InvalidProducerEpoch);
        }
        Ok(
            match transaction.partitions.contains(&(topic.clone(), index)) {
                true => Part::Of(transaction.serial),
                false => Part::None,
            },
        )
    }

    /// Adds partitions to a transaction, which begins by that if it has none yet.
    pub fn add(
        &self,
        producer_id: i64,
        epoch: i16,
        serial: Serial,
        partitions: impl IntoIterator<Item = (Arc<str>, i32)>,
    ) {
        let mut transactions = self.transactions.lock();
        let transaction = transactions
            .entry(producer_id)
            .or_insert_with(|| Transaction {
                serial,
                epoch,
                partitions: BTreeSet::new(),
            });
        transaction.partitions.extend(partitions);
    }

    /// Takes partitions out of every transaction: their topics are gone.
    pub fn forget_topics(&self, topics: &BTreeSet<String>) {
        for transaction in self.transactions.lock().values_mut() {
            let partitions = &mut transaction.partitions;
            partitions.retain(|(topic, _)| !topics.contains(&**topic));
        }
    }

    /// Takes a transaction out: it is about to end.
    pub fn remove(&self, producer_id: i64) {
        self.transactions.lock().remove(&producer_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_part_of_what_it_was_added_to_until_that_ends() {
        let (open, topic): (Open, Arc<str>) = (Open::default(), "orders".into());
        assert_eq!(open.part(7, 0, &topic, 1), Ok(Part::None));
        open.add(7, 0, Serial(3), [(topic.clone(), 1)]);
        assert_eq!(open.part(7, 0, &topic, 1), Ok(Part::Of(Serial(3))));
        assert_eq!(open.part(7, 0, &topic, 2), Ok(Part::None));
        let stale = Err(ErrorCode::InvalidProducerEpoch);
        assert_eq!(open.part(7, 1, &topic, 1), stale);
        open.remove(7);
        assert_eq!(open.part(7, 0, &topic, 1), Ok(Part::None));
    }
}
