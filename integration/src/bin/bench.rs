//! `make bench`: a mirrored directory beside a plain one, a bare FUSE mount, GlusterFS and rsync; a table is added to
//! `integration/benches/RESULTS.md`, JSON and a chart are written beside it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use safe_integration::bench::{self, Plan, small};
use safe_integration::error::Result;
use safe_integration::prerequisites;

/// Measures a mirrored directory beside others.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// Where the record is.
    #[arg(long, default_value = "integration/benches")]
    results: PathBuf,
    /// How often each workload runs on each directory.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Seconds that a workload of fio or pgbench runs.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Backing directories in memory.
    #[arg(long)]
    memory: bool,
    /// Only workloads whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Without GlusterFS.
    #[arg(long)]
    no_gluster: bool,
    /// Without resynchronisation and rsync.
    #[arg(long)]
    no_resync: bool,
}

#[derive(Subcommand)]
enum Part {
    /// Makes, looks at and removes small files; figures as JSON. Run on a host by the benchmark.
    #[command(hide = true)]
    Small {
        /// A directory that does not exist.
        directory: PathBuf,
        /// How many files.
        count: u32,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Err(error) = run(arguments) else { return ExitCode::SUCCESS };
    drop(writeln!(std::io::stderr(), "bench: {error}"));
    ExitCode::from(2)
}

fn run(arguments: Arguments) -> Result<()> {
    if let Some(Part::Small { directory, count }) = arguments.part {
        writeln!(std::io::stdout(), "{}", small::run(&directory, count)?)?;
        return Ok(());
    }
    prerequisites::check()?;
    let plan = Plan {
        rounds: arguments.rounds.clamp(1, 100),
        time: Duration::from_secs(arguments.seconds.clamp(1, 600)),
        memory: arguments.memory,
        only: arguments.only,
        gluster: !arguments.no_gluster,
        resync: !arguments.no_resync,
    };
    bench::run(&plan, &arguments.results)
}
