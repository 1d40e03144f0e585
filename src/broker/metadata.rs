//! The catalog's own log at start, before the writer has it: opened, read, and appended to.
//!
//! Invariant: what [`Metadata::append`] returns from is written and synced; the writer does not run yet, so this
//! is the one other place that appends, to the one log that nothing else touches.

use super::open::Left;
use super::replay::{Entry, for_each_entry, for_each_in_file};
use crate::batch::HEADER_BYTES;
use crate::catalog::{METADATA_TOPIC, METADATA_TOPIC_ID, State};
use crate::clock::Clock;
use crate::control::{Wanted, batch_of, partition_dir};
use crate::error::{Context, Error, Result};
use crate::storage::{Log, Partition, Report, Shared, Snapshot, Status, View};
use crate::sync::{self, Syncer};
use crate::wire::metadata_records::{MetadataRecord, ProducerIdsRecord};
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// The catalog's own log, before the writer has it.
pub(super) struct Metadata {
    pub partition: Arc<Partition>,
    pub log: Log,
    pub state: State,
    clock: Arc<Clock>,
}

impl Metadata {
    /// Opens it, or makes it in a new directory, and reads every record.
    pub fn open(left: &Left<'_>) -> Result<Metadata> {
        let rooms = left.rooms;
        let dir = partition_dir(&rooms.data, METADATA_TOPIC, 0);
        let config = rooms.settings.get();
        let config = config.topic_defaults();
        let (log, report) = match left.finds(METADATA_TOPIC, 0, &dir, METADATA_TOPIC_ID)? {
            true => left.recover(METADATA_TOPIC, 0, &dir, config)?,
            false => {
                let wanted = Wanted {
                    topic: &METADATA_TOPIC.into(),
                    id: METADATA_TOPIC_ID,
                    index: 0,
                    config,
                };
                let missing = || Err(Error::new("it was not made"));
                let log = rooms.make(&[wanted]).pop().unwrap_or_else(missing)?;
                (log, Report::default())
            }
        };
        let view = Arc::new(log.view());
        let mut state = replay(&dir, &view, &rooms.storage)?;
        // A tear shows at this start only: what it may have reserved is recorded before anything is given out.
        let torn = report
            .cut
            .map_or(0, |cut| cut.bytes.div_ceil(HEADER_BYTES as u64));
        state.skip_producer_ids(torn as i64);
        let snapshot = Snapshot {
            view,
            leader_epoch: 0,
            status: Status::Online,
        };
        let partition = Partition::new(METADATA_TOPIC.into(), METADATA_TOPIC_ID, 0, dir, snapshot);
        let mut metadata = Metadata {
            partition: Arc::new(partition),
            log,
            state,
            clock: left.clock.clone(),
        };
        if torn > 0 {
            let ids = MetadataRecord::ProducerIds(ProducerIdsRecord {
                broker_id: rooms.settings.get().node_id,
                broker_epoch: 0,
                next_producer_id: metadata.state.next_producer_id,
            });
            metadata.append(&[ids])?;
        }
        Ok(metadata)
    }

    /// Whether the catalog's own log, or a topic that it names, has this partition.
    pub fn has(&self, topic: &str, index: i32) -> bool {
        let partitions = self
            .state
            .topics
            .get(topic)
            .map(|topic| topic.leader_epochs.len());
        topic == METADATA_TOPIC
            || partitions.is_some_and(|count| (0..count as i32).contains(&index))
    }

    /// Commits records before the writer runs: written and synced on return.
    pub fn append(&mut self, records: &[MetadataRecord]) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let refused = |code| Error::new(format!("{METADATA_TOPIC}: {code:?}"));
        self.log
            .stage(batch_of(records), None, 0, self.clock.now().time_ms)
            .map_err(refused)?;
        self.log.write_staged()?;
        // P6: a start that goes on without these records would sync the same bytes once more, and be told that all is
        // well.
        let synced = Syncer::default().sync_all(self.log.unsynced());
        synced.unwrap_or_else(|error| sync::end_process(&error));
        self.log.mark_synced();
        self.partition.publish(self.log.view());
        records.iter().for_each(|record| self.state.apply(record));
        Ok(())
    }
}

/// Reads every record of the catalog. What cannot be read is stepped over, with an error in the log: the topics of
/// lost records are adopted again from their directories. Nothing compacts this log, so that an offset that is missing
/// is a record that is lost.
fn replay(dir: &Path, view: &View, shared: &Shared) -> Result<State> {
    let (mut state, from) = snapshot(dir, view.log_start)?;
    let mut next = from;
    for_each_entry(METADATA_TOPIC, view, shared, |entry| {
        let (offset, record) = match entry {
            Entry::Record { offset, value, .. } => (offset, Some(value)),
            Entry::Marker(header, _) | Entry::Control(header) => (header.base_offset, None),
        };
        if offset < from {
            return Ok(());
        }
        state.lose_records(offset - next);
        next = offset + 1;
        record.map_or(Ok(()), |value| apply(&mut state, value))
    })?;
    state.lose_records(view.high_watermark - next);
    state.tell_what_is_kept();
    Ok(state)
}

fn apply(state: &mut State, value: Option<&[u8]>) -> std::result::Result<(), String> {
    let record = MetadataRecord::decode(value.unwrap_or_default());
    state.apply(&record.map_err(|error| error.to_string())?);
    Ok(())
}

/// What a catalog of Kafka's was, in the snapshot that let Kafka remove the beginning of its log, and the offset that
/// the log's records go on from. Ottla removes nothing from it.
fn snapshot(dir: &Path, log_start: i64) -> Result<(State, i64)> {
    if log_start == 0 {
        return Ok((State::default(), 0));
    }
    let reading = || format!("reading {}", dir.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).context(reading)? {
        let name = entry.context(reading)?.file_name();
        found.extend(offset_of(&name).map(|offset| (offset, dir.join(name))));
    }
    found.retain(|(offset, _)| *offset >= log_start);
    found.sort();
    for (offset, path) in found.into_iter().rev() {
        let mut state = State::default();
        if for_each_in_file(&path, |_, value| apply(&mut state, value))? {
            return Ok((state, offset));
        }
        log::warn!("{} is garbled and ignored", path.display());
    }
    log::error!(
        "{METADATA_TOPIC}: the records before offset {log_start} are in no snapshot; \
         topics are adopted from their directories, without their settings"
    );
    // The records that are lost count as any others that are.
    Ok((State::default(), 0))
}

/// The offset in a snapshot's name, `<offset>-<epoch>.checkpoint`.
fn offset_of(name: &OsStr) -> Option<i64> {
    let (offset, epoch) = name
        .to_str()?
        .strip_suffix(".checkpoint")?
        .split_once('-')?;
    let plain = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit());
    (plain(offset) && plain(epoch)).then(|| offset.parse().ok())?
}
