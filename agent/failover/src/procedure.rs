//! Procedures: the steps from one posture to another, one at a time, each waiting for its event.
//!
//! Entering service mounts, raises addresses, then runs scripts. Leaving it in good order removes addresses, runs stop
//! scripts (what they write is still replicated), runs them again with `force`, kills what is left, unmounts. A fence
//! overrides whatever runs: first the replies freeze, then addresses go and processes are killed, then stop scripts
//! clean up.

use std::collections::VecDeque;
use std::time::Duration;

use crate::action::{Action, ReplicatorCommand, Script, ScriptRun};
use crate::failover::Failover;
use crate::hard::Role;
use crate::posture::{Posture, Step, plan, script_name, stop_of, stopping};
use crate::replicator::Process;
use crate::timer::Timer;

/// What must still be heard before the next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Awaited {
    mounted: bool,
    raised: bool,
    dropped: bool,
    killed: bool,
    unmounted: bool,
    fenced: bool,
    script: Option<(u64, Script, bool)>,
}

/// A running procedure.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Procedure {
    pub(crate) to: Posture,
    action: &'static str,
    steps: VecDeque<Step>,
    pub(crate) fence: bool,
}

/// What is active on this node, and the procedure that changes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Service {
    pub(crate) posture: Posture,
    pub(crate) procedure: Option<Procedure>,
    pub(crate) awaited: Awaited,
    /// The directories are or may be mounted.
    pub(crate) mounted: bool,
    /// The addresses are or may be on this node.
    pub(crate) addresses: bool,
    /// Processes of an earlier life may be here.
    pub(crate) leftovers: bool,
    /// `start_both` has run, `stop_both` not.
    both: bool,
    runs: u64,
    /// A start script failed, or addresses could not be raised: for people.
    pub(crate) failure: Option<String>,
    /// It was a start script.
    pub(crate) start_failed: bool,
    /// Repeats of a step that was not answered.
    repeats: u32,
}

impl Service {
    pub(crate) const fn busy(&self) -> bool {
        self.procedure.is_some()
    }

    pub(crate) fn fencing(&self) -> bool {
        self.procedure.as_ref().is_some_and(|procedure| procedure.fence)
    }

    /// Only what an earlier life left behind is being removed.
    pub(crate) const fn cleaning(&self) -> bool {
        self.leftovers
    }

    /// Something of the module is or may be active here, or is about to be.
    pub(crate) fn exposed(&self) -> bool {
        self.mounted || (self.addresses && !self.leftovers) || (self.is_serving() && !self.leftovers)
    }

    pub(crate) fn is_serving(&self) -> bool {
        self.posture.serves()
            || self.leftovers
            || self.procedure.as_ref().is_some_and(|procedure| procedure.to.serves())
    }
}

impl Failover {
    /// Brings what is active here to what the mode asks for.
    pub(crate) fn rule_service(&mut self) -> bool {
        if self.service.procedure.is_some() {
            return self.go_on();
        }
        let from = self.service.posture;
        let Some(to) = self.wanted_posture() else { return false };
        if from == to {
            return false;
        }
        let action = self.purpose();
        let steps = plan(from, to, self.service.both);
        self.begin(Procedure { to, action, steps, fence: false });
        true
    }

    /// Leaves service for a swap: everything but the scripts of `both`, so that no operation can come any more.
    pub(crate) fn begin_hand_over(&mut self) {
        let steps = [Step::Drop]
            .into_iter()
            .chain(stopping(&[Script::StopPrim]))
            .chain([Step::Kill, Step::Unmount])
            .collect();
        self.begin(Procedure { to: Posture::Idle, action: "swap", steps, fence: false });
    }

    /// `restart`: stop and start scripts of the role, the state stays.
    pub(crate) fn begin_restart(&mut self) {
        let scripts: &[Script] = match self.service.posture {
            Posture::Prim | Posture::Alone => &[Script::StartPrim],
            Posture::Second => &[Script::StartSecond],
            Posture::Down | Posture::Idle => &[],
        };
        let stops: Vec<Script> = scripts.iter().filter_map(|script| stop_of(*script)).collect();
        let steps = stopping(&stops).chain(scripts.iter().map(|script| Step::Run(*script))).collect();
        self.begin(Procedure { to: self.service.posture, action: "restart", steps, fence: false });
    }

    /// At once out of service, whatever runs.
    pub(crate) fn begin_fence(&mut self, action: &'static str) {
        if self.service.fencing() {
            return;
        }
        use Script::{StopBoth, StopPrim, StopSec, StopSecond, Transition};
        let steps = [Step::Cut]
            .into_iter()
            .chain([StopPrim, StopSec, StopSecond, StopBoth].map(Step::Force))
            .chain([Step::Run(Transition)])
            .collect();
        self.begin(Procedure { to: Posture::Idle, action, steps, fence: true });
    }

