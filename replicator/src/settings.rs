//! What the agent told this replicator of its module, checked once.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use safe_proto::datagram;
use safe_proto::replication::{Configure, Directory};

/// Version of the protocol with the agent.
pub const PROTOCOL: u32 = 1;

/// Settings of the module on this node.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Module.
    pub module: String,
    /// Cluster.
    pub cluster: String,
    /// This node.
    pub node: String,
    /// The other node.
    pub peer: String,
    /// Where the other node listens, by preference.
    pub endpoints: Vec<SocketAddr>,
    /// What is replicated, in order.
    pub directories: Vec<Directory>,
    /// Where knowledge is kept.
    pub state_dir: PathBuf,
    /// PEM of the cluster's CA.
    pub ca: String,
    /// PEM of this node's certificate.
    pub certificate: String,
    /// PEM of its key.
    pub key: String,
    /// Seals heartbeats.
    pub heartbeat_key: datagram::Key,
    /// Silence after which the peer counts as lost.
    pub timeout: Duration,
    /// Time without an agent after which this node is fenced.
    pub agent_timeout: Duration,
    /// Silence of the stream after which the session is lost.
    pub stall_timeout: Duration,
    /// Age of the oldest operation after which it is lost although the peer answers.
    pub slow_timeout: Duration,
    /// Age of an operation on the disk after which the disk counts as hung.
    pub local_timeout: Duration,
    /// Heartbeat interval.
    pub interval: Duration,
    /// Bytes per second of a resync; 0: automatic.
    pub bandwidth_limit: u64,
    /// `ip/prefix` of each virtual address.
    pub virtual_addresses: Vec<String>,
    /// Value of SAFE_DIR of the module's processes.
    pub module_dir: String,
    /// Where archives are kept.
    pub archive_dir: PathBuf,
    /// Bytes that they may take; 0: nothing is kept.
    pub archive_limit: u64,
}

impl Settings {
    /// Checks them.
    ///
    /// # Errors
    /// One sentence about the first thing that cannot be.
    pub fn new(given: Configure) -> Result<Self, String> {
        if given.protocol != PROTOCOL {
            return Err(format!(
                "protocol version {} is not known, this is version {PROTOCOL}",
                given.protocol
            ));
        }
        for (name, value) in [
            ("module", &given.module),
            ("cluster", &given.cluster),
            ("node", &given.node),
            ("peer", &given.peer),
        ] {
            if value.is_empty() || value.len() > 63 {
                return Err(format!("{name} must have 1 to 63 characters"));
            }
        }
        if given.directories.iter().any(|directory| !directory.path.starts_with('/')) {
            return Err("a directory is not an absolute path".into());
        }
        if given.directories.len() > 1000
            || ![&given.state_dir, &given.archive_dir].iter().all(|path| path.starts_with('/'))
        {
            return Err("at most 1000 directories; state_dir and archive_dir must be absolute paths".into());
        }
        let endpoints = given
            .peer_endpoints
            .iter()
            .map(|endpoint| endpoint.parse().map_err(|_| format!("endpoint {endpoint:?} is not ip:port")));
        let key: [u8; 32] = given
            .heartbeat_key
            .as_ref()
            .try_into()
            .map_err(|_| "heartbeat_key must have 32 bytes".to_owned())?;
        Ok(Self {
            endpoints: endpoints.collect::<Result<_, _>>()?,
            timeout: milliseconds("timeout_ms", given.timeout_ms)?,
            agent_timeout: milliseconds("agent_timeout_ms", given.agent_timeout_ms)?,
            stall_timeout: milliseconds("stall_timeout_ms", given.stall_timeout_ms)?,
            slow_timeout: milliseconds("slow_timeout_ms", given.slow_timeout_ms)?,
            local_timeout: milliseconds("local_timeout_ms", given.local_timeout_ms)?,
            interval: milliseconds("interval_ms", given.interval_ms)?,
            module: given.module,
            cluster: given.cluster,
            node: given.node,
            peer: given.peer,
            directories: given.directories,
            state_dir: given.state_dir.into(),
            ca: given.ca,
            certificate: given.certificate,
            key: given.key,
            heartbeat_key: datagram::Key(key),
            bandwidth_limit: given.bandwidth_limit,
            virtual_addresses: given.virtual_addresses,
            module_dir: given.module_dir,
            archive_dir: given.archive_dir.into(),
            archive_limit: given.archive_limit,
        })
    }

    /// The URI that the other node's certificate must carry.
    #[must_use]
    pub fn peer_uri(&self) -> String {
        format!("safed://{}/{}", self.cluster, self.peer)
    }
}

fn milliseconds(name: &str, value: u32) -> Result<Duration, String> {
    if value == 0 || value > 3_600_000 {
        return Err(format!("{name} must be 1 to 3600000"));
    }
    Ok(Duration::from_millis(value.into()))
}
