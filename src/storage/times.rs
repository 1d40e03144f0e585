//! ListOffsets by timestamp: the one place where a reader opens a batch.
//!
//! The time index gives a batch before which every record is older than what is sought; from there headers are walked,
//! and only a batch that may hold the record is opened. A header's max timestamp is the producer's word: where it lies
//! before the base timestamp it was never set (Sarama), and the batch is opened to see. Its memory is taken from a
//! budget before it is read (P7). Results are exact to the record, never below the log start, never at or beyond the
//! end asked for.

use super::Shared;
use super::descriptors::Kind;
use super::index::{self, TimeEntry};
use super::segment::Extent;
use super::view::{Hint, Place, ReadError, View};
use crate::batch::{HEADER_BYTES, Header, NO_TIMESTAMP, records};
use crate::compress::{Decoders, Failure};
use crate::sys;
use std::fs::File;
use std::io::{self, ErrorKind};

/// A record, found by its timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampOffset {
    /// Its timestamp, ms.
    pub timestamp: i64,
    /// Its offset.
    pub offset: i64,
    /// The leader epoch of its batch.
    pub leader_epoch: i32,
}

impl View {
    /// The first record before offset `end` whose timestamp is at least `timestamp` (ms).
    pub fn offset_for_timestamp(
        &self,
        shared: &Shared,
        decoders: &Decoders,
        timestamp: i64,
        end: i64,
    ) -> Result<Option<TimestampOffset>, ReadError> {
        let end = end.min(self.high_watermark);
        for at in self.extent_of(self.log_start)..=self.closed.len() {
            let candidate = |e: &&Extent| e.bytes > 0 && e.max_timestamp >= timestamp;
            let Some(extent) = self.extent(at).filter(candidate) else {
                continue;
            };
            if extent.base_offset() >= end {
                break;
            }
            let file = extent.segment.log(shared)?;
            let start = extent.floor(shared, &file, self.log_start)?;
            let mut from = start.max(time_floor(extent, shared, &file, timestamp)?);
            let wanted = |h: &Header| h.last_offset() >= self.log_start && may_hold(h, timestamp);
            while let Some((position, header)) = extent.walk(&file, from, wanted)? {
                let _memory = decoders.admit_batch(header.body_bytes()).map_err(corrupt)?;
                let body = body(&file, position, &header)?;
                let place =
                    records::first_at_or_after(&header, &body, decoders, self.log_start, timestamp)
                        .map_err(corrupt)?;
                if let Some(place) = place.filter(|p| p.offset < end) {
                    return Ok(Some(TimestampOffset {
                        timestamp: place.timestamp,
                        offset: place.offset,
                        leader_epoch: header.partition_leader_epoch,
                    }));
                }
                if header.last_offset() >= end {
                    return Ok(None);
                }
                from = position + header.total_bytes() as u32;
            }
        }
        Ok(None)
    }

    /// The first record with the largest timestamp (ListOffsets' -3), if any record has a timestamp.
    pub fn max_timestamp(
        &self,
        shared: &Shared,
        decoders: &Decoders,
    ) -> Result<Option<TimestampOffset>, ReadError> {
        let mut best = (-1, -1);
        for at in self.extent_of(self.log_start)..=self.closed.len() {
            if let Some(extent) = self.extent(at) {
                let (timestamp, offset) = self.max_of_extent(at, extent, shared, decoders)?;
                if timestamp > best.0 {
                    best = (timestamp, offset);
                }
            }
        }
        if best.0 < 0 {
            return Ok(None);
        }
        match self.locate(shared, best.1, Hint::default())? {
            Some(place) => self.max_of_batch(&place, decoders),
            None => Ok(None),
        }
    }

    /// The first record of a batch, at or behind the log start, with the largest timestamp of those.
    fn max_of_batch(
        &self,
        place: &Place,
        decoders: &Decoders,
    ) -> Result<Option<TimestampOffset>, ReadError> {
        let header = &place.header;
        let _memory = decoders.admit_batch(header.body_bytes()).map_err(corrupt)?;
        let body = body(&place.file, place.position, header)?;
        let max = records::max_timestamp(header, &body, decoders, self.log_start);
        Ok(max.map_err(corrupt)?.map(|max| TimestampOffset {
            timestamp: max.timestamp,
            offset: max.offset,
            leader_epoch: header.partition_leader_epoch,
        }))
    }

