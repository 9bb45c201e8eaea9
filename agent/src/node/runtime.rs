//! A mirror module that runs: its core, and what the shell knows besides.

use safe_failover::action::{Action, State};
use safe_failover::event::{Adopted, Command, ReplicatorEvent};
use safe_failover::resource::Value;
use safe_failover::view::View;
use safe_failover::{Event, Time};
use safe_proto::module::{LanStatus, ModuleStatus};
use tokio_util::sync::CancellationToken;

use super::load::Mirror;
use super::{Heartbeats, Inspection, Membership, Refusal, Reply, What};
use crate::execute::Batch;
use crate::status::{self, Observed};
use crate::{clock, command, replica};

/// Answers awaited at a time; who asks more than that is refused.
const WAITING: usize = 64;

/// A mirror module with its workers.
pub(super) struct Runtime {
    pub(super) mirror: Box<Mirror>,
    /// Marks the reports of its workers.
    pub(super) number: u64,
    /// Why no command is taken at present; none: commands are taken.
    pub(super) frozen: Option<&'static str>,
    /// Another version is in force on disk: another core takes over as soon as this one is at rest.
    pub(super) renew: bool,
    observed: Observed,
    /// The peer's last view.
    heard: Option<Box<View>>,
    /// Raised with each write of hard state that failed.
    generation: u64,
    /// The executor hangs: the core is not obeyed any more.
    stuck: bool,
    waiting: Vec<(Command, Reply<String>)>,
}

impl Runtime {
    pub(super) fn new(mirror: Box<Mirror>, number: u64, heartbeats: &Heartbeats) -> Self {
        let lans = heartbeats.lans.iter().map(|name| LanStatus { name: name.clone(), up: false }).collect();
        Self {
            mirror,
            number,
            frozen: None,
            renew: false,
            observed: Observed { lans, ..Observed::default() },
            heard: None,
            generation: 0,
            stuck: false,
            waiting: Vec::new(),
        }
    }

    /// When the core must be called at the latest.
    pub(super) fn timeout(&self) -> Option<Time> {
        self.mirror.core.poll_timeout().filter(|_| !self.stuck)
    }

    /// Gives the core an event and begins what it decides. True: some of it answers `command`.
    pub(super) fn drive(&mut self, event: Event) -> Vec<Command> {
        if self.stuck {
            return Vec::new();
        }
        if matches!(event, Event::PersistFailed) {
            self.generation += 1;
        }
        let core = &mut self.mirror.core;
        core.wall_clock(clock::unix_s());
        let module = self.mirror.module.name.as_str();
        tracing::debug!(module, ?event, "event");
        let actions = core.handle(event, clock::now());
        tracing::debug!(module, ?actions, "actions");
        if actions.is_empty() {
            return Vec::new();
        }
        let answered = self.note(&actions);
        let stand_in = self.mirror.core.stand_in();
        let batch = Batch { actions, generation: self.generation, stand_in };
        if self.mirror.executor.begin(batch).is_err() {
            self.stuck = true;
            // Nothing of this module may go on serving that nobody can stop: the replicator dies, by a way that does
            // not lead through the executor.
            self.mirror
                .replica
                .offer(replica::Order::Command(safe_failover::action::ReplicatorCommand::Kill));
        }
        answered
    }

    /// What the actions say about things the shell shows; commands that they answer.
    fn note(&mut self, actions: &[Action]) -> Vec<Command> {
        let mut answered = Vec::new();
        for action in actions {
            if let Action::Persist(hard) = action {
                self.mirror.hard.clone_from(hard);
            } else if let Action::Answer(command, _) = action {
                answered.push(*command);
            }
        }
        answered
    }

    /// A view of the peer, unless it is not newer than the last one.
    pub(super) fn view(&mut self, from: &str, view: Box<View>) {
        if from != self.mirror.pair.peer {
            return;
        }
        let known = self.heard.as_ref().filter(|known| known.incarnation == view.incarnation);
        if known.is_some_and(|known| view.serial <= known.serial) {
            return;
        }
        self.heard = Some(view.clone());
        self.drive(Event::Peer(view));
    }

    pub(super) fn lan(&mut self, lan: u8, up: bool) {
        let Some(status) = self.observed.lans.get_mut(usize::from(lan)) else { return };
        status.up = up;
        let name = format!("heartbeat.{}", status.name);
        let value = if up { Value::Up } else { Value::Down };
        self.drive(Event::Lan { lan, up });
        self.drive(Event::Resource { name, value, reason: String::new() });
    }

    /// What the core knows of rules and resources.
    pub(super) fn inspect(&self) -> Inspection {
        let core = &self.mirror.core;
        Inspection {
            rules: core.rules(),
            resources: core.resources().clone(),
            own: core.own_resources(),
            explanations: core.explain(),
        }
    }

