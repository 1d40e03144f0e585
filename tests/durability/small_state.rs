//! P9: small state that is lost, each file in each way, alone and in pairs, after either kind of stop: what was acked
//! stays, no offset falls, no id comes back, and the start needs nobody.

use crate::common::producer::{Client, batch};
use crate::common::requests;
use crate::common::{self, Broker};
use crate::scene::{Scene, check_all, copy_dir, names, values_of, wait_until};
use ottla::api::delete_records::*;
use ottla::api::describe_cluster::{DescribeClusterRequest, DescribeClusterResponse};
use ottla::batch::builder::Builder;
use ottla::wire::Uuid;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const RECORDS: i64 = 24;
/// Behind the first segment, and in the middle of one.
const DELETED_TO: i64 = 7;
const PAIRS: usize = 30;

/// What a start must find again.
struct Before {
    ids: [Option<Uuid>; 2],
    cluster_id: String,
    /// Who wrote, and the highest that was given out.
    writer: i64,
    highest: i64,
}

/// What becomes of a file.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Loss {
    Deleted,
    Emptied,
    Truncated,
    /// A bit of it, counted around.
    Flipped(usize),
    Zeroed,
    /// Replaced by the generation before it, if there is one.
    Older,
    /// A write that was cut off: the new generation is half there, under its temporary name.
    HalfWritten,
    /// Cut off between the two renames.
    HalfRenamed,
}

/// Each way; of a flipped bit, some.
fn losses(rng: &mut StdRng) -> [Loss; 11] {
    let mut flipped = || Loss::Flipped(rng.random_range(0..1 << 20));
    [
        Loss::Deleted,
        Loss::Emptied,
        Loss::Truncated,
        flipped(),
        flipped(),
        flipped(),
        flipped(),
        Loss::Zeroed,
        Loss::Older,
        Loss::HalfWritten,
        Loss::HalfRenamed,
    ]
}

