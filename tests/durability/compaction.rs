//! Compaction and the power: at every step of a swap, and whatever the disk kept, a start finds the old list of
//! segments or the new one, and both add up to the same map (L5).

use crate::common::keyed::{self, Change};
use crate::common::producer::Client;
use crate::common::{self, Broker, client, settings};
use crate::power::every_cut;
use crate::power_cut::Disk;
use crate::scene::{Scene, names, wait_until};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

const TOPIC: &str = "t";
const TIME_MS: i64 = 1_700_000_000_000;

/// The record of changes' number for a file that is made.
const CREATE: u8 = 1;

/// Compaction is on its way as soon as the topic asks for it, and files go at once.
const EAGER: [&str; 1] = ["log.cleaner.backoff.ms=1"];

/// The changes of a run, in the order of their offsets, and how long the record of changes was when each was acked.
#[derive(Default)]
struct Written {
    changes: Vec<Change>,
    acked: Vec<u64>,
}

impl Written {
    fn write(&mut self, client: &mut Client, record: &Path, rng: &mut StdRng) {
        let change = Change {
            key: format!("key {}", rng.random_range(0..6)),
            value: (rng.random_range(0..5) > 0).then(|| "v".repeat(rng.random_range(0..150))),
        };
        let bytes = keyed::batch(None, TIME_MS, std::slice::from_ref(&change));
        let offset = client.produce(TOPIC, 0, &bytes).unwrap();
        assert_eq!(offset, Ok(self.changes.len() as i64));
        self.changes.push(change);
        self.acked.push(fs::metadata(record).unwrap().len());
    }
}

/// Fills a topic, lets it be compacted while more is written, and cuts the broker off.
fn run(scene: &mut Scene, rng: &mut StdRng) -> Written {
    let broker = scene.start(&EAGER);
    let record = scene.changes(1);
    let mut client = Client::connect(&broker.address).unwrap();
    let topic = [
        ("cleanup.policy", "compact"),
        ("segment.bytes", "1000"),
        ("min.cleanable.dirty.ratio", "1"),
        ("file.delete.delay.ms", "0"),
    ];
    client.create(TOPIC, 1, &topic);
    let mut written = Written::default();
    for _ in 0..60 {
        written.write(&mut client, &record, rng);
    }
    let dir = scene.data().join("t-0");
    assert!(names(&dir, ".log").len() > 5);
    let mut other = client::Client::connect(&broker.address);
    // Several go into one from now on.
    let now = [
        settings::set("min.cleanable.dirty.ratio", "0"),
        settings::set("segment.bytes", "3000"),
    ];
    settings::altered(&mut other, settings::TOPIC, TOPIC, &now);
    for _ in 0..4 {
        written.write(&mut client, &record, rng);
    }
    wait_until(|| scene.data().join("cleaner-offset-checkpoint").exists());
    wait_until(|| names(&dir, ".deleted").is_empty());
    assert!(names(&dir, ".log").len() <= 5, "nothing was compacted");
    written.write(&mut client, &record, rng);
    broker.kill();
    written
}

/// Starts a broker on what a cut left: once to see it as it is, once more to see it compacted again.
fn check(image: &Path, cut: u64, written: &Written) {
    for settings in [&["log.cleaner.enable=false"][..], &EAGER] {
        let broker = Broker::start_with(image, settings, |command| {
            command.env("RUST_LOG", "error");
        });
        let mut client = Client::connect(&broker.address).unwrap();
        let acked = written.acked.iter().filter(|&&at| at <= cut).count();
        let (map, _, end) = keyed::rebuilt(&mut client, TOPIC, 0);
        assert!(end as usize >= acked, "{acked} were acked, {end} are there");
        assert_eq!(map, keyed::sum(&written.changes[..end as usize]));
        let log = broker.log();
        assert!(!log.contains("lost") && !log.contains("offline"), "{log}");
        assert!(broker.stop().success());
    }
    for leftover in [".cleaned", ".swap", ".quarantine"] {
        let left = names(&image.join("t-0"), leftover);
        assert!(left.is_empty(), "{left:?}");
    }
}

