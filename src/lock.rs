//! A ranked mutex: what little locking there is has an order, and every debug run checks it.
//!
//! Invariant: a thread that holds a lock takes only locks of a higher [`Rank`]. No lock is held across a system
//! call that can block on a disk or on a peer.

#[cfg(debug_assertions)]
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, MutexGuard, PoisonError};
use std::time::Duration;

/// The lock order, lowest first. A lock's comment at its definition says what it guards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// The table of open connections.
    Connections,
    /// The control thread's mailbox.
    Control,
    /// The published catalog.
    Catalog,
    /// The published quotas, and their meters.
    Quotas,
    /// The published settings.
    Settings,
    /// Whether the cleaner shall end.
    Cleaner,
    /// The transactions that are open.
    Transactions,
    /// A partition's published view and its waiting fetches.
    Partition,
    /// The writer's queue.
    Writer,
    /// The descriptor cache.
    Descriptors,
    /// The pool of idle decoders.
    Decoders,
    /// The clock.
    Clock,
    /// A memory budget.
    Budget,
    /// The sync helpers' hand-over.
    Sync,
    /// A connection's inbox of completions.
    Inbox,
    /// When a line was logged last.
    Seldom,
}

#[cfg(debug_assertions)]
thread_local! {
    static HELD: RefCell<Vec<Rank>> = const { RefCell::new(Vec::new()) };
}

/// A mutex with a place in the lock order.
pub struct Mutex<T> {
    rank: Rank,
    inner: std::sync::Mutex<T>,
}

/// Holds the lock until dropped.
pub struct Guard<'a, T> {
    rank: Rank,
    inner: Option<MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    /// A mutex of the given rank around `value`.
    pub const fn new(rank: Rank, value: T) -> Mutex<T> {
        Mutex {
            rank,
            inner: std::sync::Mutex::new(value),
        }
    }

    /// Takes the lock; in a debug build panics if the thread already holds one of the same or a higher rank.
    pub fn lock(&self) -> Guard<'_, T> {
        entered(self.rank);
        // A panic ends the process (`panic = "abort"`), so poison is only ever seen by a failing test.
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        Guard {
            rank: self.rank,
            inner: Some(inner),
        }
    }
}

impl<'a, T> Guard<'a, T> {
    /// Waits on `condition`, the lock released meanwhile; spurious wake-ups happen.
    pub fn wait(mut self, condition: &Condvar) -> Guard<'a, T> {
        let inner = self
            .inner
            .take()
            .expect("a guard holds its lock until it is dropped");
        self.inner = Some(
            condition
                .wait(inner)
                .unwrap_or_else(PoisonError::into_inner),
        );
        self
    }

    /// As [`Guard::wait`], for at most `limit`.
    pub fn wait_for(mut self, condition: &Condvar, limit: Duration) -> Guard<'a, T> {
        let inner = self
            .inner
            .take()
            .expect("a guard holds its lock until it is dropped");
        let (inner, _) = condition
            .wait_timeout(inner, limit)
            .unwrap_or_else(PoisonError::into_inner);
        self.inner = Some(inner);
        self
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.inner
            .as_ref()
            .expect("a guard holds its lock until it is dropped")
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.inner
            .as_mut()
            .expect("a guard holds its lock until it is dropped")
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        left(self.rank);
    }
}

/// An immutable value that is replaced as a whole: readers take the current one and keep it as long as they like.
pub struct Published<T> {
    /// Guards the pointer alone; the value behind it never changes.
    current: Mutex<Arc<T>>,
}

impl<T> Published<T> {
    /// Publishes the first value.
    pub const fn new(rank: Rank, value: Arc<T>) -> Published<T> {
        Published {
            current: Mutex::new(rank, value),
        }
    }

    /// The value of this moment.
    pub fn get(&self) -> Arc<T> {
        self.current.lock().clone()
    }

    /// Publishes another value.
    pub fn set(&self, value: Arc<T>) {
        let old = std::mem::replace(&mut *self.current.lock(), value);
        // The last owner frees it outside the lock.
        drop(old);
    }
}

impl<T: Clone> Published<T> {
    /// Publishes a changed copy. Only one thread may do so, or changes are lost between two.
    pub fn change(&self, change: impl FnOnce(&mut T)) {
        let mut value = T::clone(&self.get());
        change(&mut value);
        self.set(Arc::new(value));
    }
}

#[cfg(debug_assertions)]
fn entered(rank: Rank) {
    HELD.with_borrow_mut(|held| {
        if let Some(&top) = held.iter().max() {
            assert!(
                top < rank,
                "lock order: {rank:?} taken while {top:?} is held"
            );
        }
        held.push(rank);
    });
}

#[cfg(debug_assertions)]
fn left(rank: Rank) {
    HELD.with_borrow_mut(|held| {
        let place = held.iter().rposition(|&r| r == rank);
        held.remove(place.expect("a lock that is left was entered"));
    });
}

#[cfg(not(debug_assertions))]
fn entered(_: Rank) {}
#[cfg(not(debug_assertions))]
fn left(_: Rank) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascending_order_is_allowed() {
        let low = Mutex::new(Rank::Catalog, 1);
        let high = Mutex::new(Rank::Budget, 2);
        let (a, b) = (low.lock(), high.lock());
        assert_eq!(*a + *b, 3);
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "lock order")]
    fn descending_order_panics() {
        let low = Mutex::new(Rank::Catalog, ());
        let high = Mutex::new(Rank::Budget, ());
        let _high = high.lock();
        let _low = low.lock();
    }
}
