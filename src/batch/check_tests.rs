//! Each rule of the check, by the fact that it comes from; then any records, any flipped byte, any garbage.

use super::*;
use crate::batch::builder::Builder;
use crate::batch::{CONTROL, TRANSACTIONAL, check_stored};
use crate::budget::Budget;
use proptest::prelude::*;
use std::io::Write;

const NOW: i64 = 1_700_000_000_000;

fn rules() -> Rules {
    Rules {
        message_bytes_max: 1_048_588,
        append_time: None,
        keys_required: false,
        now_ms: NOW,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: 3_600_000,
        zstd_allowed: true,
    }
}

fn decoders() -> Decoders {
    Decoders::new(Budget::new(64 << 20), 8 << 20)
}

fn check_bytes(bytes: &[u8], rules: &Rules) -> Result<Checked, Refusal> {
    check(&FrameSlice::from(bytes.to_vec()), rules, &decoders())
}

fn code(bytes: &[u8]) -> ErrorCode {
    check_bytes(bytes, &rules()).map_or_else(|r| r.code, |_| ErrorCode::None)
}

fn three_records() -> Builder {
    let mut builder = Builder::new(NOW);
    builder.add(
        Some(b"k"),
        Some(b"first"),
        &[("h", Some(b"x")), ("null", None)],
        NOW + 1,
    );
    builder.add(None, Some(b"second"), &[], NOW + 9);
    builder.add(Some(b""), None, &[], NOW + 9);
    builder
}

/// The batch with some header fields changed and the CRC made right again.
fn with(bytes: &[u8], change: impl FnOnce(&mut Header)) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut header = Header::parse(bytes.first_chunk().unwrap());
    change(&mut header);
    header.crc = crate::batch::crc(&header.encode(), &bytes[HEADER_BYTES..]);
    bytes[..HEADER_BYTES].copy_from_slice(&header.encode());
    bytes
}

/// The batch with other records, the length and CRC made right again.
fn with_body(bytes: &[u8], body: &[u8]) -> Vec<u8> {
    let bytes = [&bytes[..HEADER_BYTES], body].concat();
    with(&bytes, |h| h.batch_length = 49 + body.len() as i32)
}

fn compressed(builder: &Builder) -> Vec<(Codec, Vec<u8>)> {
    let plain = builder.records();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(plain).unwrap();
    let mut lz4 = lz4::EncoderBuilder::new().build(Vec::new()).unwrap();
    lz4.write_all(plain).unwrap();
    [
        (Codec::None, plain.to_vec()),
        (Codec::Gzip, gzip.finish().unwrap()),
        (
            Codec::Snappy,
            snap::raw::Encoder::new().compress_vec(plain).unwrap(),
        ),
        (Codec::Lz4, lz4.finish().0),
        (Codec::Zstd, zstd::stream::encode_all(plain, 3).unwrap()),
    ]
    .map(|(codec, body)| (codec, builder.build_from(codec, &body)))
    .to_vec()
}

#[test]
fn a_good_batch_is_stored_as_sent_in_every_codec() {
    for (codec, bytes) in compressed(&three_records()) {
        let checked = check_bytes(&bytes, &rules()).unwrap();
        assert_eq!(
            [&checked.head[..], &checked.body].concat(),
            bytes,
            "{codec:?}"
        );
        assert_eq!(checked.max_timestamp, NOW + 9);
        assert_eq!(checked.max_timestamp_offset_delta, 1);
    }
}

/// RP PR#25200: Sarama leaves max timestamp unset; ours is computed, and the stored byte stays.
#[test]
fn max_timestamp_is_computed_not_believed() {
    let bytes = with(&three_records().build(), |h| h.max_timestamp = -1);
    let checked = check_bytes(&bytes, &rules()).unwrap();
    assert_eq!(checked.max_timestamp, NOW + 9);
    assert_eq!(checked.header.max_timestamp, -1);
    assert_eq!(checked.head[..], bytes[..HEADER_BYTES]);
}

/// KAFKA-5353: base timestamp stays; attribute bit, max timestamp and CRC change; the records do not.
#[test]
fn log_append_time_keeps_base_timestamp_and_makes_a_new_crc() {
    let log_append = Rules {
        append_time: Some(NOW + 77),
        ..rules()
    };
    for (codec, bytes) in compressed(&three_records()) {
        let checked = check_bytes(&bytes, &log_append).unwrap();
        let stored = [&checked.head[..], &checked.body].concat();
        let header = check_stored(&stored).unwrap();
        assert_eq!(header, checked.header);
        assert!(header.is_log_append_time());
        assert_eq!(header.base_timestamp, NOW);
        assert_eq!(
            (header.max_timestamp, checked.max_timestamp),
            (NOW + 77, NOW + 77)
        );
        assert_eq!(stored[HEADER_BYTES..], bytes[HEADER_BYTES..], "{codec:?}");
    }
}

