//! Versions: what is advertised is answered, and what is not is refused as clients expect.

use crate::common::client::{Client, batch, fetch_partition};
use crate::start;
use ottla::api::alter_client_quotas::{AlterClientQuotasRequest, AlterClientQuotasResponse};
use ottla::api::alter_configs::{AlterConfigsRequest, AlterConfigsResponse};
use ottla::api::api_versions::{ApiVersion, ApiVersionsRequest, ApiVersionsResponse};
use ottla::api::create_partitions::{CreatePartitionsRequest, CreatePartitionsResponse};
use ottla::api::create_topics::{CreateTopicsRequest, CreateTopicsResponse};
use ottla::api::delete_topics::{DeleteTopicsRequest, DeleteTopicsResponse};
use ottla::api::describe_client_quotas::{
    DescribeClientQuotasRequest, DescribeClientQuotasResponse,
};
use ottla::api::describe_cluster::{DescribeClusterRequest, DescribeClusterResponse};
use ottla::api::describe_configs::{DescribeConfigsRequest, DescribeConfigsResponse};
use ottla::api::describe_topic_partitions::{
    DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
};
use ottla::api::fetch::{FetchRequest, FetchResponse, FetchTopic};
use ottla::api::incremental_alter_configs::{
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use ottla::api::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use ottla::api::list_config_resources::{ListConfigResourcesRequest, ListConfigResourcesResponse};
use ottla::api::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use ottla::api::list_offsets::{ListOffsetsRequest, ListOffsetsResponse};
use ottla::api::metadata::{MetadataRequest, MetadataResponse};
use ottla::api::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
};
use ottla::api::produce::{PartitionProduceData, TopicProduceData};
use ottla::api::produce::{ProduceRequest, ProduceResponse};
use ottla::wire::{Message, Records, Uuid, read_response};

fn ask(client: &mut Client, version: i16) -> ApiVersionsResponse {
    let request = ApiVersionsRequest {
        client_software_name: "raw".into(),
        client_software_version: "1.0".into(),
    };
    client.call(version, &request)
}

/// What a version of ApiVersions advertises.
fn advertised(client: &mut Client) -> Vec<ApiVersion> {
    let answer = ask(client, 4);
    assert_eq!(answer.error_code, 0);
    answer.api_keys
}

fn keys(answer: &ApiVersionsResponse) -> Vec<i16> {
    answer.api_keys.iter().map(|api| api.api_key).collect()
}

/// FACTS: the response's header is v0 in every version (KIP-511); [`Client`] reads it so.
#[test]
fn api_versions_answers_in_every_version() {
    let (_data, _broker, mut client) = start(&[]);
    let built = [
        0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28,
        29, 30, 31, 32, 33, 34, 35, 37, 42, 43, 44, 45, 46, 47, 48, 49, 50, 55, 57, 60, 61, 65, 66,
        68, 69, 74, 75,
    ];
    for version in 0..=4 {
        let answer = ask(&mut client, version);
        assert_eq!(answer.error_code, 0);
        assert_eq!(keys(&answer), built, "nothing that is not built");
        let supported = answer.supported_features.iter();
        let supported = supported.map(|f| (&*f.name, f.min_version, f.max_version));
        // Older clients cannot read that a lowest level is 0 (KAFKA-17492).
        let expected: &[(&str, i16, i16)] = &[
            ("metadata.version", 25, 25),
            ("group.version", 0, 1),
            ("transaction.version", 0, 2),
            ("eligible.leader.replicas.version", 0, 1),
        ];
        let count = [0, 0, 0, 1, 4][version as usize];
        assert_eq!(supported.collect::<Vec<_>>(), expected[..count]);
        let finalized = answer.finalized_features.iter();
        let finalized = finalized.map(|f| (&*f.name, f.min_version_level, f.max_version_level));
        let expected = expected
            .iter()
            .map(|&(name, _, level)| (name, level, level));
        let count = if version < 3 { 0 } else { 4 };
        assert!(finalized.eq(expected.take(count)));
    }
}

