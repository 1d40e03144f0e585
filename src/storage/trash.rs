//! Removed segments, in two steps as in Kafka: renamed to `.deleted` at once, unlinked `file.delete.delay.ms` later.
//!
//! Owns: the renamed files until they are unlinked. A reader that has one of them open keeps its bytes; no other opens
//! one, since the segment is retired first. A name that a power cut brings back lies below the log start, and a
//! `.deleted` one that a stop left is removed: both by the next start.
//!
//! `rename` and `remove_file` here: L3 (retention), L4 (DeleteRecords), L5 (compaction).

use super::Shared;
use super::segment::{DELETED, HINTS, Segment};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Files that wait to be unlinked.
#[derive(Default)]
pub struct Trash {
    waiting: BTreeMap<Instant, Vec<PathBuf>>,
}

impl Trash {
    /// Renames a segment's files, which are unlinked after `delay`. No published view may show the segment any more.
    pub fn add(&mut self, segment: &Segment, shared: &Shared, delay: Duration) {
        segment.retire(shared);
        let renamed = put_aside(segment).unwrap_or_else(|e| {
            let path = segment.path(".log");
            log::warn!("removing {}: {e}; the next start does it", path.display());
            Vec::new()
        });
        self.unlink_after(renamed, delay);
    }

    /// Unlinks files that were put aside, after `delay`.
    pub fn unlink_after(&mut self, files: Vec<PathBuf>, delay: Duration) {
        // A delay beyond what a clock can tell is longer than any process lives.
        if let Some(at) = Instant::now().checked_add(delay) {
            self.waiting.entry(at).or_default().extend(files);
        }
    }

    /// When [`Trash::unlink_due`] has something to do.
    pub fn next_due(&self) -> Option<Instant> {
        self.waiting.keys().next().copied()
    }

    /// Unlinks what has waited long enough, on a thread of its own: a large file may take the filesystem long.
    pub fn unlink_due(&mut self) {
        let now = Instant::now();
        let mut due = Vec::new();
        while let Some(first) = self.waiting.first_entry()
            && *first.key() <= now
        {
            due.extend(first.remove());
        }
        if due.is_empty() {
            return;
        }
        let unlink = move || due.iter().for_each(|path| unlink(path));
        if let Err(e) = thread::Builder::new().name("unlink".into()).spawn(unlink) {
            log::warn!("no thread to remove deleted segments: {e}; the next start does it");
        }
    }
}

/// Renames a segment's files to `.deleted`, the `.log` first; gives their new names. Readers find them by those until
/// the segment is retired.
pub fn put_aside(segment: &Segment) -> io::Result<Vec<PathBuf>> {
    let mut renamed = Vec::new();
    for extension in [".log"].into_iter().chain(HINTS) {
        let target = segment.path(&format!("{extension}{DELETED}"));
        match fs::rename(segment.path(extension), &target) {
            Ok(()) => renamed.push(target),
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    segment.set_aside();
    Ok(renamed)
}

/// A file that is gone went with its topic.
fn unlink(path: &Path) {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            log::warn!("removing {}: {e}; the next start does it", path.display());
        }
        _ => {}
    }
}
