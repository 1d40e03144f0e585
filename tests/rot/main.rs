//! Bit-rot at rest: a byte of any file of a data directory flips. The start needs no person, what is rotten is found
//! and set aside, and nothing else is lost.
//!
//! `make test` flips a sample, `make rot` thousands: `OTTLA_ROT_ROUNDS` rounds of a flip in each directory.

#[path = "../common/mod.rs"]
mod common;
mod flips;
mod scene;

use common::Broker;
use common::producer::{Client, batch};
use flips::Figures;
use rand::SeedableRng;
use rand::rngs::StdRng;
use scene::Scene;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const ROUNDS: usize = 8;

#[test]
fn a_flip_costs_no_more_than_its_batch() {
    let seed = common::seed("rot");
    let rounds = std::env::var("OTTLA_ROT_ROUNDS").map_or(ROUNDS, |text| text.parse().unwrap());
    let mut rng = StdRng::seed_from_u64(seed);
    let mut figures = Figures::default();
    let mut said = Instant::now();
    for clean in [true, false] {
        let scene = Scene::new(clean);
        for (n, flips) in flips::rounds(&scene, &mut rng, rounds).iter().enumerate() {
            flips::run(&scene, flips, n % 4 == 0, &mut figures);
            if said.elapsed() > Duration::from_secs(5) {
                said = Instant::now();
                eprintln!("rot: clean={clean} start {n}, {} flips", figures.flips);
            }
        }
    }
    println!(
        "rot: flips={} files={} found={} unharmed={} lost_beyond={} seed={seed}",
        figures.flips,
        figures.files.len(),
        figures.found,
        figures.unharmed,
        figures.failures.len(),
    );
    assert!(figures.found > 0, "nothing was found");
    assert!(
        figures.failures.is_empty(),
        "{}",
        figures.failures.join("\n")
    );
}

const BATCHES: i64 = 40;

/// A topic of several segments, and a broker that serves it.
fn served(settings: &[&str]) -> (TempDir, Broker, Client) {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), settings);
    let mut client = Client::connect(&broker.address).unwrap();
    client.create("t", 1, &[("segment.bytes", "2000")]);
    for n in 0..BATCHES {
        let value = format!("{n} ").repeat(50);
        let sent = client.produce("t", 0, &batch(None, &[value.as_bytes()]));
        assert_eq!(sent.unwrap(), Ok(n));
    }
    (data, broker, client)
}

fn logs(data: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data.join("t-0")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut logs: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|e| e == "log"))
        .collect();
    logs.sort();
    logs
}

fn flip(path: &Path, position: u64) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, position).unwrap();
    file.write_all_at(&[byte[0] ^ 1], position).unwrap();
}

/// All but `gone` are there, also after another start; and consumers learn by the leader epoch.
fn is_all_but(data: &TempDir, broker: Broker, gone: &[i64]) {
    let mut broker = broker;
    for _ in 0..2 {
        let mut client = Client::connect(&broker.address).unwrap();
        let batches = client.fetch_all("t", 0);
        let offsets = batches.iter().map(|b| b.header.base_offset);
        assert!(offsets.eq((0..BATCHES).filter(|n| !gone.contains(n))));
        assert!(broker.stop().success());
        broker = Broker::start(data.path(), &[]);
    }
    let mut client = Client::connect(&broker.address).unwrap();
    let sent = client.produce("t", 0, &batch(None, &[b"after"])).unwrap();
    assert_eq!(sent, Ok(BATCHES));
    let last = client.fetch_all("t", 0).pop().unwrap().header;
    assert!(last.partition_leader_epoch > 0, "the epoch has not risen");
}

/// Of sealed segments and of the active one, while the broker runs.
#[test]
fn the_scrub_reads_what_nobody_reads() {
    let settings = [
        "log.scrub.interval.ms=300",
        "log.scrub.max.bytes.per.second=1e9",
    ];
    let (data, broker, client) = served(&settings);
    drop(client);
    let logs = logs(data.path());
    assert!(logs.len() > 3);
    let first = fs::metadata(&logs[0]).unwrap().len();
    flip(&logs[0], first - 3);
    let lost = format!("are lost: {}", logs[0].display());
    broker.expect_log(&lost);
    let last = logs.last().unwrap();
    flip(last, 70);
    broker.expect_log(&format!("offsets {}..", base(last)));
    flip(&logs[2].with_extension("timeindex"), 3);
    broker.expect_log("it is made anew");
    let gone = [base(&logs[1]) - 1, base(last)];
    is_all_but(&data, broker, &gone);
}

fn base(path: &Path) -> i64 {
    path.file_stem().unwrap().to_str().unwrap().parse().unwrap()
}

/// A length that leads nowhere: the reader is told, and what it stumbled over is mended without waiting for a scrub.
#[test]
fn a_reader_that_finds_no_batch_rings_the_scrub() {
    let (data, broker, mut client) = served(&["log.scrub.interval.ms=-1"]);
    let logs = logs(data.path());
    flip(&logs[1], 9);
    let offset = base(&logs[1]);
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = client.fetch("t", 0, offset + 1, 0).unwrap();
        match answer.error_code {
            0 => break,
            code => assert_eq!(code, 56, "KAFKA_STORAGE_ERROR"),
        }
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(20));
    }
    is_all_but(&data, broker, &[offset]);
}
