//! A disk of a host beside its own: it can be full, fail, and hang, on command.
//!
//! A real filesystem in each case. What is replicated is a directory on it, bound to where the module has it: so what a
//! copy holds can also be seen where no mount of the module covers it.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Context as _, Result};
use crate::eventually::eventually;
use crate::host::Host;
use crate::linux;

/// Kind of filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// In memory: it can be full, and grow.
    Memory,
    /// ext4 on a loop device: it can also fail and hang.
    Ext4,
}

/// A mounted disk.
#[derive(Debug, Clone)]
pub struct Disk {
    kind: Kind,
    megabytes: u32,
    /// Where the host sees all of it.
    place: String,
    /// Where the replicated part is bound to.
    path: String,
}

/// See [`Disk::snapshot`].
#[derive(Debug)]
pub struct Snapshot {
    file: PathBuf,
    copy: PathBuf,
}

impl Snapshot {
    /// Puts the disk back to it. The host is off, or the disk is not mounted.
    pub fn put_back(&self) -> Result<()> {
        std::fs::copy(&self.copy, &self.file).context(|| self.copy.display().to_string()).map(drop)
    }
}

impl Disk {
    /// Makes it and mounts it beneath `path`, a replicated directory that is not used yet.
    pub fn attach(host: &Host, kind: Kind, megabytes: u32, path: &str) -> Result<Self> {
        let name = path.rsplit('/').next().unwrap_or("disk");
        let disk = Self { kind, megabytes, place: format!("/srv/disks/{name}"), path: path.to_owned() };
        let (place, file) = (&disk.place, disk.file());
        host.shell(&format!("mkdir -p {place} {path}"))?;
        if kind == Kind::Ext4 {
            host.shell(&format!("truncate -s {megabytes}M {file}; mkfs.ext4 -q -F -m 0 {file}"))?;
        }
        disk.mount(host)?;
        Ok(disk)
    }

    /// Mounts it again, after its host lost power or it was taken off.
    pub fn mount(&self, host: &Host) -> Result<()> {
        let Self { place, path, megabytes, .. } = self;
        let mount = match self.kind {
            Kind::Memory => format!("mount -t tmpfs -o size={megabytes}m,mode=755 none {place}"),
            Kind::Ext4 => format!("mount -o loop,errors=remount-ro {} {place}", self.file()),
        };
        host.shell(&format!("{mount}; mkdir -p {place}/tree; mount --bind {place}/tree {path}")).map(drop)
    }

    /// Takes it off, and the cover that lies on it, once nothing uses it any more.
    pub fn unmount(&self, host: &Host) -> Result<()> {
        for place in [&self.path, &self.place] {
            eventually(Duration::from_secs(20), &format!("{place} is unmounted"), || {
                host.shell(&format!("while mountpoint -q {place}; do umount {place}; done")).map(Some)
            })?;
        }
        Ok(())
    }

    /// What is on it now, as a snapshot of it would be, to be put back later: ext4 only.
    pub fn snapshot(&self, host: &Host) -> Result<Snapshot> {
        let Self { place, .. } = self;
        let (file, copy) = (self.file(), format!("{place}.snapshot"));
        host.shell(&format!("fsfreeze -f {place}; cp --sparse=always {file} {copy}; fsfreeze -u {place}"))?;
        Ok(Snapshot { file: host.outside(&file), copy: host.outside(&copy) })
    }

    fn file(&self) -> String {
        format!("{}.img", self.place)
    }

    /// Where the replicated part can be seen on its host without the mount of the module.
    pub fn below(&self) -> String {
        format!("{}/tree", self.place)
    }

    /// Fills what is left, as another program does that writes beside what is replicated.
    pub fn fill(&self, host: &Host) -> Result<()> {
        let fill = "dd if=/dev/zero of=filler bs=64k 2>/dev/null || dd if=/dev/zero bs=1 count=4096 2>/dev/null >>filler || true";
        host.shell(&format!("cd {}; {fill}", self.place)).map(drop)
    }

    /// Takes that away.
    pub fn empty(&self, host: &Host) -> Result<()> {
        host.shell(&format!("rm -f {}/filler", self.place)).map(drop)
    }

    /// ext4 finds an error and refuses every change from now on, until it is mounted again.
    pub fn read_only(&self, host: &Host) -> Result<()> {
        let device = host.shell(&format!("findmnt -no SOURCE {}", self.place))?;
        let device = device.trim().trim_start_matches("/dev/");
        std::fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "on command")
            .context(|| format!("an error of {device}"))
    }

    /// Somebody puts it right: it is checked and mounted again. Nothing may use it.
    pub fn repair(&self, host: &Host) -> Result<()> {
        self.unmount(host)?;
        // 1: errors were found and mended.
        host.shell(&format!("e2fsck -f -y {} >/dev/null || [ $? = 1 ]", self.file()))?;
        self.mount(host)
    }

    /// Every operation fails with EIO from now on, as when the device is gone: ext4 only, until it is mounted again.
    pub fn fail(&self, host: &Host) -> Result<()> {
        linux::shut_down(&self.open(host)?).context(|| format!("making {} fail", self.place))
    }

    /// Every change waits without an error, for as long as the answer lives: ext4 only.
    pub fn hang(&self, host: &Host) -> Result<Hanging> {
        let file = self.open(host)?;
        linux::freeze_writes(&file).context(|| format!("making {} hang", self.place))?;
        Ok(Hanging(file))
    }

    fn open(&self, host: &Host) -> Result<File> {
        let path = PathBuf::from(format!("/proc/{}/root{}", host.init()?, self.place));
        File::open(&path).context(|| path.display().to_string())
    }
}

/// A disk that hangs; it goes on when this is dropped.
#[derive(Debug)]
pub struct Hanging(File);

impl Drop for Hanging {
    fn drop(&mut self) {
        // Nothing else can be done about it: the host's processes stay where they are.
        drop(linux::thaw_writes(&self.0));
    }
}
