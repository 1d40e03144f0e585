//! The writer: THE durability file. One thread owns every log; it appends what all producers sent in turns, and
//! each turn is one group commit.
//!
//! Owns: every [`Log`], from [`Job::Adopt`] to the clean stop. Invariants:
//! 1. An `acks=all` answer carries a [`Durable`], and only a turn's sync (or the topic's own flush settings,
//!    which trade it away) makes one.
//! 2. A turn syncs everything that it wrote before the next turn writes, so a partition never has more than a
//!    turn's bytes, [`TURN_BYTES_PER_PARTITION_MAX`] or one batch, that a power cut may tear (promise P5). Topics
//!    whose flush settings trade durability away are outside this bound.
//! 3. A failed sync ends the process (P6): the page cache proves nothing afterwards.
//! 4. Completions are pushed in log order and never block; the writer runs no foreign code.
//!
//! May lose data: L1 (`acks=0`), L7 (a failed sync), L10 (a write that fails half way: the log cuts it back).
//!
//! ```text
//! take -> stage -> write -> answer acks=1 -> sync -> publish -> answer acks=all -> wake
//! ```
//! While one turn syncs, the batches of the next one collect in the [`Queue`].

mod pace;
mod queue;
mod upkeep;

pub use pace::Pace;
pub use queue::{
    Acks, Append, Appended, Caller, Completion, Durable, Job, NewStart, Queue, Refusal,
};
pub use upkeep::{FlushPolicy, RecoveryPoint, RecoveryPoints};

use crate::cleaner;
use crate::clock::Clock;
use crate::config;
use crate::control::{self, Answer};
use crate::error::{ErrorCode, Result};
use crate::seldom::Seldom;
use crate::storage::{Log, Partition, Staged, Status, SyncItem, Trash};
use crate::sync::{self, Syncer};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What one turn takes of one partition at most, a single larger batch apart: promise P5's `T`.
pub const TURN_BYTES_PER_PARTITION_MAX: u64 = 4 * 1024 * 1024;

/// A roll makes files and a snapshot: with tiny segments one partition's rolls must not make a turn long.
const ROLLS_PER_TURN_MAX: usize = 2;

/// How often recovery points are handed over to be saved (Kafka's `log.flush.offset.checkpoint.interval.ms`).
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(60);

/// How soon after a roll they are: once for many rolls.
const CHECKPOINT_AFTER_ROLL: Duration = Duration::from_secs(1);

/// One log in the writer's hands.
struct Held {
    partition: Arc<Partition>,
    log: Log,
    flush: FlushPolicy,
    waiting: VecDeque<Append>,
    dirty_since: Option<Instant>,
}

/// A batch that is in its log's staging, or the retry of one that is; an [`Append`] without its batch.
struct Placed {
    acks: Acks,
    completion: Completion,
    appended: Appended,
}

/// One log's share of a turn.
struct Share {
    serial: u64,
    placed: Vec<Placed>,
    /// Whether anything is to be written: a retry waits only for an original of this very turn.
    has_new: bool,
}

/// The writer's thread; made with the logs that recovery opened.
pub struct Writer {
    queue: Arc<Queue>,
    control: Arc<control::Mailbox>,
    cleaner: Arc<cleaner::Bell>,
    clock: Arc<Clock>,
    syncer: Syncer,
    held: HashMap<u64, Held>,
    /// Logs with waiting appends, in the order in which they get their turn; internal ones go to the front.
    ready: VecDeque<u64>,
    pace: Pace,
    /// Logs that were written and not synced, since their flush settings do not ask for it yet.
    lagging: HashSet<u64>,
    /// Sealed indexes and snapshots that are to be synced before the next recovery points.
    hints: Vec<SyncItem>,
    /// The files of removed segments.
    trash: Trash,
    /// Whether a recovery point moved since the last were handed over.
    has_moved: bool,
    next_checkpoint: Instant,
    /// When to look for idle producers; not while none is known.
    next_expiry: Option<Instant>,
    settings: Arc<config::Published>,
}

