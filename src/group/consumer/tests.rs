//! Kafka's behavior, case by case; `property.rs` and `mixed.rs` have what must hold of all cases.

mod checks;
mod gaps;
mod migration;
mod patterns;

use super::*;
use crate::api::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, TopicPartitions,
};
use crate::catalog::State;
use crate::config::Config;
use crate::group::Asker;
use crate::wire::Uuid;
use crate::wire::metadata_records::{
    MetadataRecord, PartitionRecord, RemoveTopicRecord, TopicRecord,
};
use std::cell::Cell;

/// A group and all around it; every step's records are committed.
struct Bench {
    group: ConsumerGroup,
    log: Vec<Record>,
    config: Config,
    catalog: State,
    now_ms: i64,
    ids: Cell<u8>,
}

/// Calls with what steps may look at.
fn with_env<T>(bench: &Bench, call: impl FnOnce(&Env<'_>) -> T) -> T {
    let new_id = || {
        bench.ids.set(bench.ids.get() + 1);
        Uuid([bench.ids.get(); 16])
    };
    call(&Env {
        now_ms: bench.now_ms,
        time_ms: 1_000_000 + bench.now_ms,
        config: &bench.config,
        catalog: &bench.catalog,
        new_id: &new_id,
    })
}

fn topic_id(name: &str) -> Uuid {
    Uuid([name.as_bytes()[0]; 16])
}

impl Bench {
    /// With topics `a` of 4 and `b` of 2 partitions.
    fn new() -> Bench {
        let mut bench = Bench {
            group: ConsumerGroup::new("g"),
            log: Vec::new(),
            config: Config::default(),
            catalog: State::default(),
            now_ms: 1_000,
            ids: Cell::new(0),
        };
        bench.make("a", 4);
        bench.make("b", 2);
        bench
    }

    /// Makes a topic, or widens it.
    fn make(&mut self, name: &str, partitions: i32) {
        let topic_id = topic_id(name);
        let known = self.catalog.topics.get(name);
        let first = known.map_or(0, |topic| topic.leader_epochs.len() as i32);
        if first == 0 {
            let name = name.to_owned();
            let topic = MetadataRecord::Topic(TopicRecord { name, topic_id });
            self.catalog.apply(&topic);
        }
        for partition_id in first..partitions {
            self.catalog
                .apply(&MetadataRecord::Partition(PartitionRecord {
                    partition_id,
                    topic_id,
                    ..PartitionRecord::default()
                }));
        }
    }

    fn delete(&mut self, name: &str) {
        let topic_id = topic_id(name);
        self.catalog
            .apply(&MetadataRecord::RemoveTopic(RemoveTopicRecord { topic_id }));
    }

    fn step(&mut self, event: Event<()>) -> (Vec<Told>, usize) {
        let mut effects = Effects::default();
        let mut group = self.group.clone();
        with_env(self, |env| group.step(event, env, &mut effects));
        self.group = group;
        let records = effects.records.len();
        self.log.append(&mut effects.records);
        (
            effects.told.into_iter().map(|(_, told)| told).collect(),
            records,
        )
    }

    fn ask(&mut self, ask: Ask, version: i16) -> Told {
        let (mut told, _) = self.step(Event::Asked(Box::new(ask), asker(version)));
        assert_eq!(told.len(), 1);
        match told.remove(0) {
            Told::LookUp(look_up) => {
                let (request, found) = look_up.run();
                self.ask(Ask::ConsumerHeartbeat(request, found), version)
            }
            told => told,
        }
    }

    fn send(&mut self, request: ConsumerGroupHeartbeatRequest) -> ConsumerGroupHeartbeatResponse {
        match self.ask(Ask::ConsumerHeartbeat(request, Found::default()), 1) {
            Told::ConsumerHeartbeat(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    /// A member joins that reads `a`, and is not refused.
    fn join(&mut self, id: &str) -> ConsumerGroupHeartbeatResponse {
        let answer = self.send(joining(id));
        assert_eq!(answer.error_code, 0, "{answer:?}");
        answer
    }

    /// A plain sign of life.
    fn beat(&mut self, id: &str, epoch: i32) -> ConsumerGroupHeartbeatResponse {
        self.send(alive(id, epoch))
    }

    /// A heartbeat that says which partitions of `a` the member has.
    fn owns(&mut self, id: &str, epoch: i32, partitions: &[i32]) -> ConsumerGroupHeartbeatResponse {
        self.send(ConsumerGroupHeartbeatRequest {
            topic_partitions: Some(of_a(partitions)),
            ..alive(id, epoch)
        })
    }

    fn fire(&mut self) {
        self.now_ms = self.group.due_ms().unwrap();
        self.step(Event::Due);
    }

    fn describe(&self) -> describe::DescribedGroup {
        with_env(self, |env| self.group.describe(env))
    }

    /// The group as it is after a restart.
    fn replayed(&self) -> ConsumerGroup {
        let mut group = ConsumerGroup::new("g");
        self.log.iter().for_each(|record| group.replay(record));
        with_env(self, |env| group.loaded(env));
        group
    }
}

fn asker(version: i16) -> Asker<()> {
    Asker {
        version,
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        waiter: (),
    }
}

fn alive(id: &str, epoch: i32) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: "g".to_owned(),
        member_id: id.to_owned(),
        member_epoch: epoch,
        rebalance_timeout_ms: -1,
        ..ConsumerGroupHeartbeatRequest::default()
    }
}

fn joining(id: &str) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        rebalance_timeout_ms: 10_000,
        subscribed_topic_names: Some(vec!["a".to_owned()]),
        topic_partitions: Some(Vec::new()),
        ..alive(id, 0)
    }
}

