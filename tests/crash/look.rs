//! What a broker that was started on a cut's image shows through the wire, in few requests.

use crate::common::producer::{Batch, Client, batches, bytes_of};
use crate::common::requests;
use ottla::api::describe_configs::*;
use ottla::api::fetch::*;
use ottla::api::list_offsets::*;
use ottla::api::metadata::{MetadataRequest, MetadataResponse};
use ottla::api::offset_fetch::*;
use ottla::api::produce::*;
use ottla::wire::{Records, Uuid};
use std::collections::BTreeMap;

const BYTES_MAX: i32 = 50 << 20;

/// A partition, by topic and index.
pub type Name = (String, i32);

/// What one partition holds.
#[derive(Default)]
pub struct Log {
    pub start: i64,
    pub end: i64,
    pub batches: Vec<Batch>,
}

/// The topics that are no internal ones: id, and number of partitions.
pub fn topics(client: &mut Client) -> BTreeMap<String, (Uuid, i32)> {
    let request = MetadataRequest {
        topics: None,
        allow_auto_topic_creation: false,
        ..MetadataRequest::default()
    };
    let answer: MetadataResponse = client.call(12, &request).unwrap();
    let topic = |topic: ottla::api::metadata::MetadataResponseTopic| {
        assert_eq!(topic.error_code, 0, "{:?}", topic.name);
        let errors = topic.partitions.iter().filter(|p| p.error_code != 0);
        assert_eq!(errors.count(), 0, "{:?}: offline", topic.name);
        let (name, count) = (topic.name.unwrap_or_default(), topic.partitions.len());
        (name, (topic.topic_id, count as i32))
    };
    let topics = answer.topics.into_iter().filter(|topic| !topic.is_internal);
    topics.map(topic).collect()
}

/// All of the logs of these partitions, each batch checked; offsets rise, and the end is the high watermark.
pub fn logs(client: &mut Client, names: &[Name]) -> BTreeMap<Name, Log> {
    let mut logs = starts(client, names);
    let mut unread: Vec<Name> = names.to_vec();
    while !unread.is_empty() {
        let topic = |(name, index): &Name| FetchTopic {
            topic: name.clone(),
            partitions: vec![FetchPartition {
                partition: *index,
                fetch_offset: logs[&(name.clone(), *index)].end,
                partition_max_bytes: BYTES_MAX,
                ..FetchPartition::default()
            }],
            ..FetchTopic::default()
        };
        let request = FetchRequest {
            max_bytes: BYTES_MAX,
            topics: unread.iter().map(topic).collect(),
            ..FetchRequest::default()
        };
        let answer: FetchResponse = client.call(12, &request).unwrap();
        assert_eq!(answer.error_code, 0);
        let mut got_on = false;
        for topic in answer.responses {
            for data in topic.partitions {
                let name = (topic.topic.clone(), data.partition_index);
                assert_eq!(data.error_code, 0, "{name:?}");
                let log = logs.get_mut(&name).expect("it was asked for");
                for batch in batches(bytes_of(&data.records)) {
                    assert!(batch.header.last_offset() >= log.end, "{name:?}");
                    log.end = batch.header.last_offset() + 1;
                    log.batches.push(batch);
                    got_on = true;
                }
                if log.end >= data.high_watermark {
                    assert_eq!(log.end, data.high_watermark, "{name:?}");
                    unread.retain(|other| *other != name);
                    got_on = true;
                }
            }
        }
        assert!(got_on, "{unread:?} cannot be read");
    }
    logs
}

fn starts(client: &mut Client, names: &[Name]) -> BTreeMap<Name, Log> {
    let topic = |(name, index): &Name| ListOffsetsTopic {
        name: name.clone(),
        partitions: vec![ListOffsetsPartition {
            partition_index: *index,
            timestamp: -2,
            ..ListOffsetsPartition::default()
        }],
    };
    let request = ListOffsetsRequest {
        topics: names.iter().map(topic).collect(),
        ..ListOffsetsRequest::default()
    };
    let answer: ListOffsetsResponse = client.call(7, &request).unwrap();
    let mut logs = BTreeMap::new();
    for topic in answer.topics {
        for partition in topic.partitions {
            let name = (topic.name.clone(), partition.partition_index);
            assert_eq!(partition.error_code, 0, "{name:?}");
            let log = Log {
                start: partition.offset,
                end: partition.offset,
                batches: Vec::new(),
            };
            logs.insert(name, log);
        }
    }
    logs
}

/// Produces a batch to each of these partitions with acks=all; gives their offsets, in that order.
pub fn produce(client: &mut Client, parts: &[(Name, Vec<u8>)]) -> Vec<i64> {
    // One answer comes for each topic's name; they stand in the order in which the topics were named.
    let mut topics: Vec<TopicProduceData> = Vec::new();
    for ((name, index), batch) in parts {
        let data = PartitionProduceData {
            index: *index,
            records: Records::Held(batch.clone().into()),
        };
        match topics.last_mut().filter(|topic| topic.name == *name) {
            Some(topic) => topic.partition_data.push(data),
            None => topics.push(TopicProduceData {
                name: name.clone(),
                partition_data: vec![data],
                ..TopicProduceData::default()
            }),
        }
    }
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topic_data: topics,
        ..ProduceRequest::default()
    };
    let answer: ProduceResponse = client.call(9, &request).unwrap();
    let mut offsets = BTreeMap::new();
    for topic in answer.responses {
        for part in topic.partition_responses {
            let name = (topic.name.clone(), part.index);
            assert_eq!(part.error_code, 0, "{name:?} goes on");
            offsets.insert(name, part.base_offset);
        }
    }
    parts.iter().map(|(name, _)| offsets[name]).collect()
}

/// How far a group has read of partition 0, -1 if that is not known.
pub fn committed_offset(client: &mut Client, group: &str, topic: &str) -> i64 {
    let request = OffsetFetchRequest {
        require_stable: true,
        ..requests::offset_fetch(group, topic, 0..1)
    };
    let answer: OffsetFetchResponse = client.call(8, &request).unwrap();
    let group = &answer.groups[0];
    assert_eq!(group.error_code, 0);
    let topic = group.topics.first();
    topic.map_or(-1, |topic| topic.partitions[0].committed_offset)
}

/// A setting of a topic.
pub fn setting(client: &mut Client, topic: &str, name: &str) -> Option<String> {
    let request = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: 2,
            resource_name: topic.into(),
            configuration_keys: Some(vec![name.into()]),
        }],
        ..DescribeConfigsRequest::default()
    };
    let mut answer: DescribeConfigsResponse = client.call(4, &request).unwrap();
    let result = answer.results.remove(0);
    assert_eq!(result.error_code, 0);
    result.configs.into_iter().next()?.value
}
