//! The agent's shell: carries out actions in order, gives results back as events.

use std::time::Duration;

use crate::action::{ReplicatorCommand, Script, ScriptRun};
use crate::event::{Adopted, Command, ReplicatorEvent};
use crate::left_out::LeftOut;
use crate::{Action, Event, Failover, Time};

use super::arbiter::Request;
use super::host::Agent;
use super::{Happening, Noted, World};

impl World {
    pub fn start_agent(&mut self, host: usize, start: bool) {
        if !self.hosts[host].alive() || self.hosts[host].agent.is_some() {
            return;
        }
        let mut config = self.hosts[host].config.clone();
        config.entropy = self.random.bits();
        config.boot_id = u128::from(self.hosts[host].boot) + 1;
        let machine = &mut self.hosts[host];
        machine.agent_life += 1;
        machine.agent_gone = None;
        machine.seen = (0, 0);
        machine.peer_sent = None;
        machine.report_at = Time::default();
        if config.lacks(LeftOut::TimeoutsAreAgreed)
            && let Some(replicator) = &mut machine.replicator
        {
            replicator.limit = config.timeout;
        }
        let adopted =
            machine.replicator.as_ref().and_then(|replicator| Some((replicator, replicator.copy?))).map(
                |(replicator, copy)| Adopted {
                    mounted: replicator.mounted,
                    session: replicator.stream.as_ref().map(|stream| (stream.id, stream.role)),
                    in_step: replicator.in_step,
                    settled: replicator.settled,
                    fenced: replicator.fenced,
                    copy,
                    knows_inflight: replicator.knows,
                    contact: Some(replicator.contact()),
                    limit: Some(replicator.limit),
                },
            );
        let core = Failover::new(config, machine.disk.hard.clone());
        machine.agent = Some(Agent {
            core,
            told: None,
            batch: [].into(),
            writing: false,
            dropping: false,
            stand_in: None,
            tick: None,
            script: None,
        });
        let life = machine.agent_life;
        self.note(host, "agent starts");
        self.handle(host, Event::Started { start, adopted });
        if self.hosts[host].unplugged {
            self.handle(host, Event::Carrier(false));
        }
        self.after(Duration::from_millis(1), Happening::Heartbeat { host, life });
    }

    pub fn order(&mut self, host: usize, command: Command) {
        self.note(host, &format!("command {command:?}"));
        self.hosts[host].answer = None;
        self.handle(host, Event::Command(command));
    }

    /// One event, and what follows from it.
    pub fn handle(&mut self, host: usize, event: Event) {
        if !self.hosts[host].alive() {
            return;
        }
        let now = self.now;
        let wall = (now.0 / 1_000_000_000 + 1_700_000_000).saturating_sub(self.hosts[host].clock_back);
        if self.verbose {
            self.note_event(host, &event);
        }
        let Some(agent) = &mut self.hosts[host].agent else { return };
        agent.core.wall_clock(wall);
        if event == Event::PersistFailed {
            agent.dropping = false;
        }
        let actions = agent.core.handle(event, now);
        if !agent.dropping {
            agent.batch.extend(actions);
            agent.stand_in = Some(agent.core.stand_in());
        }
        self.schedule_tick(host);
        self.continue_batch(host);
    }

    fn schedule_tick(&mut self, host: usize) {
        let life = self.hosts[host].agent_life;
        let Some(agent) = &mut self.hosts[host].agent else { return };
        let Some(due) = agent.core.poll_timeout() else { return };
        let at = due.max(self.now);
        if agent.tick.is_none_or(|tick| at < tick || tick <= self.now) {
            agent.tick = Some(at);
            self.at(at, Happening::Tick { host, life });
        }
    }

