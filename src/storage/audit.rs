//! A look at a partition's files that changes none of them: what the disk has garbled since they were written.
//!
//! Owns: what counts as damage. The scrub of a running broker and `ottla verify` share it; a start's own reading
//! ([`super::recovery`]) shares the scanner beneath it. Rules:
//!
//! 1. Every batch: header, CRC, offsets that rise within the segment's bounds. What is bad is a range of bytes, and the
//!    offsets missing between the good batches around it. Two fields of a header lie outside the CRC: a base offset is
//!    held against its neighbours, a leader epoch tells nobody anything that the next start would not ask elsewhere.
//! 2. Every entry of an index must agree with the batch that it names, and no index may lack what the log knows was
//!    aborted: an entry that misleads nobody is no damage, for Kafka's own differ from ours in which of a batch's
//!    offsets they name. Of a segment with bad batches the indexes are not judged: they are made anew with it.
//! 3. Memory is one scanner's buffer, a block of each index, and the producers with their open transactions.
//!
//! Where a log does not begin at 0, is compacted or has a gap, the beginning or the end of a transaction may be gone:
//! then an entry of the transaction index is believed if its marker is there.

mod indexes;

use super::Shared;
use super::aborted::{self, Aborted};
use super::checkpoint::{self, LEADER_EPOCHS, PARTITION_METADATA};
use super::descriptors::Kind as FileKind;
use super::index::{self, OffsetEntry, TimeEntry};
use super::old_format;
use super::producers::{Limit, Producers};
pub use super::scan::Pace;
use super::scan::{Bounds, Scanner};
use super::segment::{self, Extent, offset_in_name};
use super::snapshot;
use super::view::ReadError;
use crate::batch::Header;
use crate::error::{Context, Result};
use indexes::Indexes;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// So many findings of one segment are enough: once they are repaired, the next look finds the others.
pub const FINDINGS_MAX: usize = 1000;

/// Producers that a look at one log remembers; those with an open transaction beside them.
const PRODUCERS_MAX: usize = 1000;

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub path: PathBuf,
    /// Where in it; empty where something is missing.
    pub bytes: Range<u64>,
    /// What is wrong.
    pub kind: Kind,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Batches are lost: those of these offsets, which may be fewer where compaction had been.
    Batches(Range<i64>),
    /// No batch follows up to the end of the last segment, where offset so-and-so was next: what a stop in the middle
    /// of a write leaves, or the last batches, lost.
    Tail(i64),
    /// Offsets are missing with nothing bad to see: what an earlier loss left. Not looked for in compacted logs.
    Gap(Range<i64>),
    /// An index that can be made anew from the batches, and why it should be.
    Hint(&'static str),
    /// Small state that cannot be read. A start goes on without it.
    State,
    /// A batch of these offsets whose CRC is right, and what is wrong with its records: they were written so.
    Records(Range<i64>, String),
    /// Messages of this format, which is not read, from here on: see `old_format`.
    Format(u8),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Range { start, end } = self.bytes;
        let path = self.path.display();
        match &self.kind {
            Kind::Batches(offsets) => {
                write!(
                    f,
                    "offsets {offsets:?} are lost: {path}, bytes {start}..{end}"
                )
            }
            Kind::Tail(offset) => write!(
                f,
                "no batch at offset {offset}, the last: {path}, bytes {start}..{end}"
            ),
            Kind::Gap(offsets) => write!(
                f,
                "offsets {offsets:?} were lost before: {path}, byte {start}"
            ),
            Kind::Hint(what) => write!(f, "{path}, bytes {start}..{end}: {what}"),
            Kind::State => write!(f, "{path}: garbled"),
            Kind::Records(offsets, what) => {
                write!(
                    f,
                    "offsets {offsets:?}: {what}: {path}, bytes {start}..{end}"
                )
            }
            Kind::Format(magic) => {
                write!(
                    f,
                    "messages of format {magic}, which is not read: {path}, byte {start}"
                )
            }
        }
    }
}

/// An index file, and how many of its entries are looked at.
type Index = Option<(Arc<File>, u32)>;

