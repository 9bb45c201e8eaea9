//! What this process asks of the kernel for itself.

use rustix::mm::MlockAllFlags;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::CapabilitySet;

/// Descriptors wanted: open files of the application, and some.
const DESCRIPTORS: u64 = 1 << 20;

/// Raises limits, and keeps memory reclaim from waiting for this process's own mount. What is refused only costs.
pub fn prepare() {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.map_or(DESCRIPTORS, |most| most.max(DESCRIPTORS));
    let wanted = Rlimit { current: Some(DESCRIPTORS), maximum: Some(most) };
    if setrlimit(Resource::Nofile, wanted).is_err() {
        let reduced = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, reduced) {
            tracing::warn!(%error, "cannot raise the number of descriptors");
        }
    }
    set_io_flusher();
    lock_memory();
    ignore_signals();
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", "-900") {
        tracing::debug!(%error, "cannot lower the score of the OOM killer");
    }
}

/// What it has once touched stays: no operation of the application waits until the program itself is read from a disk.
fn lock_memory() {
    if !may_lock() {
        tracing::info!("runs without locked memory: give it CAP_IPC_LOCK");
        return;
    }
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    if let Err(error) = rustix::mm::mlockall(flags) {
        tracing::info!(%error, "runs without locked memory");
    }
}

/// Without a limit, beyond which later allocations would fail; the capability counts in the first user namespace alone.
fn may_lock() -> bool {
    let first = std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]));
    let capable =
        rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    (first && capable) || getrlimit(Resource::Memlock) == Rlimit { current: None, maximum: None }
}

#[expect(unsafe_code, reason = "a prctl that rustix has no function for")]
fn set_io_flusher() {
    const PR_SET_IO_FLUSHER: libc::c_int = 57;
    // SAFETY: takes and changes only numbers.
    if unsafe { libc::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) } != 0 {
        tracing::debug!(error = %std::io::Error::last_os_error(), "cannot become an IO flusher");
    }
}

/// The end of a terminal or of a service must not end the replication under a running application; the agent says when.
#[expect(unsafe_code, reason = "signal dispositions")]
fn ignore_signals() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGPIPE] {
        // SAFETY: SIG_IGN runs no code.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}
