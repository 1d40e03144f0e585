//! Gaps: offsets that were given out and whose records are gone. Where they come from, and what they mean afterwards.

use super::super::testing::*;
use super::*;
use crate::error::ErrorCode;
use tests::is_duplicate;

/// A disk that lied about a sync, a restored old copy, a file cut short: the offsets up to the recovery point were
/// given out and are given to nothing else; the epoch rises, and idempotent producers may go on.
#[test]
fn what_was_synced_and_is_gone_is_a_gap() {
    for clean in [true, false] {
        let rig = Rig::small(2000);
        let mut log = fill(&rig, 20);
        append_synced(&mut log, sent(5, 0, 0, 1));
        append_synced(&mut log, sent(5, 0, 1, 1));
        let last = log.view().active.base_offset();
        log.close().unwrap();
        // The last batch is gone, to the byte: nothing looks torn.
        let lost = sent(5, 0, 1, 1).header.total_bytes() as u64;
        set_size(&rig, last, size(&rig, last) - lost);
        let (mut log, report) = rig.recover_with(&rig.start(clean, Some(30)));
        assert_eq!(the_gap(&report), 21..30);
        assert!(report.epoch_bump_needed && report.cut.is_none());
        assert!(report.batches_read >= 21, "all of it was read");
        assert_eq!((log.synced_end(), log.recovery_point()), (30, 30));
        log.set_leader_epoch(1);
        assert_eq!(append_synced(&mut log, sent(5, 0, 7, 1)), 30);
        let mut expected = bases(0..21);
        expected.push(30);
        assert_eq!(seen_bases(&log), expected);
        drop(log);
        let (log, report) = rig.recover(Some(30));
        assert!(report.gaps.is_empty() && report.cut.is_none());
        assert_eq!(seen_bases(&log), expected);
    }
}

/// The recovery point keeps its meaning while all is read again: what is bad before it is rot, never a tear.
#[test]
fn rot_before_a_recovery_point_beyond_the_end_is_no_tear() {
    let rig = Rig::new();
    drop(fill(&rig, 20));
    overwrite(&rig, 0, 12 * batch_bytes() + 80, b"rot");
    let (log, report) = rig.recover(Some(25));
    assert_eq!(report.gaps, [12..13, 20..25]);
    assert!(report.cut.is_none());
    assert_eq!((seen_bases(&log).len(), log.appended_end()), (19, 25));
}

#[test]
fn no_segment_at_all_but_a_recovery_point() {
    for clean in [true, false] {
        let rig = Rig::new();
        let (mut log, report) = rig.recover_with(&rig.start(clean, Some(7)));
        assert_eq!(the_gap(&report), 0..7);
        assert_eq!(append_synced(&mut log, batch(1, 10, 1)), 7);
    }
}

/// Found by fuzzing: each start saw one of the holes between them, and the fourth pass gave up.
#[test]
fn empty_segments_one_after_the_other_are_gaps_at_once() {
    let rig = Rig::new();
    let bases = [5, 10, 20, 30, 40, 50, 60];
    for base in bases {
        std::fs::File::create(rig.log_file(base)).unwrap();
    }
    let (log, report) = rig.recover(Some(0));
    let expected: Vec<_> = bases.windows(2).map(|pair| pair[0]..pair[1]).collect();
    assert_eq!(report.gaps, expected);
    assert_eq!((log.log_start(), log.appended_end()), (5, 60));
}

/// P5: a producer whose batches may lie in the gap goes on with whatever it sends next; others are held to theirs.
#[test]
fn producers_may_go_on_behind_a_gap() {
    let rig = Rig::new();
    let mut log = rig.create();
    for sequence in 0..6 {
        append_synced(&mut log, sent(1, 0, sequence, 1));
    }
    for sequence in 0..3 {
        append_synced(&mut log, sent(2, 0, sequence, 1));
    }
    drop(log);
    let batch_bytes = sent(1, 0, 0, 1).header.total_bytes() as u64;
    overwrite(&rig, 0, 4 * batch_bytes + 62, b"rotten");
    overwrite(&rig, 0, 5 * batch_bytes + 62, b"rotten");
    let (mut log, report) = rig.recover(Some(9));
    assert_eq!(the_gap(&report), 4..6);
    let refused = log.stage(sent(2, 0, 7, 1), None, 0, 1000).unwrap_err();
    assert_eq!(refused.0, ErrorCode::OutOfOrderSequenceNumber);
    assert!(is_duplicate(&mut log, 1, 3, 3));
    append_synced(&mut log, sent(1, 0, 6, 1));
    let refused = log.stage(sent(1, 0, 8, 1), None, 0, 1000).unwrap_err();
    assert_eq!(refused.0, ErrorCode::OutOfOrderSequenceNumber);
}

