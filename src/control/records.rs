//! The catalog's records: some of them as a batch of its log, and all of them, for when the log has lost some.

use super::plan::{NewTopic, partition_record, topic_records};
use super::quotas::{QuotaChange, alter_quotas};
use crate::api::api_versions::{FEATURES, Feature};
use crate::batch::builder::Builder;
use crate::batch::check::Checked;
use crate::catalog::State;
use crate::clock::wall_clock_ms;
use crate::wire::metadata_records::{
    ConfigRecord, FeatureLevelRecord, MetadataRecord, ProducerIdsRecord, RemoveTopicRecord,
};

/// Records as one batch of the catalog's log.
pub fn batch_of(records: &[MetadataRecord]) -> Checked {
    let now_ms = wall_clock_ms();
    let mut batch = Builder::new(now_ms);
    for record in records {
        batch.add(None, Some(&record.encode()), &[], now_ms);
    }
    Checked::own(batch.build())
}

/// The features of a catalog, which say that it is none of a new directory.
pub fn feature_levels() -> impl Iterator<Item = MetadataRecord> {
    let level = |feature: Feature| {
        MetadataRecord::FeatureLevel(FeatureLevelRecord {
            name: feature.name.into(),
            feature_level: feature.level,
        })
    };
    FEATURES.into_iter().map(level)
}

/// The block of producer ids that ends before `next`.
pub fn producer_ids(node_id: i32, next: i64) -> MetadataRecord {
    MetadataRecord::ProducerIds(ProducerIdsRecord {
        broker_id: node_id,
        broker_epoch: 0,
        next_producer_id: next,
    })
}

/// All that is known, so that a start which reads any part of what came before these knows it too: a topic's record
/// begins it anew, and one that is gone goes again. Settings and quotas that were taken back are not known any more; of
/// those the record of that alone can tell.
pub fn all_of(state: &State, node_id: i32) -> Vec<MetadataRecord> {
    let removal = |id: &_| MetadataRecord::RemoveTopic(RemoveTopicRecord { topic_id: *id });
    let removals = state.removed.iter().map(removal);
    let mut records: Vec<MetadataRecord> = feature_levels().chain(removals).collect();
    for (name, topic) in &state.topics {
        let new = NewTopic {
            name: name.clone(),
            overrides: topic.overrides.clone(),
            ..NewTopic::default()
        };
        records.extend(topic_records(&new, topic.id, 0, node_id));
        let epochs = (0..).zip(&topic.leader_epochs);
        records.extend(
            epochs.map(|(index, epoch)| partition_record(topic.id, index, *epoch, node_id)),
        );
    }
    for ((resource_type, resource_name), settings) in &state.settings {
        records.extend(settings.iter().map(|(name, value)| {
            MetadataRecord::Config(ConfigRecord {
                resource_type: *resource_type,
                resource_name: resource_name.clone(),
                name: name.clone(),
                value: Some(value.clone()),
            })
        }));
    }
    let quotas = state.quotas.iter().flat_map(|(entity, values)| {
        values.iter().map(|(key, value)| QuotaChange {
            entity: entity.clone(),
            key: key.clone(),
            value: Some(*value),
        })
    });
    records.extend(alter_quotas(&State::default(), quotas.collect()));
    records.push(producer_ids(node_id, state.next_producer_id));
    records
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Uuid;

    fn of_broker(value: &str) -> MetadataRecord {
        MetadataRecord::Config(ConfigRecord {
            resource_type: crate::catalog::RESOURCE_BROKER,
            resource_name: "1".into(),
            name: "num.partitions".into(),
            value: Some(value.into()),
        })
    }

    /// Of topics with settings and epochs, one of them made anew, of a broker's setting and of a quota.
    fn lived() -> Vec<MetadataRecord> {
        let topic = |name: &str, id, settings: &[(&str, &str)]| {
            let own = settings.iter().map(|(k, v)| (k.to_string(), v.to_string()));
            let new = NewTopic {
                name: name.into(),
                overrides: own.collect(),
                ..NewTopic::default()
            };
            topic_records(&new, Uuid([id; 16]), 2, 1)
        };
        let quota = QuotaChange {
            entity: [("user".into(), None)].into(),
            key: "producer_byte_rate".into(),
            value: Some(5.0),
        };
        let mut records = topic("again", 1, &[("retention.ms", "1")]);
        records.push(MetadataRecord::RemoveTopic(RemoveTopicRecord {
            topic_id: Uuid([1; 16]),
        }));
        records.extend(topic("again", 2, &[("cleanup.policy", "compact")]));
        records.extend(topic("other", 3, &[]));
        records.push(partition_record(Uuid([3; 16]), 1, 7, 1));
        records.extend([of_broker("3"), of_broker("4"), producer_ids(1, 2000)]);
        records.extend(alter_quotas(&State::default(), vec![quota]));
        records
    }

    #[test]
    fn all_records_make_good_whatever_was_lost_before_them() {
        let (mut known, mut lost) = (State::default(), lived());
        lost.iter().for_each(|record| known.apply(record));
        let all = all_of(&known, 1);
        for _ in 0..=lost.len() {
            let mut state = State::default();
            lost.iter().for_each(|record| state.apply(record));
            state.lose_records(1);
            all.iter().for_each(|record| state.apply(record));
            assert_eq!(state.topics, known.topics);
            assert_eq!(
                (&state.settings, &state.quotas),
                (&known.settings, &known.quotas)
            );
            assert_eq!(state.removed, known.removed);
            assert!(
                state.formatted,
                "else the next start sets what a new one has"
            );
            assert!(state.next_producer_id >= known.next_producer_id);
            lost.pop();
        }
    }
}
