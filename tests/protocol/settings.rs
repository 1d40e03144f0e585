//! Settings changed while the broker runs: what is taken, what is refused, and with which of Kafka's codes.

use crate::common::client::{Client, batch};
use crate::common::{Broker, settings::*};
use crate::start;
use ottla::api::describe_configs::DescribeConfigsResult;
use ottla::api::list_config_resources::{ListConfigResourcesRequest, ListConfigResourcesResponse};
use ottla::error::ErrorCode;

/// A setting's value and source.
fn setting(described: &DescribeConfigsResult, name: &str) -> Option<(String, i8)> {
    let found = described.configs.iter().find(|c| c.name == name)?;
    Some((found.value.clone().unwrap_or_default(), found.config_source))
}

fn told(client: &mut Client, kind: i8, resource: &str, name: &str) -> Option<(String, i8)> {
    setting(&describe(client, kind, resource), name)
}

fn is(value: &str, source: i8) -> Option<(String, i8)> {
    Some((value.into(), source))
}

#[test]
fn a_topics_setting_is_set_taken_back_and_survives_kill_9() {
    let (data, broker, mut client) = start(&[]);
    let c = &mut client;
    c.create("t", &[("segment.bytes", "20000")]);
    altered(
        c,
        TOPIC,
        "t",
        &[set("retention.ms", "5"), set("segment.ms", "6")],
    );
    altered(
        c,
        TOPIC,
        "t",
        &[delete("segment.bytes"), delete("flush.ms")],
    );
    let seen = |c: &mut Client| {
        assert_eq!(told(c, TOPIC, "t", "retention.ms"), is("5", 1));
        assert_eq!(told(c, TOPIC, "t", "segment.ms"), is("6", 1));
        assert_eq!(told(c, TOPIC, "t", "segment.bytes"), is("1073741824", 5));
    };
    seen(c);
    broker.kill();
    let broker = Broker::start(data.path(), &[]);
    seen(&mut Client::connect(&broker.address));
}

#[test]
fn alter_configs_takes_back_what_it_does_not_name() {
    let (_data, _broker, mut client) = start(&[]);
    let c = &mut client;
    c.create("t", &[("segment.bytes", "20000"), ("segment.ms", "6")]);
    for version in 0..=2 {
        let answer = replace(c, version, TOPIC, "t", &[("segment.ms", Some("7"))], false);
        assert_eq!(answer, (0, None));
        assert_eq!(told(c, TOPIC, "t", "segment.ms"), is("7", 1));
        assert_eq!(told(c, TOPIC, "t", "segment.bytes"), is("1073741824", 5));
    }
    let dry = replace(c, 2, TOPIC, "t", &[], true);
    assert_eq!(dry, (0, None));
    assert_eq!(told(c, TOPIC, "t", "segment.ms"), is("7", 1));
    let (code, message) = replace(c, 2, TOPIC, "t", &[("segment.ms", None)], false);
    assert_eq!(code, ErrorCode::InvalidRequest.code());
    assert_eq!(
        message.as_deref(),
        Some("Null value not supported for : segment.ms")
    );
}

/// What librdkafka's and confluent-kafka's own suites set: taken, described, and without effect, as the log says.
#[test]
fn settings_without_effect_are_taken_and_named() {
    let (_data, broker, mut client) = start(&[]);
    let c = &mut client;
    c.create("t", &[("compression.type", "gzip")]);
    broker.expect_log("compression.type was set and has no effect: ");
    let both = [
        append("cleanup.policy", "compact"),
        set("compression.gzip.level", "9"),
    ];
    altered(c, TOPIC, "t", &both);
    broker.expect_log("compression.gzip.level was set and has no effect: ");
    let described = describe(c, TOPIC, "t");
    let own = described.configs.iter().filter(|c| c.config_source == 1);
    let own: Vec<_> = own
        .map(|c| (&*c.name, c.value.as_deref().unwrap()))
        .collect();
    let expected = [
        ("cleanup.policy", "delete,compact"),
        ("compression.gzip.level", "9"),
        ("compression.type", "gzip"),
    ];
    assert_eq!(own, expected);
    for name in [
        "background.threads",
        "sasl.kerberos.min.time.before.relogin",
    ] {
        altered(c, BROKER, "1", &[set(name, "9")]);
        assert_eq!(told(c, BROKER, "1", name), is("9", 2));
    }
    altered(c, BROKER, "1", &[append("log.cleanup.policy", "compact")]);
    assert_eq!(
        told(c, BROKER, "1", "log.cleanup.policy"),
        is("delete,compact", 2)
    );
    altered(c, BROKER, "1", &[subtract("log.cleanup.policy", "compact")]);
    assert_eq!(told(c, BROKER, "1", "log.cleanup.policy"), is("delete", 2));
}

