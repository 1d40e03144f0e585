//! Seeded changes of an input, for runs without libFuzzer; and the small readers with which targets take inputs apart.

use rand::Rng;
use rand::rngs::StdRng;

/// Numbers at which arithmetic turns.
const NUMBERS: [i64; 12] = [
    0,
    -1,
    1,
    127,
    128,
    255,
    i16::MAX as i64,
    i16::MIN as i64,
    i32::MAX as i64,
    i32::MIN as i64,
    i64::MAX,
    i64::MIN,
];

/// No input grows beyond this.
const INPUT_BYTES_MAX: usize = 1 << 16;

/// A few changes to `input`; `other` is what pieces may come from.
pub fn mutate(random: &mut StdRng, input: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..random.random_range(1..5) {
        let at = random.random_range(0..=input.len());
        let end = (at + random.random_range(0..40)).min(input.len());
        match random.random_range(0..7) {
            0 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
            1 if at < input.len() => input[at] = random.random(),
            2 => {
                let number = NUMBERS[random.random_range(0..NUMBERS.len())].to_be_bytes();
                let bytes = &number[8 - (1 << random.random_range(0..4))..];
                let over = (at + bytes.len()).min(input.len());
                input.splice(at..over, bytes.iter().copied());
            }
            3 => drop(input.drain(at..end)),
            4 => {
                let piece = input[at..end].to_vec();
                input.splice(at..at, piece);
            }
            5 => {
                let from = random.random_range(0..=other.len());
                let piece = &other[from..(from + random.random_range(0..200)).min(other.len())];
                input.splice(at..end, piece.iter().copied());
            }
            _ => input.truncate(at.max(1)),
        }
    }
    input.truncate(INPUT_BYTES_MAX);
}

/// Takes the first `N` bytes.
pub fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

/// Takes a byte.
pub fn u8(rest: &mut &[u8]) -> Option<u8> {
    take::<1>(rest).map(|[byte]| byte)
}

/// Takes an INT16.
pub fn i16(rest: &mut &[u8]) -> Option<i16> {
    take(rest).map(i16::from_be_bytes)
}

/// Takes an INT64.
pub fn i64(rest: &mut &[u8]) -> Option<i64> {
    take(rest).map(i64::from_be_bytes)
}

/// Takes a piece with its length in front, an INT16; a length beyond the end takes what is left.
pub fn piece<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::from(u16::from_be_bytes(take(rest)?)).min(rest.len());
    let (piece, after) = rest.split_at(len);
    *rest = after;
    Some(piece)
}

/// Puts a piece as [`piece`] takes it.
pub fn put_piece(out: &mut Vec<u8>, piece: &[u8]) {
    out.extend_from_slice(&(piece.len() as u16).to_be_bytes());
    out.extend_from_slice(piece);
}
