//! Broker time (promise P8): what ages are counted in, since the wall clock of a box without a battery cannot be
//! trusted.
//!
//! ```text
//! broker time = what was saved + CLOCK_BOOTTIME since then, and as much again, at most, while the wall is ahead
//! ```
//! Invariants: it never runs backwards, nor faster than twice as fast as time passes; a wall clock that is behind
//! it, or jumps ahead by thirty years, ages nothing by itself. It is saved with the checkpoints, never at idle.

use crate::error::Result;
use crate::lock::{Mutex, Rank};
use crate::storage::checkpoint;
use crate::sys;
use std::path::Path;
use std::time::SystemTime;

/// The file that it is saved in, in the data directory: the format's version, 1, ms since 1970, and a line with the CRC
/// of that.
pub const BROKER_TIME: &str = "broker-time-checkpoint";

/// The broker time (ms) that the file says, if it is whole.
pub fn parse_broker_time(text: &str) -> Option<i64> {
    match checkpoint::unsealed(text)?.lines().collect::<Vec<_>>()[..] {
        ["0", "1", ms] => ms.parse().ok(),
        _ => None,
    }
}

/// 2026-01-01, UTC: no clock that is right says less. A box without a battery may first boot in 1970, and broker time,
/// at twice time's pace, would then be behind for as long as the box lives.
pub const CLOCK_FLOOR_MS: i64 = 1_767_225_600_000;

/// One look at the clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// CLOCK_BOOTTIME, ms: sessions and time-outs run on it.
    pub boot_ms: i64,
    /// Broker time, ms since 1970: what is to grow old is counted in it.
    pub time_ms: i64,
}

/// The broker's one clock; any thread may look at it.
pub struct Clock {
    /// Guards broker time, which every look moves on.
    time: Mutex<BrokerTime>,
}

impl Clock {
    /// Goes on from what was saved; the very first one begins at the wall clock, if that can be.
    pub fn load(data: &Path) -> Clock {
        Clock {
            time: Mutex::new(Rank::Clock, BrokerTime::load(data)),
        }
    }

    /// Looks at the clocks.
    pub fn now(&self) -> Now {
        self.time.lock().now()
    }

    /// Saves broker time for the next start.
    pub fn save(&self, data: &Path) -> Result<()> {
        let mut time = *self.time.lock();
        time.now();
        time.save(data)
    }
}

/// The wall clock, in milliseconds since 1970; 0 if it stands before that.
pub fn wall_clock_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}

/// Broker time, as of the last look at the clocks.
#[derive(Clone, Copy, Debug)]
struct BrokerTime {
    time_ms: i64,
    boot_ms: i64,
}

impl BrokerTime {
    fn load(data: &Path) -> BrokerTime {
        let saved =
            checkpoint::read(&data.join(BROKER_TIME), parse_broker_time).unwrap_or_else(|error| {
                log::warn!("{error}; broker time begins at the wall clock");
                None
            });
        BrokerTime {
            time_ms: saved.unwrap_or_else(wall_clock_ms).max(CLOCK_FLOOR_MS),
            boot_ms: sys::boot_clock_ms(),
        }
    }

    fn save(&self, data: &Path) -> Result<()> {
        let text = checkpoint::sealed(format!("0\n1\n{}\n", self.time_ms));
        checkpoint::write(&data.join(BROKER_TIME), text.as_bytes())
    }

    fn now(&mut self) -> Now {
        let boot_ms = sys::boot_clock_ms();
        Now {
            boot_ms,
            time_ms: self.advance(boot_ms, wall_clock_ms()),
        }
    }

    /// What it is at `boot_ms`, when the wall shows `wall_ms`.
    fn advance(&mut self, boot_ms: i64, wall_ms: i64) -> i64 {
        let passed = boot_ms.saturating_sub(self.boot_ms).max(0);
        self.boot_ms = boot_ms;
        self.time_ms = self.time_ms.saturating_add(passed);
        let behind = wall_ms.saturating_sub(self.time_ms);
        self.time_ms += behind.clamp(0, passed);
        self.time_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: BrokerTime = BrokerTime {
        time_ms: CLOCK_FLOOR_MS + 1_000_000,
        boot_ms: 500,
    };

    #[test]
    fn a_wall_clock_in_1970_or_in_2056_ages_nothing_by_itself() {
        let mut time = START;
        assert_eq!(time.advance(1_500, 0), CLOCK_FLOOR_MS + 1_001_000);
        assert_eq!(
            time.advance(1_500, 2_700_000_000_000),
            CLOCK_FLOOR_MS + 1_001_000
        );
        assert_eq!(
            time.advance(2_500, 2_700_000_000_000),
            CLOCK_FLOOR_MS + 1_003_000
        );
        assert_eq!(time.advance(3_500, 0), CLOCK_FLOOR_MS + 1_004_000);
    }

    #[test]
    fn it_meets_the_wall_clock_and_then_keeps_its_pace() {
        let mut time = START;
        assert_eq!(
            time.advance(1_500, CLOCK_FLOOR_MS + 1_001_500),
            CLOCK_FLOOR_MS + 1_001_500
        );
        assert_eq!(
            time.advance(2_500, CLOCK_FLOOR_MS + 1_002_500),
            CLOCK_FLOOR_MS + 1_002_500
        );
        assert_eq!(
            time.advance(2_000, CLOCK_FLOOR_MS + 1_002_500),
            CLOCK_FLOOR_MS + 1_002_500
        );
    }

    #[test]
    fn it_outlives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        START.save(dir.path()).unwrap();
        assert_eq!(BrokerTime::load(dir.path()).time_ms, START.time_ms);
        std::fs::write(dir.path().join(BROKER_TIME), "0\n1\n86400000\n").unwrap();
        assert_eq!(BrokerTime::load(dir.path()).time_ms, CLOCK_FLOOR_MS);
        let ahead = BrokerTime {
            time_ms: wall_clock_ms() + 1_000_000_000,
            ..START
        };
        ahead.save(dir.path()).unwrap();
        let saved = std::fs::read(dir.path().join(BROKER_TIME)).unwrap();
        for bit in 0..saved.len() * 8 {
            let mut flipped = saved.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(dir.path().join(BROKER_TIME), flipped).unwrap();
            let read = BrokerTime::load(dir.path()).time_ms;
            assert!(read <= ahead.time_ms, "bit {bit} ages everything: {read}");
        }
        std::fs::remove_file(dir.path().join(format!("{BROKER_TIME}.previous"))).unwrap();
        std::fs::write(dir.path().join(BROKER_TIME), "garbage").unwrap();
        let wall = wall_clock_ms();
        assert!(BrokerTime::load(dir.path()).time_ms >= wall);
    }
}
