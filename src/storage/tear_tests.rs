//! P5: tear against rot, at every distance around T, on both sides of the recovery point, with every kind of damage,
//! in one segment and across a roll.

use super::super::testing::*;
use super::*;
use crate::batch::check::Checked;
use crate::error::ErrorCode;
use std::fs;

/// T in these tests; a turn is never larger.
const LIMIT: u64 = 2000;

/// The good batches before the bad one.
const BEFORE: usize = 10;

const HEAD: u64 = crate::batch::HEADER_BYTES as u64;

/// What became of the bytes of a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Damage {
    /// A bit of its body flipped.
    Bit,
    /// Its header is garbage: its length tells nothing.
    Garbage,
    /// All of it is zero.
    Zeros,
    /// Its second half never reached the disk.
    Hole,
}

impl Damage {
    const ALL: [Damage; 4] = [Damage::Bit, Damage::Garbage, Damage::Zeros, Damage::Hole];

    /// Damages the batch at `place`, of `bytes` bytes.
    fn strike(self, rig: &Rig, base: i64, place: u64, bytes: u64) {
        let zeros = vec![0; bytes as usize];
        match self {
            Damage::Bit => {
                let file = fs::read(rig.log_file(base)).unwrap();
                let at = place + HEAD + 5;
                overwrite(rig, base, at, &[file[at as usize] ^ 4]);
            }
            Damage::Garbage => overwrite(rig, base, place, &[0xa5; HEAD as usize]),
            Damage::Zeros => overwrite(rig, base, place, &zeros),
            Damage::Hole => {
                let half = bytes / 2;
                overwrite(rig, base, place + half, &zeros[..(bytes - half) as usize]);
            }
        }
    }
}

/// A batch of exactly so many bytes.
fn of_bytes(bytes: u64) -> Checked {
    let fits = |payload: &usize| batch(1, *payload, 1000).header.total_bytes() as u64 == bytes;
    let payload = (0..bytes as usize).find(fits);
    batch(1, payload.expect("a length between two varints"), 1000)
}

/// A log whose batches lie `sizes` long, synced; the first so many in an earlier segment, if that is not 0.
fn log_of(sizes: &[u64], earlier: usize) -> Rig {
    let mut rig = Rig::new();
    let mut log = rig.create();
    for (i, &bytes) in sizes.iter().enumerate() {
        if i == earlier && earlier > 0 {
            rig.settings.segment_bytes_max = 1;
            log.set_settings(rig.settings.clone());
        }
        append_synced(&mut log, of_bytes(bytes));
        if i == earlier && earlier > 0 {
            rig.settings.segment_bytes_max = 1 << 30;
            log.set_settings(rig.settings.clone());
        }
    }
    rig
}

/// What was kept of what is gone, one file after the other.
fn kept(rig: &Rig, suffix: &str) -> Vec<u8> {
    let names = rig.names(suffix);
    let read = |name: &String| fs::read(rig.path(name)).unwrap();
    names.iter().flat_map(read).collect()
}

/// The sizes of the batches of a log with ten small ones, then the bad one, then as many as make up the distance.
fn sizes(bad: u64, distance: u64) -> Vec<u64> {
    let mut sizes = vec![100; BEFORE];
    sizes.push(bad);
    let mut left = distance - bad;
    while left > 400 {
        sizes.push(200);
        left -= 200;
    }
    // Two, so that the last one can have any length.
    sizes.extend([left / 2, left - left / 2]);
    sizes
}

/// One case of the table: a bad batch of `bad` bytes whose beginning lies `distance` bytes before the end of the last
/// good one, ten good ones before it.
fn case(damage: Damage, distance: u64, bad: u64, earlier: bool, synced_past_it: bool) {
    let what = format!(
        "{damage:?}, {distance} of {LIMIT}, earlier segment: {earlier}, synced: {synced_past_it}"
    );
    let sizes = sizes(bad, distance);
    let count = sizes.len() as i64;
    let rig = log_of(&sizes, if earlier { BEFORE + 2 } else { 0 });
    let place = 100 * BEFORE as u64;
    let good = fs::read(rig.log_file(0)).unwrap();
    damage.strike(&rig, 0, place, bad);
    let damaged = fs::read(rig.log_file(0)).unwrap();
    let bad_offset = BEFORE as i64;
    let recovery_point = bad_offset + i64::from(synced_past_it);
    let start = Start {
        tear_bytes_max: LIMIT,
        ..rig.start(false, Some(recovery_point))
    };
    let (mut log, report) = rig.recover_with(&start);
    assert!(report.epoch_bump_needed, "{what}");
    let is_tear = !earlier && !synced_past_it && distance <= LIMIT;
    let (mut expected, next) = match is_tear {
        true => (bases(0..bad_offset), bad_offset),
        false => (bases(0..count), count),
    };
    match is_tear {
        true => {
            assert_eq!(report.cut.unwrap().offset, bad_offset, "{what}");
            assert!(report.gaps.is_empty(), "{what}");
            assert!(kept(&rig, ".torn") == damaged[place as usize..], "{what}");
            assert!(rig.names(".quarantine").is_empty(), "{what}");
        }
        false => {
            expected.retain(|base| *base != bad_offset);
            assert_eq!(
                report.gaps,
                std::slice::from_ref(&(bad_offset..bad_offset + 1)),
                "{what}"
            );
            assert!(
                report.cut.is_none() && rig.names(".torn").is_empty(),
                "{what}"
            );
            let rotten = place as usize..(place + bad) as usize;
            let set_aside = kept(&rig, ".quarantine");
            assert!(damaged[rotten.clone()].starts_with(&set_aside), "{what}");
            assert!(
                damaged[rotten][set_aside.len()..].iter().all(|b| *b == 0),
                "{what}"
            );
        }
    }
    assert_eq!(seen_bases(&log), expected, "{what}");
    let survivors = fs::read(rig.log_file(0)).unwrap();
    assert!(survivors.starts_with(&good[..place as usize]), "{what}");
    assert_eq!(append_synced(&mut log, of_bytes(100)), next, "{what}");
    expected.push(next);
    drop(log);
    // Nothing is found again, and nothing more is lost.
    let (log, report) = rig.recover_with(&start);
    assert!(
        report.gaps.is_empty() && report.cut.is_none(),
        "{what}: {report:?}"
    );
    assert_eq!(seen_bases(&log), expected, "{what}");
}

