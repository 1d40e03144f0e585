//! Drives the groups: gives them the time and the topics, their records to the writer, and their answers to the
//! connections.
//!
//! Owns: every group, and the records that wait for `__consumer_offsets` to be made. Invariant: an append's token is
//! answered once: by the writer, or here when the topic cannot be made.

use super::changes::Changes;
use super::{Answer, Internal, Mailbox, Reply, Token, answer};
use crate::batch::TRANSACTIONAL;
use crate::batch::builder::Builder;
use crate::batch::check::Checked;
use crate::catalog::{OFFSETS_TOPIC, Published, State, Topic};
use crate::clock::{Clock, wall_clock_ms};
use crate::config::Config;
use crate::error::ErrorCode;
use crate::group::records::Record;
use crate::group::{self, Asker, Effect, Env, Groups, Transaction, partition_of};
use crate::storage::Partition;
use crate::txn::Mark;
use crate::wire::Uuid;
use crate::writer::{Acks, Append, Appended, Completion, Job, Queue, Refusal};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The coordinator's part of the control thread.
pub struct Coordinator {
    groups: Groups<Reply>,
    mailbox: Arc<Mailbox>,
    writer: Arc<Queue>,
    published: Arc<Published>,
    clock: Arc<Clock>,
    /// Appends that came before there was a topic for them.
    unsent: Vec<(u64, Arc<str>, Vec<Record>)>,
    /// Whether the topic is being made for them.
    is_making: bool,
}

/// What a group may look at, at this moment.
fn env<'a>(clock: &Clock, config: &'a Config, catalog: &'a State) -> Env<'a> {
    let now = clock.now();
    Env {
        now_ms: now.boot_ms,
        time_ms: now.time_ms,
        config,
        catalog,
        // Without randomness two members would have one id, so there is no going on.
        new_id: &|| Uuid::random().expect("getrandom works once the system is up"),
    }
}

impl Coordinator {
    /// With the groups that were read from the log.
    pub fn new(
        groups: Groups<Reply>,
        clock: Arc<Clock>,
        mailbox: Arc<Mailbox>,
        writer: Arc<Queue>,
        published: Arc<Published>,
    ) -> Coordinator {
        Coordinator {
            groups,
            mailbox,
            writer,
            published,
            clock,
            unsent: Vec::new(),
            is_making: false,
        }
    }

    /// Whether groups are served: their log could be read.
    pub fn is_open(&self) -> bool {
        self.groups.is_open()
    }

    /// Takes up a request.
    pub fn ask(&mut self, request: group::Request, asker: Asker<Reply>, changes: &Changes) {
        let env = env(&self.clock, changes.config(), changes.state());
        self.groups.ask(request, asker, &env);
        self.perform();
    }

    /// The writer is done with an append.
    pub fn committed(&mut self, token: u64, result: Result<Appended, Refusal>, changes: &Changes) {
        let result = result.map(|appended| appended.base_offset);
        let result = result.map_err(|refusal| refusal.code);
        let env = env(&self.clock, changes.config(), changes.state());
        self.groups.committed(token, result, &env);
        self.perform();
    }

    /// A transaction's marker in a partition of the log is synced.
    pub fn end_transaction(&mut self, mark: &Mark, changes: &Changes) {
        let env = env(&self.clock, changes.config(), changes.state());
        let (producer_id, partition) = (mark.producer_id, mark.partition.1);
        self.groups
            .end_transaction(producer_id, partition, mark.commit, &env);
        self.perform();
    }

    /// Topics were deleted, or made anew, and what is committed for them goes too.
    pub fn forget(&mut self, topics: BTreeSet<String>, changes: &Changes) {
        let env = env(&self.clock, changes.config(), changes.state());
        let log_is_gone = !env.catalog.topics.contains_key(OFFSETS_TOPIC);
        match log_is_gone && topics.contains(OFFSETS_TOPIC) {
            true => {
                // What was to be written is of groups that are gone.
                self.unsent.clear();
                self.groups.forget_all();
            }
            false => self.groups.forget_topics(topics, &env),
        }
        self.perform();
    }

