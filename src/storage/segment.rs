//! A segment: one file of batches, named after the first offset that it may hold.
//!
//! Owns: the names of a segment's files, their creation and opening, and the walk over batch headers. Invariants: a
//! segment's number (serial) is never used twice in a process, so a cached descriptor cannot be another file's; a
//! file that is opened again must have the device and inode that it was made with, since compaction and re-creation
//! reuse names. That alone would not do, since filesystems reuse inodes too: whoever removes a segment's file retires
//! the segment first, and a retired one is opened by nobody;
//! batches follow each other without a gap in bytes, with offsets that rise.

use super::Shared;
use super::aborted::Aborted;
use super::descriptors::Kind;
use super::index::{self, OffsetEntry};
use super::view::ReadError;
use crate::batch::{HEADER_BYTES, Header};
use crate::error::{Context, Result};
use crate::sys;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

fn id_of(file: &File) -> io::Result<(u64, u64)> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

/// A segment's files beside its `.log`, which are nothing without it.
pub const HINTS: [&str; 3] = [".index", ".timeindex", ".txnindex"];

/// The suffix of a removed segment's files until they are unlinked.
pub const DELETED: &str = ".deleted";

/// The path of a segment's file; `extension` with its dot.
pub fn path(dir: &Path, base_offset: i64, extension: &str) -> PathBuf {
    dir.join(format!("{base_offset:020}{extension}"))
}

