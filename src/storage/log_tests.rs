//! Appends, rolls and failures, seen from the writer.

use super::super::testing::*;
use super::super::view::Hint;
use super::*;
use crate::batch::{CONTROL, builder::Builder};
use std::fs::OpenOptions;

#[test]
fn batches_are_stored_as_sent_but_for_their_place() {
    let rig = Rig::new();
    let mut log = rig.create();
    let first = batch(3, 100, 5000);
    let (head, body) = (first.head, first.body.clone());
    assert_eq!(append(&mut log, batch(2, 10, 4000)), 0);
    let second = base_of(log.stage(first, None, 7, 1000).unwrap());
    log.write_staged().unwrap();
    sync(&mut log);
    assert_eq!((second, log.appended_end(), log.synced_end()), (2, 5, 5));
    let stored = bytes_from(&log.view(), &rig.shared, 2, u32::MAX);
    assert_eq!(stored[..8], 2i64.to_be_bytes());
    assert_eq!(stored[8..12], head[8..12]);
    assert_eq!(stored[12..16], 7i32.to_be_bytes());
    assert_eq!(stored[16..61], head[16..]);
    assert_eq!(stored[61..], body[..]);
}

/// P2: what is not synced is not seen, unless the topic's settings trade that away.
#[test]
fn consumers_see_what_is_synced() {
    let mut rig = Rig::new();
    let mut log = rig.create();
    append_synced(&mut log, batch(1, 10, 1));
    append(&mut log, batch(1, 10, 2));
    let view = log.view();
    assert_eq!((view.high_watermark, view.appended_end), (1, 2));
    assert_eq!(seen_bases(&log), [0]);
    assert_eq!(log.unsynced_messages(), 1);
    rig.settings.visible_when_synced = false;
    log.set_settings(rig.settings.clone());
    assert_eq!(log.view().high_watermark, 2);
    assert_eq!(seen_bases(&log), [0, 1]);
}

#[test]
fn a_new_log_and_a_roll_have_their_directory_synced() {
    let rig = Rig::small(300);
    let mut log = rig.create();
    let directories = |log: &Log| {
        let is_directory = |item: &SyncItem| matches!(item, SyncItem::Directory(_));
        log.unsynced().iter().filter(|i| is_directory(i)).count()
    };
    // The segment, the leader epochs, and the directory.
    assert_eq!((log.unsynced().len(), directories(&log)), (3, 1));
    sync(&mut log);
    append(&mut log, batch(1, 150, 1));
    assert_eq!((log.unsynced().len(), directories(&log)), (1, 0));
    // One turn over three segments: the old one, and two new.
    for _ in 0..3 {
        log.stage(batch(1, 150, 1), None, 0, 1000).unwrap();
    }
    log.write_staged().unwrap();
    assert_eq!((log.unsynced().len(), directories(&log)), (5, 1));
    assert_eq!(log.view().high_watermark, 0);
    sync(&mut log);
    assert!(log.unsynced().is_empty());
    assert_eq!(seen_bases(&log), [0, 1, 2, 3]);
    assert_eq!(rig.names(".log").len(), 4);
    assert_eq!(log.view().generation, 3);
}

/// Dirty files are synced through the descriptor that wrote, whatever the cache does meanwhile.
#[test]
fn a_dirty_file_outlives_the_descriptor_cache() {
    let rig = Rig::new();
    let mut log = rig.create();
    sync(&mut log);
    append(&mut log, batch(1, 10, 1));
    let wrote = log.active.file.clone().unwrap();
    for serial in 1 << 40..(1 << 40) + 200 {
        let open = || tempfile::tempfile();
        rig.shared.descriptors.get(serial, Kind::Log, open).unwrap();
    }
    append(&mut log, batch(1, 10, 1));
    let items = log.unsynced();
    assert!(matches!(&items[..], [SyncItem::Data(file)] if Arc::ptr_eq(file, &wrote)));
}

