//! `cluster init`: a cluster of one node.

use std::collections::BTreeMap;
use std::net::IpAddr;

use safe_proto::node::LanAddress;
use safe_proto::settings::{ClusterSettings, NodeSettings, Ports, label};

use super::ports::Bound;
use super::{Cluster, ClusterError, Joined};
use crate::pki::authority::Request;
use crate::pki::{Authority, NodeKey};
use crate::settings_store::Held;

/// Seconds the token of `init` is good for.
const FIRST_TTL: u64 = 3600;

impl Cluster {
    /// Makes a cluster of this node and answers with a token for the next one and its expiry. Waits for the disk:
    /// not for the runtime's own threads.
    ///
    /// # Errors
    /// It is a member already, something given is wrong, a port is in use, or the disk refuses; nothing is left.
    pub fn init(
        &self,
        cluster: &str,
        node: &str,
        addresses: &[LanAddress],
    ) -> Result<(String, u64), ClusterError> {
        let _changing = self.changing.lock();
        self.must_be_free()?;
        label("cluster", cluster)?;
        label("node", node)?;
        let lans = addresses.iter().map(|address| address.lan.clone()).collect();
        let key = NodeKey::generate(node)?;
        let request = Request::parse(&key.request)?;
        let config = &self.context.config;
        let ports =
            Ports { api: config.port_api, heartbeat: config.port_heartbeat, stream: config.port_stream };
        let settings = NodeSettings {
            name: node.to_owned(),
            addresses: parse_addresses(addresses)?,
            joined: 1,
            changed: 1,
            key: request.key.clone(),
        };
        let ips: Vec<IpAddr> = settings.addresses.values().copied().collect();
        let settings = ClusterSettings::new(cluster, lans, ports, settings)?;
        let bound = Bound::first(&settings, node)?;
        let authority = Authority::create(cluster)?;
        let held = Held {
            node: node.to_owned(),
            settings,
            ca: authority.certificate().to_owned(),
            ca_key: authority.key(),
            certificate: authority.certify_node(request, node, &ips)?,
            key: key.key,
            secret: crate::random::bytes(),
        };
        let joined = Joined::new(held)?;
        self.store.create(&joined.held)?;
        self.open(joined, bound)?;
        self.context.events.record("", false, &format!("cluster {cluster} was made by node {node}"));
        self.issue(FIRST_TTL)
    }

    pub(super) fn must_be_free(&self) -> Result<(), ClusterError> {
        match self.joined() {
            None => Ok(()),
            Some(joined) => {
                Err(ClusterError::Member(joined.held.settings.cluster.clone(), joined.held.node.clone()))
            }
        }
    }
}

/// Addresses by lan.
pub(super) fn parse_addresses(addresses: &[LanAddress]) -> Result<BTreeMap<String, IpAddr>, ClusterError> {
    let mut parsed = BTreeMap::new();
    for LanAddress { lan, address } in addresses {
        label("lan", lan)?;
        let shown: String = address.chars().take(64).flat_map(char::escape_default).collect();
        let ip = address.parse().map_err(|_| {
            ClusterError::Invalid(format!(
                "'{shown}' is not an IPv4 or IPv6 address: write --address {lan}=IP"
            ))
        })?;
        safe_proto::settings::usable(&ip)?;
        if parsed.insert(lan.clone(), ip).is_some() {
            return Err(ClusterError::Invalid(format!("lan {lan} is given twice")));
        }
    }
    if parsed.is_empty() {
        return Err(ClusterError::Invalid("an address is missing: add --address default=IP".to_owned()));
    }
    Ok(parsed)
}
