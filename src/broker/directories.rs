//! The data directory's entries against the catalog: which are known, removed, unknown, or in the way.
//!
//! ```text
//! directory          catalog                        decision
//! topic-N, id I      has topic with id I            recover
//!                    removed I                      rename away and unlink: a deletion that a crash cut short (L6)
//!                    has topic, with another id     put aside as a stray
//!                    does not know topic nor I      adopt: moved here, or its record fell into a gap
//! topic-N, no id     has topic                      recover, and write the id: its small state was lost
//!                    does not know topic            leave alone, with a warning
//! *-delete           -                              unlink
//! missing            has topic                      make, empty: a crash came between record and directory
//! ```
//! Invariants: nothing is unlinked whose RemoveTopicRecord was not read, or whose name does not say so; a name that
//! is to be unlinked is no partition's own name any more, durably, before any log is opened.

use crate::catalog::{METADATA_TOPIC, State, check_name};
use crate::control::{
    NewTopic, Rooms, partition_dir, partition_record, topic_records, unlink_in_background,
};
use crate::error::{Context, Result};
use crate::storage::checkpoint;
use crate::wire::Uuid;
use crate::wire::metadata_records::MetadataRecord;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A directory with a higher number was not made by a broker.
const PARTITION_INDEX_MAX: i32 = 100_000;

/// Of each topic that the catalog does not know: the highest partition number.
type Unknown = BTreeMap<(String, Uuid), i32>;

/// Goes through the data directory as the table above says; gives the records that adopt what is unknown.
pub fn look_around(rooms: &Rooms, state: &State) -> Result<Vec<MetadataRecord>> {
    let (mut doomed, mut records, mut unknown) = (Vec::new(), Vec::new(), Unknown::new());
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
            continue;
        };
        match (topic_id(&path), state.topics.get(topic)) {
            (Some(id), _) if state.removed.contains(&id) => doomed.extend(rooms.doom(&path)),
            (Some(id), Some(known)) if known.id == id => {
                let first = known.leader_epochs.len() as i32;
                records.extend((first..=index).map(|index| found(rooms, topic, id, index)));
            }
            (Some(_), Some(_)) => rooms.put_aside(&path)?,
            (None, Some(known)) => {
                if let Err(error) = checkpoint::write_topic_id(&path, known.id) {
                    log::warn!("{error}; the next start tries again");
                }
            }
            (Some(id), None) if state.name_of(id).is_none() => {
                let highest = unknown.entry((topic.into(), id)).or_default();
                *highest = index.max(*highest);
            }
            (_, None) => log::warn!("{} belongs to no topic and is left alone", path.display()),
        }
    }
    adopt(unknown, rooms, &mut records)?;
    rooms.sync()?;
    unlink_in_background(doomed);
    Ok(records)
}

fn adopt(unknown: Unknown, rooms: &Rooms, records: &mut Vec<MetadataRecord>) -> Result<()> {
    let mut last = None;
    for ((name, id), highest) in unknown {
        let dirs = (0..=highest).map(|index| partition_dir(&rooms.data, &name, index));
        // Two topics of one name: which is the living one, a person must say.
        if last.as_ref() == Some(&name) {
            for dir in dirs.filter(|dir| topic_id(dir) == Some(id)) {
                rooms.put_aside(&dir)?;
            }
            continue;
        }
        log::warn!("topic {name} ({id}) is not in the catalog; it is adopted from its directories");
        let topic = NewTopic {
            name: name.clone(),
            ..NewTopic::default()
        };
        records.extend(topic_records(&topic, id, 0, rooms.settings.get().node_id));
        records.extend((0..=highest).map(|index| found(rooms, &name, id, index)));
        last = Some(name);
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

/// Topic and number of a partition's directory, if it has a name of that form.
fn partition_of(name: &str) -> Option<(&str, i32)> {
    let (topic, number) = name.rsplit_once('-')?;
    let index: i32 = number.parse().ok()?;
    let canonical = index.to_string() == number && (0..PARTITION_INDEX_MAX).contains(&index);
    (canonical && check_name(topic).is_ok()).then_some((topic, index))
}
