//! A rewrite in its segments' place: what readers see, what refuses it, and what a start makes of each step.

use super::*;
use crate::batch::Header;
use crate::storage::append::{Entries, Tail};
use crate::storage::index;
use crate::storage::testing::*;
use crate::storage::{Hint, ReadError, Shared, Trash, View};
use std::path::PathBuf;
use std::time::Duration;

/// Ten segments of about three batches of one record each.
fn thirty(rig: &Rig) -> Log {
    let log = fill(rig, 30);
    assert!(log.view().closed.len() >= 8);
    log
}

fn rig() -> Rig {
    let mut rig = Rig::small(800);
    rig.settings.compacted = true;
    rig
}

/// Rewrites the sealed segments `at`, without the batches that have an odd offset, but for the last one.
fn rewrite(log: &Log, at: std::ops::Range<usize>) -> Rewrite {
    let view = log.view();
    let sources = &view.closed[at];
    let (mut bytes, mut entries) = (Vec::new(), Entries::default());
    let mut tail = Tail::new(sources[0].base_offset());
    let last = sources.last().unwrap().end_offset - 1;
    for source in sources {
        let stored = std::fs::read(source.segment.path(".log")).unwrap();
        let mut rest = &stored[..];
        for header in headers(&stored) {
            let (batch, after) = rest.split_at(header.total_bytes());
            rest = after;
            if header.base_offset % 2 == 0 || header.base_offset == last {
                tail.add(&header, header.max_timestamp, 1, &mut entries);
                bytes.extend_from_slice(batch);
            }
        }
    }
    tail.add_time(&mut entries);
    let write = |extension: &str| {
        let path = sources[0].segment.path(&format!("{extension}.cleaned"));
        std::fs::File::create(path).unwrap()
    };
    std::io::Write::write_all(&mut write(".log"), &bytes).unwrap();
    index::write(&write(".index"), 0, &entries.offsets).unwrap();
    index::write(&write(".timeindex"), 0, &entries.times).unwrap();
    write(".txnindex");
    let replacement = Replacement {
        sources: sources.iter().map(|e| e.segment.serial()).collect(),
        tail,
        aborted: Vec::new(),
        last_append_ms: None,
    };
    Rewrite::open(log.dir(), replacement).unwrap()
}

/// The offsets that are left once the segments `at` of `view` were rewritten.
fn left(view: &View, at: std::ops::Range<usize>) -> Vec<i64> {
    let sources = &view.closed[at];
    let (first, last) = (
        sources[0].base_offset(),
        sources.last().unwrap().end_offset - 1,
    );
    let is_left = |o: &i64| !(first..last).contains(o) || o % 2 == 0;
    bases(0..30).into_iter().filter(is_left).collect()
}

fn retire(rig: &Rig, replaced: Replaced) -> Vec<PathBuf> {
    replaced
        .segments
        .iter()
        .for_each(|segment| segment.retire(&rig.shared));
    replaced.files
}

#[test]
fn a_rewrite_takes_its_segments_place() {
    let rig = rig();
    let mut log = thirty(&rig);
    let before = log.view();
    let rewrite = rewrite(&log, 1..4);
    append_synced(&mut log, batch(1, 790, 300));
    let rolled = log.view();
    assert!(rolled.generation > before.generation, "a roll is no reason");
    let replaced = log.swap(&rewrite).unwrap().unwrap();
    let view = log.view();
    assert_eq!(view.closed.len(), rolled.closed.len() - 2);
    assert!(view.generation > rolled.generation);
    let mut expected = left(&before, 1..4);
    expected.push(30);
    assert_eq!(seen_bases(&log), expected);
    let ends = view.closed.windows(2);
    assert!(
        ends.into_iter()
            .all(|w| w[0].end_offset == w[1].base_offset())
    );
    for offset in 0..31 {
        let found = view.locate(&rig.shared, offset, Hint::default()).unwrap();
        let next = expected.iter().find(|base| **base >= offset);
        assert_eq!(found.map(|p| p.header.base_offset), next.copied());
    }
    let mut trash = Trash::default();
    trash.unlink_after(retire(&rig, replaced), Duration::MAX);
    assert_eq!(rig.names(".deleted").len(), 12, "{:?}", rig.names(""));
    assert!(rig.names(".swap").is_empty() && rig.names(".cleaned").is_empty());
    log.close().unwrap();
    assert_eq!(seen_bases(&rig.reopen().0), expected);
}

