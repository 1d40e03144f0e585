//! The indexes of a segment, judged entry by entry beside the batches that they name.
//!
//! Invariants: an entry that misleads nobody is no damage; one that does is enough, for the whole file is made anew.

use super::{Audit, Finding, Index, Kind, Subject};
use crate::batch::Header;
use crate::storage::aborted::Aborted;
use crate::storage::index::{self, BLOCK_ENTRIES, Entry, OffsetEntry, TimeEntry};
use crate::storage::producers::Ended;
use crate::storage::reopen::marker;
use std::io;
use std::path::PathBuf;

/// An index, entry by entry beside the batches.
struct Cursor<E> {
    path: PathBuf,
    file: Index,
    /// The slot of the entry at hand, and the block that holds it.
    slot: u32,
    block: std::vec::IntoIter<E>,
    /// The entry at hand, not judged yet.
    next: Option<E>,
    bad: Option<Finding>,
}

impl<E: Entry> Cursor<E> {
    fn open(subject: &Subject, file: &Index, extension: &str) -> Cursor<E> {
        let path = subject.path(extension);
        let bad = subject.implausible.iter().find(|f| f.path == path).cloned();
        Cursor {
            path,
            file: file.clone().filter(|_| bad.is_none()),
            slot: 0,
            block: Vec::new().into_iter(),
            next: None,
            bad,
        }
    }

    /// The entry at hand; none is once one was bad.
    fn peek(&mut self) -> io::Result<Option<E>> {
        let Some((file, count)) = self.file.clone().filter(|_| self.next.is_none()) else {
            return Ok(self.next);
        };
        if self.slot >= count {
            return Ok(None);
        }
        if self.block.as_slice().is_empty() {
            let to = count.min(self.slot.saturating_add(BLOCK_ENTRIES));
            self.block = index::block(&file, self.slot, to)?.into_iter();
        }
        self.next = self.block.next();
        if self.next.is_none() {
            self.refuse("it is shorter than it was");
        }
        Ok(self.next)
    }

    /// The entry at hand is right, and the next one must rise above it.
    fn accept(&mut self) -> io::Result<()> {
        self.slot += 1;
        if let Some(accepted) = self.next.take()
            && let Some(next) = self.peek()?
            && !accepted.rises_to(&next)
        {
            self.refuse("an entry does not rise");
        }
        Ok(())
    }

    /// The entry at hand is wrong. One is enough: all of the file is made anew.
    fn refuse(&mut self, what: &'static str) {
        let at = u64::from(self.slot) * E::BYTES as u64;
        self.bad = Some(Finding {
            path: self.path.clone(),
            bytes: at..at + E::BYTES as u64,
            kind: Kind::Hint(what),
        });
        (self.file, self.next) = (None, None);
    }

    fn end(mut self, no_batch: &'static str) -> io::Result<Option<Finding>> {
        if self.peek()?.is_some() {
            self.refuse(no_batch);
        }
        Ok(self.bad)
    }
}

/// The indexes of a segment whose batches are walked.
pub struct Indexes<'a> {
    subject: &'a Subject,
    offsets: Cursor<OffsetEntry>,
    times: Cursor<TimeEntry>,
    aborted: Cursor<Aborted>,
    /// What the batches themselves tell of what was aborted.
    pub replayed: Vec<Aborted>,
    /// The largest timestamp so far, ms.
    max_timestamp: i64,
    /// All headers so far told their batch's largest timestamp.
    headers_tell: bool,
}

/// What an entry that no batch answers to is called.
const NO_BATCH: &str = "an entry names no batch";

impl<'a> Indexes<'a> {
    /// At the first entry of each.
    pub fn open(subject: &'a Subject) -> Indexes<'a> {
        Indexes {
            subject,
            offsets: Cursor::open(subject, &subject.index, ".index"),
            times: Cursor::open(subject, &subject.time_index, ".timeindex"),
            aborted: Cursor::open(subject, &subject.txn_index, ".txnindex"),
            replayed: Vec::new(),
            max_timestamp: -1,
            headers_tell: true,
        }
    }

    /// Judges the entries that name a batch, or something before it.
    pub fn judge(&mut self, audit: &mut Audit, position: u32, header: &Header) -> io::Result<()> {
        let offset = |relative: u32| self.subject.base_offset + i64::from(relative);
        while let Some(entry) = self.offsets.peek()?.filter(|e| e.position <= position) {
            let at = offset(entry.relative_offset);
            match entry.position == position && at >= header.base_offset {
                true => self.offsets.accept()?,
                false => self.offsets.refuse(NO_BATCH),
            }
        }
        self.headers_tell &= header.max_timestamp >= header.base_timestamp;
        let passed = |e: &TimeEntry| offset(e.relative_offset) <= header.last_offset();
        let raises = header.max_timestamp > self.max_timestamp && header.records_count > 0;
        while let Some(entry) = self.times.peek()?.filter(passed) {
            let is_there = offset(entry.relative_offset) >= header.base_offset;
            let agrees = raises && entry.timestamp == header.max_timestamp;
            match is_there && (agrees || !self.headers_tell) {
                true => self.times.accept()?,
                false => self.times.refuse("an entry is not the time of its batch"),
            }
        }
        if raises {
            self.max_timestamp = header.max_timestamp;
        }
        let log = &self.subject.log;
        let marker = marker(log, position, header)?;
        let ended = audit.producers.replay(header, header.max_timestamp, marker);
        match marker.is_some_and(|marker| !marker.commit) {
            true => self.judge_aborted(audit.complete, header, ended.as_ref()),
            false => Ok(()),
        }
    }

    /// Judges the entry of a marker, which `ended` that if it could be told.
    fn judge_aborted(
        &mut self,
        exact: bool,
        header: &Header,
        ended: Option<&Ended>,
    ) -> io::Result<()> {
        let known = ended.and_then(Aborted::of);
        self.replayed.extend(known);
        let entry = self.aborted.peek()?;
        match entry.filter(|e| e.last_offset <= header.base_offset) {
            Some(entry) => {
                let names = entry.last_offset == header.base_offset
                    && entry.producer_id == header.producer_id
                    && entry.first_offset < entry.last_offset
                    && entry.last_stable <= entry.last_offset + 1;
                // Behind a gap a lost marker makes two transactions look like one.
                let agrees = !exact || known.is_none_or(|known| entry == known);
                match names && agrees {
                    true => self.aborted.accept()?,
                    false => self.aborted.refuse("an entry is not what was aborted"),
                }
            }
            None if exact && known.is_some() && self.is_to_hold_all() => {
                self.aborted.refuse("it lacks what was aborted");
            }
            None => {}
        }
        Ok(())
    }

    /// Whether the transaction index has no entries that are not in its file.
    fn is_to_hold_all(&self) -> bool {
        self.subject.txn_whole && self.aborted.bad.is_none()
    }

    /// What is wrong, now that the segment was walked.
    pub fn end(self) -> io::Result<Vec<Finding>> {
        let ends = [
            self.offsets.end(NO_BATCH)?,
            self.times.end(NO_BATCH)?,
            self.aborted.end(NO_BATCH)?,
        ];
        Ok(ends.into_iter().flatten().collect())
    }
}
