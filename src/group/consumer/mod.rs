//! The consumer protocol (KIP-848): members send heartbeats, the broker assigns, and each member moves to its part of
//! the assignment by itself, at its own pace.
//!
//! ```text
//! group epoch    grows when a member comes, goes or subscribes otherwise, or its topics change
//! target epoch   follows when the assignor has made a target of it: at the next heartbeat of anyone
//! member epoch   follows when the member has given up what it must not keep (reconcile.rs)
//! ```
//! checks.rs and heartbeat.rs: what a heartbeat does, in Kafka's order; target.rs: epochs and targets; patterns.rs:
//! subscriptions by regular expression; classic.rs and migrate.rs: members that still speak the classic protocol, and
//! the ways between.
//!
//! Behaves as Kafka's `GroupMetadataManager`, but for this: a pattern is looked up within the heartbeat that brings it
//! (there: aside, so that its topics come a heartbeat later); and the hash over the topics is another function, of
//! which only equality counts.
//!
//! Invariants: a partition is assigned to, or being given up by, one member at most; epochs never fall; a member's
//! epoch is not above the target's, and that not above the group's; an error changes nothing.

mod checks;
mod classic;
mod heartbeat;
mod member;
mod migrate;
#[cfg(test)]
mod mixed;
mod patterns;
#[cfg(test)]
mod property;
mod reconcile;
mod target;
#[cfg(test)]
mod tests;

use super::records::{
    ConsumerGroupMemberMetadataValue, ConsumerGroupMetadataValue,
    ConsumerGroupRegularExpressionValue, Record,
};
use super::{Ask, Effects, Env, Event, Told};
use crate::api::consumer_group_describe as describe;
use crate::error::ErrorCode;
use member::{Member, MemberState, Seat};
use std::collections::BTreeMap;
use std::sync::Arc;

pub use patterns::{Found, LookUp, compile};

/// Why a request is refused: Kafka's code and sentence.
pub type Fault = (ErrorCode, String);

/// A consumer group. Cheap to clone: members are shared until they change.
#[derive(Clone, Debug)]
pub struct ConsumerGroup {
    id: Arc<str>,
    epoch: i32,
    target_epoch: i32,
    /// Of the subscribed topics, at `epoch`.
    hash: i64,
    members: BTreeMap<Arc<str>, Seat>,
    /// The patterns that members subscribed to, and the topics that these stand for.
    patterns: BTreeMap<Arc<str>, Arc<ConsumerGroupRegularExpressionValue>>,
    /// The catalog's count of changes when `hash` was made, and when the patterns were last looked up.
    hashed_at: Option<u64>,
    looked_up_at: u64,
    looked_up_ms: Option<i64>,
    /// When the last member was gone, on broker time, as far as this start of the broker knows.
    empty_since_ms: Option<i64>,
    /// Only members of the classic protocol are left: the group goes over to it, and is to rebalance if so told.
    downgrade: Option<bool>,
}

impl ConsumerGroup {
    /// A group of which nothing is known.
    pub fn new(id: &str) -> ConsumerGroup {
        ConsumerGroup {
            id: id.into(),
            epoch: 0,
            target_epoch: 0,
            hash: 0,
            members: BTreeMap::new(),
            patterns: BTreeMap::new(),
            hashed_at: None,
            looked_up_at: 0,
            looked_up_ms: None,
            empty_since_ms: None,
            downgrade: None,
        }
    }

    /// Takes up one record of the log, while the broker starts. Records of other kinds mean nothing here.
    pub fn replay(&mut self, record: &Record) {
        match record {
            Record::ConsumerGroup(_, Some(value)) => {
                self.epoch = value.epoch;
                self.hash = value.metadata_hash;
            }
            Record::ConsumerGroup(id, None) => *self = ConsumerGroup::new(id),
            Record::TargetEpoch(_, value) => {
                self.target_epoch = value.as_ref().map_or(0, |value| value.assignment_epoch);
            }
            Record::Member(_, id, Some(value)) => self.replayed(id).about = value.clone(),
            Record::Member(_, id, None) => drop(self.members.remove(id.as_str())),
            Record::TargetMember(_, id, Some(value)) => {
                self.replayed(id).target = member::collected(&value.topic_partitions);
            }
            Record::Current(_, id, Some(value)) => self.replayed(id).set_current(value),
            Record::TargetMember(_, id, None) | Record::Current(_, id, None) => {
                // The member's own record is taken back right after.
                if self.members.contains_key(id.as_str()) {
                    let about = std::mem::take(&mut self.replayed(id).about);
                    *self.replayed(id) = Member {
                        about,
                        ..Member::default()
                    };
                }
            }
            Record::Regex(_, pattern, Some(value)) => {
                let value = Arc::new(value.clone());
                self.patterns.insert(pattern.as_str().into(), value);
            }
            Record::Regex(_, pattern, None) => drop(self.patterns.remove(pattern.as_str())),
            Record::Offset(..) | Record::Group(..) => {}
        }
    }

