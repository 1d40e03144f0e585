//! A step's records are one batch of the log, and rot may take any of them.

use super::*;
use std::collections::BTreeSet;

/// A client as it goes by the answers: what it was told last.
#[derive(Clone)]
struct Client {
    id: &'static str,
    by_pattern: bool,
    epoch: i32,
    owned: Vec<i32>,
}

impl Client {
    fn new(id: &'static str, by_pattern: bool) -> Client {
        Client {
            id,
            by_pattern,
            epoch: 0,
            owned: Vec::new(),
        }
    }

    /// One heartbeat; one that is refused begins anew.
    fn beat(&mut self, bench: &mut Bench) {
        let answer = match self.epoch {
            0 if self.by_pattern => bench.send(ConsumerGroupHeartbeatRequest {
                subscribed_topic_names: Some(Vec::new()),
                subscribed_topic_regex: Some("a".to_owned()),
                ..joining(self.id)
            }),
            0 => bench.send(joining(self.id)),
            epoch => bench.owns(self.id, epoch, &self.owned),
        };
        if answer.error_code != 0 {
            *self = Client::new(self.id, self.by_pattern);
            return;
        }
        self.epoch = answer.member_epoch;
        if let Some(topics) = given(&answer) {
            let of_a = topics.iter().flat_map(|topic| topic.partitions.clone());
            self.owned = of_a.collect();
        }
    }
}

/// Each step's records, and the members that are there at the end.
fn lived(by_pattern: bool) -> (Bench, Vec<Vec<Record>>, Vec<Client>) {
    let mut bench = Bench::new();
    let [mut m, mut n, mut o] = ["m", "n", "o"].map(|id| Client::new(id, by_pattern));
    let mut batches = Vec::new();
    let mut step = |bench: &mut Bench, act: &mut dyn FnMut(&mut Bench)| {
        let before = bench.log.len();
        act(bench);
        batches.push(bench.log[before..].to_vec());
    };
    for _ in 0..3 {
        step(&mut bench, &mut |bench| m.beat(bench));
    }
    for _ in 0..3 {
        step(&mut bench, &mut |bench| n.beat(bench));
        step(&mut bench, &mut |bench| m.beat(bench));
    }
    for _ in 0..3 {
        step(&mut bench, &mut |bench| o.beat(bench));
        step(&mut bench, &mut |bench| n.beat(bench));
        step(&mut bench, &mut |bench| m.beat(bench));
    }
    step(&mut bench, &mut |bench| drop(bench.beat("n", -1)));
    // Patterns are looked up again.
    bench.make("c", 1);
    bench.now_ms += 11_000;
    for _ in 0..3 {
        step(&mut bench, &mut |bench| o.beat(bench));
        step(&mut bench, &mut |bench| m.beat(bench));
    }
    batches.retain(|batch| !batch.is_empty());
    (bench, batches, vec![m, o])
}

/// Heartbeats until nothing moves; says whether the members have every partition, each with one of them.
fn settles(bench: &mut Bench, clients: &mut [Client]) -> bool {
    for _ in 0..24 {
        clients.iter_mut().for_each(|client| client.beat(bench));
        bench.now_ms += 5_000;
        while bench.group.due_ms().is_some_and(|at| at <= bench.now_ms) {
            bench.step(Event::Due);
        }
    }
    let mut read: Vec<i32> = clients.iter().flat_map(|c| c.owned.clone()).collect();
    read.sort_unstable();
    let idle = clients.iter().any(|client| client.owned.is_empty());
    read == [0, 1, 2, 3] && !idle && bench.group.state_name() == "Stable"
}

/// What compaction leaves: of each key the last record.
fn compacted(batches: Vec<Vec<Record>>) -> Vec<Vec<Record>> {
    let mut seen = BTreeSet::new();
    let batches = batches.into_iter().rev().map(|batch| {
        let last = batch.into_iter().rev();
        let mut last: Vec<Record> = last.filter(|one| seen.insert(one.encode().0)).collect();
        last.reverse();
        last
    });
    let mut kept: Vec<Vec<Record>> = batches.filter(|batch| !batch.is_empty()).collect();
    kept.reverse();
    kept
}

/// Whether all goes on after a start without two of the batches.
fn goes_on(mut batches: Vec<Vec<Record>>, lost: [usize; 2], by_pattern: bool) -> bool {
    let (mut bench, _, mut clients) = lived(by_pattern);
    lost.iter().for_each(|lost| batches[*lost].clear());
    bench.log = batches.into_iter().flatten().collect();
    bench.group = bench.replayed();
    let settled = settles(&mut bench, &mut clients);
    clients.push(Client::new("p", by_pattern));
    settled && settles(&mut bench, &mut clients)
}

/// Whatever is lost, the members that there are soon share the partitions, and with the one that comes next.
#[test]
fn a_gap_in_the_log_leaves_no_member_without_its_part() {
    for (by_pattern, is_compacted) in [(false, true), (false, false), (true, true), (true, false)] {
        let batches = match is_compacted {
            true => compacted(lived(by_pattern).1),
            false => lived(by_pattern).1,
        };
        let count = batches.len();
        let pairs = (0..count).flat_map(|one| (one..count).map(move |other| [one, other]));
        let failed = pairs.filter(|lost| !goes_on(batches.clone(), *lost, by_pattern));
        let failed: Vec<_> = failed.collect();
        assert!(
            failed.is_empty(),
            "by pattern {by_pattern}, compacted {is_compacted}: of {count} batches without {failed:?}"
        );
    }
}
