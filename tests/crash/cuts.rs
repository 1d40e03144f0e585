//! Cuts: which are made, and what is done at each. The image of what the disk kept is made, the real binary is started
//! on it, and every promise of before is checked; one cut in six is followed by another within that start.

use crate::check::{self, Counts, Promised, Since};
use crate::common::{self, producer::Client};
use crate::ledger::{At, BySum, Ledger};
use crate::look;
use crate::power_cut::{Disk, Keep, boundaries};
use crate::shim::Shim;
use crate::torn::Ends;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, IteratorRandom};
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const START_MAX: Duration = Duration::from_secs(60);

/// What the broker is started with after a cut: it changes nothing of its own accord while it is looked at.
const QUIET: [&str; 3] = [
    "offsets.topic.num.partitions=2",
    "transaction.state.log.num.partitions=2",
    "log.cleaner.enable=false",
];

/// One power cut, and the seed of all that is left to chance in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cut {
    pub at: At,
    pub seed: u64,
}

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.at.run, self.at.bytes, self.seed)
    }
}

impl std::str::FromStr for Cut {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Cut, Self::Err> {
        let (run, rest) = text.split_once(':').unwrap_or((text, ""));
        let (bytes, seed) = rest.split_once(':').unwrap_or((rest, ""));
        let at = At {
            run: run.parse()?,
            bytes: bytes.parse()?,
        };
        Ok(Cut {
            at,
            seed: seed.parse()?,
        })
    }
}

/// A workload that was recorded.
pub struct Recording {
    ledger: Ledger,
    by_sum: BySum,
    changes: Vec<Vec<u8>>,
}

/// What was done.
#[derive(Clone, Default)]
pub struct Tally {
    pub cuts: BTreeMap<String, u64>,
    pub checked: Counts,
    pub tried: u64,
    pub double: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Tally) {
        for (kind, count) in &other.cuts {
            *self.cuts.entry(kind.clone()).or_default() += count;
        }
        for (kind, count) in &other.checked {
            *self.checked.entry(kind).or_default() += count;
        }
        self.tried += other.tried;
        self.double += other.double;
    }
}

impl Recording {
    pub fn load(dir: &Path) -> Recording {
        let ledger = fs::read(dir.join("ledger.json")).expect("a recording");
        let ledger: Ledger = serde_json::from_slice(&ledger).expect("a ledger");
        let changes = |run| fs::read(dir.join(format!("changes-{run}"))).expect("a run's changes");
        Recording {
            by_sum: ledger.by_sum(),
            changes: (1..=ledger.runs).map(changes).collect(),
            ledger,
        }
    }

    /// Chooses cuts: a third anywhere, a third where something was just promised, a third where a file was made,
    /// renamed or removed; rare kinds of promises and of files count as much as the others.
    pub fn choose(&self, count: usize, rng: &mut StdRng) -> Vec<Cut> {
        let (mut all, mut names) = (Vec::new(), BTreeMap::<&str, Vec<At>>::new());
        for (run, changes) in (1..).zip(&self.changes) {
            for (bytes, name) in boundaries(changes) {
                all.push(At { run, bytes });
                if let Some((_, kind)) = name.and_then(|name| name.rsplit_once('.')) {
                    names.entry(kind).or_default().push(At { run, bytes });
                }
            }
        }
        let promised = self.promises();
        assert!(promised.len() > 10 && names.len() > 8, "little happened");
        let of_a_kind = |from: &BTreeMap<&str, Vec<At>>, rng: &mut StdRng| {
            let kind = from.values().choose(rng).expect("not empty");
            *kind.choose(rng).expect("not empty")
        };
        let mut cut = |n: usize| {
            let at = match n % 3 {
                0 => *all.choose(rng).expect("not empty"),
                1 => of_a_kind(&names, rng),
                _ => of_a_kind(&promised, rng),
            };
            Cut {
                at,
                seed: rng.random::<u32>().into(),
            }
        };
        let mut cuts: Vec<Cut> = (0..count).map(&mut cut).collect();
        cuts.sort_unstable();
        cuts
    }

