//! Consumer groups: who reads which partition, and how far a group has read.
//!
//! Owns nothing that lasts: a group is a pure state machine, `step(event, now) -> effects`, with no thread, socket
//! or clock inside; the control thread drives it, and `__consumer_offsets` holds what must outlive it ([`records`]).
//!
//! Invariants: a step that has records counts only once they are synced: until then the group is as it was, and its
//! next event waits; a step whose records are refused never was.

pub mod assignors;
pub mod classic;
mod commits;
pub mod consumer;
pub mod groups;
mod offsets;
#[cfg(test)]
mod property_tests;
pub mod protocol;
mod purge;
mod reads;
pub mod records;
mod refusals;

pub use groups::{Effect, Groups};
pub use refusals::refused_commit;

use crate::api::consumer_group_describe::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse,
};
use crate::api::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
};
use crate::api::describe_groups::{DescribeGroupsRequest, DescribeGroupsResponse};
use crate::api::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use crate::api::join_group::{JoinGroupRequest, JoinGroupResponse};
use crate::api::leave_group::{LeaveGroupRequest, LeaveGroupResponse};
use crate::api::list_groups::{ListGroupsRequest, ListGroupsResponse};
use crate::api::offset_commit::{OffsetCommitRequest, OffsetCommitResponse};
use crate::api::offset_delete::{OffsetDeleteRequest, OffsetDeleteResponse};
use crate::api::offset_fetch::{OffsetFetchRequest, OffsetFetchResponse};
use crate::api::sync_group::{SyncGroupRequest, SyncGroupResponse};
use crate::catalog::State;
use crate::config::Config;
use crate::error::ErrorCode;
use crate::txn::Serial;
use crate::wire::Uuid;
use classic::ClassicGroup;
use consumer::{ConsumerGroup, Found, LookUp};
use records::Record;

/// Which of the partitions of `__consumer_offsets` a group's records lie in: Java's hash of its id, as in Kafka, so
/// that its files are Kafka's too.
pub fn partition_of(group: &str, partitions: usize) -> i32 {
    let hash = group.encode_utf16().fold(0i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
    (hash & i32::MAX) % partitions.max(1)
}

/// What a step may look at besides the group itself.
pub struct Env<'a> {
    /// CLOCK_BOOTTIME in ms: sessions and time-outs run on it.
    pub now_ms: i64,
    /// Broker time in ms since 1970 (promise P8): what is recorded, and what offset expiry runs on.
    pub time_ms: i64,
    /// The broker's settings.
    pub config: &'a Config,
    /// The topics that there are.
    pub catalog: &'a State,
    /// Gives an id that nobody had before.
    pub new_id: &'a dyn Fn() -> Uuid,
}

/// A member's request.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Ask {
    Join(JoinGroupRequest),
    Sync(SyncGroupRequest),
    Heartbeat(HeartbeatRequest),
    Leave(LeaveGroupRequest),
    /// With what was looked up for it.
    ConsumerHeartbeat(ConsumerGroupHeartbeatRequest, Found),
}

impl Ask {
    /// The group that is asked.
    pub fn group(&self) -> &str {
        match self {
            Ask::Join(request) => &request.group_id,
            Ask::Sync(request) => &request.group_id,
            Ask::Heartbeat(request) => &request.group_id,
            Ask::Leave(request) => &request.group_id,
            Ask::ConsumerHeartbeat(request, _) => &request.group_id,
        }
    }
}

/// A request's answer.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Told {
    Join(JoinGroupResponse),
    Sync(SyncGroupResponse),
    Heartbeat(HeartbeatResponse),
    Leave(LeaveGroupResponse),
    ConsumerHeartbeat(ConsumerGroupHeartbeatResponse),
    /// No answer yet: this is to be looked up first, and the heartbeat to be asked again.
    LookUp(Box<LookUp>),
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct Asker<W> {
    /// The version of the request.
    pub version: i16,
    /// From the request's header; empty if there is none.
    pub client_id: String,
    /// As Kafka shows it: `/127.0.0.1`.
    pub client_host: String,
    /// Where the answer goes: a connection, or a number in a test.
    pub waiter: W,
}

/// What happens to one group.
#[derive(Clone, Debug)]
pub enum Event<W> {
    /// A member asks.
    Asked(Box<Ask>, Asker<W>),
    /// The time came that the group named as its next.
    Due,
}

/// What a step leads to: first the records are committed, then the answers are given.
#[derive(Clone, Debug)]
pub struct Effects<W> {
    /// To be committed together, in this order.
    pub records: Vec<Record>,
    /// Whom to answer what; also waiters of earlier events.
    pub told: Vec<(W, Told)>,
}

impl<W> Default for Effects<W> {
    fn default() -> Effects<W> {
        Effects {
            records: Vec::new(),
            told: Vec::new(),
        }
    }
}