/// P5 holds for a producer that is idle over later restarts too, with and without snapshots.
#[test]
fn a_gap_is_remembered_by_later_starts() {
    for (stops_clean, starts_clean, with_snapshots) in [
        (true, true, true),
        (true, true, false),
        (false, false, true),
        (true, false, true),
    ] {
        let rig = Rig::new();
        let mut log = rig.create();
        for sequence in 0..6 {
            append_synced(&mut log, sent(1, 0, sequence, 1));
        }
        for sequence in 0..10 {
            append_synced(&mut log, sent(2, 0, sequence, 1));
        }
        drop(log);
        let batch_bytes = sent(1, 0, 0, 1).header.total_bytes() as u64;
        overwrite(&rig, 0, 4 * batch_bytes + 62, b"rotten");
        overwrite(&rig, 0, 5 * batch_bytes + 62, b"rotten");
        for round in 0..3 {
            let start = rig.start(starts_clean && round > 0, Some(16));
            let (log, report) = rig.recover_with(&start);
            assert_eq!(report.gaps.len(), usize::from(round == 0));
            match stops_clean {
                true => drop(log.close().unwrap()),
                false => drop(log),
            }
            if !with_snapshots {
                rig.remove(".snapshot");
            }
        }
        let (mut log, _) = rig.recover_with(&rig.start(starts_clean, Some(16)));
        assert!(is_duplicate(&mut log, 1, 3, 3));
        append_synced(&mut log, sent(1, 0, 6, 1));
        let refused = log.stage(sent(1, 0, 8, 1), None, 0, 1000).unwrap_err();
        assert_eq!(refused.0, ErrorCode::OutOfOrderSequenceNumber);
    }
}

/// A rig with offsets missing at the end of segment 0; how many the next one begins at.
fn with_hole(batches: i64) -> (Rig, i64) {
    let rig = Rig::small(2000);
    let log = fill(&rig, batches);
    let next = log.view().closed[1].base_offset();
    drop(log);
    set_size(&rig, 0, size(&rig, 0) - batch_bytes());
    (rig, next)
}

/// What may have been acknowledged is never cut for a hole before it.
#[test]
fn a_hole_between_segments_is_stepped_over() {
    // However little lies behind it: a gap, reported, and found again until the recovery point has passed it.
    let (rig, next) = with_hole(30);
    let (log, report) = rig.recover(Some(0));
    assert_eq!(the_gap(&report), next - 1..next);
    assert!(report.epoch_bump_needed && report.cut.is_none());
    assert_eq!(seen_bases(&log).len(), 29);
    drop(log);
    // What compaction leaves: before the recovery point, or where nothing is known of the log.
    for recovery_point in [Some(next), None] {
        let (log, report) = rig.recover(recovery_point);
        assert!(report.gaps.is_empty() && report.cut.is_none());
        assert_eq!(seen_bases(&log).len(), 29);
    }
    // A log start that was set beyond the end.
    let (rig, next) = with_hole(30);
    let start = Start {
        log_start: Some(next),
        ..rig.start(false, Some(0))
    };
    let (log, report) = rig.recover_with(&start);
    assert!(report.gaps.is_empty() && report.cut.is_none());
    assert_eq!(log.appended_end(), 30);
}

/// A log that went on behind a gap did so in a new epoch: an older recovery point, from before, does not cut it.
#[test]
fn a_log_that_went_on_behind_a_gap_is_not_cut_there() {
    let rig = Rig::new();
    drop(fill(&rig, 10));
    let (mut log, report) = rig.recover(Some(20));
    assert!(report.epoch_bump_needed);
    log.stage(batch(1, 190, 1), None, 1, 1000).unwrap();
    log.write_staged().unwrap();
    sync(&mut log);
    drop(log);
    let (log, report) = rig.recover(Some(5));
    assert_eq!(the_gap(&report), 10..20);
    assert!(report.cut.is_none());
    assert_eq!(log.appended_end(), 21);
}

/// A log whose every record is about to be believed is read even after a clean stop, sealed segments too: rot in any
/// batch is a gap, and never a tear.
#[test]
fn a_log_of_the_brokers_own_is_checked_after_any_stop() {
    for clean in [true, false] {
        for rotten in [0, 13, 29] {
            let rig = Rig::small(2000);
            let log = fill(&rig, 30);
            let bases = rig.names(".log");
            let bases = bases.iter().map(|name| name[..20].parse::<i64>().unwrap());
            let base = bases.filter(|base| *base <= rotten).max().unwrap();
            log.close().unwrap();
            let at = (rotten - base) as u64 * batch_bytes() + 80;
            overwrite(&rig, base, at, b"rot");
            let start = Start {
                check_all: true,
                ..rig.start(clean, Some(30))
            };
            let (mut log, report) = rig.recover_with(&start);
            assert_eq!(the_gap(&report), rotten..rotten + 1, "{clean}");
            assert_eq!(seen_bases(&log).len(), 29);
            assert_eq!(append_synced(&mut log, batch(1, 10, 1)), 30);
            drop(log);
            let (_, report) = rig.recover_with(&start);
            assert!(report.gaps.is_empty(), "{report:?}");
        }
        let rig = Rig::small(2000);
        fill(&rig, 30).close().unwrap();
        let start = Start {
            check_all: true,
            ..rig.start(true, Some(30))
        };
        assert_eq!(rig.recover_with(&start).1, Report::default(), "as any");
    }
}

