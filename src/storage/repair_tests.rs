//! Repairs that a crash cut short.

use super::super::recovery::{Cut, Start};
use super::super::testing::*;
use super::*;
use crate::batch::HEADER_BYTES;

#[test]
fn a_zero_filled_tail_is_trimmed() {
    let rig = Rig::new();
    drop(fill(&rig, 10));
    let whole = size(&rig, 0);
    set_size(&rig, 0, whole + 5_000_000);
    let (mut log, report) = rig.recover(Some(4));
    assert_eq!(report.cut.unwrap().bytes, 5_000_000);
    assert!(rig.names(".torn").is_empty());
    assert_eq!(size(&rig, 0), whole);
    append_synced(&mut log, batch(1, 190, 1));
    assert_eq!(seen_bases(&log), bases(0..11));
}

#[test]
fn a_torn_last_batch_is_cut_and_kept() {
    let rig = Rig::new();
    drop(fill(&rig, 10));
    let torn_at = 9 * batch_bytes();
    let all = fs::read(rig.log_file(0)).unwrap();
    for len in [1, HEADER_BYTES as u64 - 1, HEADER_BYTES as u64, 200] {
        fs::write(rig.log_file(0), &all[..(torn_at + len) as usize]).unwrap();
        let (log, report) = rig.recover(Some(9));
        assert_eq!(seen_bases(&log), bases(0..9));
        let cut = Cut {
            offset: 9,
            bytes: len,
        };
        assert_eq!(report.cut, Some(cut));
        assert!(report.epoch_bump_needed && report.gaps.is_empty());
    }
    // Three tears at one place, of which none overwrote another, and a zero.
    assert_eq!(rig.names(".torn").len(), 3);
}

/// A page in the middle of the last turn never reached the disk, the pages after it did: all of it is cut.
#[test]
fn a_tear_within_t_takes_the_good_batches_behind_it() {
    let rig = Rig::new();
    drop(fill(&rig, 20));
    overwrite(
        &rig,
        0,
        12 * batch_bytes(),
        &vec![0; batch_bytes() as usize],
    );
    let (log, report) = rig.recover(Some(10));
    assert_eq!(seen_bases(&log), bases(0..12));
    assert_eq!(report.cut.unwrap().offset, 12);
    assert!(report.gaps.is_empty());
    let torn = rig.names(".torn");
    assert_eq!(
        fs::metadata(rig.path(&torn[0])).unwrap().len(),
        8 * batch_bytes()
    );
}

/// A segment is synced before the next one is begun: what is bad in an earlier one was acknowledged, however near.
#[test]
fn bad_bytes_before_a_later_segment_are_rot() {
    let rig = Rig::small(2000);
    let log = fill(&rig, 30);
    let third = log.view().closed[2].base_offset();
    let last = log.view().active.base_offset();
    drop(log);
    overwrite(&rig, third, batch_bytes() + 70, b"rot");
    let (log, report) = rig.recover(Some(third));
    assert_eq!(the_gap(&report), third + 1..third + 2);
    assert!(report.cut.is_none() && report.epoch_bump_needed);
    assert_eq!(seen_bases(&log).len(), 29);
    drop(log);
    // Also where the later segment is empty: only its name says what was given out before.
    set_size(&rig, last, 0);
    let before = rig.names(".log").len();
    let sealed = rig.names(".log")[before - 2].clone();
    let end = fs::metadata(rig.path(&sealed)).unwrap().len();
    let base: i64 = sealed[..20].parse().unwrap();
    overwrite(&rig, base, end - 10, b"rot");
    let (mut log, report) = rig.recover(Some(third));
    assert_eq!(the_gap(&report), last - 1..last);
    assert!(report.cut.is_none() && rig.names(".torn").is_empty());
    assert_eq!(append_synced(&mut log, batch(1, 190, 1)), last);
}

/// P5: bad bytes further than T before the last good batch cannot be a tear. They are set aside; the log goes on.
#[test]
fn rot_is_set_aside_and_stepped_over() {
    let mut rig = Rig::small(2000);
    rig.settings.segment_bytes_max = 20_000;
    drop(fill(&rig, 200));
    let good = fs::read(rig.log_file(0)).unwrap();
    overwrite(&rig, 0, 7 * batch_bytes() + 65, b"rot");
    overwrite(
        &rig,
        0,
        9 * batch_bytes() + 3,
        &vec![0xff; 2 * batch_bytes() as usize],
    );
    let start = Start {
        tear_bytes_max: 4000,
        ..rig.start(false, None)
    };
    let (mut log, report) = rig.recover_with(&start);
    // The second range begins and ends within batches: 9, 10 and 11 are gone.
    assert_eq!(report.gaps, [7..8, 9..12]);
    assert!(report.epoch_bump_needed && report.cut.is_none());
    let mut expected = bases(0..200);
    expected.retain(|base| ![7, 9, 10, 11].contains(base));
    assert_eq!(seen_bases(&log), expected);
    // What was taken out is there, byte for byte.
    assert_eq!(rig.names(".quarantine").len(), 2);
    let name = &rig.names(".quarantine")[0];
    let kept = fs::read(rig.path(name)).unwrap();
    let from = 7 * batch_bytes() as usize;
    assert_eq!(kept[..65], good[from..from + 65]);
    assert_eq!(&kept[65..68], b"rot");
    // Consumers step over the gap; nothing is found again; appends go on.
    let view = log.view();
    let bytes = bytes_from(&view, &rig.shared, 10, 1);
    assert_eq!(headers(&bytes)[0].base_offset, 12);
    assert_eq!(append_synced(&mut log, batch(1, 190, 1)), 200);
    drop(log);
    let (_, report) = rig.recover_with(&start);
    assert!(report.gaps.is_empty() && !report.epoch_bump_needed);
}

