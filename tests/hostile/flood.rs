//! Ten thousand slow sockets, and connections at full speed: what a client that was there before has to bear.
//!
//! `make flood` runs it at full size against the release build; `make test` a small one, where times mean nothing. The
//! hostile side runs on one thread of the lowest priority: other machines have processors of their own.

use crate::common::client::{Client, PATIENCE, batch};
use crate::common::{self, Broker};
use crate::swarm::{Kind, Swarm};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// The most that the existing client's p99 may grow, as the median of all pairs.
const RATIO_MAX: f64 = 3.0;
/// Pairs from which on the times are held to it.
const PAIRS_MEASURED: usize = 9;

/// One run's 99th percentiles, in microseconds.
struct Run {
    produce_us: f64,
    fetch_us: f64,
}

impl Run {
    /// How many times as long as in `other`, for the request that suffers more.
    fn over(&self, other: &Run) -> f64 {
        let produce = self.produce_us / other.produce_us;
        produce.max(self.fetch_us / other.fetch_us)
    }
}

/// What hostile sockets had of the broker.
struct Hostile {
    open: u64,
    threads: u64,
    /// Connections that were begun, a second.
    rate: f64,
}

struct Scene {
    broker: Broker,
    client: Client,
    /// How many connections there are descriptors for.
    possible: usize,
    time: Duration,
    stored: i64,
}

impl Scene {
    /// Stores one record, and reads it back, again and again.
    fn measure(&mut self) -> Run {
        let (mut produced, mut fetched) = (Vec::new(), Vec::new());
        let record = batch(&["x"]);
        let began = Instant::now();
        while began.elapsed() < self.time || produced.len() < 100 {
            let start = Instant::now();
            assert_eq!(self.client.store("existing", &record), self.stored);
            produced.push(start.elapsed());
            let start = Instant::now();
            let data = self.client.fetch("existing", self.stored);
            fetched.push(start.elapsed());
            assert_eq!(data.high_watermark, self.stored + 1);
            self.stored += 1;
        }
        Run {
            produce_us: p99_us(produced),
            fetch_us: p99_us(fetched),
        }
    }

    /// As [`Scene::measure`], beside hostile sockets.
    fn beside(&mut self, kind: Kind, seed: u64) -> (Run, Hostile) {
        let (threads, sockets) = (self.broker.status("Threads:"), self.sockets());
        let began = Instant::now();
        let swarm = Swarm::start(&self.broker.address, kind, seed);
        let wanted = match kind {
            Kind::Loris(sockets) => sockets.min(self.possible) * 9 / 10,
            Kind::Flood => 10,
        };
        let deadline = Instant::now() + PATIENCE;
        while self.sockets() < sockets + wanted && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(100));
        }
        // Until all have said what they have to say.
        thread::sleep(self.time / 4);
        let run = self.measure();
        let hostile = Hostile {
            open: (self.sockets() - sockets) as u64,
            threads: self.broker.status("Threads:") - threads,
            rate: swarm.opened() as f64 / began.elapsed().as_secs_f64(),
        };
        swarm.stop();
        self.settle(threads, sockets);
        (run, hostile)
    }

    /// What the hostile ones cost is given back.
    fn settle(&mut self, threads: u64, sockets: usize) {
        self.broker.expect_threads(threads);
        let deadline = Instant::now() + PATIENCE;
        while self.sockets() > sockets {
            assert!(Instant::now() < deadline, "connections are left");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The broker's sockets.
    fn sockets(&self) -> usize {
        let open = fs::read_dir(format!("/proc/{}/fd", self.broker.pid()));
        let targets = open.expect("the broker lives").flatten();
        let is_socket = |entry: &fs::DirEntry| {
            let target = fs::read_link(entry.path());
            target.is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
        };
        targets.filter(is_socket).count()
    }
}

fn p99_us(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() * 99 / 100].as_secs_f64() * 1e6
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn number(variable: &str, otherwise: usize) -> usize {
    let text = std::env::var(variable);
    text.map_or(otherwise, |text| text.parse().expect("a number"))
}

/// What the broker may take with so many connections, in KiB: itself, what each connection costs, and the memory of
/// requests.
fn ceiling_kib(connections: u64) -> u64 {
    (16 << 10) + 24 * connections + (128 << 10)
}

#[test]
fn a_flood_leaves_an_existing_client_alone() {
    let pairs = number("OTTLA_FLOOD_PAIRS", 1);
    let sockets = number("OTTLA_FLOOD_SOCKETS", 200);
    let seed = common::seed("flood");
    ottla::sys::raise_descriptor_limit().expect("the limit of open files");
    let data = tempfile::tempdir().expect("a temporary directory");
    let broker = Broker::start(data.path(), &[]);
    let mut client = Client::connect(&broker.address);
    client.create("existing", &[]);
    let log = broker.log();
    let possible = log.split_once("no more than ").map(|(_, rest)| rest);
    let possible = possible.and_then(|rest| rest.split(' ').next()?.parse().ok());
    let mut scene = Scene {
        possible: possible.unwrap_or(usize::MAX),
        broker,
        client,
        time: Duration::from_millis(if pairs < PAIRS_MEASURED { 300 } else { 3000 }),
        stored: 0,
    };
    scene.measure();
    let (mut loris, mut flood, mut open, mut threads) = (Vec::new(), Vec::new(), 0, 0);
    for pair in 1..=pairs {
        let alone = scene.measure();
        let (beside, slow) = scene.beside(Kind::Loris(sockets), seed);
        loris.push(beside.over(&alone));
        (open, threads) = (open.max(slow.open), threads.max(slow.threads));
        let again = scene.measure();
        let (flooded, fast) = scene.beside(Kind::Flood, seed);
        flood.push(flooded.over(&again));
        let us = |run: &Run| format!("{:.0}/{:.0}", run.produce_us, run.fetch_us);
        eprintln!(
            "flood: pair {pair} of {pairs}: p99 of produce/fetch in us: alone {}, beside {} slow sockets {}; alone {}, beside {:.0} new ones a second {}",
            us(&alone),
            slow.open,
            us(&beside),
            us(&again),
            fast.rate,
            us(&flooded)
        );
    }
    let (loris, flood) = (median(loris), median(flood));
    let (memory, ceiling) = (scene.broker.status("VmHWM:"), ceiling_kib(open));
    eprintln!(
        "flood: sockets={sockets} open={open} threads={threads} ratio_p99_loris={loris:.2} ratio_p99_flood={flood:.2} memory_max={}MiB ceiling={}MiB seed={seed}",
        memory >> 10,
        ceiling >> 10
    );
    if (open as usize) < sockets {
        eprintln!(
            "flood: {open} of {sockets} were let in: see the broker's line on the limit of open files"
        );
    }
    assert!(memory <= ceiling, "{memory} KiB of {ceiling}");
    // Fewer pairs on a machine that does other things say nothing.
    if pairs >= PAIRS_MEASURED {
        assert!(loris <= RATIO_MAX && flood <= RATIO_MAX);
    }
    assert!(scene.broker.stop().success());
}
