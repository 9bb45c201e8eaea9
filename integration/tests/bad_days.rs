//! Bad days: the directory is not what it was, a script hangs, something is killed.

use std::time::Duration;

use safe_integration::disk::{Disk, Kind};
use safe_integration::error::Result;
use safe_integration::eventually::eventually_true;
use safe_integration::ledger::protected::{ADDRESS, MODULE, module};
use safe_integration::{Cluster, Module, Phase, Service, State, clock, tree};

const PATH: &str = "/srv/data/m";

/// A module on a directory that is prepared, then started; the first node must say this and touch nothing.
fn blocked(name: &str, prepare: &str, words: &[&str]) -> Result<()> {
    let c = Cluster::two_nodes(name)?;
    c.install_module(&Module::mirror("m").replicate(PATH))?;
    c.node(0).shell(prepare)?;
    let look = || {
        c.node(0).shell("find /srv/data -printf '%P %y %m %s %T@\\n' | sort; mount | grep ' /srv/' || true")
    };
    let before = look()?;
    c.node(0).safectl("start m --no-wait")?;
    let status = c.wait_status("m", "n1", "blocked", |status| {
        status.phase == Some(Phase::Blocked)
            && status.reason.as_ref().is_some_and(|reason| !reason.is_empty())
    })?;
    assert!(!status.state.serves());
    let reason = status.reason.unwrap_or_default();
    for word in words {
        assert!(reason.contains(word), "the reason does not say {word:?}: {reason}");
    }
    assert_eq!(look()?, before, "the data is untouched");
    assert!(c.node(0).fuse_mounts()?.is_empty());
    c.finish()
}

#[test]
fn missing_directory_blocks() -> Result<()> {
    blocked("dir-missing", "rmdir /srv/data/m", &[PATH])
}

#[test]
fn file_in_place_of_the_directory_blocks() -> Result<()> {
    blocked("dir-file", "rmdir /srv/data/m; echo text >/srv/data/m", &[PATH, "directory"])
}

#[test]
fn directory_in_use_blocks_and_names_who() -> Result<()> {
    let line = "echo text >/srv/data/m/file; setsid sleep 1000 </srv/data/m/file >/dev/null 2>&1 &";
    blocked("dir-used", line, &[PATH, "sleep"])
}

#[test]
fn read_only_disk_blocks() -> Result<()> {
    let line =
        "mount -t tmpfs none /srv/data/m; echo text >/srv/data/m/file; mount -o remount,ro /srv/data/m";
    blocked("dir-read-only", line, &[PATH, "read-only"])
}

#[test]
fn full_disk_blocks() -> Result<()> {
    let line = "mount -t tmpfs -o size=1m none /srv/data/m; dd if=/dev/zero of=/srv/data/m/file bs=64k 2>/dev/null || true";
    blocked("dir-full", line, &[PATH])
}

/// Its disk is not mounted: another directory where a copy was. It must not become the source of anything.
#[test]
fn s19_the_place_of_a_disk_that_is_not_mounted_is_not_served() -> Result<()> {
    let c = Cluster::two_nodes("dir-unmounted")?;
    let n2 = c.node(1);
    let disk = Disk::attach(n2, Kind::Ext4, 64, PATH)?;
    c.start_module(&Module::mirror("m").replicate(PATH))?;
    c.node(0).shell("echo precious >/srv/data/m/file")?;
    n2.kill_host()?;
    n2.power_on()?;
    n2.shell("echo other >/srv/data/m/other")?;
    n2.start_agent()?;
    let status = c.wait_blocked("m", "n2", State::Wait)?;
    let hint = status.hint.unwrap_or_default();
    assert!(hint.contains("safectl second m --on n2 --full"), "{hint}");
    assert_eq!(n2.shell("cat /srv/data/m/other")?, "other", "untouched");
    n2.shell("echo more >>/srv/data/m/other")?;
    // Its own copy back in place, all is well.
    n2.safectl("stop m --on n2")?;
    disk.mount(n2)?;
    n2.safectl("start m")?;
    c.wait_pair("m", "n1")?;
    assert_eq!(n2.shell("cat /srv/data/m/file")?, "precious");
    tree::assert_equal_inside(&c, [PATH, PATH])?;
    c.finish()
}

#[test]
fn hanging_stop_script_is_killed_and_nobody_else_serves_meanwhile() -> Result<()> {
    let times = "[scripts]\nstop_timeout = \"2s\"\nforce_timeout = \"2s\"";
    let hanging = module()?.section(times).script("stop_prim", "exec sleep 1000");
    let s = Service::start_with("stop-hangs", hanging)?;
    let begin = clock::now();
    s.node(0).safectl(&format!("stop {MODULE} --on n1 --no-wait"))?;
    s.wait(s.node(1), State::Alone)?;
    s.served_after(begin)?;
    s.wait(s.node(0), State::Stop)?;
    assert!(s.node(0).running("ledger")?.is_empty(), "the module's processes are killed");
    assert!(s.node(0).running("sleep")?.is_empty(), "the script too");
    assert!(!s.node(0).has_address(ADDRESS));
    s.node(0).safectl(&format!("start {MODULE}"))?;
    s.wait_pair(s.node(1))?;
    s.finish()
}

/// What can be killed on its own.
#[derive(Clone, Copy)]
enum Victim {
    Agent,
    Replicator,
}

fn kill_and_recover(s: &Service, index: usize, victim: Victim) -> Result<()> {
    let node = s.node(index);
    let moment = clock::now();
    match victim {
        Victim::Agent => {
            node.kill_agent()?;
            node.start_agent()?;
        }
        Victim::Replicator => node.kill_replicator()?,
    }
    s.served_after(moment)?;
    eventually_true(Duration::from_secs(60), "one is PRIM, the other SECOND", || {
        let state = |index: usize| s.node(index).status(MODULE).map(|status| (status.state, status.phase));
        let ready = Some(Phase::Ready);
        match (state(0), state(1)) {
            (Ok(one), Ok(other)) => {
                let pair = [(State::Prim, ready), (State::Second, ready)];
                [one, other] == pair || [other, one] == pair
            }
            _ => false,
        }
    })
}

/// At any moment: between the kills a different number of writes goes through.
fn kill_in_turn(s: &Service, rounds: usize) -> Result<()> {
    for round in 0..rounds {
        s.writes(1 + (round * 37) % 113)?;
        let victim = if round / 2 % 2 == 0 { Victim::Agent } else { Victim::Replicator };
        kill_and_recover(s, round % 2, victim)?;
    }
    Ok(())
}

#[test]
fn killed_processes_lose_nothing() -> Result<()> {
    let s = Service::start("killed")?;
    kill_in_turn(&s, 4)?;
    s.finish()
}

#[test]
#[ignore = "long: make proof"]
fn killed_processes_lose_nothing_over_and_over() -> Result<()> {
    let s = Service::start("killed-often")?;
    kill_in_turn(&s, 60)?;
    s.finish()
}

#[test]
#[ignore = "long: make proof"]
fn hosts_lose_power_over_and_over() -> Result<()> {
    let s = Service::start("power-often")?;
    for round in 0..20 {
        s.writes(1 + (round * 53) % 211)?;
        let moment = s.node(round % 2).kill_host()?;
        s.served_after(moment)?;
        s.wait(s.node(1 - round % 2), State::Alone)?;
        s.node(round % 2).restart_host()?;
        s.wait_pair(s.node(1 - round % 2))?;
    }
    s.finish()
}
