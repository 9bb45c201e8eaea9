//! Commands to modules: on this node, or passed on to the nodes they are for.

use std::time::Duration;

use futures_util::future::join_all;
use safe_failover::event::Command as Core;
use safe_proto::module::{
    Command, ControlModuleRequest, ControlModuleResponse, ModuleStatus, Outcome, State,
};
use tokio::time::{Instant, sleep};
use tonic::Status;

use super::node_service::on_behalf;
use super::{Desk, refuse, status, validate};
use crate::peer::catch_up::is_serving;
use crate::peer::nodes::bounded;

/// For a node to accept a command.
const PATIENCE: Duration = Duration::from_secs(25);
/// How long `shutdown` waits for those that do not serve before it stops the one that does.
const SECOND_FIRST: Duration = Duration::from_secs(20);
/// Between two looks meanwhile.
const GLANCE: Duration = Duration::from_millis(100);

/// See `ModuleService.ControlModule`.
pub(super) async fn control(
    desk: &Desk,
    caller: &str,
    request: ControlModuleRequest,
) -> Result<ControlModuleResponse, Status> {
    let command = validate::control(&request)?;
    let own = desk.own()?;
    if request.local {
        let message = here(desk, caller, command, &request).await?;
        return Ok(ControlModuleResponse { outcomes: vec![Outcome { node: own, accepted: true, message }] });
    }
    let module = status::locate(desk, &request.name).await?;
    if let Some(stranger) = request.nodes.iter().find(|node| !module.nodes.contains(node)) {
        return Err(Status::invalid_argument(format!(
            "module {} is not on node {stranger}: its nodes are {}",
            module.name,
            module.nodes.join(", ")
        )));
    }
    let order = Order { desk, own: &own, caller, command, request: &request };
    let outcomes = if command == Command::Shutdown {
        order.shutdown(&module.nodes).await?
    } else if !request.nodes.is_empty() {
        order.on(&request.nodes).await
    } else if matches!(command, Command::Restart | Command::Swap | Command::Verify) {
        order.on(&serving(desk, &request.name).await?).await
    } else {
        order.on(&module.nodes).await
    };
    answer(outcomes)
}

/// One node's outcome.
type Given = (String, Result<String, Status>);

/// Accepted by any is accepted; refused by all is the first refusal.
fn answer(given: Vec<Given>) -> Result<ControlModuleResponse, Status> {
    let accepted = given.iter().any(|(_, outcome)| outcome.is_ok());
    let mut outcomes = Vec::new();
    for (node, outcome) in given {
        match outcome {
            Ok(message) => outcomes.push(Outcome { node, accepted: true, message }),
            Err(status) if accepted => {
                outcomes.push(Outcome { node, accepted: false, message: status.message().to_owned() });
            }
            Err(status) => return Err(status),
        }
    }
    Ok(ControlModuleResponse { outcomes })
}

async fn here(
    desk: &Desk,
    caller: &str,
    asked: Command,
    request: &ControlModuleRequest,
) -> Result<String, Status> {
    let command = match asked {
        Command::Start => Core::Start,
        Command::Stop | Command::Shutdown => Core::Stop,
        Command::Stopstart => Core::StopStart,
        Command::Restart => Core::Restart,
        Command::Swap => Core::Swap,
        Command::Verify => Core::Verify { repair: request.repair },
        Command::Unlock => Core::Unlock,
        Command::PauseResync | Command::ResumeResync => {
            let outcome = desk.context.node.pause_resync(&request.name, request.seconds).await;
            return ordered(desk, caller, asked, request, outcome.map_err(refuse)?);
        }
        Command::Prim => Core::Prim { force: request.force },
        Command::Second => {
            Core::Second { full: request.full, force: request.force, discard: request.discard }
        }
        Command::Unspecified => return Err(Status::invalid_argument("the command is missing")),
    };
    let outcome = desk.context.node.control(&request.name, command).await.map_err(refuse)?;
    ordered(desk, caller, asked, request, outcome)
}

/// What a person asked for belongs to what was decided here, and why.
fn ordered(
    desk: &Desk,
    caller: &str,
    asked: Command,
    request: &ControlModuleRequest,
    outcome: String,
) -> Result<String, Status> {
    let text = format!("{} was ordered by {caller:.200}", verb(asked, request));
    desk.context.events.record(&request.name, false, &text);
    Ok(outcome)
}

