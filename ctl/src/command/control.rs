//! Commands that move a module: `start`, `stop`, `swap` and their like.

use clap::Args;
use safe_proto::module::{Command, ControlModuleRequest, ListModulesRequest, Outcome};
use serde::Serialize;

use super::data::UnlockArgs;
use crate::cli::OnArgs;
use crate::client::Client;
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::goal::{Goal, find};
use crate::status::{Entry, State};
use crate::{follow, forecast, output};

pub(super) mod confirm;
mod obstacle;

/// Arguments of `start`.
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// Module
    module: String,
    #[command(flatten)]
    on: OnArgs,
}

/// Arguments of `shutdown`.
#[derive(Debug, Args)]
pub(crate) struct ShutdownArgs {
    /// Module
    module: String,
}

/// Arguments of `stop` and `stopstart`.
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// Module
    module: String,
    /// Nodes: NODE, NODE,NODE or '*' for all of the module
    #[arg(long, value_name = "NODE", value_delimiter = ',', required = true)]
    on: Vec<String>,
}

/// Arguments of `restart`.
#[derive(Debug, Args)]
pub(crate) struct RestartArgs {
    /// Module
    module: String,
    #[command(flatten)]
    on: OnArgs,
}

/// Arguments of `swap`.
#[derive(Debug, Args)]
pub(crate) struct SwapArgs {
    /// Module
    module: String,
}

/// Arguments of `prim`.
#[derive(Debug, Args)]
pub(crate) struct PrimArgs {
    /// Module
    module: String,
    /// Node
    #[arg(long, value_name = "NODE", required = true)]
    on: String,
    /// Although its copy may be stale: what only the other node has will be lost
    #[arg(long)]
    force: bool,
}

/// Arguments of `second`.
#[derive(Debug, Args)]
pub(crate) struct SecondArgs {
    /// Module
    module: String,
    /// Node
    #[arg(long, value_name = "NODE", required = true)]
    on: String,
    /// Compare both copies in full
    #[arg(long)]
    full: bool,
    /// Although its copy has changes of its own: it is made equal to the other one, what it alone holds is kept apart
    #[arg(long)]
    force: bool,
    /// With --force: nothing of that is kept
    #[arg(long, requires = "force")]
    discard: bool,
}

pub(crate) async fn start(context: &Context, args: StartArgs) -> Result<Exit, Failure> {
    let mut errand = Errand::begin(context, args.module).await?;
    errand.nodes = nodes_on(&args.on, &errand.module, &errand.before)?;
    errand.run(Command::Start, Goal::Runs).await
}

pub(crate) async fn shutdown(context: &Context, args: ShutdownArgs) -> Result<Exit, Failure> {
    let errand = Errand::begin(context, args.module).await?;
    let all: Vec<String> = errand.before.iter().map(|entry| entry.node.clone()).collect();
    output::note(&forecast::after_stop(&errand.module, &errand.before, &all));
    errand.run(Command::Shutdown, Goal::Stopped).await
}

pub(crate) async fn stop(context: &Context, args: StopArgs) -> Result<Exit, Failure> {
    let errand = taken_away(context, args).await?;
    output::note(&forecast::after_stop(&errand.module, &errand.before, &errand.nodes));
    if let Some((leaving, other)) = forecast::gap(&errand.before, &errand.nodes) {
        confirm::ask(context, &confirm::of_gap(&errand.module, leaving, other))?;
    }
    errand.run(Command::Stop, Goal::Stopped).await
}

pub(crate) async fn stopstart(context: &Context, args: StopArgs) -> Result<Exit, Failure> {
    let errand = taken_away(context, args).await?;
    output::note(&forecast::after_stopstart(&errand.module, &errand.before, &errand.nodes));
    errand.run(Command::Stopstart, Goal::RunsAgain).await
}

async fn taken_away(context: &Context, args: StopArgs) -> Result<Errand<'_>, Failure> {
    let mut errand = Errand::begin(context, args.module).await?;
    errand.nodes = nodes_on(&OnArgs { on: args.on }, &errand.module, &errand.before)?;
    Ok(errand)
}

pub(crate) async fn restart(context: &Context, args: RestartArgs) -> Result<Exit, Failure> {
    let mut errand = Errand::begin(context, args.module).await?;
    errand.nodes = nodes_on(&args.on, &errand.module, &errand.before)?;
    if errand.nodes.is_empty() {
        errand.serving()?;
    }
    errand.run(Command::Restart, Goal::RunsOn).await
}

