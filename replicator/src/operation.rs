//! One changing operation of the application: hold its keys, decide, the other node first, then here, then reply.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use rustix::io::Errno;
use safe_proto::replication::Loss;
use safe_replication::dirty::Change;
use safe_replication::key::{Key, Keys};
use safe_replication::op::{Number, ObjectId, Op};

use crate::backing::{attributes, errno, mode_of};
use crate::carry::carry_out;
use crate::change::{changes, places, recorded};
use crate::crash;
use crate::epoch::Entered;
use crate::fuse::caller::Caller;
use crate::keys::Locks;
use crate::knowledge::{Knowledge, Stage};
use crate::legacy::requests;
use crate::node::{DEPARTURES, Node, Nodes};
use crate::report::{Report, Reports};
use crate::resync::link::Failure;
use crate::search::search;
use crate::session::Session;
use crate::space::{Space, Stopwatch, is_of_the_disk};
use crate::state::{Standing, State};

/// Carries out changing operations.
#[derive(Debug)]
pub struct Engine {
    /// The objects in use by the kernel and by sessions in which this node is the primary.
    pub nodes: Arc<Nodes>,
    /// What is allowed.
    pub state: Arc<State>,
    /// How the copies differ.
    pub knowledge: Arc<Knowledge>,
    /// Who holds which keys.
    pub locks: Locks,
    /// The way to the agent.
    pub reports: Arc<Reports>,
    /// Operations under way on the files below.
    pub stopwatch: Arc<Stopwatch>,
    space: Space,
    /// The disk failed in an operation, and that was said.
    failed: AtomicBool,
    /// Serial of the last session, for the order of times.
    serial: AtomicU64,
}

/// One operation to carry out.
pub struct Task<'a> {
    /// What it conflicts on.
    pub keys: Keys,
    /// Objects that it names by id.
    pub subjects: &'a [&'a Arc<Node>],
    /// It is on something that is not replicated.
    pub excluded: bool,
    /// Called under the keys, perhaps several times: checks that the operation is possible here, and says what it is.
    pub build: &'a dyn Fn() -> Result<Op, Errno>,
}

/// How an attempt ended.
enum Attempt {
    Done,
    /// The session ended in between: decide again.
    Again,
    /// The application gets this; both nodes are as before, or what differs is marked.
    Failed(Errno),
    /// The two nodes differ by this operation, and it is marked: this may be answered once the other one cannot serve.
    Differ(Result<(), Errno>),
}

/// What can be done about an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    /// The other node knows it.
    Yes,
    /// Not now: something above it differs, or the session has ended.
    No,
    /// The object has no name any more: nothing about it is replicated.
    Nameless,
}

/// An operation that waits until it may go on.
#[derive(Debug, Default)]
struct Held {
    glances: u32,
}

impl Held {
    /// Waits for a change.
    ///
    /// # Errors
    /// The mounts end, or whoever asked was killed.
    fn wait(&mut self, state: &State, mark: u64) -> Result<(), Errno> {
        self.glances += 1;
        if self.glances.is_multiple_of(8) && Caller::current().is_dying() {
            return Err(Errno::INTR);
        }
        state.wait(mark)
    }
}

/// Bits of a number below the serial of its session.
const SERIAL: u32 = 44;

impl Engine {
    /// Nothing is under way.
    #[must_use]
    pub fn new(
        nodes: Arc<Nodes>,
        state: Arc<State>,
        knowledge: Arc<Knowledge>,
        reports: Arc<Reports>,
    ) -> Self {
        let (locks, serial) = (Locks::default(), AtomicU64::new(0));
        let (stopwatch, space) = (Arc::default(), Space::default());
        let failed = AtomicBool::new(false);
        Self { nodes, state, knowledge, locks, reports, stopwatch, space, failed, serial }
    }

