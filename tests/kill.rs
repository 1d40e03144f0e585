//! `kill -9` under load, fifty rounds on one data directory: every acked record is there, once, in order, and
//! nothing torn is visible.
//!
//! Eight producers send with `acks=all`, half of them idempotent, half of them five requests deep, to partitions
//! with small segments. After each kill they send what was not answered again, with the same sequences. A batch is
//! known by its bytes: what is read must be what was sent, and what was read once must never change.

mod common;

use common::Broker;
use common::producer::{Batch, Client, batch, batches, bytes_of, sacred};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const ROUNDS: usize = 50;
const PRODUCERS: usize = 8;
const DEPTH: usize = 5;
/// Topic, partitions, `segment.bytes`.
const TOPICS: [(&str, i32, &str); 3] = [
    ("wide", 4, "150000"),
    ("small", 1, "40000"),
    ("big", 1, "1073741824"),
];
const QUIET: [(&str, &str); 1] = [("RUST_LOG", "warn")];

/// One batch that was sent.
struct Sent {
    place: (&'static str, i32),
    bytes: Vec<u8>,
    /// The base offset that was acked.
    acked: Option<i64>,
}

/// One producer, over all rounds.
struct Producer {
    number: usize,
    idempotent: bool,
    depth: usize,
    id: Option<i64>,
    sequences: HashMap<(&'static str, i32), i32>,
    /// Every batch, by its number, which its records' values tell.
    sent: Vec<Sent>,
    unanswered: VecDeque<usize>,
    rng: StdRng,
}

impl Producer {
    fn new(number: usize, seed: u64) -> Producer {
        Producer {
            number,
            idempotent: number.is_multiple_of(2),
            depth: if number % 4 < 2 { DEPTH } else { 1 },
            id: None,
            sequences: HashMap::new(),
            sent: Vec::new(),
            unanswered: VecDeque::new(),
            rng: StdRng::seed_from_u64(seed ^ ((number as u64 + 1) << 32)),
        }
    }

    /// Sends until the broker dies, or until told to stop and all is answered.
    fn run(&mut self, address: &str, stop: &AtomicBool) -> io::Result<()> {
        let mut client = Client::connect(address)?;
        if self.idempotent && self.id.is_none() {
            self.id = Some(client.producer_id()?);
        }
        for number in self.unanswered.clone() {
            self.send(&mut client, number)?;
        }
        loop {
            while self.unanswered.len() < self.depth && !stop.load(Ordering::Relaxed) {
                let number = self.make();
                self.unanswered.push_back(number);
                self.send(&mut client, number)?;
            }
            let Some(number) = self.unanswered.front().copied() else {
                return Ok(());
            };
            let answer = client.receive_produce()?.remove(0);
            assert_eq!(
                answer.error_code, 0,
                "producer {}, batch {number}: {answer:?}",
                self.number
            );
            self.sent[number].acked = Some(answer.base_offset);
            self.unanswered.pop_front();
        }
    }

    fn send(&self, client: &mut Client, number: usize) -> io::Result<()> {
        let Sent {
            place: (topic, index),
            bytes,
            ..
        } = &self.sent[number];
        client.send_produce(-1, &[(topic, *index, bytes)])
    }

    /// Makes the next batch: one to four records, each of which tells producer and number.
    fn make(&mut self) -> usize {
        let (topic, partitions, _) = TOPICS[self.rng.random_range(0..TOPICS.len())];
        let place = (topic, self.rng.random_range(0..partitions));
        let number = self.sent.len();
        let value = |rng: &mut StdRng| {
            let mut value = Vec::from((self.number as u64).to_be_bytes());
            value.extend((number as u64).to_be_bytes());
            value.resize(16 + rng.random_range(0..400), number as u8);
            value
        };
        let count = self.rng.random_range(1..=4);
        let values: Vec<Vec<u8>> = (0..count).map(|_| value(&mut self.rng)).collect();
        let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        let sequence = self.sequences.entry(place).or_default();
        let bytes = batch(self.id.map(|id| (id, *sequence)), &values);
        *sequence += count;
        self.sent.push(Sent {
            place,
            bytes,
            acked: None,
        });
        number
    }
}

/// What was read of one partition so far: it may only grow.
#[derive(Default)]
struct Seen {
    bytes: Vec<u8>,
    end: i64,
    /// The next sequence of each idempotent producer.
    sequences: HashMap<usize, i32>,
    /// The sender and number of the batch at each base offset.
    numbers: HashMap<i64, (usize, usize)>,
}

impl Seen {
    /// Reads all of the partition again.
    fn read(&mut self, client: &mut Client, place: (&str, i32), producers: &[Producer]) {
        let (mut bytes, mut offset) = (Vec::new(), 0);
        loop {
            let data = client
                .fetch(place.0, place.1, offset, 0)
                .expect("an answer");
            assert_eq!(
                (data.error_code, data.log_start_offset),
                (0, 0),
                "{place:?} at {offset}"
            );
            let more = batches(bytes_of(&data.records));
            let Some(last) = more.last() else {
                assert_eq!(data.high_watermark, offset, "{place:?}");
                break;
            };
            offset = last.header.last_offset() + 1;
            more.iter().for_each(|batch| bytes.extend(&batch.bytes));
        }
        assert!(bytes.len() >= self.bytes.len(), "{place:?} has lost bytes");
        assert!(
            bytes[..self.bytes.len()] == self.bytes,
            "{place:?}: what was read has changed"
        );
        for batch in batches(&bytes[self.bytes.len()..]) {
            self.take_in(&batch, place, producers);
        }
        self.bytes = bytes;
    }

