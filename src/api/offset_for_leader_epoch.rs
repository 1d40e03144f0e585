//! OffsetForLeaderEpoch (key 23): where a leader epoch ends in the log; a client finds lost records by it.
//!
//! # Behavior
//! - Answers the largest epoch not above the one asked for, and where it ends; an unknown one gets -1 and -1
//!   (KAFKA-6857).
//!
//! # Version notes
//! - v0-v1 are gone since Kafka 4 (KIP-896). v1 added the epoch to the response (KIP-279).
//! - v2: the client's current leader epoch, to fence; throttle time (KIP-320). v3: the follower's id (KIP-392).
//! - v4: flexible (KIP-482).

use super::{Call, usable};
use crate::error::ErrorCode;
use crate::wire::messages;

messages! {
    OffsetForLeaderEpochRequest(23) [2-4, flexible 4+] {
        replica_id: i32 [3+] = -2,
        topics: Vec<OffsetForLeaderTopic> [0+],
    }
    OffsetForLeaderTopic {
        topic: String [0+],
        partitions: Vec<OffsetForLeaderPartition> [0+],
    }
    OffsetForLeaderPartition {
        partition: i32 [0+],
        current_leader_epoch: i32 [2+] = -1,
        leader_epoch: i32 [0+],
    }

    OffsetForLeaderEpochResponse(23) [2-4, flexible 4+] {
        throttle_time_ms: i32 [2+],
        topics: Vec<OffsetForLeaderTopicResult> [0+],
    }
    OffsetForLeaderTopicResult {
        topic: String [0+],
        partitions: Vec<EpochEndOffset> [0+],
    }
    EpochEndOffset {
        error_code: i16 [0+],
        partition: i32 [0+],
        leader_epoch: i32 [1+] = -1,
        end_offset: i64 [0+] = -1,
    }
}

/// Says where an epoch ended, so that a consumer learns whether what it read was since cut away. An epoch that is
/// not known has no end (KAFKA-6857).
pub fn handle(
    call: &mut Call<'_>,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let catalog = call.broker.catalog.get();
    let result = |topic: OffsetForLeaderTopic| {
        let known = catalog.by_name(&topic.topic);
        let partitions = topic.partitions.into_iter().map(|asked| {
            let partition = known.and_then(|topic| topic.partition(asked.partition));
            let end = usable(
                partition,
                asked.current_leader_epoch,
                ErrorCode::UnknownTopicOrPartition,
            )
            .map(|snapshot| snapshot.view.end_offset_for_epoch(asked.leader_epoch));
            let (code, (leader_epoch, end_offset)) = match end {
                Ok(end) => (ErrorCode::None, end),
                Err(code) => (code, (-1, -1)),
            };
            EpochEndOffset {
                error_code: code.code(),
                partition: asked.partition,
                leader_epoch,
                end_offset,
            }
        });
        OffsetForLeaderTopicResult {
            partitions: partitions.collect(),
            topic: topic.topic,
        }
    };
    OffsetForLeaderEpochResponse {
        topics: request.topics.into_iter().map(result).collect(),
        ..OffsetForLeaderEpochResponse::default()
    }
}
