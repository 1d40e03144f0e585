//! Transactions in a log: what is refused, what is stable, what is listed as aborted, and what a start finds of it.

use super::*;
use crate::batch::check::Checked;
use crate::error::ErrorCode;
use crate::storage::aborted::Aborted;
use crate::storage::recovery::Start;
use crate::storage::testing::*;
use crate::storage::{Hint, Shared, Staged, View};
use crate::txn::Serial;
use std::fs;
use std::sync::Arc;

const ABORT: bool = false;
const COMMIT: bool = true;

fn stage(log: &mut Log, batch: Checked, serial: u64) -> Result<Staged, ErrorCode> {
    let staged = log.stage(batch, Some(Serial(serial)), 0, 1000);
    staged.map_err(|refused| refused.0)
}

/// Appends in a turn of its own; what was given is not yet seen.
fn put(log: &mut Log, batch: Checked, serial: u64) -> i64 {
    let base = base_of(stage(log, batch, serial).unwrap());
    log.write_staged().unwrap();
    base
}

fn put_synced(log: &mut Log, batch: Checked, serial: u64) -> i64 {
    let base = put(log, batch, serial);
    sync(log);
    log.flush_indexes().unwrap();
    base
}

fn last_stable(log: &Log) -> i64 {
    log.view().last_stable
}

/// The aborted transactions of a fetch of at most `bytes_max`: producer id and first offset.
fn aborted(view: &View, shared: &Shared, offset: i64, bytes_max: u32) -> Vec<(i64, i64)> {
    let mut hint = Hint::default();
    let slices = view.slices(shared, offset, view.last_stable, bytes_max, true, &mut hint);
    if slices.unwrap().files.is_empty() {
        return Vec::new();
    }
    let listed = view.aborted(shared, offset, hint).unwrap();
    listed
        .iter()
        .map(|a| (a.producer_id, a.first_offset))
        .collect()
}

fn all_aborted(rig: &Rig, log: &Log) -> Vec<(i64, i64)> {
    aborted(&log.view(), &rig.shared, log.log_start(), u32::MAX)
}

#[test]
fn the_last_stable_offset_waits_for_the_first_open_transaction_and_its_synced_marker() {
    let rig = Rig::new();
    let mut log = rig.create();
    append_synced(&mut log, sent(1, 0, 0, 2));
    put_synced(&mut log, transactional(7, 0, 0, 1), 1);
    put_synced(&mut log, transactional(8, 0, 0, 1), 2);
    append_synced(&mut log, sent(1, 0, 2, 1));
    assert_eq!((last_stable(&log), log.view().high_watermark), (2, 5));
    put_synced(&mut log, ending(8, 0, ABORT, 0), 2);
    assert_eq!(last_stable(&log), 2);
    put(&mut log, ending(7, 0, COMMIT, 0), 1);
    assert_eq!(last_stable(&log), 2, "the marker is not synced");
    sync(&mut log);
    assert_eq!(last_stable(&log), 7);
    assert_eq!(all_aborted(&rig, &log), [(8, 3)]);
    assert!(log.open_transactions().is_empty());
}

#[test]
fn a_marker_without_a_transaction_is_no_aborted_one() {
    let rig = Rig::new();
    let mut log = rig.create();
    put_synced(&mut log, ending(7, 3, ABORT, 4), 1);
    assert_eq!((last_stable(&log), all_aborted(&rig, &log)), (1, vec![]));
    let active = &log.active_producers()[0];
    let told = (active.epoch, active.coordinator_epoch, active.last_sequence);
    assert_eq!(told, (3, 4, -1));
}

