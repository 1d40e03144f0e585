//! How fast bytes flow, and how long to hold them back: Kafka's arithmetic (`Rate`, `SampledStat`, `QuotaUtils`).
//!
//! Owns: one meter's samples. Pure: no clock, no lock. Time is in milliseconds since any fixed moment, and never
//! runs backwards.
//!
//! ```text
//! sample  begins with the first bytes after the one before it is a window old; forgotten when its last bytes are
//!         as old as all windows
//! rate    bytes of all samples / time since the oldest began, and never less than all windows but the running one
//! delay   (rate - limit) / limit * that time: after it, with nothing more, the rate is the limit
//! ```

use std::collections::VecDeque;

/// Over what time rates are taken.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// `quota.window.num`: how many samples, the running one included.
    pub samples: i64,
    /// `quota.window.size.seconds`, in milliseconds: the length of one.
    pub sample_ms: i64,
}

impl Window {
    /// The time after which a meter that counts nothing is as new.
    pub fn quiet_ms(&self) -> i64 {
        self.samples * self.sample_ms
    }

    /// The most that can be counted at once, with nothing before it, and cause no delay; `limit` is a second's.
    pub fn bytes_max(&self, limit: f64) -> f64 {
        limit * ((self.samples - 1) * self.sample_ms) as f64 / 1000.0
    }
}

/// Counts the bytes of one client, or of all that share a quota.
#[derive(Debug, Default)]
pub struct Meter {
    /// Oldest first.
    samples: VecDeque<Sample>,
}

#[derive(Debug)]
struct Sample {
    began_ms: i64,
    last_ms: i64,
    bytes: f64,
}

impl Meter {
    /// Counts bytes; negative ones take back what was counted in the same millisecond.
    pub fn record(&mut self, window: Window, bytes: f64, now_ms: i64) {
        self.forget(window, now_ms);
        match self.samples.back_mut() {
            Some(sample) if now_ms - sample.began_ms < window.sample_ms => {
                sample.bytes += bytes;
                sample.last_ms = now_ms;
            }
            _ => self.samples.push_back(Sample {
                began_ms: now_ms,
                last_ms: now_ms,
                bytes,
            }),
        }
    }

    /// How long nothing more may come for the rate to be `limit` bytes a second; 0 if it is not above.
    pub fn delay_ms(&mut self, window: Window, limit: f64, now_ms: i64) -> i64 {
        self.forget(window, now_ms);
        let Some(oldest) = self.samples.front() else {
            return 0;
        };
        let elapsed_ms = now_ms - oldest.began_ms;
        let missing = (window.samples - 1 - elapsed_ms / window.sample_ms).max(0);
        let elapsed_ms = (elapsed_ms + missing * window.sample_ms).max(1) as f64;
        let bytes: f64 = self.samples.iter().map(|sample| sample.bytes).sum();
        let rate = bytes / (elapsed_ms / 1000.0);
        match rate > limit {
            true => ((rate - limit) / limit * elapsed_ms).round() as i64,
            false => 0,
        }
    }

    /// Whether all that it counted is forgotten by now.
    pub fn is_quiet(&self, window: Window, now_ms: i64) -> bool {
        let last = self.samples.back();
        last.is_none_or(|sample| now_ms - sample.last_ms >= window.quiet_ms())
    }

    fn forget(&mut self, window: Window, now_ms: i64) {
        let old = |sample: &Sample| now_ms - sample.last_ms >= window.quiet_ms();
        while self.samples.front().is_some_and(old) {
            self.samples.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window {
        samples: 11,
        sample_ms: 1000,
    };

    fn count(meter: &mut Meter, bytes: f64, now_ms: i64) -> i64 {
        meter.record(WINDOW, bytes, now_ms);
        meter.delay_ms(WINDOW, 500.0, now_ms)
    }

    /// Kafka's `ClientQuotaManagerTest.testQuotaViolation`: 400 * 10 + 2300 = 6300 bytes in 10.5 s are 600 a second,
    /// and (600 - 500) / 500 * 10.5 s = 2.1 s.
    #[test]
    fn the_delay_is_kafkas() {
        let mut meter = Meter::default();
        for second in 0..10 {
            assert_eq!(count(&mut meter, 400.0, second * 1000), 0);
        }
        assert_eq!(count(&mut meter, 2300.0, 10_500), 2100);
        // The first 400 are forgotten: 5900 bytes in 10 s.
        assert_eq!(count(&mut meter, 0.0, 11_000), 1800);
        // All that was counted leaves the window in the end.
        for second in 11..22 {
            count(&mut meter, 400.0, second * 1000);
        }
        assert_eq!(count(&mut meter, 0.0, 22_000), 0);
    }

    #[test]
    fn a_first_burst_is_measured_over_ten_seconds() {
        let mut meter = Meter::default();
        assert_eq!(count(&mut meter, 5000.0, 7), 0);
        assert_eq!(WINDOW.bytes_max(500.0), 5000.0);
        // 5001 bytes in 10 s: 0.1 a second too fast, 2 ms.
        assert_eq!(count(&mut meter, 1.0, 7), 2);
        assert_eq!(count(&mut meter, 4999.0, 7), 10_000);
    }

    #[test]
    fn what_is_taken_back_was_never_counted() {
        let mut meter = Meter::default();
        assert!(count(&mut meter, 9000.0, 0) > 0);
        meter.record(WINDOW, -9000.0, 0);
        assert_eq!(count(&mut meter, 5000.0, 0), 0);
    }

    #[test]
    fn a_quiet_meter_is_as_new() {
        let mut meter = Meter::default();
        count(&mut meter, 1e9, 0);
        assert!(!meter.is_quiet(WINDOW, 10_999));
        assert!(meter.delay_ms(WINDOW, 500.0, 10_999) > 0);
        assert!(meter.is_quiet(WINDOW, 11_000));
        assert_eq!(meter.delay_ms(WINDOW, 500.0, 11_000), 0);
        assert_eq!(count(&mut meter, 5000.0, 11_000), 0);
    }

    #[test]
    fn samples_do_not_pile_up() {
        let mut meter = Meter::default();
        (0..100_000).for_each(|at| meter.record(WINDOW, 1.0, at * 7));
        assert!(meter.samples.len() as i64 <= WINDOW.samples + 1);
    }

    #[test]
    fn one_sample_is_a_window_too() {
        let window = Window {
            samples: 1,
            sample_ms: 1000,
        };
        let mut meter = Meter::default();
        meter.record(window, 10.0, 5);
        // 10 bytes in the 1 ms that a window has at least: 10,000 a second.
        assert_eq!(meter.delay_ms(window, 1000.0, 5), 9);
    }
}
