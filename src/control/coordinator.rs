//! Drives the groups: gives them the time and the topics, their records to the writer, and their answers to the
//! connections.
//!
//! Owns: every group, and the records that wait for `__consumer_offsets` to be made. Invariant: an append's token is
//! answered once: by the writer, or here when the topic cannot be made.

use super::changes::Changes;
use super::{Answer, Mailbox, Reply, Token, answer};
use crate::batch::builder::Builder;
use crate::batch::check::Checked;
use crate::catalog::{OFFSETS_TOPIC, Published, State, Topic};
use crate::clock::{Clock, wall_clock_ms};
use crate::config::Config;
use crate::error::ErrorCode;
use crate::group::records::Record;
use crate::group::{self, Asker, Effect, Env, Groups};
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
        let result = result.map(drop).map_err(|refusal| refusal.code);
        let env = env(&self.clock, changes.config(), changes.state());
        self.groups.committed(token, result, &env);
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
            return changes.make_offsets_topic(None);
        }
        self.is_making = false;
        for (token, group, records) in std::mem::take(&mut self.unsent) {
            match &topic {
                Some(topic) => self.append(topic, token, &group, &records),
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
                } => match self.published.get().by_name(OFFSETS_TOPIC) {
                    Some(topic) => self.append(topic, token, &group, &records),
                    None => self.unsent.push((token, group, records)),
                },
            }
        }
    }

    fn append(&self, topic: &Topic, token: u64, group: &str, records: &[Record]) {
        let index = partition_of(group, topic.partitions.len());
        let job = Job::Append(Append {
            partition: topic.partitions[index].clone(),
            batch: batch_of(records),
            transaction: None,
            acks: Acks::All,
            completion: Completion::Control(self.mailbox.clone(), Token::Group(token)),
        });
        self.writer.submit([job]);
    }
}

/// Where a group's records lie: Java's hash of its id, as in Kafka, so that its files are Kafka's too.
fn partition_of(group: &str, partitions: usize) -> usize {
    let hash = group.encode_utf16().fold(0i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    (hash & i32::MAX) as usize % partitions.max(1)
}

fn batch_of(records: &[Record]) -> Checked {
    let now_ms = wall_clock_ms();
    let mut batch = Builder::new(now_ms);
    for record in records {
        let (key, value) = record.encode();
        batch.add(Some(&key), value.as_deref(), &[], now_ms);
    }
    Checked::own(batch.build())
}

#[cfg(test)]
mod tests {
    use super::partition_of;

    /// "hello".hashCode() is 99162322 in Java, and "polygenelubricants".hashCode() the smallest INT32.
    #[test]
    fn a_group_lies_where_kafka_would_look_for_it() {
        assert_eq!(partition_of("hello", 50), 99_162_322 % 50);
        assert_eq!(partition_of("polygenelubricants", 50), 0);
        assert_eq!(partition_of("", 1), 0);
    }
}
