//! What a broker has told its clients, and whether what it shows now agrees with it.

use crate::common::keyed::Change;
use crate::common::producer::{Batch, Client, batches, bytes_of};
use crate::common::transactional;
use ottla::batch::HEADER_BYTES;
use ottla::batch::records::key_values;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// As of a transaction's offsets (UNSTABLE_OFFSET_COMMIT): its end is told, and not yet in every partition.
pub const UNSTABLE: i16 = 88;

/// A partition.
pub type Place = (&'static str, i32);

/// What clients were told of one partition.
#[derive(Clone, Default)]
struct OfPlace {
    acked: BTreeMap<i64, Change>,
    /// The values of an idempotent producer, each of which may be there once at most.
    once: BTreeSet<String>,
    /// The highest log start that was asked for, and the highest that was told.
    asked_start: i64,
    told_start: i64,
}

/// All that clients were told, over any number of lives of a broker.
#[derive(Clone, Default)]
pub struct Told {
    places: BTreeMap<Place, OfPlace>,
    /// Topics that were made.
    pub made: BTreeSet<&'static str>,
    /// Values of transactions whose commit was told, and of those that were aborted; by topic.
    pub committed: Vec<(&'static str, String)>,
    pub aborted: Vec<(&'static str, String)>,
    /// How far the group has read, as it was told.
    pub offset: i64,
    /// Acknowledgements of any kind.
    pub acks: u64,
}

impl Told {
    /// A record was acked at an offset.
    pub fn acked(&mut self, place: Place, offset: i64, change: &Change) {
        self.acks += 1;
        let acked = &mut self.places.entry(place).or_default().acked;
        let before = acked.insert(offset, change.clone());
        assert!(
            before.is_none_or(|before| before == *change),
            "{place:?}: two records were told to be at {offset}"
        );
    }

    /// A record of an idempotent producer is about to be sent.
    pub fn sent_once(&mut self, place: Place, value: &str) {
        let once = &mut self.places.entry(place).or_default().once;
        once.insert(value.to_owned());
    }

    /// DeleteRecords was asked for, and answered by `told`.
    pub fn deleted_to(&mut self, place: Place, asked: i64, told: Option<i64>) {
        let of = self.places.entry(place).or_default();
        of.asked_start = of.asked_start.max(asked);
        of.told_start = of.told_start.max(told.unwrap_or(0));
        self.acks += u64::from(told.is_some());
    }

    /// The next log start to ask for: two of the acked records go.
    pub fn next_start(&self, place: Place) -> i64 {
        let of = self.places.get(&place);
        let behind = |of: &OfPlace| of.acked.range(of.asked_start..).nth(2).map(|(at, _)| *at);
        of.and_then(behind).unwrap_or(0)
    }

    /// The topic is gone, and all that was told of it.
    pub fn forget(&mut self, topic: &'static str) {
        self.places.retain(|place, _| place.0 != topic);
        self.made.remove(topic);
    }

    /// Holds all of it against what a broker shows. An error is the connection's, or a fetch's error code.
    pub fn check(&self, client: &mut Client) -> io::Result<Result<(), i16>> {
        // Where nothing was told, nothing need be there.
        let told = |of: &OfPlace| !of.acked.is_empty() || of.told_start > 0;
        for (&place, of) in self.places.iter().filter(|(_, of)| told(of)) {
            if let Err(code) = of.check(place, client)? {
                return Ok(Err(code));
            }
        }
        self.check_transactions(client)
    }

    fn check_transactions(&self, client: &mut Client) -> io::Result<Result<(), i16>> {
        if self.committed.is_empty() {
            return Ok(Ok(()));
        }
        for topic in ["a", "b"] {
            let values = match transactional::committed(client, topic)? {
                Ok((_, false)) => return Ok(Err(UNSTABLE)),
                Ok((values, true)) => values,
                Err(code) => return Ok(Err(code)),
            };
            let of = |list: &[(&str, String)]| {
                let of = list.iter().filter(|(name, _)| *name == topic);
                of.map(|(_, value)| value.clone()).collect::<Vec<_>>()
            };
            let (committed, aborted) = (of(&self.committed), of(&self.aborted));
            let there: Vec<_> = committed.iter().filter(|v| values.contains(v)).collect();
            assert_eq!(there.len(), committed.len(), "{topic}: {values:?}");
            let unwanted = values.iter().find(|value| aborted.contains(value));
            assert_eq!(unwanted, None, "{topic}: it was aborted");
        }
        Ok(match transactional::offset(client)? {
            Ok(offset) => {
                assert!(offset >= self.offset, "{} was committed", self.offset);
                Ok(())
            }
            Err(code) => Err(code),
        })
    }
}

impl OfPlace {
    fn check(&self, place: Place, client: &mut Client) -> io::Result<Result<(), i16>> {
        let (start, found) = match read(place, client)? {
            Ok(found) => found,
            Err(code) => return Ok(Err(code)),
        };
        assert!(start >= self.told_start, "{place:?}: starts at {start}");
        let may_go = place.0 == "sized" || start <= self.asked_start;
        assert!(
            may_go,
            "{place:?}: starts at {start}, which nobody asked for"
        );
        let newest = found.iter().map(|(at, change)| (&change.key, *at));
        let newest: BTreeMap<&String, i64> = newest.collect();
        for (&offset, change) in self.acked.range(start..) {
            let compacted = place.0 == "keyed" && newest.get(&change.key) > Some(&offset);
            match found.get(&offset) {
                Some(there) => assert_eq!(there, change, "{place:?} at {offset}"),
                None => assert!(compacted, "{place:?}: {offset} was acked and is gone"),
            }
        }
        let mut seen = BTreeSet::new();
        for (offset, change) in &found {
            let value = change.value.as_deref().unwrap_or_default();
            let is_new = seen.insert(value);
            assert!(
                is_new || !self.once.contains(value),
                "{place:?}: {value} is at {offset} again"
            );
        }
        Ok(Ok(()))
    }
}

/// A log's start and all its records by offset, or the error's code.
type Found = (i64, BTreeMap<i64, Change>);

fn read((topic, index): Place, client: &mut Client) -> io::Result<Result<Found, i16>> {
    let start = match client.list_offset(topic, index, -2)? {
        Ok(start) => start,
        Err(code) => return Ok(Err(code)),
    };
    let (mut offset, mut found) = (start, BTreeMap::new());
    loop {
        let data = client.fetch(topic, index, offset, 0)?;
        match data.error_code {
            0 => {}
            // Retention was quicker.
            1 => return read((topic, index), client),
            code => return Ok(Err(code)),
        }
        for batch in batches(bytes_of(&data.records)) {
            found.extend(change(&batch).map(|change| (batch.header.base_offset, change)));
            offset = offset.max(batch.header.last_offset() + 1);
        }
        if offset >= data.high_watermark {
            return Ok(Ok((start, found)));
        }
        assert!(
            !bytes_of(&data.records).is_empty(),
            "{topic}-{index} at {offset}: {data:?}"
        );
    }
}

/// The one record of a batch; none in a marker, or where compaction took it.
fn change(batch: &Batch) -> Option<Change> {
    if batch.header.is_control() || batch.header.records_count == 0 {
        return None;
    }
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut records = key_values(&batch.header, &batch.bytes[HEADER_BYTES..]).unwrap();
    let record = records.next()?.unwrap();
    Some(Change {
        key: record.key.map(text).unwrap_or_default(),
        value: record.value.map(text),
    })
}
