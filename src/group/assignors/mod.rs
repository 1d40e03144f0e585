//! Who shall read which partition: the broker's own assignors (KIP-848), pure functions of who subscribed to what.
//!
//! | name | gives | keeps |
//! |---|---|---|
//! | [`uniform`] | each member about as many partitions as any other | what a member had, as far as that allows |
//! | [`range`] | each member a run of neighboring partitions of each topic, so that equal keys of two topics meet | nothing |
//!
//! Invariants: a partition goes to exactly one of its topic's subscribers, if there is one; nobody gets a partition
//! of a topic that it is not subscribed to. Racks are not looked at: one node has one.

mod range;
#[cfg(test)]
mod tests;
mod uniform;

use crate::wire::Uuid;
use std::collections::{BTreeMap, BTreeSet};

/// Partitions by topic; no topic without a partition.
pub type Assignment = BTreeMap<Uuid, BTreeSet<i32>>;

/// How many partitions each topic has.
pub type Counts = BTreeMap<Uuid, i32>;

/// A member, as far as an assignor looks at it.
#[derive(Clone, Copy, Debug)]
pub struct Subscriber<'a> {
    /// Its id.
    pub member_id: &'a str,
    /// Its static name (KIP-345).
    pub instance_id: Option<&'a str>,
    /// The topics that it wants; each of them exists.
    pub topics: &'a BTreeSet<Uuid>,
    /// What it was meant to have so far.
    pub target: &'a Assignment,
}

/// What each of `subscribers` shall have, in their order. `counts` has every topic that one of them wants; an
/// assignor that is not known by `name` is the first, `uniform`.
pub fn assign(name: &str, subscribers: &[Subscriber<'_>], counts: &Counts) -> Vec<Assignment> {
    match name {
        "range" => range::assign(subscribers, counts),
        _ => uniform::assign(subscribers, counts),
    }
}
