//! One turn's appends to one partition: what is staged, and the arithmetic of a growing segment.
//!
//! Owns: [`Tail`], the numbers of a segment that is being appended to, and [`Turn`], the batches that are staged but
//! not written. Invariant: staging changes a turn alone, so that taking it back is to drop it. Recovery counts with
//! the same [`Tail`], so that rebuilt indexes are those that appending would have made.

use super::LogSettings;
use super::aborted::Aborted;
use super::index::{Entry, OffsetEntry, TimeEntry};
use super::producers::Ended;
use super::retention::FUTURE_MS_MAX;
use crate::batch::{HEADER_BYTES, Header};
use crate::sys;
use crate::wire::frame::FrameSlice;
use std::fs::File;
use std::io::{self, IoSlice};

/// The numbers of a segment that batches are appended to.
#[derive(Clone, Debug)]
pub struct Tail {
    /// The segment's base offset.
    pub base_offset: i64,
    /// The offset after the last one.
    pub end_offset: i64,
    /// The bytes so far.
    pub bytes: u32,
    /// The bytes since the last index entry.
    pub bytes_since_index: u32,
    /// The entries of the offset index.
    pub index_count: u32,
    /// The last of them.
    pub last_index: OffsetEntry,
    /// The entries of the time index.
    pub time_count: u32,
    /// The last entry's timestamp, -1 if there is none.
    pub last_time: i64,
    /// The largest timestamp so far, -1 if there is none, ms.
    pub max_timestamp: i64,
    /// The last offset of the first batch with that timestamp.
    pub max_timestamp_offset: i64,
    /// The first batch's largest timestamp, by which the segment's age is told; -1 if there is none.
    pub first_timestamp: i64,
    /// When the segment was made, or first seen by this process, in ms of broker time: its age if its first batch has
    /// no timestamp, or none that can be right.
    /// `None` until the first batch is staged.
    pub created_ms: Option<i64>,
    /// The broker time of the last append, ms; `None` if there was none.
    pub last_append_ms: Option<i64>,
}

/// Index entries in the making.
#[derive(Clone, Debug, Default)]
pub struct Entries {
    /// Of the offset index.
    pub offsets: Vec<OffsetEntry>,
    /// Of the time index.
    pub times: Vec<TimeEntry>,
    /// Of the transaction index.
    pub aborted: Vec<Aborted>,
}

impl Tail {
    /// An empty segment's numbers.
    pub fn new(base_offset: i64) -> Tail {
        Tail {
            base_offset,
            end_offset: base_offset,
            bytes: 0,
            bytes_since_index: 0,
            index_count: 0,
            last_index: OffsetEntry::default(),
            time_count: 0,
            last_time: -1,
            max_timestamp: -1,
            max_timestamp_offset: base_offset,
            first_timestamp: -1,
            created_ms: None,
            last_append_ms: None,
        }
    }

    /// Whether a batch must go to a new segment. The conditions are Kafka's (`LogSegment.shouldRoll`), but that a first
    /// batch from the far future does not keep its segment from ageing.
    pub fn must_roll(
        &self,
        settings: &LogSettings,
        header: &Header,
        timestamp: i64,
        now_ms: i64,
    ) -> bool {
        let bytes = header.total_bytes() as u64;
        let created_ms = self.created_ms.unwrap_or(now_ms);
        let age_ms = match self.first_timestamp {
            first if (0..=created_ms.saturating_add(FUTURE_MS_MAX)).contains(&first) => {
                timestamp.saturating_sub(first)
            }
            _ => now_ms.saturating_sub(created_ms),
        };
        let entries_max = |bytes: usize| settings.index_bytes_max / bytes as u32;
        let size_max = u64::from(settings.segment_bytes_max.min(i32::MAX as u32));
        self.bytes > 0
            && (u64::from(self.bytes) + bytes > size_max
                || age_ms > settings.segment_ms
                || self.index_count >= entries_max(OffsetEntry::BYTES)
                || self.time_count + 1 >= entries_max(TimeEntry::BYTES))
            || header.last_offset() - self.base_offset > i64::from(i32::MAX)
    }

