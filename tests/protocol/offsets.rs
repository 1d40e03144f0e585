//! ListOffsets: offsets by time, exact to the record.

use crate::common::client::{Client, LONG_AGO_MS, altered, batch, list_offsets, records};
use crate::common::codecs::{CODECS, compress};
use crate::start;
use ottla::api::list_offsets::ListOffsetsResponse;
use ottla::batch::builder::Builder;
use ottla::compress::Codec;
use ottla::error::ErrorCode;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

/// KAFKA-17331: each special timestamp has the version that brought it.
#[test]
fn special_timestamps_each_in_its_version() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    client.store("t", &batch(&["a", "b", "c"]));
    for (timestamp, since, offset) in [
        (LATEST, 1, 3),
        (EARLIEST, 1, 0),
        (MAX_TIMESTAMP, 7, 2),
        (EARLIEST_LOCAL, 8, 0),
        (LATEST_TIERED, 9, -1),
        (EARLIEST_PENDING_UPLOAD, 11, -1),
        (-7, 12, -1),
        (i64::MIN, 12, -1),
    ] {
        for version in 1..=11 {
            let found = client.offset_in(version, "t", timestamp);
            let expected = match version < since {
                true => (ErrorCode::UnsupportedVersion.code(), -1),
                false => (0, offset),
            };
            let got = (found.error_code, found.offset);
            assert_eq!(got, expected, "{timestamp} in v{version}");
        }
    }
    let newest = client.offset("t", MAX_TIMESTAMP);
    assert_eq!(newest.timestamp, LONG_AGO_MS + 2);
}

#[test]
fn an_empty_partition_has_an_end_and_no_times() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    for (timestamp, offset) in [(LATEST, 0), (EARLIEST, 0), (MAX_TIMESTAMP, -1), (0, -1)] {
        let found = client.offset("t", timestamp);
        assert_eq!((found.error_code, found.offset), (0, offset), "{timestamp}");
        assert_eq!(found.timestamp, -1);
    }
    assert_eq!(client.offset("none", LATEST).error_code, 3);
}

/// Ten records, ten milliseconds apart, from `first` on.
fn ten(first: i64) -> Builder {
    let mut builder = Builder::new(first);
    for n in 0..10 {
        builder.add(None, Some(b"v"), &[], first + 10 * n);
    }
    builder
}

fn packed(builder: &Builder, codec: Codec) -> Vec<u8> {
    builder.build_from(codec, &compress(codec, builder.records()))
}

/// The record itself is found, also within a compressed batch; and the first one at or after the time.
fn check_exact(client: &mut Client, topic: &str) {
    for (batch, _) in (0i64..).zip(CODECS) {
        for record in 0..10 {
            let (offset, time) = (
                10 * batch + record,
                LONG_AGO_MS + 1000 * batch + 10 * record,
            );
            for asked in [time - 9, time] {
                let found = client.offset(topic, asked);
                let got = (found.error_code, found.offset, found.timestamp);
                // Before a batch's first record lies only a gap.
                assert_eq!(got, (0, offset, time), "{asked}");
            }
        }
    }
    let last = LONG_AGO_MS + 4090;
    assert_eq!(client.offset(topic, last + 1).offset, -1);
    let newest = client.offset(topic, MAX_TIMESTAMP);
    assert_eq!((newest.offset, newest.timestamp), (49, last));
}

#[test]
fn a_time_finds_its_record_inside_compressed_batches() {
    let (_data, _broker, mut client) = start(&[]);
    for (topic, segment) in [("one", "100000"), ("many", "300")] {
        client.create(topic, &[("segment.bytes", segment)]);
        for (at, codec) in (0..).zip(CODECS) {
            client.store(topic, &packed(&ten(LONG_AGO_MS + 1000 * at), codec));
        }
        check_exact(&mut client, topic);
    }
}

/// RP PR#25200: Sarama leaves max timestamp unset, so the broker computes it, and stores it as it came.
#[test]
fn a_batch_without_max_timestamp_is_found_by_time() {
    let (data, broker, mut client) = start(&[]);
    client.create("t", &[]);
    for (at, codec) in (0..).zip(CODECS) {
        let sent = packed(&ten(LONG_AGO_MS + 1000 * at), codec);
        let unset = altered(&sent, |h| h.max_timestamp = -1);
        client.store("t", &unset);
    }
    check_exact(&mut client, "t");
    broker.kill();
    let broker = crate::common::Broker::start(data.path(), &[]);
    check_exact(&mut Client::connect(&broker.address), "t");
}

/// Times need not ascend: the first record at or after the time counts, in the order of offsets.
#[test]
fn times_that_go_back() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    let mut builder = Builder::new(5000);
    for time in [5000, 9000, 1000, 7000] {
        builder.add(None, Some(b"v"), &[], time);
    }
    client.store("t", &builder.build());
    client.store("t", &Builder::new(2000).add(None, None, &[], 2000).build());
    for (asked, offset, time) in [
        (0, 0, 5000),
        (5001, 1, 9000),
        (9000, 1, 9000),
        (9001, -1, -1),
    ] {
        let found = client.offset("t", asked);
        assert_eq!((found.offset, found.timestamp), (offset, time), "{asked}");
    }
    let newest = client.offset("t", MAX_TIMESTAMP);
    assert_eq!((newest.offset, newest.timestamp), (1, 9000));
}

/// Promise P2: what acks=1 was answered for is found by whoever asks next.
#[test]
fn acks_1_finds_its_own_writes_by_time() {
    let (_data, broker, mut client) = start(&[]);
    client.create("t", &[]);
    let mut reader = Client::connect(&broker.address);
    for written in 0..200 {
        let time = LONG_AGO_MS + written;
        let mut builder = Builder::new(time);
        builder.add(None, Some(b"a"), &[], time);
        let answer = client.produce("t", 1, &builder.build());
        assert_eq!((answer.error_code, answer.base_offset), (0, written));
        for asked in [time, MAX_TIMESTAMP] {
            let found = reader.offset("t", asked);
            assert_eq!((found.offset, found.timestamp), (written, time));
        }
    }
}

#[test]
fn several_partitions_are_answered_in_order() {
    let (_data, _broker, mut client) = start(&[]);
    client.create_with("t", 2, &[]);
    client.store("t", &records(&["a"]).build());
    let mut request = list_offsets("t", LATEST, -1);
    for index in [1, 2] {
        let mut other = request.topics[0].partitions[0].clone();
        other.partition_index = index;
        request.topics[0].partitions.push(other);
    }
    let answer: ListOffsetsResponse = client.call(8, &request);
    let of = &answer.topics[0].partitions;
    let got: Vec<_> = of
        .iter()
        .map(|p| (p.partition_index, p.error_code, p.offset))
        .collect();
    assert_eq!(got, [(0, 0, 1), (1, 0, 0), (2, 3, -1)]);
}

#[test]
fn a_partition_that_is_named_twice_is_refused() {
    let (_data, _broker, mut client) = start(&[]);
    client.create_with("t", 2, &[]);
    let mut request = list_offsets("t", LATEST, -1);
    let mut other = request.topics[0].partitions[0].clone();
    request.topics[0].partitions.push(other.clone());
    other.partition_index = 1;
    request.topics[0].partitions.push(other);
    let answer: ListOffsetsResponse = client.call(8, &request);
    let codes = answer.topics[0].partitions.iter().map(|p| p.error_code);
    assert_eq!(codes.collect::<Vec<_>>(), [42, 42, 0]);
}
