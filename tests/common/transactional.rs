//! A transactional producer step by step, in either flow, and what `read_committed` consumers see.

use super::client::{self, records};
use super::producer::Client;
use super::requests;
use ottla::api::add_offsets_to_txn::*;
use ottla::api::add_partitions_to_txn::*;
use ottla::api::end_txn::*;
use ottla::api::fetch::FetchResponse;
use ottla::api::init_producer_id::*;
use ottla::api::offset_fetch::*;
use ottla::api::produce::ProduceResponse;
use ottla::api::txn_offset_commit::*;
use ottla::batch::TRANSACTIONAL;
use ottla::batch::marker::Marker;
use ottla::wire::Records;
use std::collections::BTreeSet;
use std::io;

/// The group whose offsets go with the transactions, by topic `a`.
const GROUP: &str = "g";

/// One producer. Each step gives the error's code, 0 for none.
pub struct Producer {
    id: &'static str,
    /// Whether it speaks KIP-890: its epoch rises at each end, and nothing is added beforehand.
    newer: bool,
    me: (i64, i16),
    sequences: [i32; 2],
}

impl Producer {
    /// Begins, or begins anew: what the one before it has open is aborted.
    pub fn new(
        client: &mut Client,
        id: &'static str,
        newer: bool,
    ) -> io::Result<Result<Self, i16>> {
        let request = InitProducerIdRequest {
            transactional_id: Some(id.into()),
            transaction_timeout_ms: 600_000,
            ..InitProducerIdRequest::default()
        };
        let answer: InitProducerIdResponse = client.call(4, &request)?;
        let producer = Producer {
            id,
            newer,
            me: (answer.producer_id, answer.producer_epoch),
            sequences: [0; 2],
        };
        Ok(match answer.error_code {
            0 => Ok(producer),
            code => Err(code),
        })
    }

    /// Writes a record to partition 0 of `a` or `b`.
    pub fn write(&mut self, client: &mut Client, topic: &str, value: &str) -> io::Result<i16> {
        if !self.newer {
            let request = AddPartitionsToTxnRequest {
                v3_and_below_transactional_id: self.id.into(),
                v3_and_below_producer_id: self.me.0,
                v3_and_below_producer_epoch: self.me.1,
                v3_and_below_topics: vec![AddPartitionsToTxnTopic {
                    name: topic.into(),
                    partitions: vec![0],
                }],
                ..AddPartitionsToTxnRequest::default()
            };
            let answer: AddPartitionsToTxnResponse = client.call(3, &request)?;
            let topic = &answer.results_by_topic_v3_and_below[0];
            match topic.results_by_partition[0].partition_error_code {
                0 => {}
                code => return Ok(code),
            }
        }
        let sequence = &mut self.sequences[usize::from(topic == "b")];
        let batch = records(&[value]).producer(self.me.0, self.me.1, *sequence);
        let batch = batch.attributes(TRANSACTIONAL).build();
        let mut request = client::produce(topic, -1, &batch);
        request.transactional_id = Some(self.id.into());
        let version = if self.newer { 12 } else { 11 };
        let answer: ProduceResponse = client.call(version, &request)?;
        let code = answer.responses[0].partition_responses[0].error_code;
        *sequence += i32::from(code == 0);
        Ok(code)
    }

    /// Commits how far the group has read of `a`.
    pub fn commit_offset(&mut self, client: &mut Client, offset: i64) -> io::Result<i16> {
        if !self.newer {
            let request = AddOffsetsToTxnRequest {
                transactional_id: self.id.into(),
                producer_id: self.me.0,
                producer_epoch: self.me.1,
                group_id: GROUP.into(),
            };
            let answer: AddOffsetsToTxnResponse = client.call(3, &request)?;
            match answer.error_code {
                0 => {}
                code => return Ok(code),
            }
        }
        let request = TxnOffsetCommitRequest {
            transactional_id: self.id.into(),
            group_id: GROUP.into(),
            producer_id: self.me.0,
            producer_epoch: self.me.1,
            topics: vec![TxnOffsetCommitRequestTopic {
                name: "a".into(),
                partitions: vec![TxnOffsetCommitRequestPartition {
                    committed_offset: offset,
                    ..TxnOffsetCommitRequestPartition::default()
                }],
            }],
            ..TxnOffsetCommitRequest::default()
        };
        let version = if self.newer { 5 } else { 3 };
        let answer: TxnOffsetCommitResponse = client.call(version, &request)?;
        Ok(answer.topics[0].partitions[0].error_code)
    }

    /// Ends the transaction.
    pub fn end(&mut self, client: &mut Client, committed: bool) -> io::Result<i16> {
        let request = EndTxnRequest {
            transactional_id: self.id.into(),
            producer_id: self.me.0,
            producer_epoch: self.me.1,
            committed,
        };
        let version = if self.newer { 5 } else { 3 };
        let answer: EndTxnResponse = client.call(version, &request)?;
        if self.newer && answer.error_code == 0 {
            self.me = (answer.producer_id, answer.producer_epoch);
            self.sequences = [0; 2];
        }
        Ok(answer.error_code)
    }
}

/// The values of partition 0 that a `read_committed` consumer is given, or the error's code, and whether that is all
/// there are. What the answer lists as aborted is dropped, as consumers do.
pub fn committed(client: &mut Client, topic: &str) -> io::Result<Result<(Vec<String>, bool), i16>> {
    let mut request = client::fetch(topic, 0, 0, 0);
    request.isolation_level = 1;
    let mut answer: FetchResponse = client.call(client::FETCH, &request)?;
    let data = answer.responses.remove(0).partitions.remove(0);
    if data.error_code != 0 {
        return Ok(Err(data.error_code));
    }
    let mut aborted = data.aborted_transactions.expect("read_committed");
    aborted.sort_by_key(|aborted| std::cmp::Reverse(aborted.first_offset));
    let (mut dropped, mut values) = (BTreeSet::new(), Vec::new());
    for (header, batch) in client::batches(client::bytes(&data.records)) {
        while let Some(first) = aborted.pop_if(|a| a.first_offset <= header.last_offset()) {
            dropped.insert(first.producer_id);
        }
        let body = &batch[ottla::batch::HEADER_BYTES..];
        if header.is_control() {
            let marker = Marker::read(&header, body).expect("a marker");
            assert!(!marker.commit || !dropped.contains(&header.producer_id));
            dropped.remove(&header.producer_id);
        } else if !header.is_transactional() || !dropped.contains(&header.producer_id) {
            values.extend(client::values(&Records::Held(batch.to_vec().into())));
        }
    }
    let is_all = data.last_stable_offset == data.high_watermark;
    Ok(Ok((values, is_all)))
}

/// How far the group has read of `a`, -1 if that is not known; or the error's code.
pub fn offset(client: &mut Client) -> io::Result<Result<i64, i16>> {
    let request = OffsetFetchRequest {
        require_stable: true,
        ..requests::offset_fetch(GROUP, "a", 0..1)
    };
    let answer: OffsetFetchResponse = client.call(8, &request)?;
    let group = &answer.groups[0];
    let told = &group.topics.first().map(|topic| &topic.partitions[0]);
    Ok(match (group.error_code, told) {
        (0, Some(told)) if told.error_code == 0 => Ok(told.committed_offset),
        (0, Some(told)) => Err(told.error_code),
        (code, _) => Err(code),
    })
}
