//! ListOffsets (key 2): the offset at a point in time, or at one of the special times.
//!
//! # Behavior
//! - Timestamp -1 asks for the end (for `read_committed` the last stable offset), -2 for the start; any other for
//!   the first record at or after it.
//! - A partition that is named twice gets INVALID_REQUEST.
//! - There is no tiered storage: -4 is the start, -5 and -6 find nothing.
//!
//! # Version notes
//! - v0, which answered many offsets a partition, is gone since Kafka 4 (KIP-896). v1: one offset and its timestamp.
//! - v2: isolation level, throttle time (KIP-98). v3: throttling happens after the response (KIP-219).
//! - v4: leader epochs, to fence (KIP-320). v5: OFFSET_NOT_AVAILABLE may come back (KIP-207).
//! - v6: flexible (KIP-482). v7: timestamp -3, the largest timestamp (KIP-734).
//! - v8: -4, the log's start on local disk (KIP-405). v9: -5, the end of what is tiered (KIP-1005).
//! - v10: a time-out for answers that need remote storage (KIP-1075). v11: -6, the first offset not yet tiered
//!   (KIP-1023).

use super::{Call, Ended, usable};
use crate::error::ErrorCode;
use crate::seldom::Seldom;
use crate::server::waiting::Watch;
use crate::storage::{Partition, ReadError, Snapshot, Status, TimestampOffset, View, Wake};
use crate::wire::messages;
use std::collections::HashSet;
use std::sync::Arc;

messages! {
    ListOffsetsRequest(2) [1-11, flexible 6+] {
        /// -1 is a consumer; Kafka's own default is 0, which would be a broker.
        replica_id: i32 [0+] = -1,
        isolation_level: i8 [2+],
        topics: Vec<ListOffsetsTopic> [0+],
        timeout_ms: i32 [10+],
    }
    ListOffsetsTopic {
        name: String [0+],
        partitions: Vec<ListOffsetsPartition> [0+],
    }
    ListOffsetsPartition {
        partition_index: i32 [0+],
        current_leader_epoch: i32 [4+] = -1,
        timestamp: i64 [0+],
    }

    ListOffsetsResponse(2) [1-11, flexible 6+] {
        throttle_time_ms: i32 [2+],
        topics: Vec<ListOffsetsTopicResponse> [0+],
    }
    ListOffsetsTopicResponse {
        name: String [0+],
        partitions: Vec<ListOffsetsPartitionResponse> [0+],
    }
    ListOffsetsPartitionResponse {
        partition_index: i32 [0+],
        error_code: i16 [0+],
        timestamp: i64 [1+] = -1,
        offset: i64 [1+] = -1,
        leader_epoch: i32 [4+] = -1,
    }
}

/// Special timestamps (Kafka's `ListOffsetsRequest`), each with the version that brought it (KAFKA-17331).
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

const READ_COMMITTED: i8 = 1;

/// Finds offsets by time. What looks at the end first waits for the turn that holds what was already answered, so that
/// a producer with `acks=1` reads its own writes (P2).
pub fn handle(
    call: &mut Call<'_>,
    version: i16,
    request: ListOffsetsRequest,
) -> Result<ListOffsetsResponse, Ended> {
    let catalog = call.broker.catalog.get();
    let twice = named_twice(&request.topics);
    let mut response = ListOffsetsResponse::default();
    for topic in &request.topics {
        let known = catalog.by_name(&topic.name);
        let mut partitions = Vec::new();
        for asked in &topic.partitions {
            let index = asked.partition_index;
            let partition = known.and_then(|topic| topic.partition(index));
            let found = match twice.contains(&(topic.name.as_str(), index)) {
                true => Err(ErrorCode::InvalidRequest),
                false => answer(call, version, request.isolation_level, asked, partition)?,
            };
            let (code, place) = match found {
                Ok(place) => (ErrorCode::None, place),
                Err(code) => (code, NOWHERE),
            };
            partitions.push(ListOffsetsPartitionResponse {
                partition_index: index,
                error_code: code.code(),
                timestamp: place.timestamp,
                offset: place.offset,
                leader_epoch: place.leader_epoch,
            });
        }
        response.topics.push(ListOffsetsTopicResponse {
            name: topic.name.clone(),
            partitions,
        });
    }
    Ok(response)
}

/// Kafka refuses these, and each would cost a search.
fn named_twice(topics: &[ListOffsetsTopic]) -> HashSet<(&str, i32)> {
    let (mut seen, mut twice) = (HashSet::new(), HashSet::new());
    for topic in topics {
        for asked in &topic.partitions {
            let named = (topic.name.as_str(), asked.partition_index);
            if !seen.insert(named) {
                twice.insert(named);
            }
        }
    }
    twice
}

