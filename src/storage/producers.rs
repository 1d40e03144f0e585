//! What a partition remembers of idempotent producers, so that a retry is never appended twice (KIP-98).
//!
//! Owns: for each producer id its epoch, its last five batches, and where its open transaction begins. Invariants:
//! a batch with sequences is accepted only next in sequence, unless the producer is unknown, begins a new epoch, or
//! lost batches to a recovery gap; a transaction is opened only by a batch whose [`Serial`] is above that of the last
//! marker; what [`Producers::record`] did in one turn, [`Producers::take_back`] undoes exactly.
//!
//! The bound: once `producer.state.max` producers are known over all partitions, a partition that holds more than its
//! fair share, `max / partitions`, forgets its idlest as new ones come, a sixteenth at once; one within its share
//! forgets none. Producers of quiet partitions are not touched (their log's owner is elsewhere, and no clock is to be
//! trusted to call them dead), so all may come to twice the bound, or one of each partition where that is more; an
//! open transaction is never forgotten. A producer that sends nothing for `producer.id.expiration.ms` is forgotten as
//! well, as if it had never been known.
//!
//! State changes at *stage*, so that a retry that arrives in the same turn is already known as a duplicate.

use crate::batch::Header;
use crate::batch::marker::Marker;
use crate::error::ErrorCode;
use crate::txn::Serial;
use std::collections::{BTreeSet, HashMap};
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
    /// The last of its transactions that this process ended here: what comes late of it is refused.
    ended: Option<Serial>,
    /// Broker time at the first look after its last batch or marker, ms.
    seen_ms: Option<i64>,
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
            ended: None,
            seen_ms: None,
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

    /// The batch of the window that is exactly this one.
    fn duplicate(&self, header: &Header) -> Option<Sent> {
        let (first, last) = (header.base_sequence, header.last_sequence());
        let same = |s: &&Sent| s.first_sequence() == first && s.last_sequence == last;
        let known = header.producer_epoch == self.epoch && first >= 0;
        self.sent().iter().find(same).filter(|_| known).copied()
    }

    /// Whether a batch comes next in sequence; one without sequences always does.
    fn check_sequence(&self, header: &Header) -> Result<(), ErrorCode> {
        let first = header.base_sequence;
        let next = match self.sent().last() {
            _ if header.producer_epoch > self.epoch => 0,
            Some(sent) if sent.last_sequence == i32::MAX => 0,
            Some(sent) => sent.last_sequence + 1,
            None => 0,
        };
        let any = self.after_gap && header.producer_epoch == self.epoch;
        match first < 0 || first == next || any {
            true => Ok(()),
            false => Err(ErrorCode::OutOfOrderSequenceNumber),
        }
    }

    /// Takes in a batch of the current epoch that is no marker.
    fn take_in(&mut self, header: &Header, max_timestamp: i64) {
        if header.is_transactional() && self.transaction_start < 0 {
            self.transaction_start = header.base_offset;
        }
        if header.base_sequence >= 0 {
            self.after_gap = false;
            self.push(Sent {
                last_sequence: header.last_sequence(),
                delta: header.last_offset_delta,
                last_offset: header.last_offset(),
                timestamp: max_timestamp,
            });
        }
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

/// A transaction that a marker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Whose it was.
    pub producer_id: i64,
    /// Where it began.
    pub first_offset: i64,
    /// The offset of the marker.
    pub last_offset: i64,
    /// Whether it counts.
    pub commit: bool,
    /// Where the first transaction begins that is still open, or what lies behind the marker.
    pub last_stable: i64,
}

/// The producers of one partition.
pub struct Producers {
    known: HashMap<i64, Producer>,
    /// Where open transactions begin, and whose they are.
    open: BTreeSet<(i64, i64)>,
    /// The newest transaction of a producer that was forgotten: it counts as ended by all that are unknown.
    forgotten: Option<Serial>,
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
            open: BTreeSet::new(),
            forgotten: None,
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

    /// Where the first open transaction begins.
    pub fn first_open(&self) -> Option<i64> {
        self.open.first().map(|&(first_offset, _)| first_offset)
    }

    /// The open transactions: producer id, epoch and first offset, in the order in which they began.
    pub fn open(&self) -> impl Iterator<Item = (i64, i16, i64)> {
        let known = |&(first, id): &(i64, i64)| Some((id, self.known.get(&id)?.epoch, first));
        self.open.iter().filter_map(known)
    }

