//! Random producers against a plain model of what Kafka says of them: the same verdicts, the same last stable offset,
//! the same aborted lists, whatever starts come in between.

use super::*;
use crate::batch::check::Checked;
use crate::error::ErrorCode::{self, InvalidProducerEpoch, InvalidTxnState};
use crate::error::ErrorCode::{OutOfOrderSequenceNumber, TransactionCoordinatorFenced};
use crate::storage::producers::WINDOW;
use crate::storage::testing::*;
use crate::storage::{Hint, Staged};
use crate::txn::Serial;
use proptest::prelude::*;
use std::collections::BTreeMap;

const PRODUCERS: u8 = 4;

/// One step: which, of which producer, and two choices within it.
type Step = (u8, u8, u8, u8);

#[derive(Clone, Debug, Default)]
struct Known {
    epoch: i16,
    coordinator_epoch: i32,
    /// Where its open transaction begins.
    start: Option<i64>,
    /// First sequence, last sequence, base offset.
    window: Vec<(i32, i32, i64)>,
    ended: u64,
}

#[derive(Clone, Debug)]
struct Over {
    id: i64,
    first: i64,
    marker: i64,
    commit: bool,
}

#[derive(Default)]
struct Model {
    known: BTreeMap<i64, Known>,
    /// Every transaction that ended.
    over: Vec<Over>,
    /// Where each batch begins.
    bases: Vec<i64>,
    end: i64,
    synced: i64,
}

struct Sending {
    id: i64,
    epoch: i16,
    sequence: i32,
    records: i64,
    serial: Option<u64>,
    transactional: bool,
}

impl Model {
    /// What becomes of a batch: its base offset.
    fn send(&mut self, s: &Sending) -> Result<i64, ErrorCode> {
        let known = self.known.get(&s.id);
        let epoch = known.map_or(-1, |k| k.epoch);
        let last = s.sequence + s.records as i32 - 1;
        let window = known.map_or(&[][..], |k| &k.window);
        if s.epoch < epoch {
            return Err(InvalidProducerEpoch);
        }
        let same = window.iter().find(|w| (w.0, w.1) == (s.sequence, last));
        if let Some(same) = same.filter(|_| s.epoch == epoch) {
            return Ok(same.2);
        }
        let open = known.is_some_and(|k| k.start.is_some());
        let ended = known.map_or(0, |k| k.ended);
        if s.transactional && !s.serial.map_or(open, |serial| serial > ended) {
            return Err(InvalidTxnState);
        }
        let next = window.last().filter(|_| s.epoch == epoch);
        if known.is_some() && s.sequence != next.map_or(0, |w| w.1 + 1) {
            return Err(OutOfOrderSequenceNumber);
        }
        if open && !s.transactional {
            return Err(InvalidTxnState);
        }
        let base = self.take(s.records);
        let known = self.known_as(s.id, s.epoch);
        known.window.push((s.sequence, last, base));
        if known.window.len() > WINDOW {
            known.window.remove(0);
        }
        if s.transactional {
            known.start.get_or_insert(base);
        }
        Ok(base)
    }

    fn mark(
        &mut self,
        id: i64,
        epoch: i16,
        coordinator_epoch: i32,
        commit: bool,
        serial: u64,
    ) -> Result<i64, ErrorCode> {
        if let Some(known) = self.known.get(&id) {
            if epoch < known.epoch {
                return Err(InvalidProducerEpoch);
            }
            if known.start.is_none() && coordinator_epoch < known.coordinator_epoch {
                return Err(TransactionCoordinatorFenced);
            }
        }
        let marker = self.take(1);
        let known = self.known_as(id, epoch);
        known.coordinator_epoch = coordinator_epoch;
        known.ended = known.ended.max(serial);
        if let Some(first) = known.start.take() {
            self.over.push(Over {
                id,
                first,
                marker,
                commit,
            });
        }
        Ok(marker)
    }

    fn take(&mut self, records: i64) -> i64 {
        self.bases.push(self.end);
        self.end += records;
        self.end - records
    }

    fn known_as(&mut self, id: i64, epoch: i16) -> &mut Known {
        let known = self.known.entry(id).or_insert_with(|| Known {
            epoch,
            coordinator_epoch: -1,
            ..Known::default()
        });
        if known.epoch != epoch {
            known.epoch = epoch;
            known.window.clear();
        }
        known
    }

    fn last_stable(&self) -> i64 {
        let open = self.known.values().filter_map(|k| k.start);
        let unseen = self.over.iter().filter(|o| o.marker >= self.synced);
        let first = open.chain(unseen.map(|o| o.first)).min();
        first.map_or(self.synced, |first| first.min(self.synced))
    }

    fn aborted(&self, from: i64, to: i64) -> Vec<(i64, i64)> {
        let aborted = self.over.iter().filter(|o| !o.commit);
        aborted
            .filter(|o| o.marker >= from && o.first < to)
            .map(|o| (o.id, o.first))
            .collect()
    }
}

struct Scene {
    rig: Rig,
    log: Option<Log>,
    model: Model,
    /// The number of each producer's transaction.
    serials: [u64; PRODUCERS as usize],
}

impl Scene {
    fn new() -> Scene {
        let rig = Rig::small(500);
        Scene {
            log: Some(rig.create()),
            rig,
            model: Model::default(),
            serials: [1; PRODUCERS as usize],
        }
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().unwrap()
    }

