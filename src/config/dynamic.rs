//! Settings that are changed while the broker runs (KIP-226): which those are, and what wins over what.
//!
//! ```text
//! a topic's own > this broker's > the cluster's > server.properties and arguments > default
//! ```
//! Invariant: of the names that set one value (`log.roll.ms`, `log.roll.hours`) a higher layer's wins over all of a
//! lower layer's, whichever name comes first within a layer.

use super::table::{TOPIC, TOPIC_UNREAD};
use super::{Config, Overrides, Synonym, broker_rows, unknown};
use crate::error::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};

/// What Kafka too lets change (`DynamicBrokerConfig`), besides the first broker-wide name of each topic's setting.
const DYNAMIC: &[&str] = &[
    "background.threads",
    "log.cleaner.backoff.ms",
    "log.cleaner.dedupe.buffer.size",
    "log.cleaner.io.buffer.load.factor",
    "log.cleaner.io.buffer.size",
    "log.cleaner.io.max.bytes.per.second",
    "log.cleaner.threads",
    "max.connection.creation.rate",
    "max.connections",
    "max.connections.per.ip",
    "max.connections.per.ip.overrides",
    "num.io.threads",
    "num.network.threads",
    "num.recovery.threads.per.data.dir",
    "producer.id.expiration.ms",
    "sasl.kerberos.min.time.before.relogin",
];

/// What was set while a broker ran, over what it was started with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dynamic {
    /// For all brokers.
    pub cluster: Overrides,
    /// For this broker.
    pub node: Overrides,
    /// For consumer groups, by group id.
    pub groups: BTreeMap<String, Overrides>,
}

impl Dynamic {
    /// The broker-wide layers above `started_with` and that one as one.
    pub(super) fn over(&self, started_with: &Overrides) -> Overrides {
        let mut given = started_with.clone();
        for (name, value) in self.cluster.iter().chain(&self.node) {
            for same in siblings(name) {
                given.remove(same.name);
            }
            given.insert(name.clone(), value.trim().to_owned());
        }
        given
    }
}

impl Config {
    /// As [`Config::with`], setting by setting, for what an earlier version took and this one does not, or what only
    /// together makes no sense: the settings that can be in force, and why the others are not.
    pub fn with_what_fits(&self, dynamic: Dynamic) -> (Config, Vec<Error>) {
        let mut faults = Vec::new();
        let groups = Dynamic {
            groups: dynamic.groups,
            ..Dynamic::default()
        };
        let (mut kept, mut config) = match self.with(groups.clone()) {
            Ok(config) => (groups, config),
            Err(error) => {
                faults.push(error);
                (Dynamic::default(), self.clone())
            }
        };
        let cluster = dynamic.cluster.into_iter().map(|setting| (false, setting));
        let node = dynamic.node.into_iter().map(|setting| (true, setting));
        for (of_node, (name, value)) in cluster.chain(node) {
            let mut more = kept.clone();
            let layer = if of_node {
                &mut more.node
            } else {
                &mut more.cluster
            };
            layer.insert(name, value);
            match self.with(more.clone()) {
                Ok(with_it) => (kept, config) = (more, with_it),
                Err(error) => faults.push(error),
            }
        }
        (config, faults)
    }
}

/// The broker-wide names of the topic's setting that `name` is one of; none if it is of the broker alone.
pub(super) fn siblings(name: &str) -> &'static [Synonym] {
    let mut rows = TOPIC.iter().chain(TOPIC_UNREAD);
    let row = rows.find(|row| row.synonyms.iter().any(|synonym| synonym.name == name));
    row.map_or(&[], |row| row.synonyms)
}

/// Whether a broker's setting can be changed while it runs.
pub(super) fn is_dynamic(name: &str) -> bool {
    DYNAMIC.contains(&name)
        || siblings(name)
            .first()
            .is_some_and(|first| first.name == name)
}

/// Whether these can be a broker's settings that were set while it ran.
pub fn check_dynamic(settings: &Overrides) -> Result<()> {
    let rows = broker_rows();
    let mut fixed = BTreeSet::new();
    for (name, value) in settings {
        let Some(row) = rows.iter().find(|row| row.name == name) else {
            return Err(unknown(&rows, name));
        };
        if !is_dynamic(name) {
            fixed.insert(row.name);
            continue;
        }
        row.check_for_client(value)?;
    }
    if fixed.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = fixed.into_iter().collect();
    Err(Error::new(format!(
        "Cannot update these configs dynamically: Set({})",
        names.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn settings(pairs: &[(&str, &str)]) -> Overrides {
        let own = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
        pairs.iter().map(own).collect()
    }

    #[test]
    fn what_can_change_is_what_kafka_lets_change() {
        for name in [
            "log.segment.bytes",
            "log.roll.ms",
            "log.flush.interval.ms",
            "message.max.bytes",
            "log.cleaner.min.cleanable.ratio",
            "compression.type",
            "max.connections",
        ] {
            assert!(is_dynamic(name), "{name}");
        }
        for name in [
            "node.id",
            "listeners",
            "log.roll.hours",
            "log.flush.scheduler.interval.ms",
            "num.partitions",
            "auto.create.topics.enable",
            "offsets.topic.num.partitions",
        ] {
            assert!(!is_dynamic(name), "{name}");
        }
    }

    #[test]
    fn a_higher_layer_wins_under_whichever_name() {
        let started = settings(&[("log.roll.ms", "1"), ("log.retention.minutes", "2")]);
        let dynamic = Dynamic {
            cluster: settings(&[("log.roll.hours", "3"), ("message.max.bytes", "4")]),
            node: settings(&[("message.max.bytes", " 5 ")]),
            ..Dynamic::default()
        };
        let given = settings(&[
            ("log.retention.minutes", "2"),
            ("log.roll.hours", "3"),
            ("message.max.bytes", "5"),
        ]);
        assert_eq!(dynamic.over(&started), given);

        let changed = Config::default().with(dynamic).unwrap();
        assert_eq!(changed.topic_defaults().max_message_bytes, 5);
        assert_eq!(changed.topic_defaults().segment_ms, 3 * 3_600_000);
        assert_eq!(changed.with(Dynamic::default()).unwrap(), Config::default());
    }

    #[test]
    fn what_cannot_change_is_refused_by_name() {
        let refused = |pairs| check_dynamic(&settings(pairs)).unwrap_err().to_string();
        assert_eq!(
            refused(&[
                ("node.id", "2"),
                ("listeners", ":1"),
                ("max.connections", "5")
            ]),
            "Cannot update these configs dynamically: Set(listeners, node.id)"
        );
        assert_eq!(
            refused(&[("max.connections", "0")]),
            "Invalid value 0 for configuration max.connections: expected a 32-bit integer of at least 1"
        );
        assert!(refused(&[("max.connection", "1")]).contains("nearest known one"));
        assert!(refused(&[("retention.ms", "1")]).contains("log.retention.ms"));
    }
}
