//! The crash certificate: a real workload is recorded, the power is cut at thousands of places of it, and the real
//! binary must recover from each, with nothing lost that it ever promised.
//!
//! | variable | what it does |
//! |---|---|
//! | `OTTLA_CRASH_CUTS` | how many cuts are made |
//! | `OTTLA_CRASH_REPORT` | a file for the certificate |
//! | `OTTLA_SEED` | the seed of the run |
//! | `OTTLA_CRASH_AGAIN` | the directory of a recording that failed … |
//! | `OTTLA_CRASH_CUT` | … and the one cut to be made again |

mod actors;
mod check;
#[path = "../common/mod.rs"]
mod common;
mod cuts;
mod ledger;
mod look;
#[path = "../support/power_cut.rs"]
#[allow(dead_code)] // each test file uses its part
mod power_cut;
#[path = "../support/shim.rs"]
#[allow(dead_code)] // ditto
mod shim;
mod torn;
mod workload;

use cuts::{Cut, Recording, Tally};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

const CUTS: usize = 300;
const CUTS_A_WORKLOAD: usize = 2500;

fn number(name: &str) -> Option<usize> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number")),
    )
}

/// Past the test harness, which keeps what is printed until the end.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Where images lie: in memory, if there is such a place with room.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")))
        .expect("a directory")
}

/// What was done so far, told every few seconds.
struct Progress {
    began: Instant,
    goal: usize,
    sum: Mutex<(Tally, Instant)>,
}

impl Progress {
    fn note(&self, tally: &Tally) {
        let mut sum = self.sum.lock().unwrap();
        sum.0.add(tally);
        if sum.1.elapsed() > Duration::from_secs(5) {
            sum.1 = Instant::now();
            self.tell(&sum.0);
        }
    }

    fn tell(&self, sum: &Tally) {
        let rate = sum.tried as f64 / self.began.elapsed().as_secs_f64();
        say(&format!(
            "crash: {} of {} cuts, {rate:.0} cuts/s",
            sum.tried, self.goal
        ));
    }
}

#[test]
fn nothing_promised_is_lost_wherever_the_power_is_cut() {
    if let Ok(dir) = std::env::var("OTTLA_CRASH_AGAIN") {
        return again(Path::new(&dir));
    }
    let seed = common::seed("crash");
    let mut rng = StdRng::seed_from_u64(seed);
    let goal = number("OTTLA_CRASH_CUTS").unwrap_or(CUTS);
    let batches = if goal > CUTS { 600 } else { 250 };
    let began = Instant::now();
    let progress = Progress {
        began,
        goal,
        sum: Mutex::new((Tally::default(), began)),
    };
    let mut left = goal;
    while left > 0 {
        let count = left.min(CUTS_A_WORKLOAD);
        try_one(count, batches, &mut rng, &progress);
        left -= count;
    }
    let sum = progress.sum.into_inner().unwrap().0;
    let acks: u64 = sum.checked.values().sum();
    say(&format!(
        "crash: cuts={} acks={acks} lost=0 double={} seed={seed}",
        sum.tried, sum.double
    ));
    if let Some(path) = std::env::var_os("OTTLA_CRASH_REPORT") {
        let text = certificate(&sum, seed, began.elapsed());
        std::fs::write(&path, text).expect("the certificate");
        say(&format!(
            "the certificate is {}",
            PathBuf::from(path).display()
        ));
    }
}

/// Records one workload and cuts it so many times. The recording is kept if one of the cuts fails.
fn try_one(count: usize, batches: usize, rng: &mut StdRng, progress: &Progress) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    workload::record(dir.path(), batches, rng.random());
    let recording = Recording::load(dir.path());
    let cuts = recording.choose(count, rng);
    let scratch = scratch();
    let workers = std::thread::available_parallelism().map_or(2, |n| n.get().min(8));
    let tell = |tally: &Tally| progress.note(tally);
    if let Err(failed) = recording.try_all(&cuts, workers, scratch.path(), tell) {
        let (cut, log) = failed.split_once('\n').unwrap_or((&failed, ""));
        let (dir, scratch) = (dir.keep(), scratch.keep());
        panic!(
            "the cut {cut} (see above); the broker's log:\n{log}\nits image is in {}; to repeat it:\n\
             OTTLA_CRASH_AGAIN={} OTTLA_CRASH_CUT={cut} cargo test --test crash -- --nocapture",
            scratch.display(),
            dir.display()
        );
    }
}

/// Makes one cut of a recording again.
fn again(dir: &Path) {
    let cut = std::env::var("OTTLA_CRASH_CUT").expect("a cut");
    let cut: Cut = cut.parse().expect("run:bytes:seed");
    let scratch = scratch();
    let tried = Recording::load(dir).try_all(&[cut], 1, scratch.path(), |_| {});
    if let Err(failed) = tried {
        panic!("{failed}\nits image is in {}", scratch.keep().display());
    }
    say(&format!("crash: the cut {cut} lost nothing"));
}

/// What was tried, in plain words.
fn certificate(sum: &Tally, seed: u64, took: Duration) -> String {
    let run = |program: &str, args: &[&str]| {
        let output = std::process::Command::new(program).args(args).output();
        let text = output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
        text.ok()
            .filter(|text| !text.is_empty())
            .unwrap_or_else(|| "unknown".into())
    };
    let mut text = String::from("Crash certificate of Ottla\n\n");
    let mut line = |words: String| text += &format!("{words}\n");
    line(format!(
        "commit    {}",
        run("git", &["describe", "--always", "--dirty", "--abbrev=40"])
    ));
    line(format!("date      {}", run("date", &["-u", "+%F %T UTC"])));
    line(format!("duration  {} s", took.as_secs()));
    line(format!("seed      {seed}"));
    line(format!("\nWorkload: {}.", workload::WORDS));
    line("\nCuts, by what the disk kept of that which was not synced:".into());
    for (kind, count) in &sum.cuts {
        line(format!("{count:>10}  {kind}"));
    }
    line(format!(
        "{:>10}  all, {} of them with another cut within the recovery",
        sum.tried, sum.double
    ));
    line("\nPromises that were held against the cuts:".into());
    for (kind, count) in &sum.checked {
        line(format!("{count:>10}  {kind}"));
    }
    line("\nLost: 0".into());
    text
}