impl Writer {
    /// A writer that takes its work from `queue`, reports recovery points to `control` and rings `cleaner` when there
    /// may be more to compact.
    pub fn new(
        queue: Arc<Queue>,
        control: Arc<control::Mailbox>,
        clock: Arc<Clock>,
        settings: Arc<config::Published>,
        cleaner: Arc<cleaner::Bell>,
    ) -> Writer {
        Writer {
            queue,
            control,
            clock,
            cleaner,
            syncer: Syncer::default(),
            held: HashMap::new(),
            ready: VecDeque::new(),
            pace: Pace::default(),
            lagging: HashSet::new(),
            hints: Vec::new(),
            trash: Trash::default(),
            has_moved: false,
            next_checkpoint: Instant::now() + CHECKPOINT_INTERVAL,
            next_expiry: None,
            settings,
        }
    }

    /// Runs until the queue is closed and empty, then syncs and closes every log.
    ///
    /// Returns the recovery points at the end, by topic and partition; an error means that the stop was not
    /// clean, and no clean-shutdown marker may be written (L8).
    pub fn run(mut self) -> Result<RecoveryPoints> {
        loop {
            let wake_at = self.next_deadline();
            let (jobs, open) = self
                .queue
                .collect(&self.pace, wake_at, !self.ready.is_empty());
            jobs.into_iter().for_each(|job| self.accept(job));
            self.turn();
            self.flush_what_is_due();
            self.expire_producers();
            if !open && self.ready.is_empty() {
                return self.close();
            }
        }
    }

    fn accept(&mut self, job: Job) {
        match job {
            Job::Append(append) => self.enqueue(append),
            Job::Adopt {
                partition,
                log,
                flush,
            } => self.adopt(partition, *log, flush),
            Job::Configure {
                partition,
                settings,
                flush,
            } => self.configure(partition.serial, settings, flush),
            Job::Drop {
                partitions,
                mailbox,
            } => {
                partitions
                    .iter()
                    .for_each(|partition| self.drop_log(partition));
                mailbox.dropped();
            }
            Job::RaiseStarts {
                starts,
                mailbox,
                reply,
            } => mailbox.starts_planned(self.plan_starts(starts), reply),
            Job::RemovePassed { starts, answer } => {
                for (partition, start) in starts {
                    self.remove_passed(partition.serial, start);
                }
                if let Some((reply, starts)) = answer {
                    control::answer(reply, Answer::LogStarts(starts));
                }
            }
            Job::Swap {
                partition,
                rewrite,
                answer,
            } => self.swap(partition.serial, &rewrite, &answer),
            Job::Roll {
                partition,
                segment,
                answer,
            } => self.roll(partition.serial, segment, &answer),
            Job::RaiseEpoch { partition, epoch } => self.raise_epoch(&partition, epoch),
            Job::ListLast { partition, answer } => self.list_last(partition.serial, &answer),
            Job::ListProducers { partitions, reply } => {
                let producers = |partition: &Arc<Partition>| match self.held.get(&partition.serial)
                {
                    Some(held) => Ok(held.log.active_producers()),
                    None => Err(ErrorCode::UnknownTopicOrPartition),
                };
                let listed = partitions.iter().map(producers).collect();
                control::answer(reply, Answer::Producers(listed));
            }
        }
    }

    fn adopt(&mut self, partition: Arc<Partition>, log: Log, flush: FlushPolicy) {
        let held = Held {
            partition,
            log,
            flush,
            waiting: VecDeque::new(),
            dirty_since: None,
        };
        let (serial, start) = (held.partition.serial, held.log.log_start());
        self.held.insert(serial, held);
        // A stop may have come between a log start and what went with it.
        self.remove_passed(serial, start);
        self.await_expiry(serial);
    }

    fn enqueue(&mut self, append: Append) {
        let serial = append.partition.serial;
        let Some(held) = self.held.get_mut(&serial) else {
            return append
                .completion
                .refused(&mut self.pace, ErrorCode::UnknownTopicOrPartition.into());
        };
        if held.waiting.is_empty() {
            match held.partition.is_internal() {
                true => self.ready.push_front(serial),
                false => self.ready.push_back(serial),
            }
        }
        held.waiting.push_back(append);
    }

