//! Kafka's compression codecs, opened only to check what a producer compressed: bounded, streaming, never whole.
//!
//! Owns: the pool of idle decoders. Each codec's file first looks over the compressed bytes without inflating
//! them (`plan`): that finds what the stream will need and refuses what is malformed; then the need is taken from
//! the budget; then the stream is read through its window.
//!
//! Invariants
//! 1. No memory is allocated for a stream before its charge is taken; a stream waits for the budget, not the heap.
//! 2. A stream that needs a window larger than the limit is refused before anything is allocated.
//! 3. What a stream inflates to costs time but no memory: it is handed out in windows and forgotten.
//! 4. A stream's end is exact: bytes after it, or bytes missing from it, are an error.
//! 5. An idle decoder holds no one's bytes, and all of them together hold at most [`IDLE_BYTES_MAX`].
//!
//! Safe against input by anyone: with `panic = "abort"` a decoder that panics ends the broker, so each one's file
//! says why it cannot, and the fuzzing tests at the end of this directory try.

pub mod encode;
mod gzip;
mod lz4;
#[cfg(feature = "snappy")]
mod snappy;
#[cfg(feature = "zstd")]
mod zstd;

#[cfg(all(test, feature = "snappy", feature = "zstd"))]
mod tests;

use crate::budget::{Budget, Charge};
use crate::lock::{Mutex, Rank};
use std::fmt;

/// What all idle decoders together may keep allocated.
pub const IDLE_BYTES_MAX: usize = 1 << 20;

/// How a batch's records are compressed: the low three bits of its attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Not compressed.
    None = 0,
    /// RFC 1952, one or more members.
    Gzip = 1,
    /// Raw snappy, or framed as by xerial's snappy-java.
    Snappy = 2,
    /// One LZ4 frame.
    Lz4 = 3,
    /// RFC 8878 frames (KIP-110).
    Zstd = 4,
}

impl Codec {
    /// The codec of an id; 5 to 7 are not assigned.
    pub fn from_id(id: u8) -> Option<Codec> {
        [
            Codec::None,
            Codec::Gzip,
            Codec::Snappy,
            Codec::Lz4,
            Codec::Zstd,
        ]
        .get(usize::from(id))
        .copied()
    }
}

/// Why bytes cannot be read as records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// This build has no decoder for the codec.
    Unsupported(Codec),
    /// The stream needs a window of this many bytes, and the limit is lower.
    Window {
        /// What the stream needs, in bytes.
        needed: u64,
        /// The setting `decompression.window.max`, in bytes.
        limit: usize,
    },
    /// The bytes are not what they claim to be.
    Malformed(&'static str),
    /// The broker stops.
    Closed,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Unsupported(codec) => write!(f, "this broker was built without {codec:?}"),
            Failure::Window { needed, limit } => write!(
                f,
                "decompression needs a window of {needed} bytes, and decompression.window.max is {limit}"
            ),
            Failure::Malformed(what) => f.write_str(what),
            Failure::Closed => f.write_str("the broker is stopping"),
        }
    }
}

/// Bytes that come in pieces.
pub trait Source {
    /// The next piece, of any length; empty only at the end. The same piece until some of it is consumed.
    fn fill(&mut self) -> Result<&[u8], Failure>;

    /// Goes past the first `count` bytes of the piece, which has as many.
    fn consume(&mut self, count: usize);
}

impl Source for &[u8] {
    fn fill(&mut self) -> Result<&[u8], Failure> {
        Ok(self)
    }

    fn consume(&mut self, count: usize) {
        *self = &self[count..];
    }
}

/// What a stream needs, found without inflating it.
struct Need {
    /// How far back the stream refers, in bytes: what the limit is compared with.
    window: u64,
    /// What decoding allocates, in bytes: what the budget is charged.
    memory: usize,
}

/// Where decoders come from: the memory that all may use together, the limit of each, and the idle ones.
pub struct Decoders {
    budget: Budget,
    /// What stored batches are taken from that are read to be opened. Another one: who holds such a batch may wait for
    /// the memory to open it, and must find that with who needs no more.
    batches: Budget,
    window_bytes_max: usize,
    /// Guards the idle decoders.
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    decoders: Vec<(Decoder, usize)>,
    bytes: usize,
}

/// A decoder's state between two pieces; the compressed bytes are handed to it each time.
enum Decoder {
    Gzip(gzip::Gzip),
    #[cfg(feature = "snappy")]
    Snappy(snappy::Snappy),
    Lz4(Box<lz4::Lz4>),
    #[cfg(feature = "zstd")]
    Zstd(zstd::Zstd),
}

/// One compressed stream, being read.
pub struct Stream<'a> {
    decoders: &'a Decoders,
    input: &'a [u8],
    /// Some until the stream is dropped.
    decoder: Option<Decoder>,
    ended: bool,
    charge: Charge,
}

impl Decoders {
    /// Decoders that take their memory from `budget`, of which no stream may need a window of more than
    /// `window_bytes_max` bytes (`decompression.window.max`).
    pub fn new(budget: Budget, window_bytes_max: usize) -> Decoders {
        Decoders {
            batches: Budget::new(budget.capacity()),
            budget,
            window_bytes_max,
            idle: Mutex::new(Rank::Decoders, Idle::default()),
        }
    }

    /// The same, which take the memory for what [`Decoders::admit_batch`] lets in from `batches`.
    pub fn with_batches(self, batches: Budget) -> Decoders {
        Decoders { batches, ..self }
    }

