//! OffsetDelete (key 47): committed offsets of topics that no member reads are taken away (KIP-496).

use super::{Call, Ended};
use crate::error::ErrorCode;
use crate::group::{Request, Response};
use crate::server::waiting::Watch;
use crate::wire::messages;
use std::collections::HashMap;

messages! {
    OffsetDeleteRequest(47) [0-0, flexible 1+] {
        group_id: String [0+],
        topics: Vec<OffsetDeleteRequestTopic> [0+],
    }
    OffsetDeleteRequestTopic {
        name: String [0+],
        partitions: Vec<OffsetDeleteRequestPartition> [0+],
    }
    OffsetDeleteRequestPartition {
        partition_index: i32 [0+],
    }

    OffsetDeleteResponse(47) [0-0, flexible 1+] {
        error_code: i16 [0+],
        throttle_time_ms: i32 [0+],
        topics: Vec<OffsetDeleteResponseTopic> [0+],
    }
    OffsetDeleteResponseTopic {
        name: String [0+],
        partitions: Vec<OffsetDeleteResponsePartition> [0+],
    }
    OffsetDeleteResponsePartition {
        partition_index: i32 [0+],
        error_code: i16 [0+],
    }
}

/// Takes offsets away; answered once that is synced. Those of topics that do not exist get
/// UNKNOWN_TOPIC_OR_PARTITION.
pub fn handle(
    call: &mut Call<'_>,
    version: i16,
    mut request: OffsetDeleteRequest,
) -> Result<OffsetDeleteResponse, Ended> {
    if request.group_id.is_empty() {
        return Ok(OffsetDeleteResponse {
            error_code: ErrorCode::InvalidGroupId.code(),
            ..OffsetDeleteResponse::default()
        });
    }
    let catalog = call.broker.catalog.get();
    let mut unknown = Vec::new();
    for topic in &mut request.topics {
        let known = catalog.by_name(&topic.name);
        let is_unknown = |partition: &mut OffsetDeleteRequestPartition| {
            known
                .and_then(|topic| topic.partition(partition.partition_index))
                .is_none()
        };
        let refused = topic
            .partitions
            .extract_if(.., is_unknown)
            .map(|partition| OffsetDeleteResponsePartition {
                partition_index: partition.partition_index,
                error_code: ErrorCode::UnknownTopicOrPartition.code(),
            });
        let partitions: Vec<_> = refused.collect();
        if !partitions.is_empty() {
            let name = topic.name.clone();
            unknown.push(OffsetDeleteResponseTopic { name, partitions });
        }
    }
    request.topics.retain(|topic| !topic.partitions.is_empty());
    match call.ask_group(version, Request::DeleteOffsets(request), Watch::Failure)? {
        Response::DeleteOffsets(mut response) => {
            if response.error_code == 0 && !unknown.is_empty() {
                response.topics = merged(unknown.into_iter().chain(response.topics));
            }
            Ok(response)
        }
        _ => Err(Ended),
    }
}

/// In Kafka's order: what is unknown comes first, and each topic once.
fn merged(
    topics: impl Iterator<Item = OffsetDeleteResponseTopic>,
) -> Vec<OffsetDeleteResponseTopic> {
    let mut merged: Vec<OffsetDeleteResponseTopic> = Vec::new();
    let mut places = HashMap::new();
    for topic in topics {
        let place = *places.entry(topic.name.clone()).or_insert(merged.len());
        match merged.get_mut(place) {
            Some(first) => first.partitions.extend(topic.partitions),
            None => merged.push(topic),
        }
    }
    merged
}
