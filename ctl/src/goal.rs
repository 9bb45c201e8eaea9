//! What a command is to lead to, and whether it did: pure judgement of one status after another.

use std::collections::BTreeSet;

use crate::status::{Entry, Phase, State};

/// Where a module is to arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Goal {
    /// These nodes run it: ALONE, PRIM, SECOND or UP.
    Runs(Vec<String>),
    /// These nodes run it, and go on doing so for a moment: a restart may be over before it is seen.
    RunsOn(Vec<String>),
    /// These nodes run it again, having left the state they were in.
    RunsAgain(Vec<String>),
    /// These nodes have stopped it.
    Stopped(Vec<String>),
    /// This node is PRIM or ALONE.
    Serves(String),
    /// This node is SECOND.
    Follows(String),
    /// The roles are exchanged.
    Swapped {
        /// Serves now.
        from: String,
        /// Is to serve.
        to: String,
    },
    /// One of these nodes is in one of these states; a phase counts if it is named.
    Is {
        /// States.
        states: Vec<(State, Option<Phase>)>,
        /// Nodes.
        nodes: Vec<String>,
    },
}

/// What a status means for the goal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is reached.
    Reached,
    /// It is on the way.
    Pending,
    /// It will not be reached unless a person acts.
    Person {
        /// Where.
        node: String,
        /// Why.
        reason: String,
        /// What to type.
        hint: String,
    },
    /// It will not be reached.
    Failed(String),
}

/// A goal and what was seen on the way to it.
#[derive(Debug)]
pub(crate) struct Pursuit {
    goal: Goal,
    synced: bool,
    before: Vec<Entry>,
    /// Nodes seen in another state than before, or in the same one anew.
    moved: BTreeSet<String>,
    /// Nodes seen in another phase than before.
    stirred: BTreeSet<String>,
}

impl Pursuit {
    /// `before`: the module's status before the command. `synced`: the copies must be in step, too.
    pub(crate) fn new(goal: Goal, synced: bool, before: &[Entry]) -> Self {
        Self { goal, synced, before: before.to_vec(), moved: BTreeSet::new(), stirred: BTreeSet::new() }
    }

    /// Judges the status of one module.
    pub(crate) fn judge(&mut self, now: &[Entry]) -> Verdict {
        for entry in now {
            let before = find(&self.before, &entry.node);
            if before.is_none_or(|before| before.since != entry.since || before.state != entry.state) {
                self.moved.insert(entry.node.clone());
            }
            if before.is_none_or(|before| before.phase != entry.phase) {
                self.stirred.insert(entry.node.clone());
            }
        }
        let verdict = self.judge_goal(now);
        if self.synced && verdict == Verdict::Reached { self.judge_sync(now) } else { verdict }
    }

    fn judge_goal(&self, now: &[Entry]) -> Verdict {
        match &self.goal {
            Goal::Runs(nodes) | Goal::RunsOn(nodes) => self.all(now, nodes, runs),
            Goal::RunsAgain(nodes) => {
                self.all(now, nodes, |entry| runs(entry) && self.moved.contains(&entry.node))
            }
            Goal::Stopped(nodes) => self.all(now, nodes, |entry| entry.state == State::Stop),
            Goal::Serves(node) => match find(now, node) {
                Some(entry) if entry.state == State::Second && entry.is_ready() => {
                    Verdict::Failed(format!("{node} is SECOND: the other node serves"))
                }
                _ => self
                    .all(now, std::slice::from_ref(node), |entry| entry.state.serves() && entry.is_ready()),
            },
            Goal::Follows(node) => {
                self.all(now, std::slice::from_ref(node), |entry| entry.state == State::Second && runs(entry))
            }
            Goal::Swapped { from, to } => self.swapped(now, from, to),
            Goal::Is { states, nodes } => self.is_in(now, states, nodes),
        }
    }

    /// Every node fulfils the condition; else the reason why that is not to be expected, if there is one.
    fn all(&self, now: &[Entry], nodes: &[String], done: impl Fn(&Entry) -> bool) -> Verdict {
        let open: Vec<&Entry> =
            nodes.iter().filter_map(|node| find(now, node)).filter(|entry| !done(entry)).collect();
        if open.is_empty() {
            return if nodes.iter().all(|node| find(now, node).is_some()) {
                Verdict::Reached
            } else {
                Verdict::Pending
            };
        }
        if let Some(entry) = open.iter().find(|entry| self.gave_up(entry)) {
            let reason = entry.reason.as_deref().unwrap_or("it stopped again");
            return if entry.awaits_person() {
                person(entry)
            } else {
                Verdict::Failed(format!("{} did not start: {reason}", entry.node))
            };
        }
        let stuck = open.iter().all(|entry| {
            entry.awaits_person() || entry.state == State::Unknown || waits_for_blocked(entry, now)
        });
        match open.iter().find(|entry| entry.awaits_person()) {
            Some(entry) if stuck => person(entry),
            _ => Verdict::Pending,
        }
    }

