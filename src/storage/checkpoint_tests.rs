//! Small state: Kafka's bytes, torn, flipped and lost ones.

use super::*;

#[test]
fn the_clean_shutdown_marker_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    assert!(!take_clean_shutdown(dir.path()).unwrap());
    for _ in 0..2 {
        write_clean_shutdown(dir.path()).unwrap();
        assert!(take_clean_shutdown(dir.path()).unwrap());
        assert!(!take_clean_shutdown(dir.path()).unwrap());
    }
}

fn offsets(pairs: &[(&str, i32, i64)]) -> Offsets {
    pairs
        .iter()
        .map(|&(topic, partition, offset)| ((topic.to_owned(), partition), offset))
        .collect()
}

#[test]
fn offsets_are_kafkas_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(RECOVERY_POINTS);
    assert!(read_offsets(&path).unwrap().is_empty());
    let some = offsets(&[("a.b_c-d", 0, 4711), ("x", 12, 0)]);
    write_offsets(&path, &some).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text, "0\n3\na.b_c-d 0 4711\nx 12 0\n#crc32c 0 2040911574\n");
    assert_eq!(read_offsets(&path).unwrap(), some);
    // Kafka's own says nothing of its bytes.
    fs::write(&path, "0\n2\na.b_c-d 0 4711\nx 12 0\n").unwrap();
    assert_eq!(read_offsets(&path).unwrap(), some);
    write_offsets(&path, &Offsets::new()).unwrap();
    assert_eq!(read_offsets(&path).unwrap(), Offsets::new());
}

#[test]
fn a_torn_or_missing_newest_gives_the_previous_generation() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(LOG_STARTS);
    let (old, new) = (offsets(&[("t", 0, 1)]), offsets(&[("t", 0, 22)]));
    write_offsets(&path, &old).unwrap();
    write_offsets(&path, &new).unwrap();
    let whole = fs::read(&path).unwrap();
    for len in 1..whole.len() {
        fs::write(&path, &whole[..len]).unwrap();
        assert_eq!(read_offsets(&path).unwrap(), old, "torn at {len}");
    }
    fs::write(&path, vec![0; whole.len()]).unwrap();
    assert_eq!(read_offsets(&path).unwrap(), old, "zero-filled");
    // The power went between the two renames.
    fs::remove_file(&path).unwrap();
    assert_eq!(read_offsets(&path).unwrap(), old);
}

/// A sector that cannot be read any more: a directory, which cannot be read either, is in the file's place.
#[test]
fn a_newest_that_the_disk_refuses_gives_the_previous_generation() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(META_PROPERTIES);
    let meta = MetaProperties {
        cluster_id: "MkU3OEVBNTcwNTJENDM2Qg".to_owned(),
        node_id: 1,
        directory_id: None,
    };
    write_meta_properties(dir.path(), &meta).unwrap();
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(read_meta_properties(dir.path()).unwrap(), [meta]);
    // Where nothing is known, nothing is made up.
    fs::remove_file(previous(&path)).unwrap();
    assert!(read_meta_properties(dir.path()).is_err());
}

/// Whatever bit of the newest is flipped, it is not believed for something that was never written.
#[test]
fn a_flipped_bit_gives_the_newest_or_the_previous_generation() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(LOG_STARTS);
    let (old, new) = (offsets(&[("t", 0, 1)]), offsets(&[("t", 0, 4711)]));
    write_offsets(&path, &old).unwrap();
    write_offsets(&path, &new).unwrap();
    let meta = MetaProperties {
        cluster_id: "MkU3OEVBNTcwNTJENDM2Qg".to_owned(),
        node_id: 1,
        directory_id: Some(Uuid([7; 16])),
    };
    write_meta_properties(dir.path(), &meta).unwrap();
    let starts_are_right = || {
        let mut read = read_offsets(&path).unwrap();
        // What is left of the line with the CRC is of no partition.
        read.retain(|(topic, _), _| topic == "t");
        read == old || read == new
    };
    let meta_is_right = || {
        let read = read_meta_properties(dir.path()).unwrap();
        !read.is_empty() && read.iter().all(|read| *read == meta)
    };
    let cases: [(&str, &dyn Fn() -> bool); 2] = [
        (LOG_STARTS, &starts_are_right),
        (META_PROPERTIES, &meta_is_right),
    ];
    for (name, is_right) in cases {
        let path = dir.path().join(name);
        let whole = fs::read(&path).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &flipped).unwrap();
            assert!(is_right(), "{name}, bit {bit}");
        }
    }
}

/// strimzi#7484: a full disk while a checkpoint is written must not end the broker, nor lose the old one.
#[test]
fn a_failed_write_keeps_the_old_state() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(LOG_STARTS);
    let old = offsets(&[("t", 0, 1)]);
    write_offsets(&path, &old).unwrap();
    // The temporary file cannot be made: a directory is in its place.
    fs::create_dir(dir.path().join("log-start-offset-checkpoint.tmp")).unwrap();
    assert!(write_offsets(&path, &offsets(&[("t", 0, 2)])).is_err());
    assert_eq!(read_offsets(&path).unwrap(), old);
}

#[test]
fn epochs_must_rise() {
    let dir = tempfile::tempdir().unwrap();
    let at = |epoch, start_offset| EpochStart {
        epoch,
        start_offset,
    };
    write_epochs(dir.path(), &[at(0, 0), at(3, 70)]).unwrap();
    let text = fs::read_to_string(dir.path().join(LEADER_EPOCHS)).unwrap();
    assert_eq!(text, "0\n2\n0 0\n3 70\n");
    assert_eq!(read_epochs(dir.path()).unwrap(), [at(0, 0), at(3, 70)]);
    fs::write(dir.path().join(LEADER_EPOCHS), "0\n2\n3 0\n0 70\n").unwrap();
    assert!(read_epochs(dir.path()).unwrap().is_empty());
}

#[test]
fn topic_id_and_meta_properties_round_trip() {
    let dir = tempfile::tempdir().unwrap();
    let id = Uuid([7; 16]);
    assert_eq!(read_topic_id(dir.path()).unwrap(), None);
    write_topic_id(dir.path(), id).unwrap();
    assert_eq!(read_topic_id(dir.path()).unwrap(), Some(id));
    let meta = MetaProperties {
        cluster_id: "MkU3OEVBNTcwNTJENDM2Qg".to_owned(),
        node_id: 1,
        directory_id: Some(id),
    };
    write_meta_properties(dir.path(), &meta).unwrap();
    let both = [meta.clone(), meta];
    assert_eq!(read_meta_properties(dir.path()).unwrap(), both);
}

#[test]
fn kafkas_own_meta_properties_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let text = "#\n#Mon Nov 23 01:00:00 UTC 2026\ncluster.id=a\\=b\nnode.id=7\nversion=1\n";
    fs::write(dir.path().join(META_PROPERTIES), text).unwrap();
    let meta = read_meta_properties(dir.path()).unwrap().remove(0);
    assert_eq!((meta.cluster_id.as_str(), meta.node_id), ("a=b", 7));
    assert_eq!(meta.directory_id, None);
}
