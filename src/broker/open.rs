//! Opening a data directory: who it is, what the catalog says, and every log that belongs to it.
//!
//! Invariants: the clean-shutdown marker is gone before anything is written; whatever was lost with small state is
//! made good before a log is handed over: a leader epoch and a producer id never fall behind what a log has seen.

use super::catch_up::{InLogs, catch_up, sum_up};
use super::directories::look_around;
use super::metadata::Metadata;
use super::replay::{Entry, for_each_entry, load_transactions, outcome_in};
use crate::catalog::{
    Catalog, OFFSETS_TOPIC, RESOURCE_BROKER, State, TRANSACTIONS_TOPIC, Topic, is_internal,
};
use crate::clock::Clock;
use crate::compress::Decoders;
use crate::config::{MIN_INSYNC_REPLICAS, TopicConfig};
use crate::control::{
    Checkpoints, MADE_TOGETHER, Reply, Rooms, Wanted, feature_levels, log_settings, partition_dir,
};
use crate::error::{Context, Error, Result};
use crate::group::records::Record;
use crate::group::{Env, Groups};
use crate::storage::checkpoint::{self, META_PROPERTIES, MetaProperties};
use crate::storage::{Log, Partition, Report, Snapshot, Start, Status, View};
use crate::sync;
use crate::txn::Transactions;
use crate::wire::Uuid;
use crate::wire::metadata_records::{ConfigRecord, MetadataRecord};
use crate::writer::{FlushPolicy, Job, TURN_BYTES_PER_PARTITION_MAX};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

/// A data directory, opened.
pub struct Opened {
    /// From `meta.properties`.
    pub cluster_id: String,
    /// What the records say.
    pub state: State,
    /// What is to be published.
    pub catalog: Catalog,
    /// The partition of the catalog's own log.
    pub metadata: Arc<Partition>,
    /// Every log, on its way to the writer.
    pub jobs: Vec<Job>,
    /// Whether every log could be opened; if not, the next start must not trust anything (L8).
    pub all_online: bool,
    /// What the last run left, less what belongs to nobody.
    pub checkpoints: Checkpoints,
    /// The groups and their offsets.
    pub groups: Groups<Reply>,
    /// The transactions.
    pub transactions: Transactions<Reply>,
    /// Broker time.
    pub clock: Arc<Clock>,
    /// Held as long as the process lives.
    _lock: File,
}

/// What the last run left beside the logs.
pub(super) struct Left<'a> {
    pub rooms: &'a Rooms,
    decoders: &'a Decoders,
    clean: bool,
    checkpoints: Checkpoints,
    pub clock: Arc<Clock>,
    /// What the coordinator of transactions has recorded, once that is there.
    transaction_logs: OnceLock<Vec<View>>,
}

/// Opens the data directory: see the broker's start order.
pub fn open(rooms: &Rooms, decoders: &Decoders) -> Result<Opened> {
    let data = &rooms.data;
    make_directory(data)?;
    let lock = lock(data)?;
    let cluster_id = identify(data, rooms.settings.get().node_id)?;
    let mut left = Left {
        rooms,
        decoders,
        clean: checkpoint::take_clean_shutdown(data)?,
        checkpoints: Checkpoints::load(data)?,
        clock: Arc::new(Clock::load(data)),
        transaction_logs: OnceLock::new(),
    };
    let mut metadata = Metadata::open(&left)?;
    if !metadata.state.formatted {
        metadata.append(&first_records())?;
    }
    set_dynamic(rooms, &metadata.state);
    let adopted = look_around(rooms, &metadata.state)?;
    metadata.append(&adopted)?;
    // A full disk must not keep the broker from starting: the lines are saved before a name is used again.
    if let Err(error) = left
        .checkpoints
        .keep(|topic, index| metadata.has(topic, index))
        .and_then(|()| left.checkpoints.reserve())
    {
        log::warn!("{error}");
    }
    let (catalog, mut jobs, all_online, in_logs) = open_topics(&left, &mut metadata)?;
    rooms.sync()?;
    let groups = load_groups(rooms, &metadata.state, &catalog, &left.clock);
    let transactions = load_transactions(rooms, &catalog, &left.clock, in_logs);
    let Metadata {
        partition,
        log,
        state,
        ..
    } = metadata;
    jobs.push(Job::Adopt {
        partition: partition.clone(),
        log: Box::new(log),
        flush: FlushPolicy::EVERY_TURN,
    });
    Ok(Opened {
        cluster_id,
        state,
        catalog,
        metadata: partition,
        jobs,
        all_online,
        checkpoints: left.checkpoints,
        groups,
        transactions,
        clock: left.clock,
        _lock: lock,
    })
}

