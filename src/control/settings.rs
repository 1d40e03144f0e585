//! Changes of settings: what one would write, a pure function from the catalog's state and a request to records, and
//! how what was written is put in force.
//!
//! Invariants: a plan that is never committed leaves no trace; a resource is changed as a whole or not at all, and
//! stands for itself. The order of the checks, the errors and their sentences are those of Kafka's
//! `ConfigAdminManager`, which looks at what a broker can tell, and of its `ConfigurationControlManager`.

use super::Rooms;
use super::plan::Fault;
use crate::catalog::{
    Published, RESOURCE_BROKER, RESOURCE_BROKER_LOGGER, RESOURCE_CLIENT_METRICS, RESOURCE_GROUP,
    RESOURCE_TOPIC, State, Topic, check_name,
};
use crate::config::{
    self, Config, Dynamic, GroupConfig, MIN_INSYNC_REPLICAS, Overrides, TopicConfig,
    broker_setting, check_dynamic,
};
use crate::error::ErrorCode;
use crate::wire::metadata_records::{ConfigRecord, MetadataRecord};
use crate::writer::Job;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// What is done to one setting (Kafka's `AlterConfigOp.OpType`, KIP-339).
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// Kafka's limit for the records of one change (`MAX_RECORDS_PER_USER_OP`).
const RECORDS_PER_REQUEST_MAX: usize = 10_000;

/// A change of one setting, as it was asked for.
#[derive(Clone, Debug, Default)]
pub struct NewSetting {
    /// Its name, not yet checked.
    pub name: String,
    /// Kafka's number of what to do; 0 sets it.
    pub operation: i8,
    /// The value, not yet checked.
    pub value: Option<String>,
}

/// A change of one resource's settings, as it was asked for.
#[derive(Clone, Debug, Default)]
pub struct NewSettings {
    /// Kafka's `ConfigResource.Type`.
    pub resource_type: i8,
    /// The topic's or group's name, or the broker's id.
    pub resource_name: String,
    /// The changes, in the order of the request.
    pub settings: Vec<NewSetting>,
    /// Whether what is not named goes (AlterConfigs) or stays (IncrementalAlterConfigs).
    pub replace: bool,
}

/// One request's answer, and the records that would make it so.
#[derive(Clone, Debug, Default)]
pub struct SettingsPlan {
    /// Why each resource is refused, if it is, in the order of the request.
    pub faults: Vec<Option<Fault>>,
    /// To be committed together.
    pub records: Vec<MetadataRecord>,
}

/// Plans an IncrementalAlterConfigs or AlterConfigs request.
pub fn alter(state: &State, config: &Config, resources: &[NewSettings]) -> SettingsPlan {
    let mut counts = HashMap::new();
    for resource in resources {
        let named = (resource.resource_type, &resource.resource_name);
        *counts.entry(named).or_insert(0) += 1;
    }
    let mut plan = SettingsPlan::default();
    for resource in resources {
        let planned = match counts[&(resource.resource_type, &resource.resource_name)] {
            1 => check_request(config, resource).and_then(|()| changed(state, config, resource)),
            _ => Err(invalid("Each resource must appear at most once.")),
        };
        plan.faults.push(match planned {
            Ok(records) if plan.records.len() + records.len() > RECORDS_PER_REQUEST_MAX => {
                let sentence = "Unable to perform excessively large batch operation.";
                Some((ErrorCode::PolicyViolation, sentence.into()))
            }
            Ok(records) => {
                plan.records.extend(records);
                None
            }
            Err(fault) => Some(fault),
        });
    }
    plan
}

/// What Kafka checks before it looks at what is set.
fn check_request(config: &Config, resource: &NewSettings) -> Result<(), Fault> {
    let mut seen = BTreeSet::new();
    if !resource.settings.iter().all(|new| seen.insert(&new.name)) {
        return Err(invalid("Error due to duplicate config keys"));
    }
    let without_value = |new: &&NewSetting| new.operation != DELETE && new.value.is_none();
    let missing = resource.settings.iter().filter(without_value);
    let missing: Vec<&str> = missing.map(|new| new.name.as_str()).collect();
    if !missing.is_empty() {
        let names = missing.join(", ");
        return Err(invalid(format!("Null value not supported for : {names}")));
    }
    let name = &resource.resource_name;
    match resource.resource_type {
        RESOURCE_TOPIC | RESOURCE_CLIENT_METRICS | RESOURCE_GROUP => Ok(()),
        RESOURCE_BROKER if name.is_empty() => Ok(()),
        RESOURCE_BROKER => check_node_id(config.node_id, name),
        RESOURCE_BROKER_LOGGER if !resource.replace => check_node_id(config.node_id, name),
        other => Err(invalid(format!("Unknown resource type {other}"))),
    }
}

