//! `safectl`: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    safectl::run(std::env::args_os())
}