/// KIP-511 and AK PR#17967: the client learns from the v0 answer which version to ask in; an empty list costs
/// librdkafka a parse error (LRK#3090).
#[test]
fn an_unknown_api_versions_version_is_answered_in_v0_with_its_own_range() {
    let (_data, _broker, mut client) = start(&[]);
    for version in [5i16, 127, i16::MAX, -1] {
        let mut frame = client.frame(3, &ApiVersionsRequest::default());
        frame[6..8].copy_from_slice(&version.to_be_bytes());
        client.send_bytes(&frame);
        let answer = client.receive_frame();
        let mut reader = ottla::wire::Reader::new(&answer);
        let (_, answer): (i32, ApiVersionsResponse) = read_response(&mut reader, 0).unwrap();
        reader.finish().unwrap();
        assert_eq!(answer.error_code, 35);
        let only = ApiVersion {
            api_key: 18,
            min_version: 0,
            max_version: 4,
        };
        assert_eq!(answer.api_keys, [only]);
    }
    assert_eq!(ask(&mut client, 4).error_code, 0, "the connection goes on");
}

/// KIP-511: names that could not stand in a metric are refused.
#[test]
fn api_versions_refuses_an_odd_software_name() {
    let (_data, _broker, mut client) = start(&[]);
    let answer: ApiVersionsResponse = client.call(
        3,
        &ApiVersionsRequest {
            client_software_name: "a b".into(),
            client_software_version: "1".into(),
        },
    );
    assert_eq!(answer.error_code, 42);
}

/// KAFKA-18659, LRK#4956: with a higher minimum librdkafka silently drops compression.
#[test]
fn produce_below_v3_is_advertised_and_refused() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    let produce = advertised(&mut client).remove(0);
    assert_eq!((produce.api_key, produce.min_version), (0, 0));
    for version in 0..=2 {
        let answer: ProduceResponse = client.call(version, &produce_to("t", Uuid::default()));
        let partition = &answer.responses[0].partition_responses[0];
        assert_eq!((partition.error_code, partition.base_offset), (35, -1));
    }
    assert_eq!(client.offset("t", -1).offset, 0);
}

fn produce_to(topic: &str, topic_id: Uuid) -> ProduceRequest {
    ProduceRequest {
        acks: -1,
        timeout_ms: 1000,
        topic_data: vec![TopicProduceData {
            name: topic.into(),
            topic_id,
            partition_data: vec![PartitionProduceData {
                index: 0,
                records: Records::Held(batch(&["v"]).into()),
            }],
        }],
        ..ProduceRequest::default()
    }
}

/// Asks in every version that is advertised; gives the answers.
fn ask_all<Q: Message, A: Message>(
    client: &mut Client,
    advertised: &mut Vec<ApiVersion>,
    request: &Q,
) -> Vec<(i16, A)> {
    let at = advertised.iter().position(|api| api.api_key == Q::KEY);
    let api = advertised.remove(at.expect("the API is advertised"));
    let answer = |version| (version, client.call(version, request));
    (api.min_version..=api.max_version).map(answer).collect()
}

/// Asks with empty requests, where any answer in the version's form will do: others look at what is in it.
macro_rules! ask_empty {
    ($client:ident, $left:ident: $($api:ident $request:ident $response:ident;)*) => { $({
        let request = ottla::api::$api::$request::default();
        ask_all::<_, ottla::api::$api::$response>($client, $left, &request);
    })* };
}

