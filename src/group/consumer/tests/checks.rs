//! What is refused, and how.

use super::*;

fn refused(change: impl FnOnce(&mut ConsumerGroupHeartbeatRequest), version: i16) -> (i16, String) {
    let mut bench = Bench::new();
    let mut request = joining("m");
    change(&mut request);
    let told = bench.ask(Ask::ConsumerHeartbeat(request, Found::default()), version);
    let Told::ConsumerHeartbeat(answer) = told else {
        panic!("{told:?}");
    };
    assert!(bench.group.is_vacant() && bench.log.is_empty());
    (answer.error_code, answer.error_message.unwrap_or_default())
}

#[test]
fn a_request_that_makes_no_sense_is_refused_with_a_sentence() {
    let invalid = |what: &str| (ErrorCode::InvalidRequest.code(), what.to_owned());
    assert_eq!(
        refused(|r| r.group_id = " ".into(), 1),
        invalid("GroupId can't be empty.")
    );
    assert_eq!(
        refused(|r| r.member_id.clear(), 1),
        invalid("MemberId can't be empty.")
    );
    let empty = Some(String::new());
    assert_eq!(
        refused(|r| r.instance_id = empty.clone(), 1),
        invalid("InstanceId can't be empty.")
    );
    assert_eq!(
        refused(|r| r.rack_id = empty.clone(), 1),
        invalid("RackId can't be empty.")
    );
    assert_eq!(
        refused(|r| r.rebalance_timeout_ms = -1, 1),
        invalid("RebalanceTimeoutMs must be provided in first request.")
    );
    assert_eq!(
        refused(|r| r.topic_partitions = None, 1),
        invalid("TopicPartitions must be empty when (re-)joining.")
    );
    assert_eq!(
        refused(|r| r.subscribed_topic_names = None, 1),
        invalid(
            "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining."
        )
    );
    assert_eq!(
        refused(|r| r.member_epoch = -2, 1),
        invalid("InstanceId can't be null.")
    );
    assert_eq!(
        refused(|r| r.member_epoch = -3, 1),
        invalid("MemberEpoch is invalid.")
    );
    assert_eq!(
        refused(|r| r.server_assignor = Some("sticky".into()), 1),
        (
            112,
            "ServerAssignor sticky is not supported. Supported assignors: uniform, range.".into()
        )
    );
}

#[test]
fn a_group_that_is_not_there_is_not_found() {
    let not_found = |what: &str| (ErrorCode::GroupIdNotFound.code(), what.to_owned());
    assert_eq!(
        refused(|r| r.member_epoch = 3, 1),
        not_found("Consumer group g not found.")
    );
    assert_eq!(
        refused(|r| r.member_epoch = -1, 1),
        not_found("Group g not found.")
    );
}

#[test]
fn version_0_lets_the_broker_make_the_member_id() {
    let mut bench = Bench::new();
    let told = bench.ask(Ask::ConsumerHeartbeat(joining(""), Found::default()), 0);
    let Told::ConsumerHeartbeat(answer) = told else {
        panic!("{told:?}");
    };
    let id = answer.member_id.unwrap();
    assert_eq!(id, Uuid([1; 16]).to_string());
    assert_eq!(code(&bench.beat(&id, 1)), 0);
}

#[test]
fn an_epoch_that_is_not_the_members_is_fenced_but_for_a_lost_answer() {
    let mut bench = Bench::new();
    bench.join("m");
    let fenced = bench.beat("m", 2);
    assert_eq!(code(&fenced), 110, "FENCED_MEMBER_EPOCH");
    assert_eq!(
        fenced.error_message.unwrap(),
        "The consumer group member has a greater member epoch (2) than the one known by the group coordinator (1). \
         The member must abandon all its partitions and rejoin."
    );
    bench.make("a", 5);
    assert_eq!(bench.beat("m", 1).member_epoch, 2);
    assert_eq!(
        code(&bench.beat("m", 1)),
        110,
        "it does not say what it has"
    );
    assert_eq!(
        code(&bench.owns("m", 1, &[0, 9])),
        110,
        "it has what is not its own"
    );
    assert_eq!(
        bench.owns("m", 1, &[0, 1]).member_epoch,
        2,
        "it did not hear of epoch 2"
    );
    assert_eq!(code(&bench.beat("n", 2)), ErrorCode::UnknownMemberId.code());
}

#[test]
fn a_full_group_takes_nobody_new() {
    let mut bench = Bench::new();
    bench.config.group_consumer_max_size = 1;
    bench.join("m");
    let full = bench.send(joining("n"));
    assert_eq!(code(&full), ErrorCode::GroupMaxSizeReached.code());
    assert_eq!(
        full.error_message.unwrap(),
        "The consumer group has reached its maximum capacity of 1 members."
    );
    assert_eq!(code(&bench.beat("m", 1)), 0);
}

#[test]
fn commits_and_fetches_of_offsets_need_the_members_epoch() {
    let mut bench = Bench::new();
    assert_eq!(
        bench.group.check_commit("", -1, 9),
        Ok(()),
        "an administrator"
    );
    bench.join("m");
    assert_eq!(bench.group.check_commit("m", 1, 9), Ok(()));
    assert_eq!(
        bench.group.check_commit("m", 1, 8),
        Err(ErrorCode::UnsupportedVersion)
    );
    assert_eq!(
        bench.group.check_commit("", -1, 9),
        Err(ErrorCode::UnknownMemberId)
    );
    let stale = bench.group.check_commit("m", 0, 9).unwrap_err();
    assert_eq!((stale, stale.code()), (ErrorCode::StaleMemberEpoch, 113));
    assert_eq!(bench.group.check_fetch(None, -1), Ok(()));
    assert_eq!(bench.group.check_fetch(Some("m"), 1), Ok(()));
    assert_eq!(
        bench.group.check_fetch(Some("m"), 2),
        Err(ErrorCode::StaleMemberEpoch)
    );
    assert_eq!(
        bench.group.check_fetch(Some("n"), 1),
        Err(ErrorCode::UnknownMemberId)
    );
    assert_eq!(bench.group.check_delete(), Err(ErrorCode::NonEmptyGroup));
    assert!(bench.group.subscribed("a") && !bench.group.subscribed("b"));
    bench.send(alive("m", -1));
    assert_eq!(bench.group.check_delete(), Ok(()));
    assert_eq!(bench.group.check_commit("", -1, 2), Ok(()));
}

/// Whatever the version, and with the one code for a wrong epoch that producers know.
#[test]
fn a_transaction_needs_the_members_epoch() {
    let mut bench = Bench::new();
    assert_eq!(bench.group.check_transaction("", -1), Ok(()));
    bench.join("m");
    assert_eq!(bench.group.check_transaction("m", 1), Ok(()));
    let (unknown, stale) = (ErrorCode::UnknownMemberId, ErrorCode::IllegalGeneration);
    assert_eq!(bench.group.check_transaction("", -1), Err(unknown));
    assert_eq!(bench.group.check_transaction("n", 1), Err(unknown));
    assert_eq!(bench.group.check_transaction("m", 0), Err(stale));
}
