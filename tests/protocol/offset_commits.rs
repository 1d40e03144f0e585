//! Committed offsets: what is committed comes back, from every version, over a `kill -9`, and goes with its topic.

use crate::common::Broker;
use crate::common::client::Client;
use crate::start;
use ottla::api::delete_groups::{DeleteGroupsRequest, DeleteGroupsResponse};
use ottla::api::find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse};
use ottla::api::list_groups::{ListGroupsRequest, ListGroupsResponse};
use ottla::api::metadata::{MetadataRequest, MetadataResponse};
use ottla::api::offset_commit::*;
use ottla::api::offset_delete::*;
use ottla::api::offset_fetch::*;
use ottla::batch::builder::Builder;
use ottla::error::ErrorCode;
use ottla::group::records::{OffsetCommitValue, Record};
use ottla::wire::Uuid;

/// A commit by hand, outside of any generation, of partition 0.
pub fn commit(group: &str, topic: &str, offset: i64, metadata: &str) -> OffsetCommitRequest {
    OffsetCommitRequest {
        group_id: group.into(),
        topics: vec![OffsetCommitRequestTopic {
            name: topic.into(),
            partitions: vec![OffsetCommitRequestPartition {
                committed_offset: offset,
                committed_metadata: Some(metadata.into()),
                ..OffsetCommitRequestPartition::default()
            }],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    }
}

/// Commits, and gives the code of the one partition.
pub fn committed(client: &mut Client, version: i16, request: &OffsetCommitRequest) -> i16 {
    let answer: OffsetCommitResponse = client.call(version, request);
    assert_eq!(answer.topics.len(), 1, "{answer:?}");
    answer.topics[0].partitions[0].error_code
}

/// What a group has committed: topic, partition, offset, metadata.
fn fetched(client: &mut Client, group: &str) -> Vec<(String, i32, i64, String)> {
    let request = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: group.into(),
            ..OffsetFetchRequestGroup::default()
        }],
        ..OffsetFetchRequest::default()
    };
    let mut answer: OffsetFetchResponse = client.call(9, &request);
    let group = answer.groups.remove(0);
    assert_eq!(group.error_code, 0);
    let topics = group.topics.into_iter().flat_map(|topic| {
        let name = topic.name;
        topic.partitions.into_iter().map(move |partition| {
            (
                name.clone(),
                partition.partition_index,
                partition.committed_offset,
                partition.metadata.unwrap_or_default(),
            )
        })
    });
    topics.collect()
}

fn of(topic: &str, offset: i64, metadata: &str) -> (String, i32, i64, String) {
    (topic.into(), 0, offset, metadata.into())
}

#[test]
fn what_is_committed_comes_back_with_its_metadata() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    for version in 2..=9 {
        let request = commit("g", "t", version.into(), &format!("by v{version}"));
        assert_eq!(committed(&mut client, version, &request), 0);
        let expected = of("t", version.into(), &format!("by v{version}"));
        assert_eq!(fetched(&mut client, "g"), [expected]);
    }
}

#[test]
fn every_version_of_a_fetch_tells_the_same() {
    let (_data, _broker, mut client) = start(&[]);
    let id = client.create_with("t", 2, &[]);
    assert_eq!(committed(&mut client, 9, &commit("g", "t", 5, "m")), 0);
    for version in 1..=7 {
        let request = OffsetFetchRequest {
            group_id: "g".into(),
            topics: Some(vec![OffsetFetchRequestTopic {
                name: "t".into(),
                partition_indexes: vec![1, 0],
            }]),
            ..OffsetFetchRequest::default()
        };
        let answer: OffsetFetchResponse = client.call(version, &request);
        let told: Vec<_> = answer.topics[0]
            .partitions
            .iter()
            .map(|told| (told.partition_index, told.committed_offset, told.error_code))
            .collect();
        assert_eq!(told, [(1, -1, 0), (0, 5, 0)], "v{version}");
        assert_eq!(answer.topics[0].partitions[0].metadata.as_deref(), Some(""));
    }
    let by_id = |topic_id| OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: "g".into(),
            topics: Some(vec![OffsetFetchRequestTopics {
                topic_id,
                partition_indexes: vec![0],
                ..OffsetFetchRequestTopics::default()
            }]),
            ..OffsetFetchRequestGroup::default()
        }],
        ..OffsetFetchRequest::default()
    };
    let answer: OffsetFetchResponse = client.call(10, &by_id(id));
    let topic = &answer.groups[0].topics[0];
    assert_eq!(
        (topic.topic_id, topic.partitions[0].committed_offset),
        (id, 5)
    );
    let answer: OffsetFetchResponse = client.call(10, &by_id(Uuid([9; 16])));
    let partition = &answer.groups[0].topics[0].partitions[0];
    assert_eq!(partition.error_code, ErrorCode::UnknownTopicId.code());
    assert_eq!(partition.committed_offset, -1);
}

