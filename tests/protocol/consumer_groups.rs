//! Groups of the consumer protocol (KIP-848), over the wire: heartbeats, settings, and a broker's end in between.

use crate::common::Broker;
use crate::common::client::Client;
use crate::start;
use ottla::api::consumer_group_describe::*;
use ottla::api::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
};
use ottla::api::describe_groups::{DescribeGroupsRequest, DescribeGroupsResponse};
use ottla::api::join_group::{JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse};
use ottla::api::list_groups::{ListGroupsRequest, ListGroupsResponse};
use ottla::error::ErrorCode;

fn first(member: &str, topic: &str) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: member.into(),
        rebalance_timeout_ms: 60_000,
        subscribed_topic_names: Some(vec![topic.into()]),
        topic_partitions: Some(vec![]),
        ..ConsumerGroupHeartbeatRequest::default()
    }
}

fn beat(
    client: &mut Client,
    request: &ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    client.call(1, request)
}

fn next(member: &str, epoch: i32) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: member.into(),
        member_epoch: epoch,
        ..ConsumerGroupHeartbeatRequest::default()
    }
}

fn partitions(told: &ConsumerGroupHeartbeatResponse) -> Option<Vec<i32>> {
    let assignment = told.assignment.as_ref()?;
    let topics = assignment.topic_partitions.iter();
    Some(topics.flat_map(|topic| topic.partitions.clone()).collect())
}

fn describe(client: &mut Client, version: i16) -> DescribedGroup {
    let request = ConsumerGroupDescribeRequest {
        group_ids: vec!["g".into()],
        include_authorized_operations: true,
    };
    let mut told: ConsumerGroupDescribeResponse = client.call(version, &request);
    told.groups.remove(0)
}

#[test]
fn a_member_is_given_its_partitions_and_keeps_them_over_a_kill() {
    let (data, broker, mut client) = start(&[]);
    client.create_with("t", 3, &[]);
    let told = beat(&mut client, &first("m", "t"));
    assert_eq!((told.error_code, told.member_epoch), (0, 1));
    assert_eq!(told.heartbeat_interval_ms, 5_000);
    assert_eq!(partitions(&told), Some(vec![0, 1, 2]));
    broker.kill();
    let broker = Broker::start(data.path(), &[]);
    let mut client = Client::connect(&broker.address);
    let told = beat(&mut client, &next("m", 1));
    assert_eq!((told.error_code, told.member_epoch), (0, 1));
    assert_eq!(partitions(&told), None, "nothing is new");
    for version in 0..=1 {
        let group = describe(&mut client, version);
        assert_eq!((group.error_code, &group.group_state[..]), (0, "Stable"));
        assert_eq!((group.group_epoch, group.assignment_epoch), (1, 1));
        assert_eq!(group.assignor_name, "uniform");
        let member = &group.members[0];
        let topic = &member.assignment.topic_partitions[0];
        assert_eq!(
            (&topic.topic_name[..], &topic.partitions[..]),
            ("t", &[0, 1, 2][..])
        );
        assert_eq!(member.subscribed_topic_names, ["t"]);
        assert_eq!(member.client_host, "/127.0.0.1");
        assert_eq!(member.member_type, if version == 0 { -1 } else { 1 });
    }
    let listed: ListGroupsResponse = client.call(5, &ListGroupsRequest::default());
    let group = &listed.groups[0];
    assert_eq!(
        (&group.group_type[..], &group.protocol_type[..]),
        ("consumer", "consumer")
    );
}

/// KIP-848: a partition that another still holds is given only once it has been given up.
#[test]
fn a_second_member_waits_for_what_the_first_gives_up() {
    let (_data, _broker, mut client) = start(&[]);
    let id = client.create_with("t", 2, &[]);
    beat(&mut client, &first("a", "t"));
    let told = beat(&mut client, &first("b", "t"));
    assert_eq!((told.member_epoch, partitions(&told)), (2, Some(vec![])));
    let told = beat(&mut client, &next("a", 1));
    let kept = partitions(&told).expect("a is told to give one up");
    assert_eq!((told.member_epoch, kept.len()), (1, 1));
    assert_eq!(partitions(&beat(&mut client, &next("b", 2))), None);
    let mut owns = next("a", 1);
    owns.topic_partitions = Some(vec![
        ottla::api::consumer_group_heartbeat::TopicPartitions {
            topic_id: id,
            partitions: kept.clone(),
        },
    ]);
    assert_eq!(beat(&mut client, &owns).member_epoch, 2);
    let given = partitions(&beat(&mut client, &next("b", 2))).expect("b is given the other");
    assert_eq!(given, [1 - kept[0]]);
}

#[test]
fn the_brokers_assignors_are_those_that_it_is_told() {
    let (_data, _broker, mut client) = start(&["group.consumer.assignors=range"]);
    client.create("t", &[]);
    let mut request = first("m", "t");
    request.server_assignor = Some("uniform".into());
    let told = beat(&mut client, &request);
    assert_eq!(told.error_code, ErrorCode::UnsupportedAssignor.code());
    assert!(
        told.error_message
            .is_some_and(|message| message.contains("range"))
    );
    assert_eq!(beat(&mut client, &first("m", "t")).error_code, 0);
    assert_eq!(describe(&mut client, 1).assignor_name, "range");
}