fn answer(
    call: &mut Call<'_>,
    version: i16,
    isolation_level: i8,
    asked: &ListOffsetsPartition,
    partition: Option<&Arc<Partition>>,
) -> Result<Result<TimestampOffset, ErrorCode>, Ended> {
    let (epoch, missing) = (
        asked.current_leader_epoch,
        ErrorCode::UnknownTopicOrPartition,
    );
    let snapshot = match usable(partition, epoch, missing) {
        Err(code) => return Ok(Err(code)),
        Ok(_) if version < since(asked.timestamp) => {
            return Ok(Err(ErrorCode::UnsupportedVersion));
        }
        Ok(snapshot) => snapshot,
    };
    let snapshot = match (asked.timestamp, partition) {
        (LATEST | MAX_TIMESTAMP | 0.., Some(partition)) => settled(call, partition, snapshot)?,
        _ => snapshot,
    };
    let is_gone = |found: &TimestampOffset| {
        let log_start = partition.map_or(0, |partition| partition.snapshot().view.log_start);
        // Only what another view may find elsewhere is looked for again.
        log_start > snapshot.view.log_start && (0..log_start).contains(&found.offset)
    };
    match find(call, &snapshot.view, asked.timestamp, isolation_level) {
        // The log start rose meanwhile.
        Ok(found) if is_gone(&found) => answer(call, version, isolation_level, asked, partition),
        Ok(found) => Ok(Ok(found)),
        // A segment was removed meanwhile: a newer view shows what is there now.
        Err(ReadError::Gone) if partition.is_some_and(|p| p.has_moved_since(&snapshot.view)) => {
            answer(call, version, isolation_level, asked, partition)
        }
        Err(error) => {
            static FAILED: Seldom = Seldom::new();
            FAILED.error(format_args!("looking for an offset by time: {error}"));
            Ok(Err(ErrorCode::KafkaStorageError))
        }
    }
}

const NOWHERE: TimestampOffset = TimestampOffset {
    timestamp: -1,
    offset: -1,
    leader_epoch: -1,
};

/// The first version in which a timestamp may be asked for; negative ones without a meaning are in none.
fn since(timestamp: i64) -> i16 {
    match timestamp {
        0.. | LATEST | EARLIEST => 1,
        MAX_TIMESTAMP => 7,
        EARLIEST_LOCAL => 8,
        LATEST_TIERED => 9,
        EARLIEST_PENDING_UPLOAD => 11,
        _ => i16::MAX,
    }
}

/// Waits until what is appended now can be seen.
fn settled(
    call: &mut Call<'_>,
    partition: &Arc<Partition>,
    asked: Snapshot,
) -> Result<Snapshot, Ended> {
    let appended_end = asked.view.appended_end;
    let mut snapshot = asked;
    while snapshot.status == Status::Online && snapshot.view.high_watermark < appended_end {
        let waker: Arc<dyn Wake> = call.caller.clone();
        call.caller.inbox.bell().arm();
        partition.watch(waker.clone());
        snapshot = partition.snapshot();
        let rested = match snapshot.view.high_watermark < appended_end {
            true => call.rest(Watch::Failure, None).map(|_| ()),
            false => Ok(()),
        };
        partition.unwatch(&waker);
        rested?;
        snapshot = partition.snapshot();
    }
    call.caller.inbox.bell().disarm();
    Ok(snapshot)
}

fn find(
    call: &Call<'_>,
    view: &View,
    timestamp: i64,
    isolation_level: i8,
) -> Result<TimestampOffset, ReadError> {
    let end = match isolation_level {
        READ_COMMITTED => view.last_stable,
        _ => view.high_watermark,
    };
    let (storage, decoders) = (&call.broker.storage, &call.broker.decoders);
    let at = |offset: i64, leader_epoch: i32| {
        Ok(TimestampOffset {
            timestamp: -1,
            offset,
            leader_epoch,
        })
    };
    let found = match timestamp {
        LATEST => return at(end, view.epoch_at(i64::MAX)),
        EARLIEST | EARLIEST_LOCAL => return at(view.log_start, view.epoch_at(view.log_start)),
        // Nothing is ever moved to tiered storage.
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => return Ok(NOWHERE),
        MAX_TIMESTAMP => view.max_timestamp(storage, decoders),
        _ => view.offset_for_timestamp(storage, decoders, timestamp, end),
    };
    // As in Kafka the largest timestamp is nowhere while its record is not to be seen yet.
    Ok(found?.filter(|found| found.offset < end).unwrap_or(NOWHERE))
}
