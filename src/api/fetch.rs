//! Fetch (key 1): reads record batches from partitions.
//!
//! # Behavior
//! - The first batch of a response comes whole, even beyond every limit, so that a reader gets on (KIP-74).
//! - Fewer than `min_bytes`: waits for up to `max_wait_ms`. Beyond the log's end: OFFSET_OUT_OF_RANGE.
//! - Fetch sessions are declined by session id 0: each request names all its partitions, and one that it names
//!   twice is answered once.
//! - Records are spans of segment files, sent by `sendfile`.
//! - Over its quota a client gets an empty answer with the time for which it is then not read (KIP-13, KIP-219).
//!
//! # Version notes
//! - v0-v3 belong to message formats 0 and 1 and are gone since Kafka 4 (KIP-896).
//! - v4: isolation level, last stable offset, aborted transactions (KIP-98). v5: the log's start (KIP-107).
//! - v6: KAFKA_STORAGE_ERROR may come back (KIP-112). v7: fetch sessions (KIP-227).
//! - v8: throttling happens after the response (KIP-219). v9: the client's leader epoch, to fence (KIP-320).
//! - v10: batches may be zstd-compressed (KIP-110). v11: the client's rack, the preferred replica (KIP-392).
//! - v12: flexible; epoch of the last fetched record, diverging epoch, current leader (KIP-482, KIP-595).
//! - v13: topics by id in place of name (KIP-516). v14: OFFSET_MOVED_TO_TIERED_STORAGE (KIP-405).
//! - v15: replica id and epoch in a tagged field (KIP-903). v16: leaders' addresses (KIP-951).
//! - v17: a follower's directory id (KIP-853). v18: a follower's high watermark (KIP-1166).

use super::{Call, Ended, Exchange, Reply, usable};
use crate::error::ErrorCode;
use crate::quota::Flow;
use crate::seldom::Seldom;
use crate::server::waiting::Watch;
use crate::storage::aborted::Aborted;
use crate::storage::{Hint, Partition, ReadError, Snapshot, View, Wake};
use crate::wire::{Records, Uuid, messages, write_response};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

messages! {
    FetchRequest(1) [4-18, flexible 12+] {
        cluster_id: Option<String> [12+ tag 0],
        replica_id: i32 [0-14] = -1,
        replica_state: ReplicaState [15+ tag 1],
        max_wait_ms: i32 [0+],
        min_bytes: i32 [0+],
        max_bytes: i32 [3+] = i32::MAX,
        isolation_level: i8 [4+],
        session_id: i32 [7+],
        session_epoch: i32 [7+] = -1,
        topics: Vec<FetchTopic> [0+],
        forgotten_topics_data: Vec<ForgottenTopic> [7+],
        rack_id: String [11+],
    }
    ReplicaState {
        replica_id: i32 [15+] = -1,
        replica_epoch: i64 [15+] = -1,
    }
    FetchTopic {
        topic: String [0-12],
        topic_id: Uuid [13+],
        partitions: Vec<FetchPartition> [0+],
    }
    FetchPartition {
        partition: i32 [0+],
        current_leader_epoch: i32 [9+] = -1,
        fetch_offset: i64 [0+],
        last_fetched_epoch: i32 [12+] = -1,
        log_start_offset: i64 [5+] = -1,
        partition_max_bytes: i32 [0+],
        replica_directory_id: Uuid [17+ tag 0],
        high_watermark: i64 [18+ tag 1] = i64::MAX,
    }
    ForgottenTopic {
        topic: String [7-12],
        topic_id: Uuid [13+],
        partitions: Vec<i32> [7+],
    }

    FetchResponse(1) [4-18, flexible 12+] {
        throttle_time_ms: i32 [1+],
        error_code: i16 [7+],
        session_id: i32 [7+],
        responses: Vec<FetchableTopicResponse> [0+],
        node_endpoints: Vec<NodeEndpoint> [16+ tag 0],
    }
    FetchableTopicResponse {
        topic: String [0-12],
        topic_id: Uuid [13+],
        partitions: Vec<PartitionData> [0+],
    }
    PartitionData {
        partition_index: i32 [0+],
        error_code: i16 [0+],
        high_watermark: i64 [0+],
        last_stable_offset: i64 [4+] = -1,
        log_start_offset: i64 [5+] = -1,
        diverging_epoch: EpochEndOffset [12+ tag 0],
        current_leader: LeaderIdAndEpoch [12+ tag 1],
        snapshot_id: SnapshotId [12+ tag 2],
        aborted_transactions: Option<Vec<AbortedTransaction>> [4+],
        preferred_read_replica: i32 [11+] = -1,
        records: Records [0+],
    }
    EpochEndOffset {
        epoch: i32 [12+] = -1,
        end_offset: i64 [12+] = -1,
    }
    LeaderIdAndEpoch {
        leader_id: i32 [12+] = -1,
        leader_epoch: i32 [12+] = -1,
    }
    SnapshotId {
        end_offset: i64 [0+] = -1,
        epoch: i32 [0+] = -1,
    }
    AbortedTransaction {
        producer_id: i64 [4+],
        first_offset: i64 [4+],
    }
    NodeEndpoint {
        node_id: i32 [16+],
        host: String [16+],
        port: i32 [16+],
        rack: Option<String> [16+],
    }
}

