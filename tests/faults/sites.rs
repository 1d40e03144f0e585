//! Every site of every fault.

use crate::common::{self, Broker};
use crate::life::{Caller, Gone, SETTINGS};
use crate::shim::{Fault, Kind, Shim};
use crate::told::{Told, UNSTABLE};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const EIO: i32 = 5;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
const EDQUOT: i32 = 122;
/// Half of the bytes, and no error.
const SHORT: i32 = 0;

const SYNC_FAILED: i32 = 74;
const MARKER: &str = ".kafka_cleanshutdown";
/// What a failed sync may cost instead of the process: what it was to make durable is not used then. A log that is
/// being opened or made, an index that is made anew, a file that compaction wrote, small state before it is in place.
const NOT_IN_PLACE: [&str; 5] = [
    "rebuilding ",
    " is offline: ",
    "syncing new partitions",
    ".cleaned: ",
    "writing ",
];
/// What the broker says of what it does not serve before the next start.
const AWAY: [&str; 2] = ["offline", "are not served"];
/// Sites that a run of the tests tries.
const SOME: usize = 36;
const WORKERS: usize = 3;

/// What takes up room.
const WRITES: &[Kind] = &[Kind::Append, Kind::Overwrite];
const GROWTH: &[Kind] = &[Kind::Append, Kind::Create, Kind::MakeDirectory];
/// What a filesystem refuses that was mounted read-only after an error.
const CHANGES: &[Kind] = &[
    Kind::Append,
    Kind::Overwrite,
    Kind::Create,
    Kind::MakeDirectory,
    Kind::Rename,
    Kind::Unlink,
    Kind::Truncate,
];

/// A name, kinds of calls, what they fail with, and whether all after them do too.
type Row = (&'static str, &'static [Kind], i32, bool);

const FAULTS: [Row; 20] = [
    ("write: EIO", WRITES, EIO, false),
    ("write: EIO from then on", WRITES, EIO, true),
    ("write: short", WRITES, SHORT, false),
    ("write: ENOSPC", &[Kind::Append], ENOSPC, false),
    ("write: EDQUOT from then on", &[Kind::Append], EDQUOT, true),
    ("full disk: ENOSPC from then on", GROWTH, ENOSPC, true),
    ("read-only: EROFS from then on", CHANGES, EROFS, true),
    ("sync: EIO", &[Kind::Sync], EIO, false),
    ("create: EIO", &[Kind::Create], EIO, false),
    ("create: EMFILE", &[Kind::Create], EMFILE, false),
    ("open: EIO", &[Kind::Open], EIO, false),
    ("open: EMFILE", &[Kind::Open], EMFILE, false),
    ("mkdir: ENOSPC", &[Kind::MakeDirectory], ENOSPC, false),
    ("rename: EIO", &[Kind::Rename], EIO, false),
    ("unlink: EIO", &[Kind::Unlink], EIO, false),
    ("truncate: EIO", &[Kind::Truncate], EIO, false),
    ("read: EIO", &[Kind::Read], EIO, false),
    ("read: short", &[Kind::Read], SHORT, false),
    ("send: EIO", &[Kind::Send], EIO, false),
    ("send: short", &[Kind::Send], SHORT, false),
];

/// One fault at one place.
#[derive(Clone)]
struct Site {
    name: &'static str,
    fault: Fault,
    nth: u64,
    /// The life is led on what an earlier one, which was killed, left; else in an empty directory.
    old: bool,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = ["in an empty directory", "on old files"][usize::from(self.old)];
        write!(f, "{} at {} {place}", self.name, self.nth)
    }
}

impl Site {
    fn is_full(&self) -> bool {
        self.fault.stays && [ENOSPC, EDQUOT].contains(&self.fault.errno)
    }
}

/// What all sites start from.
struct Stage {
    scratch: tempfile::TempDir,
    /// What was told in the life that `old` was left by.
    told: Told,
}

