//! Brings this node up to what the others hold: cluster settings, and modules installed while it was away.
//!
//! Heartbeats tell that something differs; a greeting tells what. Who is behind fetches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use safe_proto::module::{ModuleFile, ModuleFiles, ModuleInfo, State};
use safe_proto::peer::{
    FetchModuleRequest, FetchModuleResponse, GreetRequest, ModuleHead, PeerFile, SyncSettingsRequest,
};
use tokio::time::Instant;
use tonic::{Request, Status};

use super::nodes::bounded;
use super::{Nodes, versions};
use crate::cluster::{Cluster, Joined};
use crate::heartbeat::PeerReport;
use crate::node::{Context, Install, Refusal, Statuses};
use crate::spec_store;

/// For one call.
const PATIENCE: Duration = Duration::from_secs(10);
/// For a module with its files.
const FETCH: Duration = Duration::from_secs(60);
/// Looked at again after this although nothing was heard.
const TICK: Duration = Duration::from_secs(15);
/// First wait after a failure.
const BACKOFF: Duration = Duration::from_secs(1);
/// Longest.
const BACKOFF_LIMIT: Duration = Duration::from_secs(60);
/// Modules anybody may name in a greeting.
pub const MAX_HEADS: usize = 1024;

/// A version that was refused so often is not taken without a person.
const REFUSALS: u32 = 4;

/// An installation reaches one node after the other: a difference counts when it has lasted this long.
const SETTLE: Duration = Duration::from_secs(3);

/// Keeps this node in step until it ends.
#[derive(Debug)]
pub struct CatchUp {
    context: Context,
    cluster: Arc<Cluster>,
    nodes: Arc<Nodes>,
    others: BTreeMap<String, Other>,
    /// The last version of a module that could not be taken, and how often.
    refusals: parking_lot::Mutex<BTreeMap<String, (String, u32)>>,
}

/// What was done about one node.
#[derive(Debug, Default)]
struct Other {
    /// Its agent process when it was greeted last.
    greeted: Option<u64>,
    /// Its modules differ from this node's since then.
    differs: Option<Instant>,
    reachable: bool,
    /// Nothing is tried before.
    until: Option<Instant>,
    pause: Duration,
}

impl CatchUp {
    /// Nothing happens before `run`.
    #[must_use]
    pub const fn new(context: Context, cluster: Arc<Cluster>, nodes: Arc<Nodes>) -> Self {
        Self {
            context,
            cluster,
            nodes,
            others: BTreeMap::new(),
            refusals: parking_lot::Mutex::new(BTreeMap::new()),
        }
    }

    /// Runs until the process ends.
    pub async fn run(mut self) {
        let mut notable = self.cluster.heart().notable();
        let mut membership = self.cluster.follow();
        let mut statuses = self.context.node.statuses();
        let mut held = BTreeMap::new();
        loop {
            // Before the first wait too: what happened before the subscriptions is not told by them.
            if let Some(joined) = self.cluster.joined() {
                self.look(&joined).await;
            }
            let tick = self.next_look();
            tokio::select! {
                () = self.context.shutdown.cancelled() => return,
                Ok(()) = notable.changed() => {}
                Ok(()) = membership.changed() => {}
                Ok(now) = statuses.wait_for(|now| versions(now) != held) => held = versions(&now),
                () = tokio::time::sleep_until(tick) => {}
            }
        }
    }

    /// The next time something is due, or just a look.
    fn next_look(&self) -> Instant {
        let settled = |other: &Other| other.differs.map(|since| since + SETTLE).max(other.until);
        let due = self.others.values().filter_map(settled).filter(|due| *due > Instant::now());
        let tick = Instant::now() + TICK;
        due.min().map_or(tick, |due| due.min(tick))
    }

