//! Kafka's behaviors of the classic protocol, one test each; here is what they share.

mod joining;
mod lasting;
mod leaving;
mod named;
mod rebalancing;

use super::ClassicGroup;
use crate::api::heartbeat::HeartbeatRequest;
use crate::api::join_group::{JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse};
use crate::api::leave_group::{LeaveGroupRequest, LeaveGroupResponse};
use crate::api::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse};
use crate::catalog::State;
use crate::config::Config;
use crate::error::ErrorCode;
use crate::group::records::{GroupMetadataValue, Record};
use crate::group::{Ask, Asker, Effects, Env, Event, Told};
use crate::wire::Uuid;
use std::cell::Cell;
use std::collections::HashMap;

const SESSION_MS: i32 = 10_000;
const REBALANCE_MS: i32 = 60_000;
const DELAY_MS: i64 = 3_000;

/// A group, a clock that the test turns, and every answer by the number of its request.
struct Bench {
    group: ClassicGroup<usize>,
    config: Config,
    now_ms: i64,
    ids: Cell<u128>,
    asked: usize,
    told: HashMap<usize, Told>,
    records: Vec<Record>,
}

/// A join of a consumer that knows `range`, and says `metadata` to it.
fn join(member_id: &str, metadata: &str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: "group".to_owned(),
        session_timeout_ms: SESSION_MS,
        rebalance_timeout_ms: REBALANCE_MS,
        member_id: member_id.to_owned(),
        protocol_type: "consumer".to_owned(),
        protocols: protocols(&["range"], metadata),
        ..JoinGroupRequest::default()
    }
}

fn protocols(names: &[&str], metadata: &str) -> Vec<JoinGroupRequestProtocol> {
    let known = names.iter().map(|name| JoinGroupRequestProtocol {
        name: name.to_string(),
        metadata: metadata.as_bytes().to_owned(),
    });
    known.collect()
}

/// A join of a static member.
fn named_join(name: &str, member_id: &str, metadata: &str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_instance_id: Some(name.to_owned()),
        ..join(member_id, metadata)
    }
}

fn sync(member_id: &str, generation: i32, parts: &[(&str, &str)]) -> SyncGroupRequest {
    let parts = parts.iter().map(|(id, part)| SyncGroupRequestAssignment {
        member_id: id.to_string(),
        assignment: part.as_bytes().to_owned(),
    });
    SyncGroupRequest {
        group_id: "group".to_owned(),
        generation_id: generation,
        member_id: member_id.to_owned(),
        assignments: parts.collect(),
        ..SyncGroupRequest::default()
    }
}

impl Bench {
    fn new() -> Bench {
        Bench::of("group", Config::default())
    }

    fn of(id: &str, config: Config) -> Bench {
        Bench {
            group: env(&config, 0, &|| Uuid::ZERO, |env| ClassicGroup::new(id, env)),
            config,
            now_ms: 0,
            ids: Cell::new(0),
            asked: 0,
            told: HashMap::new(),
            records: Vec::new(),
        }
    }

    fn step(&mut self, event: Event<usize>) {
        let mut effects = Effects::default();
        let new_id = || {
            self.ids.set(self.ids.get() + 1);
            Uuid(self.ids.get().to_be_bytes())
        };
        let group = &mut self.group;
        env(&self.config, self.now_ms, &new_id, |env| {
            group.step(event, env, &mut effects);
        });
        self.records.extend(effects.records);
        for (waiter, told) in effects.told {
            assert!(self.told.insert(waiter, told).is_none(), "answered twice");
        }
    }

    fn ask(&mut self, version: i16, ask: Ask) -> usize {
        self.asked += 1;
        let asker = Asker {
            version,
            client_id: "client".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
            waiter: self.asked,
        };
        self.step(Event::Asked(Box::new(ask), asker));
        self.asked
    }

    /// The clock goes on, and whatever is due meanwhile happens when it is due.
    fn pass(&mut self, ms: i64) {
        let until_ms = self.now_ms + ms;
        while let Some(due_ms) = self.group.due_ms().filter(|due_ms| *due_ms <= until_ms) {
            self.now_ms = due_ms;
            self.step(Event::Due);
        }
        self.now_ms = until_ms;
    }

    fn join(&mut self, request: JoinGroupRequest) -> usize {
        self.ask(9, Ask::Join(request))
    }

    /// Joins and takes the id that it is given; gives that id and the number of the second join.
    fn come(&mut self, metadata: &str) -> (String, usize) {
        let first = self.join(join("", metadata));
        let id = self.joined(first).member_id;
        (id.clone(), self.join(join(&id, metadata)))
    }

    fn joined(&self, asked: usize) -> JoinGroupResponse {
        match &self.told[&asked] {
            Told::Join(response) => response.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn sync(&mut self, request: SyncGroupRequest) -> usize {
        self.ask(3, Ask::Sync(request))
    }

    fn synced(&self, asked: usize) -> SyncGroupResponse {
        match &self.told[&asked] {
            Told::Sync(response) => response.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn heartbeat(&mut self, member_id: &str, generation: i32) -> i16 {
        let asked = self.ask(
            4,
            Ask::Heartbeat(HeartbeatRequest {
                group_id: "group".to_owned(),
                generation_id: generation,
                member_id: member_id.to_owned(),
                group_instance_id: None,
            }),
        );
        match &self.told[&asked] {
            Told::Heartbeat(response) => response.error_code,
            other => panic!("{other:?}"),
        }
    }

    fn leave(&mut self, version: i16, request: LeaveGroupRequest) -> LeaveGroupResponse {
        let asked = self.ask(version, Ask::Leave(request));
        match &self.told[&asked] {
            Told::Leave(response) => response.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn check_commit(&mut self, id: &str, name: Option<&str>, generation: i32) -> i16 {
        let group = &mut self.group;
        let checked = env(&self.config, self.now_ms, &|| Uuid::ZERO, |env| {
            group.check_commit(id, name, generation, env)
        });
        checked.err().unwrap_or(ErrorCode::None).code()
    }

    /// The broker is restarted: what was recorded last is what there is.
    fn restart(&mut self) {
        let last = self.recorded();
        self.group = env(&self.config, self.now_ms, &|| Uuid::ZERO, |env| {
            ClassicGroup::replay("group", &last, env)
        });
    }

    /// The last record, as it is read from the log.
    fn recorded(&self) -> GroupMetadataValue {
        let (key, value) = self.records.last().unwrap().encode();
        match Record::decode(&key, value.as_deref()).unwrap() {
            Some(Record::Group(id, Some(value))) if id == "group" => value,
            other => panic!("{other:?}"),
        }
    }

    fn state(&self) -> &'static str {
        self.group.state_name()
    }

    /// A stable group of two: the leader's id and the other's, who have `one` and `two`, in generation 1.
    fn of_two() -> (Bench, String, String) {
        let mut bench = Bench::new();
        let (leader, _) = bench.come("a");
        let (other, _) = bench.come("b");
        bench.pass(2 * DELAY_MS);
        assert_eq!(bench.group.generation(), 1);
        bench.sync(sync(&other, 1, &[]));
        bench.sync(sync(&leader, 1, &[(&leader, "one"), (&other, "two")]));
        assert_eq!(bench.state(), "Stable");
        (bench, leader, other)
    }
}

fn env<T>(
    config: &Config,
    now_ms: i64,
    new_id: &dyn Fn() -> Uuid,
    f: impl FnOnce(&Env<'_>) -> T,
) -> T {
    f(&Env {
        now_ms,
        time_ms: 1_000_000 + now_ms,
        config,
        catalog: &State::default(),
        new_id,
    })
}
