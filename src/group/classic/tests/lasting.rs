//! Commits, restarts, and what others see of a classic group.

use super::*;
use std::collections::BTreeSet;

#[test]
fn members_commit_in_their_generation_and_others_only_to_an_empty_group() {
    let mut bench = Bench::new();
    let unknown = ErrorCode::UnknownMemberId.code();
    assert_eq!(bench.check_commit("", None, -1), 0);
    let (leader, _) = bench.come("a");
    assert_eq!(bench.check_commit("", None, -1), unknown);
    bench.pass(DELAY_MS);
    let assigning = ErrorCode::RebalanceInProgress.code();
    assert_eq!(bench.check_commit(&leader, None, 1), assigning);
    bench.sync(sync(&leader, 1, &[]));
    for (id, name, generation, code) in [
        (leader.as_str(), None, 1, 0),
        (&leader, None, 0, ErrorCode::IllegalGeneration.code()),
        (&leader, None, -1, ErrorCode::IllegalGeneration.code()),
        (&leader, Some("x"), 1, unknown),
        ("nobody", None, 1, unknown),
        ("", None, 1, unknown),
        ("", None, -1, unknown),
    ] {
        assert_eq!(
            bench.check_commit(id, name, generation),
            code,
            "{id:?} {name:?} {generation}"
        );
    }
}

/// Producers before KIP-447 name no member, and none has to wait for a rebalance.
#[test]
fn a_transaction_commits_for_its_member_or_for_nobody() {
    let mut bench = Bench::new();
    assert_eq!(bench.group.check_transaction("x", None, -1), Ok(()));
    let (leader, _) = bench.come("a");
    bench.pass(DELAY_MS);
    assert_eq!(bench.state(), "CompletingRebalance");
    let unknown = Err(ErrorCode::UnknownMemberId);
    for (id, name, generation, expected) in [
        (leader.as_str(), None, 1, Ok(())),
        ("", None, -1, Ok(())),
        (&leader, None, 0, Err(ErrorCode::IllegalGeneration)),
        (&leader, None, -1, Err(ErrorCode::IllegalGeneration)),
        (&leader, Some("x"), 1, unknown),
        ("", Some("x"), -1, unknown),
        ("nobody", None, 1, unknown),
        ("", None, 1, unknown),
    ] {
        let checked = bench.group.check_transaction(id, name, generation);
        assert_eq!(checked, expected, "{id:?} {name:?} {generation}");
    }
}

#[test]
fn cooperative_members_commit_during_a_rebalance_and_that_keeps_them_alive() {
    // librdkafka #4059.
    let (mut bench, leader, other) = Bench::of_two();
    bench.come("c");
    assert_eq!(bench.state(), "PreparingRebalance");
    for _ in 0..5 {
        bench.pass(i64::from(SESSION_MS) - 1);
        assert_eq!(bench.check_commit(&leader, None, 1), 0);
        assert_eq!(bench.check_commit(&other, None, 1), 0);
    }
}

#[test]
fn a_restart_loses_no_member_and_no_generation() {
    let (mut bench, leader, other) = Bench::of_two();
    let before = bench.group.describe();
    bench.come("c");
    bench.restart();
    assert_eq!(bench.group.describe(), before);
    // The sessions begin anew.
    bench.pass(i64::from(SESSION_MS) - 1);
    assert_eq!(bench.heartbeat(&leader, 1), 0);
    assert_eq!(bench.heartbeat(&other, 1), 0);
    let part = bench.sync(sync(&other, 1, &[]));
    assert_eq!(bench.synced(part).assignment, b"two");
    let again = bench.join(join(&other, "b"));
    assert_eq!(bench.joined(again).generation_id, 1);
    let again = bench.join(join(&leader, "a"));
    bench.join(join(&other, "b"));
    assert_eq!(bench.joined(again).generation_id, 2);

    bench.pass(10 * i64::from(REBALANCE_MS));
    assert_eq!(bench.state(), "Empty");
    let since_ms = bench.group.empty_since_ms();
    bench.pass(1_000);
    bench.restart();
    assert_eq!((bench.state(), bench.group.generation()), ("Empty", 3));
    assert_eq!(bench.group.empty_since_ms(), since_ms);
    assert_eq!(bench.group.protocol_type(), Some("consumer"));
    assert!(!bench.group.is_vacant());
}