/// Until a view without them is published, readers find the segments, in the cache or not; then they are gone.
#[test]
fn readers_of_the_old_view_read_on() {
    let rig = rig();
    let mut log = thirty(&rig);
    let before = log.view();
    let rewrite = rewrite(&log, 0..4);
    let held = before.slices(&rig.shared, 1, 30, 1, true, &mut Hint::default());
    let held = held.unwrap().files;
    let replaced = log.swap(&rewrite).unwrap().unwrap();
    let elsewhere = Shared::new(64, 10);
    let all = headers(&bytes_from(&before, &elsewhere, 0, u32::MAX));
    let all: Vec<i64> = all.iter().map(|h: &Header| h.base_offset).collect();
    assert_eq!(all, bases(0..30));
    retire(&rig, replaced);
    let gone = before.slices(&rig.shared, 1, 30, 1, true, &mut Hint::default());
    assert!(matches!(gone, Err(ReadError::Gone)));
    let mut bytes = vec![0; held[0].len as usize];
    crate::sys::read_at(&held[0].file, &mut bytes, held[0].position).unwrap();
    assert_eq!(headers(&bytes)[0].base_offset, 1);
}

#[test]
fn a_rewrite_of_what_has_gone_is_refused_and_leaves_nothing() {
    let rig = rig();
    let mut log = thirty(&rig);
    let second = rewrite(&log, 1..3);
    let all = rig.names("");
    log.raise_start(log.view().closed[1].end_offset).unwrap();
    assert_eq!(log.take_passed().len(), 2);
    let seen = seen_bases(&log);
    assert!(log.swap(&second).unwrap().is_none());
    assert_eq!(seen_bases(&log), seen);
    assert_eq!(rig.names("").len(), all.len() - 4, "the prepared files");
    let kept = rewrite(&log, 1..3);
    log.swap(&kept).unwrap().unwrap();
    assert!(log.swap(&kept).unwrap().is_none(), "twice");
}

#[test]
fn a_swap_that_cannot_be_decided_changes_nothing() {
    let rig = rig();
    let mut log = thirty(&rig);
    let rewrite = rewrite(&log, 1..3);
    let base = rewrite.extent.base_offset();
    // A directory is in the name's place.
    std::fs::create_dir(rig.path(&format!("{base:020}.log.swap"))).unwrap();
    assert!(log.swap(&rewrite).is_err());
    assert!(!log.is_offline() && rig.names(".cleaned").is_empty());
    assert_eq!(seen_bases(&log), bases(0..30));
    append_synced(&mut log, batch(1, 10, 300));
}

#[test]
fn a_swap_that_cannot_end_does_so_at_the_next_start() {
    let rig = rig();
    let mut log = thirty(&rig);
    let rewrite = rewrite(&log, 1..4);
    let expected = left(&log.view(), 1..4);
    let base = log.view().closed[2].base_offset();
    let in_the_way = rig.path(&format!("{base:020}.log.deleted"));
    std::fs::create_dir(&in_the_way).unwrap();
    assert!(log.swap(&rewrite).is_err());
    assert!(log.is_offline());
    drop(log);
    std::fs::remove_dir(&in_the_way).unwrap();
    let (log, report) = rig.recover(Some(30));
    assert_eq!(seen_bases(&log), expected);
    assert!(report.gaps.is_empty() && report.cut.is_none());
}