impl From<Aborted> for AbortedTransaction {
    fn from(aborted: Aborted) -> AbortedTransaction {
        AbortedTransaction {
            producer_id: aborted.producer_id,
            first_offset: aborted.first_offset,
        }
    }
}

const READ_COMMITTED: i8 = 1;

/// One partition of a request, with what it asks for.
struct Wanted<'a> {
    asked: &'a FetchPartition,
    partition: Option<Arc<Partition>>,
    missing: ErrorCode,
}

/// Serves a fetch within the client's quota. Over it, the answer is empty, and the client asks again after the time
/// that it states: what would have been sent is neither sent nor counted (KIP-219).
pub fn within_quota(
    exchange: &mut Exchange<'_>,
    mut request: FetchRequest,
) -> Result<Reply, String> {
    let client_id = exchange.header.client_id.take().unwrap_or_default();
    let broker = exchange.call.broker.clone();
    // More would be throttled whatever came before it, and so never sent.
    let bytes_max = broker.quotas.bytes_max(Flow::Fetch, &client_id);
    request.max_bytes = request.max_bytes.min(bytes_max);
    let reply = exchange.reply_unless_ended(|call, version| handle(call, version, request))?;
    let Reply::Now(response) = reply else {
        return Ok(reply);
    };
    let bytes = response.total_bytes();
    let throttle_time_ms = broker.quotas.record(Flow::Fetch, &client_id, bytes);
    if throttle_time_ms == 0 {
        return Ok(Reply::Now(response));
    }
    let empty = FetchResponse {
        throttle_time_ms,
        ..FetchResponse::default()
    };
    let header = &exchange.header;
    let response = write_response(header.correlation_id, header.api_version, &empty);
    Ok(Reply::Throttled(response, throttle_time_ms))
}

/// Finds the batches; `sendfile` sends them from the segment files. Waits, without polling, until `min_bytes` are
/// there, `max_wait_ms` have passed, a partition has something to say that no waiting will change, or the client
/// sends no more.
///
/// Sessions are declined (session id 0), so every request names all that it wants.
pub fn handle(
    call: &mut Call<'_>,
    version: i16,
    mut request: FetchRequest,
) -> Result<FetchResponse, Ended> {
    if request.session_id != 0 && request.session_epoch > 0 {
        return Ok(FetchResponse {
            error_code: ErrorCode::FetchSessionIdNotFound.code(),
            ..FetchResponse::default()
        });
    }
    let bytes_max = call.broker.config().fetch_bytes_max;
    request.max_bytes = request.max_bytes.clamp(0, bytes_max);
    keep_first(&mut request.topics);
    // More than an answer can hold would never be there.
    let partitions = request.topics.iter().flat_map(|topic| &topic.partitions);
    let limits = partitions.map(|asked| asked.partition_max_bytes.max(0));
    let bytes_max = limits.fold(0, i32::saturating_add).min(request.max_bytes);
    request.min_bytes = request.min_bytes.clamp(0, bytes_max);
    let wanted = resolve(call, version, &request);
    let wait = Duration::from_millis(request.max_wait_ms.max(0) as u64);
    let deadline = Instant::now() + wait;
    let found = look(call, &request, &wanted);
    if found.is_enough(&request) || wait.is_zero() {
        return Ok(respond(&request, found));
    }
    drop(found);
    let found = wait_for(call, &request, &wanted, deadline)?;
    Ok(respond(&request, found))
}

/// Drops partitions that were named before: a few bytes would bring megabytes, again and again.
fn keep_first(topics: &mut Vec<FetchTopic>) {
    let mut seen = HashSet::new();
    for asked in topics.iter_mut() {
        let (name, id): (&str, Uuid) = (&asked.topic, asked.topic_id);
        let partitions = &mut asked.partitions;
        partitions.retain(|partition| seen.insert((name, id, partition.partition)));
    }
    topics.retain(|topic| !topic.partitions.is_empty());
}

