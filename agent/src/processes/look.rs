//! Looks at one process. May block: run by `scan` only.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{Hunt, mounts};

/// Longest environment that is read.
const ENVIRONMENT_LIMIT: u64 = 4 << 20;

/// What is looked for, with the mount table as it was when the scan began.
#[derive(Debug)]
pub(super) struct Look {
    module: Vec<u8>,
    dir: Vec<u8>,
    directories: Vec<PathBuf>,
    mounts: Vec<u64>,
    namespace: Option<OsString>,
    own: i32,
}

impl Look {
    pub(super) fn new(hunt: &Hunt) -> Self {
        use std::os::unix::ffi::OsStrExt;
        Self {
            module: [b"SAFE_MODULE=", hunt.module.as_bytes()].concat(),
            dir: [b"SAFE_DIR=", hunt.dir.as_os_str().as_bytes()].concat(),
            mounts: mounts::ids(&hunt.directories),
            directories: hunt.directories.clone(),
            namespace: namespace(Path::new("/proc/self")),
            own: rustix::process::getpid().as_raw_nonzero().get(),
        }
    }

    /// True if the process belongs to the module and is not dead already.
    pub(super) fn belongs(&self, pid: i32) -> bool {
        if pid == self.own || pid == 1 {
            return false;
        }
        let process = PathBuf::from(format!("/proc/{pid}"));
        self.marked(&process) || self.holds(&process)
    }

    fn marked(&self, process: &Path) -> bool {
        let Ok(file) = File::open(process.join("environ")) else { return false };
        let mut environment = Vec::new();
        // A zombie has no environment left; so it does not count, which is right.
        if file.take(ENVIRONMENT_LIMIT).read_to_end(&mut environment).is_err() {
            return false;
        }
        let mut variables = environment.split(|byte| *byte == 0);
        let (mut module, mut dir) = (false, false);
        variables.any(|variable| {
            module |= variable == self.module;
            dir |= variable == self.dir;
            module && dir
        })
    }

    fn holds(&self, process: &Path) -> bool {
        !self.mounts.is_empty() && (self.stands_in(process) || self.has_open(process))
    }

    /// Its working or root directory, or its program, is on the mount.
    fn stands_in(&self, process: &Path) -> bool {
        if namespace(process) != self.namespace {
            return false;
        }
        ["cwd", "root", "exe"]
            .iter()
            .filter_map(|link| std::fs::read_link(process.join(link)).ok())
            .any(|path| mounts::beneath(&self.directories, &path))
    }

    /// It has a file of the mount open.
    fn has_open(&self, process: &Path) -> bool {
        let Ok(files) = std::fs::read_dir(process.join("fdinfo")) else { return false };
        files.flatten().any(|file| {
            let info = std::fs::read_to_string(file.path()).unwrap_or_default();
            let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:"));
            mount.and_then(|id| id.trim().parse().ok()).is_some_and(|id: u64| self.mounts.contains(&id))
        })
    }
}

/// Identity of the mount namespace of a process.
fn namespace(process: &Path) -> Option<OsString> {
    std::fs::read_link(process.join("ns/mnt")).ok().map(PathBuf::into_os_string)
}

/// Numbers of all processes.
pub(super) fn all_pids() -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}
