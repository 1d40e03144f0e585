//! Compaction's last step: a rewrite takes the place of the segments that it was made from.
//!
//! ```text
//! 1  <base>.log.cleaned (and its hints)   -> .swap       directory synced: decided
//! 2  the replaced segments' files         -> .deleted    the first one's first; directory synced
//! 3  the .swap files                      -> their names, hints first
//! ```
//! Invariants: a crash before 1 is through leaves the old list, after it the new one, which the next start puts in
//! place; what fails before the decision changes nothing, and what fails after it takes the log offline, so that
//! start comes. A rewrite is refused if one of the segments that it replaces has gone since; a roll is no reason.
//!
//! May lose data: L5 (compaction's swap). `rename` and `remove_file` here: of `.cleaned` and `.swap` files.

use super::{Log, SyncItem};
use crate::error::{Context, Result};
use crate::storage::active::Active;
use crate::storage::compaction::{CLEANED, Replacement};
use crate::storage::segment::{self, Extent, HINTS, Segment};
use crate::storage::trash;
use crate::sync;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SWAP: &str = ".swap";

/// A rewrite of neighbouring sealed segments, its files synced under their `.cleaned` names.
#[derive(Clone, Debug)]
pub struct Rewrite {
    /// The serials of what it replaces, in the log's order.
    pub replaced: Vec<u64>,
    /// What takes their place. It has the first one's base offset.
    pub extent: Extent,
}

/// What a rewrite replaced: to be retired once no published view shows it, its files to be unlinked later.
#[derive(Default)]
pub struct Replaced {
    /// The segments.
    pub segments: Vec<Arc<Segment>>,
    /// Their files, by their new names.
    pub files: Vec<PathBuf>,
}

impl Rewrite {
    /// What compaction prepared in `dir`.
    pub fn open(dir: &Arc<Path>, replacement: Replacement) -> Result<Rewrite> {
        let Replacement {
            sources,
            tail,
            aborted,
            last_append_ms,
        } = replacement;
        let extension = format!(".log{CLEANED}");
        let (segment, _) = Segment::open(dir, tail.base_offset, &extension)
            .inspect_err(|_| discard(dir, tail.base_offset))?;
        let (index_count, time_count) = (tail.index_count, tail.time_count);
        let extent = Extent {
            index_count,
            time_count,
            aborted_count: aborted.len() as u32,
            last_append_ms,
            ..Active::new(Arc::new(segment), tail).extent()
        };
        Ok(Rewrite {
            replaced: sources,
            extent,
        })
    }

    /// Removes its files, for it will not be used.
    pub fn discard(&self) {
        let segment = &self.extent.segment;
        discard(segment.dir(), segment.base_offset());
    }

    /// Renames all of its files from one suffix to the other, the `.log` last.
    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let segment = &self.extent.segment;
        for extension in HINTS.into_iter().chain([".log"]) {
            let path = segment.path(&format!("{extension}{from}"));
            match fs::rename(&path, segment.path(&format!("{extension}{to}"))) {
                Err(e) if e.kind() == ErrorKind::NotFound && extension != ".log" => {}
                renamed => renamed.context(|| format!("renaming {}", path.display()))?,
            }
        }
        Ok(())
    }
}

/// Removes what was prepared at `base_offset`. What fails here the next start does.
fn discard(dir: &Path, base_offset: i64) {
    for extension in [".log"].into_iter().chain(HINTS) {
        for suffix in [CLEANED, SWAP] {
            let path = segment::path(dir, base_offset, &format!("{extension}{suffix}"));
            match fs::remove_file(&path) {
                Err(e) if e.kind() != ErrorKind::NotFound => {
                    log::warn!("removing {}: {e}; the next start does it", path.display());
                }
                _ => {}
            }
        }
    }
}

impl Log {
    /// Puts a rewrite in the place of what it was made from; nothing if it was refused, and is gone.
    ///
    /// # Errors
    /// The rewrite could not be decided on, and is gone: nothing has changed. Or the log is offline.
    pub fn swap(&mut self, rewrite: &Rewrite) -> Result<Option<Replaced>> {
        let Some(at) = self.place_of(rewrite) else {
            rewrite.discard();
            return Ok(None);
        };
        if let Err(e) = rewrite.rename(CLEANED, SWAP) {
            rewrite.discard();
            return Err(e);
        }
        self.sync_directory();
        let (before, rest) = self.closed.split_at(at);
        let (replaced, after) = rest.split_at(rewrite.replaced.len());
        let segments: Vec<_> = replaced.iter().map(|e| e.segment.clone()).collect();
        let end_offset = replaced.last().map_or(0, |last| last.end_offset);
        let new = Extent {
            end_offset,
            ..rewrite.extent.clone()
        };
        let closed = before.iter().chain([&new]).chain(after).cloned().collect();
        let files = self.put_in_place(rewrite, &segments).inspect_err(|e| {
            let dir = self.dir.display();
            log::error!("{dir}: offline until restart, since compaction cannot end: {e}");
        });
        self.offline |= files.is_err();
        let files = files?;
        self.closed = closed;
        self.generation += 1;
        // Beside the next recovery points: a start that finds the old names does this again.
        self.hints.push(SyncItem::Directory(self.dir.clone()));
        Ok(Some(Replaced { segments, files }))
    }

    /// Where in the list the segments are that a rewrite replaces, if all of them still are, and the end that readers
    /// see is not in them.
    fn place_of(&self, rewrite: &Rewrite) -> Option<usize> {
        let first = rewrite.replaced.first()?;
        let at = self
            .closed
            .iter()
            .position(|e| e.segment.serial() == *first)?;
        let there = self.closed[at..].iter().take(rewrite.replaced.len());
        let ends_here = |e: &Extent| e.segment.serial() == self.synced.segment;
        let is_settled = !self.settings.visible_when_synced || !there.clone().any(ends_here);
        let same = there
            .map(|e| e.segment.serial())
            .eq(rewrite.replaced.iter().copied());
        let base = rewrite.extent.base_offset();
        (!self.offline && same && is_settled && self.closed[at].base_offset() == base).then_some(at)
    }

    /// The second and the third step.
    fn put_in_place(&self, rewrite: &Rewrite, replaced: &[Arc<Segment>]) -> Result<Vec<PathBuf>> {
        let put_aside = || -> io::Result<Vec<PathBuf>> {
            let mut files = Vec::new();
            for segment in replaced {
                files.extend(trash::put_aside(segment)?);
            }
            Ok(files)
        };
        let files = put_aside().context(|| "putting aside what was compacted".into())?;
        // Two lists of one log must never be there together.
        self.sync_directory();
        rewrite.rename(SWAP, "")?;
        Ok(files)
    }

    /// P6: what a failed sync leaves of the names nobody knows but the next start.
    fn sync_directory(&self) {
        let synced = sync::sync(&SyncItem::Directory(self.dir.clone()));
        synced.unwrap_or_else(|e| sync::end_process(&e));
    }
}

#[cfg(test)]
#[path = "swap_tests.rs"]
mod tests;
