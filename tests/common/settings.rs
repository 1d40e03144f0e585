//! Changing and describing settings.

use super::client::Client;
use ottla::api::alter_configs::{self, AlterConfigsRequest, AlterConfigsResponse};
use ottla::api::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResponse, DescribeConfigsResult,
};
use ottla::api::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
};
use ottla::error::ErrorCode;

pub const TOPIC: i8 = 2;
pub const BROKER: i8 = 4;
pub const LOGGER: i8 = 8;
pub const CLIENT_METRICS: i8 = 16;
pub const GROUP: i8 = 32;

/// A setting, what to do with it, and a value.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a>(pub &'a str, pub i8, pub Option<&'a str>);

/// An error code and message.
pub type Answer = (i16, Option<String>);

pub fn set<'a>(name: &'a str, value: &'a str) -> Change<'a> {
    Change(name, 0, Some(value))
}

pub fn delete(name: &str) -> Change<'_> {
    Change(name, 1, None)
}

pub fn append<'a>(name: &'a str, value: &'a str) -> Change<'a> {
    Change(name, 2, Some(value))
}

pub fn subtract<'a>(name: &'a str, value: &'a str) -> Change<'a> {
    Change(name, 3, Some(value))
}

pub fn resource(kind: i8, name: &str, changes: &[Change<'_>]) -> AlterConfigsResource {
    let config = |change: &Change<'_>| AlterableConfig {
        name: change.0.into(),
        config_operation: change.1,
        value: change.2.map(str::to_owned),
    };
    AlterConfigsResource {
        resource_type: kind,
        resource_name: name.into(),
        configs: changes.iter().map(config).collect(),
    }
}

pub fn alter_all(
    client: &mut Client,
    version: i16,
    resources: Vec<AlterConfigsResource>,
    validate_only: bool,
) -> Vec<Answer> {
    let request = IncrementalAlterConfigsRequest {
        resources,
        validate_only,
    };
    let answer: IncrementalAlterConfigsResponse = client.call(version, &request);
    let responses = answer.responses.into_iter();
    responses.map(|r| (r.error_code, r.error_message)).collect()
}

pub fn alter(client: &mut Client, kind: i8, name: &str, changes: &[Change<'_>]) -> Answer {
    alter_all(client, 1, vec![resource(kind, name, changes)], false).remove(0)
}

/// Changes settings and wants it done.
#[track_caller]
pub fn altered(client: &mut Client, kind: i8, name: &str, changes: &[Change<'_>]) {
    assert_eq!(alter(client, kind, name, changes), (0, None), "{changes:?}");
}

/// Replaces all settings by AlterConfigs.
pub fn replace(
    client: &mut Client,
    version: i16,
    kind: i8,
    name: &str,
    settings: &[(&str, Option<&str>)],
    validate_only: bool,
) -> Answer {
    let config = |(name, value): &(&str, Option<&str>)| alter_configs::AlterableConfig {
        name: name.to_string(),
        value: value.map(str::to_owned),
    };
    let request = AlterConfigsRequest {
        resources: vec![alter_configs::AlterConfigsResource {
            resource_type: kind,
            resource_name: name.into(),
            configs: settings.iter().map(config).collect(),
        }],
        validate_only,
    };
    let mut answer: AlterConfigsResponse = client.call(version, &request);
    let response = answer.responses.remove(0);
    assert_eq!(
        (response.resource_type, &*response.resource_name),
        (kind, name)
    );
    (response.error_code, response.error_message)
}

pub fn describe(client: &mut Client, kind: i8, name: &str) -> DescribeConfigsResult {
    let request = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: kind,
            resource_name: name.into(),
            configuration_keys: None,
        }],
        include_synonyms: true,
        include_documentation: false,
    };
    let mut answer: DescribeConfigsResponse = client.call(4, &request);
    answer.results.remove(0)
}

/// Changes a setting, wants it refused with `code`, and gives the message.
#[track_caller]
pub fn refused(
    client: &mut Client,
    kind: i8,
    name: &str,
    change: Change<'_>,
    code: ErrorCode,
) -> String {
    let answer = alter(client, kind, name, &[change]);
    let message = answer.1.unwrap_or_default();
    assert_eq!(answer.0, code.code(), "{kind} {name} {change:?}: {message}");
    message
}
