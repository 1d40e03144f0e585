//! A member of a consumer group: what it said of itself, what it was given, and what it shall have.

use crate::api::consumer_group_heartbeat as heartbeat;
use crate::group::assignors::Assignment;
use crate::group::records::{
    ClassicMemberMetadata, ConsumerGroupCurrentMemberAssignmentValue,
    ConsumerGroupMemberMetadataValue, TopicPartitions,
};
use crate::wire::Uuid;
use std::sync::Arc;

/// The epoch of a static member that has gone and may come back (KIP-345).
pub const EPOCH_AWAY: i32 = -2;

/// Where a member stands on its way to its target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemberState {
    /// It has what it should have had at its epoch.
    #[default]
    Stable,
    /// It was told to give up partitions, and has not said that it did.
    Unrevoked,
    /// It waits for partitions that others still have.
    Unreleased,
}

/// A member.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Member {
    /// What it said; its topics in order, each once.
    pub about: ConsumerGroupMemberMetadataValue,
    /// The epoch that it was told last; [`EPOCH_AWAY`] if it has gone for a while.
    pub epoch: i32,
    /// The one before: a member that never heard of `epoch` comes with this.
    pub previous_epoch: i32,
    /// How far it is.
    pub state: MemberState,
    /// What it was told to read.
    pub assigned: Assignment,
    /// What it was told to give up; its own until it says that it did.
    pub revoking: Assignment,
    /// What it shall have at the group's target epoch.
    pub target: Assignment,
}

impl Member {
    /// Whether there is nothing left to do for it at this epoch.
    pub fn is_at(&self, epoch: i32) -> bool {
        self.state == MemberState::Stable && self.epoch == epoch
    }

    /// What it said in the classic protocol, if it speaks that (KIP-848's migration).
    pub fn classic(&self) -> Option<&ClassicMemberMetadata> {
        self.about.classic_member_metadata.as_ref()
    }

    /// About how much memory it takes.
    pub fn bytes(&self) -> usize {
        let classic = self.classic().into_iter();
        let protocols = classic.flat_map(|classic| &classic.supported_protocols);
        let said = protocols.map(|protocol| 64 + protocol.name.len() + protocol.metadata.len());
        let topics = self.about.subscribed_topic_names.iter();
        let partitions = [&self.assigned, &self.revoking, &self.target];
        let partitions = partitions.into_iter().flat_map(pairs).count();
        let about = &self.about;
        let optional = [
            &about.instance_id,
            &about.rack_id,
            &about.subscribed_topic_regex,
            &about.server_assignor,
        ];
        let names = optional.into_iter().flatten().map(String::len);
        let names = names.chain([about.client_id.len(), about.client_host.len()]);
        768 + said.sum::<usize>()
            + names.sum::<usize>()
            + topics.map(|topic| 32 + topic.len()).sum::<usize>()
            + partitions * 16
    }

    /// Takes what a record says of its assignment. A state of a newer Kafka counts as one in which it waits.
    pub fn set_current(&mut self, value: &ConsumerGroupCurrentMemberAssignmentValue) {
        self.epoch = value.member_epoch;
        self.previous_epoch = value.previous_member_epoch;
        self.state = match value.state {
            0 => MemberState::Stable,
            1 => MemberState::Unrevoked,
            _ => MemberState::Unreleased,
        };
        self.assigned = collected(&value.assigned_partitions);
        self.revoking = collected(&value.partitions_pending_revocation);
    }

    /// The record of its assignment.
    pub fn current(&self) -> ConsumerGroupCurrentMemberAssignmentValue {
        ConsumerGroupCurrentMemberAssignmentValue {
            member_epoch: self.epoch,
            previous_member_epoch: self.previous_epoch,
            state: self.state as i8,
            assigned_partitions: listed(&self.assigned),
            partitions_pending_revocation: listed(&self.revoking),
        }
    }
}

/// The pattern that a member subscribed to; Kafka's own members say "" for none.
pub fn pattern(about: &ConsumerGroupMemberMetadataValue) -> Option<&str> {
    let pattern = about.subscribed_topic_regex.as_deref();
    pattern.filter(|pattern| !pattern.is_empty())
}

/// A member and when it is over with it, on CLOCK_BOOTTIME in ms.
#[derive(Clone, Debug)]
pub struct Seat {
    pub member: Arc<Member>,
    /// It was silent for too long.
    pub session_ms: i64,
    /// It did not give up in time what it was told to.
    pub revoke_ms: Option<i64>,
    /// In the classic protocol: it was told of a rebalance and did not join.
    pub join_ms: Option<i64>,
    /// In the classic protocol: it joined and did not sync.
    pub sync_ms: Option<i64>,
}

impl Seat {
    /// A member that nobody waits for yet.
    pub fn new(member: Arc<Member>) -> Seat {
        Seat {
            member,
            session_ms: i64::MAX,
            revoke_ms: None,
            join_ms: None,
            sync_ms: None,
        }
    }

    /// The first moment at which it is over.
    pub fn due_ms(&self) -> i64 {
        let others = [self.revoke_ms, self.join_ms, self.sync_ms];
        others.into_iter().flatten().fold(self.session_ms, i64::min)
    }
}

/// Every partition of an assignment.
pub fn pairs(assignment: &Assignment) -> impl Iterator<Item = (Uuid, i32)> {
    assignment
        .iter()
        .flat_map(|(topic, partitions)| partitions.iter().map(|partition| (*topic, *partition)))
}

/// The assignment of these partitions.
pub fn gathered(pairs: impl Iterator<Item = (Uuid, i32)>) -> Assignment {
    let mut assignment = Assignment::new();
    for (topic, partition) in pairs {
        assignment.entry(topic).or_default().insert(partition);
    }
    assignment
}

/// Whether a partition is in an assignment.
pub fn has(assignment: &Assignment, (topic, partition): (Uuid, i32)) -> bool {
    let partitions = assignment.get(&topic);
    partitions.is_some_and(|partitions| partitions.contains(&partition))
}

/// As the records have it.
pub fn listed(assignment: &Assignment) -> Vec<TopicPartitions> {
    let topics = assignment
        .iter()
        .map(|(topic_id, partitions)| TopicPartitions {
            topic_id: *topic_id,
            partitions: partitions.iter().copied().collect(),
        });
    topics.collect()
}

/// From what a record has.
pub fn collected(topics: &[TopicPartitions]) -> Assignment {
    let of = |topic: &TopicPartitions| (topic.topic_id, topic.partitions.clone());
    gathered(each(topics.iter().map(of)))
}

/// From what a heartbeat has.
pub fn owned(topics: &[heartbeat::TopicPartitions]) -> Assignment {
    let of = |topic: &heartbeat::TopicPartitions| (topic.topic_id, topic.partitions.clone());
    gathered(each(topics.iter().map(of)))
}

fn each(topics: impl Iterator<Item = (Uuid, Vec<i32>)>) -> impl Iterator<Item = (Uuid, i32)> {
    topics.flat_map(|(topic, partitions)| {
        let partitions = partitions.into_iter();
        partitions.map(move |partition| (topic, partition))
    })
}

/// As the answer to a heartbeat has it.
pub fn told(assignment: &Assignment) -> heartbeat::Assignment {
    let topics = assignment
        .iter()
        .map(|(topic_id, partitions)| heartbeat::TopicPartitions {
            topic_id: *topic_id,
            partitions: partitions.iter().copied().collect(),
        });
    heartbeat::Assignment {
        topic_partitions: topics.collect(),
    }
}
