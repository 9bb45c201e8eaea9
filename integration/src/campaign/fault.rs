//! What a campaign does to hosts, lans and processes, and how it ends.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use crate::chance::Chance;
use crate::cluster::Cluster;
use crate::error::Result;
use crate::lan::{DEFAULT, LANS, Lan};
use crate::ledger::protected::MODULE;
use crate::node::Node;
use crate::status::State;

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    KillHost(usize),
    FreezeHost(usize),
    KillAgent(usize),
    KillReplicator(usize),
    /// Both directions of one lan.
    CutLan(Lan),
    /// Both directions of every lan.
    CutAll,
    /// What this node sends over the lan does not arrive.
    CutOneWay(usize, Lan),
    /// What this node sends over any lan does not arrive.
    CutOneWayAll(usize),
    /// The witness does not answer this node.
    LoseWitness(usize),
    /// Two administrators, each on one node, order this and that at the same time.
    Orders(Order, Order),
}

/// What an administrator types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Swap,
    Stop,
    StopStart,
    Restart,
}

impl Order {
    const ALL: [Self; 4] = [Self::Swap, Self::Stop, Self::StopStart, Self::Restart];

    fn line(self, node: &Node) -> String {
        let (verb, on) = match self {
            Self::Swap => ("swap", String::new()),
            Self::Stop => ("stop", format!(" --on {}", node.name)),
            Self::StopStart => ("stopstart", format!(" --on {}", node.name)),
            Self::Restart => ("restart", String::new()),
        };
        format!("{verb} {MODULE}{on} --no-wait --yes --timeout 5s")
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = |index: &usize| format!("n{}", index + 1);
        match self {
            Self::KillHost(at) => write!(f, "{} loses power", node(at)),
            Self::FreezeHost(at) => write!(f, "{} stands still", node(at)),
            Self::KillAgent(at) => write!(f, "safed on {} is killed", node(at)),
            Self::KillReplicator(at) => write!(f, "the replicator on {} is killed", node(at)),
            Self::CutLan(lan) => write!(f, "lan {} is cut", lan.name),
            Self::CutAll => f.write_str("every lan is cut"),
            Self::CutOneWay(at, lan) => write!(f, "lan {} is cut from {}", lan.name, node(at)),
            Self::CutOneWayAll(at) => write!(f, "every lan is cut from {}", node(at)),
            Self::LoseWitness(at) => write!(f, "the witness does not answer {}", node(at)),
            Self::Orders(one, other) => write!(f, "{one:?} on n1 and {other:?} on n2"),
        }
    }
}

/// Draws one.
pub(crate) fn draw(chance: &mut Chance) -> Fault {
    let host = usize::from(chance.below(2) == 1);
    let lan = if chance.below(2) == 0 { LANS[0] } else { LANS[1] };
    let order = |chance: &mut Chance| Order::ALL[usize::try_from(chance.below(4)).unwrap_or_default()];
    match chance.below(16) {
        0..=2 => Fault::KillHost(host),
        3 | 4 => Fault::FreezeHost(host),
        5 | 6 => Fault::KillAgent(host),
        7 | 8 => Fault::KillReplicator(host),
        9 => Fault::CutLan(lan),
        10 | 11 => Fault::CutAll,
        12 => Fault::CutOneWay(host, lan),
        13 => Fault::CutOneWayAll(host),
        14 => Fault::LoseWitness(host),
        _ => Fault::Orders(order(chance), order(chance)),
    }
}

/// Where it happens.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) cluster: Cluster,
    third: Node,
    frozen: Mutex<[bool; 2]>,
}

impl Place {
    pub(crate) fn new(cluster: Cluster, third: Node) -> Self {
        Self { cluster, third, frozen: Mutex::default() }
    }

    pub(crate) fn inject(&self, fault: Fault) -> Result<()> {
        match fault {
            Fault::KillHost(at) if self.node(at).is_on() => {
                self.set_frozen(at, false);
                self.node(at).kill_host().map(drop)
            }
            Fault::FreezeHost(at) if self.node(at).is_on() => {
                self.set_frozen(at, true);
                self.node(at).freeze()
            }
            Fault::KillAgent(at) if self.runs(at, "safed")? => self.node(at).kill_agent(),
            Fault::KillReplicator(at) if self.runs(at, "safe-replicator")? => self.node(at).kill_replicator(),
            Fault::CutLan(lan) => self.cluster.cut(lan),
            Fault::CutAll => LANS.into_iter().try_for_each(|lan| self.cluster.cut(lan)),
            Fault::CutOneWay(at, lan) => self.mute(at, lan),
            Fault::CutOneWayAll(at) => LANS.into_iter().try_for_each(|lan| self.mute(at, lan)),
            Fault::LoseWitness(at) => self.deafen(at, "replace"),
            Fault::Orders(one, other) => self.order([one, other]),
            // What is off cannot be killed.
            Fault::KillHost(_) | Fault::FreezeHost(_) | Fault::KillAgent(_) | Fault::KillReplicator(_) => {
                Ok(())
            }
        }
    }