/// A late batch must never open a transaction that nobody will end.
#[test]
fn a_batch_that_comes_behind_its_marker_is_refused() {
    let rig = Rig::new();
    let mut log = rig.create();
    put(&mut log, transactional(7, 0, 0, 1), 1);
    put(&mut log, ending(7, 0, ABORT, 0), 1);
    let late = stage(&mut log, transactional(7, 0, 1, 1), 1);
    assert_eq!(late, Err(ErrorCode::InvalidTxnState));
    let stray = log.stage(transactional(7, 0, 1, 1), None, 0, 1000);
    assert_eq!(stray.unwrap_err().0, ErrorCode::InvalidTxnState);
    let unknown = log.stage(transactional(9, 0, 0, 1), None, 0, 1000);
    assert_eq!(unknown.unwrap_err().0, ErrorCode::InvalidTxnState);
    // A retry of what is there is answered all the same, and the next transaction goes on in sequence.
    let again = stage(&mut log, transactional(7, 0, 0, 1), 1);
    assert!(matches!(again, Ok(Staged::Duplicate { .. })), "{again:?}");
    put(&mut log, transactional(7, 0, 1, 1), 2);
    assert_eq!(log.open_transactions(), [(7, 0, 2)]);
}

#[test]
fn an_evicted_producers_late_batch_is_refused() {
    let mut rig = Rig::new();
    rig.shared = Arc::new(Shared::new(64, 2));
    let mut log = rig.create();
    put(&mut log, transactional(7, 0, 0, 1), 5);
    put(&mut log, ending(7, 0, COMMIT, 0), 5);
    for id in 20..24 {
        append(&mut log, sent(id, 0, 0, 1));
    }
    assert!(log.active_producers().iter().all(|p| p.id != 7));
    let late = stage(&mut log, transactional(7, 0, 1, 1), 5);
    assert_eq!(late, Err(ErrorCode::InvalidTxnState));
    put(&mut log, transactional(7, 0, 1, 1), 6);
}

#[test]
fn an_expired_producers_late_batch_is_refused() {
    let rig = Rig::new();
    let mut log = rig.create();
    put(&mut log, transactional(7, 0, 0, 1), 5);
    put(&mut log, ending(7, 0, COMMIT, 0), 5);
    sync(&mut log);
    log.expire_producers(1_000, 10);
    log.expire_producers(2_000, 10);
    assert_eq!(log.active_producers(), []);
    let late = stage(&mut log, transactional(7, 0, 1, 1), 5);
    assert_eq!(late, Err(ErrorCode::InvalidTxnState));
}

/// The coordinator's epoch begins anew with `__transaction_state`, and an operator may have said a higher one.
#[test]
fn what_is_open_ends_whatever_the_coordinators_epoch() {
    let rig = Rig::new();
    let mut log = rig.create();
    put(&mut log, transactional(7, 0, 0, 1), 1);
    put(&mut log, ending(7, 0, COMMIT, i32::MAX), 1);
    put(&mut log, transactional(7, 0, 1, 1), 2);
    put(&mut log, ending(7, 0, ABORT, 0), 2);
    sync(&mut log);
    assert_eq!(
        (last_stable(&log), all_aborted(&rig, &log)),
        (4, vec![(7, 2)])
    );
    assert_eq!(log.active_producers()[0].coordinator_epoch, 0);
}

#[test]
fn markers_fence_by_both_epochs() {
    let rig = Rig::new();
    let mut log = rig.create();
    put(&mut log, transactional(7, 2, 0, 1), 1);
    let old = stage(&mut log, ending(7, 1, ABORT, 0), 1);
    assert_eq!(old, Err(ErrorCode::InvalidProducerEpoch));
    put(&mut log, ending(7, 2, COMMIT, 5), 1);
    let zombie = stage(&mut log, ending(7, 2, COMMIT, 4), 2);
    assert_eq!(zombie, Err(ErrorCode::TransactionCoordinatorFenced));
    put(&mut log, ending(7, 2, COMMIT, 5), 2);
}

