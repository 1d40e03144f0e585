//! Produce: what is stored, what is refused, and with which code.

use crate::common::client::{Client, altered, batch, batches, bytes, produce, records};
use crate::start;
use ottla::api::produce::{PartitionProduceData, ProduceRequest, ProduceResponse};
use ottla::batch::builder::Builder;
use ottla::batch::{CONTROL, HEADER_BYTES, LOG_APPEND_TIME, TRANSACTIONAL};
use ottla::compress::Codec;
use ottla::error::ErrorCode;
use ottla::wire::Records;

#[test]
fn acks_all_and_acks_1_are_answered_and_acks_0_is_not() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    for (offset, acks) in [(0, -1), (1, 1)] {
        let answer = client.produce("t", acks, &batch(&["a"]));
        assert_eq!((answer.error_code, answer.base_offset), (0, offset));
        assert_eq!(
            (answer.log_append_time_ms, answer.log_start_offset),
            (-1, 0)
        );
    }
    let unanswered = client.frame(9, &produce("t", 0, &batch(&["c"])));
    client.send_bytes(&unanswered);
    // The answer that comes next is that of the next request, in whose turn the first was stored.
    assert_eq!(client.store("t", &batch(&["d"])), 3);
}

#[test]
fn acks_that_kafka_does_not_know_are_refused() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    for acks in [2, -2, i16::MAX, i16::MIN] {
        let answer = client.produce("t", acks, &batch(&["a"]));
        assert_eq!(answer.error_code, ErrorCode::InvalidRequiredAcks.code());
    }
    assert_eq!(client.offset("t", -1).offset, 0);
}

/// There is no other way to tell the producer.
#[test]
fn a_refused_acks_0_produce_closes_the_connection() {
    let (_data, broker, mut client) = start(&[]);
    client.create("t", &[]);
    let broken = {
        let mut broken = batch(&["a"]);
        *broken.last_mut().unwrap() ^= 1;
        broken
    };
    for (topic, batch, code) in [("t", broken, 2), ("none", batch(&["a"]), 3)] {
        let mut other = Client::connect(&broker.address);
        let frame = other.frame(9, &produce(topic, 0, &batch));
        other.send_bytes(&frame);
        other.expect_close();
        broker.expect_log(&format!("acks=0 was refused with error {code}"));
    }
    // A refusal at the writer, not at the check: out of order.
    let (mut other, id) = (Client::connect(&broker.address), client.producer_id());
    for sequence in [0, 7] {
        let batch = records(&["a"]).producer(id, 0, sequence).build();
        let frame = other.frame(9, &produce("t", 0, &batch));
        other.send_bytes(&frame);
    }
    other.expect_close();
    broker.expect_log("acks=0 was refused with error 45");
    assert_eq!(client.offset("t", -1).offset, 1);
}

/// Clients split a batch on this code.
#[test]
fn a_batch_beyond_max_message_bytes_is_too_large() {
    let (_data, _broker, mut client) = start(&["message.max.bytes=2000"]);
    client.create("t", &[]);
    client.create("small", &[("max.message.bytes", "500")]);
    let of = |len: usize| {
        // A record's length and its value's take two bytes each, its other five fields one.
        let batch = batch(&[&"x".repeat(len - HEADER_BYTES - 9)]);
        assert_eq!(batch.len(), len);
        batch
    };
    client.store("t", &of(2000));
    client.refused("t", &of(2001), ErrorCode::MessageTooLarge);
    client.store("small", &of(500));
    client.refused("small", &of(501), ErrorCode::MessageTooLarge);
}

#[test]
fn one_batch_a_partition_and_no_more() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    let two = [batch(&["a"]), batch(&["b"])].concat();
    client.refused("t", &two, ErrorCode::InvalidRecord);
    let more = [batch(&["a"]), vec![0]].concat();
    client.refused("t", &more, ErrorCode::InvalidRecord);
    client.refused("t", &[], ErrorCode::InvalidRecord);
    let short = &batch(&["a"])[..65];
    client.refused("t", short, ErrorCode::InvalidRecord);
    let mut nothing = produce("t", -1, &[]);
    nothing.topic_data[0].partition_data[0].records = Records::Null;
    let answer: ProduceResponse = client.call(9, &nothing);
    let partition = &answer.responses[0].partition_responses[0];
    assert_eq!(partition.error_code, ErrorCode::InvalidRecord.code());
    assert_eq!(client.offset("t", -1).offset, 0);
}

#[test]
fn a_wrong_crc_is_a_corrupt_message() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    let good = batch(&["some value"]);
    for at in [17, 21, 30, HEADER_BYTES, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        client.refused("t", &bad, ErrorCode::CorruptMessage);
    }
    assert_eq!(client.store("t", &good), 0);
}

