//! Offsets of transactions: pending until the marker, then committed or gone.

use super::*;
use crate::txn::Serial;

/// A commit that is part of a producer's transaction.
pub(super) fn commit_by(
    producer_id: i64,
    group: &str,
    topic: &str,
    index: i32,
    offset: i64,
) -> Request {
    let transaction = Transaction {
        producer_id,
        producer_epoch: 0,
        serial: Serial(1),
        partition: PARTITION,
    };
    Request::Commit(request(group, topic, index, offset), Some(transaction))
}

/// The partitions of `t` and `u` for which a consumer is told to wait.
pub(super) fn unstable(scene: &mut Scene, group: &str) -> Vec<(String, i32)> {
    let topics = ["t", "u"].map(|name| OffsetFetchRequestTopics {
        name: name.into(),
        partition_indexes: (0..4).collect(),
        ..OffsetFetchRequestTopics::default()
    });
    let told = scene.fetch(group, Some(topics.into()));
    let unstable = told.into_iter().filter_map(|(topic, told)| {
        let is_unstable = told.error_code == ErrorCode::UnstableOffsetCommit.code();
        assert!(!is_unstable || told.committed_offset == -1);
        is_unstable.then_some((topic, told.partition_index))
    });
    unstable.collect()
}

fn code(scene: &Scene, waiter: u32) -> i16 {
    match scene.answer_to(waiter) {
        Some(Response::Commit(told)) => told.topics[0].partitions[0].error_code,
        other => panic!("{other:?}"),
    }
}

fn settled(scene: &mut Scene, request: Request) -> u32 {
    let waiter = scene.ask(request);
    scene.settle(Ok(()));
    waiter
}

#[test]
fn a_pending_offset_counts_once_its_transaction_is_committed_and_not_if_it_is_aborted() {
    let mut scene = Scene::new();
    settled(&mut scene, commit("g", "t", 0, 1));
    let waiter = settled(&mut scene, commit_by(7, "g", "t", 0, 2));
    assert_eq!(code(&scene, waiter), 0);
    settled(&mut scene, commit_by(7, "g", "u", 1, 5));
    assert_eq!(scene.offsets("g"), [("t".into(), 0, 1)]);
    let pending = [("t".into(), 0), ("u".into(), 1)];
    assert_eq!(unstable(&mut scene, "g"), pending);
    let mut again = scene.reloaded();
    assert_eq!(unstable(&mut again, "g"), pending, "also after a start");
    again.end(7, false);
    assert_eq!(again.offsets("g"), [("t".into(), 0, 1)]);
    assert_eq!(unstable(&mut again, "g"), []);
    scene.end(7, true);
    let both = [("t".into(), 0, 2), ("u".into(), 1, 5)];
    assert_eq!(scene.offsets("g"), both);
    assert_eq!(unstable(&mut scene, "g"), []);
    assert_eq!(scene.reloaded().offsets("g"), both);
}

/// Of two the one that was recorded later counts, whenever its transaction ended.
#[test]
fn a_commit_behind_a_pending_offset_outlives_it() {
    let mut scene = Scene::new();
    settled(&mut scene, commit_by(7, "g", "t", 0, 2));
    settled(&mut scene, commit_by(8, "g", "t", 0, 3));
    settled(&mut scene, commit("g", "t", 1, 9));
    settled(&mut scene, commit_by(7, "g", "t", 1, 8));
    scene.end(8, true);
    scene.end(7, true);
    let expected = [("t".into(), 0, 3), ("t".into(), 1, 8)];
    assert_eq!(scene.offsets("g"), expected);
    assert_eq!(scene.reloaded().offsets("g"), expected);
}

