//! Reports to the agent, in the order of what happened.

use parking_lot::Mutex;
use safe_proto::replication::AttachResponse;
pub use safe_proto::replication::attach_response::Report;
use tokio::sync::mpsc;
use tonic::Status;

/// Reports that an agent may leave unread.
pub const QUEUE: usize = 1024;

/// Where reports go.
pub type Sender = mpsc::Sender<Result<AttachResponse, Status>>;

/// The way to the agent, if there is one. Without an agent reports are dropped: the next one learns the state when it
/// attaches. A disk that failed is no state of this process: that is kept for it.
#[derive(Debug, Default)]
pub struct Reports(Mutex<Way>);

#[derive(Debug, Default)]
struct Way {
    agent: Option<Sender>,
    /// Why the disk failed, which nobody was there to be told.
    untold: Option<String>,
}

impl Reports {
    /// Whom to tell from now on.
    pub fn attach(&self, sender: Sender) {
        self.0.lock().agent = Some(sender);
    }

    /// Nobody is there, unless somebody else has attached in the meantime.
    pub fn detach(&self, sender: &Sender) {
        let mut way = self.0.lock();
        if way.agent.as_ref().is_some_and(|other| other.same_channel(sender)) {
            way.agent = None;
        }
    }

    /// Whether it is this one that is told.
    #[must_use]
    pub fn is(&self, sender: &Sender) -> bool {
        self.0.lock().agent.as_ref().is_some_and(|other| other.same_channel(sender))
    }

    /// Nothing more is told: the stream to the agent ends once it has read what there is.
    pub fn end(&self) {
        self.0.lock().agent = None;
    }

    /// Ends the stream to the agent with an error of its own making.
    pub fn refuse(&self, status: Status) {
        if let Some(sender) = self.0.lock().agent.take() {
            // It is ended in any case.
            let _sent = sender.try_send(Err(status));
        }
    }

    /// Tells what happened.
    pub fn send(&self, report: Report) {
        let mut way = self.0.lock();
        let failure = if let Report::DiskFailed(reason) = &report { Some(reason.clone()) } else { None };
        let response = AttachResponse { report: Some(report) };
        if let Some(agent) = &way.agent
            && agent.try_send(Ok(response)).is_err()
        {
            tracing::warn!("the agent does not take its reports: treated as gone");
            way.agent = None;
        }
        if way.agent.is_none() && failure.is_some() {
            way.untold = failure;
        }
    }

    /// Tells what nobody was there to be told.
    pub fn catch_up(&self) {
        let untold = self.0.lock().untold.take();
        if let Some(reason) = untold {
            self.send(Report::DiskFailed(reason));
        }
    }

    /// Tells a figure, which may be left out.
    pub fn hint(&self, report: Report) {
        let way = self.0.lock();
        if let Some(sender) = way.agent.as_ref()
            && sender.capacity() > QUEUE / 2
        {
            // Room was just seen; if it is gone the figure is left out.
            let _dropped = sender.try_send(Ok(AttachResponse { report: Some(report) }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_failed_while_no_agent_was_there_is_told_to_the_next_one_once() {
        let reports = Reports::default();
        let failed = || Report::DiskFailed("EIO".to_owned());
        reports.send(failed());
        let (agent, mut told) = mpsc::channel(8);
        reports.attach(agent);
        reports.catch_up();
        assert_eq!(told.try_recv().unwrap().unwrap().report, Some(failed()));
        reports.catch_up();
        assert!(told.try_recv().is_err());
        // One that has gone without a word did not hear it either.
        drop(told);
        reports.send(failed());
        let (agent, mut told) = mpsc::channel(8);
        reports.attach(agent);
        reports.catch_up();
        assert_eq!(told.try_recv().unwrap().unwrap().report, Some(failed()));
    }
}