fn resolve<'a>(call: &Call<'_>, version: i16, request: &'a FetchRequest) -> Vec<Wanted<'a>> {
    let catalog = call.broker.catalog.get();
    let mut wanted = Vec::new();
    for topic in &request.topics {
        let (known, missing) = match version {
            ..13 => (
                catalog.by_name(&topic.topic),
                ErrorCode::UnknownTopicOrPartition,
            ),
            // A recreated topic has another id (KAFKA-12257).
            _ => (catalog.by_id(topic.topic_id), ErrorCode::UnknownTopicId),
        };
        let missing_partition = if known.is_some() {
            ErrorCode::UnknownTopicOrPartition
        } else {
            missing
        };
        wanted.extend(topic.partitions.iter().map(|asked| {
            let partition = known
                .and_then(|topic| topic.partition(asked.partition))
                .cloned();
            // A topic that is deleted while a fetch waits is missing in the way that it was asked for.
            let missing = if partition.is_some() {
                missing
            } else {
                missing_partition
            };
            Wanted {
                asked,
                partition,
                missing,
            }
        }));
    }
    wanted
}

/// What there is for each partition of a request, in its order.
struct Found {
    partitions: Vec<PartitionData>,
    bytes: u64,
    /// As `bytes`; but where a limit kept more out, the limit counts: answers end at a batch's edge, mostly below it.
    available: u64,
    files: usize,
    /// A partition has an error, or an answer without records; or no more fits.
    is_final: bool,
}

impl Found {
    fn is_enough(&self, request: &FetchRequest) -> bool {
        self.is_final || self.partitions.is_empty() || self.available >= request.min_bytes as u64
    }
}

fn look(call: &mut Call<'_>, request: &FetchRequest, wanted: &[Wanted<'_>]) -> Found {
    let mut found = Found {
        partitions: Vec::with_capacity(wanted.len()),
        bytes: 0,
        available: 0,
        files: 0,
        is_final: false,
    };
    let mut left = request.max_bytes as u32;
    for wanted in wanted {
        // An answer holds its files open until it is sent. The client asks again for those of further partitions.
        if found.files >= call.broker.storage.files_max() {
            (left, found.is_final) = (0, true);
        }
        let (data, is_cut) = match read(call, request, wanted, left, found.bytes == 0) {
            Ok(read) => read,
            Err((code, snapshot)) => (refuse(wanted.asked.partition, code, snapshot), false),
        };
        let slices = match &data.records {
            Records::Files(slices) => &slices[..],
            _ => &[],
        };
        let bytes: u64 = slices.iter().map(|slice| u64::from(slice.len)).sum();
        found.files += slices.len();
        found.is_final |= data.error_code != 0 || data.diverging_epoch != EpochEndOffset::default();
        found.bytes += bytes;
        found.available += match is_cut {
            true => bytes.max(bytes_max(wanted.asked, left).into()),
            false => bytes,
        };
        left = left.saturating_sub(bytes.min(u64::from(u32::MAX)) as u32);
        found.partitions.push(data);
    }
    found
}

/// What an answer that has `left` bytes may take of a partition.
fn bytes_max(asked: &FetchPartition, left: u32) -> u32 {
    left.min(asked.partition_max_bytes.max(0) as u32)
}

type Refused = (ErrorCode, Option<Snapshot>);

/// The partition's data, and whether a limit kept more out. KIP-74: `first` is the first of the response that has
/// anything, and its first batch comes whole.
fn read(
    call: &mut Call<'_>,
    request: &FetchRequest,
    wanted: &Wanted<'_>,
    left: u32,
    first: bool,
) -> Result<(PartitionData, bool), Refused> {
    let asked = wanted.asked;
    let partition = wanted.partition.as_ref();
    let snapshot = usable(partition, asked.current_leader_epoch, wanted.missing)
        .map_err(|code| (code, None))?;
    let view = &snapshot.view;
    let mut data = PartitionData {
        partition_index: asked.partition,
        high_watermark: view.high_watermark,
        last_stable_offset: view.last_stable,
        log_start_offset: view.log_start,
        aborted_transactions: (request.isolation_level == READ_COMMITTED).then(Vec::new),
        records: Records::Files(Vec::new()),
        ..PartitionData::default()
    };
    match divergence(view, asked) {
        Ok(None) => {}
        Ok(Some(diverging)) => {
            data.diverging_epoch = diverging;
            return Ok((data, false));
        }
        Err(code) => return Err((code, Some(snapshot))),
    }
    let end = match request.isolation_level {
        READ_COMMITTED => view.last_stable,
        _ => view.high_watermark,
    };
    let bytes_max = bytes_max(asked, left);
    let hint = call
        .hints
        .of(partition.map_or(0, |partition| partition.serial));
    let (storage, offset) = (&call.broker.storage, asked.fetch_offset);
    let found = view.slices(storage, offset, end, bytes_max, first, hint);
    let found = found.and_then(|slices| {
        if let Some(aborted) = &mut data.aborted_transactions
            && !slices.files.is_empty()
        {
            let listed = view.aborted(storage, offset, *hint)?.into_iter();
            aborted.extend(listed.map(AbortedTransaction::from));
        }
        Ok(slices)
    });
    match found {
        Ok(slices) => {
            data.records = Records::Files(slices.files);
            Ok((data, slices.is_cut))
        }
        Err(ReadError::OutOfRange) => Err((ErrorCode::OffsetOutOfRange, Some(snapshot))),
        // Its segment was removed: a newer view shows what is there now.
        Err(ReadError::Gone) if partition.is_some_and(|p| p.has_moved_since(view)) => {
            read(call, request, wanted, left, first)
        }
        // Its directory was renamed away, and the partition is about to be marked as deleted.
        Err(ReadError::Gone) => Err((wanted.missing, None)),
        Err(ReadError::Io(error)) => {
            static FAILED: Seldom = Seldom::new();
            FAILED.error(format_args!("reading a log at offset {offset}: {error}"));
            partition.inspect(|partition| call.broker.cleaner.suspect(partition));
            Err((ErrorCode::KafkaStorageError, None))
        }
    }
}

