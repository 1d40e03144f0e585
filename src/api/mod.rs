//! One file per Kafka API, and this table of them: what is in it is served and advertised, nothing else.
//!
//! A handler is a function from a request to a response, on its connection's thread. Behind its message tables it
//! says what the broker does; the version notes on top of each file say what each version changed.

pub mod add_offsets_to_txn;
pub mod add_partitions_to_txn;
pub mod alter_client_quotas;
pub mod alter_configs;
pub mod alter_partition_reassignments;
pub mod alter_replica_log_dirs;
pub mod api_versions;
mod call;
pub mod consumer_group_describe;
pub mod consumer_group_heartbeat;
pub mod create_acls;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_acls;
pub mod delete_groups;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_acls;
pub mod describe_client_quotas;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_groups;
pub mod describe_log_dirs;
pub mod describe_producers;
pub mod describe_quorum;
pub mod describe_topic_partitions;
pub mod describe_transactions;
pub mod describe_user_scram_credentials;
pub mod elect_leaders;
pub mod end_txn;
mod enlist;
pub mod fetch;
pub mod find_coordinator;
pub mod heartbeat;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod join_group;
pub mod leave_group;
pub mod list_config_resources;
pub mod list_groups;
pub mod list_offsets;
pub mod list_partition_reassignments;
pub mod list_transactions;
pub mod metadata;
pub mod offset_commit;
pub mod offset_delete;
pub mod offset_fetch;
pub mod offset_for_leader_epoch;
pub mod operations;
pub mod produce;
pub mod sync_group;
pub mod txn_offset_commit;
pub mod update_features;
pub mod write_txn_markers;

pub use call::{Call, Ended, usable};
pub use produce::Pending;

use crate::budget::Charge;
use crate::wire::primitives::{ELEMENT_BYTES, ELEMENTS_FREE};
use crate::wire::{Frame, Message, Reader, RequestHeader, Writer, read_request, write_response};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// What a response's length, an INT32 in front of it, can state.
const RESPONSE_BYTES_MAX: u64 = 4 + i32::MAX as u64;

/// A fetch of hundreds of partitions keeps its share of a budget while it waits, and must not for days.
const LARGE_WAIT_MS_MAX: i32 = 2_000;

/// What Kafka answers in place of null where a message is not set and its table gives no default.
const NOTHING_SAID: Option<String> = Some(String::new());

