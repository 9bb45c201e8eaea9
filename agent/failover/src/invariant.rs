//! What holds after every event; checked in debug builds, tests and the simulation.

use crate::failover::Failover;
use crate::hard::Role;
use crate::view::Mode;

/// Says which invariant of the core is broken.
///
/// # Errors
/// The sentence names it.
pub fn check(core: &Failover) -> Result<(), &'static str> {
    let lineage = &core.hard.lineage;
    let rules = [
        (lineage.settled && lineage.base.is_none(), "settled without a base"),
        (lineage.base.is_some() && lineage.current.is_none(), "a base without a current lineage"),
        (lineage.base.is_some() && lineage.base == lineage.current, "a base that is the current lineage"),
        (core.mode == Mode::Alone && !core.settled(), "ALONE without a settled lineage"),
        (core.mode == Mode::Alone && !core.hard.consistent, "I2: an inconsistent copy serves"),
        (core.mode == Mode::Primary && !core.hard.consistent, "I2: an inconsistent copy serves"),
        (core.mode == Mode::Alone && core.hard.outdated, "I2: an outdated copy serves"),
        (core.rights.promote && core.hard.outdated, "I7: an outdated copy may promote"),
        (core.rights.promote && core.settled(), "I7: may promote although it went on by itself"),
        (core.mode == Mode::Stopped && core.session.is_some(), "a session while stopped"),
        (core.mode == Mode::Second && lineage.base.is_some(), "SECOND with a base"),
        (core.mode == Mode::Second && !core.hard.consistent, "SECOND and inconsistent"),
        (core.session.is_some() && core.leaving.is_some(), "a session begun before the last one ended"),
        (
            core.replicator.settled.is_some() && !core.settled(),
            "the replicator acknowledges alone, nothing is settled",
        ),
        (core.hard.offered && core.hard.role != Role::Secondary, "an offer by a node that kept its role"),
        (core.fence_told_while_serving(), "I4: told fenced while serving"),
    ];
    rules.into_iter().find_map(|(broken, what)| broken.then_some(Err(what))).unwrap_or(Ok(()))
}

impl Failover {
    fn fence_told_while_serving(&self) -> bool {
        self.told.as_ref().is_some_and(|view| view.fenced.is_some() && self.serving())
    }
}
