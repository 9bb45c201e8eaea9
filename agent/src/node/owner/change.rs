//! Modules come, change and go.

use super::{
    Command, End, Event, Loaded, Membership, ModuleName, Owner, REPLICATOR_END, Refusal, Reply, Runtime,
    Slot, answer, load, not_found, spec_store,
};
use std::sync::Arc;

use crate::module::Module;
use crate::node::Install;
use crate::node::load::Mirror;
use tokio_util::sync::CancellationToken;

impl Owner {
    /// The cluster was formed, or its settings changed.
    pub(super) fn changed(&mut self) {
        let Some(membership) = self.membership.borrow_and_update().clone() else { return };
        self.ground.context.events.name(&membership.node);
        let (paths, end) = (self.ground.context.paths.clone(), self.end.clone());
        tokio::spawn(async move {
            let listed = tokio::task::spawn_blocking(move || spec_store::installed(&paths)).await;
            let listed = listed.map_err(std::io::Error::other).flatten();
            // The loop has ended.
            let _ended = end.send(End::Listed(listed)).await;
        });
    }

    fn listed(&mut self, installed: std::io::Result<Vec<ModuleName>>) {
        let Some(membership) = self.membership.borrow().clone() else { return };
        let installed = match installed {
            Ok(installed) => installed,
            Err(error) => {
                let text = format!("the installed modules cannot be listed: {error}");
                self.ground.context.events.record("", true, &text);
                return;
            }
        };
        for name in installed {
            match self.slots.get(&name) {
                None => self.load(&name, &membership, None, Vec::new()),
                Some(Slot::Mirror(runtime)) => {
                    let heartbeats = runtime.mirror.module.heartbeats(&runtime.mirror.pair, &membership);
                    self.ground.network.watch_module(&name, heartbeats);
                }
                Some(Slot::Loading { .. } | Slot::Idle { .. }) => {}
            }
        }
    }

    /// Begins to load a module, once its earlier replicator has ended.
    fn load(
        &mut self,
        name: &str,
        membership: &Membership,
        earlier: Option<CancellationToken>,
        waiting: Vec<Reply<()>>,
    ) {
        self.begin_load(name, membership, earlier, waiting);
        self.publish(name);
    }

    /// Another core takes over what runs, with the version in force: as after a restart of the daemon, for this module
    /// alone. Until it is there, the module is shown as it was.
    pub(super) fn renew(&mut self, module: &str, waiting: Vec<Reply<()>>) {
        let Some(membership) = self.membership.borrow().clone() else { return };
        if let Some(Slot::Mirror(runtime)) = self.slots.remove(module) {
            self.begin_load(module, &membership, Some(runtime.detach()), waiting);
        }
    }

    fn begin_load(
        &mut self,
        name: &str,
        membership: &Membership,
        earlier: Option<CancellationToken>,
        waiting: Vec<Reply<()>>,
    ) {
        self.runtimes += 1;
        let (runtime, module, node) = (self.runtimes, name.to_owned(), membership.node.clone());
        let (ground, end) = (self.ground.clone(), self.end.clone());
        self.slots.insert(name.to_owned(), Slot::Loading { runtime, waiting });
        tokio::spawn(async move {
            wait_for(earlier).await;
            let loaded = load(&ground, &module, &node, runtime).await;
            // The loop has ended.
            let _ended = end.send(End::Loaded { module, runtime, loaded }).await;
        });
    }

    pub(super) fn ended(&mut self, end: End) {
        match end {
            End::Listed(installed) => self.listed(installed),
            End::Loaded { module, runtime, loaded } => self.loaded(&module, runtime, loaded),
            End::Committed { module, done, reply } => self.committed(&module, done, reply),
            End::Removed { module, done, reply } => self.removed(&module, done, reply),
            End::BootDelay { module, runtime } => self.with(&module, |present| {
                if present.number == runtime {
                    present.drive(Event::Command(Command::Start));
                }
            }),
        }
    }

    fn loaded(&mut self, name: &str, number: u64, loaded: Loaded) {
        let Some(Slot::Loading { runtime, waiting }) = self.slots.get_mut(name) else { return };
        if *runtime != number {
            return;
        }
        let waiting = std::mem::take(waiting);
        match loaded {
            Loaded::Mirror(mirror) => self.begin(name, number, mirror),
            Loaded::Idle { module, reason } => {
                tracing::info!(module = name, reason, "the module cannot run here");
                let slot = Slot::Idle { module, reason, node: self.node(), frozen: false };
                self.slots.insert(name.to_owned(), slot);
                self.publish(name);
            }
        }
        for reply in waiting {
            answer(reply, Ok(()));
        }
    }

