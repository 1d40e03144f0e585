//! What goes into the writer and what comes out: jobs in, completions out.
//!
//! Owns: the [`Queue`] and the types that cross it. Invariants: jobs of one submitter keep their order; a
//! completion is one push that never blocks; only this module and `writer.rs` can make a [`Durable`].

use super::FlushPolicy;
use super::pace::{Credit, Pace};
use crate::batch::check::Checked;
use crate::control;
use crate::error::{ErrorCode, Result};
use crate::lock::{Mutex, Rank};
use crate::server::waiting::{Inbox, Outcome, Ticket};
use crate::storage::compaction::LastOfProducer;
use crate::storage::{LastToGo, Log, LogSettings, Partition, Refused, Rewrite, Wake};
use crate::txn::Serial;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Condvar, mpsc};
use std::time::{Duration, Instant};

/// When an append is answered (Kafka's `acks`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// `acks=0`: never; a refusal still reaches the connection, which closes (L1).
    None,
    /// `acks=1`: once the bytes are in the page cache.
    Leader,
    /// `acks=all`: once what the topic's flush settings promise is done; by default, synced.
    All,
}

/// Proof that a batch is as durable as its topic's flush settings promise; by default, synced.
#[derive(Clone, Debug)]
pub struct Durable(());

impl Durable {
    pub(super) fn settled() -> Durable {
        Durable(())
    }
}

/// One producer's batch for one partition.
pub struct Append {
    /// Never a topic's name: a deleted or recreated topic cannot be hit.
    pub partition: Arc<Partition>,
    /// The batch, checked on its connection's thread.
    pub batch: Checked,
    /// The transaction that the batch is part of, or that it ends if it is a marker; `None` if it is not
    /// transactional.
    pub transaction: Option<Serial>,
    /// When to answer.
    pub acks: Acks,
    /// Whom to answer.
    pub completion: Completion,
}

/// Where an appended batch stands.
#[derive(Clone, Debug)]
pub struct Appended {
    /// The offset of its first record.
    pub base_offset: i64,
    /// Milliseconds since 1970 if the topic has `message.timestamp.type=LogAppendTime`, else -1.
    pub append_time: i64,
    /// The partition's first offset.
    pub log_start: i64,
    /// There once an `acks=all` answer may be given.
    pub durable: Option<Durable>,
}

/// Why a batch was not appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Kafka's code.
    pub code: ErrorCode,
    /// One line for the producer's log.
    pub message: Option<String>,
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Refusal {
        Refusal {
            code,
            message: None,
        }
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Refusal {
        refused.0.into()
    }
}

/// Whom the writer tells that a job is done.
pub enum Completion {
    /// A connection's inbox.
    Connection(Arc<Caller>, Ticket),
    /// The control thread, which knows the append by this token.
    Control(Arc<control::Mailbox>, control::Token),
}

/// A connection as the writer knows it.
pub struct Caller {
    /// Where its answers go.
    pub inbox: Inbox<Outcome>,
    /// Its answers that no new request has followed yet.
    pub credit: Credit,
}

impl Caller {
    /// A connection that was never answered.
    pub fn new() -> io::Result<Arc<Caller>> {
        Ok(Arc::new(Caller {
            inbox: Inbox::new()?,
            credit: Credit::default(),
        }))
    }
}

impl Wake for Caller {
    fn wake(&self) {
        self.inbox.bell().ring();
    }
}

impl Completion {
    pub(super) fn appended(self, pace: &mut Pace, appended: Appended) {
        self.tell(pace, Ok(appended));
    }

    pub(super) fn refused(self, pace: &mut Pace, refusal: Refusal) {
        self.tell(pace, Err(refusal));
    }

    fn tell(self, pace: &mut Pace, result: Result<Appended, Refusal>) {
        match self {
            Completion::Connection(caller, ticket) => {
                // The credit comes first: the answer may bring the next request before this thread runs on.
                pace.answered(&caller.credit);
                caller.inbox.push(ticket, Outcome::Append(result));
            }
            Completion::Control(mailbox, token) => mailbox.committed(token, result),
        }
    }
}

/// How a log start rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewStart {
    /// To an offset, as DeleteRecords says; -1 is the high watermark.
    At(i64),
    /// Behind a segment, if that is still as the cleaner saw it: retention.
    Behind(LastToGo),
}

