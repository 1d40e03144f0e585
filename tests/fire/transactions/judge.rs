//! What is wrong with a history: the producers' word against the logs, what `read_committed` consumers get, and the
//! group's offsets.

use super::producer::{Event, Me, Outcome, Producer, Transaction};
use super::requests::{GROUP, SOURCE};
use crate::common::producer::{Batch, Client, batches, bytes_of, sacred};
use crate::common::requests::offset_fetch;
use crate::driver::Place;
use ottla::api::fetch::*;
use ottla::api::offset_fetch::*;
use ottla::batch::HEADER_BYTES;
use ottla::batch::marker::Marker;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Producer and transaction.
pub type Name = (usize, usize);

/// Place, id and epoch, first sequence.
type BatchName = (Place, Me, i32);

/// One partition.
#[derive(Clone)]
pub struct Seen {
    pub place: Place,
    /// All of it.
    pub log: Vec<Batch>,
    /// Where the batches begin that `read_committed` consumers are given.
    pub committed: Vec<i64>,
    pub last_stable: i64,
    pub end: i64,
}

/// All that is judged.
#[derive(Clone)]
pub struct History<'a> {
    pub producers: &'a [Producer<'a>],
    pub events: Vec<Event>,
    pub seen: Vec<Seen>,
    /// The group's offset, by the transactional id's number.
    pub offsets: Vec<i64>,
}

impl Seen {
    /// Reads a partition in both ways; `bytes_max` is how much a fetch asks for.
    pub fn read(client: &mut Client, place: Place, bytes_max: i32) -> Seen {
        let mut log = Vec::new();
        let (mut offset, mut last_stable, mut end) = (0, 0, i64::MAX);
        while offset < end {
            let data = fetch(client, place, offset, 0, bytes_max);
            log.extend(batches(bytes_of(&data.records)));
            offset = log.last().map_or(0, |b: &Batch| b.header.last_offset() + 1);
            (last_stable, end) = (data.last_stable_offset, data.high_watermark);
        }
        Seen {
            place,
            committed: committed(client, place, bytes_max),
            log,
            last_stable,
            end,
        }
    }
}

/// Where the batches begin that a consumer hands on, by what it does with each answer's list of the aborted ones.
fn committed(client: &mut Client, place: Place, bytes_max: i32) -> Vec<i64> {
    let (mut found, mut offset) = (Vec::new(), 0);
    loop {
        let data = fetch(client, place, offset, 1, bytes_max);
        let mut aborted = data.aborted_transactions.expect("read_committed");
        aborted.sort_by_key(|aborted| std::cmp::Reverse(aborted.first_offset));
        let mut dropped = BTreeSet::new();
        let batches = batches(bytes_of(&data.records));
        for batch in &batches {
            let header = &batch.header;
            while let Some(first) = aborted.pop_if(|a| a.first_offset <= header.last_offset()) {
                dropped.insert(first.producer_id);
            }
            match marker(batch) {
                Some(marker) if !marker.commit => drop(dropped.remove(&header.producer_id)),
                None if !dropped.contains(&header.producer_id) => found.push(header.base_offset),
                _ => {}
            }
        }
        let Some(last) = batches.last() else {
            return found;
        };
        offset = last.header.last_offset() + 1;
    }
}

fn fetch(
    client: &mut Client,
    (topic, partition): Place,
    fetch_offset: i64,
    isolation_level: i8,
    bytes_max: i32,
) -> PartitionData {
    let request = FetchRequest {
        max_bytes: bytes_max,
        isolation_level,
        topics: vec![FetchTopic {
            topic: topic.into(),
            partitions: vec![FetchPartition {
                partition,
                fetch_offset,
                partition_max_bytes: bytes_max,
                ..FetchPartition::default()
            }],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    };
    let mut answer: FetchResponse = client.call(12, &request).expect("an answer");
    let data = answer.responses.remove(0).partitions.remove(0);
    assert_eq!(data.error_code, 0, "{topic}-{partition} at {fetch_offset}");
    data
}

/// The group's offsets, of so many ids; those that a transaction still has pending are not to be had.
pub fn offsets(client: &mut Client, ids: usize) -> Option<Vec<i64>> {
    let request = OffsetFetchRequest {
        require_stable: true,
        ..offset_fetch(GROUP, SOURCE, 0..ids as i32)
    };
    let answer: OffsetFetchResponse = client.call(8, &request).expect("an answer");
    let told = answer.groups[0].topics[0].partitions.iter();
    told.map(|told| (told.error_code == 0).then_some(told.committed_offset))
        .collect()
}

/// The marker that a batch is, if it is one.
pub fn marker(batch: &Batch) -> Option<Marker> {
    Marker::read(&batch.header, &batch.bytes[HEADER_BYTES..])
}

/// All that is wrong.
pub fn judge(history: &History<'_>) -> Vec<String> {
    let mut names = HashMap::new();
    for producer in history.producers {
        for (transaction, begun) in producer.transactions.iter().enumerate() {
            for (batch, sent) in begun.batches.iter().enumerate() {
                let name = (sent.place, sent.me, sent.sequence);
                let before = names.insert(name, ((producer.number, transaction), batch));
                assert_eq!(before, None, "a name is given once");
            }
        }
    }
    let mut court = Court {
        producers: history.producers,
        names,
        faults: Vec::new(),
        found: BTreeMap::new(),
    };
    for seen in &history.seen {
        court.judge_partition(seen);
    }
    court.judge_transactions();
    court.judge_offsets(&history.offsets);
    court.judge_fences(&history.events);
    court.faults
}

struct Court<'a> {
    producers: &'a [Producer<'a>],
    /// Which batch of which transaction was sent under a name.
    names: HashMap<BatchName, (Name, usize)>,
    faults: Vec<String>,
    /// The batches that a marker committed.
    found: BTreeMap<Name, BTreeSet<usize>>,
}

