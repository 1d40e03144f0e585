//! The broker's own records, as a start reads them from its logs: of groups, of transactions, of the catalog; and the
//! bytes that classic members agree on among themselves. What is read is written and read again the same, and what
//! they add up to is a state that can go on.
//!
//! Input: `u8 kind | (piece key, piece value), ...`.

use super::{Bound, Taken, memory, mutate};
use ottla::catalog::State;
use ottla::config::Config;
use ottla::group::records::Record;
use ottla::group::{self, Groups, protocol};
use ottla::txn::{self, Transactions};
use ottla::wire::Uuid;
use ottla::wire::metadata_records::*;
use std::collections::HashMap;
use std::sync::OnceLock;

/// An array's element, such as a string of no bytes, is larger in memory than in a record, and these come from our own
/// log, uncharged: a hundred thousand of them at most a record.
pub const BOUND: Bound = Bound {
    times: 60,
    bytes: 256 << 10,
};

fn config() -> &'static Config {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    CONFIG.get_or_init(Config::default)
}

type Pairs<'a> = Vec<(&'a [u8], Option<&'a [u8]>)>;

/// A value of no bytes is none.
fn pairs(mut input: &[u8]) -> Pairs<'_> {
    let mut pairs = Vec::new();
    while let Some(key) = mutate::piece(&mut input) {
        let value = mutate::piece(&mut input).filter(|value| !value.is_empty());
        pairs.push((key, value));
    }
    pairs
}

fn groups(pairs: &Pairs<'_>) {
    let catalog = State::default();
    let env = group::Env {
        now_ms: 1_000,
        time_ms: 1_000,
        config: config(),
        catalog: &catalog,
        new_id: &|| Uuid::ZERO,
    };
    let mut groups: Groups<u64> = Groups::default();
    for (offset, (key, value)) in (0..).zip(pairs) {
        let Ok(Some(record)) = Record::decode(key, *value) else {
            continue;
        };
        let (key, value) = record.encode();
        let again = Record::decode(&key, value.as_deref()).expect("our own record");
        let again = again.expect("of a known type");
        assert_eq!(again.encode(), (key, value));
        let transaction = (offset % 3 == 2).then_some((offset, 0));
        groups.replay(record, offset, transaction, &env);
    }
    groups.loaded(&env);
    let later = group::Env {
        now_ms: groups.next_due_ms().clamp(2_000, 1 << 50),
        ..env
    };
    groups.tick(&later);
    for effect in groups.take_effects() {
        if let group::Effect::Append { token, .. } = effect {
            groups.committed(token, Ok(1_000), &later);
        }
    }
}

fn transactions(pairs: &Pairs<'_>) {
    let env = txn::Env {
        now_ms: 1_000,
        time_ms: 1_000,
        config: config(),
    };
    let mut transactions: Transactions<u64> = Transactions::default();
    for (key, value) in pairs {
        let Ok(Some((id, transaction))) = txn::records::decode(key, *value) else {
            continue;
        };
        let (key, value) = txn::records::encode(&id, transaction.as_ref());
        let again = txn::records::decode(&key, value.as_deref());
        assert_eq!(again, Ok(Some((id.clone(), transaction.clone()))));
        transactions.replay(id, transaction);
    }
    transactions.loaded(
        vec![(("a".into(), 0), 7, 1)],
        &HashMap::from([(7, 1)]),
        &env,
    );
    // Marker after marker, and record after record, but not for ever.
    for _ in 0..10 {
        for effect in transactions.take_effects() {
            if let txn::Effect::Append { token, .. } | txn::Effect::Mark(token, _) = effect {
                transactions.committed(token, Ok(()), &env);
            }
        }
    }
    let later = txn::Env {
        now_ms: transactions.next_due_ms().clamp(2_000, 1 << 50),
        ..env
    };
    transactions.tick(&later);
}

fn catalog(pairs: &Pairs<'_>) {
    let mut state = State::default();
    for (_, value) in pairs {
        let Ok(record) = MetadataRecord::decode(value.unwrap_or_default()) else {
            continue;
        };
        let value = record.encode();
        let again = MetadataRecord::decode(&value).expect("our own record");
        assert_eq!(again.encode(), value);
        state.apply(&record);
    }
    for (name, topic) in &state.topics {
        let _ = state.name_of(topic.id);
        let _ = state.collision(name);
    }
    let _ = config().with_what_fits(state.dynamic(1));
}

fn agreed(pairs: &Pairs<'_>) {
    use protocol::{ConsumerProtocolAssignment, ConsumerProtocolSubscription};
    for (bytes, _) in pairs {
        let version = protocol::version(bytes);
        if let Ok(read) = protocol::read::<ConsumerProtocolSubscription>(bytes) {
            let written = protocol::write(&read, version.clone().expect("it was read"));
            assert_eq!(protocol::read(&written), Ok(read));
        }
        if let Ok(read) = protocol::read::<ConsumerProtocolAssignment>(bytes) {
            let written = protocol::write(&read, version.expect("it was read"));
            assert_eq!(protocol::read(&written), Ok(read));
        }
    }
}

pub fn run(mut input: &[u8]) -> Taken {
    let kind = mutate::u8(&mut input).unwrap_or_default();
    let pairs = pairs(input);
    let check = [groups, transactions, catalog, agreed][usize::from(kind & 3)];
    let ((), most) = memory::measured(|| check(&pairs));
    Taken {
        most,
        from_budgets: 0,
    }
}

