//! Hostile input (promise P7): the right error or a closed connection, a log line, and every other client undisturbed.

#[path = "../common/mod.rs"]
mod common;

mod codecs;
mod flood;
mod frames;
mod limits;
mod memory;
mod pressure;
mod swarm;
mod transactions;
mod waiting;

use common::Broker;
use common::client::{Client, batch};

/// A client that was there before the trouble began, and sees whether it gets right answers still.
struct Bystander {
    client: Client,
    stored: i64,
}

impl Bystander {
    /// Stores a record and reads it back.
    #[track_caller]
    fn check(&mut self) {
        let value = self.stored.to_string();
        assert_eq!(
            self.client.store("bystander", &batch(&[&value])),
            self.stored
        );
        let data = self.client.fetch("bystander", self.stored);
        assert_eq!(common::client::values(&data.records), [value]);
        self.stored += 1;
    }
}

/// A broker with a directory of its own, and a bystander.
fn start(settings: &[&str]) -> (tempfile::TempDir, Broker, Bystander) {
    let data = tempfile::tempdir().expect("a temporary directory");
    let broker = Broker::start_with(data.path(), settings, |command| {
        // Lines that come often are there at this level alone.
        command.env("RUST_LOG", "debug");
    });
    let mut client = Client::connect(&broker.address);
    client.create("bystander", &[]);
    let mut bystander = Bystander { client, stored: 0 };
    bystander.check();
    (data, broker, bystander)
}
