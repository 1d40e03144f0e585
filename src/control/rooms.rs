//! The partitions' directories: made, found, renamed away, removed.
//!
//! Owns: the data directory's entries. Invariants: a directory's entry is synced before anything in it is
//! acknowledged; a directory that is in the way of a new partition is renamed aside, never written into, so a
//! recreated topic shows no old data; only a directory whose topic's RemoveTopicRecord was synced is unlinked, or one
//! that could not be made whole.
//!
//! ```text
//! <topic>-<partition>             in use; partition.metadata names the topic's id
//! <topic>-<partition>.<n>-delete  its topic was deleted; unlinked in the background and at every start
//! <topic>-<partition>.<n>-stray   was in the way, and belongs to no topic; kept for a person to look at
//! ```
//! May lose data: L6 (topic deletion), L9 (directory entries).

use crate::catalog::is_internal;
use crate::config::{self, TopicConfig};
use crate::error::{Context, Error, Result};
use crate::storage::{
    self, Log, LogSettings, Partition, Snapshot, Status, SyncItem, View, checkpoint,
};
use crate::sync::{self, Syncer};
use crate::sys;
use crate::wire::Uuid;
use crate::writer::{FlushPolicy, Job};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// So many partitions are made together: their files are synced at once, and each holds a few descriptors until then.
pub const MADE_TOGETHER: usize = 32;

/// What it takes to make and remove partitions.
#[derive(Clone)]
pub struct Rooms {
    /// The data directory.
    pub data: PathBuf,
    /// The broker's settings.
    pub settings: Arc<config::Published>,
    /// What all logs share.
    pub storage: Arc<storage::Shared>,
    /// Syncs what was made.
    pub syncer: Arc<Syncer>,
}

/// A partition as its files need to know it.
pub struct Wanted<'a> {
    /// Its topic.
    pub topic: &'a Arc<str>,
    /// The topic's id.
    pub id: Uuid,
    /// Its number.
    pub index: i32,
    /// The topic's settings.
    pub config: &'a TopicConfig,
}

/// The directory of a partition; the topic's name was checked.
pub fn partition_dir(data: &Path, topic: &str, index: i32) -> PathBuf {
    data.join(format!("{topic}-{index}"))
}

/// When a topic's log is synced; internal topics' logs are at every turn.
pub fn flush_policy(topic: &str, config: &TopicConfig) -> FlushPolicy {
    match is_internal(topic) {
        true => FlushPolicy::EVERY_TURN,
        false => FlushPolicy {
            messages: config.flush_messages.max(1) as u64,
            after: u64::try_from(config.flush_ms)
                .ok()
                .filter(|ms| *ms < i64::MAX as u64)
                .map(Duration::from_millis),
        },
    }
}

/// A topic's settings as its logs need them.
pub fn log_settings(topic: &str, config: &TopicConfig) -> LogSettings {
    LogSettings {
        segment_bytes_max: config.segment_bytes as u32,
        segment_ms: segment_ms(config) - jitter_ms(config),
        index_bytes_max: config.index_bytes_max as u32,
        index_interval_bytes: config.index_interval_bytes as u32,
        preallocate: config.preallocate,
        file_delete_delay: Duration::from_millis(config.file_delete_delay_ms as u64),
        compacted: config.cleanup_policy.compact,
        visible_when_synced: flush_policy(topic, config).every_turn(),
    }
}

/// How old a segment may grow: where its records are to be compacted by a certain age, it must be sealed by then.
fn segment_ms(config: &TopicConfig) -> i64 {
    match config.cleanup_policy.compact {
        true => config.segment_ms.min(config.max_compaction_lag_ms),
        false => config.segment_ms,
    }
}

/// A random part of `segment.jitter.ms`, so that not all logs roll at once.
fn jitter_ms(config: &TopicConfig) -> i64 {
    let jitter = config.segment_jitter_ms.min(segment_ms(config));
    let mut bytes = [0; 8];
    match jitter > 0 && sys::random(&mut bytes).is_ok() {
        true => (u64::from_ne_bytes(bytes) % jitter as u64) as i64,
        false => 0,
    }
}