impl Court<'_> {
    fn transactions(&self) -> impl Iterator<Item = (Name, &Transaction)> {
        self.producers.iter().flat_map(|producer| {
            let all = producer.transactions.iter().enumerate();
            all.map(|(number, transaction)| ((producer.number, number), transaction))
        })
    }

    fn judge_partition(&mut self, seen: &Seen) {
        let place = seen.place;
        let mut faults = Vec::new();
        let (mut open, mut epochs, mut last) = (HashMap::new(), HashMap::new(), HashMap::new());
        let (mut end, mut committed) = (0, Vec::new());
        for batch in &seen.log {
            let header = &batch.header;
            let (at, me) = (
                header.base_offset,
                (header.producer_id, header.producer_epoch),
            );
            if at != end {
                faults.push(format!("{place:?}: {at} follows {end}"));
            }
            end = header.last_offset() + 1;
            if epochs.insert(me.0, me.1) > Some(me.1) {
                faults.push(format!("{place:?} at {at}: an old epoch"));
            }
            if let Some(marker) = marker(batch) {
                let ended: Vec<(Name, usize, i64)> = open.remove(&me.0).unwrap_or_default();
                if ended.windows(2).any(|two| two[0].0 != two[1].0) {
                    faults.push(format!("{place:?} at {at}: several end as one: {ended:?}"));
                }
                for (name, number, at) in ended.into_iter().filter(|_| marker.commit) {
                    self.found.entry(name).or_default().insert(number);
                    committed.push(at);
                }
                continue;
            }
            let Some(&(name, number)) = self.names.get(&(place, me, header.base_sequence)) else {
                faults.push(format!("{place:?} at {at}: nobody sent {header:?}"));
                continue;
            };
            let sent = &self.producers[name.0].transactions[name.1].batches[number];
            if batch.sacred() != sacred(&sent.bytes) {
                faults.push(format!("{place:?} at {at}: other bytes than were sent"));
            }
            let before = last.insert(name.0, (name.1, number));
            if before >= Some((name.1, number)) {
                faults.push(format!(
                    "{place:?} at {at}: {before:?}, then {name:?} {number}"
                ));
            }
            open.entry(me.0).or_default().push((name, number, at));
        }
        if !open.is_empty() || seen.last_stable != seen.end {
            let (stable, end) = (seen.last_stable, seen.end);
            faults.push(format!(
                "{place:?}: {stable} of {end} is stable; open: {open:?}"
            ));
        }
        committed.sort();
        if committed != seen.committed {
            let differs = |(a, b): &(&i64, &i64)| a != b;
            let first = committed.iter().zip(&seen.committed).find(differs);
            faults.push(format!("{place:?}: consumers are given others: {first:?}"));
        }
        self.faults.extend(faults);
    }

    /// Whether a transaction is wholly there; `None` if only a part of it is.
    fn is_there(&self, name: Name, transaction: &Transaction) -> Option<bool> {
        let found = self.found.get(&name).map_or(0, BTreeSet::len);
        match found == transaction.batches.len() {
            true => Some(true),
            false => (found == 0).then_some(false),
        }
    }

    fn judge_transactions(&mut self) {
        let mut faults = Vec::new();
        for (name, transaction) in self.transactions() {
            let is_there = self.is_there(name, transaction);
            let is_empty = transaction.batches.is_empty();
            let is_right = match transaction.outcome {
                Outcome::Committed => is_there == Some(true),
                Outcome::Aborted => is_there == Some(false) || is_empty,
                Outcome::Either => is_there.is_some(),
            };
            if !is_right {
                let (outcome, count) = (transaction.outcome, transaction.batches.len());
                let found = self.found.get(&name);
                faults.push(format!(
                    "{name:?} is {outcome:?}; of {count} there are {found:?}"
                ));
            }
        }
        self.faults.extend(faults);
    }

    fn judge_offsets(&mut self, offsets: &[i64]) {
        for (id, offset) in offsets.iter().enumerate() {
            let of_id = |(name, transaction): &(Name, &Transaction)| {
                self.producers[name.0].kind.id == id && transaction.has_offset
            };
            let mut all: Vec<(Name, &Transaction)> = self.transactions().filter(of_id).collect();
            all.sort_by_key(|(_, transaction)| transaction.begun);
            let mut may_be = vec![-1];
            for (name, transaction) in all {
                let is_there = match transaction.outcome {
                    Outcome::Committed => Some(true),
                    Outcome::Aborted => Some(false),
                    Outcome::Either if transaction.batches.is_empty() => None,
                    Outcome::Either => self.is_there(name, transaction),
                };
                match is_there {
                    Some(true) => may_be = vec![transaction.begun as i64],
                    Some(false) => {}
                    None => may_be.push(transaction.begun as i64),
                }
            }
            if !may_be.contains(offset) {
                let fault = format!("the offset of {id} is {offset}, not of {may_be:?}");
                self.faults.push(fault);
            }
        }
    }

    /// What was asked after a higher epoch was given out may not succeed.
    fn judge_fences(&mut self, events: &[Event]) {
        let mut fences: BTreeMap<(i64, i16), u64> = BTreeMap::new();
        for event in events.iter().filter(|event| event.is_new) {
            fences.insert(event.me, event.moment);
        }
        for event in events.iter().filter(|event| !event.is_new) {
            let (id, epoch) = event.me;
            let mut later = fences.range((id, epoch + 1)..=(id, i16::MAX));
            if later.any(|(_, fence)| *fence < event.moment) {
                self.faults.push(format!("fenced, and yet: {event:?}"));
            }
        }
    }
}
