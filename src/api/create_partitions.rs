//! CreatePartitions (key 37): adds partitions to a topic that exists (KIP-195).
//!
//! # Behavior
//! - A count below the present one is refused: partitions are never taken away.
//!
//! # Version notes
//! - v1: throttling happens after the response (KIP-219). v2: flexible (KIP-482).
//! - v3: THROTTLING_QUOTA_EXCEEDED may come back (KIP-599).

use super::{Call, Ended};
use crate::control::{Answer, MorePartitions, Request};
use crate::error::ErrorCode;
use crate::wire::messages;

messages! {
    CreatePartitionsRequest(37) [0-3, flexible 2+] {
        topics: Vec<CreatePartitionsTopic> [0+],
        timeout_ms: i32 [0+],
        validate_only: bool [0+],
    }
    CreatePartitionsTopic {
        name: String [0+],
        count: i32 [0+],
        assignments: Option<Vec<CreatePartitionsAssignment>> [0+],
    }
    CreatePartitionsAssignment {
        broker_ids: Vec<i32> [0+],
    }

    CreatePartitionsResponse(37) [0-3, flexible 2+] {
        throttle_time_ms: i32 [0+],
        results: Vec<CreatePartitionsTopicResult> [0+],
    }
    CreatePartitionsTopicResult {
        name: String [0+],
        error_code: i16 [0+],
        error_message: Option<String> [0+],
    }
}

/// Adds partitions to topics; their number never falls.
pub fn handle(
    call: &mut Call<'_>,
    request: CreatePartitionsRequest,
) -> Result<CreatePartitionsResponse, Ended> {
    let brokers = |assignments: Vec<CreatePartitionsAssignment>| {
        assignments.into_iter().map(|a| a.broker_ids).collect()
    };
    let more = |topic: CreatePartitionsTopic| MorePartitions {
        name: topic.name,
        count: topic.count,
        assignments: topic.assignments.map(brokers),
    };
    let topics = request.topics.into_iter().map(more).collect();
    let Answer::Topics(planned) = call.ask(Request::CreatePartitions {
        topics,
        validate_only: request.validate_only,
    })?
    else {
        return Ok(CreatePartitionsResponse::default());
    };
    let results = planned.into_iter().map(|planned| {
        let (code, sentence) = planned
            .fault
            .map_or((ErrorCode::None, None), |(code, s)| (code, Some(s)));
        CreatePartitionsTopicResult {
            name: planned.name.unwrap_or_default(),
            error_code: code.code(),
            error_message: sentence,
        }
    });
    Ok(CreatePartitionsResponse {
        results: results.collect(),
        ..CreatePartitionsResponse::default()
    })
}
