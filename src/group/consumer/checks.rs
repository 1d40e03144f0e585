//! What of a heartbeat can be refused by looking at it, and at the member that it is from.

use super::Fault;
use super::member::{EPOCH_AWAY, Member, has, pairs};
use crate::api::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
};
use crate::error::ErrorCode;
use crate::group::Env;
use crate::group::assignors::Assignment;

/// The epoch of a heartbeat that is the last one.
const EPOCH_LEAVING: i32 = -1;

/// The answer to a heartbeat that is refused.
pub(super) fn refused((code, message): Fault) -> ConsumerGroupHeartbeatResponse {
    ConsumerGroupHeartbeatResponse {
        error_code: code.code(),
        error_message: Some(message),
        ..ConsumerGroupHeartbeatResponse::default()
    }
}

/// Checks what can be checked without a group.
///
/// # Errors
/// INVALID_REQUEST, UNSUPPORTED_ASSIGNOR.
pub(super) fn check(
    request: &ConsumerGroupHeartbeatRequest,
    version: i16,
    env: &Env<'_>,
) -> Result<(), Fault> {
    let invalid = |what: &str| Err((ErrorCode::InvalidRequest, what.to_owned()));
    let blank = |text: &str| text.trim().is_empty();
    let epoch = request.member_epoch;
    if (version >= 1 || epoch > 0 || epoch == EPOCH_LEAVING) && blank(&request.member_id) {
        return invalid("MemberId can't be empty.");
    }
    if blank(&request.group_id) {
        return invalid("GroupId can't be empty.");
    }
    if request.instance_id.as_deref().is_some_and(blank) {
        return invalid("InstanceId can't be empty.");
    }
    if request.rack_id.as_deref().is_some_and(blank) {
        return invalid("RackId can't be empty.");
    }
    match epoch {
        0 if request.rebalance_timeout_ms == -1 => {
            return invalid("RebalanceTimeoutMs must be provided in first request.");
        }
        0 if request
            .topic_partitions
            .as_ref()
            .is_none_or(|owned| !owned.is_empty()) =>
        {
            return invalid("TopicPartitions must be empty when (re-)joining.");
        }
        0 if request.subscribed_topic_names.is_none()
            && request.subscribed_topic_regex.is_none() =>
        {
            return invalid(
                "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.",
            );
        }
        EPOCH_AWAY if request.instance_id.is_none() => return invalid("InstanceId can't be null."),
        ..EPOCH_AWAY => return invalid("MemberEpoch is invalid."),
        _ => {}
    }
    let assignors = &env.config.group_consumer_assignors;
    match &request.server_assignor {
        Some(name) if !assignors.contains(name) => Err((
            ErrorCode::UnsupportedAssignor,
            format!(
                "ServerAssignor {name} is not supported. Supported assignors: {}.",
                assignors.join(", ")
            ),
        )),
        _ => Ok(()),
    }
}

/// Whether a member's epoch is that of its last answer, or the one before and it has nothing that it should not: then
/// that answer was lost.
///
/// # Errors
/// FENCED_MEMBER_EPOCH.
pub(super) fn check_epoch(
    member: &Member,
    epoch: i32,
    owned: Option<&Assignment>,
) -> Result<(), Fault> {
    let fenced = |how: &str| {
        let what = format!(
            "The consumer group member has a {how} member epoch ({epoch}) than the one known by the group \
             coordinator ({}). The member must abandon all its partitions and rejoin.",
            member.epoch
        );
        Err((ErrorCode::FencedMemberEpoch, what))
    };
    let has_all = |owned: &Assignment| pairs(owned).all(|pair| has(&member.assigned, pair));
    match epoch {
        _ if epoch > member.epoch => fenced("greater"),
        _ if epoch == member.epoch => Ok(()),
        _ if epoch == member.previous_epoch && owned.is_some_and(has_all) => Ok(()),
        _ => fenced("smaller"),
    }
}