/// The offset in a name of twenty digits and `extension`.
pub fn offset_in_name(name: &OsStr, extension: &str) -> Option<i64> {
    let digits = name.to_str()?.strip_suffix(extension)?;
    let plain = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// A segment's identity.
#[derive(Debug)]
pub struct Segment {
    serial: u64,
    dir: Arc<Path>,
    base_offset: i64,
    /// Device and inode.
    file_id: (u64, u64),
    /// Its files have the names of removed ones.
    aside: AtomicBool,
    /// Its files are not opened any more.
    retired: AtomicBool,
}

impl Segment {
    /// Makes an empty segment; its directory entry is not synced yet.
    pub fn create(dir: &Arc<Path>, base_offset: i64) -> Result<(Segment, File)> {
        Segment::at(dir, base_offset, ".log", true)
    }

    /// Opens a segment that exists under this extension; `.log` is where it is looked for later.
    pub fn open(dir: &Arc<Path>, base_offset: i64, extension: &str) -> Result<(Segment, File)> {
        Segment::at(dir, base_offset, extension, false)
    }

    fn at(
        dir: &Arc<Path>,
        base_offset: i64,
        extension: &str,
        create: bool,
    ) -> Result<(Segment, File)> {
        static SERIALS: AtomicU64 = AtomicU64::new(1);
        let path = path(dir, base_offset, extension);
        let open = || -> io::Result<(File, (u64, u64))> {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(create)
                .open(&path)?;
            let file_id = id_of(&file)?;
            Ok((file, file_id))
        };
        let (file, file_id) = open().context(|| format!("opening {}", path.display()))?;
        let segment = Segment {
            serial: SERIALS.fetch_add(1, Ordering::Relaxed),
            dir: dir.clone(),
            base_offset,
            file_id,
            aside: AtomicBool::new(false),
            retired: AtomicBool::new(false),
        };
        Ok((segment, file))
    }

    /// The segment of a log that could not be opened: it has no file.
    pub fn absent() -> Segment {
        Segment {
            serial: 0,
            dir: Path::new("").into(),
            base_offset: 0,
            file_id: (0, 0),
            aside: AtomicBool::new(false),
            retired: AtomicBool::new(true),
        }
    }

    /// The number that no other segment of this process has.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// The first offset that it may hold.
    pub fn base_offset(&self) -> i64 {
        self.base_offset
    }

    /// The directory of its files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of one of its files; `extension` with its dot.
    pub fn path(&self, extension: &str) -> PathBuf {
        path(&self.dir, self.base_offset, extension)
    }

    /// Its batches, through the descriptor cache.
    pub fn log(&self, shared: &Shared) -> Result<Arc<File>, ReadError> {
        let open = || {
            let file = self.open_file(".log", OpenOptions::new().read(true).write(true))?;
            match id_of(&file)? == self.file_id {
                true => Ok(file),
                false => Err(ErrorKind::NotFound.into()),
            }
        };
        Ok(self.cached(shared, Kind::Log, open)?)
    }

    /// Opens one of its files. Compaction puts a segment's files aside, and others in their place, before it publishes
    /// a view without the segment: until then they are looked for there.
    fn open_file(&self, extension: &str, options: &OpenOptions) -> io::Result<File> {
        let opened = options.open(self.path(extension));
        let is_gone = matches!(&opened, Err(e) if e.kind() == ErrorKind::NotFound);
        // Asked after the opening: what has the name by then may be another segment's.
        match is_gone || self.aside.load(Ordering::SeqCst) {
            true => options.open(self.path(&format!("{extension}{DELETED}"))),
            false => opened,
        }
    }

    /// All of its files have been renamed to [`DELETED`] ones; only now may others take their names.
    pub fn set_aside(&self) {
        self.aside.store(true, Ordering::SeqCst);
    }

    /// One of its indexes, through the descriptor cache; made if it is not there. For the log's owner.
    pub fn index(&self, shared: &Shared, kind: Kind) -> io::Result<Arc<File>> {
        self.open_index(shared, kind, true)
    }

    /// The same for readers, who make no file: where it is gone they do without.
    pub fn index_to_read(&self, shared: &Shared, kind: Kind) -> io::Result<Option<Arc<File>>> {
        match self.open_index(shared, kind, false) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        }
    }

    fn open_index(&self, shared: &Shared, kind: Kind, create: bool) -> io::Result<Arc<File>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(create);
        self.cached(shared, kind, || {
            self.open_file(index_extension(kind), &options)
        })
    }

    /// Makes an index anew, whole or not at all: see [`index::make`].
    pub fn make_index<E: index::Entry>(
        &self,
        shared: &Shared,
        kind: Kind,
        entries: &[E],
    ) -> io::Result<()> {
        shared.descriptors.forget(self.serial);
        index::make(&self.path(index_extension(kind)), entries)
    }

    /// Removes indexes, which the next start makes anew.
    pub fn discard_indexes(&self, shared: &Shared, kinds: &[Kind]) {
        for kind in kinds {
            index::remove(&self.path(index_extension(*kind)));
        }
        shared.descriptors.forget(self.serial);
    }

    fn cached(
        &self,
        shared: &Shared,
        kind: Kind,
        open: impl FnOnce() -> io::Result<File>,
    ) -> io::Result<Arc<File>> {
        let file = shared.descriptors.get(self.serial, kind, open)?;
        // Asked after the cache holds the file: whoever retires the segment meanwhile finds it there, or is seen here.
        if self.retired.load(Ordering::SeqCst) {
            shared.descriptors.forget(self.serial);
            return Err(ErrorKind::NotFound.into());
        }
        Ok(file)
    }

    /// The segment is removed: its cached files are closed, and no view opens them again, so that its disk space is
    /// free as soon as it is unlinked.
    pub fn retire(&self, shared: &Shared) {
        self.retired.store(true, Ordering::SeqCst);
        shared.descriptors.forget(self.serial);
    }
}

fn index_extension(kind: Kind) -> &'static str {
    match kind {
        Kind::TimeIndex => ".timeindex",
        Kind::TransactionIndex => ".txnindex",
        Kind::Index | Kind::Log => ".index",
    }
}

/// How far a segment goes: what a reader may rely on. The active segment's grows from view to view.
#[derive(Clone, Debug)]
pub struct Extent {
    /// The segment.
    pub segment: Arc<Segment>,
    /// The bytes of whole batches in it.
    pub bytes: u32,
    /// The offset after its last one; where the next segment begins, if there is one.
    pub end_offset: i64,
    /// The entries that its index file holds for sure.
    pub index_count: u32,
    /// The last entry of its index, whether the file holds it yet or not.
    pub last_index: OffsetEntry,
    /// The entries that its time index file holds for sure.
    pub time_count: u32,
    /// The largest timestamp of its records, -1 if there is none, ms.
    pub max_timestamp: i64,
    /// The last offset of the first batch with that timestamp.
    pub max_timestamp_offset: i64,
    /// The entries that its transaction index file holds for sure.
    pub aborted_count: u32,
    /// The entries after those.
    pub aborted: Arc<[Aborted]>,
    /// The broker time of the last append, ms; `None` if there was none.
    pub last_append_ms: Option<i64>,
}

