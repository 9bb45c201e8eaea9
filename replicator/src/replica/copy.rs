//! The copy on this node: its condition, its journal, its markers, and what the next process must know of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use safe_proto::replication as proto;
use safe_replication::dirty::Change;

use super::{Examined, Replica, not_examined};
use crate::backing::Backing;
use crate::control::lineage;
use crate::epoch::keeper;
use crate::journal::{Binding, Journal, clean};
use crate::knowledge::Knowledge;
use crate::marker::{self, Generation, Owner};
use crate::member::Member;
use crate::node::Nodes;
use crate::operation::Engine;
use crate::prepare;
use crate::report::Report;
use crate::settings::Settings;

impl Replica {
    pub(super) fn examine(&self, accept: Vec<u128>) -> Result<proto::Ready, String> {
        let Some((settings, tls)) = self.configured.lock().clone() else {
            return Err("not configured".into());
        };
        if !self.mounts.lock().is_empty() {
            return Err("the directories are mounted".into());
        }
        let mut examined = self.examined.lock();
        if examined.as_ref().is_some_and(|examined| examined.member.session().is_some()) {
            return Err("there is a session".into());
        }
        let backing = prepare::open(&settings.directories)?;
        prepare::must_be_free(&backing)?;
        let generation = Generation::of(&settings.state_dir);
        let accepted = generation.accepted();
        let copy = marker::examine(&paths(&backing), &owner(&settings), &accept, &accepted)?;
        if copy == marker::Copy::Known {
            renew(&generation, &backing);
        }
        let (knowledge, knows_inflight) = match examined.take() {
            Some(before) => (Arc::clone(&before.engine.knowledge), before.knows_inflight),
            None => {
                let (knowledge, knows) = self.recall(&settings, &accept)?;
                (knowledge, Arc::new(AtomicBool::new(knows)))
            }
        };
        let nodes = Arc::new(Nodes::new(backing.clone()));
        let engine =
            Arc::new(Engine::new(nodes, Arc::clone(&self.state), knowledge, Arc::clone(&self.reports)));
        keeper::start(&engine).map_err(|error| format!("cannot start a thread: {error}"))?;
        let (agent, arrivals) = (Arc::clone(&self.agent), Arc::clone(&self.arrivals));
        let member = Member::new(
            settings,
            tls,
            backing.clone(),
            Arc::clone(&engine),
            agent,
            arrivals,
            Arc::clone(&knows_inflight),
        );
        let knows = knows_inflight.load(Ordering::Acquire);
        let lineage = accept.first().copied().unwrap_or(0);
        let bound = engine.knowledge.epochs.bind(Binding { lineage, boot: self.boot }, None);
        bound.map_err(|error| format!("the records of the epoch cannot be written: {error}"))?;
        *examined = Some(Examined { backing, engine, member, copy, knows_inflight, accept, lineage });
        Ok(proto::Ready { copy: condition(copy).into(), knows_inflight: knows })
    }

    /// What an earlier process of this module left behind.
    fn recall(&self, settings: &Settings, accept: &[u128]) -> Result<(Arc<Knowledge>, bool), String> {
        let directory = &settings.state_dir;
        let failed = |error: std::io::Error| format!("{} is not usable: {error}", directory.display());
        std::fs::create_dir_all(directory).map_err(failed)?;
        // Now, while there is room: it may be needed when there is none.
        if let Err(error) = Journal::prepare(directory) {
            tracing::warn!(%error, "no space can be reserved for the journal: on a full disk this node will not go on alone");
        }
        let knowledge = Knowledge::new(directory);
        let clean = clean::take(directory).map_err(failed)?;
        let knows = knowledge.recall(accept, self.boot, clean.is_some()).map_err(failed)?;
        knowledge.epochs.set_complete(knows || clean.is_some()).map_err(failed)?;
        Ok((Arc::new(knowledge), knows || clean.is_some() || accept.is_empty()))
    }

    pub(super) fn open_journal(&self, id: u128) -> Result<(), String> {
        let knowledge = self.knowledge()?;
        let existed = {
            let mut examined = self.examined.lock();
            let examined = examined.as_mut().ok_or_else(not_examined)?;
            examined.lineage = id;
            examined.accept.contains(&id) && !examined.knows()
        };
        let opened = knowledge.open_journal(Binding { lineage: id, boot: self.boot }).and_then(|lost| {
            if let Some(reason) = lost
                && existed
            {
                tracing::warn!(reason, "the journal is lost: everything is compared");
                knowledge.mark(&[Change::Everything])?;
            }
            knowledge.sync_journal()
        });
        match opened {
            Ok(()) => self.reports.send(Report::JournalOpen(lineage(id))),
            Err(error) => self.disk_failed(&format!("the journal cannot be written: {error}")),
        }
        Ok(())
    }

