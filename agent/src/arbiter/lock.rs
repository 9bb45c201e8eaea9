//! A lock arbiter: somebody who holds one record for the module, and lets one node at a time change it.
//!
//! Nothing is renewed and nothing expires: the record counts only at a loss. What answers may be a witness; etcd and a
//! Kubernetes Lease fit behind the same trait, as both compare and set a small record durably.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use safe_failover::Event;
use safe_failover::event::ArbiterEvent;
use safe_failover::lineage::{Lineage, LineageId};
use safe_failover::lock::Lock as LockName;
use safe_failover::view::{Mode, View};
use tokio::sync::watch;

use super::board::Board;
use super::{INTERVAL, PATIENCE, Question, jittered};
use crate::node::Reporter;

/// The record of one module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// The lineage under which the owner goes on.
    pub(super) lineage: LineageId,
    /// Node that set it.
    pub(super) owner: String,
}

/// What a swap came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Swap {
    /// The record is the new one, durably.
    Done,
    /// It was not as expected; this is it.
    Refused(Option<Record>),
}

/// Whoever holds the record. Calls may be repeated and may arrive late: a swap names the value that it was decided on.
#[tonic::async_trait]
pub(super) trait Lock: std::fmt::Debug + Send + Sync {
    /// The record of this module; none: nobody has set it.
    ///
    /// # Errors
    /// No answer within `patience`, or a refusal; one sentence.
    async fn read(&self, module: &str, patience: Duration) -> Result<Option<Record>, String>;

    /// Sets it to `new` if its lineage is `expect`; durable before it returns.
    ///
    /// # Errors
    /// No answer within `patience`: it may or may not have happened. Or a refusal: nothing has.
    async fn swap(
        &self,
        module: &str,
        expect: Option<LineageId>,
        new: LineageId,
        patience: Duration,
    ) -> Result<Swap, String>;
}

/// The lock arbiter of one module, as it is asked.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) module: String,
    pub(super) lock: Arc<dyn Lock>,
    pub(super) board: Board,
    /// As the core calls it.
    pub(super) name: LockName,
    /// Its place on the board; none: it was in force before.
    pub(super) place: Option<usize>,
    pub(super) reporter: Reporter,
    /// For an answer at a loss: the serving node has 0.3 of the timeout for a question, a swap and what is written.
    pub(super) patience: Duration,
    /// This node serves in step or settled, under this lineage.
    pub(super) served: Mutex<Option<Lineage>>,
}

impl Keeper {
    /// Keeps in mind under which lineage this node serves.
    pub(super) fn follow(&self, view: &View) {
        let serves = view.serving && matches!(view.mode, Mode::Alone | Mode::Primary);
        let lineage = &view.lineage;
        let certain = lineage.base.is_none() || lineage.settled;
        *self.served.lock() = (serves && certain && view.consistent).then(|| lineage.clone());
    }

    /// Answers the newest question after each other; older ones that were not begun are void by it.
    pub(super) async fn answer(&self, mut questions: watch::Receiver<Option<Question>>) {
        while questions.changed().await.is_ok() {
            let question = *questions.borrow_and_update();
            let answer = match question {
                Some(Question::Read) => self.read(self.patience).await.map(ArbiterEvent::Value),
                Some(Question::Swap { expect, new }) => self.swap(expect, new).await,
                None => continue,
            };
            let answer = answer.unwrap_or(ArbiterEvent::Unreachable);
            self.reporter.event(Event::Arbiter(self.name.clone(), answer)).await;
        }
    }

    /// Looks whether it answers, and keeps its record near: a record that a copy does not know any more, because the
    /// nodes agreed without it so many times, would keep that copy from taking over.
    pub(super) async fn watch(&self) {
        loop {
            if let Ok(value) = self.read(PATIENCE).await {
                self.renew(value).await;
            }
            tokio::time::sleep(jittered(INTERVAL)).await;
        }
    }

    async fn renew(&self, value: Option<LineageId>) {
        let served = self.served.lock().clone();
        if let Some(new) = served.and_then(|lineage| renewal(&lineage, value)) {
            // What it comes to is seen the next time.
            let _outcome = self.lock.swap(&self.module, value, new, PATIENCE).await;
        }
    }

    async fn read(&self, patience: Duration) -> Result<Option<LineageId>, String> {
        let answer = self.lock.read(&self.module, patience).await;
        match &answer {
            Ok(Some(record)) => {
                let held = format!("its record is of {}", record.owner);
                self.note(Ok(held.as_str()));
            }
            Ok(None) => self.note(Ok("it has no record yet")),
            Err(why) => self.note(Err(why.as_str())),
        }
        answer.map(|record| record.map(|record| record.lineage))
    }

    fn note(&self, answer: Result<&str, &str>) {
        if let Some(place) = self.place {
            self.board.note(place, answer);
        }
    }

    async fn swap(&self, expect: Option<LineageId>, new: LineageId) -> Result<ArbiterEvent, String> {
        let answer = self.lock.swap(&self.module, expect, new, self.patience).await;
        if let Err(why) = &answer {
            self.note(Err(why.as_str()));
        }
        answer.map(|swap| match swap {
            Swap::Done => ArbiterEvent::Swapped(new),
            Swap::Refused(record) => ArbiterEvent::Refused(record.map(|record| record.lineage)),
        })
    }
}

/// What the record is to become while all is well; none: it is so already, or of a lineage that this copy does not
/// follow. Whoever may settle later has the served lineage in its own history: the record excludes nobody by this whom
/// it did not exclude before.
fn renewal(served: &Lineage, value: Option<LineageId>) -> Option<LineageId> {
    let current = served.current?;
    (value != Some(current) && value.is_none_or(|id| served.follows(id))).then_some(current)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_renewed_only_along_the_own_history() {
        let id = LineageId;
        let served = Lineage {
            current: Some(id(3)),
            base: Some(id(2)),
            settled: true,
            history: vec![id(1)],
            ..Lineage::default()
        };
        for value in [None, Some(id(1)), Some(id(2))] {
            assert_eq!(renewal(&served, value), Some(id(3)));
        }
        assert_eq!(renewal(&served, Some(id(3))), None);
        assert_eq!(renewal(&served, Some(id(9))), None, "another node went on");
        assert_eq!(renewal(&Lineage::default(), None), None);
    }
}
