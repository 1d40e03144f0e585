//! A broker at work through several runs, every change of its files recorded.

use crate::actors::{Actor, Clerk, Habit, KEPT_BYTES, Maker, Place, SETTING_AT_FIRST, Transactor};
use crate::actors::{Watcher, Writer, make};
use crate::common::Broker;
use crate::common::producer::Client;
use crate::ledger::{Book, Mark};
use crate::shim::Shim;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What a workload does, for the report.
pub const WORDS: &str = "\
producers with acks=1 and acks=all, idempotent ones that send again what was not answered, transactions (both
flows, committed and aborted, with offsets), committed offsets, topics made, filled, deleted and made again,
partitions added, segments rolled, retention by size and by time, compaction, DeleteRecords, settings changed;
several runs, each ended by kill -9 or SIGTERM under load";

/// Longer than a run takes, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(120);

/// How each run ends.
const KILLED: [bool; 4] = [true, false, true, true];
/// The run in whose midst the clocks jump.
const JUMPS: usize = 2;
const JUMP_MS: i64 = 2 * 3_600_000;
const RETENTION_MS: &str = "3600000";

/// What the broker under load is started with: everything happens often.
const SETTINGS: [&str; 8] = [
    "offsets.topic.num.partitions=2",
    "offsets.topic.segment.bytes=3000",
    "transaction.state.log.num.partitions=2",
    "transaction.state.log.segment.bytes=3000",
    "log.retention.check.interval.ms=20",
    "log.cleaner.backoff.ms=5",
    "log.cleaner.min.cleanable.ratio=0.2",
    "log.segment.delete.delay.ms=0",
];

/// Records a workload of runs of so many batches below `dir`: `changes-1` and so on, and `ledger.json`.
pub fn record(dir: &Path, batches: usize, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let data = dir.join("data");
    fs::create_dir(&data).unwrap();
    let book = Book::new(data.canonicalize().unwrap());
    let shim = Shim::new(dir).unwrap();
    // A sync's end is recorded so much after it: who answers too early is caught in between.
    let delay = Duration::from_micros(rng.random_range(500..3000));
    shim.set_sync_delay(delay).unwrap();
    let mut actors = Vec::new();
    for (run, killed) in (1..).zip(KILLED) {
        let changes = dir.join(format!("changes-{run}"));
        fs::write(&changes, "").unwrap();
        book.begin_run(&changes);
        let broker = Broker::start_with(&data, &SETTINGS, |command| {
            command.env("RUST_LOG", "error");
            shim.attach_recording(command, &data, &changes).unwrap();
        });
        if run == 1 {
            actors = cast(&mut Client::connect(&broker.address).unwrap(), &book);
        }
        let jump = (run == JUMPS).then_some(&shim);
        live(broker, killed, &mut actors, &book, batches, jump, &mut rng);
    }
    let ledger = serde_json::to_vec(&book.close()).unwrap();
    fs::write(dir.join("ledger.json"), ledger).unwrap();
}

