//! Small state: files that are rewritten whole, and how they survive a power cut at any point (promise P9).
//!
//! Owns: the one way to replace such a file, and Kafka's text formats of them.
//!
//! ```text
//!   write   name.tmp written, synced -> name renamed to name.previous -> name.tmp renamed to name -> directory synced
//!   read    name, if it parses; else name.previous, if that does; else nothing
//!
//!   recovery-point-, log-start-, cleaner-offset-checkpoint             leader-epoch-checkpoint
//!     0                      the format's version                        0
//!     2                      how many lines follow                       2
//!     orders 0 4711          topic, partition, offset                    0 0        epoch, its first offset
//!     orders 1 12                                                        3 4711
//!     #crc32c 0 305419896        of all before it
//!
//!   partition.metadata                       meta.properties (Java's properties)
//!     version: 0                               version=1
//!     topic_id: 22 characters of base64        cluster.id=, node.id=, directory.id=
//!                                              #crc32c 0 305419896
//! ```
//!
//! One flipped bit in a log start would hide acknowledged records, and retention then remove them; one in broker time
//! would make all of them old. Hence the line with the CRC: to Kafka it is the offset of a partition that it does not
//! have, since no topic can be named so, and a comment in a properties file.
//!
//! The clean-shutdown marker is here too: `{"version":0,"brokerEpoch":-1}`, as Kafka writes it.
//!
//! The log starts are what makes room on a full disk (L4), so they need none to be written: a file of old bytes,
//! `log-start-offset-checkpoint.spare`, is kept to write them over, and the generation before the previous one takes
//! its place. (On a filesystem that never writes in place it does not help, and a DeleteRecords may be refused.)
//!
//! In a directory that was just made there is no old state to keep: there a file is written as it is, and synced with
//! the directory.
//!
//! Invariants: until the last rename the old state is whole and in place; a failed write (a full disk) changes
//! nothing and is the caller's to report, never a reason to stop; so is a sync that fails before anything is in place.
//! That of the directory, which others share, is final (P6). Sources: Kafka's `CheckpointFile`,
//! `PartitionMetadataFile`, `MetaProperties`.

use crate::error::{Context, Result};
use crate::sync;
use crate::wire::primitives::Uuid;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{ErrorKind, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

/// Replaces the file `path` by `bytes`, the old one kept as `.previous`; on return the new one is durable.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    write_unnamed(path, bytes)?;
    let dir = path.parent().unwrap_or(Path::new("."));
    sync::sync_entries(dir).context(|| format!("syncing {}", dir.display()))
}

/// Likewise, but until the directory is synced a power cut may bring back the old one.
fn write_unnamed(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = with_suffix(path, ".tmp");
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        put_in_place(path, &temporary, &file)
    };
    let result = write();
    if result.is_err() {
        // A full disk must not stay full because of the attempt; this file was never in place.
        let _ = fs::remove_file(&temporary);
    }
    result.context(|| format!("writing {}", path.display()))
}

/// As [`write`], over the bytes of the spare file.
fn write_over_spare(path: &Path, bytes: &[u8]) -> Result<()> {
    let [temporary, spare] = [".tmp", SPARE].map(|suffix| with_suffix(path, suffix));
    let _ = fs::rename(&spare, &temporary);
    let write = || {
        let mut file = open_spare(&temporary)?;
        file.write_all(bytes)?;
        file.set_len(bytes.len() as u64)?;
        // Unless it is the last whole one.
        if path.exists() {
            rename_if_there(&with_suffix(path, ".previous"), &spare)?;
        }
        put_in_place(path, &temporary, &file)
    };
    let result = write();
    if result.is_err() {
        let _ = fs::rename(&temporary, &spare);
    }
    result.context(|| format!("writing {}", path.display()))?;
    let dir = path.parent().unwrap_or(Path::new("."));
    sync::sync_entries(dir).context(|| format!("syncing {}", dir.display()))
}

fn open_spare(path: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(false).open(path)
}

/// Sees to it that the spare file holds so many bytes and some more: that many lines may come before the next one.
fn grow_spare(path: &Path, bytes: usize) -> Result<()> {
    let spare = with_suffix(path, SPARE);
    let grow = || {
        let mut file = open_spare(&spare)?;
        let there = file.seek(SeekFrom::End(0))? as usize;
        let lacking = (bytes + SPARE_BYTES).saturating_sub(there);
        file.write_all(&vec![0; lacking])
    };
    grow().context(|| format!("writing {}", spare.display()))
}

/// Writes a file that is not there yet, and gives it to be synced.
fn create(path: &Path, text: &str) -> Result<File> {
    let write = || -> std::io::Result<File> {
        let mut file = File::create_new(path)?;
        file.write_all(text.as_bytes())?;
        Ok(file)
    };
    write().context(|| format!("writing {}", path.display()))
}

