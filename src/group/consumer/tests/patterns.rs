//! Subscriptions by regular expression.

use super::*;

fn wanting(id: &str, epoch: i32, pattern: &str) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        member_epoch: epoch,
        subscribed_topic_names: None,
        subscribed_topic_regex: Some(pattern.to_owned()),
        ..joining(id)
    }
}

fn topics(answer: &ConsumerGroupHeartbeatResponse) -> Vec<Uuid> {
    let topics = given(answer).unwrap().iter();
    topics.map(|topic| topic.topic_id).collect()
}

#[test]
fn a_pattern_stands_for_the_topics_that_it_matches_whole() {
    let mut bench = Bench::new();
    let answer = bench.send(wanting("m", 0, "b|ba"));
    assert_eq!(
        (answer.member_epoch, topics(&answer)),
        (1, vec![topic_id("b")])
    );
    assert!(bench.group.subscribed("b"));
    assert_eq!(
        bench.describe().members[0]
            .subscribed_topic_regex
            .as_deref(),
        Some("b|ba")
    );
    bench.group = bench.replayed();
    assert!(bench.group.subscribed("b"), "over a restart");
    let answer = bench.send(wanting("m", 1, "[ab]"));
    assert_eq!((answer.member_epoch, topics(&answer).len()), (2, 2));
    assert_eq!(
        bench.replayed().patterns.len(),
        1,
        "the old pattern is taken back"
    );
    bench.send(alive("m", -1));
    assert!(bench.replayed().patterns.is_empty());
}

#[test]
fn names_and_a_pattern_add_up() {
    let mut bench = Bench::new();
    let answer = bench.send(ConsumerGroupHeartbeatRequest {
        subscribed_topic_names: Some(vec!["a".to_owned()]),
        ..wanting("m", 0, "b")
    });
    assert_eq!(topics(&answer).len(), 2);
}

#[test]
fn what_is_no_pattern_is_refused_and_changes_nothing() {
    let mut bench = Bench::new();
    let answer = bench.send(wanting("m", 0, "[a"));
    assert_eq!(code(&answer), 128, "INVALID_REGULAR_EXPRESSION");
    let what = "SubscribedTopicRegex `[a` is not a valid regular expression: ";
    assert!(answer.error_message.unwrap().starts_with(what));
    assert!(bench.group.is_vacant() && bench.log.is_empty());
}

#[test]
fn a_new_topic_is_found_but_not_at_once_after_a_look_up() {
    let mut bench = Bench::new();
    bench.send(wanting("m", 0, "c.*|b"));
    bench.make("c", 1);
    bench.now_ms += 10_000;
    assert_eq!(given(&bench.beat("m", 1)), None);
    bench.now_ms += 1;
    let answer = bench.beat("m", 1);
    assert_eq!((answer.member_epoch, topics(&answer).len()), (2, 2));
}

#[test]
fn group_consumer_regex_refresh_interval_ms_says_how_often_patterns_are_looked_up_anyway() {
    let mut bench = Bench::new();
    bench.config.group_consumer_regex_refresh_interval_ms = 20_000;
    bench.send(wanting("m", 0, "b"));
    let looked_up = |bench: &Bench| {
        let is_one = |record: &&Record| matches!(record, Record::Regex(..));
        bench.log.iter().filter(is_one).count()
    };
    bench.now_ms += 20_000;
    bench.beat("m", 1);
    assert_eq!(looked_up(&bench), 1);
    bench.now_ms += 1;
    assert_eq!(bench.beat("m", 1).member_epoch, 1);
    assert_eq!(looked_up(&bench), 2);
}

/// A pattern that takes a minute for 10,000 topics costs the control thread nothing: the heartbeat comes back with what
/// is to be looked up, nothing has changed, and the group's other members are served meanwhile.
#[test]
fn a_pattern_is_looked_up_by_its_own_connection() {
    let mut bench = Bench::new();
    bench.join("other");
    let ask = Ask::ConsumerHeartbeat(wanting("m", 0, "(a?){1000}b"), Found::default());
    let event = Event::Asked(Box::new(ask), asker(1));
    let (told, records) = bench.step(event);
    assert!(matches!(told[..], [Told::LookUp(_)]), "{told:?}");
    assert_eq!((records, bench.describe().members.len()), (0, 1));
    assert_eq!(bench.beat("other", 1).error_code, 0);
}
