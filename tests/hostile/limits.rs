//! The limits that are in force by default, each with small numbers.

use crate::common::client::{Client, PATIENCE, batch, produce};
use crate::common::settings::{BROKER, altered, set};
use crate::start;
use ottla::api::alter_client_quotas::{
    AlterClientQuotasRequest, AlterClientQuotasResponse, EntityData, EntryData, OpData,
};
use ottla::api::find_coordinator::FindCoordinatorRequest;
use ottla::api::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};
use ottla::api::metadata::MetadataRequest;
use socket2::{Domain, Socket, Type};
use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The smallest question: 18 bytes.
const ASK: i16 = 9;

/// A connection from another address of this machine.
fn connect_from(ip: [u8; 4], to: &str) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((ip, 0)).into()).unwrap();
    let to: SocketAddr = to.parse().unwrap();
    socket.connect(&to.into()).expect("the broker accepts");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Whether the broker answers here; it closes the connection otherwise.
fn is_answered(mut stream: &TcpStream, question: &[u8]) -> bool {
    use std::io::Write;
    if stream.write_all(question).is_err() {
        return false;
    }
    match stream.read(&mut [0]) {
        Ok(count) => count == 1,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
        Err(error) => panic!("neither an answer nor the end: {error}"),
    }
}

/// It costs no thread either, and who speaks is not closed.
#[test]
fn a_connection_that_never_speaks_is_closed() {
    let limit = "connection.first.byte.timeout.ms=2000";
    let (_data, broker, mut bystander) = start(&[limit]);
    let threads = broker.status("Threads:");
    let mut silent: Vec<_> = (0..100).map(|_| Client::connect(&broker.address)).collect();
    bystander.check();
    assert_eq!(broker.status("Threads:"), threads);
    let mut speaks = Client::connect(&broker.address);
    assert_eq!(speaks.offset("bystander", -2).error_code, 0);
    silent.iter_mut().for_each(Client::expect_close);
    assert_eq!(speaks.offset("bystander", -2).error_code, 0);
    bystander.check();
}

/// When all seats are taken, who says nothing makes room for who comes later.
#[test]
fn silent_newcomers_make_room() {
    let (_data, broker, mut bystander) = start(&["max.connections=20"]);
    let mut silent: Vec<_> = (0..19).map(|_| Client::connect(&broker.address)).collect();
    let deadline = Instant::now() + PATIENCE;
    let ask = Client::connect(&broker.address).frame(ASK, &MetadataRequest::default());
    // Those that came too early, as this one, are refused.
    while !is_answered(&connect_from([127, 0, 0, 1], &broker.address), &ask) {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(100));
    }
    silent[0].expect_close();
    bystander.check();
}

#[test]
fn some_addresses_have_limits_of_their_own() {
    let overrides = "max.connections.per.ip.overrides";
    let (_data, broker, mut bystander) = start(&[&format!("{overrides}=127.0.0.2:1")]);
    let ask = bystander.client.frame(ASK, &MetadataRequest::default());
    let connect = |last| connect_from([127, 0, 0, last], &broker.address);
    let first = connect(2);
    assert!(is_answered(&first, &ask));
    assert!(!is_answered(&connect(2), &ask));
    let others = [connect(3), connect(3)];
    assert!(others.iter().all(|other| is_answered(other, &ask)));
    let changes = [
        set(overrides, "127.0.0.2:2,127.0.0.3:0"),
        set("max.connections.per.ip", "100"),
    ];
    altered(&mut bystander.client, BROKER, "", &changes);
    assert!(!is_answered(&connect(3), &ask));
    let second = connect(2);
    assert!(is_answered(&second, &ask));
    assert!(!is_answered(&connect(2), &ask));
    assert!(is_answered(&first, &ask));
    bystander.check();
}

/// A hundred at once, ten seconds' worth, and then ten a second: late, but all of them.
#[test]
fn connections_beyond_their_rate_wait() {
    let (_data, broker, mut bystander) = start(&["max.connection.creation.rate=10"]);
    let ask = bystander.client.frame(ASK, &MetadataRequest::default());
    let began = Instant::now();
    let many: Vec<_> = (0..130)
        .map(|_| connect_from([127, 0, 0, 2], &broker.address))
        .collect();
    bystander.check();
    assert!(many.iter().all(|stream| is_answered(stream, &ask)));
    assert!(began.elapsed() >= Duration::from_millis(2500));
    bystander.check();
}

/// KIP-612: the excess of one address is closed, after a while, and others do not notice.
#[test]
fn an_address_is_held_to_its_connection_rate() {
    let (_data, broker, mut bystander) = start(&[]);
    let quota = AlterClientQuotasRequest {
        entries: vec![EntryData {
            entity: vec![EntityData {
                entity_type: "ip".into(),
                entity_name: Some("127.0.0.2".into()),
            }],
            ops: vec![OpData {
                key: "connection_creation_rate".into(),
                value: 1.0,
                remove: false,
            }],
        }],
        validate_only: false,
    };
    let answer: AlterClientQuotasResponse = bystander.client.call(1, &quota);
    assert_eq!(answer.entries[0].error_code, 0);
    let ask = bystander.client.frame(ASK, &MetadataRequest::default());
    let from = |last: u8| -> Vec<TcpStream> {
        let connect = |_| connect_from([127, 0, 0, last], &broker.address);
        (0..100).map(connect).collect()
    };
    let answered = |streams: &[TcpStream]| {
        let answered = streams.iter().filter(|stream| is_answered(stream, &ask));
        answered.count()
    };
    let limited = from(2);
    let free = from(3);
    assert_eq!(answered(&free), 100);
    let answered = answered(&limited);
    assert!((10..100).contains(&answered), "{answered}");
    bystander.check();
}

