//! Drives the transactions: gives them the time, their records and markers to the writer, and their answers to the
//! connections.
//!
//! Owns: every transaction, and the records that wait for `__transaction_state` to be made. Invariant: a token is
//! answered once: by the writer, or here when there is no topic for it.

use super::changes::Changes;
use super::coordinator::Coordinator;
use super::{Answer, Internal, Mailbox, Reply, Token, answer};
use crate::batch::builder::Builder;
use crate::batch::check::Checked;
use crate::batch::marker::Marker;
use crate::catalog::{OFFSETS_TOPIC, Published, TRANSACTIONS_TOPIC};
use crate::clock::{Clock, wall_clock_ms};
use crate::config::Config;
use crate::error::ErrorCode;
use crate::group::partition_of;
use crate::storage::Partition;
use crate::txn::{self, Effect, Env, Mark, Serial, Transaction, Transactions, records};
use crate::writer::{Acks, Append, Appended, Completion, Job, Queue, Refusal};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The coordinator's part of the control thread.
pub struct TransactionCoordinator {
    transactions: Transactions<Reply>,
    mailbox: Arc<Mailbox>,
    writer: Arc<Queue>,
    published: Arc<Published>,
    clock: Arc<Clock>,
    /// Records that came before there was a topic for them.
    unsent: Vec<(u64, Arc<str>, Option<Box<Transaction>>)>,
    /// Whether the topic is being made for them, or producer ids are being reserved.
    is_making: bool,
    is_reserving: bool,
}

fn env<'a>(clock: &Clock, config: &'a Config) -> Env<'a> {
    let now = clock.now();
    Env {
        now_ms: now.boot_ms,
        time_ms: now.time_ms,
        config,
    }
}

impl TransactionCoordinator {
    /// With the transactions that were read from the log.
    pub fn new(
        transactions: Transactions<Reply>,
        clock: Arc<Clock>,
        mailbox: Arc<Mailbox>,
        writer: Arc<Queue>,
        published: Arc<Published>,
    ) -> TransactionCoordinator {
        TransactionCoordinator {
            transactions,
            mailbox,
            writer,
            published,
            clock,
            unsent: Vec::new(),
            is_making: false,
            is_reserving: false,
        }
    }

    /// Whether transactions are served: their log could be read.
    pub fn is_open(&self) -> bool {
        self.transactions.is_open()
    }

    /// Takes up a request.
    pub fn ask(&mut self, request: txn::Request, reply: Reply, changes: &Changes) {
        let env = env(&self.clock, changes.config());
        self.transactions.ask(request, reply, &env);
        self.perform(changes);
    }

    /// The writer is done with a record or a marker. A group's offsets count from that moment on.
    pub fn committed(
        &mut self,
        token: u64,
        result: Result<Appended, Refusal>,
        groups: &mut Coordinator,
        changes: &Changes,
    ) {
        if let Some(mark) = self.transactions.mark_of(token)
            && &*mark.partition.0 == OFFSETS_TOPIC
            && result.is_ok()
        {
            groups.end_transaction(mark, changes);
        }
        let result = result.map(drop).map_err(|refusal| refusal.code);
        let env = env(&self.clock, changes.config());
        self.transactions.committed(token, result, &env);
        self.perform(changes);
    }

    /// Topics were deleted, or made anew.
    pub fn forget(&mut self, topics: &BTreeSet<String>, changes: &Changes) {
        let env = env(&self.clock, changes.config());
        let log_is_gone = !changes.state().topics.contains_key(TRANSACTIONS_TOPIC);
        if log_is_gone && topics.contains(TRANSACTIONS_TOPIC) {
            // What was to be written is of transactions that are gone.
            self.unsent.clear();
            self.transactions.forget_all();
        }
        self.transactions.forget_topics(topics, &env);
        self.perform(changes);
    }

    /// Records of a partition are lost: if it is one of the log, what is known of its ids is recorded once more.
    pub fn gap_found(&mut self, partition: &Partition, changes: &Changes) {
        let catalog = self.published.get();
        let topic = catalog.by_name(TRANSACTIONS_TOPIC);
        if let Some(topic) = topic.filter(|topic| topic.id == partition.topic_id) {
            let count = topic.partitions.len();
            let env = env(&self.clock, changes.config());
            let concerned = |id: &str| partition_of(id, count) == partition.index;
            self.transactions.restate(concerned, &env);
            self.perform(changes);
        }
    }