#[test]
fn rolls_by_time_and_by_index_size() {
    let mut rig = Rig::new();
    rig.settings.segment_ms = 1000;
    let mut log = rig.create();
    append_synced(&mut log, batch(1, 10, 5000));
    append_synced(&mut log, batch(1, 10, 6000));
    append_synced(&mut log, batch(1, 10, 6001));
    assert_eq!(rig.names(".log").len(), 2);
    // No timestamps: the segment's own age counts, from its first batch on.
    let rig = Rig::new();
    let mut log = rig.create();
    for now_ms in [1 << 40, (1 << 40) + 500] {
        log.stage(batch(1, 10, -1), None, 0, now_ms).unwrap();
        log.write_staged().unwrap();
    }
    assert_eq!(rig.names(".log").len(), 1);
    // A batch from the far future begins one segment, which then ages as it is kept.
    let mut rig = Rig::new();
    rig.settings.segment_ms = 1000;
    let mut log = rig.create();
    let future = 1 << 50;
    for (now_ms, timestamp, segments) in [
        (5000, 5000, 1),
        (5500, future, 2),
        (5500, 5500, 2),
        (6000, future, 2),
        (6500, 6500, 2),
        (6501, 6501, 3),
        (6502, 6502, 3),
    ] {
        log.stage(batch(1, 10, timestamp), None, 0, now_ms).unwrap();
        log.write_staged().unwrap();
        assert_eq!(rig.names(".log").len(), segments, "{now_ms} {timestamp}");
    }
    let mut rig = Rig::small(1 << 30);
    rig.settings.index_bytes_max = 8 * 5;
    let mut log = rig.create();
    for _ in 0..20 {
        append_synced(&mut log, batch(1, 10, 1));
    }
    assert!(rig.names(".log").len() >= 4);
    assert_eq!(seen_bases(&log), (0..20).collect::<Vec<i64>>());
}

#[test]
fn an_exact_retry_is_a_duplicate_even_in_the_same_turn() {
    let rig = Rig::new();
    let mut log = rig.create();
    for i in 0..6 {
        log.stage(sent(9, 0, i * 2, 2), None, 0, 1000).unwrap();
    }
    let again = log.stage(sent(9, 0, 10, 2), None, 0, 1000).unwrap();
    let duplicate = Staged::Duplicate {
        base_offset: 10,
        last_offset: 11,
        append_time: 1000,
    };
    assert_eq!(again, duplicate);
    log.write_staged().unwrap();
    // Written but not synced: the caller sees that it must wait.
    assert_eq!(
        log.stage(sent(9, 0, 10, 2), None, 0, 1000).unwrap(),
        duplicate
    );
    assert!(log.synced_end() <= 11);
    // The window holds five: the sixth last is out of order.
    assert!(matches!(
        log.stage(sent(9, 0, 2, 2), None, 0, 1000),
        Ok(Staged::Duplicate { base_offset: 2, .. })
    ));
    let refused = log.stage(sent(9, 0, 0, 2), None, 0, 1000).unwrap_err();
    assert_eq!(refused.0, ErrorCode::OutOfOrderSequenceNumber);
    // Part of a batch is no exact duplicate.
    let refused = log.stage(sent(9, 0, 10, 1), None, 0, 1000).unwrap_err();
    assert_eq!(refused.0, ErrorCode::OutOfOrderSequenceNumber);
}

#[test]
fn sequences_follow_kafkas_rules() {
    let rig = Rig::new();
    let mut log = rig.create();
    let code = |log: &mut Log, checked| log.stage(checked, None, 0, 1000).unwrap_err().0;
    // Unknown: any first sequence; then the next only.
    append(&mut log, sent(1, 3, 50, 2));
    append(&mut log, sent(1, 3, 52, 1));
    assert_eq!(
        code(&mut log, sent(1, 3, 54, 1)),
        ErrorCode::OutOfOrderSequenceNumber
    );
    // An old epoch is fenced; a new one begins at 0.
    assert_eq!(
        code(&mut log, sent(1, 2, 0, 1)),
        ErrorCode::InvalidProducerEpoch
    );
    assert_eq!(
        code(&mut log, sent(1, 4, 53, 1)),
        ErrorCode::OutOfOrderSequenceNumber
    );
    append(&mut log, sent(1, 4, 0, 1));
    // Sequences wrap, within a batch and between two.
    append(&mut log, sent(2, 0, i32::MAX - 1, 1));
    append(&mut log, sent(2, 0, i32::MAX, 2));
    append(&mut log, sent(2, 0, 1, 1));
    append(&mut log, sent(3, 0, i32::MAX, 1));
    append(&mut log, sent(3, 0, 0, 1));
    assert!(matches!(
        log.stage(sent(2, 0, i32::MAX, 2), None, 0, 1000),
        Ok(Staged::Duplicate { .. })
    ));
    // A marker needs no sequence and changes none.
    let mut marker = Builder::new(1).producer(3, 0, -1).attributes(CONTROL);
    marker.add(Some(b"\0\0\0\x01"), Some(b"\0\0\0\0\0\0"), &[], 1);
    append(&mut log, checked(&marker));
    append(&mut log, sent(3, 0, 1, 1));
}

