//! Log compaction, the part that only reads and prepares: of each key the newest record stays
//! (`cleanup.policy=compact`).
//!
//! Reading order: `map` (key to newest offset, in bounded memory), `reader` (a sealed segment, batch by batch),
//! `filter` (what stays of a batch), `output` (the prepared files). [`compact`] is one pass over a log:
//!
//! 1. Build: the keys of the dirty section go into the map, until its end or until the map is full.
//! 2. Rewrite: the sealed segments from the first one up to where the map ends are grouped, so that a group's bytes,
//!    index and offsets fit one segment, and each group is rewritten into `.cleaned` files, synced, and handed to
//!    the caller, who has the writer swap them in (promise P4). A group of which nothing changed is left alone.
//!
//! Invariants
//! 1. A record that stays keeps its offset, timestamp, key, value and headers; a batch of which every record stays is
//!    copied byte for byte (P3), unless its tombstones get their delete horizon now (KIP-534).
//! 2. A batch keeps its base and last offset, sequences, producer, codec and timestamp type.
//! 3. A rewritten segment ends at the offset where its last source ended, with an empty batch header if need be, and
//!    each producer's last batch in the log stays at least as such a header.
//! 4. Nothing is trusted: a batch whose CRC or records are wrong ends the pass with an error that names file and
//!    position, and the log stays as it is.
//! 5. Memory: the map, and a few times [`RECORDS_BYTES_MAX`]. A batch that is larger, stored or inflated, is copied
//!    whole, its records count as live, and tombstones behind it stay, since it may hold what they delete.
//!
//! Sources: Kafka's `Cleaner`, `CleanedTransactionMetadata`, `MemoryRecords.filterTo`; KIP-98, KIP-354, KIP-534.

mod filter;
mod map;
mod output;
mod reader;

pub(super) use output::Output;
pub use output::{CLEANED, EXTENSIONS};
pub(super) use reader::damaged;

pub use super::aborted::Aborted;

use super::append::Tail;
use super::index::{Entry, OffsetEntry, TimeEntry};
use super::segment::Extent;
use super::view::{ReadError, View};
use super::{LogSettings, Shared};
use crate::batch::records::Walk;
use crate::batch::{HEADER_BYTES, Header};
use crate::compress::{Decoders, Failure};
use crate::error::Error;
use filter::{Fate, Filter, Transactions};
use map::OffsetMap;

use reader::{CHUNK_BYTES, Reader};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// The most bytes of one batch, stored or inflated, that are held in memory.
pub const RECORDS_BYTES_MAX: usize = 16 << 20;

/// What of a producer must outlive compaction: its newest batch carries the sequence, or a marker the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastOfProducer {
    /// The last offset of its last batch with records in this epoch; `None` if there is only a marker.
    pub last_data_offset: Option<i64>,
    /// Its newest epoch.
    pub epoch: i16,
}

/// A log to be compacted, and how.
pub struct Source<'a> {
    /// The log; its active segment is never touched.
    pub view: &'a View,
    /// The open files.
    pub shared: &'a Shared,
    /// The partition's directory.
    pub dir: &'a Arc<Path>,
    /// The topic's settings.
    pub settings: &'a LogSettings,
    /// For compressed batches.
    pub decoders: &'a Decoders,
    /// Broker time, ms.
    pub now_ms: i64,
    /// How long a tombstone or an empty transaction's marker stays after it was first compacted
    /// (`delete.retention.ms`).
    pub delete_retention_ms: i64,
    /// The first offset that no earlier pass covered: a hint.
    pub first_dirty: i64,
    /// The offset before which records may be compacted (`min.compaction.lag.ms`); never beyond the last stable
    /// offset or into the active segment, whatever is asked for.
    pub end: i64,
    /// The map's memory (`log.cleaner.dedupe.buffer.size`), bytes.
    pub map_bytes_max: usize,
    /// How full the map may become, 0 to 1 (`log.cleaner.io.buffer.load.factor`).
    pub map_load_factor: f64,
    /// The last batch of a producer that is still known. Must be as of the view or later: a batch in the view that
    /// is not known here could lose its header.
    pub last_of_producer: &'a dyn Fn(i64) -> Option<LastOfProducer>,
    /// The log start as it is now: what falls below it in mid-pass is left out.
    pub log_start: &'a dyn Fn() -> i64,
    /// The aborted transactions that have an offset in a range, those included that end after it.
    pub aborted: &'a dyn Fn(Range<i64>) -> Result<Vec<Aborted>, ReadError>,
}

