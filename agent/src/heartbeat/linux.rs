//! What makes the heartbeat thread punctual: real-time priority and locked memory, where the system permits.

use rustix::mm::MlockAllFlags;

/// Above everything ordinary, below what the kernel itself and other cluster software use.
const PRIORITY: libc::c_int = 10;
const CAP_IPC_LOCK: u64 = 1 << 14;

/// Makes the calling thread a real-time one and locks the memory of the process. Answers what was refused, in words
/// for people; nothing else depends on it.
pub(super) fn make_punctual() -> Vec<String> {
    let mut refused = Vec::new();
    if let Err(error) = real_time() {
        refused.push(format!(
            "heartbeats run without real-time priority ({error}): give safed CAP_SYS_NICE or raise its RLIMIT_RTPRIO"
        ));
    }
    if let Err(why) = lock_memory() {
        refused.push(format!("safed runs without locked memory ({why}): give it CAP_IPC_LOCK"));
    }
    refused
}

fn real_time() -> std::io::Result<()> {
    let parameter = libc::sched_param { sched_priority: PRIORITY };
    #[expect(unsafe_code, reason = "no safe wrapper sets a scheduling policy")]
    // SAFETY: 0 names the calling thread and the pointer is to a live value of the right type. Children do not
    // inherit the policy (RESET_ON_FORK).
    let outcome = unsafe {
        libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const parameter)
    };
    if outcome == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Only with the capability in the first user namespace: elsewhere a limit would make later allocations fail.
fn lock_memory() -> Result<(), String> {
    if !may_lock() {
        return Err("not permitted".to_owned());
    }
    rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)
        .map_err(|error| error.to_string())
}

fn may_lock() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or(0);
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let first = map.split_whitespace().eq(["0", "0", "4294967295"]);
    effective & CAP_IPC_LOCK != 0 && first
}
