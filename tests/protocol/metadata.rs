//! Metadata, DescribeCluster, DescribeTopicPartitions: what clients learn before they do anything else.

use crate::common::Broker;
use crate::common::client::{Client, batch};
use crate::start;
use ottla::api::describe_cluster::{DescribeClusterRequest, DescribeClusterResponse};
use ottla::api::describe_topic_partitions::{
    Cursor, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicRequest,
};
use ottla::api::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};
use ottla::wire::Uuid;

const VERSION: i16 = 12;

fn named(names: &[&str]) -> MetadataRequest {
    let topic = |name: &&str| MetadataRequestTopic {
        name: Some(name.to_string()),
        ..MetadataRequestTopic::default()
    };
    MetadataRequest {
        topics: Some(names.iter().map(topic).collect()),
        ..MetadataRequest::default()
    }
}

fn unasked(names: &[&str]) -> MetadataRequest {
    MetadataRequest {
        allow_auto_topic_creation: false,
        ..named(names)
    }
}

/// Each topic's name and error.
fn topics(answer: &MetadataResponse) -> Vec<(&str, i16)> {
    let topic = |t: &'_ ottla::api::metadata::MetadataResponseTopic| t.error_code;
    let names = answer
        .topics
        .iter()
        .map(|t| t.name.as_deref().unwrap_or(""));
    names.zip(answer.topics.iter().map(topic)).collect()
}

#[test]
fn a_topic_is_described_with_its_partitions() {
    let (_data, _broker, mut client) = start(&["node.id=7"]);
    let id = client.create_with("t", 3, &[]);
    let answer: MetadataResponse = client.call(VERSION, &named(&["t"]));
    assert_eq!((answer.controller_id, answer.brokers[0].node_id), (7, 7));
    assert!(answer.cluster_id.is_some());
    let topic = &answer.topics[0];
    assert_eq!(
        (topic.error_code, topic.topic_id, topic.is_internal),
        (0, id, false)
    );
    assert_eq!(topic.partitions.len(), 3);
    for (index, partition) in (0..).zip(&topic.partitions) {
        assert_eq!(
            (partition.error_code, partition.partition_index),
            (0, index)
        );
        assert_eq!((partition.leader_id, partition.leader_epoch), (7, 0));
        assert_eq!(
            (&partition.replica_nodes, &partition.isr_nodes),
            (&vec![7], &vec![7])
        );
    }
}

/// KIP-516.
#[test]
fn topics_are_asked_for_by_id() {
    let (_data, _broker, mut client) = start(&[]);
    let id = client.create("t", &[]);
    let asked = |topic_id| MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            topic_id,
            name: None,
        }]),
        ..MetadataRequest::default()
    };
    let answer: MetadataResponse = client.call(VERSION, &asked(id));
    assert_eq!(topics(&answer), [("t", 0)]);
    let other = Uuid([9; 16]);
    let answer: MetadataResponse = client.call(VERSION, &asked(other));
    let topic = &answer.topics[0];
    assert_eq!((topic.error_code, topic.topic_id), (100, other));
}

#[test]
fn null_asks_for_all_topics_and_an_empty_list_for_none_but_in_v0() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("a", &[]);
    client.create("b", &[]);
    let (all, none) = (MetadataRequest::default(), named(&[]));
    for version in 1..=13 {
        let answer: MetadataResponse = client.call(version, &all);
        assert_eq!(topics(&answer), [("a", 0), ("b", 0)], "v{version}");
        let answer: MetadataResponse = client.call(version, &none);
        assert_eq!(topics(&answer), [], "v{version}");
    }
    let answer: MetadataResponse = client.call(0, &none);
    assert_eq!(topics(&answer), [("a", 0), ("b", 0)]);
}

