//! AlterReplicaLogDirs (key 34): moves replicas between a broker's directories (KIP-113).
//!
//! # Behavior
//! - There is one directory: a replica is moved to where it is, or not at all.
//! - A partition that is named twice goes where the last one says, as in Kafka.
//!
//! # Version notes
//! - v0 is gone since Kafka 4 (KIP-896). v1: throttling happens after the response (KIP-219). v2: flexible (KIP-482).

use super::describe_log_dirs::data_dir;
use super::{Call, usable};
use crate::error::ErrorCode;
use crate::wire::messages;
use std::collections::BTreeMap;

messages! {
    AlterReplicaLogDirsRequest(34) [1-2, flexible 2+] {
        dirs: Vec<AlterReplicaLogDir> [0+],
    }
    AlterReplicaLogDir {
        path: String [0+],
        topics: Vec<AlterReplicaLogDirTopic> [0+],
    }
    AlterReplicaLogDirTopic {
        name: String [0+],
        partitions: Vec<i32> [0+],
    }

    AlterReplicaLogDirsResponse(34) [1-2, flexible 2+] {
        throttle_time_ms: i32 [0+],
        results: Vec<AlterReplicaLogDirTopicResult> [0+],
    }
    AlterReplicaLogDirTopicResult {
        topic_name: String [0+],
        partitions: Vec<AlterReplicaLogDirPartitionResult> [0+],
    }
    AlterReplicaLogDirPartitionResult {
        partition_index: i32 [0+],
        error_code: i16 [0+],
    }
}

/// What a directory's name may be long, and what Kafka adds to a partition's while it is moved (KAFKA-4893).
const NAME_BYTES_MAX: usize = 255;
const FUTURE_SUFFIX_BYTES: usize = ".".len() + 32 + "-future".len();

/// Says for each partition whether it is where it shall be.
pub fn handle(
    call: &mut Call<'_>,
    request: AlterReplicaLogDirsRequest,
) -> AlterReplicaLogDirsResponse {
    let catalog = call.broker.catalog.get();
    let here = data_dir(call);
    let mut codes: BTreeMap<String, BTreeMap<i32, ErrorCode>> = BTreeMap::new();
    for dir in request.dirs {
        for topic in dir.topics {
            let known = catalog.by_name(&topic.name);
            let code = |index: i32| {
                let name_bytes = format!("{}-{index}", topic.name).len();
                if name_bytes + FUTURE_SUFFIX_BYTES > NAME_BYTES_MAX {
                    return ErrorCode::InvalidTopicException;
                }
                if here.as_os_str() != dir.path.as_str() {
                    return ErrorCode::LogDirNotFound;
                }
                let partition = known.and_then(|topic| topic.partition(index));
                let missing = ErrorCode::UnknownTopicOrPartition;
                usable(partition, -1, missing)
                    .err()
                    .unwrap_or(ErrorCode::None)
            };
            let found = topic.partitions.iter().map(|&index| (index, code(index)));
            let found: Vec<_> = found.collect();
            codes.entry(topic.name).or_default().extend(found);
        }
    }
    let results = codes.into_iter().map(|(topic_name, codes)| {
        let partition = |(partition_index, code): (i32, ErrorCode)| {
            let error_code = code.code();
            AlterReplicaLogDirPartitionResult {
                partition_index,
                error_code,
            }
        };
        AlterReplicaLogDirTopicResult {
            topic_name,
            partitions: codes.into_iter().map(partition).collect(),
        }
    });
    AlterReplicaLogDirsResponse {
        results: results.collect(),
        ..AlterReplicaLogDirsResponse::default()
    }
}
