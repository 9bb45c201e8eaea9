//! Two hosts in a box with virtual time: a network of lans, replicators with abstract data, scripts, an arbiter.
//!
//! Everything that happens is one entry of a queue ordered by time; chance comes from one seed. The same world serves
//! stories, the simulation, and the search through all states.
#![allow(missing_docs, reason = "a model for proofs: its parts are named for what they stand for")]

pub mod arbiter;
pub mod checks;
pub mod host;
pub mod network;
mod pair;
pub mod random;
pub mod replicator;
pub mod shell;
pub mod version;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::action::ReplicatorCommand;
use crate::config::Side;
use crate::event::{ArbiterEvent, ReplicatorEvent};
use crate::lock::Lock;
use crate::{Config, Event, Time};

use arbiter::{Request, Witness};
use checks::Oracle;
use host::Host;
use network::{Lan, Packet, StreamMessage};
use random::Random;

/// One thing that will happen.
#[derive(Debug, Clone, Hash)]
pub enum Happening {
    ToAgent {
        host: usize,
        life: u64,
        event: Event,
    },
    ToReplicator {
        host: usize,
        life: u64,
        agent: u64,
        command: ReplicatorCommand,
    },
    FromReplicator {
        host: usize,
        life: u64,
        event: ReplicatorEvent,
    },
    Written {
        host: usize,
        life: u64,
        hard: Box<crate::HardState>,
    },
    Tick {
        host: usize,
        life: u64,
    },
    Heartbeat {
        host: usize,
        life: u64,
    },
    StandIn {
        host: usize,
        life: u64,
    },
    Packet {
        to: usize,
        packet: Box<Packet>,
    },
    Stream {
        to: usize,
        message: StreamMessage,
    },
    Pump,
    Copy {
        source: usize,
        life: u64,
        session: crate::view::SessionId,
        last: bool,
    },
    UnmountDeadline {
        host: usize,
        life: u64,
    },
    Arbiter {
        host: usize,
        life: u64,
        request: Request,
    },
    ArbiterAnswer {
        host: usize,
        life: u64,
        lock: Lock,
        answer: ArbiterEvent,
    },
    Write {
        host: usize,
    },
    /// A host that is behind gets the version of the other one.
    CatchUp {
        host: usize,
    },
    Epoch,
    /// A host comes back from a mishap.
    Return {
        host: usize,
    },
    /// A fault ends that an explorer began.
    Repair(u8),
}

/// How much chance there is.
#[derive(Debug, Clone)]
pub struct Chance {
    /// Longest delay of local work and of a packet.
    pub local: Duration,
    pub packet: Duration,
    /// Percent of packets lost, and of those sent twice.
    pub loss: u64,
    pub twice: u64,
    /// Percent of packets that are very late.
    pub late: u64,
    /// In ten thousand: a host dies or freezes between two actions of a batch.
    pub mid_batch: u64,
    /// None at all: every delay is the longest, what power took is all that it could take, and writes that are safe
    /// everywhere are used again, so that a world comes back to where it was.
    pub none: bool,
}

impl Chance {
    /// Constant delays, nothing lost.
    pub const fn without(delay: Duration) -> Self {
        Self { local: delay, packet: delay, loss: 0, twice: 0, late: 0, mid_batch: 0, none: true }
    }
}

/// Something to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    pub at: Time,
    /// Whose decision; none: a detail, told as it is.
    pub node: Option<String>,
    /// Needs a person's attention.
    pub alarm: bool,
    pub text: String,
}

