//! All transactions: each with the events that wait for it, and what is on its way.
//!
//! Pure, like the machines in it: what is asked goes in with the time it is, and [`Effect`]s come out. Invariants:
//! 1. An id's events are taken up in their order; one whose record is on its way holds up the next.
//! 2. What comes while an end is under way waits for it, but not for long: then it is told CONCURRENT_TRANSACTIONS.
//! 3. Who asked is answered exactly once.
//! 4. What is published as open is in a synced record, and is taken back before the first marker is on its way.

use super::marks::{Marks, Owner};
use super::{Env, LogOpen, Mark, Open, Request, Response, State, TopicPartition, Transaction};
use crate::error::ErrorCode;
use crate::seldom::Seldom;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// How long a request waits for an end that is under way. Clients back off for so long anyway, or for longer.
pub const WAIT_MS: i64 = 5_000;

/// What one transaction may take in memory, and so its record in the log.
pub(super) const TRANSACTION_BYTES_MAX: usize = 1 << 20;

/// After a refusal, which a full disk gives at once, the broker's own steps rest for so long.
const RETRY_MS: i64 = 1_000;

/// What is to be done.
#[derive(Debug)]
pub enum Effect<W> {
    /// Commit what is now known of an id, or that nothing is; then call [`Transactions::committed`] with the token.
    Append {
        /// Names the append.
        token: u64,
        /// The `transactional.id`.
        id: Arc<str>,
        /// Its new state; `None` forgets it.
        transaction: Option<Box<Transaction>>,
    },
    /// Write a marker, and call [`Transactions::committed`] with the token.
    Mark(u64, Mark),
    /// Give an answer.
    Answer(W, Response),
}

/// Something that an id is to take up.
pub(super) enum Job<W> {
    /// A request, and until when it may wait.
    Ask(Request, W, i64),
    /// It lasts too long.
    TimeOut,
    /// Every marker is written.
    Complete,
    /// Nobody has used it for long.
    Expire,
    /// Its record is lost.
    Restate,
}

/// A step whose record is on its way.
pub(super) struct Writing<W> {
    pub id: Arc<str>,
    pub next: Option<Box<Transaction>>,
    /// The answer, if it comes true.
    pub answer: Option<(W, Response)>,
    /// What led to it: to be refused, or to be taken up again.
    pub job: Job<W>,
}

/// One id.
pub(super) struct Slot<W> {
    /// `None`: nothing is known of it.
    pub transaction: Option<Transaction>,
    pub waiting: VecDeque<Job<W>>,
    /// What waits for the end that is under way.
    pub parked: VecDeque<Job<W>>,
    /// Whether a record is on its way, or a new producer id.
    pub is_held: bool,
    /// How many markers are not written yet.
    pub marks: usize,
    /// Before this its own steps are not tried again (CLOCK_BOOTTIME ms).
    pub not_before_ms: i64,
    pub bytes: usize,
}

impl<W> Default for Slot<W> {
    fn default() -> Slot<W> {
        Slot {
            transaction: None,
            waiting: VecDeque::new(),
            parked: VecDeque::new(),
            is_held: false,
            marks: 0,
            not_before_ms: i64::MIN,
            bytes: 0,
        }
    }
}

/// What a request for markers has come to.
pub(super) struct Marked<W> {
    pub waiter: W,
    pub codes: Vec<ErrorCode>,
    pub left: usize,
}

/// All transactions of the broker.
pub struct Transactions<W> {
    pub(super) slots: BTreeMap<Arc<str>, Slot<W>>,
    pub(super) writing: HashMap<u64, Writing<W>>,
    pub(super) marks: Marks,
    pub(super) marked: HashMap<u64, Marked<W>>,
    pub(super) last_token: u64,
    pub(super) last_serial: u64,
    /// Ids whose next step needs a producer id, and one that is at hand.
    pub(super) starved: VecDeque<Arc<str>>,
    pub(super) spare_id: Option<i64>,
    /// Until when parked requests wait, and for which id.
    pub(super) parked: BTreeSet<(i64, Arc<str>)>,
    /// Steps of the broker's own that are to be tried once more after a refusal, of which id, and when.
    retries: VecDeque<(i64, Arc<str>, Job<W>)>,
    next_abort_ms: i64,
    next_expiry_ms: i64,
    /// While the log is read: how each producer's last transaction in it ended, and at which epoch that was.
    outcomes: HashMap<i64, (i16, bool)>,
    /// What all count for in memory (P7).
    pub(super) bytes: usize,
    is_closed: bool,
    pub(super) open: Arc<Open>,
    pub(super) effects: Vec<Effect<W>>,
}

