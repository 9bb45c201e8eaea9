//! The verbs: what is done to nodes, lans and disks, time, expectations, an administrator's commands.

use std::time::Duration;

use super::words::{command, duration, host, hosts, number};
use super::{Ended, state};
use crate::Event;
use crate::event::{Command, ReplicatorEvent};
use crate::lock::Lock;
use crate::world::World;

pub(crate) fn play(world: &mut World, words: &[&str]) -> Result<(), Ended> {
    if nodes(world, words)? || network(world, words)? || disks(world, words)? || expectation(world, words)? {
        return Ok(());
    }
    match words {
        ["writes", every] => world.write_every = Some(duration(every)?),
        ["writes-end"] => world.write_every = None,
        ["trace", "on"] => world.verbose = true,
        ["trace", "off"] => world.verbose = false,
        ["advance", time] => world.run(duration(time)?).map_err(Ended::Otherwise)?,
        ["explain", node] => explain(world, host(node)?)?,
        ["resource", node, name, value, reason @ ..] => {
            let value =
                value.parse().map_err(|()| format!("not a value: {value}; init, up, down, unknown"))?;
            let (name, reason) = ((*name).to_owned(), reason.join(" "));
            world.handle(host(node)?, Event::Resource { name, value, reason });
        }
        [node @ ("n1" | "n2"), order @ ..] => {
            let command = command(order)?;
            if matches!(command, Command::Prim { force: true } | Command::Second { force: true, .. }) {
                world.oracle.forced = true;
                world.oracle.excused = true;
            }
            world.oracle.discarded |= matches!(command, Command::Second { discard: true, .. });
            world.order(host(node)?, command);
            world.run(Duration::from_millis(1)).map_err(Ended::Otherwise)?;
        }
        _ => {
            return Err(Ended::Wrong("unknown verb; the guide lists them: safectl help simulate".to_owned()));
        }
    }
    Ok(())
}

/// What is done to nodes and their processes; false: the verb is another.
fn nodes(world: &mut World, words: &[&str]) -> Result<bool, String> {
    let [verb, names @ ..] = words else { return Ok(false) };
    let act: fn(&mut World, usize) = match *verb {
        "start" => |world, host| {
            if world.hosts[host].up { world.order(host, Command::Start) } else { world.boot(host, true) }
        },
        "boot" => |world, host| world.boot(host, false),
        "crash" => World::crash,
        "power-off" => World::power_off,
        "freeze" => |world, host| world.freeze(host, false),
        "pause" => |world, host| world.freeze(host, true),
        "wake" => World::thaw,
        "agent-kill" => World::kill_agent,
        "agent-start" => |world, host| world.start_agent(host, true),
        "replicator-kill" => World::kill_replicator,
        "unplug" => |world, host| world.plug(host, false),
        "plug" => |world, host| world.plug(host, true),
        "clock-back" => {
            let [node, time] = names else { return Err("clock-back NODE TIME".to_owned()) };
            world.hosts[host(node)?].clock_back = duration(time)?.as_secs();
            return Ok(true);
        }
        _ => return Ok(false),
    };
    for host in hosts(names)? {
        act(world, host);
    }
    Ok(true)
}

