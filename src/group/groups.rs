//! All groups: each with its offsets, the events that wait for it, and the records that are on their way.
//!
//! Pure, like the machines in it: what is asked goes in with the time it is, and [`Effect`]s come out. Invariants:
//! 1. A group's events are taken up in their order. One whose records are on their way holds up the next; only
//!    commits of offsets, which change no membership, go side by side.
//! 2. What takes offsets or the group away waits until no commit is on its way, so memory and log agree on what is
//!    left.
//! 3. Who asked is answered exactly once: by the step, when its records are synced, or with a refusal.

use super::commits::{is_of_a_transaction, with_code};
use super::offsets::Offsets;
use super::records::Record;
use super::refusals::{refused_commit, refused_delete};
use super::{Ask, Asker, Effects, Env, Event, Group, Request, Response, Transaction};
use crate::api::offset_commit::OffsetCommitRequest;
use crate::api::offset_delete::OffsetDeleteRequest;
use crate::error::ErrorCode;
use crate::seldom::Seldom;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// What a group takes of memory beside what is in it.
const SLOT_BYTES: usize = 512;

/// After a refusal, which a full disk gives at once, a group's timers rest for so long.
const RETRY_MS: i64 = 1_000;

/// What is to be done for a group.
#[derive(Debug)]
pub enum Effect<W> {
    /// Commit these records of `group`, and call [`Groups::committed`] with the token.
    Append {
        /// Names the append.
        token: u64,
        /// Whose; all records of a group go into one partition of the log.
        group: Arc<str>,
        /// The records.
        records: Vec<Record>,
        /// The transaction that they are part of.
        transaction: Option<Transaction>,
    },
    /// Give an answer.
    Answer(W, Response),
}

/// Something that a group is to take up.
pub(super) enum Job<W> {
    Step(Event<W>),
    Commit(OffsetCommitRequest, Option<Transaction>, Asker<W>),
    DeleteOffsets(OffsetDeleteRequest, W),
    Delete(W),
    /// Forget what is older than its retention.
    Expire,
    /// Forget the offsets of topics that are gone.
    ForgetTopics(Arc<BTreeSet<String>>),
    /// Record the offsets once more.
    Restate,
}

impl<W> Job<W> {
    fn takes_away(&self) -> bool {
        !matches!(self, Job::Step(_) | Job::Commit(..))
    }

    /// Who waits for it, and the answer if it cannot be taken up.
    fn refusal(self, code: ErrorCode) -> Option<(W, Response)> {
        match self {
            Job::Step(Event::Asked(ask, asker)) => {
                Some((asker.waiter, Response::Member(ask.refusal(code))))
            }
            Job::Commit(request, _, asker) => {
                let refused = refused_commit(&request, code);
                Some((asker.waiter, Response::Commit(refused)))
            }
            Job::DeleteOffsets(_, waiter) => {
                Some((waiter, Response::DeleteOffsets(refused_delete(code))))
            }
            Job::Delete(waiter) => Some((waiter, Response::Deleted(code))),
            Job::Step(Event::Due) | Job::Expire | Job::ForgetTopics(_) | Job::Restate => None,
        }
    }
}

/// Records on their way to the log, and what follows when they are there.
pub(super) struct Writing<W> {
    pub group: Arc<str>,
    pub change: Change<W>,
    /// Applied to the offsets, in order.
    pub records: Vec<Record>,
    pub answers: Vec<(W, Response)>,
    /// Whom to answer what if they are refused.
    pub refusal: Option<(W, Response)>,
}

pub(super) enum Change<W> {
    /// The group as it will be.
    Step(Box<Group<W>>),
    Commit(Option<Transaction>),
    /// Offsets are taken away, or with them the group.
    Purge {
        group: bool,
    },
    /// What is committed stays as it is.
    Restate,
}

/// One group.
pub(super) struct Slot<W> {
    pub group: Group<W>,
    pub offsets: Offsets,
    waiting: VecDeque<Job<W>>,
    /// Whether a step or a purge is on its way.
    pub is_held: bool,
    /// How many commits are on their way.
    pub commits: usize,
    /// Its place among the timers.
    due_ms: Option<i64>,
    not_before_ms: i64,
    /// What it counts for in memory.
    bytes: usize,
    /// Whether that is still so.
    pub is_weighed: bool,
    /// Whether the log has lost records of its offsets that are not recorded once more yet.
    pub is_lost: bool,
}

impl<W: Clone> Slot<W> {
    fn new(id: &str, env: &Env<'_>) -> Slot<W> {
        Slot {
            group: Group::new(id, env),
            offsets: Offsets::default(),
            waiting: VecDeque::new(),
            is_held: false,
            commits: 0,
            due_ms: None,
            not_before_ms: i64::MIN,
            bytes: 0,
            is_weighed: false,
            is_lost: false,
        }
    }

