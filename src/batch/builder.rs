//! Builds a batch from records: what the broker writes itself (catalog, markers), and what tests send.
//!
//! Invariant: what [`Builder::build`] gives passes [`super::check_stored`].

use super::{HEADER_BYTES, Header, MAGIC, NO_PRODUCER_ID, NO_TIMESTAMP};
use crate::compress::Codec;

/// A record's headers: key and value each.
pub type RecordHeader<'a> = (&'a str, Option<&'a [u8]>);

/// A batch in the making.
pub struct Builder {
    header: Header,
    records: Vec<u8>,
    /// The record being built, kept to have its length first.
    record: Vec<u8>,
}

impl Builder {
    /// An empty batch; record timestamps are stored relative to `base_timestamp` (ms).
    pub fn new(base_timestamp: i64) -> Builder {
        let header = Header {
            base_offset: 0,
            batch_length: 0,
            partition_leader_epoch: -1,
            magic: MAGIC,
            crc: 0,
            attributes: 0,
            last_offset_delta: -1,
            base_timestamp,
            max_timestamp: NO_TIMESTAMP,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: -1,
            base_sequence: -1,
            records_count: 0,
        };
        Builder {
            header,
            records: Vec::new(),
            record: Vec::new(),
        }
    }

    /// Sets the idempotent producer's fields (KIP-98).
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Builder {
        self.header.producer_id = id;
        self.header.producer_epoch = epoch;
        self.header.base_sequence = base_sequence;
        self
    }

    /// Sets attribute bits, such as [`super::TRANSACTIONAL`].
    pub fn attributes(mut self, bits: i16) -> Builder {
        self.header.attributes |= bits;
        self
    }

    /// Sets the place in the log.
    pub fn place(mut self, base_offset: i64, partition_leader_epoch: i32) -> Builder {
        self.header.base_offset = base_offset;
        self.header.partition_leader_epoch = partition_leader_epoch;
        self
    }

    /// Adds a record at the next offset; `timestamp` in ms.
    pub fn add(
        &mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[RecordHeader<'_>],
        timestamp: i64,
    ) -> &mut Builder {
        let header = &mut self.header;
        header.last_offset_delta += 1;
        header.records_count += 1;
        header.max_timestamp = header.max_timestamp.max(timestamp);
        let record = &mut self.record;
        record.clear();
        record.push(0);
        put_varlong(record, timestamp.wrapping_sub(header.base_timestamp));
        put_varlong(record, i64::from(header.last_offset_delta));
        put_bytes(record, key);
        put_bytes(record, value);
        put_varlong(record, headers.len() as i64);
        for (name, value) in headers {
            put_bytes(record, Some(name.as_bytes()));
            put_bytes(record, *value);
        }
        put_varlong(&mut self.records, self.record.len() as i64);
        self.records.extend_from_slice(&self.record);
        self
    }

    /// The records added so far, as they are before compression.
    pub fn records(&self) -> &[u8] {
        &self.records
    }

    /// The bytes of the batch, not compressed.
    pub fn build(&self) -> Vec<u8> {
        self.build_from(Codec::None, &self.records)
    }

    /// The bytes of the batch whose records are `body`: [`Builder::records`] as `codec` compressed them.
    pub fn build_from(&self, codec: Codec, body: &[u8]) -> Vec<u8> {
        let mut header = self.header;
        header.attributes |= codec as i16;
        header.batch_length = (HEADER_BYTES - super::LENGTH_STARTS_AT + body.len()) as i32;
        header.crc = super::crc(&header.encode(), body);
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
        bytes.extend_from_slice(&header.encode());
        bytes.extend_from_slice(body);
        bytes
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    put_varlong(out, bytes.map_or(-1, |b| b.len() as i64));
    out.extend_from_slice(bytes.unwrap_or_default());
}

/// Appends a record that was read from a batch, its timestamp delta raised by `shift` (ms): the way to another base
/// timestamp. `None` if `record` does not begin as one does.
pub fn put_shifted(
    out: &mut Vec<u8>,
    record: &[u8],
    timestamp_delta: i64,
    shift: i64,
) -> Option<()> {
    let after_number = |at: usize| {
        let bytes = record.get(at..)?;
        Some(at + 1 + bytes.iter().position(|b| b & 0x80 == 0)?)
    };
    let attributes_at = after_number(0)?;
    let rest = record.get(after_number(attributes_at + 1)?..)?;
    let mut delta = Vec::with_capacity(10);
    put_varlong(&mut delta, timestamp_delta.wrapping_add(shift));
    put_varlong(out, (1 + delta.len() + rest.len()) as i64);
    out.push(*record.get(attributes_at)?);
    out.extend_from_slice(&delta);
    out.extend_from_slice(rest);
    Some(())
}

/// Appends a zigzag number; a varint is the same bytes as the varlong of its value.
fn put_varlong(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
