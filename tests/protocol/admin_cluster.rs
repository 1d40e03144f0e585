//! The cluster as its one node answers for it: directories, leaders, reassignments, quorum, features, access control.

use crate::common::client::{Client, LONG_AGO_MS, batch, sequenced};
use crate::start;
use ottla::api::alter_partition_reassignments as alter;
use ottla::api::alter_replica_log_dirs as replica_dirs;
use ottla::api::create_acls::{AclCreation, CreateAclsRequest, CreateAclsResponse};
use ottla::api::delete_acls::{DeleteAclsFilter, DeleteAclsRequest, DeleteAclsResponse};
use ottla::api::describe_acls::{DescribeAclsRequest, DescribeAclsResponse};
use ottla::api::describe_log_dirs as log_dirs;
use ottla::api::describe_producers as producers;
use ottla::api::describe_quorum as quorum;
use ottla::api::describe_user_scram_credentials as scram;
use ottla::api::elect_leaders as elect;
use ottla::api::list_partition_reassignments as list;
use ottla::api::update_features as features;

#[test]
fn the_directory_is_described_with_the_size_of_its_logs() {
    let (data, _broker, mut client) = start(&[]);
    client.create_with("t", 2, &[]);
    client.create("u", &[]);
    let bytes = batch(&["abc"]);
    client.store("t", &bytes);
    let mut describe = |version, topics: Option<&[(&str, &[i32])]>| {
        let topic = |(topic, partitions): &(&str, &[i32])| log_dirs::DescribableLogDirTopic {
            topic: topic.to_string(),
            partitions: partitions.to_vec(),
        };
        let topics = topics.map(|topics| topics.iter().map(topic).collect());
        let request = log_dirs::DescribeLogDirsRequest { topics };
        let mut answer: log_dirs::DescribeLogDirsResponse = client.call(version, &request);
        assert_eq!((answer.error_code, answer.results.len()), (0, 1));
        answer.results.remove(0)
    };
    let sizes = |result: &log_dirs::DescribeLogDirsResult| {
        let topics = result.topics.iter();
        let rows = topics.flat_map(|t| t.partitions.iter().map(|p| (t.name.clone(), p)));
        let row = |(name, p): (String, &log_dirs::DescribeLogDirsPartition)| {
            assert_eq!((p.offset_lag, p.is_future_key), (0, false));
            (name, p.partition_index, p.partition_size)
        };
        rows.map(row).collect::<Vec<_>>()
    };
    let row = |name: &str, index, size| (name.to_string(), index, size);
    let whole = [
        row("t", 0, bytes.len() as i64),
        row("t", 1, 0),
        row("u", 0, 0),
    ];
    for version in 1..=4 {
        let all = describe(version, None);
        assert_eq!(all.log_dir, data.path().display().to_string());
        assert_eq!(sizes(&all), whole);
        assert_eq!(all.usable_bytes > 0, version == 4);
        assert!(all.usable_bytes <= all.total_bytes);
    }
    let some = describe(4, Some(&[("t", &[1, 7]), ("none", &[0]), ("t", &[1])]));
    assert_eq!(sizes(&some), whole[1..2]);
    assert_eq!(describe(4, Some(&[])).topics, []);
}