#[test]
fn only_one_whole_batch_of_format_v2() {
    let good = three_records().build();
    assert_eq!(code(&[]), ErrorCode::InvalidRecord);
    assert_eq!(code(&good[..good.len() - 1]), ErrorCode::InvalidRecord);
    assert_eq!(code(&[&good[..], &good].concat()), ErrorCode::InvalidRecord);
    assert_eq!(code(&[&good[..], &[0]].concat()), ErrorCode::InvalidRecord);
    assert_eq!(
        code(&with(&good, |h| h.magic = 1)),
        ErrorCode::InvalidRecord
    );
    assert_eq!(
        code(&with(&good, |h| h.magic = 3)),
        ErrorCode::CorruptMessage
    );
    assert_eq!(
        code(&with(&good, |h| h.batch_length = -1)),
        ErrorCode::CorruptMessage
    );
    assert_eq!(
        code(&with(&good, |h| h.batch_length = 13)),
        ErrorCode::CorruptMessage
    );
    assert_eq!(
        code(&with(&good, |h| h.base_offset = 5)),
        ErrorCode::InvalidRecord
    );
    let header_less = with(&good, |h| h.batch_length = 20);
    assert_eq!(code(&header_less[..32]), ErrorCode::CorruptMessage);
}

#[test]
fn a_wrong_crc_is_corrupt() {
    let mut bytes = three_records().build();
    *bytes.last_mut().unwrap() ^= 1;
    assert_eq!(code(&bytes), ErrorCode::CorruptMessage);
}

#[test]
fn max_message_bytes_is_the_longest_batch() {
    let bytes = three_records().build();
    let exact = Rules {
        message_bytes_max: bytes.len() as i32,
        ..rules()
    };
    assert!(check_bytes(&bytes, &exact).is_ok());
    let less = Rules {
        message_bytes_max: bytes.len() as i32 - 1,
        ..rules()
    };
    assert_eq!(
        check_bytes(&bytes, &less).unwrap_err().code,
        ErrorCode::MessageTooLarge
    );
}

/// KAFKA-6554, RP PR#31363: `lastOffsetDelta + 1 == count > 0`.
#[test]
fn count_and_offset_range_must_agree() {
    let good = three_records().build();
    let changes: [fn(&mut Header); 7] = [
        |h| h.records_count = 0,
        |h| h.records_count = 2,
        |h| h.records_count = 4,
        |h| h.last_offset_delta = i32::MAX,
        |h| (h.records_count, h.last_offset_delta) = (0, -1),
        |h| (h.records_count, h.last_offset_delta) = (2, 1),
        |h| (h.records_count, h.last_offset_delta) = (4, 3),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        assert_eq!(
            code(&with(&good, change)),
            ErrorCode::InvalidRecord,
            "{index}"
        );
    }
}

#[test]
fn clients_write_no_control_batches() {
    let bytes = three_records().attributes(CONTROL | TRANSACTIONAL).build();
    assert_eq!(code(&bytes), ErrorCode::InvalidRecord);
}

#[test]
fn a_producer_id_needs_a_sequence() {
    assert_eq!(
        code(&three_records().producer(7, 0, -1).build()),
        ErrorCode::InvalidRecord
    );
    assert_eq!(
        code(&three_records().producer(7, 0, 0).build()),
        ErrorCode::None
    );
}

#[test]
fn unknown_codecs_and_early_zstd_are_unsupported() {
    let good = three_records().build();
    for id in 5..8 {
        let bytes = with(&good, |h| h.attributes |= id);
        assert_eq!(code(&bytes), ErrorCode::UnsupportedCompressionType);
    }
    let (_, bytes) = compressed(&three_records()).pop().unwrap();
    let early = Rules {
        zstd_allowed: false,
        ..rules()
    };
    let refusal = check_bytes(&bytes, &early).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::UnsupportedCompressionType);
}

#[test]
fn a_corrupt_compressed_block_is_an_invalid_record() {
    for (codec, bytes) in compressed(&three_records()).into_iter().skip(1) {
        let mut body = bytes[HEADER_BYTES..].to_vec();
        body.truncate(body.len() / 2);
        assert_eq!(
            code(&with_body(&bytes, &body)),
            ErrorCode::InvalidRecord,
            "{codec:?}"
        );
    }
}

