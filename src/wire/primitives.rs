//! Kafka's primitive types: a bounded reader, a writer with holes for file spans, and the uuid.
//!
//! All integers are big-endian. A length is an INT16 (strings), an INT32 (arrays, bytes, records), or, in
//! flexible versions (KIP-482), an UNSIGNED_VARINT of the length plus one; null is -1, or 0 in the varint form.

use super::frame::{FileSlice, Frame, FrameSlice};
use crate::budget::Charge;
use crate::sys;
use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;

/// A string's most bytes, whatever form its length takes (Kafka refuses longer ones in every version).
const STRING_BYTES_MAX: usize = i16::MAX as usize;

/// The most array elements that one message may hold, over all its arrays. An element is larger in memory than on
/// the wire (an empty topic name: 2 bytes against 40), so the frame's own limit is not enough to bound memory.
/// Ten thousand partitions, each with a broker to place it on, are a fifth of this.
const ELEMENTS_MAX: usize = 100_000;

/// The array elements that a message may hold without asking for memory: a connection's own share, 16 KiB.
pub(crate) const ELEMENTS_FREE: usize = 32;

/// What is taken for each further one: about what a partition of a fetch or a produce needs, with its answer.
pub(crate) const ELEMENT_BYTES: u64 = 512;

/// Bytes that are no message of their kind and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// What is wrong.
    pub what: &'static str,
    /// The table's field that was being read.
    pub field: &'static str,
    /// The byte where reading stopped, counted from the start of the frame.
    pub at: usize,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {} at byte {}", self.what, self.field, self.at)
    }
}

impl std::error::Error for Malformed {}

/// The result of reading.
pub type Result<T> = std::result::Result<T, Malformed>;

/// Reads primitives off a span of bytes, from front to back.
pub struct Reader<'a> {
    bytes: &'a [u8],
    /// Never beyond the end of `bytes`.
    position: usize,
    /// Where record spans come from; without it they are copied.
    frame: Option<&'a Arc<Frame>>,
    elements: usize,
    /// What elements are taken from; without it they are only counted.
    memory: Option<Charge>,
    pub(crate) field: &'static str,
}

