//! The settings as a user meets them: defaults, precedence, refusals, descriptions.

use super::*;

fn load(sets: &[(&str, &str)]) -> Result<Config> {
    let sets: Vec<_> = sets
        .iter()
        .map(|(n, v)| (n.to_string(), v.to_string()))
        .collect();
    Config::load(None, &sets)
}

#[track_caller]
fn refusal(sets: &[(&str, &str)]) -> String {
    let message = load(sets).expect_err("a refusal").to_string();
    assert!(!message.contains('\n'), "more than one line: {message}");
    message
}

fn overrides(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(n, v)| (n.to_string(), v.to_string()))
        .collect()
}

fn from_file(text: &str, sets: &[(String, String)]) -> (Result<Config>, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("server.properties");
    std::fs::write(&path, text).unwrap();
    (Config::load(Some(&path), sets), path.display().to_string())
}

/// What Kafka's `config/kraft/server.properties` sets, without its comments.
const STOCK: &str = r"
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@localhost:9093
listeners=PLAINTEXT://:9092,CONTROLLER://:9093
inter.broker.listener.name=PLAINTEXT
advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL
num.network.threads=3
num.io.threads=8
socket.send.buffer.bytes=102400
socket.receive.buffer.bytes=102400
socket.request.max.bytes=104857600
log.dirs=/tmp/kraft-combined-logs
num.partitions=1
num.recovery.threads.per.data.dir=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
log.retention.hours=168
log.segment.bytes=1073741824
log.retention.check.interval.ms=300000
";

#[test]
fn the_stock_file_is_accepted_and_nothing_in_it_is_silently_ignored() {
    let (config, _) = from_file(STOCK, &[]);
    let config = config.unwrap();
    assert_eq!(
        config.listeners.len(),
        1,
        "the controller's listener is not opened"
    );
    assert_eq!(config.listeners[0].to_string(), "0.0.0.0:9092");
    assert_eq!(
        config.advertised("PLAINTEXT").unwrap().to_string(),
        "localhost:9092"
    );
    assert_eq!(config.data_dir, Path::new("/tmp/kraft-combined-logs"));
    assert_eq!(config.recovery_threads, 1);
    let notices = config.notices();
    for name in [
        "num.io.threads",
        "num.network.threads",
        "inter.broker.listener.name",
    ] {
        let said = notices
            .iter()
            .any(|n| n.starts_with(&format!("{name} has no effect: ")));
        assert!(said, "{name} in {notices:?}");
    }
}

#[test]
fn defaults_are_kafkas_but_where_the_design_says_otherwise() {
    let config = Config::default();
    assert_eq!(config.notices(), [""; 0]);
    assert_eq!(config.listeners[0].to_string(), "127.0.0.1:9092");
    assert_eq!(config.advertised("PLAINTEXT"), None);
    assert!(config.auto_create_topics_enable && config.delete_topic_enable);
    assert_eq!((config.node_id, config.num_partitions), (1, 1));
    assert_eq!(
        (config.request_bytes_max, config.fetch_bytes_max),
        (104_857_600, 57_671_680)
    );
    assert_eq!(
        (config.connections_idle_ms_max, config.recovery_threads),
        (600_000, 2)
    );
    let topic = config.topic_defaults();
    assert_eq!(
        (topic.segment_bytes, topic.index_bytes_max),
        (1 << 30, 10 << 20)
    );
    assert_eq!(
        (topic.segment_ms, topic.retention_ms),
        (604_800_000, 604_800_000)
    );
    assert_eq!(
        (topic.max_message_bytes, topic.index_interval_bytes),
        (1_048_588, 4096)
    );
    assert_eq!((topic.flush_messages, topic.flush_ms), (1, i64::MAX));
    assert_eq!(
        (topic.timestamp_before_max_ms, topic.timestamp_after_max_ms),
        (i64::MAX, 3_600_000)
    );
    assert_eq!(topic.timestamp_type, TimestampType::CreateTime);
    assert_eq!(
        topic.cleanup_policy,
        CleanupPolicy {
            compact: false,
            delete: true
        }
    );
    assert_eq!(
        (topic.retention_bytes, topic.delete_retention_ms),
        (-1, 86_400_000)
    );
    assert!(topic.syncs_every_turn() && !topic.preallocate);
}