    /// One group commit, top to bottom.
    fn turn(&mut self) {
        let started = Instant::now();
        let (taken, bytes) = self.take();
        if taken.is_empty() {
            return;
        }
        let mut shares = Vec::with_capacity(taken.len());
        for (serial, appends) in taken {
            shares.push(self.stage(serial, appends));
        }
        shares.retain_mut(|share| self.write(share));
        shares
            .iter_mut()
            .for_each(|share| self.answer_written(share));
        let synced = shares
            .iter()
            .map(|share| share.serial)
            .filter(|serial| self.must_sync(*serial))
            .collect();
        self.sync(synced);
        self.pace.turn_took(bytes, started.elapsed());
        shares.iter().for_each(|share| self.publish(share.serial));
        for share in shares {
            self.await_expiry(share.serial);
            self.answer_durable(share);
        }
        self.pace.turn_ended();
    }

    /// Takes this turn's batches: round-robin over partitions, each at most T, all at most what the device
    /// takes in about 200 ms.
    fn take(&mut self) -> (Vec<(u64, Vec<Append>)>, u64) {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        for _ in 0..self.ready.len() {
            if bytes >= self.pace.turn_bytes_max() {
                break;
            }
            let serial = self
                .ready
                .pop_front()
                .expect("the loop runs once for each ready log");
            let held = self.held.get_mut(&serial).expect("a ready log is held");
            let (mut share, mut share_bytes) = (Vec::new(), 0);
            while let Some(next) = held.waiting.front() {
                let len = next.batch.total_bytes() as u64;
                if !share.is_empty() && share_bytes + len > TURN_BYTES_PER_PARTITION_MAX {
                    break;
                }
                share_bytes += len;
                share.extend(held.waiting.pop_front());
            }
            if !held.waiting.is_empty() {
                self.ready.push_back(serial);
            }
            bytes += share_bytes;
            taken.push((serial, share));
        }
        (taken, bytes)
    }

    /// Checks sequences and assigns offsets; refusals, and retries of what is already settled, are answered here.
    fn stage(&mut self, serial: u64, appends: Vec<Append>) -> Share {
        let held = self
            .held
            .get_mut(&serial)
            .expect("a log that was taken from is held");
        let leader_epoch = held.partition.snapshot().leader_epoch;
        let now_ms = self.clock.now().time_ms;
        let mut share = Share {
            serial,
            placed: Vec::with_capacity(appends.len()),
            has_new: false,
        };
        let mut appends = appends.into_iter();
        while held.log.rolls_staged() < ROLLS_PER_TURN_MAX
            && let Some(Append {
                batch,
                transaction,
                acks,
                completion,
                ..
            }) = appends.next()
        {
            let mut appended = Appended {
                base_offset: 0,
                append_time: batch.log_append_time(),
                log_start: held.log.log_start(),
                durable: None,
            };
            // P6: a duplicate is answered only on the ground of a settled original.
            let settled_end = match held.flush.every_turn() {
                true => held.log.synced_end(),
                false => held.log.appended_end(),
            };
            match held.log.stage(batch, transaction, leader_epoch, now_ms) {
                Err(refused) => completion.refused(&mut self.pace, refused.into()),
                Ok(Staged::Duplicate {
                    base_offset,
                    last_offset,
                    append_time,
                }) if last_offset < settled_end => {
                    (appended.base_offset, appended.append_time) = (base_offset, append_time);
                    appended.durable = Some(Durable::settled());
                    completion.appended(&mut self.pace, appended);
                }
                Ok(Staged::Duplicate {
                    base_offset,
                    append_time,
                    ..
                }) => {
                    (appended.base_offset, appended.append_time) = (base_offset, append_time);
                    share.placed.push(Placed {
                        acks,
                        completion,
                        appended,
                    });
                }
                Ok(Staged::New { base_offset, .. }) => {
                    appended.base_offset = base_offset;
                    share.has_new = true;
                    share.placed.push(Placed {
                        acks,
                        completion,
                        appended,
                    });
                }
            }
        }
        self.put_back(serial, appends.collect());
        share
    }

    /// What a turn took and did not stage waits for the next one, in front of what came since.
    fn put_back(&mut self, serial: u64, appends: VecDeque<Append>) {
        if appends.is_empty() {
            return;
        }
        let held = self
            .held
            .get_mut(&serial)
            .expect("a log that was taken from is held");
        if held.waiting.is_empty() {
            self.ready.push_back(serial);
        }
        let since = std::mem::replace(&mut held.waiting, appends);
        held.waiting.extend(since);
    }

