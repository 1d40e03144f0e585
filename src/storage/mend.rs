//! A sealed segment written anew, without what the disk has garbled: the prepared half of a repair while the broker
//! runs (P4, P5). The writer puts it in place as it does with compaction's.
//!
//! Invariants: the bad bytes are kept as `.quarantine`, synced, before there is anything that lacks them; what is
//! copied is checked once more on its way; a batch keeps its bytes and its offsets. An index alone that is wrong is no
//! other case: nothing is left out then. Of a transaction that was aborted here and whose marker is lost, a new marker
//! takes the lost one's place: who reads on would take what the same producer commits later for aborted, too.

use super::Shared;
use super::aborted::{self, Aborted};
use super::audit::{Audit, Finding, Kind};
use super::compaction::{Failed, Output, Pace, damaged};
use super::log::Rewrite;
use super::reopen::largest_timestamp;
use super::repair;
use super::segment::{Extent, header_at};
use crate::batch::marker::Marker;
use crate::batch::{self, HEADER_BYTES, check_stored};
use crate::compress::Decoders;
use crate::error::{Context, Error, Result};
use crate::sys;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// What is read and written at once, bytes.
const PIECE_BYTES: usize = 256 << 10;

/// A sealed segment to be mended.
pub struct Mend<'a> {
    /// The segment, as a view of its log shows it.
    pub extent: &'a Extent,
    /// What is wrong with it.
    pub findings: &'a [Finding],
    /// The look that found it, which ended with this segment.
    pub audit: &'a Audit,
    /// What all storage shares.
    pub shared: &'a Shared,
    /// Opens batches.
    pub decoders: &'a Decoders,
    /// A new index entry follows each time after more than these bytes.
    pub index_interval_bytes: u32,
}

impl Mend<'_> {
    /// Keeps the bad bytes, and prepares what is to take the segment's place.
    pub fn prepare(&self, dir: &Arc<Path>, pace: Pace<'_>) -> Result<Rewrite, Failed> {
        let extent = self.extent;
        let file = extent.segment.log(self.shared);
        let file = file.map_err(|e| super::compaction::unread(extent, e))?;
        let aborted = self.aborted()?;
        let lost: Vec<_> = self.findings.iter().filter_map(lost).collect();
        for (bytes, _) in &lost {
            repair::keep_rotten(dir, &extent.segment, &file, bytes.clone())?;
        }
        let base = extent.base_offset();
        let mut output = Output::create(dir, base, self.index_interval_bytes)?;
        let mut good = 0;
        for (bytes, offsets) in lost {
            self.copy(&file, good..bytes.start, &mut output, pace)?;
            for entry in aborted.iter().filter(|e| offsets.contains(&e.last_offset)) {
                self.add_marker(entry, &mut output, pace)?;
            }
            good = bytes.end;
        }
        self.copy(&file, good..u64::from(extent.bytes), &mut output, pace)?;
        let sources = vec![extent.segment.serial()];
        let replacement = output.finish(sources, aborted, extent.last_append_ms)?;
        Ok(Rewrite::open(dir, replacement)?)
    }

    /// What was aborted: as the index says, if that is right.
    fn aborted(&self) -> Result<Vec<Aborted>> {
        let path = self.extent.segment.path(".txnindex");
        let is_found = self.findings.iter().any(|f| f.path == path);
        let from_file = || -> std::io::Result<Option<Vec<Aborted>>> {
            let kind = super::descriptors::Kind::TransactionIndex;
            let file = self.extent.segment.index_to_read(self.shared, kind)?;
            let is_plausible = aborted::count(self.extent, self.shared)?.is_some();
            let file = file.filter(|_| is_plausible);
            file.map(|file| aborted::read(&file, self.extent.aborted_count))
                .transpose()
        };
        let entries = from_file().context(|| format!("reading {}", path.display()))?;
        let entries = entries.filter(|_| !is_found).map(|mut entries| {
            entries.extend(self.extent.aborted.iter().copied());
            entries
        });
        Ok(entries.unwrap_or_else(|| self.audit.replayed.clone()))
    }

    /// Copies batches, and checks each.
    fn copy(
        &self,
        file: &File,
        bytes: Range<u64>,
        output: &mut Output,
        pace: Pace<'_>,
    ) -> Result<(), Failed> {
        let what = || format!("reading {}", self.extent.segment.path(".log").display());
        let mut position = bytes.start as u32;
        let mut buffer = vec![0; PIECE_BYTES];
        while u64::from(position) < bytes.end {
            let header = header_at(file, position, bytes.end as u32).context(what)?;
            let header = header.ok_or_else(|| damaged(self.extent, position, "it is gone"))?;
            let timestamp = largest_timestamp(file, position, &header, self.decoders);
            output.count(&header, timestamp.context(what)?);
            let mut crc = batch::crc_of_head(&header.encode());
            let (mut at, mut left) = (u64::from(position), header.total_bytes());
            let mut skip = HEADER_BYTES;
            while left > 0 {
                let count = left.min(PIECE_BYTES);
                let piece = &mut buffer[..count];
                let read = sys::read_at(file, piece, at).context(what)?;
                if read < count {
                    return Err(damaged(self.extent, position, "its bytes end early"));
                }
                crc = crc32c::crc32c_append(crc, &piece[skip..]);
                output.write(piece, pace)?;
                pace(count as u64)?;
                (skip, at, left) = (0, at + count as u64, left - count);
            }
            if crc != header.crc {
                return Err(damaged(self.extent, position, "its CRC is wrong"));
            }
            position += header.total_bytes() as u32;
        }
        Ok(())
    }

    /// A marker in the place of the one that is lost, if it can be told in which epoch.
    fn add_marker(
        &self,
        entry: &Aborted,
        output: &mut Output,
        pace: Pace<'_>,
    ) -> Result<(), Failed> {
        let id = entry.producer_id;
        let timestamp = self.extent.max_timestamp;
        let Some(epoch) = self.audit.epoch_of(id) else {
            return Ok(());
        };
        let bytes = Marker::in_place_of_lost(false, id, epoch, timestamp, entry.last_offset);
        let header = check_stored(&bytes).map_err(|bad| Error::new(format!("{bad:?}")))?;
        output.add(&header, timestamp, &bytes, pace)
    }
}

/// The bytes and the offsets that are lost, if any are.
fn lost(finding: &Finding) -> Option<(Range<u64>, Range<i64>)> {
    match &finding.kind {
        Kind::Batches(offsets) => Some((finding.bytes.clone(), offsets.clone())),
        _ => None,
    }
}

#[cfg(test)]
#[path = "mend_tests.rs"]
mod tests;
