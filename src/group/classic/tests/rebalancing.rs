//! Rebalances of a classic group: how long they wait, for whom, and what they end in.

use super::*;

#[test]
fn the_first_rebalance_waits_for_more_members_up_to_a_rebalance_timeout() {
    let mut bench = Bench::new();
    let first = bench.ask(
        3,
        Ask::Join(JoinGroupRequest {
            rebalance_timeout_ms: 7_000,
            ..join("", "a")
        }),
    );
    bench.pass(DELAY_MS - 1);
    assert_eq!(bench.state(), "PreparingRebalance");
    let second = bench.ask(
        3,
        Ask::Join(JoinGroupRequest {
            rebalance_timeout_ms: 7_000,
            ..join("", "b")
        }),
    );
    bench.pass(DELAY_MS);
    bench.ask(
        3,
        Ask::Join(JoinGroupRequest {
            rebalance_timeout_ms: 7_000,
            ..join("", "c")
        }),
    );
    // 3 s, 3 s, and what is left of 7 s.
    bench.pass(1_000);
    assert!(!bench.told.contains_key(&first));
    bench.pass(1);
    let (leader, other) = (bench.joined(first), bench.joined(second));
    assert_eq!((leader.generation_id, other.generation_id), (1, 1));
    assert_eq!(leader.leader, leader.member_id);
    assert_eq!(other.leader, leader.member_id);
    assert_eq!((leader.members.len(), other.members.len()), (3, 0));
    assert_eq!(leader.members[1].metadata, b"b");
    assert_eq!(leader.protocol_name.as_deref(), Some("range"));
    assert_eq!(leader.protocol_type.as_deref(), Some("consumer"));
    assert_eq!(bench.state(), "CompletingRebalance");
    assert!(
        bench.records.is_empty(),
        "nothing is worth a record before there are assignments"
    );
}

#[test]
fn heartbeats_around_the_initial_rebalance_delay_must_not_lose_partitions() {
    // A peer took members for silent that waited for their first generation (crabka PR#286).
    let mut bench = Bench::new();
    let (leader, first) = bench.come("a");
    bench.pass(DELAY_MS - 1);
    let (other, second) = bench.come("b");
    assert_eq!(
        bench.heartbeat(&leader, 0),
        ErrorCode::RebalanceInProgress.code()
    );
    bench.pass(DELAY_MS + 1);
    assert_eq!(bench.joined(first).members.len(), 2);
    // Told of a generation, they send heartbeats before they have their parts.
    assert_eq!(bench.heartbeat(&leader, 1), 0);
    assert_eq!(bench.heartbeat(&other, 1), 0);
    let follows = bench.sync(sync(&other, 1, &[]));
    // Whoever waits for its part is not silent, however long the leader takes.
    bench.pass(i64::from(SESSION_MS) - 1);
    assert_eq!(bench.heartbeat(&leader, 1), 0);
    bench.pass(i64::from(SESSION_MS) - 1);
    let leads = bench.sync(sync(&leader, 1, &[(&leader, "one"), (&other, "two")]));
    assert_eq!(bench.synced(leads).assignment, b"one");
    assert_eq!(bench.synced(follows).assignment, b"two");
    bench.pass(i64::from(SESSION_MS) - 1);
    assert_eq!(bench.heartbeat(&leader, 1), 0);
    assert_eq!(bench.heartbeat(&other, 1), 0);
    assert_eq!(
        (bench.state(), bench.joined(second).error_code),
        ("Stable", 0)
    );
}

#[test]
fn the_group_is_recorded_before_anyone_has_a_part() {
    let (bench, leader, other) = Bench::of_two();
    let value = bench.recorded();
    assert_eq!(bench.records.len(), 1);
    assert_eq!(value.generation, 1);
    assert_eq!(value.leader.as_deref(), Some(leader.as_str()));
    assert_eq!(value.protocol.as_deref(), Some("range"));
    assert_eq!(value.protocol_type, "consumer");
    let parts = value
        .members
        .iter()
        .map(|m| (m.member_id.as_str(), &*m.assignment));
    assert_eq!(
        parts.collect::<Vec<_>>(),
        [(leader.as_str(), &b"one"[..]), (other.as_str(), b"two")]
    );
    assert_eq!(value.members[0].subscription, b"a");
    assert_eq!(value.members[0].rebalance_timeout, REBALANCE_MS);
    assert_eq!(value.members[0].session_timeout, SESSION_MS);
}

#[test]
fn a_new_member_makes_the_others_join_again() {
    let (mut bench, leader, other) = Bench::of_two();
    let (third, asked) = bench.come("c");
    assert_eq!(
        bench.heartbeat(&leader, 1),
        ErrorCode::RebalanceInProgress.code()
    );
    let late = bench.sync(sync(&other, 1, &[]));
    assert_eq!(
        bench.synced(late).error_code,
        ErrorCode::RebalanceInProgress.code()
    );
    bench.join(join(&other, "b"));
    assert!(!bench.told.contains_key(&asked), "one is missing");
    let leads = bench.join(join(&leader, "a"));
    assert_eq!(bench.joined(asked).generation_id, 2);
    assert_eq!(bench.joined(leads).members.len(), 3);
    let stale = bench.sync(sync(&third, 1, &[]));
    assert_eq!(
        bench.synced(stale).error_code,
        ErrorCode::IllegalGeneration.code()
    );
    // Who is not named by the leader gets nothing.
    let third = bench.sync(sync(&third, 2, &[]));
    bench.sync(sync(&leader, 2, &[(&leader, "all"), ("nobody", "x")]));
    assert_eq!(bench.synced(third).assignment, b"");
}

