//! The state machine of one mirror module on one node.
//!
//! Facts change when an event arrives; then `advance` goes through a fixed list of rules until nothing changes any
//! more. A rule looks at facts only, never at which event came last, so lost, repeated and overtaken messages need no
//! thought. What the rules are: [`crate::meeting`] decides who is whose source, `session` enters and pairs, `loss` and
//! `settle` go on alone, `start` begins, `swap` exchanges roles, `procedure` mounts, raises addresses and runs
//! scripts in order.
//!
//! ```text
//!            meeting: source                    peer lost, settled
//!  Stopped ─► Waiting ───────────► Alone ◄───────────── Primary ◄───┐
//!                │                   │ pairing complete    ▲        │ swap
//!                │ meeting: target   └─────────────────────┘        ▼
//!                └───────────────► Target ───────────────────────► Second ──► Candidate ──► Alone
//!                                       pairing complete             peer lost      settled
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use crate::action::{Action, Record, ReplicatorCommand};
use crate::commands::Pending;
use crate::config::{Config, Side};
use crate::dropped::Dropped;
use crate::event::{Event, ReplicatorEvent};
use crate::hard::{Desired, HardState};
use crate::identity::Identity;
use crate::left_out::LeftOut;
use crate::lineage::LineageId;
use crate::peer::Peer;
use crate::procedure::Service;
use crate::reaction::Reactions;
use crate::replicator::{Process, Replicator};
use crate::resource::Resources;
use crate::rights::Rights;
use crate::session::Session;
use crate::settle::{Arbiter, Settling};
use crate::start::{Blocked, Closing};
use crate::time::Time;
use crate::timer::{Timer, Timers};
use crate::view::{Conceded, Mode, SessionId, View};

/// The decision core of one mirror module on one node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Failover {
    pub(crate) config: Config,
    pub(crate) hard: HardState,
    /// What is known to be on disk, and what was handed over to be written since.
    pub(crate) safe: HardState,
    pub(crate) written: VecDeque<HardState>,
    /// Serial of the newest hard state known to be durable.
    pub(crate) durable: u64,
    pub(crate) now: Time,
    pub(crate) wall: u64,
    pub(crate) out: Vec<Action>,
    pub(crate) timers: Timers,
    pub(crate) identity: Identity,
    pub(crate) mode: Mode,
    /// `Event::Started` was seen.
    pub(crate) started: bool,
    /// On the way out of service in good order, and where to.
    pub(crate) closing: Option<Closing>,
    /// Why the module waits although it was started.
    pub(crate) blocked: Option<Blocked>,
    /// It left service, or gave up following, of its own will since the last session: the peer may go on by rule (d).
    pub(crate) retired: bool,
    /// Why it waits for its peer, after a fence; until the next meeting or start.
    pub(crate) fenced_because: Option<String>,
    pub(crate) peer: Peer,
    pub(crate) resources: Resources,
    pub(crate) reactions: Reactions,
    /// The addresses can be reached over some interface.
    pub(crate) carrier: bool,
    /// See [`Failover::grace`].
    pub(crate) grace: Duration,
    pub(crate) replicator: Replicator,
    pub(crate) session: Option<Session>,
    /// The session that ended last, or the present one.
    pub(crate) last_session: Option<SessionId>,
    /// A session that was left and whose workers have not all ended.
    pub(crate) leaving: Option<SessionId>,
    pub(crate) link: u64,
    pub(crate) dropped: Dropped,
    pub(crate) rights: Rights,
    pub(crate) settling: Option<Settling>,
    pub(crate) conceded: Option<Conceded>,
    pub(crate) arbiter: Arbiter,
    pub(crate) service: Service,
    pub(crate) pending: Pending,
    /// `second --full` or `second --force`: to become target, whatever its lineage.
    pub(crate) yields: bool,
    /// Nothing is kept of what this copy alone holds: an administrator said so.
    pub(crate) discards: bool,
    /// `second`: never primary by itself.
    pub(crate) only_second: bool,
    /// `prim` on a secondary whose primary is lost, where automatic failover is off.
    pub(crate) take_over: bool,
    /// What was served before the replicator died is served again without waiting for the peer.
    pub(crate) resume_alone: bool,
    /// Since when this node has been waiting.
    pub(crate) waiting_since: Time,
    /// The session in which the preferred primary was given its role back, or that was tried.
    pub(crate) preferred_in: Option<SessionId>,
    /// The primary role was offered in this session.
    pub(crate) offer: Option<SessionId>,
    /// A sync failed: this copy is inconsistent, whatever could be written about it.
    pub(crate) disk_failed: bool,
    /// Hard state could not be written: nothing more is decided until it can.
    pub(crate) broken: bool,
    pub(crate) told: Option<View>,
    pub(crate) serial: u64,
}

