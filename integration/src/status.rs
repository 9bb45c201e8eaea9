//! What `safectl status -o json` says.

use serde::Deserialize;

/// State of a module on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum State {
    /// Stopped.
    Stop,
    /// Starting, or waiting for something.
    Wait,
    /// Serves without its peer.
    Alone,
    /// Serves with its peer in step.
    Prim,
    /// Follows.
    Second,
    /// Farm or light: active.
    Up,
    /// The node does not answer.
    Unknown,
}

impl State {
    /// As `safectl` writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "STOP",
            Self::Wait => "WAIT",
            Self::Alone => "ALONE",
            Self::Prim => "PRIM",
            Self::Second => "SECOND",
            Self::Up => "UP",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// The application may run here.
    pub fn serves(self) -> bool {
        matches!(self, Self::Alone | Self::Prim | Self::Up)
    }
}

/// How far a state is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// All is done.
    Ready,
    /// On the way.
    #[default]
    Transient,
    /// Waits for something outside.
    Blocked,
}

/// One entry: a module on a node. Fields that no test reads are left out.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    /// Module.
    pub module: String,
    /// Node.
    pub node: String,
    /// State.
    pub state: State,
    /// Phase.
    #[serde(default)]
    pub phase: Option<Phase>,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
    /// The exact command to type.
    #[serde(default)]
    pub hint: Option<String>,
    /// Data of this copy.
    #[serde(default)]
    pub data: Option<Data>,
    /// Virtual addresses.
    #[serde(default)]
    pub addresses: Vec<Address>,
    /// Arbiters.
    #[serde(default)]
    pub arbiters: Vec<Arbiter>,
}

impl Status {
    /// In one line, for errors.
    pub fn line(&self) -> String {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        format!(
            "{} on {}: {}/{:?} {} [{}]",
            self.module,
            self.node,
            self.state.name(),
            self.phase.unwrap_or_default(),
            text(&self.reason),
            text(&self.hint)
        )
    }
}

/// Data of one copy.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Data {
    /// The newest data as far as the node knows.
    #[serde(default)]
    pub uptodate: Option<bool>,
    /// One state the application once could have seen.
    #[serde(default)]
    pub consistent: Option<bool>,
    /// Lineage.
    #[serde(default)]
    pub lineage: Option<String>,
    /// A resync that runs now.
    #[serde(default)]
    pub resync: Option<Resync>,
}

/// A resync.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Resync {
    /// repair, delta or full.
    #[serde(default)]
    pub plan: String,
    /// Bytes of content done.
    #[serde(default)]
    pub bytes_done: u64,
    /// Bytes of content known.
    #[serde(default)]
    pub bytes_total: u64,
    /// Bytes that went over the wire.
    #[serde(default)]
    pub bytes_sent: u64,
    /// Paused, and for how many seconds yet.
    #[serde(default)]
    pub paused_s: Option<u32>,
}

/// A virtual address.
#[derive(Debug, Clone, Deserialize)]
pub struct Address {
    /// IP and prefix length.
    pub ip: String,
    /// Present on this node.
    #[serde(default)]
    pub present: bool,
}

/// An arbiter.
#[derive(Debug, Clone, Deserialize)]
pub struct Arbiter {
    /// Name.
    pub name: String,
    /// up, down or unknown.
    pub state: String,
    /// Why, or what it holds.
    #[serde(default)]
    pub why: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreachable_node_needs_a_state_only() {
        let text = r#"[{"module":"db","node":"n2","state":"UNKNOWN","kind":"mirror"}]"#;
        let all: Vec<Status> = serde_json::from_str(text).unwrap();
        assert_eq!(all[0].state, State::Unknown);
        assert!(!all[0].state.serves());
    }
}
