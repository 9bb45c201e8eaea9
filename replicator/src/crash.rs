//! Points at which a test kills this process, or makes something fail. Release builds have none.
//!
//! `SAFE_CRASH_FILE` names a file; once it is there, it says which point, and how often it is passed before it happens:
//! `acknowledged 3`.

/// The process may end here, by SIGKILL.
#[cfg(not(debug_assertions))]
pub const fn point(_name: &str) {}

/// What follows may fail.
#[cfg(not(debug_assertions))]
#[must_use]
pub const fn fails(_name: &str) -> bool {
    false
}

/// The machine was booted.
#[cfg(not(debug_assertions))]
#[must_use]
pub const fn boot_id() -> Option<u128> {
    None
}

/// As which boot of the machine this process is to count, for tests of a loss of power: `SAFE_BOOT_ID`.
#[cfg(debug_assertions)]
#[must_use]
pub fn boot_id() -> Option<u128> {
    std::env::var("SAFE_BOOT_ID").ok()?.parse().ok()
}

/// The process may end here, by SIGKILL.
#[cfg(debug_assertions)]
pub fn point(name: &str) {
    if armed::is_reached(name) {
        let own = rustix::process::getpid();
        let _dying = rustix::process::kill_process(own, rustix::process::Signal::KILL);
        loop {
            std::thread::park();
        }
    }
}

/// What follows may fail.
#[cfg(debug_assertions)]
#[must_use]
pub fn fails(name: &str) -> bool {
    armed::is_reached(name)
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

    pub(super) fn is_reached(name: &str) -> bool {
        let Some(order) = file().and_then(|file| std::fs::read_to_string(file).ok()) else { return false };
        let Some((point, count)) = order.trim().split_once(' ') else { return false };
        point == name && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == count.parse().unwrap_or(u32::MAX)
    }
}
