//! IncrementalAlterConfigs (key 44): changes settings one by one (KIP-339).
//!
//! # Behavior
//! - A resource is changed as a whole or not at all; the answer comes once the change is synced and in force.
//! - Topics (2), this broker (4, by its id) or all (4, without a name), and consumer groups (32) have settings. There
//!   are no loggers (8) to set, and metrics of clients (16) are not collected.
//! - Unlike Kafka, a broker's setting that is not in the table is refused: it would be silently ignored.
//!
//! # Version notes
//! - v1: flexible (KIP-482).

use super::{Call, Ended};
use crate::control::{Answer, Fault, NewSetting, NewSettings, Request};
use crate::wire::messages;

messages! {
    IncrementalAlterConfigsRequest(44) [0-1, flexible 1+] {
        resources: Vec<AlterConfigsResource> [0+],
        validate_only: bool [0+],
    }
    AlterConfigsResource {
        resource_type: i8 [0+],
        resource_name: String [0+],
        configs: Vec<AlterableConfig> [0+],
    }
    AlterableConfig {
        name: String [0+],
        config_operation: i8 [0+],
        value: Option<String> [0+],
    }

    IncrementalAlterConfigsResponse(44) [0-1, flexible 1+] {
        throttle_time_ms: i32 [0+],
        responses: Vec<AlterConfigsResourceResponse> [0+],
    }
    AlterConfigsResourceResponse {
        error_code: i16 [0+],
        error_message: Option<String> [0+],
        resource_type: i8 [0+],
        resource_name: String [0+],
    }
}

/// Changes settings of topics, brokers and groups, and leaves what is not named.
pub fn handle(
    call: &mut Call<'_>,
    request: IncrementalAlterConfigsRequest,
) -> Result<IncrementalAlterConfigsResponse, Ended> {
    let setting = |config: AlterableConfig| NewSetting {
        name: config.name,
        operation: config.config_operation,
        value: config.value,
    };
    let resource = |resource: AlterConfigsResource| NewSettings {
        resource_type: resource.resource_type,
        resource_name: resource.resource_name,
        settings: resource.configs.into_iter().map(setting).collect(),
        replace: false,
    };
    let resources = request.resources.into_iter().map(resource).collect();
    let altered = alter(call, resources, request.validate_only)?;
    let response = |(resource_type, resource_name, fault): Altered| {
        let (code, sentence) = split(fault);
        AlterConfigsResourceResponse {
            error_code: code,
            error_message: sentence,
            resource_type,
            resource_name,
        }
    };
    Ok(IncrementalAlterConfigsResponse {
        responses: altered.into_iter().map(response).collect(),
        ..IncrementalAlterConfigsResponse::default()
    })
}

/// A resource's type and name, and why it was not changed, if so.
pub(super) type Altered = (i8, String, Option<Fault>);

/// Has the control thread change settings.
pub(super) fn alter(
    call: &mut Call<'_>,
    resources: Vec<NewSettings>,
    validate_only: bool,
) -> Result<Vec<Altered>, Ended> {
    let named = |resource: &NewSettings| (resource.resource_type, resource.resource_name.clone());
    let names: Vec<(i8, String)> = resources.iter().map(named).collect();
    let Answer::Configs(faults) = call.ask(Request::AlterConfigs {
        resources,
        validate_only,
    })?
    else {
        return Ok(Vec::new());
    };
    let both = names.into_iter().zip(faults);
    Ok(both
        .map(|((kind, name), fault)| (kind, name, fault))
        .collect())
}

/// A response's error code and message.
pub(super) fn split(fault: Option<Fault>) -> (i16, Option<String>) {
    fault.map_or((0, None), |(code, sentence)| (code.code(), Some(sentence)))
}
