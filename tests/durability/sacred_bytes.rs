//! Must hold 2: the `.log`'s bytes are the producer's but for base offset and leader epoch, and a consumer's socket
//! receives the `.log`'s.

use crate::common::Broker;
use crate::common::codecs::compress;
use crate::common::producer::{Client, bytes_of, sacred};
use crate::scene::Scene;
use ottla::batch::Header;
use ottla::batch::builder::Builder;
use ottla::compress::Codec;
use std::fs;

const TIME_MS: i64 = 1_700_000_000_000;

/// Batches of every codec, from producers with and without an id, with keys, headers and null values.
fn sent(id: i64) -> Vec<Vec<u8>> {
    let codecs = [
        Codec::None,
        Codec::Gzip,
        Codec::Snappy,
        Codec::Lz4,
        Codec::Zstd,
    ];
    let mut batches = Vec::new();
    let mut sequence = 0;
    for round in 0..3 {
        for codec in codecs {
            let mut builder = Builder::new(TIME_MS);
            if round > 0 {
                builder = builder.producer(id, 0, sequence);
            }
            // The leader epoch that a client puts there is anything.
            builder = builder.place(0, round * 7 - 1);
            for n in 0..20i64 {
                let value = format!(
                    "round {round}, record {n}, {}",
                    "the same words ".repeat(40)
                );
                let value = (n % 7 != 3).then_some(value.as_bytes());
                let headers = [("name", Some(&b"value"[..])), ("empty", None)];
                let headers = &headers[..(n % 3) as usize];
                builder.add((n % 2 == 0).then_some(b"key"), value, headers, TIME_MS + n);
            }
            if round > 0 {
                sequence += 20;
            }
            batches.push(builder.build_from(codec, &compress(codec, builder.records())));
        }
    }
    batches
}

#[test]
fn bytes_are_sacred_from_producer_to_disk_to_consumer() {
    let scene = Scene::new();
    let broker = Broker::start(&scene.data(), &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    client.create("t", 1, &[("segment.bytes", "20000")]);
    let sent = sent(client.producer_id().unwrap());
    let mut expected = Vec::new();
    for (batch, offset) in sent.iter().zip((0..).step_by(20)) {
        assert_eq!(client.produce("t", 0, batch).unwrap(), Ok(offset));
        // Base offset, and leader epoch 0, as it lies behind the length.
        let mut stored = batch.clone();
        stored[..8].copy_from_slice(&i64::to_be_bytes(offset));
        stored[12..16].copy_from_slice(&[0; 4]);
        expected.push(stored);
    }
    let mut logs: Vec<_> = fs::read_dir(scene.data().join("t-0"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    logs.retain(|path| path.extension().is_some_and(|e| e == "log"));
    logs.sort();
    assert!(logs.len() > 2, "several segments: {logs:?}");
    let on_disk: Vec<u8> = logs.iter().flat_map(|log| fs::read(log).unwrap()).collect();
    assert!(on_disk == expected.concat(), "the files hold what was sent");

    let received = client.fetch("t", 0, 0, 0).unwrap();
    assert!(
        bytes_of(&received.records) == on_disk,
        "the socket gives what the files hold"
    );
    // From the middle of each batch on: whole batches, the same bytes.
    for (at, stored) in expected.iter().enumerate() {
        let head = stored.first_chunk().unwrap();
        let middle = Header::parse(head).base_offset + 7;
        let received = client.fetch("t", 0, middle, 0).unwrap();
        assert!(bytes_of(&received.records) == expected[at..].concat());
        assert!(sacred(stored) == sacred(&sent[at]));
    }
}
