//! Markers that lay in a hole: each is made up for, so that the end of a producer's next transaction does not decide on
//! the one before it too (P5).
//!
//! What was aborted in a hole is told by the transaction index, which a repair leaves as it is: so a start after a
//! crash within a repair finds the same. An index may be garbled or end early: of what it says only that is believed
//! which the log bears out, an open transaction of that producer that begins there.

use super::Pass;
use crate::batch::marker::Marker;
use crate::batch::{HEADER_BYTES, Header, check_stored};
use crate::error::Result;
use crate::storage::aborted::{self, Aborted};
use crate::storage::producers::Producer;
use crate::storage::repair;
use std::io;
use std::ops::Range;

/// Offsets at which no batch is, though none is bad any more.
pub(super) struct Hole {
    /// Which segment, counted from the first that is read.
    at: usize,
    /// Where in that segment.
    position: u64,
    /// The offsets that nothing has.
    offsets: Range<i64>,
    /// What was aborted there is known.
    is_indexed: bool,
}

/// A marker that is to take a lost one's place.
pub struct LostMarker {
    at: usize,
    position: u64,
    bytes: Vec<u8>,
}

impl Pass<'_> {
    /// What a segment's index says to have been aborted by markers at these offsets; nothing if it has none.
    pub(super) fn aborted_in(&self, at: usize, offsets: &Range<i64>) -> Option<Vec<Aborted>> {
        let mut found = Vec::new();
        let take = |entry: Aborted| {
            let is_there = entry.last_offset < offsets.end;
            found.extend(is_there.then_some(entry));
            !is_there
        };
        if !offsets.is_empty() {
            let segment = &self.found[at].segment;
            aborted::recall(segment, self.place.shared, offsets.start, take)?;
        }
        Some(found)
    }

    /// Takes in a hole that ends with a batch at `position` of segment `at`: one that the segment before it begins is
    /// at the end of that one. What was aborted there ends anew.
    pub(super) fn add_hole(
        &mut self,
        offsets: Range<i64>,
        at: usize,
        position: u64,
    ) -> io::Result<()> {
        let base = self.found[at].segment.base_offset();
        let before = at.checked_sub(1).filter(|_| offsets.start < base);
        let (at, position, offsets, known) = match before {
            Some(before) => {
                let offsets = offsets.start..offsets.end.min(base);
                (
                    before,
                    self.found[before].bytes,
                    offsets,
                    self.at_end.take(),
                )
            }
            None => (at, position, offsets.clone(), self.aborted_in(at, &offsets)),
        };
        self.holes.push(Hole {
            at,
            position,
            offsets,
            is_indexed: known.is_some(),
        });
        for entry in known.unwrap_or_default() {
            let open = self.producers.get(entry.producer_id);
            let is_it = |start| (entry.first_offset..entry.last_offset).contains(&start);
            if open.is_some_and(|open| is_it(open.transaction_start)) {
                let hole = self.holes.len() - 1;
                let offset = entry.last_offset.max(self.room_in(&self.holes[hole]));
                self.end_anew(hole, offset, entry.producer_id, false)?;
            }
        }
        Ok(())
    }

    /// P5: a transaction in the middle of which its producer begins the next one has lost its marker to a hole. It
    /// ends there as its coordinator says, else it is aborted: the end of a later one must not make it count. That
    /// another begins shows by the epoch, or by the index, if the next one was aborted too.
    pub(super) fn look_for_lost_marker(&mut self, header: &Header, at: usize) -> io::Result<()> {
        let id = header.producer_id;
        let is_open = |open: &&Producer| open.transaction_start >= 0;
        let Some(open) = self.producers.get(id).filter(is_open) else {
            return Ok(());
        };
        let (epoch, last_offset) = (open.epoch, open.last_offset);
        let has_room =
            |hole: &Hole| (last_offset + 1..hole.offsets.end).contains(&self.room_in(hole));
        // Holes rise: most batches have none since their producer's last.
        let newest = self.holes.last();
        if newest.is_none_or(|hole| hole.offsets.end <= last_offset) {
            return Ok(());
        }
        let Some(hole) = self.holes.iter().position(has_room) else {
            return Ok(());
        };
        let commit = if header.producer_epoch > epoch && !header.is_control() {
            (self.start.outcome)(id, epoch).unwrap_or(false)
        } else if self.begins_behind(last_offset, header, at) {
            // Had it been aborted, the index would tell that as well.
            self.holes[hole].is_indexed
        } else {
            return Ok(());
        };
        self.end_anew(hole, self.room_in(&self.holes[hole]), id, commit)
    }

    /// The first offset in a hole at which its segment may have a batch.
    fn room_in(&self, hole: &Hole) -> i64 {
        let base = self.found[hole.at].segment.base_offset();
        hole.offsets.start.max(base)
    }

    /// Whether the index tells of a transaction that has this batch, of segment `at`, or ends with it, and begins
    /// behind `offset`.
    fn begins_behind(&self, offset: i64, header: &Header, at: usize) -> bool {
        let is_it = |entry: Aborted| {
            let begins = offset + 1..=header.base_offset;
            entry.producer_id == header.producer_id && begins.contains(&entry.first_offset)
        };
        self.found[at..].iter().any(|found| {
            let from = header.base_offset;
            aborted::recall(&found.segment, self.place.shared, from, is_it) == Some(true)
        })
    }

    /// Ends a producer's open transaction by a marker at an offset of a hole, all before which is not used any more.
    fn end_anew(&mut self, hole: usize, offset: i64, id: i64, commit: bool) -> io::Result<()> {
        let has_room = offset < self.holes[hole].offsets.end;
        let Some(open) = self.producers.get(id).filter(|_| has_room) else {
            return Ok(());
        };
        let dir = self.place.dir.display();
        log::error!(
            "{dir}: offset {offset}: the marker of producer {id} is lost, and written anew; commit: {commit}"
        );
        let bytes = Marker::in_place_of_lost(commit, id, open.epoch, open.timestamp, offset);
        let header = check_stored(&bytes).map_err(|_| io::ErrorKind::InvalidData)?;
        let marker = Marker::read(&header, &bytes[HEADER_BYTES..]);
        self.producers.replay(&header, header.max_timestamp, marker);
        let hole = &mut self.holes[hole];
        hole.offsets.start = offset + 1;
        self.lost_markers.push(LostMarker {
            at: hole.at,
            position: hole.position,
            bytes,
        });
        Ok(())
    }

    /// Writes the markers that are to take lost ones' places.
    pub fn put_markers(&mut self) -> Result<()> {
        self.lost_markers
            .sort_by_key(|lost| (lost.at, lost.position));
        for of_segment in self.lost_markers.chunk_by(|a, b| a.at == b.at) {
            let segment = &self.found[of_segment[0].at].segment;
            let file = self.place.file(segment)?;
            let change = |lost: &LostMarker| (lost.position..lost.position, lost.bytes.clone());
            let changes: Vec<_> = of_segment.iter().map(change).collect();
            repair::change(&self.place.dir, segment, &file, &changes)?;
            self.place.shared.descriptors.forget(segment.serial());
        }
        Ok(())
    }
}
