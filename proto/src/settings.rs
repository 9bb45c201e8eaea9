//! Cluster settings: what every node of a cluster holds and agrees about. Kept as JSON, versioned, without secrets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

mod witness;

pub use witness::{WitnessSettings, target as witness_target};

/// Version of the JSON form.
pub const FORMAT: u32 = 1;
/// Most nodes of a cluster.
pub const MAX_NODES: usize = 64;
/// Most lans of a cluster.
pub const MAX_LANS: usize = 8;
/// Most bytes of the JSON form.
pub const MAX_BYTES: usize = 256 * 1024;

/// Why settings are not usable; one sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(pub String);

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterSettings {
    /// [`FORMAT`].
    pub format: u32,
    /// Cluster name: a DNS label.
    pub cluster: String,
    /// Raised with each change.
    pub version: u64,
    /// Lans; the first is the default one.
    pub lans: Vec<String>,
    /// Ports, the same on every node.
    #[serde(default)]
    pub ports: Ports,
    /// Nodes in the order they joined.
    pub nodes: Vec<NodeSettings>,
    /// Witnesses that were ever added, by target.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub witnesses: Vec<WitnessSettings>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSettings {
    /// Name: a DNS label.
    pub name: String,
    /// Address on each lan it is on.
    pub addresses: BTreeMap<String, IpAddr>,
    /// Settings version in which it joined: gives the order of nodes.
    pub joined: u64,
    /// Settings version in which this entry last changed: of two entries the later one counts.
    pub changed: u64,
    /// blake3 of the public key (SubjectPublicKeyInfo) of its certificate, 64 hexadecimal digits.
    pub key: String,
}

/// Ports of every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ports {
    /// gRPC.
    pub api: u16,
    /// Heartbeats (UDP).
    pub heartbeat: u16,
    /// Replication streams.
    pub stream: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self { api: 9400, heartbeat: 9401, stream: 9402 }
    }
}

impl ClusterSettings {
    /// Settings of a new cluster of one node.
    ///
    /// # Errors
    /// A name or an address that [`Self::validate`] refuses.
    pub fn new(
        cluster: &str,
        lans: Vec<String>,
        ports: Ports,
        first: NodeSettings,
    ) -> Result<Self, SettingsError> {
        let settings = Self {
            format: FORMAT,
            cluster: cluster.to_owned(),
            version: 1,
            lans,
            ports,
            nodes: vec![first],
            witnesses: Vec::new(),
        };
        settings.validate()?;
        Ok(settings)
    }

