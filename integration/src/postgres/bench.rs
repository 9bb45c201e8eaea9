//! pgbench as background load.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::program::Program;

/// Between two looks whether it still runs.
const STEP: Duration = Duration::from_millis(100);

/// Load that ends when dropped.
#[derive(Debug)]
pub struct Bench {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Bench {
    pub(super) fn start(program: &Program, log: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&stop);
        let (program, log): (Program, PathBuf) = (program.clone(), log.to_path_buf());
        let thread = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                run_once(&program, &log, &end);
                std::thread::sleep(STEP);
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

/// Until it ends by itself, because it lost the server, or is told to.
fn run_once(program: &Program, log: &Path, end: &AtomicBool) {
    let Ok(mut bench) = program.spawn(log) else { return };
    while !end.load(Ordering::Relaxed) && matches!(bench.ended(), Ok(None)) {
        std::thread::sleep(STEP);
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
