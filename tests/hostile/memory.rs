//! Requests that want memory: half-sent ones, huge ones, and answers that nobody reads.

use crate::common::Broker;
use crate::common::client::{Client, FETCH, LIST_OFFSETS, LONG_AGO_MS, PRODUCE};
use crate::common::client::{batch, fetch, fetch_partition, list_offsets, produce};
use crate::common::requests;
use crate::start;
use ottla::api::list_offsets::ListOffsetsResponse;
use ottla::api::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};
use ottla::batch::builder::Builder;
use ottla::wire::Message;
use std::time::{Duration, Instant};

/// FACTS: peers took 4.2 to 4.5 GB for this.
#[test]
fn readers_that_ask_for_much_and_never_read_cost_no_memory() {
    let (_data, broker, mut bystander) = start(&["fetch.max.bytes=104857600"]);
    bystander.client.create("t", &[]);
    let large = batch(&[&"x".repeat(1_000_000)]);
    for _ in 0..64 {
        bystander.client.store("t", &large);
    }
    let before = broker.status("VmHWM:");
    let mut readers: Vec<_> = (0..40).map(|_| Client::connect(&broker.address)).collect();
    for reader in &mut readers {
        let mut request = fetch("t", 0, 0, 1);
        request.max_bytes = 64 << 20;
        request.topics[0].partitions[0].partition_max_bytes = 64 << 20;
        reader.send(FETCH, &request);
    }
    let mut half_open: Vec<_> = (0..500).map(|_| Client::connect(&broker.address)).collect();
    for client in &mut half_open {
        client.send_bytes(&[5, 0, 0, 0, 0, 1]);
    }
    bystander.check();
    let grown = broker.status("VmHWM:") - before;
    assert!(grown < 48 << 10, "{grown} KiB");
    drop(readers);
    bystander.check();
}

/// A request's padding: bytes after the body are ignored, as in Kafka, but they were read.
fn padded<Q: Message>(client: &Client, version: i16, request: &Q, bytes: usize) -> Vec<u8> {
    let mut frame = client.frame(version, request);
    frame.resize(4 + bytes, 0);
    frame[..4].copy_from_slice(&(bytes as i32).to_be_bytes());
    frame
}

const BUDGET: &str = "queued.max.request.bytes=2000000";

/// P7: one token lets one frame finish beyond the budget; who stops coming is closed.
#[test]
fn partial_frames_beyond_the_budget_do_not_deadlock() {
    let (_data, broker, mut bystander) = start(&[BUDGET, "request.receive.timeout.ms=1500"]);
    let mut partial: Vec<_> = (0..30).map(|_| Client::connect(&broker.address)).collect();
    for client in &mut partial {
        let frame = padded(client, 9, &produce("bystander", -1, &[]), 300_000);
        client.send_bytes(&frame[..200_000]);
    }
    bystander.check();
    bystander.check();
    broker.expect_log("a request that stopped coming");
    partial.iter_mut().for_each(Client::expect_close);
    bystander.check();
}

/// Slowly, one after the other, but all of them.
#[test]
fn whole_frames_beyond_the_budget_are_all_served() {
    let (_data, broker, mut bystander) = start(&[BUDGET]);
    bystander.client.create("t", &[]);
    let large = batch(&[&"x".repeat(900_000)]);
    let mut producers: Vec<_> = (0..12).map(|_| Client::connect(&broker.address)).collect();
    std::thread::scope(|scope| {
        for producer in &mut producers {
            scope.spawn(|| {
                for _ in 0..3 {
                    producer.store("t", &large);
                }
            });
        }
        (0..5).for_each(|_| bystander.check());
    });
    assert_eq!(bystander.client.offset("t", -1).offset, 36);
}

#[test]
fn a_frame_beyond_the_whole_budget_is_refused_at_its_length() {
    let (_data, broker, mut bystander) = start(&[BUDGET]);
    let mut client = Client::connect(&broker.address);
    client.send_bytes(&2_000_001i32.to_be_bytes());
    client.expect_close();
    broker.expect_log("a frame of 2000001 bytes");
    bystander.check();
}

/// A fetch that waits needs its request no more: three such frames must not starve the broker for ten minutes.
#[test]
fn waiting_fetches_hold_none_of_the_budget() {
    let (_data, broker, mut bystander) = start(&[BUDGET]);
    bystander.client.create("quiet", &[]);
    let mut waiting: Vec<_> = (0..6).map(|_| Client::connect(&broker.address)).collect();
    for client in &mut waiting {
        let frame = padded(client, FETCH, &fetch("quiet", 0, 600_000, 1), 1_900_000);
        client.send_bytes(&frame);
    }
    let before = Instant::now();
    (0..3).for_each(|_| bystander.check());
    assert!(before.elapsed() < Duration::from_secs(60));
    assert!(waiting.iter_mut().all(Client::is_silent), "they still wait");
}

