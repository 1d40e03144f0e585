//! A heartbeat, from its checks to its answer; members that come, leave and fall silent.
//!
//! Whatever can be refused is refused before anything changes.

use super::checks::{check, check_epoch};
use super::member::{EPOCH_AWAY, Member, MemberState, Seat, owned, pattern, told};
use super::patterns::Found;
use super::{ConsumerGroup, Fault, reconcile};
use crate::api::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
};
use crate::error::ErrorCode;
use crate::group::assignors::Assignment;
use crate::group::records::{
    ConsumerGroupMemberMetadataValue, ConsumerGroupTargetAssignmentMemberValue, Record,
};
use crate::group::{Asker, Env};
use std::sync::Arc;

/// A member as it was, what it says of itself if that is new, and whose place it takes.
pub(super) struct Coming {
    pub id: Arc<str>,
    pub member: Arc<Member>,
    pub about: Option<ConsumerGroupMemberMetadataValue>,
    /// A static member of the same name.
    pub replaces: Option<Arc<str>>,
}

/// The id of one who joins, the member that it is or continues, and whose place it takes.
pub(super) type Joining = (Arc<str>, Arc<Member>, Option<Arc<str>>);

impl Coming {
    /// Whether it wants other topics than before.
    pub fn resubscribes(&self) -> bool {
        let before = &self.member.about;
        self.about.as_ref().is_some_and(|about| {
            about.subscribed_topic_names != before.subscribed_topic_names
                || pattern(about) != pattern(before)
        })
    }
}

impl ConsumerGroup {
    pub(super) fn heartbeat<W>(
        &mut self,
        request: ConsumerGroupHeartbeatRequest,
        found: &Found,
        asker: &Asker<W>,
        env: &Env<'_>,
        records: &mut Vec<Record>,
    ) -> Result<ConsumerGroupHeartbeatResponse, Fault> {
        check(&request, asker.version, env)?;
        if request.member_epoch < 0 {
            return self.leave(request, env, records);
        }
        let joins = request.member_epoch == 0;
        if self.is_vacant() && !joins {
            let what = format!("Consumer group {} not found.", self.id);
            return Err((ErrorCode::GroupIdNotFound, what));
        }
        self.check_room(&request.member_id, env)?;
        let owned = request.topic_partitions.as_deref().map(owned);
        let instance_id = request.instance_id.as_deref();
        let (id, member, replaces) = match (joins, request.member_id.is_empty()) {
            (true, true) => self.joining(&(env.new_id)().to_string(), instance_id, false)?,
            (true, false) => self.joining(&request.member_id, instance_id, false)?,
            (false, _) => {
                let (id, seat) = self.known(&request.member_id, instance_id)?;
                (id.clone(), seat.member.clone(), None)
            }
        };
        check_epoch(&member, request.member_epoch, owned.as_ref())?;
        let full = request.rebalance_timeout_ms != -1
            && owned.is_some()
            && (request.subscribed_topic_names.is_some()
                || request.subscribed_topic_regex.is_some());
        let before = member.clone();
        let about = updated(&member.about, request, asker);
        let coming = Coming {
            id: id.clone(),
            member,
            about,
            replaces,
        };
        let resubscribed = self.seat(coming, found, env, records)?;
        let changed = self.renew_patterns(found, env, records);
        self.proceed(&id, resubscribed || changed, owned.as_ref(), env, records);
        let settings = env.config.group(&self.id);
        // It has been given one above.
        let seat = self.members.entry(id.clone());
        let seat = seat.or_insert_with(|| Seat::new(before.clone()));
        seat.session_ms = env.now_ms + i64::from(settings.consumer_session_timeout_ms);
        let tell = joins || full || seat.member.assigned != before.assigned;
        Ok(ConsumerGroupHeartbeatResponse {
            member_id: Some(id.to_string()),
            member_epoch: seat.member.epoch,
            heartbeat_interval_ms: settings.consumer_heartbeat_interval_ms,
            assignment: tell.then(|| told(&seat.member.assigned)),
            ..ConsumerGroupHeartbeatResponse::default()
        })
    }