#[test]
fn lists_grow_and_shrink_by_entries() {
    let (_data, _broker, mut client) = start(&[]);
    let c = &mut client;
    c.create("t", &[]);
    let policy = |c: &mut Client, change, now: &str| {
        altered(c, TOPIC, "t", &[change]);
        assert_eq!(told(c, TOPIC, "t", "cleanup.policy"), is(now, 1));
    };
    // The base is the default, as long as nothing is set.
    policy(c, append("cleanup.policy", "compact"), "delete,compact");
    policy(
        c,
        append("cleanup.policy", "compact,delete"),
        "delete,compact",
    );
    policy(c, subtract("cleanup.policy", "delete"), "compact");
    let message = refused(
        c,
        TOPIC,
        "t",
        append("segment.ms", "1"),
        ErrorCode::InvalidConfig,
    );
    assert_eq!(
        message,
        "Can't APPEND to key segment.ms because its type is not LIST."
    );
    refused(
        c,
        TOPIC,
        "t",
        append("cleanup.policy", "erase"),
        ErrorCode::InvalidConfig,
    );
    let message = refused(
        c,
        BROKER,
        "1",
        subtract("message.max.bytes", "1"),
        ErrorCode::InvalidConfig,
    );
    assert_eq!(
        message,
        "Config value subtract is not allowed for config key: message.max.bytes"
    );
}

#[test]
fn a_resource_changes_as_a_whole_or_not_at_all_and_for_itself() {
    let (_data, _broker, mut client) = start(&[]);
    let c = &mut client;
    c.create("t", &[]);
    let both = alter(
        c,
        TOPIC,
        "t",
        &[set("segment.ms", "5"), set("segment.bytes", "x")],
    );
    assert_eq!(both.0, ErrorCode::InvalidConfig.code());
    let twice = alter(
        c,
        TOPIC,
        "t",
        &[set("segment.ms", "5"), set("segment.ms", "6")],
    );
    assert_eq!(
        twice.1.as_deref(),
        Some("Error due to duplicate config keys")
    );
    assert_eq!(told(c, TOPIC, "t", "segment.ms"), is("604800000", 5));

    let change = |name, setting| resource(TOPIC, name, &[setting]);
    let good = set("segment.ms", "7");
    let request = vec![change("none", good), change("t", good)];
    let codes = |answer: Vec<Answer>| answer.iter().map(|a| a.0).collect::<Vec<_>>();
    assert_eq!(codes(alter_all(c, 1, request, false)), [3, 0]);
    assert_eq!(told(c, TOPIC, "t", "segment.ms"), is("7", 1));
    let twice = vec![change("t", good), change("t", set("segment.bytes", "99"))];
    let answer = alter_all(c, 0, twice, false);
    assert_eq!(
        answer[1].1.as_deref(),
        Some("Each resource must appear at most once.")
    );
    assert_eq!(codes(answer), [42, 42]);
    let dry = vec![change("t", set("segment.ms", "8")), change("none", good)];
    assert_eq!(codes(alter_all(c, 1, dry, true)), [0, 3]);
    assert_eq!(told(c, TOPIC, "t", "segment.ms"), is("7", 1));
}

