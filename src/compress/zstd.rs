//! Zstandard (RFC 8878): frames one after the other, skippable ones among them.
//!
//! ```text
//!   magic 28 b5 2f fd | descriptor | window? | dictionary id? | content size? | blocks ... | check u32?
//!   descriptor  bits 7-6 size of content size | 5 single segment | 3 reserved | 2 check | 1-0 size of dictionary id
//!   block       u24: bit 0 last | 2-1 raw, one byte repeated, compressed, reserved | 23-3 size
//!   skippable   magic 5x 2a 4d 18 | length u32 | bytes
//! ```
//!
//! Numbers are little-endian. A first pass hops over frames and blocks: it finds the window and how much output
//! there can be at most, and refuses what is cut short. ruzstd then inflates block by block; it has its own limit of
//! the window, which is set to what was charged, allocates no more than its ring and one block's literals and
//! sequences, as many as the block says, which is why that is looked at first, and does not trust the content size,
//! which is checked here at the frame's end. Its inner `assert!`s hold for any input as far as we could read and fuzz
//! them.

use super::{Failure, Need};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use std::io::Read;

const MAGIC: u32 = 0xfd2f_b528;
const SKIPPABLE: u32 = 0x184d_2a50;
const SKIPPABLE_MASK: u32 = 0xffff_fff0;

/// No block inflates to more.
const BLOCK_BYTES_MAX: u64 = 128 << 10;

/// What is taken out of ruzstd's ring at a time.
const PIECE_BYTES: usize = 16 << 10;

const MALFORMED: Failure = Failure::Malformed("the zstd stream is malformed");

/// What a frame's header says.
struct Frame {
    header_bytes: usize,
    window: u64,
    content_bytes: Option<u64>,
    has_check: bool,
}

/// Goes over all frames without inflating them.
pub(super) fn plan(input: &[u8]) -> Result<Need, Failure> {
    let mut window = 0;
    let mut output_max = 0;
    let mut rest = input;
    while !rest.is_empty() {
        if let Some(skipped) = skippable_bytes(rest) {
            rest = rest.get(skipped..).ok_or(MALFORMED)?;
            continue;
        }
        let frame = Frame::parse(rest).ok_or(MALFORMED)?;
        let (frame_max, bytes) = frame.walk_blocks(rest).ok_or(MALFORMED)?;
        window = window.max(frame.window);
        output_max = output_max.max(frame_max.min(frame.window.saturating_add(BLOCK_BYTES_MAX)));
        rest = &rest[bytes..];
    }
    // ruzstd's ring grows to a power of two and two blocks; a block's literals are as long as the block at most, and
    // its sequences take four times that.
    let block = output_max.min(BLOCK_BYTES_MAX);
    let memory = output_max.next_power_of_two() + 2 * BLOCK_BYTES_MAX + 6 * block;
    Ok(Need {
        window,
        memory: usize::try_from(memory).map_or(usize::MAX, |m| m + PIECE_BYTES),
    })
}

/// The bytes of the skippable frame that `input` begins with, if it does.
fn skippable_bytes(input: &[u8]) -> Option<usize> {
    let (magic, rest) = input.split_first_chunk()?;
    let length = rest.first_chunk()?;
    let is_skippable = u32::from_le_bytes(*magic) & SKIPPABLE_MASK == SKIPPABLE;
    is_skippable.then_some((u32::from_le_bytes(*length) as usize).saturating_add(8))
}

impl Frame {
    fn parse(input: &[u8]) -> Option<Frame> {
        let (magic, rest) = input.split_first_chunk()?;
        let (&descriptor, mut rest) = rest.split_first()?;
        if u32::from_le_bytes(*magic) != MAGIC || descriptor & 1 << 3 != 0 {
            return None;
        }
        let single_segment = descriptor & 1 << 5 != 0;
        let mut window = 0;
        if !single_segment {
            let (&stated, after) = rest.split_first()?;
            let base = 1u64 << (10 + (stated >> 3));
            window = base + base / 8 * u64::from(stated & 7);
            rest = after;
        }
        let dictionary = number(&mut rest, [0, 1, 2, 4][usize::from(descriptor & 3)])?;
        if dictionary != 0 {
            return None;
        }
        let content_bytes = match (descriptor >> 6, single_segment) {
            (0, false) => None,
            (0, true) => Some(number(&mut rest, 1)?),
            (1, _) => Some(number(&mut rest, 2)? + 256),
            (2, _) => Some(number(&mut rest, 4)?),
            _ => Some(number(&mut rest, 8)?),
        };
        Some(Frame {
            header_bytes: input.len() - rest.len(),
            window: content_bytes.filter(|_| single_segment).unwrap_or(window),
            content_bytes,
            has_check: descriptor & 1 << 2 != 0,
        })
    }

