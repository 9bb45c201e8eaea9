//! What must hold before the daemon starts; each refusal is one line that says what to do.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::time::Duration;

use rustix::fs::FlockOperation;

use crate::clock;
use crate::node::Startup;
use crate::paths::{Paths, make_private};

/// Capabilities that are needed, by number.
const NEEDED: [(u32, &str); 3] = [(21, "CAP_SYS_ADMIN"), (12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW")];

/// How long a killed predecessor may take to let go of the lock.
const DYING: Duration = Duration::from_secs(2);
/// Between two attempts meanwhile.
const GLANCE: Duration = Duration::from_millis(20);

/// Held while the daemon runs: dropping it lets the next one start.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Checks the privileges of this process and of its place.
///
/// # Errors
/// What is missing.
pub fn check() -> Result<(), Startup> {
    check_capabilities()?;
    OpenOptions::new().read(true).write(true).open("/dev/fuse").map(|_| ()).map_err(|error| {
        Startup(format!(
            "cannot open /dev/fuse: {error}; load the kernel module with: modprobe fuse (in a container, pass the device in)"
        ))
    })
}

fn check_capabilities() -> Result<(), Startup> {
    let status = procfs::process::Process::myself().and_then(|process| process.status());
    let held = status
        .map_err(|error| Startup(format!("cannot read /proc/self/status: {error}; mount /proc")))?
        .capeff;
    let missing: Vec<&str> =
        NEEDED.iter().filter(|(bit, _)| held & (1 << bit) == 0).map(|(_, name)| *name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Startup(format!("safed must run as root, or with {}; try: sudo safed", missing.join(", "))))
}

/// Makes the directories and takes the lock of this root.
///
/// # Errors
/// A directory cannot be made, or another safed runs.
pub fn lock(paths: &Paths) -> Result<Lock, Startup> {
    let failed = |what: &std::path::Path| {
        let what = what.display().to_string();
        move |error: std::io::Error| {
            Startup(format!("cannot use {what}: {error}; give another place with --root DIR"))
        }
    };
    make_private(&paths.modules()).map_err(failed(&paths.modules()))?;
    std::fs::create_dir_all(paths.run()).map_err(failed(paths.run()))?;
    // The group that may use the socket must get to it.
    std::fs::set_permissions(paths.run(), PermissionsExt::from_mode(0o755)).map_err(failed(paths.run()))?;
    let path = paths.lock();
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path).map_err(failed(&path))?;
    if let Err(error) = take(&file) {
        let mut holder = String::new();
        // Only for the message.
        let _unknown = file.read_to_string(&mut holder);
        let holder = holder.trim();
        return Err(match error {
            rustix::io::Errno::WOULDBLOCK => Startup(format!(
                "another safed (process {holder}) uses {}; stop it first, or give another place with --root DIR",
                paths.run().display()
            )),
            other => Startup(format!("cannot lock {}: {other}", path.display())),
        });
    }
    let id = rustix::process::getpid().as_raw_nonzero();
    file.set_len(0)
        .and_then(|()| file.seek(SeekFrom::Start(0)))
        .and_then(|_| writeln!(file, "{id}"))
        .map_err(failed(&path))?;
    Ok(Lock { _file: file })
}

/// A predecessor that was killed may take a moment to be dead.
fn take(file: &File) -> rustix::io::Result<()> {
    let deadline = clock::now() + DYING;
    loop {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) if clock::now() < deadline => std::thread::sleep(GLANCE),
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_daemon_per_root() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(Some(dir.path()));
        let held = lock(&paths).unwrap();
        let refused = lock(&paths).unwrap_err();
        assert!(refused.0.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(held);
        lock(&paths).unwrap();
    }
}
