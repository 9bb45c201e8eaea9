//! A node goes on alone, and the other one comes back.

use std::fs;
use std::io::Write as _;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use safe_proto::replication::attach_request::Command as Order;
use safe_proto::replication::attach_response::Report;
use safe_proto::replication::{ClearJournal, Plan, Role, Unmount, Unsettle};

use crate::node::{LIMIT, lineage, now, until};
use crate::pair::Pair;

fn lost(node: &mut crate::node::Node) -> String {
    node.expect("SessionLost", |report| match report {
        Report::SessionLost(lost) => Some(lost.reason.clone()),
        _ => None,
    })
}

fn wrote_alone(node: &mut crate::node::Node, id: u128) {
    node.expect("WroteAlone", |report| {
        matches!(report, Report::WroteAlone(found) if *found == lineage(id)).then_some(())
    });
}

/// Ends a writer however the test ends.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn what_was_written_alone_follows_by_delta_while_the_application_goes_on() {
    let mut pair = Pair::paired(Plan::Repair);
    fs::create_dir(pair.at("kept")).unwrap();
    for number in 0..50 {
        fs::write(pair.at(&format!("kept/{number}")), vec![1; 10_000]).unwrap();
    }
    pair.leave(1);
    pair.a.settle(7);
    fs::write(pair.at("kept/3"), "changed").unwrap();
    fs::write(pair.at("new"), "alone").unwrap();
    fs::rename(pair.at("kept/4"), pair.at("moved")).unwrap();
    fs::remove_file(pair.at("kept/5")).unwrap();
    wrote_alone(&mut pair.a, 7);
    assert!(!pair.beyond("new").exists());

    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let path = pair.at("log");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut log = fs::File::create(&path).unwrap();
            while !stop.load(Ordering::Acquire) {
                writeln!(log, "{}", count.fetch_add(1, Ordering::AcqRel)).unwrap();
            }
        });
        let _stopped = Stop(&stop);
        pair.session(2, Plan::Delta);
        let at_step = count.load(Ordering::Acquire);
        until("the application goes on", || count.load(Ordering::Acquire) > at_step + 100);
    });
    pair.a.order(Order::ClearJournal(ClearJournal {}));
    pair.a.expect("Cleared", |report| matches!(report, Report::Cleared(_)).then_some(()));
    pair.a.order(Order::Unsettle(Unsettle {}));
    pair.assert_equal();
    fs::write(pair.at("after"), "synchronous again").unwrap();
    assert_eq!(fs::read(pair.beyond("after")).unwrap(), b"synchronous again");
}

#[test]
fn a_full_comparison_repairs_whatever_differs() {
    let mut pair = Pair::new();
    fs::create_dir_all(pair.a.data.join("d/e")).unwrap();
    fs::write(pair.a.data.join("d/same"), "same").unwrap();
    fs::write(pair.a.data.join("d/e/only here"), vec![5; 300_000]).unwrap();
    fs::hard_link(pair.a.data.join("d/same"), pair.a.data.join("linked")).unwrap();
    fs::create_dir_all(pair.b.data.join("only there/x")).unwrap();
    fs::write(pair.b.data.join("d"), "a file where a directory belongs").unwrap();
    pair.session(1, Plan::Full);
    pair.a.mount();
    pair.assert_equal();
    fs::write(pair.at("d/e/only here"), "changed").unwrap();
    pair.assert_equal();
}

#[test]
fn a_write_waits_when_the_other_node_is_killed_until_going_on_alone_is_settled() {
    let mut pair = Pair::paired(Plan::Repair);
    fs::write(pair.at("file"), "both").unwrap();
    pair.b.kill();
    let done = AtomicBool::new(false);
    let path = pair.at("file");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            fs::write(&path, "alone").unwrap();
            done.store(true, Ordering::Release);
        });
        lost(&mut pair.a);
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert!(!done.load(Ordering::Acquire), "acknowledged by nobody");
        pair.a.settle(9);
        until("the write ends", || done.load(Ordering::Acquire));
    });
    wrote_alone(&mut pair.a, 9);
    assert_eq!(fs::read(pair.at("file")).unwrap(), b"alone");

    pair.b.start();
    assert!(!pair.b.examine(&[1]).knows_inflight, "a killed process knows nothing");
    pair.session(2, Plan::Full);
    pair.assert_equal();
}

