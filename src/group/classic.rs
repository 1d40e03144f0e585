//! The classic protocol: members join, one of them is told to lead and assigns, and all get their part by SyncGroup.
//!
//! ```text
//! Empty --join--> Preparing --all joined, or time is over--> Completing --the leader's sync--> Stable
//!   ^                 |  ^                                        |                              |
//!   +--nobody came----+  +---- join, leave, silence, time --------+------------------------------+
//! ```
//!
//! Behaves as Kafka's `GroupMetadataManager` and `ClassicGroup`. There is no `Dead`: control deletes a group in one
//! step.
//!
//! Invariants: a generation in which anyone has an assignment was recorded with all assignments before; a member
//! waits for one answer of a kind at most, and only a join while `Preparing`, only a sync while `Completing`;
//! the leader is a member, and all members know one protocol in common.

mod join;
mod member;
mod rebalance;
mod sync;
#[cfg(test)]
mod tests;

pub use member::Member;

use super::records::{GroupMetadataValue, MemberMetadata, Record};
use super::{Ask, Effects, Env, Event, Told};
use crate::api::consumer_group_heartbeat::ConsumerGroupHeartbeatResponse;
use crate::api::describe_groups::DescribedGroup;
use crate::api::heartbeat::HeartbeatResponse;
use crate::api::join_group::JoinGroupRequestProtocol;
use crate::error::ErrorCode;
use crate::wire::field::{Field, Shape};
use crate::wire::{Malformed, Reader};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The protocol type of consumers, whose metadata the broker can read (Kafka's `ConsumerProtocol`).
pub const CONSUMER: &str = "consumer";

/// A classic group. Cheap to clone: members are shared until they change.
#[derive(Clone, Debug)]
pub struct ClassicGroup<W> {
    id: String,
    phase: Phase,
    /// When it came into its phase, on broker time; -1 if that was not recorded.
    since_ms: i64,
    generation: i32,
    protocol_type: Option<String>,
    /// The protocol of this generation.
    protocol: Option<String>,
    leader: Option<Arc<str>>,
    members: BTreeMap<Arc<str>, Arc<Member<W>>>,
    /// Ids that were given out to join again with, and until when they are good.
    pending: BTreeMap<Arc<str>, i64>,
    /// When members that still owe a sync are removed.
    sync_due_ms: i64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Empty,
    Preparing(Wait),
    Completing,
    Stable,
}

/// How long a rebalance waits for joins.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wait {
    /// The first members of a group wait for more to come, in delays that together last no longer than a rebalance.
    First {
        due_ms: i64,
        delay_ms: i64,
        remaining_ms: i64,
        /// Someone came during this delay, so there will be another.
        extend: bool,
    },
    Again {
        due_ms: i64,
    },
}

impl Wait {
    fn due_ms(self) -> i64 {
        match self {
            Wait::First { due_ms, .. } | Wait::Again { due_ms } => due_ms,
        }
    }
}

impl<W: Clone> ClassicGroup<W> {
    /// A group of which nothing is known.
    pub fn new(id: &str, env: &Env<'_>) -> ClassicGroup<W> {
        ClassicGroup {
            id: id.to_owned(),
            phase: Phase::Empty,
            since_ms: env.time_ms,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            pending: BTreeMap::new(),
            sync_due_ms: 0,
        }
    }

    /// The group as it was recorded; its members' sessions begin now.
    pub fn replay(id: &str, value: &GroupMetadataValue, env: &Env<'_>) -> ClassicGroup<W> {
        let members = value.members.iter().map(|member| {
            let known = JoinGroupRequestProtocol {
                name: value.protocol.clone().unwrap_or_default(),
                metadata: member.subscription.clone(),
            };
            (member.clone(), vec![known])
        });
        let mut group = ClassicGroup::adopt(id, value.generation, members, env);
        group.protocol_type = Some(value.protocol_type.clone()).filter(|kind| !kind.is_empty());
        group.protocol = value.protocol.clone();
        group.leader = value.leader.as_deref().map(Arc::from);
        group.since_ms = value.current_state_timestamp;
        group.settle_leader();
        if group.members.len() > usize::try_from(env.config.group_max_size).unwrap_or(0) {
            // The limit was lowered: whoever joins again first stays. Nobody waits yet, so nobody is told.
            group.rebalance(env, &mut Effects::default());
        }
        group
    }