#[test]
fn a_record_that_makes_no_sense_makes_a_group_all_the_same() {
    let config = Config::default();
    let value = GroupMetadataValue {
        leader: Some("nobody".to_owned()),
        generation: i32::MAX,
        members: vec![Default::default()],
        ..GroupMetadataValue::default()
    };
    let mut bench = Bench::new();
    bench.group = env(&config, 0, &|| Uuid::ZERO, |env| {
        ClassicGroup::replay("group", &value, env)
    });
    assert_eq!(bench.state(), "Stable");
    bench.pass(1);
    assert_eq!(
        (bench.state(), bench.group.generation()),
        ("Empty", i32::MAX)
    );
}

#[test]
fn a_group_is_described_with_metadata_only_when_stable() {
    let (mut bench, leader, other) = Bench::of_two();
    let group = bench.group.describe();
    assert_eq!(
        (group.error_code, group.group_state.as_str()),
        (0, "Stable")
    );
    assert_eq!(
        (group.protocol_type.as_str(), group.protocol_data.as_str()),
        ("consumer", "range")
    );
    let [first, second] = &group.members[..] else {
        panic!("{group:?}");
    };
    assert_eq!((&first.member_id, &second.member_id), (&leader, &other));
    assert_eq!(
        (first.client_id.as_str(), first.client_host.as_str()),
        ("client", "/127.0.0.1")
    );
    assert_eq!(
        (&*first.member_metadata, &*first.member_assignment),
        (&b"a"[..], &b"one"[..])
    );
    bench.come("c");
    let group = bench.group.describe();
    assert_eq!(
        (group.group_state.as_str(), group.protocol_data.as_str()),
        ("PreparingRebalance", "")
    );
    assert!(
        group
            .members
            .iter()
            .all(|member| member.member_metadata.is_empty())
    );
    assert_eq!(bench.group.check_delete(), Err(ErrorCode::NonEmptyGroup));
}

#[test]
fn subscribed_topics_are_read_from_what_consumers_say() {
    let says = |topics: &[&str]| {
        let mut bytes = vec![0, 3, 0, 0, 0, topics.len() as u8];
        for topic in topics {
            bytes.extend([0, topic.len() as u8]);
            bytes.extend(topic.as_bytes());
        }
        // What newer versions add is not looked at.
        bytes.extend([0xff; 9]);
        bytes
    };
    let mut bench = Bench::new();
    assert!(!bench.group.subscribed("t1"));
    let with = |member_id: &str, topics: &[&str]| {
        let mut request = join(member_id, "");
        request.protocols[0].metadata = says(topics);
        request
    };
    let asked = bench.ask(3, Ask::Join(with("", &["t1", "t2"])));
    bench.ask(3, Ask::Join(with("", &["t2", "t3"])));
    assert_eq!(bench.group.subscribed_topics(), None);
    assert!(bench.group.subscribed("any"), "nobody knows yet");
    bench.pass(2 * DELAY_MS);
    let topics: BTreeSet<_> = ["t1", "t2", "t3"].map(str::to_owned).into();
    assert_eq!(bench.group.subscribed_topics(), Some(topics));
    assert!(bench.group.subscribed("t3") && !bench.group.subscribed("t4"));

    let leader = bench.joined(asked).member_id;
    bench.sync(sync(&leader, 1, &[]));
    bench.restart();
    assert!(bench.group.subscribed("t3") && !bench.group.subscribed("t4"));
    bench.pass(i64::from(SESSION_MS));
    assert_eq!(bench.group.subscribed_topics(), Some(BTreeSet::new()));

    let (mut bench, ..) = Bench::of_two();
    assert_eq!(
        bench.group.subscribed_topics(),
        None,
        "metadata that is none"
    );
    assert!(bench.group.subscribed("any"));
    let mut effects = Effects::default();
    let waits = bench.come("c").1;
    bench
        .group
        .dismiss(ErrorCode::RebalanceInProgress, &mut effects);
    assert!(matches!(&effects.told[..], [(waiter, Told::Join(_))] if *waiter == waits));
}
