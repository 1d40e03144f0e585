//! Kafka's record batch, format v2: the unit of network, validation, append, index, fetch and compression.
//!
//! Owns: the header's picture, its parse, encode and patch, and the checks that need no look at the records. All
//! numbers are big-endian.
//!
//! ```text
//!   byte  0        8       12     16 17   21          23         27          35          43     51      53       57
//!         | base   | batch | leader|m| CRC | attributes | last    | base      | max       | prod- | prod- | base  | records|
//!         | offset | length| epoch | |     |            | offset  | timestamp | timestamp | ucer  | ucer  | sequ- | count  | records ...
//!         | i64    | i32   | i32   |2| u32 | i16        | delta   | i64 ms    | i64 ms    | id    | epoch | ence  | i32    |
//!         |        |       |       | |     |            | i32     |           |           | i64   | i16   | i32   |        |
//!         |<- outside the CRC ------------>|<- CRC-32C covers all of this, to the end of the batch -------------------------->|
//!                          |<- batch length counts from here to the end of the batch --------------------------------------->|
//!
//!   attributes   bits 0-2 codec (0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd) | 3 timestamp type (0 create, 1 log append)
//!                | 4 transactional | 5 control | 6 delete horizon (base timestamp is one; the cleaner's mark) | rest unused
//!
//!   a record     length varint | attributes i8 = 0 | timestamp delta varlong | offset delta varint
//!                | key length varint, key | value length varint, value | headers count varint, headers ...
//!   a header     key length varint, key (UTF-8) | value length varint, value
//! ```
//!
//! `varint` and `varlong` are zigzag, seven bits a byte, least significant group first; a length of -1 is null. The
//! records of a compressed batch are one stream of its codec. Source: Kafka's message format page and KIP-98.
//!
//! Invariant (promise P3): what a producer sent is stored as sent, but for base offset and leader epoch, which lie
//! outside the CRC for that very purpose, and for what LogAppendTime changes ([`check`]).

pub mod builder;
pub mod check;
pub mod marker;
pub mod records;

use crate::compress::Codec;

/// The bytes of a batch before its records.
pub const HEADER_BYTES: usize = 61;

/// The bytes before those that `batch_length` counts.
pub const LENGTH_STARTS_AT: usize = 12;

/// The fewest bytes that a record takes: each of its seven fields in one byte.
pub const RECORD_BYTES_MIN: usize = 7;

/// The producer id of a batch that has none.
pub const NO_PRODUCER_ID: i64 = -1;

/// The timestamp of a record or batch that has none, in ms.
pub const NO_TIMESTAMP: i64 = -1;

/// The only format that is stored.
pub const MAGIC: i8 = 2;

/// Where each field lies in a header.
mod at {
    pub const BASE_OFFSET: usize = 0;
    pub const BATCH_LENGTH: usize = BASE_OFFSET + 8;
    pub const LEADER_EPOCH: usize = BATCH_LENGTH + 4;
    pub const MAGIC: usize = LEADER_EPOCH + 4;
    pub const CRC: usize = MAGIC + 1;
    pub const ATTRIBUTES: usize = CRC + 4;
    pub const LAST_OFFSET_DELTA: usize = ATTRIBUTES + 2;
    pub const BASE_TIMESTAMP: usize = LAST_OFFSET_DELTA + 4;
    pub const MAX_TIMESTAMP: usize = BASE_TIMESTAMP + 8;
    pub const PRODUCER_ID: usize = MAX_TIMESTAMP + 8;
    pub const PRODUCER_EPOCH: usize = PRODUCER_ID + 8;
    pub const BASE_SEQUENCE: usize = PRODUCER_EPOCH + 2;
    pub const RECORDS_COUNT: usize = BASE_SEQUENCE + 4;
}

// The numbers of the picture above, against the sizes of the fields.
const _: () = assert!(at::LEADER_EPOCH == LENGTH_STARTS_AT && at::MAGIC == 16 && at::CRC == 17);
const _: () = assert!(at::ATTRIBUTES == 21 && at::BASE_TIMESTAMP == 27 && at::MAX_TIMESTAMP == 35);
const _: () = assert!(at::PRODUCER_ID == 43 && at::BASE_SEQUENCE == 53 && at::RECORDS_COUNT == 57);
const _: () = assert!(at::RECORDS_COUNT + 4 == HEADER_BYTES);

const CODEC_MASK: i16 = 0b111;
/// Attribute bit: the batch's max timestamp is the broker's time of the append, and every record's timestamp.
pub const LOG_APPEND_TIME: i16 = 1 << 3;
/// Attribute bit: the batch is part of a transaction.
pub const TRANSACTIONAL: i16 = 1 << 4;
/// Attribute bit: the batch holds one control record (a transaction's marker).
pub const CONTROL: i16 = 1 << 5;
/// Attribute bit: the base timestamp is the broker time from which on the cleaner may drop the batch's tombstones or
/// its marker (KIP-534); the records' timestamps stay relative to it.
pub const DELETE_HORIZON: i16 = 1 << 6;

