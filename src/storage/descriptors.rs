//! The cache of open files: thousands of partitions with three files each exceed any descriptor limit.
//!
//! Owns: one map from (segment serial, kind) to an open file. Invariants: a file that someone else still holds
//! (a log with unsynced bytes, a slice on its way to a socket) is never evicted, since closing it would free
//! nothing and a dirty file must be synced through the descriptor that wrote it; the lock is never held across
//! open(2) or close(2).

use crate::lock::{Mutex, Rank};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::Arc;

/// Which of a segment's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `.log`: the batches.
    Log,
    /// `.index`: offset to position.
    Index,
    /// `.timeindex`: timestamp to offset.
    TimeIndex,
    /// `.txnindex`: aborted transactions.
    TransactionIndex,
}

impl Kind {
    const ALL: [Kind; 4] = [
        Kind::Log,
        Kind::Index,
        Kind::TimeIndex,
        Kind::TransactionIndex,
    ];
}

/// A bounded cache of open files, least recently used first out.
pub struct Descriptors {
    capacity: usize,
    /// Guards the map and its clock.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: HashMap<(u64, Kind), Entry>,
    clock: u64,
}

struct Entry {
    file: Arc<File>,
    used: u64,
}

impl Descriptors {
    /// A cache of at most `capacity` files that nobody else holds.
    pub fn new(capacity: usize) -> Descriptors {
        Descriptors {
            capacity: capacity.max(8),
            state: Mutex::new(Rank::Descriptors, State::default()),
        }
    }

    /// The file of segment `serial`, opened by `open` if the cache does not hold it.
    pub fn get(
        &self,
        serial: u64,
        kind: Kind,
        open: impl FnOnce() -> io::Result<File>,
    ) -> io::Result<Arc<File>> {
        if let Some(file) = self.state.lock().touch((serial, kind)) {
            return Ok(file);
        }
        let file = Arc::new(open()?);
        Ok(self.put(serial, kind, file))
    }

    /// Adds an open file; returns the one that is kept, which is another's if that came first.
    pub fn put(&self, serial: u64, kind: Kind, file: Arc<File>) -> Arc<File> {
        let mut state = self.state.lock();
        if let Some(first) = state.touch((serial, kind)) {
            return first;
        }
        state.clock += 1;
        let used = state.clock;
        state.open.insert(
            (serial, kind),
            Entry {
                file: file.clone(),
                used,
            },
        );
        let evicted = if state.open.len() > self.capacity {
            state.evict(self.capacity / 8 + 1)
        } else {
            Vec::new()
        };
        drop(state);
        // Closed only here: close(2) may block.
        drop(evicted);
        file
    }

    /// Drops all files of a segment that no view will hand out any more.
    pub fn forget(&self, serial: u64) {
        let mut state = self.state.lock();
        let dropped = Kind::ALL.map(|kind| state.open.remove(&(serial, kind)));
        drop(state);
        drop(dropped);
    }

    /// How many files the cache holds open.
    pub fn len(&self) -> usize {
        self.state.lock().open.len()
    }

    /// Whether it holds more than it shall, since others hold all of them: who can do with fewer should.
    pub fn is_crowded(&self) -> bool {
        self.len() > self.capacity
    }

    /// Whether the cache holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl State {
    fn touch(&mut self, key: (u64, Kind)) -> Option<Arc<File>> {
        self.clock += 1;
        let entry = self.open.get_mut(&key)?;
        entry.used = self.clock;
        Some(entry.file.clone())
    }

    /// Takes out about `count` of the files that were idle longest. In batches, so that a working set larger
    /// than the cache does not search the whole map at each miss.
    fn evict(&mut self, count: usize) -> Vec<Entry> {
        let mut idle: Vec<(u64, (u64, Kind))> = self
            .open
            .iter()
            .filter(|(_, entry)| Arc::strong_count(&entry.file) == 1)
            .map(|(&key, entry)| (entry.used, key))
            .collect();
        if idle.len() > count {
            idle.select_nth_unstable_by_key(count, |&(used, _)| used);
            idle.truncate(count);
        }
        idle.iter()
            .filter_map(|(_, key)| self.open.remove(key))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_idlest_go_first_and_a_held_file_stays() {
        let cache = Descriptors::new(16);
        let held = cache.get(0, Kind::Log, tempfile::tempfile).unwrap();
        for serial in 1..=16 {
            cache.get(serial, Kind::Log, tempfile::tempfile).unwrap();
        }
        assert!(cache.len() <= 16);
        let again = cache
            .get(0, Kind::Log, || panic!("a held file was evicted"))
            .unwrap();
        assert!(Arc::ptr_eq(&held, &again));
        cache
            .get(16, Kind::Log, || panic!("the newest file was evicted"))
            .unwrap();
        let mut reopened = false;
        let open = || {
            reopened = true;
            tempfile::tempfile()
        };
        cache.get(1, Kind::Log, open).unwrap();
        assert!(reopened);
    }

    #[test]
    fn forget_drops_all_kinds() {
        let cache = Descriptors::new(16);
        for kind in Kind::ALL {
            cache.get(7, kind, tempfile::tempfile).unwrap();
        }
        cache.forget(7);
        assert!(cache.is_empty());
    }
}
