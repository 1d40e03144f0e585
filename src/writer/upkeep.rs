//! What the writer does between turns: late syncs, changed settings, recovery points, log starts, the swap
//! of what compaction or the scrub rewrote, and the close.
//!
//! Invariants: a recovery point is handed over only after everything below it, and the sealed indexes and
//! snapshots beside it, are synced; an idle writer neither writes nor wakes, but for a look at idle producers while
//! there are any.

use super::{CHECKPOINT_INTERVAL, Held, NewStart, Writer};
use crate::control::PlannedStarts;
use crate::error::{Error, ErrorCode, Result};
use crate::storage::compaction::LastOfProducer;
use crate::storage::{LogSettings, Partition, Replaced, Rewrite, Status};
use std::collections::HashMap;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// When a topic's log is synced (Kafka's `flush.messages` and `flush.ms`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushPolicy {
    /// Sync once this many messages are unsynced; 1 is every turn.
    pub messages: u64,
    /// Sync once the oldest unsynced message is this old.
    pub after: Option<Duration>,
}

impl FlushPolicy {
    /// Every turn: the default, and the rule for internal topics.
    pub const EVERY_TURN: FlushPolicy = FlushPolicy {
        messages: 1,
        after: None,
    };

    /// Whether a consumer may see only what is synced (promise P2).
    pub fn every_turn(self) -> bool {
        self.messages <= 1
    }
}

/// Sealed files that wait for their sync keep descriptors open; this many are synced at once.
const HINTS_MAX: usize = 64;

impl Writer {
    /// What log starts DeleteRecords (L4) and retention (L3) come to. They rise once they are durable, in
    /// [`Writer::remove_passed`]: so none that was told falls at a crash.
    pub(super) fn plan_starts(&mut self, starts: Vec<(Arc<Partition>, NewStart)>) -> PlannedStarts {
        let time_ms = self.clock.now().time_ms;
        let mut planned = Vec::with_capacity(starts.len());
        let mut rolled = Vec::new();
        for (partition, new_start) in starts {
            let start = match self.held.get_mut(&partition.serial) {
                None => Err(ErrorCode::UnknownTopicOrPartition),
                Some(held) => match new_start {
                    NewStart::At(offset) => held.log.raised_start(offset),
                    NewStart::Behind(last) => {
                        rolled.push(partition.serial);
                        held.log.pass_segments(last, time_ms)
                    }
                },
            };
            planned.push((partition, start));
        }
        // All at once: on a quiet broker many a log's last segment grows old at the same time.
        self.sync(rolled);
        planned
    }

    /// Raises the log start, which is durable, and removes the segments below it once no published view shows them.
    pub(super) fn remove_passed(&mut self, serial: u64, start: i64) {
        let Some(held) = self.held.get_mut(&serial) else {
            return;
        };
        if let Err(code) = held.log.raise_start(start) {
            let (topic, index) = (&held.partition.topic, held.partition.index);
            return log::error!("{topic}-{index}: nothing is removed: {}", code.name());
        }
        let passed = held.log.take_passed();
        held.partition.publish(held.log.view());
        let delay = held.log.file_delete_delay();
        for segment in passed {
            self.trash.add(&segment, held.log.shared(), delay);
        }
    }

    /// Lets go of a deleted topic's log.
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

    /// Puts a rewrite in place (L5), and says so: nobody waits any more if the cleaner was told to end.
    pub(super) fn swap(
        &mut self,
        serial: u64,
        rewrite: &Rewrite,
        answer: &mpsc::Sender<Result<bool>>,
    ) {
        let Some(held) = self.held.get_mut(&serial) else {
            return rewrite.discard();
        };
        let swapped = held.log.swap(rewrite);
        if held.log.is_offline() {
            held.partition.set_status(Status::Offline);
        }
        let swapped = swapped.map(|replaced| {
            let Some(Replaced { segments, files }) = replaced else {
                return false;
            };
            held.partition.publish(held.log.view());
            for segment in segments {
                segment.retire(held.log.shared());
            }
            self.trash.unlink_after(files, held.log.file_delete_delay());
            self.hints.extend(held.log.take_hints());
            true
        });
        let _ = answer.send(swapped);
    }

    /// Seals a segment that the scrub is to mend.
    pub(super) fn roll(&mut self, serial: u64, segment: u64, answer: &mpsc::Sender<()>) {
        let Some(held) = self.held.get_mut(&serial) else {
            return;
        };
        match held.log.seal(segment, self.clock.now().time_ms) {
            Err(e) => log::warn!("{}: not rolled: {e}", held.partition.dir.display()),
            Ok(false) => {}
            Ok(true) => {
                self.sync(vec![serial]);
                self.publish(serial);
                let _ = answer.send(());
            }
        }
    }

    /// Consumers learn by it that something is gone (KIP-320).
    pub(super) fn raise_epoch(&mut self, partition: &Partition, epoch: i32) {
        if let Some(held) = self.held.get_mut(&partition.serial) {
            partition.raise_leader_epoch(epoch);
            held.log.set_leader_epoch(epoch);
            self.publish(partition.serial);
        }
    }

    /// Tells what of each producer must outlive compaction.
    pub(super) fn list_last(
        &self,
        serial: u64,
        answer: &mpsc::Sender<HashMap<i64, LastOfProducer>>,
    ) {
        if let Some(held) = self.held.get(&serial) {
            let _ = answer.send(held.log.last_of_producers());
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
        if held.log.is_compacted() {
            self.cleaner.ring();
        }
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