impl Failover {
    /// A core at rest; the first event is `Event::Started`.
    #[must_use]
    pub fn new(config: Config, hard: HardState) -> Self {
        let mut identity = Identity::new(config.entropy);
        let link = identity.link();
        Self {
            durable: hard.serial,
            safe: hard.clone(),
            written: VecDeque::new(),
            grace: config.timeout,
            config,
            hard,
            now: Time::default(),
            wall: 0,
            out: Vec::new(),
            timers: Timers::default(),
            identity,
            mode: Mode::Stopped,
            started: false,
            closing: None,
            blocked: None,
            retired: false,
            fenced_because: None,
            peer: Peer::default(),
            resources: Resources::default(),
            reactions: Reactions::default(),
            carrier: true,
            replicator: Replicator::default(),
            session: None,
            last_session: None,
            leaving: None,
            link,
            dropped: Dropped::default(),
            rights: Rights::default(),
            settling: None,
            conceded: None,
            arbiter: Arbiter::default(),
            service: Service::default(),
            pending: Pending::default(),
            yields: false,
            discards: false,
            only_second: false,
            take_over: false,
            resume_alone: false,
            waiting_since: Time::default(),
            preferred_in: None,
            offer: None,
            disk_failed: false,
            broken: false,
            told: None,
            serial: 0,
        }
    }

    /// Tells the wall clock in Unix seconds: shown to people, and for `loop_interval`; no decision about data uses it.
    pub fn wall_clock(&mut self, unix_seconds: u64) {
        self.wall = unix_seconds;
    }

    /// Takes one event; the answer is to be carried out in order.
    pub fn handle(&mut self, event: Event, now: Time) -> Vec<Action> {
        self.notice_pause(now);
        self.apply(event);
        self.advance();
        self.arm_timers();
        self.tell();
        #[cfg(debug_assertions)]
        if let Err(broken) = crate::invariant::check(self) {
            panic!("invariant of the decision core: {broken}\n{self:?}");
        }
        std::mem::take(&mut self.out)
    }

