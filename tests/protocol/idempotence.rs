//! The idempotent producer (KIP-98): a retry is stored once, whatever happened in between.

use crate::common::Broker;
use crate::common::client::{Client, sequenced};
use crate::common::settings::{altered, set};
use crate::start;
use ottla::api::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use ottla::error::ErrorCode::{self, InvalidProducerEpoch, OutOfOrderSequenceNumber};
use std::collections::BTreeSet;

const BROKER: i8 = 4;

/// FG PR#846: success, not DUPLICATE_SEQUENCE_NUMBER.
#[test]
fn a_duplicate_is_answered_with_its_original_offset() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    let id = client.producer_id();
    client.store("t", &sequenced(id, 0, 0, &["a", "b"]));
    client.store("t", &sequenced(id, 0, 2, &["c"]));
    for acks in [-1, 1] {
        let answer = client.produce("t", acks, &sequenced(id, 0, 0, &["a", "b"]));
        assert_eq!((answer.error_code, answer.base_offset), (0, 0));
    }
    assert_eq!(client.store("t", &sequenced(id, 0, 2, &["c"])), 2);
    assert_eq!(client.values("t"), ["a", "b", "c"]);
}

#[test]
fn a_gap_in_the_sequence_is_out_of_order() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    let id = client.producer_id();
    client.store("t", &sequenced(id, 0, 0, &["a"]));
    client.refused("t", &sequenced(id, 0, 2, &["c"]), OutOfOrderSequenceNumber);
    client.refused(
        "t",
        &sequenced(id, 0, 0, &["a", "b"]),
        OutOfOrderSequenceNumber,
    );
    client.store("t", &sequenced(id, 0, 1, &["b"]));
    assert_eq!(client.values("t"), ["a", "b"]);
}

#[test]
fn an_unknown_producer_may_begin_anywhere() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    let id = client.producer_id();
    client.store("t", &sequenced(id, 3, 1000, &["a"]));
    client.store("t", &sequenced(id, 3, 1001, &["b"]));
    client.refused(
        "t",
        &sequenced(id, 3, 1003, &["c"]),
        OutOfOrderSequenceNumber,
    );
}

#[test]
fn a_new_epoch_begins_at_0_and_fences_the_old_one() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    let id = client.producer_id();
    client.store("t", &sequenced(id, 0, 0, &["a"]));
    client.refused("t", &sequenced(id, 1, 1, &["b"]), OutOfOrderSequenceNumber);
    client.store("t", &sequenced(id, 1, 0, &["b"]));
    client.refused("t", &sequenced(id, 0, 1, &["c"]), InvalidProducerEpoch);
    client.store("t", &sequenced(id, 1, 1, &["c"]));
}

#[test]
fn a_sequence_wraps_at_the_largest_i32() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    let id = client.producer_id();
    client.store("t", &sequenced(id, 0, i32::MAX - 2, &["a", "b"]));
    let over_the_edge = sequenced(id, 0, i32::MAX, &["c", "d", "e"]);
    assert_eq!(client.store("t", &over_the_edge), 2);
    assert_eq!(client.store("t", &over_the_edge), 2, "a duplicate");
    assert_eq!(client.store("t", &sequenced(id, 0, 2, &["f"])), 5);
    client.store("t", &sequenced(id, 1, 0, &["g"]));
    let to_the_edge = sequenced(client.producer_id(), 0, i32::MAX, &["h"]);
    client.store("t", &to_the_edge);
    assert_eq!(client.offset("t", -1).offset, 8);
}

/// Seven batches of which the broker remembers five; the first was forgotten.
fn fill(client: &mut Client) -> i64 {
    client.create("t", &[("segment.bytes", "300")]);
    let id = client.producer_id();
    (0..7).for_each(|n| assert_eq!(client.store("t", &numbered(id, n)), i64::from(n)));
    id
}

fn numbered(id: i64, number: i32) -> Vec<u8> {
    sequenced(id, 0, number, &[&number.to_string()])
}

fn check_window(client: &mut Client, id: i64) {
    for number in 2..7 {
        let again = client.store("t", &numbered(id, number));
        assert_eq!(again, i64::from(number), "the window holds five batches");
    }
    client.refused("t", &numbered(id, 0), OutOfOrderSequenceNumber);
    client.refused("t", &numbered(id, 1), OutOfOrderSequenceNumber);
    assert_eq!(client.offset("t", -1).offset, 7);
}

#[test]
fn the_window_holds_five_batches() {
    let (_data, _broker, mut client) = start(&[]);
    let id = fill(&mut client);
    check_window(&mut client, id);
    assert_eq!(client.store("t", &numbered(id, 7)), 7);
}

/// RP#22670, RP PR#29001: also when the batches lie in several segments.
#[test]
fn the_window_survives_a_clean_restart() {
    let (data, broker, mut client) = start(&[]);
    let id = fill(&mut client);
    assert!(broker.stop().success());
    let broker = Broker::start(data.path(), &[]);
    let mut client = Client::connect(&broker.address);
    check_window(&mut client, id);
    assert_eq!(client.store("t", &numbered(id, 7)), 7);
}

