//! The command line of safed.
//!
//! In reading order: `cli` (what can be typed), `context` (what was meant), `command` (one file for each noun),
//! `client` (the way to a `safed`), `status` (what it says), `goal` and `follow` (waiting for it), `forecast` (who will
//! serve), `output` (the only door to the standard streams), `error`.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

mod cli;
mod client;
mod clock;
mod command;
mod context;
mod directory;
mod error;
mod follow;
mod forecast;
mod goal;
mod moment;
mod output;
mod paths;
mod progress;
mod status;

use cli::Cli;
use context::Context;
use error::{Exit, Failure};

/// Runs one command line, the program's name first. The exit code is 0: done, 1: condition not met or a person is
/// awaited, 2: failed, 64: wrong usage.
pub fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match resolve_and_run(cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output::failure(&failure);
            failure.exit.into()
        }
    }
}

fn resolve_and_run(cli: Cli) -> Result<Exit, Failure> {
    let (context, command) = Context::resolve(cli)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed("safectl cannot start").cause(error))?;
    runtime.block_on(command::run(&context, command))
}

/// What clap has to say: help and version are what was asked for, the rest is wrong usage.
fn usage(error: &clap::Error) -> ExitCode {
    let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    // A closed pipe (`safectl --help | head`) is no failure.
    drop(error.print());
    if asked { Exit::Done.into() } else { Exit::Usage.into() }
}
