//! What happens, as it happens, on the terminal: one line an event, and on a terminal a last line that is kept
//! up to date.

use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use owo_colors::OwoColorize as _;

use crate::clock;

/// Kinds of event, each with its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// What the demo does.
    Step,
    /// A fault.
    Fault,
    /// What the cluster did about it.
    Cluster,
    /// A figure.
    Figure,
}

/// The terminal.
#[derive(Debug)]
pub struct Timeline {
    begin: Instant,
    /// The line kept up to date, if one is shown.
    shown: Mutex<Option<String>>,
    live: bool,
}

impl Default for Timeline {
    fn default() -> Self {
        Self::new()
    }
}

impl Timeline {
    /// Begins now.
    pub fn new() -> Self {
        Self { begin: clock::now(), shown: Mutex::new(None), live: std::io::stdout().is_terminal() }
    }

    /// Something happened.
    pub fn event(&self, tone: Tone, text: &str) {
        let shown = self.lock();
        let at = format!("{:7.2}s", clock::now().duration_since(self.begin).as_secs_f64());
        let text = match tone {
            Tone::Step => text.to_owned(),
            Tone::Fault => text.red().bold().to_string(),
            Tone::Cluster => text.cyan().to_string(),
            Tone::Figure => text.green().to_string(),
        };
        self.erase(shown.as_deref());
        // A closed terminal is no reason to fail.
        drop(writeln!(anstream::stdout(), "{}  {text}", at.dimmed()));
        self.draw(shown.as_deref());
    }

    /// Replaces the last line.
    pub fn live(&self, text: &str) {
        let mut shown = self.lock();
        self.erase(shown.as_deref());
        *shown = self.live.then(|| text.to_owned());
        self.draw(shown.as_deref());
    }

    /// Text as it is.
    pub fn plain(&self, text: &str) {
        let mut shown = self.lock();
        self.erase(shown.as_deref());
        *shown = None;
        drop(writeln!(anstream::stdout(), "{text}"));
    }

    fn erase(&self, shown: Option<&str>) {
        if shown.is_some() {
            drop(write!(anstream::stdout(), "\r\x1b[2K"));
        }
    }

    fn draw(&self, shown: Option<&str>) {
        if let Some(text) = shown {
            drop(write!(anstream::stdout(), "{}", text.dimmed()));
            drop(anstream::stdout().flush());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