/// FACTS: never advertise what is not implemented.
#[test]
fn every_version_of_every_api_that_is_advertised_is_answered() {
    let (_data, _broker, mut client) = start(&[]);
    let id = client.create("t", &[]);
    let c = &mut client;
    let left = &mut advertised(c);
    for (version, answer) in ask_all::<_, ProduceResponse>(c, left, &produce_to("t", id)) {
        let code = answer.responses[0].partition_responses[0].error_code;
        assert_eq!(code, if version < 3 { 35 } else { 0 }, "Produce {version}");
    }
    for (version, answer) in ask_all::<_, FetchResponse>(c, left, &fetch_of("t", id)) {
        let data = &answer.responses[0].partitions[0];
        assert_eq!((data.error_code, data.high_watermark), (0, 11), "{version}");
        let Records::Held(records) = &data.records else {
            panic!("no records in version {version}")
        };
        assert_eq!(records.len(), 11 * batch(&["v"]).len(), "Fetch {version}");
    }
    for (version, answer) in ask_all::<_, ListOffsetsResponse>(c, left, &latest_of("t")) {
        let partition = &answer.topics[0].partitions[0];
        assert_eq!((partition.error_code, partition.offset), (0, 11));
        assert_eq!(partition.leader_epoch, if version < 4 { -1 } else { 0 });
    }
    for (version, answer) in ask_all::<_, MetadataResponse>(c, left, &MetadataRequest::default()) {
        // In v0 null is no list at all, and the empty one asks for all topics.
        assert_eq!(answer.topics.len(), 1, "Metadata {version}");
        assert_eq!(answer.brokers.len(), 1, "Metadata {version}");
    }
    ask_all::<_, ApiVersionsResponse>(c, left, &ApiVersionsRequest::default());
    ask_all::<_, CreateTopicsResponse>(c, left, &CreateTopicsRequest::default());
    ask_all::<_, DeleteTopicsResponse>(c, left, &DeleteTopicsRequest::default());
    let request = InitProducerIdRequest::default();
    for (_, answer) in ask_all::<_, InitProducerIdResponse>(c, left, &request) {
        assert_eq!((answer.error_code, answer.producer_epoch), (0, 0));
    }
    ask_all::<_, OffsetForLeaderEpochResponse>(c, left, &OffsetForLeaderEpochRequest::default());
    ask_all::<_, DescribeConfigsResponse>(c, left, &DescribeConfigsRequest::default());
    ask_all::<_, CreatePartitionsResponse>(c, left, &CreatePartitionsRequest::default());
    for (_, answer) in
        ask_all::<_, DescribeClusterResponse>(c, left, &DescribeClusterRequest::default())
    {
        assert_eq!((answer.error_code, answer.brokers.len()), (0, 1));
    }
    let everything = DescribeClientQuotasRequest::default();
    for (_, answer) in ask_all::<_, DescribeClientQuotasResponse>(c, left, &everything) {
        assert_eq!((answer.error_code, answer.entries), (0, Some(vec![])));
    }
    ask_all::<_, AlterClientQuotasResponse>(c, left, &AlterClientQuotasRequest::default());
    let nothing = IncrementalAlterConfigsRequest::default();
    ask_all::<_, IncrementalAlterConfigsResponse>(c, left, &nothing);
    ask_all::<_, AlterConfigsResponse>(c, left, &AlterConfigsRequest::default());
    for (version, answer) in
        ask_all::<_, ListConfigResourcesResponse>(c, left, &ListConfigResourcesRequest::default())
    {
        assert_eq!(answer.config_resources.len(), [0, 3][version as usize]);
    }
    let all = DescribeTopicPartitionsRequest::default();
    for (_, answer) in ask_all::<_, DescribeTopicPartitionsResponse>(c, left, &all) {
        assert_eq!(answer.topics.len(), 1);
    }
    ask_the_rest(c, left);
    assert_eq!(left[..], [], "an API that this test does not know");
}

