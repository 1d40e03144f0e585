//! CreateTopics (key 19).
//!
//! # Behavior
//! - Answered once the topic's records are synced in the catalog. The replication factor is 1, or -1.
//!
//! # Version notes
//! - v0-v1 are gone since Kafka 4 (KIP-896). v1 added the dry run (`validate_only`) and error messages.
//! - v2: throttle time (KIP-124). v3: throttling happens after the response (KIP-219).
//! - v4: partition count and replication factor may be -1, the broker's default (KIP-464).
//! - v5: flexible (KIP-482); the response tells the new topic's settings (KIP-525).
//! - v6: THROTTLING_QUOTA_EXCEEDED may come back (KIP-599). v7: the new topic's id (KIP-516).

use super::{Call, Ended};
use crate::config::describe_topic;
use crate::control::{Answer, NewTopic, Planned, Request};
use crate::wire::{Uuid, messages};
use std::collections::BTreeMap;

messages! {
    CreateTopicsRequest(19) [2-7, flexible 5+] {
        topics: Vec<CreatableTopic> [0+],
        timeout_ms: i32 [0+] = 60000,
        validate_only: bool [1+],
    }
    CreatableTopic {
        name: String [0+],
        num_partitions: i32 [0+],
        replication_factor: i16 [0+],
        assignments: Vec<CreatableReplicaAssignment> [0+],
        configs: Vec<CreatableTopicConfig> [0+],
    }
    CreatableReplicaAssignment {
        partition_index: i32 [0+],
        broker_ids: Vec<i32> [0+],
    }
    CreatableTopicConfig {
        name: String [0+],
        value: Option<String> [0+],
    }

    CreateTopicsResponse(19) [2-7, flexible 5+] {
        throttle_time_ms: i32 [2+],
        topics: Vec<CreatableTopicResult> [0+],
    }
    CreatableTopicResult {
        name: String [0+],
        topic_id: Uuid [7+],
        error_code: i16 [0+],
        error_message: Option<String> [1+],
        topic_config_error_code: i16 [5+ tag 0],
        num_partitions: i32 [5+] = -1,
        replication_factor: i16 [5+] = -1,
        configs: Option<Vec<CreatableTopicConfigs>> [5+],
    }
    CreatableTopicConfigs {
        name: String [5+],
        value: Option<String> [5+],
        read_only: bool [5+],
        config_source: i8 [5+] = -1,
        is_sensitive: bool [5+],
    }
}

/// Makes topics, each on its own: one that is refused does not keep the others from being made.
pub fn handle(
    call: &mut Call<'_>,
    request: CreateTopicsRequest,
) -> Result<CreateTopicsResponse, Ended> {
    let topics: Vec<NewTopic> = request.topics.into_iter().map(new_topic).collect();
    let Answer::Topics(planned) = call.ask(Request::CreateTopics {
        topics,
        validate_only: request.validate_only,
    })?
    else {
        return Ok(CreateTopicsResponse::default());
    };
    let results = planned.into_iter().map(|planned| result(call, planned));
    Ok(CreateTopicsResponse {
        topics: results.collect(),
        ..CreateTopicsResponse::default()
    })
}

fn new_topic(topic: CreatableTopic) -> NewTopic {
    let assignment = |a: CreatableReplicaAssignment| (a.partition_index, a.broker_ids);
    let (mut overrides, mut without_value) = (BTreeMap::new(), Vec::new());
    for config in topic.configs {
        match config.value {
            Some(value) => drop(overrides.insert(config.name, value)),
            None => without_value.push(config.name),
        }
    }
    NewTopic {
        name: topic.name,
        partitions: topic.num_partitions,
        replication_factor: topic.replication_factor,
        assignments: topic.assignments.into_iter().map(assignment).collect(),
        overrides,
        without_value,
    }
}

fn result(call: &Call<'_>, planned: Planned) -> CreatableTopicResult {
    let name = planned.name.unwrap_or_default();
    if let Some((code, sentence)) = planned.fault {
        return CreatableTopicResult {
            name,
            error_code: code.code(),
            error_message: Some(sentence),
            // Kafka answers an empty list of settings, not null, with an error.
            configs: Some(Vec::new()),
            ..CreatableTopicResult::default()
        };
    }
    let settings = describe_topic(&call.broker.config(), &planned.overrides).into_iter();
    let configs = settings.map(|setting| CreatableTopicConfigs {
        name: setting.name.into(),
        value: setting.value,
        read_only: setting.read_only,
        config_source: setting.source,
        is_sensitive: false,
    });
    CreatableTopicResult {
        name,
        topic_id: planned.id,
        num_partitions: planned.partitions,
        replication_factor: 1,
        configs: Some(configs.collect()),
        ..CreatableTopicResult::default()
    }
}