    /// Judges a batch that is to be appended; changes nothing. Rules and codes as in Kafka's `ProducerAppendInfo` and
    /// `UnifiedLog`. `marker` is what the batch says if it ends the transaction `transaction`, which it is part of
    /// otherwise.
    pub fn check(
        &self,
        header: &Header,
        marker: Option<Marker>,
        transaction: Option<Serial>,
    ) -> Result<Verdict, ErrorCode> {
        let known = self.known.get(&header.producer_id);
        if known.is_some_and(|known| header.producer_epoch < known.epoch) {
            return Err(ErrorCode::InvalidProducerEpoch);
        }
        if header.is_control() {
            // What is open must end: the coordinator's epoch begins anew with its log, and operators may say any.
            let fences = |known: &Producer, marker: Marker| {
                known.transaction_start < 0 && marker.coordinator_epoch < known.coordinator_epoch
            };
            return match known.zip(marker) {
                Some((known, marker)) if fences(known, marker) => {
                    Err(ErrorCode::TransactionCoordinatorFenced)
                }
                _ => Ok(Verdict::Next),
            };
        }
        let duplicate = known.and_then(|known| known.duplicate(header));
        if let Some(sent) = duplicate {
            return Ok(Verdict::Duplicate(sent));
        }
        let is_open = known.is_some_and(|known| known.transaction_start >= 0);
        let ended = known.map_or(self.forgotten, |known| known.ended);
        let may_begin = match transaction {
            Some(serial) => ended.is_none_or(|ended| serial > ended),
            None => is_open,
        };
        if header.is_transactional() && !may_begin {
            return Err(ErrorCode::InvalidTxnState);
        }
        known.map_or(Ok(()), |known| known.check_sequence(header))?;
        match is_open && !header.is_transactional() {
            true => Err(ErrorCode::InvalidTxnState),
            false => Ok(Verdict::Next),
        }
    }

    /// Takes in a batch that passed [`Producers::check`], its offsets assigned; remembers how to undo it.
    pub fn record(
        &mut self,
        header: &Header,
        max_timestamp: i64,
        marker: Option<Marker>,
        transaction: Option<Serial>,
    ) -> Option<Ended> {
        let id = header.producer_id;
        if id < 0 {
            return None;
        }
        self.undo.push((id, self.known.get(&id).cloned()));
        let ended = self.replay(header, max_timestamp, marker);
        if let Some(producer) = self.known.get_mut(&id).filter(|_| marker.is_some()) {
            producer.ended = producer.ended.max(transaction);
        }
        ended
    }

    /// Takes in a batch that is in the log already; gives the transaction that it ends, if it does.
    pub fn replay(
        &mut self,
        header: &Header,
        max_timestamp: i64,
        marker: Option<Marker>,
    ) -> Option<Ended> {
        let id = header.producer_id;
        // A control batch that is no marker, as compaction leaves one, says nothing.
        if id < 0 || header.is_control() && marker.is_none() {
            return None;
        }
        let known = self.known.get(&id).cloned();
        let mut producer = known.unwrap_or_else(|| Producer::new(header.producer_epoch));
        producer.begin_epoch(header.producer_epoch);
        producer.timestamp = max_timestamp;
        producer.last_offset = header.last_offset();
        producer.seen_ms = None;
        let first_offset = producer.transaction_start;
        match marker {
            Some(marker) => {
                producer.coordinator_epoch = marker.coordinator_epoch;
                producer.transaction_start = -1;
            }
            None => producer.take_in(header, max_timestamp),
        }
        self.put(id, Some(producer));
        let marker = marker.filter(|_| first_offset >= 0)?;
        let last_offset = header.last_offset();
        Some(Ended {
            producer_id: id,
            first_offset,
            last_offset,
            commit: marker.commit,
            last_stable: self.first_open().unwrap_or(last_offset + 1),
        })
    }

    /// Puts a producer's state as a snapshot tells it.
    pub fn restore(&mut self, id: i64, producer: Producer) {
        self.put(id, Some(producer));
    }

    /// Sets what is known of a producer, and what follows from that.
    fn put(&mut self, id: i64, producer: Option<Producer>) {
        let begins = |producer: &Producer| Some(producer.transaction_start).filter(|&at| at >= 0);
        let after = producer.as_ref().and_then(begins);
        let before = match producer {
            Some(producer) => self.known.insert(id, producer),
            None => self.known.remove(&id),
        };
        match (before.is_some(), self.known.contains_key(&id)) {
            (false, true) => drop(self.limit.used.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(self.limit.used.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
        let before = before.as_ref().and_then(begins);
        if before != after {
            before.map(|first| self.open.remove(&(first, id)));
            after.map(|first| self.open.insert((first, id)));
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
            self.put(id, before);
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

    /// Forgets the producers of which nothing came for `expiration_ms` of broker time, as far as this and earlier looks
    /// can tell, so never too early; an open transaction is never forgotten. Gives how many.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) -> usize {
        let mut idle = Vec::new();
        for (&id, producer) in &mut self.known {
            let since = *producer.seen_ms.get_or_insert(now_ms);
            if producer.transaction_start < 0 && now_ms.saturating_sub(since) >= expiration_ms {
                idle.push(id);
            }
        }
        idle.iter().for_each(|&id| self.forget(id));
        idle.len()
    }

    fn forget(&mut self, id: i64) {
        let ended = self.known.get(&id).and_then(|producer| producer.ended);
        self.forgotten = self.forgotten.max(ended);
        self.put(id, None);
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
        idle.iter().for_each(|&(_, id)| self.forget(id));
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
