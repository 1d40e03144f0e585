//! Static members (KIP-345): who comes back under its name takes up what it had.

use super::*;

/// As [`Bench::of_two`], with static members `x`, who leads, and `y`.
fn of_two_named() -> (Bench, String, String) {
    let mut bench = Bench::new();
    let first = bench.join(named_join("x", "", "a"));
    let second = bench.join(named_join("y", "", "b"));
    bench.pass(2 * DELAY_MS);
    let (x, y) = (
        bench.joined(first).member_id,
        bench.joined(second).member_id,
    );
    assert_eq!(bench.joined(first).leader, x);
    bench.sync(sync(&x, 1, &[(&x, "one"), (&y, "two")]));
    bench.sync(sync(&y, 1, &[]));
    assert_eq!(bench.records.len(), 1);
    (bench, x, y)
}

#[test]
fn a_static_member_is_added_at_once_under_an_id_made_of_its_name() {
    let mut bench = Bench::new();
    let asked = bench.join(named_join("x", "", "a"));
    bench.pass(DELAY_MS);
    let told = bench.joined(asked);
    assert_eq!(told.member_id, "x-00000000-0000-0000-0000-000000000001");
    assert_eq!(told.members[0].group_instance_id.as_deref(), Some("x"));
}

#[test]
fn a_static_member_that_comes_back_takes_up_its_part_without_a_rebalance() {
    let (mut bench, x, y) = of_two_named();
    let back = bench.join(named_join("y", "", "b2"));
    let told = bench.joined(back);
    assert_ne!(told.member_id, y);
    assert_eq!((told.generation_id, bench.state()), (1, "Stable"));
    assert_eq!(
        (told.leader.as_str(), told.skip_assignment),
        (x.as_str(), false)
    );
    assert!(told.members.is_empty());
    // Its new id is recorded before it is told.
    let value = bench.recorded();
    assert_eq!((value.generation, bench.records.len()), (1, 2));
    let member = value.members.iter().find(|m| m.member_id == told.member_id);
    let member = member.unwrap();
    assert_eq!(
        (&*member.assignment, &*member.subscription),
        (&b"two"[..], &b"b2"[..])
    );
    let part = bench.sync(sync(&told.member_id, 1, &[]));
    assert_eq!(bench.synced(part).assignment, b"two");
    // The old id is fenced wherever it comes with the name, and unknown without it.
    let named = |request| SyncGroupRequest {
        group_instance_id: Some("y".to_owned()),
        ..request
    };
    let fenced = bench.sync(named(sync(&y, 1, &[])));
    assert_eq!(bench.synced(fenced).error_code, 82);
    assert_eq!(bench.check_commit(&y, Some("y"), 1), 82);
    assert_eq!(bench.heartbeat(&y, 1), ErrorCode::UnknownMemberId.code());
    let fenced = bench.join(named_join("y", &y, "b"));
    let refusal = bench.joined(fenced);
    assert_eq!((refusal.error_code, &refusal.member_id), (82, &y));
}

#[test]
fn a_static_leader_that_comes_back_keeps_the_assignment() {
    for version in [8, 9] {
        let (mut bench, x, _) = of_two_named();
        let back = bench.ask(version, Ask::Join(named_join("x", "", "a")));
        let told = bench.joined(back);
        let leader = bench.recorded().leader.unwrap();
        assert_eq!(leader, told.member_id);
        if version == 9 {
            // KIP-814: it leads, and sees the members, but is not to assign.
            assert_eq!((&told.leader, told.skip_assignment), (&leader, true));
            assert_eq!(told.members.len(), 2);
        } else {
            // Told of its old id, it takes itself for a follower.
            assert_eq!((&told.leader, told.skip_assignment), (&x, false));
            assert!(told.members.is_empty());
        }
        let part = bench.sync(sync(&told.member_id, 1, &[(&told.member_id, "stolen")]));
        assert_eq!(bench.synced(part).assignment, b"one");
    }
}

