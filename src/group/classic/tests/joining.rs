//! Joining a classic group: ids, checks, the choice of a protocol, and joins that change nothing.

use super::super::join::PENDING_MAX;
use super::*;

#[test]
fn a_first_join_is_given_an_id_to_join_again_with() {
    let mut bench = Bench::new();
    let asked = bench.join(join("", "a"));
    let told = bench.joined(asked);
    assert_eq!(told.error_code, ErrorCode::MemberIdRequired.code());
    assert_eq!(
        told.member_id,
        "client-00000000-0000-0000-0000-000000000001"
    );
    assert_eq!((told.generation_id, told.leader.as_str()), (-1, ""));
    assert_eq!((told.protocol_name, told.protocol_type), (None, None));
    assert!(!bench.group.is_vacant() && bench.group.members().count() == 0);

    // Whoever does not come back is forgotten after the session time-out that it named.
    bench.pass(i64::from(SESSION_MS) - 1);
    assert!(!bench.group.is_vacant());
    bench.pass(1);
    assert!(bench.group.is_vacant() && bench.group.due_ms().is_none());
    let late = bench.join(join(&told.member_id, "a"));
    assert_eq!(
        bench.joined(late).error_code,
        ErrorCode::UnknownMemberId.code()
    );
    assert!(bench.records.is_empty());

    // Before KIP-394, in versions 0 to 3, a first join is the only one.
    let asked = bench.ask(3, Ask::Join(join("", "a")));
    bench.pass(DELAY_MS);
    assert_eq!(bench.joined(asked).generation_id, 1);
}

#[test]
fn a_join_is_checked_before_the_group_is() {
    let mut bench = Bench::new();
    let mut code = |request: JoinGroupRequest| {
        let asked = bench.join(request);
        bench.joined(asked).error_code
    };
    for session_timeout_ms in [5_999, 1_800_001] {
        let request = JoinGroupRequest {
            session_timeout_ms,
            ..join("", "a")
        };
        assert_eq!(code(request), ErrorCode::InvalidSessionTimeout.code());
    }
    let no_type = JoinGroupRequest {
        protocol_type: String::new(),
        ..join("", "a")
    };
    let no_protocol = JoinGroupRequest {
        protocols: Vec::new(),
        ..join("", "a")
    };
    for request in [no_type, no_protocol] {
        assert_eq!(code(request), ErrorCode::InconsistentGroupProtocol.code());
    }
    assert_eq!(code(join("nobody", "a")), ErrorCode::UnknownMemberId.code());
    assert_eq!(
        code(named_join("name", "nobody", "a")),
        ErrorCode::UnknownMemberId.code()
    );
    assert!(bench.group.is_vacant());

    let mut nameless = Bench::of("", Config::default());
    let invalid = ErrorCode::InvalidGroupId.code();
    let asked = nameless.join(join("me", "a"));
    let told = nameless.joined(asked);
    assert_eq!((told.error_code, told.member_id.as_str()), (invalid, "me"));
    let asked = nameless.sync(sync("me", 1, &[]));
    assert_eq!(nameless.synced(asked).error_code, invalid);
    assert_eq!(nameless.heartbeat("me", 1), invalid);
    assert_eq!(
        nameless.leave(5, LeaveGroupRequest::default()).error_code,
        invalid
    );
}

#[test]
fn an_unknown_group_knows_no_member() {
    let mut bench = Bench::new();
    let unknown = ErrorCode::UnknownMemberId.code();
    assert_eq!(bench.heartbeat("me", -1), unknown);
    let asked = bench.sync(sync("me", 0, &[]));
    assert_eq!(bench.synced(asked).error_code, unknown);
    assert_eq!(bench.check_commit("me", None, 0), unknown);
    assert_eq!(bench.check_commit("", None, -1), 0);
    assert!(bench.group.is_vacant() && bench.group.check_delete().is_ok());
}

#[test]
fn a_new_member_that_waits_is_let_go_after_five_minutes() {
    let mut bench = Bench::new();
    let (leader, _) = bench.come("a");
    bench.pass(DELAY_MS);
    bench.sync(sync(&leader, 1, &[]));
    let slow = JoinGroupRequest {
        rebalance_timeout_ms: 3_600_000,
        ..join(&leader, "a2")
    };
    let alone = bench.join(slow);
    assert_eq!(bench.joined(alone).generation_id, 2);
    bench.sync(sync(&leader, 2, &[]));
    let (_, waits) = bench.come("b");
    for _ in 0..299 {
        bench.heartbeat(&leader, 2);
        bench.pass(1_000);
        assert!(!bench.told.contains_key(&waits));
    }
    bench.heartbeat(&leader, 2);
    bench.pass(1_000);
    let told = bench.joined(waits);
    assert_eq!(
        (told.error_code, told.member_id.as_str()),
        (ErrorCode::UnknownMemberId.code(), "")
    );
}

