//! Produce (key 0): appends record batches to partitions.
//!
//! # Behavior
//! - `acks` -1 is answered once the batches are synced, 1 once they are in the page cache, 0 never; a failed
//!   `acks=0` request closes the connection, since there is no other way to tell.
//! - Over its quota a client is answered as ever, with the time for which it is then not read (KIP-13, KIP-219).
//! - A transactional batch goes with the number of its transaction, by which the writer refuses it once that has ended.
//!   Its request names the transactional id (TRANSACTIONAL_ID_AUTHORIZATION_FAILED without one, as in Kafka), and all
//!   such batches of a request are of one producer, or none is taken: INVALID_PRODUCER_ID_MAPPING.
//! - One batch a partition, of format 2; it is opened and checked before it is queued, and stored as it came.
//!
//! # Version notes
//! - v0-v2 carry message formats 0 and 1. They have no table: Kafka 4 advertises them for librdkafka's sake and
//!   refuses them (KIP-896, KAFKA-18659).
//! - v3: transactional id; record batches in format 2 (KIP-98).
//! - v4: KAFKA_STORAGE_ERROR may come back (KIP-112). v5: the response has the log's start.
//! - v7: batches may be zstd-compressed (KIP-110). v8: per-record errors in the response (KIP-467).
//! - v9: flexible (KIP-482). v10: the current leader and its address, as tagged fields (KIP-951).
//! - v11: TRANSACTION_ABORTABLE may come back; v12: a transactional produce adds its partition to the transaction
//!   by itself (KIP-890).
//! - v13: topics by id in place of name (KIP-516).

use super::enlist::{Parts, is_transactional, take_part};
use super::{Call, Exchange, usable};
use crate::batch::check::{self, Checked, RecordError, Refusal, Rules};
use crate::budget::Charge;
use crate::catalog::Topic;
use crate::clock::wall_clock_ms;
use crate::config::TimestampType;
use crate::error::ErrorCode;
use crate::quota::{Flow, Quotas};
use crate::seldom::Seldom;
use crate::server::waiting::{Outcome, Ticket};
use crate::storage::Partition;
use crate::wire::{Records, Uuid, Writer, messages, write_response};
use crate::writer::{Acks, Append, Appended, Caller, Completion, Job};
use std::sync::Arc;

messages! {
    ProduceRequest(0) [0-13, flexible 9+] {
        transactional_id: Option<String> [3+],
        acks: i16 [0+],
        timeout_ms: i32 [0+],
        topic_data: Vec<TopicProduceData> [0+],
    }
    TopicProduceData {
        name: String [0-12],
        topic_id: Uuid [13+],
        partition_data: Vec<PartitionProduceData> [0+],
    }
    PartitionProduceData {
        index: i32 [0+],
        records: Records [0+],
    }

    ProduceResponse(0) [0-13, flexible 9+] {
        responses: Vec<TopicProduceResponse> [0+],
        throttle_time_ms: i32 [1+],
        node_endpoints: Vec<NodeEndpoint> [10+ tag 0],
    }
    TopicProduceResponse {
        name: String [0-12],
        topic_id: Uuid [13+],
        partition_responses: Vec<PartitionProduceResponse> [0+],
    }
    PartitionProduceResponse {
        index: i32 [0+],
        error_code: i16 [0+],
        base_offset: i64 [0+],
        log_append_time_ms: i64 [2+] = -1,
        log_start_offset: i64 [5+] = -1,
        record_errors: Vec<BatchIndexAndErrorMessage> [8+],
        error_message: Option<String> [8+],
        current_leader: LeaderIdAndEpoch [10+ tag 0],
    }
    BatchIndexAndErrorMessage {
        batch_index: i32 [8+],
        batch_index_error_message: Option<String> [8+],
    }
    LeaderIdAndEpoch {
        leader_id: i32 [10+] = -1,
        leader_epoch: i32 [10+] = -1,
    }
    NodeEndpoint {
        node_id: i32 [10+],
        host: String [10+],
        port: i32 [10+],
        rack: Option<String> [10+],
    }
}

/// The first version that Kafka 4 serves; what is below is advertised all the same, and refused (KAFKA-18659).
const VERSION_MIN: i16 = 3;

/// Who may write to internal topics (Kafka's `AdminUtils.ADMIN_CLIENT_ID`).
const ADMIN_CLIENT_ID: &str = "__admin_client";