impl Stage {
    fn new() -> Stage {
        let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let old = scratch.path().join("old");
        fs::create_dir(&old).unwrap();
        // Else each of many at once would build it.
        Shim::new(scratch.path()).unwrap();
        let mut told = Told::default();
        let broker = Broker::start(&old, &SETTINGS);
        let has_happened = |text: &str| broker.log().contains(text);
        Caller::new(&broker.address, &mut told, 0)
            .live(has_happened)
            .unwrap();
        broker.kill();
        Stage { scratch, told }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// A directory for a life, and what was told in the one before it.
    fn begin(&self, old: bool, name: &str) -> (PathBuf, Told) {
        let data = self.path(name);
        match old {
            true => copy_dir(&self.path("old"), &data),
            false => fs::create_dir(&data).unwrap(),
        }
        let told = if old {
            self.told.clone()
        } else {
            Told::default()
        };
        (data, told)
    }

    /// How often each kind of call is made in a life without faults.
    fn count(&self, old: bool) -> BTreeMap<Kind, u64> {
        let shim = Shim::new(self.scratch.path()).unwrap();
        let (data, mut told) = self.begin(old, if old { "count-old" } else { "count-new" });
        let broker = start(&shim, &data).unwrap_or_else(|(status, log)| panic!("{status} {log}"));
        let mut caller = Caller::new(&broker.address, &mut told, 1);
        caller.live(|text| broker.log().contains(text)).unwrap();
        caller.resume(|_| false).unwrap();
        assert!(broker.stop().success());
        let count = |kind: Kind| (kind, shim.calls(kind).unwrap());
        Kind::ALL.map(count).into()
    }

    /// Every site there is.
    fn sites(&self) -> Vec<Site> {
        let mut sites = Vec::new();
        for old in [false, true] {
            let counts = self.count(old);
            println!(
                "faults: calls in a life{}: {counts:?}",
                if old { " on old files" } else { "" }
            );
            for (name, kinds, errno, stays) in FAULTS {
                let count: u64 = kinds.iter().map(|kind| counts[kind]).sum();
                let fault = Fault {
                    kinds: kinds.into(),
                    errno,
                    stays,
                };
                let site = |nth| Site {
                    name,
                    fault: fault.clone(),
                    nth,
                    old,
                };
                sites.extend((1..=count).map(site));
            }
        }
        sites
    }
}

type Started = Result<Broker, (std::process::ExitStatus, String)>;

fn start(shim: &Shim, data: &Path) -> Started {
    Broker::try_start(data, &SETTINGS, |command| {
        shim.attach_faults(command, data).unwrap();
    })
}

fn copy_dir(from: &Path, to: &Path) {
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

/// How a life under a fault ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// The fault did not come: another thread was quicker this time.
    NotReached,
    /// Everything went on.
    Lived,
    /// It went on, but the stop was not clean.
    Unclean,
    /// The process ended by itself after a failed sync.
    Ended,
    /// It could not start.
    NotStarted,
}

/// Leads a life in which the site's call fails; gives its end, and the acknowledgements.
fn try_site(stage: &Stage, site: &Site, number: usize) -> (End, u64) {
    let name = format!("life-{number}");
    let (data, mut told) = stage.begin(site.old, &name);
    let before = told.acks;
    let shim = Shim::new(stage.scratch.path()).unwrap();
    shim.arm(site.nth, &site.fault).unwrap();
    let end = disturbed(&shim, &data, site, &mut told);
    shim.disarm().unwrap();
    // The next start finds all of it, and stops cleanly.
    let broker = start(&shim, &data).unwrap_or_else(|(status, log)| {
        panic!("the start after the fault failed: {status}\n{log}")
    });
    let mut caller = Caller::new(&broker.address, &mut told, 2);
    caller.look_until_it_is_there(|| false).unwrap();
    caller.resume(|_| false).unwrap();
    caller.look_until_it_is_there(|| false).unwrap();
    expect_sane(&broker.log());
    assert!(broker.stop().success(), "the last stop");
    assert!(data.join(MARKER).exists());
    fs::remove_dir_all(&data).unwrap();
    (end, told.acks - before)
}

fn disturbed(shim: &Shim, data: &Path, site: &Site, told: &mut Told) -> End {
    let mut broker = match start(shim, data) {
        Ok(broker) => broker,
        Err((status, log)) => {
            expect_sane(&log);
            assert!(shim.faults().unwrap() > 0, "it did not start: {log}");
            assert!(!(site.old && site.is_full()), "a full disk: {log}");
            expect_code(site, status.code(), &log);
            return End::NotStarted;
        }
    };
    let mut caller = Caller::new(&broker.address, told, 1);
    let lived = caller.live(|text| broker.log().contains(text) || shim.faults().unwrap() > 0);
    let lived = lived.and_then(|()| {
        if site.fault.stays && site.nth.is_multiple_of(2) {
            // The stop, and on a full disk another start, are for the fault too.
            return Ok(());
        }
        shim.disarm().unwrap();
        caller.resume(|(topic, index)| is_offline(&broker.log(), topic, index))?;
        // What could not be opened, read, or cut back, stays away until the next start.
        caller.look_until_it_is_there(|| {
            let log = broker.log();
            AWAY.iter().any(|text| log.contains(text))
        })
    });
    if let Err(Gone) = lived {
        let (code, log) = (broker.wait().code(), broker.log());
        expect_sane(&log);
        assert_eq!(code, Some(SYNC_FAILED), "{log}");
        expect_code(site, code, &log);
        return End::Ended;
    }
    broker.signal("TERM");
    let (status, log) = (broker.wait(), broker.log());
    expect_sane(&log);
    // A stop may have done all that it could, and yet a log that was never opened is not known to be whole.
    let is_clean = status.success() && !log.contains("a log could not be opened");
    assert_eq!(is_clean, data.join(MARKER).exists(), "{status}\n{log}");
    if !status.success() {
        expect_code(site, status.code(), &log);
    } else if site.fault.kinds == [Kind::Sync] && shim.faults().unwrap() > 0 {
        let is_excused = NOT_IN_PLACE.iter().any(|text| log.contains(text));
        assert!(is_excused, "it went on after a failed sync: {log}");
    }
    if site.fault.stays && site.is_full() && site.nth.is_multiple_of(2) && site.old {
        start_on_full_disk(shim, data, told);
    }
    match status.success() {
        _ if shim.faults().unwrap() == 0 => End::NotReached,
        true => End::Lived,
        false => End::Unclean,
    }
}

/// It starts, shows what it has, and goes on when there is room.
fn start_on_full_disk(shim: &Shim, data: &Path, told: &mut Told) {
    let broker = start(shim, data)
        .unwrap_or_else(|(status, log)| panic!("no start on a full disk: {status}\n{log}"));
    let mut caller = Caller::new(&broker.address, told, 3);
    let seen = caller.call(|client, told| told.check(client)).unwrap();
    // What transactions wait for cannot be written yet.
    assert!(matches!(seen, Some(Ok(()) | Err(UNSTABLE))), "{seen:?}");
    shim.disarm().unwrap();
    caller.resume(|_| false).unwrap();
    caller.look_until_it_is_there(|| false).unwrap();
    expect_sane(&broker.log());
    assert!(broker.stop().success());
}

fn expect_sane(log: &str) {
    assert!(!log.contains("panicked"), "{log}");
}

/// 74 says that a sync failed, and nothing else does.
fn expect_code(site: &Site, code: Option<i32>, log: &str) {
    let expected = if log.contains("a sync failed") {
        SYNC_FAILED
    } else {
        1
    };
    assert_eq!(code, Some(expected), "{log}");
    // A directory is opened to be synced.
    let may_be_sync = matches!(site.fault.kinds[..], [Kind::Sync] | [Kind::Open]);
    assert!(expected != SYNC_FAILED || may_be_sync, "{log}");
}

fn is_offline(log: &str, topic: &str, index: i32) -> bool {
    let is_about = |line: &&str| line.contains(&format!("{topic}-{index}"));
    log.lines()
        .filter(is_about)
        .any(|line| line.contains("offline"))
}

/// The sites of this run, in a random order.
fn chosen(stage: &Stage, seed: u64) -> Vec<Site> {
    let mut sites = stage.sites();
    sites.shuffle(&mut StdRng::seed_from_u64(seed));
    if let Ok(only) = std::env::var("OTTLA_FAULTS_ONLY") {
        sites.retain(|site| site.to_string().contains(&only));
    }
    match std::env::var("OTTLA_FAULTS") {
        Ok(all) if all == "all" => {}
        some => sites.truncate(some.map_or(SOME, |some| some.parse().expect("a number, or all"))),
    }
    sites
}

/// What came of the sites.
#[derive(Default)]
struct Tally {
    tried: usize,
    acks: u64,
    ends: BTreeMap<(&'static str, End), u64>,
    /// Each site that failed, and how.
    failed: Vec<(String, String)>,
}

impl Tally {
    fn count(&mut self, site: &Site, tried: thread::Result<(End, u64)>) {
        self.tried += 1;
        match tried {
            Ok((end, acks)) => {
                self.acks += acks;
                *self.ends.entry((site.name, end)).or_default() += 1;
            }
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                println!("faults: FAILED {site}: {text}");
                self.failed.push((site.to_string(), text));
            }
        }
    }

