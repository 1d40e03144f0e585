//! A storm of transactional requests that nobody's client would send, in any order: afterwards nothing is left open,
//! whatever was deleted, fenced or killed meanwhile.

use crate::common::client::{Client, FETCH, fetch, produce, records};
use crate::common::{self, Broker};
use crate::start;
use ottla::api::add_offsets_to_txn::*;
use ottla::api::add_partitions_to_txn::*;
use ottla::api::create_topics::*;
use ottla::api::delete_records::*;
use ottla::api::delete_topics::{DeleteTopicsRequest, DeleteTopicsResponse};
use ottla::api::end_txn::*;
use ottla::api::fetch::FetchResponse;
use ottla::api::init_producer_id::*;
use ottla::api::produce::ProduceResponse;
use ottla::api::txn_offset_commit::*;
use ottla::api::write_txn_markers::*;
use ottla::batch::TRANSACTIONAL;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::thread;
use std::time::{Duration, Instant};

const IDS: [&str; 4] = ["x", "y", "z", ""];
const TOPICS: [&str; 3] = ["a", "b", "nowhere"];
const INTERNAL: [&str; 2] = ["__transaction_state", "__consumer_offsets"];

/// One client without manners.
struct Vandal {
    client: Client,
    rng: StdRng,
    /// What producers there were, now and before.
    known: Vec<(i64, i16)>,
}

impl Vandal {
    fn new(broker: &Broker, seed: u64) -> Vandal {
        Vandal {
            client: Client::connect(&broker.address),
            rng: StdRng::seed_from_u64(seed),
            known: vec![(0, 0)],
        }
    }

    fn id(&mut self) -> String {
        let few = self.rng.random_range(0..10) > 0;
        let ids = if few { &IDS[..2] } else { &IDS[..] };
        ids.choose(&mut self.rng).unwrap().to_string()
    }

    fn topic(&mut self) -> String {
        let few = self.rng.random_range(0..20) > 0;
        let topics = if few { &TOPICS[..2] } else { &TOPICS[..] };
        topics.choose(&mut self.rng).unwrap().to_string()
    }

    fn me(&mut self) -> (i64, i16) {
        let last = self.known.len() - 1;
        let at = match self.rng.random_range(0..4) {
            0 => self.rng.random_range(0..=last),
            _ => last,
        };
        let (id, epoch) = self.known[at];
        match self.rng.random_range(0..40) {
            0 => (id, epoch + 1),
            1 => (id, epoch - 1),
            2 => (id + 1, epoch),
            3 => (i64::MAX, i16::MAX),
            4 => (-1, -1),
            5 => (i64::MIN, i16::MIN),
            6 => (id, i16::MAX),
            _ => (id, epoch),
        }
    }

    fn act(&mut self) {
        match self.rng.random_range(0..100) {
            0..8 => self.init(),
            8..18 => self.add(),
            18..23 => self.add_offsets(),
            23..33 => self.commit_offset(),
            33..53 => self.end(),
            53..88 => self.write(),
            88..92 => self.mark(),
            92..95 => self.delete_records(),
            95..97 => {
                let often = self.rng.random_range(0..3) > 0;
                let topics = if often { &TOPICS[..2] } else { &INTERNAL[..] };
                let topic = *topics.choose(&mut self.rng).unwrap();
                let mut other = Client::connect(&self.address());
                let request = DeleteTopicsRequest {
                    topic_names: vec![topic.into()],
                    ..DeleteTopicsRequest::default()
                };
                let _: DeleteTopicsResponse = other.call(5, &request);
                create(&mut other, topic);
            }
            _ => {
                // Leaves in the middle of a request.
                let me = self.me();
                let request = EndTxnRequest {
                    transactional_id: self.id(),
                    producer_id: me.0,
                    producer_epoch: me.1,
                    committed: self.rng.random(),
                };
                self.client.send(5, &request);
                self.client = Client::connect(&self.address());
            }
        }
    }

    fn address(&self) -> String {
        self.client.stream().peer_addr().unwrap().to_string()
    }