    /// Reads and checks the JSON form.
    ///
    /// # Errors
    /// Too large, not JSON of this form, another format, or not valid.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        if text.len() > MAX_BYTES {
            return Err(refuse(format!("cluster settings are larger than {MAX_BYTES} bytes")));
        }
        check_format(text)?;
        let settings: Self =
            serde_json::from_str(text).map_err(|error| refuse(format!("cluster settings: {error}")))?;
        settings.validate()?;
        Ok(settings)
    }

    /// The JSON form.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// A node by name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&NodeSettings> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// Index of a lan.
    #[must_use]
    pub fn lan(&self, name: &str) -> Option<usize> {
        self.lans.iter().position(|lan| lan == name)
    }

    /// All nodes but this one.
    pub fn others<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a NodeSettings> {
        self.nodes.iter().filter(move |node| node.name != name)
    }

    /// The next version of the settings, with one more node.
    ///
    /// # Errors
    /// The name or an address is taken, an address is missing, or a limit is reached.
    pub fn with_node(
        &self,
        name: &str,
        addresses: BTreeMap<String, IpAddr>,
        key: String,
    ) -> Result<Self, SettingsError> {
        if self.node(name).is_some() {
            return Err(refuse(format!("the cluster has a node {name} already: choose another name")));
        }
        if let Some(lan) = self.lans.iter().find(|lan| !addresses.contains_key(*lan)) {
            return Err(refuse(format!("an address on lan {lan} is missing: add --address {lan}=ADDRESS")));
        }
        let mut next = self.clone();
        next.version += 1;
        let version = next.version;
        next.nodes.push(NodeSettings {
            name: name.to_owned(),
            addresses,
            joined: version,
            changed: version,
            key,
        });
        next.validate()?;
        Ok(next)
    }

    /// What two nodes make of settings that differ: the same on both, whichever is asked. Neither side's nodes are
    /// lost, so that two nodes may admit others while they do not hear each other.
    #[must_use]
    pub fn merge(&self, other: &Self) -> Self {
        if self == other {
            return self.clone();
        }
        let (newer, older) = if self.rank() >= other.rank() { (self, other) } else { (other, self) };
        let mut nodes: BTreeMap<&str, &NodeSettings> = BTreeMap::new();
        for node in newer.nodes.iter().chain(&older.nodes) {
            let kept = nodes.entry(&node.name).or_insert(node);
            if node.changed > kept.changed {
                *kept = node;
            }
        }
        let mut merged = newer.clone();
        merged.nodes = nodes.into_values().cloned().collect();
        merged.nodes.sort_by(|a, b| (a.joined, &a.name).cmp(&(b.joined, &b.name)));
        merged.witnesses = witness::merge(&newer.witnesses, &older.witnesses);
        for lan in &older.lans {
            if !merged.lans.contains(lan) {
                merged.lans.push(lan.clone());
            }
        }
        if merged != *newer {
            merged.version = newer.version + 1;
        }
        merged
    }

    /// Orders settings; of equal versions any order will do as long as all nodes have the same.
    fn rank(&self) -> (u64, String) {
        (self.version, self.to_json())
    }

    /// Checks everything that a reader relies on.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn validate(&self) -> Result<(), SettingsError> {
        if self.format != FORMAT {
            return Err(refuse(format!(
                "cluster settings have format {}, this safed knows {FORMAT}",
                self.format
            )));
        }
        label("cluster", &self.cluster)?;
        self.validate_lans()?;
        self.validate_witnesses()?;
        self.validate_ports()?;
        if self.version == 0 || self.nodes.is_empty() || self.nodes.len() > MAX_NODES {
            return Err(refuse(format!(
                "a cluster has 1 to {MAX_NODES} nodes, and its settings a version from 1"
            )));
        }
        let mut names = BTreeSet::new();
        let mut taken = BTreeMap::new();
        for node in &self.nodes {
            self.validate_node(node)?;
            if !names.insert(&node.name) {
                return Err(refuse(format!("node {} is named twice", node.name)));
            }
            for address in node.addresses.values() {
                if let Some(holder) = taken.insert(address, &node.name) {
                    return Err(refuse(format!("address {address} is of {holder} and of {}", node.name)));
                }
            }
        }
        Ok(())
    }

    fn validate_lans(&self) -> Result<(), SettingsError> {
        if self.lans.is_empty() || self.lans.len() > MAX_LANS {
            return Err(refuse(format!("a cluster has 1 to {MAX_LANS} lans")));
        }
        for (index, lan) in self.lans.iter().enumerate() {
            label("lan", lan)?;
            if self.lans[..index].contains(lan) {
                return Err(refuse(format!("lan {lan} is named twice")));
            }
        }
        Ok(())
    }

    fn validate_ports(&self) -> Result<(), SettingsError> {
        let Ports { api, heartbeat, stream } = self.ports;
        if api == 0 || heartbeat == 0 || stream == 0 || api == stream {
            return Err(refuse("ports must not be 0, and those of API and streams must differ".to_owned()));
        }
        Ok(())
    }

    fn validate_node(&self, node: &NodeSettings) -> Result<(), SettingsError> {
        label("node", &node.name)?;
        if node.addresses.is_empty() {
            return Err(refuse(format!("node {} has no address", node.name)));
        }
        for (lan, address) in &node.addresses {
            if self.lan(lan).is_none() {
                let known = self.lans.join(", ");
                return Err(refuse(format!("node {}: no lan {lan}; the lans are {known}", node.name)));
            }
            usable(address)?;
        }
        if node.key.len() != 64 || !node.key.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(refuse(format!("node {}: its key is not 64 hexadecimal digits", node.name)));
        }
        Ok(())
    }
}

