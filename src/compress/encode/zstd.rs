//! Zstandard (RFC 8878): one frame, its literals stored, its sequences coded by the format's predefined tables.
//!
//! ```text
//!   magic 28 b5 2f fd | descriptor 80: content size u32, no check | window 38: 128 KiB | content size | blocks ...
//!   compressed block   literals header | literals | sequences count | modes 00 | bits, to be read from their end
//!   a sequence         literals to copy, bytes to match, offset + 3: each a code, in a state machine's numbers (FSE),
//!                      and the bits that the code leaves open
//! ```
//!
//! About as small as LZ4's result, not as zstd's own, which codes the literals too. Why our own: ruzstd's encoder
//! panics where it cannot go on (a panic ends the broker), and may refer to a Huffman table that it never wrote, if the
//! block that had it turned out larger than its content.

use super::matches::{Match, Matcher};
use std::sync::LazyLock;

const HEADER: [u8; 6] = [0x28, 0xb5, 0x2f, 0xfd, 0x80, 0x38];

/// The longest block that the format allows with this window.
const BLOCK_BYTES: usize = 128 << 10;

const RAW: u32 = 0;
const REPEATED: u32 = 1;
const COMPRESSED: u32 = 2;

pub(super) fn encode(input: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&HEADER);
    out.extend_from_slice(&(input.len() as u32).to_le_bytes());
    let mut matcher = Matcher::new();
    let mut start = 0;
    loop {
        let end = input.len().min(start + BLOCK_BYTES);
        let is_last = end == input.len();
        let mut packed = Packed::default();
        let rest = matcher.find(input, start..end, 0, |literals, matched| {
            packed.add(literals, matched);
        });
        packed.literals.extend_from_slice(&input[rest]);
        let block = &input[start..end];
        let coded = packed.code();
        if let [first, others @ ..] = block
            && others.iter().all(|byte| byte == first)
        {
            put_block(out, is_last, REPEATED, block.len(), &[*first]);
        } else if coded.len() < block.len() {
            put_block(out, is_last, COMPRESSED, coded.len(), &coded);
        } else {
            put_block(out, is_last, RAW, block.len(), block);
        }
        if is_last {
            return;
        }
        start = end;
    }
}

fn put_block(out: &mut Vec<u8>, is_last: bool, kind: u32, size: usize, bytes: &[u8]) {
    let header = u32::from(is_last) | kind << 1 | (size as u32) << 3;
    out.extend_from_slice(&header.to_le_bytes()[..3]);
    out.extend_from_slice(bytes);
}

/// A block's literals, and its sequences: literals to copy, bytes to match, how far back.
#[derive(Default)]
struct Packed {
    literals: Vec<u8>,
    sequences: Vec<[u32; 3]>,
}

impl Packed {
    fn add(&mut self, literals: &[u8], Match { back, length }: Match) {
        self.literals.extend_from_slice(literals);
        // The first three offsets mean earlier ones again, which this encoder never says.
        let sequence = [literals.len() as u32, length as u32, back as u32 + 3];
        self.sequences.push(sequence);
    }

    /// The content of a compressed block.
    fn code(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.literals.len() + self.sequences.len() * 4 + 8);
        // Stored literals, their length in 20 bits.
        let header = 0b11 << 2 | (self.literals.len() as u32) << 4;
        out.extend_from_slice(&header.to_le_bytes()[..3]);
        out.extend_from_slice(&self.literals);
        match self.sequences.len() {
            0 => {
                out.push(0);
                return out;
            }
            count @ 1..128 => out.push(count as u8),
            count @ 128..0x7f00 => out.extend_from_slice(&[(count >> 8) as u8 | 0x80, count as u8]),
            count => {
                out.push(0xff);
                out.extend_from_slice(&((count - 0x7f00) as u16).to_le_bytes());
            }
        }
        // All three codes by the predefined tables.
        out.push(0);
        self.code_sequences(&mut out);
        out
    }

    /// The decoder reads the bits from the end, so the last sequence comes first, and of each what it reads last.
    fn code_sequences(&self, out: &mut Vec<u8>) {
        let [lengths, matches, offsets] = &*TABLES;
        let mut bits = Bits {
            out,
            held: 0,
            count: 0,
        };
        let mut states: Option<[u8; 3]> = None;
        for &[literals, matched, offset] in self.sequences.iter().rev() {
            let coded = [
                lengths.code(literals),
                matches.code(matched),
                offsets.code(offset),
            ];
            states = Some(match states {
                None => [
                    lengths.first(coded[0].code),
                    matches.first(coded[1].code),
                    offsets.first(coded[2].code),
                ],
                Some([length, matched, offset]) => {
                    let offset = offsets.step(coded[2].code, offset, &mut bits);
                    let matched = matches.step(coded[1].code, matched, &mut bits);
                    let length = lengths.step(coded[0].code, length, &mut bits);
                    [length, matched, offset]
                }
            });
            for Coded {
                extra, extra_bits, ..
            } in coded
            {
                bits.put(extra, extra_bits);
            }
        }
        if let Some([length, matched, offset]) = states {
            bits.put(u32::from(matched), matches.log);
            bits.put(u32::from(offset), offsets.log);
            bits.put(u32::from(length), lengths.log);
        }
        bits.finish();
    }
}