fn put_in_place(path: &Path, temporary: &Path, file: &File) -> std::io::Result<()> {
    // L9, L10: neither name may show bytes that a power cut can take back.
    file.sync_all()?;
    rename_if_there(path, &previous(path))?;
    fs::rename(temporary, path)
}

fn rename_if_there(from: &Path, to: &Path) -> std::io::Result<()> {
    match fs::rename(from, to) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Reads the file `path` through `parse`, or its previous generation if the newest does not parse, is missing, or is
/// refused by the disk. Nothing where neither is whole: small state never keeps a broker from starting. Errors are the
/// disk's, where it has both.
pub fn read<T>(path: &Path, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>> {
    Ok(read_whole(path, parse, 1)?.pop())
}

/// So many generations that are whole, the newest first; an error only where the disk refuses one, and none is whole.
fn read_whole<T>(
    path: &Path,
    parse: impl Fn(&str) -> Option<T>,
    count_max: usize,
) -> Result<Vec<T>> {
    let (mut whole, mut refused) = (Vec::new(), None);
    for generation in [path, &previous(path)] {
        match read_one(generation, &parse) {
            Ok(state) => whole.extend(state),
            Err(error) => refused = Some(error),
        }
        if whole.len() == count_max {
            break;
        }
    }
    match refused {
        Some(error) if whole.is_empty() => Err(error),
        Some(error) => {
            log::warn!("{error}; its other generation is whole");
            Ok(whole)
        }
        None => Ok(whole),
    }
}

fn read_one<T>(path: &Path, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>> {
    match fs::read(path) {
        // Kafka makes its checkpoints empty, before the first write.
        Ok(bytes) if bytes.is_empty() => Ok(None),
        Ok(bytes) => {
            let state = std::str::from_utf8(&bytes).ok().and_then(parse);
            if state.is_none() {
                log::warn!("{} is garbled and ignored", path.display());
            }
            Ok(state)
        }
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).context(|| format!("reading {}", path.display())),
    }
}

fn previous(path: &Path) -> PathBuf {
    with_suffix(path, ".previous")
}

/// What the line begins with that holds the CRC-32C of all before it.
const CRC_LINE: &str = "#crc32c 0 ";

/// Adds the line that tells later whether a text is still what was written.
pub fn sealed(mut text: String) -> String {
    let crc = crc32c::crc32c(text.as_bytes());
    let _ = writeln!(text, "{CRC_LINE}{crc}");
    text
}

/// A text without that line, if it is still what was written; one that has none, as Kafka's, is believed.
pub fn unsealed(text: &str) -> Option<&str> {
    let Some(at) = text.rfind(CRC_LINE) else {
        return Some(text);
    };
    let (before, line) = text.split_at(at);
    let crc: u32 = line.strip_prefix(CRC_LINE)?.trim_end().parse().ok()?;
    (crc == crc32c::crc32c(before.as_bytes())).then_some(before)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The lines of a checkpoint of version 0, if they are as many as it says and the last one is whole.
fn checkpoint_lines(text: &str) -> Option<Vec<&str>> {
    let mut lines = text.strip_suffix('\n')?.lines();
    if lines.next()? != "0" {
        return None;
    }
    let count: usize = lines.next()?.parse().ok()?;
    let lines: Vec<&str> = lines.collect();
    (lines.len() == count).then_some(lines)
}

/// An offset for each (topic, partition).
pub type Offsets = BTreeMap<(String, i32), i64>;

/// Kafka's file of recovery points, in the data directory.
pub const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";

/// Kafka's file of log starts, in the data directory.
pub const LOG_STARTS: &str = "log-start-offset-checkpoint";

/// Kafka's file of where each log's uncompacted part begins, in the data directory.
pub const CLEANER_OFFSETS: &str = "cleaner-offset-checkpoint";

/// Ottla's file of when the scrub read each log, in the data directory: broker time (ms) in the offsets' place.
pub const SCRUB_TIMES: &str = "scrub-checkpoint";

const SPARE: &str = ".spare";
/// What the spare file holds beyond the text that it last replaced.
const SPARE_BYTES: usize = 4096;

/// Reads an offset checkpoint; empty if there is none.
pub fn read_offsets(path: &Path) -> Result<Offsets> {
    Ok(read(path, parse_offsets)?.unwrap_or_default())
}

/// Reads the log starts. Where the disk refuses the newest, the generation before will not do: it would bring back
/// records that were deleted since.
pub fn read_log_starts(data: &Path) -> Result<Offsets> {
    let path = data.join(LOG_STARTS);
    let starts = match read_one(&path, parse_offsets)? {
        None => read_one(&previous(&path), parse_offsets)?,
        newest => newest,
    };
    Ok(starts.unwrap_or_default())
}

/// What an offset checkpoint says, if it is whole.
pub fn parse_offsets(text: &str) -> Option<Offsets> {
    let line = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let topic = words.next()?.to_owned();
        let partition = words.next()?.parse().ok()?;
        let offset = words.next()?.parse().ok()?;
        words
            .next()
            .is_none()
            .then_some(((topic, partition), offset))
    };
    unsealed(text)?;
    let lines = checkpoint_lines(text)?.into_iter();
    let partitions = lines.filter(|line| !line.starts_with(CRC_LINE));
    partitions.map(line).collect()
}

/// Writes an offset checkpoint.
pub fn write_offsets(path: &Path, offsets: &Offsets) -> Result<()> {
    write(path, offset_lines(offsets).as_bytes())
}

/// Writes the offset checkpoint of log starts, on a full disk too.
pub fn write_log_starts(data: &Path, starts: &Offsets) -> Result<()> {
    let (path, text) = (data.join(LOG_STARTS), offset_lines(starts));
    write_over_spare(&path, text.as_bytes())?;
    // What cannot be had now is no matter of this one.
    let _ = grow_spare(&path, text.len());
    Ok(())
}

/// Makes the spare file of the log starts while there may be room, and in a new directory the two generations that will
/// take its place.
pub fn reserve_log_starts(data: &Path, starts: &Offsets) -> Result<()> {
    let path = data.join(LOG_STARTS);
    if !path.exists() {
        write_log_starts(data, starts)?;
        write_log_starts(data, starts)?;
    }
    grow_spare(&path, offset_lines(starts).len())
}

fn offset_lines(offsets: &Offsets) -> String {
    // The line with the CRC is one of them.
    let mut text = format!("0\n{}\n", offsets.len() + 1);
    for ((topic, partition), offset) in offsets {
        let _ = writeln!(text, "{topic} {partition} {offset}");
    }
    sealed(text)
}

/// Where a leader epoch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochStart {
    /// The leader epoch.
    pub epoch: i32,
    /// The offset of its first record, or where that will be.
    pub start_offset: i64,
}

/// Kafka's file of leader epochs, in a partition's directory.
pub const LEADER_EPOCHS: &str = "leader-epoch-checkpoint";

/// Reads a partition's leader epochs, ascending in both numbers; empty if there is no file.
pub fn read_epochs(dir: &Path) -> Result<Vec<EpochStart>> {
    Ok(read(&dir.join(LEADER_EPOCHS), parse_epochs)?.unwrap_or_default())
}

/// What a file of leader epochs says, if it is whole.
pub fn parse_epochs(text: &str) -> Option<Vec<EpochStart>> {
    let line = |line: &str| {
        let (epoch, start) = line.split_once(' ')?;
        Some(EpochStart {
            epoch: epoch.parse().ok()?,
            start_offset: start.trim().parse().ok()?,
        })
    };
    let epochs: Vec<EpochStart> = checkpoint_lines(text)?
        .into_iter()
        .map(line)
        .collect::<Option<_>>()?;
    let rising = |pair: &[EpochStart]| {
        pair[0].epoch < pair[1].epoch && pair[0].start_offset < pair[1].start_offset
    };
    epochs.windows(2).all(rising).then_some(epochs)
}

/// Writes the first leader epochs of a directory that was just made. Nothing is synced: the caller syncs the returned
/// file, and the directory, before anything in it is acknowledged (L9). Till then a torn one shows, as garbled.
pub fn create_epochs(dir: &Path, epochs: &[EpochStart]) -> Result<File> {
    create(&dir.join(LEADER_EPOCHS), &epoch_lines(epochs))
}

fn epoch_lines(epochs: &[EpochStart]) -> String {
    let mut text = format!("0\n{}\n", epochs.len());
    for start in epochs {
        let _ = writeln!(text, "{} {}", start.epoch, start.start_offset);
    }
    text
}

/// Writes a partition's leader epochs. The directory's sync is the caller's: the log has one at hand whose failure is
/// final (P6), and that one must be the first to hear of a failure.
pub fn write_epochs(dir: &Path, epochs: &[EpochStart]) -> Result<()> {
    write_unnamed(&dir.join(LEADER_EPOCHS), epoch_lines(epochs).as_bytes())
}

/// Kafka's file that says which topic a partition's directory belongs to.
pub const PARTITION_METADATA: &str = "partition.metadata";

/// Reads the topic id of a partition's directory; nothing if no whole file is there.
pub fn read_topic_id(dir: &Path) -> Result<Option<Uuid>> {
    read(&dir.join(PARTITION_METADATA), parse_topic_id)
}

/// What a `partition.metadata` says, if it is whole.
pub fn parse_topic_id(text: &str) -> Option<Uuid> {
    let mut lines = text.lines();
    let version = lines.next()?.strip_prefix("version:")?.trim();
    let id = lines.next()?.strip_prefix("topic_id:")?.trim();
    (version == "0").then(|| id.parse().ok()).flatten()
}

/// Writes the topic id of a partition's directory.
pub fn write_topic_id(dir: &Path, id: Uuid) -> Result<()> {
    write(&dir.join(PARTITION_METADATA), topic_id_lines(id).as_bytes())
}

/// Likewise for a directory that was just made. Nothing is synced: see [`create_epochs`].
pub fn create_topic_id(dir: &Path, id: Uuid) -> Result<File> {
    create(&dir.join(PARTITION_METADATA), &topic_id_lines(id))
}

/// Writes back what the small files of a partition's directory hold, and syncs them: a crash may have come between
/// their making and their sync, and then the page cache alone has them (P6).
pub fn write_back(dir: &Path) -> Result<()> {
    for name in [PARTITION_METADATA, LEADER_EPOCHS] {
        let path = dir.join(name);
        let write = || match fs::read(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            bytes => {
                let mut file = File::options().write(true).open(&path)?;
                file.write_all(&bytes?)?;
                file.sync_all()
            }
        };
        write().context(|| format!("writing back {}", path.display()))?;
    }
    Ok(())
}

fn topic_id_lines(id: Uuid) -> String {
    format!("version: 0\ntopic_id: {id}")
}

/// Who this data directory is (Kafka's `meta.properties`, version 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaProperties {
    /// The cluster's id, 22 characters of base64 by custom.
    pub cluster_id: String,
    /// The broker's number.
    pub node_id: i32,
    /// The directory's id (KIP-858), if it has one.
    pub directory_id: Option<Uuid>,
}