/// The prepared successor of some segments that follow each other: four synced files, `<base>.log.cleaned`,
/// `.index.cleaned`, `.timeindex.cleaned` and `.txnindex.cleaned`. The caller swaps them in or removes them.
pub struct Replacement {
    /// The serials of the segments that it replaces, in the log's order.
    pub sources: Vec<u64>,
    /// Its numbers; the index files hold all entries that it counts. Its base offset is that of the first source.
    pub tail: Tail,
    /// What its `.txnindex` holds.
    pub aborted: Vec<Aborted>,
    /// The broker time of the last append to the sources, ms, which the new file's modification time tells too.
    pub last_append_ms: Option<i64>,
}

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// The first offset that the pass did not cover: the next one's `first_dirty`.
    pub next_dirty: i64,
    /// The bytes of the segments that were looked at, and of what is left of them.
    pub bytes_before: u64,
    /// See `bytes_before`.
    pub bytes_after: u64,
    /// The records of those segments, and those that stayed; batches that were copied whole unread count in neither.
    pub records_before: u64,
    /// See `records_before`.
    pub records_after: u64,
    /// The distinct keys of the dirty section.
    pub keys: u64,
    /// The replacements that were handed over.
    pub replacements: u64,
}

/// The caller wants the pass to end: the broker stops, or the topic was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

/// Why a pass did not reach its end. What it handed over until then stands.
#[derive(Debug)]
pub enum Failed {
    /// The caller stopped it.
    Stopped,
    /// A segment is gone since the view was made, or was replaced.
    Moved,
    /// The log is damaged.
    Damaged(Error),
    /// The disk failed.
    Error(Error),
}

impl From<Stopped> for Failed {
    fn from(_: Stopped) -> Failed {
        Failed::Stopped
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed::Error(error)
    }
}

/// Called after so many bytes were read or written; may sleep, or end the pass.
pub type Pace<'a> = &'a mut dyn FnMut(u64) -> Result<(), Stopped>;

/// Called with each replacement, in the log's order; returns when it is swapped in, or [`Failed::Moved`] if it was
/// refused.
pub type Swap<'a> = &'a mut dyn FnMut(Replacement) -> Result<(), Failed>;

/// One pass over a log. An error leaves no file that was not handed over.
pub fn compact(source: &Source<'_>, pace: Pace<'_>, swap: Swap<'_>) -> Result<Cleaned, Failed> {
    let sealed_end = source.view.active.base_offset();
    let first = source
        .view
        .closed
        .first()
        .map_or(sealed_end, Extent::base_offset);
    let start = source.first_dirty.clamp(first, sealed_end);
    let end = source.end.min(source.view.last_stable).min(sealed_end);
    let end = end.max(start);
    let mut map = OffsetMap::new(
        source.map_bytes_max,
        source.map_load_factor,
        (end - start) as u64,
    );
    let covered = build(source, start..end, &mut map, pace)?;
    let mut cleaned = Cleaned {
        next_dirty: covered,
        keys: map.len() as u64,
        ..Cleaned::default()
    };
    let mut filter = Filter::new(source, map, start..covered);
    for group in groups(source, covered) {
        let replaced = rewrite(source, group, &mut filter, pace)
            .and_then(|replacement| replace(group, replacement, &mut cleaned, swap));
        unless_passed(source, group, replaced)?;
    }
    [cleaned.records_before, cleaned.records_after] = filter.counts;
    Ok(cleaned)
}

