//! DescribeClientQuotas (key 48): which quotas are set (KIP-546).
//!
//! # Behavior
//! - A filter names kinds of entities, each by an exact name, by "all others" (default), or by any of the two; an
//!   entity is told if it has all of them, and with `strict` only if it has no other.
//! - The entities of one kind come before those of two: Kafka's order is that of a hash table, in which clients' own
//!   tests find the user before the user's client-id.
//! - No components: with `strict` nothing matches, else everything does.
//!
//! # Version notes
//! - v1: flexible (KIP-482).

use super::{Call, NOTHING_SAID};
use crate::control::Fault;
use crate::error::ErrorCode;
use crate::quota::{
    CLIENT_ID, CONNECTION_CREATION_RATE, CONSUMER_BYTE_RATE, CONTROLLER_MUTATION_RATE, Entity, IP,
    PRODUCER_BYTE_RATE, REQUEST_PERCENTAGE, Table, USER,
};
use crate::wire::messages;
use std::collections::BTreeMap;

messages! {
    DescribeClientQuotasRequest(48) [0-1, flexible 1+] {
        components: Vec<ComponentData> [0+],
        strict: bool [0+],
    }
    ComponentData {
        entity_type: String [0+],
        match_type: i8 [0+],
        r#match: Option<String> [0+],
    }

    DescribeClientQuotasResponse(48) [0-1, flexible 1+] {
        throttle_time_ms: i32 [0+],
        error_code: i16 [0+],
        error_message: Option<String> [0+],
        entries: Option<Vec<EntryData>> [0+],
    }
    EntryData {
        entity: Vec<EntityData> [0+],
        values: Vec<ValueData> [0+],
    }
    EntityData {
        entity_type: String [0+],
        entity_name: Option<String> [0+],
    }
    ValueData {
        key: String [0+],
        value: f64 [0+],
    }
}

const MATCH_EXACT: i8 = 0;
const MATCH_DEFAULT: i8 = 1;
const MATCH_SPECIFIED: i8 = 2;

/// All keys, in the order in which Kafka tells those that were set together (that of its hash table); clients' tests
/// compare the list as it is.
const KEYS: [&str; 5] = [
    CONNECTION_CREATION_RATE,
    CONSUMER_BYTE_RATE,
    CONTROLLER_MUTATION_RATE,
    REQUEST_PERCENTAGE,
    PRODUCER_BYTE_RATE,
];

/// What of an entity a component asks for.
enum Wanted {
    /// This name; `None`: all others.
    Name(Option<String>),
    /// Either.
    Any,
}

/// The most that an answer tells.
pub fn rows_max(call: &Call<'_>) -> usize {
    let table = call.broker.quotas.table();
    table
        .iter()
        .map(|(entity, values)| 1 + entity.len() + values.len())
        .sum()
}

/// Describes the quotas that match.
pub fn handle(
    call: &mut Call<'_>,
    request: DescribeClientQuotasRequest,
) -> DescribeClientQuotasResponse {
    let table = call.broker.quotas.table();
    match filter(request.components) {
        Ok(filter) => DescribeClientQuotasResponse {
            error_message: NOTHING_SAID,
            entries: Some(describe(&table, &filter, request.strict)),
            ..DescribeClientQuotasResponse::default()
        },
        Err((code, sentence)) => DescribeClientQuotasResponse {
            error_code: code.code(),
            error_message: Some(sentence),
            ..DescribeClientQuotasResponse::default()
        },
    }
}

/// The filter by kind; the errors are those of Kafka's `ClientQuotasImage`.
fn filter(components: Vec<ComponentData>) -> Result<BTreeMap<String, Wanted>, Fault> {
    let mut filter = BTreeMap::new();
    for component in components {
        let kind = component.entity_type;
        if kind.is_empty() {
            return Err(invalid("Invalid empty entity type."));
        }
        if filter.contains_key(&kind) {
            let sentence =
                format!("Entity type {kind} cannot appear more than once in the filter.");
            return Err(invalid(sentence));
        }
        if ![USER, CLIENT_ID, IP].contains(&kind.as_str()) {
            let sentence = format!("Unsupported entity type {kind}");
            return Err((ErrorCode::UnsupportedVersion, sentence));
        }
        let wanted = match (component.match_type, component.r#match) {
            (MATCH_EXACT, Some(name)) => Wanted::Name(Some(name)),
            (MATCH_EXACT, None) => {
                let sentence = "Request specified MATCH_TYPE_EXACT, but set match string to null.";
                return Err(invalid(sentence));
            }
            (MATCH_DEFAULT, None) => Wanted::Name(None),
            (MATCH_SPECIFIED, None) => Wanted::Any,
            (MATCH_DEFAULT, Some(_)) => return Err(also_a_name("MATCH_TYPE_DEFAULT")),
            (MATCH_SPECIFIED, Some(_)) => return Err(also_a_name("MATCH_TYPE_SPECIFIED")),
            (other, _) => return Err(invalid(format!("Unknown match type {other}"))),
        };
        filter.insert(kind, wanted);
    }
    if filter.contains_key(IP) && filter.len() > 1 {
        return Err(invalid(
            "Invalid entity filter component combination. IP filter component should not be used with user or \
             clientId filter component.",
        ));
    }
    Ok(filter)
}

fn also_a_name(match_type: &str) -> Fault {
    invalid(format!(
        "Request specified {match_type}, but also specified a match string."
    ))
}

fn invalid(sentence: impl Into<String>) -> Fault {
    (ErrorCode::InvalidRequest, sentence.into())
}

fn describe(table: &Table, filter: &BTreeMap<String, Wanted>, strict: bool) -> Vec<EntryData> {
    let matches = |entity: &Entity| {
        let mut parts = filter.iter().map(|(kind, wanted)| match wanted {
            Wanted::Name(name) => entity.get(kind) == Some(name),
            Wanted::Any => entity.contains_key(kind),
        });
        parts.all(|matches| matches) && (!strict || entity.len() == filter.len())
    };
    let part = |(kind, name): (&String, &Option<String>)| EntityData {
        entity_type: kind.clone(),
        entity_name: name.clone(),
    };
    let values = |set: &BTreeMap<String, f64>| {
        let value = |key: &&str| {
            let (key, value) = set.get_key_value(*key)?;
            let (key, value) = (key.clone(), *value);
            Some(ValueData { key, value })
        };
        KEYS.iter().filter_map(value).collect()
    };
    let mut matching: Vec<_> = table.iter().filter(|(entity, _)| matches(entity)).collect();
    matching.sort_by_key(|(entity, _)| entity.len());
    matching
        .into_iter()
        .map(|(entity, set)| EntryData {
            entity: entity.iter().map(part).collect(),
            values: values(set),
        })
        .collect()
}
