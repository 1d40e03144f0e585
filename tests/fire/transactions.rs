//! Transactions under fire: connections are cut at random, and the broker is killed or stopped every few seconds, while
//! producers of both flows make transactions, some with a rival of the same id, some too slow for their time-out, some
//! near the last epoch. Each transaction is wholly there or not at all, as its producer was told, with its offset;
//! no fenced one goes on, nothing stays open, and no producer is told an error that is not true.

mod judge;
mod producer;
mod requests;

use super::common::producer::{Batch, Client};
use super::common::{self, Broker};
use super::driver::Place;
use super::proxy::Proxy;
use super::{TOPICS, burn, places, start};
use judge::{History, Seen, judge, marker, offsets};
use ottla::api::find_coordinator::*;
use ottla::api::init_producer_id::*;
use ottla::batch::builder::Builder;
use ottla::batch::marker::Marker;
use ottla::txn::{Transaction, records};
use producer::{Event, Kind, Outcome, Producer, World};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use requests::{GROUP, SOURCE, transactional_id};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

const SETTINGS: [&str; 3] = [
    "transaction.abort.timed.out.transaction.cleanup.interval.ms=200",
    "transaction.state.log.segment.bytes=30000",
    "offsets.topic.segment.bytes=30000",
];
/// Number of the id, newer flow, has a rival, dawdles.
const KINDS: [(usize, bool, bool, bool); 12] = [
    (0, true, false, false),
    (1, true, false, false),
    (2, false, false, false),
    (3, false, false, false),
    (4, true, false, true),
    (5, false, false, true),
    (6, true, true, false),
    (6, true, true, false),
    (7, false, true, false),
    (7, false, true, false),
    (8, true, true, false),
    (8, false, true, false),
];
const IDS: usize = 9;
/// Ids that begin near the last epoch.
const NEAR_THE_LAST_EPOCH: [usize; 6] = [1, 3, 4, 5, 6, 7];

/// Makes the topics; says to the log of transactions that some ids have had almost all epochs of theirs.
fn prepare(data: &Path, rng: &mut StdRng) -> Vec<(&'static str, ottla::wire::Uuid)> {
    let broker = start(data, &SETTINGS);
    let mut client = Client::connect(&broker.address).unwrap();
    client.create(SOURCE, IDS as i32, &[]);
    let topics = TOPICS.map(|(topic, partitions, segment_bytes)| {
        let settings = [("segment.bytes", segment_bytes)];
        (topic, client.create(topic, partitions, &settings))
    });
    for key_type in 0..2 {
        let request = FindCoordinatorRequest {
            key_type,
            coordinator_keys: vec![GROUP.into()],
            ..FindCoordinatorRequest::default()
        };
        let answer: FindCoordinatorResponse = client.call(4, &request).unwrap();
        assert_eq!(answer.coordinators[0].error_code, 0);
    }
    let mut aged = Vec::new();
    for id in NEAR_THE_LAST_EPOCH {
        let request = InitProducerIdRequest {
            transactional_id: Some(transactional_id(id)),
            transaction_timeout_ms: 1_000,
            ..InitProducerIdRequest::default()
        };
        let answer: InitProducerIdResponse = client.call(5, &request).unwrap();
        assert_eq!(answer.error_code, 0);
        let transaction = Transaction {
            producer_id: answer.producer_id,
            epoch: i16::MAX - rng.random_range(2..60),
            timeout_ms: 1_000,
            updated_ms: i64::MAX / 2,
            ..Transaction::default()
        };
        aged.push(records::encode(&transactional_id(id), Some(&transaction)));
    }
    broker.kill();
    let mut builder = Builder::new(0);
    for (key, value) in &aged {
        builder.add(Some(key), value.as_deref(), &[], 0);
    }
    let mut batch = builder.build();
    batch[..8].copy_from_slice(&(aged.len() as i64).to_be_bytes());
    batch[12..16].copy_from_slice(&0i32.to_be_bytes());
    let log = data.join("__transaction_state-0/00000000000000000000.log");
    let mut log = OpenOptions::new().append(true).open(log).unwrap();
    log.write_all(&batch).unwrap();
    topics.to_vec()
}

