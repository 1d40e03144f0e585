//! The sequential read of segment files after an unclean stop.
//!
//! Owns: one buffer of 1 MiB, through which every byte of a segment is read once, in order. Rules:
//!
//! 1. What is read from the first batch past the recovery point on is written back to the same place, from the same
//!    buffer (promise P6): after a failed sync the page cache may hold what the disk does not, and a second read might
//!    see the other of the two. Writing back bytes that turn out to be bad changes nothing.
//! 2. A batch larger than the buffer is checked piece by piece.
//! 3. A base offset is outside the CRC. Where a batch leaves a hole before it, and the batch behind it begins before
//!    its end, it is the one that lies: the offsets behind it are right.
//! 4. After a bad batch every byte may be a batch's first. A header must be plausible before its CRC is computed, and
//!    the work on CRCs is bounded, so that crafted bytes cannot make a start take for ever.

use crate::batch::{self, HEADER_BYTES, Header};
use crate::sys;
use std::fs::File;
use std::io::{self, IoSlice};

const BUFFER_BYTES: usize = 1 << 20;

/// The search after a bad batch computes CRCs over at most so many times the segment's bytes.
const SEARCH_WORK_MAX: u64 = 16;

/// The offsets that a segment's next batch may have.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The offset after the last good batch.
    pub from: i64,
    /// The segment's base offset.
    pub base: i64,
    /// The next segment's base offset.
    pub to: i64,
}

impl Bounds {
    fn allow(&self, header: &Header) -> bool {
        header.base_offset >= self.from.max(self.base)
            && header.last_offset() < self.to
            && header.last_offset() - self.base <= i64::from(i32::MAX)
    }
}

/// Called after each read with the bytes that were read; its error ends the scan.
pub type Pace<'a> = &'a mut dyn FnMut(u64) -> io::Result<()>;

/// Reads one segment's file, in order.
pub struct Scanner<'a> {
    file: &'a File,
    size: u64,
    buffer: Vec<u8>,
    /// What of the file the buffer holds.
    start: u64,
    held: usize,
    /// Batches that reach past this offset are written back.
    recovery_point: i64,
    /// From here on what is read is written back.
    rewrite_from: Option<u64>,
    /// The bytes that the search may still compute CRCs over.
    search_work: u64,
    pace: Option<Pace<'a>>,
}