/// A start that finds a `.cleaned` file takes a `.swap` behind it for half of a split, and removes it: so no pass
/// begins before the disk has the names that the pass before it gave.
#[test]
fn no_rewrite_is_begun_while_the_disk_may_hold_a_swap() {
    let mut rng = StdRng::seed_from_u64(common::seed("compaction, passes"));
    let mut scene = Scene::new();
    let mut disk = scene.disk();
    let broker = scene.start(&EAGER);
    let record = scene.changes(1);
    let mut client = Client::connect(&broker.address).unwrap();
    let topic = [
        ("cleanup.policy", "compact"),
        ("segment.bytes", "1000"),
        ("min.cleanable.dirty.ratio", "0"),
    ];
    client.create(TOPIC, 1, &topic);
    let mut written = Written::default();
    let passes = || {
        let passes = fs::read(scene.changes(1)).unwrap();
        let swapped = b".log.swap";
        passes
            .windows(swapped.len())
            .filter(|w| w == swapped)
            .count()
    };
    // Each pass has two of these renames at least.
    while passes() < 8 {
        assert!(written.acked.len() < 20_000, "too few passes");
        written.write(&mut client, &record, &mut rng);
    }
    broker.kill();
    let changes = fs::read(&record).unwrap();
    let (mut rest, mut begun) = (&changes[..], 0);
    loop {
        let before = rest;
        if !disk.step(&mut rest) {
            break;
        }
        let change = &before[..before.len() - rest.len()];
        if change[0] == CREATE && change.ends_with(b".log.cleaned") {
            let image = scene.path("image");
            disk.write_to(&image).unwrap();
            assert_eq!(names(&image.join("t-0"), ".swap"), [""; 0]);
            fs::remove_dir_all(image).unwrap();
            begun += 1;
        }
    }
    assert!(begun > 2, "{begun} passes");
}

/// The places from the first prepared file on.
fn cuts(changes: &[u8]) -> BTreeSet<u64> {
    let cleaned = b".cleaned";
    let first = changes.windows(cleaned.len()).position(|w| w == cleaned);
    let first = first.expect("something is prepared") as u64;
    every_cut(changes).split_off(&first)
}

#[test]
fn a_power_cut_within_a_swap_leaves_the_old_list_or_the_new_one() {
    let mut rng = StdRng::seed_from_u64(common::seed("power, compaction"));
    let mut scene = Scene::new();
    let mut disk = scene.disk();
    let written = run(&mut scene, &mut rng);
    let changes = fs::read(scene.changes(1)).unwrap();
    let cuts = cuts(&changes);
    eprintln!("power, compaction: {} cuts", cuts.len());
    let mut rest = &changes[..];
    for cut in cuts {
        while ((changes.len() - rest.len()) as u64) < cut && disk.step(&mut rest) {}
        let images = images(&scene, &disk, cut, &mut rng);
        thread::scope(|scope| {
            let checks = images.each_ref().map(|image| {
                let written = &written;
                scope.spawn(move || check(image, cut, written))
            });
            for check in checks {
                assert!(check.join().is_ok(), "cut at byte {cut} (see above)");
            }
        });
        for image in images {
            fs::remove_dir_all(image).unwrap();
        }
    }
}

/// A disk that kept what was synced alone, and one that kept some of the rest.
fn images(scene: &Scene, disk: &Disk, cut: u64, rng: &mut StdRng) -> [PathBuf; 2] {
    let images = ["strict", "lucky"].map(|kind| scene.path(&format!("{kind}-{cut}")));
    disk.write_to(&images[0]).unwrap();
    disk.write_some_to(&images[1], rng).unwrap();
    images
}
