//! Keeps what only this copy holds, on a thread of its own: other orders do not wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use safe_proto::replication as proto;

use super::{Replica, not_examined};
use crate::archive::{self, Order, Refused};
use crate::control::lineage;
use crate::report::{Report, Reports};
use crate::resync::link::{Located, What};
use crate::resync::located;

/// The thread, while there is one.
#[derive(Debug, Default)]
pub(super) struct Archiving(Mutex<Option<(Arc<AtomicBool>, JoinHandle<()>)>>);

impl Archiving {
    /// Breaks it off, without waiting: its disk may hang.
    pub(super) fn cancel(&self) {
        if let Some((cancel, _)) = self.0.lock().as_ref() {
            cancel.store(true, Ordering::Relaxed);
        }
    }

    /// Breaks it off, and waits until nothing is read or written any more.
    pub(super) fn end(&self) {
        self.cancel();
        let Some((_, thread)) = self.0.lock().take() else { return };
        if thread.join().is_err() {
            tracing::error!("the thread that writes an archive panicked");
        }
    }
}

impl Replica {
    pub(super) fn archive(&self, id: u128) -> Result<(), String> {
        self.archiving.end();
        let Some((settings, _)) = self.configured.lock().clone() else { return Err("not configured".into()) };
        let (backing, known) = {
            let examined = self.examined.lock();
            let examined = examined.as_ref().ok_or_else(not_examined)?;
            let known = examined.knows().then(|| examined.engine.knowledge.snapshot());
            (examined.backing.clone(), known)
        };
        if settings.archive_limit == 0 {
            tell(
                &self.reports,
                id,
                true,
                "archive_limit is 0: what only this copy holds is given up, and nothing of it is kept"
                    .to_owned(),
            );
            return Ok(());
        }
        let order = Order {
            lineage: id,
            names: [settings.module, settings.node, settings.peer],
            at: rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec,
            limit: settings.archive_limit,
        };
        let (cancel, directory) = (Arc::new(AtomicBool::new(false)), settings.archive_dir);
        let (cancelled, reports) = (Arc::clone(&cancel), Arc::clone(&self.reports));
        let work = move || {
            let everything = || vec![Located { root: 0, path: Vec::new(), what: What::Everything }];
            let known = known.map_or_else(everything, |set| located::export(&set, &backing));
            match archive::keep(&backing, known, &directory, &order, &cancelled) {
                Ok(kept) => tell(&reports, id, true, archive::sentence(kept.as_ref(), &order.names[0])),
                // Nobody waits for it.
                Err(Refused::Cancelled) => {}
                Err(refused) => tell(&reports, id, false, refused.to_string()),
            }
        };
        let thread = std::thread::Builder::new().name("archive".into()).spawn(work);
        match thread {
            Ok(thread) => *self.archiving.0.lock() = Some((cancel, thread)),
            Err(error) => tell(&self.reports, id, false, format!("no thread can be started: {error}")),
        }
        Ok(())
    }
}

fn tell(reports: &Reports, id: u128, kept: bool, text: String) {
    reports.send(Report::Archived(proto::Archived { lineage: Some(lineage(id)), kept, text }));
}
