//! Random sequences of operations from several threads at once, compared step by step with a tree in memory, and at the
//! end with the mount, the files below it and the other node; in between the stream breaks.

#[path = "model/step.rs"]
pub(crate) mod step;
#[path = "model/tree.rs"]
pub(crate) mod tree;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use safe_proto::replication::attach_request::Command as Order;
use safe_proto::replication::attach_response::Report;
use safe_proto::replication::{Plan, Role};

use crate::node::{name, until};
use crate::pair::Pair;
use step::{Step, steps};
use tree::Tree;

const THREADS: usize = 3;

/// Carries out one thread's steps in a directory of its own; the outcome of each must be that of the tree.
fn run(base: &Path, steps: &[Step], done: &AtomicU64) -> Tree {
    let (mut tree, mut succeeded) = (Tree::new(), 0);
    for (at, step) in steps.iter().enumerate() {
        let expected = tree.apply(step);
        let found = step.carry_out(base);
        assert_eq!(found, expected, "step {at} {step:?} in {}; before it {:?}", base.display(), &steps[..at]);
        succeeded += usize::from(found.is_ok());
        done.fetch_add(1, Ordering::AcqRel);
    }
    println!("{succeeded} of {} steps succeeded", steps.len());
    tree
}

/// The stream is lost on both sides, and repaired from what was in flight.
fn break_stream(pair: &mut Pair, session: u64) {
    pair.b.order(Order::Leave(name(session)));
    let end =
        |report: &Report| matches!(report, Report::SessionEnded(_) | Report::SessionLost(_)).then_some(());
    pair.a.expect("end", end);
    pair.b.expect("end", end);
    pair.b.join(session + 1, Role::Secondary, Plan::Repair);
    pair.a.join(session + 1, Role::Primary, Plan::Repair);
    pair.a.expect_in_step(session + 1);
    pair.b.expect_in_step(session + 1);
}

fn check(plan: &[Vec<Step>], breaks: u64) {
    let mut pair = Pair::paired(Plan::Repair);
    let (root, done) = (pair.a.data.clone(), AtomicU64::new(0));
    let all: u64 = plan.iter().map(|steps| steps.len() as u64).sum();
    for thread in 0..plan.len() {
        std::fs::create_dir(root.join(format!("t{thread}"))).unwrap();
    }
    let trees: Vec<Tree> = std::thread::scope(|scope| {
        let threads: Vec<_> = plan
            .iter()
            .enumerate()
            .map(|(thread, steps)| {
                let (base, done) = (root.join(format!("t{thread}")), &done);
                scope.spawn(move || run(&base, steps, done))
            })
            .collect();
        for number in 1..=breaks {
            let ended = || threads.iter().all(std::thread::ScopedJoinHandle::is_finished);
            until("some steps", || ended() || done.load(Ordering::Acquire) > number * all / (breaks + 2));
            break_stream(&mut pair, number);
        }
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let below = pair.a.below();
    for (thread, tree) in trees.iter().enumerate() {
        let own = format!("t{thread}");
        for place in [root.join(&own), below.join(&own), pair.beyond(&own)] {
            tree.compare(&place).unwrap_or_else(|difference| panic!("{difference}"));
        }
    }
    pair.assert_equal();
}

fn campaign(cases: u32, length: usize) {
    let config = Config { cases, max_shrink_iters: 60, failure_persistence: None, ..Config::default() };
    let plan = (prop::collection::vec(steps(length), THREADS), 0..3u64);
    TestRunner::new(config)
        .run(&plan, |(plan, breaks)| {
            check(&plan, breaks);
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn every_step_ends_as_in_the_model() {
    campaign(6, 80);
}

#[test]
#[ignore = "many more sequences, and longer ones"]
fn every_step_of_long_sequences_ends_as_in_the_model() {
    campaign(200, 400);
}
