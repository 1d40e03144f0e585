//! A data directory with something of everything, and what is true of it.

use crate::common::Broker;
use crate::common::codecs::{CODECS, compress};
use crate::common::keyed::{self, Change};
use crate::common::producer::{Batch, Client, batch};
use crate::common::transactional::{self, Producer};
use ottla::api::find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse};
use ottla::batch::builder::Builder;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// One partition each: batches of all codecs; an idempotent producer's; a transactional one's; a compacted one.
pub const TOPICS: [&str; 4] = ["codecs", "idempotent", "a", "compacted"];

/// The broker's own, small enough that every one of their files is met.
pub const SETTINGS: [&str; 4] = [
    "offsets.topic.num.partitions=1",
    "transaction.state.log.num.partitions=1",
    "log.cleaner.enable=false",
    "log.scrub.max.bytes.per.second=1e9",
];

/// A data directory that no broker uses.
pub struct Scene {
    dir: TempDir,
    /// Whether its broker was stopped, not killed.
    pub clean: bool,
    /// What consumers read, by topic.
    pub batches: BTreeMap<&'static str, Vec<Batch>>,
    /// What those of transactions read.
    pub committed: Vec<String>,
    /// How far the group has read.
    pub offset: i64,
}

impl Scene {
    pub fn new(clean: bool) -> Scene {
        let dir = tempfile::tempdir().unwrap();
        let settings = [&SETTINGS[..2], &["log.cleaner.backoff.ms=10"]].concat();
        let broker = Broker::start(dir.path(), &settings);
        let mut client = Client::connect(&broker.address).unwrap();
        fill(&mut client);
        broker.expect_log("compacted-0: compacted");
        // Every marker is there: a start that makes up for one gives it another time.
        while !transactional::committed(&mut client, "a")
            .unwrap()
            .unwrap()
            .1
        {
            thread::sleep(Duration::from_millis(20));
        }
        let saved = dir.path().join("recovery-point-offset-checkpoint");
        let deadline = Instant::now() + Duration::from_secs(60);
        let is_saved = |line| fs::read_to_string(&saved).is_ok_and(|text| text.contains(line));
        while !(is_saved("\ncodecs 0 ") && is_saved("\na 0 ")) {
            assert!(Instant::now() < deadline, "no recovery point is saved");
            thread::sleep(Duration::from_millis(20));
        }
        match clean {
            true => assert!(broker.stop().success()),
            false => broker.kill(),
        }
        let mut scene = Scene {
            dir,
            clean,
            batches: BTreeMap::new(),
            committed: Vec::new(),
            offset: 0,
        };
        let copy = scene.copy();
        let broker = Broker::start(copy.path(), &SETTINGS);
        let mut client = Client::connect(&broker.address).unwrap();
        let read = TOPICS.map(|topic| (topic, client.fetch_all(topic, 0)));
        scene.batches = read.into();
        scene.committed = transactional::committed(&mut client, "a")
            .unwrap()
            .unwrap()
            .0;
        scene.offset = offset(&mut client);
        assert!(scene.offset > 0 && scene.committed.len() > 3);
        scene
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The same directory once more, with a line for each log that says that its scrub is due.
    pub fn copy(&self) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        for path in self.files() {
            let to = copy.path().join(&path);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(self.path().join(&path), to).unwrap();
        }
        let internal = [
            "__consumer_offsets",
            "__transaction_state",
            "__cluster_metadata",
        ];
        let names = TOPICS.iter().chain(&internal);
        let lines: Vec<String> = names.map(|name| format!("{name} 0 0\n")).collect();
        let text = format!("0\n{}\n{}", lines.len(), lines.concat());
        fs::write(copy.path().join("scrub-checkpoint"), text).unwrap();
        copy
    }

    /// All files with bytes in them, by their paths in the directory, sorted.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for entry in fs::read_dir(self.path()).unwrap().map(Result::unwrap) {
            let name = PathBuf::from(entry.file_name());
            match entry.file_type().unwrap().is_dir() {
                true => files.extend(
                    fs::read_dir(entry.path())
                        .unwrap()
                        .map(|inner| name.join(inner.unwrap().file_name())),
                ),
                false => files.push(name),
            }
        }
        files.retain(|path| !path.ends_with("scrub-checkpoint") && !path.ends_with(".lock"));
        files.sort();
        files
    }
}

/// How far the group has read; the coordinator may still be settling a transaction.
pub fn offset(client: &mut Client) -> i64 {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match transactional::offset(client).unwrap() {
            Ok(offset) => return offset,
            Err(code) => assert!(Instant::now() < deadline, "error {code}"),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn fill(client: &mut Client) {
    let small = [("segment.bytes", "2000"), ("index.interval.bytes", "300")];
    for topic in &TOPICS[..3] {
        client.create(topic, 1, &small);
    }
    let compacted = [
        ("cleanup.policy", "compact"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("segment.bytes", "2000"),
        ("index.interval.bytes", "300"),
    ];
    client.create("compacted", 1, &compacted);
    for n in 0..60 {
        let codec = CODECS[n % CODECS.len()];
        let time_ms = 1_700_000_000_000 + 10 * n as i64;
        let mut builder = Builder::new(time_ms);
        for i in 0..3 {
            let value = format!("{n} {i} {}", "of some length ".repeat(5));
            builder.add(None, Some(value.as_bytes()), &[], time_ms + i);
        }
        let bytes = builder.build_from(codec, &compress(codec, builder.records()));
        client.produce("codecs", 0, &bytes).unwrap().unwrap();
    }
    let id = client.producer_id().unwrap();
    for n in 0..40 {
        let bytes = batch(Some((id, n)), &[format!("{n}").repeat(20).as_bytes()]);
        client.produce("idempotent", 0, &bytes).unwrap().unwrap();
    }
    for n in 0..60 {
        let change = Change {
            key: format!("key {}", n % 7),
            value: Some(format!("{n}").repeat(20)),
        };
        let bytes = keyed::batch(None, 1_700_000_000_000 + n, &[change]);
        client.produce("compacted", 0, &bytes).unwrap().unwrap();
    }
    transact(client);
}

fn transact(client: &mut Client) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let _: FindCoordinatorResponse = client.call(3, &FindCoordinatorRequest::default()).unwrap();
    let mut producer = loop {
        match Producer::new(client, "id", true).unwrap() {
            Ok(producer) => break producer,
            Err(code) => assert!(Instant::now() < deadline, "error {code}"),
        }
        thread::sleep(Duration::from_millis(20));
    };
    let mut until_ok = |what: &mut dyn FnMut(&mut Client) -> i16| {
        loop {
            match what(client) {
                0 => break,
                code => assert!(Instant::now() < deadline, "error {code}"),
            }
            thread::sleep(Duration::from_millis(20));
        }
    };
    for n in 0..20 {
        let value = format!("{n} ").repeat(20);
        until_ok(&mut |client| producer.write(client, "a", &value).unwrap());
        if n % 2 == 0 {
            until_ok(&mut |client| producer.commit_offset(client, n).unwrap());
        }
        until_ok(&mut |client| producer.end(client, n % 3 != 0).unwrap());
    }
}
