//! Messages of the formats before v2, which brokers before Kafka 0.11 wrote, and which neither Kafka 4 nor Ottla reads.
//!
//! Owns: how they are told from rot, by their own CRC. Invariant: a log that holds one is not opened, and so stays as
//! it is: what its owner can still read elsewhere is not taken for damage.
//!
//! ```text
//!   offset i64 | size i32 of all that follows | CRC-32 u32 of what follows it | magic i8: 0 or 1 | the rest
//! ```

use super::segment::Segment;
use crate::error::{Context, Error, Result};
use crate::sys;
use std::fs::File;
use std::io;

const MAGIC_AT: usize = 16;
const SIZE_STARTS_AT: u64 = 12;
const COPY_BYTES: usize = 64 << 10;

/// An error if a message of an old format lies at `position` of a segment's file of `size` bytes.
pub fn refuse(segment: &Segment, file: &File, position: u64, size: u64) -> Result<()> {
    let path = segment.path(".log");
    let found = magic_at(file, position, size);
    match found.context(|| format!("reading {}", path.display()))? {
        Some(magic) => Err(Error::new(format!(
            "{} has messages of format {magic} from byte {position} on, which Kafka 4 does not read either: \
             rewrite it with an older Kafka, or move it away",
            path.display()
        ))),
        None => Ok(()),
    }
}

/// The format of the old message at `position`, if there is one.
pub fn magic_at(file: &File, position: u64, size: u64) -> io::Result<Option<u8>> {
    let mut head = [0; MAGIC_AT + 1];
    if sys::read_at(file, &mut head, position)? < head.len() {
        return Ok(None);
    }
    let field =
        |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (end, crc, magic) = (
        position + SIZE_STARTS_AT + u64::from(field(8)),
        field(12),
        head[MAGIC_AT],
    );
    let mut at = position + MAGIC_AT as u64;
    if magic > 1 || end > size || end <= at {
        return Ok(None);
    }
    let mut computed = crc32fast::Hasher::new();
    let mut buffer = vec![0; COPY_BYTES.min((end - at) as usize)];
    while at < end {
        let wanted = buffer.len().min((end - at) as usize);
        let read = sys::read_at(file, &mut buffer[..wanted], at)?;
        if read == 0 {
            return Ok(None);
        }
        computed.update(&buffer[..read]);
        at += read as u64;
    }
    Ok((computed.finalize() == crc).then_some(magic))
}
