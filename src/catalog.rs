//! Topics, ids, partitions, settings, leader epochs: what the records of `__cluster_metadata-0` add up to.
//!
//! Owns two forms of the same thing. [`State`] is what the records say; the control thread alone changes it, by
//! [`State::apply`], once a record is synced. [`Catalog`] is what other threads see: immutable, with the
//! partitions in it, published through [`Published`]. Invariants: a topic's id never comes back; a partition's
//! leader epoch never falls; a name has passed [`check_name`] before any path is built from it.

use crate::config::{Dynamic, Overrides, TopicConfig};
use crate::lock;
use crate::quota;
use crate::storage::Partition;
use crate::wire::Uuid;
use crate::wire::metadata_records::{ClientQuotaRecord, ConfigRecord, MetadataRecord};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// The topic that holds the catalog itself, as KRaft names it.
pub const METADATA_TOPIC: &str = "__cluster_metadata";

/// The topic that holds groups and their offsets.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// The topic that holds the state of transactions.
pub const TRANSACTIONS_TOPIC: &str = "__transaction_state";

/// KRaft's fixed id of [`METADATA_TOPIC`].
pub const METADATA_TOPIC_ID: Uuid = Uuid([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

/// `ConfigRecord`'s resource type of a topic (Kafka's `ConfigResource.Type`).
pub const RESOURCE_TOPIC: i8 = 2;
/// That of a broker, by its id; without a name, of all brokers.
pub const RESOURCE_BROKER: i8 = 4;
/// That of a broker's loggers, which no record holds.
pub const RESOURCE_BROKER_LOGGER: i8 = 8;
/// That of a subscription to clients' metrics (KIP-714).
pub const RESOURCE_CLIENT_METRICS: i8 = 16;
/// That of a consumer group (KIP-848).
pub const RESOURCE_GROUP: i8 = 32;

/// The producer ids that one record reserves (Kafka's `ProducerIdsBlock.PRODUCER_ID_BLOCK_SIZE`).
pub const PRODUCER_IDS_PER_BLOCK: i64 = 1000;

/// Kafka's limit for topic names (`Topic.MAX_NAME_LENGTH`).
const NAME_BYTES_MAX: usize = 249;

/// A topic as the records describe it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopicState {
    /// Its id.
    pub id: Uuid,
    /// Its own settings, over the broker's.
    pub overrides: Overrides,
    /// The leader epoch of each partition.
    pub leader_epochs: Vec<i32>,
    /// Whether records are lost that may have set more of it.
    pub has_lost_settings: bool,
}

/// What all records read so far add up to.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Topics by name.
    pub topics: BTreeMap<String, TopicState>,
    /// Ids whose RemoveTopicRecord was read: only their directories may be deleted.
    pub removed: HashSet<Uuid>,
    /// The first producer id that no block was recorded for.
    pub next_producer_id: i64,
    /// Quotas, by whom they are for.
    pub quotas: quota::Table,
    /// The settings of all that is no topic, by resource type and name; none is empty.
    pub settings: BTreeMap<(i8, String), Overrides>,
    /// Whether the first record of all, the metadata version, is there.
    pub formatted: bool,
    /// Whether some of its records are gone: then what the directories say may be newer than what it knows.
    pub has_lost_records: bool,
    /// Grows with every record that makes, widens or removes a topic; counts from each start anew.
    pub changes: u64,
    names: HashMap<Uuid, String>,
    /// The names that hold a '.' or a '_', by what they are without the difference.
    alike: HashMap<String, BTreeSet<String>>,
}

