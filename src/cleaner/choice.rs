//! Which log is compacted next: a function of facts, settings and time, as Kafka's `LogCleanerManager`.
//!
//! Invariants: nothing in the active segment, at or beyond the last stable offset, or younger than
//! `min.compaction.lag.ms` is compacted; whole segments are, so that a pass is not made twice for the rest of one.
//!
//! Kafka makes no pass for tombstones alone whose time has come: they go with the next one. Nor does this.

use crate::config::TopicConfig;

/// What counts of a sealed segment.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Its first offset.
    pub base_offset: i64,
    /// The offset after its last.
    pub end_offset: i64,
    /// Its size.
    pub bytes: u64,
    /// When its newest record was appended, or was made if that is later and to be believed, ms.
    pub newest_ms: i64,
    /// The timestamp of its first batch, ms; -1 if there is none, or nobody has to know.
    pub first_ms: i64,
}

/// Where a log stands.
#[derive(Clone, Debug)]
pub struct Extents {
    /// The sealed segments, ascending.
    pub sealed: Vec<Facts>,
    /// The first offset.
    pub log_start: i64,
    /// The end of what may be compacted at all.
    pub last_stable: i64,
    /// The end.
    pub appended_end: i64,
}

/// What there is to compact in a log.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dirt {
    /// The first offset that no pass covered.
    pub first_dirty: i64,
    /// The offset before which a pass may work; no less than `first_dirty`.
    pub end: i64,
    /// The share of the log's bytes, up to `end`, that no pass covered.
    pub ratio: f64,
    /// Whether a pass is to be made now.
    pub is_enough: bool,
    /// If not: in so many ms time alone may change that.
    pub wait_ms: Option<i64>,
}

