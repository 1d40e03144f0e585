//! Every request and response, by the key and version in its header: what is read is written, and read again the same.
//!
//! A request's input is its frame; a response's is `key i16 | version i16 | frame`, since a response does not say.

use super::{Taken, memory, mutate};
use ottla::api;
use ottla::budget::Budget;
use ottla::wire::{Frame, Message, Reader, RequestHeader, Writer, read_request, read_response};
use std::sync::Arc;

/// The budget of array elements; far from used up by inputs as long as these.
const ELEMENT_BYTES_MAX: u64 = 64 << 20;

/// Reads a message's body and checks it; gives the memory that reading took.
type Read = fn(&mut Reader<'_>, i16) -> usize;

/// The version, and a request's and a response's frame without their lengths.
type Empty = (i16, Vec<u8>, Vec<u8>);

struct Codec {
    key: i16,
    request: Read,
    response: Read,
    /// The frames of messages with nothing set, in every version: seeds.
    empty: fn() -> Vec<Empty>,
}

fn written<M: Message>(message: &M, version: i16) -> Vec<u8> {
    let mut writer = Writer::new();
    message.write(&mut writer, version);
    writer.bytes
}

/// What was read is what is written; not the very bytes, which may say the same in longer words.
fn checked<M: Message, E>(version: i16, read: impl FnOnce() -> Result<M, E>) -> usize {
    let (message, most) = memory::measured(read);
    let Ok(message) = message else { return most };
    let bytes = written(&message, version);
    let mut reader = Reader::new(&bytes);
    let again = M::read(&mut reader, version).expect("what was written can be read");
    reader.finish().expect("nothing is left over");
    // Not the messages: one that holds a NaN is not even equal to itself.
    assert_eq!(written(&again, version), bytes, "{} v{version}", M::NAME);
    most
}

macro_rules! codecs {
    ($($api:ident $request:ident $response:ident;)*) => {
        const CODECS: &[Codec] = &[$(Codec {
            key: <api::$api::$request as Message>::KEY,
            request: |reader, version| {
                checked(version, || read_request::<api::$api::$request>(reader, version))
            },
            response: |reader, version| {
                let read = |reader| read_response::<api::$api::$response>(reader, version);
                checked(version, || read(reader).map(|(_, message)| message))
            },
            empty: || empty::<api::$api::$request, api::$api::$response>(),
        },)*];
    };
}

codecs! {
    add_offsets_to_txn AddOffsetsToTxnRequest AddOffsetsToTxnResponse;
    add_partitions_to_txn AddPartitionsToTxnRequest AddPartitionsToTxnResponse;
    alter_client_quotas AlterClientQuotasRequest AlterClientQuotasResponse;
    alter_configs AlterConfigsRequest AlterConfigsResponse;
    alter_partition_reassignments AlterPartitionReassignmentsRequest AlterPartitionReassignmentsResponse;
    alter_replica_log_dirs AlterReplicaLogDirsRequest AlterReplicaLogDirsResponse;
    api_versions ApiVersionsRequest ApiVersionsResponse;
    consumer_group_describe ConsumerGroupDescribeRequest ConsumerGroupDescribeResponse;
    consumer_group_heartbeat ConsumerGroupHeartbeatRequest ConsumerGroupHeartbeatResponse;
    create_acls CreateAclsRequest CreateAclsResponse;
    create_partitions CreatePartitionsRequest CreatePartitionsResponse;
    create_topics CreateTopicsRequest CreateTopicsResponse;
    delete_acls DeleteAclsRequest DeleteAclsResponse;
    delete_groups DeleteGroupsRequest DeleteGroupsResponse;
    delete_records DeleteRecordsRequest DeleteRecordsResponse;
    delete_topics DeleteTopicsRequest DeleteTopicsResponse;
    describe_client_quotas DescribeClientQuotasRequest DescribeClientQuotasResponse;
    describe_acls DescribeAclsRequest DescribeAclsResponse;
    describe_cluster DescribeClusterRequest DescribeClusterResponse;
    describe_configs DescribeConfigsRequest DescribeConfigsResponse;
    describe_groups DescribeGroupsRequest DescribeGroupsResponse;
    describe_log_dirs DescribeLogDirsRequest DescribeLogDirsResponse;
    describe_producers DescribeProducersRequest DescribeProducersResponse;
    describe_quorum DescribeQuorumRequest DescribeQuorumResponse;
    describe_topic_partitions DescribeTopicPartitionsRequest DescribeTopicPartitionsResponse;
    describe_transactions DescribeTransactionsRequest DescribeTransactionsResponse;
    describe_user_scram_credentials DescribeUserScramCredentialsRequest DescribeUserScramCredentialsResponse;
    elect_leaders ElectLeadersRequest ElectLeadersResponse;
    end_txn EndTxnRequest EndTxnResponse;
    fetch FetchRequest FetchResponse;
    find_coordinator FindCoordinatorRequest FindCoordinatorResponse;
    heartbeat HeartbeatRequest HeartbeatResponse;
    incremental_alter_configs IncrementalAlterConfigsRequest IncrementalAlterConfigsResponse;
    init_producer_id InitProducerIdRequest InitProducerIdResponse;
    join_group JoinGroupRequest JoinGroupResponse;
    leave_group LeaveGroupRequest LeaveGroupResponse;
    list_config_resources ListConfigResourcesRequest ListConfigResourcesResponse;
    list_groups ListGroupsRequest ListGroupsResponse;
    list_offsets ListOffsetsRequest ListOffsetsResponse;
    list_partition_reassignments ListPartitionReassignmentsRequest ListPartitionReassignmentsResponse;
    list_transactions ListTransactionsRequest ListTransactionsResponse;
    metadata MetadataRequest MetadataResponse;
    offset_commit OffsetCommitRequest OffsetCommitResponse;
    offset_delete OffsetDeleteRequest OffsetDeleteResponse;
    offset_fetch OffsetFetchRequest OffsetFetchResponse;
    offset_for_leader_epoch OffsetForLeaderEpochRequest OffsetForLeaderEpochResponse;
    produce ProduceRequest ProduceResponse;
    sync_group SyncGroupRequest SyncGroupResponse;
    txn_offset_commit TxnOffsetCommitRequest TxnOffsetCommitResponse;
    update_features UpdateFeaturesRequest UpdateFeaturesResponse;
    write_txn_markers WriteTxnMarkersRequest WriteTxnMarkersResponse;
}

fn empty<Q: Message, A: Message>() -> Vec<Empty> {
    let both = Q::VERSIONS.map(|version| {
        let header = RequestHeader {
            api_key: Q::KEY,
            api_version: version,
            correlation_id: 1,
            client_id: Some("c".into()),
        };
        let request = ottla::wire::write_request(&header, &Q::default()).bytes;
        let response = ottla::wire::write_response(1, version, &A::default()).bytes;
        (version, request[4..].to_vec(), response[4..].to_vec())
    });
    both.collect()
}

/// A frame of each request, and an input of each response, in its first and last version, with nothing set.
pub fn seeds() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    assert!(api::APIS.iter().all(|api| codec(api.key).is_some()));
    let (mut requests, mut responses) = (Vec::new(), Vec::new());
    for codec in CODECS {
        let all = (codec.empty)();
        for (version, request, response) in all.iter().take(1).chain(all.iter().skip(1).last()) {
            requests.push(request.clone());
            let head = [codec.key.to_be_bytes(), version.to_be_bytes()].concat();
            responses.push([head, response.clone()].concat());
        }
    }
    requests.push(no_text());
    (requests, responses)
}