    fn begin(&mut self, name: &str, number: u64, mut mirror: Box<Mirror>) {
        let Some(membership) = self.membership.borrow().clone() else { return };
        let heartbeats = mirror.module.heartbeats(&mirror.pair, &membership);
        self.ground.network.watch_module(name, heartbeats.clone());
        let ignored = mirror.module.ignored();
        if !ignored.is_empty() {
            let text = format!("this release does not act on {} of module.toml", ignored.join(", "));
            self.ground.context.events.record(name, true, &text);
        }
        let (adopted, start) = (mirror.adopted.take(), mirror.start);
        let (addresses, replica) = (mirror.addresses.clone(), mirror.replica.clone());
        let delay = mirror.module.spec.module.boot_delay;
        let delayed = start.start && start.booted && adopted.is_none() && !delay.is_zero();
        let mut runtime = Runtime::new(mirror, number, &heartbeats);
        runtime.adopt_session(adopted.as_ref());
        if adopted.as_ref().is_some_and(|adopted| adopted.mounted && !adopted.fenced) && start.start {
            // Before the core can order anything: what it orders then comes later.
            addresses.offer(crate::address::Order::Follow);
        }
        runtime.drive(Event::Started { start: start.start && !delayed, adopted });
        self.slots.insert(name.to_owned(), Slot::Mirror(Box::new(runtime)));
        self.ground.network.listen_anew(name);
        self.publish(name);
        let (end, module) = (self.end.clone(), name.to_owned());
        tokio::spawn(async move {
            addresses.order(crate::address::Order::Look).await;
            replica.order(crate::replica::Order::Look).await;
            // Its keepers end when every way to them is gone, and another version waits for that.
            drop((addresses, replica));
            if delayed {
                tokio::time::sleep(delay).await;
                // The loop has ended.
                let _ended = end.send(End::BootDelay { module, runtime: number }).await;
            }
        });
    }

    fn node(&self) -> String {
        self.membership.borrow().as_ref().map(|membership| membership.node.clone()).unwrap_or_default()
    }

    pub(super) fn prepare(&mut self, install: Install, reply: Reply<()>) {
        let Some(membership) = self.membership.borrow().clone() else {
            let why =
                "this node belongs to no cluster; type: safectl cluster init, or: safectl cluster join TOKEN";
            return answer(reply, Err(Refusal::State(why.to_owned())));
        };
        let running = match self.taking(&install.name) {
            Ok(running) => running,
            Err(refusal) => return answer(reply, Err(refusal)),
        };
        let others = self.slots.values().filter_map(Slot::module).cloned().collect();
        let (installer, ground) = (self.installer.clone(), self.ground.clone());
        tokio::spawn(async move {
            answer(reply, installer.prepare(ground, membership, others, install, running).await);
        });
    }

    pub(super) fn commit(&mut self, module: ModuleName, version: String, reply: Reply<()>) {
        let running = match self.taking(&module) {
            Ok(running) => running,
            Err(refusal) => return answer(reply, Err(refusal)),
        };
        self.freeze(&module, true);
        let installer = self.installer.clone();
        let (ground, end) = (self.ground.clone(), self.end.clone());
        tokio::spawn(async move {
            let done = installer.commit(ground, module.clone(), version, running).await;
            // The loop has ended.
            let _ended = end.send(End::Committed { module, done, reply }).await;
        });
    }

    fn committed(&mut self, module: &str, done: Result<(), Refusal>, reply: Reply<()>) {
        self.freeze(module, false);
        let membership = self.membership.borrow().clone();
        let runs = match self.slots.get_mut(module) {
            Some(Slot::Mirror(runtime)) if done.is_ok() && !runtime.stopped() => {
                runtime.renew = true;
                Some(runtime.at_rest())
            }
            _ => None,
        };
        match (done, membership) {
            (Ok(()), Some(_)) if runs == Some(true) => self.renew(module, vec![reply]),
            // Something happened meanwhile, and comes first.
            (Ok(()), Some(_)) if runs == Some(false) => answer(reply, Ok(())),
            (Ok(()), Some(membership)) => {
                let earlier = self.tear_down(module);
                self.load(module, &membership, earlier, vec![reply]);
            }
            (done, _) => answer(reply, done),
        }
    }

    pub(super) fn abort(&mut self, module: ModuleName, version: String, reply: Reply<()>) {
        let (installer, ground) = (self.installer.clone(), self.ground.clone());
        tokio::spawn(async move {
            answer(reply, installer.abort(ground, module, version).await);
        });
    }

