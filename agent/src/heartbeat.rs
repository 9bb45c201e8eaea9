//! Heartbeats: one stream of small authenticated datagrams to each other node on each lan, and what they tell.
//!
//! A thread of its own sends and receives; it never waits for a disk, a lock held for long, or the owner loop. What it
//! is told (modules, views) it takes from a plan when woken; what it hears it offers to the loop and offers again.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use safe_failover::Time;
use safe_failover::view::View;
use safe_proto::datagram::Key;
use safe_proto::peer as wire;
use tokio::sync::watch;

use crate::audit::Audit;
use crate::node::{Heartbeats, ModuleName, NodeHandle, StandIn};
use crate::peer::convert::view_to_wire;

mod beat;
mod judge;
mod link;
mod packet;
mod sockets;
mod strangers;
mod thread;

pub use sockets::bind;
pub(crate) use sockets::free;

/// Interval towards a node with which no module is shared.
const IDLE_INTERVAL: Duration = Duration::from_millis(300);
/// Timeout by which `GetCluster` calls a lan up.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3);

/// In the place of a lan that a module does not use.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

/// What heartbeats must know of the cluster.
#[derive(Debug, Clone)]
pub struct ClusterPlan {
    /// This node.
    pub node: String,
    /// Key of all datagrams.
    pub key: Key,
    /// Version of the settings.
    pub version: u64,
    /// Names of the lans, in the order of the settings.
    pub lans: Vec<String>,
    /// This node's socket on each lan; none: it is not on that lan.
    pub sockets: Vec<Option<Arc<UdpSocket>>>,
    /// Other nodes: where they listen, per lan.
    pub peers: BTreeMap<String, Vec<Option<SocketAddr>>>,
}

/// What is heard of one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerReport {
    /// Per lan of the settings: up in both directions, and when anything was heard last.
    pub lans: Vec<(bool, Option<Time>)>,
    /// Its agent process.
    pub incarnation: Option<u64>,
    /// Version of the settings it holds.
    pub settings_version: u64,
    /// Digest of the modules both nodes have, as it sees them.
    pub modules: u64,
}

impl PeerReport {
    /// Up on any lan.
    #[must_use]
    pub fn is_reachable(&self) -> bool {
        self.lans.iter().any(|(up, _)| *up)
    }
}

/// One module, as the thread is to treat it.
#[derive(Debug, Clone)]
struct ModulePlan {
    heartbeats: Heartbeats,
    view: Option<Arc<wire::View>>,
    /// Raised with each view.
    number: u64,
    /// Raised when another core of the module listens.
    listener: u64,
}

#[derive(Debug, Default)]
struct Plan {
    cluster: Option<Arc<ClusterPlan>>,
    modules: BTreeMap<ModuleName, ModulePlan>,
    digests: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct Shared {
    incarnation: u64,
    node: NodeHandle,
    plan: Mutex<Plan>,
    /// Raised with each change of the plan.
    generation: AtomicU64,
    wake: OwnedFd,
    stop: AtomicBool,
    contacts: Mutex<BTreeMap<String, watch::Sender<Option<Time>>>>,
    reports: Mutex<BTreeMap<String, PeerReport>>,
    notable: watch::Sender<u64>,
    strangers: strangers::Strangers,
    audit: Audit,
}

/// The heartbeats of this process.
#[derive(Debug)]
pub struct Heart {
    shared: Arc<Shared>,
    started: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Heart {
    /// Heartbeats that do not run yet.
    ///
    /// # Errors
    /// The system has no descriptors left.
    pub fn new(node: NodeHandle, audit: Audit) -> std::io::Result<Self> {
        let flags = rustix::event::EventfdFlags::NONBLOCK | rustix::event::EventfdFlags::CLOEXEC;
        let shared = Shared {
            incarnation: crate::random::nonzero(),
            node,
            plan: Mutex::default(),
            generation: AtomicU64::new(1),
            wake: rustix::event::eventfd(0, flags)?,
            stop: AtomicBool::new(false),
            contacts: Mutex::default(),
            reports: Mutex::default(),
            notable: watch::channel(0).0,
            strangers: strangers::Strangers::new(audit.clone()),
            audit,
        };
        Ok(Self { shared: Arc::new(shared), started: Mutex::new(None) })
    }

    /// Begins, or goes on with other settings.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn run(&self, cluster: ClusterPlan) -> std::io::Result<()> {
        self.shared.change(|plan| plan.cluster = Some(Arc::new(cluster)));
        let mut started = self.started.lock();
        if started.is_none() {
            let shared = Arc::clone(&self.shared);
            let thread = std::thread::Builder::new().name("heartbeat".to_owned());
            *started = Some(thread.spawn(move || thread::run(&shared))?);
        }
        Ok(())
    }

    /// See `Network::watch_module`.
    pub fn watch_module(&self, module: &str, heartbeats: Heartbeats) {
        self.shared.change(|plan| {
            let plan = plan.modules.entry(module.to_owned()).or_insert_with(|| ModulePlan {
                heartbeats: heartbeats.clone(),
                view: None,
                number: 0,
                listener: 0,
            });
            plan.heartbeats = heartbeats;
        });
    }

    /// See `Network::listen_anew`.
    pub fn listen_anew(&self, module: &str) {
        self.shared.change(|plan| {
            if let Some(module) = plan.modules.get_mut(module) {
                module.listener += 1;
            }
        });
    }

    /// See `Network::forget_module`.
    pub fn forget_module(&self, module: &str) {
        self.shared.change(|plan| drop(plan.modules.remove(module)));
    }

    /// See `Network::publish`.
    pub fn publish(&self, module: &str, view: &View) {
        let view = Arc::new(view_to_wire(view));
        self.shared.change(|plan| {
            if let Some(module) = plan.modules.get_mut(module) {
                module.view = Some(view);
                module.number += 1;
            }
        });
    }