    fn take_in(&mut self, batch: &Batch, place: (&str, i32), producers: &[Producer]) {
        let header = &batch.header;
        assert_eq!(
            header.base_offset, self.end,
            "{place:?}: offsets without holes"
        );
        self.end = header.last_offset() + 1;
        let (sender, number) = sender_of(batch);
        let sent = &producers[sender].sent[number];
        assert_eq!(sent.place, place);
        assert!(
            batch.sacred() == sacred(&sent.bytes),
            "{place:?} at {}",
            header.base_offset
        );
        if producers[sender].idempotent {
            let next = self.sequences.entry(sender).or_default();
            assert_eq!(
                header.base_sequence, *next,
                "{place:?}: producer {sender} once, and in order"
            );
            *next += header.records_count;
        }
        self.numbers.insert(header.base_offset, (sender, number));
    }
}

/// The values' head, which follows length, attributes, two deltas, the key's and the value's length.
fn sender_of(batch: &Batch) -> (usize, usize) {
    let records = ottla::batch::records::key_values(&batch.header, &batch.bytes[61..]);
    let first = records
        .expect("not compressed")
        .next()
        .expect("a record")
        .expect("a whole one");
    let word = |at: usize| {
        let bytes = first.value.expect("a value")[at..at + 8].try_into();
        u64::from_be_bytes(bytes.expect("eight bytes")) as usize
    };
    (word(0), word(8))
}

fn check(address: &str, seen: &mut HashMap<(&'static str, i32), Seen>, producers: &[Producer]) {
    let mut client = Client::connect(address).expect("a connection");
    for (topic, partitions, _) in TOPICS {
        for index in 0..partitions {
            let place = (topic, index);
            seen.entry(place)
                .or_default()
                .read(&mut client, place, producers);
        }
    }
    for producer in producers {
        for (number, sent) in producer.sent.iter().enumerate() {
            let Some(offset) = sent.acked else { continue };
            let found = seen[&sent.place].numbers.get(&offset);
            assert_eq!(
                found,
                Some(&(producer.number, number)),
                "acked at {:?} {offset}",
                sent.place
            );
        }
    }
}

/// One round: load until the kill, or, in the last one, until all is answered.
fn load(address: &str, producers: &mut [Producer], stop: &AtomicBool, until: impl FnOnce()) {
    thread::scope(|scope| {
        for producer in producers {
            scope.spawn(|| {
                let ended = producer.run(address, stop);
                assert!(ended.is_err() || producer.unanswered.is_empty());
            });
        }
        until();
    });
}

fn start(data: &Path) -> Broker {
    Broker::start_with(data, &[], |command| {
        command.envs(QUIET);
    })
}

/// Kills a broker while it starts, which may be while it recovers.
fn kill_while_starting(data: &Path, after: Duration) {
    let mut process = common::command(data, &[])
        .envs(QUIET)
        .spawn()
        .expect("the broker");
    thread::sleep(after);
    process.kill().expect("kill");
    process.wait().expect("wait");
}

#[test]
fn kill_9_under_load_loses_nothing() {
    let seed = common::seed("kill");
    let mut rng = StdRng::seed_from_u64(seed);
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let data = scratch.path();
    let mut producers: Vec<Producer> = (0..PRODUCERS).map(|n| Producer::new(n, seed)).collect();
    let mut seen = HashMap::new();
    let mut broker = start(data);
    let mut client = Client::connect(&broker.address).unwrap();
    for (topic, partitions, segment_bytes) in TOPICS {
        client.create(topic, partitions, &[("segment.bytes", segment_bytes)]);
    }
    for round in 1..=ROUNDS {
        let address = broker.address.clone();
        let pause = Duration::from_millis(rng.random_range(20..180));
        let going = AtomicBool::new(false);
        load(&address, &mut producers, &going, || {
            thread::sleep(pause);
            broker.kill();
        });
        if rng.random_ratio(1, 4) {
            kill_while_starting(data, Duration::from_millis(rng.random_range(0..60)));
        }
        broker = start(data);
        check(&broker.address, &mut seen, &producers);
        if round % 10 == 0 {
            let acked = producers
                .iter()
                .flat_map(|p| &p.sent)
                .filter(|s| s.acked.is_some());
            let bytes: usize = seen.values().map(|s| s.bytes.len()).sum();
            eprintln!(
                "kill: round {round}: {} batches acked, {bytes} bytes read",
                acked.count()
            );
        }
    }
    let all = AtomicBool::new(true);
    load(&broker.address, &mut producers, &all, || {});
    check(&broker.address, &mut seen, &producers);
    let in_doubt = producers
        .iter()
        .flat_map(|p| &p.sent)
        .filter(|s| s.acked.is_none());
    assert_eq!(in_doubt.count(), 0, "at the end every batch is acked");
    for producer in producers.iter().filter(|p| p.idempotent) {
        for (place, next) in &producer.sequences {
            assert_eq!(
                seen[place].sequences.get(&producer.number),
                Some(next),
                "all of it is there"
            );
        }
    }
    assert!(broker.stop().success());
}
