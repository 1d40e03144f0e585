//! Gaps in the broker's own logs (P5): a record of the catalog, of committed offsets or of transactions rots, in any
//! place, after either kind of stop. The start needs nobody; every topic that was acked is there with its records, no
//! producer id comes back, no group's offsets mix with another's, and every transaction ends.

use crate::common::producer::Client;
use crate::common::requests;
use crate::common::transactional::{Producer, committed};
use crate::common::{self, Broker};
use crate::scene::{Scene, check_all, copy_dir, heard, names, say};
use ottla::api::offset_commit::*;
use ottla::api::offset_fetch::*;
use ottla::batch::{HEADER_BYTES, check_stored};
use ottla::wire::Uuid;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

const LOGS: [&str; 3] = [
    "__cluster_metadata-0",
    "__consumer_offsets-0",
    "__transaction_state-0",
];
const SETTINGS: [&str; 2] = [
    "offsets.topic.num.partitions=1",
    "transaction.state.log.num.partitions=1",
];
const IDS: [(&str, bool); 2] = [("older", false), ("newer", true)];
const TOPICS: [&str; 5] = ["a", "b", "moved", "again", "late"];
const GROUPS: usize = 6;

/// What was answered.
#[derive(Default)]
struct Lived {
    topics: Vec<Option<Uuid>>,
    highest_id: i64,
    /// The values of the transactions that were committed.
    committed: Vec<String>,
    /// What each group committed, in order.
    offsets: Vec<Vec<i64>>,
}

/// Takes a producer id, commits each group's offset, and ends transactions in both flows; the last one stays open.
fn live_on(client: &mut Client, lived: &mut Lived, round: i64) {
    lived.highest_id = client.producer_id().unwrap();
    for group in 0..GROUPS {
        let offset = round * 100 + group as i64;
        assert_eq!(commit(client, group, offset), 0);
        lived.offsets[group].push(offset);
    }
    for (number, (id, newer)) in IDS.into_iter().enumerate() {
        for commits in [true, false] {
            let mut producer = begin(client, id, newer);
            let value = format!("{round} {number} {commits}");
            for topic in ["a", "b"] {
                assert_eq!(producer.write(client, topic, &value).unwrap(), 0);
            }
            assert_eq!(producer.end(client, commits).unwrap(), 0);
            lived.committed.extend(commits.then_some(value));
        }
    }
    let mut open = begin(client, IDS[round as usize % 2].0, round % 2 == 1);
    assert_eq!(open.write(client, "a", "open").unwrap(), 0);
}

