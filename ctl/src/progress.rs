//! The bar of a resync, on stderr, where that is a terminal.

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;

use crate::status::Entry;

/// A bar that appears with the first resync and goes with the last.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Shows what the status of a module says of its resync.
    pub(crate) fn show(&mut self, entries: &[Entry]) {
        let Some((entry, resync)) =
            entries.iter().find_map(|entry| entry.data.resync.as_ref().map(|resync| (entry, resync)))
        else {
            self.finish();
            return;
        };
        if !std::io::stderr().is_terminal() {
            return;
        }
        let bar = self.bar.get_or_insert_with(new_bar);
        bar.set_length(resync.bytes_total.max(1));
        bar.set_position(resync.bytes_done);
        let left = resync.time_left();
        bar.set_prefix(format!("{} {} resync", entry.module, resync.plan));
        bar.set_message(format!("{}/s, {left}", HumanBytes(resync.rate)));
    }

    /// Lines of text must not run into the bar.
    pub(crate) fn aside(&self, write: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    pub(crate) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

fn new_bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr());
    let form = "{prefix} [{bar:24}] {percent:>3}% {binary_bytes}/{binary_total_bytes} {msg}";
    if let Ok(style) = ProgressStyle::with_template(form) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}
