//! The meeting: from the views of both nodes to who is the source of whom (DESIGN section 6, rules 1 to 8).
//!
//! A pure function of both views, so that either node comes to the same outcome. The first rule that matches decides.

use crate::config::{Side, SplitBrain};
use crate::hard::Role;
use crate::left_out::LeftOut;
use crate::lineage::LineageId;
use crate::view::{Copy, Mode, Plan, View};

/// What two nodes that meet are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Equal lineages, nothing to decide: this node is primary, the other repairs what was in flight.
    Pair(Side),
    /// This node is the source of a resync; the other records itself outdated and inconsistent.
    Source {
        /// The source.
        side: Side,
        /// How the target is brought in step.
        plan: Plan,
        /// Histories parted: the target's own changes are given up.
        split: bool,
    },
    /// A person must decide.
    Person(Question),
    /// One of the copies is not examined yet.
    NotYet,
}

/// What a person is asked; `safectl status` shows it with the command to type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Neither copy has a lineage and this node (none: both) holds data: which one counts?
    WhichFirst(Option<Side>),
    /// This node holds data without lineage, the other has one: its data would be replaced.
    Replace(Side),
    /// This node's copy is not the one that hard state describes.
    Unknown(Side),
    /// The only copy with the newest writes was edited while it was unlocked; it is on this node.
    NewestEdited(Side),
    /// Neither copy can be trusted by itself.
    NoGoodCopy,
    /// The only copy with the newest writes is inconsistent; it is on this node.
    NewestInconsistent(Side),
    /// Both went on alone and the policy leaves the choice to a person; this node was primary before.
    SplitBrain(Side),
    /// The copies have nothing in common.
    Strangers,
}

/// Lineage as it counts at a meeting: one that was never settled counts as its base.
fn effective(view: &View) -> (Option<LineageId>, Option<LineageId>) {
    let lineage = &view.lineage;
    match lineage.base {
        Some(base) if !lineage.settled => (Some(base), None),
        base => (lineage.current, base),
    }
}

/// Decides a meeting of the module's first and second node.
#[must_use]
pub fn meet(first: &View, second: &View, policy: SplitBrain) -> Outcome {
    meet_without(first, second, policy, None)
}

/// As [`meet`], without one of its rules.
pub(crate) fn meet_without(
    first: &View,
    second: &View,
    policy: SplitBrain,
    left_out: Option<LeftOut>,
) -> Outcome {
    Meeting { first, second, policy, left_out }.outcome()
}

struct Meeting<'a> {
    first: &'a View,
    second: &'a View,
    policy: SplitBrain,
    left_out: Option<LeftOut>,
}