    /// Does what the time has come for; says in how many ms there is more to do.
    pub fn tick(&mut self, changes: &Changes) -> u64 {
        let env = env(&self.clock, changes.config());
        self.transactions.tick(&env);
        self.perform(changes);
        self.transactions
            .next_due_ms()
            .saturating_sub(env.now_ms)
            .max(0) as u64
    }

    /// Gets what transactions wait for of the catalog: their topic, and producer ids. What cannot be had is refused.
    pub fn supply(&mut self, changes: &mut Changes) {
        while self.transactions.is_starved()
            && let Some(id) = changes.next_producer_id()
        {
            self.is_reserving = false;
            self.give(Ok(id), changes);
        }
        if self.transactions.is_starved() && changes.is_idle() {
            match std::mem::replace(&mut self.is_reserving, true) {
                false => changes.reserve_producer_ids(),
                true => {
                    self.is_reserving = false;
                    while self.transactions.is_starved() {
                        self.give(Err(ErrorCode::CoordinatorNotAvailable), changes);
                    }
                }
            }
        }
        if self.unsent.is_empty() || !changes.is_idle() {
            return;
        }
        let is_there = self.published.get().by_name(TRANSACTIONS_TOPIC).is_some();
        if !is_there && !self.is_making {
            self.is_making = true;
            return changes.make_topic(Internal::Transactions, None);
        }
        self.is_making = false;
        for (token, id, transaction) in std::mem::take(&mut self.unsent) {
            match is_there {
                true => self.append(token, id, transaction),
                false => {
                    let env = env(&self.clock, changes.config());
                    let refused = Err(ErrorCode::CoordinatorNotAvailable);
                    self.transactions.committed(token, refused, &env);
                }
            }
        }
        self.perform(changes);
    }

    fn give(&mut self, id: Result<i64, ErrorCode>, changes: &Changes) {
        let env = env(&self.clock, changes.config());
        self.transactions.supply(id, &env);
        self.perform(changes);
    }

    fn perform(&mut self, changes: &Changes) {
        loop {
            let effects = self.transactions.take_effects();
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                match effect {
                    Effect::Answer(reply, response) => {
                        answer(reply, Answer::Transaction(Box::new(response)));
                    }
                    Effect::Append {
                        token,
                        id,
                        transaction,
                    } => self.append(token, id, transaction),
                    Effect::Mark(token, mark) => {
                        if !self.mark(token, &mark) {
                            let env = env(&self.clock, changes.config());
                            let gone = Err(ErrorCode::UnknownTopicOrPartition);
                            self.transactions.committed(token, gone, &env);
                        }
                    }
                }
            }
        }
    }

    fn append(&mut self, token: u64, id: Arc<str>, transaction: Option<Box<Transaction>>) {
        let catalog = self.published.get();
        let Some(topic) = catalog.by_name(TRANSACTIONS_TOPIC) else {
            return self.unsent.push((token, id, transaction));
        };
        let (key, value) = records::encode(&id, transaction.as_deref());
        let now_ms = wall_clock_ms();
        let batch = Builder::new(now_ms)
            .add(Some(&key), value.as_deref(), &[], now_ms)
            .build();
        let index = partition_of(&id, topic.partitions.len());
        self.submit(topic.partitions[index as usize].clone(), batch, None, token);
    }

    /// Sends a marker, if there is anything that it can be sent to.
    fn mark(&self, token: u64, mark: &Mark) -> bool {
        let catalog = self.published.get();
        let (name, index) = &mark.partition;
        let topic = catalog.by_name(name);
        let Some(partition) = topic.and_then(|topic| topic.partition(*index)) else {
            return false;
        };
        let log = catalog.by_name(TRANSACTIONS_TOPIC);
        let own_epoch = || log.map_or(0, |log| log.partitions[0].snapshot().leader_epoch);
        let marker = Marker {
            commit: mark.commit,
            coordinator_epoch: mark.coordinator_epoch.unwrap_or_else(own_epoch),
        };
        let batch = marker.batch(mark.producer_id, mark.epoch, wall_clock_ms());
        self.submit(partition.clone(), batch, Some(mark.serial), token);
        true
    }

    fn submit(
        &self,
        partition: Arc<Partition>,
        batch: Vec<u8>,
        transaction: Option<Serial>,
        token: u64,
    ) {
        self.writer.submit([Job::Append(Append {
            partition,
            batch: Checked::own(batch),
            transaction,
            acks: Acks::All,
            completion: Completion::Control(self.mailbox.clone(), Token::Transaction(token)),
        })]);
    }
}
