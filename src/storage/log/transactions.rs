//! Transactions in a log: where the last stable offset is, which are open, and which producers are forgotten.
//!
//! Invariants: what lies below the last stable offset is decided, and never again undecided; so is nothing whose
//! marker a power cut could still take. It is never below the log start, since a transaction may begin before that.

use super::Log;

impl Log {
    /// The end of what `read_committed` consumers may see.
    pub(super) fn last_stable(&self) -> i64 {
        let high = self.high().offset;
        let unseen = self.unseen.iter().map(|ended| ended.first_offset);
        let first = unseen.chain(self.producers.first_open()).min();
        first.map_or(high, |first| first.max(self.log_start).min(high))
    }

    /// Transactions count as ended once the high watermark is behind their markers.
    pub(super) fn forget_seen(&mut self) {
        let high = self.high().offset;
        self.unseen.retain(|ended| ended.last_offset >= high);
    }

    /// The transactions that no marker has ended: producer id, epoch and first offset, in the order in which they
    /// began.
    pub fn open_transactions(&self) -> Vec<(i64, i16, i64)> {
        self.producers.open().collect()
    }

    /// Whether there is a producer that may be forgotten in time.
    pub fn has_producers(&self) -> bool {
        !self.producers.is_empty()
    }

    /// Forgets the producers of which nothing came for `expiration_ms` of broker time, which is `now_ms` at this
    /// moment.
    pub fn expire_producers(&mut self, now_ms: i64, expiration_ms: i64) {
        let expired = self.producers.expire(now_ms, expiration_ms);
        if expired > 0 {
            // The next start finds them in no snapshot.
            self.settled = false;
            log::debug!("{}: {expired} idle producers expired", self.dir.display());
        }
    }
}

#[cfg(test)]
#[path = "transactions_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "model_tests.rs"]
mod model;
