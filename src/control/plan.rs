//! What a change of the catalog would write: pure functions from the catalog's state and a request to records.
//!
//! Invariant: nothing here has an effect; a plan that is never committed leaves no trace. The errors and their
//! sentences are those of Kafka's `ReplicationControlManager`.

use crate::catalog::{METADATA_TOPIC, RESOURCE_TOPIC, State, check_name};
use crate::config::{Config, TopicConfig};
use crate::error::ErrorCode;
use crate::wire::Uuid;
use crate::wire::metadata_records::{
    ConfigRecord, MetadataRecord, PartitionRecord, RemoveTopicRecord, TopicRecord,
};
use std::collections::{BTreeMap, BTreeSet};

/// Kafka's limit for the partitions that one request may make (`MAX_PARTITIONS_PER_BATCH`).
const PARTITIONS_PER_REQUEST_MAX: usize = 10_000;

/// A topic to be made (KIP-4, CreateTopics).
#[derive(Clone, Debug, Default)]
pub struct NewTopic {
    /// Its name, not yet checked.
    pub name: String,
    /// -1: the broker's default.
    pub partitions: i32,
    /// -1: the broker's default.
    pub replication_factor: i16,
    /// Broker ids for each partition number; empty: the broker chooses.
    pub assignments: Vec<(i32, Vec<i32>)>,
    /// Its own settings.
    pub overrides: BTreeMap<String, String>,
    /// Settings without a value, which is refused.
    pub without_value: Vec<String>,
}

/// Partitions to be added to a topic (KIP-195, CreatePartitions).
#[derive(Clone, Debug, Default)]
pub struct MorePartitions {
    /// The topic's name.
    pub name: String,
    /// How many it shall have in all.
    pub count: i32,
    /// Broker ids for each new partition; `None`: the broker chooses.
    pub assignments: Option<Vec<Vec<i32>>>,
}

/// Which topic to delete.
#[derive(Clone, Debug)]
pub enum TopicRef {
    /// By name.
    Name(String),
    /// By id (KIP-516).
    Id(Uuid),
    /// By both or by neither, which is refused.
    Unclear(Option<String>, Uuid),
}

/// Why one topic's change is refused: Kafka's code and sentence.
pub type Fault = (ErrorCode, String);

/// What became, or would become, of one topic of a request.
#[derive(Clone, Debug, Default)]
pub struct Planned {
    /// The topic's name, where known.
    pub name: Option<String>,
    /// The topic's id, zero where there is none.
    pub id: Uuid,
    /// How many partitions it has after the change.
    pub partitions: i32,
    /// Its own settings.
    pub overrides: BTreeMap<String, String>,
    /// Why it is refused, if it is.
    pub fault: Option<Fault>,
}

/// One request's answer, topic by topic, and the records that would make it so.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// In the order of the request.
    pub topics: Vec<Planned>,
    /// To be committed together.
    pub records: Vec<MetadataRecord>,
}

/// Plans a CreateTopics request; `new_id` gives ids.
pub fn create_topics(
    state: &State,
    config: &Config,
    topics: Vec<NewTopic>,
    mut new_id: impl FnMut() -> Uuid,
) -> Plan {
    let mut plan = Plan::default();
    let duplicates = duplicates(topics.iter().map(|topic| &topic.name));
    let mut budget = PARTITIONS_PER_REQUEST_MAX;
    for topic in topics {
        let mut planned = Planned {
            name: Some(topic.name.clone()),
            ..Planned::default()
        };
        let checked = match duplicates.contains(&topic.name) {
            true => Err(duplicate()),
            false => check_new_topic(state, config, &topic, &mut budget),
        };
        match checked {
            Err(fault) => planned.fault = Some(fault),
            Ok(count) => {
                planned.id = new_id();
                planned.partitions = count;
                plan.records
                    .extend(topic_records(&topic, planned.id, count, config.node_id));
                planned.overrides = topic.overrides;
            }
        }
        plan.topics.push(planned);
    }
    plan
}

/// The records that make a topic, in Kafka's order: topic, settings, partitions.
pub fn topic_records(
    topic: &NewTopic,
    id: Uuid,
    partitions: i32,
    node_id: i32,
) -> Vec<MetadataRecord> {
    let mut records = vec![MetadataRecord::Topic(TopicRecord {
        name: topic.name.clone(),
        topic_id: id,
    })];
    records.extend(topic.overrides.iter().map(|(name, value)| {
        MetadataRecord::Config(ConfigRecord {
            resource_type: RESOURCE_TOPIC,
            resource_name: topic.name.clone(),
            name: name.clone(),
            value: Some(value.clone()),
        })
    }));
    records.extend((0..partitions).map(|index| partition_record(id, index, 0, node_id)));
    records
}

