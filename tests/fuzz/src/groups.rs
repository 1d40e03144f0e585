//! The coordinators of groups and transactions, asked anything in any order, their records written, late or refused:
//! each request is answered once at most, and after a restart the records make the same state machines again.
//!
//! Input: `u8 what, bits 6 and 7: records stay unwritten, are refused | u8 version | piece: the request's message`,
//! again and again.

use super::{Bound, Taken, memory, mutate};
use ottla::api;
use ottla::catalog::State;
use ottla::config::Config;
use ottla::error::ErrorCode;
use ottla::group::consumer::compile;
use ottla::group::{self, Ask, Asker, Groups, Read};
use ottla::txn::{self, Transactions};
use ottla::wire::metadata_records::{MetadataRecord, PartitionRecord, TopicRecord};
use ottla::wire::{Message, Reader, Uuid, Writer};
use std::cell::Cell;
use std::collections::HashMap;
use std::collections::{HashSet, VecDeque};
use std::sync::OnceLock;

/// What is kept of a request, and what a pattern takes while it is compiled: some 4 MiB.
pub const BOUND: Bound = Bound {
    times: 40,
    bytes: 8 << 20,
};

const PENDING: u8 = 1 << 6;
const REFUSED: u8 = 1 << 7;

/// The topics that there are: `a` to `c`, with a partition each more than the one before.
fn catalog() -> State {
    let mut state = State::default();
    for (number, name) in (1u8..).zip(["a", "b", "c"]) {
        let topic_id = Uuid([number; 16]);
        let name = name.into();
        state.apply(&MetadataRecord::Topic(TopicRecord { name, topic_id }));
        for partition_id in 0..i32::from(number) {
            state.apply(&MetadataRecord::Partition(PartitionRecord {
                partition_id,
                topic_id,
                ..PartitionRecord::default()
            }));
        }
    }
    state
}

fn config() -> &'static Config {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    CONFIG.get_or_init(Config::default)
}

struct World {
    groups: Groups<u64>,
    transactions: Transactions<u64>,
    catalog: State,
    now_ms: i64,
    asked: u64,
    answered: HashSet<u64>,
    records: Vec<group::records::Record>,
    /// Appends that are neither written nor refused yet.
    groups_pending: VecDeque<(u64, Vec<group::records::Record>)>,
    transactions_pending: VecDeque<u64>,
    ids: Cell<u128>,
}

fn message<M: Message>(version: u8, bytes: &[u8]) -> Option<M> {
    let versions = M::VERSIONS;
    let version = versions.start() + i16::from(version) % (versions.end() - versions.start() + 1);
    M::read(&mut Reader::new(bytes), version).ok()
}

fn member(what: u8, version: u8, bytes: &[u8]) -> Option<Ask> {
    Some(match what {
        0 => Ask::Join(message(version, bytes)?),
        1 => Ask::Sync(message(version, bytes)?),
        2 => Ask::Heartbeat(message(version, bytes)?),
        3 => Ask::Leave(message(version, bytes)?),
        _ => Ask::ConsumerHeartbeat(message(version, bytes)?, Default::default()),
    })
}

fn of_groups(what: u8, version: u8, bytes: &[u8]) -> Option<group::Request> {
    use group::Request as R;
    Some(match what {
        0..=4 => R::Member(Box::new(member(what, version, bytes)?)),
        5 => R::Commit(message(version, bytes)?, None),
        6 => R::DeleteOffsets(message(version, bytes)?),
        7 => R::Delete(String::from_utf8_lossy(bytes).into_owned()),
        8 => R::Read(Read::Offsets(message(version, bytes)?, i16::from(version))),
        9 => R::Read(Read::List(message(version, bytes)?)),
        10 => R::Read(Read::Describe(message(version, bytes)?, i16::from(version))),
        11 => R::Read(Read::DescribeConsumer(message(version, bytes)?)),
        _ => return None,
    })
}

