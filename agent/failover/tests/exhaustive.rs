//! Every fault at every step of every procedure: the world without chance, forked at each happening.
//!
//! `SAFED_DEPTH=2` lets a second fault follow the first within a second, at every `SAFED_STRIDE`th step (40).

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "in a test a wrong assumption is a failed test"
)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use safe_failover::config::ArbiterKind;
use safe_failover::event::Command;
use safe_failover::world::{Chance, Happening, World};

/// A procedure to be disturbed: the world just before it, and how long it is watched.
struct Story {
    name: &'static str,
    world: World,
    begin: fn(&mut World),
    watch: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    Crash(usize),
    PowerOff(usize),
    /// Both at once; this one is back first, for longer than it waits for the other.
    CrashBoth(usize),
    PowerOffBoth(usize),
    /// This one, then the other after it had time to go on; they come back in the same order.
    CrashInTurn(usize),
    Freeze(usize, Duration),
    KillAgent(usize),
    KillReplicator(usize),
    PersistFails(usize),
    BreakStream,
    CutStream,
    CutAll,
    /// What this one hears.
    CutOneWay(usize),
    ArbiterLost(usize),
}

const SHORT: Duration = Duration::from_millis(1200);
const LONG: Duration = Duration::from_millis(4200);

fn faults(lock: bool) -> Vec<Fault> {
    let mut faults = vec![Fault::BreakStream, Fault::CutStream];
    for host in 0..2 {
        faults.extend([
            Fault::Crash(host),
            Fault::PowerOff(host),
            Fault::CrashBoth(host),
            Fault::PowerOffBoth(host),
            Fault::CrashInTurn(host),
            Fault::Freeze(host, SHORT),
            Fault::Freeze(host, LONG),
            Fault::KillAgent(host),
            Fault::KillReplicator(host),
            Fault::PersistFails(host),
        ]);
        if lock {
            faults.extend([Fault::ArbiterLost(host), Fault::CutOneWay(host)]);
        }
    }
    // Without a lock arbiter a cut of every lan excuses too much to be worth its time.
    faults.extend(lock.then_some(Fault::CutAll));
    faults
}

fn inject(world: &mut World, fault: Fault) {
    match fault {
        Fault::Crash(host) | Fault::CrashInTurn(host) => world.crash(host),
        Fault::CrashBoth(_) => (0..2).for_each(|host| world.crash(host)),
        Fault::PowerOffBoth(_) => (0..2).for_each(|host| world.power_off(host)),
        Fault::CutOneWay(host) => world.lans.iter_mut().for_each(|lan| lan.cut[host] = true),
        Fault::PowerOff(host) => world.power_off(host),
        Fault::Freeze(host, _) => world.freeze(host, true),
        Fault::KillAgent(host) => world.kill_agent(host),
        Fault::KillReplicator(host) => world.kill_replicator(host),
        Fault::PersistFails(host) => world.hosts[host].persist_fails = true,
        Fault::BreakStream => world.break_stream(),
        Fault::CutStream => world.stream_cut = true,
        Fault::CutAll => world.lans.iter_mut().for_each(|lan| lan.cut = [true, true]),
        Fault::ArbiterLost(host) => world.witness.unreachable[host] = true,
    }
}

/// How long the fault lasts.
const fn lasts(fault: Fault) -> Duration {
    match fault {
        Fault::Freeze(_, duration) => duration,
        Fault::Crash(_)
        | Fault::CrashBoth(_)
        | Fault::PowerOffBoth(_)
        | Fault::KillAgent(_)
        | Fault::PersistFails(_) => SHORT,
        Fault::PowerOff(_)
        | Fault::CrashInTurn(_)
        | Fault::CutOneWay(_)
        | Fault::KillReplicator(_)
        | Fault::BreakStream
        | Fault::CutStream
        | Fault::CutAll
        | Fault::ArbiterLost(_) => LONG,
    }
}

fn repair(world: &mut World) {
    world.stream_cut = false;
    world.witness.unreachable = [false, false];
    world.lans.iter_mut().for_each(|lan| lan.cut = [false, false]);
    for host in 0..2 {
        world.hosts[host].persist_fails = false;
        world.thaw(host);
        world.boot(host, true);
        world.start_agent(host, true);
    }
}

/// After the repair a pair forms by itself, and nothing acknowledged is lost.
fn finish(mut world: World, fault: Fault) -> Result<(), String> {
    world.verbose = std::env::var_os("SAFED_TRACE").is_some();
    let outcome = conclude(&mut world, fault);
    outcome.map_err(|why| if world.verbose { format!("{why}\n{}", lines(&world.trace)) } else { why })
}

fn conclude(world: &mut World, fault: Fault) -> Result<(), String> {
    const LONGER_THAN_START_WAIT: Duration = Duration::from_secs(8);
    world.run(lasts(fault))?;
    if let Fault::CrashInTurn(host) = fault {
        world.crash(1 - host);
    }
    if let Fault::CrashBoth(host) | Fault::PowerOffBoth(host) | Fault::CrashInTurn(host) = fault {
        world.boot(host, true);
        world.run(LONGER_THAN_START_WAIT)?;
    }
    repair(world);
    for _ in 0..8 {
        if world.run_until(Duration::from_secs(8), World::is_paired)? {
            break;
        }
        for host in 0..2 {
            if world.hosts[host].disk.hard.desired == safe_failover::hard::Desired::Stopped {
                world.order(host, Command::Start);
            }
        }
    }
    if !world.is_paired() {
        return Err(format!("no pair: {}", world.describe()));
    }
    let lost = world.oracle.acked & !(world.hosts[0].disk.data & world.hosts[1].disk.data);
    if lost == 0 { Ok(()) } else { Err(format!("lost {lost:b}")) }
}

