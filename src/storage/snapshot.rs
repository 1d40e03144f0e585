//! Producer state on disk: `<offset>.snapshot`, the state after all batches before that offset.
//!
//! Owns: Kafka's snapshot format, version 1, and which snapshots of a partition are kept.
//!
//! ```text
//!   version i16 = 1 | CRC-32C u32 of all that follows it | count i32 | count entries of 46 bytes:
//!   producer id i64 | epoch i16 | last sequence i32 | last offset i64 | offset delta i32 | timestamp i64
//!                   | coordinator epoch i32 | open transaction's first offset i64, -1 for none
//! ```
//!
//! Kafka writes one entry a producer: its last batch. Ottla writes up to five, oldest first, so that the window of
//! retries outlives a restart; Kafka reads them in order and keeps the last, so both read either's files. A producer
//! that may go on with any sequence, since batches of it may lie in a gap, has one more entry before those: sequence
//! and offset -1, and the delta -1 that no batch has.
//!
//! Invariants: a snapshot with a wrong CRC is not used, an older one is, and batch headers are replayed from there;
//! the three newest are kept; none lies beyond the log's end once recovery is through. Source: Kafka's
//! `ProducerStateManager` and `ProducerSnapshot.json`.

use super::producers::{Limit, Producer, Producers, Sent, WINDOW};
use crate::error::{Context, Result};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const VERSION: i16 = 1;
const CRC_AT: usize = 2;
const ENTRIES_AT: usize = 6;
const ENTRY_BYTES: usize = 46;

/// The delta of the entry that says that batches of the producer may lie in a gap.
const AFTER_GAP: i32 = -1;

/// Recovery may begin one segment before the active one, and its snapshot may be damaged.
const KEPT: usize = 3;

/// The file of the state at `offset`.
pub fn path(dir: &Path, offset: i64) -> PathBuf {
    dir.join(format!("{offset:020}.snapshot"))
}

/// Writes an encoded state as that at `offset`, not yet synced; returns the file, to be synced. A torn one shows by its
/// CRC.
pub fn write(dir: &Path, offset: i64, encoded: &[u8]) -> Result<File> {
    let path = path(dir, offset);
    let write = || -> io::Result<File> {
        let mut file = File::create(&path)?;
        file.write_all(encoded)?;
        Ok(file)
    };
    write().context(|| format!("writing {}", path.display()))
}

/// Loads the newest whole one of the snapshots at `offsets`, which ascend, that is at or before `end`; returns its
/// offset too. Without one the state is empty, at 0.
pub fn load(dir: &Path, offsets: &[i64], end: i64, limit: &Arc<Limit>) -> Result<(i64, Producers)> {
    for at in offsets.iter().copied().rev().filter(|&at| at <= end) {
        let path = path(dir, at);
        let bytes = fs::read(&path).context(|| format!("reading {}", path.display()))?;
        match decode(&bytes, limit) {
            Some(producers) => return Ok((at, producers)),
            None => log::warn!("{} is damaged; an older one is used", path.display()),
        }
    }
    Ok((0, Producers::new(limit.clone())))
}

/// Removes all but the newest of the snapshots at `offsets`, which ascend, and those beyond `end`. Failing to remove
/// one is logged, and tried again at the next start. `remove_file` here: what goes is not the newest by three.
pub fn prune(dir: &Path, offsets: &mut Vec<i64>, end: i64) {
    let beyond = offsets.partition_point(|&at| at <= end);
    let old = beyond.saturating_sub(KEPT);
    for &at in offsets[..old].iter().chain(&offsets[beyond..]) {
        match fs::remove_file(path(dir, at)) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                log::warn!("removing {}: {e}", path(dir, at).display());
            }
            _ => {}
        }
    }
    offsets.truncate(beyond);
    offsets.drain(..old);
}

