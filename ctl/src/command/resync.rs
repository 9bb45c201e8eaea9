//! `safectl resync`: holding the work of a resynchronisation back for a while.

use std::time::Duration;

use clap::{Args, Subcommand};
use safe_proto::module::{Command, ControlModuleRequest, Outcome};
use safe_proto::spec::quantity;

use super::control::{OutcomeView, none_accepted, require_entries};
use crate::cli;
use crate::client::Client;
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::output;

/// Commands about resynchronisations.
#[derive(Debug, Subcommand)]
pub(crate) enum ResyncCommand {
    /// Hold the resyncs of a module back; they go on by themselves after a while
    Pause(PauseArgs),
    /// Let them go on
    Resume(ResumeArgs),
}

/// Arguments of `resync pause`.
#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    /// Module
    module: String,
    /// Go on by itself after this time: 1s to 7d
    #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = quantity::parse_duration)]
    time: Duration,
}

/// Arguments of `resync resume`.
#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    /// Module
    module: String,
}

pub(crate) async fn run(context: &Context, command: ResyncCommand) -> Result<Exit, Failure> {
    match command {
        ResyncCommand::Pause(args) => {
            let seconds = cli::within_a_week(args.time, 1, "--for is 1s to 7d")?;
            order(context, args.module, Command::PauseResync, seconds).await
        }
        ResyncCommand::Resume(args) => order(context, args.module, Command::ResumeResync, 0).await,
    }
}

/// Said to all nodes of the module: whichever is the source of a resync holds it back.
async fn order(context: &Context, module: String, command: Command, seconds: u32) -> Result<Exit, Failure> {
    let client = Client::connect(context).await?;
    let entries = require_entries(&client, &module).await?;
    let request = ControlModuleRequest {
        name: module.clone(),
        command: command.into(),
        seconds,
        ..ControlModuleRequest::default()
    };
    let answer = client.call(client.modules().control_module(request)).await?;
    let (accepted, refused): (Vec<Outcome>, Vec<Outcome>) =
        answer.outcomes.into_iter().partition(|outcome| outcome.accepted);
    if accepted.is_empty() {
        return Err(none_accepted(&module, &refused));
    }
    for outcome in &accepted {
        output::note(&outcome.message);
    }
    let runs = entries.iter().any(|entry| entry.data.resync.is_some());
    if command == Command::PauseResync {
        output::note(if runs {
            "until it has ended there is no second copy that could take over"
        } else {
            "no resync runs now: one that begins meanwhile waits, and until it has ended there is no second copy"
        });
    }
    // Where it is stopped there is nothing to hold back.
    for outcome in refused.iter().filter(|outcome| !outcome.message.is_empty()) {
        output::note(&outcome.message);
    }
    if !context.is_table() {
        let views: Vec<OutcomeView> = accepted.into_iter().chain(refused).map(Into::into).collect();
        context.printer.text(&views, "")?;
    }
    Ok(Exit::Done)
}