#[test]
fn rot_before_the_recovery_point_is_never_a_tear() {
    let rig = Rig::new();
    drop(fill(&rig, 20));
    overwrite(&rig, 0, 12 * batch_bytes() + 80, b"rot");
    let (log, report) = rig.recover(Some(15));
    assert_eq!(the_gap(&report), 12..13);
    assert!(report.cut.is_none());
    assert_eq!(seen_bases(&log).len(), 19);
}

#[test]
fn rot_with_a_tear_behind_it() {
    let rig = Rig::small(2000);
    let log = fill(&rig, 30);
    let end = size(&rig, 0);
    drop(log);
    overwrite(&rig, 0, batch_bytes() + 90, b"rot");
    let last = rig.names(".log").last().unwrap().clone();
    let mut bytes = fs::read(rig.path(&last)).unwrap();
    bytes.extend_from_slice(&[7; 50]);
    fs::write(rig.path(&last), bytes).unwrap();
    let start = Start {
        tear_bytes_max: 1000,
        ..rig.start(false, Some(5))
    };
    // Segment 0 lies before the recovery point and is not read; without one it is.
    let start = Start {
        recovery_point: None,
        ..start
    };
    let (log, report) = rig.recover_with(&start);
    assert_eq!(the_gap(&report), 1..2);
    assert_eq!(report.cut.unwrap().bytes, 50);
    assert_eq!(seen_bases(&log).len(), 29);
    assert_eq!(size(&rig, 0), end - batch_bytes());
}

/// Rot that covers a segment's end and the next one's beginning is one gap.
#[test]
fn rot_over_a_segments_end() {
    let rig = Rig::small(2000);
    let log = fill(&rig, 40);
    let second = log.view().closed[1].base_offset();
    drop(log);
    let last = size(&rig, 0) - batch_bytes();
    overwrite(&rig, 0, last + 20, &[1; 100]);
    overwrite(&rig, second, 30, &[1; 100]);
    let start = Start {
        tear_bytes_max: 1000,
        ..rig.start(false, None)
    };
    let (log, report) = rig.recover_with(&start);
    assert_eq!(the_gap(&report), second - 1..second + 1);
    assert_eq!(seen_bases(&log).len(), 38);
}

/// A record may hold a whole valid batch: rot in the batch around it must not bring that to light.
#[test]
fn a_batch_inside_a_rotten_one_stays_hidden() {
    let rig = Rig::new();
    let mut log = rig.create();
    append_synced(&mut log, batch(1, 190, 1));
    let mut inner = crate::batch::builder::Builder::new(1).place(1, 0);
    inner.add(None, Some(b"forged"), &[], 1);
    let mut outer = crate::batch::builder::Builder::new(1);
    outer.add(None, Some(&inner.build()), &[], 1);
    append_synced(&mut log, checked(&outer));
    append_synced(&mut log, batch(1, 190, 1));
    drop(log);
    overwrite(&rig, 0, batch_bytes() + 40, b"rot");
    let (log, report) = rig.recover(Some(3));
    assert_eq!(seen_bases(&log), [0, 2]);
    assert_eq!(the_gap(&report), 1..2);
}

/// The power goes during the cut, between its steps: the next start comes to the same log.
#[test]
fn an_interrupted_cut_is_done_again() {
    let rig = Rig::new();
    drop(fill(&rig, 10));
    overwrite(&rig, 0, 8 * batch_bytes() + 70, b"torn");
    let saved = format!("00000000000000000000.log.{}.0.torn", 8 * batch_bytes());
    fs::write(rig.path(&saved), b"half").unwrap();
    let (log, report) = rig.recover(Some(5));
    assert_eq!(seen_bases(&log), bases(0..8));
    assert_eq!(report.cut.unwrap().offset, 8);
    assert!(report.gaps.is_empty());
    assert_eq!(rig.names(".torn").len(), 2);
}

/// Likewise while rot is taken out: what was saved or half written before changes nothing.
#[test]
fn an_interrupted_excision_is_done_again() {
    let rig = Rig::new();
    drop(fill(&rig, 20));
    overwrite(&rig, 0, 12 * batch_bytes() + 80, b"rot");
    let half = fs::read(rig.log_file(0)).unwrap()[..1000].to_vec();
    fs::write(rig.path("00000000000000000000.log.cleaned"), half).unwrap();
    let saved = format!(
        "00000000000000000000.log.{}.0.quarantine",
        12 * batch_bytes()
    );
    fs::write(rig.path(&saved), b"ro").unwrap();
    let (log, report) = rig.recover(Some(20));
    assert_eq!(the_gap(&report), 12..13);
    assert_eq!(seen_bases(&log).len(), 19);
    assert!(rig.names(".cleaned").is_empty());
    assert_eq!(rig.names(".quarantine").len(), 2);
}

/// A disk that is full at start: no partial copy stays behind, and what was never synced is cut without one.
#[test]
fn a_full_disk_gets_no_fuller_by_recovery() {
    let rig = Rig::new();
    let path = rig.path("00000000000000000000.log.7.0.torn");
    let full = || io::Error::from_raw_os_error(28);
    let failed = make_whole(rig.dir.path(), &path, |file| {
        sys::write_gathered_at(file, &mut [IoSlice::new(b"part")], 0)?;
        Err(full())
    });
    assert!(is_full(&failed.unwrap_err()) && !path.exists());
    assert!(!is_full(&Error::new("rot")));
}
