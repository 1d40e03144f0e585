//! Bytes written by others, or by hand from Kafka's definitions, against our codec; and bytes of ill will.

use super::frame::{FileSlice, Frame, Records};
use super::header::{read_request, write_request, write_response};
use super::metadata_records::*;
use super::{Malformed, Message, Reader, RequestHeader, Uuid, Writer};
use crate::api::{api_versions::*, delete_topics::*, fetch::*, list_offsets::*, metadata::*};
use crate::api::{describe_topic_partitions::*, produce::*};
use std::sync::Arc;

/// Bytes as they stand in a listing; white space means nothing.
pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn read<M: Message>(bytes: &[u8], version: i16) -> Result<M, Malformed> {
    M::read(&mut Reader::new(bytes), version)
}

fn written<M: Message>(message: &M, version: i16) -> Vec<u8> {
    let mut writer = Writer::new();
    message.write(&mut writer, version);
    writer.bytes
}

/// What the process has mapped at its largest, in KiB: even an allocation that is never touched counts.
fn mapped_max_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmPeak")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// CVE-2022-34917; kafka-protocol-rs PR#152 and PR#200: 8 bytes allocate 3.6 GiB; a peer dies of a 30-byte Metadata
/// frame whose array length is 2^31-1.
#[test]
fn an_announced_count_allocates_nothing() {
    let before = mapped_max_kib();
    let mut plain = i32::MAX.to_be_bytes().to_vec();
    plain.resize(30, 0);
    assert!(read::<MetadataRequest>(&plain, 1).is_err());
    assert!(read::<MetadataRequest>(&hex("ffffffff0f00"), 12).is_err());
    assert!(read::<DeleteTopicsRequest>(&plain, 1).is_err());
    assert!(read::<ApiVersionsResponse>(&hex("0000 7fffffff"), 0).is_err());
    // A string, bytes, a tagged field, and a number of tagged fields.
    assert!(read::<ApiVersionsRequest>(&hex("ffffffff0f"), 3).is_err());
    assert!(read::<ApiVersionsRequest>(&hex("0101 01 05 ffffffff0f"), 3).is_err());
    assert!(read::<ApiVersionsRequest>(&hex("0101 ffffffff0f"), 3).is_err());
    assert!(Reader::new(&hex("7fffffff")).bytes(false).is_err());
    assert!(mapped_max_kib() - before < 1 << 20);
}

/// An empty name costs two bytes on the wire and 24 and more in memory; a frame may hold 50 million of them.
#[test]
fn more_than_a_hundred_thousand_elements_are_refused() {
    let mut bytes = 1_500_000u32.to_be_bytes().to_vec();
    bytes.resize(4 + 2 * 1_500_000 + 4, 0);
    let error = read::<DeleteTopicsRequest>(&bytes, 1).unwrap_err();
    assert_eq!(error.what, "more than a hundred thousand array elements");
    assert_eq!(error.field, "topic_names");
}

#[test]
fn null_is_refused_in_versions_that_have_none() {
    assert_eq!(
        read::<MetadataRequest>(&hex("ffffffff"), 1).unwrap().topics,
        None
    );
    assert!(read::<MetadataRequest>(&hex("ffffffff"), 0).is_err());
    let topic = "00000001 ffff 01";
    assert!(read::<MetadataRequest>(&hex(topic), 4).is_err());
    let by_id = MetadataRequestTopic {
        topic_id: Uuid([7; 16]),
        name: None,
    };
    let request = MetadataRequest {
        topics: Some(vec![by_id]),
        ..Default::default()
    };
    let bytes = written(&request, 12);
    assert_eq!(
        bytes,
        hex("02 07070707070707070707070707070707 00 00 01 00 00")
    );
    // Where a version knows no null, the empty value stands for it.
    assert_eq!(written(&MetadataRequest::default(), 0), hex("00000000"));
}

/// FACTS: an unknown ApiVersions version is answered, so its header must be readable.
#[test]
fn the_header_of_an_unknown_version_is_read() {
    let frame = hex("0012 0063 00000005 0003 616263 00 ff ff ff");
    let header = RequestHeader::read(&mut Reader::new(&frame)).unwrap();
    assert_eq!((header.api_key, header.api_version), (18, 99));
    assert_eq!(header.correlation_id, 5);
    assert_eq!(header.client_id.as_deref(), Some("abc"));
}

