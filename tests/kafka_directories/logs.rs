//! Logs: batches, indexes and epochs in every state that Kafka leaves them in.

use crate::common::codecs::{CODECS, compress};
use crate::common::producer::Client;
use crate::layout::{
    Data, Segment, Stop, TIME_MS, batch, emptied, filled, id, lengthen, old_message,
};
use crate::{offset, served};
use ottla::batch::builder::Builder;

/// Batches of three records from `base` on, one of each codec after the other.
fn batches(base: i64, epoch: i32, count: i64) -> Vec<Vec<u8>> {
    let at = |n| Builder::new(TIME_MS + base + 3 * n).place(base + 3 * n, epoch);
    let one = |n: i64| {
        let builder = filled(at(n), base + 3 * n, 3, 500);
        let codec = CODECS[n as usize % CODECS.len()];
        builder.build_from(codec, &compress(codec, builder.records()))
    };
    (0..count).map(one).collect()
}

/// Three segments and three leader epochs, of which the second begins within a segment.
fn three_segments() -> (Vec<Segment>, Vec<Vec<u8>>) {
    let (first, second, third) = (batches(0, 0, 20), batches(60, 0, 20), batches(120, 7, 30));
    let late = batches(210, 9, 20);
    let mut last = Segment::of(120, &third);
    late.iter().for_each(|batch| last.append(batch));
    let segments = vec![Segment::of(0, &first), Segment::of(60, &second), last];
    (segments, [first, second, third, late].concat())
}

#[test]
fn either_stop_leaves_a_log_that_is_served_byte_for_byte() {
    for stop in [Stop::Clean, Stop::Unclean] {
        let data = Data::new();
        let (mut segments, all) = three_segments();
        let t = data.partition("t", 0, id(1));
        t.write(&mut segments, stop);
        t.epochs(&[(0, 0), (7, 120), (9, 210)]);
        let synced = if stop == Stop::Clean { 270 } else { 120 };
        data.stop(stop, &[("t", 0, synced)]);
        let logs = t.files(".log");

        for start in 0..2 {
            let broker = data.start();
            assert_eq!(served(&broker, "t", 0, 0), (all.clone(), 270), "{start}");
            assert_eq!(
                served(&broker, "t", 0, 121).0,
                all[40..],
                "from within a batch"
            );
            let mut client = Client::connect(&broker.address).unwrap();
            for (epoch, end) in [(0, 120), (7, 210), (9, 270)] {
                assert_eq!(client.end_of_epoch("t", 0, epoch).unwrap(), (epoch, end));
            }
            assert_eq!(client.end_of_epoch("t", 0, 8).unwrap(), (7, 210));
            assert_eq!(offset(&broker, "t", TIME_MS + 150), 150, "by time");
            assert!(broker.stop().success());
            assert!(t.files(".log") == logs && t.files(".torn").is_empty());
            assert!(t.files("index").values().all(|index| index.len() < 8192));
        }
    }
}

/// `log.preallocate=true`: the active segment is as long as it may become, and all behind the last batch is zeros.
#[test]
fn a_preallocated_tail_of_zeros_is_given_back() {
    let data = Data::new();
    let (mut segments, all) = three_segments();
    let t = data.partition("t", 0, id(1));
    t.write(&mut segments, Stop::Unclean);
    t.epochs(&[(0, 0), (7, 120), (9, 210)]);
    let whole = t.files(".log");
    lengthen(&t.path("00000000000000000120.log"), 100 << 20);
    data.stop(Stop::Unclean, &[("t", 0, 120)]);

    let broker = data.start();
    assert_eq!(served(&broker, "t", 0, 0), (all, 270));
    assert!(broker.stop().success());
    assert!(t.files(".log") == whole && t.files(".torn").is_empty());
}

/// What the cleaner leaves: holes within segments and between them, a first batch behind its segment's base offset,
/// batches of which only the header is left, and a last batch that ends before the next segment begins.
#[test]
fn holes_and_empty_batches_of_compaction_are_stepped_over() {
    for stop in [Stop::Clean, Stop::Unclean] {
        let data = Data::new();
        let empty = |base| emptied(&filled(producer(base), base, 4, 10).build());
        let first = [
            batch(5, 0, 2, 2000),
            empty(50),
            batch(90, 0, 1, 6000),
            empty(91),
        ];
        let second = [empty(1000), batch(1004, 0, 1, 9000), batch(1500, 0, 3, 10)];
        let third = [batch(9000, 3, 3, 10), empty(9100)];
        let mut segments = [
            Segment::of(0, &first),
            Segment::of(1000, &second),
            Segment::of(2000, &[]),
            Segment::of(8000, &third),
        ];
        let t = data.partition("t", 0, id(1));
        t.write(&mut segments, stop).epochs(&[(0, 0), (3, 9000)]);
        let synced = if stop == Stop::Clean { 9104 } else { 8000 };
        data.stop(stop, &[("t", 0, synced)]);
        data.offsets("cleaner-offset-checkpoint", &[("t", 0, 8000)]);
        let logs = t.files(".log");

        let broker = data.start();
        let all = [&first[..], &second, &third].concat();
        assert_eq!(served(&broker, "t", 0, 0), (all.clone(), 9104));
        for (from, at) in [
            (6, 0),
            (7, 1),
            (54, 2),
            (95, 4),
            (999, 4),
            (1503, 7),
            (9103, 8),
        ] {
            assert_eq!(served(&broker, "t", 0, from).0, all[at..], "from {from}");
        }
        assert_eq!(offset(&broker, "t", -2), 0);
        assert!(!broker.log().contains("lost"), "no gap is reported");
        assert!(broker.stop().success());
        assert!(t.files(".log") == logs && t.files(".quarantine").is_empty());
    }
}

