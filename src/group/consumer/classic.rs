//! Members that speak the classic protocol in a consumer group, while its members go over to the new one or back:
//! each joins and syncs for itself, and is told by its heartbeats to join again when there is something to do.

use super::heartbeat::Coming;
use super::member::{Member, MemberState, Seat, gathered};
use super::patterns::Found;
use super::{ConsumerGroup, Fault};
use crate::api::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use crate::api::join_group::{JoinGroupRequest, JoinGroupResponse};
use crate::api::leave_group::{
    LeaveGroupRequest, LeaveGroupResponse, MemberIdentity, MemberResponse,
};
use crate::api::sync_group::{SyncGroupRequest, SyncGroupResponse};
use crate::error::ErrorCode;
use crate::group::assignors::Assignment;
use crate::group::protocol::{
    self, ConsumerProtocolAssignment, ConsumerProtocolSubscription, PROTOCOL_TYPE, TopicPartitions,
};
use crate::group::records::{
    ClassicMemberMetadata, ClassicProtocol, ConsumerGroupMemberMetadataValue, Record,
};
use crate::group::{Asker, Env};
use std::collections::BTreeSet;
use std::sync::Arc;

impl ConsumerGroup {
    pub(super) fn classic_join<W>(
        &mut self,
        request: JoinGroupRequest,
        asker: &Asker<W>,
        env: &Env<'_>,
        records: &mut Vec<Record>,
    ) -> JoinGroupResponse {
        let mut member_id = request.member_id.clone();
        if member_id.is_empty() {
            member_id = (env.new_id)().to_string();
        }
        let joined = self.try_join(&member_id, request, asker, env, records);
        joined.unwrap_or_else(|(code, _)| JoinGroupResponse {
            error_code: code.code(),
            member_id: match code {
                ErrorCode::MemberIdRequired => member_id,
                _ => String::new(),
            },
            ..JoinGroupResponse::default()
        })
    }

    fn try_join<W>(
        &mut self,
        member_id: &str,
        request: JoinGroupRequest,
        asker: &Asker<W>,
        env: &Env<'_>,
        records: &mut Vec<Record>,
    ) -> Result<JoinGroupResponse, Fault> {
        let is_unknown = request.member_id.is_empty();
        let instance_id = request.group_instance_id.as_deref();
        self.check_room(member_id, env)?;
        self.check_protocols(&request)?;
        if is_unknown && instance_id.is_none() && asker.version >= 4 {
            return Err((ErrorCode::MemberIdRequired, String::new()));
        }
        let (id, member, replaces) = match (instance_id, is_unknown) {
            (None, _) | (Some(_), true) => self.joining(member_id, instance_id, true)?,
            (Some(_), false) => {
                let (id, seat) = self.known(member_id, instance_id)?;
                (id.clone(), seat.member.clone(), None)
            }
        };
        // check_protocols has seen that there is one.
        let first = request.protocols.first().cloned().unwrap_or_default();
        let said: ConsumerProtocolSubscription = protocol::read(&first.metadata)
            .map_err(|error| (ErrorCode::UnknownServerError, error.to_string()))?;
        let owned = assignment(&said.owned_partitions, env);
        let holder = instance_id.and_then(|name| self.static_member(name));
        let holder_is_new = holder.is_some_and(|(_, seat)| seat.member.classic().is_none());
        let session_timeout_ms = i64::from(request.session_timeout_ms);
        let rebalance_timeout_ms = match asker.version {
            0 => request.session_timeout_ms,
            _ => request.rebalance_timeout_ms,
        };
        let about = about(&member.about, request, rebalance_timeout_ms, said, asker);
        let about = Some(about).filter(|about| *about != member.about);
        let coming = Coming {
            id: id.clone(),
            member,
            about,
            replaces,
        };
        let resubscribed = self.seat(coming, &Found::default(), env, records)?;
        if !(holder_is_new && self.may_downgrade(env)) {
            self.proceed(&id, resubscribed, Some(&owned), env, records);
        } else {
            // The last member of the new protocol was replaced: if it wants the same, the target stays as it is,
            // and if not, the classic group makes its own.
            if !resubscribed {
                self.reconcile(&id, Some(&owned), env, records);
            }
            self.downgrade = Some(resubscribed);
        }
        let seat = self.members.get_mut(&id);
        let generation_id = seat.map_or(0, |seat| {
            seat.join_ms = None;
            seat.session_ms = env.now_ms + session_timeout_ms;
            seat.sync_ms = Some(env.now_ms + i64::from(rebalance_timeout_ms));
            seat.member.epoch
        });
        Ok(JoinGroupResponse {
            generation_id,
            protocol_type: Some(PROTOCOL_TYPE.to_owned()),
            protocol_name: Some(first.name),
            member_id: id.to_string(),
            ..JoinGroupResponse::default()
        })
    }