/// RP PR#29609: twice, since the second start reads what the first one's recovery wrote.
#[test]
fn the_window_survives_kill_9() {
    let (data, mut broker, mut client) = start(&[]);
    let id = fill(&mut client);
    for _ in 0..2 {
        broker.kill();
        broker = Broker::start(data.path(), &[]);
        let mut client = Client::connect(&broker.address);
        check_window(&mut client, id);
    }
    let mut client = Client::connect(&broker.address);
    assert_eq!(client.store("t", &numbered(id, 7)), 7);
}

#[test]
fn each_partition_counts_for_itself() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("a", &[]);
    client.create("b", &[]);
    let id = client.producer_id();
    for topic in ["a", "b"] {
        client.store(topic, &sequenced(id, 0, 0, &["x"]));
        client.store(topic, &sequenced(id, 0, 1, &["y"]));
    }
}

#[test]
fn a_recreated_topic_knows_no_producer() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    let id = client.producer_id();
    client.store("t", &sequenced(id, 0, 0, &["old"]));
    client.delete("t");
    client.create("t", &[]);
    assert_eq!(client.store("t", &sequenced(id, 0, 0, &["new"])), 0);
    assert_eq!(client.values("t"), ["new"]);
}

/// Blocks of ids are synced before the first of them is handed out.
#[test]
fn producer_ids_are_unique_over_restart_and_kill_9() {
    let (data, mut broker, _) = start(&[]);
    let mut seen = BTreeSet::new();
    for round in 0..4 {
        let mut client = Client::connect(&broker.address);
        for _ in 0..3 {
            assert!(seen.insert(client.producer_id()), "given twice: {seen:?}");
        }
        match round % 2 {
            0 => broker.kill(),
            _ => assert!(broker.stop().success()),
        }
        broker = Broker::start(data.path(), &[]);
    }
}

/// A block holds a thousand.
#[test]
fn producer_ids_go_on_behind_a_block() {
    let (_data, _broker, mut client) = start(&[]);
    let ids: BTreeSet<i64> = (0..1005).map(|_| client.producer_id()).collect();
    assert_eq!(ids.len(), 1005);
}

/// KIP-360: whoever wants to go on after an error gets a fresh id; and there are no transactions yet.
#[test]
fn init_producer_id_with_an_id_or_a_transaction() {
    let (_data, _broker, mut client) = start(&[]);
    let id = client.producer_id();
    let again: InitProducerIdResponse = client.call(
        5,
        &InitProducerIdRequest {
            producer_id: id,
            producer_epoch: 0,
            ..InitProducerIdRequest::default()
        },
    );
    assert_eq!((again.error_code, again.producer_epoch), (0, 0));
    assert_ne!(again.producer_id, id);
    let transactional: InitProducerIdResponse = client.call(
        5,
        &InitProducerIdRequest {
            transactional_id: Some("t".into()),
            transaction_timeout_ms: 1000,
            ..InitProducerIdRequest::default()
        },
    );
    let told = (transactional.error_code, transactional.producer_epoch);
    assert_eq!(told, (0, 0));
    assert!(![id, again.producer_id].contains(&transactional.producer_id));
    for (producer_id, producer_epoch) in [(id, -1), (-1, 0)] {
        let half = InitProducerIdRequest {
            producer_id,
            producer_epoch,
            ..InitProducerIdRequest::default()
        };
        let answer: InitProducerIdResponse = client.call(5, &half);
        assert_eq!(answer.error_code, ErrorCode::InvalidRequest.code());
    }
}

/// Of more producers than are remembered, those idle longest are forgotten: their retry is a record like any other.
#[test]
fn producer_state_max_is_in_force() {
    let (_data, _broker, mut client) = start(&["producer.state.max=2"]);
    client.create("t", &[]);
    let ids: Vec<i64> = (0..5).map(|_| client.producer_id()).collect();
    for (offset, id) in (0..).zip(&ids) {
        assert_eq!(client.store("t", &sequenced(*id, 0, 0, &["x"])), offset);
    }
    assert_eq!(client.store("t", &sequenced(ids[4], 0, 0, &["x"])), 4);
    assert_eq!(client.store("t", &sequenced(ids[0], 0, 0, &["x"])), 5);
}

/// In broker time, by the setting as it is now. A producer is then as if it had never been known.
#[test]
fn an_idle_producer_expires() {
    let (_data, _broker, mut client) = start(&["producer.id.expiration.check.interval.ms=5"]);
    client.create("t", &[]);
    let id = client.producer_id();
    client.store("t", &sequenced(id, 0, 0, &["a"]));
    client.refused("t", &sequenced(id, 0, 7, &["b"]), OutOfOrderSequenceNumber);
    let soon = set("producer.id.expiration.ms", "20");
    altered(&mut client, BROKER, "", &[soon]);
    let mut tries = (0..1_000_000).map(|_| client.produce("t", -1, &sequenced(id, 0, 7, &["b"])));
    assert!(tries.any(|answer| answer.error_code == 0));
    assert_eq!(client.values("t"), ["a", "b"]);
}
