//! Arbiters: the opinion of a third party, asked when nothing is heard from the other node.
//!
//! Every arbiter is asked every ten seconds, for people ([`board`]). A decision uses only what is asked anew at the loss,
//! with a deadline that leaves time to act on it; the core is answered by an event. Reading order: this file, [`probe`]
//! (what only answers whether it is there), [`lock`] (what holds a record), [`witness`], [`board`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use safe_failover::Event;
use safe_failover::event::ArbiterEvent;
use safe_failover::lineage::LineageId;
use safe_failover::lock::Lock as LockName;
use safe_failover::view::View;
use safe_proto::spec::{ArbiterKind, ArbiterSpec};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::children::Children;
use crate::events::Events;
use crate::module::Module;
use crate::node::Reporter;

mod board;
mod command;
mod host;
mod http;
mod lock;
mod ping;
mod probe;
mod witness;

use board::Board;
use lock::{Keeper, Lock};
use probe::Probe;
pub use witness::Witnesses;

/// Between two questions while all is well.
const INTERVAL: Duration = Duration::from_secs(10);
/// For an answer then.
const PATIENCE: Duration = Duration::from_secs(3);

/// Hundredths of the heartbeat timeout for an answer at a loss, which is noticed at 100: what reaches nobody is not to be
/// taken for the service much longer.
const PROBE: u32 = 30;
/// The same of who holds the record: the serving node asks at 60 and must have read and set it before 90, at a second
/// attempt if the first fails.
const LOCK: u32 = 14;

/// What the arbiters of a module need.
pub struct Setup {
    /// The module.
    pub module: Arc<Module>,
    /// Lock arbiters that were in force before.
    pub before: Vec<LockName>,
    /// Where children are entered.
    pub children: Children,
    /// The way to the witnesses.
    pub witnesses: Witnesses,
    /// The record of events.
    pub events: Events,
    /// The owner loop.
    pub reporter: Reporter,
}

/// What the core asks a lock arbiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// What does its record say?
    Read,
    /// Compare the record, and set it.
    Swap {
        /// What it must be; none: absent.
        expect: Option<LineageId>,
        /// What it shall be.
        new: LineageId,
    },
}

/// The arbiters of one module. Everything ends when the last copy is dropped.
#[derive(Debug, Clone)]
pub struct Arbiters(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Those that only say whether they are there.
    probes: Arc<Vec<Asked>>,
    /// Those that hold a record, the one in force first, and what each is asked.
    keepers: Vec<(Arc<Keeper>, watch::Sender<Option<Question>>)>,
    reporter: Reporter,
    /// For an answer at a loss.
    patience: Duration,
    /// A question goes on: its answer answers another one, too.
    asking: Arc<AtomicBool>,
    board: Board,
    /// The core has begun.
    begun: AtomicBool,
    _end: DropGuard,
}

/// One of them.
#[derive(Debug)]
struct Asked {
    board: Board,
    /// Its place on the board.
    place: usize,
    probe: Probe,
}

impl Asked {
    /// One question; what came of it is seen on the board.
    async fn ask(&self, patience: Duration) -> bool {
        let answer = self.probe.ask(patience).await;
        self.board.note(self.place, answer.as_ref().map(|()| "").map_err(String::as_str));
        answer.is_ok()
    }

    async fn watch(&self) {
        loop {
            self.probe.resolve(PATIENCE).await;
            self.ask(PATIENCE).await;
            tokio::time::sleep(jittered(INTERVAL)).await;
        }
    }
}

