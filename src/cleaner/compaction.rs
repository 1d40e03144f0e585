//! Compaction on the cleaner's thread: which log, how fast, and what is remembered of it.
//!
//! Owns: where each log's uncompacted part begins, kept in Kafka's `cleaner-offset-checkpoint`, a hint: without it
//! everything counts as uncompacted. A pass itself is `storage::compaction`'s; the writer puts its results in place.
//!
//! When it looks: when the writer rings, for a compacted log got a new sealed segment or new settings; when time alone
//! makes something due; and beside each look of retention. After a look with nothing to do it sleeps for
//! `log.cleaner.backoff.ms` at least, whatever rings.

use super::Bell;
use super::choice::{Dirt, Extents, Facts, dirt};
use super::pace::Pace;
use crate::broker::Broker;
use crate::catalog::Topic;
use crate::config::{Config, TopicConfig};
use crate::control::log_settings;
use crate::storage::checkpoint::{CLEANER_OFFSETS, Offsets, read_offsets, write_offsets};
use crate::storage::compaction::{self, Failed, Replacement, Stopped};
use crate::storage::segment::{Extent, header_at};
use crate::storage::{Partition, Rewrite, Status, View};
use crate::writer::Job;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A log that could not be compacted, since the disk is full or it is damaged, is left alone for so long.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(600);

/// The longest sleep, so that no sum of times can overflow.
const WAIT_MS_MAX: i64 = 86_400_000;

/// What compaction remembers from pass to pass.
pub struct Compaction {
    path: PathBuf,
    /// Where the uncompacted part begins, by partition serial.
    first_dirty: HashMap<u64, i64>,
    /// When a log that failed may be tried again, by partition serial.
    paused: HashMap<u64, Instant>,
    /// The timestamps of segments' first batches, by segment serial.
    first_times: HashMap<u64, i64>,
    last_look: Option<Instant>,
    next_look: Option<Instant>,
}

/// A log, and what there is to do in it.
struct Candidate {
    topic: Arc<Topic>,
    partition: Arc<Partition>,
    view: Arc<View>,
    dirt: Dirt,
}

impl Compaction {
    /// Remembers what the last run saved. Of the topics that there are now: a later one of the same name is another.
    pub fn load(broker: &Broker) -> Compaction {
        let path = broker.config().data_dir.join(CLEANER_OFFSETS);
        let found = read_offsets(&path).unwrap_or_else(|error| {
            log::warn!("{error}; going on without it");
            Offsets::new()
        });
        let catalog = broker.catalog.get();
        let partitions = catalog.topics().flat_map(|topic| &topic.partitions);
        let line = |p: &Arc<Partition>| {
            let offset = found.get(&(p.topic.to_string(), p.index))?;
            Some((p.serial, *offset))
        };
        Compaction {
            path,
            first_dirty: partitions.filter_map(line).collect(),
            paused: HashMap::new(),
            first_times: HashMap::new(),
            last_look: None,
            next_look: Some(Instant::now()),
        }
    }

    /// When it has something to do, if that is known.
    pub fn next_look(&self) -> Option<Instant> {
        self.next_look
    }

    /// The writer rang, or something may have changed that nobody rings for.
    pub fn look_soon(&mut self, broker: &Broker) {
        let backoff = Duration::from_millis(broker.config().cleaner_backoff_ms.max(0) as u64);
        let rested = self.last_look.and_then(|last| last.checked_add(backoff));
        let at = rested.unwrap_or_else(Instant::now).max(Instant::now());
        self.next_look = Some(self.next_look.map_or(at, |next| next.min(at)));
    }

