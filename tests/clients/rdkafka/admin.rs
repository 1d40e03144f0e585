//! The crate's AdminClient, group list, and commits without membership: admin.py tells the scenario.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{Thread, current, park};

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigEntry, ConfigSource, NewPartitions, NewTopic,
    ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::PATIENCE;

const TOPIC: &str = "admin.topic-1";
const GROUP: &str = "admin.group";

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(done) => return done,
            Poll::Pending => park(),
        }
    }
}

/// What the only part of an answer says.
type Outcome = Result<String, RDKafkaErrorCode>;

struct Admin {
    client: AdminClient<DefaultClientContext>,
    bootstrap: ClientConfig,
    options: AdminOptions,
}

/// The outcome of the only topic or group of an answer.
fn only(answers: KafkaResult<Vec<Result<String, (String, RDKafkaErrorCode)>>>) -> Outcome {
    let mut answers = answers.expect("an answer");
    assert_eq!(answers.len(), 1);
    answers.remove(0).map_err(|(_, code)| code)
}

impl Admin {
    fn create(&self, name: &str, partitions: i32, replicas: i32, validate_only: bool) -> Outcome {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replicas))
            .set("retention.ms", "123456789");
        let options = AdminOptions::new().validate_only(validate_only);
        only(wait(self.client.create_topics(&[topic], &options)))
    }

    fn delete(&self, name: &str) -> Outcome {
        only(wait(self.client.delete_topics(&[name], &self.options)))
    }

    fn grow(&self, name: &str, partitions: usize) -> Outcome {
        let grown = NewPartitions::new(name, partitions);
        only(wait(self.client.create_partitions(&[grown], &self.options)))
    }

    fn delete_group(&self, name: &str) -> Outcome {
        only(wait(self.client.delete_groups(&[name], &self.options)))
    }

    fn alter(&self, topic: &str, name: &str, value: &str) {
        let altered = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(name, value);
        let answers = wait(self.client.alter_configs(&[altered], &self.options));
        answers.expect("an answer");
    }

    /// None if the resource is unknown: the crate passes over the error code of a resource.
    fn config(&self, resource: ResourceSpecifier<'_>, name: &str) -> Option<ConfigEntry> {
        let answers = wait(self.client.describe_configs(&[resource], &self.options));
        let entries = answers.expect("an answer").remove(0).ok()?.entries;
        entries.into_iter().find(|entry| entry.name == name)
    }

    fn topic_config(&self, name: &str) -> (String, ConfigSource) {
        let entry = self.config(ResourceSpecifier::Topic(TOPIC), name);
        let entry = entry.unwrap_or_else(|| panic!("{name} is not described"));
        (entry.value.expect("a value"), entry.source)
    }

    /// The topics that there are, with their numbers of partitions.
    fn topics(&self) -> Vec<(String, usize)> {
        let metadata = self.client.inner().fetch_metadata(None, PATIENCE);
        let metadata = metadata.expect("metadata");
        let topics = metadata.topics().iter();
        let topics = topics.map(|topic| (topic.name().to_owned(), topic.partitions().len()));
        topics.filter(|(name, _)| !name.starts_with("__")).collect()
    }

    fn consumer(&self) -> BaseConsumer {
        let mut config = self.bootstrap.clone();
        config
            .set("group.id", GROUP)
            .set("enable.auto.commit", "false");
        config.create().expect("a consumer")
    }
}

fn topics(admin: &Admin) {
    use RDKafkaErrorCode::*;
    assert_eq!(admin.create(TOPIC, 3, 1, true), Ok(TOPIC.to_owned()));
    assert_eq!(admin.topics(), [], "after validate_only");
    assert_eq!(admin.create(TOPIC, 3, 1, false), Ok(TOPIC.to_owned()));
    assert_eq!(admin.topics(), [(TOPIC.to_owned(), 3)]);
    assert_eq!(admin.create(TOPIC, 3, 1, false), Err(TopicAlreadyExists));
    assert_eq!(admin.create("no/slash", 3, 1, false), Err(InvalidTopic));
    assert_eq!(
        admin.create("other", 3, 3, false),
        Err(InvalidReplicationFactor)
    );
    assert_eq!(admin.grow(TOPIC, 5), Ok(TOPIC.to_owned()));
    assert_eq!(admin.topics(), [(TOPIC.to_owned(), 5)]);
    assert_eq!(admin.grow(TOPIC, 2), Err(InvalidPartitions), "fewer");
    assert_eq!(admin.grow("nothing", 2), Err(UnknownTopicOrPartition));
}

fn configs(admin: &Admin) {
    let set = |value: &str| (value.to_owned(), ConfigSource::DynamicTopic);
    let default = |value: &str| (value.to_owned(), ConfigSource::Default);
    assert_eq!(admin.topic_config("retention.ms"), set("123456789"));
    assert_eq!(admin.topic_config("segment.bytes"), default("1073741824"));
    let unknown = ResourceSpecifier::Topic("nothing");
    assert_eq!(admin.config(unknown, "retention.ms"), None);
    let metadata = admin.client.inner().fetch_metadata(None, PATIENCE);
    let broker = metadata.expect("metadata").brokers()[0].id();
    let entry = admin.config(ResourceSpecifier::Broker(broker), "num.partitions");
    assert_eq!(entry.expect("a broker").value.as_deref(), Some("1"));
}

