//! The property test of groups that change between the protocols: clients of both, some under the same static name.

use super::property::Modern;
use crate::api::heartbeat::HeartbeatRequest;
use crate::api::join_group::{JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse};
use crate::api::leave_group::{LeaveGroupRequest, MemberIdentity};
use crate::api::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};
use crate::catalog::State;
use crate::error::ErrorCode;
use crate::group::property_tests::{Client, Machine, Waiter, run};
use crate::group::protocol::{
    self, ConsumerProtocolAssignment, ConsumerProtocolSubscription, PROTOCOL_TYPE, TopicPartitions,
};
use crate::group::records::Record;
use crate::group::{Ask, Effects, Env, Event, Group, Told};
use crate::wire::Uuid;
use crate::wire::metadata_records::{MetadataRecord, PartitionRecord, TopicRecord};
use rand::{Rng, rngs::StdRng};

/// A group that may be of either kind.
#[derive(Clone)]
pub struct Mixed {
    group: Group<Waiter>,
    /// A group that nobody is in begins again from zero when it changes its kind: the generations until then.
    before: i32,
}

impl Mixed {
    fn follow(&mut self, before: &Mixed) {
        if before.is_empty() {
            self.before += (before.generation() - self.generation()).max(0);
        }
    }
}

/// Topics keep their ids here: `t0` to `t7`.
fn topic_id(name: &str) -> Uuid {
    Uuid([name.as_bytes()[1]; 16])
}

fn named(topics: &[TopicPartitions]) -> Vec<(Uuid, i32)> {
    let all = topics.iter().flat_map(|topic| {
        let partitions = topic.partitions.iter();
        partitions.map(|partition| (topic_id(&topic.topic), *partition))
    });
    all.collect()
}

fn read(assignment: &[u8]) -> Vec<TopicPartitions> {
    let read =
        protocol::read(assignment).map(|read: ConsumerProtocolAssignment| read.assigned_partitions);
    read.unwrap_or_default()
}

impl Machine for Mixed {
    type Client = Either;
    type Ledger = ();

    fn fresh(env: &Env<'_>) -> Self {
        Mixed {
            group: Group::new("group", env),
            before: 0,
        }
    }

    fn replay(&self, records: &[Record], env: &Env<'_>) -> Self {
        let mut mixed = Mixed::fresh(env);
        // A compacted log has them in any order.
        let records = records.iter().rev();
        records.for_each(|record| mixed.group.replay(record, env));
        mixed.group.loaded(env);
        mixed.before = self.before;
        mixed.follow(self);
        mixed
    }

    fn step(&mut self, event: Event<Waiter>, env: &Env<'_>, effects: &mut Effects<Waiter>) {
        let before = self.clone();
        self.group.step(event, env, effects);
        self.follow(&before);
    }

    fn due_ms(&self) -> Option<i64> {
        self.group.due_ms()
    }

    fn generation(&self) -> i32 {
        self.before
            + match &self.group {
                Group::Classic(group) => group.generation(),
                Group::Consumer(group) => group.epoch,
            }
    }

    fn is_settled(&self) -> bool {
        self.group.state_name() == "Stable"
    }

    fn is_empty(&self) -> bool {
        self.group.state_name() == "Empty"
    }

    fn owned(&self) -> Vec<(Uuid, i32)> {
        match &self.group {
            Group::Classic(group) if self.is_settled() => {
                let members = group.members();
                members
                    .flat_map(|(_, member)| named(&read(&member.assignment)))
                    .collect()
            }
            Group::Classic(_) => Vec::new(),
            Group::Consumer(group) => Machine::owned(group),
        }
    }

    fn stir_topics(catalog: &mut State, rng: &mut StdRng) {
        let name = format!("t{}", rng.random_range(0..8));
        let topic_id = topic_id(&name);
        if !catalog.topics.contains_key(&name) {
            let topic = TopicRecord { name, topic_id };
            catalog.apply(&MetadataRecord::Topic(topic));
            for partition_id in 0..PARTITIONS {
                catalog.apply(&MetadataRecord::Partition(PartitionRecord {
                    partition_id,
                    topic_id,
                    ..PartitionRecord::default()
                }));
            }
        }
    }

    fn check(&self, (): &mut ()) {
        if let Group::Consumer(group) = &self.group {
            Machine::check(group, &mut ());
        }
    }
}

const PARTITIONS: i32 = 3;

enum Now {
    Out,
    Joined(JoinGroupResponse),
    In,
}

/// A client of the classic protocol, whose assignments others can read.
pub struct Old {
    name: Option<String>,
    id: String,
    generation: i32,
    now: Now,
    topics: Vec<String>,
    owned: Vec<TopicPartitions>,
}

