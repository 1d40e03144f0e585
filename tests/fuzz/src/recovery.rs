//! A partition's directory in any state whatever: it opens without a person's help, what was good before the first bad
//! byte is still there, and opening it once more changes nothing.
//!
//! Input: `u8: bit 0 clean stop, 1 compacted, 2 recovery point known, 3 log start known | i64 recovery point
//! | i64 log start | files: u8 kind, bit 7 mends lengths and CRCs | i64 offset | piece`.

use super::{Bound, Taken, codecs, files, memory, mutate};
use ottla::batch::builder::Builder;
use ottla::batch::marker::Marker;
use ottla::batch::{self, HEADER_BYTES, Header, TRANSACTIONAL};
use ottla::storage::index::{Entry, OffsetEntry, TimeEntry};
use ottla::storage::recovery::Start;
use ottla::storage::{Hint, Log, LogSettings, Report, Shared, View};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A segment is read through a buffer, and what is known of it is kept: hints by its batches, producers by their ids.
pub const BOUND: Bound = Bound {
    times: 40,
    bytes: 2 << 20,
};

const CLEAN: u8 = 1;
const COMPACTED: u8 = 1 << 1;
const POINT: u8 = 1 << 2;
const STARTS: u8 = 1 << 3;
const MEND: u8 = 1 << 7;

/// The kinds of files, by their number.
const SUFFIXES: [&str; 10] = [
    ".log",
    ".index",
    ".timeindex",
    ".txnindex",
    ".snapshot",
    ".log.swap",
    ".log.cleaned",
    ".log.deleted",
    ".index.swap",
    "leader-epoch-checkpoint",
];

struct Case {
    flags: u8,
    recovery_point: i64,
    log_start: i64,
}

fn settings(case: &Case) -> LogSettings {
    LogSettings {
        segment_bytes_max: 1 << 20,
        segment_ms: i64::MAX,
        index_bytes_max: 1 << 20,
        index_interval_bytes: 64,
        preallocate: false,
        file_delete_delay: Duration::ZERO,
        compacted: case.flags & COMPACTED != 0,
        visible_when_synced: true,
    }
}

/// Writes the input's files; gives the bytes of those that are segments, by their base offsets.
fn lay_out(directory: &Path, mut input: &[u8]) -> BTreeMap<i64, Vec<u8>> {
    let mut segments = BTreeMap::new();
    while let (Some(kind), Some(offset)) = (mutate::u8(&mut input), mutate::i64(&mut input)) {
        let mut bytes = mutate::piece(&mut input).unwrap_or_default().to_vec();
        let suffix = SUFFIXES[usize::from(kind & 0x7f) % SUFFIXES.len()];
        if kind & MEND != 0 {
            mend(&mut bytes);
        }
        let name = match suffix.starts_with('.') {
            true => format!("{offset:020}{suffix}"),
            false => suffix.to_owned(),
        };
        fs::write(directory.join(name), &bytes).expect("written");
        if suffix == ".log" && offset >= 0 {
            segments.insert(offset, bytes);
        }
    }
    segments
}

/// Sets right what keeps a changed batch from being one.
fn mend(bytes: &mut [u8]) {
    let mut rest = bytes;
    while let Some(head) = rest.first_chunk::<HEADER_BYTES>() {
        let mut header = Header::parse(head);
        let left = rest.len();
        if header.total_bytes() < HEADER_BYTES || header.total_bytes() > left {
            header.batch_length = (left - batch::LENGTH_STARTS_AT) as i32;
        }
        header.magic = batch::MAGIC;
        let (own, after) = rest.split_at_mut(header.total_bytes());
        header.crc = batch::crc(&header.encode(), &own[HEADER_BYTES..]);
        own[..HEADER_BYTES].copy_from_slice(&header.encode());
        rest = after;
    }
}