impl<'a> Reader<'a> {
    /// A reader of a whole frame, whose records stay spans of it.
    pub fn of_frame(frame: &'a Arc<Frame>) -> Reader<'a> {
        Reader {
            frame: Some(frame),
            ..Reader::new(frame)
        }
    }

    /// A reader of plain bytes.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader {
            bytes,
            position: 0,
            frame: None,
            elements: 0,
            memory: None,
            field: "the header",
        }
    }

    /// Takes memory for array elements before they are read; a message is refused if it is not free now.
    pub fn with_memory(self, memory: Charge) -> Reader<'a> {
        let memory = Some(memory);
        Reader { memory, ..self }
    }

    /// What was taken, to be held as long as the message.
    pub fn into_memory(self) -> Option<Charge> {
        self.memory
    }

    /// The bytes not yet read.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    /// Refuses bytes that are left over.
    pub fn finish(&self) -> Result<()> {
        match self.remaining() {
            0 => Ok(()),
            _ => Err(self.malformed("bytes left over")),
        }
    }

    /// The error for what was found at this place.
    pub fn malformed(&self, what: &'static str) -> Malformed {
        Malformed {
            what,
            field: self.field,
            at: self.position,
        }
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.position..];
        let taken = rest
            .get(..len)
            .ok_or_else(|| self.malformed("more bytes announced than there are"))?;
        self.position += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let rest = &self.bytes[self.position..];
        let taken = *rest
            .first_chunk()
            .ok_or_else(|| self.malformed("the end"))?;
        self.position += N;
        Ok(taken)
    }

    /// BOOLEAN: any byte but zero is true.
    pub fn bool(&mut self) -> Result<bool> {
        Ok(self.i8()? != 0)
    }

    /// INT8.
    pub fn i8(&mut self) -> Result<i8> {
        self.array().map(i8::from_be_bytes)
    }

    /// INT16.
    pub fn i16(&mut self) -> Result<i16> {
        self.array().map(i16::from_be_bytes)
    }

    /// UINT16.
    pub fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// INT32.
    pub fn i32(&mut self) -> Result<i32> {
        self.array().map(i32::from_be_bytes)
    }

    /// UINT32.
    pub fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// INT64.
    pub fn i64(&mut self) -> Result<i64> {
        self.array().map(i64::from_be_bytes)
    }

    /// FLOAT64.
    pub fn f64(&mut self) -> Result<f64> {
        self.array().map(f64::from_be_bytes)
    }

    /// UUID.
    pub fn uuid(&mut self) -> Result<Uuid> {
        self.array().map(Uuid)
    }

    /// UNSIGNED_VARINT: seven bits a byte, lowest first, at most 32 bits.
    pub fn unsigned_varint(&mut self) -> Result<u32> {
        let value = self.varint_bits(5)?;
        u32::try_from(value).map_err(|_| self.malformed("a varint of more than 32 bits"))
    }

    /// VARINT: a zigzag-coded INT32.
    pub fn varint(&mut self) -> Result<i32> {
        let bits = self.unsigned_varint()?;
        Ok((bits >> 1) as i32 ^ -((bits & 1) as i32))
    }

    /// VARLONG: a zigzag-coded INT64.
    pub fn varlong(&mut self) -> Result<i64> {
        let bits = self.varint_bits(10)?;
        Ok((bits >> 1) as i64 ^ -((bits & 1) as i64))
    }

    fn varint_bits(&mut self, bytes_max: u32) -> Result<u64> {
        let mut value = 0;
        for i in 0..bytes_max {
            let byte = u64::from(self.array::<1>()?[0]);
            let bits = (byte & 0x7f) << (7 * i);
            if bits >> (7 * i) != byte & 0x7f {
                break;
            }
            value |= bits;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.malformed("an endless varint"))
    }

    /// A length in bytes that are known to remain, or null.
    fn byte_length(&mut self, narrow: bool, flexible: bool) -> Result<Option<usize>> {
        let length = match (flexible, narrow) {
            (true, _) => i64::from(self.unsigned_varint()?) - 1,
            (false, true) => i64::from(self.i16()?),
            (false, false) => i64::from(self.i32()?),
        };
        match usize::try_from(length) {
            Ok(length) if length > self.remaining() => {
                Err(self.malformed("more bytes announced than there are"))
            }
            // Kafka takes every negative length for null.
            length => Ok(length.ok()),
        }
    }

    /// STRING, or COMPACT_STRING where `flexible`. What is not UTF-8 becomes U+FFFD, as in Kafka.
    pub fn string(&mut self, flexible: bool) -> Result<Option<String>> {
        let Some(length) = self.byte_length(true, flexible)? else {
            return Ok(None);
        };
        if length > STRING_BYTES_MAX {
            return Err(self.malformed("a string of more than 32767 bytes"));
        }
        let bytes = self.take(length)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Some(text.to_owned())),
            Err(_) => self.mended(bytes).map(Some),
        }
    }

    /// Bytes that are no text become up to three times as many: as memory for elements is, that is taken first.
    #[cold]
    fn mended(&mut self, bytes: &[u8]) -> Result<String> {
        const REPLACEMENT: &str = "\u{fffd}";
        let pieces = || {
            let chunks = bytes.utf8_chunks();
            chunks.flat_map(|chunk| match chunk.invalid() {
                [] => [chunk.valid(), ""],
                _ => [chunk.valid(), REPLACEMENT],
            })
        };
        let length = pieces().map(str::len).sum::<usize>();
        // What is too long could not be written again.
        if length > STRING_BYTES_MAX {
            return Err(self.malformed("a string of more than 32767 bytes"));
        }
        self.charge(length.saturating_sub(bytes.len()) as u64)?;
        let mut text = String::with_capacity(length);
        text.extend(pieces());
        Ok(text)
    }

    /// BYTES, or COMPACT_BYTES where `flexible`.
    pub fn bytes(&mut self, flexible: bool) -> Result<Option<&'a [u8]>> {
        match self.byte_length(false, flexible)? {
            Some(length) => self.take(length).map(Some),
            None => Ok(None),
        }
    }

    /// RECORDS: as BYTES, but a span of the frame where there is one.
    pub fn records(&mut self, flexible: bool) -> Result<Option<FrameSlice>> {
        let bytes = self.bytes(flexible)?;
        Ok(bytes.map(|bytes| match self.frame {
            Some(frame) => {
                FrameSlice::new(frame.clone(), self.position - bytes.len()..self.position)
            }
            None => bytes.to_vec().into(),
        }))
    }

    /// An array's count, which is at most the bytes that remain: no element is shorter than one byte.
    pub fn count(&mut self, flexible: bool) -> Result<Option<usize>> {
        let count = self.byte_length(false, flexible)?;
        let before = self.elements.max(ELEMENTS_FREE);
        self.elements = self.elements.saturating_add(count.unwrap_or(0));
        if self.elements > ELEMENTS_MAX {
            return Err(self.malformed("more than a hundred thousand array elements"));
        }
        self.charge(self.elements.saturating_sub(before) as u64 * ELEMENT_BYTES)?;
        Ok(count)
    }

    fn charge(&mut self, bytes: u64) -> Result<()> {
        let memory = self.memory.as_mut().filter(|_| bytes > 0);
        match memory.is_none_or(|memory| memory.try_grow(bytes)) {
            true => Ok(()),
            false => Err(self.malformed("more array elements than memory is free for")),
        }
    }

    /// Tagged fields (KIP-482): `known` reads those that it knows and answers true; the others are skipped.
    pub fn tags(
        &mut self,
        mut known: impl FnMut(&mut Reader<'a>, u32) -> Result<bool>,
    ) -> Result<()> {
        for _ in 0..self.unsigned_varint()? {
            let tag = self.unsigned_varint()?;
            let length = self.unsigned_varint()? as usize;
            if length > self.remaining() {
                return Err(self.malformed("more bytes announced than there are"));
            }
            let (start, end) = (self.position, self.position + length);
            let whole = self.bytes;
            self.bytes = &whole[..end];
            let read = known(self, tag)?;
            if read && self.position != end {
                return Err(self.malformed("a tagged field of another length than announced"));
            }
            (self.bytes, self.position) = (whole, start + length);
        }
        Ok(())
    }
}