impl Old {
    fn join(&mut self) -> Ask {
        if self.name.is_none() {
            // As the eager assignors have it.
            self.owned.clear();
        }
        let said = ConsumerProtocolSubscription {
            topics: self.topics.clone(),
            owned_partitions: self.owned.clone(),
            ..ConsumerProtocolSubscription::default()
        };
        let protocols = ["range", "sticky"].map(|name| JoinGroupRequestProtocol {
            name: name.to_owned(),
            metadata: protocol::write(&said, 1),
        });
        Ask::Join(JoinGroupRequest {
            group_id: "group".to_owned(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 20_000,
            member_id: self.id.clone(),
            group_instance_id: self.name.clone(),
            protocol_type: PROTOCOL_TYPE.to_owned(),
            protocols: protocols.into(),
            reason: None,
        })
    }

    fn sync(&self, joined: &JoinGroupResponse) -> Ask {
        let mut assignments = Vec::new();
        let leads = joined.leader == self.id && !joined.skip_assignment;
        for (at, member) in joined.members.iter().enumerate().filter(|_| leads) {
            let topics = (0..8).filter(|number| number % joined.members.len() == at);
            let assigned_partitions = topics.map(|number| TopicPartitions {
                topic: format!("t{number}"),
                partitions: (0..PARTITIONS).collect(),
            });
            let assignment = ConsumerProtocolAssignment {
                assigned_partitions: assigned_partitions.collect(),
                user_data: None,
            };
            assignments.push(SyncGroupRequestAssignment {
                member_id: member.member_id.clone(),
                assignment: protocol::write(&assignment, 1),
            });
        }
        Ask::Sync(SyncGroupRequest {
            group_id: "group".to_owned(),
            generation_id: self.generation,
            member_id: self.id.clone(),
            group_instance_id: self.name.clone(),
            protocol_type: joined.protocol_type.clone(),
            protocol_name: joined.protocol_name.clone(),
            assignments,
        })
    }

    fn failed(&mut self, code: i16) {
        self.now = Now::Out;
        let lost = [ErrorCode::UnknownMemberId, ErrorCode::FencedInstanceId];
        if lost.iter().any(|lost| lost.code() == code) {
            self.id.clear();
            self.owned.clear();
        }
    }
}

/// A client of either protocol.
pub enum Either {
    Old(Old),
    Modern(Modern),
}

impl Client for Either {
    const REPEATS: bool = false;

    fn new(rng: &mut StdRng, name: Option<String>) -> Either {
        if rng.random() {
            return Either::Modern(Modern::new(rng, name));
        }
        Either::Old(Old {
            name,
            id: String::new(),
            generation: -1,
            now: Now::Out,
            topics: vec![format!("t{}", rng.random_range(0..8))],
            owned: Vec::new(),
        })
    }

    fn ask(&mut self, rng: &mut StdRng) -> (Ask, i16, bool) {
        let old = match self {
            Either::Old(old) => old,
            Either::Modern(client) => return client.ask(rng),
        };
        match &old.now {
            Now::Out => (old.join(), 9, false),
            Now::Joined(joined) => (old.sync(joined), 5, false),
            Now::In => {
                let request = HeartbeatRequest {
                    group_id: "group".to_owned(),
                    generation_id: old.generation,
                    member_id: old.id.clone(),
                    group_instance_id: old.name.clone(),
                };
                (Ask::Heartbeat(request), 4, true)
            }
        }
    }

    fn told(&mut self, told: &Told) {
        let old = match self {
            Either::Old(old) => old,
            Either::Modern(client) => return client.told(told),
        };
        match told {
            Told::Join(joined) if joined.error_code == ErrorCode::MemberIdRequired.code() => {
                old.id = joined.member_id.clone();
            }
            Told::Join(joined) if joined.error_code != 0 => old.failed(joined.error_code),
            Told::Join(joined) => {
                old.id = joined.member_id.clone();
                old.generation = joined.generation_id;
                old.now = Now::Joined(joined.clone());
            }
            Told::Sync(synced) if synced.error_code != 0 => old.failed(synced.error_code),
            Told::Sync(synced) => {
                old.now = Now::In;
                old.owned = read(&synced.assignment);
            }
            Told::Heartbeat(heard) if heard.error_code != 0 => old.failed(heard.error_code),
            Told::Heartbeat(_) => {}
            Told::Leave(_) => old.failed(ErrorCode::UnknownMemberId.code()),
            Told::ConsumerHeartbeat(_) | Told::LookUp(_) => panic!("another protocol's answer"),
        }
    }

    fn cut_off(&mut self) {
        match self {
            Either::Old(old) => old.now = Now::Out,
            Either::Modern(client) => client.cut_off(),
        }
    }

    fn stir(&mut self, rng: &mut StdRng) -> (Ask, i16) {
        let old = match self {
            Either::Old(old) => old,
            Either::Modern(client) => return client.stir(rng),
        };
        if rng.random() {
            let members = vec![MemberIdentity {
                member_id: old.id.clone(),
                group_instance_id: old.name.clone(),
                reason: None,
            }];
            let request = LeaveGroupRequest {
                group_id: "group".to_owned(),
                member_id: old.id.clone(),
                members,
            };
            return (Ask::Leave(request), 5);
        }
        old.topics = vec![format!("t{}", rng.random_range(0..8))];
        old.now = Now::Out;
        (old.join(), 9)
    }

    fn is_in(&self, _: i32) -> bool {
        match self {
            Either::Old(old) => matches!(old.now, Now::In),
            Either::Modern(client) => client.is_in(client.epoch) && client.epoch > 0,
        }
    }

    fn owned(&self) -> Vec<(Uuid, i32)> {
        match self {
            Either::Old(old) => named(&old.owned),
            Either::Modern(client) => client.owned(),
        }
    }
}

#[test]
fn random_steps_between_the_protocols() {
    run::<Mixed>(300_000);
}
