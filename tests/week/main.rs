//! A week in a minute: a broker's clocks are moved on hour by hour, and its wall clock is wrong for days, in 1970 and
//! in 2056, over stops and kills. After each hour a model says what must be there and what must be gone: what should
//! age out does (records, committed offsets, tombstones, producer ids, transactional ids, a transaction that lasts too
//! long), what should be compacted is, and no step of a clock deletes or ends anything by itself (P8).
//!
//! How an hour is known to be over for the broker: one topic's records live for half an hour. It is the last by name,
//! and all topics are looked at together, so once its log is empty every other has had its turn. What compaction has
//! done is in its checkpoint. A kill takes broker time back to what was saved, and counts the age of what the next
//! start reads anew from then on: the model looks up both. The kernel's clock, by which it stamps files, stands still
//! as far as this week is concerned.

#[path = "../common/mod.rs"]
mod common;
mod ids;
mod model;
#[path = "../support/shim.rs"]
#[allow(dead_code)] // the other tests use the rest of it
mod shim;

use common::keyed::{self, Change};
use common::producer::Client;
use common::requests;
use common::{Broker, seed};
use model::{BELIEVED_MS, LATE_MS, OFFSETS_MS, PRODUCER_IDS_MS, RETENTION_MS};
use model::{End, HALF_AN_HOUR_MS, HOUR_MS, Model, end_before};
use model::{TIMEOUT_MS, TOMBSTONES_MS, TRANSACTIONAL_IDS_MS, YOUNG_MS};
use ottla::api::offset_commit::*;
use ottla::api::offset_fetch::*;
use ottla::clock::wall_clock_ms;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shim::Shim;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

const HOURS: i64 = 7 * 24;
/// Smaller than two batches.
const EVERY_BATCH_A_SEGMENT: (&str, &str) = ("segment.bytes", "250");
const PADDING: usize = 100;
const KEYS: usize = 6;
const LAST: &str = "zulu";
/// Topics where nothing ages.
const FOREVER: [&str; 3] = ["forever", "held", "sequences"];

struct Week {
    scratch: tempfile::TempDir,
    shim: Shim,
    began_ms: i64,
    model: Model,
    rng: StdRng,
    /// A producer id that never rests for long, and its next sequence.
    busy: (i64, i32),
}

