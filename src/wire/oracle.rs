//! The oracle: random messages of every API and version go through our codec and through that of the crate
//! `kafka-protocol`, which is generated from Kafka 4.1's own definitions; both must agree on every byte. Then the
//! same messages are damaged, and no damage may make a reader panic.

use super::metadata_records::*;
use super::{
    Message, Reader, RequestHeader, Writer, read_request, read_response, write_request,
    write_response,
};
use crate::api;
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as kafka;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::any::type_name;

/// Random messages tried for each API, direction and version.
const ROUNDS: usize = 100;

fn seeded() -> StdRng {
    let seed = match std::env::var("OTTLA_SEED") {
        Ok(text) => text.parse().expect("OTTLA_SEED is a number"),
        Err(_) => rand::rng().random(),
    };
    println!("OTTLA_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

fn written<M: Message>(message: &M, version: i16) -> Vec<u8> {
    let mut writer = Writer::new();
    message.write(&mut writer, version);
    writer.bytes
}

fn read<M: Message>(bytes: &[u8], version: i16) -> M {
    let mut reader = Reader::new(bytes);
    let message = M::read(&mut reader, version).unwrap();
    reader.finish().unwrap();
    message
}

fn theirs<T: Decodable>(bytes: &[u8], version: i16) -> T {
    let mut rest = Bytes::copy_from_slice(bytes);
    let message = T::decode(&mut rest, version).unwrap_or_else(|e| {
        panic!(
            "the oracle cannot read {} v{version}: {e}",
            type_name::<T>()
        )
    });
    assert!(rest.is_empty(), "{} v{version}", type_name::<T>());
    message
}

fn encoded<T: Encodable>(message: &T, version: i16) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    message.encode(&mut bytes, version).unwrap();
    bytes.to_vec()
}

/// Runs one message through both codecs, there and back. `mark` puts an unknown tagged field into theirs, which
/// ours must step over.
fn compare<M: Message, T: Encodable + Decodable>(message: &M, version: i16, mark: impl Fn(&mut T)) {
    let bytes = written(message, version);
    let mut other: T = theirs(&bytes, version);
    assert_eq!(encoded(&other, version), bytes, "v{version} {message:?}");
    if version >= M::FLEXIBLE {
        mark(&mut other);
        assert_eq!(*message, read::<M>(&encoded(&other, version), version));
    }
}

/// The header in front of a message is the one that the oracle expects there.
fn compare_request_frame<M: Message, T: HeaderVersion>(message: &M, version: i16) {
    let header = RequestHeader {
        api_key: M::KEY,
        api_version: version,
        correlation_id: 7,
        client_id: Some("client".into()),
    };
    let frame = write_request(&header, message).bytes;
    let length = usize::try_from(i32::from_be_bytes(*frame.first_chunk().unwrap())).unwrap();
    assert_eq!(length, frame.len() - 4);

    let (head, body) = frame[4..].split_at(length - written(message, version).len());
    let other: kafka::RequestHeader = theirs(head, T::header_version(version));
    let client = other.client_id.as_deref();
    assert_eq!(
        (other.request_api_key, other.request_api_version),
        (M::KEY, version)
    );
    assert_eq!((other.correlation_id, client), (7, Some("client")));

    let mut reader = Reader::new(&frame[4..]);
    assert_eq!(RequestHeader::read(&mut reader), Ok(header));
    assert_eq!(
        read_request::<M>(&mut reader, version).as_ref(),
        Ok(message)
    );
    assert_eq!(body, written(message, version));
}

fn compare_response_frame<M: Message, T: HeaderVersion>(message: &M, version: i16) {
    let frame = write_response(7, version, message).bytes;
    let head_end = frame.len() - written(message, version).len();
    let other: kafka::ResponseHeader = theirs(&frame[4..head_end], T::header_version(version));
    assert_eq!(other.correlation_id, 7);
    let mut reader = Reader::new(&frame[4..]);
    assert_eq!(
        read_response::<M>(&mut reader, version),
        Ok((7, message.clone()))
    );
}

/// What was written reads back as it was, and cut or flipped anywhere it reads as something or as malformed.
fn damage<M: Message>(rng: &mut StdRng, message: &M, version: i16) {
    let mut bytes = written(message, version);
    assert_eq!(*message, read::<M>(&bytes, version));
    for _ in 0..20.min(bytes.len()) {
        let cut = rng.random_range(0..bytes.len());
        assert!(M::read(&mut Reader::new(&bytes[..cut]), version).is_err());
    }
    for _ in 0..20.min(bytes.len()) {
        let place = rng.random_range(0..bytes.len());
        bytes[place] ^= 1 << rng.random_range(0..8);
        let _ = M::read(&mut Reader::new(&bytes), version);
    }
}

/// One test for each API; the number is the oracle's newest version where ours has a newer one, `plain` says that
/// no version is flexible.
macro_rules! agree {
    ($($test:ident $request:ident $response:ident $($newest:literal)? $(, $plain:ident)?;)*) => {
        $(#[test]
        fn $test() {
            let rng = &mut seeded();
            assert_eq!(api::$test::$request::KEY, kafka::$request::KEY);
            for version in api::$test::$request::VERSIONS {
                // Produce v0-v2, which only we advertise (KAFKA-18659), have the layout of v3 less its first field.
                let oldest = <kafka::$request as kafka_protocol::protocol::Message>::VERSIONS.min;
                let known = (oldest..=i16::MAX $(.min($newest))?).contains(&version);
                for _ in 0..ROUNDS {
                    agree!(rng, version, known, compare_request_frame, $test $request $($plain)?);
                    agree!(rng, version, known, compare_response_frame, $test $response $($plain)?);
                }
            }
        })*

        #[test]
        fn every_api_has_its_oracle() {
            let compared = [$(api::$test::$request::KEY),*];
            assert!(api::APIS.iter().all(|api| compared.contains(&api.key)));
        }
    };
    ($rng:ident, $version:ident, $known:ident, $frame:ident, $api:ident $message:ident $($plain:ident)?) => {
        let shape = api::$api::$message::shape($version);
        let message = <api::$api::$message as super::field::Field>::random($rng, shape);
        damage($rng, &message, $version);
        if $known {
            compare(&message, $version, |other: &mut kafka::$message| {
                agree!(mark other $($plain)?);
            });
            $frame::<_, kafka::$message>(&message, $version);
        }
    };
    // A message without a flexible version has no tagged fields to be stepped over.
    (mark $other:ident plain) => {
        let _: &mut _ = $other;
    };
    (mark $other:ident) => {
        let tags = &mut $other.unknown_tagged_fields;
        tags.insert(99, Bytes::from_static(b"of a later version"));
    };
}

agree! {
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
    list_offsets ListOffsetsRequest ListOffsetsResponse 10;
    list_partition_reassignments ListPartitionReassignmentsRequest ListPartitionReassignmentsResponse;
    list_transactions ListTransactionsRequest ListTransactionsResponse;
    metadata MetadataRequest MetadataResponse;
    offset_commit OffsetCommitRequest OffsetCommitResponse 9;
    offset_delete OffsetDeleteRequest OffsetDeleteResponse, plain;
    offset_fetch OffsetFetchRequest OffsetFetchResponse 9;
    offset_for_leader_epoch OffsetForLeaderEpochRequest OffsetForLeaderEpochResponse;
    produce ProduceRequest ProduceResponse;
    sync_group SyncGroupRequest SyncGroupResponse;
    txn_offset_commit TxnOffsetCommitRequest TxnOffsetCommitResponse;
    update_features UpdateFeaturesRequest UpdateFeaturesResponse;
    write_txn_markers WriteTxnMarkersRequest WriteTxnMarkersResponse;
}

/// A record, there and back, and damaged.
fn check<M: Message>(rng: &mut StdRng) {
    for version in M::VERSIONS {
        for _ in 0..ROUNDS {
            let record = M::random(rng, M::shape(version));
            damage(rng, &record, version);
        }
    }
}

/// What `__consumer_offsets` holds, there and back, and damaged; the golden bytes are in `group::records`.
#[test]
fn group_records() {
    use crate::group::records::*;
    let rng = &mut seeded();
    check::<OffsetCommitValue>(rng);
    check::<GroupMetadataValue>(rng);
    check::<ConsumerGroupMetadataValue>(rng);
    check::<ConsumerGroupMemberMetadataValue>(rng);
    check::<ConsumerGroupTargetAssignmentMetadataValue>(rng);
    check::<ConsumerGroupTargetAssignmentMemberValue>(rng);
    check::<ConsumerGroupCurrentMemberAssignmentValue>(rng);
    check::<ConsumerGroupRegularExpressionValue>(rng);
}

/// What `__transaction_state` holds, likewise; the golden bytes are in `txn::records`.
#[test]
fn transaction_records() {
    check::<crate::txn::records::TransactionLogValue>(&mut seeded());
}

/// The oracle has no metadata records: ours alone, there and back, and damaged.
#[test]
fn metadata_records() {
    let rng = &mut seeded();
    check::<TopicRecord>(rng);
    check::<PartitionRecord>(rng);
    check::<ConfigRecord>(rng);
    check::<PartitionChangeRecord>(rng);
    check::<RemoveTopicRecord>(rng);
    check::<FeatureLevelRecord>(rng);
    check::<ClientQuotaRecord>(rng);
    check::<ProducerIdsRecord>(rng);
    check::<NoOpRecord>(rng);
}
