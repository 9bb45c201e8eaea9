//! The directories that are compared, all on one disk of the first host.

use crate::cluster::Cluster;
use crate::error::Result;
use crate::module::Module;
use crate::node::Node;
use crate::status::State;

/// Where each host has the disk that the directories are on.
pub(super) const DISK: &str = "/srv/disk";

/// Whose directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Contestant {
    /// The filesystem itself.
    Plain,
    /// The same on the filesystems of both hosts at the same time, the slower of them: what two copies on one disk can have.
    Both,
    /// The loop on /dev/fuse without anything to replicate.
    PassThrough,
    /// Replicated synchronously, TLS on.
    Mirrored,
    /// A volume of two replicas.
    Gluster,
    /// No directory: copies one now and then.
    Rsync,
}

impl Contestant {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Both => "plain on both",
            Self::PassThrough => "pass-through",
            Self::Mirrored => "mirrored",
            Self::Gluster => "glusterfs",
            Self::Rsync => "rsync",
        }
    }

    pub(super) const fn directory(self) -> &'static str {
        match self {
            Self::Plain | Self::Both => "/srv/disk/plain",
            Self::PassThrough => "/srv/disk/pass/here-only",
            Self::Mirrored => "/srv/disk/mirrored",
            Self::Gluster => "/srv/gluster/mounted",
            Self::Rsync => "/srv/disk/rsync",
        }
    }
}

/// A filesystem of its own for each host: ext4 on a loop device, or memory.
pub(super) fn disk(node: &Node, memory: bool) -> Result<()> {
    let fill = if memory {
        format!("mount -t tmpfs -o size=6g bench {DISK}")
    } else {
        format!(
            "truncate -s 12G /srv/disk.img && mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 \
             /srv/disk.img && mount -o loop /srv/disk.img {DISK}"
        )
    };
    let directories = "mkdir -p /srv/disk/plain /srv/disk/pass /srv/disk/mirrored /srv/disk/brick";
    node.shell(&format!("mkdir -p {DISK} && {fill} && {directories}")).map(drop)
}

/// Starts what is served by the product.
pub(super) fn modules(c: &Cluster) -> Result<()> {
    c.start_module(&Module::mirror("mirrored").replicate(Contestant::Mirrored.directory()))?;
    let excluded = "[[replicate]]\npath = \"/srv/disk/pass\"\nexclude = [\"here-only\"]";
    c.start_module(&Module::mirror("pass").section(excluded))?;
    c.wait_state("mirrored", "n1", State::Prim)?;
    c.wait_state("pass", "n1", State::Prim)?;
    c.node(0).shell(&format!("mkdir {}", Contestant::PassThrough.directory())).map(drop)
}
