//! `safectl verify`

use clap::Args;
use safe_proto::module::{Command, ControlModuleRequest};

use super::control::require_entries;
use crate::client::Client;
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::output::{self, Cell, Table, Tone};
use crate::status::{Entry, Verify};
use crate::{clock, follow};

/// Between two looks.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(250);

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Module
    module: String,
    /// Resend what differs from the node that serves: the other one is brought in step as after a failure
    #[arg(long)]
    repair: bool,
}

/// Begins a comparison where the module serves, and follows it to its end.
pub(crate) async fn run(context: &Context, args: VerifyArgs) -> Result<Exit, Failure> {
    let client = Client::connect(context).await?;
    let module = args.module;
    let before = require_entries(&client, &module).await?;
    let request = ControlModuleRequest {
        name: module.clone(),
        command: Command::Verify.into(),
        repair: args.repair,
        ..ControlModuleRequest::default()
    };
    let answer = client.call(client.modules().control_module(request)).await?;
    let node = answer.outcomes.into_iter().find(|outcome| outcome.accepted).map(|outcome| outcome.node);
    let Some(node) = node else {
        return Err(Failure::failed(format!("no node of {module} took the command"))
            .hint(format!("safectl status {module}")));
    };
    if context.wait.is_none() {
        output::note(&format!("{node} compares both copies; to see how far it is: safectl status {module}"));
        return Ok(Exit::Done);
    }
    let earlier = of_node(&before, &node).filter(|verify| !verify.running);
    let verify = ended(context, &client, &module, &node, earlier.as_ref()).await?;
    context.printer.data(&verify, || table(&node, &verify))?;
    conclude(&module, &node, &verify)
}

fn of_node(entries: &[Entry], node: &str) -> Option<Verify> {
    entries.iter().find(|entry| entry.node == node)?.data.verify.clone()
}

/// Waits for the end of the comparison that was begun, which is another one than `earlier`.
async fn ended(
    context: &Context,
    client: &Client,
    module: &str,
    node: &str,
    earlier: Option<&Verify>,
) -> Result<Verify, Failure> {
    let deadline = clock::now() + context.wait_timeout;
    let mut seen = false;
    let mut said = String::new();
    loop {
        let entries = follow::status(client, module).await?;
        match of_node(&entries, node) {
            Some(verify) if verify.running => {
                seen = true;
                said = progress(&verify, &said);
            }
            Some(verify) if seen || Some(&verify) != earlier => return Ok(verify),
            Some(_) | None => {}
        }
        if clock::now() >= deadline {
            return Err(Failure::condition(format!("{node} still compares the copies of {module}"))
                .hint(format!("safectl status {module} -o json (or a longer --wait-timeout)")));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Says how far it is, once for each tenth; answers what was said last.
fn progress(verify: &Verify, said: &str) -> String {
    let tenth = (verify.bytes * 10).checked_div(verify.bytes_total).unwrap_or(0);
    let left = verify.eta_s.map_or_else(String::new, |seconds| format!(", {seconds} s to go"));
    let now = format!("{}0 %", tenth.min(9));
    if now != said && tenth > 0 {
        output::note(&format!("{now} compared, {} files{left}", verify.files));
    }
    now
}

fn conclude(module: &str, node: &str, verify: &Verify) -> Result<Exit, Failure> {
    if let Some(reason) = &verify.reason {
        return Err(Failure::failed(format!("comparing the copies ended early: {reason}"))
            .hint(format!("safectl verify {module}")));
    }
    if verify.differences == 0 {
        return Ok(Exit::Done);
    }
    let failure =
        Failure::condition(format!("the copies of {module} differ in {} places", verify.differences));
    Err(if verify.repair {
        failure
            .cause(format!("what differs is resent from {node}"))
            .hint(format!("safectl wait {module} --on {node} --state PRIM; safectl verify {module}"))
    } else {
        failure
            .cause(format!("{node} serves; the other copy is not what it should be"))
            .hint(format!("safectl verify {module} --repair"))
    })
}

fn table(node: &str, verify: &Verify) -> Table {
    let mut table = Table::with_prose(["PATH", "DIFFERS IN", "RANGE"]);
    for one in &verify.named {
        let range = match (one.what.as_str(), one.length) {
            ("content", u64::MAX) => format!("from {} to the end", one.offset),
            ("content", length) => format!("{length} bytes from {}", one.offset),
            _ => "-".to_owned(),
        };
        table.row([Cell::plain(&one.path), Cell::new(&one.what, Tone::Bad), Cell::plain(range)]);
    }
    let more = verify.differences.saturating_sub(verify.named.len() as u64);
    let more = if more > 0 { format!(", {more} more differences") } else { String::new() };
    let found = if verify.differences == 0 { "both copies are equal" } else { "THE COPIES DIFFER" };
    table.below(format!("{found}: {} files, {} bytes compared by {node}{more}", verify.files, verify.bytes));
    table
}
