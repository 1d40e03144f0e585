//! The settings: one row each. Everything that Ottla says about a setting, and every typed field, is made from it.
//!
//! ```text
//! field: type, "name" = default, limits, fate, <- [broker-wide names, the first that is set wins], "meaning";
//!              "name": type = default, ...     a row without a field: no code of the broker has to look at it
//! ```
//! A default of `None` is "not set". Names are Kafka's, and so are defaults and limits but where a meaning says
//! otherwise (Kafka 4.0: docs/configuration.html, KIP-1030).

use super::value::{CleanupPolicy, Endpoint, Limits, PerIp, TimestampType, Typed};
use super::{Dynamic, Fate, Lookup, Overrides, Setting, Synonym};
use crate::error::Result;
use Fate::{Fixed, InForce, NoEffect};
use Limits::{Addresses, Any, AtLeast, Between, EachOf, Empty, Endpoints, OneEntry, OneOf};
use std::path::PathBuf;

macro_rules! rows {
    ($($name:literal: $type:ty = $default:expr, $limits:expr, $fate:expr, <- $synonyms:expr, $meaning:literal;)*) => {
        &[$(Setting {
            name: $name,
            kind: <$type as Typed>::KIND,
            default: $default,
            limits: $limits,
            fate: $fate,
            synonyms: $synonyms,
            sets: None,
            meaning: $meaning,
        },)*]
    };
}