fn producer(base: i64) -> Builder {
    Builder::new(TIME_MS)
        .place(base, 0)
        .producer(12, 0, base as i32)
}

#[test]
fn a_log_start_within_a_batch_is_kept() {
    for stop in [Stop::Clean, Stop::Unclean] {
        let data = Data::new();
        let (mut segments, all) = three_segments();
        let t = data.partition("t", 0, id(1));
        // The first segment went; in the second the start lies in the middle of a batch.
        t.write(&mut segments[1..], stop);
        t.epochs(&[(0, 64), (7, 120), (9, 210)]);
        let synced = if stop == Stop::Clean { 270 } else { 120 };
        data.stop(stop, &[("t", 0, synced)]);
        data.offsets("log-start-offset-checkpoint", &[("t", 0, 64)]);

        let broker = data.start();
        assert_eq!(offset(&broker, "t", -2), 64);
        assert_eq!(served(&broker, "t", 0, 64), (all[21..].to_vec(), 270));
        let mut client = Client::connect(&broker.address).unwrap();
        let below = client.fetch("t", 0, 63, 0).unwrap();
        assert_eq!((below.error_code, below.log_start_offset), (1, 64));
        assert!(broker.stop().success());
    }
}

/// Indexes that a crash left as they never were filled, or that are gone.
#[test]
fn indexes_of_zeros_alone_and_missing_ones_are_made_anew() {
    for stop in [Stop::Clean, Stop::Unclean] {
        let data = Data::new();
        let (mut segments, all) = three_segments();
        let t = data.partition("t", 0, id(1));
        t.write(&mut segments, stop)
            .epochs(&[(0, 0), (7, 120), (9, 210)]);
        let synced = if stop == Stop::Clean { 270 } else { 120 };
        data.stop(stop, &[("t", 0, synced)]);
        t.file("00000000000000000060.index", &[0; 8000]);
        t.file("00000000000000000060.timeindex", &[0; 12_000]);
        t.file("00000000000000000120.index", &[0; 80_000]);
        std::fs::remove_file(t.path("00000000000000000000.timeindex")).unwrap();

        let broker = data.start();
        assert_eq!(served(&broker, "t", 0, 0), (all.clone(), 270));
        assert_eq!(served(&broker, "t", 0, 100).0, all[33..]);
        assert_eq!(offset(&broker, "t", TIME_MS + 90), 90);
        assert!(broker.stop().success());
    }
}

/// Kafka 4 reads no messages of formats 0 and 1 either: their log is not served, and not a byte of it changes.
#[test]
fn a_log_with_messages_of_old_formats_is_left_as_it_is() {
    for (magic, stop) in [(0, Stop::Clean), (1, Stop::Unclean), (1, Stop::Clean)] {
        let data = Data::new();
        let mut segment = Segment::new(0);
        for at in 0..50 {
            segment.append_as(&old_message(at, magic, &[b'x'; 300]), at, TIME_MS + at);
        }
        let newer = batches(50, 0, 10);
        newer.iter().for_each(|batch| segment.append(batch));
        let t = data.partition("t", 0, id(1));
        t.write(&mut [segment], stop).epochs(&[(0, 0)]);
        let other = data.partition("other", 0, id(2));
        other.write(&mut [Segment::of(0, &newer[..0])], stop);
        let synced = if stop == Stop::Clean { 80 } else { 0 };
        data.stop(stop, &[("t", 0, synced), ("other", 0, 0)]);
        let before = t.files("");

        for _ in 0..2 {
            let broker = data.start();
            let log = broker.log();
            let said = log.lines().filter(|line| line.contains("t-0"));
            let said: Vec<&str> = said.filter(|line| line.starts_with("ERROR")).collect();
            let what = format!("messages of format {magic} from byte 0 on");
            assert!(matches!(said[..], [line] if line.contains(&what)), "{log}");
            let mut client = Client::connect(&broker.address).unwrap();
            assert_eq!(client.fetch("t", 0, 0, 0).unwrap().error_code, 56);
            assert_eq!(client.list_offset("other", 0, -1).unwrap(), Ok(0));
            assert!(broker.stop().success());
            for (name, bytes) in &before {
                assert_eq!(t.files("").get(name), Some(bytes), "{name}");
            }
        }
    }
}
