//! What stands in the way of `prim` and `second`: found out before anything is threatened or asked.

use crate::error::Failure;
use crate::goal::find;
use crate::status::{Entry, State};

/// `prim`, forced or not, cannot make a node serve beside one that serves.
pub(super) fn of_prim(module: &str, before: &[Entry], node: &str) -> Result<(), Failure> {
    let Some(entry) = find(before, node).filter(|entry| !entry.state.serves()) else { return Ok(()) };
    let Some(other) = before.iter().find(|other| other.node != node && other.state.serves()) else {
        return Ok(());
    };
    let serves = format!("{} serves {module} and {node} is {}", other.node, entry.state_and_phase());
    let failure = Failure::condition(serves).cause("at most one node serves; nothing was done");
    Err(match entry.state {
        State::Second if entry.is_ready() => failure.hint(format!("safectl swap {module}")),
        State::Second => failure
            .hint(format!("safectl wait {module} --on {node} --state SECOND/ready && safectl swap {module}")),
        State::Wait if entry.awaits_person() => failure.hint(entry.hint.clone().unwrap_or_default()),
        State::Stop | State::Wait | State::Alone | State::Prim | State::Up | State::Unknown => failure.hint(
            format!("to serve on {node}: safectl start {module} --on {node}, then safectl swap {module}"),
        ),
    })
}

/// `second`, forced or not, is for a node that does not serve.
pub(super) fn of_second(module: &str, before: &[Entry], node: &str) -> Result<(), Failure> {
    let Some(entry) = find(before, node).filter(|entry| entry.state.serves()) else { return Ok(()) };
    let other = before.iter().find(|other| other.node != node);
    let failure = Failure::condition(format!("{node} serves {module}: it is {}", entry.state_and_phase()))
        .cause("a node that serves cannot become SECOND; nothing was done");
    Err(match other {
        Some(other) if other.state.serves() => failure.hint(format!(
            "to give up what only {node} has: safectl stop {module} --on {node} && safectl second {module} --on {node} --force"
        )),
        Some(other) if other.state == State::Second && other.is_ready() => {
            failure.hint(format!("to exchange roles: safectl swap {module}"))
        }
        Some(_) | None => failure.hint(format!("safectl status {module}")),
    })
}

/// `data unlock` is for a node on which the module is stopped.
pub(super) fn of_unlock(module: &str, before: &[Entry], node: &str) -> Result<(), Failure> {
    match find(before, node) {
        Some(entry) if !matches!(entry.state, State::Stop | State::Unknown) => Err(Failure::condition(
            format!("{module} is not stopped on {node}: it is {}", entry.state_and_phase()),
        )
        .cause("what is changed behind its back would make the copies differ; nothing was done")
        .hint(format!("safectl stop {module} --on {node}"))),
        Some(_) | None => Ok(()),
    }
}
