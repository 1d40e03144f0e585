//! What a look finds, byte by byte, and that it changes nothing and finds nothing else.

use super::super::testing::{
    Rig, append_synced, batch, batch_bytes, ending, fill, overwrite, size, transactional,
};
use super::*;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

fn look(rig: &Rig) -> Vec<Finding> {
    let mut findings = Vec::new();
    let dir = rig.dir.path();
    let mut pace = |_| Ok(());
    directory(
        dir,
        rig.settings.compacted,
        &mut pace,
        &mut |_, _, _| Ok(None),
        |f| findings.push(f),
    )
    .unwrap();
    findings
}

fn look_at_view(log: &super::super::Log, rig: &Rig) -> Vec<Finding> {
    let view = log.view();
    let mut audit = Audit::new(rig.settings.compacted);
    let mut findings = Vec::new();
    for extent in view.sealed().iter().chain([&view.active]) {
        let sealed = extent.segment.serial() != view.active.segment.serial();
        let subject = Subject::of_view(extent, sealed, &rig.shared).unwrap();
        findings.extend(audit.segment(&subject, &mut |_| Ok(())).unwrap());
    }
    findings
}

fn flip(path: &Path, position: u64, mask: u8) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, position).unwrap();
    file.write_all_at(&[byte[0] ^ mask], position).unwrap();
}

/// Three segments of ten batches, and transactions that were aborted in each of them.
fn scene(rig: &Rig) -> super::super::Log {
    let mut log = rig.create();
    for round in 0..10 {
        append_synced(&mut log, transactional(7, 0, round, 1));
        append_synced(&mut log, batch(1, 190, 10 * i64::from(round)));
        append_synced(&mut log, ending(7, 0, round % 2 == 0, 0));
    }
    log
}

#[test]
fn what_nobody_damaged_has_no_findings() {
    let rig = Rig::small(1000);
    let log = scene(&rig);
    assert!(log.view().sealed().len() >= 3);
    assert_eq!(look_at_view(&log, &rig), []);
    assert_eq!(look(&rig), []);
    log.close().unwrap();
    assert_eq!(look(&rig), []);
}

/// Every byte of every batch, but for the leader epoch: one batch is lost, and its neighbours are not.
#[test]
fn a_flip_in_a_batch_costs_that_batch_alone() {
    let rig = Rig::small(1000);
    let log = fill(&rig, 12);
    let bytes = batch_bytes();
    let per_segment = size(&rig, 0) / bytes;
    for batch in 0..per_segment {
        for at in (0..bytes).filter(|at| !(12..16).contains(at)) {
            let position = batch * bytes + at;
            flip(&rig.log_file(0), position, 1 << (position % 8));
            let lost = Finding {
                path: rig.log_file(0),
                bytes: batch * bytes..(batch + 1) * bytes,
                kind: Kind::Batches(batch as i64..batch as i64 + 1),
            };
            assert_eq!(look_at_view(&log, &rig), [lost], "byte {at} of {batch}");
            flip(&rig.log_file(0), position, 1 << (position % 8));
        }
    }
    assert_eq!(look_at_view(&log, &rig), []);
}

/// Found in 2026 by flipping every byte: a base offset that had risen made all batches behind it look bad.
#[test]
fn a_base_offset_that_rose_does_not_condemn_the_batches_behind_it() {
    let rig = Rig::new();
    let log = fill(&rig, 9);
    overwrite(&rig, 0, 2 * batch_bytes(), &5i64.to_be_bytes());
    let findings = look_at_view(&log, &rig);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].kind, Kind::Batches(2..3));
    let (log, report) = rig.recover(Some(9));
    assert_eq!(super::super::testing::the_gap(&report), 2..3);
    assert_eq!(super::super::testing::seen_bases(&log).len(), 8);
}

/// Every byte of every index file of a log that begins at 0 and has no gap is found, or changes nothing that counts.
#[test]
fn a_flip_in_an_index_is_found() {
    let rig = Rig::small(1000);
    let log = scene(&rig);
    log.close().unwrap();
    for suffix in [".txnindex", ".timeindex", ".index", ".snapshot"] {
        for name in rig.names(suffix) {
            let path = rig.path(&name);
            let len = fs::metadata(&path).unwrap().len();
            for (byte, mask) in (0..len).map(|byte| (byte, 1 << (byte * 5 % 8))) {
                flip(&path, byte, mask);
                let found = look(&rig);
                let named = found.iter().any(|f| f.path == path);
                assert!(found.iter().all(|f| f.path == path), "{found:?}");
                // An offset that is only too large costs a search nothing.
                assert!(named || suffix == ".index", "{name}, byte {byte}");
                flip(&path, byte, mask);
            }
        }
    }
}

#[test]
fn what_is_missing_is_told_apart() {
    let rig = Rig::small(1000);
    let log = fill(&rig, 12);
    log.close().unwrap();
    let bases: Vec<String> = rig.names(".log");
    fs::remove_file(rig.path(&bases[1])).unwrap();
    let findings = look(&rig);
    assert!(matches!(&findings[0].kind, Kind::Gap(gap) if gap.start > 0));
    let last = rig.path(bases.last().unwrap());
    let file = OpenOptions::new().append(true).open(&last).unwrap();
    file.set_len(file.metadata().unwrap().len() + 5000).unwrap();
    assert_eq!(look(&rig).len(), findings.len(), "preallocated zeros");
    file.write_all_at(&[1; 70], file.metadata().unwrap().len())
        .unwrap();
    assert!(look(&rig).iter().any(|f| f.kind == Kind::Tail(12)));
}

#[test]
fn the_pace_hears_of_every_byte_and_may_stop() {
    let rig = Rig::new();
    let log = fill(&rig, 20);
    let view = log.view();
    let subject = Subject::of_view(&view.active, false, &rig.shared).unwrap();
    let mut heard = 0;
    let mut pace = |bytes| {
        heard += bytes;
        Ok(())
    };
    Audit::new(false).segment(&subject, &mut pace).unwrap();
    assert_eq!(heard, subject.bytes);
    let mut stop = |_| Err(ErrorKind::Interrupted.into());
    assert!(Audit::new(false).segment(&subject, &mut stop).is_err());
}
