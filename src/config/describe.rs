//! What the table says to others: DescribeConfigs, `ottla serve --help`, the README.

use super::dynamic::{is_dynamic, siblings};
use super::table::{HOURS, MINUTES};
use super::{
    Config, Fate, GROUP, Kind, Lookup, Overrides, Setting, Synonym, TOPIC, TOPIC_UNREAD,
    broker_rows, topic_rows,
};
use std::borrow::Cow;
use std::fmt::Write;

/// Where a value comes from, as a DescribeConfigs answer numbers it (Kafka's `ConfigSource`, KIP-226).
const SOURCE_TOPIC: i8 = 1;
const SOURCE_DYNAMIC_BROKER: i8 = 2;
const SOURCE_DYNAMIC_DEFAULT_BROKER: i8 = 3;
const SOURCE_STATIC_BROKER: i8 = 4;
const SOURCE_DEFAULT: i8 = 5;
const SOURCE_GROUP: i8 = 8;

/// One row of a DescribeConfigs answer.
#[derive(Clone, Debug, PartialEq)]
pub struct DescribedSetting {
    /// Kafka's name.
    pub name: &'static str,
    /// The value in force; `None` if it is not set.
    pub value: Option<String>,
    /// Kafka's `ConfigSource`: 1 the topic's own, 2 set on this broker and 3 on all while they ran, 4 the broker's
    /// file or arguments, 5 the default, 8 the group's own.
    pub source: i8,
    /// Kafka's `ConfigType` (see [`Kind::code`]).
    pub kind: i8,
    /// Whether it takes a restart to change it, as for Kafka.
    pub read_only: bool,
    /// Everything that sets the value, the winner first.
    pub synonyms: Vec<DescribedSynonym>,
    /// What the setting means, and its fate if it is not simply in force.
    pub documentation: String,
}

/// One of the places that set a value.
#[derive(Clone, Debug, PartialEq)]
pub struct DescribedSynonym {
    /// The name by which it is set there.
    pub name: &'static str,
    /// What is set there, in that name's own unit.
    pub value: Option<String>,
    /// Kafka's `ConfigSource`, as in [`DescribedSetting::source`].
    pub source: i8,
}

/// All settings of a topic whose own ones are `overrides`, sorted by name.
pub fn describe_topic(broker: &Config, overrides: &Overrides) -> Vec<DescribedSetting> {
    let lookup = Lookup {
        own: overrides,
        given: &broker.given,
    };
    let describe = |row: &Setting| {
        let value = lookup.text(row).map(|text| canonical(row.kind, text));
        let own = overrides.get(row.name).map(|_| DescribedSynonym {
            name: row.name,
            value: value.clone(),
            source: SOURCE_TOPIC,
        });
        let inherited = row
            .synonyms
            .first()
            .map_or(Vec::new(), |first| broker.places(first.name, row.synonyms));
        described(row, value, own.into_iter().chain(inherited).collect())
    };
    topic_rows().iter().map(describe).collect()
}

/// All settings of the broker, sorted by name.
pub fn describe_broker(broker: &Config) -> Vec<DescribedSetting> {
    let lookup = Lookup {
        own: &broker.given,
        given: &broker.given,
    };
    let describe = |row: &Setting| DescribedSetting {
        read_only: !is_dynamic(row.name),
        ..described(
            row,
            lookup.text(row).map(|text| canonical(row.kind, text)),
            broker.places_of(row),
        )
    };
    broker_rows().iter().map(describe).collect()
}

/// What was set for all brokers while they ran, sorted by name.
pub fn describe_cluster(broker: &Config) -> Vec<DescribedSetting> {
    let set = |row: &Setting| {
        let value = broker.dynamic.cluster.get(row.name)?.clone();
        let mut places = broker.places_of(row);
        places.retain(|place| place.source == SOURCE_DYNAMIC_DEFAULT_BROKER);
        Some(DescribedSetting {
            read_only: !is_dynamic(row.name),
            ..described(row, Some(value), places)
        })
    };
    broker_rows().iter().filter_map(set).collect()
}

/// All settings of a group, sorted by name.
pub fn describe_group(broker: &Config, id: &str) -> Vec<DescribedSetting> {
    let own = broker.dynamic.groups.get(id);
    let group = broker.group(id);
    let values = [
        group.consumer_heartbeat_interval_ms,
        group.consumer_session_timeout_ms,
    ];
    let mut rows: Vec<&Setting> = GROUP.iter().collect();
    rows.sort_by_key(|row| row.name);
    let describe = |(row, value): (&Setting, i32)| {
        let is_own = own.is_some_and(|own| own.contains_key(row.name));
        let place = DescribedSynonym {
            name: row.name,
            value: Some(value.to_string()),
            source: if is_own { SOURCE_GROUP } else { SOURCE_DEFAULT },
        };
        described(row, Some(value.to_string()), vec![place])
    };
    rows.into_iter().zip(values).map(describe).collect()
}

