//! A protected ledger under load: the cluster, its client and its referee, for tests that break something meanwhile.

use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::disk::Disk;
use crate::error::{Context as _, Error, Result};
use crate::eventually::{eventually, eventually_true};
use crate::host::Host;
use crate::ledger::client::Client;
use crate::ledger::protected::{ADDRESS, DIRECTORY, MODULE, endpoint, module};
use crate::module::Module;
use crate::node::Node;
use crate::referee::Referee;
use crate::status::{State, Status};
use crate::tree;

/// Writes go on within this time whatever happened: heartbeat timeout, script, and a busy machine.
pub const AGAIN: Duration = Duration::from_secs(45);

/// A cluster that serves a ledger; n1 is PRIM and n2 SECOND at first.
#[derive(Debug)]
pub struct Service {
    /// The cluster.
    pub cluster: Cluster,
    /// Writes all the time.
    pub client: Client,
    /// What lies below the ledger on each node, if it is not the host's own disk.
    pub disks: [Option<Disk>; 2],
    referee: Option<Referee>,
    /// The client's host; it goes when the client has gone.
    _outside: Host,
}

impl Service {
    /// Two nodes with the ledger, the client writing.
    pub fn start(name: &str) -> Result<Self> {
        Self::start_with(name, module()?)
    }

    /// As [`Service::start`], with a module that was changed in something.
    pub fn start_with(name: &str, module: Module) -> Result<Self> {
        Self::start_on(name, module, |_| Ok([None, None]))
    }

    /// As [`Service::start_with`], on disks of their own as `attach` makes them.
    pub fn start_on(
        name: &str,
        module: Module,
        attach: impl FnOnce(&Cluster) -> Result<[Option<Disk>; 2]>,
    ) -> Result<Self> {
        Self::start_in(name, |cluster| Ok((module, attach(cluster)?)))
    }

    /// As [`Service::start`], with a module that needs something of the cluster, such as a witness.
    pub fn start_prepared(name: &str, prepare: impl FnOnce(&Cluster) -> Result<Module>) -> Result<Self> {
        Self::start_in(name, |cluster| Ok((prepare(cluster)?, [None, None])))
    }

    fn start_in(
        name: &str,
        prepare: impl FnOnce(&Cluster) -> Result<(Module, [Option<Disk>; 2])>,
    ) -> Result<Self> {
        let cluster = Cluster::two_nodes(name)?;
        let (module, disks) = prepare(&cluster)?;
        Self::on(cluster, &module, disks)
    }

    /// In a cluster that was made otherwise.
    pub fn on(cluster: Cluster, module: &Module, disks: [Option<Disk>; 2]) -> Result<Self> {
        let outside = cluster.client("client", 100)?;
        cluster.start_module(module)?;
        let client = Client::start(&outside, endpoint()?)?;
        let referee = Referee::watch(&cluster, ADDRESS);
        let service = Self { cluster, client, disks, referee: Some(referee), _outside: outside };
        service.writes(50)?;
        Ok(service)
    }

    /// A node.
    pub fn node(&self, index: usize) -> &Node {
        self.cluster.node(index)
    }

    /// Waits for so many more acknowledged writes.
    pub fn writes(&self, more: usize) -> Result<()> {
        let enough = self.client.count() + more;
        eventually_true(AGAIN, &format!("{more} more acknowledged writes"), || self.client.count() >= enough)
    }

    /// Waits for a write that was sent after the moment; how long after it the answer came.
    pub fn served_after(&self, moment: Instant) -> Result<Duration> {
        let first = eventually(AGAIN, "the ledger answers again", || Ok(self.client.first_after(moment)))?;
        Ok(first.heard.saturating_duration_since(moment))
    }

    /// Number of the ledger's process on a node; it stays the same as long as the application is not disturbed.
    pub fn application(&self, node: &Node) -> Result<u32> {
        node.running("ledger")?.first().copied().context(|| format!("no ledger runs on {}", node.name))
    }

    /// Waits until the node is in this state and ready.
    pub fn wait(&self, node: &Node, state: State) -> Result<Status> {
        self.cluster.wait_state(MODULE, &node.name, state)
    }

    /// Waits until this node is PRIM and the other SECOND.
    pub fn wait_pair(&self, primary: &Node) -> Result<()> {
        self.cluster.wait_pair(MODULE, &primary.name)
    }

    /// For faults after which the address may stand on both hosts for a moment: a frozen host cannot take it away.
    #[must_use]
    pub fn without_referee(mut self) -> Self {
        self.referee = None;
        self
    }

    fn assert_equal(&self) -> Result<()> {
        if self.disks.iter().all(Option::is_none) {
            return tree::assert_equal(&self.cluster, DIRECTORY);
        }
        let below: Vec<_> = (0..2)
            .map(|index| {
                self.disks[index]
                    .as_ref()
                    .map_or_else(|| self.node(index).outside(DIRECTORY).display().to_string(), Disk::below)
            })
            .collect();
        tree::assert_equal_inside(&self.cluster, [&below[0], &below[1]])
    }

    /// Ends everything where losses were wanted: nothing is checked but that no daemon panicked.
    pub fn end(mut self) -> Result<()> {
        self.client.stop()?;
        self.referee = None;
        drop(self.client);
        self.cluster.finish()
    }

    /// Ends the load and checks what was promised: nothing acknowledged is lost, both copies are equal, the address
    /// never was on both hosts. Both nodes must be in step.
    pub fn finish(mut self) -> Result<()> {
        self.writes(20)?;
        self.client.stop()?;
        let lost = eventually(AGAIN, "the ledger answers", || self.client.lost().map(Some))?;
        if !lost.is_empty() {
            return Err(Error::new(format!(
                "{} of {} acknowledged writes are lost: {:?}",
                lost.len(),
                self.client.count(),
                &lost[..lost.len().min(10)]
            )));
        }
        self.assert_equal()?;
        self.referee.take().map_or(Ok(()), Referee::verdict)?;
        drop(self.client);
        self.cluster.finish()
    }
}
