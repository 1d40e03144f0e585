//! What a producer sends for a partition: what is accepted is stored as sent and can be read by every reader that the
//! broker has; what is refused is refused before it takes memory.
//!
//! Input: `u8: bits 0-2 codec (above 4: none), 3 compress the body, 4 mend length and CRC, 5 keys, 6 append time | batch`.

use super::{Taken, codecs, memory, mutate};
use ottla::batch::builder::Builder;
use ottla::batch::check::{Checked, Rules, check};
use ottla::batch::marker::Marker;
use ottla::batch::records::{first_at_or_after, for_each, key_values, max_timestamp};
use ottla::batch::{self, HEADER_BYTES, Header, LENGTH_STARTS_AT};
use ottla::compress::{Codec, Decoders, encode};
use ottla::wire::FrameSlice;

const COMPRESS: u8 = 1 << 3;
const MEND: u8 = 1 << 4;
const KEYS: u8 = 1 << 5;
const APPEND_TIME: u8 = 1 << 6;

const NOW_MS: i64 = 1_000_000;

fn rules(flags: u8) -> Rules {
    Rules {
        message_bytes_max: 1 << 20,
        append_time: (flags & APPEND_TIME != 0).then_some(NOW_MS),
        keys_required: flags & KEYS != 0,
        now_ms: NOW_MS,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: 3_600_000,
        zstd_allowed: true,
    }
}

/// The batch with its body compressed, and its length and CRC set right, as the flags say: inputs get past both.
fn prepared(flags: u8, bytes: &[u8]) -> Vec<u8> {
    let Some((head, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return bytes.to_vec();
    };
    let mut header = Header::parse(head);
    let mut body = body.to_vec();
    if flags & COMPRESS != 0
        && let Some(codec) = Codec::from_id(flags & 7)
    {
        let plain = std::mem::take(&mut body);
        encode::encode(codec, &plain, &mut body).expect("this build has every codec");
        header.attributes = header.attributes & !7 | codec as i16;
    }
    if flags & MEND != 0 {
        header.magic = batch::MAGIC;
        header.base_offset = 0;
        header.batch_length = (HEADER_BYTES - LENGTH_STARTS_AT + body.len()) as i32;
        header.crc = batch::crc(&header.encode(), &body);
    }
    [&header.encode()[..], &body].concat()
}

pub fn run(mut input: &[u8]) -> Taken {
    let Some(flags) = mutate::u8(&mut input) else {
        return Taken::default();
    };
    let bytes = prepared(flags, input);
    let records = FrameSlice::from(bytes.clone());
    let (budget, decoders) = codecs::decoders();
    let rules = rules(flags);
    let (checked, most) = memory::measured(|| check(&records, &rules, &decoders));
    assert_eq!(budget.used(), 0, "every charge is given back");
    if let Ok(checked) = &checked {
        accepted(checked, &bytes, &rules, &decoders);
    }
    let stored = batch::check_stored(&bytes);
    assert!(checked.is_err() || stored.is_ok(), "{stored:?}");
    if let Ok(header) = stored {
        let body = &bytes[HEADER_BYTES..header.total_bytes()];
        let _ = Marker::read(&header, body);
        let _ = for_each(&header, body, &decoders, |_| true);
    }
    let codec = bytes
        .first_chunk()
        .and_then(|head| Header::parse(head).codec().ok());
    let body = bytes.get(HEADER_BYTES..).unwrap_or_default();
    Taken {
        most,
        from_budgets: codec.map_or(0, |codec| codecs::charge(codec, body)),
    }
}

/// P3, and that every reader agrees with the check.
fn accepted(checked: &Checked, sent: &[u8], rules: &Rules, decoders: &Decoders) {
    let stored = [&checked.head[..], &checked.body].concat();
    let header = batch::check_stored(&stored).expect("what is stored is a batch");
    assert_eq!(header, checked.header);
    match rules.append_time {
        None => assert_eq!(stored, sent, "bytes are sacred"),
        Some(_) => assert_eq!(stored[HEADER_BYTES..], sent[HEADER_BYTES..]),
    }
    let (mut count, mut keyless) = (0, false);
    let walked = for_each(&header, &checked.body, decoders, |record| {
        assert_eq!(record.offset_delta, count);
        count += 1;
        keyless |= record.key.is_none();
        true
    });
    walked.expect("what was accepted can be walked");
    assert_eq!(count, header.records_count);
    assert!(!(keyless && rules.keys_required));
    let max = max_timestamp(&header, &checked.body, decoders, 0).expect("likewise");
    match max {
        Some(place) => assert_eq!(place.timestamp, checked.max_timestamp),
        None => assert_eq!(checked.max_timestamp, batch::NO_TIMESTAMP),
    }
    let first = first_at_or_after(&header, &checked.body, decoders, 0, i64::MIN);
    assert_eq!(first.expect("likewise").map(|place| place.offset), Some(0));
    if header.codec() == Ok(Codec::None) {
        let pairs = key_values(&header, &checked.body).expect("not compressed");
        assert_eq!(pairs.filter(Result::is_ok).count(), count as usize);
    }
}

/// A batch of records with and without keys, values and headers, in every codec; and a marker.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut builder = Builder::new(1000).producer(7, 1, 0);
    builder.add(
        Some(b"key"),
        Some(b"value"),
        &[("h", Some(b"v")), ("i", None)],
        1000,
    );
    builder.add(Some(b""), None, &[], 999);
    builder.add(Some(b"k"), Some(&[b'x'; 200]), &[], 1001);
    let plain = builder.build();
    let mut seeds: Vec<Vec<u8>> = (0..5)
        .map(|codec| [&[codec | COMPRESS | MEND | KEYS], &plain[..]].concat())
        .collect();
    seeds.push([&[7 | APPEND_TIME], &plain[..]].concat());
    seeds.push(
        [
            &[7 | MEND],
            &Builder::new(5).add(None, None, &[], -1).build()[..],
        ]
        .concat(),
    );
    let marker = Marker {
        commit: true,
        coordinator_epoch: 3,
    };
    seeds.push([&[7 | MEND], &marker.batch(7, 1, 1000)[..]].concat());
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let mut body = Vec::new();
        encode::encode(codec, builder.records(), &mut body).expect("this build has every codec");
        seeds.push([&[7 | MEND], &builder.build_from(codec, &body)[..]].concat());
    }
    seeds
}
