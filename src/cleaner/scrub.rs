//! The scrub: all logs are read again from time to time, for a disk may garble what nobody reads (`log.scrub.*`).
//!
//! Owns: when each log was last looked at, kept in `scrub-checkpoint`, a hint in the form of Kafka's offset checkpoints
//! with broker time (ms) in the offsets' place: so a box that is restarted daily reads each log once in the interval
//! and no more, and begins where it was. What is damage is `storage::audit`'s to say, and what becomes of it
//! `storage::mend`'s; the writer puts that in place, and rolls the active segment before.
//!
//! 1. One segment at a time: compaction and retention come in between. Once one log is due, all are read whose turn
//!    would come within half an interval: the disk wakes once, not once a log. A log of which a reader or compaction
//!    found bytes that are no batch is read at once.
//! 2. What is read goes through the page cache, so a byte that rots beneath a page that is still cached shows only once
//!    that page is gone: a scrub finds what was not read or written lately, which is what nobody else would find. What
//!    it reads itself, once, is the first that the kernel drops: pages in use, it keeps.
//! 3. An index alone that is wrong is no loss, and one line in the log.

use super::compaction::ask;
use super::pace::Pace;
use super::{Bell, FIRST_LOOK_AFTER_MAX};
use crate::broker::Broker;
use crate::config::Config;
use crate::control::log_settings;
use crate::storage::audit::{self, Audit, FINDINGS_MAX, Finding, Kind, Subject};
use crate::storage::checkpoint::{Offsets, SCRUB_TIMES, read_offsets, write_offsets};
use crate::storage::compaction::{self, Failed, Stopped};
use crate::storage::mend::Mend;
use crate::storage::segment::Extent;
use crate::storage::{Partition, ReadError, Snapshot, Status};
use crate::writer::Job;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A log that a reader complained of is not read again for so long: what cannot be mended would be read for ever.
const PAUSE: Duration = Duration::from_secs(600);

/// The longest sleep, so that no sum of times can overflow.
const WAIT_MS_MAX: i64 = 86_400_000;

/// How often what was looked at is saved while there is more.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// What the scrub remembers.
pub struct Scrub {
    path: PathBuf,
    /// Broker time of the last look at each log, ms, by partition serial.
    looked_ms: HashMap<u64, i64>,
    /// When a log was last read because a reader complained, by partition serial.
    heeded: HashMap<u64, Instant>,
    suspects: Vec<u64>,
    walk: Option<Walk>,
    /// Something was read since this was last said.
    has_read: bool,
    /// One log was due, and others are taken early.
    in_round: bool,
    next_look: Option<Instant>,
    saved: Option<Instant>,
    unsaved: bool,
}

/// The log that is being read.
struct Walk {
    partition: Arc<Partition>,
    compacted: bool,
    audit: Audit,
    /// The offset after the last segment that was read.
    next: i64,
}

impl Scrub {
    /// Remembers what the last run saved; a log that is not in it counts from now.
    pub fn load(broker: &Broker) -> Scrub {
        let path = broker.config().data_dir.join(SCRUB_TIMES);
        let found = read_offsets(&path).unwrap_or_else(|error| {
            log::warn!("{error}; going on without it");
            Offsets::new()
        });
        let now_ms = broker.clock.now().time_ms;
        let looked = |p: Arc<Partition>| {
            let looked_ms = found.get(&(p.topic.to_string(), p.index))?;
            // No look was later than now: an interval would be lost by believing it.
            Some((p.serial, (*looked_ms).min(now_ms)))
        };
        let looked_ms: HashMap<u64, i64> =
            partitions(broker).into_iter().filter_map(looked).collect();
        // A broker that starts has other things to do, unless a log is due already.
        let interval_ms = broker.config().scrub_interval_ms;
        let is_due = |ms: &i64| interval_ms >= 0 && now_ms.saturating_sub(*ms) >= interval_ms;
        let first = match looked_ms.values().any(is_due) {
            true => Duration::ZERO,
            false => Duration::from_millis(interval_ms.unsigned_abs()).min(FIRST_LOOK_AFTER_MAX),
        };
        Scrub {
            path,
            looked_ms,
            heeded: HashMap::new(),
            suspects: Vec::new(),
            walk: None,
            in_round: false,
            has_read: false,
            next_look: Some(Instant::now() + first),
            saved: None,
            unsaved: false,
        }
    }

    /// When it has something to do, if that is known.
    pub fn next_look(&self) -> Option<Instant> {
        self.next_look
    }

    /// Readers, or compaction, found something in these logs that is no batch.
    pub fn heed(&mut self, suspects: Vec<u64>) {
        self.heeded.retain(|_, at| at.elapsed() < PAUSE);
        for serial in suspects {
            // Who complains again and again must not put off the next reading for ever.
            if let Entry::Vacant(entry) = self.heeded.entry(serial) {
                entry.insert(Instant::now());
                self.suspects.push(serial);
                self.next_look = Some(Instant::now());
            }
        }
    }