#[test]
fn producers_are_bounded_over_all_partitions() {
    let mut rig = Rig::new();
    rig.shared = Arc::new(Shared::new(64, 20));
    let mut log = rig.create();
    for id in 0..100 {
        append(&mut log, sent(id, 0, 7, 1));
        assert!(rig.shared.producers.used() <= 20);
    }
    assert!(rig.shared.producers.evicted() >= 80);
    // The newest are known, the idlest are not.
    assert!(
        log.stage(sent(99, 0, 7, 1), None, 0, 1000)
            .is_ok_and(|s| matches!(s, Staged::Duplicate { .. }))
    );
    assert!(
        log.stage(sent(0, 0, 3, 1), None, 0, 1000)
            .is_ok_and(|s| matches!(s, Staged::New { .. }))
    );
    drop(log);
    assert_eq!(rig.shared.producers.used(), 0);
}

/// Dead producers of a quiet partition do not drive out the living ones of a busy one.
#[test]
fn a_partition_within_its_share_of_producers_forgets_none() {
    let mut rig = Rig::new();
    rig.shared = Arc::new(Shared::new(64, 20));
    let mut quiet = rig.create();
    for id in 0..20 {
        append(&mut quiet, sent(id, 0, 0, 1));
    }
    let other = Rig::new();
    let mut busy = Log::create(other.dir.path(), &rig.shared, rig.settings.clone()).unwrap();
    for sequence in 0..30 {
        for id in 100..110 {
            append(&mut busy, sent(id, 0, sequence, 1));
        }
    }
    let retry = busy.stage(sent(100, 0, 27, 1), None, 0, 1000);
    assert!(matches!(retry, Ok(Staged::Duplicate { .. })));
    // Beyond its share it replaces its own idlest; all stay within twice the bound.
    for id in 200..300 {
        append(&mut busy, sent(id, 0, 0, 1));
        assert!(rig.shared.producers.used() <= 31);
    }
    assert!(rig.shared.producers.evicted() >= 100);
}

/// L10: a turn fails after its first segment was written (the next cannot be made): everything is taken back.
#[test]
fn a_write_that_fails_half_way_is_cut_back() {
    let rig = Rig::small(400);
    let mut log = rig.create();
    append_synced(&mut log, sent(5, 0, 0, 2));
    let before = fs::read(rig.log_file(0)).unwrap();
    let obstacle = rig.log_file(8);
    fs::create_dir(&obstacle).unwrap();
    for i in 1..4 {
        log.stage(sent(5, 0, i * 2, 2), None, 0, 1000).unwrap();
    }
    log.stage(batch(1, 300, 1), None, 0, 1000).unwrap();
    log.stage(batch(1, 300, 1), None, 0, 1000).unwrap();
    assert!(log.write_staged().is_err());
    assert!(!log.is_offline());
    assert_eq!(fs::read(rig.log_file(0)).unwrap(), before);
    assert_eq!((log.appended_end(), log.synced_end()), (2, 2));
    assert_eq!(
        rig.names(".log").len(),
        2,
        "the obstacle and the first segment"
    );
    // Sequences were taken back too: what failed is new again, at the same offsets.
    fs::remove_dir(&obstacle).unwrap();
    for i in 1..4 {
        assert_eq!(
            append_synced(&mut log, sent(5, 0, i * 2, 2)),
            i64::from(i) * 2
        );
    }
    assert_eq!(seen_bases(&log), [0, 2, 4, 6]);
}

