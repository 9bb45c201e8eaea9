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

/// Threads may wait for each other.
#[cfg(not(debug_assertions))]
pub const fn gather(_name: &str) {}

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

/// Waits until as many threads are here as the file says: `gather-sync 6`. Whether they ever are is told in the log; those
/// that cannot be here at once go on after a while.
#[cfg(debug_assertions)]
pub fn gather(name: &str) {
    if let Some(wanted) = armed::wanted(&format!("gather-{name}")) {
        armed::gather(name, wanted);
    }
}

#[cfg(debug_assertions)]
mod armed {
    use std::path::PathBuf;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use parking_lot::{Condvar, Mutex};

    static GATHERED: Mutex<u32> = Mutex::new(0);
    static CHANGED: Condvar = Condvar::new();
    /// For threads to come.
    const PATIENCE: Duration = Duration::from_secs(10);

    pub(super) fn wanted(name: &str) -> Option<u32> {
        let order = std::fs::read_to_string(file()?).ok()?;
        let (point, count) = order.trim().split_once(' ')?;
        if point == name { count.parse().ok() } else { None }
    }

    pub(super) fn gather(name: &str, wanted: u32) {
        let mut here = GATHERED.lock();
        *here += 1;
        CHANGED.notify_all();
        let missing = |here: &mut u32| *here < wanted;
        if CHANGED.wait_while_for(&mut here, missing, PATIENCE).timed_out() {
            *here -= 1;
        } else {
            tracing::debug!(name, wanted, "gathered");
        }
    }

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
