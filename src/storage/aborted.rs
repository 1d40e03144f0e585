//! The transaction index, `<base>.txnindex`: the transactions whose abort marker lies in the segment, in the order of
//! those. By it a fetch tells `read_committed` consumers what to drop, and no record is read for that.
//!
//! ```text
//!   34 bytes an entry:  version i16 = 0 | producer id i64 | first offset i64 | marker's offset i64
//!                       | last stable offset i64 as the marker left it: all later entries begin at it or behind it
//! ```
//! Invariants: unlike the other indexes this one is trusted, so a [`View`] holds every entry that the file may lack;
//! a sealed segment has the file, though empty, and so has every segment after a clean stop: a missing or implausible
//! one is made anew from the batches at start (promise P9). Source: Kafka's `TransactionIndex` and `AbortedTxn`.

use super::Shared;
use super::descriptors::Kind;
use super::index::{self, Entry};
use super::producers::Ended;
use super::segment::{Extent, Segment, header_at};
use super::view::{Hint, ReadError, View};
use std::fs::File;
use std::io;
use std::ops::Range;

const VERSION: i16 = 0;

/// A transaction that was aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aborted {
    /// Whose it was.
    pub producer_id: i64,
    /// Where it begins in the partition.
    pub first_offset: i64,
    /// The offset of its marker.
    pub last_offset: i64,
    /// The last stable offset once the marker counts.
    pub last_stable: i64,
}

impl Aborted {
    /// The entry for a transaction that ended, if it was aborted.
    pub fn of(ended: &Ended) -> Option<Aborted> {
        (!ended.commit).then_some(Aborted {
            producer_id: ended.producer_id,
            first_offset: ended.first_offset,
            last_offset: ended.last_offset,
            last_stable: ended.last_stable,
        })
    }
}

impl Entry for Aborted {
    const BYTES: usize = 34;

    fn decode(bytes: &[u8]) -> Aborted {
        let field = |at: usize| {
            let field = bytes.get(at..).and_then(|b| b.first_chunk());
            i64::from_be_bytes(*field.expect("an entry's bytes are all there"))
        };
        // An entry of a version that is not known is blank, and so the file is implausible.
        let known = bytes.starts_with(&VERSION.to_be_bytes());
        let field = |at| if known { field(at) } else { 0 };
        Aborted {
            producer_id: field(2),
            first_offset: field(10),
            last_offset: field(18),
            last_stable: field(26),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&VERSION.to_be_bytes());
        for field in [
            self.producer_id,
            self.first_offset,
            self.last_offset,
            self.last_stable,
        ] {
            out.extend_from_slice(&field.to_be_bytes());
        }
    }

    fn rises_to(&self, next: &Aborted) -> bool {
        self.last_offset < next.last_offset && self.last_stable <= next.last_stable
    }

    fn is_blank(&self) -> bool {
        self.last_offset == 0
    }
}

/// How many entries a segment's file holds; nothing if it is not there, or cannot be one of that segment.
pub fn count(extent: &Extent, shared: &Shared) -> io::Result<Option<u32>> {
    let segment = &extent.segment;
    let Some(file) = segment.index_to_read(shared, Kind::TransactionIndex)? else {
        return Ok(None);
    };
    let Some(count) = count_by_length(&file)? else {
        return Ok(None);
    };
    let within = |e: &Aborted| {
        let is_within = (extent.base_offset()..extent.end_offset).contains(&e.last_offset);
        is_within && e.first_offset < e.last_offset && e.last_stable <= e.last_offset + 1
    };
    let mut before: Option<Aborted> = None;
    for from in (0..count).step_by(index::BLOCK_ENTRIES as usize) {
        for entry in block(&file, from, count)? {
            if !within(&entry) || before.is_some_and(|before| !before.rises_to(&entry)) {
                return Ok(None);
            }
            before = Some(entry);
        }
    }
    Ok(Some(count))
}

/// How many entries a file has room for; nothing if its length is no whole number of entries. Nobody reserves space in
/// these, so a blank entry is damage.
pub fn count_by_length(file: &File) -> io::Result<Option<u32>> {
    let len = file.metadata()?.len();
    let count = u32::try_from(len / Aborted::BYTES as u64).unwrap_or(u32::MAX);
    Ok((len == u64::from(count) * Aborted::BYTES as u64).then_some(count))
}

/// The entries of a file from slot `from` on: as many as one read takes in, of `count`.
fn block(file: &File, from: u32, count: u32) -> io::Result<Vec<Aborted>> {
    index::block(
        file,
        from,
        count.min(from.saturating_add(index::BLOCK_ENTRIES)),
    )
}

