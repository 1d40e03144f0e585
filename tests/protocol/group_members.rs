//! Members of classic groups, over the wire: joining, syncing, leaving, and what a broker's end means to them.

use crate::common::Broker;
use crate::common::client::Client;
use crate::start;
use ottla::api::describe_groups::{DescribeGroupsRequest, DescribeGroupsResponse, DescribedGroup};
use ottla::api::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use ottla::api::join_group::{JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse};
use ottla::api::leave_group::{LeaveGroupRequest, LeaveGroupResponse, MemberIdentity};
use ottla::api::sync_group::*;
use ottla::error::ErrorCode;

const AT_ONCE: &[&str] = &["group.initial.rebalance.delay.ms=0"];

fn join(member_id: &str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: "g".into(),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 60_000,
        member_id: member_id.into(),
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".into(),
            metadata: b"mine".to_vec(),
        }],
        ..JoinGroupRequest::default()
    }
}

/// Joins with an id that the broker gave, and brings everyone's assignment; gives the id and the generation.
fn lead(client: &mut Client) -> (String, i32) {
    let told: JoinGroupResponse = client.call(9, &join(""));
    assert_eq!(told.error_code, ErrorCode::MemberIdRequired.code());
    assert!(told.member_id.starts_with("raw-"), "{}", told.member_id);
    let joined: JoinGroupResponse = client.call(9, &join(&told.member_id));
    assert_eq!(joined.error_code, 0);
    assert_eq!(joined.leader, joined.member_id);
    let synced = sync(client, &joined);
    assert_eq!(
        (synced.error_code, &synced.assignment[..]),
        (0, &b"yours"[..])
    );
    (joined.member_id, joined.generation_id)
}

fn sync(client: &mut Client, joined: &JoinGroupResponse) -> SyncGroupResponse {
    let part = |member_id: &str| SyncGroupRequestAssignment {
        member_id: member_id.into(),
        assignment: b"yours".to_vec(),
    };
    let request = SyncGroupRequest {
        group_id: "g".into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        assignments: joined.members.iter().map(|m| part(&m.member_id)).collect(),
        ..SyncGroupRequest::default()
    };
    client.call(5, &request)
}

fn beat(client: &mut Client, member_id: &str, generation_id: i32) -> i16 {
    let request = HeartbeatRequest {
        group_id: "g".into(),
        generation_id,
        member_id: member_id.into(),
        group_instance_id: None,
    };
    let told: HeartbeatResponse = client.call(4, &request);
    told.error_code
}

fn describe(client: &mut Client) -> DescribedGroup {
    let request = DescribeGroupsRequest {
        groups: vec!["g".into()],
        include_authorized_operations: true,
    };
    let mut told: DescribeGroupsResponse = client.call(6, &request);
    told.groups.remove(0)
}

#[test]
fn a_generation_outlives_a_kill() {
    let (data, broker, mut client) = start(AT_ONCE);
    let (member, generation) = lead(&mut client);
    broker.kill();
    let broker = Broker::start(data.path(), AT_ONCE);
    let mut client = Client::connect(&broker.address);
    assert_eq!(beat(&mut client, &member, generation), 0);
    let group = describe(&mut client);
    assert_eq!(group.group_state, "Stable");
    assert_eq!(
        (&group.protocol_type[..], &group.protocol_data[..]),
        ("consumer", "range")
    );
    assert_eq!(group.members[0].member_metadata, b"mine");
    assert_eq!(group.members[0].member_assignment, b"yours");
    assert_eq!(group.members[0].client_id, "raw");
    assert_eq!(group.members[0].client_host, "/127.0.0.1");
    assert_ne!(group.authorized_operations, i32::MIN);
}

/// A rebalance that the end of the broker cut short was never recorded: members rejoin, and generations go on.
#[test]
fn a_kill_in_mid_rebalance_leaves_the_last_generation() {
    let (data, broker, mut client) = start(AT_ONCE);
    let (member, generation) = lead(&mut client);
    let mut other = Client::connect(&broker.address);
    let told: JoinGroupResponse = other.call(9, &join(""));
    other.send(9, &join(&told.member_id));
    let rebalancing = ErrorCode::RebalanceInProgress.code();
    while beat(&mut client, &member, generation) != rebalancing {}
    broker.kill();
    let broker = Broker::start(data.path(), AT_ONCE);
    let mut client = Client::connect(&broker.address);
    assert_eq!(beat(&mut client, &member, generation), 0);
    let unknown: JoinGroupResponse = client.call(9, &join(&told.member_id));
    assert_eq!(unknown.error_code, ErrorCode::UnknownMemberId.code());
    let joined: JoinGroupResponse = client.call(9, &join(&member));
    assert_eq!(joined.error_code, 0);
    assert!(joined.generation_id > generation);
}

#[test]
fn the_last_to_leave_leaves_an_empty_group() {
    let (_data, _broker, mut client) = start(AT_ONCE);
    let (member, generation) = lead(&mut client);
    let leave = LeaveGroupRequest {
        group_id: "g".into(),
        members: vec![
            MemberIdentity {
                member_id: "stranger".into(),
                ..MemberIdentity::default()
            },
            MemberIdentity {
                member_id: member.clone(),
                ..MemberIdentity::default()
            },
        ],
        ..LeaveGroupRequest::default()
    };
    let left: LeaveGroupResponse = client.call(5, &leave);
    let codes: Vec<i16> = left
        .members
        .iter()
        .map(|member| member.error_code)
        .collect();
    assert_eq!(
        (left.error_code, codes),
        (0, vec![ErrorCode::UnknownMemberId.code(), 0])
    );
    let unknown = ErrorCode::UnknownMemberId.code();
    assert_eq!(beat(&mut client, &member, generation), unknown);
    let group = describe(&mut client);
    assert_eq!((&group.group_state[..], group.members.len()), ("Empty", 0));
}

/// A member whose join waits for others, perhaps for minutes, and that is gone: its thread ends at once.
#[test]
fn a_disconnect_while_a_join_waits_is_noticed() {
    let (_data, broker, mut client) = start(AT_ONCE);
    lead(&mut client);
    let threads = broker.status("Threads:");
    let mut other = Client::connect(&broker.address);
    let told: JoinGroupResponse = other.call(9, &join(""));
    other.send(9, &join(&told.member_id));
    while describe(&mut client).group_state != "PreparingRebalance" {}
    assert!(other.is_silent());
    drop(other);
    broker.expect_threads(threads);
}

#[test]
fn a_broker_stops_while_a_join_waits() {
    let (_data, broker, mut client) = start(AT_ONCE);
    lead(&mut client);
    let mut other = Client::connect(&broker.address);
    let told: JoinGroupResponse = other.call(9, &join(""));
    other.send(9, &join(&told.member_id));
    while describe(&mut client).group_state != "PreparingRebalance" {}
    assert!(broker.stop().success());
    other.expect_close();
}

#[test]
fn an_unknown_group_is_dead_and_from_version_6_on_an_error() {
    let (_data, _broker, mut client) = start(&[]);
    for version in 0..=6 {
        let request = DescribeGroupsRequest {
            groups: vec!["nobody".into()],
            ..DescribeGroupsRequest::default()
        };
        let told: DescribeGroupsResponse = client.call(version, &request);
        let group = &told.groups[0];
        let code = match version {
            6 => ErrorCode::GroupIdNotFound,
            _ => ErrorCode::None,
        };
        assert_eq!(
            (&group.group_state[..], group.error_code),
            ("Dead", code.code())
        );
        assert_eq!(group.error_message.is_some(), version == 6);
        assert_eq!(group.authorized_operations, i32::MIN);
    }
}
