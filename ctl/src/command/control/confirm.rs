//! What a command loses, and whether that is wanted.

use std::io::BufRead;

use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::goal::find;
use crate::output;
use crate::status::{Entry, State};

/// Says what is lost and asks, unless `--yes` was given.
pub(in crate::command) fn ask(context: &Context, loss: &str) -> Result<(), Failure> {
    output::note(loss);
    if context.yes {
        return Ok(());
    }
    if !output::is_interactive() {
        return Err(Failure::condition("nothing was done: there is no terminal to ask at")
            .hint("if that loss is accepted, add --yes"));
    }
    output::ask("Type yes to go on: ");
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    if read.is_ok() && answer.trim() == "yes" {
        return Ok(());
    }
    output::note("nothing was done");
    Err(Failure::silent(Exit::Condition))
}

/// Loss of `prim --force`.
pub(super) fn of_prim(module: &str, before: &[Entry], node: &str) -> String {
    let copy = match find(before, node) {
        Some(entry) => copy(entry),
        None => "its copy is of unknown age".to_owned(),
    };
    let mut text = format!(
        "prim --force: {node} will serve {module} with its copy as it is; {copy}.\n\
         What was acknowledged since then by another node will be lost: that node will be made equal to {node}."
    );
    for other in before.iter().filter(|entry| entry.node != node && entry.state == State::Unknown) {
        text.push_str(&format!("\n{} does not answer: if it still serves, both will serve.", other.node));
    }
    text
}

/// Loss of `second --force`.
pub(super) fn of_second(module: &str, before: &[Entry], node: &str, discard: bool) -> String {
    let others: Vec<&str> =
        before.iter().filter(|entry| entry.node != node).map(|entry| entry.node.as_str()).collect();
    format!(
        "second --force: the files of {module} on {node} will be made equal to those of {}.\n\
         {}",
        if others.is_empty() { "the other node".to_owned() } else { others.join(", ") },
        if discard {
            format!("What only {node} has will be lost, and nothing of it is kept.")
        } else {
            format!(
                "What {node} acknowledged alone is kept apart first (safectl conflicts list {module}); other files that \
                 only it has will be lost."
            )
        }
    )
}

/// What `data unlock` means for the copy.
pub(super) fn of_unlock(module: &str, before: &[Entry], node: &str) -> String {
    let mut text = format!(
        "data unlock: until {module} is started on {node} again, anybody who may can change its directories there.\n\
         Its copy counts as edited: it is never served by itself, nor a source. When {module} starts there it is \
         compared in full with the other node and made equal to it: what was changed is lost with that.\n\
         To serve what was changed instead: safectl prim {module} --on {node} --force"
    );
    if find(before, node).is_some_and(|entry| entry.data.uptodate == Some(true)) {
        text.push_str(&format!(
            "\n{node} HOLDS THE NEWEST DATA: no other node has them. A person will have to choose which copy counts."
        ));
    }
    text
}

/// Loss of a `stop` where the other node cannot take over yet.
pub(super) fn of_gap(module: &str, leaving: &Entry, other: &Entry) -> String {
    let (node, other) = (&leaving.node, (&other.node, other.state_and_phase()));
    format!(
        "The service of {module} ends: {} is {} and cannot take over yet.\n\
         To keep it, wait first: safectl wait {module} --on {} --state SECOND/ready\n\
         It will serve again after: safectl start {module} --on {node}",
        other.0, other.1, other.0
    )
}

fn copy(entry: &Entry) -> String {
    if entry.data.consistent == Some(false) {
        return "it is INCONSISTENT: a resync was broken off, or a disk failed; the application may not start on it"
            .to_owned();
    }
    match entry.data.last_paired.rfc3339() {
        Some(_) => format!("it was last in step at {} UTC", entry.data.last_paired.short()),
        None => "it never was in step with another".to_owned(),
    }
}
