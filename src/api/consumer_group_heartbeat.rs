//! ConsumerGroupHeartbeat (key 68): a member of a group whose partitions the broker assigns (KIP-848).
//!
//! # Version notes
//! - v1: regular expressions; the member makes its own id (KIP-1082).

use super::{Call, Ended};
use crate::error::ErrorCode;
use crate::group::consumer::Found;
use crate::group::{Ask, Request, Response, Told};
use crate::server::waiting::Watch;
use crate::wire::{Uuid, messages};

messages! {
    ConsumerGroupHeartbeatRequest(68) [0-1, flexible 0+] {
        group_id: String [0+],
        member_id: String [0+],
        member_epoch: i32 [0+],
        instance_id: Option<String> [0+],
        rack_id: Option<String> [0+],
        rebalance_timeout_ms: i32 [0+] = -1,
        subscribed_topic_names: Option<Vec<String>> [0+],
        subscribed_topic_regex: Option<String> [1+],
        server_assignor: Option<String> [0+],
        topic_partitions: Option<Vec<TopicPartitions>> [0+],
    }
    TopicPartitions {
        topic_id: Uuid [0+],
        partitions: Vec<i32> [0+],
    }

    ConsumerGroupHeartbeatResponse(68) [0-1, flexible 0+] {
        throttle_time_ms: i32 [0+],
        error_code: i16 [0+],
        error_message: Option<String> [0+],
        member_id: Option<String> [0+],
        member_epoch: i32 [0+],
        heartbeat_interval_ms: i32 [0+],
        assignment: Option<Assignment> [0+],
    }
    Assignment {
        topic_partitions: Vec<TopicPartitions> [0+],
    }
}

/// Asks the group and waits for its answer; looks up what a pattern stands for, if the group wants to know. A broker
/// that is told not to serve this protocol says UNSUPPORTED_VERSION.
pub fn handle(
    call: &mut Call<'_>,
    version: i16,
    mut request: ConsumerGroupHeartbeatRequest,
) -> Result<ConsumerGroupHeartbeatResponse, Ended> {
    let config = call.broker.config();
    if !config
        .group_coordinator_rebalance_protocols
        .iter()
        .any(|name| name == "consumer")
    {
        return Ok(ConsumerGroupHeartbeatResponse {
            error_code: ErrorCode::UnsupportedVersion.code(),
            ..ConsumerGroupHeartbeatResponse::default()
        });
    }
    let mut found = Found::default();
    loop {
        let ask = Ask::ConsumerHeartbeat(request, found);
        match call.ask_group(version, Request::Member(Box::new(ask)), Watch::Failure)? {
            Response::Member(Told::ConsumerHeartbeat(response)) => return Ok(response),
            Response::Member(Told::LookUp(look_up)) => (request, found) = look_up.run(),
            _ => return Err(Ended),
        }
    }
}
