//! Lock arbiters with one record each, and reachability.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::Event;
use crate::event::ArbiterEvent;
use crate::left_out::LeftOut;
use crate::lineage::LineageId;
use crate::lock::Lock;

use super::{Happening, World};

#[derive(Debug, Clone, Hash)]
pub enum Request {
    Read(Lock),
    Swap { lock: Lock, expect: Option<LineageId>, new: LineageId },
    Reachable,
}

impl Request {
    const fn lock(&self) -> Option<&Lock> {
        match self {
            Self::Read(lock) | Self::Swap { lock, .. } => Some(lock),
            Self::Reachable => None,
        }
    }
}

/// The records, and who can reach them.
#[derive(Debug, Clone, Default, Hash)]
pub struct Witness {
    pub records: BTreeMap<Lock, LineageId>,
    /// These answer nobody any more.
    pub dead: BTreeSet<Lock>,
    pub unreachable: [bool; 2],
    /// It sets the record as this host asks, which does not hear of it.
    pub unheard: [bool; 2],
}

impl World {
    pub fn ask(&mut self, host: usize, request: Request) {
        let life = self.hosts[host].agent_life;
        let mut delay = self.upto(self.chance.packet);
        if self.random.percent(self.chance.late * 3) {
            // A request may land long after its sender gave up.
            delay += self.upto(Duration::from_secs(4));
            if let Some(lock) = request.lock().cloned() {
                let answer = ArbiterEvent::Unreachable;
                self.after(Duration::from_millis(200), Happening::ArbiterAnswer { host, life, lock, answer });
            }
        }
        self.after(delay, Happening::Arbiter { host, life, request });
    }

    pub fn arbitrate(&mut self, host: usize, life: u64, request: Request) {
        self.deeds += 1;
        let delay = self.upto(self.chance.packet);
        let Some(lock) = request.lock().cloned() else {
            let reachable = !self.witness.unreachable[host];
            self.after(delay, Happening::ToAgent { host, life, event: Event::Reachable(reachable) });
            return;
        };
        let swap = matches!(request, Request::Swap { .. });
        let blind = self.hosts[host].config.lacks(LeftOut::RecordIsCompared);
        let record = self.witness.records.get(&lock).copied();
        let answer = if self.witness.unreachable[host] || self.witness.dead.contains(&lock) {
            ArbiterEvent::Unreachable
        } else {
            match request {
                Request::Swap { expect, new, .. } if expect == record || blind => {
                    self.witness.records.insert(lock.clone(), new);
                    self.note(host, &format!("record of {lock}: {new}"));
                    ArbiterEvent::Swapped(new)
                }
                Request::Swap { .. } => ArbiterEvent::Refused(record),
                Request::Read(_) | Request::Reachable => ArbiterEvent::Value(record),
            }
        };
        if (swap && self.witness.unheard[host]) || self.random.percent(self.chance.loss) {
            return;
        }
        self.after(delay, Happening::ArbiterAnswer { host, life, lock, answer });
    }
}
