//! Syncs many files at once: one function, behind it helper threads.
//!
//! Owns: the helpers. One `fdatasync` after another falls off a cliff with many files; issued together, the
//! filesystem's journal and the device merge them. Helpers are started on demand, at most [`HELPERS_MAX`], with
//! small stacks, and end when idle for [`IDLE_LIMIT`]. Invariant: [`Syncer::sync_all`] returns `Ok` only if
//! every sync that it was given returned success. May lose data: L7 (a failed sync), L9 (directory entries).

use crate::lock::{Mutex, Rank};
use crate::storage::SyncItem;
use crate::sys;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar};
use std::thread;
use std::time::{Duration, Instant};

/// The exit code after a failed sync: sysexits' EX_IOERR.
pub const EXIT_SYNC_FAILED: i32 = 74;

const HELPERS_MAX: usize = 64;
const IDLE_LIMIT: Duration = Duration::from_secs(10);
/// How often, and for how long together, a directory's sync waits for a free descriptor.
const OPEN_TRIES_MAX: u32 = 3000;
const OPEN_RETRY: Duration = Duration::from_millis(10);
const STACK_BYTES: usize = 64 * 1024;

/// Hands syncs to helper threads and waits for them.
pub struct Syncer {
    shared: Arc<Shared>,
}

struct Shared {
    /// Guards the hand-over.
    state: Mutex<State>,
    work: Condvar,
    done: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<SyncItem>,
    unfinished: usize,
    helpers: usize,
    failure: Option<io::Error>,
}

impl Default for Syncer {
    fn default() -> Syncer {
        let state = Mutex::new(Rank::Sync, State::default());
        let shared = Shared {
            state,
            work: Condvar::new(),
            done: Condvar::new(),
        };
        Syncer {
            shared: Arc::new(shared),
        }
    }
}

impl Syncer {
    /// Syncs every item, in parallel, the caller taking its share; returns the first failure.
    pub fn sync_all(&self, items: Vec<SyncItem>) -> io::Result<()> {
        if let [item] = &items[..] {
            return sync(item);
        }
        let mut state = self.shared.state.lock();
        state.unfinished = items.len();
        state.waiting.extend(items);
        // The caller is one of the hands, so one item fewer needs a helper.
        let wanted = state.waiting.len().saturating_sub(1).min(HELPERS_MAX);
        for _ in state.helpers..wanted {
            let shared = self.shared.clone();
            let helper = thread::Builder::new()
                .name("sync".into())
                .stack_size(STACK_BYTES);
            // A helper that cannot be started is no failure: the others and the caller do its work.
            if helper.spawn(move || shared.help()).is_ok() {
                state.helpers += 1;
            }
        }
        self.shared.work.notify_all();
        drop(state);
        while self.shared.sync_one() {}
        let mut state = self.shared.state.lock();
        while state.unfinished > 0 {
            state = state.wait(&self.shared.done);
        }
        state.failure.take().map_or(Ok(()), Err)
    }
}

impl Shared {
    fn help(&self) {
        loop {
            while self.sync_one() {}
            let idle_since = Instant::now();
            let mut state = self.state.lock();
            while state.waiting.is_empty() {
                let Some(left) = IDLE_LIMIT.checked_sub(idle_since.elapsed()) else {
                    state.helpers -= 1;
                    return;
                };
                state = state.wait_for(&self.work, left);
            }
        }
    }

    fn sync_one(&self) -> bool {
        let Some(item) = self.state.lock().waiting.pop_front() else {
            return false;
        };
        let result = sync(&item);
        // Dropped before the count, so that no descriptor outlives the turn that it belongs to.
        drop(item);
        let mut state = self.state.lock();
        if let Err(failure) = result {
            state.failure.get_or_insert(failure);
        }
        state.unfinished -= 1;
        if state.unfinished == 0 {
            self.done.notify_all();
        }
        true
    }
}

/// A failed sync is final (P6): the page cache proves nothing afterwards.
pub fn end_process(error: &io::Error) -> ! {
    log::error!(
        "a sync failed, so what is unsynced cannot be trusted; stopping, the next start recovers: {error}"
    );
    std::process::exit(EXIT_SYNC_FAILED);
}

/// Makes a directory's entries durable. An error says that it could not be opened; a failed sync is final, since
/// whoever syncs it next, for an entry of his own, would hear that all is well.
pub fn sync_entries(dir: &Path) -> io::Result<()> {
    let dir = File::open(dir)?;
    dir.sync_all().unwrap_or_else(|error| end_process(&error));
    Ok(())
}

/// Syncs one item on this thread.
pub fn sync(item: &SyncItem) -> io::Result<()> {
    match item {
        SyncItem::Data(file) => sys::sync_data(file),
        SyncItem::Directory(path) => sync_directory(path),
    }
}

/// A directory is opened to be synced. To be out of descriptors for a moment says nothing of the disk, so it is not
/// a failed sync: it waits until one is free.
fn sync_directory(path: &Path) -> io::Result<()> {
    for _ in 0..OPEN_TRIES_MAX {
        match sys::sync_dir(path) {
            Err(error) if sys::is_out_of_descriptors(&error) => thread::sleep(OPEN_RETRY),
            other => return other,
        }
    }
    sys::sync_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_items_are_all_synced_and_a_failure_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: usize| {
            Arc::new(std::fs::File::create(dir.path().join(name.to_string())).unwrap())
        };
        let syncer = Syncer::default();
        let items = |n: usize| (0..n).map(|i| SyncItem::Data(file(i))).collect::<Vec<_>>();
        for count in [0, 1, 2, 200] {
            syncer.sync_all(items(count)).unwrap();
        }
        let mut with_missing = items(20);
        with_missing.push(SyncItem::Directory(Arc::from(dir.path().join("missing"))));
        assert!(syncer.sync_all(with_missing).is_err());
        syncer.sync_all(items(3)).unwrap();
    }
}
