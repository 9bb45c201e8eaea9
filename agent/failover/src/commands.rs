//! What administrators ask for.

use crate::action::{Action, ReplicatorCommand};
use crate::config::Side;
use crate::event::Command;
use crate::failover::Failover;
use crate::hard::{Desired, Role};
use crate::meeting::Outcome;
use crate::posture::Posture;
use crate::settle::Cause;
use crate::start::Goal;
use crate::view::{Copy, Mode};

/// The command that is being carried out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Pending {
    pub(crate) command: Option<Command>,
    /// Its procedure has begun.
    begun: bool,
}

impl Failover {
    pub(crate) fn apply_command(&mut self, command: Command) {
        if !self.started || self.broken {
            self.answer(command, Err("this node takes no commands: see the log of safed".to_owned()));
            return;
        }
        if let Some(running) = self.pending.command {
            if command != Command::Stop || running == Command::Stop {
                self.answer(command, Err(format!("{} is in progress", name(running))));
                return;
            }
            self.end_command(Err("the module is being stopped".to_owned()));
        }
        match command {
            Command::Start => self.command_start(),
            Command::Stop => self.command_stop(),
            Command::StopStart => self.command_stopstart(),
            Command::Restart => self.command_restart(),
            Command::Swap => self.command_swap(),
            Command::Verify { repair } => self.command_verify(repair),
            Command::Unlock => self.command_unlock(),
            Command::Prim { .. } => self.command_prim(command),
            Command::Second { full, force, discard } => {
                self.discards = discard;
                self.command_second(command, full, force);
            }
        }
    }

    fn command_start(&mut self) {
        if self.mode == Mode::Stopped || self.blocked.is_some() {
            self.forgive();
            self.want_started();
            self.enter_waiting();
        }
        self.answer(Command::Start, Ok(()));
    }

    fn command_stop(&mut self) {
        if self.hard.desired != Desired::Stopped {
            self.hard.desired = Desired::Stopped;
            self.persist();
        }
        if self.mode == Mode::Stopped {
            self.answer(Command::Stop, Ok(()));
            return;
        }
        self.pend(Command::Stop);
        self.close(Goal::Stop);
    }

    fn command_stopstart(&mut self) {
        if self.mode == Mode::Stopped {
            self.refuse(Command::StopStart, "the module is stopped", "start");
            return;
        }
        self.forgive();
        self.pend(Command::StopStart);
        self.close(Goal::Again);
    }

    fn command_restart(&mut self) {
        let active = matches!(self.service.posture, Posture::Prim | Posture::Alone | Posture::Second);
        if !active || self.service.busy() || self.closing.is_some() {
            self.answer(
                Command::Restart,
                Err("nothing runs on this node that could be restarted now".to_owned()),
            );
            return;
        }
        self.pend(Command::Restart);
        self.begin_restart();
    }

    fn command_swap(&mut self) {
        if let Some(obstacle) = self.swap_obstacle() {
            self.answer(Command::Swap, Err(obstacle));
            return;
        }
        self.pend(Command::Swap);
        self.begin_swap();
    }

    fn command_verify(&mut self, repair: bool) {
        let command = Command::Verify { repair };
        let in_step = self.session.as_ref().is_some_and(|session| session.in_step);
        if self.mode == Mode::Primary && in_step {
            self.replicate(ReplicatorCommand::Verify { repair });
            self.answer(command, Ok(()));
            return;
        }
        let (module, node, peer) = (&self.config.module, &self.config.node, &self.config.peer);
        let why = match self.mode {
            Mode::Primary | Mode::Alone => {
                format!(
                    "{peer} is not in step with {node}, so there is nothing to compare; type: safectl status {module}"
                )
            }
            Mode::Second | Mode::Target | Mode::Stopped | Mode::Waiting | Mode::Candidate => {
                format!("{node} does not serve; the node that does compares the copies")
            }
        };
        self.answer(command, Err(why));
    }