    /// Compacts log after log, the filthiest first, until none is dirty enough; calls `meanwhile` now and then.
    pub fn run(&mut self, broker: &Broker, bell: &Bell, meanwhile: &mut dyn FnMut()) {
        self.next_look = None;
        while broker.config().cleaner_enabled && !bell.is_stopping() {
            let candidates = self.candidates(broker);
            let enough = candidates.iter().filter(|c| c.dirt.is_enough);
            let filthiest = enough.max_by(|a, b| a.dirt.ratio.total_cmp(&b.dirt.ratio));
            let Some(filthiest) = filthiest else {
                let wait_ms = candidates.iter().filter_map(|c| c.dirt.wait_ms).min();
                let wait_ms = wait_ms.map(|ms| ms.clamp(1, WAIT_MS_MAX) as u64);
                let due = wait_ms.map(|ms| Instant::now() + Duration::from_millis(ms));
                self.next_look = self.paused.values().copied().chain(due).min();
                break;
            };
            self.clean(broker, bell, filthiest, meanwhile);
            meanwhile();
        }
        self.last_look = Some(Instant::now());
    }

    /// Every log that is to be compacted and can be.
    fn candidates(&mut self, broker: &Broker) -> Vec<Candidate> {
        let (catalog, now_ms) = (broker.catalog.get(), broker.clock.now().time_ms);
        let mut candidates = Vec::new();
        let mut first_times = HashMap::new();
        self.paused.retain(|_, until| *until > Instant::now());
        for topic in catalog.topics() {
            if !topic.config.cleanup_policy.compact {
                continue;
            }
            for partition in &topic.partitions {
                let snapshot = partition.snapshot();
                let is_paused = self.paused.contains_key(&partition.serial);
                if snapshot.status != Status::Online || is_paused {
                    continue;
                }
                let view = snapshot.view;
                let facts = |extent: &Extent| {
                    let first_ms = match topic.config.max_compaction_lag_ms {
                        i64::MAX => -1,
                        _ => self.first_time(broker, extent),
                    };
                    first_times.insert(extent.segment.serial(), first_ms);
                    facts(extent, &topic.config, first_ms)
                };
                let extents = Extents {
                    sealed: view.sealed().iter().map(facts).collect(),
                    log_start: view.log_start,
                    last_stable: view.last_stable,
                    appended_end: view.appended_end,
                };
                let saved = self.first_dirty.get(&partition.serial).copied();
                candidates.push(Candidate {
                    dirt: dirt(&extents, saved, &topic.config, now_ms),
                    topic: topic.clone(),
                    partition: partition.clone(),
                    view,
                });
            }
        }
        self.first_times = first_times;
        candidates
    }

    /// The timestamp of a segment's first batch; read once.
    fn first_time(&self, broker: &Broker, extent: &Extent) -> i64 {
        if let Some(known) = self.first_times.get(&extent.segment.serial()) {
            return *known;
        }
        let file = extent.segment.log(&broker.storage);
        let header = file.map(|file| header_at(&file, 0, extent.bytes));
        header
            .ok()
            .and_then(|header| header.ok().flatten())
            .map_or(-1, |h| h.max_timestamp)
    }

    /// One pass over one log.
    fn clean(
        &mut self,
        broker: &Broker,
        bell: &Bell,
        candidate: &Candidate,
        meanwhile: &mut dyn FnMut(),
    ) {
        let partition = &candidate.partition;
        let name = format!("{}-{}", partition.topic, partition.index);
        let began = Instant::now();
        match pass(broker, bell, candidate, meanwhile) {
            Ok(cleaned) => {
                log::info!(
                    "{name}: compacted up to offset {}, {} bytes to {}, in {} ms",
                    cleaned.next_dirty,
                    cleaned.bytes_before,
                    cleaned.bytes_after,
                    began.elapsed().as_millis()
                );
                self.first_dirty
                    .insert(partition.serial, cleaned.next_dirty);
                if cleaned.next_dirty > candidate.dirt.first_dirty {
                    return self.save(broker);
                }
                log::warn!("{name}: a pass compacted nothing; not tried again for a while");
            }
            // What took its segments away shows in the next look.
            Err(Failed::Stopped | Failed::Moved) => {
                log::debug!("{name}: changed while it was compacted");
                let backoff = broker.config().cleaner_backoff_ms.clamp(1, WAIT_MS_MAX);
                return self.pause(partition, Duration::from_millis(backoff as u64));
            }
            Err(Failed::Damaged(error)) => {
                log::error!("{name}: not compacted: {error}");
                bell.suspect(partition);
            }
            Err(Failed::Error(error)) => log::error!("{name}: not compacted: {error}"),
        }
        self.pause(partition, PAUSE_AFTER_FAILURE);
    }

