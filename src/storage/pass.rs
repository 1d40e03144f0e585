//! One read of all segments that reach past the recovery point, after an unclean stop.
//!
//! Owns: what the read builds up (indexes, producer state, epochs) and the bad ranges that it finds. What is built
//! stops at the first bad bytes: behind a tear nothing counts, and behind rot the log is read again once repaired.

mod markers;

use super::aborted::Aborted;
use super::append::{Entries, Tail};
use super::checkpoint::{self, EpochStart};
use super::producers::Producers;
use super::recovery::{Cut, Opened, Report, Start};
use super::reopen::{Files, Found, Place, largest_timestamp, marker};
use super::scan::{Bounds, Scanner};
use super::segment::{Extent, Segment};
use super::{old_format, repair};
use crate::batch::Header;
use crate::error::{Context, Result};
use crate::sys;
use markers::{Hole, LostMarker};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// A range of a segment's bytes in which no batch was found; an empty one at a segment's end where offsets are
/// missing before the next segment begins.
pub struct Bad {
    /// Which segment, counted from the first that is read.
    pub at: usize,
    /// Where in that segment.
    pub bytes: Range<u64>,
    /// Where in all segments that are read, one after the other.
    pub log_position: u64,
    /// The offset that the next batch should have had.
    pub offset: i64,
    /// The offset of the next good batch, wherever it lies.
    pub resumes: Option<i64>,
}

/// One read.
pub struct Pass<'p> {
    place: &'p Place<'p>,
    start: &'p Start<'p>,
    report: &'p mut Report,
    recovery_point: i64,
    found: Vec<Found>,
    closed: Vec<Extent>,
    producers: Producers,
    epochs: Vec<EpochStart>,
    saved_epochs: Vec<EpochStart>,
    snapshots: Vec<i64>,
    /// The numbers and index entries of the segment that is read, or in which the first bad bytes are.
    tail: Tail,
    entries: Entries,
    /// The bad ranges, in the log's order.
    pub bad: Vec<Bad>,
    holes: Vec<Hole>,
    /// What was aborted, by the indexes, behind the last batch of the segments before the one that is read.
    at_end: Option<Vec<Aborted>>,
    /// What ends the transactions whose markers lay in holes, in the log's order.
    pub lost_markers: Vec<LostMarker>,
    /// The end of the last good batch in all segments that are read.
    pub last_good: u64,
    /// The offset after it.
    pub end: i64,
    /// The bytes of the segments before the one that is read.
    before: u64,
    said: Instant,
}