    /// When which kind of promise was made.
    fn promises(&self) -> BTreeMap<&str, Vec<At>> {
        let ledger = &self.ledger;
        let mut promises: BTreeMap<&str, Vec<At>> = BTreeMap::new();
        for (name, marks) in &ledger.marks {
            let answered: Vec<At> = marks.iter().filter_map(|mark| mark.answered).collect();
            promises.insert(name, answered);
        }
        for sent in &ledger.sent {
            if let Some((at, _)) = sent.answered {
                let topic = &ledger.topics[sent.topic].name;
                promises.entry(topic).or_default().push(at);
            }
        }
        let ended = ledger.txns.iter().filter_map(|txn| txn.ended).collect();
        promises.insert("transactions", ended);
        let ended = ledger.topics.iter().filter_map(|topic| topic.ended);
        let made = ledger.topics.iter().filter_map(|topic| topic.made);
        promises.insert("topics", ended.chain(made.map(|(at, _)| at)).collect());
        promises.retain(|_, promised| !promised.is_empty());
        promises
    }

    /// Makes the cuts, shared out among `workers`; `tell` is told after each. An error says which one failed.
    pub fn try_all(
        &self,
        cuts: &[Cut],
        workers: usize,
        scratch: &Path,
        tell: impl Fn(&Tally) + Sync,
    ) -> Result<(), String> {
        let failed = Mutex::new(Ok(()));
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for worker in 0..workers {
                let mine = cuts.iter().skip(worker).step_by(workers);
                let place = scratch.join(worker.to_string());
                let (failed, stop, tell) = (&failed, &stop, &tell);
                scope.spawn(move || {
                    fs::create_dir(&place).expect("a scratch directory");
                    let mut desk = Desk::new(self, &place);
                    for cut in mine {
                        if stop.load(Ordering::SeqCst) {
                            break;
                        }
                        match catch_unwind(AssertUnwindSafe(|| desk.attempt(*cut))) {
                            Ok(tally) => tell(&tally),
                            Err(_) => {
                                stop.store(true, Ordering::SeqCst);
                                *failed.lock().unwrap() = Err(format!(
                                    "{cut}\n{}",
                                    fs::read_to_string(place.join("log")).unwrap_or_default()
                                ));
                            }
                        }
                    }
                });
            }
        });
        failed.into_inner().unwrap()
    }
}

/// One worker: a disk that is led through the recording, and a place for images.
struct Desk<'a> {
    recording: &'a Recording,
    disk: Disk,
    at: At,
    place: PathBuf,
    shim: Shim,
}

