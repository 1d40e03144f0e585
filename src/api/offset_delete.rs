//! OffsetDelete (key 47): committed offsets of topics that no member reads are taken away (KIP-496).

use crate::wire::messages;

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
