//! Everything requests may say, checked in one place, before anything is done.

use safe_proto::cluster::{InviteRequest, JoinRequest};
use safe_proto::module::{
    Command, ControlModuleRequest, InstallModuleRequest, ListEventsRequest, ModuleFiles, ReadLogRequest,
};
use safe_proto::node::{InitClusterRequest, JoinClusterRequest};
use safe_proto::settings::{MAX_LANS, MAX_NODES, label};
use safe_proto::spec::{files, label as names};
use tonic::Status;

use crate::pki::authority::MAX_REQUEST;
use crate::token::MAX_TEXT;

/// Most events in one answer.
const MAX_EVENTS: u32 = 10_000;
/// Longest pause of a resync, in seconds.
const MAX_PAUSE: u32 = 604_800;
/// Events if no number is given.
const DEFAULT_EVENTS: u32 = 1_000;
/// Most lines of a log to begin with.
const MAX_LINES: u32 = 10_000;
/// Shortest and longest life of a token, seconds.
const TTL: std::ops::RangeInclusive<u32> = 60..=604_800;

fn invalid(message: impl Into<String>) -> Status {
    Status::invalid_argument(message)
}

/// A module name that must be given.
pub(super) fn module(name: &str) -> Result<&str, Status> {
    if name.is_empty() {
        return Err(invalid("the name of a module is missing"));
    }
    names::check("module", name).map_err(invalid)?;
    Ok(name)
}

/// A node's name.
pub(super) fn node(name: &str) -> Result<(), Status> {
    label("node", name).map_err(|error| invalid(error.0))
}

/// A module name, or empty for all.
pub(super) fn module_or_all(name: &str) -> Result<&str, Status> {
    if name.is_empty() { Ok(name) } else { module(name) }
}

/// Content of a module: bounds only; what is in it is judged by its own rules, with findings.
pub(super) fn content(content: Option<&ModuleFiles>, name: &str) -> Result<(), Status> {
    let content = content.ok_or_else(|| invalid("the module is missing"))?;
    if !name.is_empty() {
        module(name)?;
    }
    let total: usize = content.files.iter().map(|file| file.content.len()).sum();
    if content.spec.len() > safe_proto::spec::MAX_BYTES
        || content.files.len() > files::MAX_FILES
        || total > files::MAX_TOTAL
    {
        return Err(invalid(format!(
            "a module has at most {} KiB of module.toml, {} other files and {} MiB of them",
            safe_proto::spec::MAX_BYTES >> 10,
            files::MAX_FILES,
            files::MAX_TOTAL >> 20
        )));
    }
    Ok(())
}

pub(super) fn install(request: &InstallModuleRequest) -> Result<(), Status> {
    content(request.module.as_ref(), &request.name)
}

/// The command, which must be one, with nodes and flags that go with it.
pub(super) fn control(request: &ControlModuleRequest) -> Result<Command, Status> {
    module(&request.name)?;
    if request.nodes.len() > MAX_NODES {
        return Err(invalid(format!("at most {MAX_NODES} nodes can be named")));
    }
    for node in &request.nodes {
        self::node(node)?;
    }
    let command = request.command();
    let forcible = matches!(command, Command::Prim | Command::Second);
    if request.force && !forcible {
        return Err(invalid("only prim and second can be forced"));
    }
    if request.full && command != Command::Second {
        return Err(invalid("only second can compare in full"));
    }
    if request.discard && (command != Command::Second || !request.force) {
        return Err(invalid("only second --force can discard what the copy alone holds"));
    }
    if request.repair && command != Command::Verify {
        return Err(invalid("only verify can repair"));
    }
    let pauses = command == Command::PauseResync;
    if pauses != (request.seconds > 0) || request.seconds > MAX_PAUSE {
        return Err(invalid("a resync can be paused, and for 1 s to 7 days: resync pause MODULE --for 1h"));
    }
    match command {
        Command::Unspecified => Err(invalid("the command is missing, or this release does not know it")),
        Command::Stop | Command::Stopstart | Command::Prim | Command::Second | Command::Unlock
            if request.nodes.is_empty() && !request.local =>
        {
            Err(invalid("this command needs a node: add --on NODE"))
        }
        Command::Prim if request.nodes.len() > 1 => {
            Err(invalid("one node can become primary: name one with --on"))
        }
        Command::Start
        | Command::Stop
        | Command::Shutdown
        | Command::Stopstart
        | Command::Restart
        | Command::Swap
        | Command::Verify
        | Command::Unlock
        | Command::PauseResync
        | Command::ResumeResync
        | Command::Prim
        | Command::Second => Ok(command),
    }
}

