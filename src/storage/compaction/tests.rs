//! Compaction against a plain map: random logs, many passes, each followed by a start that trusts no hint.

mod rules;

use super::*;
use crate::batch::builder::Builder;
use crate::batch::check::Checked;
use crate::batch::marker::Marker;
use crate::batch::{TRANSACTIONAL, check_stored, records};
use crate::compress::{Codec, encode};
use crate::storage::testing::{Rig, append_synced, bytes_from};
use crate::storage::{Log, Staged};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::fs;

const RETENTION_MS: i64 = 100;

/// A record's timestamp, key, value, and all its bytes behind the offset delta.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    rest: Vec<u8>,
}

#[derive(Default)]
struct Producer {
    next_sequence: i32,
    last: Option<(Checked, i64)>,
    opened_at: Option<i64>,
}

struct World {
    rig: Rig,
    log: Option<Log>,
    random: StdRng,
    now_ms: i64,
    /// All that was ever appended, by offset, but for what was aborted.
    written: BTreeMap<i64, Told>,
    /// Offsets of transactions that are open, by producer.
    pending: HashMap<i64, Vec<i64>>,
    aborted: Vec<Aborted>,
    producers: HashMap<i64, Producer>,
    first_dirty: i64,
    map_bytes_max: usize,
    log_start: Cell<i64>,
    /// Replacements that begin before this are refused, and the log start is raised then.
    refused_below: i64,
    raised_to: i64,
}

impl World {
    fn new(seed: u64) -> World {
        let rig = Rig::small(1500);
        World {
            log: Some(rig.create()),
            rig,
            random: StdRng::seed_from_u64(seed),
            now_ms: 1_000,
            written: BTreeMap::new(),
            pending: HashMap::new(),
            aborted: Vec::new(),
            producers: HashMap::new(),
            first_dirty: 0,
            map_bytes_max: 4 << 20,
            log_start: Cell::new(0),
            refused_below: 0,
            raised_to: 0,
        }
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().unwrap()
    }

    /// Appends a batch of records of few keys, by a producer of its kind (-1: none), and notes it.
    fn write(&mut self, id: i64) {
        let transactional = id >= 10;
        let codec = Codec::from_id(self.random.random_range(0..5)).unwrap();
        let mut builder = Builder::new(self.now_ms);
        if id >= 0 {
            let producer = self.producers.entry(id).or_default();
            builder = builder.producer(id, 0, producer.next_sequence);
        }
        if transactional {
            builder = builder.attributes(TRANSACTIONAL);
        }
        let count = self.random.random_range(1..8);
        for _ in 0..count {
            let key = format!("key{}", self.random.random_range(0..14));
            let keyless = self.random.random_ratio(1, 20);
            let value = vec![self.random.random::<u8>(); self.random.random_range(0..60)];
            let deleted = self.random.random_ratio(1, 4);
            let headers = [("header", Some(&b"told"[..]))];
            builder.add(
                (!keyless).then_some(key.as_bytes()),
                (!deleted).then_some(&value),
                &headers[..self.random.random_range(0..2)],
                self.now_ms + self.random.random_range(-50..50),
            );
        }
        let mut body = Vec::new();
        encode::encode(codec, builder.records(), &mut body).unwrap();
        let batch = Checked::own(builder.build_from(codec, &body));
        let base = append_synced(self.log(), batch.clone());
        let told = told(&builder.place(base, 0).build(), &self.rig);
        if transactional {
            let pending = self.pending.entry(id).or_default();
            pending.extend(told.iter().map(|(offset, _)| offset));
        }
        self.written.extend(told);
        if id >= 0 {
            let producer = self.producers.get_mut(&id).unwrap();
            producer.next_sequence += count;
            producer.last = Some((batch, base + i64::from(count) - 1));
            if transactional {
                producer.opened_at.get_or_insert(base);
            }
        }
    }

    /// Ends the transaction of a producer, if it has one.
    fn end(&mut self, id: i64, commit: bool) {
        let opened_at = self.producers.get_mut(&id).and_then(|p| p.opened_at.take());
        let Some(first_offset) = opened_at else {
            return;
        };
        let marker = Marker {
            commit,
            coordinator_epoch: 0,
        };
        let marker = marker.batch(id, 0, self.now_ms);
        let last_offset = append_synced(self.log(), Checked::own(marker));
        let offsets = self.pending.remove(&id).unwrap();
        if !commit {
            for offset in offsets {
                self.written.remove(&offset);
            }
            self.aborted.push(Aborted {
                producer_id: id,
                first_offset,
                last_offset,
                last_stable: first_offset,
            });
        }
    }