/// A segment's files.
pub struct Subject {
    /// The directory of its files.
    pub dir: PathBuf,
    /// Its name.
    pub base_offset: i64,
    /// The offset that its last batch ends before.
    pub end_offset: i64,
    /// The batches.
    pub log: Arc<File>,
    /// The bytes of them that are looked at.
    pub bytes: u64,
    /// Whether nothing is appended to it any more, so that it ends with a batch.
    pub sealed: bool,
    index: Index,
    time_index: Index,
    txn_index: Index,
    /// The transaction index holds all that was aborted here.
    txn_whole: bool,
    /// Indexes whose length or order is wrong already.
    implausible: Vec<Finding>,
}

impl Subject {
    /// The part of a running log's segment that one of its views shows.
    pub fn of_view(extent: &Extent, sealed: bool, shared: &Shared) -> Result<Subject, ReadError> {
        let segment = &extent.segment;
        let mut implausible = Vec::new();
        let mut open = |kind, extension, count: u32| -> Result<Index, ReadError> {
            let file = segment
                .index_to_read(shared, kind)?
                .map(|file| (file, count));
            if file.is_none() && count > 0 {
                implausible.push(hint(segment.path(extension), "it is gone"));
            }
            Ok(file)
        };
        Ok(Subject {
            dir: segment.dir().to_owned(),
            base_offset: extent.base_offset(),
            end_offset: extent.end_offset,
            log: segment.log(shared)?,
            bytes: extent.bytes.into(),
            sealed,
            index: open(FileKind::Index, ".index", extent.index_count)?,
            time_index: open(FileKind::TimeIndex, ".timeindex", extent.time_count)?,
            txn_index: open(
                FileKind::TransactionIndex,
                ".txnindex",
                extent.aborted_count,
            )?,
            txn_whole: extent.aborted.is_empty(),
            implausible,
        })
    }

    /// A segment of a log that no broker holds; `next` is the base offset of the one after it.
    pub fn open(dir: &Path, base_offset: i64, next: Option<i64>) -> Result<Subject> {
        let path = segment::path(dir, base_offset, ".log");
        let open = || -> io::Result<_> {
            let log = File::open(&path)?;
            Ok((log.metadata()?.len(), log))
        };
        let (bytes, log) = open().context(|| format!("opening {}", path.display()))?;
        let mut subject = Subject {
            dir: dir.to_owned(),
            base_offset,
            end_offset: next.unwrap_or(i64::MAX),
            log: Arc::new(log),
            bytes,
            sealed: next.is_some(),
            index: None,
            time_index: None,
            txn_index: None,
            // A stop without notice leaves the last one's entries unwritten.
            txn_whole: next.is_some(),
            implausible: Vec::new(),
        };
        subject.index = subject.open_index(".index", index::count::<OffsetEntry>)?;
        subject.time_index = subject.open_index(".timeindex", index::count::<TimeEntry>)?;
        subject.txn_index = subject.open_index(".txnindex", aborted::count_by_length)?;
        Ok(subject)
    }

    fn open_index(
        &mut self,
        extension: &str,
        count: impl Fn(&File) -> io::Result<Option<u32>>,
    ) -> Result<Index> {
        let path = self.path(extension);
        let open = || -> io::Result<_> {
            let file = File::open(&path)?;
            Ok((count(&file)?, file))
        };
        match open() {
            Ok((Some(count), file)) => Ok(Some((Arc::new(file), count))),
            Ok((None, _)) => {
                self.implausible.push(hint(path, "its length is wrong"));
                Ok(None)
            }
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).context(|| format!("opening {}", path.display())),
        }
    }

    /// The path of one of its files; `extension` with its dot.
    pub fn path(&self, extension: &str) -> PathBuf {
        segment::path(&self.dir, self.base_offset, extension)
    }
}

fn hint(path: PathBuf, what: &'static str) -> Finding {
    Finding {
        path,
        bytes: 0..0,
        kind: Kind::Hint(what),
    }
}

/// Looks into a batch, in place, whose CRC is right; says what is wrong with its records.
pub type Look<'a> = &'a mut dyn FnMut(&Subject, u32, &Header) -> io::Result<Option<String>>;