#[test]
fn each_default_passes_its_own_limits_and_each_name_occurs_once() {
    for rows in [broker_rows(), topic_rows()] {
        for row in &rows {
            let ok = row.default.is_none_or(|default| row.check(default).is_ok());
            assert!(ok, "{} = {:?}", row.name, row.default);
            assert!(
                row.meaning.ends_with('.') && !row.meaning.contains('|'),
                "{}",
                row.name
            );
        }
        for pair in rows.windows(2) {
            assert_ne!(pair[0].name, pair[1].name);
        }
    }
    // A synonym's default is the topic's, or who describes the two tells two stories.
    for row in topic_rows().iter().filter(|row| !row.synonyms.is_empty()) {
        let synonym = row.synonyms.last().unwrap();
        let converted = synonym.default.map(|default| synonym.converted(default));
        assert_eq!(converted.as_deref(), row.default, "{}", row.name);
    }
}

#[test]
fn sets_win_over_the_file_and_later_ones_over_earlier_ones() {
    let sets = ["2", "3"].map(|n| ("num.partitions".to_owned(), n.to_owned()));
    let (config, _) = from_file("num.partitions=9\nnum.partitions=8", &sets);
    assert_eq!(config.unwrap().num_partitions, 3);
    let (config, _) = from_file("num.partitions=9\nnum.partitions = 8\n", &[]);
    assert_eq!(config.unwrap().num_partitions, 8);
}

#[test]
fn an_unknown_setting_is_refused_with_the_nearest_known_one() {
    assert_eq!(
        refusal(&[("num.partition", "1")]),
        r#"unknown setting "num.partition"; the nearest known one is "num.partitions""#
    );
    assert_eq!(
        refusal(&[("log.segment.byte", "1")]),
        r#"unknown setting "log.segment.byte"; the nearest known one is "log.segment.bytes""#
    );
    assert_eq!(
        refusal(&[("retention.ms", "1")]),
        r#""retention.ms" is a setting of topics; for all topics set "log.retention.ms""#
    );
    assert!(refusal(&[("zookeeper.connect", "localhost:2181")]).contains("there is no ZooKeeper"));
    assert!(refusal(&[("ssl.keystore.location", "/k")]).contains("TLS proxy"));
    assert!(refusal(&[(&"x\n".repeat(5000), "1")]).len() < 400);
}

#[test]
fn a_value_that_is_none_is_refused_with_what_is_expected() {
    let cases = [
        (
            "num.partitions",
            "0",
            "expected a 32-bit integer of at least 1",
        ),
        (
            "num.partitions",
            "many",
            "expected a 32-bit integer of at least 1",
        ),
        (
            "message.max.bytes",
            "3000000000",
            "expected a 32-bit integer of at least 0",
        ),
        ("auto.create.topics.enable", "yes", "expected true or false"),
        (
            "log.cleanup.policy",
            "erase",
            "expected a comma-separated list of compact, delete",
        ),
        (
            "log.cleaner.min.cleanable.ratio",
            "2",
            "expected a number from 0 to 1",
        ),
        (
            "log.message.timestamp.type",
            "Now",
            "expected CreateTime or LogAppendTime",
        ),
        ("log.dirs", "/a,/b", "expected exactly one entry"),
        (
            "listeners",
            "9092",
            "expected a comma-separated list of HOST:PORT or NAME://HOST:PORT",
        ),
        (
            "default.replication.factor",
            "3",
            "expected 1, since there is one node and so one replica",
        ),
        (
            "min.insync.replicas",
            "2",
            "expected 1, since there is one node and so one replica",
        ),
    ];
    for (name, value, expected) in cases {
        assert_eq!(
            refusal(&[(name, value)]),
            format!("{name}={value:?}: {expected}")
        );
    }
}