    fn replayed(&mut self, id: &str) -> &mut Member {
        let seat = self.members.entry(id.into());
        Arc::make_mut(&mut seat.or_insert_with(|| Seat::new(Arc::default())).member)
    }

    /// After the last record: every session begins now, and every wait for partitions to be given up. How long a
    /// group without members was empty is not recorded, so that begins now too: no offset goes before its time.
    pub fn loaded(&mut self, env: &Env<'_>) {
        self.mend(env);
        self.empty_since_ms = self.members.is_empty().then_some(env.time_ms);
        let session_timeout_ms = env.config.group(&self.id).consumer_session_timeout_ms;
        for seat in self.members.values_mut() {
            seat.session_ms = env.now_ms + i64::from(session_timeout_ms);
            if seat.member.state == MemberState::Unrevoked && seat.member.classic().is_none() {
                let timeout_ms = seat.member.about.rebalance_timeout_ms;
                seat.revoke_ms = Some(env.now_ms + i64::from(timeout_ms));
            }
        }
    }

    /// Makes good what a gap in the log took. A member of which nobody knows what it reads is none, and joins again.
    /// Epochs do not fall; and where the newest target is not whole, the next heartbeat makes another.
    fn mend(&mut self, env: &Env<'_>) {
        self.members
            .retain(|_, seat| seat.member.about != ConsumerGroupMemberMetadataValue::default());
        for seat in self.members.values() {
            if let Some(pattern) = member::pattern(&seat.member.about) {
                // The next heartbeat looks it up.
                self.patterns.entry(pattern.into()).or_default();
            }
        }
        let epochs = self.members.values().map(|seat| seat.member.epoch);
        let seen = epochs.fold(self.target_epoch, i32::max);
        let is_behind = self.epoch < seen;
        let is_settled = self.epoch == self.target_epoch && self.hash == self.topics_hash(env);
        if is_behind || is_settled && !self.is_whole(env) {
            log::error!("group {}: some of its records are lost", self.id);
            self.epoch = self.epoch.max(seen);
            self.hash = 0;
        }
    }

    /// Takes up what happened. Afterwards [`ConsumerGroup::to_classic`] tells whether it still is a consumer group.
    pub fn step<W>(&mut self, event: Event<W>, env: &Env<'_>, effects: &mut Effects<W>) {
        let records = &mut effects.records;
        let Event::Asked(ask, asker) = event else {
            return self.expire(env, records);
        };
        let told = match *ask {
            Ask::ConsumerHeartbeat(request, found) => {
                match self.missing_look_up(&request, &found, env) {
                    Some(look_up) => Told::LookUp(Box::new(look_up)),
                    None => {
                        let answer = self.heartbeat(request, &found, &asker, env, records);
                        Told::ConsumerHeartbeat(answer.unwrap_or_else(checks::refused))
                    }
                }
            }
            Ask::Join(request) => Told::Join(self.classic_join(request, &asker, env, records)),
            Ask::Sync(request) => Told::Sync(self.classic_sync(request, env)),
            Ask::Heartbeat(request) => Told::Heartbeat(self.classic_heartbeat(&request, env)),
            Ask::Leave(request) => {
                Told::Leave(self.classic_leave(request, asker.version, env, records))
            }
        };
        effects.told.push((asker.waiter, told));
    }

    /// When [`Event::Due`] is wanted, in ms of CLOCK_BOOTTIME; `None` if nothing is waited for.
    pub fn due_ms(&self) -> Option<i64> {
        self.members.values().map(Seat::due_ms).min()
    }

    /// Whether an OffsetCommit is from a member at its epoch, or else from nobody for a group that nobody is in.
    ///
    /// # Errors
    /// UNKNOWN_MEMBER_ID, UNSUPPORTED_VERSION before version 9, STALE_MEMBER_EPOCH, and ILLEGAL_GENERATION for a
    /// member of the classic protocol.
    pub fn check_commit(&self, member_id: &str, epoch: i32, version: i16) -> Result<(), ErrorCode> {
        if epoch < 0 && self.members.is_empty() {
            return Ok(());
        }
        match self.members.get(member_id) {
            Some(seat) if version < 9 && seat.member.classic().is_none() => {
                Err(ErrorCode::UnsupportedVersion)
            }
            _ => self.check_epoch(member_id, epoch),
        }
    }

    /// Whether a transaction may have offsets in it now.
    ///
    /// # Errors
    /// UNKNOWN_MEMBER_ID, and ILLEGAL_GENERATION for any epoch but the member's: producers know no other word for it.
    pub fn check_transaction(&self, member_id: &str, epoch: i32) -> Result<(), ErrorCode> {
        if epoch < 0 && self.members.is_empty() {
            return Ok(());
        }
        let checked = self.check_epoch(member_id, epoch);
        checked.map_err(|code| match code {
            ErrorCode::StaleMemberEpoch => ErrorCode::IllegalGeneration,
            other => other,
        })
    }

