//! The opening of segments whose sizes are trusted: all of them after a clean stop, and those before the recovery
//! point after any.
//!
//! Owns: the check of indexes against the log, and their rebuilding from batch headers.
//! No record is read, but for a batch whose header does not tell its largest timestamp.

use super::active::Active;
use super::append::{Entries, Tail};
use super::checkpoint;
use super::descriptors::Kind;
use super::index::{self, Entry, OffsetEntry, TimeEntry};
use super::recovery::{Opened, Report, Start};
use super::retention::last_append_ms;
use super::scan::{Bounds, Scanner};
use super::segment::{Extent, Segment, header_at};
use super::{LogSettings, Shared, old_format, repair, times};
use crate::batch::marker::Marker;
use crate::batch::{Header, records};
use crate::compress::Decoders;
use crate::error::{Context, Error, Result};
use crate::sys;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

/// Where recovery works, and with what.
pub struct Place<'a> {
    /// The partition's directory.
    pub dir: Arc<Path>,
    /// What all storage shares.
    pub shared: &'a Arc<Shared>,
    /// The log's settings.
    pub settings: &'a LogSettings,
    /// Opens batches.
    pub decoders: &'a Decoders,
    /// Broker time, ms.
    pub time_ms: i64,
}

/// A segment file that is there.
#[derive(Clone)]
pub struct Found {
    /// The segment.
    pub segment: Arc<Segment>,
    /// The file's length.
    pub bytes: u64,
    /// The broker time of its last append, as far as the file tells, ms.
    pub last_append_ms: i64,
}

/// What a directory holds.
pub struct Files {
    /// The segments, ascending; at least one.
    pub segments: Vec<Found>,
    /// The offsets of the producer snapshots, ascending.
    pub snapshots: Vec<i64>,
}

/// What a segment's index files hold, as far as it agrees with the log.
struct Indexes {
    offsets: u32,
    last_offset: OffsetEntry,
    times: u32,
    last_time: Option<TimeEntry>,
}

