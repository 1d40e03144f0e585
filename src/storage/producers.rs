//! What a partition remembers of idempotent producers, so that a retry is never appended twice (KIP-98).
//!
//! Owns: for each producer id its epoch and its last five batches. Invariants: a batch with sequences is accepted
//! only next in sequence, unless the producer is unknown, begins a new epoch, or lost batches to a recovery gap;
//! what [`Producers::record`] did in one turn, [`Producers::take_back`] undoes exactly.
//!
//! The bound: once `producer.state.max` producers are known over all partitions, a partition that holds more than its
//! fair share, `max / partitions`, forgets its idlest as new ones come, a sixteenth at once; one within its share
//! forgets none. Producers of quiet partitions are not touched (their log's owner is elsewhere, and no clock is to be
//! trusted to call them dead), so all may come to twice the bound, or one of each partition where that is more; an
//! open transaction is never forgotten.
//!
//! State changes at *stage*, so that a retry that arrives in the same turn is already known as a duplicate.

use crate::batch::Header;
use crate::error::ErrorCode;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Kafka's window: clients send at most five batches without waiting (`max.in.flight.requests.per.connection`).
pub const WINDOW: usize = 5;

/// One of a producer's last batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// The sequence of its last record.
    pub last_sequence: i32,
    /// Its records less one.
    pub delta: i32,
    /// The offset of its last record.
    pub last_offset: i64,
    /// Its largest timestamp, ms.
    pub timestamp: i64,
}

impl Sent {
    /// The sequence of its first record; sequences wrap from `i32::MAX` to 0.
    pub fn first_sequence(&self) -> i32 {
        let first = i64::from(self.last_sequence) - i64::from(self.delta);
        (if first < 0 { first + (1 << 31) } else { first }) as i32
    }

    /// The offset of its first record.
    pub fn base_offset(&self) -> i64 {
        self.last_offset.saturating_sub(i64::from(self.delta))
    }
}

/// What is known of one producer in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    /// The newest epoch seen.
    pub epoch: i16,
    /// The epoch of the coordinator that wrote the last transaction marker, -1 for none.
    pub coordinator_epoch: i32,
    /// Where its open transaction begins, -1 for none.
    pub transaction_start: i64,
    /// The timestamp of its last batch or marker, ms.
    pub timestamp: i64,
    /// The offset of its last batch or marker: by this the idlest is found, whatever the clock does.
    pub last_offset: i64,
    /// Batches of it may lie in a recovery gap: any next sequence is right.
    pub after_gap: bool,
    sent: [Sent; WINDOW],
    sent_len: u8,
}

impl Producer {
    /// A producer of which nothing but the epoch is known.
    pub fn new(epoch: i16) -> Producer {
        Producer {
            epoch,
            coordinator_epoch: -1,
            transaction_start: -1,
            timestamp: -1,
            last_offset: -1,
            after_gap: false,
            sent: [Sent::default(); WINDOW],
            sent_len: 0,
        }
    }

    /// Its last batches of this epoch, oldest first.
    pub fn sent(&self) -> &[Sent] {
        &self.sent[..usize::from(self.sent_len)]
    }

    /// Adds a batch of the current epoch to the window.
    pub fn push(&mut self, sent: Sent) {
        if usize::from(self.sent_len) == WINDOW {
            self.sent.rotate_left(1);
            self.sent_len -= 1;
        }
        self.sent[usize::from(self.sent_len)] = sent;
        self.sent_len += 1;
        self.timestamp = sent.timestamp;
        self.last_offset = sent.last_offset;
    }

    fn begin_epoch(&mut self, epoch: i16) {
        if epoch != self.epoch {
            self.epoch = epoch;
            self.sent_len = 0;
            self.after_gap = false;
        }
    }
}

