//! Changes of the catalog: planned, committed, and only then carried out and answered, one at a time.
//!
//! Owns: the catalog's [`State`], the settings in force, the block of producer ids, and the partitions' directories
//! from the day they are made to the day they are renamed away. Invariants:
//! 1. A change is planned on the state, committed to `__cluster_metadata-0` by the writer, and only when its
//!    records are synced applied, carried out and answered; one change at a time, so no plan is ever stale.
//! 2. A producer id is handed out only from a block whose record is synced.
//! 3. A topic's directory is renamed away only after its RemoveTopicRecord is synced and the writer let go of it.
//!
//! May lose data: L6 (topic deletion).

use super::making::{End, Making};
use super::plan::{self, Plan, Planned};
use super::quotas;
use super::records::{all_of, batch_of, producer_ids};
use super::settings::{self, SettingsPlan};
use super::unmade::Unmade;
use super::{
    Answer, Begin, Checkpoints, Internal, Mailbox, PlannedStarts, Reply, Request, Rooms, Token,
    answer,
};
use crate::catalog::{METADATA_TOPIC, PRODUCER_IDS_PER_BLOCK, Published, State, Topic};
use crate::clock::Clock;
use crate::config::Config;
use crate::error::{ErrorCode, Result};
use crate::quota::Quotas;
use crate::storage::Partition;
use crate::wire::Uuid;
use crate::wire::metadata_records::MetadataRecord;
use crate::writer::{Acks, Append, Appended, Completion, Job, Queue, RecoveryPoints, Refusal};
use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

/// A change whose records are being committed, or whose logs are being let go of.
enum Change {
    Make(Plan, End),
    Making(Making),
    Delete(Plan, Reply),
    Dropping(Plan, Vec<Arc<Partition>>, Reply),
    Quotas(Vec<MetadataRecord>, Reply),
    Configure(SettingsPlan, Reply),
    ProducerIds(MetadataRecord, Option<Reply>),
    Epochs(Vec<(Arc<Partition>, MetadataRecord)>),
    Restate,
}

/// The catalog's changes: the one in hand, and those that wait for it.
pub struct Changes {
    mailbox: Arc<Mailbox>,
    writer: Arc<Queue>,
    config: Arc<Config>,
    rooms: Rooms,
    checkpoints: Checkpoints,
    state: State,
    published: Arc<Published>,
    metadata: Arc<Partition>,
    quotas: Arc<Quotas>,
    producer_ids: Range<i64>,
    busy: Option<Change>,
    waiting: VecDeque<(Request, Reply)>,
    /// The partitions whose leader epoch is to rise.
    gaps: Vec<Arc<Partition>>,
    /// Whether the catalog's own log has lost records that are not recorded once more yet.
    is_lost: bool,
    renewed: BTreeSet<String>,
    unmade: Unmade,
}

impl Changes {
    /// None is in hand at start; `published` is what recovery opened.
    pub fn new(
        mailbox: Arc<Mailbox>,
        writer: Arc<Queue>,
        published: Arc<Published>,
        begin: Begin,
    ) -> Changes {
        Changes {
            mailbox,
            writer,
            config: begin.rooms.settings.get(),
            rooms: begin.rooms,
            checkpoints: begin.checkpoints,
            state: begin.state,
            published,
            metadata: begin.metadata,
            quotas: begin.quotas,
            producer_ids: 0..0,
            busy: None,
            waiting: VecDeque::new(),
            gaps: Vec::new(),
            is_lost: false,
            renewed: BTreeSet::new(),
            unmade: Unmade::default(),
        }
    }

    /// Takes up a request, once those before it are done.
    pub fn ask(&mut self, request: Request, reply: Reply) {
        self.waiting.push_back((request, reply));
        self.go_on();
    }

