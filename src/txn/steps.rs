//! How an id takes up what waits for it.

use super::marks::Owner;
use super::transactions::{
    Effect, Job, Marked, Slot, TRANSACTION_BYTES_MAX, Transactions, Writing,
};
use super::{Env, Mark, Request, Response, Serial, State, Transaction, Verdict};
use crate::error::ErrorCode;
use crate::seldom::Seldom;
use std::collections::VecDeque;
use std::sync::Arc;

impl<W: Clone> Transactions<W> {
    pub(super) fn answer(&mut self, waiter: W, response: Response) {
        self.effects.push(Effect::Answer(waiter, response));
    }

    /// A job is not done.
    pub(super) fn refuse(&mut self, job: Job<W>, code: ErrorCode) {
        if let Job::Ask(request, waiter, _) = job {
            self.answer(waiter, request.refusal(code));
        }
    }

    pub(super) fn new_serial(&mut self) -> Serial {
        self.last_serial += 1;
        Serial(self.last_serial)
    }

    fn new_token(&mut self) -> u64 {
        self.last_token += 1;
        self.last_token
    }

    pub(super) fn mark(&mut self, mark: Mark, owner: Owner) {
        let token = self.new_token();
        self.marks.sent(token, mark.clone(), owner);
        self.effects.push(Effect::Mark(token, mark));
    }

    /// Markers that somebody asked for.
    pub(super) fn mark_for(&mut self, waiter: W, marks: Vec<Mark>) {
        if marks.is_empty() {
            return self.answer(waiter, Response::Marked(Vec::new()));
        }
        let number = self.new_token();
        let marked = Marked {
            waiter,
            codes: vec![ErrorCode::None; marks.len()],
            left: marks.len(),
        };
        self.marked.insert(number, marked);
        for (place, mark) in marks.into_iter().enumerate() {
            self.mark(mark, Owner::Request(number, place));
        }
    }

    /// A marker is done with.
    pub(super) fn counted_off(
        &mut self,
        owner: Option<Owner>,
        result: Result<(), ErrorCode>,
        env: &Env<'_>,
    ) {
        match owner {
            Some(Owner::Transaction(id)) => {
                let Some(slot) = self.slots.get_mut(&id) else {
                    return;
                };
                slot.marks -= 1;
                if slot.marks == 0 {
                    self.push(id, Job::Complete, env);
                }
            }
            Some(Owner::Request(number, place)) => {
                let Some(marked) = self.marked.get_mut(&number) else {
                    return;
                };
                marked.codes[place] = result.err().unwrap_or(ErrorCode::None);
                marked.left -= 1;
                if marked.left == 0
                    && let Some(marked) = self.marked.remove(&number)
                {
                    self.answer(marked.waiter, Response::Marked(marked.codes));
                }
            }
            Some(Owner::Nobody) | None => {}
        }
    }

    pub(super) fn push(&mut self, id: Arc<str>, job: Job<W>, env: &Env<'_>) {
        let slot = self.slots.entry(id.clone()).or_default();
        slot.waiting.push_back(job);
        self.run(&id, env);
    }

    /// Gives a step of the broker's own to every id at rest that wants one.
    pub(super) fn push_where(&mut self, env: &Env<'_>, wants: impl Fn(&Slot<W>) -> Option<Job<W>>) {
        let at_rest = |slot: &&Slot<W>| !slot.is_held && slot.not_before_ms <= env.now_ms;
        let wanting = self.slots.iter().filter_map(|(id, slot)| {
            let job = Some(slot).filter(at_rest).and_then(&wants)?;
            Some((id.clone(), job))
        });
        for (id, job) in wanting.collect::<Vec<_>>() {
            self.push(id, job, env);
        }
    }

    /// A job waits for the end that is under way.
    pub(super) fn park(&mut self, id: &Arc<str>, job: Job<W>) {
        if let (Job::Ask(_, _, until_ms), Some(slot)) = (&job, self.slots.get_mut(id)) {
            self.parked.insert((*until_ms, id.clone()));
            slot.parked.push_back(job);
        }
    }