impl Arbiters {
    /// Starts to watch them.
    #[must_use]
    pub fn keep(setup: Setup) -> Self {
        let Setup { module, before, children, witnesses, events, reporter } = setup;
        let end = CancellationToken::new();
        let shown = board::unknown(&module.spec);
        let board = Board::start(&module.name, shown, events, reporter.clone(), end.clone());
        let asked = |place: usize| {
            let probe = Probe::of(&module, &children, &module.spec.arbiter[place])?;
            Some(Asked { board: board.clone(), place, probe })
        };
        let probes: Vec<Asked> = (0..module.spec.arbiter.len()).filter_map(asked).collect();
        let probes = Arc::new(probes);
        for index in 0..probes.len() {
            let (probes, end) = (Arc::clone(&probes), end.clone());
            tokio::spawn(async move { end.run_until_cancelled(probes[index].watch()).await });
        }
        let timeout = module.spec.heartbeat.timeout;
        let own = crate::module::lock_of(&module.spec);
        let mut names: Vec<LockName> = own.into_iter().collect();
        for name in before {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let keepers =
            names.into_iter().filter_map(|name| keeper(name, &module, &witnesses, &board, &reporter));
        let keepers = keepers.map(|keeper| begin(keeper, &end)).collect();
        Self(Arc::new(Inner {
            probes,
            keepers,
            reporter,
            patience: timeout * PROBE / 100,
            asking: Arc::default(),
            board,
            begun: AtomicBool::new(false),
            _end: end.drop_guard(),
        }))
    }

    /// Of a module that has none.
    #[must_use]
    pub fn none(module: &str, events: Events, reporter: Reporter) -> Self {
        let end = CancellationToken::new();
        Self(Arc::new(Inner {
            probes: Arc::default(),
            keepers: Vec::new(),
            board: Board::start(module, Vec::new(), events, reporter.clone(), end.clone()),
            reporter,
            patience: Duration::ZERO,
            asking: Arc::default(),
            begun: AtomicBool::new(false),
            _end: end.drop_guard(),
        }))
    }

    /// Asks a lock arbiter; never waits. The answer comes as an event.
    pub fn ask(&self, lock: LockName, question: Question) {
        if let Some((_, questions)) = self.0.keepers.iter().find(|(keeper, _)| keeper.name == lock) {
            questions.send_replace(Some(question));
            return;
        }
        let reporter = self.0.reporter.clone();
        tokio::spawn(async move {
            reporter.event(Event::Arbiter(lock, ArbiterEvent::Unreachable)).await;
        });
    }

    /// This node says so of itself: under which lineage it serves is kept in mind.
    pub fn follow(&self, view: &View) {
        // Only of the one in force: it is its record that is kept near.
        for (keeper, _) in self.0.keepers.iter().filter(|(keeper, _)| keeper.place.is_some()) {
            keeper.follow(view);
        }
        if !self.0.begun.swap(true, Ordering::Relaxed) {
            // What was known before nobody kept.
            self.0.board.again();
        }
    }

    /// Asks those that only say whether they are there: yes as soon as one answers, no when the time of all is over.
    pub fn ask_reachable(&self) {
        if self.0.asking.swap(true, Ordering::AcqRel) {
            return;
        }
        let (probes, reporter) = (Arc::clone(&self.0.probes), self.0.reporter.clone());
        let (asking, patience) = (Arc::clone(&self.0.asking), self.0.patience);
        tokio::spawn(async move {
            let mut answers: FuturesUnordered<_> = probes.iter().map(|one| one.ask(patience)).collect();
            let mut reachable = false;
            while let Some(answers) = answers.next().await {
                reachable = answers;
                if reachable {
                    break;
                }
            }
            asking.store(false, Ordering::Release);
            reporter.event(Event::Reachable(reachable)).await;
        });
    }
}

/// Starts to watch a lock arbiter and to answer questions of it.
fn begin(keeper: Keeper, end: &CancellationToken) -> (Arc<Keeper>, watch::Sender<Option<Question>>) {
    let keeper = Arc::new(keeper);
    let (questions, asked) = watch::channel(None);
    let (watcher, end_of_watch) = (Arc::clone(&keeper), end.clone());
    tokio::spawn(async move { end_of_watch.run_until_cancelled(watcher.watch()).await });
    let (answerer, end) = (Arc::clone(&keeper), end.clone());
    tokio::spawn(async move { end.run_until_cancelled(answerer.answer(asked)).await });
    (keeper, questions)
}

/// A lock arbiter, if this release knows its kind.
fn keeper(
    name: LockName,
    module: &Module,
    witnesses: &Witnesses,
    board: &Board,
    reporter: &Reporter,
) -> Option<Keeper> {
    let spec = &module.spec;
    let target = name.0.strip_prefix(ArbiterKind::Witness.as_str())?.strip_prefix(' ')?;
    let is_own = |arbiter: &ArbiterSpec| arbiter.kind == ArbiterKind::Witness && arbiter.target == target;
    let lock: Arc<dyn Lock> = witnesses.at(target);
    Some(Keeper {
        module: module.name.clone(),
        lock,
        board: board.clone(),
        place: spec.arbiter.iter().position(is_own),
        reporter: reporter.clone(),
        patience: spec.heartbeat.timeout * LOCK / 100,
        served: Mutex::default(),
        name,
    })
}

/// Up to a fifth more or less: many modules are not to ask at the same instant.
fn jittered(time: Duration) -> Duration {
    let [random] = crate::random::bytes::<1>();
    time * 4 / 5 + time * 2 / 5 * u32::from(random) / 255
}
