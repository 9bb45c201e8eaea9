//! S12 and S21: the disk of the serving node fails, hangs, or is full on both nodes.

use std::io::Write as _;
use std::time::{Duration, Instant};

use safe_integration::disk::{Disk, Kind};
use safe_integration::error::{Context as _, Result};
use safe_integration::eventually::eventually_true;
use safe_integration::ledger::protected::{DIRECTORY, MODULE, module};
use safe_integration::{Service, State, clock};

/// Short, so that the test is.
const LOCAL: &str = "[replication]\nlocal_timeout = \"3s\"";

/// A ledger on a disk of its own on each node.
fn on_disks(name: &str, kind: Kind) -> Result<(Service, [Disk; 2])> {
    let s = Service::start_on(name, module()?.section(LOCAL), |cluster| {
        let disk = |index| Disk::attach(cluster.node(index), kind, 64, DIRECTORY).map(Some);
        Ok([disk(0)?, disk(1)?])
    })?;
    let disk = |index: usize| s.disks[index].clone().context(|| "no disk".to_owned());
    let disks = [disk(0)?, disk(1)?];
    Ok((s, disks))
}

/// n2 serves; how long nobody did.
fn taken_over(s: &Service, what: &str, begin: Instant) -> Result<()> {
    let failover = s.served_after(begin)?;
    s.wait(s.node(1), State::Alone)?;
    s.writes(50)?;
    let pause =
        s.client.longest_pause(begin.checked_sub(Duration::from_secs(1)).unwrap_or(begin), clock::now());
    writeln!(
        std::io::stdout(),
        "| {what} | served again after {failover:.2?} | longest pause {pause:.2?} |"
    )?;
    assert!(s.node(0).running("ledger")?.is_empty(), "the application still runs beside the failed disk");
    assert!(s.node(0).fuse_mounts()?.is_empty(), "the failed disk is still served");
    Ok(())
}

/// n1 is put right and follows.
fn put_right(s: &Service, disk: &Disk) -> Result<()> {
    s.node(0).safectl(&format!("stop {MODULE} --on n1"))?;
    disk.repair(s.node(0))?;
    s.node(0).safectl(&format!("start {MODULE} --on n1"))?;
    s.wait_pair(s.node(1))
}

#[test]
fn s12_disk_of_the_serving_node_fails() -> Result<()> {
    let (s, [disk, _]) = on_disks("s12-eio", Kind::Ext4)?;
    let begin = clock::now();
    disk.fail(s.node(0))?;
    taken_over(&s, "local disk fails with EIO", begin)?;
    put_right(&s, &disk)?;
    s.finish()
}

#[test]
fn s12_disk_of_the_serving_node_becomes_read_only() -> Result<()> {
    let (s, [disk, _]) = on_disks("s12-read-only", Kind::Ext4)?;
    let begin = clock::now();
    disk.read_only(s.node(0))?;
    taken_over(&s, "local disk becomes read-only", begin)?;
    put_right(&s, &disk)?;
    s.finish()
}

/// Nothing is answered any more, and no error comes: `local_timeout`.
#[test]
fn s12_disk_of_the_serving_node_hangs() -> Result<()> {
    let (s, [disk, _]) = on_disks("s12-hangs", Kind::Ext4)?;
    let begin = clock::now();
    let hanging = disk.hang(s.node(0))?;
    taken_over(&s, "local disk hangs, local_timeout 3 s", begin)?;
    drop(hanging);
    s.wait_pair(s.node(1))?;
    s.finish()
}

/// Both disks full: an error of the application's own, and no failover. Then a node is lost, and the other serves.
#[test]
fn s21_both_disks_are_full_then_a_node_is_lost() -> Result<()> {
    let (s, disks) = on_disks("s21-full", Kind::Ext4)?;
    // First where it serves: what does not fit there is not sent to the other node.
    disks[0].fill(s.node(0))?;
    let failures = s.client.failures();
    eventually_true(Duration::from_secs(30), "the application is told", || {
        s.client.failures() > failures + 3
    })?;
    disks[1].fill(s.node(1))?;
    s.wait(s.node(0), State::Prim)?;
    s.wait(s.node(1), State::Second)?;
    s.node(0).kill_host()?;
    s.wait(s.node(1), State::Alone)?;
    disks[1].empty(s.node(1))?;
    // A ledger ends when it cannot write.
    s.node(1).safectl(&format!("restart {MODULE} --on n2"))?;
    s.writes(50)?;
    s.node(0).power_on()?;
    disks[0].mount(s.node(0))?;
    disks[0].empty(s.node(0))?;
    s.node(0).start_agent()?;
    s.wait_pair(s.node(1))?;
    s.finish()
}
