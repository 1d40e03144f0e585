//! DescribeProducers (key 61): the producers that a partition remembers (KIP-664).
//!
//! # Behavior
//! - The writer's own state, hence exact: what is told was appended.
//! - A partition that is named twice is described once: a producer's row is long, its partition's number short.
//!
//! # Version notes
//! - v0 is the only version.

use super::{Call, Ended, usable};
use crate::catalog::{Topic, check_name};
use crate::control::Answer;
use crate::error::ErrorCode;
use crate::storage::{ActiveProducer, Partition};
use crate::wire::messages;
use crate::writer::Job;
use std::collections::HashSet;
use std::sync::Arc;

messages! {
    DescribeProducersRequest(61) [0-0, flexible 0+] {
        topics: Vec<TopicRequest> [0+],
    }
    TopicRequest {
        name: String [0+],
        partition_indexes: Vec<i32> [0+],
    }

    DescribeProducersResponse(61) [0-0, flexible 0+] {
        throttle_time_ms: i32 [0+],
        topics: Vec<TopicResponse> [0+],
    }
    TopicResponse {
        name: String [0+],
        partitions: Vec<PartitionResponse> [0+],
    }
    PartitionResponse {
        partition_index: i32 [0+],
        error_code: i16 [0+],
        error_message: Option<String> [0+],
        active_producers: Vec<ProducerState> [0+],
    }
    ProducerState {
        producer_id: i64 [0+],
        producer_epoch: i32 [0+],
        last_sequence: i32 [0+] = -1,
        last_timestamp: i64 [0+] = -1,
        coordinator_epoch: i32 [0+],
        current_txn_start_offset: i64 [0+] = -1,
    }
}

/// Asks the writer for the producers of all partitions that are there.
pub fn handle(
    call: &mut Call<'_>,
    request: DescribeProducersRequest,
) -> Result<DescribeProducersResponse, Ended> {
    let catalog = call.broker.catalog.get();
    let mut response = DescribeProducersResponse::default();
    let (mut seen, mut found) = (HashSet::new(), Vec::new());
    for topic in &request.topics {
        let known = known(&topic.name, catalog.by_name(&topic.name));
        let mut partitions = Vec::new();
        for &partition_index in &topic.partition_indexes {
            if !seen.insert((&topic.name, partition_index)) {
                continue;
            }
            let (code, sentence) = match find(&known, partition_index) {
                Ok(partition) => {
                    found.push(partition);
                    (ErrorCode::None, None)
                }
                Err(fault) => fault,
            };
            partitions.push(PartitionResponse {
                partition_index,
                error_code: code.code(),
                error_message: sentence,
                ..PartitionResponse::default()
            });
        }
        response.topics.push(TopicResponse {
            name: topic.name.clone(),
            partitions,
        });
    }
    if found.is_empty() {
        return Ok(response);
    }
    let job = |reply| Job::ListProducers {
        partitions: found,
        reply,
    };
    if let Answer::Producers(producers) = call.ask_writer(job)? {
        let all = response.topics.iter_mut().flat_map(|t| &mut t.partitions);
        for (partition, producers) in all.filter(|p| p.error_code == 0).zip(producers) {
            match producers {
                Ok(producers) => {
                    partition.active_producers = producers.into_iter().map(state).collect();
                }
                Err(code) => partition.error_code = code.code(),
            }
        }
    }
    Ok(response)
}

type Fault = (ErrorCode, Option<String>);

/// As in Kafka, what is wrong with a topic is said in a sentence, and with a partition in a code alone.
fn known<'a>(name: &str, topic: Option<&'a Arc<Topic>>) -> Result<&'a Topic, Fault> {
    check_name(name).map_err(|sentence| (ErrorCode::InvalidTopicException, Some(sentence)))?;
    let sentence = "This server does not host this topic-partition.";
    let missing = (ErrorCode::UnknownTopicOrPartition, Some(sentence.into()));
    topic.map(Arc::as_ref).ok_or(missing)
}

fn find(topic: &Result<&Topic, Fault>, index: i32) -> Result<Arc<Partition>, Fault> {
    let partition = topic.clone()?.partition(index);
    let missing = ErrorCode::UnknownTopicOrPartition;
    usable(partition, -1, missing).map_err(|code| (code, None))?;
    partition.cloned().ok_or((missing, None))
}

fn state(producer: ActiveProducer) -> ProducerState {
    ProducerState {
        producer_id: producer.id,
        producer_epoch: producer.epoch.into(),
        last_sequence: producer.last_sequence,
        last_timestamp: producer.last_timestamp,
        coordinator_epoch: producer.coordinator_epoch,
        current_txn_start_offset: producer.transaction_start,
    }
}
