//! Frames that are none, or whose insides do not add up.

use crate::common::client::{Client, batch, produce};
use crate::start;
use ottla::api::APIS;
use ottla::api::metadata::MetadataRequest;

/// What a stranger sends, and the line that says so.
const STRANGERS: [(&[u8], &str); 8] = [
    (
        b"GET / HTTP/1.1\r\nHost: kafka\r\n\r\n",
        "an HTTP client on a Kafka port",
    ),
    (
        b"POST /topics HTTP/1.1\r\n\r\n",
        "an HTTP client on a Kafka port",
    ),
    (
        &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3],
        "a TLS client on a plaintext Kafka port",
    ),
    (b"SSH-2.0-OpenSSH_9.6\r\n", "a frame of 1397966893 bytes"),
    (&[0xff; 64], "a frame of negative length"),
    (&[0, 0, 0, 0], "a frame too short for a request"),
    (&[0, 0, 0, 1, 7], "a frame too short for a request"),
    (&[0, 0, 0, 4, 0, 3, 0, 1], "a request's header"),
];

#[test]
fn strangers_are_named_and_their_connections_closed() {
    let (_data, broker, mut bystander) = start(&[]);
    for (bytes, line) in STRANGERS {
        let mut stranger = Client::connect(&broker.address);
        stranger.send_bytes(bytes);
        stranger.expect_close();
        broker.expect_log(line);
        bystander.check();
    }
}

#[test]
fn a_frame_beyond_the_limit_is_refused_at_its_length() {
    let (_data, broker, mut bystander) = start(&["socket.request.max.bytes=200000"]);
    for length in [200_001, i32::MAX] {
        let mut client = Client::connect(&broker.address);
        client.send_bytes(&length.to_be_bytes());
        client.expect_close();
        broker.expect_log(&format!("a frame of {length} bytes"));
    }
    let mut client = Client::connect(&broker.address);
    let whole = client.frame(
        9,
        &produce("bystander", -1, &batch(&[&"x".repeat(199_800)])),
    );
    assert!(whole.len() <= 200_004);
    client.send_bytes(&whole);
    client.receive_frame();
    bystander.stored += 1;
    bystander.check();
}

/// One peer dies of it: 30 bytes that announce 2^31-1 topics (CVE-2022-34917, KP PR#152).
#[test]
fn absurd_counts_are_refused_before_anything_is_allocated() {
    let (_data, broker, mut bystander) = start(&[]);
    let before = broker.status("VmHWM:");
    for (version, count) in [
        (1i16, &[0x7f, 0xff, 0xff, 0xff][..]),
        (1, &[0x00, 0x10, 0x00, 0x01]),
        (9, &[0, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        (9, &[0, 0xff, 0xff, 0xff, 0xff, 0xff]),
        (9, &[0, 0x80, 0x80, 0x80, 0x80, 0x08]),
    ] {
        let mut client = Client::connect(&broker.address);
        let mut frame = client.frame(version, &MetadataRequest::default());
        frame.truncate(4 + 8 + 5);
        frame.extend(count);
        frame.extend([1; 9]);
        let length = frame.len() as i32 - 4;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        client.send_bytes(&frame);
        client.expect_close();
        broker.expect_log(&format!("MetadataRequest version {version}: "));
    }
    let grown = broker.status("VmHWM:") - before;
    assert!(grown < 8 << 10, "{grown} KiB");
    bystander.check();
}

/// Each version of each API with insides of all ones, all zeros, large counts, and chance (a fixed seed).
#[test]
fn garbage_inside_a_right_header_is_answered_or_ends_the_connection() {
    let (_data, broker, mut bystander) = start(&["auto.create.topics.enable=false"]);
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut chance = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 32) as u8
    };
    for api in APIS {
        for version in api.versions.clone() {
            let garbage: Vec<u8> = (0..200).map(|_| chance() & chance()).collect();
            let fills = [
                vec![0xff; 60],
                vec![0; 60],
                vec![0x7f; 60],
                vec![1; 60],
                garbage,
            ];
            for fill in fills {
                let mut client = Client::connect(&broker.address);
                let mut frame = vec![0; 4];
                frame.extend(api.key.to_be_bytes());
                frame.extend(version.to_be_bytes());
                frame.extend([0, 0, 0, 1, 0xff, 0xff]);
                frame.extend(fill);
                let length = frame.len() as i32 - 4;
                frame[..4].copy_from_slice(&length.to_be_bytes());
                client.send_bytes(&frame);
                // A long poll may have come of it, so the answer is not waited for.
            }
        }
        bystander.check();
    }
    assert!(broker.status("VmHWM:") < 100 << 10);
}

/// A frame that ends too early, at each of its bytes.
#[test]
fn truncated_requests_are_refused() {
    let (_data, broker, mut bystander) = start(&[]);
    let whole = bystander
        .client
        .frame(9, &produce("bystander", -1, &batch(&["x"])));
    for length in 1..whole.len() - 4 {
        let mut client = Client::connect(&broker.address);
        let mut frame = (length as i32).to_be_bytes().to_vec();
        frame.extend(&whole[4..4 + length]);
        client.send_bytes(&frame);
        client.expect_close();
    }
    bystander.check();
}

/// A client that leaves in the middle of a frame, at each of its bytes.
#[test]
fn a_client_that_leaves_in_the_middle_leaves_nothing_behind() {
    let (_data, broker, mut bystander) = start(&[]);
    let before = broker.status("Threads:");
    let whole = bystander
        .client
        .frame(9, &produce("bystander", -1, &batch(&["x"])));
    for length in 1..whole.len() {
        Client::connect(&broker.address).send_bytes(&whole[..length]);
    }
    broker.expect_threads(before);
    bystander.check();
}
