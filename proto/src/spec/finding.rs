//! What is wrong with a module.

use std::fmt;

/// One thing that is wrong, or worth knowing, in a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// It refuses the module; else it is a warning.
    pub error: bool,
    /// File relative to the module's directory.
    pub file: String,
    /// Line, from 1; 0: the file as a whole.
    pub line: u32,
    /// What is wrong, and a suggestion.
    pub message: String,
}

impl Finding {
    /// An error about a file as a whole.
    #[must_use]
    pub fn error(file: &str, message: String) -> Self {
        Self { error: true, file: file.to_owned(), line: 0, message }
    }

    /// A warning about a file as a whole.
    #[must_use]
    pub fn warning(file: &str, message: String) -> Self {
        Self { error: false, file: file.to_owned(), line: 0, message }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {}: {}", if self.error { "error" } else { "warning" }, self.message)
    }
}

impl From<Finding> for crate::module::Finding {
    fn from(finding: Finding) -> Self {
        Self { error: finding.error, file: finding.file, line: finding.line, message: finding.message }
    }
}

impl From<crate::module::Finding> for Finding {
    fn from(finding: crate::module::Finding) -> Self {
        Self { error: finding.error, file: finding.file, line: finding.line, message: finding.message }
    }
}
