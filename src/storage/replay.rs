//! What the batches of segments that are already there leave in memory, without a read of all of them: producer state
//! from a snapshot and the batches behind it, and the transaction indexes.
//!
//! Invariant: what is replayed is what appending had made; a hole that compaction left is no gap.

use super::aborted::{self, Aborted};
use super::descriptors::Kind;
use super::producers::Producers;
use super::recovery::Report;
use super::reopen::{Place, marker};
use super::segment::{Extent, header_at};
use super::snapshot;
use super::view::ReadError;
use crate::error::{Context, Error, Result};
use std::ops::Range;

impl Place<'_> {
    /// Whether compaction left a hole before a batch of the segment at `base`. It leaves none between segments, and
    /// each producer's last batch, so behind such a hole no sequence is unknown.
    pub fn is_compactions(&self, hole: &Range<i64>, base: i64) -> bool {
        self.settings.compacted && hole.start >= base
    }

    /// The producer state at `end`, which the extents lead up to: a snapshot, whose offset is given too, and the
    /// batches since. A gap between them counts (P5), but not compaction's. Missing transaction indexes are made.
    pub fn producers(
        &self,
        snapshots: &[i64],
        extents: &mut [Extent],
        end: i64,
        report: &mut Report,
    ) -> Result<(i64, Producers)> {
        let lacking = self.count_aborted(extents)?;
        let first = lacking.first().map(|&at| extents[at].base_offset());
        let before = first.map_or(end, |first| first.min(end));
        let limit = &self.shared.producers;
        let (from, mut producers) = snapshot::load(&self.dir, snapshots, before, limit)?;
        let mut expected = from;
        for (at, extent) in extents.iter_mut().enumerate() {
            let mut aborted = Vec::new();
            if extent.bytes > 0 && extent.end_offset > from {
                self.replay(
                    extent,
                    from..end,
                    &mut expected,
                    &mut producers,
                    &mut aborted,
                )?;
            }
            if lacking.contains(&at) {
                report.indexes_rebuilt += 1;
                self.write_aborted(extent, aborted);
            }
        }
        if expected < end {
            producers.open_gap();
        }
        Ok((from, producers))
    }

    /// Takes in the batches of a segment within `offsets`.
    fn replay(
        &self,
        extent: &Extent,
        offsets: Range<i64>,
        expected: &mut i64,
        producers: &mut Producers,
        aborted: &mut Vec<Aborted>,
    ) -> Result<()> {
        let what = || format!("reading {}", extent.segment.path(".log").display());
        let file = self.file(&extent.segment)?;
        let mut position = match extent.floor(self.shared, &file, offsets.start) {
            Err(ReadError::Io(e)) => return Err(e).context(what),
            floor => floor.map_err(|e| Error::new(format!("{}: {e}", what())))?,
        };
        while position < extent.bytes {
            let header = header_at(&file, position, extent.bytes).context(what)?;
            let Some(header) = header else {
                // Where a walk ends early, so does what is known.
                log::error!("{}: bad at byte {position}", what());
                break;
            };
            if offsets.contains(&header.base_offset) {
                let hole = *expected..header.base_offset;
                if !hole.is_empty() && !self.is_compactions(&hole, extent.base_offset()) {
                    producers.open_gap();
                }
                let marker = marker(&file, position, &header).context(what)?;
                let ended = producers.replay(&header, header.max_timestamp, marker);
                aborted.extend(ended.as_ref().and_then(Aborted::of));
                *expected = header.last_offset() + 1;
            }
            position += header.total_bytes() as u32;
        }
        Ok(())
    }

    /// Counts the entries of the transaction indexes; gives the segments that have none that can be believed.
    fn count_aborted(&self, extents: &mut [Extent]) -> Result<Vec<usize>> {
        let mut lacking = Vec::new();
        for (at, extent) in extents.iter_mut().enumerate() {
            let path = extent.segment.path(".txnindex");
            let count = aborted::count(extent, self.shared);
            match count.context(|| format!("reading {}", path.display()))? {
                Some(count) => extent.aborted_count = count,
                None => lacking.push(at),
            }
        }
        Ok(lacking)
    }

    /// Makes a transaction index, for the next start believes one that is there once a recovery point passes the
    /// segment. A full disk must not keep a broker from starting: then it stays in memory.
    pub(super) fn write_aborted(&self, extent: &mut Extent, entries: Vec<Aborted>) {
        let (segment, kind) = (&extent.segment, Kind::TransactionIndex);
        match segment.make_index(self.shared, kind, &entries) {
            Ok(()) => extent.aborted_count = entries.len() as u32,
            Err(e) => {
                log::warn!("rebuilding {}: {e}", segment.path(".txnindex").display());
                segment.discard_indexes(self.shared, &[kind]);
                extent.aborted = entries.into();
            }
        }
    }
}
