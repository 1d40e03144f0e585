//! What recovery changes in a partition's directory. Every step may be interrupted, and is then found by the next
//! recovery, which does it again.
//!
//! Owns: the removal of what a crash left, the cut of a torn tail (L2), and the removal of rotten bytes from within a
//! segment. Rule: no byte that was in a `.log` is destroyed; it is saved and synced beside the segment first, but for
//! zeros at the end, and for what was never synced where a full disk has no room for it. `set_len`, `remove_file`,
//! `rename` and `sync_*` here: L2, L5, L9.

use super::segment::{self, HINTS, Segment, header_at, offset_in_name};
use crate::error::{Context, Error, Result};
use crate::sys;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const COPY_BYTES: usize = 1 << 20;

/// Zeros at the end are dropped by pages, so that the zeros that a batch ends with are kept.
const PAGE_BYTES: u64 = 4096;

/// Makes an empty segment, its name durable on return.
pub fn make(dir: &Arc<Path>, base_offset: i64) -> Result<(Segment, File)> {
    let made = Segment::create(dir, base_offset)?;
    sys::sync_dir(dir).context(|| format!("syncing {}", dir.display()))?;
    Ok(made)
}

/// What a directory holds, once its names are in order.
pub struct Names {
    /// The segments' base offsets, ascending.
    pub bases: Vec<i64>,
    /// The offsets of the producer snapshots, ascending.
    pub snapshots: Vec<i64>,
}

/// Puts the directory's names in order, as the table in [`super`] says.
pub fn tidy(dir: &Path) -> Result<Names> {
    let what = || format!("listing {}", dir.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).context(what)? {
        names.push(entry.context(what)?.file_name());
    }
    let named = |suffix: &str| -> Vec<i64> {
        let offset = |name: &OsString| offset_in_name(name, suffix);
        let mut offsets: Vec<i64> = names.iter().filter_map(offset).collect();
        offsets.sort_unstable();
        offsets
    };
    let (mut bases, mut swaps, snapshots) = (named(".log"), named(".log.swap"), named(".snapshot"));
    // Kafka splits a segment into several, the last one's name first: while one of them is not decided, none is.
    if let Some(undecided) = named(".log.cleaned").first() {
        swaps.retain(|base| base < undecided);
    }
    if !swaps.is_empty() {
        // A name that a crash of the broker alone left may not be on the disk yet, and what follows relies on it.
        sys::sync_dir(dir).context(what)?;
        for base in &swaps {
            finish_swap(dir, *base)?;
        }
        bases.extend(swaps);
        bases.retain(|&base| segment::path(dir, base, ".log").exists());
        bases.sort_unstable();
        bases.dedup();
    }
    for name in &names {
        let text = name.to_string_lossy();
        let leftover = [".tmp", ".cleaned", ".deleted", ".swap"]
            .iter()
            .any(|suffix| text.ends_with(suffix));
        let orphan = HINTS
            .iter()
            .filter_map(|hint| offset_in_name(name, hint))
            .any(|base| bases.binary_search(&base).is_err());
        if leftover || orphan {
            remove(&dir.join(name))?;
        } else if text.ends_with(".log") && offset_in_name(name, ".log").is_none() {
            log::warn!("{}: not a segment, left alone", dir.join(name).display());
        }
    }
    Ok(Names { bases, snapshots })
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Ok(()) => log::info!("removed {}, which a crash left", path.display()),
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(e).context(|| format!("removing {}", path.display())),
    }
    Ok(())
}

/// L5: a `.swap` replaces the segments whose offsets it covers; it was complete when it got that name. Where the disk
/// has garbled it since, the segments that it replaces count, if they are there: the one of its name went first.
fn finish_swap(dir: &Path, base: i64) -> Result<()> {
    let swap = segment::path(dir, base, ".log.swap");
    let what = || format!("putting {} in place", swap.display());
    let (end, whole) = end_of_batches(&swap, base).context(what)?;
    if !whole && segment::path(dir, base, ".log").exists() {
        return rename(&swap, &unused(dir, base, "swap", "quarantine"));
    }
    for entry in fs::read_dir(dir).context(what)? {
        let name = entry.context(what)?.file_name();
        if offset_in_name(&name, ".log").is_some_and(|old| old > base && old < end) {
            remove(&dir.join(name))?;
        }
    }
    for hint in HINTS {
        let hint = |suffix: &str| segment::path(dir, base, &format!("{hint}{suffix}"));
        match hint(".swap").exists() {
            true => rename(&hint(".swap"), &hint(""))?,
            false => remove(&hint(""))?,
        }
    }
    // Nothing that was replaced may come back beside it.
    sys::sync_dir(dir).context(what)?;
    rename(&swap, &segment::path(dir, base, ".log"))?;
    sys::sync_dir(dir).context(what)
}

/// The offset after a file's last batch, and whether batches are all that it holds, at least one.
fn end_of_batches(path: &Path, base: i64) -> io::Result<(i64, bool)> {
    let file = File::open(path)?;
    let size = u32::try_from(file.metadata()?.len()).unwrap_or(0);
    let (mut position, mut end) = (0, base);
    while position < size {
        let Some(header) = header_at(&file, position, size)? else {
            return Ok((end, false));
        };
        position += header.total_bytes() as u32;
        end = header.last_offset() + 1;
    }
    Ok((end, size > 0))
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).context(|| format!("renaming {} to {}", from.display(), to.display()))
}

/// A name beside segment `base` that is not taken: a second tear at the same place must not overwrite the first.
fn unused(dir: &Path, base: i64, what: &str, suffix: &str) -> PathBuf {
    (0..)
        .map(|n| segment::path(dir, base, &format!(".log.{what}.{n}.{suffix}")))
        .find(|path| !path.exists())
        .expect("a directory does not hold 2^31 files of one name")
}

