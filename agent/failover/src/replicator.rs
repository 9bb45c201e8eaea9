//! What is known of the module's replicator process.

use std::time::Duration;

use crate::action::ReplicatorCommand;
use crate::archive::Archive;
use crate::failover::Failover;
use crate::lineage::LineageId;
use crate::timer::Timer;
use crate::view::{Copy, Mode};

/// The process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) enum Process {
    /// Not running.
    #[default]
    Off,
    /// Told to start.
    Starting,
    /// Examined the copy.
    Ready,
    /// Runs, but the directories are unusable.
    Refused,
    /// Told to stop.
    Stopping,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Replicator {
    pub(crate) process: Process,
    pub(crate) copy: Copy,
    pub(crate) knows_inflight: bool,
    /// Lineage whose journal is open and durable.
    pub(crate) journal: Option<LineageId>,
    /// Lineage whose journal was asked for.
    pub(crate) journal_asked: Option<LineageId>,
    /// It was told that it may acknowledge alone.
    pub(crate) settled: Option<LineageId>,
    /// Marker known to be durable.
    pub(crate) marked: Option<LineageId>,
    /// Marker that was asked for.
    pub(crate) mark_asked: Option<LineageId>,
    /// What is kept of this copy before it is replaced.
    pub(crate) archive: Archive,
    /// The grace that it holds to, as far as is known, and the one that it was told last.
    pub(crate) limit: Option<Duration>,
    pub(crate) limit_asked: Option<Duration>,
    /// Why there was no room for what the source has, the last time; for people.
    pub(crate) no_room: Option<String>,
}

impl Default for Replicator {
    fn default() -> Self {
        Self {
            process: Process::Off,
            copy: Copy::Unexamined,
            knows_inflight: false,
            journal: None,
            journal_asked: None,
            settled: None,
            marked: None,
            mark_asked: None,
            archive: Archive::Nothing,
            limit: None,
            limit_asked: None,
            no_room: None,
        }
    }
}

impl Replicator {
    /// A process is there to be told something.
    pub(crate) const fn alive(&self) -> bool {
        matches!(self.process, Process::Starting | Process::Ready | Process::Refused)
    }
}

impl Failover {
    pub(crate) fn apply_ready(&mut self, copy: Copy, knows_inflight: bool) {
        if self.replicator.process != Process::Starting {
            return;
        }
        self.replicator.process = Process::Ready;
        self.replicator.copy = copy;
        // A resync that compares everything may have been broken off before it was begun: nobody knows any more.
        self.replicator.knows_inflight = knows_inflight && !self.hard.target;
        self.timers.cancel(Timer::Retry);
        self.unblock();
        if copy == Copy::Unknown && self.hard.lineage.current.is_none() && self.hard.marker_before.is_some() {
            // The first marker was to be written, and was not: examined again as a copy without one.
            self.hard.marker_before = None;
            self.replicator = Replicator::default();
            return;
        }
        if copy == Copy::Known
            && let Some(current) = self.hard.lineage.current
            && self.hard.marker_before.is_some()
            && self.hard.lineage.base.is_none_or(|_| self.hard.lineage.settled)
        {
            self.mark(current);
        }
    }

    /// Condition of the copy. Marked, but without a lineage: what was about to be served first is what it was.
    pub(crate) const fn copy(&self) -> Copy {
        match self.replicator.copy {
            Copy::Known if self.hard.lineage.current.is_none() && !self.hard.target => {
                if self.hard.was_empty { Copy::Empty } else { Copy::Unlabelled }
            }
            Copy::Known if self.hard.edited => Copy::Edited,
            copy @ (Copy::Unexamined
            | Copy::Empty
            | Copy::Unlabelled
            | Copy::Known
            | Copy::Unknown
            | Copy::Edited) => copy,
        }
    }

    pub(crate) fn apply_refused(&mut self, reason: &str) {
        self.replicator = Replicator { process: Process::Refused, ..Replicator::default() };
        self.record(true, format!("the directories cannot be used: {reason}"));
        let hint = format!(
            "put that right, then: safectl stopstart {} --on {}",
            self.config.module, self.config.node
        );
        self.block(reason, Some(hint));
        self.fence("its directories cannot be used");
    }

