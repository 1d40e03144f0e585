//! Compressed streams, against the libraries that clients use: what both open is the same bytes, and what theirs opens
//! is refused here for a stated reason only. And what is compressed here, theirs opens.
//!
//! Input: `u8: low two bits codec, bit 2 compress instead | bytes`.

use super::{Taken, memory, mutate};
use ottla::budget::Budget;
use ottla::compress::{Codec, Decoders, Failure, Source, encode};
use std::io::Read;

/// Longer streams are followed no further: a bomb costs time alone.
const INFLATED_BYTES_MAX: usize = 4 << 20;

/// What a stream may need; theirs is given the same.
const WINDOW_LOG_MAX: u32 = 20;

/// What the formats allow, a reference takes, and the broker refuses: that consumers of other makes would fail on it,
/// or stop reading before its end, each codec's file says.
const STRICTER: [&str; 8] = [
    "the lz4 frame is malformed",
    "the snappy stream is malformed",
    "the gzip header is malformed",
    "the gzip stream is corrupt",
    "the gzip stream has no trailer",
    "a zstd frame's header is malformed",
    "a zstd block is too long",
    "a zstd frame's content size is wrong",
];

pub fn decoders() -> (Budget, Decoders) {
    let budget = Budget::new(64 << 20);
    (budget.clone(), Decoders::new(budget, 1 << WINDOW_LOG_MAX))
}

/// Inflates up to the limit, every second piece in two steps; gives each piece to `take`.
fn inflate(
    decoders: &Decoders,
    codec: Codec,
    stream: &[u8],
    mut take: impl FnMut(&[u8]),
) -> Result<usize, Failure> {
    let mut stream = decoders.open(codec, stream)?;
    let mut total = 0;
    while total < INFLATED_BYTES_MAX {
        let piece = stream.fill()?;
        if piece.is_empty() {
            break;
        }
        let count = piece.len().div_ceil(2);
        take(&piece[..count]);
        stream.consume(count);
        total += count;
    }
    Ok(total)
}

/// What the stream takes from the budget before anything of it is inflated.
pub fn charge(codec: Codec, stream: &[u8]) -> u64 {
    let (budget, decoders) = decoders();
    let opened = decoders.open(codec, stream);
    let used = budget.used();
    drop(opened);
    assert_eq!(budget.used(), 0, "every charge is given back");
    used
}

/// The stream as a client's library inflates it, up to the limit.
fn theirs(codec: Codec, stream: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let reader: Box<dyn Read + '_> = match codec {
        Codec::None => Box::new(stream),
        Codec::Gzip => Box::new(flate2::read::MultiGzDecoder::new(stream)),
        Codec::Snappy => return snappy(stream),
        Codec::Lz4 => Box::new(lz4::Decoder::new(stream).ok()?),
        Codec::Zstd => {
            let mut decoder = zstd::stream::Decoder::with_buffer(stream).ok()?;
            decoder.window_log_max(WINDOW_LOG_MAX).ok()?;
            Box::new(decoder)
        }
    };
    let mut limited = reader.take(INFLATED_BYTES_MAX as u64);
    limited.read_to_end(&mut out).ok()?;
    Some(out)
}

fn snappy(stream: &[u8]) -> Option<Vec<u8>> {
    let block = |block: &[u8]| {
        let length = snap::raw::decompress_len(block).ok()?;
        (length <= INFLATED_BYTES_MAX).then_some(())?;
        snap::raw::Decoder::new().decompress_vec(block).ok()
    };
    let Some(mut rest) = stream.strip_prefix(b"\x82SNAPPY\0") else {
        return block(stream);
    };
    mutate::take::<8>(&mut rest)?;
    let mut out = Vec::new();
    while !rest.is_empty() {
        let length = usize::try_from(i32::from_be_bytes(mutate::take(&mut rest)?)).ok()?;
        let (piece, after) = rest.split_at_checked(length)?;
        out.extend(block(piece)?);
        rest = after;
    }
    Some(out)
}

pub fn run(mut input: &[u8]) -> Taken {
    let Some(kind) = mutate::u8(&mut input) else {
        return Taken::default();
    };
    let codec = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd][usize::from(kind & 3)];
    if kind & 4 != 0 {
        let mut stream = Vec::new();
        encode::encode(codec, input, &mut stream).expect("this build has every codec");
        assert_eq!(theirs(codec, &stream).as_deref(), Some(input), "{codec:?}");
        let mut ours: Vec<u8> = Vec::new();
        inflate(&decoders().1, codec, &stream, |piece| ours.extend(piece)).expect("our own");
        assert_eq!(ours, input, "{codec:?}");
        return Taken::default();
    }
    let (budget, decoders) = decoders();
    let (inflated, most) = memory::measured(|| inflate(&decoders, codec, input, |_| ()));
    assert_eq!(budget.used(), 0, "every charge is given back");
    compare(&decoders, codec, input, &inflated);
    Taken {
        most,
        from_budgets: charge(codec, input),
    }
}

fn compare(decoders: &Decoders, codec: Codec, stream: &[u8], inflated: &Result<usize, Failure>) {
    let theirs = theirs(codec, stream);
    match (inflated, theirs) {
        (Ok(total), Some(theirs)) => {
            let mut ours: Vec<u8> = Vec::with_capacity(*total);
            inflate(decoders, codec, stream, |piece| ours.extend(piece)).expect("as before");
            let common = ours.len().min(theirs.len()).min(INFLATED_BYTES_MAX);
            let whole = ours.len() < INFLATED_BYTES_MAX || theirs.len() < INFLATED_BYTES_MAX;
            assert_eq!(ours[..common], theirs[..common], "{codec:?}");
            assert!(!whole || ours.len() == theirs.len(), "{codec:?}");
        }
        (Err(Failure::Window { .. }), _) | (_, None) => {}
        (Err(Failure::Malformed(what)), Some(theirs)) => {
            let known = STRICTER.contains(what);
            assert!(
                known,
                "{codec:?}: {what}, and theirs gives {} bytes",
                theirs.len()
            );
        }
        (Err(failure), Some(_)) => panic!("{codec:?}: {failure}"),
    }
}

/// The same text in every form that clients send.
pub fn seeds() -> Vec<Vec<u8>> {
    let text = b"the quick brown fox jumps over the lazy dog, ".repeat(8);
    let text = &[&text[..], &(0..=255).collect::<Vec<u8>>()].concat()[..];
    let mut seeds: Vec<Vec<u8>> = (4..8)
        .map(|kind| [&[kind], &text[200..]].concat())
        .collect();
    for (kind, codec) in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd]
        .into_iter()
        .enumerate()
    {
        let mut stream = vec![kind as u8];
        encode::encode(codec, text, &mut stream).expect("this build has every codec");
        seeds.push(stream);
    }
    let raw = snap::raw::Encoder::new()
        .compress_vec(text)
        .expect("compressed");
    seeds.push([&[1], &raw[..]].concat());
    for linked in [lz4::BlockMode::Linked, lz4::BlockMode::Independent] {
        let encoder = lz4::EncoderBuilder::new()
            .block_mode(linked)
            .level(9)
            .build(vec![2]);
        let mut encoder = encoder.expect("an encoder");
        std::io::Write::write_all(&mut encoder, text).expect("written");
        seeds.push(encoder.finish().0);
    }
    for level in [1, 19] {
        let stream = zstd::encode_all(text, level).expect("compressed");
        seeds.push([&[3], &stream[..]].concat());
    }
    seeds
}
