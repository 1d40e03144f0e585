//! Reading a log of the broker's own back, record by record, before it is served.

use super::catch_up::InLogs;
use crate::batch::marker::Marker;
use crate::batch::{self, HEADER_BYTES, Header, records::key_values};
use crate::catalog::{Catalog, TRANSACTIONS_TOPIC};
use crate::clock::Clock;
use crate::control::{Reply, Rooms};
use crate::error::{Context, Error, Result};
use crate::storage::segment::header_at;
use crate::storage::{Hint, ReadError, Shared, Snapshot, Status, View, times};
use crate::sys;
use crate::txn::{Env, Transactions, records};
use std::fs::File;
use std::path::Path;

/// What became of an entry; the error is one line for the log.
type Taken = std::result::Result<(), String>;

/// What is read at once: large enough that the disk streams, small enough not to be noticed.
const READ_BYTES: u32 = 1 << 20;

/// What a log is made of.
pub enum Entry<'a> {
    /// A record.
    Record {
        /// Its batch's header.
        header: &'a Header,
        /// Its offset.
        offset: i64,
        /// Its key, empty if it has none.
        key: &'a [u8],
        /// Its value, if it has one.
        value: Option<&'a [u8]>,
    },
    /// The end of the transaction of the header's producer.
    Marker(&'a Header, Marker),
    /// Another control batch: the quorum's own, in a catalog of Kafka's.
    Control(&'a Header),
}

/// Gives `take` each record's key and value, in the log's order, as [`for_each_entry`] does.
pub fn for_each_record(
    name: &str,
    view: &View,
    shared: &Shared,
    mut take: impl FnMut(&[u8], Option<&[u8]>) -> Taken,
) -> Result<()> {
    for_each_entry(name, view, shared, |entry| match entry {
        Entry::Record { key, value, .. } => take(key, value),
        Entry::Marker(..) | Entry::Control(_) => Ok(()),
    })
}

/// Gives `take` each record and each marker, in the log's order. What cannot be read is stepped over, with an error
/// in the log that names `name`; what `take` cannot make sense of, likewise.
pub fn for_each_entry(
    name: &str,
    view: &View,
    shared: &Shared,
    mut take: impl FnMut(Entry<'_>) -> Taken,
) -> Result<()> {
    let (mut offset, mut hint) = (view.log_start, Hint::default());
    let failed = |error: ReadError| Error::new(format!("reading {name}: {error}"));
    let mut bytes = Vec::new();
    while offset < view.high_watermark {
        let end = view.high_watermark;
        let slices = view
            .slices(shared, offset, end, READ_BYTES, true, &mut hint)
            .map_err(failed)?
            .files;
        if slices.is_empty() {
            break;
        }
        for slice in slices {
            bytes.resize(slice.len as usize, 0);
            sys::read_at(&slice.file, &mut bytes, slice.position)
                .context(|| format!("reading {name}"))?;
            let mut rest = &bytes[..];
            // A slice may end within a batch: the next read begins with it.
            while let Some((header, body)) = first_batch(rest) {
                offset = header.last_offset() + 1;
                rest = &rest[header.total_bytes()..];
                if let Err(error) = take_batch(&header, body, &mut take) {
                    log::error!("{name} at offset {}: {error}", header.base_offset);
                }
            }
        }
    }
    Ok(())
}

/// Gives `take` each record of a file of batches, a snapshot of Kafka's catalog; says whether all of it is whole.
pub fn for_each_in_file(
    path: &Path,
    mut take: impl FnMut(&[u8], Option<&[u8]>) -> Taken,
) -> Result<bool> {
    let reading = || format!("reading {}", path.display());
    let file = File::open(path).context(reading)?;
    let bytes = file.metadata().context(reading)?.len();
    let size = u32::try_from(bytes).unwrap_or(0);
    let mut position = 0;
    while let Some(header) = header_at(&file, position, size).context(reading)? {
        let body = times::body(&file, position, &header).context(reading)?;
        if batch::crc(&header.encode(), &body) != header.crc {
            return Ok(false);
        }
        let taken = take_batch(&header, &body, &mut |entry: Entry<'_>| match entry {
            Entry::Record { key, value, .. } => take(key, value),
            Entry::Marker(..) | Entry::Control(_) => Ok(()),
        });
        if let Err(error) = taken {
            log::error!("{} at byte {position}: {error}", path.display());
        }
        position += header.total_bytes() as u32;
    }
    Ok(size > 0 && position == size)
}

/// Reads the transactions from their log, and settles what others hold open (P5).
pub fn load_transactions(
    rooms: &Rooms,
    catalog: &Catalog,
    clock: &Clock,
    in_logs: InLogs,
) -> Transactions<Reply> {
    let mut transactions = Transactions::default();
    let topic = catalog.by_name(TRANSACTIONS_TOPIC);
    for partition in topic.iter().flat_map(|topic| &topic.partitions) {
        let Snapshot { view, status, .. } = partition.snapshot();
        let read = for_each_record(TRANSACTIONS_TOPIC, &view, &rooms.storage, |key, value| {
            let record = records::decode(key, value).map_err(|error| error.to_string())?;
            let record = record.into_iter();
            record.for_each(|(id, transaction)| transactions.replay(id, transaction));
            Ok(())
        });
        if let Err(error) = &read {
            log::error!("{error}");
        }
        if read.is_err() || status != Status::Online {
            log::error!("transactions are not served: {TRANSACTIONS_TOPIC} cannot be read");
            transactions.close();
        }
    }
    let now = clock.now();
    let env = Env {
        now_ms: now.boot_ms,
        time_ms: now.time_ms,
        config: &rooms.settings.get(),
    };
    transactions.loaded(in_logs.open, &in_logs.epochs, &env);
    transactions
}

/// How a producer's last transaction at an epoch ended, as far as these logs of transactions tell: whether it counts.
pub fn outcome_in(logs: &[View], shared: &Shared, producer_id: i64, epoch: i16) -> Option<bool> {
    let mut found = None;
    for view in logs {
        let read = for_each_record(TRANSACTIONS_TOPIC, view, shared, |key, value| {
            let record = records::decode(key, value).map_err(|error| error.to_string())?;
            let outcome = record.and_then(|(_, transaction)| transaction?.outcome());
            if let Some((id, at, commit)) = outcome
                && (id, at) == (producer_id, epoch)
            {
                found = Some(commit);
            }
            Ok(())
        });
        if let Err(error) = read {
            log::error!("{error}");
        }
    }
    found
}

fn first_batch(bytes: &[u8]) -> Option<(Header, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let header = Header::parse(head);
    let body = rest.get(..header.total_bytes().checked_sub(HEADER_BYTES)?)?;
    Some((header, body))
}

fn take_batch(header: &Header, body: &[u8], take: &mut impl FnMut(Entry<'_>) -> Taken) -> Taken {
    if header.is_control() {
        return match Marker::read(header, body) {
            Some(marker) => take(Entry::Marker(header, marker)),
            None => take(Entry::Control(header)),
        };
    }
    let records = key_values(header, body).map_err(|error| error.to_string())?;
    let mut fault = Ok(());
    for record in records {
        let taken = record
            .map_err(|error| error.to_string())
            .and_then(|record| {
                take(Entry::Record {
                    header,
                    offset: header
                        .base_offset
                        .saturating_add(record.offset_delta.into()),
                    key: record.key.unwrap_or_default(),
                    value: record.value,
                })
            });
        fault = fault.and(taken);
    }
    fault
}
