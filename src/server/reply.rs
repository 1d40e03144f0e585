//! Answers onto the socket: bytes by `send`, spans of segment files by `sendfile`.
//!
//! Invariants: a byte of a file is never in user space; the length that the response's frame states is what is
//! sent, or the connection ends: a file that gives fewer bytes than a view promised has been damaged under us.

use crate::sys;
use crate::wire::{FileSlice, Writer};
use std::io;
use std::net::TcpStream;

/// Sends a whole response, waiting as long as the socket's own time limit lets each step take.
pub fn send(socket: &TcpStream, response: &Writer) -> io::Result<()> {
    let mut sent = 0;
    for hole in &response.holes {
        send_bytes(socket, &response.bytes[sent..hole.at], true)?;
        sent = hole.at;
        send_slice(socket, &hole.slice)?;
    }
    send_bytes(socket, &response.bytes[sent..], false)
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
        send(&near, &response).unwrap();
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
        assert_eq!(
            send(&near, &response).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }
}
