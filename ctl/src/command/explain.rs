//! `safectl explain`

use clap::Args;
use safe_proto::module::{ExplainModuleRequest, Explanation};
use serde::Serialize;

use crate::client::Client;
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::output::{Cell, Table, Tone};

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Module
    module: String,
}

/// The documented JSON.
#[derive(Debug, Serialize)]
struct Line {
    question: String,
    answer: String,
    hint: Option<String>,
}

impl From<Explanation> for Line {
    fn from(line: Explanation) -> Self {
        let hint = Some(line.hint).filter(|hint| !hint.is_empty());
        Self { question: line.question, answer: line.answer, hint }
    }
}

/// Says why, and what if, on the node asked.
pub(crate) async fn run(context: &Context, args: ExplainArgs) -> Result<Exit, Failure> {
    let client = Client::connect(context).await?;
    let answer =
        client.call(client.modules().explain_module(ExplainModuleRequest { module: args.module })).await?;
    let node = answer.node;
    let lines: Vec<Line> = answer.lines.into_iter().map(Line::from).collect();
    context.printer.data(&lines, || table(&node, &lines))?;
    Ok(Exit::Done)
}

fn table(node: &str, lines: &[Line]) -> Table {
    let mut table = Table::with_prose(["QUESTION", "ANSWER"]);
    for line in lines {
        let hint = line.hint.as_ref().map(|hint| format!("; type: {hint}")).unwrap_or_default();
        table.row([Cell::new(&line.question, Tone::Faint), Cell::plain(format!("{}{hint}", line.answer))]);
    }
    table.below(format!("As {node} sees it."));
    table
}
