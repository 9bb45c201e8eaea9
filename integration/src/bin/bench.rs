//! `make bench`: fio on a mirrored directory beside the plain directory on the same disk, in the same run; a table is
//! added to `integration/benches/RESULTS.md`.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;
use safe_integration::error::{Context as _, Result};
use safe_integration::fio::JOBS;
use safe_integration::timeline::{Timeline, Tone};
use safe_integration::{Cluster, Module, interrupt, prerequisites};

/// Measures a mirrored directory beside a plain one.
#[derive(Parser)]
struct Arguments {
    /// Where the table is added.
    #[arg(long, default_value = "integration/benches/RESULTS.md")]
    results: PathBuf,
}

const MIRRORED: &str = "/srv/data/bench";
const PLAIN: &str = "/srv/plain";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let measured = prerequisites::check().and_then(|()| run(&arguments.results));
    let Err(error) = measured else { return ExitCode::SUCCESS };
    drop(writeln!(std::io::stderr(), "bench: {error}"));
    ExitCode::from(2)
}

fn run(results: &Path) -> Result<()> {
    interrupt::listen()?;
    let timeline = Timeline::new();
    let c = Cluster::two_nodes("bench")?;
    c.start_module(&Module::mirror("bench").replicate(MIRRORED))?;
    let node = c.node(0);
    node.shell(&format!("mkdir {PLAIN}"))?;
    let mut table =
        format!("\n## {}\n\n| job | plain | mirrored | part |\n| --- | --- | --- | --- |\n", title()?);
    for job in JOBS {
        let plain = job.run(node, PLAIN)?;
        let mirrored = job.run(node, MIRRORED)?;
        let line = format!(
            "| {} | {} | {} | {:.2} |\n",
            job.name,
            plain.text(),
            mirrored.text(),
            mirrored.part_of(&plain)
        );
        timeline.event(Tone::Figure, line.trim());
        table.push_str(&line);
    }
    c.finish()?;
    let mut file = OpenOptions::new().append(true).create(true).open(results)?;
    file.write_all(table.as_bytes()).context(|| results.display().to_string())
}

/// Day and commit.
fn title() -> Result<String> {
    let said = |program: &str, words: &[&str]| -> Result<String> {
        let output = Command::new(program).args(words).output().context(|| program.to_owned())?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let day = said("date", &["--utc", "+%Y-%m-%d"])?;
    Ok(format!("{day}, {}", said("git", &["describe", "--always", "--dirty"])?))
}
