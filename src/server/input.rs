//! Requests off the socket: the only copy of a produced byte into user space.
//!
//! Owns: a connection's bytes that are not yet a whole frame. Small frames come through one small buffer, so
//! that one `recv` brings what there is; a frame that does not fit there is received into its own memory, which
//! grows as bytes arrive and is taken from the shared budget before it grows (P7). Invariants: a length that was only
//! announced costs a few KiB; a frame that stops coming, or comes too slowly, is given up, and sooner when others wait
//! for memory. Receiving waits for the budget, for a limited time, never for the socket, and small frames not for large
//! ones that are not whole.

use crate::budget::{Budget, Charge, Denied};
use crate::sys;
use crate::wire::Frame;
use std::fmt;
use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};

const LENGTH_BYTES: usize = 4;
/// The small buffer: an idle connection keeps it.
const SMALL_BYTES: usize = 4096;
/// What is taken of the budget for a frame of which no more than its beginning came: of the default budget, as many as
/// there may be connections have room.
const FIRST_BYTES: usize = 8 * 1024;
/// The step in which a frame's memory goes on.
const STEP_BYTES: usize = 64 * 1024;

/// How many bytes a second must come, on average, while others wait for memory.
const AWAITED_RATE_MIN: u32 = 1 << 20;

/// The first bytes of what is often sent to a Kafka port by mistake.
const HTTP_METHODS: [&[u8; 4]; 5] = [b"GET ", b"POST", b"PUT ", b"HEAD", b"OPTI"];
const TLS_HANDSHAKE: [u8; 2] = [0x16, 0x03];

/// Why no more frames can be read from a connection.
#[derive(Debug)]
pub enum Fault {
    /// The peer ended it.
    Ended,
    /// It failed, or was cut off, while a request waited.
    Failed,
    /// It failed.
    Io(io::Error),
    /// It asked nothing for as long as a connection may.
    Idle,
    /// What came is no Kafka request; the text says what it looks like.
    Refused(String),
    /// The broker stops.
    Stopping,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Ended => f.write_str("closed by the client"),
            Fault::Failed => f.write_str("the connection failed"),
            Fault::Io(error) => error.fmt(f),
            Fault::Idle => f.write_str("idle for connections.max.idle.ms"),
            Fault::Refused(what) => f.write_str(what),
            Fault::Stopping => f.write_str("the broker stops"),
        }
    }
}

/// A connection's incoming side.
pub struct Input {
    budget: Budget,
    frame_bytes_max: usize,
    pace: Pace,
    /// Whole small frames and the beginning of the next; `small[..used]` is already handed out.
    small: Vec<u8>,
    used: usize,
    large: Option<Large>,
    /// The frame that is not yet whole, if any of it came.
    clocks: Option<Clocks>,
}

/// How fast a frame must come.
#[derive(Clone, Copy)]
pub struct Pace {
    /// `request.receive.timeout.ms`.
    pub limit: Duration,
    /// `request.receive.min.bytes.per.second`.
    pub rate_min: u32,
}

/// When bytes of a frame came. Time that the client had no part in does not count.
#[derive(Clone, Copy)]
struct Clocks {
    first: Instant,
    last: Instant,
}

/// A frame that is too large for the small buffer.
struct Large {
    bytes: Vec<u8>,
    len: usize,
    charge: Charge,
}

impl Input {
    /// An empty input; frames are at most `frame_bytes_max` long, and never longer than the budget.
    pub fn new(budget: Budget, frame_bytes_max: usize, pace: Pace) -> Input {
        let within_budget = usize::try_from(budget.capacity()).unwrap_or(usize::MAX);
        Input {
            budget,
            frame_bytes_max: frame_bytes_max.min(within_budget),
            pace,
            small: Vec::new(),
            used: 0,
            large: None,
            clocks: None,
        }
    }

