//! Each topic's setting that is in force: changed while the broker runs, the effect is seen at once, and again after
//! a restart. The settings table names these tests.

use crate::common::Broker;
use crate::common::client::{Client, LONG_AGO_MS, PRODUCE, batch, produce};
use crate::common::settings::*;
use crate::start;
use ottla::api::produce::ProduceResponse;
use ottla::batch::builder::Builder;
use std::fmt::Debug;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const DAY_MS: i64 = 86_400_000;

/// Changes settings of "t" one by one and looks each time: what is seen before the first, and after each.
#[track_caller]
fn seen<T: Debug + PartialEq>(
    changes: &[Change<'_>],
    look: impl Fn(&mut Client, &Path) -> T,
    before: T,
    after: T,
) {
    let (data, broker, mut client) = start(&[]);
    let dir = data.path().join("t-0");
    client.create("t", &[]);
    assert_eq!(look(&mut client, &dir), before, "before {changes:?}");
    for change in changes {
        altered(&mut client, TOPIC, "t", &[*change]);
    }
    assert_eq!(look(&mut client, &dir), after, "after {changes:?}");
    broker.stop();
    let broker = Broker::start(data.path(), &[]);
    let mut client = Client::connect(&broker.address);
    assert_eq!(look(&mut client, &dir), after, "after a restart");
    for Change(name, ..) in changes {
        altered(&mut client, TOPIC, "t", &[delete(name)]);
    }
    assert_eq!(look(&mut client, &dir), before, "taken back");
}

/// A batch of one record of this time.
fn timed(time_ms: i64) -> Vec<u8> {
    let mut builder = Builder::new(time_ms);
    builder.add(None, Some(b"value"), &[], time_ms);
    builder.build()
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap().as_millis() as i64
}

/// The files of a partition that end in `suffix`, in offset order.
fn files(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries
        .filter(|path| path.to_string_lossy().ends_with(suffix))
        .collect();
    files.sort();
    files
}

/// Whether a new segment begins while these batches are stored.
fn rolls(client: &mut Client, dir: &Path, batches: &[Vec<u8>]) -> bool {
    let before = files(dir, ".log").len();
    batches.iter().for_each(|batch| {
        client.store("t", batch);
    });
    files(dir, ".log").len() > before
}

/// Three batches, each this much later than the one before it and than all that is stored.
fn spread(client: &mut Client, step_ms: i64) -> Vec<Vec<u8>> {
    let first = client.offset("t", -1).offset;
    let time_ms = |n| LONG_AGO_MS + (first + n) * step_ms;
    (0..3).map(|n| timed(time_ms(n))).collect()
}

fn code(client: &mut Client, batch: &[u8]) -> i16 {
    client.produce("t", -1, batch).error_code
}

#[test]
fn segment_bytes_is_in_force() {
    let look = |c: &mut Client, dir: &Path| {
        let batches = spread(c, 1);
        rolls(c, dir, &batches)
    };
    seen(&[set("segment.bytes", "100")], look, false, true);
}

#[test]
fn segment_ms_is_in_force() {
    let look = |c: &mut Client, dir: &Path| {
        let batches = spread(c, 10_000);
        rolls(c, dir, &batches)
    };
    seen(&[set("segment.ms", "5000")], look, false, true);
}

/// Chance takes off a part of segment.ms that differs from log to log: of many some begin a new segment early.
#[test]
fn segment_jitter_ms_is_in_force() {
    let (data, broker, mut client) = start(&[]);
    const LOGS: usize = 40;
    let week = (7 * DAY_MS).to_string();
    client.create_with("t", LOGS as i32, &[("segment.ms", &week)]);
    // The first is early; the last is half a week after the one before, too early without jitter.
    let early = |client: &mut Client, time_ms: i64| {
        let mut rolled = 0;
        for index in 0..LOGS {
            let dir = data.path().join(format!("t-{index}"));
            let before = files(&dir, ".log").len();
            for time_ms in [time_ms, time_ms + 7 * DAY_MS / 2] {
                let mut request = produce("t", -1, &timed(time_ms));
                request.topic_data[0].partition_data[0].index = index as i32;
                let answer: ProduceResponse = client.call(PRODUCE, &request);
                assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
            }
            rolled += files(&dir, ".log").len() - before;
        }
        rolled
    };
    assert_eq!(early(&mut client, LONG_AGO_MS), 0);
    altered(&mut client, TOPIC, "t", &[set("segment.jitter.ms", &week)]);
    // At 2^-40 none of them is, or all are.
    let rolled = early(&mut client, LONG_AGO_MS);
    assert!((1..2 * LOGS).contains(&rolled), "{rolled}");
    broker.stop();
    let broker = Broker::start(data.path(), &[]);
    let rolled = early(&mut Client::connect(&broker.address), LONG_AGO_MS);
    assert!(rolled > 0, "after a restart");
}

/// A full index closes its segment; each of these batches gets an entry.
#[test]
fn segment_index_bytes_is_in_force() {
    let look = |c: &mut Client, dir: &Path| {
        let large = batch(&[&"x".repeat(5000)]);
        rolls(c, dir, &vec![large; 4])
    };
    seen(&[set("segment.index.bytes", "12")], look, false, true);
}

/// One entry a batch, instead of one every 4096 bytes.
#[test]
fn index_interval_bytes_is_in_force() {
    let (data, broker, mut client) = start(&[]);
    let dir = data.path().join("t-0");
    client.create("t", &[]);
    let store = |client: &mut Client| {
        for _ in 0..5 {
            client.store("t", &batch(&["x"]));
        }
    };
    let bytes = || -> u64 {
        let indexes = files(&dir, ".index");
        indexes
            .iter()
            .map(|path| fs::metadata(path).unwrap().len())
            .sum()
    };
    store(&mut client);
    altered(&mut client, TOPIC, "t", &[set("index.interval.bytes", "0")]);
    broker.stop();
    assert_eq!(bytes(), 0);
    let broker = Broker::start(data.path(), &[]);
    store(&mut Client::connect(&broker.address));
    broker.stop();
    let sparse = bytes();
    assert!(sparse >= 4 * 8, "{sparse}");
    let broker = Broker::start(data.path(), &[]);
    let mut client = Client::connect(&broker.address);
    altered(
        &mut client,
        TOPIC,
        "t",
        &[set("index.interval.bytes", "4096")],
    );
    store(&mut client);
    broker.stop();
    assert_eq!(bytes(), sparse);
}

/// Room for a segment of 1 MB is taken when the segment begins.
#[test]
fn preallocate_is_in_force() {
    let look = |c: &mut Client, dir: &Path| {
        let batches = spread(c, 8 * DAY_MS);
        assert!(rolls(c, dir, &batches), "a segment begins each week");
        let newest = files(dir, ".log").pop().unwrap();
        fs::metadata(newest).unwrap().blocks() * 512 >= 1_000_000
    };
    let size = set("segment.bytes", "1000000");
    seen(&[size, set("preallocate", "true")], look, false, true);
}

#[test]
fn max_message_bytes_is_in_force() {
    let look = |c: &mut Client, _: &Path| code(c, &batch(&[&"x".repeat(2000)]));
    seen(&[set("max.message.bytes", "1000")], look, 0, 10);
}

#[test]
fn message_timestamp_type_is_in_force() {
    let look = |c: &mut Client, _: &Path| {
        let answer = c.produce("t", -1, &batch(&["x"]));
        answer.log_append_time_ms > 0
    };
    let kind = set("message.timestamp.type", "LogAppendTime");
    seen(&[kind], look, false, true);
}

#[test]
fn message_timestamp_before_max_ms_is_in_force() {
    let look = |c: &mut Client, _: &Path| code(c, &timed(LONG_AGO_MS));
    seen(
        &[set("message.timestamp.before.max.ms", "1000")],
        look,
        0,
        32,
    );
}

#[test]
fn message_timestamp_after_max_ms_is_in_force() {
    let look = |c: &mut Client, _: &Path| code(c, &timed(now_ms() + 2 * DAY_MS));
    let days = (3 * DAY_MS).to_string();
    seen(&[set("message.timestamp.after.max.ms", &days)], look, 32, 0);
}

/// Nothing compacts yet, but a compacted topic takes no record without a key, as in Kafka.
#[test]
fn a_compacted_topic_takes_no_record_without_a_key() {
    let look = |c: &mut Client, _: &Path| code(c, &batch(&["x"]));
    seen(&[append("cleanup.policy", "compact")], look, 0, 87);
}

#[test]
fn a_batch_larger_than_a_segment_is_refused() {
    let large = batch(&["x"]);
    let (less, same) = ((large.len() - 1).to_string(), large.len().to_string());
    let look = move |c: &mut Client, _: &Path| code(c, &large);
    seen(&[set("segment.bytes", &less)], look.clone(), 0, 18);
    seen(&[set("segment.bytes", &same)], look, 0, 0);
}

/// A consumer that waits is served through a change, and what is queued then is neither lost nor repeated.
#[test]
fn changes_amid_produces_lose_nothing() {
    let (_data, broker, mut client) = start(&[]);
    client.create("t", &[]);
    let address = broker.address.clone();
    let changing = std::thread::spawn(move || {
        let mut client = Client::connect(&address);
        for n in 0..60 {
            let (bytes, messages) = [("150", "1"), ("100000", "1000")][n % 2];
            let both = [set("segment.bytes", bytes), set("flush.messages", messages)];
            altered(&mut client, TOPIC, "t", &both);
        }
    });
    let mut stored = 0;
    while !changing.is_finished() {
        for n in stored..stored + 20 {
            client.send(PRODUCE, &produce("t", -1, &batch(&[&n.to_string()])));
        }
        for n in stored..stored + 20 {
            let answer = client.produced();
            assert_eq!((answer.error_code, answer.base_offset), (0, n));
        }
        stored += 20;
    }
    changing.join().unwrap();
    let mut values = Vec::new();
    while (values.len() as i64) < stored {
        let data = client.fetch("t", values.len() as i64);
        assert_eq!(data.error_code, 0);
        values.extend(crate::common::client::values(&data.records));
    }
    let expected: Vec<String> = (0..stored).map(|n| n.to_string()).collect();
    assert_eq!(values, expected);
}