fn put(out: &mut Vec<u8>, (key, value): (Vec<u8>, Option<Vec<u8>>)) {
    mutate::put_piece(out, &key);
    mutate::put_piece(out, &value.unwrap_or_default());
}

fn group_records() -> Vec<Record> {
    use group::records::*;
    let (g, m) = (|| "g".to_owned(), || "m".to_owned());
    vec![
        Record::Offset(
            g(),
            "a".into(),
            0,
            Some(OffsetCommitValue {
                offset: 5,
                ..Default::default()
            }),
        ),
        Record::Group(
            "classic".into(),
            Some(GroupMetadataValue {
                protocol_type: "consumer".into(),
                generation: 3,
                protocol: Some("range".into()),
                leader: Some(m()),
                members: vec![MemberMetadata {
                    member_id: m(),
                    session_timeout: 10_000,
                    ..Default::default()
                }],
                ..Default::default()
            }),
        ),
        Record::ConsumerGroup(
            g(),
            Some(ConsumerGroupMetadataValue {
                epoch: 2,
                ..Default::default()
            }),
        ),
        Record::Member(
            g(),
            m(),
            Some(ConsumerGroupMemberMetadataValue {
                subscribed_topic_names: vec!["a".into()],
                classic_member_metadata: Some(ClassicMemberMetadata {
                    session_timeout_ms: 10_000,
                    supported_protocols: vec![ClassicProtocol {
                        name: "range".into(),
                        metadata: vec![0, 0],
                    }],
                }),
                ..Default::default()
            }),
        ),
    ]
}

fn assignment_records() -> Vec<Record> {
    use group::records::*;
    let (g, m) = (|| "g".to_owned(), || "m".to_owned());
    let partitions = vec![TopicPartitions {
        topic_id: Uuid([1; 16]),
        partitions: vec![0, 1],
    }];
    vec![
        Record::TargetEpoch(
            g(),
            Some(ConsumerGroupTargetAssignmentMetadataValue {
                assignment_epoch: 2,
            }),
        ),
        Record::TargetMember(
            g(),
            m(),
            Some(ConsumerGroupTargetAssignmentMemberValue {
                topic_partitions: partitions.clone(),
            }),
        ),
        Record::Current(
            g(),
            m(),
            Some(ConsumerGroupCurrentMemberAssignmentValue {
                member_epoch: 2,
                assigned_partitions: partitions,
                ..Default::default()
            }),
        ),
        Record::Regex(
            g(),
            "a.*".into(),
            Some(ConsumerGroupRegularExpressionValue {
                topics: vec!["a".into()],
                ..Default::default()
            }),
        ),
    ]
}

fn groups_log() -> Vec<u8> {
    let mut groups = vec![0];
    for record in group_records().into_iter().chain(assignment_records()) {
        put(&mut groups, record.encode());
    }
    groups
}

fn transactions_log() -> Vec<u8> {
    let mut transactions = vec![1];
    for state in [
        txn::State::Ongoing,
        txn::State::PrepareCommit,
        txn::State::CompleteAbort,
    ] {
        let transaction = txn::Transaction {
            producer_id: 7,
            epoch: 1,
            timeout_ms: 60_000,
            state,
            partitions: [("a".into(), 0), ("a".into(), 1)].into(),
            version: 2,
            ..Default::default()
        };
        put(
            &mut transactions,
            txn::records::encode("t", Some(&transaction)),
        );
    }
    transactions
}

fn catalog_log() -> Vec<u8> {
    let topic_id = Uuid([1; 16]);
    let mut catalog = vec![2];
    for record in [
        MetadataRecord::Topic(TopicRecord {
            name: "a.b".into(),
            topic_id,
        }),
        MetadataRecord::Partition(PartitionRecord {
            partition_id: 0,
            topic_id,
            ..Default::default()
        }),
        MetadataRecord::Config(ConfigRecord {
            resource_type: 2,
            resource_name: "a.b".into(),
            name: "retention.ms".into(),
            value: Some("5".into()),
        }),
        MetadataRecord::PartitionChange(PartitionChangeRecord {
            partition_id: 0,
            topic_id,
            leader: 1,
            ..Default::default()
        }),
        MetadataRecord::ClientQuota(ClientQuotaRecord {
            entity: vec![QuotaEntity {
                entity_type: "client-id".into(),
                entity_name: None,
            }],
            key: "producer_byte_rate".into(),
            value: 5.0,
            remove: false,
        }),
        MetadataRecord::ProducerIds(ProducerIdsRecord {
            next_producer_id: 1000,
            ..Default::default()
        }),
        MetadataRecord::FeatureLevel(FeatureLevelRecord::default()),
        MetadataRecord::RemoveTopic(RemoveTopicRecord { topic_id }),
    ] {
        put(&mut catalog, (Vec::new(), Some(record.encode())));
    }
    catalog
}

fn sent_by_members() -> Vec<u8> {
    let subscription = protocol::ConsumerProtocolSubscription {
        topics: vec!["a".into()],
        user_data: Some(vec![1]),
        owned_partitions: vec![protocol::TopicPartitions {
            topic: "a".into(),
            partitions: vec![0],
        }],
        generation_id: 1,
        rack_id: None,
    };
    let mut agreed = vec![3];
    put(&mut agreed, (protocol::write(&subscription, 3), None));
    agreed
}

/// One log of each kind, and what a classic member sends.
pub fn seeds() -> Vec<Vec<u8>> {
    vec![
        groups_log(),
        transactions_log(),
        catalog_log(),
        sent_by_members(),
    ]
}
