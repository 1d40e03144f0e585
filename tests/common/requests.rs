//! Requests that many tests send.

use ottla::api::delete_records::*;
use ottla::api::describe_configs::*;
use ottla::api::offset_commit::*;
use ottla::api::offset_fetch::*;
use std::ops::Range;

/// Asks for the records of a partition before an offset to be deleted.
pub fn delete_records(topic: &str, partition_index: i32, offset: i64) -> DeleteRecordsRequest {
    DeleteRecordsRequest {
        topics: vec![DeleteRecordsTopic {
            name: topic.into(),
            partitions: vec![DeleteRecordsPartition {
                partition_index,
                offset,
            }],
        }],
        timeout_ms: 30_000,
    }
}

/// Commits an offset of partition 0, outside of any generation.
pub fn offset_commit(group: &str, topic: &str, offset: i64) -> OffsetCommitRequest {
    OffsetCommitRequest {
        group_id: group.into(),
        topics: vec![OffsetCommitRequestTopic {
            name: topic.into(),
            partitions: vec![OffsetCommitRequestPartition {
                committed_offset: offset,
                ..OffsetCommitRequestPartition::default()
            }],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    }
}

/// Asks for what a group has committed, as of the transactions whose markers are written; for versions 8 and later.
pub fn offset_fetch(group: &str, topic: &str, partitions: Range<i32>) -> OffsetFetchRequest {
    OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: group.into(),
            topics: Some(vec![OffsetFetchRequestTopics {
                name: topic.into(),
                partition_indexes: partitions.collect(),
                ..OffsetFetchRequestTopics::default()
            }]),
            ..OffsetFetchRequestGroup::default()
        }],
        ..OffsetFetchRequest::default()
    }
}

/// Asks for every setting of resources of a type (2: topics, 4: brokers), with all that can be said of each.
pub fn describe_configs(resource_type: i8, names: &[impl ToString]) -> DescribeConfigsRequest {
    let resource = |name: &_| DescribeConfigsResource {
        resource_type,
        resource_name: ToString::to_string(name),
        configuration_keys: None,
    };
    DescribeConfigsRequest {
        resources: names.iter().map(resource).collect(),
        include_synonyms: true,
        include_documentation: true,
    }
}
