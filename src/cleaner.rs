//! The cleaner: the one thread that looks for what has grown old, and prepares its removal.
//!
//! Owns: nothing that others see. It reads published views and broker time, decides, and asks the writer, which alone
//! changes a log and refuses what its log no longer fits (promise P4). It tells nobody the outcome: the next look
//! shows it. Invariants: but for compaction and the scrub it looks at memory alone, so an idle broker's disk sleeps on;
//! it sleeps between looks until the writer rings; it ends before the writer closes.

mod choice;
mod compaction;
mod pace;
mod scrub;

use crate::broker::Broker;
use crate::config::TopicConfig;
use crate::lock::{Mutex, Rank};
use crate::storage::retention::Limits;
use crate::storage::{Partition, Snapshot, Status};
use crate::sys;
use crate::writer::{Job, NewStart};
use compaction::Compaction;
use scrub::Scrub;
use std::collections::BTreeSet;
use std::sync::{Arc, Condvar};
use std::time::{Duration, Instant};

/// The first look comes no later than this after the start (Kafka's `InitialTaskDelayMs`): a broker that is restarted
/// often must clean too.
const FIRST_LOOK_AFTER_MAX: Duration = Duration::from_secs(30);

/// What wakes and ends the cleaner's thread; shared with the writer, and with the thread that stops the broker.
pub struct Bell {
    /// Guards what the cleaner is to know.
    calls: Mutex<Calls>,
    rung: Condvar,
}

#[derive(Default)]
struct Calls {
    stopping: bool,
    rung: bool,
    /// The serials of logs in which something was found that is no batch.
    suspects: BTreeSet<u64>,
}

/// Why a sleep ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Woken {
    ByTime,
    ByBell,
    ToStop,
}

impl Default for Bell {
    fn default() -> Bell {
        Bell {
            calls: Mutex::new(Rank::Cleaner, Calls::default()),
            rung: Condvar::new(),
        }
    }
}

impl Bell {
    /// The cleaner shall end as soon as it can.
    pub fn stop(&self) {
        self.calls.lock().stopping = true;
        self.rung.notify_one();
    }

    /// There may be more to compact.
    pub fn ring(&self) {
        let was_rung = std::mem::replace(&mut self.calls.lock().rung, true);
        if !was_rung {
            self.rung.notify_one();
        }
    }

    /// A reader found in this log what is no batch.
    pub fn suspect(&self, partition: &Partition) {
        self.calls.lock().suspects.insert(partition.serial);
        self.ring();
    }

    fn take_suspects(&self) -> Vec<u64> {
        let suspects = std::mem::take(&mut self.calls.lock().suspects);
        suspects.into_iter().collect()
    }

    /// Whether it shall end: asked wherever work may be long.
    pub fn is_stopping(&self) -> bool {
        self.calls.lock().stopping
    }

    /// Sleeps until `at`, or less long if it is rung.
    fn sleep_until(&self, at: Instant) -> Woken {
        let mut calls = self.calls.lock();
        loop {
            let left = at.saturating_duration_since(Instant::now());
            if calls.stopping {
                return Woken::ToStop;
            } else if std::mem::take(&mut calls.rung) {
                return Woken::ByBell;
            } else if left.is_zero() {
                return Woken::ByTime;
            }
            calls = calls.wait_for(&self.rung, left);
        }
    }

    /// Sleeps for so long, whoever rings; whether the cleaner is to go on then.
    fn rest(&self, rest: Duration) -> bool {
        let began = Instant::now();
        let mut calls = self.calls.lock();
        while !calls.stopping
            && let Some(left) = rest.checked_sub(began.elapsed())
            && !left.is_zero()
        {
            calls = calls.wait_for(&self.rung, left);
        }
        !calls.stopping
    }
}

/// The thread's own state.
pub struct Cleaner {
    broker: Arc<Broker>,
    bell: Arc<Bell>,
    retention: Retention,
    compaction: Compaction,
    scrub: Scrub,
}

