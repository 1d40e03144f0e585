//! The registry of groups: order, refusals, memory, age, and whether memory is what the log says.

use super::*;
use crate::api::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};
use crate::api::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use crate::api::offset_delete::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use crate::api::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
    OffsetFetchResponsePartitions,
};
use crate::config::Config;
use crate::group::{Read, Told};
use crate::wire::Uuid;

#[path = "groups_tests/hostile.rs"]
mod hostile;
#[path = "groups_tests/property.rs"]
mod property;
#[path = "groups_tests/transactions.rs"]
mod transactions;

/// Groups, what became of their records, and the clocks.
struct Scene {
    groups: Groups<u32>,
    config: Config,
    catalog: crate::catalog::State,
    now_ms: i64,
    time_ms: i64,
    next_waiter: u32,
    under_way: Vec<(u64, Vec<Record>, Option<i64>)>,
    log: Vec<Logged>,
    /// The log's next offset.
    end: i64,
    answers: Vec<(u32, Response)>,
}

/// What is in the log, at its offset: a record, perhaps of a producer's transaction, or the end of one.
#[derive(Clone)]
enum Logged {
    Record(i64, Box<Record>, Option<i64>),
    Marker(i64, bool),
}

/// The log's partition, where each group's records and markers are.
const PARTITION: i32 = 3;

const MINUTE: i64 = 60_000;
const WEEK: i64 = 10_080 * MINUTE;

impl Scene {
    fn new() -> Scene {
        let mut scene = Scene {
            groups: Groups::default(),
            config: Config::default(),
            catalog: Default::default(),
            now_ms: 1_000,
            time_ms: 1_700_000_000_000,
            next_waiter: 0,
            under_way: Vec::new(),
            log: Vec::new(),
            end: 0,
            answers: Vec::new(),
        };
        scene.with(|groups, env| groups.loaded(env));
        scene
    }

    fn with(&mut self, act: impl FnOnce(&mut Groups<u32>, &Env<'_>)) {
        let env = Env {
            now_ms: self.now_ms,
            time_ms: self.time_ms,
            config: &self.config,
            catalog: &self.catalog,
            new_id: &|| Uuid([7; 16]),
        };
        act(&mut self.groups, &env);
        for effect in self.groups.take_effects() {
            match effect {
                Effect::Append {
                    token,
                    records,
                    transaction,
                    ..
                } => {
                    let producer_id = transaction.map(|of| of.producer_id);
                    self.under_way.push((token, records, producer_id));
                }
                Effect::Answer(waiter, response) => self.answers.push((waiter, response)),
            }
        }
    }

    fn ask(&mut self, request: Request) -> u32 {
        self.next_waiter += 1;
        let asker = Asker {
            version: 9,
            client_id: "c".into(),
            client_host: "/h".into(),
            waiter: self.next_waiter,
        };
        self.with(|groups, env| groups.ask(request, asker, env));
        self.next_waiter
    }

    /// The oldest append is synced, or refused.
    fn settle(&mut self, result: Result<(), ErrorCode>) {
        let (token, records, producer_id) = self.under_way.remove(0);
        let base_offset = self.end;
        if result.is_ok() {
            for (record, at) in records.into_iter().zip(base_offset..) {
                self.log
                    .push(Logged::Record(at, Box::new(record), producer_id));
                self.end = at + 1;
            }
        }
        let result = result.map(|()| base_offset);
        self.with(|groups, env| groups.committed(token, result, env));
    }

    /// The marker of a producer's transaction is synced, and all that was on its way before it.
    fn end(&mut self, producer_id: i64, commit: bool) {
        while !self.under_way.is_empty() {
            self.settle(Ok(()));
        }
        self.log.push(Logged::Marker(producer_id, commit));
        self.end += 1;
        self.with(|groups, env| groups.end_transaction(producer_id, PARTITION, commit, env));
    }

    fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
        self.time_ms += ms;
        self.with(|groups, env| groups.tick(env));
    }

