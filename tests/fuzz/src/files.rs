//! The small files and the indexes of a data directory, damaged: read or refused, and what was read can be written and
//! read again the same.
//!
//! Input: `u8 kind, bit 7 mends a snapshot's CRC | the file`.

use super::{Bound, Taken, memory, mutate};
use ottla::storage::aborted::Aborted;
use ottla::storage::checkpoint;
use ottla::storage::index::{self, Entry, OffsetEntry, TimeEntry};
use ottla::storage::producers::{Limit, Producers};
use ottla::storage::snapshot;
use ottla::wire::Uuid;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

/// Lines of a few bytes are kept as what they say, with a name of its own each.
pub const BOUND: Bound = Bound {
    times: 40,
    bytes: 256 << 10,
};

const MEND: u8 = 1 << 7;

/// What `act` says of a file that holds `bytes`, in memory where the machine has a disk there.
pub fn in_directory<T>(act: impl FnOnce(&Path) -> T) -> T {
    thread_local! {
        static DIRECTORY: tempfile::TempDir = {
            let memory = Path::new("/dev/shm");
            let made = match memory.is_dir() {
                true => tempfile::tempdir_in(memory),
                false => tempfile::tempdir(),
            };
            made.expect("a temporary directory")
        };
    }
    DIRECTORY.with(|directory| {
        for entry in fs::read_dir(directory).expect("it is there") {
            fs::remove_file(entry.expect("an entry").path()).expect("removed");
        }
        act(directory.path())
    })
}

fn indexed<E: Entry + PartialEq + std::fmt::Debug>(file: &File, key: impl Fn(&E) -> i128) {
    let Ok(Some(count)) = index::count::<E>(file) else {
        return;
    };
    let entries: Vec<E> = index::block(file, 0, count).expect("it can be read");
    assert_eq!(entries.len(), count as usize);
    let rises = entries
        .windows(2)
        .all(|pair| key(&pair[0]) <= key(&pair[1]));
    for (slot, wanted) in (0..count)
        .step_by(1 + entries.len() / 7)
        .map(|slot| (slot, key(&entries[slot as usize])))
    {
        assert_eq!(
            index::entry(file, slot).expect("it can be read"),
            Some(entries[slot as usize])
        );
        for guess in [
            0.0,
            f64::from(slot) / f64::from(count),
            1.0,
            f64::NAN,
            -1e300,
        ] {
            let before = |entry: &E| key(entry) < wanted;
            let found = index::last_before(file, count, guess, before).expect("it can be read");
            assert!(
                found.is_none_or(|(slot, entry)| before(&entry) && entries[slot as usize] == entry)
            );
            if rises {
                let expected = entries.partition_point(before).checked_sub(1);
                assert_eq!(found.map(|(slot, _)| slot as usize), expected);
            }
        }
    }
}

/// A snapshot is used whole or not at all, and says the same when it is written again.
fn producers(directory: &Path, bytes: &[u8]) {
    let limit = Arc::new(Limit::new(1_000));
    let load = |bytes: &[u8]| {
        fs::write(snapshot::path(directory, 5), bytes).expect("written");
        snapshot::load(directory, &[5], 9, &limit).expect("it can be read")
    };
    let (at, producers) = load(bytes);
    assert!(at == 5 || producers.is_empty());
    let (_, again) = load(&snapshot::encode(&producers));
    // Not the time of a marker, which no batch of the producer's has.
    let sorted = |producers: &Producers| {
        let mut all: Vec<_> = producers
            .iter()
            .map(|(id, one)| {
                let sent = format!("{:?}", one.sent());
                let transaction = (one.coordinator_epoch, one.transaction_start);
                (id, one.epoch, one.after_gap, transaction, sent)
            })
            .collect();
        all.sort();
        all
    };
    assert_eq!(sorted(&again), sorted(&producers));
}

