//! FindCoordinator (key 10): which node looks after a group or a transaction: this one.
//!
//! # Behavior
//! - The host and port are those that Metadata gives on the same connection.
//! - `__consumer_offsets` is made at the first question, so that it is there when the group is; `__transaction_state`
//!   likewise.
//!
//! # Version notes
//! - v1: the key's type (KIP-98); throttle time. v2: throttling happens after the response (KIP-219).
//! - v3: flexible (KIP-482). v4: many keys at once (KIP-699).
//! - v5: TRANSACTION_ABORTABLE may come back (KIP-890). v6: share groups (KIP-932), which are not served.

use super::{Call, Ended};
use crate::control::{Answer, Internal, Request};
use crate::error::ErrorCode;
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

const KEY_GROUP: i8 = 0;
const KEY_TRANSACTION: i8 = 1;

/// Names this node for every group and transaction.
pub fn handle(
    call: &mut Call<'_>,
    version: i16,
    request: FindCoordinatorRequest,
) -> Result<FindCoordinatorResponse, Ended> {
    let topic = match request.key_type {
        KEY_GROUP => Ok(Internal::Offsets),
        KEY_TRANSACTION => Ok(Internal::Transactions),
        _ => Err(ErrorCode::InvalidRequest),
    };
    let found = match topic {
        Ok(topic) => match call.ask(Request::InternalTopic(topic))? {
            Answer::InternalTopic(code) => code,
            _ => ErrorCode::UnknownServerError,
        },
        Err(code) => code,
    };
    let (host, port) = match found {
        ErrorCode::None => call.advertised(),
        _ => (String::new(), -1),
    };
    let node_id = match found {
        ErrorCode::None => call.broker.config().node_id,
        _ => -1,
    };
    let mut response = FindCoordinatorResponse::default();
    if version >= 4 {
        let coordinator = |key: String| Coordinator {
            key,
            node_id,
            host: host.clone(),
            port,
            error_code: found.code(),
            // Kafka gives none here, and says so by an empty one.
            error_message: Some(String::new()),
        };
        let keys = request.coordinator_keys.into_iter();
        response.coordinators = keys.map(coordinator).collect();
    } else {
        response.error_code = found.code();
        response.error_message = Some(found.name().into());
        (response.node_id, response.host, response.port) = (node_id, host, port);
    }
    Ok(response)
}
