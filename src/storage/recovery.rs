//! What is found in a partition's directory at start, and what becomes of it. No case needs a person; a disk that
//! fails to read or write is an error of that partition alone.
//!
//! | found | decision |
//! |---|---|
//! | names that a crash left | put in order first: the table in [`super`] |
//! | **clean start**: the marker was there | sizes are trusted, no record is read: `reopen` |
//! | … but one of the broker's own logs | every batch is checked; if one is bad, all are read as after an unclean stop, and written back |
//! | … and the active segment's last batch ends where the file does | indexes are checked, the missing rebuilt |
//! | … and it does not | the stop was not clean for this log: as below |
//! | **unclean start**: a segment that ends before the recovery point | trusted, as above |
//! | a segment that reaches to it or past it | every batch is read, its CRC checked; past the recovery point the same bytes are written back in place and synced (P6); indexes and producer state are rebuilt |
//! | the log ends before the recovery point, clean start or not | all segments are read; what was synced is gone: the offsets up to the recovery point are a gap, behind which the log goes on in a new segment |
//! | no segment at all | an empty one is made at the log start; then as above |
//! | the log start lies beyond the end | an empty segment is made there; what lies before is not served |
//! | the log start lies before the first segment | it is the first segment's base offset |
//! | whole segments lie below the log start | removed, once the writer has the log (L4) |
//! | a message of a format before v2, its own CRC right, wherever a batch should begin | the partition is offline and stays as it is: `old_format` |
//! | in the last segment: bad bytes, and no batch after them | **tear**: cut, kept as `.torn`; zeros at the end are cut and not kept |
//! | in the last segment: bad bytes at or past the recovery point, the last batch after them ends within T | **tear** likewise, with what follows |
//! | any other bad bytes; those in an earlier segment always, since a segment is synced before the next one is begun | **rot**: taken out, kept as `.quarantine`; the offsets are a gap that consumers step over; producers known before it may go on with any sequence |
//! | no bad bytes, but a segment ends before the next begins, from the recovery point on | a **gap**, reported; never a tear, likewise |
//! | … before the recovery point or the log start, or no recovery point is known | left by compaction or an earlier gap: stepped over, not reported |
//! | no room for a copy of what is cut | what was never synced is cut without one; else the partition is offline |
//! | rot, and behind it a tear | both, each as above |
//! | leader epochs that begin beyond the end | dropped |
//! | a producer snapshot beyond the end | removed, once the end is known |
//! | a snapshot that is damaged or missing | an older one, and batch headers replayed from there |
//!
//! A tear or a gap, or an unclean stop of a log whose consumers may see what is not synced, asks for a new leader
//! epoch: consumers then learn of the cut (KIP-320). Each repair may be interrupted; the next start finds the case
//! again, or finds it done.

use super::active::Active;
use super::checkpoint::{self, EpochStart};
use super::pass::{Bad, Pass};
use super::producers::Producers;
use super::reopen::{self, Place};
use super::segment::Extent;
use super::{Log, LogSettings, Shared, repair};
use crate::compress::Decoders;
use crate::error::{Error, Result};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// What the broker knows of a log before it looks.
pub struct Start<'a> {
    /// The clean-shutdown marker was there: sizes are to be trusted.
    pub clean: bool,
    /// Up to here all was durable, by the checkpoint.
    pub recovery_point: Option<i64>,
    /// The first offset that is served, by the checkpoint.
    pub log_start: Option<i64>,
    /// `T`: more than this was never unsynced in one partition (promise P5), bytes.
    pub tear_bytes_max: u64,
    /// The broker is about to believe every record of it: no batch is trusted unread, whatever the stop.
    pub check_all: bool,
    /// Whether a producer's last transaction at an epoch was committed, as far as their coordinator knows.
    pub outcome: &'a dyn Fn(i64, i16) -> Option<bool>,
    /// To open batches whose header does not tell their largest timestamp.
    pub decoders: &'a Decoders,
    /// Broker time: no append was later, ms.
    pub time_ms: i64,
}

/// What recovery found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What was cut from the tail.
    pub cut: Option<Cut>,
    /// The offsets that rot took, which consumers will step over.
    pub gaps: Vec<Range<i64>>,
    /// The batches that were read and checked.
    pub batches_read: u64,
    /// The bytes of the segments that were read.
    pub bytes_read: u64,
    /// The segments whose indexes were missing or implausible, or that were read.
    pub indexes_rebuilt: u32,
    /// What consumers may have seen is gone: the leader epoch must rise before the next batch.
    pub epoch_bump_needed: bool,
}

/// A tail that was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The log's new end.
    pub offset: i64,
    /// The bytes that were cut; they are in `.torn` files, but for zeros at the end.
    pub bytes: u64,
}

/// After so many passes that each found something to repair, the disk is not to be believed.
const PASSES_MAX: usize = 4;

impl Log {
    /// Opens a log that exists, as the table in [`super::recovery`] says.
    pub fn recover(
        dir: &Path,
        shared: &Arc<Shared>,
        settings: LogSettings,
        start: &Start<'_>,
    ) -> Result<(Log, Report)> {
        let dir: Arc<Path> = dir.into();
        let mut report = Report::default();
        let place = Place {
            dir: dir.clone(),
            shared,
            settings: &settings,
            decoders: start.decoders,
            time_ms: start.time_ms,
        };
        let is_sound = !start.check_all || place.is_sound(start)?;
        let opened = match start.clean && is_sound {
            true => reopen::clean(&place, start, &mut report)?,
            false => None,
        };
        let opened = match opened {
            Some(opened) => opened,
            None => unclean(&place, start, is_sound, &mut report)?,
        };
        let log = assemble(&place, opened, start, &report)?;
        Ok((log, report))
    }
}