/// A place in a message's bytes where a span of a file belongs.
#[derive(Clone, Debug, PartialEq)]
pub struct Hole {
    /// The index into [`Writer::bytes`] before which the span goes.
    pub at: usize,
    /// The span.
    pub slice: FileSlice,
}

/// An encoded message: bytes, with holes where spans of files go, so that one encoder serves what is held in
/// memory and what `sendfile` sends.
#[derive(Debug, Default)]
pub struct Writer {
    /// The bytes around the holes.
    pub bytes: Vec<u8>,
    /// The holes, in order.
    pub holes: Vec<Hole>,
}

impl Writer {
    /// An empty writer.
    pub fn new() -> Writer {
        Writer::default()
    }

    /// The length of the whole, holes filled.
    pub fn total_bytes(&self) -> u64 {
        let holes: u64 = self.holes.iter().map(|h| u64::from(h.slice.len)).sum();
        self.bytes.len() as u64 + holes
    }

    /// Appends bytes as they are.
    pub fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// UNSIGNED_VARINT.
    pub fn unsigned_varint(&mut self, value: u32) {
        self.varint_bits(u64::from(value));
    }

    /// VARINT.
    pub fn varint(&mut self, value: i32) {
        self.varint_bits(u64::from(((value << 1) ^ (value >> 31)) as u32));
    }

    /// VARLONG.
    pub fn varlong(&mut self, value: i64) {
        self.varint_bits(((value << 1) ^ (value >> 63)) as u64);
    }

