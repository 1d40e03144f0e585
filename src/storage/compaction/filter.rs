//! What stays of a batch. The rules are Kafka's, and the table is all of them:
//!
//! | what | stays |
//! |---|---|
//! | a record beyond the map | yes |
//! | a record without a key | no |
//! | a record whose key has a newer one in the map | no |
//! | a tombstone, once its batch's delete horizon has passed | no |
//! | any other record | yes |
//! | a batch of an aborted transaction | no record of it |
//! | a marker with a batch of its transaction before it in the log | yes |
//! | any other marker | until its delete horizon has passed |
//! | a batch of which nothing stays, if it is its producer's last, or must end its segment | its header |
//!
//! A horizon is set on the first pass that sees a tombstone covered by the map, or a marker with nothing before it.
//! Kafka sets it also where the map does not reach, before it or behind it; then a reader could see a key's value and
//! never its deletion, or the value come back where a pass is wrong about what earlier ones covered (P9).

use super::map::OffsetMap;
use super::reader::Batch;
use super::{Aborted, RECORDS_BYTES_MAX, Source};
use crate::batch::builder::put_shifted;
use crate::batch::marker::Marker;
use crate::batch::records::{Record, Walk, timestamp};
use crate::batch::{
    CONTROL, DELETE_HORIZON, HEADER_BYTES, Header, LENGTH_STARTS_AT, LOG_APPEND_TIME, NO_TIMESTAMP,
    TRANSACTIONAL, crc,
};
use crate::compress::{Codec, Decoders, Failure, encode};
use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// What becomes of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing of it stays.
    Drop,
    /// It stays byte for byte; its largest timestamp, ms.
    Whole(i64),
    /// What [`Filter::rewritten`] holds takes its place.
    Rewritten,
}

/// Which transactions the pass is in the middle of.
#[derive(Default)]
pub struct Transactions {
    /// Those that were aborted, by producer, as far as the segment that is read goes.
    aborted: HashMap<i64, Vec<Aborted>>,
    /// The producers of which a transactional batch came since their last marker.
    observed: HashSet<i64>,
}

impl Transactions {
    /// The pass goes on in a range of offsets that these aborted transactions have a part in.
    pub fn enter(&mut self, aborted: Vec<Aborted>) {
        self.aborted.clear();
        for transaction in aborted {
            let of_producer = self.aborted.entry(transaction.producer_id).or_default();
            of_producer.push(transaction);
        }
    }

    fn aborted(&self, header: &Header) -> Option<&Aborted> {
        let holds = |t: &&Aborted| {
            t.first_offset <= header.base_offset && header.last_offset() <= t.last_offset
        };
        self.aborted.get(&header.producer_id)?.iter().find(holds)
    }

    /// Whether a batch with records was aborted.
    pub fn is_aborted(&self, header: &Header) -> bool {
        header.is_transactional() && self.aborted(header).is_some()
    }
}

/// The records of a batch as they are before compression; nothing if they are more than [`RECORDS_BYTES_MAX`].
pub fn records<'b>(
    decoders: &Decoders,
    header: &Header,
    body: &'b [u8],
    inflated: &'b mut Vec<u8>,
) -> Result<Option<&'b [u8]>, Failure> {
    let codec = header.codec();
    let codec = codec.map_err(|_| Failure::Malformed("the batch has an unknown codec"))?;
    // A batch without records is a bare header, whatever its codec.
    if codec == Codec::None || body.is_empty() {
        return Ok(Some(body));
    }
    inflated.clear();
    let fits = decoders.inflate(codec, body, inflated, RECORDS_BYTES_MAX)?;
    Ok(fits.then_some(inflated.as_slice()))
}

/// The records that stay of one batch.
#[derive(Default)]
struct Kept {
    /// Their bytes, before compression.
    bytes: Vec<u8>,
    count: i32,
    /// Whether one of them is a tombstone.
    tombstones: bool,
    /// Their largest timestamp, ms.
    max_timestamp: i64,
}

/// Judges a log's batches, in order.
pub struct Filter<'a> {
    source: &'a Source<'a>,
    map: OffsetMap,
    /// The offsets of which the map knows all keys.
    mapped: Range<i64>,
    /// The transactions that the pass is in the middle of.
    pub transactions: Transactions,
    /// The aborted transactions whose markers stayed.
    pub aborted: Vec<Aborted>,
    /// A batch was copied whole that may hold what a tombstone deletes.
    tombstones_stay: bool,
    inflated: Vec<u8>,
    kept: Kept,
    /// The batch that takes the place of one that is [`Fate::Rewritten`].
    pub rewritten: Vec<u8>,
    /// Its fields.
    pub rewritten_header: Header,
    /// The records that were looked at, and those that stayed.
    pub counts: [u64; 2],
}

