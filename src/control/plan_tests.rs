//! The plans' errors, and what their records add up to.

use super::*;
use crate::wire::metadata_records::PartitionChangeRecord;

fn new_topic(name: &str) -> NewTopic {
    NewTopic {
        name: name.into(),
        partitions: -1,
        replication_factor: -1,
        ..NewTopic::default()
    }
}

fn create(state: &State, topics: Vec<NewTopic>) -> Plan {
    let mut next = state.topics.len() as u8;
    let new_id = || {
        next += 1;
        Uuid([next; 16])
    };
    create_topics(state, &Config::default(), topics, new_id)
}

fn faults(plan: &Plan) -> Vec<Option<ErrorCode>> {
    let code = |planned: &Planned| planned.fault.as_ref().map(|(code, _)| *code);
    plan.topics.iter().map(code).collect()
}

fn after(mut state: State, plan: &Plan) -> State {
    plan.records.iter().for_each(|record| state.apply(record));
    state
}

#[test]
fn a_refused_topic_does_not_keep_the_others_from_being_made() {
    let many = NewTopic {
        partitions: 3,
        ..new_topic("many")
    };
    let topics = vec![
        new_topic("a/b"),
        many,
        new_topic("twice"),
        new_topic("twice"),
    ];
    let plan = create(&State::default(), topics);
    let expected = [
        Some(ErrorCode::InvalidTopicException),
        None,
        Some(ErrorCode::InvalidRequest),
    ];
    assert_eq!(faults(&plan), expected);
    let state = after(State::default(), &plan);
    assert_eq!(state.topics.len(), 1);
    assert_eq!(state.topics["many"].leader_epochs, [0, 0, 0]);
}

#[test]
fn counts_and_assignments_are_checked_as_kafka_does() {
    let assigned = |assignments: &[(i32, &[i32])]| NewTopic {
        assignments: assignments.iter().map(|(i, b)| (*i, b.to_vec())).collect(),
        ..new_topic("t")
    };
    let cases: [(NewTopic, Option<ErrorCode>); 9] = [
        (
            NewTopic {
                partitions: 0,
                ..new_topic("t")
            },
            Some(ErrorCode::InvalidPartitions),
        ),
        (
            NewTopic {
                partitions: 10_001,
                ..new_topic("t")
            },
            Some(ErrorCode::PolicyViolation),
        ),
        (
            NewTopic {
                replication_factor: 3,
                ..new_topic("t")
            },
            Some(ErrorCode::InvalidReplicationFactor),
        ),
        (
            NewTopic {
                replication_factor: 0,
                ..new_topic("t")
            },
            Some(ErrorCode::InvalidReplicationFactor),
        ),
        (assigned(&[(0, &[1]), (1, &[1])]), None),
        (
            assigned(&[(0, &[1]), (2, &[1])]),
            Some(ErrorCode::InvalidReplicaAssignment),
        ),
        (
            assigned(&[(0, &[2])]),
            Some(ErrorCode::InvalidReplicaAssignment),
        ),
        (
            assigned(&[(0, &[])]),
            Some(ErrorCode::InvalidReplicaAssignment),
        ),
        (
            NewTopic {
                partitions: 1,
                ..assigned(&[(0, &[1])])
            },
            Some(ErrorCode::InvalidRequest),
        ),
    ];
    for (topic, expected) in cases {
        let plan = create(&State::default(), vec![topic.clone()]);
        assert_eq!(faults(&plan), [expected], "{topic:?}");
        assert_eq!(plan.records.is_empty(), expected.is_some());
    }
}

#[test]
fn partitions_are_added_and_never_taken_away() {
    let state = after(
        State::default(),
        &create(&State::default(), vec![new_topic("t")]),
    );
    let more = |count| MorePartitions {
        name: "t".into(),
        count,
        assignments: None,
    };
    let config = Config::default();
    for count in [1, 0, -1] {
        let plan = create_partitions(&state, &config, vec![more(count)]);
        assert_eq!(faults(&plan), [Some(ErrorCode::InvalidPartitions)]);
    }
    let grown = after(
        state.clone(),
        &create_partitions(&state, &config, vec![more(4)]),
    );
    assert_eq!(grown.topics["t"].leader_epochs, [0; 4]);
}

/// A group's records would lie in two partitions, and nothing says which is the later.
#[test]
fn the_topic_of_offsets_does_not_grow() {
    let name = crate::catalog::OFFSETS_TOPIC;
    let made = create(&State::default(), vec![new_topic(name)]);
    let state = after(State::default(), &made);
    let more = MorePartitions {
        name: name.into(),
        count: 4,
        assignments: None,
    };
    let plan = create_partitions(&state, &Config::default(), vec![more]);
    assert_eq!(faults(&plan), [Some(ErrorCode::InvalidTopicException)]);
}

#[test]
fn a_deleted_topics_id_is_remembered_and_its_name_is_free() {
    let state = after(
        State::default(),
        &create(&State::default(), vec![new_topic("t")]),
    );
    let id = state.topics["t"].id;
    let config = Config::default();
    let unknown = vec![TopicRef::Name("u".into()), TopicRef::Id(Uuid([9; 16]))];
    let expected = [
        Some(ErrorCode::UnknownTopicOrPartition),
        Some(ErrorCode::UnknownTopicId),
    ];
    assert_eq!(faults(&delete_topics(&state, &config, unknown)), expected);
    let state = after(
        state.clone(),
        &delete_topics(&state, &config, vec![TopicRef::Id(id)]),
    );
    assert!(state.topics.is_empty() && state.removed.contains(&id));
    assert_eq!(faults(&create(&state, vec![new_topic("t")])), [None]);
}

#[test]
fn a_leader_epoch_only_rises() {
    let mut state = after(
        State::default(),
        &create(&State::default(), vec![new_topic("t")]),
    );
    let id = state.topics["t"].id;
    let change = |id, index| {
        MetadataRecord::PartitionChange(PartitionChangeRecord {
            partition_id: index,
            topic_id: id,
            leader: 1,
            ..PartitionChangeRecord::default()
        })
    };
    state.apply(&change(id, 0));
    assert_eq!(state.topics["t"].leader_epochs, [1]);
    state.apply(&partition_record(id, 0, 7, 1));
    state.apply(&partition_record(id, 0, 3, 1));
    assert_eq!(state.topics["t"].leader_epochs, [7]);
    let before = state.topics.clone();
    state.apply(&change(Uuid([7; 16]), 0));
    state.apply(&change(id, 5));
    assert_eq!(
        state.topics, before,
        "records of what was lost change nothing"
    );
}
