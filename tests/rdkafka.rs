//! librdkafka, through the crate `rdkafka`, against a running broker: what it produced with each codec comes back
//! equal; idempotence, sizes, watermarks and offsets by time behave as with Kafka.

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::Broker;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{DeliveryResult, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};

const PATIENCE: Duration = Duration::from_secs(60);
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
/// Some moment in 2023, milliseconds since 1970.
const LONG_AGO_MS: i64 = 1_700_000_000_000;

#[derive(Clone, Debug, PartialEq)]
struct Sent {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    timestamp_ms: i64,
}

/// A record number: its delivery's partition and offset, or why it failed.
type Deliveries = BTreeMap<usize, Result<(i32, i64), RDKafkaErrorCode>>;

/// Collects what became of each record.
#[derive(Clone, Default)]
struct Collect(Arc<Mutex<Deliveries>>);

impl ClientContext for Collect {}

impl ProducerContext for Collect {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult, number: Box<usize>) {
        let result = match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(error.rdkafka_error_code().expect("an error code")),
        };
        self.0.lock().unwrap().insert(*number, result);
    }
}

/// Produces all records, to `partition` if one is given, with extra settings; gives what became of each.
fn produce(
    broker: &Broker,
    topic: &str,
    partition: Option<i32>,
    settings: &[(&str, &str)],
    records: &[Sent],
) -> Deliveries {
    let collect = Collect::default();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &broker.address);
    for (name, value) in settings {
        config.set(*name, *value);
    }
    let producer: ThreadedProducer<Collect> = config
        .create_with_context(collect.clone())
        .expect("a producer");
    for (number, record) in records.iter().enumerate() {
        let headers = record
            .headers
            .iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header {
                    key,
                    value: value.as_ref(),
                })
            });
        let mut message =
            BaseRecord::<[u8], [u8], Box<usize>>::with_opaque_to(topic, Box::new(number))
                .timestamp(record.timestamp_ms)
                .headers(headers);
        message.partition = partition;
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        producer
            .send(message)
            .map_err(|(error, _)| error)
            .expect("room in the client's queue");
    }
    producer.flush(PATIENCE).expect("flush");
    let deliveries = std::mem::take(&mut *collect.0.lock().unwrap());
    assert_eq!(deliveries.len(), records.len());
    deliveries
}

fn consumer(broker: &Broker) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", &broker.address)
        .set("group.id", "unused") // librdkafka wants one; no group API is called without commits
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer")
}

/// Reads one partition from its start to its end.
fn consume(broker: &Broker, topic: &str, partition: i32) -> Vec<(i64, Sent)> {
    let consumer = consumer(broker);
    let (low, high) = consumer
        .fetch_watermarks(topic, partition, PATIENCE)
        .expect("watermarks");
    let mut assigned = TopicPartitionList::new();
    assigned
        .add_partition_offset(topic, partition, Offset::Offset(low))
        .expect("a partition");
    consumer.assign(&assigned).expect("assign");
    let mut read = Vec::new();
    while read.last().map_or(low, |(offset, _)| offset + 1) < high {
        let message = consumer
            .poll(PATIENCE)
            .expect("a record in time")
            .expect("a record");
        let headers = message.headers().map(|headers| {
            headers
                .iter()
                .map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec)))
                .collect()
        });
        let record = Sent {
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers.unwrap_or_default(),
            timestamp_ms: message.timestamp().to_millis().expect("a timestamp"),
        };
        read.push((message.offset(), record));
    }
    read
}

fn text(number: usize) -> Sent {
    Sent {
        key: Some(format!("key {}", number % 10).into_bytes()),
        value: Some(
            format!("line {number} of a text that compresses well, well, well").into_bytes(),
        ),
        headers: Vec::new(),
        timestamp_ms: LONG_AGO_MS + number as i64,
    }
}

/// Nulls, empties, duplicate and null headers, and values up to 100 KB.
fn awkward() -> Vec<Sent> {
    let sizes = [0, 1, 10, 1_000, 100_000];
    let headers = vec![
        ("twice".to_owned(), Some(b"one".to_vec())),
        ("twice".to_owned(), Some(vec![0, 255, 0])),
        ("empty".to_owned(), Some(Vec::new())),
        ("null".to_owned(), None),
    ];
    let record = |number: usize| Sent {
        key: [None, Some(Vec::new()), Some(vec![0, 159, 146, 150])][number % 3].clone(),
        value: (number % 7 != 3).then(|| vec![number as u8; sizes[number % sizes.len()]]),
        headers: if number.is_multiple_of(2) {
            Vec::new()
        } else {
            headers.clone()
        },
        timestamp_ms: LONG_AGO_MS - 1_000_000 * (number as i64 % 13),
    };
    (0..200).map(record).collect()
}

#[test]
fn every_codec_comes_back_equal_and_survives_kill_9() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), &[]);
    let sent = awkward();
    for codec in CODECS {
        produce(
            &broker,
            codec,
            None,
            &[("compression.type", codec), ("linger.ms", "50")],
            &sent,
        );
    }
    let check = |broker: &Broker| {
        for codec in CODECS {
            let read = consume(broker, codec, 0);
            assert!(
                read.iter()
                    .map(|(offset, _)| *offset)
                    .eq(0..sent.len() as i64),
                "{codec}: offsets"
            );
            for ((_, read), sent) in read.iter().zip(&sent) {
                assert_eq!(read, sent, "{codec}");
            }
        }
    };
    check(&broker);
    broker.kill();
    let broker = Broker::start(data.path(), &[]);
    check(&broker);
    assert!(broker.stop().success());
}

