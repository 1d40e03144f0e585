//! Requests of producers, and about them.

use crate::common::producer::Client;
use ottla::api::describe_producers::*;
use ottla::api::init_producer_id::*;
use ottla::api::list_offsets::*;
use ottla::api::list_transactions::*;
use ottla::api::produce::*;
use ottla::batch::TRANSACTIONAL;
use ottla::batch::builder::Builder;
use ottla::wire::Records;
use std::collections::BTreeMap;

/// Uses a transactional.id; gives its producer id and epoch.
pub fn begin_anew(client: &mut Client, id: &str, timeout_ms: i64) -> (i64, i16) {
    let request = InitProducerIdRequest {
        transactional_id: Some(id.into()),
        transaction_timeout_ms: timeout_ms as i32,
        ..InitProducerIdRequest::default()
    };
    let answer: InitProducerIdResponse = client.call(5, &request).unwrap();
    assert_eq!(answer.error_code, 0, "{id}");
    (answer.producer_id, answer.producer_epoch)
}

/// A transaction's first record, which adds the partition (KIP-890); gives its offset.
pub fn open(client: &mut Client, id: &str, topic: &str, me: (i64, i16), time_ms: i64) -> i64 {
    let builder = Builder::new(time_ms).producer(me.0, me.1, 0);
    let mut builder = builder.attributes(TRANSACTIONAL);
    builder.add(None, Some(b"open"), &[], time_ms);
    let partition = PartitionProduceData {
        index: 0,
        records: Records::Held(builder.build().into()),
    };
    let request = ProduceRequest {
        transactional_id: Some(id.into()),
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![TopicProduceData {
            name: topic.into(),
            partition_data: vec![partition],
            ..TopicProduceData::default()
        }],
    };
    let answer: ProduceResponse = client.call(12, &request).unwrap();
    let partition = &answer.responses[0].partition_responses[0];
    assert_eq!(partition.error_code, 0, "{id}");
    partition.base_offset
}

/// The end of what readers of committed records see.
pub fn last_stable(client: &mut Client, topic: &str) -> i64 {
    let request = ListOffsetsRequest {
        isolation_level: 1,
        topics: vec![ListOffsetsTopic {
            name: topic.into(),
            partitions: vec![ListOffsetsPartition {
                timestamp: -1,
                ..ListOffsetsPartition::default()
            }],
        }],
        ..ListOffsetsRequest::default()
    };
    let answer: ListOffsetsResponse = client.call(7, &request).unwrap();
    answer.topics[0].partitions[0].offset
}

/// The transactional.ids, and the state of each.
pub fn transactional_ids(client: &mut Client) -> BTreeMap<String, String> {
    let request = ListTransactionsRequest {
        duration_filter: -1,
        ..ListTransactionsRequest::default()
    };
    let answer: ListTransactionsResponse = client.call(1, &request).unwrap();
    assert_eq!(answer.error_code, 0);
    let state = |s: TransactionState| (s.transactional_id, s.transaction_state);
    answer.transaction_states.into_iter().map(state).collect()
}

/// The producers that a topic's one partition remembers.
pub fn producer_ids(client: &mut Client, topic: &str) -> Vec<i64> {
    let request = DescribeProducersRequest {
        topics: vec![TopicRequest {
            name: topic.into(),
            partition_indexes: vec![0],
        }],
    };
    let answer: DescribeProducersResponse = client.call(0, &request).unwrap();
    let partition = &answer.topics[0].partitions[0];
    assert_eq!(partition.error_code, 0);
    let ids = partition.active_producers.iter();
    ids.map(|producer| producer.producer_id).collect()
}