/// A batch's first 61 bytes; the picture is in the module's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Header {
    pub base_offset: i64,
    pub batch_length: i32,
    pub partition_leader_epoch: i32,
    pub magic: i8,
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub records_count: i32,
}

/// Why stored bytes are not a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// The bytes end before the batch does: fewer than a header, or than the header states.
    Short,
    /// A length that no batch has.
    Length,
    /// Another format than v2.
    Magic,
    /// A CRC that the bytes do not have.
    Crc,
    /// Offsets and counts that contradict each other.
    Counts,
}

impl Header {
    /// Reads the fields, whatever they are.
    pub fn parse(head: &[u8; HEADER_BYTES]) -> Header {
        Header {
            base_offset: i64::from_be_bytes(field(head, at::BASE_OFFSET)),
            batch_length: i32::from_be_bytes(field(head, at::BATCH_LENGTH)),
            partition_leader_epoch: i32::from_be_bytes(field(head, at::LEADER_EPOCH)),
            magic: i8::from_be_bytes(field(head, at::MAGIC)),
            crc: u32::from_be_bytes(field(head, at::CRC)),
            attributes: i16::from_be_bytes(field(head, at::ATTRIBUTES)),
            last_offset_delta: i32::from_be_bytes(field(head, at::LAST_OFFSET_DELTA)),
            base_timestamp: i64::from_be_bytes(field(head, at::BASE_TIMESTAMP)),
            max_timestamp: i64::from_be_bytes(field(head, at::MAX_TIMESTAMP)),
            producer_id: i64::from_be_bytes(field(head, at::PRODUCER_ID)),
            producer_epoch: i16::from_be_bytes(field(head, at::PRODUCER_EPOCH)),
            base_sequence: i32::from_be_bytes(field(head, at::BASE_SEQUENCE)),
            records_count: i32::from_be_bytes(field(head, at::RECORDS_COUNT)),
        }
    }

    /// The 61 bytes of these fields, the CRC as it stands in `self`.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut head = [0; HEADER_BYTES];
        put(&mut head, at::BASE_OFFSET, self.base_offset.to_be_bytes());
        put(&mut head, at::BATCH_LENGTH, self.batch_length.to_be_bytes());
        put(
            &mut head,
            at::LEADER_EPOCH,
            self.partition_leader_epoch.to_be_bytes(),
        );
        put(&mut head, at::MAGIC, self.magic.to_be_bytes());
        put(&mut head, at::CRC, self.crc.to_be_bytes());
        put(&mut head, at::ATTRIBUTES, self.attributes.to_be_bytes());
        put(
            &mut head,
            at::LAST_OFFSET_DELTA,
            self.last_offset_delta.to_be_bytes(),
        );
        put(
            &mut head,
            at::BASE_TIMESTAMP,
            self.base_timestamp.to_be_bytes(),
        );
        put(
            &mut head,
            at::MAX_TIMESTAMP,
            self.max_timestamp.to_be_bytes(),
        );
        put(&mut head, at::PRODUCER_ID, self.producer_id.to_be_bytes());
        put(
            &mut head,
            at::PRODUCER_EPOCH,
            self.producer_epoch.to_be_bytes(),
        );
        put(
            &mut head,
            at::BASE_SEQUENCE,
            self.base_sequence.to_be_bytes(),
        );
        put(
            &mut head,
            at::RECORDS_COUNT,
            self.records_count.to_be_bytes(),
        );
        head
    }

    /// The bytes of the whole batch, header included; 0 if the length is negative (see [`Header::check`]).
    pub fn total_bytes(&self) -> usize {
        usize::try_from(self.batch_length).map_or(0, |l| l.saturating_add(LENGTH_STARTS_AT))
    }

    /// The bytes after the header; 0 if the length is less than a header's.
    pub fn body_bytes(&self) -> usize {
        self.total_bytes().saturating_sub(HEADER_BYTES)
    }

    /// The offset of the last record, or of the last that there was before compaction.
    pub fn last_offset(&self) -> i64 {
        self.base_offset
            .saturating_add(i64::from(self.last_offset_delta))
    }

    /// The sequence of the last record; sequences wrap from `i32::MAX` to 0. -1 if the batch has none.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return self.base_sequence;
        }
        let last = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        (last & i64::from(i32::MAX)) as i32
    }

    /// How the records are compressed, or the id that no codec has.
    pub fn codec(&self) -> Result<Codec, u8> {
        let id = (self.attributes & CODEC_MASK) as u8;
        Codec::from_id(id).ok_or(id)
    }

    /// Whether max timestamp is the broker's and counts for every record.
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME != 0
    }

    /// Whether the batch is part of a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Whether the batch is a transaction's marker.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// The broker time (ms) from which on the cleaner may drop the batch's tombstones or its marker, once it was set.
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        (self.attributes & DELETE_HORIZON != 0).then_some(self.base_timestamp)
    }

    /// Whether the batch carries a producer's id, epoch and sequence (KIP-98).
    pub fn has_producer_id(&self) -> bool {
        self.producer_id > NO_PRODUCER_ID
    }

    /// Whether the fields can be those of a stored batch. Compaction leaves fewer records than offsets, and
    /// headers without records: both are legal here, though not from a producer.
    pub fn check(&self) -> Result<(), Bad> {
        if self.magic != MAGIC {
            return Err(Bad::Magic);
        }
        if self.total_bytes() < HEADER_BYTES {
            return Err(Bad::Length);
        }
        let offsets = i64::from(self.last_offset_delta) + 1;
        let count = i64::from(self.records_count);
        let fits = self.codec() != Ok(Codec::None)
            || count * RECORD_BYTES_MIN as i64 <= self.body_bytes() as i64;
        let ordered = self.base_offset >= 0
            && self.last_offset_delta >= 0
            && i64::MAX - self.base_offset > i64::from(self.last_offset_delta);
        if ordered && fits && (0..=offsets).contains(&count) {
            Ok(())
        } else {
            Err(Bad::Counts)
        }
    }
}