    fn anything(&mut self) {
        self.now_ms += self.random.random_range(0..20);
        match self.random.random_range(0..10) {
            0..4 => self.write(-1),
            4..6 => {
                let id = self.random.random_range(0..3);
                self.write(id);
            }
            6..9 => {
                let id = self.random.random_range(10..13);
                self.write(id);
            }
            _ => {
                let id = self.random.random_range(10..13);
                let commit = self.random.random();
                self.end(id, commit);
            }
        }
    }

    fn first_open(&self) -> i64 {
        let open = self.producers.values().filter_map(|p| p.opened_at);
        open.min().unwrap_or(i64::MAX)
    }

    /// A pass, its results put in place, and a start that reads all.
    fn compact(&mut self, end: i64) -> Cleaned {
        let (cleaned, replacements) = self.pass(end).unwrap();
        self.first_dirty = cleaned.next_dirty;
        let view = self.log.take().unwrap().view();
        for replacement in replacements {
            put_in_place(&self.rig, &view, &replacement);
        }
        self.rig.remove(".snapshot");
        let (log, report) = self.rig.recover(None);
        assert_eq!((report.gaps, report.cut), (vec![], None));
        self.log = Some(log);
        cleaned
    }

    fn pass(&mut self, end: i64) -> Result<(Cleaned, Vec<Replacement>), Failed> {
        let view = self.log().view();
        let dir: Arc<Path> = self.rig.dir.path().into();
        let mut replacements = Vec::new();
        let aborted = |range: Range<i64>| {
            let within = |t: &&Aborted| t.first_offset < range.end && t.last_offset >= range.start;
            Ok(self.aborted.iter().filter(within).copied().collect())
        };
        let last_of_producer = |id| {
            let last = self.producers.get(&id)?.last.as_ref()?;
            Some(LastOfProducer {
                last_data_offset: Some(last.1),
                epoch: 0,
            })
        };
        let source = Source {
            view: &view,
            shared: &self.rig.shared,
            dir: &dir,
            settings: &self.rig.settings,
            decoders: &self.rig.decoders,
            now_ms: self.now_ms,
            delete_retention_ms: RETENTION_MS,
            first_dirty: self.first_dirty,
            end: end.min(self.first_open()),
            map_bytes_max: self.map_bytes_max,
            map_load_factor: 0.9,
            last_of_producer: &last_of_producer,
            log_start: &|| self.log_start.get(),
            aborted: &aborted,
        };
        let cleaned = compact(&source, &mut |_| Ok(()), &mut |replacement| {
            if replacement.tail.base_offset < self.refused_below {
                self.log_start.set(self.raised_to);
                return Err(Failed::Moved);
            }
            replacements.push(replacement);
            Ok(())
        })?;
        Ok((cleaned, replacements))
    }

    fn bytes(&mut self) -> Vec<u8> {
        let view = self.log().view();
        bytes_from(&view, &self.rig.shared, view.log_start, u32::MAX)
    }

    /// What a `read_committed` consumer reads from the beginning.
    fn read(&mut self) -> Vec<(i64, Told)> {
        let bytes = self.bytes();
        let is_aborted = |header: &Header| {
            let holds = |t: &Aborted| {
                t.producer_id == header.producer_id
                    && (t.first_offset..t.last_offset).contains(&header.base_offset)
            };
            header.is_transactional() && self.aborted.iter().any(holds)
        };
        let mut read = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let header = check_stored(rest).unwrap();
            let (batch, after) = rest.split_at(header.total_bytes());
            if !header.is_control() && !is_aborted(&header) {
                read.extend(told(batch, &self.rig));
            }
            rest = after;
        }
        read
    }

    /// The map is right, what stayed is as it was written, and each producer may go on.
    fn check(&mut self) {
        let read = self.read();
        assert!(read.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for (offset, told) in &read {
            assert_eq!(self.written.get(offset), Some(told), "offset {offset}");
        }
        assert_eq!(map_of(&read), map_of(&self.written));
        let producers: Vec<(i64, i32, Checked, i64)> = self
            .producers
            .iter()
            .filter_map(|(&id, p)| p.last.clone().map(|(b, o)| (id, p.next_sequence, b, o)))
            .collect();
        for (id, next_sequence, batch, offset) in producers {
            let retried = self.log().stage(batch.clone(), None, 0, 1000).unwrap();
            assert!(
                matches!(retried, Staged::Duplicate { last_offset, .. } if last_offset == offset)
            );
            let known = self.log().active_producers();
            let known = known.iter().find(|p| p.id == id).unwrap();
            assert_eq!(known.last_sequence + 1, next_sequence);
        }
    }
}

