//! AlterConfigs (key 33): replaces all settings of a resource (KIP-133).
//!
//! # Behavior
//! - As IncrementalAlterConfigs, but for what the request does not name: it goes back to its default.
//!
//! # Version notes
//! - v1: throttling happens after the response (KIP-219). v2: flexible (KIP-482).

use super::incremental_alter_configs::{Altered, alter, split};
use super::{Call, Ended};
use crate::control::{NewSetting, NewSettings};
use crate::wire::messages;

messages! {
    AlterConfigsRequest(33) [0-2, flexible 2+] {
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
        value: Option<String> [0+],
    }

    AlterConfigsResponse(33) [0-2, flexible 2+] {
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

/// Replaces the settings of topics, brokers and groups.
pub fn handle(
    call: &mut Call<'_>,
    request: AlterConfigsRequest,
) -> Result<AlterConfigsResponse, Ended> {
    let setting = |config: AlterableConfig| NewSetting {
        name: config.name,
        value: config.value,
        ..NewSetting::default()
    };
    let resource = |resource: AlterConfigsResource| NewSettings {
        resource_type: resource.resource_type,
        resource_name: resource.resource_name,
        settings: resource.configs.into_iter().map(setting).collect(),
        replace: true,
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
    Ok(AlterConfigsResponse {
        responses: altered.into_iter().map(response).collect(),
        ..AlterConfigsResponse::default()
    })
}