    /// What an earlier life may have left behind is removed before anything else.
    pub(crate) fn begin_cleaning(&mut self) {
        self.service.leftovers = true;
        self.service.addresses = self.config.has_addresses;
        self.begin(Procedure {
            to: Posture::Down,
            action: "start",
            steps: [Step::Drop, Step::Kill].into(),
            fence: false,
        });
    }

    fn begin(&mut self, procedure: Procedure) {
        self.service.awaited = Awaited::default();
        self.service.repeats = 0;
        self.timers.cancel(Timer::Step);
        let leaves = matches!(procedure.to, Posture::Idle | Posture::Down) || procedure.action == "restart";
        let fence = procedure.fence;
        self.service.procedure = Some(procedure);
        if leaves && !fence {
            self.remember_running(Role::None);
        }
        self.go_on();
        if leaves && fence {
            self.remember_running(Role::None);
        }
    }

    /// For the next agent process, should this one die.
    fn remember_running(&mut self, role: Role) {
        if self.hard.running != role {
            self.hard.running = role;
            self.persist();
        }
    }

    /// An agent died in the middle of a procedure; the directories are mounted: start what should run once more.
    pub(crate) fn begin_again(&mut self, to: Posture) {
        use Script::{StartBoth, StartPrim, StartSec, StopBoth, StopPrim, StopSec, StopSecond, Transition};
        let steps = [StopPrim, StopSec, StopSecond, StopBoth]
            .map(Step::Force)
            .into_iter()
            .chain([Step::Kill, Step::Raise])
            .chain([Transition, StartBoth, StartPrim].map(Step::Run))
            .chain((to == Posture::Alone).then_some(Step::Run(StartSec)))
            .collect();
        self.service.posture = Posture::Idle;
        self.begin(Procedure { to, action: "start", steps, fence: false });
    }

    /// Drops the steps that a running procedure has not begun, if it leads the wrong way: what it reached is left in
    /// good order afterwards.
    pub(crate) fn cut_short(&mut self) {
        let wanted = self.wanted_posture();
        if let Some(procedure) = &mut self.service.procedure
            && !procedure.fence
            && matches!(procedure.to, Posture::Second | Posture::Prim | Posture::Alone)
            && wanted.is_some_and(|wanted| wanted != procedure.to)
        {
            procedure.steps.clear();
        }
    }