/// What is done to lans, streams, arbiters; false: the verb is another.
fn network(world: &mut World, words: &[&str]) -> Result<bool, String> {
    let lans = world.lans.len();
    let lan = |name: &str| {
        let index = number(name)?;
        if index < lans { Ok(index) } else { Err(format!("no such lan: {name}; 0 to {}", lans - 1)) }
    };
    match words {
        ["break", "stream"] => world.break_stream(),
        ["cut", "stream"] => world.stream_cut = true,
        ["heal", "stream"] => world.stream_cut = false,
        ["cut", "all"] => world.lans.iter_mut().for_each(|lan| lan.cut = [true, true]),
        ["heal", "all"] => world.lans.iter_mut().for_each(|lan| lan.cut = [false, false]),
        ["cut", name] => world.lans[lan(name)?].cut = [true, true],
        ["cut", name, "from", node] => world.lans[lan(name)?].cut[host(node)?] = true,
        ["heal", name] => world.lans[lan(name)?].cut = [false, false],
        ["arbiter", "lost", node] => world.witness.unreachable[host(node)?] = true,
        ["arbiter", "unheard", node] => world.witness.unheard[host(node)?] = true,
        ["arbiter", "back", node] => {
            let host = host(node)?;
            world.witness.unreachable[host] = false;
            world.witness.unheard[host] = false;
        }
        ["arbiter", "dead", name] => {
            world.witness.dead.insert(Lock((*name).to_owned()));
        }
        ["install", node, "arbiter", name] => {
            let name = if *name == "none" { "" } else { name };
            world.install(host(node)?, Lock(name.to_owned()));
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// What is done to disks, mounts and scripts; false: the verb is another.
fn disks(world: &mut World, words: &[&str]) -> Result<bool, String> {
    match words {
        ["data", node] => {
            let bit = world.oracle.next_write().ok_or("no more writes")?;
            let disk = &mut world.hosts[host(node)?].disk;
            disk.data |= bit;
            disk.synced |= bit;
        }
        ["cover-broken", node] => {
            world.report(host(node)?, ReplicatorEvent::Edited("somebody took the cover off".to_owned()));
        }
        ["replace-disk", node] => world.hosts[host(node)?].disk.marker = None,
        ["fail", what, node] => fail(world, what, host(node)?, true)?,
        ["mend", what, node] => fail(world, what, host(node)?, false)?,
        ["disk-error", node] => {
            world.report(host(node)?, ReplicatorEvent::DiskFailed("fsync: I/O error".to_owned()));
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn fail(world: &mut World, what: &str, host: usize, fails: bool) -> Result<(), String> {
    let machine = &mut world.hosts[host];
    match what {
        "persist" => machine.persist_fails = fails,
        "mount" => machine.mount_fails = fails,
        "stop-script" => machine.scripts_hang = fails,
        "directory" => machine.refuses = fails,
        "space" => machine.disk_full = fails,
        "room" => machine.too_small = fails,
        "archive" => machine.archive_full = fails,
        _ => {
            return Err(format!(
                "unknown fault: {what}; persist, mount, stop-script, directory, space, room or archive"
            ));
        }
    }
    Ok(())
}

fn explain(world: &mut World, host: usize) -> Result<(), Ended> {
    let Some(agent) = &world.hosts[host].agent else {
        return Err(Ended::Otherwise("there is no safed to ask".to_owned()));
    };
    for line in agent.core.explain() {
        let hint = line.hint.map(|hint| format!("; type: {hint}")).unwrap_or_default();
        world.tell(format!("  {}: {}{hint}", line.question, line.answer));
    }
    Ok(())
}

/// What must be so; false: the verb is another.
fn expectation(world: &mut World, words: &[&str]) -> Result<bool, Ended> {
    let met = match words {
        ["until", "record"] => {
            let before = world.witness.records.clone();
            until(world, |world| world.witness.records != before)?
        }
        ["until", node, "in-step"] => {
            let host = host(node)?;
            until(world, |world| world.hosts[host].replicator.as_ref().is_some_and(|own| own.in_step))?
        }
        ["until", node, wanted @ ("consistent" | "inconsistent")] => {
            let (host, wanted) = (host(node)?, *wanted == "consistent");
            until(world, |world| world.hosts[host].disk.hard.consistent == wanted)?
        }
        ["expect", node, wanted, "within", time] => {
            let (host, limit) = (host(node)?, duration(time)?);
            let met =
                world.run_until(limit, |world| matches(world, host, wanted)).map_err(Ended::Otherwise)?;
            if met { Ok(()) } else { expect(world, host, wanted) }
        }
        ["expect", node, wanted] => expect(world, host(node)?, wanted),
        ["expect-equal"] => {
            let (a, b) = (world.hosts[0].disk.data, world.hosts[1].disk.data);
            if a == b { Ok(()) } else { Err(format!("data differ: {a:b} {b:b}")) }
        }
        ["expect-kept"] => {
            let lost = world.oracle.acked & !(world.hosts[0].disk.data & world.hosts[1].disk.data);
            let some = world.oracle.count > 0;
            if lost == 0 && some {
                Ok(())
            } else {
                Err(format!("lost {lost:b} of {} acknowledged", world.oracle.count))
            }
        }
        _ => return Ok(false),
    };
    met.map_err(Ended::Otherwise)?;
    Ok(true)
}

/// Stops at the instant at which it becomes so.
fn until(world: &mut World, met: impl Fn(&World) -> bool) -> Result<Result<(), String>, Ended> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let met = world.run_until(PATIENCE, met).map_err(Ended::Otherwise)?;
    Ok(if met { Ok(()) } else { Err(format!("not so within {PATIENCE:?}")) })
}

fn expect(world: &World, host: usize, wanted: &str) -> Result<(), String> {
    if matches(world, host, wanted) { Ok(()) } else { Err(format!("found: {}", state(world, host))) }
}

/// `STATE` or `STATE/phase`.
fn matches(world: &World, host: usize, wanted: &str) -> bool {
    let machine = &world.hosts[host];
    let Some(agent) = machine.agent.as_ref().filter(|_| machine.up) else { return wanted == "DOWN" };
    let status = agent.core.status();
    let state = format!("{:?}", status.state).to_uppercase();
    let phase = format!("{:?}", status.phase).to_lowercase();
    wanted == state || wanted == format!("{state}/{phase}")
}
