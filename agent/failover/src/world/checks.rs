//! What must hold after every event: the invariants I1 to I8 of DESIGN section 5, as an observer of everything sees them.

use std::time::Duration;

use crate::config::ArbiterKind;
use crate::view::View;

use super::host::Writes;
use super::{Happening, World};

/// Knows what was promised to the application.
#[derive(Debug, Clone, Default)]
pub struct Oracle {
    /// Acknowledged, and not excused by a loss that DESIGN allows.
    pub acked: Writes,
    /// All that ever was acknowledged.
    pub count: u32,
    used: u32,
    /// Numbers of writes are used again.
    pub reuses: bool,
    live: Writes,
    /// Acknowledged by one node alone, since both copies were equal last.
    alone: Writes,
    /// An administrator gave it up.
    pub discarded: bool,
    /// Both nodes may have gone on: every lan was cut without a lock arbiter, or a person forced it. Until both copies
    /// are equal again.
    pub excused: bool,
    /// A person forced something: what was lost by that is no fault.
    pub forced: bool,
    broken: Option<String>,
}

/// How long a host that woke up may still look as if it served.
const GRACE: Duration = Duration::from_millis(100);

impl std::hash::Hash for Oracle {
    /// Not how many there were.
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.acked, self.live, self.acked & self.alone, self.excused, self.forced, self.discarded)
            .hash(state);
    }
}

impl Oracle {
    /// The next object to write; none: enough.
    pub fn next_write(&mut self) -> Option<Writes> {
        if self.reuses {
            let bit = 1 << (!self.live).trailing_zeros();
            self.live |= bit;
            return Some(bit);
        }
        if self.used >= 120 {
            return None;
        }
        self.used += 1;
        Some(1 << (self.used - 1))
    }

    fn break_(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }
}

impl World {
    /// Writes that are safe on both disks, and that nobody remembers as different, are as good as never made.
    pub fn reuse_writes(&mut self) {
        let busy = |host: &super::host::Host| {
            let disk = &host.disk;
            let ops = host.replicator.iter().flat_map(|replicator| &replicator.ops);
            let ops: Writes = ops.map(|op| op.bit).fold(0, |all, bit| all | bit);
            disk.since | disk.known | disk.dirty | ops | (disk.data ^ disk.synced)
        };
        if self.queue.values().any(|what| matches!(what, Happening::Stream { .. })) {
            return;
        }
        let [a, b] = &self.hosts;
        let done = self.oracle.live & !(busy(a) | busy(b) | (a.disk.data ^ b.disk.data));
        for host in &mut self.hosts {
            host.disk.data &= !done;
            host.disk.synced &= !done;
        }
        self.oracle.acked &= !done;
        self.oracle.live &= !done;
        self.oracle.alone &= !done;
    }

    pub fn lock(&self) -> bool {
        self.hosts[0].config.arbiter == ArbiterKind::Lock
    }

    pub fn acknowledged(&mut self, host: usize, bit: Writes, alone: bool) {
        self.oracle.acked |= bit;
        if alone {
            self.oracle.alone |= bit;
        }
        self.oracle.count += 1;
        if self.verbose {
            let how = if alone { "alone" } else { "on both" };
            self.note(host, &format!("acknowledges w{} {how}", bit.trailing_zeros()));
        }
        let disk = &self.hosts[host].disk;
        let lost = self.oracle.acked & !disk.data;
        if lost != 0 && !self.oracle.excused {
            let what = format!("I1/I3: {} acknowledges but lacks {lost:b}", self.hosts[host].config.node);
            self.oracle.break_(what);
        }
        let other = &self.hosts[1 - host];
        if !alone && other.disk.data & bit == 0 && !other.disk.rebooted {
            self.oracle.break_("I3: acknowledged as on both, the other lacks it".to_owned());
        }
    }

    /// The replicator was told that it may acknowledge alone.
    pub fn check_settle(&mut self, host: usize) {
        let machine = &self.hosts[host];
        let lineage = &machine.disk.hard.lineage;
        let settled = machine.replicator.as_ref().and_then(|replicator| replicator.settled);
        if settled.is_some() && !(lineage.settled && lineage.current == settled) {
            let what = format!("{}: settled in the replicator, not on disk", machine.config.node);
            self.oracle.break_(what);
        }
    }

    /// The replicator was told to mount.
    pub fn check_mount(&mut self, host: usize) {
        let machine = &self.hosts[host];
        if !machine.disk.hard.consistent || machine.disk.hard.outdated {
            let what = format!("I2: {} mounts a copy that is inconsistent or outdated", machine.config.node);
            self.oracle.break_(what);
        }
    }

    /// What a node says of itself is true.
    pub fn check_told(&mut self, host: usize, view: &View) {
        let machine = &self.hosts[host];
        let active = machine.mounted() || machine.addresses || machine.application;
        if active && (view.fenced.is_some() || !view.serving) {
            let what = format!(
                "I4: {} says it does not serve (mounted {}, addresses {}, application {})",
                machine.config.node,
                machine.mounted(),
                machine.addresses,
                machine.application
            );
            self.oracle.break_(what);
        }
        let durable = &machine.disk.hard;
        if view.lineage.current != durable.lineage.current
            || view.outdated != durable.outdated
            || view.term != durable.term
        {
            let what = format!("{} speaks of what is not durable", machine.config.node);
            self.oracle.break_(what);
        }
    }