#[test]
fn a_refusal_in_a_file_names_the_file_and_the_line() {
    let (refused, path) = from_file("# head\n\nnode.id=one\n", &[]);
    assert_eq!(
        refused.unwrap_err().to_string(),
        format!(r#"{path}: line 3: node.id="one": expected a 32-bit integer of at least 0"#)
    );
    let (refused, path) = from_file("a=\\u12", &[]);
    assert_eq!(
        refused.unwrap_err().to_string(),
        format!(r"{path}: line 1: \u12 is not \u and four hex digits")
    );
    let missing = Config::load(Some(Path::new("/nowhere/x")), &[]).unwrap_err();
    assert!(missing.to_string().starts_with("cannot read /nowhere/x: "));
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    assert_eq!(load(&[("broker.id", "7")]).unwrap().node_id, 7);
    assert!(refusal(&[("broker.id", "7"), ("node.id", "8")]).contains("remove broker.id"));
    let window = [
        ("decompression.window.max", "1000000"),
        ("decompression.memory.max", "999999"),
    ];
    assert!(refusal(&window).contains("more than decompression.memory.max"));
    let lags = [
        ("log.cleaner.min.compaction.lag.ms", "2"),
        ("log.cleaner.max.compaction.lag.ms", "1"),
    ];
    assert!(refusal(&lags).contains("more than max.compaction.lag.ms"));
}

#[test]
fn listeners_are_plaintext_named_once_and_told_by_an_address_of_use() {
    assert!(refusal(&[("listeners", "SSL://:9093")]).contains("only PLAINTEXT is spoken"));
    assert!(refusal(&[("listeners", "h:1,PLAINTEXT://:2")]).contains("PLAINTEXT occurs twice"));
    assert!(refusal(&[("listeners", "")]).contains("none is left"));
    assert!(
        refusal(&[("advertised.listeners", "PLAINTEXT://0.0.0.0:9092")]).contains("cannot connect")
    );
    assert!(refusal(&[("advertised.listeners", "OUT://h:9092")]).contains("none of the listeners"));
    let mapped = load(&[
        ("listeners", "IN://127.0.0.1:1,OUT://[::]:2"),
        (
            "listener.security.protocol.map",
            "IN:PLAINTEXT, OUT:PLAINTEXT",
        ),
        ("advertised.listeners", "OUT://box.example:9094"),
    ]);
    let mapped = mapped.unwrap();
    assert_eq!(mapped.listeners.len(), 2);
    assert_eq!(mapped.advertised("IN"), None);
    assert_eq!(
        mapped.advertised("OUT").unwrap().to_string(),
        "box.example:9094"
    );
}

#[test]
fn a_topics_own_setting_wins_over_the_brokers_and_the_first_synonym_over_the_next() {
    let broker = load(&[
        ("log.roll.hours", "2"),
        ("log.retention.minutes", "3"),
        ("log.retention.hours", "9"),
    ]);
    let mut broker = broker.unwrap();
    assert_eq!(broker.topic_defaults().segment_ms, 7_200_000);
    assert_eq!(broker.topic_defaults().retention_ms, 180_000);
    let own = TopicConfig::new(&broker, &overrides(&[("segment.ms", " 5 ")])).unwrap();
    assert_eq!((own.segment_ms, own.retention_ms), (5, 180_000));
    broker = load(&[("log.roll.hours", "2"), ("log.roll.ms", "77")]).unwrap();
    assert_eq!(broker.topic_defaults().segment_ms, 77);
    broker = load(&[
        ("log.retention.hours", "-1"),
        ("log.roll.hours", "2147483647"),
    ])
    .unwrap();
    assert_eq!(broker.topic_defaults().retention_ms, -1);
    assert_eq!(
        broker.topic_defaults().segment_ms,
        2_147_483_647 * 3_600_000
    );
    broker = load(&[("log.flush.interval.messages", "100")]).unwrap();
    assert!(broker.notices()[0].contains("a power cut can take"));
    let own = TopicConfig::new(&broker, &overrides(&[("flush.messages", "1")])).unwrap();
    assert!(own.syncs_every_turn() && !broker.topic_defaults().syncs_every_turn());
}

#[test]
fn a_topics_settings_are_refused_as_the_brokers_are() {
    let refused = |pairs| {
        TopicConfig::new(&Config::default(), &overrides(pairs))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refused(&[("segment.byte", "1")]),
        "Unknown topic config name: segment.byte"
    );
    assert_eq!(
        refused(&[("segment.bytes", "13")]),
        "Invalid value 13 for configuration segment.bytes: expected a 32-bit integer of at least 14"
    );
    assert!(refused(&[("min.insync.replicas", "2")]).contains("one replica"));
    assert!(
        refused(&[
            ("max.compaction.lag.ms", "1"),
            ("min.compaction.lag.ms", "2")
        ])
        .contains("more than")
    );
    let all_kept = TopicConfig::new(&Config::default(), &overrides(&[("cleanup.policy", "")]));
    assert_eq!(
        all_kept.unwrap().cleanup_policy,
        CleanupPolicy {
            compact: false,
            delete: false
        }
    );
}

/// Whether a test of this name is in a file below `dir`.
fn is_tested(dir: &Path, test: &str) -> bool {
    std::fs::read_dir(dir).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        let holds = |path: &Path| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            text.contains(&format!("#[test]\nfn {test}("))
                || text.contains(&format!("#[test]\n    fn {test}("))
        };
        if path.is_dir() {
            is_tested(&path, test)
        } else {
            holds(&path)
        }
    })
}

