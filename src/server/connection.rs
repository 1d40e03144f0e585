//! One client's connection, and the thread that serves it.
//!
//! Owns: the socket, the requests that were read and not yet answered, and their order. Invariants:
//! 1. Responses leave in the order of the requests.
//! 2. While a produce is pending only further produces are taken up, so that pipelined ones share group commits;
//!    any other request waits its turn, as in Kafka.
//! 3. The thread waits in `poll`, on the socket and its own bell; in a send to its own client; and for memory: of
//!    request bytes before it receives them, of decompression before it opens a batch.
//!    For what it pipelines it never waits: where there is no memory for one more, it waits for its own answers.
//! 4. A connection with a request pending is never closed for being idle.
//! 5. A client that is over its quota is answered at once, and then not read for the time that it was told (KIP-219);
//!    one with a quota has one request in hand at a time, as in Kafka.
//! 6. What a client sent before it ended its side is handled, and answered as long as the connection holds; likewise
//!    what it sent before a request for which the connection is closed.

use super::input::{Fault, Input, Pace};
use super::reply::{self, Patience};
use super::waiting::{Outcome, Ticket, Watch, Woken};
use crate::api::fetch::Hints;
use crate::api::{self, Call, Pending, Reply};
use crate::broker::Broker;
use crate::budget::Charge;
use crate::sys;
use crate::wire::Writer;
use crate::wire::primitives::{ELEMENT_BYTES, ELEMENTS_FREE};
use crate::writer::Caller;
use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Requests that may be pending on one connection; more wait in the socket.
const PENDING_MAX: usize = 1000;
/// The partitions whose answers may be pending on one connection, beyond those of one request.
const PENDING_PARTITIONS_MAX: usize = 10_000;
/// A client that takes nothing of its answer for so long is cut off only if it may be idle for no longer, or holds
/// memory that is scarce.
const SEND_LIMIT_MIN: Duration = Duration::from_secs(10);
/// So often a half-received request that holds memory looks whether others wait for that.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// What of its queues a connection keeps while nothing is pending.
const QUEUE_KEPT: usize = 8;
/// How long a stopping broker waits for the writer to settle what is pending.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// A client's connection.
pub struct Connection {
    broker: Arc<Broker>,
    socket: Arc<TcpStream>,
    local: SocketAddr,
    caller: Arc<Caller>,
    input: Input,
    /// In the order of the requests; each knows what it still waits for.
    pending: VecDeque<Pending>,
    pending_partitions: usize,
    /// What is pending beside the first request, and the next one's place.
    pipelined: Charge,
    next_request: u64,
    done: Vec<(Ticket, Outcome)>,
    out: Writer,
    hints: Hints,
    last_active: Instant,
    /// For how long a send may wait for the client to take anything.
    send_limit: Duration,
    /// Until then nothing is read: the client is over its quota.
    muted_until: Option<Instant>,
    /// The peer sends no more, but not all of what it sent was read.
    peer_ended: bool,
    /// Why no more is read; what is pending is settled, and then the thread ends.
    ended: Option<Fault>,
}

impl Connection {
    /// A connection on a socket that was just accepted.
    pub fn new(broker: Arc<Broker>, socket: Arc<TcpStream>) -> std::io::Result<Connection> {
        let config = broker.config();
        socket.set_nodelay(true)?;
        // A client that vanished is missed in the end even while its request waits.
        sys::keep_alive(&*socket)?;
        // A client that never reads its answer is as idle as one that never asks.
        let send_limit = idle_limit(&broker).max(SEND_LIMIT_MIN);
        socket.set_write_timeout(Some(SEND_LIMIT_MIN))?;
        let pace = Pace {
            limit: Duration::from_millis(config.request_receive_timeout_ms as u64),
            rate_min: config.request_receive_rate_min as u32,
        };
        let frame_bytes_max = config.request_bytes_max as usize;
        let input = Input::new(broker.frames.clone(), frame_bytes_max, pace);
        Ok(Connection {
            local: socket.local_addr()?,
            caller: Caller::new()?,
            socket,
            input,
            pending: VecDeque::new(),
            pending_partitions: 0,
            pipelined: broker.unfolded.charge(),
            next_request: 0,
            done: Vec::new(),
            out: Writer::new(),
            hints: Hints::default(),
            last_active: Instant::now(),
            send_limit,
            muted_until: None,
            peer_ended: false,
            ended: None,
            broker,
        })
    }

