//! What a client is told when its request cannot be taken up or recorded: every kind of answer, with one code.

use super::commits::answered;
use super::groups::Groups;
use super::{Ask, Read, Request, Response, Told};
use crate::api::consumer_group_describe::{self, ConsumerGroupDescribeResponse};
use crate::api::consumer_group_heartbeat::ConsumerGroupHeartbeatResponse;
use crate::api::describe_groups::{self, DescribeGroupsResponse};
use crate::api::heartbeat::HeartbeatResponse;
use crate::api::join_group::JoinGroupResponse;
use crate::api::leave_group::LeaveGroupResponse;
use crate::api::list_groups::ListGroupsResponse;
use crate::api::offset_commit::{OffsetCommitRequest, OffsetCommitResponse};
use crate::api::offset_delete::OffsetDeleteResponse;
use crate::api::offset_fetch::*;
use crate::api::sync_group::SyncGroupResponse;
use crate::error::ErrorCode;

impl<W: Clone> Groups<W> {
    /// Groups have as much memory as they may.
    pub(super) fn refuse_growth(&mut self, waiter: W, response: Response) {
        if !std::mem::replace(&mut self.is_full, true) {
            log::warn!(
                "groups take {} bytes: new members and offsets are refused (group.state.bytes.max)",
                self.bytes
            );
        }
        self.answer(waiter, response);
    }
}

impl Request {
    /// The answer with nothing but this code.
    pub fn refusal(&self, code: ErrorCode) -> Response {
        match self {
            Request::Member(ask) => Response::Member(ask.refusal(code)),
            Request::Commit(request, _) => Response::Commit(refused_commit(request, code)),
            Request::DeleteOffsets(_) => Response::DeleteOffsets(refused_delete(code)),
            Request::Delete(_) => Response::Deleted(code),
            Request::Read(read) => read.refusal(code),
        }
    }
}

impl Ask {
    /// The answer with nothing but this code.
    pub(super) fn refusal(&self, code: ErrorCode) -> Told {
        let error_code = code.code();
        match self {
            Ask::Join(request) => Told::Join(JoinGroupResponse {
                error_code,
                member_id: request.member_id.clone(),
                ..JoinGroupResponse::default()
            }),
            Ask::Sync(_) => Told::Sync(SyncGroupResponse {
                error_code,
                ..SyncGroupResponse::default()
            }),
            Ask::Heartbeat(_) => Told::Heartbeat(HeartbeatResponse {
                error_code,
                ..HeartbeatResponse::default()
            }),
            Ask::Leave(_) => Told::Leave(LeaveGroupResponse {
                error_code,
                ..LeaveGroupResponse::default()
            }),
            Ask::ConsumerHeartbeat(..) => Told::ConsumerHeartbeat(ConsumerGroupHeartbeatResponse {
                error_code,
                ..ConsumerGroupHeartbeatResponse::default()
            }),
        }
    }
}

impl Read {
    fn refusal(&self, code: ErrorCode) -> Response {
        let error_code = code.code();
        match self {
            Read::Offsets(request, version) => {
                Response::Offsets(refused_fetch(request, *version, error_code))
            }
            Read::List(_) => Response::List(ListGroupsResponse {
                error_code,
                ..ListGroupsResponse::default()
            }),
            Read::Describe(request, _) => {
                let refused = |group: &String| describe_groups::DescribedGroup {
                    error_code,
                    group_id: group.clone(),
                    ..Default::default()
                };
                Response::Described(DescribeGroupsResponse {
                    groups: request.groups.iter().map(refused).collect(),
                    ..DescribeGroupsResponse::default()
                })
            }
            Read::DescribeConsumer(request) => {
                let refused = |group: &String| consumer_group_describe::DescribedGroup {
                    error_code,
                    group_id: group.clone(),
                    ..Default::default()
                };
                Response::DescribedConsumer(ConsumerGroupDescribeResponse {
                    groups: request.group_ids.iter().map(refused).collect(),
                    ..ConsumerGroupDescribeResponse::default()
                })
            }
        }
    }
}

/// Version 1 has an error for each partition alone, versions 2 to 7 one for the group, later ones one for each group.
fn refused_fetch(
    request: &OffsetFetchRequest,
    version: i16,
    error_code: i16,
) -> OffsetFetchResponse {
    let partition = |index: &i32| OffsetFetchResponsePartition {
        partition_index: *index,
        committed_offset: -1,
        error_code,
        ..OffsetFetchResponsePartition::default()
    };
    let topic = |topic: &OffsetFetchRequestTopic| OffsetFetchResponseTopic {
        name: topic.name.clone(),
        partitions: topic.partition_indexes.iter().map(partition).collect(),
    };
    let topics = request.topics.iter().flatten().filter(|_| version < 2);
    let group = |group: &OffsetFetchRequestGroup| OffsetFetchResponseGroup {
        group_id: group.group_id.clone(),
        error_code,
        ..OffsetFetchResponseGroup::default()
    };
    OffsetFetchResponse {
        topics: topics.map(topic).collect(),
        error_code,
        groups: request.groups.iter().map(group).collect(),
        ..OffsetFetchResponse::default()
    }
}

/// The answer with this code for each partition.
pub fn refused_commit(request: &OffsetCommitRequest, code: ErrorCode) -> OffsetCommitResponse {
    answered(request, |_| code)
}

pub(super) fn refused_delete(code: ErrorCode) -> OffsetDeleteResponse {
    OffsetDeleteResponse {
        error_code: code.code(),
        ..OffsetDeleteResponse::default()
    }
}