    /// Whether the member is a consumer and knows a protocol that all others of the classic protocol know.
    fn check_protocols(&self, request: &JoinGroupRequest) -> Result<(), Fault> {
        let members = self
            .members
            .values()
            .filter_map(|seat| seat.member.classic());
        let members = members.map(|member| {
            let known = member.supported_protocols.iter();
            known.map(|known| known.name.as_str())
        });
        let names = request.protocols.iter();
        let names = names.map(|protocol| protocol.name.as_str());
        let common = protocol::known_to_all(names, members);
        if request.protocol_type != PROTOCOL_TYPE || common.is_empty() {
            return Err((ErrorCode::InconsistentGroupProtocol, String::new()));
        }
        Ok(())
    }

    pub(super) fn classic_sync(
        &mut self,
        request: SyncGroupRequest,
        env: &Env<'_>,
    ) -> SyncGroupResponse {
        let synced = self.try_sync(request, env);
        synced.unwrap_or_else(|(code, _)| SyncGroupResponse {
            error_code: code.code(),
            ..SyncGroupResponse::default()
        })
    }

    fn try_sync(
        &mut self,
        request: SyncGroupRequest,
        env: &Env<'_>,
    ) -> Result<SyncGroupResponse, Fault> {
        let fault = |code| Err((code, String::new()));
        let group_epoch = self.epoch;
        let instance_id = request.group_instance_id.as_deref();
        let (seat, session_timeout_ms) =
            self.classic_member(&request.member_id, instance_id, request.generation_id)?;
        let classic = seat.member.classic().into_iter();
        let mut protocols = classic.flat_map(|classic| &classic.supported_protocols);
        let first = protocols.next().cloned().unwrap_or_default();
        let differs =
            |said: &Option<String>, is: &str| said.as_deref().is_some_and(|said| said != is);
        if differs(&request.protocol_type, PROTOCOL_TYPE)
            || differs(&request.protocol_name, &first.name)
        {
            return fault(ErrorCode::InconsistentGroupProtocol);
        }
        if group_epoch > seat.member.epoch && seat.member.state != MemberState::Unrevoked {
            seat.expect_join(env);
            return fault(ErrorCode::RebalanceInProgress);
        }
        seat.sync_ms = None;
        seat.session_ms = env.now_ms + session_timeout_ms;
        // A version that cannot be read was refused at the join.
        let version = protocol::version(&first.metadata).unwrap_or_default();
        Ok(SyncGroupResponse {
            protocol_type: request.protocol_type,
            protocol_name: request.protocol_name,
            assignment: protocol::write(&consumer_assignment(&seat.member.assigned, env), version),
            ..SyncGroupResponse::default()
        })
    }

    pub(super) fn classic_heartbeat(
        &mut self,
        request: &HeartbeatRequest,
        env: &Env<'_>,
    ) -> HeartbeatResponse {
        let code = match self.try_heartbeat(request, env) {
            Ok(()) => ErrorCode::None,
            Err((code, _)) => code,
        };
        HeartbeatResponse {
            error_code: code.code(),
            ..HeartbeatResponse::default()
        }
    }

    fn try_heartbeat(&mut self, request: &HeartbeatRequest, env: &Env<'_>) -> Result<(), Fault> {
        let instance_id = request.group_instance_id.as_deref();
        let group_epoch = self.epoch;
        let waits = match self.members.get(request.member_id.as_str()) {
            Some(seat) if seat.member.state == MemberState::Unreleased => !self
                .taken(&request.member_id, &seat.member.target)
                .is_empty(),
            _ => false,
        };
        let (seat, session_timeout_ms) =
            self.classic_member(&request.member_id, instance_id, request.generation_id)?;
        seat.session_ms = env.now_ms + session_timeout_ms;
        let must_join = match seat.member.state {
            MemberState::Stable => false,
            MemberState::Unrevoked => true,
            MemberState::Unreleased => !waits,
        };
        if must_join || seat.member.epoch < group_epoch {
            seat.expect_join(env);
            return Err((ErrorCode::RebalanceInProgress, String::new()));
        }
        Ok(())
    }

