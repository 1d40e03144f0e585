//! A member's next step towards its target, so that no partition is ever with two.
//!
//! ```text
//!             has what it must not keep                        has given that up
//! Stable -------------------------------> Unrevoked -----------------------------------> Stable, or Unreleased
//!    |                                                                                      ^
//!    +-- lacks what another still has --> Unreleased -- again and again, until it has all --+
//! ```
//! What a member must not keep it is told first, at its old epoch. Only when it reports partitions without these may
//! another have them, and the member itself comes to the new epoch.

use super::member::{Member, MemberState, gathered, has, pairs};
use crate::group::assignors::Assignment;

/// What `member` becomes on its way to its target at `target_epoch`; `None` is what it is.
///
/// `owned` is what it says it has, if it says so; `taken` has those partitions of its target that are with others.
pub fn next(
    member: &Member,
    target_epoch: i32,
    owned: Option<&Assignment>,
    taken: &Assignment,
) -> Option<Member> {
    let still_has = |partitions: &Assignment| {
        owned.is_none_or(|owned| pairs(owned).any(|pair| has(partitions, pair)))
    };
    let epoch = match member.state {
        MemberState::Stable if member.epoch == target_epoch => return None,
        MemberState::Unrevoked if still_has(&member.revoking) => return None,
        MemberState::Unrevoked => target_epoch.min(member.epoch + 1),
        MemberState::Stable | MemberState::Unreleased => member.epoch,
    };
    let target = &member.target;
    let assigned = || pairs(&member.assigned);
    let keeps = assigned().filter(|pair| has(target, *pair));
    let revoking = gathered(assigned().filter(|pair| !has(target, *pair)));
    let unmoved = Member {
        previous_epoch: member.epoch,
        ..member.clone()
    };
    let next = if !revoking.is_empty() && still_has(&revoking) {
        Member {
            epoch,
            state: MemberState::Unrevoked,
            assigned: gathered(keeps),
            revoking,
            ..unmoved
        }
    } else {
        let lacks = |pair: &(_, _)| !has(&member.assigned, *pair);
        let waits = pairs(taken).any(|pair| lacks(&pair));
        let free = pairs(target).filter(|pair| lacks(pair) && !has(taken, *pair));
        Member {
            epoch: target_epoch,
            state: if waits {
                MemberState::Unreleased
            } else {
                MemberState::Stable
            },
            assigned: gathered(keeps.chain(free)),
            revoking: Assignment::new(),
            ..unmoved
        }
    };
    (next != *member).then_some(next)
}
