//! The rebalance: when it begins, whom it waits for, whom it drops, and what the next generation is.

use super::member::{refused_join, refused_sync};
use super::{ClassicGroup, Member, Phase, Wait};
use crate::error::ErrorCode;
use crate::group::protocol::known_to_all;
use crate::group::{Effects, Env};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The pause before another look at a group of which nobody joined again, if its members' own time-outs are shorter.
const RETRY_MS_MIN: i64 = 1000;

impl<W: Clone> ClassicGroup<W> {
    /// Begins a rebalance, or ends the one that is under way if nobody is missing any more.
    pub(super) fn rebalance_or_complete(&mut self, env: &Env<'_>, effects: &mut Effects<W>) {
        match self.phase {
            Phase::Preparing(Wait::First { .. }) => {}
            Phase::Preparing(Wait::Again { .. }) => self.complete_if_all_joined(env, effects),
            _ => self.rebalance(env, effects),
        }
    }

    /// Begins a rebalance: all members have to join again.
    pub fn rebalance(&mut self, env: &Env<'_>, effects: &mut Effects<W>) {
        let completing = matches!(self.phase, Phase::Completing);
        for member in self.members.values_mut().map(Arc::make_mut) {
            member.owes_sync = false;
            if completing {
                member.assignment.clear();
            }
            if member.tell_sync(effects, || refused_sync(ErrorCode::RebalanceInProgress)) {
                member.touch(env.now_ms);
            }
        }
        if matches!(self.phase, Phase::Empty) {
            let delay_ms = i64::from(env.config.group_initial_rebalance_delay_ms);
            let wait = Wait::First {
                due_ms: env.now_ms + delay_ms,
                delay_ms,
                remaining_ms: (self.rebalance_timeout_ms() - delay_ms).max(0),
                extend: false,
            };
            return self.enter(Phase::Preparing(wait), env);
        }
        let due_ms = env.now_ms + self.rebalance_timeout_ms();
        self.enter(Phase::Preparing(Wait::Again { due_ms }), env);
        self.complete_if_all_joined(env, effects);
    }

    pub(super) fn enter(&mut self, phase: Phase, env: &Env<'_>) {
        self.phase = phase;
        self.since_ms = env.time_ms;
    }

    fn rebalance_timeout_ms(&self) -> i64 {
        let timeouts = self
            .members
            .values()
            .map(|member| member.rebalance_timeout_ms);
        timeouts.max().unwrap_or(0).max(0).into()
    }

    fn complete_if_all_joined(&mut self, env: &Env<'_>, effects: &mut Effects<W>) {
        let preparing = matches!(self.phase, Phase::Preparing(_));
        let all_joined = self.members.values().all(|member| member.joining.is_some());
        if preparing && all_joined && self.pending.is_empty() {
            self.complete(env, effects);
        }
    }

    /// The joining is over: the next generation begins with those who joined, and static members that did not.
    fn complete(&mut self, env: &Env<'_>, effects: &mut Effects<W>) {
        self.remove_all(effects, |member| {
            member.joining.is_none() && member.instance_id.is_none()
        });
        if !self.elect_joined_leader() && !self.members.is_empty() {
            // Only silent static members are left: they may come back until their sessions end.
            let due_ms = env.now_ms + self.rebalance_timeout_ms().max(RETRY_MS_MIN);
            self.phase = Phase::Preparing(Wait::Again { due_ms });
            return;
        }
        self.generation = self.generation.saturating_add(1);
        self.protocol = self.select();
        if self.members.is_empty() {
            self.enter(Phase::Empty, env);
            effects.records.push(self.record());
            return;
        }
        self.enter(Phase::Completing, env);
        self.sync_due_ms = env.now_ms + self.rebalance_timeout_ms();
        for id in self.ids() {
            let response = self.joined(&id);
            if let Some(member) = self.member_mut(&id) {
                member.tell_join(effects, || response);
                member.touch(env.now_ms);
                member.is_new = false;
                member.owes_sync = true;
            }
        }
    }