    fn init(&mut self) {
        let (producer_id, producer_epoch) = match self.rng.random_range(0..3) {
            0 => self.me(),
            _ => (-1, -1),
        };
        let request = InitProducerIdRequest {
            transactional_id: Some(self.id()),
            transaction_timeout_ms: self.rng.random_range(0..5) * 10_000,
            producer_id,
            producer_epoch,
        };
        let version = self.rng.random_range(3..=5);
        let answer: InitProducerIdResponse = self.client.call(version, &request);
        if answer.error_code == 0 {
            self.known.push((answer.producer_id, answer.producer_epoch));
        }
    }

    fn add(&mut self) {
        let me = self.me();
        let topic = |vandal: &mut Vandal| AddPartitionsToTxnTopic {
            name: vandal.topic(),
            partitions: vec![
                *[0, 0, 0, 0, 0, 0, 0, -1, 1]
                    .choose(&mut vandal.rng)
                    .unwrap();
                2
            ],
        };
        let topics = vec![topic(self), topic(self)];
        let transactional_id = self.id();
        let version = self.rng.random_range(0..=5);
        let request = match version {
            ..4 => AddPartitionsToTxnRequest {
                v3_and_below_transactional_id: transactional_id,
                v3_and_below_producer_id: me.0,
                v3_and_below_producer_epoch: me.1,
                v3_and_below_topics: topics,
                ..AddPartitionsToTxnRequest::default()
            },
            _ => AddPartitionsToTxnRequest {
                transactions: vec![AddPartitionsToTxnTransaction {
                    transactional_id,
                    producer_id: me.0,
                    producer_epoch: me.1,
                    verify_only: self.rng.random(),
                    topics,
                }],
                ..AddPartitionsToTxnRequest::default()
            },
        };
        let _: AddPartitionsToTxnResponse = self.client.call(version, &request);
    }

    fn add_offsets(&mut self) {
        let me = self.me();
        let request = AddOffsetsToTxnRequest {
            transactional_id: self.id(),
            producer_id: me.0,
            producer_epoch: me.1,
            group_id: "g".into(),
        };
        let version = self.rng.random_range(0..=4);
        let _: AddOffsetsToTxnResponse = self.client.call(version, &request);
    }

    fn commit_offset(&mut self) {
        let me = self.me();
        let request = TxnOffsetCommitRequest {
            transactional_id: self.id(),
            group_id: "g".into(),
            producer_id: me.0,
            producer_epoch: me.1,
            topics: vec![TxnOffsetCommitRequestTopic {
                name: self.topic(),
                partitions: vec![TxnOffsetCommitRequestPartition {
                    committed_offset: self.rng.random(),
                    ..TxnOffsetCommitRequestPartition::default()
                }],
            }],
            ..TxnOffsetCommitRequest::default()
        };
        let version = self.rng.random_range(3..=5);
        let _: TxnOffsetCommitResponse = self.client.call(version, &request);
    }

    fn end(&mut self) {
        let me = self.me();
        let request = EndTxnRequest {
            transactional_id: self.id(),
            producer_id: me.0,
            producer_epoch: me.1,
            committed: self.rng.random(),
        };
        let version = *[1, 3, 5, 5].choose(&mut self.rng).unwrap();
        let answer: EndTxnResponse = self.client.call(version, &request);
        if version == 5 && answer.error_code == 0 {
            self.known.push((answer.producer_id, answer.producer_epoch));
        }
    }

    fn write(&mut self) {
        let me = self.me();
        let sequence = *[0, 0, 0, 1, 2, -1].choose(&mut self.rng).unwrap();
        let mut batch = records(&["v"]).producer(me.0, me.1, sequence);
        if self.rng.random_range(0..10) > 0 {
            batch = batch.attributes(TRANSACTIONAL);
        }
        let mut request = produce(&self.topic(), 1, &batch.build());
        request.transactional_id = (self.rng.random_range(0..10) > 0).then(|| self.id());
        let version = *[9, 10, 11, 12, 12, 12].choose(&mut self.rng).unwrap();
        let _: ProduceResponse = self.client.call(version, &request);
    }

