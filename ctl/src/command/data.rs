//! `safectl data`: the replicated directories of a module on a node.

use clap::{Args, Subcommand};

use super::control;
use crate::context::Context;
use crate::error::{Exit, Failure};

/// Commands about data.
#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Take the read-only cover off the directories of a stopped module, to repair them by hand
    Unlock(UnlockArgs),
}

/// Arguments of `data unlock`.
#[derive(Debug, Args)]
pub(crate) struct UnlockArgs {
    /// Module
    pub(super) module: String,
    /// Node
    #[arg(long, value_name = "NODE", required = true)]
    pub(super) on: String,
}

pub(crate) async fn run(context: &Context, command: DataCommand) -> Result<Exit, Failure> {
    match command {
        DataCommand::Unlock(args) => control::unlock(context, args).await,
    }
}
