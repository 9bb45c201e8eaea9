//! Follows the state of a module on both nodes and tells the timeline what changes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::cluster::Cluster;
use crate::ledger::client::Client;
use crate::status::{Phase, Status};
use crate::timeline::{Timeline, Tone};

/// Between two looks.
const STEP: Duration = Duration::from_millis(200);

/// Ends the watching.
#[derive(Debug, Default)]
pub struct Watch {
    end: AtomicBool,
}

impl Watch {
    /// Looks until told to stop; to be run on a thread of its own.
    pub fn run(&self, cluster: &Cluster, module: &str, client: &Client, timeline: &Timeline) {
        let mut last = BTreeMap::new();
        while !self.end.load(Ordering::Relaxed) {
            let mut now = Vec::new();
            for node in cluster.nodes() {
                // A node that is off, or just being killed, has nothing to say.
                let status = node.status(module).ok();
                let word = status.as_ref().map_or_else(|| "off".to_owned(), word);
                if last.insert(node.name.clone(), word.clone()).is_some_and(|before| before != word) {
                    timeline.event(Tone::Cluster, &format!("{} is {word}", node.name));
                }
                now.push(format!("{} {word}", node.name));
            }
            timeline.live(&format!("{}   {} writes acknowledged", now.join("   "), client.count()));
            std::thread::sleep(STEP);
        }
    }

    /// Ends [`Watch::run`].
    pub fn stop(&self) {
        self.end.store(true, Ordering::Relaxed);
    }
}

fn word(status: &Status) -> String {
    let phase = match status.phase {
        None | Some(Phase::Ready) => "",
        Some(Phase::Transient) => "/transient",
        Some(Phase::Blocked) => "/blocked",
    };
    format!("{}{phase}", status.state.name())
}