    /// A stable group of consumers, each with the protocols that it knows: such as were members by the new protocol
    /// (KIP-848). Their sessions begin now. Empty if there are none.
    pub fn adopt(
        id: &str,
        generation: i32,
        members: impl Iterator<Item = (MemberMetadata, Vec<JoinGroupRequestProtocol>)>,
        env: &Env<'_>,
    ) -> ClassicGroup<W> {
        let mut group = ClassicGroup {
            generation,
            protocol_type: Some(CONSUMER.to_owned()),
            ..ClassicGroup::new(id, env)
        };
        for (recorded, protocols) in members {
            let id = recorded.member_id.as_str().into();
            let member = Member::recorded(recorded, protocols, env.now_ms);
            group.members.insert(id, Arc::new(member));
            group.phase = Phase::Stable;
        }
        group.settle_leader();
        group.protocol = group.select();
        group
    }

    /// Takes up what happened.
    pub fn step(&mut self, event: Event<W>, env: &Env<'_>, effects: &mut Effects<W>) {
        let Event::Asked(ask, asker) = event else {
            return self.due(env, effects);
        };
        let told = match *ask {
            Ask::Join(request) => return self.join(request, asker, env, effects),
            Ask::Sync(request) => return self.sync(request, asker, env, effects),
            Ask::Leave(request) => Told::Leave(self.leave(request, asker.version, env, effects)),
            Ask::Heartbeat(request) => Told::Heartbeat(HeartbeatResponse {
                error_code: self.heartbeat(&request, env).code(),
                ..HeartbeatResponse::default()
            }),
            Ask::ConsumerHeartbeat(..) => Told::ConsumerHeartbeat(ConsumerGroupHeartbeatResponse {
                error_code: ErrorCode::GroupIdNotFound.code(),
                ..ConsumerGroupHeartbeatResponse::default()
            }),
        };
        effects.told.push((asker.waiter, told));
    }

    /// When [`Event::Due`] is wanted, in ms of CLOCK_BOOTTIME; `None` if nothing is waited for.
    pub fn due_ms(&self) -> Option<i64> {
        let wait = match self.phase {
            Phase::Preparing(wait) => Some(wait.due_ms()),
            _ => self.owes_syncs().then_some(self.sync_due_ms),
        };
        let sessions = self.members.values().filter_map(|m| m.session_due_ms());
        let pending = self.pending.values().copied();
        sessions.chain(pending).chain(wait).min()
    }

    /// Whether a member, or someone that is none, may commit offsets; a member's commit is a sign of life.
    ///
    /// # Errors
    /// UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID, ILLEGAL_GENERATION, and REBALANCE_IN_PROGRESS while the leader assigns.
    pub fn check_commit(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        env: &Env<'_>,
    ) -> Result<(), ErrorCode> {
        if generation < 0 && matches!(self.phase, Phase::Empty) {
            // An admin client, or a consumer that assigns partitions to itself.
            return Ok(());
        }
        if generation < 0 && member_id.is_empty() && instance_id.is_none() {
            return Err(ErrorCode::UnknownMemberId);
        }
        self.check_member(member_id, instance_id)?;
        if generation != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        if matches!(self.phase, Phase::Completing) {
            return Err(ErrorCode::RebalanceInProgress);
        }
        if let Some(member) = self.member_mut(member_id) {
            member.touch(env.now_ms);
        }
        Ok(())
    }

    /// Whether a transaction may have offsets in it now: a rebalance is no obstacle, and producers older than KIP-447
    /// do not say for which member they commit.
    ///
    /// # Errors
    /// UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID, ILLEGAL_GENERATION.
    pub fn check_transaction(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), ErrorCode> {
        let is_named = !member_id.is_empty() || instance_id.is_some();
        if generation < 0 && (!is_named || matches!(self.phase, Phase::Empty)) {
            return Ok(());
        }
        self.check_member(member_id, instance_id)?;
        match generation == self.generation {
            true => Ok(()),
            false => Err(ErrorCode::IllegalGeneration),
        }
    }

    /// Whether the group may be deleted.
    ///
    /// # Errors
    /// NON_EMPTY_GROUP.
    pub fn check_delete(&self) -> Result<(), ErrorCode> {
        match self.phase {
            Phase::Empty => Ok(()),
            _ => Err(ErrorCode::NonEmptyGroup),
        }
    }