    /// Receives once what is there, without waiting.
    pub fn fill(&mut self, socket: &TcpStream) -> Result<(), Fault> {
        let received = match &mut self.large {
            Some(large) => {
                let waited = large.make_room(self.pace.limit)?;
                if let Some(clocks) = &mut self.clocks {
                    clocks.first += waited;
                }
                let left = large.charge.bytes() as usize - large.bytes.len();
                sys::receive_now(socket, &mut large.bytes, left)
            }
            None => {
                self.small.drain(..self.used);
                self.used = 0;
                self.small.reserve_exact(SMALL_BYTES - self.small.len());
                let room = SMALL_BYTES - self.small.len();
                sys::receive_now(socket, &mut self.small, room)
            }
        };
        match received {
            Ok(0) => Err(Fault::Ended),
            Ok(_) => {
                let now = Instant::now();
                let first = self.clocks.map_or(now, |clocks| clocks.first);
                self.clocks = Some(Clocks { first, last: now });
                Ok(())
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(Fault::Io(error)),
        }
    }

    /// The API key of the next frame, if the frame is whole.
    pub fn next_key(&mut self) -> Result<Option<i16>, Fault> {
        let frame = match &self.large {
            Some(large) if large.bytes.len() == large.len => &large.bytes[..],
            Some(_) => return Ok(None),
            None => match self.small_frame()? {
                Some(len) => &self.small[self.used + LENGTH_BYTES..][..len],
                None => return Ok(None),
            },
        };
        match frame.first_chunk() {
            Some(key) => Ok(Some(i16::from_be_bytes(*key))),
            None => Err(Fault::Refused("a frame too short for a request".into())),
        }
    }

    /// The next frame, without its length, if it is whole.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Fault> {
        if self
            .large
            .as_ref()
            .is_some_and(|large| large.bytes.len() < large.len)
        {
            return Ok(None);
        }
        let frame = match self.large.take() {
            Some(large) => Frame::new(large.bytes, large.charge),
            None => match self.small_frame()? {
                None => return Ok(None),
                Some(len) => {
                    let mut charge = self.budget.charge();
                    charge.grow(len as u64).map_err(|_| Fault::Stopping)?;
                    let bytes = self.small[self.used + LENGTH_BYTES..][..len].to_vec();
                    self.used += LENGTH_BYTES + len;
                    Frame::new(bytes, charge)
                }
            },
        };
        self.clocks = None;
        if self.used < self.small.len() {
            self.start_clocks();
        }
        Ok(Some(frame))
    }

    /// Whether part of a frame is there.
    pub fn has_partial(&self) -> bool {
        self.clocks.is_some()
    }

    /// Lets a frame that is under way begin its time again: while others were served, nothing of it was received.
    pub fn restart_clocks(&mut self) {
        if self.has_partial() {
            self.start_clocks();
        }
    }

    fn start_clocks(&mut self) {
        let now = Instant::now();
        self.clocks = Some(Clocks {
            first: now,
            last: now,
        });
    }

    /// When a frame that is under way is given up, as things are: the limit after the last byte that came, and the
    /// limit after the time in which the least rate would have brought what came.
    pub fn gives_up_at(&self) -> Option<Instant> {
        let Clocks { first, last } = self.clocks?;
        let Pace { limit, rate_min } = self.pace;
        let received = self.large.as_ref().map_or(0, |large| large.bytes.len());
        let rate_min = match self.holds_much() && self.budget.is_awaited() {
            true => rate_min.max(AWAITED_RATE_MIN),
            false => rate_min.max(1),
        };
        let honest = Duration::from_secs(received as u64 / u64::from(rate_min));
        let whole = first.checked_add(limit.saturating_add(honest));
        whole.into_iter().chain(last.checked_add(limit)).min()
    }

    /// Whether a frame that is under way has taken more of the budget than a frame's beginning.
    pub fn holds_much(&self) -> bool {
        let taken = self.large.as_ref().map_or(0, |large| large.charge.bytes());
        taken > FIRST_BYTES as u64
    }

    /// The length of the whole frame at the small buffer's front, if one is there; a frame that cannot fit moves
    /// to memory of its own.
    fn small_frame(&mut self) -> Result<Option<usize>, Fault> {
        let there = &self.small[self.used..];
        let Some((length, rest)) = there.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let len = self.check_length(*length)?;
        if rest.len() >= len {
            return Ok(Some(len));
        }
        if LENGTH_BYTES + len > SMALL_BYTES {
            let mut large = Large {
                bytes: Vec::new(),
                len,
                charge: self.budget.charge(),
            };
            large.make_room(self.pace.limit)?;
            large.bytes.extend_from_slice(rest);
            self.large = Some(large);
            self.used = self.small.len();
            self.start_clocks();
        }
        Ok(None)
    }

    fn check_length(&self, length: [u8; LENGTH_BYTES]) -> Result<usize, Fault> {
        match usize::try_from(i32::from_be_bytes(length)) {
            Ok(len) if len <= self.frame_bytes_max => Ok(len),
            _ if HTTP_METHODS.contains(&&length) => {
                Err(Fault::Refused("an HTTP client on a Kafka port".into()))
            }
            _ if length.starts_with(&TLS_HANDSHAKE) => Err(Fault::Refused(
                "a TLS client on a plaintext Kafka port".into(),
            )),
            Ok(len) => {
                let max = self.frame_bytes_max;
                Err(Fault::Refused(format!(
                    "a frame of {len} bytes; socket.request.max.bytes allows {max}"
                )))
            }
            Err(_) => Err(Fault::Refused("a frame of negative length".into())),
        }
    }
}

