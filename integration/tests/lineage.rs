//! S19: a copy belongs to its lineage. What does not serve is covered read-only; what was changed behind the module's back,
//! or put back to an earlier state, is never a source and never serves by itself.

use std::time::Duration;

use safe_integration::disk::{Disk, Kind};
use safe_integration::error::Result;
use safe_integration::eventually::{eventually, eventually_true};
use safe_integration::node::Node;
use safe_integration::{Cluster, Module, State, tree};

const PATH: &str = "/srv/data/m";

fn pair(name: &str) -> Result<Cluster> {
    let c = Cluster::two_nodes(name)?;
    c.start_module(&Module::mirror("m").replicate(PATH))?;
    c.node(0).shell("echo one >/srv/data/m/one")?;
    Ok(c)
}

/// Nothing can be changed by path.
fn assert_covered(node: &Node) -> Result<()> {
    let said = node.program("sh")?.args(["-c", "echo x >/srv/data/m/foreign"]).output()?;
    assert!(said.err.contains("Read-only file system"), "{}: a file could be made: {}", node.name, said.err);
    assert!(!node.outside("/srv/data/m/foreign").exists());
    Ok(())
}

fn mounts(node: &Node) -> Result<String> {
    node.shell("grep ' /srv/data/m ' /proc/self/mountinfo || true")
}

fn events(node: &Node) -> Result<String> {
    node.safectl("events -n 1000 -o json")
}

#[test]
fn s19_what_follows_and_what_is_stopped_is_covered() -> Result<()> {
    let c = pair("s19-cover")?;
    let (n1, n2) = (c.node(0), c.node(1));
    assert_covered(n2)?;
    assert_eq!(n2.shell("cat /srv/data/m/one")?, "one", "what is replicated is seen");
    // With nothing running, and adopted by the next safed.
    n2.kill_agent()?;
    assert_covered(n2)?;
    n2.start_agent()?;
    c.wait_pair("m", "n1")?;
    assert_covered(n2)?;
    // Who serves writes above it, who served has it again at once.
    n1.safectl("swap m")?;
    c.wait_pair("m", "n2")?;
    n2.shell("echo two >/srv/data/m/two")?;
    assert_covered(n1)?;
    assert_eq!(n1.shell("cat /srv/data/m/two")?, "two");
    // Taking over with it in place.
    n2.kill_host()?;
    c.wait_state("m", "n1", State::Alone)?;
    n1.shell("echo three >/srv/data/m/three")?;
    n2.restart_host()?;
    c.wait_pair("m", "n1")?;
    assert_covered(n2)?;
    n1.safectl("shutdown m")?;
    assert_covered(n1)?;
    assert_covered(n2)?;
    // Its module is stopped when the machine boots.
    n2.kill_host()?;
    n2.restart_host()?;
    c.wait_state("m", "n2", State::Stop)?;
    assert_covered(n2)?;
    n1.safectl("start m")?;
    c.wait_pair("m", "n1")?;
    tree::assert_equal(&c, PATH)?;
    assert!(!events(n2)?.contains("edited"), "nobody edited anything");
    c.finish()
}

#[test]
fn s19_nothing_is_left_mounted_when_the_module_is_removed() -> Result<()> {
    let c = pair("s19-removed")?;
    c.node(0).safectl("shutdown m")?;
    assert_covered(c.node(0))?;
    c.node(0).safectl("module remove m --yes")?;
    for node in c.nodes() {
        assert_eq!(mounts(node)?, "", "{}", node.name);
        node.shell("echo mine >/srv/data/m/mine")?;
    }
    c.finish()
}

