//! GlusterFS as Debian ships it: a volume of two replicas on the same disks, a daemon on each host.

use std::time::Duration;

use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::eventually::eventually;
use crate::lan::DEFAULT;
use crate::node::Node;

use super::contestant::Contestant;

const PATIENCE: Duration = Duration::from_secs(60);

/// A volume that is mounted on the first host; its daemons end with the hosts.
pub(super) fn start(c: &Cluster) -> Result<()> {
    for node in c.nodes() {
        node.shell("command -v glusterd").map_err(|_| {
            Error::new("no glusterd; type: apt-get install glusterfs-server, or add --no-gluster")
        })?;
        node.shell(
            "for place in lib run log; do mkdir -p /srv/gluster/$place; done
                 mkdir -p /run/gluster /srv/gluster/mounted
                 mount --bind /srv/gluster/lib /var/lib/glusterd
                 mount --bind /srv/gluster/log /var/log/glusterfs
                 glusterd",
        )?;
    }
    let (first, second) = (c.node(0), c.node(1));
    let (here, there) = (DEFAULT.address(first.number), DEFAULT.address(second.number));
    until(first, "a daemon of GlusterFS", &format!("gluster --mode=script peer probe {there}"))?;
    until(first, "the other daemon", "gluster peer status | grep -q 'Peer in Cluster (Connected)'")?;
    let bricks = format!("{here}:/srv/disk/brick/b {there}:/srv/disk/brick/b");
    until(first, "a volume", &format!("gluster --mode=script volume create bench replica 2 {bricks} force"))?;
    first.shell("gluster --mode=script volume start bench")?;
    let mounted = Contestant::Gluster.directory();
    let mount = format!(
        "glusterfs --volfile-server={here} --volfile-id=bench {mounted} && mountpoint -q {mounted} \
             && touch {mounted}/x && rm {mounted}/x"
    );
    until(first, "its mount", &mount)
}

/// The daemons answer some time after they were started.
fn until(node: &Node, what: &str, line: &str) -> Result<()> {
    eventually(PATIENCE, what, || Ok(node.shell(line).ok())).map(drop)
}