    pub fn tick(&mut self, host: usize, life: u64) {
        if self.hosts[host].agent_life != life {
            return;
        }
        let now = self.now;
        let Some(agent) = &mut self.hosts[host].agent else { return };
        if agent.tick.is_some_and(|tick| tick <= now) {
            agent.tick = None;
        }
        if agent.core.poll_timeout().is_some_and(|due| due <= now) {
            self.handle(host, Event::Tick);
        } else {
            self.schedule_tick(host);
        }
    }

    pub fn continue_batch(&mut self, host: usize) {
        while self.hosts[host].alive() {
            if self.chance.mid_batch > 0 && self.random.below(10_000) < self.chance.mid_batch {
                self.mishap(host);
                continue;
            }
            let Some(agent) = &mut self.hosts[host].agent else { return };
            if agent.writing {
                return;
            }
            let Some(action) = agent.batch.pop_front() else {
                let views = agent.stand_in.take();
                if let (Some(views), Some(replicator)) = (views, &mut self.hosts[host].replicator) {
                    replicator.stand_in = Some(views);
                }
                return;
            };
            self.execute(host, action);
        }
    }

    /// Hard state is on disk: what follows it goes on.
    pub fn written(&mut self, host: usize, life: u64, hard: crate::HardState) {
        if self.hosts[host].agent_life != life {
            return;
        }
        let serial = hard.serial;
        self.deeds += 1;
        self.hosts[host].disk.hard = hard;
        if let Some(agent) = &mut self.hosts[host].agent {
            agent.writing = false;
        }
        let event = Event::Persisted { serial };
        self.after(Duration::from_micros(10), Happening::ToAgent { host, life, event });
        self.continue_batch(host);
    }

    /// A host dies or freezes between two actions.
    fn mishap(&mut self, host: usize) {
        match self.random.below(4) {
            0 => self.crash(host),
            1 => self.power_off(host),
            2 => self.kill_agent(host),
            _ => {
                let deaf = self.random.percent(50);
                self.freeze(host, deaf);
            }
        }
        let longest = [200, 1500, 4000][usize::try_from(self.random.below(3)).unwrap_or(0)];
        let back = self.upto(Duration::from_millis(longest));
        self.after(back, Happening::Return { host });
    }

    fn note_event(&mut self, host: usize, event: &Event) {
        let often = matches!(event, Event::Heard | Event::Tick | Event::Echoed(_) | Event::Persisted { .. });
        if let Event::Peer(view) = event {
            let entered = view.entered.map(|entered| entered.plan);
            let text = format!("<- {:?} meetable {} entered {entered:?}", view.mode, view.meetable);
            self.note(host, &text);
        } else if !often {
            self.note(host, &format!("<- {event:?}"));
        }
    }

    fn note_action(&mut self, host: usize, action: &Action) {
        if let Action::Record(record) = action {
            if self.records {
                let node = Some(self.hosts[host].config.node.clone());
                let (alarm, text) = (record.alarm, record.text.clone());
                self.trace.push(Noted { at: self.now, node, alarm, text });
            }
        } else if self.verbose && !matches!(action, Action::Tell(_) | Action::Persist(_)) {
            self.note(host, &format!("-> {action:?}"));
        }
    }

