//! Each row of the recovery table, made and opened.

use super::super::Staged;
use super::super::testing::*;
use super::*;
use crate::clock::CLOCK_FLOOR_MS;
use crate::error::ErrorCode;
use std::fs::{self, OpenOptions};
use std::time::Duration;

#[test]
fn clean_start_reads_no_record() {
    let rig = Rig::small(2000);
    let log = fill(&rig, 30);
    log.close().unwrap();
    let (log, report) = rig.reopen();
    assert_eq!(report, Report::default());
    assert_eq!(log.synced_end(), 30);
    assert_eq!(seen_bases(&log), bases(0..30));
    assert!(rig.names(".log").len() > 3);
}

#[test]
fn a_stop_writes_nothing_where_nothing_changed() {
    let rig = Rig::small(2000);
    assert!(!fill(&rig, 30).close().unwrap().is_empty());
    for _ in 0..2 {
        assert!(rig.reopen().0.close().unwrap().is_empty());
    }
    let mut log = rig.reopen().0;
    append_synced(&mut log, batch(1, 190, 5));
    assert!(!log.close().unwrap().is_empty());
    // What a start had to make good is made durable.
    fs::write(rig.path("00000000000000000031.snapshot"), "damaged").unwrap();
    assert!(!rig.reopen().0.close().unwrap().is_empty());
    rig.remove("timeindex");
    assert!(!rig.reopen().0.close().unwrap().is_empty());
    let unclean = rig.recover(Some(31)).0;
    assert!(!unclean.close().unwrap().is_empty());
    assert!(rig.reopen().0.close().unwrap().is_empty());
}

#[test]
fn clean_start_goes_on_where_the_log_was() {
    let rig = Rig::small(2000);
    let mut log = fill(&rig, 3);
    for round in 1..12 {
        log.close().unwrap();
        log = rig.reopen().0;
        assert_eq!(append_synced(&mut log, batch(1, 190, 5)), 2 + round);
    }
    assert_eq!(seen_bases(&log), bases(0..14));
}

#[test]
fn clean_start_of_a_log_that_is_not_so_reads_it() {
    let rig = Rig::new();
    let log = fill(&rig, 10);
    log.close().unwrap();
    set_size(&rig, 0, 9 * batch_bytes() + 100);
    let (log, report) = rig.reopen();
    assert_eq!(seen_bases(&log), bases(0..9));
    assert_eq!(report.cut.unwrap().bytes, 100);
}

#[test]
fn missing_indexes_are_rebuilt() {
    for clean in [true, false] {
        let rig = Rig::small(2000);
        let log = fill(&rig, 30);
        log.close().unwrap();
        let before: Vec<Vec<u8>> = rig
            .names("index")
            .iter()
            .map(|name| fs::read(rig.path(name)).unwrap())
            .collect();
        assert!(before.iter().any(|index| !index.is_empty()));
        rig.remove("index");
        let (log, report) = rig.recover_with(&rig.start(clean, Some(30)));
        assert!(report.indexes_rebuilt >= 4);
        assert_eq!(seen_bases(&log), bases(0..30));
        log.close().unwrap();
        let after: Vec<Vec<u8>> = rig
            .names("index")
            .iter()
            .map(|name| fs::read(rig.path(name)).unwrap())
            .collect();
        assert_eq!(before, after);
    }
}

/// P9, and zero-filled pages after a power cut: an index that the log denies is rebuilt.
#[test]
fn garbage_indexes_are_rebuilt() {
    let rig = Rig::small(2000);
    fill(&rig, 30).close().unwrap();
    for name in rig.names("index") {
        let len = fs::metadata(rig.path(&name)).unwrap().len() as usize;
        let fill = if name.starts_with("00000000000000000000") {
            vec![0; len]
        } else {
            vec![0x5a; len]
        };
        fs::write(rig.path(&name), fill).unwrap();
    }
    let (log, report) = rig.reopen();
    assert!(report.indexes_rebuilt >= 4);
    assert_eq!(seen_bases(&log), bases(0..30));
}

