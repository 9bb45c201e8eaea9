//! What may differ after a failure, and who knows it: each row of the design's table. Loss of power is shown with disks
//! of their own: the image of a mounted disk is copied without a sync, so that what was only in the page cache is not in
//! it, and put in the place of the disk.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use safe_proto::replication::Plan;
use safe_proto::replication::attach_request::Command as Order;
use safe_proto::replication::attach_response::Report;

use crate::certificates::Authority;
use crate::node::{Node, lineage, until};
use crate::pair::{Pair, assert_equal};

const LINEAGE: u128 = 5;
const MIB: u64 = 1 << 20;

fn run(program: &str, words: &[&str]) {
    let output = Command::new(program).args(words).output().unwrap();
    assert!(output.status.success(), "{program} {words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A node's files on a disk of their own.
struct Disk {
    image: PathBuf,
    place: PathBuf,
}

impl Disk {
    fn new(place: &Path, name: &str) -> Self {
        let (image, place) = (place.join(format!("{name}.img")), place.join(name));
        fs::create_dir_all(&place).unwrap();
        File::create(&image).unwrap().set_len(512 * MIB).unwrap();
        run("mkfs.ext4", &["-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", image.to_str().unwrap()]);
        let disk = Self { image, place };
        disk.mount();
        disk
    }

    fn mount(&self) {
        run("mount", &["-o", "loop", self.image.to_str().unwrap(), self.place.to_str().unwrap()]);
    }

    /// Nobody uses it any more; what no sync has reached is gone.
    fn lose_power(&self) {
        let left = self.image.with_extension("left");
        run("cp", &["--sparse=always", self.image.to_str().unwrap(), left.to_str().unwrap()]);
        until("the disk is free", || {
            Command::new("umount").arg(&self.place).output().unwrap().status.success()
        });
        fs::rename(&left, &self.image).unwrap();
        self.mount();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What is still mounted on it goes with its node, later.
        let _busy = Command::new("umount").arg("-l").arg(&self.place).status();
    }
}

/// Two nodes, each on its own disk, in step.
struct Rig {
    // In this order: processes before disks.
    pair: Pair,
    a: Disk,
    b: Disk,
    _place: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let place = tempfile::Builder::new().prefix("safed-epochs-").tempdir().unwrap();
        let (disk_a, disk_b) = (Disk::new(place.path(), "a"), Disk::new(place.path(), "b"));
        let authority = Authority::new();
        let mut a = Node::new("a", "b", place.path(), &authority);
        let mut b = Node::new("b", "a", place.path(), &authority);
        (a.endpoint, b.endpoint) = (b.address, a.address);
        (a.boot, b.boot) = (1, 2);
        let mut pair = Pair::of(a, b);
        pair.start();
        label(&mut pair);
        pair.session(1, Plan::Repair);
        pair.a.mount();
        Self { pair, a: disk_a, b: disk_b, _place: place }
    }

    /// Everything so far is durable on both, and both know it: the first epoch that is closed may have ended before.
    fn settle(&self) {
        let count = |node: &Node, text: &str| node.log().matches(text).count();
        let (mine, theirs) =
            ("an epoch is durable on both nodes", "the other node says that an epoch is durable");
        for round in 0..2 {
            let before = (count(&self.pair.a, mine), count(&self.pair.b, theirs));
            fs::write(self.pair.a.data.join("settled"), round.to_string()).unwrap();
            until("an epoch is closed", || {
                count(&self.pair.a, mine) > before.0 && count(&self.pair.b, theirs) > before.1
            });
        }
    }
}

fn label(pair: &mut Pair) {
    for node in [&mut pair.a, &mut pair.b] {
        node.order(Order::Mark(lineage(LINEAGE)));
        node.expect("Marked", |report| matches!(report, Report::Marked(_)).then_some(()));
    }
}

fn lost(node: &mut Node) {
    node.expect("SessionLost", |report| matches!(report, Report::SessionLost(_)).then_some(()));
}

/// Bytes that the process has read.
fn read_bytes(node: &Node) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/io", node.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap();
    line.trim().parse().unwrap()
}

