//! The crate `rdkafka`: see records.py for the verbs and the neutral record form.

mod admin;
mod member;

use std::collections::HashMap;
use std::io::{BufRead, Write, stdin, stdout};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

fn unhex(text: &Value) -> Option<Vec<u8>> {
    let digit = |digit: u8| (digit as char).to_digit(16).expect("a hex digit") as u8;
    let pairs = text.as_str()?.as_bytes().chunks(2);
    Some(
        pairs
            .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
            .collect(),
    )
}

fn enhex(data: Option<&[u8]>) -> Value {
    data.map(|data| {
        data.iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    })
    .into()
}

fn headers_of(record: &Value) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new();
    for header in record["h"].as_array().expect("a list of headers") {
        let value = unhex(&header[1]);
        let key = header[0].as_str().expect("a header's name");
        headers = headers.insert(Header {
            key,
            value: value.as_ref(),
        });
    }
    headers
}

fn produce(bootstrap: &str, topic: &str, codec: &str, idempotent: bool) {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("compression.type", codec);
    if idempotent {
        config.set("enable.idempotence", "true");
    }
    let producer: ThreadedProducer<DefaultProducerContext> = config.create().expect("a producer");
    let mut sent = 0;
    for line in stdin().lock().lines() {
        let record: Value = serde_json::from_str(&line.expect("input")).expect("a record");
        let (key, value) = (unhex(&record["k"]), unhex(&record["v"]));
        let mut message = BaseRecord::<[u8], [u8]>::to(topic);
        message.key = key.as_deref();
        message.payload = value.as_deref();
        message.timestamp = record["t"].as_i64();
        message.headers = Some(headers_of(&record));
        while let Err((error, refused)) = producer.send(message) {
            assert_eq!(
                error,
                KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)
            );
            std::thread::sleep(Duration::from_millis(10));
            message = refused;
        }
        sent += 1;
    }
    // Lost records are found by whoever consumes and compares.
    producer
        .flush(2 * PATIENCE)
        .unwrap_or_else(|error| panic!("flush of {sent} records: {error}"));
}

fn print(message: &BorrowedMessage) {
    let headers: Vec<Value> = message
        .headers()
        .map(|headers| {
            headers
                .iter()
                .map(|h| json!([h.key, enhex(h.value)]))
                .collect()
        })
        .unwrap_or_default();
    let record = json!({
        "topic": message.topic(), "p": message.partition(), "o": message.offset(),
        "t": message.timestamp().to_millis(),
        "k": enhex(message.key()), "v": enhex(message.payload()), "h": headers,
    });
    writeln!(stdout(), "{record}").expect("output");
}

fn consume(bootstrap: &str, topics: &[String]) {
    // librdkafka wants a group.id even for assign(); nothing is committed, so no group API is called.
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "unused")
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer");
    let mut assigned = TopicPartitionList::new();
    let mut owed = HashMap::new();
    for topic in topics {
        let metadata = consumer
            .fetch_metadata(Some(topic), PATIENCE)
            .expect("metadata");
        for partition in metadata.topics()[0].partitions() {
            let (low, high) = consumer
                .fetch_watermarks(topic, partition.id(), PATIENCE)
                .expect("watermarks");
            if low < high {
                owed.insert((topic.clone(), partition.id()), high);
                assigned
                    .add_partition_offset(topic, partition.id(), Offset::Offset(low))
                    .expect("a partition");
            }
        }
    }
    consumer.assign(&assigned).expect("assign");
    while !owed.is_empty() {
        let polled = consumer.poll(PATIENCE);
        let message = polled.unwrap_or_else(|| panic!("nothing came; still owed: {owed:?}"));
        let message = message.expect("a message");
        print(&message);
        let place = (message.topic().to_owned(), message.partition());
        if owed
            .get(&place)
            .is_some_and(|end| message.offset() + 1 >= *end)
        {
            owed.remove(&place);
        }
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args[0].as_str() {
        "produce" => produce(&args[1], &args[2], &args[3], args.len() > 4),
        "consume" => consume(&args[1], &args[2..]),
        "member" => member::member(&args[1], &args[2], &args[3], &args[4..]),
        "admin" => admin::admin(&args[1]),
        verb => panic!("unknown verb {verb}"),
    }
}
