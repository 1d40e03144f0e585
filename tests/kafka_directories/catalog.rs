//! Kafka's own catalog: its log with the quorum's control records, its snapshots, and records of other kinds.

use crate::common::Broker;
use crate::common::producer::Client;
use crate::layout::{Data, Partition, Segment, Stop, TIME_MS, batch, id};
use crate::{described, served};
use ottla::batch::CONTROL;
use ottla::batch::builder::Builder;
use ottla::catalog::METADATA_TOPIC_ID;
use ottla::wire::metadata_records::*;

const LEADER_CHANGE: i16 = 2;
const SNAPSHOT_HEADER: i16 = 3;
const SNAPSHOT_FOOTER: i16 = 4;

fn control(base: i64, epoch: i32, kind: i16, value: &[u8]) -> Vec<u8> {
    let key = [0i16.to_be_bytes(), kind.to_be_bytes()].concat();
    let batch = Builder::new(TIME_MS).place(base, epoch);
    let mut batch = batch.attributes(CONTROL);
    batch.add(Some(&key), Some(value), &[], TIME_MS);
    batch.build()
}

/// Node 1 is elected by itself: version, leader, voters, those who granted it, no tags.
fn elected(base: i64, epoch: i32) -> Vec<u8> {
    let mut value = vec![0, 1, 0, 0, 0, 1, 2, 0, 0, 0, 1];
    value.extend([9; 16]);
    value.extend([0, 1, 0]);
    control(base, epoch, LEADER_CHANGE, &value)
}

fn records(base: i64, epoch: i32, records: &[MetadataRecord]) -> Vec<u8> {
    let mut batch = Builder::new(TIME_MS).place(base, epoch);
    for record in records {
        batch.add(None, Some(&record.encode()), &[], TIME_MS);
    }
    batch.build()
}

/// A broker's registration, which means nothing here.
fn registered() -> MetadataRecord {
    MetadataRecord::Unknown(UnknownRecord {
        key: 0,
        version: 3,
        body: vec![1; 60],
    })
}

fn level() -> MetadataRecord {
    MetadataRecord::FeatureLevel(FeatureLevelRecord {
        name: "metadata.version".into(),
        feature_level: 25,
    })
}

fn topic(name: &str, number: u8, partitions: i32, epoch: i32) -> Vec<MetadataRecord> {
    let mut records = vec![MetadataRecord::Topic(TopicRecord {
        name: name.into(),
        topic_id: id(number),
    })];
    records.push(MetadataRecord::Config(ConfigRecord {
        resource_type: 2,
        resource_name: name.into(),
        name: "max.message.bytes".into(),
        value: Some("12345".into()),
    }));
    records.extend((0..partitions).map(|partition_id| {
        MetadataRecord::Partition(PartitionRecord {
            partition_id,
            topic_id: id(number),
            replicas: vec![1],
            isr: vec![1],
            leader: 1,
            leader_epoch: epoch,
            partition_epoch: 3,
            directories: vec![id(200)],
            ..PartitionRecord::default()
        })
    }));
    records
}

fn removed(number: u8) -> MetadataRecord {
    MetadataRecord::RemoveTopic(RemoveTopicRecord {
        topic_id: id(number),
    })
}

fn ids(next_producer_id: i64) -> MetadataRecord {
    MetadataRecord::ProducerIds(ProducerIdsRecord {
        broker_id: 1,
        broker_epoch: 25,
        next_producer_id,
    })
}

