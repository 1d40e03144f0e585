//! How long the writer waits for company, and how much it takes at once.
//!
//! On a slow device the first arrival must not start the next sync alone: in a closed loop half of the producers
//! would miss every turn and wait for two syncs. So the writer counts, for the last two turns, the requests that
//! it answered and the requests that have come back since from the same connections; the difference is
//! *expected*. It waits until nobody is expected or an eighth of the median sync has passed, and not at all when
//! a sync costs under [`CHEAP_SYNC`].
//!
//! Owns: the writer's side of that count ([`Pace`]) and each connection's side ([`Credit`]). Invariant: a credit
//! counts for two turns and is then forgotten, so a producer that went away costs at most two short waits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Below this median a sync is not worth waiting for company.
const CHEAP_SYNC: Duration = Duration::from_micros(500);
/// The share of the median sync that the writer waits at most.
const WAIT_SHARE: u32 = 8;
const SYNCS_REMEMBERED: usize = 15;
/// A turn takes at most what the device takes in this time.
const TURN_LIMIT: Duration = Duration::from_millis(200);
const TURN_BYTES_MIN: u64 = 4 * 1024 * 1024;
const TURN_BYTES_START: u64 = 64 * 1024 * 1024;
/// Smaller turns say more about latency than about bandwidth.
const MEASURED_TURN_BYTES_MIN: u64 = 1024 * 1024;

/// The writer's measure of its device and of who will come back.
pub struct Pace {
    turn: u32,
    /// Answers given in the current turn and in the two before it.
    answered: [u64; 3],
    syncs: VecDeque<Duration>,
    turn_bytes_max: u64,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            // Turn 0 is what a connection that was never answered remembers.
            turn: 2,
            answered: [0; 3],
            syncs: VecDeque::with_capacity(SYNCS_REMEMBERED),
            turn_bytes_max: TURN_BYTES_START,
        }
    }
}

impl Pace {
    /// The turn whose answers are being given now, or the next one's number between turns.
    pub fn turn(&self) -> u32 {
        self.turn
    }

    /// One more answer went to the connection that holds `credit`.
    pub fn answered(&mut self, credit: &Credit) {
        self.answered[0] += 1;
        credit.give(self.turn);
    }

    /// The answers of the last two turns that ended.
    pub fn expected(&self) -> u64 {
        self.answered[1] + self.answered[2]
    }

    /// A turn's answers are all given.
    pub fn turn_ended(&mut self) {
        self.turn = self.turn.wrapping_add(1);
        self.answered = [0, self.answered[0], self.answered[1]];
    }

    /// A turn's sync took this long.
    pub fn sync_took(&mut self, time: Duration) {
        if self.syncs.len() == SYNCS_REMEMBERED {
            self.syncs.pop_front();
        }
        self.syncs.push_back(time);
    }

    /// A turn of so many bytes took so long, sync included.
    pub fn turn_took(&mut self, bytes: u64, time: Duration) {
        if bytes >= MEASURED_TURN_BYTES_MIN {
            let per_limit = bytes as f64 * TURN_LIMIT.as_secs_f64() / time.as_secs_f64().max(1e-6);
            let smoothed = 0.75 * self.turn_bytes_max as f64 + 0.25 * per_limit;
            self.turn_bytes_max = (smoothed as u64).clamp(TURN_BYTES_MIN, TURN_BYTES_START);
        }
    }

    /// The bytes that one turn may take.
    pub fn turn_bytes_max(&self) -> u64 {
        self.turn_bytes_max
    }

    /// How long to wait for those who are expected; zero when syncs are cheap.
    pub fn patience(&self) -> Duration {
        let mut sorted: Vec<Duration> = self.syncs.iter().copied().collect();
        sorted.sort_unstable();
        match sorted.get(sorted.len() / 2) {
            Some(median) if *median >= CHEAP_SYNC => *median / WAIT_SHARE,
            _ => Duration::ZERO,
        }
    }
}

/// A connection's answers that it has not yet followed with a new request: the turn, and how many in that turn
/// and in the one before it, packed so that neither side takes a lock.
#[derive(Default)]
pub struct Credit(AtomicU64);

impl Credit {
    fn give(&self, turn: u32) {
        let give = |packed| {
            let (last, now, before) = unpack(packed);
            Some(match turn.wrapping_sub(last) {
                0 => pack(turn, now.saturating_add(1), before),
                1 => pack(turn, 1, now),
                _ => pack(turn, 1, 0),
            })
        };
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, give);
    }

    /// A request came: takes one credit back, oldest first; returns the turn that it was for.
    pub fn take(&self) -> Option<u32> {
        let take = |packed| match unpack(packed) {
            (_, 0, 0) => None,
            (turn, now, 0) => Some(pack(turn, now - 1, 0)),
            (turn, now, before) => Some(pack(turn, now, before - 1)),
        };
        let packed = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .ok()?;
        let (turn, _, before) = unpack(packed);
        Some(if before > 0 {
            turn.wrapping_sub(1)
        } else {
            turn
        })
    }
}

fn pack(turn: u32, now: u16, before: u16) -> u64 {
    u64::from(turn) << 32 | u64::from(now) << 16 | u64::from(before)
}

fn unpack(packed: u64) -> (u32, u16, u16) {
    ((packed >> 32) as u32, (packed >> 16) as u16, packed as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credit_counts_for_two_turns() {
        let (credit, mut pace) = (Credit::default(), Pace::default());
        assert_eq!(credit.take(), None);
        let first = pace.turn();
        (0..3).for_each(|_| pace.answered(&credit));
        pace.turn_ended();
        assert_eq!(pace.expected(), 3);
        pace.answered(&credit);
        pace.turn_ended();
        assert_eq!(pace.expected(), 4);
        assert_eq!(credit.take(), Some(first));
        pace.turn_ended();
        assert_eq!(pace.expected(), 1);
        pace.turn_ended();
        assert_eq!(pace.expected(), 0);
        pace.answered(&credit);
        assert_eq!(credit.take(), Some(pace.turn()));
        assert_eq!(
            credit.take(),
            None,
            "what was older than two turns is forgotten"
        );
    }

    #[test]
    fn patience_is_an_eighth_of_a_dear_median_and_nothing_of_a_cheap_one() {
        let mut pace = Pace::default();
        assert_eq!(pace.patience(), Duration::ZERO);
        (0..20).for_each(|_| pace.sync_took(Duration::from_micros(499)));
        assert_eq!(pace.patience(), Duration::ZERO);
        (0..20).for_each(|_| pace.sync_took(Duration::from_millis(8)));
        assert_eq!(pace.patience(), Duration::from_millis(1));
    }
}
