//! ListConfigResources (key 74): what has settings (KIP-1142).
//!
//! # Behavior
//! - Topics (2), this broker (4) and its loggers (8), groups with settings of their own (32). Subscriptions to metrics
//!   of clients (16) there are none.
//!
//! # Version notes
//! - v0 was ListClientMetricsResources (KIP-714). v1: of every type, or of those that are asked for.

use super::Call;
use crate::broker::Broker;
use crate::catalog::{
    RESOURCE_BROKER, RESOURCE_BROKER_LOGGER, RESOURCE_CLIENT_METRICS, RESOURCE_GROUP,
    RESOURCE_TOPIC,
};
use crate::error::ErrorCode;
use crate::wire::messages;

messages! {
    ListConfigResourcesRequest(74) [0-1, flexible 0+] {
        resource_types: Vec<i8> [1+],
    }

    ListConfigResourcesResponse(74) [0-1, flexible 0+] {
        throttle_time_ms: i32 [0+],
        error_code: i16 [0+],
        config_resources: Vec<ConfigResource> [0+],
    }
    ConfigResource {
        resource_name: String [0+],
        resource_type: i8 [1+] = 16,
    }
}

/// The types, in the order of the answer.
const TYPES: [i8; 5] = [
    RESOURCE_GROUP,
    RESOURCE_CLIENT_METRICS,
    RESOURCE_BROKER_LOGGER,
    RESOURCE_BROKER,
    RESOURCE_TOPIC,
];

/// About how many names an answer holds at most.
pub fn names_max(broker: &Broker) -> usize {
    broker.catalog.get().topics().count() + broker.config().groups().count()
}

/// Lists what has settings, of the types that are asked for; of all if none is.
pub fn handle(
    call: &mut Call<'_>,
    version: i16,
    request: ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    let asked = match version {
        0 => vec![RESOURCE_CLIENT_METRICS],
        _ => request.resource_types,
    };
    if asked.iter().any(|kind| !TYPES.contains(kind)) {
        return ListConfigResourcesResponse {
            error_code: ErrorCode::UnsupportedVersion.code(),
            ..ListConfigResourcesResponse::default()
        };
    }
    let config = call.broker.config();
    let mut resources = Vec::new();
    for kind in TYPES {
        if !asked.is_empty() && !asked.contains(&kind) {
            continue;
        }
        let names: Vec<String> = match kind {
            RESOURCE_GROUP => config.groups().map(str::to_owned).collect(),
            RESOURCE_BROKER | RESOURCE_BROKER_LOGGER => vec![config.node_id.to_string()],
            RESOURCE_TOPIC => {
                let catalog = call.broker.catalog.get();
                catalog.topics().map(|t| t.name.to_string()).collect()
            }
            _ => Vec::new(),
        };
        resources.extend(names.into_iter().map(|resource_name| ConfigResource {
            resource_name,
            resource_type: kind,
        }));
    }
    ListConfigResourcesResponse {
        config_resources: resources,
        ..ListConfigResourcesResponse::default()
    }
}