    pub(crate) fn apply_died(&mut self) {
        let expected = matches!(self.replicator.process, Process::Off | Process::Stopping);
        let may_hand_over =
            self.session.as_ref().is_some_and(|session| session.paired) && self.mode == Mode::Primary;
        let lost_session = self.session.as_ref().map(|session| session.id);
        let starting = self.replicator.process == Process::Starting;
        self.replicator = Replicator::default();
        self.leaving = None;
        if let Some(id) = lost_session {
            self.apply_session_gone(id);
        }
        if expected {
            self.apply_fenced();
            return;
        }
        self.record(true, "the replicator died");
        if starting {
            self.count_restart();
        } else if self.serving() {
            let alone = self.mode == Mode::Alone;
            if may_hand_over {
                self.timers.set(Timer::HandOver, self.now + self.config.stall_timeout);
            }
            self.fence("its replicator died");
            self.resume_alone = alone;
            self.count_restart();
        } else if self.mode != Mode::Stopped {
            self.retired = true;
            self.leave_role("its replicator died");
        }
        // What it served went with it: there is nobody left to answer.
        self.apply_fenced();
    }

    /// Another process holds the mounts. Whatever the last one was told and may not have done is said again.
    pub(crate) fn apply_survived(&mut self, knows_inflight: bool) {
        if self.replicator.process != Process::Ready {
            return;
        }
        let unmarked = self.replicator.mark_asked.filter(|asked| self.replicator.marked != Some(*asked));
        self.replicator.knows_inflight = knows_inflight;
        (self.replicator.journal, self.replicator.journal_asked) = (None, None);
        let settled = self.replicator.settled.take().is_some();
        if let Some(id) = self.leaving {
            self.replicate(ReplicatorCommand::Leave(id));
        }
        self.leave_session();
        if let Some(lineage) = unmarked {
            self.mark(lineage);
        }
        if settled && self.mode == Mode::Alone {
            self.resettle();
        }
        self.record(true, "the replicator died: another one goes on with its mounts");
    }

    pub(crate) fn apply_marked(&mut self, lineage: LineageId) {
        self.replicator.marked = Some(lineage);
        if self.replicator.mark_asked != Some(lineage) {
            return;
        }
        if self.hard.marker_before == Some(lineage) {
            self.replicator.copy = Copy::Known;
        }
        if self.hard.lineage.current == Some(lineage) {
            // Written with the next hard state: an older one only accepts one marker more.
            self.hard.marker_before = None;
            self.replicator.copy = Copy::Known;
        }
    }

    /// Writes the root marker; `Marked` answers.
    pub(crate) fn mark(&mut self, lineage: LineageId) {
        self.replicator.mark_asked = Some(lineage);
        self.replicator.marked = None;
        self.replicate(ReplicatorCommand::Mark(lineage));
    }

    pub(crate) fn open_journal(&mut self, lineage: LineageId) {
        if self.replicator.journal_asked != Some(lineage) {
            self.replicator.journal_asked = Some(lineage);
            self.replicator.journal = None;
            self.replicate(ReplicatorCommand::OpenJournal(lineage));
        }
    }

    /// The process runs while the module does.
    pub(crate) fn rule_replicator(&mut self) -> bool {
        match self.replicator.process {
            Process::Off => {
                if self.mode == Mode::Stopped || self.broken || self.service.busy() || !self.may_retry() {
                    return false;
                }
                let lineage = &self.hard.lineage;
                let accept = lineage.current.into_iter().chain(self.hard.marker_before).collect();
                self.replicator = Replicator { process: Process::Starting, ..Replicator::default() };
                self.replicate(ReplicatorCommand::Start { accept });
                true
            }
            Process::Refused => {
                if self.mode == Mode::Stopped {
                    self.stop_replicator();
                    return true;
                }
                if !self.timers.is_set(Timer::Retry) {
                    self.timers.set(Timer::Retry, self.now + self.config.start_wait);
                    return false;
                }
                if !self.timers.is_due(Timer::Retry, self.now) {
                    return false;
                }
                self.timers.cancel(Timer::Retry);
                self.stop_replicator();
                true
            }
            Process::Ready | Process::Starting => {
                if self.mode != Mode::Stopped || self.leaving.is_some() || self.service.busy() {
                    return false;
                }
                self.stop_replicator();
                true
            }
            Process::Stopping => false,
        }
    }

    fn stop_replicator(&mut self) {
        self.replicator = Replicator { process: Process::Stopping, ..Replicator::default() };
        self.replicate(ReplicatorCommand::Stop);
    }
}