impl<'a> Scanner<'a> {
    /// The same for a file that is only looked at: nothing is written back, and `pace` is called after each read.
    pub fn to_read(file: &'a File, size: u64, pace: Pace<'a>) -> Scanner<'a> {
        Scanner {
            pace: Some(pace),
            ..Scanner::new(file, size, i64::MAX)
        }
    }

    /// A scanner at the beginning of `file`, whose first `size` bytes are looked at.
    pub fn new(file: &'a File, size: u64, recovery_point: i64) -> Scanner<'a> {
        Scanner {
            file,
            size,
            buffer: vec![0; BUFFER_BYTES.min(size as usize)],
            start: 0,
            held: 0,
            recovery_point,
            rewrite_from: None,
            search_work: size.saturating_mul(SEARCH_WORK_MAX),
            pace: None,
        }
    }

    /// The file's bytes from `position` on: `wanted` of them, but for the file's end and the buffer's size.
    fn bytes(&mut self, position: u64, wanted: usize) -> io::Result<&[u8]> {
        let left = usize::try_from(self.size.saturating_sub(position)).unwrap_or(usize::MAX);
        let wanted = wanted.min(left).min(self.buffer.len());
        let holds =
            position >= self.start && position + wanted as u64 <= self.start + self.held as u64;
        if !holds {
            self.write_back()?;
            self.start = position;
            let room = self.buffer.len().min(left);
            self.held = sys::read_at(self.file, &mut self.buffer[..room], position)?;
            let held = self.held as u64;
            self.pace.as_mut().map_or(Ok(()), |pace| pace(held))?;
        }
        let at = (position - self.start) as usize;
        let end = self.held.min(at + wanted);
        Ok(&self.buffer[at.min(end)..end])
    }

    /// Writes back what the buffer holds of the bytes that are to be.
    fn write_back(&mut self) -> io::Result<()> {
        let Some(from) = self.rewrite_from else {
            return Ok(());
        };
        let skip = usize::try_from(from.saturating_sub(self.start)).unwrap_or(usize::MAX);
        if skip >= self.held {
            return Ok(());
        }
        let mut slices = [IoSlice::new(&self.buffer[skip..self.held])];
        sys::write_gathered_at(self.file, &mut slices, self.start + skip as u64)
    }

    /// Ends the scan: the last bytes are written back.
    pub fn finish(mut self) -> io::Result<()> {
        self.write_back()
    }

    /// The batch at `position`, if a whole one within `bounds` lies there, its CRC is right, and the batch behind it
    /// does not deny its offsets.
    pub fn batch_at(&mut self, position: u64, bounds: &Bounds) -> io::Result<Option<Header>> {
        let Some(header) = self.whole_at(position, bounds)? else {
            return Ok(None);
        };
        let leaves_hole = header.base_offset > bounds.from.max(bounds.base);
        let denied = leaves_hole && self.is_denied(position, &header, bounds)?;
        Ok((!denied).then_some(header))
    }

    /// Whether a whole batch follows that begins before the end of this one.
    fn is_denied(&mut self, position: u64, header: &Header, bounds: &Bounds) -> io::Result<bool> {
        let after = position + header.total_bytes() as u64;
        let Some(head) = self.bytes(after, HEADER_BYTES)?.first_chunk() else {
            return Ok(false);
        };
        // The CRC of the next batch is computed only where its header is reason to.
        match Header::parse(head).base_offset <= header.last_offset() {
            true => Ok(self.whole_at(after, bounds)?.is_some()),
            false => Ok(false),
        }
    }

    fn whole_at(&mut self, position: u64, bounds: &Bounds) -> io::Result<Option<Header>> {
        let Some(&head) = self.bytes(position, HEADER_BYTES)?.first_chunk() else {
            return Ok(None);
        };
        let header = Header::parse(&head);
        if !self.plausible(position, &header, bounds) {
            return Ok(None);
        }
        if header.last_offset() >= self.recovery_point {
            // Now, since a large batch's first bytes leave the buffer before its CRC is known.
            self.rewrite_from.get_or_insert(position);
        }
        let mut crc = batch::crc_of_head(&head);
        let mut at = position + HEADER_BYTES as u64;
        let mut left = header.body_bytes();
        while left > 0 {
            let piece = self.bytes(at, left)?;
            if piece.is_empty() {
                return Ok(None);
            }
            crc = crc32c::crc32c_append(crc, piece);
            at += piece.len() as u64;
            left -= piece.len();
        }
        Ok((crc == header.crc).then_some(header))
    }

    fn plausible(&self, position: u64, header: &Header, bounds: &Bounds) -> bool {
        header.check().is_ok()
            && position + header.total_bytes() as u64 <= self.size
            && bounds.allow(header)
    }

    /// The first good batch after the bad bytes at `position`.
    pub fn next_good(
        &mut self,
        position: u64,
        bounds: &Bounds,
    ) -> io::Result<Option<(u64, Header)>> {
        // The bad batch's own length first: where that is right, nothing inside it is mistaken for a batch.
        if let Some(head) = self.bytes(position, HEADER_BYTES)?.first_chunk() {
            let after = position + Header::parse(head).total_bytes() as u64;
            if after > position
                && let Some(header) = self.batch_at(after, bounds)?
            {
                return Ok(Some((after, header)));
            }
        }
        let mut at = position + 1;
        while let Some(candidate) = self.candidate(at, bounds)? {
            let (place, bytes) = candidate;
            if bytes > self.search_work {
                log::warn!("gave up the search for batches after the bad one at {position}");
                return Ok(None);
            }
            self.search_work -= bytes;
            if let Some(header) = self.batch_at(place, bounds)? {
                return Ok(Some((place, header)));
            }
            at = place + 1;
        }
        Ok(None)
    }

    /// The next place where a header is plausible, from `at` on, and the bytes of its batch.
    fn candidate(&mut self, mut at: u64, bounds: &Bounds) -> io::Result<Option<(u64, u64)>> {
        const MAGIC_AT: usize = 16;
        loop {
            let size = self.size;
            if self.bytes(at, HEADER_BYTES)?.len() < HEADER_BYTES {
                return Ok(None);
            }
            // As far as the buffer goes, so that no candidate costs a read of its own.
            let window = &self.buffer[(at - self.start) as usize..self.held];
            for (i, head) in window.windows(HEADER_BYTES).enumerate() {
                if head[MAGIC_AT] != batch::MAGIC as u8 {
                    continue;
                }
                let head = head.first_chunk().expect("a window is a header long");
                let header = Header::parse(head);
                let place = at + i as u64;
                let bytes = header.total_bytes() as u64;
                let whole = header.check().is_ok() && place + bytes <= size;
                if whole && bounds.allow(&header) {
                    return Ok(Some((place, bytes)));
                }
            }
            at += (window.len() - HEADER_BYTES + 1) as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::batch;
    use super::*;

    const BOUNDS: Bounds = Bounds {
        from: 0,
        base: 0,
        to: i64::MAX,
    };

    fn file_of(bytes: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        sys::write_gathered_at(&file, &mut [IoSlice::new(bytes)], 0).unwrap();
        file
    }

    /// Headers that each claim all the rest as their batch: the search gives up long before it has tried them all.
    #[test]
    fn crafted_headers_do_not_make_a_start_take_for_ever() {
        let mut bytes = Vec::new();
        let mut header = batch(1, 10, 1).header;
        let count = 20_000;
        for i in 0..count {
            let left = (count - i) * HEADER_BYTES;
            header.batch_length = (left - batch::LENGTH_STARTS_AT) as i32;
            bytes.extend_from_slice(&header.encode());
        }
        let file = file_of(&bytes);
        let mut scanner = Scanner::new(&file, bytes.len() as u64, i64::MAX);
        let work = scanner.search_work;
        assert_eq!(scanner.next_good(0, &BOUNDS).unwrap(), None);
        assert!(scanner.search_work < bytes.len() as u64 && work > bytes.len() as u64);
    }

    /// A good batch is found wherever it begins, also across the buffer's end.
    #[test]
    fn the_next_good_batch_is_found_at_any_place() {
        let good = batch(1, 100, 1);
        for junk in [
            1,
            60,
            61,
            1000,
            BUFFER_BYTES - 80,
            BUFFER_BYTES - 1,
            2 * BUFFER_BYTES + 3,
        ] {
            let mut bytes = vec![2u8; junk];
            bytes.extend_from_slice(&good.head);
            bytes.extend_from_slice(&good.body);
            let file = file_of(&bytes);
            let mut scanner = Scanner::new(&file, bytes.len() as u64, i64::MAX);
            let found = scanner.next_good(0, &BOUNDS).unwrap();
            assert_eq!(found, Some((junk as u64, good.header)));
        }
    }
}
