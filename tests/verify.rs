//! `ottla verify`: what is whole is silent, each kind of damage is named with its place, and nothing changes on disk.

mod common;
#[path = "kafka_directories/layout.rs"]
mod layout;

use common::Broker;
use common::codecs::{CODECS, compress};
use common::producer::{Client, batch as said};
use common::transactional;
use layout::{Data, Partition, Segment, Stop, batch, id, old_message};
use ottla::batch::builder::Builder;
use ottla::compress::Codec;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::SystemTime;

/// Runs it; gives the exit code, the findings and the line of figures.
#[track_caller]
fn verify(data: &Path, wanted: &[&str]) -> (i32, Vec<String>, String) {
    let before = tree(data);
    let output = ottla(&[&["verify", "--data", data.to_str().unwrap()], wanted].concat());
    assert!(tree(data) == before, "nothing changes on disk");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let figures = lines.pop().expect("a line of figures");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(figures.starts_with("verify: "), "{figures} {said}");
    (output.status.code().unwrap(), lines, figures)
}

fn ottla(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ottla"));
    command.args(args).output().expect("the binary runs")
}

/// Every file below a directory, with its time of modification.
fn tree(dir: &Path) -> BTreeMap<String, (SystemTime, Vec<u8>)> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let (path, metadata) = (entry.path(), entry.metadata().unwrap());
        match metadata.is_dir() {
            true => files.extend(tree(&path)),
            false => {
                let name = path.to_str().unwrap().to_owned();
                let read = fs::read(&path).unwrap();
                files.insert(name, (metadata.modified().unwrap(), read));
            }
        }
    }
    files
}

/// Everything that a broker writes: batches in every codec, transactions, compaction's topics, groups, a deletion.
fn busy(data: &Path) -> Broker {
    let broker = Broker::start(
        data,
        &[
            "log.segment.bytes=20000",
            "group.initial.rebalance.delay.ms=0",
        ],
    );
    let mut client = Client::connect(&broker.address).unwrap();
    for (name, settings) in [
        ("a", &[][..]),
        ("b", &[("cleanup.policy", "compact")]),
        ("gone", &[]),
    ] {
        client.create(name, 2, settings);
    }
    let mut producer = transactional::Producer::new(&mut client, "tx", false)
        .unwrap()
        .unwrap();
    for round in 0..12 {
        let codec = CODECS[round % CODECS.len()];
        let mut builder = Builder::new(layout::TIME_MS);
        for _ in 0..20 {
            builder.add(Some(b"k"), Some(&[b'x'; 300]), &[], layout::TIME_MS);
        }
        let records = builder.build_from(codec, &compress(codec, builder.records()));
        for (topic, index) in [("a", 1), ("b", 0), ("gone", 0)] {
            client.produce(topic, index, &records).unwrap().unwrap();
        }
        assert_eq!(producer.write(&mut client, "a", "value").unwrap(), 0);
        assert_eq!(
            producer.commit_offset(&mut client, round as i64).unwrap(),
            0
        );
        assert_eq!(producer.end(&mut client, round % 3 != 0).unwrap(), 0);
    }
    assert_eq!(client.delete("gone").unwrap(), 0);
    broker
}

#[test]
fn what_a_broker_left_whole_is_silent_however_it_ended() {
    let data = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    assert!(busy(data.path()).stop().success());
    let (code, findings, figures) = verify(data.path(), &[]);
    assert_eq!((code, findings), (0, vec![]), "{figures}");
    assert!(
        figures.contains("partitions=7 ") && figures.contains("damaged=0"),
        "{figures}"
    );
    let number = |name: &str| -> u64 {
        let word = figures
            .split(' ')
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        word.unwrap().parse().unwrap()
    };
    let lengths = tree(data.path())
        .into_iter()
        .filter(|(name, _)| name.ends_with(".log"));
    let lengths: Vec<usize> = lengths.map(|(_, (_, bytes))| bytes.len()).collect();
    assert_eq!(number("bytes"), lengths.iter().sum::<usize>() as u64);
    assert_eq!(number("segments"), lengths.len() as u64);
    assert!(number("records") > 2 * 12 * 20 && number("batches") > 12 * 6);

    let killed = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    busy(killed.path()).kill();
    let (code, findings, figures) = verify(killed.path(), &[]);
    assert_eq!((code, findings), (0, vec![]), "{figures}");
}