fn write_at(path: &Path, offset: u64, data: &[u8]) {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path).unwrap();
    file.write_all_at(data, offset).unwrap();
}

/// What is old on both disks: so much that comparing it all would be seen.
fn old(root: &Path) {
    fs::create_dir_all(root.join("old/deep")).unwrap();
    for number in 0..40_u8 {
        fs::write(root.join(format!("old/{number}")), vec![number; 4 * MIB as usize]).unwrap();
        fs::write(root.join(format!("old/deep/{number}")), [number; 5000]).unwrap();
    }
}

/// All kinds of changes.
fn change(root: &Path, seed: u8) {
    write_at(&root.join("old/1"), MIB + 4096, &[seed; 10_000]);
    write_at(&root.join("old/2"), 4 * MIB, &[seed; 70_000]);
    fs::write(root.join("old/new"), [seed; 9000]).unwrap();
    fs::create_dir(root.join(format!("made {seed}"))).unwrap();
    fs::write(root.join(format!("made {seed}/in it")), [seed; 3000]).unwrap();
    fs::rename(root.join("old/deep/3"), root.join(format!("old/moved {seed}"))).unwrap();
    fs::remove_file(root.join("old/deep/4")).unwrap();
    fs::write(root.join("old/deep/4"), [seed; 100]).unwrap();
    fs::hard_link(root.join("old/5"), root.join(format!("old/linked {seed}"))).unwrap();
    fs::write(root.join("old/deep/3"), [seed; 77]).unwrap();
}

#[test]
fn a_process_that_was_killed_costs_what_was_written_since_the_last_epoch() {
    for primary in [false, true] {
        let mut rig = Rig::new();
        old(&rig.pair.a.data);
        rig.settle();
        let written = 8 * MIB;
        for at in 0..written / 65_536 {
            write_at(&rig.pair.a.data.join("old/7"), at * 65_536 % (4 * MIB), &[at as u8; 65_536]);
        }
        change(&rig.pair.a.data, 9);
        let before = if primary {
            rig.pair.a.kill();
            rig.pair.a.bury();
            lost(&mut rig.pair.b);
            rig.pair.a.start();
            assert!(rig.pair.a.examine(&[LINEAGE]).knows_inflight);
            read_bytes(&rig.pair.b)
        } else {
            rig.pair.b.kill();
            lost(&mut rig.pair.a);
            rig.pair.b.start();
            assert!(rig.pair.b.examine(&[LINEAGE]).knows_inflight);
            read_bytes(&rig.pair.a)
        };
        rig.pair.session(2, Plan::Repair);
        let read = if primary {
            read_bytes(&rig.pair.b) - before + read_bytes(&rig.pair.a)
        } else {
            read_bytes(&rig.pair.a) - before + read_bytes(&rig.pair.b)
        };
        println!(
            "| killed {} | written {written} | read {read} |",
            if primary { "primary" } else { "secondary" }
        );
        assert!(read <= 2 * written + 64 * MIB, "read {read} bytes");
        assert_equal(&rig.pair.a.data, &rig.pair.b.data);
        if primary {
            rig.pair.a.mount();
        }
        fs::write(rig.pair.a.data.join("after"), "in step").unwrap();
        assert_eq!(fs::read(rig.pair.b.data.join("after")).unwrap(), b"in step");
    }
}

#[test]
fn the_secondary_loses_power() {
    let mut rig = Rig::new();
    old(&rig.pair.a.data);
    rig.settle();
    change(&rig.pair.a.data, 1);
    rig.pair.b.kill();
    lost(&mut rig.pair.a);
    rig.b.lose_power();
    rig.pair.b.boot = 22;
    rig.pair.b.start();
    assert!(rig.pair.b.examine(&[LINEAGE]).knows_inflight);
    assert!(!rig.pair.b.data.join("old/new").exists() || differ(&rig.pair), "its page cache was not lost");
    rig.pair.session(2, Plan::Repair);
    assert_equal(&rig.pair.a.data, &rig.pair.b.data);
}

fn differ(pair: &Pair) -> bool {
    std::panic::catch_unwind(|| assert_equal(&pair.a.data, &pair.b.data)).is_err()
}