#[test]
fn a_static_member_that_changes_the_choice_of_protocol_starts_a_rebalance() {
    let mut bench = Bench::new();
    let knows = |name: &str, names: &[&str]| JoinGroupRequest {
        protocols: protocols(names, "m"),
        ..named_join(name, "", "")
    };
    let first = bench.join(knows("x", &["range", "sticky"]));
    bench.join(knows("y", &["range", "sticky"]));
    bench.pass(2 * DELAY_MS);
    let x = bench.joined(first).member_id;
    bench.sync(sync(&x, 1, &[]));
    let back = bench.join(knows("y", &["sticky"]));
    assert_eq!(bench.state(), "PreparingRebalance");
    let again = JoinGroupRequest {
        member_id: x,
        ..knows("x", &["range", "sticky"])
    };
    bench.join(again);
    let told = bench.joined(back);
    assert_eq!(
        (told.generation_id, told.protocol_name.as_deref()),
        (2, Some("sticky"))
    );
}

#[test]
fn a_static_member_that_comes_back_while_the_leader_assigns_starts_a_rebalance() {
    let mut bench = Bench::new();
    let first = bench.join(named_join("x", "", "a"));
    bench.join(named_join("y", "", "b"));
    bench.pass(2 * DELAY_MS);
    let x = bench.joined(first).member_id;
    let back = bench.join(named_join("y", "", "b"));
    assert_eq!(bench.state(), "PreparingRebalance");
    bench.join(named_join("x", &x, "a"));
    assert_eq!(bench.joined(back).generation_id, 2);
}

#[test]
fn of_two_with_one_static_name_the_older_is_fenced_where_it_waits() {
    let mut bench = Bench::new();
    let first = bench.join(named_join("x", "", "a"));
    let second = bench.join(named_join("x", "", "a"));
    let fenced = bench.joined(first);
    assert_eq!((fenced.error_code, fenced.leader.as_str()), (82, ""));
    assert_eq!(fenced.member_id, "x-00000000-0000-0000-0000-000000000001");
    bench.pass(2 * DELAY_MS);
    let told = bench.joined(second);
    assert_eq!((&told.leader, told.members.len()), (&told.member_id, 1));

    // The same for one that waits for its part.
    let follower = bench.join(named_join("y", "", "b"));
    bench.join(named_join("x", &told.member_id, "a"));
    let y = bench.joined(follower).member_id;
    let waits = bench.sync(sync(&y, 2, &[]));
    bench.join(named_join("y", "", "b"));
    assert_eq!(bench.synced(waits).error_code, 82);
}

#[test]
fn static_members_stay_over_a_rebalance_that_they_miss() {
    let (mut bench, _, y) = of_two_named();
    let (id, asked) = bench.come("c");
    bench.join(named_join("y", &y, "b"));
    // The leader is silent but for its session, and another one leads.
    let x = bench.group.static_member("x").unwrap().to_string();
    for _ in 0..REBALANCE_MS / (SESSION_MS / 2) {
        bench.heartbeat(&x, 1);
        bench.pass(i64::from(SESSION_MS / 2));
    }
    let told = bench.joined(asked);
    assert_eq!((told.generation_id, told.leader), (2, id));
    assert_eq!(told.members.len(), 3);
}

#[test]
fn a_rebalance_that_nobody_joins_goes_on_until_static_members_are_silent() {
    let (mut bench, x, y) = of_two_named();
    bench.join(named_join("x", &x, "a"));
    let leaving = LeaveGroupRequest {
        member_id: x.clone(),
        ..LeaveGroupRequest::default()
    };
    // The one that joined leaves: of the other one nothing is heard but heartbeats.
    assert_eq!(bench.leave(2, leaving).error_code, 0);
    for _ in 0..3 * REBALANCE_MS / (SESSION_MS / 2) {
        bench.heartbeat(&y, 1);
        bench.pass(i64::from(SESSION_MS / 2));
        assert_eq!(
            (bench.state(), bench.group.generation()),
            ("PreparingRebalance", 1)
        );
    }
    bench.pass(i64::from(SESSION_MS));
    assert_eq!((bench.state(), bench.group.generation()), ("Empty", 2));
}

#[test]
fn a_static_name_with_an_id_that_was_given_to_a_dynamic_member_is_an_error() {
    let mut bench = Bench::new();
    let first = bench.join(join("", "a"));
    let id = bench.joined(first).member_id;
    let asked = bench.join(named_join("x", &id, "a"));
    let told = bench.joined(asked);
    assert_eq!(told.error_code, ErrorCode::UnknownServerError.code());
}
