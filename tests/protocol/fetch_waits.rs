//! Fetch: how long an answer waits (`min_bytes`, `max_wait_ms`), and what ends the wait.

use crate::common::client::{
    Client, FETCH, PRODUCE, batch, fetch, fetch_partition, produce, values,
};
use crate::start;
use ottla::api::fetch::FetchResponse;
use ottla::api::produce::ProduceResponse;
use std::time::{Duration, Instant};

/// A wait that no test sits out.
const LONG_MS: i32 = 600_000;

#[test]
fn data_that_comes_ends_the_wait_at_once() {
    let (_data, broker, mut client) = start(&[]);
    client.create("t", &[]);
    let mut consumer = Client::connect(&broker.address);
    for (offset, acks) in [(0, -1), (1, 1)] {
        consumer.send(FETCH, &fetch("t", offset, LONG_MS, 1));
        assert!(consumer.is_silent());
        client.produce("t", acks, &batch(&["a"]));
        let data = consumer.fetched();
        assert_eq!((data.error_code, values(&data.records).len()), (0, 1));
    }
}

#[test]
fn the_wait_goes_on_until_min_bytes_are_there() {
    let (_data, broker, mut client) = start(&[]);
    client.create_with("t", 1, &[]);
    client.create("u", &[]);
    let one = batch(&["a"]);
    let mut consumer = Client::connect(&broker.address);
    let mut request = fetch("t", 0, LONG_MS, 3 * one.len() as i32);
    request.topics.extend(fetch("u", 0, 0, 0).topics);
    consumer.send(FETCH, &request);
    for topic in ["t", "u"] {
        client.store(topic, &one);
        assert!(consumer.is_silent());
    }
    client.store("t", &one);
    let answer: ottla::api::fetch::FetchResponse = consumer.receive(FETCH);
    let counts = answer
        .responses
        .iter()
        .map(|t| values(&t.partitions[0].records).len());
    assert_eq!(counts.collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn the_wait_ends_after_max_wait_ms_with_what_there_is() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    client.store("t", &batch(&["a"]));
    for (offset, count) in [(0, 1), (1, 0)] {
        let started = Instant::now();
        client.send(FETCH, &fetch("t", offset, 500, 1 << 20));
        let data = client.fetched();
        assert_eq!((data.error_code, values(&data.records).len()), (0, count));
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(490), "{took:?}");
        assert!(took < Duration::from_secs(60), "{took:?}");
    }
}

#[test]
fn nothing_is_waited_for_where_waiting_changes_nothing() {
    let (_data, _broker, mut client) = start(&[]);
    client.create("t", &[]);
    client.store("t", &batch(&["a"]));
    // Enough is there; nothing is asked for; one partition has an error; no partition at all.
    client.send(FETCH, &fetch("t", 0, LONG_MS, 1));
    assert_eq!(client.fetched().error_code, 0);
    client.send(FETCH, &fetch("t", 1, LONG_MS, 0));
    assert_eq!(client.fetched().error_code, 0);
    let mut request = fetch("t", 1, LONG_MS, 1);
    request.topics[0].partitions.push(fetch_partition(9, 0));
    client.send(FETCH, &request);
    assert_eq!(client.fetched().error_code, 0);
    request.topics.clear();
    let answer: ottla::api::fetch::FetchResponse = client.call(FETCH, &request);
    assert_eq!(answer.responses, []);
}

#[test]
fn deletion_wakes_a_waiting_fetch() {
    let (_data, broker, mut client) = start(&[]);
    let id = client.create("t", &[]);
    let mut by_name = Client::connect(&broker.address);
    let mut by_id = Client::connect(&broker.address);
    by_name.send(FETCH, &fetch("t", 0, LONG_MS, 1));
    let mut request = fetch("", 0, LONG_MS, 1);
    request.topics[0].topic_id = id;
    by_id.send(16, &request);
    assert!(by_name.is_silent() && by_id.is_silent());
    client.delete("t");
    assert_eq!(by_name.fetched().error_code, 3);
    let answer: ottla::api::fetch::FetchResponse = by_id.receive(16);
    assert_eq!(answer.responses[0].partitions[0].error_code, 100);
}