/// Counts what became of a group, and hands over what takes its place.
fn replace(
    group: &[Extent],
    replacement: Option<Replacement>,
    cleaned: &mut Cleaned,
    swap: Swap<'_>,
) -> Result<(), Failed> {
    let before: u64 = group.iter().map(|e| u64::from(e.bytes)).sum();
    let after = replacement.as_ref().map(|r| u64::from(r.tail.bytes));
    if let Some(replacement) = replacement {
        swap(replacement)?;
        cleaned.replacements += 1;
    }
    cleaned.bytes_before += before;
    cleaned.bytes_after += after.unwrap_or(before);
    Ok(())
}

/// A pass goes on where retention or DeleteRecords took the segments first: where they do so all the time, it would
/// never come to its end.
fn unless_passed<T: Default>(
    source: &Source<'_>,
    group: &[Extent],
    done: Result<T, Failed>,
) -> Result<T, Failed> {
    let end = group.last().map_or(0, |last| last.end_offset);
    match done {
        Err(Failed::Moved) if end <= (source.log_start)() => Ok(T::default()),
        done => done,
    }
}

/// Puts the keys of the dirty section into the map; gives the offset before which it has them all.
fn build(
    source: &Source<'_>,
    dirty: Range<i64>,
    map: &mut OffsetMap,
    pace: Pace<'_>,
) -> Result<i64, Failed> {
    let mut transactions = Transactions::default();
    let extents = source.view.closed.iter();
    for extent in extents.filter(|e| e.end_offset > dirty.start && e.base_offset() < dirty.end) {
        let full = build_from(source, extent, &dirty, &mut transactions, map, pace);
        if let Some(offset) = unless_passed(source, std::slice::from_ref(extent), full)? {
            return Ok(offset);
        }
    }
    Ok(dirty.end)
}

/// The same of one segment; gives the offset of the first record that the map has no room for.
fn build_from(
    source: &Source<'_>,
    extent: &Extent,
    dirty: &Range<i64>,
    transactions: &mut Transactions,
    map: &mut OffsetMap,
    pace: Pace<'_>,
) -> Result<Option<i64>, Failed> {
    let mut inflated = Vec::new();
    transactions.enter(aborted_in(source, extent)?);
    let mut reader = Reader::open(source.shared, extent, dirty.start)?;
    while let Some(batch) = reader.next_batch(pace)? {
        let header = &batch.header;
        if header.base_offset >= dirty.end {
            break;
        }
        let skipped = header.is_control() || transactions.is_aborted(header);
        let Some(bytes) = batch.bytes.filter(|_| !skipped) else {
            continue;
        };
        let body = &bytes[HEADER_BYTES..];
        let full = filter::records(source.decoders, header, body, &mut inflated)
            .and_then(|records| match records {
                Some(records) => put_keys(header, records, dirty, map),
                None => Ok(None),
            })
            .map_err(|failure| unreadable(extent, batch.position, failure))?;
        if full.is_some() {
            return Ok(full);
        }
        if inflated.capacity() > 4 * CHUNK_BYTES {
            inflated = Vec::new();
        }
    }
    Ok(None)
}

/// Puts the keys of a batch into the map; gives the offset of the first record that it has no room for.
fn put_keys(
    header: &Header,
    records: &[u8],
    dirty: &Range<i64>,
    map: &mut OffsetMap,
) -> Result<Option<i64>, Failure> {
    let mut walk = Walk::new(records, header.records_count);
    while let Some(record) = walk.next_record()? {
        let delta = i64::from(record.offset_delta);
        let offset = header.base_offset.saturating_add(delta);
        if let Some(key) = record.key
            && dirty.contains(&offset)
            && !map.put(&records[key], offset)
        {
            return Ok(Some(offset));
        }
    }
    Ok(None)
}

fn aborted_in(source: &Source<'_>, extent: &Extent) -> Result<Vec<Aborted>, Failed> {
    let aborted = (source.aborted)(extent.base_offset()..extent.end_offset);
    aborted.map_err(|e| unread(extent, e))
}

