//! The prepared files of a rewritten segment: `<base>.log.cleaned` and its three indexes.
//!
//! Invariants: the numbers are counted by the same [`Tail`] as when appending, so the indexes are those that a start
//! would make of the file; all four files are synced before they are handed over, and removed if they are not. A sync
//! of them that fails ends the pass, not the process (P6): nothing rests on these files yet.
//!
//! May lose data: L5. `remove_file` here: files that were never in place.

use super::{Aborted, Failed, Pace, Replacement};
use crate::batch::Header;
use crate::error::{Context, Result};
use crate::storage::SyncItem;
use crate::storage::append::{Entries, Tail};
use crate::storage::index::{self, Entry};
use crate::storage::segment;
use crate::sync;
use crate::sys;
use std::fs::{self, File, OpenOptions};
use std::io::IoSlice;
use std::path::{Path, PathBuf};

/// What the names of files that are not in place end in.
pub const CLEANED: &str = ".cleaned";

/// The files of a rewritten segment, in the order of [`Output::files`].
pub const EXTENSIONS: [&str; 4] = [".log", ".index", ".timeindex", ".txnindex"];

const LOG: usize = 0;
const INDEX: usize = 1;
const TIME_INDEX: usize = 2;
const TXN_INDEX: usize = 3;

/// A segment in the making.
pub struct Output {
    /// Its numbers so far.
    pub tail: Tail,
    interval_bytes: u32,
    paths: [PathBuf; 4],
    files: Vec<File>,
    entries: Entries,
    /// Entries that are in the index files, offsets then times.
    entries_written: [u32; 2],
    /// What is not in the file yet.
    buffer: Vec<u8>,
    written: u64,
    handed_over: bool,
}

impl Output {
    /// An empty one that may take the place of segments from `base_offset` on.
    ///
    /// The names that the swap before it left are made durable first: a start that finds a `.cleaned` file takes a
    /// `.swap` behind it for part of a split that was not decided, and removes it.
    pub fn create(dir: &Path, base_offset: i64, interval_bytes: u32) -> Result<Output> {
        sync::sync(&SyncItem::Directory(dir.into())).unwrap_or_else(|e| sync::end_process(&e));
        let name = |extension: &str| {
            let mut path = segment::path(dir, base_offset, extension).into_os_string();
            path.push(CLEANED);
            PathBuf::from(path)
        };
        let mut output = Output {
            tail: Tail::new(base_offset),
            interval_bytes,
            paths: EXTENSIONS.map(name),
            files: Vec::new(),
            entries: Entries::default(),
            entries_written: [0; 2],
            buffer: Vec::new(),
            written: 0,
            handed_over: false,
        };
        for path in &output.paths {
            let mut options = OpenOptions::new();
            let file = options.write(true).create(true).truncate(true).open(path);
            let file = file.context(|| format!("creating {}", path.display()))?;
            output.files.push(file);
        }
        Ok(output)
    }

    /// Adds a batch; `timestamp` (ms) is its records' largest.
    pub fn add(
        &mut self,
        header: &Header,
        timestamp: i64,
        bytes: &[u8],
        pace: Pace<'_>,
    ) -> Result<(), Failed> {
        self.count(header, timestamp);
        self.write(bytes, pace)
    }

    /// Counts a batch in whose bytes follow by [`Output::write`].
    pub fn count(&mut self, header: &Header, timestamp: i64) {
        self.tail
            .add(header, timestamp, self.interval_bytes, &mut self.entries);
    }

    /// Writes a piece of a batch.
    pub fn write(&mut self, bytes: &[u8], pace: Pace<'_>) -> Result<(), Failed> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= super::reader::CHUNK_BYTES {
            let count = self.buffer.len() as u64;
            self.flush()?;
            pace(count)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let mut slices = [IoSlice::new(&self.buffer)];
        if !self.buffer.is_empty() {
            sys::write_gathered_at(&self.files[LOG], &mut slices, self.written)
                .context(|| format!("writing {}", self.paths[LOG].display()))?;
        }
        let bytes = self.buffer.len() as u64;
        // Producers' syncs would wait behind one that has a whole segment to write. What fails here, the sync tells.
        let _ = sys::begin_write_back(&self.files[LOG], self.written, bytes);
        self.written += bytes;
        self.buffer = Vec::new();
        let [offsets, times] = &mut self.entries_written;
        let entries = &mut self.entries;
        index::write(&self.files[INDEX], *offsets, &entries.offsets)
            .and_then(|()| index::write(&self.files[TIME_INDEX], *times, &entries.times))
            .context(|| format!("writing {}", self.paths[INDEX].display()))?;
        *offsets += entries.offsets.len() as u32;
        *times += entries.times.len() as u32;
        entries.offsets.clear();
        entries.times.clear();
        Ok(())
    }

    /// Ends and syncs the files, which are the caller's from now on.
    pub fn finish(
        mut self,
        sources: Vec<u64>,
        aborted: Vec<Aborted>,
        last_append_ms: Option<i64>,
    ) -> Result<Replacement> {
        self.tail.add_time(&mut self.entries);
        self.flush()?;
        let mut transactions = Vec::new();
        aborted
            .iter()
            .for_each(|entry| entry.encode(&mut transactions));
        if !transactions.is_empty() {
            let mut slices = [IoSlice::new(&transactions)];
            sys::write_gathered_at(&self.files[TXN_INDEX], &mut slices, 0)
                .context(|| format!("writing {}", self.paths[TXN_INDEX].display()))?;
        }
        last_append_ms
            .map_or(Ok(()), |ms| sys::set_modified(&self.files[LOG], ms))
            .context(|| format!("setting the time of {}", self.paths[LOG].display()))?;
        for (file, path) in self.files.iter().zip(&self.paths) {
            // All of it: the modification time is what tells the age of the last append.
            file.sync_all()
                .context(|| format!("syncing {}", path.display()))?;
        }
        self.handed_over = true;
        Ok(Replacement {
            sources,
            tail: self.tail.clone(),
            aborted,
            last_append_ms,
        })
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.handed_over {
            return;
        }
        for path in &self.paths[..self.files.len()] {
            if let Err(e) = fs::remove_file(path) {
                log::warn!("removing {}: {e}", path.display());
            }
        }
    }
}
