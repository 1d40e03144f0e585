//! The consumer protocol: what consumers of a classic group put into the bytes of JoinGroup and SyncGroup.
//!
//! ```text
//! INT16 version | the message: a subscription on the way in, an assignment on the way out
//! ```
//! The broker looks into it for two things: which topics a group reads (OffsetDelete), and to carry a group over
//! between the classic and the new protocol. A version newer than these is read as the newest: later ones only add.

use crate::wire::{Malformed, Message, Reader, Writer, messages};
use std::collections::HashSet;

messages! {
    ConsumerProtocolSubscription(0) [0-3, flexible 32767+] {
        topics: Vec<String> [0+],
        user_data: Option<Vec<u8>> [0+],
        owned_partitions: Vec<TopicPartitions> [1+],
        generation_id: i32 [2+] = -1,
        rack_id: Option<String> [3+],
    }
    TopicPartitions {
        topic: String [0+],
        partitions: Vec<i32> [0+],
    }
    ConsumerProtocolAssignment(1) [0-3, flexible 32767+] {
        assigned_partitions: Vec<TopicPartitions> [0+],
        user_data: Option<Vec<u8>> [0+],
    }
}

/// The embedded protocol's type, as JoinGroup names it.
pub const PROTOCOL_TYPE: &str = "consumer";

/// Those of `names` that each of `members` knows too; in time that grows with the names, however many one has.
pub fn known_to_all<'a, M: Iterator<Item = &'a str>>(
    names: impl Iterator<Item = &'a str>,
    members: impl Iterator<Item = M>,
) -> HashSet<&'a str> {
    let mut common: HashSet<&str> = names.collect();
    for member in members {
        common = member.filter(|name| common.contains(name)).collect();
    }
    common
}

/// The version that the bytes say, or the newest known if theirs is newer.
///
/// # Errors
/// No version, or a negative one.
pub fn version(bytes: &[u8]) -> Result<i16, Malformed> {
    let reader = &mut Reader::new(bytes);
    match reader.i16()? {
        ..0 => Err(reader.malformed("a version below zero")),
        version => Ok(version.min(*ConsumerProtocolSubscription::VERSIONS.end())),
    }
}

/// Reads a subscription or an assignment; what a newer version has after it is left unread.
///
/// # Errors
/// Bytes that are neither.
pub fn read<M: Message>(bytes: &[u8]) -> Result<M, Malformed> {
    let version = version(bytes)?;
    let reader = &mut Reader::new(bytes);
    reader.i16()?;
    M::read(reader, version)
}

/// Writes a subscription or an assignment with its version in front.
pub fn write<M: Message>(message: &M, version: i16) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.put(&version.to_be_bytes());
    message.write(&mut writer, version);
    writer.bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscription() -> ConsumerProtocolSubscription {
        ConsumerProtocolSubscription {
            topics: vec!["a".into(), "b".into()],
            user_data: Some(vec![1, 2]),
            owned_partitions: vec![TopicPartitions {
                topic: "a".into(),
                partitions: vec![0, 3],
            }],
            generation_id: 7,
            rack_id: Some("r".into()),
        }
    }

    #[test]
    fn each_version_holds_what_it_knows() {
        for version in 0..=3 {
            let bytes = write(&subscription(), version);
            let read: ConsumerProtocolSubscription = read(&bytes).unwrap();
            assert_eq!(read.topics, ["a", "b"]);
            assert_eq!(read.owned_partitions.len(), usize::from(version >= 1));
            assert_eq!(read.generation_id, if version >= 2 { 7 } else { -1 });
            assert_eq!(read.rack_id.is_some(), version >= 3);
        }
    }

    #[test]
    fn a_newer_version_is_read_as_the_newest_and_its_rest_is_left() {
        let mut bytes = write(&subscription(), 3);
        bytes[..2].copy_from_slice(&9i16.to_be_bytes());
        bytes.extend([1, 2, 3]);
        assert_eq!(version(&bytes), Ok(3));
        assert_eq!(
            read::<ConsumerProtocolSubscription>(&bytes),
            Ok(subscription())
        );
    }

    #[test]
    fn bytes_that_are_no_subscription_are_refused() {
        for bytes in [&[][..], &[0], &[255, 255], &[0, 0, 0, 0, 0]] {
            assert!(read::<ConsumerProtocolSubscription>(bytes).is_err());
        }
    }

    /// Were it quadratic, these 100,000 names of two members would take hours.
    #[test]
    fn a_common_protocol_is_found_among_very_many() {
        let names =
            |who: &str| -> Vec<String> { (0..100_000).map(|n| format!("{who}{n}")).collect() };
        let (one, other) = (names("one"), names("other"));
        let common = |one: &[String], other: &[String]| {
            known_to_all(
                one.iter().map(String::as_str),
                [other.iter().map(String::as_str)].into_iter(),
            )
            .len()
        };
        assert_eq!(common(&one, &other), 0);
        assert_eq!(common(&one, &one), 100_000);
    }

    #[test]
    fn the_bytes_are_those_that_clients_send() {
        // One topic "t", no user data, version 0: as librdkafka writes it, but for its empty user data.
        let bytes = [0, 0, 0, 0, 0, 1, 0, 1, b't', 255, 255, 255, 255];
        let read: ConsumerProtocolSubscription = read(&bytes).unwrap();
        assert_eq!(read.topics, ["t"]);
        assert_eq!(write(&read, 0), bytes);
    }
}