    fn answer_to(&self, waiter: u32) -> Option<&Response> {
        let mut to = self.answers.iter().filter(|(to, _)| *to == waiter);
        let first = to.next().map(|(_, response)| response);
        assert_eq!(to.next(), None, "answered twice");
        first
    }

    fn offsets(&mut self, group: &str) -> Vec<(String, i32, i64)> {
        let all = self.fetch(group, None);
        let flat = all.into_iter().map(|(topic, told)| {
            assert_eq!(told.error_code, 0);
            (topic, told.partition_index, told.committed_offset)
        });
        flat.collect()
    }

    /// What a consumer gets to know, which reads stable offsets only.
    fn fetch(
        &mut self,
        group: &str,
        topics: Option<Vec<OffsetFetchRequestTopics>>,
    ) -> Vec<(String, OffsetFetchResponsePartitions)> {
        let request = OffsetFetchRequest {
            require_stable: topics.is_some(),
            groups: vec![OffsetFetchRequestGroup {
                group_id: group.into(),
                topics,
                ..OffsetFetchRequestGroup::default()
            }],
            ..OffsetFetchRequest::default()
        };
        let waiter = self.ask(Request::Read(Read::Offsets(request, 9)));
        let Some(Response::Offsets(told)) = self.answer_to(waiter) else {
            panic!("a read is answered at once")
        };
        let topics = told.groups[0].topics.iter();
        let flat = topics.flat_map(|topic| {
            let partitions = topic.partitions.iter();
            partitions.map(|told| (topic.name.clone(), told.clone()))
        });
        flat.collect()
    }

    /// How many groups and offsets there are.
    fn counts(&self) -> (usize, usize) {
        let slots = &self.groups.slots;
        (
            slots.len(),
            slots.values().map(|slot| slot.offsets.len()).sum(),
        )
    }

    /// What a start would make of the log.
    fn reloaded(&self) -> Scene {
        let mut again = Scene::new();
        again.time_ms = self.time_ms;
        for logged in self.log.clone() {
            again.with(|groups, env| match logged {
                Logged::Record(at, record, producer_id) => {
                    let transaction = producer_id.map(|id| (id, PARTITION));
                    groups.replay(*record, at, transaction, env);
                }
                Logged::Marker(id, commit) => groups.end_transaction(id, PARTITION, commit, env),
            });
        }
        again.with(|groups, env| groups.loaded(env));
        again
    }
}

fn commit(group: &str, topic: &str, index: i32, offset: i64) -> Request {
    Request::Commit(request(group, topic, index, offset), None)
}

fn request(group: &str, topic: &str, index: i32, offset: i64) -> OffsetCommitRequest {
    OffsetCommitRequest {
        group_id: group.into(),
        topics: vec![OffsetCommitRequestTopic {
            name: topic.into(),
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: index,
                committed_offset: offset,
                ..OffsetCommitRequestPartition::default()
            }],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    }
}

fn is_refused(response: Option<&Response>) -> bool {
    let Some(Response::Commit(response)) = response else {
        return false;
    };
    let code = response.topics[0].partitions[0].error_code;
    code == ErrorCode::CoordinatorNotAvailable.code()
}

#[test]
fn commits_go_side_by_side_and_a_deletion_waits_for_them() {
    let mut scene = Scene::new();
    let first = scene.ask(commit("g", "t", 0, 1));
    let second = scene.ask(commit("g", "t", 0, 2));
    let deletion = scene.ask(Request::Delete("g".into()));
    let third = scene.ask(commit("g", "t", 0, 3));
    assert_eq!(scene.under_way.len(), 2);
    assert_eq!(scene.offsets("g"), []);
    scene.settle(Ok(()));
    assert!(scene.answer_to(first).is_some());
    assert_eq!(scene.under_way.len(), 1);
    scene.settle(Ok(()));
    assert!(scene.answer_to(second).is_some());
    assert_eq!(scene.offsets("g"), [("t".into(), 0, 2)]);
    scene.settle(Ok(()));
    let gone = Response::Deleted(ErrorCode::None);
    assert_eq!(scene.answer_to(deletion), Some(&gone));
    scene.settle(Ok(()));
    assert!(scene.answer_to(third).is_some());
    assert_eq!(scene.offsets("g"), [("t".into(), 0, 3)]);
}