    /// Whoever has waited for long enough is told so.
    pub(super) fn give_up(&mut self, id: &Arc<str>, now_ms: i64) {
        let Some(slot) = self.slots.get_mut(id) else {
            return;
        };
        let is_over = |job: &Job<W>| matches!(job, Job::Ask(_, _, until) if *until <= now_ms);
        let parked = std::mem::take(&mut slot.parked).into_iter();
        let (over, left) = parked.partition::<VecDeque<_>, _>(is_over);
        slot.parked = left;
        for job in over {
            self.refuse(job, ErrorCode::ConcurrentTransactions);
        }
        self.settle(id);
    }

    /// Takes up what waits for an id, as far as it may.
    pub(super) fn run(&mut self, id: &Arc<str>, env: &Env<'_>) {
        while let Some(slot) = self.slots.get_mut(id)
            && !slot.is_held
            && let Some(job) = slot.waiting.pop_front()
        {
            match job {
                Job::Ask(request, waiter, until_ms) => {
                    self.take_up(id, request, waiter, until_ms, env)
                }
                job => self.take_step(id, job, env),
            }
        }
        self.settle(id);
    }

    /// Weighs an id, or drops it if nothing is known of it.
    pub(super) fn settle(&mut self, id: &Arc<str>) {
        let Some(slot) = self.slots.get_mut(id) else {
            return;
        };
        let bytes = match &slot.transaction {
            Some(transaction) => transaction.bytes() + 2 * id.len(),
            None => 0,
        };
        self.bytes = self.bytes - slot.bytes + bytes;
        slot.bytes = bytes;
        let is_idle = !slot.is_held && slot.waiting.is_empty() && slot.parked.is_empty();
        if is_idle && slot.transaction.is_none() {
            self.slots.remove(id);
        }
    }

    fn take_up(
        &mut self,
        id: &Arc<str>,
        request: Request,
        waiter: W,
        until_ms: i64,
        env: &Env<'_>,
    ) {
        let serial = Serial(self.last_serial + 1);
        let Some(slot) = self.slots.get_mut(id) else {
            return;
        };
        let (known, spare_id) = (slot.transaction.as_ref(), &mut self.spare_id);
        let unknown = || Verdict::Told(request.refusal(ErrorCode::InvalidProducerIdMapping));
        let verdict = match (&request, known) {
            (
                Request::Init {
                    timeout_ms,
                    expected,
                    ..
                },
                known,
            ) => Transaction::init(known, *timeout_ms, *expected, env, spare_id),
            (_, None) => unknown(),
            (
                Request::Enlist {
                    producer,
                    partitions,
                    bumps,
                },
                Some(known),
            ) => known.enlist(producer, partitions, *bumps, serial, env),
            (
                Request::Verify {
                    producer,
                    partitions,
                },
                Some(known),
            ) => Verdict::Told(known.verify(producer, partitions)),
            (
                Request::End {
                    producer,
                    commit,
                    bumps,
                },
                Some(known),
            ) => known.end(producer, *commit, *bumps, env, spare_id),
            _ => unknown(),
        };
        let job = Job::Ask(request, waiter.clone(), until_ms);
        match verdict {
            Verdict::Told(response) => self.answer(waiter, response),
            Verdict::Becomes(next, response) => match self.growth_refused(id, &next, env) {
                Some(code) => self.refuse(job, code),
                None => {
                    self.last_serial = self.last_serial.max(next.serial.map_or(0, |s| s.0));
                    self.write(id, Some(next), Some((waiter, response)), job);
                }
            },
            Verdict::First(next) => self.write(id, Some(next), None, job),
            Verdict::Later if until_ms <= env.now_ms => {
                self.refuse(job, ErrorCode::ConcurrentTransactions);
            }
            Verdict::Later => self.park(id, job),
            Verdict::Starved => self.starve(id, job),
        }
    }

