//! Points at which a test kills this process. Release builds have none.
//!
//! `SAFE_CRASH_FILE` names a file; once it is there, it says which point, and how often it is passed before the process
//! ends there by SIGKILL: `acknowledged 3`.

/// The process may end here.
#[cfg(not(debug_assertions))]
pub const fn point(_name: &str) {}

/// The process may end here.
#[cfg(debug_assertions)]
pub fn point(name: &str) {
    armed::pass(name);
}

#[cfg(debug_assertions)]
mod armed {
    use std::path::PathBuf;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
    static PASSED: AtomicU32 = AtomicU32::new(0);

    fn file() -> Option<&'static PathBuf> {
        FILE.get_or_init(|| std::env::var_os("SAFE_CRASH_FILE").map(PathBuf::from)).as_ref()
    }

    pub(super) fn pass(name: &str) {
        let Some(order) = file().and_then(|file| std::fs::read_to_string(file).ok()) else { return };
        let Some((point, count)) = order.trim().split_once(' ') else { return };
        if point == name && PASSED.fetch_add(1, Ordering::SeqCst) + 1 >= count.parse().unwrap_or(u32::MAX) {
            let _dying =
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            loop {
                std::thread::park();
            }
        }
    }
}
