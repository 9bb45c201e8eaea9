//! `safectl events`

use std::time::Duration;

use clap::Args;
use safe_proto::module::{ListEventsRequest, ModuleEvent};
use safe_proto::spec::quantity;
use serde::Serialize;

use super::control::require_entries;
use crate::client::Client;
use crate::clock;
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::moment::Moment;
use crate::output::{Cell, Table, Tone};

/// Arguments of `events`.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Module; all, and the node's own, by default
    module: Option<String>,
    /// At most this many, the newest
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    lines: u32,
    /// Only what happened in this time, as in 1h or 30m
    #[arg(long, value_name = "TIME", value_parser = quantity::parse_duration)]
    since: Option<Duration>,
}

/// The documented JSON.
#[derive(Debug, Serialize)]
struct Event {
    at: Moment,
    node: String,
    module: Option<String>,
    alarm: bool,
    text: String,
}

impl From<ModuleEvent> for Event {
    fn from(event: ModuleEvent) -> Self {
        let module = Some(event.module).filter(|module| !module.is_empty());
        Self { at: Moment(event.at_ms), node: event.node, module, alarm: event.alarm, text: event.text }
    }
}

/// Prints what was decided on the node asked.
pub(crate) async fn run(context: &Context, args: EventsArgs) -> Result<Exit, Failure> {
    let client = Client::connect(context).await?;
    let module = args.module.unwrap_or_default();
    let since_ms = args.since.map_or(0, |since| {
        let ago = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        clock::unix_ms().saturating_sub(ago)
    });
    let request = ListEventsRequest { module: module.clone(), since_ms, limit: args.lines };
    let answer = client.call(client.modules().list_events(request)).await?;
    // What happened to a module outlives it, so its name is doubted only when nothing is known of it.
    if answer.events.is_empty() && !module.is_empty() {
        require_entries(&client, &module).await?;
    }
    let events: Vec<Event> = answer.events.into_iter().map(Event::from).collect();
    context.printer.data(&events, || table(&events))?;
    Ok(Exit::Done)
}

fn table(events: &[Event]) -> Table {
    let mut table = Table::with_prose(["TIME (UTC)", "NODE", "MODULE", "EVENT"]);
    for event in events {
        let (mark, tone) = if event.alarm { ("! ", Tone::Bad) } else { ("", Tone::Plain) };
        table.row([
            Cell::new(event.at.short(), Tone::Faint),
            // The first lines are older than the name.
            Cell::plain(if event.node.is_empty() { "-" } else { &event.node }),
            Cell::plain(event.module.as_deref().unwrap_or("-")),
            Cell::new(format!("{mark}{}", event.text), tone),
        ]);
    }
    if events.is_empty() {
        table.below("No events yet.");
    }
    table
}
