//! Transactions on a disk that fails: at every step each is wholly there or not at all, records and offsets, and
//! nobody waits for ever.

use crate::common::producer::Client;
use crate::common::transactional::{Producer, committed, offset};
use crate::common::{self, Broker, client};
use crate::power::every_cut;
use crate::power_cut::Keep;
use crate::scene::{Scene, check_all, copy_dir, names, say};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

const SMALL: [&str; 2] = [
    "offsets.topic.num.partitions=1",
    "transaction.state.log.num.partitions=2",
];
const IDS: [(&str, bool); 2] = [("older", false), ("newer", true)];
const TRANSACTIONS: usize = 8;
const CUTS: usize = 30;

/// Transactions that end so, by their numbers.
fn commits(number: usize) -> bool {
    number % 4 < 2
}

/// Begins a transaction in the flow of its number, writes that to both topics, and how far that is; gives the first
/// error.
fn fill(client: &mut Client, producer: &mut Producer, number: usize) -> std::io::Result<i16> {
    let value = number.to_string();
    for topic in ["a", "b"] {
        match producer.write(client, topic, &value)? {
            0 => {}
            code => return Ok(code),
        }
    }
    producer.commit_offset(client, number as i64)
}

/// Everything is decided once its producers have begun anew; then what was committed is in both topics, and so far
/// the group has read. Gives that.
fn settled(broker: &Broker) -> Vec<usize> {
    let mut client = Client::connect(&broker.address).unwrap();
    for (id, newer) in IDS {
        let began = Instant::now();
        while Producer::new(&mut client, id, newer).unwrap().is_err() {
            assert!(began.elapsed() < Duration::from_secs(60), "{id} hangs");
        }
    }
    let mut read = |topic| {
        let began = Instant::now();
        loop {
            match committed(&mut client, topic).unwrap() {
                Err(3) => return Vec::new(),
                Ok((values, true)) => return values,
                other => assert!(began.elapsed() < Duration::from_secs(60), "{other:?}"),
            }
        }
    };
    let (a, b) = (read("a"), read("b"));
    assert_eq!(a, b, "torn");
    let numbers: Vec<usize> = a.iter().map(|value| value.parse().unwrap()).collect();
    let last = numbers.last().map_or(-1, |&number| number as i64);
    assert_eq!(offset(&mut client).unwrap(), Ok(last), "{numbers:?}");
    numbers
}

/// Writes transactions until the broker is cut off; gives how long the record of changes was when each was acked.
fn run(scene: &mut Scene) -> Vec<u64> {
    let broker = scene.start(&SMALL);
    let record = scene.changes(1);
    let mut client = Client::connect(&broker.address).unwrap();
    client.create("a", 1, &[]);
    client.create("b", 1, &[]);
    let mut producers =
        IDS.map(|(id, newer)| Producer::new(&mut client, id, newer).unwrap().unwrap());
    let mut acked = Vec::new();
    for number in 0..TRANSACTIONS {
        let producer = &mut producers[number % 2];
        assert_eq!(fill(&mut client, producer, number).unwrap(), 0);
        assert_eq!(producer.end(&mut client, commits(number)).unwrap(), 0);
        acked.push(fs::metadata(&record).unwrap().len());
    }
    broker.kill();
    acked
}

fn check(image: &Path, cut: u64, acked: &[u64]) {
    let broker = Broker::start_with(image, &SMALL, |command| {
        command.env("RUST_LOG", "error");
    });
    let there = settled(&broker);
    assert!(
        there.iter().all(|&number| commits(number)),
        "aborted: {there:?}"
    );
    let must = (0..TRANSACTIONS).filter(|&n| commits(n) && acked[n] <= cut);
    assert!(
        must.clone().all(|n| there.contains(&n)),
        "{there:?} of {must:?}"
    );
    let log = broker.log();
    assert!(!log.contains("lost") && !log.contains("offline"), "{log}");
    assert!(broker.stop().success());
}

