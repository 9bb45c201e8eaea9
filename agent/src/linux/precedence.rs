//! What must be in time is served before what keeps the machine busy, where the system permits.

use std::io;

use rustix::mm::MlockAllFlags;
use rustix::thread::CapabilitySet;

/// Above everything ordinary, below what the kernel itself and other cluster software use.
#[derive(Debug, Clone, Copy)]
#[repr(i32)]
pub enum Priority {
    /// What decides.
    Decision = 9,
    /// What tells the other node that this one lives: never behind a decision.
    Heartbeat = 10,
}

/// The calling thread is served before everything that is not in real time. Its children, and the threads it starts, are
/// ordinary ones.
///
/// # Errors
/// `EPERM` without `CAP_SYS_NICE` or an `RLIMIT_RTPRIO`.
pub fn real_time(priority: Priority) -> io::Result<()> {
    let parameter = libc::sched_param { sched_priority: priority as libc::c_int };
    #[expect(unsafe_code, reason = "no safe wrapper sets a scheduling policy")]
    // SAFETY: 0 names the calling thread and the pointer is to a live value of the right type. Children do not
    // inherit the policy (RESET_ON_FORK).
    let outcome = unsafe {
        libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const parameter)
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The memory of this process stays where it is. Only with the capability in the first user namespace:
/// elsewhere a limit would make later allocations fail.
///
/// # Errors
/// Why it was refused.
pub fn lock_memory() -> Result<(), String> {
    if !may_lock() {
        return Err("not permitted".to_owned());
    }
    rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)
        .map_err(|error| error.to_string())
}

fn may_lock() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let first = map.split_whitespace().eq(["0", "0", "4294967295"]);
    let capable =
        rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    first && capable
}
