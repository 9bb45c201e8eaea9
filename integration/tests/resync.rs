//! S10: a resync that is interrupted goes on from where it was, and its target never serves what is between two states.

use std::io::Write as _;
use std::time::Duration;

use safe_integration::disk::{Disk, Kind};
use safe_integration::error::{Context as _, Result};
use safe_integration::eventually::{eventually, eventually_true, throughout};
use safe_integration::lan::LANS;
use safe_integration::node::Node;
use safe_integration::status::{Resync, State, Status};
use safe_integration::{Cluster, Module, tree};

const PATH: &str = "/srv/data/m";

/// What n2 lacks, in files of 40 MiB that do not compress: what is smaller may go along with its name, as fast as it can.
const FILES: u64 = 2;
const TOTAL: u64 = FILES * (40 << 20);

/// So much of it was done when it is interrupted, at least.
const DONE: u64 = TOTAL / 3;

/// What may be sent twice: under way when it was interrupted, and what the status did not tell yet.
const TWICE: u64 = 12 << 20;

/// Longer than the heartbeat timeout.
const A_WHILE: Duration = Duration::from_secs(5);

fn module() -> Module {
    Module::mirror("m").replicate(PATH).section("[replication]\nbandwidth_limit = \"8MiB\"")
}

/// n2 is being brought in step with n1, and a third of it was sent; how much.
fn half_way(c: &Cluster) -> Result<u64> {
    let (n1, n2) = (c.node(0), c.node(1));
    n2.safectl("stop m --on n2")?;
    c.wait_state("m", "n1", State::Alone)?;
    n1.shell(&format!(
        "cd {PATH}; for n in $(seq {FILES}); do dd if=/dev/urandom of=file$n bs=1M count=40 status=none; done"
    ))?;
    n2.safectl("start m --on n2 --no-wait")?;
    eventually(Duration::from_secs(60), "a third of it was sent", || {
        let resync = n2.status("m")?.data.and_then(|data| data.resync);
        Ok(resync.map(|resync| resync.bytes_sent).filter(|done| *done >= DONE))
    })
}

fn consistent(status: &Status) -> Option<bool> {
    status.data.as_ref().and_then(|data| data.consistent)
}

/// n2 does not serve and says that its copy is inconsistent, for longer than it would take to take over.
fn never_serves(c: &Cluster) -> Result<()> {
    let n2 = c.node(1);
    throughout(A_WHILE, "n2 does not serve, and knows why", || {
        let status = n2.status("m")?;
        Ok(!status.state.serves() && consistent(&status) == Some(false))
    })?;
    let refused = n2.try_safectl("prim m --on n2 --no-wait")?;
    eventually_true(Duration::from_secs(10), "it does not serve when it is asked to", || {
        n2.status("m").is_ok_and(|status| !status.state.serves())
    })?;
    assert_ne!(refused.code, 64, "{refused:?}");
    Ok(())
}

/// In step, with no more sent than was left.
fn resumed(c: &Cluster, what: &str, done: u64) -> Result<()> {
    c.wait_pair("m", "n1")?;
    let (compared, sent) = c.node(0).last_resync("m")?.context(|| "no resync".to_owned())?;
    let mib = |bytes: u64| bytes >> 20;
    writeln!(
        std::io::stdout(),
        "| {what} | {} of {} MiB sent | then {} MiB compared | {} MiB more sent |",
        mib(done),
        mib(TOTAL),
        mib(compared),
        mib(sent)
    )?;
    assert!(sent <= TOTAL - done + TWICE, "{done} of {TOTAL} bytes were sent, then {sent} more");
    Ok(())
}

#[test]
fn s10_the_target_dies() -> Result<()> {
    let c = Cluster::two_nodes("s10-target")?;
    c.start_module(&module())?;
    let done = half_way(&c)?;
    c.node(1).kill_host()?;
    c.wait_state("m", "n1", State::Alone)?;
    c.node(1).restart_host()?;
    resumed(&c, "the target dies", done)?;
    tree::assert_equal(&c, PATH)?;
    c.finish()
}

#[test]
fn s10_the_source_dies() -> Result<()> {
    let c = Cluster::two_nodes("s10-source")?;
    c.start_module(&module())?;
    let done = half_way(&c)?;
    c.node(0).kill_host()?;
    never_serves(&c)?;
    c.node(0).restart_host()?;
    resumed(&c, "the source dies", done)?;
    tree::assert_equal(&c, PATH)?;
    c.finish()
}

