//! ListGroups (key 16): every group that there is.
//!
//! # Version notes
//! - v1: throttle time. v2: throttling happens after the response (KIP-219). v3: flexible (KIP-482).
//! - v4: states, and a choice of them (KIP-518). v5: types, and a choice of them (KIP-848).

use super::{Call, Ended};
use crate::group::{Read, Request, Response};
use crate::server::waiting::Watch;
use crate::wire::messages;

messages! {
    ListGroupsRequest(16) [0-5, flexible 3+] {
        states_filter: Vec<String> [4+],
        types_filter: Vec<String> [5+],
    }

    ListGroupsResponse(16) [0-5, flexible 3+] {
        throttle_time_ms: i32 [1+],
        error_code: i16 [0+],
        groups: Vec<ListedGroup> [0+],
    }
    ListedGroup {
        group_id: String [0+],
        protocol_type: String [0+],
        group_state: String [4+],
        group_type: String [5+],
    }
}

/// Lists the groups.
pub fn handle(
    call: &mut Call<'_>,
    version: i16,
    request: ListGroupsRequest,
) -> Result<ListGroupsResponse, Ended> {
    let read = Request::Read(Read::List(request));
    match call.ask_group(version, read, Watch::Failure)? {
        Response::List(response) => Ok(response),
        _ => Err(Ended),
    }
}
