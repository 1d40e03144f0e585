//! One `transactional.id`: its producer, and the transaction that this has open or is about to end.
//!
//! ```text
//! Empty, Complete* -- enlist --> Ongoing -- end --> PrepareCommit, PrepareAbort -- markers --> Complete*
//! any but Prepare* -- init --> Empty, with a higher epoch; an open transaction is fenced and aborted first
//! ```
//! Pure: each question gives a [`Verdict`], and what changes is a copy. The rules, error codes and their order are
//! those of Kafka 4.1's `TransactionCoordinator`.

use super::{Env, Mark, Producer, Response, Serial, TopicPartition};
use crate::error::ErrorCode;
use std::collections::BTreeSet;

/// A state, by Kafka's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum State {
    #[default]
    Empty,
    Ongoing,
    PrepareCommit,
    PrepareAbort,
    CompleteCommit,
    CompleteAbort,
}

impl State {
    /// All that last: Kafka's `Dead` and `PrepareEpochFence` never stand in its log.
    pub const ALL: [State; 6] = [
        State::Empty,
        State::Ongoing,
        State::PrepareCommit,
        State::PrepareAbort,
        State::CompleteCommit,
        State::CompleteAbort,
    ];

    /// Its number in the log.
    pub fn code(self) -> i8 {
        self as i8
    }

    /// The state of a number.
    pub fn of_code(code: i8) -> Option<State> {
        State::ALL.into_iter().find(|state| state.code() == code)
    }

    /// Kafka's name for it.
    pub fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::Ongoing => "Ongoing",
            State::PrepareCommit => "PrepareCommit",
            State::PrepareAbort => "PrepareAbort",
            State::CompleteCommit => "CompleteCommit",
            State::CompleteAbort => "CompleteAbort",
        }
    }

    /// Whether an end is under way, and which.
    pub fn ending(self) -> Option<bool> {
        match self {
            State::PrepareCommit => Some(true),
            State::PrepareAbort => Some(false),
            _ => None,
        }
    }

    /// Whether a transaction ended last, and how.
    pub fn ended(self) -> Option<bool> {
        match self {
            State::CompleteCommit => Some(true),
            State::CompleteAbort => Some(false),
            _ => None,
        }
    }
}

/// What is known of one `transactional.id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The producer that may write.
    pub producer_id: i64,
    /// The one before it, -1 if there was none.
    pub previous_producer_id: i64,
    /// The one that takes over once this end is complete, -1 if none does.
    pub next_producer_id: i64,
    /// The producer's epoch.
    pub epoch: i16,
    /// The epoch that it asked to go on from (KIP-360), -1 if it did not; not recorded.
    pub last_epoch: i16,
    /// The client's `transaction.timeout.ms`.
    pub timeout_ms: i32,
    /// Where it stands.
    pub state: State,
    /// What the open transaction has written to, or is about to.
    pub partitions: BTreeSet<TopicPartition>,
    /// When it began, on broker time; -1 if none did.
    pub start_ms: i64,
    /// When anything of this changed last, on broker time.
    pub updated_ms: i64,
    /// The `transaction.version` by which the client last went: 2 if its epoch rises at each end, else 0.
    pub version: i16,
    /// The open transaction's number in this process; not recorded.
    pub serial: Option<Serial>,
    /// When the open transaction has lasted too long (CLOCK_BOOTTIME ms); not recorded.
    pub due_ms: i64,
}

impl Default for Transaction {
    fn default() -> Transaction {
        Transaction {
            producer_id: -1,
            previous_producer_id: -1,
            next_producer_id: -1,
            epoch: -1,
            last_epoch: -1,
            timeout_ms: 0,
            state: State::Empty,
            partitions: BTreeSet::new(),
            start_ms: -1,
            updated_ms: 0,
            version: 0,
            serial: None,
            due_ms: i64::MAX,
        }
    }
}

