//! Comparisons of the copies: when one is due, and what came of it.

use safe_proto::replication::Verification as Report;

use super::Keeper;
use crate::node::What;

impl Keeper {
    /// Tells what is known of comparisons so far; `report`: the last one of the one that runs.
    pub(super) async fn tell_verification(&self, report: Option<&Report>) {
        let status = self.verification.status(report).map(Box::new);
        self.setup.reporter.tell(What::Verification(status)).await;
    }

    pub(super) async fn see_whether_to_verify(&mut self) {
        let every = self.setup.module.spec.replication.verify;
        if self.mounted && self.verification.is_due(every) {
            self.setup.reporter.tell(What::VerifyDue).await;
        }
    }

    /// The replicator is gone, and with it the comparison that it made.
    pub(super) async fn verification_interrupted(&mut self) {
        if self.verification.interrupted() {
            self.note(false, "comparing the copies ended early: the replicator is gone");
            self.tell_verification(None).await;
        }
    }

    pub(super) async fn verified(&mut self, report: Report) {
        if self.verification.report(&report) {
            let (alarm, text) = outcome(&self.setup.module.name, &report);
            self.note(alarm, &text);
        }
        self.tell_verification(Some(&report)).await;
    }
}

/// What came of it, for people; and whether one of them must look.
fn outcome(module: &str, report: &Report) -> (bool, String) {
    let compared = format!("{} files, {} bytes compared", report.files, report.bytes);
    if report.differences == 0 {
        return match report.reason.as_str() {
            "" => (false, format!("both copies are equal: {compared}")),
            reason => (false, format!("comparing the copies ended early: {reason}")),
        };
    }
    let first: Vec<String> =
        report.named.iter().take(3).map(|one| format!("{} ({})", one.path, one.what)).collect();
    let next = if report.repair {
        "they are resent".to_owned()
    } else {
        format!("to resend them: safectl verify {module} --repair")
    };
    let early =
        if report.reason.is_empty() { String::new() } else { format!(" It ended early: {}", report.reason) };
    let text = format!(
        "THE COPIES DIFFER in {} places: {}; {next}; {compared}{early}",
        report.differences,
        first.join(", ")
    );
    (true, text)
}

#[cfg(test)]
mod tests {
    use safe_proto::replication::VerifyDifference;

    use super::*;

    #[test]
    fn only_a_difference_is_an_alarm() {
        let equal = Report { done: true, files: 3, bytes: 10, ..Report::default() };
        let outcome = |report: &Report| outcome("db", report);
        assert_eq!(outcome(&equal), (false, "both copies are equal: 3 files, 10 bytes compared".to_owned()));
        let early = Report { reason: "the session was lost".to_owned(), ..equal.clone() };
        assert!(!outcome(&early).0 && outcome(&early).1.contains("the session was lost"));
        let one = VerifyDifference {
            path: "/d/file".to_owned(),
            what: "content".to_owned(),
            ..VerifyDifference::default()
        };
        let (alarm, text) = outcome(&Report { differences: 1, named: vec![one], ..equal });
        assert!(
            alarm && text.contains("/d/file (content)") && text.contains("safectl verify db --repair"),
            "{text}"
        );
    }
}