/// A byte every now and then is not enough for a frame that holds memory.
#[test]
fn a_large_frame_that_trickles_is_closed() {
    let (_data, broker, mut bystander) = start(&[
        "request.receive.timeout.ms=1000",
        "request.receive.min.bytes.per.second=1000000",
    ]);
    let mut client = Client::connect(&broker.address);
    client.send_bytes(&(20i32 << 20).to_be_bytes());
    let began = Instant::now();
    while client.try_send(&[0; 2000]) {
        assert!(began.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(20));
    }
    broker.expect_log("a request that stopped coming");
    bystander.check();
}

/// Half-received frames that hold all the memory that they may, for as long as they like, with one beyond it, and
/// many that wait: requests that are whole do not wait for them.
#[test]
fn small_requests_do_not_wait_for_half_received_ones() {
    let (_data, broker, mut bystander) = start(&[
        "queued.max.request.bytes=2000000",
        "request.receive.timeout.ms=600000",
    ]);
    let mut partial: Vec<_> = (0..40).map(|_| Client::connect(&broker.address)).collect();
    for client in &mut partial {
        let mut frame = client.frame(9, &produce("bystander", -1, &[]));
        frame.resize(200_000, 0);
        frame[..4].copy_from_slice(&1_000_000i32.to_be_bytes());
        client.send_bytes(&frame);
    }
    // What these leave free is less than the smaller frames that follow them.
    let mut short: Vec<_> = (0..20).map(|_| Client::connect(&broker.address)).collect();
    for client in &mut short {
        client.send_bytes(&4093i32.to_be_bytes());
    }
    let whole = batch(&[&"x".repeat(3900)]);
    for _ in 0..20 {
        bystander.client.store("bystander", &whole);
        bystander.stored += 1;
    }
    assert!(partial[..5].iter_mut().all(Client::is_silent));
}

/// A length alone costs so little that all connections may have announced one.
#[test]
fn announced_lengths_leave_room_for_requests() {
    let (_data, broker, mut bystander) = start(&[
        "queued.max.request.bytes=4000000",
        "request.receive.timeout.ms=600000",
    ]);
    let mut announced: Vec<_> = (0..300).map(|_| Client::connect(&broker.address)).collect();
    for client in &mut announced {
        client.send_bytes(&[0, 15, 0, 0, 0]);
    }
    let large = batch(&[&"x".repeat(500_000)]);
    for _ in 0..3 {
        bystander.client.store("bystander", &large);
        bystander.stored += 1;
    }
    bystander.check();
    assert!(announced[..5].iter_mut().all(Client::is_silent));
}

/// As idle as one that never asks.
#[test]
fn a_client_that_never_reads_is_closed() {
    let (_data, broker, mut bystander) = start(&["connections.max.idle.ms=1000"]);
    bystander.client.create_with("t", 1000, &[]);
    let threads = broker.status("Threads:");
    let mut deaf = Client::connect(&broker.address);
    let frame = deaf.frame(12, &MetadataRequest::default());
    (0..2000).all(|_| deaf.try_send(&frame));
    let deadline = Instant::now() + PATIENCE;
    while broker.status("Threads:") > threads {
        assert!(Instant::now() < deadline, "it is still served");
        // Which keeps it from being idle itself.
        bystander.check();
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// One client that lets hundreds of requests wait, and leaves: what waited goes with it.
#[test]
fn parked_requests_leave_with_their_client() {
    let (_data, broker, mut bystander) = start(&["group.initial.rebalance.delay.ms=600000"]);
    let threads = broker.status("Threads:");
    let mut parked: Vec<_> = (0..300).map(|_| Client::connect(&broker.address)).collect();
    for (number, client) in parked.iter_mut().enumerate() {
        let find = FindCoordinatorRequest {
            coordinator_keys: vec![format!("g{number}")],
            ..FindCoordinatorRequest::default()
        };
        client.send(4, &find);
        let join = JoinGroupRequest {
            group_id: format!("g{}", number / 2),
            session_timeout_ms: 60_000,
            rebalance_timeout_ms: 600_000,
            protocol_type: "consumer".into(),
            protocols: vec![JoinGroupRequestProtocol {
                name: "range".into(),
                ..JoinGroupRequestProtocol::default()
            }],
            ..JoinGroupRequest::default()
        };
        client.send(3, &join);
        client.receive_frame();
    }
    (0..5).for_each(|_| bystander.check());
    let mut some = parked.iter_mut().take(5);
    assert!(some.all(Client::is_silent), "they wait");
    assert!(broker.status("VmHWM:") < 100 << 10);
    drop(parked);
    broker.expect_threads(threads);
    bystander.check();
}

/// As Kafka does: the kernel finds out who vanished without a word, even while nothing is sent.
#[test]
fn vanished_clients_are_found_out() {
    let (_data, broker, mut bystander) = start(&[]);
    bystander.check();
    let local = bystander.client.stream().local_addr().unwrap().port();
    let port: u16 = broker.address.rsplit_once(':').unwrap().1.parse().unwrap();
    let ends = |line: &str| {
        let ports = line.split_whitespace().skip(1).take(2);
        let number = |end: &str| u16::from_str_radix(end.rsplit_once(':')?.1, 16).ok();
        ports.filter_map(number).eq([port, local])
    };
    let table = fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
    let line = table.lines().find(|line| ends(line)).expect("its end");
    // The timer that is running: 02 is that of SO_KEEPALIVE.
    let timer = line.split_whitespace().nth(5).unwrap();
    assert!(timer.starts_with("02:"), "{line}");
}
