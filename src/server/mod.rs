//! The server: listens, and accepts connections within limits.
//!
//! Owns: the listening sockets and the connections' [`seats`]. A connection waits for its first byte in the lobby
//! ([`accept`]), and has a thread of its own from then on ([`connection`]).

pub mod accept;
pub mod connection;
pub mod input;
pub mod reply;
pub mod seats;
pub mod waiting;

use self::accept::Door;
use self::seats::Seats;
use crate::broker::Broker;
use crate::config::Endpoint;
use crate::error::{Context, Result};
use crate::sys::{self, Epoll, EventFd};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

/// The listening side of the broker.
pub struct Server {
    broker: Arc<Broker>,
    listeners: Vec<TcpListener>,
    seats: Arc<Seats>,
    newcomers: Epoll,
    stop: EventFd,
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
        Ok(Server {
            broker,
            listeners,
            seats: Seats::new(),
            newcomers: Epoll::new().context(|| "making an epoll".into())?,
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
        Door::new(self).run();
    }

    /// Ends [`Server::run`].
    pub fn stop_accepting(&self) {
        self.stop.ring();
    }

    /// Ends every connection that is served: see [`Seats::clear`].
    pub fn close_connections(&self, limit: Duration) {
        self.seats.clear(limit);
    }
}

/// Two ends of a connection.
#[cfg(test)]
pub(crate) fn pair() -> (std::net::TcpStream, std::net::TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}