    /// The settings in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The topics as the records describe them.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The topics that were deleted since this was last asked, or made: what is committed under the name of a new one
    /// is of an earlier one, whose end came between that and a power cut, or on a full disk.
    pub fn take_renewed(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.renewed)
    }

    /// Saves broker time, as the checkpoints are.
    pub fn save_time(&self, clock: &Clock) {
        warn(clock.save(&self.rooms.data));
    }

    /// Makes a topic of the broker's own, if nothing is in hand; who is in hand may be making it.
    pub fn make_topic(&mut self, topic: Internal, reply: Option<Reply>) {
        if self.state.topics.contains_key(topic.name()) || self.busy.is_some() {
            return reply.into_iter().for_each(|reply| {
                answer(reply, Answer::InternalTopic(ErrorCode::None));
            });
        }
        let node_id = self.config.node_id;
        let topic = topic.new_topic(&self.config);
        let partitions = topic.partitions;
        // Not planned as a client's would be: no topic of a like name, `__consumer.offsets`, may be in its way.
        let id = new_id();
        let plan = Plan {
            records: plan::topic_records(&topic, id, partitions, node_id),
            topics: vec![Planned {
                name: Some(topic.name),
                id,
                partitions,
                overrides: topic.overrides,
                fault: None,
            }],
        };
        self.commit(&plan.records);
        self.busy = Some(Change::Make(plan, End::InternalTopic(reply)));
    }

    /// Whether no change is in hand.
    pub fn is_idle(&self) -> bool {
        self.busy.is_none()
    }

    /// What waits is never begun.
    pub fn abandon_waiting(&mut self) {
        self.waiting.clear();
    }

    /// Saves the writer's recovery points. Hints: what cannot be saved costs the next start time, and is tried
    /// again in a minute.
    pub fn save(&mut self, points: &RecoveryPoints) {
        warn(self.checkpoints.update(points));
        self.go_on();
    }

    /// Makes log starts durable; only then they rise, what they passed goes, and DeleteRecords is answered (P9).
    pub fn save_starts(&mut self, starts: PlannedStarts, reply: Option<Reply>) {
        let passed: Vec<_> = starts
            .iter()
            .filter_map(|(partition, start)| Some((partition.clone(), *start.as_ref().ok()?)))
            .collect();
        let saved = self.checkpoints.raise_starts(&passed);
        let starts = starts.into_iter().map(|(_, start)| start);
        if let Err(error) = saved {
            log::error!("{error}; log starts are not saved");
            if let Some(reply) = reply {
                let refused = starts.map(|start| start.and(Err(ErrorCode::KafkaStorageError)));
                return answer(reply, Answer::LogStarts(refused.collect()));
            }
            // Retention goes on: its segments may be what fills the disk, and without the line the next start takes the
            // first segment that it finds.
        }
        self.writer.submit([Job::RemovePassed {
            starts: passed,
            answer: reply.map(|reply| (reply, starts.collect())),
        }]);
    }

    /// The checkpoints, for the last save.
    pub fn into_checkpoints(self) -> Checkpoints {
        self.checkpoints
    }

    /// Records of a partition are lost: its leader epoch rises, and the catalog's own are recorded once more.
    pub fn gap_found(&mut self, partition: Arc<Partition>) {
        match Arc::ptr_eq(&partition, &self.metadata) {
            true => self.is_lost = true,
            false => self.gaps.push(partition),
        }
        self.go_on();
    }

    fn restate(&mut self) {
        self.is_lost = false;
        self.commit(&all_of(&self.state, self.config.node_id));
        self.busy = Some(Change::Restate);
    }

    fn raise_epochs(&mut self) {
        let raised = |partition: Arc<Partition>| {
            let topic = self.state.topics.get(&*partition.topic)?;
            let epoch = partition.snapshot().leader_epoch.checked_add(1)?;
            let (index, node_id) = (partition.index, self.config.node_id);
            let record = plan::partition_record(topic.id, index, epoch, node_id);
            (topic.id == partition.topic_id).then_some((partition, record))
        };
        let gaps = std::mem::take(&mut self.gaps);
        let raised: Vec<_> = gaps.into_iter().filter_map(raised).collect();
        if !raised.is_empty() {
            let records: Vec<_> = raised.iter().map(|(_, record)| record.clone()).collect();
            self.commit(&records);
            self.busy = Some(Change::Epochs(raised));
        }
    }

    fn go_on(&mut self) {
        if self.busy.is_none() && !self.gaps.is_empty() {
            self.raise_epochs();
        }
        if self.busy.is_none() && self.is_lost {
            self.restate();
        }
        while self.busy.is_none()
            && let Some((request, reply)) = self.waiting.pop_front()
        {
            self.begin(request, reply);
        }
    }

    fn begin(&mut self, request: Request, reply: Reply) {
        let (state, config) = (&self.state, &self.config);
        let make = |plan, reply| Change::Make(plan, End::Topics(reply));
        match request {
            Request::CreateTopics {
                topics,
                validate_only,
            } => {
                let plan = plan::create_topics(state, config, topics, new_id);
                self.commit_unless(validate_only, plan, reply, make);
            }
            Request::CreatePartitions {
                topics,
                validate_only,
            } => {
                let plan = plan::create_partitions(state, config, topics);
                self.commit_unless(validate_only, plan, reply, make);
            }
            Request::DeleteTopics(topics) => {
                let plan = plan::delete_topics(state, config, topics);
                self.commit_unless(false, plan, reply, Change::Delete);
            }
            Request::AlterQuotas(changes) => {
                let records = quotas::alter_quotas(state, changes);
                if records.is_empty() {
                    return answer(reply, Answer::Quotas(Ok(())));
                }
                self.commit(&records);
                self.busy = Some(Change::Quotas(records, reply));
            }
            Request::AlterConfigs {
                resources,
                validate_only,
            } => {
                let plan = settings::alter(state, config, &resources);
                if validate_only || plan.records.is_empty() {
                    return answer(reply, Answer::Configs(plan.faults));
                }
                self.commit(&plan.records);
                self.busy = Some(Change::Configure(plan, reply));
            }
            Request::InternalTopic(topic) => self.make_topic(topic, Some(reply)),
            // Not the catalog's: a coordinator has taken it.
            Request::Group { .. } | Request::Transaction(_) => {}
            Request::NewProducerId => match self.producer_ids.next() {
                Some(id) => answer(reply, Answer::ProducerId(Ok(id))),
                None => self.reserve(Some(reply)),
            },
        }
    }

    /// Takes a producer id that nobody had before, if there is one at hand.
    pub fn next_producer_id(&mut self) -> Option<i64> {
        self.producer_ids.next()
    }

    /// Gets more producer ids, if nothing is in hand.
    pub fn reserve_producer_ids(&mut self) {
        if self.busy.is_none() {
            self.reserve(None);
        }
    }

    fn reserve(&mut self, reply: Option<Reply>) {
        let next = self.state.next_producer_id + PRODUCER_IDS_PER_BLOCK;
        let record = producer_ids(self.config.node_id, next);
        self.commit(std::slice::from_ref(&record));
        self.busy = Some(Change::ProducerIds(record, reply));
    }

    fn commit_unless(
        &mut self,
        validate_only: bool,
        plan: Plan,
        reply: Reply,
        change: fn(Plan, Reply) -> Change,
    ) {
        if validate_only || plan.records.is_empty() {
            return answer(reply, Answer::Topics(plan.topics));
        }
        self.commit(&plan.records);
        self.busy = Some(change(plan, reply));
    }

    fn commit(&self, records: &[MetadataRecord]) {
        let completion = Completion::Control(self.mailbox.clone(), Token::Catalog);
        let (partition, batch) = (self.metadata.clone(), batch_of(records));
        self.writer.submit([Job::Append(Append {
            partition,
            batch,
            transaction: None,
            acks: Acks::All,
            completion,
        })]);
    }

    /// The records of the change in hand are synced, or refused.
    pub fn committed(&mut self, result: Result<Appended, Refusal>) {
        let Some(change) = self.busy.take() else {
            return;
        };
        if let Err(refusal) = result {
            let is_lost = matches!(change, Change::Restate);
            fail(change, refusal.code);
            self.go_on();
            // The next change tries again, or the next save of recovery points.
            self.is_lost |= is_lost;
            return;
        }
        match change {
            Change::Make(plan, end) => {
                let catalog = self.published.get();
                self.make(Making::new(plan, end, &self.config, &catalog));
            }
            Change::Delete(plan, reply) => self.delete(plan, reply),
            Change::Quotas(records, reply) => {
                records.iter().for_each(|record| self.state.apply(record));
                self.quotas.publish(self.state.quotas.clone());
                answer(reply, Answer::Quotas(Ok(())));
            }
            Change::Configure(plan, reply) => self.configure(plan, reply),
            Change::Epochs(raised) => {
                for (partition, record) in raised {
                    self.state.apply(&record);
                    let epoch = partition.snapshot().leader_epoch.saturating_add(1);
                    self.writer.submit([Job::RaiseEpoch { partition, epoch }]);
                }
            }
            Change::Restate => log::info!("the catalog is recorded once more"),
            Change::ProducerIds(record, reply) => {
                let first = self.state.next_producer_id;
                self.state.apply(&record);
                self.producer_ids = first..self.state.next_producer_id;
                if let Some(reply) = reply {
                    self.begin(Request::NewProducerId, reply);
                }
            }
            Change::Making(_) | Change::Dropping(..) => self.busy = Some(change),
        }
        self.go_on();
    }

    /// Makes some partitions, and lets others go before the next step.
    fn make(&mut self, mut making: Making) {
        if making.step(&self.rooms) {
            self.mailbox.go_on();
            self.busy = Some(Change::Making(making));
            return;
        }
        let first_new = making.first_new();
        let new_topics = first_new.iter().filter(|(_, first)| **first == 0);
        self.renewed
            .extend(new_topics.map(|(name, _)| name.to_string()));
        let is_old = |topic: &str, index| first_new.get(topic).is_none_or(|&first| index < first);
        // A deletion that could not save its checkpoints, on a full disk, left that to this.
        let durable = self.checkpoints.keep(is_old);
        let durable = durable.and_then(|()| self.rooms.sync());
        let unmade = making.finish(durable, &mut self.state, &self.published, &self.writer);
        self.unmade.add(unmade);
    }

    /// Tries again to make what could not be made; says in how many ms to ask again.
    pub fn retry_unmade(&mut self) -> u64 {
        let catalog = self.published.get();
        self.unmade
            .retry(&self.rooms, &mut self.checkpoints, &catalog, &self.writer)
    }

    /// The next step of the change in hand.
    pub fn take_step(&mut self) {
        match self.busy.take() {
            Some(Change::Making(making)) => self.make(making),
            other => self.busy = other,
        }
        self.go_on();
    }

    fn delete(&mut self, plan: Plan, reply: Reply) {
        plan.records
            .iter()
            .for_each(|record| self.state.apply(record));
        let catalog = self.published.get();
        let gone = plan.topics.iter().filter(|planned| planned.fault.is_none());
        let topics: Vec<Arc<Topic>> = gone
            .filter_map(|planned| catalog.by_id(planned.id).cloned())
            .collect();
        self.published
            .change(|catalog| topics.iter().for_each(|topic| catalog.remove(&topic.name)));
        self.renewed
            .extend(topics.iter().map(|topic| topic.name.to_string()));
        let partitions: Vec<Arc<Partition>> = topics
            .iter()
            .flat_map(|topic| topic.partitions.clone())
            .collect();
        self.writer.submit([Job::Drop {
            partitions: partitions.clone(),
            mailbox: self.mailbox.clone(),
        }]);
        self.busy = Some(Change::Dropping(plan, partitions, reply));
    }

    /// Settings are in force before the change is answered.
    fn configure(&mut self, plan: SettingsPlan, reply: Reply) {
        plan.records
            .iter()
            .for_each(|record| self.state.apply(record));
        let jobs = settings::put_in_force(&plan, &self.state, &self.rooms, &self.published);
        self.config = self.rooms.settings.get();
        self.writer.submit(jobs);
        answer(reply, Answer::Configs(plan.faults));
    }

    /// The writer let go of the logs that it was told to.
    pub fn dropped(&mut self) {
        match self.busy.take() {
            Some(Change::Dropping(plan, partitions, reply)) => {
                self.rooms.remove(&partitions);
                let state = &self.state;
                warn(
                    self.checkpoints.keep(|topic, _| {
                        topic == METADATA_TOPIC || state.topics.contains_key(topic)
                    }),
                );
                answer(reply, Answer::Topics(plan.topics));
            }
            other => self.busy = other,
        }
        self.go_on();
    }
}

