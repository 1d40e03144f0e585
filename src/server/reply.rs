//! Answers onto the socket: bytes by `send`, spans of segment files by `sendfile`.
//!
//! Invariants: a byte of a file is never in user space; the length that the response's frame states is what is
//! sent, or the connection ends: a file that gives fewer bytes than a view promised has been damaged under us; a large
//! answer that its client does not take at once is held in memory from a budget (P7), or is not held at all, and none
//! that is taken byte by byte is held for ever.

use super::input::Fault;
use crate::budget::Budget;
use crate::sys;
use crate::wire::{FileSlice, Writer};
use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};

const UNREAD: &str = "an answer that is not read, and is larger than memory is free for";

/// What an answer may take beside its files' spans without asking for memory: a connection's own share.
const BYTES_FREE: usize = 16 << 10;

/// How many bytes are sent before it is looked how long that took.
const PIECE_BYTES: usize = 1 << 20;

/// How long a client may take for its answer, and whose memory it keeps meanwhile.
pub struct Patience<'a> {
    /// For each step, and for all of it, and once more for each MiB.
    pub most: Duration,
    /// The same while `memory` is scarce, for an answer that holds some of it; the socket's own limit is no longer.
    pub least: Duration,
    /// What a large answer that must wait is taken from.
    pub memory: &'a Budget,
    /// Whether requests that hold some of it wait behind the answer.
    pub holds_others: bool,
}

/// Sends a whole response. One that must wait, and is larger than a connection's own share, takes memory while it does;
/// where there is none the connection ends: who does not read may not keep from others what they need.
pub fn send(socket: &TcpStream, response: &Writer, patience: &Patience<'_>) -> Result<(), Fault> {
    let bytes = &response.bytes[..];
    let files = response.holes.iter().map(|hole| hole.slice.len as usize);
    let pieces = 1 + (bytes.len() + files.sum::<usize>()) / PIECE_BYTES;
    let mut out = Out {
        socket,
        patience,
        holds: patience.holds_others,
        pieces: pieces.min(u32::MAX as usize) as u32,
        began: Instant::now(),
    };
    let (mut sent, mut charge) = (0, patience.memory.charge());
    if bytes.len() > BYTES_FREE {
        let first = response.holes.first().map_or(bytes.len(), |hole| hole.at);
        sent = out.bytes_now(&bytes[..first]).map_err(Fault::Io)?;
        if sent < bytes.len() && !charge.try_grow(response.bytes.capacity() as u64) {
            return Err(Fault::Refused(UNREAD.into()));
        }
        out.holds |= charge.bytes() > 0;
    }
    for hole in &response.holes {
        out.bytes(&bytes[sent..hole.at], true).map_err(Fault::Io)?;
        sent = hole.at;
        out.slice(&hole.slice).map_err(Fault::Io)?;
    }
    out.bytes(&bytes[sent..], false).map_err(Fault::Io)
}

/// A socket that takes a response for as long as there is patience.
struct Out<'a> {
    socket: &'a TcpStream,
    patience: &'a Patience<'a>,
    /// Whether memory is held until the response is sent.
    holds: bool,
    pieces: u32,
    began: Instant,
}

