//! Beginning and end of a replicator.

use super::{
    Adopted, Attached, Keeper, Membership, Process, RETRY, ReplicatorCommand, ReplicatorEvent, START, STOP,
    attach, convert, mount,
};
use crate::clock;
use safe_failover::lineage::LineageId;
use safe_proto::replication::attach_response::Report;
use std::sync::Arc;

impl Keeper {
    /// Takes over a replicator that runs; clears away what a dead one left.
    pub(super) async fn adopt(&mut self) -> Option<Adopted> {
        let adopted = match attach::connect(&self.setup.module.paths).await {
            Ok((stream, pid)) => self.adopt_process(stream, pid).await,
            Err(_) => None,
        };
        if adopted.is_none() && self.attached.is_none() {
            self.clear_mounts().await;
        }
        adopted
    }

    async fn adopt_process(&mut self, stream: tokio::net::UnixStream, pid: i32) -> Option<Adopted> {
        let process = Process::of(pid).ok()?;
        match self.attach(stream, process).await {
            Ok(adopted) => match convert::adopted_from(&adopted) {
                Ok(found) => {
                    self.mounted = adopted.mounted;
                    self.connections.clone_from(&adopted.connections);
                    self.accept =
                        adopted.accept.iter().filter_map(|id| convert::lineage_from(id).ok()).collect();
                    found
                }
                Err(malformed) => {
                    self.note(true, &format!("the running replicator cannot be adopted: {malformed}"));
                    self.end_process().await;
                    None
                }
            },
            Err(why) => {
                self.note(true, &format!("the running replicator cannot be adopted: {why}"));
                None
            }
        }
    }

    /// On failure the process is gone.
    pub(super) async fn attach(
        &mut self,
        stream: tokio::net::UnixStream,
        process: Process,
    ) -> Result<safe_proto::replication::Adopted, String> {
        let configure = match self.membership() {
            Some(membership) => self.setup.module.configure(&self.setup.pair, &membership),
            None => return Err("this node belongs to no cluster".to_owned()),
        };
        let pid = process.pid();
        match attach::attach(stream, process, &self.setup.module.paths, configure).await {
            Ok((attached, adopted)) => {
                self.attached = Some(attached);
                *self.pid.lock() = Some(pid);
                self.born = clock::now();
                // Contact before this moment is what the replicator begins with.
                self.contact.mark_changed();
                self.send_stand_in().await;
                Ok(adopted)
            }
            Err((mut process, why)) => {
                process.kill().await;
                Err(why)
            }
        }
    }

    fn membership(&self) -> Option<Arc<Membership>> {
        self.setup.membership.borrow().clone()
    }

    /// Starts a replicator unless one is attached, and has it examine the directories.
    pub(super) async fn start(&mut self, accept: Vec<LineageId>) {
        if self.attached.is_none()
            && let Err(why) = self.start_process().await
        {
            self.end_process().await;
            self.report(ReplicatorEvent::Refused(why)).await;
            return;
        }
        let examine = convert::command_to(&ReplicatorCommand::Start { accept: accept.clone() });
        self.accept = accept;
        self.lift().await;
        if let Some(examine) = examine {
            self.send(examine).await;
        }
    }

    async fn start_process(&mut self) -> Result<(), String> {
        // One that nobody is attached to, from an attempt that failed half way.
        if let Ok((_, pid)) = attach::connect(&self.setup.module.paths).await
            && let Ok(mut process) = Process::of(pid)
        {
            process.kill().await;
        }
        mount::clear(&self.setup.module.name, &self.setup.module.directories()).await?;
        let started = Process::start(&self.setup.program, &self.setup.module, &self.setup.children).await;
        let mut process = started.map_err(|error| format!("cannot start safe-replicator: {error}"))?;
        let Some(stream) = self.connect_to_new(&process).await else {
            process.kill().await;
            let log = self.setup.module.paths.replicator_log();
            return Err(format!("safe-replicator did not start; it says why in {}", log.display()));
        };
        self.attach(stream, process).await.map(|_| ())
    }

    pub(super) async fn connect_to_new(&self, process: &Process) -> Option<tokio::net::UnixStream> {
        let connected = async {
            loop {
                if let Ok((stream, pid)) = attach::connect(&self.setup.module.paths).await
                    && pid == process.pid()
                {
                    return stream;
                }
                tokio::time::sleep(RETRY).await;
            }
        };
        tokio::time::timeout(START, connected).await.ok()
    }

    /// Ends the process in good order.
    pub(super) async fn stop(&mut self) {
        let Some(stop) = convert::command_to(&ReplicatorCommand::Stop) else { return };
        if self.attached.is_some() {
            self.send(stop).await;
            if tokio::time::timeout(STOP, self.wait_for_stopped()).await.is_err() {
                self.note(true, "the replicator does not end as told; it is killed");
            }
            self.end_process().await;
        }
        self.report(ReplicatorEvent::Stopped).await;
    }

    /// Until the process says that it ends, and has ended.
    async fn wait_for_stopped(&mut self) {
        let Some(Attached { responses, process, .. }) = &mut self.attached else { return };
        while let Ok(Some(response)) = responses.message().await {
            if matches!(response.report, Some(Report::Stopped(_))) {
                break;
            }
        }
        process.ended().await;
    }

    /// The replicator is dead, or as good as: another one goes on, or it is reported.
    pub(super) async fn bury(&mut self, why: &str) {
        self.verification_interrupted().await;
        // In a box, since starting another one may end here as well.
        if Box::pin(self.survives(why)).await {
            return;
        }
        self.give_up(why).await;
    }

    /// Makes sure that it is dead and holds nothing, then reports.
    pub(super) async fn give_up(&mut self, why: &str) {
        if self.attached.is_some() {
            self.note(true, &format!("the replicator is gone: {why}"));
        }
        self.end_process().await;
        self.report(ReplicatorEvent::Died).await;
    }

    /// Kills the process if it still is there, ends what applications wait for, removes its mounts.
    pub(super) async fn end_process(&mut self) {
        let connections = std::mem::take(&mut self.connections);
        self.changing = false;
        if let Some(mut attached) = self.attached.take() {
            // Killed first: from then on it acknowledges nothing. Then aborted: applications get their errors, and a
            // process that waits for its own mount can end.
            let ended = attached.process.kill();
            let (ended, ()) = tokio::join!(ended, async { mount::abort(&connections) });
            if !ended {
                self.note(true, "the killed replicator does not end: it waits for a disk");
            }
            *self.pid.lock() = None;
        } else {
            mount::abort(&connections);
        }
        self.not_mounted();
        self.verification_interrupted().await;
        self.clear_mounts().await;
        self.lower().await;
    }

    async fn clear_mounts(&self) {
        if let Err(why) = mount::clear(&self.setup.module.name, &self.setup.module.directories()).await {
            self.note(true, &why);
        }
    }

    pub(super) fn note(&self, alarm: bool, text: &str) {
        self.setup.events.record(&self.setup.module.name, alarm, text);
    }
}
