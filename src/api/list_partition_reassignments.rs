//! ListPartitionReassignments (key 46): partitions on their way to other brokers (KIP-455).
//!
//! # Behavior
//! - There is one broker, so none is, whichever are asked for.
//!
//! # Version notes
//! - v0 is the only version.

use crate::wire::messages;

messages! {
    ListPartitionReassignmentsRequest(46) [0-0, flexible 0+] {
        timeout_ms: i32 [0+] = 60000,
        topics: Option<Vec<ListPartitionReassignmentsTopics>> [0+],
    }
    ListPartitionReassignmentsTopics {
        name: String [0+],
        partition_indexes: Vec<i32> [0+],
    }

    ListPartitionReassignmentsResponse(46) [0-0, flexible 0+] {
        throttle_time_ms: i32 [0+],
        error_code: i16 [0+],
        error_message: Option<String> [0+],
        topics: Vec<OngoingTopicReassignment> [0+],
    }
    OngoingTopicReassignment {
        name: String [0+],
        partitions: Vec<OngoingPartitionReassignment> [0+],
    }
    OngoingPartitionReassignment {
        partition_index: i32 [0+],
        replicas: Vec<i32> [0+],
        adding_replicas: Vec<i32> [0+],
        removing_replicas: Vec<i32> [0+],
    }
}

/// Lists none. A topic that does not exist is no error, in Kafka too.
pub fn handle(_: ListPartitionReassignmentsRequest) -> ListPartitionReassignmentsResponse {
    ListPartitionReassignmentsResponse::default()
}
