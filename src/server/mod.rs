//! The server: accepts connections, within limits, and gives each a thread of its own.
//!
//! Owns: the listening socket, the table of open connections, and the accept thread. Invariants: every open
//! connection is in the table, and leaves it when its thread ends; a limit that is reached, of connections (for
//! which there are always descriptors: [`Broker::connections_max`]) or of threads, costs the newcomer its connection
//! and nobody else anything.

pub mod connection;
pub mod input;
pub mod reply;
pub mod waiting;

use self::connection::Connection;
use self::input::Fault;
use crate::broker::Broker;
use crate::config::Endpoint;
use crate::error::{Context, Result};
use crate::lock::{Mutex, Rank};
use crate::sys::{self, EventFd, PollEntry, poll};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar};
use std::thread;
use std::time::{Duration, Instant};

/// Virtual size of a connection's stack; only what is touched is resident.
const STACK_BYTES: usize = 256 * 1024;
/// How long accept rests when the process is out of descriptors or memory.
const BACK_OFF: Duration = Duration::from_millis(100);

/// At most one warning in so long: a flood of connections shall not become one of lines.
const WARNING_INTERVAL: Duration = Duration::from_secs(5);

/// The listening side of the broker.
pub struct Server {
    broker: Arc<Broker>,
    listeners: Vec<TcpListener>,
    open: Arc<Open>,
    stop: EventFd,
}

/// The open connections.
struct Open {
    /// Guards the table.
    table: Mutex<Table>,
    emptied: Condvar,
}

#[derive(Default)]
struct Table {
    sockets: HashMap<u64, (Arc<TcpStream>, IpAddr)>,
    next: u64,
    warned: Option<Instant>,
    unsaid: u64,
}

impl Server {
    /// Listens on every endpoint; no connection is accepted before [`Server::run`].
    pub fn bind(broker: Arc<Broker>, endpoints: &[Endpoint]) -> Result<Server> {
        let config = broker.config();
        let (send, receive) = (
            config.socket_send_buffer_bytes,
            config.socket_receive_buffer_bytes,
        );
        let listen = |endpoint: &Endpoint| {
            let host = if endpoint.host.is_empty() {
                "0.0.0.0"
            } else {
                &endpoint.host
            };
            let listener = TcpListener::bind((host, endpoint.port))?;
            // Accepted sockets inherit them, in time for the window that their handshake offers.
            sys::set_socket_buffers(&listener, send, receive)?;
            listener.set_nonblocking(true).map(|()| listener)
        };
        let bound = |endpoint| listen(endpoint).context(|| format!("listening on {endpoint}"));
        let listeners = endpoints
            .iter()
            .map(bound)
            .collect::<Result<Vec<TcpListener>>>()?;
        let table = Mutex::new(Rank::Connections, Table::default());
        Ok(Server {
            broker,
            listeners,
            open: Arc::new(Open {
                table,
                emptied: Condvar::new(),
            }),
            stop: EventFd::new().context(|| "making an eventfd".into())?,
        })
    }

    /// Where it listens; the ports are the real ones.
    pub fn addresses(&self) -> Result<Vec<SocketAddr>> {
        let address = |listener: &TcpListener| {
            listener
                .local_addr()
                .context(|| "asking for a listening address".into())
        };
        self.listeners.iter().map(address).collect()
    }

    /// Accepts connections until [`Server::stop_accepting`].
    pub fn run(&self) {
        loop {
            let mut entries = vec![PollEntry::readable(&self.stop)];
            entries.extend(self.listeners.iter().map(PollEntry::readable));
            if let Err(error) = poll(&mut entries, None) {
                log::error!("waiting for connections: {error}");
                thread::sleep(BACK_OFF);
            }
            if entries[0].ready() {
                return;
            }
            let ready = entries[1..]
                .iter()
                .zip(&self.listeners)
                .filter(|(entry, _)| entry.ready());
            ready.for_each(|(_, listener)| self.accept(listener));
        }
    }

