//! Retention under fire: a log that is cut at its beginning by age and by size, while readers stand at every
//! position. Every response is exact or OFFSET_OUT_OF_RANGE; over `kill -9` the log start never falls, nothing
//! below it is served and nothing above it is lost.
//!
//! A record tells its own offset, so that what is read at an offset proves itself. DeleteRecords races retention.

mod common;

use common::Broker;
use common::producer::{Client, batch, batches, bytes_of};
use common::requests;
use ottla::api::delete_records::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const ROUNDS: usize = 6;
const ROUND: Duration = Duration::from_millis(1500);
/// By age in the one, by size in the other.
const TOPICS: [(&str, &[(&str, &str)]); 2] = [
    (
        "aged",
        &[("segment.bytes", "20000"), ("retention.ms", "150")],
    ),
    (
        "sized",
        &[("segment.bytes", "7000"), ("retention.bytes", "120000")],
    ),
];
const SETTINGS: &[&str] = &[
    "log.retention.check.interval.ms=5",
    "log.segment.delete.delay.ms=0",
];
const OUT_OF_RANGE: i16 = 1;

/// What all threads know of one topic.
#[derive(Default)]
struct Known {
    /// Everything below was acked.
    acked: AtomicI64,
    /// The highest log start that was told.
    start: AtomicI64,
}

/// What happened, so that no round passes for want of it.
#[derive(Default)]
struct Seen {
    exact: AtomicI64,
    out_of_range: AtomicI64,
    starts_risen: AtomicI64,
}

struct Round<'a> {
    topic: &'static str,
    known: &'a Known,
    seen: &'a Seen,
    stop: &'a AtomicBool,
}

/// A batch of one record, which tells its offset, and is now small and now larger than a socket's buffers.
fn value(offset: i64, topic: &str) -> Vec<u8> {
    let length = match offset % 97 {
        0 => 6000,
        n => 20 + n as usize * 5,
    };
    let mut value = format!("{topic} {offset} ").into_bytes();
    value.resize(length, offset as u8);
    value
}