/// Kafka's file that names a data directory.
pub const META_PROPERTIES: &str = "meta.properties";

/// Reads a data directory's `meta.properties`: the generations that are whole, the newest first.
pub fn read_meta_properties(data: &Path) -> Result<Vec<MetaProperties>> {
    read_whole(&data.join(META_PROPERTIES), parse_meta_properties, 2)
}

/// What a `meta.properties` says, if it is whole.
pub fn parse_meta_properties(text: &str) -> Option<MetaProperties> {
    let mut values = BTreeMap::new();
    for line in unsealed(text)?.lines().map(str::trim_start) {
        if !line.is_empty() && !line.starts_with(['#', '!']) {
            let (name, value) = line.split_once(['=', ':'])?;
            values.insert(name.trim(), value.trim().replace('\\', ""));
        }
    }
    let directory_id = match values.get("directory.id") {
        Some(id) => Some(id.parse().ok()?),
        None => None,
    };
    let node_id = match &**values.get("version")? {
        "1" => "node.id",
        // Of Kafka with ZooKeeper.
        "0" => "broker.id",
        _ => return None,
    };
    Some(MetaProperties {
        cluster_id: values.get("cluster.id")?.clone(),
        node_id: values.get(node_id)?.parse().ok()?,
        directory_id,
    })
}

