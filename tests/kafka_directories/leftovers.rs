//! What else lies in Kafka's directories: what its crashes and its other tasks leave, other brokers' partitions, other
//! versions of small state, and what is not Kafka's at all.

use crate::catalog::is_kept;
use crate::common::Broker;
use crate::common::producer::Client;
use crate::layout::{Data, Segment, Stop, batch, id};
use crate::{offset, served};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

fn many(base: i64, count: i64) -> Vec<Vec<u8>> {
    let one = |n| batch(base + n, 0, 1, 900);
    (0..count).map(one).collect()
}

#[test]
fn removals_and_rewrites_that_a_crash_cut_short_are_finished() {
    let data = Data::new();
    let t = data.partition("t", 0, id(1));
    let (old, new) = (
        many(0, 30),
        [&many(0, 30)[..3], &many(0, 30)[20..]].concat(),
    );
    let mut segments = [
        Segment::of(0, &old[..10]),
        Segment::of(10, &old[10..]),
        Segment::of(30, &[]),
    ];
    t.write(&mut segments, Stop::Unclean);
    // The first two were cleaned into one, which has its last name but for the suffix; the next was not yet.
    t.file("00000000000000000000.log.swap", &new.concat());
    t.file("00000000000000000030.log.cleaned", &many(30, 2).concat());
    t.file("00000000000000000030.index.cleaned", &[]);
    for name in ["log", "index", "timeindex"] {
        t.file(&format!("00000000000000000005.{name}.deleted"), b"gone");
    }
    let kept: [(&str, &[u8]); 3] = [
        ("notes.txt", b"mine"),
        ("x.log", b"no segment"),
        ("remote.partial", b""),
    ];
    for (name, bytes) in kept {
        t.file(name, bytes);
    }
    data.stop(Stop::Unclean, &[("t", 0, 30)]);

    let broker = data.start();
    assert_eq!(served(&broker, "t", 0, 0), (new, 30));
    assert!(broker.stop().success());
    for suffix in [".swap", ".cleaned", ".deleted"] {
        assert!(t.files(suffix).is_empty(), "{suffix}");
    }
    for (name, bytes) in kept {
        assert_eq!(t.files("")[name], bytes, "{name}");
    }
}

/// Every file below a directory.
fn tree(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let (name, path) = (entry.file_name().into_string().unwrap(), entry.path());
        match path.is_dir() {
            true => files.extend(
                tree(&path)
                    .into_iter()
                    .map(|(n, b)| (format!("{name}/{n}"), b)),
            ),
            false => drop(files.insert(name, fs::read(path).unwrap())),
        }
    }
    files
}

/// Copies in the making, strays, and directories that are nobody's: told, and left alone.
#[test]
fn directories_that_are_no_partitions_are_told_and_left_alone() {
    let data = Data::new();
    let t = data.partition("t", 0, id(1));
    t.write(&mut [Segment::of(0, &many(0, 5))], Stop::Clean);
    let strangers = [
        "t-0.6fb1e1b1a0c84c4ab1b6b2c1b8b5d0aa-future",
        "t-1.6fb1e1b1a0c84c4ab1b6b2c1b8b5d0aa-stray",
        "nobodys-0",
    ];
    for name in strangers {
        let dir = data.path().join(name);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("00000000000000000000.index"), b"").unwrap();
        if name != "nobodys-0" {
            // In a directory of a partition's own name they would be served.
            let segment = dir.join("00000000000000000000.log");
            fs::write(segment, many(0, 3).concat()).unwrap();
        }
    }
    fs::create_dir(data.path().join("lost+found")).unwrap();
    data.file("t-7", b"a file of a partition's name");
    data.stop(Stop::Clean, &[("t", 0, 5), ("t", 1, 3)]);
    let before: Vec<_> = strangers.map(|name| tree(&data.path().join(name))).into();

    for _ in 0..2 {
        let broker = data.start();
        let log = broker.log();
        for name in strangers {
            let lines = log.lines().filter(|line| line.contains(name)).count();
            assert_eq!(lines, 1, "{name}: {log}");
        }
        assert_eq!(served(&broker, "t", 0, 0), (many(0, 5), 5));
        let mut client = Client::connect(&broker.address).unwrap();
        assert_eq!(client.topic_id("nobodys").unwrap(), None);
        assert!(broker.stop().success());
    }
    let after: Vec<_> = strangers.map(|name| tree(&data.path().join(name))).into();
    assert!(before == after && data.path().join("t-7").is_file());
}