#[test]
fn a_replica_is_moved_to_where_it_is_or_not_at_all() {
    let (data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    let long = "x".repeat(249);
    let mut code = |path: &str, name: &str, partition| {
        let request = replica_dirs::AlterReplicaLogDirsRequest {
            dirs: vec![replica_dirs::AlterReplicaLogDir {
                path: path.into(),
                topics: vec![replica_dirs::AlterReplicaLogDirTopic {
                    name: name.into(),
                    partitions: vec![partition],
                }],
            }],
        };
        let answer: replica_dirs::AlterReplicaLogDirsResponse = client.call(2, &request);
        let result = &answer.results[0];
        assert_eq!((answer.results.len(), &result.topic_name[..]), (1, name));
        result.partitions[0].error_code
    };
    let here = data.path().display().to_string();
    assert_eq!(code(&here, "t", 0), 0);
    assert_eq!(code(&here, "t", 1), 3);
    assert_eq!(code(&here, "none", 0), 3);
    assert_eq!(code("/elsewhere", "t", 0), 57);
    assert_eq!(code("/elsewhere", "none", 0), 57);
    assert_eq!(code(&here, &long, 0), 17);
}

type Elected = Vec<(String, Vec<(i32, i16, bool)>)>;

fn elect(client: &mut Client, version: i16, kind: i8, asked: Option<&[(&str, &[i32])]>) -> Elected {
    let topic = |(topic, partitions): &(&str, &[i32])| elect::TopicPartitions {
        topic: topic.to_string(),
        partitions: partitions.to_vec(),
    };
    let request = elect::ElectLeadersRequest {
        election_type: kind,
        topic_partitions: asked.map(|asked| asked.iter().map(topic).collect()),
        ..elect::ElectLeadersRequest::default()
    };
    let answer: elect::ElectLeadersResponse = client.call(version, &request);
    assert_eq!(answer.error_code != 0, kind > 1);
    let partition =
        |p: elect::PartitionResult| (p.partition_id, p.error_code, p.error_message.is_some());
    let topic = |t: elect::ReplicaElectionResult| {
        let partitions = t.partition_result.into_iter().map(partition);
        (t.topic, partitions.collect())
    };
    answer
        .replica_election_results
        .into_iter()
        .map(topic)
        .collect()
}

#[test]
fn the_leader_leads_already() {
    let (_data, _broker, mut client) = start(&[]);
    client.create_with("t", 2, &[]);
    let asked: &[(&str, &[i32])] = &[("t", &[0, 1, 2]), ("none", &[0])];
    let t = |codes: [i16; 3]| {
        let rows = codes.iter().zip(0..).map(|(code, at)| (at, *code, true));
        ("t".to_string(), rows.collect::<Vec<_>>())
    };
    let none = |code| ("none".to_string(), vec![(0, code, true)]);
    for (version, kind) in [(0, 0), (1, 0), (2, 0), (1, 1), (2, 1)] {
        let answer = elect(&mut client, version, kind, Some(asked));
        assert_eq!(answer, [t([84, 84, 3]), none(3)], "v{version}");
    }
    assert_eq!(
        elect(&mut client, 2, 2, Some(asked)),
        [t([42; 3]), none(42)]
    );
    // All: with every topic, and none of the partitions that need no election, as in Kafka.
    assert_eq!(elect(&mut client, 2, 0, None), [("t".to_string(), vec![])]);
}

#[test]
fn partitions_can_be_assigned_to_this_node_alone() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    let mut assign =
        |version, name: &str, partition_index, replicas: Option<&[i32]>, may_change| {
            let request = alter::AlterPartitionReassignmentsRequest {
                allow_replication_factor_change: may_change,
                topics: vec![alter::ReassignableTopic {
                    name: name.into(),
                    partitions: vec![alter::ReassignablePartition {
                        partition_index,
                        replicas: replicas.map(<[i32]>::to_vec),
                    }],
                }],
                ..alter::AlterPartitionReassignmentsRequest::default()
            };
            let answer: alter::AlterPartitionReassignmentsResponse = client.call(version, &request);
            assert_eq!((answer.error_code, answer.error_message), (0, None));
            assert_eq!(answer.allow_replication_factor_change, may_change);
            let partition = &answer.responses[0].partitions[0];
            assert_eq!(partition.error_message.is_some(), partition.error_code != 0);
            partition.error_code
        };
    for version in [0, 1] {
        assert_eq!(assign(version, "t", 0, Some(&[1]), true), 0);
        assert_eq!(assign(version, "t", 0, None, true), 85);
        assert_eq!(assign(version, "t", 0, Some(&[]), true), 39);
        assert_eq!(assign(version, "t", 0, Some(&[2]), true), 39);
        assert_eq!(assign(version, "t", 0, Some(&[1, 1]), true), 39);
        assert_eq!(assign(version, "t", 1, Some(&[1]), true), 3);
        assert_eq!(assign(version, "none", 0, None, true), 3);
    }
    assert_eq!(assign(1, "t", 0, Some(&[1]), false), 0);
    assert_eq!(assign(1, "t", 0, Some(&[1, 2]), false), 38);
    let asked = list::ListPartitionReassignmentsTopics {
        name: "t".into(),
        partition_indexes: vec![0],
    };
    for topics in [None, Some(vec![asked])] {
        let request = list::ListPartitionReassignmentsRequest {
            topics,
            ..list::ListPartitionReassignmentsRequest::default()
        };
        let answer: list::ListPartitionReassignmentsResponse = client.call(0, &request);
        assert_eq!(answer, list::ListPartitionReassignmentsResponse::default());
    }
}

