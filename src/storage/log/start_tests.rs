//! The log start: how it rises, what goes with it, and what a start finds of it.

use super::*;
use crate::storage::testing::*;
use crate::storage::{Hint, ReadError, Start, Trash};
use std::time::Duration;

/// Twelve batches of a record each, in segments of three.
fn twelve(rig: &Rig) -> Log {
    let mut log = rig.create();
    for i in 0..12 {
        append_synced(&mut log, batch(1, 150, 1000 + i));
    }
    assert_eq!(rig.names(".log").len(), 4, "{:?}", rig.names(".log"));
    log
}

fn rig() -> Rig {
    Rig::small(700)
}

fn remove_passed(rig: &Rig, log: &mut Log, trash: &mut Trash, delay: Duration) -> usize {
    let passed = log.take_passed();
    let count = passed.len();
    passed
        .iter()
        .for_each(|segment| trash.add(segment, &rig.shared, delay));
    count
}

fn epochs(log: &Log) -> Vec<(i32, i64)> {
    log.epochs
        .iter()
        .map(|e| (e.epoch, e.start_offset))
        .collect()
}

#[test]
fn the_start_rises_and_never_falls() {
    let rig = rig();
    let mut log = twelve(&rig);
    assert_eq!(log.raise_start(4), Ok(4));
    assert_eq!(log.raise_start(2), Ok(4));
    for offset in [-2, 13, i64::MAX, i64::MIN] {
        assert_eq!(log.raise_start(offset), Err(ErrorCode::OffsetOutOfRange));
    }
    let view = log.view();
    assert_eq!((view.log_start, view.high_watermark), (4, 12));
    let below = view.slices(&rig.shared, 3, 12, 1, true, &mut Hint::default());
    assert!(matches!(below, Err(ReadError::OutOfRange)));
    assert_eq!(seen_bases(&log)[0], 4);
    assert_eq!(log.raise_start(HIGH_WATERMARK), Ok(12));
    assert_eq!(append(&mut log, batch(1, 10, 1)), 12);
}

/// What is not synced is not seen, hence not deleted.
#[test]
fn the_high_watermark_is_the_bound() {
    let rig = rig();
    let mut log = twelve(&rig);
    append(&mut log, batch(1, 10, 1));
    assert_eq!(log.raise_start(13), Err(ErrorCode::OffsetOutOfRange));
    assert_eq!(log.raise_start(HIGH_WATERMARK), Ok(12));
}

#[test]
fn whole_segments_go_in_two_steps_and_the_active_one_stays() {
    let rig = rig();
    let mut log = twelve(&rig);
    let mut trash = Trash::default();
    let before = log.view();
    log.raise_start(5).unwrap();
    assert_eq!(remove_passed(&rig, &mut log, &mut trash, Duration::MAX), 1);
    assert_eq!(log.view().generation, before.generation + 1);
    assert_eq!(
        rig.names(".log"),
        ["3", "6", "9"].map(|b| format!("{b:0>20}.log"))
    );
    let hints = rig.names(".deleted");
    assert!(
        hints.contains(&format!("{:020}.log.deleted", 0)),
        "{hints:?}"
    );
    assert!(
        hints.contains(&format!("{:020}.index.deleted", 0)),
        "{hints:?}"
    );
    assert_eq!(remove_passed(&rig, &mut log, &mut trash, Duration::ZERO), 0);
    log.raise_start(12).unwrap();
    assert_eq!(remove_passed(&rig, &mut log, &mut trash, Duration::ZERO), 2);
    assert_eq!(rig.names(".log"), [format!("{:020}.log", 9)]);
    assert!(seen_bases(&log).is_empty());
    assert_eq!(append(&mut log, batch(1, 10, 1)), 12);
}

/// A reader that began before keeps its file; who begins later on the old view is sent to the new one.
#[test]
fn readers_keep_what_they_have_open() {
    let rig = rig();
    let mut log = twelve(&rig);
    let before = log.view();
    let slices = |view: &crate::storage::View| {
        view.slices(&rig.shared, 0, 12, 1, true, &mut Hint::default())
    };
    let held = slices(&before).unwrap();
    log.raise_start(12).unwrap();
    remove_passed(&rig, &mut log, &mut Trash::default(), Duration::ZERO);
    rig.remove(".deleted");
    let mut bytes = vec![0; held[0].len as usize];
    let read = crate::sys::read_at(&held[0].file, &mut bytes, held[0].position);
    assert_eq!(read.unwrap(), bytes.len());
    assert!(crate::batch::check_stored(&bytes).is_ok());
    assert!(matches!(slices(&before), Err(ReadError::Gone)));
}

#[test]
fn the_epoch_of_the_start_begins_there() {
    let rig = rig();
    let mut log = rig.create();
    for (epoch, records) in [(0, 3), (2, 3), (5, 3)] {
        log.set_leader_epoch(epoch);
        for _ in 0..records {
            append_synced(&mut log, batch(1, 10, 1));
        }
    }
    assert_eq!(epochs(&log), [(0, 0), (2, 3), (5, 6)]);
    log.raise_start(4).unwrap();
    assert_eq!(epochs(&log), [(2, 4), (5, 6)]);
    assert_eq!(log.view().end_offset_for_epoch(1), (1, 4));
    log.raise_start(9).unwrap();
    assert_eq!(epochs(&log), [(5, 9)]);
    assert_eq!(log.view().epoch_at(9), 5);
}

/// The checkpoint is written, the segments are still there: or they are renamed, and the unlinking never came.
#[test]
fn a_start_finds_the_log_start_and_what_it_passed() {
    for (clean, renamed) in [(true, true), (true, false), (false, true), (false, false)] {
        let rig = rig();
        let mut log = twelve(&rig);
        log.raise_start(7).unwrap();
        if renamed {
            remove_passed(&rig, &mut log, &mut Trash::default(), Duration::MAX);
        }
        if clean {
            log.close().unwrap();
        }
        let start = Start {
            log_start: Some(7),
            ..rig.start(clean, Some(12))
        };
        let (mut log, report) = rig.recover_with(&start);
        assert!(report.gaps.is_empty() && report.cut.is_none(), "{report:?}");
        let view = log.view();
        assert_eq!((view.log_start, view.high_watermark), (7, 12));
        assert_eq!(epochs(&log), [(0, 7)]);
        assert!(rig.names(".deleted").is_empty());
        let passed = remove_passed(&rig, &mut log, &mut Trash::default(), Duration::ZERO);
        assert_eq!(passed, if renamed { 0 } else { 2 });
        assert_eq!(append(&mut log, batch(1, 10, 1)), 12);
    }
}

#[test]
fn producers_go_on_where_all_their_records_are_deleted() {
    let rig = rig();
    let mut log = twelve(&rig);
    append_synced(&mut log, sent(7, 0, 0, 3));
    log.raise_start(HIGH_WATERMARK).unwrap();
    let active = log.active_producers();
    assert_eq!(
        (active.len(), active[0].id, active[0].last_sequence),
        (1, 7, 2)
    );
    append_synced(&mut log, sent(7, 0, 3, 1));
    assert_eq!(log.active_producers()[0].last_sequence, 3);
}

#[test]
fn the_first_known_epoch_may_begin_behind_the_start() {
    let known = [EpochStart {
        epoch: 4,
        start_offset: 10,
    }];
    assert_eq!(epochs_from(&known, 3), known);
    assert_eq!(epochs_from(&[], 3), []);
}
