//! `safectl rules` and `safectl set`

use clap::{Args, ValueEnum};
use safe_proto::module::{FailoverRule, ListRulesRequest, Resource, SetResourceRequest};
use serde::Serialize;

use crate::client::Client;
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::output::{self, Cell, Table, Tone};

/// Arguments of `rules`.
#[derive(Debug, Args)]
pub(crate) struct RulesArgs {
    /// Module
    module: String,
}

/// Arguments of `set`.
#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// Module
    module: String,
    /// Resource, as in check.custom.licence
    resource: String,
    /// Value
    value: Value,
    /// Who or what sets it, and why
    #[arg(long, default_value = "set by hand")]
    reason: String,
}

/// What a resource may be set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Value {
    /// Well
    Up,
    /// Not well
    Down,
}

/// The documented JSON.
#[derive(Debug, Serialize)]
struct Listing {
    node: String,
    rules: Vec<RuleLine>,
    resources: Vec<ResourceLine>,
}

#[derive(Debug, Serialize)]
struct RuleLine {
    label: String,
    condition: String,
    action: String,
    after_ms: u64,
    origin: String,
    holds: bool,
    facts: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ResourceLine {
    name: String,
    value: String,
    since: i64,
    reason: String,
}

impl From<FailoverRule> for RuleLine {
    fn from(rule: FailoverRule) -> Self {
        let FailoverRule { label, condition, action, after_ms, origin, holds, facts } = rule;
        Self { label, condition, action, after_ms, origin, holds, facts }
    }
}

impl From<Resource> for ResourceLine {
    fn from(resource: Resource) -> Self {
        let Resource { name, value, since, reason, .. } = resource;
        Self { name, value, since, reason }
    }
}

/// Prints rules and resources as they are on the node asked.
pub(crate) async fn list(context: &Context, args: RulesArgs) -> Result<Exit, Failure> {
    let client = Client::connect(context).await?;
    let answer = client.call(client.modules().list_rules(ListRulesRequest { module: args.module })).await?;
    let listing = Listing {
        node: answer.node,
        rules: answer.rules.into_iter().map(RuleLine::from).collect(),
        resources: answer.resources.into_iter().map(ResourceLine::from).collect(),
    };
    context.printer.data(&listing, || table(&listing))?;
    Ok(Exit::Done)
}

/// Sets a resource on the node asked.
pub(crate) async fn set(context: &Context, args: SetArgs) -> Result<Exit, Failure> {
    let client = Client::connect(context).await?;
    let (module, resource, up) = (args.module, args.resource, args.value == Value::Up);
    let value = if up { "up" } else { "down" };
    let request =
        SetResourceRequest { module: module.clone(), resource: resource.clone(), up, reason: args.reason };
    client.call(client.modules().set_resource(request)).await?;
    output::note(&format!("{resource} of {module} is {value} on the node asked"));
    Ok(Exit::Done)
}

fn table(listing: &Listing) -> Table {
    let mut table = Table::with_prose(["RULE", "THEN", "AFTER", "FROM", "IF"]);
    for rule in &listing.rules {
        let (mark, tone) = if rule.holds { ("! ", Tone::Bad) } else { ("", Tone::Plain) };
        let after =
            if rule.origin == "built-in" { "-".to_owned() } else { format!("{} s", seconds(rule.after_ms)) };
        table.row([
            Cell::new(format!("{mark}{}", rule.label), tone),
            Cell::plain(&rule.action),
            Cell::plain(after),
            Cell::new(&rule.origin, Tone::Faint),
            Cell::plain(if rule.holds {
                format!("{} (now: {})", rule.condition, rule.facts.join(", "))
            } else {
                rule.condition.clone()
            }),
        ]);
    }
    let resources = listing.resources.iter().map(|resource| format!("{} {}", resource.name, resource.value));
    table.below(format!("Resources on {}: {}", listing.node, resources.collect::<Vec<_>>().join(", ")));
    table
}

fn seconds(millis: u64) -> String {
    let text = format!("{}.{:03}", millis / 1000, millis % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