impl Rooms {
    /// Makes partitions' directories and empty logs, durable but for the directories' own entries: [`Rooms::sync`] must
    /// follow before anything in them is acknowledged. At most [`MADE_TOGETHER`].
    pub fn make(&self, wanted: &[Wanted<'_>]) -> Vec<Result<Log>> {
        let mut unsynced = Vec::new();
        let make = |one: &Wanted<'_>| self.make_log(one, &mut unsynced);
        let logs: Vec<Result<Log>> = wanted.iter().map(make).collect();
        let synced = self.syncer.sync_all(unsynced);
        let synced = synced.context(|| "syncing new partitions".into());
        let settle = |log: Result<Log>| {
            let (mut log, synced) = (log?, synced.as_ref());
            synced.map_err(|error| Error::new(error.to_string()))?;
            log.mark_synced();
            Ok(log)
        };
        logs.into_iter().map(settle).collect()
    }

    /// The partition of a log, and the log on its way to the writer; one without a log is offline.
    pub fn furnish(
        &self,
        one: &Wanted<'_>,
        leader_epoch: i32,
        log: Result<Log>,
    ) -> (Arc<Partition>, Result<Job>) {
        let (view, status) = match &log {
            Ok(log) => (log.view(), Status::Online),
            Err(_) => (View::empty(), Status::Offline),
        };
        let snapshot = Snapshot {
            view: Arc::new(view),
            leader_epoch,
            status,
        };
        let dir = partition_dir(&self.data, one.topic, one.index);
        let partition = Partition::new(one.topic.clone(), one.id, one.index, dir, snapshot);
        let partition = Arc::new(partition);
        let job = log.map(|log| self.adopt(partition.clone(), log, one.config));
        (partition, job)
    }

    fn make_log(&self, one: &Wanted<'_>, unsynced: &mut Vec<SyncItem>) -> Result<Log> {
        let dir = partition_dir(&self.data, one.topic, one.index);
        unsynced.push(self.begin_directory(&dir, one.id)?);
        let settings = log_settings(one.topic, one.config);
        let log = Log::create(&dir, &self.storage, settings)?;
        unsynced.extend(log.unsynced());
        Ok(log)
    }

    /// Makes a partition's directory, with the topic's id in it, as durable as [`Rooms::make`] does.
    pub fn make_directory(&self, dir: &Path, id: Uuid) -> Result<()> {
        let items = [
            self.begin_directory(dir, id)?,
            SyncItem::Directory(dir.into()),
        ];
        sync_one_by_one(dir, &items)
    }

    fn begin_directory(&self, dir: &Path, id: Uuid) -> Result<SyncItem> {
        if dir.exists() {
            self.put_aside(dir)?;
        }
        fs::create_dir(dir).context(|| format!("making {}", dir.display()))?;
        let file = checkpoint::create_topic_id(dir, id)?;
        Ok(SyncItem::Data(Arc::new(file)))
    }

    /// Makes the entries of new directories durable.
    pub fn sync(&self) -> Result<()> {
        sync::sync_entries(&self.data).context(|| format!("syncing {}", self.data.display()))
    }

    /// The job that hands a log to the writer.
    pub fn adopt(&self, partition: Arc<Partition>, log: Log, config: &TopicConfig) -> Job {
        let flush = flush_policy(&partition.topic, config);
        Job::Adopt {
            partition,
            log: Box::new(log),
            flush,
        }
    }

    /// The job that tells the writer of a topic's new settings.
    pub fn configure(&self, partition: Arc<Partition>, config: &TopicConfig) -> Job {
        let topic = &partition.topic;
        let (settings, flush) = (log_settings(topic, config), flush_policy(topic, config));
        Job::Configure {
            partition,
            settings,
            flush,
        }
    }

    /// Renames a directory that is in the way.
    pub fn put_aside(&self, dir: &Path) -> Result<()> {
        let aside = free_name(dir, "stray");
        log::warn!(
            "{} belongs to no topic; it is kept as {}",
            dir.display(),
            aside.display()
        );
        fs::rename(dir, &aside).context(|| format!("renaming {}", dir.display()))
    }

    /// Renames the directories of deleted partitions away and unlinks them in the background. What fails is
    /// finished at the next start, which reads the RemoveTopicRecord.
    pub fn remove(&self, partitions: &[Arc<Partition>]) {
        let rename = |partition: &Arc<Partition>| self.doom(&partition.dir);
        let doomed = partitions.iter().filter_map(rename).collect();
        if let Err(error) = self.sync() {
            log::error!("{error}");
        }
        unlink_in_background(doomed);
    }

    /// Renames a deleted partition's directory, so that its name is free at once; gives the name by which it may be
    /// unlinked.
    pub fn doom(&self, dir: &Path) -> Option<PathBuf> {
        let target = free_name(dir, "delete");
        match fs::rename(dir, &target) {
            Ok(()) => return Some(target),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => log::error!("renaming {}: {error}", dir.display()),
        }
        None
    }
}

fn sync_one_by_one(dir: &Path, items: &[SyncItem]) -> Result<()> {
    let synced = items.iter().try_for_each(sync::sync);
    synced.context(|| format!("syncing {}", dir.display()))
}

/// A name for `dir` that is not taken: an earlier directory of its name may not be unlinked yet. The longest topic's
/// name leaves a filesystem's 255 bytes no room for more, so long ones are cut, as Kafka does.
fn free_name(dir: &Path, suffix: &str) -> PathBuf {
    const NAME_BYTES_MAX: usize = 200;
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let name: String = name.chars().take(NAME_BYTES_MAX).collect();
    let numbered = |n: u32| dir.with_file_name(format!("{name}.{n}-{suffix}"));
    let free = (0..).map(numbered).find(|path| !path.exists());
    free.expect("a directory does not hold 2^32 names of one form")
}

/// Unlinks directories, each with all that is in it: a large file may take the filesystem long.
pub fn unlink_in_background(dirs: Vec<PathBuf>) {
    if dirs.is_empty() {
        return;
    }
    let unlink = move || {
        for dir in dirs {
            if let Err(error) = fs::remove_dir_all(&dir) {
                log::warn!(
                    "removing {}: {error}; the next start tries again",
                    dir.display()
                );
            }
        }
    };
    if let Err(error) = thread::Builder::new().name("unlink".into()).spawn(unlink) {
        log::warn!(
            "no thread to remove deleted topics' files: {error}; the next start tries again"
        );
    }
}
