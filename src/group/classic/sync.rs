//! SyncGroup, Heartbeat and LeaveGroup in a classic group.

use super::member::refused_sync;
use super::{ClassicGroup, Phase};
use crate::api::heartbeat::HeartbeatRequest;
use crate::api::leave_group::{
    LeaveGroupRequest, LeaveGroupResponse, MemberIdentity, MemberResponse,
};
use crate::api::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse};
use crate::error::ErrorCode;
use crate::group::{Asker, Effects, Env, Told};
use std::collections::HashMap;
use std::sync::Arc;

/// From this version on a SyncGroup names protocol type and protocol (KIP-559).
const PROTOCOL_NAMED_SINCE: i16 = 5;

/// From this version on a LeaveGroup names many members, and is answered member by member (KIP-345).
const MANY_LEAVE_SINCE: i16 = 3;

impl<W: Clone> ClassicGroup<W> {
    pub(super) fn sync(
        &mut self,
        request: SyncGroupRequest,
        asker: Asker<W>,
        env: &Env<'_>,
        effects: &mut Effects<W>,
    ) {
        let id = request.member_id.as_str();
        let checked = self.check_sync(&request, asker.version);
        let leads = self.leads(id);
        let completing = matches!(self.phase, Phase::Completing);
        let waiter = match (checked, self.member_mut(id)) {
            (Ok(()), Some(member)) if completing => {
                member.tell_sync(effects, || refused_sync(ErrorCode::RebalanceInProgress));
                member.syncing = Some(asker.waiter);
                member.owes_sync = false;
                if leads {
                    self.assign(request.assignments, env, effects);
                }
                return;
            }
            (Ok(()), Some(member)) => {
                member.owes_sync = false;
                self.synced(id)
            }
            (Ok(()), None) => refused_sync(ErrorCode::UnknownMemberId),
            (Err(code), _) => refused_sync(code),
        };
        effects.told.push((asker.waiter, Told::Sync(waiter)));
    }

    fn check_sync(&self, request: &SyncGroupRequest, version: i16) -> Result<(), ErrorCode> {
        let named = (&request.protocol_type, &request.protocol_name);
        let differs = |named: &Option<String>, own: &Option<String>| {
            named.is_some() && own.is_some() && named != own
        };
        if version >= PROTOCOL_NAMED_SINCE && (named.0.is_none() || named.1.is_none()) {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        if self.id.is_empty() {
            return Err(ErrorCode::InvalidGroupId);
        }
        self.check_member(&request.member_id, request.group_instance_id.as_deref())?;
        if request.generation_id != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        if differs(named.0, &self.protocol_type) || differs(named.1, &self.protocol) {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        match self.phase {
            Phase::Preparing(_) => Err(ErrorCode::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    /// The leader's assignment: recorded, then told to all who wait.
    fn assign(
        &mut self,
        assignments: Vec<SyncGroupRequestAssignment>,
        env: &Env<'_>,
        effects: &mut Effects<W>,
    ) {
        let parts = assignments.into_iter();
        let mut parts: HashMap<_, _> = parts
            .map(|part| (part.member_id, part.assignment))
            .collect();
        for (id, member) in &mut self.members {
            Arc::make_mut(member).assignment = parts.remove(&**id).unwrap_or_default();
        }
        effects.records.push(self.record());
        self.enter(Phase::Stable, env);
        for id in self.ids() {
            let response = self.synced(&id);
            if let Some(member) = self.member_mut(&id)
                && member.tell_sync(effects, || response)
            {
                member.touch(env.now_ms);
            }
        }
    }

    /// What a member is told that it got.
    fn synced(&self, id: &str) -> SyncGroupResponse {
        let member = self.members.get(id);
        SyncGroupResponse {
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol.clone(),
            assignment: member.map_or_else(Vec::new, |member| member.assignment.clone()),
            ..SyncGroupResponse::default()
        }
    }

    pub(super) fn heartbeat(&mut self, request: &HeartbeatRequest, env: &Env<'_>) -> ErrorCode {
        if self.id.is_empty() {
            return ErrorCode::InvalidGroupId;
        }
        let id = request.member_id.as_str();
        if let Err(code) = self.check_member(id, request.group_instance_id.as_deref()) {
            return code;
        }
        if request.generation_id != self.generation {
            return ErrorCode::IllegalGeneration;
        }
        if let Some(member) = self.member_mut(id) {
            member.touch(env.now_ms);
        }
        match self.phase {
            Phase::Preparing(_) => ErrorCode::RebalanceInProgress,
            _ => ErrorCode::None,
        }
    }

    pub(super) fn leave(
        &mut self,
        request: LeaveGroupRequest,
        version: i16,
        env: &Env<'_>,
        effects: &mut Effects<W>,
    ) -> LeaveGroupResponse {
        let failed = |code: ErrorCode| LeaveGroupResponse {
            error_code: code.code(),
            ..LeaveGroupResponse::default()
        };
        if self.id.is_empty() {
            return failed(ErrorCode::InvalidGroupId);
        }
        if version < MANY_LEAVE_SINCE {
            let leaving = MemberIdentity {
                member_id: request.member_id,
                ..MemberIdentity::default()
            };
            let left = self.leave_one(&leaving, effects);
            self.some_left(left.is_ok(), env, effects);
            return failed(left.err().unwrap_or(ErrorCode::None));
        }
        let mut any_left = false;
        let leaving = request.members.into_iter();
        let members = leaving.map(|leaving| {
            let left = self.leave_one(&leaving, effects);
            any_left |= left.is_ok();
            MemberResponse {
                member_id: leaving.member_id,
                group_instance_id: leaving.group_instance_id,
                error_code: left.err().unwrap_or(ErrorCode::None).code(),
            }
        });
        let members = members.collect();
        self.some_left(any_left, env, effects);
        LeaveGroupResponse {
            members,
            ..LeaveGroupResponse::default()
        }
    }

    /// An administrator names a static member without its id.
    fn leave_one(
        &mut self,
        leaving: &MemberIdentity,
        effects: &mut Effects<W>,
    ) -> Result<(), ErrorCode> {
        let id = leaving.member_id.as_str();
        let instance = leaving.group_instance_id.as_deref();
        if id.is_empty() {
            let holder = instance.and_then(|instance| self.static_member(instance));
            let holder = holder.ok_or(ErrorCode::UnknownMemberId)?;
            self.remove(&holder, effects);
            return Ok(());
        }
        if !self.pending.contains_key(id) {
            self.check_member(id, instance)?;
        }
        self.remove(id, effects);
        Ok(())
    }

    fn some_left(&mut self, any_left: bool, env: &Env<'_>, effects: &mut Effects<W>) {
        if any_left && !matches!(self.phase, Phase::Empty) {
            self.rebalance_or_complete(env, effects);
        }
    }
}
