//! The classic protocol's part: clients that join, lead, sync and send heartbeats.
//!
//! An assignment says who made it: a number that the leader draws for each, then the partitions. So a test sees
//! whether all members of a generation got theirs from one leader's sync, over restarts too.

use super::{Client, Machine, Waiter, run};
use crate::api::heartbeat::HeartbeatRequest;
use crate::api::join_group::{JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse};
use crate::api::leave_group::{LeaveGroupRequest, MemberIdentity};
use crate::api::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};
use crate::error::ErrorCode;
use crate::group::classic::ClassicGroup;
use crate::group::records::Record;
use crate::group::{Ask, Effects, Env, Event, Told};
use crate::wire::Uuid;
use rand::{Rng, rngs::StdRng};
use std::collections::BTreeMap;

const PARTITIONS: u8 = 12;

impl Machine for ClassicGroup<Waiter> {
    type Client = Classic;
    /// Who made the assignments of each generation.
    type Ledger = BTreeMap<i32, [u8; 8]>;

    fn fresh(env: &Env<'_>) -> Self {
        ClassicGroup::new("group", env)
    }

    fn replay(&self, records: &[Record], env: &Env<'_>) -> Self {
        match records {
            [Record::Group(id, Some(value))] => ClassicGroup::replay(id, value, env),
            _ => ClassicGroup::new("group", env),
        }
    }

    fn step(&mut self, event: Event<Waiter>, env: &Env<'_>, effects: &mut Effects<Waiter>) {
        self.step(event, env, effects);
    }

    fn due_ms(&self) -> Option<i64> {
        self.due_ms()
    }

    fn generation(&self) -> i32 {
        self.generation()
    }

    fn is_settled(&self) -> bool {
        self.state_name() == "Stable"
    }

    fn is_empty(&self) -> bool {
        self.state_name() == "Empty"
    }

    fn owned(&self) -> Vec<(Uuid, i32)> {
        let members = self.members().filter(|_| self.is_settled());
        let parts = members.flat_map(|(_, member)| member.assignment.iter().skip(8));
        parts.map(|&part| (Uuid::ZERO, part.into())).collect()
    }

    fn check(&self, ledger: &mut Self::Ledger) {
        let members = self.members().filter(|_| self.is_settled());
        for maker in members.filter_map(|(_, member)| member.assignment.first_chunk()) {
            let known = ledger.entry(self.generation()).or_insert(*maker);
            assert_eq!(known, maker, "two leaders assigned in one generation");
        }
    }
}

#[derive(Debug)]
enum Now {
    Out,
    /// The answer that it has to sync to.
    Joined(JoinGroupResponse),
    In,
}

/// A client.
pub struct Classic {
    name: Option<String>,
    id: String,
    generation: i32,
    now: Now,
    /// What it says of itself, which may change.
    subscription: u8,
    version: i16,
    assignment: Vec<u8>,
}