impl Out<'_> {
    /// Sends what the socket takes without waiting; returns the count.
    fn bytes_now(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut sent = 0;
        while sent < bytes.len() {
            match sys::send_now(self.socket, &bytes[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(sent)
    }

    /// Sends bytes; `more` says that the response goes on behind them.
    fn bytes(&self, mut bytes: &[u8], more: bool) -> io::Result<()> {
        while !bytes.is_empty() {
            let piece = &bytes[..bytes.len().min(PIECE_BYTES)];
            let more = more || piece.len() < bytes.len();
            let sent = self.step(|| sys::send(self.socket, piece, more))?;
            bytes = &bytes[sent..];
        }
        Ok(())
    }

    fn slice(&self, slice: &FileSlice) -> io::Result<()> {
        let (mut position, end) = (slice.position, slice.position + u64::from(slice.len));
        while position < end {
            let len = PIECE_BYTES.min((end - position) as usize);
            match self.step(|| sys::send_file(self.socket, &slice.file, position, len))? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                sent => position += sent as u64,
            }
        }
        Ok(())
    }

    /// Sends some bytes once the socket takes any.
    fn step(&self, send: impl Fn() -> io::Result<usize>) -> io::Result<usize> {
        let began = Instant::now();
        loop {
            let limit = self.limit();
            if began.elapsed() >= limit || self.began.elapsed() >= limit.saturating_mul(self.pieces)
            {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match send() {
                // The socket's own limit passed.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn limit(&self) -> Duration {
        match self.holds && self.patience.memory.is_scarce() {
            true => self.patience.least,
            false => self.patience.most,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pair;
    use super::*;
    use std::io::{Read, Write};
    use std::sync::Arc;
    use std::thread;

    const LIMIT: Duration = Duration::from_secs(60);

    fn patience(memory: &Budget, most: Duration) -> Patience<'_> {
        Patience {
            most,
            least: most,
            memory,
            holds_others: false,
        }
    }

    #[test]
    fn spans_of_files_land_in_their_holes() {
        let mut file = tempfile::tempfile().unwrap();
        let data: Vec<u8> = (0..3_000_000u32).map(|i| (i * 7) as u8).collect();
        file.write_all(&data).unwrap();
        let file = Arc::new(file);
        let slice = |position: u64, len| FileSlice {
            file: file.clone(),
            position,
            len,
        };
        let mut response = Writer::new();
        response.put(b"head");
        response.files(&[slice(10, 2_000_000), slice(0, 1)], false);
        response.put(b"tail");
        let (near, mut far) = pair();
        let reader = thread::spawn(move || {
            let mut all = Vec::new();
            far.read_to_end(&mut all).map(|_| all)
        });
        send(&near, &response, &patience(&Budget::new(0), LIMIT)).unwrap();
        drop(near);
        let expected = [
            b"head",
            &2_000_001i32.to_be_bytes()[..],
            &data[10..2_000_010],
            &data[..1],
            b"tail",
        ]
        .concat();
        assert!(reader.join().unwrap().unwrap() == expected);
    }

    /// FACTS: when `sendfile` returns 0 with bytes owed, close the connection.
    #[test]
    fn a_file_that_is_too_short_ends_the_connection() {
        let (near, _far) = pair();
        let mut response = Writer::new();
        response.files(
            &[FileSlice {
                file: Arc::new(tempfile::tempfile().unwrap()),
                position: 0,
                len: 9,
            }],
            false,
        );
        let fault = send(&near, &response, &patience(&Budget::new(0), LIMIT)).unwrap_err();
        assert!(matches!(fault, Fault::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof));
    }

    /// P7: what a client does not read of a large answer comes out of a budget, or ends its connection.
    #[test]
    fn a_large_answer_that_is_not_read_takes_from_the_budget() {
        let mut response = Writer::new();
        response.put(&vec![7; 32 << 20]);
        let (near, _far) = pair();
        let fault = send(&near, &response, &patience(&Budget::new(1 << 20), LIMIT)).unwrap_err();
        assert!(matches!(fault, Fault::Refused(_)), "{fault}");
        let (near, mut far) = pair();
        let budget = Budget::new(64 << 20);
        let reader = {
            let budget = budget.clone();
            thread::spawn(move || {
                while budget.used() == 0 {
                    thread::yield_now();
                }
                let mut all = Vec::new();
                far.read_to_end(&mut all).map(|_| all)
            })
        };
        send(&near, &response, &patience(&budget, LIMIT)).unwrap();
        drop(near);
        assert!(reader.join().unwrap().unwrap() == response.bytes);
        assert_eq!(budget.used(), 0);
    }

    /// Each byte comes within the socket's limit, but all of them would take days.
    #[test]
    fn an_answer_that_is_taken_byte_by_byte_is_given_up() {
        let (near, mut far) = pair();
        near.set_write_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let mut response = Writer::new();
        response.put(&vec![1; 64 << 20]);
        let reader = thread::spawn(move || {
            let mut some = [0; 100_000];
            while far.read(&mut some).is_ok_and(|count| count > 0) {
                thread::sleep(Duration::from_millis(20));
            }
        });
        let limit = Duration::from_millis(2);
        let given_up = send(&near, &response, &patience(&Budget::new(1 << 30), limit)).unwrap_err();
        drop(near);
        assert!(matches!(given_up, Fault::Io(error) if error.kind() == io::ErrorKind::TimedOut));
        reader.join().unwrap();
    }

    /// One that is not read has as long as it likes, until others lack the memory that it holds.
    #[test]
    fn an_answer_that_is_not_read_gives_way() {
        let (near, _far) = pair();
        near.set_write_timeout(Some(Duration::from_millis(10)))
            .unwrap();
        let memory = Budget::new(48 << 20);
        let mut response = Writer::new();
        response.put(&vec![1; 16 << 20]);
        let patience = Patience {
            most: LIMIT,
            least: Duration::ZERO,
            memory: &memory,
            holds_others: false,
        };
        thread::scope(|scope| {
            let sender = scope.spawn(|| send(&near, &response, &patience));
            while memory.used() == 0 {
                thread::yield_now();
            }
            thread::sleep(Duration::from_millis(50));
            assert!(!sender.is_finished());
            let mut other = memory.charge();
            other.grow(16 << 20).unwrap();
            let given_up = sender.join().unwrap().unwrap_err();
            assert!(
                matches!(given_up, Fault::Io(error) if error.kind() == io::ErrorKind::TimedOut)
            );
        });
    }
}