impl<'a> Desk<'a> {
    fn new(recording: &'a Recording, place: &Path) -> Desk<'a> {
        Desk {
            recording,
            disk: Disk::empty(recording.ledger.root.clone()),
            at: At { run: 1, bytes: 0 },
            place: place.into(),
            shim: Shim::new(place).expect("the library"),
        }
    }

    fn lead_to(&mut self, at: At) {
        while self.at < at {
            let changes = &self.recording.changes[self.at.run - 1];
            let mut rest = &changes[self.at.bytes as usize..];
            let end = if self.at.run == at.run {
                at.bytes
            } else {
                u64::MAX
            };
            while ((changes.len() - rest.len()) as u64) < end && self.disk.step(&mut rest) {}
            if self.at.run == at.run {
                self.at.bytes = (changes.len() - rest.len()) as u64;
                break;
            }
            self.disk.end_run();
            self.at = At {
                run: self.at.run + 1,
                bytes: 0,
            };
        }
    }

    /// Makes one cut, and all that follows from it.
    fn attempt(&mut self, cut: Cut) -> Tally {
        self.lead_to(cut.at);
        let mut rng = StdRng::seed_from_u64(cut.seed);
        let keep = choose_keep(&mut rng);
        let mut image = self.fresh("image");
        self.disk
            .write_kept_to(&image, keep, &mut rng)
            .expect("an image");
        let mut since = Vec::new();
        let double = rng.random_ratio(1, 6);
        if double {
            let again;
            (again, since) = self.cut_again(&image, &mut rng);
            image = again;
        }
        let recording = self.recording;
        let promised = Promised {
            ledger: &recording.ledger,
            by_sum: &recording.by_sum,
            cut: cut.at,
            since: &since,
        };
        let ends = Ends::read(&image);
        let running = self.start(&image, None);
        let mut checked = check::check(&running.address, &promised);
        let stops = rng.random_ratio(1, 10);
        let log = running.end(stops);
        check::check_log_lines(&log, &promised);
        checked.insert("torn ends kept", ends.check(&log));
        if stops {
            // Nothing more is promised of a second start than that there is one.
            let running = self.start(&image, None);
            let mut client = Client::connect(&running.address).expect("it accepts");
            check::partitions(&mut client);
            check::check_log_lines(&running.end(false), &promised);
        }
        let mut tally = Tally {
            checked,
            tried: 1,
            double: double.into(),
            ..Tally::default()
        };
        tally.cuts.insert(format!("{keep:?}"), 1);
        tally
    }

    /// Starts on an image, produces, and cuts the power somewhere in between: gives the image of that, and what was
    /// produced.
    fn cut_again(&self, image: &Path, rng: &mut StdRng) -> (PathBuf, Vec<Since>) {
        let changes = self.place.join("changes");
        fs::write(&changes, "").expect("an empty record");
        let mut disk = Disk::load(image).expect("the image");
        let running = self.start(image, Some(&changes));
        let now = || fs::metadata(&changes).expect("the record").len();
        let listens = now();
        let mut client = Client::connect(&running.address).expect("it accepts");
        let names = check::partitions(&mut client);
        let more = check::more(&names, 0);
        let offsets = look::produce(&mut client, &more);
        let acked = now();
        running.end(false);
        let changes = fs::read(&changes).expect("the record");
        let mut places: Vec<u64> = boundaries(&changes).iter().map(|place| place.0).collect();
        // Most in the recovery, some behind.
        if rng.random_ratio(3, 4) {
            places.retain(|place| *place <= listens);
        }
        let cut = places.choose(rng).copied().unwrap_or(0);
        let mut rest = &changes[..];
        while ((changes.len() - rest.len()) as u64) < cut && disk.step(&mut rest) {}
        let again = self.fresh("again");
        disk.write_kept_to(&again, choose_keep(rng), rng)
            .expect("an image");
        let since = |((name, batch), offset): ((look::Name, Vec<u8>), i64)| Since {
            name,
            batch,
            offset: (acked <= cut).then_some(offset),
        };
        (again, more.into_iter().zip(offsets).map(since).collect())
    }

    /// An empty place for an image.
    fn fresh(&self, name: &str) -> PathBuf {
        let place = self.place.join(name);
        let _ = fs::remove_dir_all(&place);
        place
    }

    /// Starts the broker on an image and waits until it listens; its changes go to `record`.
    fn start(&self, image: &Path, record: Option<&Path>) -> Running {
        fs::create_dir_all(image).expect("an image");
        let mut command = common::command(image, &QUIET);
        command.env("RUST_LOG", "warn");
        self.shim.attach_skipping_syncs(&mut command);
        if let Some(record) = record {
            let attached = self.shim.attach_recording(&mut command, image, record);
            attached.expect("the library");
        }
        Running::start(command, self.place.join("log"))
    }
}

fn choose_keep(rng: &mut StdRng) -> Keep {
    match rng.random_range(0..12) {
        0..3 => Keep::Nothing,
        3 => Keep::Everything,
        4..7 => Keep::UpToAMoment,
        7 => Keep::Lengths,
        _ => Keep::AnyPart,
    }
}

/// A broker whose log goes to a file.
struct Running {
    process: Child,
    address: String,
    log: PathBuf,
}

impl Running {
    fn start(mut command: Command, log: PathBuf) -> Running {
        command.stderr(File::create(&log).expect("a log"));
        command.stdout(Stdio::null());
        let mut running = Running {
            process: command.spawn().expect("the broker's binary"),
            address: String::new(),
            log,
        };
        let patience = Instant::now() + START_MAX;
        loop {
            let said = fs::read_to_string(&running.log).expect("a log");
            let address = said.split_once("listening on ").map(|(_, rest)| rest);
            if let Some((address, _)) = address.and_then(|rest| rest.split_once('\n')) {
                running.address = address.trim().into();
                return running;
            }
            let ended = running.process.try_wait().expect("a process");
            assert!(
                ended.is_none(),
                "the broker did not start: {ended:?}\n{said}"
            );
            assert!(Instant::now() < patience, "the broker does not listen");
            thread::sleep(Duration::from_micros(300));
        }
    }

    /// Ends it by SIGTERM, if it `stops`, else by kill -9; gives its log.
    fn end(mut self, stops: bool) -> String {
        if stops {
            let mut kill = Command::new("kill");
            kill.args(["-s", "TERM", &self.process.id().to_string()]);
            assert!(kill.status().expect("kill").success());
            let status = self.process.wait().expect("a process");
            assert!(status.success(), "{status}");
        } else {
            self.process.kill().expect("kill");
            self.process.wait().expect("a process");
        }
        fs::read_to_string(&self.log).expect("a log")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
