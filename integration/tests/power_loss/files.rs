//! Loss of power under a file-system stressor that told what was durable.

use std::time::Duration;

use safe_integration::error::{Context as _, Error, Result};
use safe_integration::eventually::throughout;
use safe_integration::vm::{Losses, Machine, Pair, Record, Stress, compare};
use safe_integration::{Module, State, clock};

/// The module.
const MODULE: &str = "files";
/// Its replicated directory.
const DIRECTORY: &str = "/srv/data/files";

/// Longer than `start_wait`, after which a node that may goes on alone.
const LONGER_THAN_START_WAIT: Duration = Duration::from_secs(55);

/// Durable operations of the load between two events.
const SOME: usize = 150;

fn module() -> Module {
    Module::mirror(MODULE).replicate(DIRECTORY).section(crate::PATIENT)
}

/// A pair under load, and what was promised so far.
pub(crate) struct Campaign {
    pair: Pair,
    record: Record,
    pub(crate) losses: Losses,
    /// The machine that serves, the load on it, and how many loads there were.
    serving: usize,
    load: Option<Stress>,
    run: u32,
}

impl Campaign {
    pub(crate) fn start(name: &str) -> Result<Self> {
        let pair = Pair::cluster(name)?;
        pair.start_module(&module())?;
        let (record, losses) = (Record::default(), Losses::default());
        Ok(Self { pair, record, losses, serving: 0, load: None, run: 0 })
    }

    fn primary(&self) -> &Machine {
        self.pair.machine(self.serving)
    }

    fn other(&self) -> &Machine {
        self.pair.machine(1 - self.serving)
    }

    /// Load on the machine that serves, until so much more is durable.
    fn load(&mut self) -> Result<()> {
        if self.load.is_none() {
            self.run += 1;
            self.load = Some(Stress::start(self.primary(), DIRECTORY, self.run, &self.record)?);
        }
        self.load.as_ref().map_or(Ok(()), |load| load.goes_on(SOME))
    }

    /// Everything promised is on the machine that serves.
    fn found(&mut self, kind: &'static str) -> Result<()> {
        let verdict = self.record.check(self.primary(), DIRECTORY).context(|| kind.to_owned())?;
        self.losses.looked(kind, verdict.checked, verdict.lost);
        if verdict.lost == 0 {
            return Ok(());
        }
        Err(Error::new(format!("{kind}: {} durable things are lost: {}", verdict.lost, verdict.findings)))
    }

    /// The pair is whole again: the load ends, everything promised is there, both copies are equal.
    fn whole(&mut self, kind: &'static str) -> Result<()> {
        self.pair.wait_pair(MODULE, self.primary())?;
        self.load()?;
        self.load.take().map_or(Ok(()), Stress::stop)?;
        self.found(kind)?;
        let lines = compare::differences(&self.pair, DIRECTORY)?;
        self.losses.differ(kind, lines.len());
        if lines.is_empty() {
            return Ok(());
        }
        Err(Error::new(format!(
            "{kind}: {} differences: {}",
            lines.len(),
            lines[..lines.len().min(20)].join("; ")
        )))
    }

    /// S1: the other one takes over.
    pub(crate) fn primary_lost(&mut self) -> Result<()> {
        const KIND: &str = "the primary";
        self.load()?;
        let moment = self.primary().power_off()?;
        self.load = None;
        self.losses.lost(KIND, 1);
        self.serving = 1 - self.serving;
        self.pair.wait_state(MODULE, self.primary(), State::Alone)?;
        self.losses.served(KIND, moment.elapsed());
        self.found(KIND)?;
        self.load()?;
        self.other().power_on()?;
        self.whole(KIND)
    }

    /// S2: back before or after it is missed.
    pub(crate) fn secondary_lost(&mut self) -> Result<()> {
        const KIND: &str = "the secondary";
        self.load()?;
        let moment = self.other().power_off()?;
        self.losses.lost(KIND, 1);
        self.other().power_on()?;
        self.load()?;
        self.losses.served(KIND, moment.elapsed());
        self.other().wait_up()?;
        self.whole(KIND)
    }

    /// S3: who was paired cannot know whether the other went on.
    pub(crate) fn both_lost(&mut self, first: usize) -> Result<()> {
        const KIND: &str = "both, paired";
        self.load()?;
        self.primary().power_off()?;
        self.other().power_off()?;
        self.load = None;
        self.losses.lost(KIND, 2);
        let first = self.pair.machine(if first == 0 { self.serving } else { 1 - self.serving });
        first.power_on()?;
        first.wait_up()?;
        first.wait_agent()?;
        self.stays_without_service(first)?;
        let moment = clock::now();
        self.pair.peer_of(first).power_on()?;
        self.pair.wait_state(MODULE, self.primary(), State::Prim)?;
        self.losses.served(KIND, moment.elapsed());
        self.found(KIND)?;
        self.whole(KIND)
    }

    /// S5: who was alone goes on alone.
    pub(crate) fn alone_lost(&mut self) -> Result<()> {
        const KIND: &str = "the one that was alone";
        self.load()?;
        self.other().power_off()?;
        self.pair.wait_state(MODULE, self.primary(), State::Alone)?;
        self.load()?;
        self.primary().power_off()?;
        self.load = None;
        self.losses.lost(KIND, 2);
        let moment = clock::now();
        self.primary().power_on()?;
        self.pair.wait_state(MODULE, self.primary(), State::Alone)?;
        self.losses.served(KIND, moment.elapsed());
        self.found(KIND)?;
        self.load()?;
        self.other().power_on()?;
        self.whole(KIND)
    }

    /// S5: the stale one returns first and must not serve.
    pub(crate) fn stale_returns_first(&mut self) -> Result<()> {
        const KIND: &str = "the one that was alone; the stale one returns first";
        self.load()?;
        self.primary().power_off()?;
        self.load = None;
        self.serving = 1 - self.serving;
        self.pair.wait_state(MODULE, self.primary(), State::Alone)?;
        self.load()?;
        self.primary().power_off()?;
        self.load = None;
        self.losses.lost(KIND, 2);
        self.other().power_on()?;
        self.other().wait_up()?;
        self.other().wait_agent()?;
        self.stays_without_service(self.other())?;
        let moment = clock::now();
        self.primary().power_on()?;
        self.pair.wait_state(MODULE, self.primary(), State::Prim)?;
        self.losses.served(KIND, moment.elapsed());
        self.found(KIND)?;
        self.whole(KIND)
    }

    fn stays_without_service(&self, machine: &Machine) -> Result<()> {
        throughout(LONGER_THAN_START_WAIT, &format!("{} does not serve", machine.name), || {
            Ok(!machine.status(MODULE)?.state.serves())
        })
    }

    /// Prints the table, also of a campaign that failed.
    pub(crate) fn end(self, outcome: Result<()>) -> Result<()> {
        crate::print(&format!("{}durable operations heard of: {}\n", self.losses, self.record.count()));
        outcome.and_then(|()| self.pair.finish())
    }
}