/// An API that is served.
pub struct Api {
    /// Its key.
    pub key: i16,
    /// Kafka's name for it, as in its messages: `Fetch`.
    pub name: &'static str,
    /// The versions that are served.
    pub versions: RangeInclusive<i16>,
    serve: fn(&mut Exchange<'_>, Arc<Frame>) -> Result<Reply, String>,
}

/// What a request led to.
pub enum Reply {
    /// The response, to be sent now.
    Now(Writer),
    /// The same, and then nothing is read from the client for so many milliseconds (KIP-219).
    Throttled(Writer, i32),
    /// A produce that waits for the writer.
    Later(Pending),
    /// The connection failed meanwhile.
    Ended,
}

/// The table: one row an API, its request, its handler.
macro_rules! apis {
    ($($request:path => $handler:expr,)*) => {
        /// Every API that is served, by key.
        pub const APIS: &[Api] = &[$(Api {
            key: <$request as Message>::KEY,
            name: <$request as Message>::NAME,
            versions: <$request as Message>::VERSIONS,
            serve: $handler,
        },)*];
    };
}

apis! {
    produce::ProduceRequest => |exchange, frame| {
        let bytes = frame.len();
        let request = exchange.read(frame)?;
        Ok(Reply::Later(produce::handle(exchange, request, bytes)))
    },
    fetch::FetchRequest => |exchange, frame| {
        let mut request: fetch::FetchRequest = exchange.read(frame)?;
        if exchange.memory.as_ref().is_some_and(|memory| memory.bytes() > 0) {
            request.max_wait_ms = request.max_wait_ms.min(LARGE_WAIT_MS_MAX);
        }
        fetch::within_quota(exchange, request)
    },
    list_offsets::ListOffsetsRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply_unless_ended(|call, version| list_offsets::handle(call, version, request))
    },
    metadata::MetadataRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reserve_for_topics(metadata::rows_max(&exchange.call, &request))?;
        exchange.reply_unless_ended(|call, version| metadata::handle(call, version, request))
    },
    offset_commit::OffsetCommitRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply_unless_ended(|call, version| offset_commit::handle(call, version, request))
    },
    offset_fetch::OffsetFetchRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply_unless_ended(|call, version| offset_fetch::handle(call, version, request))
    },
    find_coordinator::FindCoordinatorRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply_unless_ended(|call, version| find_coordinator::handle(call, version, request))
    },
    join_group::JoinGroupRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.give_back();
        exchange.reply_unless_ended(|call, version| join_group::handle(call, version, request))
    },
    heartbeat::HeartbeatRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply_unless_ended(|call, version| heartbeat::handle(call, version, request))
    },
    leave_group::LeaveGroupRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply_unless_ended(|call, version| leave_group::handle(call, version, request))
    },
    sync_group::SyncGroupRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.give_back();
        exchange.reply_unless_ended(|call, version| sync_group::handle(call, version, request))
    },
    describe_groups::DescribeGroupsRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply_unless_ended(|call, version| describe_groups::handle(call, version, request))
    },
    list_groups::ListGroupsRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply_unless_ended(|call, version| list_groups::handle(call, version, request))
    },
    api_versions::ApiVersionsRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply(|_, version| api_versions::handle(version, request))
    },
    create_topics::CreateTopicsRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply_unless_ended(|call, _| create_topics::handle(call, request))
    },
    delete_topics::DeleteTopicsRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply_unless_ended(|call, version| delete_topics::handle(call, version, request))
    },
    delete_records::DeleteRecordsRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply_unless_ended(|call, _| delete_records::handle(call, request))
    },
    init_producer_id::InitProducerIdRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply_unless_ended(|call, version| init_producer_id::handle(call, version, request))
    },
    offset_for_leader_epoch::OffsetForLeaderEpochRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply(|call, _| offset_for_leader_epoch::handle(call, request))
    },
    add_partitions_to_txn::AddPartitionsToTxnRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply_unless_ended(|call, version| add_partitions_to_txn::handle(call, version, request))
    },
    add_offsets_to_txn::AddOffsetsToTxnRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply_unless_ended(|call, version| add_offsets_to_txn::handle(call, version, request))
    },
    end_txn::EndTxnRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply_unless_ended(|call, version| end_txn::handle(call, version, request))
    },
    write_txn_markers::WriteTxnMarkersRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply_unless_ended(|call, _| write_txn_markers::handle(call, request))
    },
    txn_offset_commit::TxnOffsetCommitRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply_unless_ended(|call, version| txn_offset_commit::handle(call, version, request))
    },
    describe_acls::DescribeAclsRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply(|_, _| describe_acls::handle(request))
    },
    create_acls::CreateAclsRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply(|_, _| create_acls::handle(request))
    },
    delete_acls::DeleteAclsRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply(|_, _| delete_acls::handle(request))
    },
    describe_configs::DescribeConfigsRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reserve(describe_configs::rows_max(&request))?;
        exchange.reply(|call, _| describe_configs::handle(call, request))
    },
    alter_configs::AlterConfigsRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply_unless_ended(|call, _| alter_configs::handle(call, request))
    },
    alter_replica_log_dirs::AlterReplicaLogDirsRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply(|call, _| alter_replica_log_dirs::handle(call, request))
    },
    describe_log_dirs::DescribeLogDirsRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reserve_for_topics(exchange.call.broker.catalog.get().rows())?;
        exchange.reply(|call, _| describe_log_dirs::handle(call, request))
    },
    create_partitions::CreatePartitionsRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply_unless_ended(|call, _| create_partitions::handle(call, request))
    },
    delete_groups::DeleteGroupsRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply_unless_ended(|call, version| delete_groups::handle(call, version, request))
    },
    elect_leaders::ElectLeadersRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply(|call, _| elect_leaders::handle(call, request))
    },
    incremental_alter_configs::IncrementalAlterConfigsRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply_unless_ended(|call, _| incremental_alter_configs::handle(call, request))
    },
    alter_partition_reassignments::AlterPartitionReassignmentsRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply(|call, _| alter_partition_reassignments::handle(call, request))
    },
    list_partition_reassignments::ListPartitionReassignmentsRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply(|_, _| list_partition_reassignments::handle(request))
    },
    offset_delete::OffsetDeleteRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply_unless_ended(|call, version| offset_delete::handle(call, version, request))
    },
    describe_client_quotas::DescribeClientQuotasRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reserve(describe_client_quotas::rows_max(&exchange.call))?;
        exchange.reply(|call, _| describe_client_quotas::handle(call, request))
    },
    alter_client_quotas::AlterClientQuotasRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply_unless_ended(|call, _| alter_client_quotas::handle(call, request))
    },
    describe_user_scram_credentials::DescribeUserScramCredentialsRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply(|_, _| describe_user_scram_credentials::handle(request))
    },
    describe_quorum::DescribeQuorumRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply(|call, _| describe_quorum::handle(call, request))
    },
    update_features::UpdateFeaturesRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply(|call, _| update_features::handle(call, request))
    },
    describe_cluster::DescribeClusterRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply(|call, _| describe_cluster::handle(call, request))
    },
    describe_producers::DescribeProducersRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply_unless_ended(|call, _| describe_producers::handle(call, request))
    },
    describe_transactions::DescribeTransactionsRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply_unless_ended(|call, _| describe_transactions::handle(call, request))
    },
    list_transactions::ListTransactionsRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply_unless_ended(|call, _| list_transactions::handle(call, request))
    },
    consumer_group_heartbeat::ConsumerGroupHeartbeatRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply_unless_ended(|call, version| consumer_group_heartbeat::handle(call, version, request))
    },
    consumer_group_describe::ConsumerGroupDescribeRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reply_unless_ended(|call, version| consumer_group_describe::handle(call, version, request))
    },
    list_config_resources::ListConfigResourcesRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reserve(list_config_resources::names_max(exchange.call.broker))?;
        exchange.reply(|call, version| list_config_resources::handle(call, version, request))
    },
    describe_topic_partitions::DescribeTopicPartitionsRequest => |exchange, frame| {
        let request = exchange.read(frame)?;
        exchange.reserve_for_topics(exchange.call.broker.catalog.get().rows())?;
        exchange.reply(|call, _| describe_topic_partitions::handle(call, request))
    },
}

