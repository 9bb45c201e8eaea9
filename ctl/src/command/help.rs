//! `safectl help`: the guide, and the options of commands.

use clap::{Args, CommandFactory};
use serde::Serialize;

use crate::cli::Cli;
use crate::context::Context;
use crate::error::{Exit, Failure};

/// Arguments of `help`.
#[derive(Debug, Args)]
pub(crate) struct HelpArgs {
    /// Topic of the guide, or a command
    topic: Vec<String>,
}

/// A page of the guide.
struct Page {
    topic: &'static str,
    about: &'static str,
    text: &'static str,
}

/// In the order of reading.
const PAGES: [Page; 9] = [
    Page { topic: "start", about: "two nodes in five minutes", text: include_str!("../../guide/start.md") },
    Page { topic: "concepts", about: "words, states, phases", text: include_str!("../../guide/concepts.md") },
    Page {
        topic: "module",
        about: "module.toml and scripts, every key",
        text: include_str!("../../guide/module.md"),
    },
    Page {
        topic: "operate",
        about: "status, swap, failover, maintenance; what to type when a node waits",
        text: include_str!("../../guide/operate.md"),
    },
    Page {
        topic: "isolation",
        about: "isolation and split brain in plain words",
        text: include_str!("../../guide/isolation.md"),
    },
    Page {
        topic: "arbiters",
        about: "third parties that decide who serves; witnesses",
        text: include_str!("../../guide/arbiters.md"),
    },
    Page {
        topic: "simulate",
        about: "play a story of failures: what would happen?",
        text: include_str!("../../guide/simulate.md"),
    },
    Page { topic: "json", about: "field names of -o json", text: include_str!("../../guide/json.md") },
    Page {
        topic: "security",
        about: "certificates, tokens, ports",
        text: include_str!("../../guide/security.md"),
    },
];

/// The documented JSON of the list.
#[derive(Debug, Serialize)]
struct Topic {
    topic: &'static str,
    about: &'static str,
}

/// Prints a page, the options of a command, or the list of both.
pub(crate) fn run(context: &Context, args: &HelpArgs) -> Result<Exit, Failure> {
    match args.topic.as_slice() {
        [] => list(context)?,
        [topic] if page(topic).is_some() => {
            let text = page(topic).map_or("", |page| page.text);
            context.printer.page(text)?;
        }
        words => {
            let text = command(words).ok_or_else(|| unknown(words))?;
            context.printer.text(&text, text.trim_end())?;
        }
    }
    Ok(Exit::Done)
}

fn page(topic: &str) -> Option<&'static Page> {
    let topic = if topic == "split-brain" { "isolation" } else { topic };
    PAGES.iter().find(|page| page.topic == topic)
}

fn list(context: &Context) -> Result<(), Failure> {
    let topics: Vec<Topic> =
        PAGES.iter().map(|page| Topic { topic: page.topic, about: page.about }).collect();
    let lines: Vec<String> =
        topics.iter().map(|topic| format!("  {:<10} {}", topic.topic, topic.about)).collect();
    let text = format!(
        "{}\n\nTopics of the guide (safectl help TOPIC):\n{}",
        Cli::command().render_help().to_string().trim_end(),
        lines.join("\n")
    );
    context.printer.text(&topics, &text)
}

/// Help of a command; `module` is a page, `module install` a command.
fn command(words: &[String]) -> Option<String> {
    let mut command = Cli::command();
    command.build();
    let mut found = &mut command;
    for word in words {
        found = found.find_subcommand_mut(word)?;
    }
    Some(found.render_long_help().to_string())
}

fn unknown(words: &[String]) -> Failure {
    let topics: Vec<&str> = PAGES.iter().map(|page| page.topic).collect();
    Failure::usage(format!("there is no topic or command \"{}\"", words.join(" ")))
        .cause(format!("topics are {}", topics.join(", ")))
        .hint("safectl help")
}
