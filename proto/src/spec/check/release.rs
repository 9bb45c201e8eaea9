//! What the form allows and this release does not carry out. A protection that does not protect must not pass
//! silently: what safety depends on is refused, the rest is said.

use super::super::{Ack, ArbiterKind, Isolation, Kind, Sync};
use super::Report;

pub(super) fn check(report: &mut Report<'_>) {
    let spec = report.spec;
    if spec.module.kind != Kind::Mirror {
        let message = format!(
            "this release accepts {} modules but runs only mirror modules",
            spec.module.kind.as_str()
        );
        report.warning("module.kind", message);
    }
    arbiters(report);
    let unused = [("process", spec.process.len()), ("check", spec.check.len())];
    for (key, _) in unused.iter().filter(|(_, len)| *len > 0) {
        report.warning(key, format!("this release reads [[{key}]] but does not act on it yet"));
    }
    for (index, directory) in spec.replicate.iter().enumerate() {
        if directory.sync == Sync::Fsync {
            report.warning(
                &format!("replicate.{index}.sync"),
                "sync = \"fsync\": the other node has what was written when fsync, msync or close returns, or the \
                 file is renamed or linked; what was written since then to files that are still open is lost if this \
                 node fails, as after a loss of power. Needs Linux 6.16 on both nodes: before, every write is \
                 replicated when it is made",
            );
        }
        if directory.ack == Ack::Disk {
            report.error(
                &format!("replicate.{index}.ack"),
                "this release has no ack = \"disk\" yet; fsync is durable on both nodes in any case",
            );
        }
    }
    if !spec.replication.sync_delta.is_zero() {
        let waits = spec.module.isolation == Isolation::Wait && spec.arbiter.is_empty();
        let message = if waits {
            "sync_delta has no effect with isolation = \"wait\": a starting node that hears nobody waits"
        } else {
            "a copy that was in step within sync_delta may serve by itself when the other node is not heard: what was \
             written there since is lost"
        };
        report.warning("replication.sync_delta", message);
    }
}

fn arbiters(report: &mut Report<'_>) {
    for (index, arbiter) in report.spec.arbiter.iter().enumerate() {
        match arbiter.kind {
            ArbiterKind::Etcd | ArbiterKind::Kubernetes => report.error(
                &format!("arbiter.{index}.kind"),
                format!(
                    "this release does not ask {} yet, so that the module would not be protected by it; use kind = \
                     \"witness\"",
                    arbiter.kind.as_str()
                ),
            ),
            ArbiterKind::Http if arbiter.target.starts_with("https://") => report.error(
                &format!("arbiter.{index}.target"),
                "this release speaks no https to an arbiter yet; use http://, or kind = \"tcp\"",
            ),
            ArbiterKind::Ping | ArbiterKind::Tcp | ArbiterKind::Http | ArbiterKind::Command | ArbiterKind::Witness => {}
        }
    }
}
