//! Searches against a linear scan.

use super::super::testing::*;
use super::super::{Log, TimestampOffset};
use super::*;
use crate::batch::builder::Builder;
use crate::batch::{HEADER_BYTES, LENGTH_STARTS_AT};
use proptest::prelude::*;
use std::fs;

/// A log of `lengths.len()` batches, one to three records each, over some segments.
fn log_of(rig: &Rig, lengths: &[(i64, usize)]) -> Log {
    let mut log = rig.create();
    for &(records, bytes) in lengths {
        append(&mut log, batch(records, bytes, 1));
    }
    sync(&mut log);
    log.flush_indexes().unwrap();
    log
}

/// All of the log's bytes, by reading its files one after the other.
fn whole(rig: &Rig) -> Vec<u8> {
    let files = rig.names(".log");
    files
        .iter()
        .flat_map(|name| fs::read(rig.path(name)).unwrap())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Any fetch from any offset gives what a linear scan of all files gives, from the batch that holds the offset on.
    #[test]
    fn slices_are_a_linear_scan(
        lengths in proptest::collection::vec((1i64..4, 1usize..300), 1..60),
        segment_bytes in 200u32..4000,
        interval in 0u32..1500,
        bytes_max in 1u32..5000,
        offset_share in 0.0f64..1.0,
        end_share in 0.0f64..=1.0,
        whole_first_batch: bool,
    ) {
        let mut rig = Rig::small(segment_bytes);
        rig.settings.index_interval_bytes = interval;
        let log = log_of(&rig, &lengths);
        let view = log.view();
        let offset = (view.high_watermark as f64 * offset_share) as i64;
        let all = whole(&rig);
        let mut starts = Vec::new();
        let mut at = 0;
        for header in headers(&all) {
            starts.push((header.base_offset, at));
            at += header.total_bytes();
        }
        // Ends are batch edges, as high watermark and last stable offset are.
        let end_at = (starts.len() as f64 * end_share) as usize;
        let (end, end_position) = starts.get(end_at).copied().unwrap_or((view.high_watermark, all.len()));
        let first = starts.iter().rposition(|&(base, _)| base <= offset).unwrap();
        let (_, position) = starts[first];
        let next = starts.get(first + 1).map_or(all.len(), |&(_, at)| at);
        let slices = view.slices(&rig.shared, offset, end, bytes_max, whole_first_batch, &mut Hint::default()).unwrap();
        let (slices, is_cut) = (slices.files, slices.is_cut);
        let mut got = Vec::new();
        for slice in &slices {
            let from = got.len();
            got.resize(from + slice.len as usize, 0);
            crate::sys::read_at(&slice.file, &mut got[from..], slice.position).unwrap();
        }
        if offset >= end {
            prop_assert!(got.is_empty());
        } else if next - position > bytes_max as usize {
            let expected = if whole_first_batch { &all[position..next] } else { &[] };
            prop_assert_eq!(&got[..], expected);
        } else {
            prop_assert!(got.len() >= next - position && got.len() <= bytes_max as usize);
            prop_assert!(position + got.len() <= end_position);
            prop_assert_eq!(&got[..], &all[position..position + got.len()]);
        }
        let there = if offset < end { end_position - position } else { 0 };
        prop_assert_eq!(is_cut, got.len() < there);
    }

    /// A consumer that reads on from where it was, with its hint, sees every batch once.
    #[test]
    fn a_consumer_with_a_hint_sees_all(
        lengths in proptest::collection::vec((1i64..4, 1usize..300), 1..80),
        segment_bytes in 200u32..6000,
        interval in 0u32..1500,
        bytes_max in 1u32..3000,
    ) {
        let mut rig = Rig::small(segment_bytes);
        rig.settings.index_interval_bytes = interval;
        let log = log_of(&rig, &lengths);
        let view = log.view();
        let (mut offset, mut hint, mut seen) = (0, Hint::default(), Vec::new());
        while offset < view.high_watermark {
            let slices = view.slices(&rig.shared, offset, view.high_watermark, bytes_max, true, &mut hint).unwrap().files;
            let mut bytes = Vec::new();
            for slice in &slices {
                let from = bytes.len();
                bytes.resize(from + slice.len as usize, 0);
                crate::sys::read_at(&slice.file, &mut bytes[from..], slice.position).unwrap();
            }
            let got = headers(&bytes);
            prop_assert!(!got.is_empty());
            offset = got.last().unwrap().last_offset() + 1;
            seen.extend(got.iter().map(|h| h.base_offset));
        }
        let mut base = 0;
        let expected: Vec<i64> = lengths.iter().map(|&(records, _)| { base += records; base - records }).collect();
        prop_assert_eq!(seen, expected);
    }

    /// Whatever the index files hold, a fetch is right: entries are checked against the log.
    #[test]
    fn a_garbage_index_changes_no_answer(
        lengths in proptest::collection::vec((1i64..4, 1usize..300), 1..60),
        garbage in proptest::collection::vec(any::<u8>(), 0..600),
        zeros: bool,
        timestamp in 0i64..200,
    ) {
        let rig = Rig::small(3000);
        let mut log = rig.create();
        for (i, &(records, bytes)) in lengths.iter().enumerate() {
            append(&mut log, batch(records, bytes, i as i64 * 3));
        }
        sync(&mut log);
        log.flush_indexes().unwrap();
        let view = log.view();
        let good: Vec<Vec<u8>> = (0..view.high_watermark)
            .map(|offset| bytes_from(&view, &rig.shared, offset, 100))
            .collect();
        let end = view.high_watermark;
        let time = view.offset_for_timestamp(&rig.shared, &rig.decoders, timestamp, end).unwrap();
        for name in rig.names("index") {
            let len = fs::metadata(rig.path(&name)).unwrap().len() as usize;
            let fill = if zeros { vec![0; len] } else { garbage.iter().cycle().take(len).copied().collect() };
            fs::write(rig.path(&name), fill).unwrap();
        }
        for offset in 0..end {
            let first = &headers(&bytes_from(&view, &rig.shared, offset, 100))[0];
            prop_assert_eq!(first, &headers(&good[offset as usize])[0]);
        }
        let again = view.offset_for_timestamp(&rig.shared, &rig.decoders, timestamp, end).unwrap();
        prop_assert_eq!(again, time);
    }

    /// ListOffsets by timestamp is exact to the record, whatever order the timestamps come in.
    #[test]
    fn timestamps_are_a_linear_scan(
        batches in proptest::collection::vec(proptest::collection::vec(0i64..100, 1..5), 1..40),
        segment_bytes in 200u32..2000,
        interval in 0u32..500,
        timestamp in 0i64..110,
        start_share in 0.0f64..1.0,
        sealed: bool,
    ) {
        let mut rig = Rig::small(segment_bytes);
        rig.settings.index_interval_bytes = interval;
        let mut log = rig.create();
        for timestamps in &batches {
            let mut builder = Builder::new(timestamps[0]);
            for &timestamp in timestamps {
                builder.add(None, Some(b"value"), &[], timestamp);
            }
            append(&mut log, checked(&builder));
        }
        sync(&mut log);
        log.flush_indexes().unwrap();
        if sealed {
            log.close().unwrap();
            log = rig.reopen().0;
        }
        let all: Vec<i64> = batches.concat();
        let start = (all.len() as f64 * start_share * 2.0) as usize % all.len();
        log.raise_start(start as i64).unwrap();
        let view = log.view();
        let at = |offset: usize| TimestampOffset { timestamp: all[offset], offset: offset as i64, leader_epoch: 0 };
        let kept = &all[start..];
        let expected = kept.iter().position(|&t| t >= timestamp).map(|n| at(start + n));
        let end = view.high_watermark;
        let found = view.offset_for_timestamp(&rig.shared, &rig.decoders, timestamp, end).unwrap();
        prop_assert_eq!(found, expected);
        let max = kept.iter().max().unwrap();
        let expected = kept.iter().position(|t| t == max).map(|n| at(start + n));
        prop_assert_eq!(view.max_timestamp(&rig.shared, &rig.decoders).unwrap(), expected);
    }
}

