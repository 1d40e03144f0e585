//! What looks into batches: their records, and what those mean whose owner is the broker.
//!
//! Owns: what the catalog's records say of the topics, for the catalog comes first. Invariant: a batch's records are
//! walked and never kept.

use crate::batch::Header;
use crate::batch::records::{self, key_values};
use crate::budget::Budget;
use crate::catalog::{
    METADATA_TOPIC, OFFSETS_TOPIC, RESOURCE_BROKER, State, TRANSACTIONS_TOPIC, is_internal,
};
use crate::compress::Decoders;
use crate::group;
use crate::storage::audit::Subject;
use crate::storage::times;
use crate::txn;
use crate::wire::metadata_records::MetadataRecord;
use std::io;

/// So many bytes may unfold from a batch at once, and a batch may ask for so large a window: what any client writes.
const DECOMPRESSION_BYTES_MAX: u64 = 256 << 20;
const WINDOW_BYTES_MAX: usize = 128 << 20;

/// What looks into batches, and what it has seen.
pub struct Eyes {
    decoders: Decoders,
    /// What the catalog's records add up to.
    pub state: State,
    pub batches: u64,
    pub records: u64,
}

impl Eyes {
    pub fn new() -> Eyes {
        Eyes {
            decoders: Decoders::new(Budget::new(DECOMPRESSION_BYTES_MAX), WINDOW_BYTES_MAX),
            state: State::default(),
            batches: 0,
            records: 0,
        }
    }

    /// Whether missing offsets are nothing special: of a topic that the catalog does not know that cannot be told.
    pub fn is_compacted(&self, topic: &str) -> bool {
        const POLICY: &str = "cleanup.policy";
        let by_default = self.state.settings.get(&(RESOURCE_BROKER, String::new()));
        let by_default = by_default.and_then(|settings| settings.get("log.cleanup.policy"));
        match self.state.topics.get(topic) {
            Some(known) => {
                let policy = known.overrides.get(POLICY).or(by_default);
                policy.is_some_and(|policy| policy.contains("compact"))
            }
            None => topic != METADATA_TOPIC,
        }
    }

    /// Walks a batch's records, compressed or not, and reads those of an internal topic as its owner does.
    pub fn look(
        &mut self,
        topic: &str,
        subject: &Subject,
        position: u32,
        header: &Header,
    ) -> io::Result<Option<String>> {
        self.batches += 1;
        self.records += header.records_count.max(0) as u64;
        let body = times::body(&subject.log, position, header)?;
        let (mut next, mut rise) = (0, true);
        let walked = records::for_each(header, &body, &self.decoders, |record| {
            rise = (next..=header.last_offset_delta).contains(&record.offset_delta);
            next = record.offset_delta.saturating_add(1);
            rise
        });
        Ok(match walked {
            Err(failure) => Some(format!(
                "the CRC is right, and the records are not: {failure}"
            )),
            Ok(()) if !rise => Some("the records' offsets do not rise".into()),
            Ok(()) if is_internal(topic) => self.decode(topic, header, &body),
            Ok(()) => None,
        })
    }

    /// What is wrong with the records of an internal topic, whose meaning is the broker's; those of the catalog are
    /// taken in.
    fn decode(&mut self, topic: &str, header: &Header, body: &[u8]) -> Option<String> {
        if header.is_control() {
            return None;
        }
        let mut read = || -> std::result::Result<(), String> {
            for record in key_values(header, body).map_err(|failure| failure.to_string())? {
                let record = record.map_err(|failure| failure.to_string())?;
                let key = record.key.unwrap_or_default();
                match topic {
                    OFFSETS_TOPIC => group::records::Record::decode(key, record.value).map(drop),
                    TRANSACTIONS_TOPIC => txn::records::decode(key, record.value).map(drop),
                    _ => MetadataRecord::decode(record.value.unwrap_or_default())
                        .map(|record| self.state.apply(&record)),
                }
                .map_err(|malformed| malformed.to_string())?;
            }
            Ok(())
        };
        read().err()
    }
}
