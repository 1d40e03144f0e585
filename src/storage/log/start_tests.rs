//! The log start: how it rises, what goes with it, and what a start finds of it.

use super::*;
use crate::storage::testing::*;
use crate::storage::{Hint, ReadError, Start, Trash};
use crate::sys;
use std::fs;
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
    let held = slices(&before).unwrap().files;
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

/// The last of the first `count` segments.
fn behind(log: &Log, count: usize) -> LastToGo {
    let view = log.view();
    let extent = view.extent(count - 1).unwrap();
    LastToGo {
        segment: extent.segment.serial(),
        end_offset: extent.end_offset,
    }
}

/// P4: what was decided holds for the segments that were looked at, however many came since.
#[test]
fn retention_passes_the_segments_that_were_looked_at() {
    let rig = rig();
    let mut log = twelve(&rig);
    let second = behind(&log, 2);
    for _ in 0..6 {
        append_synced(&mut log, batch(1, 150, 2000));
    }
    assert_eq!(log.pass_segments(second, TIME_MS), Ok(6));
    assert_eq!(log.view().log_start, 0, "not before it is durable");
    log.raise_start(6).unwrap();
    assert_eq!(log.take_passed().len(), 2);
    let gone = Err(ErrorCode::OffsetOutOfRange);
    assert_eq!(log.pass_segments(second, TIME_MS), gone);
    // One that has grown since.
    append_synced(&mut log, batch(1, 10, 2000));
    let last = behind(&log, log.closed.len() + 1);
    append_synced(&mut log, batch(1, 10, 2000));
    assert_eq!(log.pass_segments(last, TIME_MS), gone);
}

/// Kafka: the log goes on in an empty segment where the last one ended.
#[test]
fn a_last_segment_that_goes_is_rolled_first() {
    let rig = rig();
    let mut log = twelve(&rig);
    append_synced(&mut log, sent(7, 0, 0, 3));
    let all = behind(&log, log.closed.len() + 1);
    assert_eq!(log.pass_segments(all, TIME_MS), Ok(15));
    sync(&mut log);
    log.raise_start(15).unwrap();
    remove_passed(&rig, &mut log, &mut Trash::default(), Duration::ZERO);
    assert_eq!(rig.names(".log"), [format!("{:020}.log", 15)]);
    let view = log.view();
    assert_eq!(
        (view.log_start, view.high_watermark, view.total_bytes()),
        (15, 15, 0)
    );
    let nothing = view.slices(&rig.shared, 15, 15, 1, true, &mut Hint::default());
    assert!(nothing.unwrap().files.is_empty());
    assert_eq!(append_synced(&mut log, sent(7, 0, 3, 1)), 15);
    assert_eq!(seen_bases(&log), [15]);
}

/// At a roll and at a clean stop; what is read back counts as appended now, since nobody knows better.
#[test]
fn the_time_of_the_last_append_outlives_a_stop() {
    let rig = rig();
    let mut log = rig.create();
    for age_ms in [400, 300, 200, 100] {
        let staged = log.stage(batch(1, 250, 1), None, 0, TIME_MS - age_ms);
        staged.unwrap();
        log.write_staged().unwrap();
        sync(&mut log);
    }
    let times = |log: &Log| {
        let extents = log.view();
        let times = (0..4).map_while(|at| Some(extents.extent(at)?.last_append_ms));
        times
            .map(|time| time.map(|t| TIME_MS - t))
            .collect::<Vec<_>>()
    };
    let stopped = [Some(300), Some(100)];
    assert_eq!(times(&log), stopped);
    log.close().unwrap();
    let (log, _) = rig.reopen();
    assert_eq!(times(&log), stopped);
    drop(log);
    let (log, _) = rig.recover(Some(3));
    assert_eq!(times(&log), [Some(300), Some(0)]);
    drop(log);
    let (log, _) = rig.recover(None);
    assert_eq!(times(&log), [Some(0), Some(0)]);
    log.close().unwrap();
    let later = Start {
        time_ms: TIME_MS + 50,
        ..rig.start(true, None)
    };
    assert_eq!(times(&rig.recover_with(&later).0), [Some(0), Some(0)]);
}

/// A clock that was not set, or a copy from elsewhere: counted from the first start that sees it, not from each.
#[test]
fn an_impossible_time_of_modification_is_corrected_once() {
    let rig = rig();
    twelve(&rig).close().unwrap();
    let first = rig.names(".log").remove(0);
    let file = fs::File::options().write(true).open(rig.path(&first));
    sys::set_modified(&file.unwrap(), 86_400_000).unwrap();
    for time_ms in [TIME_MS + 1_000, TIME_MS + 5_000] {
        let start = Start {
            time_ms,
            ..rig.start(true, None)
        };
        let (log, _) = rig.recover_with(&start);
        let seen = log.view().extent(0).unwrap().last_append_ms;
        assert_eq!(seen, Some(TIME_MS + 1_000));
        log.close().unwrap();
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
