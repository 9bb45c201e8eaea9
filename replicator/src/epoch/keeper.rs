//! The thread that closes epochs: of the primary, or of a node that goes on alone.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use safe_proto::replication::Loss;
use safe_replication::op::Op;

use super::closing::Closing;
use crate::carry::{Objects as _, sync_all};
use crate::operation::Engine;
use crate::report::Report;
use crate::resync::link::Failure;
use crate::session::Session;
use crate::state::Standing;

/// How often it looks whether an epoch is to be closed.
const GLANCE: Duration = Duration::from_millis(250);
/// Longest wait for the operations of an epoch to be carried out, before it is tried again.
const PATIENCE: Duration = Duration::from_secs(30);

/// Closes the epochs of an engine for as long as there is one.
///
/// # Errors
/// The thread cannot be started.
pub fn start(engine: &Arc<Engine>) -> io::Result<()> {
    let engine = Arc::downgrade(engine);
    std::thread::Builder::new().name("epochs".into()).spawn(move || keep(&engine)).map(drop)
}

fn keep(engine: &Weak<Engine>) {
    let failed = AtomicBool::new(false);
    loop {
        std::thread::sleep(GLANCE);
        let Some(engine) = engine.upgrade() else { return };
        if failed.load(Ordering::Acquire) {
            // A sync that failed is never tried again.
            return;
        }
        engine.knowledge.epochs.sweep();
        let due = || engine.knowledge.epochs.is_due();
        let closed = match engine.state.standing().0 {
            Standing::Session(session) if session.in_step.load(Ordering::Acquire) && due() => {
                engine.close_on_both(&session)
            }
            Standing::Alone if engine.knowledge.is_journalled() && due() => engine.close_alone(),
            Standing::Session(_) | Standing::Alone | Standing::Neither => Ok(()),
        };
        if let Err(error) = closed {
            tracing::error!(%error, "a sync failed: this copy is inconsistent");
            engine.reports.send(Report::DiskFailed(format!("making everything durable failed: {error}")));
            if let Standing::Session(session) = engine.state.standing().0 {
                session.lose(Loss::Here, &format!("a sync failed here: {error}"));
            }
            failed.store(true, Ordering::Release);
        }
    }
}

impl Engine {
    /// Closes the present epoch with the other node. An error is one of this node's disk.
    fn close_on_both(&self, session: &Session) -> io::Result<()> {
        let epochs = &self.knowledge.epochs;
        let Some(closing) = epochs.begin_close(false)? else { return Ok(()) };
        if !closing.wait(PATIENCE, || session.lost().is_some()) {
            return Ok(());
        }
        closing.flush()?;
        let ask = Op::SyncAll { in_step: false, epoch: closing.epoch };
        let Ok((number, waiter)) = session.send(&ask, &[]) else { return Ok(()) };
        session.carried_out(number);
        // Not before it was sent: what the other node does not know to be carried out here stays recorded there.
        sync_all(self.nodes.backing())?;
        match waiter.wait() {
            Ok(_) => epochs.closed_on_both(&closing),
            Err(Failure::Refused(code)) => {
                let error = io::Error::from_raw_os_error(code);
                session.lose(Loss::Failed, &format!("a sync failed on the other node: {error}"));
            }
            Err(Failure::Lost(_)) => {}
        }
        Ok(())
    }

    /// Closes it by this node alone: what differs is in the journal.
    fn close_alone(&self) -> io::Result<()> {
        let epochs = &self.knowledge.epochs;
        let Some(closing) = epochs.begin_close(true)? else { return Ok(()) };
        if !closing.wait(PATIENCE, || !matches!(self.state.standing().0, Standing::Alone)) {
            return Ok(());
        }
        self.journal_epoch(&closing)?;
        sync_all(self.nodes.backing())?;
        epochs.closed_alone(&closing);
        Ok(())
    }

    fn journal_epoch(&self, closing: &Closing) -> io::Result<()> {
        if closing.paired {
            self.knowledge.keep(&closing.set())?;
        }
        self.knowledge.sync_journal()
    }
}
