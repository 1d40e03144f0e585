//! The log on disk: one directory a partition, Kafka's own files in it.
//!
//! Reading order: [`segment`] (a file of batches, and what readers know of it), [`index`], [`log`] with
//! `active` and `append` (the writer's hands), [`view`] and [`times`] (what readers search), [`producers`] and
//! [`snapshot`], [`checkpoint`], [`descriptors`], [`retention`], [`trash`], [`compaction`], [`recovery`] with `reopen`,
//! `replay`, `pass`, `scan`, `repair` and `old_format`, and last [`audit`] and [`mend`].
//!
//! Invariants: only the writer thread holds a [`Log`]; readers hold immutable [`View`]s and never see a byte beyond
//! the high watermark; a byte below the synced end is never cut; record bytes are never read to serve a fetch.
//!
//! # Every file that a partition's directory may hold
//!
//! | name | what it is | found at start, it is |
//! |---|---|---|
//! | `<base>.log` | batches from offset `base` on | checked as the table in [`recovery`] says |
//! | `<base>.index`, `<base>.timeindex` | hints ([`index`]) | checked; rebuilt if missing or implausible |
//! | `<base>.txnindex` | aborted transactions ([`aborted`]) | checked; made anew from the batches if missing or implausible |
//! | any of these three without its `.log` | what a crash left of a removed or never synced segment | removed |
//! | `<offset>.snapshot` | producer state ([`snapshot`]) | the newest whole one is used; beyond the end: removed |
//! | `leader-epoch-checkpoint`, `partition.metadata` | small state ([`checkpoint`]) | read |
//! | `*.previous` | small state's previous generation | read if the newest is garbled |
//! | `*.tmp` | small state, or an index, that was never in place | removed |
//! | `*.cleaned` | a rewrite that was never decided | removed |
//! | `<base>.log.swap` and its hints | a rewrite, decided but not in place | put in place of what it covers (L5) |
//! | … at or behind a `<base>.log.cleaned` | Kafka's split, not decided as a whole | removed |
//! | `*.deleted` | a removal that was decided | removed |
//! | `*.torn` | what recovery cut from the tail (L2) | kept: evidence for people |
//! | `*.quarantine` | rotten bytes that recovery or the scrub took out | kept: evidence for people |
//! | `<offset>-<epoch>.checkpoint` | Kafka's snapshot of the catalog, in `__cluster_metadata-0` | read if the log does not begin at 0 |
//! | anything else | not ours | left alone, with one warning if it ends in `.log` |
//!
//! `<base>` and `<offset>` are twenty digits, so that names sort as numbers. The log start may lie inside a segment
//! (DeleteRecords); what lies before it is not served.

pub mod aborted;
mod active;
mod append;
pub mod audit;
pub mod checkpoint;
pub mod compaction;
pub mod descriptors;
pub mod index;
pub mod log;
pub mod mend;
mod old_format;
pub mod partition;
mod pass;
pub mod producers;
pub mod recovery;
mod reopen;
mod repair;
mod replay;
pub mod retention;
mod scan;
pub mod segment;
pub mod snapshot;
#[cfg(test)]
mod testing;
pub mod times;
pub mod trash;
pub mod view;

pub use checkpoint::EpochStart;
pub use log::{Log, Refused, Replaced, Rewrite, Staged, SyncItem};
pub use partition::{Partition, Snapshot, Status, Wake};
pub use producers::ActiveProducer;
pub use recovery::{Report, Start};
pub use retention::LastToGo;
pub use times::TimestampOffset;
pub use trash::Trash;
pub use view::{Hint, ReadError, View};

use descriptors::Descriptors;
use producers::Limit;
use std::sync::Arc;
use std::time::Duration;

/// What the storage of all partitions shares.
pub struct Shared {
    /// The open files.
    pub descriptors: Descriptors,
    /// The bound on producer states.
    pub producers: Arc<Limit>,
}

/// The files that one answer may hold while there are enough.
const FILES_MAX: usize = 64;

impl Shared {
    /// Storage that keeps at most `descriptors_max` clean files open and `producers_max` producer states
    /// (`producer.state.max`).
    pub fn new(descriptors_max: usize, producers_max: usize) -> Shared {
        Shared {
            descriptors: Descriptors::new(descriptors_max),
            producers: Arc::new(Limit::new(producers_max)),
        }
    }

    /// How many files one answer may hold open until it is sent: the writer, too, needs some.
    pub fn files_max(&self) -> usize {
        match self.descriptors.is_crowded() {
            true => 1,
            false => FILES_MAX,
        }
    }
}

/// A topic's settings, as far as its logs go.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// A segment that would grow beyond this rolls (`segment.bytes`).
    pub segment_bytes_max: u32,
    /// A segment whose first batch is older than this, by timestamps, rolls (`segment.ms`).
    pub segment_ms: i64,
    /// A segment whose index would grow beyond this rolls (`segment.index.bytes`).
    pub index_bytes_max: u32,
    /// An index entry follows each time after more than these bytes (`index.interval.bytes`).
    pub index_interval_bytes: u32,
    /// Reserve a segment's disk space when it is made (`preallocate`).
    pub preallocate: bool,
    /// How long a removed segment's files are kept (`file.delete.delay.ms`).
    pub file_delete_delay: Duration,
    /// Whether holes inside a segment are compaction's (`cleanup.policy`).
    pub compacted: bool,
    /// Whether the high watermark is the synced end, or the appended one (promise P2).
    pub visible_when_synced: bool,
}
