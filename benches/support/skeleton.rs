//! The bare skeleton of a durable broker of our shape, and a bare echo: what the machine allows.
//!
//! The skeleton: a thread a connection, blocked in `poll` on its socket and its eventfd; a request's bytes go through
//! one mutex to one writer thread, which takes all there are, writes them with one gathered write, syncs, and rings
//! each waiter's eventfd; the waiter answers. No parsing, no checks, no offsets, no batching beyond that.

#![allow(unsafe_code)]

use super::Result;
use super::bare::{listen, read_frame};
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

/// A frame of this many bytes is answered by one of that many; `frame[skip..]` is what a broker would store.
#[derive(Clone, Copy)]
pub struct Shape {
    pub skip: usize,
    pub answer_bytes: usize,
}

struct Waiting {
    frame: Vec<u8>,
    waiter: Arc<EventFd>,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Vec<Waiting>>,
    filled: Condvar,
}

/// Runs the skeleton on a file; does not return.
pub fn serve(path: &str, shape: Shape) -> Result<()> {
    let queue = Arc::new(Queue::default());
    let (file, writers_queue) = (File::create(path)?, queue.clone());
    thread::spawn(move || writer(&file, &writers_queue, shape.skip).expect("the writer failed"));
    listen(move |stream| connection(stream, &queue, shape.answer_bytes))
}

/// Answers each frame at once; does not return.
pub fn echo(shape: Shape) -> Result<()> {
    listen(move |mut stream| {
        let (mut frame, answer) = (Vec::new(), answer(shape.answer_bytes));
        while read_frame(&mut stream, &mut frame)? {
            stream.write_all(&answer)?;
        }
        Ok(())
    })
}

fn writer(mut file: &File, queue: &Queue, skip: usize) -> io::Result<()> {
    let mut turn = Vec::new();
    loop {
        let mut waiting = queue.waiting.lock().unwrap();
        while waiting.is_empty() {
            waiting = queue.filled.wait(waiting).unwrap();
        }
        std::mem::swap(&mut turn, &mut waiting);
        drop(waiting);
        let slices: Vec<_> = turn
            .iter()
            .map(|w| IoSlice::new(&w.frame[skip..]))
            .collect();
        let mut rest = &mut slices.clone()[..];
        while !rest.is_empty() {
            let written = file.write_vectored(rest)?;
            IoSlice::advance_slices(&mut rest, written);
        }
        file.sync_data()?;
        for done in turn.drain(..) {
            done.waiter.ring();
        }
    }
}

fn connection(mut stream: TcpStream, queue: &Queue, answer_bytes: usize) -> io::Result<()> {
    let waiter = Arc::new(EventFd::new()?);
    let answer = answer(answer_bytes);
    loop {
        let [readable, rung] = poll([stream.as_raw_fd(), waiter.0.as_raw_fd()])?;
        if rung {
            waiter.clear();
            stream.write_all(&answer)?;
        }
        if readable {
            let mut frame = Vec::new();
            if !read_frame(&mut stream, &mut frame)? {
                return Ok(());
            }
            let waiter = waiter.clone();
            queue
                .waiting
                .lock()
                .unwrap()
                .push(Waiting { frame, waiter });
            queue.filled.notify_one();
        }
    }
}

/// A frame of zeros: correlation id, error code and all.
fn answer(bytes: usize) -> Vec<u8> {
    let mut answer = vec![0; bytes];
    answer[..4].copy_from_slice(&(bytes as i32 - 4).to_be_bytes());
    answer
}

fn poll(fds: [RawFd; 2]) -> io::Result<[bool; 2]> {
    let mut entries = fds.map(|fd| libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    });
    // SAFETY: the pointer and count are those of a live, writable array.
    if unsafe { libc::poll(entries.as_mut_ptr(), 2, -1) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(entries.map(|entry| entry.revents != 0))
}

struct EventFd(OwnedFd);

impl EventFd {
    fn new() -> io::Result<EventFd> {
        // SAFETY: a plain call.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just opened and nothing else owns it.
        Ok(EventFd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn ring(&self) {
        let one = 1u64;
        // SAFETY: eight live bytes, as eventfd(2) wants.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    fn clear(&self) {
        let mut count = 0u64;
        // SAFETY: eight live, writable bytes, as eventfd(2) wants.
        unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), 8) };
    }
}
