//! LZ4: one frame, its blocks independent or linked.
//!
//! ```text
//!   magic 04 22 4d 18 | flags | block size code << 4 | content size u64? | header check u8
//!   | (block size u32, top bit: not compressed | block | block check u32?) ... | end mark u32 = 0 | content check u32?
//!
//!   flags    bits 7-6 version 01 | 5 independent blocks | 4 block checks | 3 content size | 2 content check | 0 dictionary
//!   a block  (token: literals << 4 | match - 4 | more literals? | literals | offset u16 | more match?) ... , ends in literals
//! ```
//!
//! Numbers are little-endian; checks are xxHash32. A first pass finds where the frame ends and how long each block
//! really is, inflated. Then lz4_flex's frame decoder is fed block by block, behind a header of our own, which
//! - states the smallest block size that fits: Go's encoder states 4 MiB for anything, and lz4_flex clears as much;
//! - leaves out content size and content check, which Kafka's brokers and Java clients do not look at.
//!
//! Nothing after the frame is read by Java's consumers, so nothing may be there. lz4_flex is built with safe code
//! only; a match offset of zero, which it would let pass, is refused here. Its block API is not used
//! (RUSTSEC-2026-0041).

use super::{Failure, Need};
use lz4_flex::frame::FrameDecoder;
use std::io::{BufRead, Read};

const MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
const VERSION_MASK: u8 = 0b1100_0000;
const VERSION: u8 = 0b0100_0000;
const INDEPENDENT: u8 = 1 << 5;
const BLOCK_CHECK: u8 = 1 << 4;
const CONTENT_SIZE: u8 = 1 << 3;
const CONTENT_CHECK: u8 = 1 << 2;
const RESERVED: u8 = 1 << 1;
const DICTIONARY: u8 = 1;
const NOT_COMPRESSED: u32 = 1 << 31;

/// The block size code 4 means 64 KiB, and each further one four times as much, up to 7.
const SIZE_CODES: std::ops::RangeInclusive<u8> = 4..=7;

/// What is fed besides a block: our header, the block's size and check.
const FEED_BYTES: usize = 16;

/// How far back a match reaches at most.
const HISTORY_BYTES: usize = 64 << 10;

const MALFORMED: Failure = Failure::Malformed("the lz4 frame is malformed");

/// What the first pass found.
pub(super) struct Plan {
    linked: bool,
    block_checks: bool,
    size_code: u8,
    /// Where the first block's size stands in the input.
    blocks_start: usize,
    /// Where the end mark stands.
    blocks_end: usize,
}

impl Plan {
    pub(super) fn need(&self) -> Need {
        let block = block_bytes(self.size_code);
        let inflated = if self.linked {
            2 * block + HISTORY_BYTES
        } else {
            block
        };
        Need {
            window: block as u64,
            memory: FEED_BYTES + 2 * block + inflated,
        }
    }
}

fn block_bytes(size_code: u8) -> usize {
    1 << (2 * size_code + 8)
}

/// Goes over the whole frame without inflating it.
pub(super) fn plan(input: &[u8]) -> Result<Plan, Failure> {
    parse(input).ok_or(MALFORMED)
}

fn parse(input: &[u8]) -> Option<Plan> {
    let descriptor = input.strip_prefix(&MAGIC)?;
    let &[flags, sizes] = descriptor.first_chunk()?;
    let bad_flags = flags & (RESERVED | DICTIONARY) != 0 || flags & VERSION_MASK != VERSION;
    let stated_code = sizes >> 4;
    if bad_flags || !SIZE_CODES.contains(&stated_code) || sizes & 0xf != 0 {
        return None;
    }
    let descriptor_bytes = if flags & CONTENT_SIZE != 0 { 10 } else { 2 };
    let (stated, rest) = descriptor.split_at_checked(descriptor_bytes)?;
    let (&[check], mut rest) = rest.split_first_chunk()?;
    if check != header_check(stated) {
        return None;
    }
    let mut plan = Plan {
        linked: flags & INDEPENDENT == 0,
        block_checks: flags & BLOCK_CHECK != 0,
        size_code: *SIZE_CODES.start(),
        blocks_start: input.len() - rest.len(),
        blocks_end: 0,
    };
    let limit = block_bytes(stated_code);
    loop {
        plan.blocks_end = input.len() - rest.len();
        let (size, after) = rest.split_first_chunk()?;
        let size = u32::from_le_bytes(*size);
        if size == 0 {
            rest = after;
            break;
        }
        let (block, after) = after.split_at_checked((size & !NOT_COMPRESSED) as usize)?;
        let (_, after) = after.split_at_checked(if plan.block_checks { 4 } else { 0 })?;
        let inflated = if size & NOT_COMPRESSED != 0 {
            block.len()
        } else {
            inflated_bytes(block)?
        };
        let longest = inflated.max(block.len());
        if longest > limit {
            return None;
        }
        while block_bytes(plan.size_code) < longest {
            plan.size_code += 1;
        }
        rest = after;
    }
    let trailer = if flags & CONTENT_CHECK != 0 { 4 } else { 0 };
    (rest.len() == trailer).then_some(plan)
}

