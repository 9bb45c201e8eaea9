//! The door into a virtual machine; started by the harness only.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use safe_integration::vm::{guest, stress};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    part: Part,
}

#[derive(Subcommand)]
enum Part {
    /// In the machine: runs what is asked for.
    Serve,
    /// In the machine: writes in many ways and says what is durable, until its input ends.
    Stress {
        /// Where.
        directory: PathBuf,
        /// Tells it from all runs before.
        run: u32,
        /// Milliseconds between two operations of each kind.
        #[arg(long, env = "STRESS_PACE", default_value_t = 0)]
        pace: u64,
    },
    /// In the machine: is everything there that its input names?
    Verify {
        /// Where.
        directory: PathBuf,
    },
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
        Part::Stress { directory, run, pace } => {
            stress::work(&directory, run, Duration::from_millis(pace)).map(|()| 0)
        }
        Part::Verify { directory } => {
            stress::verify(&directory, std::io::stdin().lock(), std::io::stdout()).map(|good| u8::from(!good))
        }
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
