//! Removed segments, in two steps as in Kafka: renamed to `.deleted` at once, unlinked `file.delete.delay.ms` later.
//!
//! Owns: the renamed files until they are unlinked. A reader that has one of them open keeps its bytes; no other opens
//! one, since the segment is retired first. A name that a power cut brings back lies below the log start, and a
//! `.deleted` one that a stop left is removed: both by the next start.
//!
//! `rename` and `remove_file` here: L3 (retention), L4 (DeleteRecords).

use super::Shared;
use super::segment::{HINTS, Segment};
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
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
        let rename = |extension: &str| {
            let path = segment.path(extension);
            let target = segment.path(&format!("{extension}.deleted"));
            match fs::rename(&path, &target) {
                Ok(()) => return Some(target),
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => log::warn!("removing {}: {e}; the next start does it", path.display()),
            }
            None
        };
        let renamed: Vec<PathBuf> = [".log"]
            .into_iter()
            .chain(HINTS)
            .filter_map(rename)
            .collect();
        // A delay beyond what a clock can tell is longer than any process lives.
        if let Some(at) = Instant::now().checked_add(delay) {
            self.waiting.entry(at).or_default().extend(renamed);
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

/// A file that is gone went with its topic.
fn unlink(path: &Path) {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            log::warn!("removing {}: {e}; the next start does it", path.display());
        }
        _ => {}
    }
}