    fn print(&self, seed: u64) {
        for ((name, end), count) in &self.ends {
            println!("faults: {name}: {count} {end:?}");
        }
        let is_hang = |(_, text): &&(String, String)| {
            let hangs = ["no answer comes", "does not end", "does not listen"];
            hangs.iter().any(|hang| text.contains(hang))
        };
        let hangs = self.failed.iter().filter(is_hang).count();
        println!(
            "faults: sites={} kinds={} acks={} lost={} hangs={hangs} seed={seed}",
            self.tried,
            FAULTS.len(),
            self.acks,
            self.failed.len() - hangs,
        );
    }
}

#[test]
fn no_single_fault_costs_an_acked_record() {
    let seed = common::seed("faults");
    let stage = Stage::new();
    let sites = chosen(&stage, seed);
    let (next, tally) = (AtomicUsize::new(0), Mutex::new(Tally::default()));
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(site) = sites.get(number) else {
                return;
            };
            let tried = panic::catch_unwind(AssertUnwindSafe(|| try_site(&stage, site, number)));
            tally.lock().unwrap().count(site, tried);
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        let (began, mut said) = (Instant::now(), Instant::now());
        while !workers.iter().all(|worker| worker.is_finished()) {
            thread::sleep(Duration::from_millis(50));
            if said.elapsed() > Duration::from_secs(5) {
                let (tried, seconds) = (tally.lock().unwrap().tried, began.elapsed().as_secs());
                println!("faults: {tried} of {} sites, {seconds} s", sites.len());
                said = Instant::now();
            }
        }
    });
    let tally = tally.into_inner().unwrap();
    tally.print(seed);
    assert!(tally.failed.is_empty(), "{:#?}", tally.failed);
}
