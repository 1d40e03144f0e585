//! What the week must look like: plain numbers, in ms since its beginning, and no clock.

use crate::common::keyed::Change;
use std::collections::{BTreeMap, HashMap};

pub const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
const YEAR_MS: i64 = 365 * DAY_MS;
/// All limits end half an hour between the hours, so that the test's own minutes decide nothing.
pub const HALF_AN_HOUR_MS: i64 = HOUR_MS / 2;
pub const RETENTION_MS: i64 = 24 * HOUR_MS + HALF_AN_HOUR_MS;
pub const OFFSETS_MS: i64 = 48 * HOUR_MS + HALF_AN_HOUR_MS;
pub const TRANSACTIONAL_IDS_MS: i64 = 60 * HOUR_MS + HALF_AN_HOUR_MS;
pub const PRODUCER_IDS_MS: i64 = 20 * HOUR_MS + HALF_AN_HOUR_MS;
pub const TIMEOUT_MS: i64 = 12 * HOUR_MS + HALF_AN_HOUR_MS;
pub const TOMBSTONES_MS: i64 = 9 * HOUR_MS + HALF_AN_HOUR_MS;
pub const YOUNG_MS: i64 = 5 * HOUR_MS + HALF_AN_HOUR_MS;
pub const LATE_MS: i64 = 16 * HOUR_MS + HALF_AN_HOUR_MS;
/// `message.timestamp.after.max.ms`: a record's time is believed so far ahead of its append.
pub const BELIEVED_MS: i64 = HOUR_MS + HALF_AN_HOUR_MS;

/// How far the wall clock is off in each hour.
fn wall_error_ms(hour: i64) -> i64 {
    match hour {
        36..60 | 120 => -56 * YEAR_MS,
        60..84 | 140 => 30 * YEAR_MS,
        96..108 => -100 * DAY_MS,
        _ => 0,
    }
}

/// How the broker ends, to be started again.
#[derive(Clone, Copy, PartialEq)]
pub enum End {
    Stop,
    Kill,
}

/// What comes before an hour, with the clock right and wrong.
pub fn end_before(hour: i64) -> Option<End> {
    match hour {
        20 | 40 | 60 | 70 | 85 | 120 | 141 | 160 => Some(End::Stop),
        30 | 50 | 66 | 100 | 104 | 121 | 150 => Some(End::Kill),
        _ => None,
    }
}

/// What was appended to each topic in an hour; its number is its offset.
pub struct Appended {
    /// The record's time, by its producer, whose clock is right.
    made_ms: i64,
    wall_ms: i64,
    /// The broker time that the broker knows its segment to be of.
    stamp_ms: i64,
    change: Change,
}

/// A topic whose records live for a day.
pub struct Ageing {
    pub name: &'static str,
    /// Whether its records have the time of their append, by the wall clock.
    pub by_append: bool,
    pub start: i64,
}

/// When a compacted topic's records may be compacted.
#[derive(Clone, Copy)]
pub enum When {
    AtOnce,
    /// Not before they are so old.
    NotBefore(i64),
    /// Once the first is so old.
    OnlyAfter(i64),
}

/// A compacted topic.
pub struct Compacted {
    pub name: &'static str,
    pub when: When,
    /// Every record before this offset was in a pass.
    pub clean_to: i64,
    /// What is there, by offset.
    pub present: BTreeMap<i64, Change>,
    /// When each tombstone may go.
    horizons: HashMap<i64, i64>,
}

/// A producer id that wrote without a transaction.
pub struct ProducerId {
    pub id: i64,
    /// Until it was idle for its time since then, it is there for sure; `None`: it may be gone.
    since_ms: Option<i64>,
    /// Since then it is idle for sure, once the next hour has begun.
    idle_ms: Option<i64>,
}

/// What is to happen.
pub struct Model {
    pub hour: i64,
    /// Broker time.
    pub time_ms: i64,
    pub appended: Vec<Appended>,
    pub ageing: [Ageing; 2],
    pub compacted: [Compacted; 3],
    /// When a group's offset was committed, if it is still there.
    pub committed_ms: Option<i64>,
    /// When each transactional.id was used last.
    pub transactional_ids: BTreeMap<String, i64>,
    pub producer_ids: Vec<ProducerId>,
    /// Of the open transaction: its first offset, and when it times out, by the time since boot.
    pub open: Option<(i64, i64)>,
}

impl Model {
    pub fn new() -> Model {
        let ageing = |name, by_append| Ageing {
            name,
            by_append,
            start: 0,
        };
        let compacted = |name, when| Compacted {
            name,
            when,
            clean_to: 0,
            present: BTreeMap::new(),
            horizons: HashMap::new(),
        };
        Model {
            hour: 0,
            time_ms: 0,
            appended: Vec::new(),
            ageing: [ageing("create", false), ageing("append", true)],
            compacted: [
                compacted("at-once", When::AtOnce),
                compacted("not-before", When::NotBefore(YOUNG_MS)),
                compacted("only-after", When::OnlyAfter(LATE_MS)),
            ],
            committed_ms: Some(0),
            transactional_ids: BTreeMap::new(),
            producer_ids: Vec::new(),
            open: None,
        }
    }

    pub fn wall_ms(&self) -> i64 {
        self.boot_ms() + wall_error_ms(self.hour)
    }

    pub fn boot_ms(&self) -> i64 {
        self.hour * HOUR_MS
    }

    pub fn end(&self) -> i64 {
        self.appended.len() as i64
    }