#[test]
fn a_commit_by_topic_id_is_found_by_name() {
    let (_data, _broker, mut client) = start(&[]);
    let id = client.create("t", &[]);
    let mut request = commit("g", "", 3, "");
    request.topics[0].topic_id = id;
    assert_eq!(committed(&mut client, 10, &request), 0);
    assert_eq!(fetched(&mut client, "g"), [of("t", 3, "")]);
    request.topics[0].topic_id = Uuid([9; 16]);
    let unknown = ErrorCode::UnknownTopicId.code();
    assert_eq!(committed(&mut client, 10, &request), unknown);
}

#[test]
fn what_cannot_be_committed_is_told_partition_by_partition() {
    let (_data, _broker, mut client) = start(&["offset.metadata.max.bytes=4"]);
    client.create("t", &[]);
    let code = |client: &mut Client, request: &OffsetCommitRequest| committed(client, 9, request);
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    assert_eq!(code(&mut client, &commit("g", "nowhere", 1, "")), unknown);
    let mut beyond = commit("g", "t", 1, "");
    beyond.topics[0].partitions[0].partition_index = 1;
    assert_eq!(code(&mut client, &beyond), unknown);
    let long = ErrorCode::OffsetMetadataTooLarge.code();
    assert_eq!(code(&mut client, &commit("g", "t", 1, "12345")), long);
    let mut of_member = commit("g", "t", 1, "");
    of_member.generation_id_or_member_epoch = 3;
    of_member.member_id = "m".into();
    let absent = ErrorCode::GroupIdNotFound.code();
    assert_eq!(code(&mut client, &of_member), absent);
    let illegal = ErrorCode::IllegalGeneration.code();
    assert_eq!(committed(&mut client, 8, &of_member), illegal);
    assert_eq!(fetched(&mut client, "g"), []);
}

/// P1 holds for offsets as for records.
#[test]
fn an_acknowledged_commit_outlives_a_kill() {
    let (data, broker, mut client) = start(&[]);
    client.create("t", &[]);
    for round in 0..3 {
        let request = commit("g", "t", round, "kept");
        assert_eq!(committed(&mut client, 9, &request), 0);
    }
    broker.kill();
    let broker = Broker::start(data.path(), &[]);
    let mut client = Client::connect(&broker.address);
    assert_eq!(fetched(&mut client, "g"), [of("t", 2, "kept")]);
    assert!(broker.stop().success());
    let broker = Broker::start(data.path(), &[]);
    let mut client = Client::connect(&broker.address);
    assert_eq!(fetched(&mut client, "g"), [of("t", 2, "kept")]);
}

/// "Nothing committed" would send consumers back to the earliest record.
#[test]
fn offsets_that_cannot_be_read_are_not_told_to_be_none() {
    let (data, broker, mut client) = start(&[]);
    client.create("t", &[]);
    assert_eq!(committed(&mut client, 9, &commit("g", "t", 5, "")), 0);
    assert!(broker.stop().success());
    let log = data.path().join("__consumer_offsets-0");
    let away = data.path().join("away");
    std::fs::rename(&log, &away).unwrap();
    std::fs::write(&log, "no directory").unwrap();
    let broker = Broker::start(data.path(), &[]);
    let mut client = Client::connect(&broker.address);
    let unavailable = ErrorCode::CoordinatorNotAvailable.code();
    let request = OffsetFetchRequest {
        group_id: "g".into(),
        ..OffsetFetchRequest::default()
    };
    let told: OffsetFetchResponse = client.call(7, &request);
    assert_eq!((told.error_code, told.topics.len()), (unavailable, 0));
    let code = committed(&mut client, 9, &commit("g", "t", 6, ""));
    assert_eq!(code, unavailable);
    let found: FindCoordinatorResponse = client.call(3, &FindCoordinatorRequest::default());
    assert_eq!(found.error_code, unavailable);
    broker.kill();
    std::fs::remove_file(&log).unwrap();
    std::fs::rename(&away, &log).unwrap();
    let broker = Broker::start(data.path(), &[]);
    let mut client = Client::connect(&broker.address);
    assert_eq!(fetched(&mut client, "g"), [of("t", 5, "")]);
}