/// What others may know of a producer that wrote to a partition (KIP-664).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveProducer {
    /// Its id.
    pub id: i64,
    /// The newest epoch seen.
    pub epoch: i16,
    /// The sequence of its last record, -1 if none is known of this epoch.
    pub last_sequence: i32,
    /// The timestamp of its last batch or marker, ms.
    pub last_timestamp: i64,
    /// The epoch of the coordinator that wrote the last transaction marker, -1 for none.
    pub coordinator_epoch: i32,
    /// Where its open transaction begins, -1 for none.
    pub transaction_start: i64,
}

/// What a batch's sequences say about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is new.
    Next,
    /// It was appended before, as this.
    Duplicate(Sent),
}

/// The producers of one partition.
pub struct Producers {
    known: HashMap<i64, Producer>,
    limit: Arc<Limit>,
    /// What this turn's batches replaced, oldest first.
    undo: Vec<(i64, Option<Producer>)>,
}

/// The bound that all partitions share.
pub struct Limit {
    max: usize,
    used: AtomicUsize,
    partitions: AtomicUsize,
    evicted: AtomicU64,
}

impl Limit {
    /// At most `max` producers over all partitions (`producer.state.max`).
    pub fn new(max: usize) -> Limit {
        Limit {
            max,
            used: AtomicUsize::new(0),
            partitions: AtomicUsize::new(0),
            evicted: AtomicU64::new(0),
        }
    }

    /// The producers known now, over all partitions.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// What each partition may hold once the bound is reached.
    fn share(&self) -> usize {
        let partitions = self.partitions.load(Ordering::Relaxed).max(1);
        (self.max / partitions).max(1)
    }

    /// The producers evicted so far.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }
}

impl Producers {
    /// No producers, under the shared bound.
    pub fn new(limit: Arc<Limit>) -> Producers {
        limit.partitions.fetch_add(1, Ordering::Relaxed);
        Producers {
            known: HashMap::new(),
            limit,
            undo: Vec::new(),
        }
    }

    /// What is known of a producer.
    pub fn get(&self, id: i64) -> Option<&Producer> {
        self.known.get(&id)
    }

