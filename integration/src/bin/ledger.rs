//! The ledger as a program: `ledger --file FILE --listen ADDRESS:PORT`. Ended by a signal.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use safe_integration::ledger::server;

/// A ledger over HTTP: POST /entries, GET /entries, GET /count.
#[derive(Parser)]
struct Arguments {
    /// Where it is kept.
    #[arg(long)]
    file: PathBuf,
    /// Where it listens.
    #[arg(long, default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Standard error may be closed; the ledger works all the same.
    let say = |line| drop(writeln!(std::io::stderr(), "ledger: {line}"));
    let Err(error) = server::serve(&arguments.file, arguments.listen, say) else { return ExitCode::SUCCESS };
    say(error.to_string());
    ExitCode::from(2)
}
