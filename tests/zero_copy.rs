//! Must hold 3: on the fetch path `sendfile` carries all record bytes, and of a `.log` nothing is read but batch
//! headers. Seen by strace; without it, or where ptrace is refused, the test says so and is skipped.

mod common;

use common::Broker;
use common::producer::{Client, batch, batches, bytes_of};
use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const HEADER_BYTES: i64 = 61;

/// What strace has to name: every call that can move a file's bytes.
const CALLS: &str =
    "trace=openat,read,pread64,readv,preadv,preadv2,mmap,splice,copy_file_range,sendfile";

fn trace(broker: &Broker, out: &std::path::Path) -> Option<Child> {
    let mut strace = Command::new("strace");
    // -y shows the path behind each descriptor; -s 0 shows no bytes.
    strace.args([
        "-f",
        "-y",
        "-s",
        "0",
        "-e",
        CALLS,
        "-p",
        &broker.pid().to_string(),
        "-o",
    ]);
    let mut child = match strace.arg(out).stderr(Stdio::null()).spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("zero_copy: SKIPPED: strace cannot be run: {error}");
            return None;
        }
    };
    let traced = || {
        let status = fs::read_to_string(format!("/proc/{}/status", broker.pid())).unwrap();
        !status.contains("TracerPid:\t0\n")
    };
    let began = Instant::now();
    while !traced() {
        if child.try_wait().unwrap().is_some() || began.elapsed() > Duration::from_secs(60) {
            let _ = child.kill();
            eprintln!("zero_copy: SKIPPED: strace may not trace (ptrace is refused)");
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
    Some(child)
}

/// The calls on `.log` files: name, and what it returned. A call that another thread's line interrupts stands in two.
fn calls(trace: &str) -> Vec<(String, i64)> {
    let mut begun: Vec<(&str, String)> = Vec::new();
    let mut found = Vec::new();
    for line in trace.lines() {
        let Some((thread, call)) = line.split_once(char::is_whitespace) else {
            continue;
        };
        let call = call.trim_start();
        if let Some(start) = call.strip_suffix("<unfinished ...>") {
            begun.push((thread, start.to_owned()));
            continue;
        }
        let whole = match call.strip_prefix("<... ") {
            Some(rest) => {
                let Some(at) = begun.iter().position(|(t, _)| *t == thread) else {
                    continue;
                };
                let (_, start) = begun.remove(at);
                start + rest.split_once("resumed>").map_or("", |(_, rest)| rest)
            }
            None => call.to_owned(),
        };
        let Some((name, _)) = whole.split_once('(') else {
            continue;
        };
        let Some((arguments, result)) = whole.rsplit_once(" = ") else {
            continue;
        };
        let result = result
            .split_whitespace()
            .next()
            .and_then(|word| word.parse().ok());
        if arguments.contains(".log>") {
            found.push((name.to_owned(), result.unwrap_or(0)));
        }
    }
    found
}

#[test]
fn sendfile_carries_every_record_byte() {
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let broker = Broker::start(&scratch.path().join("data"), &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    client.create(
        "t",
        1,
        &[
            ("segment.bytes", "1000000"),
            ("index.interval.bytes", "100000"),
        ],
    );
    for number in 0..300usize {
        let value = vec![b'a' + (number % 26) as u8; 10_000 + number];
        client
            .produce("t", 0, &batch(None, &[&value]))
            .unwrap()
            .unwrap();
    }
    let out = scratch.path().join("trace");
    let Some(mut strace) = trace(&broker, &out) else {
        return;
    };
    // All from the start; from the middle of an index interval; one batch at a time; the tail, waited for.
    let mut received = 0;
    let mut fetch = |client: &mut Client, offset: i64| {
        let data = client.fetch("t", 0, offset, 0).unwrap();
        assert_eq!(data.error_code, 0);
        let bytes = bytes_of(&data.records);
        received += bytes.len() as i64;
        batches(bytes).len()
    };
    assert_eq!(fetch(&mut client, 0), 300);
    assert_eq!(fetch(&mut client, 157), 143);
    for offset in 290..300 {
        assert_eq!(fetch(&mut client, offset) as i64, 300 - offset);
    }
    let mut fresh = Client::connect(&broker.address).unwrap();
    assert_eq!(fetch(&mut fresh, 42), 258);
    assert!(broker.stop().success());
    strace.wait().unwrap();

    let calls = calls(&fs::read_to_string(&out).unwrap());
    let sent: i64 = calls
        .iter()
        .filter(|(name, _)| name == "sendfile")
        .map(|(_, n)| n)
        .sum();
    assert_eq!(
        sent, received,
        "sendfile carries all record bytes, and nothing else"
    );
    let others: Vec<_> = calls
        .iter()
        .filter(|(name, _)| name != "sendfile" && name != "openat")
        .collect();
    let largest = others.iter().map(|(_, n)| *n).max();
    assert!(
        others
            .iter()
            .all(|(name, n)| name == "pread64" && *n <= HEADER_BYTES),
        "{others:?}"
    );
    eprintln!(
        "zero_copy: {sent} bytes by sendfile, {} header reads, the largest of {largest:?} bytes",
        others.len()
    );
}
