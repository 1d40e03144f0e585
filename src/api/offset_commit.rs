//! OffsetCommit (key 8): how far a group has read.
//!
//! # Behavior
//! - Answered once the offsets' records are synced.
//!
//! # Version notes
//! - v0-v1 are gone since Kafka 4 (KIP-896). v2-v4 could ask for a retention of their own, which expires them earlier.
//! - v3: throttle time, v4: after the response (KIP-219). v5: no retention time (KIP-211). v6: leader epoch (KIP-320).
//! - v7: static members (KIP-345). v8: flexible (KIP-482). v9: the member's epoch of a new group (KIP-848).
//! - v10: topics by id.

use super::{Call, Ended};
use crate::catalog::Catalog;
use crate::error::ErrorCode;
use crate::group::{Request, Response};
use crate::server::waiting::Watch;
use crate::wire::{Uuid, messages};
use std::collections::HashMap;

messages! {
    OffsetCommitRequest(8) [2-10, flexible 8+] {
        group_id: String [0+],
        generation_id_or_member_epoch: i32 [1+] = -1,
        member_id: String [1+],
        group_instance_id: Option<String> [7+],
        retention_time_ms: i64 [2-4] = -1,
        topics: Vec<OffsetCommitRequestTopic> [0+],
    }
    OffsetCommitRequestTopic {
        name: String [0-9],
        topic_id: Uuid [10+],
        partitions: Vec<OffsetCommitRequestPartition> [0+],
    }
    OffsetCommitRequestPartition {
        partition_index: i32 [0+],
        committed_offset: i64 [0+],
        committed_leader_epoch: i32 [6+] = -1,
        committed_metadata: Option<String> [0+],
    }

    OffsetCommitResponse(8) [2-10, flexible 8+] {
        throttle_time_ms: i32 [3+],
        topics: Vec<OffsetCommitResponseTopic> [0+],
    }
    OffsetCommitResponseTopic {
        name: String [0-9],
        topic_id: Uuid [10+],
        partitions: Vec<OffsetCommitResponsePartition> [0+],
    }
    OffsetCommitResponsePartition {
        partition_index: i32 [0+],
        error_code: i16 [0+],
    }
}

/// Commits the offsets of partitions that exist; the others get UNKNOWN_TOPIC_OR_PARTITION, or UNKNOWN_TOPIC_ID.
pub fn handle(
    call: &mut Call<'_>,
    version: i16,
    request: OffsetCommitRequest,
) -> Result<OffsetCommitResponse, Ended> {
    let catalog = call.broker.catalog.get();
    commit_known(&catalog, version, request, |request| {
        commit(call, version, Request::Commit(request, None))
    })
}

/// Asks the groups.
pub(super) fn commit(
    call: &mut Call<'_>,
    version: i16,
    request: Request,
) -> Result<OffsetCommitResponse, Ended> {
    match call.ask_group(version, request, Watch::Failure)? {
        Response::Commit(response) => Ok(response),
        _ => Err(Ended),
    }
}

/// Commits what is left of a request without the partitions that do not exist, if anything is.
pub(super) fn commit_known(
    catalog: &Catalog,
    version: i16,
    mut request: OffsetCommitRequest,
    commit: impl FnOnce(OffsetCommitRequest) -> Result<OffsetCommitResponse, Ended>,
) -> Result<OffsetCommitResponse, Ended> {
    let mut unknown = Vec::new();
    for topic in &mut request.topics {
        let partitions = take_unknown(catalog, version, topic);
        if !partitions.is_empty() {
            unknown.push(OffsetCommitResponseTopic {
                name: topic.name.clone(),
                topic_id: topic.topic_id,
                partitions,
            });
        }
    }
    request.topics.retain(|topic| !topic.partitions.is_empty());
    let mut response = OffsetCommitResponse::default();
    if !request.topics.is_empty() {
        response = commit(request)?;
    }
    if !unknown.is_empty() {
        response.topics = merged(unknown.into_iter().chain(response.topics));
    }
    Ok(response)
}

/// In Kafka's order: what is unknown comes first, and each topic once.
fn merged(
    topics: impl Iterator<Item = OffsetCommitResponseTopic>,
) -> Vec<OffsetCommitResponseTopic> {
    let mut merged: Vec<OffsetCommitResponseTopic> = Vec::new();
    let mut places = HashMap::new();
    for topic in topics {
        let place = *places
            .entry((topic.name.clone(), topic.topic_id))
            .or_insert(merged.len());
        match merged.get_mut(place) {
            Some(first) => first.partitions.extend(topic.partitions),
            None => merged.push(topic),
        }
    }
    merged
}

/// Takes the partitions that do not exist out of the request, and gives a topic that came by id its name.
fn take_unknown(
    catalog: &Catalog,
    version: i16,
    topic: &mut OffsetCommitRequestTopic,
) -> Vec<OffsetCommitResponsePartition> {
    let known = match version {
        0..=9 => catalog.by_name(&topic.name),
        _ => catalog.by_id(topic.topic_id),
    };
    let code = match (known, version) {
        (None, 10..) => ErrorCode::UnknownTopicId,
        _ => ErrorCode::UnknownTopicOrPartition,
    };
    if let Some(known) = known {
        topic.name = known.name.to_string();
    }
    let is_unknown = |partition: &mut OffsetCommitRequestPartition| {
        known
            .and_then(|topic| topic.partition(partition.partition_index))
            .is_none()
    };
    let refused = topic.partitions.extract_if(.., is_unknown);
    refused
        .map(|partition| OffsetCommitResponsePartition {
            partition_index: partition.partition_index,
            error_code: code.code(),
        })
        .collect()
}
