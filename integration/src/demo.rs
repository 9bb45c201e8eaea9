//! The demo: two hosts, a ledger, a client; the primary loses power, returns, and takes its role back.

use std::time::Duration;

use crate::cluster::Cluster;
use crate::error::{Context as _, Error, Result};
use crate::eventually::{eventually, eventually_true, throughout};
use crate::host::Host;
use crate::ledger::client::Client;
use crate::ledger::protected::{ADDRESS, DIRECTORY, MODULE, endpoint, module};
use crate::node::Node;
use crate::status::State;
use crate::timeline::{Timeline, Tone};
use crate::watch::Watch;
use crate::{clock, tree};

mod table;

pub use table::Outcome;

/// How long the client writes between two steps, so that there is something to see.
const INTERLUDE: Duration = Duration::from_secs(4);

/// Longest wait for writes to go on after a fault.
const FAILOVER_MAX: Duration = Duration::from_secs(60);

/// Mebibytes that lie beside the ledger from the beginning.
const ARCHIVE_MIB: u32 = 32;

/// The cluster of the demo.
#[derive(Debug)]
pub struct Demo {
    cluster: Cluster,
    outside: Host,
}

impl Demo {
    /// Hosts, cluster and module; the ledger serves when this returns.
    pub fn up(timeline: &Timeline) -> Result<Self> {
        timeline
            .event(Tone::Step, "two hosts in namespaces of their own, a client beside them, two networks");
        let cluster = Cluster::bare("demo")?;
        let outside = cluster.client("client", 100)?;
        timeline.event(Tone::Step, "safectl cluster init on n1, safectl cluster join TOKEN on n2");
        cluster.form()?;
        timeline.event(Tone::Step, &format!("safectl module install {MODULE}; safectl start {MODULE}"));
        cluster.start_module(&module()?)?;
        let archive = format!("head -c {ARCHIVE_MIB}M /dev/urandom > {DIRECTORY}/archive");
        cluster.node(0).shell(&archive)?;
        let text = format!(
            "n1 is PRIM with {ADDRESS}, n2 is SECOND; {ARCHIVE_MIB} MiB of old files beside the ledger"
        );
        timeline.event(Tone::Cluster, &text);
        Ok(Self { cluster, outside })
    }

