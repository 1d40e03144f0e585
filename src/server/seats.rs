//! Who is here: every open connection has a seat, counted in all and by the client's address.
//!
//! Owns: the counts that `max.connections` and `max.connections.per.ip` hold down, and the sockets of those that a
//! thread serves. Invariants: a connection is counted from its accept until its [`Seat`] is dropped, which happens
//! after its socket was closed; each step costs the same however many there are.

use crate::lock::{Mutex, Rank};
use std::collections::HashMap;
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Weak};
use std::time::{Duration, Instant};

/// The seats.
pub struct Seats {
    /// Guards the table.
    table: Mutex<Table>,
    emptied: Condvar,
}

#[derive(Default)]
struct Table {
    taken: usize,
    of_ip: HashMap<IpAddr, usize>,
    served: HashMap<u64, Weak<TcpStream>>,
    next: u64,
}

/// Which limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// `max.connections`.
    All,
    /// `max.connections.per.ip`.
    OfIp,
}

/// One connection's seat; free again when dropped.
pub struct Seat {
    seats: Arc<Seats>,
    /// No other connection ever has it; later ones have higher ones.
    pub number: u64,
    ip: IpAddr,
}

impl Seats {
    /// All free.
    pub fn new() -> Arc<Seats> {
        Arc::new(Seats {
            table: Mutex::new(Rank::Connections, Table::default()),
            emptied: Condvar::new(),
        })
    }

    /// A seat for a client at `ip`, if fewer than `max` are taken, and by that client fewer than `of_ip_max`.
    pub fn take(self: &Arc<Seats>, ip: IpAddr, max: usize, of_ip_max: usize) -> Result<Seat, Full> {
        let mut table = self.table.lock();
        if table.taken >= max {
            return Err(Full::All);
        }
        if table.of_ip.get(&ip).copied().unwrap_or(0) >= of_ip_max {
            return Err(Full::OfIp);
        }
        table.taken += 1;
        *table.of_ip.entry(ip).or_default() += 1;
        table.next += 1;
        Ok(Seat {
            seats: self.clone(),
            number: table.next,
            ip,
        })
    }

    /// Tells every served connection that no more requests are read, waits for their threads, and after `limit` cuts
    /// off those that are still sending.
    pub fn clear(&self, limit: Duration) {
        for how in [Shutdown::Read, Shutdown::Both] {
            let deadline = Instant::now() + limit;
            let mut table = self.table.lock();
            for socket in table.served.values().filter_map(Weak::upgrade) {
                // One that is already closed is what is wanted.
                let _ = socket.shutdown(how);
            }
            while !table.served.is_empty() {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                table = table.wait_for(&self.emptied, left);
            }
        }
    }
}

impl Seat {
    /// From now on a thread serves the connection: a stop waits for it.
    pub fn served(&self, socket: &Arc<TcpStream>) {
        let mut table = self.seats.table.lock();
        table.served.insert(self.number, Arc::downgrade(socket));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.seats.table.lock();
        table.served.remove(&self.number);
        table.taken -= 1;
        if let Some(count) = table.of_ip.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                table.of_ip.remove(&self.ip);
            }
        }
        if table.served.is_empty() {
            self.seats.emptied.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_counted_in_all_and_by_address() {
        let seats = Seats::new();
        let [a, b] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
        let take = |ip| seats.take(ip, 3, 2);
        let first = take(a).ok();
        let second = take(a).ok();
        assert_eq!(take(a).err(), Some(Full::OfIp));
        let third = take(b).ok();
        assert_eq!(take(b).err(), Some(Full::All));
        drop(first);
        let fourth = take(b).ok();
        assert!(second.is_some() && third.is_some() && fourth.is_some());
        drop((second, third, fourth));
        let table = seats.table.lock();
        assert_eq!((table.taken, table.of_ip.len()), (0, 0));
    }
}
