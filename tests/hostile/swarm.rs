//! Thousands of hostile sockets, moved by one thread of the lowest priority, so that it is the broker that is measured.

use crate::common::client::{Client, produce};
use ottla::api::metadata::MetadataRequest;
use ottla::sys::{PollEntry, lower_priority, poll};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use socket2::{Domain, Socket, Type};
use std::collections::VecDeque;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The addresses that hostile sockets come from: 127.0.0.2 and the next ones.
const ADDRESSES: u8 = 10;
/// Of the flood's connections, those that are still open.
const FLOOD_OPEN_MAX: usize = 500;
/// What a partial frame brings: more than the broker keeps for every connection anyway.
const PARTIAL_BYTES: usize = 5000;

/// What hostile sockets do.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// So many sockets that take their time; one that the broker closes is opened anew.
    Loris(usize),
    /// Connections at full speed: a third each are gone at once, say nothing, and say one byte and no more.
    Flood,
}

/// Hostile sockets at work.
pub struct Swarm {
    stop: Arc<AtomicBool>,
    opened: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

struct Nest {
    to: SocketAddr,
    next: u8,
    rng: StdRng,
    opened: Arc<AtomicU64>,
    /// The beginning of a large frame, and whole requests, for those who send such.
    partial: Vec<u8>,
    requests: Vec<u8>,
}

impl Swarm {
    /// Starts; [`Swarm::opened`] tells how far it is.
    pub fn start(address: &str, kind: Kind, seed: u64) -> Swarm {
        let client = Client::connect(address);
        let mut partial = client.frame(9, &produce("bystander", -1, &[]));
        partial.resize(PARTIAL_BYTES, 0);
        partial[..4].copy_from_slice(&(1i32 << 20).to_be_bytes());
        let requests = client.frame(12, &MetadataRequest::default()).repeat(20);
        drop(client);
        let opened = Arc::new(AtomicU64::new(0));
        let mut nest = Nest {
            to: address.parse().expect("an address"),
            next: 0,
            rng: StdRng::seed_from_u64(seed),
            opened: opened.clone(),
            partial,
            requests,
        };
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            lower_priority();
            match kind {
                Kind::Loris(sockets) => nest.loris(sockets, &stopped),
                Kind::Flood => nest.flood(&stopped),
            }
        });
        Swarm {
            stop,
            opened,
            thread,
        }
    }

    /// How many connections were opened so far.
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Closes all.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the swarm");
    }
}

impl Nest {
    /// A connection that is being made, from the next address; closing it resets it.
    fn connect(&mut self) -> Option<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).ok()?;
        self.next = (self.next + 1) % ADDRESSES;
        let from = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 2 + self.next), 0);
        socket.bind(&SocketAddr::V4(from).into()).ok()?;
        socket.set_nonblocking(true).ok()?;
        socket.set_linger(Some(Duration::ZERO)).ok()?;
        // It goes on by itself, or failed, which costs the swarm one socket.
        let _ = socket.connect(&self.to.into());
        self.opened.fetch_add(1, Ordering::Relaxed);
        Some(socket)
    }

    fn flood(&mut self, stop: &AtomicBool) {
        let mut open = VecDeque::new();
        while !stop.load(Ordering::Relaxed) {
            let Some(socket) = self.connect() else {
                thread::sleep(Duration::from_millis(1));
                continue;
            };
            match self.rng.random_range(0..3) {
                0 => continue,
                1 => open.push_back((socket, true)),
                _ => open.push_back((socket, false)),
            }
            // By now it is open, or never will be.
            if let Some((speaks, true)) = open.get_mut(FLOOD_OPEN_MAX / 2) {
                let _ = speaks.write(&[0]);
            }
            if open.len() > FLOOD_OPEN_MAX {
                open.pop_front();
            }
        }
    }

    fn loris(&mut self, count: usize, stop: &AtomicBool) {
        let mut sockets: Vec<Option<(Socket, usize)>> = (0..count).map(|_| None).collect();
        while !stop.load(Ordering::Relaxed) {
            for (number, slot) in sockets.iter_mut().enumerate() {
                match slot {
                    None => *slot = self.connect().map(|socket| (socket, 0)),
                    Some((socket, sent)) if *sent == 0 || self.rng.random_ratio(1, 50) => {
                        self.say(number, socket, sent);
                    }
                    Some(_) => {}
                }
            }
            forget_closed(&mut sockets);
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// What one of them sends now: nothing, ever; a byte of a frame's length; a partial frame and then a byte at a
    /// time; or requests whose answers it never reads.
    fn say(&mut self, number: usize, socket: &mut Socket, sent: &mut usize) {
        let bytes = match number % 4 {
            0 => return,
            1 if *sent < 3 => &[0][..],
            1 => return,
            2 if *sent == 0 => &self.partial,
            2 => &[0],
            _ if *sent < 5000 => &self.requests,
            _ => return,
        };
        *sent += socket.write(bytes).unwrap_or(0);
    }
}

/// Takes out the sockets that the broker closed.
fn forget_closed(sockets: &mut [Option<(Socket, usize)>]) {
    let open = sockets.iter().flatten();
    let mut entries: Vec<PollEntry> = open.map(|(socket, _)| PollEntry::hangup(socket)).collect();
    if poll(&mut entries, Some(Duration::ZERO)).is_err() {
        return;
    }
    let mut found = entries.iter();
    for slot in sockets.iter_mut().filter(|slot| slot.is_some()) {
        if found.next().is_some_and(PollEntry::ready) {
            *slot = None;
        }
    }
}
