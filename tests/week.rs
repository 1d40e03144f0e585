//! A week in a minute: a broker's clocks are moved on hour by hour, and its wall clock is wrong for days, in 1970 and
//! in 2056, over restarts. After each hour a model says what must be there and what must be gone: what should age
//! out does, and no step of a clock deletes anything by itself (P8).
//!
//! How an hour is known to be over for the broker: one topic's records live for half an hour. It is the last by name,
//! and all topics are looked at together, so once its log is empty every other has had its turn.

mod common;
#[path = "support/shim.rs"]
#[allow(dead_code)] // the other tests use the rest of it
mod shim;

use common::Broker;
use common::producer::Client;
use ottla::api::offset_commit::*;
use ottla::api::offset_fetch::*;
use ottla::batch::builder::Builder;
use shim::Shim;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

const HOUR_MS: i64 = 3_600_000;
const YEAR_MS: i64 = 365 * 24 * HOUR_MS;
const HOURS: i64 = 7 * 24;
/// A day, and half an hour between the hours, so that the test's own minutes decide nothing.
const DAY_AND_A_HALF_HOUR: &str = "88200000";
const RETENTION_MS: i64 = 24 * HOUR_MS + HOUR_MS / 2;
/// The same of committed offsets: two days.
const OFFSETS_MS: i64 = 48 * HOUR_MS + HOUR_MS / 2;
const HALF_AN_HOUR: &str = "1800000";
const EVERY_BATCH_A_SEGMENT: (&str, &str) = ("segment.bytes", "100");
const LAST: &str = "zulu";
const SETTINGS: &[&str] = &[
    "log.retention.check.interval.ms=10",
    "log.segment.delete.delay.ms=0",
    "offsets.retention.minutes=2910",
    "offsets.retention.check.interval.ms=1000",
];
/// Topics whose records live for a day, by the time that they carry: their producer's, or the broker's wall clock.
const AGEING: [&str; 2] = ["create", "append"];

/// How far the wall clock is off in each hour.
fn wall_error_ms(hour: i64) -> i64 {
    match hour {
        36..60 | 120 => -56 * YEAR_MS,
        60..84 | 140 => 30 * YEAR_MS,
        _ => 0,
    }
}

/// The broker is stopped and started before these hours, with the clock right and wrong.
fn restarts(hour: i64) -> bool {
    matches!(hour, 20 | 40 | 60 | 70 | 85 | 120 | 141 | 160)
}

/// What is to happen, in ms since the beginning.
struct Model {
    hour: i64,
    /// Broker time.
    time_ms: i64,
    /// When each record of a topic was appended, by offset.
    appended: Vec<i64>,
    /// When a group's offset was committed.
    committed_ms: i64,
}

impl Model {
    fn wall_ms(&self) -> i64 {
        self.hour * HOUR_MS + wall_error_ms(self.hour)
    }

    /// An hour passes: broker time goes on by as much, and by as much again while the wall clock is ahead.
    fn next_hour(&mut self) {
        self.hour += 1;
        self.time_ms += HOUR_MS;
        self.time_ms += (self.wall_ms() - self.time_ms).clamp(0, HOUR_MS);
    }

    fn start(&self) -> i64 {
        let is_old = |appended_ms: &&i64| self.time_ms - **appended_ms > RETENTION_MS;
        self.appended.iter().take_while(is_old).count() as i64
    }
}

struct Week {
    scratch: tempfile::TempDir,
    shim: Shim,
    began_ms: i64,
    model: Model,
}

impl Week {
    fn start_broker(&self) -> (Broker, Client) {
        let data = self.scratch.path().join("data");
        let broker = Broker::start_with(&data, SETTINGS, |command| {
            command.env("RUST_LOG", "warn");
            self.shim.attach(command);
        });
        let client = Client::connect(&broker.address).unwrap();
        (broker, client)
    }

    fn set_clocks(&self) {
        let clocks = self
            .shim
            .set_clocks(self.model.wall_ms(), self.model.hour * HOUR_MS);
        clocks.unwrap();
    }

