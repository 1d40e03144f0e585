//! What a handler may use: the broker, and its connection's way to ask the writer or the control thread and to wait.
//!
//! Invariant: a request waits for one answer at a time, so an answer with its ticket is the one that it waits for.

use super::fetch;
use crate::broker::Broker;
use crate::control::{self, Answer, Request};
use crate::error::ErrorCode;
use crate::group;
use crate::server::waiting::{Outcome, Ticket, Watch, Woken};
use crate::storage::{Partition, Snapshot, Status};
use crate::txn;
use crate::writer::{Caller, Job};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The connection failed, or the broker cut it off, while a request waited; or the wait's answer is not of the kind
/// that was asked for, which only a fault of the broker's own can bring about.
#[derive(Clone, Copy, Debug)]
pub struct Ended;

/// What a handler may use: the broker, and its connection's way to wait.
pub struct Call<'a> {
    /// The broker.
    pub broker: &'a Arc<Broker>,
    /// The client's socket, watched while waiting.
    pub socket: &'a TcpStream,
    /// The address that the client connected to.
    pub local: SocketAddr,
    /// The connection's inbox.
    pub caller: &'a Arc<Caller>,
    /// The request's number on its connection.
    pub request: u64,
    /// The client's name for itself, from the request's header; empty if it gives none.
    pub client_id: String,
    /// Where the connection's fetches ended.
    pub hints: &'a mut fetch::Hints,
}

impl Call<'_> {
    /// Asks the group coordinator and waits for its answer, which may take long: `watch` says whether the peer's end
    /// is then the end of the wait.
    pub fn ask_group(
        &mut self,
        version: i16,
        request: group::Request,
        watch: Watch,
    ) -> Result<group::Response, Ended> {
        let peer = self.socket.peer_addr().map_err(|_| Ended)?;
        let asked = Request::Group {
            request: Box::new(request),
            version,
            client_id: self.client_id.clone(),
            client_host: format!("/{}", peer.ip().to_canonical()),
        };
        match self.ask_watching(asked, watch)? {
            Answer::Group(response) => Ok(*response),
            _ => Err(Ended),
        }
    }

    /// Asks the transaction coordinator and waits for its answer, which comes within its own bounds: the peer's end
    /// changes nothing.
    pub fn ask_transactions(&mut self, request: txn::Request) -> Result<txn::Response, Ended> {
        match self.ask(Request::Transaction(request))? {
            Answer::Transaction(response) => Ok(*response),
            _ => Err(Ended),
        }
    }

    /// Asks the control thread and waits for its answer. It comes soon, and requests may stand behind this one: the
    /// peer's end changes nothing.
    pub fn ask(&mut self, request: Request) -> Result<Answer, Ended> {
        self.ask_watching(request, Watch::Failure)
    }

    /// Asks the writer and waits for the answer, its own or the control thread's.
    pub fn ask_writer(&mut self, job: impl FnOnce(control::Reply) -> Job) -> Result<Answer, Ended> {
        self.broker.writer.submit([job(self.reply())]);
        self.answer(Watch::Failure)
    }

    fn ask_watching(&mut self, request: Request, watch: Watch) -> Result<Answer, Ended> {
        let (caller, ticket) = self.reply();
        self.broker.control.ask(request, caller, ticket);
        self.answer(watch)
    }

    fn reply(&self) -> control::Reply {
        let ticket = Ticket {
            request: self.request,
            part: 0,
        };
        (self.caller.clone(), ticket)
    }

    fn answer(&mut self, watch: Watch) -> Result<Answer, Ended> {
        let (_, ticket) = self.reply();
        let mut others = Vec::new();
        let answer = self.answer_among(ticket, &mut others, watch);
        for (ticket, outcome) in others {
            self.caller.inbox.push(ticket, outcome);
        }
        answer
    }

    /// The same; what comes meanwhile for the produces that stand before this request goes to `others`.
    fn answer_among(
        &mut self,
        ticket: Ticket,
        others: &mut Vec<(Ticket, Outcome)>,
        watch: Watch,
    ) -> Result<Answer, Ended> {
        let (mut done, mut found) = (Vec::new(), None);
        loop {
            self.caller.inbox.bell().arm();
            self.caller.inbox.take(&mut done);
            for (came, outcome) in done.drain(..) {
                match outcome {
                    Outcome::Control(answer) if came == ticket => found = Some(answer),
                    Outcome::Append(_) => others.push((came, outcome)),
                    // Of a request whose wait was given up; nobody waits for it any more.
                    Outcome::Control(_) => {}
                }
            }
            if let Some(answer) = found {
                self.caller.inbox.bell().disarm();
                return Ok(answer);
            }
            if self.rest(watch, None)? {
                return Err(Ended);
            }
        }
    }

    /// Waits for the bell, which must be armed, or until `deadline`; says whether to wait no more: the deadline
    /// passed, or the peer's end, if that is watched.
    pub fn rest(&mut self, watch: Watch, deadline: Option<Instant>) -> Result<bool, Ended> {
        let limit: Option<Duration> =
            deadline.map(|at| at.saturating_duration_since(Instant::now()));
        match self.caller.inbox.bell().wait(self.socket, watch, limit) {
            Ok(Woken::TimedOut | Woken::HungUp) => Ok(true),
            Ok(Woken::Failed) | Err(_) => Err(Ended),
            Ok(Woken::Rung | Woken::Readable) => Ok(false),
        }
    }

    /// The host and port that clients of this connection's listener shall use: what is configured, or else the
    /// address that this client connected to, which it can certainly reach.
    pub fn advertised(&self) -> (String, i32) {
        match self.broker.advertised(self.local) {
            Some(endpoint) => (endpoint.host.clone(), i32::from(endpoint.port)),
            None => (
                self.local.ip().to_canonical().to_string(),
                i32::from(self.local.port()),
            ),
        }
    }
}

/// What is published of a partition, if it is there, can be used, and the client's leader epoch is the current one
/// (KIP-320; -1: the client does not say). `missing` is the code for a partition that is not there.
pub fn usable(
    partition: Option<&Arc<Partition>>,
    leader_epoch: i32,
    missing: ErrorCode,
) -> Result<Snapshot, ErrorCode> {
    let snapshot = partition.ok_or(missing)?.snapshot();
    match snapshot.status {
        Status::Deleted => Err(missing),
        Status::Offline => Err(ErrorCode::KafkaStorageError),
        Status::Online if leader_epoch < 0 || leader_epoch == snapshot.leader_epoch => Ok(snapshot),
        Status::Online if leader_epoch < snapshot.leader_epoch => Err(ErrorCode::FencedLeaderEpoch),
        Status::Online => Err(ErrorCode::UnknownLeaderEpoch),
    }
}
