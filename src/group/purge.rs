//! What takes offsets, or a group with them, away: by hand, by age, and with a topic that is deleted; and what records
//! them once more, after a gap in their log.
//!
//! Invariant: a purge begins when no commit of the group is on its way, so its tombstones name all that there is.

use super::groups::{Change, Effect, Groups, Job, Slot, Writing};
use super::offsets::Expiry;
use super::records::Record;
use super::refusals::refused_delete;
use super::{Env, Response};
use crate::api::offset_delete::*;
use crate::error::ErrorCode;
use std::collections::BTreeSet;
use std::sync::Arc;

impl<W: Clone> Groups<W> {
    pub(super) fn delete_offsets(
        &mut self,
        id: &Arc<str>,
        request: OffsetDeleteRequest,
        waiter: W,
    ) {
        let Some(slot) = self.slots.get_mut(id) else {
            return;
        };
        let code = match slot.is_known() {
            true => slot.group.check_delete_offsets(),
            false => Err(ErrorCode::GroupIdNotFound),
        };
        if let Err(code) = code {
            return self.answer(waiter, Response::DeleteOffsets(refused_delete(code)));
        }
        // A request may name one many times.
        let mut doomed = BTreeSet::new();
        let topics = request.topics.into_iter().map(|topic| {
            let subscribed = slot.group.subscribed(&topic.name);
            let partitions = topic.partitions.iter().map(|partition| {
                let index = partition.partition_index;
                if !subscribed && slot.offsets.has(&topic.name, index) {
                    doomed.insert((topic.name.clone(), index));
                }
                let code = match subscribed {
                    true => ErrorCode::GroupSubscribedToTopic,
                    false => ErrorCode::None,
                };
                OffsetDeleteResponsePartition {
                    partition_index: index,
                    error_code: code.code(),
                }
            });
            OffsetDeleteResponseTopic {
                partitions: partitions.collect(),
                name: topic.name,
            }
        });
        let response = OffsetDeleteResponse {
            topics: topics.collect(),
            ..OffsetDeleteResponse::default()
        };
        let doomed = doomed.into_iter();
        let records =
            doomed.map(|(topic, index)| Record::Offset(id.to_string(), topic, index, None));
        let records = records.collect();
        let refusal = refused_delete(ErrorCode::CoordinatorNotAvailable);
        let answer = Response::DeleteOffsets(response);
        let refusal = Response::DeleteOffsets(refusal);
        let change = Change::Purge { group: false };
        self.purge(id, records, change, Some((waiter, answer, refusal)));
    }

    pub(super) fn delete(&mut self, id: &Arc<str>, waiter: W) {
        let Some(slot) = self.slots.get_mut(id) else {
            return;
        };
        let checked = match slot.is_known() {
            true => slot.group.check_delete(),
            false => Err(ErrorCode::GroupIdNotFound),
        };
        if let Err(code) = checked {
            return self.answer(waiter, Response::Deleted(code));
        }
        let mut records = slot.offsets.tombstones(id, |_, _, _| true);
        records.extend(slot.group.tombstones());
        let answer = Response::Deleted(ErrorCode::None);
        let refusal = Response::Deleted(ErrorCode::CoordinatorNotAvailable);
        let change = Change::Purge { group: true };
        self.purge(id, records, change, Some((waiter, answer, refusal)));
    }

    pub(super) fn expire(&mut self, id: &Arc<str>, env: &Env<'_>) {
        let Some(slot) = self.slots.get_mut(id) else {
            return;
        };
        if slot.is_lost {
            // It was refused, on a full disk.
            return self.restate(id);
        }
        let Some(empty_since_ms) = slot.group.offsets_expire_since() else {
            return;
        };
        let expiry = Expiry {
            time_ms: env.time_ms,
            retention_ms: i64::from(env.config.offsets_retention_minutes) * 60_000,
            empty_since_ms,
        };
        let group = &slot.group;
        // To ask is to read what all members said: once for a topic, and only if it matters.
        let mut last = (String::new(), false);
        let mut subscribed = |topic: &str| {
            if last.0 != topic {
                last = (topic.to_owned(), group.subscribed(topic));
            }
            last.1
        };
        let mut records = slot.offsets.tombstones(id, |topic, _, value| {
            value.is_some_and(|value| expiry.is_due(value)) && !subscribed(topic)
        });
        let is_over = records.len() == slot.offsets.len() && group.check_delete().is_ok();
        if is_over {
            records.extend(group.tombstones());
        }
        self.purge(id, records, Change::Purge { group: is_over }, None);
    }

    /// Offsets of topics that were deleted, or made anew, are forgotten: a topic of the same name begins anew.
    pub fn forget_topics(&mut self, topics: BTreeSet<String>, env: &Env<'_>) {
        let topics = Arc::new(topics);
        let concerned = |slot: &Slot<W>| topics.iter().any(|topic| slot.offsets.has_topic(topic));
        let ids: Vec<Arc<str>> = self
            .slots
            .iter()
            .filter(|(_, slot)| concerned(slot) || slot.commits > 0)
            .map(|(id, _)| id.clone())
            .collect();
        for id in ids {
            self.push(id, Job::ForgetTopics(topics.clone()), env);
        }
    }

    pub(super) fn forget(&mut self, id: &Arc<str>, topics: &BTreeSet<String>) {
        if let Some(slot) = self.slots.get_mut(id) {
            let records = slot
                .offsets
                .tombstones(id, |topic, _, _| topics.contains(topic));
            self.purge(id, records, Change::Purge { group: false }, None);
        }
    }

    /// The log has lost records of these groups: what is committed is recorded once more, and what kind of group it
    /// is. Membership is not, but with that: members that a later start does not know join again by themselves.
    pub fn restate_offsets(&mut self, concerned: impl Fn(&str) -> bool, env: &Env<'_>) {
        let ids = self.slots.keys().filter(|id| concerned(id)).cloned();
        for id in ids.collect::<Vec<_>>() {
            self.push(id, Job::Restate, env);
        }
    }

    pub(super) fn restate(&mut self, id: &Arc<str>) {
        if let Some(slot) = self.slots.get_mut(id) {
            // One that is pending is recorded when its transaction has ended.
            slot.is_lost = slot.offsets.is_pending();
            let mut records = slot.offsets.records(id);
            records.extend(slot.group.record());
            self.purge(id, records, Change::Restate, None);
        }
    }

    /// Commits `records` with no commit beside them; `answer` is whom to answer, what, and what if they are refused.
    fn purge(
        &mut self,
        id: &Arc<str>,
        records: Vec<Record>,
        change: Change<W>,
        answer: Option<(W, Response, Response)>,
    ) {
        let mut writing = Writing {
            group: id.clone(),
            change,
            records: records.clone(),
            answers: Vec::new(),
            refusal: None,
        };
        if let Some((waiter, response, refusal)) = answer {
            writing.answers.push((waiter.clone(), response));
            writing.refusal = Some((waiter, refusal));
        }
        if records.is_empty() {
            let answers = writing.answers.into_iter();
            return self
                .effects
                .extend(answers.map(|(waiter, told)| Effect::Answer(waiter, told)));
        }
        if let Some(slot) = self.slots.get_mut(id) {
            slot.is_held = true;
        }
        self.write(writing, records);
    }
}
