//! Holds the namespaces of one host of a test cluster; started by the harness only.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use safe_integration::guardian::{self, Charge};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    part: Part,
    #[arg(long, global = true, default_value = "")]
    name: String,
    #[arg(long, global = true)]
    disk: Option<PathBuf>,
    #[arg(long, global = true)]
    boot_id: Option<PathBuf>,
    #[arg(long, global = true)]
    lock: Option<PathBuf>,
    #[arg(long, global = true)]
    remove: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Part {
    /// Outside: starts init, cleans up behind it.
    Keep,
    /// Inside: process 1 of the host.
    Init,
    /// Runs a program inside.
    Enter {
        /// Process 1 of the host.
        #[arg(long)]
        host: u32,
        #[arg(last = true)]
        words: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    use std::io::Write as _;

    let Arguments { part, name, disk, boot_id, lock, remove } = Arguments::parse();
    let charge = Charge { name, disk, boot_id, lock, remove };
    let end = match part {
        Part::Keep => guardian::keep(&charge).map(|()| 0),
        Part::Init => guardian::init(&charge).map(|()| 0),
        Part::Enter { host, words } => guardian::enter(host, &words),
    };
    let error = match end {
        Ok(code) => return ExitCode::from(code),
        Err(error) => error,
    };
    // Standard error may be closed: the exit code still tells.
    drop(writeln!(std::io::stderr(), "guardian {}: {error}", charge.name));
    ExitCode::from(2)
}