/// What comes of a question.
#[derive(Debug)]
pub enum Verdict {
    /// Nothing changes.
    Told(Response),
    /// It becomes this; then, and only then, the answer is given.
    Becomes(Transaction, Response),
    /// It becomes this first; then the same is to be asked again.
    First(Transaction),
    /// An end is under way; the same is to be asked again after it.
    Later,
    /// A new producer id is needed, and none is at hand.
    Starved,
}

/// An epoch from which none is given out any more: the last one of all is for fencing.
fn is_exhausted(epoch: i16) -> bool {
    epoch >= i16::MAX - 1
}

impl Transaction {
    /// An id that nobody has heard of, or one whose producer begins anew.
    pub fn init(
        known: Option<&Transaction>,
        timeout_ms: i32,
        expected: Option<(i64, i16)>,
        env: &Env<'_>,
        spare_id: &mut Option<i64>,
    ) -> Verdict {
        let fenced = || Verdict::Told(Response::Init(Err(ErrorCode::ProducerFenced)));
        let begin = |producer_id, epoch, last_epoch| {
            let next = Transaction {
                producer_id,
                previous_producer_id: known.map_or(-1, |known| known.producer_id),
                epoch,
                last_epoch,
                timeout_ms,
                updated_ms: env.time_ms,
                version: known.map_or(0, |known| known.version),
                ..Transaction::default()
            };
            Verdict::Becomes(next, Response::Init(Ok((producer_id, epoch))))
        };
        let Some(known) = known else {
            return match spare_id.take() {
                Some(id) => begin(id, 0, -1),
                None => Verdict::Starved,
            };
        };
        if known.state.ending().is_some() {
            return Verdict::Later;
        }
        // A retry may come after the last epoch's successor was given a new id.
        let may_be = |(id, epoch): &(i64, i16)| {
            *id == known.producer_id || *id == known.previous_producer_id && is_exhausted(*epoch)
        };
        if expected.is_some_and(|expected| !may_be(&expected)) {
            return fenced();
        }
        let expected = expected.map(|(_, epoch)| epoch);
        let is_current = expected.is_none_or(|epoch| epoch == known.epoch);
        match expected {
            // Kafka ends the transaction of who came after before it says the same.
            Some(epoch) if !is_current && epoch != known.last_epoch => fenced(),
            _ if known.state == State::Ongoing => match known.fenced(env, spare_id) {
                Some(next) => Verdict::First(next),
                None => Verdict::Starved,
            },
            Some(_) if !is_current => begin(known.producer_id, known.epoch, known.last_epoch),
            _ if is_exhausted(known.epoch) => match spare_id.take() {
                Some(id) => begin(id, 0, expected.unwrap_or(-1)),
                None => Verdict::Starved,
            },
            _ => begin(known.producer_id, known.epoch + 1, expected.unwrap_or(-1)),
        }
    }

    /// Whether this is its producer.
    fn check(&self, producer: &Producer) -> Result<(), ErrorCode> {
        if self.producer_id != producer.id {
            return Err(ErrorCode::InvalidProducerIdMapping);
        }
        match self.epoch == producer.epoch {
            true => Ok(()),
            false => Err(ErrorCode::ProducerFenced),
        }
    }

    /// Makes partitions part of the open transaction, or opens one, which is then known as `serial`.
    pub fn enlist(
        &self,
        producer: &Producer,
        partitions: &[TopicPartition],
        bumps: bool,
        serial: Serial,
        env: &Env<'_>,
    ) -> Verdict {
        if self.state.ending().is_some() {
            return Verdict::Later;
        }
        if let Err(code) = self.check(producer) {
            return Verdict::Told(Response::Enlisted(Err(code)));
        }
        let mut next = self.clone();
        next.partitions.extend(partitions.iter().cloned());
        let serial = match (self.state, self.serial) {
            (State::Ongoing, Some(serial)) if next.partitions == self.partitions => {
                return Verdict::Told(Response::Enlisted(Ok(serial)));
            }
            (State::Ongoing, Some(serial)) => serial,
            _ => {
                next.start_ms = env.time_ms;
                next.due_ms = env.now_ms.saturating_add(self.timeout_ms.into());
                serial
            }
        };
        next.state = State::Ongoing;
        next.serial = Some(serial);
        next.updated_ms = env.time_ms;
        next.version = if bumps { 2 } else { 0 };
        Verdict::Becomes(next, Response::Enlisted(Ok(serial)))
    }

