//! A partition's log as its one owner, the writer thread, sees it: stage, write, sync, publish.
//!
//! Owns: the segment list, the active segment, producer state, leader epochs, and what is not synced yet. Rules:
//!
//! 1. Staging writes nothing. [`Log::write_staged`] appends all that was staged or nothing: what a failed write left
//!    is cut (L10), and the log is as it was before; if even the cut fails, the log is offline until restart.
//! 2. What is written is durable after a successful sync of all of [`Log::unsynced`] and not before; the writer
//!    says so by [`Log::mark_synced`]. A dirty file stays open until then, and is synced through that descriptor.
//! 3. Readers see what the last [`Log::view`] shows. The bytes below its high watermark never change again.
//! 4. A roll seals the active segment (final time entry, index entries written) and leaves a producer snapshot at the
//!    new one's base offset. Indexes are never in the acknowledgement's path ([`Log::take_hints`]).
//!
//! Reading on: [`facts`], what a log may be asked; [`start`], how its beginning moves; [`swap`], how a rewrite takes
//! its segments' place; [`transactions`], what is open.
//!
//! `set_len` and `remove_file` here: L10, a write that fails half way; and `set_len` to a sealed segment's own length,
//! which gives back what was reserved.

mod facts;
mod start;
mod swap;
mod transactions;

pub use swap::{Replaced, Rewrite};

use super::active::Active;
use super::append::Turn;
use super::checkpoint::{self, EpochStart};
use super::descriptors::Kind;
use super::producers::{Ended, Producers, Verdict};
use super::segment::{Extent, Segment};
use super::view::Mark;
use super::{LogSettings, Shared, snapshot};
use crate::batch::{self, check::Checked, marker::Marker};
use crate::error::{Context, Error, ErrorCode, Result};
use crate::sync;
use crate::sys;
use crate::txn::Serial;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// A batch is not appended; the code is the producer's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused(pub ErrorCode);

/// What became of a batch that was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Staged {
    /// It is staged at these offsets.
    New {
        /// The offset of its first record.
        base_offset: i64,
        /// The offset of its last record.
        last_offset: i64,
    },
    /// One of the producer's last five batches is exactly this one. That may be staged in this very turn, or not
    /// synced: the retry's answer must wait until `last_offset` is below [`Log::synced_end`] (promise P6).
    Duplicate {
        /// The offset of the original's first record.
        base_offset: i64,
        /// The offset of the original's last record.
        last_offset: i64,
        /// The original's largest timestamp, ms: its append time where LogAppendTime holds.
        append_time: i64,
    },
}

/// Something to sync.
#[derive(Clone, Debug)]
pub enum SyncItem {
    /// A file's bytes and length (fdatasync), through the descriptor that wrote.
    Data(Arc<File>),
    /// A directory's entries (fsync).
    Directory(Arc<Path>),
}

/// A partition's log.
pub struct Log {
    dir: Arc<Path>,
    shared: Arc<Shared>,
    settings: LogSettings,
    closed: Arc<[Extent]>,
    active: Active,
    /// What is staged and not written.
    turn: Option<Turn>,
    producers: Producers,
    /// The transactions whose markers lie at or beyond the high watermark: they count as open until it has passed.
    unseen: Vec<Ended>,
    epochs: Arc<[EpochStart]>,
    /// The checkpoint of the epochs could not be written.
    epochs_unsaved: bool,
    log_start: i64,
    /// Changes with the segment list.
    generation: u64,
    synced: Mark,
    dirty: Vec<Arc<File>>,
    dirty_directory: bool,
    hints: Vec<SyncItem>,
    /// The offsets of the producer snapshots, ascending.
    snapshots: Vec<i64>,
    offline: bool,
    /// All files are as a clean stop left them: the next one has nothing to write.
    settled: bool,
}

impl Log {
    /// A new log in `dir`, which exists; its first segment begins at offset 0 in leader epoch 0. None of it is synced
    /// yet: see [`Log::unsynced`].
    pub fn create(dir: &Path, shared: &Arc<Shared>, settings: LogSettings) -> Result<Log> {
        let dir: Arc<Path> = dir.into();
        let (segment, file) = Segment::create(&dir, 0)?;
        reserve(&file, &settings);
        let active = Active::empty(segment);
        let producers = Producers::new(shared.producers.clone());
        let mut log = Log::assemble(dir, shared, settings, Vec::new(), active, producers);
        log.hold(Arc::new(file));
        let first = EpochStart {
            epoch: 0,
            start_offset: 0,
        };
        let epochs = checkpoint::create_epochs(&log.dir, &[first])?;
        log.epochs = Arc::new([first]);
        log.dirty.push(Arc::new(epochs));
        Ok(log)
    }