    /// Serves the client until one side ends it; returns why.
    pub fn serve(mut self) -> Fault {
        loop {
            if let Err(fault) = self.step() {
                return fault;
            }
        }
    }

    fn step(&mut self) -> Result<(), Fault> {
        self.settle()?;
        if self.ended.is_some() {
            return self.finish();
        }
        match self.advance() {
            Err(fault @ (Fault::Ended | Fault::Stopping | Fault::Refused(_))) => self.end(fault),
            other => other,
        }
    }

    fn advance(&mut self) -> Result<(), Fault> {
        if self.is_muted() || self.is_full() {
            return self.wait(Watch::HangUp);
        }
        match self.input.next_key()? {
            Some(key) if self.may_take(key) => {
                let Some(frame) = self.input.next_frame()? else {
                    return Ok(());
                };
                self.last_active = Instant::now();
                self.take_up(Arc::new(frame))
            }
            Some(_) => self.wait(Watch::HangUp),
            None => self.wait(Watch::Requests),
        }
    }

    fn may_take(&mut self, key: i16) -> bool {
        self.pending.is_empty() || (api::is_pipelined(key) && self.has_room())
    }

    /// Whether there is memory for one more request beside those that are pending. One who finds none waits for
    /// what it already asked, which nobody else can hold up.
    fn has_room(&mut self) -> bool {
        let parts = (self.pending_partitions + ELEMENTS_FREE) as u64;
        let more = (parts * ELEMENT_BYTES).saturating_sub(self.pipelined.bytes());
        self.pipelined.try_grow(more)
    }

    fn is_full(&self) -> bool {
        self.pending.len() >= PENDING_MAX
            || self.pending_partitions >= PENDING_PARTITIONS_MAX
            || self.pending.back().is_some_and(Pending::is_metered)
    }

    /// From now on nothing is read for so long.
    fn mute(&mut self, throttle_ms: i32) {
        if throttle_ms > 0 {
            self.muted_until =
                Instant::now().checked_add(Duration::from_millis(throttle_ms as u64));
        }
    }

    /// Whether nothing is read yet. A client that sends no more is not waited for.
    fn is_muted(&mut self) -> bool {
        match self.muted_until {
            Some(at) if at > Instant::now() && !self.peer_ended => true,
            Some(_) => {
                self.muted_until = None;
                self.last_active = Instant::now();
                self.input.restart_clocks();
                false
            }
            None => false,
        }
    }

    fn take_up(&mut self, frame: Arc<crate::wire::Frame>) -> Result<(), Fault> {
        let request = self.next_request;
        self.next_request += 1;
        let call = Call {
            broker: &self.broker,
            socket: &self.socket,
            local: self.local,
            caller: &self.caller,
            request,
            client_id: String::new(),
            hints: &mut self.hints,
        };
        match api::dispatch(call, frame).map_err(Fault::Refused)? {
            Reply::Now(response) => self.respond(&response),
            Reply::Throttled(response, throttle_ms) => {
                self.mute(throttle_ms);
                self.respond(&response)
            }
            Reply::Later(pending) => {
                self.pending_partitions += pending.partitions();
                self.pending.push_back(pending);
                Ok(())
            }
            Reply::Ended => Err(Fault::Failed),
        }
    }

    fn respond(&mut self, response: &Writer) -> Result<(), Fault> {
        let sent = self.send(response);
        // A fetch may have waited for longer than an idle connection may, or a half-received request.
        self.last_active = Instant::now();
        self.input.restart_clocks();
        sent
    }

    fn send(&self, response: &Writer) -> Result<(), Fault> {
        let patience = Patience {
            most: self.send_limit,
            least: SEND_LIMIT_MIN,
            memory: &self.broker.unfolded,
            holds_others: !self.pending.is_empty(),
        };
        reply::send(&self.socket, response, &patience)
    }

