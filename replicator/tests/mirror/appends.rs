//! Several threads append to one file through one descriptor while the other node comes and goes; afterwards both files
//! are the same, byte by byte.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use safe_proto::replication::Plan;
use safe_proto::replication::attach_response::Report;

use crate::campaign::repair;
use crate::node::until;
use crate::pair::{Pair, assert_equal};

const THREADS: u64 = 3;

#[test]
fn while_the_other_node_comes_and_goes() {
    let rounds: u64 = std::env::var("SAFE_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(3);
    let before: usize =
        std::env::var("SAFE_BEFORE").ok().and_then(|size| size.parse().ok()).unwrap_or(5 << 20);
    let mut pair = Pair::paired(Plan::Repair);
    let path = pair.at("ledger");
    std::fs::write(&path, vec![b'.'; before]).unwrap();
    for round in 1..=rounds {
        let (stop, steps) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (path, stop, steps) = (&path, &stop, &steps);
                scope.spawn(move || {
                    let mut file = OpenOptions::new().append(true).open(path).unwrap();
                    let mut number = 0;
                    while !stop.load(Ordering::Acquire) {
                        number += 1;
                        writeln!(file, "{round} {thread} {number} {}", "x".repeat(number % 90)).unwrap();
                        file.sync_data().unwrap();
                        steps.fetch_add(1, Ordering::AcqRel);
                    }
                });
            }
            let some = |more: u64| {
                let from = steps.load(Ordering::Acquire);
                until("appends go on", || steps.load(Ordering::Acquire) >= from + more);
            };
            some(100);
            pair.b.kill();
            pair.a.expect("SessionLost", |report| matches!(report, Report::SessionLost(_)).then_some(()));
            pair.a.settle(u128::from(100 + round));
            some(100);
            pair.b.start();
            pair.b.examine(&[1]);
            repair(&mut pair, 10 * round, if round % 2 == 0 { Plan::Full } else { Plan::Delta });
            some(round % 50);
            stop.store(true, Ordering::Release);
        });
        assert_equal(&pair.a.below(), &pair.b.data);
    }
}