    /// Whether clients are told that it exists.
    pub fn is_known(&self) -> bool {
        !self.group.is_vacant() || !self.offsets.is_empty()
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && !self.is_held && self.commits == 0
    }

    fn may_begin(&self, job: &Job<W>) -> bool {
        !self.is_held && (self.commits == 0 || !job.takes_away())
    }
}

/// All groups of the broker.
pub struct Groups<W> {
    pub(super) slots: BTreeMap<Arc<str>, Slot<W>>,
    due: BTreeSet<(i64, Arc<str>)>,
    /// Which groups have offsets pending, by producer id and the log's partition.
    pub(super) transactions: BTreeMap<(i64, i32), BTreeSet<Arc<str>>>,
    writing: HashMap<u64, Writing<W>>,
    last_token: u64,
    next_expiry_ms: i64,
    /// What all groups count for in memory (P7), and whether growth is refused at present.
    pub(super) bytes: usize,
    pub(super) is_full: bool,
    is_closed: bool,
    pub(super) effects: Vec<Effect<W>>,
}

impl<W: Clone> Default for Groups<W> {
    fn default() -> Groups<W> {
        Groups {
            slots: BTreeMap::new(),
            due: BTreeSet::new(),
            transactions: BTreeMap::new(),
            writing: HashMap::new(),
            last_token: 0,
            next_expiry_ms: i64::MAX,
            bytes: 0,
            is_full: false,
            is_closed: false,
            effects: Vec::new(),
        }
    }
}

impl<W: Clone> Groups<W> {
    /// Takes in a record of the log, at start, in its order; of an open transaction if `transaction`, the producer's
    /// id and the log's partition, says so.
    pub fn replay(
        &mut self,
        record: Record,
        recorded_at: i64,
        transaction: Option<(i64, i32)>,
        env: &Env<'_>,
    ) {
        let id = match self.slots.get_key_value(record.group()) {
            Some((id, _)) => id.clone(),
            None => Arc::from(record.group()),
        };
        let slot = self.slots.entry(id.clone());
        let slot = slot.or_insert_with(|| Slot::new(&id, env));
        slot.is_weighed = false;
        match &record {
            Record::Offset(..) => self.apply(&id, &[record], recorded_at, transaction),
            _ => slot.group.replay(&record, env),
        }
    }

    /// All records were replayed: sessions begin, and what is not there any more is forgotten.
    pub fn loaded(&mut self, env: &Env<'_>) {
        let interval_ms = env.config.offsets_retention_check_interval_ms;
        self.next_expiry_ms = env.now_ms.saturating_add(interval_ms);
        let ids: Vec<Arc<str>> = self.slots.keys().cloned().collect();
        for id in ids {
            if let Some(slot) = self.slots.get_mut(&id) {
                slot.group.loaded(env);
            }
            self.settle(&id);
        }
    }

    /// The log could not be read: nobody is answered until a start that can. That nothing is committed would send
    /// consumers back to the earliest record.
    pub fn close(&mut self) {
        self.is_closed = true;
    }

    /// Whether requests are taken up.
    pub fn is_open(&self) -> bool {
        !self.is_closed
    }

    /// Takes up a request; what follows is in [`Groups::take_effects`].
    pub fn ask(&mut self, request: Request, asker: Asker<W>, env: &Env<'_>) {
        if self.is_closed {
            let refusal = request.refusal(ErrorCode::CoordinatorNotAvailable);
            return self.answer(asker.waiter, refusal);
        }
        let (id, job) = match request {
            Request::Member(ask) => (ask.group().to_owned(), Job::Step(Event::Asked(ask, asker))),
            Request::Commit(request, transaction) => (
                request.group_id.clone(),
                Job::Commit(request, transaction, asker),
            ),
            Request::DeleteOffsets(request) => (
                request.group_id.clone(),
                Job::DeleteOffsets(request, asker.waiter),
            ),
            Request::Delete(id) => (id, Job::Delete(asker.waiter)),
            Request::Read(read) => {
                let response = self.read(&read, env);
                return self.answer(asker.waiter, response);
            }
        };
        self.push(id.into(), job, env);
    }

