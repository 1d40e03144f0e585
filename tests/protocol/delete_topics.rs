//! Topics deleted: by name, by id, and by neither.

use crate::common::client::{Client, batch};
use crate::start;
use ottla::api::delete_topics::{DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse};
use ottla::wire::Uuid;

fn delete(client: &mut Client, topics: Vec<DeleteTopicState>) -> Vec<i16> {
    let request = DeleteTopicsRequest {
        topics,
        ..DeleteTopicsRequest::default()
    };
    let answer: DeleteTopicsResponse = client.call(6, &request);
    answer.responses.iter().map(|r| r.error_code).collect()
}

#[test]
fn topics_are_deleted_by_name_and_by_id() {
    let (data, _broker, mut client) = start(&[]);
    let id = client.create("a", &[]);
    client.create("b", &[]);
    client.create("c", &[]);
    client.store("a", &batch(&["x"]));
    let by_name = |name: &str| DeleteTopicState {
        name: Some(name.into()),
        ..DeleteTopicState::default()
    };
    let by_id = |topic_id| DeleteTopicState {
        topic_id,
        ..DeleteTopicState::default()
    };
    let topics = vec![
        by_id(id),
        by_name("b"),
        by_name("none"),
        by_id(Uuid([5; 16])),
    ];
    assert_eq!(delete(&mut client, topics), [0, 0, 3, 100]);
    assert!(!data.path().join("a-0").exists() && !data.path().join("b-0").exists());
    assert_eq!(client.produce("a", -1, &batch(&["x"])).error_code, 3);
    assert_eq!(delete(&mut client, vec![by_id(id)]), [100]);
    for version in 1..=5 {
        client.create("d", &[]);
        let request = DeleteTopicsRequest {
            topic_names: vec!["d".into(), "none".into()],
            ..DeleteTopicsRequest::default()
        };
        let answer: DeleteTopicsResponse = client.call(version, &request);
        let codes: Vec<_> = answer.responses.iter().map(|r| r.error_code).collect();
        assert_eq!(codes, [0, 3], "v{version}");
    }
    assert_eq!(client.offset("c", -1).error_code, 0);
}

/// Twice is a mistake, and a deletion is not made by mistake.
#[test]
fn a_topic_that_is_named_twice_is_not_deleted() {
    let (_data, _broker, mut client) = start(&[]);
    let ids = ["a", "b", "c"].map(|name| client.create(name, &[]));
    let name = |name: &str| DeleteTopicState {
        name: Some(name.into()),
        ..DeleteTopicState::default()
    };
    let id = |topic_id| DeleteTopicState {
        topic_id,
        ..DeleteTopicState::default()
    };
    let request = DeleteTopicsRequest {
        topics: vec![
            name("a"),
            name("a"),
            id(ids[1]),
            id(ids[1]),
            id(ids[2]),
            name("c"),
        ],
        ..DeleteTopicsRequest::default()
    };
    let answer: DeleteTopicsResponse = client.call(6, &request);
    let results: Vec<_> = answer
        .responses
        .iter()
        .map(|r| (r.name.as_deref(), r.topic_id, r.error_code))
        .collect();
    let expected = [
        (Some("a"), Uuid::ZERO, 42),
        (None, ids[1], 42),
        (Some("c"), ids[2], 42),
    ];
    assert_eq!(results, expected);
    for topic in ["a", "b", "c"] {
        assert_eq!(client.offset(topic, -1).error_code, 0, "{topic}");
    }
}

#[test]
fn deletion_can_be_forbidden() {
    let (_data, _broker, mut client) = start(&["delete.topic.enable=false"]);
    client.create("t", &[]);
    let t = DeleteTopicState {
        name: Some("t".into()),
        ..DeleteTopicState::default()
    };
    assert_eq!(delete(&mut client, vec![t]), [73]);
    // Before v3 there was no code for it; and it is said first, whatever is asked.
    for (version, code) in [(1, 42), (2, 42), (3, 73)] {
        let request = DeleteTopicsRequest {
            topic_names: vec!["t".into(), "none".into()],
            ..DeleteTopicsRequest::default()
        };
        let answer: DeleteTopicsResponse = client.call(version, &request);
        let codes: Vec<_> = answer.responses.iter().map(|r| r.error_code).collect();
        assert_eq!(codes, [code, code], "v{version}");
    }
    client.store("t", &batch(&["x"]));
}

#[test]
fn a_topic_is_deleted_by_name_or_by_id_alone() {
    let (_data, _broker, mut client) = start(&[]);
    let id = client.create("t", &[]);
    let state = |name: Option<&str>, topic_id| DeleteTopicState {
        name: name.map(String::from),
        topic_id,
    };
    let request = DeleteTopicsRequest {
        topics: vec![state(Some("t"), id), state(None, Uuid::ZERO)],
        ..DeleteTopicsRequest::default()
    };
    let answer: DeleteTopicsResponse = client.call(6, &request);
    let codes = answer.responses.iter().map(|topic| topic.error_code);
    assert_eq!(codes.collect::<Vec<_>>(), [42, 42]);
    assert_eq!(client.offset("t", -1).error_code, 0, "it is still there");
}