#[test]
fn s19_edited_while_unlocked_is_compared_in_full() -> Result<()> {
    let c = pair("s19-unlocked")?;
    let (n1, n2) = (c.node(0), c.node(1));
    // A SECOND is not unlocked, and without a word nothing is.
    let refused = n2.try_safectl("data unlock m --on n2 --yes")?;
    assert!(refused.err.contains("safectl stop m --on n2"), "{}", refused.err);
    n2.safectl("stop m --on n2")?;
    let asked = n2.try_safectl("data unlock m --on n2")?;
    assert!(asked.err.contains("--yes"), "{}", asked.err);
    assert_covered(n2)?;
    // From the other node, as an administrator would.
    n1.safectl("data unlock m --on n2 --yes")?;
    n2.shell("echo edited >/srv/data/m/one; echo own >/srv/data/m/own")?;
    assert!(events(n2)?.contains("data unlock was ordered by"));
    let status = c.wait_state("m", "n2", State::Stop)?;
    assert!(status.reason.is_some_and(|reason| reason.contains("edited")));
    // Unlocked it stays, over a restart of safed and of the machine.
    n2.kill_host()?;
    n2.restart_host()?;
    n2.shell("echo more >/srv/data/m/more")?;
    n2.safectl("start m --on n2")?;
    c.wait_pair("m", "n1")?;
    assert_covered(n2)?;
    tree::assert_equal(&c, PATH)?;
    assert_eq!(n2.shell("cat /srv/data/m/one; ls /srv/data/m")?, "one\none");
    c.finish()
}

/// The other node is gone: the edited copy waits for a person, who may choose it; then all of it counts.
#[test]
fn s19_edited_serves_only_when_it_is_forced() -> Result<()> {
    let c = pair("s19-forced")?;
    let (n1, n2) = (c.node(0), c.node(1));
    n1.safectl("shutdown m")?;
    n2.safectl("data unlock m --on n2 --yes")?;
    n2.shell("echo edited >/srv/data/m/one")?;
    n1.kill_host()?;
    n2.safectl("start m --on n2 --no-wait")?;
    let status = c.wait_status("m", "n2", "WAIT, edited", |status| {
        status.state == State::Wait && status.reason.as_ref().is_some_and(|reason| reason.contains("edited"))
    })?;
    assert!(status.hint.is_some_and(|hint| hint.contains("safectl prim m --on n2 --force")));
    n2.safectl("prim m --on n2 --force --yes")?;
    c.wait_state("m", "n2", State::Alone)?;
    n1.restart_host()?;
    n1.safectl("start m --on n1")?;
    c.wait_pair("m", "n2")?;
    assert_eq!(n1.shell("cat /srv/data/m/one")?, "edited");
    tree::assert_equal(&c, PATH)?;
    c.finish()
}

#[test]
fn s19_a_cover_that_was_taken_off_by_hand_is_noticed() -> Result<()> {
    let c = pair("s19-by-hand")?;
    let n2 = c.node(1);
    n2.safectl("stop m --on n2")?;
    n2.shell("umount /srv/data/m; echo edited >/srv/data/m/one")?;
    // Without waiting for safed to look by itself.
    n2.safectl("start m --on n2")?;
    c.wait_pair("m", "n1")?;
    assert!(events(n2)?.contains("was taken off without"), "{}", events(n2)?);
    tree::assert_equal(&c, PATH)?;
    // While it follows: it is compared in full at once.
    n2.shell("umount /srv/data/m; echo edited >/srv/data/m/one")?;
    eventually_true(Duration::from_secs(60), "the copies are equal again, and covered", || {
        tree::assert_equal(&c, PATH).is_ok()
            && n2.status("m").is_ok_and(|status| status.state == State::Second)
            && assert_covered(n2).is_ok()
    })?;
    c.wait_pair("m", "n1")?;
    c.finish()
}

/// An application that was started before safed could cover its directory, as by an init system at boot.
#[test]
fn s19_who_writes_from_before_the_cover_is_noticed() -> Result<()> {
    let c = pair("s19-boot")?;
    let n2 = c.node(1);
    n2.safectl("stop m --on n2")?;
    n2.kill_host()?;
    n2.power_on()?;
    n2.shell("setsid sh -c 'echo foreign; exec sleep 1000' >>/srv/data/m/one 2>/dev/null </dev/null &")?;
    let written = || n2.shell("grep foreign /srv/data/m/one").map(Some);
    eventually(Duration::from_secs(20), "it has the file open", written)?;
    n2.start_agent()?;
    c.wait_status("m", "n2", "edited", |status| {
        status.state == State::Stop && status.reason.as_ref().is_some_and(|reason| reason.contains("edited"))
    })?;
    assert!(events(n2)?.contains("open for writing"), "{}", events(n2)?);
    assert_covered(n2)?;
    n2.kill("sleep")?;
    n2.safectl("start m --on n2")?;
    c.wait_pair("m", "n1")?;
    tree::assert_equal(&c, PATH)?;
    c.finish()
}

