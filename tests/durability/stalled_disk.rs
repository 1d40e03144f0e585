//! A disk that takes its time, as flash does when it tidies up, holds the control thread up: what came meanwhile is
//! heard as of when it came.

use crate::common::producer::{Client, batch};
use crate::common::requests;
use crate::scene::{Scene, wait_until};
use ottla::api::delete_records::*;
use ottla::api::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use ottla::api::join_group::*;
use ottla::api::sync_group::{SyncGroupRequest, SyncGroupResponse};
use std::time::Duration;

/// Makes the client the one member of a group.
fn join(member: &mut Client, session_timeout_ms: i32) -> HeartbeatRequest {
    let request = JoinGroupRequest {
        group_id: "g".into(),
        session_timeout_ms,
        rebalance_timeout_ms: 10_000,
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".into(),
            ..JoinGroupRequestProtocol::default()
        }],
        ..JoinGroupRequest::default()
    };
    let joined: JoinGroupResponse = member.call(3, &request).unwrap();
    assert_eq!(joined.error_code, 0);
    let request = SyncGroupRequest {
        group_id: "g".into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        ..SyncGroupRequest::default()
    };
    let synced: SyncGroupResponse = member.call(2, &request).unwrap();
    assert_eq!(synced.error_code, 0);
    HeartbeatRequest {
        group_id: "g".into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id,
        ..HeartbeatRequest::default()
    }
}

#[test]
fn a_heartbeat_that_waits_for_the_disk_keeps_its_member() {
    let mut scene = Scene::new();
    let settings = [
        "group.initial.rebalance.delay.ms=0",
        "group.min.session.timeout.ms=0",
    ];
    let broker = scene.start(&settings);
    let [mut admin, mut member] = [(); 2].map(|()| Client::connect(&broker.address).unwrap());
    admin.create("t", 1, &[]);
    let said = admin.produce("t", 0, &batch(None, &[b"x"]));
    assert_eq!(said.unwrap(), Ok(0));
    let session_timeout_ms = 1000;
    let heartbeat = join(&mut member, session_timeout_ms);
    // Two syncs make the log start durable, and meanwhile the session would end.
    scene
        .shim
        .set_sync_delay(Duration::from_millis(800))
        .unwrap();
    let alive: HeartbeatResponse = member.call(3, &heartbeat).unwrap();
    assert_eq!(alive.error_code, 0);
    let request = requests::delete_records("t", 0, 1);
    admin.send(2, &request).unwrap();
    wait_until(|| {
        scene
            .data()
            .join("log-start-offset-checkpoint.tmp")
            .exists()
    });
    let alive: HeartbeatResponse = member.call(3, &heartbeat).unwrap();
    assert_eq!(alive.error_code, 0);
    let deleted: DeleteRecordsResponse = admin.receive(2).unwrap();
    assert_eq!(deleted.topics[0].partitions[0].low_watermark, 1);
}