/// KAFKA-6554, RP PR#31363: what does not add up would break each consumer that reads it.
#[test]
fn records_that_do_not_add_up_are_refused() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    let good = batch(&["a", "b", "c"]);
    let refused = |client: &mut Client, batch: &[u8]| {
        client.refused("t", batch, ErrorCode::InvalidRecord);
    };
    for count in [0, 2, 4, -1, i32::MAX] {
        refused(&mut client, &altered(&good, |h| h.records_count = count));
        let delta = count.wrapping_add(7);
        refused(
            &mut client,
            &altered(&good, |h| h.last_offset_delta = delta),
        );
        let both = altered(&good, |h| {
            h.records_count = count;
            h.last_offset_delta = count.wrapping_sub(1);
        });
        refused(&mut client, &both);
    }
    refused(&mut client, &altered(&good, |h| h.base_offset = 5));
    let builder = records(&["a", "b"]);
    let body = builder.records();
    let half = body.len() / 2;
    let swapped = [&body[half..], &body[..half]].concat();
    refused(&mut client, &builder.build_from(Codec::None, &swapped));
    let short = &body[..body.len() - 1];
    refused(&mut client, &builder.build_from(Codec::None, short));
    let long = [body, &[0]].concat();
    refused(&mut client, &builder.build_from(Codec::None, &long));
    for at in 0..body.len() {
        let mut bad = body.to_vec();
        bad[at] = 0x7f;
        let answer = client.produce("t", -1, &builder.build_from(Codec::None, &bad));
        assert!([0, 32, 87].contains(&answer.error_code), "{answer:?}");
    }
}

#[test]
fn control_and_transactional_batches_are_refused() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    let id = client.producer_id();
    let of = |bits| records(&["a"]).producer(id, 0, 0).attributes(bits).build();
    client.refused("t", &of(CONTROL), ErrorCode::InvalidRecord);
    client.refused("t", &of(CONTROL | TRANSACTIONAL), ErrorCode::InvalidRecord);
    client.refused(
        "t",
        &of(TRANSACTIONAL),
        ErrorCode::TransactionalIdAuthorizationFailed,
    );
    client.refused("t", &of(LOG_APPEND_TIME), ErrorCode::InvalidTimestamp);
    let unsequenced = records(&["a"]).producer(id, 0, -1).build();
    client.refused("t", &unsequenced, ErrorCode::InvalidRecord);
    assert_eq!(client.store("t", &of(0)), 0, "the sequence was not taken");
}

#[test]
fn old_formats_and_unknown_codecs_are_refused() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    for (magic, code) in [
        (0, ErrorCode::InvalidRecord),
        (1, ErrorCode::InvalidRecord),
        (3, ErrorCode::CorruptMessage),
        (-1, ErrorCode::CorruptMessage),
    ] {
        let bad = altered(&batch(&["a"]), |h| h.magic = magic);
        client.refused("t", &bad, code);
    }
    for codec in 5..=7 {
        let bad = altered(&batch(&["a"]), |h| h.attributes = codec);
        client.refused("t", &bad, ErrorCode::UnsupportedCompressionType);
    }
}

/// KIP-110.
#[test]
fn zstd_needs_produce_7() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    let builder = records(&["a", "b"]);
    let packed = zstd::encode_all(builder.records(), 3).unwrap();
    let batch = builder.build_from(Codec::Zstd, &packed);
    for (version, code) in [(3, 76), (6, 76), (7, 0)] {
        let answer: ProduceResponse = client.call(version, &produce("t", -1, &batch));
        let partition = &answer.responses[0].partition_responses[0];
        assert_eq!(partition.error_code, code, "Produce {version}");
    }
}

/// KIP-467: clients that show them say which record it was.
#[test]
fn a_record_that_is_refused_is_named() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[("cleanup.policy", "compact")]);
    let now = i64::MAX / 2;
    let mut builder = Builder::new(now);
    builder.add(Some(b"k"), Some(b"v"), &[], -1);
    builder.add(Some(b"k"), Some(b"v"), &[], now);
    let answer = client.produce("t", -1, &builder.build());
    assert_eq!(answer.error_code, ErrorCode::InvalidTimestamp.code());
    assert_eq!(answer.record_errors[0].batch_index, 1);
    let answer = client.produce("t", -1, &batch(&["no key"]));
    assert_eq!(answer.error_code, ErrorCode::InvalidRecord.code());
    assert_eq!(answer.record_errors[0].batch_index, 0);
    assert!(answer.error_message.is_some());
}

#[test]
fn topics_and_partitions_that_are_not_there() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    let unknown = ErrorCode::UnknownTopicOrPartition;
    client.refused("none", &batch(&["a"]), unknown);
    for index in [1, -1, i32::MAX, i32::MIN] {
        let mut request = produce("t", -1, &batch(&["a"]));
        request.topic_data[0].partition_data[0].index = index;
        let answer: ProduceResponse = client.call(9, &request);
        let partition = &answer.responses[0].partition_responses[0];
        assert_eq!(partition.error_code, unknown.code());
    }
    let by_id: ProduceResponse = client.call(13, &produce("t", -1, &batch(&["a"])));
    let partition = &by_id.responses[0].partition_responses[0];
    assert_eq!(partition.error_code, ErrorCode::UnknownTopicId.code());
    let code = client
        .produce("__cluster_metadata", -1, &batch(&["a"]))
        .error_code;
    assert!([3, 17].contains(&code), "{code}");
}