fn of_a(partitions: &[i32]) -> Vec<TopicPartitions> {
    let topic = TopicPartitions {
        topic_id: topic_id("a"),
        partitions: partitions.to_vec(),
    };
    [topic]
        .into_iter()
        .filter(|topic| !topic.partitions.is_empty())
        .collect()
}

fn given(answer: &ConsumerGroupHeartbeatResponse) -> Option<&[TopicPartitions]> {
    let assignment = answer.assignment.as_ref();
    assignment.map(|assignment| &*assignment.topic_partitions)
}

fn code(answer: &ConsumerGroupHeartbeatResponse) -> i16 {
    answer.error_code
}

#[test]
fn the_first_heartbeat_makes_the_group_and_gives_all() {
    let mut bench = Bench::new();
    assert!(bench.group.is_vacant());
    let answer = bench.join("m");
    assert_eq!(
        (answer.member_epoch, answer.heartbeat_interval_ms),
        (1, 5_000)
    );
    assert_eq!(given(&answer), Some(&*of_a(&[0, 1, 2, 3])));
    let kinds = bench.log.iter().map(|record| match record {
        Record::Member(..) => "member",
        Record::ConsumerGroup(..) => "epoch",
        Record::TargetMember(..) => "target",
        Record::TargetEpoch(..) => "target epoch",
        Record::Current(..) => "current",
        _ => "other",
    });
    assert_eq!(
        kinds.collect::<Vec<_>>(),
        ["member", "epoch", "target", "target epoch", "current"]
    );
    let described = bench.describe();
    assert_eq!(
        (&*described.group_state, &*described.assignor_name),
        ("Stable", "uniform")
    );
    assert_eq!(described.members[0].member_type, 1);
    assert_eq!(
        described.members[0].assignment.topic_partitions[0].topic_name,
        "a"
    );
}

#[test]
fn a_heartbeat_without_news_writes_nothing_and_tells_nothing() {
    let mut bench = Bench::new();
    bench.join("m");
    let event = Event::Asked(
        Box::new(Ask::ConsumerHeartbeat(alive("m", 1), Found::default())),
        asker(1),
    );
    let (told, records) = bench.step(event);
    assert_eq!(records, 0);
    let [Told::ConsumerHeartbeat(answer)] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(
        (answer.error_code, answer.member_epoch, given(answer)),
        (0, 1, None)
    );
    // Asked for everything, it says everything.
    let answer = bench.send(ConsumerGroupHeartbeatRequest {
        topic_partitions: Some(of_a(&[0, 1, 2, 3])),
        ..ConsumerGroupHeartbeatRequest {
            member_epoch: 1,
            ..joining("m")
        }
    });
    assert!(given(&answer).is_some());
}

#[test]
fn a_partition_is_given_up_before_another_gets_it() {
    let mut bench = Bench::new();
    bench.join("m");
    let second = bench.join("n");
    assert_eq!((second.member_epoch, given(&second)), (2, Some(&[][..])));
    assert_eq!(bench.group.state_name(), "Reconciling");
    let told = bench.beat("m", 1);
    assert_eq!(
        (told.member_epoch, given(&told)),
        (1, Some(&*of_a(&[0, 1])))
    );
    assert_eq!(given(&bench.beat("n", 2)), None, "not free yet");
    assert_eq!(
        bench.owns("m", 1, &[0, 1, 2]).member_epoch,
        1,
        "not all given up"
    );
    let done = bench.owns("m", 1, &[0, 1]);
    assert_eq!((done.member_epoch, given(&done)), (2, None));
    assert_eq!(given(&bench.beat("n", 2)), Some(&*of_a(&[2, 3])));
    assert_eq!(bench.group.state_name(), "Stable");
}

