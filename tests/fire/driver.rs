//! An idempotent producer that does with sequences what Kafka's Java client does (`Sender`, `TransactionManager`).
//!
//! Up to five requests are on their way, each with at most one batch a partition. When the connection is lost, all of
//! them are sent again with the sequences that they had, and then only one batch a partition at a time, until all are
//! answered. A batch that is given up after it was sent leaves its sequence unresolved: no new batch until those
//! behind it are answered, and the next epoch, which the client takes by itself, if the broker never had it. A
//! partition goes over to the new epoch when nothing of the old one is on its way. InitProducerId is asked at first
//! and when the epochs have run out, never else.

use crate::common::client::altered;
use crate::common::codecs::{CODECS, compress};
use crate::common::producer::Client;
use crate::proxy::Proxy;
use ottla::api::produce::PartitionProduceResponse;
use ottla::batch::Header;
use ottla::batch::builder::Builder;
use ottla::error::ErrorCode::OutOfOrderSequenceNumber;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

pub const IN_FLIGHT_MAX: usize = 5;
const TIME_MS: i64 = 1_700_000_000_000;

/// Topic and partition.
pub type Place = (&'static str, i32);
/// Place, producer id, epoch and first sequence.
pub type Name = (Place, i64, i16, i32);

/// One batch.
pub struct Sent {
    pub place: Place,
    /// As it was sent last.
    pub bytes: Vec<u8>,
    /// The base offset that was acked.
    pub acked: Option<i64>,
    pub given_up: bool,
}

/// What the producer keeps for one partition.
struct Lane {
    place: Place,
    /// Id and epoch of its sequences.
    producer: (i64, i16),
    next: i32,
    last_acked: i32,
    /// All that was sent and neither answered nor given up, in order.
    flying: VecDeque<usize>,
    /// The last of those: they are to be sent again.
    again: VecDeque<usize>,
    /// A batch that was given up, whose fate is not known.
    unresolved: Option<usize>,
}

impl Lane {
    fn begin(&mut self, producer: (i64, i16), sequence: i32) {
        self.producer = producer;
        self.next = sequence;
        self.last_acked = before(sequence);
        self.unresolved = None;
    }
}

fn before(sequence: i32) -> i32 {
    sequence.wrapping_sub(1)
}

/// Sequences wrap from the largest to 0.
fn plus(sequence: i32, count: i32) -> i32 {
    sequence.wrapping_add(count) & i32::MAX
}

/// One producer, over all its connections.
pub struct Producer {
    pub number: usize,
    /// Every batch, by its number.
    pub sent: Vec<Sent>,
    /// Which batch was sent under a name.
    pub names: HashMap<Name, usize>,
    /// Batches that the broker refused to skip, so it must not have them.
    pub refused_for: Vec<usize>,
    /// How often it took a new epoch, and how often it came back from idling.
    pub epochs: usize,
    pub idled: usize,
    producer: Option<(i64, i16)>,
    lanes: Vec<Lane>,
    /// The requests without an answer: lane and batch of each part.
    requests: VecDeque<Vec<(usize, usize)>>,
    /// No new batches until so many brokers have died.
    idle_until: u64,
    rng: StdRng,
}

impl Producer {
    pub fn new(number: usize, seed: u64, places: &[Place]) -> Producer {
        let lane = |&place: &Place| Lane {
            place,
            producer: (-1, -1),
            next: 0,
            last_acked: -1,
            flying: VecDeque::new(),
            again: VecDeque::new(),
            unresolved: None,
        };
        Producer {
            number,
            sent: Vec::new(),
            names: HashMap::new(),
            refused_for: Vec::new(),
            epochs: 0,
            idled: 0,
            producer: None,
            lanes: places.iter().map(lane).collect(),
            requests: VecDeque::new(),
            idle_until: 0,
            rng: StdRng::seed_from_u64(seed ^ ((number as u64 + 1) << 32)),
        }
    }

    /// Sends until told to stop and everything is answered.
    pub fn run(&mut self, proxy: &Proxy, stop: &AtomicBool) {
        while !(stop.load(Ordering::SeqCst) && self.lanes.iter().all(|l| l.flying.is_empty())) {
            let ended = Client::connect(&proxy.address).and_then(|c| self.talk(c, proxy, stop));
            if ended.is_err() {
                self.lost(proxy, stop);
                thread::sleep(Duration::from_millis(self.rng.random_range(1..30)));
            }
        }
    }

    fn talk(&mut self, mut client: Client, proxy: &Proxy, stop: &AtomicBool) -> io::Result<()> {
        if self.producer.is_none() {
            let id = client.producer_id()?;
            self.begin_at_the_edge(id);
        }
        loop {
            self.resolve(&mut client)?;
            let quiet = stop.load(Ordering::SeqCst) || proxy.deaths() < self.idle_until;
            while self.requests.len() < IN_FLIGHT_MAX && self.send(&mut client, quiet)? {}
            if !self.requests.is_empty() {
                self.receive(&mut client)?;
            } else if stop.load(Ordering::SeqCst) {
                return Ok(());
            } else if quiet {
                thread::sleep(Duration::from_millis(10));
            }
            if self.idle_until <= proxy.deaths() && self.rng.random_ratio(1, 300) {
                self.idle_until = proxy.deaths() + self.rng.random_range(1..=2);
                self.idled += 1;
            }
        }
    }

    /// Brokers take any first sequence and epoch of a producer that they do not know: some begin near the last ones.
    fn begin_at_the_edge(&mut self, id: i64) {
        let (epoch, sequence) = match self.number % 3 {
            0 => (0, 0),
            1 => (i16::MAX - 1, 0),
            _ => (0, i32::MAX - self.rng.random_range(0..40)),
        };
        self.producer = Some((id, epoch));
        for lane in &mut self.lanes {
            lane.begin((id, epoch), sequence);
        }
    }

    /// The connection is lost: what has no answer is to be sent again. Now and then the oldest batch of a partition is
    /// given up, but only when its broker has died: one that lived might still be reading it.
    fn lost(&mut self, proxy: &Proxy, stop: &AtomicBool) {
        self.requests.clear();
        for lane in &mut self.lanes {
            lane.again = lane.flying.clone();
        }
        let deaths = proxy.deaths();
        if stop.load(Ordering::SeqCst) || !self.rng.random_ratio(1, 20) {
            return;
        }
        while proxy.deaths() == deaths {
            if stop.load(Ordering::SeqCst) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        for lane in &mut self.lanes {
            if lane.unresolved.is_none() && self.rng.random_ratio(1, 2) {
                lane.unresolved = lane.again.pop_front();
                lane.flying.pop_front();
                if let Some(number) = lane.unresolved {
                    self.sent[number].given_up = true;
                }
            }
        }
    }

    /// Takes the next epoch if a partition needs it whose batches are all answered.
    fn resolve(&mut self, client: &mut Client) -> io::Result<()> {
        for at in 0..self.lanes.len() {
            let lane = &mut self.lanes[at];
            if lane.unresolved.is_none() || !lane.flying.is_empty() {
                continue;
            }
            if lane.next == plus(lane.last_acked, 1) {
                lane.unresolved = None;
            } else {
                self.take_next_epoch(client, at)?;
            }
        }
        Ok(())
    }

    /// Takes the next epoch, and in it begins this partition's sequences anew.
    fn take_next_epoch(&mut self, client: &mut Client, at: usize) -> io::Result<()> {
        let (mut id, mut epoch) = self.producer.expect("it has sent");
        if epoch == i16::MAX {
            while !self.requests.is_empty() {
                self.receive(client)?;
            }
            (id, epoch) = (client.producer_id()?, 0);
        } else {
            epoch += 1;
        }
        self.epochs += 1;
        self.producer = Some((id, epoch));
        self.lanes[at].begin((id, epoch), 0);
        for number in self.lanes[at].flying.clone() {
            self.name(at, number);
        }
        Ok(())
    }

    /// Gives a batch the partition's next sequences.
    fn name(&mut self, at: usize, number: usize) {
        let (lane, sent) = (&mut self.lanes[at], &mut self.sent[number]);
        let ((id, epoch), sequence) = (lane.producer, lane.next);
        sent.bytes = altered(&sent.bytes, |header| {
            (header.producer_id, header.producer_epoch) = (id, epoch);
            header.base_sequence = sequence;
        });
        lane.next = plus(sequence, header(&sent.bytes).records_count);
        self.names.insert((lane.place, id, epoch, sequence), number);
    }

    /// Sends one request, if there is something to send.
    fn send(&mut self, client: &mut Client, quiet: bool) -> io::Result<bool> {
        let mut parts = Vec::new();
        for at in 0..self.lanes.len() {
            if self.rng.random_ratio(1, 3) {
                continue;
            }
            if let Some(number) = self.drain(at, quiet) {
                parts.push((at, number));
            }
        }
        if parts.is_empty() {
            // All were passed over by chance, or there is nothing.
            return Ok(!quiet && self.requests.is_empty());
        }
        let batch = |&(_, number): &(usize, usize)| {
            let sent = &self.sent[number];
            (sent.place.0, sent.place.1, &sent.bytes[..])
        };
        let batches: Vec<_> = parts.iter().map(batch).collect();
        let done = client.send_produce(-1, &batches);
        self.requests.push_back(parts);
        done.map(|()| true)
    }

    /// The batch that the partition sends next.
    fn drain(&mut self, at: usize, quiet: bool) -> Option<usize> {
        let newest = self.producer.expect("before the first batch");
        let lane = &mut self.lanes[at];
        if let Some(&number) = lane.again.front() {
            return (lane.flying.front() == Some(&number)).then(|| {
                lane.again.pop_front();
                number
            });
        }
        if quiet || lane.unresolved.is_some() {
            return None;
        }
        if lane.producer != newest {
            if !lane.flying.is_empty() {
                return None;
            }
            lane.begin(newest, 0);
        }
        let number = self.make(at);
        self.lanes[at].flying.push_back(number);
        Some(number)
    }

    /// Makes the next batch of a partition: one to four records, in any codec.
    fn make(&mut self, at: usize) -> usize {
        let rng = &mut self.rng;
        let mut builder = Builder::new(TIME_MS);
        for _ in 0..rng.random_range(1..=4) {
            let len = rng.random_range(0..1500);
            let value = vec![rng.random(); len];
            builder.add(None, Some(&value), &[], TIME_MS);
        }
        let codec = CODECS[rng.random_range(0..CODECS.len())];
        let number = self.sent.len();
        self.sent.push(Sent {
            place: self.lanes[at].place,
            bytes: builder.build_from(codec, &compress(codec, builder.records())),
            acked: None,
            given_up: false,
        });
        self.name(at, number);
        number
    }

    fn receive(&mut self, client: &mut Client) -> io::Result<()> {
        let answers = client.receive_produce()?;
        let parts = self.requests.pop_front().expect("a request was sent");
        assert_eq!(answers.len(), parts.len(), "an answer to each part");
        for (answer, (at, number)) in answers.iter().zip(parts) {
            assert_eq!(answer.index, self.lanes[at].place.1);
            self.answered(client, at, number, answer)?;
        }
        Ok(())
    }

    fn answered(
        &mut self,
        client: &mut Client,
        at: usize,
        number: usize,
        answer: &PartitionProduceResponse,
    ) -> io::Result<()> {
        let lane = &mut self.lanes[at];
        let who = format!(
            "producer {}, batch {number} to {:?}",
            self.number, lane.place
        );
        assert_eq!(lane.flying.front(), Some(&number), "{who}: in order");
        let code = answer.error_code;
        if code == OutOfOrderSequenceNumber.code() && lane.unresolved.is_some() {
            self.refused_for.extend(lane.unresolved);
            lane.again.push_front(number);
            return self.take_next_epoch(client, at);
        }
        assert_eq!(code, 0, "{who}: no error but a true one: {answer:?}");
        lane.flying.pop_front();
        self.sent[number].acked = Some(answer.base_offset);
        lane.last_acked = header(&self.sent[number].bytes).last_sequence();
        Ok(())
    }
}

fn header(batch: &[u8]) -> Header {
    Header::parse(batch.first_chunk().expect("a header"))
}
