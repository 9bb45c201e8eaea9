//! Two nodes against chance: faults by seed, invariants after every event, and in the end a working pair.
//!
//! `SAFED_SEEDS=100000` runs more seeds, `SAFED_SEED=17` one of them with its whole trace.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "in a test a wrong assumption is a failed test"
)]

#[path = "left_out/missed.rs"]
mod missed;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use missed::{By, missed_by};
use safe_failover::Time;
use safe_failover::action::{Phase, State};
use safe_failover::config::{ArbiterKind, DefaultPrimary, Isolation, Side};
use safe_failover::event::{Command, ReplicatorEvent};
use safe_failover::left_out::LeftOut;
use safe_failover::lock::Lock;
use safe_failover::world::random::Random;
use safe_failover::world::{Chance, Happening, World};

const SEEDS: u64 = 20_000;
const MANY_SEEDS: u64 = 100_000;

#[test]
fn seeds() {
    if let Some(seed) = number("SAFED_SEED") {
        let mut run = Run::new(seed, true);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run.play()));
        run.world.trace.iter().for_each(|noted| println!("{noted}"));
        outcome.unwrap().unwrap();
        return;
    }
    run(number("SAFED_FIRST").unwrap_or(0), number("SAFED_SEEDS").unwrap_or(SEEDS));
}

#[test]
#[ignore = "longer proof: make proof"]
fn many_seeds() {
    run(SEEDS, MANY_SEEDS);
}

/// Each rule of which chance is the proof is missed.
#[test]
fn a_rule_that_is_left_out_is_missed() {
    // A panic is what an invariant of the core says; here it is wanted.
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut unnoticed = Vec::new();
    for rule in LeftOut::ALL {
        let By::Seed(hint) = missed_by(rule) else { continue };
        match noticed(rule, hint) {
            Some((seed, why)) => println!("{rule:?}: seed {seed}: {}", why.lines().next().unwrap_or("")),
            None => unnoticed.push(rule),
        }
    }
    std::panic::set_hook(quiet);
    assert!(unnoticed.is_empty(), "nobody missed {unnoticed:?}");
}

/// A seed that fails without the rule, and how; the hint is tried first.
fn noticed(rule: LeftOut, hint: u64) -> Option<(u64, String)> {
    std::iter::once(hint).chain(0..number("SAFED_SEEDS").unwrap_or(SEEDS)).find_map(|seed| {
        let outcome = std::panic::catch_unwind(|| {
            let mut run = Run::new(seed, false);
            for host in &mut run.world.hosts {
                host.config.left_out = Some(rule);
            }
            run.play()
        });
        match outcome {
            Ok(Ok(())) => None,
            Ok(Err(why)) => Some((seed, why)),
            Err(_) => Some((seed, "an invariant of the core".to_owned())),
        }
    })
}

