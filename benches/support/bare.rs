//! The other bare sides, each a process of its own so that it competes as a broker does: `sendfile` in a loop, and
//! receive, checksum, write.

#![allow(unsafe_code)]

use super::Result;
use super::skeleton::{self, Shape};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread;

/// What one `sendfile` moves at most.
const PIECE_BYTES: usize = 1 << 20;

/// Runs the bare side that the words name; does not return unless it fails.
pub fn serve(words: &[String]) -> Result<()> {
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let shape = |skip: &str, answer_bytes: &str| -> Result<Shape> {
        Ok(Shape {
            skip: skip.parse()?,
            answer_bytes: answer_bytes.parse()?,
        })
    };
    match words[..] {
        ["skeleton", path, skip, answer] => skeleton::serve(path, shape(skip, answer)?),
        ["echo", skip, answer] => skeleton::echo(shape(skip, answer)?),
        ["sendfile", path] => send_file(path, false),
        ["sendfile-asked", path] => send_file(path, true),
        ["receive", directory, skip, answer] => receive(directory, shape(skip, answer)?),
        _ => Err(format!("no bare side is called {words:?}").into()),
    }
}

/// Accepts for ever, with a thread a connection, and says where as the broker does.
pub fn listen(serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    eprintln!("listening on {}", listener.local_addr()?);
    let serve = Arc::new(serve);
    for stream in listener.incoming() {
        let (stream, serve) = (stream?, serve.clone());
        stream.set_nodelay(true)?;
        // A driver that has counted enough closes its connections; that is no error.
        thread::spawn(move || serve(stream));
    }
    Ok(())
}

/// Reads one frame into `frame`, length field included; false at the peer's end.
pub fn read_frame(stream: &mut TcpStream, frame: &mut Vec<u8>) -> io::Result<bool> {
    frame.resize(4, 0);
    match stream.read_exact(frame) {
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(false),
        other => other?,
    }
    let length = u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize;
    frame.resize(4 + length, 0);
    stream.read_exact(&mut frame[4..])?;
    Ok(true)
}

/// Sends the whole file to each connection, piece after piece. `asked`: each piece after a frame that asks for it,
/// as a consumer with one fetch in flight does.
fn send_file(path: &str, asked: bool) -> Result<()> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    listen(move |mut stream| {
        let (mut offset, mut frame) = (0, Vec::new());
        while (offset as u64) < len {
            if asked && !read_frame(&mut stream, &mut frame)? {
                break;
            }
            let end = (offset + PIECE_BYTES as i64).min(len as i64);
            while offset < end {
                let (to, from) = (stream.as_raw_fd(), file.as_raw_fd());
                // SAFETY: both descriptors are open, and `offset` outlives the call.
                let sent =
                    unsafe { libc::sendfile(to, from, &mut offset, (end - offset) as usize) };
                if sent < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
        }
        Ok(())
    })
}

/// Receives each frame into a buffer, computes CRC-32C once, writes to a file, answers. The files are emptied when
/// their connection ends, so that the disk does not have to write what was only measured.
fn receive(directory: &str, shape: Shape) -> Result<()> {
    let directory = directory.to_owned();
    listen(move |mut stream| {
        let path = format!("{directory}/bare-{}", stream.peer_addr()?.port());
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)?;
        let (mut frame, mut answer) = (Vec::new(), vec![0; shape.answer_bytes]);
        answer[..4].copy_from_slice(&(shape.answer_bytes as i32 - 4).to_be_bytes());
        while read_frame(&mut stream, &mut frame)? {
            std::hint::black_box(crc32c::crc32c(&frame[shape.skip..]));
            file.write_all(&frame[shape.skip..])?;
            stream.write_all(&answer)?;
        }
        drop(file);
        std::fs::remove_file(path)
    })
}
