//! What readers see of a log, and how they find a batch in it. Immutable; shared by all connection threads.
//!
//! Invariants: a view shows nothing at or beyond its high watermark; it depends on no index entry that is not in the
//! file yet; a search trusts no index ([`Extent::floor`]); serving a fetch reads batch headers, never records.
//!
//! The cost of finding a batch: with a [`Hint`] of the same consumer one small read; at the tail a few; else a search
//! of the index (a page or two) and a walk over at most `index.interval.bytes` of batches.

use super::Shared;
use super::active::Active;
use super::checkpoint::EpochStart;
use super::segment::{Extent, Segment, header_at};
use crate::batch::Header;
use crate::wire::frame::FileSlice;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::sync::Arc;

/// A log at one moment.
#[derive(Clone)]
pub struct View {
    /// Changes with the segment list.
    pub generation: u64,
    pub(super) closed: Arc<[Extent]>,
    pub(super) active: Extent,
    pub(super) high: Mark,
    /// The first offset that is served.
    pub log_start: i64,
    /// Where the first open transaction begins; the high watermark if there is none.
    pub last_stable: i64,
    /// The end of what consumers may see (promise P2).
    pub high_watermark: i64,
    /// The end of what is written.
    pub appended_end: i64,
    /// The leader epochs, ascending.
    pub epochs: Arc<[EpochStart]>,
}

/// A place between batches, and the largest timestamp before it in its segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub offset: i64,
    /// The segment's serial.
    pub segment: u64,
    pub position: u32,
    pub max_timestamp: i64,
    pub max_timestamp_offset: i64,
}

/// Where a consumer's last fetch ended: its next one most likely begins there. Opaque, and never trusted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hint {
    pub(super) segment: u64,
    pub(super) position: u32,
    /// Whether a batch ends there. What lies within one is a producer's, and may look like a batch.
    pub(super) is_edge: bool,
}