#[test]
fn group_consumer_max_size_is_in_force() {
    let (_data, _broker, mut client) = start(&["group.consumer.max.size=1"]);
    client.create("t", &[]);
    assert_eq!(beat(&mut client, &first("a", "t")).error_code, 0);
    let told = beat(&mut client, &first("b", "t"));
    assert_eq!(told.error_code, ErrorCode::GroupMaxSizeReached.code());
}

#[test]
fn the_consumer_protocol_can_be_switched_off() {
    let (_data, _broker, mut client) = start(&["group.coordinator.rebalance.protocols=classic"]);
    client.create("t", &[]);
    let told = beat(&mut client, &first("a", "t"));
    assert_eq!(told.error_code, ErrorCode::UnsupportedVersion.code());
}

#[test]
fn group_consumer_migration_policy_is_in_force() {
    let refused = ErrorCode::GroupIdNotFound.code();
    for (policy, code, kind) in [
        ("bidirectional", 0, "consumer"),
        ("disabled", refused, "classic"),
    ] {
        let setting = format!("group.consumer.migration.policy={policy}");
        let (_data, _broker, mut client) = start(&[&setting, "group.initial.rebalance.delay.ms=0"]);
        client.create("t", &[]);
        let join = |member_id: &str| JoinGroupRequest {
            group_id: "g".into(),
            session_timeout_ms: 30_000,
            rebalance_timeout_ms: 60_000,
            member_id: member_id.into(),
            protocol_type: "consumer".into(),
            protocols: vec![JoinGroupRequestProtocol {
                name: "range".into(),
                // Version 0, one topic, no user data.
                metadata: b"\0\0\0\0\0\x01\0\x01t\xff\xff\xff\xff".to_vec(),
            }],
            ..JoinGroupRequest::default()
        };
        let told: JoinGroupResponse = client.call(9, &join(""));
        let joined: JoinGroupResponse = client.call(9, &join(&told.member_id));
        assert_eq!(joined.error_code, 0);
        let told = beat(&mut client, &first("new", "t"));
        assert_eq!(told.error_code, code, "{policy}: {:?}", told.error_message);
        let listed: ListGroupsResponse = client.call(5, &ListGroupsRequest::default());
        assert_eq!(listed.groups[0].group_type, kind);
    }
}

fn wanting(pattern: &str) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: "m".into(),
        rebalance_timeout_ms: 60_000,
        subscribed_topic_regex: Some(pattern.into()),
        topic_partitions: Some(Vec::new()),
        ..ConsumerGroupHeartbeatRequest::default()
    }
}

#[test]
fn a_member_reads_what_its_pattern_matches() {
    let (_data, _broker, mut client) = start(&[]);
    let topic = client.create("orders-1", &[]);
    client.create("bills-1", &[]);
    let told: ConsumerGroupHeartbeatResponse = client.call(1, &wanting("("));
    assert_eq!(told.error_code, ErrorCode::InvalidRegularExpression.code());
    let told: ConsumerGroupHeartbeatResponse = client.call(1, &wanting("orders-.*"));
    assert_eq!((told.error_code, told.member_epoch), (0, 1));
    let topics = told.assignment.expect("an assignment").topic_partitions;
    assert_eq!(topics.len(), 1);
    assert_eq!(topics[0].topic_id, topic);
    let request = ConsumerGroupDescribeRequest {
        group_ids: vec!["g".into()],
        ..ConsumerGroupDescribeRequest::default()
    };
    let told: ConsumerGroupDescribeResponse = client.call(1, &request);
    let member = &told.groups[0].members[0];
    assert_eq!(member.client_id, client.client_id);
    assert_eq!(member.subscribed_topic_regex.as_deref(), Some("orders-.*"));
}

/// Whoever waits in a group when its log is deleted hears of it, instead of waiting for ever.
#[test]
fn a_waiting_join_is_answered_when_the_log_of_groups_is_deleted() {
    let (_data, broker, mut client) = start(&["group.initial.rebalance.delay.ms=3600000"]);
    client.create("__consumer_offsets", &[]);
    let join = JoinGroupRequest {
        group_id: "g".into(),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 3_600_000,
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol::default()],
        ..JoinGroupRequest::default()
    };
    let mut other = Client::connect(&broker.address);
    other.send(3, &join);
    let state = |client: &mut Client| {
        let request = DescribeGroupsRequest {
            groups: vec!["g".into()],
            ..DescribeGroupsRequest::default()
        };
        let mut told: DescribeGroupsResponse = client.call(5, &request);
        told.groups.remove(0).group_state
    };
    while state(&mut client) != "PreparingRebalance" {}
    client.delete("__consumer_offsets");
    let told: JoinGroupResponse = other.receive(3);
    assert_eq!(told.error_code, ErrorCode::NotCoordinator.code());
    assert_eq!(state(&mut client), "Dead");
}