    /// Says which partitions are part of the open transaction.
    pub fn verify(&self, producer: &Producer, partitions: &[TopicPartition]) -> Response {
        let part_of = |partition| self.partitions.contains(partition);
        Response::Verified(match self.check(producer) {
            Ok(()) if self.state.ending().is_some() => Err(ErrorCode::ConcurrentTransactions),
            Ok(()) => Ok(partitions.iter().map(part_of).collect()),
            Err(code) => Err(code),
        })
    }

    /// Ends the transaction. With `bumps` even one to which nothing was added may be aborted, and what was answered
    /// already is known by the epoch before.
    pub fn end(
        &self,
        producer: &Producer,
        commit: bool,
        bumps: bool,
        env: &Env<'_>,
        spare_id: &mut Option<i64>,
    ) -> Verdict {
        let told = |answer| Verdict::Told(Response::Ended(answer));
        let invalid = || told(Err(ErrorCode::InvalidTxnState));
        let is_same = self.producer_id == producer.id;
        let is_current = is_same && self.epoch == producer.epoch;
        let is_bumped = is_same && producer.epoch.checked_add(1) == Some(self.epoch);
        let is_replaced = self.epoch == 0
            && self.previous_producer_id == producer.id
            && producer.epoch == i16::MAX - 1;
        // By an end of the older flow no epoch rose: whoever has the one before was fenced.
        let is_raised = bumps && self.version == 2;
        let is_retry = is_raised && (is_bumped || is_replaced && self.state.ended().is_some());
        // The next transaction's end, of the id that the answer to this one's has told.
        let is_next = bumps
            && self.next_producer_id >= 0
            && (self.next_producer_id, 0) == (producer.id, producer.epoch);
        if !is_same && !is_retry && !is_next {
            return told(Err(ErrorCode::InvalidProducerIdMapping));
        }
        let may_repeat = !matches!(self.state, State::Empty | State::Ongoing);
        if !is_current && !(may_repeat && (is_retry || is_next)) {
            return told(Err(ErrorCode::ProducerFenced));
        }
        match (self.state, self.state.ended()) {
            (State::PrepareCommit | State::PrepareAbort, _) => return Verdict::Later,
            (State::Ongoing, _) => {}
            (_, Some(ended)) if is_retry || !bumps => {
                return match ended == commit {
                    true => told(Ok((self.producer_id, self.epoch))),
                    false => invalid(),
                };
            }
            _ if bumps && !commit => {}
            _ => return invalid(),
        }
        let mut next = self.ending(commit, env);
        if bumps {
            next.next_producer_id = match is_exhausted(self.epoch) {
                true => match spare_id.take() {
                    Some(id) => id,
                    None => return Verdict::Starved,
                },
                false => -1,
            };
            (next.epoch, next.last_epoch) = (self.epoch.saturating_add(1), self.epoch);
        }
        next.version = if bumps { 2 } else { 0 };
        let answer = match next.next_producer_id {
            -1 => (next.producer_id, next.epoch),
            id => (id, 0),
        };
        Verdict::Becomes(next, Response::Ended(Ok(answer)))
    }

    /// Aborts the open transaction, and leaves its producer behind by two epochs, as Kafka does: by one it would take
    /// this for an end of its own. `None` if that takes a new producer id, and none is at hand.
    pub fn fenced(&self, env: &Env<'_>, spare_id: &mut Option<i64>) -> Option<Transaction> {
        let mut next = self.ending(false, env);
        let fence = self.epoch.saturating_add(1);
        if is_exhausted(fence) {
            next.next_producer_id = spare_id.take()?;
        }
        (next.epoch, next.last_epoch, next.version) = (fence.saturating_add(1), -1, 2);
        Some(next)
    }