    /// When to call `handle` with `Event::Tick` at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.timers.next(self.now)
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Tick => {}
            Event::Started { start, adopted } => self.apply_started(start, adopted),
            Event::Command(command) => self.apply_command(command),
            Event::Peer(view) => self.apply_view(view),
            Event::Lan { lan, up } => self.peer.lan(lan, up, self.now),
            Event::Heard => self.peer.hear(self.now),
            Event::Echoed(sent) => self.peer.echo(sent),
            Event::Carrier(carrier) => self.carrier = carrier,
            Event::Resource { name, value, reason } => self.apply_resource(&name, value, &reason),
            Event::PeerAgentGone => {
                self.peer.hear(self.now);
                self.peer.agent_gone = true;
            }
            Event::Persisted { serial } => self.apply_persisted(serial),
            Event::PersistFailed => self.apply_persist_failed(),
            Event::Replicator(event) => self.apply_replicator(event),
            Event::AddressesRaised(outcome) => self.apply_raised(outcome),
            Event::AddressesDropped => self.apply_dropped(),
            Event::ScriptEnded { run, outcome } => self.apply_script(run, outcome),
            Event::ProcessesGone => self.apply_processes_gone(),
            Event::Arbiter(lock, answer) => self.apply_arbiter(&lock, answer),
            Event::Reachable(reachable) => self.apply_reachable(reachable),
        }
    }

    fn apply_view(&mut self, view: Box<View>) {
        self.peer.hear(self.now);
        self.peer.agent_gone = false;
        let standing = (view.incarnation, view.mode, view.meetable);
        if self.peer.standing != Some(standing) {
            self.peer.standing = Some(standing);
            self.peer.standing_since = self.now;
        }
        if view.mode == Mode::Stopped {
            self.trust_peer_again();
        }
        self.peer.view = Some(view);
    }

    fn apply_persisted(&mut self, serial: u64) {
        self.durable = self.durable.max(serial);
        while self.written.front().is_some_and(|hard| hard.serial <= serial) {
            if let Some(hard) = self.written.pop_front() {
                self.safe = hard;
            }
        }
        if self.broken && serial == self.hard.serial {
            self.broken = false;
            self.record(false, "hard state can be written again");
            if self.wanted() {
                self.enter_waiting();
            }
        }
    }

    /// The rest of the batch was dropped: nothing of it happened, and what is on disk is what was confirmed last.
    fn apply_persist_failed(&mut self) {
        let serial = self.hard.serial;
        self.hard = HardState { serial, ..self.safe.clone() };
        self.hard.consistent &= !self.disk_failed;
        self.written.clear();
        if !self.broken {
            self.record(true, "hard state could not be written: this node fences itself");
        }
        self.retired = true;
        self.leave_role("its hard state could not be written");
        // Which of its orders the replicator was given is not known.
        self.leaving = None;
        if self.replicator.process != Process::Off {
            self.replicator = Replicator { process: Process::Stopping, ..Replicator::default() };
            self.replicate(ReplicatorCommand::Kill);
        }
        self.service.procedure = None;
        self.begin_fence("failover");
        self.closing = None;
        self.conceded = None;
        self.mode = if self.hard.desired == Desired::Started { Mode::Waiting } else { Mode::Stopped };
        self.end_command(Err("hard state could not be written".to_owned()));
        self.broken = true;
        // What was said since the write that failed, was not.
        self.told = None;
        self.timers.set(Timer::Retry, self.now + self.config.start_wait);
    }

    /// Tries again to write what could not be written.
    fn rule_broken(&mut self) -> bool {
        if !self.broken || !self.timers.is_due(Timer::Retry, self.now) {
            return false;
        }
        self.timers.set(Timer::Retry, self.now + self.config.start_wait);
        self.write();
        true
    }

    fn apply_replicator(&mut self, event: ReplicatorEvent) {
        match event {
            ReplicatorEvent::Ready { copy, knows_inflight } => self.apply_ready(copy, knows_inflight),
            ReplicatorEvent::Refused(reason) => self.apply_refused(&reason),
            ReplicatorEvent::Died => self.apply_died(),
            ReplicatorEvent::Survived { knows_inflight } => self.apply_survived(knows_inflight),
            ReplicatorEvent::Stopped => self.replicator = Replicator::default(),
            ReplicatorEvent::JournalOpen(lineage) => self.replicator.journal = Some(lineage),
            ReplicatorEvent::SessionUp(id) => self.apply_session_up(id),
            ReplicatorEvent::SessionLost { session, loss, reason } => {
                self.apply_session_lost(session, loss, &reason);
            }
            ReplicatorEvent::SessionEnded(id) => self.apply_session_gone(id),
            ReplicatorEvent::Room { session, outcome } => self.apply_room(session, outcome),
            ReplicatorEvent::InStep(id) => self.apply_in_step(id),
            ReplicatorEvent::Mounted => self.apply_mounted(),
            ReplicatorEvent::MountFailed(reason) => self.apply_mount_failed(&reason),
            ReplicatorEvent::Unmounted => self.apply_unmounted(),
            ReplicatorEvent::Aborted => {
                self.record(true, "unmounting met its deadline: the connection was aborted");
                self.apply_unmounted();
            }
            ReplicatorEvent::Fenced => self.apply_fenced(),
            ReplicatorEvent::Marked(lineage) => self.apply_marked(lineage),
            ReplicatorEvent::Cleared => {}
            ReplicatorEvent::Archived { lineage, outcome } => self.apply_archived(lineage, outcome),
            ReplicatorEvent::WroteAlone(lineage) => self.apply_wrote_alone(lineage),
            ReplicatorEvent::DiskFailed(reason) => self.apply_disk_failed(&reason),
            ReplicatorEvent::Uncovered(outcome) => self.apply_uncovered(outcome),
            ReplicatorEvent::Edited(reason) => self.apply_edited(&reason),
            ReplicatorEvent::Limited(limit) => self.apply_limited(limit),
        }
    }

    /// Every rule, until none changes anything. The order matters only for speed: each rule stands on facts alone.
    fn advance(&mut self) {
        const ENOUGH: u32 = 64;
        if !self.started {
            return;
        }
        for _ in 0..ENOUGH {
            if self.broken {
                // What runs goes on out of service; nothing is decided.
                if self.rule_broken() || self.rule_service() || self.rule_commands() {
                    continue;
                }
                return;
            }
            let changed = self.rule_lock()
                || self.rule_grace()
                || self.rule_react()
                || self.rule_foreign_lineage()
                || self.rule_concede()
                || self.rule_session()
                || self.rule_rights()
                || self.rule_swap()
                || self.rule_note_step()
                || self.rule_loss()
                || self.rule_settle()
                || self.rule_start()
                || self.rule_failure()
                || self.rule_closing()
                || self.rule_replicator()
                || self.rule_service()
                || self.rule_commands();
            if !changed {
                return;
            }
        }
        debug_assert!(false, "rules do not come to rest: {self:?}");
    }

    // What the rules share.

    /// Writes hard state; whatever follows in the batch stands on it.
    pub(crate) fn persist(&mut self) {
        if !self.broken {
            self.write();
        }
    }

    fn write(&mut self) {
        self.hard.serial += 1;
        self.written.push_back(self.hard.clone());
        let mut written = self.hard.clone();
        written.lineage.settled &= !self.lacks(LeftOut::SettledIsDurable);
        self.out.push(Action::Persist(Box::new(written)));
    }

    pub(crate) fn replicate(&mut self, command: ReplicatorCommand) {
        self.out.push(Action::Replicator(command));
    }

    pub(crate) fn record(&mut self, alarm: bool, text: impl Into<String>) {
        self.out.push(Action::Record(Record { alarm, text: text.into() }));
    }

    pub(crate) fn fresh_lineage(&mut self) -> LineageId {
        self.identity.lineage()
    }

    /// The peer's view, if its agent is alive and heard.
    pub(crate) fn present(&self) -> Option<&View> {
        self.peer.present(self.now, self.bears())
    }

    /// Nothing was heard of the peer for as long as this node bears it, awake.
    pub(crate) fn peer_silent(&self) -> bool {
        self.peer.silence(self.now) >= self.bears()
    }

    pub(crate) const fn my_side_of(&self, id: SessionId) -> u64 {
        match self.config.side {
            Side::First => id.first,
            Side::Second => id.second,
        }
    }

    pub(crate) const fn peer_side_of(&self, id: SessionId) -> u64 {
        match self.config.side {
            Side::First => id.second,
            Side::Second => id.first,
        }
    }

    pub(crate) const fn session_with(&self, peer_link: u64) -> SessionId {
        match self.config.side {
            Side::First => SessionId { first: self.link, second: peer_link },
            Side::Second => SessionId { first: peer_link, second: self.link },
        }
    }

    /// The module is to run, here and now.
    pub(crate) const fn wanted(&self) -> bool {
        matches!(self.hard.desired, Desired::Started) && !self.broken
    }

    /// Serves or is about to: mounted, addresses up, or on the way.
    pub(crate) fn serving(&self) -> bool {
        self.service.mounted || self.service.addresses || self.service.is_serving()
    }

    /// The replicator examined the copy and obeys.
    pub(crate) const fn ready(&self) -> bool {
        matches!(self.replicator.process, Process::Ready)
    }

    fn arm_timers(&mut self) {
        self.timers.cancel(Timer::Pulse);
        self.timers.cancel(Timer::Ask);
        self.timers.cancel(Timer::Fence);
        self.timers.cancel(Timer::Silence);
        if !self.started || self.broken {
            return;
        }
        if self.pulse_matters() {
            self.timers.set(Timer::Pulse, self.now + self.pause_limit() / 4);
        }
        if self.mode == Mode::Stopped {
            return;
        }
        let (grace, bears) = (self.grace(), self.bears());
        let marks = [
            (Timer::Ask, [grace * 6 / 10; 2]),
            (Timer::Fence, [grace * 9 / 10; 2]),
            (Timer::Silence, [grace, bears]),
        ];
        for (timer, parts) in marks {
            let contacts = [self.peer.contact(), self.peer.mutual(), self.peer.raw_mutual()];
            let ends = contacts.into_iter().flat_map(|contact| parts.map(|part| contact + part));
            if let Some(at) = ends.filter(|at| *at > self.now).min() {
                self.timers.set(timer, at);
            }
        }
    }
}