impl Week {
    fn data(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    fn start_broker(&self) -> (Broker, Client) {
        let settings = [
            "log.retention.check.interval.ms=10".into(),
            "log.segment.delete.delay.ms=0".into(),
            "log.cleaner.backoff.ms=1".into(),
            format!("offsets.retention.minutes={}", OFFSETS_MS / 60_000),
            "offsets.retention.check.interval.ms=50".into(),
            format!("producer.id.expiration.ms={PRODUCER_IDS_MS}"),
            "producer.id.expiration.check.interval.ms=5".into(),
            format!("transactional.id.expiration.ms={TRANSACTIONAL_IDS_MS}"),
            "transaction.remove.expired.transaction.cleanup.interval.ms=50".into(),
            "transaction.abort.timed.out.transaction.cleanup.interval.ms=50".into(),
            format!("transaction.max.timeout.ms={TIMEOUT_MS}"),
        ];
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let broker = Broker::start_with(&self.data(), &settings, |command| {
            command.env("RUST_LOG", "warn");
            self.shim.attach(command);
        });
        let client = Client::connect(&broker.address).unwrap();
        (broker, client)
    }

    fn restart(&mut self, broker: Broker, end: End) -> (Broker, Client) {
        match end {
            End::Stop => assert!(broker.stop().success()),
            End::Kill => broker.kill(),
        }
        let saved = fs::read_to_string(self.data().join("broker-time-checkpoint")).unwrap();
        let saved_ms: i64 = saved.lines().nth(2).unwrap().parse().unwrap();
        // Whole hours, and what the test itself took.
        let hours = (saved_ms - self.began_ms) / HOUR_MS;
        assert!(end == End::Kill || hours * HOUR_MS == self.model.time_ms);
        // All topics get their records in one turn of the writer, so one speaks for all.
        let first_read = match end {
            End::Stop => self.model.end(),
            End::Kill => self.saved_offset("recovery-point-offset-checkpoint", LAST) - 1,
        };
        self.model.restarted(hours * HOUR_MS, first_read);
        self.start_broker()
    }

    fn set_clocks(&self) {
        let clocks = self
            .shim
            .set_clocks(self.model.wall_ms(), self.model.boot_ms());
        clocks.unwrap();
    }

    /// One record to each topic, of the producer's right time; now and then a producer or a transaction begins.
    fn produce(&mut self, client: &mut Client) {
        let hour = self.model.hour;
        let change = Change {
            key: format!("{} {}", self.rng.random_range(0..KEYS), "k".repeat(PADDING)),
            value: self.rng.random_bool(0.7).then(|| hour.to_string()),
        };
        let time_ms = self.began_ms + self.model.boot_ms();
        let batch = keyed::batch(None, time_ms, std::slice::from_ref(&change));
        let ageing = self.model.ageing.iter().map(|topic| topic.name);
        let compacted = self.model.compacted.iter().map(|topic| topic.name);
        let topics = ageing.chain(compacted).chain(["forever", LAST]);
        let parts: Vec<_> = topics.map(|topic| (topic, 0, &batch[..])).collect();
        client.send_produce(-1, &parts).unwrap();
        for said in client.receive_produce().unwrap() {
            let expected = (0, self.model.end());
            assert_eq!((said.error_code, said.base_offset), expected, "hour {hour}");
        }
        self.model.append(change);
        if hour % 24 == 0 {
            commit(client, "often");
            self.use_id(client, "often");
        }
        if hour % 48 == 0 {
            self.use_id(client, &format!("of hour {hour}"));
        }
        if hour % 24 == 6 && self.model.open.is_none() {
            let me = self.use_id(client, "open");
            let first = ids::open(client, "open", "held", me, time_ms);
            self.model.open = Some((first, self.model.boot_ms() + TIMEOUT_MS));
        }
        if hour % 12 == 0 {
            let id = client.producer_id().unwrap();
            self.write_as(client, id, 0);
        }
        if hour % 6 == 0 {
            let (id, sequence) = self.busy;
            self.write_as(client, id, sequence);
            self.busy.1 += 1;
        }
    }

    fn use_id(&mut self, client: &mut Client, id: &str) -> (i64, i16) {
        self.model.use_id(id);
        ids::begin_anew(client, id, TIMEOUT_MS)
    }

    fn write_as(&mut self, client: &mut Client, id: i64, sequence: i32) {
        let batch = common::producer::batch(Some((id, sequence)), &[b"in sequence"]);
        client.produce("sequences", 0, &batch).unwrap().unwrap();
        self.model.use_producer_id(id);
    }

    fn check(&self, client: &mut Client) {
        let (model, hour) = (&self.model, self.model.hour);
        let end = model.end();
        wait_until("retention", || start_of(client, LAST) == end);
        for topic in &model.ageing {
            let start = topic.start;
            // Each log's start shows when it is saved, one after the other.
            wait_until(&format!("{}'s start, hour {hour}", topic.name), || {
                start_of(client, topic.name) == start
            });
            let (there, last) = client.fetch_from(topic.name, 0, start).unwrap();
            assert_eq!((there.len() as i64, last), (end - start, end));
        }
        for topic in FOREVER {
            assert_eq!(start_of(client, topic), 0, "{topic}, hour {hour}");
        }
        assert_eq!(client.fetch_all("forever", 0).len() as i64, end);
        match model.committed_ms {
            None => wait_until("an offset's end", || committed(client, "once") == -1),
            Some(_) => assert_eq!(committed(client, "once"), 7, "hour {hour}"),
        }
        assert_eq!(committed(client, "often"), 7, "hour {hour}");
        self.check_ids(client);
        self.check_compaction(client);
    }

    fn check_ids(&self, client: &mut Client) {
        let hour = self.model.hour;
        let end = client.list_offset("held", 0, -1).unwrap().unwrap();
        match self.model.open {
            Some((first, _)) => assert_eq!(ids::last_stable(client, "held"), first, "hour {hour}"),
            None => wait_until("a time-out", || {
                let now_end = client.list_offset("held", 0, -1).unwrap().unwrap();
                ids::last_stable(client, "held") == now_end && now_end >= end
            }),
        }
        let known = &self.model.transactional_ids;
        wait_until("a transactional.id's end", || {
            let found = ids::transactional_ids(client);
            let missing = known.keys().find(|id| !found.contains_key(*id));
            assert_eq!(missing, None, "hour {hour}");
            found.len() == known.len()
        });
        let state = ids::transactional_ids(client).remove("open");
        let is_ongoing = state.as_deref() == Some("Ongoing");
        assert_eq!(is_ongoing, self.model.open.is_some(), "hour {hour}");
        let (sure, maybe) = self.model.producer_ids();
        wait_until("a producer id's end", || {
            let found = ids::producer_ids(client, "sequences");
            let missing = sure.iter().find(|id| !found.contains(id));
            assert_eq!(missing, None, "hour {hour}");
            found
                .iter()
                .all(|id| sure.contains(id) || maybe.contains(id))
        });
    }

    /// What a reader from the start gets is what the model says, once its passes are made.
    fn check_compaction(&self, client: &mut Client) {
        for topic in &self.model.compacted {
            wait_until("compaction", || self.clean_to(topic.name) >= topic.clean_to);
            let at = format!("{}, hour {}", topic.name, self.model.hour);
            assert_eq!(self.clean_to(topic.name), topic.clean_to, "{at}");
            assert_eq!(start_of(client, topic.name), 0, "{at}");
            let (batches, _) = client.fetch_from(topic.name, 0, 0).unwrap();
            let place = |batch| (batch, keyed::changes(batch));
            let there = batches.iter().map(place).flat_map(|(batch, changes)| {
                let offset = batch.header.base_offset;
                changes.into_iter().map(move |change| (offset, change))
            });
            let there: Vec<(i64, Change)> = there.collect();
            let expected: Vec<_> = topic.present.clone().into_iter().collect();
            assert_eq!(there, expected, "{at}");
        }
    }

    /// Where the last pass over a topic ended, as the broker keeps it.
    fn clean_to(&self, topic: &str) -> i64 {
        self.saved_offset("cleaner-offset-checkpoint", topic)
    }

    /// What a file of offsets says of a topic; 0 if nothing.
    fn saved_offset(&self, file: &str, topic: &str) -> i64 {
        let text = fs::read_to_string(self.data().join(file)).unwrap_or_default();
        let line = text.lines().find_map(|line| {
            let offset = line.strip_prefix(topic)?.strip_prefix(" 0 ")?;
            offset.parse().ok()
        });
        line.unwrap_or(0)
    }
}

#[track_caller]
fn wait_until(name: &str, mut what: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !what() {
        assert!(Instant::now() < deadline, "{name} does not come to pass");
        thread::sleep(Duration::from_millis(2));
    }
}

fn start_of(client: &mut Client, topic: &str) -> i64 {
    client.list_offset(topic, 0, -2).unwrap().unwrap()
}

/// Commits offset 7 of a partition, outside of any generation.
fn commit(client: &mut Client, group: &str) {
    let request = requests::offset_commit(group, "forever", 7);
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

fn create(client: &mut Client, model: &Model) {
    let believed = BELIEVED_MS.to_string();
    let mut create = |name: &str, settings: &[(&str, String)]| {
        let settings = settings.iter().map(|(name, value)| (*name, value.as_str()));
        let all = [
            EVERY_BATCH_A_SEGMENT,
            ("message.timestamp.after.max.ms", &believed),
        ];
        let settings: Vec<_> = settings.chain(all).collect();
        client.create(name, 1, &settings);
    };
    let by_append = || ("message.timestamp.type", "LogAppendTime".to_owned());
    let retention = |ms: i64| ("retention.ms", ms.to_string());
    for topic in &model.ageing {
        let mut settings = vec![retention(RETENTION_MS)];
        settings.extend(topic.by_append.then(by_append));
        create(topic.name, &settings);
    }
    FOREVER
        .iter()
        .for_each(|name| create(name, &[retention(-1)]));
    create(LAST, &[retention(HALF_AN_HOUR_MS), by_append()]);
    for topic in &model.compacted {
        let when = match topic.when {
            model::When::AtOnce => ("min.compaction.lag.ms", 0),
            model::When::NotBefore(_) => ("min.compaction.lag.ms", YOUNG_MS),
            model::When::OnlyAfter(_) => ("max.compaction.lag.ms", LATE_MS),
        };
        let ratio = matches!(topic.when, model::When::OnlyAfter(_));
        create(
            topic.name,
            &[
                ("cleanup.policy", "compact".into()),
                ("delete.retention.ms", TOMBSTONES_MS.to_string()),
                (when.0, when.1.to_string()),
                ("min.cleanable.dirty.ratio", i32::from(ratio).to_string()),
            ],
        );
    }
}

#[test]
fn what_should_age_out_does_and_no_clock_deletes_by_itself() {
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut week = Week {
        shim: Shim::new(scratch.path()).unwrap(),
        scratch,
        began_ms: wall_clock_ms(),
        model: Model::new(),
        rng: StdRng::seed_from_u64(seed("week")),
        busy: (0, 0),
    };
    let (mut broker, mut client) = week.start_broker();
    create(&mut client, &week.model);
    week.busy.0 = client.producer_id().unwrap();
    commit(&mut client, "once");
    while week.model.hour < HOURS {
        week.produce(&mut client);
        week.check_compaction(&mut client);
        if let Some(end) = end_before(week.model.hour + 1) {
            (broker, client) = week.restart(broker, end);
        }
        week.model.next_hour();
        week.set_clocks();
        week.check(&mut client);
    }
    assert!(broker.stop().success());
}