    /// Records of a partition are lost: if it is one of the log, what is known of its groups is recorded once more.
    pub fn gap_found(&mut self, partition: &Partition, changes: &Changes) {
        let catalog = self.published.get();
        let topic = catalog.by_name(OFFSETS_TOPIC);
        if let Some(topic) = topic.filter(|topic| topic.id == partition.topic_id) {
            let count = topic.partitions.len();
            let env = env(&self.clock, changes.config(), changes.state());
            let concerned = |group: &str| partition_of(group, count) == partition.index;
            self.groups.restate_offsets(concerned, &env);
            self.perform();
        }
    }

    /// Does what the time has come for; says in how many ms there is more to do.
    pub fn tick(&mut self, changes: &Changes) -> u64 {
        let now = env(&self.clock, changes.config(), changes.state());
        let now_ms = now.now_ms;
        self.groups.tick(&now);
        self.perform();
        (self.groups.next_due_ms() - now_ms).max(0) as u64
    }

    /// The clock, whose time is to be saved.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Sends what waited for the topic of offsets, or refuses it if the topic could not be made.
    pub fn send_unsent(&mut self, changes: &mut Changes) {
        if self.unsent.is_empty() || !changes.is_idle() {
            return;
        }
        let topic = self.published.get().by_name(OFFSETS_TOPIC).cloned();
        if topic.is_none() && !self.is_making {
            self.is_making = true;
            return changes.make_topic(Internal::Offsets, None);
        }
        self.is_making = false;
        for (token, group, records) in std::mem::take(&mut self.unsent) {
            match &topic {
                Some(topic) => self.append(topic, token, &group, &records, None),
                None => {
                    let env = env(&self.clock, changes.config(), changes.state());
                    let refused = Err(ErrorCode::CoordinatorNotAvailable);
                    self.groups.committed(token, refused, &env);
                }
            }
        }
        self.perform();
    }

    fn perform(&mut self) {
        for effect in self.groups.take_effects() {
            match effect {
                Effect::Answer(reply, response) => answer(reply, Answer::Group(Box::new(response))),
                Effect::Append {
                    token,
                    group,
                    records,
                    transaction,
                } => match (self.published.get().by_name(OFFSETS_TOPIC), transaction) {
                    (Some(topic), _) => self.append(topic, token, &group, &records, transaction),
                    (None, None) => self.unsent.push((token, group, records)),
                    // It was part of the transaction, and is gone.
                    (None, Some(_)) => self.refuse(token),
                },
            }
        }
    }

    fn append(
        &self,
        topic: &Topic,
        token: u64,
        group: &str,
        records: &[Record],
        transaction: Option<Transaction>,
    ) {
        let partition = match transaction {
            Some(of) => topic.partition(of.partition),
            None => topic.partition(partition_of(group, topic.partitions.len())),
        };
        let Some(partition) = partition else {
            return self.refuse(token);
        };
        let job = Job::Append(Append {
            partition: partition.clone(),
            batch: batch_of(records, transaction),
            transaction: transaction.map(|of| of.serial),
            acks: Acks::All,
            completion: Completion::Control(self.mailbox.clone(), Token::Group(token)),
        });
        self.writer.submit([job]);
    }

    fn refuse(&self, token: u64) {
        let refused = Err(ErrorCode::CoordinatorNotAvailable.into());
        self.mailbox.committed(Token::Group(token), refused);
    }
}

fn batch_of(records: &[Record], transaction: Option<Transaction>) -> Checked {
    let now_ms = wall_clock_ms();
    let mut batch = Builder::new(now_ms);
    if let Some(of) = transaction {
        batch = batch
            .producer(of.producer_id, of.producer_epoch, -1)
            .attributes(TRANSACTIONAL);
    }
    for record in records {
        let (key, value) = record.encode();
        batch.add(Some(&key), value.as_deref(), &[], now_ms);
    }
    Checked::own(batch.build())
}
