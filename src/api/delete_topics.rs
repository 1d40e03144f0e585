//! DeleteTopics (key 20).
//!
//! # Behavior
//! - Answered once the removal is synced in the catalog; the files go later.
//! - A topic that is named twice is refused, once, and not deleted.
//!
//! # Version notes
//! - v0 is gone since Kafka 4 (KIP-896). v1: throttle time (KIP-124), after the response from v2 on (KIP-219).
//! - v3: TOPIC_DELETION_DISABLED may come back (KIP-322). v4: flexible (KIP-482).
//! - v5: error messages; THROTTLING_QUOTA_EXCEEDED may come back (KIP-599).
//! - v6: topics by name or by id (KIP-516).

use super::{Call, Ended};
use crate::control::{Answer, Request, TopicRef};
use crate::error::ErrorCode;
use crate::wire::{Uuid, messages};

messages! {
    DeleteTopicsRequest(20) [1-6, flexible 4+] {
        topics: Vec<DeleteTopicState> [6+],
        topic_names: Vec<String> [0-5],
        timeout_ms: i32 [0+],
    }
    DeleteTopicState {
        name: Option<String> [6+],
        topic_id: Uuid [6+],
    }

    DeleteTopicsResponse(20) [1-6, flexible 4+] {
        throttle_time_ms: i32 [1+],
        responses: Vec<DeletableTopicResult> [0+],
    }
    DeletableTopicResult {
        name: Option<String> [0+ null 6+],
        topic_id: Uuid [6+],
        error_code: i16 [0+],
        error_message: Option<String> [5+],
    }
}

/// Deletes topics by name, and from v6 on by id. The answer comes once the RemoveTopicRecord is synced and the
/// topic's directories are renamed away; their space comes back in the background.
pub fn handle(
    call: &mut Call<'_>,
    version: i16,
    request: DeleteTopicsRequest,
) -> Result<DeleteTopicsResponse, Ended> {
    let by_state = |topic: DeleteTopicState| match (topic.name, topic.topic_id) {
        (Some(name), Uuid::ZERO) => TopicRef::Name(name),
        (None, id) if id != Uuid::ZERO => TopicRef::Id(id),
        (name, id) => TopicRef::Unclear(name, id),
    };
    let topics = match version {
        0..=5 => request
            .topic_names
            .into_iter()
            .map(TopicRef::Name)
            .collect(),
        _ => request.topics.into_iter().map(by_state).collect(),
    };
    let Answer::Topics(planned) = call.ask(Request::DeleteTopics(topics))? else {
        return Ok(DeleteTopicsResponse::default());
    };
    let responses = planned.into_iter().map(|planned| {
        let (code, sentence) = planned
            .fault
            .map_or((ErrorCode::None, None), |(code, s)| (code, Some(s)));
        let code = match code {
            ErrorCode::TopicDeletionDisabled if version < 3 => ErrorCode::InvalidRequest,
            code => code,
        };
        DeletableTopicResult {
            name: planned.name,
            topic_id: planned.id,
            error_code: code.code(),
            error_message: sentence,
        }
    });
    Ok(DeleteTopicsResponse {
        responses: responses.collect(),
        ..DeleteTopicsResponse::default()
    })
}