    fn execute(&mut self, host: usize, action: Action) {
        let idle =
            matches!(action, Action::Record(_) | Action::Answer(..) | Action::Script(_) | Action::Persist(_));
        self.deeds += u64::from(!idle);
        let life = self.hosts[host].agent_life;
        self.note_action(host, &action);
        match action {
            Action::Persist(hard) => {
                let fails = self.hosts[host].persist_fails;
                if let Some(agent) = &mut self.hosts[host].agent {
                    if fails {
                        agent.batch.clear();
                        agent.dropping = true;
                    } else {
                        agent.writing = true;
                    }
                }
                if fails {
                    self.give(host, Event::PersistFailed);
                    return;
                }
                let delay = self.local() / 2;
                self.after(delay, Happening::Written { host, life, hard });
            }
            Action::Tell(view) => {
                self.check_told(host, &view);
                if let Some(agent) = &mut self.hosts[host].agent {
                    agent.told = Some(*view);
                }
                self.send_view(host);
            }
            Action::Replicator(command) => self.command_replicator(host, command),
            Action::RaiseAddresses => {
                self.hosts[host].addresses = true;
                self.give(host, Event::AddressesRaised(Ok(())));
            }
            Action::DropAddresses => {
                self.hosts[host].addresses = false;
                self.give(host, Event::AddressesDropped);
            }
            Action::Script(run) => self.start_script(host, run),
            Action::KillProcesses => {
                self.hosts[host].application = false;
                self.give(host, Event::ProcessesGone);
            }
            Action::ArbiterRead(lock) => self.ask(host, Request::Read(lock)),
            Action::ArbiterSwap { lock, expect, new } => {
                self.ask(host, Request::Swap { lock, expect, new });
            }
            Action::AskReachable => self.ask(host, Request::Reachable),
            Action::Record(_) => {}
            Action::Answer(_, outcome) => {
                let text = match outcome {
                    Ok(()) => "ok".to_owned(),
                    Err(why) => why,
                };
                self.hosts[host].answer = Some(text);
            }
        }
    }

    /// A result of local work.
    fn give(&mut self, host: usize, event: Event) {
        let life = self.hosts[host].agent_life;
        let delay = self.local();
        self.after(delay, Happening::ToAgent { host, life, event });
    }

    fn command_replicator(&mut self, host: usize, command: ReplicatorCommand) {
        if command == ReplicatorCommand::Mount {
            self.check_mount(host);
        }
        if let ReplicatorCommand::Start { .. } = command {
            if self.hosts[host].replicator.is_none() {
                self.begin_replicator(host);
            }
        } else if command == ReplicatorCommand::Kill {
            self.end_replicator(host, false);
            self.report(host, ReplicatorEvent::Died);
            return;
        } else if command == ReplicatorCommand::Uncover {
            // Done by the agent; here nothing is covered.
            self.report(host, ReplicatorEvent::Uncovered(Ok(())));
            return;
        }
        let life = self.hosts[host].replicator_life;
        let agent = self.hosts[host].agent_life;
        let delay = self.local();
        // Commands are carried out in order.
        let at = (self.now + delay).max(self.hosts[host].command_at);
        self.hosts[host].command_at = at;
        self.at(at, Happening::ToReplicator { host, life, agent, command });
    }

    /// A report of the replicator; in order, lost if the agent is gone.
    pub fn report(&mut self, host: usize, event: ReplicatorEvent) {
        let life = self.hosts[host].agent_life;
        if self.hosts[host].agent.is_none() {
            return;
        }
        let delay = self.local();
        let at = (self.now + delay).max(self.hosts[host].report_at);
        self.hosts[host].report_at = at;
        self.at(at, Happening::FromReplicator { host, life, event });
    }

    fn start_script(&mut self, host: usize, run: ScriptRun) {
        match run.script {
            Script::StartPrim => {
                self.hosts[host].application = true;
                if let Some(every) = self.write_every {
                    self.after(every, Happening::Write { host });
                }
            }
            Script::StopPrim => {
                if !self.hosts[host].scripts_hang {
                    self.hosts[host].application = false;
                }
            }
            Script::Prestart
            | Script::StartBoth
            | Script::StopBoth
            | Script::StartSecond
            | Script::StopSecond
            | Script::StartSec
            | Script::StopSec
            | Script::Transition
            | Script::Poststop => {}
        }
        let outcome = if self.hosts[host].scripts_hang && !run.force && run.script == Script::StopPrim {
            Err("deadline exceeded".to_owned())
        } else {
            Ok(())
        };
        let delay = if outcome.is_err() { run.deadline } else { self.local() };
        let life = self.hosts[host].agent_life;
        self.after(
            delay,
            Happening::ToAgent { host, life, event: Event::ScriptEnded { run: run.run, outcome } },
        );
    }
}
