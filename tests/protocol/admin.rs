//! Topics made, grown, deleted, and settings described: each refusal with Kafka's code.

use crate::common::Broker;
use crate::common::client::{Client, batch};
use crate::common::requests;
use crate::start;
use ottla::api::create_partitions::{
    CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsResponse,
    CreatePartitionsTopic,
};
use ottla::api::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreatableTopicResult,
    CreateTopicsRequest, CreateTopicsResponse,
};
use ottla::api::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResponse, DescribeConfigsResult,
};
use ottla::error::ErrorCode;
use ottla::wire::Uuid;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

fn topic(name: &str) -> CreatableTopic {
    CreatableTopic {
        name: name.into(),
        num_partitions: -1,
        replication_factor: -1,
        ..CreatableTopic::default()
    }
}

fn create(client: &mut Client, topics: Vec<CreatableTopic>) -> Vec<CreatableTopicResult> {
    let request = CreateTopicsRequest {
        topics,
        ..CreateTopicsRequest::default()
    };
    let answer: CreateTopicsResponse = client.call(7, &request);
    answer.topics
}

#[track_caller]
fn refused(client: &mut Client, topic: CreatableTopic, code: ErrorCode) {
    let result = create(client, vec![topic]).remove(0);
    assert_eq!(result.error_code, code.code(), "{:?}", result.error_message);
    assert!(
        result
            .error_message
            .is_some_and(|message| !message.is_empty())
    );
    assert_eq!(result.topic_id, Uuid::default());
}

fn assigned(name: &str, assignments: &[(i32, &[i32])]) -> CreatableTopic {
    let assignment = |(index, brokers): &(i32, &[i32])| CreatableReplicaAssignment {
        partition_index: *index,
        broker_ids: brokers.to_vec(),
    };
    CreatableTopic {
        assignments: assignments.iter().map(assignment).collect(),
        ..topic(name)
    }
}

fn with(name: &str, setting: &str, value: &str) -> CreatableTopic {
    CreatableTopic {
        configs: vec![CreatableTopicConfig {
            name: setting.into(),
            value: Some(value.into()),
        }],
        ..topic(name)
    }
}

#[test]
fn a_topic_that_cannot_be_is_refused_with_kafkas_code() {
    use ErrorCode::*;
    let (_data, _broker, mut client) = start(&[]);
    client.create("there", &[]);
    client.create("dotted.name", &[]);
    let c = &mut client;
    let long = "x".repeat(250);
    for name in ["", ".", "..", "a/b", "../up", "a\0b", "a b", "ä", &long] {
        refused(c, topic(name), InvalidTopicException);
    }
    refused(c, topic("__cluster_metadata"), InvalidRequest);
    refused(c, topic("there"), TopicAlreadyExists);
    refused(c, topic("dotted_name"), InvalidTopicException);
    for num_partitions in [0, -2, i32::MIN] {
        let odd = CreatableTopic {
            num_partitions,
            ..topic("t")
        };
        refused(c, odd, InvalidPartitions);
    }
    for num_partitions in [10_001, i32::MAX] {
        let many = CreatableTopic {
            num_partitions,
            ..topic("t")
        };
        refused(c, many, PolicyViolation);
    }
    for replication_factor in [0, -2, 2, 3, i16::MAX] {
        let odd = CreatableTopic {
            replication_factor,
            ..topic("t")
        };
        refused(c, odd, InvalidReplicationFactor);
    }
    refused(c, with("t", "no.such.setting", "1"), InvalidConfig);
    refused(c, with("t", "retention.ms", "soon"), InvalidConfig);
    refused(c, with("t", "cleanup.policy", "burn"), InvalidConfig);
    let mut unset = with("t", "retention.ms", "1");
    unset.configs[0].value = Option::None;
    refused(c, unset, InvalidConfig);
}

#[test]
fn manual_assignments_are_checked() {
    use ErrorCode::*;
    let (_data, _broker, mut client) = start(&[]);
    let c = &mut client;
    refused(c, assigned("t", &[(0, &[])]), InvalidReplicaAssignment);
    refused(c, assigned("t", &[(0, &[2])]), InvalidReplicaAssignment);
    refused(c, assigned("t", &[(0, &[1, 1])]), InvalidReplicaAssignment);
    refused(
        c,
        assigned("t", &[(0, &[1]), (0, &[1])]),
        InvalidReplicaAssignment,
    );
    refused(
        c,
        assigned("t", &[(0, &[1]), (2, &[1])]),
        InvalidReplicaAssignment,
    );
    refused(c, assigned("t", &[(1, &[1])]), InvalidReplicaAssignment);
    for (num_partitions, replication_factor) in [(1, -1), (-1, 1)] {
        let both = CreatableTopic {
            num_partitions,
            replication_factor,
            ..assigned("t", &[(0, &[1])])
        };
        refused(c, both, InvalidRequest);
    }
    let good = create(c, vec![assigned("t", &[(1, &[1]), (0, &[1])])]).remove(0);
    assert_eq!((good.error_code, good.num_partitions), (0, 2));
}