#[test]
fn the_other_node_serves_after_the_primary_was_killed() {
    let mut pair = Pair::paired(Plan::Repair);
    let acknowledged = AtomicU64::new(0);
    let path = pair.at("log");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut log = fs::File::create(&path).unwrap();
            loop {
                let next = acknowledged.load(Ordering::Acquire) + 1;
                if writeln!(log, "{next}").is_err() {
                    return;
                }
                acknowledged.store(next, Ordering::Release);
            }
        });
        until("some are written", || acknowledged.load(Ordering::Acquire) > 200);
        pair.a.kill();
    });
    lost(&mut pair.b);
    pair.b.settle(11);
    pair.b.mount();
    let log = fs::read_to_string(pair.b.data.join("log")).unwrap();
    let last: u64 = log.lines().last().unwrap().parse().unwrap();
    let acknowledged = acknowledged.into_inner();
    assert!(last == acknowledged || last == acknowledged + 1, "{last} of {acknowledged}");
    fs::write(pair.b.data.join("since"), "then").unwrap();
    wrote_alone(&mut pair.b, 11);

    // The dead mount is still there; starting again takes it away.
    pair.a.start();
    pair.a.examine(&[1]);
    std::mem::swap(&mut pair.a, &mut pair.b);
    pair.session(3, Plan::Full);
    pair.assert_equal();
    assert_eq!(fs::read(pair.beyond("since")).unwrap(), b"then");
}

#[test]
fn roles_are_exchanged_without_a_new_session() {
    let mut pair = Pair::paired(Plan::Repair);
    fs::write(pair.at("before"), "a").unwrap();
    let turn = |role: Role| {
        Order::Turn(safe_proto::replication::Turn { session: Some(crate::node::name(1)), role: role.into() })
    };
    for round in 0..3 {
        pair.a.unmount();
        pair.a.order(turn(Role::Secondary));
        // The order of commands is kept, so that an answer to a later one says that it was done.
        pair.a.order(Order::Mark(lineage(5)));
        pair.a.expect("Marked", |report| matches!(report, Report::Marked(_)).then_some(()));
        pair.b.order(turn(Role::Primary));
        pair.b.mount();
        std::mem::swap(&mut pair.a, &mut pair.b);
        fs::write(pair.at(&format!("round {round}")), "x").unwrap();
        fs::write(pair.at("before"), format!("{round}")).unwrap();
        pair.assert_equal();
    }
}

#[test]
fn a_mount_in_use_is_aborted_at_the_deadline() {
    let mut pair = Pair::paired(Plan::Repair);
    let mut open = fs::File::create(pair.at("open")).unwrap();
    let begun = now();
    pair.a.order(Order::Unmount(Unmount { deadline_ms: 300 }));
    pair.a.expect("Aborted", |report| matches!(report, Report::Aborted(_)).then_some(()));
    assert!(begun.elapsed() < LIMIT / 2);
    assert!(open.write_all(b"x").is_err());
    drop(open);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(pair.a.data.to_str().unwrap()));
    // What was covered is there again, and can be mounted again.
    assert!(pair.at("open").exists());
    pair.a.mount();
    fs::write(pair.at("again"), "x").unwrap();
    pair.assert_equal();
}

#[test]
fn a_waiting_write_ends_in_an_error_when_the_node_is_fenced() {
    let mut pair = Pair::paired(Plan::Repair);
    fs::write(pair.at("file"), "both").unwrap();
    pair.b.kill();
    lost(&mut pair.a);
    let mut writer =
        Command::new("sh").args(["-c", "echo never > file"]).current_dir(&pair.a.data).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(100));
    pair.a.order(Order::Fence(safe_proto::replication::Fence {}));
    pair.a.expect("Fenced", |report| matches!(report, Report::Fenced(_)).then_some(()));
    assert!(!writer.wait().unwrap().success());
    assert_ne!(fs::read(pair.a.data.join("file")).unwrap(), b"never\n");
}

#[test]
fn whoever_waits_can_be_killed() {
    let mut pair = Pair::paired(Plan::Repair);
    pair.b.kill();
    lost(&mut pair.a);
    let mut writer =
        Command::new("sh").args(["-c", "echo never > file"]).current_dir(&pair.a.data).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(writer.try_wait().unwrap().is_none(), "it waits");
    writer.kill().unwrap();
    until("the killed process ends", || writer.try_wait().unwrap().is_some());
    pair.a.settle(2);
    fs::write(pair.at("file"), "alone").unwrap();
}

#[test]
fn a_frozen_peer_holds_the_application_for_the_stall_timeout_only() {
    let mut pair = Pair::paired(Plan::Repair);
    fs::write(pair.at("file"), "both").unwrap();
    let pid = rustix::process::Pid::from_raw(pair.b.pid().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let begun = now();
    let done = AtomicBool::new(false);
    let path = pair.at("file");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            fs::write(&path, "alone").unwrap();
            done.store(true, Ordering::Release);
        });
        let reason = lost(&mut pair.a);
        assert!(reason.contains("silent"), "{reason}");
        assert!(begun.elapsed() < std::time::Duration::from_millis(2600), "{:?}", begun.elapsed());
        pair.a.settle(9);
        until("the write ends", || done.load(Ordering::Acquire));
    });
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    lost(&mut pair.b);
    pair.session(2, Plan::Delta);
    pair.assert_equal();
}
