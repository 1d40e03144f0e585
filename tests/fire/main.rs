//! Idempotence under fire: connections are cut at random, and the broker is killed or stopped every few seconds,
//! while producers send as Kafka's Java client does. Nothing acked is lost, nothing is there twice, each partition is
//! in order, and no producer is told an error that is not true.
//!
//! OTTLA_FIRE_SECONDS makes it longer, OTTLA_SEED repeats a run's choices (not its timing).

#[path = "../common/mod.rs"]
mod common;
mod driver;
mod proxy;
mod transactions;

use common::Broker;
use common::producer::{Batch, Client, sacred};
use driver::{Place, Producer};
use proxy::Proxy;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::HashMap;
use std::path::Path;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const PRODUCERS: usize = 6;
/// Topic, partitions, `segment.bytes`.
const TOPICS: [(&str, i32, &str); 3] = [
    ("wide", 3, "150000"),
    ("small", 1, "20000"),
    ("big", 1, "1073741824"),
];
const SECONDS: u64 = 20;

fn start(data: &Path, settings: &[&str]) -> Broker {
    Broker::start_with(data, settings, |command| {
        command.env("RUST_LOG", "warn");
    })
}

fn places() -> Vec<Place> {
    let of_topic = |&(topic, partitions, _)| (0..partitions).map(move |index| (topic, index));
    TOPICS.iter().flat_map(of_topic).collect()
}

/// Kills the broker and starts the next until the time is over; gives the last one, and how many there were.
fn burn(
    data: &Path,
    settings: &[&str],
    mut broker: Broker,
    proxies: &[Arc<Proxy>],
    rng: &mut StdRng,
) -> (Broker, usize) {
    let seconds = std::env::var("OTTLA_FIRE_SECONDS").map_or(SECONDS, |s| s.parse().unwrap());
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut brokers = 1;
    while Instant::now() < end {
        thread::sleep(Duration::from_millis(rng.random_range(200..3000)));
        if rng.random_ratio(1, 4) {
            assert!(broker.stop().success());
        } else {
            broker.kill();
        }
        proxies.iter().for_each(|proxy| proxy.down());
        thread::sleep(Duration::from_millis(rng.random_range(0..300)));
        broker = start(data, settings);
        proxies.iter().for_each(|proxy| proxy.up(&broker.address));
        brokers += 1;
    }
    (broker, brokers)
}

/// What is wrong with one partition, by what its producers know; `log` is all of it.
fn judge(place: Place, log: &[Batch], producers: &[Producer]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut found: Vec<HashMap<usize, i64>> = vec![HashMap::new(); producers.len()];
    let mut last: Vec<Option<usize>> = vec![None; producers.len()];
    let mut end = 0;
    for batch in log {
        let header = &batch.header;
        let at = header.base_offset;
        if at != end {
            faults.push(format!("{place:?}: {at} follows {end}"));
        }
        end = header.last_offset() + 1;
        let (id, epoch, sequence) = (
            header.producer_id,
            header.producer_epoch,
            header.base_sequence,
        );
        let name = (place, id, epoch, sequence);
        let of = |p: &Producer| Some((p.number, *p.names.get(&name)?));
        let Some((number, batch_number)) = producers.iter().find_map(of) else {
            faults.push(format!("{place:?} at {at}: nobody sent {header:?}"));
            continue;
        };
        let sent = &producers[number].sent[batch_number];
        if batch.sacred() != sacred(&sent.bytes) {
            faults.push(format!("{place:?} at {at}: other bytes than were sent"));
        }
        if last[number] >= Some(batch_number) {
            let text = format!("{:?} then {batch_number}", last[number]);
            faults.push(format!("{place:?} at {at}: producer {number}'s {text}"));
        }
        last[number] = Some(batch_number);
        found[number].insert(batch_number, at);
    }
    for producer in producers {
        let found = &found[producer.number];
        let sent = (0..).zip(&producer.sent).filter(|(_, s)| s.place == place);
        for (number, sent) in sent {
            let who = format!("{place:?}: producer {}'s batch {number}", producer.number);
            let at = found.get(&number).copied();
            match sent.acked {
                None if sent.given_up => {}
                Some(acked) if at == Some(acked) => {}
                acked => faults.push(format!("{who} was acked at {acked:?} and lies at {at:?}")),
            }
            if at.is_some() && producer.refused_for.contains(&number) {
                faults.push(format!("{who} is there, but what follows it was refused"));
            }
        }
    }
    faults
}