#[test]
fn a_missing_topic_is_created_if_client_and_broker_allow_it() {
    let (_data, broker, mut client) = start(&["num.partitions=2"]);
    let answer: MetadataResponse = client.call(VERSION, &unasked(&["t"]));
    assert_eq!(topics(&answer), [("t", 3)]);
    let answer: MetadataResponse = client.call(VERSION, &named(&["t", "u"]));
    assert_eq!(topics(&answer), [("t", 0), ("u", 0)]);
    assert_eq!(answer.topics[0].partitions.len(), 2);
    assert_eq!(client.store("t", &batch(&["at once"])), 0);
    // Before v4 a client could not say, and so allows it.
    let answer: MetadataResponse = client.call(1, &unasked(&["v"]));
    assert_eq!(topics(&answer), [("v", 0)]);
    drop(broker);
    let (_data, _broker, mut client) = start(&["auto.create.topics.enable=false"]);
    let answer: MetadataResponse = client.call(VERSION, &named(&["t"]));
    assert_eq!(topics(&answer), [("t", 3)]);
}

#[test]
fn names_that_cannot_be_topics_are_not_created() {
    let (data, _broker, mut client) = start(&[]);
    let long = "x".repeat(250);
    let bad = ["", ".", "..", "a/b", "../t", "a b", "ä", "a\0", &long];
    let answer: MetadataResponse = client.call(VERSION, &named(&bad));
    assert!(answer.topics.iter().all(|topic| topic.error_code == 17));
    let answer: MetadataResponse = client.call(VERSION, &named(&["__consumer_offsets"]));
    assert_ne!(answer.topics[0].error_code, 0, "the broker's own");
    let entries = std::fs::read_dir(data.path()).unwrap().flatten();
    let partitions = entries.filter(|entry| entry.path().join("partition.metadata").exists());
    let names: Vec<_> = partitions.map(|entry| entry.file_name()).collect();
    assert!(
        names.iter().all(|name| name == "__cluster_metadata-0"),
        "{names:?}"
    );
}

/// Kafka asks its catalog for a set of names: asking a million times for one topic must not cost a million answers.
#[test]
fn a_topic_that_is_asked_for_twice_is_described_once() {
    let (_data, _broker, mut client) = start(&[]);
    let id = client.create_with("t", 50, &[]);
    let answer: MetadataResponse = client.call(VERSION, &named(&["t", "new", "t", "new"]));
    assert_eq!(topics(&answer), [("t", 0), ("new", 0)]);
    let mut both = named(&["t"]);
    let by_id = MetadataRequestTopic {
        topic_id: id,
        name: None,
    };
    both.topics = Some(vec![by_id.clone(), by_id]);
    let answer: MetadataResponse = client.call(VERSION, &both);
    assert_eq!(answer.topics.len(), 1);
}

/// KIP-430.
#[test]
fn authorized_operations_are_told_where_they_are_asked_for() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    let request = MetadataRequest {
        include_topic_authorized_operations: true,
        include_cluster_authorized_operations: true,
        ..named(&["t"])
    };
    let answer: MetadataResponse = client.call(10, &request);
    assert!(answer.topics[0].topic_authorized_operations > 0);
    assert!(answer.cluster_authorized_operations > 0);
    let answer: MetadataResponse = client.call(10, &named(&["t"]));
    assert_eq!(answer.topics[0].topic_authorized_operations, i32::MIN);
}

/// FACTS: the classic setup failure. Unset, the address is the one that the client could reach.
#[test]
fn the_advertised_address_is_the_one_that_the_client_connected_to() {
    let (_data, broker, mut client) = start(&[]);
    let expected = client.stream().peer_addr().unwrap();
    let answer: MetadataResponse = client.call(VERSION, &named(&[]));
    let told = (&answer.brokers[0].host[..], answer.brokers[0].port);
    assert_eq!(told, ("127.0.0.1", i32::from(expected.port())));
    drop(broker);
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(
        data.path(),
        &["advertised.listeners=PLAINTEXT://kafka.example:19092"],
    );
    let mut client = Client::connect(&broker.address);
    let answer: MetadataResponse = client.call(VERSION, &named(&[]));
    let told = (&answer.brokers[0].host[..], answer.brokers[0].port);
    assert_eq!(told, ("kafka.example", 19092));
    let cluster: DescribeClusterResponse = client.call(1, &DescribeClusterRequest::default());
    let told = (&cluster.brokers[0].host[..], cluster.brokers[0].port);
    assert_eq!(told, ("kafka.example", 19092));
}

