//! What a log may be asked: where it ends, what is unsynced, what readers may see. Nothing here writes.

use super::Log;
use crate::storage::Shared;
use crate::storage::compaction::LastOfProducer;
use crate::storage::producers::{ActiveProducer, Producer};
use crate::storage::view::{Mark, View};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

impl Log {
    /// The offset after the last one written.
    pub fn appended_end(&self) -> i64 {
        self.active.tail.end_offset
    }

    /// The offset after the last one that is durable.
    pub fn synced_end(&self) -> i64 {
        self.synced.offset
    }

    /// The messages written and not yet durable.
    pub fn unsynced_messages(&self) -> u64 {
        self.appended_end().abs_diff(self.synced_end())
    }

    /// Up to here all is durable: what the recovery point's checkpoint may say.
    pub fn recovery_point(&self) -> i64 {
        self.synced.offset
    }

    /// The first offset that is served.
    pub fn log_start(&self) -> i64 {
        self.log_start
    }

    /// Whether the log refuses everything until restart.
    pub fn is_offline(&self) -> bool {
        self.offline
    }

    /// The directory that the log is in.
    pub fn dir(&self) -> &Arc<Path> {
        &self.dir
    }

    /// How many times the turn that is staged now rolls. Each costs a new file and a sync of its own.
    pub fn rolls_staged(&self) -> usize {
        self.turn.as_ref().map_or(0, |turn| turn.parts.len() - 1)
    }

    /// The newest leader epoch that the log knows, -1 if there is none.
    pub fn leader_epoch(&self) -> i32 {
        self.epochs.last().map_or(-1, |last| last.epoch)
    }

    /// The highest producer id that is known here: an id that is given out anew must lie above it.
    pub fn highest_producer_id(&self) -> Option<i64> {
        self.producers.iter().map(|(id, _)| id).max()
    }

    /// The newest epoch of each producer that is known here, by its id.
    pub fn producer_epochs(&self) -> impl Iterator<Item = (i64, i16)> {
        self.producers.iter().map(|(id, known)| (id, known.epoch))
    }

    /// The producers that are known here, by id.
    pub fn active_producers(&self) -> Vec<ActiveProducer> {
        self.producers.active()
    }

    /// What of each producer must outlive compaction, by its id.
    pub fn last_of_producers(&self) -> HashMap<i64, LastOfProducer> {
        let last = |(id, producer): (i64, &Producer)| {
            let last = LastOfProducer {
                last_data_offset: producer.sent().last().map(|sent| sent.last_offset),
                epoch: producer.epoch,
            };
            (id, last)
        };
        self.producers.iter().map(last).collect()
    }

    /// Whether old records go by their keys.
    pub fn is_compacted(&self) -> bool {
        self.settings.compacted
    }

    /// What all logs share.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// How long the files of a removed segment are kept.
    pub fn file_delete_delay(&self) -> Duration {
        self.settings.file_delete_delay
    }

    /// Closes the files of a log that is deleted, so that its disk space is free once they are unlinked. Whoever
    /// still has a view of it finds its segments gone; what is already on its way to a socket stays whole.
    pub fn forget(&self) {
        for extent in self.closed.iter() {
            extent.segment.retire(&self.shared);
        }
        self.active.segment.retire(&self.shared);
    }

    /// Where that ends which readers may see.
    pub(super) fn high(&self) -> Mark {
        match self.settings.visible_when_synced {
            true => self.synced,
            false => self.active.mark(),
        }
    }

    /// What readers may see from now on.
    pub fn view(&self) -> View {
        let appended = self.active.mark();
        let high = self.high();
        View {
            generation: self.generation,
            closed: self.closed.clone(),
            active: self.active.extent(),
            high,
            log_start: self.log_start,
            last_stable: self.last_stable(),
            high_watermark: high.offset,
            appended_end: appended.offset,
            epochs: self.epochs.clone(),
        }
    }
}
