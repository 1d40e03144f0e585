//! The segment that batches are appended to: its numbers, and the index entries on their way to the files.

use super::Shared;
use super::aborted::{self, Aborted};
use super::append::{Entries, Tail};
use super::descriptors::Kind;
use super::index;
use super::log::SyncItem;
use super::segment::{Extent, Segment};
use super::view::Mark;
use crate::sys;
use std::fs::File;
use std::io;
use std::sync::Arc;

/// The indexes that only help to find something.
const SEARCHED: [Kind; 2] = [Kind::Index, Kind::TimeIndex];

/// The segment that batches are appended to.
pub struct Active {
    /// The segment.
    pub segment: Arc<Segment>,
    /// The numbers of what is written.
    pub tail: Tail,
    /// Entries that the index files do not hold yet.
    pub pending: Entries,
    /// The entries that the offset index file holds.
    pub index_count: u32,
    /// The same of the time index.
    pub time_count: u32,
    /// The same of the transaction index.
    pub aborted_count: u32,
    /// Held while the file has unsynced bytes.
    pub file: Option<Arc<File>>,
}

impl Active {
    /// A segment without batches.
    pub fn empty(segment: Segment) -> Active {
        let tail = Tail::new(segment.base_offset());
        Active::new(Arc::new(segment), tail)
    }

    /// A segment of these numbers, its index files not known to hold anything.
    pub fn new(segment: Arc<Segment>, tail: Tail) -> Active {
        Active {
            segment,
            tail,
            pending: Entries::default(),
            index_count: 0,
            time_count: 0,
            aborted_count: 0,
            file: None,
        }
    }

    /// What readers may know of the segment.
    pub fn extent(&self) -> Extent {
        Extent {
            segment: self.segment.clone(),
            bytes: self.tail.bytes,
            end_offset: self.tail.end_offset,
            index_count: self.index_count,
            last_index: self.tail.last_index,
            time_count: self.time_count,
            max_timestamp: self.tail.max_timestamp,
            max_timestamp_offset: self.tail.max_timestamp_offset,
            aborted_count: self.aborted_count,
            aborted: self.pending.aborted.as_slice().into(),
            last_append_ms: self.tail.last_append_ms,
        }
    }

    /// Where it ends now.
    pub fn mark(&self) -> Mark {
        Mark {
            offset: self.tail.end_offset,
            segment: self.segment.serial(),
            position: self.tail.bytes,
            max_timestamp: self.tail.max_timestamp,
            max_timestamp_offset: self.tail.max_timestamp_offset,
        }
    }

    /// Writes the pending index entries to the page cache.
    pub fn flush_indexes(&mut self, shared: &Shared) -> io::Result<()> {
        self.flush_aborted(shared)?;
        self.flush_searched(shared)
    }

    fn flush_searched(&mut self, shared: &Shared) -> io::Result<()> {
        let Entries { offsets, times, .. } = &mut self.pending;
        if !offsets.is_empty() {
            let file = self.segment.index(shared, Kind::Index)?;
            index::write(&file, self.index_count, offsets)?;
            self.index_count += offsets.len() as u32;
            offsets.clear();
        }
        if !times.is_empty() {
            let file = self.segment.index(shared, Kind::TimeIndex)?;
            index::write(&file, self.time_count, times)?;
            self.time_count += times.len() as u32;
            times.clear();
        }
        Ok(())
    }

    /// Makes the searched indexes of a sealed segment anew, each whole or not at all.
    pub fn make_indexes(&mut self, shared: &Shared) -> io::Result<()> {
        let (offsets, times) = (&self.pending.offsets, &self.pending.times);
        let made = self
            .segment
            .make_index(shared, Kind::Index, offsets)
            .and_then(|()| self.segment.make_index(shared, Kind::TimeIndex, times));
        if made.is_ok() {
            (self.index_count, self.time_count) = (offsets.len() as u32, times.len() as u32);
        } else {
            self.segment.discard_indexes(shared, &SEARCHED);
        }
        (self.pending.offsets, self.pending.times) = (Vec::new(), Vec::new());
        made
    }

    /// Takes over what an extent of it says of its transaction index.
    pub fn adopt_aborted(&mut self, extent: &Extent) {
        self.aborted_count = extent.aborted_count;
        self.pending.aborted = extent.aborted.to_vec();
    }

    fn flush_aborted(&mut self, shared: &Shared) -> io::Result<()> {
        let aborted = &mut self.pending.aborted;
        if !aborted.is_empty() {
            let file = self.segment.index(shared, Kind::TransactionIndex)?;
            index::write(&file, self.aborted_count, aborted)?;
            self.aborted_count += aborted.len() as u32;
            aborted.clear();
        }
        Ok(())
    }

    /// Sets the file's time of modification to the broker time of the last append, for the next start's retention.
    pub fn stamp(&self, shared: &Shared) {
        let Some(last_append_ms) = self.tail.last_append_ms else {
            return;
        };
        let file = self.segment.log(shared).map_err(io::Error::other);
        if let Err(e) = file.and_then(|file| sys::set_modified(&file, last_append_ms)) {
            let path = self.segment.path(".log");
            log::warn!("{}: {e}; it may be kept longer", path.display());
        }
    }

    /// Ends the indexes: the final time entry, and all that is pending. What fails costs the next start time only.
    /// The log's file, which nothing may write any more, is left with the broker time of its last append.
    pub fn seal(&mut self, shared: &Shared) -> Vec<SyncItem> {
        self.stamp(shared);
        self.tail.add_time(&mut self.pending);
        let aborted = self.seal_aborted(shared);
        if let Err(e) = self.flush_searched(shared) {
            // A short one looks whole to the next start, which would miss the largest timestamp.
            let path = self.segment.path(".index");
            log::warn!("{}: {e}; the next start makes it anew", path.display());
            self.segment.discard_indexes(shared, &SEARCHED);
            (self.index_count, self.time_count) = (0, 0);
            (self.pending.offsets, self.pending.times) = (Vec::new(), Vec::new());
        }
        [
            (Kind::Index, self.index_count),
            (Kind::TimeIndex, self.time_count),
        ]
        .into_iter()
        .filter(|&(_, count)| count > 0)
        .filter_map(|(kind, _)| self.segment.index(shared, kind).ok())
        .chain(aborted)
        .map(SyncItem::Data)
        .collect()
    }

    /// Ends the transaction index, which is there from now on, though empty. One that cannot be ended is removed,
    /// since the next start would believe it; its entries stay in memory.
    fn seal_aborted(&mut self, shared: &Shared) -> Option<Arc<File>> {
        let flushed = self.flush_aborted(shared);
        let file = flushed.and_then(|()| self.segment.index(shared, Kind::TransactionIndex));
        let error = match file {
            Ok(file) => return Some(file),
            Err(error) => error,
        };
        let path = self.segment.path(".txnindex");
        log::warn!("{}: {error}; the next start makes it anew", path.display());
        match self.held_aborted(shared) {
            Ok(held) => {
                self.pending.aborted.splice(0..0, held);
                self.aborted_count = 0;
                let kinds = [Kind::TransactionIndex];
                self.segment.discard_indexes(shared, &kinds);
            }
            Err(error) => log::error!("{}: {error}", path.display()),
        }
        None
    }

    fn held_aborted(&self, shared: &Shared) -> io::Result<Vec<Aborted>> {
        if self.aborted_count == 0 {
            return Ok(Vec::new());
        }
        let file = self.segment.index(shared, Kind::TransactionIndex)?;
        aborted::read(&file, self.aborted_count)
    }
}
