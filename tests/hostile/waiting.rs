//! Connections that take their time: slow writers, idle ones, and floods of them.

use crate::common::Broker;
use crate::common::client::{Client, FETCH, PRODUCE, batch, fetch, fetch_partition, produce};
use crate::start;
use ottla::api::metadata::MetadataRequest;
use ottla::api::produce::ProduceResponse;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// One byte at a time, never so slowly as to seem dead: a request as a whole has a time limit.
#[test]
fn a_slow_loris_is_closed() {
    let (_data, broker, mut bystander) = start(&["request.receive.timeout.ms=1000"]);
    let mut loris = Client::connect(&broker.address);
    let frame = loris.frame(9, &produce("bystander", -1, &batch(&[&"x".repeat(5000)])));
    let started = Instant::now();
    let closed = frame.iter().any(|byte| {
        std::thread::sleep(Duration::from_millis(20));
        !loris.try_send(&[*byte])
    });
    assert!(closed && started.elapsed() >= Duration::from_millis(900));
    broker.expect_log("a request that stopped coming");
    bystander.check();
}

/// A frame that came a long way gets time for its length, but none to stand still in.
#[test]
fn a_large_frame_that_stalls_is_closed() {
    let (_data, broker, mut bystander) = start(&["request.receive.timeout.ms=1000"]);
    let mut client = Client::connect(&broker.address);
    client.send_bytes(&(20i32 << 20).to_be_bytes());
    client.send_bytes(&vec![0; (20 << 20) - 1]);
    let started = Instant::now();
    client.expect_close();
    assert!(started.elapsed() < Duration::from_secs(10));
    broker.expect_log("a request that stopped coming");
    bystander.check();
}

/// Clients that said something, and so keep their seats.
fn speaking(broker: &Broker, count: usize) -> Vec<Client> {
    let speak = |_| {
        let mut client = Client::connect(&broker.address);
        assert_eq!(client.offset("bystander", -2).timestamp, -1);
        client
    };
    (0..count).map(speak).collect()
}

/// A broker that may have 256 files open: 64 are reserved, half of the rest is the storage's.
fn start_narrow() -> (tempfile::TempDir, Broker) {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start_with(data.path(), &[], |command| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -n 256; exec \"$0\" \"$@\""]);
        shell.arg(command.get_program()).args(command.get_args());
        shell.stdin(Stdio::null()).stderr(Stdio::piped());
        *command = shell;
    });
    (data, broker)
}

/// Each takes two descriptors, and the storage has its share: a flood must not keep the log from its files.
#[test]
fn connections_are_held_to_the_limit_of_open_files() {
    let (_data, broker) = start_narrow();
    // Each connection takes two of the other half.
    let mut flood = speaking(&broker, 48);
    let mut bystander = flood.remove(0);
    let refused: Vec<_> = (0..250).map(|_| Client::connect(&broker.address)).collect();
    broker.expect_log("max.connections is reached");
    for n in 0..20 {
        let name = format!("t{n}");
        bystander.create(&name, &[]);
        assert_eq!(bystander.store(&name, &batch(&["x"])), 0);
        assert_eq!(bystander.values(&name), ["x"]);
    }
    refused
        .into_iter()
        .for_each(|mut client| client.expect_close());
    for client in &mut flood {
        assert_eq!(client.offset("t0", -1).offset, 1);
    }
}

/// It is the half-received request that times out, not the connection.
#[test]
fn a_pause_between_requests_is_no_slow_loris() {
    let (_data, _broker, mut bystander) = start(&["request.receive.timeout.ms=300"]);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(600));
        bystander.check();
    }
}

#[test]
fn an_idle_connection_is_closed_and_a_waiting_one_is_not() {
    let (_data, broker, mut bystander) = start(&["connections.max.idle.ms=1500"]);
    // Its data is in another topic, so that what the bystander stores does not end the wait.
    bystander.client.create("quiet", &[]);
    let mut idle = Client::connect(&broker.address);
    let mut waiting = Client::connect(&broker.address);
    waiting.send(FETCH, &fetch("quiet", 0, 4000, 1));
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(3500) {
        bystander.check();
        std::thread::sleep(Duration::from_millis(100));
    }
    idle.expect_close();
    assert_eq!(
        waiting.fetched().error_code,
        0,
        "the long poll was answered"
    );
    // And it counts as active from its answer on, not from its question.
    std::thread::sleep(Duration::from_millis(300));
    waiting.send(FETCH, &fetch("quiet", 0, 0, 0));
    assert_eq!(waiting.fetched().error_code, 0);
    bystander.check();
}

