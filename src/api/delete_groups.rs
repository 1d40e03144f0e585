//! DeleteGroups (key 42): groups without members, and their offsets, are taken away (KIP-229).
//!
//! # Version notes
//! - v1: throttling happens after the response (KIP-219). v2: flexible (KIP-482).

use super::{Call, Ended};
use crate::group::{Request, Response};
use crate::server::waiting::Watch;
use crate::wire::messages;

messages! {
    DeleteGroupsRequest(42) [0-2, flexible 2+] {
        groups_names: Vec<String> [0+],
    }

    DeleteGroupsResponse(42) [0-2, flexible 2+] {
        throttle_time_ms: i32 [0+],
        results: Vec<DeletableGroupResult> [0+],
    }
    DeletableGroupResult {
        group_id: String [0+],
        error_code: i16 [0+],
    }
}

/// Takes groups away, one after another; each is answered once that is synced.
pub fn handle(
    call: &mut Call<'_>,
    version: i16,
    request: DeleteGroupsRequest,
) -> Result<DeleteGroupsResponse, Ended> {
    let mut response = DeleteGroupsResponse::default();
    for group_id in request.groups_names {
        let delete = Request::Delete(group_id.clone());
        let error_code = match call.ask_group(version, delete, Watch::Failure)? {
            Response::Deleted(code) => code.code(),
            _ => return Err(Ended),
        };
        response.results.push(DeletableGroupResult {
            group_id,
            error_code,
        });
    }
    Ok(response)
}
