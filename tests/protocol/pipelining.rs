//! Several requests in flight on one connection: answered in the order in which they came.

use crate::common::Broker;
use crate::common::client::{Client, FETCH, PRODUCE, batch, fetch, list_offsets, produce, records};
use crate::start;
use ottla::api::list_offsets::ListOffsetsResponse;
use ottla::api::metadata::{MetadataRequest, MetadataResponse};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

/// [`Client::receive`] checks each correlation id against the order of the requests.
#[test]
fn pipelined_produces_are_answered_in_order_even_when_some_are_refused() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    client.create("u", &[]);
    let mut broken = batch(&["x"]);
    broken[20] ^= 1;
    let (mut expected, mut next) = (Vec::new(), [0, 0]);
    for n in 0..300 {
        let (topic, which) = if n % 2 == 0 { ("t", 0) } else { ("u", 1) };
        let (topic, acks, batch, code) = match n % 7 {
            3 => (topic, -1, &broken[..], 2),
            5 => ("none", -1, &batch(&["x"])[..], 3),
            6 => (topic, 9, &batch(&["x"])[..], 21),
            n => (topic, if n == 2 { 1 } else { -1 }, &batch(&["x"])[..], 0),
        };
        client.send(PRODUCE, &produce(topic, acks, batch));
        expected.push(match code {
            0 => (0, next[which]),
            code => (code, -1),
        });
        next[which] += i64::from(code == 0);
    }
    for (at, expected) in expected.into_iter().enumerate() {
        let answer = client.produced();
        assert_eq!((answer.error_code, answer.base_offset), expected, "{at}");
    }
}

/// A retry that arrives while its original waits for the sync is answered with that same sync.
#[test]
fn pipelined_sequences_keep_their_order() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    let id = client.producer_id();
    let of = |n: i32| records(&[&n.to_string()]).producer(id, 0, n).build();
    for n in (0..5).chain(0..5).chain([9, 5]) {
        client.send(PRODUCE, &produce("t", -1, &of(n)));
    }
    for offset in (0..5).chain(0..5) {
        let answer = client.produced();
        assert_eq!((answer.error_code, answer.base_offset), (0, offset));
    }
    assert_eq!(client.produced().error_code, 45);
    assert_eq!(client.produced().base_offset, 5);
    assert_eq!(client.values("t"), ["0", "1", "2", "3", "4", "5"]);
}

/// Kafka serves one request of a connection at a time; what follows produces sees what they did.
#[test]
fn other_requests_wait_for_the_produces_before_them() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    for round in 0..20 {
        for acks in [-1, 1, -1, 1, 1] {
            client.send(PRODUCE, &produce("t", acks, &batch(&["x"])));
        }
        client.send(12, &MetadataRequest::default());
        client.send(8, &list_offsets("t", -1, -1));
        client.send(PRODUCE, &produce("t", -1, &batch(&["y"])));
        client.send(FETCH, &fetch("t", 6 * round, 0, 0));
        (0..5).for_each(|_| assert_eq!(client.produced().error_code, 0));
        let metadata: MetadataResponse = client.receive(12);
        assert_eq!(metadata.topics.len(), 1);
        let latest: ListOffsetsResponse = client.receive(8);
        assert_eq!(latest.topics[0].partitions[0].offset, 6 * round + 5);
        assert_eq!(client.produced().base_offset, 6 * round + 5);
        let data = client.fetched();
        assert_eq!(crate::common::client::values(&data.records).len(), 6);
    }
}

/// Frames come in whatever pieces the network makes of them.
#[test]
fn requests_that_come_in_pieces_are_put_together() {
    let (_data, broker, mut client) = start(&[]);
    client.create("t", &[]);
    let mut slow = Client::connect(&broker.address);
    let frame = slow.frame(9, &produce("t", 0, &batch(&["piecemeal"])));
    for byte in &frame {
        slow.send_bytes(&[*byte]);
    }
    let large = batch(&[&"x".repeat(300_000)]);
    let frame = slow.frame(9, &produce("t", 0, &large));
    for piece in [frame.clone(), frame].concat().chunks(50_001) {
        slow.send_bytes(piece);
    }
    // The next answer comes after all of them are stored.
    assert_eq!(slow.store("t", &batch(&["end"])), 3);
    assert_eq!(client.values("t").len(), 4);
}