/// Two bytes a topic, five a resource: what is read, and what is answered, stays within reason.
#[test]
fn many_small_things_in_one_request_cost_bounded_memory() {
    let (_data, broker, mut bystander) = start(&[]);
    bystander.client.create_with("t", 100, &[]);
    let before = broker.status("VmHWM:");
    let topic = MetadataRequestTopic {
        name: Some("t".into()),
        ..MetadataRequestTopic::default()
    };
    let metadata = MetadataRequest {
        topics: Some(vec![topic; 100_000]),
        ..MetadataRequest::default()
    };
    let configs = requests::describe_configs(4, &["1"; 100_000]);
    let mut request = fetch("t", 0, 0, 0);
    request.topics[0].partitions = vec![fetch_partition(0, 0); 50_000];
    let client = &mut bystander.client;
    for frame in [
        client.frame(12, &metadata),
        client.frame(4, &configs),
        client.frame(FETCH, &request),
    ] {
        let mut other = Client::connect(&broker.address);
        other.send_bytes(&frame);
        assert!(other.receive_frame().len() < 4 << 20);
    }
    let grown = broker.status("VmHWM:") - before;
    assert!(grown < 64 << 10, "{grown} KiB");
    bystander.check();
}

/// A topic name of three bytes is two hundred and more in memory, with its answer: five such clients at once took
/// 1.2 GB of it. What is beyond the budget is refused; clients that ask for less are served meanwhile.
#[test]
fn many_elements_at_once_are_refused_beyond_their_budget() {
    let (_data, broker, mut bystander) = start(&["auto.create.topics.enable=false"]);
    let before = broker.status("VmHWM:");
    let topic = |n: i32| MetadataRequestTopic {
        name: Some(format!("{n:x}")),
        ..MetadataRequestTopic::default()
    };
    let of = |count| MetadataRequest {
        topics: Some((0..count).map(topic).collect()),
        ..MetadataRequest::default()
    };
    let frame = bystander.client.frame(9, &of(100_001));
    let mut client = Client::connect(&broker.address);
    client.try_send(&frame);
    broker.expect_log("more than a hundred thousand array elements");
    client.expect_close();
    let frame = bystander.client.frame(9, &of(100_000));
    let mut many: Vec<_> = (0..8).map(|_| Client::connect(&broker.address)).collect();
    for client in &mut many {
        client.try_send(&frame);
    }
    bystander.check();
    let grown = broker.status("VmHWM:") - before;
    assert!(grown < 96 << 10, "{grown} KiB");
    drop(many);
    let answer: MetadataResponse = bystander.client.call(9, &of(1000));
    assert_eq!(answer.topics.len(), 1000);
}

/// The elements of questions, and of answers that are much larger, come out of half the budget of requests.
#[test]
fn elements_without_memory_for_them_are_refused() {
    let (_data, broker, mut bystander) = start(&[BUDGET, "auto.create.topics.enable=false"]);
    let named = |n: i32| MetadataRequestTopic {
        name: Some(n.to_string()),
        ..MetadataRequestTopic::default()
    };
    let metadata = MetadataRequest {
        topics: Some((0..5000).map(named).collect()),
        ..MetadataRequest::default()
    };
    let mut client = Client::connect(&broker.address);
    client.send(9, &metadata);
    client.expect_close();
    broker.expect_log("more array elements than memory is free for");
    let names: Vec<i32> = (0..100).collect();
    let configs = requests::describe_configs(2, &names);
    let mut client = Client::connect(&broker.address);
    client.send(4, &configs);
    client.expect_close();
    broker.expect_log("an answer larger than memory is free for");
    bystander.check();
}

/// A fetch of so many partitions holds what it was read into: it may wait, and not for as long as it likes.
#[test]
fn large_fetches_do_not_keep_their_memory_for_long() {
    let (_data, broker, mut bystander) = start(&[BUDGET]);
    bystander.client.create_with("t", 1000, &[]);
    let mut request = fetch("t", 0, i32::MAX, 1);
    request.topics[0].partitions = (0..1000).map(|n| fetch_partition(n, 0)).collect();
    let mut waiting = Client::connect(&broker.address);
    waiting.send(FETCH, &request);
    assert!(waiting.is_silent());
    assert_eq!(waiting.fetched().error_code, 0);
    bystander.check();
}

/// What waits in the broker's half of a connection: sent and not yet taken by the client's kernel, and received.
fn queued_bytes(broker: &Broker, client: &Client) -> (u64, u64) {
    let port = |address: &str| {
        let (_, port) = address.rsplit_once(':').unwrap();
        format!(":{:04X}", port.parse::<u16>().unwrap())
    };
    let (near, far) = (
        port(&broker.address),
        port(&client.stream().local_addr().unwrap().to_string()),
    );
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let mut lines = table.lines().map(|line| line.split_whitespace());
    let queues = lines.find_map(|mut words| {
        let (local, remote) = (words.nth(1)?, words.next()?);
        let queues = words.nth(1)?.split_once(':')?;
        (local.ends_with(&near) && remote.ends_with(&far)).then_some(queues)
    });
    let (sent, received) = queues.expect("the connection is in the kernel's table");
    let number = |hex| u64::from_str_radix(hex, 16).unwrap();
    (number(sent), number(received))
}

