//! Bytes that rot at rest, and what is to be true of a broker that starts on them.

use crate::common::Broker;
use crate::common::producer::{Batch, Client, batches, bytes_of};
use crate::common::transactional;
use crate::scene::{SETTINGS, Scene, TOPICS, offset};
use rand::seq::SliceRandom;
use rand::{Rng, rngs::StdRng};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// One byte of one file.
#[derive(Clone, Debug)]
pub struct Flip {
    pub file: PathBuf,
    pub position: usize,
    pub mask: u8,
}

impl Flip {
    /// Whether it is in the batches of this partition.
    fn is_in_log(&self, partition: &str) -> bool {
        self.file.starts_with(partition) && self.file.extension().is_some_and(|e| e == "log")
    }

    fn is_in_log_of_brokers_own(&self) -> bool {
        let internal = [
            "__consumer_offsets-0",
            "__transaction_state-0",
            "__cluster_metadata-0",
        ];
        internal.iter().any(|partition| self.is_in_log(partition))
    }
}

/// What a run has seen.
#[derive(Default)]
pub struct Figures {
    pub flips: usize,
    pub files: BTreeSet<PathBuf>,
    /// Batches that were taken out and said to be.
    pub found: usize,
    /// Batches that were served as they were.
    pub unharmed: usize,
    pub failures: Vec<String>,
}

/// Rounds of flips, in each at most one a directory: `rounds` of them, or as many as every byte needs.
pub fn rounds(scene: &Scene, rng: &mut StdRng, rounds: usize) -> Vec<Vec<Flip>> {
    let mut by_dir: BTreeMap<PathBuf, Vec<Vec<Flip>>> = BTreeMap::new();
    for file in scene.files() {
        let len = fs::metadata(scene.path().join(&file)).unwrap().len() as usize;
        let mut positions: Vec<usize> = (0..len).collect();
        positions.shuffle(rng);
        let flip = |position| Flip {
            file: file.clone(),
            position,
            mask: 1 << rng.random_range(0..8),
        };
        let of_file = positions.into_iter().map(flip).collect();
        let dir = file.parent().unwrap().to_owned();
        by_dir.entry(dir).or_default().push(of_file);
    }
    // File after file, and again: a few of each before many of a large one.
    let interleave = |mut files: Vec<Vec<Flip>>| {
        let mut flips = Vec::new();
        while files.iter().any(|flips| !flips.is_empty()) {
            flips.extend(files.iter_mut().filter_map(Vec::pop));
        }
        flips
    };
    let by_dir: Vec<Vec<Flip>> = by_dir.into_values().map(interleave).collect();
    let mut all = Vec::new();
    for round in 0..rounds {
        let nth = by_dir.iter().filter_map(|flips| flips.get(round));
        let flips: Vec<Flip> = nth.cloned().collect();
        // What all logs rest on rots alone: two at once may cost what each would not.
        let rests_on = |flip: &Flip| {
            let dir = flip.file.parent().unwrap();
            dir == Path::new("") || dir == Path::new("__cluster_metadata-0")
        };
        let (alone, together): (Vec<Flip>, Vec<Flip>) = flips.into_iter().partition(rests_on);
        all.extend(alone.into_iter().map(|flip| vec![flip]));
        if !together.is_empty() {
            all.push(together);
        }
    }
    all
}

/// A start on a copy in which these bytes are flipped, the scrub of all of it, and what is there then; once more after
/// another start if it is to be `twice`.
pub fn run(scene: &Scene, flips: &[Flip], twice: bool, figures: &mut Figures) {
    let copy = scene.copy();
    for flip in flips {
        let path = copy.path().join(&flip.file);
        let mut bytes = fs::read(&path).unwrap();
        bytes[flip.position] ^= flip.mask;
        fs::write(path, bytes).unwrap();
        figures.files.insert(flip.file.clone());
    }
    figures.flips += flips.len();
    let checked = std::panic::catch_unwind(|| {
        let mut seen = (0, 0);
        for _ in 0..1 + usize::from(twice) {
            let broker = Broker::start(copy.path(), &SETTINGS);
            if seen == (0, 0) {
                await_scrub(&broker);
            }
            seen = check(scene, copy.path(), flips, &broker);
            assert!(broker.stop().success());
        }
        seen
    });
    match checked {
        Ok((found, unharmed)) => {
            figures.found += found;
            figures.unharmed += unharmed;
        }
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let clean = scene.clean;
            let text = text.unwrap_or_default();
            eprintln!("FAILED: clean={clean} {flips:?}: {text}");
            figures
                .failures
                .push(format!("clean={clean} {flips:?}: {text}"));
        }
    }
}

fn await_scrub(broker: &Broker) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !broker
        .log()
        .contains("scrub: all logs that were due were read")
    {
        assert!(Instant::now() < deadline, "no scrub: {}", broker.log());
        thread::sleep(Duration::from_millis(5));
    }
}