    /// The topics that members say they read; `None` if that is not known: they are no consumers, or have not agreed
    /// on a protocol yet, or said what nobody can read.
    pub fn subscribed_topics(&self) -> Option<BTreeSet<String>> {
        if self.protocol_type.as_deref() != Some(CONSUMER) {
            return None;
        }
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol = self.protocol.as_deref()?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(subscription_topics(member.metadata(protocol)).ok()?);
        }
        Some(topics)
    }

    /// Whether a member reads the topic, or may read it, for all that is known.
    pub fn subscribed(&self, topic: &str) -> bool {
        match self.subscribed_topics() {
            Some(topics) => topics.contains(topic),
            None => self.protocol_type.as_deref() == Some(CONSUMER),
        }
    }

    /// Whether it is as a group that never was; it may have offsets all the same.
    pub fn is_vacant(&self) -> bool {
        matches!(self.phase, Phase::Empty) && self.pending.is_empty() && self.generation == 0
    }

    /// The group as it would be recorded now.
    pub fn record(&self) -> Record {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let members = self.members.iter().map(|(id, m)| m.record(id, protocol));
        let value = GroupMetadataValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.as_deref().map(str::to_owned),
            current_state_timestamp: self.since_ms,
            members: members.collect(),
        };
        Record::Group(self.id.clone(), Some(value))
    }

    /// About how much memory it takes, ids that were given out included. Clients choose how long each name is.
    pub fn bytes(&self) -> usize {
        let members = self
            .members
            .iter()
            .map(|(id, member)| id.len() + member.bytes());
        let pending = self.pending.keys().map(|id| 256 + id.len());
        let names = [&self.protocol_type, &self.protocol];
        let names = names.into_iter().flatten().map(String::len);
        members.chain(pending).chain(names).sum()
    }

    /// The record that takes the group back.
    pub fn tombstone(&self) -> Record {
        Record::Group(self.id.clone(), None)
    }

    /// As DescribeGroups shows it, members by id.
    pub fn describe(&self) -> DescribedGroup {
        let protocol = self.protocol.as_deref();
        let protocol = protocol.filter(|_| matches!(self.phase, Phase::Stable));
        let members = self.members.iter().map(|(id, m)| m.describe(id, protocol));
        DescribedGroup {
            group_id: self.id.clone(),
            group_state: self.state_name().to_owned(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol_data: protocol.unwrap_or_default().to_owned(),
            members: members.collect(),
            ..DescribedGroup::default()
        }
    }

    /// Kafka's name for the phase.
    pub fn state_name(&self) -> &'static str {
        match self.phase {
            Phase::Empty => "Empty",
            Phase::Preparing(_) => "PreparingRebalance",
            Phase::Completing => "CompletingRebalance",
            Phase::Stable => "Stable",
        }
    }

    /// The protocol type of its members, now or last.
    pub fn protocol_type(&self) -> Option<&str> {
        self.protocol_type.as_deref()
    }

    /// The protocol that members agreed on.
    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    /// The last generation that began.
    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// Members by id.
    pub fn members(&self) -> impl Iterator<Item = (&str, &Member<W>)> {
        self.members.iter().map(|(id, member)| (&**id, &**member))
    }

    /// The id of the member of this static name.
    pub fn static_member(&self, instance_id: &str) -> Option<Arc<str>> {
        let is_it = |member: &Member<W>| member.instance_id.as_deref() == Some(instance_id);
        let mut members = self.members.iter();
        members.find(|(_, m)| is_it(m)).map(|(id, _)| id.clone())
    }

    /// When the group became empty, in ms of broker time; -1 if an old record did not say. Means nothing while it is
    /// not empty.
    pub fn empty_since_ms(&self) -> i64 {
        self.since_ms
    }

    /// Answers all who wait with an error.
    pub fn dismiss(&mut self, code: ErrorCode, effects: &mut Effects<W>) {
        for (id, member) in &mut self.members {
            Arc::make_mut(member).refuse(id, code, effects);
        }
    }

    /// Whether the request is from the member that it names.
    fn check_member(&self, id: &str, instance_id: Option<&str>) -> Result<(), ErrorCode> {
        match instance_id.map(|instance| self.static_member(instance)) {
            Some(None) => Err(ErrorCode::UnknownMemberId),
            Some(Some(holder)) if *holder != *id => Err(ErrorCode::FencedInstanceId),
            _ if !self.members.contains_key(id) => Err(ErrorCode::UnknownMemberId),
            _ => Ok(()),
        }
    }

    fn member_mut(&mut self, id: &str) -> Option<&mut Member<W>> {
        self.members.get_mut(id).map(Arc::make_mut)
    }

    fn leads(&self, id: &str) -> bool {
        self.leader.as_deref() == Some(id)
    }
}

/// The topics of a consumer's metadata, whose every version begins as version 0 does (`ConsumerProtocolSubscription`).
fn subscription_topics(metadata: &[u8]) -> Result<Vec<String>, Malformed> {
    let reader = &mut Reader::new(metadata);
    reader.i16()?;
    let shape = Shape {
        version: 0,
        flexible: false,
        nullable: false,
    };
    Field::get(reader, shape)
}