/// The command as it is typed.
fn verb(command: Command, request: &ControlModuleRequest) -> String {
    let typed = if command == Command::Unlock {
        "data unlock".to_owned()
    } else if command == Command::PauseResync {
        format!("resync pause --for {}s", request.seconds)
    } else if command == Command::ResumeResync {
        "resync resume".to_owned()
    } else {
        word(command)
    };
    flags(request).fold(typed, |text, flag| format!("{text} --{flag}"))
}

/// The flags that are set, by name.
pub(super) fn flags(request: &ControlModuleRequest) -> impl Iterator<Item = &'static str> {
    let flags = [
        (request.force, "force"),
        (request.full, "full"),
        (request.discard, "discard"),
        (request.repair, "repair"),
    ];
    flags.into_iter().filter(|(set, _)| *set).map(|(_, flag)| flag)
}

/// The name of a command.
pub(super) fn word(command: Command) -> String {
    command.as_str_name().trim_start_matches("COMMAND_").to_lowercase()
}

async fn serving(desk: &Desk, name: &str) -> Result<Vec<String>, Status> {
    let statuses = status::everywhere(desk, name).await?.modules;
    let serving: Vec<String> =
        statuses.iter().filter(|one| is_serving(one.state())).map(|one| one.node.clone()).collect();
    if serving.is_empty() {
        return Err(Status::failed_precondition(format!(
            "module {name} serves on no node that answers: `safectl status {name}` shows why, `safectl start {name}` starts it"
        )));
    }
    Ok(serving)
}

struct Order<'a> {
    desk: &'a Desk,
    own: &'a str,
    caller: &'a str,
    command: Command,
    request: &'a ControlModuleRequest,
}

impl Order<'_> {
    /// To these nodes at the same time.
    async fn on(&self, nodes: &[String]) -> Vec<Given> {
        let outcomes = join_all(nodes.iter().map(|node| self.to(node))).await;
        nodes.iter().cloned().zip(outcomes).collect()
    }

    async fn to(&self, node: &str) -> Result<String, Status> {
        if node == self.own {
            return here(self.desk, self.caller, self.command, self.request).await;
        }
        let mut client = self.desk.nodes.modules(node).await?;
        let message = ControlModuleRequest {
            command: self.command.into(),
            nodes: vec![node.to_owned()],
            local: true,
            ..self.request.clone()
        };
        let mut request = on_behalf(self.caller, message);
        request.set_timeout(PATIENCE);
        let answer = bounded(node, PATIENCE, client.control_module(request)).await?;
        Ok(answer.outcomes.into_iter().next().map(|outcome| outcome.message).unwrap_or_default())
    }

    /// Those that do not serve first: the serving node must not hand over to one that is about to stop.
    async fn shutdown(&self, nodes: &[String]) -> Result<Vec<Given>, Status> {
        let wanted = if self.request.nodes.is_empty() { nodes } else { &self.request.nodes };
        let statuses = status::everywhere(self.desk, &self.request.name).await?.modules;
        let serves = |node: &String| statuses.iter().any(|one| one.node == *node && is_serving(one.state()));
        let (last, first): (Vec<String>, Vec<String>) = wanted.iter().cloned().partition(serves);
        let mut given = self.on(&first).await;
        let stopping: Vec<&String> =
            given.iter().filter(|(_, outcome)| outcome.is_ok()).map(|(node, _)| node).collect();
        if !last.is_empty() {
            self.wait_for(&stopping).await;
        }
        given.extend(self.on(&last).await);
        Ok(given)
    }

    async fn wait_for(&self, stopping: &[&String]) {
        let deadline = Instant::now() + SECOND_FIRST;
        let runs = |one: &ModuleStatus| stopping.contains(&&one.node) && one.state() != State::Stop;
        while Instant::now() < deadline {
            match status::everywhere(self.desk, &self.request.name).await {
                Ok(answer) if answer.modules.iter().any(runs) => sleep(GLANCE).await,
                Ok(_) | Err(_) => return,
            }
        }
    }
}