/// Kafka handles what it received before a client's end; so a client may send, end its side, and go.
#[test]
fn what_was_sent_before_the_end_is_handled() {
    let (_data, broker, mut client) = start(&[]);
    client.create("t", &[]);
    let mut sender = Client::connect(&broker.address);
    let unanswered = sender.frame(PRODUCE, &produce("t", 0, &batch(&["x"])));
    sender.send_bytes(&unanswered);
    sender.send(12, &MetadataRequest::default());
    (0..500).for_each(|_| sender.send_bytes(&unanswered));
    sender.send(PRODUCE, &produce("t", -1, &batch(&["last"])));
    sender.stream().shutdown(Shutdown::Write).unwrap();
    let _: MetadataResponse = sender.receive(12);
    assert_eq!(sender.produced().base_offset, 501);
    sender.expect_close();
    let mut waiting = Client::connect(&broker.address);
    waiting.send(FETCH, &fetch("t", 502, 600_000, 1));
    waiting.send(PRODUCE, &produce("t", -1, &batch(&["y"])));
    assert!(waiting.is_silent());
    waiting.stream().shutdown(Shutdown::Write).unwrap();
    assert_eq!(waiting.fetched().error_code, 0, "the end ends the wait");
    assert_eq!(waiting.produced().base_offset, 502);
    waiting.expect_close();
}

/// Kafka reads no request before the one in front of it is answered: one that is refused takes no answer with it.
#[test]
fn what_was_sent_before_a_refused_request_is_answered() {
    let settings = [
        "socket.request.max.bytes=100000",
        "group.commit.linger.ms=300",
    ];
    let (_data, broker, mut client) = start(&settings);
    client.create("t", &[]);
    let refused = client.frame(PRODUCE, &produce("none", 0, &batch(&["x"])));
    let oversized = 100_001i32.to_be_bytes().to_vec();
    let unknown = [&8i32.to_be_bytes()[..], &[0, 0, 0, 99, 0, 0, 0, 0]].concat();
    for (at, bad) in (0..).step_by(3).zip([refused, oversized, unknown]) {
        let mut sender = Client::connect(&broker.address);
        for _ in 0..3 {
            sender.send(PRODUCE, &produce("t", -1, &batch(&["x"])));
        }
        sender.send_bytes(&bad);
        for offset in at..at + 3 {
            assert_eq!(sender.produced().base_offset, offset);
        }
        sender.expect_close();
    }
}

/// A clean stop leaves no producer in doubt: whatever is stored was answered.
#[test]
fn a_clean_stop_answers_what_it_stored() {
    let (data, broker, mut client) = start(&[]);
    client.create("t", &[]);
    let large = batch(&[&"x".repeat(20_000)]);
    let sender = Client::connect(&broker.address);
    let frame = sender.frame(PRODUCE, &produce("t", -1, &large));
    let mut reader = sender.stream().try_clone().unwrap();
    let answered = std::thread::spawn(move || {
        let mut answers = Vec::new();
        // A reset is an end too: of what was sent after the broker read no more.
        let _ = reader.read_to_end(&mut answers);
        answers
    });
    let mut writer = sender.stream().try_clone().unwrap();
    let flood = std::thread::spawn(move || while writer.write_all(&frame).is_ok() {});
    std::thread::sleep(Duration::from_millis(300));
    assert!(broker.stop().success());
    flood.join().unwrap();
    let answers = answered.join().unwrap();
    let length = 4 + i32::from_be_bytes(*answers.first_chunk().expect("an answer")) as usize;
    let broker = Broker::start(data.path(), &[]);
    let stored = Client::connect(&broker.address).offset("t", -1).offset;
    assert_eq!(answers.len() / length, stored as usize);
}