    /// Counts a batch in; adds what the indexes must say to `entries`. `timestamp` is its largest, as computed; that
    /// of a batch without records is no record's, and does not count.
    pub fn add(
        &mut self,
        header: &Header,
        timestamp: i64,
        interval_bytes: u32,
        entries: &mut Entries,
    ) {
        if self.bytes == 0 {
            self.first_timestamp = timestamp;
        }
        let last_offset = header.last_offset();
        if timestamp > self.max_timestamp && header.records_count > 0 {
            self.max_timestamp = timestamp;
            self.max_timestamp_offset = last_offset;
        }
        if self.bytes_since_index > interval_bytes {
            self.last_index = OffsetEntry {
                relative_offset: self.relative(last_offset),
                position: self.bytes,
            };
            entries.offsets.push(self.last_index);
            self.index_count += 1;
            self.add_time(entries);
            self.bytes_since_index = 0;
        }
        let bytes = header.total_bytes() as u32;
        self.bytes_since_index = self.bytes_since_index.saturating_add(bytes);
        self.bytes += bytes;
        self.end_offset = last_offset + 1;
    }

    /// Adds a time entry for the largest timestamp, if the last entry does not say it yet.
    pub fn add_time(&mut self, entries: &mut Entries) {
        if self.max_timestamp > self.last_time {
            entries.times.push(TimeEntry {
                timestamp: self.max_timestamp,
                relative_offset: self.relative(self.max_timestamp_offset),
            });
            self.time_count += 1;
            self.last_time = self.max_timestamp;
        }
    }

    /// `offset` as the indexes store it: `must_roll` keeps it within an i32.
    fn relative(&self, offset: i64) -> u32 {
        (offset - self.base_offset) as u32
    }
}

/// A batch that is staged: patched, not yet written.
struct Piece {
    head: [u8; HEADER_BYTES],
    body: FrameSlice,
}

/// What one turn appends to one segment.
pub struct Part {
    /// The segment's numbers once the part is written.
    pub tail: Tail,
    /// The index entries that go with it.
    pub entries: Entries,
    /// For a new segment, the producer state at its beginning, encoded.
    pub snapshot: Vec<u8>,
    from: u32,
    pieces: Vec<Piece>,
}

impl Part {
    /// A part that continues from `tail`.
    pub fn new(tail: Tail, snapshot: Vec<u8>) -> Part {
        Part {
            from: tail.bytes,
            tail,
            entries: Entries::default(),
            snapshot,
            pieces: Vec::new(),
        }
    }

    /// Stages a batch whose place is in its head already.
    pub fn add(
        &mut self,
        head: [u8; HEADER_BYTES],
        body: FrameSlice,
        header: &Header,
        timestamp: i64,
        interval_bytes: u32,
    ) {
        self.tail
            .add(header, timestamp, interval_bytes, &mut self.entries);
        self.pieces.push(Piece { head, body });
    }

    /// Whether the part writes nothing.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Writes all batches by one gathered write. On an error some prefix of them is in the file.
    pub fn write(&self, file: &File) -> io::Result<()> {
        let mut slices: Vec<IoSlice> = Vec::with_capacity(self.pieces.len() * 2);
        for piece in &self.pieces {
            slices.push(IoSlice::new(&piece.head));
            if !piece.body.is_empty() {
                slices.push(IoSlice::new(&piece.body));
            }
        }
        sys::write_gathered_at(file, &mut slices, u64::from(self.from))
    }
}

/// What one turn appends: to the active segment, then to the new ones that it rolls to.
pub struct Turn {
    /// In the order of their segments; the first continues the active one.
    pub parts: Vec<Part>,
    /// The transactions that end in it.
    pub ended: Vec<Ended>,
}

impl Turn {
    /// A turn that continues the active segment.
    pub fn new(mut active: Tail, now_ms: i64) -> Turn {
        active.created_ms.get_or_insert(now_ms);
        Turn {
            parts: vec![Part::new(active, Vec::new())],
            ended: Vec::new(),
        }
    }

    /// Counts in a transaction that the last batch ended.
    pub fn end(&mut self, ended: Ended) {
        let aborted = Aborted::of(&ended);
        self.last_mut().entries.aborted.extend(aborted);
        self.ended.push(ended);
    }

    /// Begins a new segment at `base_offset`.
    pub fn roll(&mut self, base_offset: i64, now_ms: i64, snapshot: Vec<u8>) {
        let mut tail = Tail::new(base_offset);
        tail.created_ms = Some(now_ms);
        self.parts.push(Part::new(tail, snapshot));
    }

    /// The part that the next batch goes to.
    pub fn last(&self) -> &Part {
        self.parts.last().expect("a turn begins with one part")
    }

    /// The part that the next batch goes to.
    pub fn last_mut(&mut self) -> &mut Part {
        self.parts.last_mut().expect("a turn begins with one part")
    }
}
