//! Those who load the broker, each on a connection of its own, again and again until it goes. What they ask and what
//! they are answered goes into the book.

use crate::common::keyed::{self, Change};
use crate::common::producer::{Client, batch};
use crate::common::requests;
use crate::common::transactional::Producer;
use crate::ledger::{Book, Kind, Sent, Topic, Txn};
use ottla::api::create_partitions::*;
use ottla::api::delete_records::*;
use ottla::api::incremental_alter_configs::*;
use ottla::api::offset_commit::*;
use ottla::batch::Header;
use rand::Rng;
use rand::rngs::StdRng;
use std::collections::HashMap;
use std::io;

/// The transactional producers: their ids, and whether they speak KIP-890.
pub const TRANSACTIONAL: [(&str, bool); 2] = [("older", false), ("newer", true)];
/// `max.message.bytes` of the topic whose setting changes, at first.
pub const SETTING_AT_FIRST: i64 = 500_000;
/// `retention.bytes` of the topic that has it.
pub const KEPT_BYTES: usize = 5000;

const GROWN_MAX: i64 = 5;
const TIME_MS: i64 = 1_700_000_000_000;

/// One of them. An error ends the connection; the next begins anew.
pub trait Actor: Send {
    /// Puts in order what the connection before left open.
    fn begin(&mut self, _client: &mut Client, _book: &Book) -> io::Result<()> {
        Ok(())
    }

    fn step(&mut self, client: &mut Client, book: &Book, rng: &mut StdRng) -> io::Result<()>;
}

fn done<T>(answer: Result<T, i16>) -> io::Result<T> {
    answer.map_err(|code| io::Error::other(format!("error {code}")))
}

fn zero(code: i16) -> io::Result<()> {
    done(if code == 0 { Ok(()) } else { Err(code) })
}

/// Makes a topic; gives its number in the ledger.
pub fn make(
    client: &mut Client,
    book: &Book,
    name: &str,
    partitions: i32,
    settings: &[(&str, &str)],
) -> io::Result<usize> {
    let asked = book.now();
    let number = book.open().topics.len();
    book.open().topics.push(Topic {
        name: name.into(),
        asked,
        made: None,
        end_asked: None,
        ended: None,
    });
    let id = done(client.try_create(name, partitions, settings)?)?;
    let now = book.now();
    book.open().topics[number].made = Some((now, id.0));
    Ok(number)
}

