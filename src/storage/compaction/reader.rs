//! A sealed segment, batch by batch, each checked: one buffer, read in order.
//!
//! Invariant: what is given as a batch's bytes passed [`check_stored`]; a batch that is too large to be held is given
//! as its header alone, and [`Reader::copy`] checks it as it is copied.

use super::{Failed, Pace, RECORDS_BYTES_MAX};
use crate::batch::{self, HEADER_BYTES, Header, check_stored};
use crate::error::{Context, Error, Result};
use crate::storage::Shared;
use crate::storage::segment::Extent;
use crate::storage::view::ReadError;
use crate::sys;
use std::fmt::Display;
use std::fs::File;
use std::sync::Arc;

/// What is read and written at once, bytes.
pub const CHUNK_BYTES: usize = 256 << 10;

/// A batch where it lies.
pub struct Batch<'b> {
    /// Where it begins in its segment.
    pub position: u32,
    /// Its fields.
    pub header: Header,
    /// The whole of it; `None` if it is larger than [`RECORDS_BYTES_MAX`].
    pub bytes: Option<&'b [u8]>,
}

/// Reads one segment.
pub struct Reader<'a> {
    extent: &'a Extent,
    file: Arc<File>,
    /// Where the next batch begins.
    next: u32,
    /// The offset after the last batch.
    end_offset: i64,
    /// The file's bytes from `start` on.
    buffer: Vec<u8>,
    start: u32,
}

impl<'a> Reader<'a> {
    /// A reader that begins at the batch with `offset`, or a little before it.
    pub fn open(shared: &Shared, extent: &'a Extent, offset: i64) -> Result<Reader<'a>, Failed> {
        let opened = || -> Result<_, ReadError> {
            let file = extent.segment.log(shared)?;
            let next = extent.floor(shared, &file, offset)?;
            Ok((file, next))
        };
        let (file, next) = opened().map_err(|e| super::unread(extent, e))?;
        Ok(Reader {
            extent,
            file,
            next,
            end_offset: extent.base_offset(),
            buffer: Vec::new(),
            start: next,
        })
    }

    /// The next batch.
    pub fn next_batch(&mut self, pace: Pace<'_>) -> Result<Option<Batch<'_>>, Failed> {
        let position = self.next;
        if position >= self.extent.bytes {
            return Ok(None);
        }
        self.hold(position, HEADER_BYTES, pace)?;
        let head = self.held(position, HEADER_BYTES).first_chunk();
        let header = head
            .map(Header::parse)
            .filter(|header| self.fits(position, header))
            .ok_or_else(|| self.damaged(position, "no batch is there"))?;
        self.end_offset = header.last_offset() + 1;
        // Within the extent, as `fits` saw to.
        self.next = position + header.total_bytes() as u32;
        if header.total_bytes() > RECORDS_BYTES_MAX {
            return Ok(Some(Batch {
                position,
                header,
                bytes: None,
            }));
        }
        self.hold(position, header.total_bytes(), pace)?;
        let bytes = self.held(position, header.total_bytes());
        check_stored(bytes).map_err(|bad| self.damaged(position, format!("{bad:?}")))?;
        Ok(Some(Batch {
            position,
            header,
            bytes: Some(bytes),
        }))
    }

    fn fits(&self, position: u32, header: &Header) -> bool {
        header.check().is_ok()
            && u64::from(position) + header.total_bytes() as u64 <= u64::from(self.extent.bytes)
            && header.base_offset >= self.end_offset
            && header.last_offset() < self.extent.end_offset
    }

    /// Makes the buffer hold `count` bytes from `position` on, as far as the segment goes.
    fn hold(&mut self, position: u32, count: usize, pace: Pace<'_>) -> Result<(), Failed> {
        let skip = position.saturating_sub(self.start) as usize;
        if position >= self.start && skip + count <= self.buffer.len() {
            return Ok(());
        }
        let left = (self.extent.bytes - position) as usize;
        let len = count.max(CHUNK_BYTES).min(left);
        if self.buffer.capacity() > 4 * CHUNK_BYTES && len <= CHUNK_BYTES {
            self.buffer = Vec::new();
        }
        self.buffer.resize(len, 0);
        self.start = position;
        let read = sys::read_at(&self.file, &mut self.buffer, u64::from(position))
            .context(|| format!("reading {}", self.extent.segment.path(".log").display()))?;
        self.buffer.truncate(read);
        pace(read as u64)?;
        Ok(())
    }

    /// The bytes from `position` on that the buffer holds, `count` at most.
    fn held(&self, position: u32, count: usize) -> &[u8] {
        let held = self.buffer.get((position - self.start) as usize..);
        let held = held.unwrap_or_default();
        &held[..count.min(held.len())]
    }

    /// Hands the bytes of a batch that was too large to be held to `write`, piece by piece; an error if they turn out
    /// to be damaged.
    pub fn copy(
        &mut self,
        position: u32,
        header: &Header,
        pace: Pace<'_>,
        mut write: impl FnMut(&[u8], Pace<'_>) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        let end = position + header.total_bytes() as u32;
        let mut crc = batch::crc_of_head(&header.encode());
        let mut at = position;
        while at < end {
            let count = CHUNK_BYTES.min((end - at) as usize);
            self.hold(at, count, pace)?;
            let piece = self.held(at, count);
            if piece.len() < count {
                return Err(self.damaged(position, "its bytes end early"));
            }
            let skip = if at == position { HEADER_BYTES } else { 0 };
            crc = crc32c::crc32c_append(crc, &piece[skip..]);
            write(piece, pace)?;
            at += count as u32;
        }
        match crc == header.crc {
            true => Ok(()),
            false => Err(self.damaged(position, "its CRC is wrong")),
        }
    }

    fn damaged(&self, position: u32, what: impl Display) -> Failed {
        damaged(self.extent, position, what)
    }
}

/// The segment is damaged at `position`.
pub fn damaged(extent: &Extent, position: u32, what: impl Display) -> Failed {
    let path = extent.segment.path(".log");
    Failed::Damaged(Error::new(format!(
        "the batch at byte {position} of {} is damaged: {what}",
        path.display()
    )))
}