impl Meeting<'_> {
    const fn of(&self, side: Side) -> &View {
        match side {
            Side::First => self.first,
            Side::Second => self.second,
        }
    }

    fn lacks(&self, rule: LeftOut) -> bool {
        self.left_out == Some(rule)
    }

    fn effective(&self, view: &View) -> (Option<LineageId>, Option<LineageId>) {
        if self.lacks(LeftOut::UnsettledCountsAsBase) {
            return (view.lineage.current, view.lineage.base);
        }
        effective(view)
    }

    fn knows(&self, view: &View, id: LineageId) -> bool {
        let (current, base) = self.effective(view);
        current == Some(id) || base == Some(id) || view.lineage.history.contains(&id)
    }

    fn outcome(&self) -> Outcome {
        if self.first.copy == Copy::Unexamined || self.second.copy == Copy::Unexamined {
            return Outcome::NotYet;
        }
        self.compare()
    }

    fn compare(&self) -> Outcome {
        self.forced_target()
            .or_else(|| self.without_lineage())
            .or_else(|| self.distrusted())
            .or_else(|| self.inconsistent())
            .or_else(|| self.equal())
            .or_else(|| self.follows())
            .unwrap_or_else(|| self.parted())
    }

    /// An administrator's `second --full` or `second --force`.
    fn forced_target(&self) -> Option<Outcome> {
        let side = match (self.first.yields, self.second.yields) {
            (false, false) => return None,
            (true, true) => return Some(Outcome::Person(Question::NoGoodCopy)),
            (true, false) => Side::First,
            (false, true) => Side::Second,
        };
        let source = side.other();
        if self.of(source).lineage.current.is_none() {
            return Some(Outcome::Person(Question::WhichFirst(Some(source))));
        }
        Some(self.full(source, false))
    }

    /// Rule 1, for copies that never were paired nor served.
    fn without_lineage(&self) -> Option<Outcome> {
        let fresh = |view: &View| view.lineage.current.is_none();
        // A first resync that was broken off leaves files behind that mean nothing.
        let empty = |view: &View| view.copy == Copy::Empty || view.target;
        Some(match (fresh(self.first), fresh(self.second)) {
            (false, false) => return None,
            (true, true) => match (empty(self.first), empty(self.second)) {
                (true, true) => self.full(Side::First, false),
                (false, true) => Outcome::Person(Question::WhichFirst(Some(Side::First))),
                (true, false) => Outcome::Person(Question::WhichFirst(Some(Side::Second))),
                (false, false) => Outcome::Person(Question::WhichFirst(None)),
            },
            (true, false) | (false, true) => {
                let side = if fresh(self.first) { Side::First } else { Side::Second };
                if !empty(self.of(side)) {
                    return Some(Outcome::Person(Question::Replace(side)));
                }
                self.full(side.other(), false)
            }
        })
    }

    /// Rule 1, for copies that are not what hard state describes.
    fn distrusted(&self) -> Option<Outcome> {
        for side in [Side::First, Side::Second] {
            if self.of(side).copy == Copy::Unknown {
                let both = self.of(side.other()).copy == Copy::Unknown;
                let question = if both { Question::NoGoodCopy } else { Question::Unknown(side) };
                return Some(Outcome::Person(question));
            }
        }
        match (self.first.copy == Copy::Edited, self.second.copy == Copy::Edited) {
            (false, false) => None,
            (true, true) => Some(Outcome::Person(Question::NoGoodCopy)),
            (true, false) => Some(self.replace_edited(Side::First)),
            (false, true) => Some(self.replace_edited(Side::Second)),
        }
    }

    /// What was acknowledged on it alone is not given up without a person.
    fn replace_edited(&self, side: Side) -> Outcome {
        if self.of(side).target || self.is_contained(side) {
            return self.full(side.other(), false);
        }
        Outcome::Person(Question::NewestEdited(side))
    }

    /// Whatever was acknowledged on this copy, the other one contains.
    fn is_contained(&self, side: Side) -> bool {
        let (view, other) = (self.of(side), self.of(side.other()));
        let (current, base) = self.effective(view);
        let older = current.is_some_and(|current| self.knows(other, current)) && base.is_none();
        // A settled base, but the other took over what was written on it: it is history there.
        let passed =
            base.is_some() && current.is_some_and(|current| other.lineage.history.contains(&current));
        older || passed || view.outdated
    }

    /// Rule 2; a copy that has agreed to be replaced counts as one to be replaced.
    fn inconsistent(&self) -> Option<Outcome> {
        let side = match (self.is_bad(Side::First), self.is_bad(Side::Second)) {
            (false, false) => return None,
            (true, true) => return Some(Outcome::Person(Question::NoGoodCopy)),
            (true, false) => Side::First,
            (false, true) => Side::Second,
        };
        let (bad, good) = (self.of(side), self.of(side.other()));
        let (current, base) = self.effective(bad);
        let (good_current, good_base) = self.effective(good);
        if bad.target {
            // Broken off, a resync goes on from where it was.
            let resumes =
                base.is_none() && good_base.is_some() && (current == good_base || current == good_current);
            return Some(if resumes { self.delta(side.other()) } else { self.full(side.other(), false) });
        }
        if self.is_contained(side) || self.lacks(LeftOut::NewestInconsistentIsKept) {
            return Some(self.full(side.other(), false));
        }
        Some(Outcome::Person(Question::NewestInconsistent(side)))
    }

    fn is_bad(&self, side: Side) -> bool {
        let (view, other) = (self.of(side), self.of(side.other()));
        // Before the source settled nothing was copied: it agreed in vain.
        let (current, other_base) = (self.effective(view).0, self.effective(other).1);
        let vain = current == self.effective(other).0 && other_base.is_none();
        !view.consistent || (view.target && !vain)
    }

    /// Rules 3 and 4.
    fn equal(&self) -> Option<Outcome> {
        let ((first, first_base), (second, second_base)) =
            (self.effective(self.first), self.effective(self.second));
        if first != second {
            return None;
        }
        Some(match (first_base.is_some(), second_base.is_some()) {
            (false, false) => self.pair(self.primary_of_equals()),
            (false, true) => self.delta(Side::Second),
            (true, false) | (true, true) => self.delta(Side::First),
        })
    }

    fn primary_of_equals(&self) -> Side {
        let choose = |first: bool| if first { Side::First } else { Side::Second };
        let (a, b) = (self.first, self.second);
        if a.rebooted != b.rebooted && !self.lacks(LeftOut::RebootedIsNotSource) {
            return choose(!a.rebooted);
        }
        if a.outdated != b.outdated {
            return choose(!a.outdated);
        }
        let primary = |view: &View| view.mode == Mode::Primary;
        if primary(a) != primary(b) {
            return choose(primary(a));
        }
        if a.term != b.term && (a.role == Role::Primary || b.role == Role::Primary) {
            let newest = if a.term > b.term { a } else { b };
            if newest.role == Role::Primary {
                return choose(a.term > b.term);
            }
        }
        if (a.role == Role::Primary) != (b.role == Role::Primary) {
            return choose(a.role == Role::Primary);
        }
        // Two secondaries resume with the one that offered its role.
        if a.offer.is_some() != b.offer.is_some() {
            return choose(a.offer.is_some());
        }
        choose(a.term >= b.term)
    }

    /// Rules 5 and 6.
    fn follows(&self) -> Option<Outcome> {
        for side in [Side::First, Side::Second] {
            let (_, base) = self.effective(self.of(side));
            let (current, other_base) = self.effective(self.of(side.other()));
            if base.is_some() && base == current {
                // The other went on as well: rule 5 ends in a split brain.
                let parted = other_base.is_some() && !self.lacks(LeftOut::BaseHolderSplits);
                return Some(if parted { self.split() } else { self.delta(side) });
            }
        }
        for side in [Side::First, Side::Second] {
            let (current, _) = self.effective(self.of(side.other()));
            if current.is_some_and(|current| self.of(side).lineage.history.contains(&current)) {
                return Some(self.full(side, false));
            }
        }
        None
    }

    /// Rules 7 and 8.
    fn parted(&self) -> Outcome {
        let (current, base) = self.effective(self.first);
        let ids = current.into_iter().chain(base).chain(self.first.lineage.history.iter().copied());
        if ids.into_iter().any(|id| self.knows(self.second, id)) {
            return self.split();
        }
        Outcome::Person(Question::Strangers)
    }

    fn split(&self) -> Outcome {
        let (a, b) = (&self.first.lineage, &self.second.lineage);
        let before = if a.prim_of_base { Side::First } else { Side::Second };
        if self.policy == SplitBrain::Manual {
            return Outcome::Person(Question::SplitBrain(before));
        }
        let serving = |view: &View| view.mode == Mode::Alone;
        // What a pair acknowledged counts as well: only of a copy that is alone is it known that nothing was.
        let wrote = (a.wrote_alone || a.base.is_none(), b.wrote_alone || b.base.is_none());
        let first = match (serving(self.first), serving(self.second)) {
            (true, false) => true,
            (false, true) => false,
            (true, true) if a.forced != b.forced => a.forced,
            (true, true) => a.prim_of_base,
            (false, false) if wrote == (false, false) && !self.lacks(LeftOut::PrimaryOfBaseStays) => {
                a.prim_of_base
            }
            (false, false) if wrote.0 != wrote.1 => wrote.0,
            (false, false) => return Outcome::Person(Question::SplitBrain(before)),
        };
        self.full(if first { Side::First } else { Side::Second }, true)
    }

    fn pair(&self, primary: Side) -> Outcome {
        let knows = |view: &View| view.knows_inflight;
        if knows(self.first) && knows(self.second) {
            return Outcome::Pair(primary);
        }
        self.full(primary, false)
    }

    fn delta(&self, source: Side) -> Outcome {
        let knows = |view: &View| view.knows_inflight;
        let plan = if knows(self.first) && knows(self.second) { Plan::Delta } else { Plan::Full };
        self.source(source, plan, false)
    }

    fn full(&self, source: Side, split: bool) -> Outcome {
        self.source(source, Plan::Full, split)
    }

    /// The last door: who is inconsistent, distrusted or recorded outdated is nobody's source.
    fn source(&self, side: Side, plan: Plan, split: bool) -> Outcome {
        let view = self.of(side);
        let fresh = view.lineage.current.is_none();
        let trusted = match view.copy {
            Copy::Known => view.consistent,
            Copy::Empty | Copy::Unlabelled => fresh,
            Copy::Unexamined | Copy::Unknown | Copy::Edited => false,
        };
        let settled_base = view.lineage.base.is_some() && view.lineage.settled;
        let equals = self.effective(self.first).0 == self.effective(self.second).0 && !settled_base;
        if !trusted || (view.outdated && !equals) {
            return Outcome::Person(Question::NoGoodCopy);
        }
        Outcome::Source { side, plan, split }
    }
}