impl std::fmt::Display for Noted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.node {
            Some(node) => write!(f, "  {node}: {}{}", if self.alarm { "! " } else { "" }, self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// Two hosts and everything between them.
#[derive(Clone)]
pub struct World {
    pub now: Time,
    pub hosts: [Host; 2],
    pub lans: Vec<Lan>,
    pub random: Random,
    pub chance: Chance,
    pub witness: Witness,
    pub oracle: Oracle,
    pub trace: Vec<Noted>,
    pub verbose: bool,
    /// Records of decisions go into the trace.
    pub records: bool,
    /// The application writes by itself, this often.
    pub write_every: Option<Duration>,
    /// The stream is broken although lans work.
    pub stream_cut: bool,
    queue: BTreeMap<(u64, u64), Happening>,
    sequence: u64,
    /// What is delivered to a frozen host when it wakes.
    asleep: Vec<Happening>,
    /// Happenings at the present instant: too many, and something turns in circles.
    circles: u32,
    /// Raised with everything that is done, as opposed to time that passes.
    pub deeds: u64,
    /// Faults whose time is over, for who explores.
    pub repaired: Vec<u8>,
}

impl World {
    pub fn new(seed: u64, lans: usize, chance: Chance, edit: impl Fn(&mut Config)) -> Self {
        let host = |side| {
            let mut config = host::config(side);
            edit(&mut config);
            Host::new(config)
        };
        let mut world = Self {
            now: Time(if chance.none { 1_000_000_000_000 } else { 1_000_000_000 }),
            hosts: [host(Side::First), host(Side::Second)],
            lans: (0..lans).map(|_| Lan::default()).collect(),
            random: Random(seed),
            chance,
            witness: Witness::default(),
            oracle: Oracle::default(),
            trace: Vec::new(),
            verbose: false,
            records: false,
            write_every: None,
            stream_cut: false,
            queue: BTreeMap::new(),
            sequence: 0,
            asleep: Vec::new(),
            circles: 0,
            deeds: 0,
            repaired: Vec::new(),
        };
        world.after(Duration::from_millis(50), Happening::Pump);
        world
    }

    pub fn after(&mut self, delay: Duration, what: Happening) {
        let at = self.now + delay;
        self.at(at, what);
    }

    pub fn at(&mut self, at: Time, what: Happening) {
        self.sequence += 1;
        self.queue.insert((at.0.max(self.now.0), self.sequence), what);
    }

    /// A delay of local work.
    pub fn local(&mut self) -> Duration {
        self.upto(self.chance.local)
    }

    pub fn upto(&mut self, longest: Duration) -> Duration {
        if self.chance.none {
            return longest;
        }
        let micros = u64::try_from(longest.as_micros()).unwrap_or(1);
        Duration::from_micros(1 + self.random.below(micros))
    }

    pub fn note(&mut self, host: usize, text: &str) {
        if self.verbose {
            let name = &self.hosts[host].config.node;
            let at = self.now.0 as f64 / 1e9 - 1.0;
            let text = format!("{at:9.4} {name} {text}");
            self.tell(text);
        }
    }

    /// Something to read that is no decision.
    pub fn tell(&mut self, text: String) {
        self.trace.push(Noted { at: self.now, node: None, alarm: false, text });
    }

    /// Lets time pass; stops at a broken invariant.
    pub fn run(&mut self, duration: Duration) -> Result<(), String> {
        let end = self.now + duration;
        while self.step(end)? {}
        self.now = end;
        self.check()
    }

    /// Runs until the condition holds; false if it does not within the limit.
    pub fn run_until(&mut self, limit: Duration, met: impl Fn(&Self) -> bool) -> Result<bool, String> {
        let end = self.now + limit;
        while !met(self) {
            if !self.step(end)? {
                self.now = end;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The next happening, if there is one before the end.
    pub fn step(&mut self, end: Time) -> Result<bool, String> {
        const TOO_MANY: u32 = 5000;
        let Some((&(at, sequence), _)) = self.queue.first_key_value() else { return Ok(false) };
        if at > end.0 {
            return Ok(false);
        }
        let Some(what) = self.queue.remove(&(at, sequence)) else { return Ok(false) };
        self.circles = if at == self.now.0 { self.circles + 1 } else { 0 };
        if self.circles > TOO_MANY {
            return Err(format!("turns in circles: {what:?}"));
        }
        self.now = Time(at);
        self.happen(what);
        self.check()?;
        Ok(true)
    }

    /// What happens next, if it is a packet that would say something new.
    pub fn next_packet(&self) -> Option<&Packet> {
        match self.queue.first_key_value() {
            Some((_, Happening::Packet { to, packet })) => {
                let serial = packet.view.as_ref().map_or(0, |view| view.serial);
                let new = packet.stand_in || (packet.life, serial) > self.hosts[*to].seen;
                new.then_some(packet)
            }
            Some(_) | None => None,
        }
    }

    /// What happens next is that the arbiter's record is swapped.
    pub fn next_swap(&self) -> bool {
        let next = self.queue.first_key_value();
        next.is_some_and(|(_, what)| matches!(what, Happening::Arbiter { request: Request::Swap { .. }, .. }))
    }

    /// Faults that have not ended.
    pub fn pending_repairs(&self) -> usize {
        self.queue.values().filter(|what| matches!(what, Happening::Repair(_))).count()
    }

    /// Takes away what would happen next.
    pub fn take_next(&mut self) -> Option<Happening> {
        self.queue.pop_first().map(|(_, what)| what)
    }

    /// Everything that decides what can happen, but for names, and for when now is.
    pub fn fingerprint(&self, state: &mut impl std::hash::Hasher) {
        use std::hash::Hash;
        self.hosts.hash(state);
        self.lans.hash(state);
        self.witness.hash(state);
        self.oracle.hash(state);
        (self.stream_cut, self.write_every, &self.asleep).hash(state);
        for ((at, _), what) in &self.queue {
            (Time(*at), what).hash(state);
        }
    }

    /// The host that must be awake for this to happen.
    fn place(what: &Happening) -> Option<usize> {
        match what {
            Happening::ToAgent { host, .. }
            | Happening::ToReplicator { host, .. }
            | Happening::FromReplicator { host, .. }
            | Happening::Tick { host, .. }
            | Happening::Written { host, .. }
            | Happening::Heartbeat { host, .. }
            | Happening::StandIn { host, .. }
            | Happening::UnmountDeadline { host, .. }
            | Happening::ArbiterAnswer { host, .. }
            | Happening::Write { host }
            | Happening::CatchUp { host }
            | Happening::Packet { to: host, .. }
            | Happening::Stream { to: host, .. }
            | Happening::Copy { source: host, .. } => Some(*host),
            Happening::Pump
            | Happening::Arbiter { .. }
            | Happening::Epoch
            | Happening::Return { .. }
            | Happening::Repair(_) => None,
        }
    }

    pub fn happen(&mut self, what: Happening) {
        if let Some(host) = Self::place(&what)
            && self.hosts[host].frozen
        {
            let outside = matches!(what, Happening::Packet { .. } | Happening::Stream { .. });
            if !(outside && self.hosts[host].deaf) {
                self.asleep.push(what);
            }
            return;
        }
        match what {
            Happening::ToAgent { host, life, event } => {
                if self.hosts[host].agent_life == life {
                    self.handle(host, event);
                }
            }
            Happening::ToReplicator { host, life, agent, command } => {
                // What an agent said last is obeyed until the next one comes.
                let machine = &self.hosts[host];
                let spoken = machine.agent_life == agent || machine.agent.is_none();
                if machine.replicator_life == life && spoken {
                    self.command(host, command);
                }
            }
            Happening::FromReplicator { host, life, event } => {
                if self.hosts[host].agent_life == life {
                    self.handle(host, Event::Replicator(event));
                }
            }
            Happening::Tick { host, life } => self.tick(host, life),
            Happening::Written { host, life, hard } => self.written(host, life, *hard),
            Happening::Heartbeat { host, life } => self.heartbeat(host, life),
            Happening::StandIn { host, life } => self.stand_in(host, life),
            Happening::Packet { to, packet } => self.receive(to, *packet),
            Happening::Stream { to, message } => self.stream(to, message),
            Happening::Pump => self.pump(),
            Happening::Copy { source, life, session, last } => self.copy(source, life, session, last),
            Happening::UnmountDeadline { host, life } => self.unmount_deadline(host, life),
            Happening::Arbiter { host, life, request } => self.arbitrate(host, life, request),
            Happening::ArbiterAnswer { host, life, lock, answer } => {
                if self.hosts[host].agent_life == life {
                    self.handle(host, Event::Arbiter(lock, answer));
                }
            }
            Happening::Write { host } => self.application_writes(host),
            Happening::CatchUp { host } => self.catch_up(host),
            Happening::Epoch => self.close_epoch(),
            Happening::Repair(fault) => self.repaired.push(fault),
            Happening::Return { host } => {
                self.thaw(host);
                self.boot(host, true);
                self.start_agent_of_dead(host);
            }
        }
    }

    // Faults.

    /// The machine starts; its agent as well.
    pub fn boot(&mut self, host: usize, start: bool) {
        if self.hosts[host].up {
            return;
        }
        self.note(host, "boots");
        self.hosts[host].up = true;
        self.hosts[host].frozen = false;
        self.start_agent(host, start);
    }

    /// Everything on the host ends; what its page cache held stays.
    pub fn crash(&mut self, host: usize) {
        if !self.hosts[host].up {
            return;
        }
        self.note(host, "crashes");
        let machine = &mut self.hosts[host];
        machine.up = false;
        machine.frozen = false;
        machine.agent = None;
        machine.agent_gone = None;
        machine.agent_life += 1;
        if machine.replicator.take().is_some() {
            machine.disk.clean = false;
            machine.disk.lost = true;
            machine.disk.known = 0;
        }
        machine.replicator_life += 1;
        machine.addresses = false;
        machine.application = false;
        self.asleep.retain(|what| Self::place(what) != Some(host));
    }

    /// As `crash`, and the page cache is lost.
    pub fn power_off(&mut self, host: usize) {
        if !self.hosts[host].up {
            return;
        }
        self.crash(host);
        self.note(host, "lost its page cache");
        let kept = if self.chance.none { 0 } else { self.random.bits() };
        let machine = &mut self.hosts[host];
        machine.boot += 1;
        let disk = &mut machine.disk;
        disk.data = disk.synced | (disk.data & kept);
        // What was changed since the last epoch is recorded.
        disk.known |= disk.since;
        disk.rebooted = true;
        self.forget_what_power_took(host);
    }

    /// The cable of the address interface is pulled, or plugged in.
    pub fn plug(&mut self, host: usize, plugged: bool) {
        self.hosts[host].unplugged = !plugged;
        self.handle(host, Event::Carrier(plugged));
    }

    pub fn freeze(&mut self, host: usize, deaf: bool) {
        if self.hosts[host].alive() {
            self.note(host, if deaf { "freezes, deaf" } else { "freezes" });
            self.hosts[host].frozen = true;
            self.hosts[host].deaf = deaf;
        }
    }

    pub fn thaw(&mut self, host: usize) {
        if !self.hosts[host].frozen {
            return;
        }
        self.note(host, "wakes");
        self.hosts[host].frozen = false;
        self.hosts[host].woke = self.now;
        let mut mine = Vec::new();
        let mut rest = Vec::new();
        for what in std::mem::take(&mut self.asleep) {
            if Self::place(&what) == Some(host) { mine.push(what) } else { rest.push(what) }
        }
        self.asleep = rest;
        self.continue_batch(host);
        // What a pipe held comes in its order.
        let base = self.local();
        let mut order = Duration::ZERO;
        for what in mine {
            order += Duration::from_micros(1);
            let jitter = if matches!(what, Happening::Packet { .. }) { self.local() } else { Duration::ZERO };
            self.after(base + order + jitter, what);
        }
        let now = self.now;
        let ready = now + base + order;
        let machine = &mut self.hosts[host];
        machine.command_at = machine.command_at.max(ready);
        machine.report_at = machine.report_at.max(ready);
        if let Some(replicator) = &mut machine.replicator {
            replicator.overslept |= now.since(replicator.contact()) >= replicator.limit * 9 / 10;
        }
    }

    /// The agent dies; the replicator lives on.
    pub fn kill_agent(&mut self, host: usize) {
        if !self.hosts[host].alive() || self.hosts[host].agent.is_none() {
            return;
        }
        self.note(host, "agent dies");
        let machine = &mut self.hosts[host];
        machine.agent = None;
        machine.agent_life += 1;
        machine.agent_gone = Some(self.now);
        let life = machine.replicator_life;
        if machine.replicator.is_some() {
            self.after(Duration::from_millis(20), Happening::StandIn { host, life });
        } else {
            // Nobody is left to remove what is active; init restarts the agent at once.
            self.start_agent_of_dead(host);
        }
    }

    fn start_agent_of_dead(&mut self, host: usize) {
        let start = self.hosts[host].disk.hard.desired == crate::hard::Desired::Started;
        self.start_agent(host, start);
    }

    /// The replicator dies; its agent sees it.
    pub fn kill_replicator(&mut self, host: usize) {
        if !self.hosts[host].alive() || self.hosts[host].replicator.is_none() {
            return;
        }
        self.note(host, "replicator dies");
        self.end_replicator(host, false);
        if self.hosts[host].agent.is_some() {
            self.report(host, ReplicatorEvent::Died);
        } else {
            self.hosts[host].application = false;
            self.hosts[host].addresses = false;
            self.start_agent_of_dead(host);
        }
    }
}
