//! What the broker costs while it does nothing: memory, disk writes, wake-ups, start, size on disk, crates.

mod support;

use std::collections::HashSet;
use std::fs;
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use support::process::{self, Process};
use support::report::{self, Target, figure};
use support::shim::Shim;
use support::{Args, Result, client};

const CONNECTIONS: usize = 500;
const QUIET: Duration = Duration::from_secs(10);
const STARTS: usize = 20;

fn main() -> Result<()> {
    let args = Args::parse()?;
    report::heading("idle");
    if args.wants("resident") {
        resident()?;
    }
    if args.wants("start") {
        start()?;
    }
    if args.wants("size") {
        size()?;
    }
    Ok(())
}

/// Memory, then ten quiet seconds, with a topic that was used and with idle connections.
fn resident() -> Result<()> {
    let directory = tempfile::tempdir_in(support::scratch())?;
    let broker = Process::start(process::broker(&directory.path().join("data"), &[]))?;
    let fresh = status_kib(&broker, "VmRSS:")? / 1024.0;
    figure("resident at idle", fresh, "MiB", None, Target::AtMost(4.0));

    let before = private_kib(&broker)?;
    let mut connections = Vec::new();
    for _connection in 0..CONNECTIONS {
        let mut stream = client::connect(broker.address)?;
        client::api_versions(&mut stream)?;
        connections.push(stream);
    }
    let each = (private_kib(&broker)? - before) / CONNECTIONS as f64;
    let name = "user-space memory an idle connection";
    figure(name, each, "KiB", None, Target::AtMost(24.0));
    let threads: f64 = status_kib(&broker, "Threads:")?;
    figure(
        "  threads, one 16 KiB kernel stack each",
        threads,
        "",
        None,
        Target::None,
    );

    // What starting and connecting left to do is done before the quiet time.
    thread::sleep(Duration::from_secs(2));
    let (writes, wakes) = (write_bytes(&broker)?, context_switches(&broker)?);
    thread::sleep(QUIET);
    let written = write_bytes(&broker)? - writes;
    let woken = context_switches(&broker)? - wakes;
    figure(
        "disk writes in 10 s",
        written,
        "bytes",
        None,
        Target::AtMost(0.0),
    );
    figure(
        "wake-ups in 10 s, all threads",
        woken,
        "",
        None,
        Target::AtMost(20.0),
    );
    drop::<Vec<TcpStream>>(connections);
    broker.stop()
}

/// From the start of the process to the first answer, on an empty directory, without the time in syncs.
fn start() -> Result<()> {
    let shim = Shim::new(&support::scratch())?;
    let (mut starts, mut in_syncs) = (Vec::new(), Vec::new());
    let before = shim.counts()?;
    for _start in 0..STARTS {
        let directory = tempfile::tempdir_in(support::scratch())?;
        let command = process::broker(&directory.path().join("data"), &[]);
        let syncing = shim.counts()?.sync_time;
        let began = Instant::now();
        let broker = Process::start_with(command, &shim)?;
        client::api_versions(&mut client::connect(broker.address)?)?;
        let whole = began.elapsed();
        let syncing = shim.counts()?.sync_time - syncing;
        starts.push(whole.saturating_sub(syncing).as_secs_f64() * 1e3);
        in_syncs.push(syncing.as_secs_f64() * 1e3);
        broker.stop()?;
    }
    let after = shim.counts()?;
    let syncs = after.syncs + after.directory_syncs - before.syncs - before.directory_syncs;
    let name = "start to first answer, without syncs";
    figure(
        name,
        report::median(starts),
        "ms",
        None,
        Target::AtMost(20.0),
    );
    figure(
        "  in syncs",
        report::median(in_syncs),
        "ms",
        None,
        Target::None,
    );
    let syncs = syncs as f64 / STARTS as f64;
    figure("  syncs, start and stop", syncs, "", None, Target::None);
    Ok(())
}

/// The binary, and the crates that it is made of.
fn size() -> Result<()> {
    let bytes = fs::metadata(env!("CARGO_BIN_EXE_ottla"))?.len() as f64;
    figure(
        "binary size",
        bytes / (1 << 20) as f64,
        "MiB",
        None,
        Target::AtMost(3.0),
    );
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let tree = Command::new(cargo)
        .args(["tree", "--edges", "normal", "--prefix", "none"])
        .args(["--offline", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()?;
    if !tree.status.success() {
        return Err(String::from_utf8_lossy(&tree.stderr).into());
    }
    let crates: HashSet<_> = tree.stdout.split(|&b| b == b'\n').collect();
    let count = crates.iter().filter(|line| !line.is_empty()).count() as f64;
    figure(
        "size in crates, cargo tree",
        count,
        "",
        None,
        Target::AtMost(20.0),
    );
    Ok(())
}

/// The number after `field` in `/proc/PID/status`.
fn status_kib(broker: &Process, field: &str) -> Result<f64> {
    number_after(&broker.proc("status")?, field)
}

/// Memory that only this process has, from the sum over its mappings.
fn private_kib(broker: &Process) -> Result<f64> {
    let sums = broker.proc("smaps_rollup")?;
    Ok(number_after(&sums, "Private_Clean:")? + number_after(&sums, "Private_Dirty:")?)
}

fn write_bytes(broker: &Process) -> Result<f64> {
    number_after(&broker.proc("io")?, "\nwrite_bytes:")
}

/// Every time that a thread gave up the processor to wait, it had been woken before.
fn context_switches(broker: &Process) -> Result<f64> {
    let mut sum = 0.0;
    for task in fs::read_dir(format!("/proc/{}/task", broker.id()))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        sum += number_after(&status, "\nvoluntary_ctxt_switches:")?;
    }
    Ok(sum)
}

fn number_after(text: &str, field: &str) -> Result<f64> {
    let (_, rest) = text.split_once(field).ok_or("a field is missing")?;
    let word = rest
        .split_whitespace()
        .next()
        .ok_or("a number is missing")?;
    Ok(word.parse()?)
}