/// Writes a data directory's `meta.properties`, in both generations: it never changes, so that none would ever become
/// the previous one.
pub fn write_meta_properties(data: &Path, meta: &MetaProperties) -> Result<()> {
    let mut text = format!("#\nversion=1\ncluster.id={}\n", meta.cluster_id);
    let _ = writeln!(text, "node.id={}", meta.node_id);
    if let Some(id) = meta.directory_id {
        let _ = writeln!(text, "directory.id={id}");
    }
    let (path, text) = (data.join(META_PROPERTIES), sealed(text));
    write(&path, text.as_bytes())?;
    write(&path, text.as_bytes())
}

/// Kafka's marker of a clean stop, in the data directory.
pub const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";

/// Says that every log was closed. L8: written last of all, and only if each [`super::Log::close`] succeeded.
pub fn write_clean_shutdown(data: &Path) -> Result<()> {
    let path = data.join(CLEAN_SHUTDOWN);
    write(&path, b"{\"version\":0,\"brokerEpoch\":-1}")
}

/// Whether the last stop was clean. L8: the marker is gone, durably, before anything is written.
pub fn take_clean_shutdown(data: &Path) -> Result<bool> {
    let path = data.join(CLEAN_SHUTDOWN);
    let take = || match fs::remove_file(&path) {
        Ok(()) => sync::sync_entries(data).map(|()| true),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    };
    take().context(|| format!("removing {}", path.display()))
}

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod tests;
