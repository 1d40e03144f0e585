//! FindCoordinator (key 10): which node looks after a group: this one.
//!
//! # Behavior
//! - The host and port are those that Metadata gives on the same connection.
//! - `__consumer_offsets` is made at the first question, so that it is there when the group is.
//!
//! # Version notes
//! - v1: the key's type (KIP-98); throttle time. v2: throttling happens after the response (KIP-219).
//! - v3: flexible (KIP-482). v4: many keys at once (KIP-699).
//! - v5: TRANSACTION_ABORTABLE may come back (KIP-890). v6: share groups (KIP-932), which are not served.

use crate::wire::messages;

messages! {
    FindCoordinatorRequest(10) [0-6, flexible 3+] {
        key: String [0-3],
        key_type: i8 [1+],
        coordinator_keys: Vec<String> [4+],
    }

    FindCoordinatorResponse(10) [0-6, flexible 3+] {
        throttle_time_ms: i32 [1+],
        error_code: i16 [0-3],
        error_message: Option<String> [1-3],
        node_id: i32 [0-3],
        host: String [0-3],
        port: i32 [0-3],
        coordinators: Vec<Coordinator> [4+],
    }
    Coordinator {
        key: String [4+],
        node_id: i32 [4+],
        host: String [4+],
        port: i32 [4+],
        error_code: i16 [4+],
        error_message: Option<String> [4+],
    }
}
