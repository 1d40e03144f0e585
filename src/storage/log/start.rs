//! The log start: how it rises, and how what lies below it goes.
//!
//! Invariants: it never falls, and never rises above the high watermark; it rises once the new start is durable
//! elsewhere, and what it passed goes then (DeleteRecords, L4; retention, L3), never the active one. Producer state
//! stays as it is, as in Kafka: a producer's next batch follows its last one, whether that is still there or not.

use super::Log;
use crate::error::{ErrorCode, Result};
use crate::storage::append::Turn;
use crate::storage::checkpoint::EpochStart;
use crate::storage::retention::LastToGo;
use crate::storage::segment::{Extent, Segment};
use crate::storage::snapshot;
use std::sync::Arc;

/// What a DeleteRecords request names the high watermark by (Kafka's `DeleteRecordsRequest.HIGH_WATERMARK`).
const HIGH_WATERMARK: i64 = -1;

impl Log {
    /// The log start if it were raised to `offset`, or to the high watermark if that is -1: it lies higher than asked
    /// for where it already did.
    ///
    /// # Errors
    /// OFFSET_OUT_OF_RANGE beyond the high watermark or below 0; KAFKA_STORAGE_ERROR while the log is offline.
    pub fn raised_start(&self, offset: i64) -> Result<i64, ErrorCode> {
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
        Ok(offset.max(self.log_start))
    }

    /// Nothing below `offset` is served any more; see [`Log::raised_start`]. Gives the log start.
    pub fn raise_start(&mut self, offset: i64) -> Result<i64, ErrorCode> {
        let raised = self.raised_start(offset)?;
        if raised > self.log_start {
            self.log_start = raised;
            self.epochs = epochs_from(&self.epochs, raised).into();
            // Not now: each save is a sync, and the next start cuts the old ones just the same.
            self.epochs_unsaved = true;
        }
        Ok(raised)
    }

    /// Retention (L3): the segments up to `last` may go; gives the log start behind them, which is not raised yet. The
    /// active one is rolled first if it is among them, and [`Log::unsynced`] is then to be synced.
    ///
    /// # Errors
    /// OFFSET_OUT_OF_RANGE if that segment is gone, was rewritten or has grown: it is another one than was looked at
    /// (P4). The list's generation would not do: a busy log of small segments moves it all the time.
    /// KAFKA_STORAGE_ERROR while the log is offline.
    pub fn pass_segments(&mut self, last: LastToGo, time_ms: i64) -> Result<i64, ErrorCode> {
        if self.offline {
            return Err(ErrorCode::KafkaStorageError);
        }
        let active = self.active.extent();
        let is_last =
            |e: &Extent| e.segment.serial() == last.segment && e.end_offset == last.end_offset;
        if !self.closed.iter().chain([&active]).any(is_last) {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        if is_last(&active)
            && let Err(e) = self.begin_segment(time_ms)
        {
            // The others may go all the same: a full disk is what they are in the way of.
            log::warn!("{}: its last segment stays: {e}", self.dir.display());
            return Ok(active.base_offset().max(self.log_start));
        }
        Ok(last.end_offset.max(self.log_start))
    }

    /// Goes on in a new segment if the active one is that of this serial, so that it can be mended; says whether it
    /// did. [`Log::unsynced`] is then to be synced.
    ///
    /// # Errors
    /// The new one could not be made.
    pub fn seal(&mut self, serial: u64, time_ms: i64) -> Result<bool> {
        let is_active = self.active.segment.serial() == serial;
        match is_active && !self.offline {
            true => self.begin_segment(time_ms).map(|()| true),
            false => Ok(false),
        }
    }

    /// Goes on in a new segment.
    fn begin_segment(&mut self, time_ms: i64) -> Result<()> {
        let mut turn = Turn::new(self.active.tail.clone(), time_ms);
        let snapshot = snapshot::encode(&self.producers);
        turn.roll(self.appended_end(), time_ms, snapshot);
        self.turn = Some(turn);
        self.write_staged()
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