    async fn look(&mut self, joined: &Joined) {
        let Ok(modules) = self.context.node.list().await else { return };
        let reports = self.cluster.heart().reports();
        let (own, settings) = (&joined.held.node, &joined.held.settings);
        self.others.retain(|name, _| settings.node(name).is_some());
        let mut due = Vec::new();
        for node in settings.others(own) {
            let digest = digest(&modules, &node.name);
            self.cluster.heart().set_digest(&node.name, digest);
            let report = reports.get(&node.name).cloned().unwrap_or_default();
            let other = self.others.entry(node.name.clone()).or_default();
            if other.is_due(&report, settings.version, digest) {
                due.push((node.name.clone(), report.incarnation, other.is_settled()));
            }
        }
        let meetings = due.iter().map(|(node, _, settled)| self.meet(joined, node, &modules, *settled));
        let outcomes = join_all(meetings).await;
        for ((node, incarnation, _), outcome) in due.into_iter().zip(outcomes) {
            let Some(other) = self.others.get_mut(&node) else { continue };
            match &outcome {
                Ok(()) => other.greeted = incarnation,
                Err(error) => {
                    tracing::debug!(node, error = error.message(), "not in step with this node yet")
                }
            }
            // Also after success: the other node needs time to say so in its heartbeats.
            other.pause = (other.pause * 2).clamp(BACKOFF, BACKOFF_LIMIT);
            other.until = Some(Instant::now() + other.pause);
        }
    }

    async fn meet(
        &self,
        joined: &Joined,
        node: &str,
        modules: &[ModuleInfo],
        fetching: bool,
    ) -> Result<(), Status> {
        let settings = &joined.held.settings;
        let greeting = GreetRequest {
            protocols: versions::SPOKEN.to_vec(),
            node: joined.held.node.clone(),
            settings_version: settings.version,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            modules: heads(&self.context, modules),
        };
        let answer = self.nodes.greet(node, greeting).await?;
        if answer.settings_version != settings.version {
            let mut client = self.nodes.peer(node).await?;
            let request = SyncSettingsRequest { settings: settings.to_json() };
            let theirs = bounded(node, PATIENCE, client.sync_settings(request)).await?;
            let cluster = Arc::clone(&self.cluster);
            tokio::task::spawn_blocking(move || cluster.merge_settings(&theirs.settings))
                .await
                .map_err(|error| Status::internal(error.to_string()))??;
        }
        if !fetching {
            return Ok(());
        }
        let own: BTreeMap<&str, &ModuleInfo> =
            modules.iter().map(|module| (module.name.as_str(), module)).collect();
        for head in answer.modules.iter().take(MAX_HEADS) {
            let concerns = head.nodes.contains(&joined.held.node);
            if concerns && self.is_behind(own.get(head.name.as_str()).copied(), head) {
                self.fetch(node, head).await?;
            }
        }
        Ok(())
    }

    /// Whether their version is to be taken: it follows this one, or of two heads it is the one that counts.
    fn is_behind(&self, own: Option<&ModuleInfo>, head: &ModuleHead) -> bool {
        let Some(own) = own else { return true };
        if own.version == head.version {
            return false;
        }
        let known = spec_store::before(&self.context.paths, &own.name).contains(&head.version);
        match (head.before.contains(&own.version), known) {
            (true, false) => return true,
            (false, true) => return false,
            // Two heads; or each follows the other, which must not go on for ever either.
            (false, false) | (true, true) => {}
        }
        match (serves(&self.context, &own.name), head.serving) {
            (false, true) => true,
            (true, false) => false,
            (true, true) | (false, false) => head.version > own.version,
        }
    }

    async fn fetch(&self, node: &str, head: &ModuleHead) -> Result<(), Status> {
        let mut client = self.nodes.peer(node).await?;
        let mut request = Request::new(FetchModuleRequest { name: head.name.clone() });
        request.set_timeout(FETCH);
        let fetched = bounded(node, FETCH, client.fetch_module(request)).await?;
        if fetched.name != head.name {
            return Err(Status::internal(format!("node {node} answered with another module")));
        }
        let install = install_of(fetched);
        let (name, version) = (install.name.clone(), install.version.clone());
        let outcome = async {
            self.context.node.prepare_install(install).await?;
            self.context.node.commit_install(&name, &version).await
        };
        match outcome.await {
            Ok(()) => {
                let text = format!("caught up with the version that node {node} holds ({:.12})", version);
                self.context.events.record(&name, false, &text);
                Ok(())
            }
            Err(Refusal::State(why)) => {
                // Mostly it changes its state just now.
                if self.refused(&name, version) == REFUSALS {
                    let text = format!("node {node} holds another version, which is not taken yet: {why}");
                    self.context.events.record(&name, true, &text);
                }
                Err(Status::failed_precondition(why))
            }
            Err(error) => {
                let text = format!("cannot catch up with the version that node {node} holds: {error}");
                self.context.events.record(&name, true, &text);
                Err(Status::internal(text))
            }
        }
    }
}

