//! The load of one thread: its connections, each with a part to play, in rounds: all ask, and then all are answered.
//!
//! [`Truth`] is what all threads know of the log: whoever sees a batch, its producer when it is acknowledged or a
//! consumer, says what it is; two must never say different things of one place.

use crate::common::client::{
    Client, FETCH, LONG_AGO_MS, PRODUCE, batches, bytes, fetch, produce, records,
};
use crate::common::codecs::{CODECS, compress};
use crate::common::requests;
use crate::hostile::Hostile;
use ottla::api::metadata::MetadataRequest;
use ottla::batch::{HEADER_BYTES, Header, crc};
use rand::Rng;
use rand::rngs::StdRng;
use socket2::{Domain, Socket, Type};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

pub const TOPIC: &str = "load";
pub const PARTITIONS: i32 = 8;

/// Plain sizes of batches, in bytes, from the many to the few.
const SIZES: [usize; 5] = [100, 4_000, 30_000, 200_000, 900_000];
/// Beyond so many bytes in all only small batches are sent, for the disk's sake.
const LARGE_BYTES_MAX: u64 = 2 << 30;
/// What a reader asks for at a time.
const PIECE_BYTES: i32 = 256 << 10;
/// The requests of one that never reads: more than the answers' way holds.
const UNREAD: usize = 40;

/// A batch's CRC, which [`batches`] holds against the bytes, and its length.
type Print = (u32, i32);

fn print(header: &Header) -> Print {
    (header.crc, header.batch_length)
}

/// What is known of the topic's partitions.
#[derive(Default)]
pub struct Truth {
    /// Of each partition: what stands at an offset, and how many records.
    batches: [Mutex<HashMap<i64, (Print, i64)>>; PARTITIONS as usize],
    /// The largest offset that was acknowledged, or 0.
    ends: [AtomicU64; PARTITIONS as usize],
    acked: AtomicU64,
    acked_bytes: AtomicU64,
    fetched: AtomicU64,
    hostile: AtomicU64,
    /// Makes every batch another one.
    serial: AtomicU64,
}

impl Truth {
    fn says(&self, partition: i32, offset: i64, print: Print, count: i64) {
        let mut known = self.batches[partition as usize].lock().unwrap();
        let there = known.entry(offset).or_insert((print, count));
        assert_eq!(*there, (print, count), "{TOPIC}-{partition} at {offset}");
    }

    fn acknowledged(&self, partition: i32, offset: i64, header: &Header) {
        let count = i64::from(header.records_count);
        self.says(partition, offset, print(header), count);
        self.ends[partition as usize].fetch_max(offset as u64, Ordering::Relaxed);
        self.acked.fetch_add(1, Ordering::Relaxed);
        let bytes = header.total_bytes() as u64;
        self.acked_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Checks what a fetch at `offset` brought; returns the offset behind it.
    fn saw(&self, partition: i32, mut offset: i64, records: &[u8]) -> i64 {
        for (header, _) in batches(records) {
            assert_eq!(header.base_offset, offset, "{TOPIC}-{partition}: a gap");
            let count = i64::from(header.records_count);
            self.says(partition, offset, print(&header), count);
            offset += count;
            self.fetched.fetch_add(1, Ordering::Relaxed);
        }
        offset
    }

    /// Reads every partition from its beginning; returns the batches read, which are all that are known.
    pub fn read_back(&self, client: &mut Client) -> u64 {
        let mut read = 0;
        for partition in 0..PARTITIONS {
            let mut offset = 0;
            loop {
                let mut request = fetch(TOPIC, offset, 0, 0);
                request.topics[0].partitions[0].partition = partition;
                request.topics[0].partitions[0].partition_max_bytes = 4 << 20;
                client.send(FETCH, &request);
                let data = client.fetched();
                assert_eq!(data.error_code, 0);
                let next = self.saw(partition, offset, bytes(&data.records));
                if next == offset {
                    assert_eq!(offset, data.high_watermark);
                    break;
                }
                offset = next;
            }
            let known = self.batches[partition as usize].lock().unwrap();
            let (mut end, mut count) = (0, 0);
            while let Some((_, records)) = known.get(&end) {
                (end, count) = (end + records, count + 1);
            }
            assert_eq!((end, count), (offset, known.len()), "{TOPIC}-{partition}");
            read += known.len() as u64;
        }
        read
    }

    pub fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    pub fn fetched(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    pub fn hostile(&self) -> u64 {
        self.hostile.load(Ordering::Relaxed)
    }
}

/// Batches of every codec and size, to be made into others by a new time.
pub fn templates(rng: &mut StdRng) -> Vec<Vec<Vec<u8>>> {
    let of_size = |size: usize| {
        let count = size.div_ceil(2000).min(100);
        let mut value = || -> String {
            let word = |_| ["ottla ", "franz ", "milena ", "felice "][rng.random_range(0..4)];
            (0..size / count / 6).map(word).collect()
        };
        let values: Vec<String> = (0..count).map(|_| value()).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let plain = records(&values);
        let in_codec = |codec| plain.build_from(codec, &compress(codec, plain.records()));
        CODECS.map(in_codec).to_vec()
    };
    SIZES.map(of_size).to_vec()
}

/// A batch like `template` that was never sent before.
fn renewed(template: &[u8], serial: u64) -> (Vec<u8>, Header) {
    let (head, body) = template.split_first_chunk::<HEADER_BYTES>().unwrap();
    let mut header = Header::parse(head);
    let later_ms = serial as i64;
    header.base_timestamp = LONG_AGO_MS + later_ms;
    header.max_timestamp += later_ms;
    header.crc = crc(&header.encode(), body);
    ([&header.encode()[..], body].concat(), header)
}

/// What a client's kernel holds for it: over loopback it is the broker's own pages, which it must not pay for.
const RECEIVE_BUFFER_BYTES: usize = 32 << 10;
/// Ethernet's, since loopback's packets of 64 KiB are larger than a small box's buffers.
const SEGMENT_BYTES: u32 = 1448;

/// A connection as over a network.
pub fn connect(address: &str) -> Client {
    let address: SocketAddr = address.parse().expect("an address");
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES).unwrap();
    socket.set_tcp_mss(SEGMENT_BYTES).unwrap();
    socket.connect(&address.into()).expect("the broker accepts");
    Client::over(socket.into())
}

/// What a connection does.
enum Part {
    Produces(i32, VecDeque<Header>),
    /// From the end on, or again and again from somewhere.
    Follows(i32, i64),
    ReadsOld(i32, i64),
    /// Asks for much, once, and reads nothing of it.
    NeverReads,
}

/// One thread's connections.
pub struct Load {
    clients: Vec<(Client, Part)>,
    hostile: Hostile,
    truth: Arc<Truth>,
    templates: Arc<Vec<Vec<Vec<u8>>>>,
    rng: StdRng,
}

impl Load {
    pub fn new(
        address: &str,
        number: usize,
        connections: usize,
        truth: Arc<Truth>,
        templates: Arc<Vec<Vec<Vec<u8>>>>,
        rng: StdRng,
    ) -> Load {
        let of = |n: usize| {
            let partition = ((number + n) % PARTITIONS as usize) as i32;
            let part = match n * 100 / connections {
                0..60 => Part::Produces(partition, VecDeque::new()),
                60..75 => Part::Follows(partition, 0),
                75..85 => Part::ReadsOld(partition, 0),
                _ => Part::NeverReads,
            };
            (connect(address), part)
        };
        let mut load = Load {
            clients: (0..connections).map(of).collect(),
            hostile: Hostile::new(address),
            truth,
            templates,
            rng,
        };
        for (n, (client, part)) in load.clients.iter_mut().enumerate() {
            if matches!(part, Part::NeverReads) {
                ask_for_much(client, n as i32 % PARTITIONS);
            }
        }
        load
    }

