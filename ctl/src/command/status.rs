//! `safectl status`

use clap::Args;
use indicatif::HumanBytes;

use super::control::{nodes_on, require_entries};
use crate::cli::OnArgs;
use crate::client::Client;
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::follow;
use crate::output::{Cell, Table, Tone};
use crate::status::{Address, Entry, Phase, Resync, State};

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Module; all by default
    module: Option<String>,
    #[command(flatten)]
    on: OnArgs,
}

/// Prints the state of modules on all their nodes.
pub(crate) async fn run(context: &Context, args: StatusArgs) -> Result<Exit, Failure> {
    let client = Client::connect(context).await?;
    let mut entries = match &args.module {
        Some(module) => require_entries(&client, module).await?,
        None => follow::status(&client, "").await?,
    };
    if !args.on.on.is_empty() {
        let module = args.module.as_deref().unwrap_or("any module");
        let nodes = nodes_on(&args.on, module, &entries)?;
        entries.retain(|entry| nodes.contains(&entry.node));
    }
    context.printer.data(&entries, || table(&entries))?;
    Ok(Exit::Done)
}

fn table(entries: &[Entry]) -> Table {
    let mut table = Table::new(["MODULE", "NODE", "STATE", "PHASE", "DATA", "ADDRESS"]);
    for entry in entries {
        table.row([
            Cell::plain(&entry.module),
            Cell::plain(&entry.node),
            state(entry),
            Cell::plain(entry.phase.map_or("-", Phase::name)),
            data(entry),
            address(entry),
        ]);
        notes(&mut table, entry);
    }
    if entries.is_empty() {
        table.below("No module is installed. Next: safectl module install DIR");
    }
    for line in both_serve(entries).into_iter().chain(isolation(entries)) {
        table.below(line);
    }
    table
}

/// A symbol besides the colour: not everybody sees the colour.
fn state(entry: &Entry) -> Cell {
    let (symbol, tone) = match (entry.state, entry.phase) {
        (State::Unknown, _) => ("✖", Tone::Bad),
        (_, Some(Phase::Blocked)) => ("▲", Tone::Bad),
        (State::Stop, _) => ("○", Tone::Faint),
        (_, Some(Phase::Transient)) => ("◐", Tone::Moving),
        (State::Wait, _) => ("◐", Tone::Moving),
        (State::Alone | State::Prim | State::Second | State::Up, _) => ("●", Tone::Good),
    };
    Cell::new(format!("{symbol} {}", entry.state.name()), tone)
}

fn data(entry: &Entry) -> Cell {
    if entry.kind != "mirror" || entry.state == State::Unknown {
        return Cell::new("-", Tone::Faint);
    }
    match &entry.data.resync {
        Some(resync) => Cell::new(format!("resync {}%", resync.percent()), Tone::Moving),
        // Its source, which knows how far it is, is not heard here.
        None if entry.state == State::Second && !entry.is_ready() && entry.data.uptodate != Some(true) => {
            Cell::new("resync", Tone::Moving)
        }
        None if entry.data.consistent == Some(false) => Cell::new("inconsistent", Tone::Bad),
        None if entry.data.uptodate == Some(true) => Cell::new("up to date", Tone::Good),
        None if entry.data.consistent.is_none() => Cell::new("none yet", Tone::Faint),
        None => Cell::new("stale", Tone::Moving),
    }
}

fn address(entry: &Entry) -> Cell {
    let bare = |ip: &str| ip.split('/').next().unwrap_or(ip).to_owned();
    let here: Vec<String> =
        entry.addresses.iter().filter(|address| address.present).map(|address| bare(&address.ip)).collect();
    match absent_address(entry) {
        Some(absent) => Cell::new(format!("✖ {} missing", bare(&absent.ip)), Tone::Bad),
        _ if here.is_empty() => Cell::new("-", Tone::Faint),
        _ => Cell::plain(here.join(", ")),
    }
}

/// An address that should be on the node, as it serves.
fn absent_address(entry: &Entry) -> Option<&Address> {
    let serves = entry.state.serves() && entry.is_ready();
    entry.addresses.iter().find(|address| serves && !address.present)
}

fn notes(table: &mut Table, entry: &Entry) {
    let absent = (entry.state == State::Unknown).then(|| "the node does not answer".to_owned());
    if let Some(reason) = entry.reason.clone().or(absent) {
        table.remark("REASON", reason);
    }
    if let Some(resync) = &entry.data.resync {
        table.note(progress(resync));
    }
    if let Some(address) = absent_address(entry) {
        table.note(format!("{} is not on this node: clients do not reach it there", address.ip));
        table.note(format!("why: safectl events {}", entry.module));
    }
    for part in entry.hint.iter().flat_map(|hint| hint.split("; ")) {
        table.note(if part.starts_with("safectl ") { format!("type: {part}") } else { part.to_owned() });
    }
    for warning in &entry.warnings {
        table.note(format!("▲ {warning}"));
    }
    for arbiter in entry.arbiters.iter().filter(|arbiter| arbiter.state.as_deref() == Some("down")) {
        let why = arbiter.why.as_deref().unwrap_or("it does not answer");
        table.note(format!("▲ arbiter {}: {why}", arbiter.name));
    }
}

/// Once for each module: what nobody should learn on the day.
fn isolation(entries: &[Entry]) -> Vec<String> {
    let mut last = "";
    let mut lines = Vec::new();
    for entry in entries {
        if let Some(isolation) = &entry.isolation
            && entry.module != last
        {
            last = &entry.module;
            lines.push(format!("{}: {isolation}", entry.module));
        }
    }
    lines
}

fn progress(resync: &Resync) -> String {
    let left = resync.time_left();
    let (done, total) = (HumanBytes(resync.bytes_done), HumanBytes(resync.bytes_total));
    format!("resync ({}): {done} of {total}, {}/s, {left}", resync.plan, HumanBytes(resync.rate))
}

/// What must not be overlooked.
fn both_serve(entries: &[Entry]) -> Vec<String> {
    let mirrors = entries.iter().filter(|entry| entry.kind == "mirror" && entry.state.serves());
    let mut serving: Vec<(&str, Vec<&str>)> = Vec::new();
    for entry in mirrors {
        match serving.last_mut() {
            Some((module, nodes)) if *module == entry.module => nodes.push(&entry.node),
            _ => serving.push((&entry.module, vec![&entry.node])),
        }
    }
    let split = serving.iter().filter(|(_, nodes)| nodes.len() > 1);
    split
        .map(|(module, nodes)| {
            format!(
                "▲ {module}: split brain: {} both serve, each with changes of its own.\n  What happens next: safectl help isolation",
                nodes.join(" and ")
            )
        })
        .collect()
}