    fn accept(&self, listener: &TcpListener) {
        match listener.accept() {
            Ok((socket, peer)) => self.admit(socket, peer),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                self.warn(format_args!("accepting a connection: {error}"));
                thread::sleep(BACK_OFF);
            }
        }
    }

    /// Ends [`Server::run`].
    pub fn stop_accepting(&self) {
        self.stop.ring();
    }

    /// Tells every connection that no more requests are read, waits for their threads, and after `limit` cuts off
    /// those that are still sending.
    pub fn close_connections(&self, limit: Duration) {
        for how in [Shutdown::Read, Shutdown::Both] {
            let deadline = Instant::now() + limit;
            let mut table = self.open.table.lock();
            for (socket, _) in table.sockets.values() {
                // One that is already closed is what is wanted.
                let _ = socket.shutdown(how);
            }
            while !table.sockets.is_empty() {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                table = table.wait_for(&self.open.emptied, left);
            }
        }
    }

    fn admit(&self, socket: TcpStream, peer: SocketAddr) {
        if let Err(error) = socket.set_nonblocking(false) {
            return self.warn(format_args!("{peer}: {error}"));
        }
        let socket = Arc::new(socket);
        let Some(number) = self.register(&socket, peer) else {
            return;
        };
        let (broker, open) = (self.broker.clone(), self.open.clone());
        let serve = move || {
            let fault = Connection::new(broker, socket).map_or_else(Fault::Io, Connection::serve);
            match fault {
                Fault::Refused(_) => log::warn!("{peer}: {fault}; closing the connection"),
                _ => log::debug!("{peer}: {fault}"),
            }
            open.leave(number);
        };
        let thread = thread::Builder::new()
            .name("connection".into())
            .stack_size(STACK_BYTES);
        if let Err(error) = thread.spawn(serve) {
            self.warn(format_args!(
                "{peer}: no thread for the connection: {error}"
            ));
            self.open.leave(number);
        }
    }

    /// Logs a line, unless one was logged a moment ago: then the next one says how many were not.
    fn warn(&self, line: fmt::Arguments<'_>) {
        let mut table = self.open.table.lock();
        if table
            .warned
            .is_some_and(|at| at.elapsed() < WARNING_INTERVAL)
        {
            table.unsaid += 1;
            return;
        }
        table.warned = Some(Instant::now());
        let unsaid = std::mem::take(&mut table.unsaid);
        drop(table);
        match unsaid {
            0 => log::warn!("{line}"),
            _ => log::warn!("{line}; and {unsaid} more like this since the last such line"),
        }
    }

    fn register(&self, socket: &Arc<TcpStream>, peer: SocketAddr) -> Option<u64> {
        let config = self.broker.config();
        let connections_max = self
            .broker
            .connections_possible
            .min(config.connections_max as usize);
        let mut table = self.open.table.lock();
        let of_peer = table.sockets.values().filter(|(_, ip)| *ip == peer.ip());
        let refused = match () {
            _ if table.sockets.len() >= connections_max => "max.connections",
            _ if config.connections_per_ip_max < i32::MAX
                && of_peer.count() >= config.connections_per_ip_max as usize =>
            {
                "max.connections.per.ip"
            }
            _ => {
                let number = table.next;
                table.next += 1;
                table.sockets.insert(number, (socket.clone(), peer.ip()));
                return Some(number);
            }
        };
        drop(table);
        self.warn(format_args!(
            "{peer}: {refused} is reached; closing the connection"
        ));
        None
    }
}

impl Open {
    fn leave(&self, number: u64) {
        let mut table = self.table.lock();
        let gone = table.sockets.remove(&number);
        if table.sockets.is_empty() {
            self.emptied.notify_all();
        }
        drop(table);
        // The last owner closes the socket outside the lock.
        drop(gone);
    }
}

/// Two ends of a connection.
#[cfg(test)]
pub(crate) fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}
