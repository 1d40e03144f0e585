//! The control thread: one thread that owns every change of the catalog and every group, later transactions too.
//!
//! Owns: the mailbox, and the order in which what is in it is taken up. Mailbox in, effects out: what is to be
//! durable goes to the writer, and its outcome comes back through the mailbox.

mod changes;
mod checkpoints;
mod plan;
mod rooms;

pub use changes::batch_of;
pub use checkpoints::Checkpoints;
pub use plan::{
    Fault, MorePartitions, NewTopic, Plan, Planned, TopicRef, partition_record, topic_records,
};
pub use rooms::{Rooms, log_settings, partition_dir, unlink_in_background};

use crate::catalog::{Published, State};
use crate::error::{ErrorCode, Result};
use crate::lock::{Mutex, Rank};
use crate::server::waiting::{Outcome, Ticket};
use crate::storage::Partition;
use crate::writer::{Appended, Caller, Queue, RecoveryPoints, Refusal};
use changes::Changes;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar};

/// The token of the catalog's appends, of which one is under way at most.
const CATALOG_TOKEN: u64 = 0;

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
    /// A producer id that nobody had before.
    NewProducerId,
}

/// What the control thread answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Topic by topic, in the order of the request.
    Topics(Vec<Planned>),
    /// A producer id.
    ProducerId(Result<i64, ErrorCode>),
}

enum Event {
    Request {
        request: Request,
        caller: Arc<Caller>,
        ticket: Ticket,
    },
    Committed {
        token: u64,
        result: Result<Appended, Refusal>,
    },
    Dropped,
    RecoveryPoints(RecoveryPoints),
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
    pub fn committed(&self, token: u64, result: Result<Appended, Refusal>) {
        self.post(Event::Committed { token, result });
    }

    /// From the writer: it let go of the logs that it was told to.
    pub fn dropped(&self) {
        self.post(Event::Dropped);
    }

    /// From the writer: what to save for the next start.
    pub fn recovery_points(&self, points: RecoveryPoints) {
        self.post(Event::RecoveryPoints(points));
    }

    /// The control thread shall finish the change in hand and end.
    pub fn stop(&self) {
        self.post(Event::Stop);
    }

    fn post(&self, event: Event) {
        self.events.lock().push_back(event);
        self.arrived.notify_one();
    }

    fn next(&self) -> Event {
        let mut events = self.events.lock();
        loop {
            match events.pop_front() {
                Some(event) => return event,
                None => events = events.wait(&self.arrived),
            }
        }
    }
}

/// Whom to answer.
type Reply = (Arc<Caller>, Ticket);

fn answer((caller, ticket): Reply, answer: Answer) {
    caller.inbox.push(ticket, Outcome::Control(answer));
}

/// The thread's own state.
pub struct Control {
    mailbox: Arc<Mailbox>,
    changes: Changes,
    stopping: bool,
}

impl Control {
    /// The thread's state at start: `state` is what was read from `metadata`, and `published` what recovery opened.
    pub fn new(
        mailbox: Arc<Mailbox>,
        writer: Arc<Queue>,
        rooms: Rooms,
        checkpoints: Checkpoints,
        state: State,
        published: Arc<Published>,
        metadata: Arc<Partition>,
    ) -> Control {
        let changes = Changes::new(
            mailbox.clone(),
            writer,
            rooms,
            checkpoints,
            state,
            published,
            metadata,
        );
        Control {
            mailbox,
            changes,
            stopping: false,
        }
    }

    /// Runs until it is told to stop and no change is in hand; gives the checkpoints back for the last save.
    pub fn run(mut self) -> Checkpoints {
        while !(self.stopping && self.changes.is_idle()) {
            match self.mailbox.next() {
                Event::Request { .. } if self.stopping => {}
                Event::Request {
                    request,
                    caller,
                    ticket,
                } => self.changes.ask(request, (caller, ticket)),
                Event::Committed {
                    token: CATALOG_TOKEN,
                    result,
                } => self.changes.committed(result),
                Event::Committed { .. } => {}
                Event::Dropped => self.changes.dropped(),
                Event::RecoveryPoints(points) => self.changes.save(&points),
                Event::Stop => {
                    self.stopping = true;
                    self.changes.abandon_waiting();
                }
            }
        }
        self.changes.into_checkpoints()
    }
}