/// KIP-890: the marker's epoch is one above the producer's, which fences what comes late.
#[test]
fn a_marker_of_a_new_epoch_fences_late_batches_and_begins_sequences_anew() {
    let rig = Rig::new();
    let mut log = rig.create();
    put(&mut log, transactional(7, 2, 0, 3), 1);
    put(&mut log, ending(7, 3, COMMIT, 0), 1);
    let late = stage(&mut log, transactional(7, 2, 3, 1), 1);
    assert_eq!(late, Err(ErrorCode::InvalidProducerEpoch));
    let odd = stage(&mut log, transactional(7, 3, 3, 1), 2);
    assert_eq!(odd, Err(ErrorCode::OutOfOrderSequenceNumber));
    put(&mut log, transactional(7, 3, 0, 1), 2);
}

#[test]
fn a_plain_batch_within_a_transaction_is_refused() {
    let rig = Rig::new();
    let mut log = rig.create();
    put(&mut log, transactional(7, 0, 0, 1), 1);
    let plain = log.stage(sent(7, 0, 1, 1), None, 0, 1000);
    assert_eq!(plain.unwrap_err().0, ErrorCode::InvalidTxnState);
    // Offset commits have a producer and no sequence.
    put(&mut log, transactional(7, 0, -1, 1), 1);
    put(&mut log, ending(7, 0, COMMIT, 0), 1);
    put(&mut log, transactional(7, 0, -1, 1), 2);
    assert_eq!(log.open_transactions(), [(7, 0, 3)]);
}

#[test]
fn a_failed_write_takes_transactions_back() {
    let rig = Rig::new();
    let mut log = rig.create();
    put_synced(&mut log, transactional(7, 0, 0, 1), 1);
    stage(&mut log, ending(7, 1, ABORT, 0), 1).unwrap();
    stage(&mut log, transactional(8, 0, 0, 1), 2).unwrap();
    log.turn = None;
    log.take_back(&[]);
    assert_eq!(log.open_transactions(), [(7, 0, 0)]);
    put_synced(&mut log, transactional(7, 0, 1, 1), 1);
    put_synced(&mut log, ending(7, 0, ABORT, 0), 1);
    assert_eq!(all_aborted(&rig, &log), [(7, 0)]);
    assert_eq!(last_stable(&log), 3);
}

/// The list is exact at both ends: nothing that ended before, nothing that begins behind what is sent (RP#6423).
#[test]
fn the_aborted_list_is_that_of_what_is_sent() {
    let rig = Rig::small(400);
    let mut log = rig.create();
    for serial in 0..12 {
        put_synced(&mut log, transactional(7, 0, serial, 1), serial as u64 + 1);
        put_synced(&mut log, ending(7, 0, ABORT, 0), serial as u64 + 1);
    }
    assert!(log.view().closed.len() > 2);
    let view = log.view();
    for offset in 0..24 {
        let first = offset / 2 * 2;
        let one = aborted(&view, &rig.shared, offset, 1);
        assert_eq!(one, [(7, first)], "from {offset}");
        let rest: Vec<(i64, i64)> = (first..24).step_by(2).map(|first| (7, first)).collect();
        assert_eq!(aborted(&view, &rig.shared, offset, u32::MAX), rest);
    }
}

#[test]
fn the_log_start_may_pass_an_open_transaction() {
    let rig = Rig::small(400);
    let mut log = rig.create();
    put_synced(&mut log, transactional(7, 0, 0, 1), 1);
    for i in 0..9 {
        append_synced(&mut log, sent(1, 0, i, 1));
    }
    log.raise_start(6).unwrap();
    for segment in log.take_passed() {
        segment.retire(&rig.shared);
        fs::remove_file(segment.path(".log")).unwrap();
    }
    assert_eq!(last_stable(&log), 6);
    put_synced(&mut log, ending(7, 0, ABORT, 0), 1);
    assert_eq!(last_stable(&log), 11);
    assert_eq!(all_aborted(&rig, &log), [(7, 0)]);
    drop(log);
    rig.remove(".snapshot");
    let start = Start {
        log_start: Some(6),
        ..rig.start(false, Some(11))
    };
    let (log, _) = rig.recover_with(&start);
    assert_eq!((last_stable(&log), all_aborted(&rig, &log)), (11, vec![]));
}

