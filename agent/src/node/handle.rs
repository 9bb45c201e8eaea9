//! How rpc, heartbeat and peer code reach the owner loop.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use safe_failover::event::Command;
use safe_failover::resource::{Resources, Value};
use safe_failover::view::View;
use safe_failover::{Explanation, Standing, Time};
use safe_proto::module::{ModuleFiles, ModuleInfo, ModuleStatus};
use tokio::sync::{mpsc, oneshot, watch};

/// Name of a module: a DNS label.
pub type ModuleName = String;

/// Status of every installed module on this node, by name. Replaced as a whole at each change.
pub type Statuses = Arc<BTreeMap<ModuleName, ModuleStatus>>;

/// Where an answer goes.
pub type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// How many events may wait for the owner loop.
const QUEUE: usize = 1024;

/// How long a caller waits for the owner loop: it never does slow work itself, so this is far beyond any good day.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why something asked of the node is not done. Each carries one sentence: what, why, what to type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such module on this node.
    #[error("{0}")]
    NotFound(String),
    /// What was given is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The state does not allow it.
    #[error("{0}")]
    State(String),
    /// It was tried and failed, or the owner loop does not answer.
    #[error("{0}")]
    Failed(String),
}

/// One version of a module, to be put on this node.
#[derive(Debug, Clone)]
pub struct Install {
    /// Name; may differ from the one in `module.toml`.
    pub name: ModuleName,
    /// `module.toml` and the files beside it.
    pub files: ModuleFiles,
    /// Version that this one follows, on the node that coordinates; none: the first.
    pub parent: Option<String>,
    /// `spec_store::version(&files, parent)`: checked again here.
    pub version: String,
    /// A person wants it in the place of `parent`: not if this node has gone on from there since.
    pub follows: bool,
}

/// Everything that reaches the owner loop from outside.
#[derive(Debug)]
pub enum NodeEvent {
    /// A view of one module came from its other node. The loop drops it if it is not newer than the last one.
    View {
        /// Module.
        module: ModuleName,
        /// Node that sent it, as authenticated.
        from: String,
        /// The view.
        view: Box<View>,
    },
    /// Any authenticated packet of that node's agent, or of a replicator in its place, on any lan.
    Heard {
        /// Node.
        from: String,
    },
    /// The newest packet that the node's heartbeat echoes was sent by this node at that time.
    Echoed {
        /// Node.
        from: String,
        /// When this node sent it.
        sent: Time,
    },
    /// A lan between this node and the module's other node changed, judged with the module's own timeout.
    Lan {
        /// Module.
        module: ModuleName,
        /// Index into `Heartbeats::lans`.
        lan: u8,
        /// Up in both directions.
        up: bool,
    },
    /// The replicator of this module on the other node says that its agent is gone.
    AgentGone {
        /// Module.
        module: ModuleName,
        /// Node.
        from: String,
    },
    /// A connection on port 9402 whose ClientHello names this module; nothing has been consumed of it.
    Stream {
        /// Module.
        module: ModuleName,
        /// The socket.
        socket: OwnedFd,
    },
    /// An administrator's command for this node.
    Control {
        /// Module.
        module: ModuleName,
        /// What.
        command: Command,
        /// What happens now, in one sentence.
        reply: Reply<String>,
    },
    /// Holds resynchronisations of the module back, on this node.
    PauseResync {
        /// Module.
        module: ModuleName,
        /// For how many seconds; 0: they go on.
        seconds: u32,
        /// What happens now, in one sentence.
        reply: Reply<String>,
    },
    /// Writes a version beside the present one; nothing changes yet. A later prepare replaces an earlier one.
    PrepareInstall {
        /// What.
        install: Box<Install>,
        /// Prepared.
        reply: Reply<()>,
    },
    /// Makes the prepared version the present one. Done already if it is.
    CommitInstall {
        /// Module.
        module: ModuleName,
        /// Which version was prepared.
        version: String,
        /// Durable and in force.
        reply: Reply<()>,
    },
    /// Forgets what was prepared.
    AbortInstall {
        /// Module.
        module: ModuleName,
        /// Which version was prepared.
        version: String,
        /// Forgotten.
        reply: Reply<()>,
    },
    /// Asks whether the module could be removed: refused unless it is stopped here.
    PrepareRemove {
        /// Module.
        module: ModuleName,
        /// It could.
        reply: Reply<()>,
    },
    /// Removes spec and state of the module from this node; data stay. Done already if it is not there.
    Remove {
        /// Module.
        module: ModuleName,
        /// Durable.
        reply: Reply<()>,
    },
    /// Asks what its core knows of rules and resources, and what would happen if something failed.
    Inspect {
        /// Module.
        module: ModuleName,
        /// The answer.
        reply: Reply<Inspection>,
    },
    /// A person sets a resource.
    SetResource {
        /// Module.
        module: ModuleName,
        /// Name, checked.
        resource: String,
        /// Value.
        value: Value,
        /// Who or what sets it, and why.
        reason: String,
        /// Noted.
        reply: Reply<()>,
    },
    /// Installed modules.
    List {
        /// By name.
        reply: Reply<Vec<ModuleInfo>>,
    },
}