/// Checks the batch that `bytes` begin with, all but its records: format, length, counts and CRC.
pub fn check_stored(bytes: &[u8]) -> Result<Header, Bad> {
    let head = bytes.first_chunk().ok_or(Bad::Short)?;
    let header = Header::parse(head);
    header.check()?;
    let body = bytes
        .get(HEADER_BYTES..header.total_bytes())
        .ok_or(Bad::Short)?;
    if crc(head, body) == header.crc {
        Ok(header)
    } else {
        Err(Bad::Crc)
    }
}

/// The CRC-32C that a batch of this header and these records must state.
pub fn crc(head: &[u8; HEADER_BYTES], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc_of_head(head), body)
}

/// The CRC-32C so far after the header, to be continued over the records with `crc32c_append`.
pub fn crc_of_head(head: &[u8; HEADER_BYTES]) -> u32 {
    crc32c::crc32c(&head[at::ATTRIBUTES..])
}

/// Gives a batch its place in the log: the two fields outside the CRC (promise P3).
pub fn set_place(head: &mut [u8; HEADER_BYTES], base_offset: i64, partition_leader_epoch: i32) {
    put(head, at::BASE_OFFSET, base_offset.to_be_bytes());
    put(head, at::LEADER_EPOCH, partition_leader_epoch.to_be_bytes());
}

/// The `N` bytes at `from`, both constants of the table [`at`].
fn field<const N: usize>(head: &[u8; HEADER_BYTES], from: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&head[from..from + N]);
    bytes
}

fn put<const N: usize>(head: &mut [u8; HEADER_BYTES], from: usize, bytes: [u8; N]) {
    head[from..from + N].copy_from_slice(&bytes);
}

#[cfg(test)]
mod tests {
    use super::builder::Builder;
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Vec<u8> {
        let mut builder = Builder::new(1_700_000_000_000);
        builder.add(
            Some(b"key"),
            Some(b"value"),
            &[("h", Some(b"x"))],
            1_700_000_000_005,
        );
        builder.add(None, Some(b"second"), &[], 1_700_000_000_001);
        builder.build()
    }

    #[test]
    fn sequences_wrap_at_the_largest_i32() {
        let mut header = check_stored(&sample()).unwrap();
        header.base_sequence = i32::MAX;
        header.last_offset_delta = 1;
        assert_eq!(header.last_sequence(), 0);
        header.last_offset_delta = 0;
        assert_eq!(header.last_sequence(), i32::MAX);
        header.base_sequence = -1;
        assert_eq!(header.last_sequence(), -1);
    }

    #[test]
    fn compaction_leaves_gaps_and_empty_headers() {
        let header = check_stored(&sample()).unwrap();
        let gap = Header {
            last_offset_delta: 9,
            ..header
        };
        assert_eq!(gap.check(), Ok(()));
        let empty = Header {
            records_count: 0,
            batch_length: 49,
            ..header
        };
        assert_eq!(empty.check(), Ok(()));
        let more = Header {
            last_offset_delta: 0,
            ..header
        };
        assert_eq!(more.check(), Err(Bad::Counts));
    }

    #[test]
    fn a_place_in_the_log_leaves_the_crc_valid() {
        let mut bytes = sample();
        set_place(bytes.first_chunk_mut().unwrap(), 77, 5);
        let header = check_stored(&bytes).unwrap();
        assert_eq!((header.base_offset, header.last_offset()), (77, 78));
        assert_eq!(header.partition_leader_epoch, 5);
    }

    #[test]
    fn every_flipped_byte_is_found() {
        let good = sample();
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 0x41;
            let outside_crc = at < at::BATCH_LENGTH || (at::LEADER_EPOCH..at::MAGIC).contains(&at);
            assert_eq!(check_stored(&bytes).is_ok(), outside_crc, "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn parse_and_encode_are_inverse(head: [u8; HEADER_BYTES]) {
            prop_assert_eq!(Header::parse(&head).encode(), head);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = check_stored(&bytes);
            if let Some(head) = bytes.first_chunk() {
                let header = Header::parse(head);
                let _ = (header.last_sequence(), header.last_offset(), header.codec());
            }
        }
    }
}
