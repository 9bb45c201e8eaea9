//! `safectl conflicts`: what a copy alone held when the other one took its place.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use safe_proto::module::{
    Conflict, ConflictEntry, DiscardConflictRequest, ListConflictsRequest, ListConflictsResponse,
    RestoreConflictRequest, ShowConflictRequest,
};
use serde::Serialize;

use super::control::confirm;
use crate::client::Client;
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::moment::Moment;
use crate::output::{self, Cell, Table};

/// Entries asked for at once.
const PAGE: u32 = 1000;

/// Commands about what was kept.
#[derive(Debug, Subcommand)]
pub(crate) enum ConflictsCommand {
    /// Archives of a module, on all its nodes
    List(ListArgs),
    /// What an archive holds
    Show(NamedArgs),
    /// Bring an archive's files into a new directory of the node that keeps it
    Restore(RestoreArgs),
    /// Remove an archive for good
    Discard(NamedArgs),
}

/// Arguments of `conflicts list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Module
    module: String,
}

/// Which archive.
#[derive(Debug, Args)]
pub(crate) struct NamedArgs {
    /// Module
    module: String,
    /// Its id, or a beginning of it
    id: String,
}

/// Arguments of `conflicts restore`.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    #[command(flatten)]
    named: NamedArgs,
    /// Absolute path on the node that keeps the archive; it is made and must not exist
    #[arg(long, value_name = "DIR", required = true)]
    to: PathBuf,
}

/// The documented JSON.
#[derive(Debug, Serialize)]
struct Line {
    id: String,
    node: String,
    replaced_by: String,
    at: Moment,
    files: u64,
    bytes: u64,
    removed: u64,
}

impl From<Conflict> for Line {
    fn from(conflict: Conflict) -> Self {
        let Conflict { id, node, peer, at_s, files, bytes, removed } = conflict;
        let at = Moment::from_seconds(at_s);
        Self { id, node, replaced_by: peer, at, files, bytes, removed }
    }
}

#[derive(Debug, Serialize)]
struct EntryLine {
    path: String,
    what: String,
    size: u64,
    modified: Moment,
    ranges: Vec<[u64; 2]>,
}

impl From<ConflictEntry> for EntryLine {
    fn from(entry: ConflictEntry) -> Self {
        let ConflictEntry { path, what, size, modified_s, ranges } = entry;
        let ranges = ranges.as_chunks::<2>().0.to_vec();
        Self { path, what, size, modified: Moment::from_seconds(modified_s), ranges }
    }
}

/// Runs one of them.
pub(crate) async fn run(context: &Context, command: ConflictsCommand) -> Result<Exit, Failure> {
    let client = Client::connect(context).await?;
    match command {
        ConflictsCommand::List(args) => list(context, &client, args.module).await,
        ConflictsCommand::Show(args) => show(context, &client, args).await,
        ConflictsCommand::Restore(args) => restore(context, &client, args).await,
        ConflictsCommand::Discard(args) => discard(context, &client, args).await,
    }
}

async fn known(client: &Client, module: &str) -> Result<ListConflictsResponse, Failure> {
    let request = ListConflictsRequest { module: module.to_owned(), local: false };
    client.call(client.modules().list_conflicts(request)).await
}

async fn list(context: &Context, client: &Client, module: String) -> Result<Exit, Failure> {
    let ListConflictsResponse { conflicts, missing } = known(client, &module).await?;
    let lines: Vec<Line> = conflicts.into_iter().map(Line::from).collect();
    if lines.is_empty() && context.is_table() {
        output::note(&format!(
            "nothing is kept of {module}: no copy of it was replaced that held something alone"
        ));
    } else {
        context.printer.data(&lines, || table(&lines))?;
    }
    if missing.is_empty() {
        return Ok(Exit::Done);
    }
    Err(Failure::condition(format!("{} does not answer: what it keeps is not listed", missing.join(", ")))
        .hint("safectl cluster status"))
}

fn table(lines: &[Line]) -> Table {
    let mut table = Table::new(["ID", "NODE", "REPLACED BY", "AT (UTC)", "FILES", "BYTES", "REMOVED"]);
    for line in lines {
        table.row([
            Cell::plain(&line.id[..line.id.len().min(12)]),
            Cell::plain(&line.node),
            Cell::plain(&line.replaced_by),
            Cell::plain(line.at.short()),
            Cell::plain(line.files.to_string()),
            Cell::plain(line.bytes.to_string()),
            Cell::plain(line.removed.to_string()),
        ]);
    }
    table
}