/// Where a batch goes: the topic's number and name, and the partition.
pub type Place = (usize, &'static str, i32);

/// What a producer does besides.
#[derive(PartialEq)]
pub enum Habit {
    None,
    /// The topic keeps so many bytes; of each batch the first offset and the size.
    Kept(Vec<(i64, usize)>),
    /// Deletes records.
    Deletes,
    /// Adds partitions.
    Grows,
}

/// A producer, alone in its partitions or not.
pub struct Writer {
    pub name: &'static str,
    pub places: Vec<Place>,
    pub acks: i16,
    pub idempotent: bool,
    pub keyed: bool,
    pub habit: Habit,
    producer: Option<i64>,
    sequences: HashMap<(usize, i32), i32>,
    count: usize,
    /// Sent and not answered: its number in the ledger, and its bytes.
    open: Option<(usize, Place, Vec<u8>)>,
    /// The end of the first place, as far as it is known.
    end: i64,
}

impl Writer {
    pub fn new(name: &'static str, places: &[Place]) -> Writer {
        Writer {
            name,
            places: places.into(),
            acks: -1,
            idempotent: false,
            keyed: false,
            habit: Habit::None,
            producer: None,
            sequences: HashMap::new(),
            count: 0,
            open: None,
            end: 0,
        }
    }

    pub fn idempotent(mut self) -> Writer {
        self.idempotent = true;
        self
    }

    fn payload(&mut self, place: Place, rng: &mut StdRng) -> (Vec<u8>, i64, Option<Change>) {
        let records = if self.keyed {
            1
        } else {
            rng.random_range(1..4)
        };
        let producer = self.producer.map(|id| {
            let sequence = self.sequences.entry((place.0, place.2)).or_insert(0);
            *sequence += records;
            (id, *sequence - records)
        });
        if self.keyed {
            let change = Change {
                key: format!("key {}", rng.random_range(0..8)),
                value: (rng.random_range(0..5) > 0)
                    .then(|| format!("{}{}", self.count, "v".repeat(rng.random_range(0..150)))),
            };
            let bytes = keyed::batch(producer, TIME_MS, std::slice::from_ref(&change));
            return (bytes, 1, Some(change));
        }
        let value = |n| {
            format!(
                "{}/{}/{n}/{}",
                self.name,
                self.count,
                "x".repeat(rng.random_range(0..200))
            )
        };
        let values: Vec<String> = (0..records).map(value).collect();
        let values: Vec<&[u8]> = values.iter().map(|value| value.as_bytes()).collect();
        (batch(producer, &values), records.into(), None)
    }

    fn send(&mut self, client: &mut Client, book: &Book) -> io::Result<()> {
        let Some((number, place, bytes)) = &self.open else {
            return Ok(());
        };
        client.send_produce(self.acks, &[(place.1, place.2, bytes)])?;
        let answer = client.receive_produce()?.remove(0);
        zero(answer.error_code)?;
        let now = book.now();
        let mut ledger = book.open();
        let sent = &mut ledger.sent[*number];
        sent.answered = Some((now, answer.base_offset));
        if *place == self.places[0] {
            self.end = answer.base_offset + sent.records;
        }
        self.open = None;
        Ok(())
    }

    fn before(&mut self, client: &mut Client, book: &Book, rng: &mut StdRng) -> io::Result<()> {
        match self.habit {
            Habit::Deletes if self.count % 7 == 6 => {
                let at = rng.random_range(self.end / 2..=self.end);
                let mark = book.ask("start deleted 0", at);
                zero(delete_records(client, "deleted", at)?)?;
                book.answer("start deleted 0", mark);
            }
            Habit::Grows if self.count % 9 == 8 && (self.places.len() as i64) < GROWN_MAX => {
                let count = self.places.len() as i64 + 1;
                let mark = book.ask("partitions grown", count);
                // INVALID_PARTITIONS: it has so many, from the time before.
                match add_partitions(client, "grown", count as i32)? {
                    0 | 37 => book.answer("partitions grown", mark),
                    code => return zero(code),
                }
                let first = self.places[0];
                self.places.push((first.0, first.1, count as i32 - 1));
            }
            _ => {}
        }
        Ok(())
    }

    /// Notes how far retention by size may go once this batch is there.
    fn note_kept(&mut self, book: &Book, bytes: usize) {
        if let Habit::Kept(sizes) = &mut self.habit {
            sizes.push((self.end, bytes));
            let mut left = KEPT_BYTES;
            for &(offset, bytes) in sizes.iter().rev() {
                left = left.saturating_sub(bytes);
                if left == 0 {
                    book.ask("start kept 0", offset);
                    break;
                }
            }
        }
    }
}

impl Actor for Writer {
    fn begin(&mut self, client: &mut Client, book: &Book) -> io::Result<()> {
        match self.idempotent {
            true => self.send(client, book),
            false => {
                self.open = None;
                Ok(())
            }
        }
    }

    fn step(&mut self, client: &mut Client, book: &Book, rng: &mut StdRng) -> io::Result<()> {
        if self.idempotent && (self.producer.is_none() || self.count % 25 == 24) {
            self.producer = Some(client.producer_id()?);
            self.sequences.clear();
            book.seen("producer id", self.producer.unwrap_or(0));
        }
        self.count += 1;
        self.before(client, book, rng)?;
        let place = self.places[self.count % self.places.len()];
        let (bytes, records, change) = self.payload(place, rng);
        self.note_kept(book, bytes.len());
        let header = Header::parse(bytes.first_chunk().expect("a header"));
        let asked = book.now();
        let mut ledger = book.open();
        ledger.sent.push(Sent {
            topic: place.0,
            index: place.2,
            crc: header.crc,
            records,
            acks: self.acks,
            kind: if self.idempotent {
                Kind::Idempotent
            } else {
                Kind::Plain
            },
            asked,
            answered: None,
            keyed: change.map(|change| (change.key, change.value)),
        });
        self.open = Some((ledger.sent.len() - 1, place, bytes));
        drop(ledger);
        self.send(client, book)
    }
}

fn delete_records(client: &mut Client, topic: &str, offset: i64) -> io::Result<i16> {
    let request = requests::delete_records(topic, 0, offset);
    let answer: DeleteRecordsResponse = client.call(2, &request)?;
    Ok(answer.topics[0].partitions[0].error_code)
}

fn add_partitions(client: &mut Client, topic: &str, count: i32) -> io::Result<i16> {
    let request = CreatePartitionsRequest {
        topics: vec![CreatePartitionsTopic {
            name: topic.into(),
            count,
            assignments: None,
        }],
        timeout_ms: 30_000,
        validate_only: false,
    };
    let answer: CreatePartitionsResponse = client.call(3, &request)?;
    Ok(answer.results[0].error_code)
}

/// Makes a topic, fills it, deletes it, and begins again.
#[derive(Default)]
pub struct Maker {
    current: Option<usize>,
    filled: Option<Writer>,
}

impl Actor for Maker {
    fn begin(&mut self, client: &mut Client, book: &Book) -> io::Result<()> {
        let id = client.topic_id("life")?;
        let now = book.now();
        let mut ledger = book.open();
        let number = ledger.topics.iter().rposition(|topic| topic.name == "life");
        if let Some(topic) = number.map(|number| &mut ledger.topics[number]) {
            match id {
                Some(id) if topic.made.is_none() => topic.made = Some((now, id.0)),
                Some(id) => assert!(topic.has_id(id), "another topic"),
                None => topic.ended = topic.ended.or(Some(now)),
            }
        }
        self.current = number.filter(|_| id.is_some());
        self.filled = None;
        Ok(())
    }

    fn step(&mut self, client: &mut Client, book: &Book, rng: &mut StdRng) -> io::Result<()> {
        let number = match self.current {
            Some(number) => number,
            None => make(client, book, "life", 2, &[("segment.bytes", "700")])?,
        };
        self.current = Some(number);
        let places: [Place; 2] = [(number, "life", 0), (number, "life", 1)];
        let writer = self
            .filled
            .get_or_insert_with(|| Writer::new("life", &places));
        for _ in 0..rng.random_range(0..9) {
            writer.step(client, book, rng)?;
        }
        let asked = book.now();
        book.open().topics[number].end_asked = Some(asked);
        zero(client.delete("life")?)?;
        let now = book.now();
        book.open().topics[number].ended = Some(now);
        (self.current, self.filled) = (None, None);
        Ok(())
    }
}

/// Commits offsets and changes a setting, each number one higher.
#[derive(Default)]
pub struct Clerk {
    count: i64,
}

impl Actor for Clerk {
    fn step(&mut self, client: &mut Client, book: &Book, _rng: &mut StdRng) -> io::Result<()> {
        self.count += 1;
        let mark = book.ask("offset", self.count);
        zero(commit_offset(client, self.count)?)?;
        book.answer("offset", mark);
        if self.count % 4 == 0 {
            let mark = book.ask("setting", self.count);
            zero(set(client, SETTING_AT_FIRST + self.count)?)?;
            book.answer("setting", mark);
        }
        Ok(())
    }
}

fn commit_offset(client: &mut Client, offset: i64) -> io::Result<i16> {
    let request = requests::offset_commit("readers", "t", offset);
    let answer: OffsetCommitResponse = client.call(8, &request)?;
    Ok(answer.topics[0].partitions[0].error_code)
}

fn set(client: &mut Client, value: i64) -> io::Result<i16> {
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: 2,
            resource_name: "t".into(),
            configs: vec![AlterableConfig {
                name: "max.message.bytes".into(),
                config_operation: 0,
                value: Some(value.to_string()),
            }],
        }],
        validate_only: false,
    };
    let answer: IncrementalAlterConfigsResponse = client.call(1, &request)?;
    Ok(answer.responses[0].error_code)
}