/// A reader that does not read, and a writer that is not read, fill the broker's buffers and no more.
#[test]
fn socket_buffers_are_as_large_as_they_are_told() {
    let settings = [
        "socket.send.buffer.bytes=20000",
        "socket.receive.buffer.bytes=20000",
    ];
    let (_data, broker, mut bystander) = start(&settings);
    bystander.client.create("t", &[]);
    let large = batch(&[&"x".repeat(1_000_000)]);
    for _ in 0..8 {
        bystander.client.store("t", &large);
    }
    let mut client = Client::connect(&broker.address);
    client.send(FETCH, &fetch("t", 0, 0, 1));
    client.stream().set_nonblocking(true).unwrap();
    let more = [0; 4096];
    let deadline = Instant::now() + Duration::from_secs(60);
    let (mut sent, mut received) = (0, 0);
    while (sent == 0 || received == 0) && Instant::now() < deadline {
        while client.try_send(&more) {}
        std::thread::sleep(Duration::from_millis(100));
        (sent, received) = queued_bytes(&broker, &client);
    }
    // One packet, of up to 64 KiB over loopback, may go beyond it; the kernel's own choice is 4 MB.
    assert!((1..128 << 10).contains(&sent), "{sent} bytes to be sent");
    assert!(
        (1..=40_000).contains(&received),
        "{received} bytes received"
    );
    bystander.check();
}

/// Answers of 200 KB to clients that do not read: held as long as there is memory for them.
#[test]
fn large_answers_that_nobody_reads_cost_bounded_memory() {
    let (_data, broker, mut bystander) = start(&[BUDGET, "socket.send.buffer.bytes=16384"]);
    let names: Vec<String> = (0..40).map(|n| format!("t{n}")).collect();
    for name in &names {
        bystander.client.create(name, &[]);
    }
    let request = requests::describe_configs(2, &names);
    let mut reader = Client::connect(&broker.address);
    reader.send(4, &request);
    let before = broker.status("VmHWM:");
    let whole = reader.receive_frame().len();
    assert!(whole > 200_000, "{whole} bytes, read at once");
    let mut clients: Vec<_> = (0..150).map(|_| Client::connect(&broker.address)).collect();
    for client in &mut clients {
        client.send(4, &request);
    }
    // Its answer began to come, or it was closed.
    for client in &clients {
        let _ = client.stream().peek(&mut [0]);
    }
    let grown = broker.status("VmHWM:") - before;
    assert!(grown < 16 << 10, "{grown} KiB");
    broker.expect_log("an answer that is not read");
    bystander.check();
}

/// A produce takes ten times its bytes until it is answered: many small ones wait in their sockets, not in memory.
#[test]
fn small_pipelined_produces_cost_bounded_memory() {
    const REQUESTS: usize = 1000;
    let settings = [
        "queued.max.request.bytes=4000000",
        "group.commit.linger.ms=300",
    ];
    let (_data, broker, mut bystander) = start(&settings);
    bystander.client.create("t", &[]);
    let mut clients: Vec<_> = (0..24).map(|_| Client::connect(&broker.address)).collect();
    let before = broker.status("VmHWM:");
    let request = produce("t", -1, &batch(&["x"]));
    for client in &mut clients {
        (0..REQUESTS).for_each(|_| client.send(PRODUCE, &request));
    }
    for client in &mut clients {
        (0..REQUESTS).for_each(|_| assert_eq!(client.produced().error_code, 0));
    }
    let grown = broker.status("VmHWM:") - before;
    assert!(grown < 12 << 10, "{grown} KiB");
    bystander.check();
}

/// A batch is read as a whole to be searched by time: so many at once as there is memory for.
#[test]
fn searches_by_time_cost_bounded_memory() {
    let (_data, broker, mut bystander) = start(&["queued.max.request.bytes=16000000"]);
    let settings = [("max.message.bytes", "16000000")];
    bystander.client.create("t", &settings);
    let mut large = Builder::new(LONG_AGO_MS);
    for n in 0..300_000 {
        large.add(None, Some(b"twenty bytes or more"), &[], LONG_AGO_MS + n);
    }
    bystander.client.store("t", &large.build());
    let before = broker.status("VmHWM:");
    let mut clients: Vec<_> = (0..24).map(|_| Client::connect(&broker.address)).collect();
    for client in &mut clients {
        client.send(LIST_OFFSETS, &list_offsets("t", LONG_AGO_MS + 299_999, -1));
    }
    for client in &mut clients {
        let answer: ListOffsetsResponse = client.receive(LIST_OFFSETS);
        assert_eq!(answer.topics[0].partitions[0].offset, 299_999);
    }
    let grown = broker.status("VmHWM:") - before;
    assert!(grown < 40 << 10, "{grown} KiB");
    bystander.check();
}
