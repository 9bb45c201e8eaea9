//! The secondary's side of a session: carries out what the primary sends, conflicting operations in the order of their
//! numbers, others side by side, and knows what may not have been carried out on the primary.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;
use safe_replication::dirty::{Change, DirtySet};
use safe_replication::key::Key;
use safe_replication::op::{Number, ObjectId, Op};
use safe_replication::order::{Order, Ticket};

use crate::backing::{Backing, errno};
use crate::carry::{Objects as _, carry_out, sync_all};
use crate::change::{changes, places, recorded};
use crate::crash;
use crate::epoch::Entered;
use crate::epoch::closing::Closing;
use crate::knowledge::Knowledge;
use crate::line::Seat;
use crate::linux::handle::magic_path;
use crate::node::Nodes;
use crate::report::{Report, Reports};
use crate::resync::answer::{Answerer, Target};
use crate::resync::link::Query;
use crate::session::Session;
use crate::space::{Stopwatch, is_of_the_disk};
use crate::untouched::Untouched;
use crate::wire;

/// Threads that carry out operations.
const WORKERS: usize = 8;
/// Operations and questions waiting: above what a primary sends at once; one that sends more is not ours.
const MOST: usize = 4096;

#[derive(Debug)]
enum Job {
    Operation(Number, Op),
    Question(Number, Query),
}

#[derive(Debug, Default)]
struct Inner {
    order: Order,
    blocked: HashMap<Ticket, Job>,
    ready: VecDeque<(Ticket, Job)>,
    /// Changes of operations begun here and not known to be carried out on the primary.
    uncertain: BTreeMap<Number, Vec<Change>>,
    /// Operations that are being carried out by the threads that read them.
    here: usize,
    closing: bool,
}

struct Shared {
    inner: Mutex<Inner>,
    changed: Condvar,
    nodes: Nodes,
    session: Arc<Session>,
    knowledge: Arc<Knowledge>,
    reports: Arc<Reports>,
    answerer: Answerer,
    stopwatch: Arc<Stopwatch>,
    failed: AtomicBool,
    on_step: Box<dyn Fn() + Send + Sync>,
    untouched: Option<Untouched>,
    /// In step: what is carried out is recorded. Before, the source knows what this copy has.
    records: AtomicBool,
}

/// The workers of one session.
pub struct Applier {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Applier {
    /// Starts the workers; `on_step` is called when the resync has ended and everything is durable.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(
        backing: Backing,
        session: Arc<Session>,
        knowledge: Arc<Knowledge>,
        reports: Arc<Reports>,
        stopwatch: Arc<Stopwatch>,
        on_step: Box<dyn Fn() + Send + Sync>,
        untouched: Option<Untouched>,
    ) -> std::io::Result<Self> {
        let session_in_step = session.in_step.load(Ordering::Acquire);
        let shared = Arc::new(Shared {
            inner: Mutex::default(),
            changed: Condvar::new(),
            nodes: Nodes::new(backing),
            session,
            knowledge,
            reports,
            answerer: Answerer::default(),
            stopwatch,
            records: AtomicBool::new(session_in_step),
            failed: AtomicBool::new(false),
            on_step,
            untouched,
        });
        let mut applier = Self { shared, workers: Vec::new() };
        for number in 1..=WORKERS {
            let own = Arc::clone(&applier.shared);
            let worker =
                std::thread::Builder::new().name(format!("apply-{number}")).spawn(move || own.work())?;
            applier.workers.push(worker);
        }
        Ok(applier)
    }

    /// Where operations enter.
    #[must_use]
    pub fn entrance(&self) -> Entrance {
        Entrance(Arc::clone(&self.shared))
    }

    /// The agent gives leave to change the copy.
    pub fn open(&self) {
        if let Some(untouched) = &self.shared.untouched {
            untouched.open();
        }
    }