#[test]
fn topics_that_change_raise_the_epoch_at_the_next_heartbeat() {
    let mut bench = Bench::new();
    bench.join("m");
    bench.make("c", 1);
    assert_eq!(bench.beat("m", 1).member_epoch, 1, "not its own");
    bench.make("a", 5);
    let answer = bench.beat("m", 1);
    assert_eq!(
        (answer.member_epoch, given(&answer)),
        (2, Some(&*of_a(&[0, 1, 2, 3, 4])))
    );
    bench.delete("a");
    let answer = bench.owns("m", 2, &[]);
    assert_eq!((answer.member_epoch, given(&answer)), (3, Some(&[][..])));
}

#[test]
fn a_restart_changes_nothing() {
    let mut bench = Bench::new();
    bench.join("m");
    bench.join("n");
    bench.beat("m", 1);
    let (before, group) = (bench.describe(), bench.replayed());
    assert_eq!(
        group.due_ms(),
        Some(bench.now_ms + 10_000),
        "m has to give up in time"
    );
    bench.group = group;
    assert_eq!(bench.describe(), before);
    assert_eq!(bench.owns("m", 1, &[0, 1]).member_epoch, 2);
    let tombstones = bench.group.tombstones();
    bench.log.extend(tombstones);
    assert!(bench.replayed().is_vacant());
}

#[test]
fn the_assignor_that_most_ask_for_is_taken() {
    let mut bench = Bench::new();
    let asking = |id: &str, name: &str| ConsumerGroupHeartbeatRequest {
        server_assignor: Some(name.to_owned()),
        ..joining(id)
    };
    bench.send(asking("m", "range"));
    assert_eq!(bench.describe().assignor_name, "range");
    bench.send(asking("n", "uniform"));
    assert_eq!(
        bench.describe().assignor_name,
        "uniform",
        "the first of equals"
    );
    bench.send(asking("o", "range"));
    assert_eq!(bench.describe().assignor_name, "range");
}

#[test]
fn silence_and_tardiness_end_a_membership() {
    let mut bench = Bench::new();
    bench.join("m");
    bench.join("n");
    assert_eq!(bench.group.due_ms(), Some(bench.now_ms + 45_000));
    bench.beat("m", 1);
    assert_eq!(bench.group.due_ms(), Some(bench.now_ms + 10_000));
    bench.fire();
    assert_eq!(code(&bench.beat("m", 1)), ErrorCode::UnknownMemberId.code());
    assert_eq!(bench.group.state_name(), "Assigning");
    let answer = bench.beat("n", 2);
    assert_eq!(
        (answer.member_epoch, given(&answer)),
        (3, Some(&*of_a(&[0, 1, 2, 3])))
    );
    bench.fire();
    assert_eq!(bench.group.state_name(), "Empty");
    assert_eq!(
        (bench.describe().group_epoch, bench.group.due_ms()),
        (4, None)
    );
    assert_eq!(bench.join("o").member_epoch, 5);
}

#[test]
fn a_static_member_comes_back_under_another_id_and_keeps_its_partitions() {
    let mut bench = Bench::new();
    let named = |request: ConsumerGroupHeartbeatRequest| ConsumerGroupHeartbeatRequest {
        instance_id: Some("i".to_owned()),
        ..request
    };
    bench.send(named(joining("m")));
    let unreleased = bench.send(named(joining("n")));
    assert_eq!(code(&unreleased), ErrorCode::UnreleasedInstanceId.code());
    let away = bench.send(named(alive("m", -2)));
    assert_eq!((code(&away), away.member_epoch), (0, -2));
    let back = bench.send(named(joining("n")));
    assert_eq!(
        (back.member_epoch, given(&back)),
        (1, Some(&*of_a(&[0, 1, 2, 3])))
    );
    assert_eq!(bench.replayed().members.len(), 1);
    let fenced = bench.send(named(alive("m", 1)));
    assert_eq!(code(&fenced), 82, "FENCED_INSTANCE_ID");
    assert_eq!(
        fenced.error_message.unwrap(),
        "Static member m with instance id i was fenced by member n."
    );
    bench.send(named(alive("n", -2)));
    bench.fire();
    assert_eq!(
        bench.group.state_name(),
        "Empty",
        "it did not come back in time"
    );
}
