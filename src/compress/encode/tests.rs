//! What is encoded here is read by our decoders and by others' to be what it was.

use super::*;
use crate::budget::Budget;
use crate::compress::Decoders;
use proptest::prelude::*;
use std::io::Read;

const CODECS: [Codec; 4] = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

fn encoded(codec: Codec, text: &[u8]) -> Vec<u8> {
    // What the vector held stays.
    let mut out = b"before".to_vec();
    encode(codec, text, &mut out).unwrap();
    assert!(out.starts_with(b"before"));
    out.split_off(6)
}

/// What the libraries that clients are built upon make of it.
fn decoded_elsewhere(codec: Codec, bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    match codec {
        Codec::None => text.extend_from_slice(bytes),
        Codec::Gzip => {
            let mut decoder = flate2::read::GzDecoder::new(bytes);
            decoder.read_to_end(&mut text).unwrap();
        }
        Codec::Snappy => {
            let mut rest = bytes
                .strip_prefix(b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01")
                .unwrap();
            while let Some((length, after)) = rest.split_first_chunk() {
                let (block, after) = after.split_at(i32::from_be_bytes(*length) as usize);
                let block = snap::raw::Decoder::new().decompress_vec(block).unwrap();
                text.extend_from_slice(&block);
                rest = after;
            }
        }
        Codec::Lz4 => {
            let mut decoder = lz4::Decoder::new(bytes).unwrap();
            decoder.read_to_end(&mut text).unwrap();
        }
        Codec::Zstd => {
            let size = zstd_size(bytes);
            text = ::zstd::bulk::decompress(bytes, size).unwrap();
            assert_eq!(text.len(), size);
        }
    }
    text
}

/// librdkafka allocates what a frame says its content takes.
fn zstd_size(frame: &[u8]) -> usize {
    u32::from_le_bytes(*frame[6..].first_chunk().unwrap()) as usize
}

fn check(text: &[u8]) {
    for codec in CODECS {
        let bytes = encoded(codec, text);
        assert!(decoded_elsewhere(codec, &bytes) == text, "{codec:?}");
        let decoders = Decoders::new(Budget::new(16 << 20), 1 << 20);
        let mut ours = Vec::new();
        let fits = decoders.inflate(codec, &bytes, &mut ours, text.len());
        assert!(fits.unwrap() && ours == text, "{codec:?}");
        if !text.is_empty() {
            ours.clear();
            let fits = decoders.inflate(codec, &bytes, &mut ours, text.len() - 1);
            assert!(!fits.unwrap() && ours.is_empty(), "{codec:?}");
        }
    }
}

/// Text of words that come again and again, from what `seeds` say: how often, how long, how far back.
fn text(seeds: &[(u8, u16, u32)]) -> Vec<u8> {
    let mut text = Vec::new();
    let mut noise = 1u64;
    for &(kind, length, back) in seeds {
        let length = usize::from(length) + 1;
        match kind % 3 {
            0 => text.extend(std::iter::repeat_n(back as u8, length)),
            1 => {
                for _ in 0..length {
                    noise = noise
                        .wrapping_mul(6364136223846793005)
                        .wrapping_add(back.into());
                    text.push((noise >> 56) as u8);
                }
            }
            _ => {
                let back = (back as usize % (text.len() + 1)).max(1);
                for _ in 0..length {
                    let byte = text.len().checked_sub(back).map_or(7, |at| text[at]);
                    text.push(byte);
                }
            }
        }
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn any_text_comes_back(
        seeds in proptest::collection::vec((any::<u8>(), 0u16..6000, 0u32..300_000), 0..60),
    ) {
        check(&text(&seeds));
    }

    #[test]
    fn any_short_text_comes_back(text in proptest::collection::vec(0u8..3, 0..200)) {
        check(&text);
    }
}

/// Block edges, the longest literals and matches, and more sequences than two bytes count.
#[test]
fn texts_at_the_formats_edges_come_back() {
    for length in [
        0, 1, 3, 4, 5, 60, 61, 256, 257, 0x7fff, 0x8000, 0x8001, 65_535, 65_536,
    ] {
        check(&vec![b'x'; length]);
        check(&text(&[(1, length.min(65_535) as u16, 5)]));
    }
    for length in [131_071, 131_072, 131_073, 400_000] {
        let mut long = vec![b'x'; length];
        check(&long);
        long.insert(length / 2, b'y');
        check(&long);
        check(&text(&vec![(1, 60_000, 9); length / 60_000 + 1]));
    }
    let many: Vec<u8> = (0..40_000u32)
        .flat_map(|i| [b'a', b'b', b'c', b'd', ((i * i) >> 7) as u8])
        .collect();
    check(&many);
    check(&text(&[(2, 7, 65_530), (1, 3, 1)].repeat(9000)));
}

#[test]
fn what_repeats_gets_shorter() {
    let line = |i: u32| {
        format!(
            "{{\"id\":{i},\"name\":\"sensor\",\"state\":\"{}\"}}\n",
            i * 7919 % 64
        )
    };
    let text: String = (0..3000).map(line).collect();
    for codec in CODECS {
        let bytes = encoded(codec, text.as_bytes());
        assert!(bytes.len() * 2 < text.len(), "{codec:?}: {}", bytes.len());
    }
}
