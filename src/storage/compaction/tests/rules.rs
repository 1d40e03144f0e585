//! Each rule by itself, and what must not shake a pass: damage, bombs, an end in the middle.

use super::*;
use crate::batch::CONTROL;
use crate::storage::testing::{base_of, overwrite};

/// Fills the active segment until it rolls, so that all before it is sealed.
fn seal(world: &mut World) {
    let sealed = world.log().view().closed.len();
    while world.log().view().closed.len() == sealed {
        world.now_ms += 1;
        let mut builder = Builder::new(world.now_ms);
        builder.add(Some(b"filler"), Some(&[7; 200]), &[], world.now_ms);
        append_synced(world.log(), Checked::own(builder.build()));
    }
}

/// Appends one record; gives its offset.
fn put(world: &mut World, key: Option<&[u8]>, value: Option<&[u8]>) -> i64 {
    let mut builder = Builder::new(world.now_ms);
    builder.add(key, value, &[], world.now_ms);
    append_synced(world.log(), Checked::own(builder.build()))
}

fn offsets(world: &mut World) -> Vec<i64> {
    let read = world.read();
    let others = read
        .iter()
        .filter(|(_, t)| t.key.as_deref() != Some(b"filler"));
    others.map(|(offset, _)| *offset).collect()
}

/// KIP-534: a tombstone stays for `delete.retention.ms` after the first pass that saw it.
#[test]
fn tombstones_stay_until_their_horizon() {
    let mut world = World::new(0);
    put(&mut world, Some(b"a"), Some(b"1"));
    put(&mut world, None, Some(b"keyless"));
    let tombstone = put(&mut world, Some(b"a"), None);
    let kept = put(&mut world, Some(b"b"), Some(b"2"));
    seal(&mut world);
    world.now_ms += 1_000_000;
    world.compact(i64::MAX);
    assert_eq!(offsets(&mut world), [tombstone, kept]);
    let stamped = world.bytes();
    let stamped = check_stored(&stamped).unwrap();
    assert_eq!(
        stamped.delete_horizon_ms(),
        Some(world.now_ms + RETENTION_MS)
    );
    world.now_ms += RETENTION_MS - 1;
    world.compact(i64::MAX);
    assert_eq!(offsets(&mut world), [tombstone, kept]);
    world.now_ms += 1;
    world.compact(i64::MAX);
    assert_eq!(offsets(&mut world), [kept]);
}

#[test]
fn an_aborted_transactions_marker_goes_after_its_records() {
    let mut world = World::new(0);
    world.write(10);
    world.end(10, false);
    world.write(11);
    world.end(11, true);
    // Their last batches are others', so that these may go.
    world.write(10);
    world.end(10, true);
    seal(&mut world);
    let markers = |world: &mut World| {
        let bytes = world.bytes();
        let mut rest = &bytes[..];
        let mut markers = Vec::new();
        while let Ok(header) = check_stored(rest) {
            if header.attributes & CONTROL != 0 {
                markers.push((header.producer_id, header.delete_horizon_ms().is_some()));
            }
            rest = &rest[header.total_bytes()..];
        }
        markers
    };
    world.compact(i64::MAX);
    assert_eq!(markers(&mut world), [(10, false), (11, false), (10, false)]);
    world.compact(i64::MAX);
    assert_eq!(markers(&mut world), [(10, true), (11, false), (10, false)]);
    world.now_ms += RETENTION_MS;
    world.compact(i64::MAX);
    assert_eq!(markers(&mut world), [(11, false), (10, false)]);
}

/// Whatever is damaged: an error that names the place, and neither the log nor a file changes.
#[test]
fn a_damaged_batch_ends_the_pass_and_leaves_the_log_alone() {
    let mut world = World::new(7);
    (0..30).for_each(|_| world.anything());
    (10..13).for_each(|id| world.end(id, true));
    seal(&mut world);
    let names = world.rig.names("");
    let file = fs::read(world.rig.log_file(0)).unwrap();
    for at in (0..file.len()).step_by(7) {
        overwrite(&world.rig, 0, at as u64, &[file[at] ^ 0x55]);
        // Base offset and leader epoch are outside the CRC.
        if let Err(failed) = world.pass(i64::MAX) {
            let Failed::Damaged(error) = failed else {
                panic!("{failed:?}");
            };
            let message = error.to_string();
            assert!(
                message.contains("00000000000000000000.log is damaged"),
                "{message}"
            );
            assert_eq!(world.rig.names(""), names);
        }
        world.rig.remove(CLEANED);
        overwrite(&world.rig, 0, at as u64, &file[at..=at]);
    }
}

/// A batch that inflates to more than is held is copied whole, and a tombstone behind it stays: it may be what
/// deletes a record in there.
#[test]
fn a_bomb_is_copied_whole_and_keeps_tombstones_alive() {
    let mut world = World::new(0);
    world.rig.settings.segment_bytes_max = 1 << 20;
    let mut builder = Builder::new(0);
    builder.add(Some(b"a"), Some(&vec![0; RECORDS_BYTES_MAX]), &[], 0);
    let mut body = Vec::new();
    encode::encode(Codec::Gzip, builder.records(), &mut body).unwrap();
    let bomb = Checked::own(builder.build_from(Codec::Gzip, &body));
    let bomb = base_of(world.log().stage(bomb, None, 0, 1000).unwrap());
    world.log().write_staged().unwrap();
    let tombstone = put(&mut world, Some(b"a"), None);
    seal_by(&mut world, 1 << 20);
    for _ in 0..3 {
        world.now_ms += 2 * RETENTION_MS;
        world.compact(i64::MAX);
    }
    let bytes = world.bytes();
    let first = check_stored(&bytes).unwrap();
    assert_eq!((first.base_offset, first.records_count), (bomb, 1));
    let second = check_stored(&bytes[first.total_bytes()..]).unwrap();
    assert_eq!((second.base_offset, second.records_count), (tombstone, 1));
}

fn seal_by(world: &mut World, bytes: usize) {
    let big = vec![1; bytes - 100];
    for _ in 0..2 {
        put(world, Some(b"filler"), Some(&big));
    }
}

/// The caller may end a pass at any of its steps; nothing is left of what was not handed over.
#[test]
fn a_pass_that_is_stopped_leaves_nothing_behind() {
    let mut world = World::new(3);
    (0..60).for_each(|_| world.anything());
    (10..13).for_each(|id| world.end(id, true));
    seal(&mut world);
    let view = world.log().view();
    let dir: Arc<Path> = world.rig.dir.path().into();
    let source = Source {
        view: &view,
        shared: &world.rig.shared,
        dir: &dir,
        settings: &world.rig.settings,
        decoders: &world.rig.decoders,
        now_ms: 0,
        delete_retention_ms: 0,
        first_dirty: 0,
        end: i64::MAX,
        map_bytes_max: 4 << 20,
        map_load_factor: 0.9,
        last_of_producer: &|_| None,
        log_start: &|| 0,
        aborted: &|_| Ok(Vec::new()),
    };
    for steps in 0.. {
        let mut left = steps;
        let mut pace = |_| {
            left -= 1;
            if left < 0 { Err(Stopped) } else { Ok(()) }
        };
        let mut swap = |_: Replacement| {
            world.rig.remove(CLEANED);
            Ok(())
        };
        let result = compact(&source, &mut pace, &mut swap);
        assert_eq!(world.rig.names(CLEANED), Vec::<String>::new());
        match result {
            Ok(_) => break,
            Err(failed) => assert!(matches!(failed, Failed::Stopped)),
        }
    }
}
