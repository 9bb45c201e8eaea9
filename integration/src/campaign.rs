//! Faults by seed on real hosts, under a protected ledger and a witness; what was promised is checked from outside.
//!
//! Three clients write all the time: one through the virtual address, one to each host's own. Every acknowledged write
//! must be in the ledger in the end, whoever acknowledged it, and the two hosts must never answer at the same time. After
//! each round everything is repaired, and without a person one node must become PRIM and the other SECOND.

use std::fmt;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::error::{Context as _, Error, Result};
use crate::eventually::{eventually, throughout};
use crate::lan::DEFAULT;
use crate::ledger::client::Client;
use crate::ledger::protected::{ADDRESS, DIRECTORY, MODULE, endpoint, module};
use crate::node::Node;
use crate::status::{Phase, State};
use crate::{clock, tree};

mod fault;
pub mod history;

use crate::chance::Chance;
use fault::{Fault, Place};

/// Number of the witness on the production network, and of the clients' host.
const THIRD: u8 = 200;
const OUTSIDE: u8 = 100;

/// A pair forms again within this time after everything is repaired: heartbeats, `start_wait`, scripts, a busy machine.
const REPAIRED: Duration = Duration::from_secs(120);

/// Numbers of the entries that the clients of the hosts' own addresses write begin here.
const OWN_ENTRIES: u64 = 1_000_000_000;

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Rounds, and faults in them.
    pub rounds: u32,
    /// Faults of all rounds.
    pub faults: u32,
    /// Writes acknowledged through the virtual address and by each host.
    pub acknowledged: [usize; 3],
    /// Longest time from the repair to a pair.
    pub slowest_pair: Duration,
    /// Each round: its faults, and how long the pair took.
    pub log: Vec<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [address, first, second] = self.acknowledged;
        writeln!(
            f,
            "| seed | rounds | faults | acknowledged: address, n1, n2 | lost | by both | stuck | slowest pair |"
        )?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- | --- | --- |")?;
        write!(
            f,
            "| {} | {} | {} | {address}, {first}, {second} | 0 | 0 | 0 | {:.1} s |",
            self.seed,
            self.rounds,
            self.faults,
            self.slowest_pair.as_secs_f64()
        )
    }
}

/// Hosts, witness, clients.
#[derive(Debug)]
pub struct Campaign {
    clients: [Client; 3],
    place: Place,
    chance: Chance,
    outcome: Outcome,
    _outside: crate::host::Host,
}

impl Campaign {
    /// A cluster with a ledger and a witness, the clients writing.
    pub fn begin(name: &str, seed: u64) -> Result<Self> {
        let cluster = Cluster::two_nodes(name)?;
        let outside = cluster.client("client", OUTSIDE)?;
        let third = Node::new(cluster.client("third", THIRD)?);
        third.start_agent()?;
        let token = third.safectl(&format!("witness init --address {}", DEFAULT.address(THIRD)))?;
        let target = cluster.node(0).safectl(&format!("witness add {token}"))?;
        // Nobody gives up after three restarts: the faults of a campaign are more than those of a day.
        let module = module()?
            .key("max_loop", "1000")
            .section(&format!("[[arbiter]]\nkind = \"witness\"\ntarget = \"{target}\""));
        cluster.start_module(&module)?;
        let own = |index: usize, first| {
            let address = format!("{}:{}", DEFAULT.address(cluster.node(index).number), endpoint()?.port());
            Client::start_at(&outside, address.parse().context(|| address.clone())?, first)
        };
        let clients = [Client::start(&outside, endpoint()?)?, own(0, OWN_ENTRIES)?, own(1, 2 * OWN_ENTRIES)?];
        let outcome = Outcome { seed, ..Outcome::default() };
        let place = Place::new(cluster, third);
        Ok(Self { clients, place, chance: Chance::new(seed), outcome, _outside: outside })
    }

    /// Rounds until the time is over, then the verdict. `tell` hears of each round when it ends.
    pub fn run(mut self, length: Duration, mut tell: impl FnMut(&str)) -> Result<Outcome> {
        let end = clock::now() + length;
        self.wait_writes()?;
        while clock::now() < end {
            let line = self.round()?;
            tell(&line);
            self.outcome.log.push(line);
        }
        self.verdict()
    }