#[test]
fn a_directory_that_a_broker_uses_is_refused() {
    let data = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let broker = Broker::start(data.path(), &[]);
    let path = data.path().to_str().unwrap();
    let output = ottla(&["verify", "--data", path]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{said}");
    let advice = "stop it, or verify a snapshot of the filesystem";
    assert_eq!(said, format!("ottla: a broker uses {path}: {advice}\n"));
    assert!(output.stdout.is_empty());
    assert!(broker.stop().success());
    assert_eq!(verify(data.path(), &[]).0, 0);
}

#[test]
fn arguments_that_make_no_sense_are_refused() {
    let data = Data::new();
    let path = data.path().to_str().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().to_str().unwrap();
    let cases: [(&[&str], i32, &str); 6] = [
        (
            &["verify"],
            2,
            "which directory? write --data DIR; see `ottla --help`",
        ),
        (
            &["verify", "--dta", "x"],
            2,
            "invalid option '--dta'; see `ottla --help`",
        ),
        (
            &["verify", "--data"],
            2,
            "missing argument for option '--data'; see `ottla --help`",
        ),
        (
            &["verify", "--data", "/nowhere"],
            2,
            "reading /nowhere: No such file or directory (os error 2)",
        ),
        (
            &["verify", "--data", path, "t-0"],
            2,
            "\"t-0\": there is no such topic or partition",
        ),
        (
            &["verify", "--data", empty],
            2,
            &format!("{empty}: it is no broker's data directory"),
        ),
    ];
    for (args, code, line) in cases {
        let output = ottla(args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            (output.status.code(), said),
            (Some(code), format!("ottla: {line}\n")),
            "{args:?}"
        );
    }
    let help = String::from_utf8(ottla(&["verify", "--help"]).stdout).unwrap();
    for code in ["0 ", "1 ", "2 ", "3 ", "5 "] {
        assert!(
            help.contains(&format!("\n  {code}   ")),
            "exit code {code} is told"
        );
    }
}

/// Thirty batches of a record each in segments of ten, in `t-0`, and one in `u-0`.
struct Scene {
    data: Data,
    t: Partition,
}

/// The bytes of a batch of [`Scene`].
const BATCH: u64 = 973;

impl Scene {
    fn new(stop: Stop) -> Scene {
        let data = Data::new();
        let some = |base: i64| -> Vec<Vec<u8>> {
            (base..base + 10).map(|n| batch(n, 0, 1, 900)).collect()
        };
        assert_eq!(batch(0, 0, 1, 900).len() as u64, BATCH);
        let t = data.partition("t", 0, id(1));
        t.write(
            &mut [0, 10, 20].map(|base| Segment::of(base, &some(base))),
            stop,
        );
        t.epochs(&[(0, 0)])
            .file("00000000000000000030.snapshot", &layout::snapshot(1, &[]));
        let u = data.partition("u", 0, id(2));
        u.write(&mut [Segment::of(0, &some(0)[..1])], stop);
        let point = if stop == Stop::Clean { 30 } else { 20 };
        data.stop(stop, &[("t", 0, point), ("u", 0, 1)]);
        Scene { data, t }
    }

    fn change(&self, name: &str, position: u64, bytes: &[u8]) {
        let file = File::options()
            .write(true)
            .open(self.data.path().join(name));
        file.unwrap().write_all_at(bytes, position).unwrap();
    }

    #[track_caller]
    fn says(&self, code: i32, expected: &[&str]) {
        let (told, findings, figures) = verify(self.data.path(), &[]);
        assert_eq!(findings, expected, "{figures}");
        assert_eq!(told, code, "{figures}");
    }
}

const FIRST: &str = "t-0/00000000000000000000.log";
const LAST: &str = "t-0/00000000000000000020.log";

#[test]
fn bad_bytes_in_a_log_are_named_by_their_offsets_and_place() {
    let bad = "no batch, or one whose CRC is wrong";
    for stop in [Stop::Clean, Stop::Unclean] {
        Scene::new(stop).says(0, &[]);
        let scene = Scene::new(stop);
        scene.change(FIRST, 4 * BATCH + 100, b"??");
        let (from, to) = (4 * BATCH, 5 * BATCH);
        scene.says(
            1,
            &[&format!("damaged t-0 4..5 {FIRST}:{from}..{to}: {bad}")],
        );
    }
    // A length that lies, two bad batches in a row, and one more.
    let scene = Scene::new(Stop::Clean);
    scene.change(FIRST, 2 * BATCH + 8, &[0; 4]);
    scene.change(FIRST, 3 * BATCH + 70, b"?");
    scene.change(FIRST, 9 * BATCH + 70, b"?");
    let first = format!(
        "damaged t-0 2..4 {FIRST}:{}..{}: {bad}",
        2 * BATCH,
        4 * BATCH
    );
    let second = format!(
        "damaged t-0 9..10 {FIRST}:{}..{}: {bad}",
        9 * BATCH,
        10 * BATCH
    );
    scene.says(1, &[&first, &second]);
}

/// The same bytes at the log's end: lost after a clean stop, torn after another, if they were not synced.
#[test]
fn the_end_of_a_log_is_torn_or_damaged_by_what_was_synced() {
    let (from, to) = (9 * BATCH, 10 * BATCH);
    for (stop, class) in [(Stop::Clean, "damaged"), (Stop::Unclean, "torn")] {
        let scene = Scene::new(stop);
        scene.change(LAST, from + 70, b"?");
        let line =
            format!("{class} t-0 29.. {LAST}:{from}..{to}: no batch, or one whose CRC is wrong");
        scene.says(i32::from(class == "damaged"), &[&line]);
    }
    // Cut without a trace.
    let scene = Scene::new(Stop::Clean);
    let file = File::options()
        .write(true)
        .open(scene.data.path().join(LAST));
    file.unwrap().set_len(8 * BATCH).unwrap();
    let lost = "damaged t-0 28..30 t-0: were synced, and are not there";
    let (code, findings, _) = verify(scene.data.path(), &[]);
    assert!(
        code == 1 && findings.iter().any(|line| line == lost),
        "{findings:?}"
    );
    let scene = Scene::new(Stop::Unclean);
    layout::lengthen(&scene.data.path().join(LAST), 1 << 20);
    scene.says(0, &[]);
    fs::remove_dir_all(&scene.t.dir).unwrap();
    scene.says(0, &[]);
}

/// A batch whose CRC is right, as a broker of another make may have stored it.
#[test]
fn records_that_are_none_are_found_behind_a_right_crc() {
    let mut builder = Builder::new(layout::TIME_MS).place(0, 0);
    builder.add(None, Some(b"value"), &[], layout::TIME_MS);
    let mut odd = builder.records().to_vec();
    odd[3] = 2 * 7;
    let cut = &builder.records()[..8];
    for (codec, body, what) in [
        (Codec::None, odd.clone(), "the records' offsets do not rise"),
        (
            Codec::Zstd,
            compress(Codec::Zstd, &odd),
            "the records' offsets do not rise",
        ),
        (
            Codec::Gzip,
            compress(Codec::Gzip, cut),
            "the CRC is right, and the records are not: ",
        ),
        (
            Codec::Lz4,
            b"no frame of lz4".to_vec(),
            "the CRC is right, and the records are not: ",
        ),
        (
            Codec::Snappy,
            vec![255; 30],
            "the CRC is right, and the records are not: ",
        ),
    ] {
        let data = Data::new();
        let t = data.partition("t", 0, id(1));
        let written = builder.build_from(codec, &body);
        t.write(
            &mut [Segment::of(0, std::slice::from_ref(&written))],
            Stop::Clean,
        );
        data.stop(Stop::Clean, &[("t", 0, 1)]);
        let (code, findings, _) = verify(data.path(), &[]);
        let line = format!("damaged t-0 0..1 {FIRST}:0..{}: {what}", written.len());
        assert!(
            code == 1 && findings.len() == 1 && findings[0].starts_with(&line),
            "{findings:?}"
        );
    }
}

/// What the internal topics' records mean is for the broker to read.
#[test]
fn internal_records_that_their_owner_cannot_read_are_damage() {
    for topic in [
        "__cluster_metadata",
        "__consumer_offsets",
        "__transaction_state",
    ] {
        let data = Data::new();
        let partition = data.partition(topic, 0, id(1));
        let mut builder = Builder::new(layout::TIME_MS).place(0, 0);
        // The keys of an offset and of a transaction, both cut short; as a value, a topic's record likewise.
        builder.add(Some(&[0, 0, 0]), Some(&[1, 2, 0, 9]), &[], layout::TIME_MS);
        partition.write(&mut [Segment::of(0, &[builder.build()])], Stop::Clean);
        let (code, findings, _) = verify(data.path(), &[]);
        let begins = format!("damaged {topic}-0 0..1 {topic}-0/00000000000000000000.log:0..");
        assert!(
            code == 1 && findings.len() == 1 && findings[0].starts_with(&begins),
            "{findings:?}"
        );
    }
}

#[test]
fn what_can_be_made_anew_is_a_hint() {
    let zeros = [255; 8];
    let (index, times) = (
        "t-0/00000000000000000000.index",
        "t-0/00000000000000000010.timeindex",
    );
    let snapshot = "t-0/00000000000000000030.snapshot";
    let cases = [
        (
            index,
            0,
            "t-0 - t-0/00000000000000000000.index:0..8: an entry names no batch",
        ),
        (
            times,
            0,
            "t-0 - t-0/00000000000000000010.timeindex:0..12: an entry is not the time of its batch",
        ),
        (
            snapshot,
            2,
            "t-0 - t-0/00000000000000000030.snapshot:0..10: garbled",
        ),
        (
            "t-0/leader-epoch-checkpoint",
            0,
            "t-0 - t-0/leader-epoch-checkpoint:0..8: garbled",
        ),
        (
            "t-0/partition.metadata",
            0,
            "t-0 - t-0/partition.metadata:0..43: garbled",
        ),
        ("meta.properties", 0, "- - meta.properties: garbled"),
        (
            "log-start-offset-checkpoint",
            0,
            "- - log-start-offset-checkpoint: garbled",
        ),
        (
            "broker-time-checkpoint",
            0,
            "- - broker-time-checkpoint: garbled",
        ),
    ];
    for (name, position, line) in cases {
        let scene = Scene::new(Stop::Clean);
        scene
            .data
            .offsets("log-start-offset-checkpoint", &[("t", 0, 0)]);
        let time = scene.data.path().join("broker-time-checkpoint");
        fs::write(time, "0\n1\n1700000000000\n").unwrap();
        scene.change(name, position, &zeros);
        scene.says(0, &[&format!("hint {line}")]);
    }
}

/// Rot that a start took out: its bytes and its gap are told for ever, and are no new damage.
#[test]
fn what_an_earlier_start_set_aside_is_told() {
    let data = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let broker = Broker::start(data.path(), &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    client.create("t", 1, &[]);
    for _ in 0..12 {
        client
            .produce("t", 0, &said(None, &[&[b'x'; 500_000]]))
            .unwrap()
            .unwrap();
    }
    broker.kill();
    let log = File::options()
        .write(true)
        .open(data.path().join(FIRST))
        .unwrap();
    let bytes = log.metadata().unwrap().len() / 12;
    log.write_all_at(b"?", bytes + 1000).unwrap();
    let (code, findings, _) = verify(data.path(), &["t"]);
    let lost = format!(
        "damaged t-0 1..2 {FIRST}:{bytes}..{}: no batch, or one whose CRC is wrong",
        2 * bytes
    );
    assert_eq!((code, findings), (1, vec![lost]));

    assert!(Broker::start(data.path(), &[]).stop().success());
    let (code, findings, figures) = verify(data.path(), &[]);
    let gap = format!("gap t-0 1..2 {FIRST}:{bytes}..{bytes}: lost before");
    let kept = format!(
        "kept t-0 - {FIRST}.{bytes}.0.quarantine:0..{bytes}: rotten bytes that an earlier start set aside"
    );
    assert_eq!((code, findings), (0, vec![gap, kept]));
    assert!(
        figures.contains("damaged=0 torn=0 gaps=1 hints=0 kept=1 unread=0"),
        "{figures}"
    );
}

#[test]
fn what_cannot_be_read_is_told_and_the_rest_is_looked_at() {
    let scene = Scene::new(Stop::Clean);
    fs::remove_file(scene.t.path("00000000000000000010.log")).unwrap();
    fs::create_dir(scene.t.path("00000000000000000010.log")).unwrap();
    let old = scene.data.partition("old", 0, id(9));
    let mut segment = Segment::new(0);
    segment.append_as(&old_message(0, 1, b"value"), 0, layout::TIME_MS);
    old.write(&mut [segment], Stop::Clean);
    let (code, findings, figures) = verify(scene.data.path(), &[]);
    let unread: Vec<&String> = findings
        .iter()
        .filter(|line| line.starts_with("unread"))
        .collect();
    assert!(
        unread[0].contains("old-0/00000000000000000000.log:0..0: messages of a format"),
        "{unread:?}"
    );
    assert!(
        unread[1].contains("t-0 - -: reading") && unread[1].contains("00000000000000000010.log"),
        "{unread:?}"
    );
    assert_eq!((code, unread.len()), (5, 2), "{figures}");
    assert!(figures.contains("partitions=3 "));

    assert_eq!(verify(scene.data.path(), &["u"]).0, 0);
    assert_eq!(verify(scene.data.path(), &["u-0", "t"]).0, 5);
}

/// A partition whose directory is gone is missed, if the catalog knows it and it had records.
#[test]
fn a_missing_directory_is_damage() {
    let data = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    assert!(busy(data.path()).stop().success());
    fs::remove_dir_all(data.path().join("a-1")).unwrap();
    let (code, findings, _) = verify(data.path(), &[]);
    assert_eq!(
        (code, findings),
        (
            1,
            vec!["damaged a-1 0..240 a-1: the directory is gone".to_owned()]
        )
    );
}