fn of_transactions(what: u8, version: u8, bytes: &[u8]) -> Option<txn::Request> {
    use txn::Request as R;
    let producer = |transactional_id, id, epoch| txn::Producer {
        transactional_id,
        id,
        epoch,
    };
    let bumps = version & 1 != 0;
    Some(match what {
        12 => {
            let init: api::init_producer_id::InitProducerIdRequest = message(version, bytes)?;
            R::Init {
                transactional_id: init.transactional_id?,
                timeout_ms: init.transaction_timeout_ms,
                expected: (init.producer_id >= 0)
                    .then_some((init.producer_id, init.producer_epoch)),
            }
        }
        13 | 14 => {
            let add: api::add_offsets_to_txn::AddOffsetsToTxnRequest = message(version, bytes)?;
            let producer = producer(add.transactional_id, add.producer_id, add.producer_epoch);
            let partitions = vec![("a".into(), 0), (add.group_id.into(), i32::from(version))];
            match what {
                13 => R::Enlist {
                    producer,
                    partitions,
                    bumps,
                },
                _ => R::Verify {
                    producer,
                    partitions,
                },
            }
        }
        15 => {
            let end: api::end_txn::EndTxnRequest = message(version, bytes)?;
            R::End {
                producer: producer(end.transactional_id, end.producer_id, end.producer_epoch),
                commit: end.committed,
                bumps,
            }
        }
        16 => {
            let mut rest = bytes;
            R::Mark {
                producer_id: mutate::i64(&mut rest)?,
                epoch: mutate::i16(&mut rest)?,
                commit: bumps,
                coordinator_epoch: i32::from(version),
                partitions: vec![("a".into(), 0), ("b".into(), 1)],
            }
        }
        17 => R::Describe(vec![String::from_utf8_lossy(bytes).into_owned()]),
        18 => R::List(message(version, bytes)?),
        _ => return None,
    })
}

impl World {
    fn new() -> World {
        World {
            groups: Groups::default(),
            transactions: Transactions::default(),
            catalog: catalog(),
            now_ms: 1_000,
            asked: 0,
            answered: HashSet::new(),
            records: Vec::new(),
            groups_pending: VecDeque::new(),
            transactions_pending: VecDeque::new(),
            ids: Cell::new(0),
        }
    }

    fn answer(&mut self, waiter: u64) {
        assert!(self.answered.insert(waiter), "answered twice");
    }

    fn ask_groups(&mut self, request: group::Request, version: u8) {
        self.asked += 1;
        let asker = Asker {
            version: i16::from(version),
            client_id: "c".into(),
            client_host: "/h".into(),
            waiter: self.asked,
        };
        self.with_env(|groups, env| groups.ask(request, asker, env));
    }

