//! What DescribeConfigs tells: names, values, and the places that set them.

use super::*;
use crate::config::Dynamic;

fn load(sets: &[(&str, &str)]) -> crate::error::Result<Config> {
    let sets: Vec<_> = sets
        .iter()
        .map(|(n, v)| (n.to_string(), v.to_string()))
        .collect();
    Config::load(None, &sets)
}

fn overrides(pairs: &[(&str, &str)]) -> Overrides {
    pairs
        .iter()
        .map(|(n, v)| (n.to_string(), v.to_string()))
        .collect()
}

fn show(row: &DescribedSetting) -> Vec<String> {
    let all = row.synonyms.iter();
    all.map(|s| format!("{}={} {}", s.name, s.value.as_deref().unwrap(), s.source))
        .collect()
}

/// FACTS: Quix Streams and admin tools read DescribeConfigs; every documented topic key is expected.
#[test]
fn describe_lists_every_topic_key_that_kafka_documents_with_its_default_and_source() {
    let names = [
        "cleanup.policy",
        "compression.gzip.level",
        "compression.lz4.level",
        "compression.type",
        "compression.zstd.level",
        "delete.retention.ms",
        "file.delete.delay.ms",
        "flush.messages",
        "flush.ms",
        "follower.replication.throttled.replicas",
        "index.interval.bytes",
        "leader.replication.throttled.replicas",
        "local.retention.bytes",
        "local.retention.ms",
        "max.compaction.lag.ms",
        "max.message.bytes",
        "message.timestamp.after.max.ms",
        "message.timestamp.before.max.ms",
        "message.timestamp.type",
        "min.cleanable.dirty.ratio",
        "min.compaction.lag.ms",
        "min.insync.replicas",
        "preallocate",
        "remote.log.copy.disable",
        "remote.log.delete.on.disable",
        "remote.storage.enable",
        "retention.bytes",
        "retention.ms",
        "segment.bytes",
        "segment.index.bytes",
        "segment.jitter.ms",
        "segment.ms",
        "unclean.leader.election.enable",
    ];
    let described = describe_topic(&Config::default(), &Overrides::new());
    assert_eq!(described.iter().map(|d| d.name).collect::<Vec<_>>(), names);
    let retention = described.iter().find(|d| d.name == "retention.ms").unwrap();
    assert_eq!(retention.value.as_deref(), Some("604800000"));
    assert_eq!(
        (retention.source, retention.kind, retention.read_only),
        (5, 5, false)
    );
    // As Kafka: only from where the first of the broker-wide names is set.
    assert_eq!(retention.synonyms, []);
    let segment = described
        .iter()
        .find(|d| d.name == "segment.bytes")
        .unwrap();
    assert_eq!(segment.synonyms[0].name, "log.segment.bytes");
    assert!(described.iter().all(|d| d.source == 5 && d.value.is_some()));
}

#[test]
fn describe_names_the_place_that_wins_first() {
    let broker = load(&[("log.roll.hours", "2"), ("preallocate", "x")]);
    assert!(broker.is_err());
    let broker = load(&[("log.roll.hours", "2"), ("log.preallocate", "TRUE")]).unwrap();
    let topic = |own: &[(&str, &str)], name| {
        let mut rows = describe_topic(&broker, &overrides(own)).into_iter();
        rows.find(|row| row.name == name).unwrap()
    };
    let inherited = topic(&[], "segment.ms");
    assert_eq!(
        (inherited.value.as_deref(), inherited.source),
        (Some("7200000"), 5)
    );
    assert_eq!(show(&inherited), [""; 0]);
    let own = topic(&[("segment.ms", "5")], "segment.ms");
    assert_eq!((own.value.as_deref(), own.source), (Some("5"), 1));
    assert_eq!(show(&own), ["segment.ms=5 1"]);
    assert_eq!(topic(&[], "preallocate").value.as_deref(), Some("true"));

    let all = describe_broker(&broker);
    let find = |name| all.iter().find(|row| row.name == name).unwrap();
    assert_eq!(
        (
            find("log.roll.hours").value.as_deref(),
            find("log.roll.hours").source
        ),
        (Some("2"), 4)
    );
    assert_eq!(
        (
            find("log.roll.ms").value.as_deref(),
            find("log.roll.ms").source
        ),
        (None, 5)
    );
    assert_eq!(
        (find("node.id").value.as_deref(), find("node.id").source),
        (Some("1"), 5)
    );
    assert!(find("node.id").read_only && !find("log.roll.ms").read_only);
}

#[test]
fn every_layer_is_told_in_the_order_of_precedence() {
    let dynamic = Dynamic {
        cluster: overrides(&[("message.max.bytes", "2"), ("log.roll.ms", "20")]),
        node: overrides(&[("message.max.bytes", "3")]),
        groups: [(
            "g".into(),
            overrides(&[("consumer.session.timeout.ms", "50000")]),
        )]
        .into(),
    };
    let started = load(&[("message.max.bytes", "1"), ("log.roll.hours", "2")]).unwrap();
    let broker = started.with(dynamic).unwrap();
    let find =
        |rows: Vec<DescribedSetting>, name| rows.into_iter().find(|row| row.name == name).unwrap();
    let below = [
        "message.max.bytes=3 2",
        "message.max.bytes=2 3",
        "message.max.bytes=1 4",
        "message.max.bytes=1048588 5",
    ];
    let row = find(describe_broker(&broker), "message.max.bytes");
    assert_eq!((row.value.as_deref(), row.source), (Some("3"), 2));
    assert_eq!(show(&row), below);
    let own = overrides(&[("max.message.bytes", "4")]);
    let row = find(describe_topic(&broker, &own), "max.message.bytes");
    assert_eq!((row.value.as_deref(), row.source), (Some("4"), 1));
    assert_eq!(show(&row)[1..], below);
    let row = find(describe_topic(&broker, &Overrides::new()), "segment.ms");
    assert_eq!((row.value.as_deref(), row.source), (Some("20"), 3));
    let names = [
        "log.roll.ms=20 3",
        "log.roll.hours=2 4",
        "log.roll.hours=168 5",
    ];
    assert_eq!(show(&row), names);

    let cluster = describe_cluster(&broker);
    assert_eq!(
        cluster.iter().map(|row| row.name).collect::<Vec<_>>(),
        ["log.roll.ms", "message.max.bytes"]
    );
    assert_eq!(show(&cluster[1]), ["message.max.bytes=2 3"]);
    let group = describe_group(&broker, "g");
    assert_eq!(show(&group[0]), ["consumer.heartbeat.interval.ms=5000 5"]);
    assert_eq!(show(&group[1]), ["consumer.session.timeout.ms=50000 8"]);
    assert_eq!(broker.group("g").consumer_session_timeout_ms, 50_000);
    assert_eq!(broker.group("h").consumer_session_timeout_ms, 45_000);
}
