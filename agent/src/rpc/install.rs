//! Installing a module on all its nodes: prepared everywhere, then put in force everywhere, or nowhere.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::join_all;
use safe_proto::module::{InstallModuleRequest, InstallModuleResponse, ModuleFiles};
use safe_proto::peer::{
    AbortModuleRequest, CommitModuleRequest, GreetRequest, ModuleHead, PrepareModuleRequest,
};
use safe_proto::spec::{FILE, Finding, ModuleSpec, Surroundings, files};
use tonic::{Code, Status};

use super::{Desk, refuse, validate};
use crate::boot_units;
use crate::cluster::{ClusterError, Joined};
use crate::node::{Install, Network as _};
use crate::peer::catch_up::files_to_wire;
use crate::peer::nodes::bounded;
use crate::peer::versions::SPOKEN;
use crate::spec_store;

mod arbiter;
mod changed;

/// For a node to take a module with its files.
const PREPARE: Duration = Duration::from_secs(60);
/// For a node to put it in force.
const COMMIT: Duration = Duration::from_secs(20);

/// Everything that can be said about a module from its content and its surroundings, and the module if it is usable.
/// `coordinates`: this node was asked by a person, not by another node.
pub(super) async fn judge(
    desk: &Desk,
    name: &str,
    module: ModuleFiles,
    coordinates: bool,
) -> Result<(Vec<Finding>, Option<ModuleSpec>), Status> {
    let membership = desk.cluster.membership().borrow().clone();
    let (paths, name) = (desk.context.paths.clone(), name.to_owned());
    super::blocking(move || {
        let mut findings = files::check(&module);
        let spec = match ModuleSpec::parse(&module.spec) {
            Ok(spec) => spec,
            Err(wrong) => {
                findings.extend(wrong);
                return Ok((findings, None));
            }
        };
        let own_paths: Vec<PathBuf> = paths.own();
        let names: Option<Vec<String>> = membership
            .as_ref()
            .map(|membership| membership.nodes.iter().map(|node| node.name.clone()).collect());
        let addresses = membership.as_ref().map(|membership| membership.addresses()).unwrap_or_default();
        // A node that is only told may hear of a new witness after it heard of the module.
        let witnesses =
            membership.as_ref().filter(|_| coordinates).map(|membership| membership.witness_targets());
        let around = Surroundings {
            nodes: names.as_deref(),
            lans: membership.as_ref().map(|membership| membership.lans.as_slice()),
            own_paths: &own_paths,
            addresses: &addresses,
            witnesses: witnesses.as_deref(),
        };
        findings.extend(spec.validate(around));
        findings.extend(absent_interfaces(&spec));
        findings.extend(started_at_boot(&module));
        let name = if name.is_empty() { spec.module.name.clone() } else { name };
        for other in spec_store::installed(&paths).unwrap_or_default() {
            if other == name {
                continue;
            }
            let text = std::fs::read_to_string(paths.module(&other).spec().join(FILE)).unwrap_or_default();
            if let Ok(mut other_spec) = ModuleSpec::parse(&text) {
                // It may be installed under another name than the one it was written with.
                other_spec.module.name = other;
                findings.extend(spec.conflicts(&other_spec));
            }
        }
        let spec = (!findings.iter().any(|finding| finding.error)).then_some(spec);
        Ok((findings, spec))
    })
    .await
}

/// Interfaces that this node has not: with one of them no client would reach the module here.
fn absent_interfaces(spec: &ModuleSpec) -> Vec<Finding> {
    // The interfaces of this network namespace, a line each after two of headings.
    let table = std::fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    let names: Vec<&str> =
        table.lines().skip(2).filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim()).collect();
    let named = spec.address.iter().map(|address| address.interface.as_str());
    let absent = named.filter(|name| *name != "auto" && !names.is_empty() && !names.contains(name));
    absent
        .map(|name| {
            Finding::warning(FILE, format!("this node has no interface {name}; it has {}", names.join(", ")))
        })
        .collect()
}

/// Services of the module that run here without it.
fn started_at_boot(module: &ModuleFiles) -> Vec<Finding> {
    let scripts =
        module.files.iter().filter_map(|file| Some((file.path.strip_prefix("scripts/")?, &*file.content)));
    boot_units::warnings(scripts).into_iter().map(|text| Finding::warning("scripts", text)).collect()
}

/// Refuses what this node cannot take, for another node that coordinates.
pub(super) async fn check_here(desk: &Desk, install: &Install) -> Result<(), Status> {
    let (findings, spec) = judge(desk, &install.name, install.files.clone(), false).await?;
    if spec.is_some() {
        return Ok(());
    }
    Err(Status::invalid_argument(errors(&findings)))
}

