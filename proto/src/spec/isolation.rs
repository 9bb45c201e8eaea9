//! What a full isolation does to a module, and what its arbiters guarantee: said before the day, in one line each.

use super::{ArbiterKind, Isolation, Kind, ModuleSpec};

impl ModuleSpec {
    /// What happens if every lan between the two nodes is cut; none: not a mirror module.
    #[must_use]
    pub fn isolation(&self) -> Option<&'static str> {
        if self.module.kind != Kind::Mirror {
            return None;
        }
        Some(if self.arbiter.iter().any(|arbiter| arbiter.kind.is_lock()) {
            "if every lan is cut, the node that gets the arbiter's record serves and the other waits; if neither reaches \
             the arbiter, or the serving node dies while it is down, nobody serves until a lan or the arbiter is back or \
             a person decides"
        } else if !self.arbiter.is_empty() {
            "if every lan is cut, a node that reaches an arbiter serves and one that reaches none waits: such arbiters \
             exclude nothing, so both may serve where both reach one"
        } else {
            match self.module.isolation {
                Isolation::Alone => {
                    "no arbiter: if every lan is cut, both nodes serve, and on repair the changes of one are given up \
                     (isolation = \"wait\" avoids that)"
                }
                Isolation::Wait => {
                    "no arbiter: if every lan is cut, or the serving node dies, nobody serves until the lans are back or \
                     a person decides (isolation = \"wait\")"
                }
            }
        })
    }
}

impl ArbiterKind {
    /// What it guarantees and what not, in one line.
    #[must_use]
    pub fn guarantee(self) -> &'static str {
        match self {
            Self::Ping | Self::Tcp | Self::Http | Self::Command => {
                "answers only \"am I the isolated one?\": a node that it does not answer does not serve; it does not keep \
                 two nodes that both reach it from serving at once, and while it is down nobody takes over by silence alone"
            }
            Self::Witness | Self::Etcd | Self::Kubernetes => {
                "holds one record, which one node at a time can change: no write is acknowledged by two nodes, whatever the \
                 clocks do; its own outage never stops a good pair, but while it lasts nobody takes over by silence alone"
            }
        }
    }
}
