//! Changes of settings that cannot be, each with Kafka's code and message.

use crate::common::settings::*;
use crate::start;
use ottla::error::ErrorCode;

/// What sets a setting, but to nothing.
fn unset(name: &str) -> Change<'_> {
    Change(name, 0, None)
}

#[test]
fn a_topics_change_that_cannot_be_is_refused_with_kafkas_code() {
    use ErrorCode::*;
    let (_data, _broker, mut client) = start(&[]);
    let c = &mut client;
    c.create("t", &[]);
    let good = set("segment.ms", "1");
    let mut no = |name, change, code, message: &str| {
        let said = refused(c, TOPIC, name, change, code);
        assert!(said.contains(message), "{said:?} is not {message:?}");
    };
    no(
        "none",
        good,
        UnknownTopicOrPartition,
        "The topic 'none' does not exist.",
    );
    no(
        "",
        good,
        InvalidRequest,
        "Default topic resources are not allowed.",
    );
    no("a/b", good, InvalidTopicException, "Topic name is invalid");
    // What is asked for is looked at before the topic is.
    let unknown = set("no.such", "1");
    no(
        "none",
        unknown,
        InvalidConfig,
        "Unknown topic config name: no.such",
    );
    let no_number = set("segment.ms", "soon");
    no(
        "t",
        no_number,
        InvalidConfig,
        "Invalid value soon for configuration segment.ms",
    );
    no(
        "t",
        set("min.insync.replicas", "2"),
        InvalidConfig,
        "one replica",
    );
    no("t", set("retention.ms", ""), InvalidConfig, "Invalid value");
    no(
        "t",
        unset("segment.ms"),
        InvalidRequest,
        "Null value not supported for : segment.ms",
    );
    no(
        "t",
        Change("segment.ms", 9, Some("1")),
        InvalidRequest,
        "Unknown operations type 9",
    );
    altered(c, TOPIC, "t", &[set("min.compaction.lag.ms", "6")]);
    let less = set("max.compaction.lag.ms", "5");
    assert!(refused(c, TOPIC, "t", less, InvalidConfig).contains("is more than"));
}

#[test]
fn a_brokers_change_that_cannot_be_is_refused_with_kafkas_code() {
    use ErrorCode::*;
    let (_data, _broker, mut client) = start(&[]);
    let c = &mut client;
    let good = set("message.max.bytes", "1000");
    let mut no = |name, change, message: &str| {
        let said = refused(c, BROKER, name, change, InvalidRequest);
        assert!(said.contains(message), "{said:?} is not {message:?}");
    };
    no(
        "2",
        good,
        "Unexpected broker id, expected 1, but received 2",
    );
    no("x", good, "Node id must be an integer, but it is: x");
    let fixed = "Cannot update these configs dynamically: Set";
    no("1", set("node.id", "2"), &format!("{fixed}(node.id)"));
    no(
        "",
        set("log.roll.hours", "2"),
        &format!("{fixed}(log.roll.hours)"),
    );
    let bad = set("message.max.bytes", "x");
    no(
        "",
        bad,
        "Invalid value x for configuration message.max.bytes",
    );
    no("", set("no.such", "1"), "unknown setting");
    no(
        "1",
        set("log.cleaner.min.compaction.lag.ms", "-1"),
        "Invalid value",
    );
    altered(
        c,
        BROKER,
        "",
        &[set("log.cleaner.min.compaction.lag.ms", "6")],
    );
    let less = set("log.cleaner.max.compaction.lag.ms", "5");
    assert!(refused(c, BROKER, "1", less, InvalidRequest).contains("is more than"));
}

#[test]
fn a_change_of_anything_else_is_refused_with_kafkas_code() {
    use ErrorCode::*;
    let (_data, _broker, mut client) = start(&[]);
    let c = &mut client;
    let mut no = |kind, name, setting, code, message: &str| {
        let said = refused(c, kind, name, set(setting, "1"), code);
        assert!(said.contains(message), "{said:?} is not {message:?}");
    };
    let session = "consumer.session.timeout.ms";
    no(
        GROUP,
        "",
        session,
        InvalidRequest,
        "Default group resources are not allowed.",
    );
    no(
        GROUP,
        "g",
        session,
        InvalidConfig,
        "group.consumer.min.session.timeout.ms",
    );
    no(
        GROUP,
        "g",
        "share.session.timeout.ms",
        InvalidConfig,
        "not served",
    );
    no(
        GROUP,
        "g",
        "no.such",
        InvalidConfig,
        "Unknown group config name: no.such",
    );
    no(
        LOGGER,
        "1",
        "root",
        InvalidConfig,
        "Logger root does not exist!",
    );
    no(LOGGER, "2", "root", InvalidRequest, "Unexpected broker id");
    let empty = "Subscription name can't be empty";
    no(CLIENT_METRICS, "", "interval.ms", InvalidRequest, empty);
    no(
        CLIENT_METRICS,
        "s",
        "interval.ms",
        InvalidRequest,
        "not collected",
    );
    no(
        1,
        "t",
        "segment.ms",
        InvalidRequest,
        "Unknown resource type 1",
    );
    let (code, _) = replace(c, 2, LOGGER, "1", &[], false);
    assert_eq!(code, InvalidRequest.code(), "AlterConfigs knows no loggers");
}
