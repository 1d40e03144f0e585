//! What a producer asks of the broker: as long as there is no answer, the same again, word for word.

use super::producer::{Event, Me, Producer};
use crate::common::producer::Client;
use crate::driver::Place;
use ottla::api::add_offsets_to_txn::*;
use ottla::api::add_partitions_to_txn::*;
use ottla::api::end_txn::*;
use ottla::api::init_producer_id::*;
use ottla::api::produce::*;
use ottla::api::txn_offset_commit::*;
use ottla::error::ErrorCode;
use ottla::wire::{Message, Records};
use rand::Rng;
use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

/// The group whose offsets are committed with the transactions, and the topic that it reads: a partition for each id.
pub const GROUP: &str = "readers";
pub const SOURCE: &str = "source";

const PATIENCE: Duration = Duration::from_secs(120);
/// `transaction.timeout.ms` of those who dawdle, and of the others.
const BRIEF_MS: i32 = 700;
const LONG_MS: i32 = 300_000;

const PASSING: [ErrorCode; 5] = [
    ErrorCode::CoordinatorNotAvailable,
    ErrorCode::NotCoordinator,
    ErrorCode::CoordinatorLoadInProgress,
    ErrorCode::NotEnoughReplicas,
    ErrorCode::ConcurrentTransactions,
];
/// What is told to one whose transaction was ended for it.
pub const ENDED: [ErrorCode; 2] = [ErrorCode::InvalidTxnState, ErrorCode::TransactionAbortable];
pub const FENCED: [ErrorCode; 3] = [
    ErrorCode::ProducerFenced,
    ErrorCode::InvalidProducerEpoch,
    ErrorCode::InvalidProducerIdMapping,
];

#[derive(Clone, Copy)]
pub enum Way {
    Hasty,
    Patient,
}

/// The last answer, its error's code, and whether an earlier one was lost that may have said something else.
type Answered<A> = (A, ErrorCode, bool);

