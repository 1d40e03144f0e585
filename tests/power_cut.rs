//! The tools of the crash tests, tested: what the preloaded library sees, and what a power cut leaves.

#[path = "support/power_cut.rs"]
#[allow(dead_code)] // The crash tests use the rest of it.
mod power_cut;
#[path = "support/shim.rs"]
#[allow(dead_code)] // The benches use the rest of it.
mod shim;

use power_cut::{Disk, Keep};
use rand::SeedableRng;
use rand::rngs::StdRng;
use shim::Shim;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{IoSlice, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Runs this test binary again under the library, in the role of the program that `role` names.
fn run(role: &str, shim: &Shim, data: &Path, log: &Path) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "the_program", "--nocapture"]);
    command
        .env("POWER_CUT_ROLE", role)
        .env("POWER_CUT_DATA", data);
    shim.attach_recording(&mut command, data, log).unwrap();
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn sync_dir(path: &Path) {
    File::open(path).unwrap().sync_all().unwrap();
}

/// Not a test by itself: the other tests run it as their program.
#[test]
fn the_program() {
    let Ok(role) = std::env::var("POWER_CUT_ROLE") else {
        return;
    };
    let data = std::env::var_os("POWER_CUT_DATA").unwrap();
    let data = Path::new(&data);
    match role.as_str() {
        "changes" => make_changes(data),
        "failing sync" => {
            let mut file = File::create(data.join("log")).unwrap();
            sync_dir(data);
            file.write_all(b"lost").unwrap();
            let error = file.sync_data().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EIO));
            file.sync_data().unwrap();
            file.write_all(b"kept").unwrap();
            file.sync_data().unwrap();
        }
        "full disk" => {
            let mut file = File::create(data.join("log")).unwrap();
            assert_eq!(file.write(b"123456").unwrap(), 4);
            let error = file.write(b"56").unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
        }
        "choices" => make_choices(data),
        "slow sync" => {
            let file = File::create(data.join("log")).unwrap();
            let began = Instant::now();
            std::thread::scope(|scope| {
                for _thread in 0..4 {
                    scope.spawn(|| file.sync_data().unwrap());
                }
            });
            assert!(began.elapsed() >= Duration::from_millis(400));
            assert!(
                began.elapsed() < Duration::from_millis(1500),
                "they overlap"
            );
        }
        other => panic!("no role {other}"),
    }
}

fn make_changes(data: &Path) {
    fs::create_dir(data.join("t-0")).unwrap();
    let log = data.join("t-0/0.log");
    let mut file = File::create(&log).unwrap();
    file.write_all(b"ab").unwrap();
    let written = file.write_vectored(&[IoSlice::new(b"cd"), IoSlice::new(b"ef")]);
    assert_eq!(written.unwrap(), 4);
    file.write_all_at(b"XY", 8).unwrap();
    file.sync_data().unwrap();
    file.write_all_at(b"not synced", 0).unwrap();
    sync_dir(&data.join("t-0"));
    sync_dir(data);

    // Made durable under its first name: without a sync of the directory the second one is not there.
    fs::write(data.join("small.tmp"), b"state").unwrap();
    File::open(data.join("small.tmp"))
        .unwrap()
        .sync_all()
        .unwrap();
    sync_dir(data);
    fs::rename(data.join("small.tmp"), data.join("small")).unwrap();

    // An entry that no sync of its directory covers, though the file itself was synced.
    File::create(data.join("t-0/1.log"))
        .unwrap()
        .sync_all()
        .unwrap();

    let mut old = OpenOptions::new()
        .append(true)
        .open(data.join("old"))
        .unwrap();
    old.set_len(2).unwrap();
    old.write_all(b"!").unwrap();
    old.sync_data().unwrap();
    fs::remove_file(data.join("gone")).unwrap();
    fs::copy(data.join("old"), data.join("t-0/2.log")).unwrap();
    sync_dir(&data.join("t-0"));
    fs::remove_dir_all(data.join("t-0")).unwrap();
}