    /// Whether someone, if not a member yet, may become one.
    pub(super) fn check_room(&self, member_id: &str, env: &Env<'_>) -> Result<(), Fault> {
        let max = env.config.group_consumer_max_size;
        if self.members.len() as i64 >= i64::from(max) && !self.members.contains_key(member_id) {
            let what =
                format!("The consumer group has reached its maximum capacity of {max} members.");
            return Err((ErrorCode::GroupMaxSizeReached, what));
        }
        Ok(())
    }

    /// The member that a request names, by its static name too if it has one.
    pub(super) fn known(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<(&Arc<str>, &Seat), Fault> {
        let unknown = |what| (ErrorCode::UnknownMemberId, what);
        let Some(instance) = instance_id else {
            let known = self.members.get_key_value(member_id);
            let what = || format!("Member {member_id} is not a member of group {}.", self.id);
            return known.ok_or_else(|| unknown(what()));
        };
        match self.static_member(instance) {
            None => Err(unknown(format!("Instance id {instance} is unknown."))),
            Some((holder, _)) if **holder != *member_id => Err((
                ErrorCode::FencedInstanceId,
                format!(
                    "Static member {member_id} with instance id {instance} was fenced by member {holder}."
                ),
            )),
            Some(known) => Ok(known),
        }
    }

    pub(super) fn static_member(&self, instance_id: &str) -> Option<(&Arc<str>, &Seat)> {
        let is_it = |seat: &Seat| seat.member.about.instance_id.as_deref() == Some(instance_id);
        self.members.iter().find(|(_, seat)| is_it(seat))
    }

    /// The member that someone who joins is or becomes, and whose place it takes. With a static name it continues
    /// where the last one of this name was; a member of the new protocol must have said first that it goes away.
    pub(super) fn joining(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
        is_classic: bool,
    ) -> Result<Joining, Fault> {
        let Some((holder, seat)) = instance_id.and_then(|name| self.static_member(name)) else {
            let known = self.members.get_key_value(member_id);
            return Ok(match known {
                Some((id, seat)) => (id.clone(), seat.member.clone(), None),
                None => (member_id.into(), Arc::default(), None),
            });
        };
        let both_new = !is_classic && seat.member.classic().is_none();
        if both_new && seat.member.epoch != EPOCH_AWAY {
            let instance = instance_id.unwrap_or_default();
            return Err((
                ErrorCode::UnreleasedInstanceId,
                format!(
                    "Static member {member_id} with instance id {instance} cannot join the group because the \
                     instance id is owned by {holder} member."
                ),
            ));
        }
        let member = Member {
            epoch: 0,
            previous_epoch: 0,
            ..(*seat.member).clone()
        };
        Ok((member_id.into(), Arc::new(member), Some(holder.clone())))
    }

    /// The group's epoch and target after a member has spoken, and that member's way to it.
    pub(super) fn proceed(
        &mut self,
        id: &Arc<str>,
        wants_others: bool,
        owned: Option<&Assignment>,
        env: &Env<'_>,
        records: &mut Vec<Record>,
    ) {
        self.advance(wants_others || self.epoch == 0, env, records);
        self.retarget(env, records);
        self.reconcile(id, owned, env, records);
    }

    /// Gives a member its place; says whether it wants other topics than before.
    pub(super) fn seat(
        &mut self,
        mut coming: Coming,
        found: &Found,
        env: &Env<'_>,
        records: &mut Vec<Record>,
    ) -> Result<bool, Fault> {
        let new_pattern = coming.about.as_ref().and_then(pattern);
        let new_pattern = new_pattern.filter(|pattern| !self.patterns.contains_key(*pattern));
        if let Some(Err(fault)) = new_pattern.and_then(|pattern| found.topics.get(pattern)) {
            return Err(fault.clone());
        }
        let new_pattern: Option<Arc<str>> = new_pattern.map(Arc::from);
        let resubscribes = coming.resubscribes();
        if let Some(old) = &coming.replaces {
            self.remove(old, records);
            self.record_whole(&coming, records);
        }
        if let Some(about) = coming.about {
            let (group, id) = (self.id.to_string(), coming.id.to_string());
            records.push(Record::Member(group, id, Some(about.clone())));
            Arc::make_mut(&mut coming.member).about = about;
        }
        match self.members.get_mut(&coming.id) {
            Some(seat) => seat.member = coming.member,
            None => drop(self.members.insert(coming.id, Seat::new(coming.member))),
        }
        self.empty_since_ms = None;
        if resubscribes {
            self.forget_patterns(records);
        }
        if let Some(pattern) = new_pattern {
            if self.patterns.is_empty() {
                self.looked_up_ms = Some(env.now_ms);
            }
            // Its topics follow: they are among what is found.
            self.patterns.insert(pattern, Arc::default());
        }
        Ok(resubscribes)
    }

    /// Records a member that takes another's place, with all that this one had.
    fn record_whole(&self, coming: &Coming, records: &mut Vec<Record>) {
        let (group, id) = (|| self.id.to_string(), || coming.id.to_string());
        let Member { about, target, .. } = &*coming.member;
        let target = ConsumerGroupTargetAssignmentMemberValue {
            topic_partitions: super::member::listed(target),
        };
        records.push(Record::Member(group(), id(), Some(about.clone())));
        records.push(Record::TargetMember(group(), id(), Some(target)));
        records.push(Record::Current(
            group(),
            id(),
            Some(coming.member.current()),
        ));
    }

    /// Takes a member a step towards its target.
    pub(super) fn reconcile(
        &mut self,
        id: &Arc<str>,
        owned: Option<&Assignment>,
        env: &Env<'_>,
        records: &mut Vec<Record>,
    ) {
        let Some(seat) = self.members.get(id) else {
            return;
        };
        if seat.member.is_at(self.target_epoch) {
            return;
        }
        let taken = self.taken(id, &seat.member.target);
        let next = reconcile::next(&seat.member, self.target_epoch, owned, &taken);
        if let (Some(next), Some(seat)) = (next, self.members.get_mut(id)) {
            let (group, id) = (self.id.to_string(), id.to_string());
            records.push(Record::Current(group, id, Some(next.current())));
            let must_revoke = next.state == MemberState::Unrevoked && next.classic().is_none();
            let timeout_ms = i64::from(next.about.rebalance_timeout_ms);
            seat.revoke_ms = must_revoke.then_some(env.now_ms + timeout_ms);
            seat.member = Arc::new(next);
        }
    }

    /// Those of these partitions that others have, or have not given up yet.
    pub(super) fn taken(&self, id: &str, partitions: &Assignment) -> Assignment {
        let mut taken = Assignment::new();
        let others = self.members.iter().filter(|(other, _)| ***other != *id);
        for (_, seat) in others {
            for held in [&seat.member.assigned, &seat.member.revoking] {
                for (topic, wanted) in partitions {
                    let both = held.get(topic).into_iter().flat_map(|held| held & wanted);
                    both.for_each(|partition| {
                        taken.entry(*topic).or_default().insert(partition);
                    });
                }
            }
        }
        taken
    }

    fn leave(
        &mut self,
        request: ConsumerGroupHeartbeatRequest,
        env: &Env<'_>,
        records: &mut Vec<Record>,
    ) -> Result<ConsumerGroupHeartbeatResponse, Fault> {
        if self.is_vacant() {
            let what = format!("Group {} not found.", self.id);
            return Err((ErrorCode::GroupIdNotFound, what));
        }
        let (id, _) = self.known(&request.member_id, request.instance_id.as_deref())?;
        let id = id.clone();
        match self.members.get_mut(&id) {
            Some(seat) if request.member_epoch == EPOCH_AWAY && request.instance_id.is_some() => {
                let member = Arc::make_mut(&mut seat.member);
                member.epoch = EPOCH_AWAY;
                member.revoking = Assignment::new();
                seat.revoke_ms = None;
                let (group, id) = (self.id.to_string(), id.to_string());
                records.push(Record::Current(group, id, Some(seat.member.current())));
            }
            _ => self.fence(&[id], env, records),
        }
        Ok(ConsumerGroupHeartbeatResponse {
            member_id: Some(request.member_id),
            member_epoch: request.member_epoch,
            ..ConsumerGroupHeartbeatResponse::default()
        })
    }

    /// Takes out the members whose time is over.
    pub(super) fn expire(&mut self, env: &Env<'_>, records: &mut Vec<Record>) {
        let over = self
            .members
            .iter()
            .filter(|(_, seat)| seat.due_ms() <= env.now_ms);
        let ids: Vec<Arc<str>> = over.map(|(id, _)| id.clone()).collect();
        self.fence(&ids, env, records);
    }

    /// Takes members out. What they had is free at once: they were told, or had time enough to find out.
    pub(super) fn fence(&mut self, ids: &[Arc<str>], env: &Env<'_>, records: &mut Vec<Record>) {
        let before = self.members.len();
        ids.iter().for_each(|id| self.remove(id, records));
        if self.members.len() == before {
            return;
        }
        if self.may_downgrade(env) {
            self.downgrade = Some(true);
            return;
        }
        self.empty_since_ms = self.members.is_empty().then_some(env.time_ms);
        self.forget_patterns(records);
        self.advance(true, env, records);
    }

    fn remove(&mut self, id: &Arc<str>, records: &mut Vec<Record>) {
        if self.members.remove(id).is_some() {
            let (group, id) = (|| self.id.to_string(), || id.to_string());
            records.push(Record::Current(group(), id(), None));
            records.push(Record::TargetMember(group(), id(), None));
            records.push(Record::Member(group(), id(), None));
        }
    }

    /// Takes back the patterns that nobody is subscribed to any more.
    fn forget_patterns(&mut self, records: &mut Vec<Record>) {
        let (group, members) = (&self.id, &self.members);
        self.patterns.retain(|known, _| {
            let used = |seat: &Seat| pattern(&seat.member.about) == Some(&**known);
            let keep = members.values().any(used);
            if !keep {
                records.push(Record::Regex(group.to_string(), known.to_string(), None));
            }
            keep
        });
    }
}

/// What a heartbeat makes of what a member said before; `None` if it says nothing new.
fn updated<W>(
    before: &ConsumerGroupMemberMetadataValue,
    request: ConsumerGroupHeartbeatRequest,
    asker: &Asker<W>,
) -> Option<ConsumerGroupMemberMetadataValue> {
    let mut topics = request.subscribed_topic_names;
    if let Some(topics) = &mut topics {
        topics.sort_unstable();
        topics.dedup();
    }
    fn news<T: PartialEq>(said: &Option<T>, before: &Option<T>) -> bool {
        said.is_some() && said != before
    }
    let pattern = request.subscribed_topic_regex;
    let timeout_ms = request.rebalance_timeout_ms;
    let same = topics
        .as_ref()
        .is_none_or(|topics| *topics == before.subscribed_topic_names)
        && !news(&pattern, &before.subscribed_topic_regex)
        && !news(&request.instance_id, &before.instance_id)
        && !news(&request.rack_id, &before.rack_id)
        && !news(&request.server_assignor, &before.server_assignor)
        && (timeout_ms == -1 || timeout_ms == before.rebalance_timeout_ms)
        && before.client_id == asker.client_id
        && before.client_host == asker.client_host
        && before.classic_member_metadata.is_none();
    if same {
        return None;
    }
    let before = before.clone();
    let none = Some(String::new());
    Some(ConsumerGroupMemberMetadataValue {
        instance_id: request.instance_id.or(before.instance_id),
        rack_id: request.rack_id.or(before.rack_id),
        client_id: asker.client_id.clone(),
        client_host: asker.client_host.clone(),
        subscribed_topic_names: topics.unwrap_or(before.subscribed_topic_names),
        subscribed_topic_regex: pattern.or(before.subscribed_topic_regex).or(none),
        rebalance_timeout_ms: match timeout_ms {
            -1 => before.rebalance_timeout_ms,
            timeout_ms => timeout_ms,
        },
        server_assignor: request.server_assignor.or(before.server_assignor),
        classic_member_metadata: None,
    })
}
