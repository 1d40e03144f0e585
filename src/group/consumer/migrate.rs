//! The ways between the protocols, while members are there (`group.consumer.migration.policy`).
//!
//! A classic group of consumers is taken over when the first member of the new protocol comes: its generation becomes
//! the epoch, its assignment the target, and who waits is told to join again. A group goes back when the last member
//! of the new protocol has left, or was replaced by a static one of the classic: its epoch becomes the generation, its
//! target the assignment, and all have to join again, unless nothing changed for them.

use super::checks::{check, refused};
use super::classic::{assignment, consumer_assignment};
use super::member::{Member, Seat, gathered, listed, pairs};
use super::patterns::Found;
use super::{ConsumerGroup, Fault};
use crate::api::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest;
use crate::api::join_group::JoinGroupRequestProtocol;
use crate::error::ErrorCode;
use crate::group::classic::{self, ClassicGroup};
use crate::group::protocol::{self, ConsumerProtocolAssignment, ConsumerProtocolSubscription};
use crate::group::records::{
    ClassicMemberMetadata, ClassicProtocol, ConsumerGroupMemberMetadataValue,
    ConsumerGroupTargetAssignmentMemberValue, ConsumerGroupTargetAssignmentMetadataValue,
    MemberMetadata, Record,
};
use crate::group::{Ask, Asker, Effects, Env, Event, Told};
use crate::wire::Malformed;
use std::collections::HashSet;
use std::sync::Arc;

impl ConsumerGroup {
    /// A heartbeat for a classic group: the group that this becomes, or `None` if it stays and the sender is refused.
    pub fn take_over<W: Clone>(
        classic: &ClassicGroup<W>,
        request: ConsumerGroupHeartbeatRequest,
        found: Found,
        asker: Asker<W>,
        env: &Env<'_>,
        effects: &mut Effects<W>,
    ) -> Option<ConsumerGroup> {
        let mut leads_to = Effects::default();
        let group = check(&request, asker.version, env).and_then(|()| {
            if classic.is_vacant() {
                return Ok(ConsumerGroup::new(&request.group_id));
            }
            if request.member_epoch != 0 {
                let what = format!("Group {} is not a consumer group.", request.group_id);
                return Err((ErrorCode::GroupIdNotFound, what));
            }
            if classic.check_delete().is_ok() {
                leads_to.records.push(classic.tombstone());
                return Ok(ConsumerGroup::new(&request.group_id));
            }
            ConsumerGroup::from_classic(classic, &request.group_id, env, &mut leads_to)
        });
        let waiter = asker.waiter.clone();
        let mut group = match group {
            Ok(group) => group,
            Err(fault) => {
                effects
                    .told
                    .push((waiter, Told::ConsumerHeartbeat(refused(fault))));
                return None;
            }
        };
        group.step(
            Event::Asked(Box::new(Ask::ConsumerHeartbeat(request, found)), asker),
            env,
            &mut leads_to,
        );
        match leads_to.told.last() {
            // Nothing of it happened, then.
            Some((_, Told::ConsumerHeartbeat(answer))) if answer.error_code != 0 => {
                effects.told.extend(leads_to.told.pop());
                None
            }
            Some((_, Told::LookUp(_))) => {
                effects.told.extend(leads_to.told.pop());
                None
            }
            _ => {
                effects.records.append(&mut leads_to.records);
                effects.told.append(&mut leads_to.told);
                Some(group)
            }
        }
    }

    /// The consumer group that a classic group with members becomes, its records, and the answers to who waits.
    ///
    /// # Errors
    /// GROUP_ID_NOT_FOUND: it may not, or cannot.
    fn from_classic<W: Clone>(
        classic: &ClassicGroup<W>,
        id: &str,
        env: &Env<'_>,
        effects: &mut Effects<W>,
    ) -> Result<ConsumerGroup, Fault> {
        let cannot = |why: &str| {
            let what =
                format!("Cannot upgrade classic group {id} to consumer group because {why}.");
            (ErrorCode::GroupIdNotFound, what)
        };
        let policy = env.config.group_consumer_migration_policy.as_str();
        if !matches!(policy, "bidirectional" | "upgrade") {
            return Err(cannot("online upgrade is disabled"));
        }
        if classic.protocol_type() != Some(protocol::PROTOCOL_TYPE) {
            return Err(cannot(
                "the group does not use the consumer embedded protocol",
            ));
        }
        if classic.members().count() as i64 > i64::from(env.config.group_consumer_max_size) {
            return Err(cannot(
                "the group size exceeds the consumer group maximum size",
            ));
        }
        let mut group = ConsumerGroup::new(id);
        group.epoch = classic.generation();
        group.target_epoch = classic.generation();
        let mut given = HashSet::new();
        for (id, old) in classic.members() {
            let (about, mut assigned) = read(old, classic.protocol())
                .map_err(|_| cannot("the embedded consumer protocol is malformed"))?;
            if assigned
                .user_data
                .take()
                .is_some_and(|data| !data.is_empty())
            {
                return Err(cannot(
                    "an unsupported custom assignor is in use. Please refer to the documentation or switch to a \
                     default assignor before re-attempting the upgrade",
                ));
            }
            // A leader may have given a partition to two: the first keeps it.
            let assigned = assignment(&assigned.assigned_partitions, env);
            let assigned = gathered(pairs(&assigned).filter(|pair| given.insert(*pair)));
            let mut seat = Seat::new(Arc::new(Member {
                about,
                epoch: group.epoch,
                previous_epoch: group.epoch,
                target: assigned.clone(),
                assigned,
                ..Member::default()
            }));
            seat.session_ms = env.now_ms + i64::from(old.session_timeout_ms);
            group.members.insert(id.into(), seat);
        }
        classic
            .clone()
            .dismiss(ErrorCode::RebalanceInProgress, effects);
        group.hash = group.topics_hash(env);
        group.hashed_at = Some(env.catalog.changes);
        effects.records.push(classic.tombstone());
        group.record_all(&mut effects.records);
        Ok(group)
    }