/// Leaves the disk a choice: of `long`'s sectors, of `grown`'s length, of two names for one file, of what follows.
fn make_choices(data: &Path) {
    let sync = |name: &str| File::open(data.join(name)).unwrap().sync_all().unwrap();
    fs::write(data.join("long"), [b'-'; 1536]).unwrap();
    fs::write(data.join("grown"), "kept").unwrap();
    fs::write(data.join("old name"), "kept").unwrap();
    ["long", "grown", "old name"].into_iter().for_each(sync);
    sync_dir(data);
    let long = OpenOptions::new()
        .write(true)
        .open(data.join("long"))
        .unwrap();
    long.write_all_at(&[b'1'; 1536], 0).unwrap();
    long.write_all_at(&[b'2'; 512], 512).unwrap();
    let grown = OpenOptions::new().append(true).open(data.join("grown"));
    grown.unwrap().write_all(&[b'!'; 600]).unwrap();
    fs::rename(data.join("old name"), data.join("new name")).unwrap();
    fs::rename(data.join("new name"), data.join("newer name")).unwrap();
    fs::write(data.join("made"), "").unwrap();
}

struct Scene {
    scratch: tempfile::TempDir,
    shim: Shim,
}

impl Scene {
    fn new() -> Scene {
        let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        fs::create_dir(scratch.path().join("data")).unwrap();
        let shim = Shim::new(scratch.path()).unwrap();
        Scene { scratch, shim }
    }

    fn run(&self, role: &str) {
        let log = self.scratch.path().join("changes");
        run(role, &self.shim, &self.scratch.path().join("data"), &log);
    }

    /// Runs the program and cuts the power; returns the file of a name, if it is there.
    fn after_power_cut(&self, role: &str) -> impl Fn(&str) -> Option<String> {
        let data = self.scratch.path().join("data");
        let log = self.scratch.path().join("changes");
        let mut disk = Disk::load(&data).unwrap();
        self.run(role);
        disk.replay(&log).unwrap();
        let image = self.scratch.path().join("image");
        disk.write_to(&image).unwrap();
        move |name| fs::read_to_string(image.join(name)).ok()
    }
}

#[test]
fn only_what_was_synced_survives() {
    let scene = Scene::new();
    let data = scene.scratch.path().join("data");
    fs::write(data.join("old"), "old").unwrap();
    fs::write(data.join("gone"), "not gone").unwrap();
    let file = scene.after_power_cut("changes");
    assert_eq!(file("t-0/0.log").as_deref(), Some("abcdef\0\0XY"));
    assert_eq!(file("small.tmp").as_deref(), Some("state"));
    assert_eq!(file("small"), None);
    assert_eq!(file("old").as_deref(), Some("ol!"));
    assert_eq!(file("gone").as_deref(), Some("not gone"));
    assert_eq!(
        file("t-0/2.log").as_deref(),
        Some(""),
        "a name without bytes"
    );
    let counts = scene.shim.counts().unwrap();
    assert_eq!((counts.syncs, counts.directory_syncs), (4, 4));
}

#[test]
fn what_was_not_synced_may_survive_too() {
    let scene = Scene::new();
    let data = scene.scratch.path().join("data");
    fs::write(data.join("old"), "old").unwrap();
    fs::write(data.join("gone"), "not gone").unwrap();
    let mut disk = Disk::load(&data).unwrap();
    scene.run("changes");
    disk.replay(&scene.scratch.path().join("changes")).unwrap();
    let image = scene.scratch.path().join("image");
    let mut rng = StdRng::seed_from_u64(0);
    disk.write_kept_to(&image, Keep::Everything, &mut rng)
        .unwrap();
    let file = |name: &str| fs::read_to_string(image.join(name)).ok();
    assert_eq!(file("small").as_deref(), Some("state"));
    assert_eq!(file("gone"), None);
    assert!(!image.join("t-0").exists());
}

