//! Settings: Kafka's names, one table ([`table`]), and what is made of it.
//!
//! Owns: the rows, what was given in `server.properties` and by `--set`, and the typed values in force. The same
//! rows serve `ottla serve --help`, DescribeConfigs ([`describe`]) and the README's table.
//!
//! Invariants: 1. every setting that is accepted is in force, has the one meaning that it can have on one node,
//! or is named as without effect, at start-up ([`Config::notices`]) or when it is set; none is silently ignored.
//! 2. A [`Config`] or [`TopicConfig`] that exists was checked as a whole. 3. Every refusal is one line that names
//! the setting.

mod describe;
mod dynamic;
mod groups;
mod properties;
mod table;
mod value;

pub use describe::{
    DescribedSetting, DescribedSynonym, describe_broker, describe_cluster, describe_group,
    describe_topic, help, markdown,
};
pub use dynamic::{Dynamic, check_dynamic};
pub use groups::GroupConfig;
pub use table::{Config, TopicConfig};
pub use value::{CleanupPolicy, Endpoint, Kind, Limits, TimestampType, Typed};

use crate::error::{Context, Error, Result};
use crate::lock;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use table::{BROKER, BROKER_UNREAD, GROUP, REFUSED, TOPIC, TOPIC_UNREAD};

/// The setting that a new cluster has for all brokers alike, as Kafka's does since eligible leader replicas (KIP-966).
pub const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";

/// What was set of one resource, by name.
pub type Overrides = BTreeMap<String, String>;

/// The settings that are now in force.
pub type Published = lock::Published<Config>;

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    name: &'static str,
    kind: Kind,
    /// `None`: not set unless given.
    default: Option<&'static str>,
    limits: Limits,
    fate: Fate,
    /// Other names in the broker's file that set it; the first that is given wins.
    synonyms: &'static [Synonym],
    /// The row that this one is a synonym of, and how many of its units one of this one's is.
    sets: Option<(&'static str, i64)>,
    meaning: &'static str,
}

/// What becomes of a setting that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The broker does what it says; this test changes it and sees the effect.
    InForce(&'static str),
    /// Its limits leave the one meaning that it can have here, for this reason.
    Fixed(&'static str),
    /// Checked, stored and described, but nothing depends on it, for this reason.
    NoEffect(&'static str),
}

/// A broker-wide name that sets a row's value.
#[derive(Clone, Copy, Debug)]
struct Synonym {
    name: &'static str,
    /// How many of the row's units one of the synonym's is: hours to milliseconds.
    unit: i64,
    default: Option<&'static str>,
}

impl Setting {
    /// The row of one of this row's synonyms.
    fn named(&self, synonym: &Synonym) -> Setting {
        Setting {
            name: synonym.name,
            // Kafka's hours and minutes are INT where the milliseconds are LONG.
            kind: if synonym.unit == 1 {
                self.kind
            } else {
                Kind::Int
            },
            default: synonym.default,
            synonyms: &[],
            sets: Some((self.name, synonym.unit)),
            ..*self
        }
    }

    /// Whether `text` is a value for this setting.
    fn check(&self, text: &str) -> Result<()> {
        match self.limits.admit(self.kind, text) {
            true => Ok(()),
            false => Err(self.refusal(text)),
        }
    }

    fn refusal(&self, text: &str) -> Error {
        let (name, text, expected) = (self.name, shortened(text), self.expected());
        Error::new(format!("{name}={text:?}: expected {expected}"))
    }

    /// As [`Setting::check`]; the refusal begins as Kafka's, for clients that look. What comes from a client is kept
    /// for good, so it must not be large.
    fn check_for_client(&self, text: &str) -> Result<()> {
        if text.len() <= VALUE_BYTES_MAX && self.limits.admit(self.kind, text.trim()) {
            return Ok(());
        }
        let (name, text, expected) = (self.name, shortened(text), self.expected());
        Err(Error::new(format!(
            "Invalid value {text} for configuration {name}: expected {expected}"
        )))
    }

    fn expected(&self) -> String {
        let expected = self.limits.expected(self.kind);
        match self.fate {
            Fate::Fixed(reason) => format!("{expected}, since {reason}"),
            _ => expected,
        }
    }

    /// Why nothing depends on it, if so.
    pub fn without_effect(&self) -> Option<&'static str> {
        match self.fate {
            Fate::NoEffect(reason) => Some(reason),
            _ => None,
        }
    }

    /// The test that changes it and sees the effect, if it is in force and one is known.
    fn test(&self) -> &'static str {
        match self.fate {
            Fate::InForce(test) => test,
            _ => "",
        }
    }

    /// What a list holds by default; `None` for a setting that is no list.
    pub fn list_default(&self) -> Option<&'static str> {
        (self.kind == Kind::List).then_some(self.default.unwrap_or_default())
    }
}

