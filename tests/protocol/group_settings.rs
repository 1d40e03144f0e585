//! The broker's settings of groups: each changed, and its effect seen.

use crate::common::client::Client;
use crate::{offset_commits, start};
use ottla::api::join_group::{JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse};
use ottla::error::ErrorCode;
use std::fs;

fn join(session_timeout_ms: i32) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: "g".into(),
        session_timeout_ms,
        rebalance_timeout_ms: 3_600_000,
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".into(),
            metadata: b"mine".to_vec(),
        }],
        ..JoinGroupRequest::default()
    }
}

#[test]
fn session_time_outs_stay_within_the_brokers_bounds() {
    let (_data, _broker, mut client) = start(&[
        "group.min.session.timeout.ms=100",
        "group.max.session.timeout.ms=200",
        "group.initial.rebalance.delay.ms=0",
    ]);
    let mut code = |ms| {
        // Version 3 knows no id that is given before the join.
        let answer: JoinGroupResponse = client.call(3, &join(ms));
        answer.error_code
    };
    let refused = ErrorCode::InvalidSessionTimeout.code();
    assert_eq!(code(99), refused);
    assert_eq!(code(201), refused);
    assert_eq!(code(200), 0);
}

#[test]
fn group_initial_rebalance_delay_ms_is_in_force() {
    for (delay, waits) in [("0", false), ("3600000", true)] {
        let delay = format!("group.initial.rebalance.delay.ms={delay}");
        let (_data, _broker, mut client) = start(&[&delay]);
        client.send(3, &join(30_000));
        match waits {
            true => assert!(client.is_silent(), "{delay}"),
            false => assert_eq!(client.receive::<JoinGroupResponse>(3).error_code, 0),
        }
    }
}

fn commit(client: &mut Client, offset: i64) {
    let request = offset_commits::commit("g", "t", offset, "");
    assert_eq!(offset_commits::committed(client, 9, &request), 0);
}

#[test]
fn the_topic_of_offsets_is_made_as_the_broker_says() {
    let (data, _broker, mut client) = start(&[
        "offsets.topic.num.partitions=3",
        "offsets.topic.segment.bytes=200",
    ]);
    client.create("t", &[]);
    (0..10).for_each(|offset| commit(&mut client, offset));
    let names = |dir: &str| {
        let entries = fs::read_dir(data.path().join(dir)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect::<Vec<_>>()
    };
    let partitions = names(".")
        .into_iter()
        .filter(|name| name.starts_with("__consumer_offsets-"));
    let partitions: Vec<String> = partitions.collect();
    assert_eq!(partitions.len(), 3);
    let segments = partitions.iter().flat_map(|dir| names(dir));
    assert!(segments.filter(|name| name.ends_with(".log")).count() > 5);
}
