//! A transaction's marker: the one record of a control batch, which says how the transaction of its producer ended.
//!
//! ```text
//!   key    version i16 = 0 | type i16: 0 abort, 1 commit          value  version i16 = 0 | coordinator epoch i32
//! ```
//! Source: Kafka's `ControlRecordType`, `EndTransactionMarker` and `EndTxnMarker.json`; newer versions of the value
//! have more behind the epoch. A marker has no sequence, and its batch is transactional and never compressed.

use super::builder::Builder;
use super::records::key_values;
use super::{CONTROL, Header, TRANSACTIONAL, set_place};

const VERSION: i16 = 0;
const ABORT: i16 = 0;
const COMMIT: i16 = 1;

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    /// Whether what was written counts.
    pub commit: bool,
    /// The epoch of the coordinator that ended it.
    pub coordinator_epoch: i32,
}

impl Marker {
    /// The batch that ends the transaction of a producer; `timestamp` in ms since 1970.
    pub fn batch(self, producer_id: i64, producer_epoch: i16, timestamp: i64) -> Vec<u8> {
        let kind = match self.commit {
            true => COMMIT,
            false => ABORT,
        };
        let key = [VERSION.to_be_bytes(), kind.to_be_bytes()].concat();
        let mut value = VERSION.to_be_bytes().to_vec();
        value.extend_from_slice(&self.coordinator_epoch.to_be_bytes());
        Builder::new(timestamp)
            .producer(producer_id, producer_epoch, -1)
            .attributes(TRANSACTIONAL | CONTROL)
            .add(Some(&key), Some(&value), &[], timestamp)
            .build()
    }

    /// A marker of no coordinator, so that it fences nobody, at the offset of one that is lost; `timestamp` in ms.
    pub fn in_place_of_lost(
        commit: bool,
        producer_id: i64,
        producer_epoch: i16,
        timestamp: i64,
        offset: i64,
    ) -> Vec<u8> {
        let marker = Marker {
            commit,
            coordinator_epoch: 0,
        };
        let mut bytes = marker.batch(producer_id, producer_epoch, timestamp);
        if let Some(head) = bytes.first_chunk_mut() {
            set_place(head, offset, 0);
        }
        bytes
    }

    /// Reads a control batch; nothing if it is none, or of a kind that ends no transaction.
    pub fn read(header: &Header, body: &[u8]) -> Option<Marker> {
        if !header.is_control() {
            return None;
        }
        let record = key_values(header, body).ok()?.next()?.ok()?;
        let (version, kind) = record.key?.split_first_chunk()?;
        let (kind, _) = kind.split_first_chunk()?;
        let commit = match (i16::from_be_bytes(*version), i16::from_be_bytes(*kind)) {
            (0.., ABORT) => false,
            (0.., COMMIT) => true,
            _ => return None,
        };
        let (_, epoch) = record.value?.split_first_chunk::<2>()?;
        let (epoch, _) = epoch.split_first_chunk()?;
        Some(Marker {
            commit,
            coordinator_epoch: i32::from_be_bytes(*epoch),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::HEADER_BYTES;
    use crate::batch::check::Checked;

    #[test]
    fn a_marker_is_read_as_it_was_written() {
        for commit in [true, false] {
            let marker = Marker {
                commit,
                coordinator_epoch: 5,
            };
            let batch = Checked::own(marker.batch(9, 2, 1_000));
            assert_eq!(batch.total_bytes(), HEADER_BYTES + 17);
            assert!(batch.header.is_transactional());
            assert_eq!(Marker::read(&batch.header, &batch.body), Some(marker));
        }
    }

    #[test]
    fn other_batches_and_damaged_ones_are_no_markers() {
        let data = Builder::new(0)
            .add(Some(&[0; 4]), Some(&[0; 6]), &[], 0)
            .build();
        let data = Checked::own(data);
        assert_eq!(Marker::read(&data.header, &data.body), None);
        for (key, value) in [
            (&[0, 0, 0, 2][..], &[0; 6][..]),
            (&[0, 0, 0], &[0; 6]),
            (&[0; 4], &[0; 5]),
        ] {
            let odd = Builder::new(0)
                .attributes(CONTROL)
                .add(Some(key), Some(value), &[], 0)
                .build();
            let odd = Checked::own(odd);
            assert_eq!(Marker::read(&odd.header, &odd.body), None);
        }
    }
}
