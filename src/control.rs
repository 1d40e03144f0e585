//! The control thread: one thread that owns every change of the catalog, every group and every transaction.
//!
//! Owns: the mailbox, and the order in which what is in it is taken up. Mailbox in, effects out: what is to be
//! durable goes to the writer, and its outcome comes back through the mailbox.

mod changes;
mod checkpoints;
mod coordinator;
mod making;
mod plan;
mod quotas;
mod records;
mod rooms;
mod settings;
mod transactions;
mod unmade;

pub use checkpoints::Checkpoints;
pub use plan::{
    Fault, MorePartitions, NewTopic, Plan, Planned, TopicRef, check_replicas, partition_record,
    topic_records,
};
pub use quotas::QuotaChange;
pub use records::{batch_of, feature_levels};
pub use rooms::{MADE_TOGETHER, Rooms, Wanted, log_settings, partition_dir, unlink_in_background};
pub use settings::{NewSetting, NewSettings, SettingsPlan};

use crate::catalog::{OFFSETS_TOPIC, Published, State, TRANSACTIONS_TOPIC};
use crate::clock::Clock;
use crate::config::Config;
use crate::error::{ErrorCode, Result};
use crate::group::{self, Asker, Groups};
use crate::lock::{Mutex, Rank};
use crate::quota::Quotas;
use crate::server::waiting::{Outcome, Ticket};
use crate::storage::{ActiveProducer, Partition};
use crate::txn::{self, Transactions};
use crate::writer::{Appended, Caller, Queue, RecoveryPoints, Refusal};
use changes::Changes;
use coordinator::Coordinator;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar};
use std::time::{Duration, Instant};
use transactions::TransactionCoordinator;

/// What control knows an append of its own by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// The catalog's, of which one is under way at most.
    Catalog,
    /// A group's, by the number that the groups gave it.
    Group(u64),
    /// A transaction's, by the number that the transactions gave it.
    Transaction(u64),
}

/// So many events at most are taken up before the time is looked at.
const EVENTS_BETWEEN_TICKS_MAX: u32 = 10_000;

/// The longest sleep, so that no sum of times can overflow.
const TICK_MS_MAX: u64 = 86_400_000;

/// A topic that the broker makes for itself, when it is first needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Internal {
    /// Of groups and committed offsets.
    Offsets,
    /// Of the state of transactions.
    Transactions,
}

impl Internal {
    /// The one of this name.
    pub fn named(name: &str) -> Option<Internal> {
        let all = [Internal::Offsets, Internal::Transactions];
        all.into_iter().find(|topic| topic.name() == name)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Internal::Offsets => OFFSETS_TOPIC,
            Internal::Transactions => TRANSACTIONS_TOPIC,
        }
    }

    /// How it is made.
    pub fn new_topic(self, config: &Config) -> NewTopic {
        let (partitions, segment_bytes) = match self {
            Internal::Offsets => (
                config.offsets_topic_num_partitions,
                config.offsets_topic_segment_bytes,
            ),
            Internal::Transactions => (
                config.transaction_topic_num_partitions,
                config.transaction_topic_segment_bytes,
            ),
        };
        let segment_bytes = segment_bytes.to_string();
        let overrides = [
            ("cleanup.policy", "compact"),
            ("compression.type", "producer"),
            ("segment.bytes", &segment_bytes),
        ];
        NewTopic {
            name: self.name().into(),
            partitions,
            overrides: overrides
                .map(|(name, value)| (name.into(), value.into()))
                .into(),
            ..NewTopic::default()
        }
    }
}

/// What connections ask of the control thread.
pub enum Request {
    /// Make topics.
    CreateTopics {
        /// The topics.
        topics: Vec<NewTopic>,
        /// Only say what would happen.
        validate_only: bool,
    },
    /// Delete topics.
    DeleteTopics(Vec<TopicRef>),
    /// Add partitions to topics.
    CreatePartitions {
        /// The topics.
        topics: Vec<MorePartitions>,
        /// Only say what would happen.
        validate_only: bool,
    },
    /// Set and remove quotas.
    AlterQuotas(Vec<QuotaChange>),
    /// Change settings.
    AlterConfigs {
        /// Of what, and how.
        resources: Vec<NewSettings>,
        /// Only say what would happen.
        validate_only: bool,
    },
    /// A producer id that nobody had before.
    NewProducerId,
    /// A topic of the broker's own, made if it is not there.
    InternalTopic(Internal),
    /// Of the group coordinator.
    Group {
        /// What is asked.
        request: Box<group::Request>,
        /// The request's version.
        version: i16,
        /// The client's name for itself.
        client_id: String,
        /// Where it comes from, as Kafka shows it: `/127.0.0.1`.
        client_host: String,
    },
    /// Of the transaction coordinator.
    Transaction(txn::Request),
}