fn empty(lock: bool) -> World {
    let chance = Chance {
        local: Duration::from_millis(2),
        packet: Duration::from_millis(2),
        loss: 0,
        twice: 0,
        late: 0,
        mid_batch: 0,
        none: false,
    };
    let mut world = World::new(1, 1, chance, |config| {
        config.start_wait = Duration::from_secs(6);
        config.agent_timeout = Duration::from_secs(5);
        config.stop_timeout = Duration::from_secs(8);
        config.max_loop = 1000;
        if lock {
            config.arbiter = ArbiterKind::Lock;
        }
    });
    world.write_every = Some(Duration::from_millis(50));
    world.after(Duration::from_secs(1), Happening::Epoch);
    world
}

fn pair(lock: bool) -> World {
    let mut world = empty(lock);
    world.boot(0, true);
    world.boot(1, true);
    assert!(world.run_until(Duration::from_secs(10), World::is_paired).unwrap());
    world.run(Duration::from_millis(500)).unwrap();
    world
}

/// The second was stopped for a while.
fn behind(lock: bool) -> World {
    let mut world = pair(lock);
    world.order(1, Command::Stop);
    world.run(Duration::from_millis(800)).unwrap();
    world
}

fn stories(lock: bool) -> Vec<Story> {
    let story =
        |name, world, begin, millis| Story { name, world, begin, watch: Duration::from_millis(millis) };
    vec![
        story(
            "first start",
            empty(lock),
            |world| {
                world.boot(0, true);
                world.boot(1, true);
            },
            300,
        ),
        story("resync", behind(lock), |world| world.order(1, Command::Start), 300),
        story("swap", pair(lock), |world| world.order(0, Command::Swap), 120),
        story("hand-over", pair(lock), |world| world.order(0, Command::Stop), 120),
        story("secondary stops", pair(lock), |world| world.order(1, Command::Stop), 120),
        story("repair", pair(lock), World::break_stream, 120),
        story(
            "agent restart",
            pair(lock),
            |world| {
                world.kill_agent(0);
                world.start_agent(0, true);
            },
            60,
        ),
        story(
            "take-over",
            pair(lock),
            |world| {
                world.crash(0);
                world.run(Duration::from_millis(2900)).unwrap();
            },
            300,
        ),
    ]
}

/// Forks at each step; answers how many forks, and the first that failed.
fn explore(story: Story, faults: &[Fault], depth: u64, forks: &AtomicU64) -> Option<String> {
    let Story { name, mut world, begin, watch } = story;
    begin(&mut world);
    follow(&mut world, faults, depth, watch, forks).map(|why| format!("{name}: {why}"))
}

fn follow(
    world: &mut World,
    faults: &[Fault],
    depth: u64,
    watch: Duration,
    forks: &AtomicU64,
) -> Option<String> {
    let end = world.now + watch;
    let begun = world.now;
    // The first fault comes at every step, those that follow now and then.
    let stride = if watch == SHORT { number("SAFED_STRIDE").unwrap_or(40) } else { 1 };
    for step in 0_u64.. {
        let debug = std::env::var("SAFED_AT").ok();
        let here = format!("{:?}", world.now.since(begun));
        if watch != SHORT && debug.is_some_and(|at| at != here) {
            match world.step(end) {
                Ok(true) => continue,
                Ok(false) => return None,
                Err(why) => return Some(why),
            }
        }
        for &fault in faults.iter().filter(|_| step % stride == 0) {
            let mut fork = world.clone();
            inject(&mut fork, fault);
            forks.fetch_add(1, Ordering::Relaxed);
            let at = world.now.since(begun);
            if depth > 1
                && let Some(why) = follow(&mut fork.clone(), faults, depth - 1, SHORT, forks)
            {
                return Some(format!("{fault:?} at {at:?}, then {why}"));
            }
            if let Err(why) = finish(fork, fault) {
                return Some(format!("{fault:?} at {at:?}: {why}"));
            }
        }
        match world.step(end) {
            Ok(true) => {}
            Ok(false) => return None,
            Err(why) => return Some(format!("without another fault: {why}")),
        }
    }
    None
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn every_fault_at_every_step() {
    let depth = number("SAFED_DEPTH").unwrap_or(1);
    let forks = AtomicU64::new(0);
    let failures = std::sync::Mutex::new(Vec::new());
    let only = std::env::var("SAFED_STORY").ok();
    let work: Vec<_> = [false, true]
        .into_iter()
        .flat_map(|lock| stories(lock).into_iter().map(move |s| (lock, s)))
        .filter(|(_, story)| only.as_ref().is_none_or(|only| story.name == only))
        .collect();
    let queue = std::sync::Mutex::new(work);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let Some((lock, story)) = queue.lock().unwrap().pop() else { return };
                    let kind = if lock { "lock arbiter" } else { "no arbiter" };
                    if let Some(why) = explore(story, &faults(lock), depth, &forks) {
                        failures.lock().unwrap().push(format!("{kind}: {why}"));
                    }
                }
            });
        }
    });
    println!("{} forks", forks.load(Ordering::Relaxed));
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn lines(trace: &[safe_failover::world::Noted]) -> String {
    trace.iter().map(|noted| format!("{noted}\n")).collect()
}
