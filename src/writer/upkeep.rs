//! What the writer does between turns: late syncs, changed settings, recovery points, log starts, and the close.
//!
//! Invariants: a recovery point is handed over only after everything below it, and the sealed indexes and
//! snapshots beside it, are synced; an idle writer neither writes nor wakes, but for a look at idle producers while there are any.

use super::{CHECKPOINT_INTERVAL, FlushPolicy, Held, Writer};
use crate::error::{Error, ErrorCode, Result};
use crate::storage::{LogSettings, Partition, Status};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Sealed files that wait for their sync keep descriptors open; this many are synced at once.
const HINTS_MAX: usize = 64;

impl Writer {
    /// DeleteRecords (L4): what lies below `offset` is not served from here on. Its bytes stay until the new log start
    /// is durable: [`Writer::remove_passed`].
    pub(super) fn raise_start(
        &mut self,
        partition: &Partition,
        offset: i64,
    ) -> Result<i64, ErrorCode> {
        let held = self.held.get_mut(&partition.serial);
        let held = held.ok_or(ErrorCode::UnknownTopicOrPartition)?;
        let start = held.log.raise_start(offset)?;
        partition.publish(held.log.view());
        Ok(start)
    }

    /// Removes the segments below a log's start, once no published view shows them.
    pub(super) fn remove_passed(&mut self, serial: u64) {
        let Some(held) = self.held.get_mut(&serial) else {
            return;
        };
        let passed = held.log.take_passed();
        if !passed.is_empty() {
            held.partition.publish(held.log.view());
            let delay = held.log.file_delete_delay();
            for segment in passed {
                self.trash.add(&segment, held.log.shared(), delay);
            }
        }
    }

    /// Syncs logs whose `flush.ms` has passed, and saves recovery points from time to time (data synced first).
    pub(super) fn flush_what_is_due(&mut self) {
        self.trash.unlink_due();
        let checkpoint = Instant::now() >= self.next_checkpoint;
        let due = |serial: &u64| checkpoint || self.must_sync(*serial);
        let due: Vec<u64> = self.lagging.iter().copied().filter(due).collect();
        for serial in &due {
            self.lagging.remove(serial);
        }
        self.sync(due);
        if checkpoint || self.hints.len() >= HINTS_MAX {
            let hints = std::mem::take(&mut self.hints);
            self.sync_items(hints);
        }
        if checkpoint {
            self.next_checkpoint = Instant::now() + CHECKPOINT_INTERVAL;
            // Nothing is handed over, hence nothing written, when nothing changed: an idle broker leaves the
            // disk alone.
            if std::mem::take(&mut self.has_moved) {
                self.control.recovery_points(self.recovery_points());
            }
        }
    }

    /// Keeps a log by other settings. Where consumers were shown what is not synced and shall be no more, it is synced
    /// first: a high watermark never falls (P2).
    pub(super) fn configure(&mut self, serial: u64, settings: LogSettings, flush: FlushPolicy) {
        if flush.every_turn() && self.lagging.remove(&serial) {
            self.sync(vec![serial]);
        }
        // One that was dropped, or that could not be opened, is not held.
        let Some(held) = self.held.get_mut(&serial) else {
            return;
        };
        held.flush = flush;
        held.log.set_settings(settings);
        self.publish(serial);
    }

    fn recovery_points(&self) -> RecoveryPoints {
        let point = |held: &Held| {
            let (topic, index) = (held.partition.topic.clone(), held.partition.index);
            RecoveryPoint {
                topic,
                index,
                offset: held.log.recovery_point(),
                log_start: held.log.log_start(),
            }
        };
        self.held.values().map(point).collect()
    }

    /// Lets go of a deleted partition's log.
    pub(super) fn drop_log(&mut self, partition: &Partition) {
        partition.set_status(Status::Deleted);
        self.ready.retain(|serial| *serial != partition.serial);
        self.lagging.remove(&partition.serial);
        if let Some(held) = self.held.remove(&partition.serial) {
            held.log.forget();
            for append in held.waiting {
                append
                    .completion
                    .refused(&mut self.pace, ErrorCode::UnknownTopicOrPartition.into());
            }
        }
    }

    /// Sees to it that idle producers of a log are looked for.
    pub(super) fn await_expiry(&mut self, serial: u64) {
        if self.next_expiry.is_none() && self.held[&serial].log.has_producers() {
            self.next_expiry = Some(Instant::now() + self.expiry_interval());
        }
    }

    fn expiry_interval(&self) -> Duration {
        let ms = self.settings.get().producer_id_expiration_check_interval_ms;
        Duration::from_millis(ms.unsigned_abs().into())
    }

    /// Forgets the producers that were idle for too long, from time to time while there are any.
    pub(super) fn expire_producers(&mut self) {
        if self.next_expiry.is_none_or(|at| Instant::now() < at) {
            return;
        }
        self.next_expiry = None;
        let now_ms = self.clock.now().time_ms;
        let expiration_ms = self.settings.get().producer_id_expiration_ms.into();
        let serials: Vec<u64> = self.held.keys().copied().collect();
        for serial in serials {
            if let Some(held) = self.held.get_mut(&serial) {
                held.log.expire_producers(now_ms, expiration_ms);
            }
            self.await_expiry(serial);
        }
    }

    /// When to wake although nothing was submitted.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let flush = |serial: &u64| {
            let held = self.held.get(serial)?;
            held.dirty_since?.checked_add(held.flush.after?)
        };
        let checkpoint =
            (self.has_moved || !self.lagging.is_empty()).then_some(self.next_checkpoint);
        self.lagging
            .iter()
            .filter_map(flush)
            .chain(checkpoint)
            .chain(self.trash.next_due())
            .chain(self.next_expiry)
            .min()
    }

    /// Syncs and closes every log.
    pub(super) fn close(mut self) -> Result<RecoveryPoints> {
        // All of them: a new log that was never written to lags in nothing but its directory's entry.
        self.sync(self.held.keys().copied().collect());
        let hints = std::mem::take(&mut self.hints);
        self.sync_items(hints);
        let points = self.recovery_points();
        let mut items = Vec::new();
        for (_, held) in std::mem::take(&mut self.held) {
            if held.log.is_offline() {
                return Err(Error::new(format!(
                    "{} is offline",
                    held.partition.dir.display()
                )));
            }
            items.extend(held.log.close()?);
            if items.len() >= HINTS_MAX {
                self.sync_items(std::mem::take(&mut items));
            }
        }
        self.sync_items(items);
        Ok(points)
    }
}

/// Up to where a partition's log was synced, and where it begins, to be saved for the next start.
#[derive(Clone, Debug)]
pub struct RecoveryPoint {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number.
    pub index: i32,
    /// Everything below this offset is synced.
    pub offset: i64,
    /// The first offset.
    pub log_start: i64,
}

/// One entry a partition.
pub type RecoveryPoints = Vec<RecoveryPoint>;