#[test]
fn a_marker_ends_what_is_in_its_own_partition() {
    let mut scene = Scene::new();
    settled(&mut scene, commit_by(7, "g", "t", 0, 2));
    scene.with(|groups, env| groups.end_transaction(7, PARTITION + 1, true, env));
    scene.with(|groups, env| groups.end_transaction(8, PARTITION, true, env));
    assert_eq!(unstable(&mut scene, "g"), [("t".into(), 0)]);
    scene.end(7, true);
    assert_eq!(scene.offsets("g"), [("t".into(), 0, 2)]);
}

#[test]
fn an_aborted_transaction_leaves_nothing_behind() {
    let mut scene = Scene::new();
    settled(&mut scene, commit_by(7, "g", "t", 0, 2));
    assert_eq!(scene.counts(), (1, 1));
    scene.end(7, false);
    assert_eq!((scene.counts(), scene.groups.bytes), ((0, 0), 0));
    assert_eq!(scene.reloaded().counts(), (0, 0));
    assert!(scene.groups.transactions.is_empty());
}

/// Nor is a group whose only offsets are pending.
#[test]
fn an_offset_does_not_expire_while_another_is_pending() {
    let mut scene = Scene::new();
    settled(&mut scene, commit("g", "t", 0, 1));
    settled(&mut scene, commit_by(7, "g", "t", 0, 2));
    settled(&mut scene, commit_by(7, "h", "t", 0, 2));
    scene.pass(2 * WEEK);
    assert!(scene.under_way.is_empty());
    assert_eq!(scene.counts(), (2, 2));
    scene.end(7, false);
    scene.pass(10 * MINUTE);
    scene.settle(Ok(()));
    assert_eq!(scene.counts(), (0, 0));
}

#[test]
fn what_is_deleted_does_not_come_back_with_a_commit() {
    let deletions: [fn(&mut Scene); 3] = [
        |scene| {
            scene.ask(Request::Delete("g".into()));
        },
        |scene| {
            scene.ask(Request::DeleteOffsets(OffsetDeleteRequest {
                group_id: "g".into(),
                topics: vec![OffsetDeleteRequestTopic {
                    name: "t".into(),
                    partitions: [0, 1]
                        .map(|partition_index| OffsetDeleteRequestPartition { partition_index })
                        .into(),
                }],
            }));
        },
        |scene| {
            let gone = BTreeSet::from(["t".to_owned()]);
            scene.with(|groups, env| groups.forget_topics(gone, env));
        },
    ];
    for delete in deletions {
        let mut scene = Scene::new();
        settled(&mut scene, commit("g", "t", 0, 1));
        settled(&mut scene, commit_by(7, "g", "t", 0, 2));
        settled(&mut scene, commit_by(8, "g", "t", 1, 2));
        delete(&mut scene);
        scene.settle(Ok(()));
        assert_eq!(unstable(&mut scene, "g"), []);
        scene.end(7, true);
        scene.end(8, true);
        assert_eq!((scene.counts(), scene.groups.bytes), ((0, 0), 0));
        assert_eq!(scene.reloaded().counts(), (0, 0));
    }
}

/// The writer knows best whether a transaction is over; a full disk is no fault of the transaction.
#[test]
fn a_batch_that_comes_too_late_is_refused_with_the_writers_reason() {
    for (refused, told) in [
        (ErrorCode::InvalidTxnState, ErrorCode::InvalidTxnState),
        (
            ErrorCode::InvalidProducerEpoch,
            ErrorCode::InvalidProducerEpoch,
        ),
        (
            ErrorCode::KafkaStorageError,
            ErrorCode::CoordinatorNotAvailable,
        ),
    ] {
        let mut scene = Scene::new();
        let waiter = scene.ask(commit_by(7, "g", "t", 0, 2));
        scene.settle(Err(refused));
        assert_eq!(code(&scene, waiter), told.code());
        assert_eq!(scene.counts(), (0, 0), "nothing is left of it");
    }
}

#[test]
fn a_group_that_nobody_knows_has_no_generation() {
    let mut scene = Scene::new();
    let Request::Commit(mut request, transaction) = commit_by(7, "g", "t", 0, 2) else {
        unreachable!()
    };
    request.generation_id_or_member_epoch = 3;
    let waiter = scene.ask(Request::Commit(request, transaction));
    assert_eq!(code(&scene, waiter), ErrorCode::IllegalGeneration.code());
}

