//! What is done: one file for each noun.

use crate::cli::Command;
use crate::context::Context;
use crate::error::{Exit, Failure};

pub(crate) mod cluster;
pub(crate) mod conflicts;
pub(crate) mod control;
pub(crate) mod data;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod help;
pub(crate) mod log;
pub(crate) mod module;
pub(crate) mod resync;
pub(crate) mod rules;
pub(crate) mod simulate;
pub(crate) mod status;
pub(crate) mod verify;
pub(crate) mod version;
pub(crate) mod wait;
pub(crate) mod witness;

/// Runs a command.
pub(crate) async fn run(context: &Context, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Cluster(command) => cluster::run(context, command).await,
        Command::Module(command) => module::run(context, command).await,
        Command::Witness(command) => witness::run(context, command).await,
        Command::Data(command) => data::run(context, command).await,
        Command::Start(args) => control::start(context, args).await,
        Command::Shutdown(args) => control::shutdown(context, args).await,
        Command::Stop(args) => control::stop(context, args).await,
        Command::Stopstart(args) => control::stopstart(context, args).await,
        Command::Restart(args) => control::restart(context, args).await,
        Command::Swap(args) => control::swap(context, args).await,
        Command::Verify(args) => verify::run(context, args).await,
        Command::Resync(command) => resync::run(context, command).await,
        Command::Prim(args) => control::prim(context, args).await,
        Command::Second(args) => control::second(context, args).await,
        Command::Conflicts(command) => conflicts::run(context, command).await,
        Command::Status(args) => status::run(context, args).await,
        Command::Events(args) => events::run(context, args).await,
        Command::Explain(args) => explain::run(context, args).await,
        Command::Rules(args) => rules::list(context, args).await,
        Command::Set(args) => rules::set(context, args).await,
        Command::Simulate(args) => simulate::run(context, &args),
        Command::Log(args) => log::run(context, args).await,
        Command::Wait(args) => wait::run(context, args).await,
        Command::Version => version::run(context).await,
        Command::Help(args) => help::run(context, &args),
    }
}