#[test]
fn beyond_the_end_is_out_of_range() {
    let rig = Rig::new();
    let log = log_of(&rig, &[(3, 10)]);
    let view = log.view();
    let get = |offset| view.slices(&rig.shared, offset, 3, 1000, true, &mut Hint::default());
    assert!(matches!(get(-1), Err(ReadError::OutOfRange)));
    assert!(matches!(get(4), Err(ReadError::OutOfRange)));
    assert!(get(3).unwrap().files.is_empty());
    assert_eq!(get(2).unwrap().files.len(), 1);
}

/// Sarama leaves max timestamp unset: time queries must find its records all the same (RP PR#25200).
#[test]
fn a_batch_with_an_unset_max_timestamp_is_found_by_time() {
    let rig = Rig::small(200);
    let mut log = rig.create();
    for i in 0..6 {
        let good = batch(2, 60, 1000 + 10 * i);
        let mut header = good.header;
        header.max_timestamp = -1;
        header.crc = crate::batch::crc(&header.encode(), &good.body);
        let unset = super::super::super::batch::check::Checked {
            head: header.encode(),
            header,
            ..good
        };
        append(&mut log, unset);
    }
    sync(&mut log);
    let check = |log: &Log| {
        let view = log.view();
        let found = view.offset_for_timestamp(&rig.shared, &rig.decoders, 1031, 12);
        let found = found.unwrap().unwrap();
        assert_eq!((found.offset, found.timestamp), (7, 1031));
        let max = view.max_timestamp(&rig.shared, &rig.decoders).unwrap();
        assert_eq!(max.unwrap().offset, 11);
    };
    check(&log);
    drop(log);
    rig.remove("index");
    check(&rig.recover(None).0);
}