/// A segment's files could not be read.
pub(super) fn unread(extent: &Extent, error: ReadError) -> Failed {
    let path = extent.segment.path(".log");
    match error {
        ReadError::Gone => Failed::Moved,
        e => Failed::Error(Error::new(format!("reading {}: {e}", path.display()))),
    }
}

fn unreadable(extent: &Extent, position: u32, failure: Failure) -> Failed {
    match failure {
        Failure::Closed => Failed::Stopped,
        failure => damaged(extent, position, failure),
    }
}

/// The sealed segments that begin before `covered`, in groups that fit one segment each.
fn groups<'a>(source: &Source<'a>, covered: i64) -> Vec<&'a [Extent]> {
    let view = source.view;
    let count = view.closed.partition_point(|e| e.base_offset() < covered);
    let bytes_max = u64::from(source.settings.segment_bytes_max).min(i32::MAX as u64);
    let index_max = u64::from(source.settings.index_bytes_max);
    let fits = |group: &[Extent]| {
        let sum = |of: fn(&Extent) -> u32| group.iter().map(|e| u64::from(of(e))).sum::<u64>();
        let base = group.first().map_or(0, Extent::base_offset);
        let end = group.last().map_or(0, |e| e.end_offset);
        sum(|e| e.bytes) <= bytes_max
            && sum(|e| e.index_count) * OffsetEntry::BYTES as u64 <= index_max
            && sum(|e| e.time_count) * TimeEntry::BYTES as u64 <= index_max
            && end - base <= i64::from(i32::MAX)
    };
    let mut groups = Vec::new();
    let mut rest = &view.closed[..count];
    while !rest.is_empty() {
        let mut len = 1;
        while len < rest.len() && fits(&rest[..=len]) {
            len += 1;
        }
        let (group, after) = rest.split_at(len);
        groups.push(group);
        rest = after;
    }
    groups
}

/// Rewrites a group of segments; nothing if it would be one segment and just what it is.
fn rewrite(
    source: &Source<'_>,
    group: &[Extent],
    filter: &mut Filter<'_>,
    pace: Pace<'_>,
) -> Result<Option<Replacement>, Failed> {
    // Of a group that was left out.
    filter.aborted.clear();
    let mut unread: u64 = group.iter().map(|e| u64::from(e.bytes)).sum();
    let base_offset = group[0].base_offset();
    let mut output = Output::create(
        source.dir,
        base_offset,
        source.settings.index_interval_bytes,
    )?;
    let mut changed = group.len() > 1;
    for extent in group {
        filter.transactions.enter(aborted_in(source, extent)?);
        let mut reader = Reader::open(source.shared, extent, extent.base_offset())?;
        while let Some(batch) = reader.next_batch(pace)? {
            let (header, position) = (batch.header, batch.position);
            unread -= header.total_bytes() as u64;
            // What grew must leave room for the rest: positions are i32 numbers in Kafka's index.
            let room = (i32::MAX as u64).saturating_sub(u64::from(output.tail.bytes) + unread);
            let fate = filter
                .judge(&batch, unread == 0, room as usize)
                .map_err(|failure| unreadable(extent, position, failure))?;
            match (fate, batch.bytes) {
                (Fate::Drop, _) => changed = true,
                (Fate::Rewritten, _) => {
                    changed = true;
                    let header = &filter.rewritten_header;
                    output.add(header, header.max_timestamp, &filter.rewritten, pace)?;
                }
                (Fate::Whole(timestamp), Some(bytes)) => {
                    output.add(&header, timestamp, bytes, pace)?;
                }
                (Fate::Whole(timestamp), None) => {
                    output.count(&header, timestamp);
                    reader.copy(position, &header, pace, |piece, pace| {
                        output.write(piece, pace)
                    })?;
                }
            }
        }
    }
    let aborted = std::mem::take(&mut filter.aborted);
    if !changed || output.tail.bytes == 0 {
        return Ok(None);
    }
    let sources = group.iter().map(|e| e.segment.serial()).collect();
    let last_append_ms = group.iter().filter_map(|e| e.last_append_ms).max();
    Ok(Some(output.finish(sources, aborted, last_append_ms)?))
}

#[cfg(test)]
mod tests;
