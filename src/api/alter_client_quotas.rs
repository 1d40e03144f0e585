//! AlterClientQuotas (key 49): sets and removes quotas (KIP-546).
//!
//! # Behavior
//! - An entity is a user, a client-id or both, or an address; a null name means all that have no quota of their own.
//! - Entities are refused one by one; what is not refused is set together, and answered once it is synced.
//! - An entity that is named twice is refused, but what its first entry sets is set, as in Kafka.
//! - A host name as an address must have an address, as in Kafka.
//! - Byte rates and an address's connection rate are enforced (see [`crate::quota`]); the other keys are stored and
//!   described.
//!
//! # Version notes
//! - v1: flexible (KIP-482).

use super::{Call, Ended};
use crate::control::{Answer, Fault, QuotaChange, Request};
use crate::error::ErrorCode;
use crate::quota::{self, CLIENT_ID, Entity, IP, USER};
use crate::wire::messages;
use std::collections::BTreeMap;
use std::net::ToSocketAddrs;

messages! {
    AlterClientQuotasRequest(49) [0-1, flexible 1+] {
        entries: Vec<EntryData> [0+],
        validate_only: bool [0+],
    }
    EntryData {
        entity: Vec<EntityData> [0+],
        ops: Vec<OpData> [0+],
    }
    EntityData {
        entity_type: String [0+],
        entity_name: Option<String> [0+],
    }
    OpData {
        key: String [0+],
        value: f64 [0+],
        remove: bool [0+],
    }

    AlterClientQuotasResponse(49) [0-1, flexible 1+] {
        throttle_time_ms: i32 [0+],
        entries: Vec<EntryResult> [0+],
    }
    EntryResult {
        error_code: i16 [0+],
        error_message: Option<String> [0+],
        entity: Vec<EntityData> [0+],
    }
}

/// Kafka's limit for the records that one request may make (`MAX_RECORDS_PER_USER_OP`).
const CHANGES_MAX: usize = 10_000;

/// Checks every entry, has the good ones recorded, and answers entity by entity.
pub fn handle(
    call: &mut Call<'_>,
    request: AlterClientQuotasRequest,
) -> Result<AlterClientQuotasResponse, Ended> {
    let (mut results, changes) = check(request.entries);
    let refused = match changes.len() {
        0 => None,
        _ if request.validate_only => None,
        1..=CHANGES_MAX => match call.ask(Request::AlterQuotas(changes))? {
            Answer::Quotas(Err(code)) => Some((code, "The change could not be recorded.".into())),
            _ => None,
        },
        many => Some((
            ErrorCode::PolicyViolation,
            format!("{many} changes in one request; at most {CHANGES_MAX}."),
        )),
    };
    if let Some(fault) = refused {
        results.values_mut().for_each(|result| {
            result.get_or_insert_with(|| fault.clone());
        });
    }
    Ok(AlterClientQuotasResponse {
        entries: results.into_iter().map(answer).collect(),
        ..AlterClientQuotasResponse::default()
    })
}

/// Of each entity why it is refused, if it is; and the changes that are not.
fn check(entries: Vec<EntryData>) -> (BTreeMap<Entity, Option<Fault>>, Vec<QuotaChange>) {
    let (mut results, mut changes) = (BTreeMap::new(), Vec::new());
    for entry in entries {
        let parts = entry.entity.into_iter();
        let entity: Entity = parts
            .map(|part| (part.entity_type, part.entity_name))
            .collect();
        let twice = results.contains_key(&entity);
        let result = match check_entry(&entity, entry.ops, twice) {
            Ok(good) => {
                changes.extend(good);
                None
            }
            Err(fault) => Some(fault),
        };
        results.insert(entity, result);
    }
    (results, changes)
}

fn check_entry(entity: &Entity, ops: Vec<OpData>, twice: bool) -> Result<Vec<QuotaChange>, Fault> {
    let mut values = BTreeMap::new();
    for op in ops {
        let value = (!op.remove).then_some(op.value);
        if values.insert(op.key.clone(), value).is_some() {
            return Err(invalid(format!(
                "Duplicate quota key {} not updating quota for this entity {entity:?}",
                op.key
            )));
        }
    }
    if twice {
        return Err(invalid(format!("Ignoring duplicate entity {entity:?}")));
    }
    check_entity(entity)?;
    let change = |(key, value): (String, Option<f64>)| {
        if let Some(value) = value {
            check_value(entity, &key, value)?;
        }
        let entity = entity.clone();
        Ok(QuotaChange { entity, key, value })
    };
    values.into_iter().map(change).collect()
}

fn check_entity(entity: &Entity) -> Result<(), Fault> {
    if entity.is_empty() {
        return Err(invalid("Invalid empty client quota entity"));
    }
    for (kind, name) in entity {
        if ![USER, CLIENT_ID, IP].contains(&kind.as_str()) {
            return Err(invalid(format!(
                "Unhandled client quota entity type: {kind}"
            )));
        }
        if name.as_ref().is_some_and(String::is_empty) {
            return Err(invalid(format!("Empty {kind} not supported")));
        }
    }
    match entity.get(IP) {
        Some(_) if entity.len() > 1 => Err(invalid(
            "Invalid quota entity combination, IP entity should not be combined with User or ClientId",
        )),
        Some(Some(host)) if (host.as_str(), 0).to_socket_addrs().is_err() => Err(invalid(format!(
            "{host} is not a valid IP or resolvable host."
        ))),
        _ => Ok(()),
    }
}