fn check(kind: u8, directory: &Path, bytes: &[u8]) {
    let path = directory.join("file");
    fs::write(&path, bytes).expect("written");
    let open = || File::open(&path).expect("it is there");
    let named = |name: &str| fs::rename(&path, directory.join(name)).expect("renamed");
    match kind {
        0 => indexed(&open(), |entry: &OffsetEntry| entry.position.into()),
        1 => indexed(&open(), |entry: &TimeEntry| entry.timestamp.into()),
        2 => indexed(&open(), |entry: &Aborted| entry.last_offset.into()),
        3 => producers(directory, bytes),
        4 => {
            let offsets = checkpoint::read_offsets(&path).expect("it can be read");
            checkpoint::write_offsets(&path, &offsets).expect("written");
            assert_eq!(
                checkpoint::read_offsets(&path).expect("it can be read"),
                offsets
            );
        }
        5 => {
            named(checkpoint::LEADER_EPOCHS);
            let epochs = checkpoint::read_epochs(directory).expect("it can be read");
            checkpoint::write_epochs(directory, &epochs).expect("written");
            assert_eq!(
                checkpoint::read_epochs(directory).expect("it can be read"),
                epochs
            );
        }
        6 => {
            named(checkpoint::PARTITION_METADATA);
            let _ = checkpoint::read_topic_id(directory).expect("it can be read");
        }
        _ => {
            named(checkpoint::META_PROPERTIES);
            let meta = checkpoint::read_meta_properties(directory).expect("it can be read");
            if let Some(meta) = meta.first() {
                checkpoint::write_meta_properties(directory, meta).expect("written");
                let again = checkpoint::read_meta_properties(directory).expect("it can be read");
                assert_eq!(again[0].node_id, meta.node_id);
            }
        }
    }
}

pub fn run(mut input: &[u8]) -> Taken {
    let kind = mutate::u8(&mut input).unwrap_or_default();
    let mut bytes = input.to_vec();
    if kind & MEND != 0 && bytes.len() > 6 {
        let crc = crc32c::crc32c(&bytes[6..]).to_be_bytes();
        bytes[2..6].copy_from_slice(&crc);
    }
    in_directory(|directory| {
        let ((), most) = memory::measured(|| check(kind & 7, directory, &bytes));
        Taken {
            most,
            from_budgets: 0,
        }
    })
}

/// Each file as the broker writes it.
pub fn seeds() -> Vec<Vec<u8>> {
    fn entries<E: Entry>(kind: u8, entries: &[E]) -> Vec<u8> {
        let mut bytes = vec![kind];
        entries.iter().for_each(|entry| entry.encode(&mut bytes));
        bytes
    }
    let offset = |at: u32| OffsetEntry {
        relative_offset: at,
        position: at * 100,
    };
    let time = |at: u32| TimeEntry {
        timestamp: i64::from(at) * 7,
        relative_offset: at,
    };
    let aborted = |at: i64| Aborted {
        producer_id: 1,
        first_offset: at,
        last_offset: at + 5,
        last_stable: at + 6,
    };
    let mut snapshot = vec![3 | MEND, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2];
    for last in [4i64, 9] {
        snapshot.extend(7i64.to_be_bytes());
        snapshot.extend(1i16.to_be_bytes());
        snapshot.extend((last as i32).to_be_bytes());
        snapshot.extend(last.to_be_bytes());
        snapshot.extend(4i32.to_be_bytes());
        snapshot.extend(1000i64.to_be_bytes());
        snapshot.extend((-1i32).to_be_bytes());
        snapshot.extend((-1i64).to_be_bytes());
    }
    let id = Uuid([7; 16]);
    let text = |kind: u8, text: String| [&[kind], text.as_bytes()].concat();
    vec![
        entries(0, &[1, 5, 9, 12].map(offset)),
        [entries(0, &[1, 5].map(offset)), vec![0; 32]].concat(),
        entries(1, &[1, 5, 9].map(time)),
        entries(2, &[0, 10, 20].map(aborted)),
        snapshot,
        text(4, "0\n2\na.b_c-d 0 4711\nx 12 0\n".into()),
        text(5, "0\n2\n0 0\n3 70\n".into()),
        text(6, format!("version: 0\ntopic_id: {id}")),
        text(
            7,
            format!("#\n#Mon\ncluster.id=a\\=b\nnode.id=7\nversion=1\ndirectory.id={id}\n"),
        ),
    ]
}