    /// Hands what others finished to the requests that wait for it, and sends the answers whose turn it is.
    fn settle(&mut self) -> Result<(), Fault> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.caller.inbox.take(&mut self.done);
        for (ticket, outcome) in self.done.drain(..) {
            // Requests are numbered in the order in which they stand here.
            let waiting = self
                .pending
                .iter_mut()
                .find(|pending| pending.request == ticket.request);
            if let Some(pending) = waiting {
                pending.settle(ticket.part, outcome);
            }
        }
        let finished = self.finish_settled();
        if !self.out.bytes.is_empty() {
            let sent = self.send(&self.out);
            self.out.bytes.clear();
            sent?;
        }
        finished?;
        let held = self.pending_partitions as u64 * ELEMENT_BYTES;
        self.pipelined.shrink_to(held);
        if self.pending.is_empty() {
            // An idle connection keeps no memory of what it was busy with.
            self.out.bytes.shrink_to(1024);
            self.pending.shrink_to(QUEUE_KEPT);
            self.done.shrink_to(QUEUE_KEPT);
            self.caller.inbox.shrink_to(QUEUE_KEPT);
        }
        Ok(())
    }

    /// Writes the answers whose turn it is, up to the first that ends the connection.
    fn finish_settled(&mut self) -> Result<(), Fault> {
        while self.pending.front().is_some_and(Pending::is_settled)
            && let Some(pending) = self.pending.pop_front()
        {
            self.pending_partitions -= pending.partitions();
            let throttle_ms = pending.finish(&mut self.out).map_err(Fault::Refused)?;
            self.mute(throttle_ms);
            self.last_active = Instant::now();
            self.input.restart_clocks();
        }
        Ok(())
    }

    fn wait(&mut self, watch: Watch) -> Result<(), Fault> {
        let watch = match watch {
            Watch::HangUp if self.peer_ended => Watch::Failure,
            watch => watch,
        };
        let bell = self.caller.inbox.bell();
        bell.arm();
        if !self.pending.is_empty() && !self.caller.inbox.is_empty() {
            bell.disarm();
            return Ok(());
        }
        let limit = self
            .deadline()
            .map(|at| at.saturating_duration_since(Instant::now()))
            .map(|limit| match self.input.holds_much() {
                true => limit.min(LOOK_INTERVAL),
                false => limit,
            });
        match bell.wait(&self.socket, watch, limit).map_err(Fault::Io)? {
            Woken::Readable => self.input.fill(&self.socket),
            Woken::HungUp => {
                self.peer_ended = true;
                Ok(())
            }
            Woken::Failed => Err(Fault::Failed),
            Woken::TimedOut => self.timed_out(),
            Woken::Rung => Ok(()),
        }
    }

    /// No more is read: the peer's end was reached, what came is refused, or the broker stops. What is pending is still
    /// settled and answered: a client may end its own side alone, and no producer shall be left in doubt.
    fn end(&mut self, fault: Fault) -> Result<(), Fault> {
        if self.pending.is_empty() {
            return Err(fault);
        }
        self.ended = Some(fault);
        self.last_active = Instant::now();
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Fault> {
        match self.pending.is_empty() || self.stops_at().is_some_and(|at| at <= Instant::now()) {
            true => Err(self.ended.take().unwrap_or(Fault::Ended)),
            false => self.wait(Watch::Failure),
        }
    }

    /// How long a connection that ended may go on settling.
    fn stops_at(&self) -> Option<Instant> {
        let stopping = self.broker.stopping.load(Ordering::SeqCst);
        stopping.then(|| self.last_active + STOP_LIMIT)
    }

    fn deadline(&self) -> Option<Instant> {
        if self.ended.is_some() {
            return self.stops_at();
        }
        if let Some(at) = self.muted_until {
            return Some(at);
        }
        if !self.pending.is_empty() {
            return None;
        }
        self.input
            .gives_up_at()
            .or_else(|| self.last_active.checked_add(idle_limit(&self.broker)))
    }

    fn timed_out(&self) -> Result<(), Fault> {
        match self.deadline() {
            Some(at)
                if at > Instant::now() || self.ended.is_some() || self.muted_until.is_some() =>
            {
                Ok(())
            }
            Some(_) if self.input.has_partial() => {
                Err(Fault::Refused("a request that stopped coming".into()))
            }
            Some(_) => Err(Fault::Idle),
            None => Ok(()),
        }
    }
}

/// How long a connection may wait for nothing and ask nothing.
pub(super) fn idle_limit(broker: &Broker) -> Duration {
    // Negative: no limit, as in Kafka; a century serves for that.
    let ms = u64::try_from(broker.config().connections_idle_ms_max).unwrap_or(u64::MAX);
    Duration::from_millis(ms.clamp(1, 100 * 365 * 86_400_000))
}
