//! What the owner loop needs from the network side.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use safe_failover::Time;
use safe_failover::view::View;
use safe_proto::settings::WitnessSettings;
use tokio::sync::watch;

/// What this node knows of the cluster it belongs to; replaced as a whole at each change.
#[derive(Debug, Clone)]
pub struct Membership {
    /// Cluster name.
    pub cluster: String,
    /// This node.
    pub node: String,
    /// Version of the cluster settings.
    pub version: u64,
    /// Lans, in the order of the settings; the first is the default one.
    pub lans: Vec<String>,
    /// Nodes, in the order they joined; this one included.
    pub nodes: Vec<Member>,
    /// Ports of every node.
    pub ports: Ports,
    /// Witnesses that the cluster knows.
    pub witnesses: Vec<WitnessSettings>,
    /// Cluster CA, PEM.
    pub ca: String,
    /// This node's certificate, PEM.
    pub certificate: String,
    /// Its key, PEM.
    pub key: String,
    /// Key of the heartbeats.
    pub heartbeat_key: [u8; 32],
}

impl Membership {
    /// Every node with each of its addresses.
    #[must_use]
    pub fn addresses(&self) -> Vec<(String, IpAddr)> {
        let of = |member: &Member| {
            let name = member.name.clone();
            member.addresses.values().map(move |ip| (name.clone(), *ip)).collect::<Vec<_>>()
        };
        self.nodes.iter().flat_map(of).collect()
    }

    /// `HOST:PORT` of every witness.
    #[must_use]
    pub fn witness_targets(&self) -> Vec<String> {
        self.witnesses.iter().map(|witness| witness.target.clone()).collect()
    }
}

/// A node of the cluster.
#[derive(Debug, Clone)]
pub struct Member {
    /// Name.
    pub name: String,
    /// Address on each lan it is on, by lan.
    pub addresses: BTreeMap<String, IpAddr>,
}

/// Ports, the same on every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// gRPC (9400).
    pub api: u16,
    /// Heartbeats (9401/udp).
    pub heartbeat: u16,
    /// Replication streams (9402).
    pub stream: u16,
}

/// What the heartbeat thread must know of one module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeats {
    /// The module's other node.
    pub peer: String,
    /// Lans it wants heartbeats on; their index is the one in `NodeEvent::Lan`.
    pub lans: Vec<String>,
    /// Interval it asks for.
    pub interval: Duration,
    /// Silence after which a lan counts as down.
    pub timeout: Duration,
}

/// What a replicator says in the agent's place while that is gone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StandIn {
    /// Body of a heartbeat datagram (`safe.peer.v1.Heartbeat`), not yet sealed, with the view "my agent is gone".
    pub heartbeat: Vec<u8>,
    /// The same once the replicator has fenced itself.
    pub fenced: Vec<u8>,
    /// The peer's heartbeat address on each lan of the cluster settings, so that the index of `Network::sockets` finds
    /// it; 0.0.0.0:0 for a lan the module does not use.
    pub peers: Vec<SocketAddr>,
}

/// The network side, as the owner loop and the replicators' keepers use it. No method waits.
pub trait Network: Send + Sync + 'static {
    /// The cluster; none before init or join.
    fn membership(&self) -> watch::Receiver<Option<Arc<Membership>>>;

    /// Begins (or changes) the heartbeats of a module. `Lan` events follow; every lan is down before the first.
    fn watch_module(&self, module: &str, heartbeats: Heartbeats);

    /// Another core of the module listens from now on, and begins with every lan down and no view of the peer. What is
    /// sent stays what was published last.
    fn listen_anew(&self, module: &str);

    /// Ends them.
    fn forget_module(&self, module: &str);

    /// Sends this view now, and in each heartbeat until the next one.
    fn publish(&self, module: &str, view: View);

    /// Instant of the last authenticated packet of that node, on any lan; changes with each one.
    fn contact(&self, peer: &str) -> watch::Receiver<Option<Time>>;

    /// Duplicates of the heartbeat sockets towards the module's other node, one for each of its lans, with the index
    /// that the lan has in the cluster settings: stand-ins write it into their datagrams.
    fn sockets(&self, module: &str) -> Vec<(u8, OwnedFd)>;

    /// What the module's replicator is to say should the agent go: bodies made from the core's two stand-in views.
    /// Asked for after each `publish`. None: no heartbeats run for this module.
    fn stand_in(&self, module: &str, gone: View, fenced: View) -> Option<StandIn>;
}