/// Kafka preallocates indexes and leaves zeros behind their entries after a crash.
#[test]
fn preallocated_indexes_are_trimmed() {
    let rig = Rig::small(2000);
    fill(&rig, 30).close().unwrap();
    let searched = |name: &String| !name.ends_with(".txnindex");
    for name in rig.names("index").into_iter().filter(searched) {
        let file = OpenOptions::new()
            .write(true)
            .open(rig.path(&name))
            .unwrap();
        let len = file.metadata().unwrap().len();
        file.set_len(len + 12 * 8 * 1000).unwrap();
    }
    let (mut log, report) = rig.reopen();
    assert_eq!(report.indexes_rebuilt, 0);
    append_synced(&mut log, batch(1, 190, 1000));
    assert_eq!(seen_bases(&log), bases(0..31));
    assert!(
        fs::metadata(rig.path(&rig.names(".index")[0]))
            .unwrap()
            .len()
            < 1000
    );
}

#[test]
fn unclean_start_reads_only_past_the_recovery_point() {
    let rig = Rig::small(2000);
    let log = fill(&rig, 30);
    let last_base = *log.view().closed.last().map(|e| &e.end_offset).unwrap();
    drop(log);
    let (log, report) = rig.recover(Some(30));
    assert_eq!(report.batches_read as i64, 30 - last_base);
    assert!(report.cut.is_none() && !report.epoch_bump_needed);
    assert_eq!(seen_bases(&log), bases(0..30));
    drop(log);
    let (_, report) = rig.recover(None);
    assert_eq!(report.batches_read, 30);
}

#[test]
fn no_segment_at_all() {
    let rig = Rig::new();
    fs::write(rig.path("00000000000000000000.index"), [1; 8]).unwrap();
    fs::write(rig.path("00000000000000000007.snapshot"), [1; 8]).unwrap();
    let start = Start {
        log_start: Some(5),
        ..rig.start(false, Some(5))
    };
    let (mut log, _) = rig.recover_with(&start);
    assert!(rig.names(".index").len() <= 1 && rig.names(".snapshot").is_empty());
    assert_eq!(append_synced(&mut log, batch(1, 10, 1)), 5);
}

#[test]
fn the_log_start_lies_beyond_the_end() {
    let rig = Rig::new();
    fill(&rig, 3).close().unwrap();
    let start = Start {
        log_start: Some(10),
        ..rig.start(true, None)
    };
    let (mut log, _) = rig.recover_with(&start);
    assert_eq!((log.log_start(), log.appended_end()), (10, 10));
    append_synced(&mut log, batch(1, 10, 1));
    assert_eq!(seen_bases(&log), [10]);
}

#[test]
fn names_that_a_crash_left() {
    let rig = Rig::small(2000);
    fill(&rig, 30).close().unwrap();
    let left = [
        "00000000000000000099.index",
        "00000000000000000099.timeindex",
        "00000000000000000000.log.cleaned",
        "00000000000000000000.log.deleted",
        "leader-epoch-checkpoint.tmp",
    ];
    let kept = ["7.log", "notes.txt", "00000000000000000000.log.12.0.torn"];
    for name in left.iter().chain(&kept) {
        fs::write(rig.path(name), b"left").unwrap();
    }
    let (log, _) = rig.reopen();
    assert_eq!(seen_bases(&log), bases(0..30));
    assert!(left.iter().all(|name| !rig.path(name).exists()));
    assert!(kept.iter().all(|name| rig.path(name).exists()));
}

/// L5: Kafka crashed while it put a compacted segment in place of two.
#[test]
fn a_swap_is_finished() {
    let rig = Rig::small(2000);
    let log = fill(&rig, 30);
    let (second, third) = (
        log.view().closed[1].base_offset(),
        log.view().closed[2].base_offset(),
    );
    log.close().unwrap();
    let mut merged = fs::read(rig.log_file(0)).unwrap();
    let kept_of_second = batch_bytes() as usize * (third - second - 1) as usize;
    let skipped = batch_bytes() as usize;
    let second_bytes = fs::read(rig.log_file(second)).unwrap();
    merged.extend_from_slice(&second_bytes[skipped..skipped + kept_of_second]);
    fs::write(rig.path("00000000000000000000.log.swap"), merged).unwrap();
    fs::remove_file(rig.log_file(0)).unwrap();
    let (log, _) = rig.reopen();
    let mut expected = bases(0..30);
    expected.retain(|&base| base != second);
    assert_eq!(seen_bases(&log), expected);
    assert!(!rig.log_file(second).exists());
}

pub fn is_duplicate(log: &mut Log, id: i64, sequence: i32, base: i64) -> bool {
    let staged = log.stage(sent(id, 0, sequence, 1), None, 0, 1000);
    matches!(staged, Ok(Staged::Duplicate { base_offset, .. }) if base_offset == base)
}

