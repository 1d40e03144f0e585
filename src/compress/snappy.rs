//! Snappy: a raw block, or xerial's frame of blocks (what Java's and most other clients send).
//!
//! ```text
//!   raw      inflated length varint | elements
//!   element  tag, low two bits 0: a literal of tag >> 2, plus 1, bytes; 60..63 say that 1..4 bytes of length follow
//!                              1: copy 4 + (tag >> 2 & 7) bytes from (tag >> 5) << 8 | u8 back
//!                              2: copy 1 + (tag >> 2) bytes from u16 back        3: the same from u32 back
//!   xerial   82 'SNAPPY' 00 | version i32 | compatible with i32 | (length i32, raw block) ...
//! ```
//!
//! Snappy's numbers are little-endian, xerial's big-endian. The crate `snap` inflates a block whole, so this is our
//! own decoder, in a window. Google's encoder never copies from more than 64 KiB back, but others do (Go's s2, and
//! so franz-go): a first pass over the tags, which inflates nothing, finds how far back each block really goes and
//! checks all lengths; the window is just that. Safe code throughout: every index is checked.

use super::{Failure, Need};

const XERIAL_MAGIC: &[u8] = &[0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEADER_BYTES: usize = 16;

/// What is inflated beyond the window before it is handed out.
const PIECE_BYTES: usize = 64 << 10;

/// The longest copy.
const COPY_BYTES_MAX: usize = 64;

const MALFORMED: Failure = Failure::Malformed("the snappy stream is malformed");

/// What the first pass found.
#[derive(Default)]
pub(super) struct Plan {
    framed: bool,
    /// The farthest back that any copy goes.
    window: usize,
    /// The longest block, inflated.
    block_bytes_max: usize,
}

impl Plan {
    /// Room for the window and a piece; less where no block is as long.
    fn capacity(&self) -> usize {
        self.block_bytes_max.min(self.window + PIECE_BYTES) + COPY_BYTES_MAX
    }

    pub(super) fn need(&self) -> Need {
        Need {
            window: self.window as u64,
            memory: self.capacity(),
        }
    }
}

/// Goes over the whole stream without inflating it.
pub(super) fn plan(input: &[u8]) -> Result<Plan, Failure> {
    let mut plan = Plan {
        framed: input.starts_with(XERIAL_MAGIC),
        ..Plan::default()
    };
    if !plan.framed {
        plan.block(input)?;
        return Ok(plan);
    }
    let mut rest = input.get(XERIAL_HEADER_BYTES..).ok_or(MALFORMED)?;
    while !rest.is_empty() {
        let (block, after) = split_block(rest).ok_or(MALFORMED)?;
        plan.block(block)?;
        rest = after;
    }
    Ok(plan)
}

impl Plan {
    fn block(&mut self, block: &[u8]) -> Result<(), Failure> {
        let mut at = 0;
        let length = varint(block, &mut at).ok_or(MALFORMED)?;
        let mut produced = 0usize;
        while at < block.len() {
            match element(block, &mut at).ok_or(MALFORMED)? {
                Element::Literal(count) => {
                    if count > block.len() - at {
                        return Err(MALFORMED);
                    }
                    at += count;
                    produced += count;
                }
                Element::Copy { count, back } => {
                    if back == 0 || back > produced {
                        return Err(MALFORMED);
                    }
                    self.window = self.window.max(back);
                    produced += count;
                }
            }
            if produced > length {
                return Err(MALFORMED);
            }
        }
        self.block_bytes_max = self.block_bytes_max.max(length);
        (produced == length).then_some(()).ok_or(MALFORMED)
    }
}

/// A snappy stream in the middle.
pub(super) struct Snappy {
    plan: Plan,
    /// How much of the input has been read.
    at: usize,
    /// Where the block that is being read ends in the input.
    block_end: usize,
    /// What is left of a literal that did not fit.
    literal_left: usize,
    /// The window, then the piece.
    out: Vec<u8>,
    /// Where the part that is to be handed out begins.
    start: usize,
}

impl Snappy {
    pub(super) fn new(plan: Plan) -> Snappy {
        Snappy {
            at: if plan.framed { XERIAL_HEADER_BYTES } else { 0 },
            block_end: 0,
            literal_left: 0,
            out: Vec::with_capacity(plan.capacity()),
            start: 0,
            plan,
        }
    }

    pub(super) fn fill(&mut self, input: &[u8]) -> Result<&[u8], Failure> {
        while self.start == self.out.len() && self.at < input.len() {
            // No block refers to the one before it.
            let in_block = self.literal_left > 0 || self.at < self.block_end;
            let kept = if in_block { self.plan.window } else { 0 };
            let gone = self.out.len().saturating_sub(kept);
            self.out.drain(..gone);
            self.start = self.out.len();
            self.decode_piece(input).ok_or(MALFORMED)?;
        }
        Ok(&self.out[self.start..])
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.start += count;
    }

    /// Decodes until a piece is full or its block ends. None cannot happen after [`plan`], and is no panic either.
    fn decode_piece(&mut self, input: &[u8]) -> Option<()> {
        let full = self.plan.capacity() - COPY_BYTES_MAX;
        while self.at < input.len() && (self.out.len() < full || self.out.len() == self.start) {
            if self.literal_left > 0 {
                let room = self.plan.capacity() - self.out.len();
                let count = self.literal_left.min(room);
                let literal = input.get(self.at..self.at + count)?;
                self.out.extend_from_slice(literal);
                self.at += count;
                self.literal_left -= count;
                continue;
            }
            if self.at >= self.block_end {
                if self.out.len() > self.start {
                    break;
                }
                self.start_block(input)?;
                continue;
            }
            match element(&input[..self.block_end], &mut self.at)? {
                Element::Literal(count) => self.literal_left = count,
                Element::Copy { count, back } => self.copy(count, back)?,
            }
        }
        Some(())
    }

    fn start_block(&mut self, input: &[u8]) -> Option<()> {
        self.block_end = input.len();
        if self.plan.framed {
            let (block, _) = split_block(input.get(self.at..)?)?;
            self.at += 4;
            self.block_end = self.at + block.len();
        }
        varint(input, &mut self.at).map(|_| ())
    }

    /// A copy may overlap what it makes: then what it has made so far is copied again, doubling.
    fn copy(&mut self, count: usize, back: usize) -> Option<()> {
        let from = self.out.len().checked_sub(back)?;
        let mut left = count;
        while left > 0 {
            let now = left.min(self.out.len() - from);
            self.out.extend_from_within(from..from + now);
            left -= now;
        }
        Some(())
    }
}

enum Element {
    Literal(usize),
    Copy { count: usize, back: usize },
}

fn element(block: &[u8], at: &mut usize) -> Option<Element> {
    let tag = usize::from(*block.get(*at)?);
    *at += 1;
    let upper = tag >> 2;
    Some(match tag & 3 {
        0 if upper < 60 => Element::Literal(upper + 1),
        0 => Element::Literal(number(block, at, upper - 59)?.checked_add(1)?),
        1 => Element::Copy {
            count: 4 + (upper & 7),
            back: (upper >> 3) << 8 | number(block, at, 1)?,
        },
        kind => Element::Copy {
            count: 1 + upper,
            back: number(block, at, if kind == 2 { 2 } else { 4 })?,
        },
    })
}

/// A little-endian number of `count` bytes, 1 to 4.
fn number(block: &[u8], at: &mut usize, count: usize) -> Option<usize> {
    let bytes = block.get(*at..*at + count)?;
    *at += count;
    Some(
        bytes
            .iter()
            .rev()
            .fold(0, |sum, &b| sum << 8 | usize::from(b)),
    )
}

/// A block's length: at most five bytes, and at most what Kafka's own types can count.
fn varint(block: &[u8], at: &mut usize) -> Option<usize> {
    let mut value = 0u64;
    for shift in (0..35).step_by(7) {
        let byte = *block.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let value = i32::try_from(value).ok()?;
            return usize::try_from(value).ok();
        }
    }
    None
}

/// The block that a xerial frame goes on with, and what comes after it.
fn split_block(frame: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = frame.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(i32::from_be_bytes(*length)).ok()?)
}
