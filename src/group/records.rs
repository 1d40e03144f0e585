//! The records of `__consumer_offsets`, in Kafka's own schemas: a key that says whose, and a value, or none to take
//! it back.
//!
//! ```text
//! key    INT16 type | STRING group | [STRING topic, INT32 partition] or [STRING member id or pattern]
//! value  INT16 version | the value's message
//! ```
//! | type | of | value |
//! |---|---|---|
//! | 0, 1 | a group's offset in a partition | [`OffsetCommitValue`] |
//! | 2 | a classic group | [`GroupMetadataValue`] |
//! | 3 | a consumer group's epoch (KIP-848) | [`ConsumerGroupMetadataValue`] |
//! | 5 | its member | [`ConsumerGroupMemberMetadataValue`] |
//! | 6, 7 | its target assignment: the epoch, a member's part | [`ConsumerGroupTargetAssignmentMetadataValue`], [`ConsumerGroupTargetAssignmentMemberValue`] |
//! | 8 | what a member was given so far | [`ConsumerGroupCurrentMemberAssignmentValue`] |
//! | 16 | what a subscription's pattern stands for | [`ConsumerGroupRegularExpressionValue`] |
//!
//! Other types (4, of Kafka before 4.1, and those of share and streams groups) are stepped over.

use crate::wire::{Malformed, Message, Reader, Uuid, Writer, messages};

messages! {
    OffsetCommitValue(1) [0-4, flexible 4+] {
        offset: i64 [0+],
        leader_epoch: i32 [3+] = -1,
        metadata: String [0+],
        commit_timestamp: i64 [0+],
        expire_timestamp: i64 [1-1] = -1,
    }

    GroupMetadataValue(2) [0-4, flexible 4+] {
        protocol_type: String [0+],
        generation: i32 [0+],
        protocol: Option<String> [0+],
        leader: Option<String> [0+],
        /// When the group came into its state, on broker time: what offset expiry counts from.
        current_state_timestamp: i64 [2+] = -1,
        members: Vec<MemberMetadata> [0+],
    }
    MemberMetadata {
        member_id: String [0+],
        group_instance_id: Option<String> [3+],
        client_id: String [0+],
        client_host: String [0+],
        rebalance_timeout: i32 [1+] = -1,
        session_timeout: i32 [0+],
        subscription: Vec<u8> [0+],
        assignment: Vec<u8> [0+],
    }

    ConsumerGroupMetadataValue(3) [0-0, flexible 0+] {
        epoch: i32 [0+],
        /// Of all subscribed topics: when it differs, the assignment is made anew.
        metadata_hash: i64 [0+ tag 0],
    }
    ConsumerGroupMemberMetadataValue(5) [0-0, flexible 0+] {
        instance_id: Option<String> [0+],
        rack_id: Option<String> [0+],
        client_id: String [0+],
        client_host: String [0+],
        subscribed_topic_names: Vec<String> [0+],
        subscribed_topic_regex: Option<String> [0+],
        rebalance_timeout_ms: i32 [0+] = -1,
        server_assignor: Option<String> [0+],
        classic_member_metadata: Option<ClassicMemberMetadata> [0+ tag 0],
    }
    ClassicMemberMetadata {
        session_timeout_ms: i32 [0+],
        supported_protocols: Vec<ClassicProtocol> [0+],
    }
    ClassicProtocol {
        name: String [0+],
        metadata: Vec<u8> [0+],
    }
    ConsumerGroupTargetAssignmentMetadataValue(6) [0-0, flexible 0+] {
        assignment_epoch: i32 [0+],
    }
    ConsumerGroupTargetAssignmentMemberValue(7) [0-0, flexible 0+] {
        topic_partitions: Vec<TopicPartitions> [0+],
    }
    ConsumerGroupCurrentMemberAssignmentValue(8) [0-0, flexible 0+] {
        member_epoch: i32 [0+],
        previous_member_epoch: i32 [0+],
        state: i8 [0+],
        assigned_partitions: Vec<TopicPartitions> [0+],
        partitions_pending_revocation: Vec<TopicPartitions> [0+],
    }
    TopicPartitions {
        topic_id: Uuid [0+],
        partitions: Vec<i32> [0+],
    }
    ConsumerGroupRegularExpressionValue(16) [0-0, flexible 0+] {
        topics: Vec<String> [0+],
        version: i64 [0+],
        timestamp: i64 [0+],
    }
}

