//! How the batches of a transactional Produce find their transaction.
//!
//! Invariants: a batch goes to the writer only with the number of a transaction that its partition is part of, durably;
//! all transactional batches of a request are of one producer. Clients that know KIP-890 (v12) leave it to the broker
//! to add partitions; those of others did so before, or are refused in the way that their version knows.

use super::Call;
use crate::error::ErrorCode;
use crate::txn::{Part, Producer, Request, Response, Serial, TopicPartition};
use crate::writer::Append;

/// The first version whose partitions become part of the transaction by themselves (KIP-890).
const VERSION_ENLISTS: i16 = 12;

/// The first version that knows TRANSACTION_ABORTABLE.
const VERSION_ABORTABLE: i16 = 11;

/// For each batch its transaction, `None` if it is not transactional; or why it may not be appended.
pub(super) type Parts = Vec<Result<Option<Serial>, ErrorCode>>;

/// Whether a batch is part of a transaction.
pub(super) fn is_transactional(append: &Append) -> bool {
    append.batch.header.is_transactional()
}

/// What each batch is to be appended as, or why it is refused, in order. `version` is that of the Produce request.
///
/// # Errors
/// What is wrong with the whole request.
pub(super) fn take_part(
    call: &mut Call<'_>,
    version: i16,
    transactional_id: Option<String>,
    appends: &[Append],
) -> Result<Parts, ErrorCode> {
    let transactional_id = transactional_id.ok_or(ErrorCode::TransactionalIdAuthorizationFailed)?;
    let producer = |append: &Append| {
        let header = &append.batch.header;
        (header.producer_id, header.producer_epoch)
    };
    let mut producers = appends.iter().filter(|a| is_transactional(a)).map(producer);
    let (id, epoch) = producers
        .next()
        .ok_or(ErrorCode::InvalidProducerIdMapping)?;
    if producers.any(|other| other != (id, epoch)) {
        return Err(ErrorCode::InvalidProducerIdMapping);
    }
    let part = |append: &Append| {
        let Append { partition, .. } = append;
        let open = &call.broker.transactions;
        open.part(id, epoch, &partition.topic, partition.index)
    };
    let parts: Vec<Result<Part, ErrorCode>> = appends.iter().map(part).collect();
    let missing = appends.iter().zip(&parts);
    let missing = missing.filter(|(a, part)| is_transactional(a) && **part == Ok(Part::None));
    let missing: Vec<TopicPartition> = missing
        .map(|(append, _)| (append.partition.topic.clone(), append.partition.index))
        .collect();
    let enlisted = match version {
        _ if missing.is_empty() => Err(ErrorCode::None),
        VERSION_ENLISTS.. => {
            let producer = Producer {
                transactional_id,
                id,
                epoch,
            };
            enlist(call, producer, missing)
        }
        VERSION_ABORTABLE.. => Err(ErrorCode::TransactionAbortable),
        _ => Err(ErrorCode::InvalidTxnState),
    };
    let settle = |(append, part)| match part {
        _ if !is_transactional(append) => Ok(None),
        Ok(Part::Of(serial)) => Ok(Some(serial)),
        Ok(Part::None) => enlisted.map(Some),
        Err(code) => Err(code),
    };
    Ok(appends.iter().zip(parts).map(settle).collect())
}

/// Adds partitions to a transaction. What a later try may mend is said in the one way that clients of every version
/// retry without asking where the leader is, as in Kafka.
fn enlist(
    call: &mut Call<'_>,
    producer: Producer,
    partitions: Vec<TopicPartition>,
) -> Result<Serial, ErrorCode> {
    let asked = Request::Enlist {
        producer,
        partitions,
        bumps: true,
    };
    let Ok(Response::Enlisted(enlisted)) = call.ask_transactions(asked) else {
        return Err(ErrorCode::NotEnoughReplicas);
    };
    enlisted.map_err(|code| match code {
        ErrorCode::ConcurrentTransactions
        | ErrorCode::CoordinatorLoadInProgress
        | ErrorCode::CoordinatorNotAvailable
        | ErrorCode::NotCoordinator => ErrorCode::NotEnoughReplicas,
        ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch,
        other => other,
    })
}