    /// Looks at one segment, if it is time to; calls `meanwhile` now and then.
    pub fn work(&mut self, broker: &Broker, bell: &Bell, meanwhile: &mut dyn FnMut()) {
        if self.next_look.is_none_or(|at| at > Instant::now()) {
            return;
        }
        self.next_look = Some(Instant::now());
        if self.walk.is_none() {
            self.walk = self.begin(broker);
        }
        let Some(walk) = &mut self.walk else {
            if std::mem::take(&mut self.has_read) {
                log::info!("scrub: all logs that were due were read");
            }
            self.save(broker);
            return;
        };
        match walk.step(broker, bell, meanwhile) {
            Ok(true) => {}
            Ok(false) => {
                let now_ms = broker.clock.now().time_ms;
                self.looked_ms.insert(walk.partition.serial, now_ms);
                (self.unsaved, self.has_read) = (true, true);
                self.walk = None;
                if self.saved.is_none_or(|at| at.elapsed() >= SAVE_EVERY) {
                    self.save(broker);
                }
            }
            Err(Stopped) => self.walk = None,
        }
    }

    /// The log that is to be read now; else when there is one.
    fn begin(&mut self, broker: &Broker) -> Option<Walk> {
        let (config, now_ms) = (broker.config(), broker.clock.now().time_ms);
        let partitions = partitions(broker);
        self.looked_ms
            .retain(|serial, _| partitions.iter().any(|p| p.serial == *serial));
        for partition in &partitions {
            let looked_ms = &mut self.looked_ms;
            self.unsaved |= !looked_ms.contains_key(&partition.serial);
            looked_ms.entry(partition.serial).or_insert(now_ms);
        }
        let suspect = std::iter::from_fn(|| self.suspects.pop())
            .find_map(|serial| partitions.iter().find(|p| p.serial == serial));
        let interval_ms = config.scrub_interval_ms;
        let age_ms = |p: &Arc<Partition>| now_ms.saturating_sub(self.looked_ms[&p.serial]);
        let oldest = partitions.iter().max_by_key(|p| age_ms(p));
        let left_ms = oldest.map(|p| interval_ms.saturating_sub(age_ms(p)));
        let early_ms = if self.in_round { interval_ms / 2 } else { 0 };
        let is_due = interval_ms >= 0 && left_ms.is_some_and(|ms| ms <= early_ms);
        self.in_round = is_due;
        let chosen = suspect.or(oldest.filter(|_| is_due));
        if chosen.is_none() {
            let wait_ms = left_ms.unwrap_or(i64::MAX).clamp(1, WAIT_MS_MAX) as u64;
            let at = Instant::now() + Duration::from_millis(wait_ms);
            self.next_look = (interval_ms >= 0).then_some(at);
        }
        let partition = chosen?.clone();
        let catalog = broker.catalog.get();
        let topic = catalog.by_name(&partition.topic);
        let compacted = topic.is_none_or(|topic| topic.config.cleanup_policy.compact);
        Some(Walk {
            partition,
            compacted,
            audit: Audit::new(compacted),
            next: -1,
        })
    }

    /// Saves when each log was looked at, if there is anything new.
    fn save(&mut self, broker: &Broker) {
        if !std::mem::take(&mut self.unsaved) {
            return;
        }
        self.saved = Some(Instant::now());
        let line = |p: Arc<Partition>| {
            let looked_ms = self.looked_ms.get(&p.serial)?;
            Some(((p.topic.to_string(), p.index), *looked_ms))
        };
        let lines = partitions(broker).into_iter().filter_map(line).collect();
        if let Err(error) = write_offsets(&self.path, &lines) {
            log::warn!("{error}");
        }
    }
}

/// All partitions, the catalog's own among them.
fn partitions(broker: &Broker) -> Vec<Arc<Partition>> {
    let catalog = broker.catalog.get();
    let topics = catalog.topics().flat_map(|topic| &topic.partitions);
    topics.chain([&broker.metadata]).cloned().collect()
}