    fn command_prim(&mut self, command: Command) {
        match self.mode {
            Mode::Primary | Mode::Alone => self.answer(command, Ok(())),
            Mode::Second if self.session.is_none() && self.rights.promote && !self.config.failover => {
                self.take_over = true;
                self.pend(command);
            }
            Mode::Second => {
                let text = format!(
                    "{} follows {} in step; to exchange roles type",
                    self.config.node, self.config.peer
                );
                self.answer(command, Err(format!("{text}: safectl swap {}", self.config.module)));
            }
            Mode::Target => {
                let text =
                    format!("this copy is being resynchronised from {}, which serves", self.config.peer);
                self.answer(command, Err(text));
            }
            Mode::Stopped => {
                self.forgive();
                self.want_started();
                self.enter_waiting();
                self.pend(command);
            }
            Mode::Waiting | Mode::Candidate => {
                self.only_second = false;
                (self.yields, self.discards) = (false, false);
                self.pend(command);
            }
        }
    }

    fn command_second(&mut self, command: Command, full: bool, force: bool) {
        match self.mode {
            Mode::Second | Mode::Target => self.answer(command, Ok(())),
            Mode::Primary | Mode::Alone | Mode::Candidate => {
                self.refuse(command, &format!("{} serves", self.config.node), "stop");
            }
            Mode::Stopped | Mode::Waiting => {
                if self.mode == Mode::Stopped {
                    self.want_started();
                    self.enter_waiting();
                }
                self.only_second = true;
                self.yields = full || force;
                if self.yields {
                    let peer = &self.config.peer;
                    self.record(
                        true,
                        format!("an administrator gives up this copy in favour of that of {peer}"),
                    );
                }
                self.answer(command, Ok(()));
            }
        }
    }

    fn want_started(&mut self) {
        if self.hard.desired != Desired::Started {
            self.hard.desired = Desired::Started;
            self.hard.unlocked = false;
            self.persist();
        }
    }

    pub(crate) fn pend(&mut self, command: Command) {
        self.pending = Pending { command: Some(command), begun: false };
    }

    pub(crate) fn refuse(&mut self, command: Command, why: &str, verb: &str) {
        let (module, node) = (&self.config.module, &self.config.node);
        let text = format!("{why}; type: safectl {verb} {module} --on {node}");
        self.answer(command, Err(text));
    }

    pub(crate) fn answer(&mut self, command: Command, outcome: Result<(), String>) {
        self.out.push(Action::Answer(command, outcome));
    }

    pub(crate) fn end_command(&mut self, outcome: Result<(), String>) {
        if let Some(command) = self.pending.command.take() {
            self.answer(command, outcome);
        }
    }

    /// Sees whether the running command has come to its end.
    pub(crate) fn rule_commands(&mut self) -> bool {
        let Some(command) = self.pending.command else { return false };
        let end = match command {
            Command::Stop => (self.mode == Mode::Stopped && !self.service.busy()).then_some(Ok(())),
            Command::StopStart => {
                let waits =
                    self.closing.is_none() && self.service.posture == Posture::Idle && !self.service.busy();
                waits.then_some(Ok(()))
            }
            Command::Restart => {
                (!self.service.busy()).then(|| self.service.failure.clone().map_or(Ok(()), Err))
            }
            Command::Swap => self.swap_ended(),
            Command::Prim { force } => return self.decide_prim(force),
            // Ended by the report that it is done.
            Command::Unlock => None,
            Command::Start | Command::Second { .. } | Command::Verify { .. } => Some(Ok(())),
        };
        let Some(outcome) = end else { return false };
        self.end_command(outcome);
        true
    }

    fn swap_ended(&self) -> Option<Result<(), String>> {
        // An offer outlives its session on disk, for the next meeting; who asked does not wait for that.
        let offers = self.hard.offered && self.session.is_some();
        if self.closing.is_some() || offers {
            return None;
        }
        let handed = self.hard.role == Role::Secondary
            && !self.hard.offered
            && matches!(self.mode, Mode::Second | Mode::Target);
        if handed {
            return Some(Ok(()));
        }
        Some(Err("roles were not exchanged: the session with the other node ended meanwhile".to_owned()))
    }