    pub(super) fn removable(&self, module: &str) -> Result<(), Refusal> {
        if !self.slots.contains_key(module) {
            return Err(not_found(module));
        }
        self.changeable(module)
    }

    pub(super) fn remove(&mut self, module: ModuleName, reply: Reply<()>) {
        if !self.slots.contains_key(&module) {
            return answer(reply, Ok(()));
        }
        if let Err(refusal) = self.changeable(&module) {
            return answer(reply, Err(refusal));
        }
        // One that cannot run here may have a replicator of better days, which fenced itself for want of an agent.
        let idle = self.slots.get(&module).filter(|slot| matches!(slot, Slot::Idle { .. }));
        let idle = idle.and_then(Slot::module).cloned();
        let earlier = self.tear_down(&module);
        self.slots.insert(module.clone(), Slot::Loading { runtime: 0, waiting: Vec::new() });
        let installer = self.installer.clone();
        let (ground, end) = (self.ground.clone(), self.end.clone());
        tokio::spawn(async move {
            wait_for(earlier).await;
            let done = match end_idle(idle).await {
                Ok(()) => installer.remove(ground, module.clone()).await,
                Err(why) => Err(Refusal::Failed(why)),
            };
            // The loop has ended.
            let _ended = end.send(End::Removed { module, done, reply }).await;
        });
    }

    fn removed(&mut self, module: &str, done: Result<(), Refusal>, reply: Reply<()>) {
        self.slots.remove(module);
        self.publish(module);
        let membership = self.membership.borrow().clone();
        if let (Err(_), Some(membership)) = (&done, membership) {
            // What is left is shown as what it is.
            self.load(module, &membership, None, Vec::new());
        }
        answer(reply, done);
    }

    /// Ends a module's workers; the token is cancelled when its replicator has ended.
    fn tear_down(&mut self, module: &str) -> Option<CancellationToken> {
        self.ground.network.forget_module(module);
        match self.slots.remove(module) {
            Some(Slot::Mirror(runtime)) => Some(runtime.end()),
            Some(Slot::Loading { .. } | Slot::Idle { .. }) | None => None,
        }
    }

    /// Whether another version can be put in force now: over nothing, or over this one, which runs.
    fn taking(&self, module: &str) -> Result<Option<Arc<Module>>, Refusal> {
        match self.slots.get(module) {
            Some(Slot::Mirror(runtime)) if runtime.frozen.is_none() && !runtime.stopped() => {
                if runtime.at_rest() && !runtime.renew {
                    return Ok(Some(Arc::clone(&runtime.mirror.module)));
                }
                let node = self.node();
                Err(Refusal::State(format!(
                    "{module} is changing its state on {node}; type: safectl status {module}, and try again when it is done"
                )))
            }
            _ => self.changeable(module).map(|()| None),
        }
    }

    /// A module is removed only while nothing of it runs.
    fn changeable(&self, module: &str) -> Result<(), Refusal> {
        match self.slots.get(module) {
            None => Ok(()),
            Some(Slot::Idle { frozen: false, .. }) => Ok(()),
            Some(Slot::Mirror(runtime)) if runtime.frozen.is_none() => {
                if runtime.stopped() {
                    return Ok(());
                }
                let node = self.node();
                Err(Refusal::State(format!(
                    "{module} runs on {node}; type: safectl shutdown {module}, and try again when it is stopped"
                )))
            }
            Some(Slot::Loading { .. } | Slot::Idle { .. } | Slot::Mirror(_)) => {
                Err(Refusal::State(format!("{module} is being installed or removed; try again")))
            }
        }
    }

    fn freeze(&mut self, module: &str, freeze: bool) {
        match self.slots.get_mut(module) {
            Some(Slot::Mirror(runtime)) => runtime.frozen = freeze.then_some("it is being installed"),
            Some(Slot::Idle { frozen, .. }) => *frozen = freeze,
            Some(Slot::Loading { .. }) | None => {}
        }
    }
}

async fn end_idle(module: Option<Arc<Module>>) -> Result<(), String> {
    match module {
        Some(module) => crate::replica::end(&module).await,
        None => Ok(()),
    }
}

async fn wait_for(earlier: Option<CancellationToken>) {
    let Some(earlier) = earlier else { return };
    // The keeper has deadlines of its own; this one only keeps a mistake there from blocking the module for ever.
    let _deadline = tokio::time::timeout(REPLICATOR_END, earlier.cancelled()).await;
}