    /// Begins steps until one has to be waited for.
    fn go_on(&mut self) -> bool {
        let mut changed = false;
        while self.service.awaited == Awaited::default() {
            self.timers.cancel(Timer::Step);
            let Some(procedure) = &mut self.service.procedure else { return changed };
            changed = true;
            let Some(step) = procedure.steps.pop_front() else {
                let reached = procedure.to;
                self.service.posture = reached;
                self.service.leftovers = false;
                self.service.procedure = None;
                self.remember_running(match reached {
                    Posture::Down | Posture::Idle => Role::None,
                    Posture::Second => Role::Secondary,
                    Posture::Prim | Posture::Alone => Role::Primary,
                });
                return true;
            };
            self.take(step);
        }
        if self.timers.is_due(Timer::Step, self.now) {
            self.overdue();
            changed = true;
        }
        changed
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Mount => {
                self.service.mounted = true;
                self.service.awaited.mounted = true;
                self.replicate(ReplicatorCommand::Mount);
                self.within(Duration::from_secs(30));
            }
            Step::Raise => {
                if self.config.has_addresses {
                    self.service.addresses = true;
                    self.service.awaited.raised = true;
                    self.out.push(Action::RaiseAddresses);
                    self.within(Duration::from_secs(10));
                }
            }
            Step::Drop => self.drop_addresses(),
            Step::Kill => self.kill_processes(),
            Step::Unmount => {
                if self.service.mounted {
                    let deadline = self.config.force_timeout;
                    self.service.awaited.unmounted = true;
                    self.replicate(ReplicatorCommand::Unmount(deadline));
                    self.within(deadline + Duration::from_secs(10));
                }
            }
            Step::Cut => {
                if self.replicator.alive() {
                    self.service.awaited.fenced = true;
                    self.replicate(ReplicatorCommand::Fence);
                } else if self.replicator.process == Process::Stopping && self.service.mounted {
                    self.service.awaited.fenced = true;
                } else {
                    self.service.mounted = false;
                }
                self.replicator.settled = None;
                self.drop_addresses();
                self.kill_processes();
                self.within(Duration::from_secs(2));
            }
            Step::Run(script) => self.run(script, false),
            Step::Force(script) => self.run(script, true),
        }
    }

    fn drop_addresses(&mut self) {
        if self.service.addresses {
            self.service.awaited.dropped = true;
            self.out.push(Action::DropAddresses);
            self.within(Duration::from_secs(5));
        }
    }

    fn kill_processes(&mut self) {
        self.service.awaited.killed = true;
        self.out.push(Action::KillProcesses);
        self.within(Duration::from_secs(10));
    }

    fn run(&mut self, script: Script, force: bool) {
        let Some(procedure) = &self.service.procedure else { return };
        self.service.runs += 1;
        let run = self.service.runs;
        let deadline = match (force, script) {
            (true, _) => self.config.force_timeout,
            (
                false,
                Script::StopPrim | Script::StopBoth | Script::StopSecond | Script::StopSec | Script::Poststop,
            ) => self.config.stop_timeout,
            (
                false,
                Script::Prestart
                | Script::StartPrim
                | Script::StartBoth
                | Script::StartSecond
                | Script::StartSec
                | Script::Transition,
            ) => self.config.start_timeout,
        };
        let (state, next) = (self.service.posture.state(), procedure.to.state());
        let action = procedure.action;
        self.service.awaited.script = Some((run, script, force));
        match script {
            Script::StartBoth => self.service.both = true,
            Script::StopBoth => self.service.both = false,
            Script::Prestart
            | Script::StartPrim
            | Script::StopPrim
            | Script::StartSecond
            | Script::StopSecond
            | Script::StartSec
            | Script::StopSec
            | Script::Transition
            | Script::Poststop => {}
        }
        self.out.push(Action::Script(ScriptRun { run, script, force, state, next, action, deadline }));
        self.within(deadline + Duration::from_secs(10));
    }

    fn within(&mut self, limit: Duration) {
        self.timers.set(Timer::Step, self.now + limit);
    }

    /// A step was not answered long after its own deadline.
    fn overdue(&mut self) {
        let awaited = self.service.awaited;
        self.service.repeats += 1;
        if let Some((_, script, _)) = awaited.script {
            self.record(true, format!("script {script:?} did not end even when killed; going on without it"));
            self.service.awaited.script = None;
            return;
        }
        if awaited.fenced || awaited.unmounted || awaited.mounted {
            self.record(true, "the replicator does not answer: it is killed");
            self.replicate(ReplicatorCommand::Kill);
        }
        if awaited.dropped {
            self.record(true, "addresses were not removed in time: trying again");
            self.out.push(Action::DropAddresses);
        }
        if awaited.killed {
            self.record(true, "processes of the module cannot be killed: trying again");
            self.out.push(Action::KillProcesses);
        }
        if awaited.raised {
            self.service.awaited.raised = false;
        }
        self.within(Duration::from_secs(5));
    }

    // Answers.

    pub(crate) fn apply_mounted(&mut self) {
        self.service.awaited.mounted = false;
    }

    pub(crate) fn apply_mount_failed(&mut self, reason: &str) {
        if !self.service.awaited.mounted {
            return;
        }
        self.service.awaited.mounted = false;
        self.service.mounted = false;
        self.record(true, format!("the directories could not be mounted: {reason}"));
        self.fence("its directories could not be mounted");
        let hint = format!(
            "put that right, then: safectl stopstart {} --on {}",
            self.config.module, self.config.node
        );
        self.block(&format!("could not be mounted: {reason}"), Some(hint));
    }

    pub(crate) fn apply_raised(&mut self, outcome: Result<(), String>) {
        self.service.awaited.raised = false;
        if let Err(reason) = outcome {
            self.record(true, format!("addresses could not be raised: {reason}"));
            self.service.failure = Some(format!("addresses could not be raised: {reason}"));
        }
    }

    pub(crate) fn apply_dropped(&mut self) {
        if self.service.awaited.dropped {
            self.service.awaited.dropped = false;
            self.service.addresses = false;
        }
    }

    pub(crate) fn apply_processes_gone(&mut self) {
        self.service.awaited.killed = false;
    }

    pub(crate) fn apply_unmounted(&mut self) {
        self.service.awaited.unmounted = false;
        self.service.awaited.mounted = false;
        self.service.mounted = false;
    }

    pub(crate) fn apply_fenced(&mut self) {
        self.service.awaited.fenced = false;
        self.service.awaited.unmounted = false;
        self.service.awaited.mounted = false;
        self.service.mounted = false;
    }

    pub(crate) fn apply_script(&mut self, run: u64, outcome: Result<(), String>) {
        let Some((awaited, script, force)) = self.service.awaited.script else { return };
        if awaited != run {
            return;
        }
        self.service.awaited.script = None;
        let Err(reason) = outcome else { return };
        let name = script_name(script);
        self.record(true, format!("{name}{} failed: {reason}", if force { " force" } else { "" }));
        if matches!(script, Script::StartPrim | Script::StartBoth) {
            self.service.failure = Some(format!("{name} failed: {reason}"));
            self.service.start_failed = true;
        }
    }
}
