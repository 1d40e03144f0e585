//! Records with keys, and the plain map that they add up to: what compaction must never change.

use super::producer::{Batch, Client};
use ottla::batch::HEADER_BYTES;
use ottla::batch::builder::Builder;
use ottla::batch::records::key_values;
use std::collections::BTreeMap;

/// The newest value of each key; one that was deleted is not there.
pub type Map = BTreeMap<String, String>;

/// A key's new value, or its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub key: String,
    pub value: Option<String>,
}

/// The batch of these changes; `producer` is its id and first sequence.
pub fn batch(producer: Option<(i64, i32)>, time_ms: i64, changes: &[Change]) -> Vec<u8> {
    let mut builder = Builder::new(time_ms);
    if let Some((id, sequence)) = producer {
        builder = builder.producer(id, 0, sequence);
    }
    for change in changes {
        let value = change.value.as_deref().map(str::as_bytes);
        builder.add(Some(change.key.as_bytes()), value, &[], time_ms);
    }
    builder.build()
}

/// The changes in a batch, with their offsets: what an uncompressed one says of itself.
pub fn changes(batch: &Batch) -> Vec<Change> {
    if batch.header.is_control() || batch.header.records_count == 0 {
        return Vec::new();
    }
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let records = key_values(&batch.header, &batch.bytes[HEADER_BYTES..]).unwrap();
    let change = |record: ottla::batch::records::KeyValue<'_>| Change {
        key: text(record.key.expect("a key")),
        value: record.value.map(text),
    };
    records.map(|record| change(record.unwrap())).collect()
}

/// What changes add up to.
pub fn sum<'a>(changes: impl IntoIterator<Item = &'a Change>) -> Map {
    let mut map = Map::new();
    for Change { key, value } in changes {
        match value {
            Some(value) => map.insert(key.clone(), value.clone()),
            None => map.remove(key),
        };
    }
    map
}

/// What a consumer makes of a partition that it reads from its start; how many records it read, and where it ended.
/// Offsets must rise, whatever is missing between them.
pub fn rebuilt(client: &mut Client, topic: &str, index: i32) -> (Map, usize, i64) {
    let start = client.list_offset(topic, index, -2).unwrap().unwrap();
    let (batches, end) = client.fetch_from(topic, index, start).unwrap();
    let mut next = 0;
    let mut all = Vec::new();
    for batch in &batches {
        assert!(
            batch.header.base_offset >= next,
            "{topic}-{index} at {next}"
        );
        next = batch.header.last_offset() + 1;
        all.extend(changes(batch));
    }
    (sum(&all), all.len(), end)
}
