//! What the tests of this room share: a partition in a temporary directory, and batches to put into it.

use super::recovery::{Report, Start};
use super::view::{Hint, View};
use super::{Log, LogSettings, Shared, Staged, SyncItem};
use crate::batch::builder::Builder;
use crate::batch::check::Checked;
use crate::batch::marker::Marker;
use crate::batch::{HEADER_BYTES, Header, TRANSACTIONAL, check_stored};
use crate::budget::Budget;
use crate::clock::CLOCK_FLOOR_MS;
use crate::compress::Decoders;
use crate::sys;
use crate::txn::Serial;
use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;

pub const T: u64 = 1 << 20;

/// Broker time when a log is opened.
pub const TIME_MS: i64 = CLOCK_FLOOR_MS + 1_000_000_000;

pub struct Rig {
    pub dir: TempDir,
    pub shared: Arc<Shared>,
    pub settings: LogSettings,
    pub decoders: Decoders,
}

impl Rig {
    pub fn new() -> Rig {
        Rig {
            dir: tempfile::tempdir().unwrap(),
            shared: Arc::new(Shared::new(64, 1000)),
            settings: LogSettings {
                segment_bytes_max: 1 << 30,
                segment_ms: i64::MAX,
                index_bytes_max: 10 << 20,
                index_interval_bytes: 4096,
                preallocate: false,
                file_delete_delay: Duration::ZERO,
                compacted: false,
                visible_when_synced: true,
            },
            decoders: Decoders::new(Budget::new(64 << 20), 8 << 20),
        }
    }

    /// A rig whose segments roll after `bytes`, with an index entry for about every batch.
    pub fn small(bytes: u32) -> Rig {
        let mut rig = Rig::new();
        rig.settings.segment_bytes_max = bytes;
        rig.settings.index_interval_bytes = 1;
        rig
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn log_file(&self, base: i64) -> PathBuf {
        self.path(&format!("{base:020}.log"))
    }

    pub fn create(&self) -> Log {
        Log::create(self.dir.path(), &self.shared, self.settings.clone()).unwrap()
    }

    pub fn start(&self, clean: bool, recovery_point: Option<i64>) -> Start<'_> {
        Start {
            clean,
            recovery_point,
            log_start: None,
            tear_bytes_max: T,
            check_all: false,
            outcome: &|_, _| None,
            decoders: &self.decoders,
            time_ms: TIME_MS,
        }
    }

    pub fn recover_with(&self, start: &Start<'_>) -> (Log, Report) {
        // Another process: it knows no descriptor of the first.
        let shared = Arc::new(Shared::new(64, 1000));
        Log::recover(self.dir.path(), &shared, self.settings.clone(), start).unwrap()
    }

    pub fn recover(&self, recovery_point: Option<i64>) -> (Log, Report) {
        self.recover_with(&self.start(false, recovery_point))
    }

    pub fn reopen(&self) -> (Log, Report) {
        self.recover_with(&self.start(true, None))
    }

    /// The names in the directory that end so, sorted.
    pub fn names(&self, suffix: &str) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(suffix))
            .collect();
        names.sort();
        names
    }

    pub fn remove(&self, suffix: &str) {
        for name in self.names(suffix) {
            fs::remove_file(self.path(&name)).unwrap();
        }
    }
}

pub fn checked(builder: &Builder) -> Checked {
    let bytes = builder.build();
    let header = check_stored(&bytes).unwrap();
    Checked {
        head: *bytes.first_chunk().unwrap(),
        body: bytes[HEADER_BYTES..].to_vec().into(),
        header,
        max_timestamp: header.max_timestamp,
        max_timestamp_offset_delta: 0,
    }
}

/// A batch of `records` records of `bytes` bytes each; record `i` has the timestamp `timestamp + i`.
pub fn batch(records: i64, bytes: usize, timestamp: i64) -> Checked {
    let mut builder = Builder::new(timestamp);
    for i in 0..records {
        builder.add(None, Some(&vec![b'x'; bytes]), &[], timestamp + i);
    }
    checked(&builder)
}

/// A producer's batch of `records` records.
pub fn sent(id: i64, epoch: i16, sequence: i32, records: i64) -> Checked {
    let mut builder = Builder::new(1000).producer(id, epoch, sequence);
    for _ in 0..records {
        builder.add(None, Some(b"payload"), &[], 1000);
    }
    checked(&builder)
}