/// The node that keeps it, and its whole id.
async fn keeper(client: &Client, named: &NamedArgs) -> Result<Line, Failure> {
    let all = known(client, &named.module).await?;
    let mut found = all.conflicts.into_iter().filter(|conflict| conflict.id.starts_with(&named.id));
    let (first, second) = (found.next(), found.next());
    let hint = format!("safectl conflicts list {}", named.module);
    match (first, second) {
        (Some(conflict), None) => Ok(conflict.into()),
        (Some(_), Some(_)) => {
            Err(Failure::usage(format!("several archives begin with {}", named.id)).hint(hint))
        }
        (None, _) => {
            let mut failure =
                Failure::failed(format!("no archive of {} has the id {}", named.module, named.id));
            if !all.missing.is_empty() {
                failure = failure.cause(format!("{} does not answer", all.missing.join(", ")));
            }
            Err(failure.hint(hint))
        }
    }
}

async fn show(context: &Context, client: &Client, named: NamedArgs) -> Result<Exit, Failure> {
    let kept = keeper(client, &named).await?;
    let mut lines: Vec<EntryLine> = Vec::new();
    loop {
        let request = ShowConflictRequest {
            module: named.module.clone(),
            id: kept.id.clone(),
            node: kept.node.clone(),
            from: lines.len() as u64,
            limit: PAGE,
        };
        let answer = client.call(client.modules().show_conflict(request)).await?;
        let more = answer.more && !answer.entries.is_empty();
        lines.extend(answer.entries.into_iter().map(EntryLine::from));
        if !more {
            break;
        }
    }
    context.printer.data(&lines, || {
        let mut table = Table::with_prose(["PATH", "KEPT", "SIZE", "MODIFIED (UTC)"]);
        for line in &lines {
            table.row([
                Cell::plain(&line.path),
                Cell::plain(&line.what),
                Cell::plain(line.size.to_string()),
                Cell::plain(line.modified.short()),
            ]);
        }
        table
    })?;
    Ok(Exit::Done)
}

async fn restore(context: &Context, client: &Client, args: RestoreArgs) -> Result<Exit, Failure> {
    let kept = keeper(client, &args.named).await?;
    let directory = args.to.display().to_string();
    let request = RestoreConflictRequest {
        module: args.named.module.clone(),
        id: kept.id.clone(),
        node: kept.node.clone(),
        directory: directory.clone(),
    };
    let mut stream = client.call(client.modules().restore_conflict(request)).await?;
    let mut said = 0;
    loop {
        let next = stream.message().await.map_err(|status| client.refusal(&status))?;
        let Some(now) = next else {
            return Err(Failure::failed("the connection ended before everything was restored")
                .hint(format!("remove {directory} on {} and try again", kept.node)));
        };
        let percent = (now.bytes * 100).checked_div(kept.bytes).unwrap_or(100).min(100);
        if percent / 10 > said && !now.done {
            said = percent / 10;
            output::note(&format!("{percent} % restored, {} files", now.files));
        }
        if now.done {
            let text = format!("{} files restored to {directory} on {}", now.files, kept.node);
            let done = Restored { node: kept.node, directory, files: now.files, incomplete: now.incomplete };
            context.printer.text(&done, &text)?;
            if done.incomplete > 0 {
                output::note(&format!(
                    "{} of them lack an owner, a mode or an attribute that {} does not take",
                    done.incomplete, done.directory
                ));
            }
            return Ok(Exit::Done);
        }
    }
}

#[derive(Debug, Serialize)]
struct Restored {
    node: String,
    directory: String,
    files: u64,
    incomplete: u64,
}

async fn discard(context: &Context, client: &Client, named: NamedArgs) -> Result<Exit, Failure> {
    let kept = keeper(client, &named).await?;
    confirm::ask(
        context,
        &format!(
            "conflicts discard: {} files ({} bytes) that only {} held before it was made equal to {} will be lost for good.",
            kept.files, kept.bytes, kept.node, kept.replaced_by
        ),
    )?;
    let request =
        DiscardConflictRequest { module: named.module, id: kept.id.clone(), node: kept.node.clone() };
    client.call(client.modules().discard_conflict(request)).await?;
    output::note(&format!("{} discarded on {}", kept.id, kept.node));
    Ok(Exit::Done)
}
