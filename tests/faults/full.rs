//! A real filesystem of 3 MiB, filled for real, in a mount namespace of its own: DeleteRecords and retention make room,
//! starts and stops succeed, and records are taken again once there is room, without a restart.

use crate::common::Broker;
use crate::common::producer::{Client, batch};
use crate::common::requests;
use crate::shim::{Fault, Kind, Shim};
use ottla::api::delete_records::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const NAME: &str = "full::a_real_full_disk_is_lived_with";
/// Where the test goes on, once it runs in its namespace.
const INSIDE: &str = "OTTLA_FULL_DISK";
const MARKER: &str = ".kafka_cleanshutdown";
const KAFKA_STORAGE_ERROR: i16 = 56;
/// Neither retention nor anything else that makes room by itself.
const QUIET: [&str; 1] = ["log.retention.check.interval.ms=3600000"];
const PARTITIONS: [&str; 2] = ["kept", "sized"];

#[test]
fn a_real_full_disk_is_lived_with() {
    if let Ok(disk) = std::env::var(INSIDE) {
        return fill(&PathBuf::from(disk));
    }
    let disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mount = |flags: &str, then: &[&str]| {
        let script = "mount -t tmpfs -o size=3m none \"$0\" && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args([flags, "sh", "-c", script]).arg(disk.path());
        command.args(then).env(INSIDE, disk.path());
        command
    };
    // With a user namespace, or as root without one.
    let can = |flags: &&str| {
        let mut probe = mount(flags, &["true"]);
        let status = probe.stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    let Some(flags) = ["-rm", "-m"].into_iter().find(can) else {
        eprintln!("SKIPPED {NAME}: no filesystem may be mounted here");
        return;
    };
    let this = std::env::current_exe().unwrap();
    let this = this.to_str().unwrap();
    let status = mount(flags, &[this, "--exact", NAME, "--nocapture"]).status();
    assert!(status.unwrap().success());
}

/// What was acked, by topic and offset.
#[derive(Default)]
struct Acked(BTreeMap<(&'static str, i64), Vec<u8>>);

impl Acked {
    fn say(&mut self, client: &mut Client, topic: &'static str, bytes: usize) -> Result<(), i16> {
        let value = vec![b'a' + (self.0.len() % 26) as u8; bytes];
        let sent = batch(None, &[&value]);
        let offset = client.produce(topic, 0, &sent).unwrap()?;
        assert_eq!(self.0.insert((topic, offset), value), None);
        Ok(())
    }

    /// Until nothing fits any more, not even a little; then no other error was told than the right one.
    fn fill(&mut self, client: &mut Client) {
        for bytes in [20_000, 1000, 20] {
            for topic in PARTITIONS.into_iter().cycle().take(4000) {
                match self.say(client, topic, bytes) {
                    Ok(()) => {}
                    Err(code) => {
                        assert_eq!(code, KAFKA_STORAGE_ERROR);
                        break;
                    }
                }
            }
        }
        for topic in PARTITIONS {
            while self.say(client, topic, 20).is_ok() {}
        }
    }

    /// All of it is there, from the logs' starts on.
    fn check(&self, client: &mut Client) {
        for topic in PARTITIONS {
            let start = client.list_offset(topic, 0, -2).unwrap().unwrap();
            let (found, _) = client.fetch_from(topic, 0, start).unwrap();
            let found: BTreeMap<i64, &[u8]> = found
                .iter()
                .map(|batch| (batch.header.base_offset, &batch.bytes[..]))
                .collect();
            for ((_, offset), value) in self.0.range((topic, start)..=(topic, i64::MAX)) {
                let batch = found
                    .get(offset)
                    .unwrap_or_else(|| panic!("{topic}: {offset} is gone"));
                assert!(batch.windows(value.len()).any(|part| part == value));
            }
        }
    }

    /// Both topics take a record again, without a restart.
    fn resume(&mut self, client: &mut Client) {
        let began = Instant::now();
        for topic in PARTITIONS {
            // Unlinked files give their room back a moment later.
            while let Err(code) = self.say(client, topic, 1000) {
                assert_eq!(code, KAFKA_STORAGE_ERROR);
                assert!(
                    began.elapsed() < Duration::from_secs(60),
                    "{topic} takes no record"
                );
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

fn delete_records(client: &mut Client, topic: &str, offset: i64) -> i16 {
    let request = requests::delete_records(topic, 0, offset);
    let answer: DeleteRecordsResponse = client.call(2, &request).unwrap();
    answer.topics[0].partitions[0].error_code
}

fn stop(broker: Broker, data: &Path) {
    broker.signal("TERM");
    let mut broker = broker;
    let status = broker.wait();
    assert!(!broker.log().contains("panicked"));
    assert_eq!(status.success(), data.join(MARKER).exists(), "{status}");
}

fn fill(disk: &Path) {
    let (data, mut acked) = (disk.join("data"), Acked::default());
    let broker = Broker::start(&data, &QUIET);
    let mut client = Client::connect(&broker.address).unwrap();
    let common = [("segment.bytes", "100000"), ("file.delete.delay.ms", "0")];
    client.create("kept", 1, &common);
    client.create(
        "sized",
        1,
        &[&common[..], &[("retention.bytes", "300000")]].concat(),
    );
    acked.fill(&mut client);
    acked.check(&mut client);

    // Whoever runs it makes room.
    assert_eq!(
        delete_records(&mut client, "kept", 20),
        0,
        "DeleteRecords on a full disk"
    );
    acked.resume(&mut client);
    assert_eq!(client.list_offset("kept", 0, -2).unwrap(), Ok(20));
    acked.fill(&mut client);
    assert_eq!(delete_records(&mut client, "kept", 30), 0, "and once more");
    acked.resume(&mut client);
    acked.fill(&mut client);
    acked.check(&mut client);

    stop(broker, &data);
    let broker = Broker::start(&data, &QUIET);
    let mut client = Client::connect(&broker.address).unwrap();
    acked.check(&mut client);
    assert_eq!(client.list_offset("kept", 0, -2).unwrap(), Ok(30));
    acked.fill(&mut client);
    broker.kill();

    // Retention makes room.
    let broker = Broker::start(&data, &["log.retention.check.interval.ms=20"]);
    let mut client = Client::connect(&broker.address).unwrap();
    acked.resume(&mut client);
    acked.check(&mut client);
    let began = Instant::now();
    // What the start gave up may be room enough for the first records.
    while client.list_offset("sized", 0, -2).unwrap() == Ok(0) {
        assert!(began.elapsed() < Duration::from_secs(60), "no retention");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(client.list_offset("kept", 0, -2).unwrap(), Ok(30));
    assert!(broker.stop().success(), "with room again a stop is clean");
    assert!(data.join(MARKER).exists());
    println!(
        "full disk: {} records were acked, and none is lost",
        acked.0.len()
    );
}

/// Index files are hints: a start that can neither find nor make them serves the log without.
#[test]
fn a_start_on_a_full_disk_does_without_indexes() {
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (data, shim) = (
        scratch.path().join("data"),
        Shim::new(scratch.path()).unwrap(),
    );
    let mut acked = Acked::default();
    let broker = Broker::start(&data, &QUIET);
    let mut client = Client::connect(&broker.address).unwrap();
    for topic in PARTITIONS {
        client.create(topic, 1, &[("segment.bytes", "3000")]);
        (0..5).for_each(|_| acked.say(&mut client, topic, 1000).unwrap());
    }
    assert!(broker.stop().success());
    for topic in PARTITIONS {
        for entry in fs::read_dir(data.join(format!("{topic}-0"))).unwrap() {
            let path = entry.unwrap().path();
            if path
                .extension()
                .is_some_and(|kind| kind != "log" && kind != "metadata")
            {
                fs::remove_file(path).unwrap();
            }
        }
    }
    let full = Fault {
        kinds: vec![Kind::Append, Kind::Create, Kind::MakeDirectory],
        errno: 28,
        stays: true,
    };
    shim.arm(1, &full).unwrap();
    let broker = Broker::start_with(&data, &QUIET, |command| {
        shim.attach_faults(command, &data).unwrap();
    });
    let mut client = Client::connect(&broker.address).unwrap();
    acked.check(&mut client);
    assert_eq!(
        acked.say(&mut client, "kept", 1000),
        Err(KAFKA_STORAGE_ERROR)
    );
    shim.disarm().unwrap();
    acked.resume(&mut client);
    acked.check(&mut client);
}

/// A topic whose record was committed is there, whatever became of its files; they are made once they can be.
#[test]
fn a_topic_whose_files_could_not_be_made_is_made_without_a_restart() {
    const PATIENCE: Duration = Duration::from_secs(60);
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (data, shim) = (
        scratch.path().join("data"),
        Shim::new(scratch.path()).unwrap(),
    );
    fs::create_dir(&data).unwrap();
    let broker = Broker::start_with(&data, &QUIET, |command| {
        shim.attach_faults(command, &data).unwrap();
    });
    let mut client = Client::connect(&broker.address).unwrap();
    // The second leaves a directory behind.
    for (topic, kind, errno) in [("dir", Kind::MakeDirectory, 28), ("file", Kind::Create, 24)] {
        let fault = Fault {
            kinds: vec![kind],
            errno,
            stays: true,
        };
        shim.arm(1, &fault).unwrap();
        let made = client.try_create(topic, 40, &[]).unwrap();
        assert_eq!(made, Err(KAFKA_STORAGE_ERROR));
        shim.disarm().unwrap();
    }
    let began = Instant::now();
    let say = |client: &mut Client, topic, index| {
        let sent = batch(None, &[b"value"]);
        while let Err(code) = client.produce(topic, index, &sent).unwrap() {
            assert_eq!(code, KAFKA_STORAGE_ERROR);
            assert!(began.elapsed() < PATIENCE, "{topic}-{index} is not made");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    for topic in ["dir", "file"] {
        say(&mut client, topic, 0);
        say(&mut client, topic, 39);
    }
    broker.kill();
    let broker = Broker::start(&data, &QUIET);
    let mut client = Client::connect(&broker.address).unwrap();
    for (topic, index) in [("dir", 0), ("dir", 39), ("file", 0), ("file", 39)] {
        assert_eq!(client.fetch_all(topic, index).len(), 1, "{topic}-{index}");
    }
    let names = fs::read_dir(&data).unwrap().map(|e| e.unwrap().file_name());
    let is_stray = |name: &std::ffi::OsString| name.to_string_lossy().ends_with("-stray");
    assert!(!names.into_iter().any(|name| is_stray(&name)));
    assert!(broker.stop().success());
}
