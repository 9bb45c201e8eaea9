//! `safectl wait`

use clap::Args;

use super::control::{nodes_on, require_entries};
use crate::cli::OnArgs;
use crate::client::Client;
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::follow;
use crate::goal::Goal;
use crate::status::{Phase, State};

/// Arguments of `wait`.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// Module
    module: String,
    /// State, or STATE/PHASE, or several: PRIM,ALONE
    #[arg(long, required = true, value_name = "STATE", value_delimiter = ',', value_parser = state)]
    state: Vec<(State, Option<Phase>)>,
    #[command(flatten)]
    on: OnArgs,
}

/// Waits until one of the nodes is in one of the states.
pub(crate) async fn run(context: &Context, args: WaitArgs) -> Result<Exit, Failure> {
    if context.wait.is_none() {
        return Err(Failure::usage("wait with --no-wait does nothing"));
    }
    let client = Client::connect(context).await?;
    let before = require_entries(&client, &args.module).await?;
    let mut nodes = nodes_on(&args.on, &args.module, &before)?;
    if nodes.is_empty() {
        nodes = before.iter().map(|entry| entry.node.clone()).collect();
    }
    let goal = Goal::Is { states: args.state, nodes };
    let entries = follow::until(context, client, &args.module, goal, &before).await?;
    super::control::finish(context, &args.module, &entries)
}

fn state(text: &str) -> Result<(State, Option<Phase>), String> {
    let upper = text.to_ascii_uppercase();
    let (state, phase) = match upper.split_once('/') {
        Some((state, phase)) => (state, Some(phase)),
        None => (upper.as_str(), None),
    };
    let all = [State::Stop, State::Wait, State::Alone, State::Prim, State::Second, State::Up, State::Unknown];
    let state = all
        .into_iter()
        .find(|one| one.name() == state)
        .ok_or_else(|| "a state is STOP, WAIT, ALONE, PRIM, SECOND, UP or UNKNOWN".to_owned())?;
    let phase = match phase {
        None => None,
        Some("READY") => Some(Phase::Ready),
        Some("TRANSIENT") => Some(Phase::Transient),
        Some("BLOCKED") => Some(Phase::Blocked),
        Some(_) => return Err("a phase is ready, transient or blocked".to_owned()),
    };
    Ok((state, phase))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states() {
        assert_eq!(state("prim"), Ok((State::Prim, None)));
        assert_eq!(state("SECOND/ready"), Ok((State::Second, Some(Phase::Ready))));
        assert!(state("PRIMARY").is_err());
        assert!(state("PRIM/x").is_err());
    }
}