    /// A step of the broker's own, if there is still a reason for it.
    fn take_step(&mut self, id: &Arc<str>, job: Job<W>, env: &Env<'_>) {
        let known = self.slots.get(id).and_then(|slot| slot.transaction.clone());
        let Some(known) = known else {
            return;
        };
        match (&job, known.state.ending()) {
            (Job::Complete, Some(commit)) => {
                let next = known.completed(commit, env);
                self.write(id, Some(next), None, job);
            }
            (Job::TimeOut, _) if known.state == State::Ongoing && known.due_ms < env.now_ms => {
                log::info!("transactional id {id}: its transaction lasts too long and is aborted");
                match known.fenced(env, &mut self.spare_id) {
                    Some(next) => self.write(id, Some(next), None, job),
                    None => self.starve(id, job),
                }
            }
            (Job::Restate, _) => self.write(id, Some(known), None, job),
            (Job::Expire, _) if known.has_expired(env) => self.write(id, None, None, job),
            _ => {}
        }
    }

    fn starve(&mut self, id: &Arc<str>, job: Job<W>) {
        if let Some(slot) = self.slots.get_mut(id) {
            slot.is_held = true;
            slot.waiting.push_front(job);
            self.starved.push_back(id.clone());
        }
    }

    fn write(
        &mut self,
        id: &Arc<str>,
        next: Option<Transaction>,
        answer: Option<(W, Response)>,
        job: Job<W>,
    ) {
        let token = self.new_token();
        if let Some(slot) = self.slots.get_mut(id) {
            slot.is_held = true;
        }
        let next = next.map(Box::new);
        self.effects.push(Effect::Append {
            token,
            id: id.clone(),
            transaction: next.clone(),
        });
        let id = id.clone();
        let writing = Writing {
            id,
            next,
            answer,
            job,
        };
        self.writing.insert(token, writing);
    }

    /// Why a step is not taken: there is no memory for it.
    fn growth_refused(&self, id: &str, next: &Transaction, env: &Env<'_>) -> Option<ErrorCode> {
        let before = self.slots.get(id).map_or(0, |slot| slot.bytes);
        let after = next.bytes() + 2 * id.len();
        let bytes_max = usize::try_from(env.config.transaction_state_bytes_max);
        let is_full = self.bytes + after.saturating_sub(before) > bytes_max.unwrap_or(usize::MAX);
        if after <= before || !is_full && next.bytes() <= TRANSACTION_BYTES_MAX {
            return None;
        }
        static REFUSED: Seldom = Seldom::new();
        REFUSED.warn(format_args!(
            "transactional id {id}: refused to grow to {after} bytes, of {} for all (transaction.state.bytes.max)",
            self.bytes
        ));
        Some(match next.state {
            State::Ongoing => ErrorCode::TransactionAbortable,
            _ => ErrorCode::PolicyViolation,
        })
    }

    /// A synced record has made an id what it is now: what follows for others.
    pub(super) fn entered(&mut self, id: &Arc<str>) {
        let Some(slot) = self.slots.get_mut(id) else {
            return;
        };
        let Some(known) = slot.transaction.clone() else {
            return;
        };
        if known.state == State::Ongoing {
            if let Some(serial) = known.serial {
                let partitions = known.partitions.iter().cloned();
                self.open
                    .add(known.producer_id, known.epoch, serial, partitions);
            }
        } else if let Some(commit) = known.state.ending() {
            self.open.remove(known.producer_id);
            let marks = known.marks(commit);
            slot.marks = marks.len();
            if marks.is_empty() {
                slot.waiting.push_front(Job::Complete);
            }
            for mark in marks {
                self.mark(mark, Owner::Transaction(id.clone()));
            }
        } else {
            // Whoever waited for this goes first.
            while let Some(job) = slot.parked.pop_back() {
                slot.waiting.push_front(job);
            }
        }
    }
}