/// Each topic is its own: one that is refused keeps no other from being made. A name that is there twice is neither.
#[test]
fn topics_of_one_request_stand_for_themselves() {
    let (_data, _broker, mut client) = start(&["num.partitions=3"]);
    let twice = [topic("a"), topic("b"), topic("a"), topic("../b")];
    let results = create(&mut client, twice.into());
    let codes: Vec<_> = results
        .iter()
        .map(|r| (&r.name[..], r.error_code))
        .collect();
    assert_eq!(codes, [("b", 0), ("../b", 17), ("a", 42)]);
    assert_eq!(
        (results[0].num_partitions, results[0].replication_factor),
        (3, 1)
    );
    assert_eq!(client.offset("b", -1).error_code, 0);
    assert_eq!(client.offset("a", -1).error_code, 3);
}

/// KIP-525: the answer tells the settings, with where they come from.
#[test]
fn a_new_topics_settings_come_back() {
    let (_data, _broker, mut client) = start(&[]);
    let result = create(&mut client, vec![with("t", "retention.ms", "60000")]).remove(0);
    assert_eq!(result.error_code, 0);
    let configs = result.configs.unwrap();
    let retention = configs.iter().find(|c| c.name == "retention.ms").unwrap();
    assert_eq!(retention.value.as_deref(), Some("60000"));
    assert_eq!(retention.config_source, 1, "the topic's own");
    assert!(configs.len() > 20);
}

#[test]
fn validate_only_changes_nothing() {
    let (data, _broker, mut client) = start(&[]);
    let request = CreateTopicsRequest {
        topics: vec![topic("t"), topic("a/b")],
        validate_only: true,
        ..CreateTopicsRequest::default()
    };
    let answer: CreateTopicsResponse = client.call(7, &request);
    let codes: Vec<_> = answer.topics.iter().map(|t| t.error_code).collect();
    assert_eq!(codes, [0, 17]);
    assert_eq!(client.offset("t", -1).error_code, 3);
    assert!(!data.path().join("t-0").exists());
    client.create("t", &[]);
    let answer = grow(&mut client, &[("t", 5, None)], true);
    assert_eq!(answer, [0]);
    assert!(!data.path().join("t-1").exists());
}

/// The catalog is durable before the answer.
#[test]
fn topics_survive_kill_9() {
    let (data, broker, mut client) = start(&[]);
    let id = client.create_with("t", 2, &[("retention.ms", "60000")]);
    assert_eq!(grow(&mut client, &[("t", 3, None)], false), [0]);
    client.create("gone", &[]);
    client.delete("gone");
    broker.kill();
    let broker = Broker::start(data.path(), &[]);
    let mut client = Client::connect(&broker.address);
    let request = ottla::api::metadata::MetadataRequest::default();
    let answer: ottla::api::metadata::MetadataResponse = client.call(12, &request);
    let topics = answer.topics.iter();
    let topics: Vec<_> = topics
        .map(|t| (t.name.as_deref(), t.partitions.len()))
        .collect();
    assert_eq!(topics, [(Some("t"), 3)]);
    assert_eq!(answer.topics[0].topic_id, id);
    let described = describe(&mut client, TOPIC, "t");
    assert_eq!(setting(&described, "retention.ms"), (Some("60000"), 1));
}

type Growth<'a> = (&'a str, i32, Option<&'a [&'a [i32]]>);

fn grow(client: &mut Client, topics: &[Growth<'_>], validate_only: bool) -> Vec<i16> {
    let assignment = |brokers: &&[i32]| CreatePartitionsAssignment {
        broker_ids: brokers.to_vec(),
    };
    let topic = |(name, count, assignments): &Growth<'_>| CreatePartitionsTopic {
        name: name.to_string(),
        count: *count,
        assignments: assignments.map(|brokers| brokers.iter().map(assignment).collect()),
    };
    let request = CreatePartitionsRequest {
        topics: topics.iter().map(topic).collect(),
        validate_only,
        ..CreatePartitionsRequest::default()
    };
    let answer: CreatePartitionsResponse = client.call(3, &request);
    answer.results.iter().map(|r| r.error_code).collect()
}

#[test]
fn partitions_are_added_and_never_taken_away() {
    let (_data, _broker, mut client) = start(&[]);
    client.create_with("t", 2, &[]);
    client.create("u", &[]);
    let c = &mut client;
    for count in [2, 1, 0, -1, i32::MIN] {
        assert_eq!(grow(c, &[("t", count, None)], false), [37], "{count}");
    }
    assert_eq!(grow(c, &[("t", i32::MAX, None)], false), [44]);
    assert_eq!(grow(c, &[("none", 5, None)], false), [3]);
    assert_eq!(
        grow(c, &[("t", 3, None), ("u", 2, None), ("t", 4, None)], false),
        [42, 0]
    );
    assert_eq!(grow(c, &[("t", 4, Some(&[&[1]]))], false), [39]);
    assert_eq!(grow(c, &[("t", 3, Some(&[&[2]]))], false), [39]);
    assert_eq!(grow(c, &[("t", 4, Some(&[&[1], &[1]]))], false), [0]);
    let mut request = crate::common::client::produce("t", -1, &batch(&["x"]));
    request.topic_data[0].partition_data[0].index = 3;
    let answer: ottla::api::produce::ProduceResponse = c.call(9, &request);
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
}

