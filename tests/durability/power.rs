//! Power cuts at any moment (P1, P2): what was acked before the cut is there, what a consumer could see is there, and
//! the start needs nobody.
//!
//! A broker runs under load while every change of its files is recorded. Who gets an acknowledgement, or sees a high
//! watermark, notes how long the record was: all that is promised by then must survive a cut at that very place.

use crate::common::producer::{Batch, Client, batch, sacred};
use crate::common::{self, Broker};
use crate::power_cut::Disk;
use crate::scene::{Scene, wait_until};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

const LOAD: Duration = Duration::from_millis(1200);
const CUTS: usize = 120;
const PLACES: [(&str, i32); 3] = [("t", 0), ("t", 1), ("rolls", 0)];

type Place = (&'static str, i32);

/// How long the record of changes was, where the batch went, its base offset, and its bytes.
type Acked = (u64, Place, i64, Vec<u8>);

/// What was promised, and how long the record of changes was then.
#[derive(Default)]
struct Promises {
    acked: Mutex<Vec<Acked>>,
    seen: Mutex<Vec<(u64, Place, i64)>>,
}

/// A producer: one batch after another, to one place after another.
fn produce(address: &str, number: usize, changes: &Path, promises: &Promises) {
    let mut client = Client::connect(address).unwrap();
    let id = (number > 0).then(|| client.producer_id().unwrap());
    let mut sequences = HashMap::new();
    for count in number.. {
        let place = PLACES[count % PLACES.len()];
        let sequence = sequences.entry(place).or_insert(0);
        let value = format!("{number}/{count}/{}", "x".repeat(count * 7 % 300));
        let bytes = batch(id.map(|id| (id, *sequence)), &[value.as_bytes(), b"second"]);
        *sequence += 2;
        // The broker is killed at the end.
        let Ok(answer) = client.produce(place.0, place.1, &bytes) else {
            return;
        };
        let at = fs::metadata(changes).unwrap().len();
        let offset = answer.expect("no error");
        promises
            .acked
            .lock()
            .unwrap()
            .push((at, place, offset, bytes));
    }
}

/// A consumer that notes each new high watermark.
fn watch(address: &str, place: Place, changes: &Path, promises: &Promises) {
    let mut client = Client::connect(address).unwrap();
    let mut offset = 0;
    while let Ok(data) = client.fetch(place.0, place.1, offset, 500) {
        let at = fs::metadata(changes).unwrap().len();
        if data.high_watermark > offset {
            offset = data.high_watermark;
            promises.seen.lock().unwrap().push((at, place, offset));
        }
    }
}

fn run(scene: &mut Scene) -> Promises {
    let promises = Promises::default();
    // A sync's end is recorded so much after it: who answers too early is caught in between.
    scene.shim.set_sync_delay(Duration::from_millis(2)).unwrap();
    let broker = scene.start(&[]);
    let changes = scene.changes(1);
    let mut client = Client::connect(&broker.address).unwrap();
    client.create("t", 2, &[]);
    client.create("rolls", 1, &[("segment.bytes", "4000")]);
    let address = broker.address.clone();
    thread::scope(|scope| {
        for number in 0..4 {
            let (address, changes, promises) = (&address, &changes, &promises);
            scope.spawn(move || produce(address, number, changes, promises));
        }
        for place in PLACES {
            let (address, changes, promises) = (&address, &changes, &promises);
            scope.spawn(move || watch(address, place, changes, promises));
        }
        thread::sleep(LOAD);
        broker.kill();
    });
    promises
}

/// Starts the broker on what a cut left, and checks what was promised before it.
fn check(image: &Path, cut: u64, promises: &Promises) {
    let broker = Broker::start_with(image, &[], |command| {
        command.env("RUST_LOG", "warn");
    });
    let mut client = Client::connect(&broker.address).unwrap();
    let mut found: HashMap<Place, HashMap<i64, Batch>> = HashMap::new();
    let before = |at: u64| at <= cut;
    let acked = promises.acked.lock().unwrap().clone();
    let seen = promises.seen.lock().unwrap().clone();
    let mut ends = HashMap::new();
    for place in PLACES {
        let is_acked = acked.iter().any(|&(at, p, ..)| p == place && before(at));
        if !is_acked && !seen.iter().any(|&(at, p, _)| p == place && before(at)) {
            continue;
        }
        let mut end = 0;
        let mut there = HashMap::new();
        for batch in client.fetch_all(place.0, place.1) {
            assert_eq!(batch.header.base_offset, end, "{place:?}");
            end = batch.header.last_offset() + 1;
            there.insert(batch.header.base_offset, batch);
        }
        let next = client
            .produce(place.0, place.1, &batch(None, &[b"after"]))
            .unwrap();
        assert_eq!(next, Ok(end), "{place:?} goes on");
        ends.insert(place, end);
        found.insert(place, there);
    }
    for (_, place, offset, bytes) in acked.iter().filter(|&&(at, ..)| before(at)) {
        let there = found[place]
            .get(offset)
            .unwrap_or_else(|| panic!("{place:?} {offset} was acked"));
        assert!(
            there.sacred() == sacred(bytes),
            "{place:?} {offset} is another"
        );
    }
    for (_, place, end) in seen.iter().filter(|&&(at, ..)| before(at)) {
        assert!(
            ends.get(place) >= Some(end),
            "{place:?}: {end} was seen, {:?} is there",
            ends.get(place)
        );
    }
}

/// The ends of all recorded changes.
fn boundaries(changes: &[u8]) -> Vec<u64> {
    let mut ends = Vec::new();
    let mut at = 0;
    while let Some(head) = changes.get(at..at + 24) {
        let path = u32::from_le_bytes(head[4..8].try_into().unwrap()) as usize;
        let data = u64::from_le_bytes(head[16..24].try_into().unwrap()) as usize;
        at += 24 + path + data;
        ends.push(at as u64);
    }
    ends.retain(|&end| end <= changes.len() as u64);
    ends
}

/// Leads a disk through its changes; gives the image of each cut to `check`, two at a time, a cut on an odd place
/// also of a disk that kept some of what was not synced.
pub fn cut_at(
    scene: &Scene,
    disk: &mut Disk,
    changes: &[u8],
    cuts: &BTreeSet<u64>,
    rng: &mut StdRng,
    check: impl Fn(&Path, u64) + Sync,
) {
    let mut rest = changes;
    let mut images: Vec<(PathBuf, u64)> = Vec::new();
    for (count, &cut) in cuts.iter().enumerate() {
        while ((changes.len() - rest.len()) as u64) < cut && disk.step(&mut rest) {}
        let image = scene.path(&format!("image-{cut}"));
        match count % 2 {
            0 => disk.write_to(&image).unwrap(),
            _ => disk.write_some_to(&image, || rng.random()).unwrap(),
        }
        images.push((image, cut));
        if images.len() < 2 && count + 1 < cuts.len() {
            continue;
        }
        thread::scope(|scope| {
            for (image, cut) in &images {
                let check = &check;
                scope.spawn(move || {
                    let whole = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        check(image, *cut)
                    }));
                    if whole.is_err() {
                        panic!("cut at byte {cut} of the changes (see above)");
                    }
                });
            }
        });
        for (image, _) in images.drain(..) {
            fs::remove_dir_all(image).unwrap();
        }
    }
}