/// A batch of `records` records of a transaction.
pub fn transactional(id: i64, epoch: i16, sequence: i32, records: i64) -> Checked {
    let builder = Builder::new(1000).producer(id, epoch, sequence);
    let mut builder = builder.attributes(TRANSACTIONAL);
    for _ in 0..records {
        builder.add(None, Some(b"payload"), &[], 1000);
    }
    checked(&builder)
}

/// What ends a transaction.
pub fn ending(id: i64, epoch: i16, commit: bool, coordinator_epoch: i32) -> Checked {
    let marker = Marker {
        commit,
        coordinator_epoch,
    };
    Checked::own(marker.batch(id, epoch, 1000))
}

pub fn base_of(staged: Staged) -> i64 {
    match staged {
        Staged::New { base_offset, .. } => base_offset,
        other => panic!("not new: {other:?}"),
    }
}

/// Appends one batch in a turn of its own; returns its base offset.
pub fn append(log: &mut Log, batch: Checked) -> i64 {
    // Each a later transaction's than the one before it: none comes too late.
    static SERIALS: AtomicU64 = AtomicU64::new(1);
    let serial = Serial(SERIALS.fetch_add(1, Ordering::Relaxed));
    let transaction = batch.header.is_transactional().then_some(serial);
    let base = base_of(log.stage(batch, transaction, 0, 1000).unwrap());
    log.write_staged().unwrap();
    base
}

pub fn sync(log: &mut Log) {
    for item in log.unsynced() {
        match item {
            SyncItem::Data(file) => sys::sync_data(&file).unwrap(),
            SyncItem::Directory(dir) => sys::sync_dir(&dir).unwrap(),
        }
    }
    log.mark_synced();
}

pub fn append_synced(log: &mut Log, batch: Checked) -> i64 {
    let base = append(log, batch);
    sync(log);
    log.flush_indexes().unwrap();
    base
}

/// The bytes that a view gives from `offset` on.
pub fn bytes_from(view: &View, shared: &Shared, offset: i64, bytes_max: u32) -> Vec<u8> {
    let mut hint = Hint::default();
    let end = view.high_watermark;
    let slices = view
        .slices(shared, offset, end, bytes_max, true, &mut hint)
        .unwrap()
        .files;
    let mut bytes = Vec::new();
    for slice in slices {
        let at = bytes.len();
        bytes.resize(at + slice.len as usize, 0);
        let read = sys::read_at(&slice.file, &mut bytes[at..], slice.position).unwrap();
        assert_eq!(read, slice.len as usize, "a slice beyond its file");
    }
    bytes
}

/// The whole batches in `bytes`.
pub fn headers(mut bytes: &[u8]) -> Vec<Header> {
    let mut headers = Vec::new();
    while let Ok(header) = check_stored(bytes) {
        bytes = &bytes[header.total_bytes()..];
        headers.push(header);
    }
    headers
}

/// The batches that a log's consumers see.
pub fn seen(log: &Log, shared: &Shared) -> Vec<Header> {
    let view = log.view();
    headers(&bytes_from(&view, shared, view.log_start, u32::MAX))
}

/// The base offsets of the batches that a log's consumers see.
pub fn seen_bases(log: &Log) -> Vec<i64> {
    let shared = Shared::new(64, 10);
    seen(log, &shared).iter().map(|h| h.base_offset).collect()
}

pub fn copy_dir(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// A synced log of `batches` batches of one record of about 260 bytes each, timestamps 10 apart.
pub fn fill(rig: &Rig, batches: i64) -> Log {
    let mut log = rig.create();
    for i in 0..batches {
        append_synced(&mut log, batch(1, 190, 10 * i));
    }
    log
}

pub fn batch_bytes() -> u64 {
    batch(1, 190, 0).header.total_bytes() as u64
}

pub fn size(rig: &Rig, base: i64) -> u64 {
    fs::metadata(rig.log_file(base)).unwrap().len()
}

pub fn set_size(rig: &Rig, base: i64, bytes: u64) {
    let file = OpenOptions::new().write(true).open(rig.log_file(base));
    file.unwrap().set_len(bytes).unwrap();
}

pub fn overwrite(rig: &Rig, base: i64, position: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(rig.log_file(base));
    let mut file = file.unwrap();
    file.seek(SeekFrom::Start(position)).unwrap();
    file.write_all(bytes).unwrap();
}

pub fn the_gap(report: &Report) -> Range<i64> {
    assert_eq!(report.gaps.len(), 1, "{:?}", report.gaps);
    report.gaps[0].clone()
}

pub fn bases(range: Range<i64>) -> Vec<i64> {
    range.collect()
}