    /// A report of one of its workers.
    pub(super) fn report(&mut self, what: What) {
        match what {
            What::Core(event) => {
                self.observe(&event);
                self.drive(event);
            }
            What::Progress(progress) => {
                self.observed.progress = Some(progress).filter(|progress| !progress.done)
            }
            What::Verification(status) => self.observed.verify = status.map(|status| *status),
            What::VerifyDue => {
                // Refused where this node does not serve or the copies are not in step: asked again a little later.
                self.drive(Event::Command(Command::Verify { repair: false }));
            }
            What::Figures(figures) => self.observed.figures = Some(figures),
            What::Addresses(addresses) => self.observed.addresses = addresses,
            What::Warnings(warnings) => self.observed.warnings = warnings,
            What::Arbiters(arbiters) => self.observed.arbiters = arbiters,
            What::PeerAgentBack => {
                // Said late, the opposite may have hidden what the agent itself has said since.
                if let Some(view) = self.heard.clone() {
                    self.drive(Event::Peer(view));
                }
            }
            What::Answer(command, outcome) => self.answer(command, outcome),
        }
    }

    fn observe(&mut self, event: &Event) {
        let Event::Replicator(event) = event else { return };
        if matches!(event, ReplicatorEvent::SessionUp(_)) {
            self.observed.connected = true;
        }
        let lost = matches!(
            event,
            ReplicatorEvent::SessionLost { .. }
                | ReplicatorEvent::SessionEnded(_)
                | ReplicatorEvent::Died
                | ReplicatorEvent::Stopped
        );
        if lost {
            self.observed.connected = false;
            self.observed.figures = None;
            self.observed.progress = None;
        } else if matches!(event, ReplicatorEvent::InStep(_)) {
            self.observed.progress = None;
        }
    }

    /// The adopted replicator has a session already.
    pub(super) fn adopt_session(&mut self, adopted: Option<&Adopted>) {
        self.observed.connected = adopted.is_some_and(|adopted| adopted.session.is_some());
    }

    /// An administrator's command. Answered when the core has answered it, or at once if that takes longer.
    pub(super) fn control(&mut self, command: Command, reply: Reply<String>) {
        let refusal = if self.stuck {
            Some("the disk that holds safed's state hangs; restart safed once it is well again")
        } else if self.waiting.len() >= WAITING {
            Some("too many commands wait for an answer; try again")
        } else {
            self.frozen
        };
        let (module, node) = (self.mirror.module.name.clone(), self.mirror.module.node.clone());
        let answer = match refusal {
            Some(why) => Err(Refusal::State(format!("{module} takes no command on {node} now: {why}"))),
            None if self.drive(Event::Command(command)).contains(&command) || command == Command::Unlock => {
                self.waiting.push((command, reply));
                return;
            }
            None => Ok(command::accepted(&module, &node, command)),
        };
        // Who asked has gone.
        let _gone = reply.send(answer);
    }

    /// Holds resynchronisations back for so many seconds, or lets them go on (0). Nothing is decided by that, so the
    /// core need not know.
    ///
    /// # Errors
    /// The module does not run here.
    pub(super) fn pause_resync(&self, seconds: u32) -> Result<String, Refusal> {
        let (module, node) = (&self.mirror.module.name, &self.mirror.module.node);
        if self.mirror.core.status().state == State::Stop {
            return Err(Refusal::State(format!(
                "{module} is stopped on {node}: there is no resync to pause"
            )));
        }
        if !self.mirror.replica.offer(replica::Order::PauseResync(seconds)) {
            return Err(Refusal::State(format!("the replicator of {module} on {node} is busy; try again")));
        }
        Ok(command::resync_paused(module, node, seconds))
    }

    fn answer(&mut self, command: Command, outcome: Result<(), String>) {
        let module = &self.mirror.module;
        let at = self.waiting.iter().position(|(waiting, _)| *waiting == command);
        if let Some((_, reply)) = at.map(|at| self.waiting.remove(at)) {
            let answer = match outcome {
                Ok(()) => {
                    let state = self.mirror.core.status().state;
                    Ok(command::done(&module.name, &module.node, command, state))
                }
                Err(why) => Err(Refusal::State(why)),
            };
            // Who asked has gone.
            let _gone = reply.send(answer);
        } else if let Err(why) = outcome {
            tracing::info!(module = module.name, command = command::name(command), why, "a command failed");
        }
    }

    /// Another core can take over.
    pub(super) fn at_rest(&self) -> bool {
        !self.stuck && self.waiting.is_empty() && self.mirror.core.at_rest()
    }

    /// Stopped, and nothing of it runs.
    pub(super) fn stopped(&self) -> bool {
        let status = self.mirror.core.status();
        self.stuck || (status.state == State::Stop && status.phase != safe_failover::action::Phase::Transient)
    }

    pub(super) fn status(&self, membership: Option<&Membership>) -> ModuleStatus {
        let mut core = self.mirror.core.status();
        if self.stuck {
            "the disk that holds safed's state hangs".clone_into(&mut core.reason);
            core.phase = safe_failover::action::Phase::Blocked;
        }
        status::of_mirror(&self.mirror.module, &core, &self.mirror.hard, &self.observed, membership)
    }

    /// Ends its workers but not the replicator, which serves on; the token is cancelled when they have ended.
    pub(super) fn detach(self) -> CancellationToken {
        self.mirror.replica.ended()
    }

    /// Ends its workers; the token is cancelled when the replicator has ended too.
    pub(super) fn end(self) -> CancellationToken {
        let ended = self.mirror.replica.ended();
        self.mirror.replica.offer(replica::Order::Command(safe_failover::action::ReplicatorCommand::Stop));
        ended
    }
}
