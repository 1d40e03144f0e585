//! Every codec against an encoder that is not ours, and against what no encoder makes.

use super::*;
use proptest::prelude::*;
use std::io::Write;

const WINDOW_BYTES_MAX: usize = 8 << 20;

fn decoders() -> Decoders {
    Decoders::new(Budget::new(64 << 20), WINDOW_BYTES_MAX)
}

fn inflate_with(decoders: &Decoders, codec: Codec, input: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut stream = decoders.open(codec, input)?;
    let mut out = Vec::new();
    loop {
        let piece = stream.fill()?;
        if piece.is_empty() {
            return Ok(out);
        }
        // Not all at once: a piece must still be there after part of it is consumed.
        let count = piece.len().div_ceil(2);
        out.extend_from_slice(&piece[..count]);
        stream.consume(count);
    }
}

fn inflate(codec: Codec, input: &[u8]) -> Result<Vec<u8>, Failure> {
    inflate_with(&decoders(), codec, input)
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn snappy(plain: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(plain).unwrap()
}

fn xerial(plain: &[u8]) -> Vec<u8> {
    let mut framed = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
    for chunk in plain.chunks(32 << 10) {
        let block = snappy(chunk);
        framed.extend_from_slice(&(block.len() as u32).to_be_bytes());
        framed.extend_from_slice(&block);
    }
    framed
}

fn lz4(plain: &[u8], linked: bool, size: ::lz4::BlockSize, checks: bool) -> Vec<u8> {
    let mut encoder = ::lz4::EncoderBuilder::new()
        .block_mode(if linked {
            ::lz4::BlockMode::Linked
        } else {
            ::lz4::BlockMode::Independent
        })
        .block_size(size)
        .block_checksum(if checks {
            ::lz4::liblz4::BlockChecksum::BlockChecksumEnabled
        } else {
            ::lz4::liblz4::BlockChecksum::NoBlockChecksum
        })
        .checksum(if checks {
            ::lz4::ContentChecksum::ChecksumEnabled
        } else {
            ::lz4::ContentChecksum::NoChecksum
        })
        .build(Vec::new())
        .unwrap();
    encoder.write_all(plain).unwrap();
    let (bytes, result) = encoder.finish();
    result.unwrap();
    bytes
}

fn zstd(plain: &[u8], level: i32) -> Vec<u8> {
    ::zstd::stream::encode_all(plain, level).unwrap()
}

/// The same plain bytes by every encoder that clients use.
fn every_encoding(plain: &[u8]) -> Vec<(Codec, Vec<u8>)> {
    use ::lz4::BlockSize::*;
    let mut two_members = gzip(&plain[..plain.len() / 3]);
    two_members.extend(gzip(&plain[plain.len() / 3..]));
    let mut two_frames = zstd(&plain[..plain.len() / 3], 1);
    two_frames.extend_from_slice(b"\x53\x2a\x4d\x18\x03\0\0\0abc");
    two_frames.extend(::zstd::bulk::compress(&plain[plain.len() / 3..], 3).unwrap());
    vec![
        (Codec::Gzip, gzip(plain)),
        (Codec::Gzip, two_members),
        (Codec::Snappy, snappy(plain)),
        (Codec::Snappy, xerial(plain)),
        (Codec::Lz4, lz4(plain, false, Max64KB, false)),
        (Codec::Lz4, lz4(plain, false, Max4MB, true)),
        (Codec::Lz4, lz4(plain, true, Max64KB, false)),
        (Codec::Lz4, lz4(plain, true, Max1MB, true)),
        (Codec::Zstd, zstd(plain, 3)),
        (Codec::Zstd, ::zstd::bulk::compress(plain, 9).unwrap()),
        (Codec::Zstd, two_frames),
    ]
}

/// Bytes that repeat near and far, and some that do not repeat at all.
fn text(bytes: usize) -> Vec<u8> {
    let mut state = 7u32;
    let mut out = Vec::with_capacity(bytes + 64);
    while out.len() < bytes {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        match state >> 30 {
            0 => out.extend_from_slice(&state.to_le_bytes()),
            1 => out.extend_from_slice(format!("record {} ", state >> 12 & 0xff).as_bytes()),
            2 if out.len() > 200_000 => {
                out.extend_from_within(out.len() - 199_000..out.len() - 198_900)
            }
            _ => out.extend_from_slice(b"the same words again and again, "),
        }
    }
    out.truncate(bytes);
    out
}

#[test]
fn every_encoders_output_is_read() {
    for bytes in [0, 1, 100, 65_535, 65_536, 65_537, 1_500_000] {
        let plain = text(bytes);
        for (codec, encoded) in every_encoding(&plain) {
            assert_eq!(
                inflate(codec, &encoded).unwrap(),
                plain,
                "{codec:?} {bytes}"
            );
        }
    }
}

#[test]
fn a_decoder_is_used_again() {
    let decoders = decoders();
    let plain = text(300_000);
    for round in 0..3 {
        for (codec, encoded) in every_encoding(&plain[round * 1000..]) {
            let inflated = inflate_with(&decoders, codec, &encoded).unwrap();
            assert_eq!(inflated, plain[round * 1000..], "{codec:?}");
        }
    }
    assert_eq!(decoders.budget.used(), 0);
    let idle = decoders.idle.lock();
    assert!(!idle.decoders.is_empty() && idle.bytes <= IDLE_BYTES_MAX);
}

/// The bytes that xerial's Java and Python's clients send: magic, version 1, compatible with 1, length, raw block.
#[test]
fn snappy_arrives_raw_and_xerial_framed() {
    let raw = b"\x0b\x28hello world";
    let mut framed = b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x0d".to_vec();
    framed.extend_from_slice(raw);
    assert_eq!(inflate(Codec::Snappy, raw).unwrap(), b"hello world");
    assert_eq!(inflate(Codec::Snappy, &framed).unwrap(), b"hello world");
    framed.extend_from_slice(b"\0\0\0\x0d");
    framed.extend_from_slice(raw);
    assert_eq!(
        inflate(Codec::Snappy, &framed).unwrap(),
        b"hello worldhello world"
    );
}

/// franz-go's snappy (s2) copies from farther back than Google's 64 KiB.
#[test]
fn snappy_copies_from_far_back() {
    let far = 300_000u32;
    let literal = text(far as usize);
    let mut block = vec![0xc0 | 0x20, 0xa7, 0x12];
    block[0] = 0x80 | (far + 60) as u8 & 0x7f;
    block[1] = 0x80 | ((far + 60) >> 7) as u8 & 0x7f;
    block[2] = ((far + 60) >> 14) as u8;
    block.push(62 << 2);
    block.extend_from_slice(&(far - 1).to_le_bytes()[..3]);
    block.extend_from_slice(&literal);
    block.push(59 << 2 | 3);
    block.extend_from_slice(&far.to_le_bytes());
    let mut plain = literal.clone();
    plain.extend_from_slice(&literal[..60]);
    assert_eq!(inflate(Codec::Snappy, &block).unwrap(), plain);
}

/// FACTS: Kafka does not check LZ4's content checksum (AK PR#22162), nor its content size.
#[test]
fn lz4_content_checksum_is_not_checked() {
    let plain = text(1000);
    let mut encoded = lz4(&plain, false, ::lz4::BlockSize::Max64KB, true);
    *encoded.last_mut().unwrap() ^= 1;
    assert_eq!(inflate(Codec::Lz4, &encoded).unwrap(), plain);
    let block_byte = encoded.len() - 20;
    encoded[block_byte] ^= 1;
    assert!(inflate(Codec::Lz4, &encoded).is_err(), "block checks are");
}

#[test]
fn lz4_header_check_is_that_of_xxhash() {
    // "04 22 4d 18 | 64 40 | a7": the header that the lz4 tool writes by default.
    assert_eq!(header_check_of(&[0x64, 0x40]), 0xa7);
}

fn header_check_of(descriptor: &[u8]) -> u8 {
    let mut frame = vec![0x04, 0x22, 0x4d, 0x18];
    frame.extend_from_slice(descriptor);
    let found = (0..=255u8).find(|&check| {
        let mut whole = frame.clone();
        whole.push(check);
        // An end mark, and a content checksum where the flag says so.
        whole.extend_from_slice(&[0; 8]);
        lz4::plan(&whole).is_ok()
    });
    found.unwrap()
}

/// Go's lz4 encoder states blocks of 4 MiB for anything: what is taken is what the blocks really need.
#[test]
fn lz4_block_size_is_what_the_blocks_need() {
    let encoded = lz4(&text(10_000), false, ::lz4::BlockSize::Max4MB, true);
    assert!(lz4::plan(&encoded).unwrap().need().memory < 256 << 10);
    let encoded = lz4(&text(200_000), true, ::lz4::BlockSize::Max4MB, true);
    assert!(lz4::plan(&encoded).unwrap().need().memory < 2 << 20);
}

#[test]
fn a_window_over_the_limit_is_refused() {
    let plain = text(3 << 20);
    let small = Decoders::new(Budget::new(64 << 20), 1 << 20);
    let mut encoder = ::zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    encoder.window_log(21).unwrap();
    encoder.write_all(&plain).unwrap();
    let encoded = encoder.finish().unwrap();
    assert_eq!(inflate(Codec::Zstd, &encoded).unwrap(), plain);
    let failure = inflate_with(&small, Codec::Zstd, &encoded).unwrap_err();
    let expected = Failure::Window {
        needed: 2 << 20,
        limit: 1 << 20,
    };
    assert_eq!(failure, expected);
    assert!(failure.to_string().contains("decompression.window.max"));
    let encoded = lz4(&plain, false, ::lz4::BlockSize::Max4MB, false);
    let failure = inflate_with(&small, Codec::Lz4, &encoded).unwrap_err();
    assert!(matches!(failure, Failure::Window { .. }));
}

/// A frame of a few bytes that states a window of 2 TiB, or 2^60 bytes of content, allocates nothing.
#[test]
fn an_absurd_zstd_window_allocates_nothing() {
    let window = b"\x28\xb5\x2f\xfd\x00\xf8\x01\x00\x00";
    let content = b"\x28\xb5\x2f\xfd\xe0\0\0\0\0\0\0\0\x10\x01\x00\x00";
    for input in [&window[..], &content[..]] {
        let failure = inflate(Codec::Zstd, input).unwrap_err();
        assert!(matches!(failure, Failure::Window { .. }), "{failure:?}");
    }
}

/// Found by fuzzing: room for as many sequences as a block says, 1.2 MB, was taken beyond what was charged.
#[test]
fn more_zstd_sequences_than_a_block_can_hold_are_refused() {
    // A window of 1 KiB; one compressed block: no literals, 0x7f00 + 0xffff sequences, each code repeated.
    let frame = b"\x28\xb5\x2f\xfd\x00\x00\x4d\x00\x00\x00\xff\xff\xff\x54\x00\x00\x00\x01";
    assert!(zstd::plan(frame).is_err());
    // The same with 4 sequences.
    let mut few = frame.to_vec();
    few.splice(9..13, [0, 4]);
    few[6] = 0x3d;
    assert!(zstd::plan(&few).is_ok());
}

#[test]
fn zstd_dictionaries_are_refused() {
    let frame = b"\x28\xb5\x2f\xfd\x01\x58\x07\x01\x00\x00";
    assert!(inflate(Codec::Zstd, frame).is_err());
}

#[test]
fn gzip_optional_header_fields_are_read() {
    let encoded = flate2::GzBuilder::new()
        .filename("name")
        .comment("a comment")
        .extra(vec![1, 2, 3, 0])
        .write(Vec::new(), flate2::Compression::fast());
    let mut encoded = encoded;
    encoded.write_all(b"hello").unwrap();
    assert_eq!(
        inflate(Codec::Gzip, &encoded.finish().unwrap()).unwrap(),
        b"hello"
    );
}

#[test]
fn waiters_queue_for_the_budget() {
    let budget = Budget::new(100 << 10);
    let decoders = Decoders::new(budget.clone(), WINDOW_BYTES_MAX);
    let encoded = gzip(&text(500_000));
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| inflate_with(&decoders, Codec::Gzip, &encoded).unwrap());
        }
    });
    assert_eq!(budget.used(), 0);
    budget.close();
    let closed = inflate_with(&decoders, Codec::Gzip, &encoded);
    assert_eq!(closed.unwrap_err(), Failure::Closed);
}

