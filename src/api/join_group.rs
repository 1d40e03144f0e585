//! JoinGroup (key 11): a member of a classic group waits for its generation.
//!
//! # Behavior
//! - The answer comes once every member has joined, or the rebalance's time is over.
//!
//! # Version notes
//! - v0-v1 have no throttle time; v1 has the rebalance timeout (KIP-62). v2: throttle time, v3: after the response
//!   (KIP-219).
//! - v4: a first join is answered MEMBER_ID_REQUIRED, with an id to join again with (KIP-394).
//! - v5: static members (KIP-345). v6: flexible (KIP-482). v7: the protocol's type in the answer (KIP-559).
//! - v8: a reason (KIP-800). v9: the leader may be told to keep the assignment that there is (KIP-814).

use super::{Call, Ended};
use crate::group::{Ask, Request, Response, Told};
use crate::server::waiting::Watch;
use crate::wire::messages;

messages! {
    JoinGroupRequest(11) [0-9, flexible 6+] {
        group_id: String [0+],
        session_timeout_ms: i32 [0+],
        rebalance_timeout_ms: i32 [1+] = -1,
        member_id: String [0+],
        group_instance_id: Option<String> [5+],
        protocol_type: String [0+],
        protocols: Vec<JoinGroupRequestProtocol> [0+],
        reason: Option<String> [8+],
    }
    JoinGroupRequestProtocol {
        name: String [0+],
        metadata: Vec<u8> [0+],
    }

    JoinGroupResponse(11) [0-9, flexible 6+] {
        throttle_time_ms: i32 [2+],
        error_code: i16 [0+],
        generation_id: i32 [0+] = -1,
        protocol_type: Option<String> [7+],
        protocol_name: Option<String> [0+ null 7+],
        leader: String [0+],
        skip_assignment: bool [9+],
        member_id: String [0+],
        members: Vec<JoinGroupResponseMember> [0+],
    }
    JoinGroupResponseMember {
        member_id: String [0+],
        group_instance_id: Option<String> [5+],
        metadata: Vec<u8> [0+],
    }
}

/// Asks the group and waits for its answer, which may take minutes.
pub fn handle(
    call: &mut Call<'_>,
    version: i16,
    request: JoinGroupRequest,
) -> Result<JoinGroupResponse, Ended> {
    match call.ask_group(
        version,
        Request::Member(Box::new(Ask::Join(request))),
        Watch::HangUp,
    )? {
        Response::Member(Told::Join(response)) => Ok(response),
        _ => Err(Ended),
    }
}
