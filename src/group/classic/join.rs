//! JoinGroup in a classic group: who may join, under which id, and whether that starts a rebalance.
//!
//! Invariant: every path either answers the joiner at once or leaves it as its member's one waiting join.

use super::member::{Member, refused_join};
use super::{ClassicGroup, Phase, Wait};
use crate::api::join_group::{
    JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse, JoinGroupResponseMember,
};
use crate::error::ErrorCode;
use crate::group::protocol::known_to_all;
use crate::group::{Asker, Effects, Env, Told};
use crate::wire::Uuid;
use std::sync::Arc;

/// How long a new member's first join may wait (Kafka's `CLASSIC_GROUP_NEW_MEMBER_JOIN_TIMEOUT_MS`): it cannot send
/// heartbeats before it knows its id.
const NEW_MEMBER_JOIN_TIMEOUT_MS: i64 = 5 * 60 * 1000;

/// From this version on a first join is answered with an id to join again with (KIP-394).
const ID_REQUIRED_SINCE: i16 = 4;

/// How many ids may be given out and not come back yet: more than there are consumers that start together.
pub(super) const PENDING_MAX: usize = 10_000;

/// From this version on a leader can be told to keep the assignment that there is (KIP-814).
const SKIP_ASSIGNMENT_SINCE: i16 = 9;

impl<W: Clone> ClassicGroup<W> {
    pub(super) fn join(
        &mut self,
        request: JoinGroupRequest,
        asker: Asker<W>,
        env: &Env<'_>,
        effects: &mut Effects<W>,
    ) {
        let waiter = asker.waiter.clone();
        if let Some(response) = self.try_join(request, asker, env, effects) {
            effects.told.push((waiter, Told::Join(response)));
        }
    }

    /// The answer, if there is one at once.
    fn try_join(
        &mut self,
        mut request: JoinGroupRequest,
        asker: Asker<W>,
        env: &Env<'_>,
        effects: &mut Effects<W>,
    ) -> Option<JoinGroupResponse> {
        let refuse = |code| Some(refused_join(&request.member_id, code));
        let config = env.config;
        let timeouts = config.group_min_session_timeout_ms..=config.group_max_session_timeout_ms;
        if self.id.is_empty() {
            return refuse(ErrorCode::InvalidGroupId);
        }
        if !timeouts.contains(&request.session_timeout_ms) {
            return refuse(ErrorCode::InvalidSessionTimeout);
        }
        if !self.has_room_for(&request.member_id, config.group_max_size) {
            self.remove(&request.member_id, effects);
            return Some(refused_join("", ErrorCode::GroupMaxSizeReached));
        }
        if !self.fits(&request.protocol_type, &request.protocols) {
            return refuse(ErrorCode::InconsistentGroupProtocol);
        }
        if asker.version == 0 {
            request.rebalance_timeout_ms = request.session_timeout_ms;
        }
        if request.member_id.is_empty() {
            self.join_first(request, asker, env, effects)
        } else {
            self.join_again(request, asker, env, effects)
        }
    }

    /// While a rebalance prepares, those who already wait count: so the last to join again are the ones kept out.
    fn has_room_for(&self, member_id: &str, size_max: i32) -> bool {
        let is_below = |count: usize| count < usize::try_from(size_max).unwrap_or(0);
        let member = self.members.get(member_id);
        match self.phase {
            Phase::Empty => true,
            Phase::Preparing(_) => {
                let waiting = self.members.values().filter(|m| m.joining.is_some());
                member.is_some_and(|m| m.joining.is_some()) || is_below(waiting.count())
            }
            Phase::Completing | Phase::Stable => member.is_some() || is_below(self.members.len()),
        }
    }