fn ask_the_rest(c: &mut Client, left: &mut Vec<ApiVersion>) {
    ask_empty! { c, left:
        add_offsets_to_txn AddOffsetsToTxnRequest AddOffsetsToTxnResponse;
        add_partitions_to_txn AddPartitionsToTxnRequest AddPartitionsToTxnResponse;
        describe_transactions DescribeTransactionsRequest DescribeTransactionsResponse;
        end_txn EndTxnRequest EndTxnResponse;
        list_transactions ListTransactionsRequest ListTransactionsResponse;
        txn_offset_commit TxnOffsetCommitRequest TxnOffsetCommitResponse;
        write_txn_markers WriteTxnMarkersRequest WriteTxnMarkersResponse;
        alter_partition_reassignments AlterPartitionReassignmentsRequest AlterPartitionReassignmentsResponse;
        alter_replica_log_dirs AlterReplicaLogDirsRequest AlterReplicaLogDirsResponse;
        consumer_group_describe ConsumerGroupDescribeRequest ConsumerGroupDescribeResponse;
        consumer_group_heartbeat ConsumerGroupHeartbeatRequest ConsumerGroupHeartbeatResponse;
        create_acls CreateAclsRequest CreateAclsResponse;
        delete_acls DeleteAclsRequest DeleteAclsResponse;
        delete_records DeleteRecordsRequest DeleteRecordsResponse;
        describe_acls DescribeAclsRequest DescribeAclsResponse;
        describe_log_dirs DescribeLogDirsRequest DescribeLogDirsResponse;
        describe_producers DescribeProducersRequest DescribeProducersResponse;
        describe_quorum DescribeQuorumRequest DescribeQuorumResponse;
        describe_user_scram_credentials DescribeUserScramCredentialsRequest DescribeUserScramCredentialsResponse;
        delete_groups DeleteGroupsRequest DeleteGroupsResponse;
        describe_groups DescribeGroupsRequest DescribeGroupsResponse;
        find_coordinator FindCoordinatorRequest FindCoordinatorResponse;
        heartbeat HeartbeatRequest HeartbeatResponse;
        join_group JoinGroupRequest JoinGroupResponse;
        leave_group LeaveGroupRequest LeaveGroupResponse;
        list_groups ListGroupsRequest ListGroupsResponse;
        offset_commit OffsetCommitRequest OffsetCommitResponse;
        offset_delete OffsetDeleteRequest OffsetDeleteResponse;
        offset_fetch OffsetFetchRequest OffsetFetchResponse;
        sync_group SyncGroupRequest SyncGroupResponse;
        elect_leaders ElectLeadersRequest ElectLeadersResponse;
        list_partition_reassignments ListPartitionReassignmentsRequest ListPartitionReassignmentsResponse;
        update_features UpdateFeaturesRequest UpdateFeaturesResponse;
    }
}

fn fetch_of(topic: &str, topic_id: Uuid) -> FetchRequest {
    FetchRequest {
        topics: vec![FetchTopic {
            topic: topic.into(),
            topic_id,
            partitions: vec![fetch_partition(0, 0)],
        }],
        session_epoch: -1,
        ..FetchRequest::default()
    }
}

fn latest_of(topic: &str) -> ListOffsetsRequest {
    ListOffsetsRequest {
        topics: vec![ListOffsetsTopic {
            name: topic.into(),
            partitions: vec![ListOffsetsPartition {
                timestamp: -1,
                ..ListOffsetsPartition::default()
            }],
        }],
        ..ListOffsetsRequest::default()
    }
}

/// As Kafka does: there is no answer that such a client could read.
#[test]
fn a_version_that_is_not_served_closes_the_connection() {
    let (_data, broker, mut client) = start(&[]);
    for (key, version, named) in [
        (3i16, 14i16, "MetadataRequest version 14 is not served"),
        (1, 3, "FetchRequest version 3 is not served"),
        (3, -1, "MetadataRequest version -1 is not served"),
        (17, 0, "API key 17 is not served"),
        (-1, 0, "API key -1 is not served"),
    ] {
        let mut other = Client::connect(&broker.address);
        let mut frame = other.frame(1, &MetadataRequest::default());
        frame[4..6].copy_from_slice(&key.to_be_bytes());
        frame[6..8].copy_from_slice(&version.to_be_bytes());
        other.send_bytes(&frame);
        other.expect_close();
        broker.expect_log(named);
    }
    assert_eq!(ask(&mut client, 4).error_code, 0);
}
