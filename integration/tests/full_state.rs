//! S21: the disk that holds safed's own state is full. Decisions persist all the same: what they need was made before.

use std::io::Write as _;

use safe_integration::disk::{Disk, Kind};
use safe_integration::error::Result;
use safe_integration::ledger::protected::{MODULE, module};
use safe_integration::{Cluster, Service, State, clock};

/// Where safed keeps what is durable.
const LIB: &str = "/srv/safed/lib";

fn on_full_disks(name: &str) -> Result<(Service, [Disk; 2])> {
    let cluster = Cluster::bare(name)?;
    let disk = |index: usize| Disk::attach(cluster.node(index), Kind::Ext4, 96, LIB);
    let disks = [disk(0)?, disk(1)?];
    cluster.form()?;
    let s = Service::on(cluster, &module()?, [None, None])?;
    for (disk, node) in disks.iter().zip(s.cluster.nodes()) {
        disk.fill(node)?;
        let left = node.shell(&format!("df --output=avail -k {LIB} | tail -n 1"))?;
        assert!(
            left.trim().parse::<u64>().is_ok_and(|left| left < 64),
            "{left} KiB are left on {}",
            node.name
        );
    }
    Ok((s, disks))
}

/// A node is lost, the other one serves; it returns, follows and takes over; safed and the replicator are killed: as if
/// there were room.
#[test]
fn s21_the_disk_of_safed_is_full() -> Result<()> {
    let (s, disks) = on_full_disks("s21-state")?;
    let begin = s.node(0).kill_host()?;
    let failover = s.served_after(begin)?;
    s.wait(s.node(1), State::Alone)?;
    s.writes(100)?;
    s.node(0).power_on()?;
    disks[0].mount(s.node(0))?;
    s.node(0).start_agent()?;
    s.wait_pair(s.node(1))?;
    s.node(0).safectl(&format!("swap {MODULE}"))?;
    s.wait_pair(s.node(0))?;
    s.node(1).safectl(&format!("stop {MODULE} --on n2"))?;
    s.wait(s.node(0), State::Alone)?;
    s.writes(100)?;
    s.node(1).safectl(&format!("start {MODULE} --on n2"))?;
    s.wait_pair(s.node(0))?;
    s.node(0).kill_agent()?;
    s.node(0).start_agent()?;
    s.wait_pair(s.node(0))?;
    s.node(1).kill_replicator()?;
    s.writes(50)?;
    s.wait_pair(s.node(0))?;
    let begin = clock::now();
    s.node(0).safectl(&format!("stop {MODULE} --on n1"))?;
    s.served_after(begin)?;
    s.wait(s.node(1), State::Alone)?;
    s.node(0).safectl(&format!("start {MODULE} --on n1"))?;
    s.wait_pair(s.node(1))?;
    writeln!(
        std::io::stdout(),
        "| disk of safed is full on both nodes | served again after {failover:.2?} |"
    )?;
    s.finish()
}
