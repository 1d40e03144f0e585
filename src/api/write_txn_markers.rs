//! WriteTxnMarkers (key 27): markers, as Kafka's coordinators send them to other brokers, and operators to end what
//! hangs (KIP-664).
//!
//! # Behavior
//! - Answered once every marker is synced. What is known of the producer's transaction does not change.
//!
//! # Version notes
//! - v0 is gone since Kafka 4 (KIP-896). v1: flexible (KIP-482).

use super::{Call, Ended};
use crate::catalog::Catalog;
use crate::error::ErrorCode;
use crate::txn::{Request, Response, TopicPartition};
use crate::wire::messages;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

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

/// Asks the coordinator, producer by producer: for each partition once, however often it is named.
pub fn handle(
    call: &mut Call<'_>,
    request: WriteTxnMarkersRequest,
) -> Result<WriteTxnMarkersResponse, Ended> {
    let mut response = WriteTxnMarkersResponse::default();
    for marker in request.markers {
        let partitions = find(&call.broker.catalog.get(), &marker.topics);
        let request = Request::Mark {
            producer_id: marker.producer_id,
            epoch: marker.producer_epoch,
            commit: marker.transaction_result,
            coordinator_epoch: marker.coordinator_epoch,
            partitions: partitions.iter().cloned().collect(),
        };
        let Response::Marked(codes) = call.ask_transactions(request)? else {
            return Err(Ended);
        };
        let codes: BTreeMap<TopicPartition, ErrorCode> =
            partitions.into_iter().zip(codes).collect();
        let topics = marker.topics.into_iter().map(|topic| {
            let name: Arc<str> = topic.name.as_str().into();
            let result = |partition_index| {
                let code = codes.get(&(name.clone(), partition_index));
                let code = code.unwrap_or(&ErrorCode::UnknownTopicOrPartition);
                WritableTxnMarkerPartitionResult {
                    partition_index,
                    error_code: code.code(),
                }
            };
            let indexes = topic.partition_indexes.into_iter();
            WritableTxnMarkerTopicResult {
                partitions: indexes.map(result).collect(),
                name: topic.name,
            }
        });
        response.markers.push(WritableTxnMarkerResult {
            producer_id: marker.producer_id,
            topics: topics.collect(),
        });
    }
    Ok(response)
}

/// The partitions that are there.
fn find(catalog: &Catalog, topics: &[WritableTxnMarkerTopic]) -> BTreeSet<TopicPartition> {
    let of = |asked: &WritableTxnMarkerTopic| {
        let topic = catalog.by_name(&asked.name);
        let find = |&index: &i32| {
            let topic = topic.filter(|topic| topic.partition(index).is_some())?;
            Some((topic.name.clone(), index))
        };
        asked
            .partition_indexes
            .iter()
            .filter_map(find)
            .collect::<Vec<_>>()
    };
    topics.iter().flat_map(of).collect()
}
