//! Durable produce: one record of 100 B a batch, acks=all, closed loops, beside the bare skeleton.
//!
//! On the plain disk, the skeleton (see `support/skeleton.rs`) is the limit. With each sync 5 ms slower the limit is
//! the number of turns: 64 connections that all make every turn would get 12,500 a second.

mod support;

use std::path::Path;
use std::time::Duration;
use support::process::{self, Process};
use support::report::{self, Pairs, Target};
use support::shim::Shim;
use support::{Args, Result, bare, client, driver};

const ONE: &str = "one";
const SPREAD: &str = "spread";
const CONNECTIONS: usize = 64;
const SLOWER: Duration = Duration::from_millis(5);

fn main() -> Result<()> {
    let args = Args::parse()?;
    if !args.child.is_empty() {
        return bare::serve(&args.child);
    }
    let directory = tempfile::tempdir_in(support::scratch())?;
    report::heading("durable produce: 100 B records, one a batch, acks=all");
    if let Some(address) = &args.bootstrap {
        let topics = format!("-{}", std::process::id());
        let other = Side::other(address, &topics)?;
        plain_disk(&args, &other, directory.path())?;
        return slow_disk(&args, &other, None, "as it is");
    }
    plain_disk(
        &args,
        &Side::broker(directory.path(), "plain")?,
        directory.path(),
    )?;
    let slow = Side::broker(directory.path(), "slow")?;
    slow.set_sync_delay(SLOWER)?;
    let skeleton = Side::bare(directory.path(), "skeleton")?;
    skeleton.set_sync_delay(SLOWER)?;
    slow_disk(&args, &slow, Some(&skeleton), "sync +5 ms")
}

/// Beside the skeleton, at 64 connections and at one.
fn plain_disk(args: &Args, ours: &Side, directory: &Path) -> Result<()> {
    let skeleton = Side::bare(directory, "skeleton")?;
    let echo = Side::bare(directory, "echo")?;
    for connections in [CONNECTIONS, 1] {
        let name = format!("plain disk, {connections} connections");
        if !args.wants(&name) {
            continue;
        }
        let frames = frames(&ours.one, connections, 1);
        let time = Duration::from_secs_f64(args.seconds.unwrap_or(0.7));
        let mut ours_counts = Counted::default();
        let mut bare_counts = Counted::default();
        let pairs = Pairs::measure(
            args.pairs.unwrap_or(9),
            || ours.run(&frames, 1, time, &mut ours_counts),
            || skeleton.run(&frames, 1, time, &mut bare_counts),
        )?;
        let echoed = echo.run(&frames, 1, time, &mut Counted::default())?;
        let ratio = Some(pairs.ratio());
        report::figure(&name, pairs.ours(), "acks/s", ratio, Target::Ratio(0.8));
        ours_counts.print(&name);
        report::figure(
            "  bare skeleton",
            pairs.bare(),
            "acks/s",
            None,
            Target::None,
        );
        bare_counts.print("  bare skeleton");
        report::figure("  bare echo", echoed, "acks/s", None, Target::None);
    }
    Ok(())
}

/// What group commit makes of a slow device.
fn slow_disk(args: &Args, ours: &Side, bare: Option<&Side>, disk: &str) -> Result<()> {
    let time = Duration::from_secs_f64(args.seconds.unwrap_or(2.0));
    let one_partition = frames(&ours.one, CONNECTIONS, 1);
    let spread = frames(&ours.spread, CONNECTIONS, CONNECTIONS);
    for (what, frames, target) in [
        ("one partition", &one_partition, 9_000.0),
        ("64 partitions", &spread, 6_000.0),
    ] {
        let name = format!("{disk}, {CONNECTIONS} connections, {what}");
        if args.wants(&name) {
            let mut counts = Counted::default();
            let rate = ours.run(frames, 1, time, &mut counts)?;
            report::figure(&name, rate, "acks/s", None, Target::AtLeast(target));
            counts.print(&name);
        }
    }
    if let Some(bare) = bare {
        let mut counts = Counted::default();
        let rate = bare.run(&one_partition, 1, time, &mut counts)?;
        let name = format!("  bare skeleton without a wait, {CONNECTIONS} connections");
        report::figure(&name, rate, "acks/s", None, Target::None);
        counts.print("  bare skeleton");
    }
    let name = format!("{disk}, 1 connection, 5 in flight against 1");
    if args.wants(&name) {
        let frame = &one_partition[..1];
        let mut counts = Counted::default();
        let single = ours.run(frame, 1, time, &mut Counted::default())?;
        let rate = ours.run(frame, 5, time, &mut counts)?;
        let ratio = Some(rate / single);
        report::figure(&name, rate, "acks/s", ratio, Target::Ratio(3.0));
        counts.print(&name);
    }
    Ok(())
}

