//! A transactional producer of either flow, as Kafka's Java client goes: KIP-890's second part (Produce v12 and v13 add
//! their partitions by themselves, each end raises the epoch), or what was before it (partitions and offsets are added
//! first, sequences go on over transactions, InitProducerId raises the epoch after an error: KIP-360).
//!
//! What has no answer is asked again, word for word. Errors that are true:
//! - COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR, COORDINATOR_LOAD_IN_PROGRESS, NOT_ENOUGH_REPLICAS: a broker that
//!   stops.
//! - CONCURRENT_TRANSACTIONS: the end before is under way for longer than the broker waits.
//! - OUT_OF_ORDER_SEQUENCE_NUMBER: it left a sequence out, on purpose. TRANSACTION_ABORTABLE: it left
//!   AddPartitionsToTxn out, on purpose.
//! - PRODUCER_FENCED for an older client's InitProducerId after an error, if its answer was lost and the broker died:
//!   Kafka's schema does not keep the epoch that the client asked to go on from.
//! - Of a producer that has a rival or dawdles: what says that it is fenced, and INVALID_TXN_STATE or
//!   TRANSACTION_ABORTABLE for what comes after its transaction was ended for it.

use super::requests::{ENDED, FENCED, code_of, produced, succeed};
use crate::common::producer::Client;
use crate::driver::Place;
use crate::proxy::Proxy;
use ottla::api::end_txn::*;
use ottla::api::produce::ProduceResponse;
use ottla::batch::TRANSACTIONAL;
use ottla::batch::builder::Builder;
use ottla::error::ErrorCode;
use ottla::wire::Uuid;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

const TIME_MS: i64 = 1_700_000_000_000;
/// Producer id and epoch.
pub type Me = (i64, i16);

/// What all producers share.
pub struct World {
    /// Cuts connections whatever is still on its way in the broker.
    pub hasty: Arc<Proxy>,
    /// Lets the broker end what it was asked before the client knows that the connection is cut. Older clients need it:
    /// nothing tells their late requests from those of the next transaction. So does InitProducerId.
    pub patient: Arc<Proxy>,
    pub places: Vec<Place>,
    pub topics: HashMap<&'static str, Uuid>,
    pub stop: AtomicBool,
    pub(super) ticks: AtomicU64,
}

impl World {
    pub fn new(
        hasty: Arc<Proxy>,
        patient: Arc<Proxy>,
        places: Vec<Place>,
        topics: HashMap<&'static str, Uuid>,
    ) -> World {
        World {
            hasty,
            patient,
            places,
            topics,
            stop: AtomicBool::new(false),
            ticks: AtomicU64::new(1),
        }
    }

    /// A moment, of which no two are the same.
    pub(super) fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::SeqCst)
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

/// What a producer is.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// The number of its transactional id.
    pub id: usize,
    /// Whether it knows KIP-890's second part.
    pub newer: bool,
    /// Whether another one has the same id.
    pub has_rival: bool,
    /// Whether its transactions time out.
    pub dawdles: bool,
}

/// What became of a transaction, as far as its producer knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Committed,
    Aborted,
    /// The end was asked for, and the answer was never heard.
    Either,
}

pub struct Sent {
    pub place: Place,
    pub me: Me,
    pub sequence: i32,
    pub bytes: Vec<u8>,
}

pub struct Transaction {
    /// The moment it began; also the offset that it commits.
    pub begun: u64,
    pub batches: Vec<Sent>,
    pub has_offset: bool,
    pub outcome: Outcome,
}

/// Something that the broker said: at what moment it was asked or, of a new epoch, heard.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub moment: u64,
    pub me: Me,
    /// Whether the producer was told that these are its id and epoch, or that it did something by them.
    pub is_new: bool,
}

/// One producer, over all its connections.
pub struct Producer<'a> {
    pub number: usize,
    pub kind: Kind,
    pub transactions: Vec<Transaction>,
    pub events: Vec<Event>,
    /// How often what happened.
    pub counts: HashMap<&'static str, usize>,
    pub(super) world: &'a World,
    /// None: it is to begin anew.
    pub(super) me: Option<Me>,
    pub(super) next: HashMap<Place, i32>,
    /// What the open transaction was told to hold; older flow.
    pub(super) added: BTreeSet<Place>,
    pub(super) is_open: bool,
    /// The error that it provoked.
    provoked: Option<ErrorCode>,
    pub(super) clients: [Option<Client>; 2],
    pub(super) rng: StdRng,
}