impl State {
    /// Adds a record. One that does not fit what came before changes nothing: it belongs to a topic whose own
    /// record was lost in a gap.
    pub fn apply(&mut self, record: &MetadataRecord) {
        match record {
            MetadataRecord::Topic(topic) => {
                self.changes += 1;
                self.names.insert(topic.topic_id, topic.name.clone());
                if let Some(plain) = plain(&topic.name) {
                    let alike = self.alike.entry(plain).or_default();
                    alike.insert(topic.name.clone());
                }
                let state = TopicState {
                    id: topic.topic_id,
                    ..TopicState::default()
                };
                self.topics.insert(topic.name.clone(), state);
            }
            MetadataRecord::Partition(partition) => {
                self.changes += 1;
                if let Some(topic) = self.topic_mut(partition.topic_id) {
                    let index = partition.partition_id.max(0) as usize;
                    // Partitions come in order; a hole can only be one that a gap in the log left.
                    if index <= topic.leader_epochs.len() + PARTITION_HOLE_MAX {
                        let len = topic.leader_epochs.len().max(index + 1);
                        topic.leader_epochs.resize(len, 0);
                        let epoch = &mut topic.leader_epochs[index];
                        *epoch = partition.leader_epoch.max(*epoch);
                    }
                }
            }
            MetadataRecord::PartitionChange(change) if change.leader != NO_LEADER_CHANGE => {
                let topic = self.topic_mut(change.topic_id);
                let epochs = topic.map(|topic| &mut topic.leader_epochs);
                if let Some(epoch) =
                    epochs.and_then(|epochs| epochs.get_mut(change.partition_id.max(0) as usize))
                {
                    *epoch = epoch.saturating_add(1);
                }
            }
            MetadataRecord::Config(config) if config.resource_type == RESOURCE_TOPIC => {
                if let Some(topic) = self.topics.get_mut(&config.resource_name) {
                    set(&mut topic.overrides, config);
                }
            }
            MetadataRecord::Config(config) => {
                let resource = (config.resource_type, config.resource_name.clone());
                let settings = self.settings.entry(resource.clone()).or_default();
                set(settings, config);
                if settings.is_empty() {
                    self.settings.remove(&resource);
                }
            }
            MetadataRecord::RemoveTopic(removed) => {
                self.changes += 1;
                self.removed.insert(removed.topic_id);
                self.remove_topic(removed.topic_id);
            }
            MetadataRecord::ProducerIds(ids) => {
                self.next_producer_id = self.next_producer_id.max(ids.next_producer_id);
            }
            MetadataRecord::ClientQuota(quota) => self.apply_quota(quota),
            MetadataRecord::FeatureLevel(_) => self.formatted = true,
            _ => {}
        }
    }

    /// Takes a topic out, but not one that took its name since.
    fn remove_topic(&mut self, id: Uuid) {
        if let Some(name) = self.names.remove(&id)
            && self.topics.get(&name).is_some_and(|topic| topic.id == id)
        {
            self.forget_alike(&name);
            self.topics.remove(&name);
        }
    }

    /// So many records are lost here, and any may have said how long a topic that was there is to be kept: none grows
    /// too old until someone says so again. The producer ids that they may have reserved are skipped.
    pub fn lose_records(&mut self, count: i64) {
        if count <= 0 {
            return;
        }
        self.has_lost_records = true;
        self.skip_producer_ids(count);
        let topics = self
            .topics
            .iter_mut()
            .filter(|(name, _)| !is_internal(name));
        for (_, topic) in topics {
            topic.has_lost_settings = true;
            topic.overrides.extend(kept_for_ever());
        }
    }

    /// Says which topics are kept for ever since their settings may be lost, now that all records are read.
    pub fn tell_what_is_kept(&self) {
        let lost = self.topics.iter().filter(|(_, t)| t.has_lost_settings);
        let kept = kept_for_ever();
        for (name, topic) in lost {
            if kept
                .iter()
                .any(|(key, value)| topic.overrides.get(key) == Some(value))
            {
                log::warn!(
                    "{name}: settings may be lost; it is kept until retention.ms and retention.bytes are set anew"
                );
            }
        }
    }

    /// So many records are lost, and each may have reserved producer ids: none of those is given out again.
    pub fn skip_producer_ids(&mut self, lost_records: i64) {
        let ids = lost_records.max(0).saturating_mul(PRODUCER_IDS_PER_BLOCK);
        self.next_producer_id = self.next_producer_id.saturating_add(ids);
    }

    fn apply_quota(&mut self, quota: &ClientQuotaRecord) {
        let parts = quota.entity.iter();
        let entity: quota::Entity = parts
            .map(|part| (part.entity_type.clone(), part.entity_name.clone()))
            .collect();
        let values = self.quotas.entry(entity.clone()).or_default();
        match quota.remove {
            false => drop(values.insert(quota.key.clone(), quota.value)),
            true => drop(values.remove(&quota.key)),
        }
        if values.is_empty() {
            self.quotas.remove(&entity);
        }
    }

    fn topic_mut(&mut self, id: Uuid) -> Option<&mut TopicState> {
        self.topics.get_mut(self.names.get(&id)?)
    }

    fn forget_alike(&mut self, name: &str) {
        if let Some(plain) = plain(name)
            && let Some(alike) = self.alike.get_mut(&plain)
        {
            alike.remove(name);
            if alike.is_empty() {
                self.alike.remove(&plain);
            }
        }
    }

    /// What was set of a resource; nothing if it is not there.
    pub fn settings_of(&self, resource_type: i8, name: &str) -> Overrides {
        let settings = match resource_type {
            RESOURCE_TOPIC => self.topics.get(name).map(|topic| &topic.overrides),
            _ => self.settings.get(&(resource_type, name.to_owned())),
        };
        settings.cloned().unwrap_or_default()
    }