/// Every legal disk comes, and no other: sectors of their own moments, lengths without data and the reverse, and each
/// file under one of its names.
#[test]
fn a_disk_may_keep_any_part() {
    let scene = Scene::new();
    let data = scene.scratch.path().join("data");
    let mut disk = Disk::load(&data).unwrap();
    scene.run("choices");
    disk.replay(&scene.scratch.path().join("changes")).unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    let (mut longs, mut growns, mut names) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let image = scene.scratch.path().join("image");
    for _ in 0..600 {
        disk.write_kept_to(&image, Keep::AnyPart, &mut rng).unwrap();
        let long = fs::read(image.join("long")).unwrap();
        assert_eq!(long.len(), 1536);
        let sectors = long.chunks(512).map(|sector| {
            assert_eq!(sector, [sector[0]; 512], "a sector of one moment");
            char::from(sector[0])
        });
        longs.insert(sectors.collect::<String>());
        let grown = fs::read(image.join("grown")).unwrap();
        let part = |at: usize| grown.get(at).map_or(' ', |&byte| char::from(byte));
        growns.insert([part(0), part(4), part(511), part(512), part(603)]);
        let found = fs::read_dir(&image).unwrap();
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let mut found: Vec<_> = found.map(|e| name(e).into_string().unwrap()).collect();
        found.retain(|name| !["long", "grown"].contains(&&**name));
        found.sort_unstable();
        names.insert(found.join(", "));
        fs::remove_dir_all(&image).unwrap();
    }
    // The first and the last sector were written once, the one between them twice.
    let all = "-1"
        .chars()
        .flat_map(|a| "-12".chars().map(move |b| (a, b)));
    let all = all.flat_map(|(a, b)| "-1".chars().map(move |c| String::from_iter([a, b, c])));
    assert_eq!(longs, all.collect());
    let none = ['k', ' ', ' ', ' ', ' '];
    let zeros = ['k', '\0', '\0', '\0', '\0'];
    let halves = [
        ['k', '!', '!', '\0', '\0'],
        ['k', '\0', '\0', '!', '!'],
        ['k', '!', '!', '!', '!'],
    ];
    assert_eq!(growns, [none, zeros].into_iter().chain(halves).collect());
    let mut legal = BTreeSet::new();
    for name in ["old name", "new name", "newer name"] {
        legal.insert(name.to_string());
        let mut both = [name, "made"];
        both.sort_unstable();
        legal.insert(both.join(", "));
    }
    assert_eq!(names, legal);
}

#[test]
fn a_disk_may_keep_all_up_to_a_moment() {
    let scene = Scene::new();
    let mut disk = Disk::load(&scene.scratch.path().join("data")).unwrap();
    scene.run("choices");
    disk.replay(&scene.scratch.path().join("changes")).unwrap();
    let mut rng = StdRng::seed_from_u64(2);
    let image = scene.scratch.path().join("image");
    for _ in 0..200 {
        disk.write_kept_to(&image, Keep::UpToAMoment, &mut rng)
            .unwrap();
        let is_there = |name: &str| image.join(name).exists();
        let long = fs::read(image.join("long")).unwrap();
        let grown = fs::read(image.join("grown")).unwrap();
        let in_order = [
            long.ends_with(b"1"),
            long[512] == b'2',
            grown.ends_with(b"!"),
            !is_there("old name"),
            is_there("newer name"),
            is_there("made"),
        ];
        assert!(in_order.is_sorted_by(|a, b| a >= b), "{in_order:?}");
        fs::remove_dir_all(&image).unwrap();
    }
}

#[test]
fn what_a_failed_sync_covered_is_lost_for_good() {
    let scene = Scene::new();
    scene.shim.fail_sync(2).unwrap();
    let file = scene.after_power_cut("failing sync");
    assert_eq!(file("log").as_deref(), Some("\0\0\0\0kept"));
}

#[test]
fn a_full_disk_takes_what_fits() {
    let scene = Scene::new();
    scene.shim.set_room(Some(4)).unwrap();
    scene.run("full disk");
}

#[test]
fn slower_syncs_overlap() {
    let scene = Scene::new();
    scene
        .shim
        .set_sync_delay(Duration::from_millis(400))
        .unwrap();
    scene.run("slow sync");
}
