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

/// Sends a whole response, waiting as long as the socket's own time limit lets each step take, and for all of it
/// `limit`, and once more for each MiB. One that must wait, and is larger than a connection's own share, takes from
/// `memory` while it does; where there is none the connection ends: who does not read may not keep from others what
/// they need.
pub fn send(
    socket: &TcpStream,
    response: &Writer,
    limit: Duration,
    memory: &Budget,
) -> Result<(), Fault> {
    let bytes = &response.bytes[..];
    let files = response.holes.iter().map(|hole| hole.slice.len as usize);
    let pieces = 1 + (bytes.len() + files.sum::<usize>()) / PIECE_BYTES;
    let limit = limit.saturating_mul(pieces.min(u32::MAX as usize) as u32);
    let out = Out {
        socket,
        deadline: Instant::now().checked_add(limit),
    };
    let (mut sent, mut charge) = (0, memory.charge());
    if bytes.len() > BYTES_FREE {
        let first = response.holes.first().map_or(bytes.len(), |hole| hole.at);
        sent = out.bytes_now(&bytes[..first]).map_err(Fault::Io)?;
        if sent < bytes.len() && !charge.try_grow(response.bytes.capacity() as u64) {
            return Err(Fault::Refused(UNREAD.into()));
        }
    }
    for hole in &response.holes {
        out.bytes(&bytes[sent..hole.at], true).map_err(Fault::Io)?;
        sent = hole.at;
        out.slice(&hole.slice).map_err(Fault::Io)?;
    }
    out.bytes(&bytes[sent..], false).map_err(Fault::Io)
}

/// A socket that takes a response until a deadline.
struct Out<'a> {
    socket: &'a TcpStream,
    deadline: Option<Instant>,
}

impl Out<'_> {
    /// Sends what the socket takes without waiting; returns the count.
    fn bytes_now(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut sent = 0;
        while sent < bytes.len() {
            match self.step(|| sys::send_now(self.socket, &bytes[sent..])) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
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

    fn step(&self, send: impl Fn() -> io::Result<usize>) -> io::Result<usize> {
        if self.deadline.is_some_and(|at| at <= Instant::now()) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        loop {
            match send() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
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
        send(&near, &response, LIMIT, &Budget::new(0)).unwrap();
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
        let fault = send(&near, &response, LIMIT, &Budget::new(0)).unwrap_err();
        assert!(matches!(fault, Fault::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof));
    }

    /// P7: what a client does not read of a large answer comes out of a budget, or ends its connection.
    #[test]
    fn a_large_answer_that_is_not_read_takes_from_the_budget() {
        let mut response = Writer::new();
        response.put(&vec![7; 32 << 20]);
        let (near, _far) = pair();
        let fault = send(&near, &response, LIMIT, &Budget::new(1 << 20)).unwrap_err();
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
        send(&near, &response, LIMIT, &budget).unwrap();
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
        let given_up = send(&near, &response, limit, &Budget::new(1 << 30)).unwrap_err();
        drop(near);
        assert!(matches!(given_up, Fault::Io(error) if error.kind() == io::ErrorKind::TimedOut));
        reader.join().unwrap();
    }
}
