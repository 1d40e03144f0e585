//! The wire protocol by hand: the few requests that the benches send, in their newest version without tagged fields
//! (Kafka's message definitions, `ProduceRequest.json` and so on), and record batches.
//!
//! ```text
//! request   length i32 | key i16 | version i16 | correlation id i32 | client id string | body
//! answer    length i32 | correlation id i32 | body
//! ```

use super::Result;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

const PRODUCE: (i16, i16) = (0, 8);
const FETCH: (i16, i16) = (1, 11);
const METADATA: (i16, i16) = (3, 8);
const OFFSET_COMMIT: (i16, i16) = (8, 2);
const FIND_COORDINATOR: (i16, i16) = (10, 0);
const API_VERSIONS: (i16, i16) = (18, 0);
const CREATE_TOPICS: (i16, i16) = (19, 4);
const DELETE_TOPICS: (i16, i16) = (20, 3);
const INCREMENTAL_ALTER_CONFIGS: (i16, i16) = (44, 0);

/// Kinds of resources in [`alter`].
pub const TOPIC: i8 = 2;
pub const BROKER: i8 = 4;

/// The bytes of a batch before its records.
const BATCH_HEADER_BYTES: usize = 61;

/// A message being built.
#[derive(Default)]
struct Builder(Vec<u8>);

impl Builder {
    fn i8(mut self, v: i8) -> Self {
        self.0.extend(v.to_be_bytes());
        self
    }
    fn i16(mut self, v: i16) -> Self {
        self.0.extend(v.to_be_bytes());
        self
    }
    fn i32(mut self, v: i32) -> Self {
        self.0.extend(v.to_be_bytes());
        self
    }
    fn i64(mut self, v: i64) -> Self {
        self.0.extend(v.to_be_bytes());
        self
    }
    fn string(mut self, v: &str) -> Self {
        self.0.extend((v.len() as i16).to_be_bytes());
        self.0.extend(v.as_bytes());
        self
    }
    fn bytes(mut self, v: &[u8]) -> Self {
        self.0.extend((v.len() as i32).to_be_bytes());
        self.0.extend(v);
        self
    }
    /// Zigzag, as in records.
    fn varint(mut self, v: i32) -> Self {
        let mut rest = ((v << 1) ^ (v >> 31)) as u32;
        while rest >= 0x80 {
            self.0.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.0.push(rest as u8);
        self
    }
    /// As a request frame.
    fn request(self, (key, version): (i16, i16)) -> Vec<u8> {
        let header = Builder::default()
            .i16(key)
            .i16(version)
            .i32(7)
            .string("bench");
        let length = header.0.len() + self.0.len();
        [&(length as i32).to_be_bytes()[..], &header.0, &self.0].concat()
    }
}

/// A message being read; a broker's answer is trusted, so what is too short panics.
pub struct Answer {
    bytes: Vec<u8>,
    at: usize,
}

impl Answer {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        self.at += N;
        self.bytes[self.at - N..self.at].try_into().unwrap()
    }
    fn i8(&mut self) -> i8 {
        i8::from_be_bytes(self.take())
    }
    fn i16(&mut self) -> i16 {
        i16::from_be_bytes(self.take())
    }
    fn i32(&mut self) -> i32 {
        i32::from_be_bytes(self.take())
    }
    fn skip_string(&mut self) {
        self.at += self.i16().max(0) as usize;
    }
    fn skip_i32s(&mut self) {
        self.at += self.i32().max(0) as usize * 4;
    }
}

/// A version 2 batch of uncompressed records without keys, with its CRC-32C.
pub fn batch(values: &[Vec<u8>]) -> Vec<u8> {
    let records: Vec<_> = values.iter().map(|value| (None, &value[..])).collect();
    batch_of(&records)
}

