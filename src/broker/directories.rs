//! The data directory's entries against the catalog: which are known, removed, unknown, or in the way.
//!
//! ```text
//! directory          catalog                        decision
//! topic-N, id I      has topic with id I            recover; a partition whose record was lost is recorded again
//!                    removed I                      rename away and unlink: a deletion that a crash cut short (L6)
//!                    has topic, with another id     put aside as a stray; but where records of the catalog are lost,
//!                                                   and no directory has that id, the topic was removed and made anew
//!                    does not know topic nor I      adopt: moved here, or its record fell into a gap
//! topic-N, no id     has topic                      recover, and write the id: its small state was lost
//!                    does not know topic            adopt, if segments are in it; else leave alone, with a warning
//! *-delete           -                              unlink
//! *-future, *-stray  -                              leave alone, with a warning: Kafka's copies in the making, and
//!                                                   what was in the way
//! missing            has topic                      make, empty: a crash came between record and directory
//! ```
//! An id that rot has garbled counts as none. What is adopted is kept, however old it grows, until someone sets how
//! long it is to be: what was set may have been lost with its record.
//!
//! Invariants: nothing is unlinked whose RemoveTopicRecord was not read, or whose name does not say so; a name that
//! is to be unlinked is no partition's own name any more, durably, before any log is opened.

use crate::catalog::{METADATA_TOPIC, State, TopicState, kept_for_ever, partition_of};
use crate::control::{
    Internal, NewTopic, Rooms, partition_dir, partition_record, topic_records, unlink_in_background,
};
use crate::error::{Context, Result};
use crate::storage::checkpoint;
use crate::storage::segment::offset_in_name;
use crate::wire::Uuid;
use crate::wire::metadata_records::{MetadataRecord, RemoveTopicRecord};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Of each topic that the catalog does not know: by the ids that its directories tell, the partitions' numbers. Where
/// they tell none it is [`Uuid::ZERO`].
type Unknown = BTreeMap<String, BTreeMap<Uuid, Vec<i32>>>;

/// Random ids differ in about 64 of their 128 bits: two that are nearer than this are one, and rot.
const ROT_BITS_MAX: u32 = 16;

/// Goes through the data directory as the table above says; gives the records that adopt what is unknown.
pub fn look_around(rooms: &Rooms, state: &State) -> Result<Vec<MetadataRecord>> {
    let (mut doomed, mut records, mut unknown) = (Vec::new(), Vec::new(), Unknown::new());
    let mut removed = BTreeSet::new();
    let reading = || format!("reading {}", rooms.data.display());
    for entry in fs::read_dir(&rooms.data).context(reading)? {
        let entry = entry.context(reading)?;
        let path = entry.path();
        // The entry tells it without another look, but where a link leads.
        let is_dir = entry
            .file_type()
            .is_ok_and(|kind| kind.is_dir() || kind.is_symlink() && path.is_dir());
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(name) = name.filter(|_| is_dir) else {
            continue;
        };
        if name.ends_with("-delete") {
            doomed.push(path);
            continue;
        }
        let Some((topic, index)) = partition_of(name).filter(|(topic, _)| *topic != METADATA_TOPIC)
        else {
            if name.ends_with("-future") || name.ends_with("-stray") {
                log::warn!("{} is no partition's and is left alone", path.display());
            }
            continue;
        };
        let known = state.topics.get(topic);
        let id = topic_id(&path).filter(|id| known.is_none_or(|known| !is_rotten(*id, known.id)));
        match (id, known) {
            (Some(id), _) if state.removed.contains(&id) => doomed.extend(rooms.doom(&path)),
            (Some(id), Some(known)) if known.id != id => {
                if !state.has_lost_records || has_directory(rooms, topic, known) {
                    rooms.put_aside(&path)?;
                    continue;
                }
                removed.insert(known.id);
                let of_topic = unknown.entry(topic.into()).or_default();
                of_topic.entry(id).or_default().push(index);
            }
            (id, Some(known)) => {
                if id.is_none() {
                    write_topic_id(&path, known.id);
                }
                let first = known.leader_epochs.len() as i32;
                records.extend((first..=index).map(|index| found(rooms, topic, known.id, index)));
            }
            (Some(id), None) if state.name_of(id).is_some() => left_alone(&path),
            (None, None) if !has_segments(&path) => left_alone(&path),
            (id, None) => {
                let of_topic = unknown.entry(topic.into()).or_default();
                let of_id = of_topic.entry(id.unwrap_or(Uuid::ZERO)).or_default();
                of_id.push(index);
            }
        }
    }
    let removal = |topic_id| MetadataRecord::RemoveTopic(RemoveTopicRecord { topic_id });
    records.extend(removed.into_iter().map(removal));
    adopt(unknown, rooms, &mut records)?;
    rooms.sync()?;
    unlink_in_background(doomed);
    Ok(records)
}

