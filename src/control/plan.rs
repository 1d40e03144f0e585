//! What a change of the catalog would write: pure functions from the catalog's state and a request to records.
//!
//! Invariant: nothing here has an effect; a plan that is never committed leaves no trace. The errors and their
//! sentences are those of Kafka's `ReplicationControlManager`.

use crate::catalog::{
    METADATA_TOPIC, OFFSETS_TOPIC, RESOURCE_TOPIC, State, TRANSACTIONS_TOPIC, check_name,
};
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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicRef {
    /// By name.
    Name(String),
    /// By id (KIP-516).
    Id(Uuid),
    /// By both or by neither, which is refused.
    Unclear(Option<String>, Uuid),
}

impl TopicRef {
    /// The name, where that is how it is asked for.
    fn name(&self) -> Option<&str> {
        match self {
            TopicRef::Name(name) => Some(name),
            TopicRef::Id(_) | TopicRef::Unclear(..) => None,
        }
    }

    /// The id, where that is how it is asked for.
    fn id(&self) -> Option<Uuid> {
        match self {
            TopicRef::Id(id) => Some(*id),
            TopicRef::Name(_) | TopicRef::Unclear(..) => None,
        }
    }

    fn refused(self, fault: Fault) -> Planned {
        let (name, id) = match self {
            TopicRef::Name(name) => (Some(name), Uuid::ZERO),
            TopicRef::Id(id) => (None, id),
            TopicRef::Unclear(name, id) => (name, id),
        };
        Planned {
            name,
            id,
            fault: Some(fault),
            ..Planned::default()
        }
    }
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

impl Planned {
    fn refused(name: String, fault: Fault) -> Planned {
        Planned {
            name: Some(name),
            fault: Some(fault),
            ..Planned::default()
        }
    }
}

/// One request's answer, topic by topic, and the records that would make it so.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// In the order of the request, but for what is there twice.
    pub topics: Vec<Planned>,
    /// To be committed together.
    pub records: Vec<MetadataRecord>,
}