#[test]
fn an_idempotent_producer_over_several_partitions_keeps_order_across_restarts() {
    let data = tempfile::tempdir().unwrap();
    let settings = ["num.partitions=4"];
    let sent: Vec<Sent> = (0..10_000).map(text).collect();
    let idempotent = [("enable.idempotence", "true"), ("batch.num.messages", "50")];
    let broker = Broker::start(data.path(), &settings);
    produce(&broker, "idempotent", None, &idempotent, &sent);
    assert!(broker.stop().success());
    let broker = Broker::start(data.path(), &settings);
    produce(&broker, "idempotent", None, &idempotent, &sent);
    let mut total = 0;
    for partition in 0..4 {
        let read = consume(&broker, "idempotent", partition);
        assert!(
            read.iter()
                .map(|(offset, _)| *offset)
                .eq(0..read.len() as i64)
        );
        let (first, second) = read.split_at(read.len() / 2);
        for run in [first, second] {
            assert!(
                run.windows(2)
                    .all(|pair| pair[0].1.timestamp_ms < pair[1].1.timestamp_ms)
            );
        }
        total += read.len();
    }
    assert_eq!(total, 2 * sent.len());
}

#[test]
fn a_batch_over_max_message_bytes_is_refused_and_one_under_it_is_not() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), &[]);
    let of_bytes = |bytes| Sent {
        value: Some(vec![b'x'; bytes]),
        ..text(0)
    };
    // Kafka's default: 1,048,588 bytes a batch; the client's own limit is lifted so that the broker decides.
    let lifted = [("message.max.bytes", "20000000")];
    let deliveries = produce(&broker, "large", None, &lifted, &[of_bytes(1_048_000)]);
    assert_eq!(deliveries[&0], Ok((0, 0)));
    let deliveries = produce(&broker, "large", None, &lifted, &[of_bytes(1_049_000)]);
    assert_eq!(deliveries[&0], Err(RDKafkaErrorCode::MessageSizeTooLarge));
    assert_eq!(consume(&broker, "large", 0), [(0, of_bytes(1_048_000))]);

    let broker = Broker::start(&data.path().join("roomy"), &["message.max.bytes=10000000"]);
    let deliveries = produce(&broker, "large", None, &lifted, &[of_bytes(9_000_000)]);
    assert_eq!(deliveries[&0], Ok((0, 0)));
    assert_eq!(consume(&broker, "large", 0), [(0, of_bytes(9_000_000))]);
}

#[test]
fn watermarks_and_offsets_by_time_are_exact_to_the_record() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), &[]);
    // Many records a batch, so that the answer lies inside of one, compressed or not.
    for codec in CODECS {
        let sent: Vec<Sent> = (0..3_000)
            .map(|n| Sent {
                timestamp_ms: LONG_AGO_MS + 10 * n as i64,
                ..text(n)
            })
            .collect();
        produce(
            &broker,
            codec,
            None,
            &[("compression.type", codec), ("linger.ms", "50")],
            &sent,
        );
        let consumer = consumer(&broker);
        assert_eq!(
            consumer.fetch_watermarks(codec, 0, PATIENCE).unwrap(),
            (0, 3_000)
        );
        let at = |timestamp_ms: i64| {
            let mut times = TopicPartitionList::new();
            times
                .add_partition_offset(codec, 0, Offset::Offset(timestamp_ms))
                .unwrap();
            let found = consumer
                .offsets_for_times(times, PATIENCE)
                .expect("offsets");
            found
                .find_partition(codec, 0)
                .expect("the partition")
                .offset()
        };
        assert_eq!(at(0), Offset::Offset(0), "{codec}");
        assert_eq!(at(LONG_AGO_MS), Offset::Offset(0), "{codec}");
        assert_eq!(at(LONG_AGO_MS + 1), Offset::Offset(1), "{codec}");
        assert_eq!(at(LONG_AGO_MS + 12_340), Offset::Offset(1_234), "{codec}");
        assert_eq!(at(LONG_AGO_MS + 29_990), Offset::Offset(2_999), "{codec}");
        assert_eq!(at(LONG_AGO_MS + 29_991), Offset::End, "{codec}");
    }
}

#[test]
fn fewer_acks_are_served_too() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), &[]);
    let sent: Vec<Sent> = (0..500).map(text).collect();
    for acks in ["0", "1", "all"] {
        let topic = format!("acks-{acks}");
        // acks=0 on a topic that does not exist yet may rightly lose what comes before its creation.
        consumer(&broker)
            .fetch_metadata(Some(&topic), PATIENCE)
            .expect("metadata");
        produce(&broker, &topic, Some(0), &[("acks", "all")], &sent[..1]);
        produce(&broker, &topic, Some(0), &[("acks", acks)], &sent[1..]);
        let deadline = std::time::Instant::now() + PATIENCE;
        let mut read = consume(&broker, &topic, 0);
        while acks == "0" && read.len() < sent.len() && std::time::Instant::now() < deadline {
            read = consume(&broker, &topic, 0);
        }
        assert!(
            read.into_iter()
                .map(|(_, record)| record)
                .eq(sent.iter().cloned()),
            "acks={acks}"
        );
    }
}

#[test]
fn a_partition_that_does_not_exist_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), &[]);
    produce(&broker, "small", None, &[], &[text(0)]);
    let settings = [
        ("message.timeout.ms", "5000"),
        ("topic.metadata.propagation.max.ms", "0"),
    ];
    let deliveries = produce(&broker, "small", Some(7), &settings, &[text(1)]);
    assert_eq!(deliveries[&0], Err(RDKafkaErrorCode::UnknownPartition));
}