#[test]
fn a_repeated_join_is_answered_again_and_starts_no_rebalance() {
    let mut bench = Bench::new();
    let (leader, _) = bench.come("a");
    let (other, _) = bench.come("b");
    bench.pass(2 * DELAY_MS);
    for (id, metadata, members) in [(&leader, "a", 2), (&other, "b", 0)] {
        let again = bench.join(join(id, metadata));
        let told = bench.joined(again);
        assert_eq!((told.generation_id, told.members.len()), (1, members));
    }
    bench.sync(sync(&leader, 1, &[(&other, "two")]));
    let again = bench.join(join(&other, "b"));
    assert_eq!(
        (bench.joined(again).generation_id, bench.state()),
        (1, "Stable")
    );
    let part = bench.sync(sync(&other, 1, &[]));
    assert_eq!(bench.synced(part).assignment, b"two");

    // But new metadata does, and so does the leader, which may have seen new partitions.
    bench.join(join(&other, "b2"));
    assert_eq!(bench.state(), "PreparingRebalance");
    bench.join(join(&leader, "a"));
    bench.sync(sync(&leader, 2, &[]));
    bench.join(join(&leader, "a"));
    assert_eq!(bench.state(), "PreparingRebalance");

    // A join in place of one that waits: the older one is answered too.
    let waits = bench.join(join(&leader, "a"));
    bench.join(join(&leader, "a"));
    assert_eq!(
        bench.joined(waits).error_code,
        ErrorCode::RebalanceInProgress.code()
    );
}

#[test]
fn the_protocol_is_the_one_that_most_members_put_first_among_those_that_all_know() {
    let mut bench = Bench::new();
    let with = |names: &[&str]| JoinGroupRequest {
        protocols: protocols(names, "m"),
        ..join("", "")
    };
    let asked = bench.ask(3, Ask::Join(with(&["range", "sticky", "own"])));
    bench.ask(3, Ask::Join(with(&["own", "sticky", "range"])));
    bench.ask(3, Ask::Join(with(&["sticky", "range"])));
    bench.ask(3, Ask::Join(with(&["sticky", "range"])));
    let stranger = bench.ask(3, Ask::Join(with(&["own"])));
    let worker = JoinGroupRequest {
        protocol_type: "connect".to_owned(),
        ..with(&["range"])
    };
    let worker = bench.ask(3, Ask::Join(worker));
    for refused in [stranger, worker] {
        let code = bench.joined(refused).error_code;
        assert_eq!(code, ErrorCode::InconsistentGroupProtocol.code());
    }
    bench.pass(2 * DELAY_MS);
    assert_eq!(bench.joined(asked).protocol_name.as_deref(), Some("sticky"));
}

#[test]
fn a_full_group_lets_nobody_in_and_keeps_the_first_to_join_again() {
    let mut config = Config::default();
    config.group_max_size = 2;
    let mut bench = Bench::of("group", config);
    let (first, _) = bench.come("a");
    let (second, _) = bench.come("b");
    let full = ErrorCode::GroupMaxSizeReached.code();
    // Ids may be given out, but only those who join are counted.
    let third = bench.join(join("", "c"));
    assert_eq!(bench.joined(third).error_code, full);
    bench.pass(2 * DELAY_MS);
    bench.sync(sync(&first, 1, &[]));
    let third = bench.join(join("", "c"));
    assert_eq!(
        (bench.joined(third).error_code, bench.state()),
        (full, "Stable")
    );
    assert_eq!(bench.joined(third).member_id, "");
    let again = bench.join(join(&second, "b"));
    assert_eq!(bench.joined(again).error_code, 0);

    // After a restart with a lower limit, all have to join again, and the last ones do not get in.
    bench.config.group_max_size = 1;
    bench.restart();
    assert_eq!(bench.state(), "PreparingRebalance");
    bench.join(join(&second, "b"));
    let late = bench.join(join(&first, "a"));
    assert_eq!(bench.joined(late).error_code, full);
    assert_eq!(
        bench.heartbeat(&first, 1),
        ErrorCode::UnknownMemberId.code()
    );
}

#[test]
fn a_join_of_version_0_has_one_timeout() {
    let mut bench = Bench::new();
    bench.ask(
        0,
        Ask::Join(JoinGroupRequest {
            rebalance_timeout_ms: -1,
            ..join("", "a")
        }),
    );
    let (_, member) = bench.group.members().next().unwrap();
    assert_eq!(member.rebalance_timeout_ms, SESSION_MS);
}

/// P7: an id that nobody came back with goes when too many others were given out since.
#[test]
fn ids_that_were_given_out_are_so_many_at_most() {
    let mut bench = Bench::new();
    let mut ids = Vec::new();
    for _ in 0..=PENDING_MAX {
        let asked = bench.join(join("", "a"));
        ids.push(bench.joined(asked).member_id);
    }
    let asked = bench.join(join(&ids[0], "a"));
    let code = bench.joined(asked).error_code;
    assert_eq!(code, ErrorCode::UnknownMemberId.code());
    bench.join(join(&ids[1], "a"));
    assert_eq!(bench.state(), "PreparingRebalance");
}