impl Loss {
    fn strike(self, file: &Path) {
        let with = |suffix: &str| PathBuf::from(format!("{}{suffix}", file.display()));
        let mut bytes = fs::read(file).unwrap();
        let half = bytes.len() / 2;
        match self {
            Loss::Deleted => return fs::remove_file(file).unwrap(),
            Loss::Emptied => bytes.clear(),
            Loss::Truncated => bytes.truncate(half),
            Loss::Flipped(_) if bytes.is_empty() => {}
            Loss::Flipped(bit) => {
                let bit = bit % (bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            Loss::Zeroed => bytes.fill(0),
            Loss::Older => match fs::read(with(".previous")) {
                Ok(older) => bytes = older,
                Err(_) => return fs::remove_file(file).unwrap(),
            },
            Loss::HalfWritten => return fs::write(with(".tmp"), &bytes[..half]).unwrap(),
            Loss::HalfRenamed => {
                fs::rename(file, with(".previous")).unwrap();
                return fs::write(with(".tmp"), &bytes).unwrap();
            }
        }
        fs::write(file, bytes).unwrap();
    }
}

fn value(n: i64) -> String {
    format!("{n} {}", "x".repeat(40))
}

/// A broker's life: two topics of small segments, one that is compacted, a log start that was raised, a start after a
/// kill, so that each small file has a generation before it.
fn live(data: &Path) -> (Broker, Before) {
    let settings = ["log.cleaner.backoff.ms=50"];
    let broker = Broker::start(data, &settings);
    let mut client = Client::connect(&broker.address).unwrap();
    client.create("t", 2, &[("segment.bytes", "600")]);
    let compacted = [
        ("cleanup.policy", "compact"),
        ("segment.bytes", "300"),
        ("min.cleanable.dirty.ratio", "0"),
    ];
    client.create("c", 1, &compacted);
    let id = client.producer_id().unwrap();
    let say = |client: &mut Client, n: i64| {
        let bytes = batch(Some((id, n as i32)), &[value(n).as_bytes()]);
        assert_eq!(client.produce("t", 0, &bytes).unwrap(), Ok(n));
        assert_eq!(client.produce("t", 1, &bytes).unwrap(), Ok(n));
    };
    (0..RECORDS / 2).for_each(|n| say(&mut client, n));
    for n in 0..20 {
        let mut keyed = Builder::new(n);
        keyed.add(Some(b"key"), Some(value(n).as_bytes()), &[], n);
        assert_eq!(client.produce("c", 0, &keyed.build()).unwrap(), Ok(n));
    }
    wait_until(|| data.join("cleaner-offset-checkpoint").exists());
    broker.kill();
    // A tear, so that the leader epoch rises.
    let torn = names(&data.join("t-0"), ".log").pop().unwrap();
    let torn = data.join("t-0").join(torn);
    let mut bytes = fs::read(&torn).unwrap();
    bytes.extend_from_slice(b"torn");
    fs::write(&torn, bytes).unwrap();
    let broker = Broker::start(data, &settings);
    let mut client = Client::connect(&broker.address).unwrap();
    (RECORDS / 2..RECORDS).for_each(|n| say(&mut client, n));
    for to in [2, DELETED_TO] {
        assert_eq!(delete_records(&mut client, to), 0);
    }
    let before = Before {
        ids: ["t", "c"].map(|topic| client.topic_id(topic).unwrap()),
        cluster_id: cluster_id(&mut client),
        writer: id,
        highest: client.producer_id().unwrap(),
    };
    (broker, before)
}

fn delete_records(client: &mut Client, offset: i64) -> i16 {
    let request = requests::delete_records("t", 0, offset);
    let answer: DeleteRecordsResponse = client.call(2, &request).unwrap();
    answer.topics[0].partitions[0].error_code
}

fn cluster_id(client: &mut Client) -> String {
    let request = DescribeClusterRequest::default();
    let answer: DescribeClusterResponse = client.call(0, &request).unwrap();
    answer.cluster_id
}

/// The files that small state is in, by their paths below the data directory.
fn small_files(data: &Path) -> Vec<String> {
    let mut files: Vec<String> = names(data, "")
        .into_iter()
        .filter(|name| {
            data.join(name).is_file() && !name.ends_with(".previous") && !name.ends_with(".tmp")
        })
        .collect();
    let dir = data.join("t-0");
    let snapshot = names(&dir, ".snapshot").pop();
    let fixed = ["leader-epoch-checkpoint", "partition.metadata"].map(String::from);
    files.extend(
        fixed
            .into_iter()
            .chain(snapshot)
            .map(|name| format!("t-0/{name}")),
    );
    files
}

fn check(data: &Path, before: &Before, what: &str) {
    let quiet = |command: &mut Command| {
        command.env("RUST_LOG", "off");
    };
    let broker = Broker::start_with(data, &[], quiet);
    let mut client = Client::connect(&broker.address).unwrap();
    let ids = ["t", "c"].map(|topic| client.topic_id(topic).unwrap());
    assert_eq!(ids, before.ids, "{what}");
    assert_eq!(cluster_id(&mut client), before.cluster_id, "{what}");
    assert!(client.producer_id().unwrap() > before.highest, "{what}");
    for index in 0..2 {
        let start = client.list_offset("t", index, -2).unwrap().unwrap();
        let deleted_to = if index == 0 { DELETED_TO } else { 0 };
        assert!(start <= deleted_to, "{what}: {start}");
        let (there, end) = client.fetch_from("t", index, start).unwrap();
        assert_eq!(end, RECORDS, "{what}");
        for (n, batch) in (start..).zip(&there) {
            assert_eq!(batch.header.base_offset, n, "{what}");
            assert_eq!(values_of(&batch.bytes), [value(n)], "{what}");
        }
        let retried = batch(
            Some((before.writer, RECORDS as i32 - 1)),
            &[value(RECORDS - 1).as_bytes()],
        );
        let known = client.produce("t", index, &retried).unwrap();
        assert_eq!(known, Ok(RECORDS - 1), "{what}: a duplicate");
        let next = client
            .produce("t", index, &batch(None, &[b"next"]))
            .unwrap();
        assert_eq!(next, Ok(RECORDS), "{what}");
    }
    assert!(broker.stop().success(), "{what}");
    assert_eq!(names(data, "-stray"), [""; 0], "{what}");
}

/// One case: the stop before it, and which files are lost how.
type Case = (bool, Vec<(String, Loss)>);

fn cases(files: &[Vec<String>; 2], rng: &mut StdRng) -> Vec<Case> {
    let mut cases = Vec::new();
    for (is_clean, files) in [true, false].into_iter().zip(files) {
        for file in files {
            cases.extend(losses(rng).map(|loss| (is_clean, vec![(file.clone(), loss)])));
        }
        for _ in 0..PAIRS / 2 {
            let mut pair: Vec<(String, Loss)> = Vec::new();
            for file in files.choose_multiple(rng, 2) {
                pair.push((file.clone(), *losses(rng).choose(rng).unwrap()));
            }
            cases.push((is_clean, pair));
        }
    }
    cases
}

#[test]
fn no_lost_small_state_costs_an_acked_record() {
    let mut rng = StdRng::seed_from_u64(common::seed("small state"));
    let scene = Scene::new();
    let (broker, before) = live(&scene.data());
    assert!(broker.stop().success());
    let images = ["clean", "killed"].map(|name| scene.path(name));
    copy_dir(&scene.data(), &images[0]);
    Broker::start(&scene.data(), &[]).kill();
    copy_dir(&scene.data(), &images[1]);
    let files = images.each_ref().map(|image| small_files(image));
    assert!(files[0].len() >= 10, "{:?}", files[0]);
    let cases = cases(&files, &mut rng);
    let count = cases.len();
    check_all(&scene, cases, |data, (is_clean, lost)| {
        copy_dir(&images[usize::from(!is_clean)], data);
        for (file, loss) in lost {
            loss.strike(&data.join(file));
        }
        check(data, &before, &format!("clean: {is_clean}, {lost:?}"));
    });
    eprintln!("small state: cases={count} files={} lost=0", files[0].len());
}
