//! A lock arbiter with one record, and reachability.

use std::time::Duration;

use crate::Event;
use crate::event::ArbiterEvent;
use crate::left_out::LeftOut;
use crate::lineage::LineageId;

use super::{Happening, World};

#[derive(Debug, Clone, Hash)]
pub enum Request {
    Read,
    Swap { expect: Option<LineageId>, new: LineageId },
    Reachable,
}

/// The record, and who can reach it.
#[derive(Debug, Clone, Default, Hash)]
pub struct Witness {
    pub record: Option<LineageId>,
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
            let answer = ArbiterEvent::Unreachable;
            self.after(Duration::from_millis(200), Happening::ArbiterAnswer { host, life, answer });
        }
        self.after(delay, Happening::Arbiter { host, life, request });
    }

    pub fn arbitrate(&mut self, host: usize, life: u64, request: Request) {
        self.deeds += 1;
        let delay = self.upto(self.chance.packet);
        if matches!(request, Request::Reachable) {
            let reachable = !self.witness.unreachable[host];
            self.after(delay, Happening::ToAgent { host, life, event: Event::Reachable(reachable) });
            return;
        }
        let swap = matches!(request, Request::Swap { .. });
        let blind = self.hosts[host].config.lacks(LeftOut::RecordIsCompared);
        let answer = if self.witness.unreachable[host] {
            ArbiterEvent::Unreachable
        } else {
            match request {
                Request::Swap { expect, new } if expect == self.witness.record || blind => {
                    self.witness.record = Some(new);
                    self.note(host, &format!("record: {new}"));
                    ArbiterEvent::Swapped(new)
                }
                Request::Swap { .. } => ArbiterEvent::Refused(self.witness.record),
                Request::Read | Request::Reachable => ArbiterEvent::Value(self.witness.record),
            }
        };
        if (swap && self.witness.unheard[host]) || self.random.percent(self.chance.loss) {
            return;
        }
        self.after(delay, Happening::ArbiterAnswer { host, life, answer });
    }
}
