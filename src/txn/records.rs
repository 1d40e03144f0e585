//! The records of `__transaction_state`, in Kafka's own schemas: a `transactional.id`, and what is known of it.
//!
//! ```text
//! key    INT16 0 | STRING transactional.id            value  INT16 version | the value's message
//! ```
//! Values are written in version 1, as by Kafka from `transaction.version` 1 on; version 0 is read too.

use super::{State, TopicPartition, Transaction};
use crate::wire::{Malformed, Message, Reader, Writer, messages};
use std::collections::BTreeMap;

messages! {
    TransactionLogValue(0) [0-1, flexible 1+] {
        producer_id: i64 [0+],
        previous_producer_id: i64 [1+ tag 0] = -1,
        next_producer_id: i64 [1+ tag 1] = -1,
        producer_epoch: i16 [0+],
        transaction_timeout_ms: i32 [0+],
        transaction_status: i8 [0+],
        transaction_partitions: Option<Vec<PartitionsSchema>> [0+],
        transaction_last_update_timestamp_ms: i64 [0+],
        transaction_start_timestamp_ms: i64 [0+],
        client_transaction_version: i16 [1+ tag 2],
    }
    PartitionsSchema {
        topic: String [0+],
        partition_ids: Vec<i32> [0+],
    }
}

/// The version that values are written in.
const VERSION: i16 = 1;

/// A record's key and value, as they stand in the log; without a value the id is forgotten.
pub fn encode(id: &str, transaction: Option<&Transaction>) -> (Vec<u8>, Option<Vec<u8>>) {
    let mut key = Writer::new();
    key.put(&0i16.to_be_bytes());
    key.string(Some(id), false);
    let value = transaction.map(|transaction| {
        let mut writer = Writer::new();
        writer.put(&VERSION.to_be_bytes());
        value_of(transaction).write(&mut writer, VERSION);
        writer.bytes
    });
    (key.bytes, value)
}

/// Reads a record; `None` is one of a type that means nothing here.
pub fn decode(
    key: &[u8],
    value: Option<&[u8]>,
) -> Result<Option<(String, Option<Transaction>)>, Malformed> {
    let reader = &mut Reader::new(key);
    if reader.i16()? != 0 {
        return Ok(None);
    }
    let id = reader.string(false)?;
    let id = id.ok_or_else(|| reader.malformed("a null in a key"))?;
    let Some(value) = value else {
        return Ok(Some((id, None)));
    };
    let reader = &mut Reader::new(value);
    let version = reader.i16()?;
    let value = TransactionLogValue::read(reader, version)?;
    reader.finish()?;
    let state = State::of_code(value.transaction_status);
    let state = state.ok_or_else(|| reader.malformed("an unknown state"))?;
    Ok(Some((id, Some(transaction_of(value, state)))))
}

fn value_of(transaction: &Transaction) -> TransactionLogValue {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, index) in &transaction.partitions {
        topics.entry(topic).or_default().push(*index);
    }
    let schema = |(topic, partition_ids): (&str, _)| PartitionsSchema {
        topic: topic.into(),
        partition_ids,
    };
    let partitions = topics.into_iter().map(schema).collect();
    TransactionLogValue {
        producer_id: transaction.producer_id,
        previous_producer_id: transaction.previous_producer_id,
        next_producer_id: transaction.next_producer_id,
        producer_epoch: transaction.epoch,
        transaction_timeout_ms: transaction.timeout_ms,
        transaction_status: transaction.state.code(),
        transaction_partitions: Some(partitions).filter(|_| transaction.state != State::Empty),
        transaction_last_update_timestamp_ms: transaction.updated_ms,
        transaction_start_timestamp_ms: transaction.start_ms,
        client_transaction_version: transaction.version,
    }
}

fn transaction_of(value: TransactionLogValue, state: State) -> Transaction {
    // Kafka too reads none of a transaction that has not begun.
    let begun = state != State::Empty;
    let topics = value.transaction_partitions.filter(|_| begun);
    let topics = topics.into_iter().flatten();
    let partitions = topics.flat_map(|topic| {
        let name: std::sync::Arc<str> = topic.topic.into();
        let indexes = topic.partition_ids.into_iter();
        indexes.map(move |index| -> TopicPartition { (name.clone(), index) })
    });
    Transaction {
        producer_id: value.producer_id,
        previous_producer_id: value.previous_producer_id,
        next_producer_id: value.next_producer_id,
        epoch: value.producer_epoch,
        timeout_ms: value.transaction_timeout_ms,
        state,
        partitions: partitions.collect(),
        start_ms: value.transaction_start_timestamp_ms,
        updated_ms: value.transaction_last_update_timestamp_ms,
        version: value.client_transaction_version,
        ..Transaction::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::hex;

    fn ongoing() -> Transaction {
        Transaction {
            producer_id: 7,
            epoch: 3,
            timeout_ms: 60_000,
            state: State::Ongoing,
            partitions: [("t".into(), 1), ("t".into(), 2)].into(),
            start_ms: 9,
            updated_ms: 10,
            version: 2,
            ..Transaction::default()
        }
    }

    /// By hand, from Kafka's `TransactionLogKey.json` and `TransactionLogValue.json`.
    #[test]
    fn a_transaction_is_kafkas_bytes() {
        let (key, value) = encode("id", Some(&ongoing()));
        assert_eq!(key, hex("0000 0002 6964"));
        let expected = hex(
            "0001 0000000000000007 0003 0000ea60 01 02 02 74 03 00000001 00000002 00
             000000000000000a 0000000000000009 01 02 02 0002",
        );
        assert_eq!(value.as_deref(), Some(&expected[..]));
        let read = decode(&key, value.as_deref());
        assert_eq!(read, Ok(Some(("id".into(), Some(ongoing())))));
    }

    /// What Kafka wrote before `transaction.version` 1.
    #[test]
    fn version_0_is_read() {
        let value = hex(
            "0000 0000000000000007 0003 0000ea60 01 00000001 0001 74 00000002 00000001 00000002
             000000000000000a 0000000000000009",
        );
        let expected = Transaction {
            version: 0,
            ..ongoing()
        };
        let read = decode(&hex("0000 0002 6964"), Some(&value));
        assert_eq!(read, Ok(Some(("id".into(), Some(expected)))));
    }

    /// A state that its own record would not bring back (found by fuzzing).
    #[test]
    fn of_what_has_not_begun_no_partition_is_read() {
        let (key, value) = encode("id", Some(&ongoing()));
        let mut value = value.unwrap();
        value[16] = State::Empty.code() as u8;
        let read = decode(&key, Some(&value)).unwrap().unwrap().1.unwrap();
        assert_eq!((read.state, read.partitions.len()), (State::Empty, 0));
    }

    #[test]
    fn what_others_wrote_is_stepped_over_and_nonsense_refused() {
        assert_eq!(decode(&hex("0001 0001 61"), None), Ok(None));
        let forgotten = decode(&hex("0000 0001 61"), None);
        assert_eq!(forgotten, Ok(Some(("a".into(), None))));
        assert!(decode(&hex("0000 ffff"), None).is_err());
        assert!(decode(&hex("0000 0001 61"), Some(&hex("0009"))).is_err());
        let (key, value) = encode("a", Some(&ongoing()));
        let mut value = value.unwrap();
        value[16] = 7;
        assert!(decode(&key, Some(&value)).is_err());
    }
}