/// P5: what its coordinator committed counts; what it did not, or nobody knows of, must not count with what its
/// producer commits next. In the middle of a segment and at the end of one, and also at later starts.
#[test]
fn a_lost_marker_is_made_up_for_when_the_next_epoch_begins() {
    for (outcome, at_end) in [
        (None, false),
        (Some(false), false),
        (Some(true), false),
        (None, true),
    ] {
        let rig = Rig::small(if at_end { 320 } else { 1 << 20 });
        let mut log = rig.create();
        append_synced(&mut log, transactional(7, 3, 0, 1));
        append_synced(&mut log, batch(1, 30, 10));
        append_synced(&mut log, ending(7, 4, outcome == Some(true), 0));
        let first = log.view().active.bytes;
        append_synced(&mut log, transactional(7, 4, 0, 1));
        append_synced(&mut log, ending(7, 5, true, 0));
        let segments = log.view().segments().count();
        assert_eq!(segments, 1 + usize::from(at_end), "{first}");
        drop(log);
        overwrite(&rig, 0, u64::from(first) - 9, b"rot");
        for round in 0..3 {
            let start = Start {
                outcome: &|id, epoch| outcome.filter(|_| (id, epoch) == (7, 3)),
                ..rig.start(false, Some(5))
            };
            let start = match at_end {
                true => Start {
                    recovery_point: Some(0),
                    ..start
                },
                false => start,
            };
            let (log, report) = rig.recover_with(&start);
            assert_eq!(report.gaps.len(), usize::from(round == 0));
            assert_eq!(seen_bases(&log), [0, 1, 2, 3, 4]);
            let shared = Shared::new(64, 10);
            let aborted = log.view().aborted_between(&shared, 0..5).unwrap();
            let aborted: Vec<_> = aborted
                .iter()
                .map(|a| (a.first_offset, a.last_offset))
                .collect();
            match outcome {
                Some(true) => assert_eq!(aborted, []),
                _ => assert_eq!(aborted, [(0, 2)]),
            }
            assert!(log.open_transactions().is_empty());
        }
    }
}

/// A crash after the rot was taken out, and before the marker was put there: what was aborted is still known.
#[test]
fn a_crash_within_a_repair_loses_no_marker() {
    for commits_first in [false, true] {
        let rig = Rig::new();
        let mut log = rig.create();
        append_synced(&mut log, transactional(7, 3, 0, 1));
        append_synced(&mut log, batch(1, 30, 10));
        let from = log.view().active.bytes;
        append_synced(&mut log, ending(7, 3, commits_first, 0));
        let to = log.view().active.bytes;
        append_synced(&mut log, transactional(7, 3, 1, 1));
        append_synced(&mut log, ending(7, 3, !commits_first, 0));
        drop(log);
        let dir: Arc<Path> = rig.dir.path().into();
        let (segment, file) = crate::storage::segment::Segment::open(&dir, 0, ".log").unwrap();
        let rotten = u64::from(from)..u64::from(to);
        repair::excise(&dir, &segment, &file, std::slice::from_ref(&rotten)).unwrap();
        for _ in 0..3 {
            let (log, _) = rig.recover(Some(5));
            assert_eq!(seen_bases(&log), [0, 1, 2, 3, 4]);
            let shared = Shared::new(64, 10);
            let aborted = log.view().aborted_between(&shared, 0..5).unwrap();
            let aborted: Vec<_> = aborted
                .iter()
                .map(|a| (a.first_offset, a.last_offset))
                .collect();
            let expected = if commits_first { (3, 4) } else { (0, 2) };
            assert_eq!(aborted, [expected]);
            assert!(log.open_transactions().is_empty());
        }
    }
}

/// Offsets beyond what four bytes count are no sign of rot: the check of each start would else write the whole log
/// anew.
#[test]
fn a_log_of_the_brokers_own_may_grow_old() {
    const OLD: i64 = 3 << 30;
    let rig = Rig::small(2000);
    let young = Start {
        log_start: Some(OLD),
        ..rig.start(true, None)
    };
    let (mut log, _) = rig.recover_with(&young);
    for n in 0..30 {
        assert_eq!(append_synced(&mut log, batch(1, 10, 1)), OLD + n);
    }
    log.close().unwrap();
    for clean in [true, false] {
        let start = Start {
            check_all: true,
            log_start: Some(OLD),
            ..rig.start(clean, Some(OLD + 30))
        };
        let (log, report) = rig.recover_with(&start);
        assert_eq!(seen_bases(&log).len(), 30);
        assert!(report.batches_read < 30, "{report:?}");
    }
}
