//! Fetch throughput: one consumer, fetches of 1 MiB one after another over a warm topic, beside a bare `sendfile` loop
//! of the same bytes over loopback into the same sink.
//!
//! The sink reads into one reused buffer, or discards inside the kernel (`MSG_TRUNC`): the first is what a consumer
//! does at least, the second leaves the sending side as the only cost. `sendfile, asked` waits for a request before
//! each 1 MiB, as a broker must: what is lost between it and the bare loop is the turn-around, not the broker.

#![allow(unsafe_code)]

mod support;

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Instant;
use support::process::{self, Process};
use support::report::{self, Pairs, Target};
use support::{Args, Result, bare, client, sender};

const RECORD_BYTES: usize = 1_000;
const BATCH_BYTES: usize = 64 * 1024;
const FETCH_BYTES: usize = 1 << 20;
/// Just under Kafka's default segment size, so that the topic is one file.
const TOPIC_BYTES: usize = 1000 << 20;
const TOPIC: &str = "fetch";

fn main() -> Result<()> {
    let args = Args::parse()?;
    if !args.child.is_empty() {
        return bare::serve(&args.child);
    }
    let directory = tempfile::tempdir_in(support::scratch())?;
    report::heading("fetch: 1 consumer, 1 MiB a fetch, warm, against bare sendfile");
    let data = directory.path().join("data");
    let (ours, topic) = match &args.bootstrap {
        Some(_) => (None, format!("{TOPIC}-{}", std::process::id())),
        None => {
            let settings = ["log.flush.interval.messages=9223372036854775807"];
            let process = Process::start(process::broker(&data, &settings))?;
            (Some(process), TOPIC.into())
        }
    };
    let address = match (&args.bootstrap, &ours) {
        (Some(address), _) => address.parse()?,
        (None, Some(process)) => process.address,
        (None, None) => return Err("no broker".into()),
    };
    let filled = Filled::new(address, &topic)?;
    let file = match ours {
        Some(_) => data.join(format!("{TOPIC}-0/00000000000000000000.log")),
        None => filled.as_file(directory.path())?,
    };
    compare(&args, &filled, &file)
}

fn compare(args: &Args, filled: &Filled, file: &Path) -> Result<()> {
    let len = fs::metadata(file)?.len();
    if len != filled.bytes() as u64 {
        return Err(format!("{} has {len} bytes, not {}", file.display(), filled.bytes()).into());
    }
    let path = file.to_str().ok_or("a path that is not UTF-8")?;
    let bare = Process::start(process::bare(&["sendfile", path])?)?;
    let asked = Process::start(process::bare(&["sendfile-asked", path])?)?;
    let count = args.pairs.unwrap_or(7);
    for (sink, how) in [(Sink::Read, "reads"), (Sink::Discard, "discards")] {
        let name = format!("fetch, sink {how}");
        if !args.wants(&name) {
            continue;
        }
        let pairs = Pairs::measure(
            count,
            || filled.fetch_all(sink),
            || stream_all(bare.address, sink, filled.bytes(), false),
        )?;
        let ratio = Some(pairs.ratio());
        report::figure(&name, pairs.ours(), "GB/s", ratio, Target::Ratio(0.9));
        report::figure("  bare sendfile", pairs.bare(), "GB/s", None, Target::None);
        let pairs = Pairs::measure(
            count,
            || filled.fetch_all(sink),
            || stream_all(asked.address, sink, filled.bytes(), true),
        )?;
        let (value, ratio) = (pairs.bare(), Some(pairs.ratio()));
        report::figure("  sendfile, asked", value, "GB/s", ratio, Target::None);
    }
    Ok(())
}

/// A topic of equal batches, so that the next offset follows from the bytes that came.
struct Filled {
    address: SocketAddr,
    topic: String,
    batch: Vec<u8>,
    batch_records: usize,
    batches: usize,
}

impl Filled {
    fn new(address: SocketAddr, topic: &str) -> Result<Filled> {
        let batch_records = BATCH_BYTES / (RECORD_BYTES + 10);
        let values: Vec<_> = (0..batch_records)
            .map(|i| client::value(RECORD_BYTES, i as u64))
            .collect();
        let batch = client::batch(&values);
        let filled = Filled {
            address,
            topic: topic.into(),
            batches: TOPIC_BYTES / batch.len(),
            batch,
            batch_records,
        };
        client::create_topic(address, topic, 1)?;
        let frame = client::produce_frame(topic, 0, -1, &filled.batch);
        let error_at = client::produce_error_at(topic);
        sender::send(address, &[frame], filled.batches, 5, error_at)?;
        Ok(filled)
    }