/// A segment that was made in the failed turn goes too.
#[test]
fn new_segments_of_a_failed_turn_are_removed() {
    let rig = Rig::small(100);
    let mut log = rig.create();
    append_synced(&mut log, batch(1, 200, 1));
    fs::create_dir(rig.log_file(2)).unwrap();
    log.stage(batch(1, 200, 1), None, 0, 1000).unwrap();
    log.stage(batch(1, 200, 1), None, 0, 1000).unwrap();
    assert!(log.write_staged().is_err());
    assert!(!rig.log_file(1).exists());
    // The removal is durable before the next answer.
    assert!(matches!(&log.unsynced()[..], [SyncItem::Directory(_)]));
    fs::remove_dir(rig.log_file(2)).unwrap();
    append_synced(&mut log, batch(1, 200, 1));
    assert_eq!(seen_bases(&log), [0, 1]);
}

/// The disk is full, and the file cannot even be cut: `/dev/full` in its place answers so to both.
#[test]
fn a_log_that_cannot_be_cut_is_offline() {
    let rig = Rig::new();
    let mut log = rig.create();
    append_synced(&mut log, batch(1, 10, 1));
    let serial = log.active.segment.serial();
    rig.shared.descriptors.forget(serial);
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    rig.shared
        .descriptors
        .put(serial, Kind::Log, Arc::new(full));
    log.stage(batch(1, 10, 1), None, 0, 1000).unwrap();
    let error = log.write_staged().unwrap_err();
    assert_eq!(error.io().unwrap().raw_os_error(), Some(28), "ENOSPC");
    assert!(log.is_offline());
    let refused = log.stage(batch(1, 10, 1), None, 0, 1000).unwrap_err();
    assert_eq!(refused.0, ErrorCode::KafkaStorageError);
    assert_eq!(log.view().high_watermark, 1);
    assert!(log.close().is_err(), "no clean-shutdown marker after this");
}

#[test]
fn leader_epochs_are_on_disk_before_their_first_batch() {
    let rig = Rig::new();
    let mut log = rig.create();
    log.set_leader_epoch(0);
    append_synced(&mut log, batch(4, 10, 1));
    log.set_leader_epoch(1);
    log.set_leader_epoch(3);
    let at = |epoch, start_offset| EpochStart {
        epoch,
        start_offset,
    };
    let expected = [at(0, 0), at(3, 4)];
    assert_eq!(checkpoint::read_epochs(rig.dir.path()).unwrap(), expected);
    let view = log.view();
    assert_eq!((view.epoch_at(3), view.epoch_at(4)), (0, 3));
    assert_eq!(view.end_offset_for_epoch(3), (3, 4));
    assert_eq!(view.end_offset_for_epoch(0), (0, 4));
    assert_eq!(view.end_offset_for_epoch(2), (0, 4));
    // KAFKA-6857: what is not known has no end.
    assert_eq!(view.end_offset_for_epoch(4), (-1, -1));
    assert_eq!(view.end_offset_for_epoch(-1), (-1, -1));
}

#[test]
fn a_full_disk_at_an_epochs_checkpoint_is_made_up_for() {
    let rig = Rig::new();
    let mut log = rig.create();
    let obstacle = rig.path("leader-epoch-checkpoint.tmp");
    fs::create_dir(&obstacle).unwrap();
    log.set_leader_epoch(2);
    assert_eq!(checkpoint::read_epochs(rig.dir.path()).unwrap()[0].epoch, 0);
    append_synced(&mut log, batch(1, 10, 1));
    fs::remove_dir(&obstacle).unwrap();
    log.close().unwrap();
    assert_eq!(checkpoint::read_epochs(rig.dir.path()).unwrap()[0].epoch, 2);
}

/// The first batch of a new log finds its epoch on the disk, so many new logs do not sync one after the other in a
/// turn; a later epoch's file is named durably by the turn's own sync, the first to hear of a failure (P6).
#[test]
fn epochs_cost_no_sync_of_the_directory_in_stage() {
    let rig = Rig::new();
    let mut log = rig.create();
    let path = rig.path("leader-epoch-checkpoint");
    assert_eq!(fs::read_to_string(&path).unwrap(), "0\n1\n0 0\n");
    sync(&mut log);
    let made = fs::metadata(&path).unwrap().modified().unwrap();
    log.stage(batch(1, 10, 1), None, 0, 1000).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), made);
    log.stage(batch(1, 10, 1), None, 1, 1000).unwrap();
    log.write_staged().unwrap();
    let items = log.unsynced();
    assert!(matches!(
        &items[..],
        [SyncItem::Data(_), SyncItem::Directory(_)]
    ));
}

