//! The check of what a producer sent for one partition, on its connection's thread.
//!
//! Owns: the rules of Kafka's `ProduceRequest.validateRecords`, `UnifiedLog.analyzeAndValidateRecords` and
//! `LogValidator`, in their order and with their error codes, and three that Kafka leaves out: offset deltas that do
//! not run 0, 1, 2, ... (Kafka rewrites such a batch, or stores it so), bytes after the batch (Kafka cuts them off),
//! and a batch that claims to be LogAppendTime (Kafka clears the bit).
//!
//! | what | answer |
//! |---|---|
//! | no whole batch, or magic 0 or 1; bytes after the batch; base offset not 0 | INVALID_RECORD |
//! | a length or magic that no batch has | CORRUPT_MESSAGE |
//! | unknown codec, or zstd before Produce v7 | UNSUPPORTED_COMPRESSION_TYPE |
//! | longer than `max.message.bytes` | MESSAGE_TOO_LARGE |
//! | shorter than a header; wrong CRC | CORRUPT_MESSAGE |
//! | count, offset range, control bit, sequence | INVALID_RECORD |
//! | records that do not inflate, parse or add up; too large a window | INVALID_RECORD |
//! | no key on a compacted topic | INVALID_RECORD, per record |
//! | timestamp out of range, or LogAppendTime claimed | INVALID_TIMESTAMP, per record |
//!
//! Records that do not inflate get UNKNOWN_SERVER_ERROR from Kafka; with a right CRC it is the producer that wrote
//! them so, hence the code for that, which no client retries, and not CORRUPT_MESSAGE, which all do.
//!
//! The stored bytes are the sent bytes (promise P3); only on a LogAppendTime topic is the head changed.

use super::records::{Walk, timestamp};
use super::{HEADER_BYTES, Header, LENGTH_STARTS_AT, LOG_APPEND_TIME, MAGIC, NO_TIMESTAMP};
use crate::compress::{Codec, Decoders, Failure, Source};
use crate::error::ErrorCode;
use crate::wire::frame::FrameSlice;

/// Kafka's least length of any format's batch: what is less is no length.
const BATCH_LENGTH_MIN: i32 = 14;

/// The bytes up to and with the magic, which are the same in all formats.
const BYTES_TO_MAGIC: usize = 17;

/// A refusal lists at most so many records; clients show but a few.
const RECORD_ERRORS_MAX: usize = 100;

/// The topic's and the request's part of the check.
#[derive(Clone, Debug)]
pub struct Rules {
    /// `max.message.bytes`: the longest batch, in bytes, header included.
    pub message_bytes_max: i32,
    /// The wall clock in ms where `message.timestamp.type` is LogAppendTime.
    pub append_time: Option<i64>,
    /// Whether the topic is compacted: then each record has a key.
    pub keys_required: bool,
    /// The wall clock in ms, which create times are compared with.
    pub now_ms: i64,
    /// `message.timestamp.before.max.ms`; `i64::MAX` is no limit.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`; `i64::MAX` is no limit (set so while the wall clock is not to be trusted).
    pub timestamp_after_max_ms: i64,
    /// Whether the request's version may carry zstd (Produce v7, KIP-110).
    pub zstd_allowed: bool,
}

/// A batch that may be stored: all that the writer and the log need to know of it.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The header to be stored, but for base offset and leader epoch, which the log sets.
    pub head: [u8; HEADER_BYTES],
    /// The records, as sent.
    pub body: FrameSlice,
    /// The fields of `head`.
    pub header: Header,
    /// The largest timestamp of the records in ms, computed; -1 if none has one.
    pub max_timestamp: i64,
    /// The offset delta of the first record with that timestamp; 0 if none has one.
    pub max_timestamp_offset_delta: i32,
}

impl Checked {
    /// A batch of the broker's own making, as [`super::builder`] built it.
    pub fn own(batch: Vec<u8>) -> Checked {
        let bytes = FrameSlice::from(batch);
        let head = *bytes
            .first_chunk()
            // cannot fail: the builder begins with the header.
            .expect("a batch that was built has a header");
        let header = Header::parse(&head);
        Checked {
            head,
            body: bytes.slice(HEADER_BYTES..bytes.len()),
            header,
            max_timestamp: header.max_timestamp,
            max_timestamp_offset_delta: header.last_offset_delta,
        }
    }

    /// The length of the whole batch.
    pub fn total_bytes(&self) -> usize {
        HEADER_BYTES + self.body.len()
    }

    /// The append time in ms, where the broker set it; else -1, as in a produce response.
    pub fn log_append_time(&self) -> i64 {
        match self.header.is_log_append_time() {
            true => self.header.max_timestamp,
            false => NO_TIMESTAMP,
        }
    }
}