/// Looks at a log that is to be compacted; `saved` is where the last pass ended, `now_ms` is broker time.
pub fn dirt(log: &Extents, saved: Option<i64>, config: &TopicConfig, now_ms: i64) -> Dirt {
    // A log that was cut, or that DeleteRecords passed.
    let is_sound = |saved: &i64| (log.log_start..=log.appended_end).contains(saved);
    let first_dirty = saved.filter(is_sound).unwrap_or(log.log_start);
    let is_dirty = |s: &&Facts| s.base_offset >= first_dirty;
    let young_ms = |s: &Facts| match config.min_compaction_lag_ms {
        0 => 0,
        lag_ms => s.newest_ms.saturating_add(lag_ms).saturating_sub(now_ms),
    };
    let young = log.sealed.iter().filter(is_dirty).find(|s| young_ms(s) > 0);
    let limit = young.map_or(log.last_stable, |s| s.base_offset.min(log.last_stable));
    let whole = log.sealed.partition_point(|s| s.end_offset <= limit);
    let end = whole.checked_sub(1).map(|last| log.sealed[last].end_offset);
    let end = end.unwrap_or(first_dirty).max(first_dirty);

    let sum = |segments: &mut dyn Iterator<Item = &Facts>| segments.map(|s| s.bytes).sum::<u64>();
    let up_to_end = &log.sealed[..whole];
    let clean = sum(&mut up_to_end.iter().filter(|s| s.base_offset < first_dirty));
    let dirty = sum(&mut up_to_end.iter().filter(|s| s.end_offset > first_dirty));
    let ratio = match clean + dirty {
        0 => 0.0,
        all => dirty as f64 / all as f64,
    };
    let first_times = log.sealed.iter().filter(is_dirty).map(|s| s.first_ms);
    let due_in_ms = first_times
        .filter(|first_ms| *first_ms > 0)
        .min()
        .map(|first_ms| {
            let due_ms = first_ms.saturating_add(config.max_compaction_lag_ms);
            due_ms.saturating_sub(now_ms)
        });
    let is_due = due_in_ms.is_some_and(|ms| ms < 0);
    let is_enough = dirty > 0 && (is_due || ratio > config.min_cleanable_dirty_ratio);
    let waits = [
        young.map(young_ms),
        due_in_ms.filter(|ms| *ms >= 0 && dirty > 0),
    ];
    Dirt {
        first_dirty,
        end,
        ratio,
        is_enough,
        wait_ms: waits.into_iter().flatten().min(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Overrides};

    const DAY_MS: i64 = 86_400_000;
    const NOW_MS: i64 = 1_800_000_000_000;

    fn config(settings: &[(&str, &str)]) -> TopicConfig {
        let pairs = settings
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()));
        TopicConfig::new(&Config::default(), &pairs.collect::<Overrides>()).unwrap()
    }

    /// Ten segments of ten offsets and a hundred bytes, each a day older than the next; the active one begins at 100.
    fn log() -> Extents {
        let segment = |n: i64| Facts {
            base_offset: n * 10,
            end_offset: n * 10 + 10,
            bytes: 100,
            newest_ms: NOW_MS - (10 - n) * DAY_MS,
            first_ms: NOW_MS - (10 - n) * DAY_MS,
        };
        Extents {
            sealed: (0..10).map(segment).collect(),
            log_start: 0,
            last_stable: 105,
            appended_end: 107,
        }
    }

    #[test]
    fn a_log_is_compacted_above_its_ratio() {
        let config = config(&[("min.cleanable.dirty.ratio", "0.5")]);
        for (saved, ratio, is_enough) in [
            (None, 1.0, true),
            (Some(40), 0.6, true),
            (Some(50), 0.5, false),
            (Some(100), 0.0, false),
        ] {
            let dirt = dirt(&log(), saved, &config, NOW_MS);
            assert_eq!(
                (dirt.ratio, dirt.is_enough),
                (ratio, is_enough),
                "{saved:?}"
            );
            assert_eq!((dirt.first_dirty, dirt.end), (saved.unwrap_or(0), 100));
        }
    }

    #[test]
    fn a_saved_offset_that_cannot_be_counts_as_none() {
        let config = config(&[]);
        let mut log = log();
        log.log_start = 20;
        for saved in [Some(19), Some(108), None] {
            assert_eq!(dirt(&log, saved, &config, NOW_MS).first_dirty, 20);
        }
        assert_eq!(dirt(&log, Some(107), &config, NOW_MS).first_dirty, 107);
    }

    #[test]
    fn an_open_transaction_keeps_its_segment_and_all_behind_it() {
        let config = config(&[("min.cleanable.dirty.ratio", "0")]);
        let mut log = log();
        for (last_stable, end) in [(100, 100), (99, 90), (45, 40), (9, 0)] {
            log.last_stable = last_stable;
            let dirt = dirt(&log, None, &config, NOW_MS);
            assert_eq!((dirt.end, dirt.is_enough), (end, end > 0));
        }
    }

    #[test]
    fn what_is_young_stays_until_its_time_has_come() {
        let lag = (3 * DAY_MS).to_string();
        let config = config(&[
            ("min.compaction.lag.ms", &lag),
            ("min.cleanable.dirty.ratio", "0"),
        ]);
        let dirt = |saved| super::dirt(&log(), saved, &config, NOW_MS + 1000);
        assert_eq!((dirt(None).end, dirt(None).is_enough), (80, true));
        let nothing = dirt(Some(80));
        assert_eq!((nothing.end, nothing.is_enough), (80, false));
        assert_eq!(nothing.wait_ms, Some(DAY_MS - 1000));
    }

    #[test]
    fn what_is_old_is_compacted_whatever_the_ratio() {
        let lag = (3 * DAY_MS).to_string();
        let config = config(&[
            ("max.compaction.lag.ms", &lag),
            ("min.cleanable.dirty.ratio", "1"),
        ]);
        let dirt = |saved| super::dirt(&log(), saved, &config, NOW_MS + 1000);
        assert!(dirt(Some(60)).is_enough);
        assert!(dirt(Some(70)).is_enough, "three days and a second old");
        assert!(!dirt(Some(80)).is_enough);
        assert_eq!(dirt(Some(80)).wait_ms, Some(DAY_MS - 1000));
    }
}