/// Plans a CreateTopics request; `new_id` gives ids. A name that is there twice is refused once, behind the others, and
/// so is the catalog's own.
pub fn create_topics(
    state: &State,
    config: &Config,
    topics: Vec<NewTopic>,
    mut new_id: impl FnMut() -> Uuid,
) -> Plan {
    let mut plan = Plan::default();
    let (topics, duplicates) = part(topics, |topic| topic.name.clone());
    let (own, topics): (Vec<_>, Vec<_>) =
        (topics.into_iter()).partition(|topic| topic.name == METADATA_TOPIC);
    let mut budget = PARTITIONS_PER_REQUEST_MAX;
    for topic in topics {
        let mut planned = Planned {
            name: Some(topic.name.clone()),
            ..Planned::default()
        };
        match check_new_topic(state, config, &topic, &mut budget) {
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
    plan.topics.extend(duplicates.into_iter().map(duplicate));
    plan.topics.extend(own.into_iter().map(|topic| {
        let sentence = format!("Creation of internal topic {METADATA_TOPIC} is prohibited.");
        Planned::refused(topic.name, (ErrorCode::InvalidRequest, sentence))
    }));
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

/// Checks the replicas of a partition, as a client may name them: this node, once.
pub fn check_replicas(node_id: i32, brokers: &[i32]) -> Result<(), Fault> {
    let fault = |why: String| Err((ErrorCode::InvalidReplicaAssignment, why));
    if brokers.is_empty() {
        return fault("The manual partition assignment includes an empty replica list.".into());
    }
    let mut sorted = brokers.to_vec();
    sorted.sort_unstable();
    for (before, broker) in sorted.into_iter().enumerate() {
        if broker != node_id {
            return fault(format!(
                "The manual partition assignment includes broker {broker}, but no such broker is registered."
            ));
        }
        if before > 0 {
            return fault(format!(
                "The manual partition assignment includes the broker {broker} more than once."
            ));
        }
    }
    Ok(())
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

/// Plans a DeleteTopics request. A topic that is there twice, in whatever way, is refused once and not deleted.
pub fn delete_topics(state: &State, config: &Config, topics: Vec<TopicRef>) -> Plan {
    let mut plan = Plan::default();
    if !config.delete_topic_enable {
        let sentence = "Topic deletion is disabled.";
        let fault = (ErrorCode::TopicDeletionDisabled, sentence.to_owned());
        let refuse = |topic: TopicRef| topic.refused(fault.clone());
        plan.topics = topics.into_iter().map(refuse).collect();
        return plan;
    }
    let (unclear, topics): (Vec<_>, Vec<_>) =
        (topics.into_iter()).partition(|topic| matches!(topic, TopicRef::Unclear(..)));
    for topic in unclear {
        let sentence = match topic {
            TopicRef::Unclear(Some(_), _) => "You may not specify both topic name and topic id.",
            _ => "Neither topic name nor id were specified.",
        };
        let fault = (ErrorCode::InvalidRequest, sentence.into());
        plan.topics.push(topic.refused(fault));
    }
    let (topics, duplicates) = part(topics, TopicRef::clone);
    for topic in &duplicates {
        let what = topic.id().map_or("name", |_| "id");
        let fault = (
            ErrorCode::InvalidRequest,
            format!("Duplicate topic {what}."),
        );
        plan.topics.push(topic.clone().refused(fault));
    }
    let ids = topics.iter().chain(&duplicates);
    let ids: BTreeSet<Uuid> = ids.filter_map(TopicRef::id).collect();
    let named = topics.iter().filter_map(TopicRef::name);
    let named: BTreeSet<Uuid> = named
        .filter_map(|name| Some(state.topics.get(name)?.id))
        .collect();
    for topic in topics {
        // Named by name too: that is where it is refused.
        if topic.id().is_none_or(|id| !named.contains(&id)) {
            plan_removal(state, topic, &ids, &mut plan);
        }
    }
    plan
}

/// Plans the end of one topic, unless it is asked for by name and is one of `ids`, those that are asked for by id.
fn plan_removal(state: &State, topic: TopicRef, ids: &BTreeSet<Uuid>, plan: &mut Plan) {
    let name = match (topic.name(), topic.id()) {
        (Some(name), _) => Some(name),
        (None, Some(id)) => state.name_of(id),
        (None, None) => None,
    };
    let Some((name, found)) = name.and_then(|name| state.topics.get_key_value(name)) else {
        let code = match topic.id() {
            Some(_) => ErrorCode::UnknownTopicId,
            None => ErrorCode::UnknownTopicOrPartition,
        };
        return plan.topics.push(topic.refused(unknown(code)));
    };
    let mut planned = Planned {
        name: Some(name.clone()),
        id: found.id,
        ..Planned::default()
    };
    if topic.name().is_some() && ids.contains(&found.id) {
        let sentence = "The provided topic name maps to an ID that was already supplied.";
        planned.fault = Some((ErrorCode::InvalidRequest, sentence.into()));
    } else {
        let record = RemoveTopicRecord { topic_id: found.id };
        plan.records.push(MetadataRecord::RemoveTopic(record));
    }
    plan.topics.push(planned);
}

/// Plans a CreatePartitions request. A name that is there twice is refused once, before the others.
pub fn create_partitions(state: &State, config: &Config, topics: Vec<MorePartitions>) -> Plan {
    let mut plan = Plan::default();
    let (topics, duplicates) = part(topics, |topic| topic.name.clone());
    plan.topics.extend(duplicates.into_iter().map(duplicate));
    let mut budget = PARTITIONS_PER_REQUEST_MAX;
    for topic in topics {
        let mut planned = Planned {
            name: Some(topic.name.clone()),
            ..Planned::default()
        };
        match check_more_partitions(state, config, &topic, &mut budget) {
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
    if matches!(&*topic.name, OFFSETS_TOPIC | TRANSACTIONS_TOPIC) {
        // Kafka lets it, and then looks for each group's offsets in a partition that does not have them.
        let sentence = "Its records are found by the number of its partitions, which is fixed.";
        return Err((ErrorCode::InvalidTopicException, sentence.into()));
    }
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

/// Parts what is there once from the keys of what is there more often, both in the order of the request.
fn part<T, K: Clone + Ord>(all: Vec<T>, key: impl Fn(&T) -> K) -> (Vec<T>, Vec<K>) {
    let mut times: BTreeMap<K, u32> = BTreeMap::new();
    let mut twice = Vec::new();
    for one in &all {
        let times = times.entry(key(one)).or_default();
        *times += 1;
        if *times == 2 {
            twice.push(key(one));
        }
    }
    let once = all.into_iter().filter(|one| times[&key(one)] == 1);
    (once.collect(), twice)
}

fn duplicate(name: String) -> Planned {
    let fault = (ErrorCode::InvalidRequest, "Duplicate topic name.".into());
    Planned::refused(name, fault)
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