#[test]
fn the_primary_loses_power() {
    let mut rig = Rig::new();
    old(&rig.pair.a.data);
    rig.settle();
    change(&rig.pair.a.data, 1);
    rig.pair.a.kill();
    rig.pair.a.bury();
    lost(&mut rig.pair.b);
    rig.a.lose_power();
    rig.pair.a.boot = 11;
    // The other one takes over, and has not written anything when it comes back.
    rig.pair.a.start();
    assert!(rig.pair.a.examine(&[LINEAGE]).knows_inflight);
    assert!(differ(&rig.pair), "its page cache was not lost");
    std::mem::swap(&mut rig.pair.a, &mut rig.pair.b);
    rig.pair.session(2, Plan::Repair);
    assert_equal(&rig.pair.a.data, &rig.pair.b.data);
    let found = fs::read(rig.pair.a.data.join("made 1/in it")).unwrap();
    assert_eq!(found, [1; 3000], "what was acknowledged is there");
}

#[test]
fn both_lose_power() {
    let mut rig = Rig::new();
    old(&rig.pair.a.data);
    rig.settle();
    change(&rig.pair.a.data, 1);
    let kept = rig.pair.a.data.join("kept");
    fs::write(&kept, [7; 6000]).unwrap();
    File::open(&kept).unwrap().sync_all().unwrap();
    // Whatever each of them has on its disk by chance.
    run("sync", &["-f", rig.pair.b.data.to_str().unwrap()]);
    change(&rig.pair.a.data, 2);
    for node in [&mut rig.pair.a, &mut rig.pair.b] {
        node.kill();
    }
    rig.pair.a.bury();
    rig.a.lose_power();
    rig.b.lose_power();
    (rig.pair.a.boot, rig.pair.b.boot) = (11, 22);
    for node in [&mut rig.pair.a, &mut rig.pair.b] {
        node.start();
        assert!(node.examine(&[LINEAGE]).knows_inflight);
    }
    assert!(differ(&rig.pair), "the disks are equal by chance");
    rig.pair.session(2, Plan::Repair);
    assert_equal(&rig.pair.a.data, &rig.pair.b.data);
    assert_eq!(fs::read(rig.pair.a.data.join("kept")).unwrap(), [7; 6000], "what was synced is there");
}

#[test]
fn a_node_that_goes_on_alone_loses_power() {
    let mut rig = Rig::new();
    old(&rig.pair.a.data);
    rig.settle();
    rig.pair.b.kill();
    lost(&mut rig.pair.a);
    rig.pair.a.settle(LINEAGE + 1);
    change(&rig.pair.a.data, 1);
    until("an epoch is closed", || rig.pair.a.log().contains("an epoch is durable here"));
    change(&rig.pair.a.data, 2);
    write_at(&rig.pair.a.data.join("old/9"), MIB, &[3; 5000]);
    File::open(rig.pair.a.data.join("old/9")).unwrap().sync_all().unwrap();
    rig.pair.a.kill();
    rig.pair.a.bury();
    rig.a.lose_power();
    rig.pair.a.boot = 11;
    rig.pair.a.start();
    assert!(rig.pair.a.examine(&[LINEAGE + 1, LINEAGE]).knows_inflight);
    rig.pair.b.start();
    assert!(rig.pair.b.examine(&[LINEAGE]).knows_inflight);
    rig.pair.session(2, Plan::Delta);
    assert_equal(&rig.pair.a.data, &rig.pair.b.data);
    let synced = fs::read(rig.pair.b.data.join("old/9")).unwrap();
    assert_eq!(synced[MIB as usize..MIB as usize + 5000], [3; 5000], "what was synced is there");
}

#[test]
fn without_its_records_a_copy_knows_nothing() {
    let mut rig = Rig::new();
    old(&rig.pair.a.data);
    change(&rig.pair.a.data, 1);
    rig.pair.b.kill();
    lost(&mut rig.pair.a);
    for slot in 0..3 {
        fs::remove_file(rig.b.place.join(format!("state/epoch.{slot}"))).unwrap();
    }
    rig.pair.b.start();
    assert!(!rig.pair.b.examine(&[LINEAGE]).knows_inflight, "there is no record");
    rig.pair.session(2, Plan::Full);
    rig.pair.b.kill();
    lost(&mut rig.pair.a);
    rig.pair.b.start();
    assert!(!rig.pair.b.examine(&[LINEAGE + 1]).knows_inflight, "they belong to another lineage");
}