#[test]
fn a_power_cut_leaves_transactions_whole() {
    let mut rng = StdRng::seed_from_u64(common::seed("power, transactions"));
    let mut scene = Scene::new();
    let mut disk = scene.disk();
    let acked = run(&mut scene);
    let changes = fs::read(scene.changes(1)).unwrap();
    let cuts = every_cut(&changes);
    let mut chosen = cuts.iter().copied().choose_multiple(&mut rng, CUTS);
    chosen.sort_unstable();
    eprintln!(
        "power, transactions: {} of {} cuts",
        chosen.len(),
        cuts.len()
    );
    let mut rest = &changes[..];
    for cut in chosen {
        while ((changes.len() - rest.len()) as u64) < cut && disk.step(&mut rest) {}
        let images = ["strict", "lucky"].map(|kind| scene.path(&format!("{kind}-{cut}")));
        disk.write_to(&images[0]).unwrap();
        disk.write_some_to(&images[1], &mut rng).unwrap();
        for image in images {
            check(&image, cut, &acked);
            fs::remove_dir_all(image).unwrap();
        }
    }
}

/// A start that reads a segment back makes its transaction index anew, and moves the recovery point past it: the next
/// start believes the index, so a power cut must not leave an empty one.
#[test]
fn what_was_aborted_stays_so_where_the_power_fails_after_a_recovery() {
    let mut scene = Scene::new();
    let broker = scene.start(&SMALL);
    let mut client = Client::connect(&broker.address).unwrap();
    for topic in ["a", "b"] {
        client.create(topic, 1, &[("segment.bytes", "1000")]);
    }
    let (id, newer) = IDS[0];
    let mut producer = Producer::new(&mut client, id, newer).unwrap().unwrap();
    for number in 0..12 {
        assert_eq!(fill(&mut client, &mut producer, number).unwrap(), 0);
        assert_eq!(producer.end(&mut client, false).unwrap(), 0);
    }
    broker.kill();
    assert!(scene.start(&SMALL).stop().success());
    let broker = Broker::start(&scene.cut_power(), &SMALL);
    assert_eq!(settled(&broker), [0; 0]);
}

/// A start that finds a transaction index missing makes it anew. The next one believes what it finds below the recovery
/// point: so wherever this one is cut off, there is a whole index or none.
#[test]
fn a_start_that_is_cut_off_leaves_no_transaction_index_in_part() {
    let mut rng = StdRng::seed_from_u64(common::seed("power, transaction indexes"));
    let mut scene = Scene::new();
    let broker = Broker::start(&scene.data(), &SMALL);
    let mut client = Client::connect(&broker.address).unwrap();
    client.create("a", 1, &[("segment.bytes", "1000")]);
    client.create("b", 1, &[]);
    let (id, newer) = IDS[0];
    let mut producer = Producer::new(&mut client, id, newer).unwrap().unwrap();
    for number in 0..12 {
        assert_eq!(fill(&mut client, &mut producer, number).unwrap(), 0);
        assert_eq!(producer.end(&mut client, false).unwrap(), 0);
    }
    assert!(broker.stop().success());
    let dir = scene.data().join("a-0");
    let indexes = names(&dir, ".txnindex");
    let first = &indexes[..2];
    first
        .iter()
        .for_each(|name| fs::remove_file(dir.join(name)).unwrap());
    scene.load();
    let mut disk = scene.disk();
    scene.start(&SMALL).kill();
    let changes = fs::read(scene.changes(1)).unwrap();
    let (mut rest, mut cuts) = (&changes[..], 0);
    loop {
        let before = rest;
        if !disk.step(&mut rest) {
            break;
        }
        let change = String::from_utf8_lossy(&before[..before.len() - rest.len()]);
        if !first.iter().any(|name| change.contains(name)) {
            continue;
        }
        for keep in [Keep::Everything, Keep::Lengths, Keep::AnyPart] {
            let image = scene.path("image");
            disk.write_kept_to(&image, keep, &mut rng).unwrap();
            let broker = Broker::start(&image, &SMALL);
            assert_eq!(settled(&broker), [0; 0], "{keep:?} after {change:?}");
            drop(broker);
            fs::remove_dir_all(image).unwrap();
        }
        cuts += 1;
    }
    assert!(cuts > 4, "{cuts} cuts");
}

