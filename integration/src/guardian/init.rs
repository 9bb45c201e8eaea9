//! Process 1 of a host: makes the host's namespaces and then does nothing but exist.

use super::*;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::process::set_parent_process_death_signal;

pub(super) fn run(charge: &Charge) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context(|| "death signal".to_owned())?;
    crate::linux::ignore_children();
    crate::linux::new_host_namespaces()?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .context(|| "private mounts".to_owned())?;
    let nothing = MountFlags::NOSUID | MountFlags::NODEV;
    fresh("proc", "/proc", nothing)?;
    std::fs::write("/proc/sys/kernel/hostname", &charge.name).context(|| "host name".to_owned())?;
    fresh("sysfs", "/sys", nothing)?;
    fresh("fusectl", "/sys/fs/fuse/connections", nothing)?;
    if let Some(file) = &charge.boot_id {
        bind(file, "/proc/sys/kernel/random/boot_id")?;
    }
    if let Some(disk) = &charge.disk {
        bind(disk, DISK)?;
        fresh("tmpfs", "/run", nothing)?;
    }
    writeln!(std::io::stdout(), "ready")?;
    // The guardian holds the other end: it ended if this does.
    let mut rest = Vec::new();
    std::io::stdin().lock().read_to_end(&mut rest)?;
    Ok(())
}

fn fresh(kind: &str, at: &str, flags: MountFlags) -> Result<()> {
    mount(kind, at, kind, flags, None).context(|| format!("mounting {kind} on {at}"))
}

fn bind(source: &Path, at: &str) -> Result<()> {
    mount_bind(source, at).context(|| format!("mounting {} on {at}", source.display()))
}