/// One that an earlier version took must not cost the others at a start.
#[test]
fn a_changed_setting_that_cannot_be_costs_no_other() {
    let set = |pairs: &[(&str, &str)]| -> Overrides {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect()
    };
    let dynamic = Dynamic {
        cluster: set(&[("message.max.bytes", "2000"), ("no.such", "1")]),
        node: set(&[("max.connections", "none"), ("log.segment.bytes", "5000")]),
        ..Dynamic::default()
    };
    let config = Config::default();
    assert!(config.with(dynamic.clone()).is_err());
    let (config, faults) = config.with_what_fits(dynamic);
    assert_eq!(config.topic_defaults().max_message_bytes, 2000);
    assert_eq!(config.topic_defaults().segment_bytes, 5000);
    assert_eq!(config.connections_max, Config::default().connections_max);
    assert!(!faults.is_empty());
}

/// In force, and without a test of the whole broker that could be named.
const UNPROVEN: &[&str] = &[
    // How many threads a start reads logs with shows in nothing but its time.
    "num.recovery.threads.per.data.dir",
];

/// "In force" means that a test changes the setting and sees the effect; the table names it.
#[test]
fn each_setting_in_force_names_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for row in topic_rows().iter().chain(GROUP).chain(&broker_rows()) {
        let Fate::InForce(test) = row.fate else {
            continue;
        };
        let is_unproven = UNPROVEN.contains(&row.name);
        assert_eq!(test.is_empty(), is_unproven, "{}", row.name);
        if !is_unproven {
            let found = ["src", "tests"]
                .iter()
                .any(|dir| is_tested(&root.join(dir), test));
            assert!(found, "{}: no test {test:?}", row.name);
        }
    }
}

#[test]
fn readme_has_the_table_as_it_is_generated() {
    let readme = include_str!("../../README.md");
    let between = readme
        .split_once("<!-- settings: made by `ottla settings` -->\n")
        .and_then(|(_, rest)| rest.split_once("<!-- end of settings -->"));
    let (table, _) = between.expect("README.md has the two marker comments");
    assert!(
        table == markdown(),
        "README.md's table of settings is old: put the output of `ottla settings` there"
    );
}
