//! What an explorer may do to the world at any point, and how it ends.

use std::time::Duration;

use safe_failover::event::{ArbiterEvent, Command};
use safe_failover::hard::Desired;

use safe_failover::world::arbiter::Request;
use safe_failover::world::{Happening, World};

/// One disturbance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Crash(usize),
    PowerOff(usize),
    /// The host stands still, and what comes meanwhile is lost.
    Freeze(usize),
    /// The host stands still, and finds what came meanwhile.
    Stall(usize),
    KillAgent(usize),
    KillReplicator(usize),
    PersistFails(usize),
    BreakStream,
    CutStream,
    CutAll,
    /// What this one sends does not arrive.
    CutOneWay(usize),
    /// One of two lans.
    CutLan(usize),
    ArbiterLost(usize),
    Stop(usize),
    /// A person forces this copy to serve.
    Force(usize),
    Swap,
    /// The packet that comes next is lost, late, or comes again.
    Lose,
    Late,
    Twice,
    /// The compare-and-set that comes next lands long after its sender gave up.
    LateSwap,
}

/// Shorter than any timeout, longer than the heartbeat's, longer than who holds a base waits for the other.
pub(crate) const SHORT: Duration = Duration::from_millis(1300);
pub(crate) const LONG: Duration = Duration::from_millis(4200);
pub(crate) const LONGER: Duration = Duration::from_millis(10_000);

const LATE: Duration = Duration::from_millis(700);
const VERY_LATE: Duration = Duration::from_secs(4);

