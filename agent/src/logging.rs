//! The daemon's own log: to stderr, where the service manager collects it.
//!
//! A thread of its own writes it: who collects may stand still, as it does when its disk hangs, and nobody else must.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::node::Startup;

/// Lines that may wait for who collects them; what does not fit is counted and said.
const QUEUE: usize = 4096;

/// Longest wait for what is still to be written when the daemon ends.
const LAST: Duration = Duration::from_secs(1);

enum Order {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// A way to the log; cheap to clone.
#[derive(Debug, Clone)]
pub struct Log {
    orders: SyncSender<Order>,
    lost: Arc<AtomicU64>,
}

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
        let (orders, inbox) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lost);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write(out, &inbox, &counted))
            .map_err(|error| Startup(format!("cannot start a thread: {error}")))?;
        Ok(Self { orders, lost })
    }

    /// Waits for a moment until what was logged is written.
    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.orders.try_send(Order::Flush(done)).is_ok() {
            let _timeout = wait.recv_timeout(LAST);
        }
    }
}

impl Write for Log {
    /// Takes a line. Never waits, never fails.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.orders.try_send(Order::Line(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
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

/// The thread. That a line cannot be written cannot be told anywhere.
fn write(mut out: impl Write, inbox: &Receiver<Order>, lost: &AtomicU64) {
    while let Ok(order) = inbox.recv() {
        match order {
            Order::Line(line) => {
                let lost = lost.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    let _failed = writeln!(
                        out,
                        "{lost} lines of the log are missing here: they were not taken in time"
                    );
                }
                let _failed = out.write_all(&line);
            }
            Order::Flush(done) => {
                let _failed = out.flush();
                let _gone = done.try_send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
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
