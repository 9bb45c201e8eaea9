//! The guardian's own side: start init, wait for the end of either, clean up.

use super::*;

use rustix::fs::{FlockOperation, flock};
use rustix::process::setsid;

pub(super) fn keep(charge: &Charge) -> Result<()> {
    // Not in the terminal's process group: Ctrl-C is for the test, the guardian then cleans up after it.
    setsid().context(|| "own session".to_owned())?;
    let lock = charge.lock.as_deref().map(std::fs::File::create).transpose()?;
    if let Some(lock) = &lock {
        flock(lock, FlockOperation::NonBlockingLockExclusive).context(|| "locking".to_owned())?;
    }
    crate::linux::new_process_namespace()?;
    let mut child = start_init(charge)?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context(|| "no pid".to_owned())?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    if line.trim() == "ready" {
        writeln!(std::io::stdout(), "{}", child.id())?;
        wait_for_the_owner()?;
    }
    // It may be gone already: that is the wish.
    let _gone = kill_process(pid, Signal::KILL);
    child.wait()?;
    if let Some(directory) = &charge.remove {
        remove(directory)?;
    }
    if line.trim() == "ready" { Ok(()) } else { Err(Error::new("init failed")) }
}

fn start_init(charge: &Charge) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("init").arg("--name").arg(&charge.name);
    if let Some(disk) = &charge.disk {
        command.arg("--disk").arg(disk);
    }
    if let Some(file) = &charge.boot_id {
        command.arg("--boot-id").arg(file);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context(|| "starting init".to_owned())
}

/// Until the owner closes its pipe, or ends. (The death of init is not the end: its number must stay taken until the owner
/// knows.)
fn wait_for_the_owner() -> Result<()> {
    let mut rest = Vec::new();
    std::io::stdin().lock().read_to_end(&mut rest)?;
    Ok(())
}

/// Other hosts of the same cluster may still be writing their last lines.
fn remove(directory: &Path) -> Result<()> {
    eventually_true(PATIENCE, "directory removed", || {
        drop(std::fs::remove_dir_all(directory));
        !directory.exists()
    })
}
