//! Transactions through compaction: what `read_committed` consumers rebuild, what groups committed, and what the
//! coordinators know, while all of their logs are compacted and the broker is killed.

use crate::common::client::{self, Client, FETCH};
use crate::common::keyed::{self, Change, Map};
use crate::common::producer::{Batch, batches, bytes_of};
use crate::common::requests;
use crate::common::{self, Broker};
use ottla::api::end_txn::*;
use ottla::api::fetch::{FetchResponse, PartitionData};
use ottla::api::find_coordinator::*;
use ottla::api::init_producer_id::*;
use ottla::api::offset_commit::*;
use ottla::api::offset_fetch::*;
use ottla::api::produce::ProduceResponse;
use ottla::api::txn_offset_commit::*;
use ottla::batch::marker::Marker;
use ottla::batch::{HEADER_BYTES, TRANSACTIONAL};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

const BROKER: [&str; 4] = [
    "log.cleaner.backoff.ms=1",
    "log.cleaner.min.cleanable.ratio=0.01",
    "offsets.topic.segment.bytes=3000",
    "transaction.state.log.segment.bytes=3000",
];
const TOPIC: [(&str, &str); 3] = [
    ("cleanup.policy", "compact"),
    ("segment.bytes", "2000"),
    ("delete.retention.ms", "50"),
];
const TIME_MS: i64 = 1_700_000_000_000;
const CONCURRENT_TRANSACTIONS: i16 = 51;

/// Each ends with a kill of the broker or its stop.
const ROUNDS: usize = 6;

/// A producer and its open transaction.
struct Producer {
    name: String,
    me: (i64, i16),
    next_sequence: i32,
    /// What it wrote in its transaction, by offset.
    pending: BTreeMap<i64, Change>,
    /// The offset that its transaction commits for its group.
    offset: Option<i64>,
}

impl Producer {
    fn new(client: &mut Client, name: String) -> Producer {
        let request = InitProducerIdRequest {
            transactional_id: Some(name.clone()),
            transaction_timeout_ms: 600_000,
            ..InitProducerIdRequest::default()
        };
        let answer: InitProducerIdResponse = client.call(5, &request);
        assert_eq!(answer.error_code, 0);
        Producer {
            name,
            me: (answer.producer_id, answer.producer_epoch),
            next_sequence: 0,
            pending: BTreeMap::new(),
            offset: None,
        }
    }

    fn write(&mut self, client: &mut Client, change: Change) {
        let mut builder = ottla::batch::builder::Builder::new(TIME_MS)
            .producer(self.me.0, self.me.1, self.next_sequence)
            .attributes(TRANSACTIONAL);
        let value = change.value.as_deref().map(str::as_bytes);
        let batch = builder
            .add(Some(change.key.as_bytes()), value, &[], TIME_MS)
            .build();
        let mut request = client::produce("t", -1, &batch);
        request.transactional_id = Some(self.name.clone());
        let answer = loop {
            let mut answer: ProduceResponse = client.call(12, &request);
            let answer = answer.responses.remove(0).partition_responses.remove(0);
            if answer.error_code != CONCURRENT_TRANSACTIONS {
                break answer;
            }
        };
        assert_eq!(answer.error_code, 0, "{answer:?}");
        self.next_sequence += 1;
        self.pending.insert(answer.base_offset, change);
    }

    fn commit_offset(&mut self, client: &mut Client, offset: i64) {
        let request = TxnOffsetCommitRequest {
            transactional_id: self.name.clone(),
            group_id: self.name.clone(),
            producer_id: self.me.0,
            producer_epoch: self.me.1,
            topics: vec![TxnOffsetCommitRequestTopic {
                name: "t".into(),
                partitions: vec![TxnOffsetCommitRequestPartition {
                    committed_offset: offset,
                    ..TxnOffsetCommitRequestPartition::default()
                }],
            }],
            ..TxnOffsetCommitRequest::default()
        };
        let code = loop {
            let answer: TxnOffsetCommitResponse = client.call(5, &request);
            let code = answer.topics[0].partitions[0].error_code;
            if code != CONCURRENT_TRANSACTIONS {
                break code;
            }
        };
        assert_eq!(code, 0);
        self.offset = Some(offset);
    }