#[test]
fn what_is_cut_short_or_goes_on_is_refused() {
    let plain = text(2000);
    for (codec, encoded) in every_encoding(&plain) {
        for end in 0..encoded.len() {
            let got = inflate(codec, &encoded[..end]);
            // A whole member or frame less is for the walk over the records to notice.
            assert!(
                got.map_or(true, |g| g.len() < plain.len()),
                "{codec:?} {end}"
            );
        }
        let longer = [&encoded[..], &[0]].concat();
        assert!(inflate(codec, &longer).is_err(), "{codec:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_come_back(plain in proptest::collection::vec(any::<u8>(), 0..5000)) {
        for (codec, encoded) in every_encoding(&plain) {
            prop_assert_eq!(&inflate(codec, &encoded).unwrap(), &plain);
        }
    }

    #[test]
    fn garbage_never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let magics: [&[u8]; 6] = [
            b"", b"\x1f\x8b\x08\0\0\0\0\0\0\0", b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01",
            b"\x04\x22\x4d\x18\x60\x40\x82", b"\x28\xb5\x2f\xfd\x00\x58", b"\x28\xb5\x2f\xfd\x20\x7f",
        ];
        for magic in magics {
            bytes.splice(0..0, magic.iter().copied());
            for id in 1..=4 {
                let _ = inflate(Codec::from_id(id).unwrap(), &bytes);
            }
            bytes.drain(..magic.len());
        }
    }
}

/// Flips bytes of what encoders make: nothing panics, nothing hangs, and what is accepted is bounded. The number of
/// rounds can be raised: `OTTLA_FUZZ_ROUNDS=1000000 cargo test --release damage`.
#[test]
fn damage_never_panics() {
    use rand::{Rng, SeedableRng};
    let rounds = std::env::var("OTTLA_FUZZ_ROUNDS").map_or(300, |r| r.parse().unwrap());
    let seed =
        std::env::var("OTTLA_FUZZ_SEED").map_or_else(|_| rand::random(), |s| s.parse().unwrap());
    println!("OTTLA_FUZZ_SEED={seed}");
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let decoders = decoders();
    for _ in 0..rounds {
        let bytes = [200, 3000, 70_000][random.random_range(0..3)];
        for (codec, mut encoded) in every_encoding(&text(bytes)) {
            for _ in 0..random.random_range(1..8) {
                let at = random.random_range(0..encoded.len());
                encoded[at] = random.random();
            }
            let _ = inflate_with(&decoders, codec, &encoded);
        }
    }
    assert_eq!(decoders.budget.used(), 0);
}