/// Whether requests of this API are taken up while earlier ones of the same connection are pending.
pub fn is_pipelined(key: i16) -> bool {
    key == produce::ProduceRequest::KEY
}

/// Serves one request; the error is why the connection must be closed, as Kafka does for what it cannot parse.
pub fn dispatch(call: Call<'_>, frame: Arc<Frame>) -> Result<Reply, String> {
    let mut reader = Reader::of_frame(&frame);
    let header =
        RequestHeader::read(&mut reader).map_err(|error| format!("a request's header: {error}"))?;
    let (key, version) = (header.api_key, header.api_version);
    let Some(api) = APIS.iter().find(|api| api.key == key) else {
        return Err(format!("API key {key} is not served"));
    };
    if !api.versions.contains(&version) {
        if key == api_versions::ApiVersionsRequest::KEY {
            let response = api_versions::refuse_version();
            return Ok(Reply::Now(write_response(
                header.correlation_id,
                0,
                &response,
            )));
        }
        return Err(format!("{} version {version} is not served", api.name));
    }
    let mut call = call;
    call.client_id = header.client_id.clone().unwrap_or_default();
    let mut exchange = Exchange {
        call,
        header,
        memory: None,
    };
    (api.serve)(&mut exchange, frame)
        .map_err(|error| format!("{} version {version}: {error}", api.name))
}

/// One request on its way to its response.
pub struct Exchange<'a> {
    call: Call<'a>,
    header: RequestHeader,
    /// Given back when the request was handled, a produce's when it was answered: what it and its answer are large in.
    memory: Option<Charge>,
}

impl Exchange<'_> {
    /// Reads the request. Its frame is gone afterwards, but for what the request's records hold of it: a request
    /// that waits, as a fetch may for long, must not keep its share of the budget from others (P7).
    ///
    /// Its array elements, each much larger in memory than on the wire, are taken from a budget of their own.
    fn read<M: Message>(&mut self, frame: Arc<Frame>) -> Result<M, String> {
        let memory = self.call.broker.unfolded.charge();
        let mut reader = Reader::of_frame(&frame).with_memory(memory);
        let request = RequestHeader::read(&mut reader)
            .and_then(|_| read_request(&mut reader, self.header.api_version))
            .map_err(|error| error.to_string())?;
        self.memory = reader.into_memory();
        Ok(request)
    }

    /// For a request that waits for other clients, perhaps for minutes: what is kept of it meanwhile is the
    /// coordinator's, who counts it.
    fn give_back(&mut self) {
        self.memory = None;
    }

    /// Takes memory for an answer that is much larger than its question, and for so long as it is made; waits for
    /// others that do the same.
    fn reserve(&mut self, elements: usize) -> Result<(), String> {
        let bytes = elements.saturating_sub(ELEMENTS_FREE) as u64 * ELEMENT_BYTES;
        if bytes == 0 {
            return Ok(());
        }
        let unfolded = &self.call.broker.unfolded;
        if bytes > unfolded.capacity() {
            return Err("an answer larger than memory is free for".into());
        }
        let memory = self.memory.get_or_insert_with(|| unfolded.charge());
        memory
            .grow(bytes)
            .map_err(|_| "the broker stops".to_string())
    }

    /// The same for topics and partitions that there are: what is asked about them is answered, if need be alone.
    fn reserve_for_topics(&mut self, rows: usize) -> Result<(), String> {
        let rows_max = self.call.broker.unfolded.capacity() / ELEMENT_BYTES;
        self.reserve(rows.min(usize::try_from(rows_max).unwrap_or(usize::MAX)))
    }

    fn reply<R: Message>(
        &mut self,
        handle: impl FnOnce(&mut Call<'_>, i16) -> R,
    ) -> Result<Reply, String> {
        self.reply_unless_ended(|call, version| Ok(handle(call, version)))
    }

    fn reply_unless_ended<R: Message>(
        &mut self,
        handle: impl FnOnce(&mut Call<'_>, i16) -> Result<R, Ended>,
    ) -> Result<Reply, String> {
        let version = self.header.api_version;
        Ok(match handle(&mut self.call, version) {
            Ok(response) => {
                let response = write_response(self.header.correlation_id, version, &response);
                if response.total_bytes() > RESPONSE_BYTES_MAX {
                    return Err("an answer of more than 2 GiB".into());
                }
                Reply::Now(response)
            }
            Err(Ended) => Reply::Ended,
        })
    }
}