impl<'a> Producer<'a> {
    pub fn new(number: usize, kind: Kind, seed: u64, world: &'a World) -> Producer<'a> {
        Producer {
            number,
            kind,
            transactions: Vec::new(),
            events: Vec::new(),
            counts: HashMap::new(),
            world,
            me: None,
            next: HashMap::new(),
            added: BTreeSet::new(),
            is_open: false,
            provoked: None,
            clients: [None, None],
            rng: StdRng::seed_from_u64(seed ^ ((number as u64 + 1) << 32)),
        }
    }

    /// Makes transactions until told to stop; leaves none open.
    pub fn run(&mut self) {
        while !self.world.is_over() {
            let done = match self.me {
                None => self.init(None),
                Some(_) => self.transact(),
            };
            if let Err(code) = done {
                self.recover(code);
            }
        }
        if self.me.is_none() {
            let done = self.init(None);
            assert_eq!(done, Ok(()), "producer {}", self.number);
        }
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub(super) fn nap(&mut self, ms: std::ops::Range<u64>) {
        thread::sleep(Duration::from_millis(self.rng.random_range(ms)));
    }

    pub(super) fn me(&self) -> Me {
        self.me.expect("it has begun")
    }

    pub(super) fn begin(&mut self, me: Me) {
        if self.me.is_some_and(|before| before.0 != me.0) {
            self.count("epochs exhausted");
        }
        self.me = Some(me);
        self.next.clear();
    }

    /// One transaction, of records, offsets or both, to whatever end.
    fn transact(&mut self) -> Result<(), ErrorCode> {
        (self.is_open, self.provoked) = (false, None);
        self.added.clear();
        self.transactions.push(Transaction {
            begun: self.world.tick(),
            batches: Vec::new(),
            has_offset: false,
            outcome: Outcome::Aborted,
        });
        let rounds = self.rng.random_range(0..4);
        for _ in 0..rounds {
            let requests = self.plan();
            self.add(&requests)?;
            self.write(&requests)?;
        }
        if rounds == 0 || self.rng.random() {
            self.commit_offset()?;
        }
        match self.rng.random_range(0..40) {
            0 => return self.leave_a_sequence_out(),
            1 if !self.kind.newer => return self.leave_the_adding_out(),
            2 => {
                self.count("crashes");
                self.me = None;
                return Ok(());
            }
            3..10 if self.kind.dawdles => self.nap(200..3000),
            _ => {}
        }
        match self.rng.random_range(0..10) {
            0..7 => self.end(true),
            7..9 => self.end(false),
            _ => self.end_in_a_hurry(),
        }
    }

    /// Makes the batches of some requests, each with at most one for a partition; gives their numbers.
    fn plan(&mut self) -> Vec<Vec<usize>> {
        let mut requests = Vec::new();
        for _ in 0..self.rng.random_range(1..=4) {
            let count = self.rng.random_range(1..=3);
            let places = &self.world.places;
            let places: Vec<Place> = places
                .choose_multiple(&mut self.rng, count)
                .copied()
                .collect();
            requests.push(places.into_iter().map(|place| self.make(place)).collect());
        }
        requests
    }

    fn make(&mut self, place: Place) -> usize {
        let (me, sequence) = (self.me(), self.next.get(&place).copied().unwrap_or(0));
        let records = self.rng.random_range(1..=3);
        let bytes = self.batch(sequence, records);
        self.next.insert(place, sequence + records);
        let batches = &mut self.transactions.last_mut().expect("it has begun").batches;
        batches.push(Sent {
            place,
            me,
            sequence,
            bytes,
        });
        batches.len() - 1
    }

    fn batch(&mut self, sequence: i32, records: i32) -> Vec<u8> {
        let (id, epoch) = self.me();
        let mut builder = Builder::new(TIME_MS).producer(id, epoch, sequence);
        builder = builder.attributes(TRANSACTIONAL);
        for _ in 0..records {
            let value = vec![self.rng.random(); self.rng.random_range(0..600)];
            builder.add(None, Some(&value), &[], TIME_MS);
        }
        builder.build()
    }

    /// The first request alone, the others at once; what has no answer then, one by one.
    fn write(&mut self, requests: &[Vec<usize>]) -> Result<(), ErrorCode> {
        let (first, others) = requests.split_first().expect("there are some");
        self.produce(first)?;
        let done = self.pipeline(others)?;
        others[done..]
            .iter()
            .try_for_each(|parts| self.produce(parts))
    }

    /// As after a batch that was given up: the next one is refused, and the transaction is to be aborted.
    fn leave_a_sequence_out(&mut self) -> Result<(), ErrorCode> {
        let batches = &self.transactions.last().expect("it has begun").batches;
        let Some(place) = batches.last().map(|sent| sent.place) else {
            return self.end(false);
        };
        let bytes = self.batch(self.next[&place] + 1, 1);
        self.provoke(place, bytes, ErrorCode::OutOfOrderSequenceNumber)
    }

    fn leave_the_adding_out(&mut self) -> Result<(), ErrorCode> {
        let places = self.world.places.iter();
        let Some(&place) = places
            .copied()
            .find(|place| !self.added.contains(place))
            .as_ref()
        else {
            return self.end(true);
        };
        let bytes = self.batch(self.next.get(&place).copied().unwrap_or(0), 1);
        self.provoke(place, bytes, ErrorCode::TransactionAbortable)
    }

    fn provoke(&mut self, place: Place, bytes: Vec<u8>, code: ErrorCode) -> Result<(), ErrorCode> {
        self.provoked = Some(code);
        let (version, request) = self.request_of(vec![(place, bytes)]);
        let (_, code, _) = self.ask(self.way(), version, &request, produced);
        assert_ne!(code, ErrorCode::None, "{:?} may not do this", self.kind);
        self.count("provoked errors");
        Err(code)
    }

    fn end(&mut self, commit: bool) -> Result<(), ErrorCode> {
        if !self.kind.newer && !self.is_open {
            return Ok(());
        }
        let (version, request) = self.end_request(commit);
        let code = |answer: &EndTxnResponse| code_of(answer.error_code);
        let (answer, code, in_doubt) = self.ask(self.way(), version, &request, code);
        let outcome = match code {
            ErrorCode::None => Outcome::Committed,
            _ if in_doubt => Outcome::Either,
            _ => Outcome::Aborted,
        };
        if commit {
            self.transactions.last_mut().expect("it has begun").outcome = outcome;
        }
        succeed(code)?;
        self.count(if commit { "commits" } else { "aborts" });
        if in_doubt {
            self.count("ends told again");
        }
        self.ended(answer);
        Ok(())
    }

    /// Takes the epoch that the answer to an end says.
    fn ended(&mut self, answer: EndTxnResponse) {
        if !self.kind.newer {
            return;
        }
        let (me, new) = (self.me(), (answer.producer_id, answer.producer_epoch));
        let is_next = match me.1 < i16::MAX - 1 {
            true => new == (me.0, me.1 + 1),
            false => new.0 != me.0 && new.1 == 0,
        };
        assert!(is_next, "{me:?} becomes {new:?}");
        self.begin(new);
    }

    /// Aborts without waiting for the answers to what it has sent.
    fn end_in_a_hurry(&mut self) -> Result<(), ErrorCode> {
        let parts = self.plan();
        self.add(&parts)?;
        let requests: Vec<_> = parts.iter().map(|parts| self.request(parts)).collect();
        let (version, end) = self.end_request(false);
        let answer = self.on(self.way(), |client| {
            for (version, request) in &requests {
                client.send(*version, request)?;
            }
            client.send(version, &end)?;
            for (version, _) in &requests {
                client.receive::<ProduceResponse>(*version)?;
            }
            client.receive::<EndTxnResponse>(version)
        });
        match answer {
            Ok(answer) if answer.error_code == 0 => self.ended(answer),
            _ => self.end(false)?,
        }
        self.count("aborts in a hurry");
        match self.kind.newer {
            true => Ok(()),
            false => self.init(self.me),
        }
    }

    fn recover(&mut self, code: ErrorCode) {
        let may_be_fenced = self.kind.has_rival || self.kind.dawdles;
        let who = format!("producer {} {:?} at {:?}", self.number, self.kind, self.me);
        if FENCED.contains(&code) {
            assert!(may_be_fenced, "{who}: {code:?}, but nobody fences it");
            return self.go_on_in_vain();
        }
        let is_true = Some(code) == self.provoked || may_be_fenced && ENDED.contains(&code);
        assert!(is_true, "{who}: {code:?} is not true");
        let aborted = self.end(false).and_then(|()| match self.kind.newer {
            true => Ok(()),
            false => self.init(self.me),
        });
        if let Err(code) = aborted {
            let is_true = may_be_fenced && FENCED.contains(&code);
            assert!(is_true, "{who}: {code:?} for the abort is not true");
            self.go_on_in_vain();
        }
    }

    /// It is fenced, and goes on all the same for a while; then it begins anew.
    fn go_on_in_vain(&mut self) {
        self.count("times fenced");
        let who = format!("{:?} {:?}", self.kind, self.me);
        for _ in 0..self.rng.random_range(0..4) {
            let place = *self.world.places.choose(&mut self.rng).expect("a place");
            let sequence = self.next.get(&place).copied().unwrap_or(0);
            let bytes = self.batch(sequence, 1);
            let (version, request) = self.request_of(vec![(place, bytes)]);
            let (_, code, _) = self.ask(self.way(), version, &request, produced);
            assert_ne!(code, ErrorCode::None, "{who}: fenced, and it writes");
            let (version, request) = self.end_request(true);
            let code = |answer: &EndTxnResponse| code_of(answer.error_code);
            let (_, code, _) = self.ask(self.way(), version, &request, code);
            assert_ne!(code, ErrorCode::None, "{who}: fenced, and it commits");
            let before = self.transactions.last().map(|last| last.has_offset);
            assert!(self.commit_offset().is_err(), "{who}: fenced, and offsets");
            self.transactions.last_mut().expect("one").has_offset = before == Some(true);
            self.nap(10..300);
        }
        self.me = None;
        if self.kind.has_rival && !self.world.is_over() {
            self.nap(100..1500);
        }
    }
}