/// The transaction that a commit of offsets is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The producer's id.
    pub producer_id: i64,
    /// And its epoch.
    pub producer_epoch: i16,
    /// Which of its transactions.
    pub serial: Serial,
    /// The partition of `__consumer_offsets` that is part of it: the records go there, and its marker ends them.
    pub partition: i32,
}

/// What is asked of the coordinator.
#[derive(Clone, Debug)]
pub enum Request {
    /// By a member, of its group.
    Member(Box<Ask>),
    /// Commit offsets: at once, or as part of a transaction, when that is committed.
    Commit(OffsetCommitRequest, Option<Transaction>),
    /// Take offsets away.
    DeleteOffsets(OffsetDeleteRequest),
    /// Take a group away, by its id.
    Delete(String),
    /// Look something up.
    Read(Read),
}

/// A question that changes nothing; with the version where the answer depends on it.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Read {
    Offsets(OffsetFetchRequest, i16),
    List(ListGroupsRequest),
    Describe(DescribeGroupsRequest, i16),
    DescribeConsumer(ConsumerGroupDescribeRequest),
}

/// What the coordinator answers.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Response {
    Member(Told),
    Commit(OffsetCommitResponse),
    DeleteOffsets(OffsetDeleteResponse),
    Deleted(ErrorCode),
    Offsets(OffsetFetchResponse),
    List(ListGroupsResponse),
    Described(DescribeGroupsResponse),
    DescribedConsumer(ConsumerGroupDescribeResponse),
}

/// One group, of one of the two kinds.
#[derive(Clone)]
pub enum Group<W> {
    /// Its members divide the partitions among themselves.
    Classic(ClassicGroup<W>),
    /// The broker divides them (KIP-848).
    Consumer(ConsumerGroup),
}

impl<W: Clone> Group<W> {
    /// A group that nobody knows of yet.
    pub fn new(id: &str, env: &Env<'_>) -> Group<W> {
        Group::Classic(ClassicGroup::new(id, env))
    }

    /// Takes in a record of the log, at start.
    pub fn replay(&mut self, record: &Record, env: &Env<'_>) {
        match (record, &mut *self) {
            (Record::Group(id, Some(value)), _) => {
                *self = Group::Classic(ClassicGroup::replay(id, value, env));
            }
            (Record::Group(id, None), Group::Classic(_))
            | (Record::ConsumerGroup(id, None), Group::Consumer(_)) => *self = Group::new(id, env),
            (Record::Group(_, None), Group::Consumer(_)) => {}
            (_, Group::Consumer(group)) => group.replay(record),
            // Which of them comes first is not known: a compacted log holds each key's last.
            (
                Record::ConsumerGroup(id, Some(_))
                | Record::Member(id, _, Some(_))
                | Record::TargetEpoch(id, Some(_))
                | Record::TargetMember(id, _, Some(_))
                | Record::Current(id, _, Some(_))
                | Record::Regex(id, _, Some(_)),
                _,
            ) => {
                let mut group = ConsumerGroup::new(id);
                group.replay(record);
                *self = Group::Consumer(group);
            }
            // What is left of a group that was taken away.
            (_, Group::Classic(_)) => {}
        }
    }

    /// Every record was replayed.
    pub fn loaded(&mut self, env: &Env<'_>) {
        if let Group::Consumer(group) = self {
            group.loaded(env);
        }
    }

    /// Takes up an event; a group may change its kind by it.
    pub fn step(&mut self, event: Event<W>, env: &Env<'_>, effects: &mut Effects<W>) {
        match (&mut *self, event) {
            (Group::Classic(classic), Event::Asked(ask, asker)) => {
                let Ask::ConsumerHeartbeat(request, found) = *ask else {
                    return classic.step(Event::Asked(ask, asker), env, effects);
                };
                let taken = ConsumerGroup::take_over(classic, request, found, asker, env, effects);
                if let Some(group) = taken {
                    *self = Group::Consumer(group);
                }
            }
            (Group::Consumer(group), Event::Asked(ask, asker))
                if group.is_empty() && matches!(*ask, Ask::Join(_)) =>
            {
                effects.records.extend(group.tombstones());
                *self = Group::new(group.id(), env);
                self.step(Event::Asked(ask, asker), env, effects);
            }
            (Group::Classic(group), event) => group.step(event, env, effects),
            (Group::Consumer(group), event) => {
                group.step(event, env, effects);
                if let Some(classic) = group.to_classic(env, effects) {
                    *self = Group::Classic(classic);
                }
            }
        }
    }

    /// Whether a member, or somebody by hand, may commit offsets now.
    pub fn check_commit(
        &mut self,
        request: &OffsetCommitRequest,
        version: i16,
        env: &Env<'_>,
    ) -> Result<(), ErrorCode> {
        let (member, instance) = (&request.member_id, request.group_instance_id.as_deref());
        let epoch = request.generation_id_or_member_epoch;
        match self {
            Group::Classic(group) => group.check_commit(member, instance, epoch, env),
            Group::Consumer(group) => group.check_commit(member, epoch, version),
        }
    }