impl<W> Default for Transactions<W> {
    fn default() -> Transactions<W> {
        Transactions {
            slots: BTreeMap::new(),
            writing: HashMap::new(),
            marks: Marks::default(),
            marked: HashMap::new(),
            last_token: 0,
            last_serial: 0,
            starved: VecDeque::new(),
            spare_id: None,
            parked: BTreeSet::new(),
            retries: VecDeque::new(),
            next_abort_ms: i64::MAX,
            next_expiry_ms: i64::MAX,
            outcomes: HashMap::new(),
            bytes: 0,
            is_closed: false,
            open: Arc::default(),
            effects: Vec::new(),
        }
    }
}

impl<W: Clone> Transactions<W> {
    /// Takes in what a record of the log says of an id, at start, in the log's order.
    pub fn replay(&mut self, id: String, transaction: Option<Transaction>) {
        if let Some((producer_id, epoch, commit)) =
            transaction.as_ref().and_then(Transaction::outcome)
        {
            self.outcomes.insert(producer_id, (epoch, commit));
        }
        let slot = self.slots.entry(id.into()).or_default();
        slot.transaction = transaction;
    }

    /// All records were replayed. Open transactions have their whole time before them again: how long the broker was
    /// down is not known. Ends that were decided are carried out, and what a log
    /// holds open that no transaction knows is ended. `log_epochs` has the newest epoch of each producer in any log.
    pub fn loaded(
        &mut self,
        log_open: Vec<LogOpen>,
        log_epochs: &HashMap<i64, i16>,
        env: &Env<'_>,
    ) {
        if self.is_closed {
            return;
        }
        self.slots.retain(|_, slot| slot.transaction.is_some());
        self.next_abort_ms = env.now_ms + i64::from(env.config.transaction_abort_interval_ms);
        self.next_expiry_ms = env.now_ms + i64::from(env.config.transaction_expiry_interval_ms);
        for (id, slot) in &mut self.slots {
            if let Some(known) = &mut slot.transaction
                && let Some(epoch) = log_epochs.get(&known.producer_id)
                && *epoch > known.epoch
            {
                log::error!(
                    "transactional id {id}: its newest record is lost; epoch {epoch} is in the logs"
                );
                *known = known.overtaken(*epoch);
            }
        }
        self.end_strays(log_open);
        let ids: Vec<Arc<str>> = self.slots.keys().cloned().collect();
        for id in ids {
            let serial = self.new_serial();
            let slot = self.slots.get_mut(&id);
            if let Some(known) = slot.and_then(|slot| slot.transaction.as_mut())
                && (known.state == State::Ongoing || known.state.ending().is_some())
            {
                known.due_ms = env.now_ms.saturating_add(known.timeout_ms.into());
                known.serial = Some(serial);
            }
            self.entered(&id);
            self.run(&id, env);
        }
    }

    /// Ends what logs hold open of no transaction that is open, before the markers of those that are.
    fn end_strays(&mut self, log_open: Vec<LogOpen>) {
        let outcomes = std::mem::take(&mut self.outcomes);
        let known = self.slots.values().filter_map(|s| s.transaction.as_ref());
        let by_producer: HashMap<i64, &Transaction> =
            known.map(|known| (known.producer_id, known)).collect();
        let mut strays = Vec::new();
        for (partition, producer_id, epoch) in log_open {
            let known = by_producer.get(&producer_id);
            if known.is_some_and(|known| known.holds(&partition, producer_id, epoch)) {
                continue;
            }
            let commit = outcomes.get(&producer_id) == Some(&(epoch, true));
            let (topic, index) = &partition;
            log::warn!(
                "{topic}-{index}: producer {producer_id} has left a transaction open; commit: {commit}"
            );
            strays.push((partition, producer_id, epoch, commit));
        }
        for (partition, producer_id, epoch, commit) in strays {
            let mark = Mark {
                partition,
                producer_id,
                epoch,
                commit,
                serial: self.new_serial(),
                coordinator_epoch: None,
            };
            self.mark(mark, Owner::Nobody);
        }
    }