#[test]
fn a_brokers_settings_change_for_all_topics_in_kafkas_order_of_precedence() {
    let (data, broker, mut client) = start(&["message.max.bytes=3000"]);
    let c = &mut client;
    c.create("t", &[]);
    c.create("own", &[("max.message.bytes", "100000")]);
    let big = batch(&[&"x".repeat(2000)]);
    c.store("t", &big);
    altered(c, BROKER, "", &[set("message.max.bytes", "1000")]);
    c.refused("t", &big, ErrorCode::MessageTooLarge);
    c.store("own", &big);
    altered(
        c,
        BROKER,
        "1",
        &[set("message.max.bytes", "5000"), set("num.io.threads", "4")],
    );
    c.store("t", &big);
    let topic = describe(c, TOPIC, "t");
    assert_eq!(setting(&topic, "max.message.bytes"), is("5000", 2));
    let found = topic.configs.iter().find(|s| s.name == "max.message.bytes");
    let places = found.unwrap().synonyms.iter();
    let places: Vec<_> = places
        .map(|s| (s.value.as_deref().unwrap(), s.source))
        .collect();
    assert_eq!(
        places,
        [("5000", 2), ("1000", 3), ("3000", 4), ("1048588", 5)]
    );
    let node = describe(c, BROKER, "1");
    let read_only = |name| {
        node.configs
            .iter()
            .find(|s| s.name == name)
            .unwrap()
            .read_only
    };
    assert!(read_only("node.id") && !read_only("message.max.bytes"));
    assert_eq!(
        setting(&describe(c, BROKER, ""), "message.max.bytes"),
        is("1000", 3)
    );
    assert_eq!(describe(c, BROKER, "").configs.len(), 2);
    broker.stop();

    let broker = Broker::start(data.path(), &["message.max.bytes=3000"]);
    let c = &mut Client::connect(&broker.address);
    c.store("t", &big);
    altered(c, BROKER, "1", &[delete("message.max.bytes")]);
    c.refused("t", &big, ErrorCode::MessageTooLarge);
    altered(c, BROKER, "", &[delete("message.max.bytes")]);
    c.store("t", &big);
    assert_eq!(told(c, TOPIC, "t", "max.message.bytes"), is("3000", 4));
}

/// A new cluster of Kafka 4.1 or later has this from the start, and clients' own tests look for it.
#[test]
fn the_least_in_sync_replicas_are_set_for_all_brokers_alike() {
    let (_data, _broker, mut client) = start(&[]);
    let c = &mut client;
    c.create("t", &[]);
    let name = "min.insync.replicas";
    for (kind, resource) in [(TOPIC, "t"), (BROKER, "1"), (BROKER, "")] {
        assert_eq!(told(c, kind, resource, name), is("1", 3));
    }
    altered(c, BROKER, "", &[set(name, "1")]);
    altered(c, TOPIC, "t", &[set(name, "1")]);
    assert_eq!(told(c, TOPIC, "t", name), is("1", 1));
    let code = ErrorCode::InvalidConfig;
    let dropped = replace(c, 2, BROKER, "", &[("num.io.threads", Some("4"))], false);
    assert_eq!(dropped.0, code.code());
    refused(c, BROKER, "", delete(name), code);
    refused(c, BROKER, "1", set(name, "1"), code);
    assert_eq!(told(c, BROKER, "", name), is("1", 3));
}

#[test]
fn connections_are_limited_anew() {
    let (_data, broker, mut client) = start(&[]);
    altered(
        &mut client,
        BROKER,
        "",
        &[set("max.connections.per.ip", "1")],
    );
    Client::connect(&broker.address).expect_close();
    altered(
        &mut client,
        BROKER,
        "",
        &[
            set("max.connections.per.ip", "2"),
            set("max.connections", "1"),
        ],
    );
    Client::connect(&broker.address).expect_close();
    altered(&mut client, BROKER, "", &[delete("max.connections")]);
    assert_eq!(
        Client::connect(&broker.address)
            .offset("none", -1)
            .error_code,
        3
    );
}

