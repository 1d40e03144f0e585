//! The protocol, spoken byte by byte with a running broker: each answer as Apache Kafka 4 gives it.

#[path = "../common/mod.rs"]
mod common;

mod admin;
mod admin_cluster;
mod compacted_transactions;
mod compaction;
mod compaction_races;
mod consumer_groups;
mod delete_records;
mod delete_topics;
mod epochs;
mod fetch;
mod fetch_waits;
mod group_members;
mod group_settings;
mod idempotence;
mod metadata;
mod offset_commits;
mod offsets;
mod pipelining;
mod produce;
mod quotas;
mod retention;
mod settings;
mod settings_in_force;
mod settings_refused;
mod transactions;
mod txn_offsets;
mod versions;

use common::Broker;
use common::client::Client;

/// A broker with a directory of its own, and a client.
fn start(settings: &[&str]) -> (tempfile::TempDir, Broker, Client) {
    let data = tempfile::tempdir().expect("a temporary directory");
    let broker = Broker::start_with(data.path(), settings, |command| {
        // Lines that come often are there at this level alone.
        command.env("RUST_LOG", "debug");
    });
    let client = Client::connect(&broker.address);
    (data, broker, client)
}