/// The row of a topic's setting.
pub fn topic_setting(name: &str) -> Option<Setting> {
    topic_rows().into_iter().find(|row| row.name == name)
}

/// The row of a broker's setting.
pub fn broker_setting(name: &str) -> Option<Setting> {
    broker_rows().into_iter().find(|row| row.name == name)
}

/// Where a row's value is looked for: a topic's own settings, then what the broker was given, then the default.
struct Lookup<'a> {
    own: &'a BTreeMap<String, String>,
    given: &'a BTreeMap<String, String>,
}

impl Lookup<'_> {
    fn read<T: Typed>(&self, row: &Setting) -> Result<T> {
        let text = self.text(row).unwrap_or(Cow::Borrowed(""));
        T::read(&text).ok_or_else(|| row.refusal(&text))
    }

    fn text(&self, row: &Setting) -> Option<Cow<'_, str>> {
        if let Some(own) = self.own.get(row.name) {
            return Some(Cow::Borrowed(own.trim()));
        }
        for synonym in row.synonyms {
            if let Some(text) = self.given.get(synonym.name) {
                return Some(synonym.converted(text));
            }
        }
        row.default.map(Cow::Borrowed)
    }
}

impl Synonym {
    /// The value in the row's unit. A negative number means "no limit" in every unit.
    fn converted<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match text.parse::<i64>() {
            Ok(n) if self.unit != 1 && n > 0 => Cow::Owned(n.saturating_mul(self.unit).to_string()),
            _ => Cow::Borrowed(text),
        }
    }
}

/// Every setting that may stand in the broker's file, synonyms included, sorted by name.
fn broker_rows() -> Vec<Setting> {
    let own = BROKER.iter().chain(BROKER_UNREAD).copied();
    let synonyms = BROKER
        .iter()
        .chain(TOPIC)
        .chain(TOPIC_UNREAD)
        .flat_map(|row| row.synonyms.iter().map(|synonym| row.named(synonym)));
    let mut rows: Vec<Setting> = own.chain(synonyms).collect();
    rows.sort_by_key(|row| row.name);
    rows
}

/// Every setting of a topic, sorted by name.
fn topic_rows() -> Vec<Setting> {
    let mut rows: Vec<Setting> = TOPIC.iter().chain(TOPIC_UNREAD).copied().collect();
    rows.sort_by_key(|row| row.name);
    rows
}

impl Config {
    /// Reads the settings of `file`, then of `sets`, which win over it and over each other in their order.
    ///
    /// The error is one line: it names the file and line where there is one, the setting, and the fix.
    pub fn load(file: Option<&Path>, sets: &[(String, String)]) -> Result<Config> {
        let rows = broker_rows();
        let mut given = BTreeMap::new();
        if let Some(file) = file {
            let bytes =
                std::fs::read(file).context(|| format!("cannot read {}", file.display()))?;
            let text = String::from_utf8(bytes)
                .map_err(|_| Error::new(format!("{}: not UTF-8 text", file.display())))?;
            let at = |e: Error| Error::new(format!("{}: {e}", file.display()));
            for entry in properties::parse(&text).map_err(at)? {
                let line = |e: Error| at(Error::new(format!("line {}: {e}", entry.line)));
                give(&rows, &mut given, &entry.name, &entry.value).map_err(line)?;
            }
        }
        for (name, value) in sets {
            give(&rows, &mut given, name.trim(), value.trim())?;
        }
        Config::resolve(given, Dynamic::default())
    }