/// One record; a value of `None` takes back what the key stood for.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Record {
    /// Group, topic, partition.
    Offset(String, String, i32, Option<OffsetCommitValue>),
    Group(String, Option<GroupMetadataValue>),
    ConsumerGroup(String, Option<ConsumerGroupMetadataValue>),
    /// Group, member id.
    Member(String, String, Option<ConsumerGroupMemberMetadataValue>),
    TargetEpoch(String, Option<ConsumerGroupTargetAssignmentMetadataValue>),
    /// Group, member id.
    TargetMember(
        String,
        String,
        Option<ConsumerGroupTargetAssignmentMemberValue>,
    ),
    /// Group, member id.
    Current(
        String,
        String,
        Option<ConsumerGroupCurrentMemberAssignmentValue>,
    ),
    /// Group, pattern.
    Regex(String, String, Option<ConsumerGroupRegularExpressionValue>),
}

/// A record's key and value, as they stand in the log.
pub type Bytes = (Vec<u8>, Option<Vec<u8>>);

impl Record {
    /// Reads a record; `None` is one of a type that means nothing here.
    ///
    /// # Errors
    /// A key or a value that is not what its type and version say, or a version that is not known.
    pub fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Option<Record>, Malformed> {
        let reader = &mut Reader::new(key);
        let kind = reader.i16()?;
        if !matches!(kind, 0..=3 | 5..=8 | 16) {
            return Ok(None);
        }
        let group = text(reader)?;
        let record = match kind {
            0 | 1 => {
                let (topic, partition) = (text(reader)?, reader.i32()?);
                Record::Offset(group, topic, partition, body(value)?)
            }
            2 => Record::Group(group, body(value)?),
            3 => Record::ConsumerGroup(group, body(value)?),
            5 => Record::Member(group, text(reader)?, body(value)?),
            6 => Record::TargetEpoch(group, body(value)?),
            7 => Record::TargetMember(group, text(reader)?, body(value)?),
            8 => Record::Current(group, text(reader)?, body(value)?),
            _ => Record::Regex(group, text(reader)?, body(value)?),
        };
        reader.finish()?;
        Ok(Some(record))
    }

    /// The record as Kafka 4 writes it: key, and value if there is one.
    pub fn encode(&self) -> Bytes {
        match self {
            Record::Offset(group, topic, partition, value) => {
                let mut key = key(1, group);
                key.string(Some(topic), false);
                key.put(&partition.to_be_bytes());
                // Only version 1 has an expiry of the offset's own, and it has no leader epoch; as in Kafka.
                let expires = |value: &OffsetCommitValue| value.expire_timestamp >= 0;
                let version = match value.as_ref().is_some_and(expires) {
                    true => 1,
                    false => 3,
                };
                (key.bytes, value_of(value, version))
            }
            Record::Group(group, value) => (key(2, group).bytes, value_of(value, 3)),
            Record::ConsumerGroup(group, value) => (key(3, group).bytes, value_of(value, 0)),
            Record::Member(group, member, value) => (key_of(5, group, member), value_of(value, 0)),
            Record::TargetEpoch(group, value) => (key(6, group).bytes, value_of(value, 0)),
            Record::TargetMember(group, member, value) => {
                (key_of(7, group, member), value_of(value, 0))
            }
            Record::Current(group, member, value) => (key_of(8, group, member), value_of(value, 0)),
            Record::Regex(group, pattern, value) => {
                (key_of(16, group, pattern), value_of(value, 0))
            }
        }
    }

    /// The group that it belongs to.
    pub fn group(&self) -> &str {
        match self {
            Record::Offset(group, ..)
            | Record::Group(group, _)
            | Record::ConsumerGroup(group, _)
            | Record::Member(group, ..)
            | Record::TargetEpoch(group, _)
            | Record::TargetMember(group, ..)
            | Record::Current(group, ..)
            | Record::Regex(group, ..) => group,
        }
    }
}

fn text(reader: &mut Reader<'_>) -> Result<String, Malformed> {
    let text = reader.string(false)?;
    text.ok_or_else(|| reader.malformed("a null in a key"))
}

fn body<M: Message>(value: Option<&[u8]>) -> Result<Option<M>, Malformed> {
    let Some(value) = value else { return Ok(None) };
    let reader = &mut Reader::new(value);
    let version = reader.i16()?;
    let message = M::read(reader, version)?;
    reader.finish()?;
    Ok(Some(message))
}

fn value_of<M: Message>(value: &Option<M>, version: i16) -> Option<Vec<u8>> {
    let value = value.as_ref()?;
    let mut writer = Writer::new();
    writer.put(&version.to_be_bytes());
    value.write(&mut writer, version);
    Some(writer.bytes)
}

fn key(kind: i16, group: &str) -> Writer {
    let mut writer = Writer::new();
    writer.put(&kind.to_be_bytes());
    writer.string(Some(group), false);
    writer
}