#[test]
fn s10_the_lans_are_cut() -> Result<()> {
    let c = Cluster::two_nodes("s10-lans")?;
    c.start_module(&module())?;
    let done = half_way(&c)?;
    LANS.into_iter().try_for_each(|lan| c.cut(lan))?;
    never_serves(&c)?;
    assert_eq!(c.node(0).status("m")?.state, State::Alone, "the source serves on");
    LANS.into_iter().try_for_each(|lan| c.heal(lan))?;
    resumed(&c, "every lan is cut", done)?;
    tree::assert_equal(&c, PATH)?;
    c.finish()
}

/// The disk of the target fills up in the middle; it goes on by itself once there is room.
#[test]
fn s10_there_is_no_space_on_the_target() -> Result<()> {
    let c = Cluster::two_nodes("s10-space")?;
    let n2 = c.node(1);
    let disk = Disk::attach(n2, Kind::Ext4, 192, PATH)?;
    c.start_module(&module())?;
    let done = half_way(&c)?;
    disk.fill(n2)?;
    c.wait_status("m", "n1", "told that there is no space", |status| {
        status.reason.as_ref().is_some_and(|reason| reason.contains("o space left"))
    })?;
    assert_eq!(c.node(0).status("m")?.state, State::Alone, "the source serves on");
    never_serves(&c)?;
    disk.empty(n2)?;
    resumed(&c, "the disk of the target is full", done)?;
    tree::assert_equal_inside(&c, [PATH, PATH])?;
    c.finish()
}

fn resync(node: &Node) -> Result<Resync> {
    let data = node.status("m")?.data.context(|| "no data".to_owned())?;
    data.resync.context(|| "no resync".to_owned())
}

/// Nothing of it is sent while it is paused; the application is served, and what it writes is not lost.
#[test]
fn a_resync_is_paused_and_goes_on() -> Result<()> {
    let c = Cluster::two_nodes("resync-paused")?;
    c.start_module(&module())?;
    let (n1, n2) = (c.node(0), c.node(1));
    let done = half_way(&c)?;
    let told = n2.try_safectl("resync pause m --for 1h")?;
    assert!(told.code == 0 && told.err.contains("are paused for 1h"), "{told:?}");
    let soon = Duration::from_secs(20);
    eventually_true(soon, "the status says that it is paused", || {
        resync(n2).is_ok_and(|resync| resync.paused_s.is_some_and(|left| (3000..=3600).contains(&left)))
    })?;
    // What was under way when it was told has ended.
    let held =
        eventually(soon, "nothing is sent", || {
            let before = resync(n2)?.bytes_sent;
            let stands = throughout(Duration::from_millis(600), "nothing is sent", || {
                Ok(resync(n2)?.bytes_sent == before)
            });
            Ok(stands.is_ok().then_some(before))
        })?;
    n1.shell(&format!("echo written >{PATH}/meanwhile"))?;
    throughout(A_WHILE, "nothing is sent, and the node serves", || {
        Ok(resync(n2)?.bytes_sent <= held + 4096 && n1.status("m")?.state.serves())
    })?;
    assert!(held < TOTAL, "{held} of {TOTAL} bytes were sent before it was paused, {done} when it was told");
    n2.safectl("resync resume m")?;
    c.wait_pair("m", "n1")?;
    tree::assert_equal(&c, PATH)?;

    // The repair after a broken stream is not held back: the application waits for it.
    n1.safectl("resync pause m --for 1h")?;
    c.cut(LANS[0])?;
    n1.shell(&format!("echo written >{PATH}/through"))?;
    c.wait_pair("m", "n1")?;
    c.heal(LANS[0])?;
    tree::assert_equal(&c, PATH)?;
    let refused = n1.try_safectl("resync pause m --for 8d")?;
    assert_eq!(refused.code, 64, "{refused:?}");
    c.finish()
}

/// What a node has sent on all its lans.
fn on_the_wire(node: &Node) -> Result<u64> {
    let counters =
        node.shell("cat $(ls -d /sys/class/net/* | grep -v '/lo$' | sed 's,$,/statistics/tx_bytes,')")?;
    Ok(counters.lines().filter_map(|line| line.parse::<u64>().ok()).sum())
}

