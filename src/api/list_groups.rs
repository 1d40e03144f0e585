//! ListGroups (key 16): every group that there is.
//!
//! # Version notes
//! - v1: throttle time. v2: throttling happens after the response (KIP-219). v3: flexible (KIP-482).
//! - v4: states, and a choice of them (KIP-518). v5: types, and a choice of them (KIP-848).

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