    fn step(&mut self, (what, id, a, b): Step) {
        let id = id % PRODUCERS;
        match what % 16 {
            0..8 => self.send(id, a, b),
            8..12 => self.mark(id, a, b),
            12..15 => {
                self.log().write_staged().unwrap();
                sync(self.log());
                self.log().flush_indexes().unwrap();
                self.model.synced = self.model.end;
            }
            _ => self.restart(a, b),
        }
        self.check(i64::from(a), u32::from(b));
    }

    fn send(&mut self, id: u8, a: u8, b: u8) {
        let known = self.model.known.get(&i64::from(id));
        let (mut epoch, next) = known.map_or((0, 0), |k| {
            (k.epoch, k.window.last().map_or(0, |w| w.1 + 1))
        });
        let mut sequence = next;
        match a % 10 {
            0 => sequence = (next - 1).max(0),
            1 => sequence = next + 1,
            2 => (epoch, sequence) = (epoch + 1, 0),
            3 => epoch = (epoch - 1).max(0),
            _ => {}
        }
        let serial = self.serials[usize::from(id)];
        let sending = Sending {
            id: id.into(),
            epoch,
            sequence,
            records: i64::from(b % 3) + 1,
            transactional: b & 4 == 0,
            serial: match b >> 3 & 7 {
                _ if b & 4 != 0 => None,
                0 => None,
                1 => Some(serial - 1).filter(|serial| *serial > 0),
                _ => Some(serial),
            },
        };
        let make = match sending.transactional {
            true => transactional,
            false => sent,
        };
        let batch = make(sending.id, epoch, sequence, sending.records);
        let expected = self.model.send(&sending);
        self.stage(batch, sending.serial, expected);
    }

    fn mark(&mut self, id: u8, a: u8, b: u8) {
        let serial = &mut self.serials[usize::from(id)];
        let ended = std::mem::replace(serial, *serial + 1);
        let (commit, id) = (a & 1 == 0, i64::from(id));
        let known = self.model.known.get(&id).cloned().unwrap_or_default();
        let epoch = match a >> 1 & 7 {
            0 => (known.epoch - 1).max(0),
            1..4 => known.epoch + 1,
            _ => known.epoch,
        };
        let coordinator_epoch = i32::from(b.is_multiple_of(16));
        let expected = self.model.mark(id, epoch, coordinator_epoch, commit, ended);
        let batch = ending(id, epoch, commit, coordinator_epoch);
        self.stage(batch, Some(ended), expected);
    }

    fn stage(&mut self, batch: Checked, serial: Option<u64>, expected: Result<i64, ErrorCode>) {
        let staged = self.log().stage(batch, serial.map(Serial), 0, 1000);
        let staged = staged
            .map_err(|refused| refused.0)
            .map(|staged| match staged {
                Staged::New { base_offset, .. } | Staged::Duplicate { base_offset, .. } => {
                    base_offset
                }
            });
        assert_eq!(staged, expected);
        // A turn of its own, or with what comes next.
        if self.model.end % 3 == 0 {
            self.log().write_staged().unwrap();
        }
    }

    /// A stop, or a kill that loses nothing which was written.
    fn restart(&mut self, a: u8, b: u8) {
        let mut log = self.log.take().unwrap();
        log.write_staged().unwrap();
        let clean = a & 1 == 0;
        match clean {
            true => {
                sync(&mut log);
                log.close().unwrap();
            }
            false => drop(log),
        }
        if b & 1 == 0 {
            self.rig.remove(".snapshot");
        }
        if b & 2 == 0 {
            self.rig.remove(".txnindex");
        }
        let point = match b & 4 {
            0 => None,
            _ => Some(self.model.synced),
        };
        let start = self.rig.start(clean, point);
        self.log = Some(self.rig.recover_with(&start).0);
        self.model.synced = self.model.end;
        for known in self.model.known.values_mut() {
            known.ended = 0;
        }
    }

    fn check(&mut self, from: i64, bytes: u32) {
        self.log().write_staged().unwrap();
        let view = self.log().view();
        assert_eq!(view.last_stable, self.model.last_stable());
        let open = self.log().open_transactions();
        let known = self.model.known.iter();
        let mut expected: Vec<(i64, i16, i64)> = known
            .filter_map(|(&id, k)| Some((id, k.epoch, k.start?)))
            .collect();
        expected.sort_by_key(|(_, _, first)| *first);
        assert_eq!(open, expected);
        let from = from.min(view.last_stable);
        let shared = self.log().shared();
        let mut hint = Hint::default();
        let slices = view
            .slices(shared, from, view.last_stable, bytes * 8, true, &mut hint)
            .unwrap()
            .files;
        if slices.is_empty() {
            return;
        }
        let listed = view.aborted(shared, from, hint).unwrap();
        let listed: Vec<(i64, i64)> = listed
            .iter()
            .map(|a| (a.producer_id, a.first_offset))
            .collect();
        let mut bytes = Vec::new();
        for slice in slices {
            let at = bytes.len();
            bytes.resize(at + slice.len as usize, 0);
            crate::sys::read_at(&slice.file, &mut bytes[at..], slice.position).unwrap();
        }
        let to = headers(&bytes).last().unwrap().last_offset() + 1;
        assert_eq!(listed, self.model.aborted(from, to), "{from}..{to}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn transactions_are_as_a_plain_model_says(
        steps in proptest::collection::vec(any::<Step>(), 1..120),
    ) {
        let mut scene = Scene::new();
        steps.into_iter().for_each(|step| scene.step(step));
    }
}