/// Names that differ in '.' and '_' alone collide, which must not keep groups from their own topic.
#[test]
fn a_topic_of_a_like_name_does_not_keep_groups_out() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("__consumer.offsets", &[]);
    client.create("t", &[]);
    assert_eq!(committed(&mut client, 9, &commit("g", "t", 1, "")), 0);
    assert_eq!(fetched(&mut client, "g"), [of("t", 1, "")]);
}

#[test]
fn a_topic_made_again_has_nothing_committed() {
    let (data, broker, mut client) = start(&[]);
    client.create("t", &[]);
    client.create("other", &[]);
    assert_eq!(committed(&mut client, 9, &commit("g", "t", 7, "")), 0);
    assert_eq!(committed(&mut client, 9, &commit("g", "other", 8, "")), 0);
    client.delete("t");
    client.create("t", &[]);
    // The commit stands behind the deletion in the group's own order.
    assert_eq!(committed(&mut client, 9, &commit("g", "other", 9, "")), 0);
    assert_eq!(fetched(&mut client, "g"), [of("other", 9, "")]);
    broker.kill();
    let broker = Broker::start(data.path(), &[]);
    let mut client = Client::connect(&broker.address);
    assert_eq!(fetched(&mut client, "g"), [of("other", 9, "")]);
}

/// A power cut came between the end of a topic and that of its offsets: here, they are written by hand. A topic of the
/// same name does not begin where nobody has read yet.
#[test]
fn a_new_topic_has_no_offsets_of_an_old_one() {
    let (data, broker, mut client) = start(&[]);
    client.create("t", &[]);
    assert_eq!(committed(&mut client, 9, &commit("g", "t", 1, "")), 0);
    let value = OffsetCommitValue {
        offset: 1000,
        ..OffsetCommitValue::default()
    };
    let (key, value) = Record::Offset("g".into(), "old".into(), 0, Some(value)).encode();
    let mut orphan = Builder::new(0);
    orphan.add(Some(&key), value.as_deref(), &[], 0);
    client.client_id = "__admin_client".into();
    client.store("__consumer_offsets", &orphan.build());
    broker.kill();
    let broker = Broker::start(data.path(), &[]);
    let mut client = Client::connect(&broker.address);
    assert_eq!(fetched(&mut client, "g").len(), 2);
    client.create("old", &[]);
    // The record that takes it back is on its way.
    while fetched(&mut client, "g") != [of("t", 1, "")] {}
}

/// As Kafka merges them: first what is unknown, then the rest, and each topic once.
#[test]
fn unknown_topics_come_first_in_the_answer_to_a_commit() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("a", &[]);
    client.create("b", &[]);
    let topic = |name: &str, partitions: &[i32]| OffsetCommitRequestTopic {
        name: name.into(),
        partitions: partitions
            .iter()
            .map(|index| OffsetCommitRequestPartition {
                partition_index: *index,
                committed_offset: 1,
                ..OffsetCommitRequestPartition::default()
            })
            .collect(),
        ..OffsetCommitRequestTopic::default()
    };
    let request = OffsetCommitRequest {
        group_id: "g".into(),
        topics: vec![
            topic("a", &[0]),
            topic("nowhere", &[0]),
            topic("b", &[0, 7]),
        ],
        ..OffsetCommitRequest::default()
    };
    let answer: OffsetCommitResponse = client.call(9, &request);
    let told = answer.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter();
        let partitions = partitions.map(|p| (p.partition_index, p.error_code));
        (topic.name.as_str(), partitions.collect::<Vec<_>>())
    });
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            ("nowhere", vec![(0, 3)]),
            ("b", vec![(7, 3), (0, 0)]),
            ("a", vec![(0, 0)])
        ]
    );
}