impl CatchUp {
    fn refused(&self, module: &str, version: String) -> u32 {
        let mut refusals = self.refusals.lock();
        let before = refusals.get(module).filter(|(refused, _)| *refused == version);
        let count = before.map_or(1, |(_, count)| count.saturating_add(1));
        refusals.insert(module.to_owned(), (version, count));
        count
    }
}

impl Other {
    /// Whether it is to be greeted now.
    fn is_due(&mut self, report: &PeerReport, settings: u64, digest: u64) -> bool {
        let now = Instant::now();
        let was_reachable = std::mem::replace(&mut self.reachable, report.is_reachable());
        if self.reachable && !was_reachable {
            (self.until, self.pause) = (None, Duration::ZERO);
        }
        let differs = report.modules != 0 && report.modules != digest && self.reachable;
        self.differs = if differs { self.differs.or(Some(now)) } else { None };
        // A node that does not know this one yet answers no heartbeat, but a call.
        let unheard = report.incarnation.is_none();
        let unknown = self.reachable && report.incarnation != self.greeted;
        let behind = self.reachable && report.settings_version != settings;
        let due = unheard || unknown || behind || self.is_settled();
        if !due {
            self.pause = Duration::ZERO;
        }
        due && self.until.is_none_or(|until| until <= now)
    }

    /// Its modules differ, and not only because an installation is under way.
    fn is_settled(&self) -> bool {
        self.differs.is_some_and(|since| since + SETTLE <= Instant::now())
    }
}

/// Which versions this node holds.
fn versions(statuses: &Statuses) -> BTreeMap<String, String> {
    statuses.iter().map(|(name, status)| (name.clone(), status.version.clone())).collect()
}

/// The modules of this node, as told in greetings.
#[must_use]
pub fn heads(context: &Context, modules: &[ModuleInfo]) -> Vec<ModuleHead> {
    let head = |module: &ModuleInfo| ModuleHead {
        name: module.name.clone(),
        version: module.version.clone(),
        before: spec_store::before(&context.paths, &module.name),
        nodes: module.nodes.clone(),
        serving: serves(context, &module.name),
    };
    modules.iter().map(head).collect()
}

fn serves(context: &Context, module: &str) -> bool {
    let statuses = context.node.statuses();
    let statuses = statuses.borrow();
    statuses.get(module).is_some_and(|status| is_serving(status.state()))
}

/// The states in which a module serves.
#[must_use]
pub const fn is_serving(state: State) -> bool {
    matches!(state, State::Alone | State::Prim | State::Up)
}

/// One number for the versions of all modules that both nodes have; never 0.
fn digest(modules: &[ModuleInfo], node: &str) -> u64 {
    let common: BTreeSet<(&str, &str)> = modules
        .iter()
        .filter(|module| module.nodes.iter().any(|one| one == node))
        .map(|module| (module.name.as_str(), module.version.as_str()))
        .collect();
    let mut hasher = blake3::Hasher::new();
    for (name, version) in common {
        hasher.update(name.as_bytes()).update(&[0]).update(version.as_bytes()).update(&[0]);
    }
    let mut number = [0; 8];
    number.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(number).max(1)
}

fn install_of(fetched: FetchModuleResponse) -> Install {
    Install {
        name: fetched.name,
        files: files_from_wire(fetched.spec, fetched.files),
        parent: Some(fetched.parent).filter(|parent| !parent.is_empty()),
        version: fetched.version,
        follows: false,
    }
}

/// Files as between nodes, to files as between programs.
#[must_use]
pub fn files_from_wire(spec: String, files: Vec<PeerFile>) -> ModuleFiles {
    let file = |PeerFile { path, content, executable }| ModuleFile { path, content, executable };
    ModuleFiles { spec, files: files.into_iter().map(file).collect() }
}

/// The other way.
#[must_use]
pub fn files_to_wire(files: &ModuleFiles) -> (String, Vec<PeerFile>) {
    let file = |file: &ModuleFile| PeerFile {
        path: file.path.clone(),
        content: file.content.clone(),
        executable: file.executable,
    };
    (files.spec.clone(), files.files.iter().map(file).collect())
}
