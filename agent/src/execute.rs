//! Carries out what one module's core decides, strictly in order.
//!
//! Writing hard state is waited for: nothing that follows may be seen before it is durable. Scripts, addresses, the
//! replicator and the hunt for processes are begun in order and report by themselves when they are done.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use safe_failover::action::{Action, ReplicatorCommand, ScriptRun};
use safe_failover::event::ArbiterEvent;
use safe_failover::hard::HardState;
use safe_failover::view::View;
use safe_failover::{Event, Time};
use tokio::sync::mpsc;

use crate::address::{self, Addresses};
use crate::clock;
use crate::events::Events;
use crate::node::{Network, Reporter, What};
use crate::processes::{Hunt, Leftover};
use crate::replica::{self, Replica};
use crate::scripts::Scripts;
use crate::store::Store;

/// Batches that may wait for the executor. Far more than a core produces while a disk takes its time; when they do
/// not fit the disk hangs.
const QUEUE: usize = 512;

/// A write of hard state that takes this long may be one that never ends.
const SLOW: Duration = Duration::from_millis(250);

/// Longest hunt for processes. One that is left then waits for a disk, and has lost the mount anyway.
const HUNT: Duration = Duration::from_secs(15);

/// The answer of a core to one event.
#[derive(Debug)]
pub struct Batch {
    /// What to do, in order.
    pub actions: Vec<Action>,
    /// Raised by the owner loop when it has heard of a failed write: batches of before are void.
    pub generation: u64,
    /// What the replicator is to say should the agent go, after this batch: alive and fenced.
    pub stand_in: (View, View),
}

/// What the executor needs.
pub struct Setup {
    /// Module.
    pub module: String,
    /// Hard state.
    pub store: Store,
    /// The network.
    pub network: Arc<dyn Network>,
    /// The replicator.
    pub replica: Replica,
    /// Virtual addresses.
    pub addresses: Addresses,
    /// Scripts.
    pub scripts: Arc<Scripts>,
    /// Whom to kill; the replicator is spared besides.
    pub hunt: Hunt,
    /// The record of events.
    pub events: Events,
    /// The owner loop.
    pub reporter: Reporter,
}

/// A way to the executor of one module.
#[derive(Debug, Clone)]
pub struct Executor {
    batches: mpsc::Sender<Batch>,
    /// A write of hard state goes on since then; 0: none does.
    writing_since: Arc<AtomicU64>,
    replica: Replica,
    addresses: Addresses,
}

/// The executor does not take any more: the disk that holds hard state hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow;

impl Executor {
    /// Starts the task; it ends when the last way to it is dropped and all is done.
    #[must_use]
    pub fn start(setup: Setup) -> Self {
        let (batches, mut inbox) = mpsc::channel(QUEUE);
        let writing_since = Arc::new(AtomicU64::new(0));
        let (replica, addresses) = (setup.replica.clone(), setup.addresses.clone());
        let writing = Arc::clone(&writing_since);
        tokio::spawn(async move {
            let Setup { module, store, network, replica, addresses, scripts, hunt, events, reporter } = setup;
            let mut worker = Worker {
                module,
                store: Some(store),
                network,
                replica,
                addresses,
                scripts,
                hunt,
                events,
                reporter,
                writing_since: writing,
                void_up_to: None,
            };
            while let Some(batch) = inbox.recv().await {
                worker.carry_out(batch).await;
            }
        });
        Self { batches, writing_since, replica, addresses }
    }

    /// Hands over a batch; never waits.
    ///
    /// # Errors
    /// The executor is too far behind.
    pub fn begin(&self, batch: Batch) -> Result<(), Overflow> {
        if self.hangs() {
            self.fence_first(&batch);
        }
        self.batches.try_send(batch).map_err(|_| Overflow)
    }
}

impl Executor {
    /// A write takes so long that the disk may hang.
    fn hangs(&self) -> bool {
        let since = self.writing_since.load(Ordering::Relaxed);
        since != 0 && clock::now().since(Time(since)) > SLOW
    }

    /// What ends service does not wait for a disk that hangs: to do it too early is safe, and it is done once more in
    /// its turn.
    fn fence_first(&self, batch: &Batch) {
        for action in &batch.actions {
            if let Action::Replicator(command @ (ReplicatorCommand::Fence | ReplicatorCommand::Kill)) = action
            {
                self.replica.offer(replica::Order::Command(command.clone()));
            } else if matches!(action, Action::DropAddresses) {
                self.addresses.offer(address::Order::Drop);
            }
        }
    }
}