impl View {
    /// The aborted transactions that have something in what was sent: from `offset` to where the `hint` of that answer
    /// is now; in the order of their markers. Who reads may drop all of each that is open (Kafka's
    /// `collectAbortedTransactions`).
    pub fn aborted(
        &self,
        shared: &Shared,
        offset: i64,
        hint: Hint,
    ) -> Result<Vec<Aborted>, ReadError> {
        let mut extents = self.extents_from(offset);
        if extents.all(|e| e.aborted_count == 0 && e.aborted.is_empty()) {
            return Ok(Vec::new());
        }
        self.aborted_between(shared, offset..self.offset_of(shared, hint)?)
    }

    /// The aborted transactions that have an offset in a range, those included that end after it; in the order of
    /// their markers.
    pub fn aborted_between(
        &self,
        shared: &Shared,
        offsets: Range<i64>,
    ) -> Result<Vec<Aborted>, ReadError> {
        let mut found = Vec::new();
        for extent in self.extents_from(offsets.start) {
            if extent.aborted_from(shared, offsets.start, offsets.end, &mut found)? {
                break;
            }
        }
        Ok(found)
    }

    fn extents_from(&self, offset: i64) -> impl Iterator<Item = &Extent> {
        (self.extent_of(offset)..).map_while(|at| self.extent(at))
    }

    /// The offset at which the first batch begins that does not lie before `hint` in whole.
    fn offset_of(&self, shared: &Shared, hint: Hint) -> Result<i64, ReadError> {
        let is_named = |extent: &&Extent| extent.segment.serial() == hint.segment;
        let extents = || self.closed.iter().chain([&self.active]);
        let extent = extents().find(is_named).ok_or(ReadError::Gone)?;
        let file = extent.segment.log(shared)?;
        let boundary = extent.boundary(shared, 0, hint.position)?.unwrap_or(0);
        // A damaged index costs time, never truth.
        let from = match header_at(&file, boundary, extent.bytes)? {
            Some(_) => boundary,
            None => 0,
        };
        let mut position = from;
        let found = extent.walk(&file, from, |header| {
            position += header.total_bytes() as u32;
            position > hint.position
        })?;
        Ok(found.map_or(extent.end_offset, |(_, header)| header.base_offset))
    }
}

impl Extent {
    /// Adds the transactions that were aborted here and overlap `offset..end`; whether that is all there are.
    fn aborted_from(
        &self,
        shared: &Shared,
        offset: i64,
        end: i64,
        found: &mut Vec<Aborted>,
    ) -> Result<bool, ReadError> {
        let mut add = |entry: Aborted| {
            if entry.last_offset >= offset && entry.first_offset < end {
                found.push(entry);
            }
            entry.last_stable >= end
        };
        if self.aborted_count > 0 {
            let file = self.segment.index_to_read(shared, Kind::TransactionIndex)?;
            // One that is gone was taken into memory, for the views since.
            let file = file.ok_or(ReadError::Gone)?;
            let is_all = visit(&file, self.aborted_count, offset, &mut add)?;
            if is_all.ok_or(ReadError::Gone)? {
                return Ok(true);
            }
        }
        Ok(self.aborted.iter().copied().any(add))
    }
}

/// Gives `take` the entries, of `count`, whose markers lie at or behind `offset`, until it says that these are all;
/// whether it did. Nothing if the file ends before.
fn visit(
    file: &File,
    count: u32,
    offset: i64,
    mut take: impl FnMut(Aborted) -> bool,
) -> io::Result<Option<bool>> {
    let passed = |e: &Aborted| e.last_offset < offset;
    let before = index::last_before(file, count, 0.5, passed)?;
    let mut from = before.map_or(0, |(slot, _)| slot + 1);
    while from < count {
        let block = block(file, from, count)?;
        from += block.len() as u32;
        if block.is_empty() {
            return Ok(None);
        }
        if block.into_iter().any(&mut take) {
            return Ok(Some(true));
        }
    }
    Ok(Some(false))
}

/// What the index of a segment that is read anew said, from the marker at `offset` on; as [`Extent::aborted_from`]
/// gives it to `take`. Nothing if there is none: it may be garbled, so who asks believes only what the log does not
/// deny.
pub fn recall(
    segment: &Segment,
    shared: &Shared,
    offset: i64,
    take: impl FnMut(Aborted) -> bool,
) -> Option<bool> {
    let file = segment.index_to_read(shared, Kind::TransactionIndex);
    let file = file.ok().flatten()?;
    let count = count_by_length(&file).ok().flatten()?;
    visit(&file, count, offset, take).ok().flatten()
}

/// All entries that a file is known to hold, for when it is given up.
pub fn read(file: &File, count: u32) -> io::Result<Vec<Aborted>> {
    index::block(file, 0, count)
}