    fn bytes(&self) -> usize {
        self.batches * self.batch.len()
    }

    /// A file of the topic's size, for a bare loop beside a broker whose files are elsewhere.
    fn as_file(&self, directory: &Path) -> Result<PathBuf> {
        let path = directory.join("equal.log");
        let mut file = File::create(&path)?;
        for _batch in 0..self.batches {
            file.write_all(&self.batch)?;
        }
        Ok(path)
    }

    /// Fetches the whole topic, one request after the other; returns gigabytes of records a second.
    fn fetch_all(&self, sink: Sink) -> Result<f64> {
        let mut stream = client::connect(self.address)?;
        let mut drain = Drain::new(sink);
        let mut head = vec![0; client::fetch_head_bytes(&self.topic)];
        let error_at = client::fetch_error_at(&self.topic);
        let (mut offset, mut bytes) = (0, 0);
        let began = Instant::now();
        while bytes < self.bytes() {
            let frame = client::fetch_frame(&self.topic, 0, offset, FETCH_BYTES as i32);
            stream.write_all(&frame)?;
            drain.exactly(&stream, &mut head)?;
            if head[error_at..error_at + 2] != [0, 0] {
                return Err(format!("answered with error {:?}", &head[error_at..][..2]).into());
            }
            let last = head.len() - 4;
            let records = u32::from_be_bytes(head[last..].try_into()?) as usize;
            if records < self.batch.len() {
                return Err(format!("{records} bytes of records at offset {offset}").into());
            }
            drain.away(&stream, records)?;
            // A broker may cut its last batch short; it is asked for again.
            let batches = records / self.batch.len();
            offset += (batches * self.batch_records) as i64;
            bytes += batches * self.batch.len();
        }
        Ok(bytes as f64 / 1e9 / began.elapsed().as_secs_f64())
    }
}

/// Takes `bytes` from a bare side; `asked`: in pieces, each after a request of a fetch's size.
fn stream_all(address: SocketAddr, sink: Sink, bytes: usize, asked: bool) -> Result<f64> {
    let mut stream = client::connect(address)?;
    let mut drain = Drain::new(sink);
    let frame = client::fetch_frame(TOPIC, 0, 0, FETCH_BYTES as i32);
    let mut left = bytes;
    let began = Instant::now();
    while left > 0 {
        let piece = left.min(FETCH_BYTES);
        if asked {
            stream.write_all(&frame)?;
        }
        drain.away(&stream, piece)?;
        left -= piece;
    }
    Ok(bytes as f64 / 1e9 / began.elapsed().as_secs_f64())
}

#[derive(Clone, Copy, PartialEq)]
enum Sink {
    Read,
    Discard,
}

/// Where received bytes end.
struct Drain {
    sink: Sink,
    buffer: Vec<u8>,
}

impl Drain {
    fn new(sink: Sink) -> Drain {
        let buffer = vec![0; FETCH_BYTES];
        Drain { sink, buffer }
    }

    /// Receives into `bytes` until they are full.
    fn exactly(&self, stream: &TcpStream, bytes: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < bytes.len() {
            filled += receive(stream, &mut bytes[filled..], 0)?;
        }
        Ok(())
    }

    /// Receives `len` bytes and forgets them.
    fn away(&mut self, stream: &TcpStream, mut len: usize) -> io::Result<()> {
        let flags = match self.sink {
            Sink::Read => 0,
            Sink::Discard => libc::MSG_TRUNC,
        };
        while len > 0 {
            let room = len.min(self.buffer.len());
            len -= receive(stream, &mut self.buffer[..room], flags)?;
        }
        Ok(())
    }
}

fn receive(stream: &TcpStream, bytes: &mut [u8], flags: libc::c_int) -> io::Result<usize> {
    let (fd, len) = (stream.as_raw_fd(), bytes.len());
    // SAFETY: the pointer and length are those of a live, writable slice.
    match unsafe { libc::recv(fd, bytes.as_mut_ptr().cast(), len, flags) } {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        n if n > 0 => Ok(n as usize),
        _ => Err(io::Error::last_os_error()),
    }
}