/// Transactions by two producers in turn, each of a record to `a`, one to `b`, and an offset; some are aborted.
#[derive(Default)]
pub struct Transactor {
    producers: Vec<Producer>,
}

impl Transactor {
    /// One that was in the midst of something begins anew, once the broker has put an end to that.
    fn producer(client: &mut Client, which: usize) -> io::Result<Producer> {
        let (id, newer) = TRANSACTIONAL[which];
        loop {
            if let Ok(producer) = Producer::new(client, id, newer)? {
                return Ok(producer);
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
}

impl Actor for Transactor {
    fn begin(&mut self, client: &mut Client, _book: &Book) -> io::Result<()> {
        self.producers.clear();
        for which in 0..TRANSACTIONAL.len() {
            self.producers.push(Transactor::producer(client, which)?);
        }
        Ok(())
    }

    fn step(&mut self, client: &mut Client, book: &Book, rng: &mut StdRng) -> io::Result<()> {
        let number = book.open().txns.len();
        let commit = rng.random_bool(0.7);
        book.open().txns.push(Txn {
            commit,
            end_asked: None,
            ended: None,
        });
        let which = number % TRANSACTIONAL.len();
        let producer = &mut self.producers[which];
        let value = number.to_string();
        let mut code = producer.write(client, "a", &value)?;
        if code == 0 {
            code = producer.write(client, "b", &value)?;
        }
        if code == 0 {
            code = producer.commit_offset(client, number as i64)?;
        }
        if code == 0 {
            let asked = book.now();
            book.open().txns[number].end_asked = Some(asked);
            code = producer.end(client, commit)?;
        }
        match code {
            0 => {
                let now = book.now();
                book.open().txns[number].ended = Some(now);
            }
            // The clocks jumped, and with them its time-out.
            _ => self.producers[which] = Transactor::producer(client, which)?,
        }
        Ok(())
    }
}

/// A consumer that notes each new high watermark.
pub struct Watcher {
    pub place: Place,
    pub offset: i64,
}

impl Actor for Watcher {
    fn step(&mut self, client: &mut Client, book: &Book, _rng: &mut StdRng) -> io::Result<()> {
        let (_, name, index) = self.place;
        let data = client.fetch(name, index, self.offset, 200)?;
        zero(data.error_code)?;
        if data.high_watermark > self.offset {
            self.offset = data.high_watermark;
            book.seen(&format!("seen {name} {index}"), self.offset);
        }
        Ok(())
    }
}