fn check_node_id(node_id: i32, name: &str) -> Result<(), Fault> {
    match name.parse::<i32>() {
        Ok(id) if id == node_id => Ok(()),
        Ok(_) => Err(invalid(format!(
            "Unexpected broker id, expected {node_id}, but received {name}"
        ))),
        Err(_) => Err(invalid(format!(
            "Node id must be an integer, but it is: {name}"
        ))),
    }
}

/// The records of one resource's change, or why it is refused.
fn changed(
    state: &State,
    config: &Config,
    resource: &NewSettings,
) -> Result<Vec<MetadataRecord>, Fault> {
    let (kind, name) = (resource.resource_type, &resource.resource_name);
    let old = state.settings_of(kind, name);
    let new = after(kind, &old, resource)?;
    match kind {
        RESOURCE_TOPIC => check_topic(state, config, name, &new)?,
        RESOURCE_BROKER => check_broker(state, config, name, &new)?,
        RESOURCE_GROUP => check_group(config, name, &new)?,
        RESOURCE_CLIENT_METRICS => check_client_metrics(name, resource)?,
        _ => check_loggers(resource)?,
    }
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let differs = names
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name));
    let record = |setting: &String| {
        MetadataRecord::Config(ConfigRecord {
            resource_type: kind,
            resource_name: name.clone(),
            name: setting.clone(),
            value: new.get(setting).cloned(),
        })
    };
    Ok(differs.map(record).collect())
}

/// What a resource's own settings are after the change.
fn after(kind: i8, old: &Overrides, resource: &NewSettings) -> Result<Overrides, Fault> {
    let mut settings = match resource.replace {
        true => Overrides::new(),
        false => old.clone(),
    };
    for new in &resource.settings {
        let value = new.value.clone().unwrap_or_default();
        match new.operation {
            SET => drop(settings.insert(new.name.clone(), value)),
            DELETE => drop(settings.remove(&new.name)),
            APPEND | SUBTRACT => {
                let default = list_default(kind, new)?;
                let now = settings.get(&new.name).map_or(default, String::as_str);
                let list = combined(now, new.operation, &value);
                settings.insert(new.name.clone(), list);
            }
            other => return Err(invalid(format!("Unknown operations type {other}"))),
        }
    }
    Ok(settings)
}

/// Kafka's sum and difference of lists: it compares the entries as they are written.
fn combined(now: &str, operation: i8, value: &str) -> String {
    let mut entries: Vec<&str> = now.split(',').filter(|entry| !entry.is_empty()).collect();
    for entry in value.split(',') {
        let place = entries.iter().position(|there| *there == entry);
        match (operation, place) {
            (APPEND, None) => entries.push(entry),
            (SUBTRACT, Some(place)) => drop(entries.remove(place)),
            _ => {}
        }
    }
    entries.join(",")
}

fn list_default(kind: i8, new: &NewSetting) -> Result<&'static str, Fault> {
    let name = &new.name;
    let row = match kind {
        RESOURCE_TOPIC => config::topic_setting(name),
        RESOURCE_BROKER => broker_setting(name),
        _ => None,
    };
    if let Some(default) = row.and_then(|row| row.list_default()) {
        return Ok(default);
    }
    let (upper, lower) = match new.operation {
        APPEND => ("APPEND", "append"),
        _ => ("SUBTRACT", "subtract"),
    };
    let sentence = match (kind, row) {
        (RESOURCE_BROKER_LOGGER, _) => {
            let sentence =
                format!("{upper} operation is not allowed for the BROKER_LOGGER resource");
            return Err(invalid(sentence));
        }
        (RESOURCE_BROKER, None) => format!("Unknown config name: {name}"),
        (RESOURCE_BROKER, _) => {
            format!("Config value {lower} is not allowed for config key: {name}")
        }
        _ => format!("Can't {upper} to key {name} because its type is not LIST."),
    };
    Err((ErrorCode::InvalidConfig, sentence))
}

fn check_topic(state: &State, config: &Config, name: &str, new: &Overrides) -> Result<(), Fault> {
    if name.is_empty() {
        return Err(invalid("Default topic resources are not allowed."));
    }
    check_name(name).map_err(|sentence| (ErrorCode::InvalidTopicException, sentence))?;
    TopicConfig::new(config, new).map_err(bad_config)?;
    match state.topics.contains_key(name) {
        true => Ok(()),
        false => Err((
            ErrorCode::UnknownTopicOrPartition,
            format!("The topic '{name}' does not exist."),
        )),
    }
}

fn check_broker(state: &State, config: &Config, name: &str, new: &Overrides) -> Result<(), Fault> {
    let mut dynamic = state.dynamic(config.node_id);
    check_min_isr(&dynamic, name, new)?;
    match name {
        "" => dynamic.cluster.clone_from(new),
        _ => dynamic.node.clone_from(new),
    }
    check_dynamic(new)
        .and_then(|()| config.with(dynamic))
        .map_err(|error| invalid(error.to_string()))?;
    Ok(())
}