/// The names of a swap, one after the other, as a crash of the broker may leave them; by a garbled one, too.
#[test]
fn each_step_is_ended_or_dropped_by_the_next_start() {
    let rig = rig();
    let log = thirty(&rig);
    let old: Vec<i64> = log.view().closed[1..4]
        .iter()
        .map(|e| e.base_offset())
        .collect();
    let expected = left(&log.view(), 1..4);
    rewrite(&log, 1..4);
    log.close().unwrap();
    let mut steps = Vec::new();
    for (from, to) in [(".cleaned", ".swap"), (".swap", "")] {
        if to.is_empty() {
            for base in &old {
                let name = |extension: &str| format!("{base:020}{extension}");
                for extension in [".log", ".index", ".timeindex", ".txnindex"] {
                    steps.push((name(extension), name(&format!("{extension}.deleted"))));
                }
            }
        }
        for extension in [".index", ".timeindex", ".txnindex", ".log"] {
            let name = |suffix: &str| format!("{:020}{extension}{suffix}", old[0]);
            steps.push((name(from), name(to)));
        }
    }
    for garbled in [false, true] {
        for done in 0..=steps.len() {
            let left = Rig::small(800);
            copy_dir(rig.dir.path(), left.dir.path());
            for (from, to) in &steps[..done] {
                std::fs::rename(left.path(from), left.path(to)).unwrap();
            }
            let swap = left.path(&format!("{:020}.log.swap", old[0]));
            let first_is_there = left.log_file(old[0]).exists();
            if garbled && swap.exists() {
                let size = swap.metadata().unwrap().len();
                let file = std::fs::OpenOptions::new().write(true).open(&swap);
                file.unwrap().set_len(size - 1).unwrap();
            }
            let (log, _) = left.recover(Some(30));
            let seen = seen_bases(&log);
            match (done < 4, garbled && done < steps.len()) {
                (true, _) => assert_eq!(seen, bases(0..30), "{done}"),
                (false, false) => assert_eq!(seen, expected, "{done}"),
                (false, true) if first_is_there => assert_eq!(seen, bases(0..30), "{done}"),
                // Below the recovery point nothing is read: the log is as good as the disk kept it.
                (false, true) => assert!(!seen.is_empty(), "{done}"),
            }
            assert_eq!(left.names(".cleaned").len() + left.names(".swap").len(), 0);
            assert!(left.names(".deleted").is_empty());
        }
    }
}

/// Kafka splits a segment that is too large: until the last of the new ones is decided, the old one counts.
#[test]
fn kafkas_unfinished_split_is_dropped() {
    let rig = rig();
    let log = thirty(&rig);
    let base = log.view().closed[2].base_offset();
    log.close().unwrap();
    std::fs::write(rig.path(&format!("{base:020}.log.cleaned")), b"").unwrap();
    let part = std::fs::read(rig.log_file(base)).unwrap();
    let part = &part[batch_bytes() as usize..];
    std::fs::write(rig.path(&format!("{:020}.log.swap", base + 1)), part).unwrap();
    let (log, report) = rig.recover(Some(30));
    assert_eq!(seen_bases(&log), bases(0..30));
    assert!(report.gaps.is_empty());
}

/// Holes that compaction left let no producer skip a sequence, however much of small state is lost.
#[test]
fn a_hole_of_compaction_forgives_no_sequence() {
    let rig = rig();
    let mut log = rig.create();
    for sequence in 0..30 {
        append_synced(&mut log, sent(7, 0, 3 * sequence, 3));
    }
    let rewrite = rewrite(&log, 0..4);
    let replaced = log.swap(&rewrite).unwrap().unwrap();
    let files = retire(&rig, replaced);
    files
        .iter()
        .for_each(|file| std::fs::remove_file(file).unwrap());
    log.close().unwrap();
    for (clean, hints) in [(true, true), (false, true), (true, false), (false, false)] {
        let left = Rig::small(800);
        copy_dir(rig.dir.path(), left.dir.path());
        if !hints {
            for suffix in [".snapshot", ".index", ".timeindex", ".txnindex"] {
                left.remove(suffix);
            }
        }
        let start = left.start(clean, None);
        let compacted = super::super::LogSettings {
            compacted: true,
            ..left.settings.clone()
        };
        let shared = std::sync::Arc::new(Shared::new(64, 1000));
        let (mut log, report) = Log::recover(left.dir.path(), &shared, compacted, &start).unwrap();
        assert!(report.gaps.is_empty() && report.cut.is_none(), "{report:?}");
        let skipped = log.stage(sent(7, 0, 95, 1), None, 0, 1000).unwrap_err();
        assert_eq!(skipped.0, crate::error::ErrorCode::OutOfOrderSequenceNumber);
        assert_eq!(append(&mut log, sent(7, 0, 90, 1)), 90);
    }
}
