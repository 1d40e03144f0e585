//! Compression, for batches that the cleaner rewrites: the same codec as before, fast rather than small.
//!
//! Invariant: what is made here is read by every client, so it uses each format's plainest part: one gzip member; LZ4
//! blocks of 64 KiB that are independent and unchecked, as Kafka's own clients write them; snappy in xerial's frame;
//! one zstd frame that states its content size. Safe code throughout, and bounded: about 200 KiB beside the output.

#[cfg(any(feature = "snappy", feature = "zstd"))]
mod matches;
#[cfg(feature = "snappy")]
mod snappy;
#[cfg(feature = "zstd")]
mod zstd;

#[cfg(all(test, feature = "snappy", feature = "zstd"))]
mod tests;

use super::{Codec, Failure};
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
use std::io::Write;

/// Kafka's default for gzip.
const GZIP_LEVEL: u8 = 6;

/// A header that says nothing: no flags, no time, no system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// Appends `input` to `out`, compressed; as it is with [`Codec::None`]. Fails only if this build lacks the codec.
pub fn encode(codec: Codec, input: &[u8], out: &mut Vec<u8>) -> Result<(), Failure> {
    match codec {
        Codec::None => out.extend_from_slice(input),
        Codec::Gzip => gzip(input, out),
        #[cfg(feature = "snappy")]
        Codec::Snappy => snappy::encode(input, out),
        Codec::Lz4 => lz4(input, out)?,
        #[cfg(feature = "zstd")]
        Codec::Zstd => zstd::encode(input, out),
        #[allow(unreachable_patterns)]
        other => return Err(Failure::Unsupported(other)),
    }
    Ok(())
}

fn gzip(input: &[u8], out: &mut Vec<u8>) {
    let deflated = miniz_oxide::deflate::compress_to_vec(input, GZIP_LEVEL);
    out.extend_from_slice(&GZIP_HEADER);
    out.extend_from_slice(&deflated);
    out.extend_from_slice(&crc32fast::hash(input).to_le_bytes());
    out.extend_from_slice(&(input.len() as u32).to_le_bytes());
}

fn lz4(input: &[u8], out: &mut Vec<u8>) -> Result<(), Failure> {
    let info = FrameInfo::new()
        .block_size(BlockSize::Max64KB)
        .block_mode(BlockMode::Independent);
    let mut encoder = FrameEncoder::with_frame_info(info, out);
    let written = encoder.write_all(input);
    // A vector takes all that is written to it.
    let ended = written.is_ok() && encoder.finish().is_ok();
    ended
        .then_some(())
        .ok_or(Failure::Malformed("the lz4 frame cannot be written"))
}