impl Place<'_> {
    /// What is there; a segment is made if there is none.
    pub fn find(&self, start: &Start<'_>) -> Result<Files> {
        let mut found = Vec::new();
        let names = repair::tidy(&self.dir)?;
        for base_offset in names.bases {
            let (segment, file) = Segment::open(&self.dir, base_offset, ".log")?;
            let path = segment.path(".log");
            let metadata = file
                .metadata()
                .context(|| format!("opening {}", path.display()))?;
            let bytes = metadata.len();
            if bytes > i32::MAX as u64 {
                let path = path.display();
                return Err(Error::new(format!("{path}: a segment of {bytes} bytes")));
            }
            let seconds_ms = metadata.mtime().saturating_mul(1000);
            let modified_ms = seconds_ms.saturating_add(metadata.mtime_nsec() / 1_000_000);
            let last_append_ms = last_append_ms(modified_ms, self.time_ms);
            // Once: a box that is started often would else begin to count anew each time.
            if last_append_ms != modified_ms
                && let Err(e) = sys::set_modified(&file, last_append_ms)
            {
                log::warn!("{}: {e}; it may be kept longer", path.display());
            }
            self.keep(&segment, file);
            found.push(Found {
                segment: Arc::new(segment),
                bytes,
                last_append_ms,
            });
        }
        if found.is_empty() {
            let (segment, file) = repair::make(&self.dir, start.log_start.unwrap_or(0))?;
            self.keep(&segment, file);
            let segment = Arc::new(segment);
            found.push(Found {
                segment,
                bytes: 0,
                last_append_ms: self.time_ms,
            });
        }
        Ok(Files {
            segments: found,
            snapshots: names.snapshots,
        })
    }

    fn keep(&self, segment: &Segment, file: File) {
        let descriptors = &self.shared.descriptors;
        descriptors.put(segment.serial(), Kind::Log, Arc::new(file));
    }

    /// Whether every batch that would be trusted unread is whole.
    pub fn is_sound(&self, start: &Start<'_>) -> Result<bool> {
        let found = self.find(start)?.segments;
        let ends = found.iter().skip(1).map(|next| next.segment.base_offset());
        let ends = ends.chain([i64::MAX]);
        let trusted_to = match start.clean {
            true => i64::MAX,
            false => start.recovery_point.unwrap_or(0),
        };
        for (Found { segment, bytes, .. }, end) in found.iter().zip(ends) {
            let what = || format!("reading {}", segment.path(".log").display());
            let is_sound = end > trusted_to
                || whole(&*self.file(segment)?, *bytes, segment.base_offset(), end)
                    .context(what)?;
            // They are found again, under other numbers.
            self.shared.descriptors.forget(segment.serial());
            if !is_sound {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A segment's file.
    pub fn file(&self, segment: &Segment) -> Result<Arc<File>> {
        let file = segment.log(self.shared);
        file.map_err(|e| Error::new(format!("opening {}: {e}", segment.path(".log").display())))
    }

    /// The extents of trusted segments, the last of which ends at `end`.
    pub fn closed(&self, found: &[Found], end: i64, report: &mut Report) -> Result<Vec<Extent>> {
        let mut closed = Vec::with_capacity(found.len());
        for (
            i,
            Found {
                segment,
                bytes,
                last_append_ms,
            },
        ) in found.iter().enumerate()
        {
            let what = || format!("opening {}", segment.path(".log").display());
            let next = found.get(i + 1);
            let mut extent =
                Active::new(segment.clone(), Tail::new(segment.base_offset())).extent();
            extent.bytes = *bytes as u32;
            extent.end_offset = next.map_or(end, |n| n.segment.base_offset());
            let file = self.file(segment)?;
            match self.indexes(&extent, &file) {
                Some(indexes) => {
                    extent.index_count = indexes.offsets;
                    extent.last_index = indexes.last_offset;
                    extent.time_count = indexes.times;
                    if let Some(last) = indexes.last_time {
                        let offset = extent.base_offset() + i64::from(last.relative_offset);
                        extent.max_timestamp = last.timestamp;
                        extent.max_timestamp_offset = offset;
                    }
                }
                None => {
                    report.indexes_rebuilt += 1;
                    let mut entries = Entries::default();
                    let mut tail = Tail::new(segment.base_offset());
                    if !self
                        .grow(&mut tail, &extent, &file, &mut entries)
                        .context(what)?
                    {
                        let at = u64::from(tail.bytes);
                        old_format::refuse(segment, &file, at, *bytes)?;
                        log::error!("{}: bad at byte {at}", what());
                    }
                    let active = self.rebuilt(segment, tail, &mut entries, true);
                    extent = Extent {
                        bytes: extent.bytes,
                        end_offset: extent.end_offset,
                        ..active.extent()
                    };
                }
            }
            extent.last_append_ms = Some(*last_append_ms);
            closed.push(extent);
        }
        Ok(closed)
    }

    /// What a segment's index files hold; nothing if they are missing, contradict the log, or cannot be read, or made
    /// on a full disk: they are hints (P9).
    fn indexes(&self, extent: &Extent, file: &File) -> Option<Indexes> {
        self.read_indexes(extent, file).unwrap_or_else(|error| {
            let path = extent.segment.path(".index");
            log::warn!("{}: {error}; it is made anew", path.display());
            None
        })
    }

    fn read_indexes(&self, extent: &Extent, file: &File) -> io::Result<Option<Indexes>> {
        let mut indexes = Indexes {
            offsets: 0,
            last_offset: OffsetEntry::default(),
            times: 0,
            last_time: None,
        };
        if extent.bytes == 0 {
            return Ok(Some(indexes));
        }
        let segment = &extent.segment;
        let offsets = segment.index(self.shared, Kind::Index)?;
        let times = segment.index(self.shared, Kind::TimeIndex)?;
        let counts = (
            index::count::<OffsetEntry>(&offsets)?,
            index::count::<TimeEntry>(&times)?,
        );
        let (Some(offset_count), Some(time_count)) = counts else {
            return Ok(None);
        };
        // A segment of more than one interval has an entry, and batches have timestamps: nothing there means lost.
        let long = extent.bytes > self.settings.index_interval_bytes;
        if (offset_count == 0 && long) || time_count == 0 {
            return Ok(None);
        }
        let range = extent.relative(extent.end_offset);
        if offset_count > 0 {
            let last = index::entry::<OffsetEntry>(&offsets, offset_count - 1)?;
            match last.filter(|e| !e.is_blank() && e.relative_offset < range) {
                Some(last) if extent.holds(file, &last)? => indexes.last_offset = last,
                _ => return Ok(None),
            }
        }
        indexes.last_time = index::entry::<TimeEntry>(&times, time_count - 1)?;
        if indexes.last_time.is_none_or(|e| e.relative_offset >= range) {
            return Ok(None);
        }
        indexes.offsets = offset_count;
        indexes.times = time_count;
        index::trim::<OffsetEntry>(&offsets, offset_count)?;
        index::trim::<TimeEntry>(&times, time_count)?;
        Ok(Some(indexes))
    }

    /// Walks batch headers from where `tail` ends to the extent's end. Whether they lead there exactly.
    fn grow(
        &self,
        tail: &mut Tail,
        extent: &Extent,
        file: &File,
        entries: &mut Entries,
    ) -> io::Result<bool> {
        while tail.bytes < extent.bytes {
            let Some(header) = header_at(file, tail.bytes, extent.bytes)? else {
                return Ok(false);
            };
            let fits = header.last_offset() - tail.base_offset <= i64::from(i32::MAX);
            if header.base_offset < tail.end_offset || !fits {
                return Ok(false);
            }
            let timestamp = largest_timestamp(file, tail.bytes, &header, self.decoders)?;
            tail.add(
                &header,
                timestamp,
                self.settings.index_interval_bytes,
                entries,
            );
        }
        Ok(true)
    }

    /// A segment whose indexes are made anew; its last append counts as now. A full disk must not keep a broker from
    /// starting: what cannot be written is not counted, and searches do without. Those of a sealed one the next start
    /// believes; the active one's are synced when it is sealed.
    pub fn rebuilt(
        &self,
        segment: &Arc<Segment>,
        mut tail: Tail,
        entries: &mut Entries,
        sealed: bool,
    ) -> Active {
        if sealed {
            tail.add_time(entries);
        }
        tail.last_append_ms = Some(self.time_ms);
        let mut active = Active::new(segment.clone(), tail);
        active.pending = std::mem::take(entries);
        let mut rewrite = || -> io::Result<()> {
            if sealed {
                return active.make_indexes(self.shared);
            }
            index::trim::<OffsetEntry>(&*segment.index(self.shared, Kind::Index)?, 0)?;
            index::trim::<TimeEntry>(&*segment.index(self.shared, Kind::TimeIndex)?, 0)?;
            active.flush_indexes(self.shared)
        };
        if let Err(e) = rewrite() {
            log::warn!("rebuilding {}: {e}", segment.path(".index").display());
        }
        active
    }

    /// The same where every batch was read: its transaction index is made anew too.
    pub fn rebuilt_whole(
        &self,
        segment: &Arc<Segment>,
        tail: Tail,
        entries: &mut Entries,
        sealed: bool,
    ) -> Active {
        let aborted = std::mem::take(&mut entries.aborted);
        let mut active = self.rebuilt(segment, tail, entries, sealed);
        let mut extent = active.extent();
        self.write_aborted(&mut extent, aborted);
        active.adopt_aborted(&extent);
        active
    }
}

/// Whether a segment's file, of offsets from `base` to `end`, is batches from its beginning to its end.
fn whole(file: &File, bytes: u64, base: i64, end: i64) -> io::Result<bool> {
    let mut bounds = Bounds {
        from: base,
        base,
        to: end,
    };
    let mut scanner = Scanner::new(file, bytes, i64::MAX);
    let mut position = 0;
    while position < bytes {
        let Some(header) = scanner.batch_at(position, &bounds)? else {
            return Ok(false);
        };
        bounds.from = header.last_offset() + 1;
        position += header.total_bytes() as u64;
    }
    Ok(true)
}

/// Opens a log after a clean stop; nothing if it is not as a clean stop leaves it.
pub(super) fn clean(
    place: &Place<'_>,
    start: &Start<'_>,
    report: &mut Report,
) -> Result<Option<Opened>> {
    let Files {
        mut segments,
        snapshots,
    } = place.find(start)?;
    let last = segments.pop().expect("there is at least one segment");
    let mut closed = place.closed(&segments, last.segment.base_offset(), report)?;
    let path = last.segment.path(".log");
    let active = active(place, &last, report).context(|| format!("opening {}", path.display()))?;
    let Some(mut active) = active else {
        log::warn!(
            "{}: not as a clean stop leaves it; it is read in full",
            path.display()
        );
        return Ok(None);
    };
    let end = active.tail.end_offset;
    if start.recovery_point.is_some_and(|synced| end < synced) {
        return Ok(None);
    }
    closed.push(active.extent());
    let (from, producers) = place.producers(&snapshots, &mut closed, end, report)?;
    if let Some(extent) = closed.pop() {
        active.adopt_aborted(&extent);
    }
    let epochs = checkpoint::read_epochs(&place.dir)?;
    Ok(Some(Opened {
        settled: *report == Report::default() && from == end && snapshots.last() == Some(&end),
        closed,
        active,
        producers,
        saved_epochs: epochs.clone(),
        epochs,
        snapshots,
    }))
}

/// The last segment, if its batches end where the file does.
fn active(place: &Place<'_>, found: &Found, report: &mut Report) -> io::Result<Option<Active>> {
    let segment = &found.segment;
    let file = segment.log(place.shared).map_err(io::Error::other)?;
    let mut whole = Active::new(segment.clone(), Tail::new(segment.base_offset())).extent();
    whole.bytes = found.bytes as u32;
    whole.end_offset = i64::MAX;
    let mut tail = Tail::new(segment.base_offset());
    let mut entries = Entries::default();
    let indexes = place.indexes(&whole, &file);
    if let Some(indexes) = &indexes {
        resume(&mut tail, indexes, &whole, &file, place.decoders)?;
    }
    if !place.grow(&mut tail, &whole, &file, &mut entries)? {
        return Ok(None);
    }
    let mut active = match indexes {
        Some(indexes) => {
            let lacking = !entries.offsets.is_empty() || !entries.times.is_empty();
            report.indexes_rebuilt += u32::from(lacking);
            let mut active = Active::new(segment.clone(), tail);
            active.index_count = indexes.offsets;
            active.time_count = indexes.times;
            active.pending = entries;
            active
        }
        None => {
            report.indexes_rebuilt += 1;
            place.rebuilt(segment, tail, &mut entries, false)
        }
    };
    active.tail.last_append_ms = Some(found.last_append_ms);
    if let Err(e) = active.flush_indexes(place.shared) {
        log::warn!("writing {}: {e}", segment.path(".index").display());
    }
    Ok(Some(active))
}

/// Sets `tail` to where the last index entry points.
fn resume(
    tail: &mut Tail,
    indexes: &Indexes,
    extent: &Extent,
    file: &File,
    decoders: &Decoders,
) -> io::Result<()> {
    let Some(first) = header_at(file, 0, extent.bytes)? else {
        return Ok(());
    };
    tail.first_timestamp = largest_timestamp(file, 0, &first, decoders)?;
    tail.index_count = indexes.offsets;
    tail.last_index = indexes.last_offset;
    tail.bytes = indexes.last_offset.position;
    if let Some(header) = header_at(file, tail.bytes, extent.bytes)? {
        tail.end_offset = header.base_offset;
    }
    tail.time_count = indexes.times;
    if let Some(last) = indexes.last_time {
        tail.last_time = last.timestamp;
        tail.max_timestamp = last.timestamp;
        tail.max_timestamp_offset = tail.base_offset + i64::from(last.relative_offset);
    }
    Ok(())
}

/// What a control batch says that ends a transaction.
pub fn marker(file: &File, position: u32, header: &Header) -> io::Result<Option<Marker>> {
    match header.is_control() {
        true => Ok(Marker::read(header, &times::body(file, position, header)?)),
        false => Ok(None),
    }
}

/// A batch's largest timestamp, ms. Where the header does not tell it (Sarama), the batch is opened.
pub fn largest_timestamp(
    file: &File,
    position: u32,
    header: &Header,
    decoders: &Decoders,
) -> io::Result<i64> {
    if header.max_timestamp >= header.base_timestamp || header.records_count == 0 {
        return Ok(header.max_timestamp);
    }
    let body = times::body(file, position, header)?;
    let max = records::max_timestamp(header, &body, decoders, header.base_offset);
    Ok(max.ok().flatten().map_or(-1, |max| max.timestamp))
}