/// Why a view could not answer.
#[derive(Debug)]
pub enum ReadError {
    /// The offset is before the log start or beyond the appended end.
    OutOfRange,
    /// A segment is gone since the view was made (retention, compaction, deletion): ask a new view.
    Gone,
    /// The disk failed, or what it gave is no batch.
    Io(io::Error),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> ReadError {
        match error.kind() {
            ErrorKind::NotFound => ReadError::Gone,
            _ => ReadError::Io(error),
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::OutOfRange => f.write_str("the offset is out of range"),
            ReadError::Gone => f.write_str("the segment is gone"),
            ReadError::Io(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {}

/// What a view gives of its batches.
#[derive(Clone, Debug, Default)]
pub struct Slices {
    /// Spans of segment files, in order.
    pub files: Vec<FileSlice>,
    /// Whether more is there, which a limit kept out.
    pub is_cut: bool,
}

/// A batch that was found.
pub(super) struct Place {
    /// Which extent, counted from the first.
    pub at: usize,
    pub position: u32,
    pub header: Header,
    pub file: Arc<File>,
}

impl View {
    /// What is seen of a log that could not be opened.
    pub fn empty() -> View {
        let active = Active::empty(Segment::absent());
        View {
            generation: 0,
            closed: Arc::new([]),
            high: active.mark(),
            active: active.extent(),
            log_start: 0,
            last_stable: 0,
            high_watermark: 0,
            appended_end: 0,
            epochs: Arc::new([]),
        }
    }

    /// The spans of segment files that hold the batches from the one with `offset` (after a gap, from the next) up to
    /// `end`, the high watermark or the last stable offset; at most `bytes_max` bytes, and [`Shared::files_max`] spans.
    ///
    /// `whole_first_batch`: the first batch is given whole, however large (KIP-74); without it a batch that does not
    /// fit gives nothing. Empty when `offset` is at or beyond `end`. `hint` is the consumer's own, `Default` at first.
    pub fn slices(
        &self,
        shared: &Shared,
        offset: i64,
        end: i64,
        bytes_max: u32,
        whole_first_batch: bool,
        hint: &mut Hint,
    ) -> Result<Slices, ReadError> {
        if offset < self.log_start || offset > self.appended_end {
            return Err(ReadError::OutOfRange);
        }
        let end = end.min(self.high_watermark);
        if offset >= end {
            return Ok(Slices::default());
        }
        let last = self.place_of_end(shared, end)?;
        let Some(first) = self.locate(shared, offset, *hint)? else {
            return Ok(Slices::default());
        };
        if (first.at, first.position) >= last {
            return Ok(Slices::default());
        }
        let first_bytes = first.header.total_bytes() as u32;
        if first_bytes > bytes_max && !whole_first_batch {
            return Ok(Slices {
                files: Vec::new(),
                is_cut: true,
            });
        }
        self.gather(shared, first, last, bytes_max.max(first_bytes), hint)
    }

    /// The spans from `first` up to `last`, at most `bytes_max`, which is at least the first batch.
    fn gather(
        &self,
        shared: &Shared,
        first: Place,
        (last, last_position): (usize, u32),
        bytes_max: u32,
        hint: &mut Hint,
    ) -> Result<Slices, ReadError> {
        let mut files = Vec::new();
        let (mut at, mut from, mut rest) = (first.at, first.position, bytes_max);
        let mut end = (at, from);
        // An index that is wrong must not cut the first batch: its reader would never get on.
        let mut edge_min = from + first.header.total_bytes() as u32;
        let mut file = first.file;
        while let Some(extent) = self.extent(at) {
            let limit = match at == last {
                true => last_position,
                false => extent.bytes,
            };
            let (mut to, mut is_edge) = (limit, true);
            if limit - from > rest {
                // Ended on a batch's edge where the index gives one; else cut, as Kafka does: clients drop the piece.
                to = match extent.boundary(shared, edge_min, from + rest)? {
                    Some(edge) => edge,
                    None if files.is_empty() => {
                        is_edge = false;
                        from + rest
                    }
                    None => break,
                };
            }
            if to > from {
                files.push(FileSlice {
                    file,
                    position: u64::from(from),
                    len: to - from,
                });
                *hint = Hint {
                    segment: extent.segment.serial(),
                    position: to,
                    is_edge,
                };
            }
            end = (at, to);
            rest -= to - from;
            at += 1;
            (from, edge_min) = (0, 1);
            file = match self.extent(at) {
                Some(next)
                    if to == limit
                        && at <= last
                        && rest > 0
                        && files.len() < shared.files_max() =>
                {
                    next.segment.log(shared)?
                }
                _ => break,
            };
        }
        // Where a segment ends the next one begins.
        while end.0 < last && self.extent(end.0).is_some_and(|e| end.1 == e.bytes) {
            end = (end.0 + 1, 0);
        }
        let is_cut = end < (last, last_position);
        Ok(Slices { files, is_cut })
    }

    /// The batch that holds `offset`, or the next one after it.
    pub(super) fn locate(
        &self,
        shared: &Shared,
        offset: i64,
        hint: Hint,
    ) -> Result<Option<Place>, ReadError> {
        let first = self.extent_of(offset);
        for at in first..=self.closed.len() {
            let Some(extent) = self.extent(at).filter(|e| e.bytes > 0) else {
                continue;
            };
            let file = extent.segment.log(shared)?;
            let from = if at > first {
                0
            } else if let Some(position) = hinted(extent, &file, offset, hint)? {
                position
            } else {
                extent.floor(shared, &file, offset)?
            };
            let found = extent.walk(&file, from, |h| h.last_offset() >= offset)?;
            if let Some((position, header)) = found {
                return Ok(Some(Place {
                    at,
                    position,
                    header,
                    file,
                }));
            }
        }
        Ok(None)
    }

    /// Where the bytes end that lie before offset `end`: the extent, and the position in it.
    fn place_of_end(&self, shared: &Shared, end: i64) -> Result<(usize, u32), ReadError> {
        if end == self.high.offset {
            let is_marked = |e: &Extent| e.segment.serial() == self.high.segment;
            let at = self.closed.iter().rposition(is_marked);
            return Ok((at.unwrap_or(self.closed.len()), self.high.position));
        }
        match self.locate(shared, end, Hint::default())? {
            Some(place) => Ok((place.at, place.position)),
            None => Ok((self.closed.len(), self.active.bytes)),
        }
    }

    /// Extent `at`; the active one is the last.
    pub(super) fn extent(&self, at: usize) -> Option<&Extent> {
        match at == self.closed.len() {
            true => Some(&self.active),
            false => self.closed.get(at),
        }
    }

    /// The extent that `offset` lies in, counted from the first.
    pub(super) fn extent_of(&self, offset: i64) -> usize {
        if offset >= self.active.base_offset() {
            return self.closed.len();
        }
        self.closed
            .partition_point(|e| e.base_offset() <= offset)
            .saturating_sub(1)
    }

    /// The sealed segments, ascending.
    pub fn sealed(&self) -> &[Extent] {
        &self.closed
    }

    /// All segments, ascending, and whether each is sealed.
    pub fn segments(&self) -> impl Iterator<Item = (&Extent, bool)> {
        let sealed = self.closed.iter().map(|extent| (extent, true));
        sealed.chain([(&self.active, false)])
    }

    /// The bytes of all batches that the segments hold, those below the log start included.
    pub fn total_bytes(&self) -> u64 {
        let extents = self.closed.iter().chain([&self.active]);
        extents.map(|extent| u64::from(extent.bytes)).sum()
    }

    /// The leader epoch of `offset`, -1 if it is not known.
    pub fn epoch_at(&self, offset: i64) -> i32 {
        let after = self.epochs.partition_point(|e| e.start_offset <= offset);
        match after.checked_sub(1).and_then(|at| self.epochs.get(at)) {
            Some(start) => start.epoch,
            None => -1,
        }
    }

    /// OffsetForLeaderEpoch: the largest known epoch up to `epoch`, and where it ends. (-1, -1) if the epoch is newer
    /// than all that are known, or none (KAFKA-6857).
    pub fn end_offset_for_epoch(&self, epoch: i32) -> (i32, i64) {
        let newer = self.epochs.partition_point(|e| e.epoch <= epoch);
        let floor = newer.checked_sub(1).and_then(|at| self.epochs.get(at));
        match (floor, self.epochs.get(newer)) {
            _ if epoch < 0 => (-1, -1),
            (Some(last), None) if last.epoch == epoch => (epoch, self.high_watermark),
            (_, None) => (-1, -1),
            (Some(floor), Some(next)) => (floor.epoch, next.start_offset),
            (None, Some(next)) => (epoch, next.start_offset),
        }
    }
}

/// The hint's position, if the batch there holds `offset`.
fn hinted(extent: &Extent, file: &File, offset: i64, hint: Hint) -> io::Result<Option<u32>> {
    let is_here = hint.is_edge && hint.segment == extent.segment.serial();
    if !is_here || hint.position >= extent.bytes {
        return Ok(None);
    }
    let header = header_at(file, hint.position, extent.bytes)?;
    let holds = |h: &Header| h.base_offset <= offset && offset <= h.last_offset();
    Ok(header.filter(holds).map(|_| hint.position))
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