    /// The log of groups was deleted, and all groups with it; whoever waits for one of them is told to look for its
    /// coordinator again.
    pub fn forget_all(&mut self) {
        let code = ErrorCode::NotCoordinator;
        let mut refused: Vec<(W, Response)> = Vec::new();
        for (_, writing) in self.writing.drain() {
            refused.extend(writing.refusal);
        }
        for (_, mut slot) in std::mem::take(&mut self.slots) {
            refused.extend(slot.waiting.drain(..).filter_map(|job| job.refusal(code)));
            let mut effects = Effects::default();
            slot.group.dismiss(code, &mut effects);
            let told = effects.told.into_iter();
            refused.extend(told.map(|(waiter, told)| (waiter, Response::Member(told))));
        }
        let refused = refused.into_iter();
        self.effects
            .extend(refused.map(|(waiter, response)| Effect::Answer(waiter, response)));
        self.due.clear();
        self.transactions.clear();
        self.bytes = 0;
        self.is_closed = false;
    }

    /// Does what the time has come for.
    pub fn tick(&mut self, env: &Env<'_>) {
        // Each once, so that a group which is due again at once holds up nothing else.
        let later = self.due.split_off(&(env.now_ms + 1, Arc::from("")));
        let due = std::mem::replace(&mut self.due, later);
        for (_, id) in due {
            if let Some(slot) = self.slots.get_mut(&id) {
                slot.due_ms = None;
            }
            self.push(id, Job::Step(Event::Due), env);
        }
        self.is_full &= self.bytes > bytes_max(env) / 10 * 9;
        if self.next_expiry_ms <= env.now_ms {
            let interval_ms = env.config.offsets_retention_check_interval_ms;
            self.next_expiry_ms = env.now_ms.saturating_add(interval_ms);
            let ids: Vec<Arc<str>> = self.slots.keys().cloned().collect();
            for id in ids {
                self.push(id, Job::Expire, env);
            }
        }
    }

    /// When [`Groups::tick`] has something to do next (CLOCK_BOOTTIME ms).
    pub fn next_due_ms(&self) -> i64 {
        let first = self.due.first().map_or(i64::MAX, |(at, _)| *at);
        first.min(self.next_expiry_ms)
    }

    /// The records of an append are synced, the first of them at an offset; or they were refused and nothing has
    /// changed.
    pub fn committed(&mut self, token: u64, result: Result<i64, ErrorCode>, env: &Env<'_>) {
        let Some(writing) = self.writing.remove(&token) else {
            return;
        };
        let Some(slot) = self.slots.get_mut(&writing.group) else {
            return;
        };
        slot.is_weighed = false;
        match writing.change {
            Change::Commit(_) => slot.commits -= 1,
            _ => slot.is_held = false,
        }
        match (result, writing.change) {
            (Ok(recorded_at), change) => {
                let mut transaction = None;
                match change {
                    Change::Step(next) => slot.group = *next,
                    Change::Purge { group: true } => slot.group = Group::new(&writing.group, env),
                    Change::Purge { group: false } | Change::Restate => {}
                    Change::Commit(of) => transaction = of.map(|of| (of.producer_id, of.partition)),
                }
                self.apply(&writing.group, &writing.records, recorded_at, transaction);
                let answers = writing.answers.into_iter();
                self.effects
                    .extend(answers.map(|(waiter, told)| Effect::Answer(waiter, told)));
            }
            (Err(code), Change::Commit(Some(_))) if is_of_a_transaction(code) => {
                if let Some((waiter, Response::Commit(told))) = writing.refusal {
                    self.answer(waiter, Response::Commit(with_code(told, code)));
                }
            }
            (Err(code), change) => {
                slot.is_lost |= matches!(change, Change::Restate);
                static UNRECORDED: Seldom = Seldom::new();
                let group = &writing.group;
                UNRECORDED.warn(format_args!("group {group}: not recorded: {code:?}"));
                slot.not_before_ms = env.now_ms + RETRY_MS;
                let refusal = writing.refusal.into_iter();
                self.effects
                    .extend(refusal.map(|(waiter, told)| Effect::Answer(waiter, told)));
            }
        }
        self.run(&writing.group, env);
    }

    /// What is to be done, in order.
    pub fn take_effects(&mut self) -> Vec<Effect<W>> {
        std::mem::take(&mut self.effects)
    }

    pub(super) fn known(&self, id: &str) -> Option<(&Group<W>, &Offsets)> {
        let slot = self.slots.get(id).filter(|slot| slot.is_known())?;
        Some((&slot.group, &slot.offsets))
    }

    pub(super) fn all_known(&self) -> impl Iterator<Item = (&Arc<str>, &Group<W>)> {
        let known = self.slots.iter().filter(|(_, slot)| slot.is_known());
        known.map(|(id, slot)| (id, &slot.group))
    }

    pub(super) fn answer(&mut self, waiter: W, response: Response) {
        self.effects.push(Effect::Answer(waiter, response));
    }

