//! Snappy in xerial's frame, as Kafka's Java clients write it. The picture of both is at the decoder, in
//! [`crate::compress`]'s `snappy`.

use super::matches::{Match, Matcher};

/// The magic, then version 1, which readers of version 1 understand.
const XERIAL_HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";

/// Snappy-java's own block size.
const BLOCK_BYTES: usize = 32 << 10;

/// The longest copy that one element makes.
const COPY_BYTES_MAX: usize = 64;

pub(super) fn encode(input: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&XERIAL_HEADER);
    let mut matcher = Matcher::new();
    for start in (0..input.len()).step_by(BLOCK_BYTES) {
        let end = input.len().min(start + BLOCK_BYTES);
        let length_at = out.len();
        out.extend_from_slice(&[0; 4]);
        put_varint(out, end - start);
        let rest = matcher.find(input, start..end, start, |literals, copied| {
            put_literals(out, literals);
            put_copy(out, copied);
        });
        put_literals(out, &input[rest]);
        let length = (out.len() - length_at - 4) as i32;
        out[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_literals(out: &mut Vec<u8>, literals: &[u8]) {
    // A block is shorter than 64 KiB: two bytes of length are enough.
    match literals.len() {
        0 => return,
        length @ 1..=60 => out.push((length as u8 - 1) << 2),
        length @ 61..=256 => out.extend_from_slice(&[60 << 2, (length - 1) as u8]),
        length => {
            out.push(61 << 2);
            out.extend_from_slice(&(length as u16 - 1).to_le_bytes());
        }
    }
    out.extend_from_slice(literals);
}

fn put_copy(out: &mut Vec<u8>, Match { back, mut length }: Match) {
    while length > 0 {
        let now = length.min(COPY_BYTES_MAX);
        if (4..12).contains(&now) && back < 1 << 11 {
            out.push(1 | (now as u8 - 4) << 2 | ((back >> 8) as u8) << 5);
            out.push(back as u8);
        } else {
            out.push(2 | (now as u8 - 1) << 2);
            out.extend_from_slice(&(back as u16).to_le_bytes());
        }
        length -= now;
    }
}