fn recover(directory: &Path, case: &Case, clean: bool) -> (View, Report, Arc<Shared>) {
    let shared = Arc::new(Shared::new(16, 1_000));
    let (_, decoders) = codecs::decoders();
    let start = Start {
        check_all: false,
        outcome: &|_, _| None,
        clean,
        recovery_point: (case.flags & POINT != 0).then_some(case.recovery_point),
        log_start: (case.flags & STARTS != 0).then_some(case.log_start),
        tear_bytes_max: 1 << 16,
        decoders: &decoders,
        time_ms: 1 << 41,
    };
    let opened = Log::recover(directory, &shared, settings(case), &start);
    let (log, report) = opened.expect("no start needs a person");
    (log.view(), report, shared)
}

/// The headers of all batches that a consumer can get to; nothing if what was not looked at turns out to be none.
fn served(view: &View, shared: &Shared) -> Option<Vec<Header>> {
    let mut found = Vec::new();
    let (mut offset, mut hint) = (view.log_start, Hint::default());
    while offset < view.appended_end {
        let slices = view.slices(shared, offset, i64::MAX, 1 << 20, true, &mut hint);
        let before = offset;
        for slice in slices.ok()?.files {
            let mut bytes = vec![0; slice.len as usize];
            let read = ottla::sys::read_at(&slice.file, &mut bytes, slice.position);
            assert_eq!(read.expect("it can be read"), bytes.len());
            let mut rest = &bytes[..];
            while let Some(head) = rest.first_chunk() {
                let header = Header::parse(head);
                header.check().ok()?;
                let Some(after) = rest.get(header.total_bytes()..) else {
                    break;
                };
                offset = header.last_offset() + 1;
                found.push(header);
                rest = after;
            }
        }
        if offset == before {
            break;
        }
    }
    Some(found)
}

/// The batches at the front of the first segment that nothing is wrong with: kept, whatever follows.
fn good_front(segments: &BTreeMap<i64, Vec<u8>>) -> Vec<Header> {
    let (mut good, mut next) = (Vec::new(), 0);
    let Some((&base, bytes)) = segments.first_key_value() else {
        return good;
    };
    let until = segments.keys().nth(1).copied().unwrap_or(i64::MAX);
    let mut rest = &bytes[..];
    while let Ok(header) = batch::check_stored(rest) {
        let in_order = header.base_offset >= base.max(next)
            && header.last_offset() < until
            && header.last_offset() - base <= i64::from(i32::MAX);
        if !in_order {
            break;
        }
        next = header.last_offset() + 1;
        good.push(header);
        rest = &rest[header.total_bytes()..];
    }
    good
}

pub fn run(mut input: &[u8]) -> Taken {
    let (Some(flags), Some(recovery_point), Some(log_start)) = (
        mutate::u8(&mut input),
        mutate::i64(&mut input),
        mutate::i64(&mut input),
    ) else {
        return Taken::default();
    };
    // The broker's own checkpoints, so sane: what is not, is no number of a log.
    let case = Case {
        flags,
        recovery_point: recovery_point & i64::from(i32::MAX),
        log_start: log_start & i64::from(i32::MAX),
    };
    files::in_directory(|directory| {
        let segments = lay_out(directory, input);
        let ((view, _, shared), most) =
            memory::measured(|| recover(directory, &case, flags & CLEAN != 0));
        let first = served(&view, &shared);
        // A clean stop's sizes are trusted, and so is what lies before the recovery point.
        let all_read = flags & (CLEAN | POINT) == 0;
        assert!(first.is_some() || !all_read, "what was read can be served");
        let first = first.unwrap_or_default();
        if all_read && !has_rewrites(input) {
            for good in good_front(&segments) {
                let is_served = good.last_offset() < view.log_start || first.contains(&good);
                assert!(is_served, "{good:?} is lost; {first:?}");
            }
        }
        let again = Case {
            recovery_point: view.appended_end,
            flags: flags | POINT,
            ..case
        };
        for clean in [false, true] {
            let (view_again, report, shared) = recover(directory, &again, clean);
            let ends = |view: &View| (view.log_start, view.appended_end, view.high_watermark);
            assert_eq!(ends(&view_again), ends(&view), "clean: {clean}");
            if all_read {
                assert_eq!(
                    served(&view_again, &shared),
                    Some(first.clone()),
                    "clean: {clean}"
                );
                assert_eq!(
                    (report.cut, report.gaps),
                    (None, Vec::new()),
                    "clean: {clean}"
                );
            }
        }
        Taken {
            most,
            from_budgets: 0,
        }
    })
}

