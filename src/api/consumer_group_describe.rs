//! ConsumerGroupDescribe (key 69): the state and members of a group whose partitions the broker assigns (KIP-848).
//!
//! # Version notes
//! - v1: each member's type.

use super::{Call, Ended, operations};
use crate::group::{Read, Request, Response};
use crate::server::waiting::Watch;
use crate::wire::{Uuid, messages};

messages! {
    ConsumerGroupDescribeRequest(69) [0-1, flexible 0+] {
        group_ids: Vec<String> [0+],
        include_authorized_operations: bool [0+],
    }

    ConsumerGroupDescribeResponse(69) [0-1, flexible 0+] {
        throttle_time_ms: i32 [0+],
        groups: Vec<DescribedGroup> [0+],
    }
    DescribedGroup {
        error_code: i16 [0+],
        error_message: Option<String> [0+],
        group_id: String [0+],
        group_state: String [0+],
        group_epoch: i32 [0+],
        assignment_epoch: i32 [0+],
        assignor_name: String [0+],
        members: Vec<Member> [0+],
        authorized_operations: i32 [0+] = -2147483648,
    }
    TopicPartitions {
        topic_id: Uuid [0+],
        topic_name: String [0+],
        partitions: Vec<i32> [0+],
    }
    Assignment {
        topic_partitions: Vec<TopicPartitions> [0+],
    }
    Member {
        member_id: String [0+],
        instance_id: Option<String> [0+],
        rack_id: Option<String> [0+],
        member_epoch: i32 [0+],
        client_id: String [0+],
        client_host: String [0+],
        subscribed_topic_names: Vec<String> [0+],
        subscribed_topic_regex: Option<String> [0+],
        assignment: Assignment [0+],
        target_assignment: Assignment [0+],
        member_type: i8 [1+] = -1,
    }
}

/// Describes groups; who asks is told what may be done to them, if it asks for that.
pub fn handle(
    call: &mut Call<'_>,
    version: i16,
    request: ConsumerGroupDescribeRequest,
) -> Result<ConsumerGroupDescribeResponse, Ended> {
    let asks = request.include_authorized_operations;
    let read = Request::Read(Read::DescribeConsumer(request));
    match call.ask_group(version, read, Watch::Failure)? {
        Response::DescribedConsumer(mut response) => {
            for group in response
                .groups
                .iter_mut()
                .filter(|group| asks && group.error_code == 0)
            {
                group.authorized_operations = operations::GROUP;
            }
            Ok(response)
        }
        _ => Err(Ended),
    }
}