    /// Whether an OffsetFetch is from a member at its epoch, or from someone who does not say who it is.
    ///
    /// # Errors
    /// UNKNOWN_MEMBER_ID, STALE_MEMBER_EPOCH, and ILLEGAL_GENERATION for a member of the classic protocol.
    pub fn check_fetch(&self, member_id: Option<&str>, epoch: i32) -> Result<(), ErrorCode> {
        match member_id {
            None if epoch < 0 => Ok(()),
            _ => self.check_epoch(member_id.unwrap_or_default(), epoch),
        }
    }

    fn check_epoch(&self, member_id: &str, epoch: i32) -> Result<(), ErrorCode> {
        match self.members.get(member_id) {
            None => Err(ErrorCode::UnknownMemberId),
            Some(seat) if seat.member.epoch == epoch => Ok(()),
            Some(seat) if seat.member.classic().is_some() => Err(ErrorCode::IllegalGeneration),
            Some(_) => Err(ErrorCode::StaleMemberEpoch),
        }
    }

    /// Whether the group may be deleted.
    ///
    /// # Errors
    /// NON_EMPTY_GROUP.
    pub fn check_delete(&self) -> Result<(), ErrorCode> {
        match self.members.is_empty() {
            true => Ok(()),
            false => Err(ErrorCode::NonEmptyGroup),
        }
    }

    /// Its name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// When the group became empty, in ms of broker time, or else when the broker started; `None` if it is not empty.
    pub fn empty_since_ms(&self) -> Option<i64> {
        self.empty_since_ms
    }

    /// About how much memory its members and patterns take. Each of a member's three records names the group, and so
    /// do those that take them back.
    pub fn bytes(&self) -> usize {
        let names = 3 * self.id.len();
        let members = self.members.iter();
        let members = members.map(|(id, seat)| names + id.len() + seat.member.bytes());
        let patterns = self.patterns.keys().map(|pattern| 64 + pattern.len());
        let topics = self.patterns.values().flat_map(|found| &found.topics);
        let topics = topics.map(|topic| 32 + topic.len());
        members.chain(patterns).chain(topics).sum()
    }

    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether it is as a group that never was; it may have offsets all the same.
    pub fn is_vacant(&self) -> bool {
        self.epoch == 0 && self.members.is_empty()
    }

    /// The record of its epoch.
    pub fn record(&self) -> Record {
        let value = ConsumerGroupMetadataValue {
            epoch: self.epoch,
            metadata_hash: self.hash,
        };
        Record::ConsumerGroup(self.id.to_string(), Some(value))
    }

    /// The records that take the group back, in Kafka's order.
    pub fn tombstones(&self) -> Vec<Record> {
        let group = || self.id.to_string();
        let ids = || self.members.keys().map(|id| id.to_string());
        let patterns = self.patterns.keys();
        let currents = ids().map(|id| Record::Current(group(), id, None));
        let targets = ids().map(|id| Record::TargetMember(group(), id, None));
        currents
            .chain(targets)
            .chain([Record::TargetEpoch(group(), None)])
            .chain(ids().map(|id| Record::Member(group(), id, None)))
            .chain(patterns.map(|pattern| Record::Regex(group(), pattern.to_string(), None)))
            .chain([Record::ConsumerGroup(group(), None)])
            .collect()
    }

    /// Kafka's name for its state.
    pub fn state_name(&self) -> &'static str {
        let mut members = self.members.values();
        if self.members.is_empty() {
            "Empty"
        } else if self.epoch > self.target_epoch {
            "Assigning"
        } else if members.all(|seat| seat.member.is_at(self.target_epoch)) {
            "Stable"
        } else {
            "Reconciling"
        }
    }

    /// As ConsumerGroupDescribe shows it, members by id; topics that are gone are left out.
    pub fn describe(&self, env: &Env<'_>) -> describe::DescribedGroup {
        let assignment = |assignment: &super::assignors::Assignment| describe::Assignment {
            topic_partitions: assignment
                .iter()
                .filter_map(|(topic_id, partitions)| {
                    Some(describe::TopicPartitions {
                        topic_id: *topic_id,
                        topic_name: env.catalog.name_of(*topic_id)?.to_owned(),
                        partitions: partitions.iter().copied().collect(),
                    })
                })
                .collect(),
        };
        let members = self.members.iter().map(|(id, seat)| {
            let Member { about, .. } = &*seat.member;
            describe::Member {
                member_id: id.to_string(),
                instance_id: about.instance_id.clone(),
                rack_id: about.rack_id.clone(),
                member_epoch: seat.member.epoch,
                client_id: about.client_id.clone(),
                client_host: about.client_host.clone(),
                subscribed_topic_names: about.subscribed_topic_names.clone(),
                subscribed_topic_regex: about.subscribed_topic_regex.clone(),
                assignment: assignment(&seat.member.assigned),
                target_assignment: assignment(&seat.member.target),
                member_type: i8::from(seat.member.classic().is_none()),
            }
        });
        describe::DescribedGroup {
            group_id: self.id.to_string(),
            group_state: self.state_name().to_owned(),
            group_epoch: self.epoch,
            assignment_epoch: self.target_epoch,
            assignor_name: self.assignor(env).to_owned(),
            members: members.collect(),
            ..describe::DescribedGroup::default()
        }
    }
}