    /// A log whose files were checked and synced.
    pub(super) fn assemble(
        dir: Arc<Path>,
        shared: &Arc<Shared>,
        settings: LogSettings,
        closed: Vec<Extent>,
        active: Active,
        producers: Producers,
    ) -> Log {
        let first = closed
            .first()
            .map_or(active.tail.base_offset, |e| e.base_offset());
        Log {
            dir,
            shared: shared.clone(),
            settings,
            closed: closed.into(),
            synced: active.mark(),
            active,
            turn: None,
            producers,
            unseen: Vec::new(),
            epochs: Arc::new([]),
            epochs_unsaved: false,
            log_start: first,
            generation: 0,
            dirty: Vec::new(),
            dirty_directory: false,
            hints: Vec::new(),
            snapshots: Vec::new(),
            offline: false,
            settled: false,
        }
    }

    /// From recovery: every file is as a clean stop left it.
    pub(super) fn set_settled(&mut self) {
        self.settled = true;
    }

    /// Sets what recovery read: where the log starts, its epochs and those of its checkpoint, and which snapshots
    /// there are.
    pub(super) fn set_start(
        &mut self,
        log_start: i64,
        epochs: Vec<EpochStart>,
        saved: &[EpochStart],
        snapshots: Vec<i64>,
    ) {
        self.log_start = self.log_start.max(log_start);
        self.epochs = start::epochs_from(&epochs, self.log_start).into();
        if *self.epochs != *saved {
            self.save_epochs();
        }
        self.snapshots = snapshots;
        let found = self.snapshots.len();
        // Before the first append: beyond the end there may soon be other batches. Nor may one come back then.
        snapshot::prune(&self.dir, &mut self.snapshots, self.active.tail.end_offset);
        self.dirty_directory |= self.snapshots.len() != found;
    }

    /// Checks the batch's sequences, gives it its offsets and stages it at broker time `now_ms`. Nothing is written.
    /// `transaction` is that of a transactional batch, or which a marker ends.
    pub fn stage(
        &mut self,
        mut batch: Checked,
        transaction: Option<Serial>,
        leader_epoch: i32,
        now_ms: i64,
    ) -> Result<Staged, Refused> {
        if self.offline {
            return Err(Refused(ErrorCode::KafkaStorageError));
        }
        let marker = Marker::read(&batch.header, &batch.body);
        let verdict = self.producers.check(&batch.header, marker, transaction);
        if let Verdict::Duplicate(sent) = verdict.map_err(Refused)? {
            return Ok(Staged::Duplicate {
                base_offset: sent.base_offset(),
                last_offset: sent.last_offset,
                append_time: sent.timestamp,
            });
        }
        let turn = self
            .turn
            .get_or_insert_with(|| Turn::new(self.active.tail.clone(), now_ms));
        let base_offset = turn.last().tail.end_offset;
        batch.header.base_offset = base_offset;
        batch.header.partition_leader_epoch = leader_epoch;
        if batch.header.check().is_err() {
            return Err(Refused(ErrorCode::InvalidRecord));
        }
        batch::set_place(&mut batch.head, base_offset, leader_epoch);
        let (header, timestamp) = (&batch.header, batch.max_timestamp);
        let tail = &turn.last().tail;
        if tail.must_roll(&self.settings, header, timestamp, now_ms) {
            // The state as the new segment finds it: exactly now.
            let snapshot = snapshot::encode(&self.producers);
            turn.roll(base_offset, now_ms, snapshot);
        }
        let interval_bytes = self.settings.index_interval_bytes;
        turn.last_mut()
            .add(batch.head, batch.body, header, timestamp, interval_bytes);
        turn.last_mut().tail.last_append_ms = Some(now_ms);
        let ended = self
            .producers
            .record(header, timestamp, marker, transaction);
        ended.into_iter().for_each(|ended| turn.end(ended));
        let last_offset = header.last_offset();
        self.begin_epoch(leader_epoch, base_offset);
        Ok(Staged::New {
            base_offset,
            last_offset,
        })
    }

    /// Writes all that is staged, one gathered write a segment; or, on an error, takes it all back.
    pub fn write_staged(&mut self) -> Result<()> {
        let Some(turn) = self.turn.take() else {
            return Ok(());
        };
        let mut made = Vec::new();
        match self.write(&turn, &mut made) {
            Ok(()) => {
                self.apply(turn, made);
                Ok(())
            }
            Err(e) => {
                self.take_back(&made);
                Err(e)
            }
        }
    }