fn run(first: u64, seeds: u64) {
    let next = AtomicU64::new(first);
    let end = next.load(Ordering::Relaxed) + seeds;
    let failures = Mutex::new(Vec::new());
    let tally = Mutex::new([0_u64; 3]);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || failures.lock().unwrap().len() >= 5 {
                        return;
                    }
                    let outcome = std::panic::catch_unwind(|| {
                        let mut run = Run::new(seed, false);
                        run.play()
                            .map(|()| (run.faults, u64::from(run.person), u64::from(run.world.oracle.count)))
                    });
                    match outcome {
                        Ok(Ok((faults, person, writes))) => {
                            let mut tally = tally.lock().unwrap();
                            tally[0] += faults;
                            tally[1] += person;
                            tally[2] += writes;
                        }
                        Ok(Err(why)) => failures.lock().unwrap().push((seed, why)),
                        Err(_) => failures.lock().unwrap().push((seed, "panicked".to_owned())),
                    }
                }
            });
        }
    });
    let [faults, persons, writes] = *tally.lock().unwrap();
    println!(
        "{seeds} seeds, {faults} faults, {writes} writes acknowledged, {persons} ended by what a person typed"
    );
    let failures = failures.into_inner().unwrap();
    for (seed, why) in &failures {
        println!("seed {seed}: {}", &why[..why.len().min(600)]);
        println!("  SAFED_SEED={seed} cargo nextest run -p safe-failover --no-capture seeds");
    }
    assert!(failures.is_empty(), "{} seeds failed", failures.len());
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [3, 14, 159, 2653] {
        let mut traces = (0..2).map(|_| {
            let mut run = Run::new(seed, true);
            let outcome = run.play();
            (run.world.trace, outcome)
        });
        assert_eq!(traces.next(), traces.next());
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// What chance does to the world.
#[derive(Debug, Clone, Copy)]
enum Act {
    Crash(usize),
    PowerOff(usize),
    Boot(usize),
    Freeze(usize, bool),
    Wake(usize),
    KillAgent(usize),
    StartAgent(usize),
    KillReplicator(usize),
    Cut {
        all: bool,
        one_way: bool,
        host: usize,
    },
    Heal,
    BreakStream,
    CutStream,
    HealStream,
    ArbiterLost(usize),
    ArbiterBack(usize),
    Plug(usize, bool),
    PersistFails(usize, bool),
    ScriptsHang(usize, bool),
    MountFails(usize, bool),
    DiskFull(usize, bool),
    DiskFails(usize),
    Force(usize),
    Swap,
    Command(usize, Command),
    /// Another version of the module is put in force on this host: another core takes over, with this timeout.
    Timeout(usize, Duration),
    /// The same, with this lock arbiter.
    Lock(usize, u64),
}

/// One seed.
struct Run {
    world: World,
    random: Random,
    faults: u64,
    /// A person had to type something in the end.
    person: bool,
    /// A copy became inconsistent: a person may be needed.
    inconsistent: bool,
    cut: bool,
    /// Every lan may be cut: where no lock arbiter is, that excuses much.
    may_cut: bool,
    may_fail_disk: bool,
    /// A person forces things now and then.
    forces: bool,
    /// A person changes the timeout now and then, of both nodes one after the other.
    changes: bool,
    /// A person exchanges the lock arbiter now and then, on one of the nodes.
    exchanged: bool,
    exchanges: Random,
    repairs: Vec<(Time, Act)>,
}

impl Run {
    fn new(seed: u64, verbose: bool) -> Self {
        let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0xabcd);
        let lans = if random.percent(70) { 1 } else { 2 };
        let arbiter = match random.below(20) {
            0..=8 => ArbiterKind::Lock,
            9 => ArbiterKind::Reachability,
            _ => ArbiterKind::None,
        };
        let waits = random.percent(5);
        let forces = random.percent(6);
        let rough = random.percent(40);
        let chance = Chance {
            local: Duration::from_millis(if rough { 60 } else { 5 }),
            packet: Duration::from_millis(if rough { 80 } else { 3 }),
            loss: if rough { 5 } else { 0 },
            twice: if rough { 10 } else { 0 },
            late: if rough || random.percent(20) { 3 } else { 0 },
            mid_batch: if random.percent(30) { 15 } else { 0 },
            none: false,
        };
        let preferred = random.below(20);
        let stale = random.percent(5);
        let mut world = World::new(random.draw(), lans, chance, |config| {
            config.arbiter = arbiter;
            config.start_wait = Duration::from_secs(6);
            config.agent_timeout = Duration::from_secs(5);
            config.max_loop = 1000;
            config.stop_timeout = Duration::from_secs(8);
            if waits {
                config.isolation = Isolation::Wait;
            }
            match preferred {
                0 | 1 => config.default_primary = DefaultPrimary::Node(Side::Second),
                2 | 3 => config.default_primary = DefaultPrimary::Last,
                _ => {}
            }
            if stale {
                config.sync_delta = Duration::from_secs(20);
            }
        });
        world.verbose = verbose;
        world.records = verbose;
        world.write_every = Some(Duration::from_millis(400));
        let may_cut = arbiter == ArbiterKind::Lock || random.percent(20);
        let may_fail_disk = random.percent(15);
        let (faults, person, inconsistent, cut, repairs) = (0, false, false, false, Vec::new());
        let changes = Random(seed ^ 0x7e57).percent(12);
        let mut exchanges = Random(seed ^ 0x10c5);
        let exchanged = arbiter == ArbiterKind::Lock && exchanges.percent(25);
        Self {
            world,
            random,
            faults,
            person,
            inconsistent,
            cut,
            may_cut,
            may_fail_disk,
            forces,
            changes,
            exchanged,
            exchanges,
            repairs,
        }
    }

    fn play(&mut self) -> Result<(), String> {
        self.world.after(Duration::from_secs(1), Happening::Epoch);
        let mishaps = std::mem::take(&mut self.world.chance.mid_batch);
        self.world.boot(0, true);
        self.world.boot(1, true);
        if !self.world.run_until(Duration::from_secs(30), World::is_paired)? {
            return Err(format!("liveness: no pair at the beginning: {}", self.world.describe()));
        }
        self.world.chance.mid_batch = mishaps;
        for _ in 0..5 + self.random.below(6) {
            if self.changes {
                self.change_timeout();
            }
            if self.exchanges.percent(if self.exchanged { 40 } else { 0 }) {
                // Who is not told catches up when it hears of it; another one may be installed there before.
                let (host, lock) = (self.exchanges.below(2) as usize, 1 + self.exchanges.below(3));
                self.act(Act::Lock(host, lock));
            }
            self.fault();
            let pause = if self.random.percent(50) {
                Duration::from_millis(self.random.below(300))
            } else {
                self.lasts()
            };
            self.pass(pause)?;
        }
        if self.random.percent(50) {
            let rest = self.lasts();
            self.pass(rest)?;
        }
        self.world.chance.mid_batch = 0;
        self.heal();
        self.end()
    }

    /// Heals everything, then a pair must form, if need be by what `status` says to type.
    fn end(&mut self) -> Result<(), String> {
        for _ in 0..8 {
            // Who fell out of step several times is met again after a minute at most.
            if self.world.run_until(Duration::from_secs(100), World::is_paired)? {
                self.world.run(Duration::from_secs(4))?;
                if !self.world.run_until(Duration::from_secs(20), World::is_paired)? {
                    return Err(format!("liveness: the pair did not last: {}", self.world.describe()));
                }
                let [a, b] = &self.world.hosts;
                let lost = self.world.oracle.acked & !(a.disk.data & b.disk.data);
                if lost != 0 {
                    return Err(format!("I3: lost in the end: {lost:b}"));
                }
                let waits = self.world.hosts[0].config.isolation == Isolation::Wait && !self.world.lock();
                return if self.random.percent(40) && !waits { self.survive() } else { Ok(()) };
            }
            if !self.obey()? {
                return Err(format!("liveness: {}", self.world.describe()));
            }
        }
        Err(format!("liveness, in spite of what was typed: {}", self.world.describe()))
    }

    /// A pair that is whole survives the loss of either node; the one left serves again after it crashed, alone.
    fn survive(&mut self) -> Result<(), String> {
        let lost = usize::from(self.random.percent(50));
        let left = 1 - lost;
        self.world.chance.loss = 0;
        self.world.chance.late = 0;
        if self.random.percent(50) {
            self.world.crash(lost);
        } else {
            self.world.power_off(lost);
        }
        let alone = |world: &World| {
            let agent = world.hosts[left].agent.as_ref();
            agent.is_some_and(|agent| {
                agent.core.status().state == State::Alone && world.hosts[left].application
            })
        };
        if !self.world.run_until(Duration::from_secs(8), alone)? {
            return Err(format!("availability: the other node of a pair is lost: {}", self.world.describe()));
        }
        let longer = self.lasts();
        self.world.run(longer)?;
        self.world.crash(left);
        self.world.boot(left, true);
        if !self.world.run_until(Duration::from_secs(10), alone)? {
            return Err(format!(
                "availability: who served alone does not start again: {}",
                self.world.describe()
            ));
        }
        self.world.boot(lost, true);
        if !self.world.run_until(Duration::from_secs(40), World::is_paired)? {
            return Err(format!("liveness: no pair after a loss: {}", self.world.describe()));
        }
        Ok(())
    }

    /// Types what a status says; only where DESIGN wants a person.
    fn obey(&mut self) -> Result<bool, String> {
        let hint = (0..2).find_map(|host| {
            let status = self.world.hosts[host].agent.as_ref()?.core.status();
            let waits = status.phase == Phase::Blocked || status.state == State::Stop;
            status.hint.filter(|_| waits).map(|hint| (hint, status.reason))
        });
        let Some((hint, reason)) = hint else { return Ok(false) };
        // The last resort stands last, after what to do about disks and cables, which the simulation does itself.
        let last = hint.rsplit("; ").next().unwrap_or(&hint);
        let typed = last.find("safectl ").map_or("", |at| &last[at..]);
        let (stop, typed) = typed.split_once(" && ").map_or((None, typed), |(stop, then)| (Some(stop), then));
        let words: Vec<&str> = typed.split_whitespace().collect();
        let host = if words.contains(&"n2") { 1 } else { 0 };
        let force = words.contains(&"--force");
        let allowed = self.inconsistent || self.cut || self.world.oracle.forced || !force;
        if !allowed {
            return Err(format!(
                "liveness: a person is asked for no reason: {reason}: {hint}; {}",
                self.world.describe()
            ));
        }
        let command = match words.get(1) {
            Some(&"start") => Command::Start,
            Some(&"stopstart") => Command::StopStart,
            Some(&"prim") => Command::Prim { force },
            Some(&"second") => Command::Second { full: words.contains(&"--full"), force, discard: false },
            _ => return Err(format!("a hint nobody can type: {hint}")),
        };
        self.person |= force;
        if force {
            self.world.oracle.forced = true;
            self.world.oracle.excused = true;
        }
        if stop.is_some() {
            self.world.order(host, Command::Stop);
            self.world.run(Duration::from_secs(10))?;
        }
        self.world.order(host, command);
        Ok(true)
    }

    fn heal(&mut self) {
        let world = &mut self.world;
        world.stream_cut = false;
        for lan in &mut world.lans {
            lan.cut = [false, false];
        }
        world.witness.unreachable = [false, false];
        for host in 0..2 {
            let machine = &mut world.hosts[host];
            machine.persist_fails = false;
            machine.scripts_hang = false;
            machine.mount_fails = false;
            machine.refuses = false;
            machine.disk_full = false;
            world.thaw(host);
            world.plug(host, true);
            if world.hosts[host].up {
                world.start_agent(host, true);
                let stopped = world.hosts[host].disk.hard.desired == safe_failover::hard::Desired::Stopped;
                if stopped {
                    world.order(host, Command::Start);
                }
            } else {
                world.boot(host, true);
            }
        }
    }

    /// One fault, and when it is repaired.
    fn fault(&mut self) {
        self.faults += 1;
        let host = usize::from(self.random.percent(50));
        let lasts = self.lasts();
        let (act, undo): (Act, Option<Act>) = match self.random.below(30) {
            0..=2 => (Act::Crash(host), Some(Act::Boot(host))),
            3..=5 => (Act::PowerOff(host), Some(Act::Boot(host))),
            6..=9 => (Act::Freeze(host, self.random.percent(60)), Some(Act::Wake(host))),
            10..=12 => (Act::KillAgent(host), Some(Act::StartAgent(host))),
            13..=15 => {
                let (all, one_way) = (self.may_cut && self.random.percent(70), self.random.percent(25));
                (Act::Cut { all, one_way, host }, Some(Act::Heal))
            }
            16 => (Act::BreakStream, None),
            17 | 18 => (Act::CutStream, Some(Act::HealStream)),
            19 | 20 => (Act::Command(host, Command::Stop), Some(Act::Command(host, Command::Start))),
            21..=23 => (Act::Swap, None),
            24 if self.forces => (Act::Force(host), None),
            24 if self.random.percent(50) => (Act::Plug(host, false), Some(Act::Plug(host, true))),
            24 => (Act::Command(host, Command::StopStart), None),
            25 => (Act::KillReplicator(host), None),
            26 | 27 => (Act::ArbiterLost(host), Some(Act::ArbiterBack(host))),
            28 => match self.random.below(5) {
                0 => (Act::PersistFails(host, true), Some(Act::PersistFails(host, false))),
                1 => (Act::ScriptsHang(host, true), Some(Act::ScriptsHang(host, false))),
                2 => (Act::MountFails(host, true), Some(Act::MountFails(host, false))),
                _ => (Act::DiskFull(host, true), Some(Act::DiskFull(host, false))),
            },
            _ if self.may_fail_disk => (Act::DiskFails(host), None),
            _ => (Act::BreakStream, None),
        };
        self.act(act);
        if let Some(undo) = undo
            && self.random.percent(85)
        {
            self.repairs.push((self.world.now + lasts, undo));
        }
    }

    /// One node has the new version at once, the other one soon, late, or not at all.
    fn change_timeout(&mut self) {
        let timeout = Duration::from_millis([1000, 3000, 5000][self.random.below(3) as usize]);
        let first = usize::from(self.random.percent(50));
        self.act(Act::Timeout(first, timeout));
        if self.random.percent(80) {
            let later = if self.random.percent(50) { Duration::from_millis(40) } else { self.lasts() };
            self.repairs.push((self.world.now + later, Act::Timeout(1 - first, timeout)));
        }
    }

    /// Around the times after which others decide.
    fn lasts(&mut self) -> Duration {
        let millis = match self.random.below(6) {
            0 => self.random.below(100),
            1 => 400 + self.random.below(900),
            2 => 900 + self.random.below(1500),
            3 => 2400 + self.random.below(1000),
            4 => 3000 + self.random.below(3000),
            _ => self.random.below(15_000),
        };
        Duration::from_millis(millis)
    }

    /// Lets time pass, with the repairs that fall into it.
    fn pass(&mut self, duration: Duration) -> Result<(), String> {
        let end = self.world.now + duration;
        loop {
            let next = self
                .repairs
                .iter()
                .enumerate()
                .min_by_key(|(_, (at, _))| *at)
                .map(|(index, (at, _))| (index, *at));
            match next {
                Some((index, at)) if at <= end => {
                    self.world.run(at.since(self.world.now))?;
                    let (_, act) = self.repairs.remove(index);
                    self.act(act);
                }
                Some(_) | None => return self.world.run(end.since(self.world.now)),
            }
        }
    }

    fn act(&mut self, act: Act) {
        self.world.note(0, &format!("---- {act:?}"));
        let world = &mut self.world;
        match act {
            Act::Crash(host) => world.crash(host),
            Act::PowerOff(host) => world.power_off(host),
            Act::Boot(host) => world.boot(host, true),
            Act::Freeze(host, deaf) => world.freeze(host, deaf),
            Act::Wake(host) => world.thaw(host),
            Act::KillAgent(host) => world.kill_agent(host),
            Act::StartAgent(host) => world.start_agent(host, true),
            Act::KillReplicator(host) => world.kill_replicator(host),
            Act::Cut { all, one_way, host } => {
                let spared = if all { usize::MAX } else { usize::from(self.random.percent(50)) };
                let lans = world.lans.len();
                for (index, lan) in world.lans.iter_mut().enumerate() {
                    if all || (lans > 1 && index != spared) {
                        lan.cut = [!one_way || host == 0, !one_way || host == 1];
                    }
                }
                self.cut |= self.world.all_cut();
            }
            Act::Heal => world.lans.iter_mut().for_each(|lan| lan.cut = [false, false]),
            Act::BreakStream => world.break_stream(),
            Act::CutStream => world.stream_cut = true,
            Act::HealStream => world.stream_cut = false,
            Act::ArbiterLost(host) => world.witness.unreachable[host] = true,
            Act::ArbiterBack(host) => world.witness.unreachable[host] = false,
            Act::Plug(host, plugged) => world.plug(host, plugged),
            Act::PersistFails(host, fails) => world.hosts[host].persist_fails = fails,
            Act::ScriptsHang(host, hang) => world.hosts[host].scripts_hang = hang,
            Act::MountFails(host, fails) => world.hosts[host].mount_fails = fails,
            Act::DiskFull(host, full) => world.hosts[host].disk_full = full,
            Act::DiskFails(host) => {
                if world.hosts[host].agent.is_some() {
                    self.inconsistent = true;
                    world.forget_what_the_disk_took(host);
                    world.report(host, ReplicatorEvent::DiskFailed("fsync: I/O error".to_owned()));
                }
            }
            Act::Force(host) => {
                world.oracle.forced = true;
                world.oracle.excused = true;
                let command = if self.random.percent(60) {
                    Command::Prim { force: true }
                } else {
                    Command::Second { full: false, force: true, discard: false }
                };
                self.command(host, command);
            }
            Act::Swap => {
                self.command(0, Command::Swap);
                self.command(1, Command::Swap);
            }
            Act::Command(host, command) => self.command(host, command),
            Act::Lock(host, lock) => world.install(host, Lock(format!("w{lock}"))),
            Act::Timeout(host, timeout) => {
                world.hosts[host].config.timeout = timeout;
                if world.hosts[host].agent.is_some() {
                    world.kill_agent(host);
                    world.start_agent(host, true);
                }
            }
        }
    }

    fn command(&mut self, host: usize, command: Command) {
        if self.world.hosts[host].alive() && self.world.hosts[host].agent.is_some() {
            self.world.order(host, command);
        }
    }
}
