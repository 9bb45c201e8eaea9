//! Versions of the module: installed on one host, and fetched by the other one once they hear each other.

use std::time::Duration;

use crate::config::ArbiterKind;
use crate::lock::Lock;

use super::{Happening, World};

/// A difference is looked at when it has lasted so long.
const SETTLE: Duration = Duration::from_secs(3);

impl World {
    /// A version that decides by this lock arbiter is put in force on this host: another core takes over.
    pub fn install(&mut self, host: usize, lock: Lock) {
        if !self.hosts[host].alive() {
            return;
        }
        let version = self.hosts[0].version.max(self.hosts[1].version) + 1;
        let kind = if lock.is_none() { ArbiterKind::None } else { ArbiterKind::Lock };
        self.put_in_force(host, version, kind, lock);
    }

    fn put_in_force(&mut self, host: usize, version: u64, kind: ArbiterKind, lock: Lock) {
        self.note(host, &format!("gets version {version}: {lock}"));
        let machine = &mut self.hosts[host];
        machine.version = version;
        machine.config.arbiter = kind;
        machine.config.lock = lock;
        if machine.agent.is_some() {
            let start = machine.disk.hard.desired == crate::hard::Desired::Started;
            self.kill_agent(host);
            self.start_agent(host, start);
        }
    }

    /// A host heard of another version.
    pub(super) fn look_at_version(&mut self, host: usize) {
        let behind = self.hosts[host].version < self.hosts[1 - host].version;
        if behind && !self.hosts[host].catching_up {
            self.hosts[host].catching_up = true;
            self.after(SETTLE, Happening::CatchUp { host });
        }
    }

    pub(super) fn catch_up(&mut self, host: usize) {
        self.hosts[host].catching_up = false;
        let other = &self.hosts[1 - host];
        let answers = other.alive() && other.agent.is_some();
        let hears = self.lans.iter().any(|lan| lan.cut == [false, false]);
        let behind = self.hosts[host].version < other.version && self.hosts[host].agent.is_some();
        if answers && hears && behind {
            let (version, kind, lock) = (other.version, other.config.arbiter, other.config.lock.clone());
            self.put_in_force(host, version, kind, lock);
        }
    }
}
