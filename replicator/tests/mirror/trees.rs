//! Random trees with everything that a filesystem has, changed through the mount: in step, alone, and while the other
//! node is brought in step.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use safe_proto::replication::attach_request::Command as Order;
use safe_proto::replication::attach_response::Report;
use safe_proto::replication::{ClearJournal, Plan, Unsettle};

use crate::node::{name, until};
use crate::pair::Pair;
use crate::random::{Random, edit, grow};

/// The pair is paired again: nothing is known to differ.
fn settle_down(pair: &mut Pair) {
    pair.a.order(Order::ClearJournal(ClearJournal {}));
    pair.a.expect("Cleared", |report| matches!(report, Report::Cleared(_)).then_some(()));
    pair.a.order(Order::Unsettle(Unsettle {}));
}

/// `a` ends the session, and `b` loses it.
fn part(pair: &mut Pair, session: u64) {
    pair.a.order(Order::Leave(name(session)));
    pair.a.expect("SessionEnded", |report| matches!(report, Report::SessionEnded(_)).then_some(()));
    pair.b.expect("SessionLost", |report| matches!(report, Report::SessionLost(_)).then_some(()));
}

#[test]
fn in_step() {
    for seed in 300..303 {
        let pair = Pair::paired(Plan::Repair);
        let mut random = Random::new(seed);
        grow(&pair.a.data, &mut random, 120);
        pair.assert_equal();
        edit(&pair.a.data, &mut random, 60);
        pair.assert_equal();
    }
}

#[test]
fn alone_and_back() {
    for seed in 310..313 {
        let mut pair = Pair::paired(Plan::Repair);
        let mut random = Random::new(seed);
        grow(&pair.a.data, &mut random, 120);
        for round in 0..3 {
            part(&mut pair, 2 * round + 1);
            pair.a.settle(u128::from(round) + 7);
            edit(&pair.a.data, &mut random, 30);
            pair.session(2 * round + 2, Plan::Delta);
            settle_down(&mut pair);
            edit(&pair.a.data, &mut random, 5);
            pair.assert_equal();
            part(&mut pair, 2 * round + 2);
            pair.session(2 * round + 3, Plan::Repair);
        }
        pair.assert_equal();
    }
}

#[test]
fn while_it_is_brought_in_step() {
    for (seed, plan) in [(320, Plan::Full), (321, Plan::Delta), (322, Plan::Full), (323, Plan::Delta)] {
        let mut pair = Pair::paired(Plan::Repair);
        let mut random = Random::new(seed);
        grow(&pair.a.data, &mut random, 100);
        part(&mut pair, 1);
        pair.a.settle(7);
        edit(&pair.a.data, &mut random, 30);
        if plan == Plan::Full {
            edit(&pair.b.data, &mut random, 30);
        }
        let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
        let place = pair.a.data.clone();
        std::thread::scope(|scope| {
            let (stop, count) = (&stop, &count);
            scope.spawn(move || {
                let mut random = Random::new(seed + 5);
                while !stop.load(Ordering::Acquire) {
                    edit(&place, &mut random, 2);
                    count.fetch_add(1, Ordering::AcqRel);
                }
            });
            let _stopped = Stop(stop);
            for session in 2..5 {
                pair.session(session, plan);
                let at_step = count.load(Ordering::Acquire);
                until("some is done in step", || count.load(Ordering::Acquire) > at_step + 3);
                part(&mut pair, session);
                let alone = count.load(Ordering::Acquire);
                until("some is done alone", || count.load(Ordering::Acquire) > alone + 3);
            }
            pair.session(5, Plan::Delta);
        });
        settle_down(&mut pair);
        crate::pair::assert_equal(&pair.a.below(), &pair.b.data);
        pair.assert_equal();
    }
}

/// Ends a writer however the test ends.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
