//! DeleteGroups (key 42): groups without members, and their offsets, are taken away (KIP-229).
//!
//! # Version notes
//! - v1: throttling happens after the response (KIP-219). v2: flexible (KIP-482).

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
