//! The decision, case by case.

use super::*;

const DAY: i64 = 86_400_000;
const NOW: i64 = CLOCK_FLOOR_MS + 100 * DAY;

const NONE: Limits = Limits {
    age_ms: None,
    bytes: None,
    timestamp_after_max_ms: 3_600_000,
};

/// Segments of ten offsets each, by bytes, age of the largest timestamp and age of the last append, in days.
fn segments(of: &[(u64, i64, i64)]) -> Vec<Facts> {
    let facts = |(&(bytes, timestamp_age, append_age), at): (&(u64, i64, i64), i64)| Facts {
        end_offset: 10 * at,
        bytes,
        max_timestamp: NOW - timestamp_age * DAY,
        last_append_ms: Some(NOW - append_age * DAY),
    };
    of.iter().zip(1..).map(facts).collect()
}

fn by_age(days: i64) -> Limits {
    Limits {
        age_ms: Some(days * DAY),
        ..NONE
    }
}

fn by_size(bytes: u64) -> Limits {
    Limits {
        bytes: Some(bytes),
        ..NONE
    }
}

fn count(segments: &[Facts], limits: &Limits) -> usize {
    count_to_go(segments, 0, i64::MAX, limits, NOW)
}

#[test]
fn by_age_both_the_records_and_their_append_must_be_old() {
    let log = segments(&[(1, 9, 9), (1, 8, 8), (1, 7, 7), (1, 0, 0)]);
    assert_eq!(count(&log, &by_age(7)), 2);
    assert_eq!(count(&segments(&[(1, 90, 1), (1, 90, 1)]), &by_age(7)), 0);
    // A wall clock that stood in 1970, or in 2056, when the records were made.
    assert_eq!(count(&segments(&[(1, 20_000, 6)]), &by_age(7)), 0);
    assert_eq!(count(&segments(&[(1, -10_000, 6)]), &by_age(7)), 0);
    assert_eq!(count(&segments(&[(1, -10_000, 8)]), &by_age(7)), 1);
}

/// Up to an hour ahead is what the topic lets in, and counts; a topic that lets in more is believed for a day.
#[test]
fn a_record_from_the_far_future_pins_no_segment() {
    let mut log = segments(&[(1, 0, 8)]);
    assert_eq!(count(&log, &by_age(7)), 1);
    log[0].max_timestamp = NOW - 8 * DAY + 3_600_000;
    assert_eq!(count(&log, &by_age(7)), 1);
    let any_future = Limits {
        timestamp_after_max_ms: i64::MAX,
        ..by_age(7)
    };
    let mut log = segments(&[(1, 7, 8), (1, 8, 8)]);
    assert_eq!(count(&log, &any_future), 0);
    log[0].max_timestamp += 1;
    assert_eq!(count(&log, &any_future), 2);
    log[0].max_timestamp = i64::MAX;
    assert_eq!(count(&log, &any_future), 2);
}

#[test]
fn segments_without_timestamps_age_by_their_append() {
    let mut log = segments(&[(1, 0, 8), (1, 0, 6)]);
    log.iter_mut().for_each(|s| s.max_timestamp = -1);
    assert_eq!(count(&log, &by_age(7)), 1);
    log[0].last_append_ms = None;
    assert_eq!(count(&log, &by_age(7)), 0);
}

#[test]
fn by_size_only_whole_segments_beyond_the_limit_go() {
    let log = segments(&[(100, 0, 0), (100, 0, 0), (100, 0, 0), (30, 0, 0)]);
    assert_eq!(count(&log, &by_size(330)), 0);
    assert_eq!(count(&log, &by_size(231)), 0);
    assert_eq!(count(&log, &by_size(230)), 1);
    assert_eq!(count(&log, &by_size(31)), 2);
    assert_eq!(count(&log, &by_size(0)), 4);
}

#[test]
fn the_empty_last_segment_and_what_is_not_synced_stay() {
    let log = segments(&[(1, 9, 9), (0, 9, 9)]);
    assert_eq!(count(&log, &by_age(7)), 1);
    assert_eq!(count(&log, &by_size(0)), 1);
    let log = segments(&[(1, 9, 9), (1, 9, 9)]);
    assert_eq!(count_to_go(&log, 0, 19, &by_age(7), NOW), 1);
    assert_eq!(count_to_go(&log, 0, 20, &by_age(7), NOW), 2);
}

/// A stop, or a disk that was full, came before their removal. Their bytes do not count against the others'.
#[test]
fn what_lies_below_the_log_start_goes_without_any_limit() {
    let log = segments(&[(100, 0, 0), (100, 0, 0), (100, 0, 0)]);
    assert_eq!(count_to_go(&log, 10, 30, &NONE, NOW), 1);
    assert_eq!(count_to_go(&log, 19, 30, &by_size(150), NOW), 1);
    assert_eq!(count_to_go(&log, 30, 30, &NONE, NOW), 2);
}

#[test]
fn a_time_of_modification_is_believed_if_it_can_be_right() {
    for believed in [CLOCK_FLOOR_MS, NOW - 1, NOW] {
        assert_eq!(last_append_ms(believed, NOW), believed);
    }
    for absurd in [0, CLOCK_FLOOR_MS - 1, NOW + 1, i64::MAX] {
        assert_eq!(last_append_ms(absurd, NOW), NOW);
    }
}
