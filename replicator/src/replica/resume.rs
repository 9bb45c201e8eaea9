//! Mounts that outlive their process: what is left for the next one, and going on with what the last one left. See
//! `SURVIVAL.md`.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rustix::fs::AtFlags;
use rustix::io::Errno;
use safe_proto::replication as proto;
use safe_replication::op::ObjectId;

use super::{Examined, Replica};
use crate::backing::xattr;
use crate::epoch::keeper;
use crate::journal::Binding;
use crate::knowledge::Knowledge;
use crate::legacy::Legacy;
use crate::legacy::requests::{Intent, Requests};
use crate::marker;
use crate::member::Member;
use crate::mounts::Mounts;
use crate::node::{Node, Nodes};
use crate::operation::Engine;
use crate::prepare;
use crate::report::Report;
use crate::search::search;

/// The mounts are being changed for longer than this: whoever changes them tells the agent.
const BUSY: Duration = Duration::from_millis(200);

impl Replica {
    /// From now on what the kernel is told is noted for the next process.
    pub(super) fn begin_legacy(&self, examined: &Examined) -> Option<Arc<Legacy>> {
        let directories = examined.backing.roots.len();
        let legacy = match Legacy::create(&self.run_dir, directories, Arc::clone(&self.outbox)) {
            Ok(legacy) => Arc::new(legacy),
            Err(error) => {
                tracing::warn!(%error, "the mounts will not survive this process");
                return None;
            }
        };
        examined.engine.nodes.bequeath(Some(Arc::clone(&legacy)));
        *self.legacy.lock() = Some(Arc::clone(&legacy));
        Some(legacy)
    }

    /// There is nothing to leave any more.
    pub(super) fn end_legacy(&self, examined: &Examined) {
        examined.engine.nodes.bequeath(None);
        if self.legacy.lock().take().is_some() {
            Legacy::remove(&self.run_dir);
        }
    }

    /// Has the agent keep what the next process needs.
    pub(super) fn send_legacy(&self, mounts: &Mounts, examined: &Examined) {
        let Some(legacy) = self.legacy.lock().clone() else { return };
        let roots = examined.backing.roots.iter();
        legacy.send(mounts.devices().zip(roots).map(|(device, root)| (root.index, device, &root.directory)));
    }

    /// An agent has come, perhaps another one than before.
    pub fn greet(&self) {
        let Some(mounts) = self.mounts.try_lock_for(BUSY) else { return };
        if let Some(examined) = self.examined.lock().as_ref().filter(|_| !mounts.is_empty()) {
            self.send_legacy(&mounts, examined);
        }
    }

    /// Goes on with the mounts of the process before this one.
    pub(super) fn resume(
        &self,
        accept: Vec<u128>,
        files: usize,
        fences: u64,
    ) -> Result<proto::Resumed, String> {
        let Some((settings, tls)) = self.configured.lock().clone() else {
            return Err("not configured".into());
        };
        let (mut examined, mut mounts) = (self.examined.lock(), self.mounts.lock());
        if examined.is_some() {
            return Err("this process has directories of its own".into());
        }
        self.unfenced_since(fences)?;
        let descriptors = self.inherited.take(settings.directories.len(), files)?;
        let backing = prepare::adopt(&settings.directories, descriptors.directories)?;
        let legacy = Legacy::open(&self.run_dir, backing.roots.len(), Arc::clone(&self.outbox))
            .map_err(|error| format!("what the process before left cannot be read: {error}"))?;
        let legacy = Arc::new(legacy);
        let (knowledge, knows) = self.remember(&settings.state_dir, &accept)?;
        let nodes = Arc::new(Nodes::new(backing.clone()));
        let inherited = nodes.inherit(&legacy, &descriptors.files);
        legacy.keep_pins(descriptors.files.into_iter());
        name_directories(&nodes, &inherited);
        drop(inherited);
        for requests in &legacy.requests {
            settle(&nodes, requests);
        }
        let engine =
            Arc::new(Engine::new(nodes, Arc::clone(&self.state), knowledge, Arc::clone(&self.reports)));
        keeper::start(&engine).map_err(|error| format!("cannot start a thread: {error}"))?;
        let knows_inflight = Arc::new(AtomicBool::new(knows));
        let member = Member::new(
            settings,
            tls,
            backing.clone(),
            Arc::clone(&engine),
            Arc::clone(&self.agent),
            Arc::clone(&self.arrivals),
            Arc::clone(&knows_inflight),
        );
        *mounts = Mounts::resume(&backing, &engine, descriptors.devices, &legacy)?;
        *self.legacy.lock() = Some(legacy);
        let lineage = accept.first().copied().unwrap_or(0);
        let copy = marker::Copy::Known;
        *examined = Some(Examined { backing, engine, member, copy, knows_inflight, accept, lineage });
        Ok(proto::Resumed { knows_inflight: knows, connections: mounts.connections() })
    }

