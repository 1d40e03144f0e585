//! A broker of some size: making 1,000 partitions, starting with them and 200 groups after a clean stop, and the memory
//! that it then takes with 100 connections.

mod support;

use std::net::SocketAddr;
use std::time::Instant;
use support::process::{self, Process};
use support::report::{self, Target, figure};
use support::{Args, Result, client};

const TOPICS: usize = 10;
const PARTITIONS_PER_TOPIC: usize = 100;
const GROUPS: usize = 200;
const CONNECTIONS: usize = 100;
const STARTS: usize = 9;

fn main() -> Result<()> {
    let args = Args::parse()?;
    let directory = tempfile::tempdir_in(support::scratch())?;
    let data = directory.path().join("data");
    report::heading("start: 10 topics of 100 partitions, a record in each, 200 groups");
    fill(&data)?;
    let (mut starts, mut stops) = (Vec::new(), Vec::new());
    for _start in 0..args.pairs.unwrap_or(STARTS) {
        let broker = Process::start(process::broker(&data, &[]))?;
        client::api_versions(&mut client::connect(broker.address)?)?;
        starts.push(broker.start_time.as_secs_f64() * 1e3);
        let began = Instant::now();
        broker.stop()?;
        stops.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let start = report::median(starts);
    let name = "start after a clean stop";
    figure(name, start, "ms", None, Target::AtMost(300.0));
    figure("  stop", report::median(stops), "ms", None, Target::None);
    resident(&data)
}

fn fill(data: &std::path::Path) -> Result<()> {
    let broker = Process::start(process::broker(data, &[]))?;
    let names: Vec<String> = (0..TOPICS).map(|i| format!("start-{i}")).collect();
    let began = Instant::now();
    for name in &names {
        broker.create_topic(name, PARTITIONS_PER_TOPIC)?;
    }
    let seconds = began.elapsed().as_secs_f64();
    let each = seconds * 1e3 / (TOPICS * PARTITIONS_PER_TOPIC) as f64;
    figure("making a partition", each, "ms", None, Target::None);
    for name in &names {
        write_a_record(broker.address, name)?;
    }
    let mut stream = client::connect(broker.address)?;
    client::find_coordinator(&mut stream)?;
    for group in 0..GROUPS {
        let topic = &names[group % TOPICS];
        client::commit_offset(&mut stream, &format!("group-{group}"), topic)?;
    }
    drop(stream);
    broker.stop()
}

/// Writes a record into each partition, and waits until all are synced.
fn write_a_record(address: SocketAddr, topic: &str) -> Result<()> {
    let batch = client::batch(&[client::value(100, 1)]);
    let mut stream = client::connect(address)?;
    for partition in 0..PARTITIONS_PER_TOPIC {
        client::call(
            &mut stream,
            &client::produce_frame(topic, partition, -1, &batch),
        )?;
    }
    Ok(())
}

fn resident(data: &std::path::Path) -> Result<()> {
    let broker = Process::start(process::broker(data, &[]))?;
    let mut connections = Vec::new();
    for _connection in 0..CONNECTIONS {
        let mut stream = client::connect(broker.address)?;
        client::api_versions(&mut stream)?;
        connections.push(stream);
    }
    let status = broker.proc("status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    let mib = kib.ok_or("VmRSS is missing")?.parse::<f64>()? / 1024.0;
    let name = "resident with 100 connections";
    figure(name, mib, "MiB", None, Target::AtMost(48.0));
    drop(connections);
    broker.stop()
}
