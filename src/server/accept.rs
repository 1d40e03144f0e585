//! The door: accepts connections within limits, and gives each a thread once it says something.
//!
//! Owns: the lobby, where newcomers wait for their first byte at the price of a descriptor, and the rate at which they
//! come. Invariants: a limit that is reached, of connections (for which there are always descriptors:
//! [`Broker::connections_possible`]), of their rate or of threads, costs newcomers and nobody else; no step costs more
//! the more connections there are; nothing here waits but [`poll`].
//!
//! ```text
//! accept -> lobby: silent -> first byte -> a thread of its own
//!                         -> silent too long, or the longest when all seats are taken -> closed
//!        -> beyond max.connection.creation.rate: the next ones wait in the kernel's queue
//!        -> beyond its address's connection_creation_rate: held a while, then closed
//! ```

use super::Server;
use super::connection::{Connection, idle_limit};
use super::input::Fault;
use super::seats::{Full, Seat};
use crate::broker::Broker;
use crate::quota::Meter;
use crate::seldom::Seldom;
use crate::sys::{PollEntry, poll};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Virtual size of a connection's stack; only what is touched is resident.
const STACK_BYTES: usize = 256 * 1024;
/// How long accept rests when the process is out of descriptors or memory.
const BACK_OFF: Duration = Duration::from_millis(100);
/// Connections that are accepted before it is looked whether an earlier one said something.
const BURST: usize = 64;
/// A client speaks at once: who was silent for so long makes room when all seats are taken.
const SILENCE_MIN: Duration = Duration::from_secs(1);
/// Connections beyond their address's rate that are held at once; more are closed at once.
const HELD_MAX: usize = 256;
/// A flood of connections shall not become one of lines.
static WARNINGS: Seldom = Seldom::new();

/// A connection that was accepted and has not said anything.
struct Newcomer {
    /// Before the seat: it is closed first.
    socket: TcpStream,
    peer: SocketAddr,
    since: Instant,
    seat: Seat,
}

/// The accept thread's state.
pub struct Door<'a> {
    server: &'a Server,
    broker: &'a Arc<Broker>,
    /// By the number of their seats, and so in the order in which they came.
    lobby: BTreeMap<u64, Newcomer>,
    /// With the time at which they are closed.
    held: VecDeque<(Instant, TcpStream)>,
    rate: Meter,
    began: Instant,
    /// Nothing is accepted until then.
    shut_until: Option<Instant>,
}