    /// Ends the session here: what has not begun is dropped, what has begun is waited for. Answers with what the primary
    /// may not have carried out.
    #[must_use]
    pub fn close(mut self) -> Vec<Change> {
        {
            let mut inner = self.shared.inner.lock();
            inner.closing = true;
            inner.ready.clear();
            inner.blocked.clear();
            if let Some(untouched) = &self.shared.untouched {
                untouched.end();
            }
            while inner.here > 0 {
                self.shared.changed.wait(&mut inner);
            }
        }
        self.shared.changed.notify_all();
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                tracing::error!("a worker of the session panicked");
            }
        }
        let uncertain = std::mem::take(&mut self.shared.inner.lock().uncertain);
        let mut changes: Vec<Change> = uncertain.into_values().flatten().collect();
        changes.extend(places(&changes, &self.shared.nodes));
        changes
    }
}

/// Where operations enter, as long as somebody holds it.
pub struct Entrance(Arc<Shared>);

impl Entrance {
    /// Takes an operation in the order of the stream. Waits for nothing but, with a seat that can be left, for the
    /// operation itself if that is quick.
    ///
    /// # Errors
    /// The primary sends more than it may, or the session has ended.
    pub fn operation(
        &self,
        number: Number,
        watermark: Number,
        op: Op,
        seat: Option<&Seat<'_>>,
    ) -> Result<(), &'static str> {
        let shared = &*self.0;
        if !shared.may_change() && !matches!(op, Op::Bind { .. } | Op::Unbind { .. }) {
            return Err("an operation came before there was leave to change this copy");
        }
        if let Op::SyncAll { in_step, epoch } = op {
            if epoch != 0 {
                return self.close_epoch(number, watermark, epoch);
            }
            shared.records.fetch_or(in_step, Ordering::AcqRel);
        }
        let keys = op.keys();
        let here = seat.filter(|seat| seat.may_leave() && shared.is_quick(&op));
        let job = Job::Operation(number, op);
        if let Some((ticket, job)) = shared.enter(keys.as_slice(), job, Some(watermark), here.is_some())?
            && let Some(seat) = here
        {
            seat.leave_for(|| shared.carry_out_here(ticket, job));
        }
        Ok(())
    }

    /// An epoch is closed beside the workers: a sync may take long, and a session need not wait for it to end.
    fn close_epoch(&self, number: Number, watermark: Number, epoch: u64) -> Result<(), &'static str> {
        let seeds: Vec<Change> = {
            let mut inner = self.0.inner.lock();
            self.0.prune(&mut inner, watermark);
            inner.uncertain.values().flatten().cloned().collect()
        };
        let own = Arc::clone(&self.0);
        let closing = own.knowledge.epochs.asked_to_close(epoch, &seeds);
        let work = move || {
            let result = closing.map_err(errno).and_then(|closing| own.sync_epoch(closing));
            own.session.answer(wire::answer(number, result.map(|()| None).map_err(Errno::raw_os_error)));
            own.session.flush();
        };
        let spawned = std::thread::Builder::new().name("epoch".into()).spawn(work);
        spawned.map(drop).map_err(|_| "no thread can be started")
    }

    /// Takes a question.
    ///
    /// # Errors
    /// The primary sends more than it may, or the session has ended.
    pub fn question(&self, number: Number, query: Query) -> Result<(), &'static str> {
        let mut ids = wire::objects(&query);
        ids.sort_unstable();
        ids.dedup();
        let keys: Vec<Key> = ids.iter().map(|id| Key::all(id.0).shared()).collect();
        self.0.enter(&keys, Job::Question(number, query), None, false).map(drop)
    }

    /// The primary has carried out everything up to here.
    pub fn watermark(&self, watermark: Number) {
        self.0.prune(&mut self.0.inner.lock(), watermark);
    }
}