/// The first version that may carry zstd (KIP-110).
const VERSION_ZSTD: i16 = 7;

/// Checks every batch on this thread and hands the good ones to the writer; the response waits for them.
///
/// With `acks=0` nothing is answered, but a batch that is refused closes the connection, as in Kafka: it is the
/// only way to tell that producer.
///
/// `bytes` is what the request takes of the client's quota.
pub fn handle(exchange: &mut Exchange<'_>, request: ProduceRequest, bytes: usize) -> Pending {
    let version = exchange.header.api_version;
    let is_admin = exchange.header.client_id.as_deref() == Some(ADMIN_CLIENT_ID);
    let client_id = exchange.header.client_id.take().unwrap_or_default();
    let call = &exchange.call;
    let limit = call.broker.quotas.limit(Flow::Produce, &client_id);
    let acks = match request.acks {
        0 => Ok(Acks::None),
        1 => Ok(Acks::Leader),
        -1 => Ok(Acks::All),
        _ => Err(ErrorCode::InvalidRequiredAcks),
    };
    let mut pending = Pending {
        request: call.request,
        correlation_id: exchange.header.correlation_id,
        version,
        acks: acks.unwrap_or(Acks::All),
        metered: limit.map(|_| Metered {
            quotas: call.broker.quotas.clone(),
            client_id,
            bytes: bytes as u64,
        }),
        response: ProduceResponse::default(),
        places: Vec::new(),
        waits: 0,
        _memory: exchange.memory.take(),
    };
    let catalog = call.broker.catalog.get();
    let arrived = Arrived {
        version,
        now_ms: wall_clock_ms(),
        time_ms: call.broker.clock.now().time_ms,
    };
    let mut appends = Vec::new();
    for topic in request.topic_data {
        let named = catalog
            .by_name(&topic.name)
            .ok_or(ErrorCode::UnknownTopicOrPartition);
        let known = match version {
            ..13 => named,
            _ => catalog
                .by_id(topic.topic_id)
                .ok_or(ErrorCode::UnknownTopicId),
        };
        let known = match known {
            Ok(topic) if topic.is_internal() && !is_admin => Err(ErrorCode::InvalidTopicException),
            known => known,
        };
        pending.begin_topic(topic.name, topic.topic_id);
        for data in topic.partition_data {
            let index = data.index;
            let checked = acks
                .map_err(refusal)
                .and_then(|_| check(call, &arrived, &known, data));
            appends.extend(pending.begin_partition(index, checked, call.caller));
        }
    }
    pending.waits = appends.len();
    if appends.iter().any(is_transactional) {
        let id = request.transactional_id;
        let parts = take_part(&mut exchange.call, version, id, &appends);
        appends = pending.begin_transactional(appends, parts);
    }
    let writer = &exchange.call.broker.writer;
    writer.submit(appends.into_iter().map(Job::Append));
    pending
}

type Known<'a> = Result<&'a Arc<Topic>, ErrorCode>;

/// What all batches of a request share.
struct Arrived {
    version: i16,
    /// The wall clock.
    now_ms: i64,
    /// Broker time, which is behind a lock.
    time_ms: i64,
}

fn check(
    call: &Call<'_>,
    arrived: &Arrived,
    topic: &Known<'_>,
    data: PartitionProduceData,
) -> Result<(Arc<Partition>, Checked), Refusal> {
    let &Arrived {
        version,
        now_ms,
        time_ms,
    } = arrived;
    if version < VERSION_MIN {
        return Err(refusal(ErrorCode::UnsupportedVersion));
    }
    let topic = topic.map_err(refusal)?;
    let partition = topic.partition(data.index);
    usable(partition, -1, ErrorCode::UnknownTopicOrPartition).map_err(refusal)?;
    let partition = partition.ok_or_else(|| refusal(ErrorCode::UnknownTopicOrPartition))?;
    let Records::Held(records) = data.records else {
        return Err(Refusal {
            code: ErrorCode::InvalidRecord,
            message: "A produce request without records for a partition.".into(),
            record_errors: Vec::new(),
        });
    };
    let config = &topic.config;
    let rules = Rules {
        message_bytes_max: config.max_message_bytes,
        append_time: (config.timestamp_type == TimestampType::LogAppendTime).then_some(now_ms),
        keys_required: config.cleanup_policy.compact,
        now_ms,
        timestamp_before_max_ms: config.timestamp_before_max_ms,
        timestamp_after_max_ms: after_max_ms(now_ms, time_ms, config.timestamp_after_max_ms),
        zstd_allowed: version >= VERSION_ZSTD,
    };
    let batch = check::check(&records, &rules, &call.broker.decoders)
        .inspect_err(|refused| report(call, partition, refused))?;
    let bytes = batch.total_bytes();
    if bytes > config.segment_bytes as usize {
        return Err(Refusal {
            code: ErrorCode::RecordListTooLarge,
            message: format!(
                "Message batch size is {bytes} bytes in append to partition {}-{}, which exceeds the maximum configured \
                 segment size of {}.",
                partition.topic, partition.index, config.segment_bytes
            ),
            record_errors: Vec::new(),
        });
    }
    Ok((partition.clone(), batch))
}

