//! As many partitions for each as for any other, and as few moved as that allows.
//!
//! Where all want the same topics, each has a quota: it keeps what it had up to that, and what is left over fills up
//! the others. Otherwise each keeps all that it still wants, what is left over goes to whoever has the least, and
//! then partitions move, topic by topic, from the one who has the most to the one who has the least.

use super::{Assignment, Counts, Subscriber};
use crate::wire::Uuid;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// How often the balancing goes over all topics: with subscriptions that overlap it may take long to come to rest,
/// and each round about halves what is uneven (Kafka's limit).
const ROUNDS_MAX: usize = 16;

/// Who has each partition of each topic: indices of subscribers.
type Owners = BTreeMap<Uuid, Vec<Option<usize>>>;

pub(super) fn assign(subscribers: &[Subscriber<'_>], counts: &Counts) -> Vec<Assignment> {
    let empty = |(topic, &count): (&Uuid, &i32)| (*topic, vec![None; count.max(0) as usize]);
    let mut owners: Owners = counts.iter().map(empty).collect();
    if subscribers
        .windows(2)
        .all(|pair| pair[0].topics == pair[1].topics)
    {
        by_quota(subscribers, &mut owners);
    } else {
        by_load(subscribers, &mut owners);
    }
    let mut assignments = vec![Assignment::new(); subscribers.len()];
    for (topic, partitions) in owners {
        for (partition, owner) in partitions.into_iter().enumerate() {
            if let Some(owner) = owner {
                let topics = &mut assignments[owner];
                topics.entry(topic).or_default().insert(partition as i32);
            }
        }
    }
    assignments
}

/// Leaves to a subscriber what it had and still wants, but `at_most` so many, and says how many these are.
fn keep(
    owners: &mut Owners,
    subscribers: &[Subscriber<'_>],
    index: usize,
    at_most: usize,
) -> usize {
    let Subscriber { topics, target, .. } = subscribers[index];
    let mut kept = 0;
    for (topic, partitions) in target.iter().filter(|(topic, _)| topics.contains(topic)) {
        let Some(owners) = owners.get_mut(topic) else {
            continue;
        };
        for &partition in partitions {
            if let Some(owner @ None) = owners.get_mut(partition as usize)
                && kept < at_most
            {
                *owner = Some(index);
                kept += 1;
            }
        }
    }
    kept
}

fn by_quota(subscribers: &[Subscriber<'_>], owners: &mut Owners) {
    let Some(first) = subscribers.first() else {
        return;
    };
    owners.retain(|topic, _| first.topics.contains(topic));
    let total: usize = owners.values().map(Vec::len).sum();
    let (each, mut extra) = (total / subscribers.len(), total % subscribers.len());
    let mut unfilled = Vec::new();
    for index in 0..subscribers.len() {
        let one_more = usize::from(extra > 0);
        let mut left = each + one_more - keep(owners, subscribers, index, each + one_more);
        // One that did not have it gives the extra partition up to a later one who may, unless all that come after
        // must take theirs.
        if left > 0 && one_more > 0 && subscribers.len() - index > extra {
            left -= 1;
        } else {
            extra -= one_more;
        }
        unfilled.extend(std::iter::repeat_n(index, left));
    }
    let mut unfilled = unfilled.into_iter();
    let free = owners
        .values_mut()
        .flatten()
        .filter(|owner| owner.is_none());
    free.for_each(|owner| *owner = unfilled.next());
}

fn by_load(subscribers: &[Subscriber<'_>], owners: &mut Owners) {
    let mut loads: Vec<usize> = (0..subscribers.len())
        .map(|index| keep(owners, subscribers, index, usize::MAX))
        .collect();
    let mut topics: Vec<(Uuid, Vec<usize>)> = owners
        .keys()
        .map(|topic| {
            let wants = |index: &usize| subscribers[*index].topics.contains(topic);
            (*topic, (0..subscribers.len()).filter(wants).collect())
        })
        .filter(|(_, readers): &(Uuid, Vec<usize>)| !readers.is_empty())
        .collect();
    // The topics with the most partitions a subscriber come first, among equals those with fewer subscribers.
    topics.sort_by_key(|(topic, readers)| {
        let partitions = owners[topic].len() as u64;
        (
            Reverse((partitions << 32) / readers.len() as u64),
            readers.len(),
            *topic,
        )
    });
    for (topic, readers) in &topics {
        let free = owners.get_mut(topic).into_iter().flatten();
        for owner in free.filter(|owner| owner.is_none()) {
            *owner = readers.iter().copied().min_by_key(|&index| loads[index]);
            owner.iter().for_each(|&index| loads[index] += 1);
        }
    }
    for _ in 0..ROUNDS_MAX {
        let mut moved = false;
        for (topic, readers) in &topics {
            if let Some(owners) = owners.get_mut(topic) {
                moved |= level(owners, readers, &mut loads);
            }
        }
        if !moved {
            break;
        }
    }
}

/// Moves partitions of one topic from who has the most to who has the least, until these differ by one at most; says
/// whether any was moved.
fn level(owners: &mut [Option<usize>], readers: &[usize], loads: &mut [usize]) -> bool {
    let mut owned: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (partition, owner) in owners.iter().enumerate() {
        if let Some(index) = owner {
            owned.entry(*index).or_default().push(partition);
        }
    }
    let mut moved = false;
    loop {
        let most = owned.keys().copied().max_by_key(|&index| loads[index]);
        let least = readers.iter().copied().min_by_key(|&index| loads[index]);
        let (Some(most), Some(least)) = (most, least) else {
            return moved;
        };
        if loads[most] <= loads[least] + 1 {
            return moved;
        }
        let partitions = owned.entry(most).or_default();
        if let Some(partition) = partitions.pop() {
            owners[partition] = Some(least);
            owned.entry(least).or_default().push(partition);
            loads[most] -= 1;
            loads[least] += 1;
            moved = true;
        }
        if owned[&most].is_empty() {
            owned.remove(&most);
        }
    }
}