    /// All producers, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &Producer)> {
        self.known.iter().map(|(&id, producer)| (id, producer))
    }

    /// All producers, by id, for people to look at.
    pub fn active(&self) -> Vec<ActiveProducer> {
        let active = |(id, producer): (i64, &Producer)| ActiveProducer {
            id,
            epoch: producer.epoch,
            last_sequence: producer.sent().last().map_or(-1, |sent| sent.last_sequence),
            last_timestamp: producer.timestamp,
            coordinator_epoch: producer.coordinator_epoch,
            transaction_start: producer.transaction_start,
        };
        let mut all: Vec<ActiveProducer> = self.iter().map(active).collect();
        all.sort_unstable_by_key(|producer| producer.id);
        all
    }

    /// How many producers are known.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether no producer is known.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Judges a batch that is to be appended; changes nothing. Rules and codes as in Kafka's `ProducerAppendInfo`.
    pub fn check(&self, header: &Header) -> Result<Verdict, ErrorCode> {
        let Some(known) = self.known.get(&header.producer_id) else {
            return Ok(Verdict::Next);
        };
        if header.producer_epoch < known.epoch {
            return Err(ErrorCode::InvalidProducerEpoch);
        }
        if header.is_control() || header.base_sequence < 0 {
            return Ok(Verdict::Next);
        }
        let first = header.base_sequence;
        if header.producer_epoch > known.epoch {
            return match first {
                0 => Ok(Verdict::Next),
                _ => Err(ErrorCode::OutOfOrderSequenceNumber),
            };
        }
        let last = header.last_sequence();
        let same = |s: &&Sent| s.first_sequence() == first && s.last_sequence == last;
        if let Some(&sent) = known.sent().iter().find(same) {
            return Ok(Verdict::Duplicate(sent));
        }
        let next = match known.sent().last() {
            Some(sent) if sent.last_sequence == i32::MAX => 0,
            Some(sent) => sent.last_sequence + 1,
            None => 0,
        };
        if first == next || known.after_gap {
            Ok(Verdict::Next)
        } else {
            Err(ErrorCode::OutOfOrderSequenceNumber)
        }
    }

    /// Takes in a batch that passed [`Producers::check`], its offsets assigned; remembers how to undo it.
    pub fn record(&mut self, header: &Header, max_timestamp: i64) {
        if header.producer_id >= 0 {
            let before = self.known.get(&header.producer_id).cloned();
            self.undo.push((header.producer_id, before));
            self.replay(header, max_timestamp);
        }
    }

    /// Takes in a batch that is in the log already.
    pub fn replay(&mut self, header: &Header, max_timestamp: i64) {
        if header.producer_id < 0 {
            return;
        }
        let producer = match self.known.entry(header.producer_id) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                self.limit.used.fetch_add(1, Ordering::Relaxed);
                entry.insert(Producer::new(header.producer_epoch))
            }
        };
        producer.begin_epoch(header.producer_epoch);
        producer.timestamp = max_timestamp;
        producer.last_offset = header.last_offset();
        if header.is_control() {
            producer.transaction_start = -1;
            return;
        }
        if header.is_transactional() && producer.transaction_start < 0 {
            producer.transaction_start = header.base_offset;
        }
        if header.base_sequence >= 0 {
            producer.after_gap = false;
            producer.push(Sent {
                last_sequence: header.last_sequence(),
                delta: header.last_offset_delta,
                last_offset: header.last_offset(),
                timestamp: max_timestamp,
            });
        }
    }

    /// Puts a producer's state as a snapshot tells it.
    pub fn restore(&mut self, id: i64, producer: Producer) {
        if self.known.insert(id, producer).is_none() {
            self.limit.used.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lets every known producer go on with any sequence: batches of it may lie in a gap behind its last one.
    pub fn open_gap(&mut self) {
        for producer in self.known.values_mut() {
            producer.after_gap = true;
        }
    }

    /// Undoes all of [`Producers::record`] since the last [`Producers::settle`].
    pub fn take_back(&mut self) {
        while let Some((id, before)) = self.undo.pop() {
            match before {
                Some(producer) => {
                    self.known.insert(id, producer);
                }
                None => {
                    self.known.remove(&id);
                    self.limit.used.fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// The turn's batches are written: there is nothing to undo any more, and the bound is kept.
    pub fn settle(&mut self, partition: &dyn Display) {
        let new = self.undo.iter().filter(|(_, before)| before.is_none());
        let new = new.count();
        self.undo.clear();
        if self.limit.used() > self.limit.max && self.known.len() > self.limit.share() {
            self.evict(new, partition);
        }
    }

    /// Forgets as many of the idlest producers as are new. A sixteenth at least, so that the search for them is paid
    /// once for many; an open transaction is never forgotten, nor is the producer that wrote last.
    fn evict(&mut self, new: usize, partition: &dyn Display) {
        let count = new.max(self.known.len() / 16).min(self.known.len() - 1);
        let newest = self.known.values().map(|p| p.last_offset).max();
        let mut idle: Vec<(i64, i64)> = self
            .iter()
            .filter(|(_, p)| p.transaction_start < 0 && Some(p.last_offset) != newest)
            .map(|(id, p)| (p.last_offset, id))
            .collect();
        if idle.len() > count {
            idle.select_nth_unstable(count);
            idle.truncate(count);
        }
        for (_, id) in &idle {
            self.known.remove(id);
        }
        self.limit.used.fetch_sub(idle.len(), Ordering::Relaxed);
        let evicted = idle.len() as u64;
        let before = self.limit.evicted.fetch_add(evicted, Ordering::Relaxed);
        let level = match before {
            0 => log::Level::Warn,
            _ => log::Level::Debug,
        };
        log::log!(
            level,
            "{partition}: forgot the {evicted} idlest producers, since producer.state.max={} is reached; more such \
             will not be warned of",
            self.limit.max
        );
    }
}

impl Drop for Producers {
    fn drop(&mut self) {
        self.limit.partitions.fetch_sub(1, Ordering::Relaxed);
        self.limit
            .used
            .fetch_sub(self.known.len(), Ordering::Relaxed);
    }
}
