//! How far one group has read: its committed offsets, by topic and partition, and those of open transactions, which
//! take effect or vanish when these end.
//!
//! Invariant: what is here is synced; it changes only by [`Offsets::apply`] and [`Offsets::end_transaction`], in the
//! order of records and markers in the log.

use super::records::{OffsetCommitValue, Record};
use crate::api::offset_fetch::{OffsetFetchResponsePartitions, OffsetFetchResponseTopics};
use crate::error::ErrorCode;
use std::collections::{BTreeMap, BTreeSet};

/// One group's offsets, committed and pending.
#[derive(Clone, Debug, Default)]
pub struct Offsets {
    bytes: usize,
    topics: BTreeMap<String, BTreeMap<i32, Partition>>,
    /// What each producer's open transaction has pending.
    pending: BTreeMap<i64, BTreeSet<(String, i32)>>,
}

/// What is known of one partition: something, or it is not kept.
#[derive(Clone, Debug, Default)]
struct Partition {
    committed: Option<Entry>,
    /// By producer id.
    pending: BTreeMap<i64, Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    value: OffsetCommitValue,
    /// Where in the log it was recorded: of two, the later one counts, whenever they took effect.
    recorded_at: i64,
}

/// About what one offset takes in memory: its share of the maps, and the names that its record has, which are written
/// once more when it is taken away.
fn weight(group: &str, topic: &str, value: &OffsetCommitValue) -> usize {
    128 + group.len() + topic.len() + value.metadata.len()
}

/// What a pending one takes beside that: its place among those of its transaction.
fn pending_weight(group: &str, topic: &str, value: &OffsetCommitValue) -> usize {
    64 + topic.len() + weight(group, topic, value)
}

impl Offsets {
    /// Whether nothing is committed, and nothing pending.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// Takes in a synced record, if it is one of an offset; `recorded_at` is its own offset in the log, and
    /// `producer_id` whose transaction it is part of.
    pub fn apply(&mut self, record: &Record, recorded_at: i64, producer_id: Option<i64>) {
        let Record::Offset(group, topic, index, value) = record else {
            return;
        };
        let Some(value) = value.clone() else {
            return self.remove(group, topic, *index);
        };
        let topics = self.topics.entry(topic.clone()).or_default();
        let partition = topics.entry(*index).or_default();
        let weight = match producer_id {
            Some(_) => pending_weight,
            None => weight,
        };
        self.bytes += weight(group, topic, &value);
        let entry = Entry { value, recorded_at };
        let before = match producer_id {
            Some(id) => {
                let pending = self.pending.entry(id).or_default();
                pending.insert((topic.clone(), *index));
                partition.pending.insert(id, entry)
            }
            None => partition.committed.replace(entry),
        };
        self.bytes -= before.map_or(0, |before| weight(group, topic, &before.value));
    }

    /// A producer's transaction has ended: what it had pending takes effect, unless something that was recorded later
    /// is committed by now; or it vanishes.
    pub fn end_transaction(&mut self, group: &str, producer_id: i64, commit: bool) {
        for (topic, index) in self.pending.remove(&producer_id).unwrap_or_default() {
            let partitions = self.topics.get_mut(&topic);
            let Some(partition) = partitions.and_then(|known| known.get_mut(&index)) else {
                continue;
            };
            let Some(entry) = partition.pending.remove(&producer_id) else {
                continue;
            };
            self.bytes -= pending_weight(group, &topic, &entry.value);
            let before = partition.committed.as_ref();
            if commit && before.is_none_or(|before| before.recorded_at < entry.recorded_at) {
                self.bytes += weight(group, &topic, &entry.value);
                self.bytes -= before.map_or(0, |before| weight(group, &topic, &before.value));
                partition.committed = Some(entry);
            }
            if partition.committed.is_none() && partition.pending.is_empty() {
                self.remove(group, &topic, index);
            }
        }
    }

    /// Forgets a partition, also what is pending for it.
    fn remove(&mut self, group: &str, topic: &str, index: i32) {
        let Some(partitions) = self.topics.get_mut(topic) else {
            return;
        };
        let Some(partition) = partitions.remove(&index) else {
            return;
        };
        if partitions.is_empty() {
            self.topics.remove(topic);
        }
        let committed = partition.committed.iter();
        self.bytes -= committed
            .map(|entry| weight(group, topic, &entry.value))
            .sum::<usize>();
        for (producer_id, entry) in partition.pending {
            self.bytes -= pending_weight(group, topic, &entry.value);
            if let Some(pending) = self.pending.get_mut(&producer_id) {
                pending.remove(&(topic.to_owned(), index));
                if pending.is_empty() {
                    self.pending.remove(&producer_id);
                }
            }
        }
    }

    /// Whether a transaction has one pending.
    pub fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether there is one for the partition, committed or pending.
    pub fn has(&self, topic: &str, index: i32) -> bool {
        self.topics
            .get(topic)
            .is_some_and(|partitions| partitions.contains_key(&index))
    }

    /// Whether there is one for any partition of the topic, committed or pending.
    pub fn has_topic(&self, topic: &str) -> bool {
        self.topics.contains_key(topic)
    }