    /// The largest timestamp of the visible part of extent `at`, and an offset in the first batch that has it.
    fn max_of_extent(
        &self,
        at: usize,
        extent: &Extent,
        shared: &Shared,
        decoders: &Decoders,
    ) -> Result<(i64, i64), ReadError> {
        let known = if extent.max_timestamp_offset < self.high_watermark {
            (extent.max_timestamp, extent.max_timestamp_offset)
        } else if self.high.segment == extent.segment.serial() {
            (self.high.max_timestamp, self.high.max_timestamp_offset)
        } else {
            (-1, -1)
        };
        let is_begun = extent.base_offset() < self.log_start && self.log_start < extent.end_offset;
        if known.0 < 0 || extent.bytes == 0 || !is_begun {
            return Ok(known);
        }
        // The log start may lie behind the batch that the extent knows of, or within it.
        match self.locate(shared, self.log_start, Hint::default())? {
            Some(first) if first.at == at && known.1 <= first.header.last_offset() => {
                self.max_after_start(extent, &first, decoders)
            }
            Some(first) if first.at == at => Ok(known),
            _ => Ok((-1, -1)),
        }
    }

    /// The same where DeleteRecords passed the batch that the extent knows of, or some of it; `first` is the batch that
    /// holds the log start.
    fn max_after_start(
        &self,
        extent: &Extent,
        first: &Place,
        decoders: &Decoders,
    ) -> Result<(i64, i64), ReadError> {
        let (mut best, mut from) = ((-1, -1), first.position);
        if first.header.base_offset < self.log_start {
            let max = self.max_of_batch(first, decoders)?;
            best = max.map_or(best, |max| (max.timestamp, max.offset));
            from += first.header.total_bytes() as u32;
        }
        extent.walk(&first.file, from, |h| {
            let visible = h.last_offset() < self.high_watermark;
            // A base that is a delete horizon is no record's time.
            let base = match h.delete_horizon_ms() {
                None => h.base_timestamp,
                Some(_) => NO_TIMESTAMP,
            };
            let timestamp = h.max_timestamp.max(base);
            if visible && h.records_count > 0 && timestamp > best.0 {
                best = (timestamp, h.last_offset());
            }
            false
        })?;
        Ok(best)
    }
}

/// Whether a batch may have a record at or after `timestamp`.
pub fn may_hold(header: &Header, timestamp: i64) -> bool {
    header.max_timestamp >= timestamp || header.max_timestamp < header.base_timestamp
}

/// Where to begin a walk to the first record at or after `timestamp`: at the batch that the time index names, if the
/// log agrees with it, else at the segment's beginning.
fn time_floor(
    extent: &Extent,
    shared: &Shared,
    file: &File,
    timestamp: i64,
) -> Result<u32, ReadError> {
    if extent.time_count == 0 {
        return Ok(0);
    }
    let Some(times) = extent.segment.index_to_read(shared, Kind::TimeIndex)? else {
        return Ok(0);
    };
    let before = |e: &TimeEntry| e.timestamp <= timestamp;
    let Some((_, entry)) = index::last_before(&times, extent.time_count, 0.5, before)? else {
        return Ok(0);
    };
    let offset = extent.base_offset() + i64::from(entry.relative_offset);
    let from = extent.floor(shared, file, offset)?;
    let found = extent.walk(file, from, |h| h.last_offset() >= offset)?;
    let agrees = |h: &Header| {
        h.base_offset <= offset
            && (h.max_timestamp == entry.timestamp || h.max_timestamp < h.base_timestamp)
    };
    Ok(match found {
        Some((position, header)) if agrees(&header) => position,
        _ => 0,
    })
}

/// The records of the batch at `position`, as stored.
pub fn body(file: &File, position: u32, header: &Header) -> io::Result<Vec<u8>> {
    let mut body = vec![0; header.body_bytes()];
    let read = sys::read_at(file, &mut body, u64::from(position) + HEADER_BYTES as u64)?;
    match read == body.len() {
        true => Ok(body),
        false => Err(ErrorKind::UnexpectedEof.into()),
    }
}

fn corrupt(failure: Failure) -> ReadError {
    ReadError::Io(io::Error::new(ErrorKind::InvalidData, failure.to_string()))
}
