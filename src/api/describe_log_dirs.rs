//! DescribeLogDirs (key 35): what each partition takes of which directory (KIP-113).
//!
//! # Behavior
//! - One directory. A partition that is not known, or whose log could not be opened, is left out.
//! - A partition's size is that of its segments, without indexes and without what is removed already.
//!
//! # Version notes
//! - v0 is gone since Kafka 4 (KIP-896). v1: throttling happens after the response (KIP-219). v2: flexible (KIP-482).
//! - v3: a top-level error. v4: the filesystem's bytes, in all and usable (KIP-827).

use super::Call;
use crate::catalog::Topic;
use crate::error::ErrorCode;
use crate::storage::{Partition, Status};
use crate::sys;
use crate::wire::messages;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

messages! {
    DescribeLogDirsRequest(35) [1-4, flexible 2+] {
        topics: Option<Vec<DescribableLogDirTopic>> [0+],
    }
    DescribableLogDirTopic {
        topic: String [0+],
        partitions: Vec<i32> [0+],
    }

    DescribeLogDirsResponse(35) [1-4, flexible 2+] {
        throttle_time_ms: i32 [0+],
        error_code: i16 [3+],
        results: Vec<DescribeLogDirsResult> [0+],
    }
    DescribeLogDirsResult {
        error_code: i16 [0+],
        log_dir: String [0+],
        topics: Vec<DescribeLogDirsTopic> [0+],
        total_bytes: i64 [4+] = -1,
        usable_bytes: i64 [4+] = -1,
    }
    DescribeLogDirsTopic {
        name: String [0+],
        partitions: Vec<DescribeLogDirsPartition> [0+],
    }
    DescribeLogDirsPartition {
        partition_index: i32 [0+],
        partition_size: i64 [0+],
        offset_lag: i64 [0+],
        is_future_key: bool [0+],
    }
}

/// Describes the data directory and what is asked for of it; null asks for everything.
pub fn handle(call: &mut Call<'_>, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let asked = request.topics.as_ref().map(|topics| {
        let pairs = topics
            .iter()
            .flat_map(|t| t.partitions.iter().map(|index| (t.topic.as_str(), *index)));
        pairs.collect::<HashSet<_>>()
    });
    let is_asked = |topic: &Topic, index: i32| match &asked {
        Some(asked) => asked.contains(&(&*topic.name, index)),
        None => true,
    };
    let log_dir = data_dir(call);
    let mut result = DescribeLogDirsResult {
        log_dir: log_dir.display().to_string(),
        ..DescribeLogDirsResult::default()
    };
    match sys::disk_space(&log_dir) {
        Ok(space) => (result.total_bytes, result.usable_bytes) = space,
        Err(error) => {
            log::error!("{}: {error}", log_dir.display());
            result.error_code = ErrorCode::KafkaStorageError.code();
        }
    }
    for topic in call.broker.catalog.get().topics() {
        let asked = topic.partitions.iter().filter(|p| is_asked(topic, p.index));
        let partitions: Vec<_> = asked.filter_map(describe).collect();
        if !partitions.is_empty() {
            result.topics.push(DescribeLogDirsTopic {
                name: topic.name.to_string(),
                partitions,
            });
        }
    }
    DescribeLogDirsResponse {
        results: vec![result],
        ..DescribeLogDirsResponse::default()
    }
}

/// The one directory, by the name that clients know it by: an absolute path.
pub fn data_dir(call: &Call<'_>) -> PathBuf {
    let dir = call.broker.config().data_dir.clone();
    std::path::absolute(&dir).unwrap_or(dir)
}

fn describe(partition: &Arc<Partition>) -> Option<DescribeLogDirsPartition> {
    let snapshot = partition.snapshot();
    (snapshot.status == Status::Online).then(|| DescribeLogDirsPartition {
        partition_index: partition.index,
        partition_size: snapshot.view.total_bytes() as i64,
        ..DescribeLogDirsPartition::default()
    })
}