struct Worker {
    module: String,
    /// None: a write ended in a way that leaves nothing to write with.
    store: Option<Store>,
    network: Arc<dyn Network>,
    replica: Replica,
    addresses: Addresses,
    scripts: Arc<Scripts>,
    hunt: Hunt,
    events: Events,
    reporter: Reporter,
    writing_since: Arc<AtomicU64>,
    /// Batches of this generation and before rest on a write that failed.
    void_up_to: Option<u64>,
}

impl Worker {
    async fn carry_out(&mut self, batch: Batch) {
        if self.void_up_to.is_some_and(|generation| batch.generation <= generation) {
            return;
        }
        for action in batch.actions {
            if let Action::Persist(state) = action {
                if let Err(why) = self.persist(state).await {
                    self.events.record(&self.module, true, &format!("hard state cannot be written: {why}"));
                    self.void_up_to = Some(batch.generation);
                    self.reporter.event(Event::PersistFailed).await;
                    return;
                }
            } else {
                self.begin(action, &batch.stand_in).await;
            }
        }
    }

    async fn persist(&mut self, state: Box<HardState>) -> Result<(), String> {
        let mut store = self.store.take().ok_or("an earlier write did not end")?;
        let serial = state.serial;
        let written = tokio::task::spawn_blocking(move || {
            let written = store.persist(&state);
            (store, written)
        });
        self.writing_since.store(clock::now().0, Ordering::Relaxed);
        let written = written.await;
        self.writing_since.store(0, Ordering::Relaxed);
        let (store, written) = written.map_err(|error| error.to_string())?;
        self.store = Some(store);
        written.map_err(|error| error.to_string())?;
        self.reporter.event(Event::Persisted { serial }).await;
        Ok(())
    }

    async fn begin(&self, action: Action, stand_in: &(View, View)) {
        match action {
            // Carried out before.
            Action::Persist(_) => {}
            Action::Tell(view) => self.publish(*view, stand_in).await,
            Action::Replicator(command) => self.replica.order(replica::Order::Command(command)).await,
            Action::RaiseAddresses => self.addresses.order(address::Order::Raise).await,
            Action::DropAddresses => self.addresses.order(address::Order::Drop).await,
            Action::Script(run) => self.script(run),
            Action::KillProcesses => self.hunt(),
            Action::ArbiterRead | Action::ArbiterSwap { .. } => {
                self.reporter.event(Event::Arbiter(ArbiterEvent::Unreachable)).await;
            }
            Action::AskReachable => self.reporter.event(Event::Reachable(false)).await,
            Action::Record(record) => self.events.record(&self.module, record.alarm, &record.text),
            Action::Answer(command, outcome) => self.reporter.tell(What::Answer(command, outcome)).await,
        }
    }

    async fn publish(&self, view: View, (gone, fenced): &(View, View)) {
        self.network.publish(&self.module, view);
        if let Some(stand_in) = self.network.stand_in(&self.module, gone.clone(), fenced.clone()) {
            self.replica.order(replica::Order::StandIn(stand_in)).await;
        }
    }

    fn script(&self, run: ScriptRun) {
        let (scripts, reporter) = (Arc::clone(&self.scripts), self.reporter.clone());
        tokio::spawn(async move {
            let outcome = scripts.run(&run).await;
            reporter.event(Event::ScriptEnded { run: run.run, outcome }).await;
        });
    }

    fn hunt(&self) {
        let mut hunt = self.hunt.clone();
        hunt.spare.extend(self.replica.spare());
        let (module, events, reporter) = (self.module.clone(), self.events.clone(), self.reporter.clone());
        tokio::spawn(async move {
            let killed = tokio::task::spawn_blocking(move || hunt.kill(HUNT)).await;
            let left = match killed {
                Ok(Ok(())) => None,
                Ok(Err(left)) => Some(describe(&left)),
                Err(error) => Some(format!("the hunt for processes failed: {error}")),
            };
            if let Some(left) = left {
                events.record(&module, true, &left);
            }
            reporter.event(Event::ProcessesGone).await;
        });
    }
}

fn describe(left: &Leftover) -> String {
    let list = |pids: &std::collections::BTreeSet<i32>| {
        pids.iter().take(20).map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    let mut sentence = Vec::new();
    if !left.alive.is_empty() {
        sentence.push(format!(
            "processes of the module that cannot be killed, they wait for a disk: {}",
            list(&left.alive)
        ));
    }
    if !left.unreadable.is_empty() {
        sentence.push(format!("processes that could not be looked at: {}", list(&left.unreadable)));
    }
    sentence.join("; ")
}
