//! When a log is synced, changed while the broker runs: the syncs are counted below it.

use crate::common::Broker;
use crate::common::client::{Client, PRODUCE, batch, produce};
use crate::common::settings::{TOPIC, altered, delete, set};
use crate::scene::{Scene, wait_until};

/// How many syncs a produce of one record with acks=all takes before it is answered.
fn syncs(scene: &Scene, client: &mut Client) -> u64 {
    let before = scene.shim.counts().unwrap().syncs;
    client.store("t", &batch(&["x"]));
    scene.shim.counts().unwrap().syncs - before
}

fn start(scene: &mut Scene) -> (Broker, Client) {
    let broker = scene.start(&[]);
    let client = Client::connect(&broker.address);
    (broker, client)
}

#[test]
fn flush_messages_is_in_force() {
    let mut scene = Scene::new();
    let (broker, mut client) = start(&mut scene);
    client.create("t", &[]);
    assert_eq!(syncs(&scene, &mut client), 1);
    altered(&mut client, TOPIC, "t", &[set("flush.messages", "3")]);
    let pattern: Vec<u64> = (0..6).map(|_| syncs(&scene, &mut client)).collect();
    assert_eq!(pattern, [0, 0, 1, 0, 0, 1]);
    assert!(broker.stop().success());

    let (broker, mut client) = start(&mut scene);
    assert_eq!(syncs(&scene, &mut client), 0, "after a restart");
    assert_eq!(client.fetch("t", 0).high_watermark, 8);
    client.create("other", &[]);
    // Consumers saw what is not synced: it is, before they see only what is.
    altered(&mut client, TOPIC, "t", &[delete("flush.messages")]);
    // What the writer is told after the change, it does after it.
    client.store("other", &batch(&["x"]));
    assert_eq!(client.fetch("t", 0).high_watermark, 8);
    broker.kill();
    let image = scene.cut_power();
    let broker = Broker::start(&image, &[]);
    let mut client = Client::connect(&broker.address);
    assert_eq!(client.fetch("t", 0).high_watermark, 8);
}

#[test]
fn flush_ms_is_in_force() {
    let mut scene = Scene::new();
    let (broker, mut client) = start(&mut scene);
    client.create("t", &[("flush.messages", "1000000")]);
    assert_eq!(syncs(&scene, &mut client), 0);
    let before = scene.shim.counts().unwrap().syncs;
    altered(&mut client, TOPIC, "t", &[set("flush.ms", "1")]);
    // The change itself is one, the waiting record the other.
    wait_until(|| scene.shim.counts().unwrap().syncs == before + 2);
    assert!(broker.stop().success());

    let (_broker, mut client) = start(&mut scene);
    let before = scene.shim.counts().unwrap().syncs;
    client.store("t", &batch(&["x"]));
    wait_until(|| scene.shim.counts().unwrap().syncs > before);
}

/// Who comes while the writer waits shares its sync.
#[test]
fn group_commit_linger_ms_is_in_force() {
    let mut scene = Scene::new();
    let broker = scene.start(&["group.commit.linger.ms=1500"]);
    let mut clients = [(); 3].map(|()| Client::connect(&broker.address));
    clients[0].create("t", &[]);
    let before = scene.shim.counts().unwrap().syncs;
    for client in &mut clients {
        client.send(PRODUCE, &produce("t", -1, &batch(&["x"])));
    }
    for client in &mut clients {
        assert_eq!(client.produced().error_code, 0);
    }
    assert_eq!(scene.shim.counts().unwrap().syncs - before, 1);
}
