//! A data directory, the brokers that run on it one after another, and the disk below it.

use crate::common::Broker;
use crate::common::producer::{Client, batch};
use crate::power_cut::Disk;
use crate::shim::Shim;
use std::fs;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// Where a test happens.
pub struct Scene {
    scratch: tempfile::TempDir,
    pub shim: Shim,
    /// As it was before the first change.
    before: Option<Disk>,
    runs: usize,
}

impl Scene {
    pub fn new() -> Scene {
        let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        fs::create_dir(scratch.path().join("data")).unwrap();
        let shim = Shim::new(scratch.path()).unwrap();
        let before = Disk::load(&scratch.path().join("data")).unwrap();
        Scene {
            scratch,
            shim,
            before: Some(before),
            runs: 0,
        }
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Anything else in the scratch directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Takes what is in the data directory now as durable.
    pub fn load(&mut self) {
        assert_eq!(self.runs, 0, "the runs' changes begin from here");
        self.before = Some(Disk::load(&self.data()).unwrap());
    }

    /// Starts a broker under the library, its changes recorded.
    pub fn start(&mut self, settings: &[&str]) -> Broker {
        self.try_start(settings)
            .unwrap_or_else(|(status, log)| panic!("the broker did not start: {status}\n{log}"))
    }

    /// As [`Scene::start`]; a broker that ends before it listens gives its exit status and its log.
    pub fn try_start(&mut self, settings: &[&str]) -> Result<Broker, (ExitStatus, String)> {
        self.runs += 1;
        let log = self.changes(self.runs);
        Broker::try_start(&self.data(), settings, |command| {
            self.shim
                .attach_recording(command, &self.data(), &log)
                .unwrap();
        })
    }

    /// The changes that one run made; the first is 1.
    pub fn changes(&self, run: usize) -> PathBuf {
        self.path(&format!("changes-{run}"))
    }

    /// Cuts the power; gives the directory as it is then, in a place of its own. Once in a scene.
    pub fn cut_power(&mut self) -> PathBuf {
        let mut disk = self.before.take().expect("the power is cut once");
        for run in 1..=self.runs {
            disk.replay(&self.changes(run)).unwrap();
        }
        let image = self.path("image");
        disk.write_to(&image).unwrap();
        image
    }

    /// The disk before the first run, to be led through the changes by hand.
    pub fn disk(&mut self) -> Disk {
        self.before.take().expect("the disk is taken once")
    }
}

/// Produces one record to partition 0; gives its offset, or the error's code.
pub fn say(client: &mut Client, topic: &str, value: &str) -> std::io::Result<Result<i64, i16>> {
    client.produce(topic, 0, &batch(None, &[value.as_bytes()]))
}

/// The values of all records of a partition.
pub fn heard(client: &mut Client, topic: &str, index: i32) -> Vec<String> {
    let mut values = Vec::new();
    for batch in client.fetch_all(topic, index) {
        values.extend(values_of(&batch.bytes));
    }
    values
}

/// The values of a batch's records.
pub fn values_of(batch: &[u8]) -> Vec<String> {
    let header = ottla::batch::check_stored(batch).unwrap();
    let records = ottla::batch::records::key_values(&header, &batch[61..]).unwrap();
    let value =
        |record: ottla::batch::records::KeyValue<'_>| record.value.unwrap_or_default().to_vec();
    records
        .map(|record| String::from_utf8(value(record.unwrap())).unwrap())
        .collect()
}

/// Waits for what must come to pass.
#[track_caller]
pub fn wait_until(what: impl Fn() -> bool) {
    let began = Instant::now();
    while !what() {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "it does not come to pass"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The names in a directory that end in `suffix`, sorted.
pub fn names(dir: &Path, suffix: &str) -> Vec<String> {
    let name =
        |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = fs::read_dir(dir).unwrap().map(name).collect();
    names.retain(|name| name.ends_with(suffix));
    names.sort();
    names
}

/// Copies a directory and all that is in it.
pub fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, target) = {
            let entry = entry.unwrap();
            (entry.path(), to.join(entry.file_name()))
        };
        match path.is_dir() {
            true => copy_dir(&path, &target),
            false => drop(fs::copy(path, target).unwrap()),
        }
    }
}

/// Checks each case in a directory of its own, two at a time; names all that fail.
pub fn check_all<C: Send + std::fmt::Debug>(
    scene: &Scene,
    cases: Vec<C>,
    check: impl Fn(&Path, &C) + Sync,
) {
    let waiting = Mutex::new(cases.into_iter().enumerate());
    let failed = Mutex::new(Vec::new());
    let work = || {
        loop {
            let next = waiting.lock().unwrap().next();
            let Some((number, case)) = next else { return };
            let data = scene.path(&format!("case-{number}"));
            let checked = AssertUnwindSafe(|| check(&data, &case));
            if std::panic::catch_unwind(checked).is_err() {
                failed.lock().unwrap().push(format!("{case:?}"));
            }
            fs::remove_dir_all(data).unwrap();
        }
    };
    thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "failed:\n{}", failed.join("\n"));
}
