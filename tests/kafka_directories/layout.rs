//! A data directory as Apache Kafka 4 leaves it, file by file, by the rules of its sources: `LogSegment.append` for
//! what the indexes hold, `OffsetIndex`, `TimeIndex` and `AbortedTxn` for their entries, `ProducerStateManager` for
//! snapshots, `CheckpointFile`, `PartitionMetadata`, `MetaProperties` and `CleanShutdownFileHandler` for the rest.
//! Nothing here is the broker's, but for the batches' own encoding.
#![allow(dead_code)] // each test file uses its part

use crate::common::Broker;
use ottla::batch::builder::Builder;
use ottla::batch::{HEADER_BYTES, Header};
use ottla::wire::Uuid;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Kafka's defaults: `index.interval.bytes`, and `segment.index.bytes` rounded down to whole entries.
const INTERVAL_BYTES: usize = 4096;
const INDEX_BYTES_MAX: u64 = 10 << 20;

pub const TIME_MS: i64 = 1_700_000_000_000;

/// How Kafka ended.
#[derive(Clone, Copy, PartialEq)]
pub enum Stop {
    Clean,
    /// The active segment's indexes still have all the space that was reserved for them, and no marker is there.
    Unclean,
}

/// A segment, as `LogSegment` fills it.
pub struct Segment {
    pub base: i64,
    pub log: Vec<u8>,
    index: Vec<u8>,
    times: Vec<u8>,
    aborted: Vec<u8>,
    since_entry: usize,
    max: (i64, i64),
    last_time: i64,
}

impl Segment {
    pub fn new(base: i64) -> Segment {
        Segment {
            base,
            log: Vec::new(),
            index: Vec::new(),
            times: Vec::new(),
            aborted: Vec::new(),
            since_entry: 0,
            max: (-1, -1),
            last_time: -1,
        }
    }

    pub fn of(base: i64, batches: &[Vec<u8>]) -> Segment {
        let mut segment = Segment::new(base);
        batches.iter().for_each(|batch| segment.append(batch));
        segment
    }

    pub fn append(&mut self, batch: &[u8]) {
        let header = Header::parse(batch.first_chunk().expect("a header"));
        self.append_as(batch, header.last_offset(), header.max_timestamp);
    }

    /// Appends bytes that end with this offset, whatever they are.
    pub fn append_as(&mut self, bytes: &[u8], last_offset: i64, timestamp: i64) {
        let position = self.log.len() as u32;
        self.log.extend_from_slice(bytes);
        if timestamp > self.max.0 {
            self.max = (timestamp, last_offset);
        }
        if self.since_entry > INTERVAL_BYTES {
            let relative = (last_offset - self.base) as u32;
            self.index.extend(relative.to_be_bytes());
            self.index.extend(position.to_be_bytes());
            self.add_time();
            self.since_entry = 0;
        }
        self.since_entry += bytes.len();
    }

    /// The entry of a transaction whose abort marker was appended.
    pub fn abort(&mut self, producer: i64, first: i64, last: i64, last_stable: i64) {
        self.aborted.extend(0i16.to_be_bytes());
        for field in [producer, first, last, last_stable] {
            self.aborted.extend(field.to_be_bytes());
        }
    }

    fn add_time(&mut self) {
        if self.max.0 > self.last_time {
            self.times.extend(self.max.0.to_be_bytes());
            let relative = (self.max.1 - self.base) as u32;
            self.times.extend(relative.to_be_bytes());
            self.last_time = self.max.0;
        }
    }

    /// Writes the files; one that is not closed keeps what was reserved for its indexes.
    fn write(&mut self, dir: &Path, closed: bool) {
        let path = |extension: &str| dir.join(format!("{:020}{extension}", self.base));
        fs::write(path(".log"), &self.log).unwrap();
        // Made with the first entry.
        if !self.aborted.is_empty() {
            fs::write(path(".txnindex"), &self.aborted).unwrap();
        }
        let (index, times) = (path(".index"), path(".timeindex"));
        if closed {
            self.add_time();
        }
        fs::write(&index, &self.index).unwrap();
        fs::write(&times, &self.times).unwrap();
        if !closed {
            lengthen(&index, INDEX_BYTES_MAX);
            lengthen(&times, INDEX_BYTES_MAX / 12 * 12);
        }
    }
}

/// Zeros behind what a file holds, up to `bytes`.
pub fn lengthen(path: &Path, bytes: u64) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_len(bytes).unwrap();
}

/// A producer's line in a snapshot.
#[derive(Clone, Copy)]
pub struct Producer {
    pub id: i64,
    pub epoch: i16,
    pub last_sequence: i32,
    pub last_offset: i64,
    /// Where its open transaction began, or -1.
    pub transaction_start: i64,
}

/// The bytes of a producer snapshot.
pub fn snapshot(version: i16, producers: &[Producer]) -> Vec<u8> {
    let mut entries = (producers.len() as i32).to_be_bytes().to_vec();
    for producer in producers {
        entries.extend(producer.id.to_be_bytes());
        entries.extend(producer.epoch.to_be_bytes());
        entries.extend(producer.last_sequence.to_be_bytes());
        entries.extend(producer.last_offset.to_be_bytes());
        entries.extend(0i32.to_be_bytes());
        entries.extend(TIME_MS.to_be_bytes());
        entries.extend(0i32.to_be_bytes());
        entries.extend(producer.transaction_start.to_be_bytes());
    }
    let crc = crc32c::crc32c(&entries);
    [&version.to_be_bytes()[..], &crc.to_be_bytes(), &entries].concat()
}