/// Records by hand: each line is one way in which they do not add up.
#[test]
fn records_must_add_up() {
    let good = Builder::new(NOW).add(None, None, &[], NOW).build();
    assert_eq!(good[HEADER_BYTES..], [12, 0, 0, 0, 1, 1, 0]);
    let bodies: [&[u8]; 14] = [
        &[],
        &[12, 0, 0, 0, 1, 1],
        &[12, 0, 0, 0, 1, 1, 0, 0],
        &[10, 0, 0, 0, 1, 1, 0],
        &[14, 0, 0, 0, 1, 1, 0],
        &[14, 0, 0, 0, 1, 1, 0, 0],
        &[11, 0, 0, 0, 1, 1, 0],
        &[12, 0, 0, 2, 1, 1, 0],
        &[12, 0, 0, 0, 3, 1, 0],
        &[12, 0, 0, 0, 1, 2, 0],
        &[12, 0, 0, 0, 1, 1, 1],
        &[12, 0, 0, 0, 1, 1, 2],
        &[16, 0, 0, 0, 1, 1, 2, 1, 1],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0],
    ];
    for body in bodies {
        assert_eq!(
            code(&with_body(&good, body)),
            ErrorCode::InvalidRecord,
            "{body:?}"
        );
    }
}

#[test]
fn a_compacted_topic_needs_keys() {
    let compacted = Rules {
        keys_required: true,
        ..rules()
    };
    for (_, bytes) in compressed(&three_records()) {
        let refusal = check_bytes(&bytes, &compacted).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::InvalidRecord);
        let indexes: Vec<i32> = refusal.record_errors.iter().map(|e| e.index).collect();
        assert_eq!(indexes, [1]);
    }
}

#[test]
fn timestamps_out_of_range_are_named_by_record() {
    let mut builder = Builder::new(NOW);
    builder.add(None, Some(b"early"), &[], NOW - 5001);
    builder.add(None, Some(b"fine"), &[], NOW - 5000);
    builder.add(None, Some(b"late"), &[], NOW + 3_600_001);
    builder.add(None, Some(b"none"), &[], -1);
    let bytes = builder.build();
    let narrow = Rules {
        timestamp_before_max_ms: 5000,
        ..rules()
    };
    let refusal = check_bytes(&bytes, &narrow).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::InvalidTimestamp);
    let indexes: Vec<i32> = refusal.record_errors.iter().map(|e| e.index).collect();
    assert_eq!(indexes, [0, 2]);
    let log_append = Rules {
        append_time: Some(NOW),
        ..narrow
    };
    assert!(check_bytes(&bytes, &log_append).is_ok());
}

#[test]
fn a_refusal_lists_a_bounded_number_of_records() {
    let mut builder = Builder::new(NOW);
    for _ in 0..5000 {
        builder.add(None, None, &[], NOW);
    }
    let compacted = Rules {
        keys_required: true,
        ..rules()
    };
    let refusal = check_bytes(&builder.build(), &compacted).unwrap_err();
    assert_eq!(refusal.record_errors.len(), RECORD_ERRORS_MAX);
}

#[test]
fn a_producer_does_not_set_log_append_time() {
    let bytes = three_records().attributes(LOG_APPEND_TIME).build();
    let refusal = check_bytes(&bytes, &rules()).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::InvalidTimestamp);
    assert_eq!(refusal.record_errors.len(), 1);
}

proptest! {
    #[test]
    fn any_records_in_any_codec_are_accepted(
        records in proptest::collection::vec(
            (proptest::option::of(any::<Vec<u8>>()), proptest::option::of(any::<Vec<u8>>()), -5i64..3_000_000),
            1..40,
        )
    ) {
        let mut builder = Builder::new(NOW);
        for (key, value, delta) in &records {
            builder.add(key.as_deref(), value.as_deref(), &[("name", key.as_deref())], NOW + delta);
        }
        let max = records.iter().map(|r| r.2).max().unwrap();
        let first = records.iter().position(|r| r.2 == max).unwrap();
        for (codec, bytes) in compressed(&builder) {
            let checked = check_bytes(&bytes, &rules()).unwrap();
            prop_assert_eq!(checked.max_timestamp, NOW + max, "{:?}", codec);
            prop_assert_eq!(checked.max_timestamp_offset_delta as usize, first);
        }
    }

    #[test]
    fn any_flipped_byte_is_refused_or_lies_outside_the_crc(flip in 1u8.., place in 0usize..10_000) {
        for (codec, mut bytes) in compressed(&three_records()) {
            let at = place % bytes.len();
            bytes[at] ^= flip;
            let leader_epoch = 12..16;
            let accepted = check_bytes(&bytes, &rules()).is_ok();
            prop_assert_eq!(accepted, leader_epoch.contains(&at), "{:?} {}", codec, at);
        }
    }

    /// A right CRC over damaged records: refused or accepted, but never a panic.
    #[test]
    fn damage_behind_a_right_crc_never_panics(at in any::<usize>(), byte: u8, cut in 0usize..50) {
        for (_, bytes) in compressed(&three_records()) {
            let mut body = bytes[HEADER_BYTES..].to_vec();
            let at = at % body.len();
            body[at] = byte;
            let _ = code(&with_body(&bytes, &body));
            body.truncate(body.len().saturating_sub(cut));
            let _ = code(&with_body(&bytes, &body));
            let _ = code(&bytes[..bytes.len().saturating_sub(cut)]);
        }
    }

    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = code(&bytes);
    }
}
