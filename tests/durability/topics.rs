//! Topics that are made, deleted and made again, cut off at every change of the disk (L6, L9): a topic exists wholly
//! or not at all, a recreated one never shows old data, and what no catalog knows is adopted, never deleted.

use crate::common::Broker;
use crate::common::producer::{Client, batch};
use crate::power::cut_everywhere;
use crate::scene::{Scene, copy_dir, heard, names, wait_until};
use ottla::api::create_topics::{CreatableTopic, CreateTopicsRequest, CreateTopicsResponse};
use ottla::api::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use ottla::wire::Uuid;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// One thing that was answered.
#[derive(Clone)]
enum Event {
    Created(Uuid),
    Said(&'static str),
    Deleted,
}

/// The topic as the answers make it.
#[derive(Clone, Default, PartialEq)]
struct Topic {
    id: Option<Uuid>,
    said: Vec<String>,
}

impl Topic {
    fn after(mut self, event: &Event) -> Topic {
        match event {
            Event::Created(id) => self.id = Some(*id),
            Event::Said(value) => self.said.push((*value).into()),
            Event::Deleted => self = Topic::default(),
        }
        self
    }
}

/// Makes the topic, fills it, deletes it, and makes and fills it again; each answer with the length that the record
/// of changes had then.
fn live(scene: &mut Scene) -> Vec<(u64, Event)> {
    let broker = scene.start(&[]);
    let changes = scene.changes(1);
    let mut client = Client::connect(&broker.address).unwrap();
    let mut events = Vec::new();
    for values in [["old 0", "old 1"], ["new 0", "new 1"]] {
        let mut note = |event| events.push((fs::metadata(&changes).unwrap().len(), event));
        note(Event::Created(client.create(
            "t",
            2,
            &[("segment.bytes", "100")],
        )));
        for value in values {
            for index in 0..2 {
                let said = client.produce("t", index, &batch(None, &[value.as_bytes()]));
                said.unwrap().unwrap();
            }
            note(Event::Said(value));
        }
        if values[0] == "old 0" {
            assert_eq!(client.delete("t").unwrap(), 0);
            note(Event::Deleted);
        }
    }
    assert!(broker.stop().success());
    events
}

/// Starts on what a cut left: the topic is as the answers before the cut say, or as the next one would have said.
fn check(image: &Path, cut: u64, events: &[(u64, Event)]) {
    let quiet = |command: &mut Command| {
        command.env("RUST_LOG", "warn");
    };
    let start = || Broker::start_with(image, &[], quiet);
    let broker = start();
    let mut client = Client::connect(&broker.address).unwrap();
    let answered = events.iter().take_while(|(at, _)| *at <= cut).count();
    let before = events[..answered]
        .iter()
        .fold(Topic::default(), |topic, (_, e)| topic.after(e));
    let next = events
        .get(answered)
        .map(|(_, event)| before.clone().after(event));
    let after = next.unwrap_or_else(|| before.clone());
    let id = client.topic_id("t").unwrap();
    assert!(
        id == before.id || id == after.id,
        "{id:?} is neither {:?} nor {:?}",
        before.id,
        after.id
    );
    if id.is_some() {
        let (least, most) = match (before.id == id, after.id == id) {
            (true, true) => (&before.said, &after.said),
            (true, false) => (&before.said, &before.said),
            _ => (&after.said, &after.said),
        };
        for index in 0..2 {
            let there = heard(&mut client, "t", index);
            assert!(
                there.starts_with(least) && most.starts_with(&there),
                "{index}: {there:?}, {least:?} to {most:?}"
            );
        }
        assert_eq!(client.delete("t").unwrap(), 0);
    }
    let said = batch(None, &[b"again"]);
    let again = client.create("t", 2, &[]);
    assert_eq!(
        client.produce("t", 0, &said).unwrap(),
        Ok(0),
        "made again, it is empty"
    );
    assert_eq!(
        heard(&mut client, "guest", 0),
        ["was here"],
        "moved in from elsewhere"
    );
    if !cut.is_multiple_of(3) {
        return;
    }
    broker.kill();
    let broker = start();
    let mut client = Client::connect(&broker.address).unwrap();
    assert_eq!(client.topic_id("t").unwrap(), Some(again));
    assert_eq!(heard(&mut client, "t", 0), ["again"]);
    assert_eq!(heard(&mut client, "guest", 0), ["was here"]);
    assert!(broker.stop().success());
    assert_eq!(names(image, "-delete"), [""; 0], "what was deleted is gone");
    assert_eq!(names(image, "-stray"), [""; 0]);
    assert!(image.join("nobodys-0/file").exists());
}

/// A topic of another data directory, whose record this catalog never read, and a directory of nobody.
fn move_in(scene: &mut Scene) {
    let elsewhere = scene.path("elsewhere");
    let broker = Broker::start(&elsewhere, &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    client.create("guest", 1, &[]);
    client
        .produce("guest", 0, &batch(None, &[b"was here"]))
        .unwrap()
        .unwrap();
    assert!(broker.stop().success());
    copy_dir(&elsewhere.join("guest-0"), &scene.data().join("guest-0"));
    fs::create_dir(scene.data().join("nobodys-0")).unwrap();
    fs::write(scene.data().join("nobodys-0/file"), "left alone").unwrap();
    scene.load();
}

#[test]
fn a_topic_exists_wholly_or_not_at_all_wherever_the_power_is_cut() {
    let mut scene = Scene::new();
    move_in(&mut scene);
    cut_everywhere("topics", scene, live, check);
}

/// A deletion that was cut off before its directory was renamed: `t` was deleted, and made again or not; its old
/// directory is put back. Whatever the broker does about that, a topic of that name has no part in it.
fn with_the_old_directory_back(made_again: bool) -> Scene {
    let scene = Scene::new();
    let broker = Broker::start(&scene.data(), &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    client.create("t", 1, &[]);
    client
        .produce("t", 0, &batch(None, &[b"old"]))
        .unwrap()
        .unwrap();
    let (there, kept) = (scene.data().join("t-0"), scene.path("kept"));
    copy_dir(&there, &kept);
    assert_eq!(client.delete("t").unwrap(), 0);
    if made_again {
        client.create("t", 1, &[]);
    }
    broker.kill();
    if made_again {
        fs::remove_dir_all(&there).unwrap();
    }
    copy_dir(&kept, &there);
    // Long to unlink.
    for number in 0..3000 {
        fs::write(there.join(format!("{number}.torn")), "").unwrap();
    }
    scene
}

#[test]
fn a_deletion_that_is_finished_at_the_next_start_leaves_a_new_topic_alone() {
    for made_again in [false, true] {
        let scene = with_the_old_directory_back(made_again);
        let broker = Broker::start(&scene.data(), &[]);
        let mut client = Client::connect(&broker.address).unwrap();
        if !made_again {
            client.create("t", 1, &[]);
        }
        assert_eq!(
            client.produce("t", 0, &batch(None, &[b"new"])).unwrap(),
            Ok(0)
        );
        assert_eq!(heard(&mut client, "t", 0), ["new"]);
        wait_until(|| names(&scene.data(), "-delete").is_empty());
        broker.kill();
        let broker = Broker::start(&scene.data(), &[]);
        let mut client = Client::connect(&broker.address).unwrap();
        assert_eq!(heard(&mut client, "t", 0), ["new"]);
        assert_eq!(
            names(&scene.data(), "-stray"),
            [""; 0],
            "nothing was in the way"
        );
    }
}

/// The longest legal name leaves no room for a suffix within a filesystem's 255 bytes.
#[test]
fn a_topic_with_the_longest_name_is_deleted_and_made_again() {
    let scene = Scene::new();
    let broker = Broker::start(&scene.data(), &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    let name = "n".repeat(249);
    for value in ["old", "new"] {
        client.create(&name, 1, &[]);
        client
            .produce(&name, 0, &batch(None, &[value.as_bytes()]))
            .unwrap()
            .unwrap();
        assert_eq!(heard(&mut client, &name, 0), [value]);
        assert_eq!(client.delete(&name).unwrap(), 0);
        assert!(!scene.data().join(format!("{name}-0")).exists());
    }
    assert!(broker.stop().success());
    assert_eq!(names(&scene.data(), "-stray"), [""; 0]);
}

/// Checkpoints know topics by name: what they say of a deleted topic must not be believed of the next of that name.
#[test]
fn a_new_topic_does_not_inherit_the_checkpoints_of_an_old_one() {
    let scene = Scene::new();
    let broker = Broker::start(&scene.data(), &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    client.create("t", 1, &[("segment.bytes", "100")]);
    for _ in 0..10 {
        client
            .produce("t", 0, &batch(None, &[b"old"]))
            .unwrap()
            .unwrap();
    }
    assert!(broker.stop().success());
    // As retention would: the log starts at 5.
    for name in names(&scene.data().join("t-0"), "") {
        if name
            .split('.')
            .next()
            .and_then(|base| base.parse().ok())
            .is_some_and(|base: i64| base < 5)
        {
            fs::remove_file(scene.data().join("t-0").join(name)).unwrap();
        }
    }
    assert!(Broker::start(&scene.data(), &[]).stop().success());
    let starts = fs::read_to_string(scene.data().join("log-start-offset-checkpoint")).unwrap();
    assert!(starts.contains("t 0 5\n"), "{starts}");

    let broker = Broker::start(&scene.data(), &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    assert_eq!(client.delete("t").unwrap(), 0);
    client.create("t", 1, &[]);
    client
        .produce("t", 0, &batch(None, &[b"new"]))
        .unwrap()
        .unwrap();
    broker.kill();
    let broker = Broker::start(&scene.data(), &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    assert_eq!(client.list_offset("t", 0, -2).unwrap(), Ok(0));
    assert_eq!(heard(&mut client, "t", 0), ["new"]);
}

/// A member whose heartbeat waits for thousands of partitions would lose its place.
#[test]
fn groups_are_served_while_partitions_are_made() {
    let mut scene = Scene::new();
    let broker = scene.start(&[]);
    let [mut maker, mut member] = [(); 2].map(|()| Client::connect(&broker.address).unwrap());
    scene
        .shim
        .set_sync_delay(Duration::from_millis(20))
        .unwrap();
    let topic = |i| CreatableTopic {
        name: format!("t{i}"),
        num_partitions: 100,
        replication_factor: 1,
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest {
        topics: (0..10).map(topic).collect(),
        timeout_ms: 30_000,
        ..CreateTopicsRequest::default()
    };
    maker.send(7, &request).unwrap();
    let made = |name: &str| scene.data().join(name).exists();
    wait_until(|| made("t0-0"));
    let heartbeat = HeartbeatRequest {
        group_id: "g".into(),
        member_id: "m".into(),
        ..HeartbeatRequest::default()
    };
    let heard: HeartbeatResponse = member.call(4, &heartbeat).unwrap();
    assert_eq!(heard.error_code, 25);
    assert!(!made("t9-99"), "all were made before the group was heard");
    let answer: CreateTopicsResponse = maker.receive(7).unwrap();
    assert!(answer.topics.iter().all(|topic| topic.error_code == 0));
    let said = member.produce("t9", 99, &batch(None, &[b"x"]));
    assert_eq!(said.unwrap(), Ok(0));
}

/// A kill comes while a topic's files wait for their first sync. The next start finds them in the page cache, and what
/// it shows must survive a power cut (P6).
#[test]
fn what_a_killed_creation_left_in_the_page_cache_is_synced_by_the_next_start() {
    let mut scene = Scene::new();
    let broker = scene.start(&[]);
    let slow = Duration::from_millis(500);
    scene.shim.set_sync_delay(slow).unwrap();
    let address = broker.address.clone();
    let asking = std::thread::spawn(move || {
        // The broker is killed before it can answer.
        let _ = Client::connect(&address).unwrap().try_create("t", 1, &[]);
    });
    let directory = scene.data().join("t-0");
    wait_until(|| directory.join("leader-epoch-checkpoint").exists());
    broker.kill();
    asking.join().unwrap();
    scene.shim.set_sync_delay(Duration::ZERO).unwrap();
    scene.start(&[]).kill();
    let image = scene.cut_power();
    for name in ["partition.metadata", "leader-epoch-checkpoint"] {
        let shown = fs::read(directory.join(name)).unwrap();
        assert!(!shown.is_empty());
        assert_eq!(fs::read(image.join("t-0").join(name)).unwrap(), shown);
    }
    Broker::start(&image, &[]);
}