/// What the control thread answers, or the writer in its place.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Topic by topic.
    Topics(Vec<Planned>),
    /// Whether the quotas are set and removed.
    Quotas(Result<(), ErrorCode>),
    /// Why each resource's settings were not changed, if so, in the order of the request.
    Configs(Vec<Option<Fault>>),
    /// A producer id.
    ProducerId(Result<i64, ErrorCode>),
    /// Whether the topic of the broker's own is there.
    InternalTopic(ErrorCode),
    /// The group coordinator's.
    Group(Box<group::Response>),
    /// The transaction coordinator's.
    Transaction(Box<txn::Response>),
    /// The durable log start of each partition, in the order of the request.
    LogStarts(Vec<Result<i64, ErrorCode>>),
    /// The producers of each partition, in the order of the request.
    Producers(Vec<Result<Vec<ActiveProducer>, ErrorCode>>),
}

/// What DeleteRecords or retention comes to: each partition's log start, or why there is no new one.
pub type PlannedStarts = Vec<(Arc<Partition>, Result<i64, ErrorCode>)>;

enum Event {
    Request {
        request: Request,
        caller: Arc<Caller>,
        ticket: Ticket,
    },
    Committed {
        token: Token,
        result: Result<Appended, Refusal>,
    },
    Dropped,
    GoOn,
    RecoveryPoints(RecoveryPoints),
    StartsPlanned(PlannedStarts, Option<Reply>),
    GapFound(Arc<Partition>),
    Stop,
}

/// The control thread's mailbox.
pub struct Mailbox {
    /// Guards the events that wait.
    events: Mutex<VecDeque<Event>>,
    arrived: Condvar,
}

impl Default for Mailbox {
    fn default() -> Mailbox {
        Mailbox {
            events: Mutex::new(Rank::Control, VecDeque::new()),
            arrived: Condvar::new(),
        }
    }
}

impl Mailbox {
    /// Asks for something; the answer comes into the caller's inbox under `ticket`.
    pub fn ask(&self, request: Request, caller: Arc<Caller>, ticket: Ticket) {
        self.post(Event::Request {
            request,
            caller,
            ticket,
        });
    }

    /// From the writer: the append that control knows by `token` is done.
    pub fn committed(&self, token: Token, result: Result<Appended, Refusal>) {
        self.post(Event::Committed { token, result });
    }

    /// From the writer: it let go of the logs that it was told to.
    pub fn dropped(&self) {
        self.post(Event::Dropped);
    }

    /// From control itself: the change in hand has more to do, once those who wait now were heard.
    pub fn go_on(&self) {
        self.post(Event::GoOn);
    }

    /// From the writer: what to save for the next start.
    pub fn recovery_points(&self, points: RecoveryPoints) {
        self.post(Event::RecoveryPoints(points));
    }

    /// From the writer: these log starts are to be made durable.
    pub fn starts_planned(&self, starts: PlannedStarts, reply: Option<Reply>) {
        self.post(Event::StartsPlanned(starts, reply));
    }

    /// From the cleaner: records are lost that consumers may have read, or would have.
    pub fn gap_found(&self, partition: Arc<Partition>) {
        self.post(Event::GapFound(partition));
    }

    /// The control thread shall finish the change in hand and end.
    pub fn stop(&self) {
        self.post(Event::Stop);
    }

    fn post(&self, event: Event) {
        self.events.lock().push_back(event);
        self.arrived.notify_one();
    }

    fn is_empty(&self) -> bool {
        self.events.lock().is_empty()
    }

    /// The next event; `None` after `limit_ms` without one.
    fn next(&self, limit_ms: u64) -> Option<Event> {
        let deadline = Instant::now() + Duration::from_millis(limit_ms.min(TICK_MS_MAX));
        let mut events = self.events.lock();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match events.pop_front() {
                Some(event) => return Some(event),
                None if left.is_zero() => return None,
                None => events = events.wait_for(&self.arrived, left),
            }
        }
    }
}

/// Whom to answer.
pub type Reply = (Arc<Caller>, Ticket);

/// Answers a request of a connection.
pub fn answer((caller, ticket): Reply, answer: Answer) {
    caller.inbox.push(ticket, Outcome::Control(answer));
}

/// The thread's own state.
pub struct Control {
    mailbox: Arc<Mailbox>,
    changes: Changes,
    coordinator: Coordinator,
    transactions: TransactionCoordinator,
    stopping: bool,
}