/// The bytes of a snapshot.
pub fn encode(producers: &Producers) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ENTRIES_AT + 4 + producers.len() * ENTRY_BYTES);
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    bytes.extend_from_slice(&[0; 8]);
    let mut count = 0i32;
    for (id, producer) in producers.iter() {
        let none = |delta| Sent {
            last_sequence: -1,
            delta,
            last_offset: -1,
            timestamp: producer.timestamp,
        };
        let mut sent = Vec::with_capacity(WINDOW + 1);
        if producer.after_gap {
            sent.push(none(AFTER_GAP));
        }
        match producer.sent() {
            [] => sent.push(none(0)),
            batches => sent.extend_from_slice(batches),
        }
        for (i, batch) in sent.iter().enumerate() {
            // Only the newest may open the transaction, or Kafka would count it once for each entry.
            let newest = i + 1 == sent.len();
            let transaction = if newest {
                producer.transaction_start
            } else {
                -1
            };
            count += 1;
            bytes.extend_from_slice(&id.to_be_bytes());
            bytes.extend_from_slice(&producer.epoch.to_be_bytes());
            bytes.extend_from_slice(&batch.last_sequence.to_be_bytes());
            bytes.extend_from_slice(&batch.last_offset.to_be_bytes());
            bytes.extend_from_slice(&batch.delta.to_be_bytes());
            bytes.extend_from_slice(&batch.timestamp.to_be_bytes());
            bytes.extend_from_slice(&producer.coordinator_epoch.to_be_bytes());
            bytes.extend_from_slice(&transaction.to_be_bytes());
        }
    }
    bytes[ENTRIES_AT..ENTRIES_AT + 4].copy_from_slice(&count.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[ENTRIES_AT..]);
    bytes[CRC_AT..ENTRIES_AT].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// Whether these are the bytes of a snapshot.
pub fn is_whole(bytes: &[u8]) -> bool {
    decode(bytes, &Arc::new(Limit::new(usize::MAX))).is_some()
}

fn decode(bytes: &[u8], limit: &Arc<Limit>) -> Option<Producers> {
    let (version, rest) = bytes.split_first_chunk()?;
    let (crc, entries) = rest.split_first_chunk()?;
    if i16::from_be_bytes(*version) != VERSION
        || u32::from_be_bytes(*crc) != crc32c::crc32c(entries)
    {
        return None;
    }
    let (count, entries) = entries.split_first_chunk()?;
    let count = usize::try_from(i32::from_be_bytes(*count)).ok()?;
    if entries.len() != count.checked_mul(ENTRY_BYTES)? {
        return None;
    }
    let mut producers = Producers::new(limit.clone());
    for entry in entries.chunks_exact(ENTRY_BYTES) {
        restore(&mut producers, entry)?;
    }
    Some(producers)
}

fn restore(producers: &mut Producers, entry: &[u8]) -> Option<()> {
    let mut rest = entry;
    let id = i64::from_be_bytes(take(&mut rest)?);
    let epoch = i16::from_be_bytes(take(&mut rest)?);
    let last_sequence = i32::from_be_bytes(take(&mut rest)?);
    let last_offset = i64::from_be_bytes(take(&mut rest)?);
    let delta = i32::from_be_bytes(take(&mut rest)?);
    let timestamp = i64::from_be_bytes(take(&mut rest)?);
    let mut producer = match producers.get(id) {
        Some(known) if known.epoch == epoch => known.clone(),
        _ => Producer::new(epoch),
    };
    producer.coordinator_epoch = i32::from_be_bytes(take(&mut rest)?);
    producer.transaction_start = i64::from_be_bytes(take(&mut rest)?);
    producer.timestamp = timestamp;
    producer.after_gap |= delta == AFTER_GAP;
    if last_offset >= 0 && last_sequence >= 0 && delta >= 0 {
        producer.push(Sent {
            last_sequence,
            delta,
            last_offset,
            timestamp,
        });
    }
    producers.restore(id, producer);
    Some(())
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}