    fn pause(&mut self, partition: &Partition, pause: Duration) {
        self.paused.insert(partition.serial, Instant::now() + pause);
    }

    /// Saves where the passes ended, of the logs that there are.
    fn save(&mut self, broker: &Broker) {
        let catalog = broker.catalog.get();
        let partitions = catalog.topics().flat_map(|topic| &topic.partitions);
        let line = |p: &Arc<Partition>| {
            let first_dirty = self.first_dirty.get(&p.serial)?;
            Some(((p.topic.to_string(), p.index), (p.serial, *first_dirty)))
        };
        let lines: HashMap<_, _> = partitions.filter_map(line).collect();
        self.first_dirty = lines.values().copied().collect();
        let offsets = lines.into_iter().map(|(key, (_, offset))| (key, offset));
        if let Err(error) = write_offsets(&self.path, &offsets.collect()) {
            log::warn!("{error}");
        }
    }
}

fn facts(extent: &Extent, config: &TopicConfig, first_ms: i64) -> Facts {
    Facts {
        base_offset: extent.base_offset(),
        end_offset: extent.end_offset,
        bytes: u64::from(extent.bytes),
        newest_ms: extent
            .newest_ms(config.timestamp_after_max_ms)
            .unwrap_or(-1),
        first_ms,
    }
}

/// One pass; each of its results is in place when it goes on.
fn pass(
    broker: &Broker,
    bell: &Bell,
    candidate: &Candidate,
    meanwhile: &mut dyn FnMut(),
) -> Result<compaction::Cleaned, Failed> {
    let Candidate {
        topic,
        partition,
        view,
        dirt,
    } = candidate;
    // After the view was taken: a producer that is in the view is known now.
    let producers = ask(broker, |answer| Job::ListLast {
        partition: partition.clone(),
        answer,
    })?;
    let config = broker.config();
    let settings = log_settings(&topic.name, &topic.config);
    let dir: Arc<Path> = partition.dir.as_path().into();
    let source = compaction::Source {
        view,
        shared: &broker.storage,
        dir: &dir,
        settings: &settings,
        decoders: &broker.decoders,
        now_ms: broker.clock.now().time_ms,
        delete_retention_ms: topic.config.delete_retention_ms,
        first_dirty: dirt.first_dirty,
        end: dirt.end,
        map_bytes_max: usize::try_from(config.cleaner_map_bytes_max).unwrap_or(usize::MAX),
        map_load_factor: config.cleaner_map_load_factor,
        last_of_producer: &|id| producers.get(&id).copied(),
        log_start: &|| partition.snapshot().view.log_start,
        aborted: &|offsets| view.aborted_between(&broker.storage, offsets),
    };
    let limit = |config: &Config| config.cleaner_bytes_per_second_max;
    let mut pace = Pace::new(broker, bell, partition, limit, meanwhile);
    let mut swap = |replacement: Replacement| {
        let rewrite = Box::new(Rewrite::open(&dir, replacement)?);
        let partition = partition.clone();
        let job = |answer| Job::Swap {
            partition,
            rewrite,
            answer,
        };
        match ask(broker, job)?? {
            true => Ok(()),
            false => Err(Failed::Moved),
        }
    };
    compaction::compact(&source, &mut |bytes| pace.worked(bytes), &mut swap)
}

/// Asks the writer, and waits; it refuses, or ends, by dropping the way to answer.
pub fn ask<T>(broker: &Broker, job: impl FnOnce(mpsc::Sender<T>) -> Job) -> Result<T, Stopped> {
    let (answer, answered) = mpsc::channel();
    broker.writer.submit([job(answer)]);
    answered.recv().map_err(|_| Stopped)
}
