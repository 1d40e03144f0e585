//! What must hold of both assignors whatever the subscriptions, and the cases that are known by name.

use super::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A member with all that a [`Subscriber`] borrows.
#[derive(Clone, Debug, Default)]
struct Owned {
    id: String,
    instance: Option<String>,
    topics: BTreeSet<Uuid>,
    target: Assignment,
}

fn topic(number: u8) -> Uuid {
    Uuid([number; 16])
}

fn member(id: &str, topics: &[u8]) -> Owned {
    Owned {
        id: id.into(),
        topics: topics.iter().copied().map(topic).collect(),
        ..Owned::default()
    }
}

fn run(name: &str, members: &mut [Owned], counts: &Counts) -> Vec<usize> {
    let subscribers: Vec<Subscriber<'_>> = members
        .iter()
        .map(|member| Subscriber {
            member_id: &member.id,
            instance_id: member.instance.as_deref(),
            topics: &member.topics,
            target: &member.target,
        })
        .collect();
    let assignments = assign(name, &subscribers, counts);
    check(&subscribers, counts, &assignments);
    let sizes = assignments.iter().map(size).collect();
    for (member, target) in members.iter_mut().zip(assignments) {
        member.target = target;
    }
    sizes
}

fn size(assignment: &Assignment) -> usize {
    assignment.values().map(BTreeSet::len).sum()
}

/// Each partition that anyone wants is with exactly one of those who want it.
fn check(subscribers: &[Subscriber<'_>], counts: &Counts, assignments: &[Assignment]) {
    assert_eq!(subscribers.len(), assignments.len());
    for (topic, &count) in counts {
        let mut all: Vec<i32> = Vec::new();
        for (subscriber, assignment) in subscribers.iter().zip(assignments) {
            let Some(partitions) = assignment.get(topic) else {
                continue;
            };
            assert!(subscriber.topics.contains(topic) && !partitions.is_empty());
            all.extend(partitions);
        }
        all.sort_unstable();
        let wanted = subscribers.iter().any(|one| one.topics.contains(topic));
        assert_eq!(all, (0..if wanted { count } else { 0 }).collect::<Vec<_>>());
    }
}

fn kept(before: &[Owned], after: &[Owned]) -> usize {
    let both = before.iter().zip(after).flat_map(|(before, after)| {
        let topics = before.target.iter();
        topics.filter_map(|(topic, had)| Some(had.intersection(after.target.get(topic)?).count()))
    });
    both.sum()
}

#[test]
fn uniform_gives_each_as_much_and_keeps_what_it_can() {
    let counts = Counts::from([(topic(1), 6), (topic(2), 2)]);
    let mut members = vec![member("a", &[1, 2]), member("b", &[1, 2])];
    assert_eq!(run("uniform", &mut members, &counts), [4, 4]);
    members.push(member("c", &[1, 2]));
    let before = members.clone();
    let mut sizes = run("uniform", &mut members, &counts);
    assert_eq!(kept(&before, &members), 6, "only what c needs may move");
    sizes.sort_unstable();
    assert_eq!(sizes, [2, 3, 3]);
    members.remove(0);
    let before = members.clone();
    assert_eq!(run("uniform", &mut members, &counts), [4, 4]);
    assert_eq!(
        kept(&before, &members),
        before.iter().map(|m| size(&m.target)).sum()
    );
}

#[test]
fn uniform_levels_what_overlaps() {
    let counts = Counts::from([(topic(1), 6), (topic(2), 6)]);
    let mut members = vec![member("a", &[1]), member("b", &[1, 2]), member("c", &[2])];
    assert_eq!(run("uniform", &mut members, &counts), [4, 4, 4]);
}

#[test]
fn range_gives_runs_and_static_members_come_first() {
    let counts = Counts::from([(topic(1), 5), (topic(2), 3)]);
    let mut members = vec![member("a", &[1, 2]), member("b", &[1, 2])];
    members[1].instance = Some("z".into());
    run("range", &mut members, &counts);
    let of = |member: &Owned, number| member.target[&topic(number)].clone();
    assert_eq!(of(&members[1], 1), BTreeSet::from([0, 1, 2]));
    assert_eq!(of(&members[0], 1), BTreeSet::from([3, 4]));
    assert_eq!(of(&members[1], 2), BTreeSet::from([0, 1]));
    assert_eq!(of(&members[0], 2), BTreeSet::from([2]));
}

#[test]
fn a_target_that_cannot_be_is_not_believed() {
    let counts = Counts::from([(topic(1), 2)]);
    let mut members = vec![member("a", &[1]), member("b", &[1])];
    for member in &mut members {
        member.target = Assignment::from([(topic(1), BTreeSet::from([-1, 0, 9]))]);
    }
    assert_eq!(run("uniform", &mut members, &counts), [1, 1]);
}

#[test]
fn nobody_and_nothing_is_an_answer_too() {
    for name in ["uniform", "range"] {
        assert!(run(name, &mut [], &Counts::from([(topic(1), 3)])).is_empty());
        assert_eq!(run(name, &mut [member("a", &[])], &Counts::new()), [0]);
    }
}

#[test]
fn random_groups_come_and_go() {
    let seed =
        std::env::var("OTTLA_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("OTTLA_SEED={seed}");
    let random = &mut StdRng::seed_from_u64(seed);
    for _ in 0..2_000 {
        let name = if random.random_bool(0.7) {
            "uniform"
        } else {
            "range"
        };
        let counts: Counts = (1..=random.random_range(1..5))
            .map(|number| (topic(number), random.random_range(0..12)))
            .collect();
        let alike = random.random_bool(0.5);
        let mut members: Vec<Owned> = Vec::new();
        for step in 0..6 {
            let mut change = random.random_range(0..3);
            while change > 0 && members.len() < 9 {
                let mut new = member(&format!("m{step}{change}"), &[]);
                let wanted = counts.keys().filter(|_| alike || random.random_bool(0.6));
                new.topics = wanted.copied().collect();
                members.insert(random.random_range(0..=members.len()), new);
                change -= 1;
            }
            if !members.is_empty() && random.random_bool(0.3) {
                members.remove(random.random_range(0..members.len()));
            }
            let before = members.clone();
            let sizes = run(name, &mut members, &counts);
            let (most, least) = (sizes.iter().max(), sizes.iter().min());
            if let (true, "uniform", Some(most), Some(least)) = (alike, name, most, least) {
                assert!(most - least <= 1, "{sizes:?}");
                let quota = |had: usize| had.min(*most);
                let had: usize = before.iter().map(|one| quota(size(&one.target))).sum();
                let extra = sizes.iter().filter(|size| *size == most).count();
                let full = before
                    .iter()
                    .filter(|one| size(&one.target) >= *most)
                    .count();
                let lost = if most == least {
                    0
                } else {
                    full.saturating_sub(extra)
                };
                assert_eq!(
                    kept(&before, &members),
                    had - lost,
                    "{before:?} {members:?}"
                );
            }
            let settled = members.clone();
            run(name, &mut members, &counts);
            assert_eq!(kept(&settled, &members), sizes.iter().sum(), "not at rest");
        }
    }
}
