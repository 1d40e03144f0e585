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

use crate::wire::{Uuid, messages};

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