    pub fn append(&mut self, change: Change) {
        for topic in &mut self.compacted {
            topic
                .present
                .insert(self.appended.len() as i64, change.clone());
        }
        self.appended.push(Appended {
            made_ms: self.boot_ms(),
            wall_ms: self.wall_ms(),
            stamp_ms: self.time_ms,
            change,
        });
        self.compact();
    }

    /// An hour passes: broker time goes on by as much, and by as much again while the wall clock is ahead.
    pub fn next_hour(&mut self) {
        self.hour += 1;
        self.time_ms += HOUR_MS;
        self.time_ms += (self.wall_ms() - self.time_ms).clamp(0, HOUR_MS);
        let now_ms = self.time_ms;
        let is_old = |since: i64, limit: i64| now_ms - since > limit;
        for topic in &mut self.ageing {
            let newest = |a: &&Appended| a.newest_ms(topic.by_append);
            let old = self
                .appended
                .iter()
                .take_while(|a| is_old(newest(a), RETENTION_MS));
            topic.start = topic.start.max(old.count() as i64);
        }
        self.committed_ms = self
            .committed_ms
            .filter(|since| !is_old(*since, OFFSETS_MS));
        let boot_ms = self.boot_ms();
        if self.open.take_if(|(_, due_ms)| *due_ms < boot_ms).is_some() {
            self.use_id("open");
        }
        let is_open = self.open.is_some();
        self.transactional_ids
            .retain(|id, used| !is_old(*used, TRANSACTIONAL_IDS_MS) || is_open && id == "open");
        for id in &mut self.producer_ids {
            id.idle_ms.get_or_insert(now_ms);
            id.since_ms = id.since_ms.filter(|since| !is_old(*since, PRODUCER_IDS_MS));
        }
        self.compact();
    }

    /// The broker goes on, with what it knows of broker time. What it reads anew, from offset `first_read` on, was
    /// perhaps not synced: its file's time may be the kernel's, which nobody can trust.
    pub fn restarted(&mut self, time_ms: i64, first_read: i64) {
        self.time_ms = time_ms;
        for (appended, offset) in self.appended.iter_mut().zip(0..) {
            appended.stamp_ms = match offset < first_read {
                true => appended.stamp_ms.min(time_ms),
                false => time_ms,
            };
        }
        for id in &mut self.producer_ids {
            // A start may find one in the log that had been forgotten; it grows old anew.
            id.since_ms = id.since_ms.map(|_| time_ms);
            id.idle_ms = None;
        }
        let due_ms = self.boot_ms() + TIMEOUT_MS;
        self.open = self.open.map(|(first, _)| (first, due_ms));
    }

    pub fn use_id(&mut self, id: &str) {
        self.transactional_ids.insert(id.into(), self.time_ms);
    }

    pub fn use_producer_id(&mut self, id: i64) {
        self.producer_ids.retain(|known| known.id != id);
        self.producer_ids.push(ProducerId {
            id,
            since_ms: Some(self.time_ms),
            idle_ms: None,
        });
    }

    /// The producer ids that must be there, and those that may be.
    pub fn producer_ids(&self) -> (Vec<i64>, Vec<i64>) {
        let ids = self.producer_ids.iter();
        let (sure, other): (Vec<_>, Vec<_>) = ids.partition(|id| id.since_ms.is_some());
        let may_be = |id: &&&ProducerId| {
            id.idle_ms
                .is_none_or(|since| self.time_ms - since <= PRODUCER_IDS_MS)
        };
        let maybe = other.iter().filter(may_be).map(|id| id.id).collect();
        (sure.iter().map(|id| id.id).collect(), maybe)
    }

    fn compact(&mut self) {
        for topic in &mut self.compacted {
            topic.compact(&self.appended, self.time_ms);
        }
    }
}

impl Appended {
    /// What its age counts from.
    fn newest_ms(&self, by_append: bool) -> i64 {
        let said_ms = if by_append {
            self.wall_ms
        } else {
            self.made_ms
        };
        match said_ms <= self.stamp_ms + BELIEVED_MS {
            true => said_ms.max(self.stamp_ms),
            false => self.stamp_ms,
        }
    }
}

impl Compacted {
    /// A pass, if there is anything for one. The newest record is in the active segment.
    fn compact(&mut self, appended: &[Appended], now_ms: i64) {
        let (from, sealed) = (self.clean_to as usize, appended.len().saturating_sub(1));
        let end = match self.when {
            When::AtOnce => sealed,
            When::NotBefore(age_ms) => {
                let old = |a: &&Appended| now_ms - a.newest_ms(false) >= age_ms;
                from + appended[from..sealed].iter().take_while(old).count()
            }
            When::OnlyAfter(age_ms) => match appended[from..sealed].first() {
                Some(first) if now_ms - first.made_ms > age_ms => sealed,
                _ => from,
            },
        };
        if end == from {
            return;
        }
        self.clean_to = end as i64;
        let dirty = appended[from..end].iter().zip(from as i64..);
        let newest: HashMap<_, _> = dirty.map(|(a, offset)| (&a.change.key, offset)).collect();
        let horizons = &mut self.horizons;
        self.present.retain(|offset, change| {
            let is_newest = newest
                .get(&change.key)
                .is_none_or(|newest| newest <= offset);
            let in_pass = *offset < end as i64;
            let horizon = match in_pass && change.value.is_none() {
                true => *horizons.entry(*offset).or_insert(now_ms + TOMBSTONES_MS),
                false => i64::MAX,
            };
            !in_pass || is_newest && now_ms < horizon
        });
    }
}