    /// The answer for all topics of which something is committed.
    pub fn fetch_all(&self, stable: bool) -> impl Iterator<Item = OffsetFetchResponseTopics> {
        let all = self.topics.iter().map(move |(topic, partitions)| {
            let committed = partitions
                .iter()
                .filter(|(_, known)| known.committed.is_some());
            let told = committed.map(|(index, known)| known.told(*index, stable));
            answer(topic, told.collect())
        });
        all.filter(|topic| !topic.partitions.is_empty())
    }

    /// The answer for these partitions of one topic; where a transaction has one pending, `stable` has an error.
    pub fn fetch(&self, topic: &str, asked: &[i32], stable: bool) -> OffsetFetchResponseTopics {
        let (known, nothing) = (self.topics.get(topic), Partition::default());
        let partition = |index| known.and_then(|known| known.get(index)).unwrap_or(&nothing);
        let told = asked
            .iter()
            .map(|index| partition(index).told(*index, stable));
        answer(topic, told.collect())
    }

    /// The records that take back each offset that `doomed` says, by its topic, its partition, and what is committed
    /// if that is all: nothing while a transaction has another one pending.
    pub fn tombstones(
        &self,
        group: &str,
        mut doomed: impl FnMut(&str, i32, Option<&OffsetCommitValue>) -> bool,
    ) -> Vec<Record> {
        let all = self.topics.iter().flat_map(|(topic, partitions)| {
            partitions
                .iter()
                .map(move |(index, known)| (topic, *index, known))
        });
        all.filter(|(topic, index, known)| {
            let settled = known
                .committed
                .as_ref()
                .filter(|_| known.pending.is_empty());
            doomed(topic, *index, settled.map(|entry| &entry.value))
        })
        .map(|(topic, index, _)| Record::Offset(group.into(), topic.clone(), index, None))
        .collect()
    }

    /// The records of what is committed, but for partitions of which a transaction has another one pending: a record
    /// that comes later would count for more than that.
    pub fn records(&self, group: &str) -> Vec<Record> {
        let mut records = Vec::new();
        for (topic, partitions) in &self.topics {
            for (index, known) in partitions {
                if let Some(entry) = known
                    .committed
                    .as_ref()
                    .filter(|_| known.pending.is_empty())
                {
                    let value = Some(entry.value.clone());
                    records.push(Record::Offset(group.into(), topic.clone(), *index, value));
                }
            }
        }
        records
    }

    /// About how much memory they take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// About how much more memory they would take after a commit, by a producer's transaction or none.
    pub fn growth(&self, records: &[Record], producer_id: Option<i64>) -> usize {
        let growth = records.iter().map(|record| match record {
            Record::Offset(group, topic, index, Some(value)) => {
                let known = self.topics.get(topic).and_then(|known| known.get(index));
                let (weight, before): (fn(_, _, _) -> _, _) = match producer_id {
                    Some(id) => (
                        pending_weight,
                        known.and_then(|known| known.pending.get(&id)),
                    ),
                    None => (weight, known.and_then(|known| known.committed.as_ref())),
                };
                let before = before.map_or(0, |before| weight(group, topic, &before.value));
                weight(group, topic, value).saturating_sub(before)
            }
            _ => 0,
        });
        growth.sum()
    }

    /// Of how many partitions there is one, committed or pending.
    pub fn len(&self) -> usize {
        self.topics.values().map(BTreeMap::len).sum()
    }
}

impl Partition {
    fn told(&self, index: i32, stable: bool) -> OffsetFetchResponsePartitions {
        let is_unstable = stable && !self.pending.is_empty();
        let committed = self.committed.as_ref().filter(|_| !is_unstable);
        let value = committed.map(|entry| &entry.value);
        let code = match is_unstable {
            true => ErrorCode::UnstableOffsetCommit,
            false => ErrorCode::None,
        };
        OffsetFetchResponsePartitions {
            partition_index: index,
            committed_offset: value.map_or(-1, |value| value.offset),
            committed_leader_epoch: value.map_or(-1, |value| value.leader_epoch),
            metadata: Some(value.map_or_else(String::new, |value| value.metadata.clone())),
            error_code: code.code(),
        }
    }
}

fn answer(
    topic: &str,
    partitions: Vec<OffsetFetchResponsePartitions>,
) -> OffsetFetchResponseTopics {
    OffsetFetchResponseTopics {
        name: topic.into(),
        partitions,
        ..OffsetFetchResponseTopics::default()
    }
}

/// When an offset is to be forgotten, on broker time.
#[derive(Clone, Copy, Debug)]
pub struct Expiry {
    /// Now.
    pub time_ms: i64,
    /// `offsets.retention.minutes`, in ms.
    pub retention_ms: i64,
    /// Since when the group has no members; `None` counts from each commit alone.
    pub empty_since_ms: Option<i64>,
}

impl Expiry {
    /// Whether the offset's time is over: never before the group is empty for as long (FACTS), unless its commit
    /// itself said how long to keep it (OffsetCommit v2-v4).
    pub fn is_due(&self, value: &OffsetCommitValue) -> bool {
        if value.expire_timestamp >= 0 {
            return self.time_ms >= value.expire_timestamp;
        }
        let since = self.empty_since_ms.unwrap_or(value.commit_timestamp);
        self.time_ms.saturating_sub(since) >= self.retention_ms
    }
}
