//! How far one group has read: its committed offsets, by topic and partition.
//!
//! Invariant: what is here is synced; it changes only by [`Offsets::apply`], in the log's order.

use super::records::{OffsetCommitValue, Record};
use crate::api::offset_fetch::{OffsetFetchResponsePartitions, OffsetFetchResponseTopics};
use std::collections::BTreeMap;

/// One group's committed offsets.
#[derive(Clone, Debug, Default)]
pub struct Offsets {
    bytes: usize,
    topics: BTreeMap<String, BTreeMap<i32, OffsetCommitValue>>,
}

/// About what one offset takes in memory: its share of the maps, and the names that its record has, which are written
/// once more when it is taken away.
fn weight(group: &str, topic: &str, value: &OffsetCommitValue) -> usize {
    128 + group.len() + topic.len() + value.metadata.len()
}

impl Offsets {
    /// Whether nothing is committed.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// Takes in a committed record, if it is one of an offset.
    pub fn apply(&mut self, record: &Record) {
        let Record::Offset(group, topic, index, value) = record else {
            return;
        };
        let before = match value {
            Some(value) => {
                self.bytes += weight(group, topic, value);
                let partitions = self.topics.entry(topic.clone()).or_default();
                partitions.insert(*index, value.clone())
            }
            None => self.topics.get_mut(topic).and_then(|t| t.remove(index)),
        };
        self.bytes -= before.map_or(0, |before| weight(group, topic, &before));
        if self.topics.get(topic).is_some_and(BTreeMap::is_empty) {
            self.topics.remove(topic);
        }
    }

    /// Whether there is one for the partition.
    pub fn has(&self, topic: &str, index: i32) -> bool {
        self.topics
            .get(topic)
            .is_some_and(|partitions| partitions.contains_key(&index))
    }

    /// Whether there is one for any partition of the topic.
    pub fn has_topic(&self, topic: &str) -> bool {
        self.topics.contains_key(topic)
    }

    /// The topics for which there are any.
    pub fn topics(&self) -> impl Iterator<Item = &String> {
        self.topics.keys()
    }

    /// The answer for one topic: its `partitions`, or all that there are.
    pub fn fetch(&self, topic: &str, partitions: Option<&[i32]>) -> OffsetFetchResponseTopics {
        let known = self.topics.get(topic);
        let told = |index: i32, value: Option<&OffsetCommitValue>| OffsetFetchResponsePartitions {
            partition_index: index,
            committed_offset: value.map_or(-1, |value| value.offset),
            committed_leader_epoch: value.map_or(-1, |value| value.leader_epoch),
            metadata: Some(value.map_or_else(String::new, |value| value.metadata.clone())),
            error_code: 0,
        };
        let partitions = match partitions {
            Some(asked) => asked
                .iter()
                .map(|index| told(*index, known.and_then(|known| known.get(index))))
                .collect(),
            None => known
                .into_iter()
                .flatten()
                .map(|(index, value)| told(*index, Some(value)))
                .collect(),
        };
        OffsetFetchResponseTopics {
            name: topic.into(),
            partitions,
            ..OffsetFetchResponseTopics::default()
        }
    }

    /// The records that take back each offset that `doomed` says (topic, partition, offset).
    pub fn tombstones(
        &self,
        group: &str,
        mut doomed: impl FnMut(&str, i32, &OffsetCommitValue) -> bool,
    ) -> Vec<Record> {
        let all = self.topics.iter().flat_map(|(topic, partitions)| {
            partitions
                .iter()
                .map(move |(index, value)| (topic, *index, value))
        });
        all.filter(|(topic, index, value)| doomed(topic, *index, value))
            .map(|(topic, index, _)| Record::Offset(group.into(), topic.clone(), index, None))
            .collect()
    }

    /// About how much memory they take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// About how much more memory they would take after a commit.
    pub fn growth(&self, records: &[Record]) -> usize {
        let growth = records.iter().map(|record| match record {
            Record::Offset(group, topic, index, Some(value)) => {
                let known = self.topics.get(topic).and_then(|known| known.get(index));
                let before = known.map_or(0, |known| weight(group, topic, known));
                weight(group, topic, value).saturating_sub(before)
            }
            _ => 0,
        });
        growth.sum()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.topics.values().map(BTreeMap::len).sum()
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