/// The record of one partition, led by the only node.
pub fn partition_record(
    topic_id: Uuid,
    index: i32,
    leader_epoch: i32,
    node_id: i32,
) -> MetadataRecord {
    MetadataRecord::Partition(PartitionRecord {
        partition_id: index,
        topic_id,
        replicas: vec![node_id],
        isr: vec![node_id],
        leader: node_id,
        leader_epoch,
        ..PartitionRecord::default()
    })
}

fn check_new_topic(
    state: &State,
    config: &Config,
    topic: &NewTopic,
    budget: &mut usize,
) -> Result<i32, Fault> {
    check_name(&topic.name).map_err(|sentence| (ErrorCode::InvalidTopicException, sentence))?;
    if topic.name == METADATA_TOPIC {
        let sentence = format!("Creation of internal topic {METADATA_TOPIC} is prohibited.");
        return Err((ErrorCode::InvalidTopicException, sentence));
    }
    if state.topics.contains_key(&topic.name) {
        return Err((
            ErrorCode::TopicAlreadyExists,
            format!("Topic '{}' already exists.", topic.name),
        ));
    }
    if let Some(other) = state.collision(&topic.name) {
        let sentence = format!(
            "Topic '{}' collides with existing topic: {other}",
            topic.name
        );
        return Err((ErrorCode::InvalidTopicException, sentence));
    }
    if !topic.without_value.is_empty() {
        let names = topic.without_value.join(",");
        let sentence = format!("Null value not supported for topic configs: {names}");
        return Err((ErrorCode::InvalidConfig, sentence));
    }
    TopicConfig::new(config, &topic.overrides)
        .map_err(|error| (ErrorCode::InvalidConfig, error.to_string()))?;
    let count = match topic.assignments.is_empty() {
        true => check_counts(config, topic)?,
        false => check_assignments(config.node_id, topic)?,
    };
    take_partitions(budget, count)?;
    Ok(count)
}

fn check_counts(config: &Config, topic: &NewTopic) -> Result<i32, Fault> {
    match topic.replication_factor {
        -1 | 1 => {}
        factor if factor <= 0 => {
            let sentence =
                "Replication factor must be larger than 0, or -1 to use the default value.";
            return Err((ErrorCode::InvalidReplicationFactor, sentence.into()));
        }
        factor => {
            let sentence = format!(
                "Unable to replicate the partition {factor} time(s): The target replication factor of {factor} \
                 cannot be reached because only 1 broker(s) are registered."
            );
            return Err((ErrorCode::InvalidReplicationFactor, sentence));
        }
    }
    match topic.partitions {
        -1 => Ok(config.num_partitions),
        count if count <= 0 => {
            let sentence = "Number of partitions was set to an invalid non-positive value.";
            Err((ErrorCode::InvalidPartitions, sentence.into()))
        }
        count => Ok(count),
    }
}

fn check_assignments(node_id: i32, topic: &NewTopic) -> Result<i32, Fault> {
    let manual = "A manual partition assignment was specified, but";
    if topic.replication_factor != -1 {
        return Err((
            ErrorCode::InvalidRequest,
            format!("{manual} replication factor was not set to -1."),
        ));
    }
    if topic.partitions != -1 {
        return Err((
            ErrorCode::InvalidRequest,
            format!("{manual} numPartitions was not set to -1."),
        ));
    }
    let mut seen = BTreeSet::new();
    for (index, brokers) in &topic.assignments {
        if !seen.insert(*index) {
            let sentence =
                format!("Found multiple manual partition assignments for partition {index}");
            return Err((ErrorCode::InvalidReplicaAssignment, sentence));
        }
        check_replicas(node_id, brokers)?;
    }
    if seen.iter().copied().ne(0..seen.len() as i32) {
        let sentence = "partitions should be a consecutive 0-based integer sequence";
        return Err((ErrorCode::InvalidReplicaAssignment, sentence.into()));
    }
    Ok(seen.len() as i32)
}

fn check_replicas(node_id: i32, brokers: &[i32]) -> Result<(), Fault> {
    let fault = |why: String| Err((ErrorCode::InvalidReplicaAssignment, why));
    match brokers {
        [] => fault("The manual partition assignment includes an empty replica list.".into()),
        [only] if *only == node_id => Ok(()),
        _ => match brokers.iter().find(|broker| **broker != node_id) {
            Some(other) => fault(format!(
                "The manual partition assignment includes broker {other}, but no such broker is registered."
            )),
            None => fault(format!(
                "The manual partition assignment includes the broker {node_id} more than once."
            )),
        },
    }
}

fn take_partitions(budget: &mut usize, count: i32) -> Result<(), Fault> {
    match budget.checked_sub(count.max(0) as usize) {
        Some(left) => {
            *budget = left;
            Ok(())
        }
        None => {
            let sentence = format!(
                "Excessively large number of partitions per request; at most {PARTITIONS_PER_REQUEST_MAX}."
            );
            Err((ErrorCode::PolicyViolation, sentence))
        }
    }
}