/// The records were not committed, so nothing has changed.
fn fail(change: Change, code: ErrorCode) {
    match change {
        Change::Make(plan, end) => end.answer(refused(plan, code)),
        Change::Delete(plan, reply) => answer(reply, Answer::Topics(refused(plan, code))),
        Change::Quotas(_, reply) => answer(reply, Answer::Quotas(Err(code))),
        Change::Configure(mut plan, reply) => {
            for fault in plan.faults.iter_mut().filter(|fault| fault.is_none()) {
                *fault = Some((code, "The change could not be recorded.".into()));
            }
            answer(reply, Answer::Configs(plan.faults));
        }
        Change::ProducerIds(_, reply) => {
            reply
                .into_iter()
                .for_each(|reply| answer(reply, Answer::ProducerId(Err(code))));
        }
        // It rises at the next gap; nobody is misled till then, since the log still ends where it did.
        Change::Epochs(_) => log::warn!("leader epochs are not raised: {}", code.name()),
        Change::Restate => log::warn!("the catalog is not recorded once more: {}", code.name()),
        Change::Making(_) | Change::Dropping(..) => {}
    }
}

fn refused(mut plan: Plan, code: ErrorCode) -> Vec<Planned> {
    let made = plan.topics.iter_mut();
    for planned in made.filter(|planned| planned.fault.is_none()) {
        planned.fault = Some((code, "The change could not be recorded.".into()));
    }
    plan.topics
}

/// Without randomness two topics would have one id, so there is no going on.
fn new_id() -> Uuid {
    Uuid::random().expect("getrandom works once the system is up")
}

fn warn(result: Result<()>) {
    if let Err(error) = result {
        log::warn!("{error}");
    }
}