fn key_of(kind: i16, group: &str, of: &str) -> Vec<u8> {
    let mut writer = key(kind, group);
    writer.string(Some(of), false);
    writer.bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::hex;

    /// By hand, from Kafka's `OffsetCommitKey.json` and `OffsetCommitValue.json`.
    #[test]
    fn an_offset_is_kafkas_bytes() {
        let record = Record::Offset(
            "g".into(),
            "t".into(),
            2,
            Some(OffsetCommitValue {
                offset: 42,
                leader_epoch: 7,
                metadata: "m".into(),
                commit_timestamp: 1000,
                expire_timestamp: -1,
            }),
        );
        let (key, value) = record.encode();
        assert_eq!(key, hex("0001 0001 67 0001 74 00000002"));
        let expected = hex("0003 000000000000002a 00000007 0001 6d 00000000000003e8");
        assert_eq!(value.as_deref(), Some(&expected[..]));
        assert_eq!(Record::decode(&key, value.as_deref()), Ok(Some(record)));
    }

    /// Version 1 is the only one that has it.
    #[test]
    fn an_offsets_own_expiry_is_recorded() {
        let value = OffsetCommitValue {
            offset: 42,
            leader_epoch: -1,
            metadata: String::new(),
            commit_timestamp: 1000,
            expire_timestamp: 2000,
        };
        let record = Record::Offset("g".into(), "t".into(), 2, Some(value));
        let (key, value) = record.encode();
        let expected = hex("0001 000000000000002a 0000 00000000000003e8 00000000000007d0");
        assert_eq!(value.as_deref(), Some(&expected[..]));
        assert_eq!(Record::decode(&key, value.as_deref()), Ok(Some(record)));
    }

    /// By hand, from Kafka's `GroupMetadataValue.json`, version 3.
    #[test]
    fn a_classic_group_is_kafkas_bytes() {
        let member = MemberMetadata {
            member_id: "a".into(),
            group_instance_id: None,
            client_id: "c".into(),
            client_host: "/h".into(),
            rebalance_timeout: 300,
            session_timeout: 45,
            subscription: vec![1],
            assignment: vec![2, 3],
        };
        let value = GroupMetadataValue {
            protocol_type: "consumer".into(),
            generation: 5,
            protocol: Some("range".into()),
            leader: Some("a".into()),
            current_state_timestamp: 9,
            members: vec![member],
        };
        let (key, bytes) = Record::Group("g".into(), Some(value)).encode();
        assert_eq!(key, hex("0002 0001 67"));
        let expected = hex(
            "0003 0008 636f6e73756d6572 00000005 0005 72616e6765 0001 61 0000000000000009
             00000001 0001 61 ffff 0001 63 0002 2f68 0000012c 0000002d 00000001 01 00000002 0203",
        );
        assert_eq!(bytes, Some(expected));
    }

    /// By hand, from Kafka's `ConsumerGroup*.json`.
    #[test]
    fn a_consumer_group_is_kafkas_bytes() {
        let epoch = ConsumerGroupMetadataValue {
            epoch: 3,
            metadata_hash: 0,
        };
        let (key, value) = Record::ConsumerGroup("g".into(), Some(epoch)).encode();
        assert_eq!(key, hex("0003 0001 67"));
        assert_eq!(value, Some(hex("0000 00000003 00")));
        let current = ConsumerGroupCurrentMemberAssignmentValue {
            member_epoch: 3,
            previous_member_epoch: 2,
            state: 0,
            assigned_partitions: vec![TopicPartitions {
                topic_id: Uuid([1; 16]),
                partitions: vec![4],
            }],
            partitions_pending_revocation: vec![],
        };
        let (key, value) = Record::Current("g".into(), "m".into(), Some(current)).encode();
        assert_eq!(key, hex("0008 0001 67 0001 6d"));
        let expected = hex(
            "0000 00000003 00000002 00 02 01010101010101010101010101010101 02 00000004 00 01 00",
        );
        assert_eq!(value, Some(expected));
    }

    #[test]
    fn what_others_wrote_is_stepped_over_and_nonsense_refused() {
        // A transaction's key of Kafka's share groups, and an old partition metadata record.
        assert_eq!(Record::decode(&hex("000b 0001 67"), Some(&[])), Ok(None));
        assert_eq!(Record::decode(&hex("0004 0001 67"), Some(&[])), Ok(None));
        assert!(Record::decode(&hex("0002 0009 67"), None).is_err());
        assert!(Record::decode(&hex("0002 0001 67"), Some(&hex("0063"))).is_err());
        assert!(Record::decode(&hex("0002 ffff"), None).is_err());
        assert_eq!(
            Record::decode(&hex("0002 0001 67"), None),
            Ok(Some(Record::Group("g".into(), None)))
        );
    }
}