impl Large {
    /// Takes more of the budget when what was taken is full, up to the frame's length: first a little, then a step,
    /// then twice as much each time. Says how long that waited, which is no longer than `limit`.
    fn make_room(&mut self, limit: Duration) -> Result<Duration, Fault> {
        let taken = self.charge.bytes() as usize;
        if self.bytes.len() < taken {
            return Ok(Duration::ZERO);
        }
        let started = Instant::now();
        let wanted = match taken {
            0 => FIRST_BYTES,
            _ => STEP_BYTES.max(taken * 2),
        };
        let wanted = wanted.min(self.len);
        self.charge
            .grow_unfinished((wanted - taken) as u64, limit)
            .map_err(|denied| match denied {
                Denied::Closed => Fault::Stopping,
                Denied::Late => Fault::Refused("no memory for a request in time".into()),
            })?;
        // No more than was taken: the allocator's own pages have been touched before.
        self.bytes.reserve_exact(wanted - self.bytes.len());
        Ok(started.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::super::pair;
    use super::*;
    use std::io::Write;

    const PACE: Pace = Pace {
        limit: Duration::from_secs(30),
        rate_min: 1000,
    };

    fn frames(chunks: &[&[u8]], max: usize) -> (Vec<Vec<u8>>, Budget, Option<Fault>) {
        let (mut far, near) = pair();
        let budget = Budget::new(1 << 20);
        let mut input = Input::new(budget.clone(), max, PACE);
        let (mut out, mut fault) = (Vec::new(), None);
        for chunk in chunks {
            far.write_all(chunk).unwrap();
            // Bounded: every byte that was written is there soon.
            let mut left = 10_000;
            while fault.is_none() && left > 0 {
                left -= 1;
                let step = input.fill(&near).and_then(|()| {
                    while let Some(frame) = input.next_frame()? {
                        out.push(frame.to_vec());
                    }
                    Ok(())
                });
                fault = step.err();
            }
        }
        (out, budget, fault)
    }

    fn framed(len: usize) -> Vec<u8> {
        let mut bytes = (len as i32).to_be_bytes().to_vec();
        bytes.extend((0..len).map(|i| i as u8));
        bytes
    }

    #[test]
    fn frames_come_whole_however_they_are_cut() {
        let sizes = [2, 0, 4092, 4093, 70_000, 1, 300_000];
        let all: Vec<u8> = sizes.iter().flat_map(|len| framed(*len)).collect();
        for cut in [1000, 4096, 65_537, all.len()] {
            let chunks: Vec<&[u8]> = all.chunks(cut).collect();
            let (out, budget, fault) = frames(&chunks, 1 << 20);
            assert!(fault.is_none(), "{fault:?}");
            assert_eq!(out.iter().map(Vec::len).collect::<Vec<_>>(), sizes);
            assert!(
                out.iter()
                    .all(|frame| frame.iter().enumerate().all(|(i, b)| *b == i as u8))
            );
            assert_eq!(budget.used(), 0, "every charge went back with its frame");
        }
    }

    /// FACTS: `GET ` parses as a frame of 1195725856 bytes, and a TLS hello as one of 369295616.
    #[test]
    fn http_and_tls_are_named() {
        for (bytes, named) in [
            (&b"GET / HTTP/1.1"[..], "HTTP"),
            (&[0x16, 3, 1, 0, 200, 1][..], "TLS"),
        ] {
            let (_, _, fault) = frames(&[bytes], 100 << 20);
            assert!(fault.unwrap().to_string().contains(named));
        }
    }

    /// P7: a frame that is only announced takes a little of the budget, not its length.
    #[test]
    fn an_announced_length_allocates_nothing() {
        let (mut far, near) = pair();
        let budget = Budget::new(1 << 30);
        let mut input = Input::new(budget.clone(), 1 << 30, PACE);
        far.write_all(&(1i32 << 29).to_be_bytes()).unwrap();
        while !input.has_partial() {
            input.fill(&near).unwrap();
        }
        assert!(input.next_frame().unwrap().is_none());
        assert!(budget.used() <= FIRST_BYTES as u64);
    }

    /// A hundred seconds' worth of bytes may take a hundred seconds more than the limit, if none of them is late.
    #[test]
    fn a_slow_line_gets_time_for_what_it_brought() {
        let (mut far, near) = pair();
        let mut input = Input::new(Budget::new(1 << 20), 1 << 20, PACE);
        far.write_all(&500_000i32.to_be_bytes()).unwrap();
        far.write_all(&[0; 100_000]).unwrap();
        let received = |input: &Input| input.large.as_ref().map_or(0, |large| large.bytes.len());
        while received(&input) < 100_000 {
            input.fill(&near).unwrap();
            assert!(input.next_frame().unwrap().is_none());
        }
        let ago = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds));
        let first = ago(105).unwrap();
        let gives_up_in = |input: &mut Input, last: Instant, rate_min| {
            input.clocks = Some(Clocks { first, last });
            input.pace.rate_min = rate_min;
            let at = input.gives_up_at();
            at.unwrap().checked_duration_since(Instant::now())
        };
        let now = Instant::now();
        assert!(gives_up_in(&mut input, now, 1000).is_some());
        assert!(gives_up_in(&mut input, ago(31).unwrap(), 1000).is_none());
        assert!(gives_up_in(&mut input, now, 10_000).is_none());
    }

    #[test]
    fn a_frame_larger_than_the_budget_is_refused_at_its_length() {
        let (_, _, fault) = frames(&[&(2i32 << 20).to_be_bytes()], 100 << 20);
        assert!(matches!(fault, Some(Fault::Refused(_))));
    }
}
