//! What the logs know better than the catalog and the transactions' own log: what was lost there is made good.
//!
//! Invariants: a leader epoch and a producer's epoch never fall behind what a log has seen, and a producer id that is
//! in one is not given out again.

use super::metadata::Metadata;
use super::open::Room;
use crate::control::{Rooms, partition_record};
use crate::storage::Report;
use crate::txn::LogOpen;
use std::collections::HashMap;

/// What the logs know of producers.
pub struct InLogs {
    /// The transactions that are open.
    pub open: Vec<LogOpen>,
    /// The newest epoch of each producer, by its id; but 0, which no record can be behind.
    pub epochs: HashMap<i64, i16>,
}

impl InLogs {
    /// Of all logs that could be opened.
    pub fn of(list: &[Room]) -> InLogs {
        let mut found = InLogs {
            open: Vec::new(),
            epochs: HashMap::new(),
        };
        for room in list {
            let Some(Ok((log, _))) = &room.opened else {
                continue;
            };
            let open = log.open_transactions().into_iter();
            let place = (room.topic.clone(), room.index);
            found
                .open
                .extend(open.map(|(id, epoch, _)| (place.clone(), id, epoch)));
            for (id, epoch) in log.producer_epochs().filter(|(_, epoch)| *epoch > 0) {
                let newest = found.epochs.entry(id).or_default();
                *newest = epoch.max(*newest);
            }
        }
        found
    }
}

/// One line for an unclean stop; what was cut or lost was said when it was found.
pub fn sum_up(list: &[Room]) {
    let reports = list
        .iter()
        .filter_map(|room| Some(&room.opened.as_ref()?.as_ref().ok()?.1));
    let read: Vec<&Report> = reports.filter(|report| report.batches_read > 0).collect();
    if !read.is_empty() {
        let batches: u64 = read.iter().map(|report| report.batches_read).sum();
        let bytes: u64 = read.iter().map(|report| report.bytes_read).sum();
        log::info!(
            "recovered {} logs after an unclean stop: {batches} batches, {bytes} bytes read",
            read.len()
        );
    }
}

/// No broker gives out so many: a client made a higher one up.
const PRODUCER_ID_BELIEVED_MAX: i64 = 1 << 62;

/// Makes the catalog know what the logs have seen: a leader epoch never falls, and rises whenever recovery took
/// what consumers may have read (FACTS), so that they learn of it; a producer id is never given out twice.
///
/// What cannot be recorded on a full disk holds in memory, and the next start finds the same.
pub fn catch_up(rooms: &Rooms, metadata: &mut Metadata, list: &mut [Room]) {
    let mut records = Vec::new();
    for room in list.iter_mut() {
        let Some(Ok((log, report))) = &room.opened else {
            continue;
        };
        let seen = room.leader_epoch.max(log.leader_epoch());
        let epoch = seen + i32::from(report.epoch_bump_needed);
        if epoch > room.leader_epoch {
            room.leader_epoch = epoch;
            let node_id = rooms.settings.get().node_id;
            records.push(partition_record(room.id, room.index, epoch, node_id));
        }
        // The next block's record comes before its first id, and counts from here.
        let highest = log
            .highest_producer_id()
            .filter(|id| *id < PRODUCER_ID_BELIEVED_MAX);
        let next = highest.map_or(0, |highest| highest + 1);
        metadata.state.next_producer_id = metadata.state.next_producer_id.max(next);
    }
    if let Err(error) = metadata.append(&records) {
        log::error!("{error}; leader epochs are not recorded");
        records
            .iter()
            .for_each(|record| metadata.state.apply(record));
    }
    for room in list {
        if let Some(Ok((log, _))) = &mut room.opened {
            log.set_leader_epoch(room.leader_epoch);
        }
    }
}