impl Config {
    /// Every place that sets one of the broker-wide names `synonyms` of one value, the winner first; as in Kafka
    /// only from where `name` itself is first set.
    fn places(&self, name: &str, synonyms: &[Synonym]) -> Vec<DescribedSynonym> {
        let layers = [
            (&self.dynamic.node, SOURCE_DYNAMIC_BROKER),
            (&self.dynamic.cluster, SOURCE_DYNAMIC_DEFAULT_BROKER),
            (&self.started_with, SOURCE_STATIC_BROKER),
        ];
        let place = |name, value: Option<String>, source| {
            value.map(|value| DescribedSynonym {
                name,
                value: Some(value.trim().to_owned()),
                source,
            })
        };
        let set = layers.into_iter().flat_map(|(layer, source)| {
            let names = synonyms.iter().map(|synonym| synonym.name);
            names.filter_map(move |name| place(name, layer.get(name).cloned(), source))
        });
        let default = |synonym: &Synonym| {
            let value = synonym.default.map(str::to_owned);
            place(synonym.name, value, SOURCE_DEFAULT)
        };
        set.chain(synonyms.iter().filter_map(default))
            .skip_while(|place| place.name != name)
            .collect()
    }

    fn places_of(&self, row: &Setting) -> Vec<DescribedSynonym> {
        match siblings(row.name) {
            [] => {
                let own = Synonym {
                    name: row.name,
                    unit: 1,
                    default: row.default,
                };
                let all: Vec<Synonym> = [own].iter().chain(row.synonyms).copied().collect();
                let set = all
                    .iter()
                    .find(|synonym| self.given.contains_key(synonym.name));
                self.places(set.map_or(row.name, |set| set.name), &all)
            }
            synonyms => self.places(row.name, synonyms),
        }
    }
}

fn described(
    row: &Setting,
    value: Option<String>,
    synonyms: Vec<DescribedSynonym>,
) -> DescribedSetting {
    DescribedSetting {
        name: row.name,
        value,
        source: synonyms
            .first()
            .map_or(SOURCE_DEFAULT, |first| first.source),
        kind: row.kind.code(),
        read_only: false,
        synonyms,
        documentation: documentation(row),
    }
}

/// A value as Kafka writes it: it reads `TRUE`, and answers `true`.
fn canonical(kind: Kind, text: Cow<'_, str>) -> String {
    match kind {
        Kind::Boolean => text.to_ascii_lowercase(),
        _ => text.into_owned(),
    }
}

fn documentation(row: &Setting) -> String {
    let sets = match row.sets {
        Some((name, _)) if name == row.name => String::new(),
        Some((name, HOURS)) => format!("Sets {name}, in hours. "),
        Some((name, MINUTES)) => format!("Sets {name}, in minutes. "),
        Some((name, _)) => format!("Sets {name}. "),
        None => String::new(),
    };
    let fate = match row.fate {
        Fate::InForce(_) => String::new(),
        Fate::Fixed(reason) => format!(" Only {}: {reason}.", row.limits.expected(row.kind)),
        Fate::NoEffect(reason) => format!(" Without effect: {reason}."),
    };
    format!("{sets}{}{fate}", row.meaning)
}

/// The settings as text for a terminal.
pub fn help() -> String {
    let mut out = String::new();
    for row in broker_rows() {
        let default = row.default.unwrap_or("(not set)");
        let _ = writeln!(out, "  {} = {default}", row.name);
        let mut text = documentation(&row);
        if !matches!(row.fate, Fate::Fixed(_)) {
            let _ = write!(text, " Takes {}.", row.limits.expected(row.kind));
        }
        let mut column = 0;
        for word in text.split(' ') {
            if column + word.len() > 90 || column == 0 {
                out.push_str(if column == 0 { "     " } else { "\n     " });
                column = 5;
            }
            let _ = write!(out, " {word}");
            column += word.len() + 1;
        }
        out.push('\n');
    }
    out
}

/// The settings as the README's three tables.
pub fn markdown() -> String {
    let mut out = String::from(
        "| broker's setting | type | default | meaning | test |\n|---|---|---|---|---|\n",
    );
    let code = |text: &str| {
        if text.is_empty() {
            String::new()
        } else {
            format!("`{text}`")
        }
    };
    // A topic's synonyms stand in the second table, beside what they set.
    let topics: Vec<&str> = TOPIC
        .iter()
        .chain(TOPIC_UNREAD)
        .flat_map(|row| row.synonyms.iter().map(|synonym| synonym.name))
        .collect();
    for row in broker_rows()
        .iter()
        .filter(|row| !topics.contains(&row.name))
    {
        let (name, kind, default) = (row.name, row.kind.name(), code(row.default.unwrap_or("")));
        let _ = writeln!(
            out,
            "| `{name}` | {kind} | {default} | {} | {} |",
            documentation(row),
            code(row.test())
        );
    }
    out.push_str(
        "\n| topic's setting | for all topics | type | default | meaning | test |\n|---|---|---|---|---|---|\n",
    );
    for row in topic_rows() {
        let names: Vec<String> = row
            .synonyms
            .iter()
            .map(|synonym| code(synonym.name))
            .collect();
        let (name, kind, default) = (row.name, row.kind.name(), code(row.default.unwrap_or("")));
        let _ = writeln!(
            out,
            "| `{name}` | {} | {kind} | {default} | {} | {} |",
            names.join(", "),
            documentation(&row),
            code(row.test())
        );
    }
    out.push_str(
        "\n| group's setting | type | default | meaning | test |\n|---|---|---|---|---|\n",
    );
    for row in GROUP {
        let (name, kind, default) = (row.name, row.kind.name(), code(row.default.unwrap_or("")));
        let _ = writeln!(
            out,
            "| `{name}` | {kind} | {default} | {} | {} |",
            documentation(row),
            code(row.test())
        );
    }
    out
}

#[cfg(test)]
#[path = "describe_tests.rs"]
mod tests;