/// Each of the three turns of an end may find the disk full: whatever the producer was told holds, and once there is
/// room again all goes on.
#[test]
fn a_full_disk_leaves_transactions_whole() {
    let mut scene = Scene::new();
    let broker = scene.start(&SMALL);
    let mut client = Client::connect(&broker.address).unwrap();
    client.create("a", 1, &[]);
    client.create("b", 1, &[]);
    let mut told = Vec::new();
    // First with room for all, so that the topics are there.
    let rooms = [1 << 30].into_iter().chain((0..700).step_by(23));
    for (number, room) in rooms.enumerate() {
        let (id, newer) = IDS[number % 2];
        let mut producer = Producer::new(&mut client, id, newer).unwrap().unwrap();
        if number % 3 > 0 {
            assert_eq!(fill(&mut client, &mut producer, number).unwrap(), 0);
            scene.shim.set_room(Some(room)).unwrap();
            told.push(producer.end(&mut client, true).unwrap());
        } else {
            // What it is filled with may not fit either.
            scene.shim.set_room(Some(2 * room)).unwrap();
            let filled = fill(&mut client, &mut producer, number).unwrap();
            let ended = producer.end(&mut client, filled == 0).unwrap();
            told.push(if filled == 0 { ended } else { filled });
        }
        scene.shim.set_room(None).unwrap();
        if number % 7 == 6 {
            check_told(&broker, &told);
        }
    }
    check_told(&broker, &told);
    assert!(broker.stop().success());
}

/// What was told to be committed is there.
fn check_told(broker: &Broker, told: &[i16]) {
    let there = settled(broker);
    let committed = (0..).zip(told).filter(|(_, code)| **code == 0);
    let missing: Vec<usize> = committed
        .map(|(n, _)| n)
        .filter(|n| !there.contains(n))
        .collect();
    assert_eq!(missing, [0; 0], "{told:?} {there:?}");
}

/// A sync that fails ends the process (P6), at any of the turns of an end.
#[test]
fn a_failed_sync_leaves_transactions_whole() {
    let mut scene = Scene::new();
    let mut told = Vec::new();
    for nth in 0..14 {
        let broker = scene.start(&SMALL);
        let mut client = Client::connect(&broker.address).unwrap();
        if nth == 0 {
            client.create("a", 1, &[]);
            client.create("b", 1, &[]);
        }
        let (id, newer) = IDS[nth % 2];
        let mut producer = Producer::new(&mut client, id, newer).unwrap().unwrap();
        assert_eq!(fill(&mut client, &mut producer, nth).unwrap(), 0);
        scene.shim.fail_sync(nth as u64 / 2).unwrap();
        told.push(producer.end(&mut client, true).unwrap_or(-1));
        // Its next transaction waits for the end of this one.
        let _ = producer.write(&mut client, "a", "none");
        drop(broker);
        scene.shim.fail_sync(0).unwrap();
        let broker = scene.start(&SMALL);
        check_told(&broker, &told);
        broker.kill();
    }
}

/// P5: what became of a transaction is known where its marker is not any more.
#[test]
fn a_marker_that_is_lost_is_written_again() {
    let mut scene = Scene::new();
    let mut expected = Vec::new();
    for number in 0..8 {
        let broker = scene.start(&SMALL);
        let mut client = Client::connect(&broker.address).unwrap();
        if number == 0 {
            client.create("a", 1, &[]);
            client.create("b", 1, &[]);
        }
        let (id, newer) = IDS[number % 2];
        let mut producer = Producer::new(&mut client, id, newer).unwrap().unwrap();
        assert_eq!(fill(&mut client, &mut producer, number).unwrap(), 0);
        assert_eq!(producer.end(&mut client, commits(number)).unwrap(), 0);
        expected.extend(commits(number).then_some(number));
        // Another begins once this one is complete.
        assert_eq!(producer.write(&mut client, "b", "none").unwrap(), 0);
        broker.kill();
        for partition in ["a-0", "__consumer_offsets-0"] {
            lose_last_marker(&scene.data().join(partition));
        }
        let broker = scene.start(&SMALL);
        assert_eq!(settled(&broker), expected);
        broker.kill();
    }
}

/// P5: where rot took a marker, and its producer went on in its next epoch, what was aborted does not count with what
/// was committed later, and what was committed is not aborted with what was aborted later.
#[test]
fn a_marker_that_rots_between_two_transactions_ends_the_first() {
    markers_rot(true, "1000000");
}