/// Where the log parts from what the client says that it read last (KIP-595). An epoch that was never here is out of
/// range, as in Kafka: there is no place to go back to.
fn divergence(view: &View, asked: &FetchPartition) -> Result<Option<EpochEndOffset>, ErrorCode> {
    if asked.last_fetched_epoch < 0 {
        return Ok(None);
    }
    let (epoch, end_offset) = view.end_offset_for_epoch(asked.last_fetched_epoch);
    if epoch < 0 || end_offset < 0 {
        return Err(ErrorCode::OffsetOutOfRange);
    }
    let parted = epoch < asked.last_fetched_epoch || end_offset < asked.fetch_offset;
    Ok(parted.then_some(EpochEndOffset { epoch, end_offset }))
}

fn refuse(partition: i32, code: ErrorCode, snapshot: Option<Snapshot>) -> PartitionData {
    let mut data = PartitionData {
        partition_index: partition,
        error_code: code.code(),
        high_watermark: -1,
        records: Records::Files(Vec::new()),
        ..PartitionData::default()
    };
    // What is out of range is said beside the range.
    if let (ErrorCode::OffsetOutOfRange, Some(snapshot)) = (code, snapshot) {
        data.high_watermark = snapshot.view.high_watermark;
        data.last_stable_offset = snapshot.view.last_stable;
        data.log_start_offset = snapshot.view.log_start;
    }
    data
}

/// Where this connection's last fetch of each partition ended; forgotten when there are too many.
#[derive(Default)]
pub struct Hints(HashMap<u64, Hint>);

/// The partitions that a connection's hints are kept for.
const HINTS_MAX: usize = 256;

impl Hints {
    fn of(&mut self, serial: u64) -> &mut Hint {
        if self.0.len() >= HINTS_MAX && !self.0.contains_key(&serial) {
            self.0.clear();
        }
        self.0.entry(serial).or_default()
    }
}

/// Each look follows a watch, so that nothing published in between is missed. What was found is not kept over a wait:
/// its files are held open, and the storage has no others for anybody else.
fn wait_for(
    call: &mut Call<'_>,
    request: &FetchRequest,
    wanted: &[Wanted<'_>],
    deadline: Instant,
) -> Result<Found, Ended> {
    let waker: Arc<dyn Wake> = call.caller.clone();
    let mut is_over = false;
    loop {
        call.caller.inbox.bell().arm();
        let watched = || wanted.iter().filter_map(|wanted| wanted.partition.as_ref());
        watched().for_each(|partition| partition.watch(waker.clone()));
        let found = look(call, request, wanted);
        let enough = (is_over || found.is_enough(request)).then_some(found);
        let rested = match &enough {
            Some(_) => Ok(true),
            None => call.rest(Watch::HangUp, Some(deadline)),
        };
        watched().for_each(|partition| partition.unwatch(&waker));
        is_over = rested?;
        if let Some(found) = enough {
            call.caller.inbox.bell().disarm();
            return Ok(found);
        }
    }
}

fn respond(request: &FetchRequest, found: Found) -> FetchResponse {
    let mut data = found.partitions.into_iter();
    let topic = |topic: &FetchTopic| FetchableTopicResponse {
        topic: topic.topic.clone(),
        topic_id: topic.topic_id,
        partitions: data.by_ref().take(topic.partitions.len()).collect(),
    };
    FetchResponse {
        responses: request.topics.iter().map(topic).collect(),
        ..FetchResponse::default()
    }
}