impl Round<'_> {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// One producer, with `acks=all`; its next batch's offset is known.
    fn produce(&self, address: &str) -> io::Result<()> {
        let mut client = Client::connect(address)?;
        let mut next = client.list_offset(self.topic, 0, -1)?.unwrap();
        while self.goes_on() {
            let said = client.produce(self.topic, 0, &batch(None, &[&value(next, self.topic)]))?;
            assert_eq!(said, Ok(next), "{}", self.topic);
            next += 1;
            self.known.acked.store(next, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Fetches at an offset, and checks every byte of the answer.
    ///
    /// Gives the offset after what was read; where the log begins if that is beyond `offset`.
    fn look(&self, client: &mut Client, offset: i64, wait_ms: i32) -> io::Result<i64> {
        // Told before the request was sent: such starts hold, and so do such ends.
        let start = self.known.start.load(Ordering::SeqCst);
        let acked = self.known.acked.load(Ordering::SeqCst);
        let data = client.fetch(self.topic, 0, offset, wait_ms)?;
        let topic = self.topic;
        if data.error_code == OUT_OF_RANGE {
            assert!(offset < data.log_start_offset, "{topic} {offset}: {data:?}");
            self.saw_start(data.log_start_offset, start);
            self.seen.out_of_range.fetch_add(1, Ordering::Relaxed);
            return Ok(data.log_start_offset);
        }
        assert_eq!(data.error_code, 0, "{topic} {offset}");
        assert!(
            offset >= start,
            "{topic}: {offset} was served below {start}"
        );
        assert!(data.high_watermark >= acked, "{topic}: {acked} was acked");
        self.saw_start(data.log_start_offset, start);
        let mut expected = offset;
        for batch in batches(bytes_of(&data.records)) {
            assert_eq!(batch.header.base_offset, expected, "{topic}");
            let body = &batch.bytes[ottla::batch::HEADER_BYTES..];
            let text = value(expected, topic);
            assert!(
                body.windows(text.len()).any(|part| part == text),
                "{topic}: another record at {expected}"
            );
            expected += 1;
        }
        assert!(
            expected > offset || offset >= acked,
            "{topic}: nothing at {offset}, though {acked} was acked"
        );
        self.seen
            .exact
            .fetch_add(expected - offset, Ordering::Relaxed);
        Ok(expected)
    }

    fn saw_start(&self, start: i64, before: i64) {
        assert!(
            start >= before,
            "{}: the start fell from {before} to {start}",
            self.topic
        );
        if self.known.start.fetch_max(start, Ordering::SeqCst) < start {
            self.seen.starts_risen.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Reads on and on from the end, by long polls.
    fn tail(&self, address: &str) -> io::Result<()> {
        let mut client = Client::connect(address)?;
        let mut offset = self.known.acked.load(Ordering::SeqCst);
        while self.goes_on() {
            offset = self.look(&mut client, offset, 200)?;
        }
        Ok(())
    }

    /// Reads from the start, where segments go under its feet, slowly: each answer lies in the socket for a while.
    fn crawl(&self, address: &str) -> io::Result<()> {
        let mut client = Client::connect(address)?;
        let mut offset = 0;
        while self.goes_on() {
            offset = self.look(&mut client, offset, 0)?;
            thread::sleep(Duration::from_millis(3));
            if offset >= self.known.acked.load(Ordering::SeqCst) {
                offset = self.known.start.load(Ordering::SeqCst);
            }
        }
        Ok(())
    }

    /// Reads anywhere, most of all about the start, and asks for offsets by time.
    fn seek(&self, address: &str, mut rng: StdRng) -> io::Result<()> {
        let mut client = Client::connect(address)?;
        while self.goes_on() {
            let start = self.known.start.load(Ordering::SeqCst);
            let acked = self.known.acked.load(Ordering::SeqCst).max(start);
            let offset = match rng.random_range(0..3) {
                0 => rng.random_range(start..=acked),
                1 => (start + rng.random_range(-40..40)).clamp(0, acked),
                _ => self.offset_by_time(&mut client, start, acked, rng.random_range(-2..=0))?,
            };
            self.look(&mut client, offset, 0)?;
        }
        Ok(())
    }

    /// The start, the end, or the first of any time: never below the start, nor none where there is one.
    fn offset_by_time(
        &self,
        client: &mut Client,
        start: i64,
        acked: i64,
        time: i64,
    ) -> io::Result<i64> {
        let told = client.list_offset(self.topic, 0, time)?.expect("an offset");
        let earliest = client.list_offset(self.topic, 0, -2)?.expect("a start");
        self.saw_start(earliest, start);
        match time {
            -1 => assert!(
                told >= acked,
                "{}: {told}, though {acked} was acked",
                self.topic
            ),
            // None is right only where all were gone.
            _ if told < 0 => assert!(earliest >= acked, "{}: no offset", self.topic),
            _ => assert!(told >= start, "{}: {told} below {start}", self.topic),
        }
        Ok(told.max(start))
    }

    /// Deletes a little more than retention does, now and then.
    fn delete(&self, address: &str, mut rng: StdRng) -> io::Result<()> {
        let mut client = Client::connect(address)?;
        while self.goes_on() {
            let start = self.known.start.load(Ordering::SeqCst);
            let acked = self.known.acked.load(Ordering::SeqCst).max(start);
            let offset = (start + rng.random_range(0..30)).min(acked);
            let request = requests::delete_records(self.topic, 0, offset);
            let answer: DeleteRecordsResponse = client.call(2, &request)?;
            let told = &answer.topics[0].partitions[0];
            assert_eq!(told.error_code, 0, "{}", self.topic);
            assert!(told.low_watermark >= offset);
            self.saw_start(told.low_watermark, start);
            thread::sleep(Duration::from_millis(rng.random_range(0..40)));
        }
        Ok(())
    }
}

/// The end of a connection is the broker's: it is killed at the round's end.
fn until_killed(result: io::Result<()>, stop: &AtomicBool) {
    if let Err(error) = result {
        assert!(stop.load(Ordering::Relaxed), "{error}");
    }
}

fn round(address: &str, known: &[Known; 2], seen: &Seen, seed: u64, kill: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stop = &stop;
        for ((topic, _), known) in TOPICS.iter().zip(known) {
            let part = move || Round {
                topic,
                known,
                seen,
                stop,
            };
            let rng = move |n: u64| StdRng::seed_from_u64(seed ^ (n << 32));
            scope.spawn(move || until_killed(part().produce(address), stop));
            scope.spawn(move || until_killed(part().tail(address), stop));
            scope.spawn(move || until_killed(part().crawl(address), stop));
            scope.spawn(move || until_killed(part().delete(address, rng(1)), stop));
            for n in 2..4 {
                scope.spawn(move || until_killed(part().seek(address, rng(n)), stop));
            }
        }
        thread::sleep(ROUND);
        stop.store(true, Ordering::SeqCst);
        kill();
    });
}

/// After a kill: the start that was told holds, all above it is there, and nothing lies about for ever.
fn check(broker: &Broker, known: &[Known; 2], seen: &Seen) {
    let mut client = Client::connect(&broker.address).unwrap();
    let stop = AtomicBool::new(false);
    for ((topic, _), known) in TOPICS.iter().zip(known) {
        let part = Round {
            topic,
            known,
            seen,
            stop: &stop,
        };
        let acked = known.acked.load(Ordering::SeqCst);
        let end = client.list_offset(topic, 0, -1).unwrap().unwrap();
        assert!(end >= acked, "{topic}: {acked} was acked, {end} is the end");
        let mut offset = known.start.load(Ordering::SeqCst);
        while offset < acked {
            offset = part.look(&mut client, offset, 0).unwrap();
        }
    }
}

#[test]
fn every_response_is_exact_or_out_of_range() {
    let seed = common::seed("retention");
    let data = tempfile::tempdir().unwrap();
    let (known, seen) = <([Known; 2], Seen)>::default();
    for n in 0..ROUNDS {
        let broker = Broker::start_with(data.path(), SETTINGS, |command| {
            command.env("RUST_LOG", "warn");
        });
        if n == 0 {
            let mut client = Client::connect(&broker.address).unwrap();
            TOPICS.iter().for_each(|(topic, settings)| {
                client.create(topic, 1, settings);
            });
        }
        check(&broker, &known, &seen);
        let address = broker.address.clone();
        let seed = seed.wrapping_add(n as u64);
        round(&address, &known, &seen, seed, || match n + 1 < ROUNDS {
            true => broker.kill(),
            false => drop(broker.stop()),
        });
    }
    let count = |count: &AtomicI64| count.load(Ordering::Relaxed);
    let counts = (
        count(&seen.exact),
        count(&seen.out_of_range),
        count(&seen.starts_risen),
    );
    eprintln!("retention: exact, out of range, starts: {counts:?}");
    assert!(counts.0 > 0 && counts.1 > 0 && counts.2 > 20, "{counts:?}");
    nothing_is_left(data.path());
}

/// All that went is unlinked: the next start finds little more than the limits leave.
fn nothing_is_left(data: &std::path::Path) {
    let broker = Broker::start(data, SETTINGS);
    let deadline = Instant::now() + Duration::from_secs(30);
    let names = || -> HashSet<String> {
        let dirs = TOPICS.map(|(topic, _)| data.join(format!("{topic}-0")));
        let entries = dirs.iter().flat_map(|dir| std::fs::read_dir(dir).unwrap());
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    let settled = |names: &HashSet<String>| {
        let logs = names.iter().filter(|name| name.ends_with(".log")).count();
        logs <= 40 && !names.iter().any(|name| name.ends_with(".deleted"))
    };
    while !settled(&names()) {
        assert!(Instant::now() < deadline, "{:?}", names());
        thread::sleep(Duration::from_millis(10));
    }
    drop(broker);
}
