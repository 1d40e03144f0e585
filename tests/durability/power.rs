//! Power cuts at every change of one scene's disk. That what was promised survives a cut under a mixed load is
//! tests/crash's; here stands what needs a scene of its own.

use crate::common::keyed::{self, Change};
use crate::common::producer::{Client, batch};
use crate::common::{self, Broker};
use crate::power_cut::{Disk, Keep, boundaries};
use crate::scene::{Scene, names, wait_until};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// Leads a disk through its changes; gives the image of each cut to `check`, two at a time, a cut on an odd place
/// also of a disk that kept some of what was not synced.
fn cut_at(
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
            _ => disk.write_some_to(&image, rng).unwrap(),
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
    let ends = boundaries(changes).into_iter();
    ends.map(|(end, _)| end).collect()
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
    let cuts = every_cut(&changes);
    eprintln!("{name}: {} cuts", cuts.len());
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
            disk.write_some_to(&image, &mut rng).unwrap();
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

/// A start makes indexes anew of segments that the next recovery point lies behind. The start after that believes them:
/// the end of one must not be missing, or records are not found by their time.
#[test]
fn what_a_recovery_made_anew_is_whole_after_the_next_power_cut() {
    const BATCHES: i64 = 400;
    const TIME_MS: i64 = 1_700_000_000_000;
    let mut rng = StdRng::seed_from_u64(common::seed("power, indexes made anew"));
    let mut scene = Scene::new();
    let broker = Broker::start(&scene.data(), &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    let settings = [("segment.bytes", "5000"), ("index.interval.bytes", "1")];
    client.create("t", 1, &settings);
    let change = Change {
        key: "key".into(),
        value: None,
    };
    for n in 0..BATCHES {
        let sent = keyed::batch(None, TIME_MS + n, std::slice::from_ref(&change));
        assert_eq!(client.produce("t", 0, &sent).unwrap(), Ok(n));
    }
    broker.kill();
    let dir = scene.data().join("t-0");
    assert!(names(&dir, ".log").len() > 4);
    for name in names(&dir, "index") {
        fs::remove_file(dir.join(name)).unwrap();
    }
    scene.load();
    let mut disk = scene.disk();
    assert!(scene.start(&[]).stop().success());
    disk.replay(&scene.changes(1)).unwrap();
    for _ in 0..8 {
        let image = scene.path("image");
        disk.write_kept_to(&image, Keep::AnyPart, &mut rng).unwrap();
        let broker = Broker::start(&image, &[]);
        let mut client = Client::connect(&broker.address).unwrap();
        for n in 0..BATCHES {
            let found = client.list_offset("t", 0, TIME_MS + n).unwrap();
            assert_eq!(found, Ok(n));
        }
        drop(broker);
        fs::remove_dir_all(image).unwrap();
    }
}
