//! Status of modules on all their nodes: this node's own, the others' by asking them.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use safe_proto::module::{
    GetStatusRequest, GetStatusResponse, ListModulesRequest, ModuleInfo, ModuleStatus, Phase, State,
};
use tonic::{Request, Status};

use super::{Desk, refuse};
use crate::clock;
use crate::cluster::Joined;
use crate::peer::nodes::bounded;

/// For a node that was heard just now.
const PATIENCE: Duration = Duration::from_secs(2);
/// For one that was not: it may have just come back.
const HURRY: Duration = Duration::from_millis(300);
/// How long ago "just now" may be.
const JUST_NOW: Duration = Duration::from_secs(1);

/// What one node says.
type Said = Result<(Vec<ModuleStatus>, Vec<ModuleInfo>), Status>;

/// This node's own status.
pub(super) fn local(desk: &Desk, name: &str) -> Result<GetStatusResponse, Status> {
    let statuses = desk.context.node.statuses();
    let statuses = statuses.borrow();
    if !name.is_empty() && !statuses.contains_key(name) {
        return Err(unknown(name));
    }
    let wanted = |status: &&ModuleStatus| name.is_empty() || status.module == name;
    Ok(GetStatusResponse { modules: statuses.values().filter(wanted).cloned().collect() })
}

/// Status on all nodes.
pub(super) async fn everywhere(desk: &Desk, name: &str) -> Result<GetStatusResponse, Status> {
    let Some(joined) = desk.cluster.joined() else { return local(desk, name) };
    let own_infos = desk.context.node.list().await.map_err(refuse)?;
    let others: Vec<&str> =
        joined.held.settings.others(&joined.held.node).map(|node| node.name.as_str()).collect();
    let answers = join_all(others.iter().map(|node| ask(desk, node))).await;
    let mut said: BTreeMap<&str, Said> = others.into_iter().zip(answers).collect();
    // Read last: a node that does not answer must not make this node's own state look old.
    let own: Vec<ModuleStatus> = desk.context.node.statuses().borrow().values().cloned().collect();
    said.insert(&joined.held.node, Ok((own, own_infos)));
    let modules = merge(desk, &joined, name, &said);
    if modules.is_empty() && !name.is_empty() {
        return Err(unknown(name));
    }
    Ok(GetStatusResponse { modules })
}

fn merge(desk: &Desk, joined: &Joined, name: &str, said: &BTreeMap<&str, Said>) -> Vec<ModuleStatus> {
    let mut infos: BTreeMap<&str, &ModuleInfo> = BTreeMap::new();
    for (_, known) in said.values().flatten() {
        for info in known.iter().filter(|info| name.is_empty() || info.name == name) {
            infos.entry(&info.name).or_insert(info);
        }
    }
    let mut merged = Vec::new();
    for (module, info) in infos {
        for node in &info.nodes {
            let status = match said.get(node.as_str()) {
                Some(Ok((statuses, _))) => match statuses.iter().find(|status| status.module == module) {
                    Some(status) => ModuleStatus { node: node.clone(), ..status.clone() },
                    None => absent(
                        info,
                        node,
                        "the module is not installed there yet: it catches up within a minute",
                    ),
                },
                Some(Err(status)) => absent(info, node, &silence(desk, joined, node, status)),
                None => absent(info, node, "the node is not in the cluster settings held here"),
            };
            merged.push(status);
        }
        let of_module = merged.len().saturating_sub(info.nodes.len());
        show_at_target(&mut merged[of_module..]);
    }
    merged
}

/// The source counts a resync; shown it is at the target, whose copy it is about.
fn show_at_target(nodes: &mut [ModuleStatus]) {
    let target =
        |status: &ModuleStatus| status.state() == State::Second && status.phase() == Phase::Transient;
    let Some(index) = nodes.iter().position(target) else { return };
    let told = nodes.iter_mut().filter(|status| !target(status)).filter_map(|status| status.data.as_mut());
    let Some(resync) = told.filter_map(|data| data.resync.take()).next() else { return };
    nodes[index].data.get_or_insert_default().resync.get_or_insert(resync);
}