/// What a core knows of rules and resources.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// Rules as they stand.
    pub rules: Vec<Standing>,
    /// Resources told from outside.
    pub resources: Resources,
    /// Its own: `state` and `data.uptodate`.
    pub own: [(&'static str, Value); 2],
    /// Why, and what if.
    pub explanations: Vec<Explanation>,
}

/// A way to the owner loop; cheap to clone.
#[derive(Debug, Clone)]
pub struct NodeHandle {
    events: mpsc::Sender<NodeEvent>,
    statuses: watch::Receiver<Statuses>,
}

impl NodeHandle {
    /// Both ends: the handle, and what the loop needs.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<NodeEvent>, watch::Sender<Statuses>) {
        let (events, inbox) = mpsc::channel(QUEUE);
        let (publish, statuses) = watch::channel(Statuses::default());
        (Self { events, statuses }, inbox, publish)
    }

    /// Status of every module on this node, and a way to wait for the next change.
    #[must_use]
    pub fn statuses(&self) -> watch::Receiver<Statuses> {
        self.statuses.clone()
    }

    /// Hands over what will be repeated anyway (`View`, `Heard`, `Echoed`): dropped if the loop is behind; false if so.
    pub fn offer(&self, event: NodeEvent) -> bool {
        self.events.try_send(event).is_ok()
    }

    /// Hands over what must arrive (`Lan`, `AgentGone`, `Stream`); waits for room.
    ///
    /// # Errors
    /// The loop has ended or does not take anything for 20 s.
    pub async fn deliver(&self, event: NodeEvent) -> Result<(), Refusal> {
        self.events.send_timeout(event, PATIENCE).await.map_err(|_| gone())
    }

    /// `deliver` from a thread outside the runtime, such as the heartbeat thread. False: the loop has ended.
    pub fn deliver_blocking(&self, event: NodeEvent) -> bool {
        self.events.blocking_send(event).is_ok()
    }

    /// Hands a command to a module of this node; answers what happens now.
    ///
    /// # Errors
    /// The module's refusal.
    pub async fn control(&self, module: &str, command: Command) -> Result<String, Refusal> {
        let module = module.to_owned();
        self.ask(|reply| NodeEvent::Control { module, command, reply }).await
    }

    /// See [`NodeEvent::PauseResync`].
    ///
    /// # Errors
    /// The module does not run here.
    pub async fn pause_resync(&self, module: &str, seconds: u32) -> Result<String, Refusal> {
        let module = module.to_owned();
        self.ask(|reply| NodeEvent::PauseResync { module, seconds, reply }).await
    }

    /// See [`NodeEvent::PrepareInstall`].
    ///
    /// # Errors
    /// The spec is invalid, the module runs, or the disk refuses.
    pub async fn prepare_install(&self, install: Install) -> Result<(), Refusal> {
        self.ask(|reply| NodeEvent::PrepareInstall { install: Box::new(install), reply }).await
    }

    /// See [`NodeEvent::CommitInstall`].
    ///
    /// # Errors
    /// Nothing of that version was prepared, the module runs, or the disk refuses.
    pub async fn commit_install(&self, module: &str, version: &str) -> Result<(), Refusal> {
        let (module, version) = (module.to_owned(), version.to_owned());
        self.ask(|reply| NodeEvent::CommitInstall { module, version, reply }).await
    }

    /// See [`NodeEvent::AbortInstall`].
    ///
    /// # Errors
    /// The disk refuses.
    pub async fn abort_install(&self, module: &str, version: &str) -> Result<(), Refusal> {
        let (module, version) = (module.to_owned(), version.to_owned());
        self.ask(|reply| NodeEvent::AbortInstall { module, version, reply }).await
    }

    /// See [`NodeEvent::PrepareRemove`].
    ///
    /// # Errors
    /// The module is not stopped here.
    pub async fn prepare_remove(&self, module: &str) -> Result<(), Refusal> {
        let module = module.to_owned();
        self.ask(|reply| NodeEvent::PrepareRemove { module, reply }).await
    }

    /// See [`NodeEvent::Remove`].
    ///
    /// # Errors
    /// The module is not stopped here, or the disk refuses.
    pub async fn remove(&self, module: &str) -> Result<(), Refusal> {
        let module = module.to_owned();
        self.ask(|reply| NodeEvent::Remove { module, reply }).await
    }

    /// See [`NodeEvent::Inspect`].
    ///
    /// # Errors
    /// The module's refusal.
    pub async fn inspect(&self, module: &str) -> Result<Inspection, Refusal> {
        let module = module.to_owned();
        self.ask(|reply| NodeEvent::Inspect { module, reply }).await
    }

    /// See [`NodeEvent::SetResource`].
    ///
    /// # Errors
    /// The module's refusal.
    pub async fn set_resource(
        &self,
        module: &str,
        resource: &str,
        value: Value,
        reason: &str,
    ) -> Result<(), Refusal> {
        let (module, resource, reason) = (module.to_owned(), resource.to_owned(), reason.to_owned());
        self.ask(|reply| NodeEvent::SetResource { module, resource, value, reason, reply }).await
    }

    /// Installed modules, by name.
    ///
    /// # Errors
    /// The loop does not answer.
    pub async fn list(&self) -> Result<Vec<ModuleInfo>, Refusal> {
        self.ask(|reply| NodeEvent::List { reply }).await
    }

    async fn ask<T>(&self, event: impl FnOnce(Reply<T>) -> NodeEvent) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.deliver(event(reply)).await?;
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(gone()),
        }
    }
}

fn gone() -> Refusal {
    Refusal::Failed("safed is stopping or overloaded; try again, and look at its log".to_owned())
}
