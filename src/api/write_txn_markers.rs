//! WriteTxnMarkers (key 27): markers, as Kafka's coordinators send them to other brokers, and operators to end what
//! hangs (KIP-664).
//!
//! # Behavior
//! - Answered once every marker is synced. What is known of the producer's transaction does not change.
//!
//! # Version notes
//! - v0 is gone since Kafka 4 (KIP-896). v1: flexible (KIP-482).

use super::{Call, Ended};
use crate::error::ErrorCode;
use crate::txn::{Request, Response};
use crate::wire::messages;

messages! {
    WriteTxnMarkersRequest(27) [1-1, flexible 1+] {
        markers: Vec<WritableTxnMarker> [0+],
    }
    WritableTxnMarker {
        producer_id: i64 [0+],
        producer_epoch: i16 [0+],
        transaction_result: bool [0+],
        topics: Vec<WritableTxnMarkerTopic> [0+],
        coordinator_epoch: i32 [0+],
    }
    WritableTxnMarkerTopic {
        name: String [0+],
        partition_indexes: Vec<i32> [0+],
    }

    WriteTxnMarkersResponse(27) [1-1, flexible 1+] {
        markers: Vec<WritableTxnMarkerResult> [0+],
    }
    WritableTxnMarkerResult {
        producer_id: i64 [0+],
        topics: Vec<WritableTxnMarkerTopicResult> [0+],
    }
    WritableTxnMarkerTopicResult {
        name: String [0+],
        partitions: Vec<WritableTxnMarkerPartitionResult> [0+],
    }
    WritableTxnMarkerPartitionResult {
        partition_index: i32 [0+],
        error_code: i16 [0+],
    }
}

/// Asks the coordinator, producer by producer.
pub fn handle(
    call: &mut Call<'_>,
    request: WriteTxnMarkersRequest,
) -> Result<WriteTxnMarkersResponse, Ended> {
    let mut response = WriteTxnMarkersResponse::default();
    for marker in request.markers {
        let partitions = marker.topics.iter().flat_map(|topic| {
            let name: std::sync::Arc<str> = topic.name.as_str().into();
            let indexes = topic.partition_indexes.iter();
            indexes.map(move |index| (name.clone(), *index))
        });
        let request = Request::Mark {
            producer_id: marker.producer_id,
            epoch: marker.producer_epoch,
            commit: marker.transaction_result,
            coordinator_epoch: marker.coordinator_epoch,
            partitions: partitions.collect(),
        };
        let Response::Marked(codes) = call.ask_transactions(request)? else {
            return Err(Ended);
        };
        let mut codes = codes.into_iter();
        let mut result = |partition_index| WritableTxnMarkerPartitionResult {
            partition_index,
            error_code: codes.next().unwrap_or(ErrorCode::None).code(),
        };
        let topics = marker.topics.into_iter();
        let topics = topics.map(|topic| WritableTxnMarkerTopicResult {
            name: topic.name,
            partitions: topic
                .partition_indexes
                .into_iter()
                .map(&mut result)
                .collect(),
        });
        response.markers.push(WritableTxnMarkerResult {
            producer_id: marker.producer_id,
            topics: topics.collect(),
        });
    }
    Ok(response)
}