/// One Produce request a connection, over the topic's first `partitions`.
fn frames(topic: &str, connections: usize, partitions: usize) -> Vec<Vec<u8>> {
    let batch = client::batch(&[client::value(100, 1)]);
    (0..connections)
        .map(|i| client::produce_frame(topic, i % partitions, -1, &batch))
        .collect()
}

/// A process that the driver drives, and the counter of its syncs.
struct Side {
    address: std::net::SocketAddr,
    process: Option<(Process, Shim)>,
    one: String,
    spread: String,
}

impl Side {
    fn broker(directory: &Path, name: &str) -> Result<Side> {
        let shim = Shim::new(&support::scratch())?;
        let process = Process::start_with(process::broker(&directory.join(name), &[]), &shim)?;
        let mut side = Side::other(&process.address.to_string(), "")?;
        side.process = Some((process, shim));
        Ok(side)
    }

    /// A broker that was not started here: its syncs cannot be counted.
    fn other(address: &str, suffix: &str) -> Result<Side> {
        let side = Side {
            address: address.parse()?,
            process: None,
            one: format!("{ONE}{suffix}"),
            spread: format!("{SPREAD}{suffix}"),
        };
        client::create_topic(side.address, &side.one, 1)?;
        client::create_topic(side.address, &side.spread, CONNECTIONS)?;
        Ok(side)
    }

    fn bare(directory: &Path, name: &str) -> Result<Side> {
        let batch_bytes = client::batch(&[client::value(100, 1)]).len();
        let skip = (frames(ONE, 1, 1)[0].len() - batch_bytes).to_string();
        let answer = client::produce_answer_bytes(ONE).to_string();
        let path = directory.join("skeleton.log");
        let path = path.to_str().ok_or("a path that is not UTF-8")?;
        let command = match name {
            "echo" => process::bare(&["echo", &skip, &answer])?,
            _ => process::bare(&[name, path, &skip, &answer])?,
        };
        let shim = Shim::new(&support::scratch())?;
        let process = Process::start_with(command, &shim)?;
        Ok(Side {
            address: process.address,
            process: Some((process, shim)),
            one: ONE.into(),
            spread: SPREAD.into(),
        })
    }

    fn set_sync_delay(&self, delay: Duration) -> Result<()> {
        if let Some((_, shim)) = &self.process {
            shim.set_sync_delay(delay)?;
        }
        Ok(())
    }

    /// Drives it; returns answers a second and adds up what was counted.
    fn run(
        &self,
        frames: &[Vec<u8>],
        in_flight: usize,
        time: Duration,
        counted: &mut Counted,
    ) -> Result<f64> {
        let load = driver::Load {
            frames,
            in_flight,
            warm_up: Duration::from_millis(200),
            time,
        };
        let mut syncs = Vec::new();
        let outcome = driver::run(self.address, &load, || {
            if let Some((_, shim)) = &self.process {
                syncs.push(shim.counts().map_or(0, |c| c.syncs + c.directory_syncs));
            }
        })?;
        counted.requests += outcome.answers;
        if let [before, after] = syncs[..] {
            counted.syncs += after - before;
        }
        Ok(outcome.rate)
    }
}

/// Requests and the syncs that answered them, summed over a figure's runs.
#[derive(Default)]
struct Counted {
    requests: u64,
    syncs: u64,
}

impl Counted {
    fn print(&self, name: &str) {
        if self.syncs > 0 {
            let ratio = self.requests as f64 / self.syncs as f64;
            let (requests, syncs) = (self.requests, self.syncs);
            println!("{name}: {requests} requests, {syncs} syncs, {ratio:.1} requests a sync");
        }
    }
}
