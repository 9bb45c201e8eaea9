//! Every sequence of faults, each at every point: a search through the states of two real cores, their hosts and a lock
//! arbiter, without chance.
//!
//! A state is left by the next happening, or by one fault more at every point at which something was done, and twice a
//! second besides; faults end after a few lengths of time. States that differ only in names and in when now is are one.
//! In each the invariants hold; from each, when nothing more goes wrong, a pair forms by itself and nothing that was
//! acknowledged is lost.
//!
//! `SAFED_FAULTS=2` raises the number of faults in a row, `SAFED_ONLY='pair, lock'` takes one of the roots,
//! `SAFED_RULE=NAME` leaves a rule out, `SAFED_REPLAY='12 3 0,40 17 1'` plays one path and prints its trace.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "in a test a wrong assumption is a failed test"
)]

#[path = "explorer/fault.rs"]
mod fault;
#[path = "explorer/fingerprint.rs"]
mod fingerprint;
#[path = "left_out/missed.rs"]
mod missed;
#[path = "explorer/search.rs"]
mod search;

use std::time::Duration;

use missed::{By, missed_by};
use safe_failover::config::ArbiterKind;
use safe_failover::left_out::LeftOut;
use safe_failover::lock::Lock;
use safe_failover::world::{Chance, Happening, World};
use search::{Choice, Counterexample, Search};

/// Where a search begins, in which kind of cluster.
#[derive(Debug, Clone, Copy)]
struct Root {
    name: &'static str,
    lock: bool,
    lans: usize,
    /// A person may force a copy to serve.
    forces: bool,
    /// Both copies may have been written to alone: a person may have to choose.
    asks: bool,
    world: fn(World) -> World,
}

const fn root(name: &'static str, lock: bool, world: fn(World) -> World) -> Root {
    Root { name, lock, lans: 1, forces: false, asks: false, world }
}

const ROOTS: [Root; 10] = [
    root("pair", false, pair),
    root("pair, lock", true, pair),
    Root { lans: 2, ..root("pair, lock, two lans", true, pair) },
    root("pair, lock, another one installed", true, exchanged),
    root("return, lock, another one installed", true, missed_it),
    root("first start", false, |world| world),
    root("first start, lock", true, |world| world),
    root("return", false, behind),
    root("return, lock", true, behind),
    Root { asks: true, ..root("split brain", false, parted) },
];
/// What a person forces may lose writes; the copies must be equal in the end all the same.
const FORCED: Root = Root { forces: true, asks: true, ..root("return, forced", false, behind) };

/// Some 3 GB of fingerprints.
const MOST_STATES: usize = 150_000_000;

/// One fault more at every point, from each root.
#[test]
fn every_fault_from_every_state() {
    for root in ROOTS.into_iter().chain([FORCED]).filter(is_wanted) {
        proved(root, number("SAFED_FAULTS").unwrap_or(1) as u8);
    }
}

#[test]
#[ignore = "longer proof: make proof"]
fn every_two_faults_in_a_row() {
    for root in ROOTS.into_iter().take(2).filter(is_wanted) {
        proved(root, 2);
    }
}

/// The search finds what harm it does to leave out a rule.
#[test]
fn a_rule_that_is_left_out_is_missed() {
    // A panic is what an invariant of the core says; here it is wanted.
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut unnoticed = Vec::new();
    for rule in LeftOut::ALL {
        let By::Search { root: name, faults } = missed_by(rule) else { continue };
        let root = ROOTS.into_iter().chain([FORCED]).find(|root| root.name == name).unwrap();
        let (search, found) = explored(root, Some(rule), faults);
        match found {
            Some(found) => println!("{rule:?}: {}", search.describe(&found)),
            None => unnoticed.push(rule),
        }
    }
    std::panic::set_hook(quiet);
    assert!(unnoticed.is_empty(), "nobody missed {unnoticed:?}");
}

fn is_wanted(root: &Root) -> bool {
    std::env::var("SAFED_ONLY").is_ok_and(|only| only == root.name)
        || std::env::var_os("SAFED_ONLY").is_none()
}

fn proved(root: Root, faults: u8) {
    let rule = std::env::var("SAFED_RULE").ok();
    let rule = rule.and_then(|name| LeftOut::ALL.into_iter().find(|rule| format!("{rule:?}") == name));
    let (search, found) = explored(root, rule, faults);
    if let Some(found) = found {
        panic!("{}: {}", root.name, search.describe(&found));
    }
}

fn explored(root: Root, rule: Option<LeftOut>, faults: u8) -> (Search, Option<Counterexample>) {
    let faults_tried = fault::faults(root.lock, root.lans, root.forces);
    let search = Search::new(faults_tried, root.asks, MOST_STATES);
    let world = (root.world)(empty(root, rule));
    if let Ok(path) = std::env::var("SAFED_REPLAY") {
        let (trace, outcome) = search.replay(world, &choices(&path));
        println!("{}\n{outcome:?}", trace.join("\n"));
        return (search, None);
    }
    let found = search.run(world, faults);
    println!("| {} | {faults} | {}", root.name, search.tally());
    (search, found)
}

fn choices(path: &str) -> Vec<Choice> {
    let one = |choice: &str| {
        let mut numbers = choice.split_whitespace().map(|number| number.parse::<u32>().unwrap());
        let mut next = || numbers.next().unwrap();
        (next(), next() as u8, next() as u8)
    };
    path.split(',').map(one).collect()
}

/// Both nodes start for the first time, with an application that will write.
fn empty(root: Root, rule: Option<LeftOut>) -> World {
    let mut world = World::new(1, root.lans, Chance::without(Duration::from_millis(1)), |config| {
        config.start_wait = Duration::from_secs(6);
        config.agent_timeout = Duration::from_secs(5);
        config.stop_timeout = Duration::from_secs(8);
        config.max_loop = 1000;
        config.left_out = rule;
        if root.lock {
            config.arbiter = ArbiterKind::Lock;
        }
    });
    world.oracle.reuses = true;
    world.write_every = Some(Duration::from_millis(300));
    world.after(Duration::from_millis(600), Happening::Epoch);
    world.boot(0, true);
    world.boot(1, true);
    world
}

/// PRIM and SECOND.
fn pair(mut world: World) -> World {
    assert!(world.run_until(Duration::from_secs(10), World::is_paired).unwrap());
    world.run(Duration::from_millis(500)).unwrap();
    world
}

/// The primary has a version with another lock arbiter, which the second is to get.
fn exchanged(world: World) -> World {
    let mut world = pair(world);
    world.install(0, Lock("w2".to_owned()));
    world
}

/// The second returns after the first went on without it, and got another lock arbiter meanwhile.
fn missed_it(world: World) -> World {
    let mut world = pair(world);
    world.crash(1);
    world.run(Duration::from_secs(4)).unwrap();
    world.install(0, Lock("w2".to_owned()));
    world.boot(1, true);
    world
}

/// The second returns after the first went on without it.
fn behind(world: World) -> World {
    let mut world = pair(world);
    world.crash(1);
    world.run(Duration::from_secs(4)).unwrap();
    world.boot(1, true);
    world
}

/// Both went on alone, and hear each other again.
fn parted(world: World) -> World {
    let mut world = pair(world);
    world.lans[0].cut = [true, true];
    world.run(Duration::from_secs(5)).unwrap();
    world.lans[0].cut = [false, false];
    world
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