    pub(super) fn push(&mut self, id: Arc<str>, job: Job<W>, env: &Env<'_>) {
        let slot = self
            .slots
            .entry(id.clone())
            .or_insert_with(|| Slot::new(&id, env));
        slot.waiting.push_back(job);
        self.run(&id, env);
    }

    /// Takes up what waits for a group, as far as it may.
    fn run(&mut self, id: &Arc<str>, env: &Env<'_>) {
        while let Some(slot) = self.slots.get_mut(id)
            && let Some(job) = slot.waiting.pop_front()
        {
            if !slot.may_begin(&job) {
                slot.waiting.push_front(job);
                break;
            }
            match job {
                Job::Step(event) => self.step(id, event, env),
                Job::Commit(request, transaction, asker) => {
                    self.commit(id, request, transaction, asker, env);
                }
                Job::DeleteOffsets(request, waiter) => self.delete_offsets(id, request, waiter),
                Job::Delete(waiter) => self.delete(id, waiter),
                Job::Expire => self.expire(id, env),
                Job::ForgetTopics(topics) => self.forget(id, &topics),
                Job::Restate => self.restate(id),
            }
        }
        self.settle(id);
    }

    /// Gives a group its place among the timers, or drops it if it is nothing.
    pub(super) fn settle(&mut self, id: &Arc<str>) {
        let Some(slot) = self.slots.get_mut(id) else {
            return;
        };
        if let Some(at) = slot.due_ms.take() {
            self.due.remove(&(at, id.clone()));
        }
        if slot.is_idle() && !slot.is_known() {
            self.bytes -= slot.bytes;
            self.slots.remove(id);
            return;
        }
        if !std::mem::replace(&mut slot.is_weighed, true) {
            let bytes = SLOT_BYTES + id.len() + slot.group.bytes() + slot.offsets.bytes();
            self.bytes = self.bytes - slot.bytes + bytes;
            slot.bytes = bytes;
        }
        // While something is on its way the next event waits anyway.
        if !slot.is_held
            && let Some(at) = slot.group.due_ms()
        {
            let at = at.max(slot.not_before_ms);
            slot.due_ms = Some(at);
            self.due.insert((at, id.clone()));
        }
    }

    pub(super) fn write(&mut self, writing: Writing<W>, records: Vec<Record>) {
        self.last_token += 1;
        let (token, group) = (self.last_token, writing.group.clone());
        let transaction = match writing.change {
            Change::Commit(transaction) => transaction,
            _ => None,
        };
        self.writing.insert(token, writing);
        self.effects.push(Effect::Append {
            token,
            group,
            records,
            transaction,
        });
    }

    fn step(&mut self, id: &Arc<str>, event: Event<W>, env: &Env<'_>) {
        let Some(slot) = self.slots.get_mut(id) else {
            return;
        };
        let (refusal, may_grow) = match &event {
            Event::Asked(ask, asker) => {
                let grows = matches!(**ask, Ask::Join(_) | Ask::Sync(_));
                let told = |code| (asker.waiter.clone(), Response::Member(ask.refusal(code)));
                let full = told(ErrorCode::GroupMaxSizeReached);
                (
                    Some((told(ErrorCode::CoordinatorNotAvailable), full)),
                    grows,
                )
            }
            Event::Due => (None, false),
        };
        let mut next = slot.group.clone();
        let mut effects = Effects::default();
        next.step(event, env, &mut effects);
        slot.is_weighed &= effects.records.is_empty() && !may_grow;
        let (before, after) = match slot.is_weighed {
            true => (0, 0),
            false => (slot.group.bytes(), next.bytes()),
        };
        let refusal = match refusal {
            Some((_, (waiter, full)))
                if after > before && self.bytes + after - before > bytes_max(env) =>
            {
                return self.refuse_growth(waiter, full);
            }
            refusal => refusal.map(|(refusal, _)| refusal),
        };
        let answers = effects
            .told
            .into_iter()
            .map(|(waiter, told)| (waiter, Response::Member(told)));
        if effects.records.is_empty() {
            slot.group = next;
            self.effects
                .extend(answers.map(|(waiter, told)| Effect::Answer(waiter, told)));
            return;
        }
        slot.is_held = true;
        let writing = Writing {
            group: id.clone(),
            change: Change::Step(Box::new(next)),
            records: Vec::new(),
            answers: answers.collect(),
            refusal,
        };
        self.write(writing, effects.records);
    }
}

/// What all groups may count for.
pub(super) fn bytes_max(env: &Env<'_>) -> usize {
    usize::try_from(env.config.group_state_bytes_max).unwrap_or(usize::MAX)
}

#[cfg(test)]
#[path = "groups_tests.rs"]
mod tests;