/// KIP-511: ApiVersions' response header is v0 (no tagged fields) in the flexible versions too.
#[test]
fn the_api_versions_response_has_the_old_header() {
    let response = ApiVersionsResponse {
        api_keys: vec![ApiVersion {
            api_key: 18,
            min_version: 0,
            max_version: 4,
        }],
        ..Default::default()
    };
    let frame = write_response(9, 3, &response);
    let length = "00000013";
    let golden = format!("{length} 00000009 0000 02 0012 0000 0004 00 00000000 00");
    assert_eq!(frame.bytes, hex(&golden));
}

#[test]
fn bytes_after_the_body_are_ignored_as_in_kafka() {
    let bytes = hex("00 01 01 00 ffff");
    let mut reader = Reader::new(&bytes);
    let request = read_request::<ApiVersionsRequest>(&mut reader, 3);
    assert_eq!(request, Ok(ApiVersionsRequest::default()));
    assert_eq!(reader.remaining(), 2);
}

/// Version 11 is newer than the oracle: its layout is that of version 10 (KIP-1023).
#[test]
fn list_offsets_11() {
    let bytes = hex("ffffffff 00 02 0274 02 00000000 ffffffff fffffffffffffffa 00 00 00007530 00");
    let request: ListOffsetsRequest = read(&bytes, 11).unwrap();
    assert_eq!(request.topics[0].partitions[0].timestamp, -6);
    assert_eq!((request.replica_id, request.timeout_ms), (-1, 30_000));
    assert_eq!(written(&request, 11), bytes);
}

#[test]
fn a_nullable_struct_has_a_byte_in_front() {
    let mut request = DescribeTopicPartitionsRequest::default();
    assert_eq!(written(&request, 0), hex("01 000007d0 ff 00"));
    request.cursor = Some(Cursor {
        topic_name: "t".into(),
        partition_index: 3,
    });
    assert_eq!(
        written(&request, 0),
        hex("01 000007d0 01 0274 00000003 00 00")
    );
}

/// DESIGN, zero copy: produced bytes are never copied out of the frame that was read.
#[test]
fn produced_records_are_a_span_of_the_frame() {
    let records = Records::Held(vec![5; 100].into());
    let partition_data = vec![PartitionProduceData { index: 0, records }];
    let topic = TopicProduceData {
        partition_data,
        ..Default::default()
    };
    let request = ProduceRequest {
        topic_data: vec![topic],
        ..Default::default()
    };
    let header = RequestHeader {
        api_key: 0,
        api_version: 9,
        correlation_id: 1,
        client_id: None,
    };
    let mut bytes = write_request(&header, &request).bytes;
    let frame = Arc::new(Frame::from(bytes.split_off(4)));

    let mut reader = Reader::of_frame(&frame);
    assert_eq!(RequestHeader::read(&mut reader), Ok(header));
    let back: ProduceRequest = read_request(&mut reader, 9).unwrap();
    assert_eq!(back, request);
    let Records::Held(held) = &back.topic_data[0].partition_data[0].records else {
        panic!("records were sent");
    };
    assert!(frame.as_ptr_range().contains(&held.as_ptr()));
}

/// Records in files leave holes; lengths count what goes into them, and the fields after them follow the holes.
#[test]
fn fetched_files_are_holes_in_the_response() {
    let file = Arc::new(tempfile::tempfile().unwrap());
    let slice = |position, len| FileSlice {
        file: file.clone(),
        position,
        len,
    };
    let partition = PartitionData {
        records: Records::Files(vec![slice(61, 300), slice(0, 70_000)]),
        ..Default::default()
    };
    let topic = FetchableTopicResponse {
        partitions: vec![partition],
        ..Default::default()
    };
    let response = FetchResponse {
        responses: vec![topic],
        ..Default::default()
    };
    let writer = write_response(1, 12, &response);
    let length = i32::from_be_bytes(*writer.bytes.first_chunk().unwrap()) as u64;
    assert_eq!(length + 4, writer.total_bytes());
    assert_eq!(writer.total_bytes(), writer.bytes.len() as u64 + 70_300);

    // 70301 as a varint stands before the holes, the tags of partition, topic and response after them.
    let (before, after) = writer.bytes.split_at(writer.holes[0].at);
    assert!(before.ends_with(&hex("9da504")));
    assert_eq!(after, [0, 0, 0]);
    let lens: Vec<u32> = writer.holes.iter().map(|hole| hole.slice.len).collect();
    assert_eq!(
        (lens, writer.holes[1].at),
        (vec![300, 70_000], before.len())
    );
}

