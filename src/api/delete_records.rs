//! DeleteRecords (key 21): what lies below an offset is not served any more (KIP-107).
//!
//! # Behavior
//! - Answered once the new log start is synced (L4). Whole segments below it go afterwards.
//! - Offset -1 is the high watermark; an offset below the log start changes nothing.
//! - A partition that is named twice gets the offset that came last, as in Kafka.
//! - Refused: internal topics, and topics that are compacted and keep everything else.
//!
//! # Version notes
//! - v1: throttling happens after the response (KIP-219). v2: flexible (KIP-482).

use super::{Call, Ended, usable};
use crate::catalog::{Catalog, is_internal};
use crate::control::Answer;
use crate::error::ErrorCode;
use crate::storage::Partition;
use crate::wire::messages;
use crate::writer::{Job, NewStart};
use std::collections::BTreeMap;
use std::sync::Arc;

messages! {
    DeleteRecordsRequest(21) [0-2, flexible 2+] {
        topics: Vec<DeleteRecordsTopic> [0+],
        timeout_ms: i32 [0+],
    }
    DeleteRecordsTopic {
        name: String [0+],
        partitions: Vec<DeleteRecordsPartition> [0+],
    }
    DeleteRecordsPartition {
        partition_index: i32 [0+],
        offset: i64 [0+],
    }

    DeleteRecordsResponse(21) [0-2, flexible 2+] {
        throttle_time_ms: i32 [0+],
        topics: Vec<DeleteRecordsTopicResult> [0+],
    }
    DeleteRecordsTopicResult {
        name: String [0+],
        partitions: Vec<DeleteRecordsPartitionResult> [0+],
    }
    DeleteRecordsPartitionResult {
        partition_index: i32 [0+],
        low_watermark: i64 [0+],
        error_code: i16 [0+],
    }
}

/// Kafka's `DeleteRecordsResponse.INVALID_LOW_WATERMARK`.
const NO_LOW_WATERMARK: i64 = -1;

/// Raises log starts, each partition on its own: one that is refused does not keep the others.
pub fn handle(
    call: &mut Call<'_>,
    request: DeleteRecordsRequest,
) -> Result<DeleteRecordsResponse, Ended> {
    let catalog = call.broker.catalog.get();
    let mut asked = BTreeMap::new();
    for topic in request.topics {
        let offsets: &mut BTreeMap<i32, i64> = asked.entry(topic.name).or_default();
        offsets.extend(
            topic
                .partitions
                .iter()
                .map(|p| (p.partition_index, p.offset)),
        );
    }
    let mut starts = Vec::new();
    let mut response = DeleteRecordsResponse::default();
    for (name, offsets) in asked {
        let result = |(index, offset)| {
            let checked = check(&catalog, &name, index);
            let refused = checked.map(|partition| starts.push((partition, NewStart::At(offset))));
            DeleteRecordsPartitionResult {
                partition_index: index,
                low_watermark: NO_LOW_WATERMARK,
                error_code: refused.err().unwrap_or(ErrorCode::None).code(),
            }
        };
        let partitions = offsets.into_iter().map(result).collect();
        response
            .topics
            .push(DeleteRecordsTopicResult { name, partitions });
    }
    if starts.is_empty() {
        return Ok(response);
    }
    let mailbox = call.broker.control.clone();
    let job = |reply| Job::RaiseStarts {
        starts,
        mailbox,
        reply: Some(reply),
    };
    if let Answer::LogStarts(raised) = call.ask_writer(job)? {
        let results = response.topics.iter_mut().flat_map(|t| &mut t.partitions);
        let accepted = results.filter(|result| result.error_code == 0);
        for (result, start) in accepted.zip(raised) {
            match start {
                Ok(start) => result.low_watermark = start,
                Err(code) => result.error_code = code.code(),
            }
        }
    }
    Ok(response)
}

fn check(catalog: &Catalog, name: &str, index: i32) -> Result<Arc<Partition>, ErrorCode> {
    let missing = ErrorCode::UnknownTopicOrPartition;
    let topic = catalog.by_name(name).ok_or(missing)?;
    let partition = topic.partition(index).ok_or(missing)?;
    if is_internal(name) {
        return Err(ErrorCode::InvalidTopicException);
    }
    usable(Some(partition), -1, missing)?;
    let policy = topic.config.cleanup_policy;
    match policy.compact && !policy.delete {
        true => Err(ErrorCode::PolicyViolation),
        false => Ok(partition.clone()),
    }
}