/// A disk image is renamed, and written to here and there, while its node is alone: the target has the rest of it.
#[test]
fn a_large_file_that_was_renamed_is_not_sent() -> Result<()> {
    let c = Cluster::two_nodes("resync-renamed")?;
    c.start_module(&Module::mirror("m").replicate(PATH))?;
    let (n1, n2) = (c.node(0), c.node(1));
    n1.shell(&format!(
        "cd {PATH}; mkdir old new; dd if=/dev/urandom of=old/image bs=1M count=128 status=none"
    ))?;
    n2.safectl("stop m --on n2")?;
    c.wait_state("m", "n1", State::Alone)?;
    n1.shell(&format!(
        "cd {PATH}; mv old/image new/disk
         for at in 1000 17777; do dd if=/dev/urandom of=new/disk bs=4k count=1 seek=$at conv=notrunc status=none; done"
    ))?;
    let before = on_the_wire(n1)?;
    n2.safectl("start m --on n2 --no-wait")?;
    c.wait_pair("m", "n1")?;
    let sent = on_the_wire(n1)? - before;
    writeln!(
        std::io::stdout(),
        "| 128 MiB renamed, 2 pages of it changed | {} KiB on the wire |",
        sent >> 10
    )?;
    assert!(sent < 1 << 20, "{sent} bytes were sent");
    tree::assert_equal(&c, PATH)?;
    c.finish()
}

/// n2 was in step and stopped, its disk filled up meanwhile; n1 has more than could fit, and n2 is started.
fn without_room(c: &Cluster) -> Result<Disk> {
    let (n1, n2) = (c.node(0), c.node(1));
    let disk = Disk::attach(n2, Kind::Ext4, 192, PATH)?;
    c.start_module(&module())?;
    n1.shell(&format!("echo old >{PATH}/before"))?;
    n2.safectl("stop m --on n2")?;
    c.wait_state("m", "n1", State::Alone)?;
    n1.shell(&format!(
        "cd {PATH}; echo new >before; dd if=/dev/urandom of=large bs=1M count=80 status=none"
    ))?;
    disk.fill(n2)?;
    n2.safectl("start m --on n2 --no-wait")?;
    c.wait_status("m", "n2", "told that there is no room", |status| {
        let says = |text: &Option<String>, what: &str| text.as_ref().is_some_and(|text| text.contains(what));
        says(&status.reason, &format!("{PATH} lacks space: 79.9 MiB more are needed"))
            && says(&status.hint, "make room on n2")
    })?;
    Ok(disk)
}

/// What n2 has is as it was, and known to be.
fn untouched(c: &Cluster, disk: &Disk) -> Result<()> {
    let n2 = c.node(1);
    assert_eq!(consistent(&n2.status("m")?), Some(true), "its copy is one state");
    assert_eq!(n2.shell(&format!("cat {}/before", disk.below()))?, "old");
    assert_eq!(n2.shell(&format!("ls {}", disk.below()))?, "before");
    Ok(())
}

/// What surely does not fit is not begun; once there is room it goes on by itself.
#[test]
fn s10_without_room_the_copy_stays_as_it_was() -> Result<()> {
    let c = Cluster::two_nodes("s10-room")?;
    let disk = without_room(&c)?;
    // Several tries.
    throughout(A_WHILE, "n2 keeps its copy, and n1 serves", || {
        untouched(&c, &disk)?;
        Ok(c.node(0).status("m")?.state == State::Alone)
    })?;
    disk.empty(c.node(1))?;
    c.wait_pair("m", "n1")?;
    tree::assert_equal_inside(&c, [PATH, PATH])?;
    c.finish()
}

/// Its node serves with it when it is forced to.
#[test]
fn s10_a_copy_without_room_for_the_newest_can_be_forced_to_serve() -> Result<()> {
    let c = Cluster::two_nodes("s10-force")?;
    let n2 = c.node(1);
    let disk = without_room(&c)?;
    c.node(0).kill_host()?;
    c.wait_status("m", "n2", "waiting for n1", |status| {
        status.reason.as_ref().is_some_and(|reason| reason.contains("not the newest: waits for n1"))
    })?;
    untouched(&c, &disk)?;
    disk.empty(n2)?;
    n2.safectl("prim m --on n2 --force --yes")?;
    c.wait_state("m", "n2", State::Alone)?;
    assert_eq!(n2.shell(&format!("cat {PATH}/before"))?, "old");
    c.node(0).restart_host()?;
    c.wait_pair("m", "n2")?;
    tree::assert_equal_inside(&c, [PATH, PATH])?;
    c.finish()
}
