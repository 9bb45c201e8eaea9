//! Puts versions of modules on this node and takes modules away, beside the owner loop.

use std::sync::Arc;

use safe_failover::hard::HardState;
use safe_proto::module::ModuleInfo;
use safe_proto::spec::{ModuleSpec, Surroundings};
use tokio::sync::Mutex;

use super::load::Ground;
use super::{Install, Membership, Refusal, boot};
use crate::cover::Cover;
use crate::module::{self, Module};
use crate::spec_store;
use crate::store::Store;

/// Writes specs; one at a time.
#[derive(Clone, Default)]
pub(super) struct Installer {
    turn: Arc<Mutex<()>>,
}

impl Installer {
    /// Checks a version and writes it beside the one in force. `running`: what it is to be put over.
    pub(super) async fn prepare(
        &self,
        ground: Ground,
        membership: Arc<Membership>,
        others: Vec<Arc<Module>>,
        install: Install,
        running: Option<Arc<Module>>,
    ) -> Result<(), Refusal> {
        let _turn = self.turn.lock().await;
        run(move || prepare(&ground, &membership, &others, &install, running.as_deref())).await
    }

    /// Puts the prepared version in force.
    pub(super) async fn commit(
        &self,
        ground: Ground,
        name: String,
        version: String,
        running: Option<Arc<Module>>,
    ) -> Result<(), Refusal> {
        let _turn = self.turn.lock().await;
        run(move || {
            let paths = ground.context.paths.module(&name);
            if let Some(running) = running
                && let Some((label, text)) = spec_store::prepared(&paths, &version)
            {
                // It may have been started since the version was prepared.
                let spec = ModuleSpec::parse(&text)
                    .map_err(|_| Refusal::Failed("the prepared version cannot be read".to_owned()))?;
                takes(&running, &spec, &label.nodes)?;
            }
            // Before the spec: a module in force without state would be taken for one whose state was lost.
            failed(Store::create(&paths.state(), &HardState::default()))?;
            if !paths.boot().exists() {
                boot::settle(&paths.boot(), ground.boot_id);
            }
            match spec_store::commit(&paths, &version) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Refusal::State(format!(
                    "somebody else installed {name} at the same time, and this version is not in force; type: safectl \
                     module list, and install again if yours is to replace it"
                ))),
                done => failed(done),
            }
        })
        .await
    }

    /// Forgets a prepared version.
    pub(super) async fn abort(&self, ground: Ground, name: String, version: String) -> Result<(), Refusal> {
        let _turn = self.turn.lock().await;
        run(move || failed(spec_store::abort(&ground.context.paths.module(&name), &version))).await
    }

    /// Removes a module that does not run.
    pub(super) async fn remove(&self, ground: Ground, name: String) -> Result<(), Refusal> {
        let _turn = self.turn.lock().await;
        run(move || {
            failed(uncover(&ground, &name))?;
            failed(spec_store::remove(&ground.context.paths.module(&name)))
        })
        .await
    }
}

/// Its directories are nobody's any more.
fn uncover(ground: &Ground, name: &str) -> Result<(), String> {
    let paths = ground.context.paths.module(name);
    // One whose spec cannot be read has what was noted.
    let loaded = Module::load(&ground.context.paths, name, "");
    let directories = loaded.map(|module| module.directories()).unwrap_or_default();
    Cover::new(name, directories, &paths.cover(), ground.boot_id).discard()
}

/// What a list says of a module.
pub(super) fn info(module: &Module) -> ModuleInfo {
    ModuleInfo {
        name: module.name.clone(),
        kind: module.spec.module.kind.as_str().to_owned(),
        nodes: module.label.nodes.clone(),
        version: module.label.version.clone(),
    }
}

