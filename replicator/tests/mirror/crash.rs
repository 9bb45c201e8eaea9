//! Either side is killed at a given point of a given operation: what was acknowledged is there, the operation under way
//! is there as a whole or not at all, and after the repair both trees are equal.

use std::io;
use std::path::Path;

use safe_proto::replication::Plan;
use safe_proto::replication::attach_response::Report;

use crate::campaign::repair;
use crate::model::step::{How, Step};
use crate::model::tree::Tree;
use crate::node::{Node, until};
use crate::pair::Pair;

/// Who is killed, and in what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Primary,
    Secondary,
    /// The only one that serves.
    Alone,
}

const POINTS: [(&str, Victim); 10] = [
    ("decided", Victim::Primary),
    ("sent", Victim::Primary),
    ("acknowledged", Victim::Primary),
    ("halfway", Victim::Primary),
    ("carried-out", Victim::Primary),
    ("arrived", Victim::Secondary),
    ("halfway", Victim::Secondary),
    ("applied", Victim::Secondary),
    ("marked", Victim::Alone),
    ("alone", Victim::Alone),
];

/// One of every kind, each of which succeeds.
fn steps() -> Vec<Step> {
    use Step::*;
    let names = |names: &[u8]| names.to_vec();
    vec![
        Mkdir(names(&[0])),
        Create(names(&[0, 0])),
        Write(names(&[0, 0]), 0, 30_000, 7),
        Append(names(&[0, 0]), 5000, 8),
        Write(names(&[0, 0]), 100_000, 5000, 9),
        Punch(names(&[0, 0]), 1000, 9000),
        Truncate(names(&[0, 0]), 20_000),
        Create(names(&[1])),
        Copy(names(&[0, 0]), names(&[1]), 0, 10_000),
        Symlink(names(&[2])),
        Link(names(&[1]), names(&[0, 1])),
        Temporary(names(&[3]), 200),
        SetXattr(names(&[0, 0]), 1, 5),
        SetXattr(names(&[0]), 2, 5),
        RemoveXattr(names(&[0, 0]), 1),
        Chmod(names(&[0, 0]), 0o750),
        Chmod(names(&[0]), 0o711),
        Rename(names(&[0, 1]), names(&[0, 2]), How::Replace),
        Rename(names(&[0, 0]), names(&[1]), How::Exchange),
        Rename(names(&[1]), names(&[0, 2]), How::Replace),
        Rename(names(&[3]), names(&[0, 1]), How::NoReplace),
        Mkdir(names(&[1])),
        Rename(names(&[1]), names(&[0, 3]), How::Replace),
        Rmdir(names(&[0, 3])),
        Unlink(names(&[2])),
        Sync(names(&[0, 2])),
        Write(names(&[0, 2]), 0, 100, 1),
        Rename(names(&[0]), names(&[1]), How::Replace),
        Unlink(names(&[1, 0])),
    ]
}

/// How far an application came.
struct Progress {
    /// As it was told.
    tree: Tree,
    /// With the step that was under way when the mount died, and its number.
    doubt: Option<(Tree, usize)>,
}

/// Goes on from a step until the end, or until the mount dies.
fn go_on(mut tree: Tree, from: usize, root: &Path) -> Progress {
    for (number, step) in steps().iter().enumerate().skip(from) {
        let mut after = tree.clone();
        assert_eq!(after.apply(step), Ok(()), "{step:?}");
        match step.carry_out(root) {
            Ok(()) => tree = after,
            Err(libc::ENOTCONN | libc::ECONNABORTED | libc::EIO | libc::ENODEV) => {
                return Progress { tree, doubt: Some((after, number)) };
            }
            Err(error) => panic!("step {number} {step:?}: {}", io::Error::from_raw_os_error(error)),
        }
    }
    Progress { tree, doubt: None }
}

/// What it is now: with the step under way or without it, or with the beginning of a write; and the next step. The kernel
/// makes several requests of a write that begins within a page.
fn resolve(progress: Progress, root: &Path) -> (Tree, usize) {
    let Some((after, number)) = progress.doubt else { return (progress.tree, steps().len()) };
    let step = &steps()[number];
    let (without, with) = (progress.tree.compare(root), after.compare(root));
    if with.is_ok() {
        return (after, number + 1);
    }
    if without.is_ok() {
        return (progress.tree, number);
    }
    for part in parts(step) {
        let mut partly = progress.tree.clone();
        if partly.apply(&part).is_ok() && partly.compare(root).is_ok() {
            // The application goes on with something else.
            return (partly, number + 1);
        }
    }
    panic!("step {number} {step:?} is there in part: {without:?}; {with:?}")
}