/// What the catalog's changes begin with, as it was read from the data directory.
pub struct Begin {
    /// The partitions' directories.
    pub rooms: Rooms,
    /// The checkpoints.
    pub checkpoints: Checkpoints,
    /// What the catalog's records say.
    pub state: State,
    /// The catalog's own partition.
    pub metadata: Arc<Partition>,
    /// The quotas in force.
    pub quotas: Arc<Quotas>,
}

impl Control {
    /// The thread's state at start; `published` is what recovery opened.
    pub fn new(
        mailbox: Arc<Mailbox>,
        writer: Arc<Queue>,
        published: Arc<Published>,
        groups: Groups<Reply>,
        transactions: Transactions<Reply>,
        clock: Arc<Clock>,
        begin: Begin,
    ) -> Control {
        let coordinator = Coordinator::new(
            groups,
            clock.clone(),
            mailbox.clone(),
            writer.clone(),
            published.clone(),
        );
        let transactions = TransactionCoordinator::new(
            transactions,
            clock,
            mailbox.clone(),
            writer.clone(),
            published.clone(),
        );
        let changes = Changes::new(mailbox.clone(), writer, published, begin);
        Control {
            mailbox,
            changes,
            coordinator,
            transactions,
            stopping: false,
        }
    }

    /// Runs until it is told to stop and no change is in hand; gives the checkpoints back for the last save.
    pub fn run(mut self) -> Checkpoints {
        let (mut limit_ms, mut taken) = (self.tick(), 0);
        while !(self.stopping && self.changes.is_idle()) {
            if let Some(event) = self.mailbox.next(limit_ms) {
                self.take(event);
                taken += 1;
            }
            let renewed = self.changes.take_renewed();
            if !renewed.is_empty() {
                self.transactions.forget(&renewed, &self.changes);
                self.coordinator.forget(renewed, &self.changes);
            }
            self.coordinator.send_unsent(&mut self.changes);
            self.transactions.supply(&mut self.changes);
            // A heartbeat that came in time is heard in time, however long the disk held this thread up.
            if taken >= EVENTS_BETWEEN_TICKS_MAX || self.mailbox.is_empty() {
                (limit_ms, taken) = (self.tick(), 0);
            }
        }
        self.changes.save_time(self.coordinator.clock());
        self.changes.into_checkpoints()
    }

    /// Whether what is in the topic could be read.
    fn is_served(&self, topic: Internal) -> bool {
        match topic {
            Internal::Offsets => self.coordinator.is_open(),
            Internal::Transactions => self.transactions.is_open(),
        }
    }

    /// Does what the time has come for; says in how many ms there is more to do.
    fn tick(&mut self) -> u64 {
        let groups_ms = self.coordinator.tick(&self.changes);
        let transactions_ms = self.transactions.tick(&self.changes);
        groups_ms
            .min(transactions_ms)
            .min(self.changes.retry_unmade())
    }

    fn committed(&mut self, token: Token, result: Result<Appended, Refusal>) {
        match token {
            Token::Catalog => self.changes.committed(result),
            Token::Group(token) => self.coordinator.committed(token, result, &self.changes),
            Token::Transaction(token) => {
                let groups = &mut self.coordinator;
                let transactions = &mut self.transactions;
                transactions.committed(token, result, groups, &self.changes);
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Request { .. } if self.stopping => {}
            Event::Request {
                request:
                    Request::Group {
                        request,
                        version,
                        client_id,
                        client_host,
                    },
                caller,
                ticket,
            } => {
                let asker = Asker {
                    version,
                    client_id,
                    client_host,
                    waiter: (caller, ticket),
                };
                self.coordinator.ask(*request, asker, &self.changes);
            }
            Event::Request {
                request: Request::Transaction(request),
                caller,
                ticket,
            } => self
                .transactions
                .ask(request, (caller, ticket), &self.changes),
            Event::Request {
                request: Request::InternalTopic(topic),
                caller,
                ticket,
            } if !self.is_served(topic) => {
                let code = ErrorCode::CoordinatorNotAvailable;
                answer((caller, ticket), Answer::InternalTopic(code));
            }
            Event::Request {
                request,
                caller,
                ticket,
            } => self.changes.ask(request, (caller, ticket)),
            Event::Committed { token, result } => self.committed(token, result),
            Event::Dropped => self.changes.dropped(),
            Event::GoOn => self.changes.take_step(),
            Event::RecoveryPoints(points) => {
                self.changes.save(&points);
                self.changes.save_time(self.coordinator.clock());
            }
            Event::StartsPlanned(starts, reply) => self.changes.save_starts(starts, reply),
            Event::GapFound(partition) => {
                self.coordinator.gap_found(&partition, &self.changes);
                self.transactions.gap_found(&partition, &self.changes);
                self.changes.gap_found(partition);
            }
            Event::Stop => {
                self.stopping = true;
                self.changes.abandon_waiting();
            }
        }
    }
}
