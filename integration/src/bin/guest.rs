//! The door into a virtual machine; started by the harness only.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use safe_integration::vm::guest;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    part: Part,
}

#[derive(Subcommand)]
enum Part {
    /// In the machine: runs what is asked for.
    Serve,
    /// Beside the machine: asks.
    Call {
        /// Program and arguments.
        #[arg(last = true, required = true)]
        words: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let end = match Arguments::parse().part {
        Part::Serve => guest::serve().map(|()| 0),
        Part::Call { words } => guest::call(words),
    };
    let error = match end {
        Ok(code) => return ExitCode::from(code),
        Err(error) => error,
    };
    // Standard error may be closed: the exit code still tells.
    drop(writeln!(std::io::stderr(), "guest: {error}"));
    ExitCode::from(255)
}
