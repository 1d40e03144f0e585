//! A memory budget that many threads share: request bytes, what requests unfold into, and decompression windows
//! (promise P7).
//!
//! Owns: one count of bytes in use. Invariants: bytes in use never exceed the capacity, but for what the holder
//! of the one token takes beyond it; a charge gives back exactly what it took, when dropped; when no other charge can
//! shrink, one waiter gets the token and goes on alone; what is unfinished leaves a quarter to what is whole, and
//! nobody is woken in vain by who comes and goes there. A waiter waits as long as the holders of what it waits for do,
//! so who holds a charge must not wait for what may never come: a frame's is given back before its request waits, or is
//! given up when it stops coming ([`crate::server::input`]).

use crate::lock::{Mutex, Rank};
use std::sync::{Arc, Condvar};
use std::time::{Duration, Instant};

/// A budget of bytes; clones share it.
#[derive(Clone)]
pub struct Budget {
    shared: Arc<Shared>,
}

struct Shared {
    capacity: u64,
    /// Guards the counts below.
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Default)]
struct State {
    used: u64,
    /// What the holder of the token took since it has it.
    beyond: u64,
    token_taken: bool,
    /// The least that must be free for one of those that wait to go on, if any waits.
    awaited: Option<u64>,
    /// How many wait.
    waiting: usize,
    closed: bool,
}

/// Bytes taken from a budget; gives them back when dropped.
pub struct Charge {
    shared: Arc<Shared>,
    bytes: u64,
    beyond: u64,
    has_token: bool,
}

/// Why nothing was taken.
#[derive(Debug, PartialEq, Eq)]
pub enum Denied {
    /// The budget was closed because the broker stops.
    Closed,
    /// Nobody gave back enough in time.
    Late,
}

impl Budget {
    /// A budget of `capacity` bytes.
    pub fn new(capacity: u64) -> Budget {
        let state = Mutex::new(Rank::Budget, State::default());
        Budget {
            shared: Arc::new(Shared {
                capacity,
                state,
                freed: Condvar::new(),
            }),
        }
    }

    /// The bytes that this budget holds in all.
    pub fn capacity(&self) -> u64 {
        self.shared.capacity
    }

    /// The bytes in use now.
    pub fn used(&self) -> u64 {
        let state = self.shared.state.lock();
        state.used + state.beyond
    }

    /// An empty charge, to be grown as bytes arrive.
    pub fn charge(&self) -> Charge {
        Charge {
            shared: self.shared.clone(),
            bytes: 0,
            beyond: 0,
            has_token: false,
        }
    }

    /// Whether somebody waits for it: who holds some of it and makes little use of that gives way.
    pub fn is_awaited(&self) -> bool {
        self.shared.state.lock().waiting > 0
    }

    /// Whether most of it is in use, so that it may be refused to whoever does not wait.
    pub fn is_scarce(&self) -> bool {
        self.used() > self.shared.capacity / 2
    }

    /// Wakes all waiters, now and from now on, with [`Denied::Closed`].
    pub fn close(&self) {
        self.shared.state.lock().closed = true;
        self.shared.freed.notify_all();
    }
}

impl Charge {
    /// Takes `more` bytes, waiting until others give back enough or this charge gets the token.
    ///
    /// The token is what keeps partial frames from waiting for each other for ever: whoever holds it goes
    /// beyond the capacity, by no more than one frame, until its charge is dropped.
    pub fn grow(&mut self, more: u64) -> Result<(), Denied> {
        self.grow_leaving(more, 0, None)
    }

    /// As [`Charge::grow`], for what others may have to wait long to see finished: it leaves them a quarter, and waits
    /// for no longer than `limit`, as what it holds meanwhile is of no use.
    pub fn grow_unfinished(&mut self, more: u64, limit: Duration) -> Result<(), Denied> {
        let deadline = Instant::now().checked_add(limit);
        self.grow_leaving(more, self.shared.capacity / 4, deadline)
    }

