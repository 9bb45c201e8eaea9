//! The cluster this node belongs to, if any: its membership, its keys, and everything that listens because of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use safe_proto::datagram::Key;
use safe_proto::settings::ClusterSettings;
use tokio::sync::watch;

use crate::audit::Audit;
use crate::heartbeat::{ClusterPlan, Heart};
use crate::node::{Context, Member, Membership, Ports, Startup};
use crate::pki::{Authority, Credentials, Identity};
use crate::settings_store::{Held, Store};
use crate::stream_port;

mod admission;
mod error;
mod founding;
mod joining;
mod network;
mod ports;
mod sync;
mod witnesses;

pub use error::ClusterError;
use ports::Bound;

/// A membership with everything made from it.
#[derive(Debug)]
pub struct Joined {
    /// What is durable.
    pub held: Held,
    /// For TLS.
    pub credentials: Credentials,
}

impl Joined {
    fn new(held: Held) -> Result<Self, ClusterError> {
        let cluster = &held.settings.cluster;
        let credentials = Credentials::new(cluster, &held.ca, &held.certificate, &held.key)?;
        let der = CertificateDer::from_pem_slice(held.certificate.as_bytes()).map_err(|error| {
            ClusterError::Failed(format!("the node certificate is not readable: {error}"))
        })?;
        let identity = Identity::of_certificate(&der, cluster)?;
        if identity != Identity::Node(held.node.clone()) || held.settings.node(&held.node).is_none() {
            return Err(ClusterError::Failed(format!(
                "the files of cluster {cluster} do not belong together: node {}, certificate of {identity}",
                held.node
            )));
        }
        Ok(Self { held, credentials })
    }

    fn authority(&self) -> Result<Authority, ClusterError> {
        Ok(Authority::load(&self.held.settings.cluster, &self.held.ca, &self.held.ca_key)?)
    }

    fn membership(&self) -> Membership {
        let Held { node, settings, ca, certificate, key, secret, .. } = &self.held;
        let member = |node: &safe_proto::settings::NodeSettings| Member {
            name: node.name.clone(),
            addresses: node.addresses.clone(),
        };
        let ports = settings.ports;
        Membership {
            cluster: settings.cluster.clone(),
            node: node.clone(),
            version: settings.version,
            lans: settings.lans.clone(),
            nodes: settings.nodes.iter().map(member).collect(),
            ports: Ports { api: ports.api, heartbeat: ports.heartbeat, stream: ports.stream },
            witnesses: settings.witnesses().cloned().collect(),
            ca: ca.clone(),
            certificate: certificate.clone(),
            key: key.clone(),
            heartbeat_key: Key::derive(secret).0,
        }
    }
}

/// What listens on a lan address of port 9400, to be served by rpc.
pub type ApiListeners = Vec<std::net::TcpListener>;

/// The cluster side of a node.
#[derive(Debug)]
pub struct Cluster {
    context: Context,
    audit: Audit,
    store: Store,
    heart: Heart,
    joined: watch::Sender<Option<Arc<Joined>>>,
    membership: watch::Sender<Option<Arc<Membership>>>,
    /// One change of membership at a time; held while the disk is written, never while the network is waited for.
    changing: Mutex<()>,
    bound: Mutex<Option<Bound>>,
    api: Mutex<Option<ApiListeners>>,
}

/// Reads what this node holds and, if it belongs to a cluster, opens its ports. Must be called within the runtime.
///
/// # Errors
/// The files of the cluster are damaged, or a port is in use: one line.
pub fn start(context: &Context) -> Result<Arc<Cluster>, Startup> {
    let audit = Audit::start(&context.paths.lib().join("audit.log"))
        .map_err(|error| Startup(format!("cannot start a thread: {error}")))?;
    let heart = Heart::new(context.node.clone(), audit.clone())
        .map_err(|error| Startup(format!("cannot open an event descriptor: {error}")))?;
    let cluster = Arc::new(Cluster {
        context: context.clone(),
        audit,
        store: Store::new(context.paths.cluster()),
        heart,
        joined: watch::channel(None).0,
        membership: watch::channel(None).0,
        changing: Mutex::new(()),
        bound: Mutex::new(None),
        api: Mutex::new(None),
    });
    cluster.resume().map_err(|error| Startup(error.to_string()))?;
    Ok(cluster)
}

