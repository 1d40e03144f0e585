//! Bit-rot at rest: a byte of any file of a data directory flips. The start needs no person, what is rotten is found
//! and set aside, and nothing else is lost.
//!
//! `make test` flips a sample, `make rot` thousands: `OTTLA_ROT_ROUNDS` rounds of a flip in each directory.

#[path = "../common/mod.rs"]
mod common;
mod flips;
mod scene;

use common::Broker;
use common::keyed::{self, Change};
use common::producer::{Client, batch, batches};
use common::requests;
use common::transactional::{self, Producer};
use flips::Figures;
use ottla::api::describe_configs::DescribeConfigsResponse;
use ottla::api::find_coordinator::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use scene::Scene;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
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

fn logs(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap();
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
    let logs = logs(&data.path().join("t-0"));
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

/// After its first piece it rests, for hours if it is told to; and a broker that is stopped does not wait for that.
#[test]
fn the_scrub_reads_no_faster_than_it_may() {
    let settings = [
        "log.scrub.interval.ms=1",
        "log.scrub.max.bytes.per.second=0.1",
    ];
    let (data, broker, _client) = served(&settings);
    flip(logs(&data.path().join("t-0")).last().unwrap(), 70);
    thread::sleep(Duration::from_secs(2));
    assert!(!broker.log().contains("are lost"));
    assert!(broker.stop().success());
}

/// Compaction that meets damage leaves the log as it is, and has it mended without waiting for a scrub.
#[test]
fn compaction_that_finds_no_batch_rings_the_scrub() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), &["log.cleaner.enable=false"]);
    let mut client = Client::connect(&broker.address).unwrap();
    let compacted = [
        ("cleanup.policy", "compact"),
        ("segment.bytes", "2000"),
        ("min.cleanable.dirty.ratio", "0.01"),
    ];
    client.create("t", 1, &compacted);
    for n in 0..BATCHES {
        let change = Change {
            key: n.to_string(),
            value: Some(format!("{n} ").repeat(50)),
        };
        let bytes = keyed::batch(None, 1_700_000_000_000 + n, &[change]);
        client.produce("t", 0, &bytes).unwrap().unwrap();
    }
    assert!(broker.stop().success());
    let logs = logs(&data.path().join("t-0"));
    flip(&logs[1], 70);
    let bytes = fs::metadata(&logs[1]).unwrap().len();
    let broker = Broker::start(data.path(), &["log.scrub.interval.ms=-1"]);
    broker.expect_log("t-0: not compacted");
    broker.expect_log(&format!("are lost: {}", logs[1].display()));
    let deadline = Instant::now() + Duration::from_secs(60);
    while fs::metadata(&logs[1]).map_or(bytes, |file| file.len()) == bytes {
        assert!(Instant::now() < deadline, "it is not mended");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(broker.stop().success());
    let broker = Broker::start(data.path(), &[]);
    broker.expect_log("t-0: compacted");
}

