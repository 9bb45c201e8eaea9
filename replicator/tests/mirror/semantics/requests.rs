//! What the kernel asked and what was made durable, counted in the log of a replicator.

use crate::node::Node;

/// From one instant on.
pub(crate) struct Requests<'a> {
    node: &'a Node,
    from: usize,
}

/// What a node logs besides, so that this works.
pub(crate) const LOG: &str = ",safe_replicator::fuse::session=trace,safe_replicator::carry=trace";

impl<'a> Requests<'a> {
    pub(crate) fn of(node: &'a Node) -> Self {
        Self { node, from: node.log().len() }
    }

    fn lines(&self, what: &str) -> usize {
        self.node.log()[self.from..].lines().filter(|line| line.contains(what)).count()
    }

    /// Requests with this number in linux/fuse.h.
    pub(crate) fn with_code(&self, opcode: u32) -> usize {
        self.lines(&format!("opcode={opcode} "))
    }

    /// Objects made durable.
    pub(crate) fn durable(&self) -> usize {
        self.lines("made durable")
    }
}
