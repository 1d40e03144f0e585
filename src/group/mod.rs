//! Consumer groups: who reads which partition, and how far a group has read.
//!
//! Owns nothing that lasts: a group is a pure state machine, `step(event, now) -> effects`, with no thread, socket
//! or clock inside; the control thread drives it, and `__consumer_offsets` holds what must outlive it ([`records`]).
//!
//! Invariants: a step that has records counts only once they are synced: until then the group is as it was, and its
//! next event waits; a step whose records are refused never was.

pub mod records;

use crate::api::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
};
use crate::api::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use crate::api::join_group::{JoinGroupRequest, JoinGroupResponse};
use crate::api::leave_group::{LeaveGroupRequest, LeaveGroupResponse};
use crate::api::sync_group::{SyncGroupRequest, SyncGroupResponse};
use crate::catalog::State;
use crate::config::Config;
use crate::wire::Uuid;
use records::Record;

/// What a step may look at besides the group itself.
pub struct Env<'a> {
    /// CLOCK_BOOTTIME in ms: sessions and time-outs run on it.
    pub now_ms: i64,
    /// Broker time in ms since 1970 (promise P8): what is recorded, and what offset expiry runs on.
    pub time_ms: i64,
    /// The broker's settings.
    pub config: &'a Config,
    /// The topics that there are.
    pub catalog: &'a State,
    /// Gives an id that nobody had before.
    pub new_id: &'a dyn Fn() -> Uuid,
}

/// A member's request.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Ask {
    Join(JoinGroupRequest),
    Sync(SyncGroupRequest),
    Heartbeat(HeartbeatRequest),
    Leave(LeaveGroupRequest),
    ConsumerHeartbeat(ConsumerGroupHeartbeatRequest),
}

/// A request's answer.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Told {
    Join(JoinGroupResponse),
    Sync(SyncGroupResponse),
    Heartbeat(HeartbeatResponse),
    Leave(LeaveGroupResponse),
    ConsumerHeartbeat(ConsumerGroupHeartbeatResponse),
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct Asker<W> {
    /// The version of the request.
    pub version: i16,
    /// From the request's header; empty if there is none.
    pub client_id: String,
    /// As Kafka shows it: `/127.0.0.1`.
    pub client_host: String,
    /// Where the answer goes: a connection, or a number in a test.
    pub waiter: W,
}

/// What happens to one group.
#[derive(Clone, Debug)]
pub enum Event<W> {
    /// A member asks.
    Asked(Box<Ask>, Asker<W>),
    /// The time came that the group named as its next.
    Due,
}

/// What a step leads to: first the records are committed, then the answers are given.
#[derive(Clone, Debug)]
pub struct Effects<W> {
    /// To be committed together, in this order.
    pub records: Vec<Record>,
    /// Whom to answer what; also waiters of earlier events.
    pub told: Vec<(W, Told)>,
}

impl<W> Default for Effects<W> {
    fn default() -> Effects<W> {
        Effects {
            records: Vec::new(),
            told: Vec::new(),
        }
    }
}
