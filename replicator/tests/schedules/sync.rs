//! What `crate::sync` is here: a scheduler decides at each step which thread goes on.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

pub(crate) use shuttle::sync::{Arc, atomic};

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

pub(crate) struct Guard<'a, T> {
    mutex: &'a shuttle::sync::Mutex<T>,
    held: Option<shuttle::sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> Guard<'_, T> {
        Guard { mutex: &self.0, held: Some(self.0.lock().unwrap()) }
    }

    pub(crate) fn try_lock(&self) -> Option<Guard<'_, T>> {
        Some(Guard { mutex: &self.0, held: Some(self.0.try_lock().ok()?) })
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.held.as_ref().unwrap()
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_mut().unwrap()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Condvar(shuttle::sync::Condvar);

impl Condvar {
    pub(crate) fn wait<T>(&self, guard: &mut Guard<'_, T>) {
        guard.held = guard.held.take().map(|held| self.0.wait(held).unwrap());
    }

    /// The time is over whenever the scheduler lets this thread go on.
    #[expect(clippy::unused_self, reason = "as that of the library")]
    pub(crate) fn wait_for<T>(&self, guard: &mut Guard<'_, T>, _limit: Duration) {
        guard.held = None;
        shuttle::thread::yield_now();
        guard.held = Some(guard.mutex.lock().unwrap());
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}
