//! DescribeGroups (key 15): a classic group's state and members.
//!
//! # Version notes
//! - v1: throttle time. v2: throttling happens after the response (KIP-219). v3: authorized operations (KIP-430).
//! - v4: static members (KIP-345). v5: flexible (KIP-482). v6: GROUP_ID_NOT_FOUND, with a message (KIP-1043).

use super::{Call, Ended, operations};
use crate::group::{Read, Request, Response};
use crate::server::waiting::Watch;
use crate::wire::messages;

messages! {
    DescribeGroupsRequest(15) [0-6, flexible 5+] {
        groups: Vec<String> [0+],
        include_authorized_operations: bool [3+],
    }

    DescribeGroupsResponse(15) [0-6, flexible 5+] {
        throttle_time_ms: i32 [1+],
        groups: Vec<DescribedGroup> [0+],
    }
    DescribedGroup {
        error_code: i16 [0+],
        error_message: Option<String> [6+],
        group_id: String [0+],
        group_state: String [0+],
        protocol_type: String [0+],
        protocol_data: String [0+],
        members: Vec<DescribedGroupMember> [0+],
        authorized_operations: i32 [3+] = -2147483648,
    }
    DescribedGroupMember {
        member_id: String [0+],
        group_instance_id: Option<String> [4+],
        client_id: String [0+],
        client_host: String [0+],
        member_metadata: Vec<u8> [0+],
        member_assignment: Vec<u8> [0+],
    }
}

/// Describes groups; who asks is told what may be done to them, if it asks for that.
pub fn handle(
    call: &mut Call<'_>,
    version: i16,
    request: DescribeGroupsRequest,
) -> Result<DescribeGroupsResponse, Ended> {
    let asks = request.include_authorized_operations;
    let read = Request::Read(Read::Describe(request, version));
    match call.ask_group(version, read, Watch::Failure)? {
        Response::Described(mut response) => {
            for group in response
                .groups
                .iter_mut()
                .filter(|group| asks && group.error_code == 0)
            {
                group.authorized_operations = operations::GROUP;
            }
            Ok(response)
        }
        _ => Err(Ended),
    }
}