impl Walk {
    /// Reads the next segment, and has it mended; says whether there may be more.
    fn step(
        &mut self,
        broker: &Broker,
        bell: &Bell,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<bool, Stopped> {
        let Snapshot { view, status, .. } = self.partition.snapshot();
        let is_next = |(extent, _): &(&Extent, bool)| extent.end_offset > self.next;
        let next = view.segments().find(is_next);
        let Some((extent, sealed)) = next.filter(|_| status == Status::Online) else {
            // Those of a topic that was deleted are on their way out.
            if status != Status::Deleted {
                self.look_at_small_files();
            }
            return Ok(false);
        };
        let end = self.audit.end();
        if end.is_some_and(|end| end > extent.base_offset()) {
            self.audit = Audit::new(self.compacted);
        }
        let partition = self.partition.clone();
        let limit = |config: &Config| config.scrub_bytes_per_second_max;
        let mut pace = Pace::new(broker, bell, &partition, limit, meanwhile);
        let read = Subject::of_view(extent, sealed, &broker.storage).and_then(|subject| {
            let stopped = |_| io::Error::from(ErrorKind::Interrupted);
            let mut pace = |bytes| pace.worked(bytes).map_err(stopped);
            Ok(self.audit.segment(&subject, &mut pace)?)
        });
        let (name, path) = (self.name(), extent.segment.path(".log"));
        let findings = match read {
            Ok(findings) => findings,
            Err(ReadError::Io(e)) if e.kind() == ErrorKind::Interrupted => return Err(Stopped),
            // Compaction or retention took it: a newer view shows what is there now.
            Err(ReadError::Gone) if partition.has_moved_since(&view) => return Ok(true),
            Err(error) => {
                log::error!("{name}: {} cannot be read: {error}", path.display());
                self.audit = Audit::new(self.compacted);
                Vec::new()
            }
        };
        let is_damage = |f: &Finding| matches!(f.kind, Kind::Batches(_) | Kind::Hint(_));
        if findings.iter().any(is_damage) {
            let mut pace = |bytes| pace.worked(bytes);
            match self.mend(broker, extent, sealed, &findings, &mut pace) {
                // There may be so many that they were not all told.
                Ok(()) if findings.len() >= FINDINGS_MAX => return Ok(true),
                Ok(()) => {}
                Err(Failed::Stopped | Failed::Moved) if bell.is_stopping() => return Err(Stopped),
                Err(Failed::Stopped | Failed::Moved) => {
                    log::warn!("{name}: {} has changed, and is not mended", path.display());
                }
                Err(Failed::Damaged(e) | Failed::Error(e)) => {
                    log::error!("{name}: {} is not mended: {e}", path.display());
                }
            }
        }
        self.next = extent.end_offset;
        Ok(sealed)
    }

    fn name(&self) -> String {
        format!("{}-{}", self.partition.topic, self.partition.index)
    }

    /// Says what was found, and has the writer put in place what lacks it.
    fn mend(
        &self,
        broker: &Broker,
        extent: &Extent,
        sealed: bool,
        findings: &[Finding],
        pace: compaction::Pace<'_>,
    ) -> Result<(), Failed> {
        let (name, partition) = (self.name(), self.partition.clone());
        let mut lost = false;
        for finding in findings {
            match finding.kind {
                Kind::Batches(_) => log::error!("{name}: {finding}; kept as .quarantine"),
                Kind::Hint(_) => log::warn!("{name}: {finding}; it is made anew"),
                _ => {}
            }
            lost |= matches!(finding.kind, Kind::Batches(_));
        }
        let serial = extent.segment.serial();
        if !sealed {
            ask(broker, |answer| Job::Roll {
                partition: partition.clone(),
                segment: serial,
                answer,
            })?;
        }
        let view = partition.snapshot().view;
        let is_it = |e: &&Extent| e.segment.serial() == serial;
        let extent = view.sealed().iter().find(is_it).ok_or(Failed::Moved)?;
        let config = broker.config();
        let catalog = broker.catalog.get();
        let topic = catalog.by_name(&partition.topic);
        let index_interval_bytes = match topic {
            Some(topic) => log_settings(&topic.name, &topic.config).index_interval_bytes,
            None => log_settings(&partition.topic, config.topic_defaults()).index_interval_bytes,
        };
        let dir: Arc<Path> = partition.dir.as_path().into();
        let mend = Mend {
            extent,
            findings,
            audit: &self.audit,
            shared: &broker.storage,
            decoders: &broker.decoders,
            index_interval_bytes,
        };
        let rewrite = Box::new(mend.prepare(&dir, pace)?);
        let job = |answer| Job::Swap {
            partition: partition.clone(),
            rewrite,
            answer,
        };
        if !ask(broker, job)?? {
            return Err(Failed::Moved);
        }
        if lost {
            broker.control.gap_found(partition);
        }
        Ok(())
    }

    /// Snapshots and checkpoints: the next one that is written takes their place, and a start does without.
    fn look_at_small_files(&self) {
        match audit::small_files(&self.partition.dir) {
            Ok(findings) => findings
                .iter()
                .for_each(|finding| log::warn!("{}: {finding}", self.name())),
            Err(error) => log::warn!("{}: {error}", self.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_complains_without_end_is_heard_again_after_the_pause() {
        let mut scrub = Scrub {
            path: PathBuf::new(),
            looked_ms: HashMap::new(),
            heeded: HashMap::new(),
            suspects: Vec::new(),
            walk: None,
            has_read: false,
            in_round: false,
            next_look: None,
            saved: None,
            unsaved: false,
        };
        scrub.heed(vec![7]);
        assert_eq!(std::mem::take(&mut scrub.suspects), [7]);
        let first = scrub.heeded[&7];
        scrub.heed(vec![7]);
        assert!(scrub.suspects.is_empty(), "once in the pause");
        assert_eq!(scrub.heeded[&7], first, "the pause counts from the first");
    }
}