impl Producer<'_> {
    pub(super) fn on<T>(
        &mut self,
        way: Way,
        talk: impl FnOnce(&mut Client) -> io::Result<T>,
    ) -> io::Result<T> {
        let (proxy, client) = match way {
            Way::Hasty => (&self.world.hasty, &mut self.clients[0]),
            Way::Patient => (&self.world.patient, &mut self.clients[1]),
        };
        if client.is_none() {
            *client = Some(Client::connect(&proxy.address)?);
        }
        let done = talk(client.as_mut().expect("it is connected"));
        if done.is_err() {
            *client = None;
        }
        done
    }

    /// Asks until there is an answer that is not a passing refusal.
    pub(super) fn ask<Q: Message, A: Message>(
        &mut self,
        way: Way,
        version: i16,
        request: &Q,
        code: impl Fn(&A) -> ErrorCode,
    ) -> Answered<A> {
        let deadline = Instant::now() + PATIENCE;
        let mut in_doubt = false;
        loop {
            assert!(
                Instant::now() < deadline,
                "{}: no answer to {request:?}",
                self.number
            );
            let moment = self.world.tick();
            let Ok(answer) = self.on(way, |client| client.call(version, request)) else {
                self.count("lost answers");
                in_doubt = true;
                self.nap(1..30);
                continue;
            };
            let code = code(&answer);
            if PASSING.contains(&code) {
                self.count(code.name());
                in_doubt |= code != ErrorCode::ConcurrentTransactions;
                self.nap(5..50);
                continue;
            }
            if code == ErrorCode::None {
                self.note(moment, self.me, false);
            }
            return (answer, code, in_doubt);
        }
    }

    pub(super) fn note(&mut self, moment: u64, me: Option<Me>, is_new: bool) {
        let event = |me| Event { moment, me, is_new };
        self.events.extend(me.map(event));
    }

    /// Begins, or goes on after an error from the id and epoch that it has.
    pub(super) fn init(&mut self, expected: Option<Me>) -> Result<(), ErrorCode> {
        let (producer_id, producer_epoch) = expected.unwrap_or((-1, -1));
        let request = InitProducerIdRequest {
            transactional_id: Some(self.id()),
            transaction_timeout_ms: if self.kind.dawdles { BRIEF_MS } else { LONG_MS },
            producer_id,
            producer_epoch,
        };
        let version = if self.kind.newer { 5 } else { 4 };
        let code = |answer: &InitProducerIdResponse| code_of(answer.error_code);
        let deaths = self.world.patient.deaths();
        let (answer, code, in_doubt) = self.ask(Way::Patient, version, &request, code);
        let is_forgotten = in_doubt && self.world.patient.deaths() > deaths;
        if code == ErrorCode::ProducerFenced && expected.is_some() && is_forgotten {
            self.count("epochs that a start forgot");
            self.me = None;
            return Ok(());
        }
        succeed(code)?;
        self.begin((answer.producer_id, answer.producer_epoch));
        self.note(self.world.tick(), self.me, true);
        self.count(if expected.is_some() {
            "epochs asked for"
        } else {
            "beginnings"
        });
        Ok(())
    }

    /// Adds the partitions, as older clients must.
    pub(super) fn add(&mut self, requests: &[Vec<usize>]) -> Result<(), ErrorCode> {
        let batches = &self.transactions.last().expect("it has begun").batches;
        let places = requests
            .iter()
            .flatten()
            .map(|number| batches[*number].place);
        let new: BTreeSet<Place> = places.filter(|place| !self.added.contains(place)).collect();
        if self.kind.newer || new.is_empty() {
            return Ok(());
        }
        let topic = |&(name, index): &Place| AddPartitionsToTxnTopic {
            name: name.into(),
            partitions: vec![index],
        };
        let (id, epoch) = self.me();
        let request = AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: self.id(),
            v3_and_below_producer_id: id,
            v3_and_below_producer_epoch: epoch,
            v3_and_below_topics: new.iter().map(topic).collect(),
            ..AddPartitionsToTxnRequest::default()
        };
        let code = |answer: &AddPartitionsToTxnResponse| {
            let topics = answer.results_by_topic_v3_and_below.iter();
            worst(
                topics
                    .flat_map(|topic| &topic.results_by_partition)
                    .map(|p| p.partition_error_code),
            )
        };
        let (_, code, _) = self.ask(self.way(), 3, &request, code);
        succeed(code)?;
        self.is_open = true;
        self.added.extend(new);
        Ok(())
    }

    pub(super) fn produce(&mut self, parts: &[usize]) -> Result<(), ErrorCode> {
        let (version, request) = self.request(parts);
        let (_, code, _) = self.ask(self.way(), version, &request, produced);
        succeed(code)
    }

    /// Sends requests without waiting; gives how many of the first ones were answered well.
    pub(super) fn pipeline(&mut self, requests: &[Vec<usize>]) -> Result<usize, ErrorCode> {
        let requests: Vec<_> = requests.iter().map(|parts| self.request(parts)).collect();
        let moment = self.world.tick();
        let mut codes = Vec::new();
        let _ = self.on(self.way(), |client| {
            for (version, request) in &requests {
                client.send(*version, request)?;
            }
            for (version, _) in &requests {
                codes.push(produced(&client.receive(*version)?));
            }
            Ok(())
        });
        let done = codes
            .iter()
            .take_while(|code| **code == ErrorCode::None)
            .count();
        if done > 0 {
            self.note(moment, self.me, false);
        }
        match codes.get(done) {
            Some(code) if !PASSING.contains(code) => Err(*code),
            _ => Ok(done),
        }
    }

    pub(super) fn request(&mut self, parts: &[usize]) -> (i16, ProduceRequest) {
        let batches = &self.transactions.last().expect("it has begun").batches;
        let parts = parts
            .iter()
            .map(|number| (batches[*number].place, batches[*number].bytes.clone()));
        let parts: Vec<_> = parts.collect();
        self.request_of(parts)
    }

    pub(super) fn request_of(&mut self, parts: Vec<(Place, Vec<u8>)>) -> (i16, ProduceRequest) {
        let version = match self.kind.newer {
            true => self.rng.random_range(12..=13),
            false => 11,
        };
        let topic = |((name, index), bytes): (Place, Vec<u8>)| TopicProduceData {
            name: name.into(),
            topic_id: self.world.topics[name],
            partition_data: vec![PartitionProduceData {
                index,
                records: Records::Held(bytes.into()),
            }],
        };
        let request = ProduceRequest {
            transactional_id: Some(self.id()),
            acks: -1,
            timeout_ms: 30_000,
            topic_data: parts.into_iter().map(topic).collect(),
        };
        (version, request)
    }

    /// Commits the moment at which the transaction began as the group's offset.
    pub(super) fn commit_offset(&mut self) -> Result<(), ErrorCode> {
        let (id, epoch) = self.me();
        if !self.kind.newer {
            let request = AddOffsetsToTxnRequest {
                transactional_id: self.id(),
                producer_id: id,
                producer_epoch: epoch,
                group_id: GROUP.into(),
            };
            let code = |answer: &AddOffsetsToTxnResponse| code_of(answer.error_code);
            let (_, code, _) = self.ask(self.way(), 3, &request, code);
            succeed(code)?;
            self.is_open = true;
        }
        let transaction = self.transactions.last_mut().expect("it has begun");
        transaction.has_offset = true;
        let request = TxnOffsetCommitRequest {
            transactional_id: transactional_id(self.kind.id),
            group_id: GROUP.into(),
            producer_id: id,
            producer_epoch: epoch,
            topics: vec![TxnOffsetCommitRequestTopic {
                name: SOURCE.into(),
                partitions: vec![TxnOffsetCommitRequestPartition {
                    partition_index: self.kind.id as i32,
                    committed_offset: transaction.begun as i64,
                    ..TxnOffsetCommitRequestPartition::default()
                }],
            }],
            ..TxnOffsetCommitRequest::default()
        };
        let version = if self.kind.newer { 5 } else { 3 };
        let code =
            |answer: &TxnOffsetCommitResponse| code_of(answer.topics[0].partitions[0].error_code);
        let (_, code, _) = self.ask(self.way(), version, &request, code);
        succeed(code)
    }

    pub(super) fn end_request(&self, committed: bool) -> (i16, EndTxnRequest) {
        let (producer_id, producer_epoch) = self.me();
        let request = EndTxnRequest {
            transactional_id: self.id(),
            producer_id,
            producer_epoch,
            committed,
        };
        (if self.kind.newer { 5 } else { 3 }, request)
    }

    pub(super) fn way(&self) -> Way {
        match self.kind.newer {
            true => Way::Hasty,
            false => Way::Patient,
        }
    }

    pub(super) fn id(&self) -> String {
        transactional_id(self.kind.id)
    }
}

