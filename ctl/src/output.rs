//! The only door to the standard streams: data to stdout, everything else to stderr.

use std::io::{ErrorKind, IsTerminal, Write};

use owo_colors::OwoColorize;
use serde::Serialize;

use crate::cli::Format;
use crate::error::{Exit, Failure};

pub(crate) mod page;
pub(crate) mod table;
mod yaml;

pub(crate) use table::{Cell, Table, Tone};

/// Prints in the form asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printer {
    pub(crate) format: Format,
}

impl Printer {
    pub(crate) fn new(format: Format, no_color: bool) -> Self {
        if no_color {
            anstream::ColorChoice::Never.write_global();
        }
        Self { format }
    }

    /// Data: for programs as it is, for people as the table made of it.
    pub(crate) fn data<T: Serialize + ?Sized>(
        self,
        data: &T,
        table: impl FnOnce() -> Table,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Table => to_stdout(&table().render(width())),
            Format::Json | Format::Yaml => self.document(data),
        }
    }

    /// Data that people read as a few lines.
    pub(crate) fn text<T: Serialize + ?Sized>(self, data: &T, text: &str) -> Result<(), Failure> {
        match self.format {
            Format::Table => to_stdout(&format!("{text}\n")),
            Format::Json | Format::Yaml => self.document(data),
        }
    }

    /// A page of the guide: for people in the width of their terminal, for programs as it was written.
    pub(crate) fn page(self, markdown: &str) -> Result<(), Failure> {
        match self.format {
            Format::Table => to_stdout(&format!("{}\n", page::render(markdown.trim_end(), width().into()))),
            Format::Json | Format::Yaml => self.document(markdown),
        }
    }

    fn document<T: Serialize + ?Sized>(self, data: &T) -> Result<(), Failure> {
        let broken = |error| Failure::failed("the answer cannot be written in this form").cause(error);
        match self.format {
            Format::Yaml => to_stdout(&yaml::render(&serde_json::to_value(data).map_err(broken)?)),
            Format::Table | Format::Json => {
                to_stdout(&format!("{}\n", serde_json::to_string_pretty(data).map_err(broken)?))
            }
        }
    }

    /// One line of data as it comes; for programs a JSON text.
    pub(crate) fn line(self, line: &str) -> Result<(), Failure> {
        match self.format {
            Format::Table => to_stdout(&format!("{line}\n")),
            Format::Json | Format::Yaml => {
                to_stdout(&format!("{}\n", serde_json::Value::String(line.to_owned())))
            }
        }
    }
}

/// A word to the person at the terminal.
pub(crate) fn note(text: &str) {
    to_stderr(&format!("{}\n", folded(text, 0)));
}

/// Lines that fit a person's terminal, where `lead` columns stand before the first; elsewhere as they are. A command stays
/// on one line, so that it can be copied.
fn folded(text: &str, lead: usize) -> String {
    let Some(width) = table::terminal_width().filter(|_| std::io::stderr().is_terminal()) else {
        return text.to_owned();
    };
    let lead = " ".repeat(lead);
    let fold = |line: &str| {
        let fits = lead.len() + line.chars().count() <= usize::from(width);
        if fits || line.contains("safectl ") {
            return line.to_owned();
        }
        let indent = &line[..line.len() - line.trim_start().len()];
        let before = format!("{lead}{indent}");
        let lines = page::fill(line, &before, &before, width.into());
        lines.join("\n").split_off(lead.len())
    };
    text.lines().map(fold).collect::<Vec<_>>().join("\n")
}

/// A question without an end of line.
pub(crate) fn ask(text: &str) {
    to_stderr(text);
}

/// What went wrong, why, what to type.
pub(crate) fn failure(failure: &Failure) {
    if failure.message.is_empty() {
        return;
    }
    let word = match failure.exit {
        Exit::Done | Exit::Condition => format!("{}", "waiting:".yellow().bold()),
        Exit::Failed | Exit::Usage => format!("{}", "error:".red().bold()),
    };
    let mut text = format!("{word} {}\n", folded(&failure.message, "error: ".len()));
    for (label, part) in [("why", &failure.cause), ("try", &failure.hint)] {
        if let Some(part) = part {
            text.push_str(&format!(
                "  {} {}\n",
                format_args!("{label}:").bold(),
                folded(part, "  why: ".len())
            ));
        }
    }
    to_stderr(&text);
}

/// There is a person to ask.
pub(crate) fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Columns of the terminal; 80 where there is none.
fn width() -> u16 {
    table::terminal_width().unwrap_or(80)
}

fn to_stdout(text: &str) -> Result<(), Failure> {
    let mut stream = anstream::stdout().lock();
    match stream.write_all(text.as_bytes()).and_then(|()| stream.flush()) {
        Ok(()) => Ok(()),
        // Whoever reads has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Failure::silent(Exit::Done)),
        Err(error) => Err(Failure::failed("cannot write to stdout").cause(error)),
    }
}

fn to_stderr(text: &str) {
    // Nobody is left to hear of a failure here.
    drop(anstream::stderr().lock().write_all(text.as_bytes()));
}
