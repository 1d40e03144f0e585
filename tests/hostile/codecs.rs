//! Compressed batches that are corrupt, and ones that are right and a thousand times larger inside.

use crate::common::client::{Client, LONG_AGO_MS, PRODUCE, produce};
use crate::common::codecs::compress;
use crate::start;
use ottla::batch::builder::Builder;
use ottla::compress::Codec;
use ottla::error::ErrorCode;
use std::io::Write;

const CODECS: [Codec; 4] = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

/// One record of so many zeros.
fn zeros(bytes: usize) -> Builder {
    let mut builder = Builder::new(LONG_AGO_MS);
    builder.add(None, Some(&vec![0; bytes]), &[], LONG_AGO_MS);
    builder
}

/// The CRC is right, so it was the producer: INVALID_RECORD, on which no client tries again.
#[test]
fn corrupt_compressed_blocks_never_reach_the_log() {
    let (_data, broker, mut bystander) = start(&[]);
    bystander.client.create("t", &[]);
    let text = "the quick brown fox jumps over the lazy dog ".repeat(20);
    let mut builder = Builder::new(LONG_AGO_MS);
    for n in 0..20 {
        let value = &text.as_bytes()[..n * 40];
        builder.add(Some(&[n as u8; 3]), Some(value), &[], LONG_AGO_MS);
    }
    for codec in CODECS {
        let good = compress(codec, builder.records());
        let client = &mut bystander.client;
        client.store("t", &builder.build_from(codec, &good));
        for (at, bit) in (0..good.len()).zip((0..8).cycle()) {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            client.send(PRODUCE, &produce("t", -1, &builder.build_from(codec, &bad)));
        }
        // A bit of gzip's time of day or of a text hurts nobody; the rest is refused.
        let codes: Vec<i16> = (0..good.len())
            .map(|_| client.produced().error_code)
            .collect();
        let invalid = ErrorCode::InvalidRecord.code();
        assert!(
            codes.iter().all(|code| [0, invalid].contains(code)),
            "{codes:?}"
        );
        assert!(codes.iter().filter(|code| **code == invalid).count() > 10);
        for bad in [
            &good[..good.len() - 1],
            &good[..good.len() / 2],
            &[],
            &[0; 9],
        ] {
            let batch = builder.build_from(codec, bad);
            client.refused("t", &batch, ErrorCode::InvalidRecord);
        }
        let more = [&good[..], &[0]].concat();
        client.refused(
            "t",
            &builder.build_from(codec, &more),
            ErrorCode::InvalidRecord,
        );
        broker.expect_log("a batch for t-0 is refused with INVALID_RECORD");
        bystander.check();
    }
}

/// Bombs are right batches, as far as they go: they are walked and stored, and never materialised.
#[test]
fn decompression_bombs_take_no_memory() {
    let settings = [
        "decompression.window.max=1048576",
        "decompression.memory.max=2097152",
        "message.max.bytes=4000000",
    ];
    let (_data, broker, mut bystander) = start(&settings);
    bystander.client.create("t", &[]);
    const BYTES: usize = 48 << 20;
    let before = broker.status("VmHWM:");
    let builder = zeros(BYTES);
    for codec in CODECS {
        let bomb = builder.build_from(codec, &compress(codec, builder.records()));
        assert!(bomb.len() * 15 < BYTES, "{codec:?}: {}", bomb.len());
        let mut clients: Vec<_> = (0..4).map(|_| Client::connect(&broker.address)).collect();
        for client in &mut clients {
            client.send(PRODUCE, &produce("t", -1, &bomb));
        }
        bystander.check();
        for client in &mut clients {
            let answer = client.produced();
            assert_eq!(answer.error_code, 0, "{codec:?} {:?}", answer.error_message);
        }
    }
    let grown = broker.status("VmHWM:") - before;
    assert!(
        grown < 48 << 10,
        "{grown} KiB for bombs of {BYTES} bytes each"
    );
}

/// The frame's header alone says how much memory it wants: refused before any is allocated.
#[test]
fn a_window_beyond_the_limit_is_refused_with_a_message() {
    let (_data, broker, mut bystander) = start(&["decompression.window.max=65536"]);
    bystander.client.create("t", &[]);
    let before = broker.status("VmHWM:");
    let builder = zeros(1 << 20);
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.include_contentsize(false).unwrap();
    encoder.write_all(builder.records()).unwrap();
    let wide = encoder.finish().unwrap();
    let answer = bystander
        .client
        .produce("t", -1, &builder.build_from(Codec::Zstd, &wide));
    assert_eq!(answer.error_code, ErrorCode::InvalidRecord.code());
    assert!(
        answer
            .error_message
            .unwrap()
            .contains("decompression.window.max")
    );
    assert!(broker.status("VmHWM:") - before < 16 << 10);
    bystander.check();
}
