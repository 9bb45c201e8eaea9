//! Resources: named observations of a module on a node, which rules compare.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use crate::action::State;

/// Most resources of one module: a checker that invents names cannot fill the memory.
pub const MAX_RESOURCES: usize = 256;

/// Values that are kept of each resource.
pub const HISTORY: usize = 16;

/// What a name may begin with.
pub const CLASSES: [&str; 8] =
    ["state", "heartbeat", "check", "process", "interface", "address", "arbiter", "data"];

/// Value of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Value {
    /// Not observed yet: its checker has begun.
    Init,
    /// Well.
    Up,
    /// Not well.
    Down,
    /// Nobody observes it, or the node that does is not heard.
    Unknown,
    /// Of the resource `state` only.
    State(State),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Init => "init",
            Self::Up => "up",
            Self::Down => "down",
            Self::Unknown => "unknown",
            Self::State(State::Stop) => "STOP",
            Self::State(State::Wait) => "WAIT",
            Self::State(State::Alone) => "ALONE",
            Self::State(State::Prim) => "PRIM",
            Self::State(State::Second) => "SECOND",
        })
    }
}

impl std::str::FromStr for Value {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Ok(match text {
            "init" => Self::Init,
            "up" => Self::Up,
            "down" => Self::Down,
            "unknown" => Self::Unknown,
            "STOP" => Self::State(State::Stop),
            "WAIT" => Self::State(State::Wait),
            "ALONE" => Self::State(State::Alone),
            "PRIM" => Self::State(State::Prim),
            "SECOND" => Self::State(State::Second),
            _ => return Err(()),
        })
    }
}

/// One observation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Resource {
    /// Present value.
    pub value: Value,
    /// Unix seconds since when it has it.
    pub since: u64,
    /// Why it has it, for people; may be empty.
    pub reason: String,
    /// Earlier values with their time, newest first; at most [`HISTORY`].
    pub history: VecDeque<(u64, Value)>,
}

/// All resources of a module on this node that are told from outside the core.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Resources(BTreeMap<String, Resource>);

impl Resources {
    /// Notes an observation. False: it is no news, or there are too many resources.
    pub fn note(&mut self, name: &str, value: Value, reason: &str, at: u64) -> bool {
        if let Some(known) = self.0.get_mut(name) {
            if known.value == value {
                return false;
            }
            known.history.push_front((known.since, known.value));
            known.history.truncate(HISTORY);
            known.value = value;
            known.since = at;
            reason.clone_into(&mut known.reason);
            return true;
        }
        if self.0.len() >= MAX_RESOURCES {
            return false;
        }
        let (reason, history) = (reason.to_owned(), VecDeque::new());
        self.0.insert(name.to_owned(), Resource { value, since: at, reason, history });
        true
    }

    /// By name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Resource> {
        self.0.get(name)
    }

    /// All of them by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Resource)> {
        self.0.iter().map(|(name, resource)| (name.as_str(), resource))
    }
}

/// What is wrong with a resource name, if something is: it begins with a class and has no part without characters.
///
/// # Errors
/// One sentence with a suggestion.
pub fn check_name(name: &str) -> Result<(), String> {
    let class = name.split('.').next().unwrap_or_default();
    if !CLASSES.contains(&class) {
        let near = CLASSES.iter().max_by(|a, b| strsim::jaro(a, class).total_cmp(&strsim::jaro(b, class)));
        let near = near.copied().filter(|near| strsim::jaro(near, class) > 0.7);
        let hint = near.map_or_else(
            || format!("there are: {}", CLASSES.join(", ")),
            |near| format!("did you mean {near}?"),
        );
        return Err(format!("there are no resources of class \"{class}\"; {hint}"));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-:/".contains(c);
    if name.len() > 128 || !name.chars().all(plain) || name.split('.').any(str::is_empty) {
        return Err(format!("\"{name}\" is not the name of a resource, as in check.tcp.db"));
    }
    if class == "state" && name != "state" {
        return Err("state has no parts: write state, local.state or remote.state".to_owned());
    }
    if class != "state" && !name.contains('.') {
        return Err(format!("{class} has parts: write {class}.NAME, {class}.* (all) or {class}.? (any)"));
    }
    Ok(())
}