/// The same where nothing but the index tells that the producer went on: older clients keep their epoch. The marker may
/// be the last batch of its segment.
#[test]
fn a_marker_that_rots_between_two_transactions_of_one_epoch_ends_the_first() {
    for segment_bytes in ["1000000", "230"] {
        markers_rot(false, segment_bytes);
    }
}

fn markers_rot(newer: bool, segment_bytes: &str) {
    let scene = Scene::new();
    let broker = Broker::start(&scene.data(), &SMALL);
    let mut client = Client::connect(&broker.address).unwrap();
    client.create("a", 1, &[("segment.bytes", segment_bytes)]);
    let ends = [true, false, true, false, false, true];
    let mut producer = begin(&mut client, newer);
    for (number, commits) in ends.into_iter().enumerate() {
        if newer {
            producer = begin(&mut client, newer);
        }
        let (value, began) = (number.to_string(), Instant::now());
        // The end before it may not be through yet.
        while producer.write(&mut client, "a", &value).unwrap() != 0 {
            assert!(began.elapsed() < Duration::from_secs(60), "{number}");
        }
        assert_eq!(producer.end(&mut client, commits).unwrap(), 0);
    }
    assert_eq!(all_committed(&mut client), ["0", "2", "5"]);
    // It begins a segment, where those are small: the last one's rot would be a tear.
    let last = "z".repeat(150);
    say(&mut client, "a", &last).unwrap().unwrap();
    let expected = ["0", "2", "5", &last];
    assert!(broker.stop().success());
    Broker::start(&scene.data(), &SMALL).kill();
    // The stop is not clean, and all segments are to be read.
    for name in names(&scene.data(), "") {
        if name.starts_with("recovery-point") && segment_bytes == "230" {
            fs::remove_file(scene.data().join(name)).unwrap();
        }
    }
    let cases = (0..ends.len() - 1).flat_map(|lost| [(lost, 1), (lost, 2)]);
    check_all(&scene, cases.collect(), |data, &(lost, count)| {
        copy_dir(&scene.data(), data);
        rot_marker(&data.join("a-0"), lost, count);
        let mut expected = expected.to_vec();
        if count == 2 {
            let next = (lost + 1).to_string();
            expected.retain(|value| *value != next);
        }
        for _ in 0..2 {
            let broker = Broker::start(data, &SMALL);
            let mut client = Client::connect(&broker.address).unwrap();
            let there = all_committed(&mut client);
            assert_eq!(
                there, expected,
                "{lost} {count}, newer: {newer}, {segment_bytes}"
            );
            broker.kill();
        }
    });
}

/// What is committed in `a`, once every transaction has ended.
fn all_committed(client: &mut Client) -> Vec<String> {
    let began = Instant::now();
    loop {
        match committed(client, "a").unwrap().unwrap() {
            (values, true) => return values,
            other => assert!(began.elapsed() < Duration::from_secs(60), "{other:?}"),
        }
    }
}

fn begin(client: &mut Client, newer: bool) -> Producer {
    let began = Instant::now();
    loop {
        match Producer::new(client, "id", newer).unwrap() {
            Ok(producer) => return producer,
            Err(code) => assert!(began.elapsed() < Duration::from_secs(60), "{code}"),
        }
    }
}

/// Garbles a marker, or also what comes next.
fn rot_marker(dir: &Path, number: usize, count: usize) {
    let (mut all, mut markers) = (Vec::new(), Vec::new());
    for name in names(dir, ".log") {
        let mut end = 0;
        for (header, batch) in client::batches(&fs::read(dir.join(&name)).unwrap()) {
            end += batch.len();
            markers.extend(header.is_control().then_some(all.len()));
            all.push((name.clone(), end));
        }
    }
    for (name, end) in &all[markers[number]..][..count] {
        let mut bytes = fs::read(dir.join(name)).unwrap();
        bytes[end - 4] ^= 1;
        fs::write(dir.join(name), bytes).unwrap();
    }
}

fn lose_last_marker(dir: &Path) {
    let log = dir.join(names(dir, ".log").last().unwrap());
    let bytes = fs::read(&log).unwrap();
    let batches = client::batches(&bytes);
    let (last, batch) = batches.last().unwrap();
    assert!(last.is_control(), "{last:?} in {log:?}");
    fs::write(&log, &bytes[..bytes.len() - batch.len()]).unwrap();
}
