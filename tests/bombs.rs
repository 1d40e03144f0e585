//! A batch that inflates a thousandfold is walked in a window, never held: measured by the kernel, not by ourselves.
//! The only test of its process, so that no other's memory is counted.

use ottla::batch::builder::Builder;
use ottla::batch::check::{Rules, check};
use ottla::budget::Budget;
use ottla::compress::{Codec, Decoders};
use ottla::wire::frame::FrameSlice;
use std::fs;
use std::io::Write;

const VALUE_BYTES: usize = 256 << 20;

/// What the process may grow by while it walks a batch of `VALUE_BYTES`: any decoder's buffers.
const GROWTH_BYTES_MAX: u64 = 4 << 20;

/// One record whose value is all zeros, piece by piece, so that the test does not hold it either.
fn write_record(mut out: impl Write) {
    let zigzag = |value: usize| {
        let mut rest = value * 2;
        let mut bytes = Vec::new();
        while rest >= 0x80 {
            bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        bytes.push(rest as u8);
        bytes
    };
    let value_length = zigzag(VALUE_BYTES);
    let fields = [&[0, 0, 0, 1][..], &value_length].concat();
    let length = zigzag(fields.len() + VALUE_BYTES + 1);
    out.write_all(&length).unwrap();
    out.write_all(&fields).unwrap();
    let zeros = [0; 64 << 10];
    for _ in 0..VALUE_BYTES / zeros.len() {
        out.write_all(&zeros).unwrap();
    }
    out.write_all(&[0]).unwrap();
}

/// Snappy by hand, since its encoders hold all input: a literal, copies of one byte back, a literal.
fn snappy_record() -> Vec<u8> {
    struct Raw(Vec<u8>, usize);
    impl Write for Raw {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.1 += bytes.len();
            if bytes.len() < 60 {
                self.0.push((bytes.len() as u8 - 1) << 2);
                self.0.extend_from_slice(bytes);
            } else {
                assert!(bytes.iter().all(|&b| b == 0));
                self.0.extend_from_slice(&[0, 0]);
                for left in (0..bytes.len() - 1).rev().step_by(64) {
                    self.0.push((left.min(63) as u8) << 2 | 2);
                    self.0.extend_from_slice(&[1, 0]);
                }
            }
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut raw = Raw(Vec::new(), 0);
    write_record(&mut raw);
    let mut block = Vec::new();
    let mut length = raw.1;
    while length >= 0x80 {
        block.push(length as u8 | 0x80);
        length >>= 7;
    }
    block.push(length as u8);
    block.extend_from_slice(&raw.0);
    block
}

fn bombs() -> Vec<(Codec, Vec<u8>)> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    write_record(&mut gzip);
    let mut lz4 = lz4::EncoderBuilder::new()
        .block_mode(lz4::BlockMode::Independent)
        .block_size(lz4::BlockSize::Max64KB)
        .build(Vec::new())
        .unwrap();
    write_record(&mut lz4);
    let mut zstd = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    zstd.window_log(17).unwrap();
    write_record(&mut zstd);
    vec![
        (Codec::Gzip, gzip.finish().unwrap()),
        (Codec::Lz4, lz4.finish().0),
        (Codec::Zstd, zstd.finish().unwrap()),
        (Codec::Snappy, snappy_record()),
    ]
}

/// The most memory that the process has had resident since the last reset, in bytes.
fn peak_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}

fn reset_peak() {
    fs::write("/proc/self/clear_refs", "5").unwrap();
}

#[test]
fn bombs_are_walked_in_a_window() {
    let budget = Budget::new(64 << 20);
    let decoders = Decoders::new(budget.clone(), 8 << 20);
    let rules = Rules {
        message_bytes_max: i32::MAX,
        append_time: None,
        keys_required: false,
        now_ms: 0,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: i64::MAX,
        zstd_allowed: true,
    };
    let mut one_record = Builder::new(0);
    one_record.add(None, None, &[], 0);
    for (codec, body) in bombs() {
        let batch = FrameSlice::from(one_record.build_from(codec, &body));
        reset_peak();
        let before = peak_bytes();
        let checked = check(&batch, &rules, &decoders);
        let growth = peak_bytes() - before;
        println!("{codec:?}: {} bytes, {growth} bytes of memory", batch.len());
        assert!(checked.is_ok(), "{codec:?}: {checked:?}");
        assert!(growth < GROWTH_BYTES_MAX, "{codec:?}: {growth} bytes");
        assert_eq!(budget.used(), 0);
    }
}
