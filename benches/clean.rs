//! Compaction: what a producer of another topic feels of it, and how fast it is beside a bare copy of the same bytes.
//!
//! The first is a ratio of two runs on one broker, with compaction at full speed and held up by its own limit; the log
//! is so large, and the map so small, that there is always another pass to make.

mod support;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use support::process::{self, Process};
use support::report::{self, Pairs, Target};
use support::{Args, Result, client};

const LIMIT: &str = "log.cleaner.io.max.bytes.per.second";
const COMPACT: (&str, &str) = ("cleanup.policy", "compact");
const SEGMENT: &str = "log.segment.bytes=16777216";
/// A change of the limit is in force after so long.
const SETTLED: Duration = Duration::from_millis(1200);
const BATCH_RECORDS: usize = 500;
const VALUE_BYTES: usize = 100;
const SENDERS: usize = 8;

fn main() -> Result<()> {
    let args = Args::parse()?;
    let directory = tempfile::tempdir_in(support::scratch())?;
    report::heading("compaction: 100 B records with keys, 500 a batch");
    beside_a_producer(&args, &directory.path().join("beside"))?;
    beside_a_copy(&args, &directory.path().join("speed"))
}

/// The 99th percentile of a producer's acknowledgements, with compaction to without.
fn beside_a_producer(args: &Args, data: &Path) -> Result<()> {
    let name = "p99 of acks=all beside compaction";
    if !args.wants(name) {
        return Ok(());
    }
    let settings = [SEGMENT, "log.cleaner.min.cleanable.ratio=0.01"];
    let broker = Process::start(process::broker(data, &settings))?;
    let address = broker.address;
    client::alter(address, client::BROKER, "", (LIMIT, "1"))?;
    for topic in ["paced", "keyed"] {
        client::create_topic(address, topic, 1)?;
    }
    fill(address, "keyed", 6_000, 2_000_000)?;
    client::alter(address, client::TOPIC, "keyed", COMPACT)?;
    let frame = client::produce_frame("paced", 0, -1, &client::batch(&[client::value(100, 1)]));
    let time = Duration::from_secs_f64(args.seconds.unwrap_or(2.0));
    let run = |limit: &str| -> Result<(f64, f64)> {
        client::alter(address, client::BROKER, "", (LIMIT, limit))?;
        thread::sleep(SETTLED);
        let (before, began) = (moved_bytes(&broker)?, Instant::now());
        let p99_ms = p99_ms(address, &frame, time)?;
        let moved = moved_bytes(&broker)? - before;
        Ok((p99_ms, moved / began.elapsed().as_secs_f64() / 1e6))
    };
    let mut moved = Vec::new();
    let pairs = Pairs::measure(
        args.pairs.unwrap_or(7),
        || {
            let (p99_ms, megabytes) = run("1e12")?;
            moved.push(megabytes);
            Ok::<_, Box<dyn std::error::Error>>(p99_ms)
        },
        || Ok(run("1")?.0),
    )?;
    let ratio = Some(pairs.ratio());
    report::figure(name, pairs.ours(), "ms", ratio, Target::RatioAtMost(2.0));
    report::figure("  without", pairs.bare(), "ms", None, Target::None);
    let moved = report::median(moved);
    report::figure(
        "  read and written meanwhile",
        moved,
        "MB/s",
        None,
        Target::None,
    );
    broker.kill()
}

/// How fast one pass goes over a log, beside reading, writing and syncing its files once.
fn beside_a_copy(args: &Args, data: &Path) -> Result<()> {
    let name = "one pass over a log";
    if !args.wants(name) {
        return Ok(());
    }
    let settings = [
        SEGMENT,
        "log.cleaner.dedupe.buffer.size=67108864",
        "log.cleaner.backoff.ms=0",
    ];
    let broker = Process::start(process::broker(data, &settings))?;
    let count = args.pairs.unwrap_or(5);
    let topics: Vec<String> = (0..count).map(|n| format!("keyed{n}")).collect();
    for topic in &topics {
        client::create_topic(broker.address, topic, 1)?;
        fill(broker.address, topic, 1_500, 400_000)?;
    }
    let (mut passes, mut copies) = (topics.iter(), topics.iter());
    let pairs = Pairs::measure(
        count,
        || {
            let topic = passes.next().ok_or("a topic for each pair")?;
            let bytes = sealed_bytes(&data.join(format!("{topic}-0")))?;
            let began = Instant::now();
            client::alter(broker.address, client::TOPIC, topic, COMPACT)?;
            while !is_compacted(data, topic) {
                thread::sleep(Duration::from_millis(1));
            }
            Ok::<_, Box<dyn std::error::Error>>(bytes / began.elapsed().as_secs_f64() / 1e6)
        },
        || {
            let topic = copies.next().ok_or("a topic for each pair")?;
            let directory = data.join(format!("{topic}-0"));
            let (bytes, began) = (sealed_bytes(&directory)?, Instant::now());
            copy(&directory, &data.with_extension("copy"))?;
            Ok(bytes / began.elapsed().as_secs_f64() / 1e6)
        },
    )?;
    report::figure(
        name,
        pairs.ours(),
        "MB/s",
        Some(pairs.ratio()),
        Target::None,
    );
    report::figure("  bare copy", pairs.bare(), "MB/s", None, Target::None);
    broker.kill()
}

