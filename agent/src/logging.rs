//! The daemon's own log: to stderr, where the service manager collects it.
//!
//! A thread of its own writes it: who collects may stand still, as it does when its disk hangs, and nobody else must.

use std::io::{self, Write};
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::aside::{Aside, Work};
use crate::node::Startup;

/// Lines that may wait for who collects them; what does not fit is counted and said.
const QUEUE: usize = 4096;

/// Longest wait for what is still to be written when the daemon ends.
const LAST: Duration = Duration::from_secs(1);

/// A way to the log; cheap to clone.
#[derive(Debug, Clone)]
pub struct Log(Aside<Vec<u8>>);

/// Begins logging.
///
/// # Errors
/// The filter cannot be read, or no thread can be started.
pub fn start(filter: &str) -> Result<Log, Startup> {
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        Startup(format!(
            "log = {filter:?} is not a log filter ({error}); write error, warn, info, debug or trace"
        ))
    })?;
    let log = Log::new(io::stderr())?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(log.clone())
        .with_ansi(false)
        .try_init()
        .map_err(|error| Startup(format!("cannot start logging: {error}")))?;
    Ok(log)
}

impl Log {
    fn new(out: impl Write + Send + 'static) -> Result<Self, Startup> {
        let log = Aside::start("log", QUEUE, Out(out));
        log.map(Self).map_err(|error| Startup(format!("cannot start a thread: {error}")))
    }

    /// Waits for a moment until what was logged is written.
    pub fn flush(&self) {
        self.0.flush(LAST);
    }
}

impl Write for Log {
    /// Takes a line. Never waits, never fails.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.give(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// That a line cannot be written cannot be told anywhere.
struct Out<W>(W);

impl<W: Write + Send + 'static> Work for Out<W> {
    type Item = Vec<u8>;

    fn take(&mut self, line: Vec<u8>) {
        let _failed = self.0.write_all(&line);
    }

    fn missing(&mut self, count: u64) {
        let _failed =
            writeln!(self.0, "{count} lines of the log are missing here: they were not taken in time");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    /// Stands still while it is locked.
    #[derive(Clone, Default)]
    struct Collector(Arc<Mutex<Vec<u8>>>);

    impl Write for Collector {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().write(text)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_logs_never_waits_for_who_collects_and_what_is_missing_is_said() {
        let collector = Collector::default();
        let mut log = Log::new(collector.clone()).expect("a thread");
        let held = collector.0.lock();
        for number in 0..QUEUE + 10 {
            log.write_all(format!("line {number}\n").as_bytes()).expect("it never fails");
        }
        drop(held);
        // There is room again once something of it is written.
        while collector.0.lock().is_empty() {
            std::thread::yield_now();
        }
        log.write_all(b"later\n").expect("it never fails");
        while !String::from_utf8_lossy(&collector.0.lock()).ends_with("later\n") {
            Log::flush(&log);
        }
        let text = String::from_utf8_lossy(&collector.0.lock()).into_owned();
        let said = text.lines().filter(|line| line.ends_with("were not taken in time")).count();
        assert_eq!(said, 1, "{text}");
        // Some may have been taken before the first one waited; none that was taken is missing.
        let taken = text.lines().filter(|line| line.starts_with("line ")).count();
        assert!((QUEUE..QUEUE + 10).contains(&taken), "{taken} lines");
    }
}
