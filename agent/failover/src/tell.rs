//! What this node tells its peer.

use crate::action::Action;
use crate::failover::Failover;
use crate::left_out::LeftOut;
use crate::lineage::Lineage;
use crate::view::{Copy, Entered, Fenced, Mode, SessionId, View};

impl Failover {
    /// This node's view, as it is sent to the peer.
    #[must_use]
    pub fn view(&self) -> View {
        let lineage = self.told_lineage();
        // What is not durable is not said.
        let hard = if self.broken { &self.safe } else { &self.hard };
        View {
            incarnation: self.identity.incarnation(),
            serial: self.serial,
            link: self.link,
            heard_link: self.peer.view.as_ref().map_or(0, |peer| peer.link),
            mode: self.mode,
            meetable: self.meetable(),
            serving: self.serving(),
            role: hard.role,
            term: hard.term,
            copy: if self.ready() { self.copy() } else { Copy::Unexamined },
            consistent: self.hard.consistent && hard.consistent,
            outdated: hard.outdated,
            target: hard.target,
            rebooted: self.rebooted(),
            knows_inflight: self.replicator.knows_inflight && !self.hard.unrecorded,
            entered: self.session.as_ref().map(|session| Entered {
                session: session.id,
                role: session.role,
                plan: session.plan,
                source: session.source,
            }),
            paired: self.session.as_ref().filter(|session| session.paired).map(|session| session.id),
            demand: self.demand(),
            conceded: self.conceded,
            fenced: self.fence_confirmed(),
            wish: self.wish(),
            grant: self.grant(),
            offer: self.hard.offered.then(|| self.offer.unwrap_or(SessionId { first: 0, second: 0 })),
            yields: self.yields,
            timeout: self.config.timeout,
            grace: self.grace(),
            heard: self.peer.view.as_ref().map_or(0, |peer| peer.incarnation),
            locks: self.told_locks(),
            lineage,
        }
    }

    /// What the replicator is to say of this node while no agent is there: as it was left, and once the replicator has
    /// fenced itself.
    #[must_use]
    pub fn stand_in(&self) -> (View, View) {
        let serving = self.told.clone().unwrap_or_else(|| self.view());
        let lineage = serving.lineage.current.filter(|_| serving.lineage.base.is_none());
        let fenced = View {
            serial: serving.serial + 1,
            mode: if self.mode == Mode::Stopped { Mode::Stopped } else { Mode::Waiting },
            meetable: false,
            serving: false,
            entered: None,
            paired: None,
            demand: None,
            wish: None,
            grant: None,
            fenced: lineage.map(|lineage| Fenced { session: self.last_session, lineage }),
            ..serving.clone()
        };
        (serving, fenced)
    }

    /// Settled counts only once it is in effect.
    fn told_lineage(&self) -> Lineage {
        let hard = if self.broken { &self.safe } else { &self.hard };
        let mut lineage = hard.lineage.clone();
        if self.recording() {
            lineage.settled = false;
        }
        lineage
    }

    /// Nothing of the module serves here and nothing will be acknowledged: the peer may go on by rule (d).
    pub(crate) fn fence_confirmed(&self) -> Option<Fenced> {
        let idle = matches!(self.mode, Mode::Stopped | Mode::Waiting)
            && !self.serving()
            && self.session.is_none()
            && self.leaving.is_none()
            && self.retired
            && !self.rights.promote;
        let held = self.hard.lineage.base.filter(|_| self.lacks(LeftOut::FencedHoldsNoBase));
        let lineage = held.or(self.hard.lineage.current)?;
        let none = self.hard.lineage.base.is_none() || held.is_some();
        (idle && self.started && none && self.last_session.is_some())
            .then_some(Fenced { session: self.last_session, lineage })
    }

    /// Sends the view if it says anything new.
    pub(crate) fn tell(&mut self) {
        if !self.started {
            return;
        }
        let view = self.view();
        if self.told.as_ref() == Some(&view) {
            return;
        }
        self.serial += 1;
        let view = View { serial: self.serial, ..view };
        self.told = Some(view.clone());
        self.out.push(Action::Tell(Box::new(view)));
    }
}
