//! Produce throughput into the page cache: uncompressed 1 KB records in 64 KiB batches, a few in flight on each
//! connection, beside a bare loop that receives into a buffer, computes CRC-32C once and writes to a file.

mod support;

use std::net::SocketAddr;
use std::path::Path;
use support::process::{self, Process};
use support::report::{self, Pairs, Target};
use support::{Args, Result, bare, client, sender};

const RECORD_BYTES: usize = 1_000;
const BATCH_BYTES: usize = 64 * 1024;
const RUN_BYTES: usize = 384 << 20;
const IN_FLIGHT: usize = 5;
/// What the bare side is sent speaks of this topic, though it does not look.
const BARE_TOPIC: &str = "bare";

fn main() -> Result<()> {
    let args = Args::parse()?;
    if !args.child.is_empty() {
        return bare::serve(&args.child);
    }
    let directory = tempfile::tempdir_in(support::scratch())?;
    report::heading("produce: 1 KB records, 64 KiB batches, page cache");
    let ours = match &args.bootstrap {
        Some(_) => None,
        None => Some(Process::start(process::broker(
            &directory.path().join("data"),
            &["log.flush.interval.messages=9223372036854775807"],
        ))?),
    };
    let address = match (&args.bootstrap, &ours) {
        (Some(address), _) => address.parse()?,
        (None, Some(process)) => process.address,
        (None, None) => return Err("no broker".into()),
    };
    for connections in [1, 4] {
        for (acks, acks_name) in [(1, "acks=1"), (-1, "acks=all")] {
            let name = format!("{acks_name}, {connections} connections");
            if args.wants(&name) {
                let bench = Bench::new(acks, connections, address, directory.path());
                bench.measure(&args, &name)?;
            }
        }
    }
    Ok(())
}

struct Bench<'a> {
    acks: i16,
    connections: usize,
    address: SocketAddr,
    directory: &'a Path,
    batch: Vec<u8>,
}

impl<'a> Bench<'a> {
    fn new(acks: i16, connections: usize, address: SocketAddr, directory: &'a Path) -> Self {
        Bench {
            acks,
            connections,
            address,
            directory,
            batch: batch(),
        }
    }

    fn measure(&self, args: &Args, name: &str) -> Result<()> {
        let skip = (self.frame(BARE_TOPIC, 0).len() - self.batch.len()).to_string();
        let answer = client::produce_answer_bytes(BARE_TOPIC).to_string();
        let directory = self.directory.to_str().ok_or("a path that is not UTF-8")?;
        let bare = Process::start(process::bare(&["receive", directory, &skip, &answer])?)?;
        let mut run = 0;
        let pairs = Pairs::measure(
            args.pairs.unwrap_or(5),
            || {
                run += 1;
                self.run_ours(run)
            },
            || self.run(BARE_TOPIC, bare.address),
        )?;
        let ratio = Some(pairs.ratio());
        report::figure(name, pairs.ours(), "MB/s", ratio, Target::Ratio(0.7));
        let name = "  bare receive, CRC-32C, write";
        report::figure(name, pairs.bare(), "MB/s", None, Target::None);
        Ok(())
    }

    /// Into a fresh topic, deleted afterwards so that the disk does not have to write what was only measured.
    fn run_ours(&self, run: usize) -> Result<f64> {
        let (bench, acks) = (std::process::id(), self.acks);
        let topic = format!("produce-{bench}-{}-{acks}-{run}", self.connections);
        client::create_topic(self.address, &topic, self.connections)?;
        let rate = self.run(&topic, self.address)?;
        client::delete_topic(self.address, &topic)?;
        Ok(rate)
    }

    /// One partition a connection; returns megabytes of batches a second.
    fn run(&self, topic: &str, address: SocketAddr) -> Result<f64> {
        let count = RUN_BYTES / self.batch.len() / self.connections;
        let frames: Vec<_> = (0..self.connections)
            .map(|partition| self.frame(topic, partition))
            .collect();
        let error_at = client::produce_error_at(topic);
        let seconds = sender::send(address, &frames, count, IN_FLIGHT, error_at)?;
        Ok((count * self.connections * self.batch.len()) as f64 / 1e6 / seconds)
    }

    fn frame(&self, topic: &str, partition: usize) -> Vec<u8> {
        client::produce_frame(topic, partition, self.acks, &self.batch)
    }
}

/// As many records as fit into the batch size.
fn batch() -> Vec<u8> {
    let count = BATCH_BYTES / (RECORD_BYTES + 10);
    let values: Vec<_> = (0..count)
        .map(|i| client::value(RECORD_BYTES, i as u64))
        .collect();
    client::batch(&values)
}
