//! The door to a host for programs that are started from outside.

use super::*;

use std::os::unix::process::ExitStatusExt as _;

pub(super) fn enter(init: u32, words: &[std::ffi::OsString]) -> Result<u8> {
    let [program, arguments @ ..] = words else { return Err(Error::new("no program")) };
    // Ctrl-C at the terminal is for the test: the hosts' programs are ended by it, in its order.
    rustix::process::setsid().context(|| "own session".to_owned())?;
    crate::linux::enter_host(init)?;
    let status = Command::new(program)
        .args(arguments)
        .current_dir("/")
        .status()
        .context(|| program.to_string_lossy().into_owned())?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
}