    fn ending(&self, commit: bool, env: &Env<'_>) -> Transaction {
        let mut next = self.clone();
        next.state = match commit {
            true => State::PrepareCommit,
            false => State::PrepareAbort,
        };
        if self.state != State::Ongoing {
            next.start_ms = env.time_ms;
        }
        next.updated_ms = env.time_ms;
        next
    }

    /// Every marker is written.
    pub fn completed(&self, commit: bool, env: &Env<'_>) -> Transaction {
        let mut next = self.clone();
        next.state = match commit {
            true => State::CompleteCommit,
            false => State::CompleteAbort,
        };
        if self.version == 2 {
            next.previous_producer_id = self.producer_id;
        }
        if self.next_producer_id >= 0 {
            (next.producer_id, next.epoch) = (self.next_producer_id, 0);
            next.next_producer_id = -1;
        }
        next.partitions.clear();
        (next.serial, next.due_ms) = (None, i64::MAX);
        next.updated_ms = env.time_ms;
        next
    }

    /// Whether what a producer has open in a log at `epoch` is of the transaction that is open, or about to end. At
    /// another epoch it is of an earlier one, whose marker was lost.
    pub fn holds(&self, partition: &TopicPartition, producer_id: i64, epoch: i16) -> bool {
        let is_its_epoch = match (self.state, self.version) {
            (State::Ongoing, _) | (State::PrepareCommit, ..2) => epoch == self.epoch,
            (State::PrepareCommit, _) => epoch.checked_add(1) == Some(self.epoch),
            (State::PrepareAbort, _) => epoch <= self.epoch,
            _ => false,
        };
        is_its_epoch && self.producer_id == producer_id && self.partitions.contains(partition)
    }

    /// What is known where the newest record was lost, as the logs, which hold a later epoch, show: nobody is to go on
    /// below that, and what the lost records opened is no more known than how it ended.
    pub fn overtaken(&self, epoch: i16) -> Transaction {
        Transaction {
            producer_id: self.producer_id,
            previous_producer_id: self.previous_producer_id,
            epoch,
            timeout_ms: self.timeout_ms,
            updated_ms: self.updated_ms,
            version: self.version,
            ..Transaction::default()
        }
    }

    /// The transaction that ended last, or is about to: whose batches, at which epoch, and whether they count.
    pub fn outcome(&self) -> Option<(i64, i16, bool)> {
        let commit = self.state.ending().or(self.state.ended())?;
        Some(match (self.version, self.epoch) {
            (2, 0) => (self.previous_producer_id, i16::MAX - 1, commit),
            (2, epoch) => (self.producer_id, epoch.saturating_sub(1), commit),
            (_, epoch) => (self.producer_id, epoch, commit),
        })
    }

    /// The markers that end it.
    pub fn marks(&self, commit: bool) -> Vec<Mark> {
        let mark = |serial| {
            let partitions = self.partitions.iter().cloned();
            partitions.map(move |partition| Mark {
                partition,
                producer_id: self.producer_id,
                epoch: self.epoch,
                commit,
                serial,
                coordinator_epoch: None,
            })
        };
        self.serial.into_iter().flat_map(mark).collect()
    }

    /// Whether nobody has used it for long.
    pub fn has_expired(&self, env: &Env<'_>) -> bool {
        let age_ms = env.time_ms.saturating_sub(self.updated_ms);
        let is_idle = self.state == State::Empty || self.state.ended().is_some();
        is_idle && age_ms >= i64::from(env.config.transactional_id_expiration_ms)
    }

    /// About how much memory it takes; its record is never longer.
    pub fn bytes(&self) -> usize {
        let partitions = self.partitions.iter();
        256 + partitions.map(|(topic, _)| 64 + topic.len()).sum::<usize>()
    }
}