    /// Writes what was staged; a log that fails has cut itself back, and its producers hear KAFKA_STORAGE_ERROR.
    /// Says whether the share goes on to the sync.
    fn write(&mut self, share: &mut Share) -> bool {
        if !share.has_new {
            debug_assert!(
                share.placed.is_empty(),
                "a retry waits for an original of its own turn"
            );
            return false;
        }
        let held = self
            .held
            .get_mut(&share.serial)
            .expect("a staged log is held");
        let Err(error) = held.log.write_staged() else {
            held.dirty_since.get_or_insert_with(Instant::now);
            return true;
        };
        let (topic, index) = (&held.partition.topic, held.partition.index);
        static FAILED: Seldom = Seldom::new();
        FAILED.error(format_args!(
            "{topic}-{index}: a write failed and was taken back: {error}"
        ));
        if held.log.is_offline() {
            held.partition.set_status(Status::Offline);
        }
        for placed in share.placed.drain(..) {
            placed
                .completion
                .refused(&mut self.pace, ErrorCode::KafkaStorageError.into());
        }
        false
    }

    /// `acks=1`: the bytes are in the page cache. The appended end is published first, so that a consumer
    /// who asks next is told to wait rather than that the offset does not exist (P2).
    fn answer_written(&mut self, share: &mut Share) {
        if share
            .placed
            .iter()
            .any(|placed| placed.acks == Acks::Leader)
        {
            self.publish(share.serial);
        }
        let is_written = |placed: &mut Placed| placed.acks == Acks::Leader;
        for placed in share.placed.extract_if(.., is_written) {
            placed.completion.appended(&mut self.pace, placed.appended);
        }
    }

    fn must_sync(&self, serial: u64) -> bool {
        let held = &self.held[&serial];
        held.log.unsynced_messages() >= held.flush.messages
            || held
                .flush
                .after
                .zip(held.dirty_since)
                .is_some_and(|(limit, since)| since.elapsed() >= limit)
    }

    /// Makes the named logs durable.
    fn sync(&mut self, serials: Vec<u64>) {
        let unsynced = |serial: &u64| self.held[serial].log.unsynced();
        let items: Vec<SyncItem> = serials.iter().flat_map(unsynced).collect();
        if items.is_empty() {
            return;
        }
        let started = Instant::now();
        self.sync_items(items);
        self.pace.sync_took(started.elapsed());
        self.has_moved = true;
        for serial in serials {
            let held = self
                .held
                .get_mut(&serial)
                .expect("a log that was synced is held");
            held.log.mark_synced();
            held.dirty_since = None;
        }
    }

    /// Makes files and directories durable, or ends the process (P6).
    fn sync_items(&self, items: Vec<SyncItem>) {
        let synced = self.syncer.sync_all(items);
        synced.unwrap_or_else(|error| sync::end_process(&error));
    }

    fn publish(&self, serial: u64) {
        let held = &self.held[&serial];
        held.partition.publish(held.log.view());
    }

    fn answer_durable(&mut self, share: Share) {
        for Placed {
            completion,
            mut appended,
            ..
        } in share.placed
        {
            appended.durable = Some(Durable::settled());
            completion.appended(&mut self.pace, appended);
        }
        let held = self
            .held
            .get_mut(&share.serial)
            .expect("a log that was written is held");
        if held.dirty_since.is_some() {
            self.lagging.insert(share.serial);
        }
        // Hints only, and never in an acknowledgement's path: what fails here is rebuilt at the next start.
        if let Err(error) = held.log.flush_indexes() {
            let (topic, index) = (&held.partition.topic, held.partition.index);
            static UNWRITTEN: Seldom = Seldom::new();
            UNWRITTEN.warn(format_args!(
                "{topic}-{index}: index entries were not written: {error}"
            ));
        }
        let sealed = held.log.take_hints();
        if !sealed.is_empty() {
            // After a roll the next start need not read the sealed segment: soon, but not once for each of many.
            let soon = Instant::now() + CHECKPOINT_AFTER_ROLL;
            self.next_checkpoint = self.next_checkpoint.min(soon);
            if held.log.is_compacted() {
                self.cleaner.ring();
            }
        }
        self.hints.extend(sealed);
    }
}
