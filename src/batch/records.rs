//! The walk over a batch's records: one record at a time, none of them held.
//!
//! Owns: the one parser of records. It reads a record's lengths and goes past keys, values and headers, so that it
//! runs alike over the bytes of an uncompressed batch and over the pieces that a decoder gives. It allocates
//! nothing and trusts nothing: each length is held against the record's own, the record's against what Kafka can
//! count, and the batch ends where its last record does.

use super::{Header, NO_TIMESTAMP};
use crate::compress::{Codec, Decoders, Failure, Source};
use std::ops::Range;

/// No batch inflates to more: Kafka counts a batch's bytes in an i32.
const INFLATED_BYTES_MAX: usize = i32::MAX as usize;

/// What can be wrong with a record. One byte, so that what the parser's steps return stays in registers: with
/// [`Failure`] in its place the walk over short records takes a quarter more time.
#[derive(Clone, Copy)]
enum Fault {
    CutShort,
    Overrun,
    OutOfRange,
    TooLong,
    NegativeHeaders,
    NoHeaderKey,
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Failure {
        Failure::Malformed(match fault {
            Fault::CutShort => "the records end before the last one does",
            Fault::Overrun => "a record's fields do not fit its length",
            Fault::OutOfRange => "a record's number is out of range",
            Fault::TooLong => "a record's number is too long",
            Fault::NegativeHeaders => "a record's count of headers is negative",
            Fault::NoHeaderKey => "a record header has no key",
        })
    }
}

/// What the walk tells of a record. Ranges are of the records' bytes as they are before compression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The record's offset, relative to the batch's base offset.
    pub offset_delta: i32,
    /// The record's timestamp, in ms relative to the batch's base timestamp.
    pub timestamp_delta: i64,
    /// Where the key lies, if there is one.
    pub key: Option<Range<usize>>,
    /// Where the value lies, if there is one.
    pub value: Option<Range<usize>>,
}

/// A record's place and time in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The absolute offset.
    pub offset: i64,
    /// The timestamp in ms.
    pub timestamp: i64,
}

/// A walk over the records of one batch.
pub struct Walk<S> {
    source: S,
    /// Records not yet read.
    left: i32,
    /// Bytes read so far.
    position: usize,
}

impl<S: Source> Walk<S> {
    /// Walks `count` records, which must be all that `source` gives.
    pub fn new(source: S, count: i32) -> Walk<S> {
        Walk {
            source,
            left: count,
            position: 0,
        }
    }

    /// The bytes of the records that were read so far.
    pub fn position(&self) -> usize {
        self.position
    }

    /// The next record; `None` after the last, if nothing follows it.
    pub fn next_record(&mut self) -> Result<Option<Record>, Failure> {
        let piece = self.source.fill()?;
        if self.left <= 0 {
            let left_over = Failure::Malformed("bytes are left over after the last record");
            return piece.is_empty().then_some(None).ok_or(left_over);
        }
        self.left -= 1;
        // Most records lie within one piece: going to the source for each byte costs as much as inflating a short one.
        let mut rest = piece;
        if let Ok(length) = length(&mut rest)
            && let Some(mut fields) = rest.get(..length)
        {
            let before = piece.len() - rest.len();
            let record = parse(&mut fields, self.position + before)?;
            self.source.consume(before + length);
            self.position += before + length;
            if self.position > INFLATED_BYTES_MAX {
                return Err(Fault::Overrun.into());
            }
            return Ok(Some(record));
        }
        self.next_in_pieces().map(Some)
    }

    #[cold]
    fn next_in_pieces(&mut self) -> Result<Record, Failure> {
        let mut fields = Pieces {
            source: &mut self.source,
            left: INFLATED_BYTES_MAX.saturating_sub(self.position),
            failure: None,
        };
        let record = fields.record();
        let failure = fields.failure.take();
        let record = record.map_err(|fault| failure.unwrap_or(fault.into()))?;
        self.position = record.1;
        Ok(record.0)
    }
}

/// A record's bytes, whether they lie in one piece or in several.
trait Fields {
    /// How many bytes of the record are not yet read.
    fn left(&self) -> usize;

    fn byte(&mut self) -> Result<u8, Fault>;

    fn skip(&mut self, count: usize) -> Result<(), Fault>;
}

impl Fields for &[u8] {
    fn left(&self) -> usize {
        self.len()
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, Fault> {
        let (&byte, rest) = self.split_first().ok_or(Fault::Overrun)?;
        *self = rest;
        Ok(byte)
    }

    #[inline]
    fn skip(&mut self, count: usize) -> Result<(), Fault> {
        *self = self.get(count..).ok_or(Fault::Overrun)?;
        Ok(())
    }
}

struct Pieces<'a, S> {
    source: &'a mut S,
    left: usize,
    /// The source's own failure, which then goes before the fault that it causes.
    failure: Option<Failure>,
}