#[test]
fn offsets_and_groups_are_deleted() {
    let (data, broker, mut client) = start(&[]);
    client.create("t", &[]);
    client.create("u", &[]);
    for topic in ["t", "u"] {
        assert_eq!(committed(&mut client, 9, &commit("g", topic, 1, "")), 0);
    }
    let delete = |group: &str, topic: &str| OffsetDeleteRequest {
        group_id: group.into(),
        topics: vec![OffsetDeleteRequestTopic {
            name: topic.into(),
            partitions: vec![OffsetDeleteRequestPartition { partition_index: 0 }],
        }],
    };
    let answer: OffsetDeleteResponse = client.call(0, &delete("g", "t"));
    assert_eq!(answer.topics[0].partitions[0].error_code, 0);
    assert_eq!(fetched(&mut client, "g"), [of("u", 1, "")]);
    let answer: OffsetDeleteResponse = client.call(0, &delete("nobody", "t"));
    assert_eq!(answer.error_code, ErrorCode::GroupIdNotFound.code());
    let answer: OffsetDeleteResponse = client.call(0, &delete("", "t"));
    assert_eq!(answer.error_code, ErrorCode::InvalidGroupId.code());
    let answer: OffsetDeleteResponse = client.call(0, &delete("g", "nowhere"));
    let code = answer.topics[0].partitions[0].error_code;
    assert_eq!(code, ErrorCode::UnknownTopicOrPartition.code());
    let answer: OffsetDeleteResponse = client.call(0, &delete("nobody", "nowhere"));
    assert_eq!(answer.error_code, ErrorCode::GroupIdNotFound.code());

    let request = DeleteGroupsRequest {
        groups_names: vec!["g".into(), "nobody".into()],
    };
    let answer: DeleteGroupsResponse = client.call(2, &request);
    let codes: Vec<i16> = answer.results.iter().map(|told| told.error_code).collect();
    assert_eq!(codes, [0, ErrorCode::GroupIdNotFound.code()]);
    broker.kill();
    let broker = Broker::start(data.path(), &[]);
    let mut client = Client::connect(&broker.address);
    let listed: ListGroupsResponse = client.call(5, &ListGroupsRequest::default());
    assert_eq!(listed.groups, []);
}

#[test]
fn a_group_of_nothing_but_offsets_is_listed_as_empty() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    assert_eq!(committed(&mut client, 9, &commit("g", "t", 1, "")), 0);
    let with = |states: &[&str], types: &[&str]| ListGroupsRequest {
        states_filter: states.iter().map(|state| state.to_string()).collect(),
        types_filter: types.iter().map(|kind| kind.to_string()).collect(),
    };
    for (request, count) in [
        (with(&[], &[]), 1),
        (with(&["empty"], &["Classic"]), 1),
        (with(&["Stable"], &[]), 0),
        (with(&[], &["consumer"]), 0),
    ] {
        let listed: ListGroupsResponse = client.call(5, &request);
        assert_eq!(listed.groups.len(), count, "{request:?}");
        for group in listed.groups {
            assert_eq!(
                (group.group_id.as_str(), group.protocol_type.as_str()),
                ("g", "")
            );
            assert_eq!(
                (group.group_state.as_str(), group.group_type.as_str()),
                ("Empty", "classic")
            );
        }
    }
}

#[test]
fn the_coordinator_is_where_metadata_says_the_broker_is() {
    let advertised = "advertised.listeners=PLAINTEXT://localhost:4711";
    for settings in [&[][..], &[advertised]] {
        let (_data, _broker, mut client) = start(settings);
        let metadata: MetadataResponse = client.call(12, &MetadataRequest::default());
        let node = &metadata.brokers[0];
        let one = FindCoordinatorRequest {
            key: "g".into(),
            ..FindCoordinatorRequest::default()
        };
        let many = FindCoordinatorRequest {
            coordinator_keys: vec!["g".into(), "h".into()],
            ..FindCoordinatorRequest::default()
        };
        for version in 0..=3 {
            let found: FindCoordinatorResponse = client.call(version, &one);
            assert_eq!((found.error_code, found.node_id), (0, node.node_id));
            assert_eq!((&found.host, found.port), (&node.host, node.port));
        }
        for version in 4..=6 {
            let found: FindCoordinatorResponse = client.call(version, &many);
            let keys: Vec<&str> = found.coordinators.iter().map(|c| c.key.as_str()).collect();
            assert_eq!(keys, ["g", "h"]);
            for found in &found.coordinators {
                assert_eq!((found.error_code, found.node_id), (0, node.node_id));
                assert_eq!((&found.host, found.port), (&node.host, node.port));
                assert_eq!(found.error_message.as_deref(), Some(""));
            }
        }
        let share = FindCoordinatorRequest {
            key_type: 2,
            ..many
        };
        let found: FindCoordinatorResponse = client.call(6, &share);
        let code = found.coordinators[0].error_code;
        assert_eq!(code, ErrorCode::InvalidRequest.code());
    }
}
