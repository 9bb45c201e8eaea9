//! Removing a module from all its nodes. Data stay.

use std::time::Duration;

use futures_util::future::join_all;
use safe_proto::peer::{PrepareRemoveRequest, RemoveLocalRequest};
use tonic::Status;

use super::{Desk, conflicts, refuse, status, validate};
use crate::peer::nodes::bounded;

/// For one node.
const PATIENCE: Duration = Duration::from_secs(20);

/// See `ModuleService.RemoveModule`.
pub(super) async fn remove(desk: &Desk, name: &str) -> Result<(), Status> {
    validate::module(name)?;
    let _one = desk.installing.lock().await;
    let own = desk.own()?;
    let module = status::locate(desk, name).await?;
    let agreed = join_all(module.nodes.iter().map(|node| ask(desk, &own, node, name))).await;
    agreed.into_iter().collect::<Result<(), Status>>()?;
    // This node last: while it has the module the removal can be asked for again here.
    let mut order = module.nodes;
    order.sort_by_key(|node| *node == own);
    for node in order {
        take(desk, &own, &node, name).await?;
    }
    Ok(())
}

async fn ask(desk: &Desk, own: &str, node: &str, name: &str) -> Result<(), Status> {
    if node == own {
        conflicts::must_be_none(desk, name).await?;
        return desk.context.node.prepare_remove(name).await.map_err(refuse);
    }
    let mut client = desk.nodes.peer(node).await?;
    let request = PrepareRemoveRequest { name: name.to_owned() };
    match bounded(node, PATIENCE, client.prepare_remove(request)).await {
        // It may have been removed there before an earlier attempt was interrupted.
        Err(status) if status.code() == tonic::Code::NotFound => Ok(()),
        outcome => outcome.map(drop).map_err(|status| named(node, &status)),
    }
}

async fn take(desk: &Desk, own: &str, node: &str, name: &str) -> Result<(), Status> {
    if node == own {
        return desk.context.node.remove(name).await.map_err(refuse);
    }
    let mut client = desk.nodes.peer(node).await?;
    let request = RemoveLocalRequest { name: name.to_owned() };
    bounded(node, PATIENCE, client.remove_local(request))
        .await
        .map(drop)
        .map_err(|status| named(node, &status))
}

fn named(node: &str, status: &Status) -> Status {
    if status.code() == tonic::Code::Unavailable {
        return Status::unavailable(format!(
            "{}; a module is removed on all its nodes or on none: start safed on {node}, then try again",
            status.message()
        ));
    }
    Status::new(status.code(), format!("node {node}: {}", status.message()))
}
