//! How a connection's thread waits: in `poll`, on its socket and on its own bell.
//!
//! Owns: the [`Bell`] that other threads ring, and the [`Inbox`] into which they push what they finished.
//! Invariants: a ring that finds the bell unarmed costs no system call; one that finds it armed makes exactly
//! one; nothing pushed before the bell was armed is missed, because the owner arms, looks, and only then polls.
//! A push never blocks on anything but the inbox's own short lock.

use crate::control::Answer;
use crate::lock::{Mutex, Rank};
use crate::sys::{EventFd, PollEntry, poll};
use crate::writer::{Appended, Refusal};
use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Wakes one waiting thread.
pub struct Bell {
    event: EventFd,
    armed: AtomicBool,
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// The bell rang.
    Rung,
    /// The socket has bytes, or its peer's end.
    Readable,
    /// The peer sends no more; it may still read.
    HungUp,
    /// The connection failed, or both sides ended it.
    Failed,
    /// The limit passed.
    TimedOut,
}

/// What to watch the socket for while waiting for the bell.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// The next request.
    Requests,
    /// Only the peer's end: a request that was pipelined stays in the socket until this one is answered.
    HangUp,
    /// Only the connection's failure: the peer's end is already known, or changes nothing.
    Failure,
}

impl Bell {
    /// An unarmed bell.
    pub fn new() -> io::Result<Bell> {
        Ok(Bell {
            event: EventFd::new()?,
            armed: AtomicBool::new(false),
        })
    }

    /// Wakes the owner if it waits; otherwise it will look before it next waits.
    pub fn ring(&self) {
        if self.armed.swap(false, Ordering::SeqCst) {
            self.event.ring();
        }
    }

    /// From here on every ring is heard. Look at what the bell stands for after this and before [`Bell::wait`].
    pub fn arm(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }

    /// The owner found what it looked for and does not wait after all.
    pub fn disarm(&self) {
        if !self.armed.swap(false, Ordering::SeqCst) {
            self.event.clear();
        }
    }

    /// Waits for a ring, for the socket, or for `limit`; leaves the bell unarmed.
    pub fn wait(
        &self,
        socket: &TcpStream,
        watch: Watch,
        limit: Option<Duration>,
    ) -> io::Result<Woken> {
        let socket = match watch {
            Watch::Requests => PollEntry::readable(socket),
            Watch::HangUp => PollEntry::hangup(socket),
            Watch::Failure => PollEntry::failure(socket),
        };
        let mut entries = [PollEntry::readable(&self.event), socket];
        let ready = poll(&mut entries, limit)?;
        self.armed.store(false, Ordering::SeqCst);
        if entries[0].ready() {
            // Always: the ring may be a late one, of a thread that found the bell armed for an earlier wait.
            self.event.clear();
        }
        Ok(match () {
            _ if entries[0].ready() => Woken::Rung,
            _ if entries[1].ready() && watch == Watch::Requests => Woken::Readable,
            _ if entries[1].failed() => Woken::Failed,
            _ if entries[1].hung_up() => Woken::HungUp,
            _ if ready == 0 => Woken::TimedOut,
            _ => Woken::Rung,
        })
    }
}

/// What another thread did for a connection.
#[derive(Debug)]
pub enum Outcome {
    /// The writer: one batch of a produce request.
    Append(Result<Appended, Refusal>),
    /// The control thread: a request's answer.
    Control(Answer),
}

/// What the owner of an inbox asked for, by number: the request and the part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Counts the connection's requests.
    pub request: u64,
    /// Which of the request's parts (a produce request has one for each partition).
    pub part: u32,
}

/// Where other threads leave what they did for a connection; `T` is what they leave.
pub struct Inbox<T> {
    bell: Bell,
    /// Guards what was left, in the order in which it was left.
    done: Mutex<Vec<(Ticket, T)>>,
}

impl<T> Inbox<T> {
    /// An empty inbox.
    pub fn new() -> io::Result<Inbox<T>> {
        Ok(Inbox {
            bell: Bell::new()?,
            done: Mutex::new(Rank::Inbox, Vec::new()),
        })
    }

    /// The bell that a push rings; also given to whoever should wake the owner without leaving anything.
    pub fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Leaves `what` and wakes the owner if it waits.
    pub fn push(&self, ticket: Ticket, what: T) {
        self.done.lock().push((ticket, what));
        self.bell.ring();
    }

    /// Moves all that was left to the end of `into`.
    pub fn take(&self, into: &mut Vec<(Ticket, T)>) {
        into.append(&mut self.done.lock());
    }

    /// Keeps room for no more than so many that nobody left yet.
    pub fn shrink_to(&self, count: usize) {
        self.done.lock().shrink_to(count);
    }

    /// Whether nothing is left to take.
    pub fn is_empty(&self) -> bool {
        self.done.lock().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::pair;
    use super::*;

    #[test]
    fn a_push_before_the_wait_is_seen_without_waiting() {
        let (near, _far) = pair();
        let inbox = Inbox::new().unwrap();
        inbox.bell().arm();
        inbox.push(
            Ticket {
                request: 1,
                part: 0,
            },
            "done",
        );
        let woken = inbox.bell().wait(&near, Watch::HangUp, None).unwrap();
        assert_eq!(woken, Woken::Rung);
        let zero = Some(Duration::ZERO);
        assert_eq!(
            inbox.bell().wait(&near, Watch::HangUp, zero).unwrap(),
            Woken::TimedOut
        );
    }

    #[test]
    fn an_unarmed_bell_leaves_no_ring_behind() {
        let (near, _far) = pair();
        let bell = Bell::new().unwrap();
        bell.ring();
        let zero = Some(Duration::ZERO);
        assert_eq!(
            bell.wait(&near, Watch::HangUp, zero).unwrap(),
            Woken::TimedOut
        );
    }

    /// A ringer may be held up between finding the bell armed and ringing it: the ring then comes in a later wait,
    /// and must end that one alone, not every wait from then on.
    #[test]
    fn a_late_ring_ends_one_wait() {
        let (near, _far) = pair();
        let bell = Bell::new().unwrap();
        bell.arm();
        bell.event.ring();
        let zero = Some(Duration::ZERO);
        assert_eq!(bell.wait(&near, Watch::HangUp, zero).unwrap(), Woken::Rung);
        bell.arm();
        assert_eq!(
            bell.wait(&near, Watch::HangUp, zero).unwrap(),
            Woken::TimedOut
        );
    }

    #[test]
    fn a_peer_that_leaves_is_noticed_while_waiting() {
        let (near, far) = pair();
        drop(far);
        let bell = Bell::new().unwrap();
        bell.arm();
        assert_eq!(
            bell.wait(&near, Watch::HangUp, None).unwrap(),
            Woken::HungUp
        );
        // It may only have ended its own side: what it asked is answered.
        let zero = Some(Duration::ZERO);
        assert_eq!(
            bell.wait(&near, Watch::Failure, zero).unwrap(),
            Woken::TimedOut
        );
        near.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(
            bell.wait(&near, Watch::Failure, None).unwrap(),
            Woken::Failed
        );
    }
}