    /// What was set of this node, of all brokers and of groups.
    pub fn dynamic(&self, node_id: i32) -> Dynamic {
        let groups = self.settings.iter();
        Dynamic {
            cluster: self.settings_of(RESOURCE_BROKER, ""),
            node: self.settings_of(RESOURCE_BROKER, &node_id.to_string()),
            groups: groups
                .filter(|((kind, _), _)| *kind == RESOURCE_GROUP)
                .map(|((_, id), settings)| (id.clone(), settings.clone()))
                .collect(),
        }
    }

    /// The topic whose name differs from `name` only in '.' against '_', which metrics cannot tell apart.
    pub fn collision(&self, name: &str) -> Option<&str> {
        let mut alike = self.alike.get(&plain(name)?)?.iter();
        alike.find(|other| *other != name).map(String::as_str)
    }

    /// The name of the topic with this id.
    pub fn name_of(&self, id: Uuid) -> Option<&str> {
        self.names.get(&id).map(String::as_str)
    }
}

fn set(settings: &mut Overrides, record: &ConfigRecord) {
    match &record.value {
        Some(value) => settings.insert(record.name.clone(), value.clone()),
        None => settings.remove(&record.name),
    };
}

/// The settings of a topic whose own are not known: no default may take what a setting had kept.
pub fn kept_for_ever() -> Overrides {
    let settings = ["retention.ms", "retention.bytes"];
    settings.map(|name| (name.into(), "-1".into())).into()
}

/// `PartitionChangeRecord.leader` when the leader stays (Kafka's `LeaderConstants.NO_LEADER_CHANGE`).
pub const NO_LEADER_CHANGE: i32 = -2;

/// A partition number this far beyond the last known one is not believed.
const PARTITION_HOLE_MAX: usize = 10_000;

/// A topic as other threads see it; immutable.
pub struct Topic {
    /// Its name.
    pub name: Arc<str>,
    /// Its id.
    pub id: Uuid,
    /// Its partitions, by number.
    pub partitions: Vec<Arc<Partition>>,
    /// Its own settings, as they were set.
    pub overrides: Overrides,
    /// Its settings in force.
    pub config: TopicConfig,
}

impl Topic {
    /// The partition of this number.
    pub fn partition(&self, index: i32) -> Option<&Arc<Partition>> {
        self.partitions.get(usize::try_from(index).ok()?)
    }

    /// The rows that it takes in an answer: itself and its partitions.
    pub fn rows(&self) -> usize {
        1 + self.partitions.len()
    }

    /// Whether the broker keeps it for itself.
    pub fn is_internal(&self) -> bool {
        is_internal(&self.name)
    }
}

/// Whether a topic of this name is one that the broker keeps for itself.
pub fn is_internal(name: &str) -> bool {
    matches!(name, METADATA_TOPIC | OFFSETS_TOPIC | TRANSACTIONS_TOPIC)
}

/// A directory with a higher number was not made by a broker.
const PARTITION_INDEX_MAX: i32 = 100_000;

/// Topic and number of a partition's directory, if it has a name of that form.
pub fn partition_of(name: &str) -> Option<(&str, i32)> {
    let (topic, number) = name.rsplit_once('-')?;
    let index: i32 = number.parse().ok()?;
    let canonical = index.to_string() == number && (0..PARTITION_INDEX_MAX).contains(&index);
    (canonical && check_name(topic).is_ok()).then_some((topic, index))
}

/// All topics at one moment; immutable.
#[derive(Clone, Default)]
pub struct Catalog {
    by_name: BTreeMap<Arc<str>, Arc<Topic>>,
    by_id: HashMap<Uuid, Arc<Topic>>,
}

impl Catalog {
    /// The topic of this name.
    pub fn by_name(&self, name: &str) -> Option<&Arc<Topic>> {
        self.by_name.get(name)
    }

    /// The topic with this id.
    pub fn by_id(&self, id: Uuid) -> Option<&Arc<Topic>> {
        self.by_id.get(&id)
    }

    /// How many topics and partitions there are: the rows of an answer about all of them.
    pub fn rows(&self) -> usize {
        self.topics().map(|topic| topic.rows()).sum()
    }

    /// All topics, by name.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.by_name.values()
    }

    /// The topics from `name` on, by name.
    pub fn topics_from<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Arc<Topic>> {
        self.by_name
            .range::<str, _>((std::ops::Bound::Included(name), std::ops::Bound::Unbounded))
            .map(|(_, t)| t)
    }

    /// Adds a topic, or puts it in the place of its namesake.
    pub fn insert(&mut self, topic: Arc<Topic>) {
        self.by_id.insert(topic.id, topic.clone());
        self.by_name.insert(topic.name.clone(), topic);
    }

    /// Takes a topic out.
    pub fn remove(&mut self, name: &str) {
        if let Some(topic) = self.by_name.remove(name) {
            self.by_id.remove(&topic.id);
        }
    }
}

/// The catalog that is published now.
pub type Published = lock::Published<Catalog>;