/// A wall clock is behind broker time only if it is so by more than this: adjusted, it runs a little slower at times.
const BEHIND_MS_MIN: i64 = 60_000;

/// P8: a wall clock behind broker time was not set yet, as on boxes without a battery, or was set back; it can tell of
/// no record that it comes too early.
fn after_max_ms(now_ms: i64, time_ms: i64, configured: i64) -> i64 {
    match now_ms < time_ms.saturating_sub(BEHIND_MS_MIN) {
        true => i64::MAX,
        false => configured,
    }
}

fn refusal(code: ErrorCode) -> Refusal {
    Refusal {
        code,
        message: String::new(),
        record_errors: Vec::new(),
    }
}

/// A batch that no client should have sent, or that something on its way changed: someone should look at that.
fn report(call: &Call<'_>, partition: &Partition, refused: &Refusal) {
    if let ErrorCode::CorruptMessage | ErrorCode::InvalidRecord = refused.code {
        let peer = call.socket.peer_addr().map(|peer| peer.to_string());
        static REFUSED: Seldom = Seldom::new();
        REFUSED.warn(format_args!(
            "{}: a batch for {}-{} is refused with {}: {}",
            peer.unwrap_or_else(|error| error.to_string()),
            partition.topic,
            partition.index,
            refused.code.name(),
            refused.message
        ));
    }
}

fn refuse(answer: &mut PartitionProduceResponse, refusal: Refusal) {
    answer.error_code = refusal.code.code();
    answer.error_message = Some(refusal.message).filter(|message| !message.is_empty());
    let error = |error: RecordError| BatchIndexAndErrorMessage {
        batch_index: error.index,
        batch_index_error_message: error.message,
    };
    answer.record_errors = refusal.record_errors.into_iter().map(error).collect();
}

/// What a produce takes of its client's quota.
struct Metered {
    quotas: Arc<Quotas>,
    client_id: String,
    bytes: u64,
}

/// A produce whose batches are with the writer, and the response that they fill in.
pub struct Pending {
    /// Its number on its connection.
    pub request: u64,
    correlation_id: i32,
    version: i16,
    acks: Acks,
    metered: Option<Metered>,
    response: ProduceResponse,
    /// For each part of the request that the writer has: topic and partition in the response.
    places: Vec<(usize, usize)>,
    waits: usize,
    /// Held for its drop alone.
    _memory: Option<Charge>,
}

impl Pending {
    fn begin_topic(&mut self, name: String, topic_id: Uuid) {
        self.response.responses.push(TopicProduceResponse {
            name,
            topic_id,
            partition_responses: Vec::new(),
        });
    }

    /// Adds a partition's answer to the last topic: a refusal at once, a batch is for the writer.
    fn begin_partition(
        &mut self,
        index: i32,
        checked: Result<(Arc<Partition>, Checked), Refusal>,
        caller: &Arc<Caller>,
    ) -> Option<Append> {
        let topic = self.response.responses.len().checked_sub(1)?;
        let answers = &mut self.response.responses[topic].partition_responses;
        let mut answer = PartitionProduceResponse {
            index,
            base_offset: -1,
            ..PartitionProduceResponse::default()
        };
        let place = (topic, answers.len());
        let append = match checked {
            Err(refused) => {
                refuse(&mut answer, refused);
                None
            }
            Ok((partition, batch)) => {
                let part = self.places.len() as u32;
                self.places.push(place);
                let ticket = Ticket {
                    request: self.request,
                    part,
                };
                let completion = Completion::Connection(caller.clone(), ticket);
                Some(Append {
                    partition,
                    batch,
                    transaction: None,
                    acks: self.acks,
                    completion,
                })
            }
        };
        answers.push(answer);
        append
    }