/// A partition's directory.
pub struct Partition {
    pub dir: PathBuf,
}

impl Partition {
    pub fn write(&self, segments: &mut [Segment], stop: Stop) -> &Partition {
        let last = segments.len() - 1;
        for (at, segment) in segments.iter_mut().enumerate() {
            segment.write(&self.dir, at < last || stop == Stop::Clean);
        }
        self
    }

    /// `leader-epoch-checkpoint`: epochs, and where each begins.
    pub fn epochs(&self, epochs: &[(i32, i64)]) -> &Partition {
        let lines: String = epochs.iter().map(|(e, at)| format!("{e} {at}\n")).collect();
        let text = format!("0\n{}\n{lines}", epochs.len());
        self.file("leader-epoch-checkpoint", text.as_bytes())
    }

    pub fn file(&self, name: &str, bytes: &[u8]) -> &Partition {
        fs::write(self.dir.join(name), bytes).unwrap();
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The files that end so, by name.
    pub fn files(&self, suffix: &str) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(&self.dir).unwrap().map(Result::unwrap);
        let named = entries.map(|e| (e.file_name().into_string().unwrap(), e.path()));
        let named = named.filter(|(name, _)| name.ends_with(suffix));
        named
            .map(|(n, path)| (n, fs::read(path).unwrap()))
            .collect()
    }
}

/// A data directory.
pub struct Data {
    dir: tempfile::TempDir,
}

impl Data {
    /// One of node 1, as `kafka-storage.sh format` makes it.
    pub fn new() -> Data {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let data = Data { dir };
        let text = "#\n#Fri Oct 25 03:33:01 CST 2024\ncluster.id=MkU3OEVBNTcwNTJENDM2Qg\n\
                    directory.id=p8fXr5IuTxWZNlgK4JqT5w\nnode.id=1\nversion=1\n";
        data.file("meta.properties", text.as_bytes());
        data.file("bootstrap.checkpoint", b"");
        data
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn file(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path().join(name), bytes).unwrap();
    }

    /// A partition's directory, with its topic's id.
    pub fn partition(&self, topic: &str, index: i32, id: Uuid) -> Partition {
        let dir = self.path().join(format!("{topic}-{index}"));
        fs::create_dir(&dir).unwrap();
        let partition = Partition { dir };
        let text = format!("version: 0\ntopic_id: {id}");
        partition.file("partition.metadata", text.as_bytes());
        partition
    }

    /// One of Kafka's checkpoints of offsets: topic, partition, offset.
    pub fn offsets(&self, name: &str, offsets: &[(&str, i32, i64)]) {
        let line =
            |(topic, index, offset): &(&str, i32, i64)| format!("{topic} {index} {offset}\n");
        let lines: String = offsets.iter().map(line).collect();
        self.file(name, format!("0\n{}\n{lines}", offsets.len()).as_bytes());
    }

    /// What each stop leaves: recovery points, the high watermarks that only replicas need, and the marker.
    pub fn stop(&self, stop: Stop, points: &[(&str, i32, i64)]) {
        self.offsets("recovery-point-offset-checkpoint", points);
        self.offsets("replication-offset-checkpoint", points);
        if stop == Stop::Clean {
            self.file(
                ".kafka_cleanshutdown",
                b"{\"version\":0,\"brokerEpoch\":25}",
            );
        }
    }

    pub fn start(&self) -> Broker {
        Broker::start(self.path(), &["node.id=1"])
    }
}

/// An id that is told from others by one number.
pub fn id(n: u8) -> Uuid {
    let mut bytes = [7; 16];
    bytes[15] = n;
    Uuid(bytes)
}

/// A batch of `count` records of about `bytes` bytes each.
pub fn batch(base: i64, epoch: i32, count: i64, bytes: usize) -> Vec<u8> {
    let builder = Builder::new(TIME_MS + base).place(base, epoch);
    filled(builder, base, count, bytes).build()
}

/// Adds records from offset `base` on, whose times are a millisecond apart.
pub fn filled(mut builder: Builder, base: i64, count: i64, bytes: usize) -> Builder {
    for n in base..base + count {
        let value = format!("{n:0bytes$}");
        builder.add(Some(b"key"), Some(value.as_bytes()), &[], TIME_MS + n);
    }
    builder
}

/// A batch as Kafka's cleaner leaves it when all its records went: the header alone, offsets and sequences as before.
pub fn emptied(batch: &[u8]) -> Vec<u8> {
    let mut header = Header::parse(batch.first_chunk().expect("a header"));
    header.records_count = 0;
    header.max_timestamp = header.base_timestamp;
    header.batch_length = (HEADER_BYTES - ottla::batch::LENGTH_STARTS_AT) as i32;
    header.crc = ottla::batch::crc(&header.encode(), &[]);
    header.encode().to_vec()
}

/// A message of format 0 or 1, as brokers before 0.11 wrote them: offset, size, CRC-32, magic, attributes, in format 1
/// a timestamp, key and value.
pub fn old_message(offset: i64, magic: u8, value: &[u8]) -> Vec<u8> {
    let mut message = vec![magic, 0];
    if magic == 1 {
        message.extend(TIME_MS.to_be_bytes());
    }
    message.extend((-1i32).to_be_bytes());
    message.extend((value.len() as i32).to_be_bytes());
    message.extend_from_slice(value);
    let mut entry = offset.to_be_bytes().to_vec();
    entry.extend((message.len() as i32 + 4).to_be_bytes());
    entry.extend(crc32fast::hash(&message).to_be_bytes());
    entry.extend(message);
    entry
}