/// A log's parts, once they are sound.
pub(super) struct Opened {
    pub closed: Vec<Extent>,
    pub active: Active,
    pub producers: Producers,
    pub epochs: Vec<EpochStart>,
    /// What the checkpoint of the epochs holds.
    pub saved_epochs: Vec<EpochStart>,
    /// The offsets of the snapshots that are there, ascending.
    pub snapshots: Vec<i64>,
    /// All of it is in the files as a clean stop left them, and so durable.
    pub settled: bool,
}

impl Opened {
    /// Goes on in an empty segment at `offset`, which lies beyond the end.
    fn go_on_at(&mut self, place: &Place<'_>, offset: i64) -> Result<()> {
        let (segment, _) = repair::make(&place.dir, offset)?;
        let mut before = std::mem::replace(&mut self.active, Active::empty(segment));
        before.seal(place.shared);
        self.closed.push(Extent {
            end_offset: offset,
            ..before.extent()
        });
        self.producers.open_gap();
        self.settled = false;
        Ok(())
    }
}

/// The last rows of the table: log start, epochs and snapshots, now that the end is known.
fn assemble(
    place: &Place<'_>,
    mut opened: Opened,
    start: &Start<'_>,
    report: &Report,
) -> Result<Log> {
    let dir = &place.dir;
    let log_start = start.log_start.unwrap_or(0);
    if log_start > opened.active.tail.end_offset {
        opened.go_on_at(place, log_start)?;
    }
    let end = opened.active.tail.end_offset;
    opened.epochs.retain(|e| e.start_offset <= end);
    if *report != Report::default() {
        log::debug!("{}: recovered up to {end}: {report:?}", dir.display());
    }
    let mut log = Log::assemble(
        dir.clone(),
        place.shared,
        place.settings.clone(),
        opened.closed,
        opened.active,
        opened.producers,
    );
    log.set_start(
        log_start,
        opened.epochs,
        &opened.saved_epochs,
        opened.snapshots,
    );
    if opened.settled {
        log.set_settled();
    }
    Ok(log)
}

fn unclean(
    place: &Place<'_>,
    start: &Start<'_>,
    is_sound: bool,
    report: &mut Report,
) -> Result<Opened> {
    let recovery_point = start.recovery_point.unwrap_or(0);
    let mut trusted_to = if is_sound { recovery_point } else { 0 };
    if recovery_point == 0 {
        // It may be new.
        checkpoint::write_back(&place.dir)?;
    }
    for _ in 0..PASSES_MAX {
        let mut pass = Pass::begin(place, start, trusted_to, report)?;
        pass.read_all()?;
        if pass.end < trusted_to {
            // A disk that lost synced bytes may have lost others.
            trusted_to = 0;
            continue;
        }
        let (rot, torn) = decide(&pass, recovery_point, start);
        if torn {
            pass.cut(rot)?;
        }
        pass.excise(rot)?;
        if rot == 0 {
            pass.put_markers()?;
        }
        // What was built up to the first bad bytes is the whole log, if those were the tear or there are none.
        if rot == 0 && pass.lost_markers.is_empty() {
            let mut opened = pass.finish();
            make_up_for_lost_end(place, &mut opened, recovery_point, report)?;
            let seen_unsynced = !place.settings.visible_when_synced;
            report.epoch_bump_needed =
                seen_unsynced || report.cut.is_some() || !report.gaps.is_empty();
            return Ok(opened);
        }
    }
    let dir = place.dir.display();
    Err(Error::new(format!(
        "{dir}: bad again after {PASSES_MAX} repairs: the disk does not keep what is written"
    )))
}

/// What was synced, by the recovery point, and is not there any more: a disk that lies, or an old copy of the files.
/// Those offsets were given out, so none of them is given to another record.
fn make_up_for_lost_end(
    place: &Place<'_>,
    opened: &mut Opened,
    recovery_point: i64,
    report: &mut Report,
) -> Result<()> {
    let gap = opened.active.tail.end_offset..recovery_point;
    if !gap.is_empty() {
        let dir = place.dir.display();
        log::error!("{dir}: offsets {gap:?} were synced and are not there; the log goes on behind");
        opened.go_on_at(place, recovery_point)?;
        report.gaps.push(gap);
    }
    Ok(())
}

/// Tear or rot: the first so many of the bad ranges are rot; if that is not all, the next one begins the tear.
fn decide(pass: &Pass<'_>, recovery_point: i64, start: &Start<'_>) -> (usize, bool) {
    let tears = |bad: &Bad| {
        let to_last_good = pass.last_good.saturating_sub(bad.log_position);
        let unsynced =
            !start.clean && bad.offset >= recovery_point && to_last_good <= start.tear_bytes_max;
        pass.is_in_last_segment(bad) && (bad.resumes.is_none() || unsynced)
    };
    match pass.bad.iter().position(tears) {
        Some(first) => (first, true),
        None => (pass.bad.len(), false),
    }
}

#[cfg(test)]
#[path = "recovery_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "gap_tests.rs"]
mod gap_tests;

#[cfg(test)]
#[path = "tear_tests.rs"]
mod tear_tests;
