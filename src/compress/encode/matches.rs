//! Finds what a text repeats: greedily, by a table of where four bytes were last seen. For snappy and zstd.

use std::ops::Range;

/// No match reaches farther back: what snappy's short copies can say.
pub const BACK_MAX: usize = (1 << 16) - 1;

/// The shortest match.
pub const LENGTH_MIN: usize = 4;

const TABLE_BITS: u32 = 14;

/// After so many misses in a row (as a power of two) every second place is tried, then every third: what does not
/// compress is passed over fast.
const PATIENCE_BITS: usize = 6;

/// A match: `length` bytes that are the same as those `back` bytes before.
#[derive(Clone, Copy, Debug)]
pub struct Match {
    pub back: usize,
    pub length: usize,
}

/// Where four bytes were last seen, by their hash.
pub struct Matcher {
    seen: Vec<u32>,
}

impl Matcher {
    pub fn new() -> Matcher {
        Matcher {
            seen: vec![0; 1 << TABLE_BITS],
        }
    }

    /// Goes over `block` of `text`, which is shorter than 4 GiB: `found` gets the literals before each match, and the
    /// match, which begins at `floor` or later. What is left behind the last match is the result.
    pub fn find(
        &mut self,
        text: &[u8],
        block: Range<usize>,
        floor: usize,
        mut found: impl FnMut(&[u8], Match),
    ) -> Range<usize> {
        let (mut at, mut literals, mut misses) = (block.start, block.start, 0);
        while let Some(four) = text[at.min(block.end)..block.end].first_chunk::<4>() {
            let four = u32::from_le_bytes(*four);
            // A multiplier with well mixed high bits (2^32 over the golden ratio).
            let slot = (four.wrapping_mul(0x9e37_79b1) >> (32 - TABLE_BITS)) as usize;
            let before = std::mem::replace(&mut self.seen[slot], at as u32) as usize;
            let is_near = before >= floor && before < at && at - before <= BACK_MAX;
            let length = match is_near {
                true => same(&text[before..], &text[at..block.end]),
                false => 0,
            };
            if length < LENGTH_MIN {
                misses += 1;
                at += 1 + (misses >> PATIENCE_BITS);
                continue;
            }
            let back = at - before;
            found(&text[literals..at], Match { back, length });
            at += length;
            (literals, misses) = (at, 0);
        }
        literals..block.end
    }
}

/// How many bytes two texts begin with that are the same.
fn same(a: &[u8], b: &[u8]) -> usize {
    let (a_words, b_words) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
    let words = a_words.iter().zip(b_words);
    let start = 8 * words.take_while(|(a, b)| a == b).count();
    let rest = a[start..].iter().zip(&b[start..]);
    start + rest.take_while(|(a, b)| a == b).count()
}