/// A new cluster has the least number of in-sync replicas set for all brokers alike, and keeps it so (KIP-966).
fn check_min_isr(old: &Dynamic, name: &str, new: &Overrides) -> Result<(), Fault> {
    let set = |settings: &Overrides| settings.contains_key(MIN_INSYNC_REPLICAS);
    let sentence = match name {
        "" if set(&old.cluster) && !set(new) => {
            format!("Cluster-level {MIN_INSYNC_REPLICAS} cannot be removed while ELR is enabled.")
        }
        "" => return Ok(()),
        _ if set(new) => {
            format!("Broker-level {MIN_INSYNC_REPLICAS} cannot be altered while ELR is enabled.")
        }
        _ => return Ok(()),
    };
    Err((ErrorCode::InvalidConfig, sentence))
}

fn check_group(config: &Config, name: &str, new: &Overrides) -> Result<(), Fault> {
    if name.is_empty() {
        return Err(invalid("Default group resources are not allowed."));
    }
    GroupConfig::new(config, new).map_err(bad_config)?;
    Ok(())
}

/// Clients are never asked for their metrics, so a subscription to them would be silently ignored.
fn check_client_metrics(name: &str, resource: &NewSettings) -> Result<(), Fault> {
    if name.is_empty() {
        return Err(invalid("Subscription name can't be empty"));
    }
    match resource.settings.iter().find(|new| new.operation != DELETE) {
        Some(new) => {
            let sentence = format!("{}: the metrics of clients are not collected", new.name);
            Err(invalid(sentence))
        }
        None => Ok(()),
    }
}

fn check_loggers(resource: &NewSettings) -> Result<(), Fault> {
    match resource.settings.first() {
        Some(new) => Err((
            ErrorCode::InvalidConfig,
            format!("Logger {} does not exist!", new.name),
        )),
        None => Ok(()),
    }
}

/// Publishes what was committed: the settings of the broker, and those of each topic that they or the plan change.
/// Gives the jobs by which the writer learns of them; they hold for what it takes up afterwards.
pub fn put_in_force(
    plan: &SettingsPlan,
    state: &State,
    rooms: &Rooms,
    published: &Published,
) -> Vec<Job> {
    tell_what_has_no_effect(&plan.records);
    let mut named: BTreeSet<&str> = plan.records.iter().filter_map(topic_named).collect();
    let old = rooms.settings.get();
    match old.with(state.dynamic(old.node_id)) {
        Ok(config) => {
            if config.topic_defaults() != old.topic_defaults() {
                named.extend(state.topics.keys().map(String::as_str));
            }
            rooms.settings.set(Arc::new(config));
        }
        // The plan checked them, each resource for itself: two of one request need not go together.
        Err(error) => log::error!("{error}; the settings before stay in force until that ends"),
    }
    let (config, catalog) = (rooms.settings.get(), published.get());
    let (mut changed, mut jobs) = (Vec::new(), Vec::new());
    for name in named {
        let (Some(topic), Some(known)) = (catalog.by_name(name), state.topics.get(name)) else {
            continue;
        };
        let config = TopicConfig::in_force(&config, name, &known.overrides);
        let partitions = topic.partitions.iter();
        jobs.extend(partitions.map(|one| rooms.configure(one.clone(), &config)));
        changed.push(Arc::new(Topic {
            name: topic.name.clone(),
            id: topic.id,
            partitions: topic.partitions.clone(),
            overrides: known.overrides.clone(),
            config,
        }));
    }
    published.change(|catalog| changed.into_iter().for_each(|topic| catalog.insert(topic)));
    jobs
}

/// Nothing is silently ignored: what was set and changes nothing is named, once a request.
pub fn tell_what_has_no_effect(records: &[MetadataRecord]) {
    let reason = |record: &MetadataRecord| {
        let MetadataRecord::Config(config) = record else {
            return None;
        };
        config.value.as_ref()?;
        let row = match config.resource_type {
            RESOURCE_TOPIC => config::topic_setting(&config.name),
            _ => broker_setting(&config.name),
        };
        Some((config.name.clone(), row?.without_effect()?))
    };
    let named: BTreeSet<_> = records.iter().filter_map(reason).collect();
    for (name, reason) in named {
        log::info!("{name} was set and has no effect: {reason}");
    }
}

fn topic_named(record: &MetadataRecord) -> Option<&str> {
    match record {
        MetadataRecord::Config(config) if config.resource_type == RESOURCE_TOPIC => {
            Some(&config.resource_name)
        }
        _ => None,
    }
}

fn invalid(sentence: impl Into<String>) -> Fault {
    (ErrorCode::InvalidRequest, sentence.into())
}

fn bad_config(error: crate::error::Error) -> Fault {
    (ErrorCode::InvalidConfig, error.to_string())
}