    /// One record to each topic, of the producer's right time.
    fn produce(&mut self, client: &mut Client) {
        let time_ms = self.began_ms + self.model.hour * HOUR_MS;
        let mut builder = Builder::new(time_ms);
        builder.add(None, Some(&[b'x'; 20]), &[], time_ms);
        let offset = self.model.appended.len() as i64;
        for topic in AGEING.iter().chain(&["forever", LAST]) {
            let said = client.produce(topic, 0, &builder.build()).unwrap();
            assert_eq!(said, Ok(offset), "{topic}, hour {}", self.model.hour);
        }
        self.model.appended.push(self.model.time_ms);
    }

    fn check(&self, client: &mut Client) {
        let hour = self.model.hour;
        let end = self.model.appended.len() as i64;
        wait_until(|| start_of(client, LAST) == end);
        for topic in AGEING {
            assert_eq!(
                start_of(client, topic),
                self.model.start(),
                "{topic}, hour {hour}"
            );
            let (there, last) = client.fetch_from(topic, 0, self.model.start()).unwrap();
            assert_eq!((there.len() as i64, last), (end - self.model.start(), end));
        }
        assert_eq!(start_of(client, "forever"), 0, "hour {hour}");
        assert_eq!(client.fetch_all("forever", 0).len() as i64, end);
        let offset_age_ms = self.model.time_ms - self.model.committed_ms;
        match offset_age_ms > OFFSETS_MS {
            true => wait_until(|| committed(client, "once") == -1),
            false => assert_eq!(committed(client, "once"), 7, "hour {hour}"),
        }
        assert_eq!(committed(client, "often"), 7, "hour {hour}");
    }
}

#[track_caller]
fn wait_until(mut what: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !what() {
        assert!(Instant::now() < deadline, "it does not come to pass");
        thread::sleep(Duration::from_millis(2));
    }
}

fn start_of(client: &mut Client, topic: &str) -> i64 {
    client.list_offset(topic, 0, -2).unwrap().unwrap()
}

/// Commits offset 7 of a partition, outside of any generation.
fn commit(client: &mut Client, group: &str) {
    let request = OffsetCommitRequest {
        group_id: group.into(),
        topics: vec![OffsetCommitRequestTopic {
            name: "forever".into(),
            partitions: vec![OffsetCommitRequestPartition {
                committed_offset: 7,
                ..OffsetCommitRequestPartition::default()
            }],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    };
    let answer: OffsetCommitResponse = client.call(8, &request).unwrap();
    assert_eq!(answer.topics[0].partitions[0].error_code, 0);
}

/// What a group has committed; -1 if that is gone.
fn committed(client: &mut Client, group: &str) -> i64 {
    let request = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: group.into(),
            ..OffsetFetchRequestGroup::default()
        }],
        ..OffsetFetchRequest::default()
    };
    let answer: OffsetFetchResponse = client.call(9, &request).unwrap();
    let topic = answer.groups[0].topics.first();
    topic.map_or(-1, |topic| topic.partitions[0].committed_offset)
}

fn create(client: &mut Client) {
    let day = ("retention.ms", DAY_AND_A_HALF_HOUR);
    let by_append = ("message.timestamp.type", "LogAppendTime");
    client.create("create", 1, &[EVERY_BATCH_A_SEGMENT, day]);
    client.create("append", 1, &[EVERY_BATCH_A_SEGMENT, day, by_append]);
    client.create(
        "forever",
        1,
        &[EVERY_BATCH_A_SEGMENT, ("retention.ms", "-1")],
    );
    client.create(
        LAST,
        1,
        &[EVERY_BATCH_A_SEGMENT, ("retention.ms", HALF_AN_HOUR)],
    );
}

#[test]
fn what_should_age_out_does_and_no_clock_deletes_by_itself() {
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let began = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let mut week = Week {
        shim: Shim::new(Path::new(scratch.path())).unwrap(),
        scratch,
        began_ms: began.as_millis() as i64,
        model: Model {
            hour: 0,
            time_ms: 0,
            appended: Vec::new(),
            committed_ms: 0,
        },
    };
    let (mut broker, mut client) = week.start_broker();
    create(&mut client);
    commit(&mut client, "once");
    while week.model.hour < HOURS {
        if week.model.hour % 24 == 0 {
            commit(&mut client, "often");
        }
        week.produce(&mut client);
        if restarts(week.model.hour + 1) {
            assert!(broker.stop().success());
            (broker, client) = week.start_broker();
        }
        week.model.next_hour();
        week.set_clocks();
        week.check(&mut client);
    }
    assert!(broker.stop().success());
}