pub(crate) async fn swap(context: &Context, args: SwapArgs) -> Result<Exit, Failure> {
    let errand = Errand::begin(context, args.module).await?;
    let serving = errand.serving()?;
    let [from] = serving.as_slice() else {
        return Err(Failure::failed(format!(
            "{}: {} serve at the same time, so roles cannot be exchanged",
            errand.module,
            serving.join(" and ")
        ))
        .hint("safectl help isolation"));
    };
    let other = errand.before.iter().find(|entry| entry.node != *from);
    let Some(to) = other.map(|entry| entry.node.clone()) else {
        return Err(Failure::failed(format!("{} has no other node", errand.module)));
    };
    output::note(&forecast::after_swap(&errand.module, &errand.before, from, &to));
    let goal = Goal::Swapped { from: from.clone(), to };
    errand.run(Command::Swap, |_| goal).await
}

pub(crate) async fn prim(context: &Context, args: PrimArgs) -> Result<Exit, Failure> {
    let mut errand = Errand::begin(context, args.module).await?;
    errand.one_node(&args.on)?;
    errand.force = args.force;
    obstacle::of_prim(&errand.module, &errand.before, &args.on)?;
    let serves = find(&errand.before, &args.on).is_some_and(|entry| entry.state.serves());
    if args.force && !serves {
        confirm::ask(context, &confirm::of_prim(&errand.module, &errand.before, &args.on))?;
    }
    errand.run(Command::Prim, |_| Goal::Serves(args.on)).await
}

pub(crate) async fn second(context: &Context, args: SecondArgs) -> Result<Exit, Failure> {
    let mut errand = Errand::begin(context, args.module).await?;
    errand.one_node(&args.on)?;
    errand.force = args.force;
    errand.full = args.full;
    errand.discard = args.discard;
    obstacle::of_second(&errand.module, &errand.before, &args.on)?;
    let follows = find(&errand.before, &args.on).is_some_and(|entry| entry.state == State::Second);
    if args.force && !follows {
        confirm::ask(context, &confirm::of_second(&errand.module, &errand.before, &args.on, args.discard))?;
    }
    errand.run(Command::Second, |_| Goal::Follows(args.on)).await
}

pub(crate) async fn unlock(context: &Context, args: UnlockArgs) -> Result<Exit, Failure> {
    let mut errand = Errand::begin(context, args.module).await?;
    errand.one_node(&args.on)?;
    obstacle::of_unlock(&errand.module, &errand.before, &args.on)?;
    confirm::ask(context, &confirm::of_unlock(&errand.module, &errand.before, &args.on))?;
    errand.run(Command::Unlock, Goal::Stopped).await
}

/// One command on its way.
struct Errand<'a> {
    context: &'a Context,
    client: Client,
    module: String,
    before: Vec<Entry>,
    nodes: Vec<String>,
    force: bool,
    full: bool,
    discard: bool,
}

impl<'a> Errand<'a> {
    async fn begin(context: &'a Context, module: String) -> Result<Self, Failure> {
        let client = Client::connect(context).await?;
        let before = require_entries(&client, &module).await?;
        Ok(Self {
            context,
            client,
            module,
            before,
            nodes: Vec::new(),
            force: false,
            full: false,
            discard: false,
        })
    }

    fn one_node(&mut self, node: &str) -> Result<(), Failure> {
        let nodes = nodes_on(&OnArgs { on: vec![node.to_owned()] }, &self.module, &self.before)?;
        if node == "*" || nodes.len() != 1 {
            return Err(Failure::usage("this command is about one node: --on NODE"));
        }
        self.nodes = nodes;
        Ok(())
    }

    /// Nodes that serve; there must be one.
    fn serving(&self) -> Result<Vec<String>, Failure> {
        let serving = self.before.iter().filter(|entry| entry.state.serves());
        let nodes: Vec<String> = serving.map(|entry| entry.node.clone()).collect();
        if nodes.is_empty() {
            let states: Vec<String> = self
                .before
                .iter()
                .map(|entry| format!("{} is {}", entry.node, entry.state_and_phase()))
                .collect();
            return Err(Failure::failed(format!("{} serves nowhere: {}", self.module, states.join(", ")))
                .hint(format!("safectl start {0}; safectl status {0}", self.module)));
        }
        Ok(nodes)
    }