#[test]
fn a_copy_of_another_time_is_compared_as_a_whole() {
    let mut rig = Rig::new();
    fs::write(rig.pair.a.data.join("file"), "old").unwrap();
    rig.settle();
    // A snapshot of a machine that runs, taken when everything was on its disk.
    let snapshot = rig.b.image.with_extension("snapshot");
    run("sync", &["-f", rig.pair.b.data.to_str().unwrap()]);
    run("cp", &["--sparse=always", rig.b.image.to_str().unwrap(), snapshot.to_str().unwrap()]);
    for text in ["newer", "newest", "latest"] {
        fs::write(rig.pair.a.data.join("file"), text).unwrap();
        rig.settle();
    }
    rig.pair.b.kill();
    lost(&mut rig.pair.a);
    rig.b.lose_power();
    run("umount", &[rig.b.place.to_str().unwrap()]);
    fs::rename(&snapshot, &rig.b.image).unwrap();
    rig.b.mount();
    rig.pair.b.boot = 22;
    rig.pair.b.start();
    rig.pair.b.examine(&[LINEAGE]);
    assert_eq!(fs::read(rig.pair.b.data.join("file")).unwrap(), b"old");
    rig.pair.session(2, Plan::Repair);
    assert_equal(&rig.pair.a.data, &rig.pair.b.data);
    assert!(rig.pair.a.log().contains("of another time"));
}

/// The secondary is killed; alone the primary closes several epochs, then the other one is brought in step with what
/// changed.
fn alone_for_some_epochs(rig: &mut Rig, session: u64) {
    let closed = |rig: &Rig| rig.pair.a.log().matches("an epoch is durable here").count();
    rig.pair.b.kill();
    lost(&mut rig.pair.a);
    rig.pair.a.settle(LINEAGE);
    for round in 0..3 {
        let before = closed(rig);
        fs::write(rig.pair.a.data.join("alone"), format!("{session} {round}")).unwrap();
        until("an epoch is closed alone", || closed(rig) > before);
    }
    rig.pair.b.start();
    rig.pair.b.examine(&[LINEAGE]);
    crate::campaign::repair(&mut rig.pair, session, Plan::Delta);
}

#[test]
fn a_node_that_was_away_for_many_epochs_is_of_no_other_time() {
    let mut rig = Rig::new();
    rig.settle();
    for session in 2..4 {
        alone_for_some_epochs(&mut rig, session);
        let theirs = |rig: &Rig| rig.pair.b.log().matches("that an epoch is durable").count();
        let before = theirs(&rig);
        fs::write(rig.pair.a.data.join("paired"), session.to_string()).unwrap();
        until("an epoch is closed by both", || theirs(&rig) > before);
    }
    assert_equal(&rig.pair.a.below(), &rig.pair.b.data);
    assert!(!rig.pair.a.log().contains("of another time"), "{}", rig.pair.a.log());
}

#[test]
fn the_first_error_of_a_sync_of_everything_is_reported_and_not_tried_again() {
    for primary in [true, false] {
        let mut rig = Rig::new();
        rig.settle();
        let node = if primary { &mut rig.pair.a } else { &mut rig.pair.b };
        fs::write(node.crash_file(), "syncfs 1").unwrap();
        fs::write(rig.pair.a.data.join("file"), "more").unwrap();
        let node = if primary { &mut rig.pair.a } else { &mut rig.pair.b };
        node.expect("DiskFailed", |report| match report {
            Report::DiskFailed(reason) => reason.contains("durable").then_some(()),
            _ => None,
        });
        lost(&mut rig.pair.a);
        let again = |node: &Node| node.log().matches("making everything durable failed").count();
        assert!(again(&rig.pair.a) + again(&rig.pair.b) <= 2);
    }
}