/// A look at the segments of one log, in order.
pub struct Audit {
    compacted: bool,
    /// The offset after the last good batch; nothing before the first segment.
    end: Option<i64>,
    /// All that the log ever held is still there: what the producers say is exact.
    complete: bool,
    producers: Producers,
    /// What was aborted in the last segment, as its batches tell it.
    pub(super) replayed: Vec<Aborted>,
}

impl Audit {
    /// A look that begins with a log's first segment. In a `compacted` log missing offsets are nothing special.
    pub fn new(compacted: bool) -> Audit {
        Audit {
            compacted,
            end: None,
            complete: !compacted,
            producers: Producers::new(Arc::new(Limit::new(PRODUCERS_MAX))),
            replayed: Vec::new(),
        }
    }

    /// The epoch of a producer that has a transaction there, if it is known.
    pub fn epoch_of(&self, producer_id: i64) -> Option<i16> {
        Some(self.producers.get(producer_id)?.epoch)
    }

    /// The offset after the last segment, if one was looked at.
    pub fn end(&self) -> Option<i64> {
        self.end
    }

    /// Looks at the next segment; calls `pace` after each read.
    ///
    /// # Errors
    /// The disk's, or those of `pace`.
    pub fn segment(&mut self, subject: &Subject, pace: Pace<'_>) -> io::Result<Vec<Finding>> {
        self.segment_with(subject, pace, &mut |_, _, _| Ok(None))
    }

    /// As [`Audit::segment`], and at the records of each batch too.
    ///
    /// # Errors
    /// The disk's, or those of `pace` or `look`.
    pub fn segment_with(
        &mut self,
        subject: &Subject,
        pace: Pace<'_>,
        look: Look<'_>,
    ) -> io::Result<Vec<Finding>> {
        let mut findings = Vec::new();
        let mut indexes = Indexes::open(subject);
        let from = self.end.unwrap_or(subject.base_offset);
        self.complete &= from == subject.base_offset && (self.end.is_some() || from == 0);
        let mut bounds = Bounds {
            from: from.max(subject.base_offset),
            base: subject.base_offset,
            to: subject.end_offset,
        };
        let mut scanner = Scanner::to_read(&subject.log, subject.bytes, pace);
        let mut position = 0;
        while position < subject.bytes && findings.len() < FINDINGS_MAX {
            let good = match scanner.batch_at(position, &bounds)? {
                Some(header) => Some((position, header)),
                None => {
                    if let Some(magic) =
                        old_format::magic_at(&subject.log, position, subject.bytes)?
                    {
                        findings.push(finding(subject, position..position, Kind::Format(magic)));
                        return Ok(findings);
                    }
                    let good = scanner.next_good(position, &bounds)?;
                    let end = good.map_or(subject.bytes, |(place, _)| place);
                    let next = good.map(|(_, header)| header.base_offset);
                    findings.extend(lost(subject, position..end, bounds.from, next)?);
                    good
                }
            };
            let Some((place, header)) = good else {
                bounds.from = bounds.to;
                break;
            };
            let hole = bounds.from..header.base_offset;
            if !hole.is_empty() {
                self.complete = false;
                if !self.compacted && place == position {
                    findings.push(gap(subject, place, hole));
                }
            }
            indexes.judge(self, place as u32, &header)?;
            bounds.from = header.last_offset() + 1;
            position = place + header.total_bytes() as u64;
            if let Some(what) = look(subject, place as u32, &header)? {
                let kind = Kind::Records(header.base_offset..bounds.from, what);
                findings.push(finding(subject, place..position, kind));
            }
        }
        let hole = bounds.from..subject.end_offset;
        if subject.sealed && !self.compacted && !hole.is_empty() && findings.len() < FINDINGS_MAX {
            findings.push(gap(subject, subject.bytes, hole));
        }
        self.end = Some(bounds.from);
        self.replayed = std::mem::take(&mut indexes.replayed);
        let is_bad = |f: &Finding| matches!(f.kind, Kind::Batches(_) | Kind::Tail(_));
        if !findings.iter().any(is_bad) {
            findings.extend(indexes.end()?);
        }
        Ok(findings)
    }
}