    /// Gives the command and follows the module until it is where the command leads.
    async fn run(self, command: Command, goal: impl FnOnce(Vec<String>) -> Goal) -> Result<Exit, Failure> {
        let request = ControlModuleRequest {
            name: self.module.clone(),
            command: command.into(),
            nodes: self.nodes.clone(),
            force: self.force,
            full: self.full,
            discard: self.discard,
            ..ControlModuleRequest::default()
        };
        let answer = self.client.call(self.client.modules().control_module(request)).await?;
        let (accepted, refused): (Vec<Outcome>, Vec<Outcome>) =
            answer.outcomes.into_iter().partition(|outcome| outcome.accepted);
        // Where the command is followed, the states tell what becomes of it.
        let silent = self.context.wait.is_some();
        let told = accepted.iter().chain(&refused).filter(|_| !silent);
        for outcome in told.filter(|outcome| !outcome.message.is_empty()) {
            output::note(&format!("{}: {}", outcome.node, outcome.message));
        }
        if accepted.is_empty() {
            return Err(none_accepted(&self.module, &refused));
        }
        if self.context.wait.is_none() {
            let verdict = not_taken(&self.module, &refused);
            let views: Vec<OutcomeView> = accepted.into_iter().chain(refused).map(Into::into).collect();
            if !self.context.is_table() {
                self.context.printer.text(&views, "")?;
            }
            return verdict.map_or(Ok(Exit::Done), Err);
        }
        let goal = goal(accepted.into_iter().map(|outcome| outcome.node).collect());
        let entries = follow::until(self.context, self.client, &self.module, goal, &self.before).await?;
        finish(self.context, &self.module, &entries)?;
        not_taken(&self.module, &refused).map_or(Ok(Exit::Done), Err)
    }
}

/// The documented JSON of a command with `--no-wait`.
#[derive(Debug, Serialize)]
pub(super) struct OutcomeView {
    node: String,
    accepted: bool,
    message: String,
}

impl From<Outcome> for OutcomeView {
    fn from(outcome: Outcome) -> Self {
        Self { node: outcome.node, accepted: outcome.accepted, message: outcome.message }
    }
}

/// Some nodes took the command, these did not.
fn not_taken(module: &str, refused: &[Outcome]) -> Option<Failure> {
    let nodes: Vec<&str> = refused.iter().map(|outcome| outcome.node.as_str()).collect();
    let why: Vec<&str> = refused
        .iter()
        .map(|outcome| outcome.message.as_str())
        .filter(|message| !message.is_empty())
        .collect();
    let failure = Failure::condition(format!("{} did not take the command", nodes.join(", ")));
    let failure = if why.is_empty() { failure } else { failure.cause(why.join("; ")) };
    (!nodes.is_empty()).then(|| failure.hint(format!("safectl status {module}")))
}

pub(super) fn none_accepted(module: &str, refused: &[Outcome]) -> Failure {
    match refused {
        [] => Failure::failed(format!("no node of {module} took the command")),
        [one] => Failure::failed(format!("{} did not take the command", one.node)).cause(&one.message),
        many => {
            let nodes: Vec<&str> = many.iter().map(|outcome| outcome.node.as_str()).collect();
            Failure::failed(format!("{} did not take the command", nodes.join(", ")))
        }
    }
    .hint(format!("safectl status {module}"))
}

/// Says where the module is now; for programs its status.
pub(crate) fn finish(context: &Context, module: &str, entries: &[Entry]) -> Result<Exit, Failure> {
    if !context.is_table() {
        context.printer.text(entries, "")?;
        return Ok(Exit::Done);
    }
    let states: Vec<String> =
        entries.iter().map(|entry| format!("{} {}", entry.node, entry.state.name())).collect();
    output::note(&format!("{module}: {}", states.join(", ")));
    let syncing = entries.iter().find(|entry| entry.state == State::Second && !entry.is_ready());
    if let Some(entry) = syncing {
        let node = &entry.node;
        output::note(&format!(
            "{node} is being brought in step; to wait for it: safectl wait {module} --on {node} --state SECOND/ready"
        ));
    }
    Ok(Exit::Done)
}

/// Status of a module that must exist.
pub(crate) async fn require_entries(client: &Client, module: &str) -> Result<Vec<Entry>, Failure> {
    let entries = follow::status(client, module).await?;
    if !entries.is_empty() {
        return Ok(entries);
    }
    let installed = client.call(client.modules().list_modules(ListModulesRequest {})).await?;
    let names: Vec<String> = installed.modules.into_iter().map(|module| module.name).collect();
    let failure = Failure::failed(format!("there is no module \"{module}\""));
    Err(if names.is_empty() {
        failure.cause("no module is installed").hint("safectl module install DIR")
    } else {
        failure.cause(format!("installed: {}", names.join(", "))).hint("safectl module list")
    })
}

/// The nodes named by `--on`: empty if it was not given, all for `*`.
pub(crate) fn nodes_on(on: &OnArgs, module: &str, entries: &[Entry]) -> Result<Vec<String>, Failure> {
    let mut known: Vec<String> = Vec::new();
    for entry in entries {
        if !known.contains(&entry.node) {
            known.push(entry.node.clone());
        }
    }
    if on.on.iter().any(|node| node == "*") {
        return Ok(known);
    }
    match on.on.iter().find(|node| !known.contains(node)) {
        Some(stranger) => Err(Failure::failed(format!("{module} does not live on \"{stranger}\""))
            .cause(format!("its nodes are {}", known.join(", ")))),
        None => Ok(known.into_iter().filter(|node| on.on.contains(node)).collect()),
    }
}