fn errors(findings: &[Finding]) -> String {
    let errors: Vec<String> =
        findings.iter().filter(|finding| finding.error).take(20).map(Finding::to_string).collect();
    errors.join("\n")
}

/// One installation, coordinated by this node.
struct Plan {
    own: String,
    install: Install,
    /// Nodes that answer.
    present: Vec<String>,
    missing: Vec<String>,
}

/// See `ModuleService.InstallModule`.
pub(super) async fn install(
    desk: &Desk,
    request: InstallModuleRequest,
) -> Result<InstallModuleResponse, Status> {
    validate::install(&request)?;
    let _one = desk.installing.lock().await;
    let joined = desk.cluster.joined().ok_or(ClusterError::NoCluster)?;
    let files = request.module.unwrap_or_default();
    let (mut findings, spec) = judge(desk, &request.name, files.clone(), true).await?;
    let Some(spec) = spec else { return Err(Status::invalid_argument(errors(&findings))) };
    let name = if request.name.is_empty() { spec.module.name.clone() } else { request.name };
    validate::module(&name)?;
    let cluster: Vec<String> = joined.held.settings.nodes.iter().map(|node| node.name.clone()).collect();
    let nodes = spec.nodes_in(&cluster, &joined.held.node);
    let heads = heads(desk, &joined, &nodes, &name).await?;
    let (present, missing): (Vec<_>, Vec<_>) = nodes.into_iter().partition(|node| heads.contains_key(node));
    let stake =
        if missing.is_empty() { None } else { arbiter::at_stake(desk, &name, &spec, &missing).await? };
    if !missing.is_empty() && !request.allow_missing {
        return Err(Status::unavailable(format!(
            "node {} does not answer: bring it back, or install with --allow-missing so that it catches up later{}",
            missing.join(", "),
            stake.map(|stake| format!("; {stake}")).unwrap_or_default()
        )));
    }
    if present.is_empty() {
        return Err(Status::unavailable(format!("no node of module {name} answers")));
    }
    let parent = common_head(&name, &heads)?;
    findings.extend(stake.map(|stake| Finding::warning("arbiter", stake)));
    let warnings = findings.into_iter().map(Into::into).collect();
    let equal = heads.values().all(|head| head.as_ref().map(|head| &head.version) == parent.as_ref());
    if let Some(head) = &parent
        && equal
        && is_present(desk, &name, &files).await?
    {
        return Ok(InstallModuleResponse {
            name,
            version: head.clone(),
            nodes: present,
            missing,
            findings: warnings,
            changed: Vec::new(),
        });
    }
    let changed = changed::over_running(desk, &name, &spec, &files).await?;
    let version = spec_store::version(&files, parent.as_deref());
    let install = Install { name: name.clone(), files, parent, version: version.clone(), follows: true };
    let mut plan = Plan { own: joined.held.node.clone(), install, present, missing };
    plan.prepare(desk).await?;
    plan.commit(desk).await?;
    Ok(InstallModuleResponse {
        name,
        version,
        nodes: plan.present,
        missing: plan.missing,
        findings: warnings,
        changed,
    })
}

/// The version each node holds that answers; none: it has no such module.
async fn heads(
    desk: &Desk,
    joined: &Joined,
    nodes: &[String],
    name: &str,
) -> Result<BTreeMap<String, Option<ModuleHead>>, Status> {
    let ask = |node: &String| {
        let node = node.clone();
        async move {
            if node == joined.held.node {
                let version = spec_store::head(&desk.context.paths, name);
                let before = spec_store::before(&desk.context.paths, name);
                let head = version.map(|version| ModuleHead { version, before, ..ModuleHead::default() });
                return Ok(Some((node, head)));
            }
            let greeting = GreetRequest {
                protocols: SPOKEN.to_vec(),
                node: joined.held.node.clone(),
                settings_version: joined.held.settings.version,
                release: env!("CARGO_PKG_VERSION").to_owned(),
                modules: Vec::new(),
            };
            match desk.nodes.greet(&node, greeting).await {
                Ok(answer) => {
                    let head = answer.modules.into_iter().find(|module| module.name == name);
                    Ok(Some((node, head)))
                }
                Err(status) if status.code() == Code::Unavailable => Ok(None),
                Err(status) => Err(status),
            }
        }
    };
    let answers = join_all(nodes.iter().map(ask)).await;
    answers.into_iter().filter_map(Result::transpose).collect()
}

