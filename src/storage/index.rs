//! The two sparse indexes of a segment, in Kafka's format: offset to position, and timestamp to offset.
//!
//! ```text
//!   <base>.index       8 bytes an entry:  offset - base u32 | position u32
//!                      the batch that begins at `position` ends with that offset; both columns rise
//!   <base>.timeindex  12 bytes an entry:  timestamp i64 ms | offset - base u32
//!                      the largest timestamp so far, and the last offset of the first batch that has it; both rise
//! ```
//!
//! An entry is added before a batch that follows more than `index.interval.bytes` of others, so no entry has
//! position 0; zero-filled pages after a power cut do, and decode as such. Indexes are hints (promise P9): they are
//! not synced with the log, never mapped, and every entry that is used is checked against the log's own bytes.
//! Kafka preallocates them; the zeros behind the last entry are not counted. Known cost: a search reads a few pages.
//! Sources: Kafka's `OffsetIndex`, `TimeIndex`.

use crate::sys;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;

/// An entry of either index: fixed bytes, and keys that rise.
pub trait Entry: Copy {
    /// The bytes of one entry.
    const BYTES: usize;
    /// Reads an entry from as many bytes.
    fn decode(bytes: &[u8]) -> Self;
    /// Appends the entry's bytes.
    fn encode(&self, out: &mut Vec<u8>);
    /// Whether `next` may follow `self`.
    fn rises_to(&self, next: &Self) -> bool;
    /// Whether the bytes were never written.
    fn is_blank(&self) -> bool;
}

/// An entry of the offset index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OffsetEntry {
    /// The last offset of a batch, less the segment's base offset.
    pub relative_offset: u32,
    /// Where that batch begins in the segment, in bytes.
    pub position: u32,
}

/// An entry of the time index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeEntry {
    /// The largest timestamp up to here, ms.
    pub timestamp: i64,
    /// The last offset of the first batch with it, less the segment's base offset.
    pub relative_offset: u32,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let field = bytes.get(at..).and_then(|b| b.first_chunk());
    u32::from_be_bytes(*field.expect("an entry's bytes are all there"))
}

impl Entry for OffsetEntry {
    const BYTES: usize = 8;

    fn decode(bytes: &[u8]) -> OffsetEntry {
        OffsetEntry {
            relative_offset: u32_at(bytes, 0),
            position: u32_at(bytes, 4),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.relative_offset.to_be_bytes());
        out.extend_from_slice(&self.position.to_be_bytes());
    }

    fn rises_to(&self, next: &OffsetEntry) -> bool {
        self.relative_offset < next.relative_offset && self.position < next.position
    }

    fn is_blank(&self) -> bool {
        self.position == 0
    }
}

impl Entry for TimeEntry {
    const BYTES: usize = 12;

    fn decode(bytes: &[u8]) -> TimeEntry {
        let timestamp = u64::from(u32_at(bytes, 0)) << 32 | u64::from(u32_at(bytes, 4));
        TimeEntry {
            timestamp: timestamp as i64,
            relative_offset: u32_at(bytes, 8),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        out.extend_from_slice(&self.relative_offset.to_be_bytes());
    }

    fn rises_to(&self, next: &TimeEntry) -> bool {
        self.timestamp < next.timestamp && self.relative_offset <= next.relative_offset
    }

    fn is_blank(&self) -> bool {
        self.timestamp == 0 && self.relative_offset == 0
    }
}

/// How many entries one read takes in: four pages of the smaller kind.
pub const BLOCK_ENTRIES: u32 = 512;

/// Reads entry `slot` of an index file; nothing beyond the file's end.
pub fn entry<E: Entry>(file: &File, slot: u32) -> io::Result<Option<E>> {
    Ok(block(file, slot, slot + 1)?.pop())
}

/// The slot and the entry that is the last of the first `count` entries for which `before` holds, if any does.
///
/// `before` must hold for a prefix of the entries; where a damaged file breaks that, the answer is some entry for
/// which it holds. `guess` says where in the file the answer may lie, 0 to 1: a good one makes it one read.
pub fn last_before<E: Entry>(
    file: &File,
    count: u32,
    guess: f64,
    before: impl Fn(&E) -> bool,
) -> io::Result<Option<(u32, E)>> {
    let (mut low, mut high) = (0, count);
    let mut found = None;
    let mut middle = (f64::from(count) * guess) as u32;
    while low < high {
        // A block around the middle, within what is still open.
        let from = middle
            .saturating_sub(BLOCK_ENTRIES / 2)
            .clamp(low, high - 1);
        let to = high.min(from.saturating_add(BLOCK_ENTRIES));
        let block: Vec<E> = block(file, from, to)?;
        let end = from + block.len() as u32;
        let within = block.partition_point(&before) as u32;
        if within > 0 {
            let slot = from + within - 1;
            found = Some((slot, block[(within - 1) as usize]));
            low = slot + 1;
        } else {
            high = from;
        }
        if within > 0 && from + within < end {
            break;
        }
        if end < to {
            high = high.min(end);
        }
        middle = low + (high.saturating_sub(low)) / 2;
    }
    Ok(found)
}

/// Entries `from..to` of a file, as far as it has them.
pub fn block<E: Entry>(file: &File, from: u32, to: u32) -> io::Result<Vec<E>> {
    let mut bytes = vec![0; (to - from) as usize * E::BYTES];
    let read = sys::read_at(file, &mut bytes, u64::from(from) * E::BYTES as u64)?;
    Ok(bytes[..read]
        .chunks_exact(E::BYTES)
        .map(E::decode)
        .collect())
}

/// How many entries of a file are real: all but the blank ones that preallocation or a power cut left at its end.
/// `None` if the file's length is no whole number of entries.
pub fn count<E: Entry>(file: &File) -> io::Result<Option<u32>> {
    let len = file.metadata()?.len();
    let Ok(entries) = u32::try_from(len / E::BYTES as u64) else {
        return Ok(None);
    };
    if len % E::BYTES as u64 != 0 {
        return Ok(None);
    }
    let last = match entries {
        0 => None,
        _ => entry::<E>(file, entries - 1)?,
    };
    if last.is_none_or(|e| !e.is_blank()) {
        return Ok(Some(entries));
    }
    let real = last_before(file, entries, 0.5, |e: &E| !e.is_blank())?;
    Ok(Some(real.map_or(0, |(slot, _)| slot + 1)))
}

/// Writes `entries` from slot `at` on, into the page cache.
pub fn write<E: Entry>(file: &File, at: u32, entries: &[E]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(entries.len() * E::BYTES);
    for entry in entries {
        entry.encode(&mut bytes);
    }
    let mut slices = [io::IoSlice::new(&bytes)];
    if bytes.is_empty() {
        return Ok(());
    }
    sys::write_gathered_at(file, &mut slices, u64::from(at) * E::BYTES as u64)
}

/// Makes an index that a start believes as it is: it has its name only once it is whole and synced. The name itself is
/// not durable yet; without it the next start makes it again. `rename` here: of what only then is in place.
pub fn make<E: Entry>(path: &Path, entries: &[E]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = Path::new(&temporary);
    let make = || -> io::Result<()> {
        let file = File::create(temporary)?;
        write(&file, 0, entries)?;
        sys::sync_data(&file)?;
        fs::rename(temporary, path)
    };
    make().inspect_err(|_| remove(temporary))
}

/// Cuts what a file holds behind its first `count` entries. `set_len` here: an index is a hint, and can be made anew.
pub fn trim<E: Entry>(file: &File, count: u32) -> io::Result<()> {
    let len = u64::from(count) * E::BYTES as u64;
    // To set the length that it has would still be a write.
    match file.metadata()?.len() == len {
        true => Ok(()),
        false => file.set_len(len),
    }
}

/// Removes an index that is not whole. `remove_file` here: as above.
pub fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            log::warn!("removing {}: {e}", path.display());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file_of<E: Entry>(entries: &[E], zeros: usize) -> File {
        let file = tempfile::tempfile().unwrap();
        write(&file, 0, entries).unwrap();
        let len = (entries.len() * E::BYTES + zeros) as u64;
        file.set_len(len).unwrap();
        file
    }

