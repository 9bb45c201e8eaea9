//! Two nodes of one module.

use std::path::{Path, PathBuf};
use std::process::Command;

use safe_proto::replication::attach_request::Command as Order;
use safe_proto::replication::attach_response::Report;
use safe_proto::replication::{Plan, Role};

use crate::certificates::Authority;
use crate::node::{Node, name};

pub(crate) struct Pair {
    pub(crate) a: Node,
    pub(crate) b: Node,
    _place: Option<tempfile::TempDir>,
}

impl Pair {
    /// Both processes run and have examined empty directories.
    pub(crate) fn new() -> Self {
        let mut pair = Self::unstarted();
        pair.start();
        pair
    }

    pub(crate) fn unstarted() -> Self {
        let place = tempfile::Builder::new().prefix("safed-mirror-").tempdir().unwrap();
        let authority = Authority::new();
        let mut a = Node::new("a", "b", place.path(), &authority);
        let mut b = Node::new("b", "a", place.path(), &authority);
        (a.endpoint, b.endpoint) = (b.address, a.address);
        Self { a, b, _place: Some(place) }
    }

    /// Of nodes whose files are somewhere else.
    pub(crate) const fn of(a: Node, b: Node) -> Self {
        Self { a, b, _place: None }
    }

    pub(crate) fn start(&mut self) {
        for node in [&mut self.a, &mut self.b] {
            node.start();
            node.examine(&[]);
        }
    }

    /// `a` is the primary, `b` in step, `a` mounted.
    pub(crate) fn paired(plan: Plan) -> Self {
        let mut pair = Self::new();
        pair.session(1, plan);
        pair.a.mount();
        pair
    }

    /// Paired, and both log what [`crate::semantics::requests::Requests`] counts.
    pub(crate) fn paired_watching_requests() -> Self {
        let mut pair = Self::unstarted();
        for node in [&mut pair.a, &mut pair.b] {
            node.log_also = crate::semantics::requests::LOG;
        }
        pair.start();
        pair.session(1, Plan::Repair);
        pair.a.mount();
        pair
    }

    /// Paired with `sync = "fsync"`.
    pub(crate) fn writing_back() -> Self {
        let mut pair = Self::unstarted();
        pair.start_writing_back();
        pair
    }

    /// As above, of nodes that were not started yet.
    pub(crate) fn start_writing_back(&mut self) {
        for node in [&mut self.a, &mut self.b] {
            node.write_back = true;
            node.log_also = crate::semantics::requests::LOG;
        }
        self.start();
        self.session(1, Plan::Repair);
        self.a.mount();
    }

    pub(crate) fn session(&mut self, session: u64, plan: Plan) {
        self.b.join(session, Role::Secondary, plan);
        self.a.join(session, Role::Primary, plan);
        self.a.expect_in_step(session);
        self.b.expect_in_step(session);
    }

    pub(crate) fn leave(&mut self, session: u64) {
        for node in [&mut self.a, &mut self.b] {
            node.order(Order::Leave(name(session)));
            node.expect("end of the session", |report| {
                matches!(report, Report::SessionEnded(_) | Report::SessionLost(_)).then_some(())
            });
        }
    }

    /// A path in the mount of `a`.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.a.data.join(path)
    }

    /// The same on `b`'s disk.
    pub(crate) fn beyond(&self, path: &str) -> PathBuf {
        self.b.data.join(path)
    }

    /// Both trees are equal.
    #[track_caller]
    pub(crate) fn assert_equal(&self) {
        assert_equal(&self.a.data, &self.b.data);
    }
}

/// Runs a script of the shell in the mount of `a`; its tests are the assertions.
#[track_caller]
pub(crate) fn script(pair: &Pair, text: &str) {
    let output = Command::new("bash")
        .args(["-eux", "-c", text])
        .current_dir(&pair.a.data)
        .env("PEER", &pair.b.data)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{text}\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[track_caller]
pub(crate) fn assert_equal(a: &Path, b: &Path) {
    let output = Command::new("rsync")
        .args(["-aHAXn", "--numeric-ids", "--checksum", "--delete", "--itemize-changes"])
        .arg("--filter=-x trusted.safed.*")
        .arg(format!("{}/", a.display()))
        .arg(format!("{}/", b.display()))
        .output()
        .unwrap();
    let differences = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let content: String = differences.lines().map(|line| content(a, b, line)).collect();
    assert!(
        output.status.success() && differences.is_empty(),
        "trees differ:\n{differences}{content}{errors}"
    );
}

/// Where the content of a file differs.
fn content(a: &Path, b: &Path, line: &str) -> String {
    let Some((_, name)) = line.split_once(' ') else { return String::new() };
    let (Ok(a), Ok(b)) = (std::fs::read(a.join(name)), std::fs::read(b.join(name))) else {
        return String::new();
    };
    let differs = |at: &usize| a.get(*at) != b.get(*at);
    let longest = a.len().max(b.len());
    let (Some(from), Some(to)) = ((0..longest).find(differs), (0..longest).rev().find(differs)) else {
        return format!("{name}: equal by now\n");
    };
    let some = |file: &[u8]| file.get(from..(from + 24).min(file.len())).unwrap_or_default().to_vec();
    let (size, other) = (a.len(), b.len());
    format!("{name}: {size} and {other} bytes, differ from {from} to {to}: {:?} / {:?}\n", some(&a), some(&b))
}