/// Whether a partition that the catalog knows has its own directory.
fn has_directory(rooms: &Rooms, topic: &str, known: &TopicState) -> bool {
    let mut dirs =
        (0..known.leader_epochs.len() as i32).map(|index| partition_dir(&rooms.data, topic, index));
    dirs.any(|dir| topic_id(&dir).is_some_and(|id| id == known.id || is_rotten(id, known.id)))
}

fn left_alone(path: &Path) {
    log::warn!("{} belongs to no topic and is left alone", path.display());
}

fn is_rotten(id: Uuid, original: Uuid) -> bool {
    let bits = u128::from_be_bytes(id.0) ^ u128::from_be_bytes(original.0);
    (1..=ROT_BITS_MAX).contains(&bits.count_ones())
}

fn has_segments(dir: &Path) -> bool {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let is_segment = |name: &std::ffi::OsStr| offset_in_name(name, ".log").is_some();
    entries
        .into_iter()
        .any(|entry| is_segment(&entry.file_name()))
}

fn write_topic_id(dir: &Path, id: Uuid) {
    if let Err(error) = checkpoint::write_topic_id(dir, id) {
        log::warn!("{error}; the next start tries again");
    }
}

fn adopt(unknown: Unknown, rooms: &Rooms, records: &mut Vec<MetadataRecord>) -> Result<()> {
    for (name, of_topic) in unknown {
        let told = of_topic.iter().filter(|(id, _)| **id != Uuid::ZERO);
        let id = match told.max_by_key(|(_, indexes)| indexes.len()) {
            Some((id, _)) => *id,
            None => Uuid::random().context(|| "making an id".into())?,
        };
        let mut highest = 0;
        for (other, index) in of_topic
            .iter()
            .flat_map(|(id, all)| all.iter().map(move |i| (*id, *i)))
        {
            let dir = partition_dir(&rooms.data, &name, index);
            if other == Uuid::ZERO || is_rotten(other, id) {
                write_topic_id(&dir, id);
            } else if other != id {
                // Two topics of one name: which is the living one, a person must say.
                rooms.put_aside(&dir)?;
                continue;
            }
            highest = index.max(highest);
        }
        let found_as = format!(
            "topic {name} ({id}) is not in the catalog; it is adopted from its directories"
        );
        let topic = match Internal::named(&name) {
            Some(internal) => {
                log::warn!("{found_as}");
                internal.new_topic(&rooms.settings.get())
            }
            None => {
                log::warn!(
                    "{found_as}, and kept for ever: set its retention.ms and retention.bytes, and cleanup.policy \
                     if it was compacted"
                );
                NewTopic {
                    name: name.as_str().into(),
                    overrides: kept_for_ever(),
                    ..NewTopic::default()
                }
            }
        };
        records.extend(topic_records(&topic, id, 0, rooms.settings.get().node_id));
        records.extend((0..=highest).map(|index| found(rooms, &name, id, index)));
    }
    Ok(())
}

/// The record of a partition that was found, at the leader epoch that it has reached.
fn found(rooms: &Rooms, topic: &str, id: Uuid, index: i32) -> MetadataRecord {
    let epochs = checkpoint::read_epochs(&partition_dir(&rooms.data, topic, index));
    let epoch = epochs
        .ok()
        .and_then(|epochs| epochs.last().map(|last| last.epoch));
    partition_record(id, index, epoch.unwrap_or(0), rooms.settings.get().node_id)
}

/// The id in a partition's directory. One that the disk refuses to give is as one that is lost.
fn topic_id(dir: &Path) -> Option<Uuid> {
    checkpoint::read_topic_id(dir).unwrap_or_else(|error| {
        log::warn!("{error}");
        None
    })
}