#[test]
fn who_does_not_join_in_time_is_out_and_another_leads() {
    let (mut bench, leader, other) = Bench::of_two();
    let (third, asked) = bench.come("c");
    bench.join(join(&other, "b"));
    // The leader is alive, but does not join.
    for _ in 0..REBALANCE_MS / (SESSION_MS / 2) {
        assert!(!bench.told.contains_key(&asked));
        bench.pass(i64::from(SESSION_MS / 2));
        bench.heartbeat(&leader, 1);
    }
    let told = bench.joined(asked);
    assert_eq!(told.generation_id, 2);
    assert!([&other, &third].contains(&&told.leader));
    assert_eq!(
        bench.heartbeat(&leader, 1),
        ErrorCode::UnknownMemberId.code()
    );
    // Whoever waited all the time begins a new session.
    assert_eq!(bench.heartbeat(&other, 2), 0);
}

#[test]
fn who_does_not_sync_in_time_is_out() {
    let mut bench = Bench::new();
    let (leader, _) = bench.come("a");
    let (other, _) = bench.come("b");
    bench.pass(2 * DELAY_MS);
    let waits = bench.sync(sync(&other, 1, &[]));
    for _ in 0..REBALANCE_MS / (SESSION_MS / 2) {
        assert!(!bench.told.contains_key(&waits));
        bench.heartbeat(&leader, 1);
        bench.pass(i64::from(SESSION_MS / 2));
    }
    assert_eq!(
        bench.synced(waits).error_code,
        ErrorCode::RebalanceInProgress.code()
    );
    assert_eq!(bench.state(), "PreparingRebalance");
    let alone = bench.join(join(&other, "b"));
    assert_eq!(bench.joined(alone).leader, other);
    assert_eq!(bench.joined(alone).generation_id, 2);

    // The same once the group is stable: the leader has assigned, the other never asked.
    let (late, _) = bench.come("c");
    bench.join(join(&other, "b"));
    bench.sync(sync(&other, 3, &[]));
    assert_eq!(bench.state(), "Stable");
    for _ in 0..REBALANCE_MS / (SESSION_MS / 2) {
        bench.heartbeat(&other, 3);
        bench.heartbeat(&late, 3);
        bench.pass(i64::from(SESSION_MS / 2));
    }
    assert_eq!(bench.heartbeat(&late, 3), ErrorCode::UnknownMemberId.code());
    assert_eq!(bench.state(), "PreparingRebalance");
}

#[test]
fn a_silent_member_is_out_after_its_session_timeout() {
    let (mut bench, leader, other) = Bench::of_two();
    bench.pass(i64::from(SESSION_MS) - 1);
    assert_eq!(bench.heartbeat(&other, 1), 0);
    assert_eq!(bench.state(), "Stable");
    bench.pass(1);
    assert_eq!(bench.state(), "PreparingRebalance");
    assert_eq!(
        bench.heartbeat(&leader, 1),
        ErrorCode::UnknownMemberId.code()
    );
    // The last one: the group is empty, in a generation of its own, and that is recorded.
    bench.pass(i64::from(SESSION_MS) - 1);
    assert_eq!(bench.state(), "Empty");
    let value = bench.recorded();
    assert_eq!(
        (value.generation, value.protocol, value.leader),
        (2, None, None)
    );
    assert_eq!(value.protocol_type, "consumer");
    assert_eq!(value.current_state_timestamp, bench.group.empty_since_ms());
    assert_eq!(bench.group.empty_since_ms(), 1_000_000 + bench.now_ms);
    assert_eq!(bench.group.due_ms(), None);
}

#[test]
fn new_metadata_while_the_leader_assigns_makes_all_join_again() {
    let mut bench = Bench::new();
    let (leader, _) = bench.come("a");
    let (other, _) = bench.come("b");
    let (third, _) = bench.come("c");
    bench.pass(2 * DELAY_MS);
    let waits = bench.sync(sync(&third, 1, &[]));
    bench.join(join(&other, "b2"));
    assert_eq!(
        bench.synced(waits).error_code,
        ErrorCode::RebalanceInProgress.code()
    );
    let late = bench.sync(sync(&leader, 1, &[]));
    assert_eq!(
        bench.synced(late).error_code,
        ErrorCode::RebalanceInProgress.code()
    );
    assert!(bench.records.is_empty());
}

#[test]
fn a_sync_names_the_protocol_of_the_generation() {
    let (mut bench, leader, _) = Bench::of_two();
    let named = |kind: Option<&str>, name: Option<&str>| SyncGroupRequest {
        protocol_type: kind.map(str::to_owned),
        protocol_name: name.map(str::to_owned),
        ..sync(&leader, 1, &[])
    };
    let wrong = ErrorCode::InconsistentGroupProtocol.code();
    for (version, request, code) in [
        (5, named(Some("consumer"), Some("range")), 0),
        (5, named(Some("connect"), Some("range")), wrong),
        (5, named(Some("consumer"), Some("sticky")), wrong),
        (5, named(None, Some("range")), wrong),
        (5, named(Some("consumer"), None), wrong),
        (4, named(None, None), 0),
    ] {
        let asked = bench.ask(version, Ask::Sync(request.clone()));
        let told = bench.synced(asked);
        assert_eq!(told.error_code, code, "{request:?}");
        let kind = (code == 0).then(|| "consumer".to_owned());
        assert_eq!(told.protocol_type, kind);
    }
}