    /// All ask, and all are answered.
    pub fn round(&mut self) {
        for at in 0..self.clients.len() {
            self.ask(at);
        }
        self.hostile.strike(&mut self.rng);
        self.truth.hostile.fetch_add(1, Ordering::Relaxed);
        for (client, part) in &mut self.clients {
            match part {
                Part::Produces(partition, sent) => {
                    for header in sent.drain(..) {
                        let answer = client.produced();
                        assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
                        let truth = &self.truth;
                        truth.acknowledged(*partition, answer.base_offset, &header);
                    }
                }
                Part::Follows(partition, offset) | Part::ReadsOld(partition, offset) => {
                    let data = client.fetched();
                    assert_eq!(data.error_code, 0);
                    *offset = self.truth.saw(*partition, *offset, bytes(&data.records));
                }
                Part::NeverReads => {}
            }
        }
    }

    fn ask(&mut self, at: usize) {
        let (client, part) = &mut self.clients[at];
        let rng = &mut self.rng;
        match part {
            Part::Produces(partition, sent) => {
                for _ in 0..rng.random_range(1..=3) {
                    let mut size = [0, 0, 0, 0, 1, 1, 1, 2, 2, 3][rng.random_range(0..10)];
                    if self.truth.acked_bytes.load(Ordering::Relaxed) > LARGE_BYTES_MAX {
                        size = 0;
                    } else if rng.random_ratio(1, 50) {
                        size = 4;
                    }
                    let codec = rng.random_range(0..CODECS.len());
                    let serial = self.truth.serial.fetch_add(1, Ordering::Relaxed);
                    let (batch, header) = renewed(&self.templates[size][codec], serial);
                    let mut request = produce(TOPIC, -1, &batch);
                    request.topic_data[0].partition_data[0].index = *partition;
                    client.send(PRODUCE, &request);
                    sent.push_back(header);
                }
            }
            Part::Follows(partition, offset) => {
                let mut request = fetch(TOPIC, *offset, 20, 1);
                request.topics[0].partitions[0].partition = *partition;
                client.send(FETCH, &request);
            }
            Part::ReadsOld(partition, offset) => {
                let end = self.truth.ends[*partition as usize].load(Ordering::Relaxed);
                if rng.random_ratio(1, 20) || *offset as u64 > end {
                    *offset = 0;
                }
                let mut request = fetch(TOPIC, *offset, 0, 0);
                request.topics[0].partitions[0].partition = *partition;
                request.topics[0].partitions[0].partition_max_bytes = PIECE_BYTES;
                client.send(FETCH, &request);
            }
            Part::NeverReads => {}
        }
    }
}

/// Asks for 64 MB of records as soon as there are some, or for all that the broker can say about itself.
fn ask_for_much(client: &mut Client, partition: i32) {
    let mut request = fetch(TOPIC, 0, i32::MAX, 8 << 20);
    request.max_bytes = 64 << 20;
    request.topics[0].partitions[0].partition = partition;
    request.topics[0].partitions[0].partition_max_bytes = 64 << 20;
    let settings = requests::describe_configs(4, &["1"]);
    for _ in 0..UNREAD {
        match partition % 4 {
            0 => client.send(4, &settings),
            1 => client.send(12, &MetadataRequest::default()),
            _ => client.send(FETCH, &request),
        }
    }
}
