//! The cheap driver: one thread, many sockets, a closed loop on each. Two system calls an answer and a share of an
//! `epoll_wait`, so that on few cores it leaves the machine to the side that is measured.

#![allow(unsafe_code)]

use super::{Result, client};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// What to send, and for how long.
pub struct Load<'a> {
    /// One request a connection, sent again for each answer.
    pub frames: &'a [Vec<u8>],
    /// Requests that each connection keeps without an answer.
    pub in_flight: usize,
    /// Not counted.
    pub warm_up: Duration,
    /// Counted.
    pub time: Duration,
}

/// What was answered in the counted time.
pub struct Outcome {
    /// Answers.
    pub answers: u64,
    /// Answers a second.
    pub rate: f64,
}

struct Connection {
    stream: TcpStream,
    /// `in_flight` copies of the request: answers that arrive together are followed by one send.
    requests: Vec<u8>,
    request_bytes: usize,
    received: Vec<u8>,
    filled: usize,
}

/// Drives `address`; `counted` is called when the counting begins and when it ends.
pub fn run(address: SocketAddr, load: &Load, mut counted: impl FnMut()) -> Result<Outcome> {
    let epoll = Epoll::new()?;
    let mut connections = Vec::new();
    for frame in load.frames {
        let stream = client::connect(address)?;
        stream.set_nonblocking(true)?;
        epoll.add(&stream, connections.len() as u64)?;
        connections.push(Connection {
            stream,
            requests: frame.repeat(load.in_flight),
            request_bytes: frame.len(),
            received: vec![0; 4096],
            filled: 0,
        });
    }
    for connection in &mut connections {
        connection.send(load.in_flight)?;
    }
    let began = Instant::now();
    let mut answers = 0;
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 64];
    let mut from: Option<(Instant, u64)> = None;
    loop {
        let ready = epoll.wait(&mut events)?;
        for event in &events[..ready] {
            let connection = &mut connections[event.u64 as usize];
            let count = connection.receive()?;
            connection.send(count)?;
            answers += count as u64;
        }
        if ready == 0 && began.elapsed() > load.warm_up + load.time + Duration::from_secs(10) {
            return Err("no answers".into());
        }
        match from {
            None if began.elapsed() >= load.warm_up => {
                from = Some((Instant::now(), answers));
                counted();
            }
            Some((start, before)) if start.elapsed() >= load.time => {
                counted();
                let answers = answers - before;
                let rate = answers as f64 / start.elapsed().as_secs_f64();
                return Ok(Outcome { answers, rate });
            }
            _ => {}
        }
    }
}

impl Connection {
    fn send(&mut self, count: usize) -> Result<()> {
        if count > 0 {
            // A few hundred bytes always fit into a socket whose requests are answered.
            self.stream
                .write_all(&self.requests[..count * self.request_bytes])?;
        }
        Ok(())
    }

    /// Reads what is there; returns the answers that it completes.
    fn receive(&mut self) -> Result<usize> {
        match self.stream.read(&mut self.received[self.filled..]) {
            Ok(0) => return Err("the connection was closed".into()),
            Ok(n) => self.filled += n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e.into()),
        }
        let (mut at, mut count) = (0, 0);
        while self.filled - at >= 4 {
            let length = self.received[at..at + 4]
                .try_into()
                .map(i32::from_be_bytes)?;
            let end = at + 4 + length as usize;
            if self.filled < end {
                break;
            }
            // Length, correlation id, count, the topic's name, count, partition: then the error.
            let topic = u16::from_be_bytes([self.received[at + 12], self.received[at + 13]]);
            let error_at = 22 + usize::from(topic);
            let error = &self.received[at + error_at..at + error_at + 2];
            if error != [0, 0] {
                return Err(format!("answered with error {error:?}").into());
            }
            at = end;
            count += 1;
        }
        self.received.copy_within(at..self.filled, 0);
        self.filled -= at;
        Ok(count)
    }
}

struct Epoll(OwnedFd);

impl Epoll {
    fn new() -> io::Result<Epoll> {
        // SAFETY: a plain call.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just opened and nothing else owns it.
        Ok(Epoll(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn add(&self, stream: &TcpStream, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: libc::EPOLLIN as u32,
            u64: token,
        };
        let (epoll, fd) = (self.0.as_raw_fd(), stream.as_raw_fd());
        // SAFETY: both descriptors are open and `event` outlives the call.
        match unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &mut event) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Waits at most 100 ms.
    fn wait(&self, events: &mut [libc::epoll_event]) -> io::Result<usize> {
        let (fd, room) = (self.0.as_raw_fd(), events.len() as libc::c_int);
        // SAFETY: the pointer and count are those of a live, writable slice.
        match unsafe { libc::epoll_wait(fd, events.as_mut_ptr(), room, 100) } {
            n if n >= 0 => Ok(n as usize),
            _ => match io::Error::last_os_error() {
                e if e.kind() == ErrorKind::Interrupted => Ok(0),
                e => Err(e),
            },
        }
    }
}