impl Cluster {
    /// The membership; none before init or join.
    #[must_use]
    pub fn joined(&self) -> Option<Arc<Joined>> {
        self.joined.borrow().clone()
    }

    /// Follows the membership.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<Option<Arc<Joined>>> {
        self.joined.subscribe()
    }

    /// The audit log.
    #[must_use]
    pub const fn audit(&self) -> &Audit {
        &self.audit
    }

    /// The heartbeats.
    #[must_use]
    pub const fn heart(&self) -> &Heart {
        &self.heart
    }

    /// Listeners of port 9400, once there is a cluster; given away once.
    pub fn take_api_listeners(&self) -> Option<ApiListeners> {
        self.api.lock().take()
    }

    fn resume(&self) -> Result<(), ClusterError> {
        let Some(held) = self.store.load()? else { return Ok(()) };
        let joined = Joined::new(held)?;
        let bound = Bound::again(&joined.held.settings, &joined.held.node)?;
        self.open(joined, bound)
    }

    /// Everything begins that a member does.
    fn open(&self, joined: Joined, bound: Bound) -> Result<(), ClusterError> {
        let failed = |error: std::io::Error| ClusterError::Failed(format!("cannot start: {error}"));
        let (bound, streams, api) = bound.split();
        *self.bound.lock() = Some(bound);
        *self.api.lock() = Some(api);
        self.context.events.name(&joined.held.node);
        self.put(joined)?;
        let node = self.context.node.clone();
        stream_port::start(streams, node, self.audit.clone(), self.context.shutdown.clone()).map_err(failed)
    }

    /// Puts a membership in force that is durable already.
    fn put(&self, joined: Joined) -> Result<(), ClusterError> {
        let plan = self.plan(&joined.held);
        self.heart
            .run(plan)
            .map_err(|error| ClusterError::Failed(format!("cannot start the heartbeat thread: {error}")))?;
        let membership = Arc::new(joined.membership());
        self.joined.send_replace(Some(Arc::new(joined)));
        self.membership.send_replace(Some(membership));
        Ok(())
    }

    fn plan(&self, held: &Held) -> ClusterPlan {
        let settings = &held.settings;
        let bound = self.bound.lock();
        let socket = |lan: &String| bound.as_ref().and_then(|bound| bound.heartbeats.get(lan).cloned());
        let peers: BTreeMap<String, Vec<Option<SocketAddr>>> = settings
            .others(&held.node)
            .map(|node| {
                let address = |lan: &String| {
                    node.addresses.get(lan).map(|ip| SocketAddr::new(*ip, settings.ports.heartbeat))
                };
                (node.name.clone(), settings.lans.iter().map(address).collect())
            })
            .collect();
        ClusterPlan {
            node: held.node.clone(),
            key: Key::derive(&held.secret),
            version: settings.version,
            lans: settings.lans.clone(),
            sockets: settings.lans.iter().map(socket).collect(),
            peers,
        }
    }

    /// Makes new settings durable, then puts them in force. The caller holds `changing`.
    fn change_settings(&self, joined: &Joined, settings: ClusterSettings) -> Result<(), ClusterError> {
        self.store.save_settings(&settings)?;
        let mut held = joined.held.clone();
        held.settings = settings;
        self.put(Joined::new(held)?)
    }

    fn member(&self) -> Result<Arc<Joined>, ClusterError> {
        self.joined().ok_or(ClusterError::NoCluster)
    }
}
