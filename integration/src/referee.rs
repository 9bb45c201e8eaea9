//! Watches all the time that a virtual address is on one host at most.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::error::{Error, Result};

/// Between two looks.
const STEP: Duration = Duration::from_millis(5);

/// A watching thread.
#[derive(Debug)]
pub struct Referee {
    end: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Referee {
    /// Begins to watch an address (without prefix length).
    pub fn watch(cluster: &Cluster, address: &str) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let hosts: Vec<_> = cluster.nodes().iter().map(|node| node.current()).collect();
        let (stop, notes, address) = (Arc::clone(&end), Arc::clone(&seen), address.to_owned());
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if on_all(&hosts, &address) && on_all(&hosts, &address) {
                    notes.lock().unwrap_or_else(PoisonError::into_inner).push(address.clone());
                }
                std::thread::sleep(STEP);
            }
        });
        Self { end, seen, thread: Some(thread) }
    }

    /// Ends; an error if the address was on both hosts at any time.
    pub fn verdict(mut self) -> Result<()> {
        self.stop();
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.first() {
            None => Ok(()),
            Some(address) => {
                Err(Error::new(format!("{address} was on both hosts ({} sightings)", seen.len())))
            }
        }
    }

    fn stop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A watcher that panicked has seen nothing; its message is on standard error.
            drop(thread.join());
        }
    }
}

impl Drop for Referee {
    fn drop(&mut self) {
        self.stop();
    }
}

fn on_all(hosts: &[Arc<AtomicU32>], address: &str) -> bool {
    hosts.iter().all(|host| has_address(host.load(Ordering::Relaxed), address))
}

/// Whether the host of process `init` has the address; no program is started for it.
pub(crate) fn has_address(init: u32, address: &str) -> bool {
    let table = std::fs::read_to_string(format!("/proc/{init}/net/fib_trie")).unwrap_or_default();
    let mut lines = table.lines().peekable();
    while let Some(line) = lines.next() {
        let here = line.trim().strip_prefix("|-- ") == Some(address);
        if here && lines.peek().is_some_and(|next| next.trim() == "/32 host LOCAL") {
            return true;
        }
    }
    false
}