    /// Takes memory for a stored batch of `bytes`, before it is read to be opened; waits while there is none.
    pub fn admit_batch(&self, bytes: usize) -> Result<Charge, Failure> {
        let mut charge = self.batches.charge();
        let taken = charge.grow(bytes as u64);
        taken.map(|()| charge).map_err(|_| Failure::Closed)
    }

    /// Opens a compressed stream; waits while the budget is used up.
    pub fn open<'a>(&'a self, codec: Codec, input: &'a [u8]) -> Result<Stream<'a>, Failure> {
        let mut charge = self.budget.charge();
        let decoder = match codec {
            Codec::None => return Err(Failure::Malformed("the records are not compressed")),
            Codec::Gzip => {
                self.admit(&gzip::NEED, &mut charge)?;
                let idle = self.take(|d| matches!(d, Decoder::Gzip(_)));
                idle.unwrap_or_else(|| Decoder::Gzip(gzip::Gzip::new()))
            }
            #[cfg(feature = "snappy")]
            Codec::Snappy => {
                let plan = snappy::plan(input)?;
                self.admit(&plan.need(), &mut charge)?;
                Decoder::Snappy(snappy::Snappy::new(plan))
            }
            Codec::Lz4 => {
                let plan = lz4::plan(input)?;
                self.admit(&plan.need(), &mut charge)?;
                match self.take(|d| matches!(d, Decoder::Lz4(l) if l.suits(&plan))) {
                    Some(Decoder::Lz4(mut idle)) => {
                        idle.start(plan);
                        Decoder::Lz4(idle)
                    }
                    _ => Decoder::Lz4(Box::new(lz4::Lz4::new(plan))),
                }
            }
            #[cfg(feature = "zstd")]
            Codec::Zstd => {
                let need = zstd::plan(input)?;
                self.admit(&need, &mut charge)?;
                Decoder::Zstd(zstd::Zstd::new(need.window))
            }
            #[allow(unreachable_patterns)]
            other => return Err(Failure::Unsupported(other)),
        };
        Ok(Stream {
            decoders: self,
            input,
            decoder: Some(decoder),
            ended: false,
            charge,
        })
    }

    /// Inflates a whole stream behind what `out` holds; false, and `out` as it was, if that gives more than
    /// `bytes_max` bytes.
    pub fn inflate(
        &self,
        codec: Codec,
        input: &[u8],
        out: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Result<bool, Failure> {
        let before = out.len();
        let mut stream = self.open(codec, input)?;
        loop {
            let piece = stream.fill()?;
            let count = piece.len();
            if out.len() - before + count > bytes_max {
                out.truncate(before);
                return Ok(false);
            }
            if count == 0 {
                return Ok(true);
            }
            out.extend_from_slice(piece);
            stream.consume(count);
        }
    }

    fn admit(&self, need: &Need, charge: &mut Charge) -> Result<(), Failure> {
        if need.window > self.window_bytes_max as u64 {
            return Err(Failure::Window {
                needed: need.window,
                limit: self.window_bytes_max,
            });
        }
        let taken = charge.grow(need.memory as u64);
        taken.map_err(|_| Failure::Closed)
    }

    fn take(&self, suits: impl Fn(&Decoder) -> bool) -> Option<Decoder> {
        let mut idle = self.idle.lock();
        let at = idle.decoders.iter().rposition(|(d, _)| suits(d))?;
        let (decoder, bytes) = idle.decoders.swap_remove(at);
        idle.bytes -= bytes;
        Some(decoder)
    }

    fn give_back(&self, mut decoder: Decoder, bytes: usize) {
        let reusable = match &mut decoder {
            Decoder::Gzip(gzip) => {
                gzip.reset();
                true
            }
            Decoder::Lz4(_) => true,
            // Theirs is little more than the window, whose size differs from stream to stream.
            #[cfg(any(feature = "snappy", feature = "zstd"))]
            _ => false,
        };
        let mut idle = self.idle.lock();
        if reusable && idle.bytes + bytes <= IDLE_BYTES_MAX {
            idle.bytes += bytes;
            idle.decoders.push((decoder, bytes));
        }
    }
}

fn held(decoder: &mut Option<Decoder>) -> &mut Decoder {
    let decoder = decoder.as_mut();
    // cannot fail: only `drop` takes it.
    decoder.expect("a stream has its decoder until it is dropped")
}

impl Source for Stream<'_> {
    fn fill(&mut self) -> Result<&[u8], Failure> {
        let input = self.input;
        let piece = match held(&mut self.decoder) {
            Decoder::Gzip(gzip) => gzip.fill(input),
            #[cfg(feature = "snappy")]
            Decoder::Snappy(snappy) => snappy.fill(input),
            Decoder::Lz4(lz4) => lz4.fill(input),
            #[cfg(feature = "zstd")]
            Decoder::Zstd(zstd) => zstd.fill(input),
        }?;
        self.ended = piece.is_empty();
        Ok(piece)
    }

    fn consume(&mut self, count: usize) {
        match held(&mut self.decoder) {
            Decoder::Gzip(gzip) => gzip.consume(count),
            #[cfg(feature = "snappy")]
            Decoder::Snappy(snappy) => snappy.consume(count),
            Decoder::Lz4(lz4) => lz4.consume(count),
            #[cfg(feature = "zstd")]
            Decoder::Zstd(zstd) => zstd.consume(count),
        }
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        // One that did not reach its end is in the middle of something: not for reuse.
        if let (Some(decoder), true) = (self.decoder.take(), self.ended) {
            let bytes = usize::try_from(self.charge.bytes()).unwrap_or(usize::MAX);
            self.decoders.give_back(decoder, bytes);
        }
    }
}
