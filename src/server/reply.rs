//! Answers onto the socket: bytes by `send`, spans of segment files by `sendfile`.
//!
//! Invariants: a byte of a file is never in user space; the length that the response's frame states is what is
//! sent, or the connection ends: a file that gives fewer bytes than a view promised has been damaged under us; a large
//! answer that its client does not take at once is held in memory from a budget (P7), or is not held at all.

use super::input::Fault;
use crate::budget::Budget;
use crate::sys;
use crate::wire::{FileSlice, Writer};
use std::io;
use std::net::TcpStream;

const UNREAD: &str = "an answer that is not read, and is larger than memory is free for";

/// What an answer may take beside its files' spans without asking for memory: a connection's own share.
const BYTES_FREE: usize = 16 << 10;

/// Sends a whole response, waiting as long as the socket's own time limit lets each step take. One that must wait, and
/// is larger than a connection's own share, takes from `memory` while it does; where there is none the connection ends:
/// who does not read may not keep from others what they need.
pub fn send(socket: &TcpStream, response: &Writer, memory: &Budget) -> Result<(), Fault> {
    let (bytes, mut sent) = (&response.bytes[..], 0);
    let mut charge = memory.charge();
    if bytes.len() > BYTES_FREE {
        let first = response.holes.first().map_or(bytes.len(), |hole| hole.at);
        sent = send_now(socket, &bytes[..first]).map_err(Fault::Io)?;
        if sent < bytes.len() && !charge.try_grow(response.bytes.capacity() as u64) {
            return Err(Fault::Refused(UNREAD.into()));
        }
    }
    for hole in &response.holes {
        send_bytes(socket, &bytes[sent..hole.at], true).map_err(Fault::Io)?;
        sent = hole.at;
        send_slice(socket, &hole.slice).map_err(Fault::Io)?;
    }
    send_bytes(socket, &bytes[sent..], false).map_err(Fault::Io)
}

/// Sends what the socket takes without waiting; returns the count.
fn send_now(socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match sys::send_now(socket, &bytes[sent..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

/// Sends bytes; `more` says that the response goes on behind them.
pub fn send_bytes(socket: &TcpStream, mut bytes: &[u8], more: bool) -> io::Result<()> {
    while !bytes.is_empty() {
        match sys::send(socket, bytes, more) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn send_slice(socket: &TcpStream, slice: &FileSlice) -> io::Result<()> {
    let (mut position, end) = (slice.position, slice.position + u64::from(slice.len));
    while position < end {
        match sys::send_file(socket, &slice.file, position, (end - position) as usize) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(sent) => position += sent as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::pair;
    use super::*;
    use std::io::{Read, Write};
    use std::sync::Arc;
    use std::thread;

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
        send(&near, &response, &Budget::new(0)).unwrap();
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
        let fault = send(&near, &response, &Budget::new(0)).unwrap_err();
        assert!(matches!(fault, Fault::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof));
    }

    /// P7: what a client does not read of a large answer comes out of a budget, or ends its connection.
    #[test]
    fn a_large_answer_that_is_not_read_takes_from_the_budget() {
        let mut response = Writer::new();
        response.put(&vec![7; 32 << 20]);
        let (near, _far) = pair();
        let fault = send(&near, &response, &Budget::new(1 << 20)).unwrap_err();
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
        send(&near, &response, &budget).unwrap();
        drop(near);
        assert!(reader.join().unwrap().unwrap() == response.bytes);
        assert_eq!(budget.used(), 0);
    }
}