async fn ask(desk: &Desk, node: &str) -> Said {
    let reports = desk.cluster.heart().reports();
    let heard = reports.get(node).and_then(|report| report.lans.iter().filter_map(|(_, heard)| *heard).max());
    let recent = heard.is_some_and(|heard| clock::now().since(heard) < JUST_NOW);
    let patience = if recent { PATIENCE } else { HURRY };
    let ask = async {
        let mut client = desk.nodes.modules(node).await?;
        let mut lister = client.clone();
        let (status, list) = tokio::join!(
            client.get_status(timed(GetStatusRequest { name: String::new(), local: true })),
            lister.list_modules(timed(ListModulesRequest {})),
        );
        Ok(tonic::Response::new((status?.into_inner().modules, list?.into_inner().modules)))
    };
    bounded(node, patience, ask).await
}

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(PATIENCE);
    request
}

/// Why nothing is known of a node, for people.
fn silence(desk: &Desk, joined: &Joined, node: &str, status: &Status) -> String {
    let reports = desk.cluster.heart().reports();
    let heard = reports.get(node).and_then(|report| report.lans.iter().filter_map(|(_, heard)| *heard).max());
    let is_reachable = reports.get(node).is_some_and(crate::heartbeat::PeerReport::is_reachable);
    match heard {
        Some(_) if is_reachable => {
            let port = joined.held.settings.ports.api;
            let why = status.message();
            format!("its heartbeats are heard, but its safed does not answer at port {port}/tcp: {why}")
        }
        Some(heard) => {
            let seconds = clock::now().since(heard).as_secs();
            format!("node {node} does not answer: nothing heard on any lan for {seconds} s")
        }
        None => format!("node {node} does not answer: nothing heard of it since this safed started"),
    }
}

fn absent(info: &ModuleInfo, node: &str, reason: &str) -> ModuleStatus {
    ModuleStatus {
        module: info.name.clone(),
        kind: info.kind.clone(),
        node: node.to_owned(),
        state: State::Unknown.into(),
        phase: Phase::Unspecified.into(),
        reason: reason.to_owned(),
        as_of_ms: clock::unix_ms(),
        ..ModuleStatus::default()
    }
}

/// Where a module lives: as this node knows it, or as others do.
pub(super) async fn locate(desk: &Desk, name: &str) -> Result<ModuleInfo, Status> {
    let own = desk.context.node.list().await.map_err(refuse)?;
    if let Some(info) = own.into_iter().find(|info| info.name == name) {
        return Ok(info);
    }
    let Some(joined) = desk.cluster.joined() else { return Err(unknown(name)) };
    let others = joined.held.settings.others(&joined.held.node);
    let answers = join_all(others.map(|node| ask(desk, &node.name))).await;
    let mut infos = answers.into_iter().flatten().flat_map(|(_, infos)| infos);
    infos.find(|info| info.name == name).ok_or_else(|| unknown(name))
}

fn unknown(name: &str) -> Status {
    Status::not_found(format!("no module {name} is installed: `safectl module list` shows those that are"))
}

#[cfg(test)]
mod tests {
    use safe_proto::module::{DataStatus, ResyncStatus};

    use super::*;

    #[test]
    fn a_resync_is_shown_at_its_target() {
        let status = |node: &str, state: State, phase: Phase, resync: Option<ResyncStatus>| ModuleStatus {
            node: node.to_owned(),
            state: state.into(),
            phase: phase.into(),
            data: Some(DataStatus { resync, ..DataStatus::default() }),
            ..ModuleStatus::default()
        };
        let resync = Some(ResyncStatus { bytes_done: 5, ..ResyncStatus::default() });
        let told = |nodes: &[ModuleStatus]| -> Vec<bool> {
            nodes.iter().map(|node| node.data.as_ref().is_some_and(|data| data.resync.is_some())).collect()
        };
        let source = status("n1", State::Alone, Phase::Ready, resync);
        let mut nodes = [source.clone(), status("n2", State::Second, Phase::Transient, None)];
        show_at_target(&mut nodes);
        assert_eq!(told(&nodes), [false, true]);
        // Where the target does not answer, the source's word is all there is.
        let mut nodes = [source, status("n2", State::Unknown, Phase::Unspecified, None)];
        show_at_target(&mut nodes);
        assert_eq!(told(&nodes), [true, false]);
    }
}
