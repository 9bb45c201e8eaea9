//! What went wrong: message, cause, what to type next, and the exit code.

use std::error::Error;
use std::fmt::Display;
use std::process::ExitCode;

use tonic::{Code, Status};

/// Exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done,
    /// A condition is not met, or a person is awaited.
    Condition,
    /// Failed.
    Failed,
    /// Wrong usage.
    Usage,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => Self::SUCCESS,
            Exit::Condition => Self::from(1),
            Exit::Failed => Self::from(2),
            Exit::Usage => Self::from(64),
        }
    }
}

/// Why a command did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What happened. Empty: nothing more is to be said.
    pub(crate) message: String,
    /// Why.
    pub(crate) cause: Option<String>,
    /// What to type next.
    pub(crate) hint: Option<String>,
    /// The exit code.
    pub(crate) exit: Exit,
}

impl Failure {
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { message: message.into(), cause: None, hint: None, exit: Exit::Failed }
    }

    pub(crate) fn condition(message: impl Into<String>) -> Self {
        Self { exit: Exit::Condition, ..Self::failed(message) }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, ..Self::failed(message) }
    }

    /// The exit code alone: everything was said already.
    pub(crate) fn silent(exit: Exit) -> Self {
        Self { exit, ..Self::failed("") }
    }

    #[must_use]
    pub(crate) fn cause(self, cause: impl Display) -> Self {
        Self { cause: Some(cause.to_string()), ..self }
    }

    #[must_use]
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// What a `safed` answered. `place` says which one was asked.
    pub(crate) fn from_status(status: &Status, place: &str) -> Self {
        let message = status.message();
        let code = status.code();
        if code == Code::Unimplemented {
            return Self::failed(format!("the safed at {place} does not know this command"))
                .cause(message)
                .hint("safectl version (both should be of one release)");
        }
        if code == Code::DeadlineExceeded && message.is_empty() {
            return timed_out(place);
        }
        // Only what this side noticed has a source.
        if status.source().is_some() {
            return Self::failed(format!("the connection to the safed at {place} broke"))
                .cause(deepest(status));
        }
        Self::failed(if message.is_empty() { format!("safed refused: {code}") } else { message.to_owned() })
    }
}

/// The `safed` did not answer within `--timeout`.
pub(crate) fn timed_out(place: &str) -> Failure {
    Failure::failed(format!("the safed at {place} did not answer in time"))
        .hint("try again with a longer --timeout; what safed writes to stderr says what it is busy with")
}

/// The innermost cause: the ones around it only say "transport error".
pub(crate) fn deepest(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_sentence_is_kept() {
        let status = Status::failed_precondition("db is stopped on n1; type: safectl start db");
        let failure = Failure::from_status(&status, "/run/x");
        assert_eq!(failure.message, "db is stopped on n1; type: safectl start db");
        assert_eq!(failure.exit, Exit::Failed);
    }

    #[test]
    fn an_old_daemon_is_named() {
        let failure = Failure::from_status(&Status::unimplemented(""), "/run/x");
        assert!(failure.message.contains("does not know this command"));
        assert!(failure.hint.is_some());
    }
}