/// Retries of all five batches in flight, after any kind of restart: no duplicate, no false OUT_OF_ORDER.
#[test]
fn the_window_of_five_survives_restarts() {
    for (clean, without_snapshots) in [(true, false), (false, false), (true, true), (false, true)] {
        let rig = Rig::small(600);
        let mut log = rig.create();
        for sequence in 0..25 {
            append_synced(&mut log, sent(77, 0, sequence, 1));
        }
        assert!(rig.names(".log").len() > 3);
        match clean {
            true => drop(log.close().unwrap()),
            false => drop(log),
        }
        if without_snapshots {
            rig.remove(".snapshot");
        }
        let (mut log, _) = rig.recover_with(&rig.start(clean, Some(24)));
        for sequence in 20..25 {
            assert!(is_duplicate(&mut log, 77, sequence, i64::from(sequence)));
        }
        let refused = log.stage(sent(77, 0, 26, 1), None, 0, 1000).unwrap_err();
        assert_eq!(refused.0, ErrorCode::OutOfOrderSequenceNumber);
        assert_eq!(append(&mut log, sent(77, 0, 25, 1)), 25);
    }
}

#[test]
fn a_damaged_snapshot_gives_way_to_an_older_one() {
    let rig = Rig::small(600);
    let mut log = rig.create();
    for sequence in 0..25 {
        append_synced(&mut log, sent(77, 0, sequence, 1));
    }
    log.close().unwrap();
    let snapshots = rig.names(".snapshot");
    assert_eq!(snapshots.len(), 3);
    let path = rig.path(&snapshots[2]);
    let mut bytes = fs::read(&path).unwrap();
    bytes[20] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (mut log, _) = rig.reopen();
    assert!(is_duplicate(&mut log, 77, 22, 22));
}

/// What a snapshot says beyond the cut is forgotten with it.
#[test]
fn a_cut_takes_back_producers_too() {
    let rig = Rig::new();
    let mut log = rig.create();
    for sequence in 0..10 {
        append_synced(&mut log, sent(5, 0, sequence, 1));
    }
    log.close().unwrap();
    assert_eq!(repair::tidy(rig.dir.path()).unwrap().snapshots, [10]);
    let whole = size(&rig, 0);
    set_size(&rig, 0, whole - 5);
    let (mut log, _) = rig.recover(Some(5));
    assert!(repair::tidy(rig.dir.path()).unwrap().snapshots.is_empty());
    // The removal is durable before the next answer.
    assert_eq!(log.unsynced().len(), 1);
    assert!(is_duplicate(&mut log, 5, 8, 8));
    assert_eq!(append(&mut log, sent(5, 0, 9, 1)), 9);
}

#[test]
fn epochs_come_from_batches_and_never_from_beyond_the_end() {
    let rig = Rig::new();
    let mut log = rig.create();
    for epoch in [0, 0, 2, 5] {
        log.stage(batch(1, 190, 1), None, epoch, 1000).unwrap();
        log.write_staged().unwrap();
    }
    drop(log);
    rig.remove("leader-epoch-checkpoint");
    rig.remove("leader-epoch-checkpoint.previous");
    let (log, _) = rig.recover(None);
    let epochs = |log: &Log| {
        log.view()
            .epochs
            .iter()
            .map(|e| e.epoch)
            .collect::<Vec<i32>>()
    };
    assert_eq!(epochs(&log), [0, 2, 5]);
    drop(log);
    let whole = size(&rig, 0);
    set_size(&rig, 0, whole - batch_bytes() - 1);
    let (log, _) = rig.recover(None);
    assert_eq!(log.appended_end(), 2);
    assert_eq!(epochs(&log), [0, 2]);
}

/// A batch larger than the scanner's buffer: its CRC is computed piece by piece.
#[test]
fn large_batches_are_read() {
    let rig = Rig::new();
    let mut log = rig.create();
    for bytes in [10, 3 << 20, 100, 2 << 20] {
        append_synced(&mut log, batch(1, bytes, 1));
    }
    drop(log);
    let before = fs::read(rig.log_file(0)).unwrap();
    let (log, report) = rig.recover(None);
    assert_eq!((log.appended_end(), report.batches_read), (4, 4));
    assert_eq!(fs::read(rig.log_file(0)).unwrap(), before);
    drop(log);
    overwrite(&rig, 0, before.len() as u64 - 10, b"rot");
    let (log, report) = rig.recover(Some(3));
    assert_eq!((log.appended_end(), report.cut.unwrap().offset), (3, 3));
}