    /// The most that the frame's blocks can inflate to, and the bytes of the whole frame.
    fn walk_blocks(&self, input: &[u8]) -> Option<(u64, usize)> {
        let block_max = self.window.min(BLOCK_BYTES_MAX);
        let mut rest = input.get(self.header_bytes..)?;
        let mut output_max = 0;
        loop {
            let header = number(&mut rest, 3)?;
            let size = header >> 3;
            let (stored, inflated) = match header >> 1 & 3 {
                0 => (size, size),
                1 => (1, size),
                2 => {
                    let claimed = claimed_bytes(rest.get(..size as usize)?)?;
                    if claimed > block_max {
                        return None;
                    }
                    (size, block_max)
                }
                _ => return None,
            };
            if size > block_max {
                return None;
            }
            output_max += inflated;
            rest = rest.get(stored as usize..)?;
            if header & 1 != 0 {
                break;
            }
        }
        let rest = rest.get(if self.has_check { 4 } else { 0 }..)?;
        Some((output_max, input.len() - rest.len()))
    }
}

/// What a compressed block claims to inflate to at least: its literals, and three bytes for each of its sequences. Both
/// are counts in front of what they count, by which ruzstd allocates.
fn claimed_bytes(block: &[u8]) -> Option<u64> {
    let first = *block.first()?;
    let mut rest = block;
    // The literals' type, and the form of their header.
    let (literals, stored) = match (first & 3, first >> 2 & 3) {
        (0 | 1, form) => {
            let literals = match form {
                0 | 2 => number(&mut rest, 1)? >> 3,
                1 => number(&mut rest, 2)? >> 4,
                _ => number(&mut rest, 3)? >> 4,
            };
            (literals, if first & 3 == 0 { literals } else { 1 })
        }
        (_, form) => {
            let (header_bytes, bits) = [(3, 10), (3, 10), (4, 14), (5, 18)][usize::from(form)];
            let sizes = number(&mut rest, header_bytes)? >> 4;
            let mask = (1 << bits) - 1;
            (sizes & mask, sizes >> bits & mask)
        }
    };
    let mut rest = rest.get(stored as usize..)?;
    let sequences = match number(&mut rest, 1)? {
        few @ 0..128 => few,
        255 => number(&mut rest, 2)? + 0x7f00,
        high => (high - 128) << 8 | number(&mut rest, 1)?,
    };
    Some(literals + 3 * sequences)
}

/// Takes a little-endian number of `count` bytes, 0 to 8.
fn number(rest: &mut &[u8], count: usize) -> Option<u64> {
    let (bytes, after) = rest.split_at_checked(count)?;
    *rest = after;
    let digits = bytes.iter().rev();
    Some(digits.fold(0, |sum, &b| sum << 8 | u64::from(b)))
}

/// A stream of Zstandard frames in the middle.
pub(super) struct Zstd {
    window_max: u64,
    /// The frame that is being read, and what it has given so far.
    frame: Option<Box<(FrameDecoder, Frame, u64)>>,
    /// How much of the input has been read.
    at: usize,
    piece: Box<[u8]>,
    /// The part of the piece that is to be handed out.
    start: usize,
    end: usize,
}

impl Zstd {
    pub(super) fn new(window_max: u64) -> Zstd {
        Zstd {
            window_max,
            frame: None,
            at: 0,
            piece: vec![0; PIECE_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
        }
    }

    pub(super) fn fill(&mut self, input: &[u8]) -> Result<&[u8], Failure> {
        while self.start == self.end {
            let Some((decoder, frame, given)) = self.frame.as_deref_mut() else {
                if self.at == input.len() {
                    break;
                }
                self.start_frame(input)?;
                continue;
            };
            let count = decoder.read(&mut self.piece).map_err(|_| MALFORMED)?;
            (self.start, self.end) = (0, count);
            *given += count as u64;
            if count > 0 {
                continue;
            }
            if decoder.is_finished() {
                if frame.content_bytes.is_some_and(|stated| stated != *given) {
                    return Err(Failure::Malformed("a zstd frame's content size is wrong"));
                }
                self.frame = None;
                continue;
            }
            let mut rest = &input[self.at..];
            let one_block = BlockDecodingStrategy::UptoBlocks(1);
            let decoded = decoder.decode_blocks(&mut rest, one_block);
            decoded.map_err(|_| Failure::Malformed("a zstd block is corrupt"))?;
            self.at = input.len() - rest.len();
            let kept = if decoder.is_finished() {
                frame.window
            } else {
                0
            };
            if decoder.can_collect() as u64 > kept.saturating_add(BLOCK_BYTES_MAX) {
                return Err(Failure::Malformed("a zstd block is too long"));
            }
        }
        Ok(&self.piece[self.start..self.end])
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.start += count;
    }

    /// A decoder for each frame: one that is used again would reserve the whole window, however short the frame.
    fn start_frame(&mut self, input: &[u8]) -> Result<(), Failure> {
        let mut rest = &input[self.at..];
        if let Some(skipped) = skippable_bytes(rest) {
            self.at += skipped;
            return Ok(());
        }
        let frame = Frame::parse(rest).ok_or(MALFORMED)?;
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(self.window_max);
        let started = decoder.init(&mut rest);
        started.map_err(|_| Failure::Malformed("a zstd frame's header is malformed"))?;
        self.at = input.len() - rest.len();
        self.frame = Some(Box::new((decoder, frame, 0)));
        Ok(())
    }
}