    fn resolve(started_with: Overrides, dynamic: Dynamic) -> Result<Config> {
        let given = dynamic.over(&started_with);
        let topic = TopicConfig::resolve(&given, &BTreeMap::new())?;
        // A broker's row is set by its own name or a synonym, and both are among what was given.
        let lookup = Lookup {
            own: &given,
            given: &given,
        };
        let mut config = Config::read(&lookup, topic, given.clone(), started_with, dynamic)?;
        config.settle()?;
        Ok(config)
    }

    /// These settings, with others in place of what was set while the broker ran.
    pub fn with(&self, dynamic: Dynamic) -> Result<Config> {
        Config::resolve(self.started_with.clone(), dynamic)
    }

    /// What a topic without settings of its own has.
    pub fn topic_defaults(&self) -> &TopicConfig {
        &self.topic
    }

    /// The address to tell the clients of the listener `name`, if one was given.
    pub fn advertised(&self, name: &str) -> Option<&Endpoint> {
        self.advertised_listeners.iter().find(|e| e.name == name)
    }

    /// How many connections the client at `ip` may have open.
    pub fn connections_of(&self, ip: IpAddr) -> usize {
        let own = self.connections_per_ip_overrides.get(&ip).copied();
        own.unwrap_or(self.connections_per_ip_max) as usize
    }

    /// One line for each setting that was given and does nothing, and for what trades durability away.
    pub fn notices(&self) -> Vec<String> {
        let given = |row: &Setting| self.given.contains_key(row.name);
        let mut lines: Vec<String> = broker_rows()
            .iter()
            .filter(|row| given(row))
            .filter_map(|row| {
                let reason = row.without_effect()?;
                Some(format!("{} has no effect: {reason}", row.name))
            })
            .collect();
        lines.extend(self.durability_notice());
        lines
    }

    /// One line if topics without settings of their own trade durability away.
    pub fn durability_notice(&self) -> Option<String> {
        let messages = self.topic.flush_messages;
        (!self.topic.syncs_every_turn()).then(|| {
            format!(
                "log.flush.interval.messages={messages}: a power cut can take acknowledged records"
            )
        })
    }

    /// Checks the settings against each other, and drops the listeners that are the controllers'.
    fn settle(&mut self) -> Result<()> {
        if let (Some(node), Some(broker)) = (self.given.get("node.id"), self.given.get("broker.id"))
            && node != broker
        {
            return Err(Error::new(format!(
                "node.id={node} and broker.id={broker} differ: remove broker.id"
            )));
        }
        if self.decompression_window_bytes_max > self.decompression_memory_bytes_max {
            return Err(Error::new(format!(
                "decompression.window.max={} is more than decompression.memory.max={}",
                self.decompression_window_bytes_max, self.decompression_memory_bytes_max
            )));
        }
        if self.connections_per_ip_max == 0 && self.connections_per_ip_overrides.is_empty() {
            return Err(Error::new(
                "max.connections.per.ip=0 without max.connections.per.ip.overrides lets nobody in",
            ));
        }
        groups::check(self)?;
        let controllers = &self.controller_listener_names;
        let is_ours = |e: &Endpoint| !controllers.iter().any(|c| c.eq_ignore_ascii_case(&e.name));
        self.listeners.retain(is_ours);
        self.advertised_listeners.retain(is_ours);
        self.check_listeners()
    }

    fn check_listeners(&self) -> Result<()> {
        if self.listeners.is_empty() {
            return Err(Error::new(
                "listeners: none is left to listen on for clients",
            ));
        }
        for (place, listener) in self.listeners.iter().enumerate() {
            let name = &listener.name;
            if self.listeners[..place]
                .iter()
                .any(|other| other.name == *name)
            {
                return Err(Error::new(format!(
                    "listeners: the name {name} occurs twice"
                )));
            }
            let protocol = self.protocol(name);
            if !protocol.eq_ignore_ascii_case("PLAINTEXT") {
                return Err(Error::new(format!(
                    "listeners: {name} is {protocol}, and only PLAINTEXT is spoken: name it PLAINTEXT, or map it in listener.security.protocol.map"
                )));
            }
        }
        for told in &self.advertised_listeners {
            if !self
                .listeners
                .iter()
                .any(|listener| listener.name == told.name)
            {
                let name = &told.name;
                return Err(Error::new(format!(
                    "advertised.listeners: {name} is none of the listeners"
                )));
            }
            if told.is_wildcard() || told.port == 0 {
                return Err(Error::new(format!(
                    "advertised.listeners: clients cannot connect to {told}: give a host that they can reach and a port"
                )));
            }
        }
        Ok(())
    }

