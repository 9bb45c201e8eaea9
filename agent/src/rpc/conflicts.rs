//! Archives of what a copy alone held: here, or passed on to the node that keeps one.

use std::path::{Component, Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use futures_util::future::join_all;
use safe_proto::module::{
    Conflict, ConflictEntry, DiscardConflictRequest, DiscardConflictResponse, ListConflictsRequest,
    ListConflictsResponse, RestoreConflictRequest, RestoreConflictResponse, ShowConflictRequest,
    ShowConflictResponse,
};
use safe_replication::archive::{Entry, What};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::node_service::on_behalf;
use super::{Desk, status, validate};
use crate::conflicts::{self, Archive, Restored};
use crate::peer::nodes::bounded;

/// For another node to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most entries of a page.
const PAGE: u32 = 1000;
/// Between two reports of how far it is.
const OFTEN: Duration = Duration::from_millis(250);
/// Reports that may wait for a slow client.
const QUEUE: usize = 16;

/// How far a restoration is, as it goes on.
pub(super) type Restoring = Pin<Box<dyn Stream<Item = Result<RestoreConflictResponse, Status>> + Send>>;

fn place(desk: &Desk, module: &str) -> PathBuf {
    desk.context.paths.module(module).conflicts()
}

/// See `ModuleService.ListConflicts`.
pub(super) async fn list(
    desk: &Desk,
    request: ListConflictsRequest,
) -> Result<ListConflictsResponse, Status> {
    let module = request.module;
    validate::module(&module)?;
    if request.local {
        return here(desk, &module).await;
    }
    let own = desk.own()?;
    let nodes = status::locate(desk, &module).await?.nodes;
    let ask = |node: String| async {
        let answer = if node == own { here(desk, &module).await } else { there(desk, &node, &module).await };
        (node, answer)
    };
    let mut all = ListConflictsResponse::default();
    for (node, answer) in join_all(nodes.into_iter().map(ask)).await {
        match answer {
            Ok(answer) => all.conflicts.extend(answer.conflicts),
            Err(_) => all.missing.push(node),
        }
    }
    all.conflicts.sort_by(|a, b| (a.at_s, &a.id).cmp(&(b.at_s, &b.id)));
    Ok(all)
}

async fn here(desk: &Desk, module: &str) -> Result<ListConflictsResponse, Status> {
    let (path, node) = (place(desk, module), desk.own()?);
    let found = super::blocking(move || conflicts::list(&path).map_err(unreadable)).await?;
    let conflicts = found.iter().map(|archive| told(&node, archive)).collect();
    Ok(ListConflictsResponse { conflicts, missing: Vec::new() })
}

async fn there(desk: &Desk, node: &str, module: &str) -> Result<ListConflictsResponse, Status> {
    let mut client = desk.nodes.modules(node).await?;
    let request = ListConflictsRequest { module: module.to_owned(), local: true };
    bounded(node, PATIENCE, client.list_conflicts(request)).await
}

/// A module is not removed with archives of it: they would go with its directory.
pub(super) async fn must_be_none(desk: &Desk, module: &str) -> Result<(), Status> {
    let (node, kept) = (desk.own()?, here(desk, module).await?.conflicts.len());
    if kept == 0 {
        return Ok(());
    }
    Err(Status::failed_precondition(format!(
        "{node} keeps {kept} archives of what only its copy of {module} held, which would be lost: safectl conflicts list \
         {module}; then restore or discard each"
    )))
}

/// See `ModuleService.ShowConflict`.
pub(super) async fn show(desk: &Desk, request: ShowConflictRequest) -> Result<ShowConflictResponse, Status> {
    validate::module(&request.module)?;
    if !(1..=PAGE).contains(&request.limit) {
        return Err(Status::invalid_argument(format!("limit must be 1 to {PAGE}")));
    }
    if let Some(node) = elsewhere(desk, &request.node)? {
        let mut client = desk.nodes.modules(&node).await?;
        return bounded(&node, PATIENCE, client.show_conflict(request)).await;
    }
    let (path, node) = (place(desk, &request.module), desk.own()?);
    super::blocking(move || {
        let archive = conflicts::find(&path, &request.id).map_err(Status::not_found)?;
        let (entries, more) =
            conflicts::entries(&archive, request.from, request.limit as usize).map_err(unreadable)?;
        let entries = entries.iter().map(|entry| entry_told(&archive, entry)).collect();
        Ok(ShowConflictResponse { conflict: Some(told(&node, &archive)), entries, more })
    })
    .await
}

/// See `ModuleService.DiscardConflict`.
pub(super) async fn discard(
    desk: &Desk,
    caller: &str,
    request: DiscardConflictRequest,
) -> Result<DiscardConflictResponse, Status> {
    validate::module(&request.module)?;
    if let Some(node) = elsewhere(desk, &request.node)? {
        let mut client = desk.nodes.modules(&node).await?;
        let call = client.discard_conflict(on_behalf(caller, request));
        return bounded(&node, PATIENCE, call).await;
    }
    let path = place(desk, &request.module);
    let (module, events) = (request.module.clone(), desk.context.events.clone());
    let id = super::blocking(move || {
        let archive = conflicts::find(&path, &request.id).map_err(Status::not_found)?;
        conflicts::discard(&archive).map_err(unreadable)?;
        Ok(archive.id)
    })
    .await?;
    events.record(&module, true, &format!("the archive {id} was discarded by {caller:.200}"));
    Ok(DiscardConflictResponse {})
}

/// See `ModuleService.RestoreConflict`.
pub(super) async fn restore(
    desk: &Desk,
    caller: &str,
    request: RestoreConflictRequest,
) -> Result<Restoring, Status> {
    validate::module(&request.module)?;
    let target = directory(&request.directory)?;
    if let Some(node) = elsewhere(desk, &request.node)? {
        let mut client = desk.nodes.modules(&node).await?;
        let stream = client.restore_conflict(on_behalf(caller, request)).await?.into_inner();
        return Ok(Box::pin(stream));
    }
    let path = place(desk, &request.module);
    let archive =
        super::blocking(move || conflicts::find(&path, &request.id).map_err(Status::not_found)).await?;
    let (answers, stream) = mpsc::channel(QUEUE);
    tokio::task::spawn_blocking(move || restoring(&archive, &target, &answers));
    Ok(Box::pin(ReceiverStream::new(stream)))
}

fn restoring(
    archive: &Archive,
    target: &Path,
    answers: &mpsc::Sender<Result<RestoreConflictResponse, Status>>,
) {
    let answer = |restored: Restored, done| {
        let Restored { files, bytes, incomplete } = restored;
        RestoreConflictResponse { files, bytes, incomplete, done }
    };
    let mut said = crate::clock::instant();
    let outcome = conflicts::restore(archive, target, |restored| {
        if said.elapsed() >= OFTEN {
            said = crate::clock::instant();
            // What a slow client does not read is left out.
            drop(answers.try_send(Ok(answer(restored, false))));
        }
        !answers.is_closed()
    });
    let last = outcome.map(|restored| answer(restored, true)).map_err(|error| {
        Status::failed_precondition(format!("{} cannot be restored to: {error}", target.display()))
    });
    drop(answers.blocking_send(last));
}

/// An absolute path without detours.
fn directory(path: &str) -> Result<PathBuf, Status> {
    let path = PathBuf::from(path);
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if path.is_absolute() && plain && path.as_os_str().len() < 4096 {
        Ok(path)
    } else {
        Err(Status::invalid_argument("the directory must be an absolute path without . and .."))
    }
}

fn elsewhere(desk: &Desk, node: &str) -> Result<Option<String>, Status> {
    if node.is_empty() {
        return Ok(None);
    }
    validate::node(node)?;
    Ok((desk.own()? != node).then(|| node.to_owned()))
}

fn unreadable(error: std::io::Error) -> Status {
    Status::internal(format!("the archives cannot be used: {error}"))
}

fn told(node: &str, archive: &Archive) -> Conflict {
    let manifest = &archive.manifest;
    Conflict {
        id: archive.id.clone(),
        node: node.to_owned(),
        peer: manifest.peer.clone(),
        at_s: manifest.at,
        files: manifest.files,
        bytes: manifest.bytes,
        removed: manifest.removed,
    }
}

fn entry_told(archive: &Archive, entry: &Entry) -> ConflictEntry {
    let directory = archive.manifest.directories.get(usize::from(entry.directory));
    let directory = directory.map(safe_replication::archive::Text::escaped).unwrap_or_default();
    let path = entry.path.escaped();
    let (what, ranges) = match &entry.what {
        What::Content => ("content", Vec::new()),
        What::Ranges(ranges) => ("ranges", ranges.concat()),
        What::Attributes => ("attributes", Vec::new()),
        What::Removed => ("removed", Vec::new()),
    };
    ConflictEntry {
        path: if path.is_empty() { directory } else { format!("{directory}/{path}") },
        what: what.to_owned(),
        size: entry.attributes.as_ref().map_or(0, |attributes| attributes.size),
        modified_s: entry.attributes.as_ref().map_or(0, |attributes| attributes.mtime.0),
        ranges,
    }
}