    /// It was on its way up and stopped again, or never left STOP for a new reason.
    fn gave_up(&self, entry: &Entry) -> bool {
        if entry.state != State::Stop
            || entry.phase == Some(Phase::Transient)
            || matches!(self.goal, Goal::Stopped(_))
        {
            return false;
        }
        let before = find(&self.before, &entry.node);
        let new_reason = entry.phase == Some(Phase::Blocked)
            && entry.reason.is_some()
            && before.is_none_or(|before| before.reason != entry.reason);
        new_reason || self.moved.contains(&entry.node)
    }

    fn swapped(&self, now: &[Entry], from: &str, to: &str) -> Verdict {
        let (Some(old), Some(new)) = (find(now, from), find(now, to)) else { return Verdict::Pending };
        if new.state.serves() && new.is_ready() && old.state == State::Second {
            return Verdict::Reached;
        }
        let back = old.state.serves() && old.is_ready() && new.state == State::Second && new.is_ready();
        if back && (self.moved.contains(from) || self.stirred.contains(from)) {
            let reason = old.reason.clone().or_else(|| new.reason.clone()).unwrap_or_default();
            return Verdict::Failed(format!("the roles were not exchanged: {from} serves again. {reason}"));
        }
        match [old, new].into_iter().find(|entry| entry.awaits_person()) {
            Some(entry) if !old.state.serves() || !new.state.serves() => person(entry),
            _ => Verdict::Pending,
        }
    }

    /// A person may still act, so only time ends this.
    fn is_in(&self, now: &[Entry], states: &[(State, Option<Phase>)], nodes: &[String]) -> Verdict {
        let reached = now.iter().filter(|entry| nodes.contains(&entry.node)).any(|entry| {
            states.iter().any(|&(state, phase)| {
                let settled = match state {
                    State::Second if !self.synced => true,
                    State::Second | State::Alone | State::Prim | State::Up => entry.is_ready(),
                    State::Stop | State::Wait | State::Unknown => true,
                };
                entry.state == state && phase.map_or(settled, |phase| entry.phase == Some(phase))
            })
        });
        if reached { Verdict::Reached } else { Verdict::Pending }
    }

    /// Both copies are in step: every node of the module is PRIM or SECOND (or UP), ready.
    fn judge_sync(&self, now: &[Entry]) -> Verdict {
        if matches!(self.goal, Goal::Is { .. } | Goal::Stopped(_)) {
            return Verdict::Reached;
        }
        let in_step = |entry: &Entry| {
            matches!(entry.state, State::Prim | State::Second | State::Up) && entry.is_ready()
        };
        let open: Vec<&Entry> = now.iter().filter(|entry| !in_step(entry)).collect();
        if let Some(stopped) = open.iter().find(|entry| entry.state == State::Stop) {
            return Verdict::Person {
                node: stopped.node.clone(),
                reason: format!("{} is stopped, so there is nothing to be in step with", stopped.node),
                hint: format!("safectl start {} --on {}", stopped.module, stopped.node),
            };
        }
        match open.iter().find(|entry| entry.awaits_person()) {
            Some(entry) => person(entry),
            None if open.is_empty() => Verdict::Reached,
            None => Verdict::Pending,
        }
    }
}

fn runs(entry: &Entry) -> bool {
    match entry.state {
        State::Alone | State::Prim | State::Up => entry.is_ready(),
        State::Second => entry.phase != Some(Phase::Blocked),
        State::Stop | State::Wait | State::Unknown => false,
    }
}

/// It waits, without an end of its own, for a node where a person is awaited. (A node that waits for a time says for how
/// long.)
fn waits_for_blocked(entry: &Entry, now: &[Entry]) -> bool {
    let Some(reason) = entry.reason.as_deref().filter(|_| entry.state == State::Wait) else { return false };
    let Some(awaited) = reason.strip_prefix("waits for ") else { return false };
    now.iter().filter(|other| other.node != entry.node && other.awaits_person()).any(|other| {
        awaited
            .strip_prefix(other.node.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(", "))
    })
}

fn person(entry: &Entry) -> Verdict {
    Verdict::Person {
        node: entry.node.clone(),
        reason: entry.reason.clone().unwrap_or_else(|| entry.state_and_phase()),
        hint: entry.hint.clone().unwrap_or_default(),
    }
}

/// The entry of a node.
pub(crate) fn find<'a>(entries: &'a [Entry], node: &str) -> Option<&'a Entry> {
    entries.iter().find(|entry| entry.node == node)
}

#[cfg(test)]
#[path = "goal/tests.rs"]
mod tests;