/// What a new catalog begins with.
fn first_records() -> Vec<MetadataRecord> {
    let min_isr = MetadataRecord::Config(ConfigRecord {
        resource_type: RESOURCE_BROKER,
        resource_name: String::new(),
        name: MIN_INSYNC_REPLICAS.into(),
        value: Some("1".into()),
    });
    feature_levels().chain([min_isr]).collect()
}

/// Puts what was set while earlier brokers ran over what this one was started with.
fn set_dynamic(rooms: &Rooms, state: &State) {
    let config = rooms.settings.get();
    let dynamic = state.dynamic(config.node_id);
    let new = config.with(dynamic.clone()).unwrap_or_else(|_| {
        let (new, faults) = config.with_what_fits(dynamic);
        for error in faults {
            log::error!("a setting that was changed at run time is not used: {error}");
        }
        new
    });
    if new.topic_defaults() != config.topic_defaults() {
        // P2: said once at start.
        new.durability_notice().inspect(|line| log::warn!("{line}"));
    }
    rooms.settings.set(Arc::new(new));
}

/// Makes the data directory, and its own entry and those above it durable.
fn make_directory(data: &Path) -> Result<()> {
    let missing = data.ancestors().take_while(|dir| !dir.exists()).count();
    fs::create_dir_all(data).context(|| format!("making {}", data.display()))?;
    for dir in data.ancestors().skip(1).take(missing) {
        let dir = if dir.as_os_str().is_empty() {
            Path::new(".")
        } else {
            dir
        };
        sync::sync_entries(dir).context(|| format!("syncing {}", dir.display()))?;
    }
    Ok(())
}

/// One broker per directory.
fn lock(data: &Path) -> Result<File> {
    let path = data.join(".lock");
    let file = File::create(&path).context(|| format!("making {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let advice = "stop it, or choose another --data";
            Err(io::Error::new(io::ErrorKind::WouldBlock, advice))
                .context(|| format!("another broker uses {}", data.display()))
        }
        Err(TryLockError::Error(error)) => {
            Err(error).context(|| format!("locking {}", path.display()))
        }
    }
}

/// Reads `meta.properties`, or writes it into a new directory; gives the cluster's id.
fn identify(data: &Path, node_id: i32) -> Result<String> {
    let generations = checkpoint::read_meta_properties(data)?;
    // A flipped bit in one of them must not keep the broker from starting.
    let own = generations.iter().find(|meta| meta.node_id == node_id);
    let Some(meta) = own.or(generations.first()) else {
        if data.join(META_PROPERTIES).exists() {
            log::error!("{META_PROPERTIES} is lost; the cluster gets a new id");
        }
        let id = || Uuid::random().context(|| "making an id".into());
        let meta = MetaProperties {
            cluster_id: id()?.to_string(),
            node_id,
            directory_id: Some(id()?),
        };
        checkpoint::write_meta_properties(data, &meta)?;
        return Ok(meta.cluster_id);
    };
    if meta.node_id != node_id {
        let (there, path) = (meta.node_id, data.display());
        return Err(Error::new(format!(
            "{path} belongs to node.id={there}, not {node_id}: set node.id={there}"
        )));
    }
    // Kafka's has one generation only, and one that was lost does not come back by itself.
    if generations.iter().filter(|other| *other == meta).count() < 2
        && let Err(error) = checkpoint::write_meta_properties(data, meta)
    {
        log::warn!("{error}; the next start tries again");
    }
    Ok(meta.cluster_id.clone())
}

