//! What the workers of a module tell the owner loop.

use safe_failover::Event;
use safe_failover::event::Command;
use safe_proto::module::{AddressStatus, ArbiterStatus, VerifyStatus};
use safe_proto::replication::{Progress, StreamFigures};
use tokio::sync::mpsc;

use super::ModuleName;

/// One report, from a worker of the runtime with that number: a report of an earlier runtime is dropped.
#[derive(Debug)]
pub struct Report {
    /// Module.
    pub module: ModuleName,
    /// Number of the module's runtime.
    pub runtime: u64,
    /// What.
    pub what: What,
}

/// What is reported.
#[derive(Debug)]
pub enum What {
    /// An event for the core.
    Core(Event),
    /// Progress of a resync.
    Progress(Progress),
    /// A comparison of the copies, running or the last one; none: there was none.
    Verification(Option<Box<VerifyStatus>>),
    /// It is time for a comparison, if the copies are in step.
    VerifyDue,
    /// Figures of the replication stream.
    Figures(StreamFigures),
    /// Addresses of the module, as they are now on this node.
    Addresses(Vec<AddressStatus>),
    /// What is known of the module's arbiters.
    Arbiters(Vec<ArbiterStatus>),
    /// What a person should put right although the module runs.
    Warnings(Vec<String>),
    /// The peer's replicator says that its agent is back.
    PeerAgentBack,
    /// A command ended.
    Answer(Command, Result<(), String>),
}

/// A worker's way to the owner loop.
#[derive(Debug, Clone)]
pub struct Reporter {
    /// Module.
    pub module: ModuleName,
    /// See [`Report::runtime`].
    pub runtime: u64,
    /// The loop's inbox.
    pub reports: mpsc::Sender<Report>,
}

impl Reporter {
    /// Reports; waits for room. The loop always makes some, or the daemon ends.
    pub async fn tell(&self, what: What) {
        let report = Report { module: self.module.clone(), runtime: self.runtime, what };
        // The loop has ended: so will the daemon.
        let _ended = self.reports.send(report).await;
    }

    /// Reports an event for the core.
    pub async fn event(&self, event: Event) {
        self.tell(What::Core(event)).await;
    }
}
