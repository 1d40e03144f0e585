//! Data directories of Apache Kafka's, odd but legal, open: all records are served, at their offsets, byte for byte.
//! What cannot be adopted is said in one line, and nothing of it is touched.

mod catalog;
#[path = "../common/mod.rs"]
mod common;
mod groups;
mod layout;
mod leftovers;
mod logs;
mod producers;

use common::Broker;
use common::producer::Client;
use common::settings::{TOPIC, describe};

/// What a partition gives from `offset` on, batch by batch, and where it ends.
#[track_caller]
fn served(broker: &Broker, topic: &str, index: i32, offset: i64) -> (Vec<Vec<u8>>, i64) {
    let mut client = Client::connect(&broker.address).unwrap();
    let (batches, end) = client.fetch_from(topic, index, offset).unwrap();
    (batches.into_iter().map(|batch| batch.bytes).collect(), end)
}

/// The offset that ListOffsets gives for a time; -1 is the end, -2 the start.
#[track_caller]
fn offset(broker: &Broker, topic: &str, time: i64) -> i64 {
    let mut client = Client::connect(&broker.address).unwrap();
    client.list_offset(topic, 0, time).unwrap().unwrap()
}

/// What a topic's setting is in force as.
#[track_caller]
fn described(broker: &Broker, topic: &str, name: &str) -> String {
    let mut client = common::client::Client::connect(&broker.address);
    let configs = describe(&mut client, TOPIC, topic).configs;
    let named = configs.into_iter().find(|config| config.name == name);
    named.and_then(|config| config.value).expect("a value")
}