    fn rising(steps: Vec<(u32, u32)>) -> Vec<OffsetEntry> {
        let mut last = OffsetEntry::default();
        let next = |(offset, position): (u32, u32)| {
            last.relative_offset += offset;
            last.position += position;
            last
        };
        steps.into_iter().map(next).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn search_is_a_linear_scan(
            steps in proptest::collection::vec((1u32..9, 1u32..5000), 0..3000),
            target in 0u32..30_000,
            guess in 0.0f64..=1.0,
        ) {
            let entries = rising(steps);
            let file = file_of(&entries, 0);
            let linear = entries.iter().rposition(|e| e.relative_offset <= target);
            let found = last_before(&file, entries.len() as u32, guess, |e: &OffsetEntry| {
                e.relative_offset <= target
            });
            let expected = linear.map(|slot| (slot as u32, entries[slot]));
            prop_assert_eq!(found.unwrap(), expected);
        }

        #[test]
        fn time_search_is_a_linear_scan(
            steps in proptest::collection::vec((1u32..9, 0u32..3), 0..2000),
            target in 0i64..20_000,
            guess in 0.0f64..=1.0,
        ) {
            let mut last = TimeEntry { timestamp: 0, relative_offset: 0 };
            let entries: Vec<TimeEntry> = steps.into_iter().map(|(time, offset)| {
                last.timestamp += i64::from(time);
                last.relative_offset += offset;
                last
            }).collect();
            let file = file_of(&entries, 0);
            let linear = entries.iter().rposition(|e| e.timestamp <= target);
            let found = last_before(&file, entries.len() as u32, guess, |e: &TimeEntry| {
                e.timestamp <= target
            });
            let expected = linear.map(|slot| (slot as u32, entries[slot]));
            prop_assert_eq!(found.unwrap(), expected);
        }

        #[test]
        fn garbage_is_searched_without_panic_or_endless_loop(
            bytes in proptest::collection::vec(any::<u8>(), 0..20_000),
            target: u32,
            guess in 0.0f64..=1.0,
        ) {
            let file = tempfile::tempfile().unwrap();
            sys::write_gathered_at(&file, &mut [io::IoSlice::new(&bytes)], 0).ok();
            let claimed = (bytes.len() / 8) as u32 + 7;
            let before = |e: &OffsetEntry| e.relative_offset <= target;
            if let Some((slot, entry)) = last_before(&file, claimed, guess, before).unwrap() {
                prop_assert!(before(&entry) && slot < claimed);
            }
            let _ = count::<OffsetEntry>(&file).unwrap();
        }
    }

    /// Zero-filled pages after a power cut decode as valid entries; Kafka preallocates 10 MiB of them.
    #[test]
    fn blank_entries_are_not_counted() {
        let entries = rising(vec![(3, 5000); 700]);
        for zeros in [0, 8, 4096, 1 << 20] {
            let file = file_of(&entries, zeros);
            assert_eq!(count::<OffsetEntry>(&file).unwrap(), Some(700));
        }
        assert_eq!(
            count::<OffsetEntry>(&file_of::<OffsetEntry>(&[], 80)).unwrap(),
            Some(0)
        );
        assert_eq!(count::<OffsetEntry>(&file_of(&entries, 3)).unwrap(), None);
    }
}
