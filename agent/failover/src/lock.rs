//! A lock arbiter that takes the place of another, or of none: a new version of the module reaches one node after the
//! other, and one of them may miss it for long.
//!
//! Two nodes exclude each other by a record only where both must ask. So who goes on by a record holds it at every lock
//! arbiter by which the other node may still decide: at the present one, and at all that were in force here before,
//! until the other node said that it has the present one, in answer to this process. From that moment both ask the
//! present one, whatever either of them gets next: a later one is again asked beside it. (The joint consensus of Raft
//! does the same where the members of a cluster change.)
//!
//! Each view says by which arbiters its sender decides. Who shares none with the other node neither meets it nor goes on by
//! itself: that cannot come about by new versions, but where the state of a node was lost or restored.

use serde::{Deserialize, Serialize};

use crate::config::ArbiterKind;
use crate::failover::Failover;
use crate::left_out::LeftOut;

/// Who holds the module's record, by the name under which it is asked; empty: nobody.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Lock(pub String);

impl Lock {
    /// There is no lock arbiter.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// A number for the name: FNV-1a, short because every heartbeat has it.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.bytes().fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
    }
}

impl std::fmt::Display for Lock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_none() { "no lock arbiter" } else { &self.0 })
    }
}

impl Failover {
    /// The kind of arbiter by which this node decides now.
    pub(crate) fn arbiter_kind(&self) -> ArbiterKind {
        let former = self.hard.former_locks.iter().any(|lock| !lock.is_none());
        let last = self.hard.lock.as_ref().is_some_and(|lock| !lock.is_none());
        if self.hard.disputed || (former || last) && !self.lacks(LeftOut::LocksAreJoint) {
            ArbiterKind::Lock
        } else {
            self.config.arbiter
        }
    }

    /// Every lock arbiter whose record is needed, in the order in which either node asks them.
    pub(crate) fn locks(&self) -> Vec<Lock> {
        let mut locks = vec![self.config.own_lock()];
        if !self.lacks(LeftOut::LocksAreJoint) {
            locks.extend(self.hard.lock.iter().chain(&self.hard.former_locks).cloned());
        }
        locks.retain(|lock| !lock.is_none());
        locks.sort_unstable();
        locks.dedup();
        locks
    }

    /// Numbers of what this node decides by: what is in force first.
    pub(crate) fn told_locks(&self) -> Vec<u32> {
        // What is not durable is not said.
        let hard = if self.broken { &self.safe } else { &self.hard };
        hard.lock.iter().chain(&hard.former_locks).map(Lock::id).collect()
    }

    /// What this version brings is recorded before anything is decided by it; what came before is forgotten when the
    /// other node has it as well.
    pub(crate) fn rule_lock(&mut self) -> bool {
        // It could not be written when this process began.
        if self.take_lock() {
            self.persist();
            return true;
        }
        self.forget_former_locks() || self.dispute()
    }

    /// True: hard state is to be written.
    pub(crate) fn take_lock(&mut self) -> bool {
        let own = self.config.own_lock();
        if self.hard.lock.as_ref() == Some(&own) {
            return false;
        }
        let (hard, peer) = (&mut self.hard, &self.config.peer);
        hard.former_locks.retain(|former| *former != own);
        if let Some(before) = hard.lock.replace(own.clone()) {
            let text = format!(
                "decides by {own} from now on, and by {before} as well until {peer} has this version"
            );
            hard.former_locks.push(before);
            self.record(false, text);
        }
        true
    }

    /// The other node answered this process, and has the present one: it asks that one from now on, too.
    fn forget_former_locks(&mut self) -> bool {
        let own = self.config.own_lock();
        let has = self.answer_to_this_process().is_some_and(|locks| locks.first() == Some(&own.id()));
        if !has || self.hard.former_locks.is_empty() {
            return false;
        }
        self.hard.former_locks.clear();
        self.record(false, format!("{} decides by {own}, too", self.config.peer));
        self.persist();
        true
    }

    /// By what the other node decides, if it said so having heard this process.
    fn answer_to_this_process(&self) -> Option<&[u32]> {
        let own = self.identity.incarnation();
        let peer = self.peer.view.as_deref().filter(|peer| peer.heard == own)?;
        (!peer.locks.is_empty()).then_some(&peer.locks)
    }

    fn dispute(&mut self) -> bool {
        let Some(theirs) = self.answer_to_this_process() else { return false };
        let disputed = !self.told_locks().iter().any(|id| theirs.contains(id));
        if disputed == self.hard.disputed {
            return false;
        }
        self.hard.disputed = disputed;
        let text = if disputed {
            let (reason, hint) = self.disputed();
            format!("{reason}; {hint}")
        } else {
            format!("{} and this node have a lock arbiter in common again", self.config.peer)
        };
        self.record(disputed, text);
        self.persist();
        true
    }

    /// For people: the nodes share no lock arbiter, and what to type.
    pub(crate) fn disputed(&self) -> (String, String) {
        let (module, peer, own) = (&self.config.module, &self.config.peer, self.config.own_lock());
        let reason = format!(
            "{peer} decides by another lock arbiter than {own}: they do not meet, and neither goes on by itself, before \
             both have the same version of {module}"
        );
        (reason, "safectl module list; if it stays so: safectl module install, of the newer one".to_owned())
    }

    /// For people: whose record is needed to go on, if not that of one arbiter; until when.
    pub(crate) fn joint_locks(&self) -> Option<(String, String)> {
        if self.hard.disputed {
            return Some(self.disputed());
        }
        if self.hard.former_locks.is_empty() {
            return None;
        }
        let (peer, own) = (&self.config.peer, self.config.own_lock());
        let former = self.hard.former_locks.iter().filter(|lock| !lock.is_none());
        let former = former.map(ToString::to_string).collect::<Vec<_>>().join(" and ");
        if former.is_empty() {
            let reason = format!("the record of {own}: {peer} may not have this version yet, and ask nobody");
            return Some((reason, format!("bring {peer} back: it catches up by itself")));
        }
        let also = if own.is_none() { String::new() } else { format!(" and {own}") };
        let reason = format!(
            "the records of {former}{also}: {peer} may not have this version yet, and still ask {former}"
        );
        Some((reason, format!("bring {peer} back: it catches up by itself")))
    }

    /// For people: who is asked and does not answer.
    pub(crate) fn silent_arbiter(&self) -> String {
        match self.hard.former_locks.iter().find(|lock| self.arbiter.is_silent(lock)) {
            Some(lock) => {
                format!("{lock} does not answer, and {} may still decide by it", self.config.peer)
            }
            None => "the arbiter does not answer".to_owned(),
        }
    }
}