/// Reads everything, once nothing is left open.
fn look<'a>(address: &str, producers: &'a [Producer<'a>], bytes_max: i32) -> History<'a> {
    let mut client = Client::connect(address).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let read = |place: Place| Seen::read(&mut client, place, bytes_max);
        let seen: Vec<Seen> = places().into_iter().map(read).collect();
        let offsets = offsets(&mut client, IDS);
        let is_quiet = seen.iter().all(|seen| seen.last_stable == seen.end);
        assert!(
            is_quiet && offsets.is_some() || Instant::now() < deadline,
            "open for ever: {:?}, offsets: {offsets:?}",
            seen.iter()
                .map(|s| (s.place, s.last_stable, s.end))
                .collect::<Vec<_>>()
        );
        let Some(offsets) = offsets.filter(|_| is_quiet) else {
            thread::sleep(Duration::from_millis(50));
            continue;
        };
        return History {
            producers,
            events: producers.iter().flat_map(|p| p.events.clone()).collect(),
            seen,
            offsets,
        };
    }
}

fn check<'a>(broker: &Broker, producers: &'a [Producer<'a>], bytes_max: i32) -> History<'a> {
    let history = look(&broker.address, producers, bytes_max);
    let faults = judge(&history);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    history
}

/// Changes the log of a history's first partition.
fn with_log(history: &mut History<'_>, change: impl FnOnce(&mut Vec<Batch>)) {
    let log = &mut history.seen[0].log;
    change(log);
    let mut offset = 0;
    for batch in log {
        batch.header.base_offset = offset;
        offset = batch.header.last_offset() + 1;
    }
}

/// Where the first data batch lies of a transaction that was told to be committed, or is aborted; and where its marker.
fn find(history: &History<'_>, outcome: Outcome) -> (usize, usize) {
    let Seen { place, log, .. } = &history.seen[0];
    let is_sent = |at: &usize| {
        let header = &log[*at].header;
        let name = (
            header.producer_id,
            header.producer_epoch,
            header.base_sequence,
        );
        let all = history.producers.iter().flat_map(|p| &p.transactions);
        let mut sent = all
            .filter(|t| t.outcome == outcome)
            .flat_map(|t| &t.batches);
        sent.any(|sent| sent.place == *place && (sent.me.0, sent.me.1, sent.sequence) == name)
    };
    let at = (0..log.len()).find(is_sent).expect("one of these");
    let id = log[at].header.producer_id;
    let is_end = |end: &usize| log[*end].header.producer_id == id && marker(&log[*end]).is_some();
    let end = (at..log.len()).find(is_end).expect("its marker");
    (at, end)
}

fn mark_anew(batch: &mut Batch, commit: bool) {
    let marker = Marker {
        commit,
        coordinator_epoch: 0,
    };
    let (id, epoch) = (batch.header.producer_id, batch.header.producer_epoch);
    batch.bytes = marker.batch(id, epoch, 0);
}

/// The judge can say no: a damage to a history that is right is noticed for what it is.
fn notices(history: &History<'_>, fault: &str, change: fn(&mut History<'_>)) {
    let mut history = history.clone();
    change(&mut history);
    let faults = judge(&history);
    let found = faults.iter().any(|found| found.contains(fault));
    assert!(found, "{fault:?} is not noticed, only {faults:?}");
}

fn notices_what_is_wrong_with_a_log(history: &History<'_>) {
    let notices = |fault, change| notices(history, fault, change);
    notices("is Committed; of", |h| {
        let (at, _) = find(h, Outcome::Committed);
        with_log(h, |log| drop(log.remove(at)));
    });
    notices("is Committed; of", |h| {
        let (_, end) = find(h, Outcome::Committed);
        mark_anew(&mut h.seen[0].log[end], false);
    });
    notices("is Aborted; of", |h| {
        let (_, end) = find(h, Outcome::Aborted);
        mark_anew(&mut h.seen[0].log[end], true);
    });
    notices(", then", |h| {
        let (at, _) = find(h, Outcome::Committed);
        with_log(h, |log| log.insert(at + 1, log[at].clone()));
    });
    notices("open: {", |h| {
        let (_, end) = find(h, Outcome::Committed);
        with_log(h, |log| log.truncate(end));
    });
    notices("follows", |h| drop(h.seen[0].log.remove(1)));
    notices("other bytes", |h| {
        let (at, _) = find(h, Outcome::Committed);
        *h.seen[0].log[at].bytes.last_mut().unwrap() ^= 1;
    });
    notices("an old epoch", |h| {
        let (at, end) = find(h, Outcome::Committed);
        let epoch = h.seen[0].log[at].header.producer_epoch;
        h.seen[0].log[end].header.producer_epoch = epoch - 1;
    });
    notices("several end as one", |h| {
        let log = &h.seen[0].log;
        let end = (0..log.len()).find(|&end| {
            let id = log[end].header.producer_id;
            let of_id = |batches: &[Batch]| {
                let all = batches
                    .iter()
                    .map(|batch| (batch.header.producer_id, marker(batch)));
                all.filter(|(of, _)| *of == id)
                    .map(|(_, marker)| marker.is_none())
                    .collect::<Vec<_>>()
            };
            marker(&log[end]).is_some()
                && of_id(&log[..end]).last() == Some(&true)
                && of_id(&log[end + 1..]).first() == Some(&true)
        });
        with_log(h, |log| drop(log.remove(end.expect("two of one producer"))));
    });
}

