//! What the table says to others: DescribeConfigs, `ottla serve --help`, the README.

use super::table::{HOURS, MINUTES};
use super::{Config, Fate, Kind, Lookup, Setting, TOPIC, TOPIC_UNREAD, broker_rows, topic_rows};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Where a value comes from, as a DescribeConfigs answer numbers it (Kafka's `ConfigSource`, KIP-226).
const SOURCE_TOPIC: i8 = 1;
const SOURCE_STATIC_BROKER: i8 = 4;
const SOURCE_DEFAULT: i8 = 5;

/// One row of a DescribeConfigs answer.
#[derive(Clone, Debug, PartialEq)]
pub struct DescribedSetting {
    /// Kafka's name.
    pub name: &'static str,
    /// The value in force; `None` if it is not set.
    pub value: Option<String>,
    /// Kafka's `ConfigSource`: 1 the topic's own, 4 the broker's file or arguments, 5 the default.
    pub source: i8,
    /// Kafka's `ConfigType` (see [`Kind::code`]).
    pub kind: i8,
    /// Whether it takes a restart to change it.
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
pub fn describe_topic(
    broker: &Config,
    overrides: &BTreeMap<String, String>,
) -> Vec<DescribedSetting> {
    let lookup = Lookup {
        own: overrides,
        given: &broker.given,
    };
    topic_rows()
        .iter()
        .map(|row| described(row, &lookup, SOURCE_TOPIC))
        .collect()
}

/// All settings of the broker, sorted by name.
pub fn describe_broker(broker: &Config) -> Vec<DescribedSetting> {
    let lookup = Lookup {
        own: &broker.given,
        given: &broker.given,
    };
    broker_rows()
        .iter()
        .map(|row| described(row, &lookup, SOURCE_STATIC_BROKER))
        .collect()
}

/// Describes one row, whose own name is set in the place that `own_source` stands for.
fn described(row: &Setting, lookup: &Lookup<'_>, own_source: i8) -> DescribedSetting {
    let set = |name, value: Option<&String>, source| {
        value.map(|v| DescribedSynonym {
            name,
            value: Some(v.trim().to_owned()),
            source,
        })
    };
    let own = set(row.name, lookup.own.get(row.name), own_source);
    let given = row.synonyms.iter().filter_map(|synonym| {
        set(
            synonym.name,
            lookup.given.get(synonym.name),
            SOURCE_STATIC_BROKER,
        )
    });
    let named = row
        .synonyms
        .iter()
        .map(|synonym| (synonym.name, synonym.default));
    let own_default = (own_source != SOURCE_TOPIC).then_some((row.name, row.default));
    let defaults = own_default
        .into_iter()
        .chain(named)
        .filter_map(|(name, default)| {
            set(name, default.map(str::to_owned).as_ref(), SOURCE_DEFAULT)
        });
    let synonyms: Vec<DescribedSynonym> = own.into_iter().chain(given).chain(defaults).collect();
    DescribedSetting {
        name: row.name,
        value: lookup.text(row).map(|text| canonical(row.kind, text)),
        source: synonyms
            .first()
            .map_or(SOURCE_DEFAULT, |first| first.source),
        kind: row.kind.code(),
        read_only: own_source != SOURCE_TOPIC,
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
        Fate::InForce => String::new(),
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

/// The settings as the README's two tables.
pub fn markdown() -> String {
    let mut out =
        String::from("| broker's setting | type | default | meaning |\n|---|---|---|---|\n");
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
            "| `{name}` | {kind} | {default} | {} |",
            documentation(row)
        );
    }
    out.push_str("\n| topic's setting | for all topics | type | default | meaning |\n|---|---|---|---|---|\n");
    for row in topic_rows() {
        let names: Vec<String> = row
            .synonyms
            .iter()
            .map(|synonym| code(synonym.name))
            .collect();
        let (name, kind, default) = (row.name, row.kind.name(), code(row.default.unwrap_or("")));
        let _ = writeln!(
            out,
            "| `{name}` | {} | {kind} | {default} | {} |",
            names.join(", "),
            documentation(&row)
        );
    }
    out
}