    /// Its time is over.
    pub(crate) fn end(&self, fault: Fault) -> Result<()> {
        match fault {
            Fault::KillHost(at) => self.power_on(at),
            Fault::FreezeHost(at) => self.thaw(at),
            Fault::KillAgent(at) => self.start_agent(at),
            Fault::CutLan(lan) => self.cluster.heal(lan),
            Fault::CutAll => LANS.into_iter().try_for_each(|lan| self.cluster.heal(lan)),
            Fault::CutOneWay(at, lan) => self.unmute(at, lan),
            Fault::CutOneWayAll(at) => LANS.into_iter().try_for_each(|lan| self.unmute(at, lan)),
            Fault::LoseWitness(at) => self.deafen(at, "del"),
            Fault::KillReplicator(_) | Fault::Orders(..) => Ok(()),
        }
    }

    /// Whatever is still broken is whole again; what an administrator stopped is started.
    pub(crate) fn repair_all(&self) -> Result<()> {
        for at in 0..2 {
            self.thaw(at)?;
            self.power_on(at)?;
            self.start_agent(at)?;
            self.deafen(at, "del")?;
            for lan in LANS {
                self.unmute(at, lan)?;
                self.cluster.heal(lan)?;
            }
        }
        for node in self.cluster.nodes() {
            if node.status(MODULE)?.state == State::Stop {
                node.safectl(&format!("start {MODULE} --on {} --no-wait", node.name))?;
            }
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<()> {
        drop(self.third);
        self.cluster.finish()
    }

    fn node(&self, at: usize) -> &Node {
        self.cluster.node(at)
    }

    fn runs(&self, at: usize, program: &str) -> Result<bool> {
        let node = self.node(at);
        Ok(node.is_on() && !self.is_frozen(at) && !node.running(program)?.is_empty())
    }

    fn is_frozen(&self, at: usize) -> bool {
        self.frozen.lock().unwrap_or_else(PoisonError::into_inner)[at]
    }

    fn set_frozen(&self, at: usize, frozen: bool) {
        self.frozen.lock().unwrap_or_else(PoisonError::into_inner)[at] = frozen;
    }

    fn power_on(&self, at: usize) -> Result<()> {
        let node = self.node(at);
        if node.is_on() { Ok(()) } else { node.restart_host() }
    }

    fn thaw(&self, at: usize) -> Result<()> {
        if self.is_frozen(at) && self.node(at).is_on() {
            self.node(at).thaw()?;
        }
        self.set_frozen(at, false);
        Ok(())
    }

    /// Nothing is started on a host that stands still; the repair does it.
    fn start_agent(&self, at: usize) -> Result<()> {
        let node = self.node(at);
        if !node.is_on() || self.is_frozen(at) || !node.running("safed")?.is_empty() {
            return Ok(());
        }
        node.start_agent()
    }

    fn mute(&self, at: usize, lan: Lan) -> Result<()> {
        if self.node(at).is_on() { self.cluster.mute(self.node(at), lan) } else { Ok(()) }
    }

    fn unmute(&self, at: usize, lan: Lan) -> Result<()> {
        if self.node(at).is_on() { self.cluster.unmute(self.node(at), lan) } else { Ok(()) }
    }

    fn deafen(&self, at: usize, action: &str) -> Result<()> {
        let address = DEFAULT.address(self.node(at).number);
        let tolerant = if action == "del" { " 2>/dev/null || true" } else { "" };
        self.third.shell(&format!("ip route {action} blackhole {address}/32{tolerant}")).map(drop)
    }

    /// Each on its node, at the same time, whatever comes of it.
    fn order(&self, orders: [Order; 2]) -> Result<()> {
        std::thread::scope(|scope| {
            for (at, order) in orders.into_iter().enumerate() {
                if self.runs(at, "safed")? {
                    let node = self.node(at);
                    // Refused, or cut off by what else happens: that is part of it.
                    scope.spawn(move || drop(node.try_safectl(&order.line(node))));
                }
            }
            Ok(())
        })
    }
}
