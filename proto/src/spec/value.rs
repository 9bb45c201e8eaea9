//! Words that values of `module.toml` are chosen from.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::quantity;

/// Kind of module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Two nodes, one serves, the other follows.
    Mirror,
    /// All nodes serve behind one address.
    Farm,
    /// One node: start, watch, restart.
    Light,
}

impl Kind {
    /// As written in `module.toml`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mirror => "mirror",
            Self::Farm => "farm",
            Self::Light => "light",
        }
    }
}

/// What happens to the module when the machine boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Boot {
    /// Started.
    On,
    /// Left stopped.
    Off,
    /// As before the reboot.
    #[default]
    Auto,
}

impl Boot {
    /// As written in `module.toml`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Auto => "auto",
        }
    }
}

/// Which node is to be primary when both copies are in step.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum DefaultPrimary {
    /// Whoever is.
    #[default]
    None,
    /// Who was primary before.
    Last,
    /// Always this node.
    Node(String),
}

impl Serialize for DefaultPrimary {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(match self {
            Self::None => "none",
            Self::Last => "last",
            Self::Node(node) => node,
        })
    }
}

impl<'de> Deserialize<'de> for DefaultPrimary {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(match String::deserialize(from)?.as_str() {
            "none" => Self::None,
            "last" => Self::Last,
            node => Self::Node(node.to_owned()),
        })
    }
}

/// What a node does when every lan is cut and no arbiter is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// Serve alone.
    #[default]
    Alone,
    /// Wait.
    Wait,
}

/// When a write is given to the other node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sync {
    /// Before each `write(2)` returns.
    #[default]
    Write,
    /// Before each `fsync(2)` returns.
    Fsync,
}

/// When the other node counts as having a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ack {
    /// In its page cache.
    #[default]
    Memory,
    /// On its disk.
    Disk,
}

/// Who survives a split brain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SplitBrainPolicy {
    /// The node that serves.
    #[default]
    Serving,
    /// A person decides.
    Manual,
}

/// Kind of arbiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ArbiterKind {
    /// Answers to an ICMP echo.
    Ping,
    /// Accepts a TCP connection.
    Tcp,
    /// Answers an HTTP request.
    Http,
    /// A command ends with status 0.
    Command,
    /// A `safed` elsewhere holds the record.
    Witness,
    /// etcd holds the record.
    Etcd,
    /// Kubernetes holds the record.
    Kubernetes,
}

impl ArbiterKind {
    /// It holds one record per module and so excludes two serving nodes; the others only answer "am I isolated?".
    #[must_use]
    pub fn is_lock(self) -> bool {
        match self {
            Self::Witness | Self::Etcd | Self::Kubernetes => true,
            Self::Ping | Self::Tcp | Self::Http | Self::Command => false,
        }
    }

    /// As written in `module.toml`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Command => "command",
            Self::Witness => "witness",
            Self::Etcd => "etcd",
            Self::Kubernetes => "kubernetes",
        }
    }
}

/// Kind of checker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckKind {
    /// Connects.
    Tcp,
    /// Sends ICMP echoes.
    Ping,
    /// Requests.
    Http,
    /// Watches the carrier of an interface.
    Interface,
    /// Watches the state of another module.
    Module,
    /// Runs a script `check_*`.
    Command,
}

impl CheckKind {
    /// As written in `module.toml`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Ping => "ping",
            Self::Http => "http",
            Self::Interface => "interface",
            Self::Module => "module",
            Self::Command => "command",
        }
    }
}

/// In which states a process is expected or a checker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// From before the application starts.
    Pre,
    /// PRIM and ALONE.
    Prim,
    /// SECOND.
    Second,
    /// SECOND and ALONE.
    Sec,
    /// PRIM, ALONE and SECOND.
    Both,
}

/// What is done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reaction {
    /// Nothing; it is only shown.
    None,
    /// Stop the module here.
    Stop,
    /// Stop and start the module here: the other node takes over.
    Stopstart,
    /// Restart the application.
    Restart,
    /// Exchange roles.
    Swap,
    /// Stop and wait until it is over.
    Wait,
}

/// Limit of the bandwidth of a resync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum BandwidthLimit {
    /// Yields to the application.
    #[default]
    Auto,
    /// No limit.
    Off,
    /// Bytes per second.
    BytesPerSecond(u64),
}

impl Serialize for BandwidthLimit {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => to.serialize_str("auto"),
            Self::Off => to.serialize_str("off"),
            Self::BytesPerSecond(bytes) => to.serialize_str(&format!("{}/s", quantity::format_size(*bytes))),
        }
    }
}

impl<'de> Deserialize<'de> for BandwidthLimit {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        match text.as_str() {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            rate => quantity::parse_size(rate.strip_suffix("/s").unwrap_or(rate))
                .map(Self::BytesPerSecond)
                .map_err(|_| {
                    D::Error::custom(format!(
                        "{rate:?} is not a bandwidth; write \"auto\", \"off\", or as in \"50MiB/s\""
                    ))
                }),
        }
    }
}

/// How often the copies are compared by content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// Never by itself.
    Off,
    /// Once a day.
    Daily,
    /// Once a week.
    #[default]
    Weekly,
    /// Once in 30 days.
    Monthly,
}
