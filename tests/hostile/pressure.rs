//! Memory that some clients hold and do not use, while others need it: who gives way.

use crate::common::client::{Client, PATIENCE, batch, produce};
use crate::common::requests;
use crate::start;
use ottla::api::find_coordinator::FindCoordinatorRequest;
use ottla::api::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};
use ottla::api::list_offsets::ListOffsetsResponse;
use socket2::{Domain, Socket, Type};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const BUDGET: &str = "queued.max.request.bytes=2000000";

/// A client whose kernel takes a few KiB for it.
fn narrow(to: &str) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let to: SocketAddr = to.parse().unwrap();
    socket.connect(&to.into()).unwrap();
    Client::over(TcpStream::from(socket))
}

/// Frames of which nearly all came at once, and then a byte every now and then: what they earned by it is spent when
/// others wait for the memory that they hold.
#[test]
fn large_frames_do_not_wait_for_those_that_creep() {
    let (_data, broker, mut bystander) = start(&[
        BUDGET,
        "request.receive.timeout.ms=2000",
        "request.receive.min.bytes.per.second=1",
    ]);
    let mut creeping: Vec<_> = (0..6).map(|_| Client::connect(&broker.address)).collect();
    for client in &mut creeping {
        let mut frame = client.frame(9, &produce("bystander", -1, &[]));
        frame.resize(600_000, 0);
        frame[..4].copy_from_slice(&1_900_000i32.to_be_bytes());
        client.stream().set_nonblocking(true).unwrap();
        // Some wait for memory, and take no more for now.
        client.try_send(&frame);
    }
    let large = batch(&[&"x".repeat(200_000)]);
    let stored = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let began = Instant::now();
            while !stored.load(Ordering::SeqCst) && began.elapsed() < PATIENCE {
                for client in &mut creeping {
                    client.try_send(&[0]);
                }
                thread::sleep(Duration::from_millis(200));
            }
        });
        // Who finds no memory in time is closed, as those are, and comes again.
        let deadline = Instant::now() + PATIENCE;
        while !stored.load(Ordering::SeqCst) {
            assert!(Instant::now() < deadline, "no memory for an honest request");
            let mut client = Client::connect(&broker.address);
            client.send(9, &produce("bystander", -1, &large));
            let answered = client.stream().peek(&mut [0]).is_ok_and(|count| count > 0);
            stored.store(answered, Ordering::SeqCst);
        }
    });
    bystander.stored += 1;
    bystander.check();
}

/// Answers that nobody reads keep their memory until somebody else lacks it.
#[test]
fn answers_that_nobody_reads_give_way() {
    let (_data, broker, mut bystander) = start(&[BUDGET, "socket.send.buffer.bytes=16384"]);
    let names: Vec<String> = (0..40).map(|n| format!("t{n}")).collect();
    for name in &names {
        bystander.client.create(name, &[]);
    }
    let request = requests::describe_configs(2, &names);
    let mut deaf: Vec<_> = (0..12).map(|_| narrow(&broker.address)).collect();
    for client in &mut deaf {
        // One after the other, so that making the answers takes no memory from holding them.
        client.send(4, &request);
        let _ = client.stream().peek(&mut [0]);
    }
    broker.expect_log("an answer that is not read");
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "no memory for an honest answer");
        let mut client = narrow(&broker.address);
        client.send(4, &request);
        // So that it never goes out at once.
        thread::sleep(Duration::from_millis(200));
        if read_to_end_of_frame(&mut client) {
            break;
        }
    }
    bystander.check();
}

/// Whether a whole answer comes.
fn read_to_end_of_frame(client: &mut Client) -> bool {
    use std::io::Read;
    let mut length = [0; 4];
    let mut stream = client.stream();
    let read = stream.read_exact(&mut length);
    read.is_ok_and(|()| {
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut answer).is_ok()
    })
}

/// The coordinator counts what it keeps of a member: a join that waits for minutes holds nothing else.
#[test]
fn waiting_joins_hold_none_of_the_memory_of_requests() {
    let settings = [BUDGET, "group.initial.rebalance.delay.ms=600000"];
    let (_data, broker, mut bystander) = start(&settings);
    bystander.client.create_with("wide", 500, &[]);
    let protocol = |n: i32| JoinGroupRequestProtocol {
        name: n.to_string(),
        ..JoinGroupRequestProtocol::default()
    };
    let mut waiting: Vec<_> = (0..2).map(|_| Client::connect(&broker.address)).collect();
    for (number, client) in waiting.iter_mut().enumerate() {
        let find = FindCoordinatorRequest {
            coordinator_keys: vec![format!("g{number}")],
            ..FindCoordinatorRequest::default()
        };
        client.send(4, &find);
        let join = JoinGroupRequest {
            group_id: format!("g{number}"),
            session_timeout_ms: 60_000,
            rebalance_timeout_ms: 600_000,
            protocol_type: "consumer".into(),
            protocols: (0..1800).map(protocol).collect(),
            ..JoinGroupRequest::default()
        };
        client.receive_frame();
        client.send(3, &join);
        // One after the other: while they are read, there is memory for one.
        assert!(client.is_silent(), "it waits");
    }
    let mut request = crate::common::client::list_offsets("wide", -1, -1);
    let asked = request.topics[0].partitions[0].clone();
    request.topics[0].partitions = (0..500)
        .map(|n| {
            let mut asked = asked.clone();
            asked.partition_index = n;
            asked
        })
        .collect();
    let answer: ListOffsetsResponse = bystander.client.call(7, &request);
    assert_eq!(answer.topics[0].partitions.len(), 500);
    bystander.check();
}
