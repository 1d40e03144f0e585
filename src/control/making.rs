//! Partitions on their way into being: made a few at a time, so that while a request makes thousands of them the
//! groups are still served; a heartbeat that waits for seconds costs a member its place.
//!
//! Invariants: what is made is told to nobody, neither to the catalog nor to the writer, before all of it is durable;
//! a partition whose files cannot be made is offline until they can be ([`super::unmade`]), and the topic's answer says
//! so.

use super::plan::{Plan, Planned};
use super::rooms::{MADE_TOGETHER, Wanted};
use super::{Answer, Reply, Rooms, answer, settings};
use crate::catalog::{Catalog, Published, State, Topic};
use crate::config::{Config, TopicConfig};
use crate::error::{Error, ErrorCode, Result};
use crate::storage::{Partition, Status};
use crate::writer::{Job, Queue};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Whom to tell that all is made.
pub enum End {
    /// Who asked for topics or partitions.
    Topics(Reply),
    /// Who asked for a topic of the broker's own, if it was not the broker itself.
    InternalTopic(Option<Reply>),
}

impl End {
    /// Tells.
    pub fn answer(self, topics: Vec<Planned>) {
        match self {
            End::Topics(reply) => answer(reply, Answer::Topics(topics)),
            End::InternalTopic(None) => {}
            End::InternalTopic(Some(reply)) => {
                let failed = topics.iter().any(|planned| planned.fault.is_some());
                let code = match failed {
                    true => ErrorCode::CoordinatorNotAvailable,
                    false => ErrorCode::None,
                };
                answer(reply, Answer::InternalTopic(code));
            }
        }
    }
}

/// A topic that is made or grows.
struct Growing {
    /// Its place in the plan.
    place: usize,
    name: Arc<str>,
    config: TopicConfig,
    partitions: Vec<Arc<Partition>>,
    /// How many of them there were before.
    old: usize,
    jobs: Vec<Job>,
}

/// What a plan makes, as far as it is made.
pub struct Making {
    plan: Plan,
    end: End,
    topics: Vec<Growing>,
    /// The first topic that lacks partitions.
    next: usize,
}

impl Making {
    /// Nothing is made yet; the plan's records are synced.
    pub fn new(plan: Plan, end: End, config: &Config, catalog: &Catalog) -> Making {
        let good = plan.topics.iter().enumerate();
        let good = good.filter(|(_, planned)| planned.fault.is_none());
        let growing = |(place, planned): (usize, &Planned)| match catalog.by_id(planned.id) {
            Some(topic) => Growing {
                place,
                name: topic.name.clone(),
                config: topic.config.clone(),
                partitions: topic.partitions.clone(),
                old: topic.partitions.len(),
                jobs: Vec::new(),
            },
            None => {
                let name = planned.name.as_deref().unwrap_or_default();
                Growing {
                    place,
                    name: name.into(),
                    config: TopicConfig::in_force(config, name, &planned.overrides),
                    partitions: Vec::new(),
                    old: 0,
                    jobs: Vec::new(),
                }
            }
        };
        let topics = good.map(growing).collect();
        Making {
            plan,
            end,
            topics,
            next: 0,
        }
    }

    /// Of each topic the number of the first partition that is to be made.
    pub fn first_new(&self) -> BTreeMap<Arc<str>, i32> {
        let first = |topic: &Growing| (topic.name.clone(), topic.old as i32);
        self.topics.iter().map(first).collect()
    }

    /// Makes some partitions; says whether there are more to be made.
    pub fn step(&mut self, rooms: &Rooms) -> bool {
        let lacking = |topic: &Growing| {
            let (made, planned) = (
                topic.partitions.len() as i32,
                &self.plan.topics[topic.place],
            );
            made..planned.partitions
        };
        let mut wanted = Vec::new();
        for (at, topic) in self.topics.iter().enumerate().skip(self.next) {
            let id = self.plan.topics[topic.place].id;
            let room = MADE_TOGETHER - wanted.len();
            wanted.extend(lacking(topic).take(room).map(|index| {
                let one = Wanted {
                    topic: &topic.name,
                    id,
                    index,
                    config: &topic.config,
                };
                (at, one)
            }));
            if wanted.len() == MADE_TOGETHER {
                break;
            }
        }
        let (places, wanted): (Vec<usize>, Vec<Wanted<'_>>) = wanted.into_iter().unzip();
        let logs = rooms.make(&wanted);
        let furnish = |(one, log)| rooms.furnish(one, 0, log);
        let made: Vec<_> = wanted.iter().zip(logs).map(furnish).collect();
        let is_last = wanted.len() < MADE_TOGETHER;
        for (at, (partition, job)) in places.into_iter().zip(made) {
            self.next = at;
            let topic = &mut self.topics[at];
            topic.partitions.push(partition);
            match job {
                Ok(job) => topic.jobs.push(job),
                Err(error) => fail(&mut self.plan.topics[topic.place], &error),
            }
        }
        !is_last
    }

    /// Publishes what was made, hands it to the writer, and answers. If what all of it stands on is not `durable`, none
    /// can be used: without a directory's entry nothing in it can be acknowledged (P1). Gives those that could not be
    /// made.
    pub fn finish(
        mut self,
        durable: Result<()>,
        state: &mut State,
        published: &Published,
        writer: &Queue,
    ) -> Vec<Arc<Partition>> {
        if let Err(error) = durable {
            self.give_up(&error);
        }
        let records = &self.plan.records;
        settings::tell_what_has_no_effect(records);
        records.iter().for_each(|record| state.apply(record));
        let (mut topics, mut unmade) = (Vec::new(), Vec::new());
        let is_offline =
            |partition: &&Arc<Partition>| partition.snapshot().status == Status::Offline;
        for growing in self.topics {
            let new = growing.partitions[growing.old..].iter();
            unmade.extend(new.filter(is_offline).cloned());
            writer.submit(growing.jobs);
            let known = state.topics.get(&*growing.name);
            topics.push(Arc::new(Topic {
                name: growing.name,
                id: self.plan.topics[growing.place].id,
                partitions: growing.partitions,
                overrides: known.map_or_else(Default::default, |known| known.overrides.clone()),
                config: growing.config,
            }));
        }
        published.change(|catalog| topics.into_iter().for_each(|topic| catalog.insert(topic)));
        self.end.answer(self.plan.topics);
        unmade
    }

    fn give_up(&mut self, error: &Error) {
        for topic in &mut self.topics {
            topic.jobs.clear();
            let new = topic.partitions[topic.old..].iter();
            new.for_each(|partition| partition.set_status(Status::Offline));
            fail(&mut self.plan.topics[topic.place], error);
        }
    }
}

fn fail(planned: &mut Planned, error: &Error) {
    if planned.fault.is_none() {
        let name = planned.name.as_deref().unwrap_or_default();
        log::error!("{name}: {error}");
        planned.fault = Some((ErrorCode::KafkaStorageError, error.to_string()));
    }
}