    /// The serial of a new session. The disk may have been put right since the last one.
    pub fn next_serial(&self) -> u64 {
        self.failed.store(false, Ordering::Release);
        self.serial.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Carries out an operation; returns when it may be acknowledged.
    ///
    /// # Errors
    /// What the application gets.
    pub fn run(&self, task: &Task<'_>) -> Result<(), Errno> {
        if requests::was_done() {
            return self.repeat();
        }
        let mut keys = task.keys;
        keys.push_any();
        if task.excluded || task.subjects.iter().any(|node| node.excluded) {
            let _held = self.locks.hold(keys.as_slice());
            return self.carry_out_alone(&(task.build)()?);
        }
        let mut held = Held::default();
        loop {
            let (_, mark) = self.state.standing();
            match self.attempt(task, keys.as_slice())? {
                Attempt::Done => return self.state.may_acknowledge(),
                Attempt::Failed(error) => return Err(error),
                Attempt::Differ(_) => return Err(Errno::IO),
                Attempt::Again => held.wait(&self.state, mark)?,
            }
        }
    }

    /// An operation that the process before this one carried out may be acknowledged once it is on both nodes for
    /// certain, or this node goes on alone.
    ///
    /// # Errors
    /// The mounts end, or whoever asked was killed.
    pub fn repeat(&self) -> Result<(), Errno> {
        let mut held = Held::default();
        loop {
            let (standing, mark) = self.state.standing();
            let stands = match standing {
                Standing::Session(session) => session.in_step.load(Ordering::Acquire),
                Standing::Alone => true,
                Standing::Neither => false,
            };
            if stands || self.state.settled().is_some() {
                return self.state.may_acknowledge();
            }
            held.wait(&self.state, mark)?;
        }
    }

    fn attempt(&self, task: &Task<'_>, keys: &[Key]) -> Result<Attempt, Errno> {
        let mut bound = Bound::Yes;
        if let (Standing::Session(session), _) = self.state.standing() {
            bound = self.bind_all(&session, task.subjects);
        }
        let held = self.locks.hold(keys);
        // Again, now that nothing of the operation can change: a session may have come or gone while waiting.
        let (standing, _) = self.state.standing();
        let op = {
            let _lap = self.stopwatch.begin();
            (task.build)()?
        };
        self.reserve(&op)?;
        if bound == Bound::Nameless {
            return self.nameless(task.subjects, &standing, &op);
        }
        let changes = changes(&op, &self.nodes);
        if let Standing::Session(session) = standing
            && !self.knowledge.is_dirty(&changes)
        {
            if bound != Bound::Yes || !self.all_bound(&session, task.subjects) {
                // What the operation is about became equal on both nodes since it was looked for: doing it alone now
                // would make a difference that nobody looks for any more.
                return Ok(Attempt::Again);
            }
            let entered = self.enter(&op, &changes)?;
            let attempt = self.synchronously(&session, &op, &changes, &entered);
            drop(entered);
            drop(held);
            return Ok(match attempt {
                Attempt::Differ(result) => {
                    self.await_repair(&session, &changes)?;
                    result.map_or_else(Attempt::Failed, |()| Attempt::Done)
                }
                Attempt::Done | Attempt::Again | Attempt::Failed(_) => attempt,
            });
        }
        if self.state.settled().is_none() {
            return Ok(Attempt::Again);
        }
        self.mark(&changes)?;
        self.mark(&self.unseen(&op))?;
        let entered = self.enter(&op, &changes)?;
        entered.make_durable().map_err(|error| self.disk_failed("the record of an epoch", errno(error)))?;
        crash::point("marked");
        self.carry_out_alone(&op)?;
        self.made(&op, &entered);
        crash::point("alone");
        if let Some(lineage) = self.state.first_alone() {
            self.reports.send(Report::WroteAlone(crate::control::lineage(lineage)));
        }
        Ok(Attempt::Done)
    }

    /// The other node first, then here.
    fn synchronously(
        &self,
        session: &Arc<Session>,
        op: &Op,
        changes: &[Change],
        entered: &Entered,
    ) -> Attempt {
        let sent =
            without_unbound(op, |id| self.nodes.get(id).is_ok_and(|node| self.is_bound(session, &node)));
        crash::point("decided");
        let record = || {
            entered.make_durable().map_err(|error| self.disk_failed("the record of an epoch", errno(error)))
        };
        // The other node records what it is sent once it is in step; before that this one knows more.
        if !session.in_step.load(Ordering::Acquire)
            && let Err(error) = record()
        {
            return Attempt::Failed(error);
        }
        let Ok((number, waiter)) = session.send(&sent, changes) else { return Attempt::Again };
        crash::point("sent");
        let recorded = record();
        let remote = match waiter.wait() {
            Ok(_) => Ok(()),
            Err(Failure::Refused(code)) => Err(Errno::from_raw_os_error(code)),
            // It may have been done there or not; the end of the session sees to the marks.
            Err(Failure::Lost(_)) => return Attempt::Again,
        };
        crash::point("acknowledged");
        let stamp = Number(session.serial << SERIAL | number.0);
        let local = match remote {
            // Part of the content may have been written there.
            Err(error) if op.may_end_halfway() => Err(error),
            _ => recorded.and_then(|()| self.carry_out(stamp, op)),
        };
        crash::point("carried-out");
        if local.is_ok() {
            self.made(op, entered);
        }
        if local == remote && (local.is_ok() || !op.may_end_halfway()) {
            session.carried_out(number);
            if let Op::Create { id, .. } = op
                && let Ok(node) = self.nodes.get(*id)
            {
                self.set_bound(session, &node);
            }
            return local.map_or_else(Attempt::Failed, |()| Attempt::Done);
        }
        self.differ(session, op, changes, local, remote)
    }

    /// The result is not the same on both nodes: the session ends, and the changes are marked.
    fn differ(
        &self,
        session: &Session,
        op: &Op,
        changes: &[Change],
        local: Result<(), Errno>,
        remote: Result<(), Errno>,
    ) -> Attempt {
        let said =
            |result: Result<(), Errno>| result.map_or_else(|error| error.to_string(), |()| "done".into());
        tracing::warn!(
            operation = op.name(),
            here = said(local),
            there = said(remote),
            "an operation ended differently on both nodes"
        );
        if let Err(error) = self.mark(changes) {
            return Attempt::Failed(error);
        }
        match remote {
            Err(error) => {
                let reason = format!("the other node could not carry out an operation: {error}");
                session.lose(Loss::Failed, &reason);
            }
            Ok(()) => {
                let reason =
                    format!("an operation that the other node has carried out failed here: {}", said(local));
                session.lose(Loss::Here, &reason);
            }
        }
        match remote {
            // Not done here: decide again, without the other node.
            Err(_) if op.may_end_halfway() => Attempt::Again,
            _ => Attempt::Differ(local),
        }
    }

    /// The application learns of a failure only when the other node cannot serve what it did: it is back in step for
    /// these changes, or this node goes on without it.
    fn await_repair(&self, lost: &Arc<Session>, changes: &[Change]) -> Result<(), Errno> {
        let mut held = Held::default();
        loop {
            let (standing, mark) = self.state.standing();
            let repaired = match standing {
                Standing::Session(session) => {
                    !Arc::ptr_eq(&session, lost) && !self.knowledge.is_dirty(changes)
                }
                Standing::Alone => true,
                Standing::Neither => false,
            };
            if repaired || self.state.settled().is_some() {
                return Ok(());
            }
            held.wait(&self.state, mark)?;
        }
    }

    /// An operation on something whose last name was gone before its keys were held.
    fn nameless(&self, subjects: &[&Arc<Node>], standing: &Standing, op: &Op) -> Result<Attempt, Errno> {
        if !subjects.iter().any(|node| self.is_nameless(node)) {
            // A file made without a name got one since.
            return Ok(Attempt::Again);
        }
        if let Op::Link { id, .. } = op {
            let existing = self.nodes.get(*id)?;
            let known = matches!(standing, Standing::Session(session) if self.is_bound(session, &existing));
            if self.is_nameless(&existing) && !known {
                // It must not get a name here only: the caller introduces it first.
                return Ok(Attempt::Failed(Errno::AGAIN));
            }
        }
        if let Op::Copy { id, .. } = op
            && !self.is_nameless(&*self.nodes.get(*id)?)
        {
            // From something without a name to something that is replicated: the caller reads and writes instead.
            return Ok(Attempt::Failed(Errno::XDEV));
        }
        self.carry_out_alone(op).map(|()| Attempt::Done)
    }

    /// What else differs once the operation is carried out: a file that gets its first name was never marked.
    fn unseen(&self, op: &Op) -> Vec<Change> {
        let Op::Link { id, .. } = op else { return Vec::new() };
        let Some(node) = self.nodes.get(*id).ok().filter(|node| self.is_nameless(node)) else {
            return Vec::new();
        };
        let object = node.object.clone();
        vec![Change::data_from(object.clone(), 0), Change::Meta { object }]
    }

    /// Carries out an operation here and nowhere else, whatever the state.
    ///
    /// # Errors
    /// What the filesystem says.
    pub fn carry_out_alone(&self, op: &Op) -> Result<(), Errno> {
        // An object may be dirty, then equal, then dirty again within one session: no number says where this stands
        // among those of the session, but its keys do.
        self.carry_out(Number(0), op)
    }

    fn carry_out(&self, stamp: Number, op: &Op) -> Result<(), Errno> {
        let _lap = self.stopwatch.begin();
        if matches!(op, Op::Sync { .. } | Op::SyncAll { .. }) {
            return carry_out(&*self.nodes, stamp, op);
        }
        requests::intend(op);
        let result = carry_out(&*self.nodes, stamp, op);
        match result {
            Ok(()) => {
                if let Op::Create { id, .. } = op
                    && let Ok(node) = self.nodes.get(*id)
                {
                    // Noted before it counts as done: the answer names it, whoever gives it.
                    self.nodes.tell(&node);
                }
                requests::done(op);
            }
            Err(error) => {
                requests::failed();
                if is_of_the_disk(error) && !self.failed.swap(true, Ordering::AcqRel) {
                    let reason = format!("an operation failed: {error}");
                    tracing::error!(
                        reason,
                        operation = op.name(),
                        "the disk failed: this copy is inconsistent"
                    );
                    self.reports.send(Report::DiskFailed(reason));
                }
            }
        }
        result
    }

    /// An operation that will not fit must fail before the other node has carried it out.
    fn reserve(&self, op: &Op) -> Result<(), Errno> {
        let Some(root) = self.nodes.root_named(op.subject()) else { return Ok(()) };
        // It may have to allocate, on a disk that hangs.
        let _lap = self.stopwatch.begin();
        self.space.reserve(&*self.nodes, root, op, Caller::current().uid == 0)
    }

    /// Marks changes before they are made, or because it is not known whether they were made on the other node.
    fn mark(&self, changes: &[Change]) -> Result<(), Errno> {
        let mut all = changes.to_vec();
        all.extend(places(changes, &self.nodes));
        self.knowledge.mark(&all).map_err(|error| {
            tracing::error!(%error, "cannot write the journal");
            self.reports.send(Report::DiskFailed(format!("the journal cannot be written: {error}")));
            errno(error)
        })
    }

    /// Records changes of an epoch before they are made, and where they are found.
    fn enter(&self, op: &Op, changes: &[Change]) -> Result<Entered, Errno> {
        let failed = |error| self.disk_failed("the record of an epoch", errno(error));
        let entered = self.knowledge.epochs.enter(&recorded(op, changes)).map_err(failed)?;
        if entered.is_unplaced() {
            entered.place(&places(changes, &self.nodes)).map_err(failed)?;
        }
        Ok(entered)
    }

    /// What an operation has made needs no record of its own.
    fn made(&self, op: &Op, entered: &Entered) {
        if let Op::Create { id, .. } = op
            && let Ok(node) = self.nodes.get(*id)
        {
            entered.made(&node.object);
        }
    }

    /// Makes an object durable on both nodes, or here if this node goes on alone.
    ///
    /// # Errors
    /// The first error of a sync makes this copy inconsistent; it is never tried again.
    pub fn sync(&self, node: &Arc<Node>, data_only: bool) -> Result<(), Errno> {
        let op = Op::Sync { id: node.id, data_only };
        let all = [
            Change::Data { object: node.object.clone(), offset: 0, len: u64::MAX },
            Change::Meta { object: node.object.clone() },
        ];
        let changes = if node.is_directory() { &all[1..] } else { &all[..] };
        let mut held = Held::default();
        loop {
            let (standing, mark) = self.state.standing();
            let local = match standing {
                _ if node.excluded => return self.sync_here(&op),
                Standing::Session(session) => match self.bind(&session, node) {
                    Bound::Nameless => return self.sync_here(&op),
                    Bound::Yes if !self.knowledge.is_dirty(changes) => {
                        // Both at the same time; the slower one counts.
                        let sent = session.send(&op, &[]);
                        self.sync_here(&op)?;
                        let Ok((number, waiter)) = sent else { continue };
                        let done = waiter.wait();
                        session.carried_out(number);
                        match done {
                            Ok(_) => return self.state.may_acknowledge(),
                            Err(Failure::Refused(code)) => {
                                let error = std::io::Error::from_raw_os_error(code);
                                let reason = format!("a sync failed on the other node: {error}");
                                session.lose(Loss::Failed, &reason);
                                false
                            }
                            Err(Failure::Lost(_)) => false,
                        }
                    }
                    // Only what differs is made durable by the end of the resync.
                    Bound::Yes | Bound::No => {
                        self.state.settled().is_some() && self.knowledge.is_dirty(changes)
                    }
                },
                Standing::Alone => true,
                Standing::Neither => false,
            };
            if local {
                self.knowledge
                    .sync_journal()
                    .map_err(|error| self.disk_failed("the journal", errno(error)))?;
                return self.sync_here(&op);
            }
            held.wait(&self.state, mark)?;
        }
    }

    fn sync_here(&self, op: &Op) -> Result<(), Errno> {
        self.carry_out(Number(0), op).map_err(|error| match error {
            Errno::STALE => error,
            _ => self.disk_failed("a file", error),
        })
    }

    fn disk_failed(&self, what: &str, error: Errno) -> Errno {
        tracing::error!(%error, what, "a sync failed: this copy is inconsistent");
        self.reports.send(Report::DiskFailed(format!("making {what} durable failed: {error}")));
        if let (Standing::Session(session), _) = self.state.standing() {
            session.lose(Loss::Here, &format!("a sync failed here: {error}"));
        }
        Errno::IO
    }

    fn bind_all(&self, session: &Arc<Session>, subjects: &[&Arc<Node>]) -> Bound {
        for node in subjects {
            match self.bind(session, node) {
                Bound::Yes => {}
                other @ (Bound::No | Bound::Nameless) => return other,
            }
        }
        Bound::Yes
    }

    fn all_bound(&self, session: &Session, subjects: &[&Arc<Node>]) -> bool {
        subjects.iter().all(|node| self.is_bound(session, node))
    }

    /// Whether the other node knows the object by its id, in this session and since names last differed: a name that was
    /// repaired since then may lead to another object there.
    pub(crate) fn is_bound(&self, session: &Session, node: &Node) -> bool {
        node.id.0 <= u64::from(u16::MAX) || node.bound.load(Ordering::Acquire) == self.binding(session)
    }

    /// The other node was told, by name, which object has this id. The caller holds the name, or names do not change.
    pub(crate) fn set_bound(&self, session: &Session, node: &Node) {
        node.bound.store(self.binding(session), Ordering::Release);
    }

    fn binding(&self, session: &Session) -> u64 {
        session.serial << DEPARTURES | self.knowledge.departures() & ((1 << DEPARTURES) - 1)
    }

    /// Lets the other node know the object by its id, and first the directories above it. Holds no keys.
    fn bind(&self, session: &Arc<Session>, node: &Arc<Node>) -> Bound {
        if self.is_bound(session, node) {
            return Bound::Yes;
        }
        if self.knowledge.stage() == Stage::Apart {
            return Bound::No;
        }
        if let Some(bound) = self.bind_somewhere(session, node) {
            return bound;
        }
        match search(&self.nodes, node) {
            Ok(true) => self.bind_somewhere(session, node).unwrap_or(Bound::No),
            // Else it moves about faster than it is looked for.
            Ok(false) | Err(Errno::STALE) if self.is_nameless(node) => Bound::Nameless,
            Ok(false) | Err(Errno::STALE) => Bound::No,
            Err(error) => {
                tracing::warn!(%error, object = ?node.object, "cannot look for the name of an object");
                Bound::No
            }
        }
    }

    /// None: it is at none of the names that are known.
    fn bind_somewhere(&self, session: &Arc<Session>, node: &Arc<Node>) -> Option<Bound> {
        for (parent, name) in node.places() {
            let Ok(parent) = self.nodes.get(parent) else { continue };
            match self.bind(session, &parent) {
                Bound::Yes => {}
                Bound::No => return Some(Bound::No),
                Bound::Nameless => continue,
            }
            match self.bind_at(session, node, &parent, &name) {
                Some(true) => return Some(Bound::Yes),
                Some(false) => return Some(Bound::No),
                None => {}
            }
        }
        None
    }

    /// It has no name: its last one is gone, or it never had one.
    fn is_nameless(&self, node: &Node) -> bool {
        match self.nodes.open_path(node).and_then(|path| attributes(path.as_fd())) {
            Ok(attributes) => attributes.nlink == 0,
            Err(error) => error == Errno::STALE,
        }
    }

    /// None: the object is not at this name (any more). False: the session has ended or names differ.
    fn bind_at(&self, session: &Session, node: &Node, parent: &Arc<Node>, name: &Bytes) -> Option<bool> {
        let mut keys = Keys::of(&[Key::name(parent.id.0, name), Key::meta(node.id.0)]);
        keys.push_any();
        let _held = self.locks.hold(keys.as_slice());
        if self.is_bound(session, node) {
            return Some(true);
        }
        if self.knowledge.stage() == Stage::Apart {
            return Some(false);
        }
        let directory = self.nodes.open_path(parent).ok()?;
        let found = self.nodes.root_of(parent).look_up(directory.as_fd(), name).ok()?;
        if found.object != node.object {
            return None;
        }
        let bind =
            Op::Bind { id: node.id, parent: parent.id, name: name.clone(), kind: mode_of(node.object.kind) };
        let Ok((number, _)) = session.queue(&bind, &[]) else { return Some(false) };
        session.carried_out(number);
        self.set_bound(session, node);
        Some(true)
    }
}

/// Ids that the other node does not know are left out where an operation can do without them.
#[expect(clippy::wildcard_enum_match_arm, reason = "no other operation can do without an id")]
fn without_unbound(op: &Op, is_bound: impl Fn(ObjectId) -> bool) -> Op {
    let known = |id: ObjectId| if id != ObjectId::NONE && is_bound(id) { id } else { ObjectId::NONE };
    let mut op = op.clone();
    match &mut op {
        Op::Unlink { id, .. } => *id = known(*id),
        Op::Rename { id, replaced, .. } => {
            *id = known(*id);
            *replaced = known(*replaced);
        }
        _ => {}
    }
    op
}
