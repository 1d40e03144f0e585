//! The ways between the classic and the new protocol.

use super::*;
use crate::api::heartbeat::HeartbeatRequest;
use crate::api::join_group::{JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse};
use crate::api::leave_group::LeaveGroupRequest;
use crate::api::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse};
use crate::group::classic::ClassicGroup;
use crate::group::protocol::{
    self, ConsumerProtocolAssignment, ConsumerProtocolSubscription, PROTOCOL_TYPE,
};
use crate::group::records::MemberMetadata;

fn partitions(numbers: &[i32]) -> Vec<protocol::TopicPartitions> {
    vec![protocol::TopicPartitions {
        topic: "a".to_owned(),
        partitions: numbers.to_vec(),
    }]
}

fn join(id: &str, owned: &[i32]) -> JoinGroupRequest {
    let said = ConsumerProtocolSubscription {
        topics: vec!["a".to_owned()],
        owned_partitions: partitions(owned),
        ..ConsumerProtocolSubscription::default()
    };
    JoinGroupRequest {
        group_id: "g".to_owned(),
        session_timeout_ms: 6_000,
        rebalance_timeout_ms: 9_000,
        member_id: id.to_owned(),
        protocol_type: PROTOCOL_TYPE.to_owned(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".to_owned(),
            metadata: protocol::write(&said, 1),
        }],
        ..JoinGroupRequest::default()
    }
}

fn sync(id: &str, generation_id: i32) -> SyncGroupRequest {
    let all = ConsumerProtocolAssignment {
        assigned_partitions: partitions(&[0, 1, 2, 3]),
        user_data: None,
    };
    SyncGroupRequest {
        group_id: "g".to_owned(),
        generation_id,
        member_id: id.to_owned(),
        protocol_type: Some(PROTOCOL_TYPE.to_owned()),
        protocol_name: Some("range".to_owned()),
        assignments: vec![SyncGroupRequestAssignment {
            member_id: id.to_owned(),
            assignment: protocol::write(&all, 1),
        }],
        ..SyncGroupRequest::default()
    }
}

/// A classic group at generation 1 with one member `old`, who reads all of `a`.
fn classic(bench: &Bench) -> ClassicGroup<()> {
    let (joined, mut synced) = (join("old", &[]), sync("old", 1));
    let member = MemberMetadata {
        member_id: "old".to_owned(),
        session_timeout: joined.session_timeout_ms,
        rebalance_timeout: joined.rebalance_timeout_ms,
        assignment: synced.assignments.remove(0).assignment,
        ..MemberMetadata::default()
    };
    let members = [(member, joined.protocols)];
    with_env(bench, |env| {
        ClassicGroup::adopt("g", 1, members.into_iter(), env)
    })
}

fn take_over(
    bench: &mut Bench,
    classic: &ClassicGroup<()>,
    request: ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    take_over_with(bench, classic, request, Found::default())
}

fn take_over_with(
    bench: &mut Bench,
    classic: &ClassicGroup<()>,
    request: ConsumerGroupHeartbeatRequest,
    found: Found,
) -> ConsumerGroupHeartbeatResponse {
    let effects = &mut Effects::default();
    let taken = with_env(bench, |env| {
        ConsumerGroup::take_over(classic, request, found, asker(1), env, effects)
    });
    if let Some(group) = taken {
        bench.group = group;
    }
    bench.log.append(&mut effects.records);
    match effects.told.pop() {
        Some((_, Told::ConsumerHeartbeat(answer))) => answer,
        Some((_, Told::LookUp(look_up))) => {
            let (request, found) = look_up.run();
            take_over_with(bench, classic, request, found)
        }
        other => panic!("{other:?}"),
    }
}

fn joined(bench: &mut Bench, owned: &[i32]) -> JoinGroupResponse {
    match bench.ask(Ask::Join(join("old", owned)), 5) {
        Told::Join(joined) => joined,
        other => panic!("{other:?}"),
    }
}

fn synced(bench: &mut Bench, generation: i32) -> (i16, Vec<protocol::TopicPartitions>) {
    match bench.ask(Ask::Sync(sync("old", generation)), 5) {
        Told::Sync(SyncGroupResponse {
            error_code,
            assignment,
            ..
        }) => {
            let read = protocol::read(&assignment);
            let read = read.map(|read: ConsumerProtocolAssignment| read.assigned_partitions);
            (error_code, read.unwrap_or_default())
        }
        other => panic!("{other:?}"),
    }
}

