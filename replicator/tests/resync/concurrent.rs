//! The application goes on during the resync.

use std::sync::atomic::{AtomicBool, Ordering};

use safe_replicator::resync::{Outcome, Plan};

use crate::application::{Act, Application, any_act, moving_act};
use crate::pair::{Pair, differences};
use crate::random::{Random, grow};

type AnyAct = fn(&std::path::Path, &mut Random) -> Act;

struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn run(seed: u64, plan: Plan, cut: bool, any: AnyAct) -> (u64, u64) {
    let pair = Pair::new();
    let mut random = Random::new(seed);
    grow(&pair.source, &mut random, 120);
    if plan == Plan::Delta {
        pair.in_step(Plan::Full);
    } else {
        grow(&pair.target, &mut random, 80);
    }
    let application = Application::new(&pair);
    for _ in 0..40 {
        application.act(&pair.knowledge, &any(&pair.source, &mut random), false);
    }
    let over = AtomicBool::new(false);
    let session = AtomicBool::new(true);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (application, over, session, pair) = (&application, &over, &session, &pair);
            scope.spawn(move || {
                let mut random = Random::new(seed * 1000 + thread);
                while !over.load(Ordering::SeqCst) {
                    let act = any(&pair.source, &mut random);
                    application.act(&pair.knowledge, &act, session.load(Ordering::SeqCst));
                }
            });
        }
        // Also when this panics.
        let _ends = Ends(&over);
        let mut random = Random::new(seed + 7);
        loop {
            if cut && random.chance(3) {
                pair.link.left.store(random.below(200) as usize, Ordering::SeqCst);
            }
            let outcome = pair.resync(plan).0;
            pair.link.left.store(usize::MAX, Ordering::SeqCst);
            match outcome {
                Outcome::InStep => break,
                Outcome::Lost(_) => {}
                Outcome::Failed(reason) => panic!("seed {seed}: {reason}"),
            }
        }
        // For a while everything is synchronous.
        let before = application.synchronous.load(Ordering::SeqCst);
        while application.synchronous.load(Ordering::SeqCst) < before + 30 {
            std::thread::yield_now();
        }
    });
    assert!(pair.knowledge.is_empty());
    assert_eq!(differences(&pair.source, &pair.target), "", "seed {seed}");
    (application.synchronous.into_inner(), application.alone.into_inner())
}

#[test]
fn during_a_full_comparison() {
    for seed in 200..206 {
        run(seed, Plan::Full, false, any_act);
    }
}

#[test]
fn during_a_delta() {
    for seed in 210..216 {
        run(seed, Plan::Delta, false, any_act);
    }
}

#[test]
fn with_the_session_lost_now_and_then() {
    for seed in 220..226 {
        run(seed, Plan::Delta, true, any_act);
    }
}

/// What is known by a name must not be taken for what has the name later: hard links and moved directories.
#[test]
fn while_names_are_moved_about() {
    for seed in 230..236 {
        run(seed, Plan::Full, false, moving_act);
        run(seed + 10, Plan::Delta, seed % 2 == 0, moving_act);
    }
}