    /// All that it is, in Kafka's order; a group that was classic has no patterns.
    fn record_all(&self, records: &mut Vec<Record>) {
        let group = || self.id.to_string();
        let members = || {
            self.members
                .iter()
                .map(|(id, seat)| (id.to_string(), &seat.member))
        };
        let target_epoch = ConsumerGroupTargetAssignmentMetadataValue {
            assignment_epoch: self.target_epoch,
        };
        let target = |member: &Member| ConsumerGroupTargetAssignmentMemberValue {
            topic_partitions: listed(&member.target),
        };
        records.extend(members().map(|(id, m)| Record::Member(group(), id, Some(m.about.clone()))));
        records.push(self.record());
        records.extend(members().map(|(id, m)| Record::TargetMember(group(), id, Some(target(m)))));
        records.push(Record::TargetEpoch(group(), Some(target_epoch)));
        records.extend(members().map(|(id, m)| Record::Current(group(), id, Some(m.current()))));
    }

    /// The classic group that it has become by its last step, if it has; with the records of that.
    pub fn to_classic<W: Clone>(
        &self,
        env: &Env<'_>,
        effects: &mut Effects<W>,
    ) -> Option<ClassicGroup<W>> {
        let rebalance = self.downgrade?;
        let members = self.members.iter().filter_map(|(id, seat)| {
            let Member { about, target, .. } = &*seat.member;
            let classic = seat.member.classic()?;
            let protocols = &classic.supported_protocols;
            let first = protocols.first().map_or(&[][..], |first| &first.metadata);
            let version = protocol::version(first).unwrap_or_default();
            let member = MemberMetadata {
                member_id: id.to_string(),
                group_instance_id: about.instance_id.clone(),
                client_id: about.client_id.clone(),
                client_host: about.client_host.clone(),
                rebalance_timeout: about.rebalance_timeout_ms,
                session_timeout: classic.session_timeout_ms,
                subscription: Vec::new(),
                assignment: protocol::write(&consumer_assignment(target, env), version),
            };
            let protocols = protocols.iter().map(|known| JoinGroupRequestProtocol {
                name: known.name.clone(),
                metadata: known.metadata.clone(),
            });
            Some((member, protocols.collect()))
        });
        let mut classic = ClassicGroup::adopt(&self.id, self.epoch, members, env);
        effects.records.extend(self.tombstones());
        effects.records.push(classic.record());
        if rebalance {
            classic.rebalance(env, effects);
        }
        Some(classic)
    }

    /// Whether the group may go over to the classic protocol: it has members, and all of them speak that.
    pub(super) fn may_downgrade(&self, env: &Env<'_>) -> bool {
        let policy = env.config.group_consumer_migration_policy.as_str();
        let mut members = self.members.values();
        !self.members.is_empty()
            && members.all(|seat| seat.member.classic().is_some())
            && matches!(policy, "bidirectional" | "downgrade")
            && self.members.len() as i64 <= i64::from(env.config.group_max_size)
    }
}

/// What a member of a classic group said of itself, and what it was given.
fn read<W>(
    old: &classic::Member<W>,
    chosen: Option<&str>,
) -> Result<(ConsumerGroupMemberMetadataValue, ConsumerProtocolAssignment), Malformed> {
    let first = old.protocols.first().map(|known| known.name.as_str());
    let metadata = old.metadata(chosen.or(first).unwrap_or_default());
    let mut said: ConsumerProtocolSubscription = protocol::read(metadata)?;
    said.topics.sort_unstable();
    said.topics.dedup();
    let protocols = old.protocols.iter().map(|known| ClassicProtocol {
        name: known.name.clone(),
        metadata: known.metadata.clone(),
    });
    let about = ConsumerGroupMemberMetadataValue {
        instance_id: old.instance_id.clone(),
        rack_id: said.rack_id.filter(|rack| !rack.is_empty()),
        client_id: old.client_id.clone(),
        client_host: old.client_host.clone(),
        subscribed_topic_names: said.topics,
        subscribed_topic_regex: Some(String::new()),
        rebalance_timeout_ms: old.rebalance_timeout_ms,
        server_assignor: None,
        classic_member_metadata: Some(ClassicMemberMetadata {
            session_timeout_ms: old.session_timeout_ms,
            supported_protocols: protocols.collect(),
        }),
    };
    let assigned = match old.assignment.is_empty() {
        true => ConsumerProtocolAssignment::default(),
        false => protocol::read(&old.assignment)?,
    };
    Ok((about, assigned))
}
