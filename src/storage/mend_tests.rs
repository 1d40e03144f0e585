//! A mended segment lacks the bad batch and nothing else, and reads as before.

use super::super::audit::{Audit, Subject};
use super::super::testing::{
    Rig, append_synced, batch, bytes_from, ending, headers, seen, transactional,
};
use super::super::view::{Hint, View};
use super::*;
use crate::storage::Log;
use std::fs;
use std::os::unix::fs::FileExt;

/// Two sealed segments with transactions of which every other one was aborted.
fn scene(rig: &Rig) -> Log {
    let mut log = rig.create();
    for round in 0..12 {
        append_synced(&mut log, transactional(7, 0, round, 1));
        append_synced(&mut log, batch(1, 190, 10 * i64::from(round)));
        append_synced(&mut log, ending(7, 0, round % 2 == 0, 0));
    }
    log
}

fn look(log: &Log, rig: &Rig) -> Vec<(Extent, Audit, Vec<Finding>)> {
    let mut found = Vec::new();
    let view = log.view();
    for (extent, sealed) in view.segments() {
        let mut audit = Audit::new(false);
        let subject = Subject::of_view(extent, sealed, &rig.shared).unwrap();
        let findings = audit.segment(&subject, &mut |_| Ok(())).unwrap();
        let damage = |f: &&Finding| matches!(f.kind, Kind::Batches(_) | Kind::Hint(_));
        if findings.iter().any(|f| damage(&f)) {
            found.push((extent.clone(), audit, findings));
        }
    }
    found
}

fn mend(log: &mut Log, rig: &Rig) {
    let dir: Arc<Path> = rig.dir.path().into();
    for (extent, audit, findings) in look(log, rig) {
        let mend = Mend {
            extent: &extent,
            findings: &findings,
            audit: &audit,
            shared: &rig.shared,
            decoders: &rig.decoders,
            index_interval_bytes: rig.settings.index_interval_bytes,
        };
        let rewrite = mend.prepare(&dir, &mut |_| Ok(())).unwrap();
        let replaced = log.swap(&rewrite).unwrap().expect("not refused");
        for segment in replaced.segments {
            segment.retire(&rig.shared);
        }
    }
}

fn aborted_offsets(view: &View, rig: &Rig) -> Vec<(i64, i64)> {
    let all = view.aborted_between(&rig.shared, 0..view.high_watermark);
    let offsets = |a: Aborted| (a.first_offset, a.last_offset);
    all.unwrap().into_iter().map(offsets).collect()
}

#[test]
fn each_batch_of_a_sealed_segment_can_be_lost_alone() {
    let count = seen(&scene(&Rig::small(1000)), &Rig::new().shared).len();
    for lost in 0..count {
        let rig = Rig::small(1000);
        let mut log = scene(&rig);
        let before = seen(&log, &rig.shared);
        let aborted = aborted_offsets(&log.view(), &rig);
        let view = log.view();
        let offset = before[lost].base_offset;
        if offset >= view.active.base_offset() {
            break;
        }
        let place = view.locate(&rig.shared, offset, Hint::default());
        let place = place.unwrap().unwrap();
        let mut bytes = vec![0; place.header.total_bytes()];
        let at = u64::from(place.position);
        place.file.read_exact_at(&mut bytes, at).unwrap();
        *bytes.last_mut().unwrap() ^= 4;
        place.file.write_all_at(&bytes, at).unwrap();

        mend(&mut log, &rig);
        assert!(look(&log, &rig).is_empty(), "offset {offset}");
        let left = headers(&bytes_from(&log.view(), &rig.shared, 0, u32::MAX));
        let was_marker = aborted.iter().any(|(_, marker)| *marker == offset);
        let same = |h: &&batch::Header| h.base_offset != offset;
        assert!(left.iter().filter(same).eq(before.iter().filter(same)));
        // An aborted transaction ends where it ended.
        assert_eq!(left.iter().any(|h| h.base_offset == offset), was_marker);
        assert_eq!(aborted_offsets(&log.view(), &rig), aborted);
        let kept = rig.names(".quarantine");
        assert_eq!(kept.len(), 1);
        assert_eq!(fs::read(rig.path(&kept[0])).unwrap(), bytes);
        // As a start finds it.
        for item in log.close().unwrap() {
            crate::sync::sync(&item).unwrap();
        }
        let (log, _) = rig.reopen();
        assert_eq!(seen(&log, &rig.shared), left);
        assert_eq!(aborted_offsets(&log.view(), &rig), aborted);
    }
}

#[test]
fn an_index_that_is_wrong_is_made_anew_and_nothing_is_lost() {
    for suffix in [".index", ".timeindex", ".txnindex"] {
        let rig = Rig::small(1000);
        let mut log = scene(&rig);
        let before = seen(&log, &rig.shared);
        let aborted = aborted_offsets(&log.view(), &rig);
        let path = rig.path(&rig.names(suffix)[0]);
        let sound = fs::read(&path).unwrap();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[0x41], sound.len() as u64 / 2).unwrap();
        assert_eq!(look(&log, &rig).len(), 1, "{suffix}");
        mend(&mut log, &rig);
        assert!(look(&log, &rig).is_empty());
        assert_eq!(fs::read(&path).unwrap(), sound, "{suffix}");
        assert_eq!(seen(&log, &rig.shared), before);
        assert_eq!(aborted_offsets(&log.view(), &rig), aborted);
        assert_eq!(rig.names(".quarantine"), Vec::<String>::new());
    }
}
