//! What is known of a module's arbiters, for status and the record of events.

use std::sync::Arc;

use safe_failover::Event;
use safe_failover::resource::Value;
use safe_proto::module::ArbiterStatus;
use safe_proto::spec::ModuleSpec;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::events::Events;
use crate::node::{Reporter, What};

/// Longest explanation kept.
const WHY: usize = 300;

/// All arbiters of a module, in the order of its spec; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Board {
    module: Arc<str>,
    events: Events,
    shown: watch::Sender<Vec<ArbiterStatus>>,
}

impl Board {
    /// What changes is reported until `end`.
    pub(super) fn start(
        module: &str,
        shown: Vec<ArbiterStatus>,
        events: Events,
        reporter: Reporter,
        end: CancellationToken,
    ) -> Self {
        let any = !shown.is_empty();
        let board = Self { module: module.into(), events, shown: watch::Sender::new(shown) };
        if any {
            let mut changes = board.shown.subscribe();
            changes.mark_changed();
            let report = async move {
                while changes.changed().await.is_ok() {
                    let shown = changes.borrow_and_update().clone();
                    tell(&reporter, shown).await;
                }
            };
            tokio::spawn(async move { end.run_until_cancelled(report).await });
        }
        board
    }

    /// Reports once more.
    pub(super) fn again(&self) {
        self.shown.send_modify(|_| {});
    }

    /// An arbiter answered (what people may want to know of it), or did not (why).
    pub(super) fn note(&self, place: usize, answer: Result<&str, &str>) {
        let (up, why) = match answer {
            Ok(what) => (true, what),
            Err(why) => (false, why),
        };
        let why: String = why.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WHY).collect();
        let mut told = None;
        // Reported also if nothing is new: an earlier report may have found nobody who keeps it yet.
        self.shown.send_modify(|shown| {
            let Some(status) = shown.get_mut(place) else { return };
            let state = if up { "up" } else { "down" };
            if status.state != state {
                told = Some((status.name.clone(), status.state == "unknown"));
                status.since_ms = clock::unix_ms();
            }
            (status.up, status.why) = (up, why.clone());
            state.clone_into(&mut status.state);
        });
        match told {
            Some((_, true)) if up => {}
            Some((name, _)) if up => {
                self.events.record(&self.module, false, &format!("arbiter {name} answers"))
            }
            Some((name, _)) => {
                self.events.record(&self.module, true, &format!("arbiter {name} does not answer: {why}"));
            }
            None => {}
        }
    }
}

/// To the core as resources, to people as they are.
async fn tell(reporter: &Reporter, shown: Vec<ArbiterStatus>) {
    for status in &shown {
        if status.state == "unknown" {
            continue;
        }
        let value = if status.up { Value::Up } else { Value::Down };
        let name = format!("arbiter.{}", status.name);
        reporter.event(Event::Resource { name, value, reason: status.why.clone() }).await;
    }
    reporter.tell(What::Arbiters(shown)).await;
}

/// All arbiters of a module, none of them asked yet.
pub(super) fn unknown(spec: &ModuleSpec) -> Vec<ArbiterStatus> {
    let status = |(index, arbiter): (usize, &safe_proto::spec::ArbiterSpec)| ArbiterStatus {
        name: spec.arbiter_name(index).unwrap_or_default(),
        kind: arbiter.kind.as_str().to_owned(),
        up: false,
        state: "unknown".to_owned(),
        since_ms: clock::unix_ms(),
        why: String::new(),
    };
    spec.arbiter.iter().enumerate().map(status).collect()
}
