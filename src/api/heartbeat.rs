//! Heartbeat (key 12): a member of a classic group is alive, and hears of a rebalance.
//!
//! # Version notes
//! - v1: throttle time. v2: throttling happens after the response (KIP-219). v3: static members (KIP-345).
//! - v4: flexible (KIP-482).

use super::{Call, Ended};
use crate::group::{Ask, Request, Response, Told};
use crate::server::waiting::Watch;
use crate::wire::messages;

messages! {
    HeartbeatRequest(12) [0-4, flexible 4+] {
        group_id: String [0+],
        generation_id: i32 [0+],
        member_id: String [0+],
        group_instance_id: Option<String> [3+],
    }

    HeartbeatResponse(12) [0-4, flexible 4+] {
        throttle_time_ms: i32 [1+],
        error_code: i16 [0+],
    }
}

/// Asks the group and waits for its answer.
pub fn handle(
    call: &mut Call<'_>,
    version: i16,
    request: HeartbeatRequest,
) -> Result<HeartbeatResponse, Ended> {
    match call.ask_group(
        version,
        Request::Member(Box::new(Ask::Heartbeat(request))),
        Watch::Failure,
    )? {
        Response::Member(Told::Heartbeat(response)) => Ok(response),
        _ => Err(Ended),
    }
}