fn prepare(
    ground: &Ground,
    membership: &Membership,
    others: &[Arc<Module>],
    install: &Install,
    running: Option<&Module>,
) -> Result<(), Refusal> {
    let expected = spec_store::version(&install.files, install.parent.as_deref());
    if expected != install.version {
        return Err(Refusal::Invalid("the module's files are not those of the version named".to_owned()));
    }
    let names: Vec<String> = membership.nodes.iter().map(|member| member.name.clone()).collect();
    let own = ground.context.paths.own();
    let addresses = membership.addresses();
    let around = Surroundings {
        nodes: Some(&names),
        lans: Some(&membership.lans),
        own_paths: &own,
        addresses: &addresses,
        witnesses: None,
    };
    let spec = module::check(&install.name, &install.files, around, others).map_err(Refusal::Invalid)?;
    let nodes = spec.nodes_in(&names, &membership.node);
    if !nodes.contains(&membership.node) {
        let why = format!("{} is not a module of node {}", install.name, membership.node);
        return Err(Refusal::Invalid(why));
    }
    if let Some(running) = running {
        takes(running, &spec, &nodes)?;
    }
    let paths = ground.context.paths.module(&install.name);
    let present = spec_store::label(&paths).ok();
    let parent = install.parent.as_deref();
    if let Some(present) = &present {
        overtaken(present, install)?;
    }
    let label = spec_store::next_label(present.as_ref(), &install.name, &install.version, parent, nodes);
    failed(spec_store::prepare(&paths, &label, &install.files))
}

/// This node has gone on since the version was made, or since it was found to be newer: it does not go back.
fn overtaken(present: &spec_store::Label, install: &Install) -> Result<(), Refusal> {
    let passed = |version: &String| present.before.contains(version);
    if install.follows && install.parent.as_ref().is_none_or(passed) {
        return Err(Refusal::State(format!(
            "somebody installed another version of {} meanwhile ({:.12}); type: safectl module list, and install again if \
             yours is to replace it",
            install.name, present.version
        )));
    }
    if !install.follows && passed(&install.version) {
        return Err(Refusal::State(format!(
            "a newer version of {} was installed meanwhile ({:.12})",
            install.name, present.version
        )));
    }
    Ok(())
}

/// Whether the module can take the version while it runs.
fn takes(running: &Module, spec: &ModuleSpec, nodes: &[String]) -> Result<(), Refusal> {
    let mut changes = running.spec.changes(spec);
    // Names that were written down, or left out, may be the same nodes.
    changes.retain(|change| change.key != "module.nodes" || running.label.nodes != nodes);
    let Some(change) = changes.iter().find(|change| change.stop.is_some()) else { return Ok(()) };
    let (name, why) = (&running.name, change.stop.unwrap_or_default());
    Err(Refusal::State(format!(
        "{name} runs on {}, and cannot take this while it does: {change} ({why}); type: safectl shutdown {name}, then \
         install again, then: safectl start {name}",
        running.node
    )))
}

fn failed<E: std::fmt::Display>(done: Result<(), E>) -> Result<(), Refusal> {
    done.map_err(|error| Refusal::Failed(error.to_string()))
}

async fn run(work: impl FnOnce() -> Result<(), Refusal> + Send + 'static) -> Result<(), Refusal> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Refusal::Failed(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use safe_proto::module::ModuleFiles;

    use super::*;

    #[test]
    fn a_node_does_not_go_back_to_a_version_that_it_fetched_while_a_newer_one_was_installed() {
        let text = |text: &str| text.to_owned();
        let present = spec_store::Label {
            name: text("db"),
            version: text("v2"),
            before: vec![text("v1"), text("v0")],
            nodes: Vec::new(),
        };
        let install = |version: &str, parent: &str, follows| Install {
            name: text("db"),
            files: ModuleFiles::default(),
            parent: Some(text(parent)),
            version: text(version),
            follows,
        };
        let refused = |install: Install| overtaken(&present, &install).is_err();
        assert!(refused(install("v1", "v0", false)), "fetched, and overtaken by v2");
        assert!(!refused(install("v3", "v2", false)), "newer");
        assert!(!refused(install("other", "v1", false)), "of two heads the one that counts");
        assert!(!refused(install("v3", "v2", true)));
        assert!(refused(install("other", "v1", true)), "of two people the later one");
    }
}