/// A topic's name as a sentence shows it: a client's may be 32 KiB long, and many sentences may be of the same one.
pub fn shown(name: &str) -> &str {
    let end = name.char_indices().nth(NAME_BYTES_MAX);
    end.map_or(name, |(end, _)| &name[..end])
}

/// Checks a topic's name as Kafka does; the error is Kafka's sentence, made for INVALID_TOPIC_EXCEPTION.
pub fn check_name(name: &str) -> Result<(), String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let shown = shown(name);
    let fault = match name {
        "" => "the empty string is not allowed".into(),
        "." | ".." => format!("'{name}' is not allowed"),
        _ if name.len() > NAME_BYTES_MAX => {
            format!(
                "the length of '{shown}' is longer than the max allowed length {NAME_BYTES_MAX}"
            )
        }
        _ if !name.bytes().all(legal) => {
            format!(
                "'{shown}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
            )
        }
        _ => return Ok(()),
    };
    Err(format!("Topic name is invalid: {fault}"))
}

/// What names that collide have in common; `None` if the name can collide with none.
fn plain(name: &str) -> Option<String> {
    name.contains(['.', '_']).then(|| name.replace('.', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::metadata_records::{RemoveTopicRecord, TopicRecord};

    #[test]
    fn names_that_would_leave_the_data_directory_are_refused() {
        for name in ["", ".", "..", "a/b", "a\0b", "ä", "a b", &"x".repeat(250)] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        for name in ["a", "...", "a.b_c-D9", &"x".repeat(249)] {
            assert!(check_name(name).is_ok(), "{name:?}");
        }
    }

    #[test]
    fn a_resource_without_settings_is_forgotten() {
        let mut state = State::default();
        let record = |resource_type, resource_name: &str, value: Option<&str>| {
            MetadataRecord::Config(ConfigRecord {
                resource_type,
                resource_name: resource_name.into(),
                name: "a".into(),
                value: value.map(str::to_owned),
            })
        };
        for (kind, name, value) in [(4, "", "1"), (4, "7", "2"), (32, "g", "3")] {
            state.apply(&record(kind, name, Some(value)));
        }
        let dynamic = state.dynamic(7);
        assert_eq!((&*dynamic.cluster["a"], &*dynamic.node["a"]), ("1", "2"));
        assert_eq!(dynamic.groups["g"]["a"], "3");
        assert_eq!(state.dynamic(8).node, Overrides::new());
        state.apply(&record(32, "g", None));
        state.apply(&record(2, "no such topic", Some("4")));
        assert_eq!(state.settings.len(), 2);
    }

    /// What is lost may have set another retention than is known; what is set later counts.
    #[test]
    fn topics_that_were_there_when_records_were_lost_are_kept() {
        let mut state = State::default();
        let topic = |id, name: &str| {
            MetadataRecord::Topic(TopicRecord {
                name: name.into(),
                topic_id: Uuid([id; 16]),
            })
        };
        let retention = |name: &str| {
            MetadataRecord::Config(ConfigRecord {
                resource_type: RESOURCE_TOPIC,
                resource_name: name.into(),
                name: "retention.ms".into(),
                value: Some("5".into()),
            })
        };
        for (id, name) in [(1, "a"), (2, "b"), (3, OFFSETS_TOPIC)] {
            state.apply(&topic(id, name));
        }
        state.apply(&retention("a"));
        state.lose_records(0);
        assert_eq!(state.settings_of(RESOURCE_TOPIC, "b"), Overrides::new());
        state.lose_records(1);
        state.apply(&topic(4, "later"));
        state.apply(&retention("b"));
        let of = |name: &str| state.settings_of(RESOURCE_TOPIC, name);
        assert_eq!(of("a"), kept_for_ever());
        assert_eq!(
            (&*of("b")["retention.ms"], &*of("b")["retention.bytes"]),
            ("5", "-1")
        );
        assert_eq!(
            (of("later"), of(OFFSETS_TOPIC)),
            (Overrides::new(), Overrides::new())
        );
        assert_eq!(state.next_producer_id, PRODUCER_IDS_PER_BLOCK);
    }

    #[test]
    fn dot_and_underscore_collide() {
        let mut state = State::default();
        for (id, name) in [(1, "a.b"), (2, "c")] {
            state.apply(&MetadataRecord::Topic(TopicRecord {
                name: name.into(),
                topic_id: Uuid([id; 16]),
            }));
        }
        assert_eq!(state.collision("a_b"), Some("a.b"));
        assert_eq!(state.collision("a.b"), None);
        assert_eq!(state.collision("d.e"), None);
        state.apply(&MetadataRecord::RemoveTopic(RemoveTopicRecord {
            topic_id: Uuid([1; 16]),
        }));
        assert_eq!(state.collision("a_b"), None);
        assert!(state.alike.is_empty());
    }
}
