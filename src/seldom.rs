//! Lines of the log that a full disk, a flood of connections or a client in a loop could ask for without end.
//!
//! Invariant: of the lines that go through one [`Seldom`], at most one in [`INTERVAL`] is logged at its own level, and
//! it says how many were not since the one before it; these are logged at level debug.

use crate::lock::{Mutex, Rank};
use std::fmt;
use std::time::{Duration, Instant};

/// At most one line in so long.
const INTERVAL: Duration = Duration::from_secs(5);

/// Lines of one kind, not too many: a `static` at the place that logs them.
pub struct Seldom(
    /// Guards when it was.
    Mutex<Said>,
);

struct Said {
    last: Option<Instant>,
    /// Lines since then that were not logged.
    unsaid: u64,
}

impl Seldom {
    /// Nothing is said yet.
    #[allow(clippy::new_without_default)] // a static's is const
    pub const fn new() -> Seldom {
        let (last, unsaid) = (None, 0);
        Seldom(Mutex::new(Rank::Seldom, Said { last, unsaid }))
    }

    /// Logs a line as an error, unless one was logged a moment ago.
    pub fn error(&self, line: fmt::Arguments<'_>) {
        self.log(log::Level::Error, line);
    }

    /// Logs a line as a warning, unless one was logged a moment ago.
    pub fn warn(&self, line: fmt::Arguments<'_>) {
        self.log(log::Level::Warn, line);
    }

    fn log(&self, level: log::Level, line: fmt::Arguments<'_>) {
        match self.admit(Instant::now()) {
            // Whoever looks for one client's fault sees it at this level.
            None => log::debug!("{line}"),
            Some(0) => log::log!(level, "{line}"),
            Some(unsaid) => log::log!(
                level,
                "{line}; and {unsaid} more like this since the last such line"
            ),
        }
    }

    /// Whether a line may be logged now, and how many were not since the last one.
    fn admit(&self, now: Instant) -> Option<u64> {
        let mut said = self.0.lock();
        if said.last.is_some_and(|at| now - at < INTERVAL) {
            said.unsaid += 1;
            return None;
        }
        said.last = Some(now);
        Some(std::mem::take(&mut said.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_in_an_interval_and_the_next_counts_the_others() {
        let (seldom, start) = (Seldom::new(), Instant::now());
        let admitted = [0, 1, 4_999, 5_000, 5_001, 10_000, 15_000]
            .map(|ms| seldom.admit(start + Duration::from_millis(ms)));
        let expected = [Some(0), None, None, Some(2), None, Some(1), Some(0)];
        assert_eq!(admitted, expected);
    }
}
