//! `make campaign MINUTES=60 SEED=1`: faults by seed on real hosts in namespaces; a table of what came of it.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use safe_integration::campaign::{Campaign, Outcome};
use safe_integration::error::Result;
use safe_integration::{clock, interrupt};

/// A fault campaign.
#[derive(Parser)]
struct Arguments {
    /// How long; the round that runs then is ended.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Which faults; by default others each time. The same seed draws the same faults.
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(outcome) => {
            say(&outcome.to_string());
            ExitCode::SUCCESS
        }
        Err(_) if interrupt::happened() => ExitCode::from(130),
        Err(error) => {
            say(&format!("campaign: {error}"));
            ExitCode::from(1)
        }
    }
}

fn run(arguments: &Arguments) -> Result<Outcome> {
    let seed = arguments.seed.unwrap_or_else(|| clock::since_epoch().as_secs());
    say(&format!("seed {seed}"));
    let campaign = Campaign::begin("campaign", seed)?;
    campaign.run(Duration::from_secs(arguments.minutes * 60), say)
}

/// Standard output may be closed; the exit code tells.
fn say(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}