#[test]
fn varints_at_their_limits() {
    for (bytes, value) in [
        ("00", 0),
        ("7f", 127),
        ("8001", 128),
        ("ffffffff0f", u32::MAX),
    ] {
        assert_eq!(Reader::new(&hex(bytes)).unsigned_varint(), Ok(value));
        let mut writer = Writer::new();
        writer.unsigned_varint(value);
        assert_eq!(writer.bytes, hex(bytes));
    }
    for value in [0, -1, 1, 300, i64::MAX, i64::MIN] {
        let mut writer = Writer::new();
        writer.varlong(value);
        writer.varint(value as i32);
        let mut reader = Reader::new(&writer.bytes);
        assert_eq!(reader.varlong(), Ok(value));
        assert_eq!(reader.varint(), Ok(value as i32));
    }
    assert!(Reader::new(&hex("ffffffff1f")).unsigned_varint().is_err());
    assert!(Reader::new(&hex("808080808001")).unsigned_varint().is_err());
    assert!(Reader::new(&hex("ffffffffffffffffff02")).varlong().is_err());
}

#[test]
fn an_overlong_string_is_cut_at_a_character() {
    let mut writer = Writer::new();
    writer.string(Some(&"ß".repeat(20_000)), false);
    let back = Reader::new(&writer.bytes).string(false).unwrap().unwrap();
    assert_eq!(back.len(), 32_766);
}

#[test]
fn what_is_not_utf8_is_replaced_as_in_kafka() {
    let text = Reader::new(&hex("0002 41ff")).string(false).unwrap();
    assert_eq!(text.as_deref(), Some("A\u{fffd}"));
}