/// How many events to give.
pub(super) fn events(request: &ListEventsRequest) -> Result<usize, Status> {
    module_or_all(&request.module)?;
    if request.limit > MAX_EVENTS {
        return Err(invalid(format!("at most {MAX_EVENTS} events can be asked for")));
    }
    let limit = if request.limit == 0 { DEFAULT_EVENTS } else { request.limit };
    Ok(limit as usize)
}

/// How many lines to begin with.
pub(super) fn log(request: &ReadLogRequest) -> Result<usize, Status> {
    module(&request.module)?;
    if request.lines > MAX_LINES {
        return Err(invalid(format!("at most {MAX_LINES} lines can be asked for")));
    }
    Ok(request.lines as usize)
}

pub(super) fn invite(request: InviteRequest) -> Result<u32, Status> {
    ttl(request.ttl_s)
}

/// How long a token is good for, in seconds; 0: as long as usual.
pub(super) fn ttl(seconds: u32) -> Result<u32, Status> {
    if seconds != 0 && !TTL.contains(&seconds) {
        return Err(invalid(format!("a token is good for {} to {} seconds", TTL.start(), TTL.end())));
    }
    Ok(seconds)
}

/// Most characters of a witness's token.
pub(super) const MAX_WITNESS_TOKEN: usize = MAX_TEXT + crate::witness::TOKEN.len();

/// Where a witness is.
pub(super) fn witness_target(target: &str, may_be_empty: bool) -> Result<(), Status> {
    if target.is_empty() && may_be_empty {
        return Ok(());
    }
    safe_proto::settings::witness_target(target).map_err(|error| invalid(error.0))
}

pub(super) fn init(request: &InitClusterRequest) -> Result<(), Status> {
    label("cluster", &request.cluster).map_err(|error| invalid(error.0))?;
    label("node", &request.node).map_err(|error| invalid(error.0))?;
    lans(request.addresses.len())
}

pub(super) fn join_cluster(request: &JoinClusterRequest) -> Result<(), Status> {
    if request.token.len() > MAX_TEXT {
        return Err(invalid(crate::token::TokenError::Altered("it is too long").to_string()));
    }
    label("node", &request.node).map_err(|error| invalid(error.0))?;
    lans(request.addresses.len())
}

pub(super) fn join(request: &JoinRequest) -> Result<(), Status> {
    crate::peer::versions::common(&[request.protocol]).map_err(Status::failed_precondition)?;
    if request.secret.len() != 32 || request.certificate_request.len() > MAX_REQUEST {
        return Err(invalid("the request to join has a secret or a certificate request of a wrong length"));
    }
    label("node", &request.node).map_err(|error| invalid(error.0))?;
    lans(request.addresses.len())
}

fn lans(count: usize) -> Result<(), Status> {
    if count == 0 || count > MAX_LANS {
        return Err(invalid(format!(
            "1 to {MAX_LANS} addresses are needed, one for each lan: --address default=IP"
        )));
    }
    Ok(())
}

/// A version of a module: 64 hexadecimal digits.
pub(super) fn version(version: &str) -> Result<(), Status> {
    if version.len() == 64 && version.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(());
    }
    Err(invalid("a version has 64 hexadecimal digits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(command: Command, nodes: &[&str]) -> ControlModuleRequest {
        ControlModuleRequest {
            name: "db".to_owned(),
            command: command.into(),
            nodes: nodes.iter().map(|&node| node.to_owned()).collect(),
            ..ControlModuleRequest::default()
        }
    }

    #[test]
    fn commands_need_what_goes_with_them() {
        assert!(control(&command(Command::Start, &[])).is_ok());
        assert!(control(&command(Command::Stop, &[])).is_err());
        assert!(control(&command(Command::Prim, &["n1", "n2"])).is_err());
        assert!(control(&command(Command::Unspecified, &[])).is_err());
        assert!(control(&ControlModuleRequest { command: 99, ..command(Command::Start, &[]) }).is_err());
        assert!(control(&ControlModuleRequest { force: true, ..command(Command::Start, &[]) }).is_err());
        assert!(
            control(&ControlModuleRequest { name: "../x".to_owned(), ..command(Command::Start, &[]) })
                .is_err()
        );
        assert!(control(&ControlModuleRequest { force: true, ..command(Command::Prim, &["n1"]) }).is_ok());
    }

    #[test]
    fn numbers_are_bounded() {
        assert!(invite(InviteRequest { ttl_s: 59 }).is_err());
        assert!(invite(InviteRequest { ttl_s: 0 }).is_ok());
        assert!(events(&ListEventsRequest { limit: 10_001, ..ListEventsRequest::default() }).is_err());
        assert!(version("abc").is_err());
        assert!(version(&"a".repeat(64)).is_ok());
    }
}
