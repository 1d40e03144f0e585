//! How fast compaction and the scrub may work: no faster than `log.cleaner.io.max.bytes.per.second` and
//! `log.scrub.max.bytes.per.second`, and never all of the time.
//!
//! After each piece of work it rests for three times as long as that took: where the disk or the processor is busy,
//! with producers most likely, pieces take longer and so do the rests.

use super::Bell;
use crate::broker::Broker;
use crate::config::Config;
use crate::storage::compaction::Stopped;
use crate::storage::{Partition, Status};
use std::time::{Duration, Instant};

/// A piece of work is about this long: a producer's sync that waits behind it waits no longer.
const PIECE: Duration = Duration::from_millis(1);

/// What a rest is to the work before it: with three, a producer's p99 stays below twice what it is without compaction
/// (`benches/clean.rs`), with one it did not.
const REST_TO_WORK: u32 = 3;

/// One stalled write must not make compaction rest for minutes.
const REST_MAX: Duration = Duration::from_secs(1);

/// A long rest is broken so often.
const STEP: Duration = Duration::from_secs(1);

/// The pace of one pass over one log.
pub struct Pace<'a> {
    broker: &'a Broker,
    bell: &'a Bell,
    partition: &'a Partition,
    /// The bytes that it may take in a second.
    limit: fn(&Config) -> f64,
    meanwhile: &'a mut dyn FnMut(),
    /// When the piece in hand began, and its bytes so far.
    began: Instant,
    bytes: u64,
}

impl<'a> Pace<'a> {
    /// A pace no faster than `limit` says, that ends with the cleaner or the partition; between two pieces `meanwhile`
    /// is called.
    pub fn new(
        broker: &'a Broker,
        bell: &'a Bell,
        partition: &'a Partition,
        limit: fn(&Config) -> f64,
        meanwhile: &'a mut dyn FnMut(),
    ) -> Pace<'a> {
        Pace {
            broker,
            bell,
            partition,
            limit,
            meanwhile,
            began: Instant::now(),
            bytes: 0,
        }
    }

    /// So many bytes were read or written.
    pub fn worked(&mut self, bytes: u64) -> Result<(), Stopped> {
        self.bytes += bytes;
        let worked = self.began.elapsed();
        let due = |pace: &Self| {
            let limit = (pace.limit)(&pace.broker.config());
            rest(worked, pace.bytes, limit)
        };
        if due(self) < PIECE {
            return Ok(());
        }
        let began = Instant::now();
        // In steps: the limit may be changed meanwhile, and retention has its own times.
        while let Some(left) = due(self).checked_sub(began.elapsed())
            && !left.is_zero()
        {
            let goes_on = self.bell.rest(left.min(STEP));
            if !goes_on || self.partition.snapshot().status != Status::Online {
                return Err(Stopped);
            }
            (self.meanwhile)();
        }
        (self.began, self.bytes) = (Instant::now(), 0);
        Ok(())
    }
}

/// How long to rest after so much work.
fn rest(worked: Duration, bytes: u64, bytes_per_second_max: f64) -> Duration {
    let due = Duration::try_from_secs_f64(bytes as f64 / bytes_per_second_max);
    let due = due.unwrap_or(Duration::MAX).saturating_sub(worked);
    // The limit is the owner's word, and may ask for any rest.
    due.max((worked * REST_TO_WORK).min(REST_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rests_longer_than_it_worked_and_as_the_limit_asks() {
        let ms = Duration::from_millis;
        assert_eq!(rest(ms(5), 1_000_000, f64::MAX), ms(15));
        assert_eq!(rest(ms(5), 1_000_000, 10e6), ms(95));
        assert_eq!(rest(ms(5), 1_000, 10e6), ms(15));
        assert_eq!(rest(ms(60_000), 1_000, f64::MAX), REST_MAX);
        assert!(rest(ms(5), u64::MAX, 1e-300) > ms(1 << 40));
    }
}
