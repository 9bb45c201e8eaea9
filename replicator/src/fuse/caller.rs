//! Who asked for what this thread is doing.

use std::cell::Cell;

/// The thread of an application that waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Its thread id.
    pub tid: u32,
    /// Its user.
    pub uid: u32,
}

thread_local! {
    static CALLER: Cell<Caller> = const { Cell::new(Caller { tid: 0, uid: 0 }) };
}

impl Caller {
    /// Whoever this thread works for; thread 0 and root where it is nobody.
    #[must_use]
    pub fn current() -> Self {
        CALLER.get()
    }

    pub(super) fn set(self) {
        CALLER.set(self);
    }

    /// It is root. Which capabilities others have is not told: whoever else has CAP_FSETID loses setuid and setgid where
    /// the kernel does not say that they stay.
    #[must_use]
    pub const fn is_privileged(self) -> bool {
        self.uid == 0
    }

    /// It was killed, and only waits for its answer to end. The kernel tells of a first signal only, which may be
    /// one that the program lives with; so it is asked for.
    #[must_use]
    pub fn is_dying(self) -> bool {
        const KILL: u64 = 1 << (libc::SIGKILL - 1);
        if self.tid == 0 {
            return false;
        }
        let Ok(status) = std::fs::read_to_string(format!("/proc/{}/status", self.tid)) else { return false };
        status.lines().any(|line| {
            line.strip_prefix("SigPnd:")
                .or_else(|| line.strip_prefix("ShdPnd:"))
                .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
                .is_some_and(|mask| mask & KILL != 0)
        })
    }
}