/// Only who names itself as Kafka's own tools do may write to what the broker keeps for itself.
#[test]
fn internal_topics_are_written_by_the_admin_client_alone() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("__consumer_offsets", &[]);
    let request = produce("__consumer_offsets", -1, &batch(&["a"]));
    let mut code = |client_id: &str| {
        client.client_id = client_id.into();
        let answer: ProduceResponse = client.call(9, &request);
        answer.responses[0].partition_responses[0].error_code
    };
    assert_eq!(code("anyone"), ErrorCode::InvalidTopicException.code());
    assert_eq!(code("__admin_client"), 0);
}

/// One partition's refusal is its own.
#[test]
fn good_partitions_are_stored_beside_refused_ones() {
    let (_data, _broker, mut client) = start(&[]);
    client.create_with("t", 3, &[]);
    let data = |(index, batch): (i32, Vec<u8>)| PartitionProduceData {
        index,
        records: Records::Held(batch.into()),
    };
    let mut request: ProduceRequest = produce("t", -1, &[]);
    let parts = [(2, batch(&["a"])), (0, vec![0; 100]), (1, batch(&["b"]))];
    request.topic_data[0].partition_data = parts.map(data).into();
    let answer: ProduceResponse = client.call(9, &request);
    let answered = &answer.responses[0].partition_responses;
    let codes: Vec<_> = answered.iter().map(|p| (p.index, p.error_code)).collect();
    assert_eq!(codes, [(2, 0), (0, 2), (1, 0)]);
}

/// Promise P3: only base offset and leader epoch change.
#[test]
fn bytes_are_sacred() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    let builder = records(&["a", "b"]);
    let mut packed = Vec::new();
    lz4_frame(builder.records(), &mut packed);
    let sent = [batch(&["x", "y"]), builder.build_from(Codec::Lz4, &packed)];
    for batch in &sent {
        client.store("t", batch);
    }
    let data = client.fetch("t", 0);
    let stored = batches(bytes(&data.records));
    assert_eq!(stored.len(), sent.len());
    for (at, ((header, bytes), sent)) in stored.iter().zip(&sent).enumerate() {
        assert_eq!(
            (header.base_offset, header.partition_leader_epoch),
            (2 * at as i64, 0)
        );
        assert_eq!(bytes[8..12], sent[8..12]);
        assert_eq!(bytes[16..], sent[16..]);
    }
}

fn lz4_frame(records: &[u8], out: &mut Vec<u8>) {
    use std::io::Write;
    let mut encoder = lz4::EncoderBuilder::new().build(out).unwrap();
    encoder.write_all(records).unwrap();
    encoder.finish().1.unwrap();
}

/// KAFKA-5353: the base timestamp stays. The answer tells the time.
#[test]
fn log_append_time_replaces_the_producers_times() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[("message.timestamp.type", "LogAppendTime")]);
    let sent = batch(&["a", "b"]);
    let answer = client.produce("t", -1, &sent);
    assert_eq!(answer.error_code, 0);
    let time = answer.log_append_time_ms;
    assert!(time > 1_700_000_000_000);
    let data = client.fetch("t", 0);
    let (header, _) = batches(bytes(&data.records))[0];
    assert!(header.is_log_append_time(), "and the CRC is right");
    assert_eq!(header.max_timestamp, time);
    assert_eq!(header.base_timestamp, crate::common::client::LONG_AGO_MS);
    let found = client.offset("t", 1_700_000_000_001);
    assert_eq!((found.offset, found.timestamp), (0, time));
    assert_eq!(client.offset("t", time + 1).offset, -1);
}

#[test]
fn a_transactional_batch_of_an_unknown_producer_is_refused() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    let id = client.producer_id();
    let of = |id| {
        let batch = records(&["a"]).producer(id, 0, 0);
        batch.attributes(TRANSACTIONAL).build()
    };
    let mut request = produce("t", -1, &of(id));
    request.transactional_id = Some("mine".into());
    let unknown = ErrorCode::InvalidProducerIdMapping.code();
    for version in [3, 10, 11, 12] {
        let answer: ProduceResponse = client.call(version, &request);
        let answer = &answer.responses[0].partition_responses[0];
        assert_eq!(answer.error_code, unknown, "v{version}");
    }
    // Batches of two, of which no transaction can be.
    let other = produce("t", -1, &of(id + 1)).topic_data.remove(0);
    request.topic_data.push(other);
    let answer: ProduceResponse = client.call(10, &request);
    for topic in answer.responses {
        assert_eq!(topic.partition_responses[0].error_code, unknown);
    }
    assert_eq!(client.offset("t", -1).offset, 0);
}
