//! What clients may look up: committed offsets, the list of groups, what each of them is.
//!
//! Answers come from what is synced; a change on its way is not seen.

use super::groups::Groups;
use super::{Env, Group, Read, Response};
use crate::api::offset_fetch::*;
use crate::api::{consumer_group_describe, describe_groups, list_groups};
use crate::error::ErrorCode;
use std::collections::HashSet;

impl<W: Clone> Groups<W> {
    pub(super) fn read(&self, read: &Read, env: &Env<'_>) -> Response {
        match read {
            Read::Offsets(request, version) => {
                Response::Offsets(self.fetch(request, *version, env))
            }
            Read::List(request) => Response::List(self.list(request)),
            Read::Describe(request, version) => {
                let ids = once_each(&request.groups, Some);
                let described = ids.map(|id| self.describe(id, *version));
                Response::Described(describe_groups::DescribeGroupsResponse {
                    groups: described.collect(),
                    ..Default::default()
                })
            }
            Read::DescribeConsumer(request) => {
                let ids = once_each(&request.group_ids, Some);
                let described = ids.map(|id| self.describe_consumer(id, env));
                let groups = described.collect();
                let response = consumer_group_describe::ConsumerGroupDescribeResponse {
                    groups,
                    ..Default::default()
                };
                Response::DescribedConsumer(response)
            }
        }
    }

    /// Versions up to 7 ask for one group, in fields of their own.
    fn fetch(
        &self,
        request: &OffsetFetchRequest,
        version: i16,
        env: &Env<'_>,
    ) -> OffsetFetchResponse {
        let mut response = OffsetFetchResponse::default();
        if version >= 8 {
            // What is asked for in full grows with what there is, not with the request.
            let in_full = |group: &OffsetFetchRequestGroup| group.topics.is_none();
            let groups = once_each(&request.groups, |group| {
                in_full(group).then_some(&group.group_id)
            });
            let stable = request.require_stable;
            let told = groups.map(|group| self.fetch_group(group, version, stable, env));
            response.groups = told.collect();
            return response;
        }
        let by_name = |topic: &OffsetFetchRequestTopic| OffsetFetchRequestTopics {
            name: topic.name.clone(),
            partition_indexes: topic.partition_indexes.clone(),
            ..OffsetFetchRequestTopics::default()
        };
        let topics = request.topics.as_ref();
        let group = OffsetFetchRequestGroup {
            group_id: request.group_id.clone(),
            topics: topics.map(|topics| topics.iter().map(by_name).collect()),
            ..OffsetFetchRequestGroup::default()
        };
        let told = self.fetch_group(&group, version, request.require_stable, env);
        response.error_code = told.error_code;
        let partition = |told: OffsetFetchResponsePartitions| OffsetFetchResponsePartition {
            partition_index: told.partition_index,
            committed_offset: told.committed_offset,
            committed_leader_epoch: told.committed_leader_epoch,
            metadata: told.metadata,
            error_code: told.error_code,
        };
        let topic = |told: OffsetFetchResponseTopics| OffsetFetchResponseTopic {
            name: told.name,
            partitions: told.partitions.into_iter().map(partition).collect(),
        };
        response.topics = told.topics.into_iter().map(topic).collect();
        response
    }

    fn fetch_group(
        &self,
        request: &OffsetFetchRequestGroup,
        version: i16,
        stable: bool,
        env: &Env<'_>,
    ) -> OffsetFetchResponseGroup {
        let mut response = OffsetFetchResponseGroup {
            group_id: request.group_id.clone(),
            ..OffsetFetchResponseGroup::default()
        };
        let known = self.known(&request.group_id);
        if let Some((Group::Consumer(group), _)) = known
            && let Err(code) = group.check_fetch(request.member_id.as_deref(), request.member_epoch)
        {
            response.error_code = code.code();
            return response;
        }
        let nothing = Default::default();
        let offsets = known.map_or(&nothing, |(_, offsets)| offsets);
        let id_of = |name: &str| env.catalog.topics.get(name).map(|topic| topic.id);
        let Some(asked) = &request.topics else {
            let with_id = offsets.fetch_all(stable).filter_map(|mut topic| {
                if version >= 10 {
                    topic.topic_id = id_of(&topic.name)?;
                }
                Some(topic)
            });
            response.topics = with_id.collect();
            return response;
        };
        for topic in asked {
            let name = match version {
                0..=9 => Some(topic.name.as_str()),
                _ => env.catalog.name_of(topic.topic_id),
            };
            let mut told =
                offsets.fetch(name.unwrap_or_default(), &topic.partition_indexes, stable);
            told.topic_id = topic.topic_id;
            if name.is_none() {
                let unknown = ErrorCode::UnknownTopicId.code();
                let partitions = told.partitions.iter_mut();
                partitions.for_each(|partition| partition.error_code = unknown);
            }
            response.topics.push(told);
        }
        response
    }

    /// States and types are compared without regard to case (KIP-518, KIP-848); no filter means all.
    fn list(&self, request: &list_groups::ListGroupsRequest) -> list_groups::ListGroupsResponse {
        let admits = |filter: &[String], is: &str| {
            filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(is))
        };
        let listed = self
            .all_known()
            .map(|(id, group)| list_groups::ListedGroup {
                group_id: id.to_string(),
                protocol_type: group.protocol_type().into(),
                group_state: group.state_name().into(),
                group_type: group.type_name().into(),
            });
        let groups = listed.filter(|group| {
            admits(&request.states_filter, &group.group_state)
                && admits(&request.types_filter, &group.group_type)
        });
        list_groups::ListGroupsResponse {
            groups: groups.collect(),
            ..Default::default()
        }
    }

    /// A group that is not there, or is of the new kind, is dead; from version 6 on it is an error (KIP-1043).
    fn describe(&self, id: &str, version: i16) -> describe_groups::DescribedGroup {
        let why = match self.known(id) {
            Some((Group::Classic(group), _)) => return group.describe(),
            Some(_) => "is not a classic group",
            None => "not found",
        };
        let mut described = describe_groups::DescribedGroup {
            group_id: id.into(),
            group_state: "Dead".into(),
            ..Default::default()
        };
        if version >= 6 {
            described.error_code = ErrorCode::GroupIdNotFound.code();
            described.error_message = Some(format!("Group {id} {why}."));
        }
        described
    }

    fn describe_consumer(
        &self,
        id: &str,
        env: &Env<'_>,
    ) -> consumer_group_describe::DescribedGroup {
        let why = match self.known(id) {
            _ if id.is_empty() => {
                return consumer_group_describe::DescribedGroup {
                    error_code: ErrorCode::InvalidGroupId.code(),
                    ..Default::default()
                };
            }
            Some((Group::Consumer(group), _)) => return group.describe(env),
            Some(_) => "is not a consumer group",
            None => "not found",
        };
        consumer_group_describe::DescribedGroup {
            group_id: id.into(),
            error_code: ErrorCode::GroupIdNotFound.code(),
            error_message: Some(format!("Group {id} {why}.")),
            ..Default::default()
        }
    }
}

/// Of those with a name, the first of each name, and all others: a request that names one large group 100,000 times
/// would take all memory.
fn once_each<'a, T>(
    asked: &'a [T],
    name: impl Fn(&'a T) -> Option<&'a String>,
) -> impl Iterator<Item = &'a T> {
    let mut seen = HashSet::new();
    asked
        .iter()
        .filter(move |one| name(one).is_none_or(|name| seen.insert(name)))
}
