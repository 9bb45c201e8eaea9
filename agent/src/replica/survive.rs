//! A replicator died that serves: another process goes on with its mounts, and the application sees a pause.

use std::time::Duration;

use safe_failover::event::ReplicatorEvent;
use safe_proto::replication::attach_request::Command;
use safe_proto::replication::attach_response::Report;
use safe_proto::replication::{AttachRequest, Resume, Resumed};

use super::{Attached, Keeper, Process, convert};
use crate::clock;

/// Longest time for the dead process to be gone.
const GONE: Duration = Duration::from_secs(1);

/// Longest pause of the application before it is left to the other node instead.
const AGAIN: Duration = Duration::from_secs(2);

/// A process that lives for so long, or brings the other node in step, has survived what killed the one before.
const SURVIVED: Duration = Duration::from_secs(5);

/// So many deaths, one after the other, without that are enough.
const ENOUGH: u32 = 5;

/// What the dead process told before it died arrives within this time.
const LAST_WORDS: Duration = Duration::from_millis(50);

impl Keeper {
    /// True: another process serves, and the core was told.
    pub(super) async fn survives(&mut self, why: &str) -> bool {
        let directories = self.setup.module.directories().len();
        if clock::now().since(self.born) >= SURVIVED {
            self.deaths = 0;
        }
        self.deaths += 1;
        if !self.mounted || self.changing || self.reviving || !self.kept.is_complete(directories) {
            return false;
        }
        if self.deaths > ENOUGH {
            self.note(true, "the replicator dies again and again");
            return false;
        }
        let begun = clock::now();
        self.note(true, &format!("the replicator is gone: {why}; it is restarted in place"));
        self.reviving = true;
        let revived = self.revive().await;
        self.reviving = false;
        match revived {
            Ok(resumed) => {
                let pause = clock::now().since(begun).as_millis();
                self.note(false, &format!("the replicator was restarted in place within {pause} ms"));
                self.connections = resumed.connections;
                self.report(ReplicatorEvent::Survived { knows_inflight: resumed.knows_inflight }).await;
                true
            }
            Err(why) => {
                self.note(true, &format!("the replicator cannot be restarted in place: {why}"));
                false
            }
        }
    }

    async fn revive(&mut self) -> Result<Resumed, String> {
        let Some(mut attached) = self.attached.take() else { return Err("it was not attached".into()) };
        let killed = tokio::time::timeout(GONE, attached.process.kill()).await;
        *self.pid.lock() = None;
        if killed != Ok(true) {
            return Err("the killed process does not end: it waits for a disk".into());
        }
        while let Ok(packet) = attached.fds.receive_now() {
            self.kept.take(packet);
        }
        if disk_failed(&mut attached).await {
            return Err("its disk failed".into());
        }
        drop(attached);
        match tokio::time::timeout(AGAIN, self.start_another()).await {
            Ok(result) => result,
            Err(_) => Err(format!("not within {} s", AGAIN.as_secs())),
        }
    }

    async fn start_another(&mut self) -> Result<Resumed, String> {
        let started = Process::start(&self.setup.program, &self.setup.module, &self.setup.children).await;
        let process = started.map_err(|error| format!("cannot start safe-replicator: {error}"))?;
        let stream = self.connect_to_new(&process).await.ok_or("safe-replicator did not start")?;
        self.attach(stream, process).await?;
        let files = u32::try_from(self.kept.files()).unwrap_or(0);
        let accept = self.accept.iter().copied().map(convert::lineage_to).collect();
        let Some(attached) = &mut self.attached else { return Err("it died again".into()) };
        for (words, descriptor) in self.kept.iter() {
            let sent = attached.fds.send(words, std::os::fd::AsFd::as_fd(descriptor)).await;
            sent.map_err(|error| format!("it takes no descriptor: {error}"))?;
        }
        let resume = AttachRequest { command: Some(Command::Resume(Resume { accept, files })) };
        attached.requests.send(resume).await.map_err(|_| "it hung up".to_owned())?;
        loop {
            match attached.responses.message().await.map_err(|status| status.message().to_owned())? {
                Some(response) => match response.report {
                    Some(Report::Resumed(resumed)) => return Ok(resumed),
                    Some(Report::Refused(why)) => return Err(why),
                    _ => {}
                },
                None => return Err("it ended again".into()),
            }
        }
    }
}

/// Its last reports are void, but for one: who cannot rely on its disk does not go on.
async fn disk_failed(attached: &mut Attached) -> bool {
    while let Ok(Ok(Some(response))) = tokio::time::timeout(LAST_WORDS, attached.responses.message()).await {
        if matches!(response.report, Some(Report::DiskFailed(_))) {
            return true;
        }
    }
    false
}