/// Kafka before 2.8 wrote no topic's id: its partitions are adopted for their segments.
#[test]
fn directories_without_an_id_are_served() {
    let data = Data::new();
    let t = data.partition("t", 0, id(1));
    t.write(&mut [Segment::of(0, &many(0, 5))], Stop::Clean);
    fs::remove_file(data.path().join("t-0/partition.metadata")).unwrap();
    data.stop(Stop::Clean, &[("t", 0, 5)]);
    let mut ids = Vec::new();
    for _ in 0..2 {
        let broker = data.start();
        assert_eq!(served(&broker, "t", 0, 0), (many(0, 5), 5));
        is_kept(&broker, "t");
        let mut client = Client::connect(&broker.address).unwrap();
        ids.push(client.topic_id("t").unwrap().unwrap());
        assert!(broker.stop().success());
    }
    assert_eq!(ids[0], ids[1]);
}

/// A broker of a larger cluster has some partitions of a topic. They keep their numbers, and their records: nothing is
/// known of the topic's settings, so no default may take what a setting had kept.
#[test]
fn some_partitions_of_a_topic_are_served_under_their_numbers() {
    let data = Data::new();
    for index in [1, 3] {
        let t = data.partition("t", index, id(1));
        let batches = many(i64::from(index) * 100, 5);
        t.write(
            &mut [Segment::of(i64::from(index) * 100, &batches)],
            Stop::Clean,
        );
        t.epochs(&[(index, i64::from(index) * 100)]);
    }
    data.stop(Stop::Clean, &[("t", 1, 105), ("t", 3, 305)]);
    for _ in 0..2 {
        let broker = data.start();
        for (index, start, count) in [(0, 0, 0), (1, 100, 5), (2, 0, 0), (3, 300, 5)] {
            let all = (many(start, count), start + count);
            assert_eq!(served(&broker, "t", index, start), all, "{index}");
        }
        is_kept(&broker, "t");
        assert!(broker.stop().success());
    }
}

#[test]
fn a_directory_of_another_node_is_refused_untouched() {
    for (text, says) in [
        ("version=1\nnode.id=4\ncluster.id=abc\n", "node.id=4"),
        ("version=0\nbroker.id=4\ncluster.id=abc\n", "node.id=4"),
    ] {
        let data = Data::new();
        data.file("meta.properties", text.as_bytes());
        let t = data.partition("t", 0, id(1));
        t.write(&mut [Segment::of(0, &many(0, 5))], Stop::Clean);
        data.stop(Stop::Clean, &[("t", 0, 5)]);
        let mut before = tree(data.path());
        let Err((status, log)) = Broker::try_start(data.path(), &["node.id=1"], |_| {}) else {
            panic!("it started");
        };
        assert!(status.code() == Some(1) && log.contains(says), "{log}");
        before.insert(".lock".into(), Vec::new());
        assert!(tree(data.path()) == before);

        let broker = Broker::start(data.path(), &["node.id=4"]);
        assert_eq!(offset(&broker, "t", -1), 5);
        assert!(broker.stop().success());
        let meta = fs::read_to_string(data.path().join("meta.properties")).unwrap();
        assert!(meta.contains("cluster.id=abc"), "{meta}");
    }
}

/// Empty checkpoints, ones that lack partitions or name others, and none at all.
#[test]
fn checkpoints_in_any_state_cost_no_record() {
    for stop in [Stop::Clean, Stop::Unclean] {
        for kind in 0..4 {
            let data = Data::new();
            let t = data.partition("t", 0, id(1));
            t.write(
                &mut [Segment::of(0, &many(0, 9)), Segment::of(9, &many(9, 6))],
                stop,
            );
            match kind {
                0 => data.stop(stop, &[]),
                1 => data.stop(stop, &[("elsewhere", 5, 77), ("t", 9, 3)]),
                2 => {
                    data.stop(stop, &[]);
                    data.file("recovery-point-offset-checkpoint", b"");
                    data.file("log-start-offset-checkpoint", b"");
                    t.file("leader-epoch-checkpoint", b"");
                }
                _ => {
                    data.stop(stop, &[("t", 0, 9)]);
                    fs::remove_file(data.path().join("recovery-point-offset-checkpoint")).unwrap();
                    data.file("log-start-offset-checkpoint", b"0\n1\n");
                }
            }
            let broker = data.start();
            assert_eq!(served(&broker, "t", 0, 0), (many(0, 15), 15), "{kind}");
            assert!(broker.stop().success());
            assert!(t.files(".torn").is_empty() && t.files(".quarantine").is_empty());
        }
    }
}