    fn end(&mut self, client: &mut Client, committed: bool) {
        let request = EndTxnRequest {
            transactional_id: self.name.clone(),
            producer_id: self.me.0,
            producer_epoch: self.me.1,
            committed,
        };
        let answer: EndTxnResponse = client.call(5, &request);
        assert_eq!(answer.error_code, 0);
        self.me = (answer.producer_id, answer.producer_epoch);
        self.next_sequence = 0;
    }
}

/// What a broker was told, and must tell.
struct World {
    rng: StdRng,
    producers: Vec<Producer>,
    /// The changes that count, by offset.
    committed: BTreeMap<i64, Change>,
    /// Of each group, the offset in partition 0 of `t`.
    offsets: BTreeMap<String, i64>,
}

impl World {
    fn change(&mut self) -> Change {
        let is_tombstone = self.rng.random_ratio(1, 5);
        Change {
            key: format!("key {}", self.rng.random_range(0..12)),
            value: (!is_tombstone).then(|| format!("{}", self.rng.random::<u64>())),
        }
    }

    fn step(&mut self, client: &mut Client) {
        let which = self.rng.random_range(0..self.producers.len());
        let change = self.change();
        let offset = self.rng.random_range(0..1_000_000);
        match self.rng.random_range(0..10) {
            0..2 => {
                let batch = keyed::batch(None, TIME_MS, std::slice::from_ref(&change));
                self.committed.insert(client.store("t", &batch), change);
            }
            2 => commit(client, &mut self.offsets, offset),
            3 => self.producers[which].commit_offset(client, offset),
            4..8 => self.producers[which].write(client, change),
            _ => {
                let committed = self.rng.random();
                let producer = &mut self.producers[which];
                let pending = std::mem::take(&mut producer.pending);
                let offset = producer.offset.take();
                if pending.is_empty() && offset.is_none() {
                    return;
                }
                producer.end(client, committed);
                if committed {
                    self.committed.extend(pending);
                    self.offsets
                        .extend(offset.map(|o| (producer.name.clone(), o)));
                }
            }
        }
    }