/// Gives how many batches were found rotten, and how many were served.
fn check(scene: &Scene, data: &Path, flips: &[Flip], broker: &Broker) -> (usize, usize) {
    let log = broker.log();
    assert!(!log.contains("panicked"), "{log}");
    let mut client = Client::connect(&broker.address).unwrap();
    let (mut found, mut unharmed) = (0, 0);
    for topic in TOPICS {
        let partition = format!("{topic}-0");
        let mut served = read(&mut client, topic);
        // Where the last marker was lost, another one has ended the transaction.
        let end = scene.batches[topic].last().unwrap().header.last_offset();
        served.retain(|b| b.header.last_offset() <= end || !b.header.is_control());
        let flip = flips.iter().find(|flip| flip.is_in_log(&partition));
        let lost = match flip {
            Some(flip) => loss(scene, topic, flip, &served),
            None => {
                assert!(
                    is_same(&scene.batches[topic], &served),
                    "{topic} has changed"
                );
                None
            }
        };
        unharmed += served.len();
        if let (Some(flip), Some(victim)) = (flip, lost) {
            found += 1;
            is_kept(&data.join(partition), flip, &victim);
        }
        // Of a log that was not closed, a start reads the end anew: a marker that is lost there is for P5 to make up.
        if topic == "a" && (scene.clean || flip.is_none()) {
            let (values, _) = transactional::committed(&mut client, "a").unwrap().unwrap();
            let missing = scene.committed.len() - values.len();
            let mut left = scene.committed.iter();
            let in_order = values.iter().all(|value| left.any(|truth| truth == value));
            assert!(
                in_order && missing <= usize::from(flip.is_some()),
                "{values:?}"
            );
        }
    }
    let offset = offset(&mut client);
    match flips.iter().any(Flip::is_in_log_of_brokers_own) {
        true => assert!(offset <= scene.offset),
        false => assert_eq!(offset, scene.offset),
    }
    (found, unharmed)
}

/// All of a topic; where the last batch is lost, a consumer waits for the next one behind it.
fn read(client: &mut Client, topic: &str) -> Vec<Batch> {
    let (mut read, mut offset) = (Vec::<Batch>::new(), 0);
    loop {
        let data = client.fetch(topic, 0, offset, 0).unwrap();
        assert_eq!(data.error_code, 0, "fetching {topic} at {offset}");
        let some = batches(bytes_of(&data.records));
        read.extend(
            some.into_iter()
                .filter(|b| b.header.last_offset() >= offset),
        );
        let next = read.last().map_or(0, |b| b.header.last_offset() + 1);
        if next == offset {
            return read;
        }
        offset = next;
    }
}

fn is_same(truth: &[Batch], served: &[Batch]) -> bool {
    let same = |(a, b): (&Batch, &Batch)| {
        a.header.base_offset == b.header.base_offset && a.sacred() == b.sacred()
    };
    truth.len() == served.len() && truth.iter().zip(served).all(same)
}

/// The batch that a flip cost, as it was; nothing if it cost none.
fn loss(scene: &Scene, topic: &str, flip: &Flip, served: &[Batch]) -> Option<Batch> {
    let truth = &scene.batches[topic];
    if is_same(truth, served) {
        return None;
    }
    let before = fs::read(scene.path().join(&flip.file)).unwrap();
    let mut end = 0;
    let victim = batches(&before).into_iter().find(|batch| {
        end += batch.bytes.len();
        end > flip.position
    });
    let victim = victim.expect("a log is made of batches");
    let base = victim.header.base_offset;
    let others = |batches: &[Batch]| -> Vec<Batch> {
        let other = |b: &&Batch| b.header.base_offset != base;
        batches.iter().filter(other).cloned().collect()
    };
    if is_same(&others(truth), &others(served)) {
        return Some(victim);
    }
    // Near the end of a log that was not closed, rot cannot be told from a tear (P5): what follows is cut, and kept.
    let last = scene
        .files()
        .into_iter()
        .rfind(|f| f.starts_with(format!("{topic}-0")) && f.extension() == flip.file.extension());
    let is_tear = !scene.clean && last.as_deref() == Some(&*flip.file);
    let prefix = truth.iter().take_while(|b| b.header.base_offset < base);
    let prefix: Vec<Batch> = prefix.cloned().collect();
    assert!(
        is_tear && is_same(&prefix, served),
        "{topic}: more is lost than {base}"
    );
    None
}

/// The bytes of what is lost are kept, as they were found.
fn is_kept(dir: &Path, flip: &Flip, victim: &Batch) {
    let mut kept = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if name.ends_with(".quarantine") || name.ends_with(".torn") {
            kept.push(fs::read(entry.path()).unwrap());
        }
    }
    let differs = |bytes: &[u8]| {
        let pairs = bytes.iter().zip(&victim.bytes);
        pairs.filter(|(a, b)| a != b).count()
    };
    let is_it = |bytes: &Vec<u8>| bytes.len() == victim.bytes.len() && differs(bytes) <= 5;
    assert!(kept.iter().any(is_it), "{flip:?} is not kept");
}
