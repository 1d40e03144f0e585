//! OffsetFetch (key 9): how far groups have read.
//!
//! # Version notes
//! - v0 is gone since Kafka 4 (KIP-896). v2: null topics ask for all; one error for the group. v3: throttle time.
//! - v5: leader epoch (KIP-320). v6: flexible (KIP-482). v7: stable offsets only (KIP-447).
//! - v8: many groups at once (KIP-709). v9: the member and its epoch (KIP-848). v10: topics by id.

use super::{Call, Ended};
use crate::group::{Read, Request, Response};
use crate::server::waiting::Watch;
use crate::wire::{Uuid, messages};

messages! {
    OffsetFetchRequest(9) [1-10, flexible 6+] {
        group_id: String [0-7],
        topics: Option<Vec<OffsetFetchRequestTopic>> [0-7 null 2+],
        groups: Vec<OffsetFetchRequestGroup> [8+],
        require_stable: bool [7+],
    }
    OffsetFetchRequestTopic {
        name: String [0-7],
        partition_indexes: Vec<i32> [0-7],
    }
    OffsetFetchRequestGroup {
        group_id: String [8+],
        member_id: Option<String> [9+],
        member_epoch: i32 [9+] = -1,
        topics: Option<Vec<OffsetFetchRequestTopics>> [8+],
    }
    OffsetFetchRequestTopics {
        name: String [8-9],
        topic_id: Uuid [10+],
        partition_indexes: Vec<i32> [8+],
    }

    OffsetFetchResponse(9) [1-10, flexible 6+] {
        throttle_time_ms: i32 [3+],
        topics: Vec<OffsetFetchResponseTopic> [0-7],
        error_code: i16 [2-7],
        groups: Vec<OffsetFetchResponseGroup> [8+],
    }
    OffsetFetchResponseTopic {
        name: String [0-7],
        partitions: Vec<OffsetFetchResponsePartition> [0-7],
    }
    OffsetFetchResponseGroup {
        group_id: String [8+],
        topics: Vec<OffsetFetchResponseTopics> [8+],
        error_code: i16 [8+],
    }
    OffsetFetchResponsePartition {
        partition_index: i32 [0-7],
        committed_offset: i64 [0-7],
        committed_leader_epoch: i32 [5-7] = -1,
        metadata: Option<String> [0-7],
        error_code: i16 [0-7],
    }
    OffsetFetchResponseTopics {
        name: String [8-9],
        topic_id: Uuid [10+],
        partitions: Vec<OffsetFetchResponsePartitions> [8+],
    }
    OffsetFetchResponsePartitions {
        partition_index: i32 [8+],
        committed_offset: i64 [8+],
        committed_leader_epoch: i32 [8+] = -1,
        metadata: Option<String> [8+],
        error_code: i16 [8+],
    }
}

/// Looks up what is committed.
pub fn handle(
    call: &mut Call<'_>,
    version: i16,
    request: OffsetFetchRequest,
) -> Result<OffsetFetchResponse, Ended> {
    let read = Request::Read(Read::Offsets(request, version));
    match call.ask_group(version, read, Watch::Failure)? {
        Response::Offsets(response) => Ok(response),
        _ => Err(Ended),
    }
}
