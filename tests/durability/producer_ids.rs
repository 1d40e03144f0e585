//! Producer ids around power cuts: they come in blocks, each recorded before the first of it is given out, so that no
//! id comes back, wherever the power is cut.

use crate::common::Broker;
use crate::common::producer::Client;
use crate::power::cut_everywhere;
use crate::scene::Scene;
use std::fs;
use std::path::Path;

/// More than two blocks.
const IDS: usize = 2_100;

/// Takes ids; each with the length that the record of changes had then.
fn live(scene: &mut Scene) -> Vec<(u64, i64)> {
    let broker = scene.start(&[]);
    let changes = scene.changes(1);
    let mut client = Client::connect(&broker.address).unwrap();
    let mut given = Vec::new();
    for _ in 0..IDS {
        let id = client.producer_id().unwrap();
        given.push((fs::metadata(&changes).unwrap().len(), id));
    }
    broker.kill();
    given
}

fn check(image: &Path, cut: u64, given: &[(u64, i64)]) {
    let before = given.iter().filter(|(at, _)| *at <= cut);
    let mut highest = before.map(|(_, id)| *id).max().unwrap_or(-1);
    for _ in 0..2 {
        let broker = Broker::start_with(image, &[], |command| {
            command.env("RUST_LOG", "off");
        });
        let mut client = Client::connect(&broker.address).unwrap();
        for _ in 0..3 {
            let id = client.producer_id().unwrap();
            assert!(id > highest, "{id} after {highest}");
            highest = id;
        }
        broker.kill();
    }
}

#[test]
fn no_producer_id_comes_back_wherever_the_power_is_cut() {
    let mut scene = Scene::new();
    let broker = Broker::start(&scene.data(), &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    client.producer_id().unwrap();
    broker.kill();
    scene.load();
    cut_everywhere("producer ids", scene, live, check);
}
