//! A partition as every thread but the writer sees it: who it is, and an immutable view of its log.
//!
//! Owns: the published view, the partition's status and leader epoch, and the bells of those who wait for the
//! view to change. Invariants: only the writer publishes; a view, once published, is never changed; whoever
//! registers a bell and then finds nothing new in the view is rung by the next publication.

use crate::lock::{Mutex, Rank};
use crate::storage::View;
use crate::wire::Uuid;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Something that wakes a waiting thread.
pub trait Wake: Send + Sync {
    /// Wakes the owner; must not block.
    fn wake(&self);
}

/// Whether a partition can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// In use.
    Online,
    /// Its storage failed; KAFKA_STORAGE_ERROR until the next start, or until its files could be made.
    Offline,
    /// Its topic was deleted; UNKNOWN_TOPIC_OR_PARTITION.
    Deleted,
}

/// The identity of one partition and the view that is published of it.
pub struct Partition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The topic's id: a topic that was deleted and made again has another.
    pub topic_id: Uuid,
    /// The partition's number within its topic.
    pub index: i32,
    /// Unique in this process; never used again, whatever is deleted and recreated.
    pub serial: u64,
    /// Where its files are.
    pub dir: PathBuf,
    /// Guards what the writer publishes.
    published: Mutex<Published>,
}

struct Published {
    view: Arc<View>,
    leader_epoch: i32,
    status: Status,
    waiting: Vec<Arc<dyn Wake>>,
}

/// What was published of a partition at one moment.
#[derive(Clone)]
pub struct Snapshot {
    /// The log.
    pub view: Arc<View>,
    /// The leader epoch that requests are checked against.
    pub leader_epoch: i32,
    /// Whether the partition can be used.
    pub status: Status,
}

static NEXT_SERIAL: AtomicU64 = AtomicU64::new(1);

impl Partition {
    /// A partition whose log is as `view` says.
    pub fn new(
        topic: Arc<str>,
        topic_id: Uuid,
        index: i32,
        dir: PathBuf,
        snapshot: Snapshot,
    ) -> Partition {
        let published = Published {
            view: snapshot.view,
            leader_epoch: snapshot.leader_epoch,
            status: snapshot.status,
            waiting: Vec::new(),
        };
        Partition {
            topic,
            topic_id,
            index,
            serial: NEXT_SERIAL.fetch_add(1, Ordering::Relaxed),
            dir,
            published: Mutex::new(Rank::Partition, published),
        }
    }

    /// Whether its topic is one that the broker keeps for itself.
    pub fn is_internal(&self) -> bool {
        crate::catalog::is_internal(&self.topic)
    }

    /// What is published now.
    pub fn snapshot(&self) -> Snapshot {
        let published = self.published.lock();
        Snapshot {
            view: published.view.clone(),
            leader_epoch: published.leader_epoch,
            status: published.status,
        }
    }

    /// Whether a view with other segments was published since: one that is gone from `view` is no loss then.
    pub fn has_moved_since(&self, view: &View) -> bool {
        self.published.lock().view.generation != view.generation
    }

    /// Rings `waker` once, at the next publication. Look at [`Partition::snapshot`] after this, not before.
    pub fn watch(&self, waker: Arc<dyn Wake>) {
        self.published.lock().waiting.push(waker);
    }

    /// Forgets a waker that was not rung: its owner stopped waiting for another reason.
    pub fn unwatch(&self, waker: &Arc<dyn Wake>) {
        let mut published = self.published.lock();
        published.waiting.retain(|w| !Arc::ptr_eq(w, waker));
        if published.waiting.is_empty() {
            published.waiting.shrink_to_fit();
        }
    }

    /// Publishes a new view and wakes all who wait.
    pub fn publish(&self, view: View) {
        self.change(|published| published.view = Arc::new(view));
    }

    /// Publishes a new status and wakes all who wait. A deleted partition stays deleted.
    pub fn set_status(&self, status: Status) {
        self.change(|published| {
            if published.status != Status::Deleted {
                published.status = status;
            }
        });
    }

    /// Publishes a leader epoch above the last one, and wakes all who wait.
    pub fn raise_leader_epoch(&self, epoch: i32) {
        self.change(|published| published.leader_epoch = published.leader_epoch.max(epoch));
    }

    fn change(&self, change: impl FnOnce(&mut Published)) {
        let mut published = self.published.lock();
        change(&mut published);
        let waiting = std::mem::take(&mut published.waiting);
        drop(published);
        waiting.iter().for_each(|waker| waker.wake());
    }
}
