//! The whole broker below a ceiling of memory: 200 connections that produce and fetch as fast as they can, in every
//! codec, some of which never read what they asked for, and others that send what no client should. It is never
//! killed, and never wrong: what a fetch brings and what is there at the end is what was acknowledged, byte for byte.
//!
//! The settings are those that README.md gives for such a box. The kernel is the judge, by a cgroup, where there is
//! one to be had; everywhere the broker's own resident memory must stay within its share of the ceiling.

mod cgroup;
#[path = "../common/mod.rs"]
mod common;
mod hostile;
mod load;

use cgroup::Cgroup;
use common::{Broker, seed};
use load::{Load, PARTITIONS, TOPIC, Truth};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The ceiling, and what of it is the process's own memory; the rest is for the kernel's stacks and sockets, and for
/// the pages that these hold on to.
const LIMIT_BYTES: u64 = 32 << 20;
const OWN_BYTES_MAX: u64 = 22 << 20;
/// A build without optimisations has larger stacks, and 200 of them.
const UNOPTIMISED_BYTES: u64 = 12 << 20;
/// Beside these, each thread has a hostile one, which is another one each time.
const CONNECTIONS: usize = 200;
const THREADS: usize = 8;
const PROGRESS: Duration = Duration::from_secs(10);

/// The settings for a small box, as README.md gives them.
fn profile() -> Vec<&'static str> {
    let readme = include_str!("../../README.md");
    let block = readme.split_once("```properties\n").expect("a profile").1;
    let lines = block.split_once("```").expect("the profile's end").0;
    lines.lines().collect()
}

/// What the broker takes, from time to time.
struct Judge<'a> {
    cgroup: Option<&'a Cgroup>,
    own_bytes_max: u64,
    all_bytes: u64,
    own_bytes: u64,
}

impl Judge<'_> {
    /// Sees that the broker lives, within its limits.
    fn look(&mut self, broker: &Broker) {
        if let Some(cgroup) = self.cgroup {
            self.all_bytes = self.all_bytes.max(cgroup.unreclaimable_bytes());
            assert_eq!(cgroup.kills(), 0, "killed for its memory");
        }
        self.own_bytes = self.own_bytes.max(broker.status("RssAnon:") << 10);
        assert!(
            self.own_bytes <= self.own_bytes_max,
            "{} bytes of its own",
            self.own_bytes
        );
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[test]
fn the_whole_broker_stays_below_a_ceiling() {
    let seconds: u64 = std::env::var("OTTLA_SECONDS").map_or(8, |s| s.parse().expect("seconds"));
    let seed = seed("ceiling");
    let scratch = tempfile::tempdir().expect("a temporary directory");
    // The long target gives the release build.
    let is_release = std::env::var("OTTLA_BROKER").is_ok();
    let more = if is_release { 0 } else { UNOPTIMISED_BYTES };
    let limit = LIMIT_BYTES + more;
    let cgroup = Cgroup::new(limit);
    match &cgroup {
        Ok(cgroup) => eprintln!("ceiling: {}", cgroup.name()),
        Err(why) => eprintln!("SKIPPED ceiling: the kernel as the judge, no memory cgroup: {why}"),
    }
    let settings = profile();
    eprintln!("ceiling: {}", settings.join(" "));
    let cgroup = cgroup.as_ref().ok();
    let start = || {
        Broker::start_with(&scratch.path().join("data"), &settings, |command| {
            if let Some(cgroup) = cgroup {
                cgroup.enclose(command);
            }
            // Each hostile frame is worth a line, and there are hundreds.
            command.env("RUST_LOG", "error");
        })
    };
    let mut judge = Judge {
        cgroup,
        own_bytes_max: OWN_BYTES_MAX + more,
        all_bytes: 0,
        own_bytes: 0,
    };
    let truth = Arc::new(Truth::default());
    let broker = start();
    load::connect(&broker.address).create_with(TOPIC, PARTITIONS, &[]);
    run(&broker, &mut judge, &truth, seconds, seed);
    broker.kill();
    // Recovery too has no more memory than this.
    let broker = start();
    let read = truth.read_back(&mut load::connect(&broker.address));
    judge.look(&broker);
    assert!(broker.stop().success(), "a clean stop");
    assert!(truth.acked() > 0 && read >= truth.acked());
    eprintln!(
        "ceiling: connections={CONNECTIONS} seconds={seconds} limit={}MiB acks={} read={read} fetched={} hostile={} wrong=0 \
         killed=0 peak={:.1}MiB own={:.1}MiB seed={seed}",
        limit >> 20,
        truth.acked(),
        truth.fetched(),
        truth.hostile(),
        mib(judge.all_bytes),
        mib(judge.own_bytes),
    );
}

/// Puts the load on the broker for so long, and looks after it meanwhile.
fn run(broker: &Broker, judge: &mut Judge<'_>, truth: &Arc<Truth>, seconds: u64, seed: u64) {
    let stop = Arc::new(AtomicBool::new(false));
    let templates = Arc::new(load::templates(&mut StdRng::seed_from_u64(seed)));
    let begin = |number: usize| {
        let (stop, truth, templates) = (stop.clone(), truth.clone(), templates.clone());
        let address = broker.address.clone();
        thread::spawn(move || {
            let rng = StdRng::seed_from_u64(seed + number as u64);
            let mut load = Load::new(
                &address,
                number,
                CONNECTIONS / THREADS,
                truth,
                templates,
                rng,
            );
            while !stop.load(Ordering::Relaxed) {
                load.round();
            }
        })
    };
    let threads: Vec<_> = (0..THREADS).map(begin).collect();
    let (began, mut said) = (Instant::now(), Instant::now());
    while began.elapsed() < Duration::from_secs(seconds) && threads.iter().all(|t| !t.is_finished())
    {
        judge.look(broker);
        if said.elapsed() >= PROGRESS {
            said = Instant::now();
            eprintln!(
                "ceiling: {} s, {} acks, {} fetched, {:.1} MiB, {:.1} of them its own",
                began.elapsed().as_secs(),
                truth.acked(),
                truth.fetched(),
                mib(judge.all_bytes),
                mib(judge.own_bytes)
            );
        }
        thread::sleep(Duration::from_millis(20));
    }
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().expect("a thread of the load found a fault");
    }
}
