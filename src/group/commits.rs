//! Commits of offsets, from their checks to their records.
//!
//! Invariant: whatever a client asks for, a commit's records are made only after their size was found to be one that
//! may be appended.

use super::groups::{Change, Groups, Job, Writing, bytes_max};
use super::records::{OffsetCommitValue, Record};
use super::refusals::refused_commit;
use super::{Asker, Env, Response, Transaction};
use crate::api::offset_commit::*;
use crate::error::ErrorCode;
use std::sync::Arc;

/// What a record takes beside the names and the metadata in it.
const RECORD_BYTES: usize = 48;

impl<W: Clone> Groups<W> {
    pub(super) fn commit(
        &mut self,
        id: &Arc<str>,
        request: OffsetCommitRequest,
        transaction: Option<Transaction>,
        asker: Asker<W>,
        env: &Env<'_>,
    ) {
        let Some(slot) = self.slots.get_mut(id) else {
            return;
        };
        let epoch = request.generation_id_or_member_epoch;
        let checked = match (slot.is_known(), transaction) {
            // A commit by hand makes a group of nothing but offsets.
            (false, _) if epoch < 0 => Ok(()),
            (false, None) if asker.version >= 9 => Err(ErrorCode::GroupIdNotFound),
            (false, _) => Err(ErrorCode::IllegalGeneration),
            (true, None) => slot.group.check_commit(&request, asker.version, env),
            (true, Some(_)) => slot.group.check_transaction(&request),
        };
        if let Err(code) = checked {
            let response = Response::Commit(refused_commit(&request, code));
            return self.answer(asker.waiter, response);
        }
        let metadata_bytes_max = env.config.offset_metadata_bytes_max.max(0) as usize;
        let fits = |partition: &OffsetCommitRequestPartition| {
            metadata(partition).len() <= metadata_bytes_max
        };
        let batch_bytes_max = env.config.topic_defaults().max_message_bytes;
        if bytes(&request, fits) as i64 > i64::from(batch_bytes_max) {
            let refused = refused_commit(&request, ErrorCode::InvalidCommitOffsetSize);
            return self.answer(asker.waiter, Response::Commit(refused));
        }
        let response = answered(&request, |partition| match fits(partition) {
            true => ErrorCode::None,
            false => ErrorCode::OffsetMetadataTooLarge,
        });
        let records = records(&request, fits, env.time_ms);
        if records.is_empty() {
            return self.answer(asker.waiter, Response::Commit(response));
        }
        let producer_id = transaction.map(|transaction| transaction.producer_id);
        let growth = slot.offsets.growth(&records, producer_id);
        if growth > 0 && self.bytes + growth > bytes_max(env) {
            let refused = refused_commit(&request, ErrorCode::InvalidCommitOffsetSize);
            return self.refuse_growth(asker.waiter, Response::Commit(refused));
        }
        slot.commits += 1;
        let refusal = refused_commit(&request, ErrorCode::CoordinatorNotAvailable);
        let writing = Writing {
            group: id.clone(),
            change: Change::Commit(transaction),
            records: records.clone(),
            answers: vec![(asker.waiter.clone(), Response::Commit(response))],
            refusal: Some((asker.waiter, Response::Commit(refusal))),
        };
        self.write(writing, records);
    }

    /// Takes in synced records of a group, the first of them at an offset of the log; of the transaction, if one is
    /// given by its producer's id and the log's partition.
    pub(super) fn apply(
        &mut self,
        id: &Arc<str>,
        records: &[Record],
        recorded_at: i64,
        transaction: Option<(i64, i32)>,
    ) {
        let Some(slot) = self.slots.get_mut(id) else {
            return;
        };
        for (record, at) in records.iter().zip(recorded_at..) {
            slot.offsets
                .apply(record, at, transaction.map(|(id, _)| id));
        }
        if let Some(transaction) = transaction {
            let groups = self.transactions.entry(transaction).or_default();
            groups.insert(id.clone());
        }
    }

    /// A transaction's marker in a partition of the log is synced: the offsets that it has there take effect, or
    /// vanish.
    pub fn end_transaction(
        &mut self,
        producer_id: i64,
        partition: i32,
        commit: bool,
        env: &Env<'_>,
    ) {
        let groups = self.transactions.remove(&(producer_id, partition));
        for id in groups.unwrap_or_default() {
            if let Some(slot) = self.slots.get_mut(&id) {
                slot.offsets.end_transaction(&id, producer_id, commit);
                slot.is_weighed = false;
                match slot.is_lost {
                    true => self.push(id, Job::Restate, env),
                    false => self.settle(&id),
                }
            }
        }
    }
}

/// The answer, partition by partition.
pub(super) fn answered(
    request: &OffsetCommitRequest,
    code: impl Fn(&OffsetCommitRequestPartition) -> ErrorCode,
) -> OffsetCommitResponse {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter();
        let told = partitions.map(|partition| OffsetCommitResponsePartition {
            partition_index: partition.partition_index,
            error_code: code(partition).code(),
        });
        OffsetCommitResponseTopic {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            partitions: told.collect(),
        }
    });
    OffsetCommitResponse {
        topics: topics.collect(),
        ..OffsetCommitResponse::default()
    }
}

/// Whether the writer refused a batch for its transaction's sake: that is over, or its producer is fenced.
pub(super) fn is_of_a_transaction(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::InvalidTxnState | ErrorCode::InvalidProducerEpoch | ErrorCode::ProducerFenced
    )
}

/// The same answer, with another code.
pub(super) fn with_code(
    mut response: OffsetCommitResponse,
    code: ErrorCode,
) -> OffsetCommitResponse {
    let topics = response.topics.iter_mut();
    let partitions = topics.flat_map(|topic| &mut topic.partitions);
    partitions.for_each(|told| told.error_code = code.code());
    response
}

fn metadata(partition: &OffsetCommitRequestPartition) -> &str {
    partition.committed_metadata.as_deref().unwrap_or_default()
}

/// About how many bytes the records are: each names the group, so a small request can ask for large ones.
fn bytes(
    request: &OffsetCommitRequest,
    fits: impl Fn(&OffsetCommitRequestPartition) -> bool,
) -> usize {
    let topics = request.topics.iter().map(|topic| {
        let names = request.group_id.len() + topic.name.len();
        let partitions = topic.partitions.iter().filter(|partition| fits(partition));
        let bytes = partitions.map(|partition| RECORD_BYTES + names + metadata(partition).len());
        bytes.sum::<usize>()
    });
    topics.sum()
}

fn records(
    request: &OffsetCommitRequest,
    fits: impl Fn(&OffsetCommitRequestPartition) -> bool,
    time_ms: i64,
) -> Vec<Record> {
    let expire_timestamp = match request.retention_time_ms {
        -1 => -1,
        retention => time_ms.saturating_add(retention),
    };
    let mut records = Vec::new();
    for topic in &request.topics {
        for partition in topic.partitions.iter().filter(|partition| fits(partition)) {
            let value = OffsetCommitValue {
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata: metadata(partition).to_owned(),
                commit_timestamp: time_ms,
                expire_timestamp,
            };
            let (group, topic) = (request.group_id.clone(), topic.name.clone());
            let index = partition.partition_index;
            records.push(Record::Offset(group, topic, index, Some(value)));
        }
    }
    records
}
