//! What can be typed: raw arguments. `context` makes sense of them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use safe_proto::spec::quantity;

use crate::command::{
    cluster, conflicts, control, data, events, explain, help, log, module, resync, rules, simulate, status,
    verify, wait, witness,
};
use crate::error::Failure;

/// The command line of safed: high availability for ordinary applications on two servers.
#[derive(Debug, Parser)]
#[command(
    name = "safectl",
    version,
    disable_help_subcommand = true,
    propagate_version = false,
    max_term_width = 100,
    after_help = "Exit codes: 0 done, 1 condition not met or a person is awaited, 2 failed, 64 wrong usage.\n\
                  The user guide is built in: safectl help"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// Directory of the safed to talk to, if it was started with --root [env: SAFED_ROOT]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Talk to a safed elsewhere: https://HOST:9400; needs --cert, --key and --ca
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) endpoint: Option<String>,
    /// Client certificate, PEM
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Certificate of the cluster's CA, PEM
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Form of the output
    #[arg(long, short, global = true, value_name = "FORMAT", value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    /// No colours (also: NO_COLOR=1, or when the output is not a terminal)
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
    /// Longest wait for a connection or an answer
    #[arg(long, global = true, value_name = "TIME", default_value = "30s", value_parser = quantity::parse_duration)]
    pub(crate) timeout: Duration,
    /// Wait until the state is reached (ready, the default) or the copies are in step (synced)
    #[arg(
        long, global = true, value_name = "UNTIL", value_enum, num_args = 0..=1, require_equals = true,
        default_missing_value = "ready"
    )]
    pub(crate) wait: Option<Until>,
    /// Return as soon as the command was accepted
    #[arg(long, global = true)]
    pub(crate) no_wait: bool,
    /// Longest wait for a state
    #[arg(long, global = true, value_name = "TIME", default_value = "10m", value_parser = quantity::parse_duration)]
    pub(crate) wait_timeout: Duration,
    /// Do not ask before something is lost
    #[arg(long, global = true)]
    pub(crate) yes: bool,
}

/// Forms of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For programs; field names are stable, see: safectl help json
    Json,
    /// The same as YAML
    Yaml,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Until {
    /// The state is reached; a SECOND that still synchronises counts
    Ready,
    /// The copies are in step
    Synced,
}

/// A time in seconds, from `least` to seven days.
///
/// # Errors
/// What is allowed.
pub(crate) fn within_a_week(time: Duration, least: u32, allowed: &str) -> Result<u32, Failure> {
    let seconds = u32::try_from(time.as_secs()).ok();
    seconds.filter(|seconds| (least..=604_800).contains(seconds)).ok_or_else(|| Failure::usage(allowed))
}

/// Which nodes a command is about.
#[derive(Debug, Args)]
pub(crate) struct OnArgs {
    /// Nodes: NODE, NODE,NODE or '*' for all of the module
    #[arg(long, value_name = "NODE", value_delimiter = ',')]
    pub(crate) on: Vec<String>,
}

/// Commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make, join and see the cluster
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Check, install, list and remove modules
    #[command(subcommand)]
    Module(module::ModuleCommand),
    /// Third machines that decide which node serves when the nodes do not hear each other
    #[command(subcommand)]
    Witness(witness::WitnessCommand),
    /// The replicated directories of a module on a node
    #[command(subcommand)]
    Data(data::DataCommand),
    /// Start a module, on all its nodes by default
    Start(control::StartArgs),
    /// Stop a module on all its nodes, the following node first
    Shutdown(control::ShutdownArgs),
    /// Stop a module on a node; the other node takes over if it can
    Stop(control::StopArgs),
    /// Stop, then start a module on a node; if it served, either node may serve then
    Stopstart(control::StopArgs),
    /// Restart the application where it runs; roles stay
    Restart(control::RestartArgs),
    /// Exchange the roles of the two nodes
    Swap(control::SwapArgs),
    /// Compare both copies of a module by content while its application runs
    Verify(verify::VerifyArgs),
    /// Hold the resyncs of a module back for a while, or let them go on
    #[command(subcommand)]
    Resync(resync::ResyncCommand),
    /// Start a module as primary on a node
    Prim(control::PrimArgs),
    /// Start a module as secondary on a node
    Second(control::SecondArgs),
    /// What a copy alone held when the other one took its place: list, show, restore, discard
    #[command(subcommand)]
    Conflicts(conflicts::ConflictsCommand),
    /// State of modules on all their nodes
    Status(status::StatusArgs),
    /// What was decided on this node, and why
    Events(events::EventsArgs),
    /// Why a module is in its state on this node, and what would happen if something failed now
    Explain(explain::ExplainArgs),
    /// Failover rules of a module, and the resources they compare, on this node
    Rules(rules::RulesArgs),
    /// Set a resource of a module on this node, as a checker would
    Set(rules::SetArgs),
    /// Play a story of failures on the decisions of safed, without any node: what would happen?
    Simulate(simulate::SimulateArgs),
    /// Output of a module's scripts on this node
    Log(log::LogArgs),
    /// Wait until a module is in a state
    Wait(wait::WaitArgs),
    /// Versions of safectl and safed
    Version,
    /// The user guide: a page by its topic, or a command's options
    Help(help::HelpArgs),
}