    /// The log could not be read: nobody is answered until a start that can.
    pub fn close(&mut self) {
        self.is_closed = true;
    }

    /// Whether requests are taken up.
    pub fn is_open(&self) -> bool {
        !self.is_closed
    }

    /// What is published of them.
    pub fn published(&self) -> &Arc<Open> {
        &self.open
    }

    /// Takes up a request; what follows is in [`Transactions::take_effects`].
    pub fn ask(&mut self, request: Request, waiter: W, env: &Env<'_>) {
        if self.is_closed {
            let refusal = request.refusal(ErrorCode::CoordinatorNotAvailable);
            return self.answer(waiter, refusal);
        }
        if let Some(id) = request.transactional_id() {
            if id.is_empty() {
                let refusal = request.refusal(ErrorCode::InvalidRequest);
                return self.answer(waiter, refusal);
            }
            let id = id.into();
            let until_ms = env.now_ms + WAIT_MS;
            return self.push(id, Job::Ask(request, waiter, until_ms), env);
        }
        let response = match request {
            Request::Mark {
                producer_id,
                epoch,
                commit,
                coordinator_epoch,
                partitions,
            } => {
                let serial = self.new_serial();
                let mark = |partition| Mark {
                    partition,
                    producer_id,
                    epoch,
                    commit,
                    serial,
                    coordinator_epoch: Some(coordinator_epoch),
                };
                return self.mark_for(waiter, partitions.into_iter().map(mark).collect());
            }
            Request::Describe(ids) => Response::Described(self.describe(ids)),
            Request::List(request) => Response::Listed(self.list(&request, env)),
            other => other.refusal(ErrorCode::InvalidRequest),
        };
        self.answer(waiter, response);
    }

    /// An append is synced, a record's or a marker's, or it was refused and nothing has changed.
    pub fn committed(&mut self, token: u64, result: Result<(), ErrorCode>, env: &Env<'_>) {
        let Some(writing) = self.writing.remove(&token) else {
            let settled = self.marks.settle(token, result, env.now_ms);
            return self.counted_off(settled, result, env);
        };
        let id = writing.id;
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        slot.is_held = false;
        match result {
            Ok(()) => {
                slot.transaction = writing.next.map(|next| *next);
                let is_new = !matches!(writing.job, Job::Restate);
                match writing.answer {
                    Some((waiter, response)) => self.answer(waiter, response),
                    None if matches!(writing.job, Job::Ask(..)) => {
                        self.park(&id, writing.job);
                    }
                    None => {}
                }
                if is_new {
                    self.entered(&id);
                }
            }
            Err(code) => {
                static UNRECORDED: Seldom = Seldom::new();
                UNRECORDED.warn(format_args!(
                    "transactional id {id}: not recorded: {code:?}"
                ));
                slot.not_before_ms = env.now_ms + RETRY_MS;
                match writing.job {
                    job @ (Job::Complete | Job::Restate) => {
                        let retry = (slot.not_before_ms, id.clone(), job);
                        self.retries.push_back(retry);
                    }
                    job => self.refuse(job, ErrorCode::CoordinatorNotAvailable),
                }
            }
        }
        self.run(&id, env);
    }

    /// Does what the time has come for.
    pub fn tick(&mut self, env: &Env<'_>) {
        while let Some((at, _)) = self.parked.first()
            && *at <= env.now_ms
            && let Some((_, id)) = self.parked.pop_first()
        {
            self.give_up(&id, env.now_ms);
        }
        while let Some((at, ..)) = self.retries.front()
            && *at <= env.now_ms
            && let Some((_, id, job)) = self.retries.pop_front()
        {
            self.push(id, job, env);
        }
        if self.marks.retry_ms().is_some_and(|at| at <= env.now_ms) {
            for (mark, owner) in self.marks.take_refused() {
                self.mark(mark, owner);
            }
        }
        if self.next_abort_ms <= env.now_ms {
            self.next_abort_ms = env.now_ms + i64::from(env.config.transaction_abort_interval_ms);
            self.push_where(env, |slot| match &slot.transaction {
                Some(known) if known.state == State::Ongoing && known.due_ms < env.now_ms => {
                    Some(Job::TimeOut)
                }
                _ => None,
            });
        }
        if self.next_expiry_ms <= env.now_ms {
            self.next_expiry_ms = env.now_ms + i64::from(env.config.transaction_expiry_interval_ms);
            self.push_where(env, |slot| {
                let known = slot.transaction.as_ref()?;
                known.has_expired(env).then_some(Job::Expire)
            });
        }
    }