/// What rots in a log of the broker's own while it runs is recorded once more by its owner: a later start, after a
/// kill, knows all that was acknowledged.
#[test]
fn a_gap_in_a_log_of_the_brokers_own_is_filled_while_it_runs() {
    let data = tempfile::tempdir().unwrap();
    let settings = [
        "log.scrub.interval.ms=300",
        "offsets.topic.num.partitions=1",
        "transaction.state.log.num.partitions=1",
    ];
    let broker = Broker::start(data.path(), &settings);
    let mut client = Client::connect(&broker.address).unwrap();
    client.create("a", 1, &[]);
    let _: FindCoordinatorResponse = client.call(3, &FindCoordinatorRequest::default()).unwrap();
    let mut ended = Producer::new(&mut client, "ended", true).unwrap().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while ended.commit_offset(&mut client, 7).unwrap() != 0 {
        assert!(Instant::now() < deadline, "not committed");
    }
    assert_eq!(ended.end(&mut client, true).unwrap(), 0);
    await_offset(&mut client, 7);
    let mut open = Producer::new(&mut client, "open", true).unwrap().unwrap();
    assert_eq!(open.write(&mut client, "a", "open").unwrap(), 0);
    // One group, and two transactional ids.
    for (partition, recorded) in [("__consumer_offsets-0", 1), ("__transaction_state-0", 2)] {
        let path = data.path().join(partition).join("00000000000000000000.log");
        let bytes = fs::read(&path).unwrap();
        let mut end = 0;
        // Of the offset's log the first batch, of the transactions' the last: that it is open.
        for batch in batches(&bytes) {
            end += batch.bytes.len() as u64;
            if partition.starts_with("__consumer") {
                break;
            }
        }
        flip(&path, end - 2);
        broker.expect_log(&format!("are lost: {}", path.display()));
        await_batches(path.parent().unwrap(), recorded);
    }
    broker.kill();
    let broker = Broker::start(data.path(), &settings[1..]);
    let mut client = Client::connect(&broker.address).unwrap();
    await_offset(&mut client, 7);
    assert_eq!(open.end(&mut client, true).unwrap(), 0);
    let deadline = Instant::now() + Duration::from_secs(60);
    while transactional::committed(&mut client, "a").unwrap() != Ok((vec!["open".into()], true)) {
        assert!(Instant::now() < deadline, "not committed");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Whatever rots in the catalog's own log while the broker runs is recorded once more: settings, and what is gone.
#[test]
fn a_gap_in_the_catalog_is_filled_while_it_runs() {
    let data = tempfile::tempdir().unwrap();
    let settings = ["log.scrub.interval.ms=300"];
    let broker = Broker::start(data.path(), &settings);
    let mut client = Client::connect(&broker.address).unwrap();
    for topic in ["gone", "plain"] {
        client.create(topic, 3, &[]);
    }
    let compacted = [("cleanup.policy", "compact"), ("retention.ms", "77777")];
    client.create("compacted", 2, &compacted);
    assert_eq!(client.delete("gone").unwrap(), 0);
    let highest = client.producer_id().unwrap();
    let known = |client: &mut Client| {
        let ids = ["gone", "plain", "compacted"].map(|topic| client.topic_id(topic).unwrap());
        let request = requests::describe_configs(2, &["plain", "compacted"]);
        let told: DescribeConfigsResponse = client.call(4, &request).unwrap();
        (ids, told)
    };
    let before = known(&mut client);
    assert_eq!(before.0[0], None);
    let path = data
        .path()
        .join("__cluster_metadata-0/00000000000000000000.log");
    let mut end = 0;
    for (at, batch) in batches(&fs::read(&path).unwrap()).into_iter().enumerate() {
        end += batch.bytes.len() as u64;
        // All but what tells of the topic that is gone.
        if at >= 2 {
            flip(&path, end - 2);
        }
    }
    broker.expect_log("the catalog is recorded once more");
    broker.kill();
    let broker = Broker::start(data.path(), &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    assert_eq!(known(&mut client), before);
    assert!(client.producer_id().unwrap() > highest);
    assert!(!broker.log().contains("settings may be lost"));
}

fn await_offset(client: &mut Client, wanted: i64) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while transactional::offset(client).unwrap() != Ok(wanted) {
        assert!(Instant::now() < deadline, "not committed");
        thread::sleep(Duration::from_millis(5));
    }
}

/// So many batches are written into the segment that the scrub has begun.
fn await_batches(dir: &Path, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let newest = || batches(&fs::read(logs(dir).pop().unwrap()).unwrap()).len();
    while logs(dir).len() < 2 || newest() < count {
        assert!(Instant::now() < deadline, "nothing is recorded once more");
        thread::sleep(Duration::from_millis(5));
    }
}

fn base(path: &Path) -> i64 {
    path.file_stem().unwrap().to_str().unwrap().parse().unwrap()
}

/// A length that leads nowhere: the reader is told, and what it stumbled over is mended without waiting for a scrub.
#[test]
fn a_reader_that_finds_no_batch_rings_the_scrub() {
    let (data, broker, mut client) = served(&["log.scrub.interval.ms=-1"]);
    let logs = logs(&data.path().join("t-0"));
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
