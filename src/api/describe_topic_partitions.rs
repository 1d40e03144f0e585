//! DescribeTopicPartitions (key 75): as Metadata's topics, but a page at a time (KIP-966).
//!
//! # Behavior
//! - Topics in the order of their names; when the limit is reached, the cursor tells where to go on.
//!
//! # Version notes
//! - v0 is the only version.

use super::metadata::describe_partition;
use super::{Call, operations};
use crate::catalog::{check_name, is_internal};
use crate::error::ErrorCode;
use crate::storage::Partition;
use crate::wire::{Uuid, messages};

messages! {
    DescribeTopicPartitionsRequest(75) [0-0, flexible 0+] {
        topics: Vec<TopicRequest> [0+],
        response_partition_limit: i32 [0+] = 2000,
        cursor: Option<Cursor> [0+],
    }
    TopicRequest {
        name: String [0+],
    }
    /// Where the next page begins; the same in request and response.
    Cursor {
        topic_name: String [0+],
        partition_index: i32 [0+],
    }

    DescribeTopicPartitionsResponse(75) [0-0, flexible 0+] {
        throttle_time_ms: i32 [0+],
        topics: Vec<DescribeTopicPartitionsResponseTopic> [0+],
        next_cursor: Option<Cursor> [0+],
    }
    DescribeTopicPartitionsResponseTopic {
        error_code: i16 [0+],
        name: Option<String> [0+],
        topic_id: Uuid [0+],
        is_internal: bool [0+],
        partitions: Vec<DescribeTopicPartitionsResponsePartition> [0+],
        topic_authorized_operations: i32 [0+] = i32::MIN,
    }
    DescribeTopicPartitionsResponsePartition {
        error_code: i16 [0+],
        partition_index: i32 [0+],
        leader_id: i32 [0+],
        leader_epoch: i32 [0+] = -1,
        replica_nodes: Vec<i32> [0+],
        isr_nodes: Vec<i32> [0+],
        eligible_leader_replicas: Option<Vec<i32>> [0+],
        last_known_elr: Option<Vec<i32>> [0+],
        offline_replicas: Vec<i32> [0+],
    }
}

/// Kafka's `max.request.partition.size.limit`.
const PARTITIONS_MAX: i32 = 2000;

/// Describes topics by pages of partitions, in the order of their names, from the cursor on (KIP-966).
pub fn handle(
    call: &mut Call<'_>,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    if let Some(cursor) = &request.cursor {
        let topics = &request.topics;
        let is_listed = topics.is_empty() || topics.iter().any(|t| t.name == cursor.topic_name);
        if !is_listed || cursor.partition_index < 0 {
            return refuse(request.topics);
        }
    }
    let catalog = call.broker.catalog.get();
    let (first_topic, first_partition) = match &request.cursor {
        Some(cursor) => (cursor.topic_name.clone(), cursor.partition_index),
        None => (String::new(), 0),
    };
    let mut names: Vec<String> = match request.topics.is_empty() {
        true => catalog
            .topics_from(&first_topic)
            .map(|topic| topic.name.to_string())
            .collect(),
        false => request.topics.into_iter().map(|topic| topic.name).collect(),
    };
    names.sort();
    names.dedup();
    names.retain(|name| *name >= first_topic);
    let mut left = request.response_partition_limit.clamp(1, PARTITIONS_MAX) as usize;
    let mut response = DescribeTopicPartitionsResponse::default();
    for name in names {
        let first = if name == first_topic {
            first_partition
        } else {
            0
        };
        if left == 0 {
            response.next_cursor = Some(Cursor {
                topic_name: name,
                partition_index: first,
            });
            break;
        }
        let Some(topic) = catalog.by_name(&name) else {
            response.topics.push(missing(name));
            continue;
        };
        let page = topic.partitions.iter().skip(first as usize).take(left);
        let partitions: Vec<_> = page.map(|partition| describe(call, partition)).collect();
        left -= partitions.len();
        let next = first as usize + partitions.len();
        response.topics.push(DescribeTopicPartitionsResponseTopic {
            name: Some(name.clone()),
            topic_id: topic.id,
            is_internal: topic.is_internal(),
            partitions,
            topic_authorized_operations: operations::TOPIC,
            ..DescribeTopicPartitionsResponseTopic::default()
        });
        if next < topic.partitions.len() {
            response.next_cursor = Some(Cursor {
                topic_name: name,
                partition_index: next as i32,
            });
            break;
        }
    }
    response
}

/// The answer to a cursor that points nowhere: Kafka has no place for an error but beside each topic.
fn refuse(topics: Vec<TopicRequest>) -> DescribeTopicPartitionsResponse {
    let refused = |topic: TopicRequest| DescribeTopicPartitionsResponseTopic {
        error_code: ErrorCode::InvalidRequest.code(),
        name: Some(topic.name),
        ..DescribeTopicPartitionsResponseTopic::default()
    };
    DescribeTopicPartitionsResponse {
        topics: topics.into_iter().map(refused).collect(),
        ..DescribeTopicPartitionsResponse::default()
    }
}

fn missing(name: String) -> DescribeTopicPartitionsResponseTopic {
    let code = match check_name(&name) {
        Ok(()) => ErrorCode::UnknownTopicOrPartition,
        Err(_) => ErrorCode::InvalidTopicException,
    };
    DescribeTopicPartitionsResponseTopic {
        error_code: code.code(),
        is_internal: is_internal(&name),
        name: Some(name),
        topic_authorized_operations: operations::TOPIC,
        ..DescribeTopicPartitionsResponseTopic::default()
    }
}

fn describe(call: &Call<'_>, partition: &Partition) -> DescribeTopicPartitionsResponsePartition {
    let found = describe_partition(call, partition);
    DescribeTopicPartitionsResponsePartition {
        error_code: found.error_code,
        partition_index: found.partition_index,
        leader_id: found.leader_id,
        leader_epoch: found.leader_epoch,
        replica_nodes: found.replica_nodes,
        isr_nodes: found.isr_nodes,
        eligible_leader_replicas: Some(Vec::new()),
        last_known_elr: Some(Vec::new()),
        offline_replicas: found.offline_replicas,
    }
}