    /// The member that a request of the classic protocol is from, at its generation, and its session's length in ms.
    fn classic_member(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(&mut Seat, i64), Fault> {
        let id = self.known(member_id, instance_id)?.0.clone();
        let unknown = || (ErrorCode::UnknownMemberId, String::new());
        let seat = self.members.get_mut(&id).ok_or_else(unknown)?;
        let Member { epoch, .. } = *seat.member;
        let classic = seat.member.classic().ok_or_else(unknown)?;
        let session_timeout_ms = i64::from(classic.session_timeout_ms);
        if epoch != generation {
            return Err((ErrorCode::IllegalGeneration, String::new()));
        }
        Ok((seat, session_timeout_ms))
    }

    pub(super) fn classic_leave(
        &mut self,
        mut request: LeaveGroupRequest,
        version: i16,
        env: &Env<'_>,
        records: &mut Vec<Record>,
    ) -> LeaveGroupResponse {
        if version < 3 {
            request.members = vec![MemberIdentity {
                member_id: request.member_id,
                ..MemberIdentity::default()
            }];
        }
        let mut leaving = BTreeSet::new();
        let mut members = Vec::new();
        for identity in request.members {
            let found = match (&identity.group_instance_id, identity.member_id.as_str()) {
                // An administrator need not know the member's id.
                (Some(instance), "") => self.static_member(instance).map(|(id, _)| id.clone()),
                _ => None,
            };
            let instance_id = identity.group_instance_id.as_deref();
            let found = match found {
                Some(id) => Ok(id),
                None => {
                    let known = self.known(&identity.member_id, instance_id);
                    known.map(|(id, _)| id.clone()).map_err(|(code, _)| code)
                }
            };
            members.push(MemberResponse {
                error_code: found.as_ref().err().map_or(0, |code| code.code()),
                member_id: identity.member_id,
                group_instance_id: identity.group_instance_id,
            });
            leaving.extend(found.ok());
        }
        let leaving: Vec<Arc<str>> = leaving.into_iter().collect();
        self.fence(&leaving, env, records);
        match version {
            ..3 => LeaveGroupResponse {
                error_code: members.first().map_or(0, |member| member.error_code),
                ..LeaveGroupResponse::default()
            },
            _ => LeaveGroupResponse {
                members,
                ..LeaveGroupResponse::default()
            },
        }
    }
}

impl Seat {
    /// It was told to join, and has the time of a rebalance for that; being told again gives no more.
    fn expect_join(&mut self, env: &Env<'_>) {
        let due_ms = env.now_ms + i64::from(self.member.about.rebalance_timeout_ms);
        self.join_ms.get_or_insert(due_ms);
    }
}

/// What a member of the classic protocol says of itself, by its join.
fn about<W>(
    before: &ConsumerGroupMemberMetadataValue,
    request: JoinGroupRequest,
    rebalance_timeout_ms: i32,
    mut said: ConsumerProtocolSubscription,
    asker: &Asker<W>,
) -> ConsumerGroupMemberMetadataValue {
    said.topics.sort_unstable();
    said.topics.dedup();
    let rack_id = said.rack_id.filter(|rack| !rack.is_empty());
    let protocols = request.protocols.into_iter();
    let protocols = protocols.map(|protocol| ClassicProtocol {
        name: protocol.name,
        metadata: protocol.metadata,
    });
    ConsumerGroupMemberMetadataValue {
        instance_id: request.group_instance_id.or(before.instance_id.clone()),
        rack_id: rack_id.or(before.rack_id.clone()),
        client_id: asker.client_id.clone(),
        client_host: asker.client_host.clone(),
        subscribed_topic_names: said.topics,
        // Patterns of classic members are their own affair.
        subscribed_topic_regex: Some(String::new()),
        rebalance_timeout_ms: match rebalance_timeout_ms {
            -1 => before.rebalance_timeout_ms,
            timeout_ms => timeout_ms,
        },
        server_assignor: before.server_assignor.clone(),
        classic_member_metadata: Some(ClassicMemberMetadata {
            session_timeout_ms: request.session_timeout_ms,
            supported_protocols: protocols.collect(),
        }),
    }
}

/// By topic ids, from what a consumer says by names; topics that are not there are left out.
pub(super) fn assignment(topics: &[TopicPartitions], env: &Env<'_>) -> Assignment {
    let pairs = topics.iter().flat_map(|topic| {
        let known = env.catalog.topics.get(&topic.topic);
        let partitions = known.map(|known| (known.id, &topic.partitions)).into_iter();
        partitions.flat_map(|(id, partitions)| partitions.iter().map(move |index| (id, *index)))
    });
    gathered(pairs)
}

/// By names, for a consumer; topics that are gone are left out.
pub(super) fn consumer_assignment(
    assignment: &Assignment,
    env: &Env<'_>,
) -> ConsumerProtocolAssignment {
    let topics = assignment.iter().filter_map(|(topic, partitions)| {
        Some(TopicPartitions {
            topic: env.catalog.name_of(*topic)?.to_owned(),
            partitions: partitions.iter().copied().collect(),
        })
    });
    ConsumerProtocolAssignment {
        assigned_partitions: topics.collect(),
        user_data: None,
    }
}
