//! Process 1 of a host: makes the host's namespaces and then does nothing but exist.

use super::*;

use crate::linux;

use rustix::process::set_parent_process_death_signal;

pub(super) fn run(charge: &Charge) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context(|| "death signal".to_owned())?;
    linux::ignore_children();
    linux::new_host_namespaces()?;
    linux::private_mounts()?;
    linux::mount_fresh("proc", "/proc")?;
    std::fs::write("/proc/sys/kernel/hostname", &charge.name).context(|| "host name".to_owned())?;
    linux::mount_fresh("sysfs", "/sys")?;
    linux::mount_fresh("fusectl", "/sys/fs/fuse/connections")?;
    if let Some(file) = &charge.boot_id {
        linux::mount_over(file, "/proc/sys/kernel/random/boot_id")?;
    }
    if let Some(disk) = &charge.disk {
        linux::mount_over(disk, DISK)?;
        linux::mount_fresh("tmpfs", "/run")?;
        // Shared memory is gone with its host.
        linux::mount_fresh("tmpfs", "/dev/shm")?;
    }
    writeln!(std::io::stdout(), "ready")?;
    // The guardian holds the other end: it ended if this does.
    let mut rest = Vec::new();
    std::io::stdin().lock().read_to_end(&mut rest)?;
    Ok(())
}