/// Bad bytes in which the offsets from `from` on are lost, up to `next`, the first of the next good batch.
fn lost(
    subject: &Subject,
    bytes: Range<u64>,
    from: i64,
    next: Option<i64>,
) -> io::Result<Option<Finding>> {
    let kind = match next {
        Some(next) => Kind::Batches(from..next),
        None if subject.end_offset < i64::MAX => Kind::Batches(from..subject.end_offset),
        None => Kind::Tail(from),
    };
    // Preallocated, or left by a power cut: nobody's bytes.
    if matches!(kind, Kind::Tail(_)) && is_zero(&subject.log, &bytes)? {
        return Ok(None);
    }
    Ok(Some(finding(subject, bytes, kind)))
}

fn gap(subject: &Subject, position: u64, offsets: Range<i64>) -> Finding {
    finding(subject, position..position, Kind::Gap(offsets))
}

fn finding(subject: &Subject, bytes: Range<u64>, kind: Kind) -> Finding {
    Finding {
        path: subject.path(".log"),
        bytes,
        kind,
    }
}

fn is_zero(file: &File, bytes: &Range<u64>) -> io::Result<bool> {
    let mut buffer = vec![0; 64 << 10];
    let mut at = bytes.start;
    while at < bytes.end {
        let wanted = buffer.len().min((bytes.end - at) as usize);
        let read = crate::sys::read_at(file, &mut buffer[..wanted], at)?;
        if read == 0 || buffer[..read].iter().any(|&b| b != 0) {
            return Ok(read == 0);
        }
        at += read as u64;
    }
    Ok(true)
}

/// The producer snapshots and checkpoints in a partition's directory that cannot be read.
pub fn small_files(dir: &Path) -> Result<Vec<Finding>> {
    let what = || format!("listing {}", dir.display());
    let mut findings = Vec::new();
    for entry in fs::read_dir(dir).context(what)? {
        let name = entry.context(what)?.file_name();
        let path = dir.join(&name);
        let is_text = |bytes: &[u8], is_whole: &dyn Fn(&str) -> bool| {
            std::str::from_utf8(bytes).is_ok_and(is_whole)
        };
        let is_whole: &dyn Fn(&[u8]) -> bool = match name.to_str() {
            Some(LEADER_EPOCHS) => {
                &|bytes| is_text(bytes, &|text| checkpoint::parse_epochs(text).is_some())
            }
            Some(PARTITION_METADATA) => {
                &|bytes| is_text(bytes, &|text| checkpoint::parse_topic_id(text).is_some())
            }
            _ if offset_in_name(&name, ".snapshot").is_some() => &snapshot::is_whole,
            _ => continue,
        };
        match fs::read(&path) {
            Ok(bytes) if is_whole(&bytes) => {}
            Ok(bytes) => findings.push(Finding {
                path,
                bytes: 0..bytes.len() as u64,
                kind: Kind::State,
            }),
            // A running broker has replaced it since.
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e).context(|| format!("reading {}", path.display())),
        }
    }
    Ok(findings)
}

/// The extent of a log that was looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outline {
    /// Its segments.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The offset after its last batch; the largest of all where bad bytes are the last thing in it.
    pub end: i64,
}

/// Looks at all files of a partition that no broker holds; hands on what it finds, segment by segment.
///
/// # Errors
/// The disk's, or those of `pace` or `look`.
pub fn directory(
    dir: &Path,
    compacted: bool,
    pace: Pace<'_>,
    look: Look<'_>,
    mut found: impl FnMut(Finding),
) -> Result<Outline> {
    let what = || format!("listing {}", dir.display());
    let mut bases = Vec::new();
    for entry in fs::read_dir(dir).context(what)? {
        bases.extend(offset_in_name(&entry.context(what)?.file_name(), ".log"));
    }
    bases.sort_unstable();
    let (mut audit, mut outline) = (Audit::new(compacted), Outline::default());
    for (i, base) in bases.iter().enumerate() {
        let subject = Subject::open(dir, *base, bases.get(i + 1).copied())?;
        let findings = audit.segment_with(&subject, pace, look);
        let what = || format!("reading {}", subject.path(".log").display());
        findings.context(what)?.into_iter().for_each(&mut found);
        outline.segments += 1;
        outline.bytes += subject.bytes;
    }
    outline.end = audit.end.unwrap_or(0);
    small_files(dir)?.into_iter().for_each(found);
    Ok(outline)
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
