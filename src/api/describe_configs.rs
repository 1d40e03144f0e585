//! DescribeConfigs (key 32): settings of topics and of the broker, with where each value comes from (KIP-133).
//!
//! # Behavior
//! - Every setting that is documented is told, with its default, its source and its synonyms.
//! - Null keys, and no keys, ask for all settings.
//! - A resource that is named twice is described once.
//! - There are no loggers, and no subscriptions to metrics of clients: both are described as without settings.
//!
//! # Version notes
//! - v0 is gone since Kafka 4 (KIP-896). v1: source and synonyms of a setting (KIP-226).
//! - v2: throttling happens after the response (KIP-219). v3: types and documentation (KIP-569).
//! - v4: flexible (KIP-482).

use super::{Call, NOTHING_SAID};
use crate::catalog::{
    RESOURCE_BROKER, RESOURCE_BROKER_LOGGER, RESOURCE_CLIENT_METRICS, RESOURCE_GROUP,
    RESOURCE_TOPIC, check_name,
};
use crate::config::{
    DescribedSetting, DescribedSynonym, describe_broker, describe_cluster, describe_group,
    describe_topic,
};
use crate::control::Fault;
use crate::error::ErrorCode;
use crate::wire::messages;
use std::collections::BTreeSet;

messages! {
    DescribeConfigsRequest(32) [1-4, flexible 4+] {
        resources: Vec<DescribeConfigsResource> [0+],
        include_synonyms: bool [1+],
        include_documentation: bool [3+],
    }
    DescribeConfigsResource {
        resource_type: i8 [0+],
        resource_name: String [0+],
        configuration_keys: Option<Vec<String>> [0+],
    }

    DescribeConfigsResponse(32) [1-4, flexible 4+] {
        throttle_time_ms: i32 [0+],
        results: Vec<DescribeConfigsResult> [0+],
    }
    DescribeConfigsResult {
        error_code: i16 [0+],
        error_message: Option<String> [0+],
        resource_type: i8 [0+],
        resource_name: String [0+],
        configs: Vec<DescribeConfigsResourceResult> [0+],
    }
    DescribeConfigsResourceResult {
        name: String [0+],
        value: Option<String> [0+],
        read_only: bool [0+],
        config_source: i8 [1+] = -1,
        is_sensitive: bool [0+],
        synonyms: Vec<DescribeConfigsSynonym> [1+],
        config_type: i8 [3+],
        documentation: Option<String> [3+],
    }
    DescribeConfigsSynonym {
        name: String [1+],
        value: Option<String> [1+],
        source: i8 [1+],
    }
}

/// About as many settings as a topic has, and as a broker has.
const TOPIC_SETTINGS: usize = 40;
const BROKER_SETTINGS: usize = 130;

/// The most settings that an answer tells.
pub fn rows_max(request: &DescribeConfigsRequest) -> usize {
    let of_resource = |resource: &DescribeConfigsResource| {
        let all = match resource.resource_type {
            RESOURCE_BROKER => BROKER_SETTINGS,
            _ => TOPIC_SETTINGS,
        };
        match &resource.configuration_keys {
            Some(keys) if !keys.is_empty() => keys.len().min(all),
            _ => all,
        }
    };
    resources(request).map(of_resource).sum()
}

/// A few bytes of a request make thousands of an answer: what is named twice is described once, so that no answer is
/// much larger than all settings of all topics.
fn resources(request: &DescribeConfigsRequest) -> impl Iterator<Item = &DescribeConfigsResource> {
    let mut seen = BTreeSet::new();
    let all = request.resources.iter();
    all.filter(move |&resource| seen.insert((resource.resource_type, &resource.resource_name)))
}

/// Describes the settings of topics and of this broker, from the one table of settings.
pub fn handle(call: &mut Call<'_>, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let describe = |resource: &DescribeConfigsResource| {
        let mut result = DescribeConfigsResult {
            error_message: NOTHING_SAID,
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
            ..DescribeConfigsResult::default()
        };
        match settings(call, resource) {
            Err((code, sentence)) => {
                result.error_code = code.code();
                result.error_message = Some(sentence);
            }
            Ok(settings) => {
                let wanted = |setting: &DescribedSetting| match &resource.configuration_keys {
                    Some(keys) if !keys.is_empty() => keys.iter().any(|key| key == setting.name),
                    _ => true,
                };
                let kept = settings.into_iter().filter(wanted);
                result.configs = kept.map(|setting| row(setting, &request)).collect();
            }
        }
        result
    };
    DescribeConfigsResponse {
        results: resources(&request).map(describe).collect(),
        ..DescribeConfigsResponse::default()
    }
}

fn settings(
    call: &Call<'_>,
    resource: &DescribeConfigsResource,
) -> Result<Vec<DescribedSetting>, Fault> {
    let (config, name) = (&call.broker.config(), &resource.resource_name);
    match resource.resource_type {
        RESOURCE_TOPIC => {
            check_name(name).map_err(|sentence| (ErrorCode::InvalidTopicException, sentence))?;
            match call.broker.catalog.get().by_name(name) {
                Some(topic) => Ok(describe_topic(config, &topic.overrides)),
                None => Err((ErrorCode::UnknownTopicOrPartition, String::new())),
            }
        }
        RESOURCE_BROKER if name.is_empty() => Ok(describe_cluster(config)),
        RESOURCE_BROKER => {
            check_node_id(config.node_id, name, " or empty string,")?;
            Ok(describe_broker(config))
        }
        RESOURCE_BROKER_LOGGER if name.is_empty() => invalid("Broker id must not be empty"),
        RESOURCE_BROKER_LOGGER => check_node_id(config.node_id, name, "").map(|()| Vec::new()),
        RESOURCE_CLIENT_METRICS if name.is_empty() => {
            invalid("Client metrics subscription name must not be empty")
        }
        RESOURCE_CLIENT_METRICS => Ok(Vec::new()),
        RESOURCE_GROUP if name.is_empty() => invalid("Group name must not be empty"),
        RESOURCE_GROUP => Ok(describe_group(config, name)),
        other => invalid(&format!("Unsupported resource type: {other}")),
    }
}

fn check_node_id(node_id: i32, name: &str, or: &str) -> Result<(), Fault> {
    match name.parse::<i32>() {
        Ok(id) if id == node_id => Ok(()),
        Ok(_) => invalid(&format!(
            "Unexpected broker id, expected {node_id}{or} but received {name}"
        )),
        Err(_) => invalid(&format!("Broker id must be an integer, but it is: {name}")),
    }
}

fn invalid<T>(sentence: &str) -> Result<T, Fault> {
    Err((ErrorCode::InvalidRequest, sentence.into()))
}

fn row(
    setting: DescribedSetting,
    request: &DescribeConfigsRequest,
) -> DescribeConfigsResourceResult {
    let synonym = |s: DescribedSynonym| DescribeConfigsSynonym {
        name: s.name.into(),
        value: s.value,
        source: s.source,
    };
    DescribeConfigsResourceResult {
        name: setting.name.into(),
        value: setting.value,
        read_only: setting.read_only,
        config_source: setting.source,
        is_sensitive: false,
        synonyms: match request.include_synonyms {
            true => setting.synonyms.into_iter().map(synonym).collect(),
            false => Vec::new(),
        },
        config_type: setting.kind,
        documentation: request
            .include_documentation
            .then_some(setting.documentation),
    }
}
