//! A comparison of both copies: run to its end, and told to the agent.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use safe_proto::replication::{Loss, Verification, VerifyDifference};

use super::Member;
use crate::backing::Backing;
use crate::progress::{Progress, told_meanwhile};
use crate::report::Report;
use crate::resync::verify::{Aspect, Difference, Findings};
use crate::resync::{Outcome, Resync, local};
use crate::session::Session;
use crate::source::Source;
use crate::throttle::Throttle;

/// Differences that are named to the agent.
const NAMED: usize = 100;

/// Compares, reports, and has what differs resent where that was asked for.
pub(super) fn run(member: &Member, session: &Arc<Session>, repair: bool, stop: &AtomicBool) {
    let (progress, findings) = (Progress::default(), Findings::default());
    let throttle = Throttle::new(member.settings().bandwidth_limit);
    let source = Source::new(&member.engine, session);
    let work = Resync::new(&source, &member.knowledge, &member.backing, &progress, &throttle, stop);
    let tell = || member.reports.hint(Report::Verification(figures(&progress, &findings, repair)));
    let outcome = told_meanwhile(tell, || work.verify(&findings));
    let named = findings.named().iter().take(NAMED).map(|one| named(one, &member.backing)).collect();
    let mut last = Verification { done: true, named, ..figures(&progress, &findings, repair) };
    match outcome {
        Outcome::InStep => {}
        Outcome::Lost(reason) | Outcome::Failed(reason) => last.reason = reason,
    }
    let resend = repair && findings.count() > 0;
    let marked = if resend { member.knowledge.merge(&findings.changes()) } else { Ok(()) };
    if let Err(error) = &marked {
        last.reason = format!("what differs cannot be marked: {error}");
    }
    member.reports.send(Report::Verification(last));
    if resend && marked.is_ok() {
        // Its resync is one like any other: while it runs the other node does not serve.
        session.lose(Loss::Stream, "the copies differ: what differs is sent again");
    }
}

fn figures(progress: &Progress, findings: &Findings, repair: bool) -> Verification {
    let figures = progress.figures();
    Verification {
        done: false,
        repair,
        files: figures.files_done,
        bytes: figures.bytes_done,
        bytes_total: figures.bytes_total,
        rate: figures.rate,
        eta_s: figures.eta_s,
        differences: findings.count(),
        named: Vec::new(),
        reason: String::new(),
    }
}

fn named(difference: &Difference, backing: &Backing) -> VerifyDifference {
    let path = match backing.roots.get(usize::from(difference.root)) {
        Some(root) => local::display(root, &difference.path),
        None => String::from_utf8_lossy(&local::join(&difference.path)).into_owned(),
    };
    let (what, offset, length) = match difference.aspect {
        Aspect::Missing => ("missing", 0, 0),
        Aspect::Extra => ("extra", 0, 0),
        Aspect::Type => ("type", 0, 0),
        Aspect::Mode => ("mode", 0, 0),
        Aspect::Owner => ("owner", 0, 0),
        Aspect::Time => ("mtime", 0, 0),
        Aspect::Xattrs => ("xattr", 0, 0),
        Aspect::Links => ("link", 0, 0),
        Aspect::Content { offset, length } => ("content", offset, length),
    };
    VerifyDifference { path, what: what.to_owned(), offset, length }
}