fn map_of<'a>(
    records: impl IntoIterator<Item = impl Into<Pair<'a>>>,
) -> BTreeMap<Vec<u8>, (i64, Vec<u8>)> {
    let mut map = BTreeMap::new();
    for record in records {
        let Pair(offset, told) = record.into();
        let Some(key) = told.key.clone() else {
            continue;
        };
        match &told.value {
            Some(value) => map.insert(key, (offset, value.clone())),
            None => map.remove(&key),
        };
    }
    map
}

struct Pair<'a>(i64, &'a Told);

impl<'a> From<&'a (i64, Told)> for Pair<'a> {
    fn from((offset, told): &'a (i64, Told)) -> Pair<'a> {
        Pair(*offset, told)
    }
}

impl<'a> From<(&'a i64, &'a Told)> for Pair<'a> {
    fn from((offset, told): (&'a i64, &'a Told)) -> Pair<'a> {
        Pair(*offset, told)
    }
}

/// The records of a stored batch.
fn told(batch: &[u8], rig: &Rig) -> Vec<(i64, Told)> {
    let header = check_stored(batch).unwrap();
    let mut inflated = Vec::new();
    let body = &batch[HEADER_BYTES..header.total_bytes()];
    let text = filter::records(&rig.decoders, &header, body, &mut inflated);
    let text = text.unwrap().unwrap();
    let mut walk = Walk::new(text, header.records_count);
    let mut all = Vec::new();
    while let Some(record) = walk.next_record().unwrap() {
        let bytes = |range: &Option<Range<usize>>| range.clone().map(|r| text[r].to_vec());
        let rest_at = record.key.as_ref().map_or(walk.position(), |key| key.start);
        let told = Told {
            timestamp: records::timestamp(&header, &record),
            key: bytes(&record.key),
            value: bytes(&record.value),
            rest: text[rest_at..walk.position()].to_vec(),
        };
        all.push((header.base_offset + i64::from(record.offset_delta), told));
    }
    all
}

/// What the writer's swap comes to.
fn put_in_place(rig: &Rig, view: &View, replacement: &Replacement) {
    let name = |base: i64, extension: &str| rig.path(&format!("{base:020}{extension}"));
    for extent in view.closed.iter() {
        if replacement.sources.contains(&extent.segment.serial()) {
            for extension in EXTENSIONS {
                let _ = fs::remove_file(name(extent.base_offset(), extension));
            }
        }
    }
    for extension in EXTENSIONS {
        let base = replacement.tail.base_offset;
        let cleaned = name(base, &format!("{extension}{CLEANED}"));
        fs::rename(cleaned, name(base, extension)).unwrap();
    }
}

#[test]
fn a_compacted_log_tells_the_same_map_after_any_number_of_passes() {
    for seed in 0..12 {
        println!("seed {seed}");
        let mut world = World::new(seed);
        for _ in 0..6 {
            for _ in 0..world.random.random_range(1..60) {
                world.anything();
            }
            world.map_bytes_max = [48, 240, 4096, 4 << 20][world.random.random_range(0..4)];
            let appended = world.log().appended_end();
            let end = match world.random.random_ratio(1, 3) {
                true => world.random.random_range(0..=appended),
                false => i64::MAX,
            };
            world.compact(end);
            assert_eq!(world.rig.names(CLEANED), Vec::<String>::new());
            world.check();
        }
    }
}

#[test]
fn a_log_that_is_compacted_stays_as_it_is() {
    for seed in 100..104 {
        println!("seed {seed}");
        let mut world = World::new(seed);
        (0..80).for_each(|_| world.anything());
        (10..13).for_each(|id| world.end(id, false));
        world.compact(i64::MAX);
        let read = world.read();
        // Later passes find transactions without records, and segments that have become small enough to be one.
        let settled = (0..6).any(|_| {
            let before = world.bytes();
            let cleaned = world.compact(i64::MAX);
            assert!(world.read() == read);
            cleaned.replacements == 0 && world.bytes() == before
        });
        assert!(settled);
    }
}

/// Refused for another reason, a value might stay whose tombstone goes: then the pass ends.
#[test]
fn a_pass_goes_on_behind_what_the_log_start_passed_and_behind_nothing_else() {
    let mut world = World::new(7);
    (0..120).for_each(|_| world.write(-1));
    let closed = world.log().view().closed.clone();
    let (_, all) = world.pass(i64::MAX).unwrap();
    world.refused_below = 1;
    world.raised_to = closed[0].end_offset - 1;
    assert!(matches!(world.pass(i64::MAX), Err(Failed::Moved)));
    let first = all[0].sources.len();
    world.raised_to = closed[first - 1].end_offset;
    let (cleaned, rest) = world.pass(i64::MAX).unwrap();
    assert_eq!(rest.len(), all.len() - 1);
    assert_eq!(cleaned.next_dirty, world.log().view().active.base_offset());
}
