//! The main job: a node loses power, the other serves; it returns, is resynchronised; roles are exchanged.

use std::time::Duration;

use safe_integration::error::Result;
use safe_integration::ledger::protected::{MODULE, module};
use safe_integration::{Cluster, Module, Service, State, clock, tree};

/// Timeout of the heartbeat as by default, and what a busy machine adds.
const FAILOVER: Duration = Duration::from_secs(10);

/// The node that serves loses power, and the other one serves alone; how long nobody did.
fn loses_power(s: &Service, lost: usize) -> Result<Duration> {
    let moment = s.node(lost).kill_host()?;
    let failover = s.served_after(moment)?;
    s.wait(s.node(1 - lost), State::Alone)?;
    Ok(failover)
}

/// It comes back, and follows.
fn returns(s: &Service, lost: usize) -> Result<()> {
    s.node(lost).restart_host()?;
    s.wait_pair(s.node(1 - lost))
}

/// S1.
#[test]
fn primary_loses_power_and_returns() -> Result<()> {
    let s = Service::start("s1")?;
    let failover = loses_power(&s, 0)?;
    assert!(failover < FAILOVER, "{failover:?}");
    s.writes(50)?;
    returns(&s, 0)?;
    s.writes(50)?;
    s.finish()
}

/// S1 and S9 where the kernel collects what is written: what was synced is on both nodes. Each entry of the ledger is.
#[test]
fn primary_loses_power_where_only_fsync_waits() -> Result<()> {
    let s = Service::start_with("s1-fsync", module()?.directory_key("sync", "\"fsync\""))?;
    loses_power(&s, 0)?;
    s.writes(50)?;
    returns(&s, 0)?;
    s.node(1).safectl(&format!("swap {MODULE}"))?;
    s.wait_pair(s.node(0))?;
    s.writes(50)?;
    loses_power(&s, 0)?;
    returns(&s, 0)?;
    s.finish()
}

/// S1, then again with the other node: each failover starts from what the last one left.
#[test]
fn nodes_lose_power_in_turn() -> Result<()> {
    let s = Service::start("s1-in-turn")?;
    for lost in [0, 1, 0] {
        loses_power(&s, lost)?;
        returns(&s, lost)?;
    }
    s.finish()
}

/// S2.
#[test]
fn secondary_loses_power_and_returns() -> Result<()> {
    let s = Service::start("s2")?;
    let application = s.application(s.node(0))?;
    let moment = s.node(1).kill_host()?;
    s.served_after(moment)?;
    s.wait(s.node(0), State::Alone)?;
    s.writes(50)?;
    s.node(1).restart_host()?;
    s.wait_pair(s.node(0))?;
    assert_eq!(s.application(s.node(0))?, application, "the application was not disturbed");
    s.finish()
}

/// S2, back before anybody missed it.
#[test]
fn secondary_loses_power_for_a_moment() -> Result<()> {
    let s = Service::start("s2-moment")?;
    let application = s.application(s.node(0))?;
    let moment = s.node(1).kill_host()?;
    s.node(1).restart_host()?;
    s.served_after(moment)?;
    s.wait_pair(s.node(0))?;
    assert_eq!(s.application(s.node(0))?, application, "the application was not disturbed");
    s.finish()
}

/// S9.
#[test]
fn roles_are_exchanged_under_load() -> Result<()> {
    let s = Service::start("s9")?;
    for primary in [1, 0, 1] {
        let begin = clock::now();
        s.node(0).safectl(&format!("swap {MODULE}"))?;
        s.wait_pair(s.node(primary))?;
        s.served_after(begin)?;
        s.writes(30)?;
    }
    s.finish()
}

/// S9, with the node that gives away its role killed in the middle: one primary in the end.
#[test]
fn primary_dies_while_roles_are_exchanged() -> Result<()> {
    let s = Service::start("s9-killed")?;
    s.node(1).safectl(&format!("swap {MODULE} --no-wait"))?;
    let moment = s.node(0).kill_host()?;
    s.served_after(moment)?;
    s.wait(s.node(1), State::Alone)?;
    s.node(0).restart_host()?;
    s.wait_pair(s.node(1))?;
    s.finish()
}

/// What applications do with files every day, done on the mirrored directory; the peer has all of it at once.
#[test]
fn everyday_operations_reach_the_other_disk() -> Result<()> {
    let c = Cluster::two_nodes("everyday")?;
    c.start_module(&Module::mirror("files").replicate("/srv/data/files"))?;
    c.node(0).shell(EVERYDAY)?;
    tree::assert_equal(&c, "/srv/data/files")?;
    let count = c.node(1).shell("ls /srv/data/files | wc -l")?;
    assert!(count.parse::<u32>().is_ok_and(|count| count >= 15), "{count} names");
    // And the same after a failover with more of it, and a resync.
    c.node(1).kill_host()?;
    c.wait_state("files", "n1", State::Alone)?;
    c.node(0).shell(ALONE)?;
    c.node(1).restart_host()?;
    c.wait_pair("files", "n1")?;
    tree::assert_equal(&c, "/srv/data/files")?;
    c.finish()
}

const EVERYDAY: &str = r#"
cd /srv/data/files
echo text >file; echo more >>file
mkdir -p one/two/three; echo deep >one/two/three/file
cp /bin/ls program; chmod 4755 program; chown 1:2 program
ln file hard; ln -s file soft; ln -s /nowhere dangling
mv one/two two; mkdir empty; mkdir gone; rmdir gone; echo x >gone; rm gone
echo a >over; echo b >under; mv over under
head -c 300000 /dev/urandom >cut; truncate -s 100000 cut; truncate -s 200000 cut
truncate -s 10M sparse; echo end | dd of=sparse bs=1 seek=9000000 conv=notrunc status=none
head -c 1M /dev/urandom >punched; fallocate --punch-hole --offset 4096 --length 65536 punched
: >allocated; fallocate --keep-size --length 1M allocated
mkfifo pipe
setfattr -n user.colour -v blue file; setfattr -n trusted.mark -v 1 one
setfacl -m u:1234:r file; setfacl -d -m g:55:rwx empty
touch -d '2001-02-03 04:05:06.123456789' dated; touch -d '1969-12-31 23:00:00.5' early; chmod 1777 two; chgrp -h 3 soft
printf 'odd' >"$(printf 'name with\nline end \377')"
tar -C /usr/share -cf - doc/bash 2>/dev/null | tar -xf - 2>/dev/null || true
dd if=/dev/urandom of=direct bs=4096 count=64 oflag=direct status=none
for i in $(seq 200); do echo $i >many.$i; done; rm many.1* ; mv many.2 many.two
"#;

const ALONE: &str = r#"
cd /srv/data/files
rm soft dangling; ln -s hard soft; rm -r two/three; mv two elsewhere; echo new >elsewhere/new
dd if=/dev/urandom of=sparse bs=4096 seek=300 count=3 conv=notrunc status=none
chmod 600 file; setfattr -x user.colour file; truncate -s 5 cut; rm -f many.3*; mkdir empty/sub
mv program elsewhere/; ln file elsewhere/again; touch -d '2010-01-01' empty; rm pipe; mkdir pipe
"#;