impl Classic {
    fn join(&self) -> Ask {
        let protocol = |name: &str| JoinGroupRequestProtocol {
            name: name.to_owned(),
            metadata: vec![self.subscription],
        };
        let mut protocols = vec![protocol("range"), protocol("sticky")];
        protocols.rotate_left(usize::from(self.subscription) % 2);
        if self.subscription == 0 {
            protocols.retain(|protocol| protocol.name == "range");
        }
        Ask::Join(JoinGroupRequest {
            group_id: "group".to_owned(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 20_000,
            member_id: self.id.clone(),
            group_instance_id: self.name.clone(),
            protocol_type: "consumer".to_owned(),
            protocols,
            reason: None,
        })
    }

    fn sync(&self, joined: &JoinGroupResponse, rng: &mut StdRng) -> Ask {
        let maker: u64 = rng.random();
        let count = joined.members.len();
        let leads = joined.leader == self.id && !joined.skip_assignment;
        let members = joined.members.iter().enumerate().filter(|_| leads);
        let assignments = members.map(|(at, member)| {
            let parts = (0..PARTITIONS).skip(at).step_by(count);
            SyncGroupRequestAssignment {
                member_id: member.member_id.clone(),
                assignment: maker.to_be_bytes().into_iter().chain(parts).collect(),
            }
        });
        Ask::Sync(SyncGroupRequest {
            group_id: "group".to_owned(),
            generation_id: self.generation,
            member_id: self.id.clone(),
            group_instance_id: self.name.clone(),
            protocol_type: joined.protocol_type.clone(),
            protocol_name: joined.protocol_name.clone(),
            assignments: assignments.collect(),
        })
    }

    fn heartbeat(&self) -> Ask {
        Ask::Heartbeat(HeartbeatRequest {
            group_id: "group".to_owned(),
            generation_id: self.generation,
            member_id: self.id.clone(),
            group_instance_id: self.name.clone(),
        })
    }

    fn leave(&self, as_admin: bool) -> Ask {
        let member_id = if as_admin {
            String::new()
        } else {
            self.id.clone()
        };
        Ask::Leave(LeaveGroupRequest {
            group_id: "group".to_owned(),
            member_id: member_id.clone(),
            members: vec![MemberIdentity {
                member_id,
                group_instance_id: self.name.clone(),
                reason: None,
            }],
        })
    }

    /// An error makes it join again; some take away its id.
    fn failed(&mut self, code: i16) {
        self.now = Now::Out;
        let lost = [ErrorCode::UnknownMemberId, ErrorCode::FencedInstanceId];
        if lost.iter().any(|lost| lost.code() == code) {
            self.id.clear();
        }
    }
}

impl Client for Classic {
    fn new(rng: &mut StdRng, name: Option<String>) -> Classic {
        let oldest = if name.is_some() { 5 } else { 0 };
        Classic {
            name,
            id: String::new(),
            generation: -1,
            now: Now::Out,
            subscription: rng.random_range(0..6),
            version: rng.random_range(oldest..=9),
            assignment: Vec::new(),
        }
    }

    fn ask(&mut self, rng: &mut StdRng) -> (Ask, i16, bool) {
        match &self.now {
            Now::Out => (self.join(), self.version, false),
            Now::Joined(joined) => (
                self.sync(joined, rng),
                3 + i16::from(self.version >= 7) * 2,
                false,
            ),
            Now::In => (self.heartbeat(), 4, true),
        }
    }

    fn told(&mut self, told: &Told) {
        let required = ErrorCode::MemberIdRequired.code();
        match told {
            Told::Join(joined) if joined.error_code == required => {
                self.id = joined.member_id.clone()
            }
            Told::Join(joined) if joined.error_code != 0 => self.failed(joined.error_code),
            Told::Join(joined) => {
                self.id = joined.member_id.clone();
                self.generation = joined.generation_id;
                self.now = Now::Joined(joined.clone());
            }
            Told::Sync(synced) if synced.error_code != 0 => self.failed(synced.error_code),
            Told::Sync(synced) => {
                self.now = Now::In;
                self.assignment = synced.assignment.clone();
            }
            Told::Heartbeat(heard) if heard.error_code != 0 => self.failed(heard.error_code),
            Told::Heartbeat(_) => {}
            Told::Leave(_) => self.failed(ErrorCode::UnknownMemberId.code()),
            Told::ConsumerHeartbeat(_) | Told::LookUp(_) => panic!("another protocol's answer"),
        }
    }

    fn cut_off(&mut self) {
        self.now = Now::Out;
    }

    fn stir(&mut self, rng: &mut StdRng) -> (Ask, i16) {
        let as_admin = self.name.is_some() && rng.random();
        match rng.random_range(0..4) {
            0 => (
                self.leave(as_admin),
                if as_admin { 5 } else { rng.random_range(0..=5) },
            ),
            1 => (self.join(), self.version),
            2 => (self.heartbeat(), 4),
            _ => {
                self.subscription = rng.random_range(0..6);
                self.now = Now::Out;
                (self.join(), self.version)
            }
        }
    }

    fn is_in(&self, generation: i32) -> bool {
        matches!(self.now, Now::In) && self.generation == generation
    }

    fn owned(&self) -> Vec<(Uuid, i32)> {
        let parts = self.assignment.iter().skip(8);
        parts.map(|&part| (Uuid::ZERO, part.into())).collect()
    }
}

#[test]
fn a_million_random_steps_of_the_classic_protocol() {
    run::<ClassicGroup<Waiter>>(1_000_000);
}
