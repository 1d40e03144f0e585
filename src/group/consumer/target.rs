//! The group's epoch and the target that is made of it.

use super::ConsumerGroup;
use super::member::{listed, pairs, pattern};
use super::patterns::Found;
use crate::group::Env;
use crate::group::assignors::{Counts, Subscriber, assign};
use crate::group::records::{
    ConsumerGroupMemberMetadataValue, ConsumerGroupRegularExpressionValue,
    ConsumerGroupTargetAssignmentMemberValue, ConsumerGroupTargetAssignmentMetadataValue, Record,
};
use crate::wire::Uuid;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

impl ConsumerGroup {
    /// Raises the group's epoch if it must be, or if the topics that it reads are not what they were.
    pub(super) fn advance(&mut self, must: bool, env: &Env<'_>, records: &mut Vec<Record>) {
        if !must && self.hashed_at == Some(env.catalog.changes) {
            return;
        }
        let hash = self.topics_hash(env);
        self.hashed_at = Some(env.catalog.changes);
        if must || hash != self.hash {
            self.epoch += 1;
            self.hash = hash;
            records.push(self.record());
        }
    }

    /// Makes the target of the group's epoch, if there is none yet, and records what differs.
    pub(super) fn retarget(&mut self, env: &Env<'_>, records: &mut Vec<Record>) {
        if self.epoch <= self.target_epoch {
            return;
        }
        let topics = self.wanted_topics();
        let counts = topics.iter().filter_map(|name| {
            let topic = env.catalog.topics.get(*name)?;
            Some((topic.id, topic.leader_epochs.len() as i32))
        });
        let counts: Counts = counts.collect();
        let mut topic_ids: HashMap<_, BTreeSet<Uuid>> = HashMap::new();
        for seat in self.members.values() {
            let about = &seat.member.about;
            let ids = topic_ids.entry(subscription(about));
            ids.or_insert_with(|| {
                let topics = self.topics_of(about);
                let ids = topics.filter_map(|name| Some(env.catalog.topics.get(name)?.id));
                ids.collect()
            });
        }
        let subscribers: Vec<Subscriber<'_>> = self
            .members
            .iter()
            .map(|(id, seat)| Subscriber {
                member_id: id,
                instance_id: seat.member.about.instance_id.as_deref(),
                topics: &topic_ids[&subscription(&seat.member.about)],
                target: &seat.member.target,
            })
            .collect();
        let targets = assign(self.assignor(env), &subscribers, &counts);
        self.target_epoch = self.epoch;
        for ((id, seat), target) in self.members.iter_mut().zip(targets) {
            if seat.member.target != target {
                let value = ConsumerGroupTargetAssignmentMemberValue {
                    topic_partitions: listed(&target),
                };
                let (group, id) = (self.id.to_string(), id.to_string());
                records.push(Record::TargetMember(group, id, Some(value)));
                Arc::make_mut(&mut seat.member).target = target;
            }
        }
        let value = ConsumerGroupTargetAssignmentMetadataValue {
            assignment_epoch: self.target_epoch,
        };
        records.push(Record::TargetEpoch(self.id.to_string(), Some(value)));
    }

    /// Whether the target gives each partition of what members read to one of them.
    pub(super) fn is_whole(&self, env: &Env<'_>) -> bool {
        let wanted = self.wanted_topics().into_iter().filter_map(|name| {
            let topic = env.catalog.topics.get(name)?;
            Some((0..topic.leader_epochs.len() as i32).map(|index| (topic.id, index)))
        });
        let wanted: BTreeSet<(Uuid, i32)> = wanted.flatten().collect();
        let members = self.members.values();
        let given: Vec<_> = members
            .flat_map(|seat| pairs(&seat.member.target))
            .collect();
        given.len() == wanted.len() && given.into_iter().collect::<BTreeSet<_>>() == wanted
    }

    /// Takes in what the patterns were found to stand for; says whether that is other topics for one of them.
    pub(super) fn renew_patterns(
        &mut self,
        found: &Found,
        env: &Env<'_>,
        records: &mut Vec<Record>,
    ) -> bool {
        let mut changed = false;
        for (pattern, known) in &mut self.patterns {
            // One that was taken once is taken again, unless the limits are other ones now.
            let Some(Ok(topics)) = found.topics.get(&**pattern) else {
                continue;
            };
            changed |= *topics != known.topics;
            self.looked_up_at = found.changes;
            let value = ConsumerGroupRegularExpressionValue {
                topics: topics.clone(),
                version: found.changes as i64,
                timestamp: env.time_ms,
            };
            let (group, pattern) = (self.id.to_string(), pattern.to_string());
            records.push(Record::Regex(group, pattern, Some(value.clone())));
            *known = Arc::new(value);
        }
        changed
    }

    /// The assignor that most members ask for; among equals, and for those that ask for none, the first that is set.
    pub(super) fn assignor<'a>(&self, env: &Env<'a>) -> &'a str {
        let asking_for = |name: &String| {
            let mut members = self.members.values();
            members
                .by_ref()
                .filter(|seat| seat.member.about.server_assignor.as_ref() == Some(name))
                .count()
        };
        // The last of equals is taken, hence from the end.
        let assignors = env.config.group_consumer_assignors.iter().rev();
        assignors
            .max_by_key(|name| asking_for(name))
            .map_or("uniform", String::as_str)
    }

    /// Whether a member reads the topic, or one of the patterns stands for it.
    pub fn subscribed(&self, topic: &str) -> bool {
        let mut members = self.members.values();
        members.any(|seat| self.topics_of(&seat.member.about).any(|name| name == topic))
    }

    fn topics_of<'a>(
        &'a self,
        about: &'a ConsumerGroupMemberMetadataValue,
    ) -> impl Iterator<Item = &'a str> {
        let found = pattern(about).and_then(|pattern| self.patterns.get(pattern));
        let found = found.into_iter().flat_map(|found| &found.topics);
        about
            .subscribed_topic_names
            .iter()
            .chain(found)
            .map(String::as_str)
    }

    fn wanted_topics(&self) -> BTreeSet<&str> {
        let members = self.members.values();
        members
            .flat_map(|seat| self.topics_of(&seat.member.about))
            .collect()
    }

    /// FNV-1a over the topics that there are of those wanted: their names, ids and partition counts; 0 if there are
    /// none.
    pub(super) fn topics_hash(&self, env: &Env<'_>) -> i64 {
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        let mut any = false;
        for name in self.wanted_topics() {
            let Some(topic) = env.catalog.topics.get(name) else {
                continue;
            };
            any = true;
            let count = (topic.leader_epochs.len() as u32).to_be_bytes();
            for byte in name.bytes().chain([0]).chain(topic.id.0).chain(count) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
        if any { hash as i64 } else { 0 }
    }
}

/// What decides which topics a member reads.
fn subscription(about: &ConsumerGroupMemberMetadataValue) -> (&[String], Option<&str>) {
    (&about.subscribed_topic_names, pattern(about))
}