fn alter(admin: &Admin) {
    // Replaces all settings of the topic: what is not named goes back to its default.
    admin.alter(TOPIC, "max.message.bytes", "65536");
    let altered = ("65536".to_owned(), ConfigSource::DynamicTopic);
    assert_eq!(admin.topic_config("max.message.bytes"), altered);
    let default = ("604800000".to_owned(), ConfigSource::Default);
    assert_eq!(admin.topic_config("retention.ms"), default);
    // The crate passes over the error code of a resource here too; nothing may have changed.
    for (name, value) in [("max.message.bytes", "many"), ("no.such.setting", "1")] {
        admin.alter(TOPIC, name, value);
        assert_eq!(admin.topic_config("max.message.bytes"), altered);
    }
}

fn records(admin: &Admin) {
    let producer: BaseProducer = admin.bootstrap.create().expect("a producer");
    for _ in 0..10 {
        let record = BaseRecord::<(), [u8]>::to(TOPIC)
            .partition(1)
            .payload(b"value");
        producer
            .send(record)
            .map_err(|(error, _)| error)
            .expect("sent");
    }
    producer.flush(PATIENCE).expect("flush");
    let consumer = admin.consumer();
    let delete = |partition, offset| {
        let mut places = TopicPartitionList::new();
        places
            .add_partition_offset(TOPIC, partition, Offset::Offset(offset))
            .expect("an offset");
        let answer = wait(admin.client.delete_records(&places, &admin.options));
        let answer = answer.expect("an answer");
        let place = answer.elements()[0]
            .error()
            .map(|()| answer.elements()[0].offset());
        place.map_err(|error| error.rdkafka_error_code().expect("a code"))
    };
    assert_eq!(delete(1, 4), Ok(Offset::Offset(4)));
    let watermarks = consumer.fetch_watermarks(TOPIC, 1, PATIENCE);
    assert_eq!(watermarks.expect("watermarks"), (4, 10));
    assert_eq!(delete(1, 11), Err(RDKafkaErrorCode::OffsetOutOfRange));
    assert_eq!(delete(1, 3), Ok(Offset::Offset(4)), "deleted already");
}

fn groups(admin: &Admin) {
    let names = |admin: &Admin| -> Vec<(String, String)> {
        let list = admin.client.inner().fetch_group_list(None, PATIENCE);
        let list = list.expect("groups");
        let groups = list.groups().iter();
        groups
            .map(|group| (group.name().to_owned(), group.state().to_owned()))
            .collect()
    };
    assert_eq!(names(admin), []);
    let unknown = Err(RDKafkaErrorCode::GroupIdNotFound);
    assert_eq!(admin.delete_group(GROUP), unknown);
    let consumer = admin.consumer();
    let mut places = TopicPartitionList::new();
    places
        .add_partition_offset(TOPIC, 1, Offset::Offset(7))
        .expect("an offset");
    consumer
        .commit(&places, CommitMode::Sync)
        .expect("a commit");
    let committed = consumer.committed_offsets(places, PATIENCE);
    let committed = committed.expect("committed offsets").elements()[0].offset();
    assert_eq!(committed, Offset::Offset(7));
    assert_eq!(names(admin), [(GROUP.to_owned(), "Empty".to_owned())]);
    assert_eq!(admin.delete_group(GROUP), Ok(GROUP.to_owned()));
    assert_eq!(names(admin), []);
    assert_eq!(admin.delete_group(GROUP), unknown);
}

type Part = (&'static str, fn(&Admin));

fn deletion(admin: &Admin) {
    assert_eq!(admin.delete(TOPIC), Ok(TOPIC.to_owned()));
    let unknown = Err(RDKafkaErrorCode::UnknownTopicOrPartition);
    assert_eq!(admin.delete(TOPIC), unknown);
    assert_eq!(admin.topics(), []);
}

/// Runs the scenario on a fresh broker, part by part, and prints what came of each.
pub fn admin(bootstrap: &str) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    let admin = Admin {
        client: config.create().expect("an admin client"),
        bootstrap: config,
        options: AdminOptions::new(),
    };
    let parts: [Part; 6] = [
        ("topics", topics),
        ("configs", configs),
        ("alter", alter),
        ("records", records),
        ("groups", groups),
        ("deletion", deletion),
    ];
    let said = Arc::new(Mutex::new("ok".to_owned()));
    let hook = said.clone();
    set_hook(Box::new(move |info| {
        *hook.lock().unwrap() = info.to_string()
    }));
    for (name, part) in parts {
        let _ = catch_unwind(AssertUnwindSafe(|| part(&admin)));
        let outcome = std::mem::replace(&mut *said.lock().unwrap(), "ok".to_owned());
        println!("{name}: {}", outcome.replace('\n', " "));
    }
}
