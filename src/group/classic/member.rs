//! A member of a classic group: what it said about itself, what it was given, and what it waits for.
//!
//! Invariant: a waiter is taken out of its member by whoever answers it, so none is answered twice.

use crate::api::describe_groups::DescribedGroupMember;
use crate::api::join_group::{JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse};
use crate::api::sync_group::SyncGroupResponse;
use crate::error::ErrorCode;
use crate::group::records::MemberMetadata;
use crate::group::{Asker, Effects, Told};

/// A member.
#[derive(Clone, Debug)]
pub struct Member<W> {
    /// Its static name (KIP-345).
    pub instance_id: Option<String>,
    /// From the header of its first join.
    pub client_id: String,
    /// From where it first joined.
    pub client_host: String,
    /// How long it may be silent.
    pub session_timeout_ms: i32,
    /// How long it may take to join again, and to sync.
    pub rebalance_timeout_ms: i32,
    /// The protocols (assignors) that it knows, the best first, with what it says to each.
    pub protocols: Vec<JoinGroupRequestProtocol>,
    /// What the last leader gave it.
    pub assignment: Vec<u8>,
    /// Its JoinGroup that is not answered yet.
    pub(super) joining: Option<W>,
    /// Its SyncGroup that is not answered yet.
    pub(super) syncing: Option<W>,
    /// It has never been told of a generation.
    pub(super) is_new: bool,
    /// It was told of this generation and has not asked for its assignment yet.
    pub(super) owes_sync: bool,
    /// When its silence has lasted too long, on CLOCK_BOOTTIME.
    pub(super) session_due_ms: i64,
}

impl<W> Member<W> {
    /// A member as it was recorded, with the protocols that it knows; its session begins now.
    pub(super) fn recorded(
        recorded: MemberMetadata,
        protocols: Vec<JoinGroupRequestProtocol>,
        now_ms: i64,
    ) -> Member<W> {
        // Before version 1 of the record there was one time-out.
        let rebalance_timeout_ms = match recorded.rebalance_timeout {
            -1 => recorded.session_timeout,
            timeout_ms => timeout_ms,
        };
        Member {
            instance_id: recorded.group_instance_id,
            client_id: recorded.client_id,
            client_host: recorded.client_host,
            session_timeout_ms: recorded.session_timeout,
            rebalance_timeout_ms,
            protocols,
            assignment: recorded.assignment,
            joining: None,
            syncing: None,
            is_new: false,
            owes_sync: false,
            session_due_ms: now_ms + i64::from(recorded.session_timeout),
        }
    }

    /// About how much memory it takes.
    pub(super) fn bytes(&self) -> usize {
        let protocols = self.protocols.iter();
        let said = protocols.map(|protocol| 64 + protocol.name.len() + protocol.metadata.len());
        let names = self.client_id.len()
            + self.client_host.len()
            + self.instance_id.as_ref().map_or(0, String::len);
        512 + names + said.sum::<usize>() + self.assignment.len()
    }

    /// A member by its first join, which waits for the answer until `session_due_ms`.
    pub(super) fn joining(
        request: JoinGroupRequest,
        asker: Asker<W>,
        session_due_ms: i64,
    ) -> Member<W> {
        Member {
            instance_id: request.group_instance_id,
            client_id: asker.client_id,
            client_host: asker.client_host,
            session_timeout_ms: request.session_timeout_ms,
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            protocols: request.protocols,
            assignment: Vec::new(),
            joining: Some(asker.waiter),
            syncing: None,
            is_new: true,
            owes_sync: false,
            session_due_ms,
        }
    }

    /// What it says to a protocol; empty if it does not know it.
    pub fn metadata(&self, protocol: &str) -> &[u8] {
        let mut protocols = self.protocols.iter();
        protocols
            .find(|known| known.name == protocol)
            .map_or(&[], |known| &known.metadata)
    }

    /// The names of the protocols that it knows, the best first.
    pub fn protocol_names(&self) -> impl Iterator<Item = &str> {
        self.protocols.iter().map(|known| known.name.as_str())
    }

    /// Takes what a later join says.
    pub(super) fn update(&mut self, request: JoinGroupRequest) {
        self.session_timeout_ms = request.session_timeout_ms;
        self.rebalance_timeout_ms = request.rebalance_timeout_ms;
        self.protocols = request.protocols;
    }

    /// It gave a sign of life.
    pub(super) fn touch(&mut self, now_ms: i64) {
        self.session_due_ms = now_ms + i64::from(self.session_timeout_ms);
    }

    /// When its session ends. One that waits for the broker need not be heard of, unless it is new: then it cannot
    /// know its id yet, and may have gone while it waited.
    pub(super) fn session_due_ms(&self) -> Option<i64> {
        let waits = self.joining.is_some() || self.syncing.is_some();
        (self.is_new || !waits).then_some(self.session_due_ms)
    }

    /// Answers its join, if it waits for that.
    pub(super) fn tell_join(
        &mut self,
        effects: &mut Effects<W>,
        response: impl FnOnce() -> JoinGroupResponse,
    ) {
        if let Some(waiter) = self.joining.take() {
            effects.told.push((waiter, Told::Join(response())));
        }
    }

    /// Answers its sync; false if it does not wait for that.
    pub(super) fn tell_sync(
        &mut self,
        effects: &mut Effects<W>,
        response: impl FnOnce() -> SyncGroupResponse,
    ) -> bool {
        let waiter = self.syncing.take();
        let told = waiter.map(|waiter| (waiter, Told::Sync(response())));
        let waited = told.is_some();
        effects.told.extend(told);
        waited
    }

    /// Answers whatever it waits for with an error; `member_id` is what the answer to a join calls it.
    pub(super) fn refuse(&mut self, member_id: &str, code: ErrorCode, effects: &mut Effects<W>) {
        self.tell_join(effects, || refused_join(member_id, code));
        self.tell_sync(effects, || refused_sync(code));
    }

    /// As it is recorded.
    pub(super) fn record(&self, id: &str, protocol: &str) -> MemberMetadata {
        MemberMetadata {
            member_id: id.to_owned(),
            group_instance_id: self.instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            rebalance_timeout: self.rebalance_timeout_ms,
            session_timeout: self.session_timeout_ms,
            subscription: self.metadata(protocol).to_owned(),
            assignment: self.assignment.clone(),
        }
    }

    /// As DescribeGroups shows it; without its metadata if no protocol is chosen.
    pub(super) fn describe(&self, id: &str, protocol: Option<&str>) -> DescribedGroupMember {
        DescribedGroupMember {
            member_id: id.to_owned(),
            group_instance_id: self.instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            member_metadata: protocol.map_or(&[][..], |name| self.metadata(name)).into(),
            member_assignment: self.assignment.clone(),
        }
    }
}

/// A JoinGroup answer that is an error.
pub(super) fn refused_join(member_id: &str, code: ErrorCode) -> JoinGroupResponse {
    JoinGroupResponse {
        error_code: code.code(),
        member_id: member_id.to_owned(),
        ..JoinGroupResponse::default()
    }
}

/// A SyncGroup answer that is an error.
pub(super) fn refused_sync(code: ErrorCode) -> SyncGroupResponse {
    SyncGroupResponse {
        error_code: code.code(),
        ..SyncGroupResponse::default()
    }
}