    fn mark(&mut self) {
        let me = self.me();
        let topic = |vandal: &mut Vandal| WritableTxnMarkerTopic {
            name: match vandal.rng.random_range(0..3) {
                0 => "__consumer_offsets".into(),
                _ => vandal.topic(),
            },
            partition_indexes: vec![0; 3],
        };
        let request = WriteTxnMarkersRequest {
            markers: vec![WritableTxnMarker {
                producer_id: me.0,
                producer_epoch: me.1,
                transaction_result: self.rng.random(),
                topics: vec![topic(self), topic(self)],
                coordinator_epoch: *[0, 0, -1, 5, i32::MAX, i32::MIN]
                    .choose(&mut self.rng)
                    .unwrap(),
            }],
        };
        let _: WriteTxnMarkersResponse = self.client.call(1, &request);
    }

    fn delete_records(&mut self) {
        let request = DeleteRecordsRequest {
            topics: vec![DeleteRecordsTopic {
                name: self.topic(),
                partitions: vec![DeleteRecordsPartition {
                    partition_index: 0,
                    offset: *[-1, 1, 5].choose(&mut self.rng).unwrap(),
                }],
            }],
            timeout_ms: 1000,
        };
        let _: DeleteRecordsResponse = self.client.call(2, &request);
    }
}

/// Makes a topic, if it is not there.
fn create(client: &mut Client, name: &str) {
    let request = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: name.into(),
            num_partitions: 1,
            replication_factor: -1,
            ..CreatableTopic::default()
        }],
        ..CreateTopicsRequest::default()
    };
    let _: CreateTopicsResponse = client.call(7, &request);
}

/// Once all have begun anew, nothing is open.
fn check_nothing_is_open(client: &mut Client) {
    let began = Instant::now();
    for id in &IDS[..3] {
        let request = InitProducerIdRequest {
            transactional_id: Some(id.to_string()),
            transaction_timeout_ms: 60_000,
            ..InitProducerIdRequest::default()
        };
        loop {
            let answer: InitProducerIdResponse = client.call(5, &request);
            if answer.error_code == 0 {
                break;
            }
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "{id}: {answer:?}"
            );
        }
    }
    for topic in ["a", "b", "__consumer_offsets"] {
        let mut request = fetch(topic, 0, 0, 0);
        request.isolation_level = 1;
        let answer: FetchResponse = client.call(FETCH, &request);
        let data = &answer.responses[0].partitions[0];
        let ends = (data.last_stable_offset, data.error_code);
        // Where records were deleted it begins later, and the topic itself may be gone.
        assert!(matches!(ends.1, 0 | 1 | 3), "{topic}: {ends:?}");
        if ends.1 == 3 {
            continue;
        }
        assert_eq!(data.last_stable_offset, data.high_watermark, "{topic}");
    }
}

#[test]
fn a_storm_of_transactions_leaves_nothing_open() {
    let seed = common::seed("a storm of transactions");
    let settings = [
        "offsets.topic.num.partitions=1",
        "producer.state.max=8",
        "log.cleaner.backoff.ms=1",
        "offsets.topic.segment.bytes=1000",
        "transaction.state.log.segment.bytes=1000",
    ];
    let (data, mut broker, mut bystander) = start(&settings);
    for round in 0..4 {
        for topic in &TOPICS[..2] {
            create(&mut bystander.client, topic);
        }
        thread::scope(|scope| {
            for number in 0..3 {
                let mut vandal = Vandal::new(&broker, seed + round * 10 + number);
                scope.spawn(move || (0..150).for_each(|_| vandal.act()));
            }
        });
        bystander.check();
        if round % 2 == 1 {
            broker.kill();
            broker = Broker::start(data.path(), &settings);
            bystander.client = Client::connect(&broker.address);
        }
        check_nothing_is_open(&mut bystander.client);
    }
}