    /// What the process before knew, and whether that is everything.
    fn remember(
        &self,
        directory: &std::path::Path,
        accept: &[u128],
    ) -> Result<(Arc<Knowledge>, bool), String> {
        let failed = |error: std::io::Error| format!("{} is not usable: {error}", directory.display());
        let knowledge = Knowledge::new(directory);
        let all = knowledge.recall(accept, self.boot, false).map_err(failed)?;
        let lineage = accept.first().copied().unwrap_or(0);
        knowledge.epochs.set_complete(all).map_err(failed)?;
        knowledge.epochs.bind(Binding { lineage, boot: self.boot }, None).map_err(failed)?;
        Ok((Arc::new(knowledge), all))
    }

    /// Operations may be acknowledged alone from now on.
    pub(super) fn settle(&self, lineage: u128, fences: u64) {
        let examined = self.examined.lock();
        let Some(examined) = examined.as_ref() else { return };
        if !examined.engine.knowledge.is_journalled() {
            // Told to the process before this one; it will be said again, after the journal.
            tracing::warn!("going on alone without a journal is refused");
            return;
        }
        if !self.state.settle(lineage, fences) {
            tracing::info!("fenced in between: not settled");
            return;
        }
        // A process that died may have answered before its report left.
        if self.legacy.lock().is_some()
            && !examined.engine.knowledge.is_empty()
            && let Some(lineage) = self.state.first_alone()
        {
            self.reports.send(Report::WroteAlone(crate::control::lineage(lineage)));
        }
    }
}

/// What is excluded is told by path.
fn name_directories(nodes: &Nodes, inherited: &[Arc<Node>]) {
    let matters = |node: &&Arc<Node>| node.is_directory() && !nodes.root_of(node).exclude.is_empty();
    for node in inherited.iter().filter(matters) {
        if let Err(error) = search(nodes, node) {
            tracing::warn!(%error, object = ?node.object, "cannot look for the name of a directory");
        }
    }
}

/// Finds out how far the operations on names had come. Nobody else changes anything yet.
fn settle(nodes: &Nodes, requests: &Requests) {
    for unfinished in requests.unfinished_before() {
        let Some(intent) = &unfinished.intent else { continue };
        if matches!(intent, Intent::SetXattr) {
            continue;
        }
        let done = is_done(nodes, intent).unwrap_or_else(|error| {
            tracing::warn!(%error, ?intent, "cannot tell whether an operation was carried out");
            false
        });
        tracing::info!(?intent, done, "an operation was under way");
        if done {
            requests.settle_done(&unfinished);
        } else {
            requests.settle_undone(&unfinished);
        }
    }
}

fn is_done(nodes: &Nodes, intent: &Intent) -> Result<bool, Errno> {
    let exists = |parent: &ObjectId, name: &[u8]| -> Result<bool, Errno> {
        let directory = nodes.open_path(&*nodes.get(*parent)?)?;
        match rustix::fs::statat(&*directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error),
        }
    };
    match intent {
        Intent::Create { id, parent, name, directory } => {
            if exists(parent, name)? {
                let flags = if *directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
                rustix::fs::unlinkat(&*nodes.open_path(&*nodes.get(*parent)?)?, name.as_ref(), flags)?;
            }
            nodes.forget(*id, u64::MAX);
            Ok(false)
        }
        Intent::Unlink { parent, name } | Intent::Rename { parent, name } => Ok(!exists(parent, name)?),
        Intent::Link { parent, name } => exists(parent, name),
        Intent::Exchange { parent, name, replaced } => {
            let parent = nodes.get(*parent)?;
            let directory = nodes.open_path(&parent)?;
            let found = nodes.root_of(&parent).look_up(directory.as_fd(), name)?;
            Ok(found.object == nodes.get(*replaced)?.object)
        }
        Intent::RemoveXattr { id, name } => {
            let path = nodes.open_path(&*nodes.get(*id)?)?;
            Ok(xattr(path.as_fd(), name)?.is_none())
        }
        Intent::SetXattr => Ok(false),
    }
}
