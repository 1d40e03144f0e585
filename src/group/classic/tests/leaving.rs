//! Leaving a classic group, one by one and many at once.

use super::*;
use crate::api::leave_group::MemberIdentity;

fn leaving(members: &[(&str, Option<&str>)]) -> LeaveGroupRequest {
    let members = members.iter().map(|(id, name)| MemberIdentity {
        member_id: id.to_string(),
        group_instance_id: name.map(str::to_owned),
        reason: None,
    });
    LeaveGroupRequest {
        group_id: "group".to_owned(),
        member_id: String::new(),
        members: members.collect(),
    }
}

#[test]
fn who_leaves_is_out_at_once_and_the_others_join_again() {
    let (mut bench, leader, other) = Bench::of_two();
    let one = LeaveGroupRequest {
        member_id: leader.clone(),
        ..leaving(&[])
    };
    for version in 0..3 {
        let code = if version == 0 {
            0
        } else {
            ErrorCode::UnknownMemberId.code()
        };
        let told = bench.leave(version, one.clone());
        assert_eq!((told.error_code, told.members.len()), (code, 0));
    }
    assert_eq!(bench.state(), "PreparingRebalance");
    let again = bench.join(join(&other, "b"));
    let told = bench.joined(again);
    assert_eq!((told.generation_id, told.leader), (2, other.clone()));

    let told = bench.leave(3, leaving(&[(&other, None)]));
    assert_eq!((told.error_code, told.members[0].error_code), (0, 0));
    assert_eq!(bench.state(), "Empty");
    assert_eq!(bench.recorded().generation, 3);
}

#[test]
fn many_leave_at_once_and_each_is_answered() {
    let mut bench = Bench::new();
    let x = bench.join(named_join("x", "", "a"));
    bench.join(named_join("y", "", "b"));
    let (z, _) = bench.come("c");
    bench.pass(2 * DELAY_MS);
    let x = bench.joined(x).member_id;
    let asked = bench.join(join("", "d"));
    let pending = bench.joined(asked).member_id;
    let told = bench.leave(
        5,
        leaving(&[
            (&z, None),
            (&pending, None),
            // An administrator knows the name alone.
            ("", Some("y")),
            ("", Some("nobody")),
            ("", None),
            ("nobody", None),
            (&z, Some("x")),
            (&x, Some("nobody")),
        ]),
    );
    assert_eq!(told.error_code, 0);
    let codes: Vec<_> = told
        .members
        .iter()
        .map(|member| member.error_code)
        .collect();
    let unknown = ErrorCode::UnknownMemberId.code();
    let fenced = ErrorCode::FencedInstanceId.code();
    assert_eq!(codes, [0, 0, 0, unknown, unknown, unknown, fenced, unknown]);
    assert_eq!(told.members[2].member_id, "");
    assert_eq!(told.members[2].group_instance_id.as_deref(), Some("y"));
    let left: Vec<_> = bench.group.members().map(|(id, _)| id.to_owned()).collect();
    assert_eq!((left, bench.state()), (vec![x], "PreparingRebalance"));
}

#[test]
fn whoever_waits_and_is_taken_out_is_told() {
    let (mut bench, leader, other) = Bench::of_two();
    let waits = bench.join(join(&other, "b2"));
    bench.leave(5, leaving(&[(&other, None)]));
    let told = bench.joined(waits);
    assert_eq!(
        (told.error_code, told.member_id.as_str()),
        (ErrorCode::UnknownMemberId.code(), "")
    );

    let (third, _) = bench.come("c");
    bench.join(join(&leader, "a"));
    let waits = bench.sync(sync(&third, 2, &[]));
    bench.leave(5, leaving(&[(&third, None)]));
    assert_eq!(
        bench.synced(waits).error_code,
        ErrorCode::UnknownMemberId.code()
    );
}

#[test]
fn a_rebalance_waits_for_those_who_were_given_an_id() {
    let (mut bench, leader, other) = Bench::of_two();
    let asked = bench.join(join("", "c"));
    let pending = bench.joined(asked).member_id;
    let waits = bench.join(join(&leader, "a"));
    bench.join(join(&other, "b"));
    assert!(!bench.told.contains_key(&waits));
    bench.leave(5, leaving(&[(&pending, None)]));
    assert_eq!(bench.joined(waits).generation_id, 2);

    // Or until its time is over.
    let asked = bench.join(join("", "c"));
    assert_eq!(
        bench.joined(asked).error_code,
        ErrorCode::MemberIdRequired.code()
    );
    let waits = bench.join(join(&leader, "a2"));
    bench.join(join(&other, "b2"));
    assert!(!bench.told.contains_key(&waits));
    bench.pass(i64::from(SESSION_MS));
    assert_eq!(bench.joined(waits).generation_id, 3);
}