/// All places of a run's changes, to cut at.
pub fn every_cut(changes: &[u8]) -> BTreeSet<u64> {
    boundaries(changes).into_iter().collect()
}

/// Lives once, and checks what a power cut at each change of the disk leaves of it.
pub fn cut_everywhere<E: Sync>(
    name: &str,
    mut scene: Scene,
    live: impl FnOnce(&mut Scene) -> Vec<E>,
    check: impl Fn(&Path, u64, &[E]) + Sync,
) {
    let mut rng = StdRng::seed_from_u64(common::seed(name));
    let mut disk = scene.disk();
    let lived = live(&mut scene);
    let changes = fs::read(scene.changes(1)).unwrap();
    let cuts = boundaries(&changes).into_iter().collect();
    eprintln!("{name}: {} cuts", BTreeSet::len(&cuts));
    let check = |image: &Path, cut| check(image, cut, &lived);
    cut_at(&scene, &mut disk, &changes, &cuts, &mut rng, check);
}

/// One turn fills a segment and begins the next. Whatever a power cut then takes, it never takes the end of the one and
/// leaves the other.
#[test]
fn a_roll_within_a_turn_leaves_no_hole() {
    let mut rng = StdRng::seed_from_u64(common::seed("power, roll"));
    let mut scene = Scene::new();
    let mut disk = scene.disk();
    let broker = scene.start(&[]);
    let mut client = Client::connect(&broker.address).unwrap();
    client.create("t", 1, &[("segment.bytes", "250")]);
    let said = |n: u8| batch(None, &[&[n; 30]]);
    scene
        .shim
        .set_sync_delay(Duration::from_millis(200))
        .unwrap();
    let writes = scene.shim.counts().unwrap().writes;
    client.send_produce(-1, &[("t", 0, &said(0))]).unwrap();
    wait_until(|| scene.shim.counts().unwrap().writes > writes);
    // While the first turn syncs these collect for the second: one fits, one does not.
    let from = fs::metadata(scene.changes(1)).unwrap().len();
    for n in 1..3 {
        client.send_produce(-1, &[("t", 0, &said(n))]).unwrap();
    }
    for _ in 0..3 {
        assert_eq!(client.receive_produce().unwrap()[0].error_code, 0);
    }
    broker.kill();
    let changes = fs::read(scene.changes(1)).unwrap();
    let mut rest = &changes[..];
    while disk.step(&mut rest) {
        if ((changes.len() - rest.len()) as u64) < from {
            continue;
        }
        for _ in 0..4 {
            let image = scene.path("image");
            disk.write_some_to(&image, || rng.random()).unwrap();
            let broker = Broker::start(&image, &[]);
            let there = Client::connect(&broker.address).unwrap().fetch_all("t", 0);
            let offsets: Vec<i64> = there.iter().map(|b| b.header.base_offset).collect();
            assert_eq!(
                offsets,
                (0..offsets.len() as i64).collect::<Vec<_>>(),
                "no hole"
            );
            drop(broker);
            fs::remove_dir_all(image).unwrap();
        }
    }
}

#[test]
fn what_was_promised_before_a_power_cut_is_there() {
    let seed = common::seed("power");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut scene = Scene::new();
    let mut disk = scene.disk();
    let promises = run(&mut scene);
    let changes = fs::read(scene.changes(1)).unwrap();
    let all = boundaries(&changes);
    let acks: Vec<u64> = promises.acked.lock().unwrap().iter().map(|a| a.0).collect();
    let seen: Vec<u64> = promises.seen.lock().unwrap().iter().map(|s| s.0).collect();
    assert!(
        acks.len() > 30 && seen.len() > 10,
        "{} acks, {} watermarks",
        acks.len(),
        seen.len()
    );
    let mut cuts = BTreeSet::new();
    for count in 0..CUTS {
        let from = [&all, &acks, &seen][count % 3];
        cuts.insert(from[rng.random_range(0..from.len())]);
    }
    eprintln!(
        "power: {} changes, {} acks, {} cuts",
        all.len(),
        acks.len(),
        cuts.len()
    );
    cut_at(
        &scene,
        &mut disk,
        &changes,
        &cuts,
        &mut rng,
        |image, cut| check(image, cut, &promises),
    );
}