/// Appends so many batches, whose keys are chosen among `keys`.
fn fill(address: SocketAddr, topic: &str, batches: usize, keys: u64) -> Result<()> {
    thread::scope(|scope| {
        let send = |sender: usize| -> std::result::Result<(), String> {
            let mut stream = client::connect(address).map_err(|e| e.to_string())?;
            for n in (sender..batches).step_by(SENDERS) {
                let noise = client::value(BATCH_RECORDS * VALUE_BYTES, n as u64 + 1);
                let pick = |value: &[u8]| {
                    let word: [u8; 8] = value[..8].try_into().expect("a value is longer");
                    (u64::from_le_bytes(word) % keys).to_be_bytes()
                };
                let chosen: Vec<_> = noise.chunks(VALUE_BYTES).map(pick).collect();
                let keys = chosen.iter().map(|key| Some(&key[..]));
                let pairs: Vec<_> = keys.zip(noise.chunks(VALUE_BYTES)).collect();
                let frame = client::produce_frame(topic, 0, -1, &client::batch_of(&pairs));
                client::produce(&mut stream, topic, &frame).map_err(|e| e.to_string())?;
            }
            Ok(())
        };
        let senders: Vec<_> = (0..SENDERS).map(|n| scope.spawn(move || send(n))).collect();
        for sender in senders {
            sender.join().map_err(|_| "a sender panicked")??;
        }
        Ok(())
    })
}

/// One producer, one record a request, one request at a time.
fn p99_ms(address: SocketAddr, frame: &[u8], time: Duration) -> Result<f64> {
    let mut stream = client::connect(address)?;
    let mut all = Vec::new();
    let began = Instant::now();
    while began.elapsed() < time {
        let sent = Instant::now();
        client::produce(&mut stream, "paced", frame)?;
        all.push(sent.elapsed().as_secs_f64() * 1e3);
    }
    all.sort_by(f64::total_cmp);
    Ok(all[all.len() * 99 / 100])
}

/// What a process has read and written by system calls.
fn moved_bytes(process: &Process) -> Result<f64> {
    let io = process.proc("io")?;
    let counted = io.lines().filter_map(|line| line.split_once("char: "));
    Ok(counted
        .filter_map(|(_, count)| count.parse::<f64>().ok())
        .sum())
}

fn sealed(directory: &Path) -> Result<Vec<std::path::PathBuf>> {
    let entries = fs::read_dir(directory)?.collect::<std::io::Result<Vec<_>>>()?;
    let paths = entries.into_iter().map(|entry| entry.path());
    let mut logs: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|e| e == "log"))
        .collect();
    logs.sort();
    logs.pop();
    Ok(logs)
}

fn sealed_bytes(directory: &Path) -> Result<f64> {
    let sizes = sealed(directory)?.into_iter().map(fs::metadata);
    Ok(sizes.map(|m| m.map_or(0, |m| m.len())).sum::<u64>() as f64)
}

/// Whether a pass over a topic has ended.
fn is_compacted(data: &Path, topic: &str) -> bool {
    let ended = fs::read_to_string(data.join("cleaner-offset-checkpoint"));
    ended.is_ok_and(|text| {
        text.lines()
            .any(|line| line.starts_with(&format!("{topic} ")))
    })
}

/// All sealed segments of a partition into one synced file.
fn copy(directory: &Path, to: &Path) -> Result<()> {
    let mut out = File::create(to)?;
    let mut buffer = vec![0; 1 << 16];
    for path in sealed(directory)? {
        let mut from = File::open(path)?;
        loop {
            match from.read(&mut buffer)? {
                0 => break,
                n => out.write_all(&buffer[..n])?,
            }
        }
    }
    out.sync_all()?;
    Ok(fs::remove_file(to)?)
}
