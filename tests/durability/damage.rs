//! Damaged logs (P5, L2): a torn tail is cut and kept, rot is set aside, consumers learn of the one and step over the
//! other, and the start needs nobody.

use crate::common::Broker;
use crate::common::producer::{Batch, Client, batch};
use crate::scene::{Scene, heard, names, say};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const BATCHES: i64 = 10;

fn log_of(scene: &Scene) -> PathBuf {
    scene.data().join("t-0/00000000000000000000.log")
}

fn values(count: i64) -> Vec<String> {
    (0..count).map(|n| format!("value {n}")).collect()
}

/// The bytes of the files of a partition that end so, one after the other.
fn kept(scene: &Scene, suffix: &str) -> Vec<u8> {
    let dir = scene.data().join("t-0");
    names(&dir, suffix)
        .iter()
        .flat_map(|name| fs::read(dir.join(name)).unwrap())
        .collect()
}

/// A log of ten batches whose broker was killed, and then `damage`.
fn torn(damage: impl FnOnce(&Path, u64)) -> Scene {
    let scene = Scene::new();
    let broker = Broker::start(&scene.data(), &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    client.create("t", 1, &[]);
    for value in values(BATCHES) {
        say(&mut client, "t", &value).unwrap().unwrap();
    }
    broker.kill();
    let log = log_of(&scene);
    damage(&log, fs::metadata(&log).unwrap().len());
    scene
}

/// The log is whole up to `end`, its epoch has risen, who read on is told, and it goes on; also after another start.
fn is_mended(scene: &Scene, end: i64, epoch: i32) {
    let broker = Broker::start(&scene.data(), &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    assert_eq!(heard(&mut client, "t", 0), values(end));
    assert_eq!(
        client.end_of_epoch("t", 0, 0).unwrap(),
        (0, end),
        "who has read more learns of the cut"
    );
    assert_eq!(say(&mut client, "t", "after").unwrap(), Ok(end));
    let last = client.fetch_all("t", 0).pop().unwrap().header;
    assert_eq!(
        (last.base_offset, last.partition_leader_epoch),
        (end, epoch)
    );
    assert_eq!(
        client.end_of_epoch("t", 0, epoch).unwrap(),
        (epoch, end + 1)
    );
    assert!(broker.stop().success());
    let broker = Broker::start(&scene.data(), &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    assert_eq!(client.fetch_all("t", 0).len() as i64, end + 1);
    assert_eq!(client.end_of_epoch("t", 0, 0).unwrap(), (0, end));
}

#[test]
fn garbage_behind_the_last_batch_is_cut_and_kept() {
    let garbage: Vec<u8> = (0..5000u32).map(|n| (n * 7 % 251 + 1) as u8).collect();
    let scene = torn(|log, _| {
        let mut file = OpenOptions::new().append(true).open(log).unwrap();
        file.write_all(&garbage).unwrap();
    });
    is_mended(&scene, BATCHES, 1);
    assert!(kept(&scene, ".torn") == garbage);
}

#[test]
fn a_batch_that_ends_early_is_cut_and_kept() {
    for missing in [1, 8, 60] {
        let mut rest = Vec::new();
        let scene = torn(|log, len| {
            let batch_bytes = len / BATCHES as u64;
            OpenOptions::new()
                .write(true)
                .open(log)
                .unwrap()
                .set_len(len - missing)
                .unwrap();
            rest = fs::read(log)
                .unwrap()
                .split_off((len - batch_bytes) as usize);
        });
        is_mended(&scene, BATCHES - 1, 1);
        assert!(kept(&scene, ".torn") == rest, "{missing} bytes missing");
    }
}

#[test]
fn zeros_are_cut_and_not_kept() {
    // A length that reached the disk without its bytes.
    let scene = torn(|log, len| {
        OpenOptions::new()
            .write(true)
            .open(log)
            .unwrap()
            .set_len(len + 10_000)
            .unwrap();
    });
    is_mended(&scene, BATCHES, 1);
    assert_eq!(names(&scene.data().join("t-0"), ".torn"), [""; 0]);
    // Pages that did not, the last three batches among them.
    let scene = torn(|log, len| {
        let from = len - 3 * (len / BATCHES as u64);
        let file = OpenOptions::new().write(true).open(log).unwrap();
        file.write_all_at(&vec![0; (len - from) as usize], from)
            .unwrap();
    });
    is_mended(&scene, BATCHES - 3, 1);
    assert_eq!(names(&scene.data().join("t-0"), ".torn"), [""; 0]);
}

/// A bad batch with good ones behind it, all of them in one turn's reach: written together, torn together.
#[test]
fn a_hole_in_the_last_turn_is_a_tear() {
    let scene = torn(|log, len| {
        let from = len - 3 * (len / BATCHES as u64);
        OpenOptions::new()
            .write(true)
            .open(log)
            .unwrap()
            .write_all_at(b"x", from + 65)
            .unwrap();
    });
    is_mended(&scene, BATCHES - 3, 1);
}

const LARGE_BATCHES: i32 = 16;

/// The rotten log: eight megabytes, of which a byte near the start went bad, further back than anything unsynced ever
/// was. The batch that rots is the second one of a producer that sends little.
struct Rotten {
    scene: Scene,
    writer: i64,
    other: i64,
    /// The bytes of the batch that rotted.
    batch: Vec<u8>,
}

fn large(n: i32) -> Vec<u8> {
    vec![b'a' + n as u8; 500_000]
}

fn rotten() -> Rotten {
    let scene = Scene::new();
    let broker = Broker::start(&scene.data(), &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    client.create("t", 1, &[]);
    let (writer, other) = (client.producer_id().unwrap(), client.producer_id().unwrap());
    let mut send = |id, sequence, value: &[u8]| {
        let sent = client.produce("t", 0, &batch(Some((id, sequence)), &[value]));
        sent.unwrap().unwrap();
        fs::metadata(log_of(&scene)).unwrap().len()
    };
    send(other, 0, b"seen");
    let from = send(writer, 0, &large(0));
    let to = send(other, 1, &large(1));
    for n in 1..LARGE_BATCHES {
        send(writer, n, &large(n));
    }
    broker.kill();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(log_of(&scene))
        .unwrap();
    file.write_all_at(b"?", from + 100_000).unwrap();
    let mut batch = vec![0; (to - from) as usize];
    file.read_exact_at(&mut batch, from).unwrap();
    Rotten {
        scene,
        writer,
        other,
        batch,
    }
}

/// The offsets of what is left have not moved, a consumer in the gap steps over it, and the evidence is kept.
fn gap_is_stepped_over(rotten: &Rotten, client: &mut Client) {
    let offsets = |batches: Vec<Batch>| {
        batches
            .iter()
            .map(|b| b.header.base_offset)
            .take(3)
            .collect::<Vec<_>>()
    };
    assert_eq!(offsets(client.fetch_all("t", 0)), [0, 1, 3]);
    assert_eq!(offsets(client.fetch_from("t", 0, 2).unwrap().0), [3, 4, 5]);
    assert!(kept(&rotten.scene, ".quarantine") == rotten.batch);
}

#[test]
fn rot_is_set_aside_and_stepped_over() {
    let rotten = rotten();
    let end = i64::from(LARGE_BATCHES) + 2;
    let broker = Broker::start(&rotten.scene.data(), &[]);
    assert!(
        broker.log().contains("offsets 2..3 are lost"),
        "{}",
        broker.log()
    );
    let mut client = Client::connect(&broker.address).unwrap();
    gap_is_stepped_over(&rotten, &mut client);
    let mut send = |id, sequence, value: &[u8]| {
        let sent = client.produce("t", 0, &batch(Some((id, sequence)), &[value]));
        sent.unwrap()
    };
    let last = LARGE_BATCHES - 1;
    assert_eq!(
        send(rotten.writer, last, &large(last)),
        Ok(end - 1),
        "a duplicate is known as one"
    );
    assert_eq!(
        send(rotten.other, 2, b"third"),
        Ok(end),
        "a producer with a batch in the gap goes on"
    );
    assert_eq!(send(rotten.writer, last + 1, b"next"), Ok(end + 1));
    assert!(broker.stop().success());

    let broker = Broker::start(&rotten.scene.data(), &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    gap_is_stepped_over(&rotten, &mut client);
    broker.kill();
    let broker = Broker::start(&rotten.scene.data(), &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    gap_is_stepped_over(&rotten, &mut client);
    assert_eq!(client.list_offset("t", 0, -1).unwrap(), Ok(end + 2));
}
