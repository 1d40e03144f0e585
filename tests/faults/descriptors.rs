//! Out of descriptors: newcomers wait, and nobody else notices.

use crate::common::producer::{Client, batch};
use crate::common::{self, Broker};
use std::fs;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const FLOOD: usize = 300;

fn say(client: &mut Client, topic: &str, n: i64) {
    let value = format!("{n} {}", "v".repeat(100));
    let said = client.produce(topic, 0, &batch(None, &[value.as_bytes()]));
    assert_eq!(said.unwrap(), Ok(n), "{topic}");
}

/// A connection that a broker answers on.
fn connect(address: &str) -> Client {
    let began = Instant::now();
    loop {
        let mut client = Client::connect(address).unwrap();
        if client.topic_id("t").is_ok() {
            return client;
        }
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "no connection is served"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A broker that is started with few descriptors leaves the storage its share: a flood of connections takes the others.
#[test]
fn a_flood_of_connections_leaves_the_log_its_descriptors() {
    let data = tempfile::tempdir().unwrap();
    let inner = common::command(data.path(), &["log.retention.check.interval.ms=20"]);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 200 && exec \"$0\" \"$@\""]);
    command.arg(inner.get_program()).args(inner.get_args());
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    let broker = Broker::run(command).unwrap_or_else(|(status, log)| panic!("{status}\n{log}"));
    let mut client = Client::connect(&broker.address).unwrap();
    let small = [("segment.bytes", "300"), ("file.delete.delay.ms", "0")];
    client.create(
        "t",
        1,
        &[&small[..], &[("retention.bytes", "5000")]].concat(),
    );
    let flood: Vec<TcpStream> = (0..FLOOD)
        .map(|_| TcpStream::connect(&broker.address).unwrap())
        .collect();
    // Each other one makes a segment, whose beginning retention takes away again.
    for n in 0..200 {
        say(&mut client, "t", n);
    }
    client.create("made-meanwhile", 3, &small);
    say(&mut client, "made-meanwhile", 0);
    while client.list_offset("t", 0, -2).unwrap().unwrap() < 100 {}
    drop(flood);
    let mut other = connect(&broker.address);
    assert_eq!(other.list_offset("t", 0, -1).unwrap(), Ok(200));
    let log = broker.log();
    assert!(log.contains("max.connections is reached"), "{log}");
    for word in ["panicked", "ERROR", "Too many open files"] {
        assert!(!log.contains(word), "{word}: {log}");
    }
    assert!(broker.stop().success());
    let broker = Broker::start(data.path(), &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    assert_eq!(client.list_offset("t", 0, -1).unwrap(), Ok(200));
}

/// The processor time that a process has used.
fn used(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// Somebody lowers the limit of a broker that runs, so that not even those are left that it counts on.
#[test]
fn accept_backs_off_without_descriptors_and_others_go_on() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    client.create("t", 1, &[]);
    say(&mut client, "t", 0);
    let (pid, open) = (broker.pid(), format!("/proc/{}/fd", broker.pid()));
    let limit = fs::read_dir(&open).unwrap().count() + 20;
    let set = |soft: usize| {
        let mut command = Command::new("prlimit");
        command.args(["--pid", &pid.to_string(), &format!("--nofile={soft}:")]);
        command
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    if !set(limit) {
        eprintln!("SKIPPED accept_backs_off_without_descriptors_and_others_go_on: no prlimit");
        return;
    }
    // More than are accepted wait in the kernel's queue.
    let flood: Vec<TcpStream> = (0..100)
        .map(|_| TcpStream::connect(&broker.address).unwrap())
        .collect();
    broker.expect_log("accepting a connection: Too many open files");
    let (began, before) = (Instant::now(), used(pid));
    let mut said = 0;
    while began.elapsed() < Duration::from_secs(3) {
        said += 1;
        say(&mut client, "t", said);
        std::thread::sleep(Duration::from_millis(20));
    }
    let (spent, elapsed) = (used(pid) - before, began.elapsed());
    assert!(
        spent < elapsed / 2,
        "{spent:?} of the processor in {elapsed:?}"
    );
    let lines = broker.log().matches("accepting a connection").count() as u64;
    assert!(
        lines <= 1 + elapsed.as_secs() / 5,
        "{lines} lines in {elapsed:?}"
    );
    drop(flood);
    let mut other = connect(&broker.address);
    assert_eq!(other.list_offset("t", 0, -1).unwrap(), Ok(said + 1));
    assert!(broker.stop().success());
    println!("descriptors: {said} records, {spent:?} of the processor in {elapsed:?}");
}
