//! Carries out what one module's core decides, strictly in order.
//!
//! Writing hard state is waited for: nothing that follows may be seen before it is durable. Scripts, addresses, the
//! replicator and the hunt for processes are begun in order and report by themselves when they are done.
//!
//! What ends service does not wait for a write, which may hang: it is given out of turn too, unreported, and what would
//! begin service before its turn comes is left out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use safe_failover::Event;
use safe_failover::action::{Action, ReplicatorCommand, ScriptRun};
use safe_failover::hard::HardState;
use safe_failover::view::View;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::address::{self, Addresses};
use crate::arbiter::{Arbiters, Question};
use crate::events::Events;
use crate::node::{Network, Reporter, What};
use crate::processes::{Hunt, Leftover};
use crate::replica::{self, Replica};
use crate::scripts::Scripts;
use crate::store::{Store, StoreError};

/// Batches that may wait for the executor. Far more than a core produces while a disk takes its time; when they do
/// not fit the disk hangs.
const QUEUE: usize = 512;

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

/// Where hard state is written.
pub trait Durable: Send + Sync + 'static {
    /// Makes it durable. May block for as long as the disk likes.
    ///
    /// # Errors
    /// Nothing is known to have been written; what counted before still counts.
    fn persist(&mut self, state: &HardState) -> Result<(), StoreError>;
}

impl Durable for Store {
    fn persist(&mut self, state: &HardState) -> Result<(), StoreError> {
        Self::persist(self, state)
    }
}

/// What the executor needs.
pub struct Setup {
    /// Module.
    pub module: String,
    /// Hard state.
    pub store: Box<dyn Durable>,
    /// A write of hard state that takes longer has failed: the disk hangs (`local_timeout`).
    pub write_limit: Duration,
    /// The network.
    pub network: Arc<dyn Network>,
    /// The replicator.
    pub replica: Replica,
    /// Virtual addresses.
    pub addresses: Addresses,
    /// Arbiters.
    pub arbiters: Arbiters,
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
    batches: mpsc::Sender<Numbered>,
    shared: Arc<Shared>,
    replica: Replica,
    addresses: Addresses,
}

#[derive(Debug, Default)]
struct Shared {
    /// Batches with a write of hard state that were handed over.
    writes: AtomicU64,
    /// Those of them that are done with.
    written: AtomicU64,
    /// Batches with a fence, so far.
    fences: AtomicU64,
}

#[derive(Debug)]
struct Numbered {
    batch: Batch,
    /// How many fences had been ordered when this batch was, its own included.
    fences: u64,
}

/// The executor does not take any more: the disk that holds hard state hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow;

impl Executor {
    /// Starts the task; it ends when the last way to it is dropped and all is done.
    #[must_use]
    pub fn start(setup: Setup) -> Self {
        let (batches, mut inbox) = mpsc::channel(QUEUE);
        let (replica, addresses) = (setup.replica.clone(), setup.addresses.clone());
        let shared = Arc::<Shared>::default();
        let mut worker = Worker::new(setup, Arc::clone(&shared));
        tokio::spawn(async move {
            while let Some(Numbered { batch, fences }) = inbox.recv().await {
                worker.carry_out(batch, fences).await;
            }
        });
        Self { batches, shared, replica, addresses }
    }

    /// Hands over a batch; never waits.
    ///
    /// # Errors
    /// The executor is too far behind.
    pub fn begin(&self, batch: Batch) -> Result<(), Overflow> {
        let writes = batch.actions.iter().any(|action| matches!(action, Action::Persist(_)));
        let waits =
            writes || self.shared.writes.load(Ordering::SeqCst) != self.shared.written.load(Ordering::SeqCst);
        if batch.actions.iter().any(fences) {
            self.shared.fences.fetch_add(1, Ordering::SeqCst);
        }
        if waits {
            self.end_first(&batch);
        }
        if writes {
            self.shared.writes.fetch_add(1, Ordering::SeqCst);
        }
        let fences = self.shared.fences.load(Ordering::SeqCst);
        self.batches.try_send(Numbered { batch, fences }).map_err(|_| Overflow)
    }

    /// To do it too early is safe, and it is done and reported once more in its turn.
    fn end_first(&self, batch: &Batch) {
        for action in &batch.actions {
            // What does not fit comes in its turn.
            if let Action::Replicator(command) = action
                && fences(action)
            {
                self.replica.offer(replica::Order::Early(command.clone()));
            } else if matches!(action, Action::DropAddresses) {
                self.addresses.offer(address::Order::DropEarly);
            }
        }
    }
}

