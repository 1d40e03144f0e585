//! How the batches of a transactional Produce find their transaction.
//!
//! Invariants: a batch goes to the writer only with the number of a transaction that its partition is part of, durably;
//! all transactional batches of a request are of one producer. Clients that know KIP-890 (v12) leave it to the broker
//! to add partitions; those of others did so before, or are refused in the way that their version knows.

use super::Call;
use crate::error::ErrorCode;
use crate::txn::{Part, Producer, Request, Response, Serial, TopicPartition};
use crate::writer::{Append, Refusal};

/// The first version whose partitions become part of the transaction by themselves (KIP-890).
const VERSION_ENLISTS: i16 = 12;

/// The first version that knows TRANSACTION_ABORTABLE.
const VERSION_ABORTABLE: i16 = 11;

/// For each batch its transaction, `None` if it is not transactional; or why it may not be appended.
pub(super) type Parts = Vec<Result<Option<Serial>, Refusal>>;

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
    let enlisted = match missing.is_empty() {
        true => Err(ErrorCode::None.into()),
        false => {
            let producer = Producer {
                transactional_id,
                id,
                epoch,
            };
            enlist(call, version, producer, missing).map_err(|code| refusal(version, code))
        }
    };
    let settle = |(append, part): (&Append, Result<Part, ErrorCode>)| match part {
        _ if !is_transactional(append) => Ok(None),
        Ok(Part::Of(serial)) => Ok(Some(serial)),
        Ok(Part::None) => enlisted.clone().map(Some),
        Err(code) => Err(code.into()),
    };
    Ok(appends.iter().zip(parts).map(settle).collect())
}

/// Adds partitions to a transaction; or, for a client that had to do so before, asks why they are no part of it.
fn enlist(
    call: &mut Call<'_>,
    version: i16,
    producer: Producer,
    partitions: Vec<TopicPartition>,
) -> Result<Serial, ErrorCode> {
    let request = match version {
        VERSION_ENLISTS.. => Request::Enlist {
            producer,
            partitions,
            bumps: true,
        },
        _ => Request::Verify {
            producer,
            partitions,
        },
    };
    match call.ask_transactions(request) {
        Ok(Response::Enlisted(enlisted)) => enlisted,
        Ok(Response::Verified(Ok(_))) => Err(ErrorCode::TransactionAbortable),
        Ok(Response::Verified(Err(code))) => Err(code),
        _ => Err(ErrorCode::CoordinatorNotAvailable),
    }
}

/// What the coordinator said, as producers know it. What a later try may mend is said in the one way that clients of
/// every version retry without asking where the leader is, as in Kafka.
fn refusal(version: i16, code: ErrorCode) -> Refusal {
    let unverified = || Refusal {
        code: ErrorCode::NotEnoughReplicas,
        message: Some(format!(
            "Unable to verify the partition has been added to the transaction. Underlying error: {}",
            code.name()
        )),
    };
    match code {
        ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch.into(),
        ErrorCode::TransactionAbortable if version < VERSION_ABORTABLE => Refusal {
            code: ErrorCode::InvalidTxnState,
            message: Some("Partition was not added to the transaction".into()),
        },
        ErrorCode::CoordinatorLoadInProgress
        | ErrorCode::CoordinatorNotAvailable
        | ErrorCode::NotCoordinator => unverified(),
        ErrorCode::ConcurrentTransactions if version < VERSION_ENLISTS => unverified(),
        code => code.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_tried_again_is_said_as_the_version_knows_it() {
        let (wait, starting) = (
            ErrorCode::ConcurrentTransactions,
            ErrorCode::CoordinatorLoadInProgress,
        );
        assert_eq!(refusal(11, wait).code, ErrorCode::NotEnoughReplicas);
        assert_eq!(refusal(12, wait).code, wait);
        for version in [3, 12] {
            let told = refusal(version, starting).code;
            assert_eq!(told, ErrorCode::NotEnoughReplicas);
        }
    }
}