    fn grow_leaving(
        &mut self,
        more: u64,
        rest: u64,
        deadline: Option<Instant>,
    ) -> Result<(), Denied> {
        let needed = more.saturating_add(rest);
        let mut state = self.shared.state.lock();
        loop {
            if state.closed {
                return Err(Denied::Closed);
            }
            if !self.has_token && state.used.saturating_add(needed) <= self.shared.capacity {
                state.used += more;
                break;
            }
            if self.has_token || !state.token_taken {
                state.token_taken = true;
                self.has_token = true;
                state.beyond += more;
                self.beyond += more;
                break;
            }
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(Denied::Late);
            }
            state.awaited = Some(state.awaited.unwrap_or(u64::MAX).min(needed));
            state.waiting += 1;
            state = match left {
                Some(left) => state.wait_for(&self.shared.freed, left),
                None => state.wait(&self.shared.freed),
            };
            state.waiting -= 1;
        }
        self.bytes += more;
        Ok(())
    }

    /// Takes `more` bytes only if they are free now.
    pub fn try_grow(&mut self, more: u64) -> bool {
        let mut state = self.shared.state.lock();
        let fits = !state.closed && state.used.saturating_add(more) <= self.shared.capacity;
        if fits {
            state.used += more;
            self.bytes += more;
        }
        fits
    }

    /// Gives back all but `bytes`, if it holds more.
    pub fn shrink_to(&mut self, bytes: u64) {
        if self.bytes > bytes {
            self.shared.state.lock().used -= self.bytes - bytes;
            self.bytes = bytes;
            self.shared.freed.notify_all();
        }
    }

    /// The bytes that this charge holds.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if self.bytes == 0 && !self.has_token {
            return;
        }
        let mut state = self.shared.state.lock();
        state.used -= self.bytes - self.beyond;
        state.beyond -= self.beyond;
        state.token_taken &= !self.has_token;
        let (used, token_free) = (state.used, !state.token_taken);
        let goes_on =
            |needed: &mut u64| token_free || used.saturating_add(*needed) <= self.shared.capacity;
        // Who cannot go on after all says so anew.
        let wakes = state.awaited.take_if(goes_on).is_some();
        drop(state);
        if wakes {
            self.shared.freed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    const LIMIT: Duration = Duration::from_secs(60);

    #[test]
    fn gives_back_what_it_took() {
        let budget = Budget::new(100);
        let mut charge = budget.charge();
        charge.grow(60).unwrap();
        assert!(!budget.charge().try_grow(50));
        charge.shrink_to(70);
        assert_eq!((charge.bytes(), budget.used()), (60, 60));
        charge.shrink_to(50);
        assert!(budget.charge().try_grow(50));
        drop(charge);
        assert_eq!(budget.used(), 0);
    }

    /// P7: partial frames that fill the budget between them cannot deadlock.
    #[test]
    fn one_waiter_finishes_beyond_the_capacity() {
        let budget = Budget::new(100);
        let workers: Vec<_> = (0..8)
            .map(|_| {
                let budget = budget.clone();
                thread::spawn(move || {
                    let mut charge = budget.charge();
                    (0..9).for_each(|_| charge.grow(10).unwrap());
                })
            })
            .collect();
        workers.into_iter().for_each(|w| w.join().unwrap());
        assert_eq!(budget.used(), 0);
    }

    /// However much memory half-received frames hold, by the token too, small whole ones find room.
    #[test]
    fn unfinished_charges_leave_room_for_whole_ones() {
        let budget = Budget::new(100);
        let (mut unfinished, mut token) = (budget.charge(), budget.charge());
        unfinished.grow_unfinished(75, LIMIT).unwrap();
        token.grow_unfinished(500, LIMIT).unwrap();
        let waiter = {
            let budget = budget.clone();
            thread::spawn(move || budget.charge().grow_unfinished(1, LIMIT))
        };
        for _ in 0..1000 {
            budget.charge().grow(25).unwrap();
        }
        assert_eq!(budget.used(), 575);
        drop(token);
        assert_eq!(waiter.join().unwrap(), Ok(()));
        drop(unfinished);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn the_unfinished_wait_for_a_limited_time() {
        let budget = Budget::new(100);
        let (mut full, mut token, mut late) = (budget.charge(), budget.charge(), budget.charge());
        full.grow_unfinished(75, LIMIT).unwrap();
        token.grow_unfinished(1, LIMIT).unwrap();
        assert!(budget.is_scarce() && !budget.is_awaited());
        let denied = late.grow_unfinished(1, Duration::from_millis(1));
        assert_eq!((denied, late.bytes()), (Err(Denied::Late), 0));
        assert!(!budget.is_awaited());
        late.grow(25).unwrap();
    }

    #[test]
    fn close_wakes_waiters() {
        let budget = Budget::new(10);
        let (mut full, mut token) = (budget.charge(), budget.charge());
        full.grow(10).unwrap();
        token.grow(10).unwrap();
        let waiter = {
            let budget = budget.clone();
            thread::spawn(move || budget.charge().grow(10))
        };
        budget.close();
        assert_eq!(waiter.join().unwrap(), Err(Denied::Closed));
    }
}