    fn write(&mut self, turn: &Turn, made: &mut Vec<(Segment, Arc<File>)>) -> Result<()> {
        for (i, part) in turn.parts.iter().enumerate() {
            let file = if i > 0 {
                let last = made
                    .last()
                    .map(|(_, file)| file)
                    .or(self.active.file.as_ref());
                self.sync_before_roll(last, self.dirty_directory || !made.is_empty());
                let (segment, file) = Segment::create(&self.dir, part.tail.base_offset)?;
                reserve(&file, &self.settings);
                let file = Arc::new(file);
                made.push((segment, file.clone()));
                file
            } else if part.is_empty() {
                continue;
            } else {
                self.active_file()?
            };
            part.write(&file)
                .context(|| format!("appending to {}", self.dir.display()))?;
        }
        Ok(())
    }

    /// A segment is durable before the next one begins: else a power cut could take the end of the one and leave the
    /// other, a hole that no start could tell from one that rot made, and in it a producer's batch before its next.
    fn sync_before_roll(&self, last: Option<&Arc<File>>, and_directory: bool) {
        let file = last.cloned().map(SyncItem::Data);
        let directory = and_directory.then(|| SyncItem::Directory(self.dir.clone()));
        for item in file.into_iter().chain(directory) {
            sync::sync(&item).unwrap_or_else(|e| sync::end_process(&e));
        }
    }

    /// The active segment's file, held from now on until it is synced.
    fn active_file(&mut self) -> Result<Arc<File>> {
        if let Some(file) = &self.active.file {
            return Ok(file.clone());
        }
        let segment = &self.active.segment;
        let file = segment
            .log(&self.shared)
            .map_err(|e| Error::new(format!("opening {}: {e}", segment.path(".log").display())))?;
        self.active.file = Some(file.clone());
        Ok(file)
    }

    /// The turn is in the files: now it is so in memory.
    fn apply(&mut self, turn: Turn, made: Vec<(Segment, Arc<File>)>) {
        let (mut made, mut sealed) = (made.into_iter(), Vec::new());
        for (i, part) in turn.parts.into_iter().enumerate() {
            if i > 0 {
                let (segment, file) = made.next().expect("each new part made its segment");
                sealed.push(self.roll(segment, file, &part.snapshot));
            }
            if !part.is_empty() {
                self.keep_dirty();
            }
            self.active.tail = part.tail;
            self.active.pending.offsets.extend(part.entries.offsets);
            self.active.pending.times.extend(part.entries.times);
            self.active.pending.aborted.extend(part.entries.aborted);
        }
        self.unseen.extend(turn.ended);
        self.forget_seen();
        // Once for all rolls of the turn: with many segments each copy of the list costs.
        if !sealed.is_empty() {
            self.generation += sealed.len() as u64;
            self.closed = self.closed.iter().cloned().chain(sealed).collect();
        }
        self.producers.settle(&self.dir.display());
    }

    /// Seals the active segment, goes on in `segment`, and gives the sealed one.
    fn roll(&mut self, segment: Segment, file: Arc<File>, snapshot: &[u8]) -> Extent {
        let base_offset = segment.base_offset();
        if self.settings.preallocate
            && let Some(file) = &self.active.file
            && let Err(e) = file.set_len(u64::from(self.active.tail.bytes))
        {
            log::warn!("giving back a segment's reserved space: {e}");
        }
        let hints = self.active.seal(&self.shared);
        self.hints.extend(hints);
        let sealed = std::mem::replace(&mut self.active, Active::empty(segment));
        self.hold(file);
        self.save_snapshot(base_offset, snapshot);
        if self.epochs_unsaved {
            self.save_epochs();
        }
        sealed.extent()
    }

    /// Leaves the producer state at `offset`. What fails here costs the next start time only.
    fn save_snapshot(&mut self, offset: i64, encoded: &[u8]) {
        match snapshot::write(&self.dir, offset, encoded) {
            Ok(file) => {
                self.hints.push(SyncItem::Data(Arc::new(file)));
                self.snapshots.retain(|&at| at != offset);
                self.snapshots.push(offset);
                snapshot::prune(&self.dir, &mut self.snapshots, offset);
            }
            Err(e) => log::warn!("{e}; the next start will replay from an older one"),
        }
    }

    /// Holds the file of the active segment, which was just made.
    fn hold(&mut self, file: Arc<File>) {
        let serial = self.active.segment.serial();
        let file = self.shared.descriptors.put(serial, Kind::Log, file);
        self.active.file = Some(file);
        self.dirty_directory = true;
        self.keep_dirty();
    }

    /// Notes that the file that the active segment's bytes go through must be synced.
    fn keep_dirty(&mut self) {
        self.settled = false;
        if let Some(file) = &self.active.file
            && !self.dirty.iter().any(|dirty| Arc::ptr_eq(dirty, file))
        {
            self.dirty.push(file.clone());
        }
    }

