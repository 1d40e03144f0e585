//! Gzip (RFC 1952): members one after the other, each a header, a deflate stream, a CRC-32 and a length.
//!
//! ```text
//!   1f 8b | 08 deflate | flags | mtime u32 | xfl | os | extra? | name? | comment? | header crc16? | deflate | crc u32 | length u32
//! ```
//!
//! Numbers are little-endian. The window is deflate's 32 KiB, used as a ring that miniz_oxide writes into and we
//! hand out of. miniz_oxide has no `unsafe` and is fuzzed upstream; it is given all input at once, so it never waits.

use super::{Failure, Need};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};

const WINDOW_BYTES: usize = 32 << 10;

/// Every gzip stream needs the same.
pub(super) const NEED: Need = Need {
    window: WINDOW_BYTES as u64,
    memory: WINDOW_BYTES + size_of::<DecompressorOxide>(),
};

const HEADER_CRC: u8 = 1 << 1;
const EXTRA: u8 = 1 << 2;
const NAME: u8 = 1 << 3;
const COMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0xe0;

/// A gzip stream in the middle.
pub(super) struct Gzip {
    inflate: Box<DecompressorOxide>,
    window: Box<[u8]>,
    /// How much of the input has been read.
    at: usize,
    /// The part of the window that is to be handed out.
    start: usize,
    end: usize,
    in_member: bool,
    member_crc: crc32fast::Hasher,
    member_bytes: u32,
}

impl Gzip {
    pub(super) fn new() -> Gzip {
        Gzip {
            inflate: Box::default(),
            window: vec![0; WINDOW_BYTES].into_boxed_slice(),
            at: 0,
            start: 0,
            end: 0,
            in_member: false,
            member_crc: crc32fast::Hasher::new(),
            member_bytes: 0,
        }
    }

    /// Ready for another stream; what the last one left in the window is wiped, so that none reads another's.
    pub(super) fn reset(&mut self) {
        self.window.fill(0);
        (self.at, self.start, self.end) = (0, 0, 0);
        self.in_member = false;
    }

    pub(super) fn fill(&mut self, input: &[u8]) -> Result<&[u8], Failure> {
        while self.start == self.end {
            if !self.in_member {
                if self.at == input.len() && self.at > 0 {
                    break;
                }
                self.at += header_bytes(&input[self.at..])?;
                self.inflate.init();
                self.in_member = true;
                self.member_crc = crc32fast::Hasher::new();
                self.member_bytes = 0;
            }
            self.inflate_more(input)?;
        }
        Ok(&self.window[self.start..self.end])
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.start += count;
    }

    fn inflate_more(&mut self, input: &[u8]) -> Result<(), Failure> {
        self.start = self.end % WINDOW_BYTES;
        let (status, read, written) = decompress(
            &mut self.inflate,
            &input[self.at..],
            &mut self.window,
            self.start,
            inflate_flags::TINFL_FLAG_IGNORE_ADLER32,
        );
        self.at += read;
        self.end = self.start + written;
        self.member_crc.update(&self.window[self.start..self.end]);
        self.member_bytes = self.member_bytes.wrapping_add(written as u32);
        match status {
            TINFLStatus::HasMoreOutput if written > 0 => Ok(()),
            TINFLStatus::Done => self.end_member(input),
            _ => Err(Failure::Malformed("the gzip stream is corrupt")),
        }
    }

    fn end_member(&mut self, input: &[u8]) -> Result<(), Failure> {
        let trailer: Option<&[u8; 8]> = input[self.at..].first_chunk();
        let [c0, c1, c2, c3, l0, l1, l2, l3] =
            *trailer.ok_or(Failure::Malformed("the gzip stream has no trailer"))?;
        self.at += 8;
        self.in_member = false;
        let right = self.member_crc.clone().finalize() == u32::from_le_bytes([c0, c1, c2, c3])
            && self.member_bytes == u32::from_le_bytes([l0, l1, l2, l3]);
        right.then_some(()).ok_or(Failure::Malformed(
            "the gzip stream's checksum or length is wrong",
        ))
    }
}

/// The bytes of the member header that `input` begins with.
fn header_bytes(input: &[u8]) -> Result<usize, Failure> {
    parse_header(input).ok_or(Failure::Malformed("the gzip header is malformed"))
}

fn parse_header(input: &[u8]) -> Option<usize> {
    let &[0x1f, 0x8b, 8, flags, _, _, _, _, _, _] = input.first_chunk()? else {
        return None;
    };
    if flags & RESERVED != 0 {
        return None;
    }
    let mut at = 10;
    if flags & EXTRA != 0 {
        let &[low, high] = input.get(at..)?.first_chunk()?;
        at += 2 + usize::from(u16::from_le_bytes([low, high]));
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            at += 1 + input.get(at..)?.iter().position(|&b| b == 0)?;
        }
    }
    if flags & HEADER_CRC != 0 {
        let &[low, high] = input.get(at..)?.first_chunk()?;
        if crc32fast::hash(&input[..at]) as u16 != u16::from_le_bytes([low, high]) {
            return None;
        }
        at += 2;
    }
    (at <= input.len()).then_some(at)
}