    pub(super) fn mark(&self, id: u128) -> Result<(), String> {
        let Some((settings, _)) = self.configured.lock().clone() else { return Err("not configured".into()) };
        let (backing, knowledge) = {
            let mut examined = self.examined.lock();
            let examined = examined.as_mut().ok_or_else(not_examined)?;
            examined.lineage = id;
            (examined.backing.clone(), Arc::clone(&examined.engine.knowledge))
        };
        // Before the marker: a copy without the records that belong to it is compared as a whole.
        if let Err(error) = knowledge.epochs.bind(Binding { lineage: id, boot: self.boot }, None) {
            self.disk_failed(&format!("the records of the epoch cannot be written: {error}"));
            return Ok(());
        }
        let directories = descriptors(&backing);
        let generation = Generation::of(&settings.state_dir);
        let mut written = None;
        let noted = generation
            .advance(|next| written.insert(marker::write(&directories, &owner(&settings), id, next)).clone());
        if let Err(error) = &noted {
            tracing::warn!(error, "a copy that is put back to an earlier state may not be noticed");
        }
        let written =
            written.unwrap_or_else(|| marker::write(&directories, &owner(&settings), id, generation.last()));
        match written {
            Ok(()) => {
                if let Some(examined) = self.examined.lock().as_mut() {
                    examined.copy = marker::Copy::Known;
                }
                self.reports.send(Report::Marked(lineage(id)));
            }
            Err(error) => self.disk_failed(&error),
        }
        Ok(())
    }

    /// Everything that is known is on disk: the next process knows it too.
    pub(super) fn leave_note(&self) -> Result<(), String> {
        let Some((settings, _)) = self.configured.lock().clone() else { return Ok(()) };
        let examined = self.examined.lock();
        let Some(examined) = examined.as_ref() else { return Ok(()) };
        if examined.copy == marker::Copy::Known {
            renew(&Generation::of(&settings.state_dir), &examined.backing);
        }
        if !examined.knows() {
            return Ok(());
        }
        let knowledge = &examined.engine.knowledge;
        knowledge.epochs.flush().map_err(|error| error.to_string())?;
        if !knowledge.is_journalled() {
            return if knowledge.is_empty() { self.write_note(&settings, examined) } else { Ok(()) };
        }
        knowledge.sync_journal().map_err(|error| error.to_string())?;
        self.write_note(&settings, examined)
    }

    #[expect(clippy::unused_self, reason = "reads beside leave_note")]
    fn write_note(&self, settings: &Settings, examined: &Examined) -> Result<(), String> {
        for root in examined.backing.roots.iter() {
            rustix::fs::syncfs(&root.directory).map_err(|error| error.to_string())?;
        }
        clean::write(&settings.state_dir, examined.lineage).map_err(|error| error.to_string())
    }
}

/// A state from before this moment is an earlier one. Where that cannot be noted it may not be noticed.
fn renew(generation: &Generation, backing: &Backing) {
    let directories = descriptors(backing);
    if let Err(error) = generation.advance(|next| marker::renew(&directories, next)) {
        tracing::warn!(error, "a copy that is put back to an earlier state may not be noticed");
    }
}

/// Through the descriptors: the paths may lead to our own mounts.
fn descriptors(backing: &Backing) -> Vec<PathBuf> {
    use std::os::fd::AsRawFd as _;
    let path = |root: &crate::backing::Root| format!("/proc/self/fd/{}", root.directory.as_raw_fd());
    backing.roots.iter().map(|root| PathBuf::from(path(root))).collect()
}

fn paths(backing: &Backing) -> Vec<PathBuf> {
    backing.roots.iter().map(|root| root.path.clone()).collect()
}

fn owner(settings: &Settings) -> Owner {
    Owner { module: settings.module.clone(), node: settings.node.clone() }
}

pub(super) const fn condition(copy: marker::Copy) -> proto::Copy {
    match copy {
        marker::Copy::Empty => proto::Copy::Empty,
        marker::Copy::Unlabelled => proto::Copy::Unlabelled,
        marker::Copy::Known => proto::Copy::Known,
        marker::Copy::Unknown => proto::Copy::Unknown,
    }
}