    /// L10: a write failed half way. Cuts what it left, and takes back sequences and offsets with it.
    fn take_back(&mut self, made: &[(Segment, Arc<File>)]) {
        self.producers.take_back();
        // The cut is synced with the next turn, or at the close.
        self.keep_dirty();
        let end = self.active.tail.end_offset;
        if self.epochs.last().is_some_and(|e| e.start_offset > end) {
            let kept = self.epochs.iter().filter(|e| e.start_offset <= end);
            self.epochs = kept.copied().collect();
            self.save_epochs();
        }
        // A removed segment that a power cut brings back would end the one before it at the wrong offset.
        self.dirty_directory |= !made.is_empty();
        let cut = || -> io::Result<()> {
            for (segment, _) in made {
                fs::remove_file(segment.path(".log"))?;
            }
            match &self.active.file {
                Some(file) => file.set_len(u64::from(self.active.tail.bytes)),
                None => Ok(()),
            }
        };
        if let Err(e) = cut() {
            self.offline = true;
            let dir = self.dir.display();
            log::error!("{dir}: offline until restart, since a failed write cannot be cut: {e}");
        }
    }

    /// All that must be synced so that what is written is durable.
    pub fn unsynced(&self) -> Vec<SyncItem> {
        let mut items: Vec<SyncItem> = self.dirty.iter().cloned().map(SyncItem::Data).collect();
        if self.dirty_directory {
            items.push(SyncItem::Directory(self.dir.clone()));
        }
        items
    }

    /// All of [`Log::unsynced`] was synced, and nothing was written since it was asked for.
    pub fn mark_synced(&mut self) {
        self.synced = self.active.mark();
        self.forget_seen();
        self.dirty.clear();
        self.dirty_directory = false;
        self.active.file = None;
    }

    /// Sealed indexes and snapshots, to be synced before a recovery point passes the roll that made them. Outside
    /// the acknowledgement's path; what is lost of them costs the next start time, never records.
    pub fn take_hints(&mut self) -> Vec<SyncItem> {
        std::mem::take(&mut self.hints)
    }

    /// Writes pending index entries to the page cache; call it when no producer waits.
    pub fn flush_indexes(&mut self) -> io::Result<()> {
        self.active.flush_indexes(&self.shared)
    }

    /// The settings from the next batch on.
    pub fn set_settings(&mut self, settings: LogSettings) {
        self.settings = settings;
    }

    /// From the next batch on the leader epoch is `epoch`, which is durable with the next sync unless the disk is full:
    /// then it is tried again at the next roll and at the end, and batch headers tell it too.
    pub fn set_leader_epoch(&mut self, epoch: i32) {
        let next = self.turn.as_ref().map(|turn| turn.last().tail.end_offset);
        self.begin_epoch(epoch, next.unwrap_or(self.appended_end()));
    }

    fn begin_epoch(&mut self, epoch: i32, start_offset: i64) {
        if self.epochs.last().is_some_and(|last| last.epoch >= epoch) || epoch < 0 {
            return;
        }
        // An epoch without a batch leaves no trace, as in Kafka.
        let kept = self.epochs.iter().filter(|e| e.start_offset < start_offset);
        let new = EpochStart {
            epoch,
            start_offset,
        };
        self.epochs = kept.copied().chain([new]).collect();
        self.save_epochs();
    }

    fn save_epochs(&mut self) {
        self.settled = false;
        let saved = checkpoint::write_epochs(&self.dir, &self.epochs);
        self.epochs_unsaved = saved.is_err();
        self.dirty_directory = true;
        if let Err(e) = saved {
            log::warn!("{e}");
        }
    }

    /// A clean stop, after the writer synced all: final index entries and producer state; gives what is to be synced.
    /// An error means that the clean-shutdown marker must not be written (L8), nor must it before that sync.
    pub fn close(mut self) -> Result<Vec<SyncItem>> {
        if self.offline || !self.dirty.is_empty() || self.turn.is_some() {
            let dir = self.dir.display();
            return Err(Error::new(format!("{dir}: closed with unsynced bytes")));
        }
        if self.settled {
            return Ok(self.unsynced());
        }
        let sealed = self.active.seal(&self.shared);
        self.hints.extend(sealed);
        let encoded = snapshot::encode(&self.producers);
        self.save_snapshot(self.appended_end(), &encoded);
        if self.epochs_unsaved {
            self.save_epochs();
        }
        let mut items = self.take_hints();
        items.push(SyncItem::Directory(self.dir.clone()));
        Ok(items)
    }
}

fn reserve(file: &File, settings: &LogSettings) {
    if settings.preallocate
        && let Err(e) = sys::preallocate(file, 0, u64::from(settings.segment_bytes_max))
    {
        log::warn!("reserving a segment's space: {e}");
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
