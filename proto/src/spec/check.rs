//! Rules that a single key cannot express.

use super::{FILE, Finding, ModuleSpec, Surroundings};

mod arbiters;
mod directories;
mod members;
mod network;
mod release;
mod timing;
mod watching;

pub(super) use directories::overlap;

/// Checks the whole; findings in the order of their lines.
pub(super) fn check(spec: &ModuleSpec, around: Surroundings<'_>) -> Vec<Finding> {
    let mut report = Report { spec, findings: Vec::new() };
    members::check(&mut report, around);
    timing::check(&mut report);
    directories::check(&mut report, around.own_paths);
    network::check(&mut report, around);
    arbiters::check(&mut report, around);
    watching::check(&mut report);
    release::check(&mut report);
    report.findings.sort_by_key(|finding| finding.line);
    report.findings
}

/// Findings as they are made.
struct Report<'a> {
    spec: &'a ModuleSpec,
    findings: Vec<Finding>,
}

impl Report<'_> {
    fn error(&mut self, key: &str, message: impl Into<String>) {
        self.findings.push(self.spec.finding(true, key, message.into()));
    }

    fn warning(&mut self, key: &str, message: impl Into<String>) {
        self.findings.push(self.spec.finding(false, key, message.into()));
    }

    /// A note about the file, not about a line of it.
    fn note(&mut self, message: impl Into<String>) {
        self.findings.push(Finding::warning(FILE, message.into()));
    }

    /// Refuses more than `most` entries of a list.
    fn at_most(&mut self, key: &str, len: usize, most: usize) {
        if len > most {
            self.error(key, format!("{len} entries of {key}; at most {most} are allowed"));
        }
    }
}

/// Index of the first entry equal to an earlier one.
fn repeated<T: PartialEq>(items: &[T]) -> Option<usize> {
    (1..items.len()).find(|&index| items[..index].contains(&items[index]))
}
