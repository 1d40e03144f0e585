//! A sync that fails (P6, Must hold 8): the process ends without an acknowledgement, and what it acknowledges after
//! the restart holds even if the disk had lost all that the failed sync covered.

use crate::common::Broker;
use crate::common::producer::{Client, batch};
use crate::scene::{Scene, heard, values_of};
use std::time::Duration;

/// The exit code that says so.
const SYNC_FAILED: i32 = 74;

#[test]
fn a_retry_after_a_failed_sync_is_acked_for_good() {
    let mut scene = Scene::new();
    let mut broker = scene.start(&[]);
    let mut client = Client::connect(&broker.address).unwrap();
    client.create("t", 1, &[]);
    let id = client.producer_id().unwrap();
    let said = |sequence: i32, value: &str| batch(Some((id, sequence)), &[value.as_bytes()]);
    assert_eq!(client.produce("t", 0, &said(0, "first")).unwrap(), Ok(0));
    scene.shim.fail_sync(1).unwrap();
    client
        .produce("t", 0, &said(1, "retried"))
        .expect_err("a failed sync acknowledges nothing");
    assert_eq!(broker.wait().code(), Some(SYNC_FAILED), "{}", broker.log());
    assert!(broker.log().contains("a sync failed"), "{}", broker.log());

    // The page cache still has it: the retry is a duplicate, which only a synced original may answer.
    let broker = scene.start(&[]);
    let mut client = Client::connect(&broker.address).unwrap();
    assert_eq!(
        heard(&mut client, "t", 0),
        ["first", "retried"],
        "read back from the page cache"
    );
    assert_eq!(client.produce("t", 0, &said(1, "retried")).unwrap(), Ok(1));
    broker.kill();

    let image = scene.cut_power();
    let broker = Broker::start(&image, &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    assert_eq!(heard(&mut client, "t", 0), ["first", "retried"]);
    assert_eq!(client.produce("t", 0, &said(2, "last")).unwrap(), Ok(2));
}

/// Killed after the write and before the sync: what the next start shows from the page cache, it has synced.
#[test]
fn what_a_start_shows_survives_a_power_cut_after_it() {
    let mut scene = Scene::new();
    let broker = scene.start(&[]);
    let mut client = Client::connect(&broker.address).unwrap();
    client.create("t", 1, &[("segment.bytes", "200")]);
    let id = client.producer_id().unwrap();
    let said = |sequence: i32, value: &str| batch(Some((id, sequence)), &[value.as_bytes()]);
    assert_eq!(client.produce("t", 0, &said(0, "first")).unwrap(), Ok(0));
    // Longer than the test; the kill ends it.
    scene.shim.set_sync_delay(Duration::from_secs(600)).unwrap();
    // Answered after the write, and so while the sync lasts.
    client
        .send_produce(1, &[("t", 0, &said(1, "second"))])
        .unwrap();
    assert_eq!(client.receive_produce().unwrap()[0].base_offset, 1);
    let data = client.fetch("t", 0, 1, 0).unwrap();
    assert_eq!(data.error_code, 0);
    assert_eq!(data.high_watermark, 1, "nobody sees what is not synced");
    broker.kill();

    scene.shim.set_sync_delay(Duration::ZERO).unwrap();
    let broker = scene.start(&[]);
    let mut client = Client::connect(&broker.address).unwrap();
    assert_eq!(heard(&mut client, "t", 0), ["first", "second"]);
    assert_eq!(client.produce("t", 0, &said(1, "second")).unwrap(), Ok(1));
    broker.kill();
    let image = scene.cut_power();
    let broker = Broker::start(&image, &[]);
    let mut client = Client::connect(&broker.address).unwrap();
    assert_eq!(heard(&mut client, "t", 0), ["first", "second"]);
}

/// What happens until something fails: the values that were acked, in order.
fn story(client: &mut Client, acked: &mut Vec<String>) -> std::io::Result<()> {
    // Segments of two batches, so that rolls are part of the story.
    if client
        .try_create("t", 1, &[("segment.bytes", "200")])?
        .is_err()
    {
        return Ok(());
    }
    let id = client.producer_id()?;
    for sequence in 0..5 {
        let value = format!("value {sequence}");
        match client.produce("t", 0, &batch(Some((id, sequence)), &[value.as_bytes()]))? {
            Ok(_) => acked.push(value),
            Err(_) => return Ok(()),
        }
    }
    Ok(())
}

/// Lets each sync of a short life fail, one after the other: whatever the broker does then, and a restart after it,
/// no acknowledgement is lost, and a start without faults succeeds.
#[test]
fn no_failed_sync_costs_an_acked_record() {
    let mut ended = 0;
    for nth in 1.. {
        let mut scene = Scene::new();
        scene.shim.fail_sync(nth).unwrap();
        let mut acked = Vec::new();
        if let Ok(mut broker) = scene.try_start(&[]) {
            let mut client = Client::connect(&broker.address).unwrap();
            match story(&mut client, &mut acked) {
                Ok(()) => broker.kill(),
                Err(_) => {
                    assert_eq!(
                        broker.wait().code(),
                        Some(SYNC_FAILED),
                        "sync {nth}: {}",
                        broker.log()
                    );
                    ended += 1;
                }
            }
        }
        // What was asked of the disk is not counted where another thread's failure ended the process meanwhile.
        let all_done = scene.shim.faults().unwrap() == 0;
        scene.shim.fail_sync(0).unwrap();
        let broker = scene.start(&[]);
        let mut client = Client::connect(&broker.address).unwrap();
        let mut there = Vec::new();
        if client.list_offset("t", 0, -1).unwrap().is_ok() {
            there = heard(&mut client, "t", 0);
            assert_eq!(
                client.produce("t", 0, &batch(None, &[b"later"])).unwrap(),
                Ok(there.len() as i64)
            );
            there.push("later".into());
        }
        assert!(
            there.starts_with(&acked),
            "sync {nth} failed: acked {acked:?}, there {there:?}"
        );
        broker.kill();
        let image = scene.cut_power();
        let broker = Broker::start(&image, &[]);
        let mut client = Client::connect(&broker.address).unwrap();
        if !there.is_empty() {
            let kept: Vec<String> = client
                .fetch_all("t", 0)
                .iter()
                .flat_map(|b| values_of(&b.bytes))
                .collect();
            assert_eq!(kept, there, "sync {nth} failed, and then the power");
        }
        if all_done {
            eprintln!(
                "failed_sync: {} syncs failed, {ended} ended the process",
                nth - 1
            );
            assert!(ended >= 5, "of the syncs of a log each ends the process");
            return;
        }
    }
}