impl<'a> Door<'a> {
    /// An empty lobby.
    pub fn new(server: &'a Server) -> Door<'a> {
        Door {
            server,
            broker: &server.broker,
            lobby: BTreeMap::new(),
            held: VecDeque::new(),
            rate: Meter::default(),
            began: Instant::now(),
            shut_until: None,
        }
    }

    /// Accepts connections until the server is stopped; who has said nothing by then is closed.
    pub fn run(mut self) {
        loop {
            let now = Instant::now();
            self.close_late(now);
            self.shut_until = self.shut_until.filter(|at| *at > now);
            let mut entries = vec![
                PollEntry::readable(&self.server.stop),
                PollEntry::readable(&self.server.newcomers),
            ];
            if self.shut_until.is_none() {
                entries.extend(self.server.listeners.iter().map(PollEntry::readable));
            }
            let limit = self.next_deadline();
            let limit = limit.map(|at| at.saturating_duration_since(now));
            if let Err(error) = poll(&mut entries, limit) {
                log::error!("waiting for connections: {error}");
                thread::sleep(BACK_OFF);
            }
            if entries[0].ready() {
                return;
            }
            if entries[1].ready() {
                self.serve_who_spoke();
            }
            for (entry, listener) in entries[2..].iter().zip(&self.server.listeners) {
                if entry.ready() {
                    self.accept(listener);
                }
            }
        }
    }

    fn accept(&mut self, listener: &TcpListener) {
        for _ in 0..BURST {
            if self.shut_until.is_some() {
                return;
            }
            match listener.accept() {
                Ok((socket, peer)) => self.admit(socket, peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    WARNINGS.warn(format_args!("accepting a connection: {error}"));
                    self.shut_until = Some(Instant::now() + BACK_OFF);
                }
            }
        }
    }

    fn admit(&mut self, socket: TcpStream, peer: SocketAddr) {
        let ip = peer.ip().to_canonical();
        let hold_ms = self.broker.quotas.record_connection(ip);
        if hold_ms > 0 {
            return self.hold(socket, Duration::from_millis(hold_ms));
        }
        self.count();
        let config = self.broker.config();
        let max = (config.connections_max as usize).min(self.broker.connections_possible);
        let of_ip_max = config.connections_of(ip);
        let mut seat = self.server.seats.take(ip, max, of_ip_max);
        if matches!(seat, Err(Full::All)) && self.make_room() {
            seat = self.server.seats.take(ip, max, of_ip_max);
        }
        match seat {
            Ok(seat) => self.seat(socket, peer, seat),
            Err(full) => WARNINGS.warn(format_args!(
                "{peer}: {full} is reached; closing the connection"
            )),
        }
    }

    /// Counts a connection; those beyond the rate are not accepted for a while.
    fn count(&mut self) {
        let window = self.broker.quotas.window();
        let limit = f64::from(self.broker.config().connection_creation_rate_max);
        let now_ms = self.began.elapsed().as_millis() as i64;
        self.rate.record(window, 1.0, now_ms);
        // At most a sample's length, as in Kafka.
        let delay_ms = self.rate.delay_ms(window, limit, now_ms);
        let delay_ms = delay_ms.min(window.sample_ms) as u64;
        if delay_ms > 0 {
            self.shut_until = Some(Instant::now() + Duration::from_millis(delay_ms));
        }
    }

    /// A client that is told nothing and cannot connect anew for a while, as in Kafka, comes back later.
    fn hold(&mut self, socket: TcpStream, time: Duration) {
        if self.held.len() >= HELD_MAX {
            self.held.pop_front();
        }
        self.held.push_back((Instant::now() + time, socket));
    }

    fn seat(&mut self, socket: TcpStream, peer: SocketAddr, seat: Seat) {
        if let Err(error) = self.server.newcomers.add(&socket, seat.number) {
            return WARNINGS.warn(format_args!("{peer}: {error}"));
        }
        let newcomer = Newcomer {
            socket,
            peer,
            since: Instant::now(),
            seat,
        };
        self.lobby.insert(newcomer.seat.number, newcomer);
    }

    /// Whether a newcomer was silent for long enough to lose its seat to the next one.
    fn make_room(&mut self) -> bool {
        let silent = |entry: &Newcomer| entry.since.elapsed() >= SILENCE_MIN;
        let longest = self.lobby.first_entry().filter(|entry| silent(entry.get()));
        longest.map(|entry| entry.remove()).is_some()
    }

    fn serve_who_spoke(&mut self) {
        let ready = match self.server.newcomers.ready() {
            Ok(ready) => ready,
            Err(error) => return log::error!("waiting for first bytes: {error}"),
        };
        for number in ready {
            if let Some(newcomer) = self.lobby.remove(&number) {
                self.serve(newcomer);
            }
        }
    }

    /// Gives a connection its thread, unless all that came was its end.
    fn serve(&mut self, newcomer: Newcomer) {
        let Newcomer {
            socket, peer, seat, ..
        } = newcomer;
        if self.server.newcomers.remove(&socket).is_err() || !matches!(socket.peek(&mut [0]), Ok(1))
        {
            return;
        }
        let broker = self.broker.clone();
        let socket = Arc::new(socket);
        seat.served(&socket);
        let serve = move || {
            let fault = Connection::new(broker, socket).map_or_else(Fault::Io, Connection::serve);
            match fault {
                Fault::Refused(_) => {
                    WARNINGS.warn(format_args!("{peer}: {fault}; closing the connection"));
                }
                _ => log::debug!("{peer}: {fault}"),
            }
            drop(seat);
        };
        let thread = thread::Builder::new()
            .name("connection".into())
            .stack_size(STACK_BYTES);
        if let Err(error) = thread.spawn(serve) {
            WARNINGS.warn(format_args!(
                "{peer}: no thread for the connection: {error}"
            ));
        }
    }

    /// How long a connection may be silent before its first byte.
    fn silence_max(&self) -> Duration {
        let limit = Duration::from_millis(self.broker.config().first_byte_timeout_ms as u64);
        limit.min(idle_limit(self.broker))
    }

    fn close_late(&mut self, now: Instant) {
        let silence_max = self.silence_max();
        while let Some(entry) = self.lobby.first_entry()
            && now.duration_since(entry.get().since) >= silence_max
        {
            log::debug!("{}: silent for too long", entry.get().peer);
            entry.remove();
        }
        while self.held.front().is_some_and(|(at, _)| *at <= now) {
            self.held.pop_front();
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let first = self.lobby.first_key_value();
        let silent = first.and_then(|(_, newcomer)| newcomer.since.checked_add(self.silence_max()));
        let held = self.held.front().map(|(at, _)| *at);
        [silent, held, self.shut_until].into_iter().flatten().min()
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Full::All => "max.connections",
            Full::OfIp => "max.connections.per.ip",
        })
    }
}