    /// Whether the type is the group's, and all members know one of these protocols.
    fn fits(&self, protocol_type: &str, protocols: &[JoinGroupRequestProtocol]) -> bool {
        if matches!(self.phase, Phase::Empty) {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        let names = protocols.iter().map(|protocol| protocol.name.as_str());
        let members = self.members.values().map(|member| member.protocol_names());
        self.protocol_type.as_deref() == Some(protocol_type)
            && !known_to_all(names, members).is_empty()
    }

    fn join_first(
        &mut self,
        request: JoinGroupRequest,
        asker: Asker<W>,
        env: &Env<'_>,
        effects: &mut Effects<W>,
    ) -> Option<JoinGroupResponse> {
        let instance = request.group_instance_id.as_deref();
        let id = new_member_id(instance.unwrap_or(&asker.client_id), (env.new_id)());
        match instance.map(|instance| self.static_member(instance)) {
            Some(Some(old)) => self.replace(&old, &id, request, asker, env, effects),
            None if asker.version >= ID_REQUIRED_SINCE => {
                let due_ms = env.now_ms + i64::from(request.session_timeout_ms);
                let refusal = refused_join(&id, ErrorCode::MemberIdRequired);
                self.make_room_for_an_id();
                self.pending.insert(id.into(), due_ms);
                Some(refusal)
            }
            _ => self.add(&id, request, asker, env, effects),
        }
    }

    /// Ids that nobody comes back with cost each later step time: the oldest one goes, and who comes with it after
    /// all is told to begin again.
    fn make_room_for_an_id(&mut self) {
        if self.pending.len() >= PENDING_MAX {
            let oldest = self.pending.iter().min_by_key(|(_, due_ms)| **due_ms);
            let oldest = oldest.map(|(id, _)| id.clone());
            oldest.and_then(|id| self.pending.remove(&id));
        }
    }

    fn add(
        &mut self,
        id: &str,
        mut request: JoinGroupRequest,
        asker: Asker<W>,
        env: &Env<'_>,
        effects: &mut Effects<W>,
    ) -> Option<JoinGroupResponse> {
        if self.members.is_empty() {
            self.protocol_type = Some(std::mem::take(&mut request.protocol_type));
        }
        if let Phase::Preparing(Wait::First { extend, .. }) = &mut self.phase {
            *extend = true;
        }
        let id: Arc<str> = id.into();
        self.leader.get_or_insert_with(|| id.clone());
        self.pending.remove(&id);
        let due_ms = env.now_ms + NEW_MEMBER_JOIN_TIMEOUT_MS;
        let member = Member::joining(request, asker, due_ms);
        self.members.insert(id, Arc::new(member));
        self.rebalance_or_complete(env, effects);
        None
    }

    fn join_again(
        &mut self,
        request: JoinGroupRequest,
        asker: Asker<W>,
        env: &Env<'_>,
        effects: &mut Effects<W>,
    ) -> Option<JoinGroupResponse> {
        let id = request.member_id.clone();
        let instance = request.group_instance_id.as_deref();
        if self.pending.contains_key(&*id) {
            return match instance {
                None => self.add(&id, request, asker, env, effects),
                // A static member is given no id to come back with.
                Some(_) => Some(refused_join("", ErrorCode::UnknownServerError)),
            };
        }
        if let Err(code) = self.check_member(&id, instance) {
            return Some(refused_join(&id, code));
        }
        let unchanged = self.members.get(&*id)?.protocols == request.protocols;
        let keeps = match self.phase {
            Phase::Completing => unchanged,
            // The leader may see what its metadata does not say: that a topic has more partitions.
            Phase::Stable => unchanged && !self.leads(&id),
            Phase::Preparing(_) | Phase::Empty => false,
        };
        if keeps {
            // Its last answer may have been lost.
            return Some(self.joined(&id));
        }
        let member = self.member_mut(&id)?;
        // Kafka forgets the join that the new one takes the place of; here everyone is answered.
        member.tell_join(effects, || {
            refused_join(&id, ErrorCode::RebalanceInProgress)
        });
        member.update(request);
        member.joining = Some(asker.waiter);
        self.rebalance_or_complete(env, effects);
        None
    }

    /// A static member comes back without its id: it gets a new one, and all that the old one had.
    fn replace(
        &mut self,
        old: &str,
        id: &str,
        request: JoinGroupRequest,
        asker: Asker<W>,
        env: &Env<'_>,
        effects: &mut Effects<W>,
    ) -> Option<JoinGroupResponse> {
        let mut member = self.members.remove(old)?;
        let fenced = Arc::make_mut(&mut member);
        fenced.refuse(old, ErrorCode::FencedInstanceId, effects);
        fenced.is_new = false;
        fenced.touch(env.now_ms);
        let id: Arc<str> = id.into();
        self.members.insert(id.clone(), member);
        let leader_before = self.leader.clone();
        if self.leads(old) {
            self.leader = Some(id.clone());
        }
        self.member_mut(&id)?.update(request);
        if matches!(self.phase, Phase::Stable) && self.protocol == self.select() {
            effects.records.push(self.record());
            return Some(self.kept(&id, leader_before, asker.version));
        }
        self.member_mut(&id)?.joining = Some(asker.waiter);
        // Even if the group only waits for its leader, who may be assigning to the old id.
        self.rebalance_or_complete(env, effects);
        None
    }

    /// The answer to a static member that takes up what it had, without a rebalance.
    fn kept(&self, id: &str, leader_before: Option<Arc<str>>, version: i16) -> JoinGroupResponse {
        if version >= SKIP_ASSIGNMENT_SINCE {
            return JoinGroupResponse {
                skip_assignment: self.leads(id),
                ..self.joined(id)
            };
        }
        // A leader that cannot be told to skip is told that another one leads.
        JoinGroupResponse {
            leader: leader_before.as_deref().unwrap_or_default().to_owned(),
            members: Vec::new(),
            ..self.joined(id)
        }
    }

    /// What a member is told of the current generation.
    pub(super) fn joined(&self, id: &str) -> JoinGroupResponse {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let members = self.leads(id).then_some(&self.members);
        JoinGroupResponse {
            generation_id: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol.clone(),
            leader: self.leader.as_deref().unwrap_or_default().to_owned(),
            member_id: id.to_owned(),
            members: members
                .into_iter()
                .flatten()
                .map(|(id, member)| JoinGroupResponseMember {
                    member_id: id.to_string(),
                    group_instance_id: member.instance_id.clone(),
                    metadata: member.metadata(protocol).to_owned(),
                })
                .collect(),
            ..JoinGroupResponse::default()
        }
    }
}

/// A member's id as Kafka makes it: who, a dash, and a UUID in its usual form (RFC 9562).
fn new_member_id(who: &str, id: Uuid) -> String {
    let hex = format!("{:032x}", u128::from_be_bytes(id.0));
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| &hex[part]);
    format!("{who}-{}", parts.join("-"))
}