fn heard(bench: &mut Bench, generation_id: i32) -> i16 {
    let request = HeartbeatRequest {
        group_id: "g".to_owned(),
        generation_id,
        member_id: "old".to_owned(),
        group_instance_id: None,
    };
    match bench.ask(Ask::Heartbeat(request), 4) {
        Told::Heartbeat(heard) => heard.error_code,
        other => panic!("{other:?}"),
    }
}

const REBALANCE: i16 = ErrorCode::RebalanceInProgress as i16;

#[test]
fn a_classic_group_is_taken_over_and_its_member_moves_by_joins() {
    let mut bench = Bench::new();
    let old = classic(&bench);
    let answer = take_over(&mut bench, &old, joining("new"));
    assert_eq!((answer.member_epoch, given(&answer)), (2, Some(&[][..])));
    assert!(matches!(bench.log[0], Record::Group(_, None)));
    assert_eq!(bench.replayed().members.len(), 2);
    assert_eq!(bench.describe().members[1].member_type, 0);
    assert_eq!(
        bench.group.check_commit("old", 1, 2),
        Ok(()),
        "any version will do"
    );
    assert_eq!(
        bench.group.check_commit("old", 7, 9),
        Err(ErrorCode::IllegalGeneration)
    );
    // The old member is told to join, gives up two partitions, and joins again.
    assert_eq!(heard(&mut bench, 1), REBALANCE);
    let first = joined(&mut bench, &[0, 1, 2, 3]);
    assert_eq!(
        (first.generation_id, first.protocol_name.as_deref()),
        (1, Some("range"))
    );
    assert_eq!(synced(&mut bench, 1), (0, partitions(&[0, 1])));
    assert_eq!(heard(&mut bench, 1), REBALANCE);
    assert_eq!(joined(&mut bench, &[0, 1]).generation_id, 2);
    assert_eq!(synced(&mut bench, 2), (0, partitions(&[0, 1])));
    assert_eq!(heard(&mut bench, 2), 0);
    assert_eq!(heard(&mut bench, 1), ErrorCode::IllegalGeneration.code());
    assert_eq!(given(&bench.beat("new", 2)), Some(&*of_a(&[2, 3])));
}

#[test]
fn a_group_goes_back_when_the_last_new_member_leaves() {
    let mut bench = Bench::new();
    let old = classic(&bench);
    take_over(&mut bench, &old, joining("new"));
    bench.send(alive("new", -1));
    let effects = &mut Effects::<()>::default();
    let group = with_env(&bench, |env| bench.group.to_classic(env, effects)).unwrap();
    assert_eq!(
        group.generation(),
        2,
        "a heartbeat of the old generation is told so"
    );
    assert_eq!(group.state_name(), "PreparingRebalance");
    assert_eq!(
        (group.protocol(), group.members().count()),
        (Some("range"), 1)
    );
    let [
        ..,
        Record::ConsumerGroup(_, None),
        Record::Group(_, Some(value)),
    ] = &effects.records[..]
    else {
        panic!("{effects:?}");
    };
    let assigned: ConsumerProtocolAssignment =
        protocol::read(&value.members[0].assignment).unwrap();
    assert_eq!(
        assigned.assigned_partitions,
        partitions(&[0, 1]),
        "the target"
    );
    bench.log.append(&mut effects.records);
    assert!(bench.replayed().is_vacant());
}

#[test]
fn a_static_member_goes_back_alone_and_keeps_what_it_had() {
    let mut bench = Bench::new();
    bench.send(ConsumerGroupHeartbeatRequest {
        instance_id: Some("i".to_owned()),
        ..joining("new")
    });
    let request = JoinGroupRequest {
        group_instance_id: Some("i".to_owned()),
        ..join("", &[])
    };
    let told = bench.ask(Ask::Join(request), 5);
    let Told::Join(joined) = told else {
        panic!("{told:?}");
    };
    assert_eq!((joined.error_code, joined.generation_id), (0, 1));
    let effects = &mut Effects::<()>::default();
    let group = with_env(&bench, |env| bench.group.to_classic(env, effects)).unwrap();
    assert_eq!((group.generation(), group.state_name()), (1, "Stable"));
    let (id, member) = group.members().next().unwrap();
    assert_eq!(id, joined.member_id);
    let assigned: ConsumerProtocolAssignment = protocol::read(&member.assignment).unwrap();
    assert_eq!(assigned.assigned_partitions, partitions(&[0, 1, 2, 3]));
}

