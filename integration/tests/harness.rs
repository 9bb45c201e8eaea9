//! The harness itself: hosts are separate machines as far as the tests need it, and nothing stays behind.

use std::fs;
use std::time::Duration;

use safe_integration::clock;
use safe_integration::cluster::Cluster;
use safe_integration::error::{Error, Result};
use safe_integration::eventually::{eventually, eventually_true};
use safe_integration::guardian::{Charge, Guardian};
use safe_integration::lan::{DEFAULT, LANS, REPL};
use safe_integration::ledger::client::Client;
use safe_integration::node::Node;
use safe_integration::place;
use safe_integration::process;

fn will_hear(node: &Node, address: &str) -> Result<()> {
    let what = format!("{} hears {address}", node.name);
    eventually_true(Duration::from_secs(10), &what, || hears(node, address))
}

fn hears(node: &Node, address: &str) -> bool {
    let ping = node.program("ping").map(|ping| ping.args(["-c", "1", "-W", "1", address]).run());
    ping.is_ok_and(|answer| answer.is_ok())
}

#[test]
fn hosts_hear_each_other_until_cut() -> Result<()> {
    let c = Cluster::bare("harness-lans")?;
    let client = c.client("client", 100)?;
    for lan in LANS {
        will_hear(c.node(0), &lan.address(2))?;
        c.cut(lan)?;
        assert!(!hears(c.node(0), &lan.address(2)), "{} is cut", lan.name);
        let carrier = c.node(0).shell(&format!("cat /sys/class/net/{}/carrier", lan.interface))?;
        assert_eq!(carrier, "1", "a cut leaves the carrier");
    }
    client.program("ping")?.args(["-c", "1", "-W", "1", &DEFAULT.address(1)]).run()?;
    c.heal(REPL)?;
    will_hear(c.node(1), &REPL.address(1))?;
    c.plug(c.node(1), REPL, false)?;
    assert!(!hears(c.node(0), &REPL.address(2)));
    let carrier = c.node(1).shell("cat /sys/class/net/eth1/carrier")?;
    assert_eq!(carrier, "0", "a pulled cable takes the carrier");
    c.plug(c.node(1), REPL, true)?;
    will_hear(c.node(0), &REPL.address(2))?;
    c.finish()
}

#[test]
fn a_host_keeps_its_disk_and_loses_all_else() -> Result<()> {
    let c = Cluster::bare("harness-power")?;
    let node = c.node(0);
    node.shell(
        "echo kept > /srv/file; mkdir /srv/mnt; mount -t tmpfs none /srv/mnt; echo lost > /srv/mnt/file",
    )?;
    let boot = node.shell("cat /proc/sys/kernel/random/boot_id")?;
    let mut sleeper = node.program("sleep")?.arg("1000").spawn(&node.log("sleep"))?;
    let pid = sleeper.pid()?;
    assert_eq!(node.running("sleep")?, [pid]);
    node.kill_host()?;
    assert!(!process::is_alive(pid));
    assert!(!hears(c.node(1), &DEFAULT.address(1)));
    node.power_on()?;
    will_hear(c.node(1), &DEFAULT.address(1))?;
    assert_eq!(node.shell("cat /srv/file; ls /srv/mnt")?, "kept");
    assert_ne!(node.shell("cat /proc/sys/kernel/random/boot_id")?, boot, "it booted again");
    assert_eq!(node.processes()?, []);
    c.finish()
}

#[test]
fn frozen_processes_go_on_when_thawed() -> Result<()> {
    let c = Cluster::bare("harness-freeze")?;
    let node = c.node(0);
    let line = "while :; do date +%N > /srv/tick; sleep 0.01; done";
    let _clock = node.program("sh")?.args(["-c", line]).spawn(&node.log("tick"))?;
    let tick = || fs::read_to_string(node.outside("/srv/tick")).unwrap_or_default();
    let moves = |what| {
        let before = tick();
        eventually_true(Duration::from_secs(5), what, || tick() != before)
    };
    moves("it ticks")?;
    node.freeze()?;
    assert!(moves("frozen").is_err());
    node.thaw()?;
    moves("it ticks again")?;
    c.finish()
}

#[test]
fn nothing_stays_when_a_test_is_killed() -> Result<()> {
    let home = tempfile::tempdir()?;
    let directory = home.path().join("cluster");
    fs::create_dir(&directory)?;
    let guardian = Guardian::start(&Charge {
        name: "orphan".to_owned(),
        lock: Some(directory.join("lock")),
        remove: Some(directory.clone()),
        ..Charge::default()
    })?;
    let init = guardian.init();
    assert!(process::is_alive(init));
    // What the kernel does for a test that was killed: its end of the pipe is closed.
    drop(guardian);
    assert!(!process::is_alive(init));
    assert!(!directory.exists());
    Ok(())
}

#[test]
fn fuse_can_be_mounted_on_a_host() -> Result<()> {
    let c = Cluster::bare("harness-fuse")?;
    let node = c.node(0);
    node.shell("mkdir /srv/fuse")?;
    // A mount whose daemon never answers is a mount all the same, and it must end with the host.
    let mount =
        "exec 3<>/dev/fuse; mount -i -t fuse.test -o fd=3,rootmode=40000,user_id=0,group_id=0 test /srv/fuse";
    node.shell(mount)?;
    if node.fuse_mounts()?.len() != 1 {
        return Err(Error::new("no FUSE mount"));
    }
    assert_eq!(fs::read_dir(node.outside("/srv/fuse"))?.count(), 0, "it is private to the host");
    node.kill_host()?;
    node.power_on()?;
    assert!(node.fuse_mounts()?.is_empty());
    c.finish()
}

#[test]
fn the_ledgers_client_remembers_what_was_acknowledged() -> Result<()> {
    let c = Cluster::bare("harness-ledger")?;
    let (node, outside) = (c.node(0), c.client("client", 100)?);
    let ledger = place::binary("ledger")?;
    let serve = || {
        node.program(&ledger.to_string_lossy())?.args(["--file", "/srv/ledger"]).spawn(&node.log("ledger"))
    };
    let server = serve()?;
    let mut client = Client::start(&outside, "10.99.0.1:8080".parse().map_err(|_| Error::new("address"))?)?;
    let many = |more| {
        let enough = client.count() + more;
        eventually_true(Duration::from_secs(20), "acknowledged writes", || client.count() >= enough)
    };
    many(20)?;
    drop(server);
    let restarted = clock::now();
    let _server = serve()?;
    many(20)?;
    client.stop()?;
    assert!(client.first_after(restarted).is_some());
    assert_eq!(client.lost()?, Vec::<u64>::new());
    // The check can fail: an entry is taken away behind the ledger's back.
    node.kill("ledger")?;
    let file = node.outside("/srv/ledger");
    let text = fs::read_to_string(&file)?;
    fs::write(&file, text.split_inclusive('\n').skip(1).collect::<String>())?;
    let _server = serve()?;
    let lost = eventually(Duration::from_secs(20), "the ledger answers", || client.lost().map(Some))?;
    assert_eq!(lost, [1]);
    c.finish()
}
