//! Why a module is in its state, and what would happen if something failed now, in sentences.

use crate::action::Phase;
use crate::config::{ArbiterKind, Isolation};
use crate::failover::Failover;
use crate::resource::Value;
use crate::view::Mode;

/// A question that a person may have, and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// As in "if n2 failed now".
    pub question: String,
    /// One sentence.
    pub answer: String,
    /// What to type; none: nothing.
    pub hint: Option<String>,
}

impl Failover {
    /// Every question that can be answered now.
    #[must_use]
    pub fn explain(&self) -> Vec<Explanation> {
        let status = self.status();
        let mut lines = vec![Explanation {
            question: "why".to_owned(),
            answer: format!("{}/{}: {}", Value::State(status.state), phase(status.phase), status.reason),
            hint: status.hint,
        }];
        let mut add = |question: String, answer: String| {
            lines.push(Explanation { question, answer, hint: None });
        };
        let (node, peer) = (&self.config.node, &self.config.peer);
        add(format!("if {peer} failed now"), self.if_peer_failed());
        add(format!("if {node} failed now"), self.if_this_failed());
        add("if one lan were cut now".to_owned(), self.if_lan_cut());
        add("if every lan were cut now".to_owned(), self.if_isolated());
        if let Some(answer) = self.if_arbiter_failed() {
            add("if the arbiter failed now".to_owned(), answer);
        }
        if let Some((answer, hint)) = self.joint_locks() {
            let question = "what a lone node needs to serve".to_owned();
            lines.push(Explanation { question, answer, hint: Some(hint) });
        }
        lines
    }

    fn if_peer_failed(&self) -> String {
        let (node, peer) = (&self.config.node, &self.config.peer);
        match self.mode {
            Mode::Stopped => format!("{node} is stopped and stays so"),
            Mode::Alone => format!("nothing changes: {node} serves without {peer}"),
            Mode::Target => {
                format!("nobody serves: the copy of {node} is not complete before the resynchronisation ends")
            }
            Mode::Candidate => format!("{node} is about to serve"),
            Mode::Waiting
                if self.good_copy() && self.hard.lineage.base.is_some() && self.hard.lineage.settled =>
            {
                format!("{node} serves after {:?}: it has the newest data", self.config.start_wait)
            }
            Mode::Waiting => format!("nobody serves: {node} cannot know whether its copy is the newest"),
            Mode::Second if !self.config.failover => {
                "nobody serves until a person types prim: failover is off".to_owned()
            }
            Mode::Second if !self.rights.promote => {
                format!("nobody serves: it is not confirmed that {node} holds every write")
            }
            Mode::Second => format!("{node} takes over {}", self.after_silence()),
            Mode::Primary => format!("{node} goes on alone {}", self.after_silence()),
        }
    }

    /// When a loss is decided here, and on what condition.
    fn after_silence(&self) -> String {
        let timeout = self.bears();
        let announced = "at once if the loss is announced";
        match self.arbiter_kind() {
            ArbiterKind::Lock => {
                format!("{announced}, else within {timeout:?}, if the arbiter gives it the record")
            }
            ArbiterKind::Reachability => {
                format!(
                    "{announced}, else after {timeout:?} of silence, if an arbiter answers it; else nobody serves"
                )
            }
            ArbiterKind::None if self.isolation_waits().is_some() => {
                format!("{announced}; after a silence it waits, and nobody serves")
            }
            ArbiterKind::None => format!("{announced}, else after {timeout:?} of silence"),
        }
    }

    fn if_this_failed(&self) -> String {
        let (node, peer) = (&self.config.node, &self.config.peer);
        let serves = matches!(self.mode, Mode::Alone | Mode::Primary);
        match self.present() {
            Some(view) if !serves && matches!(view.mode, Mode::Alone | Mode::Primary) => {
                format!("{peer} serves on")
            }
            Some(view) if serves && view.mode == Mode::Second && self.grant().is_some() => {
                format!("{peer} takes over {}", self.after_silence())
            }
            Some(_) if serves => format!("nobody serves: {peer} is not in step"),
            Some(_) => "nobody serves, as now".to_owned(),
            None if serves => format!("nobody serves: {peer} is not heard"),
            None => format!("nothing changes here: {node} does not serve, {peer} is not heard"),
        }
    }

    fn if_lan_cut(&self) -> String {
        match self.peer.lans.count_ones() {
            0 => format!("no lan to {} is up", self.config.peer),
            1 => "only one is up: the same as if every lan were cut".to_owned(),
            count => format!("nothing but an event: {count} are up, replication moves to another one"),
        }
    }

    fn if_isolated(&self) -> String {
        if self.peer.lans == 0 {
            return "they are".to_owned();
        }
        match (self.arbiter_kind(), self.config.isolation) {
            (ArbiterKind::Lock, _) => "the node that gets the arbiter's record serves, the other waits".to_owned(),
            (ArbiterKind::Reachability, _) => {
                "each node that an arbiter answers serves: both, if the arbiters answer both".to_owned()
            }
            (ArbiterKind::None, Isolation::Wait) => "nobody serves until a lan is back".to_owned(),
            (ArbiterKind::None, Isolation::Alone) => {
                "both nodes serve (split brain), but one whose address interface has no carrier; when a lan is back one \
                 gives up its changes"
                    .to_owned()
            }
        }
    }

    fn if_arbiter_failed(&self) -> Option<String> {
        let alone = self.mode == Mode::Alone;
        match self.arbiter_kind() {
            ArbiterKind::None => None,
            ArbiterKind::Lock | ArbiterKind::Reachability if alone => {
                Some("nothing changes: who serves alone asks it no more".to_owned())
            }
            ArbiterKind::Lock | ArbiterKind::Reachability => Some(
                "nothing changes while the nodes hear each other; if one is lost then, the other waits"
                    .to_owned(),
            ),
        }
    }
}

const fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Ready => "ready",
        Phase::Transient => "transient",
        Phase::Blocked => "blocked",
    }
}
