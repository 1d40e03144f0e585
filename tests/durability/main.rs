//! Durability, tested from outside: real processes, real files, faults from a preloaded library, and the disk that
//! a power cut leaves.

mod cached_pages;
mod clean_stop;
#[path = "../common/mod.rs"]
mod common;
mod compaction;
mod compaction_faults;
mod damage;
mod failed_sync;
mod flush_settings;
mod full_disk;
mod internal_gaps;
mod log_start;
mod lost_state;
mod power;
#[allow(dead_code)] // the crash certificate uses the rest of it
#[path = "../support/power_cut.rs"]
mod power_cut;
mod producer_ids;
mod retention;
mod sacred_bytes;
mod scene;
#[allow(dead_code)] // the benches use the rest of it
#[path = "../support/shim.rs"]
mod shim;
mod small_state;
mod stalled_disk;
mod topics;
mod transactions;