impl<S: Source> Pieces<'_, S> {
    /// The record with its length in front, and where in the batch it ends.
    fn record(&mut self) -> Result<(Record, usize), Fault> {
        let length = length(self)?;
        let start = INFLATED_BYTES_MAX - self.left;
        if length > self.left {
            return Err(Fault::Overrun);
        }
        self.left = length;
        Ok((parse(self, start)?, start + length))
    }

    /// The bytes of the next piece that may be read, some.
    fn piece(&mut self) -> Result<&[u8], Fault> {
        match self.source.fill() {
            Ok([]) => Err(Fault::CutShort),
            Ok(piece) => Ok(piece),
            Err(failure) => {
                self.failure = Some(failure);
                Err(Fault::CutShort)
            }
        }
    }
}

impl<S: Source> Fields for Pieces<'_, S> {
    fn left(&self) -> usize {
        self.left
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        self.left = self.left.checked_sub(1).ok_or(Fault::Overrun)?;
        let byte = self.piece()?[0];
        self.source.consume(1);
        Ok(byte)
    }

    fn skip(&mut self, mut count: usize) -> Result<(), Fault> {
        self.left = self.left.checked_sub(count).ok_or(Fault::Overrun)?;
        while count > 0 {
            let piece = self.piece()?.len().min(count);
            self.source.consume(piece);
            count -= piece;
        }
        Ok(())
    }
}

/// Reads the length that stands before a record.
#[inline]
fn length(fields: &mut impl Fields) -> Result<usize, Fault> {
    usize::try_from(varint(fields)?).map_err(|_| Fault::Overrun)
}

/// Reads a record's fields, which must be all that is left; `start` is where they lie in the batch.
#[inline]
fn parse<F: Fields>(fields: &mut F, start: usize) -> Result<Record, Fault> {
    let end = start + fields.left();
    let _attributes = fields.byte()?;
    let timestamp_delta = zigzag(fields, 10)?;
    let offset_delta = varint(fields)?;
    let key = bytes(fields, end)?;
    let value = bytes(fields, end)?;
    let headers = varint(fields)?;
    for _ in 0..u32::try_from(headers).map_err(|_| Fault::NegativeHeaders)? {
        let name = bytes(fields, end)?;
        name.ok_or(Fault::NoHeaderKey)?;
        bytes(fields, end)?;
    }
    if fields.left() > 0 {
        return Err(Fault::Overrun);
    }
    Ok(Record {
        offset_delta,
        timestamp_delta,
        key,
        value,
    })
}

#[inline]
fn varint(fields: &mut impl Fields) -> Result<i32, Fault> {
    let value = zigzag(fields, 5)?;
    i32::try_from(value).map_err(|_| Fault::OutOfRange)
}

/// A zigzag number of at most `bytes_max` bytes; bits beyond the 64th are dropped, as Java does.
#[inline]
fn zigzag(fields: &mut impl Fields, bytes_max: u32) -> Result<i64, Fault> {
    let mut value = 0u64;
    for index in 0..bytes_max {
        let byte = fields.byte()?;
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    Err(Fault::TooLong)
}

/// Goes past bytes that have their length in front, in a record that ends at `end`; `None` if the length is -1.
#[inline]
fn bytes(fields: &mut impl Fields, end: usize) -> Result<Option<Range<usize>>, Fault> {
    let length = varint(fields)?;
    if length == -1 {
        return Ok(None);
    }
    let length = usize::try_from(length).map_err(|_| Fault::Overrun)?;
    let start = end - fields.left();
    fields.skip(length)?;
    Ok(Some(start..start + length))
}

/// Hands each record of a batch to `visit`, in order, until it gives false; `body` is what follows the header.
pub fn for_each(
    header: &Header,
    body: &[u8],
    decoders: &Decoders,
    visit: impl FnMut(&Record) -> bool,
) -> Result<(), Failure> {
    match header.codec() {
        Err(_) => Err(Failure::Malformed("the batch has an unknown codec")),
        Ok(Codec::None) => walk_all(Walk::new(body, header.records_count), visit),
        Ok(codec) => {
            let stream = decoders.open(codec, body)?;
            walk_all(Walk::new(stream, header.records_count), visit)
        }
    }
}

fn walk_all<S: Source>(
    mut walk: Walk<S>,
    mut visit: impl FnMut(&Record) -> bool,
) -> Result<(), Failure> {
    while let Some(record) = walk.next_record()? {
        if !visit(&record) {
            break;
        }
    }
    Ok(())
}

/// A record's key and value, borrowed from its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyValue<'a> {
    /// The record's offset, relative to the batch's base offset.
    pub offset_delta: i32,
    /// The key, if there is one.
    pub key: Option<&'a [u8]>,
    /// The value, if there is one.
    pub value: Option<&'a [u8]>,
}

/// The key and the value of each record of an uncompressed batch, in order, up to the first error.
pub fn key_values<'a>(
    header: &Header,
    body: &'a [u8],
) -> Result<impl Iterator<Item = Result<KeyValue<'a>, Failure>>, Failure> {
    if header.codec() != Ok(Codec::None) {
        return Err(Failure::Malformed("the batch is compressed"));
    }
    let mut walk = Some(Walk::new(body, header.records_count));
    Ok(std::iter::from_fn(move || {
        let next = walk.as_mut()?.next_record().transpose();
        if !matches!(next, Some(Ok(_))) {
            walk = None;
        }
        let bytes = |range: Option<Range<usize>>| range.map(|r| &body[r]);
        next.map(|next| {
            next.map(|record| KeyValue {
                offset_delta: record.offset_delta,
                key: bytes(record.key),
                value: bytes(record.value),
            })
        })
    }))
}