/// A dead consumer must not hold its thread for `max_wait_ms`.
#[test]
fn a_disconnect_ends_the_wait() {
    let (_data, broker, mut client) = start(&[]);
    client.create("t", &[]);
    let before = broker.status("Threads:");
    let mut consumers: Vec<_> = (0..20).map(|_| Client::connect(&broker.address)).collect();
    let request = fetch("t", 0, LONG_MS, 1);
    consumers.iter_mut().for_each(|c| c.send(FETCH, &request));
    assert!(consumers.iter_mut().all(Client::is_silent));
    assert!(broker.status("Threads:") >= before + 20);
    drop(consumers);
    broker.expect_threads(before);
}

/// A clean stop waits for no long poll.
#[test]
fn a_stop_ends_the_wait() {
    let (_data, broker, mut client) = start(&[]);
    client.create("t", &[]);
    client.send(FETCH, &fetch("t", 0, LONG_MS, 1));
    assert!(client.is_silent());
    assert!(broker.stop().success());
}

/// FACTS: an idle tail costs the broker no CPU (one peer: 38 %). A poll every 100 ms would show as 20 switches.
#[test]
fn a_waiting_fetch_does_not_poll() {
    let (data, broker, mut client) = start(&[]);
    client.create("t", &[]);
    client.send(FETCH, &fetch("t", 0, LONG_MS, 1));
    assert!(client.is_silent());
    let before = broker.switches();
    std::thread::sleep(Duration::from_secs(2));
    let switches = broker.switches() - before;
    assert!(switches < 10, "{switches} times awake");
    drop(data);
}

/// Promise P2: what acks=1 was answered for is there for whoever asks next.
#[test]
fn acks_1_reads_its_own_writes() {
    let (_data, broker, mut client) = start(&[]);
    client.create("t", &[]);
    let mut reader = Client::connect(&broker.address);
    for written in 1..=200 {
        let answer = client.produce("t", 1, &batch(&["a"]));
        assert_eq!((answer.error_code, answer.base_offset), (0, written - 1));
        assert_eq!(reader.offset("t", -1).offset, written);
        let tail = reader.fetch("t", written);
        assert_eq!(tail.error_code, 0, "the end is in range");
    }
}

/// More than an answer may hold is never there: the wait is for what fits.
#[test]
fn min_bytes_beyond_max_bytes_are_not_waited_for() {
    let (_data, _broker, mut client) = start(&["fetch.max.bytes=1024"]);
    client.create("t", &[]);
    client.store("t", &batch(&[&"x".repeat(2000)]));
    client.send(FETCH, &fetch("t", 0, LONG_MS, i32::MAX));
    assert_eq!(values(&client.fetched().records).len(), 1);
    let mut request = fetch("t", 0, LONG_MS, i32::MAX);
    request.max_bytes = 100;
    client.send(FETCH, &request);
    assert_eq!(values(&client.fetched().records).len(), 1);
}

/// What a limit keeps out of an answer counts as there: limits fall between batches, and the answer ends at one.
#[test]
fn min_bytes_that_limits_cut_off_are_not_waited_for() {
    let (_data, _broker, mut client) = start(&[]);
    client.create_with("t", 2, &[]);
    for (partition, count) in [(0, 12), (1, 1)] {
        let mut request = produce("t", -1, &batch(&[&"x".repeat(10_000)]));
        request.topic_data[0].partition_data[0].index = partition;
        for _ in 0..count {
            let answer: ProduceResponse = client.call(PRODUCE, &request);
            assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
        }
    }
    for (max, partition_max, offset, counts) in [
        (1 << 20, 100_000, 0, [9, 0]),
        (100_000, 1 << 20, 0, [9, 0]),
        (1 << 20, 5000, 0, [1, 0]),
        // The other partition's batch does not fit any more.
        (45_000, 45_000, 8, [4, 0]),
    ] {
        let mut request = fetch("t", offset, LONG_MS, max.min(partition_max));
        request.max_bytes = max;
        request.topics[0].partitions[0].partition_max_bytes = partition_max;
        if offset > 0 {
            request.topics[0].partitions.push(fetch_partition(1, 0));
        }
        let answer: FetchResponse = client.call(FETCH, &request);
        let partitions = &answer.responses[0].partitions;
        let found = partitions.iter().map(|data| values(&data.records).len());
        let found: Vec<_> = found.collect();
        assert_eq!(found, counts[..found.len()], "{max} {partition_max}");
    }
}