#[test]
fn what_is_refused_was_never_there() {
    let mut scene = Scene::new();
    let lost = scene.ask(commit("g", "t", 0, 1));
    scene.settle(Err(ErrorCode::KafkaStorageError));
    assert!(is_refused(scene.answer_to(lost)));
    assert_eq!(scene.offsets("g"), []);
    assert_eq!(scene.counts(), (0, 0), "nothing is left of it");
}

fn join(group: &str, session_timeout_ms: i32) -> Request {
    Request::Member(Box::new(Ask::Join(JoinGroupRequest {
        group_id: group.into(),
        group_instance_id: Some("i".into()),
        session_timeout_ms,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".into(),
            metadata: vec![0; 1000],
        }],
        ..JoinGroupRequest::default()
    })))
}

/// A member whose join waits, a commit on its way, and what waits for that: none of them is left without an answer,
/// and nothing is written into a log that is made anew.
#[test]
fn everyone_is_answered_when_the_log_of_groups_is_deleted() {
    let mut scene = Scene::new();
    let joining = scene.ask(join("g", 10_000));
    let on_its_way = scene.ask(commit("h", "t", 0, 1));
    let deletion = scene.ask(Request::Delete("h".into()));
    let behind = scene.ask(commit("h", "t", 0, 2));
    scene.with(|groups, _| groups.forget_all());
    for waiter in [joining, on_its_way, deletion, behind] {
        assert!(scene.answer_to(waiter).is_some(), "{waiter}");
    }
    assert_eq!(scene.under_way.len(), 1, "nothing more is to be written");
    scene.settle(Ok(()));
    assert_eq!((scene.groups.slots.len(), scene.groups.bytes), (0, 0));
    assert!(scene.offsets("h").is_empty());
}

/// FACTS: expiry counts from when the group became empty; a group of offsets alone, from each commit.
#[test]
fn offsets_are_forgotten_a_retention_after_their_commit_and_no_sooner() {
    let mut scene = Scene::new();
    scene.ask(commit("g", "t", 0, 1));
    scene.settle(Ok(()));
    scene.pass(WEEK - MINUTE);
    assert!(scene.under_way.is_empty());
    scene.ask(commit("g", "t", 1, 1));
    scene.settle(Ok(()));
    scene.pass(10 * MINUTE);
    scene.settle(Ok(()));
    assert_eq!(scene.offsets("g"), [("t".into(), 1, 1)]);
    scene.pass(WEEK);
    scene.settle(Ok(()));
    assert_eq!(scene.counts(), (0, 0));
    assert_eq!(scene.reloaded().counts(), (0, 0));
}

#[test]
fn the_brokers_retention_and_its_interval_count() {
    let mut scene = Scene::new();
    scene.config.offsets_retention_minutes = 2;
    scene.config.offsets_retention_check_interval_ms = 5 * MINUTE;
    scene.ask(commit("g", "t", 0, 1));
    scene.settle(Ok(()));
    // The first check was arranged before the interval changed.
    scene.pass(10 * MINUTE);
    scene.settle(Ok(()));
    assert_eq!(scene.offsets("g"), []);
    scene.ask(commit("g", "t", 0, 1));
    scene.settle(Ok(()));
    scene.pass(4 * MINUTE);
    assert!(scene.under_way.is_empty(), "not looked at yet");
    scene.pass(MINUTE);
    scene.settle(Ok(()));
    assert_eq!(scene.offsets("g"), []);
}

/// P8: only broker time ages an offset; sessions' clock alone, or a start, does not.
#[test]
fn a_clock_jump_expires_nothing() {
    let mut scene = Scene::new();
    scene.ask(commit("g", "t", 0, 1));
    scene.settle(Ok(()));
    scene.now_ms += 100 * WEEK;
    scene.pass(MINUTE);
    assert!(scene.under_way.is_empty());
    let mut again = scene.reloaded();
    again.pass(20 * MINUTE);
    assert!(again.under_way.is_empty());
    assert_eq!(again.offsets("g"), [("t".into(), 0, 1)]);
}

