//! Runs of neighboring partitions, topic by topic; the first members in order get one more where it does not come out
//! even. Static members come first, by their names, so that they get the same runs after a restart.

use super::{Assignment, Counts, Subscriber};

pub(super) fn assign(subscribers: &[Subscriber<'_>], counts: &Counts) -> Vec<Assignment> {
    let mut order: Vec<usize> = (0..subscribers.len()).collect();
    order.sort_by_key(|&index| {
        let Subscriber {
            member_id,
            instance_id,
            ..
        } = subscribers[index];
        (instance_id.is_none(), instance_id.unwrap_or(member_id))
    });
    let mut assignments = vec![Assignment::new(); subscribers.len()];
    for (topic, &count) in counts {
        let wants = |index: &usize| subscribers[*index].topics.contains(topic);
        let readers: Vec<usize> = order.iter().copied().filter(wants).collect();
        if readers.is_empty() {
            continue;
        }
        let (each, extra) = (count / readers.len() as i32, count as usize % readers.len());
        let mut next = 0;
        for (place, index) in readers.into_iter().enumerate() {
            let end = next + each + i32::from(place < extra);
            if next < end {
                assignments[index].insert(*topic, (next..end).collect());
            }
            next = end;
        }
    }
    assignments
}