    /// What a `read_committed` consumer rebuilds is what was committed before the first open transaction.
    fn check(&self, client: &mut Client) {
        let first_open = self
            .producers
            .iter()
            .filter_map(|p| p.pending.keys().next());
        let last_stable = first_open.min().copied();
        let (map, end) = read_committed(client, last_stable);
        let counts = self.committed.range(..end).map(|(_, change)| change);
        assert_eq!(map, keyed::sum(counts), "up to {end}");
        let began = Instant::now();
        for (group, offset) in &self.offsets {
            // An end is answered before its markers are written.
            while committed_offset(client, group) != *offset {
                assert!(
                    began.elapsed() < Duration::from_secs(30),
                    "{group}, {offset}"
                );
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

fn commit(client: &mut Client, offsets: &mut BTreeMap<String, i64>, offset: i64) {
    let group = format!("plain {}", offset % 3);
    let request = requests::offset_commit(&group, "t", offset);
    let answer: OffsetCommitResponse = client.call(9, &request);
    assert_eq!(answer.topics[0].partitions[0].error_code, 0);
    offsets.insert(group, offset);
}

/// A group's offset, as of the transactions whose markers are written.
fn committed_offset(client: &mut Client, group: &str) -> i64 {
    let request = requests::offset_fetch(group, "t", 0..1);
    let answer: OffsetFetchResponse = client.call(8, &request);
    answer.groups[0].topics[0].partitions[0].committed_offset
}

/// Reads as clients do: by the list of aborted transactions and the markers. Waits until the last stable offset is
/// where it will be: at `last_stable`, or at the end.
fn read_committed(client: &mut Client, last_stable: Option<i64>) -> (Map, i64) {
    let mut changes = Vec::new();
    let mut next = 0;
    loop {
        let mut request = client::fetch("t", next, 0, 0);
        request.isolation_level = 1;
        let mut answer: FetchResponse = client.call(FETCH, &request);
        let data = answer.responses.remove(0).partitions.remove(0);
        assert_eq!(data.error_code, 0);
        let all = batches(bytes_of(&data.records));
        next = all.last().map_or(next, |b| b.header.last_offset() + 1);
        for batch in counting(&data) {
            changes.extend(keyed::changes(&batch));
        }
        let end = last_stable.unwrap_or(data.high_watermark);
        assert!(data.last_stable_offset <= end, "{last_stable:?} {data:?}");
        if data.last_stable_offset == end && all.is_empty() {
            return (keyed::sum(&changes), end);
        }
    }
}

/// The batches of a response that count, told as clients tell them (Kafka's `CompletedFetch`).
fn counting(data: &PartitionData) -> Vec<Batch> {
    let mut listed: Vec<_> = data.aborted_transactions.iter().flatten().collect();
    listed.sort_by_key(|transaction| -transaction.first_offset);
    let mut aborted = BTreeSet::new();
    let mut counting = batches(bytes_of(&data.records));
    counting.retain(|batch| {
        let header = &batch.header;
        while let Some(first) = listed.last()
            && first.first_offset <= header.last_offset()
        {
            aborted.insert(first.producer_id);
            listed.pop();
        }
        if !header.is_control() {
            return !(header.is_transactional() && aborted.contains(&header.producer_id));
        }
        let marker = Marker::read(header, &batch.bytes[HEADER_BYTES..]);
        if marker.is_some_and(|marker| !marker.commit) {
            aborted.remove(&header.producer_id);
        }
        true
    });
    counting
}

#[test]
fn transactions_outlive_the_compaction_of_all_their_logs() {
    let data = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(data.path(), &BROKER);
    let mut client = Client::connect(&broker.address);
    client.create("t", &TOPIC);
    let request = FindCoordinatorRequest {
        coordinator_keys: vec!["any".into()],
        ..FindCoordinatorRequest::default()
    };
    let found: FindCoordinatorResponse = client.call(4, &request);
    assert_eq!(found.coordinators[0].error_code, 0);
    let names = (0..4).map(|n| format!("producer {n}"));
    let mut world = World {
        rng: StdRng::seed_from_u64(common::seed("compacted transactions")),
        producers: names.map(|name| Producer::new(&mut client, name)).collect(),
        committed: BTreeMap::new(),
        offsets: BTreeMap::new(),
    };
    let mut compacted = BTreeSet::new();
    for round in 0.. {
        // Compaction gives way to producers, on a busy machine for longer.
        if round >= ROUNDS && (compacted.len() == 3 || round == 20 * ROUNDS) {
            break;
        }
        for _ in 0..8 {
            (0..30).for_each(|_| world.step(&mut client));
            world.check(&mut client);
        }
        let log = broker.log();
        for partition in ["t-0", "__consumer_offsets-0", "__transaction_state-0"] {
            if log.contains(&format!("{partition}: compacted up to")) {
                compacted.insert(partition);
            }
        }
        match round % 2 {
            0 => broker.kill(),
            _ => assert!(broker.stop().success()),
        }
        if round % 3 == 2 {
            forget(data.path());
        }
        broker = Broker::start(data.path(), &BROKER);
        client = Client::connect(&broker.address);
        world.check(&mut client);
    }
    assert_eq!(compacted.len(), 3, "only {compacted:?} were compacted");
}

/// Loses what a start could go by instead of the batches.
fn forget(data: &Path) {
    let hints = ["snapshot", "txnindex", "index", "timeindex"];
    for dir in fs::read_dir(data).unwrap() {
        let path = dir.unwrap().path();
        if path.ends_with("recovery-point-offset-checkpoint") {
            fs::remove_file(&path).unwrap();
        }
        let Ok(names) = fs::read_dir(&path) else {
            continue;
        };
        for name in names {
            let path = name.unwrap().path();
            if path
                .extension()
                .is_some_and(|e| hints.iter().any(|hint| e == *hint))
            {
                fs::remove_file(path).unwrap();
            }
        }
    }
}
