//! ElectLeaders (key 43): makes the preferred replica, or with data loss any, the leader (KIP-183, KIP-460).
//!
//! # Behavior
//! - The one replica leads already; while its log is offline no other is there to be elected.
//! - Null asks for every partition, and is answered with those alone that would need an election and cannot have one.
//!
//! # Version notes
//! - v1: the kind of election, a top-level error (KIP-460). v2: flexible (KIP-482).

use super::Call;
use crate::catalog::{Catalog, shown};
use crate::error::ErrorCode;
use crate::storage::Status;
use crate::wire::messages;

messages! {
    ElectLeadersRequest(43) [0-2, flexible 2+] {
        election_type: i8 [1+],
        topic_partitions: Option<Vec<TopicPartitions>> [0+],
        timeout_ms: i32 [0+] = 60000,
    }
    TopicPartitions {
        topic: String [0+],
        partitions: Vec<i32> [0+],
    }

    ElectLeadersResponse(43) [0-2, flexible 2+] {
        throttle_time_ms: i32 [0+],
        error_code: i16 [1+],
        replica_election_results: Vec<ReplicaElectionResult> [0+],
    }
    ReplicaElectionResult {
        topic: String [0+],
        partition_result: Vec<PartitionResult> [0+],
    }
    PartitionResult {
        partition_id: i32 [0+],
        error_code: i16 [0+],
        error_message: Option<String> [0+],
    }
}

/// Kafka's kinds of election: of the first replica, or of any.
const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

type Fault = (ErrorCode, String);

/// Says of each partition why there is no election.
pub fn handle(call: &mut Call<'_>, request: ElectLeadersRequest) -> ElectLeadersResponse {
    let catalog = call.broker.catalog.get();
    let kind = request.election_type;
    if !matches!(kind, PREFERRED | UNCLEAN) {
        let sentence = format!("Unknown election type {kind}");
        let refuse = |_: &str, _| (ErrorCode::InvalidRequest, sentence.clone());
        return ElectLeadersResponse {
            error_code: ErrorCode::InvalidRequest.code(),
            replica_election_results: results(request.topic_partitions.unwrap_or_default(), refuse),
            ..ElectLeadersResponse::default()
        };
    }
    let elect = |topic: &str, index| elect(&catalog, topic, index, kind);
    let replica_election_results = match request.topic_partitions {
        Some(asked) => results(asked, elect),
        None => {
            let all = catalog.topics().map(|topic| TopicPartitions {
                topic: topic.name.to_string(),
                partitions: (0..topic.partitions.len() as i32).collect(),
            });
            let mut results = results(all.collect(), elect);
            let needless = ErrorCode::ElectionNotNeeded.code();
            for topic in &mut results {
                topic.partition_result.retain(|p| p.error_code != needless);
            }
            results
        }
    };
    ElectLeadersResponse {
        replica_election_results,
        ..ElectLeadersResponse::default()
    }
}

fn results(
    asked: Vec<TopicPartitions>,
    elect: impl Fn(&str, i32) -> Fault,
) -> Vec<ReplicaElectionResult> {
    let result = |asked: TopicPartitions| {
        let partition = |&partition_id: &i32| {
            let (code, sentence) = elect(&asked.topic, partition_id);
            PartitionResult {
                partition_id,
                error_code: code.code(),
                error_message: Some(sentence),
            }
        };
        ReplicaElectionResult {
            partition_result: asked.partitions.iter().map(partition).collect(),
            topic: asked.topic,
        }
    };
    asked.into_iter().map(result).collect()
}

fn elect(catalog: &Catalog, name: &str, index: i32, kind: i8) -> Fault {
    let missing = |sentence| (ErrorCode::UnknownTopicOrPartition, sentence);
    let Some(topic) = catalog.by_name(name) else {
        return missing(format!("No such topic as {}", shown(name)));
    };
    let Some(partition) = topic.partition(index) else {
        return missing(format!("No such partition as {name}-{index}"));
    };
    match (partition.snapshot().status, kind) {
        (Status::Online, _) => (
            ErrorCode::ElectionNotNeeded,
            "Leader election not needed for topic partition.".into(),
        ),
        (_, PREFERRED) => (
            ErrorCode::PreferredLeaderNotAvailable,
            "The preferred leader was not available.".into(),
        ),
        _ => (
            ErrorCode::EligibleLeadersNotAvailable,
            "Eligible topic partition leaders are not available.".into(),
        ),
    }
}
