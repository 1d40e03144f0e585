//! Requests of few bytes that ask for much (P7).

use super::*;
use crate::api::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest;
use crate::api::describe_groups::DescribeGroupsRequest;

/// Every record of a commit names the group: 32 KiB times as many partitions as a request has room for.
#[test]
fn a_commit_of_more_than_a_batch_may_be_is_refused() {
    let mut scene = Scene::new();
    let Request::Commit(mut request, _) = commit(&"g".repeat(32_000), "t", 0, 1) else {
        unreachable!()
    };
    let partitions = &mut request.topics[0].partitions;
    *partitions = vec![partitions[0].clone(); 50_000];
    let waiter = scene.ask(Request::Commit(request, None));
    assert!(scene.under_way.is_empty());
    let Some(Response::Commit(told)) = scene.answer_to(waiter) else {
        panic!("refused at once")
    };
    let partitions = &told.topics[0].partitions;
    let code = ErrorCode::InvalidCommitOffsetSize.code();
    assert_eq!(partitions.len(), 50_000);
    assert!(partitions.iter().all(|told| told.error_code == code));
}

#[test]
fn an_offset_that_is_named_often_is_taken_away_once() {
    let mut scene = Scene::new();
    scene.ask(commit("g", "t", 1, 1));
    scene.settle(Ok(()));
    let partition = OffsetDeleteRequestPartition { partition_index: 1 };
    scene.ask(Request::DeleteOffsets(OffsetDeleteRequest {
        group_id: "g".into(),
        topics: vec![OffsetDeleteRequestTopic {
            name: "t".into(),
            partitions: vec![partition; 1000],
        }],
    }));
    assert_eq!(scene.under_way[0].1.len(), 1);
}

/// P7: an answer is as large as the groups are, however often a request names one.
#[test]
fn a_group_that_is_named_often_is_described_once() {
    let mut scene = Scene::new();
    scene.ask(commit("g", "t", 0, 1));
    scene.settle(Ok(()));
    let request = DescribeGroupsRequest {
        groups: vec!["g".into(), "h".into(), "g".into()],
        ..DescribeGroupsRequest::default()
    };
    let waiter = scene.ask(Request::Read(Read::Describe(request, 5)));
    let Some(Response::Described(told)) = scene.answer_to(waiter) else {
        panic!("a read is answered at once")
    };
    let ids: Vec<&str> = told.groups.iter().map(|g| g.group_id.as_str()).collect();
    assert_eq!(ids, ["g", "h"]);
    let group = OffsetFetchRequestGroup {
        group_id: "g".into(),
        ..OffsetFetchRequestGroup::default()
    };
    let request = OffsetFetchRequest {
        groups: vec![group; 3],
        ..OffsetFetchRequest::default()
    };
    let waiter = scene.ask(Request::Read(Read::Offsets(request, 9)));
    let Some(Response::Offsets(told)) = scene.answer_to(waiter) else {
        panic!("a read is answered at once")
    };
    assert_eq!(told.groups.len(), 1);
}

/// P7: clients choose how long ids and names are, and the ones that nobody came back with count too.
#[test]
fn every_name_counts_in_the_memory_of_groups() {
    let mut scene = Scene::new();
    let long = || Some("l".repeat(30_000));
    let beat = ConsumerGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: "m".repeat(30_000),
        rack_id: long(),
        instance_id: long(),
        rebalance_timeout_ms: 1000,
        subscribed_topic_names: Some(Vec::new()),
        topic_partitions: Some(Vec::new()),
        ..ConsumerGroupHeartbeatRequest::default()
    };
    let ask = Ask::ConsumerHeartbeat(beat, Default::default());
    scene.ask(Request::Member(Box::new(ask)));
    scene.settle(Ok(()));
    assert!(scene.groups.bytes > 90_000, "{}", scene.groups.bytes);
    let before = scene.groups.bytes;
    let Request::Member(ask) = join("h", 10_000) else {
        unreachable!()
    };
    let Ask::Join(mut join) = *ask else {
        unreachable!()
    };
    join.group_instance_id = None;
    let asker = Asker {
        version: 9,
        client_id: "c".repeat(30_000),
        client_host: "/h".into(),
        waiter: 0,
    };
    let ask = Request::Member(Box::new(Ask::Join(join)));
    scene.with(|groups, env| groups.ask(ask, asker, env));
    assert!(
        scene.groups.bytes > before + 30_000,
        "an id that is given out"
    );
}

/// Never, in milliseconds: added to the clock it wrapped, and the control thread expired groups without a rest.
#[test]
fn a_retention_check_that_never_comes_is_not_due_at_once() {
    let mut scene = Scene::new();
    scene.config.offsets_retention_check_interval_ms = i64::MAX;
    scene.with(|groups, env| groups.loaded(env));
    assert_eq!(scene.groups.next_due_ms(), i64::MAX);
    scene.now_ms += WEEK;
    scene.with(|groups, env| groups.tick(env));
    assert_eq!(scene.groups.next_due_ms(), i64::MAX);
}
