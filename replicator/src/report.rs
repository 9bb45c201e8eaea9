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
/// attaches.
#[derive(Debug, Default)]
pub struct Reports(Mutex<Option<Sender>>);

impl Reports {
    /// Whom to tell from now on.
    pub fn attach(&self, sender: Sender) {
        *self.0.lock() = Some(sender);
    }

    /// Nobody is there, unless somebody else has attached in the meantime.
    pub fn detach(&self, sender: &Sender) {
        let mut current = self.0.lock();
        if current.as_ref().is_some_and(|other| other.same_channel(sender)) {
            *current = None;
        }
    }

    /// Whether it is this one that is told.
    #[must_use]
    pub fn is(&self, sender: &Sender) -> bool {
        self.0.lock().as_ref().is_some_and(|other| other.same_channel(sender))
    }

    /// Nothing more is told: the stream to the agent ends once it has read what there is.
    pub fn end(&self) {
        *self.0.lock() = None;
    }

    /// Ends the stream to the agent with an error of its own making.
    pub fn refuse(&self, status: Status) {
        if let Some(sender) = self.0.lock().take() {
            // It is ended in any case.
            let _sent = sender.try_send(Err(status));
        }
    }

    /// Tells what happened.
    pub fn send(&self, report: Report) {
        let mut current = self.0.lock();
        let Some(sender) = current.as_ref() else { return };
        if sender.try_send(Ok(AttachResponse { report: Some(report) })).is_err() {
            tracing::warn!("the agent does not take its reports: treated as gone");
            *current = None;
        }
    }

    /// Tells a figure, which may be left out.
    pub fn hint(&self, report: Report) {
        let current = self.0.lock();
        if let Some(sender) = current.as_ref()
            && sender.capacity() > QUEUE / 2
        {
            // Room was just seen; if it is gone the figure is left out.
            let _dropped = sender.try_send(Ok(AttachResponse { report: Some(report) }));
        }
    }
}