    /// Whether a transaction of a member, or of somebody who does not say who it is, may have offsets in it now.
    pub fn check_transaction(&self, request: &OffsetCommitRequest) -> Result<(), ErrorCode> {
        let (member, instance) = (&request.member_id, request.group_instance_id.as_deref());
        let epoch = request.generation_id_or_member_epoch;
        match self {
            Group::Classic(group) => group.check_transaction(member, instance, epoch),
            Group::Consumer(group) => group.check_transaction(member, epoch),
        }
    }

    /// Whether offsets may be taken away by hand: what members read is told topic by topic, but members of an
    /// unknown protocol may read anything.
    pub fn check_delete_offsets(&self) -> Result<(), ErrorCode> {
        match self {
            Group::Classic(group) if group.protocol_type() != Some("consumer") => {
                group.check_delete()
            }
            _ => Ok(()),
        }
    }

    /// Whether offsets grow old now, and since when at the earliest: the moment at which the group became empty, or
    /// else each one's own commit.
    pub fn offsets_expire_since(&self) -> Option<Option<i64>> {
        match self {
            Group::Classic(group) => match (group.protocol_type(), group.state_name()) {
                (None, _) => Some(None),
                (Some(_), "Empty") => {
                    Some(Some(group.empty_since_ms()).filter(|since| *since >= 0))
                }
                (Some("consumer"), "Stable") => Some(None),
                _ => None,
            },
            Group::Consumer(group) => Some(group.empty_since_ms()),
        }
    }

    /// When an event is due.
    pub fn due_ms(&self) -> Option<i64> {
        match self {
            Group::Classic(group) => group.due_ms(),
            Group::Consumer(group) => group.due_ms(),
        }
    }

    /// About how much memory its members take.
    pub fn bytes(&self) -> usize {
        match self {
            Group::Classic(group) => group.bytes(),
            Group::Consumer(group) => group.bytes(),
        }
    }

    /// Answers all who wait in it with an error.
    pub fn dismiss(&mut self, code: ErrorCode, effects: &mut Effects<W>) {
        if let Group::Classic(group) = self {
            group.dismiss(code, effects);
        }
    }

    /// Whether there is nothing to keep.
    pub fn is_vacant(&self) -> bool {
        match self {
            Group::Classic(group) => group.is_vacant(),
            Group::Consumer(group) => group.is_vacant(),
        }
    }

    /// Whether the topic is one that members read.
    pub fn subscribed(&self, topic: &str) -> bool {
        match self {
            Group::Classic(group) => group.subscribed(topic),
            Group::Consumer(group) => group.subscribed(topic),
        }
    }

    /// Whether it may be deleted: it has no members.
    pub fn check_delete(&self) -> Result<(), ErrorCode> {
        match self {
            Group::Classic(group) => group.check_delete(),
            Group::Consumer(group) => group.check_delete(),
        }
    }

    /// The record by which a start knows what kind of group it is, and since when it is empty; `None` if it has none,
    /// or is between two of them.
    pub fn record(&self) -> Option<Record> {
        match self {
            _ if self.is_vacant() => None,
            Group::Classic(group) if !matches!(group.state_name(), "Empty" | "Stable") => None,
            Group::Classic(group) => Some(group.record()),
            Group::Consumer(group) => Some(group.record()),
        }
    }

    /// The records that take it away, its offsets apart.
    pub fn tombstones(&self) -> Vec<Record> {
        match self {
            Group::Classic(group) => vec![group.tombstone()],
            Group::Consumer(group) => group.tombstones(),
        }
    }

    /// Kafka's name for its state.
    pub fn state_name(&self) -> &'static str {
        match self {
            Group::Classic(group) => group.state_name(),
            Group::Consumer(group) => group.state_name(),
        }
    }

    /// Kafka's name for its kind.
    pub fn type_name(&self) -> &'static str {
        match self {
            Group::Classic(_) => "classic",
            Group::Consumer(_) => "consumer",
        }
    }

    /// What its members do: `consumer`, `connect`, ...; empty for a group of nothing but offsets.
    pub fn protocol_type(&self) -> &str {
        match self {
            Group::Classic(group) => group.protocol_type().unwrap_or_default(),
            Group::Consumer(_) => "consumer",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::partition_of;

    /// "hello".hashCode() is 99162322 in Java, and "polygenelubricants".hashCode() the smallest INT32.
    #[test]
    fn a_group_lies_where_kafka_would_look_for_it() {
        assert_eq!(partition_of("hello", 50), 99_162_322 % 50);
        assert_eq!(partition_of("polygenelubricants", 50), 0);
        assert_eq!(partition_of("", 1), 0);
    }
}