/// A slow disk is asked for headers alone: a batch's bytes are not touched to find it. The records of this log are
/// a hole in the file, so a read of them would show as a wrong CRC, and the search must not care.
#[test]
fn finding_a_batch_reads_headers_only() {
    let rig = Rig::new();
    let log = log_of(&rig, &[(1, 9000), (1, 9000), (1, 9000)]);
    let path = rig.log_file(0);
    let mut bytes = fs::read(&path).unwrap();
    let len = bytes.len() / 3;
    for at in [0, len, 2 * len] {
        bytes[at + HEADER_BYTES..at + len].fill(0);
    }
    fs::write(&path, &bytes).unwrap();
    assert!(len > LENGTH_STARTS_AT + 9000);
    let view = log.view();
    let slices = view.slices(&rig.shared, 2, 3, 1000, true, &mut Hint::default());
    let slices = slices.unwrap().files;
    assert_eq!(slices[0].position, 2 * len as u64);
    assert_eq!(slices[0].len, len as u32);
}

/// KIP-74, whatever the index says: it is a hint, and a reader of half a batch never gets on (P9).
#[test]
fn a_wrong_index_leaves_the_first_batch_whole() {
    let mut rig = Rig::small(1 << 20);
    rig.settings.index_interval_bytes = 0;
    let log = log_of(&rig, &[(1, 100); 10]);
    let path = rig.path(&rig.names(".index")[0]);
    let mut index = fs::read(&path).unwrap();
    for entry in index.chunks_mut(8) {
        // The lowest byte of its position.
        entry[7] ^= 3;
    }
    fs::write(&path, index).unwrap();
    let bytes_max = headers(&whole(&rig))[0].total_bytes() as u32 + 50;
    for offset in 0..9 {
        let bytes = bytes_from(&log.view(), &rig.shared, offset, bytes_max);
        let found = headers(&bytes);
        assert_eq!(found.first().map(|h| h.base_offset), Some(offset));
    }
}
