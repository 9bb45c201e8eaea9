//! What this process asks of the kernel for itself.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

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
    ignore_signals();
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", "-900") {
        tracing::debug!(%error, "cannot lower the score of the OOM killer");
    }
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
