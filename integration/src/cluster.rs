//! A cluster under test.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Context as _, Error, Result};
use crate::eventually::eventually;
use crate::guardian::Charge;
use crate::host::Host;
use crate::lan::{DEFAULT, LANS, Lan, Network};
use crate::module::Module;
use crate::node::Node;
use crate::status::{Phase, State, Status};
use crate::{interrupt, place, prerequisites, report};

/// A state is reached within this time, also on a busy machine: scripts and resyncs of tests are short.
pub const SOON: Duration = Duration::from_secs(60);

/// No host has it: what is sent there is lost without a word.
const NOWHERE: &str = "02:00:00:00:00:01";

/// Two nodes, the networks between them, and a directory with all they have.
#[derive(Debug)]
pub struct Cluster {
    name: String,
    nodes: Vec<Node>,
    directory: PathBuf,
    network: Arc<Network>,
    finished: bool,
}

impl Cluster {
    /// Two hosts; no daemon runs.
    pub fn bare(name: &str) -> Result<Self> {
        prerequisites::check()?;
        let directory = place::for_cluster(name)?;
        let charge = Charge {
            name: name.to_owned(),
            lock: Some(place::lock_of(&directory)),
            remove: Some(directory.clone()),
            ..Charge::default()
        };
        let network = Arc::new(Network::new(&charge)?);
        let boot = |name: &str, number| Host::boot(Arc::clone(&network), &directory, name, number, &LANS);
        let nodes = vec![Node::new(boot("n1", 1)?), Node::new(boot("n2", 2)?)];
        Ok(Self { name: name.to_owned(), nodes, directory, network, finished: false })
    }

    /// Two nodes that are a cluster.
    pub fn two_nodes(name: &str) -> Result<Self> {
        let cluster = Self::bare(name)?;
        cluster.form()?;
        Ok(cluster)
    }

    /// Starts both daemons and makes them a cluster.
    pub fn form(&self) -> Result<()> {
        self.nodes.iter().try_for_each(Node::start_agent)?;
        let (first, second, name) = (&self.nodes[0], &self.nodes[1], &self.name);
        let token = first.safectl(&format!(
            "cluster init --name {name} --node {} {}",
            first.name,
            first.address_options()
        ))?;
        second.safectl(&format!(
            "cluster join {token} --node {} {}",
            second.name,
            second.address_options()
        ))?;
        Ok(())
    }

    /// n1 is 0, n2 is 1.
    pub fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    /// The node with this name.
    pub fn named(&self, name: &str) -> Result<&Node> {
        self.nodes.iter().find(|node| node.name == name).context(|| format!("no node {name}"))
    }

    /// The other one.
    pub fn peer_of(&self, node: &Node) -> &Node {
        &self.nodes[usize::from(node.name == self.nodes[0].name)]
    }

    /// Both.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The cluster's own directory; the hosts see it at the same path.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// One more host on the production network, without a daemon.
    pub fn client(&self, name: &str, number: u8) -> Result<Host> {
        self.host(name, number, &[DEFAULT])
    }

    /// One more host on these networks.
    pub fn host(&self, name: &str, number: u8, lans: &[Lan]) -> Result<Host> {
        Host::boot(Arc::clone(&self.network), &self.directory, name, number, lans)
    }

    /// Writes the module's directory and answers where.
    pub fn write_module(&self, module: &Module) -> Result<PathBuf> {
        let directory = self.directory.join("modules").join(module.name());
        if directory.exists() {
            std::fs::remove_dir_all(&directory)?;
        }
        module.write(&directory)?;
        Ok(directory)
    }

    /// Installs a module on both nodes; its directories are made where they are missing.
    pub fn install_module(&self, module: &Module) -> Result<()> {
        for node in &self.nodes {
            for path in module.directories() {
                std::fs::create_dir_all(node.outside(path)).context(|| path.clone())?;
            }
        }
        let directory = self.write_module(module)?;
        self.node(0).safectl(&format!("module install {}", directory.display())).map(|_| ())
    }

    /// Installs and starts a module, both directories being empty; waits until n1 is PRIM and n2 SECOND.
    pub fn start_module(&self, module: &Module) -> Result<()> {
        self.install_module(module)?;
        self.node(0).safectl(&format!("start {}", module.name()))?;
        self.wait_pair(module.name(), "n1")
    }

    /// Waits until `primary` is PRIM and the other SECOND, both ready.
    pub fn wait_pair(&self, module: &str, primary: &str) -> Result<()> {
        let primary = self.named(primary)?;
        self.wait_state(module, &primary.name, State::Prim)?;
        self.wait_state(module, &self.peer_of(primary).name, State::Second)?;
        Ok(())
    }

    /// Waits until the node is in this state and ready, by its own words.
    pub fn wait_state(&self, module: &str, node: &str, state: State) -> Result<Status> {
        self.wait_status(module, node, &format!("{} ready", state.name()), |status| {
            status.state == state && status.phase == Some(Phase::Ready)
        })
    }

    /// Waits until the node is in this state and waits for something outside; answers what it says.
    pub fn wait_blocked(&self, module: &str, node: &str, state: State) -> Result<Status> {
        self.wait_status(module, node, &format!("{} blocked", state.name()), |status| {
            status.state == state && status.phase == Some(Phase::Blocked)
        })
    }

    /// Waits until what the node says of itself is as it should be.
    pub fn wait_status(
        &self,
        module: &str,
        node: &str,
        what: &str,
        condition: impl Fn(&Status) -> bool,
    ) -> Result<Status> {
        let node = self.named(node)?;
        let what = format!("{module} on {}: {what}", node.name);
        eventually(SOON, &what, || {
            let status = node.status(module)?;
            if condition(&status) { Ok(Some(status)) } else { Err(Error::new(status.line())) }
        })
    }

    /// Both nodes hear each other on this lan no more; no carrier changes, clients hear both.
    pub fn cut(&self, lan: Lan) -> Result<()> {
        self.network.isolate(&["n1", "n2"], lan, true)
    }

    /// Undoes a cut.
    pub fn heal(&self, lan: Lan) -> Result<()> {
        self.network.isolate(&["n1", "n2"], lan, false)
    }

    /// What the node sends to the other one over this lan goes nowhere, and nobody tells it; the other direction works.
    pub fn mute(&self, node: &Node, lan: Lan) -> Result<()> {
        let (address, interface) = (lan.address(self.peer_of(node).number), lan.interface);
        node.shell(&format!("ip neigh replace {address} lladdr {NOWHERE} dev {interface} nud permanent"))
            .map(drop)
    }

    /// Undoes that.
    pub fn unmute(&self, node: &Node, lan: Lan) -> Result<()> {
        let (address, interface) = (lan.address(self.peer_of(node).number), lan.interface);
        node.shell(&format!("ip neigh del {address} dev {interface} 2>/dev/null || true")).map(drop)
    }

    /// Pulls or plugs a node's cable: its carrier goes or returns.
    pub fn plug(&self, node: &Node, lan: Lan, plugged: bool) -> Result<()> {
        self.network.plug(&node.name, lan, plugged)
    }

    /// The test is over and all was well: no daemon said that it panicked, and everything is removed.
    pub fn finish(mut self) -> Result<()> {
        let bad = report::panics(&self.directory);
        if bad.is_empty() {
            self.finished = true;
            return Ok(());
        }
        Err(Error::new(format!("a process of the cluster panicked: {}", bad.join("; "))))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.finished && !interrupt::happened() {
            report::failure(&self.name, &self.directory);
        }
    }
}
