//! Calls to the operating system that have no safe form.

use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::error::{Context as _, Result};

/// Namespaces of a host besides the process namespace.
const OWN: UnshareFlags =
    UnshareFlags::NEWNS.union(UnshareFlags::NEWNET).union(UnshareFlags::NEWIPC).union(UnshareFlags::NEWUTS);

/// The next child of this process becomes process 1 of a new process namespace.
#[expect(unsafe_code, reason = "unshare(2)")]
pub(crate) fn new_process_namespace() -> Result<()> {
    // SAFETY: the file table is not unshared, so no descriptor changes its meaning.
    unsafe { unshare_unsafe(UnshareFlags::NEWPID) }.context(|| "new process namespace".to_owned())
}

/// Moves this process into mount, network, IPC and host name namespaces of its own.
#[expect(unsafe_code, reason = "unshare(2)")]
pub(crate) fn new_host_namespaces() -> Result<()> {
    // SAFETY: the file table is not unshared, so no descriptor changes its meaning.
    unsafe { unshare_unsafe(OWN) }.context(|| "new namespaces".to_owned())
}

/// Children and adopted orphans of this process vanish when they end.
#[expect(unsafe_code, reason = "signal(2)")]
pub(crate) fn ignore_children() {
    // SAFETY: SIG_IGN installs no handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Moves this process into the namespaces of process `init`; its children are in its process namespace.
pub(crate) fn enter_host(init: u32) -> Result<()> {
    // All doors are opened first: behind the mount namespace lies another /proc.
    let kinds = ["pid", "net", "ipc", "uts", "mnt"];
    let doors: Vec<_> = kinds
        .iter()
        .map(|kind| {
            File::open(format!("/proc/{init}/ns/{kind}")).context(|| format!("host of process {init}"))
        })
        .collect::<Result<_>>()?;
    doors.iter().try_for_each(|door| {
        move_into_link_name_space(door.as_fd(), None)
            .context(|| format!("entering the host of process {init}"))
    })
}

/// Moves the calling thread, not the process, into the network namespace of process `pid`.
pub fn enter_network_of(pid: u32) -> Result<()> {
    let path = format!("/proc/{pid}/ns/net");
    let namespace = File::open(&path).context(|| path.clone())?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).context(|| path)
}

/// Mounts made here from now on are seen here only. What others mounted for a while is not kept mounted by this: a copy of
/// a mount here would outlive theirs.
pub(crate) fn private_mounts() -> Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .context(|| "private mounts".to_owned())?;
    let table = std::fs::read_to_string("/proc/self/mounts").context(|| "mounts".to_owned())?;
    for line in table.lines().rev() {
        let mut words = line.split(' ').skip(1);
        let (place, kind) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let passing = place.starts_with("/tmp/") || place.starts_with("/var/tmp/");
        if passing || kind == "fuse" || kind.starts_with("fuse.") {
            // It may have gone by now, or stay for its name: then it is as before.
            let _gone = rustix::mount::unmount(place, UnmountFlags::DETACH);
        }
    }
    Ok(())
}

/// A filesystem of the kernel's own.
pub(crate) fn mount_fresh(kind: &str, at: &str) -> Result<()> {
    mount(kind, at, kind, MountFlags::NOSUID | MountFlags::NODEV, None)
        .context(|| format!("mounting {kind} on {at}"))
}

/// A file or directory over another.
pub(crate) fn mount_over(source: &Path, at: &str) -> Result<()> {
    mount_bind(source, at).context(|| format!("mounting {} on {at}", source.display()))
}

/// `EXT4_IOC_SHUTDOWN` without flushing anything, not even the log.
#[expect(unsafe_code, reason = "no safe form of this ioctl")]
pub(crate) fn shut_down(file: &File) -> Result<()> {
    const SHUTDOWN: libc::Ioctl = 0x8004_587d_u32 as libc::Ioctl;
    let how: u32 = 2;
    // SAFETY: the request reads one u32, which lives during the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), SHUTDOWN, &raw const how) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().into()) }
}

/// `FIFREEZE`: every write to the filesystem waits, without an error, until it is thawed.
pub(crate) fn freeze_writes(file: &File) -> Result<()> {
    plain_ioctl(file, 0xc004_5877_u32 as libc::Ioctl)
}

/// `FITHAW`.
pub(crate) fn thaw_writes(file: &File) -> Result<()> {
    plain_ioctl(file, 0xc004_5878_u32 as libc::Ioctl)
}

#[expect(unsafe_code, reason = "no safe form of these ioctls")]
fn plain_ioctl(file: &File, request: libc::Ioctl) -> Result<()> {
    // SAFETY: neither request reads or writes memory of the caller.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, 0) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().into()) }
}
