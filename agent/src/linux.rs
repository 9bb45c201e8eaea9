//! System calls that no safe wrapper offers.

use std::io;

/// Makes the child the leader of a session of its own: signals to the daemon's group do not reach it, and it has no
/// terminal.
pub fn own_session(command: &mut tokio::process::Command) {
    let setsid = || {
        rustix::process::setsid()?;
        Ok::<(), io::Error>(())
    };
    // SAFETY: between fork and exec only setsid(2) is called, which is async-signal-safe and allocates nothing.
    #[expect(unsafe_code, reason = "setsid must be called by the child, before exec")]
    unsafe {
        command.pre_exec(setsid);
    }
}