    /// Whether someone who joined leads, now at the latest.
    fn elect_joined_leader(&mut self) -> bool {
        let joined = |id: &&Arc<str>| {
            let member = self.members.get(*id);
            member.is_some_and(|member| member.joining.is_some())
        };
        let mut candidates = self.leader.iter().chain(self.members.keys());
        let elected = candidates.find(joined).cloned();
        let found = elected.is_some();
        self.leader = elected.or(self.leader.take());
        found
    }

    /// Makes sure that the leader is a member, and that there is one if there are members.
    pub(super) fn settle_leader(&mut self) {
        let leader = self.leader.take();
        let leader = leader.filter(|leader| self.members.contains_key(leader));
        self.leader = leader.or_else(|| self.members.keys().next().cloned());
    }

    /// The protocol that all members know and most put first among such; of equals, the first by name.
    pub(super) fn select(&self) -> Option<String> {
        let mut members = self.members.values();
        let first = members.next()?.protocol_names();
        let common = known_to_all(first, members.map(|member| member.protocol_names()));
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            if let Some(name) = member.protocol_names().find(|name| common.contains(name)) {
                *votes.entry(name).or_default() += 1;
            }
        }
        let most = votes.into_iter().min_by_key(|(_, votes)| Reverse(*votes));
        most.map(|(name, _)| name.to_owned())
    }

    pub(super) fn ids(&self) -> Vec<Arc<str>> {
        self.members.keys().cloned().collect()
    }

    /// Whether members were told of the generation and have not asked for their assignments.
    pub(super) fn owes_syncs(&self) -> bool {
        self.members.values().any(|member| member.owes_sync)
    }

    /// Takes out a member, or an id that was given out. One that waits is told to join anew.
    pub(super) fn remove(&mut self, id: &str, effects: &mut Effects<W>) {
        self.pending.remove(id);
        if let Some(mut member) = self.members.remove(id) {
            let member = Arc::make_mut(&mut member);
            // Kafka forgets the sync; here everyone is answered.
            member.tell_sync(effects, || refused_sync(ErrorCode::UnknownMemberId));
            member.tell_join(effects, || refused_join("", ErrorCode::UnknownMemberId));
            self.settle_leader();
        }
    }

    /// Takes out the members for which `gone` holds; false if there are none.
    fn remove_all(&mut self, effects: &mut Effects<W>, gone: impl Fn(&Member<W>) -> bool) -> bool {
        let members = self.members.iter().filter(|(_, member)| gone(member));
        let gone: Vec<_> = members.map(|(id, _)| id.clone()).collect();
        for id in &gone {
            self.remove(id, effects);
        }
        !gone.is_empty()
    }

    /// Does what the time has come for. Joins and syncs come before sessions: who waited for them was not silent.
    pub(super) fn due(&mut self, env: &Env<'_>, effects: &mut Effects<W>) {
        let now_ms = env.now_ms;
        if let Phase::Preparing(wait) = self.phase
            && wait.due_ms() <= now_ms
        {
            self.wait_is_over(wait, env, effects);
        }
        if self.sync_due_ms <= now_ms && self.remove_all(effects, |member| member.owes_sync) {
            self.rebalance(env, effects);
        }
        let before = self.pending.len();
        self.pending.retain(|_, due_ms| *due_ms > now_ms);
        let is_silent = |due_ms| due_ms <= now_ms;
        if self.remove_all(effects, |member| {
            member.session_due_ms().is_some_and(is_silent)
        }) {
            match self.phase {
                Phase::Preparing(_) => self.complete_if_all_joined(env, effects),
                _ => self.rebalance(env, effects),
            }
        } else if self.pending.len() < before {
            self.complete_if_all_joined(env, effects);
        }
    }

    fn wait_is_over(&mut self, wait: Wait, env: &Env<'_>, effects: &mut Effects<W>) {
        match wait {
            Wait::First {
                delay_ms,
                remaining_ms,
                extend: true,
                ..
            } if remaining_ms > 0 => {
                let next_ms = remaining_ms.min(env.config.group_initial_rebalance_delay_ms.into());
                self.phase = Phase::Preparing(Wait::First {
                    due_ms: env.now_ms + next_ms,
                    delay_ms: next_ms,
                    remaining_ms: (remaining_ms - delay_ms).max(0),
                    extend: false,
                });
            }
            _ => self.complete(env, effects),
        }
    }
}
