//! Groups and transactional ids go on where they were with Kafka, in topics of fifty partitions, found by Kafka's hash.

use crate::common::Broker;
use crate::common::producer::Client;
use crate::common::requests;
use crate::described;
use crate::layout::{Data, Partition, Segment, Stop, batch, id};
use ottla::api::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use ottla::api::offset_commit::*;
use ottla::api::offset_fetch::*;
use ottla::batch::builder::Builder;
use std::time::{SystemTime, UNIX_EPOCH};

const PARTITIONS: i32 = 50;

/// `"g".hashCode() % 50`, and that of `"tx"`.
const OF_GROUP: usize = 3;
const OF_TRANSACTIONS: usize = 16;

/// Committed offsets age, on the broker's time.
fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_millis() as i64
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as i16).to_be_bytes(), text.as_bytes()].concat()
}

fn entry(base: i64, key: &[u8], value: Option<&[u8]>) -> Vec<u8> {
    let mut batch = Builder::new(now_ms()).place(base, 0);
    batch.add(Some(key), value, &[], now_ms());
    batch.build()
}

/// `OffsetCommitKey` 1 and `OffsetCommitValue` 3.
fn commit(base: i64, partition: i32, offset: i64) -> Vec<u8> {
    let key = [
        vec![0, 1],
        text("g"),
        text("t"),
        partition.to_be_bytes().into(),
    ]
    .concat();
    let value = [
        vec![0, 3],
        offset.to_be_bytes().into(),
        0i32.to_be_bytes().into(),
        text("where I was"),
        now_ms().to_be_bytes().into(),
    ];
    entry(base, &key, Some(&value.concat()))
}

/// `GroupMetadataKey` 2 and `GroupMetadataValue` 3 of a group that everyone has left.
fn group(base: i64) -> Vec<u8> {
    let value = [
        vec![0, 3],
        text("consumer"),
        7i32.to_be_bytes().into(),
        vec![255; 4],
        now_ms().to_be_bytes().into(),
        vec![0; 4],
    ];
    let key = [vec![0, 2], text("g")].concat();
    entry(base, &key, Some(&value.concat()))
}

/// Keys that mean nothing here: partition metadata of Kafka 4.0, and a share group.
fn others(base: i64) -> Vec<Vec<u8>> {
    let key = |kind: u8| [vec![0, kind], text("s")].concat();
    let four = entry(base, &key(4), Some(&[0, 0, 1, 0]));
    vec![
        four,
        entry(base + 1, &key(11), Some(&[0, 0, 0, 0, 0, 1, 0])),
    ]
}

/// `TransactionLogKey` 0 and `TransactionLogValue` 0: producer 70 at epoch 5, its last transaction committed.
fn transaction() -> Vec<u8> {
    const COMPLETE_COMMIT: u8 = 4;
    let value = [
        vec![0, 0],
        70i64.to_be_bytes().into(),
        5i16.to_be_bytes().into(),
        60_000i32.to_be_bytes().into(),
        vec![COMPLETE_COMMIT],
        0i32.to_be_bytes().into(),
        now_ms().to_be_bytes().into(),
        now_ms().to_be_bytes().into(),
    ];
    entry(0, &[vec![0, 0], text("tx")].concat(), Some(&value.concat()))
}

/// All partitions of an internal topic.
fn internal(data: &Data, topic: &str, number: u8) -> Vec<Partition> {
    let make = |index| {
        let partition = data.partition(topic, index, id(number));
        partition.write(&mut [Segment::new(0)], Stop::Clean);
        partition
    };
    (0..PARTITIONS).map(make).collect()
}

fn committed(broker: &Broker) -> Vec<(i64, Option<String>)> {
    let request = requests::offset_fetch("g", "t", 0..2);
    let mut client = Client::connect(&broker.address).unwrap();
    let mut answer: OffsetFetchResponse = client.call(8, &request).unwrap();
    let topic = answer.groups.remove(0).topics.remove(0);
    let told = topic.partitions.into_iter();
    told.map(|p| (p.committed_offset, p.metadata)).collect()
}

fn commit_anew(broker: &Broker, offset: i64) {
    let request = requests::offset_commit("g", "t", offset);
    let mut client = Client::connect(&broker.address).unwrap();
    let answer: OffsetCommitResponse = client.call(8, &request).unwrap();
    assert_eq!(answer.topics[0].partitions[0].error_code, 0);
}

fn initialised(broker: &Broker) -> (i64, i16) {
    let request = InitProducerIdRequest {
        transactional_id: Some("tx".into()),
        transaction_timeout_ms: 60_000,
        ..InitProducerIdRequest::default()
    };
    let mut client = Client::connect(&broker.address).unwrap();
    let answer: InitProducerIdResponse = client.call(4, &request).unwrap();
    assert_eq!(answer.error_code, 0);
    (answer.producer_id, answer.producer_epoch)
}

#[test]
fn groups_and_transactional_ids_go_on_where_they_were() {
    let data = Data::new();
    for index in 0..2 {
        let t = data.partition("t", index, id(1));
        t.write(&mut [Segment::of(0, &[batch(0, 0, 9, 10)])], Stop::Clean);
    }
    let offsets = internal(&data, "__consumer_offsets", 2);
    let mut log = Segment::of(
        0,
        &[group(0), commit(1, 0, 4), commit(2, 1, 6), commit(3, 0, 5)],
    );
    others(4).iter().for_each(|batch| log.append(batch));
    offsets[OF_GROUP].write(&mut [log], Stop::Clean);
    let states = internal(&data, "__transaction_state", 3);
    states[OF_TRANSACTIONS].write(&mut [Segment::of(0, &[transaction()])], Stop::Clean);
    let points = [
        ("t", 0, 9),
        ("t", 1, 9),
        ("__consumer_offsets", 3, 6),
        ("__transaction_state", 16, 1),
    ];
    data.stop(Stop::Clean, &points);

    let said = Some("where I was".to_owned());
    let broker = data.start();
    assert!(!broker.log().contains("ERROR"), "{}", broker.log());
    assert_eq!(committed(&broker), [(5, said.clone()), (6, said.clone())]);
    assert_eq!(initialised(&broker), (70, 6));
    commit_anew(&broker, 8);
    for topic in ["__consumer_offsets", "__transaction_state"] {
        let policy = described(&broker, topic, "cleanup.policy");
        assert_eq!(policy, "compact", "no retention of time takes it");
    }
    broker.kill();

    let broker = data.start();
    assert_eq!(committed(&broker)[0].0, 8, "the newest counts");
    assert_eq!(initialised(&broker), (70, 7));
    assert!(broker.stop().success());
    let name = "00000000000000000000.log";
    let grown = |partition: &Partition| partition.files(".log")[name].len();
    let only = |all: &[Partition], one: usize| {
        all.iter()
            .enumerate()
            .all(|(at, p)| at == one || grown(p) == 0)
    };
    assert!(only(&offsets, OF_GROUP) && only(&states, OF_TRANSACTIONS));
}
