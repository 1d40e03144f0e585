//! Reading a log of the broker's own back, record by record, before it is served.

use crate::batch::{HEADER_BYTES, Header, records::key_values};
use crate::error::{Context, Error, Result};
use crate::storage::{Hint, ReadError, Shared, View};
use crate::sys;

/// What is read at once: large enough that the disk streams, small enough not to be noticed.
const READ_BYTES: u32 = 1 << 20;

/// Gives `take` each record's key and value, in the log's order. What cannot be read is stepped over, with an error
/// in the log that names `name`; what `take` cannot make sense of, likewise.
pub fn for_each_record(
    name: &str,
    view: &View,
    shared: &Shared,
    mut take: impl FnMut(&[u8], Option<&[u8]>) -> std::result::Result<(), String>,
) -> Result<()> {
    let (mut offset, mut hint) = (view.log_start, Hint::default());
    let failed = |error: ReadError| Error::new(format!("reading {name}: {error}"));
    let mut bytes = Vec::new();
    while offset < view.high_watermark {
        let end = view.high_watermark;
        let slices = view
            .slices(shared, offset, end, READ_BYTES, true, &mut hint)
            .map_err(failed)?;
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

fn first_batch(bytes: &[u8]) -> Option<(Header, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let header = Header::parse(head);
    let body = rest.get(..header.total_bytes().checked_sub(HEADER_BYTES)?)?;
    Some((header, body))
}

fn take_batch(
    header: &Header,
    body: &[u8],
    take: &mut impl FnMut(&[u8], Option<&[u8]>) -> std::result::Result<(), String>,
) -> std::result::Result<(), String> {
    if header.is_control() {
        return Ok(());
    }
    let records = key_values(header, body).map_err(|error| error.to_string())?;
    let mut fault = Ok(());
    for record in records {
        let taken = record
            .map_err(|error| error.to_string())
            .and_then(|record| take(record.key.unwrap_or_default(), record.value));
        fault = fault.and(taken);
    }
    fault
}
