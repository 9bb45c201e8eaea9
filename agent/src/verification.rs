//! The last comparison of a module's copies that this node made: kept across restarts, and when the next one is due.

use std::path::{Path, PathBuf};
use std::time::Duration;

use safe_proto::module::{VerifyDifference, VerifyStatus};
use safe_proto::replication::Verification as Report;
use safe_proto::spec::value::Verify;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{clock, store};

/// Between two looks at the calendar.
const GLANCE: Duration = Duration::from_secs(60);
/// Differences that are kept by name.
const NAMED: usize = 20;

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// Unix seconds at which the last one began, or since when one is awaited.
    since: u64,
    /// Unix seconds at which it ended; 0: there was none.
    ended: u64,
    files: u64,
    bytes: u64,
    differences: u64,
    named: Vec<Named>,
    repair: bool,
    reason: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Named {
    path: String,
    what: String,
    offset: u64,
    length: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Verification {
    path: PathBuf,
    record: Option<Record>,
    /// When the one that runs began, in Unix seconds.
    running: Option<u64>,
    glance: Instant,
}

impl Verification {
    /// What is kept there; a record that cannot be read counts as none.
    #[must_use]
    pub fn load(path: &Path) -> Self {
        let record = std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Self { path: path.to_path_buf(), record, running: None, glance: clock::instant() + GLANCE }
    }

    /// When to look whether one is due.
    #[must_use]
    pub const fn next_glance(&self) -> Instant {
        self.glance
    }

    /// Whether one is due now. The first is due a whole period after this is first asked: the copies were just made.
    pub fn is_due(&mut self, every: Verify) -> bool {
        self.glance = clock::instant() + GLANCE;
        let days = match every {
            Verify::Off => return false,
            Verify::Daily => 1,
            Verify::Weekly => 7,
            Verify::Monthly => 30,
        };
        if self.running.is_some() {
            return false;
        }
        let now = clock::unix_s();
        let Some(record) = &self.record else {
            self.keep(Record { since: now, ..Record::default() });
            return false;
        };
        now >= record.since.max(record.ended).saturating_add(days * 86_400)
    }

    /// What the replicator says; true: that was the end.
    pub fn report(&mut self, report: &Report) -> bool {
        let began = *self.running.get_or_insert_with(clock::unix_s);
        if !report.done {
            return false;
        }
        self.running = None;
        let named = report.named.iter().take(NAMED);
        self.keep(Record {
            since: began,
            ended: clock::unix_s(),
            files: report.files,
            bytes: report.bytes,
            differences: report.differences,
            named: named
                .map(|one| Named {
                    path: one.path.clone(),
                    what: one.what.clone(),
                    offset: one.offset,
                    length: one.length,
                })
                .collect(),
            repair: report.repair,
            reason: report.reason.clone(),
        });
        true
    }

    /// The replicator died: the one that ran has come to nothing. True: there was one.
    pub fn interrupted(&mut self) -> bool {
        self.running.take().is_some()
    }

    fn keep(&mut self, record: Record) {
        let kept = serde_json::to_vec(&record)
            .map_err(std::io::Error::from)
            .and_then(|bytes| store::replace_file(&self.path, &bytes));
        if let Err(error) = kept {
            tracing::warn!(%error, path = %self.path.display(), "the result of a comparison cannot be kept");
        }
        self.record = Some(record);
    }

    /// The one that runs, as its last report says, or the last one; none: there was none.
    #[must_use]
    pub fn status(&self, report: Option<&Report>) -> Option<VerifyStatus> {
        if let (Some(began), Some(report)) = (self.running, report) {
            return Some(VerifyStatus {
                running: true,
                started: seconds(began),
                files: report.files,
                bytes: report.bytes,
                bytes_total: report.bytes_total,
                rate: report.rate,
                eta_s: report.eta_s,
                differences: report.differences,
                repair: report.repair,
                ..VerifyStatus::default()
            });
        }
        let record = self.record.as_ref().filter(|record| record.ended != 0)?;
        let named = record.named.iter().map(|one| VerifyDifference {
            path: one.path.clone(),
            what: one.what.clone(),
            offset: one.offset,
            length: one.length,
        });
        Some(VerifyStatus {
            running: false,
            started: seconds(record.since),
            ended: seconds(record.ended),
            files: record.files,
            bytes: record.bytes,
            bytes_total: record.bytes,
            differences: record.differences,
            named: named.collect(),
            repair: record.repair,
            reason: record.reason.clone(),
            ..VerifyStatus::default()
        })
    }
}

fn seconds(unix: u64) -> i64 {
    i64::try_from(unix).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_of_it_is_kept_and_what_was_interrupted_is_not() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("verification");
        let mut verification = Verification::load(&path);
        assert!(!verification.is_due(Verify::Daily), "the first is due a whole period later");
        assert_eq!(verification.status(None), None);
        let running = Report { files: 3, bytes: 10, ..Report::default() };
        assert!(!verification.report(&running));
        assert!(
            verification.status(Some(&running)).is_some_and(|status| status.running && status.files == 3)
        );
        assert!(verification.interrupted() && !verification.interrupted());
        assert_eq!(verification.status(None), None, "it came to nothing");
        assert!(!verification.report(&running));
        let done = Report { done: true, differences: 2, ..running };
        assert!(verification.report(&done));
        let kept = Verification::load(&path).status(None).expect("kept");
        assert!(!kept.running && kept.ended > 0);
        assert_eq!((kept.files, kept.bytes, kept.differences), (3, 10, 2));
    }

    #[test]
    fn one_is_due_a_period_after_the_last_unless_one_runs() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("verification");
        let old = Record { since: 1, ended: 2, ..Record::default() };
        std::fs::write(&path, serde_json::to_vec(&old).expect("plain")).expect("written");
        let mut verification = Verification::load(&path);
        assert!(verification.is_due(Verify::Monthly) && !verification.is_due(Verify::Off));
        verification.report(&Report::default());
        assert!(!verification.is_due(Verify::Daily), "one runs");
        verification.interrupted();
        assert!(verification.is_due(Verify::Daily));
    }
}