/// The error of a code, if it is one of those that may be true.
pub fn code_of(code: i16) -> ErrorCode {
    let others = [ErrorCode::None, ErrorCode::OutOfOrderSequenceNumber];
    let mut known = PASSING.iter().chain(&FENCED).chain(&ENDED).chain(&others);
    let found = known.find(|known| known.code() == code);
    *found.unwrap_or_else(|| panic!("error {code} is not true, whatever happened"))
}

/// A transactional id by its number.
pub fn transactional_id(number: usize) -> String {
    format!("fire-{number}")
}

pub fn succeed(code: ErrorCode) -> Result<(), ErrorCode> {
    match code {
        ErrorCode::None => Ok(()),
        code => Err(code),
    }
}

/// Of several codes one that does not pass, if there is one.
fn worst(codes: impl Iterator<Item = i16>) -> ErrorCode {
    let codes: Vec<ErrorCode> = codes
        .map(code_of)
        .filter(|c| *c != ErrorCode::None)
        .collect();
    let lasting = codes.iter().find(|code| !PASSING.contains(code));
    *lasting.or(codes.first()).unwrap_or(&ErrorCode::None)
}

pub fn produced(answer: &ProduceResponse) -> ErrorCode {
    let parts = answer
        .responses
        .iter()
        .flat_map(|topic| &topic.partition_responses);
    worst(parts.map(|part| part.error_code))
}