    /// The protocol of the listener `name`: the map's, else the name is the protocol's own.
    fn protocol<'a>(&'a self, name: &'a str) -> &'a str {
        let pairs = self.listener_security_protocol_map.iter();
        let mut mapped = pairs.filter_map(|pair| pair.split_once(':'));
        let found = mapped.find(|(mapped, _)| mapped.trim().eq_ignore_ascii_case(name));
        found.map_or(name, |(_, protocol)| protocol.trim())
    }
}

impl Default for Config {
    fn default() -> Config {
        Config::load(None, &[]).expect("the table's own defaults are within its limits")
    }
}

impl TopicConfig {
    /// The settings of a topic whose own ones are `overrides`.
    ///
    /// The error is the message for INVALID_CONFIG: one line that names the setting.
    pub fn new(broker: &Config, overrides: &Overrides) -> Result<TopicConfig> {
        let rows = topic_rows();
        for (name, value) in overrides {
            match rows.iter().find(|row| row.name == name) {
                Some(row) => row.check_for_client(value)?,
                None => {
                    let name = shortened(name);
                    return Err(Error::new(format!("Unknown topic config name: {name}")));
                }
            }
        }
        TopicConfig::resolve(&broker.given, overrides)
    }

    /// As [`TopicConfig::new`]; settings that do not go together, or that a later version of the broker no longer
    /// takes, give way to the broker's.
    pub fn in_force(broker: &Config, topic: &str, overrides: &Overrides) -> TopicConfig {
        TopicConfig::new(broker, overrides).unwrap_or_else(|error| {
            log::error!("{topic}: its settings are not used: {error}");
            broker.topic.clone()
        })
    }

    /// Whether the writer syncs the log in each turn, so that acks=all means synced (promise P1).
    pub fn syncs_every_turn(&self) -> bool {
        self.flush_messages == 1
    }

    fn resolve(
        given: &BTreeMap<String, String>,
        overrides: &BTreeMap<String, String>,
    ) -> Result<TopicConfig> {
        let topic = TopicConfig::read(&Lookup {
            own: overrides,
            given,
        })?;
        if topic.min_compaction_lag_ms > topic.max_compaction_lag_ms {
            return Err(Error::new(format!(
                "min.compaction.lag.ms={} is more than max.compaction.lag.ms={}",
                topic.min_compaction_lag_ms, topic.max_compaction_lag_ms
            )));
        }
        Ok(topic)
    }
}

fn give(
    rows: &[Setting],
    given: &mut BTreeMap<String, String>,
    name: &str,
    value: &str,
) -> Result<()> {
    let Some(row) = rows.iter().find(|row| row.name == name) else {
        return Err(unknown(rows, name));
    };
    row.check(value)?;
    given.insert(name.to_owned(), value.to_owned());
    Ok(())
}

/// No setting's value has any use for more.
const VALUE_BYTES_MAX: usize = 4096;

/// Longer names and values are cut in messages: they may come from a client.
const SHOWN_CHARS_MAX: usize = 100;

fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => Cow::Owned(format!("{}...", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// The refusal of a name that is in no row.
fn unknown(rows: &[Setting], name: &str) -> Error {
    if let Some((_, reason)) = REFUSED.iter().find(|(start, _)| name.starts_with(start)) {
        return Error::new(format!("{:?} is refused: {reason}", shortened(name)));
    }
    let topic = topic_rows();
    let synonyms = topic
        .iter()
        .find(|row| row.name == name)
        .map(|row| row.synonyms);
    if let Some(first) = synonyms.and_then(<[Synonym]>::first) {
        return Error::new(format!(
            "{name:?} is a setting of topics; for all topics set {:?}",
            first.name
        ));
    }
    let name = shortened(name);
    let nearest = rows
        .iter()
        .map(|row| row.name)
        .min_by_key(|known| distance(&name, known));
    let nearest = nearest.expect("the table has rows");
    Error::new(format!(
        "unknown setting {name:?}; the nearest known one is {nearest:?}"
    ))
}

/// The edit distance of two names (Levenshtein): how many letters to insert, delete or replace.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;