/// Absence: what a power cut may leave of a log is its synced bytes and any part of what came after.
#[test]
fn every_synced_batch_survives_any_cut_of_the_rest() {
    let rig = Rig::small(2000);
    let mut log = fill(&rig, 12);
    let synced = log.synced_end();
    let active = log.view().active.base_offset();
    let synced_bytes = size(&rig, active);
    for _ in 0..3 {
        log.stage(batch(1, 50, 1), None, 0, 1000).unwrap();
    }
    log.write_staged().unwrap();
    drop(log);
    let all = fs::read(rig.log_file(active)).unwrap();
    for len in synced_bytes..=all.len() as u64 {
        let copy = Rig::small(2000);
        copy_dir(rig.dir.path(), copy.dir.path());
        set_size(&copy, active, len);
        let (log, _) = copy.recover(Some(synced - 2));
        let bases = seen_bases(&log);
        assert!(bases.len() as i64 >= synced, "cut at {len}");
        assert_eq!(bases, self::bases(0..bases.len() as i64));
        // The same with the rest zero-filled, as some filesystems leave it.
        let copy = Rig::small(2000);
        copy_dir(rig.dir.path(), copy.dir.path());
        set_size(&copy, active, len);
        set_size(&copy, active, all.len() as u64);
        let (log, _) = copy.recover(Some(synced - 2));
        assert!(seen_bases(&log).len() as i64 >= synced, "zeros from {len}");
    }
}

/// The same bytes go back to where they were, and no others: recovery leaves a sound log as it is.
#[test]
fn recovery_of_a_sound_log_changes_no_byte_and_no_answer() {
    let rig = Rig::small(2000);
    drop(fill(&rig, 30));
    let names = rig.names(".log");
    let read = |name: &String| fs::read(rig.path(name)).unwrap();
    let before: Vec<Vec<u8>> = names.iter().map(read).collect();
    for recovery_point in [None, Some(0), Some(7), Some(29), Some(30)] {
        let (log, report) = rig.recover(recovery_point);
        assert!(report.cut.is_none() && report.gaps.is_empty());
        assert_eq!(log.unsynced().len(), 0);
        let view = log.view();
        let found = view.offset_for_timestamp(&rig.shared, &rig.decoders, 155, 30);
        assert_eq!(found.unwrap().unwrap().offset, 16);
        let after: Vec<Vec<u8>> = names.iter().map(read).collect();
        assert_eq!(before, after);
    }
}

/// P6: after a failed sync the page cache is not the disk. What lies past the recovery point is written again.
#[test]
fn what_lies_past_the_recovery_point_is_written_back() {
    let rig = Rig::new();
    drop(fill(&rig, 30));
    let path = rig.log_file(0);
    let long_ago = std::time::UNIX_EPOCH + Duration::from_millis(CLOCK_FLOOR_MS as u64);
    for (recovery_point, expected) in [(None, true), (Some(29), true), (Some(30), false)] {
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_modified(long_ago).unwrap();
        drop(rig.recover(recovery_point));
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        assert_eq!(modified != long_ago, expected, "{recovery_point:?}");
    }
}

/// strimzi#7484: a disk that is full at start keeps nothing from starting but what must be written. Directories in
/// the indexes' places cannot be written either.
#[test]
fn indexes_that_cannot_be_written_are_done_without() {
    let rig = Rig::small(2000);
    drop(fill(&rig, 30));
    for name in rig.names("index") {
        fs::remove_file(rig.path(&name)).unwrap();
        fs::create_dir(rig.path(&name)).unwrap();
    }
    let (mut log, _) = rig.recover(None);
    assert_eq!(seen_bases(&log), bases(0..30));
    append_synced_without_indexes(&mut log);
    assert_eq!(seen_bases(&log), bases(0..31));
}

fn append_synced_without_indexes(log: &mut Log) {
    append(log, batch(1, 190, 1));
    sync(log);
    assert!(log.flush_indexes().is_err());
}

/// P2 traded away: consumers may have seen what an unclean stop took, so the epoch must rise.
#[test]
fn an_unsynced_log_rises_its_epoch_after_any_unclean_stop() {
    let mut rig = Rig::new();
    rig.settings.visible_when_synced = false;
    fill(&rig, 5).close().unwrap();
    assert!(!rig.reopen().1.epoch_bump_needed);
    assert!(rig.recover(Some(5)).1.epoch_bump_needed);
}
