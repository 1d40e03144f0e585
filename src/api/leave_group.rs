//! LeaveGroup (key 13): members leave a group, by their ids or by their static names.
//!
//! # Version notes
//! - v1: throttle time. v2: throttling happens after the response (KIP-219). v3: many members at once (KIP-345).
//! - v4: flexible (KIP-482). v5: a reason (KIP-800).

use super::{Call, Ended};
use crate::group::{Ask, Request, Response, Told};
use crate::server::waiting::Watch;
use crate::wire::messages;

messages! {
    LeaveGroupRequest(13) [0-5, flexible 4+] {
        group_id: String [0+],
        member_id: String [0-2],
        members: Vec<MemberIdentity> [3+],
    }
    MemberIdentity {
        member_id: String [3+],
        group_instance_id: Option<String> [3+],
        reason: Option<String> [5+],
    }

    LeaveGroupResponse(13) [0-5, flexible 4+] {
        throttle_time_ms: i32 [1+],
        error_code: i16 [0+],
        members: Vec<MemberResponse> [3+],
    }
    MemberResponse {
        member_id: String [3+],
        group_instance_id: Option<String> [3+],
        error_code: i16 [3+],
    }
}

/// Asks the group and waits for its answer.
pub fn handle(
    call: &mut Call<'_>,
    version: i16,
    request: LeaveGroupRequest,
) -> Result<LeaveGroupResponse, Ended> {
    match call.ask_group(
        version,
        Request::Member(Box::new(Ask::Leave(request))),
        Watch::Failure,
    )? {
        Response::Member(Told::Leave(response)) => Ok(response),
        _ => Err(Ended),
    }
}