impl<'p> Pass<'p> {
    /// Finds the segments, and takes in those that need no reading.
    pub fn begin(
        place: &'p Place<'p>,
        start: &'p Start<'p>,
        recovery_point: i64,
        report: &'p mut Report,
    ) -> Result<Pass<'p>> {
        let Files {
            segments: mut found,
            snapshots,
        } = place.find(start)?;
        let ends = found.iter().skip(1).map(|f| f.segment.base_offset());
        // One that ends at the point was still written to when that was saved: its indexes may not be durable.
        let trusted = ends.take_while(|&end| end < recovery_point).count();
        let read = found.split_off(trusted);
        let first_offset = read[0].segment.base_offset();
        let mut closed = place.closed(&found, first_offset, report)?;
        let (_, producers) = place.producers(&snapshots, &mut closed, first_offset, report)?;
        let saved_epochs = checkpoint::read_epochs(&place.dir)?;
        Ok(Pass {
            place,
            start,
            report,
            recovery_point,
            tail: Tail::new(first_offset),
            entries: Entries::default(),
            epochs: saved_epochs.clone(),
            saved_epochs,
            snapshots,
            found: read,
            closed,
            producers,
            bad: Vec::new(),
            holes: Vec::new(),
            at_end: Some(Vec::new()),
            lost_markers: Vec::new(),
            last_good: 0,
            end: first_offset,
            before: 0,
            said: Instant::now(),
        })
    }

    /// Reads every segment; writes back and syncs what lies past the recovery point.
    pub fn read_all(&mut self) -> Result<()> {
        for at in 0..self.found.len() {
            let Found { segment, bytes, .. } = self.found[at].clone();
            let file = self.place.file(&segment)?;
            let next = self.found.get(at + 1).map(|n| n.segment.base_offset());
            let bounds = Bounds {
                from: self.end,
                base: segment.base_offset(),
                to: next.unwrap_or(i64::MAX),
            };
            if self.bad.is_empty() {
                self.tail = Tail::new(bounds.base);
                self.entries = Entries::default();
            }
            self.read(at, &segment, &file, bytes, bounds)?;
            // L9, P6: through the descriptor that wrote.
            sys::sync_data(&file).context(|| format!("syncing {}", self.place.dir.display()))?;
            if let Some(next) = next {
                self.look_for_hole(at, bytes, next);
            }
            self.before += bytes;
            self.report.bytes_read += bytes;
            self.report.indexes_rebuilt += 1;
            if self.bad.is_empty()
                && let Some(next) = next
            {
                if self.end > bounds.from {
                    self.at_end = Some(Vec::new());
                }
                let more = self.aborted_in(at, &(self.end..next));
                self.at_end = self
                    .at_end
                    .take()
                    .zip(more)
                    .map(|(known, more)| [known, more].concat());
                let tail = std::mem::replace(&mut self.tail, Tail::new(self.end));
                let entries = &mut self.entries;
                let active = self.place.rebuilt_whole(&segment, tail, entries, true);
                active.stamp(self.place.shared);
                self.closed.push(active.extent());
            }
        }
        let dir = &self.place.dir;
        sys::sync_dir(dir).context(|| format!("syncing {}", dir.display()))
    }

    /// Reads one segment batch by batch.
    fn read(
        &mut self,
        at: usize,
        segment: &Segment,
        file: &File,
        size: u64,
        mut bounds: Bounds,
    ) -> Result<()> {
        let what = || format!("reading {}", segment.path(".log").display());
        let mut scanner = Scanner::new(file, size, self.recovery_point);
        let mut position = 0;
        while position < size {
            self.say_progress(position);
            let good = match scanner.batch_at(position, &bounds).context(what)? {
                Some(header) => Some((position, header)),
                None => {
                    old_format::refuse(segment, file, position, size)?;
                    let good = scanner.next_good(position, &bounds).context(what)?;
                    let end = good.map_or(size, |(place, _)| place);
                    self.add_bad(at, position..end);
                    good
                }
            };
            let Some((place, header)) = good else {
                break;
            };
            self.add_good(at, file, place, &header).context(what)?;
            position = place + header.total_bytes() as u64;
            self.last_good = self.before + position;
            bounds.from = self.end;
        }
        scanner.finish().context(what)
    }

    fn say_progress(&mut self, position: u64) {
        if self.said.elapsed() >= PROGRESS_EVERY {
            self.said = Instant::now();
            let (dir, end) = (self.place.dir.display(), self.end);
            let bytes = self.before + position;
            log::info!("{dir}: {bytes} bytes read after an unclean stop, up to offset {end}");
        }
    }

    fn add_bad(&mut self, at: usize, bytes: Range<u64>) {
        self.bad.push(Bad {
            at,
            log_position: self.before + bytes.start,
            bytes,
            offset: self.end,
            resumes: None,
        });
    }

    /// Offsets missing between two segments, with nothing bad to see. No power cut leaves that: a segment is synced
    /// before the next one begins. A disk that lies does, and compaction, an earlier gap, or a log start that was set
    /// beyond the end. What lies behind may have been acknowledged, so it is a gap and never a tear.
    fn look_for_hole(&mut self, at: usize, size: u64, next: i64) {
        // What is missing before this segment was looked at where the one before it ends.
        let base = self.found[at].segment.base_offset();
        let hole = self.end.max(base)..next;
        let is_bad_already =
            |bad: &Bad| (bad.at == at && bad.bytes.end == size) || bad.offset == hole.start;
        let is_known = |gap: &Range<i64>| gap.start <= hole.start && gap.end >= hole.end;
        let past_all_that_was_synced = self
            .start
            .recovery_point
            .is_some_and(|synced| hole.start >= synced);
        if hole.is_empty()
            || !past_all_that_was_synced
            || self.start.log_start.is_some_and(|start| hole.end <= start)
            || self.bad.last().is_some_and(is_bad_already)
            || self.report.gaps.iter().any(is_known)
        {
            return;
        }
        self.bad.push(Bad {
            at,
            bytes: size..size,
            log_position: self.before + size,
            offset: hole.start,
            resumes: Some(hole.end),
        });
    }

    fn add_good(
        &mut self,
        at: usize,
        file: &File,
        position: u64,
        header: &Header,
    ) -> io::Result<()> {
        let expected = std::mem::replace(&mut self.end, header.last_offset() + 1);
        self.report.batches_read += 1;
        for bad in &mut self.bad {
            bad.resumes.get_or_insert(header.base_offset);
        }
        if !self.bad.is_empty() {
            return Ok(());
        }
        let hole = expected..header.base_offset;
        let is_lost = self.report.gaps.iter().any(|gap| gap.end == hole.end);
        if !hole.is_empty() && (is_lost || !self.place.is_compactions(&hole, self.tail.base_offset))
        {
            self.producers.open_gap();
            self.add_hole(hole, at, position)?;
        }
        self.look_for_lost_marker(header, at)?;
        let timestamp = largest_timestamp(file, position as u32, header, self.place.decoders)?;
        let interval_bytes = self.place.settings.index_interval_bytes;
        self.tail
            .add(header, timestamp, interval_bytes, &mut self.entries);
        let marker = marker(file, position as u32, header)?;
        let ended = self.producers.replay(header, timestamp, marker);
        let aborted = ended.as_ref().and_then(Aborted::of);
        self.entries.aborted.extend(aborted);
        let epoch = header.partition_leader_epoch;
        if self.epochs.last().map_or(-1, |last| last.epoch) < epoch {
            self.epochs.push(EpochStart {
                epoch,
                start_offset: header.base_offset,
            });
        }
        Ok(())
    }

    /// Whether no segment was begun behind these bytes.
    pub fn is_in_last_segment(&self, bad: &Bad) -> bool {
        bad.at + 1 == self.found.len()
    }

    /// Cuts the log at bad range `torn`, which lies in the last segment.
    pub fn cut(&mut self, torn: usize) -> Result<()> {
        let (at, position, offset) = {
            let bad = &self.bad[torn];
            (bad.at, bad.bytes.start, bad.offset)
        };
        let segment = &self.found[at].segment;
        let file = self.place.file(segment)?;
        let never_synced = offset >= self.start.recovery_point.unwrap_or(0);
        let bytes = repair::cut(&self.place.dir, segment, &file, position, never_synced)?;
        let before = self.report.cut.map_or(0, |cut| cut.bytes);
        self.report.cut = Some(Cut {
            offset,
            bytes: before + bytes,
        });
        let dir = self.place.dir.display();
        log::warn!("{dir}: {bytes} torn bytes were cut; the log ends at offset {offset}");
        Ok(())
    }

    /// Takes the first `rot` bad ranges out of their segments.
    pub fn excise(&mut self, rot: usize) -> Result<()> {
        let dir = &self.place.dir;
        for segment_bad in self.bad[..rot].chunk_by(|a, b| a.at == b.at) {
            let segment = &self.found[segment_bad[0].at].segment;
            let ranges: Vec<Range<u64>> = segment_bad.iter().map(|b| b.bytes.clone()).collect();
            if ranges.iter().all(Range::is_empty) {
                continue;
            }
            let file = self.place.file(segment)?;
            repair::excise(dir, segment, &file, &ranges)?;
            self.place.shared.descriptors.forget(segment.serial());
        }
        for bad in &self.bad[..rot] {
            // Where no batch follows, the next segment's name still says which offsets were given out.
            let next = self.found.get(bad.at + 1);
            let next = next.map_or(bad.offset, |next| next.segment.base_offset());
            let gap = bad.offset..bad.resumes.unwrap_or(next);
            if !gap.is_empty() && !self.report.gaps.contains(&gap) {
                let path = self.found[bad.at].segment.path(".log");
                let (path, bytes) = (path.display(), &bad.bytes);
                log::error!("offsets {gap:?} are lost: {path}, bytes {bytes:?}");
                self.report.gaps.push(gap);
            }
        }
        self.report.gaps.sort_by_key(|gap| gap.start);
        Ok(())
    }

    /// What was built: up to the first bad range if the log was cut there, else all of it.
    pub fn finish(mut self) -> Opened {
        if self.tail.end_offset > self.end {
            self.producers.open_gap();
        }
        let segment = &self.found[self.found.len() - 1].segment;
        let active = self
            .place
            .rebuilt_whole(segment, self.tail, &mut self.entries, false);
        Opened {
            closed: self.closed,
            active,
            producers: self.producers,
            epochs: self.epochs,
            saved_epochs: self.saved_epochs,
            snapshots: self.snapshots,
            settled: false,
        }
    }
}