/// A snapshot's file: header, records, footer; each batch's offset is its place.
fn snapshot(all: &[MetadataRecord]) -> Vec<u8> {
    let end = all.len() as i64 + 1;
    [
        control(0, 0, SNAPSHOT_HEADER, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        records(1, 0, all),
        control(end, 0, SNAPSHOT_FOOTER, &[0, 0, 0]),
    ]
    .concat()
}

/// A directory of which `t` is a topic with two partitions, and its catalog's.
fn scene() -> (Data, Partition) {
    let data = Data::new();
    for index in 0..2 {
        let t = data.partition("t", index, id(1));
        let mut segment = Segment::of(0, &[batch(0, 4, 5, 10)]);
        t.write(std::slice::from_mut(&mut segment), Stop::Clean);
        t.epochs(&[(4, 0)]);
    }
    data.stop(Stop::Clean, &[("t", 0, 5), ("t", 1, 5)]);
    let catalog = data.partition("__cluster_metadata", 0, METADATA_TOPIC_ID);
    let state = r#"{"leaderId":1,"leaderEpoch":3,"votedId":-1,"data_version":1}"#;
    catalog.file("quorum-state", state.as_bytes());
    catalog.file(
        "00000000000000000000-0000000000.checkpoint",
        &snapshot(&[level()]),
    );
    (data, catalog)
}

/// The topic has its records and its settings, at this start and the next, and another one can be made beside it.
#[track_caller]
fn is_known(data: &Data, epoch: i32) {
    for start in 0..3 {
        let broker = data.start();
        assert!(!broker.log().contains("ERROR"), "{}", broker.log());
        for index in 0..2 {
            assert_eq!(
                served(&broker, "t", index, 0),
                (vec![batch(0, 4, 5, 10)], 5)
            );
        }
        let mut client = Client::connect(&broker.address).unwrap();
        assert_eq!(client.topic_id("t").unwrap(), Some(id(1)));
        assert_eq!(client.topic_id("gone").unwrap(), None);
        assert_eq!(described(&broker, "t", "max.message.bytes"), "12345");
        let retention = described(&broker, "t", "retention.ms");
        assert_eq!(
            retention, "604800000",
            "the quorum's records are none that are lost"
        );
        assert!(client.producer_id().unwrap() >= 5000);
        match start {
            0 => drop(client.create("new", 1, &[])),
            _ => assert!(client.topic_id("new").unwrap().is_some()),
        }
        let made = batch(0, -1, 1, 10);
        if start == 2 {
            client.produce("t", 1, &made).unwrap().unwrap();
            let last = client.fetch_from("t", 1, 5).unwrap().0.pop().unwrap();
            assert_eq!(last.header.partition_leader_epoch, epoch);
        }
        assert!(broker.stop().success());
    }
}

#[test]
fn a_catalog_with_the_quorums_records_is_read() {
    let (data, catalog) = scene();
    let first = [
        elected(0, 1),
        records(1, 1, &[level(), registered()]),
        records(3, 1, &topic("gone", 2, 1, 0)),
        records(6, 1, &topic("t", 1, 2, 4)),
        elected(10, 2),
    ];
    let change = MetadataRecord::PartitionChange(PartitionChangeRecord {
        partition_id: 1,
        topic_id: id(1),
        leader: 1,
        ..PartitionChangeRecord::default()
    });
    let second = [
        records(11, 2, &[removed(2), ids(5000)]),
        records(13, 2, &[MetadataRecord::NoOp(NoOpRecord {}), change]),
    ];
    let mut segments = [Segment::of(0, &first), Segment::of(11, &second)];
    catalog.write(&mut segments, Stop::Unclean);
    catalog.epochs(&[(1, 0), (2, 10)]);
    is_known(&data, 5);
}

/// Kafka removes what a snapshot holds from the log: then the snapshot is the catalog's beginning.
#[test]
fn a_catalog_whose_beginning_is_a_snapshot_is_read() {
    let (data, catalog) = scene();
    let old = [vec![level()], topic("gone", 2, 1, 0)].concat();
    catalog.file(
        "00000000000000000300-0000000001.checkpoint",
        &snapshot(&old),
    );
    let newest = [vec![level(), registered(), ids(5000)], topic("t", 1, 2, 4)].concat();
    catalog.file(
        "00000000000000000500-0000000003.checkpoint",
        &snapshot(&newest),
    );
    catalog.file("00000000000000000600-0000000003.checkpoint.part", b"half");
    // The topic that was removed before the snapshot is still in the log.
    let log = [
        elected(450, 3),
        records(451, 3, &topic("gone", 2, 1, 0)),
        records(454, 3, &[removed(2)]),
        records(455, 3, &vec![MetadataRecord::NoOp(NoOpRecord {}); 45]),
        records(500, 3, &[MetadataRecord::NoOp(NoOpRecord {})]),
    ];
    catalog.write(&mut [Segment::of(450, &log)], Stop::Unclean);
    catalog.epochs(&[(3, 450)]);
    let checkpoints = catalog.files(".checkpoint");
    is_known(&data, 4);
    assert!(catalog.files(".checkpoint") == checkpoints);
}

/// Without the snapshot the topics are adopted from their directories, whose records no default may take.
#[test]
fn a_catalog_without_its_beginning_costs_settings_and_no_record() {
    let (data, catalog) = scene();
    let log = [elected(450, 3), records(451, 3, &[level()])];
    catalog.write(&mut [Segment::of(450, &log)], Stop::Unclean);
    catalog.file("00000000000000000500-0000000003.checkpoint", b"garbled");
    catalog.file("00000000000000000000-0000000000.checkpoint", b"");
    let broker = data.start();
    let log = broker.log();
    assert!(
        log.contains("records before offset 450 are in no snapshot"),
        "{log}"
    );
    assert!(log.contains("adopted"), "{log}");
    assert_eq!(served(&broker, "t", 1, 0).1, 5);
    is_kept(&broker, "t");
    // Each of the records that are lost may have reserved a block.
    let mut client = Client::connect(&broker.address).unwrap();
    assert!(client.producer_id().unwrap() >= 450_000);
    assert!(broker.stop().success());
}

/// Retention leaves a topic alone.
pub fn is_kept(broker: &Broker, topic: &str) {
    assert_eq!(described(broker, topic, "retention.ms"), "-1");
    assert_eq!(described(broker, topic, "retention.bytes"), "-1");
}