/// Metadata v0 for topics whose names are no UTF-8: each byte of them becomes three.
fn no_text() -> Vec<u8> {
    let mut frame = vec![0, 3, 0, 0, 0, 0, 0, 1, 255, 255, 0, 0, 0, 5];
    for _ in 0..5 {
        mutate::put_piece(&mut frame, &[0xff; 10_900]);
    }
    frame
}

fn codec(key: i16) -> Option<&'static Codec> {
    CODECS.iter().find(|codec| codec.key == key)
}

/// As the broker reads a request: from a frame, its array elements out of their budget.
pub fn requests(input: &[u8]) -> Taken {
    let frame = Arc::new(Frame::from(input.to_vec()));
    let mut reader = charged(Reader::of_frame(&frame));
    let mut most = 0;
    if let Ok(header) = RequestHeader::read(&mut reader)
        && let Some(codec) = codec(header.api_key)
    {
        most = (codec.request)(&mut reader, header.api_version);
    }
    taken(most, reader)
}

/// As a client reads a response.
pub fn responses(input: &[u8]) -> Taken {
    let mut rest = input;
    let head = (mutate::i16(&mut rest), mutate::i16(&mut rest));
    let mut reader = charged(Reader::new(rest));
    let mut most = 0;
    if let (Some(key), Some(version)) = head
        && let Some(codec) = codec(key)
    {
        most = (codec.response)(&mut reader, version);
    }
    taken(most, reader)
}

fn charged(reader: Reader<'_>) -> Reader<'_> {
    reader.with_memory(Budget::new(ELEMENT_BYTES_MAX).charge())
}

fn taken(most: usize, reader: Reader<'_>) -> Taken {
    Taken {
        most,
        from_budgets: reader.into_memory().map_or(0, |memory| memory.bytes()),
    }
}