    fn with_env(&mut self, act: impl FnOnce(&mut Groups<u64>, &group::Env<'_>)) {
        let ids = &self.ids;
        let new_id = || {
            ids.set(ids.get() + 1);
            Uuid(ids.get().to_be_bytes())
        };
        let env = group::Env {
            now_ms: self.now_ms,
            time_ms: self.now_ms,
            config: config(),
            catalog: &self.catalog,
            new_id: &new_id,
        };
        act(&mut self.groups, &env);
    }

    fn with_transactions(&mut self, act: impl FnOnce(&mut Transactions<u64>, &txn::Env<'_>)) {
        let env = txn::Env {
            now_ms: self.now_ms,
            time_ms: self.now_ms,
            config: config(),
        };
        act(&mut self.transactions, &env);
    }

    /// Does what both want done, as often as something comes of it, but not for ever.
    fn settle(&mut self, flags: u8) {
        for _ in 0..20 {
            let effects = self.groups.take_effects();
            let more = self.transactions.take_effects();
            if effects.is_empty() && more.is_empty() {
                break;
            }
            for effect in effects {
                match effect {
                    group::groups::Effect::Append { token, records, .. } => {
                        self.groups_pending.push_back((token, records));
                    }
                    group::groups::Effect::Answer(waiter, response) => self.told(waiter, response),
                }
            }
            for effect in more {
                match effect {
                    txn::Effect::Append { token, .. } | txn::Effect::Mark(token, _) => {
                        self.transactions_pending.push_back(token);
                    }
                    txn::Effect::Answer(waiter, _) => self.answer(waiter),
                }
            }
            if self.transactions.is_starved() {
                let next = Ok(i64::from(flags));
                self.with_transactions(|all, env| all.supply(next, env));
            }
            if flags & PENDING == 0 {
                self.write(flags & REFUSED == 0);
            }
        }
    }

    fn told(&mut self, waiter: u64, response: group::Response) {
        match response {
            // As a connection does: it looks up, and asks again.
            group::Response::Member(group::Told::LookUp(look_up)) => {
                let (request, found) = look_up.run();
                let ask = Ask::ConsumerHeartbeat(request, found);
                self.ask_groups(group::Request::Member(Box::new(ask)), 1);
            }
            _ => self.answer(waiter),
        }
    }

    fn write(&mut self, written: bool) {
        while let Some((token, records)) = self.groups_pending.pop_front() {
            let offset = self.records.len() as i64;
            let result = match written {
                true => Ok(offset),
                false => Err(ErrorCode::NotLeaderOrFollower),
            };
            if written {
                self.records.extend(records);
            }
            self.with_env(|groups, env| groups.committed(token, result, env));
        }
        while let Some(token) = self.transactions_pending.pop_front() {
            let result = match written {
                true => Ok(()),
                false => Err(ErrorCode::NotLeaderOrFollower),
            };
            self.with_transactions(|all, env| all.committed(token, result, env));
        }
    }

    fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
        self.with_env(|groups, env| groups.tick(env));
        self.with_transactions(|all, env| all.tick(env));
    }

    /// What was written is all that a start has.
    fn restart(&mut self) {
        self.groups = Groups::default();
        self.groups_pending.clear();
        for (offset, record) in std::mem::take(&mut self.records).into_iter().enumerate() {
            let (key, value) = record.encode();
            let read = group::records::Record::decode(&key, value.as_deref());
            let read = read.expect("our own record").expect("of a known type");
            assert_eq!(read, record);
            self.records.push(record);
            self.with_env(|groups, env| groups.replay(read, offset as i64, None, env));
        }
        self.with_env(|groups, env| groups.loaded(env));
    }

    fn step(&mut self, what: u8, version: u8, bytes: &[u8]) {
        match what & 0x1f {
            of @ 0..=11 => {
                if let Some(request) = of_groups(of, version, bytes) {
                    self.ask_groups(request, version);
                }
            }
            of @ 12..=18 => {
                if let Some(request) = of_transactions(of, version, bytes) {
                    self.asked += 1;
                    let waiter = self.asked;
                    self.with_transactions(|all, env| all.ask(request, waiter, env));
                }
            }
            19..=21 => self.pass(1 << (version % 32)),
            22 => self.restart(),
            _ => {
                if let Ok(pattern) = compile(&String::from_utf8_lossy(bytes)) {
                    pattern.is_match("a-topic.of_some-length");
                }
            }
        }
        self.settle(what);
    }
}

pub fn run(mut input: &[u8]) -> Taken {
    let ((), most) = memory::measured(|| {
        let mut world = World::new();
        world.with_env(|groups, env| groups.loaded(env));
        world.with_transactions(|all, env| all.loaded(Vec::new(), &HashMap::new(), env));
        while let (Some(what), Some(version)) = (mutate::u8(&mut input), mutate::u8(&mut input)) {
            let bytes = mutate::piece(&mut input).unwrap_or_default();
            world.step(what, version, bytes);
        }
        world.restart();
        world.settle(0);
    });
    Taken {
        most,
        from_budgets: 0,
    }
}

fn put<M: Message>(out: &mut Vec<u8>, what: u8, version: i16, message: &M) {
    let mut writer = Writer::new();
    message.write(&mut writer, version);
    out.extend([what, (version - M::VERSIONS.start()) as u8]);
    mutate::put_piece(out, &writer.bytes);
}

/// Members of both protocols that join, read, commit and leave; a transaction from its begin to its end.
pub fn seeds() -> Vec<Vec<u8>> {
    use api::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};
    let mut classic = Vec::new();
    let join = JoinGroupRequest {
        group_id: "g".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".into(),
            metadata: vec![0, 0, 0, 0, 0, 1, 0, 1, b'a', 255, 255, 255, 255],
        }],
        ..JoinGroupRequest::default()
    };
    put(&mut classic, 0, 2, &join);
    classic.extend([19, 14, 0, 0]);
    let listed = api::list_groups::ListGroupsRequest::default();
    put(&mut classic, 9, 4, &listed);
    let mut consumer = Vec::new();
    let beat = api::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: "m".into(),
        rebalance_timeout_ms: 10_000,
        subscribed_topic_names: Some(vec!["a".into(), "c".into()]),
        subscribed_topic_regex: Some("b.*".into()),
        topic_partitions: Some(Vec::new()),
        ..Default::default()
    };
    put(&mut consumer, 4, 1, &beat);
    let again = api::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest {
        member_epoch: 1,
        subscribed_topic_names: None,
        subscribed_topic_regex: None,
        ..beat
    };
    put(&mut consumer, 4, 1, &again);
    consumer.extend([22, 0, 0, 0]);
    let gone = api::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest {
        member_epoch: -1,
        ..again
    };
    put(&mut consumer, 4 | PENDING, 1, &gone);
    let mut transaction = Vec::new();
    let init = api::init_producer_id::InitProducerIdRequest {
        transactional_id: Some("t".into()),
        transaction_timeout_ms: 10_000,
        ..Default::default()
    };
    put(&mut transaction, 12, 4, &init);
    let add = api::add_offsets_to_txn::AddOffsetsToTxnRequest {
        transactional_id: "t".into(),
        producer_id: 12,
        producer_epoch: 0,
        group_id: "g".into(),
    };
    put(&mut transaction, 13, 3, &add);
    let end = api::end_txn::EndTxnRequest {
        transactional_id: "t".into(),
        producer_id: 12,
        producer_epoch: 0,
        committed: true,
    };
    put(&mut transaction, 15, 3, &end);
    let pattern = [&[23u8, 0, 0, 9][..], b"(a|b)*c.+"].concat();
    vec![classic, consumer, transaction, pattern]
}