/// The newest version among the nodes, which all others must be on the way to.
fn common_head(name: &str, heads: &BTreeMap<String, Option<ModuleHead>>) -> Result<Option<String>, Status> {
    let known: Vec<&ModuleHead> = heads.values().flatten().collect();
    let Some(newest) = known.iter().find(|one| {
        known.iter().all(|other| other.version == one.version || one.before.contains(&other.version))
    }) else {
        if known.is_empty() {
            return Ok(None);
        }
        return Err(Status::failed_precondition(format!(
            "the nodes of module {name} hold versions that do not follow each other: stop it everywhere, and within a minute one of them is taken over by all; then install again"
        )));
    };
    Ok(Some(newest.version.clone()))
}

/// The same content is in force here already.
async fn is_present(desk: &Desk, name: &str, files: &ModuleFiles) -> Result<bool, Status> {
    let (paths, name, files) = (desk.context.paths.clone(), name.to_owned(), files.clone());
    super::blocking(move || {
        let same = |held: &ModuleFiles| spec_store::version(held, None) == spec_store::version(&files, None);
        Ok(spec_store::files(&paths, &name).is_ok_and(|held| same(&held)))
    })
    .await
}

impl Plan {
    async fn prepare(&self, desk: &Desk) -> Result<(), Status> {
        let outcomes = join_all(self.present.iter().map(|node| self.prepare_on(desk, node))).await;
        let failed =
            self.present.iter().zip(outcomes).find_map(|(node, outcome)| Some((node, outcome.err()?)));
        let Some((node, status)) = failed else { return Ok(()) };
        join_all(self.present.iter().map(|node| self.abort_on(desk, node))).await;
        Err(Status::new(status.code(), format!("node {node}: {} (nothing was installed)", status.message())))
    }

    async fn prepare_on(&self, desk: &Desk, node: &str) -> Result<(), Status> {
        if *node == self.own {
            return desk.context.node.prepare_install(self.install.clone()).await.map_err(refuse);
        }
        let (spec, files) = files_to_wire(&self.install.files);
        let request = PrepareModuleRequest {
            name: self.install.name.clone(),
            spec,
            files,
            parent: self.install.parent.clone().unwrap_or_default(),
            version: self.install.version.clone(),
        };
        let mut client = desk.nodes.peer(node).await?;
        bounded(node, PREPARE, client.prepare_module(request)).await.map(drop)
    }

    async fn abort_on(&self, desk: &Desk, node: &str) {
        let (name, version) = (self.install.name.clone(), self.install.version.clone());
        let outcome = if *node == self.own {
            desk.context.node.abort_install(&name, &version).await.map_err(refuse)
        } else {
            match desk.nodes.peer(node).await {
                Ok(mut client) => {
                    bounded(node, COMMIT, client.abort_module(AbortModuleRequest { name, version }))
                        .await
                        .map(drop)
                }
                Err(status) => Err(status),
            }
        };
        if let Err(status) = outcome {
            // What was prepared is replaced by the next preparation; it is never in force.
            tracing::warn!(node, error = status.message(), "a prepared version was not forgotten");
        }
    }

    /// The first commit decides. Who misses it afterwards is behind, and catches up.
    async fn commit(&mut self, desk: &Desk) -> Result<(), Status> {
        let mut order = self.present.clone();
        order.sort_by_key(|node| *node != self.own);
        let Some((first, others)) = order.split_first() else { return Ok(()) };
        if let Err(status) = self.commit_on(desk, first).await {
            join_all(self.present.iter().map(|node| self.abort_on(desk, node))).await;
            return Err(status);
        }
        let outcomes = join_all(others.iter().map(|node| self.commit_on(desk, node))).await;
        for (node, outcome) in others.iter().zip(outcomes) {
            if let Err(status) = outcome {
                tracing::warn!(
                    node,
                    error = status.message(),
                    "the module was prepared there but not put in force yet"
                );
                self.present.retain(|present| present != node);
                self.missing.push(node.clone());
            }
        }
        Ok(())
    }

    async fn commit_on(&self, desk: &Desk, node: &str) -> Result<(), Status> {
        let (name, version) = (self.install.name.clone(), self.install.version.clone());
        if *node == self.own {
            return desk.context.node.commit_install(&name, &version).await.map_err(refuse);
        }
        let mut client = desk.nodes.peer(node).await?;
        bounded(node, COMMIT, client.commit_module(CommitModuleRequest { name, version })).await.map(drop)
    }
}