/// A record's timestamp in ms: its own, or the batch's where the broker sets it.
pub fn timestamp(header: &Header, record: &Record) -> i64 {
    if header.is_log_append_time() {
        header.max_timestamp
    } else {
        header.base_timestamp.wrapping_add(record.timestamp_delta)
    }
}

fn place(header: &Header, record: &Record) -> Place {
    Place {
        offset: header
            .base_offset
            .saturating_add(record.offset_delta.into()),
        timestamp: timestamp(header, record),
    }
}

/// The first record of a stored batch at or after both an offset and a timestamp (ms), if there is one.
pub fn first_at_or_after(
    header: &Header,
    body: &[u8],
    decoders: &Decoders,
    offset: i64,
    timestamp: i64,
) -> Result<Option<Place>, Failure> {
    let mut found = None;
    for_each(header, body, decoders, |record| {
        let place = place(header, record);
        if place.offset >= offset && place.timestamp >= timestamp {
            found = Some(place);
        }
        found.is_none()
    })?;
    Ok(found)
}

/// The largest timestamp of a stored batch's records at and behind an offset, and the first record that has it. `None`
/// if no record has a timestamp. The header's own max timestamp cannot be trusted: Sarama leaves it unset.
pub fn max_timestamp(
    header: &Header,
    body: &[u8],
    decoders: &Decoders,
    offset: i64,
) -> Result<Option<Place>, Failure> {
    let mut max: Option<Place> = None;
    for_each(header, body, decoders, |record| {
        let place = place(header, record);
        if place.offset >= offset && place.timestamp > max.map_or(NO_TIMESTAMP, |m| m.timestamp) {
            max = Some(place);
        }
        true
    })?;
    Ok(max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::builder::Builder;
    use crate::batch::{HEADER_BYTES, LOG_APPEND_TIME, check_stored};
    use crate::budget::Budget;

    /// Three records from offset 100 on, at 10, 30 and 30 ms, uncompressed and as snappy.
    fn stored(attributes: i16) -> [Vec<u8>; 2] {
        let mut builder = Builder::new(5).place(100, 1).attributes(attributes);
        builder.add(Some(b"a"), Some(b"1"), &[], 10);
        builder.add(None, Some(b""), &[("h", None)], 30);
        builder.add(Some(b"c"), None, &[], 30);
        let body = snap::raw::Encoder::new().compress_vec(builder.records());
        [
            builder.build(),
            builder.build_from(Codec::Snappy, &body.unwrap()),
        ]
    }

    fn decoders() -> Decoders {
        Decoders::new(Budget::new(1 << 20), 1 << 20)
    }

    fn place(offset: i64, timestamp: i64) -> Option<Place> {
        Some(Place { offset, timestamp })
    }

    #[test]
    fn the_first_record_at_a_time_is_found_in_any_codec() {
        for bytes in stored(0) {
            let header = check_stored(&bytes).unwrap();
            let body = &bytes[HEADER_BYTES..];
            let find =
                |offset, time| first_at_or_after(&header, body, &decoders(), offset, time).unwrap();
            assert_eq!(find(0, 0), place(100, 10));
            assert_eq!(find(0, 11), place(101, 30));
            assert_eq!(find(102, 11), place(102, 30));
            assert_eq!(find(0, 31), None);
            let max = |offset| max_timestamp(&header, body, &decoders(), offset).unwrap();
            assert_eq!(max(0), place(101, 30));
            assert_eq!(max(102), place(102, 30));
        }
    }

    #[test]
    fn log_append_time_counts_for_every_record() {
        for bytes in stored(LOG_APPEND_TIME) {
            let header = check_stored(&bytes).unwrap();
            let body = &bytes[HEADER_BYTES..];
            let max = max_timestamp(&header, body, &decoders(), 0).unwrap();
            assert_eq!(max, place(100, 30));
        }
    }

    #[test]
    fn keys_and_values_are_borrowed_from_uncompressed_batches() {
        let [plain, snappy] = stored(0);
        let header = check_stored(&plain).unwrap();
        let all = key_values(&header, &plain[HEADER_BYTES..]).unwrap();
        let all: Vec<_> = all.map(|kv| kv.map(|kv| (kv.key, kv.value))).collect();
        let expected = [
            Ok((Some(&b"a"[..]), Some(&b"1"[..]))),
            Ok((None, Some(&b""[..]))),
            Ok((Some(&b"c"[..]), None)),
        ];
        assert_eq!(all, expected);
        let cut = key_values(&header, &plain[HEADER_BYTES..plain.len() - 1]).unwrap();
        assert_eq!(cut.filter(Result::is_err).count(), 1);
        let header = check_stored(&snappy).unwrap();
        assert!(key_values(&header, &snappy[HEADER_BYTES..]).is_err());
    }
}