    /// Digest of the modules this node has in common with that one.
    pub fn set_digest(&self, peer: &str, digest: u64) {
        self.shared.change(|plan| {
            plan.digests.insert(peer.to_owned(), digest);
        });
    }

    /// See `Network::contact`: when the newest datagram that the node echoes was sent by this one, which is what a
    /// promise may rest on; when the echo was read says nothing if this host was frozen meanwhile.
    #[must_use]
    pub fn contact(&self, peer: &str) -> watch::Receiver<Option<Time>> {
        let mut contacts = self.shared.contacts.lock();
        contacts.entry(peer.to_owned()).or_insert_with(|| watch::channel(None).0).subscribe()
    }

    /// What is heard of each node.
    #[must_use]
    pub fn reports(&self) -> BTreeMap<String, PeerReport> {
        self.shared.reports.lock().clone()
    }

    /// Changes whenever a node appears, restarts, or holds other settings or modules than before.
    #[must_use]
    pub fn notable(&self) -> watch::Receiver<u64> {
        self.shared.notable.subscribe()
    }

    /// See `Network::sockets`: the index is that of the cluster settings, which stand-ins write in their frames.
    #[must_use]
    pub fn sockets(&self, module: &str) -> Vec<(u8, OwnedFd)> {
        let plan = self.shared.plan.lock();
        let ways = plan.ways(module);
        ways.into_iter()
            .filter_map(|(lan, socket, _)| Some((lan, OwnedFd::from(socket.try_clone().ok()?))))
            .collect()
    }

    /// See `Network::stand_in`.
    #[must_use]
    pub fn stand_in(&self, module: &str, gone: &View, fenced: &View) -> Option<StandIn> {
        let plan = self.shared.plan.lock();
        let cluster = plan.cluster.as_ref()?;
        let to = plan.modules.get(module)?.heartbeats.peer.clone();
        let body = |view: &View| {
            use prost::Message as _;
            let view = wire::ModuleView { module: module.to_owned(), view: Some(view_to_wire(view)) };
            let heartbeat = wire::Heartbeat {
                from: cluster.node.clone(),
                to: to.clone(),
                settings_version: cluster.version,
                views: vec![view],
                stands_for: self.shared.incarnation,
                ..wire::Heartbeat::default()
            };
            heartbeat.encode_to_vec()
        };
        let peers = plan.peers_by_lan(module);
        Some(StandIn { heartbeat: body(gone), fenced: body(fenced), peers })
    }

    /// Ends the thread.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake();
        if let Some(thread) = self.started.lock().take() {
            // A panic of the thread was reported when it happened.
            drop(thread.join());
        }
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut Plan)) {
        change(&mut self.plan.lock());
        self.generation.fetch_add(1, Ordering::Release);
        self.wake();
    }

    fn wake(&self) {
        // A full counter means that the thread is being woken already.
        let _full = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

impl Plan {
    /// Ways to the module's other node: lan index, own socket, its address.
    fn ways(&self, module: &str) -> Vec<(u8, Arc<UdpSocket>, SocketAddr)> {
        let (Some(cluster), Some(module)) = (&self.cluster, self.modules.get(module)) else {
            return Vec::new();
        };
        let Some(peer) = cluster.peers.get(&module.heartbeats.peer) else { return Vec::new() };
        let way = |lan: &String| {
            let index = cluster.lans.iter().position(|name| name == lan)?;
            let socket = cluster.sockets.get(index)?.clone()?;
            Some((u8::try_from(index).ok()?, socket, (*peer.get(index)?)?))
        };
        module.heartbeats.lans.iter().filter_map(way).collect()
    }

    /// The other node's address on each lan of the cluster.
    fn peers_by_lan(&self, module: &str) -> Vec<SocketAddr> {
        let lans = self.cluster.as_ref().map_or(0, |cluster| cluster.lans.len());
        let mut peers = vec![NOWHERE; lans];
        for (lan, _, peer) in self.ways(module) {
            peers[usize::from(lan)] = peer;
        }
        peers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stand_ins_find_their_lans_by_the_index_of_the_cluster() {
        let directory = tempfile::tempdir().unwrap();
        let (node, _inbox, _statuses) = NodeHandle::new();
        let heart = Heart::new(node, Audit::start(&directory.path().join("audit.log")).unwrap()).unwrap();
        let address = |last: u8| SocketAddr::from(([127, 77, 3, last], 9401));
        let socket = |last| Some(Arc::new(bind(SocketAddr::new(address(last).ip(), 0), false).unwrap()));
        let cluster = ClusterPlan {
            node: "n1".to_owned(),
            key: Key::derive(b"secret"),
            version: 1,
            lans: ["a", "b", "c"].map(str::to_owned).to_vec(),
            sockets: vec![socket(1), socket(2), socket(3)],
            peers: BTreeMap::from([("n2".to_owned(), [11, 12, 13].map(|last| Some(address(last))).to_vec())]),
        };
        heart.shared.change(|plan| plan.cluster = Some(Arc::new(cluster)));
        heart.watch_module(
            "db",
            Heartbeats {
                peer: "n2".to_owned(),
                lans: vec!["c".to_owned(), "a".to_owned()],
                interval: IDLE_INTERVAL,
                timeout: IDLE_TIMEOUT,
            },
        );
        let indexes: Vec<u8> = heart.sockets("db").into_iter().map(|(lan, _)| lan).collect();
        assert_eq!(indexes, [2, 0]);
        let plan = heart.shared.plan.lock();
        assert_eq!(plan.peers_by_lan("db"), [address(11), NOWHERE, address(13)]);
    }
}
