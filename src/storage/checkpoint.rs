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
//! In a directory that was just made there is no old state to keep: there a file is written as it is, and synced with
//! the directory.
//!
//! Invariants: until the last rename the old state is whole and in place; a failed write (a full disk) changes
//! nothing and is the caller's to report, never a reason to stop. Sources: Kafka's `CheckpointFile`,
//! `PartitionMetadataFile`, `MetaProperties`.

use crate::error::{Context, Result};
use crate::sys;
use crate::wire::primitives::Uuid;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

/// Replaces the file `path` by `bytes`, the old one kept as `.previous`; on return the new one is durable.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    write_unnamed(path, bytes)?;
    let dir = path.parent().unwrap_or(Path::new("."));
    sys::sync_dir(dir).context(|| format!("syncing {}", dir.display()))
}

/// Likewise, but until the directory is synced a power cut may bring back the old one.
fn write_unnamed(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = with_suffix(path, ".tmp");
    let result = replace(path, &temporary, bytes);
    if result.is_err() {
        // A full disk must not stay full because of the attempt; this file was never in place.
        let _ = fs::remove_file(&temporary);
    }
    result.context(|| format!("writing {}", path.display()))
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

fn replace(path: &Path, temporary: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(temporary)?;
    file.write_all(bytes)?;
    // L9, L10: neither name may show bytes that a power cut can take back.
    file.sync_all()?;
    match fs::rename(path, previous(path)) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    fs::rename(temporary, path)
}

/// Reads the file `path` through `parse`, or its previous generation if the newest does not parse or is missing.
/// Nothing where neither is whole: small state never keeps a broker from starting. Errors are the disk's.
pub fn read<T>(path: &Path, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>> {
    Ok(match read_one(path, &parse)? {
        Some(state) => Some(state),
        None => read_one(&previous(path), &parse)?,
    })
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

/// Reads an offset checkpoint; empty if there is none.
pub fn read_offsets(path: &Path) -> Result<Offsets> {
    let parse = |text: &str| {
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
    };
    Ok(read(path, parse)?.unwrap_or_default())
}

/// Writes an offset checkpoint.
pub fn write_offsets(path: &Path, offsets: &Offsets) -> Result<()> {
    // The line with the CRC is one of them.
    let mut text = format!("0\n{}\n", offsets.len() + 1);
    for ((topic, partition), offset) in offsets {
        let _ = writeln!(text, "{topic} {partition} {offset}");
    }
    write(path, sealed(text).as_bytes())
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
    let path = data.join(META_PROPERTIES);
    let newest = read_one(&path, parse_meta_properties)?;
    let older = read_one(&previous(&path), parse_meta_properties)?;
    Ok(newest.into_iter().chain(older).collect())
}

fn parse_meta_properties(text: &str) -> Option<MetaProperties> {
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
    (values.get("version")? == "1").then_some(MetaProperties {
        cluster_id: values.get("cluster.id")?.clone(),
        node_id: values.get("node.id")?.parse().ok()?,
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
        Ok(()) => sys::sync_dir(data).map(|()| true),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    };
    take().context(|| format!("removing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clean_shutdown_marker_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!take_clean_shutdown(dir.path()).unwrap());
        for _ in 0..2 {
            write_clean_shutdown(dir.path()).unwrap();
            assert!(take_clean_shutdown(dir.path()).unwrap());
            assert!(!take_clean_shutdown(dir.path()).unwrap());
        }
    }

    fn offsets(pairs: &[(&str, i32, i64)]) -> Offsets {
        pairs
            .iter()
            .map(|&(topic, partition, offset)| ((topic.to_owned(), partition), offset))
            .collect()
    }

    #[test]
    fn offsets_are_kafkas_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(RECOVERY_POINTS);
        assert!(read_offsets(&path).unwrap().is_empty());
        let some = offsets(&[("a.b_c-d", 0, 4711), ("x", 12, 0)]);
        write_offsets(&path, &some).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "0\n3\na.b_c-d 0 4711\nx 12 0\n#crc32c 0 2040911574\n");
        assert_eq!(read_offsets(&path).unwrap(), some);
        // Kafka's own says nothing of its bytes.
        fs::write(&path, "0\n2\na.b_c-d 0 4711\nx 12 0\n").unwrap();
        assert_eq!(read_offsets(&path).unwrap(), some);
        write_offsets(&path, &Offsets::new()).unwrap();
        assert_eq!(read_offsets(&path).unwrap(), Offsets::new());
    }

    #[test]
    fn a_torn_or_missing_newest_gives_the_previous_generation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(LOG_STARTS);
        let (old, new) = (offsets(&[("t", 0, 1)]), offsets(&[("t", 0, 22)]));
        write_offsets(&path, &old).unwrap();
        write_offsets(&path, &new).unwrap();
        let whole = fs::read(&path).unwrap();
        for len in 1..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            assert_eq!(read_offsets(&path).unwrap(), old, "torn at {len}");
        }
        fs::write(&path, vec![0; whole.len()]).unwrap();
        assert_eq!(read_offsets(&path).unwrap(), old, "zero-filled");
        // The power went between the two renames.
        fs::remove_file(&path).unwrap();
        assert_eq!(read_offsets(&path).unwrap(), old);
    }

    /// Whatever bit of the newest is flipped, it is not believed for something that was never written.
    #[test]
    fn a_flipped_bit_gives_the_newest_or_the_previous_generation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(LOG_STARTS);
        let (old, new) = (offsets(&[("t", 0, 1)]), offsets(&[("t", 0, 4711)]));
        write_offsets(&path, &old).unwrap();
        write_offsets(&path, &new).unwrap();
        let meta = MetaProperties {
            cluster_id: "MkU3OEVBNTcwNTJENDM2Qg".to_owned(),
            node_id: 1,
            directory_id: Some(Uuid([7; 16])),
        };
        write_meta_properties(dir.path(), &meta).unwrap();
        let starts_are_right = || {
            let mut read = read_offsets(&path).unwrap();
            // What is left of the line with the CRC is of no partition.
            read.retain(|(topic, _), _| topic == "t");
            read == old || read == new
        };
        let meta_is_right = || {
            let read = read_meta_properties(dir.path()).unwrap();
            !read.is_empty() && read.iter().all(|read| *read == meta)
        };
        let cases: [(&str, &dyn Fn() -> bool); 2] = [
            (LOG_STARTS, &starts_are_right),
            (META_PROPERTIES, &meta_is_right),
        ];
        for (name, is_right) in cases {
            let path = dir.path().join(name);
            let whole = fs::read(&path).unwrap();
            for bit in 0..whole.len() * 8 {
                let mut flipped = whole.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                fs::write(&path, &flipped).unwrap();
                assert!(is_right(), "{name}, bit {bit}");
            }
        }
    }

    /// strimzi#7484: a full disk while a checkpoint is written must not end the broker, nor lose the old one.
    #[test]
    fn a_failed_write_keeps_the_old_state() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(LOG_STARTS);
        let old = offsets(&[("t", 0, 1)]);
        write_offsets(&path, &old).unwrap();
        // The temporary file cannot be made: a directory is in its place.
        fs::create_dir(dir.path().join("log-start-offset-checkpoint.tmp")).unwrap();
        assert!(write_offsets(&path, &offsets(&[("t", 0, 2)])).is_err());
        assert_eq!(read_offsets(&path).unwrap(), old);
    }

    #[test]
    fn epochs_must_rise() {
        let dir = tempfile::tempdir().unwrap();
        let at = |epoch, start_offset| EpochStart {
            epoch,
            start_offset,
        };
        write_epochs(dir.path(), &[at(0, 0), at(3, 70)]).unwrap();
        let text = fs::read_to_string(dir.path().join(LEADER_EPOCHS)).unwrap();
        assert_eq!(text, "0\n2\n0 0\n3 70\n");
        assert_eq!(read_epochs(dir.path()).unwrap(), [at(0, 0), at(3, 70)]);
        fs::write(dir.path().join(LEADER_EPOCHS), "0\n2\n3 0\n0 70\n").unwrap();
        assert!(read_epochs(dir.path()).unwrap().is_empty());
    }

    #[test]
    fn topic_id_and_meta_properties_round_trip() {
        let dir = tempfile::tempdir().unwrap();
        let id = Uuid([7; 16]);
        assert_eq!(read_topic_id(dir.path()).unwrap(), None);
        write_topic_id(dir.path(), id).unwrap();
        assert_eq!(read_topic_id(dir.path()).unwrap(), Some(id));
        let meta = MetaProperties {
            cluster_id: "MkU3OEVBNTcwNTJENDM2Qg".to_owned(),
            node_id: 1,
            directory_id: Some(id),
        };
        write_meta_properties(dir.path(), &meta).unwrap();
        let both = [meta.clone(), meta];
        assert_eq!(read_meta_properties(dir.path()).unwrap(), both);
    }

    #[test]
    fn kafkas_own_meta_properties_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let text = "#\n#Mon Nov 23 01:00:00 UTC 2026\ncluster.id=a\\=b\nnode.id=7\nversion=1\n";
        fs::write(dir.path().join(META_PROPERTIES), text).unwrap();
        let meta = read_meta_properties(dir.path()).unwrap().remove(0);
        assert_eq!((meta.cluster_id.as_str(), meta.node_id), ("a=b", 7));
        assert_eq!(meta.directory_id, None);
    }
}
