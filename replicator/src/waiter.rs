//! One thread waits for one result. Meanwhile it may get the turn to read the line itself.

use crate::sync::{Condvar, Mutex};

#[derive(Debug)]
struct Wait<T> {
    result: Option<T>,
    turn: bool,
}

/// See the module. The result comes once, from another thread or from what this one reads.
#[derive(Debug)]
pub struct Waiter<T> {
    wait: Mutex<Wait<T>>,
    changed: Condvar,
}

impl<T> Default for Waiter<T> {
    fn default() -> Self {
        Self { wait: Mutex::new(Wait { result: None, turn: false }), changed: Condvar::default() }
    }
}

impl<T> Waiter<T> {
    /// The result.
    pub fn complete(&self, result: T) {
        self.wait.lock().result = Some(result);
        self.changed.notify_one();
    }

    /// Takes the result, if it has come.
    pub fn take(&self) -> Option<T> {
        self.wait.lock().result.take()
    }

    /// The result has come.
    #[must_use]
    pub fn has_come(&self) -> bool {
        self.wait.lock().result.is_some()
    }

    /// Gives the one who waits the turn to read. False: the result has come.
    #[must_use]
    pub fn take_turn(&self) -> bool {
        let mut wait = self.wait.lock();
        wait.turn = wait.result.is_none();
        if wait.turn {
            self.changed.notify_one();
        }
        wait.turn
    }

    /// Sleeps until the result has come; true: until the turn to read has.
    #[must_use]
    pub fn sleep(&self) -> bool {
        let mut wait = self.wait.lock();
        while !wait.turn && wait.result.is_none() {
            self.changed.wait(&mut wait);
        }
        std::mem::take(&mut wait.turn)
    }

    /// Sleeps until the result has come.
    pub fn sleep_for_result(&self) {
        let mut wait = self.wait.lock();
        while wait.result.is_none() {
            self.changed.wait(&mut wait);
        }
    }
}