/// Bits, the lowest first.
struct Bits<'o> {
    out: &'o mut Vec<u8>,
    held: u64,
    count: u32,
}

impl Bits<'_> {
    /// Adds the lowest `count` bits of `value`, which has no others; at most 32.
    fn put(&mut self, value: u32, count: u32) {
        self.held |= u64::from(value) << self.count;
        self.count += count;
        while self.count >= 8 {
            self.out.push(self.held as u8);
            self.held >>= 8;
            self.count -= 8;
        }
    }

    /// A last bit says where the bits end.
    fn finish(mut self) {
        self.put(1, 1);
        if self.count > 0 {
            self.out.push(self.held as u8);
        }
    }
}

/// A number as its code and the bits that the code leaves open.
struct Coded {
    code: usize,
    extra: u32,
    extra_bits: u32,
}

/// One of the three kinds of numbers, and the state machine of its codes.
struct Table {
    /// The state machine has two to this many states.
    log: u32,
    /// The least number of each code.
    bases: Vec<u32>,
    /// How many bits each code leaves open.
    bits: Vec<u32>,
    /// For each code: the state in which it is read, by the state that is to follow.
    before: Vec<Vec<u8>>,
    /// For each state: how many bits lead to the next, and the next one's number without them.
    next: Vec<(u32, u32)>,
}

static TABLES: LazyLock<[Table; 3]> = LazyLock::new(|| {
    let lengths = Table::new(6, 0, &LENGTHS, &LENGTH_BITS);
    let matches = Table::new(6, 3, &MATCHES, &MATCH_BITS);
    // An offset's code is the place of its highest bit.
    let offset_bits: Vec<u32> = (0..OFFSETS.len() as u32).collect();
    [lengths, matches, Table::new(5, 1, &OFFSETS, &offset_bits)]
});

/// How often each code stands in the table of states (RFC 8878, 3.1.1.3.2.2); -1 is once, at the table's end.
const LENGTHS: [i8; 36] = [
    4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1,
    -1, -1, -1, -1,
];
const MATCHES: [i8; 53] = [
    1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
];
const OFFSETS: [i8; 29] = [
    1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1,
];

/// The bits that each code leaves open (RFC 8878, 3.1.1.3.2.1.1).
const LENGTH_BITS: [u32; 36] = [
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11,
    12, 13, 14, 15, 16,
];
const MATCH_BITS: [u32; 53] = [
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
];

impl Table {
    /// The table of codes that begin at the number `first`.
    fn new(log: u32, first: u32, counts: &[i8], bits: &[u32]) -> Table {
        let size = 1usize << log;
        let symbols = spread(size, counts);
        let mut before = vec![vec![0; size]; counts.len()];
        let mut next = vec![(0, 0); size];
        let mut seen: Vec<u32> = counts.iter().map(|c| u32::from(c.unsigned_abs())).collect();
        for (state, &symbol) in symbols.iter().enumerate() {
            let number = seen[symbol];
            seen[symbol] += 1;
            let open = log - number.ilog2();
            let base = (number << open) - size as u32;
            next[state] = (open, base);
            before[symbol][base as usize..(base + (1 << open)) as usize].fill(state as u8);
        }
        let bases = bits.iter().scan(first, |base, bits| {
            let this = *base;
            *base += 1 << bits;
            Some(this)
        });
        Table {
            log,
            bases: bases.collect(),
            bits: bits.to_vec(),
            before,
            next,
        }
    }

    fn code(&self, value: u32) -> Coded {
        let code = self.bases.partition_point(|&base| base <= value) - 1;
        Coded {
            code,
            extra: value - self.bases[code],
            extra_bits: self.bits[code],
        }
    }

    /// A state in which `code` is read, whatever follows.
    fn first(&self, code: usize) -> u8 {
        self.before[code][0]
    }

    /// The state in which `code` is read, so that `state` follows; writes the bits that lead there.
    fn step(&self, code: usize, state: u8, bits: &mut Bits<'_>) -> u8 {
        let before = self.before[code][usize::from(state)];
        let (open, base) = self.next[usize::from(before)];
        bits.put(u32::from(state) - base, open);
        before
    }
}

/// The code of each state (RFC 8878, 4.1.1): the rare ones from the end, the others in strides.
fn spread(size: usize, counts: &[i8]) -> Vec<usize> {
    let mut symbols = vec![0; size];
    let mut end = size;
    for (symbol, _) in counts.iter().enumerate().filter(|(_, count)| **count < 0) {
        end -= 1;
        symbols[end] = symbol;
    }
    let stride = (size >> 1) + (size >> 3) + 3;
    let mut at = 0;
    for (symbol, &count) in counts.iter().enumerate() {
        for _ in 0..count.max(0) {
            symbols[at] = symbol;
            at = (at + stride) % size;
            while at >= end {
                at = (at + stride) % size;
            }
        }
    }
    symbols
}
