//! Memory and log never differ, whatever happens in between.

use super::transactions::{commit_by, unstable};
use super::*;
use rand::{Rng, SeedableRng, rngs::StdRng};

/// Memory and log never differ in what is committed and what is pending, whatever is refused, late, deleted, expired,
/// committed or aborted in between, before and after compaction; and everyone is answered once.
#[test]
fn memory_is_what_the_log_says() {
    let seed = match std::env::var("OTTLA_SEED") {
        Ok(text) => text.parse().expect("OTTLA_SEED is a number"),
        Err(_) => rand::random::<u32>().into(),
    };
    println!("OTTLA_SEED={seed}");
    let rng = &mut StdRng::seed_from_u64(seed);
    let mut scene = Scene::new();
    let mut asked = Vec::new();
    for round in 0..20_000 {
        let group = ["a", "b", "c"][rng.random_range(0..3)];
        let topic = ["t", "u"][rng.random_range(0..2)];
        let (index, producer) = (rng.random_range(0..3), rng.random_range(1..4));
        match rng.random_range(0..100) {
            0..25 => asked.push(scene.ask(commit(group, topic, index, round))),
            25..40 => asked.push(scene.ask(commit_by(producer, group, topic, index, round))),
            40..44 => asked.push(scene.ask(Request::Delete(group.into()))),
            44..48 => asked.push(scene.ask(Request::DeleteOffsets(OffsetDeleteRequest {
                group_id: group.into(),
                topics: vec![OffsetDeleteRequestTopic {
                    name: topic.into(),
                    partitions: vec![OffsetDeleteRequestPartition { partition_index: 1 }],
                }],
            }))),
            48..50 => {
                let gone = BTreeSet::from([topic.to_owned()]);
                scene.with(|groups, env| groups.forget_topics(gone, env));
            }
            50..52 => scene.pass(rng.random_range(0..2 * WEEK)),
            52..56 => scene.end(producer, rng.random()),
            56 => scene.with(|groups, env| groups.restate_offsets(|_| true, env)),
            _ if scene.under_way.is_empty() => {}
            57..60 => scene.settle(Err(ErrorCode::KafkaStorageError)),
            _ => scene.settle(Ok(())),
        }
        if round % 100 == 0 {
            agree(&mut scene, round);
            if rng.random() {
                scene.log = compacted(std::mem::take(&mut scene.log), rng);
                agree(&mut scene, round);
            }
            asked.drain(..).for_each(|waiter| {
                assert!(scene.answer_to(waiter).is_some());
            });
            scene.answers.clear();
        }
    }
}

/// A start makes of the log what there is in memory.
fn agree(scene: &mut Scene, round: i64) {
    while !scene.under_way.is_empty() {
        scene.settle(Ok(()));
    }
    let mut again = scene.reloaded();
    for group in ["a", "b", "c"] {
        assert_eq!(scene.offsets(group), again.offsets(group), "round {round}");
        assert_eq!(unstable(scene, group), unstable(&mut again, group));
    }
    assert_eq!(scene.counts(), again.counts(), "round {round}");
    assert_eq!(scene.groups.bytes, again.groups.bytes, "round {round}");
}

/// What compaction leaves: below the first record of an open transaction the last record of each key, of those that
/// were not aborted, and of the markers those whose data is still there; perhaps more.
fn compacted(log: Vec<Logged>, rng: &mut StdRng) -> Vec<Logged> {
    let (mut aborted, mut last, mut open) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
    for (place, logged) in log.iter().enumerate() {
        match logged {
            Logged::Record(_, _, Some(id)) => open.entry(id).or_insert_with(Vec::new).push(place),
            Logged::Record(..) => {}
            Logged::Marker(id, commit) => {
                let ended = open.remove(id).unwrap_or_default();
                aborted.extend(ended.into_iter().filter(|_| !commit));
            }
        }
    }
    let first_open = open.values().flatten().min().copied().unwrap_or(log.len());
    for (place, logged) in log.iter().enumerate().take(first_open) {
        if let Logged::Record(_, record, _) = logged
            && !aborted.contains(&place)
        {
            last.insert(record.encode().0, place);
        }
    }
    let kept: BTreeSet<usize> = last.into_values().collect();
    let (mut left, mut with_data) = (Vec::new(), BTreeSet::new());
    for (place, logged) in log.into_iter().enumerate() {
        let keep = match &logged {
            _ if place >= first_open => true,
            Logged::Record(_, _, id) if kept.contains(&place) => {
                with_data.extend(*id);
                true
            }
            Logged::Record(..) => false,
            Logged::Marker(id, _) => with_data.remove(id) || rng.random(),
        };
        left.extend(keep.then_some(logged));
    }
    left
}