/// After this the replicator serves nothing.
const fn fences(action: &Action) -> bool {
    matches!(action, Action::Replicator(ReplicatorCommand::Fence | ReplicatorCommand::Kill))
}

/// What could put it into service.
const fn begins_service(action: &Action) -> bool {
    matches!(
        action,
        Action::RaiseAddresses | Action::Replicator(ReplicatorCommand::Mount | ReplicatorCommand::Settle(_))
    )
}

struct Worker {
    module: String,
    store: Keeping,
    write_limit: Duration,
    network: Arc<dyn Network>,
    replica: Replica,
    addresses: Addresses,
    arbiters: Arbiters,
    scripts: Arc<Scripts>,
    hunt: Hunt,
    events: Events,
    reporter: Reporter,
    shared: Arc<Shared>,
    /// Batches of this generation and before rest on a write that failed.
    void_up_to: Option<u64>,
}

/// Where the store is.
enum Keeping {
    Here(Box<dyn Durable>),
    /// With a write that has not ended in time.
    Away(JoinHandle<Written>),
    /// A write ended in a way that leaves nothing to write with.
    Gone,
}

type Written = (Box<dyn Durable>, Result<(), StoreError>);

impl Worker {
    fn new(setup: Setup, shared: Arc<Shared>) -> Self {
        Self {
            module: setup.module,
            store: Keeping::Here(setup.store),
            write_limit: setup.write_limit,
            network: setup.network,
            replica: setup.replica,
            addresses: setup.addresses,
            arbiters: setup.arbiters,
            scripts: setup.scripts,
            hunt: setup.hunt,
            events: setup.events,
            reporter: setup.reporter,
            shared,
            void_up_to: None,
        }
    }

    async fn carry_out(&mut self, batch: Batch, fences: u64) {
        let writes = batch.actions.iter().any(|action| matches!(action, Action::Persist(_)));
        if self.void_up_to.is_none_or(|generation| batch.generation > generation) {
            self.carry_out_valid(batch, fences).await;
        }
        if writes {
            self.shared.written.fetch_add(1, Ordering::SeqCst);
        }
    }

    async fn carry_out_valid(&mut self, batch: Batch, fences: u64) {
        let last = batch.actions.iter().rposition(self::fences);
        for (index, action) in batch.actions.into_iter().enumerate() {
            let fenced =
                last.is_some_and(|last| index < last) || self.shared.fences.load(Ordering::SeqCst) != fences;
            if fenced && begins_service(&action) {
                // The core has changed its mind since, and awaits no answer of this any more.
                continue;
            }
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
        let serial = state.serial;
        let mut store = self.take_store().await?;
        let mut write = tokio::task::spawn_blocking(move || {
            let written = store.persist(&state);
            (store, written)
        });
        let Ok(written) = tokio::time::timeout(self.write_limit, &mut write).await else {
            self.store = Keeping::Away(write);
            let waited = self.write_limit;
            return Err(format!("the write has not ended within {waited:?}, the disk hangs"));
        };
        let (store, written) = written.map_err(|error| error.to_string())?;
        self.store = Keeping::Here(store);
        written.map_err(|error| error.to_string())?;
        self.reporter.event(Event::Persisted { serial }).await;
        Ok(())
    }

    /// The store, once the write that did not end in time has ended.
    async fn take_store(&mut self) -> Result<Box<dyn Durable>, String> {
        match std::mem::replace(&mut self.store, Keeping::Gone) {
            Keeping::Here(store) => Ok(store),
            Keeping::Away(write) if write.is_finished() => {
                // What became of that write does not matter: it was reported as failed, and another one follows.
                write.await.map(|(store, _)| store).map_err(|error| error.to_string())
            }
            Keeping::Away(write) => {
                self.store = Keeping::Away(write);
                Err("an earlier write has not ended yet, the disk hangs".to_owned())
            }
            Keeping::Gone => Err("an earlier write did not end well; restart safed".to_owned()),
        }
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
            Action::ArbiterRead(lock) => self.arbiters.ask(lock, Question::Read),
            Action::ArbiterSwap { lock, expect, new } => {
                self.arbiters.ask(lock, Question::Swap { expect, new });
            }
            Action::AskReachable => self.arbiters.ask_reachable(),
            Action::Record(record) => self.events.record(&self.module, record.alarm, &record.text),
            Action::Answer(command, outcome) => self.reporter.tell(What::Answer(command, outcome)).await,
        }
    }

    async fn publish(&self, view: View, (gone, fenced): &(View, View)) {
        self.arbiters.follow(&view);
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

#[cfg(test)]
mod tests;