impl Fault {
    /// How long it may last; zero: it has no end of its own.
    pub(crate) const fn lasts(self) -> &'static [Duration] {
        match self {
            Self::Crash(_) | Self::PowerOff(_) => &[SHORT, LONG, LONGER],
            Self::Freeze(_) | Self::Stall(_) => &[SHORT, LONG],
            Self::KillAgent(_) | Self::CutAll => &[SHORT, LONGER],
            Self::PersistFails(_) => &[SHORT],
            Self::CutStream | Self::CutOneWay(_) | Self::ArbiterLost(_) | Self::Stop(_) => &[LONG],
            Self::CutLan(_) => &[LONG],
            Self::KillReplicator(_)
            | Self::BreakStream
            | Self::Force(_)
            | Self::Swap
            | Self::Lose
            | Self::Late
            | Self::Twice
            | Self::LateSwap => &[Duration::ZERO],
        }
    }

    /// It would change something now.
    pub(crate) fn fits(self, world: &World) -> bool {
        let host = |host: usize| &world.hosts[host];
        match self {
            Self::Crash(at) | Self::PowerOff(at) => host(at).up,
            Self::Freeze(at) | Self::Stall(at) => host(at).alive(),
            Self::KillAgent(at) | Self::Stop(at) | Self::Force(at) => {
                host(at).alive() && host(at).agent.is_some() && host(at).disk.hard.desired == Desired::Started
            }
            Self::KillReplicator(at) => host(at).alive() && host(at).replicator.is_some(),
            Self::PersistFails(at) => host(at).up && !host(at).persist_fails,
            Self::BreakStream => world
                .hosts
                .iter()
                .any(|host| host.replicator.as_ref().is_some_and(|replicator| replicator.stream.is_some())),
            Self::CutStream => !world.stream_cut && !world.all_cut(),
            Self::CutAll => !world.all_cut(),
            Self::CutOneWay(at) => world.lans.iter().any(|lan| !lan.cut[at]),
            Self::CutLan(lan) => world.lans.len() > lan && world.lans[lan].cut == [false, false],
            Self::ArbiterLost(at) => world.lock() && !world.witness.unreachable[at],
            Self::Swap => (0..2).any(|at| host(at).alive() && host(at).agent.is_some() && host(at).mounted()),
            Self::Lose | Self::Late | Self::Twice => world.next_packet().is_some(),
            Self::LateSwap => world.next_swap(),
        }
    }

    pub(crate) fn inject(self, world: &mut World) {
        match self {
            Self::Crash(host) => world.crash(host),
            Self::PowerOff(host) => world.power_off(host),
            Self::Freeze(host) => world.freeze(host, true),
            Self::Stall(host) => world.freeze(host, false),
            Self::KillAgent(host) => world.kill_agent(host),
            Self::KillReplicator(host) => world.kill_replicator(host),
            Self::PersistFails(host) => world.hosts[host].persist_fails = true,
            Self::BreakStream => world.break_stream(),
            Self::CutStream => world.stream_cut = true,
            Self::CutAll => world.lans.iter_mut().for_each(|lan| lan.cut = [true, true]),
            Self::CutOneWay(host) => world.lans.iter_mut().for_each(|lan| lan.cut[host] = true),
            Self::CutLan(lan) => world.lans[lan].cut = [true, true],
            Self::ArbiterLost(host) => world.witness.unreachable[host] = true,
            Self::Stop(host) => world.order(host, Command::Stop),
            Self::Force(host) => {
                world.oracle.forced = true;
                world.oracle.excused = true;
                world.order(host, Command::Prim { force: true });
            }
            Self::Swap => (0..2).for_each(|host| {
                if world.hosts[host].alive() {
                    world.order(host, Command::Swap);
                }
            }),
            Self::Lose => drop(world.take_next()),
            Self::Late => {
                if let Some(what) = world.take_next() {
                    world.after(LATE, what);
                }
            }
            Self::Twice => {
                if let Some(what) = world.take_next() {
                    world.after(LATE, what.clone());
                    world.after(Duration::ZERO, what);
                }
            }
            Self::LateSwap => {
                if let Some(what) = world.take_next() {
                    if let Happening::Arbiter { host, life, request: Request::Swap { lock, .. } } = &what {
                        let (host, life, lock) = (*host, *life, lock.clone());
                        let answer = ArbiterEvent::Unreachable;
                        world.after(Duration::ZERO, Happening::ArbiterAnswer { host, life, lock, answer });
                    }
                    world.after(VERY_LATE, what);
                }
            }
        }
    }

    /// Its end; false: it cannot end yet.
    pub(crate) fn repair(self, world: &mut World) -> bool {
        match self {
            Self::Crash(host) | Self::PowerOff(host) => world.boot(host, true),
            Self::Freeze(host) | Self::Stall(host) => world.thaw(host),
            Self::KillAgent(host) => {
                if world.hosts[host].up && world.hosts[host].frozen {
                    return false;
                }
                let start = world.hosts[host].disk.hard.desired == Desired::Started;
                world.start_agent(host, start);
            }
            Self::Stop(host) => {
                let machine = &world.hosts[host];
                if !machine.alive() || machine.agent.is_none() || machine.persist_fails {
                    return false;
                }
                world.order(host, Command::Start);
                // Refused while the stop goes on: asked again.
                let machine = &world.hosts[host];
                return machine.disk.hard.desired == Desired::Started
                    || machine.answer.as_deref().is_none_or(|answer| answer == "ok");
            }
            Self::PersistFails(host) => world.hosts[host].persist_fails = false,
            Self::CutStream => world.stream_cut = false,
            Self::CutAll | Self::CutOneWay(_) => {
                world.lans.iter_mut().for_each(|lan| lan.cut = [false, false]);
            }
            Self::CutLan(lan) => world.lans[lan].cut = [false, false],
            Self::ArbiterLost(host) => world.witness.unreachable[host] = false,
            Self::KillReplicator(_)
            | Self::BreakStream
            | Self::Force(_)
            | Self::Swap
            | Self::Lose
            | Self::Late
            | Self::Twice
            | Self::LateSwap => {}
        }
        true
    }
}

/// Which of them are tried.
pub(crate) fn faults(lock: bool, lans: usize, forces: bool) -> Vec<Fault> {
    if forces {
        let each = (0..2).flat_map(|host| [Fault::Crash(host), Fault::Force(host), Fault::PowerOff(host)]);
        return each.chain([Fault::CutAll, Fault::CutStream]).collect();
    }
    let mut faults =
        vec![Fault::BreakStream, Fault::CutStream, Fault::Swap, Fault::Lose, Fault::Late, Fault::Twice];
    for host in 0..2 {
        faults.extend([
            Fault::Crash(host),
            Fault::PowerOff(host),
            Fault::Freeze(host),
            Fault::Stall(host),
            Fault::KillAgent(host),
            Fault::KillReplicator(host),
            Fault::PersistFails(host),
            Fault::Stop(host),
        ]);
        if lock {
            faults.extend([Fault::ArbiterLost(host), Fault::CutOneWay(host)]);
        }
        if lans > 1 {
            faults.push(Fault::CutLan(host));
        }
    }
    if lock {
        // Without a lock arbiter a cut of every lan excuses too much to be worth its time.
        faults.extend([Fault::CutAll, Fault::LateSwap]);
    }
    faults
}