/// As [`batch`], of keys and values.
pub fn batch_of(pairs: &[(Option<&[u8]>, &[u8])]) -> Vec<u8> {
    let now_ms = std::time::UNIX_EPOCH
        .elapsed()
        .map_or(0, |t| t.as_millis() as i64);
    let mut records = Vec::new();
    for (i, (key, value)) in pairs.iter().enumerate() {
        let mut record = Builder::default()
            .i8(0)
            .varint(0)
            .varint(i as i32)
            .varint(key.map_or(-1, |key| key.len() as i32));
        record.0.extend(key.unwrap_or_default());
        record = record.varint(value.len() as i32);
        record.0.extend(*value);
        let record = record.varint(0).0;
        records.extend(Builder::default().varint(record.len() as i32).0);
        records.extend(record);
    }
    let mut checked = Builder::default()
        .i16(0) // attributes
        .i32(pairs.len() as i32 - 1)
        .i64(now_ms)
        .i64(now_ms)
        .i64(-1) // no producer id
        .i16(-1)
        .i32(-1)
        .i32(pairs.len() as i32);
    checked.0.extend(records);
    let mut whole = Builder::default()
        .i64(0)
        .i32(checked.0.len() as i32 + 9)
        .i32(-1)
        .i8(2)
        .i32(crc32c::crc32c(&checked.0) as i32);
    whole.0.extend(checked.0);
    assert!(whole.0.len() > BATCH_HEADER_BYTES);
    whole.0
}

