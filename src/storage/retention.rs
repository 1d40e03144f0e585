//! Which segments a log's limits of age and size pass: a function of facts, settings and time, as Kafka's
//! `UnifiedLog.deleteOldSegments`.
//!
//! Invariants: the oldest go first; nothing at or beyond the high watermark goes, nor an empty last segment. By age a
//! segment goes only when its largest timestamp *and* the broker time of its last append are older than the limit
//! (P8): records that carry old times are kept as long as any others, and a clock that jumps deletes nothing.

use super::segment::Extent;
use super::view::View;
use crate::clock::CLOCK_FLOOR_MS;

/// No record is believed to come from further ahead of its append than this, whatever its topic lets in.
pub const FUTURE_MS_MAX: i64 = 86_400_000;

/// What a log's segments may grow to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `retention.ms`, if age counts.
    pub age_ms: Option<i64>,
    /// `retention.bytes`, if size counts.
    pub bytes: Option<u64>,
    /// `message.timestamp.after.max.ms`: a timestamp that lies further ahead of its append would pin its segment, and
    /// counts as the append's own time.
    pub timestamp_after_max_ms: i64,
}

/// The last segment that goes. Named with its end: should it be gone or have grown meanwhile, nothing goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastToGo {
    /// The segment's serial.
    pub segment: u64,
    /// The offset after its last one: the new log start.
    pub end_offset: i64,
}

/// What counts of a segment.
#[derive(Clone, Copy, Debug)]
struct Facts {
    end_offset: i64,
    bytes: u64,
    max_timestamp: i64,
    last_append_ms: Option<i64>,
}

impl View {
    /// The last of the segments that go at broker time `time_ms`, if any go. Those that lie below the log start are
    /// among them, whatever the limits.
    pub fn last_to_go(&self, limits: &Limits, time_ms: i64) -> Option<LastToGo> {
        let extents = self.closed.iter().chain([&self.active]);
        let facts: Vec<Facts> = extents.map(facts).collect();
        let count = count_to_go(&facts, self.log_start, self.high_watermark, limits, time_ms);
        let last = self.extent(count.checked_sub(1)?)?;
        Some(LastToGo {
            segment: last.segment.serial(),
            end_offset: last.end_offset,
        })
    }
}

impl Extent {
    /// What the segment's age counts from, ms; `None` if nothing was appended to it. `after_max_ms` is as in
    /// [`Limits::timestamp_after_max_ms`].
    pub fn newest_ms(&self, after_max_ms: i64) -> Option<i64> {
        facts(self).newest_ms(after_max_ms)
    }
}

fn facts(extent: &Extent) -> Facts {
    Facts {
        end_offset: extent.end_offset,
        bytes: u64::from(extent.bytes),
        max_timestamp: extent.max_timestamp,
        last_append_ms: extent.last_append_ms,
    }
}

/// How many segments go, from the first on. Each limit looks at what the one before it leaves.
fn count_to_go(
    segments: &[Facts],
    log_start: i64,
    high_watermark: i64,
    limits: &Limits,
    time_ms: i64,
) -> usize {
    let is_last = |at: usize| at + 1 == segments.len();
    let may_go = |at: usize| {
        let segment = segments.get(at);
        segment.is_some_and(|s| s.end_offset <= high_watermark && (s.bytes > 0 || !is_last(at)))
    };
    let mut count = 0;
    while may_go(count) && !is_last(count) && segments[count].end_offset <= log_start {
        count += 1;
    }
    let bytes: u64 = segments[count..].iter().map(|s| s.bytes).sum();
    let mut excess = limits.bytes.and_then(|max| bytes.checked_sub(max));
    while may_go(count)
        && let Some(rest) = excess.and_then(|excess| excess.checked_sub(segments[count].bytes))
    {
        excess = Some(rest);
        count += 1;
    }
    if let Some(age_ms) = limits.age_ms {
        let is_old = |s: &Facts| {
            let newest = s.newest_ms(limits.timestamp_after_max_ms);
            newest.is_some_and(|newest| time_ms.saturating_sub(newest) > age_ms)
        };
        while may_go(count) && is_old(&segments[count]) {
            count += 1;
        }
    }
    count
}

impl Facts {
    /// What the segment's age counts from; `None` if nothing was appended to it.
    fn newest_ms(&self, after_max_ms: i64) -> Option<i64> {
        let last_append = self.last_append_ms?;
        let believed_to = last_append.saturating_add(after_max_ms.min(FUTURE_MS_MAX));
        Some(match self.max_timestamp <= believed_to {
            true => self.max_timestamp.max(last_append),
            false => last_append,
        })
    }
}

/// The broker time of a segment's last append, by its file's time of modification, ms. One that cannot be right, by a
/// clock that was not set or a copy that came from elsewhere, counts as now: it costs room, never records.
pub fn last_append_ms(modified_ms: i64, time_ms: i64) -> i64 {
    match (CLOCK_FLOOR_MS..=time_ms).contains(&modified_ms) {
        true => modified_ms,
        false => time_ms,
    }
}

#[cfg(test)]
#[path = "retention_tests.rs"]
mod tests;