impl Left<'_> {
    /// Whether a partition had records, by the last checkpoint.
    fn had_records(&self, topic: &str, index: i32) -> bool {
        let key = (topic.to_owned(), index);
        let point = self.checkpoints.recovery_points.get(&key);
        point.is_some_and(|offset| *offset > 0)
    }

    /// Whether there is a log to open: one that is gone, though it had records, goes on behind them.
    pub(super) fn finds(&self, topic: &str, index: i32, dir: &Path, id: Uuid) -> Result<bool> {
        if dir.exists() {
            return Ok(true);
        }
        let is_lost = self.had_records(topic, index);
        if is_lost {
            log::error!("{} is gone, with all its records", dir.display());
            self.rooms.make_directory(dir, id)?;
        }
        Ok(is_lost)
    }

    /// Opens one log by what was left.
    pub(super) fn recover(
        &self,
        topic: &str,
        index: i32,
        dir: &Path,
        config: &TopicConfig,
    ) -> Result<(Log, Report)> {
        let key = (topic.to_string(), index);
        let start = Start {
            clean: self.clean,
            recovery_point: self.checkpoints.recovery_points.get(&key).copied(),
            log_start: self.checkpoints.log_starts.get(&key).copied(),
            tear_bytes_max: TURN_BYTES_PER_PARTITION_MAX,
            check_all: is_internal(topic),
            outcome: &|id, epoch| {
                let logs = self.transaction_logs.get()?;
                outcome_in(logs, &self.rooms.storage, id, epoch)
            },
            decoders: self.decoders,
            time_ms: self.clock.now().time_ms,
        };
        Log::recover(
            dir,
            &self.rooms.storage,
            log_settings(topic, config),
            &start,
        )
    }
}

/// Reads the groups from the log of committed offsets: a premature answer that nothing is committed would send
/// consumers back to the earliest record.
fn load_groups(rooms: &Rooms, state: &State, catalog: &Catalog, clock: &Clock) -> Groups<Reply> {
    let mut groups = Groups::default();
    let config = rooms.settings.get();
    let now = clock.now();
    let env = Env {
        now_ms: now.boot_ms,
        time_ms: now.time_ms,
        config: &config,
        catalog: state,
        new_id: &|| Uuid::ZERO,
    };
    let topic = catalog.by_name(OFFSETS_TOPIC);
    for partition in topic.iter().flat_map(|topic| &topic.partitions) {
        let Snapshot { view, status, .. } = partition.snapshot();
        let index = partition.index;
        let read = for_each_entry(OFFSETS_TOPIC, &view, &rooms.storage, |entry| {
            match entry {
                Entry::Record {
                    header,
                    offset,
                    key,
                    value,
                } => {
                    let is_pending = header.is_transactional();
                    let transaction = is_pending.then_some((header.producer_id, index));
                    let record = Record::decode(key, value).map_err(|error| error.to_string())?;
                    if let Some(record) = record {
                        groups.replay(record, offset, transaction, &env);
                    }
                }
                Entry::Marker(header, marker) => {
                    groups.end_transaction(header.producer_id, index, marker.commit, &env);
                }
                Entry::Control(_) => {}
            }
            Ok(())
        });
        if let Err(error) = &read {
            log::error!("{error}");
        }
        if read.is_err() || status != Status::Online {
            log::error!("groups are not served: {OFFSETS_TOPIC} cannot be read");
            groups.close();
        }
    }
    groups.loaded(&env);
    groups
}

/// One partition to open, and what came of it.
pub(super) struct Room {
    pub topic: Arc<str>,
    pub id: Uuid,
    pub index: i32,
    config: Arc<TopicConfig>,
    dir: PathBuf,
    pub leader_epoch: i32,
    pub opened: Option<Result<(Log, Report)>>,
}

impl Room {
    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            topic: &self.topic,
            id: self.id,
            index: self.index,
            config: &self.config,
        }
    }
}