/// Bytes that compress badly and differ, so that nothing on the way can be clever.
pub fn value(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

/// A Produce request of one batch, ready to send.
pub fn produce_frame(topic: &str, partition: usize, acks: i16, batch: &[u8]) -> Vec<u8> {
    Builder::default()
        .i16(-1) // no transactional id
        .i16(acks)
        .i32(30_000)
        .i32(1)
        .string(topic)
        .i32(1)
        .i32(partition as i32)
        .bytes(batch)
        .request(PRODUCE)
}

/// The bytes of a Produce answer without an error, length field included.
pub fn produce_answer_bytes(topic: &str) -> usize {
    produce_error_at(topic) + 2 + 8 + 8 + 8 + 4 + 2 + 4
}

/// Where in a Produce answer, from its length field on, the partition's error code stands.
pub fn produce_error_at(topic: &str) -> usize {
    4 + 4 + 4 + 2 + topic.len() + 4 + 4
}

/// Sends a frame of [`produce_frame`] and waits for its answer.
pub fn produce(stream: &mut TcpStream, topic: &str, frame: &[u8]) -> Result<()> {
    let mut answer = call(stream, frame)?;
    answer.at = produce_error_at(topic) - 4;
    match answer.i16() {
        0 => Ok(()),
        code => Err(format!("Produce answered error {code}").into()),
    }
}

/// A Fetch request of one partition, ready to send; bytes are what it asks at most, and it waits for one.
pub fn fetch_frame(topic: &str, partition: usize, offset: i64, bytes_max: i32) -> Vec<u8> {
    Builder::default()
        .i32(-1) // not a replica
        .i32(500) // ms to wait
        .i32(1) // bytes to wait for
        .i32(bytes_max)
        .i8(0) // read_uncommitted
        .i32(0) // no session
        .i32(-1)
        .i32(1)
        .string(topic)
        .i32(1)
        .i32(partition as i32)
        .i32(-1) // leader epoch not known
        .i64(offset)
        .i64(-1) // no log start of a follower
        .i32(bytes_max)
        .i32(0) // nothing forgotten
        .string("") // no rack
        .request(FETCH)
}

/// The bytes of a Fetch answer before its records, length field included, for a partition without aborted
/// transactions; the records' length is the last field of them.
pub fn fetch_head_bytes(topic: &str) -> usize {
    fetch_error_at(topic) + 2 + 8 + 8 + 8 + 4 + 4 + 4
}

/// Where in a Fetch answer, from its length field on, the partition's error code stands.
pub fn fetch_error_at(topic: &str) -> usize {
    4 + 4 + 4 + 2 + 4 + 4 + 2 + topic.len() + 4 + 4
}

/// A connection that sends each write at once.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends a frame and reads the answer's body.
pub fn call(stream: &mut TcpStream, frame: &[u8]) -> io::Result<Answer> {
    stream.write_all(frame)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut bytes = vec![0; i32::from_be_bytes(length) as usize];
    stream.read_exact(&mut bytes)?;
    Ok(Answer { bytes, at: 4 })
}

/// Asks for the versions of all requests: the cheapest question that has an answer.
pub fn api_versions(stream: &mut TcpStream) -> Result<()> {
    match call(stream, &Builder::default().request(API_VERSIONS))?.i16() {
        0 => Ok(()),
        code => Err(format!("ApiVersions answered error {code}").into()),
    }
}

/// Creates a topic and waits until each partition has a leader.
pub fn create_topic(address: SocketAddr, name: &str, partitions: usize) -> Result<()> {
    let mut stream = connect(address)?;
    let create = Builder::default()
        .i32(1)
        .string(name)
        .i32(partitions as i32)
        .i16(1) // replicas
        .i32(0) // no assignments
        .i32(0) // no settings
        .i32(30_000)
        .i8(0)
        .request(CREATE_TOPICS);
    let mut answer = call(&mut stream, &create)?;
    answer.at += 4 + 4;
    answer.skip_string();
    match answer.i16() {
        0 => {}
        code => return Err(format!("CreateTopics answered error {code}").into()),
    }
    let began = Instant::now();
    while !has_leaders(&mut stream, name, partitions)? {
        if began.elapsed() > Duration::from_secs(10) {
            return Err(format!("{name} has no leaders after 10 s").into());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Sets a setting of a topic, or of all brokers (no name).
pub fn alter(address: SocketAddr, kind: i8, name: &str, setting: (&str, &str)) -> Result<()> {
    let alter = Builder::default()
        .i32(1)
        .i8(kind)
        .string(name)
        .i32(1)
        .string(setting.0)
        .i8(0) // set
        .string(setting.1)
        .i8(0) // not only to try
        .request(INCREMENTAL_ALTER_CONFIGS);
    let mut answer = call(&mut connect(address)?, &alter)?;
    answer.at += 4 + 4;
    match answer.i16() {
        0 => Ok(()),
        code => Err(format!("{setting:?} answered error {code}").into()),
    }
}

/// Deletes a topic.
pub fn delete_topic(address: SocketAddr, name: &str) -> Result<()> {
    let delete = Builder::default()
        .i32(1)
        .string(name)
        .i32(30_000)
        .request(DELETE_TOPICS);
    let mut answer = call(&mut connect(address)?, &delete)?;
    answer.at += 4 + 4;
    answer.skip_string();
    match answer.i16() {
        0 => Ok(()),
        code => Err(format!("DeleteTopics answered error {code}").into()),
    }
}

/// Waits until groups can be asked.
pub fn find_coordinator(stream: &mut TcpStream) -> Result<()> {
    let ask = Builder::default().string("bench").request(FIND_COORDINATOR);
    let began = Instant::now();
    loop {
        match call(stream, &ask)?.i16() {
            0 => return Ok(()),
            code if began.elapsed() > Duration::from_secs(10) => {
                return Err(format!("FindCoordinator answered error {code}").into());
            }
            _ => thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Commits an offset of a topic's first partition for a group without members, which it makes.
pub fn commit_offset(stream: &mut TcpStream, group: &str, topic: &str) -> Result<()> {
    let commit = Builder::default()
        .string(group)
        .i32(-1) // no generation
        .string("") // no member
        .i64(-1) // kept as long as the broker keeps
        .i32(1)
        .string(topic)
        .i32(1)
        .i32(0) // partition
        .i64(1) // offset
        .string("") // no metadata
        .request(OFFSET_COMMIT);
    let mut answer = call(stream, &commit)?;
    answer.at += 4;
    answer.skip_string();
    answer.at += 4 + 4;
    match answer.i16() {
        0 => Ok(()),
        code => Err(format!("OffsetCommit answered error {code}").into()),
    }
}

fn has_leaders(stream: &mut TcpStream, name: &str, partitions: usize) -> Result<bool> {
    let ask = Builder::default()
        .i32(1)
        .string(name)
        .i8(0) // create nothing
        .i8(0)
        .i8(0)
        .request(METADATA);
    let mut answer = call(stream, &ask)?;
    answer.at += 4; // throttle time
    for _broker in 0..answer.i32() {
        answer.at += 4;
        answer.skip_string();
        answer.at += 4;
        answer.skip_string();
    }
    answer.skip_string();
    answer.at += 4 + 4; // controller, count of topics
    let error = answer.i16();
    answer.skip_string();
    answer.i8();
    let count = answer.i32();
    let mut led = 0;
    for _partition in 0..count {
        let error = answer.i16();
        answer.at += 4;
        let leader = answer.i32();
        led += usize::from(error == 0 && leader >= 0);
        answer.at += 4;
        answer.skip_i32s();
        answer.skip_i32s();
        answer.skip_i32s();
    }
    Ok(error == 0 && led == partitions)
}