    /// A few faults that overlap, each with its end; then the repair of whatever is still broken.
    fn round(&mut self) -> Result<String> {
        let mut names = Vec::new();
        let count = 1 + self.chance.below(3);
        let mut ends: Vec<(std::time::Instant, Fault)> = Vec::new();
        for _ in 0..count {
            let (fault, lasts) = (fault::draw(&mut self.chance), self.lasts());
            names.push(format!("{fault} {:.1} s", lasts.as_secs_f64()));
            let context = || format!("seed {}, round {}: {fault}", self.outcome.seed, self.outcome.rounds);
            self.place.inject(fault).context(context)?;
            ends.push((clock::now() + lasts, fault));
            let pause = Duration::from_millis(self.chance.below(1500));
            self.pass(pause, &mut ends)?;
        }
        while let Some(last) = ends.iter().map(|(end, _)| *end).max() {
            self.pass(last.saturating_duration_since(clock::now()), &mut ends)?;
        }
        self.outcome.rounds += 1;
        self.outcome.faults += u32::try_from(names.len()).unwrap_or(u32::MAX);
        let text = names.join(", ");
        let took = self
            .repair()
            .context(|| format!("seed {}, round {} ({text})", self.outcome.seed, self.outcome.rounds))?;
        self.outcome.slowest_pair = self.outcome.slowest_pair.max(took);
        Ok(format!("round {}: {text}; a pair after {:.1} s", self.outcome.rounds, took.as_secs_f64()))
    }

    /// Around the times after which nodes decide something.
    fn lasts(&mut self) -> Duration {
        let millis = match self.chance.below(4) {
            0 => self.chance.below(700),
            1 => 1500 + self.chance.below(1000),
            2 => 2500 + self.chance.below(1000),
            _ => 3500 + self.chance.below(4000),
        };
        Duration::from_millis(millis)
    }

    /// Lets time pass, with the ends of the faults that fall into it.
    fn pass(&self, time: Duration, ends: &mut Vec<(std::time::Instant, Fault)>) -> Result<()> {
        let end = clock::now() + time;
        loop {
            let now = clock::now();
            if let Some(index) = ends.iter().position(|(end, _)| *end <= now) {
                let (_, fault) = ends.remove(index);
                self.place.end(fault)?;
                continue;
            }
            let next = ends.iter().map(|(end, _)| *end).min().unwrap_or(end).min(end);
            if now >= end {
                return Ok(());
            }
            throughout(next.saturating_duration_since(now), "time passes", || Ok(true))?;
        }
    }

    /// Everything is whole again; answers how long it took until there was a pair.
    fn repair(&self) -> Result<Duration> {
        self.place.repair_all()?;
        let begun = clock::now();
        eventually(REPAIRED, "one is PRIM, the other SECOND, without a person", || {
            let mut states = Vec::new();
            for node in self.place.cluster.nodes() {
                let status = node.status(MODULE)?;
                if status.phase != Some(Phase::Ready) {
                    return Err(Error::new(status.line()));
                }
                states.push(status.state);
            }
            Ok(matches!(states[..], [State::Prim, State::Second] | [State::Second, State::Prim])
                .then_some(()))
        })?;
        let took = clock::now().saturating_duration_since(begun);
        self.wait_writes()?;
        let holders: Vec<_> =
            self.place.cluster.nodes().iter().filter(|node| node.has_address(ADDRESS)).collect();
        if holders.len() != 1 {
            return Err(Error::new(format!("{ADDRESS} is on {} hosts of a pair", holders.len())));
        }
        Ok(took)
    }

    /// The service answers at its address.
    fn wait_writes(&self) -> Result<()> {
        let moment = clock::now();
        eventually(
            REPAIRED,
            "the ledger answers at its address",
            || Ok(self.clients[0].first_after(moment)),
        )?;
        Ok(())
    }

    /// Ends the load: nothing acknowledged is lost, no moment at which both answered, equal copies.
    fn verdict(mut self) -> Result<Outcome> {
        let seed = self.outcome.seed;
        for client in &mut self.clients {
            client.stop()?;
        }
        for (index, client) in self.clients.iter().enumerate() {
            let reader = &self.clients[0];
            let entries = eventually(REPAIRED, "the ledger answers", || reader.entries().map(Some))?;
            let lost = client.missing(&entries);
            if !lost.is_empty() {
                let text = format!(
                    "seed {seed}: {} of {} writes acknowledged to client {index} are lost: {:?}",
                    lost.len(),
                    client.count(),
                    &lost[..lost.len().min(10)]
                );
                return Err(Error::new(text));
            }
            self.outcome.acknowledged[index] = client.count();
        }
        let [_, first, second] = &self.clients;
        if let Some(overlap) = history::overlap(&first.acknowledged(), &second.acknowledged()) {
            return Err(Error::new(format!(
                "seed {seed}: both hosts acknowledged writes at once: {overlap}"
            )));
        }
        tree::assert_equal(&self.place.cluster, DIRECTORY)?;
        drop(self.clients);
        self.place.finish()?;
        Ok(self.outcome)
    }
}
