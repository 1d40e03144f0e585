//! A member of a consumer group: see members.py for its options and for what it says.

use std::collections::BTreeMap;
use std::io::{Read, Write, stdin, stdout};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, ClientContext, Message, Offset, TopicPartitionList};
use serde_json::{Value, json};

const SESSION_MS: &str = "6000";
const HEARTBEAT_MS: &str = "500";

static STOPPED: AtomicBool = AtomicBool::new(false);

fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock after 1970").as_secs_f64()
}

fn emit(event: &str, mut fields: Value) {
    fields["t"] = json!(now());
    fields["e"] = json!(event);
    let mut out = stdout().lock();
    writeln!(out, "{fields}").expect("output");
    out.flush().expect("output");
}

/// Partition: the offset to commit, of what was read and is not committed.
#[derive(Default)]
struct Log(Mutex<BTreeMap<i32, i64>>);

impl Log {
    fn read(&self, partition: i32, offset: i64) {
        emit("read", json!({"p": partition, "o": [offset, offset]}));
        self.0.lock().unwrap().insert(partition, offset + 1);
    }

    fn commit(&self, consumer: &BaseConsumer<Log>, topic: &str) {
        let due = self.0.lock().unwrap().clone();
        if due.is_empty() {
            return;
        }
        let mut places = TopicPartitionList::new();
        for (partition, offset) in &due {
            places
                .add_partition_offset(topic, *partition, Offset::Offset(*offset))
                .expect("an offset");
        }
        let sent = now();
        match consumer.commit(&places, CommitMode::Sync) {
            Ok(()) => {
                emit("committed", json!({"sent": sent, "o": due}));
                self.0.lock().unwrap().clear();
            }
            Err(error) => emit("refused", json!({"why": error.to_string()})),
        }
    }
}

impl ClientContext for Log {}

impl ConsumerContext for Log {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let (event, places) = match rebalance {
            Rebalance::Assign(places) => ("assigned", places),
            Rebalance::Revoke(places) => ("revoked", places),
            Rebalance::Error(error) => return emit("refused", json!({"why": error.to_string()})),
        };
        let partitions: Vec<i32> = places.elements().iter().map(|e| e.partition()).collect();
        if event == "revoked" {
            if let (false, Some(place)) = (consumer.assignment_lost(), places.elements().first()) {
                self.commit(consumer, place.topic());
            }
            let mut due = self.0.lock().unwrap();
            due.retain(|partition, _| !partitions.contains(partition));
        }
        if !partitions.is_empty() {
            emit(event, json!({"p": partitions}));
        }
    }
}

fn configure(bootstrap: &str, group: &str, options: &[String]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest");
    let options: BTreeMap<&str, &str> = options
        .iter()
        .filter_map(|text| text.split_once('='))
        .collect();
    if options["protocol"] == "classic" {
        config
            .set("partition.assignment.strategy", options["assignor"])
            .set("session.timeout.ms", SESSION_MS)
            .set("heartbeat.interval.ms", HEARTBEAT_MS);
    } else {
        // Session and heartbeat are the broker's to say.
        config
            .set("group.protocol", "consumer")
            .set("group.remote.assignor", options["assignor"]);
    }
    if let Some(instance) = options.get("instance") {
        config.set("group.instance.id", *instance);
    }
    config
}

/// Reads until the standard input ends.
pub fn member(bootstrap: &str, group: &str, topic: &str, options: &[String]) {
    std::thread::spawn(|| {
        let _ = stdin().read_to_end(&mut Vec::new());
        STOPPED.store(true, Ordering::Relaxed);
    });
    let consumer: BaseConsumer<Log> = configure(bootstrap, group, options)
        .create_with_context(Log::default())
        .expect("a consumer");
    consumer.subscribe(&[topic]).expect("a subscription");
    while !STOPPED.load(Ordering::Relaxed) {
        // One wait, then what is there already.
        let mut wait = Duration::from_millis(200);
        while let Some(polled) = consumer.poll(wait) {
            match polled {
                Ok(message) => consumer
                    .context()
                    .read(message.partition(), message.offset()),
                Err(KafkaError::MessageConsumptionFatal(code)) => fatal(code),
                // The client goes on by itself.
                Err(_) => {}
            }
            wait = Duration::ZERO;
        }
        consumer.context().commit(&consumer, topic);
    }
}

fn fatal(code: RDKafkaErrorCode) -> ! {
    emit("fatal", json!({"why": code.to_string()}));
    std::process::exit(3);
}
