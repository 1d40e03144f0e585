//! A request's bytes, and the two kinds of spans that records travel in: of a frame, and of a file.
//!
//! Owns: the buffer that a request was read into, and the memory charge for it. Invariants: a frame never
//! changes; its charge goes back when the last span of it is dropped.

use crate::budget::Charge;
use std::fmt;
use std::fs::File;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// One request's bytes, without the length in front: read once from the socket, then shared by all who need them.
pub struct Frame {
    bytes: Vec<u8>,
    /// Held for its drop alone.
    _charge: Option<Charge>,
}

impl Frame {
    /// A frame whose bytes were taken from a budget.
    pub fn new(bytes: Vec<u8>, charge: Charge) -> Frame {
        Frame {
            bytes,
            _charge: Some(charge),
        }
    }
}

impl From<Vec<u8>> for Frame {
    fn from(bytes: Vec<u8>) -> Frame {
        Frame {
            bytes,
            _charge: None,
        }
    }
}

impl Deref for Frame {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A span of a frame; keeps the whole frame alive.
#[derive(Clone)]
pub struct FrameSlice {
    frame: Arc<Frame>,
    start: usize,
    end: usize,
}

impl FrameSlice {
    /// The bytes `range` of `frame`; panics if they are not all there, as slicing does.
    pub fn new(frame: Arc<Frame>, range: Range<usize>) -> FrameSlice {
        assert!(range.start <= range.end && range.end <= frame.len());
        FrameSlice {
            frame,
            start: range.start,
            end: range.end,
        }
    }

    /// The bytes `range` of this span; panics if they are not all there, as slicing does.
    pub fn slice(&self, range: Range<usize>) -> FrameSlice {
        assert!(range.start <= range.end && range.end <= self.len());
        FrameSlice {
            frame: self.frame.clone(),
            start: self.start + range.start,
            end: self.start + range.end,
        }
    }
}

impl From<Vec<u8>> for FrameSlice {
    fn from(bytes: Vec<u8>) -> FrameSlice {
        let end = bytes.len();
        FrameSlice::new(Arc::new(bytes.into()), 0..end)
    }
}

impl Deref for FrameSlice {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.frame[self.start..self.end]
    }
}

impl PartialEq for FrameSlice {
    fn eq(&self, other: &FrameSlice) -> bool {
        **self == **other
    }
}

impl fmt::Debug for FrameSlice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

/// A span of a file that goes to the socket by `sendfile`; holding the file keeps it exact after an unlink.
#[derive(Clone)]
pub struct FileSlice {
    /// The file, open for reading.
    pub file: Arc<File>,
    /// The first byte of the span.
    pub position: u64,
    /// Its length in bytes.
    pub len: u32,
}

impl PartialEq for FileSlice {
    fn eq(&self, other: &FileSlice) -> bool {
        Arc::ptr_eq(&self.file, &other.file)
            && (self.position, self.len) == (other.position, other.len)
    }
}

impl fmt::Debug for FileSlice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {}", self.len, self.position)
    }
}

/// Kafka's RECORDS type: record batches, wherever they lie.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Records {
    /// No records field at all, which is not the same as zero bytes of them.
    #[default]
    Null,
    /// Bytes that came in a frame.
    Held(FrameSlice),
    /// Bytes that lie in segment files, in this order.
    Files(Vec<FileSlice>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;

    #[test]
    fn a_frames_charge_goes_back_with_its_last_slice() {
        let budget = Budget::new(100);
        let mut charge = budget.charge();
        charge.grow(10).unwrap();
        let frame = Arc::new(Frame::new((0..10).collect(), charge));
        let slice = FrameSlice::new(frame, 2..8).slice(1..3);
        assert_eq!((&*slice, budget.used()), (&[3u8, 4][..], 10));
        drop(slice);
        assert_eq!(budget.used(), 0);
    }
}
