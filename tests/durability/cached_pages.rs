//! P6: a sync fails, and the pages that the disk has lost are still cached. The next start reads them, so what it
//! shows it must have written again: a power cut after it takes none of it, of records, of groups' offsets, of
//! transactions or of topics.

use crate::common::producer::{Client, batch};
use crate::common::transactional::{Producer, committed, offset};
use crate::common::{self, Broker};
use crate::scene::{Scene, heard};
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};
use std::path::Path;
use std::time::{Duration, Instant};

const SETTINGS: [&str; 2] = [
    "offsets.topic.num.partitions=1",
    "transaction.state.log.num.partitions=1",
];
const SYNCS: usize = 12;

/// A life with something of everything in it, as far as it comes; gives what was acked of topic `t`.
fn live(client: &mut Client, acked: &mut Vec<String>) -> std::io::Result<()> {
    for topic in ["a", "b", "t"] {
        if client
            .try_create(topic, 1, &[("segment.bytes", "300")])?
            .is_err()
        {
            return Ok(());
        }
    }
    let id = client.producer_id()?;
    for round in 0..3 {
        let value = format!("value {round}");
        let sent = batch(Some((id, round)), &[value.as_bytes()]);
        if client.produce("t", 0, &sent)?.is_ok() {
            acked.push(value);
        }
        let Ok(mut producer) = Producer::new(client, "newer", true)? else {
            continue;
        };
        let _ = producer.write(client, "a", &round.to_string())?;
        let _ = producer.write(client, "b", &round.to_string())?;
        let _ = producer.commit_offset(client, round.into())?;
        let _ = producer.end(client, round != 1)?;
    }
    Ok(())
}

/// All that a broker shows, once every transaction has ended.
#[derive(Debug, PartialEq)]
struct Shown {
    said: Vec<String>,
    committed: [Vec<String>; 2],
    offset: i64,
}

fn shown(client: &mut Client) -> Shown {
    let began = Instant::now();
    while Producer::new(client, "newer", true).unwrap().is_err() {
        assert!(began.elapsed() < Duration::from_secs(60), "it hangs");
    }
    let mut read = |topic| loop {
        match committed(client, topic).unwrap() {
            Err(3) => return Vec::new(),
            Ok((values, true)) => return values,
            other => assert!(began.elapsed() < Duration::from_secs(60), "{other:?}"),
        }
    };
    let committed = [read("a"), read("b")];
    let is_there = client.topic_id("t").unwrap().is_some();
    Shown {
        said: if is_there {
            heard(client, "t", 0)
        } else {
            Vec::new()
        },
        committed,
        offset: offset(client).unwrap().unwrap(),
    }
}

fn start(data: &Path) -> Broker {
    Broker::start_with(data, &SETTINGS, |command| {
        command.env("RUST_LOG", "error");
    })
}

/// Lets one sync fail; gives whether that ended the process.
fn fail(nth: u64, lucky: &mut StdRng) -> bool {
    let mut scene = Scene::new();
    scene.shim.fail_sync(nth).unwrap();
    let mut acked = Vec::new();
    let mut has_ended = true;
    if let Ok(broker) = scene.try_start(&SETTINGS) {
        let mut client = Client::connect(&broker.address).unwrap();
        has_ended = live(&mut client, &mut acked).is_err();
        broker.kill();
    }
    scene.shim.fail_sync(0).unwrap();
    let broker = scene.start(&SETTINGS);
    let mut client = Client::connect(&broker.address).unwrap();
    let before = shown(&mut client);
    assert!(before.said.starts_with(&acked), "{before:?}, {acked:?}");
    assert_eq!(before.committed[0], before.committed[1], "torn");
    let id = client.producer_id().unwrap();
    broker.kill();
    let kind = if lucky.random() { "strict" } else { "lucky" };
    let mut disk = scene.disk();
    for run in 1..=2 {
        disk.replay(&scene.changes(run)).unwrap();
    }
    let image = scene.path("image");
    match kind {
        "strict" => disk.write_to(&image).unwrap(),
        _ => disk.write_some_to(&image, lucky).unwrap(),
    }
    let broker = start(&image);
    let mut client = Client::connect(&broker.address).unwrap();
    let after = shown(&mut client);
    assert_eq!(
        after, before,
        "sync {nth} failed, and then the power ({kind})"
    );
    assert!(client.producer_id().unwrap() > id);
    assert!(broker.stop().success());
    has_ended
}

#[test]
fn what_a_start_shows_of_cached_pages_outlives_a_power_cut() {
    let mut rng = StdRng::seed_from_u64(common::seed("cached pages"));
    let mut scene = Scene::new();
    let broker = scene.start(&SETTINGS);
    live(
        &mut Client::connect(&broker.address).unwrap(),
        &mut Vec::new(),
    )
    .unwrap();
    broker.kill();
    let counts = scene.shim.counts().unwrap();
    let all = counts.syncs + counts.directory_syncs;
    let mut chosen = (1..=all).choose_multiple(&mut rng, SYNCS);
    chosen.sort_unstable();
    let ended = chosen.iter().filter(|nth| fail(**nth, &mut rng)).count();
    eprintln!("cached pages: syncs={SYNCS} of {all} ended={ended} lost=0");
    assert!(ended > 0, "of the syncs of a log each ends the process");
}