/// Opens the log of every partition that the catalog names, on `num.recovery.threads.per.data.dir` threads.
fn open_topics(
    left: &Left<'_>,
    metadata: &mut Metadata,
) -> Result<(Catalog, Vec<Job>, bool, InLogs)> {
    let rooms = left.rooms;
    let mut list = Vec::new();
    let broker = rooms.settings.get();
    for (name, topic) in &metadata.state.topics {
        let config = Arc::new(TopicConfig::in_force(&broker, name, &topic.overrides));
        let name: Arc<str> = name.as_str().into();
        if !config.syncs_every_turn() && !topic.overrides.is_empty() {
            // P2: said once at start.
            let messages = config.flush_messages;
            log::warn!(
                "{name}: flush.messages={messages}: a power cut can take what consumers have seen"
            );
        }
        for (index, leader_epoch) in (0..).zip(&topic.leader_epochs) {
            list.push(Room {
                dir: partition_dir(&rooms.data, &name, index),
                topic: name.clone(),
                id: topic.id,
                index,
                config: config.clone(),
                leader_epoch: *leader_epoch,
                opened: None,
            });
        }
    }
    make_missing(left, &mut list);
    let is_of_transactions = |room: &Room| &*room.topic == TRANSACTIONS_TOPIC;
    let (first, others) = list.into_iter().partition(is_of_transactions);
    let mut list = open_all(left, first);
    let opened = list
        .iter()
        .filter_map(|room| room.opened.as_ref()?.as_ref().ok());
    let _ = left
        .transaction_logs
        .set(opened.map(|(log, _)| log.view()).collect());
    list.extend(open_all(left, others));
    list.sort_by(|a, b| (&a.topic, a.index).cmp(&(&b.topic, b.index)));
    sum_up(&list);
    catch_up(rooms, metadata, &mut list);
    let all_online = list.iter().all(|room| matches!(room.opened, Some(Ok(_))));
    let in_logs = InLogs::of(&list);
    let (mut catalog, mut jobs) = (Catalog::default(), Vec::new());
    let mut list = list.into_iter().peekable();
    while let Some(first) = list.peek() {
        let (name, id, config) = (first.topic.clone(), first.id, first.config.clone());
        let mut partitions = Vec::new();
        while let Some(room) = list.next_if(|room| room.id == id) {
            partitions.push(furnish(rooms, room, &mut jobs));
        }
        let overrides = metadata
            .state
            .topics
            .get(&*name)
            .map(|topic| topic.overrides.clone())
            .unwrap_or_default();
        catalog.insert(Arc::new(Topic {
            name,
            id,
            partitions,
            overrides,
            config: TopicConfig::clone(&config),
        }));
    }
    Ok((catalog, jobs, all_online, in_logs))
}

fn open_all(left: &Left<'_>, list: Vec<Room>) -> Vec<Room> {
    let count = list.len();
    let waiting = Mutex::new(list.into_iter());
    let done = Mutex::new(Vec::with_capacity(count));
    let take = || {
        waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .next()
    };
    let work = || {
        while let Some(mut room) = take() {
            if room.opened.is_none() {
                room.opened = Some(open_one(left, &room));
            }
            done.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(room);
        }
    };
    let threads = (left.rooms.settings.get().recovery_threads as usize).min(count);
    thread::scope(|scope| {
        // This thread is one of them, and enough if no other can be started.
        for _ in 1..threads {
            let _ = thread::Builder::new()
                .name("recovery".into())
                .spawn_scoped(scope, work);
        }
        work();
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Makes those that are not there, as a crash leaves many of a large topic, and whose records are not missed.
fn make_missing(left: &Left<'_>, list: &mut [Room]) {
    let is_new =
        |room: &&mut Room| !left.had_records(&room.topic, room.index) && !room.dir.exists();
    let mut missing: Vec<&mut Room> = list.iter_mut().filter(is_new).collect();
    for some in missing.chunks_mut(MADE_TOGETHER) {
        let wanted: Vec<Wanted<'_>> = some.iter().map(|room| room.wanted()).collect();
        let logs = left.rooms.make(&wanted);
        for (room, log) in some.iter_mut().zip(logs) {
            room.opened = Some(log.map(|log| (log, Report::default())));
        }
    }
}

fn open_one(left: &Left<'_>, room: &Room) -> Result<(Log, Report)> {
    left.finds(&room.topic, room.index, &room.dir, room.id)?;
    left.recover(&room.topic, room.index, &room.dir, &room.config)
}

fn furnish(rooms: &Rooms, mut room: Room, jobs: &mut Vec<Job>) -> Arc<Partition> {
    let opened = room.opened.take();
    let opened = opened.unwrap_or_else(|| Err(Error::new("its log was not opened")));
    let log = opened.map(|(log, _)| log);
    let (partition, job) = rooms.furnish(&room.wanted(), room.leader_epoch, log);
    match job {
        Ok(job) => jobs.push(job),
        Err(error) => log::error!("{}-{} is offline: {error}", room.topic, room.index),
    }
    partition
}
