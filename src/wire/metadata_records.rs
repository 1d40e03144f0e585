//! The catalog's records: KRaft's metadata records (KIP-631), as values in `__cluster_metadata-0`.
//!
//! ```text
//! UNSIGNED_VARINT frame version (1) | UNSIGNED_VARINT record type | UNSIGNED_VARINT version | the record's message
//! ```
//! A type that is not in the table is kept as it is, so that a log which a later Ottla or a Kafka wrote can be read;
//! an unknown version of a known type is refused, since stepping over it would lose what the broker must know.

use super::primitives::{Reader, Result, Uuid, Writer};
use super::table::{Message, messages};

/// The only version of the frame (Kafka refuses version 0, of its preview releases).
const FRAME_VERSION: u32 = 1;

messages! {
    TopicRecord(2) [0-0, flexible 0+] {
        name: String [0+],
        topic_id: Uuid [0+],
    }
    /// Version 1 has directories (KIP-858), version 2 eligible leader replicas (KIP-966).
    PartitionRecord(3) [0-2, flexible 0+] {
        partition_id: i32 [0+] = -1,
        topic_id: Uuid [0+],
        replicas: Vec<i32> [0+],
        isr: Vec<i32> [0+],
        removing_replicas: Vec<i32> [0+],
        adding_replicas: Vec<i32> [0+],
        leader: i32 [0+] = -1,
        leader_recovery_state: i8 [0+ tag 0],
        leader_epoch: i32 [0+] = -1,
        partition_epoch: i32 [0+] = -1,
        directories: Vec<Uuid> [1+],
        eligible_leader_replicas: Option<Vec<i32>> [2+ tag 1],
        last_known_elr: Option<Vec<i32>> [2+ tag 2],
    }
    /// A setting; a null value takes it back. Resource types: 2 topic, 4 broker.
    ConfigRecord(4) [0-0, flexible 0+] {
        resource_type: i8 [0+],
        resource_name: String [0+],
        name: String [0+],
        value: Option<String> [0+],
    }
    /// What changed of a partition: null, or -2 for the leader and -1 for the recovery state, is "as it was". A
    /// change of leader, also to the same one, raises the leader epoch by one.
    PartitionChangeRecord(5) [0-2, flexible 0+] {
        partition_id: i32 [0+] = -1,
        topic_id: Uuid [0+],
        isr: Option<Vec<i32>> [0+ tag 0],
        leader: i32 [0+ tag 1] = -2,
        replicas: Option<Vec<i32>> [0+ tag 2],
        removing_replicas: Option<Vec<i32>> [0+ tag 3],
        adding_replicas: Option<Vec<i32>> [0+ tag 4],
        leader_recovery_state: i8 [0+ tag 5] = -1,
        eligible_leader_replicas: Option<Vec<i32>> [2+ tag 6],
        last_known_elr: Option<Vec<i32>> [2+ tag 7],
        directories: Option<Vec<Uuid>> [1+ tag 8],
    }
    RemoveTopicRecord(9) [0-0, flexible 0+] {
        topic_id: Uuid [0+],
    }
    FeatureLevelRecord(12) [0-0, flexible 0+] {
        name: String [0+],
        feature_level: i16 [0+],
    }
    /// A quota: what `key` is set to for the entity, or that it is no longer set.
    ClientQuotaRecord(14) [0-0, flexible 0+] {
        entity: Vec<QuotaEntity> [0+],
        key: String [0+],
        value: f64 [0+],
        remove: bool [0+],
    }
    /// A part of an entity: a user, a client-id or an address; null: all that have no quota of their own.
    QuotaEntity {
        entity_type: String [0+],
        entity_name: Option<String> [0+],
    }
    ProducerIdsRecord(15) [0-0, flexible 0+] {
        broker_id: i32 [0+],
        broker_epoch: i64 [0+] = -1,
        next_producer_id: i64 [0+],
    }
    NoOpRecord(20) [0-0, flexible 0+] {}
}

/// One record of the catalog.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum MetadataRecord {
    Topic(TopicRecord),
    Partition(PartitionRecord),
    Config(ConfigRecord),
    PartitionChange(PartitionChangeRecord),
    RemoveTopic(RemoveTopicRecord),
    FeatureLevel(FeatureLevelRecord),
    ClientQuota(ClientQuotaRecord),
    ProducerIds(ProducerIdsRecord),
    NoOp(NoOpRecord),
    /// A type that is not in the table.
    Unknown(UnknownRecord),
}

/// A record of a type that is not in the table, as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct UnknownRecord {
    /// The record's type.
    pub key: u32,
    /// The version of its message.
    pub version: u32,
    /// Its message.
    pub body: Vec<u8>,
}

impl MetadataRecord {
    /// Reads a record's value.
    pub fn decode(value: &[u8]) -> Result<MetadataRecord> {
        use MetadataRecord as R;
        let reader = &mut Reader::new(value);
        if reader.unsigned_varint()? != FRAME_VERSION {
            return Err(reader.malformed("an unknown frame version"));
        }
        let (key, version) = (reader.unsigned_varint()?, reader.unsigned_varint()?);
        match i16::try_from(key).unwrap_or(-1) {
            TopicRecord::KEY => body(reader, version).map(R::Topic),
            PartitionRecord::KEY => body(reader, version).map(R::Partition),
            ConfigRecord::KEY => body(reader, version).map(R::Config),
            PartitionChangeRecord::KEY => body(reader, version).map(R::PartitionChange),
            RemoveTopicRecord::KEY => body(reader, version).map(R::RemoveTopic),
            FeatureLevelRecord::KEY => body(reader, version).map(R::FeatureLevel),
            ClientQuotaRecord::KEY => body(reader, version).map(R::ClientQuota),
            ProducerIdsRecord::KEY => body(reader, version).map(R::ProducerIds),
            NoOpRecord::KEY => body(reader, version).map(R::NoOp),
            _ => Ok(R::Unknown(UnknownRecord {
                key,
                version,
                body: reader.take(reader.remaining())?.to_vec(),
            })),
        }
    }

    /// The record's value, in the latest version of its type.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            MetadataRecord::Topic(record) => value(record),
            MetadataRecord::Partition(record) => value(record),
            MetadataRecord::Config(record) => value(record),
            MetadataRecord::PartitionChange(record) => value(record),
            MetadataRecord::RemoveTopic(record) => value(record),
            MetadataRecord::FeatureLevel(record) => value(record),
            MetadataRecord::ClientQuota(record) => value(record),
            MetadataRecord::ProducerIds(record) => value(record),
            MetadataRecord::NoOp(record) => value(record),
            MetadataRecord::Unknown(record) => {
                let mut writer = head(record.key, record.version);
                writer.put(&record.body);
                writer.bytes
            }
        }
    }
}

fn body<M: Message>(reader: &mut Reader<'_>, version: u32) -> Result<M> {
    let record = M::read(reader, i16::try_from(version).unwrap_or(i16::MAX))?;
    reader.finish()?;
    Ok(record)
}

fn value<M: Message>(record: &M) -> Vec<u8> {
    let version = *M::VERSIONS.end();
    let mut writer = head(M::KEY as u32, version as u32);
    record.write(&mut writer, version);
    writer.bytes
}

fn head(key: u32, version: u32) -> Writer {
    let mut writer = Writer::new();
    writer.unsigned_varint(FRAME_VERSION);
    writer.unsigned_varint(key);
    writer.unsigned_varint(version);
    writer
}