/// What the writer is asked to do.
pub enum Job {
    /// Append a batch.
    Append(Append),
    /// Own a log from now on.
    Adopt {
        /// Whose log.
        partition: Arc<Partition>,
        /// The log.
        log: Box<Log>,
        /// When to sync it.
        flush: FlushPolicy,
    },
    /// Keep a log by other settings: they hold for what is staged from now on.
    Configure {
        /// Whose log.
        partition: Arc<Partition>,
        /// Its settings.
        settings: LogSettings,
        /// When to sync it.
        flush: FlushPolicy,
    },
    /// Let go of the logs of a deleted topic: what is queued is refused, who waits is woken. Then tell control.
    Drop {
        /// Whose logs.
        partitions: Vec<Arc<Partition>>,
        /// Whom to tell.
        mailbox: Arc<control::Mailbox>,
    },
    /// Say what log starts would rise to, and tell control, which makes them durable.
    RaiseStarts {
        /// Each partition, and how its log start rises.
        starts: Vec<(Arc<Partition>, NewStart)>,
        /// Whom to tell.
        mailbox: Arc<control::Mailbox>,
        /// Whom to answer in the end; nobody waits for retention.
        reply: Option<control::Reply>,
    },
    /// These log starts are durable: serve nothing below, and remove the segments that lie there.
    RemovePassed {
        /// Each partition, and its log start.
        starts: Vec<(Arc<Partition>, i64)>,
        /// What to answer then, if somebody waits.
        answer: Option<(control::Reply, Vec<Result<i64, ErrorCode>>)>,
    },
    /// Put a rewrite in the place of the segments that it was made from, and answer; a refusal is no answer.
    Swap {
        /// Whose log.
        partition: Arc<Partition>,
        /// The rewrite.
        rewrite: Box<Rewrite>,
        /// Told whether it is in place, or was refused since the log has changed; and what failed.
        answer: mpsc::Sender<Result<bool>>,
    },
    /// Go on in a new segment if the active one is that of this serial, and answer once all is synced; a refusal, or a
    /// failure, is no answer.
    Roll {
        /// Whose log.
        partition: Arc<Partition>,
        /// The segment's serial.
        segment: u64,
        /// Told when it is sealed.
        answer: mpsc::Sender<()>,
    },
    /// The next batch is of this leader epoch, which is recorded.
    RaiseEpoch {
        /// Whose log.
        partition: Arc<Partition>,
        /// The leader epoch.
        epoch: i32,
    },
    /// Tell what of each producer must outlive compaction; no answer if there is no such log.
    ListLast {
        /// Whose log.
        partition: Arc<Partition>,
        /// Told, by producer id.
        answer: mpsc::Sender<HashMap<i64, LastOfProducer>>,
    },
    /// Tell which producers are known.
    ListProducers {
        /// In which partitions.
        partitions: Vec<Arc<Partition>>,
        /// Whom to answer.
        reply: control::Reply,
    },
}

/// The writer's queue: filled by connections and by control, emptied by the writer once a turn.
pub struct Queue {
    linger: Duration,
    /// Guards the waiting jobs and what the writer sleeps for.
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    jobs: Vec<Job>,
    closed: bool,
    sleep: Sleep,
    /// The turn that is being collected, the answers of the two before it, and the requests that followed them.
    turn: u32,
    expected: u64,
    returned: [u64; 4],
}

#[derive(Default, PartialEq)]
enum Sleep {
    #[default]
    Awake,
    UntilWork,
    UntilExpected,
}

impl Queue {
    /// An empty queue; `linger` is `group.commit.linger.ms`.
    pub fn new(linger: Duration) -> Queue {
        let state = Mutex::new(Rank::Writer, State::default());
        Queue {
            linger,
            state,
            wake: Condvar::new(),
        }
    }

    /// Queues jobs, in order. What is submitted after the close is refused by the caller's own end.
    pub fn submit(&self, jobs: impl IntoIterator<Item = Job>) {
        let mut state = self.state.lock();
        for job in jobs {
            if let Job::Append(Append {
                completion: Completion::Connection(caller, _),
                ..
            }) = &job
            {
                state.count_return(caller.credit.take());
            }
            state.jobs.push(job);
        }
        let wake = match state.sleep {
            Sleep::Awake => false,
            Sleep::UntilWork => true,
            Sleep::UntilExpected => !state.misses_someone(),
        };
        if wake {
            state.sleep = Sleep::Awake;
            drop(state);
            self.wake.notify_one();
        }
    }

    /// The writer shall finish what is queued and end.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.sleep = Sleep::Awake;
        drop(state);
        self.wake.notify_one();
    }

    /// Waits for work (not beyond `wake_at`, and not at all if the writer is `busy`), then for company as `pace`
    /// says; returns all that is queued, and whether the queue is still open.
    pub(super) fn collect(
        &self,
        pace: &Pace,
        wake_at: Option<Instant>,
        busy: bool,
    ) -> (Vec<Job>, bool) {
        let mut state = self.state.lock();
        state.begin_turn(pace);
        let not_yet = |at: Instant| {
            at.checked_duration_since(Instant::now())
                .filter(|left| !left.is_zero())
        };
        while state.jobs.is_empty() && !state.closed && !busy {
            state.sleep = Sleep::UntilWork;
            state = match wake_at.map(not_yet) {
                None => state.wait(&self.wake),
                Some(Some(left)) => state.wait_for(&self.wake, left),
                Some(None) => break,
            };
        }
        if !state.jobs.is_empty() && !busy {
            let now = Instant::now();
            let (linger, patience) = (now + self.linger, now + pace.patience());
            while let Some(left) =
                not_yet(linger).or_else(|| not_yet(patience).filter(|_| state.misses_someone()))
            {
                if state.closed {
                    break;
                }
                state.sleep = Sleep::UntilExpected;
                state = state.wait_for(&self.wake, left);
            }
        }
        state.sleep = Sleep::Awake;
        (std::mem::take(&mut state.jobs), !state.closed)
    }
}

impl State {
    /// Turn numbers are the pace's: credits count for the two turns before the one that begins.
    fn begin_turn(&mut self, pace: &Pace) {
        self.turn = pace.turn();
        self.expected = pace.expected();
        // This slot is the next turn's: its credits come back while that turn is still being answered.
        self.returned[slot(self.turn.wrapping_add(1))] = 0;
    }

    fn count_return(&mut self, turn: Option<u32>) {
        if let Some(turn) = turn.filter(|turn| self.turn.wrapping_sub(*turn) <= 2) {
            self.returned[slot(turn)] += 1;
        }
    }

    fn misses_someone(&self) -> bool {
        let returned = |turns_ago: u32| self.returned[slot(self.turn.wrapping_sub(turns_ago))];
        returned(1) + returned(2) < self.expected
    }
}

fn slot(turn: u32) -> usize {
    turn as usize % 4
}