fn notices_what_consumers_and_fenced_producers_may_not_do(history: &History<'_>) {
    let notices = |fault, change| notices(history, fault, change);
    notices("is stable", |h| h.seen[0].last_stable -= 1);
    notices("consumers are given others", |h| {
        let (at, _) = find(h, Outcome::Aborted);
        let aborted = h.seen[0].log[at].header.base_offset;
        h.seen[0].committed.push(aborted);
        h.seen[0].committed.sort();
    });
    notices("consumers are given others", |h| {
        h.seen[0].committed.pop();
    });
    notices("the offset of 0", |h| h.offsets[0] -= 1);
    notices("fenced, and yet", |h| {
        let new = h
            .events
            .iter()
            .filter(|event| event.is_new)
            .max_by_key(|event| event.me.1);
        let mut late: Event = *new.unwrap();
        (late.is_new, late.me.1, late.moment) = (false, late.me.1 - 1, late.moment + 1);
        h.events.push(late);
    });
}

fn report(producers: &[Producer<'_>], brokers: usize) {
    let mut counts = std::collections::BTreeMap::new();
    for (what, count) in producers.iter().flat_map(|producer| &producer.counts) {
        *counts.entry(*what).or_insert(0) += *count;
    }
    let all = || producers.iter().flat_map(|producer| &producer.transactions);
    let of = |outcome| all().filter(|known| known.outcome == outcome).count();
    eprintln!(
        "fire: {brokers} brokers, {} transactions: {} committed, {} aborted, {} either; {counts:?}",
        all().count(),
        of(Outcome::Committed),
        of(Outcome::Aborted),
        of(Outcome::Either),
    );
}

#[test]
fn transactional_producers_under_fire() {
    let seed = common::seed("fire of transactions");
    let mut rng = StdRng::seed_from_u64(seed);
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let topics = prepare(scratch.path(), &mut rng);
    let broker = start(scratch.path(), &SETTINGS);
    let proxies = [
        Proxy::start(rng.random(), false),
        Proxy::start(rng.random(), true),
    ];
    proxies.iter().for_each(|proxy| proxy.up(&broker.address));
    let [hasty, patient] = proxies.clone();
    let world = World::new(hasty, patient, places(), topics.into_iter().collect());
    let new = |(number, (id, newer, has_rival, dawdles))| {
        let kind = Kind {
            id,
            newer,
            has_rival,
            dawdles,
        };
        Producer::new(number, kind, seed, &world)
    };
    let mut producers: Vec<Producer> = KINDS.into_iter().enumerate().map(new).collect();
    let (broker, brokers) = thread::scope(|scope| {
        for producer in &mut producers {
            scope.spawn(|| producer.run());
        }
        let burnt = burn(scratch.path(), &SETTINGS, broker, &proxies, &mut rng);
        proxies.iter().for_each(|proxy| proxy.calm());
        world.stop.store(true, Ordering::SeqCst);
        burnt
    });
    report(&producers, brokers);
    check(&broker, &producers, 1 << 20);
    broker.kill();
    let broker = start(scratch.path(), &SETTINGS);
    let history = check(&broker, &producers, 20_000);
    notices_what_is_wrong_with_a_log(&history);
    notices_what_consumers_and_fenced_producers_may_not_do(&history);
    assert!(broker.stop().success());
}