/// Checks all partitions; gives their logs.
fn check(address: &str, producers: &[Producer]) -> Vec<(Place, Vec<Batch>)> {
    let mut client = Client::connect(address).unwrap();
    let read = |place: Place| (place, client.fetch_all(place.0, place.1));
    let logs: Vec<(Place, Vec<Batch>)> = places().into_iter().map(read).collect();
    let judged = |(place, log): &(Place, Vec<Batch>)| judge(*place, log, producers);
    let faults: Vec<String> = logs.iter().flat_map(judged).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    logs
}

/// The judge can say no: each kind of damage to a log that is right is noticed.
fn check_the_judge(place: Place, log: &[Batch], producers: &[Producer]) {
    let notices = |damage: &str, change: fn(&mut Vec<Batch>)| {
        let mut log = log.to_vec();
        change(&mut log);
        let mut offset = 0;
        for batch in &mut log {
            batch.header.base_offset = offset;
            offset = batch.header.last_offset() + 1;
        }
        let faults = judge(place, &log, producers);
        assert!(!faults.is_empty(), "{damage} is not noticed");
    };
    assert!(log.len() > 10, "{place:?} is nearly empty");
    notices("a lost last batch", |log| log.truncate(log.len() - 1));
    notices("a lost batch", |log| drop(log.remove(log.len() / 2)));
    notices("a batch twice", |log| log.push(log[log.len() / 2].clone()));
    notices("batches swapped", |log| {
        let at = log.len() / 2;
        log.swap(at, at - 1);
    });
    notices("a byte", |log| *log[0].bytes.last_mut().unwrap() ^= 1);
}

#[test]
fn idempotent_producers_under_fire() {
    let seed = common::seed("fire");
    let mut rng = StdRng::seed_from_u64(seed);
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let broker = start(scratch.path(), &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    for (topic, partitions, segment_bytes) in TOPICS {
        client.create(topic, partitions, &[("segment.bytes", segment_bytes)]);
    }
    let proxy = Proxy::start(rng.random(), false);
    proxy.up(&broker.address);
    let new = |number| Producer::new(number, seed, &places());
    let mut producers: Vec<Producer> = (0..PRODUCERS).map(new).collect();
    let stop = AtomicBool::new(false);
    let (broker, brokers) = thread::scope(|scope| {
        for producer in &mut producers {
            scope.spawn(|| producer.run(&proxy, &stop));
        }
        let burnt = burn(
            scratch.path(),
            &[],
            broker,
            slice::from_ref(&proxy),
            &mut rng,
        );
        proxy.calm();
        stop.store(true, Ordering::SeqCst);
        burnt
    });
    let sum = |count: fn(&Producer) -> usize| producers.iter().map(count).sum::<usize>();
    eprintln!(
        "fire: {brokers} brokers, {} connections, {} batches, {} given up, {} epochs, {} idle times",
        proxy.connections(),
        sum(|p| p.sent.len()),
        sum(|p| p.sent.iter().filter(|s| s.given_up).count()),
        sum(|p| p.epochs),
        sum(|p| p.idled),
    );
    check(&broker.address, &producers);
    broker.kill();
    let broker = start(scratch.path(), &[]);
    for (place, log) in check(&broker.address, &producers) {
        check_the_judge(place, &log, &producers);
    }
    assert!(broker.stop().success());
}