    /// `prim`: serve with this copy, if that is safe or forced.
    fn decide_prim(&mut self, force: bool) -> bool {
        if matches!(self.mode, Mode::Primary | Mode::Alone) {
            self.end_command(Ok(()));
            return true;
        }
        if self.mode == Mode::Second && self.take_over && self.session.is_none() {
            return false;
        }
        if matches!(self.mode, Mode::Second | Mode::Target | Mode::Stopped) {
            let why = format!("{} serves and this node follows", self.config.peer);
            self.end_command(Err(why));
            return true;
        }
        if let Some(blocked) = &self.blocked {
            let reason = blocked.reason.clone();
            self.end_command(Err(reason));
            return true;
        }
        if self.pending.begun && self.mode == Mode::Waiting {
            let why = self.fenced_because.clone().unwrap_or_else(|| "the decision was overtaken".to_owned());
            self.end_command(Err(why));
            return true;
        }
        if self.pending.begun || !self.may_start() {
            return false;
        }
        match self.prim_cause(force) {
            Ok(Some(cause)) => {
                self.pending.begun = true;
                let text = if force {
                    "an administrator forces this copy to serve"
                } else {
                    "prim: this copy serves"
                };
                self.record(force, text);
                if cause == Cause::Again {
                    self.go_alone_again();
                } else {
                    self.begin_alone(Mode::Candidate, cause);
                }
                true
            }
            Ok(None) => false,
            Err(why) => {
                self.end_command(Err(why));
                true
            }
        }
    }

    /// How this copy may come to serve; none: wait (for a meeting that is about to decide).
    fn prim_cause(&self, force: bool) -> Result<Option<Cause>, String> {
        let (module, node, peer_name) = (&self.config.module, &self.config.node, &self.config.peer);
        let peer = self.present();
        if peer.is_some_and(|peer| peer.serving || matches!(peer.mode, Mode::Primary | Mode::Alone)) {
            return Err(format!(
                "{peer_name} serves; to exchange roles once both are in step: safectl swap {module}"
            ));
        }
        if force {
            return Ok(Some(Cause::Forced));
        }
        let forced = format!("safectl prim {module} --on {node} --force");
        let theirs = format!("safectl prim {module} --on {peer_name}");
        if self.hard.lineage.current.is_none() {
            let peer_has_lineage = peer.is_some_and(|peer| peer.lineage.current.is_some());
            let peer_has_data = peer.is_some_and(|peer| peer.copy == Copy::Unlabelled);
            return match self.copy() {
                Copy::Empty if peer_has_lineage || peer_has_data => {
                    Err(format!("this copy is empty, {peer_name} has the data; type: {theirs}"))
                }
                Copy::Unlabelled if peer_has_lineage => Err(format!(
                    "{peer_name} has data of its own; to use that: safectl second {module} --on {node} --force; to use this copy: {forced}"
                )),
                Copy::Empty | Copy::Unlabelled => Ok(Some(Cause::First)),
                Copy::Unexamined | Copy::Known | Copy::Unknown | Copy::Edited => {
                    Err(format!("this copy is not what it was; to serve it all the same: {forced}"))
                }
            };
        }
        if self.hard.outdated {
            return Err(format!(
                "this copy is outdated: {peer_name} went on without it; type: {theirs}; to lose what {peer_name} has: {forced}"
            ));
        }
        if !self.good_copy() {
            return Err(format!(
                "this copy is not consistent; type: {theirs}; to serve it all the same: {forced}"
            ));
        }
        let settled = self.hard.lineage.base.is_some() && self.hard.lineage.settled;
        match peer {
            None if settled => Ok(Some(Cause::Again)),
            None => Err(format!(
                "it cannot be known whether {peer_name} went on without this copy: start {peer_name}, or type: {forced}"
            )),
            Some(_) if self.peer_cannot_be_newer() => {
                Ok(Some(if settled { Cause::Again } else { Cause::Demand }))
            }
            Some(peer) => {
                let peer_wins = match self.outcome(peer) {
                    Outcome::Source { side, .. } => side != self.config.side,
                    Outcome::Pair(_) | Outcome::Person(_) | Outcome::NotYet => false,
                };
                let why = if peer_wins {
                    "has newer data"
                } else {
                    "has data that cannot be compared with this copy"
                };
                Err(format!("{peer_name} {why}; type: {theirs}; to lose what it has: {forced}"))
            }
        }
    }

    /// The node of this side, by name.
    pub(crate) fn name_of(&self, side: Side) -> &str {
        if side == self.config.side { &self.config.node } else { &self.config.peer }
    }
}

const fn name(command: Command) -> &'static str {
    match command {
        Command::Start => "start",
        Command::Stop => "stop",
        Command::StopStart => "stopstart",
        Command::Restart => "restart",
        Command::Swap => "swap",
        Command::Verify { .. } => "verify",
        Command::Unlock => "data unlock",
        Command::Prim { .. } => "prim",
        Command::Second { .. } => "second",
    }
}