impl Extent {
    /// The first offset that the segment may hold.
    pub fn base_offset(&self) -> i64 {
        self.segment.base_offset
    }

    /// `offset` as the indexes store it.
    pub fn relative(&self, offset: i64) -> u32 {
        u32::try_from(offset.saturating_sub(self.base_offset()).max(0)).unwrap_or(u32::MAX)
    }

    /// Walks batch headers from `position` on to the first one that `wanted` accepts.
    pub fn walk(
        &self,
        file: &File,
        mut position: u32,
        mut wanted: impl FnMut(&Header) -> bool,
    ) -> Result<Option<(u32, Header)>, ReadError> {
        while position < self.bytes {
            let header = header_at(file, position, self.bytes)?.ok_or_else(|| {
                let path = self.segment.path(".log");
                let what = format!("no batch at byte {position} of {}", path.display());
                io::Error::new(ErrorKind::InvalidData, what)
            })?;
            if wanted(&header) {
                return Ok(Some((position, header)));
            }
            // Within `bytes`, as `header_at` checked.
            position += header.total_bytes() as u32;
        }
        Ok(None)
    }

    /// Where to begin a walk to the batch that holds `offset`, or to the next one after it.
    pub fn floor(&self, shared: &Shared, file: &File, offset: i64) -> Result<u32, ReadError> {
        if offset <= self.base_offset() || self.bytes == 0 {
            return Ok(0);
        }
        let target = self.relative(offset);
        let last = self.last_index;
        if !index::Entry::is_blank(&last)
            && last.relative_offset <= target
            && self.holds(file, &last)?
        {
            return Ok(last.position);
        }
        if self.index_count == 0 {
            return Ok(0);
        }
        let Some(index) = self.segment.index_to_read(shared, Kind::Index)? else {
            return Ok(0);
        };
        let guess = f64::from(target) / f64::from(self.relative(self.end_offset).max(1));
        let before = |e: &OffsetEntry| e.relative_offset <= target;
        let mut found = index::last_before(&index, self.index_count, guess.min(1.0), before)?;
        // A damaged index costs time, never truth: an entry that the log denies is passed over for one before it.
        while let Some((slot, entry)) = found {
            if entry.relative_offset <= target && self.holds(file, &entry)? {
                return Ok(entry.position);
            }
            found = match slot / 2 {
                0 => None,
                earlier => index::entry(&index, earlier)?.map(|entry| (earlier, entry)),
            };
        }
        Ok(0)
    }

    /// The last place in `from..=to` where, by the index, a batch begins.
    pub fn boundary(&self, shared: &Shared, from: u32, to: u32) -> io::Result<Option<u32>> {
        if self.index_count == 0 {
            return Ok(None);
        }
        let Some(index) = self.segment.index_to_read(shared, Kind::Index)? else {
            return Ok(None);
        };
        let guess = f64::from(to) / f64::from(self.bytes.max(1));
        let before = |e: &OffsetEntry| e.position <= to;
        let found = index::last_before(&index, self.index_count, guess.min(1.0), before)?;
        Ok(found
            .map(|(_, e)| e.position)
            .filter(|p| (from..=to).contains(p)))
    }

    /// Whether the log agrees with an index entry: a batch begins there, at or before the entry's offset.
    pub fn holds(&self, file: &File, entry: &OffsetEntry) -> io::Result<bool> {
        let Some(header) = header_at(file, entry.position, self.bytes)? else {
            return Ok(false);
        };
        let offset = self.base_offset() + i64::from(entry.relative_offset);
        Ok(header.base_offset >= self.base_offset() && header.base_offset <= offset)
    }
}

/// The batch header at `position`, if a whole plausible batch lies there before `end`.
pub fn header_at(file: &File, position: u32, end: u32) -> io::Result<Option<Header>> {
    let mut head = [0; HEADER_BYTES];
    let read = sys::read_at(file, &mut head, u64::from(position))?;
    let header = Header::parse(&head);
    let fits = u64::from(position) + header.total_bytes() as u64 <= u64::from(end);
    Ok((read == HEADER_BYTES && header.check().is_ok() && fits).then_some(header))
}
