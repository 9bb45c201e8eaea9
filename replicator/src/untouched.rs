//! A copy that is as good as it was, and must not be changed before the agent has recorded that it is between two states.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;

use crate::clock::Boottime;

/// How long the agent may take to say that the copy may be changed.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Untouched,
    Open,
    /// The session has ended.
    Over,
}

/// See the module.
pub struct Untouched {
    state: Mutex<State>,
    changed: Condvar,
    report: Box<dyn Fn(Result<(), String>) + Send + Sync>,
}

impl Untouched {
    /// `report` tells the agent whether there is room.
    #[must_use]
    pub fn new(report: Box<dyn Fn(Result<(), String>) + Send + Sync>) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), report }
    }

    /// The copy may be changed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        *self.state.lock() == State::Open
    }

    /// There surely is no room; why, for people. The copy stays as it is.
    pub fn refuse(&self, why: String) {
        (self.report)(Err(why));
    }

    /// There is room, as far as can be known: returns when the copy may be changed.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the agent does not say so; `ECANCELED`: the session ends.
    pub fn ask(&self) -> Result<(), Errno> {
        if !self.is_open() {
            (self.report)(Ok(()));
        }
        let asked = Boottime::now();
        let mut state = self.state.lock();
        while *state == State::Untouched {
            let left = PATIENCE.checked_sub(asked.elapsed()).ok_or(Errno::TIMEDOUT)?;
            self.changed.wait_for(&mut state, left);
        }
        if *state == State::Open { Ok(()) } else { Err(Errno::CANCELED) }
    }

    /// The agent says so.
    pub fn open(&self) {
        self.become_(State::Open);
    }

    /// Nobody waits any more.
    pub fn end(&self) {
        self.become_(State::Over);
    }

    fn become_(&self, next: State) {
        let mut state = self.state.lock();
        if *state == State::Untouched {
            *state = next;
        }
        drop(state);
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn it_is_changed_only_after_leave() {
        let (sender, asked) = mpsc::sync_channel(1);
        let copy = Untouched::new(Box::new(move |outcome| drop(sender.send(outcome))));
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| copy.ask());
            assert_eq!(asked.recv().expect("it asks"), Ok(()));
            assert!(!copy.is_open() && !waiter.is_finished());
            copy.open();
            assert_eq!(waiter.join().expect("no panic"), Ok(()));
        });
        assert!(copy.is_open());
    }

    #[test]
    fn the_end_of_the_session_ends_the_wait() {
        let (sender, asked) = mpsc::sync_channel(1);
        let copy = Untouched::new(Box::new(move |outcome| drop(sender.send(outcome))));
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| copy.ask());
            assert_eq!(asked.recv().expect("it asks"), Ok(()));
            copy.end();
            assert_eq!(waiter.join().expect("no panic"), Err(Errno::CANCELED));
        });
        copy.open();
        assert!(!copy.is_open(), "what comes too late opens nothing");
    }
}
