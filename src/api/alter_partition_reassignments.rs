//! AlterPartitionReassignments (key 45): moves partitions to other brokers, or stops such a move (KIP-455).
//!
//! # Behavior
//! - There is one broker: to it, a move is done before it began; to another it is refused; none is ever under way.
//!
//! # Version notes
//! - v1: the client may forbid that the number of replicas changes (KIP-860).

use super::Call;
use crate::catalog::{Catalog, shown};
use crate::control::{Fault, check_replicas};
use crate::error::ErrorCode;
use crate::wire::messages;

messages! {
    AlterPartitionReassignmentsRequest(45) [0-1, flexible 0+] {
        timeout_ms: i32 [0+] = 60000,
        allow_replication_factor_change: bool [1+] = true,
        topics: Vec<ReassignableTopic> [0+],
    }
    ReassignableTopic {
        name: String [0+],
        partitions: Vec<ReassignablePartition> [0+],
    }
    ReassignablePartition {
        partition_index: i32 [0+],
        replicas: Option<Vec<i32>> [0+],
    }

    AlterPartitionReassignmentsResponse(45) [0-1, flexible 0+] {
        throttle_time_ms: i32 [0+],
        allow_replication_factor_change: bool [1+] = true,
        error_code: i16 [0+],
        error_message: Option<String> [0+],
        responses: Vec<ReassignableTopicResponse> [0+],
    }
    ReassignableTopicResponse {
        name: String [0+],
        partitions: Vec<ReassignablePartitionResponse> [0+],
    }
    ReassignablePartitionResponse {
        partition_index: i32 [0+],
        error_code: i16 [0+],
        error_message: Option<String> [0+],
    }
}

/// Checks each move as if it were made; nothing changes.
pub fn handle(
    call: &mut Call<'_>,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let catalog = call.broker.catalog.get();
    let node_id = call.broker.config().node_id;
    let may_change = request.allow_replication_factor_change;
    let response = |topic: ReassignableTopic| {
        let name = topic.name;
        let partitions = topic.partitions.into_iter().map(|target| {
            let fault = check(&catalog, node_id, may_change, &name, &target).err();
            let (code, sentence) =
                fault.map_or((ErrorCode::None, None), |(code, s)| (code, Some(s)));
            ReassignablePartitionResponse {
                partition_index: target.partition_index,
                error_code: code.code(),
                error_message: sentence,
            }
        });
        ReassignableTopicResponse {
            partitions: partitions.collect(),
            name,
        }
    };
    AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: may_change,
        responses: request.topics.into_iter().map(response).collect(),
        ..AlterPartitionReassignmentsResponse::default()
    }
}

fn check(
    catalog: &Catalog,
    node_id: i32,
    may_change: bool,
    name: &str,
    target: &ReassignablePartition,
) -> Result<(), Fault> {
    let missing = |sentence| (ErrorCode::UnknownTopicOrPartition, sentence);
    let index = target.partition_index;
    let topic = catalog.by_name(name);
    let unknown = || missing(format!("Unable to find a topic named {}.", shown(name)));
    let topic = topic.ok_or_else(unknown)?;
    if topic.partition(index).is_none() {
        return Err(missing(format!("Unable to find partition {name}:{index}.")));
    }
    let Some(replicas) = &target.replicas else {
        let sentence = "No partition reassignment is in progress.";
        return Err((ErrorCode::NoReassignmentInProgress, sentence.into()));
    };
    if !may_change && replicas.len() != 1 {
        let count = replicas.len();
        let sentence = format!("The replication factor is changed from 1 to {count}");
        return Err((ErrorCode::InvalidReplicationFactor, sentence));
    }
    check_replicas(node_id, replicas)
}