/// The beginnings of a write.
fn parts(step: &Step) -> Vec<Step> {
    match step {
        Step::Write(names, offset, length, fill) => {
            (1..*length).map(|part| Step::Write(names.clone(), *offset, part, *fill)).collect()
        }
        Step::Append(names, length, fill) => {
            (1..*length).map(|part| Step::Append(names.clone(), part, *fill)).collect()
        }
        _ => Vec::new(),
    }
}

fn lost(node: &mut Node) {
    node.expect("SessionLost", |report| matches!(report, Report::SessionLost(_)).then_some(()));
}

/// Kills a process at a point, the `count`th time that it comes by. False: it did not come by that often.
fn crash(point: &str, victim: Victim, count: usize) -> bool {
    let mut pair = Pair::paired(Plan::Repair);
    if victim == Victim::Alone {
        pair.b.kill();
        lost(&mut pair.a);
        pair.a.settle(101);
    }
    let secondary = victim == Victim::Secondary;
    let armed = if secondary { &pair.b } else { &pair.a };
    std::fs::write(armed.crash_file(), format!("{point} {count}")).unwrap();
    let root = pair.a.data.clone();
    let (progress, crashed) = std::thread::scope(|scope| {
        let application = scope.spawn(|| go_on(Tree::new(), 0, &root));
        let mut crashed = false;
        until("the crash or the end", || {
            crashed = if secondary { pair.b.has_ended() } else { pair.a.has_ended() };
            crashed || application.is_finished()
        });
        if !crashed && !secondary {
            // The mount dies a little before the process is gone.
            let progress = application.join().unwrap();
            let crashed = progress.doubt.is_some();
            if crashed {
                until("its end", || pair.a.has_ended());
                pair.a.kill();
                pair.a.bury();
            }
            return (progress, crashed);
        }
        if crashed && secondary {
            pair.b.kill();
            lost(&mut pair.a);
            pair.a.settle(101);
        } else if crashed {
            pair.a.kill();
            pair.a.bury();
        }
        (application.join().unwrap(), crashed)
    });
    let tree = match victim {
        Victim::Secondary => {
            assert!(progress.doubt.is_none(), "the application saw that the other node died");
            progress.tree
        }
        Victim::Primary if crashed => take_over(&mut pair, progress),
        Victim::Alone if crashed => come_back(&mut pair, progress),
        Victim::Primary | Victim::Alone => progress.tree,
    };
    if crashed || victim == Victim::Alone {
        // Whoever came back after it served alone says what differs; whoever died with a session under way does not.
        let plan = if victim == Victim::Alone { Plan::Delta } else { Plan::Full };
        if !pair.b.is_running() {
            pair.b.start();
            pair.b.examine(&[1]);
        }
        repair(&mut pair, 10, plan);
    }
    tree.compare(&pair.a.data).unwrap();
    tree.compare(&pair.a.below()).unwrap();
    tree.compare(&pair.b.data).unwrap();
    pair.assert_equal();
    crashed
}

/// The other node serves, and the application goes on there.
fn take_over(pair: &mut Pair, progress: Progress) -> Tree {
    lost(&mut pair.b);
    pair.b.settle(101);
    pair.b.mount();
    std::mem::swap(&mut pair.a, &mut pair.b);
    let (tree, next) = resolve(progress, &pair.a.data);
    go_on(tree, next, &pair.a.data).tree
}

/// It serves again, from what its journal says.
fn come_back(pair: &mut Pair, progress: Progress) -> Tree {
    pair.a.start();
    pair.a.examine(&[1]);
    pair.a.settle(101);
    pair.a.mount();
    let (tree, next) = resolve(progress, &pair.a.data);
    go_on(tree, next, &pair.a.data).tree
}

#[test]
fn a_crash_at_a_point_of_an_operation_is_repaired() {
    // A few of each; the long test has all.
    for (number, (point, victim)) in POINTS.into_iter().enumerate() {
        for count in [1 + number, 11 + number] {
            println!("{victim:?} at {point}, time {count}");
            assert!(crash(point, victim, count), "{point} was not passed {count} times");
        }
    }
}

#[test]
#[ignore = "every point of every operation"]
fn a_crash_at_every_point_of_every_operation_is_repaired() {
    for (point, victim) in POINTS {
        let mut count = 1;
        while crash(point, victim, count) {
            count += 1;
        }
        assert!(count > 15, "{victim:?}: {point} was passed {count} times only");
        println!("{victim:?} at {point}: {} crashes", count - 1);
    }
}
