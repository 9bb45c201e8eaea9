//! Scenario files: stories of two nodes, one verb per line, what happened recorded beneath and compared.
//!
//! `SAFED_REWRITE=1 cargo nextest run -p safe-failover scenario` writes the outcome into the files, to be reviewed as a diff.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "in a test a wrong assumption is a failed test"
)]

#[path = "world/world.rs"]
mod world;

use std::fmt::Write as _;
use std::time::Duration;

use safe_failover::Time;
use safe_failover::config::{ArbiterKind, DefaultPrimary, Isolation, Side, SplitBrain};
use safe_failover::event::Command;
use safe_failover::rule::{Origin, Reaction, Rule};
use world::{Chance, World};

const QUIET: Chance = Chance {
    local: Duration::from_millis(2),
    packet: Duration::from_millis(2),
    loss: 0,
    twice: 0,
    late: 0,
    mid_batch: 0,
};

#[test]
fn scenarios() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let only = std::env::var("SAFED_SCENARIO").ok();
    let rewrite = std::env::var_os("SAFED_REWRITE").is_some();
    let mut failures = Vec::new();
    for file in files {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        if only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let (outcome, failure) = Story::default().play(&text);
        if rewrite {
            std::fs::write(&file, &outcome).unwrap();
        } else if failure.is_none() && outcome != text {
            failures.push(format!("{name}: the outcome is not the one recorded:\n{outcome}"));
        }
        if let Some(failure) = failure {
            failures.push(format!("{name}: {failure}\n{outcome}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// One file: settings first, then verbs. Lines that begin with `| ` are what happened.
#[derive(Default)]
struct Story {
    world: Option<World>,
    settings: Vec<Vec<String>>,
}

impl Story {
    fn play(mut self, text: &str) -> (String, Option<String>) {
        let mut outcome = String::new();
        let mut failure = None;
        let mut last = [String::new(), String::new()];
        for (number, line) in text.lines().enumerate() {
            if line.starts_with("| ") {
                continue;
            }
            outcome.push_str(line);
            outcome.push('\n');
            let words: Vec<&str> = line.split_whitespace().collect();
            if words.is_empty() || line.starts_with('#') || failure.is_some() {
                continue;
            }
            if let Err(why) = self.verb(&words) {
                failure = Some(format!("line {}: {line}: {why}", number + 1));
            }
            self.report(&mut outcome, &mut last);
        }
        (outcome, failure)
    }

    /// What changed for people.
    fn report(&mut self, outcome: &mut String, last: &mut [String; 2]) {
        let Some(world) = &mut self.world else { return };
        for line in world.trace.drain(..) {
            writeln!(outcome, "| {line}").unwrap();
        }
        for (host, last) in last.iter_mut().enumerate() {
            let now = describe(world, host);
            if now != *last {
                writeln!(outcome, "| {now}").unwrap();
                *last = now;
            }
            if let Some(answer) = world.hosts[host].answer.take() {
                writeln!(outcome, "| {} answers: {answer}", world.hosts[host].config.node).unwrap();
            }
        }
    }

    fn verb(&mut self, words: &[&str]) -> Result<(), String> {
        if words[0] == "set" {
            self.settings.push(words[1..].iter().map(|word| (*word).to_owned()).collect());
            return Ok(());
        }
        if self.world.is_none() {
            self.world = Some(self.build()?);
        }
        let Some(world) = &mut self.world else { return Ok(()) };
        if Self::fault(world, words)? { Ok(()) } else { Self::check_or_order(world, words) }
    }

    /// What is done to nodes, lans and disks; false: the verb is another.
    fn fault(world: &mut World, words: &[&str]) -> Result<bool, String> {
        match words {
            ["start", nodes @ ..] => each(nodes, |host| {
                if world.hosts[host].up { world.order(host, Command::Start) } else { world.boot(host, true) }
            })?,
            ["boot", nodes @ ..] => each(nodes, |host| world.boot(host, false))?,
            ["crash", nodes @ ..] => each(nodes, |host| world.crash(host))?,
            ["power-off", nodes @ ..] => each(nodes, |host| world.power_off(host))?,
            ["freeze", nodes @ ..] => each(nodes, |host| world.freeze(host, false))?,
            ["pause", nodes @ ..] => each(nodes, |host| world.freeze(host, true))?,
            ["wake", nodes @ ..] => each(nodes, |host| world.thaw(host))?,
            ["agent-kill", nodes @ ..] => each(nodes, |host| world.kill_agent(host))?,
            ["agent-start", nodes @ ..] => each(nodes, |host| world.start_agent(host, true))?,
            ["replicator-kill", nodes @ ..] => each(nodes, |host| world.kill_replicator(host))?,
            ["clock-back", node, time] => world.hosts[host(node)?].clock_back = duration(time)?.as_secs(),
            ["resource", node, name, value, reason @ ..] => {
                let value = value.parse().map_err(|()| "not a value")?;
                let (name, reason) = ((*name).to_owned(), reason.join(" "));
                world.handle(host(node)?, safe_failover::Event::Resource { name, value, reason });
            }
            ["unplug", nodes @ ..] => each(nodes, |host| world.plug(host, false))?,
            ["plug", nodes @ ..] => each(nodes, |host| world.plug(host, true))?,
            ["break", "stream"] => world.break_stream(),
            ["cut", "stream"] => world.stream_cut = true,
            ["heal", "stream"] => world.stream_cut = false,
            ["cut", "all"] => world.lans.iter_mut().for_each(|lan| lan.cut = [true, true]),
            ["heal", "all"] => world.lans.iter_mut().for_each(|lan| lan.cut = [false, false]),
            ["cut", lan] => world.lans[number(lan)?].cut = [true, true],
            ["cut", lan, "from", node] => world.lans[number(lan)?].cut[host(node)?] = true,
            ["heal", lan] => world.lans[number(lan)?].cut = [false, false],
            ["arbiter", "lost", node] => world.witness.unreachable[host(node)?] = true,
            ["arbiter", "back", node] => world.witness.unreachable[host(node)?] = false,
            ["data", node] => {
                let bit = world.oracle.next_write().ok_or("no more writes")?;
                let disk = &mut world.hosts[host(node)?].disk;
                disk.data |= bit;
                disk.synced |= bit;
            }
            ["replace-disk", node] => world.hosts[host(node)?].disk.marker = None,
            ["fail", what, node] => fail(world, what, host(node)?, true)?,
            ["mend", what, node] => fail(world, what, host(node)?, false)?,
            ["disk-error", node] => {
                let host = host(node)?;
                world.report(
                    host,
                    safe_failover::event::ReplicatorEvent::DiskFailed("fsync: I/O error".to_owned()),
                );
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Time, expectations, and an administrator's commands.
    fn check_or_order(world: &mut World, words: &[&str]) -> Result<(), String> {
        match words {
            ["writes", every] => world.write_every = Some(duration(every)?),
            ["until", "record"] => {
                let before = world.witness.record;
                if !world.run_until(Duration::from_secs(10), |world| world.witness.record != before)? {
                    return Err("the record did not change".to_owned());
                }
            }
            ["explain", node] => {
                let host = host(node)?;
                let agent = world.hosts[host].agent.as_ref().ok_or("no agent")?;
                for line in agent.core.explain() {
                    let hint = line.hint.map(|hint| format!("; type: {hint}")).unwrap_or_default();
                    world.trace.push(format!("  {}: {}{hint}", line.question, line.answer));
                }
            }
            ["writes-end"] => world.write_every = None,
            ["trace", "on"] => world.verbose = true,
            ["trace", "off"] => world.verbose = false,
            ["advance", time] => world.run(duration(time)?)?,
            ["expect", node, state, "within", time] => {
                expect_within(world, host(node)?, state, duration(time)?)?
            }
            ["expect", node, state] => expect(world, host(node)?, state)?,
            ["expect-equal"] => {
                let (a, b) = (world.hosts[0].disk.data, world.hosts[1].disk.data);
                if a != b {
                    return Err(format!("data differ: {a:b} {b:b}"));
                }
            }
            ["expect-kept"] => {
                let lost = world.oracle.acked & !(world.hosts[0].disk.data & world.hosts[1].disk.data);
                if lost != 0 || world.oracle.count == 0 {
                    return Err(format!("lost {lost:b} of {} acknowledged", world.oracle.count));
                }
            }
            [node @ ("n1" | "n2"), command @ ..] => {
                let command = parse(command)?;
                if matches!(command, Command::Prim { force: true } | Command::Second { force: true, .. }) {
                    world.oracle.forced = true;
                    world.oracle.excused = true;
                }
                world.order(host(node)?, command);
                world.run(Duration::from_millis(1))?;
            }
            _ => return Err("unknown verb".to_owned()),
        }
        Ok(())
    }

    fn build(&self) -> Result<World, String> {
        let mut lans = 2;
        let mut edits: Vec<Vec<String>> = Vec::new();
        for setting in &self.settings {
            if setting[0] == "lans" { lans = number(&setting[1])? } else { edits.push(setting.clone()) }
        }
        let mut world = World::new(7, lans, QUIET, |config| {
            for edit in &edits {
                match (edit[0].as_str(), edit[1].as_str()) {
                    ("rule", _) => config.rules.push(rule(&edit[1..]).unwrap()),
                    ("max-loop", count) => config.max_loop = count.parse().unwrap(),
                    ("arbiter", "lock") => config.arbiter = ArbiterKind::Lock,
                    ("arbiter", "reachability") => config.arbiter = ArbiterKind::Reachability,
                    ("isolation", "wait") => config.isolation = Isolation::Wait,
                    ("split-brain", "manual") => config.split_brain = SplitBrain::Manual,
                    ("failover", "off") => config.failover = false,
                    ("default-primary", "n1") => config.default_primary = DefaultPrimary::Node(Side::First),
                    ("default-primary", "n2") => config.default_primary = DefaultPrimary::Node(Side::Second),
                    ("default-primary", "last") => config.default_primary = DefaultPrimary::Last,
                    ("sync-delta", time) => config.sync_delta = duration(time).unwrap(),
                    (what, value) => panic!("unknown setting {what} {value}"),
                }
            }
        });
        world.now = Time(1_000_000_000);
        world.records = true;
        Ok(world)
    }
}

/// `LABEL AFTER ACTION if EXPRESSION`
fn rule(words: &[String]) -> Result<Rule, String> {
    let [label, after, action, _, text @ ..] = words else { return Err("not a rule".to_owned()) };
    let then = match action.as_str() {
        "stop" => Reaction::Stop,
        "stopstart" => Reaction::StopStart,
        "restart" => Reaction::Restart,
        "swap" => Reaction::Swap,
        "wait" => Reaction::Wait,
        _ => return Err("not an action".to_owned()),
    };
    Rule::new(label, &text.join(" "), then, duration(after)?, Origin::Module)
        .map_err(|error| error.to_string())
}

fn describe(world: &World, host: usize) -> String {
    let machine = &world.hosts[host];
    let node = &machine.config.node;
    if !machine.up {
        return format!("{node} is down");
    }
    if machine.frozen {
        return format!("{node} is frozen");
    }
    let active: Vec<&str> = [
        (machine.mounted(), "mounted"),
        (machine.addresses, "address"),
        (machine.application, "application"),
    ]
    .into_iter()
    .filter_map(|(is, what)| is.then_some(what))
    .collect();
    let active = if active.is_empty() { String::new() } else { format!(" [{}]", active.join(" ")) };
    let Some(agent) = &machine.agent else { return format!("{node} has no agent{active}") };
    let status = agent.core.status();
    let hint = status.hint.map(|hint| format!("; type: {hint}")).unwrap_or_default();
    format!("{node} {:?}/{:?}{active}: {}{hint}", status.state, status.phase, status.reason)
}

fn expect(world: &World, host: usize, state: &str) -> Result<(), String> {
    if matches(world, host, state) { Ok(()) } else { Err(format!("found: {}", describe(world, host))) }
}

fn expect_within(world: &mut World, host: usize, state: &str, limit: Duration) -> Result<(), String> {
    let state = state.to_owned();
    if world.run_until(limit, |world| matches(world, host, &state))? {
        Ok(())
    } else {
        expect(world, host, &state)
    }
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

fn fail(world: &mut World, what: &str, host: usize, fails: bool) -> Result<(), String> {
    let machine = &mut world.hosts[host];
    match what {
        "persist" => machine.persist_fails = fails,
        "mount" => machine.mount_fails = fails,
        "stop-script" => machine.scripts_hang = fails,
        "directory" => machine.refuses = fails,
        _ => return Err("unknown fault".to_owned()),
    }
    Ok(())
}

fn parse(words: &[&str]) -> Result<Command, String> {
    let flag = |name: &str| words.contains(&name);
    Ok(match words.first() {
        Some(&"start") => Command::Start,
        Some(&"stop") => Command::Stop,
        Some(&"stopstart") => Command::StopStart,
        Some(&"restart") => Command::Restart,
        Some(&"swap") => Command::Swap,
        Some(&"verify") => Command::Verify { repair: flag("--repair") },
        Some(&"prim") => Command::Prim { force: flag("--force") },
        Some(&"second") => Command::Second { full: flag("--full"), force: flag("--force") },
        _ => return Err("unknown command".to_owned()),
    })
}

fn each(nodes: &[&str], mut act: impl FnMut(usize)) -> Result<(), String> {
    for node in nodes {
        act(host(node)?);
    }
    Ok(())
}

fn host(name: &str) -> Result<usize, String> {
    match name {
        "n1" => Ok(0),
        "n2" => Ok(1),
        _ => Err(format!("no such node: {name}")),
    }
}

fn number(word: &str) -> Result<usize, String> {
    word.trim_start_matches("lan").parse().map_err(|_| format!("not a number: {word}"))
}

fn duration(word: &str) -> Result<Duration, String> {
    let (digits, unit) = word.split_at(word.find(|c: char| c.is_alphabetic()).ok_or("no unit")?);
    let count: u64 = digits.parse().map_err(|_| format!("not a number: {digits}"))?;
    match unit {
        "ms" => Ok(Duration::from_millis(count)),
        "s" => Ok(Duration::from_secs(count)),
        "m" => Ok(Duration::from_secs(count * 60)),
        _ => Err(format!("unknown unit: {unit}")),
    }
}