/// What a compressed block inflates to: the sum of its literals and matches.
fn inflated_bytes(block: &[u8]) -> Option<usize> {
    let mut total = 0usize;
    let mut rest = block;
    loop {
        let (&token, after) = rest.split_first()?;
        let (literals, after) = length(usize::from(token >> 4), after)?;
        rest = after.get(literals..)?;
        total = total.checked_add(literals)?;
        if rest.is_empty() {
            return Some(total);
        }
        let (offset, after) = rest.split_first_chunk()?;
        if *offset == [0, 0] {
            return None;
        }
        let (matched, after) = length(usize::from(token & 0xf), after)?;
        total = total.checked_add(4 + matched)?;
        rest = after;
    }
}

/// A length whose four bits are given; 15 means that bytes follow which add to it, up to the first below 255.
fn length(nibble: usize, mut rest: &[u8]) -> Option<(usize, &[u8])> {
    let mut length = nibble;
    if nibble == 15 {
        loop {
            let (&more, after) = rest.split_first()?;
            length += usize::from(more);
            rest = after;
            if more != 255 {
                break;
            }
        }
    }
    Some((length, rest))
}

/// The check of a frame's descriptor: the second byte of its xxHash32 (seed 0). A descriptor is shorter than the
/// sixteen bytes from which that hash has a main loop.
fn header_check(descriptor: &[u8]) -> u8 {
    const PRIME_1: u32 = 0x9e37_79b1;
    const PRIME_2: u32 = 0x85eb_ca77;
    const PRIME_3: u32 = 0xc2b2_ae3d;
    const PRIME_4: u32 = 0x27d4_eb2f;
    const PRIME_5: u32 = 0x1656_67b1;
    let mut hash = PRIME_5.wrapping_add(descriptor.len() as u32);
    let (words, bytes) = descriptor.as_chunks();
    for word in words {
        hash = hash.wrapping_add(u32::from_le_bytes(*word).wrapping_mul(PRIME_3));
        hash = hash.rotate_left(17).wrapping_mul(PRIME_4);
    }
    for &byte in bytes {
        hash = hash.wrapping_add(u32::from(byte).wrapping_mul(PRIME_5));
        hash = hash.rotate_left(11).wrapping_mul(PRIME_1);
    }
    hash = (hash ^ hash >> 15).wrapping_mul(PRIME_2);
    hash = (hash ^ hash >> 13).wrapping_mul(PRIME_3);
    ((hash ^ hash >> 16) >> 8) as u8
}

/// An LZ4 frame in the middle.
pub(super) struct Lz4 {
    decoder: FrameDecoder<Feed>,
    plan: Plan,
    /// How much of the input has been fed.
    at: usize,
    available: usize,
}

/// What lz4_flex reads next: our header, one block, or the end mark.
#[derive(Default)]
struct Feed {
    bytes: Vec<u8>,
    at: usize,
}

impl Read for Feed {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let count = (&self.bytes[self.at..]).read(out)?;
        self.at += count;
        Ok(count)
    }
}

impl Feed {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.at);
        self.at = 0;
        self.bytes.reserve_exact(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }
}

impl Lz4 {
    pub(super) fn new(plan: Plan) -> Lz4 {
        let mut lz4 = Lz4 {
            decoder: FrameDecoder::new(Feed::default()),
            at: 0,
            available: 0,
            plan,
        };
        lz4.feed_header();
        lz4
    }

    /// Whether the buffers of a frame that has ended are of the size that another needs.
    pub(super) fn suits(&self, plan: &Plan) -> bool {
        (self.plan.linked, self.plan.size_code) == (plan.linked, plan.size_code)
    }

    /// Starts on another frame; the last one was read to its end.
    pub(super) fn start(&mut self, plan: Plan) {
        self.plan = plan;
        self.feed_header();
    }

    fn feed_header(&mut self) {
        let independent = if self.plan.linked { 0 } else { INDEPENDENT };
        let checks = if self.plan.block_checks {
            BLOCK_CHECK
        } else {
            0
        };
        let descriptor = [VERSION | independent | checks, self.plan.size_code << 4];
        self.at = self.plan.blocks_start;
        let feed = self.decoder.get_mut();
        feed.put(&MAGIC);
        feed.put(&descriptor);
        feed.put(&[header_check(&descriptor)]);
    }

    pub(super) fn fill(&mut self, input: &[u8]) -> Result<&[u8], Failure> {
        while self.available == 0 && self.at <= self.plan.blocks_end {
            // The plan went over these very bytes: they are there.
            let size = *input[self.at..].first_chunk().ok_or(MALFORMED)?;
            let stored = (u32::from_le_bytes(size) & !NOT_COMPRESSED) as usize;
            let check = if stored > 0 && self.plan.block_checks {
                4
            } else {
                0
            };
            let end = self.at + 4 + stored + check;
            self.decoder.get_mut().put(&input[self.at..end]);
            self.at = end;
            let piece = self.decoder.fill_buf();
            let piece = piece.map_err(|_| Failure::Malformed("an lz4 block is corrupt"))?;
            self.available = piece.len();
        }
        if self.available == 0 {
            return Ok(&[]);
        }
        self.decoder.fill_buf().map_err(|_| MALFORMED)
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.available -= count;
        self.decoder.consume(count);
    }
}