impl<'a> Filter<'a> {
    /// A filter that knows of each key's newest offset in `mapped`.
    pub fn new(source: &'a Source<'a>, map: OffsetMap, mapped: Range<i64>) -> Filter<'a> {
        Filter {
            source,
            map,
            mapped,
            transactions: Transactions::default(),
            aborted: Vec::new(),
            tombstones_stay: false,
            inflated: Vec::new(),
            kept: Kept::default(),
            rewritten: Vec::new(),
            rewritten_header: Header::parse(&[0; HEADER_BYTES]),
            counts: [0; 2],
        }
    }

    /// What becomes of a batch. `ends_segment`: its last offset must stay. A rewritten batch that would be longer
    /// than `room` bytes stays whole instead.
    pub fn judge(
        &mut self,
        batch: &Batch<'_>,
        ends_segment: bool,
        room: usize,
    ) -> Result<Fate, Failure> {
        let header = &batch.header;
        let body = batch.bytes.map(|bytes| &bytes[HEADER_BYTES..]);
        let fate = match header.is_control() {
            true => self.judge_marker(header, body.unwrap_or_default())?,
            false => self.judge_data(header, body, room)?,
        };
        if fate != Fate::Drop || !(ends_segment || self.is_last_of_producer(header)) {
            return Ok(fate);
        }
        if header.records_count == 0 {
            return Ok(Fate::Whole(NO_TIMESTAMP));
        }
        let empty = Header {
            attributes: header.attributes & (LOG_APPEND_TIME | TRANSACTIONAL | CONTROL),
            base_timestamp: NO_TIMESTAMP,
            records_count: 0,
            ..*header
        };
        self.assemble(empty, &[]);
        Ok(Fate::Rewritten)
    }

    fn is_last_of_producer(&self, header: &Header) -> bool {
        if !header.has_producer_id() {
            return false;
        }
        let last = (self.source.last_of_producer)(header.producer_id);
        last.is_some_and(|last| match last.last_data_offset {
            Some(offset) => header.last_offset() == offset,
            None => header.is_control() && header.producer_epoch == last.epoch,
        })
    }

    fn judge_marker(&mut self, header: &Header, body: &[u8]) -> Result<Fate, Failure> {
        if header.records_count == 0 {
            return Ok(Fate::Drop);
        }
        // A marker of a kind that is not known stays for ever, as in Kafka.
        let needed = Marker::read(header, body).is_none()
            || self.transactions.observed.remove(&header.producer_id);
        if needed {
            let ended = self.transactions.aborted(header);
            let ended = ended.filter(|t| t.last_offset == header.last_offset());
            self.aborted.extend(ended.copied());
            return Ok(Fate::Whole(header.max_timestamp));
        }
        match header.delete_horizon_ms() {
            Some(horizon) if horizon <= self.source.now_ms => Ok(Fate::Drop),
            Some(_) => Ok(Fate::Whole(header.max_timestamp)),
            None => {
                self.kept.bytes.clear();
                self.kept.bytes.extend_from_slice(body);
                self.kept.count = header.records_count;
                self.kept.max_timestamp = header.max_timestamp;
                self.rewrite(header, true)?;
                Ok(Fate::Rewritten)
            }
        }
    }

    fn judge_data(
        &mut self,
        header: &Header,
        body: Option<&[u8]>,
        room: usize,
    ) -> Result<Fate, Failure> {
        if header.is_transactional() {
            self.transactions.observed.insert(header.producer_id);
            if self.transactions.is_aborted(header) {
                return Ok(Fate::Drop);
            }
        }
        let mut inflated = std::mem::take(&mut self.inflated);
        let records = match body {
            Some(body) => records(self.source.decoders, header, body, &mut inflated)?,
            None => None,
        };
        let Some(records) = records else {
            self.tombstones_stay = true;
            return Ok(Fate::Whole(header.max_timestamp));
        };
        let max_timestamp = self.select(header, records)?;
        if inflated.capacity() <= super::reader::CHUNK_BYTES * 4 {
            self.inflated = inflated;
        }
        if self.kept.count == 0 {
            return Ok(Fate::Drop);
        }
        let sets_horizon = self.kept.tombstones
            && header.delete_horizon_ms().is_none()
            && self.mapped.contains(&header.last_offset());
        if self.kept.count == header.records_count && !sets_horizon {
            return Ok(Fate::Whole(max_timestamp));
        }
        self.rewrite(header, sets_horizon)?;
        if self.rewritten.len() > room {
            self.tombstones_stay = true;
            return Ok(Fate::Whole(max_timestamp));
        }
        Ok(Fate::Rewritten)
    }

    /// Gathers the records that stay; gives the largest timestamp (ms) of all.
    fn select(&mut self, header: &Header, records: &[u8]) -> Result<i64, Failure> {
        let kept = &mut self.kept;
        kept.bytes.clear();
        (kept.count, kept.tombstones) = (0, false);
        kept.max_timestamp = NO_TIMESTAMP;
        let horizon_passed = header
            .delete_horizon_ms()
            .is_some_and(|horizon| horizon <= self.source.now_ms && !self.tombstones_stay);
        let mut max_timestamp = NO_TIMESTAMP;
        let mut walk = Walk::new(records, header.records_count);
        let mut from = 0;
        while let Some(record) = walk.next_record()? {
            let bytes = &records[from..walk.position()];
            from = walk.position();
            self.counts[0] += 1;
            let timestamp = timestamp(header, &record);
            max_timestamp = max_timestamp.max(timestamp);
            let kept = &mut self.kept;
            if stays(
                &self.map,
                self.mapped.end,
                header,
                &record,
                records,
                horizon_passed,
            ) {
                self.counts[1] += 1;
                kept.bytes.extend_from_slice(bytes);
                kept.count += 1;
                kept.tombstones |= record.value.is_none();
                kept.max_timestamp = kept.max_timestamp.max(timestamp);
            }
        }
        Ok(max_timestamp)
    }

    /// Makes the batch that has the kept records only, and a delete horizon if `sets_horizon`.
    fn rewrite(&mut self, header: &Header, sets_horizon: bool) -> Result<(), Failure> {
        let mut new = Header {
            records_count: self.kept.count,
            ..*header
        };
        if !header.is_log_append_time() {
            new.max_timestamp = self.kept.max_timestamp;
        }
        let mut records = std::mem::take(&mut self.kept.bytes);
        if sets_horizon {
            new.attributes |= DELETE_HORIZON;
            let horizon = self
                .source
                .now_ms
                .checked_add(self.source.delete_retention_ms);
            new.base_timestamp = horizon.unwrap_or(i64::MAX);
            let shift = header.base_timestamp.wrapping_sub(new.base_timestamp);
            records = shifted(&records, new.records_count, shift)?;
        }
        // cannot be unknown: the batch was opened, or is a marker, which is not compressed.
        let codec = new.codec().unwrap_or(Codec::None);
        let mut body = Vec::new();
        encode::encode(codec, &records, &mut body)?;
        self.assemble(new, &body);
        self.kept.bytes = records;
        if self.kept.bytes.capacity() > super::reader::CHUNK_BYTES * 4 {
            self.kept.bytes = Vec::new();
        }
        Ok(())
    }

    fn assemble(&mut self, mut header: Header, body: &[u8]) {
        header.batch_length = (HEADER_BYTES - LENGTH_STARTS_AT + body.len()) as i32;
        header.crc = crc(&header.encode(), body);
        self.rewritten.clear();
        self.rewritten.extend_from_slice(&header.encode());
        self.rewritten.extend_from_slice(body);
        self.rewritten_header = header;
    }
}

fn stays(
    map: &OffsetMap,
    covered: i64,
    header: &Header,
    record: &Record,
    records: &[u8],
    horizon_passed: bool,
) -> bool {
    let offset = header
        .base_offset
        .saturating_add(i64::from(record.offset_delta));
    if offset >= covered {
        return true;
    }
    let Some(key) = &record.key else {
        return false;
    };
    let is_newest = map
        .get(&records[key.clone()])
        .is_none_or(|newest| offset >= newest);
    is_newest && (record.value.is_some() || !horizon_passed)
}

/// The records with their timestamp deltas raised by `shift` (ms).
fn shifted(records: &[u8], count: i32, shift: i64) -> Result<Vec<u8>, Failure> {
    let mut out = Vec::with_capacity(records.len() + records.len() / 8);
    let mut walk = Walk::new(records, count);
    let mut from = 0;
    while let Some(record) = walk.next_record()? {
        let bytes = &records[from..walk.position()];
        from = walk.position();
        put_shifted(&mut out, bytes, record.timestamp_delta, shift)
            .ok_or(Failure::Malformed("a record is cut short"))?;
    }
    Ok(out)
}