fn describe(client: &mut Client, resource_type: i8, name: &str) -> DescribeConfigsResult {
    let request = requests::describe_configs(resource_type, &[name]);
    let mut answer: DescribeConfigsResponse = client.call(4, &request);
    answer.results.remove(0)
}

fn resource(resource_type: i8, name: &str) -> DescribeConfigsResource {
    DescribeConfigsResource {
        resource_type,
        resource_name: name.into(),
        configuration_keys: None,
    }
}

/// A setting's value and source.
fn setting<'a>(described: &'a DescribeConfigsResult, name: &str) -> (Option<&'a str>, i8) {
    let found = described.configs.iter().find(|c| c.name == name);
    let found = found.unwrap_or_else(|| panic!("{name} is described"));
    (found.value.as_deref(), found.config_source)
}

/// Quix Streams and Connect read these; sources as in KIP-226 (1 topic, 4 static broker, 5 default).
#[test]
fn a_topics_settings_are_described_with_their_sources() {
    let (_data, _broker, mut client) = start(&["log.segment.bytes=2000000"]);
    client.create("t", &[("retention.ms", "60000")]);
    let described = describe(&mut client, TOPIC, "t");
    assert_eq!(described.error_code, 0);
    assert_eq!(described.error_message.as_deref(), Some(""));
    assert_eq!(setting(&described, "retention.ms"), (Some("60000"), 1));
    assert_eq!(setting(&described, "segment.bytes"), (Some("2000000"), 4));
    assert_eq!(setting(&described, "cleanup.policy"), (Some("delete"), 5));
    for documented in ["max.message.bytes", "compression.type"] {
        assert_eq!(setting(&described, documented).1, 5, "{documented}");
    }
    let retention = &described
        .configs
        .iter()
        .find(|c| c.name == "retention.ms")
        .unwrap();
    assert!(retention.synonyms.iter().any(|s| s.source == 1));
    assert!(
        retention
            .documentation
            .as_ref()
            .is_some_and(|text| !text.is_empty())
    );
    for (name, code) in [("none", 3), ("a/b", 17)] {
        assert_eq!(describe(&mut client, TOPIC, name).error_code, code);
    }
}

#[test]
fn the_brokers_settings_are_described() {
    let (_data, _broker, mut client) = start(&["node.id=3", "num.partitions=4"]);
    let described = describe(&mut client, BROKER, "3");
    assert_eq!(described.error_code, 0);
    assert_eq!(setting(&described, "num.partitions"), (Some("4"), 4));
    assert_eq!(
        setting(&described, "delete.topic.enable"),
        (Some("true"), 5)
    );
    assert_eq!(describe(&mut client, BROKER, "").configs.len(), 1);
    for (kind, name) in [(BROKER, "4"), (BROKER, "x"), (99, "x"), (-1, "")] {
        assert_eq!(
            describe(&mut client, kind, name).error_code,
            42,
            "{kind} {name}"
        );
    }
}

#[test]
fn only_the_settings_that_are_asked_for_are_described() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    for version in 1..=4 {
        let request = DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                configuration_keys: Some(vec!["retention.ms".into(), "no.such".into()]),
                ..resource(TOPIC, "t")
            }],
            ..DescribeConfigsRequest::default()
        };
        let answer: DescribeConfigsResponse = client.call(version, &request);
        let configs = &answer.results[0].configs;
        assert_eq!(configs.len(), 1);
        assert_eq!(configs[0].name, "retention.ms");
        assert!(configs[0].documentation.is_none() && configs[0].synonyms.is_empty());
    }
}

/// Else five bytes of a request would make some thirty thousand of an answer, and one request end the broker.
#[test]
fn a_resource_that_is_named_twice_is_described_once() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    let resources = [(TOPIC, "t"), (BROKER, "1"), (TOPIC, "t"), (BROKER, "1")];
    let request = DescribeConfigsRequest {
        resources: resources.map(|(kind, name)| resource(kind, name)).into(),
        ..DescribeConfigsRequest::default()
    };
    let answer: DescribeConfigsResponse = client.call(4, &request);
    let names: Vec<_> = answer
        .results
        .iter()
        .map(|r| &r.resource_name[..])
        .collect();
    assert_eq!(names, ["t", "1"]);
}

#[test]
fn no_keys_ask_for_all_settings() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    let mut count = |configuration_keys| {
        let request = DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type: TOPIC,
                resource_name: "t".into(),
                configuration_keys,
            }],
            ..DescribeConfigsRequest::default()
        };
        let answer: DescribeConfigsResponse = client.call(4, &request);
        answer.results[0].configs.len()
    };
    assert_eq!(count(Some(Vec::new())), count(None));
    assert_eq!(count(Some(vec!["segment.bytes".into()])), 1);
}
