//! DescribeQuorum (key 55): who keeps the catalog, and how far (KIP-595, KIP-836).
//!
//! # Behavior
//! - This node is the only voter and the leader; there are no observers.
//! - Asked for is `__cluster_metadata-0` and nothing else, or all that is asked for is refused.
//!
//! # Version notes
//! - v1: when each replica last fetched and was last caught up (KIP-836). v2: directory ids, the voters' addresses,
//!   error messages (KIP-853).

use super::{Call, NOTHING_SAID};
use crate::catalog::METADATA_TOPIC;
use crate::clock::wall_clock_ms;
use crate::error::ErrorCode;
use crate::wire::{Uuid, messages};

messages! {
    DescribeQuorumRequest(55) [0-2, flexible 0+] {
        topics: Vec<TopicRequest> [0+],
    }
    TopicRequest {
        topic_name: String [0+],
        partitions: Vec<PartitionRequest> [0+],
    }
    PartitionRequest {
        partition_index: i32 [0+],
    }

    DescribeQuorumResponse(55) [0-2, flexible 0+] {
        error_code: i16 [0+],
        error_message: Option<String> [2+],
        topics: Vec<TopicData> [0+],
        nodes: Vec<Node> [2+],
    }
    TopicData {
        topic_name: String [0+],
        partitions: Vec<PartitionData> [0+],
    }
    PartitionData {
        partition_index: i32 [0+],
        error_code: i16 [0+],
        error_message: Option<String> [2+],
        leader_id: i32 [0+],
        leader_epoch: i32 [0+],
        high_watermark: i64 [0+],
        current_voters: Vec<ReplicaState> [0+],
        observers: Vec<ReplicaState> [0+],
    }
    ReplicaState {
        replica_id: i32 [0+],
        replica_directory_id: Uuid [2+],
        log_end_offset: i64 [0+],
        last_fetch_timestamp: i64 [1+] = -1,
        last_caught_up_timestamp: i64 [1+] = -1,
    }
    Node {
        node_id: i32 [2+],
        listeners: Vec<Listener> [2+],
    }
    Listener {
        name: String [2+],
        host: String [2+],
        port: u16 [2+],
    }
}

/// Describes the quorum of one.
pub fn handle(call: &mut Call<'_>, request: DescribeQuorumRequest) -> DescribeQuorumResponse {
    let is_catalog = match &request.topics[..] {
        [topic] => {
            let partitions = &topic.partitions[..];
            topic.topic_name == METADATA_TOPIC
                && matches!(partitions, [PartitionRequest { partition_index: 0 }])
        }
        _ => false,
    };
    if !is_catalog {
        return refuse(request.topics);
    }
    let node_id = call.broker.config().node_id;
    let snapshot = call.broker.metadata.snapshot();
    let now_ms = wall_clock_ms();
    let leader = ReplicaState {
        replica_id: node_id,
        // As long as the voters are fixed (`kraft.version` 0), Kafka does not tell theirs.
        replica_directory_id: Uuid::ZERO,
        log_end_offset: snapshot.view.appended_end,
        last_fetch_timestamp: now_ms,
        last_caught_up_timestamp: now_ms,
    };
    let partition = PartitionData {
        error_message: NOTHING_SAID,
        leader_id: node_id,
        leader_epoch: snapshot.leader_epoch,
        high_watermark: snapshot.view.high_watermark,
        current_voters: vec![leader],
        ..PartitionData::default()
    };
    DescribeQuorumResponse {
        error_message: NOTHING_SAID,
        topics: vec![TopicData {
            topic_name: METADATA_TOPIC.into(),
            partitions: vec![partition],
        }],
        nodes: vec![node(call)],
        ..DescribeQuorumResponse::default()
    }
}

/// The address that this client reached, which serves the controller's requests too.
fn node(call: &Call<'_>) -> Node {
    let (host, port) = call.advertised();
    let config = call.broker.config();
    let name = config.listeners.first();
    Node {
        node_id: config.node_id,
        listeners: vec![Listener {
            name: name.map_or_else(String::new, |listener| listener.name.clone()),
            host,
            port: port as u16,
        }],
    }
}

fn refuse(topics: Vec<TopicRequest>) -> DescribeQuorumResponse {
    let partition = |partition: PartitionRequest| PartitionData {
        partition_index: partition.partition_index,
        error_code: ErrorCode::UnknownTopicOrPartition.code(),
        error_message: Some("This server does not host this topic-partition.".into()),
        ..PartitionData::default()
    };
    let topic = |topic: TopicRequest| TopicData {
        topic_name: topic.topic_name,
        partitions: topic.partitions.into_iter().map(partition).collect(),
    };
    DescribeQuorumResponse {
        error_message: NOTHING_SAID,
        topics: topics.into_iter().map(topic).collect(),
        ..DescribeQuorumResponse::default()
    }
}