/// Why a batch is not stored, as the producer is told (Produce v8+, KIP-467).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The partition's error code.
    pub code: ErrorCode,
    /// The partition's error message.
    pub message: String,
    /// The records that caused it, where single ones did.
    pub record_errors: Vec<RecordError>,
}

/// A record that caused a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordError {
    /// The record's place in its batch, from 0.
    pub index: i32,
    /// What is wrong with it.
    pub message: Option<String>,
}

impl Refusal {
    fn new(code: ErrorCode, message: impl Into<String>) -> Refusal {
        Refusal {
            code,
            message: message.into(),
            record_errors: Vec::new(),
        }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Refusal {
        let code = match failure {
            Failure::Unsupported(_) => ErrorCode::UnsupportedCompressionType,
            Failure::Window { .. } | Failure::Malformed(_) => ErrorCode::InvalidRecord,
            // A code on which clients try again, elsewhere or later.
            Failure::Closed => ErrorCode::NotLeaderOrFollower,
        };
        Refusal::new(code, failure.to_string())
    }
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(ErrorCode::InvalidRecord, message)
}

fn corrupt(message: impl Into<String>) -> Refusal {
    Refusal::new(ErrorCode::CorruptMessage, message)
}

/// Checks all that a producer sent for one partition, which must be one batch.
pub fn check(records: &FrameSlice, rules: &Rules, decoders: &Decoders) -> Result<Checked, Refusal> {
    let header = check_extent(records)?;
    check_codec(&header, rules)?;
    if header.total_bytes() < records.len() {
        return Err(invalid("more than one record batch for a partition"));
    }
    if header.base_offset != 0 {
        return Err(invalid(format!(
            "the base offset should be 0, but is {}",
            header.base_offset
        )));
    }
    if header.total_bytes() as u64 > u64::try_from(rules.message_bytes_max).unwrap_or(0) {
        return Err(Refusal::new(
            ErrorCode::MessageTooLarge,
            format!(
                "the record batch has {} bytes, and max.message.bytes is {}",
                header.total_bytes(),
                rules.message_bytes_max
            ),
        ));
    }
    let head = *records
        .first_chunk()
        .ok_or_else(|| corrupt("the record batch is shorter than its header"))?;
    let body = &records[HEADER_BYTES..];
    let crc = super::crc(&head, body);
    if crc != header.crc {
        return Err(corrupt(format!(
            "the record batch's CRC is {crc:#010x}, and it states {:#010x}",
            header.crc
        )));
    }
    check_header(&header)?;
    let times = check_records(&header, body, rules, decoders)?;
    let mut checked = Checked {
        head,
        body: records.slice(HEADER_BYTES..records.len()),
        header,
        max_timestamp: times.max,
        max_timestamp_offset_delta: times.max_offset_delta,
    };
    if let Some(now_ms) = rules.append_time {
        checked.set_append_time(now_ms);
    }
    Ok(checked)
}

/// Finds the first batch's extent, as Kafka does before it looks at anything else: the fields are safe to use
/// only if this passes. A header that is cut short is filled up with zeros.
fn check_extent(records: &[u8]) -> Result<Header, Refusal> {
    let none = || invalid("the request has no whole record batch for a partition");
    let mut head = [0; HEADER_BYTES];
    let available = records.len().min(HEADER_BYTES);
    head[..available].copy_from_slice(&records[..available]);
    let header = Header::parse(&head);
    if available < LENGTH_STARTS_AT {
        return Err(none());
    }
    if header.batch_length < BATCH_LENGTH_MIN {
        return Err(corrupt(format!(
            "a record batch cannot have length {}",
            header.batch_length
        )));
    }
    if available < BYTES_TO_MAGIC {
        return Err(none());
    }
    match header.magic {
        MAGIC | 0 | 1 if header.total_bytes() > records.len() => Err(none()),
        MAGIC => Ok(header),
        0 | 1 => Err(invalid("only record batches with magic 2 are accepted")),
        other => Err(corrupt(format!("a record batch cannot have magic {other}"))),
    }
}

fn check_codec(header: &Header, rules: &Rules) -> Result<(), Refusal> {
    let message = match header.codec() {
        Ok(Codec::Zstd) if !rules.zstd_allowed => "zstd needs Produce version 7".to_string(),
        Ok(_) => return Ok(()),
        Err(id) => format!("there is no compression codec {id}"),
    };
    let code = ErrorCode::UnsupportedCompressionType;
    Err(Refusal::new(code, message))
}

fn check_header(header: &Header) -> Result<(), Refusal> {
    let count = i64::from(header.records_count);
    let range = i64::from(header.last_offset_delta) + 1;
    if range <= 0 || count <= 0 || range != count {
        return Err(invalid(format!(
            "the record batch has {count} records and an offset range of {range}"
        )));
    }
    if header.is_control() {
        return Err(invalid("clients may not write control records"));
    }
    if header.has_producer_id() && header.base_sequence < 0 {
        return Err(invalid(format!(
            "the record batch has producer id {} and the sequence {}",
            header.producer_id, header.base_sequence
        )));
    }
    if header.is_log_append_time() {
        let message = "a producer may not set the timestamp type LogAppendTime";
        return Err(Refusal {
            record_errors: vec![RecordError {
                index: 0,
                message: Some(message.into()),
            }],
            ..Refusal::new(ErrorCode::InvalidTimestamp, message)
        });
    }
    Ok(())
}

/// What the records say of their times.
struct Times {
    max: i64,
    max_offset_delta: i32,
}

fn check_records(
    header: &Header,
    body: &[u8],
    rules: &Rules,
    decoders: &Decoders,
) -> Result<Times, Refusal> {
    match header.codec() {
        Ok(Codec::None) => walk(header, body, rules),
        Ok(codec) => walk(header, decoders.open(codec, body)?, rules),
        Err(id) => Err(invalid(format!("there is no compression codec {id}"))),
    }
}

fn walk<S: Source>(header: &Header, source: S, rules: &Rules) -> Result<Times, Refusal> {
    let mut times = Times {
        max: NO_TIMESTAMP,
        max_offset_delta: 0,
    };
    let mut refused: Option<Refusal> = None;
    let mut walk = Walk::new(source, header.records_count);
    let mut index = 0;
    while let Some(record) = walk.next_record()? {
        if record.offset_delta != index {
            return Err(invalid(format!(
                "record {index} has the offset delta {}",
                record.offset_delta
            )));
        }
        let timestamp = timestamp(header, &record);
        if timestamp > times.max {
            times.max = timestamp;
            times.max_offset_delta = index;
        }
        let key_missing = rules.keys_required && record.key.is_none();
        if key_missing || !rules.timestamp_in_range(timestamp) {
            let refusal = refused.get_or_insert_with(|| {
                invalid("one or more records were rejected; see the record errors")
            });
            refusal.add(index, key_missing.then_some(()).ok_or(timestamp), rules);
        }
        index += 1;
    }
    refused.map_or(Ok(times), Err)
}

impl Refusal {
    /// Adds a record that has no key, or a timestamp out of range.
    #[cold]
    fn add(&mut self, index: i32, what: Result<(), i64>, rules: &Rules) {
        let message = match what {
            Ok(()) => "a record of a compacted topic needs a key".to_string(),
            Err(timestamp) => {
                self.code = ErrorCode::InvalidTimestamp;
                self.message = "one or more records have a timestamp out of range".into();
                format!(
                    "the timestamp {timestamp} is not within [{}, {}]",
                    rules.now_ms.saturating_sub(rules.timestamp_before_max_ms),
                    rules.now_ms.saturating_add(rules.timestamp_after_max_ms)
                )
            }
        };
        if self.record_errors.len() < RECORD_ERRORS_MAX {
            let message = Some(message);
            self.record_errors.push(RecordError { index, message });
        }
    }
}

impl Rules {
    fn timestamp_in_range(&self, timestamp: i64) -> bool {
        self.append_time.is_some()
            || timestamp == NO_TIMESTAMP
            || (self.now_ms.saturating_sub(timestamp) <= self.timestamp_before_max_ms
                && timestamp.saturating_sub(self.now_ms) <= self.timestamp_after_max_ms)
    }
}

impl Checked {
    /// Makes the batch one of LogAppendTime. The base timestamp stays (KAFKA-5353). The new CRC needs no second look
    /// at the records: CRCs are linear, so it differs from the old by what the two heads' differ, moved over the body.
    fn set_append_time(&mut self, now_ms: i64) {
        let old = super::crc_of_head(&self.head);
        self.header.attributes |= LOG_APPEND_TIME;
        self.header.max_timestamp = now_ms;
        let new = super::crc_of_head(&self.header.encode());
        self.header.crc ^= crc32c::crc32c_combine(old ^ new, 0, self.body.len());
        self.head = self.header.encode();
        self.max_timestamp = now_ms;
        self.max_timestamp_offset_delta = 0;
    }
}

#[cfg(all(test, feature = "snappy", feature = "zstd"))]
#[path = "check_tests.rs"]
mod tests;