/// Whether a rewrite is among the files: it takes the place of what it covers.
fn has_rewrites(mut input: &[u8]) -> bool {
    while let (Some(kind), Some(_)) = (mutate::u8(&mut input), mutate::i64(&mut input)) {
        let _ = mutate::piece(&mut input);
        if (5..9).contains(&(usize::from(kind & 0x7f) % SUFFIXES.len())) {
            return true;
        }
    }
    false
}

fn put(out: &mut Vec<u8>, kind: u8, offset: i64, bytes: &[u8]) {
    out.push(kind);
    out.extend(offset.to_be_bytes());
    mutate::put_piece(out, bytes);
}

fn batch_at(offset: i64, records: usize) -> Vec<u8> {
    let mut builder = Builder::new(1_000)
        .place(offset, 0)
        .producer(7, 1, offset as i32);
    for _ in 0..records {
        builder.add(Some(b"k"), Some(b"value"), &[], 1_000 + offset);
    }
    builder.build()
}

/// Segments with and without indexes, with a tear and with rot, a transaction, an older rewrite.
pub fn seeds() -> Vec<Vec<u8>> {
    let head = |flags: u8, point: i64| {
        let mut input = vec![flags];
        input.extend(point.to_be_bytes());
        input.extend(0i64.to_be_bytes());
        input
    };
    let segment = [batch_at(0, 3), batch_at(3, 1), batch_at(4, 2)].concat();
    let mut whole = head(CLEAN | POINT | STARTS, 6);
    put(&mut whole, 0, 0, &segment);
    let mut index = Vec::new();
    OffsetEntry {
        relative_offset: 3,
        position: batch_at(0, 3).len() as u32,
    }
    .encode(&mut index);
    put(&mut whole, 1, 0, &index);
    let mut times = Vec::new();
    TimeEntry {
        timestamp: 1_003,
        relative_offset: 3,
    }
    .encode(&mut times);
    put(&mut whole, 2, 0, &times);
    put(&mut whole, 3, 0, &[]);
    put(&mut whole, 0, 6, &batch_at(6, 2));
    put(&mut whole, 9, 0, b"0\n1\n0 0\n");
    let mut torn = head(0, 0);
    put(
        &mut torn,
        0,
        0,
        &[&segment[..], &batch_at(6, 5)[..70]].concat(),
    );
    let mut rotten = head(POINT, 6);
    let mut damaged = segment.clone();
    damaged[batch_at(0, 3).len() + 70] ^= 1;
    put(&mut rotten, 0, 0, &damaged);
    put(&mut rotten, 0, 6, &[&batch_at(6, 1)[..], &[0; 64]].concat());
    let mut open = Builder::new(1_000)
        .place(0, 0)
        .producer(9, 0, 0)
        .attributes(TRANSACTIONAL);
    open.add(None, Some(b"x"), &[], 1_000);
    let mut marker = Marker {
        commit: false,
        coordinator_epoch: 0,
    }
    .batch(9, 0, 1_001);
    let mut placed: [u8; HEADER_BYTES] = *marker.first_chunk().expect("a header");
    batch::set_place(&mut placed, 1, 0);
    marker[..HEADER_BYTES].copy_from_slice(&placed);
    let mut aborted = head(COMPACTED, 0);
    put(&mut aborted, MEND, 0, &[open.build(), marker].concat());
    put(&mut aborted, 5, 0, &batch_at(0, 1));
    vec![whole, torn, rotten, aborted]
}