/// A producer that begins anew, once the end of what was before it is through.
fn begin(client: &mut Client, id: &'static str, newer: bool) -> Producer {
    let began = Instant::now();
    loop {
        match Producer::new(client, id, newer).unwrap() {
            Ok(producer) => return producer,
            Err(code) => assert!(began.elapsed() < Duration::from_secs(60), "{id}: {code}"),
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn commit(client: &mut Client, group: usize, offset: i64) -> i16 {
    let request = requests::offset_commit(&format!("g{group}"), "a", offset);
    let answer: OffsetCommitResponse = client.call(8, &request).unwrap();
    answer.topics[0].partitions[0].error_code
}

fn offset_of(client: &mut Client, group: usize) -> i64 {
    let request = requests::offset_fetch(&format!("g{group}"), "a", 0..1);
    let answer: OffsetFetchResponse = client.call(8, &request).unwrap();
    let group = &answer.groups[0];
    assert_eq!(group.error_code, 0, "groups are served");
    group.topics[0].partitions[0].committed_offset
}

/// Two runs, a clean stop between them, so that the logs' first halves lie before their recovery points; then another
/// kind of stop. Gives also how many batches each log held at the stop between.
fn live(scene: &Scene, is_clean: bool) -> (Lived, [usize; 3]) {
    let mut lived = Lived {
        offsets: vec![Vec::new(); GROUPS],
        ..Lived::default()
    };
    let data = scene.data();
    let broker = Broker::start(&data, &SETTINGS);
    let mut client = Client::connect(&broker.address).unwrap();
    for topic in ["a", "gone", "b", "moved", "again"] {
        client.create(topic, 1, &[]);
    }
    say(&mut client, "again", "old").unwrap().unwrap();
    for topic in ["gone", "again"] {
        assert_eq!(client.delete(topic).unwrap(), 0);
    }
    client.create("again", 1, &[]);
    for topic in ["moved", "again"] {
        say(&mut client, topic, topic).unwrap().unwrap();
    }
    live_on(&mut client, &mut lived, 0);
    assert!(broker.stop().success());
    let counts = LOGS.map(|log| batches(&data.join(log)).len());
    let broker = Broker::start(&data, &SETTINGS);
    let mut client = Client::connect(&broker.address).unwrap();
    client.create("late", 1, &[]);
    say(&mut client, "late", "late").unwrap().unwrap();
    live_on(&mut client, &mut lived, 1);
    lived.topics = TOPICS.map(|topic| client.topic_id(topic).unwrap()).into();
    match is_clean {
        true => assert!(broker.stop().success()),
        false => broker.kill(),
    }
    (lived, counts)
}

/// Where each batch of a log's only segment begins.
fn batches(dir: &Path) -> Vec<usize> {
    let bytes = fs::read(dir.join("00000000000000000000.log")).unwrap();
    let mut at = 0;
    let mut found = Vec::new();
    while let Ok(header) = check_stored(&bytes[at..]) {
        found.push(at);
        at += header.total_bytes();
    }
    found
}

fn rot(dir: &Path, at: usize) {
    let log = dir.join("00000000000000000000.log");
    let mut bytes = fs::read(&log).unwrap();
    bytes[at + HEADER_BYTES + 3] ^= 0x10;
    fs::write(log, bytes).unwrap();
}

/// One case: which log, and which of its batches.
#[derive(Debug)]
struct Case {
    log: usize,
    rotten: BTreeSet<usize>,
    /// How many batches that costs.
    lost: usize,
}

/// The first, the newest, any, and two of them; behind a recovery point that a kill left, only the newest: rot there is
/// a tear, which takes all that follows.
fn cases(counts: [usize; 3], all: [usize; 3], is_clean: bool, rng: &mut StdRng) -> Vec<Case> {
    let mut cases = Vec::new();
    for log in 0..LOGS.len() {
        let trusted = if is_clean { all[log] } else { counts[log] };
        let mut add = |rotten: &[usize]| {
            let rotten: BTreeSet<usize> = rotten.iter().copied().collect();
            let lost = rotten.len();
            cases.push(Case { log, rotten, lost });
        };
        add(&[0]);
        add(&[all[log] - 1]);
        add(&[trusted - 1]);
        for _ in 0..6 {
            add(&[rng.random_range(0..trusted)]);
        }
        for _ in 0..2 {
            add(&[rng.random_range(0..trusted), rng.random_range(0..trusted)]);
        }
        let first = rng.random_range(1..trusted);
        add(&[first - 1, first]);
    }
    cases
}

fn check(data: &Path, lived: &Lived, case: &Case, what: &str) {
    let broker = Broker::start_with(data, &SETTINGS, |command: &mut Command| {
        command.env("RUST_LOG", "warn");
    });
    let log = broker.log();
    assert!(log.contains(LOGS[case.log]), "{what}: not reported\n{log}");
    let mut client = Client::connect(&broker.address).unwrap();
    let ids: Vec<Option<Uuid>> = TOPICS.map(|t| client.topic_id(t).unwrap()).into();
    assert_eq!(ids, lived.topics, "{what}");
    for topic in ["moved", "again", "late"] {
        assert_eq!(heard(&mut client, topic, 0), [topic], "{what}");
    }
    // Where the record of its end was lost it is there again, and empty.
    if client.topic_id("gone").unwrap().is_some() {
        assert_eq!(heard(&mut client, "gone", 0), [""; 0], "{what}");
    }
    let new = client.producer_id().unwrap();
    assert!(new > lived.highest_id, "{what}: {new} came back");
    let mut changed = 0;
    for (group, offsets) in lived.offsets.iter().enumerate() {
        let there = offset_of(&mut client, group);
        assert!(there == -1 || offsets.contains(&there), "{what}: {there}");
        changed += usize::from(Some(&there) != offsets.last());
        assert_eq!(commit(&mut client, group, 7), 0, "{what}");
        assert_eq!(offset_of(&mut client, group), 7, "{what}");
    }
    let may_change = if case.log == 1 { case.lost } else { 0 };
    assert!(changed <= may_change, "{what}: {changed} groups changed");
    let mut expected = lived.committed.clone();
    for (id, newer) in IDS {
        let mut producer = begin(&mut client, id, newer);
        for topic in ["a", "b"] {
            let written = producer.write(&mut client, topic, id).unwrap();
            assert_eq!(written, 0, "{what}: {id} in {topic}");
        }
        assert_eq!(producer.end(&mut client, true).unwrap(), 0, "{what}");
        expected.push(id.into());
    }
    for topic in ["a", "b"] {
        let began = Instant::now();
        loop {
            match committed(&mut client, topic).unwrap() {
                Ok((values, true)) => break assert_eq!(values, expected, "{what}: {topic}"),
                other => assert!(
                    began.elapsed() < Duration::from_secs(60),
                    "{what}: {other:?}"
                ),
            }
        }
    }
    assert!(broker.stop().success(), "{what}");
    assert_eq!(names(data, "-stray"), [""; 0], "{what}");
    assert_eq!(names(data, "-delete"), [""; 0], "{what}");
}

fn gaps(is_clean: bool) {
    let mut rng = StdRng::seed_from_u64(common::seed("internal gaps"));
    let scene = Scene::new();
    let (lived, counts) = live(&scene, is_clean);
    let all = LOGS.map(|log| batches(&scene.data().join(log)).len());
    let cases = cases(counts, all, is_clean, &mut rng);
    let count = cases.len();
    check_all(&scene, cases, |data, case| {
        copy_dir(&scene.data(), data);
        let dir = data.join(LOGS[case.log]);
        let places = batches(&dir);
        case.rotten.iter().for_each(|&n| rot(&dir, places[n]));
        check(data, &lived, case, &format!("clean: {is_clean}, {case:?}"));
    });
    eprintln!("internal gaps: cases={count} clean={is_clean} lost=0 batches={all:?}");
}

#[test]
fn a_gap_in_an_internal_log_is_made_good_after_a_clean_stop() {
    gaps(true);
}

#[test]
fn a_gap_in_an_internal_log_is_made_good_after_a_kill() {
    gaps(false);
}