    /// When [`Transactions::tick`] has something to do next (CLOCK_BOOTTIME ms).
    pub fn next_due_ms(&self) -> i64 {
        let parked = self.parked.first().map_or(i64::MAX, |(at, _)| *at);
        let retries = self.retries.front().map_or(i64::MAX, |(at, ..)| *at);
        let retry = self.marks.retry_ms().unwrap_or(i64::MAX);
        let sweeps = match self.slots.is_empty() {
            true => i64::MAX,
            false => self.next_abort_ms.min(self.next_expiry_ms),
        };
        parked.min(retries).min(retry).min(sweeps)
    }

    /// Whether a new producer id is needed.
    pub fn is_starved(&self) -> bool {
        !self.starved.is_empty()
    }

    /// A new producer id, or why there is none.
    pub fn supply(&mut self, new: Result<i64, ErrorCode>, env: &Env<'_>) {
        let Some(id) = self.starved.pop_front() else {
            return;
        };
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        slot.is_held = false;
        match new {
            Ok(new) => self.spare_id = Some(new),
            Err(_) => {
                slot.not_before_ms = env.now_ms + RETRY_MS;
                if let Some(job) = slot.waiting.pop_front() {
                    self.refuse(job, ErrorCode::CoordinatorNotAvailable);
                }
            }
        }
        self.run(&id, env);
    }

    /// The log has lost records of these ids: what is known is recorded once more; also an end that is under way, whose
    /// markers may take long.
    pub fn restate(&mut self, concerned: impl Fn(&str) -> bool, env: &Env<'_>) {
        let ids = self.slots.keys().filter(|id| concerned(id)).cloned();
        for id in ids.collect::<Vec<_>>() {
            self.push(id, Job::Restate, env);
        }
    }

    /// Topics were deleted, or made anew: nothing of them is part of a transaction any more.
    pub fn forget_topics(&mut self, topics: &BTreeSet<String>, env: &Env<'_>) {
        self.open.forget_topics(topics);
        let is_kept = |partition: &TopicPartition| !topics.contains(&*partition.0);
        for slot in self.slots.values_mut() {
            if let Some(transaction) = &mut slot.transaction {
                transaction.partitions.retain(is_kept);
            }
        }
        for writing in self.writing.values_mut() {
            if let Some(next) = &mut writing.next {
                next.partitions.retain(is_kept);
            }
        }
        for owner in self.marks.forget_topics(topics) {
            self.counted_off(Some(owner), Ok(()), env);
        }
    }

    /// The log of transactions was deleted, and all ids with it. What is open is aborted, so that nobody waits for its
    /// end for ever; what was decided is carried out.
    pub fn forget_all(&mut self) {
        let code = ErrorCode::NotCoordinator;
        for (_, writing) in std::mem::take(&mut self.writing) {
            self.refuse(writing.job, code);
        }
        self.marks.disown();
        for (_, slot) in std::mem::take(&mut self.slots) {
            for job in slot.waiting.into_iter().chain(slot.parked) {
                self.refuse(job, code);
            }
            if let Some(known) = slot.transaction
                && known.state == State::Ongoing
            {
                self.open.remove(known.producer_id);
                for mark in known.marks(false) {
                    self.mark(mark, Owner::Nobody);
                }
            }
        }
        self.starved.clear();
        self.parked.clear();
        self.retries.clear();
        self.bytes = 0;
        self.is_closed = false;
    }

    /// What is to be done, in order.
    pub fn take_effects(&mut self) -> Vec<Effect<W>> {
        std::mem::take(&mut self.effects)
    }

    /// The marker that is known by `token`.
    pub fn mark_of(&self, token: u64) -> Option<&Mark> {
        self.marks.get(token)
    }

    /// What is known of an id.
    pub fn get(&self, id: &str) -> Option<&Transaction> {
        self.slots.get(id)?.transaction.as_ref()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&Arc<str>, &Transaction)> {
        let slots = self.slots.iter();
        slots.filter_map(|(id, slot)| Some((id, slot.transaction.as_ref()?)))
    }
}