    /// The target's copy changed: what only it had was acknowledged alone, and is kept.
    pub fn check_replaced(&mut self, target: usize, before: Writes) {
        let (to, from) = (&self.hosts[target].disk, &self.hosts[1 - target].disk);
        let gone = before & !to.data & !from.data & self.oracle.acked & self.oracle.alone;
        if gone & !to.archived != 0 && !self.oracle.discarded {
            let node = &self.hosts[target].config.node;
            let what = format!("I1: what {node} alone acknowledged is replaced and was not kept: {gone:b}");
            self.oracle.break_(what);
        }
    }

    /// What a resync brings is received by a copy that is known to be between two states, whatever is lost next.
    pub fn check_received(&mut self, target: usize) {
        let machine = &self.hosts[target];
        if machine.disk.hard.consistent {
            let what = format!("I2: {} is changed by a resync but recorded consistent", machine.config.node);
            self.oracle.break_(what);
        }
    }

    /// A resync ended: `covers` is what its plan looked at.
    pub fn check_copied(&mut self, source: usize, covers: Writes) {
        let (from, to) = (self.hosts[source].disk.data, self.hosts[1 - source].disk.data);
        if from != to {
            let what = format!("I5/I6: copies differ after resync by {:b}, looked at {covers:b}", from ^ to);
            self.oracle.break_(what);
        }
        let lost = self.oracle.acked & !from;
        if lost != 0 {
            if self.oracle.excused {
                self.oracle.acked &= from;
            } else {
                let node = &self.hosts[source].config.node;
                let what = format!("I3: {node} became source but lacks acknowledged {lost:b}");
                self.oracle.break_(what);
            }
        }
        self.hosts[1 - source].disk.rebooted = false;
        self.hosts[1 - source].disk.failed = false;
        self.oracle.alone = 0;
        self.hosts.iter_mut().for_each(|host| host.disk.archived = 0);
        if !self.all_cut() {
            self.oracle.excused = false;
        }
    }

    /// What a loss of power may take with it by DESIGN: what only one page cache held.
    pub fn forget_what_power_took(&mut self, host: usize) {
        let both = self.hosts[1 - host].disk.rebooted;
        let (mine, other) = (&self.hosts[host].disk, &self.hosts[1 - host].disk);
        if both {
            self.oracle.acked &= !(mine.since | other.since);
        }
        let other_data = if other.hard.consistent && !other.failed { other.data } else { 0 };
        self.oracle.acked &= mine.data | other_data;
        if mine.hard.lineage.base.is_some() {
            self.oracle.acked &= !((mine.dirty | mine.since) & !mine.data);
        }
    }

    /// The disk failed: what the other host lost before is on no good copy any more.
    pub fn forget_what_the_disk_took(&mut self, host: usize) {
        self.hosts[host].disk.failed = true;
        let other = &self.hosts[1 - host].disk;
        if other.rebooted || !other.hard.consistent {
            self.oracle.acked &= other.data;
        }
    }

    pub fn check(&mut self) -> Result<(), String> {
        if self.all_cut() && !self.lock() {
            self.oracle.excused = true;
        }
        if self.served_stale() {
            self.oracle.excused = true;
            self.oracle.forced = true;
        }
        if let Some(broken) = self.oracle.broken.take() {
            return Err(broken);
        }
        self.check_exclusion()?;
        for host in 0..2 {
            self.check_copy(host)?;
        }
        Ok(())
    }

    /// A stale copy was let to serve by `sync_delta`: what was lost by that is no fault.
    fn served_stale(&self) -> bool {
        let may = !self.hosts[0].config.sync_delta.is_zero() && !self.lock();
        may && self.hosts.iter().any(|host| host.disk.hard.lineage.forced)
    }

    fn check_exclusion(&self) -> Result<(), String> {
        if self.oracle.excused {
            return Ok(());
        }
        let [a, b] = &self.hosts;
        if !a.alive() || !b.alive() || self.now.since(a.woke) <= GRACE || self.now.since(b.woke) <= GRACE {
            return Ok(());
        }
        if a.addresses && b.addresses {
            return Err("I1: both hold the addresses".to_owned());
        }
        if a.application && b.application && a.mounted() && b.mounted() {
            return Err("I1: the application runs on both".to_owned());
        }
        let settled = |host: &super::host::Host| {
            host.replicator
                .as_ref()
                .is_some_and(|replicator| replicator.settled.is_some() && replicator.mounted)
        };
        if settled(a) && settled(b) {
            return Err("I1: both may acknowledge".to_owned());
        }
        Ok(())
    }

    fn check_copy(&self, host: usize) -> Result<(), String> {
        let machine = &self.hosts[host];
        let node = &machine.config.node;
        let disk = &machine.disk;
        let other = &self.hosts[1 - host].disk.hard.lineage;
        let lacks = self.oracle.acked & !disk.data;
        let settled = machine.replicator.as_ref().is_some_and(|replicator| replicator.settled.is_some());
        if machine.mounted() && disk.hard.outdated {
            return Err(format!("I2: {node} serves a copy that is outdated"));
        }
        if machine.mounted() && settled && lacks != 0 && !self.oracle.excused {
            return Err(format!("I3: {node} serves alone but lacks {lacks:b}"));
        }
        let Some(agent) = &machine.agent else { return Ok(()) };
        if agent.core.may_promote() && machine.alive() && !other.settled && lacks != 0 && !self.oracle.excused
        {
            return Err(format!("I7: {node} may promote but lacks {lacks:b}"));
        }
        Ok(())
    }
}
