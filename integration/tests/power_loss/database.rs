//! Loss of power under PostgreSQL, whose clients are outside and remember what was acknowledged.

use std::time::Duration;

use safe_integration::clock;
use safe_integration::committer::Committers;
use safe_integration::error::{Error, Result};
use safe_integration::eventually::eventually;
use safe_integration::postgres::{self, Clients, DIRECTORY, MODULE};
use safe_integration::vm::{Losses, Machine, Pair, compare};

/// Commits of the load between two events.
const SOME: usize = 60;

/// What was on its way when the server was stopped arrives within this time.
const SOON: Duration = Duration::from_secs(60);

/// A database under load.
pub(crate) struct Database {
    pair: Pair,
    clients: Clients,
    committers: Committers,
    losses: Losses,
    serving: usize,
}

impl Database {
    pub(crate) fn start(name: &str) -> Result<Self> {
        let pair = Pair::cluster(name)?;
        let clients = Clients::on(pair.client("client", 100)?);
        pair.start_module(&postgres::module()?.section(crate::PATIENT))?;
        clients.answers()?;
        clients.fill(1)?;
        let committers = clients.committers(3)?;
        Ok(Self { pair, clients, committers, losses: Losses::default(), serving: 0 })
    }

    fn primary(&self) -> &Machine {
        self.pair.machine(self.serving)
    }

    fn other(&self) -> &Machine {
        self.pair.machine(1 - self.serving)
    }

    /// Every commit that was acknowledged is there, and the database is sound.
    fn found(&mut self, kind: &'static str) -> Result<()> {
        let lost = self.clients.lost(&self.committers)?;
        self.losses.looked(kind, self.committers.count(), lost);
        if lost > 0 {
            return Err(Error::new(format!("{kind}: {lost} commits are lost")));
        }
        self.clients.check()
    }

    /// The pair is whole again: both copies are equal while the server stands still.
    fn whole(&mut self, kind: &'static str) -> Result<()> {
        self.pair.wait_pair(MODULE, self.primary())?;
        self.committers.more(SOME)?;
        self.primary().shell("pkill -STOP -u postgres postgres")?;
        let equal = eventually(SOON, "both copies are equal", || {
            let lines = compare::differences(&self.pair, DIRECTORY)?;
            if lines.is_empty() { Ok(Some(())) } else { Err(Error::new(lines.join("; "))) }
        });
        self.primary().shell("pkill -CONT -u postgres postgres")?;
        self.losses.differ(kind, usize::from(equal.is_err()));
        equal?;
        self.found(kind)
    }

    /// S1.
    pub(crate) fn primary_lost(&mut self) -> Result<()> {
        const KIND: &str = "the primary, PostgreSQL";
        self.committers.more(SOME)?;
        let moment = self.primary().power_off()?;
        self.losses.lost(KIND, 1);
        self.serving = 1 - self.serving;
        self.losses.served(KIND, self.committers.after(moment)?);
        self.found(KIND)?;
        self.other().power_on()?;
        self.whole(KIND)
    }

    /// S3, both returning at once.
    pub(crate) fn both_lost(&mut self) -> Result<()> {
        const KIND: &str = "both, paired, PostgreSQL";
        self.committers.more(SOME)?;
        self.primary().power_off()?;
        self.other().power_off()?;
        self.losses.lost(KIND, 2);
        let moment = clock::now();
        self.pair.machines().iter().try_for_each(Machine::power_on)?;
        self.losses.served(KIND, self.committers.after(moment)?);
        self.found(KIND)?;
        self.whole(KIND)
    }

    /// Prints the table, also of a load that failed.
    pub(crate) fn end(mut self, outcome: Result<()>) -> Result<()> {
        self.committers.stop();
        crate::print(&format!("{}commits acknowledged: {}\n", self.losses, self.committers.count()));
        outcome.and_then(|()| self.pair.finish())
    }
}