/// The disk is put back to a snapshot that was taken while the module ran, in the same lineage.
#[test]
fn s19_a_snapshot_that_was_put_back_is_unknown() -> Result<()> {
    let c = Cluster::two_nodes("s19-snapshot")?;
    let (n1, n2) = (c.node(0), c.node(1));
    let disk = Disk::attach(n2, Kind::Ext4, 64, PATH)?;
    c.start_module(&Module::mirror("m").replicate(PATH))?;
    n1.shell("echo early >/srv/data/m/early")?;
    let snapshot = disk.snapshot(n2)?;
    n1.shell("echo late >/srv/data/m/late")?;
    n2.safectl("stop m --on n2")?;
    n2.kill_host()?;
    snapshot.put_back()?;
    n2.power_on()?;
    disk.mount(n2)?;
    n2.start_agent()?;
    n2.safectl("start m --on n2 --no-wait")?;
    let status = c.wait_blocked("m", "n2", State::Wait)?;
    assert!(status.reason.is_some_and(|reason| reason.contains("not those that it knew")));
    n2.safectl("second m --on n2 --full")?;
    c.wait_pair("m", "n1")?;
    assert_eq!(n2.shell("cat /srv/data/m/early /srv/data/m/late")?, "early\nlate");
    tree::assert_equal_inside(&c, [PATH, PATH])?;
    c.finish()
}

/// The application starts by itself at boot, whatever the module says.
#[test]
fn s19_an_application_that_is_enabled_at_boot_is_warned_of() -> Result<()> {
    let c = Cluster::two_nodes("s19-enabled")?;
    let (n1, n2) = (c.node(0), c.node(1));
    n2.shell(
        "mkdir -p /etc/systemd/system; mount -t tmpfs none /etc/systemd/system
         cd /etc/systemd/system; mkdir multi-user.target.wants; ln -s /nowhere multi-user.target.wants/shop.service",
    )?;
    let module = Module::mirror("m").replicate(PATH).script("start_prim", "true || systemctl start shop");
    let directory = c.write_module(&module)?;
    let said = n2.try_safectl(&format!("module validate {}", directory.display()))?;
    assert!(
        said.out.contains("systemctl disable shop.service") || said.err.contains("systemctl disable shop"),
        "{said:?}"
    );
    assert_eq!(said.code, 0, "a warning refuses nothing");
    c.start_module(&module)?;
    eventually_true(Duration::from_secs(30), "it stands in the status of n2", || {
        n1.safectl("status m")
            .is_ok_and(|text| text.contains("shop.service is started by scripts/start_prim"))
    })?;
    assert!(events(n2)?.contains("systemctl disable shop.service"));
    n2.shell("rm /etc/systemd/system/multi-user.target.wants/shop.service")?;
    eventually_true(Duration::from_secs(30), "put right, it is gone", || {
        n1.safectl("status m -o json").is_ok_and(|text| !text.contains("shop.service"))
    })?;
    c.finish()
}

/// Somebody looks at the copy that follows, and stays in it: the node takes over all the same.
#[test]
fn s1_who_reads_below_the_cover_does_not_keep_it_from_taking_over() -> Result<()> {
    let c = pair("s1-reader")?;
    let (n1, n2) = (c.node(0), c.node(1));
    n2.shell("cd /srv/data/m; setsid sleep 1000 <one >/dev/null 2>&1 &")?;
    n1.kill_host()?;
    c.wait_state("m", "n2", State::Alone)?;
    n2.shell("echo two >/srv/data/m/two")?;
    assert!(!n2.running("sleep")?.is_empty(), "who reads is left in peace");
    n1.restart_host()?;
    c.wait_pair("m", "n2")?;
    tree::assert_equal(&c, PATH)?;
    c.finish()
}