/// KIP-664: the writer's own state, a producer a row.
#[test]
fn a_partitions_producers_are_described() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    let ids = [client.producer_id(), client.producer_id()];
    client.store("t", &sequenced(ids[0], 0, 0, &["a", "b"]));
    client.store("t", &sequenced(ids[0], 0, 2, &["a"]));
    client.store("t", &sequenced(ids[1], 3, 0, &["a", "b"]));
    client.store("t", &batch(&["of no producer"]));
    let asked = |name: &str, partition_indexes: &[i32]| producers::TopicRequest {
        name: name.into(),
        partition_indexes: partition_indexes.to_vec(),
    };
    let request = producers::DescribeProducersRequest {
        topics: vec![
            asked("t", &[0, 1, 0]),
            asked("none", &[0]),
            asked("a/b", &[0]),
        ],
    };
    let answer: producers::DescribeProducersResponse = client.call(0, &request);
    let state = |id, epoch, sequence, timestamp| producers::ProducerState {
        producer_id: id,
        producer_epoch: epoch,
        last_sequence: sequence,
        last_timestamp: timestamp,
        coordinator_epoch: -1,
        current_txn_start_offset: -1,
    };
    let partition = |topic: usize, at: usize| &answer.topics[topic].partitions[at];
    let expected = [
        state(ids[0], 0, 2, LONG_AGO_MS),
        state(ids[1], 3, 1, LONG_AGO_MS + 1),
    ];
    assert_eq!(partition(0, 0).active_producers, expected);
    assert_eq!(answer.topics[0].partitions.len(), 2, "each once");
    let faults = [
        partition(0, 0),
        partition(0, 1),
        partition(1, 0),
        partition(2, 0),
    ]
    .map(|p| (p.error_code, p.error_message.is_some()));
    assert_eq!(faults, [(0, false), (3, false), (3, true), (17, true)]);
}

#[test]
fn without_an_authorizer_there_are_no_acls() {
    let (_data, _broker, mut client) = start(&[]);
    for version in 1..=3 {
        let asked = DescribeAclsRequest::default();
        let answer: DescribeAclsResponse = client.call(version, &asked);
        assert_eq!(answer.error_code, 54);
        assert!(
            answer
                .error_message
                .unwrap()
                .starts_with("No Authorizer is configured")
        );
        let creations = vec![AclCreation::default(); 2];
        let answer: CreateAclsResponse = client.call(version, &CreateAclsRequest { creations });
        let refused = |code, sentence: &Option<String>| {
            assert_eq!(code, 54);
            assert_eq!(sentence.as_deref(), Some("No Authorizer is configured."));
        };
        assert_eq!(answer.results.len(), 2);
        answer
            .results
            .iter()
            .for_each(|r| refused(r.error_code, &r.error_message));
        let filters = vec![DeleteAclsFilter::default(); 3];
        let answer: DeleteAclsResponse = client.call(version, &DeleteAclsRequest { filters });
        assert_eq!(answer.filter_results.len(), 3);
        let results = answer.filter_results.iter();
        results.for_each(|r| refused(r.error_code, &r.error_message));
    }
}

#[test]
fn no_user_has_credentials() {
    let (_data, _broker, mut client) = start(&[]);
    let mut describe = |names: Option<&[&str]>| {
        let user = |name: &&str| scram::UserName {
            name: name.to_string(),
        };
        let request = scram::DescribeUserScramCredentialsRequest {
            users: names.map(|names| names.iter().map(user).collect()),
        };
        let answer: scram::DescribeUserScramCredentialsResponse = client.call(0, &request);
        let said = answer.error_message.as_deref();
        assert_eq!((answer.error_code, said), (0, Some("")));
        let results = answer.results.into_iter();
        results.map(|r| (r.user, r.error_code)).collect::<Vec<_>>()
    };
    assert_eq!(describe(None), []);
    assert_eq!(describe(Some(&[])), []);
    let row = |name: &str, code| (name.to_string(), code);
    assert_eq!(
        describe(Some(&["b", "a", "b"])),
        [row("b", 92), row("a", 91)]
    );
}