/// Plans a DeleteTopics request.
pub fn delete_topics(state: &State, config: &Config, topics: &[TopicRef]) -> Plan {
    let mut plan = Plan::default();
    let mut seen = BTreeSet::new();
    for topic in topics {
        let (name, mut fault) = match topic {
            TopicRef::Name(name) if !state.topics.contains_key(name) => (
                Some(name.clone()),
                Some(unknown(ErrorCode::UnknownTopicOrPartition)),
            ),
            TopicRef::Name(name) => (Some(name.clone()), None),
            TopicRef::Id(id) => match state.name_of(*id) {
                Some(name) => (Some(name.into()), None),
                None => (None, Some(unknown(ErrorCode::UnknownTopicId))),
            },
            TopicRef::Unclear(name, _) => (name.clone(), Some(unclear(name.is_some()))),
        };
        let id = match topic {
            TopicRef::Id(id) | TopicRef::Unclear(_, id) => *id,
            TopicRef::Name(name) => state
                .topics
                .get(name)
                .map_or(Uuid::default(), |topic| topic.id),
        };
        if fault.is_none() && !config.delete_topic_enable {
            fault = Some((
                ErrorCode::TopicDeletionDisabled,
                "Topic deletion is disabled.".into(),
            ));
        } else if fault.is_none() && !seen.insert(name.clone()) {
            fault = Some(duplicate());
        }
        if fault.is_none() {
            plan.records
                .push(MetadataRecord::RemoveTopic(RemoveTopicRecord {
                    topic_id: id,
                }));
        }
        plan.topics.push(Planned {
            name,
            id,
            fault,
            ..Planned::default()
        });
    }
    plan
}

/// Plans a CreatePartitions request.
pub fn create_partitions(state: &State, config: &Config, topics: &[MorePartitions]) -> Plan {
    let mut plan = Plan::default();
    let duplicates = duplicates(topics.iter().map(|topic| &topic.name));
    let mut budget = PARTITIONS_PER_REQUEST_MAX;
    for topic in topics {
        let mut planned = Planned {
            name: Some(topic.name.clone()),
            ..Planned::default()
        };
        let checked = match duplicates.contains(&topic.name) {
            true => Err(duplicate()),
            false => check_more_partitions(state, config, topic, &mut budget),
        };
        match checked {
            Err(fault) => planned.fault = Some(fault),
            Ok((id, old)) => {
                (planned.id, planned.partitions) = (id, topic.count);
                plan.records.extend(
                    (old..topic.count).map(|index| partition_record(id, index, 0, config.node_id)),
                );
            }
        }
        plan.topics.push(planned);
    }
    plan
}

fn check_more_partitions(
    state: &State,
    config: &Config,
    topic: &MorePartitions,
    budget: &mut usize,
) -> Result<(Uuid, i32), Fault> {
    let known = state
        .topics
        .get(&topic.name)
        .ok_or_else(|| unknown(ErrorCode::UnknownTopicOrPartition))?;
    let old = known.leader_epochs.len() as i32;
    if topic.count == old {
        return Err((
            ErrorCode::InvalidPartitions,
            format!("Topic already has {old} partition(s)."),
        ));
    }
    if topic.count < old {
        let (name, count) = (&topic.name, topic.count);
        let sentence = format!(
            "The topic {name} currently has {old} partition(s); {count} would not be an increase."
        );
        return Err((ErrorCode::InvalidPartitions, sentence));
    }
    if let Some(assignments) = &topic.assignments {
        let (given, additional) = (assignments.len(), topic.count - old);
        if given != additional as usize {
            let sentence = format!(
                "Attempted to add {additional} additional partition(s), but only {given} assignment(s) were specified."
            );
            return Err((ErrorCode::InvalidReplicaAssignment, sentence));
        }
        assignments
            .iter()
            .try_for_each(|brokers| check_replicas(config.node_id, brokers))?;
    }
    take_partitions(budget, topic.count - old)?;
    Ok((known.id, old))
}

fn duplicates<'a>(names: impl Iterator<Item = &'a String>) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    names
        .filter(|name| !seen.insert(name.as_str()))
        .cloned()
        .collect()
}

fn unclear(has_name: bool) -> Fault {
    let sentence = match has_name {
        true => "You may not specify both topic name and topic id.",
        false => "Neither topic name nor id were specified.",
    };
    (ErrorCode::InvalidRequest, sentence.into())
}

fn duplicate() -> Fault {
    (
        ErrorCode::InvalidRequest,
        "Duplicate topic in the request.".into(),
    )
}

fn unknown(code: ErrorCode) -> Fault {
    let sentence = match code {
        ErrorCode::UnknownTopicId => "This server does not host this topic ID.",
        _ => "This server does not host this topic-partition.",
    };
    (code, sentence.into())
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