/// Each costs a thread and a limit costs the newcomer alone.
#[test]
fn a_flood_of_connections_costs_the_newcomers_alone() {
    let (_data, broker, mut bystander) = start(&["max.connections=50"]);
    let before = broker.status("Threads:");
    // 49 beside the bystander.
    let mut flood = speaking(&broker, 49);
    let refused: Vec<_> = (0..150).map(|_| Client::connect(&broker.address)).collect();
    broker.expect_log("max.connections is reached");
    bystander.check();
    refused
        .into_iter()
        .for_each(|mut client| client.expect_close());
    for client in &mut flood {
        assert_eq!(client.offset("bystander", -2).error_code, 0);
    }
    drop(flood);
    broker.expect_threads(before);
    let mut again = Client::connect(&broker.address);
    assert_eq!(again.offset("bystander", -2).error_code, 0);
    bystander.check();
}

/// A client that asks and asks and never reads holds one thread, and nobody else.
#[test]
fn a_client_that_never_reads_its_answers_disturbs_nobody() {
    let (_data, broker, mut bystander) = start(&[]);
    bystander.client.create_with("t", 1000, &[]);
    let mut deaf = Client::connect(&broker.address);
    let frame = deaf.frame(12, &MetadataRequest::default());
    // Some tens of megabytes of answers, more than the kernel keeps for one connection.
    (0..2000).for_each(|_| deaf.send_bytes(&frame));
    (0..3).for_each(|_| bystander.check());
    assert!(broker.status("VmHWM:") < 100 << 10);
}

/// What a fetch found is not kept while it waits for more: its files are the storage's.
#[test]
fn waiting_fetches_hold_no_files() {
    // Larger requests may not wait for so long.
    const EACH: i32 = 25;
    let (_data, broker) = start_narrow();
    let mut bystander = Client::connect(&broker.address);
    bystander.create_with("t", 10 * EACH, &[]);
    let mut request = produce("t", -1, &batch(&["x"]));
    for index in 0..10 * EACH {
        request.topic_data[0].partition_data[0].index = index;
        let answer: ProduceResponse = bystander.call(PRODUCE, &request);
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
    }
    let mut waiting: Vec<_> = (0..10).map(|_| Client::connect(&broker.address)).collect();
    for (first, client) in (0..).step_by(EACH as usize).zip(&mut waiting) {
        let mut request = fetch("t", 0, 600_000, 1 << 20);
        let partitions = (first..first + EACH).map(|index| fetch_partition(index, 0));
        request.topics[0].partitions = partitions.collect();
        client.send(FETCH, &request);
        assert!(client.is_silent());
    }
    bystander.create("u", &[]);
    for offset in 0..100 {
        assert_eq!(bystander.store("u", &batch(&["x"])), offset);
    }
    assert_eq!(bystander.values("u").len(), 100);
    assert!(waiting.iter_mut().all(Client::is_silent));
}

/// Answers that are not read hold their files open: one each, where the storage has no others left.
#[test]
fn unread_answers_leave_files_to_others() {
    const EACH: i32 = 60;
    let (_data, broker) = start_narrow();
    let mut bystander = Client::connect(&broker.address);
    bystander.create_with("t", 5 * EACH, &[]);
    let mut request = produce("t", -1, &batch(&[&"x".repeat(100_000)]));
    for index in 0..5 * EACH {
        request.topic_data[0].partition_data[0].index = index;
        let answer: ProduceResponse = bystander.call(PRODUCE, &request);
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
    }
    let mut unread: Vec<_> = (0..25).map(|_| Client::connect(&broker.address)).collect();
    for (n, client) in (0..).zip(&mut unread) {
        let mut request = fetch("t", 0, 0, 1);
        let first = n % 5 * EACH;
        let partitions = (first..first + EACH).map(|index| fetch_partition(index, 0));
        request.topics[0].partitions = partitions.collect();
        client.send(FETCH, &request);
        let _ = client.stream().peek(&mut [0]);
    }
    bystander.create("u", &[]);
    for offset in 0..100 {
        assert_eq!(bystander.store("u", &batch(&["x"])), offset);
    }
    assert_eq!(bystander.values("u").len(), 100);
}