#[test]
fn the_quorum_is_this_node() {
    let (_data, broker, mut client) = start(&["node.id=4"]);
    let mut describe = |version, asked: &[(&str, &[i32])]| {
        let partition = |&partition_index: &i32| quorum::PartitionRequest { partition_index };
        let topic = |(name, partitions): &(&str, &[i32])| quorum::TopicRequest {
            topic_name: name.to_string(),
            partitions: partitions.iter().map(partition).collect(),
        };
        let topics = asked.iter().map(topic).collect();
        let request = quorum::DescribeQuorumRequest { topics };
        let answer: quorum::DescribeQuorumResponse = client.call(version, &request);
        assert_eq!(answer.error_code, 0);
        let said = answer.error_message.as_deref();
        assert_eq!(said, (version == 2).then_some(""));
        answer
    };
    let mut ends = Vec::new();
    for version in 0..=2 {
        let answer = describe(version, &[("__cluster_metadata", &[0])]);
        let partition = &answer.topics[0].partitions[0];
        assert_eq!((partition.error_code, partition.leader_id), (0, 4));
        assert_eq!(partition.observers, []);
        let [voter] = &partition.current_voters[..] else {
            panic!("{partition:?}");
        };
        assert_eq!(
            (voter.replica_id, voter.log_end_offset),
            (4, partition.high_watermark)
        );
        assert_eq!(voter.last_fetch_timestamp > LONG_AGO_MS, version > 0);
        assert_eq!(voter.last_caught_up_timestamp > LONG_AGO_MS, version > 0);
        assert_eq!(answer.nodes.len(), usize::from(version == 2));
        for node in &answer.nodes {
            let listener = &node.listeners[0];
            assert_eq!((node.node_id, &listener.name[..]), (4, "PLAINTEXT"));
            assert_eq!(
                format!("{}:{}", listener.host, listener.port),
                broker.address
            );
        }
        ends.push(partition.high_watermark);
    }
    assert!(ends[0] > 0 && ends[0] == ends[2]);
    for asked in [
        &[("t", &[0][..])][..],
        &[("__cluster_metadata", &[1])],
        &[("__cluster_metadata", &[0, 0])],
        &[("__cluster_metadata", &[0]), ("t", &[0])],
    ] {
        let answer = describe(2, asked);
        let partitions = answer.topics.iter().flat_map(|t| &t.partitions);
        assert!(partitions.clone().count() > 0);
        for partition in partitions {
            assert_eq!(
                (partition.error_code, partition.error_message.is_some()),
                (3, true)
            );
        }
    }
    assert_eq!(describe(2, &[]).topics, []);
}

#[test]
fn each_feature_has_one_level() {
    let (_data, _broker, mut client) = start(&[]);
    let ottla::api::api_versions::Feature { name, level, .. } =
        ottla::api::api_versions::FEATURES[0];
    let mut update = |version, feature: &str, max_version_level, upgrade_type| {
        let request = features::UpdateFeaturesRequest {
            feature_updates: vec![features::FeatureUpdateKey {
                feature: feature.into(),
                max_version_level,
                allow_downgrade: false,
                upgrade_type,
            }],
            ..features::UpdateFeaturesRequest::default()
        };
        let answer: features::UpdateFeaturesResponse = client.call(version, &request);
        assert_eq!(answer.error_message.is_some(), answer.error_code != 0);
        (answer.error_code, answer.results.len())
    };
    assert_eq!(update(0, name, level, 1), (0, 1));
    assert_eq!(update(1, name, level, 1), (0, 1));
    assert_eq!(update(2, name, level, 1), (0, 0));
    for version in 0..=2 {
        assert_eq!(update(version, name, level + 1, 1), (95, 0));
        assert_eq!(update(version, name, level - 1, 1), (95, 0));
        assert_eq!(update(version, name, -1, 1), (95, 0));
        assert_eq!(update(version, "group.version", 1, 1).0, 0);
        assert_eq!(update(version, "group.version", 0, 2), (95, 0));
        assert_eq!(update(version, "transaction.version", 1, 1), (95, 0));
        assert_eq!(update(version, "no.such", 0, 1), (95, 0));
    }
    assert_eq!(update(1, name, level - 1, 2), (95, 0));
    assert_eq!(update(2, name, level - 1, 3), (95, 0));
    assert_eq!(update(2, name, level, 0), (95, 0));
    let none = features::UpdateFeaturesRequest::default();
    let answer: features::UpdateFeaturesResponse = client.call(2, &none);
    assert_eq!(answer.error_code, 0);
}

/// P7: a long name that is no topic's must not come back once a partition.
#[test]
fn a_name_in_an_answers_sentences_is_shown_in_part() {
    let (_data, _broker, mut client) = start(&[]);
    let name = "x".repeat(32_767);
    let numbers: Vec<i32> = (0..1000).collect();
    let request = elect::ElectLeadersRequest {
        topic_partitions: Some(vec![elect::TopicPartitions {
            topic: name.clone(),
            partitions: numbers.clone(),
        }]),
        ..elect::ElectLeadersRequest::default()
    };
    let frames = [
        client.frame(2, &request),
        client.frame(
            0,
            &producers::DescribeProducersRequest {
                topics: vec![producers::TopicRequest {
                    name: name.clone(),
                    partition_indexes: numbers.clone(),
                }],
            },
        ),
        client.frame(
            0,
            &alter::AlterPartitionReassignmentsRequest {
                topics: vec![alter::ReassignableTopic {
                    name,
                    partitions: (numbers.iter())
                        .map(|&partition_index| alter::ReassignablePartition {
                            partition_index,
                            replicas: Some(vec![1]),
                        })
                        .collect(),
                }],
                ..alter::AlterPartitionReassignmentsRequest::default()
            },
        ),
    ];
    for frame in frames {
        client.send_bytes(&frame);
        let len = client.receive_frame().len();
        assert!((1000 * 50..1_000_000).contains(&len), "{len} bytes");
    }
}
