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
use crate::node::{Context, Install, Refusal};
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

/// Keeps this node in step until it ends.
#[derive(Debug)]
pub struct CatchUp {
    context: Context,
    cluster: Arc<Cluster>,
    nodes: Arc<Nodes>,
    waits: BTreeMap<String, (Instant, Duration)>,
}

impl CatchUp {
    /// Nothing happens before `run`.
    #[must_use]
    pub const fn new(context: Context, cluster: Arc<Cluster>, nodes: Arc<Nodes>) -> Self {
        Self { context, cluster, nodes, waits: BTreeMap::new() }
    }

    /// Runs until the process ends.
    pub async fn run(mut self) {
        let mut notable = self.cluster.heart().notable();
        let mut membership = self.cluster.follow();
        let mut statuses = self.context.node.statuses();
        let mut versions = BTreeMap::new();
        loop {
            let wake = self.waits.values().map(|(until, _)| *until).min();
            let tick = wake.unwrap_or_else(|| Instant::now() + TICK).min(Instant::now() + TICK);
            tokio::select! {
                () = self.context.shutdown.cancelled() => return,
                Ok(()) = notable.changed() => {}
                Ok(()) = membership.changed() => {}
                Ok(()) = statuses.changed() => {
                    let now = statuses.borrow_and_update().iter().map(|(name, status)| (name.clone(), status.version.clone())).collect();
                    if now == versions {
                        continue;
                    }
                    versions = now;
                }
                () = tokio::time::sleep_until(tick) => {}
            }
            if let Some(joined) = self.cluster.joined() {
                self.look(&joined).await;
            }
        }
    }

    async fn look(&mut self, joined: &Joined) {
        let Ok(modules) = self.context.node.list().await else { return };
        let reports = self.cluster.heart().reports();
        let settings = &joined.held.settings;
        let own = &joined.held.node;
        let now = Instant::now();
        let mut behind = Vec::new();
        for node in settings.others(own) {
            let digest = digest(&modules, &node.name);
            self.cluster.heart().set_digest(&node.name, digest);
            let Some(report) = reports.get(&node.name).filter(|report| report.is_reachable()) else {
                continue;
            };
            let differs = report.settings_version != settings.version
                || (report.modules != 0 && report.modules != digest);
            if !differs {
                self.waits.remove(&node.name);
            } else if self.waits.get(&node.name).is_none_or(|(until, _)| *until <= now) {
                behind.push(node.name.clone());
            }
        }
        let outcomes = join_all(behind.iter().map(|node| self.meet(joined, node, &modules))).await;
        for (node, outcome) in behind.into_iter().zip(outcomes) {
            if let Err(error) = &outcome {
                tracing::debug!(node, error = error.message(), "not in step with this node yet");
            }
            // Also after success: the other node needs time to say so in its heartbeats.
            let last = self.waits.get(&node).map_or(BACKOFF / 2, |(_, last)| *last);
            let pause = (last * 2).min(BACKOFF_LIMIT);
            self.waits.insert(node, (Instant::now() + pause, pause));
        }
    }

    async fn meet(&self, joined: &Joined, node: &str, modules: &[ModuleInfo]) -> Result<(), Status> {
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
        if head.before.contains(&own.version) {
            return true;
        }
        if spec_store::before(&self.context.paths, &own.name).contains(&head.version) {
            return false;
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
            Err(Refusal::State(why)) => Err(Status::failed_precondition(why)),
            Err(error) => {
                let text = format!("cannot catch up with the version that node {node} holds: {error}");
                self.context.events.record(&name, true, &text);
                Err(Status::internal(text))
            }
        }
    }
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