#[test]
fn a_tear_ends_where_t_ends() {
    const BAD: u64 = 300;
    let near = [LIMIT - 1, LIMIT, LIMIT + 1];
    let steps = [
        500,
        LIMIT - 400,
        LIMIT - 200,
        LIMIT + 200,
        LIMIT + 400,
        3 * LIMIT,
    ];
    let mut cases = 0;
    for damage in Damage::ALL {
        for distance in near.into_iter().chain(steps) {
            for (earlier, synced) in [(false, false), (false, true), (true, false), (true, true)] {
                case(damage, distance, BAD, earlier, synced);
                cases += 1;
            }
        }
    }
    eprintln!("tear: cases={cases} T={LIMIT} lost=0");
}

/// Behind bad bytes that end the log there is nothing to measure: a tear, however long, unless it was synced.
#[test]
fn bad_bytes_at_the_end_are_a_tear_or_a_gap() {
    for damage in Damage::ALL {
        for bad in [300, LIMIT, LIMIT + 1, 2 * LIMIT] {
            for recovery_point in [9, 10, 11] {
                let mut sizes = vec![100; 10];
                sizes.push(bad);
                let rig = log_of(&sizes, 0);
                damage.strike(&rig, 0, 1000, bad);
                let start = Start {
                    tear_bytes_max: LIMIT,
                    ..rig.start(false, Some(recovery_point))
                };
                let (mut log, report) = rig.recover_with(&start);
                assert_eq!(report.cut.unwrap().offset, 10);
                let lost = Some(10..11).filter(|_| recovery_point > 10);
                assert_eq!(
                    report.gaps,
                    Vec::from_iter(lost),
                    "{damage:?} {recovery_point}"
                );
                assert!(report.epoch_bump_needed);
                let next = append_synced(&mut log, of_bytes(100));
                assert_eq!(
                    next,
                    recovery_point.max(10),
                    "no synced offset is given out again"
                );
                let kept = rig.names(".torn");
                assert_eq!(kept.is_empty(), damage == Damage::Zeros, "{kept:?}");
            }
        }
    }
}

/// Two bad batches, one on each side of T: the first is rot, the second tears what follows it.
#[test]
fn rot_beyond_t_and_a_tear_within_it() {
    for damage in Damage::ALL {
        let rig = log_of(&[200; 30], 0);
        damage.strike(&rig, 0, 200 * 5, 200);
        damage.strike(&rig, 0, 200 * 25, 200);
        let start = Start {
            tear_bytes_max: LIMIT,
            ..rig.start(false, Some(2))
        };
        let (log, report) = rig.recover_with(&start);
        assert_eq!(the_gap(&report), 5..6, "{damage:?}");
        assert_eq!(report.cut.unwrap().offset, 25, "{damage:?}");
        let mut expected = bases(0..25);
        expected.remove(5);
        assert_eq!(seen_bases(&log), expected);
    }
}

/// Producers and a transaction around either: after a tear the producer sends the same again; after rot it goes on with
/// any sequence, and what is open stays open until it is resolved.
#[test]
fn producers_and_transactions_go_on_behind_either() {
    for synced in [false, true] {
        let rig = Rig::new();
        let mut log = rig.create();
        append_synced(&mut log, transactional(7, 0, 0, 1));
        for sequence in 0..4 {
            append_synced(&mut log, sent(1, 0, sequence, 1));
        }
        let place = size(&rig, 0);
        append_synced(&mut log, ending(7, 0, true, 0));
        let bad = size(&rig, 0) - place;
        append_synced(&mut log, sent(1, 0, 4, 1));
        drop(log);
        Damage::Bit.strike(&rig, 0, place, bad);
        let point = if synced { 7 } else { 3 };
        let (mut log, report) = rig.recover(Some(point));
        assert_eq!(report.cut.is_some(), !synced);
        assert_eq!(report.gaps.is_empty(), !synced);
        assert_eq!(log.open_transactions(), [(7, 0, 0)], "its end is lost");
        assert_eq!(log.view().last_stable, 0);
        // Its last batch is behind the gap, or was before the tear: it is held to its sequence.
        let skipped = log.stage(sent(1, 0, 9, 1), None, 0, 1000);
        let refused = skipped.unwrap_err().0;
        assert_eq!(refused, ErrorCode::OutOfOrderSequenceNumber);
        let sequence = if synced { 5 } else { 4 };
        append_synced(&mut log, sent(1, 0, sequence, 1));
        append_synced(&mut log, ending(7, 0, false, 0));
        assert_eq!(log.open_transactions(), []);
        assert_eq!(log.view().last_stable, log.view().high_watermark);
    }
}