fn some_transactions(log: &mut Log) {
    for serial in 1..9 {
        put_synced(log, transactional(7, 0, serial as i32 * 2, 2), serial);
        put_synced(log, transactional(8, 0, serial as i32 - 1, 1), serial);
        put_synced(log, ending(7, 0, serial % 2 == 0, 3), serial);
        put_synced(log, ending(8, 0, serial % 3 == 0, 3), serial);
    }
    put_synced(log, transactional(8, 0, 8, 1), 9);
}

#[test]
fn the_transaction_index_is_a_hint_to_every_start() {
    type Harm = (&'static str, fn(&Rig));
    let harm: [Harm; 5] = [
        ("nothing", |_| {}),
        ("no index", |rig| rig.remove(".txnindex")),
        ("no index, no snapshot", |rig| {
            rig.remove(".txnindex");
            rig.remove(".snapshot");
        }),
        ("a torn one", |rig| change(rig, |bytes| bytes.truncate(9))),
        ("zeros", |rig| change(rig, |bytes| bytes.fill(0))),
    ];
    for (what, harm) in harm {
        for clean in [true, false] {
            let rig = Rig::small(500);
            let mut log = rig.create();
            some_transactions(&mut log);
            let (listed, stable) = (all_aborted(&rig, &log), last_stable(&log));
            let open = log.open_transactions();
            let known = log.active_producers();
            assert_eq!((listed.len(), open.len()), (4 + 6, 1));
            match clean {
                true => drop(log.close().unwrap()),
                false => drop(log),
            }
            let files = || -> Vec<Vec<u8>> {
                let names = rig.names(".txnindex").into_iter();
                names
                    .map(|name| fs::read(rig.path(&name)).unwrap())
                    .collect()
            };
            let before = files();
            harm(&rig);
            let (log, _) = rig.recover_with(&rig.start(clean, Some(20)));
            assert_eq!(all_aborted(&rig, &log), listed, "{what}, clean: {clean}");
            assert_eq!(
                (last_stable(&log), &log.open_transactions()),
                (stable, &open)
            );
            assert_eq!(log.active_producers(), known);
            assert_eq!(files(), before, "{what}, clean: {clean}");
        }
    }
}

/// Changes what holds something: zeros of no entries are a sound index.
fn change(rig: &Rig, change: fn(&mut Vec<u8>)) {
    for name in rig.names(".txnindex") {
        let mut bytes = fs::read(rig.path(&name)).unwrap();
        change(&mut bytes);
        fs::write(rig.path(&name), bytes).unwrap();
    }
}

#[test]
fn every_sealed_segment_and_every_stop_leaves_a_transaction_index() {
    let rig = Rig::small(700);
    let log = fill(&rig, 8);
    assert_eq!(rig.names(".txnindex").len(), rig.names(".log").len() - 1);
    log.close().unwrap();
    assert_eq!(rig.names(".txnindex").len(), rig.names(".log").len());
    assert_eq!(rig.reopen().1, crate::storage::Report::default());
}

/// A recovery point that was saved while the segment was written to does not say that its index is durable.
#[test]
fn an_index_that_a_power_cut_emptied_is_made_anew_where_the_recovery_point_ends_its_segment() {
    let rig = Rig::small(500);
    let mut log = rig.create();
    for serial in 1..9 {
        put(&mut log, transactional(7, 0, serial as i32 - 1, 1), serial);
        put(&mut log, ending(7, 0, ABORT, 0), serial);
        sync(&mut log);
        log.flush_indexes().unwrap();
    }
    let listed = all_aborted(&rig, &log);
    let end = log.view().closed[0].end_offset;
    assert_eq!(listed.len(), 8);
    drop(log);
    fs::write(rig.path(&format!("{:020}.txnindex", 0)), "").unwrap();
    let (log, _) = rig.recover(Some(end));
    assert_eq!(all_aborted(&rig, &log), listed);
}

/// What a full disk takes from the index stays in memory, and the next start makes the file.
#[test]
fn an_index_that_cannot_be_written_loses_nothing() {
    let rig = Rig::small(500);
    let mut log = rig.create();
    // A directory where the file should be.
    let in_the_way = rig.path(&format!("{:020}.txnindex", 0));
    fs::create_dir(&in_the_way).unwrap();
    for serial in 1..9 {
        put(&mut log, transactional(7, 0, serial as i32 - 1, 1), serial);
        put(&mut log, ending(7, 0, ABORT, 0), serial);
        sync(&mut log);
        let _ = log.flush_indexes();
    }
    assert!(log.view().closed.len() > 1);
    let listed = all_aborted(&rig, &log);
    assert_eq!(listed.len(), 8);
    drop(log);
    fs::remove_dir(&in_the_way).unwrap();
    let (log, _) = rig.recover(Some(16));
    assert_eq!(all_aborted(&rig, &log), listed);
    assert!(in_the_way.is_file());
}

#[test]
fn idle_producers_expire_and_open_transactions_never() {
    let rig = Rig::new();
    let mut log = rig.create();
    append_synced(&mut log, sent(1, 0, 0, 1));
    append_synced(&mut log, sent(2, 0, 0, 1));
    put_synced(&mut log, transactional(7, 0, 0, 1), 1);
    log.expire_producers(1_000, 500);
    append_synced(&mut log, sent(2, 0, 1, 1));
    log.expire_producers(1_499, 500);
    assert_eq!(log.active_producers().len(), 3);
    let ids = |log: &Log| -> Vec<i64> { log.active_producers().iter().map(|p| p.id).collect() };
    log.expire_producers(1_500, 500);
    assert_eq!(ids(&log), [2, 7]);
    log.expire_producers(1_999, 500);
    assert_eq!(ids(&log), [7]);
    append_synced(&mut log, sent(1, 0, 77, 1));
    assert_eq!(ids(&log), [1, 7]);
    log.close().unwrap();
    let (log, _) = rig.reopen();
    assert_eq!(ids(&log), [1, 7], "a start counts anew, from what is left");
}

#[test]
fn a_transaction_whose_marker_rot_took_is_open_again() {
    let rig = Rig::new();
    let mut log = rig.create();
    put_synced(&mut log, transactional(7, 4, 0, 1), 1);
    let marker = size(&rig, 0);
    put_synced(&mut log, ending(7, 4, COMMIT, 0), 1);
    append_synced(&mut log, sent(1, 0, 0, 1));
    drop(log);
    overwrite(&rig, 0, marker + 30, &[0x5a; 8]);
    let (mut log, report) = rig.recover(Some(3));
    assert_eq!(the_gap(&report), 1..2);
    assert_eq!(log.open_transactions(), [(7, 4, 0)]);
    assert_eq!(last_stable(&log), 0);
    put_synced(&mut log, ending(7, 4, ABORT, 0), 1);
    assert_eq!(last_stable(&log), 4);
    assert_eq!(
        log.view().active.aborted_count,
        1,
        "{:?}",
        all_aborted(&rig, &log)
    );
}

#[test]
fn an_entry_is_kafkas_34_bytes() {
    use crate::storage::index::Entry;
    let entry = Aborted {
        producer_id: 1,
        first_offset: 2,
        last_offset: 3,
        last_stable: 4,
    };
    let mut bytes = Vec::new();
    entry.encode(&mut bytes);
    let mut expected = vec![0; 34];
    for (at, value) in [(9, 1), (17, 2), (25, 3), (33, 4)] {
        expected[at] = value;
    }
    assert_eq!(bytes, expected);
    assert_eq!(Aborted::decode(&bytes), entry);
}