    /// Gives each batch its transaction; what has none to be part of is refused. Gives what is left.
    fn begin_transactional(
        &mut self,
        appends: Vec<Append>,
        parts: Result<Parts, ErrorCode>,
    ) -> Vec<Append> {
        let parts = match parts {
            Ok(parts) => parts,
            Err(code) => vec![Err(code.into()); appends.len()],
        };
        let mut left = Vec::with_capacity(appends.len());
        for (part, (mut append, transaction)) in (0..).zip(appends.into_iter().zip(parts)) {
            match transaction {
                Ok(transaction) => {
                    append.transaction = transaction;
                    left.push(append);
                }
                Err(refused) => self.settle(part, Outcome::Append(Err(refused))),
            }
        }
        left
    }

    /// Takes in what the writer did with one part.
    pub fn settle(&mut self, part: u32, outcome: Outcome) {
        let Outcome::Append(result) = outcome else {
            return;
        };
        let Some((topic, partition)) = self.places.get(part as usize) else {
            return;
        };
        let answer = &mut self.response.responses[*topic].partition_responses[*partition];
        self.waits -= 1;
        match result {
            // P1: acks=all is answered on a proof alone.
            Ok(Appended { durable: None, .. }) if self.acks == Acks::All => {
                answer.error_code = ErrorCode::UnknownServerError.code();
            }
            Ok(appended) => {
                answer.base_offset = appended.base_offset;
                answer.log_append_time_ms = appended.append_time;
                answer.log_start_offset = appended.log_start;
            }
            Err(refused) => {
                answer.error_code = refused.code.code();
                answer.error_message = refused.message;
            }
        }
    }

    /// The topics and partitions that it answers: what it takes of its connection's share of memory.
    pub fn partitions(&self) -> usize {
        let topics = self.response.responses.iter();
        topics
            .map(|topic| 1 + topic.partition_responses.len())
            .sum()
    }

    /// Whether every part is settled.
    pub fn is_settled(&self) -> bool {
        self.waits == 0
    }

    /// Whether its client has a quota: nothing is taken up beside it, since it may be the last for a while.
    pub fn is_metered(&self) -> bool {
        self.metered.is_some()
    }

    /// Appends the response to `out`; gives the milliseconds for which nothing is then to be read from the client.
    /// The error says why the connection must be closed instead.
    pub fn finish(mut self, out: &mut Writer) -> Result<i32, String> {
        let record = |metered: &Metered| {
            let Metered {
                quotas,
                client_id,
                bytes,
            } = metered;
            quotas.record(Flow::Produce, client_id, *bytes)
        };
        let throttle_time_ms = self.metered.as_ref().map_or(0, record);
        if self.acks == Acks::None {
            let topics = &self.response.responses;
            let refused = topics
                .iter()
                .flat_map(|topic| &topic.partition_responses)
                .find(|p| p.error_code != 0);
            return match refused {
                Some(answer) => Err(format!(
                    "a produce with acks=0 was refused with error {}",
                    answer.error_code
                )),
                None => Ok(throttle_time_ms),
            };
        }
        self.response.throttle_time_ms = throttle_time_ms;
        let response = write_response(self.correlation_id, self.version, &self.response);
        out.put(&response.bytes);
        Ok(throttle_time_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::CLOCK_FLOOR_MS;

    #[test]
    fn a_clock_in_1970_refuses_no_record_for_its_time() {
        let time_ms = CLOCK_FLOOR_MS + 86_400_000;
        assert_eq!(after_max_ms(86_400_000, time_ms, 3_600_000), i64::MAX);
        assert_eq!(after_max_ms(CLOCK_FLOOR_MS, time_ms, 3_600_000), i64::MAX);
        for now_ms in [time_ms - 1, time_ms, time_ms + 86_400_000] {
            assert_eq!(after_max_ms(now_ms, time_ms, 3_600_000), 3_600_000);
        }
    }
}