/// A view taken before a roll stays exact; a removed segment is told apart from a failing disk.
#[test]
fn views_are_immutable() {
    let rig = Rig::small(100);
    let mut log = rig.create();
    append_synced(&mut log, batch(1, 100, 1));
    let old = log.view();
    append_synced(&mut log, batch(1, 100, 1));
    assert_eq!(
        headers(&bytes_from(&old, &rig.shared, 0, u32::MAX)).len(),
        1
    );
    fs::remove_file(rig.log_file(0)).unwrap();
    // The descriptor is still cached: the slice stays exact.
    assert_eq!(
        headers(&bytes_from(&old, &rig.shared, 0, u32::MAX)).len(),
        1
    );
    // Another file of the same name is not taken for it.
    let cold = Shared::new(64, 10);
    fs::copy(rig.log_file(1), rig.log_file(0)).unwrap();
    let gone = old.slices(&cold, 0, 1, 100, true, &mut Hint::default());
    assert!(matches!(gone, Err(super::super::ReadError::Gone)));
}

/// A deleted topic's disk space is free at once: no descriptor stays, and an old view does not open one again.
#[test]
fn a_forgotten_log_holds_no_descriptor() {
    let rig = Rig::small(600);
    let log = fill(&rig, 8);
    let view = log.view();
    bytes_from(&view, &rig.shared, 0, u32::MAX);
    assert!(rig.shared.descriptors.len() > 3);
    log.forget();
    assert!(rig.shared.descriptors.is_empty());
    let gone = view.slices(&rig.shared, 0, 8, 100, true, &mut Hint::default());
    assert!(matches!(gone, Err(super::super::ReadError::Gone)));
    assert!(rig.shared.descriptors.is_empty());
}

#[test]
fn a_log_tells_its_rolls_epoch_and_producers() {
    let rig = Rig::small(160);
    let mut log = rig.create();
    assert_eq!((log.rolls_staged(), log.highest_producer_id()), (0, None));
    for sequence in 0..8 {
        log.stage(
            sent(700 + i64::from(sequence % 2), 0, sequence / 2, 1),
            None,
            4,
            1000,
        )
        .unwrap();
    }
    let rolls = log.rolls_staged();
    assert!(rolls >= 2);
    log.write_staged().unwrap();
    assert_eq!(log.rolls_staged(), 0);
    assert_eq!(rig.names(".log").len(), rolls + 1);
    sync(&mut log);
    log.close().unwrap();
    let (log, _) = rig.reopen();
    assert_eq!(
        (log.leader_epoch(), log.highest_producer_id()),
        (4, Some(701))
    );
}

/// A disk that is full at a roll: an index that lacks its last entries is removed, since it would pass for a whole one.
#[test]
fn an_index_that_could_not_be_ended_is_made_anew() {
    let rig = Rig::small(2000);
    let mut log = rig.create();
    for time in 1..5 {
        append_synced(&mut log, batch(1, 190, time));
    }
    let serial = log.active.segment.serial();
    rig.shared.descriptors.forget(serial);
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    rig.shared
        .descriptors
        .put(serial, Kind::TimeIndex, Arc::new(full));
    while rig.names(".log").len() == 1 {
        append(&mut log, batch(1, 190, 9000));
        sync(&mut log);
    }
    assert_eq!(rig.names("00000000000000000000.timeindex").len(), 0);
    append_synced(&mut log, batch(1, 190, 9000));
    let search = |log: &Log, shared: &Shared| {
        let view = log.view();
        let end = view.high_watermark;
        let found = view.offset_for_timestamp(shared, &rig.decoders, 9000, end);
        found.unwrap().unwrap().offset
    };
    assert_eq!(search(&log, &rig.shared), 4);
    assert_eq!(
        rig.names("00000000000000000000.index").len(),
        0,
        "readers make no file"
    );
    log.close().unwrap();
    let (log, report) = rig.reopen();
    assert_eq!(report.indexes_rebuilt, 1);
    assert_eq!(search(&log, &Shared::new(64, 10)), 4);
}