/// A premature answer that nothing is committed would reset consumers: what cannot be read is not empty.
#[test]
fn groups_that_could_not_be_read_answer_nobody() {
    let mut scene = Scene::new();
    scene.with(|groups, _| groups.close());
    let unavailable = ErrorCode::CoordinatorNotAvailable.code();
    let commit = scene.ask(commit("g", "t", 0, 1));
    assert!(is_refused(scene.answer_to(commit)));
    for version in [1, 7, 8] {
        let request = OffsetFetchRequest {
            group_id: "g".into(),
            topics: Some(vec![OffsetFetchRequestTopic {
                name: "t".into(),
                partition_indexes: vec![0],
            }]),
            groups: vec![OffsetFetchRequestGroup::default()],
            ..OffsetFetchRequest::default()
        };
        let waiter = scene.ask(Request::Read(Read::Offsets(request, version)));
        let Some(Response::Offsets(told)) = scene.answer_to(waiter) else {
            panic!("a read is answered at once")
        };
        assert_eq!(told.error_code, unavailable);
        assert_eq!(told.groups[0].error_code, unavailable);
        let partitions = told.topics.iter().flat_map(|topic| &topic.partitions);
        let codes: Vec<i16> = partitions.map(|partition| partition.error_code).collect();
        assert_eq!(codes, vec![unavailable; usize::from(version == 1)]);
    }
    let list = scene.ask(Request::Read(Read::List(Default::default())));
    let Some(Response::List(told)) = scene.answer_to(list) else {
        panic!("a read is answered at once")
    };
    assert_eq!(told.error_code, unavailable);
}

#[test]
fn an_old_clients_own_retention_counts() {
    let mut scene = Scene::new();
    let Request::Commit(mut request, _) = commit("g", "t", 0, 1) else {
        unreachable!()
    };
    request.retention_time_ms = 5 * MINUTE;
    scene.ask(Request::Commit(request, None));
    scene.settle(Ok(()));
    scene.pass(10 * MINUTE);
    scene.settle(Ok(()));
    assert_eq!(scene.offsets("g"), []);
}

/// P7: what groups remember is bounded; what is there already can still be written anew.
#[test]
fn growth_beyond_the_memory_of_groups_is_refused() {
    let mut scene = Scene::new();
    scene.config.group_state_bytes_max = 65_536;
    let code = |scene: &Scene, waiter| match scene.answer_to(waiter) {
        Some(Response::Commit(told)) => told.topics[0].partitions[0].error_code,
        other => panic!("{other:?}"),
    };
    let mut count = 0;
    let refused = loop {
        let waiter = scene.ask(commit("g", "t", count, 1));
        match scene.under_way.is_empty() {
            true => break code(&scene, waiter),
            false => scene.settle(Ok(())),
        }
        count += 1;
    };
    assert_eq!(refused, ErrorCode::InvalidCommitOffsetSize.code());
    assert!((300..600).contains(&count), "{count}");
    let member = scene.ask(Request::Member(Box::new(Ask::Join(JoinGroupRequest {
        group_id: "h".into(),
        session_timeout_ms: 10_000,
        member_id: String::new(),
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".into(),
            metadata: vec![0; 1000],
        }],
        ..JoinGroupRequest::default()
    }))));
    let Some(Response::Member(Told::Join(told))) = scene.answer_to(member) else {
        panic!("a join that is refused is answered at once")
    };
    assert_eq!(told.error_code, ErrorCode::GroupMaxSizeReached.code());
    let again = scene.ask(commit("g", "t", 0, 2));
    scene.settle(Ok(()));
    assert_eq!(code(&scene, again), 0);
    scene.ask(Request::Delete("g".into()));
    scene.settle(Ok(()));
    assert_eq!((scene.counts(), scene.groups.bytes), ((0, 0), 0));
}
