//! SyncGroup (key 14): the leader of a classic group brings the assignment, and each member gets its own.
//!
//! # Version notes
//! - v1: throttle time. v2: throttling happens after the response (KIP-219). v3: static members (KIP-345).
//! - v4: flexible (KIP-482). v5: the protocol's type and name, to be checked (KIP-559).

use super::{Call, Ended};
use crate::group::{Ask, Request, Response, Told};
use crate::server::waiting::Watch;
use crate::wire::messages;

messages! {
    SyncGroupRequest(14) [0-5, flexible 4+] {
        group_id: String [0+],
        generation_id: i32 [0+],
        member_id: String [0+],
        group_instance_id: Option<String> [3+],
        protocol_type: Option<String> [5+],
        protocol_name: Option<String> [5+],
        assignments: Vec<SyncGroupRequestAssignment> [0+],
    }
    SyncGroupRequestAssignment {
        member_id: String [0+],
        assignment: Vec<u8> [0+],
    }

    SyncGroupResponse(14) [0-5, flexible 4+] {
        throttle_time_ms: i32 [1+],
        error_code: i16 [0+],
        protocol_type: Option<String> [5+],
        protocol_name: Option<String> [5+],
        assignment: Vec<u8> [0+],
    }
}

/// Asks the group and waits for its answer, which waits for the leader's.
pub fn handle(
    call: &mut Call<'_>,
    version: i16,
    request: SyncGroupRequest,
) -> Result<SyncGroupResponse, Ended> {
    match call.ask_group(
        version,
        Request::Member(Box::new(Ask::Sync(request))),
        Watch::HangUp,
    )? {
        Response::Member(Told::Sync(response)) => Ok(response),
        _ => Err(Ended),
    }
}