/// Each key's type is that of Kafka's `QuotaConfig`: whole numbers up to an i64's or an i32's largest, or any.
fn check_value(entity: &Entity, key: &str, value: f64) -> Result<(), Fault> {
    let of_ip = entity.contains_key(IP);
    let whole = match key {
        quota::PRODUCER_BYTE_RATE | quota::CONSUMER_BYTE_RATE if !of_ip => {
            Some((i64::MAX as f64, "a LONG"))
        }
        quota::REQUEST_PERCENTAGE | quota::CONTROLLER_MUTATION_RATE if !of_ip => None,
        quota::CONNECTION_CREATION_RATE if of_ip => Some((f64::from(i32::MAX), "an INT")),
        _ => return Err(invalid(format!("Invalid configuration key {key}"))),
    };
    // Not a number is not greater either.
    if value.partial_cmp(&0.0) != Some(std::cmp::Ordering::Greater) {
        return Err(invalid(format!("Quota {key} must be greater than 0")));
    }
    match whole {
        Some((max, kind)) if value > max => Err(invalid(format!(
            "Proposed value for {key} is too large for {kind}."
        ))),
        Some(_) if value % 1.0 > 1e-6 => {
            Err(invalid(format!("{key} cannot be a fractional value.")))
        }
        _ => Ok(()),
    }
}

fn invalid(sentence: impl Into<String>) -> Fault {
    (ErrorCode::InvalidRequest, sentence.into())
}

fn answer((entity, fault): (Entity, Option<Fault>)) -> EntryResult {
    let (code, sentence) = match fault {
        Some((code, sentence)) => (code, Some(sentence)),
        None => (ErrorCode::None, None),
    };
    let part = |(entity_type, entity_name)| EntityData {
        entity_type,
        entity_name,
    };
    EntryResult {
        error_code: code.code(),
        error_message: sentence,
        entity: entity.into_iter().map(part).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(parts: &[(&str, Option<&str>)]) -> Entity {
        let part = |&(kind, name): &(&str, Option<&str>)| (kind.into(), name.map(str::to_owned));
        parts.iter().map(part).collect()
    }

    fn fault(parts: &[(&str, Option<&str>)], key: &str, value: f64) -> Option<String> {
        let ops = vec![OpData {
            key: key.into(),
            value,
            remove: false,
        }];
        let fault = check_entry(&entity(parts), ops, false).err()?;
        assert_eq!(fault.0, ErrorCode::InvalidRequest);
        Some(fault.1)
    }

    #[test]
    fn each_kind_has_its_keys_and_each_key_its_values() {
        let (user, ip) = ([(USER, None)], [(IP, Some("10.0.0.1"))]);
        let pair = [(USER, Some("u")), (CLIENT_ID, None)];
        for key in [quota::PRODUCER_BYTE_RATE, quota::CONSUMER_BYTE_RATE] {
            assert_eq!(fault(&user, key, 1.0), None);
            assert_eq!(fault(&pair, key, 9.2e18), None);
            assert!(fault(&ip, key, 1.0).is_some_and(|why| why.contains("Invalid configuration")));
            assert!(fault(&user, key, 1.5).is_some_and(|why| why.contains("fractional")));
            assert!(fault(&user, key, 9.3e18).is_some_and(|why| why.contains("LONG")));
        }
        let rate = quota::CONNECTION_CREATION_RATE;
        assert_eq!(fault(&ip, rate, 2_147_483_647.0), None);
        assert!(fault(&ip, rate, 2_147_483_648.0).is_some_and(|why| why.contains("INT")));
        assert!(fault(&user, rate, 1.0).is_some());
        for key in [quota::REQUEST_PERCENTAGE, quota::CONTROLLER_MUTATION_RATE] {
            assert_eq!(fault(&pair, key, 0.5), None);
            for value in [0.0, -1.0, f64::NAN] {
                assert!(fault(&pair, key, value).is_some_and(|why| why.contains("greater")));
            }
        }
        assert!(fault(&user, "no_such_rate", 1.0).is_some());
    }

    #[test]
    fn entities_are_one_kind_or_user_and_client() {
        let key = quota::CONNECTION_CREATION_RATE;
        for odd in [
            &[][..],
            &[("group", None)],
            &[(USER, Some(""))],
            &[(IP, None), (USER, None)],
            &[(IP, Some("no such host"))],
        ] {
            assert!(fault(odd, key, 1.0).is_some(), "{odd:?}");
        }
        assert_eq!(fault(&[(IP, None)], key, 1.0), None);
        assert_eq!(fault(&[(IP, Some("::1"))], key, 1.0), None);
    }

    #[test]
    fn an_entity_that_is_named_twice_keeps_its_first_change() {
        let entry = |value| EntryData {
            entity: vec![EntityData {
                entity_type: USER.into(),
                entity_name: None,
            }],
            ops: vec![OpData {
                key: quota::PRODUCER_BYTE_RATE.into(),
                value,
                remove: false,
            }],
        };
        let (results, changes) = check(vec![entry(1.0), entry(2.0)]);
        assert_eq!(results.len(), 1);
        assert!(results.values().all(Option::is_some));
        let values: Vec<_> = changes.iter().map(|change| change.value).collect();
        assert_eq!(values, [Some(1.0)]);
    }
}