/// L2: cuts a torn tail, of the last segment, at `position`; what it held is kept as `.torn`. Returns the bytes that
/// went. What was `never_synced`, hence never acknowledged, goes without a copy where the disk is too full for one: it
/// must not keep a partition from starting.
pub fn cut(
    dir: &Path,
    segment: &Segment,
    file: &File,
    position: u64,
    never_synced: bool,
) -> Result<u64> {
    let what = || format!("cutting the torn tail in {}", dir.display());
    let size = file.metadata().context(what)?.len();
    match save(dir, segment, file, position..size, "torn") {
        Err(e) if never_synced && is_full(&e) => log::error!("{e}: {} goes uncopied", what()),
        saved => saved?,
    }
    file.set_len(position).context(what)?;
    file.sync_all().context(what)?;
    Ok(size.saturating_sub(position))
}

/// Takes rotten bytes out of a segment: they are kept as `.quarantine`, and the segment is written anew without them.
pub fn excise(dir: &Path, segment: &Segment, file: &File, rotten: &[Range<u64>]) -> Result<()> {
    for range in rotten {
        save(dir, segment, file, range.clone(), "quarantine")?;
    }
    let changes: Vec<_> = rotten.iter().map(|range| (range.clone(), vec![])).collect();
    change(dir, segment, file, &changes)
}

/// Writes a segment anew with other bytes in the place of these ranges, which ascend.
/// The name is switched by one rename: before it nothing has changed, after it everything.
pub fn change(
    dir: &Path,
    segment: &Segment,
    file: &File,
    changes: &[(Range<u64>, Vec<u8>)],
) -> Result<()> {
    let what = || format!("writing {} anew", segment.path(".log").display());
    let path = segment.path(".log.cleaned");
    let size = file.metadata().context(what)?.len();
    let (mut from, mut to) = (0, 0);
    let end = (size..size, vec![]);
    make_whole(dir, &path, |cleaned| {
        for (range, bytes) in changes.iter().chain([&end]) {
            copy(file, from..range.start, cleaned, to)?;
            to += range.start - from;
            if !bytes.is_empty() {
                sys::write_gathered_at(cleaned, &mut [IoSlice::new(bytes)], to)?;
                to += bytes.len() as u64;
            }
            from = range.end;
        }
        Ok(())
    })?;
    // The transaction index tells offsets, which stay, and what the markers said that are gone.
    for hint in [".index", ".timeindex"] {
        remove(&segment.path(hint))?;
    }
    rename(&path, &segment.path(".log"))?;
    sys::sync_dir(dir).context(what)
}

/// Keeps bytes that are to be taken out of a segment beside it, synced.
pub fn keep_rotten(dir: &Path, segment: &Segment, file: &File, bytes: Range<u64>) -> Result<()> {
    save(dir, segment, file, bytes, "quarantine")
}

/// Saves bytes of a segment beside it, synced, but for zeros at their end.
fn save(dir: &Path, segment: &Segment, file: &File, range: Range<u64>, suffix: &str) -> Result<()> {
    let end = end_of_content(file, &range)
        .context(|| format!("reading {}", segment.path(".log").display()))?;
    // An empty `.quarantine` still says that offsets are missing there for a reason.
    if end == range.start && suffix == "torn" {
        return Ok(());
    }
    let at = range.start.to_string();
    let path = unused(dir, segment.base_offset(), &at, suffix);
    make_whole(dir, &path, |saved| copy(file, range.start..end, saved, 0))?;
    log::warn!("{} bytes are kept as {}", end - range.start, path.display());
    Ok(())
}

/// Makes a file that `fill` fills, durable on return; or leaves none: a disk that is full must not get fuller with
/// each start.
fn make_whole(dir: &Path, path: &Path, fill: impl FnOnce(&File) -> io::Result<()>) -> Result<()> {
    let make = || -> io::Result<()> {
        let file = File::create_new(path)?;
        fill(&file)?;
        file.sync_all()?;
        sys::sync_dir(dir)
    };
    make()
        .inspect_err(|_| drop(fs::remove_file(path)))
        .context(|| format!("writing {}", path.display()))
}

/// Whether there is no room for a copy.
fn is_full(error: &Error) -> bool {
    let full = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded];
    error.io().is_some_and(|e| full.contains(&e.kind()))
}

/// Where the pages of zeros at the end of a range begin.
fn end_of_content(file: &File, range: &Range<u64>) -> io::Result<u64> {
    let mut buffer = vec![0; COPY_BYTES];
    let mut end = range.end;
    while end > range.start {
        let start = end.saturating_sub(COPY_BYTES as u64).max(range.start);
        let piece = &mut buffer[..(end - start) as usize];
        let read = sys::read_at(file, piece, start)?;
        if let Some(last) = piece[..read].iter().rposition(|&b| b != 0) {
            let content = start + last as u64 + 1;
            return Ok(content.next_multiple_of(PAGE_BYTES).min(range.end));
        }
        end = start;
    }
    Ok(range.start)
}

fn copy(from: &File, range: Range<u64>, to: &File, mut position: u64) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    let mut at = range.start;
    while at < range.end {
        let wanted = buffer.len().min((range.end - at) as usize);
        let read = sys::read_at(from, &mut buffer[..wanted], at)?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        sys::write_gathered_at(to, &mut [IoSlice::new(&buffer[..read])], position)?;
        at += read as u64;
        position += read as u64;
    }
    Ok(())
}

#[cfg(test)]
#[path = "repair_tests.rs"]
mod tests;