impl Shared {
    /// Lets a job in. Answers it if it can be done at once by who brings it, which `here` says it wants to.
    fn enter(
        &self,
        keys: &[Key],
        job: Job,
        watermark: Option<Number>,
        here: bool,
    ) -> Result<Option<(Ticket, Job)>, &'static str> {
        let mut inner = self.inner.lock();
        if let Some(watermark) = watermark {
            self.prune(&mut inner, watermark);
        }
        if inner.closing {
            return Err("the session has ended");
        }
        if inner.order.len() >= MOST {
            return Err("the primary sent too many operations at once");
        }
        let (ticket, ready) = inner.order.enter(keys);
        if ready && here {
            inner.here += 1;
            return Ok(Some((ticket, job)));
        }
        if ready {
            inner.ready.push_back((ticket, job));
            drop(inner);
            self.changed.notify_one();
        } else {
            inner.blocked.insert(ticket, job);
        }
        Ok(None)
    }

    /// Nothing of the copy has to stay as it was.
    fn may_change(&self) -> bool {
        self.untouched.as_ref().is_none_or(Untouched::is_open)
    }

    /// It waits for no disk, mostly: a thread that is woken for it would take longer than the operation.
    fn is_quick(&self, op: &Op) -> bool {
        let slow = matches!(
            op,
            Op::Sync { .. }
                | Op::SyncAll { .. }
                | Op::Copy { .. }
                | Op::Allocate { .. }
                | Op::Truncate { .. }
        );
        !slow && !self.nodes.backing().roots.iter().any(|root| root.ack_disk)
    }

    fn carry_out_here(&self, ticket: Ticket, job: Job) {
        self.carry_out_job(ticket, job);
        let mut inner = self.inner.lock();
        inner.here -= 1;
        if inner.closing {
            drop(inner);
            self.changed.notify_all();
        }
    }

    #[expect(clippy::unused_self, reason = "reads beside enter")]
    fn prune(&self, inner: &mut Inner, watermark: Number) {
        while let Some(first) = inner.uncertain.first_entry()
            && *first.key() <= watermark
        {
            first.remove();
        }
    }

    fn work(&self) {
        loop {
            let mut inner = self.inner.lock();
            let (ticket, job) = loop {
                if inner.closing {
                    return;
                }
                if let Some(next) = inner.ready.pop_front() {
                    break next;
                }
                self.changed.wait(&mut inner);
            };
            drop(inner);
            self.carry_out_job(ticket, job);
            self.session.flush();
        }
    }

    fn carry_out_job(&self, ticket: Ticket, job: Job) {
        let answer = match job {
            Job::Operation(number, op) => self.apply(number, &op),
            Job::Question(number, query) => {
                let answer = self.answerer.answer(self, &query);
                wire::answer(number, answer.map(Some).map_err(Errno::raw_os_error))
            }
        };
        self.leave(ticket);
        self.session.answer(answer);
    }

    fn leave(&self, ticket: Ticket) {
        let mut inner = self.inner.lock();
        let Inner { order, blocked, ready, .. } = &mut *inner;
        let before = ready.len();
        order.leave(ticket, |next| ready.extend(blocked.remove(&next).map(|job| (next, job))));
        let more = ready.len() - before;
        drop(inner);
        for _ in 0..more {
            self.changed.notify_one();
        }
    }

    /// Everything of an epoch is durable here.
    fn sync_epoch(&self, closing: Option<Closing>) -> Result<(), Errno> {
        let Some(closing) = closing else { return Ok(()) };
        let result = closing.flush().map_err(errno).and_then(|()| sync_all(self.nodes.backing()));
        match result {
            Ok(()) => self.knowledge.epochs.synced(&closing),
            Err(error) => {
                self.reports.send(Report::DiskFailed(format!("making everything durable failed: {error}")));
            }
        }
        result
    }

    /// Records what an operation changes.
    fn record(&self, op: &Op, changes: &[Change]) -> Result<Entered, Errno> {
        if changes.is_empty() || !self.records.load(Ordering::Acquire) {
            return Ok(Entered::default());
        }
        let recorded = self.knowledge.epochs.enter(&recorded(op, changes)).and_then(|entered| {
            if entered.is_unplaced() {
                entered.place(&places(changes, &self.nodes))?;
            }
            entered.make_durable().map(|()| entered)
        });
        recorded.map_err(|error| {
            self.reports.send(Report::DiskFailed(format!("recording an epoch failed: {error}")));
            errno(error)
        })
    }

    fn apply(&self, number: Number, op: &Op) -> safe_proto::replication::Result {
        let changes = changes(op, &self.nodes);
        // Known to be under way before it is recorded: an epoch may be closed in between.
        if !changes.is_empty() {
            self.inner.lock().uncertain.insert(number, changes.clone());
        }
        let lap = self.stopwatch.begin();
        crash::point("arrived");
        let entered = self.record(op, &changes);
        let carried = entered.as_ref().map(drop).map_err(|error| *error);
        let carried = carried.and_then(|()| self.carry_out(number, op));
        if let (Ok(()), Ok(entered), Op::Create { id, .. }) = (carried, &entered, op)
            && let Ok(node) = self.nodes.get(*id)
        {
            entered.made(&node.object);
        }
        let result = carried.and_then(|()| self.make_durable(op));
        crash::point("applied");
        drop(lap);
        if let Err(error) = result {
            tracing::warn!(
                %error,
                operation = op.name(),
                "cannot carry out an operation of the other node"
            );
            // With ack = "disk" any operation ends with a sync.
            let syncing = carried.is_ok() || matches!(op, Op::Sync { .. } | Op::SyncAll { .. });
            if syncing && error != Errno::STALE {
                self.disk_failed(&format!("making files durable failed: {error}"));
            } else if is_of_the_disk(error) {
                self.disk_failed(&format!("an operation failed: {error}"));
            }
        } else if matches!(op, Op::SyncAll { in_step: true, .. }) {
            (self.on_step)();
        }
        wire::answer(number, result.map(|()| None).map_err(Errno::raw_os_error))
    }

    /// Said once in a session: what follows fails as well.
    fn disk_failed(&self, reason: &str) {
        if !self.failed.swap(true, Ordering::Relaxed) {
            self.reports.send(Report::DiskFailed(reason.to_owned()));
        }
    }

    fn carry_out(&self, number: Number, op: &Op) -> Result<(), Errno> {
        let first = carry_out(&self.nodes, number, op);
        let (Err(Errno::NOTEMPTY), Op::Unlink { parent, name, directory: true, .. }) = (first, op) else {
            return first;
        };
        // What is not replicated may have been left there when this node was the primary.
        self.remove_excluded(*parent, name)?;
        carry_out(&self.nodes, number, op)
    }

    fn remove_excluded(&self, parent: ObjectId, name: &Bytes) -> Result<(), Errno> {
        let above = self.nodes.get(parent)?;
        let root = self.nodes.root_of(&above);
        if root.exclude.is_empty() {
            return Err(Errno::NOTEMPTY);
        }
        let found = root.look_up(self.nodes.open_path(&above)?.as_fd(), name)?;
        let directory = self.nodes.remember(found.object, Some((&above, name)), false);
        let left = crate::resync::local::names(found.path.as_fd())?;
        if left.iter().any(|name| !self.nodes.is_excluded(&directory, name)) {
            return Err(Errno::NOTEMPTY);
        }
        let path = std::path::PathBuf::from(OsString::from_vec(magic_path(found.path.as_fd()).into_bytes()));
        for name in left {
            let path = path.join(OsStr::from_bytes(&name));
            let is_directory = std::fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir());
            let removed =
                if is_directory { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.map_err(errno)?;
        }
        Ok(())
    }

    /// Where only what is on disk may be acknowledged.
    fn make_durable(&self, op: &Op) -> Result<(), Errno> {
        let (first, second) = match op {
            Op::Write { id, .. }
            | Op::Truncate { id, .. }
            | Op::Allocate { id, .. }
            | Op::Copy { id, .. }
            | Op::SetMeta { id, .. }
            | Op::SetXattr { id, .. }
            | Op::RemoveXattr { id, .. } => (*id, None),
            Op::Create { parent, id, .. } => (*parent, Some(*id)),
            Op::Unlink { parent, .. } | Op::Link { parent, .. } => (*parent, None),
            Op::Rename { parent, new_parent, .. } => (*parent, Some(*new_parent)),
            Op::Bind { .. } | Op::Unbind { .. } | Op::Sync { .. } | Op::SyncAll { .. } => return Ok(()),
        };
        if !self.nodes.root(first)?.ack_disk {
            return Ok(());
        }
        [Some(first), second]
            .into_iter()
            .flatten()
            .try_for_each(|id| carry_out(&self.nodes, Number(0), &Op::Sync { id, data_only: false }))
    }
}

impl Target for Shared {
    fn backing(&self) -> &Backing {
        self.nodes.backing()
    }

    fn path(&self, id: ObjectId) -> Result<Arc<OwnedFd>, Errno> {
        self.nodes.path(id)
    }

    fn in_flight(&self) -> DirtySet {
        self.knowledge.snapshot()
    }

    fn untouched(&self) -> Option<&Untouched> {
        self.untouched.as_ref()
    }
}