#[test]
fn the_cluster_is_described() {
    let (data, broker, mut client) = start(&[]);
    let request = DescribeClusterRequest {
        include_cluster_authorized_operations: true,
        ..DescribeClusterRequest::default()
    };
    let answer: DescribeClusterResponse = client.call(2, &request);
    assert_eq!((answer.error_code, answer.controller_id), (0, 1));
    assert_eq!(answer.brokers.len(), 1);
    assert!(answer.cluster_authorized_operations > 0);
    // KIP-919: a broker's endpoint is no controller's.
    let request = DescribeClusterRequest {
        endpoint_type: 2,
        ..DescribeClusterRequest::default()
    };
    let refused: DescribeClusterResponse = client.call(1, &request);
    assert_eq!((refused.error_code, refused.endpoint_type), (114, 1));
    let request = DescribeClusterRequest {
        endpoint_type: 3,
        ..DescribeClusterRequest::default()
    };
    let refused: DescribeClusterResponse = client.call(1, &request);
    assert_eq!(refused.error_code, 115);
    assert!(broker.stop().success());
    let broker = Broker::start(data.path(), &[]);
    let mut client = Client::connect(&broker.address);
    let again: DescribeClusterResponse = client.call(2, &DescribeClusterRequest::default());
    assert_eq!(
        again.cluster_id, answer.cluster_id,
        "it is the same after a restart"
    );
}

/// KIP-966: pages of partitions, and a cursor that says where the next one begins.
#[test]
fn topics_are_described_in_pages() {
    let (_data, _broker, mut client) = start(&[]);
    for (name, count) in [("a", 3), ("b", 1), ("c", 4)] {
        client.create_with(name, count, &[]);
    }
    for (limit, names) in [
        (1, &[][..]),
        (2, &[]),
        (3, &["c", "b", "a"]),
        (100, &["a", "c", "b"]),
    ] {
        let mut request = DescribeTopicPartitionsRequest {
            response_partition_limit: limit,
            topics: names
                .iter()
                .map(|name| TopicRequest {
                    name: name.to_string(),
                })
                .collect(),
            cursor: None,
        };
        let mut seen = Vec::new();
        for _ in 0..20 {
            let page: DescribeTopicPartitionsResponse = client.call(0, &request);
            let count: usize = page.topics.iter().map(|t| t.partitions.len()).sum();
            assert!(count <= limit as usize && count > 0);
            for topic in &page.topics {
                assert_eq!(topic.error_code, 0);
                let name = topic.name.clone().unwrap();
                let indexes = topic.partitions.iter().map(|p| p.partition_index);
                seen.extend(indexes.map(|index| (name.clone(), index)));
            }
            match page.next_cursor {
                Some(cursor) => request.cursor = Some(cursor),
                None => break,
            }
        }
        let all = [("a", 3), ("b", 1), ("c", 4)].into_iter();
        let all = all.flat_map(|(name, count)| (0..count).map(move |i| (name.to_string(), i)));
        assert!(seen.iter().cloned().eq(all), "{limit}: {seen:?}");
    }
}

fn page(names: &[&str], cursor: Option<(&str, i32)>) -> DescribeTopicPartitionsRequest {
    let topic = |name: &&str| TopicRequest {
        name: name.to_string(),
    };
    let cursor = cursor.map(|(name, partition_index)| Cursor {
        topic_name: name.into(),
        partition_index,
    });
    DescribeTopicPartitionsRequest {
        topics: names.iter().map(topic).collect(),
        cursor,
        ..DescribeTopicPartitionsRequest::default()
    }
}