    /// The whole story; the client and the cluster go on living when it ends.
    pub fn play(&self, timeline: &Timeline) -> Result<Outcome> {
        let mut client = Client::start(&self.outside, endpoint()?)?;
        let watch = Watch::default();
        let told = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| watch.run(&self.cluster, MODULE, &client, timeline));
            let told = self.story(&client, timeline);
            watch.stop();
            let watched = watcher.join().map_err(|_| Error::new("the watcher panicked"));
            told.and_then(|outcome| watched.map(|()| outcome))
        });
        client.stop()?;
        self.check(&client, told?, timeline)
    }

    /// Where its files are.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Takes everything down.
    pub fn finish(self) -> Result<()> {
        self.cluster.finish()
    }

    fn story(&self, client: &Client, timeline: &Timeline) -> Result<Outcome> {
        let (first, second) = (self.cluster.node(0), self.cluster.node(1));
        timeline.event(
            Tone::Step,
            &format!("the client writes to http://{ADDRESS}:8080, each entry on both disks"),
        );
        eventually_true(FAILOVER_MAX, "first writes", || client.count() >= 10)?;
        self.write_on(client)?;
        let failover = self.lose_power(first, second, client, timeline)?;
        self.write_on(client)?;

        timeline.event(Tone::Step, "n1 has power again and boots");
        let returned = clock::now();
        first.restart_host()?;
        self.cluster.wait_state(MODULE, &second.name, State::Prim)?;
        self.cluster.wait_state(MODULE, &first.name, State::Second)?;
        let resync = clock::now().duration_since(returned);
        let pause_of_resync = client.longest_pause(returned, clock::now());
        let (bytes_total, bytes_sent) = second.last_resync(MODULE)?.unwrap_or_default();
        let text = format!(
            "n1 is in step again after {:.1} s, the client never stopped writing",
            resync.as_secs_f64()
        );
        timeline.event(Tone::Figure, &text);
        self.write_on(client)?;

        let swap = self.swap_back(client, timeline)?;
        self.write_on(client)?;
        Ok(Outcome { failover, resync, pause_of_resync, bytes_sent, bytes_total, swap, ..Outcome::default() })
    }

    fn lose_power(
        &self,
        lost: &Node,
        other: &Node,
        client: &Client,
        timeline: &Timeline,
    ) -> Result<Duration> {
        timeline.event(Tone::Fault, &format!("{} loses power", lost.name));
        let moment = lost.kill_host()?;
        let answered =
            eventually(FAILOVER_MAX, "the ledger answers again", || Ok(client.first_after(moment)))?;
        let failover = answered.heard.saturating_duration_since(moment);
        let text = format!("{} answers at {ADDRESS} after {:.2} s", other.name, failover.as_secs_f64());
        timeline.event(Tone::Figure, &text);
        self.cluster.wait_state(MODULE, &other.name, State::Alone)?;
        Ok(failover)
    }

    fn swap_back(&self, client: &Client, timeline: &Timeline) -> Result<Duration> {
        timeline.event(Tone::Step, &format!("safectl swap {MODULE}"));
        let begin = clock::now();
        self.cluster.node(0).safectl(&format!("swap {MODULE}"))?;
        self.cluster.wait_pair(MODULE, "n1")?;
        let moment = clock::now();
        let answered =
            eventually(FAILOVER_MAX, "the ledger answers after the swap", || Ok(client.first_after(moment)))?;
        let pause = client.longest_pause(begin, answered.heard);
        let text = format!("n1 serves again; the client waited {:.2} s", pause.as_secs_f64());
        timeline.event(Tone::Figure, &text);
        Ok(pause)
    }

    /// The client must get on all the time.
    fn write_on(&self, client: &Client) -> Result<()> {
        let begin = client.count();
        throughout(INTERLUDE, "interlude", || Ok(true))?;
        if client.count() > begin { Ok(()) } else { Err(Error::new("the client does not get on")) }
    }

    fn check(&self, client: &Client, mut outcome: Outcome, timeline: &Timeline) -> Result<Outcome> {
        timeline
            .event(Tone::Step, "the client stops; its record is compared with the ledger, and n1 with n2");
        let within = Duration::from_secs(30);
        outcome.acknowledged = client.count();
        outcome.lost = eventually(within, "the ledger answers", || client.lost().map(Some))?.len();
        let [one, other] = [0, 1].map(|index| self.cluster.node(index).outside(DIRECTORY));
        outcome.differences = tree::differences(&one, &other)?.len();
        Ok(outcome)
    }
}

/// What to try while the cluster is kept.
pub fn suggestions(cluster: &Cluster) -> Result<String> {
    let door = |node: &Node| node.door().context(|| node.name.clone());
    let init = cluster.node(0).init()?;
    let (first, second) = (door(cluster.node(0))?, door(cluster.node(1))?);
    Ok(format!(
        "The cluster runs until Ctrl-C. Each host has a door: a script that runs a program on it. In another terminal, as \
         root:\n\n  \
         {first} safectl status\n  \
         {first} safectl swap {MODULE}\n  \
         {first} safectl events\n  \
         {second} safectl log {MODULE}\n  \
         {second} ls -l {DIRECTORY}\n  \
         {second} curl -s http://{ADDRESS}:8080/count\n  \
         {first} pkill -9 safed                  for 10 s the application does not notice; then n2 takes over\n  \
         {first} safed &                         starts it again\n  \
         kill -9 {init}                          n1 loses power, for good\n"
    ))
}