#[test]
fn a_groups_settings_are_kept() {
    let (data, broker, mut client) = start(&[]);
    let c = &mut client;
    let (session, heartbeat) = (
        "consumer.session.timeout.ms",
        "consumer.heartbeat.interval.ms",
    );
    assert_eq!(told(c, GROUP, "g", session), is("45000", 5));
    altered(
        c,
        GROUP,
        "g",
        &[set(session, "50000"), set(heartbeat, "6000")],
    );
    altered(c, GROUP, "g", &[delete(heartbeat)]);
    broker.kill();
    let broker = Broker::start(data.path(), &[]);
    let c = &mut Client::connect(&broker.address);
    assert_eq!(told(c, GROUP, "g", session), is("50000", 8));
    assert_eq!(told(c, GROUP, "g", heartbeat), is("5000", 5));
    let invalid = ErrorCode::InvalidRequest.code();
    assert_eq!(describe(c, GROUP, "").error_code, invalid);
}

#[test]
fn the_brokers_settings_bound_those_of_groups() {
    let (_data, _broker, mut client) = start(&[
        "group.consumer.min.session.timeout.ms=1000",
        "group.consumer.session.timeout.ms=2000",
        "group.consumer.max.session.timeout.ms=3000",
        "group.consumer.min.heartbeat.interval.ms=100",
        "group.consumer.heartbeat.interval.ms=200",
        "group.consumer.max.heartbeat.interval.ms=300",
    ]);
    let c = &mut client;
    for (name, default, bad, good) in [
        (
            "consumer.session.timeout.ms",
            "2000",
            ["999", "3001"],
            ["1000", "3000"],
        ),
        (
            "consumer.heartbeat.interval.ms",
            "200",
            ["99", "301"],
            ["100", "300"],
        ),
    ] {
        assert_eq!(told(c, GROUP, "g", name), is(default, 5));
        for value in bad {
            refused(c, GROUP, "g", set(name, value), ErrorCode::InvalidConfig);
        }
        for value in good {
            altered(c, GROUP, "g", &[set(name, value)]);
        }
        altered(c, GROUP, "g", &[delete(name)]);
    }
}

#[test]
fn loggers_and_client_metrics_are_described_as_none() {
    let (_data, _broker, mut client) = start(&[]);
    let c = &mut client;
    for (kind, name, code) in [
        (LOGGER, "1", ErrorCode::None),
        (LOGGER, "", ErrorCode::InvalidRequest),
        (LOGGER, "2", ErrorCode::InvalidRequest),
        (CLIENT_METRICS, "s", ErrorCode::None),
        (CLIENT_METRICS, "", ErrorCode::InvalidRequest),
    ] {
        let described = describe(c, kind, name);
        assert_eq!(described.error_code, code.code(), "{kind} {name}");
        assert_eq!(described.configs, []);
    }
}

#[test]
fn what_has_settings_is_listed() {
    let (_data, _broker, mut client) = start(&[]);
    let c = &mut client;
    c.create("t", &[]);
    altered(
        c,
        GROUP,
        "g",
        &[set("consumer.session.timeout.ms", "50000")],
    );
    let mut list = |version, resource_types: &[i8]| {
        let request = ListConfigResourcesRequest {
            resource_types: resource_types.into(),
        };
        let answer: ListConfigResourcesResponse = c.call(version, &request);
        let resources = answer.config_resources.into_iter();
        let mut resources: Vec<_> = resources
            .map(|r| (r.resource_type, r.resource_name))
            .collect();
        resources.sort();
        (answer.error_code, resources)
    };
    let named = |kind, name: &str| (kind, String::from(name));
    let all = [
        named(TOPIC, "t"),
        named(BROKER, "1"),
        named(LOGGER, "1"),
        named(GROUP, "g"),
    ];
    assert_eq!(list(1, &[]), (0, all.to_vec()));
    assert_eq!(
        list(1, &[GROUP, TOPIC]),
        (0, vec![all[0].clone(), all[3].clone()])
    );
    assert_eq!(list(1, &[CLIENT_METRICS]), (0, vec![]));
    assert_eq!(list(0, &[]), (0, vec![]));
    assert_eq!(list(1, &[TOPIC, 3]).0, ErrorCode::UnsupportedVersion.code());
}
