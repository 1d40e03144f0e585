//! Transactions and producers: their snapshots, markers and indexes.

use crate::common::producer::Client;
use crate::common::transactional::committed;
use crate::layout::{Data, Partition, Producer, Segment, Stop, TIME_MS, id, snapshot};
use crate::served;
use ottla::batch::TRANSACTIONAL;
use ottla::batch::builder::Builder;
use ottla::batch::marker::Marker;

/// The batch of one record of a transaction.
fn written(base: i64, producer: i64, sequence: i32, value: &str) -> Vec<u8> {
    let batch = Builder::new(TIME_MS).place(base, 0);
    let batch = batch.producer(producer, 0, sequence);
    let mut batch = batch.attributes(TRANSACTIONAL);
    batch.add(None, Some(value.as_bytes()), &[], TIME_MS);
    batch.build()
}

fn ended(base: i64, producer: i64, commit: bool) -> Vec<u8> {
    let marker = Marker {
        commit,
        coordinator_epoch: 0,
    };
    let mut batch = marker.batch(producer, 0, TIME_MS);
    ottla::batch::set_place(batch.first_chunk_mut().unwrap(), base, 0);
    batch
}

/// Producer 1 commits, 2 aborts, 3 commits again; 4 is not through.
fn transactions() -> Vec<Vec<u8>> {
    vec![
        written(0, 1, 0, "kept"),
        written(1, 2, 0, "aborted"),
        ended(2, 1, true),
        ended(3, 2, false),
        written(4, 3, 0, "kept too"),
        ended(5, 3, true),
        written(6, 4, 0, "open"),
    ]
}

/// With Kafka's index of aborted transactions, and without; what is open was Kafka's, whose coordinator is gone, so it
/// is aborted.
#[test]
fn readers_of_committed_records_see_what_they_saw_with_kafka() {
    for (stop, indexed) in [
        (Stop::Clean, true),
        (Stop::Clean, false),
        (Stop::Unclean, true),
    ] {
        let data = Data::new();
        let all = transactions();
        let mut segment = Segment::of(0, &all);
        if indexed {
            segment.abort(2, 1, 3, 4);
        }
        let a = data.partition("a", 0, id(1));
        a.write(&mut [segment], stop).epochs(&[(0, 0)]);
        let entry = |id, last_offset, transaction_start| Producer {
            id,
            epoch: 0,
            last_sequence: 0,
            last_offset,
            transaction_start,
        };
        let producers = [
            entry(1, 0, -1),
            entry(2, 1, -1),
            entry(3, 4, -1),
            entry(4, 6, 6),
        ];
        if stop == Stop::Clean {
            a.file("00000000000000000007.snapshot", &snapshot(1, &producers));
        }
        let synced = if stop == Stop::Clean { 7 } else { 0 };
        data.stop(stop, &[("a", 0, synced)]);

        let broker = data.start();
        let mut client = Client::connect(&broker.address).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let (values, _) = loop {
            match committed(&mut client, "a").unwrap().unwrap() {
                (values, true) => break (values, true),
                _ if std::time::Instant::now() > deadline => panic!("what is open stays open"),
                _ => std::thread::sleep(std::time::Duration::from_millis(20)),
            }
        };
        assert_eq!(values, ["kept", "kept too"]);
        let (batches, end) = served(&broker, "a", 0, 0);
        assert_eq!(
            (&batches[..7], end),
            (&all[..], 8),
            "and the marker of what was open"
        );
        assert!(broker.stop().success());
    }
}

/// Two producers' batches at 0..6, all acknowledged by Kafka.
fn sequenced() -> Vec<Vec<u8>> {
    let one = |n: i64| {
        let batch = Builder::new(TIME_MS).place(n, 0);
        let mut batch = batch.producer(10 + n % 2, 0, n as i32 / 2);
        batch.add(None, Some(b"value"), &[], TIME_MS);
        batch.build()
    };
    (0..6).map(one).collect()
}

/// Each producer's last batch is a duplicate when it is sent again, and the one after it is not.
#[track_caller]
fn goes_on(data: &Data, partition: &Partition) {
    let before = partition.files(".log");
    let broker = data.start();
    let mut client = Client::connect(&broker.address).unwrap();
    for (producer, last_offset) in [(10, 4), (11, 5)] {
        let mut send = |sequence| {
            let mut batch = Builder::new(TIME_MS).producer(producer, 0, sequence);
            batch.add(None, Some(b"value"), &[], TIME_MS);
            client.produce("t", 0, &batch.build()).unwrap()
        };
        assert_eq!(send(2), Ok(last_offset), "sent again");
        assert_eq!(send(4), Err(45), "out of order");
        assert!(send(3).is_ok(), "the next one");
    }
    let mut client = Client::connect(&broker.address).unwrap();
    assert!(
        client.producer_id().unwrap() > 11,
        "no id is given out twice"
    );
    assert!(broker.stop().success());
    let after = partition.files(".log");
    assert!(
        before
            .iter()
            .all(|(name, old)| after[name].starts_with(old))
    );
}

#[test]
fn snapshots_of_any_age_and_kind_are_used_as_far_as_they_go() {
    let state = |last_sequence, ends: [i64; 2]| -> Vec<Producer> {
        let one = |(id, last_offset)| Producer {
            id,
            epoch: 0,
            last_sequence,
            last_offset,
            transaction_start: -1,
        };
        [(10, ends[0]), (11, ends[1])].map(one).into()
    };
    let (early, late) = (state(0, [0, 1]), state(2, [4, 5]));
    let garbled = |mut bytes: Vec<u8>| {
        bytes[20] ^= 1;
        bytes
    };
    let kinds: [&[(i64, Vec<u8>)]; 7] = [
        &[(6, snapshot(1, &late))],
        &[(2, snapshot(1, &early))],
        &[],
        &[(2, snapshot(1, &early)), (6, garbled(snapshot(1, &late)))],
        &[(2, snapshot(1, &early)), (6, snapshot(2, &late))],
        &[(2, snapshot(1, &early)), (6, Vec::new())],
        // Beyond the end, as a crash leaves it whose log lost its last batches.
        &[
            (2, snapshot(1, &early)),
            (999, snapshot(1, &state(90, [990, 991]))),
        ],
    ];
    for (kind, stop) in kinds
        .iter()
        .flat_map(|k| [(k, Stop::Clean), (k, Stop::Unclean)])
    {
        let data = Data::new();
        let t = data.partition("t", 0, id(1));
        let all = sequenced();
        let mut segments = [Segment::of(0, &all[..2]), Segment::of(2, &all[2..])];
        t.write(&mut segments, stop).epochs(&[(0, 0)]);
        for (at, bytes) in kind.iter() {
            t.file(&format!("{at:020}.snapshot"), bytes);
        }
        let synced = if stop == Stop::Clean { 6 } else { 2 };
        data.stop(stop, &[("t", 0, synced)]);
        goes_on(&data, &t);
    }
}
