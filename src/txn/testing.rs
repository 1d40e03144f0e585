//! Transactions on a disk and clocks that a test is in charge of.

use super::{Effect, Env, LogOpen, Mark, Request, Response, Transaction, Transactions, records};
use crate::config::Config;
use crate::error::ErrorCode;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

/// What is on its way to the disk.
pub enum Way {
    Record(u64, Arc<str>, Option<Box<Transaction>>),
    Mark(u64, Mark),
}

/// Transactions, a disk, and clocks.
pub struct Scene {
    pub transactions: Transactions<u32>,
    pub config: Config,
    pub now_ms: i64,
    pub time_ms: i64,
    pub under_way: VecDeque<Way>,
    /// The log, compacted.
    pub log: BTreeMap<Vec<u8>, Vec<u8>>,
    pub marks: Vec<Mark>,
    pub answers: BTreeMap<u32, Response>,
    pub next_waiter: u32,
    /// The next producer id; none if the catalog cannot give any.
    pub ids: Option<i64>,
}

impl Scene {
    pub fn new() -> Scene {
        let mut scene = Scene {
            transactions: Transactions::default(),
            config: Config::default(),
            now_ms: 1_000,
            time_ms: 1_800_000_000_000,
            under_way: VecDeque::new(),
            log: BTreeMap::new(),
            marks: Vec::new(),
            answers: BTreeMap::new(),
            next_waiter: 0,
            ids: Some(100),
        };
        scene.with(|transactions, env| transactions.loaded(Vec::new(), &HashMap::new(), env));
        scene
    }

    pub fn with(&mut self, act: impl FnOnce(&mut Transactions<u32>, &Env<'_>)) {
        let env = Env {
            now_ms: self.now_ms,
            time_ms: self.time_ms,
            config: &self.config,
        };
        act(&mut self.transactions, &env);
        while self.transactions.is_starved() {
            let id = self.ids.ok_or(ErrorCode::CoordinatorNotAvailable);
            self.ids = self.ids.map(|id| id + 1);
            self.transactions.supply(id, &env);
        }
        for effect in self.transactions.take_effects() {
            match effect {
                Effect::Append {
                    token,
                    id,
                    transaction,
                } => self
                    .under_way
                    .push_back(Way::Record(token, id, transaction)),
                Effect::Mark(token, mark) => self.under_way.push_back(Way::Mark(token, mark)),
                Effect::Answer(waiter, response) => {
                    let twice = self.answers.insert(waiter, response);
                    assert_eq!(twice, None, "answered twice");
                }
            }
        }
    }

    pub fn ask(&mut self, request: Request) -> u32 {
        self.next_waiter += 1;
        let waiter = self.next_waiter;
        self.with(|transactions, env| transactions.ask(request, waiter, env));
        waiter
    }

    /// It reaches the disk.
    pub fn write(&mut self, way: &Way) {
        match way {
            Way::Record(_, id, transaction) => {
                let (key, value) = records::encode(id, transaction.as_deref());
                match value {
                    Some(value) => drop(self.log.insert(key, value)),
                    None => drop(self.log.remove(&key)),
                }
            }
            Way::Mark(_, mark) => self.marks.push(mark.clone()),
        }
    }

    /// What is at a place of the queue is synced, or refused.
    pub fn settle_at(&mut self, place: usize, result: Result<(), ErrorCode>) {
        let way = self
            .under_way
            .remove(place)
            .expect("something is under way");
        if result.is_ok() {
            self.write(&way);
        }
        let (Way::Record(token, ..) | Way::Mark(token, _)) = way;
        self.with(|transactions, env| transactions.committed(token, result, env));
    }

    pub fn settle(&mut self) {
        while !self.under_way.is_empty() {
            self.settle_at(0, Ok(()));
        }
    }

    pub fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
        self.time_ms += ms;
        self.with(|transactions, env| transactions.tick(env));
    }

    /// The process dies with what is under way, and another one begins.
    pub fn restart(&mut self, log_open: Vec<LogOpen>) {
        self.restart_with(log_open, &HashMap::new());
    }

    /// Likewise, where logs have seen these epochs.
    pub fn restart_with(&mut self, log_open: Vec<LogOpen>, log_epochs: &HashMap<i64, i16>) {
        self.under_way.clear();
        self.transactions = Transactions::default();
        for (key, value) in &self.log {
            let (id, transaction) = records::decode(key, Some(value)).unwrap().unwrap();
            self.transactions.replay(id, transaction);
        }
        self.now_ms = 50;
        self.with(|transactions, env| transactions.loaded(log_open, log_epochs, env));
    }
}
