//! `make demo`: a failover for you to watch, on this machine, in namespaces that are gone afterwards.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use safe_integration::demo::{Demo, suggestions};
use safe_integration::error::{Error, Result};
use safe_integration::eventually::throughout;
use safe_integration::timeline::{Timeline, Tone};
use safe_integration::{interrupt, prerequisites};

/// Two hosts in namespaces, a cluster, a module; its primary loses power, returns, and takes its role back.
#[derive(Parser)]
struct Arguments {
    /// Leave it running until Ctrl-C, and say what to try.
    #[arg(long)]
    keep: bool,
}

/// A kept cluster is taken down after a week.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(error) = prerequisites::check() {
        return fail(&error, 2);
    }
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(_) if interrupt::happened() => ExitCode::from(130),
        Err(error) => fail(&error, 2),
    }
}

fn fail(error: &Error, code: u8) -> ExitCode {
    // Standard error may be closed; the exit code tells.
    drop(writeln!(std::io::stderr(), "demo: {error}"));
    ExitCode::from(code)
}

fn run(arguments: &Arguments) -> Result<bool> {
    interrupt::listen()?;
    let timeline = Timeline::new();
    let demo = Demo::up(&timeline)?;
    let outcome = demo.play(&timeline)?;
    timeline.plain(&format!("\n{}\n", outcome.table()));
    if arguments.keep {
        timeline.plain(&suggestions(demo.cluster())?);
        let kept = throughout(KEPT, "kept", || Ok(true));
        timeline.event(Tone::Step, "taking everything down");
        drop(kept);
    }
    demo.finish()?;
    Ok(outcome.is_good())
}
