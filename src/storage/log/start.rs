//! The log start: how it rises, and how what lies below it goes.
//!
//! Invariants: it never falls, and never rises above the high watermark; a segment that it passed goes only once the
//! new start is durable elsewhere (DeleteRecords, L4), never the active one. Producer state stays as it is, as in
//! Kafka: a producer's next batch follows its last one, whether that is still there or not.

use super::Log;
use crate::error::ErrorCode;
use crate::storage::checkpoint::EpochStart;
use crate::storage::segment::Segment;
use std::sync::Arc;

/// What a DeleteRecords request names the high watermark by (Kafka's `DeleteRecordsRequest.HIGH_WATERMARK`).
const HIGH_WATERMARK: i64 = -1;

impl Log {
    /// Nothing below `offset`, or below the high watermark if it is -1, is served any more; gives the log start, which
    /// lies higher than asked for where it already did.
    ///
    /// # Errors
    /// OFFSET_OUT_OF_RANGE beyond the high watermark or below 0; KAFKA_STORAGE_ERROR while the log is offline.
    pub fn raise_start(&mut self, offset: i64) -> Result<i64, ErrorCode> {
        if self.offline {
            return Err(ErrorCode::KafkaStorageError);
        }
        let high_watermark = self.view().high_watermark;
        let offset = match offset {
            HIGH_WATERMARK => high_watermark,
            _ => offset,
        };
        if !(0..=high_watermark).contains(&offset) {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        if offset > self.log_start {
            self.log_start = offset;
            self.epochs = epochs_from(&self.epochs, offset).into();
            // Not now: each save is a sync, and the next start cuts the old ones just the same.
            self.epochs_unsaved = true;
        }
        Ok(self.log_start)
    }

    /// Takes the segments that lie below the log start out of the list and gives them. Their files are still in place:
    /// they may go once a view without them is published.
    pub fn take_passed(&mut self) -> Vec<Arc<Segment>> {
        let passed = self
            .closed
            .partition_point(|e| e.end_offset <= self.log_start);
        if passed == 0 {
            return Vec::new();
        }
        let (passed, kept) = self.closed.split_at(passed);
        let passed = passed.iter().map(|extent| extent.segment.clone()).collect();
        self.closed = kept.into();
        self.generation += 1;
        passed
    }
}

/// The epochs of what lies at and behind `log_start`: the one that holds it begins there now.
pub(super) fn epochs_from(epochs: &[EpochStart], log_start: i64) -> Vec<EpochStart> {
    let after = epochs.partition_point(|e| e.start_offset <= log_start);
    let first = after.checked_sub(1).map(|at| EpochStart {
        start_offset: log_start,
        ..epochs[at]
    });
    first
        .into_iter()
        .chain(epochs[after..].iter().copied())
        .collect()
}

#[cfg(test)]
#[path = "start_tests.rs"]
mod tests;