#[test]
fn uuids_as_kafka_prints_them() {
    let mut one = Uuid::ZERO;
    one.0[15] = 1;
    assert_eq!(Uuid::ZERO.to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
    assert_eq!(one.to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
    let id = Uuid(
        *hex("00112233445566778899aabbccddeeff")
            .first_chunk()
            .unwrap(),
    );
    assert_eq!(id.to_string(), "ABEiM0RVZneImaq7zN3u_w");
    assert_eq!(id.to_string().parse(), Ok(id));
    let random = Uuid::random().unwrap();
    assert_eq!(random.to_string().parse(), Ok(random));
    for wrong in [
        "",
        "ABEiM0RVZneImaq7zN3u_",
        "ABEiM0RVZneImaq7zN3u_wA",
        "ABEiM0RVZneImaq7zN3u_x",
    ] {
        assert!(wrong.parse::<Uuid>().is_err());
    }
}

/// The values of a `__cluster_metadata-0` that Apache Kafka wrote.
#[test]
fn kafkas_own_metadata_records() {
    let feature = hex("01 0c 00 11 6d657461646174612e76657273696f6e 0014 00");
    let MetadataRecord::FeatureLevel(level) = MetadataRecord::decode(&feature).unwrap() else {
        panic!("not a feature level");
    };
    assert_eq!(
        (&*level.name, level.feature_level),
        ("metadata.version", 20)
    );

    let topic = hex("01 02 00 04 73617a 00000000000040008000000000000091 00");
    let partition = hex(
        "01 03 01 00000001 00000000000040008000000000000091 02 00000001 02 00000001 01 01
         00000001 00000000 00000000 02 10000000000040008000000000000001 00",
    );
    for value in [feature, topic, hex("01 14 00 00")] {
        assert_eq!(MetadataRecord::decode(&value).unwrap().encode(), value);
    }
    let record = MetadataRecord::decode(&partition).unwrap();
    // Written in version 2, which without eligible leader replicas has the layout of version 1.
    let mut newer = partition;
    newer[2] = 2;
    assert_eq!(record.encode(), newer);
    let MetadataRecord::Partition(record) = record else {
        panic!("not a partition");
    };
    assert_eq!((record.partition_id, record.leader), (1, 1));
    assert_eq!((record.replicas, record.directories.len()), (vec![1], 1));
}

/// All tagged fields of a change, in the order of their tags though Kafka's definition lists tag 8 before 6.
#[test]
fn a_partition_change_by_hand() {
    let change = PartitionChangeRecord {
        partition_id: 1,
        isr: Some(vec![1]),
        leader: 1,
        leader_recovery_state: 0,
        last_known_elr: Some(vec![]),
        directories: Some(vec![Uuid::ZERO]),
        ..Default::default()
    };
    let bytes = hex("01 05 02 00000001 00000000000000000000000000000000
         05  00 05 02 00000001  01 04 00000001  05 01 00  07 01 01
         08 11 02 00000000000000000000000000000000");
    let record = MetadataRecord::PartitionChange(change);
    assert_eq!(record.encode(), bytes);
    assert_eq!(MetadataRecord::decode(&bytes), Ok(record));
}

#[test]
fn an_unknown_metadata_record_is_stepped_over() {
    let later = hex("01 b90a 07 0102030405");
    let record = MetadataRecord::decode(&later).unwrap();
    assert!(matches!(&record, MetadataRecord::Unknown(r) if (r.key, r.version) == (1337, 7)));
    assert_eq!(record.encode(), later);
    // But a type that must be understood is not, nor is garbage.
    assert!(MetadataRecord::decode(&hex("01 14 01 00")).is_err());
    assert!(MetadataRecord::decode(&hex("01 14 00 00 00")).is_err());
    assert!(MetadataRecord::decode(&hex("00 14 00 00")).is_err());
    assert!(MetadataRecord::decode(&[]).is_err());
}

/// What librdkafka 2.12.1 sent to a broker of these tables: it reads, and writes back as it was.
#[test]
fn a_session_of_librdkafka() {
    let client = "0007 72646b61666b61";
    let no_id = "00000000000000000000000000000000";
    let epoch = "ffffffff";
    let session = [
        format!("0012 0003 00000001 {client} 00 0b6c696272646b61666b61 07322e31322e31 00"),
        format!("0003 000d 00000002 {client} 00 02 {no_id} 0274 00 01 00 00"),
        format!(
            "0000 000a 00000002 {client} 00 00 ffff 00007530 02 0274 02 00000000 4b
             0000000000000000 0000003e 00000000 02 bf2760e5 0000 00000000 000001a206079ae1 000001a206079ae1
             ffffffffffffffff ffff ffffffff 00000001 18 00 00 00 02 6b 0a 68656c6c6f 00 00 00 00"
        ),
        format!("0002 0007 00000002 {client} 00 ffffffff 01 02 0274 02 00000000 00000000 fffffffffffffffe 00 00 00"),
        format!(
            "0001 0010 00000003 {client} 00 000001f4 00000001 03200000 01 00000000 {epoch}
             02 07070707070707070707070707070707 02 00000000 00000000 0000000000000000 {epoch}
             ffffffffffffffff 00100000 00 00 01 01 00"
        ),
    ];
    let [versions, metadata, produce, list, fetch] = session.map(|text| hex(&text));
    let message: ApiVersionsRequest = reread(versions);
    assert_eq!(message.client_software_name, "librdkafka");
    let message: MetadataRequest = reread(metadata);
    assert!(message.allow_auto_topic_creation);
    let message: ProduceRequest = reread(produce);
    let records = &message.topic_data[0].partition_data[0].records;
    assert!(matches!(records, Records::Held(bytes) if bytes.len() == 74));
    let message: ListOffsetsRequest = reread(list);
    assert_eq!(message.topics[0].partitions[0].timestamp, -2);
    let message: FetchRequest = reread(fetch);
    assert_eq!(message.topics[0].partitions[0].partition_max_bytes, 1 << 20);
}

fn reread<M: Message>(frame: Vec<u8>) -> M {
    let mut reader = Reader::new(&frame);
    let header = RequestHeader::read(&mut reader).unwrap();
    assert_eq!(header.api_key, M::KEY);
    let message: M = read_request(&mut reader, header.api_version).unwrap();
    assert_eq!(write_request(&header, &message).bytes[4..], frame);
    message
}