/// P7: what is pending counts, and that it was written once more does not.
#[test]
fn pending_offsets_take_memory_too() {
    let mut scene = Scene::new();
    scene.config.group_state_bytes_max = 65_536;
    let mut index = 0;
    let refused = loop {
        let waiter = scene.ask(commit_by(7, "g", "t", index, 1));
        match scene.under_way.is_empty() {
            true => break code(&scene, waiter),
            false => scene.settle(Ok(())),
        }
        index += 1;
    };
    assert_eq!(refused, ErrorCode::InvalidCommitOffsetSize.code());
    assert!((200..400).contains(&index), "{index}");
    let again = settled(&mut scene, commit_by(7, "g", "t", 0, 2));
    assert_eq!(code(&scene, again), 0);
    scene.end(7, false);
    assert_eq!(scene.groups.bytes, 0);
}

/// Rot in the log takes what is committed and what is pending beside it: memory knows both, and a start shall too.
#[test]
fn what_was_pending_at_a_gap_is_recorded_once_its_transaction_ends() {
    for commit_it in [true, false] {
        let mut scene = Scene::new();
        settled(&mut scene, commit("g", "t", 0, 1));
        settled(&mut scene, commit("g", "u", 1, 4));
        settled(&mut scene, commit_by(7, "g", "t", 0, 2));
        scene.log.clear();
        scene.with(|groups, env| groups.restate_offsets(|_| true, env));
        scene.end(7, commit_it);
        while !scene.under_way.is_empty() {
            scene.settle(Ok(()));
        }
        let offset = if commit_it { 2 } else { 1 };
        let expected = [("t".into(), 0, offset), ("u".into(), 1, 4)];
        assert_eq!(scene.offsets("g"), expected);
        assert_eq!(scene.reloaded().offsets("g"), expected);
        assert!(!scene.groups.slots["g"].is_lost);
    }
}

/// A full disk refuses that record too.
#[test]
fn what_a_gap_took_is_recorded_when_the_disk_has_room_again() {
    let mut scene = Scene::new();
    settled(&mut scene, commit("g", "t", 0, 1));
    scene.log.clear();
    scene.with(|groups, env| groups.restate_offsets(|_| true, env));
    scene.settle(Err(ErrorCode::KafkaStorageError));
    scene.pass(scene.config.offsets_retention_check_interval_ms);
    scene.settle(Ok(()));
    assert_eq!(scene.reloaded().offsets("g"), [("t".into(), 0, 1)]);
    scene.pass(scene.config.offsets_retention_check_interval_ms);
    assert!(scene.under_way.is_empty(), "once is enough");
}

/// Else the age of its offsets would count from their commits, which may be long ago.
#[test]
fn since_when_a_group_is_empty_outlives_a_gap() {
    let mut scene = Scene::new();
    settled(&mut scene, commit("g", "t", 0, 1));
    scene.pass(6 * WEEK / 7);
    scene.ask(join("g", 10_000));
    for _ in 0..4 {
        scene.pass(5 * MINUTE);
        while !scene.under_way.is_empty() {
            scene.settle(Ok(()));
        }
    }
    assert_eq!(scene.groups.slots["g"].group.state_name(), "Empty");
    scene.log.clear();
    scene.with(|groups, env| groups.restate_offsets(|_| true, env));
    scene.settle(Ok(()));
    let mut again = scene.reloaded();
    again.pass(2 * WEEK / 7);
    assert!(again.under_way.is_empty(), "nothing is forgotten yet");
    assert_eq!(again.offsets("g"), [("t".into(), 0, 1)]);
    again.pass(6 * WEEK / 7);
    again.settle(Ok(()));
    assert!(again.offsets("g").is_empty());
}