impl Cleaner {
    /// A cleaner that works until `bell` ends it.
    pub fn new(broker: Arc<Broker>, bell: Arc<Bell>) -> Cleaner {
        let first = retention_interval(&broker).min(FIRST_LOOK_AFTER_MAX);
        Cleaner {
            retention: Retention {
                broker: broker.clone(),
                next: Instant::now() + first,
            },
            compaction: Compaction::load(&broker),
            scrub: Scrub::load(&broker),
            broker,
            bell,
        }
    }

    /// Runs until it is told to end.
    pub fn run(mut self) {
        sys::lower_priority();
        loop {
            let looks = [self.compaction.next_look(), self.scrub.next_look()];
            let next = looks.into_iter().flatten().min();
            let next = next.unwrap_or(self.retention.next).min(self.retention.next);
            match self.bell.sleep_until(next) {
                Woken::ToStop => return,
                Woken::ByBell => {
                    self.compaction.look_soon(&self.broker);
                    self.scrub.heed(self.bell.take_suspects());
                }
                Woken::ByTime => {}
            }
            if self.retention.look_if_due() {
                self.compaction.look_soon(&self.broker);
            }
            if self
                .compaction
                .next_look()
                .is_some_and(|at| at <= Instant::now())
            {
                // A pass may take hours, and a disk be full in less.
                let mut meanwhile = || {
                    self.retention.look_if_due();
                };
                self.compaction
                    .run(&self.broker, &self.bell, &mut meanwhile);
            }
            let mut meanwhile = || {
                self.retention.look_if_due();
            };
            self.scrub.work(&self.broker, &self.bell, &mut meanwhile);
        }
    }
}

/// What the cleaner does for retention.
struct Retention {
    broker: Arc<Broker>,
    next: Instant,
}

impl Retention {
    /// Looks if it is time to; says whether it was.
    fn look_if_due(&mut self) -> bool {
        let is_due = self.next <= Instant::now();
        if is_due {
            self.retain();
            self.next = Instant::now() + retention_interval(&self.broker);
        }
        is_due
    }

    /// Asks for the removal of the segments that are beyond their topics' limits. Never of internal topics', of which
    /// every record counts until compaction finds a newer one.
    fn retain(&self) {
        let time_ms = self.broker.clock.now().time_ms;
        let catalog = self.broker.catalog.get();
        let mut starts = Vec::new();
        for topic in catalog.topics().filter(|topic| !topic.is_internal()) {
            let limits = limits(&topic.config);
            for partition in &topic.partitions {
                let Snapshot { view, status, .. } = partition.snapshot();
                let last = view.last_to_go(&limits, time_ms);
                if let Some(last) = last.filter(|_| status == Status::Online) {
                    starts.push((partition.clone(), NewStart::Behind(last)));
                }
            }
        }
        if !starts.is_empty() {
            self.broker.writer.submit([Job::RaiseStarts {
                starts,
                mailbox: self.broker.control.clone(),
                reply: None,
            }]);
        }
    }
}

/// A topic's limits. Where `cleanup.policy` does not name `delete`, all that is above the log start is kept.
fn limits(config: &TopicConfig) -> Limits {
    let deletes = config.cleanup_policy.delete;
    let bytes = u64::try_from(config.retention_bytes).ok();
    Limits {
        age_ms: Some(config.retention_ms).filter(|age_ms| deletes && *age_ms >= 0),
        bytes: bytes.filter(|_| deletes),
        timestamp_after_max_ms: config.timestamp_after_max_ms,
    }
}

/// `log.retention.check.interval.ms`, as far as a clock can tell.
fn retention_interval(broker: &Broker) -> Duration {
    const DAY_MS: i64 = 86_400_000;
    let interval_ms = broker.config().retention_check_interval_ms.min(DAY_MS);
    Duration::from_millis(interval_ms as u64)
}