    fn varint_bits(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    fn length(&mut self, length: Option<usize>, narrow: bool, flexible: bool) {
        debug_assert!(length.is_none_or(|l| l <= i32::MAX as usize));
        match (flexible, narrow) {
            (true, _) => self.unsigned_varint(length.map_or(0, |l| l as u32 + 1)),
            (false, true) => self.put(&length.map_or(-1, |l| l as i16).to_be_bytes()),
            (false, false) => self.put(&length.map_or(-1, |l| l as i32).to_be_bytes()),
        }
    }

    /// STRING or COMPACT_STRING; what a string cannot hold (over 32767 bytes) is cut off.
    pub fn string(&mut self, text: Option<&str>, flexible: bool) {
        let text = text.map(cut);
        self.length(text.map(str::len), true, flexible);
        self.put(text.unwrap_or("").as_bytes());
    }

    /// BYTES or COMPACT_BYTES.
    pub fn bytes(&mut self, bytes: Option<&[u8]>, flexible: bool) {
        self.length(bytes.map(<[u8]>::len), false, flexible);
        self.put(bytes.unwrap_or(&[]));
    }

    /// An array's count.
    pub fn count(&mut self, count: Option<usize>, flexible: bool) {
        self.length(count, false, flexible);
    }

    /// RECORDS that lie in files.
    pub fn files(&mut self, slices: &[FileSlice], flexible: bool) {
        let length = slices.iter().map(|s| s.len as usize).sum();
        self.length(Some(length), false, flexible);
        let at = self.bytes.len();
        let holes = slices.iter().map(|slice| Hole {
            at,
            slice: slice.clone(),
        });
        self.holes.extend(holes);
    }

    /// One tagged field; its length is put in front once it is known.
    pub fn tagged(&mut self, tag: u32, field: impl FnOnce(&mut Writer)) {
        self.unsigned_varint(tag);
        let start = self.bytes.len();
        field(self);
        let end = self.bytes.len();
        self.unsigned_varint((end - start) as u32);
        let length_bytes = self.bytes.len() - end;
        self.bytes[start..].rotate_right(length_bytes);
    }
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(STRING_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A 128-bit id, of a topic or a directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Uuid(pub [u8; 16]);

const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl Uuid {
    /// All zero: no id.
    pub const ZERO: Uuid = Uuid([0; 16]);

    /// A random id (RFC 9562, version 4). As Kafka's, its text does not begin with a dash, since that would read as
    /// an option on a command line.
    pub fn random() -> io::Result<Uuid> {
        loop {
            let mut id = [0; 16];
            sys::random(&mut id)?;
            id[6] = id[6] & 0x0f | 0x40;
            id[8] = id[8] & 0x3f | 0x80;
            if BASE64_URL[usize::from(id[0] >> 2)] != b'-' {
                return Ok(Uuid(id));
            }
        }
    }
}

impl fmt::Display for Uuid {
    /// Kafka's form: URL-safe base64 without padding, 22 characters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from_be_bytes(self.0);
        for i in 0..22 {
            let six = if i < 21 {
                bits >> (122 - 6 * i)
            } else {
                bits << 4
            };
            let digit = BASE64_URL[(six & 0x3f) as usize];
            fmt::Write::write_char(f, char::from(digit))?;
        }
        Ok(())
    }
}

impl FromStr for Uuid {
    type Err = &'static str;

    /// Reads what `Display` writes.
    fn from_str(text: &str) -> std::result::Result<Uuid, &'static str> {
        let wrong = "an id is 22 characters of URL-safe base64";
        let mut bits: u128 = 0;
        for (i, c) in text.bytes().enumerate() {
            let six = BASE64_URL.iter().position(|&d| d == c).ok_or(wrong)? as u128;
            match i {
                0..21 => bits = bits << 6 | six,
                21 if six & 0x0f == 0 => bits = bits << 2 | six >> 4,
                _ => return Err(wrong),
            }
        }
        match text.len() {
            22 => Ok(Uuid(bits.to_be_bytes())),
            _ => Err(wrong),
        }
    }
}