#[test]
fn a_page_tells_what_is_missing_and_refuses_a_cursor_that_points_nowhere() {
    let (_data, _broker, mut client) = start(&[]);
    client.create_with("a", 2, &[]);
    let mut codes = |request| {
        let page: DescribeTopicPartitionsResponse = client.call(0, &request);
        let codes: Vec<_> = page.topics.iter().map(|t| t.error_code).collect();
        codes
    };
    assert_eq!(codes(page(&["none", "a/b", "a"], None)), [0, 17, 3]);
    assert_eq!(codes(page(&["none", "a"], Some(("none", 7)))), [3]);
    assert_eq!(codes(page(&["a"], Some(("a", i32::MAX)))), [0]);
    // Kafka wants the cursor's topic among those that are asked for.
    assert_eq!(codes(page(&["b", "c"], Some(("a", 0)))), [42, 42]);
    assert_eq!(codes(page(&["a"], Some(("a", -1)))), [42]);
    assert_eq!(codes(page(&[], Some(("Z", 0)))), [0]);
}

/// KIP-430: without an authorizer everything may be done, also with what is not there.
#[test]
fn authorized_operations_are_told_to_who_asks() {
    let (_data, _broker, mut client) = start(&["auto.create.topics.enable=false"]);
    client.create("t", &[]);
    let asking = MetadataRequest {
        include_topic_authorized_operations: true,
        include_cluster_authorized_operations: true,
        ..named(&["t", "none"])
    };
    let operations = |answer: &MetadataResponse| {
        let topics = answer.topics.iter().map(|t| t.topic_authorized_operations);
        (
            topics.collect::<Vec<_>>(),
            answer.cluster_authorized_operations,
        )
    };
    let (topic, cluster, unasked) = (0b1101_1111_1000, 0b1_1111_1010_0000, i32::MIN);
    for (version, expected) in [
        (7, (vec![unasked; 2], unasked)),
        (8, (vec![topic; 2], cluster)),
        (10, (vec![topic; 2], cluster)),
        (11, (vec![topic; 2], unasked)),
        (13, (vec![topic; 2], unasked)),
    ] {
        let mut request = asking.clone();
        if version < 8 {
            request = named(&["t", "none"]);
        } else if version > 10 {
            request.include_cluster_authorized_operations = false;
        }
        let answer: MetadataResponse = client.call(version, &request);
        assert_eq!(operations(&answer), expected, "v{version}");
    }
    let answer: MetadataResponse = client.call(10, &named(&["t"]));
    assert_eq!(operations(&answer), (vec![unasked], unasked));
    let cluster_of = DescribeClusterRequest {
        include_cluster_authorized_operations: true,
        ..DescribeClusterRequest::default()
    };
    let answer: DescribeClusterResponse = client.call(2, &cluster_of);
    assert_eq!(answer.cluster_authorized_operations, cluster);
    let answer: DescribeClusterResponse = client.call(2, &DescribeClusterRequest::default());
    assert_eq!(answer.cluster_authorized_operations, unasked);
    let answer: DescribeTopicPartitionsResponse = client.call(0, &page(&["t", "none"], None));
    assert!(
        answer
            .topics
            .iter()
            .all(|t| t.topic_authorized_operations == topic)
    );
}

#[test]
fn a_topic_is_asked_for_by_id_from_v12_on_and_never_by_nothing() {
    let (_data, _broker, mut client) = start(&[]);
    let id = client.create("t", &[]);
    let by_id = |topic_id| MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            topic_id,
            name: None,
        }]),
        ..MetadataRequest::default()
    };
    let answer: MetadataResponse = client.call(12, &by_id(id));
    assert_eq!(topics(&answer), [("t", 0)]);
    for version in [10, 11] {
        for id in [id, Uuid::ZERO] {
            let answer: MetadataResponse = client.call(version, &by_id(id));
            assert_eq!(topics(&answer), [("", 42)]);
        }
    }
    // Where there are ids, names are passed over.
    let mut mixed = named(&["u", "t"]);
    mixed.topics.as_mut().unwrap()[1].topic_id = id;
    let answer: MetadataResponse = client.call(12, &mixed);
    assert_eq!(topics(&answer), [("t", 0)]);
}