/// Checks a name of a cluster, node, lan or module: a DNS label (1 to 63 of a-z, 0-9 and `-`, not `-` at an end).
///
/// # Errors
/// A sentence that says what is wrong; `what` says of what.
pub fn label(what: &str, name: &str) -> Result<(), SettingsError> {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let well = (1..=63).contains(&name.len())
        && name.bytes().all(good)
        && !name.starts_with('-')
        && !name.ends_with('-');
    if well {
        return Ok(());
    }
    let shown: String = name.chars().take(63).flat_map(char::escape_default).collect();
    Err(refuse(format!(
        "{what} name '{shown}' is not a DNS label: use 1 to 63 of a-z, 0-9 and '-', with no '-' at an end"
    )))
}

/// Checks that an address can be one of a node.
///
/// # Errors
/// Unspecified, multicast, broadcast, or IPv6 link-local (which has no meaning without an interface).
pub fn usable(address: &IpAddr) -> Result<(), SettingsError> {
    let bad = address.is_unspecified()
        || address.is_multicast()
        || match address {
            IpAddr::V4(address) => address.is_broadcast(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
    if bad {
        return Err(refuse(format!("{address} cannot be the address of a node")));
    }
    Ok(())
}

/// Looks at the format alone first: an unknown one must be said as such, not as an unknown field.
fn check_format(text: &str) -> Result<(), SettingsError> {
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    let head: Head =
        serde_json::from_str(text).map_err(|error| refuse(format!("cluster settings: {error}")))?;
    if head.format != FORMAT {
        let message = format!(
            "cluster settings have format {}, this safed knows only {FORMAT}: install the release of the other nodes",
            head.format
        );
        return Err(refuse(message));
    }
    Ok(())
}

const fn refuse(message: String) -> SettingsError {
    SettingsError(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, address: &str, version: u64) -> NodeSettings {
        NodeSettings {
            name: name.to_owned(),
            addresses: BTreeMap::from([("default".to_owned(), address.parse().unwrap())]),
            joined: version,
            changed: version,
            key: "ab".repeat(32),
        }
    }

    fn one() -> ClusterSettings {
        ClusterSettings::new("demo", vec!["default".to_owned()], Ports::default(), node("n1", "10.0.0.1", 1))
            .unwrap()
    }

    fn with(settings: &ClusterSettings, name: &str, address: &str) -> ClusterSettings {
        let addresses = node(name, address, 0).addresses;
        settings.with_node(name, addresses, "cd".repeat(32)).unwrap()
    }

    #[test]
    fn json_comes_back_as_it_was() {
        let settings = with(&one(), "n2", "10.0.0.2");
        assert_eq!(ClusterSettings::parse(&settings.to_json()).unwrap(), settings);
    }

    #[test]
    fn an_unknown_format_is_named() {
        let text = one().to_json().replace("\"format\": 1", "\"format\": 7, \"novelty\": true");
        assert!(ClusterSettings::parse(&text).unwrap_err().0.contains("format 7"));
    }

    #[test]
    fn nodes_admitted_apart_are_both_kept_and_both_sides_agree() {
        let base = with(&one(), "n2", "10.0.0.2");
        let (left, right) = (with(&base, "n3", "10.0.0.3"), with(&base, "n4", "10.0.0.4"));
        let merged = left.merge(&right);
        assert_eq!(merged, right.merge(&left));
        assert_eq!(merged.nodes.len(), 4);
        assert_eq!(merged.version, 4);
        assert_eq!(merged.merge(&left), merged);
        assert_eq!(base.merge(&left), left);
    }

    #[test]
    fn names_and_addresses_are_taken_once() {
        let settings = with(&one(), "n2", "10.0.0.2");
        let again = settings.with_node("n2", node("n2", "10.0.0.9", 0).addresses, "cd".repeat(32));
        assert!(again.unwrap_err().0.contains("already"));
        let same = settings.with_node("n3", node("n3", "10.0.0.2", 0).addresses, "cd".repeat(32));
        assert!(same.unwrap_err().0.contains("10.0.0.2"));
    }

    #[test]
    fn bad_names_are_refused() {
        for name in ["", "-a", "a-", "A", "a.b", "a b", &"x".repeat(64)] {
            assert!(label("node", name).is_err(), "{name}");
        }
        assert!(label("node", "n1").is_ok());
    }
}
