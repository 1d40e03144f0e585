//! Partitions of the catalog whose files could not be made, on a full disk or without descriptors: tried again until
//! they can be.
//!
//! Invariants: nobody has ever written to them, so what an attempt left of their files may go; they are online only
//! once all of it is durable and the writer was told.

use super::rooms::{MADE_TOGETHER, Wanted};
use super::{Checkpoints, Rooms};
use crate::catalog::{Catalog, Topic};
use crate::storage::{Partition, Status};
use crate::writer::Queue;
use std::sync::Arc;
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_secs(5);

/// The partitions, and when they are tried again.
#[derive(Default)]
pub struct Unmade {
    partitions: Vec<Arc<Partition>>,
    next_try: Option<Instant>,
}

impl Unmade {
    /// These are offline until they can be made.
    pub fn add(&mut self, partitions: Vec<Arc<Partition>>) {
        self.partitions.extend(partitions);
        self.plan(INTERVAL);
    }

    /// Tries some of them, if it is time; says in how many ms it will be.
    pub fn retry(
        &mut self,
        rooms: &Rooms,
        checkpoints: &mut Checkpoints,
        catalog: &Catalog,
        writer: &Queue,
    ) -> u64 {
        let left = |at: Instant| at.saturating_duration_since(Instant::now());
        if self.next_try.is_some_and(|at| left(at).is_zero()) {
            let is_made = self.try_some(rooms, checkpoints, catalog, writer);
            self.plan(if is_made { Duration::ZERO } else { INTERVAL });
        }
        let ms = |at| left(at).as_millis() as u64 + 1;
        self.next_try.map_or(u64::MAX, ms)
    }

    fn plan(&mut self, delay: Duration) {
        self.next_try = (!self.partitions.is_empty()).then(|| Instant::now() + delay);
    }

    /// Whether all that was tried could be made.
    fn try_some(
        &mut self,
        rooms: &Rooms,
        checkpoints: &mut Checkpoints,
        catalog: &Catalog,
        writer: &Queue,
    ) -> bool {
        // Those of deleted topics are forgotten.
        let topic_of = |partition: &Arc<Partition>| {
            let topic = catalog.by_id(partition.topic_id)?;
            Some((partition.clone(), topic.clone()))
        };
        let known: Vec<(Arc<Partition>, Arc<Topic>)> =
            self.partitions.iter().filter_map(topic_of).collect();
        let (some, later) = known.split_at(known.len().min(MADE_TOGETHER));
        let names: Vec<Arc<Partition>> = some.iter().map(|(p, _)| p.clone()).collect();
        rooms.remove(&names);
        let wanted: Vec<Wanted<'_>> = some.iter().map(|(p, topic)| wanted(p, topic)).collect();
        let logs = rooms.make(&wanted);
        let is_another = |topic: &str, index| {
            let is_it = |p: &Arc<Partition>| &*p.topic == topic && p.index == index;
            !names.iter().any(is_it)
        };
        let durable = checkpoints.keep(is_another).and_then(|()| rooms.sync());
        self.partitions.clear();
        for ((partition, topic), log) in some.iter().zip(logs) {
            match durable.as_ref().ok().and(log.ok()) {
                Some(log) => {
                    writer.submit([rooms.adopt(partition.clone(), log, &topic.config)]);
                    partition.set_status(Status::Online);
                    log::info!(
                        "{}-{}: it is made at last",
                        partition.topic,
                        partition.index
                    );
                }
                None => self.partitions.push(partition.clone()),
            }
        }
        let is_made = self.partitions.is_empty();
        self.partitions.extend(later.iter().map(|(p, _)| p.clone()));
        is_made
    }
}

fn wanted<'a>(partition: &'a Partition, topic: &'a Topic) -> Wanted<'a> {
    Wanted {
        topic: &partition.topic,
        id: partition.topic_id,
        index: partition.index,
        config: &topic.config,
    }
}