macro_rules! settings {
    (
        $(#[$doc:meta])*
        pub struct $struct:ident { $($(#[$extra_doc:meta])* $extra:ident: $extra_type:ty,)* }
        $table:ident;
        $($field:ident: $type:ty, $name:literal = $default:expr, $limits:expr, $fate:expr, <- $synonyms:expr, $meaning:literal;)*
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $struct {
            $(#[doc = concat!("`", $name, "`: ", $meaning)] pub $field: $type,)*
            $($(#[$extra_doc])* pub(super) $extra: $extra_type,)*
        }

        pub(super) const $table: &[Setting] = rows! {
            $($name: $type = $default, $limits, $fate, <- $synonyms, $meaning;)*
        };

        impl $struct {
            /// Reads every field through `lookup`, in the table's order.
            pub(super) fn read(lookup: &Lookup<'_>, $($extra: $extra_type,)*) -> Result<$struct> {
                let mut rows = $table.iter();
                $(let $field = lookup.read::<$type>(rows.next().expect("a row for each field"))?;)*
                Ok($struct { $($field,)* $($extra,)* })
            }
        }
    };
}

/// The one broker-wide name of a topic's setting, of the same type and default.
const fn same(name: &'static str, default: &'static str) -> Synonym {
    Synonym {
        name,
        unit: 1,
        default: Some(default),
    }
}

/// A broker-wide name that is not set by default.
const fn unset(name: &'static str, unit: i64) -> Synonym {
    Synonym {
        name,
        unit,
        default: None,
    }
}

pub(super) const MINUTES: i64 = 60_000;
pub(super) const HOURS: i64 = 3_600_000;
const FOREVER: &str = "9223372036854775807";
const ONE_REPLICA: Fate = Fixed("there is one node and so one replica");
const ONE_NODE: Fate = Fixed("this node is broker and controller in one");
const THREADS: Fate = NoEffect("each connection has a thread of its own");
const NO_TIERS: Fate = Fixed("there is no tiered storage");
const NO_COMPRESSION: Fate = NoEffect("the broker never recompresses a batch");

settings! {
    /// The broker's settings in force, and which of them were given.
    pub struct Config {
        /// The broker-wide settings of topics, under a topic without any of its own.
        topic: TopicConfig,
        /// What is set, by name, wherever that was; everything else is at its default.
        given: Overrides,
        /// What of it was given in the file and by arguments.
        started_with: Overrides,
        /// What was set while the broker ran.
        dynamic: Dynamic,
    }
    BROKER;

    node_id: i32, "node.id" = Some("1"), AtLeast(0), InForce("a_topic_is_described_with_its_partitions"), <- &[unset("broker.id", 1)],
        "The number by which clients know this broker.";
    data_dir: PathBuf, "log.dirs" = Some("ottla-data"), OneEntry, InForce("topics_survive_kill_9"), <- &[unset("log.dir", 1)],
        "The one directory that holds everything durable; `--data` sets it. Kafka's default lies in /tmp, where systems clean up; ours in the working directory.";
    listeners: Vec<Endpoint>, "listeners" = Some("PLAINTEXT://127.0.0.1:9092"), Endpoints, InForce("the_advertised_address_is_the_one_that_the_client_connected_to"), <- &[],
        "The addresses to listen on; `--listen` sets it. HOST:PORT alone is taken too, an empty host means all interfaces, port 0 one of the kernel's choice. Listeners in controller.listener.names are not opened.";
    advertised_listeners: Vec<Endpoint>, "advertised.listeners" = None, Endpoints, InForce("the_advertised_address_is_the_one_that_the_client_connected_to"), <- &[],
        "The address by which clients of each listener are told to reach it. Not set: the address that the client connected to.";
    controller_listener_names: Vec<String>, "controller.listener.names" = None, Any, InForce("the_stock_file_is_accepted_and_nothing_in_it_is_silently_ignored"), <- &[],
        "Listeners that Kafka keeps for its controllers, which Ottla has inside: these are not opened.";
    listener_security_protocol_map: Vec<String>, "listener.security.protocol.map" = None, Any, InForce("listeners_are_plaintext_named_once_and_told_by_an_address_of_use"), <- &[],
        "The protocol of each listener's name, as NAME:PROTOCOL. PLAINTEXT is the one that an open listener can have.";

    auto_create_topics_enable: bool, "auto.create.topics.enable" = Some("true"), Any, InForce("a_missing_topic_is_created_if_client_and_broker_allow_it"), <- &[],
        "A topic that a client asks for or writes to is created, if the client's request allows it.";
    delete_topic_enable: bool, "delete.topic.enable" = Some("true"), Any, InForce("deletion_can_be_forbidden"), <- &[],
        "Clients may delete topics.";
    num_partitions: i32, "num.partitions" = Some("1"), AtLeast(1), InForce("a_missing_topic_is_created_if_client_and_broker_allow_it"), <- &[],
        "How many partitions a topic gets that is created without a number of them.";

    request_bytes_max: i32, "socket.request.max.bytes" = Some("104857600"), AtLeast(1), InForce("a_frame_beyond_the_limit_is_refused_at_its_length"), <- &[],
        "The largest request, in bytes; a connection that announces a larger one is closed.";
    queued_request_bytes_max: i64, "queued.max.request.bytes" = Some("134217728"), AtLeast(1), InForce("partial_frames_beyond_the_budget_do_not_deadlock"), <- &[],
        "Memory for the requests that are being received or handled, over all connections; who finds it full waits. A request larger than this is refused. Kafka's default is no limit.";
    request_receive_timeout_ms: i64, "request.receive.timeout.ms" = Some("30000"), AtLeast(1), InForce("a_slow_loris_is_closed"), <- &[],
        "A connection whose half-received request stops coming for so long is closed, or one whose request takes so long beyond what its length allows (see request.receive.min.bytes.per.second) or waits so long for memory. Ottla's own.";
    request_receive_rate_min: i32, "request.receive.min.bytes.per.second" = Some("16384"), AtLeast(1), InForce("a_large_frame_that_trickles_is_closed"), <- &[],
        "How fast a large request must come at least, on average: a slow line is given that much time. While others wait for the memory that it holds, it is 1 MiB. Ottla's own.";
    decompression_window_bytes_max: i64, "decompression.window.max" = Some("8388608"), AtLeast(65536), InForce("a_window_beyond_the_limit_is_refused_with_a_message"), <- &[],
        "The most memory, in bytes, that one batch may state it needs to be opened; a batch that states more is refused. Ottla's own.";
    decompression_memory_bytes_max: i64, "decompression.memory.max" = Some("67108864"), AtLeast(65536), InForce("decompression_bombs_take_no_memory"), <- &[],
        "Memory for opening batches, in bytes, over all connections; who finds it full waits. Ottla's own.";
    fetch_bytes_max: i32, "fetch.max.bytes" = Some("57671680"), AtLeast(1024), InForce("limits_hold_for_all_but_the_first_batch"), <- &[],
        "The most bytes that one fetch is answered with, whatever it asks for; the first batch is sent even if it is larger.";
    socket_send_buffer_bytes: i32, "socket.send.buffer.bytes" = Some("-1"), AtLeast(-1), InForce("socket_buffers_are_as_large_as_they_are_told"), <- &[],
        "A connection's send buffer; -1: the kernel sizes it by the connection's speed, up to megabytes. Kafka's default, 102400, costs a fast reader a wait each time it is full.";
    socket_receive_buffer_bytes: i32, "socket.receive.buffer.bytes" = Some("-1"), AtLeast(-1), InForce("socket_buffers_are_as_large_as_they_are_told"), <- &[],
        "A connection's receive buffer; -1: the kernel sizes it. Kafka's default is 102400.";
    connections_max: i32, "max.connections" = Some("10000"), AtLeast(1), InForce("a_flood_of_connections_costs_the_newcomers_alone"), <- &[],
        "How many connections may be open at once; one that never said anything makes room for another. Each costs a thread once it does, so this is bounded here; Kafka's default is 2147483647.";
    connections_per_ip_max: i32, "max.connections.per.ip" = Some("5000"), AtLeast(0), InForce("connections_are_limited_anew"), <- &[],
        "How many connections one client address may have open: by default half of all, so that one host leaves room for others. Kafka's default is 2147483647.";
    connections_per_ip_overrides: PerIp, "max.connections.per.ip.overrides" = Some(""), Addresses, InForce("some_addresses_have_limits_of_their_own"), <- &[],
        "The same for single addresses, as ADDRESS:COUNT, separated by commas. Kafka takes host names too.";
    connection_creation_rate_max: i32, "max.connection.creation.rate" = Some("1000"), AtLeast(1), InForce("connections_beyond_their_rate_wait"), <- &[],
        "How many connections are accepted a second, on average over quota.window.num samples; more wait in the kernel's queue. Kafka's default is 2147483647.";
    first_byte_timeout_ms: i64, "connection.first.byte.timeout.ms" = Some("30000"), AtLeast(1), InForce("a_connection_that_never_speaks_is_closed"), <- &[],
        "A new connection that sends nothing for so long is closed. Ottla's own.";
    connections_idle_ms_max: i64, "connections.max.idle.ms" = Some("600000"), AtLeast(-1), InForce("an_idle_connection_is_closed_and_a_waiting_one_is_not"), <- &[],
        "A connection that waits for nothing and asks nothing for so long is closed; -1: never.";

    quota_samples: i32, "quota.window.num" = Some("11"), Between(1, 3600), InForce("the_window_of_quotas_is_set"), <- &[],
        "Over how many samples the byte rates that quotas limit are taken. Bounded here, since each meter keeps them.";
    quota_sample_s: i32, "quota.window.size.seconds" = Some("1"), AtLeast(1), InForce("the_window_of_quotas_is_set"), <- &[],
        "The length of one such sample.";

    group_commit_linger_ms: i64, "group.commit.linger.ms" = Some("0"), Between(0, 60_000), InForce("group_commit_linger_ms_is_in_force"), <- &[],
        "How long the writer waits, with a batch in hand, for more to go into the same sync: fewer writes for flash, a longer way for each acknowledgement. Ottla's own.";
    producers_max: i32, "producer.state.max" = Some("100000"), AtLeast(1), InForce("producer_state_max_is_in_force"), <- &[],
        "How many idempotent producers are remembered over all partitions, to tell their retries; the one idle longest is forgotten first. Ottla's own.";
    producer_id_expiration_ms: i32, "producer.id.expiration.ms" = Some("86400000"), AtLeast(1), InForce("an_idle_producer_expires"), <- &[],
        "How long an idempotent producer that sends nothing is remembered, in broker time, and anew after each start; never less, and an open transaction is never forgotten.";
    producer_id_expiration_check_interval_ms: i32, "producer.id.expiration.check.interval.ms" = Some("600000"), AtLeast(1), InForce("an_idle_producer_expires"), <- &[],
        "How often producers that were idle for so long are looked for.";
    retention_check_interval_ms: i64, "log.retention.check.interval.ms" = Some("300000"), AtLeast(1), InForce("segments_beyond_their_age_go"), <- &[],
        "How often logs are looked at for segments to delete.";
    cleaner_enabled: bool, "log.cleaner.enable" = Some("true"), Any, InForce("compaction_can_be_turned_off"), <- &[],
        "Whether topics with cleanup.policy=compact are compacted.";
    cleaner_backoff_ms: i64, "log.cleaner.backoff.ms" = Some("15000"), AtLeast(0), InForce("compaction_rests_between_looks"), <- &[],
        "How long at least compaction sleeps once no log is dirty enough.";
    cleaner_map_bytes_max: i64, "log.cleaner.dedupe.buffer.size" = Some("4194304"), AtLeast(1024), InForce("a_small_map_takes_more_passes"), <- &[],
        "Memory, in bytes, for the keys of a log that is compacted; with more keys than fit, it takes several passes. Kafka's default is 134217728.";
    cleaner_map_load_factor: f64, "log.cleaner.io.buffer.load.factor" = Some("0.9"), Between(0, 1), InForce("a_small_map_takes_more_passes"), <- &[],
        "How full that memory may become: fuller takes fewer passes, and longer ones.";
    cleaner_bytes_per_second_max: f64, "log.cleaner.io.max.bytes.per.second" = Some("1.7976931348623157E308"), Any, InForce("compaction_keeps_to_its_limit"), <- &[],
        "The bytes that compaction may read and write in a second. It rests three times as long as it works in any case.";
    scrub_interval_ms: i64, "log.scrub.interval.ms" = Some("604800000"), AtLeast(-1), InForce("the_scrub_reads_what_nobody_reads"), <- &[],
        "How often all logs are read to see whether the disk has garbled anything; -1 is never. Ottla's own: Kafka has no such setting.";
    scrub_bytes_per_second_max: f64, "log.scrub.max.bytes.per.second" = Some("8388608"), Any, InForce("the_scrub_reads_no_faster_than_it_may"), <- &[],
        "The bytes that such a reading may take in a second. It rests three times as long as it works in any case.";
    recovery_threads: i32, "num.recovery.threads.per.data.dir" = Some("2"), AtLeast(1), InForce(""), <- &[],
        "How many threads read logs back after an unclean stop.";

    group_initial_rebalance_delay_ms: i32, "group.initial.rebalance.delay.ms" = Some("3000"), AtLeast(0), InForce("group_initial_rebalance_delay_ms_is_in_force"), <- &[],
        "How long an empty group that is joined waits for more members before its first assignment.";
    group_min_session_timeout_ms: i32, "group.min.session.timeout.ms" = Some("6000"), AtLeast(0), InForce("session_time_outs_stay_within_the_brokers_bounds"), <- &[],
        "The shortest session time-out that a member of a classic group may ask for.";
    group_max_session_timeout_ms: i32, "group.max.session.timeout.ms" = Some("1800000"), AtLeast(0), InForce("session_time_outs_stay_within_the_brokers_bounds"), <- &[],
        "The longest session time-out that a member of a classic group may ask for.";
    group_max_size: i32, "group.max.size" = Some("2147483647"), AtLeast(1), InForce("a_full_group_lets_nobody_in_and_keeps_the_first_to_join_again"), <- &[],
        "How many members a classic group may have.";
    group_coordinator_rebalance_protocols: Vec<String>, "group.coordinator.rebalance.protocols" = Some("classic,consumer"), EachOf(&["classic", "consumer"]), InForce("the_consumer_protocol_can_be_switched_off"), <- &[],
        "The group protocols that are served; `classic` must be one of them.";
    group_consumer_session_timeout_ms: i32, "group.consumer.session.timeout.ms" = Some("45000"), AtLeast(1), InForce("the_brokers_settings_bound_those_of_groups"), <- &[],
        "How long a member of a group of the consumer protocol may stay silent before it is taken out.";
    group_consumer_min_session_timeout_ms: i32, "group.consumer.min.session.timeout.ms" = Some("45000"), AtLeast(1), InForce("the_brokers_settings_bound_those_of_groups"), <- &[],
        "The shortest consumer.session.timeout.ms that a group may be given.";
    group_consumer_max_session_timeout_ms: i32, "group.consumer.max.session.timeout.ms" = Some("60000"), AtLeast(1), InForce("the_brokers_settings_bound_those_of_groups"), <- &[],
        "The longest consumer.session.timeout.ms that a group may be given.";
    group_consumer_heartbeat_interval_ms: i32, "group.consumer.heartbeat.interval.ms" = Some("5000"), AtLeast(1), InForce("the_brokers_settings_bound_those_of_groups"), <- &[],
        "How often a member of a group of the consumer protocol is told to send heartbeats.";
    group_consumer_min_heartbeat_interval_ms: i32, "group.consumer.min.heartbeat.interval.ms" = Some("5000"), AtLeast(1), InForce("the_brokers_settings_bound_those_of_groups"), <- &[],
        "The shortest consumer.heartbeat.interval.ms that a group may be given.";
    group_consumer_max_heartbeat_interval_ms: i32, "group.consumer.max.heartbeat.interval.ms" = Some("15000"), AtLeast(1), InForce("the_brokers_settings_bound_those_of_groups"), <- &[],
        "The longest consumer.heartbeat.interval.ms that a group may be given.";
    group_consumer_max_size: i32, "group.consumer.max.size" = Some("2147483647"), AtLeast(1), InForce("group_consumer_max_size_is_in_force"), <- &[],
        "How many members a group of the consumer protocol may have.";
    group_consumer_assignors: Vec<String>, "group.consumer.assignors" = Some("uniform,range"), EachOf(&["uniform", "range"]), InForce("the_brokers_assignors_are_those_that_it_is_told"), <- &[],
        "The assignors of the consumer protocol; the first is the one for groups that name none.";
    group_consumer_migration_policy: String, "group.consumer.migration.policy" = Some("bidirectional"), OneOf(&["bidirectional", "upgrade", "downgrade", "disabled"]), InForce("group_consumer_migration_policy_is_in_force"), <- &[],
        "Which way a group with members may change between the classic and the consumer protocol.";
    group_consumer_regex_refresh_interval_ms: i32, "group.consumer.regex.refresh.interval.ms" = Some("600000"), AtLeast(10_000), InForce("group_consumer_regex_refresh_interval_ms_says_how_often_patterns_are_looked_up_anyway"), <- &[],
        "How often the topics that a subscription's regular expression matches are looked up anew.";
    group_state_bytes_max: i64, "group.state.bytes.max" = Some("67108864"), AtLeast(65536), InForce("growth_beyond_the_memory_of_groups_is_refused"), <- &[],
        "Memory, in bytes, for all groups: what their members say and are given, and committed offsets. Beyond it new members get GROUP_MAX_SIZE_REACHED, and new offsets INVALID_COMMIT_OFFSET_SIZE. Ottla's own.";
    offset_metadata_bytes_max: i32, "offset.metadata.max.bytes" = Some("4096"), AtLeast(0), InForce("what_cannot_be_committed_is_told_partition_by_partition"), <- &[],
        "The longest metadata, in bytes, that may stand beside a committed offset.";
    offsets_retention_minutes: i32, "offsets.retention.minutes" = Some("10080"), AtLeast(1), InForce("the_brokers_retention_and_its_interval_count"), <- &[],
        "How long the offsets of an empty group, or those committed without a group, are kept.";
    offsets_retention_check_interval_ms: i64, "offsets.retention.check.interval.ms" = Some("600000"), AtLeast(1), InForce("the_brokers_retention_and_its_interval_count"), <- &[],
        "How often offsets that were kept long enough are looked for.";
    offsets_topic_num_partitions: i32, "offsets.topic.num.partitions" = Some("1"), AtLeast(1), InForce("the_topic_of_offsets_is_made_as_the_broker_says"), <- &[],
        "How many partitions the topic of committed offsets is made with; not to be changed afterwards. Kafka's default, for many brokers, is 50.";
    offsets_topic_segment_bytes: i32, "offsets.topic.segment.bytes" = Some("104857600"), AtLeast(14), InForce("the_topic_of_offsets_is_made_as_the_broker_says"), <- &[],
        "The segment.bytes of the topic of committed offsets.";
    transaction_max_timeout_ms: i32, "transaction.max.timeout.ms" = Some("900000"), AtLeast(1), InForce("a_transaction_may_not_last_longer_than_the_broker_allows"), <- &[],
        "The longest transaction.timeout.ms that a producer may ask for.";
    transactional_id_expiration_ms: i32, "transactional.id.expiration.ms" = Some("604800000"), AtLeast(1), InForce("an_id_that_nobody_uses_is_forgotten_on_broker_time"), <- &[],
        "How long a transactional.id is remembered that has no transaction open and is not used.";
    transaction_abort_interval_ms: i32, "transaction.abort.timed.out.transaction.cleanup.interval.ms" = Some("10000"), AtLeast(1), InForce("a_transaction_that_lasts_too_long_is_aborted"), <- &[],
        "How often transactions are looked for that last longer than their producers said.";
    transaction_expiry_interval_ms: i32, "transaction.remove.expired.transaction.cleanup.interval.ms" = Some("3600000"), AtLeast(1), InForce("an_id_that_nobody_uses_is_forgotten_on_broker_time"), <- &[],
        "How often transactional ids are looked for that were not used for transactional.id.expiration.ms.";
    transaction_state_bytes_max: i64, "transaction.state.bytes.max" = Some("33554432"), AtLeast(65536), InForce("growth_beyond_the_memory_of_transactions_is_refused"), <- &[],
        "Memory, in bytes, for all transactional ids and the partitions of their transactions. Beyond it new ids get POLICY_VIOLATION, and further partitions TRANSACTION_ABORTABLE, as they do beyond 1 MiB in one transaction. Ottla's own.";
    transaction_topic_num_partitions: i32, "transaction.state.log.num.partitions" = Some("1"), AtLeast(1), InForce("the_topic_of_transactions_is_made_as_the_broker_says"), <- &[],
        "How many partitions the topic that holds the state of transactions is made with; not to be changed afterwards. Kafka's default, for many brokers, is 50.";
    transaction_topic_segment_bytes: i32, "transaction.state.log.segment.bytes" = Some("104857600"), AtLeast(14), InForce("the_topic_of_transactions_is_made_as_the_broker_says"), <- &[],
        "The segment.bytes of the topic that holds the state of transactions.";
}

/// Rows of the broker that no code has to look at.
pub(super) const BROKER_UNREAD: &[Setting] = rows! {
    "default.replication.factor": i32 = Some("1"), Between(1, 1), ONE_REPLICA, <- &[],
        "The number of replicas of a topic that is created without one.";
    "offsets.topic.replication.factor": i32 = Some("1"), Between(1, 1), ONE_REPLICA, <- &[],
        "The number of replicas of the topic that holds committed offsets.";
    "transaction.state.log.replication.factor": i32 = Some("1"), Between(1, 1), ONE_REPLICA, <- &[],
        "The number of replicas of the topic that holds the state of transactions.";
    "transaction.state.log.min.isr": i32 = Some("1"), Between(1, 1), ONE_REPLICA, <- &[],
        "How many replicas must have a change of a transaction's state.";
    "share.coordinator.state.topic.replication.factor": i32 = Some("1"), Between(1, 1), ONE_REPLICA, <- &[],
        "The number of replicas of the topic that holds the state of share groups.";
    "share.coordinator.state.topic.min.isr": i32 = Some("1"), Between(1, 1), ONE_REPLICA, <- &[],
        "How many replicas must have a change of a share group's state.";
    "process.roles": Vec<String> = Some("broker,controller"), OneOf(&["broker,controller", "controller,broker"]), ONE_NODE, <- &[],
        "What a Kafka node does.";
    "controller.quorum.voters": Vec<String> = None, OneEntry, NoEffect("the node is a quorum of its own"), <- &[],
        "The controllers, as ID@HOST:PORT; only one can be named.";
    "controller.quorum.bootstrap.servers": Vec<String> = None, OneEntry, NoEffect("the node is a quorum of its own"), <- &[],
        "Where a Kafka node finds its controllers; only one can be named.";
    "inter.broker.listener.name": String = None, Any, NoEffect("there is no other broker to talk to"), <- &[],
        "The listener for the traffic between brokers.";
    "num.network.threads": i32 = Some("3"), AtLeast(1), THREADS, <- &[],
        "Kafka's threads that receive requests and send answers.";
    "num.io.threads": i32 = Some("8"), AtLeast(1), THREADS, <- &[],
        "Kafka's threads that handle requests.";
    "max.incremental.fetch.session.cache.slots": i32 = Some("0"), AtLeast(0), NoEffect("fetch sessions are declined, so each fetch names all it wants"), <- &[],
        "How many fetch sessions are remembered. Kafka's default is 1000.";
    "offsets.commit.timeout.ms": i32 = Some("5000"), AtLeast(1), NoEffect("a commit is answered when it is synced, which no replica can delay"), <- &[],
        "How long a commit of offsets waits for replicas.";
    "offsets.load.buffer.size": i32 = Some("5242880"), AtLeast(1), NoEffect("committed offsets are read batch by batch"), <- &[],
        "The read size with which committed offsets are loaded.";
    "offsets.topic.compression.codec": i32 = Some("0"), Between(0, 0), Fixed("the broker's own records are written uncompressed"), <- &[],
        "The compression of the topic of committed offsets.";
    "transaction.state.log.load.buffer.size": i32 = Some("5242880"), AtLeast(1), NoEffect("the state of transactions is read batch by batch"), <- &[],
        "The read size with which the state of transactions is loaded.";
    "transaction.partition.verification.enable": bool = Some("true"), Any, NoEffect("a batch is always checked against its transaction, which costs nothing here"), <- &[],
        "Whether a batch is checked to be part of an open transaction.";
    "group.coordinator.threads": i32 = Some("1"), AtLeast(1), NoEffect("one thread owns all groups"), <- &[],
        "Threads that run the group coordinator.";
    "group.coordinator.append.linger.ms": i32 = Some("5"), AtLeast(0), NoEffect("the writer's group commit collects what groups write"), <- &[],
        "How long the group coordinator collects records before it writes them.";
    "background.threads": i32 = Some("10"), AtLeast(1), NoEffect("each task that runs beside others has a thread of its own"), <- &[],
        "Kafka's threads for tasks that nobody waits for.";
    "sasl.kerberos.min.time.before.relogin": i64 = Some("60000"), Any, NoEffect("listeners are plaintext and without log-in"), <- &[],
        "How long Kafka waits between two log-ins to Kerberos.";
    "log.cleaner.threads": i32 = Some("1"), AtLeast(0), NoEffect("one thread compacts, one log at a time"), <- &[],
        "Threads that compact.";
    "log.cleaner.io.buffer.size": i32 = Some("524288"), AtLeast(0), NoEffect("compaction's buffers are as large as the largest batch, at most 16 MiB"), <- &[],
        "Memory, in bytes, for reading and writing while compacting.";
};

settings! {
    /// A topic's settings in force: its own over the broker's over the defaults.
    pub struct TopicConfig {}
    TOPIC;

    segment_bytes: i32, "segment.bytes" = Some("1073741824"), AtLeast(14), InForce("segment_bytes_is_in_force"), <- &[same("log.segment.bytes", "1073741824")],
        "The size in bytes at which a segment is closed and the next one begins. Kafka 4 wants at least 1048576.";
    segment_ms: i64, "segment.ms" = Some("604800000"), AtLeast(1), InForce("segment_ms_is_in_force"),
        <- &[unset("log.roll.ms", 1), Synonym { name: "log.roll.hours", unit: HOURS, default: Some("168") }],
        "The age at which a segment is closed even if it is not full.";
    segment_jitter_ms: i64, "segment.jitter.ms" = Some("0"), AtLeast(0), InForce("segment_jitter_ms_is_in_force"),
        <- &[unset("log.roll.jitter.ms", 1), Synonym { name: "log.roll.jitter.hours", unit: HOURS, default: Some("0") }],
        "The most that chance takes off segment.ms, so that not all logs begin new segments at once.";
    index_bytes_max: i32, "segment.index.bytes" = Some("10485760"), AtLeast(12), InForce("segment_index_bytes_is_in_force"), <- &[same("log.index.size.max.bytes", "10485760")],
        "The size in bytes at which an index is full and its segment is closed. At least the 12 bytes of one time index entry (Kafka: 4).";
    index_interval_bytes: i32, "index.interval.bytes" = Some("4096"), AtLeast(0), InForce("index_interval_bytes_is_in_force"), <- &[same("log.index.interval.bytes", "4096")],
        "How many bytes of batches lie between two index entries: fewer find an offset faster, and make larger indexes.";
    preallocate: bool, "preallocate" = Some("false"), Any, InForce("preallocate_is_in_force"), <- &[same("log.preallocate", "false")],
        "Disk space for a whole segment is reserved when it begins.";
    flush_messages: i64, "flush.messages" = Some("1"), AtLeast(1), InForce("flush_messages_is_in_force"), <- &[same("log.flush.interval.messages", "1")],
        "After how many records a log is synced. 1, the default here: acks=all means synced. With more, a power cut can take acknowledged records. Kafka's default is never.";
    flush_ms: i64, "flush.ms" = Some(FOREVER), AtLeast(0), InForce("flush_ms_is_in_force"),
        <- &[unset("log.flush.interval.ms", 1), same("log.flush.scheduler.interval.ms", FOREVER)],
        "The longest that a record stays unsynced, where flush.messages lets it.";
    max_message_bytes: i32, "max.message.bytes" = Some("1048588"), AtLeast(0), InForce("max_message_bytes_is_in_force"), <- &[same("message.max.bytes", "1048588")],
        "The largest batch, in bytes, as the producer compressed it.";
    timestamp_type: TimestampType, "message.timestamp.type" = Some("CreateTime"), OneOf(&["CreateTime", "LogAppendTime"]), InForce("message_timestamp_type_is_in_force"),
        <- &[same("log.message.timestamp.type", "CreateTime")],
        "Whether records keep their producer's time or get the time of their append.";
    timestamp_before_max_ms: i64, "message.timestamp.before.max.ms" = Some(FOREVER), AtLeast(0), InForce("message_timestamp_before_max_ms_is_in_force"),
        <- &[same("log.message.timestamp.before.max.ms", FOREVER)],
        "How far a record's time may lie behind the broker's; one further back is refused. Not looked at under LogAppendTime.";
    timestamp_after_max_ms: i64, "message.timestamp.after.max.ms" = Some("3600000"), AtLeast(0), InForce("message_timestamp_after_max_ms_is_in_force"),
        <- &[same("log.message.timestamp.after.max.ms", "3600000")],
        "How far a record's time may lie ahead of the broker's; one further ahead is refused. Not looked at under LogAppendTime.";
    file_delete_delay_ms: i64, "file.delete.delay.ms" = Some("60000"), AtLeast(0), InForce("a_deleted_segments_files_are_kept_for_their_delay"), <- &[same("log.segment.delete.delay.ms", "60000")],
        "How long a segment's files are kept after it was removed. Those of a deleted topic go at once.";
    cleanup_policy: CleanupPolicy, "cleanup.policy" = Some("delete"), EachOf(&["compact", "delete"]), InForce("only_the_policy_delete_deletes"),
        <- &[same("log.cleanup.policy", "delete")],
        "What happens to old records: `delete` drops segments beyond the retention limits, `compact` keeps the newest record of each key; both may be named. Empty: all is kept.";
    retention_bytes: i64, "retention.bytes" = Some("-1"), AtLeast(-1), InForce("segments_beyond_the_size_go"), <- &[same("log.retention.bytes", "-1")],
        "The size of a partition beyond which its oldest segments are deleted; -1: no limit.";
    retention_ms: i64, "retention.ms" = Some("604800000"), AtLeast(-1), InForce("segments_beyond_their_age_go"),
        <- &[unset("log.retention.ms", 1), unset("log.retention.minutes", MINUTES), Synonym { name: "log.retention.hours", unit: HOURS, default: Some("168") }],
        "The age beyond which segments are deleted, of their newest record and of its append; -1: no limit.";
    delete_retention_ms: i64, "delete.retention.ms" = Some("86400000"), AtLeast(0), InForce("tombstones_go_after_delete_retention_ms"), <- &[same("log.cleaner.delete.retention.ms", "86400000")],
        "How long compaction leaves the marker of a deleted key, so that readers learn of it.";
    min_compaction_lag_ms: i64, "min.compaction.lag.ms" = Some("0"), AtLeast(0), InForce("min_compaction_lag_ms_is_in_force"), <- &[same("log.cleaner.min.compaction.lag.ms", "0")],
        "How long a record stays out of compaction's reach.";
    max_compaction_lag_ms: i64, "max.compaction.lag.ms" = Some(FOREVER), AtLeast(1), InForce("max_compaction_lag_ms_is_in_force"), <- &[same("log.cleaner.max.compaction.lag.ms", FOREVER)],
        "The longest that a record may wait to be compacted.";
    min_cleanable_dirty_ratio: f64, "min.cleanable.dirty.ratio" = Some("0.5"), Between(0, 1), InForce("min_cleanable_dirty_ratio_is_in_force"), <- &[same("log.cleaner.min.cleanable.ratio", "0.5")],
        "The share of a log that must be uncompacted before compaction begins: a higher one works less and wastes more space.";
}

/// Rows of a topic that no code has to look at.
pub(super) const TOPIC_UNREAD: &[Setting] = rows! {
    "min.insync.replicas": i32 = Some("1"), Between(1, 1), ONE_REPLICA, <- &[same("min.insync.replicas", "1")],
        "How many replicas must have a batch before acks=all is answered.";
    "unclean.leader.election.enable": bool = Some("false"), Any, NoEffect("the one replica is always the leader"), <- &[same("unclean.leader.election.enable", "false")],
        "A replica that lags may become the leader, at the price of what it lacks.";
    "compression.type": String = Some("producer"), OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]), NO_COMPRESSION, <- &[same("compression.type", "producer")],
        "How batches are compressed at rest. Here always as their producer compressed them, and every consumer reads all codecs.";
    "compression.gzip.level": i32 = Some("-1"), OneOf(&["-1", "1", "2", "3", "4", "5", "6", "7", "8", "9"]), NO_COMPRESSION, <- &[same("compression.gzip.level", "-1")],
        "The level for compression.type=gzip.";
    "compression.lz4.level": i32 = Some("9"), Between(1, 17), NO_COMPRESSION, <- &[same("compression.lz4.level", "9")],
        "The level for compression.type=lz4.";
    "compression.zstd.level": i32 = Some("3"), Between(-131_072, 22), NO_COMPRESSION, <- &[same("compression.zstd.level", "3")],
        "The level for compression.type=zstd.";
    "remote.storage.enable": bool = Some("false"), OneOf(&["false"]), NO_TIERS, <- &[],
        "Older segments move to tiered storage.";
    "remote.log.copy.disable": bool = Some("false"), OneOf(&["false"]), NO_TIERS, <- &[],
        "Tiered storage becomes read-only.";
    "remote.log.delete.on.disable": bool = Some("false"), OneOf(&["false"]), NO_TIERS, <- &[],
        "What is in tiered storage is deleted once it is turned off.";
    "local.retention.ms": i64 = Some("-2"), Between(-2, -2), NO_TIERS, <- &[same("log.local.retention.ms", "-2")],
        "The age at which a segment may stay in tiered storage alone; -2: that of retention.ms.";
    "local.retention.bytes": i64 = Some("-2"), Between(-2, -2), NO_TIERS, <- &[same("log.local.retention.bytes", "-2")],
        "The size beyond which segments may stay in tiered storage alone; -2: that of retention.bytes.";
    "leader.replication.throttled.replicas": Vec<String> = Some(""), Empty, ONE_REPLICA, <- &[],
        "Replicas whose leader sends to them slowly.";
    "follower.replication.throttled.replicas": Vec<String> = Some(""), Empty, ONE_REPLICA, <- &[],
        "Replicas that copy slowly.";
};

/// Rows of a consumer group; a group without its own has the broker's `group.`-settings of the same name.
pub(super) const GROUP: &[Setting] = rows! {
    "consumer.session.timeout.ms": i32 = Some("45000"), AtLeast(1), InForce("a_groups_settings_are_kept"), <- &[],
        "How long a member may stay silent before it is taken out of the group.";
    "consumer.heartbeat.interval.ms": i32 = Some("5000"), AtLeast(1), InForce("a_groups_settings_are_kept"), <- &[],
        "How often a member is told to send heartbeats.";
};

/// Beginnings of names that Kafka knows and a single plaintext node cannot serve, each with the reason.
pub(super) const REFUSED: &[(&str, &str)] = &[
    (
        "zookeeper.",
        "there is no ZooKeeper: the catalog is a log in the data directory, so the line can go",
    ),
    (
        "ssl.",
        "listeners are plaintext: let a TLS proxy stand in front",
    ),
    ("sasl.", "listeners are plaintext and without log-in"),
    ("authorizer.", "there is no access control"),
    ("security.", "listeners are plaintext and without log-in"),
    ("remote.log.", "there is no tiered storage"),
    ("replica.", "there is one node and so nothing to replicate"),
    (
        "metadata.",
        "the catalog lies in the data directory and takes care of itself",
    ),
];