/// Makes the topics, and those who use them.
fn cast(client: &mut Client, book: &Book) -> Vec<Box<dyn Actor>> {
    let setting = SETTING_AT_FIRST.to_string();
    let kept = KEPT_BYTES.to_string();
    let mut topic = |name, partitions, settings: &[(&str, &str)]| {
        make(client, book, name, partitions, settings).expect("a topic")
    };
    let t = topic("t", 2, &[("max.message.bytes", &setting)]);
    let rolls = topic("rolls", 1, &[("segment.bytes", "3000")]);
    let deleted = topic("deleted", 1, &[("segment.bytes", "1500")]);
    let grown = topic("grown", 1, &[]);
    let aged = [("segment.bytes", "1500"), ("retention.ms", RETENTION_MS)];
    let aged = topic("aged", 1, &aged);
    let kept = [("segment.bytes", "1500"), ("retention.bytes", &kept)];
    let kept = topic("kept", 1, &kept);
    let compact = [
        ("segment.bytes", "1500"),
        ("cleanup.policy", "compact"),
        ("min.cleanable.dirty.ratio", "0.01"),
    ];
    let compact = topic("compact", 1, &compact);
    for name in ["a", "b"] {
        topic(name, 1, &[("segment.bytes", "2000")]);
    }
    book.seen("partitions grown", 1);
    book.ask("partitions grown", 1);
    let shared: [Place; 3] = [(t, "t", 0), (t, "t", 1), (rolls, "rolls", 0)];
    let mut fast = Writer::new("acks=1", &shared);
    fast.acks = 1;
    let mut deletes = Writer::new("deletes", &[(deleted, "deleted", 0)]).idempotent();
    deletes.habit = Habit::Deletes;
    let mut grows = Writer::new("grows", &[(grown, "grown", 0)]).idempotent();
    grows.habit = Habit::Grows;
    let mut keeps = Writer::new("keeps", &[(kept, "kept", 0)]).idempotent();
    keeps.habit = Habit::Kept(Vec::new());
    let mut keyed = Writer::new("keyed", &[(compact, "compact", 0)]).idempotent();
    keyed.keyed = true;
    let mut actors: Vec<Box<dyn Actor>> = vec![
        Box::new(fast),
        Box::new(Writer::new("plain", &shared)),
        Box::new(Writer::new("numbered", &shared).idempotent()),
        Box::new(deletes),
        Box::new(grows),
        Box::new(keeps),
        Box::new(keyed),
        Box::new(Writer::new("ages", &[(aged, "aged", 0)]).idempotent()),
        Box::new(Maker::default()),
        Box::new(Clerk::default()),
        Box::new(Transactor::default()),
    ];
    for place in shared {
        actors.push(Box::new(Watcher { place, offset: 0 }));
    }
    actors
}

/// One run under load; the clocks jump in its midst, if there is a `jump`.
fn live(
    broker: Broker,
    killed: bool,
    actors: &mut [Box<dyn Actor>],
    book: &Book,
    batches: usize,
    jump: Option<&Shim>,
    rng: &mut StdRng,
) {
    let leaving = AtomicBool::new(false);
    let address = broker.address.clone();
    thread::scope(|scope| {
        for actor in actors {
            let (address, leaving) = (&address, &leaving);
            let rng = StdRng::seed_from_u64(rng.random());
            scope.spawn(move || act(actor.as_mut(), address, book, leaving, rng));
        }
        wait_for(book, batches / 2);
        if let Some(shim) = jump {
            jump_clocks(shim, book);
        }
        wait_for(book, batches / 2);
        leaving.store(true, Ordering::SeqCst);
        match killed {
            true => broker.kill(),
            false => assert!(broker.stop().success()),
        }
    });
}

/// Waits until so many more batches were sent, and a transaction more has ended.
fn wait_for(book: &Book, batches: usize) {
    let done = || {
        let ledger = book.open();
        let ended = ledger.txns.iter().filter(|txn| txn.ended.is_some());
        (ledger.sent.len(), ended.count())
    };
    let (before, patience) = (done(), Instant::now() + PATIENCE);
    while done().0 < before.0 + batches || done().1 == before.1 {
        assert!(Instant::now() < patience, "the load does not get on");
        thread::sleep(Duration::from_millis(5));
    }
}

/// All that was sent to the topic that has a retention by time may go from now on. Nobody sends meanwhile: who wants to
/// is held up by the book.
fn jump_clocks(shim: &Shim, book: &Book) {
    let asked = Some(book.now());
    let mut ledger = book.open();
    let number = ledger.topics.iter().position(|topic| topic.name == "aged");
    let sent = ledger.sent.iter();
    let value = sent.filter(|sent| Some(sent.topic) == number);
    let value = value.map(|sent| sent.records).sum();
    let mark = Mark {
        value,
        asked,
        answered: None,
    };
    ledger
        .marks
        .entry("start aged 0".into())
        .or_default()
        .push(mark);
    shim.set_clocks(JUMP_MS, JUMP_MS).unwrap();
}

fn act(actor: &mut dyn Actor, address: &str, book: &Book, leaving: &AtomicBool, mut rng: StdRng) {
    let mut live = || -> std::io::Result<()> {
        let mut client = Client::connect(address)?;
        actor.begin(&mut client, book)?;
        loop {
            actor.step(&mut client, book, &mut rng)?;
        }
    };
    // A jump of the clocks ends connections that seem idle since.
    for _attempt in 0..5 {
        let ended = live();
        if leaving.load(Ordering::SeqCst) {
            return;
        }
        eprintln!("an actor is cut off: {ended:?}");
    }
    panic!("an actor cannot go on");
}