#[test]
fn what_cannot_be_taken_over_stays_as_it_is() {
    let mut bench = Bench::new();
    let old = classic(&bench);
    let mut refused = |policy: &str, request| {
        bench.config.group_consumer_migration_policy = policy.to_owned();
        let answer = take_over(&mut bench, &old, request);
        assert!(bench.group.is_vacant() && bench.log.is_empty());
        (answer.error_code, answer.error_message.unwrap())
    };
    let not_found = |what: &str| (ErrorCode::GroupIdNotFound.code(), what.to_owned());
    let disabled =
        "Cannot upgrade classic group g to consumer group because online upgrade is disabled.";
    assert_eq!(refused("downgrade", joining("new")), not_found(disabled));
    assert_eq!(refused("disabled", joining("new")), not_found(disabled));
    let not_consumer = "Group g is not a consumer group.";
    assert_eq!(refused("upgrade", alive("old", 1)), not_found(not_consumer));
    let bad = ConsumerGroupHeartbeatRequest {
        subscribed_topic_regex: Some("(".to_owned()),
        ..joining("new")
    };
    assert_eq!(refused("upgrade", bad).0, 128);
}

#[test]
fn classic_members_have_a_time_to_join_and_one_to_sync() {
    let mut bench = Bench::new();
    let old = classic(&bench);
    take_over(&mut bench, &old, joining("new"));
    bench.group.members.get_mut("new").unwrap().session_ms = i64::MAX;
    assert_eq!(heard(&mut bench, 1), REBALANCE);
    bench.now_ms += 5_000;
    assert_eq!(heard(&mut bench, 1), REBALANCE);
    assert_eq!(
        bench.group.due_ms(),
        Some(1_000 + 9_000),
        "told again, it gets no more time"
    );
    joined(&mut bench, &[]);
    bench.now_ms += 5_000;
    bench.step(Event::Due);
    assert_eq!(heard(&mut bench, 2), 0, "it is still there");
    assert_eq!(
        bench.group.due_ms(),
        Some(6_000 + 9_000),
        "it has not synced"
    );
    bench.fire();
    assert_eq!(heard(&mut bench, 2), ErrorCode::UnknownMemberId.code());
}

#[test]
fn leave_group_takes_members_of_both_protocols_out() {
    let mut bench = Bench::new();
    bench.join("m");
    let request = LeaveGroupRequest {
        group_id: "g".to_owned(),
        member_id: "m".to_owned(),
        members: Vec::new(),
    };
    for code in [0, ErrorCode::UnknownMemberId.code()] {
        match bench.ask(Ask::Leave(request.clone()), 2) {
            Told::Leave(left) => assert_eq!(left.error_code, code),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        (bench.group.state_name(), bench.describe().group_epoch),
        ("Empty", 2)
    );
}

#[test]
fn a_classic_member_must_be_a_consumer_and_bring_an_id() {
    let mut bench = Bench::new();
    bench.join("m");
    let mut refused = |change: fn(&mut JoinGroupRequest)| {
        let mut request = join("", &[]);
        change(&mut request);
        match bench.ask(Ask::Join(request), 5) {
            Told::Join(joined) => (joined.error_code, joined.member_id.is_empty()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(|_| ()), (ErrorCode::MemberIdRequired.code(), false));
    let inconsistent = (ErrorCode::InconsistentGroupProtocol.code(), true);
    assert_eq!(
        refused(|r| r.protocol_type = "connect".into()),
        inconsistent
    );
    assert_eq!(refused(|r| r.protocols.clear()), inconsistent);
    let unreadable = (ErrorCode::UnknownServerError.code(), true);
    assert_eq!(
        refused(|r| {
            r.member_id = "x".into();
            r.protocols[0].metadata.clear();
        }),
        unreadable
    );
    assert_eq!(bench.group.members.len(), 1);
}
